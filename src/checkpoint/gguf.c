/* gguf.c - a GGUF file as a checkpoint: its tensors, and its metadata as a map of settings. */
#include <float.h>
#include <string.h>

#include "base/text.h"
#include "checkpoint/checkpoint_internal.h"
#include "format/gguf.h"

enum { MOST_ITEMS = 4096 }; /* of a list among the settings: what is longer is a vocabulary */

static mn_status add_tensors(mn_checkpoint *c) {
  for (int i = 0; i < mn_gguf_count(c->gguf); i++) {
    const mn_gguf_tensor *t = mn_gguf_at(c->gguf, i);
    const mn_checkpoint_tensor as = {.name = t->name,
                                     .file = c->path,
                                     .type = t->type->name,
                                     .dtype = t->type->dtype,
                                     .shape = t->shape,
                                     .data = t->data,
                                     .bytes = t->bytes};
    MN_TRY(mn_gguf_check(c->gguf, t));
    MN_TRY(mn_checkpoint_add(c, &as));
  }
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
  return add_tensors(c);
}
