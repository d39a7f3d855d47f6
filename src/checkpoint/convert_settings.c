/* convert_settings.c - settings in the other form. Which name there says the same is what the architecture's own reading asked for: each
 * setting has both its names. Afterwards what was written is read again: it must make the same recipe. */
#include "checkpoint/convert_internal.h"

#include "base/file.h"
#include "base/text.h"
#include "checkpoint/say.h"
#include "checkpoint/sentences.h"
#include "checkpoint/speech.h"
#include "format/json.h"
#include "format/tokenizer_gguf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TOKENIZER_LIMIT = 1 << 28 };

/* The i-th word of words with a space between; the last one where there are fewer. */
static bool word_of(const char *words, int i, char *to, size_t room) {
  size_t n = words ? strcspn(words, " ") : 0;
  for (; i > 0 && words && words[n]; i--) {
    words += n + 1;
    n = strcspn(words, " ");
  }
  if (!n || n >= room) return false;
  memcpy(to, words, n);
  to[n] = 0;
  return true;
}

/* The number of the word among those that the architecture answers to in the form that is read: the same one in the other form names it. */
static int word_number(const mn_converting *job) {
  char word[128], name[128];
  const mn_value *type = mn_value_get(job->settings.map, "model_type");
  const char *is = job->settings.form == MN_FORM_GGUF ? job->settings.word : type && type->kind == MN_TEXT ? type->as.text : "";
  const char *words = job->settings.form == MN_FORM_GGUF ? job->arch->gguf : job->arch->types;
  for (int i = 0; words && word_of(words, i, word, sizeof word); i++) {
    if (!strcmp(word, is)) return i;
    if (word_of(words, i + 1, name, sizeof name) && !strcmp(name, word)) break; /* the last one */
  }
  return 0;
}

/* ---- to GGUF ---- */

static mn_status put_list(mn_gguf_writer *w, mn_arena *arena, const char *key, const mn_value *v, bool real) {
  int32_t *ints = mn_arena_alloc(arena, (v->count + 1) * sizeof *ints);
  float *reals = mn_arena_alloc(arena, (v->count + 1) * sizeof *reals);
  bool *flags = mn_arena_alloc(arena, (v->count + 1) * sizeof *flags), all_flags = true;
  if (!ints || !reals || !flags) return MN_ERR_MEMORY;
  for (size_t i = 0; i < v->count; i++) {
    const mn_value *item = v->as.items[i];
    double number = 0;
    if (item->kind == MN_BOOLEAN) flags[i] = item->as.boolean;
    else if (!mn_value_number(item, &number)) return MN_OK; /* words: no form there; the recipe is compared afterwards */
    all_flags = all_flags && item->kind == MN_BOOLEAN;
    real = real || item->kind == MN_REAL;
    ints[i] = (int32_t)number;
    reals[i] = (float)number;
  }
  if (all_flags) return mn_gguf_writer_bools(w, key, flags, v->count);
  return real ? mn_gguf_writer_f32s(w, key, reals, v->count) : mn_gguf_writer_i32s(w, key, ints, v->count);
}

static mn_status put_value(mn_gguf_writer *w, mn_arena *arena, const char *key, const mn_value *v, bool real) {
  double number = 0;
  switch (v->kind) {
  case MN_BOOLEAN:
    return mn_gguf_writer_bool(w, key, v->as.boolean);
  case MN_INTEGER:
    if (!real && v->as.integer >= 0 && v->as.integer <= UINT32_MAX) return mn_gguf_writer_u32(w, key, (uint32_t)v->as.integer);
    if (!real && v->as.integer >= 0) return mn_gguf_writer_u64(w, key, (uint64_t)v->as.integer);
    (void)mn_value_number(v, &number);
    return mn_gguf_writer_f32(w, key, (float)number);
  case MN_REAL:
    return mn_gguf_writer_f32(w, key, (float)v->as.real);
  case MN_TEXT:
    return mn_gguf_writer_string(w, key, v->as.text);
  case MN_LIST:
    return put_list(w, arena, key, v, real);
  default:
    return MN_OK;
  }
}

/* Was the pair asked for before? */
static bool again(const mn_settings *s, int i) {
  for (int k = 0; k < i; k++)
    if (!strcmp(s->seen[k].key, s->seen[i].key)) return true;
  return false;
}

/* What the architecture says in the form that is written, and of rotary positions, which stand in maps of their own in config.json. */
static mn_status say(const mn_converting *job, mn_keys *keys) {
  *keys = (mn_keys){.arena = job->arena};
  if (job->arch->say) MN_TRY(job->arch->say(&job->settings, job->recipe, job->form, keys));
  MN_TRY(mn_say_rope(job->recipe, job->form, keys));
  return keys->failed ? MN_ERR_MEMORY : MN_OK;
}

static bool is_said(const mn_keys *keys, int n, const char *key) {
  for (int i = 0; i < n; i++)
    if (!strcmp(keys->key[i], key)) return true;
  return false;
}

/* Settings that config.json may leave out, and without which other programs refuse a file. */
static mn_status put_usual(const mn_converting *job, const mn_keys *said, mn_gguf_writer *w, const char *word) {
  static const char *const needed[] = {
      "context_length",   "attention.layer_norm_epsilon", "attention.layer_norm_rms_epsilon", "expert_used_count", "ssm.conv_kernel",
      "shortconv.l_cache"};
  const mn_settings *s = &job->settings;
  for (size_t k = 0; k < sizeof needed / sizeof *needed; k++) {
    const mn_value *usual = NULL;
    bool there = false; /* under one of its names */
    for (int i = 0; i < s->n_seen; i++) {
      if (!s->seen[i].hf || !s->seen[i].gguf || strcmp(s->seen[i].gguf, needed[k]) != 0) continue;
      const mn_value *v = mn_value_get(s->map, s->seen[i].key);
      there = there || (v && v->kind != MN_NULL);
      if (!usual) usual = s->seen[i].usual;
    }
    if (!usual || there || is_said(said, said->n, needed[k])) continue;
    const char *key = mn_arena_format(job->arena, "%s.%s", word, needed[k]);
    if (!key) return MN_ERR_MEMORY;
    MN_TRY(put_value(w, job->arena, key, usual, usual->kind == MN_REAL));
  }
  return MN_OK;
}

static mn_status put_settings(const mn_converting *job, mn_gguf_writer *w, const char *word) {
  const mn_settings *s = &job->settings;
  mn_keys keys;
  MN_TRY(say(job, &keys));
  for (int i = 0; i < keys.n; i++) {
    const char *key = mn_arena_format(job->arena, "%s.%s", word, keys.key[i]);
    if (!key) return MN_ERR_MEMORY;
    if (!is_said(&keys, i, keys.key[i])) MN_TRY(put_value(w, job->arena, key, keys.value[i], false));
  }
  for (int i = 0; i < s->n_seen; i++) {
    const mn_setting_seen *seen = &s->seen[i];
    const mn_value *v = mn_value_get(s->map, seen->key);
    if (!seen->hf || !seen->gguf || !v || v->kind == MN_NULL || again(s, i) || is_said(&keys, keys.n, seen->gguf)) continue;
    const bool general = !strncmp(seen->gguf, "general.", 8);
    const char *key = general ? seen->gguf : mn_arena_format(job->arena, "%s.%s", word, seen->gguf);
    if (!key) return MN_ERR_MEMORY;
    MN_TRY(put_value(w, job->arena, key, v, seen->real));
    if (!strcmp(seen->gguf, "attention.key_length") &&
        !is_said(&keys, keys.n, "attention.value_length")) { /* or others take d_model / heads */
      if (!(key = mn_arena_format(job->arena, "%s.attention.value_length", word))) return MN_ERR_MEMORY;
      MN_TRY(put_value(w, job->arena, key, v, false));
    }
  }
  return put_usual(job, &keys, w, word);
}

/* What ends an answer: other programs know three of them by name, and all stand in a list of ours where there are several. */
static mn_status put_ends(const mn_speech *speech, mn_gguf_writer *w) {
  static const char *const names[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"};
  for (int i = 0; i < speech->n_eos && i < 3; i++) MN_TRY(mn_gguf_writer_u32(w, names[i], (uint32_t)speech->eos[i]));
  return speech->n_eos > 1 ? mn_gguf_writer_i32s(w, MN_GGUF_EOS_IDS, speech->eos, (size_t)speech->n_eos) : MN_OK;
}

/* The whole tokenizer.json, its vocabulary where other programs read it, and what is said of texts. */
static mn_status put_tokenizer(const mn_converting *job, mn_gguf_writer *w, bool for_others) {
  const char *dir = job->path;
  char *path = mn_path_join(dir, "tokenizer.json"), *json = NULL;
  mn_tokenizer *tok = NULL;
  mn_speech speech = {0};
  bool listed = false;
  size_t n;
  mn_status status = path ? MN_OK : MN_ERR_MEMORY;
  if (status == MN_OK && mn_file_exists(path)) {
    status = mn_file_read(path, TOKENIZER_LIMIT, &json, &n);
    if (status == MN_OK && mn_tokenizer_parse(path, json, n, &tok) != MN_OK) tok = NULL; /* it is kept all the same */
    if (status == MN_OK) status = mn_gguf_writer_string(w, MN_GGUF_TOKENIZER_JSON, json);
    if (status == MN_OK && tok) status = mn_tokenizer_to_gguf(tok, job->model->config.vocab_size, w, &listed);
  }
  if (status == MN_OK && !listed && for_others && json)
    mn_log_write(MN_LOG_WARN,
                 "%s: this tokenizer has no form in GGUF that other programs read: for them the file has no text, only token ids", path);
  if (status == MN_OK && !listed && for_others) status = mn_gguf_writer_string(w, "tokenizer.ggml.model", "none"); /* or they refuse it */
  if (status == MN_OK) status = mn_speech_read_hf(dir, tok, &speech);
  const bool begins = speech.add_bos || (tok && mn_tokenizer_adds_bos(tok)); /* by a setting, or by the post-processor */
  const int32_t bos = speech.bos >= 0 ? speech.bos : begins && tok ? mn_tokenizer_bos(tok) : -1;
  if (status == MN_OK && bos >= 0) status = mn_gguf_writer_u32(w, "tokenizer.ggml.bos_token_id", (uint32_t)bos);
  const int64_t types = job->recipe ? (int64_t)mn_recipe_number(job->recipe, "token_types", 0) : 0;
  if (status == MN_OK && types > 0) status = mn_gguf_writer_u32(w, "tokenizer.ggml.token_type_count", (uint32_t)types);
  if (status == MN_OK) status = put_ends(&speech, w);
  if (status == MN_OK && speech.n_silent) status = mn_gguf_writer_i32s(w, MN_GGUF_SILENT_IDS, speech.silent, speech.n_silent);
  if (status == MN_OK && json) status = mn_gguf_writer_bool(w, "tokenizer.ggml.add_bos_token", begins);
  if (status == MN_OK && speech.chat_template) status = mn_gguf_writer_string(w, "tokenizer.chat_template", speech.chat_template);
  mn_tokenizer_free(tok);
  mn_speech_free(&speech);
  free(json);
  free(path);
  return status;
}

static mn_status put_name(const mn_converting *job, mn_gguf_writer *w) {
  char *whole = realpath(job->path, NULL);
  const mn_status status = mn_gguf_writer_string(w, "general.name", mn_path_base(whole ? whole : job->path));
  free(whole);
  return status;
}

mn_status mn_convert_own_metadata(const mn_converting *job, mn_gguf_writer *w) {
  mn_text config = {0};
  const mn_value *root = mn_model_to_config(job->arena, job->model);
  mn_status status = root ? mn_value_to_json(root, 0, &config) : MN_ERR_MEMORY;
  if (status == MN_OK) status = mn_text_status(&config);
  if (status == MN_OK) status = mn_gguf_writer_string(w, "general.architecture", "mneme");
  if (status == MN_OK) status = put_name(job, w);
  if (status == MN_OK) status = mn_gguf_writer_string(w, "mneme.config.json", config.data);
  mn_text_free(&config);
  return status == MN_OK ? put_tokenizer(job, w, false) : status;
}

static bool is_encoder(const mn_converting *job) { return !strcmp(job->model->def->name, "encoder"); }

static mn_status check_case(const mn_converting *job, mn_sentences *s) {
  char *path = mn_path_join(job->path, "tokenizer.json");
  mn_tokenizer *tok = NULL;
  mn_status status = path ? MN_OK : MN_ERR_MEMORY;
  if (status == MN_OK && mn_file_exists(path)) status = mn_tokenizer_load(path, &tok);
  if (status == MN_OK) status = mn_sentences_check_case(tok, s);
  mn_tokenizer_free(tok);
  free(path);
  return status;
}

/* Of an encoder: which of its vectors counts. What GGUF has no word for is refused. */
static mn_status put_pooling(const mn_converting *job, mn_gguf_writer *w, const char *word) {
  mn_sentences s = {0};
  char key[96];
  if (!is_encoder(job)) return MN_OK;
  snprintf(key, sizeof key, "%s.pooling_type", word);
  mn_status status = mn_sentences_read_hf(job->path, &s);
  if (status == MN_OK && s.lower) status = check_case(job, &s);
  if (status == MN_OK && s.fault) status = mn_fail(MN_ERR_UNSUPPORTED, "%s", s.fault);
  if (status == MN_OK) status = mn_gguf_writer_u32(w, key, (uint32_t)mn_sentences_gguf(s.pooling));
  if (status == MN_OK && s.most) status = mn_gguf_writer_u64(w, MN_GGUF_MOST_TOKENS, (uint64_t)s.most);
  mn_sentences_free(&s);
  return status;
}

mn_status mn_convert_metadata(const mn_converting *job, mn_gguf_writer *w) {
  char word[64];
  if (!word_of(job->arch->gguf, word_number(job), word, sizeof word))
    return mn_fail(MN_ERR_INTERNAL, "%s has no word for GGUF", job->arch->name);
  MN_TRY(mn_gguf_writer_string(w, "general.architecture", word));
  MN_TRY(mn_gguf_writer_string(w, "general.type", "model"));
  mn_status status = put_name(job, w);
  if (status == MN_OK) status = put_settings(job, w, word);
  if (status == MN_OK) status = put_pooling(job, w, word);
  return status == MN_OK ? put_tokenizer(job, w, true) : status;
}

/* ---- to Hugging Face's ---- */

static const mn_value *words_list(mn_arena *arena, const char *word) {
  const mn_value *text = mn_value_text(arena, word);
  return text ? mn_value_list(arena, 1, &text) : NULL;
}

static const char *dtype_name(const mn_converting *job) {
  mn_dtype most = MN_F32;
  for (mn_dtype t = 0; t < MN_ALL_TYPES; t++)
    if (job->report->bytes_of[t] > job->report->bytes_of[most]) most = t;
  return most == MN_BF16 ? "bfloat16" : most == MN_F16 ? "float16" : "float32";
}

/* A number of single precision with the fewest digits that read back the same. */
static const mn_value *shortest(mn_arena *arena, const mn_value *v) {
  char digits[40];
  if (v->kind != MN_REAL) return v;
  for (int n = 6; n <= 9; n++) {
    snprintf(digits, sizeof digits, "%.*g", n, v->as.real);
    if ((float)strtod(digits, NULL) == (float)v->as.real) break;
  }
  return mn_value_real(arena, strtod(digits, NULL));
}

static mn_status id_of(const mn_gguf *g, const char *key, int64_t *out) {
  const int64_t none = -1;
  return mn_gguf_i64(g, key, &none, out);
}

/* Those that the file names, and those that its vocabulary knows by name (tok, or NULL): an answer ends with all of them. */
static mn_status say_ends(const mn_gguf *g, const mn_tokenizer *tok, mn_keys *k) {
  mn_speech speech = {0};
  const int32_t *known;
  int64_t ids[MN_EOS_MOST];
  mn_status status = mn_speech_read_gguf(g, &speech);
  for (size_t i = 0, n = tok ? mn_tokenizer_ends(tok, &known) : 0; i < n; i++) mn_speech_add_eos(&speech, known[i]);
  for (int i = 0; i < speech.n_eos; i++) ids[i] = speech.eos[i];
  if (status == MN_OK && speech.n_eos == 1) mn_keys_int(k, "eos_token_id", ids[0]);
  if (status == MN_OK && speech.n_eos > 1) mn_say_numbers(k, "eos_token_id", speech.n_eos, ids);
  int64_t *silent = status == MN_OK && speech.n_silent ? mn_alloc(speech.n_silent * sizeof *silent) : NULL;
  for (size_t i = 0; silent && i < speech.n_silent; i++) silent[i] = speech.silent[i];
  if (silent) mn_say_numbers(k, "suppress_tokens", (int64_t)speech.n_silent, silent);
  else if (status == MN_OK && speech.n_silent) status = MN_ERR_MEMORY;
  free(silent);
  mn_speech_free(&speech);
  return status;
}

/* Other programs, and chat templates, know the tokens that begin and end texts by what they are called. */
static mn_status name_tokens(const mn_gguf *g, const mn_tokenizer *tok, int64_t bos, mn_keys *k) {
  static const char *const words[] = {"bos_token", "eos_token", "unk_token", "pad_token", "mask_token", "sep_token", "cls_token"};
  static const char *const keys[] = {NULL, "eos", "unknown", "padding", "mask", "seperator", "cls"}; /* the format spells it so */
  for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
    char key[64];
    int64_t id = bos;
    size_t n = 0;
    snprintf(key, sizeof key, "tokenizer.ggml.%s_token_id", keys[i] ? keys[i] : "bos");
    if (keys[i]) MN_TRY(id_of(g, key, &id));
    const char *text = id >= 0 && id <= INT32_MAX ? mn_tokenizer_token(tok, (int32_t)id, &n) : NULL;
    if (!text || !n || mn_utf8_valid(text, n) != n || memchr(text, 0, n)) continue;
    const char *copy = mn_arena_format(k->arena, "%.*s", (int)n, text);
    if (!copy) return MN_ERR_MEMORY;
    if (mn_tokenizer_find(tok, copy) == id) mn_keys_text(k, words[i], copy);
  }
  return MN_OK;
}

/* The vocabulary of the file, or its whole tokenizer.json where that can be read; NULL: it has none. */
static mn_status write_vocabulary(const mn_gguf *g, const char *path, mn_tokenizer **tok) {
  const mn_gguf_meta *json = mn_gguf_meta_find(g, MN_GGUF_TOKENIZER_JSON);
  *tok = NULL;
  if (json && json->kind == MN_GGUF_STRING) {
    if (mn_tokenizer_parse(path, (const char *)json->data, json->bytes, tok) != MN_OK) *tok = NULL; /* it is kept all the same */
    return mn_file_write(path, json->data, json->bytes);
  }
  if (!mn_tokenizer_in_gguf(g)) return MN_OK;
  MN_TRY(mn_tokenizer_from_gguf(g, tok));
  return mn_tokenizer_save(*tok, path);
}

/* tokenizer.json, which the file has whole or as a vocabulary; tokenizer_config.json and generation_config.json. */
static mn_status write_tokenizer(const mn_converting *job, const char *dir) {
  const mn_gguf *g = job->from->gguf;
  const bool no = false, whole = mn_gguf_meta_find(g, MN_GGUF_TOKENIZER_JSON) != NULL;
  const char *chat = NULL;
  bool add_bos = false;
  int64_t bos = -1;
  mn_tokenizer *tok = NULL;
  MN_TRY(id_of(g, "tokenizer.ggml.bos_token_id", &bos));
  MN_TRY(mn_gguf_bool(g, "tokenizer.ggml.add_bos_token", &no, &add_bos));
  if (mn_gguf_meta_find(g, "tokenizer.chat_template")) MN_TRY(mn_gguf_string(g, "tokenizer.chat_template", NULL, job->arena, &chat));
  char *path = mn_path_join(dir, "tokenizer.json");
  mn_keys texts = {.arena = job->arena}, ends = {.arena = job->arena};
  mn_status status = path ? write_vocabulary(g, path, &tok) : MN_ERR_MEMORY;
  free(path);
  if (tok && !whole && bos < 0) bos = mn_tokenizer_bos(tok); /* what the file leaves out is as usual for its kind */
  mn_keys_bool(&texts, "add_bos_token", add_bos || (tok && mn_tokenizer_adds_bos(tok)));
  if (status == MN_OK && tok) status = name_tokens(g, tok, bos, &texts);
  if (chat) mn_keys_text(&texts, "chat_template", chat);
  if (bos >= 0) mn_keys_int(&ends, "bos_token_id", bos);
  if (status == MN_OK) status = say_ends(g, whole ? NULL : tok, &ends);
  mn_tokenizer_free(tok);
  MN_TRY(status);
  MN_TRY(mn_checkpoint_write_json(dir, "tokenizer_config.json", mn_keys_map(&texts)));
  return mn_checkpoint_write_json(dir, "generation_config.json", mn_keys_map(&ends));
}

static mn_status write_pooling(const mn_converting *job, const char *dir) {
  mn_sentences s = {0};
  if (!is_encoder(job)) return MN_OK;
  mn_status status = mn_sentences_read_gguf(job->from->gguf, &s);
  if (status == MN_OK && s.fault) status = mn_fail(MN_ERR_UNSUPPORTED, "%s", s.fault);
  if (status == MN_OK) status = mn_sentences_write_hf(job->arena, dir, &s, job->model->config.d_model);
  mn_sentences_free(&s);
  return status;
}

mn_status mn_convert_config(const mn_converting *job, const char *dir) {
  const mn_settings *s = &job->settings;
  mn_keys k = {.arena = job->arena}, keys;
  char word[128];
  MN_TRY(say(job, &keys));
  /* Of Llama's kin, the one that looks back over a window only is Mistral. */
  const int which = !strcmp(job->arch->name, "llama") ? mn_recipe_attention(job->recipe, true) != NULL : word_number(job);
  if (word_of(job->arch->classes, which, word, sizeof word)) mn_keys_put(&k, "architectures", words_list(job->arena, word));
  if (word_of(job->arch->types, which, word, sizeof word)) mn_keys_text(&k, "model_type", word);
  mn_keys_text(&k, "torch_dtype", dtype_name(job));
  const mn_value *tied = mn_value_get(job->recipe, "tie_embeddings"), *vocabulary = mn_value_get(job->recipe, "vocab_size");
  if (tied) mn_keys_put(&k, "tie_word_embeddings", tied);
  if (vocabulary && !mn_value_get(s->map, mn_arena_format(job->arena, "%s.vocab_size", s->word))) mn_keys_put(&k, "vocab_size", vocabulary);
  for (int i = 0; i < keys.n; i++)
    if (!is_said(&keys, i, keys.key[i]) && !mn_is_nothing(keys.value[i])) mn_keys_put(&k, keys.key[i], keys.value[i]);
  for (int i = 0; i < s->n_seen; i++) {
    const mn_value *v = mn_value_get(s->map, s->seen[i].key);
    if (s->seen[i].hf && s->seen[i].gguf && v && v->kind != MN_NULL && !again(s, i) && !is_said(&keys, keys.n, s->seen[i].hf))
      mn_keys_put(&k, s->seen[i].hf, shortest(job->arena, v));
  }
  int64_t pad, rows = 0;
  MN_TRY(id_of(job->from->gguf, "tokenizer.ggml.padding_token_id", &pad));
  if (vocabulary && vocabulary->kind == MN_INTEGER) rows = vocabulary->as.integer;
  if (pad >= 0 && pad < rows) mn_keys_int(&k, "pad_token_id", pad);
  else mn_say_null(&k, "pad_token_id"); /* or other programs take their own, which may lie behind the rows */
  MN_TRY(write_tokenizer(job, dir));
  MN_TRY(write_pooling(job, dir));
  return mn_checkpoint_write_json(dir, "config.json", mn_keys_map(&k));
}

/* ---- the same model? ---- */

/* Where two recipes differ; "" where they do not. Numbers with a point are of single precision in GGUF. */
static const char *difference(mn_arena *arena, const mn_value *a, const mn_value *b, const char *path) {
  double x, y;
  if (!a || !b) return a == b ? "" : path;
  if (mn_value_number(a, &x) && mn_value_number(b, &y)) return (float)x == (float)y ? "" : path;
  if (a->kind != b->kind || a->kind == MN_BOOLEAN || a->kind == MN_TEXT || a->kind == MN_NULL) return mn_value_equal(a, b) ? "" : path;
  if (a->count != b->count) return path;
  for (size_t i = 0; i < a->count; i++) {
    const char *at =
        a->kind == MN_LIST ? mn_arena_format(arena, "%s[%zu]", path, i) : mn_arena_format(arena, "%s.%s", path, a->as.entries[i].key);
    if (!at) return path;
    const char *where = a->kind == MN_LIST ? difference(arena, a->as.items[i], b->as.items[i], at)
                                           : difference(arena, a->as.entries[i].value, mn_value_get(b, a->as.entries[i].key), at);
    if (*where) return where;
  }
  return "";
}

/* Every parameter of the model has its tensor there, of its shape, and there is no other. */
static mn_status match_tensors(const mn_converting *job, const mn_arch_def *a, const mn_checkpoint *c) {
  mn_arch_piece *pieces = mn_calloc((size_t)job->params->n_all + 1, sizeof *pieces);
  const mn_status status = pieces ? mn_arch_match(a, c, job->model, job->params, pieces) : MN_ERR_MEMORY;
  mn_arch_pieces_free(job->params->n_all, pieces);
  return status;
}

mn_status mn_convert_verify(const mn_converting *job, const char *path) {
  mn_checkpoint *c = NULL;
  mn_settings s = {0};
  const mn_arch_def *a = NULL;
  const mn_value *recipe = NULL;
  mn_status status = mn_checkpoint_open(path, &c);
  if (status == MN_OK) status = mn_settings_open(job->arena, c, &s);
  if (status == MN_OK) status = mn_arch_of(&s, &a);
  if (status == MN_OK) status = mn_arch_recipe(&s, a, &recipe);
  const char *where = status == MN_OK ? difference(job->arena, job->recipe, recipe, "model") : "";
  if (status == MN_OK && !*where) status = match_tensors(job, a, c);
  mn_checkpoint_close(c);
  if (status != MN_OK) return mn_context(status, "what was written cannot be opened");
  if (!*where) return MN_OK;
  return mn_fail(MN_ERR_UNSUPPORTED, "%s: the other form has no way to say %s of this model", job->path, where);
}
