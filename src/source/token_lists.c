/* token_lists.c - see token_lists.h. */
#include "source/token_lists.h"

#include "format/spelled.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

mn_status mn_token_lists_close_one(mn_token_lists *x) {
  if (x->n == x->cap) {
    int64_t cap = x->cap ? 2 * x->cap : 256, *more = mn_realloc(x->end, (size_t)cap * sizeof *more);
    if (!more) return MN_ERR_MEMORY;
    x->end = more;
    x->cap = cap;
  }
  x->end[x->n++] = (int64_t)x->ids.len;
  return MN_OK;
}

int64_t mn_token_list(const mn_token_lists *x, int64_t i, const int32_t **ids) {
  int64_t from = i ? x->end[i - 1] : 0;
  *ids = x->ids.data + from;
  return x->end[i] - from;
}

void mn_token_lists_free(mn_token_lists *x) {
  mn_ids_free(&x->ids);
  free(x->end);
  *x = (mn_token_lists){0};
}

mn_status mn_each_line(const char *path, mn_line_fn f, void *ctx) {
  mn_map map = {0};
  MN_TRY(mn_map_open(path, &map));
  const char *p = (const char *)map.data, *stop = p + map.size;
  mn_status status = MN_OK;
  char *place = NULL;
  mn_spelled spelled = {0};
  for (int64_t line = 1; p < stop && status == MN_OK; line++) {
    const char *end = memchr(p, '\n', (size_t)(stop - p));
    size_t n = (size_t)((end ? end : stop) - p);
    free(place);
    place = mn_format("%s:%lld", path, (long long)line);
    status = place ? f(ctx, place, p, n && p[n - 1] == '\r' ? n - 1 : n) : MN_ERR_MEMORY;
    mn_spelled_add(&spelled, p, n);
    if (status == MN_OK && line % 1024 == 0) status = mn_stop_check("a text was read");
    p = end ? end + 1 : stop;
  }
  free(place);
  if (status == MN_OK && spelled.count >= MN_SPELLED_MANY)
    mn_log_write(MN_LOG_WARN, "%s spells out %s %lld times: that is read as the text it is, not as a special token", path, spelled.name,
                 (long long)spelled.count);
  mn_status whole = mn_map_check(&map);
  mn_map_close(&map);
  return status == MN_OK ? whole : status;
}
