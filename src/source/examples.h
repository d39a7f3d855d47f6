/* examples.h - what sources of listed examples share: which examples are held out, and which files a list of patterns names. */
#ifndef MN_EXAMPLES_H
#define MN_EXAMPLES_H

#include "source/source.h"

typedef struct mn_held_out { /* n examples of training files, of which the last `held` of a fixed order are for validation */
  int64_t n, held;
  uint64_t key;
} mn_held_out;
mn_held_out mn_hold_out(int64_t n, double fraction);
int64_t mn_held_out_count(const mn_held_out *h, bool validation);
/* Number of the i-th example of the part in the list of all. */
int64_t mn_held_out_at(const mn_held_out *h, bool validation, int64_t i);

/* Warns of classes whose examples are all held out: nothing would be learned of them. label: that of the list's first example, others
 * `stride` bytes apart; names: of the classes, or NULL. */
mn_status mn_held_out_warn(const mn_held_out *h, const int32_t *label, size_t stride, int64_t classes, const mn_strings *names);

/* The files that patterns name (*, ?, [ ], {a,b}, ~), sorted within each pattern; in the source's arena. `key` stands in messages. */
mn_status mn_example_files(mn_source *s, const mn_strings *patterns, const char *key, mn_strings *out);

#endif
