/* speech.c - see speech.h. */
#include "checkpoint/checkpoint_internal.h"
#include "checkpoint/speech.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "format/json.h"

enum { TEMPLATE_LIMIT = 1 << 22 };

/* DIR/name as a tree; NULL where it is not there. */
static mn_status read_beside(mn_arena *arena, const char *dir, const char *name, const mn_value **out) {
  char *path = mn_path_join(dir, name);
  *out = NULL;
  mn_status status = path ? MN_OK : MN_ERR_MEMORY;
  if (status == MN_OK && mn_file_exists(path)) status = mn_checkpoint_json(arena, path, out);
  if (status == MN_OK && *out && (*out)->kind != MN_MAP) status = mn_fail(MN_ERR_FORMAT, "%s: must be a map of settings", path);
  free(path);
  return status;
}

void mn_speech_add_eos(mn_speech *s, int64_t id) {
  for (int i = 0; i < s->n_eos; i++)
    if (s->eos[i] == id) return;
  if (s->n_eos < MN_EOS_MOST && id >= 0 && id <= INT32_MAX) s->eos[s->n_eos++] = (int32_t)id;
}

void mn_speech_free(mn_speech *s) {
  free(s->chat_template);
  free(s->eos_token);
  free(s->silent);
  s->silent = NULL, s->n_silent = 0;
}

/* eos_token_id is a number or a list of them. */
static mn_status take_ids(const mn_value *root, mn_speech *s) {
  const mn_value *eos = mn_value_get(root, "eos_token_id"), *bos = mn_value_get(root, "bos_token_id");
  const mn_value *const *items = eos && eos->kind == MN_LIST ? eos->as.items : &eos;
  const size_t n = !eos || eos->kind == MN_NULL ? 0 : eos->kind == MN_LIST ? eos->count : 1;
  const bool first = !s->n_eos;
  for (size_t i = 0; i < n && first; i++) {
    if (items[i]->kind != MN_INTEGER) return mn_value_fail(eos, "eos_token_id must be a token's id, or a list of them");
    mn_speech_add_eos(s, items[i]->as.integer);
  }
  if (s->bos < 0 && bos && bos->kind == MN_INTEGER && bos->as.integer >= 0 && bos->as.integer <= INT32_MAX)
    s->bos = (int32_t)bos->as.integer;
  return MN_OK;
}

static mn_status add_silent(mn_speech *s, int64_t id) { /* others are no tokens */
  if (id < 0 || id > INT32_MAX) return MN_OK;
  int32_t *more = mn_realloc(s->silent, (s->n_silent + 1) * sizeof *more);
  if (!more) return MN_ERR_MEMORY;
  s->silent = more;
  s->silent[s->n_silent++] = (int32_t)id;
  return MN_OK;
}

/* What is said of draws is for who asks for them; but for tokens that are not to be drawn at all. What changes what is drawn otherwise is
 * not done, and told. */
static mn_status take_draws(const mn_value *generation, const char *dir, mn_speech *s) {
  static const char *const others[] = {"begin_suppress_tokens", "bad_words_ids",  "sequence_bias",
                                       "no_repeat_ngram_size",  "min_new_tokens", "min_length"};
  const mn_value *list = mn_value_get(generation, "suppress_tokens");
  mn_text names = {0};
  if (list && list->kind != MN_NULL && list->kind != MN_LIST) return mn_value_fail(list, "suppress_tokens must be a list of tokens' ids");
  for (size_t i = 0; list && list->kind == MN_LIST && i < list->count; i++) {
    if (list->as.items[i]->kind != MN_INTEGER) return mn_value_fail(list, "suppress_tokens must be a list of tokens' ids");
    MN_TRY(add_silent(s, list->as.items[i]->as.integer));
  }
  for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
    const mn_value *v = mn_value_get(generation, others[i]);
    double number;
    const bool nothing = !v || v->kind == MN_NULL || ((v->kind == MN_LIST || v->kind == MN_MAP) && !v->count) ||
                         (mn_value_number(v, &number) && number == 0);
    if (!nothing) mn_text_addf(&names, "%s%s", names.len ? ", " : "", others[i]);
  }
  if (names.len) mn_log_write(MN_LOG_WARN, "%s/generation_config.json: what is not done when tokens are drawn: %s", dir, names.data);
  mn_text_free(&names);
  return MN_OK;
}

/* A token is a text, or a map whose `content` is one. */
static const char *text_of(const mn_value *root, const char *key) {
  const mn_value *v = mn_value_get(root, key);
  if (v && v->kind == MN_MAP) v = mn_value_get(v, "content");
  return v && v->kind == MN_TEXT ? v->as.text : NULL;
}

static int32_t token_of(const mn_value *root, const char *key, const mn_tokenizer *tok) {
  const char *text = text_of(root, key);
  return tok && text ? mn_tokenizer_find(tok, text) : -1;
}

/* chat_template is a text, or a list of {name, template} of which `default` counts. */
static const char *template_of(const mn_value *root) {
  const mn_value *v = mn_value_get(root, "chat_template");
  for (size_t i = 0; v && v->kind == MN_LIST && i < v->count; i++) {
    const mn_value *name = mn_value_get(v->as.items[i], "name"), *text = mn_value_get(v->as.items[i], "template");
    if (name && name->kind == MN_TEXT && !strcmp(name->as.text, "default") && text && text->kind == MN_TEXT) return text->as.text;
  }
  return v && v->kind == MN_TEXT ? v->as.text : NULL;
}

static mn_status take_template(mn_arena *arena, const char *dir, const mn_value *tokenizer_config, mn_speech *s) {
  char *path = mn_path_join(dir, "chat_template.jinja");
  const mn_value *beside = NULL;
  size_t n;
  mn_status status = path ? MN_OK : MN_ERR_MEMORY;
  if (status == MN_OK && mn_file_exists(path)) {
    status = mn_file_read(path, TEMPLATE_LIMIT, &s->chat_template, &n);
  } else if (status == MN_OK) {
    status = read_beside(arena, dir, "chat_template.json", &beside);
    const char *text = status == MN_OK && beside ? template_of(beside) : template_of(tokenizer_config);
    if (status == MN_OK && text && !(s->chat_template = mn_strdup(text))) status = MN_ERR_MEMORY;
  }
  free(path);
  return status;
}

mn_status mn_speech_read_hf(const char *dir, const mn_tokenizer *tok, mn_speech *s) {
  mn_arena *arena = mn_arena_new();
  const mn_value *generation = NULL, *config = NULL, *tokenizer = NULL;
  s->bos = -1;
  mn_status status = arena ? read_beside(arena, dir, "generation_config.json", &generation) : MN_ERR_MEMORY;
  if (status == MN_OK) status = read_beside(arena, dir, "config.json", &config);
  if (status == MN_OK) status = read_beside(arena, dir, "tokenizer_config.json", &tokenizer);
  if (status == MN_OK) status = take_ids(generation, s);
  if (status == MN_OK) status = take_ids(config, s);
  if (status == MN_OK && generation) status = take_draws(generation, dir, s);
  const mn_value *add = mn_value_get(tokenizer, "add_bos_token");
  if (status == MN_OK) {
    if (!s->n_eos) mn_speech_add_eos(s, token_of(tokenizer, "eos_token", tok));
    if (s->bos < 0) s->bos = token_of(tokenizer, "bos_token", tok);
    s->add_bos = s->bos >= 0 && add && add->kind == MN_BOOLEAN && add->as.boolean;
    const char *end = text_of(tokenizer, "eos_token");
    if (end && !(s->eos_token = mn_strdup(end))) status = MN_ERR_MEMORY;
    if (status == MN_OK) status = take_template(arena, dir, tokenizer, s);
  }
  mn_arena_free(arena);
  return status;
}

/* ---- GGUF ---- */

static mn_status token_at(const mn_gguf *g, const char *key, int64_t *out) {
  const int64_t none = -1;
  return mn_gguf_i64(g, key, &none, out);
}

static mn_status all_ends(const mn_gguf *g, mn_speech *s) {
  mn_arena *arena = mn_gguf_meta_find(g, MN_GGUF_EOS_IDS) ? mn_arena_new() : NULL;
  const int64_t *ids = NULL;
  size_t n = 0;
  if (!mn_gguf_meta_find(g, MN_GGUF_EOS_IDS)) return MN_OK;
  mn_status status = arena ? mn_gguf_ints(g, MN_GGUF_EOS_IDS, arena, &ids, &n) : MN_ERR_MEMORY;
  for (size_t i = 0; status == MN_OK && i < n; i++) mn_speech_add_eos(s, ids[i]);
  mn_arena_free(arena);
  return status;
}

static mn_status all_silent(const mn_gguf *g, mn_speech *s) {
  if (!mn_gguf_meta_find(g, MN_GGUF_SILENT_IDS)) return MN_OK;
  mn_arena *arena = mn_arena_new();
  const int64_t *ids = NULL;
  size_t n = 0;
  mn_status status = arena ? mn_gguf_ints(g, MN_GGUF_SILENT_IDS, arena, &ids, &n) : MN_ERR_MEMORY;
  for (size_t i = 0; status == MN_OK && i < n; i++) status = add_silent(s, ids[i]);
  mn_arena_free(arena);
  return status;
}

mn_status mn_speech_read_gguf(const mn_gguf *g, mn_speech *s) {
  static const char *const ends[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"};
  const bool no = false;
  int64_t id;
  s->bos = -1;
  for (int i = 0; i < 3; i++) {
    MN_TRY(token_at(g, ends[i], &id));
    mn_speech_add_eos(s, id);
  }
  MN_TRY(all_ends(g, s));
  MN_TRY(all_silent(g, s));
  MN_TRY(token_at(g, "tokenizer.ggml.bos_token_id", &id));
  if (id >= 0 && id <= INT32_MAX) s->bos = (int32_t)id;
  MN_TRY(mn_gguf_bool(g, "tokenizer.ggml.add_bos_token", &no, &s->add_bos));
  s->add_bos = s->add_bos && s->bos >= 0;
  if (!mn_gguf_meta_find(g, "tokenizer.chat_template")) return MN_OK;
  mn_arena *arena = mn_arena_new();
  const char *text = NULL;
  mn_status status = arena ? mn_gguf_string(g, "tokenizer.chat_template", NULL, arena, &text) : MN_ERR_MEMORY;
  if (status == MN_OK && !(s->chat_template = mn_strdup(text))) status = MN_ERR_MEMORY;
  mn_arena_free(arena);
  return status;
}
