/* token_lists.h - texts as lists of token ids, one after the other in one array: what sources of pairs and dialogues keep. */
#ifndef MN_TOKEN_LISTS_H
#define MN_TOKEN_LISTS_H

#include "source/source.h"

typedef struct mn_token_lists {
  mn_ids ids;
  int64_t *end; /* of each list */
  int64_t n, cap;
} mn_token_lists;

mn_status mn_token_lists_close_one(mn_token_lists *x); /* what was added to `ids` since the last call is a list */
int64_t mn_token_list(const mn_token_lists *x, int64_t i, const int32_t **ids);
void mn_token_lists_free(mn_token_lists *x);

/* Called with each line of a text file, without its end; `place` is "file:line". Empty lines too. */
typedef mn_status (*mn_line_fn)(void *ctx, const char *place, const char *line, size_t n);
mn_status mn_each_line(const char *path, mn_line_fn f, void *ctx);

#endif
