/* transformer.c - see transformer.h. */
#include "checkpoint/transformer.h"

#include <math.h>
#include <string.h>

#include "base/text.h"

mn_status mn_transformer_size(mn_settings *s, const char *width, const char *layers, mn_transformer *t) {
  const mn_checkpoint_tensor *e = s->form == MN_FORM_GGUF ? mn_checkpoint_find(s->from, "token_embd.weight") : NULL;
  MN_TRY(mn_setting_int(s, "vocab_size", "vocab_size", e && e->shape.ndim == 2 ? e->shape.dim[0] : MN_NEEDED, &t->vocab_size));
  MN_TRY(mn_setting_int(s, width, "embedding_length", MN_NEEDED, &t->d_model));
  MN_TRY(mn_setting_int(s, layers, "block_count", MN_NEEDED, &t->layers));
  return t->layers <= 4096 ? MN_OK : mn_setting_refuse(s, layers, "block_count", "is %lld layers; 4096 are the most", (long long)t->layers);
}

mn_status mn_transformer_tied(mn_settings *s, bool tied, mn_transformer *t) {
  MN_TRY(mn_setting_bool(s, "tie_word_embeddings", NULL, tied, &t->tied));
  if (s->form == MN_FORM_GGUF) t->tied = !mn_checkpoint_find(s->from, "output.weight");
  return MN_OK;
}

mn_status mn_transformer_one_width(mn_settings *s, const mn_transformer *t) {
  int64_t of_values;
  if (s->form != MN_FORM_GGUF || !mn_setting(s, NULL, "attention.key_length")) return MN_OK;
  MN_TRY(mn_setting_int(s, NULL, "attention.value_length", t->head_dim, &of_values));
  return of_values == t->head_dim
             ? MN_OK
             : mn_setting_refuse(s, NULL, "attention.value_length", "is %lld, and attention.key_length %lld: one width is done",
                                 (long long)of_values, (long long)t->head_dim);
}

mn_status mn_transformer_read(mn_settings *s, bool tied, mn_transformer *t) {
  *t = (mn_transformer){0};
  MN_TRY(mn_transformer_size(s, "hidden_size", "num_hidden_layers", t));
  MN_TRY(mn_setting_int(s, "num_attention_heads", "attention.head_count", MN_NEEDED, &t->heads));
  MN_TRY(mn_setting_count(s, "num_key_value_heads", "attention.head_count_kv", t->heads, &t->kv_heads));
  MN_TRY(mn_setting_count(s, "head_dim", "attention.key_length", t->heads ? t->d_model / t->heads : 0, &t->head_dim));
  MN_TRY(mn_transformer_one_width(s, t));
  MN_TRY(mn_setting_int(s, "intermediate_size", "feed_forward_length", MN_NEEDED, &t->hidden));
  MN_TRY(mn_setting_count(s, "max_position_embeddings", "context_length", 2048, &t->context));
  MN_TRY(mn_setting_between(s, "rms_norm_eps", "attention.layer_norm_rms_epsilon", MN_NEEDED_REAL, 0, 1, &t->norm_eps));
  return mn_transformer_tied(s, tied, t);
}

/* ---- rotary positions ---- */
mn_status mn_transformer_rotated(mn_settings *s, const mn_transformer *t, double partial, bool whole, int64_t *out) {
  *out = t->head_dim;
  if (partial == 1) return MN_OK;
  if (whole)
    return mn_setting_refuse(s, "partial_rotary_factor", NULL, "is %g, and this architecture rotates whole heads; only 1 is done", partial);
  const double rotated = (double)t->head_dim * partial;
  if (!(partial > 0 && partial < 1) || (t->head_dim && rotated < 1))
    return mn_setting_refuse(s, "partial_rotary_factor", NULL,
                             "is %g; it must leave a part of the %lld entries of a head to be rotated, or all", partial,
                             (long long)t->head_dim);
  *out = (int64_t)rotated;
  return MN_OK;
}

typedef struct scaling {
  const char *kind;
  double factor, original, gain, partial, low, high; /* low, high: of llama3 */
  const mn_value *divisors;                          /* a list; NULL: none */
} scaling;

typedef struct rope_map { /* a map of settings, and the key that it stands at */
  mn_settings *s;
  const char *of;
  const mn_value *map;
} rope_map;

/* The map's number by name; `otherwise` where it has none. */
static mn_status number(const rope_map *r, const char *key, double otherwise, double *out) {
  const mn_value *v = mn_value_get(r->map, key);
  *out = otherwise;
  if (!v || v->kind == MN_NULL || mn_value_number(v, out)) return MN_OK;
  return mn_setting_refuse(r->s, r->of, NULL, "has a %s that is no number", key);
}

static mn_status only(const rope_map *r, const char *key, double what) {
  double is;
  MN_TRY(number(r, key, what, &is));
  return is == what ? MN_OK : mn_setting_refuse(r->s, r->of, NULL, "has %s: %g, which is not done; only %g is", key, is, what);
}

/* Every key of the map has a meaning here: words, a space between. */
static mn_status known(const rope_map *r, const char *words) {
  char shown[MN_PRINTABLE];
  for (size_t i = 0; i < r->map->count; i++) {
    const char *key = r->map->as.entries[i].key, *at = strstr(words, key);
    const size_t n = strlen(key);
    while (at && ((at != words && at[-1] != ' ') || (at[n] && at[n] != ' '))) at = strstr(at + 1, key);
    if (!at && r->map->as.entries[i].value->kind != MN_NULL)
      return mn_setting_refuse(r->s, r->of, NULL, "has the key '%s', which is not done", mn_printable(key, shown));
  }
  return MN_OK;
}

static mn_status gain_of(const rope_map *r, double usual, double *out) {
  double given;
  MN_TRY(number(r, "attention_factor", DBL_MAX, &given));
  *out = given == DBL_MAX ? usual : given;
  return given > 0 ? MN_OK : mn_setting_refuse(r->s, r->of, NULL, "has attention_factor: %g, which must be above 0", given);
}

/* Frequencies of their own for streams up to the original context, and others for longer ones, which would turn keys that are kept already:
 * the first are taken, and a stream ends there. All is multiplied by what the longest context asks for (Ding et al. 2024, LongRoPE). */
static mn_status long_rope(const rope_map *r, mn_transformer *t, scaling *out) {
  double factor;
  MN_TRY(known(r, "rope_type type rope_theta partial_rotary_factor factor short_factor long_factor attention_factor "
                  "original_max_position_embeddings"));
  MN_TRY(number(r, "factor", (double)t->context / out->original, &factor));
  const double usual = factor > 1 && out->original > 1 ? sqrt(1 + log(factor) / log(out->original)) : 1;
  MN_TRY(gain_of(r, usual, &out->gain));
  out->divisors = mn_value_get(r->map, "short_factor");
  if (!out->divisors || out->divisors->kind != MN_LIST) return mn_setting_refuse(r->s, r->of, NULL, "has no list short_factor");
  if (out->original < (double)t->context) t->context = (int64_t)out->original;
  out->kind = "none";
  return MN_OK;
}

static mn_status read_hf(const rope_map *r, mn_transformer *t, double *theta, scaling *out) {
#define USUAL "rope_type type rope_theta partial_rotary_factor factor original_max_position_embeddings"
  char shown[MN_PRINTABLE];
  if (r->map->kind != MN_MAP) return mn_setting_refuse(r->s, r->of, NULL, "must be a map");
  const mn_value *kind = mn_value_get(r->map, "rope_type");
  if (!kind) kind = mn_value_get(r->map, "type");
  if (kind && kind->kind != MN_TEXT) return mn_setting_refuse(r->s, r->of, NULL, "has a rope_type that is no text");
  out->kind = kind ? kind->as.text : "default";
  MN_TRY(number(r, "rope_theta", *theta, theta));
  MN_TRY(number(r, "factor", 1, &out->factor));
  MN_TRY(number(r, "original_max_position_embeddings", out->original, &out->original));
  MN_TRY(number(r, "partial_rotary_factor", out->partial, &out->partial));
  if (!(out->original >= 1 && out->original <= 1e9))
    return mn_setting_refuse(r->s, r->of, NULL, "has original_max_position_embeddings: %g", out->original);
  if (!strcmp(out->kind, "default")) {
    out->kind = "none";
    return known(r, USUAL);
  }
  if (!strcmp(out->kind, "linear")) return known(r, USUAL);
  if (!strcmp(out->kind, "longrope") || !strcmp(out->kind, "su")) return long_rope(r, t, out);
  if (!strcmp(out->kind, "llama3")) {
    MN_TRY(number(r, "low_freq_factor", 1, &out->low));
    MN_TRY(number(r, "high_freq_factor", 4, &out->high));
    if (!(out->low > 0) || !(out->low < out->high))
      return mn_setting_refuse(r->s, r->of, NULL, "has low_freq_factor: %g, which must be above 0 and below high_freq_factor: %g", out->low,
                               out->high);
    return known(r, USUAL " low_freq_factor high_freq_factor");
  }
  if (!strcmp(out->kind, "yarn")) {
    const mn_value *truncate = mn_value_get(r->map, "truncate");
    MN_TRY(only(r, "beta_fast", 32));
    MN_TRY(only(r, "beta_slow", 1));
    MN_TRY(gain_of(r, 0, &out->gain));
    if (truncate && (truncate->kind != MN_BOOLEAN || !truncate->as.boolean))
      return mn_setting_refuse(r->s, r->of, NULL, "has truncate: false, which is not done");
    return known(r, USUAL " beta_fast beta_slow truncate attention_factor");
  }
  return mn_setting_refuse(r->s, r->of, NULL, "is of type '%s', which is not done; default, linear, yarn, llama3 and longrope are",
                           mn_printable(out->kind, shown));
#undef USUAL
}

/* Numbers of a tensor as a list of values. */
mn_status mn_transformer_numbers(mn_arena *arena, const mn_checkpoint_tensor *t, const mn_value **out) {
  enum { MOST = 4096 };
  const mn_value *items[MOST];
  double x[MOST];
  const int64_t n = mn_shape_count(&t->shape);
  char shown[MN_PRINTABLE];
  if (n > MOST) return mn_fail(MN_ERR_FORMAT, "%s: tensor '%s' has more than %d numbers", t->file, mn_printable(t->name, shown), MOST);
  MN_TRY(mn_checkpoint_readable(t));
  MN_TRY(mn_checkpoint_read(t, 0, n, MN_F64, x));
  for (int64_t i = 0; i < n; i++) items[i] = mn_value_real(arena, x[i]);
  return (*out = mn_value_list(arena, (size_t)n, items)) ? MN_OK : MN_ERR_MEMORY;
}

static mn_status only_usual_yarn(mn_settings *s) {
  MN_TRY(mn_setting_only_real(s, NULL, "rope.scaling.yarn_beta_fast", 32));
  MN_TRY(mn_setting_only_real(s, NULL, "rope.scaling.yarn_beta_slow", 1));
  MN_TRY(mn_setting_only_real(s, NULL, "rope.scaling.yarn_ext_factor", 1));
  MN_TRY(mn_setting_only_real(s, NULL, "rope.scaling.yarn_attn_factor", 1));
  return mn_setting_only_real(s, NULL, "rope.scaling.yarn_log_multiplier", 0);
}

static mn_status read_gguf(mn_settings *s, mn_transformer *t, scaling *out) {
  static const char *const words[] = {"none", "linear", "yarn", "longrope"};
  const mn_checkpoint_tensor *near = mn_checkpoint_find(s->from, "rope_factors_short.weight"),
                             *far = mn_checkpoint_find(s->from, "rope_freqs.weight");
  const bool stretched = mn_setting(s, NULL, "rope.scaling.factor") || mn_setting(s, NULL, "rope.scale_linear"); /* linearly, unless said */
  int i = 0;
  MN_TRY(mn_setting_text(s, NULL, "rope.scaling.type", stretched ? "linear" : "none", &out->kind));
  MN_TRY(mn_setting_between(s, NULL, "rope.scale_linear", 1, 0, 1e6, &out->factor));
  MN_TRY(mn_setting_between(s, NULL, "rope.scaling.factor", out->factor, 0, 1e6, &out->factor));
  if (out->factor == 0) out->factor = 1;
  MN_TRY(mn_setting_real(s, NULL, "rope.scaling.original_context_length", out->original, &out->original));
  MN_TRY(mn_setting_real(s, NULL, "rope.scaling.attn_factor", 0, &out->gain));
  while (i < 4 && strcmp(out->kind, words[i]) != 0) i++;
  if (i == 4)
    return mn_setting_refuse(s, NULL, "rope.scaling.type", "is '%s', which is not done; none, linear, yarn and longrope are", out->kind);
  if (i == 3 && !near)
    return mn_setting_refuse(s, NULL, "rope.scaling.type", "is longrope, and there is no tensor 'rope_factors_short.weight'");
  if (i == 3) out->kind = "none";
  if (i == 2) MN_TRY(only_usual_yarn(s));
  if (near && out->original < (double)t->context) t->context = (int64_t)out->original; /* as above */
  return near || far ? mn_transformer_numbers(s->arena, near ? near : far, &out->divisors) : MN_OK;
}

double mn_llama3_divisor(double theta, double head_dim, int64_t i, double factor, double original, double low, double high) {
  const double two_pi = 6.283185307179586476925, wave = two_pi / pow(theta, -2.0 * (double)i / head_dim);
  if (wave < original / high) return 1;
  if (wave > original / low) return factor;
  const double share = (original / wave - low) / (high - low); /* of the frequency as it was */
  return 1 / ((1 - share) / factor + share);
}

/* GGUF has a table of what divides each frequency; so do recipes. */
static mn_status divide_as_llama3(mn_settings *s, double theta, int64_t rotated, scaling *how) {
  const mn_value **items = mn_arena_alloc(s->arena, (size_t)(rotated / 2 + 1) * sizeof *items);
  if (!items) return MN_ERR_MEMORY;
  for (int64_t i = 0; i < rotated / 2; i++)
    items[i] = mn_value_real(s->arena, mn_llama3_divisor(theta, (double)rotated, i, how->factor, how->original, how->low, how->high));
  how->kind = "none";
  return (how->divisors = mn_value_list(s->arena, (size_t)(rotated / 2), items)) ? MN_OK : MN_ERR_MEMORY;
}

static const mn_value *kind_in(const mn_value *map) {
  const mn_value *kind = mn_value_get(map, "rope_type");
  return kind ? kind : mn_value_get(map, "type");
}

/* Do two maps say the same of how positions are stretched? The newer one may hold rope_theta, too. */
static bool same_stretching(const mn_value *newer, const mn_value *older) {
  const mn_value *const maps[] = {newer, older}, *a = kind_in(newer), *b = kind_in(older);
  if (newer->kind != MN_MAP || older->kind != MN_MAP || !a != !b || (a && !mn_value_equal(a, b))) return false;
  for (int i = 0; i < 2; i++)
    for (size_t k = 0; k < maps[i]->count; k++) {
      const char *key = maps[i]->as.entries[k].key;
      const mn_value *other = mn_value_get(maps[!i], key), *one = maps[i]->as.entries[k].value;
      if (!strcmp(key, "type") || !strcmp(key, "rope_type") ||
          ((!strcmp(key, "rope_theta") || !strcmp(key, "partial_rotary_factor")) && !other) || one->kind == MN_NULL)
        continue;
      if (!other || !mn_value_equal(one, other)) return false;
    }
  return true;
}

mn_status mn_transformer_rope(mn_settings *s, mn_transformer *t, double theta, const char *kind, mn_keys *attention) {
  scaling how = {.kind = "none", .factor = 1, .partial = 1};
  const mn_value *old = mn_setting(s, "rope_scaling", NULL), *map = mn_setting(s, "rope_parameters", NULL);
  rope_map r = {s, map ? "rope_parameters" : "rope_scaling", map ? map : old};
  if (map && old && !same_stretching(map, old))
    return mn_setting_refuse(s, "rope_scaling", NULL, "says something else than rope_parameters beside it; keep the one that holds");
  int64_t rotated = t->head_dim;
  if (map && kind && mn_value_get(map, kind)) r.map = mn_value_get(map, kind);
  if (s->form == MN_FORM_GGUF) theta = MN_GGUF_THETA;
  MN_TRY(mn_setting_between(s, "rope_theta", "rope.freq_base", theta, 1, 1e12, &theta));
  MN_TRY(mn_setting_real(s, "partial_rotary_factor", NULL, 1, &how.partial));
  MN_TRY(mn_setting_real(s, "original_max_position_embeddings", NULL, (double)t->context, &how.original));
  if (s->form == MN_FORM_GGUF) {
    MN_TRY(mn_setting_count(s, NULL, "rope.dimension_count", t->head_dim, &rotated));
    MN_TRY(read_gguf(s, t, &how));
  } else if (r.map && r.map->kind != MN_NULL) {
    MN_TRY(read_hf(&r, t, &theta, &how));
  }
  if (how.partial != 1) MN_TRY(mn_transformer_rotated(s, t, how.partial, !t->partial, &rotated));
  if (rotated != t->head_dim) mn_keys_int(attention, "rope_dim", rotated);
  if (!strcmp(how.kind, "llama3")) MN_TRY(divide_as_llama3(s, theta, rotated, &how));
  mn_keys_real(attention, "rope_theta", theta);
  if (how.divisors) mn_keys_put(attention, "rope_divisors", mn_value_copy(s->arena, how.divisors));
  if (how.gain > 0 && how.gain != 1) mn_keys_real(attention, "rope_gain", how.gain);
  if (!strcmp(how.kind, "none")) return MN_OK;
  mn_keys_text(attention, "rope_scaling", how.kind);
  mn_keys_real(attention, "rope_factor", how.factor);
  if (strcmp(how.kind, "linear") != 0) mn_keys_int(attention, "rope_original_context", (int64_t)how.original);
  return MN_OK;
}

/* ---- layers ---- */
mn_status mn_transformer_local(mn_settings *s, const mn_transformer *t, int64_t period, const bool **out) {
  const mn_value *types = mn_setting(s, "layer_types", NULL), *pattern = mn_setting(s, NULL, "attention.sliding_window_pattern");
  if (pattern && pattern->kind == MN_INTEGER) period = pattern->as.integer;
  const mn_value *list = types ? types : pattern && pattern->kind == MN_LIST ? pattern : NULL;
  bool *local = mn_arena_alloc(s->arena, (size_t)(t->layers + 1) * sizeof *local);
  if (!local) return MN_ERR_MEMORY;
  if (list && (list->kind != MN_LIST || list->count < (size_t)t->layers))
    return mn_setting_refuse(s, "layer_types", "attention.sliding_window_pattern", "must be a list of %lld", (long long)t->layers);
  for (int64_t i = 0; i < t->layers; i++) {
    const mn_value *v = list ? list->as.items[i] : NULL;
    local[i] = period > 0 && (i + 1) % period != 0;
    if (!v) continue;
    const bool word = v->kind == MN_TEXT;
    local[i] = word                    ? !strcmp(v->as.text, "sliding_attention")
               : v->kind == MN_BOOLEAN ? v->as.boolean
                                       : v->kind == MN_INTEGER && v->as.integer;
    if (word && !local[i] && strcmp(v->as.text, "full_attention") != 0)
      return mn_setting_refuse(s, "layer_types", NULL, "has a layer of another kind than full_attention and sliding_attention");
  }
  *out = local;
  return MN_OK;
}

void mn_transformer_heads(const mn_transformer *t, int64_t window, mn_keys *attention) {
  mn_keys_text(attention, "type", "attention");
  mn_keys_int(attention, "heads", t->heads);
  mn_keys_int(attention, "kv_heads", t->kv_heads);
  mn_keys_int(attention, "head_dim", t->head_dim);
  if (window) mn_keys_int(attention, "window", window);
  else mn_keys_int(attention, "max_context", t->context);
}

const mn_value *mn_transformer_block(mn_settings *s, const mn_transformer *t, const mn_keys *attention, const char *word,
                                     const mn_value *channel, const char *norm_position) {
  mn_keys block = {.arena = s->arena};
  mn_keys_put(&block, "mixer", mn_keys_map(attention));
  mn_keys_put(&block, "channel", word ? mn_value_text(s->arena, word) : channel);
  mn_keys_int(&block, "hidden", t->hidden);
  if (norm_position) mn_keys_text(&block, "norm_position", norm_position);
  return mn_keys_map(&block);
}

void mn_transformer_blocks(mn_settings *s, const mn_transformer *t, const mn_value *const *block, const bool *local, mn_keys *model) {
  const mn_value **items = mn_arena_alloc(s->arena, (size_t)(t->layers + 1) * sizeof *items);
  size_t n = 0;
  for (int64_t i = 0; items && i < t->layers;) {
    const int which = local && local[i];
    int64_t k = i + 1;
    while (k < t->layers && (local && local[k]) == which) k++;
    const mn_value *of = block[which];
    mn_keys keys = {.arena = s->arena};
    for (size_t j = 0; of && j < of->count; j++) mn_keys_put(&keys, of->as.entries[j].key, of->as.entries[j].value);
    mn_keys_int(&keys, "repeat", k - i);
    items[n++] = of ? mn_keys_map(&keys) : NULL;
    if (!items[n - 1]) items = NULL;
    i = k;
  }
  mn_keys_put(model, "blocks", items ? mn_value_list(s->arena, n, items) : NULL);
}

void mn_transformer_model(const mn_transformer *t, const char *type, const char *norm, mn_keys *model) {
  mn_keys_text(model, "type", type);
  mn_keys_int(model, "vocab_size", t->vocab_size);
  mn_keys_int(model, "d_model", t->d_model);
  mn_keys_bool(model, "tie_embeddings", t->tied);
  mn_keys_text(model, "norm", norm);
  mn_keys_real(model, "norm_eps", t->norm_eps);
}

mn_status mn_transformer_activation(mn_settings *s, const char *hf, const char *otherwise, const char **out) {
  static const char *const words[][2] = {{"gelu", "gelu"}, {"gelu_new", "gelu_tanh"}, {"gelu_pytorch_tanh", "gelu_tanh"}, {"relu", "relu"},
                                         {"silu", "silu"}, {"swish", "silu"},         {"gelu_fast", "gelu_tanh"}};
  const char *is;
  char shown[MN_PRINTABLE];
  MN_TRY(mn_setting_text(s, hf, NULL, otherwise, &is));
  for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
    if (strcmp(words[i][0], is) != 0) continue;
    *out = words[i][1];
    return MN_OK;
  }
  return mn_setting_refuse(s, hf, NULL, "is '%s', which is not done; gelu, gelu_new, gelu_pytorch_tanh, relu and silu are",
                           mn_printable(is, shown));
}
