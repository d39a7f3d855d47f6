/* chat.c - see chat.h. */
#include "serve/chat.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "format/json.h"

static const mn_value *no_memory(mn_refusal *why) {
  mn_refuse(why, 503, NULL, NULL, "the server is out of memory");
  return NULL;
}

static const mn_value *wrong(mn_refusal *why, size_t i, const char *what) {
  char param[64];
  snprintf(param, sizeof param, "messages.%zu", i);
  mn_refuse(why, 400, param, "invalid_value", "message %zu %s", i, what);
  return NULL;
}

/* Text, null, or a list of parts of text. */
static const mn_value *content_of(mn_arena *arena, const mn_value *v, size_t i, mn_refusal *why) {
  mn_text all = {0};
  if (!v) v = mn_value_text(arena, "");
  if (!v) return no_memory(why);
  if (v->kind == MN_TEXT || v->kind == MN_NULL) return v;
  if (v->kind != MN_LIST) return wrong(why, i, "has a content that is neither a text nor a list of parts");
  for (size_t k = 0; k < v->count; k++) {
    const mn_value *type = mn_value_get(v->as.items[k], "type"), *text = mn_value_get(v->as.items[k], "text");
    if (!type || type->kind != MN_TEXT ||
        (strcmp(type->as.text, "text") && strcmp(type->as.text, "input_text") && strcmp(type->as.text, "output_text")) || !text ||
        text->kind != MN_TEXT) {
      mn_text_free(&all);
      return wrong(why, i, "has a part that is no text: this server's models read text alone");
    }
    mn_text_add(&all, text->as.text);
  }
  const mn_value *out = all.failed ? NULL : mn_value_text(arena, all.data ? all.data : "");
  mn_text_free(&all);
  return out ? out : no_memory(why);
}

/* {id, type, function: {name, arguments}} with arguments as a map. */
static const mn_value *calls_of(mn_arena *arena, const mn_value *list, size_t i, mn_refusal *why) {
  if (list->kind != MN_LIST) return wrong(why, i, "has tool_calls that are not a list");
  const mn_value **out = mn_arena_alloc(arena, (list->count + 1) * sizeof *out);
  if (!out) return no_memory(why);
  for (size_t k = 0; k < list->count; k++) {
    const mn_value *f = mn_value_get(list->as.items[k], "function"), *name = mn_value_get(f, "name"),
                   *arguments = mn_value_get(f, "arguments"), *id = mn_value_get(list->as.items[k], "id"), *parsed = arguments;
    if (!name || name->kind != MN_TEXT) return wrong(why, i, "has a tool call without function.name");
    if (arguments && arguments->kind == MN_TEXT &&
        mn_json_parse(arena, "arguments", arguments->as.text, arguments->count, &parsed) != MN_OK)
      parsed = arguments; /* a model may have said so */
    if (!parsed) parsed = mn_value_map(arena, 0, NULL, NULL);
    const char *const inner[] = {"name", "arguments"}, *const outer[] = {"type", "function", "id"};
    const mn_value *function = mn_value_map(arena, 2, inner, (const mn_value *const[]){name, parsed});
    out[k] = mn_value_map(arena, id ? 3 : 2, outer, (const mn_value *const[]){mn_value_text(arena, "function"), function, id});
    if (!out[k]) return no_memory(why);
  }
  const mn_value *all = mn_value_list(arena, list->count, out);
  return all ? all : no_memory(why);
}

static const mn_value *message(mn_arena *arena, const mn_value *m, size_t i, mn_refusal *why) {
  static const char *const roles[] = {"system", "developer", "user", "assistant", "tool", NULL};
  static const char *const known[] = {"role",    "content", "name",          "tool_calls",  "tool_call_id",
                                      "refusal", "audio",   "function_call", "annotations", NULL};
  const char *keys[8];
  const mn_value *values[8], *role = mn_value_get(m, "role"), *calls = mn_value_get(m, "tool_calls");
  size_t n = 0;
  int r = 0;
  if (m->kind != MN_MAP || !role || role->kind != MN_TEXT) return wrong(why, i, "has no role");
  while (roles[r] && strcmp(roles[r], role->as.text) != 0) r++;
  if (!roles[r]) return wrong(why, i, "has a role that is none of system, developer, user, assistant, tool");
  for (size_t k = 0; k < m->count; k++) {
    int w = 0;
    while (known[w] && strcmp(known[w], m->as.entries[k].key) != 0) w++;
    const bool empty = m->as.entries[k].value->kind == MN_NULL;
    if (!known[w] || (w >= 5 && !empty && !(m->as.entries[k].value->kind == MN_LIST && !m->as.entries[k].value->count)))
      return wrong(why, i, "has a key that is not known here, or that would have no effect");
  }
  keys[n] = "role", values[n++] = r == 1 ? mn_value_text(arena, "system") : role;
  keys[n] = "content";
  if (!(values[n++] = content_of(arena, mn_value_get(m, "content"), i, why))) return NULL;
  if (calls && calls->kind != MN_NULL && !(calls->kind == MN_LIST && !calls->count)) {
    if (r != 3) return wrong(why, i, "has tool_calls and is not the assistant's");
    keys[n] = "tool_calls";
    if (!(values[n++] = calls_of(arena, calls, i, why))) return NULL;
  }
  for (int w = 2; w <= 4; w += 2) {
    const mn_value *v = mn_value_get(m, known[w]);
    if (!v || v->kind == MN_NULL) continue;
    if (v->kind != MN_TEXT) return wrong(why, i, "has a name or a tool_call_id that is no text");
    keys[n] = known[w], values[n++] = v;
  }
  const mn_value *out = mn_value_map(arena, n, keys, values);
  return out ? out : no_memory(why);
}

const mn_value *mn_chat_messages(mn_arena *arena, const mn_value *messages, mn_refusal *why) {
  const mn_value **out = mn_arena_alloc(arena, (messages->count + 1) * sizeof *out);
  if (!out) return no_memory(why);
  for (size_t i = 0; i < messages->count; i++)
    if (!(out[i] = message(arena, messages->as.items[i], i, why))) return NULL;
  const mn_value *list = mn_value_list(arena, messages->count, out);
  return list ? list : no_memory(why);
}

/* ---- rendering ---- */
static const mn_value *token_text(mn_arena *arena, const mn_bundle *b, int32_t id) {
  size_t n = 0;
  mn_text t = {0};
  const char *bytes = b->tokenizer && id >= 0 ? mn_tokenizer_token(b->tokenizer, id, &n) : NULL;
  if (bytes) mn_text_add_utf8(&t, bytes, n);
  const mn_value *out = mn_value_text(arena, t.data ? t.data : "");
  mn_text_free(&t);
  return out;
}

bool mn_chat_render(mn_arena *arena, const mn_template *t, const mn_bundle *b, const mn_value *messages, const mn_ask *ask, mn_text *out,
                    mn_refusal *why) {
  enum { MOST = 32 };
  const char *keys[MOST] = {"messages", "add_generation_prompt", "bos_token", "eos_token"};
  const mn_value *values[MOST];
  const bool tools = ask->tools && ask->choice != MN_TOOLS_NONE;
  const int32_t eos = b->speech.n_eos ? b->speech.eos[0] : b->tokenizer ? mn_tokenizer_eos(b->tokenizer) : -1;
  size_t n = 4;
  values[0] = messages;
  values[1] = mn_value_bool(arena, true);
  values[2] = token_text(arena, b, b->speech.bos);
  values[3] = token_text(arena, b, eos);
  if (tools && !mn_template_mentions(t, "tools"))
    return mn_refuse(why, 400, "tools", "unsupported_parameter", "this model's chat template has no place for tools");
  if (tools) keys[n] = "tools", values[n++] = ask->tools;
  for (size_t i = 0; ask->template_values && i < ask->template_values->count; i++) {
    const mn_entry *e = &ask->template_values->as.entries[i];
    for (size_t k = 0; k < n; k++)
      if (!strcmp(keys[k], e->key))
        return mn_refuse(why, 400, "chat_template_kwargs", "invalid_value", "'chat_template_kwargs' cannot say '%s'", keys[k]);
    if (n == MOST || !mn_template_mentions(t, e->key)) {
      char shown[MN_PRINTABLE];
      return mn_refuse(why, 400, "chat_template_kwargs", "invalid_value", "this model's chat template does not know '%s'",
                       mn_printable(e->key, shown));
    }
    keys[n] = e->key, values[n++] = e->value;
  }
  const mn_value *all = mn_value_map(arena, n, keys, values);
  const mn_template_limits limits = {.output = 32 << 20, .memory = 256 << 20};
  mn_status status = all ? mn_template_render(t, all, &limits, out) : MN_ERR_MEMORY;
  return status == MN_OK || mn_refuse(why, status == MN_ERR_MEMORY ? 503 : 400, "messages", "invalid_value", "%s", mn_message());
}

/* ---- models of ours ---- */
static const char *word_of(const mn_value *map, const char *key, const char *otherwise) {
  const mn_value *v = mn_value_get(map, key);
  return v && v->kind == MN_TEXT ? v->as.text : otherwise;
}

static void set(mn_text *t, const char *name, const char *value) {
  mn_text_addf(t, "{%%- set %s = ", name);
  mn_json_quote(t, value);
  mn_text_add(t, " %}");
}

static char *written_as(const char *user, const char *assistant, const char *end) {
  mn_text t = {0};
  set(&t, "u", user), set(&t, "a", assistant), set(&t, "e", end);
  mn_text_add(&t, "{%- for m in messages %}{%- if m.role == 'user' %}{{- u + m.content + e }}"
                  "{%- elif m.role == 'assistant' %}{{- a + m.content + eos_token + e }}"
                  "{%- else %}{{- raise_exception('this model was trained on messages of user and assistant alone') }}{%- endif %}"
                  "{%- endfor %}{%- if add_generation_prompt %}{{- a }}{%- endif %}");
  return mn_text_take(&t);
}

mn_status mn_chat_form(const char *dir, const mn_tokenizer *tok, char **text, char **end) {
  mn_arena *arena = mn_arena_new();
  const mn_value *root = NULL, *data = NULL;
  char *path = mn_path_join(dir, "recipe.json");
  *text = *end = NULL;
  mn_status status = arena && path ? MN_OK : MN_ERR_MEMORY;
  if (status == MN_OK && mn_file_exists(path)) status = mn_json_read(arena, path, &root);
  const mn_value *stages = mn_value_get(root, "stages");
  for (size_t i = stages && stages->kind == MN_LIST ? stages->count : 0; i > 0 && !data; i--)
    data = mn_value_get(stages->as.items[i - 1], "data");
  if (!data) data = mn_value_get(root, "data");
  if (status == MN_OK && !strcmp(word_of(data, "type", ""), "dialogues")) {
    *text = written_as(word_of(data, "user", "User: "), word_of(data, "assistant", "Assistant: "), word_of(data, "end", "\n"));
    if (tok && mn_tokenizer_eos(tok) < 0) *end = mn_strdup(word_of(data, "end", "\n"));
    if (!*text) status = MN_ERR_MEMORY;
  }
  free(path);
  mn_arena_free(arena);
  return status;
}
