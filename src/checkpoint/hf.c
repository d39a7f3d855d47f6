/* hf.c - a directory as Hugging Face's programs write it: config.json, and model.safetensors, or shards and the list of what is in
 * which (model.safetensors.index.json). */
#include "base/file.h"
#include "base/text.h"
#include "checkpoint/checkpoint_internal.h"
#include "format/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_SHARDS = 4096 };

mn_status mn_checkpoint_write_json(const char *dir, const char *name, const mn_value *map) {
  mn_text text = {0};
  char *path = mn_path_join(dir, name);
  mn_status status = path && map ? mn_value_to_json(map, 2, &text) : MN_ERR_MEMORY;
  mn_text_add(&text, "\n");
  if (status == MN_OK) status = mn_text_status(&text);
  if (status == MN_OK) status = mn_file_write(path, text.data, text.len);
  mn_text_free(&text);
  free(path);
  return status;
}

static mn_status add_tensors(mn_checkpoint *c, const mn_st *st) {
  for (int i = 0; i < mn_st_count(st); i++) {
    const mn_st_tensor *t = mn_st_at(st, i);
    const mn_checkpoint_tensor as = {.name = t->name,
                                     .file = mn_st_path(st),
                                     .type = t->file_dtype,
                                     .dtype = !strcmp(t->file_dtype, "F16") ? MN_F16 : t->dtype,
                                     .shape = t->shape,
                                     .data = t->data,
                                     .bytes = t->bytes};
    MN_TRY(mn_checkpoint_add(c, &as));
  }
  return MN_OK;
}

static mn_status open_shard(mn_checkpoint *c, const char *name) {
  char *path = mn_path_join(c->path, name);
  mn_status status = path ? mn_st_open(path, &c->shards[c->n_shards]) : MN_ERR_MEMORY;
  free(path);
  if (status == MN_OK) status = add_tensors(c, c->shards[c->n_shards++]);
  return status;
}

/* A file beside the index, and nothing else. */
static mn_status check_name(const mn_value *v) {
  char shown[MN_PRINTABLE];
  if (v->kind != MN_TEXT) return mn_value_fail(v, "a tensor's file must be a name");
  const char *name = v->as.text;
  const size_t n = strlen(name);
  if (strchr(name, '/') || strchr(name, '\\') || n < 13 || strcmp(name + n - 12, ".safetensors") != 0)
    return mn_value_fail(v, "'%s' is no name of a safetensors file beside the index", mn_printable(name, shown));
  return MN_OK;
}

/* Every tensor stands in the shard that the index says, and none is in a shard that the index does not know. */
static mn_status check_index(const mn_checkpoint *c, const mn_value *map) {
  char shown[MN_PRINTABLE];
  for (size_t i = 0; i < map->count; i++) {
    const mn_entry *e = &map->as.entries[i];
    const mn_checkpoint_tensor *t = mn_checkpoint_find(c, e->key);
    if (!t)
      return mn_value_fail(e->value, "tensor '%s' is not in %s; a file was changed or cut short", mn_printable(e->key, shown),
                           e->value->as.text);
    if (strcmp(mn_path_base(t->file), e->value->as.text) != 0)
      return mn_value_fail(e->value, "tensor '%s' is said to be in %s, and is in %s", mn_printable(e->key, shown), e->value->as.text,
                           t->file);
  }
  if ((size_t)c->n == map->count) return MN_OK;
  mn_table said = {.arena = c->arena, .names = true};
  for (size_t i = 0; i < map->count; i++) MN_TRY(mn_table_put(&said, map->as.entries[i].key, 0));
  for (int i = 0; i < c->n; i++)
    if (mn_table_find(&said, c->tensors[i].name, -1) < 0)
      return mn_fail(MN_ERR_FORMAT, "%s: tensor '%s' is not in the index; the shards are not all of one model", c->tensors[i].file,
                     mn_printable(c->tensors[i].name, shown));
  return MN_OK;
}

static mn_status open_index(mn_checkpoint *c, const char *path) {
  const mn_value *root;
  const char *names[MOST_SHARDS];
  mn_table known = {.arena = c->arena, .names = true};
  int n = 0;
  MN_TRY(mn_json_read(c->arena, path, &root));
  const mn_value *map = mn_value_get(root, "weight_map");
  if (!map || map->kind != MN_MAP || !map->count)
    return mn_fail(MN_ERR_FORMAT, "%s: must have the map 'weight_map', from tensors to files", path);
  for (size_t i = 0; i < map->count; i++) {
    const mn_value *v = map->as.entries[i].value;
    MN_TRY(check_name(v));
    if (mn_table_find(&known, v->as.text, -1) >= 0) continue;
    MN_TRY(mn_table_put(&known, v->as.text, n));
    if (n == MOST_SHARDS) return mn_value_fail(v, "more than %d files", MOST_SHARDS);
    names[n++] = v->as.text;
  }
  if (!(c->shards = mn_arena_alloc(c->arena, (size_t)n * sizeof *c->shards))) return MN_ERR_MEMORY;
  for (int i = 0; i < n; i++) MN_TRY(open_shard(c, names[i]));
  return check_index(c, map);
}

/* Programs in Python write an infinite number as the word Infinity, which is no JSON: as a number that is as good as infinite, of as many
 * letters, it is. And whole numbers have any number of digits there (a model_max_length of 10^30 means none): those of more than 64 bits
 * become real ones. */
static void as_json(char *text, size_t n) {
  bool quoted = false;
  for (size_t i = 0; i < n; i++) {
    if (quoted && text[i] == '\\') i++; /* what stands behind it ends no text */
    else if (text[i] == '"') quoted = !quoted;
    if (quoted || i >= n) continue;
    if (i + 8 <= n && !memcmp(text + i, "Infinity", 8)) memcpy(text + i, "1e308   ", 8);
    size_t digits = 0;
    while (i + digits < n && text[i + digits] >= '0' && text[i + digits] <= '9') digits++;
    const bool whole = digits && (i + digits == n || !strchr(".eE", text[i + digits])) && (!i || !strchr(".eE+", text[i - 1]));
    if (whole && digits >= 20 && digits < 300) {
      char number[32];
      const int length = snprintf(number, sizeof number, "%.15se%zu", text + i, digits - 15);
      memcpy(text + i, number, (size_t)length);
      memset(text + i + length, ' ', digits - (size_t)length);
    }
    if (digits) i += digits - 1;
  }
}

mn_status mn_checkpoint_json(mn_arena *arena, const char *path, const mn_value **out) {
  char *text = NULL;
  size_t n = 0;
  MN_TRY(mn_file_read(path, (size_t)64 << 20, &text, &n));
  as_json(text, n);
  mn_status status = mn_json_parse(arena, path, text, n, out);
  free(text);
  return status;
}

mn_status mn_checkpoint_open_hf(mn_checkpoint *c) {
  char *config = mn_path_join(c->path, "config.json"), *single = mn_path_join(c->path, "model.safetensors");
  char *index = mn_path_join(c->path, "model.safetensors.index.json"), *pickle = mn_path_join(c->path, "pytorch_model.bin");
  mn_status status = config && single && index && pickle && (c->settings_path = mn_arena_strdup(c->arena, config)) ? MN_OK : MN_ERR_MEMORY;
  if (status == MN_OK) status = mn_checkpoint_json(c->arena, config, &c->settings);
  const bool one = status == MN_OK && mn_file_exists(single), several = status == MN_OK && mn_file_exists(index);
  if (one && several)
    mn_log_write(MN_LOG_WARN, "%s: model.safetensors is read, and the shards of model.safetensors.index.json are not", c->path);
  if (several && !one) {
    status = open_index(c, index);
  } else if (one) {
    c->shards = mn_arena_alloc(c->arena, sizeof *c->shards);
    status = c->shards ? open_shard(c, "model.safetensors") : MN_ERR_MEMORY;
  } else if (status == MN_OK) {
    status = mn_fail(
        MN_ERR_IO, "%s has neither model.safetensors nor model.safetensors.index.json%s", c->path,
        mn_file_exists(pickle) ? "; pytorch_model.bin is a program as much as data and is not opened: save the model as safetensors" : "");
  }
  free(config);
  free(single);
  free(index);
  free(pickle);
  return status;
}
