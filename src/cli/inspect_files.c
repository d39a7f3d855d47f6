/* inspect_files.c - see inspect_files.h. */
#include "cli/inspect_files.h"

#include "cli/cli.h"

#include "base/file.h"
#include "base/text.h"
#include "format/json.h"
#include "model/model.h"
#include "model/origin.h"
#include "train/recipe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool mn_is_safetensors(const char *path) {
  static const char end[] = ".safetensors";
  size_t n = strlen(path), m = sizeof end - 1;
  return n > m && !strcmp(path + n - m, end);
}

static json_t *add_record(json_t *list, const char *path, bool checksums, const char *note) {
  json_t *record = json_object();
  json_object_set_new(record, "file", mn_cli_text(path));
  json_object_set_new(record, "checksums", json_string(checksums ? "hold" : "none"));
  json_object_set_new(record, "note", json_string(note));
  json_array_append(list, record);
  json_decref(record); /* the list keeps it */
  return record;
}

/* ---- safetensors ---- */

static mn_status nowhere(void *ctx, size_t offset, size_t n, const void *bytes) {
  (void)ctx, (void)offset, (void)n, (void)bytes;
  return MN_OK;
}

/* Checksums, and that numbers are numbers. */
static mn_status check_tensors(const mn_st *st) {
  for (int i = 0; i < mn_st_count(st); i++) {
    MN_TRY(mn_stop_check("checking a file of tensors"));
    const mn_st_tensor *t = mn_st_at(st, i);
    MN_TRY(t->dtype == MN_DTYPES ? mn_st_check(st, t) : mn_st_read_to(st, t, t->dtype, mn_dtype_is_float(t->dtype), nowhere, NULL));
  }
  return MN_OK;
}

mn_status mn_inspect_safetensors(const char *path, json_t *list) {
  mn_st *st;
  MN_TRY(mn_st_open(path, &st));
  mn_status status = check_tensors(st);
  const char *format = mn_st_meta(st, "format");
  bool checksums = mn_st_checksum(st) != NULL, ours = format && !strncmp(format, "mneme", 5);
  if (status == MN_OK) {
    json_t *record = add_record(list, path, checksums,
                                checksums ? "checksums hold"
                                : ours    ? "no checksums: written by an earlier Mneme, damage cannot be noticed"
                                          : "no checksums: not written by Mneme, damage cannot be noticed");
    size_t bytes = 0;
    for (int i = 0; i < mn_st_count(st); i++) bytes += mn_st_at(st, i)->bytes;
    json_object_set_new(record, "tensors", json_integer(mn_st_count(st)));
    json_object_set_new(record, "bytes", json_integer((json_int_t)bytes));
    json_t *belongs = json_object();
    for (int i = 0; i < mn_st_meta_count(st); i++)
      json_object_set_new(belongs, mn_st_meta_key(st, i), mn_cli_text(mn_st_meta_value(st, i)));
    json_object_set_new(record, "metadata", belongs);
  }
  mn_st_close(st);
  return status;
}

/* ---- a model's directory ---- */

static void add_sealed(json_t *list, const char *path, bool sealed) {
  add_record(list, path, sealed, sealed ? "checksum holds" : "no checksum: edited by hand, or not of this version");
}

static mn_status inspect_config(const char *path, json_t *list, const mn_origin *o, const char *weights) {
  mn_arena *arena = mn_arena_new();
  const mn_value *root;
  bool sealed;
  mn_status status = arena ? mn_model_read_config(arena, path, &root, &sealed) : MN_ERR_MEMORY;
  if (status == MN_OK) status = mn_origin_check_config(o, weights, path, root, sealed);
  if (status == MN_OK) add_sealed(list, path, sealed);
  mn_arena_free(arena);
  return status;
}

static mn_status inspect_recipe(const char *path, json_t *list) {
  mn_arena *arena = mn_arena_new();
  const mn_value *root;
  bool sealed;
  mn_status status = arena ? mn_json_read_sealed(arena, path, &root, &sealed) : MN_ERR_MEMORY;
  if (status == MN_OK) status = mn_recipe_check(root);
  if (status == MN_OK) add_sealed(list, path, sealed);
  mn_arena_free(arena);
  return status;
}

static mn_status inspect_tokenizer(const char *path, json_t *list, const mn_origin *o, const char *weights) {
  char hash[MN_HASH_HEX];
  MN_TRY(mn_file_hash(path, hash));
  MN_TRY(mn_origin_check_tokenizer(o, weights, path, hash));
  bool known = o->tokenizer[0];
  add_record(list, path, known,
             known ? "the tokenizer that the weights were trained with" : "the weights do not say which tokenizer is theirs");
  return MN_OK;
}

static mn_status origin_of(const char *weights, mn_origin *o) {
  mn_st *st;
  MN_TRY(mn_st_open(weights, &st));
  mn_origin_read(st, o);
  o->run = NULL; /* dies with st */
  mn_st_close(st);
  return MN_OK;
}

mn_status mn_inspect_model_dir(const char *dir, json_t *list) {
  enum { WEIGHTS, CONFIG, TOKENIZER, RECIPE, N };
  static const char *const names[N] = {"model.safetensors", "config.json", "tokenizer.json", "recipe.json"};
  char *path[N] = {0};
  bool there[N] = {0};
  mn_origin origin = {0};
  mn_status status = MN_OK;
  for (int i = 0; i < N && status == MN_OK; i++) {
    path[i] = mn_path_join(dir, names[i]);
    if (!path[i]) status = MN_ERR_MEMORY;
    else there[i] = mn_file_exists(path[i]);
  }
  if (status == MN_OK && there[WEIGHTS]) status = mn_inspect_safetensors(path[WEIGHTS], list);
  if (status == MN_OK && there[WEIGHTS]) status = origin_of(path[WEIGHTS], &origin);
  if (status == MN_OK && there[CONFIG]) status = inspect_config(path[CONFIG], list, &origin, path[WEIGHTS]);
  if (status == MN_OK && there[TOKENIZER]) status = inspect_tokenizer(path[TOKENIZER], list, &origin, path[WEIGHTS]);
  if (status == MN_OK && there[RECIPE]) status = inspect_recipe(path[RECIPE], list);
  for (int i = 0; i < N; i++) free(path[i]);
  return status;
}

/* ---- for people ---- */

void mn_print_files(const json_t *list) {
  size_t i;
  json_t *record, *value;
  const char *key;
  json_array_foreach(list, i, record) {
    mn_print("%s: %s\n", json_string_value(json_object_get(record, "file")), json_string_value(json_object_get(record, "note")));
    json_t *tensors = json_object_get(record, "tensors");
    if (tensors)
      mn_print("  %lld tensors, %lld bytes\n", (long long)json_integer_value(tensors),
               (long long)json_integer_value(json_object_get(record, "bytes")));
    json_object_foreach(json_object_get(record, "metadata"), key, value) {
      char a[MN_PRINTABLE], b[MN_PRINTABLE];
      mn_print("  %-13s %s\n", mn_printable(key, a), mn_printable(json_string_value(value), b));
    }
  }
}
