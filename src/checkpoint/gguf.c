/* gguf.c - a GGUF file as a checkpoint: its tensors, and its metadata as a map of settings. A model may be split into files
 * NAME-00001-of-00003.gguf and so on, of which the first has the metadata: it is opened, and the others are found beside it. */
#include <float.h>
#include <string.h>

#include "base/text.h"
#include "checkpoint/checkpoint_internal.h"
#include "format/gguf.h"

enum {
  MOST_ITEMS = 4096, /* of a list among the settings: what is longer is a vocabulary */
  MOST_PARTS = 99999 /* of a model: their numbers have five digits */
};

static mn_status add_tensors(mn_checkpoint *c, const mn_gguf *g) {
  for (int i = 0; i < mn_gguf_count(g); i++) {
    const mn_gguf_tensor *t = mn_gguf_at(g, i);
    const mn_checkpoint_tensor as = {.name = t->name,
                                     .file = mn_gguf_path(g),
                                     .type = t->type->name,
                                     .dtype = t->type->dtype,
                                     .shape = t->shape,
                                     .data = t->data,
                                     .bytes = t->bytes};
    MN_TRY(mn_gguf_check(g, t));
    MN_TRY(mn_checkpoint_add(c, &as));
  }
  return MN_OK;
}

/* ---- a model in several files ---- */

/* What a file says of its place: it is number *no of *count, from 0 on; a whole model is number 0 of 1. */
static mn_status read_place(const mn_gguf *g, int64_t *no, int64_t *count) {
  const int64_t zero = 0, one = 1;
  MN_TRY(mn_gguf_i64(g, "split.no", &zero, no));
  MN_TRY(mn_gguf_i64(g, "split.count", &one, count));
  if (*count == 0) *count = 1;
  if (*count < 1 || *count > MOST_PARTS || *no < 0 || *no >= *count)
    return mn_fail(MN_ERR_FORMAT, "%s: says that it is file %lld of %lld (metadata keys 'split.no', 'split.count')", mn_gguf_path(g),
                   (long long)*no + 1, (long long)*count);
  return MN_OK;
}

/* The name of file number `no` beside the first one's, in the arena; NULL: the first is not named so. */
static const char *part_name(mn_arena *arena, const char *first, int64_t no, int64_t count) {
  const char *end = mn_arena_format(arena, "-00001-of-%05lld.gguf", (long long)count);
  const size_t n = strlen(first), m = end ? strlen(end) : 0;
  if (!end || n <= m || strcmp(first + n - m, end) != 0) return NULL;
  return mn_arena_format(arena, "%.*s-%05lld-of-%05lld.gguf", (int)(n - m), first, (long long)no + 1, (long long)count);
}

static mn_status open_part(mn_checkpoint *c, int64_t no, int64_t count) {
  const char *path = part_name(c->arena, c->path, no, count);
  int64_t is, of;
  if (!path)
    return mn_fail(MN_ERR_FORMAT, "%s: the first of %lld files, which must be named NAME-00001-of-%05lld.gguf for the others to be found",
                   c->path, (long long)count, (long long)count);
  MN_TRY(mn_context(mn_gguf_open(path, &c->parts[c->n_parts]), "file %lld of %lld", (long long)no + 1, (long long)count));
  const mn_gguf *g = c->parts[c->n_parts++];
  MN_TRY(read_place(g, &is, &of));
  if (is != no || of != count)
    return mn_fail(MN_ERR_FORMAT, "%s: says that it is file %lld of %lld, and should be file %lld of %lld", path, (long long)is + 1,
                   (long long)of, (long long)no + 1, (long long)count);
  return add_tensors(c, g);
}

static mn_status open_parts(mn_checkpoint *c) {
  const int64_t none = -1;
  int64_t no, count, tensors;
  MN_TRY(read_place(c->gguf, &no, &count));
  if (count == 1) return MN_OK;
  if (no)
    return mn_fail(MN_ERR_ARG, "%s: file %lld of %lld of a model; open the first of them", c->path, (long long)no + 1, (long long)count);
  if (!(c->parts = mn_arena_alloc(c->arena, (size_t)count * sizeof *c->parts))) return MN_ERR_MEMORY;
  for (int64_t i = 1; i < count; i++) MN_TRY(open_part(c, i, count));
  MN_TRY(mn_gguf_i64(c->gguf, "split.tensors.count", &none, &tensors));
  if (tensors >= 0 && tensors != c->n)
    return mn_fail(MN_ERR_FORMAT, "%s: the %lld files hold %d tensors, and metadata key 'split.tensors.count' says %lld", c->path,
                   (long long)count, c->n, (long long)tensors);
  return MN_OK;
}

/* ---- metadata as values ---- */
static mn_status number(const mn_checkpoint *c, const mn_gguf_meta *m, const mn_value **out) {
  double real;
  int64_t integer;
  bool yes;
  if (m->kind == MN_GGUF_FLOAT32 || m->kind == MN_GGUF_FLOAT64) {
    MN_TRY(mn_gguf_f64(c->gguf, m->key, NULL, &real));
    *out = mn_value_real(c->arena, real);
  } else if (m->kind == MN_GGUF_BOOL) {
    MN_TRY(mn_gguf_bool(c->gguf, m->key, NULL, &yes));
    *out = mn_value_bool(c->arena, yes);
  } else {
    MN_TRY(mn_gguf_i64(c->gguf, m->key, NULL, &integer));
    *out = mn_value_int(c->arena, integer);
  }
  return *out ? MN_OK : MN_ERR_MEMORY;
}

static mn_status list(const mn_checkpoint *c, const mn_gguf_meta *m, const mn_value **out) {
  const mn_value *items[MOST_ITEMS];
  const bool real = m->of == MN_GGUF_FLOAT32 || m->of == MN_GGUF_FLOAT64;
  const int64_t *ints = NULL;
  const float *floats = NULL;
  size_t n = 0;
  if (m->count > MOST_ITEMS || m->of == MN_GGUF_STRING || m->of == MN_GGUF_ARRAY) return MN_OK;
  if (real) MN_TRY(mn_gguf_floats(c->gguf, m->key, c->arena, &floats, &n));
  else MN_TRY(mn_gguf_ints(c->gguf, m->key, c->arena, &ints, &n));
  for (size_t i = 0; i < n; i++)
    items[i] = real                    ? mn_value_real(c->arena, (double)floats[i])
               : m->of == MN_GGUF_BOOL ? mn_value_bool(c->arena, ints[i] != 0)
                                       : mn_value_int(c->arena, ints[i]);
  *out = mn_value_list(c->arena, n, items);
  return *out ? MN_OK : MN_ERR_MEMORY;
}

static mn_status value(const mn_checkpoint *c, const mn_gguf_meta *m, const mn_value **out) {
  const char *text;
  *out = NULL;
  if (!strncmp(m->key, "tokenizer.", 10)) return MN_OK;
  if (m->kind == MN_GGUF_ARRAY) return list(c, m, out);
  if (m->kind != MN_GGUF_STRING) return number(c, m, out);
  MN_TRY(mn_gguf_string(c->gguf, m->key, NULL, c->arena, &text));
  *out = mn_value_text(c->arena, text);
  return *out ? MN_OK : MN_ERR_MEMORY;
}

static mn_status read_settings(mn_checkpoint *c) {
  const int n = mn_gguf_meta_count(c->gguf);
  const char **keys = mn_arena_alloc(c->arena, (size_t)(n + 1) * sizeof *keys);
  const mn_value **values = mn_arena_alloc(c->arena, (size_t)(n + 1) * sizeof *values);
  size_t count = 0;
  if (!keys || !values) return MN_ERR_MEMORY;
  for (int i = 0; i < n; i++) {
    const mn_gguf_meta *m = mn_gguf_meta_at(c->gguf, i);
    MN_TRY(value(c, m, &values[count]));
    keys[count] = m->key;
    if (values[count]) count++;
  }
  c->settings = mn_value_map(c->arena, count, keys, values);
  return c->settings ? MN_OK : MN_ERR_MEMORY;
}

mn_status mn_checkpoint_open_gguf(mn_checkpoint *c) {
  MN_TRY(mn_gguf_open(c->path, &c->gguf));
  c->settings_path = c->path;
  MN_TRY(read_settings(c));
  MN_TRY(add_tensors(c, c->gguf));
  return open_parts(c);
}
