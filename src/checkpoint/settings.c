/* settings.c - see settings.h. */
#include "checkpoint/settings.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"

/* What is left of a quantization while loading, when it was switched off. */
static bool loads_as_it_is(const mn_value *how) {
  const mn_value *const in[] = {mn_value_get(how, "load_in_4bit"), mn_value_get(how, "load_in_8bit")};
  return in[0] && in[1] && in[0]->kind == MN_BOOLEAN && in[1]->kind == MN_BOOLEAN && !in[0]->as.boolean && !in[1]->as.boolean;
}

/* Weights that mean something else than their numbers. */
static mn_status check_quantized(mn_settings *s) {
  const mn_value *how = mn_setting(s, "quantization_config", NULL), *method = mn_value_get(how, "quant_method");
  if (how && how->kind == MN_MAP && (!how->count || loads_as_it_is(how))) return MN_OK;
  char shown[MN_PRINTABLE];
  return how ? mn_setting_refuse(
                   s, "quantization_config", NULL,
                   "says that the weights are quantized ('%s'), which is not opened in this form; the model before that is, and "
                   "GGUF files of blocks are",
                   method && method->kind == MN_TEXT ? mn_printable(method->as.text, shown) : "in some way")
             : MN_OK;
}

mn_status mn_settings_open(mn_arena *arena, const mn_checkpoint *c, mn_settings *out) {
  *out = (mn_settings){.arena = arena,
                       .from = c,
                       .form = mn_checkpoint_form_of(c),
                       .map = mn_checkpoint_settings(c),
                       .file = mn_checkpoint_settings_path(c)};
  if (out->map->kind != MN_MAP) return mn_fail(MN_ERR_FORMAT, "%s: must be a map of settings", out->file);
  if (out->form == MN_FORM_HF) return check_quantized(out);
  const mn_value *word = mn_value_get(out->map, "general.architecture");
  if (!word || word->kind != MN_TEXT) return mn_fail(MN_ERR_FORMAT, "%s: general.architecture is not there, or no text", out->file);
  out->word = word->as.text;
  return MN_OK;
}

static const char *key_of(const mn_settings *s, const char *hf, const char *gguf) {
  if (s->form == MN_FORM_HF) return hf;
  if (!gguf || strchr(gguf, '.') == NULL || strncmp(gguf, "general.", 8) != 0)
    return gguf ? mn_arena_format(s->arena, "%s.%s", s->word, gguf) : NULL;
  return gguf;
}

static void note(mn_settings *s, mn_setting_seen what) {
  if (s->n_seen == s->room) {
    const int room = s->room ? 2 * s->room : 64;
    mn_setting_seen *more = mn_arena_alloc(s->arena, (size_t)room * sizeof *more);
    if (!more) return; /* a warning too many is all that comes of it */
    if (s->n_seen) memcpy(more, s->seen, (size_t)s->n_seen * sizeof *more);
    s->seen = more;
    s->room = room;
  }
  s->seen[s->n_seen++] = what;
}

static const mn_value *ask(mn_settings *s, const char *hf, const char *gguf, bool real) {
  const char *key = key_of(s, hf, gguf);
  if (!key) return NULL;
  note(s, (mn_setting_seen){key, hf, gguf, real, NULL});
  const mn_value *v = mn_value_get(s->map, key);
  return v && v->kind == MN_NULL ? NULL : v;
}

/* Of the last that was asked for. */
static void note_usual(mn_settings *s, const mn_value *usual) {
  if (s->n_seen) s->seen[s->n_seen - 1].usual = usual;
}

const mn_value *mn_setting(mn_settings *s, const char *hf, const char *gguf) { return ask(s, hf, gguf, false); }

static mn_status fault(const mn_settings *s, mn_status status, const char *key, const char *text) {
  if (!key || !text) return MN_ERR_MEMORY;
  const mn_value *v = mn_value_get(s->map, key);
  char place[MN_PLACE];
  if (!v || !v->line) return mn_fail(status, "%s: %s %s", s->file, key, text);
  return mn_fail(status, "%s%s %s", mn_place(v->file, v->line, place), key, text);
}

mn_status mn_setting_refuse(const mn_settings *s, const char *hf, const char *gguf, const char *fmt, ...) {
  char text[512];
  va_list args;
  va_start(args, fmt);
  vsnprintf(text, sizeof text, fmt, args);
  va_end(args);
  const char *key = key_of(s, hf, gguf);
  return fault(s, MN_ERR_UNSUPPORTED, key ? key : hf, text);
}

static mn_status missing(const mn_settings *s, const char *hf, const char *gguf) {
  const char *key = key_of(s, hf, gguf);
  return fault(s, MN_ERR_FORMAT, key ? key : hf, "is missing, and this architecture needs it");
}

mn_status mn_setting_int(mn_settings *s, const char *hf, const char *gguf, int64_t otherwise, int64_t *out) {
  const mn_value *v = mn_setting(s, hf, gguf);
  const int64_t least = otherwise == MN_NEEDED;
  *out = otherwise;
  if (!v && otherwise != MN_NEEDED && key_of(s, hf, gguf)) note_usual(s, mn_value_int(s->arena, otherwise));
  if (!v) return otherwise == MN_NEEDED ? missing(s, hf, gguf) : MN_OK;
  if (v->kind != MN_INTEGER || v->as.integer < least || v->as.integer > (int64_t)1 << 40)
    return fault(s, MN_ERR_FORMAT, key_of(s, hf, gguf), least ? "must be an integer from 1 to 2^40" : "must be an integer from 0 to 2^40");
  *out = v->as.integer;
  return MN_OK;
}

mn_status mn_setting_count(mn_settings *s, const char *hf, const char *gguf, int64_t otherwise, int64_t *out) {
  if (mn_setting(s, hf, gguf)) otherwise = MN_NEEDED;
  return mn_setting_int(s, hf, gguf, otherwise, out);
}

mn_status mn_setting_real(mn_settings *s, const char *hf, const char *gguf, double otherwise, double *out) {
  const mn_value *v = ask(s, hf, gguf, true);
  *out = otherwise;
  if (!v && otherwise != MN_NEEDED_REAL && key_of(s, hf, gguf)) note_usual(s, mn_value_real(s->arena, otherwise));
  if (!v) return otherwise == MN_NEEDED_REAL ? missing(s, hf, gguf) : MN_OK;
  if (!mn_value_number(v, out) || !isfinite(*out)) return fault(s, MN_ERR_FORMAT, key_of(s, hf, gguf), "must be a number");
  return MN_OK;
}

mn_status mn_setting_between(mn_settings *s, const char *hf, const char *gguf, double otherwise, double low, double high, double *out) {
  MN_TRY(mn_setting_real(s, hf, gguf, otherwise, out));
  if (!mn_setting(s, hf, gguf) || (*out >= low && *out <= high)) return MN_OK;
  return fault(s, MN_ERR_FORMAT, key_of(s, hf, gguf),
               mn_arena_format(s->arena, "must be a number from %g to %g, but is %g", low, high, *out));
}

mn_status mn_setting_factor(mn_settings *s, const char *hf, const char *gguf, double otherwise, double *out) {
  MN_TRY(mn_setting_real(s, hf, gguf, otherwise, out));
  return *out != 0 ? MN_OK : fault(s, MN_ERR_FORMAT, key_of(s, hf, gguf), "is 0, and multiplied by it nothing would be left");
}

bool mn_setting_is_null(const mn_settings *s, const char *hf) {
  const mn_value *v = s->form == MN_FORM_HF ? mn_value_get(s->map, hf) : NULL;
  return v && v->kind == MN_NULL;
}

mn_status mn_setting_bool(mn_settings *s, const char *hf, const char *gguf, bool otherwise, bool *out) {
  const mn_value *v = mn_setting(s, hf, gguf);
  *out = otherwise;
  if (!v) return MN_OK;
  if (v->kind != MN_BOOLEAN) return fault(s, MN_ERR_FORMAT, key_of(s, hf, gguf), "must be true or false");
  *out = v->as.boolean;
  return MN_OK;
}

mn_status mn_setting_text(mn_settings *s, const char *hf, const char *gguf, const char *otherwise, const char **out) {
  const mn_value *v = mn_setting(s, hf, gguf);
  *out = otherwise;
  if (!v) return MN_OK;
  if (v->kind != MN_TEXT) return fault(s, MN_ERR_FORMAT, key_of(s, hf, gguf), "must be a text");
  *out = v->as.text;
  return MN_OK;
}

mn_status mn_setting_only_bool(mn_settings *s, const char *hf, const char *gguf, bool only) {
  bool is;
  MN_TRY(mn_setting_bool(s, hf, gguf, only, &is));
  return is == only
             ? MN_OK
             : mn_setting_refuse(s, hf, gguf, "is %s, which is not done; only %s is", is ? "true" : "false", only ? "true" : "false");
}

mn_status mn_setting_only_real(mn_settings *s, const char *hf, const char *gguf, double only) {
  double is;
  MN_TRY(mn_setting_real(s, hf, gguf, only, &is));
  return is == only ? MN_OK : mn_setting_refuse(s, hf, gguf, "is %g, which is not done; only %g is", is, only);
}

mn_status mn_setting_only_text(mn_settings *s, const char *hf, const char *gguf, const char *only) {
  const char *is;
  char shown[MN_PRINTABLE];
  MN_TRY(mn_setting_text(s, hf, gguf, only, &is));
  return !strcmp(is, only) ? MN_OK
                           : mn_setting_refuse(s, hf, gguf, "is '%s', which is not done; only '%s' is", mn_printable(is, shown), only);
}

/* ---- what nobody asked for ---- */

/* Of any architecture: where it is from, how it was trained, how text is drawn from it, and what was said otherwise already. */
static const char usual_idle[] =
    "_name_or_path architectures attention_dropout attn_implementation _attn_implementation auto_map begin_suppress_tokens bos_token_id "
    "cache_implementation chunk_size_feed_forward decoder_start_token_id diversity_penalty do_sample dtype early_stopping "
    "encoder_no_repeat_ngram_size eos_token_id exponential_decay_length_penalty finetuning_task forced_bos_token_id forced_eos_token_id "
    "id2label label2id initializer_range is_decoder length_penalty max_length min_length model_type no_repeat_ngram_size num_beam_groups "
    "num_beams num_return_sequences output_attentions output_hidden_states output_scores pad_token_id prefix pretraining_tp problem_type "
    "remove_invalid_values repetition_penalty return_dict return_dict_in_generate sep_token_id suppress_tokens task_specific_params "
    "temperature tf_legacy_loss tie_encoder_decoder tokenizer_class top_k top_p torch_dtype torchscript transformers_version typical_p "
    "unsloth_fixed unsloth_version use_bfloat16 use_cache";

static bool is_word(const char *words, const char *word) {
  const size_t n = strlen(word);
  for (const char *at = words; at && (at = strstr(at, word)); at += n)
    if ((at == words || at[-1] == ' ') && (at[n] == ' ' || !at[n])) return true;
  return false;
}

static bool is_seen(const mn_settings *s, const char *key) {
  for (int i = 0; i < s->n_seen; i++)
    if (!strcmp(s->seen[i].key, key)) return true;
  return false;
}

/* config.json holds whatever the class of its settings knows, most of it false; GGUF what someone wrote down. */
static bool says_nothing(const mn_settings *s, const mn_value *v) {
  return v->kind == MN_NULL || (v->kind == MN_BOOLEAN && !v->as.boolean && s->form == MN_FORM_HF) ||
         ((v->kind == MN_MAP || v->kind == MN_LIST) && !v->count);
}

void mn_settings_rest(const mn_settings *s, const char *idle) {
  mn_text names = {0};
  const size_t n = s->word ? strlen(s->word) : 0;
  char shown[MN_PRINTABLE];
  for (size_t i = 0; i < s->map->count; i++) {
    const mn_entry *e = &s->map->as.entries[i];
    const char *key = e->key;
    if (is_seen(s, key) || says_nothing(s, e->value)) continue;
    if (s->word && (strncmp(key, s->word, n) != 0 || key[n] != '.')) continue; /* of the file, not of the architecture */
    if (is_word(idle, s->word ? key + n + 1 : key) || (!s->word && is_word(usual_idle, key))) continue;
    mn_text_addf(&names, "%s%s", names.len ? ", " : "", mn_printable(key, shown));
  }
  if (names.len)
    mn_log_write(MN_LOG_WARN, "%s: settings that this architecture does not have, and that change nothing: %s", s->file, names.data);
  mn_text_free(&names);
}

/* ---- a recipe's keys ---- */
void mn_keys_put(mn_keys *k, const char *key, const mn_value *v) {
  if (!v || k->n == MN_KEYS) {
    k->failed = true;
    return;
  }
  k->key[k->n] = key;
  k->value[k->n++] = v;
}

void mn_keys_change(mn_keys *k, const char *key, const mn_value *v) {
  if (!v) k->failed = true;
  for (int i = 0; i < k->n; i++)
    if (!strcmp(k->key[i], key)) k->value[i] = v;
}

void mn_keys_int(mn_keys *k, const char *key, int64_t v) { mn_keys_put(k, key, mn_value_int(k->arena, v)); }
void mn_keys_real(mn_keys *k, const char *key, double v) { mn_keys_put(k, key, mn_value_real(k->arena, v)); }
void mn_keys_bool(mn_keys *k, const char *key, bool v) { mn_keys_put(k, key, mn_value_bool(k->arena, v)); }
void mn_keys_text(mn_keys *k, const char *key, const char *v) { mn_keys_put(k, key, mn_value_text(k->arena, v)); }

const mn_value *mn_keys_map(const mn_keys *k) { return k->failed ? NULL : mn_value_map(k->arena, (size_t)k->n, k->key, k->value); }
