/* ask.c - see ask.h. */
#include "serve/ask.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/nearest.h"
#include "format/json.h"
#include "serve/ask_response.h"
#include "serve/ask_tools.h"
#include "serve/tools.h"

bool mn_refuse(mn_refusal *why, int status, const char *param, const char *code, const char *fmt, ...) {
  va_list ap;
  *why = (mn_refusal){.status = status, .code = code};
  snprintf(why->param, sizeof why->param, "%s", param ? param : "");
  va_start(ap, fmt);
  vsnprintf(why->message, sizeof why->message, fmt, ap);
  va_end(ap);
  return false;
}

/* ---- keys ---- */
enum { ALL = 15, TEXT = MN_ASK_COMPLETION | MN_ASK_CHAT, SAID = TEXT | MN_ASK_RESPONSE };
typedef struct known {
  const char *key;
  int kinds;
  const char *only; /* NULL: it is read. "": a label. Else the one value, as JSON, that says what is done anyway */
} known;
static const known keys[] = {
    {"model", ALL, NULL},
    {"prompt", MN_ASK_COMPLETION, NULL},
    {"messages", MN_ASK_CHAT, NULL},
    {"input", MN_ASK_EMBEDDING | MN_ASK_RESPONSE, NULL},
    {"instructions", MN_ASK_RESPONSE, NULL},
    {"max_output_tokens", MN_ASK_RESPONSE, NULL},
    {"encoding_format", MN_ASK_EMBEDDING, NULL},
    {"dimensions", MN_ASK_EMBEDDING, NULL},
    {"max_tokens", TEXT, NULL},
    {"max_completion_tokens", MN_ASK_CHAT, NULL},
    {"temperature", SAID, NULL},
    {"top_p", SAID, NULL},
    {"top_k", TEXT, NULL},
    {"min_p", TEXT, NULL},
    {"repetition_penalty", TEXT, NULL},
    {"presence_penalty", TEXT, NULL},
    {"frequency_penalty", TEXT, NULL},
    {"seed", SAID, NULL},
    {"n", TEXT, NULL},
    {"stop", TEXT, NULL},
    {"stream", SAID, NULL},
    {"stream_options", TEXT, NULL},
    {"logprobs", TEXT, NULL},
    {"top_logprobs", MN_ASK_CHAT, NULL},
    {"logit_bias", TEXT, NULL},
    {"echo", MN_ASK_COMPLETION, NULL},
    {"ignore_eos", TEXT, NULL},
    {"response_format", TEXT, NULL},
    {"tools", MN_ASK_CHAT | MN_ASK_RESPONSE, NULL},
    {"tool_choice", MN_ASK_CHAT | MN_ASK_RESPONSE, NULL},
    {"parallel_tool_calls", MN_ASK_CHAT | MN_ASK_RESPONSE, NULL},
    {"chat_template_kwargs", MN_ASK_CHAT | MN_ASK_RESPONSE, NULL},
    {"session_id", SAID, NULL},
    {"best_of", MN_ASK_COMPLETION, "1"},
    {"suffix", MN_ASK_COMPLETION, "null"},
    {"reasoning_effort", MN_ASK_CHAT, "null"},
    {"verbosity", MN_ASK_CHAT, "null"},
    {"prediction", MN_ASK_CHAT, "null"},
    {"audio", MN_ASK_CHAT, "null"},
    {"web_search_options", MN_ASK_CHAT, "null"},
    {"functions", MN_ASK_CHAT, "null"},
    {"function_call", MN_ASK_CHAT, "null"},
    {"reasoning", MN_ASK_RESPONSE, "null"},
    {"conversation", MN_ASK_RESPONSE, "null"},
    {"prompt", MN_ASK_RESPONSE, "null"},
    {"max_tool_calls", MN_ASK_RESPONSE, "null"},
    {"modalities", MN_ASK_CHAT, "[\"text\"]"},
    {"user", ALL, ""},
    {"metadata", SAID, ""},
    {"text", MN_ASK_RESPONSE, NULL},
    {"previous_response_id", MN_ASK_RESPONSE, NULL},
    {"store", MN_ASK_RESPONSE, NULL},
    {"store", MN_ASK_CHAT, "false"},
    {"truncation", MN_ASK_RESPONSE, "\"disabled\""},
    {"background", MN_ASK_RESPONSE, "false"},
    {"include", MN_ASK_RESPONSE, "[]"},
    {"service_tier", MN_ASK_CHAT | MN_ASK_RESPONSE, ""},
    {"safety_identifier", MN_ASK_CHAT | MN_ASK_RESPONSE, ""},
    {"prompt_cache_key", MN_ASK_CHAT | MN_ASK_RESPONSE, ""},
};
enum { N_KEYS = sizeof keys / sizeof *keys };

typedef struct reader {
  mn_arena *arena;
  const mn_value *map;
  mn_ask *out;
  mn_refusal *why;
  const mn_ask_limits *limits;
  int64_t most; /* of a response: tokens; -1: it does not say */
} reader;

static bool no_memory(mn_refusal *why) { return mn_refuse(why, 503, NULL, NULL, "the server is out of memory"); }

static bool unknown_key(reader *r, const char *key) {
  const char *names[N_KEYS];
  char shown[MN_PRINTABLE];
  int n = 0;
  for (int i = 0; i < N_KEYS; i++)
    if ((keys[i].kinds & (int)r->out->kind) && (!keys[i].only || strcmp(keys[i].only, "null") != 0)) names[n++] = keys[i].key;
  const char *near = mn_nearest(key, names, n);
  return mn_refuse(r->why, 400, mn_printable(key, shown), "unknown_parameter", "unknown parameter '%s'%s%s%s", shown,
                   near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
}

/* Is the value what is done anyway? */
static bool is_only(reader *r, const mn_value *v, const char *only, bool *same) {
  const mn_value *wanted;
  if (mn_json_parse(r->arena, "only", only, strlen(only), &wanted) != MN_OK) return no_memory(r->why);
  *same = v->kind == MN_NULL || mn_value_equal(v, wanted);
  return true;
}

static void add_label(mn_ask *a, const char *label) {
  if (a->n_labels < MN_ASK_LABELS) a->labels[a->n_labels++] = label;
}

static bool check_keys(reader *r) {
  for (size_t i = 0; i < r->map->count; i++) {
    const mn_entry *e = &r->map->as.entries[i];
    const known *k = NULL;
    bool same = true;
    for (int j = 0; j < N_KEYS && !k; j++)
      if (!strcmp(keys[j].key, e->key) && (keys[j].kinds & (int)r->out->kind)) k = &keys[j];
    if (!k) return unknown_key(r, e->key);
    if (k->only && *k->only && !is_only(r, e->value, k->only, &same)) return false;
    if (!same) return mn_refuse(r->why, 400, k->key, "unsupported_parameter", "'%s' is not supported here: leave it out", k->key);
    if (k->only && !*k->only && e->value->kind != MN_NULL) add_label(r->out, k->key);
  }
  return true;
}

/* ---- values ---- absent and null: *out stays */
static const mn_value *given(const mn_value *map, const char *key) {
  const mn_value *v = mn_value_get(map, key);
  return v && v->kind != MN_NULL ? v : NULL;
}

static bool wrong(const reader *r, const char *key, const mn_value *v, const char *expected) {
  char shown[MN_PLACE];
  return mn_refuse(r->why, 400, key, "invalid_type", "'%s' is %s; it must be %s", key, mn_value_show(v, shown), expected);
}

/* "prompt.2": what the i-th of a list is called. */
static const char *item(const reader *r, const char *key, size_t i) {
  const char *name = mn_arena_format(r->arena, "%s.%zu", key, i);
  return name ? name : key;
}

static bool read_bool(const reader *r, const char *key, bool *out) {
  const mn_value *v = given(r->map, key);
  if (v && v->kind != MN_BOOLEAN) return wrong(r, key, v, "true or false");
  if (v) *out = v->as.boolean;
  return true;
}

static bool read_int(const reader *r, const char *key, int64_t min, int64_t max, int64_t *out) {
  const mn_value *v = given(r->map, key);
  if (v && v->kind != MN_INTEGER) return wrong(r, key, v, "an integer");
  if (v && (v->as.integer < min || v->as.integer > max))
    return mn_refuse(r->why, 400, key, "invalid_value", "'%s' is %lld; it must be from %lld to %lld", key, (long long)v->as.integer,
                     (long long)min, (long long)max);
  if (v) *out = v->as.integer;
  return true;
}

static bool read_number(const reader *r, const char *key, double min, double max, double *out) {
  const mn_value *v = given(r->map, key);
  double x;
  if (!v) return true;
  if (!mn_value_number(v, &x)) return wrong(r, key, v, "a number");
  if (!(x >= min && x <= max))
    return mn_refuse(r->why, 400, key, "invalid_value", "'%s' is %g; it must be from %g to %g", key, x, min, max);
  *out = x;
  return true;
}

static bool read_text(const reader *r, const char *key, const char **out) {
  const mn_value *v = given(r->map, key);
  if (v && v->kind != MN_TEXT) return wrong(r, key, v, "a text");
  if (v) *out = v->as.text;
  return true;
}

/* ---- prompts ---- */
static bool read_ids(const reader *r, const char *key, const mn_value *list, mn_ask_prompt *out) {
  int32_t *ids = mn_arena_alloc(r->arena, (list->count + 1) * sizeof *ids);
  if (!ids) return no_memory(r->why);
  for (size_t i = 0; i < list->count; i++) {
    const mn_value *v = list->as.items[i];
    if (v->kind != MN_INTEGER) return wrong(r, item(r, key, i), v, "a token id, beside others");
    if (v->as.integer < 0 || v->as.integer >= r->limits->vocab_size)
      return mn_refuse(r->why, 400, item(r, key, i), "invalid_value", "'%s' is the token %lld; this model has tokens from 0 to %lld",
                       item(r, key, i), (long long)v->as.integer, (long long)r->limits->vocab_size - 1);
    ids[i] = (int32_t)v->as.integer;
  }
  *out = (mn_ask_prompt){.ids = ids, .n_ids = (int64_t)list->count};
  return true;
}

static bool read_prompt(const reader *r, const char *key, const mn_value *v, mn_ask_prompt *out) {
  if (v->kind == MN_LIST) return read_ids(r, key, v, out);
  if (v->kind != MN_TEXT) return wrong(r, key, v, "a text, a list of token ids, or a list of these");
  *out = (mn_ask_prompt){.text = v->as.text, .n = v->count};
  return true;
}

/* A text, ids, or a list of texts or of lists of ids. */
static bool read_prompts(const reader *r, const char *key) {
  const mn_value *v = given(r->map, key);
  if (!v) return mn_refuse(r->why, 400, key, "missing_required_parameter", "'%s' is missing", key);
  const bool several = v->kind == MN_LIST && v->count && v->as.items[0]->kind != MN_INTEGER;
  const size_t n = several ? v->count : 1;
  if (v->kind == MN_LIST && !v->count) return mn_refuse(r->why, 400, key, "invalid_value", "'%s' is an empty list", key);
  if ((int64_t)n > r->limits->most_prompts)
    return mn_refuse(r->why, 400, key, "invalid_value", "'%s' has %zu texts; at most %lld are taken at once", key, n,
                     (long long)r->limits->most_prompts);
  mn_ask_prompt *p = mn_arena_alloc(r->arena, n * sizeof *p);
  if (!p) return no_memory(r->why);
  for (size_t i = 0; i < n; i++)
    if (!read_prompt(r, several ? item(r, key, i) : key, several ? v->as.items[i] : v, &p[i])) return false;
  r->out->prompts = p;
  r->out->n_prompts = (int64_t)n;
  return true;
}

/* ---- how it is drawn ---- */
static bool read_stops(const reader *r) {
  const mn_value *v = given(r->map, "stop");
  if (!v) return true;
  const size_t n = v->kind == MN_LIST ? v->count : 1;
  if (v->kind != MN_TEXT && v->kind != MN_LIST) return wrong(r, "stop", v, "a text or a list of texts");
  if (n > MN_ASK_STOPS)
    return mn_refuse(r->why, 400, "stop", "invalid_value", "'stop' has %zu texts; at most %d are taken", n, MN_ASK_STOPS);
  const char **stops = mn_arena_alloc(r->arena, (n + 1) * sizeof *stops);
  if (!stops) return no_memory(r->why);
  for (size_t i = 0; i < n; i++) {
    const mn_value *s = v->kind == MN_LIST ? v->as.items[i] : v;
    const char *name = v->kind == MN_LIST ? item(r, "stop", i) : "stop";
    if (s->kind != MN_TEXT) return wrong(r, name, s, "a text");
    if (!s->count) return mn_refuse(r->why, 400, name, "invalid_value", "'%s' is an empty text, which everything holds", name);
    stops[i] = s->as.text;
  }
  r->out->manner.stops = stops;
  r->out->manner.n_stops = (int)n;
  return true;
}

static bool read_bias(const reader *r) {
  const mn_value *v = given(r->map, "logit_bias");
  if (!v) return true;
  if (v->kind != MN_MAP) return wrong(r, "logit_bias", v, "a map from token ids to numbers");
  mn_bias *bias = mn_arena_alloc(r->arena, (v->count + 1) * sizeof *bias);
  if (!bias) return no_memory(r->why);
  for (size_t i = 0; i < v->count; i++) {
    const mn_entry *e = &v->as.entries[i];
    char shown[MN_PRINTABLE], *end;
    const long long id = strtoll(e->key, &end, 10);
    if (e->key[0] < '0' || e->key[0] > '9' || *end || id >= r->limits->vocab_size)
      return mn_refuse(r->why, 400, "logit_bias", "invalid_value", "'logit_bias' has the key '%s'; keys are token ids from 0 to %lld",
                       mn_printable(e->key, shown), (long long)r->limits->vocab_size - 1);
    if (!mn_value_number(e->value, &bias[i].bias) || !(bias[i].bias >= -100 && bias[i].bias <= 100))
      return mn_refuse(r->why, 400, "logit_bias", "invalid_value", "'logit_bias' of %lld must be a number from -100 to 100", id);
    bias[i].token = (int32_t)id;
  }
  r->out->manner.bias = bias;
  r->out->manner.n_bias = (int)v->count;
  return true;
}

static bool read_logprobs(const reader *r) {
  int64_t top = -1;
  bool asked = false;
  if (r->out->kind == MN_ASK_COMPLETION) { /* a number */
    if (!read_int(r, "logprobs", 0, MN_TOP, &top)) return false;
  } else {
    if (!read_bool(r, "logprobs", &asked)) return false;
    if (asked) top = 0;
    if (given(r->map, "top_logprobs") && !asked)
      return mn_refuse(r->why, 400, "top_logprobs", "invalid_value", "'top_logprobs' has no effect without 'logprobs': true");
    if (!read_int(r, "top_logprobs", 0, MN_TOP, &top)) return false;
  }
  r->out->manner.top = (int)top;
  return true;
}

static bool read_stream(const reader *r) {
  if (!read_bool(r, "stream", &r->out->stream)) return false;
  const mn_value *v = given(r->map, "stream_options");
  if (!v) return true;
  if (!r->out->stream)
    return mn_refuse(r->why, 400, "stream_options", "invalid_value", "'stream_options' has no effect without 'stream': true");
  if (v->kind != MN_MAP) return wrong(r, "stream_options", v, "a map");
  for (size_t i = 0; i < v->count; i++) {
    const mn_entry *e = &v->as.entries[i];
    char shown[MN_PRINTABLE];
    const bool usage = !strcmp(e->key, "include_usage"), blur = !strcmp(e->key, "include_obfuscation");
    if (!usage && !blur)
      return mn_refuse(r->why, 400, "stream_options", "unknown_parameter", "'stream_options' has an unknown key '%s'",
                       mn_printable(e->key, shown));
    if (e->value->kind != MN_BOOLEAN) return wrong(r, "stream_options", e->value, "a map of true and false");
    if (usage) r->out->include_usage = e->value->as.boolean;
    else if (e->value->as.boolean)
      return mn_refuse(r->why, 400, "stream_options", "unsupported_parameter", "'include_obfuscation' is not supported here");
  }
  return true;
}

/* What a response_format, which a response calls text.format, is of. */
static bool wrong_format(const reader *r, const char *code, const char *what) {
  const bool response = r->out->response;
  return mn_refuse(r->why, 400, response ? "text" : "response_format", code, "'%s' %s", response ? "text.format" : "response_format", what);
}

static bool other_format_key(const reader *r, const char *of, const char *key) {
  char shown[MN_PRINTABLE], what[MN_PRINTABLE + 40];
  snprintf(what, sizeof what, "has an unknown key '%s%s'", of, mn_printable(key, shown));
  return wrong_format(r, "unknown_parameter", what);
}

/* {"name", "description", "schema", "strict"}: strict or not, the schema is kept. */
static bool read_schema(const reader *r, const mn_value *named) {
  static const char *const of_schema[] = {"name", "description", "schema", "strict", NULL};
  const mn_value *name = given(named, "name"), *text = given(named, "description"), *strict = given(named, "strict");
  const char *other = mn_ask_other_key(named, of_schema);
  r->out->schema = mn_value_get(named, "schema");
  if (!r->out->schema)
    return wrong_format(r, "missing_required_parameter",
                        r->out->response ? "of type json_schema holds it as schema" : "of type json_schema holds it as json_schema.schema");
  if (other) return other_format_key(r, r->out->response ? "" : "json_schema.", other);
  if (name && name->kind != MN_TEXT) return wrong_format(r, "invalid_type", "has a name that is no text");
  if (text && text->kind != MN_TEXT) return wrong_format(r, "invalid_type", "has a description that is no text");
  return !strict || strict->kind == MN_BOOLEAN || wrong_format(r, "invalid_type", "has a strict that is neither true nor false");
}

static bool read_format(const reader *r) {
  static const char *const plain[] = {"type", NULL}, *const schemas[] = {"type", "json_schema", NULL};
  const mn_value *v = given(r->map, "response_format"), *type = v ? mn_value_get(v, "type") : NULL;
  if (!v) return true;
  if (v->kind != MN_MAP || !type || type->kind != MN_TEXT) return wrong_format(r, "invalid_type", "must be a map with a type");
  const bool schema = !strcmp(type->as.text, "json_schema");
  const char *other = mn_ask_other_key(v, schema ? schemas : plain);
  if (other) return other_format_key(r, "", other);
  if (!strcmp(type->as.text, "text")) return true;
  if (!strcmp(type->as.text, "json_object")) {
    r->out->format = MN_FORMAT_OBJECT;
    return true;
  }
  if (!schema) return wrong_format(r, "invalid_value", "must be of type text, json_object or json_schema");
  r->out->format = MN_FORMAT_SCHEMA;
  return read_schema(r, mn_value_get(v, "json_schema"));
}

/* Two names of one thing. */
static bool check_most(const reader *r) {
  const mn_value *a = given(r->map, "max_tokens"), *b = given(r->map, "max_completion_tokens");
  return !a || !b || mn_value_equal(a, b) ||
         mn_refuse(r->why, 400, "max_tokens", "invalid_value", "'max_tokens' is %lld and 'max_completion_tokens' %lld: leave one out",
                   (long long)a->as.integer, (long long)b->as.integer);
}

static bool read_manner(const reader *r) {
  mn_ask *a = r->out;
  mn_sampling *s = &a->manner.sampling;
  int64_t limit = r->limits->most_tokens;
  a->most_key = given(r->map, "max_completion_tokens") ? "max_completion_tokens" : "max_tokens";
  mn_config_defaults(mn_sampling_fields, s);
  s->temperature = 1;
  a->n = 1;
  a->manner.most = -1;
  a->seeded = given(r->map, "seed") != NULL;
  if (!read_text(r, "session_id", &a->session)) return false;
  return read_int(r, "max_tokens", a->kind == MN_ASK_CHAT ? 1 : 0, limit, &a->manner.most) &&
         read_int(r, "max_completion_tokens", 1, limit, &a->manner.most) && check_most(r) &&
         read_number(r, "temperature", 0, 2, &s->temperature) && read_number(r, "top_p", 0, 1, &s->top_p) &&
         read_int(r, "top_k", 0, 1 << 26, &s->top_k) && read_number(r, "min_p", 0, 1, &s->min_p) &&
         read_number(r, "repetition_penalty", 0.01, 100, &s->repetition_penalty) &&
         read_number(r, "presence_penalty", -2, 2, &a->manner.presence_penalty) &&
         read_number(r, "frequency_penalty", -2, 2, &a->manner.frequency_penalty) && read_int(r, "seed", INT64_MIN, INT64_MAX, &s->seed) &&
         read_int(r, "n", 1, r->limits->most_answers, &a->n) && read_bool(r, "ignore_eos", &a->ignore_eos) && read_stops(r) &&
         read_bias(r) && read_logprobs(r) && read_format(r) && read_stream(r);
}

static bool read_completion(const reader *r) {
  mn_ask *a = r->out;
  if (!read_prompts(r, "prompt") || !read_manner(r) || !read_bool(r, "echo", &a->echo)) return false;
  if (a->echo && a->manner.top >= 0 && a->session)
    return mn_refuse(r->why, 400, "echo", "unsupported_parameter",
                     "'echo' beside 'logprobs' looks at every token of the prompt, of which a session knows some already: leave one out");
  if (a->manner.most < 0) a->manner.most = 16;
  return true;
}

static bool read_tools(const reader *r) {
  const mn_value *v = given(r->map, "tools");
  if (!v) return true;
  if (v->kind != MN_LIST) return wrong(r, "tools", v, "a list of tools");
  if (!mn_ask_check_tools(r->arena, v, r->why)) return false;
  if (v->count) r->out->tools = v;
  return true;
}

/* The function that a map names; NULL: it is no {"type": "function", "function": {"name": ...}}. */
static const mn_value *named_function(const mn_value *v) {
  static const char *const of_choice[] = {"type", "function", NULL}, *const of_function[] = {"name", NULL};
  const mn_value *type = mn_value_get(v, "type"), *f = mn_value_get(v, "function"), *name = mn_value_get(f, "name");
  const bool fine = type && type->kind == MN_TEXT && !strcmp(type->as.text, "function") && name && name->kind == MN_TEXT;
  return fine && !mn_ask_other_key(v, of_choice) && !mn_ask_other_key(f, of_function) ? name : NULL;
}

/* Calls that a model makes of its own accord have the arguments that it says: nothing makes them fit. */
static void label_tools(const reader *r) {
  mn_ask *a = r->out;
  if (!a->tools && given(r->map, "parallel_tool_calls")) add_label(a, "parallel_tool_calls");
  if (a->choice != MN_TOOLS_MUST && mn_ask_strict_tools(a->tools)) add_label(a, "tools.strict");
}

/* "auto", "none", "required", or {"type": "function", "function": {"name": ...}}. */
static bool read_choice(const reader *r) {
  const mn_value *v = given(r->map, "tool_choice"), *name = named_function(v);
  const char *word = v && v->kind == MN_TEXT ? v->as.text : "";
  bool several = true;
  if (!read_bool(r, "parallel_tool_calls", &several)) return false;
  r->out->one_call = !several;
  if (!v || !strcmp(word, "auto")) return true;
  if (!strcmp(word, "none")) {
    r->out->choice = MN_TOOLS_NONE;
    return true;
  }
  if (strcmp(word, "required") != 0 && !name)
    return wrong(r, "tool_choice", v, "none, auto, required, or {\"type\": \"function\", \"function\": {\"name\": ...}}");
  if (!r->out->tools)
    return mn_refuse(r->why, 400, "tool_choice", "invalid_value", "'tool_choice' asks for a call, and there are no 'tools'");
  r->out->choice = MN_TOOLS_MUST;
  if (name) r->out->function = name->as.text;
  if (r->out->function && !mn_tools_function(r->out->tools, r->out->function))
    return mn_refuse(r->why, 400, "tool_choice", "invalid_value", "'tool_choice' names a function that 'tools' does not have");
  return r->out->format == MN_FORMAT_TEXT || wrong_format(r, "invalid_value", "has no effect beside a 'tool_choice' that asks for a call");
}

static bool read_chat(const reader *r) {
  r->out->messages = given(r->map, "messages");
  if (!r->out->messages) return mn_refuse(r->why, 400, "messages", "missing_required_parameter", "'messages' is missing");
  if (r->out->messages->kind != MN_LIST) return wrong(r, "messages", r->out->messages, "a list of messages");
  if (!r->out->messages->count) return mn_refuse(r->why, 400, "messages", "invalid_value", "'messages' is an empty list");
  r->out->template_values = given(r->map, "chat_template_kwargs");
  if (r->out->template_values && r->out->template_values->kind != MN_MAP)
    return wrong(r, "chat_template_kwargs", r->out->template_values, "a map");
  if (!read_manner(r) || !read_tools(r) || !read_choice(r)) return false;
  label_tools(r);
  return true;
}

/* A response is a chat in other words. One that names the response before it goes on where that stood. */
static bool read_response(reader *r) {
  mn_ask *a = r->out;
  if (!read_bool(r, "store", &a->store) || !read_text(r, "previous_response_id", &a->previous)) return false;
  a->asked = r->map, a->response = true;
  r->map = mn_ask_response_as_chat(r->arena, r->map, r->why);
  if (!r->map) return false;
  a->kind = MN_ASK_CHAT;
  if (!read_int(r, "max_output_tokens", 1, r->limits->most_tokens, &r->most)) return false;
  if (!read_chat(r)) return false;
  a->manner.most = r->most, a->most_key = "max_output_tokens";
  if (a->session && (a->store || a->previous))
    return mn_refuse(r->why, 400, "session_id", "invalid_value",
                     "'session_id' keeps the dialogue under a name of its own: leave out 'store' and 'previous_response_id'");
  return true;
}

static bool read_embedding(const reader *r) {
  const char *format = "float";
  if (!read_prompts(r, "input") || !read_text(r, "encoding_format", &format) || !read_int(r, "dimensions", 1, 1 << 20, &r->out->dimensions))
    return false;
  r->out->as_base64 = !strcmp(format, "base64");
  if (!r->out->as_base64 && strcmp(format, "float") != 0)
    return mn_refuse(r->why, 400, "encoding_format", "invalid_value", "'encoding_format' must be float or base64");
  return true;
}

bool mn_ask_read(mn_arena *arena, mn_ask_kind kind, const char *body, size_t n, const mn_ask_limits *limits, mn_ask *out, mn_refusal *why) {
  *out = (mn_ask){.kind = kind};
  reader r = {arena, NULL, out, why, limits, -1};
  if (mn_json_parse(arena, "body", body, n, &r.map) != MN_OK) return mn_refuse(why, 400, NULL, "invalid_json", "%s", mn_message());
  if (r.map->kind != MN_MAP)
    return mn_refuse(why, 400, NULL, "invalid_json", "the body is %s; it must be a JSON object", mn_kind_name(r.map->kind));
  if (!check_keys(&r) || !read_text(&r, "model", &out->model)) return false;
  return kind == MN_ASK_COMPLETION ? read_completion(&r)
         : kind == MN_ASK_CHAT     ? read_chat(&r)
         : kind == MN_ASK_RESPONSE ? read_response(&r)
                                   : read_embedding(&r);
}
