/* sentences.c - see sentences.h. */
#include "checkpoint/sentences.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/dir.h"
#include "base/file.h"
#include "base/text.h"
#include "checkpoint/checkpoint_internal.h"
#include "checkpoint/settings.h"

enum { GGUF_NONE, GGUF_MEAN, GGUF_FIRST, GGUF_LAST };

void mn_sentences_free(mn_sentences *s) {
  free(s->fault);
  *s = (mn_sentences){0};
}

/* ---- directories ---- */

/* DIR/folder/name as a tree, NULL where it is not there; *path is its name for messages. */
static mn_status read_file(mn_arena *arena, const char *dir, const char *folder, const char *name, const char **path,
                           const mn_value **out) {
  *out = NULL;
  *path = *folder ? mn_arena_format(arena, "%s/%s/%s", dir, folder, name) : mn_arena_format(arena, "%s/%s", dir, name);
  if (!*path) return MN_ERR_MEMORY;
  return mn_file_exists(*path) ? mn_checkpoint_json(arena, *path, out) : MN_OK;
}

static bool is_true(const mn_value *v) { return v && v->kind == MN_BOOLEAN && v->as.boolean; }

/* Of all the modes that the module may have, one must be true, and be one that is done. */
static mn_status read_pooling(mn_arena *arena, const char *dir, const char *folder, mn_sentences *out) {
  static const struct {
    const char *key;
    mn_pooling how;
  } modes[] = {{"pooling_mode_mean_tokens", MN_POOL_MEAN},
               {"pooling_mode_mean_sqrt_len_tokens", MN_POOL_MEAN}, /* of another length, and all are made of length 1 */
               {"pooling_mode_cls_token", MN_POOL_FIRST},
               {"pooling_mode_lasttoken", MN_POOL_LAST}};
  const mn_value *map;
  const char *path;
  char shown[MN_PRINTABLE];
  int n = 0;
  MN_TRY(read_file(arena, dir, folder, "config.json", &path, &map));
  if (!map) return mn_fail(MN_ERR_FORMAT, "%s is not there, and modules.json names it", path);
  const mn_value *word = mn_value_get(map, "pooling_mode");
  if (word && word->kind == MN_TEXT)
    return mn_fail(MN_ERR_UNSUPPORTED, "%s: pooling_mode is '%s'; modes are read as pooling_mode_cls_token: true and the like", path,
                   mn_printable(word->as.text, shown));
  for (size_t i = 0; map->kind == MN_MAP && i < map->count; i++) {
    const char *key = map->as.entries[i].key;
    size_t k = 0;
    if (strncmp(key, "pooling_mode", 12) != 0 || !is_true(map->as.entries[i].value)) continue;
    while (k < sizeof modes / sizeof *modes && strcmp(key, modes[k].key) != 0) k++;
    if (k == sizeof modes / sizeof *modes)
      return mn_fail(MN_ERR_UNSUPPORTED, "%s: %s is true, and is not done; %s, %s, %s and %s are", path, mn_printable(key, shown),
                     modes[0].key, modes[1].key, modes[2].key, modes[3].key);
    out->pooling = modes[k].how;
    n++;
  }
  return n == 1 ? MN_OK : mn_fail(MN_ERR_UNSUPPORTED, "%s: %d modes of pooling are true; one must be", path, n);
}

static mn_status read_limits(mn_arena *arena, const char *dir, const char *folder, mn_sentences *out) {
  const mn_value *map;
  const char *path;
  MN_TRY(read_file(arena, dir, folder, "sentence_bert_config.json", &path, &map));
  const mn_value *most = mn_value_get(map, "max_seq_length");
  out->lower = is_true(mn_value_get(map, "do_lower_case"));
  if (!most || most->kind == MN_NULL) return MN_OK;
  if (most->kind != MN_INTEGER || most->as.integer < 1)
    return mn_fail(MN_ERR_FORMAT, "%s: max_seq_length must be an integer of at least 1", path);
  out->most = most->as.integer;
  return MN_OK;
}

/* A prompt that stands before each text, where nobody asks for another. */
static mn_status check_prompt(mn_arena *arena, const char *dir) {
  const mn_value *map;
  const char *path;
  char shown[MN_PRINTABLE], words[MN_PRINTABLE];
  MN_TRY(read_file(arena, dir, "", "config_sentence_transformers.json", &path, &map));
  const mn_value *name = mn_value_get(map, "default_prompt_name");
  if (!name || name->kind != MN_TEXT) return MN_OK;
  const mn_value *prompt = mn_value_get(mn_value_get(map, "prompts"), name->as.text);
  const char *text = prompt && prompt->kind == MN_TEXT ? prompt->as.text : "";
  return !*text
             ? MN_OK
             : mn_fail(MN_ERR_UNSUPPORTED,
                       "%s: default_prompt_name is '%s', so that '%s' stands before each text, which is not done; make it null and put the "
                       "prompt before the texts yourself",
                       path, mn_printable(name->as.text, shown), mn_printable(text, words));
}

/* "sentence_transformers.models.Pooling" is a Pooling. */
static const char *kind_of(const mn_value *module) {
  const mn_value *type = mn_value_get(module, "type");
  const char *dot = type && type->kind == MN_TEXT ? strrchr(type->as.text, '.') : NULL;
  return dot ? dot + 1 : type && type->kind == MN_TEXT ? type->as.text : "";
}

static mn_status read_modules(mn_arena *arena, const char *dir, mn_sentences *out) {
  const mn_value *list;
  const char *path;
  char shown[MN_PRINTABLE];
  bool pooled = false;
  MN_TRY(read_file(arena, dir, "", "modules.json", &path, &list));
  if (!list) return MN_OK;
  if (list->kind != MN_LIST) return mn_fail(MN_ERR_FORMAT, "%s must be a list of modules", path);
  MN_TRY(check_prompt(arena, dir));
  for (size_t i = 0; i < list->count; i++) {
    const mn_value *folder = mn_value_get(list->as.items[i], "path");
    const char *kind = kind_of(list->as.items[i]), *name = folder && folder->kind == MN_TEXT ? folder->as.text : "";
    if (*name && (strchr(name, '/') || *name == '.'))
      return mn_fail(MN_ERR_FORMAT, "%s: '%s' is no folder beside it", path, mn_printable(name, shown));
    if (!strcmp(kind, "Normalize")) continue;
    if (!strcmp(kind, "Transformer")) MN_TRY(read_limits(arena, dir, name, out));
    else if (!strcmp(kind, "Pooling") && !pooled) MN_TRY(read_pooling(arena, dir, name, out));
    else
      return mn_fail(MN_ERR_UNSUPPORTED, "%s: a module '%s', which is not done; a Transformer, a Pooling and a Normalize are", path,
                     mn_printable(kind, shown));
    pooled = pooled || !strcmp(kind, "Pooling");
  }
  return pooled ? MN_OK : mn_fail(MN_ERR_UNSUPPORTED, "%s: there is no Pooling, so each token would have a vector of its own", path);
}

/* What is not done, or is no JSON, is told who asks for vectors. */
static mn_status keep_fault(mn_status status, mn_sentences *out) {
  if (status == MN_OK || status == MN_ERR_MEMORY) return status;
  return (out->fault = mn_strdup(mn_message())) ? MN_OK : MN_ERR_MEMORY;
}

mn_status mn_sentences_check_case(const mn_tokenizer *tok, mn_sentences *out) {
  static const char large[] = "ABC \xC3\x89\xC3\x91", small[] = "abc \xC3\xA9\xC3\xB1";
  mn_ids a = {0}, b = {0};
  if (!out->lower || out->fault || !tok) return MN_OK;
  mn_status status = mn_tokenizer_encode(tok, large, sizeof large - 1, 0, &a);
  if (status == MN_OK) status = mn_tokenizer_encode(tok, small, sizeof small - 1, 0, &b);
  if (status == MN_OK && (a.len != b.len || memcmp(a.data, b.data, a.len * sizeof *a.data) != 0))
    status =
        mn_fail(MN_ERR_UNSUPPORTED, "sentence_bert_config.json: do_lower_case is true, and tokenizer.json keeps capitals; its normalizer "
                                    "must make them small");
  mn_ids_free(&a);
  mn_ids_free(&b);
  return keep_fault(status, out);
}

mn_status mn_sentences_read_hf(const char *dir, mn_sentences *out) {
  mn_arena *arena = mn_arena_new();
  const mn_status status = arena ? keep_fault(read_modules(arena, dir, out), out) : MN_ERR_MEMORY;
  mn_arena_free(arena);
  return status;
}

/* ---- GGUF ---- */

int mn_sentences_gguf(mn_pooling pooling) {
  return pooling == MN_POOL_FIRST ? GGUF_FIRST : pooling == MN_POOL_LAST ? GGUF_LAST : GGUF_MEAN;
}

mn_status mn_sentences_read_gguf(const mn_gguf *g, mn_sentences *out) {
  static const mn_pooling of[] = {[GGUF_MEAN] = MN_POOL_MEAN, [GGUF_FIRST] = MN_POOL_FIRST, [GGUF_LAST] = MN_POOL_LAST};
  const int64_t usual = GGUF_MEAN;
  const mn_gguf_meta *arch = mn_gguf_meta_find(g, "general.architecture");
  char key[128];
  int64_t how;
  if (!arch || arch->kind != MN_GGUF_STRING || arch->bytes > 64) return MN_OK;
  snprintf(key, sizeof key, "%.*s.pooling_type", (int)arch->bytes, (const char *)arch->data);
  MN_TRY(mn_gguf_i64(g, key, &usual, &how));
  if (how < GGUF_MEAN || how > GGUF_LAST)
    return keep_fault(mn_fail(MN_ERR_UNSUPPORTED, "%s: %s is %lld, which is not done; 1 (mean), 2 (the first token) and 3 (the last) are",
                              mn_gguf_path(g), key, (long long)how),
                      out);
  out->pooling = of[how];
  const int64_t all = 0;
  MN_TRY(mn_gguf_i64(g, MN_GGUF_MOST_TOKENS, &all, &out->most));
  return out->most >= 0 ? MN_OK : mn_fail(MN_ERR_FORMAT, "%s: %s must be an integer of at least 1", mn_gguf_path(g), MN_GGUF_MOST_TOKENS);
}

/* ---- writing ---- */

static const mn_value *module(mn_arena *arena, int i, const char *kind, const char *folder) {
  mn_keys k = {.arena = arena};
  mn_keys_int(&k, "idx", i);
  mn_keys_text(&k, "name", mn_arena_format(arena, "%d", i));
  mn_keys_text(&k, "path", folder);
  mn_keys_text(&k, "type", mn_arena_format(arena, "sentence_transformers.models.%s", kind));
  return mn_keys_map(&k);
}

mn_status mn_sentences_write_hf(mn_arena *arena, const char *dir, const mn_sentences *s, int64_t width) {
  const mn_value *modules[] = {module(arena, 0, "Transformer", ""), module(arena, 1, "Pooling", "1_Pooling"),
                               module(arena, 2, "Normalize", "2_Normalize")};
  const char *folder = mn_arena_format(arena, "%s/1_Pooling", dir);
  mn_keys pooling = {.arena = arena};
  mn_keys_int(&pooling, "word_embedding_dimension", width);
  mn_keys_bool(&pooling, "pooling_mode_cls_token", s->pooling == MN_POOL_FIRST);
  mn_keys_bool(&pooling, "pooling_mode_mean_tokens", s->pooling == MN_POOL_MEAN);
  mn_keys_bool(&pooling, "pooling_mode_max_tokens", false);
  mn_keys_bool(&pooling, "pooling_mode_lasttoken", s->pooling == MN_POOL_LAST);
  if (!folder || !modules[0] || !modules[1] || !modules[2]) return MN_ERR_MEMORY;
  MN_TRY(mn_dir_need_real(folder));
  MN_TRY(mn_make_dirs(folder));
  MN_TRY(mn_checkpoint_write_json(folder, "config.json", mn_keys_map(&pooling)));
  if (s->most) {
    mn_keys limits = {.arena = arena};
    mn_keys_int(&limits, "max_seq_length", s->most);
    mn_keys_bool(&limits, "do_lower_case", false); /* the tokenizer sees to that */
    MN_TRY(mn_checkpoint_write_json(dir, "sentence_bert_config.json", mn_keys_map(&limits)));
  }
  return mn_checkpoint_write_json(dir, "modules.json", mn_value_list(arena, 3, modules));
}
