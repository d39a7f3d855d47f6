/* recipe_tokenizer.c - the tokenizer a recipe asks for. A trained one is kept in the cache directory, under the hash of all
 * that it depends on: its tokenizer.json and a last line with that hash and the content's. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "train/recipe.h"
#include "source/shards.h"

/* Merges come from the beginning of the training text: more than this changes them little. */
static const size_t enough = (size_t)64 << 20;

typedef struct text_files { /* mapped */
  mn_map *maps;
  mn_span *spans;
  size_t n;
} text_files;

static void close_files(text_files *t) {
  for (size_t i = 0; i < t->n; i++) mn_map_close(&t->maps[i]);
  free(t->maps);
  free(t->spans);
}

/* What was made of them counts only when they were whole until then. */
static mn_status check_files(const text_files *t) {
  for (size_t i = 0; i < t->n; i++) MN_TRY(mn_context(mn_map_check(&t->maps[i]), "data.files"));
  return MN_OK;
}

/* The training text only: what is held out at the end of the files takes no part in the merges. */
static mn_status open_files(const mn_recipe *r, text_files *t) {
  const mn_data_config *data = &r->data;
  const mn_strings files = r->source.def->texts(r->source.config);
  glob_t found;
  mn_status status = mn_data_expand(&files, "files", &found);
  *t = (text_files){mn_calloc(found.gl_pathc + 1, sizeof *t->maps), mn_calloc(found.gl_pathc + 1, sizeof *t->spans), 0};
  if (status == MN_OK && (!t->maps || !t->spans)) status = MN_ERR_MEMORY;
  size_t total = 0, left;
  for (size_t i = 0; i < found.gl_pathc && status == MN_OK; i++) {
    status = mn_context(mn_map_open(found.gl_pathv[i], &t->maps[i]), "data.files");
    if (status == MN_OK) total += t->maps[t->n++].size;
  }
  globfree(&found);
  left = data->validation_files.count ? total : (size_t)((double)total * (1 - data->validation));
  if (left > enough) left = enough;
  for (size_t i = 0; i < t->n; i++) {
    size_t take = t->maps[i].size < left ? t->maps[i].size : left;
    t->spans[i] = (mn_span){(const char *)t->maps[i].data, take};
    left -= take;
  }
  return status;
}

static mn_status cache_path(const mn_recipe *r, const text_files *t, char **out) {
  mn_text key = {0};
  char hex[MN_HASH_HEX], *dir = NULL;
  mn_text_addf(&key, "bpe2 %lld %d", (long long)r->tokenizer.vocab_size, r->tokenizer.pattern);
  for (size_t i = 0; i < t->n; i++) {
    mn_content_hash(t->spans[i].data, t->spans[i].size, hex);
    mn_text_addf(&key, " %s", hex);
  }
  mn_status status = mn_text_status(&key);
  if (status == MN_OK) {
    mn_content_hash(key.data, key.len, hex);
    status = mn_data_cache_dir(&r->data, &dir);
  }
  *out = status == MN_OK ? mn_format("%s/tokenizer-%s", dir, hex) : NULL;
  mn_text_free(&key);
  free(dir);
  return status == MN_OK && !*out ? MN_ERR_MEMORY : status;
}

enum { SEAL = 2 * (MN_HASH_HEX - 1) + 3, CACHE_LIMIT = 256 << 20 }; /* "\nKEY SUM\n" without its last zero */

static void make_seal(const char *path, const char *json, size_t n, char seal[SEAL + 1]) {
  char sum[MN_HASH_HEX];
  mn_content_hash(json, n, sum);
  snprintf(seal, SEAL + 1, "\n%.32s %s\n", path + strlen(path) - (MN_HASH_HEX - 1), sum);
}

/* False: there is none, or none that can be used; *why tells the latter. */
static bool load_cached(const char *path, mn_tokenizer **out, const char **why) {
  char *text = NULL, seal[SEAL + 1];
  size_t n = 0;
  *why = NULL;
  if (!mn_file_exists(path)) return false;
  *why = "it cannot be read";
  if (mn_file_read(path, CACHE_LIMIT, &text, &n) != MN_OK) return false;
  *why = "it is damaged: its checksum is another";
  bool good = n > SEAL;
  if (good) make_seal(path, text, n - SEAL, seal);
  good = good && !memcmp(text + n - SEAL, seal, SEAL) && mn_tokenizer_parse(path, text, n - SEAL, out) == MN_OK;
  free(text);
  return good;
}

static mn_status save_cached(const mn_tokenizer *tok, const char *path) {
  size_t n;
  const char *json = mn_tokenizer_json(tok, &n);
  char seal[SEAL + 1];
  make_seal(path, json, n, seal);
  mn_file_writer *w;
  char *dir = mn_path_dir(path); /* made only now: a training that fails before leaves none */
  mn_status made = dir ? mn_make_dirs(dir) : MN_ERR_MEMORY;
  free(dir);
  MN_TRY(made);
  MN_TRY(mn_file_writer_open(path, &w));
  mn_status status = mn_file_writer_append(w, json, n);
  if (status == MN_OK) status = mn_file_writer_append(w, seal, SEAL);
  if (status == MN_OK) return mn_file_writer_commit(w);
  mn_file_writer_abort(w);
  return status;
}

static mn_status train_bpe(const mn_recipe *r, const mn_watch *watch, mn_tokenizer **out) {
  text_files t = {0};
  char *path = NULL;
  const char *why;
  mn_status status = open_files(r, &t);
  if (status == MN_OK) status = cache_path(r, &t, &path);
  if (status == MN_OK) status = check_files(&t);
  if (status == MN_OK && !load_cached(path, out, &why)) {
    if (why) mn_log_write(MN_LOG_WARN, "%s is made again from the text: %s", path, why);
    mn_tokenizer_train_config c = {
        .vocab_size = (int32_t)r->tokenizer.vocab_size, .pattern = (mn_pattern)r->tokenizer.pattern, .watch = watch};
    status = mn_tokenizer_train(&c, t.spans, t.n, out);
    mn_status whole = check_files(&t);
    if (whole != MN_OK) {
      mn_tokenizer_free(*out);
      *out = NULL;
      status = whole;
    }
    if (status == MN_OK && save_cached(*out, path) != MN_OK)
      mn_log_write(MN_LOG_WARN, "%s; the tokenizer will be trained again next time", mn_message());
  }
  free(path);
  close_files(&t);
  return status;
}

mn_status mn_recipe_tokenizer(const mn_recipe *r, const char *saved, const mn_watch *watch, mn_tokenizer **out) {
  static const char *const special[] = {"<|endoftext|>"};
  *out = NULL;
  const mn_source_def *source = r->source.def;
  if (!source->reads_text || !source->reads_text(r->source.config)) return MN_OK; /* ids or numbers */
  if (r->tokenizer.type == MN_TOKENIZER_BPE && (!source->texts || !source->texts(r->source.config).count)) {
    const mn_value *name = mn_value_get(r->data.task, "name");
    return mn_value_fail(name, "tokenizer type bpe is trained on data.files, and a task has none; use bytes or a file");
  }
  if (saved && mn_file_exists(saved)) return mn_tokenizer_load(saved, out);
  switch ((mn_tokenizer_kind)r->tokenizer.type) {
  case MN_TOKENIZER_BPE:
    return train_bpe(r, watch, out);
  case MN_TOKENIZER_FILE:
    MN_TRY(mn_context(mn_tokenizer_load(r->tokenizer.file, out), "tokenizer.file"));
    mn_tokenizer_warn_of_cuts(*out);
    return MN_OK;
  default:
    return mn_tokenizer_bytes(special, 1, out);
  }
}
