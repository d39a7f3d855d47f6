/* nearest.h - which valid name did the user mean? Used wherever a name is refused: verbs, options, recipe keys. */
#ifndef MN_NEAREST_H
#define MN_NEAREST_H

/* The entry of names[0..n) closest to `word` by edit distance (insert, delete, replace, swap of neighbours; letter
 * case, '-' and '_' do not count), or a name that `word` begins; NULL when nothing is near enough to suggest. */
const char *mn_nearest(const char *word, const char *const *names, int n);

#endif
