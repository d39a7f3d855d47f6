/* chat.c - see chat.h. */
#include "run/chat.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "run/chat_messages.h"

struct mn_chat_format {
  const mn_bundle *bundle;
  mn_template *template;
  mn_arena *arena;
  mn_chat_words words;
  const char *bos, *eos; /* as the template writes them */
  bool as_map;           /* arguments of calls */
  bool plain;            /* a text may be cut into tokens piece by piece: nothing is put in front of a piece */
  int n_ends;
  int32_t ends[MN_EOS_MOST + 1];
  const char *end_text;
};

/* ---- text ---- */
/* What a template is given from here, and not as a value that somebody names. */
static mn_status not_ours(const mn_entry *e) {
  static const char *const ours[] = {"messages", "tools", "add_generation_prompt", "bos_token", "eos_token"};
  for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
    if (!strcmp(ours[i], e->key)) return mn_value_fail(e->value, "%s is not given to a chat template as a value", e->key);
  return MN_OK;
}

mn_status mn_chat_check_values(const mn_chat_format *f, const mn_value *values) {
  for (size_t i = 0; values && i < values->count; i++) {
    const mn_entry *e = &values->as.entries[i];
    char shown[MN_PRINTABLE];
    MN_TRY(not_ours(e));
    if (!mn_template_mentions(f->template, e->key))
      return mn_value_fail(e->value, "'%s' has no effect: this model's chat template asks for no such value", mn_printable(e->key, shown));
  }
  return MN_OK;
}

static mn_status values_of(const mn_chat_format *f, const mn_chat_request *r, bool as_map, mn_arena *arena, const mn_value **out) {
  enum { DOCUMENTS = 2 };
  const char *keys[64];
  const mn_value *at[64], *messages;
  size_t n = 0;
  MN_TRY(mn_chat_prepared(arena, &f->words, r->messages, as_map, &messages));
  if (r->values && r->values->count > 48) return mn_fail(MN_ERR_CONFIG, "more than 48 values for a chat template");
  const bool tools = r->tools && r->tools->kind == MN_LIST && r->tools->count;
  static const mn_value none = {.kind = MN_NULL};
  keys[n] = "messages", at[n++] = messages;
  keys[n] = "tools", at[n++] = tools ? mn_chat_marked(arena, &f->words, r->tools) : &none;
  keys[n] = "documents", at[n++] = &none;
  keys[n] = "add_generation_prompt", at[n++] = mn_value_bool(arena, r->answers);
  if (f->bos) keys[n] = "bos_token", at[n++] = mn_value_text(arena, f->bos);
  if (f->eos) keys[n] = "eos_token", at[n++] = mn_value_text(arena, f->eos);
  for (size_t i = 0; r->values && i < r->values->count; i++) {
    const mn_entry *e = &r->values->as.entries[i];
    MN_TRY(not_ours(e));
    const size_t k = strcmp(e->key, "documents") ? n++ : DOCUMENTS;
    keys[k] = e->key, at[k] = mn_chat_marked(arena, &f->words, e->value);
  }
  for (size_t i = 0; i < n; i++)
    if (!at[i]) return MN_ERR_MEMORY;
  *out = mn_value_map(arena, n, keys, at);
  return *out ? MN_OK : MN_ERR_MEMORY;
}

/* With marks around what only looks like a special token. */
static mn_status marked_text(const mn_chat_format *f, const mn_chat_request *r, bool as_map, mn_text *out) {
  const mn_template_limits limits = {.output = 32 << 20, .memory = 256 << 20, .now = r->now}; /* many are written at once, in a server */
  const mn_value *values = NULL;
  mn_arena *arena = mn_arena_new();
  mn_status status = arena ? values_of(f, r, as_map, arena, &values) : MN_ERR_MEMORY;
  if (status == MN_OK) status = mn_template_render(f->template, values, &limits, out);
  mn_arena_free(arena);
  return status;
}

mn_status mn_chat_text(const mn_chat_format *f, const mn_chat_request *r, mn_text *out) {
  mn_text marked = {0};
  mn_status status = marked_text(f, r, f->as_map, &marked);
  if (status == MN_OK) mn_chat_unmark(marked.data, marked.len, out);
  if (status == MN_OK) status = mn_text_status(out);
  mn_text_free(&marked);
  return status;
}

/* ---- tokens ---- */
static mn_status encode(const mn_chat_format *f, const char *text, size_t n, mn_ids *out) {
  const mn_tokenizer *tok = f->bundle->tokenizer;
  while (n) {
    const mn_chat_part part = mn_chat_next(&f->words, text, n);
    if (part.n) MN_TRY(mn_tokenizer_encode(tok, part.text, part.n, part.plain ? 0 : MN_ENCODE_SPECIAL, out));
    text += part.passed, n -= part.passed;
  }
  return MN_OK;
}

/* A text that begins a stream. */
static mn_status encode_whole(const mn_chat_format *f, const char *text, size_t n, mn_ids *out) {
  const mn_speech *s = &f->bundle->speech;
  const size_t from = out->len;
  const bool begins = f->bundle->form == MN_FORM_GGUF && s->add_bos && s->bos >= 0;
  if (begins) MN_TRY(mn_ids_add(out, s->bos));
  MN_TRY(encode(f, text, n, out));
  if (!begins || out->len < from + 2 || out->data[from + 1] != s->bos) return MN_OK;
  memmove(out->data + from, out->data + from + 1, (out->len - from - 1) * sizeof *out->data); /* the template wrote it, too */
  out->len--;
  return MN_OK;
}

mn_status mn_chat_tokens(const mn_chat_format *f, const mn_chat_request *r, mn_ids *out) {
  return mn_chat_tokens_on(f, r, NULL, NULL, out);
}

/* Behind the last known token, which a special one may be: then it is cut with what follows, so that a tokenizer which puts a space before a
 * text's first word puts none here. */
static mn_status encode_rest(const mn_chat_format *f, const char *rest, size_t n, int32_t last, mn_ids *out) {
  size_t bytes = 0;
  const char *token = mn_tokenizer_token(f->bundle->tokenizer, last, &bytes);
  if (f->plain || !token || !mn_tokenizer_is_special(f->bundle->tokenizer, last)) return encode(f, rest, n, out);
  mn_text text = {0};
  mn_ids ids = {0};
  mn_text_add_bytes(&text, token, bytes);
  mn_text_add_bytes(&text, rest, n);
  mn_status status = mn_text_status(&text);
  if (status == MN_OK) status = encode(f, text.data, text.len, &ids);
  for (size_t i = ids.len && ids.data[0] == last ? 1 : 0; i < ids.len && status == MN_OK; i++) status = mn_ids_add(out, ids.data[i]);
  mn_ids_free(&ids);
  mn_text_free(&text);
  return status;
}

/* Does the dialogue begin with what is known? *at: where that ends. What tokens spell may have a first one that no template wrote. */
static mn_status find_known(const mn_chat_format *f, const mn_text *marked, const mn_chat_known *known, size_t *at, bool *begins) {
  const mn_bundle *b = f->bundle;
  const char *s = marked->data;
  mn_text spelled = {0};
  size_t bytes = 0;
  *begins = false;
  if (known->text) {
    *begins = mn_chat_begins(s, marked->len, known->text, known->n, at);
    return MN_OK;
  }
  const mn_status status = mn_tokenizer_decode(b->tokenizer, known->tokens, (size_t)known->n_tokens, false, &spelled);
  if (status == MN_OK && spelled.data) {
    *begins = mn_chat_begins(s, marked->len, spelled.data, spelled.len, at);
    if (!*begins && known->tokens[0] == b->speech.bos && b->speech.add_bos && mn_tokenizer_token(b->tokenizer, b->speech.bos, &bytes) &&
        bytes < spelled.len)
      *begins = mn_chat_begins(s, marked->len, spelled.data + bytes, spelled.len - bytes, at);
  }
  mn_text_free(&spelled);
  return status == MN_ERR_ARG ? MN_OK : status; /* a token that is no text */
}

mn_status mn_chat_tokens_on(const mn_chat_format *f, const mn_chat_request *r, const mn_chat_known *known, mn_text *text, mn_ids *out) {
  mn_text marked = {0};
  mn_status status = marked_text(f, r, f->as_map, &marked);
  size_t at = 0;
  if (status == MN_OK && text) mn_chat_unmark(marked.data, marked.len, text);
  if (status == MN_OK && text) status = mn_text_status(text);
  const int32_t last = known && known->n_tokens ? known->tokens[known->n_tokens - 1] : -1;
  bool goes_on = status == MN_OK && last >= 0 && marked.data && (f->plain || mn_tokenizer_is_special(f->bundle->tokenizer, last));
  if (goes_on) status = find_known(f, &marked, known, &at, &goes_on);
  for (int64_t i = 0; goes_on && i < known->n_tokens && status == MN_OK; i++) status = mn_ids_add(out, known->tokens[i]);
  if (status == MN_OK)
    status = goes_on ? encode_rest(f, marked.data + at, marked.len - at, last, out) : encode_whole(f, marked.data, marked.len, out);
  mn_text_free(&marked);
  return status;
}

/* ---- what a form is ---- */
static const mn_value *message(mn_arena *arena, const char *role, const char *content, const mn_value *calls) {
  const char *keys[] = {"role", "content", "tool_calls"};
  const mn_value *at[] = {mn_value_text(arena, role), mn_value_text(arena, content), calls};
  return mn_value_map(arena, calls ? 3 : 2, keys, at);
}

static mn_status try_messages(mn_chat_format *f, mn_arena *arena, const mn_value *second, bool as_map, mn_text *out) {
  const mn_value *all[] = {message(arena, "user", "a", NULL), second};
  return marked_text(f, &(mn_chat_request){.messages = mn_value_list(arena, 2, all)}, as_map, out);
}

/* Arguments as a map, unless only as text they come out as JSON. */
static bool writes_maps(mn_chat_format *f, mn_arena *arena) {
  if (!mn_template_mentions(f->template, "tool_calls")) return true;
  const char *name[] = {"arguments", "name"}, *call[] = {"type", "function", "id"};
  const mn_value *of_function[] = {mn_value_text(arena, "{\"probe\": \"it\"}"), mn_value_text(arena, "f")};
  const mn_value *of_call[] = {mn_value_text(arena, "function"), mn_value_map(arena, 2, name, of_function),
                               mn_value_text(arena, "call00000")};
  const mn_value *calls = mn_value_map(arena, 3, call, of_call), *second = message(arena, "assistant", "", mn_value_list(arena, 1, &calls));
  bool good[2], json[2];
  for (int map = 0; map < 2; map++) {
    mn_text text = {0};
    good[map] = try_messages(f, arena, second, map, &text) == MN_OK;
    json[map] = good[map] && text.data && (strstr(text.data, "\"probe\": \"it\"") || strstr(text.data, "\"probe\":\"it\""));
    mn_text_free(&text);
  }
  return json[1] || (!json[0] && good[1]);
}

/* What the template writes behind an answer: a special token, else a text. */
static mn_status find_end(mn_chat_format *f, mn_arena *arena) {
  static const char mark[] = "mneme-probe";
  mn_text text = {0}, behind = {0};
  f->end_text = "";
  if (try_messages(f, arena, message(arena, "assistant", mark, NULL), true, &text) == MN_OK && text.data) {
    const char *at = NULL;
    for (const char *next = text.data; (next = strstr(next, mark)); next++) at = next;
    if (at) mn_chat_unmark(at + sizeof mark - 1, strlen(at) - (sizeof mark - 1), &behind);
  }
  const char *rest = behind.data ? behind.data : "", *first = rest + strspn(rest, " \t\r\n");
  const int32_t id = mn_chat_word_at(&f->words, first, strlen(first));
  if (id >= 0 && !mn_chat_ends(f, id)) f->ends[f->n_ends++] = id;
  if (id < 0 && *rest) f->end_text = mn_arena_strdup(f->arena, rest);
  mn_text_free(&text);
  mn_text_free(&behind);
  return f->end_text ? MN_OK : MN_ERR_MEMORY;
}

static const char *token_text(const mn_chat_format *f, int32_t id) {
  size_t n = 0;
  const char *s = id >= 0 ? mn_tokenizer_token(f->bundle->tokenizer, id, &n) : NULL;
  return s ? mn_arena_format(f->arena, "%.*s", (int)n, s) : NULL;
}

/* Does the tokenizer leave a text's beginning as it is? */
static mn_status find_plain(mn_chat_format *f) {
  mn_ids ids = {0};
  mn_text text = {0};
  size_t n = 0;
  mn_status status = mn_tokenizer_encode(f->bundle->tokenizer, "a", 1, 0, &ids);
  for (size_t i = 0; i < ids.len; i++) {
    const char *s = mn_tokenizer_token(f->bundle->tokenizer, ids.data[i], &n);
    if (s) mn_text_add_bytes(&text, s, n);
  }
  f->plain = text.len == 1 && *text.data == 'a';
  mn_text_free(&text);
  mn_ids_free(&ids);
  return status;
}

static mn_status open_form(mn_chat_format *f, const char *name, const char *text, size_t n) {
  const mn_bundle *b = f->bundle;
  f->arena = mn_arena_new();
  if (!f->arena) return MN_ERR_MEMORY;
  MN_TRY(mn_template_parse(name, text, n, &f->template));
  MN_TRY(mn_chat_words_of(b->tokenizer, f->arena, &f->words));
  const int32_t eos = b->speech.n_eos ? b->speech.eos[0] : -1;
  f->bos = token_text(f, b->speech.bos), f->eos = b->speech.eos_token ? b->speech.eos_token : token_text(f, eos);
  for (int i = 0; i < b->speech.n_eos; i++) f->ends[f->n_ends++] = b->speech.eos[i];
  MN_TRY(find_plain(f));
  mn_arena *arena = mn_arena_new();
  if (!arena) return MN_ERR_MEMORY;
  f->as_map = writes_maps(f, arena);
  mn_status status = find_end(f, arena);
  mn_arena_free(arena);
  return status;
}

mn_status mn_chat_format_from(const mn_bundle *bundle, const char *name, const char *text, size_t n, mn_chat_format **out) {
  *out = NULL;
  if (!bundle->tokenizer) return mn_fail(MN_ERR_ARG, "a dialogue needs a tokenizer");
  mn_chat_format *f = mn_calloc(1, sizeof *f);
  if (!f) return MN_ERR_MEMORY;
  f->bundle = bundle;
  mn_status status = open_form(f, name, text, n);
  if (status == MN_OK) *out = f;
  else mn_chat_format_free(f);
  return status;
}

mn_status mn_chat_format_new(const mn_bundle *bundle, const char *template_file, mn_chat_format **out) {
  char *text = NULL;
  size_t n = 0;
  *out = NULL;
  const char *own = bundle->speech.chat_template;
  if (!template_file && !own) return mn_fail(MN_ERR_CONFIG, "this model has no chat template: give one, a file of Jinja");
  if (!template_file) return mn_chat_format_from(bundle, "chat_template", own, strlen(own), out);
  MN_TRY(mn_file_read(template_file, MN_TEMPLATE_BYTES, &text, &n));
  mn_status status = mn_chat_format_from(bundle, template_file, text, n, out);
  free(text);
  return status;
}

void mn_chat_format_free(mn_chat_format *f) {
  if (!f) return;
  mn_template_free(f->template);
  mn_arena_free(f->arena);
  free(f);
}

const mn_template *mn_chat_format_template(const mn_chat_format *f) { return f->template; }
const char *mn_chat_end_text(const mn_chat_format *f) { return f->end_text; }

bool mn_chat_ends(const mn_chat_format *f, int32_t token) {
  for (int i = 0; i < f->n_ends; i++)
    if (f->ends[i] == token) return true;
  return false;
}

int mn_chat_end_tokens(const mn_chat_format *f, const int32_t **out) {
  *out = f->ends;
  return f->n_ends;
}
