/* examples.c - see examples.h. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>

#include "source/examples.h"

#include "base/text.h"
#include "source/shards.h"

/* The order does not depend on the run's seed: every run holds out the same. */
mn_held_out mn_hold_out(int64_t n, double fraction) {
  int64_t held = (int64_t)((double)n * fraction);
  return (mn_held_out){n, held, mn_hash_str("held out")};
}

int64_t mn_held_out_count(const mn_held_out *h, bool validation) { return validation ? h->held : h->n - h->held; }

int64_t mn_held_out_at(const mn_held_out *h, bool validation, int64_t i) {
  if (!h->held) return i;
  return mn_shuffled(h->key, h->n, validation ? h->n - h->held + i : i);
}

mn_status mn_held_out_warn(const mn_held_out *h, const int32_t *label, size_t stride, int64_t classes, const mn_strings *names) {
  enum { HELD = 1, TRAINED = 2 };
  if (!h->held || classes <= 0) return MN_OK;
  uint8_t *seen = mn_calloc((size_t)classes, 1);
  if (!seen) return MN_ERR_MEMORY;
  for (int part = 0; part < 2; part++)
    for (int64_t i = 0; i < mn_held_out_count(h, part); i++) {
      const int32_t class = *(const int32_t *)(const void *)((const char *)label + stride * (size_t)mn_held_out_at(h, part, i));
      if (class >= 0 && class < classes) seen[class] |= part ? HELD : TRAINED;
    }
  int64_t lost = 0, first = 0;
  for (int64_t i = 0; i < classes; i++)
    if (seen[i] == HELD && !lost++) first = i;
  free(seen);
  char number[32], shown[MN_PRINTABLE];
  snprintf(number, sizeof number, "%lld", (long long)first);
  if (lost)
    mn_log_write(
        MN_LOG_WARN,
        "data.validation holds out every example of %lld of %lld classes (the first is %s), of which nothing will be learned; lower "
        "it, or name files for the test",
        (long long)lost, (long long)classes, names && names->count ? mn_printable(names->items[first], shown) : number);
  return MN_OK;
}

mn_status mn_example_files(mn_source *s, const mn_strings *patterns, const char *key, mn_strings *out) {
  glob_t found = {0};
  *out = (mn_strings){0};
  mn_status status = mn_data_expand(patterns, key, &found);
  const char **names = status == MN_OK ? mn_arena_alloc(s->arena, (found.gl_pathc + 1) * sizeof *names) : NULL;
  if (status == MN_OK && !names) status = MN_ERR_MEMORY;
  for (size_t i = 0; status == MN_OK && i < found.gl_pathc; i++)
    if (!(names[i] = mn_arena_strdup(s->arena, found.gl_pathv[i]))) status = MN_ERR_MEMORY;
  if (status == MN_OK) *out = (mn_strings){names, (int)found.gl_pathc};
  if (patterns->count) globfree(&found);
  return status;
}
