/* checkpoint.c - what lies at a path, tensors by name, and elements as numbers. */
#include "checkpoint/checkpoint_internal.h"

#include <stdlib.h>
#include <string.h>

#include "base/element.h"
#include "base/file.h"
#include "base/text.h"
#include "format/json.h"
#include "format/quant.h"

/* ---- what lies there ---- */
static mn_status form_of_dir(const char *dir, mn_checkpoint_form *out) {
  char *config = mn_path_join(dir, "config.json");
  mn_arena *arena = mn_arena_new();
  const mn_value *root = NULL;
  mn_status status = config && arena ? MN_OK : MN_ERR_MEMORY;
  if (status == MN_OK && !mn_file_exists(config))
    status = mn_fail(
        MN_ERR_IO, "%s has no config.json; a model is a directory that mneme train --out made, one of Hugging Face's, or a GGUF file", dir);
  if (status == MN_OK) status = mn_checkpoint_json(arena, config, &root);
  if (status == MN_OK) {
    const bool ours = mn_value_get(root, "model") != NULL;
    if (!ours && !mn_value_get(root, "model_type") && !mn_value_get(root, "architectures"))
      status = mn_fail(MN_ERR_FORMAT, "%s: has neither 'model', as mneme train writes it, nor 'model_type', as Hugging Face's models have",
                       config);
    *out = ours ? MN_FORM_MNEME : MN_FORM_HF;
  }
  mn_arena_free(arena);
  free(config);
  return status;
}

mn_status mn_checkpoint_form_at(const char *path, mn_checkpoint_form *out) {
  mn_file_info info;
  *out = MN_FORM_MNEME;
  if (!*path) return mn_fail(MN_ERR_IO, "the name of the model is empty");
  MN_TRY(mn_file_stat(path, &info));
  if (!info.exists) return mn_fail(MN_ERR_IO, "%s does not exist", path);
  if (info.is_dir) return form_of_dir(path, out);
  mn_map map;
  MN_TRY(mn_map_open(path, &map));
  const bool gguf = mn_gguf_is(map.data, map.size);
  mn_map_close(&map);
  *out = MN_FORM_GGUF;
  if (gguf) return MN_OK;
  return mn_fail(MN_ERR_FORMAT,
                 "%s is not a model; a model is a directory that mneme train --out made, one of Hugging Face's, or a GGUF file", path);
}

/* ---- opening ---- */
enum { LOOK_EVERY = 1 << 10 };

mn_status mn_checkpoint_add(mn_checkpoint *c, const mn_checkpoint_tensor *t) {
  char shown[MN_PRINTABLE];
  if (mn_table_find(&c->at, t->name, -1) >= 0)
    return mn_fail(MN_ERR_FORMAT, "%s: tensor '%s' is in %s, too", t->file, mn_printable(t->name, shown),
                   c->tensors[mn_table_find(&c->at, t->name, -1)].file);
  if (c->n == c->room) {
    const int room = c->room ? 2 * c->room : 256;
    mn_checkpoint_tensor *more = mn_arena_alloc(c->arena, (size_t)room * sizeof *more);
    if (!more) return MN_ERR_MEMORY;
    if (c->n) memcpy(more, c->tensors, (size_t)c->n * sizeof *more);
    c->tensors = more;
    c->room = room;
  }
  if (c->n % LOOK_EVERY == LOOK_EVERY - 1) MN_TRY(mn_stop_check("opening a model"));
  c->tensors[c->n] = *t;
  return mn_table_put(&c->at, t->name, c->n++);
}

mn_status mn_checkpoint_open(const char *path, mn_checkpoint **out) {
  mn_checkpoint_form form;
  *out = NULL;
  MN_TRY(mn_checkpoint_form_at(path, &form));
  if (form == MN_FORM_MNEME) return mn_fail(MN_ERR_ARG, "%s is a directory of Mneme's, no checkpoint of another program", path);
  mn_checkpoint *c = mn_calloc(1, sizeof *c);
  if (!c) return MN_ERR_MEMORY;
  c->arena = mn_arena_new();
  c->form = form;
  c->at = (mn_table){.arena = c->arena, .names = true};
  mn_status status = c->arena && (c->path = mn_arena_strdup(c->arena, path)) ? MN_OK : MN_ERR_MEMORY;
  if (status == MN_OK && form == MN_FORM_GGUF) status = mn_checkpoint_open_gguf(c);
  if (status == MN_OK && form == MN_FORM_HF) status = mn_checkpoint_open_hf(c);
  if (status != MN_OK) mn_checkpoint_close(c);
  else *out = c;
  return status;
}

void mn_checkpoint_close(mn_checkpoint *c) {
  if (!c) return;
  for (int i = 0; i < c->n_shards; i++) mn_st_close(c->shards[i]);
  for (int i = 0; i < c->n_parts; i++) mn_gguf_close(c->parts[i]);
  mn_gguf_close(c->gguf);
  mn_arena_free(c->arena);
  free(c);
}

mn_checkpoint_form mn_checkpoint_form_of(const mn_checkpoint *c) { return c->form; }
const char *mn_checkpoint_path(const mn_checkpoint *c) { return c->path; }
const char *mn_checkpoint_settings_path(const mn_checkpoint *c) { return c->settings_path; }
const mn_value *mn_checkpoint_settings(const mn_checkpoint *c) { return c->settings; }
int mn_checkpoint_count(const mn_checkpoint *c) { return c->n; }
const mn_checkpoint_tensor *mn_checkpoint_at(const mn_checkpoint *c, int i) { return &c->tensors[i]; }

const mn_checkpoint_tensor *mn_checkpoint_find(const mn_checkpoint *c, const char *name) {
  const int i = mn_table_find(&c->at, name, -1);
  return i < 0 ? NULL : &c->tensors[i];
}

mn_status mn_checkpoint_intact(const mn_checkpoint *c) {
  for (int i = 0; i < c->n_shards; i++) MN_TRY(mn_st_intact(c->shards[i]));
  for (int i = 0; i < c->n_parts; i++) MN_TRY(mn_gguf_intact(c->parts[i]));
  return c->gguf ? mn_gguf_intact(c->gguf) : MN_OK;
}

/* ---- elements ---- */
static bool is_number(mn_dtype t) { return t == MN_F64 || mn_quant_knows(t); }

mn_status mn_checkpoint_readable(const mn_checkpoint_tensor *t) {
  char shown[MN_PRINTABLE];
  if (is_number(t->dtype)) return MN_OK;
  return mn_fail(MN_ERR_UNSUPPORTED,
                 "%s: tensor '%s' is of type %s, which is not read as numbers; F64, F32, F16, BF16 and GGUF's blocks are", t->file,
                 mn_printable(t->name, shown), t->type);
}

/* Whole blocks that lie next to one another go straight to their place; of others, and for f64, what is wanted of each is copied. */
static void read_blocks(const mn_checkpoint_tensor *t, int64_t first, int64_t n, mn_dtype dtype, void *dst) {
  const int64_t block = mn_block_values(t->dtype);
  const size_t bytes = mn_block_bytes(t->dtype);
  const uint8_t *from = t->data;
  float values[256];
  if (dtype == MN_F32 && first % block == 0 && n % block == 0) {
    mn_dequantize(t->dtype, from + (size_t)(first / block) * bytes, n, dst);
    return;
  }
  for (int64_t i = first; i < first + n;) {
    const int64_t at = i % block, end = first + n - i < block - at ? at + first + n - i : block;
    mn_dequantize(t->dtype, from + (size_t)(i / block) * bytes, block, values);
    for (int64_t k = at; k < end; k++, i++) mn_element_store(dst, dtype, i - first, (double)values[k]);
  }
}

mn_status mn_checkpoint_read(const mn_checkpoint_tensor *t, int64_t first, int64_t n, mn_dtype dtype, void *dst) {
  if (dtype != MN_F32 && dtype != MN_F64)
    return mn_fail(MN_ERR_ARG, "tensors of checkpoints are read as f32 or f64, not %s", mn_dtype_name(dtype));
  MN_TRY(mn_checkpoint_readable(t));
  if (t->dtype != MN_F64) {
    read_blocks(t, first, n, dtype, dst);
    return MN_OK;
  }
  for (int64_t i = 0; i < n; i++) {
    double x;
    memcpy(&x, (const uint8_t *)t->data + (first + i) * 8, 8);
    mn_element_store(dst, dtype, i, x);
  }
  return MN_OK;
}
