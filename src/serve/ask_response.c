/* ask_response.c - see ask_response.h. */
#include "serve/ask_response.h"

#include <stdio.h>
#include <string.h>

#include "serve/ask_tools.h"

typedef struct translator {
  mn_arena *arena;
  mn_refusal *why;
} translator;

static const mn_value *no_memory(const translator *c) {
  mn_refuse(c->why, 503, NULL, NULL, "the server is out of memory");
  return NULL;
}

static const mn_value *wrong(const translator *c, const char *param, const char *what) {
  mn_refuse(c->why, 400, param, "invalid_value", "'%s' %s", param, what);
  return NULL;
}

/* In `param`, of which the key is. */
static const mn_value *other_key(const translator *c, const char *param, const char *key) {
  char shown[MN_PRINTABLE];
  mn_refuse(c->why, 400, param, "unknown_parameter", "'%s' has the key '%s', which is not known here, or would have no effect", param,
            mn_printable(key, shown));
  return NULL;
}

static const mn_value *wrong_item(const translator *c, size_t i, const char *what) {
  char param[64];
  snprintf(param, sizeof param, "input.%zu", i);
  return wrong(c, param, what);
}

static const char *text_at(const mn_value *map, const char *key) {
  const mn_value *v = mn_value_get(map, key);
  return v && v->kind == MN_TEXT ? v->as.text : NULL;
}

static bool is(const char *a, const char *b) { return a && !strcmp(a, b); }

/* No key beside these; else it is refused. */
static bool only(const translator *c, size_t i, const mn_value *map, const char *const *known) {
  const char *other = mn_ask_other_key(map, known);
  char param[64];
  snprintf(param, sizeof param, "input.%zu", i);
  return !other || other_key(c, param, other) != NULL;
}

/* A map of those values that are there. */
static const mn_value *map_of(const translator *c, size_t n, const char *const *keys, const mn_value *const *values) {
  enum { MOST = 48 };
  const char *names[MOST];
  const mn_value *all[MOST];
  size_t out = 0;
  for (size_t i = 0; i < n && out < MOST; i++)
    if (values[i]) names[out] = keys[i], all[out++] = values[i];
  const mn_value *map = mn_value_map(c->arena, out, names, all);
  return map ? map : no_memory(c);
}

/* ---- items ---- */
/* A text, or parts of text in one. */
static const mn_value *content_of(const translator *c, const mn_value *content, size_t i) {
  static const char *const known[] = {"type", "text", "annotations", "logprobs", NULL};
  const char *other = NULL;
  if (content && content->kind == MN_TEXT) return content;
  if (!content || content->kind != MN_LIST) return wrong_item(c, i, "has no content that is a text or a list of parts");
  mn_text all = {0};
  bool good = true;
  for (size_t k = 0; k < content->count && good; k++) {
    const mn_value *part = content->as.items[k];
    const char *type = text_at(part, "type"), *text = text_at(part, "text");
    good = text && (is(type, "input_text") || is(type, "output_text") || is(type, "text"));
    other = good ? mn_ask_other_key(part, known) : NULL;
    if (other) break;
    if (good) mn_text_add(&all, text);
  }
  const mn_value *out = NULL;
  if (other) {
    char param[64];
    snprintf(param, sizeof param, "input.%zu.content", i);
    other_key(c, param, other);
  } else if (!good) wrong_item(c, i, "has a part that is no text: this model reads nothing else");
  else if (mn_text_status(&all) != MN_OK || !(out = mn_value_text(c->arena, all.data ? all.data : ""))) no_memory(c);
  mn_text_free(&all);
  return out;
}

static const mn_value *message_of(const translator *c, const mn_value *item, size_t i) {
  static const char *const known[] = {"type", "role", "content", "id", "status", "phase", NULL}, *const keys[] = {"role", "content"};
  static const char *const roles[] = {"system", "developer", "user", "assistant", NULL};
  const char *role = text_at(item, "role");
  int r = 0;
  if (!role) return wrong_item(c, i, "has no role");
  while (roles[r] && strcmp(roles[r], role) != 0) r++;
  if (!roles[r]) return wrong_item(c, i, "has a role that is none of system, developer, user, assistant");
  if (!only(c, i, item, known)) return NULL;
  const mn_value *content = content_of(c, mn_value_get(item, "content"), i);
  return content ? map_of(c, 2, keys, (const mn_value *const[]){mn_value_get(item, "role"), content}) : NULL;
}

/* {"type": "function_call", "call_id", "name", "arguments"} */
static const mn_value *call_of(const translator *c, const mn_value *item, size_t i) {
  static const char *const known[] = {"type", "call_id", "name", "arguments", "id", "status", NULL};
  static const char *const of_function[] = {"name", "arguments"}, *const of_call[] = {"id", "type", "function"};
  if (!text_at(item, "call_id") || !text_at(item, "name") || !text_at(item, "arguments"))
    return wrong_item(c, i, "is a function_call without a call_id, name or arguments that are text");
  if (!only(c, i, item, known)) return NULL;
  const mn_value *function =
      map_of(c, 2, of_function, (const mn_value *const[]){mn_value_get(item, "name"), mn_value_get(item, "arguments")});
  const mn_value *type = mn_value_text(c->arena, "function");
  const mn_value *call =
      function && type ? map_of(c, 3, of_call, (const mn_value *const[]){mn_value_get(item, "call_id"), type, function}) : no_memory(c);
  const char *fault = call ? mn_ask_call_fault(call) : NULL;
  return fault ? wrong_item(c, i, fault) : call;
}

static const mn_value *result_of(const translator *c, const mn_value *item, size_t i) {
  static const char *const known[] = {"type", "call_id", "output", "id", "status", NULL}, *const keys[] = {"role", "tool_call_id",
                                                                                                           "content"};
  if (!text_at(item, "call_id")) return wrong_item(c, i, "is a function_call_output without a call_id");
  if (!only(c, i, item, known)) return NULL;
  const mn_value *role = mn_value_text(c->arena, "tool"), *content = content_of(c, mn_value_get(item, "output"), i);
  return !role     ? no_memory(c)
         : content ? map_of(c, 3, keys, (const mn_value *const[]){role, mn_value_get(item, "call_id"), content})
                   : NULL;
}

/* The calls that stand at *i and behind it are one message; with the assistant's text before them, where there is one. */
static const mn_value *calls_of(const translator *c, const mn_value *input, size_t *i, const mn_value *before) {
  static const char *const keys[] = {"role", "content", "tool_calls"};
  const size_t first = *i;
  size_t end = first;
  while (end < input->count && is(text_at(input->as.items[end], "type"), "function_call")) end++;
  const mn_value **calls = mn_arena_alloc(c->arena, (end - first) * sizeof *calls);
  if (!calls) return no_memory(c);
  for (; *i < end; ++*i)
    if (!(calls[*i - first] = call_of(c, input->as.items[*i], *i))) return NULL;
  const mn_value *list = mn_value_list(c->arena, *i - first, calls), *role = mn_value_text(c->arena, "assistant");
  return list && role ? map_of(c, 3, keys, (const mn_value *const[]){role, mn_value_get(before, "content"), list}) : no_memory(c);
}

static const mn_value *messages_of(const translator *c, const mn_value *input, const mn_value *instructions) {
  static const char *const keys[] = {"role", "content"};
  const mn_value **all = mn_arena_alloc(c->arena, (input->count + 2) * sizeof *all);
  size_t n = 0, i = 0;
  if (!all) return no_memory(c);
  if (instructions) all[n++] = map_of(c, 2, keys, (const mn_value *const[]){mn_value_text(c->arena, "system"), instructions});
  if (input->kind == MN_TEXT) all[n++] = map_of(c, 2, keys, (const mn_value *const[]){mn_value_text(c->arena, "user"), input});
  while (input->kind == MN_LIST && i < input->count) {
    const mn_value *item = input->as.items[i];
    const char *type = text_at(item, "type");
    if (item->kind != MN_MAP) return wrong_item(c, i, "is not a map");
    if (is(type, "function_call")) {
      const bool joins = n && is(text_at(all[n - 1], "role"), "assistant") && !mn_value_get(all[n - 1], "tool_calls");
      if (joins) n--;
      all[n] = calls_of(c, input, &i, joins ? all[n] : NULL);
    } else if (!type || is(type, "message")) all[n] = message_of(c, item, i), i++;
    else if (is(type, "function_call_output")) all[n] = result_of(c, item, i), i++;
    else return wrong_item(c, i, "is of a type that is not known here: message, function_call and function_call_output are");
    if (!all[n++]) return NULL;
  }
  for (size_t k = 0; k < n; k++)
    if (!all[k]) return NULL;
  const mn_value *list = mn_value_list(c->arena, n, all);
  return list ? list : no_memory(c);
}

/* ---- tools ---- */
/* {"type": "function", "name", ...} */
static const mn_value *tools_of(const translator *c, const mn_value *tools) {
  enum { PARTS = 4 };
  static const char *const keys[] = {"type", "function"}, *const parts[] = {"name", "description", "parameters", "strict"},
                           *const known[] = {"type", "name", "description", "parameters", "strict", NULL};
  if (tools->kind != MN_LIST) return wrong(c, "tools", "is not a list of tools");
  const mn_value **all = mn_arena_alloc(c->arena, (tools->count + 1) * sizeof *all);
  if (!all) return no_memory(c);
  for (size_t i = 0; i < tools->count; i++) {
    const mn_value *t = tools->as.items[i], *values[PARTS], *function;
    const char *other = mn_ask_other_key(t, known);
    if (!is(text_at(t, "type"), "function") || !text_at(t, "name"))
      return wrong(c, "tools", "has one that is not {\"type\": \"function\", \"name\": ..., \"parameters\": {...}}");
    if (other) return other_key(c, "tools", other);
    for (int k = 0; k < PARTS; k++) {
      values[k] = mn_value_get(t, parts[k]);
      if (values[k] && values[k]->kind == MN_NULL) values[k] = NULL;
    }
    function = map_of(c, PARTS, parts, values);
    all[i] = function ? map_of(c, 2, keys, (const mn_value *const[]){mn_value_get(t, "type"), function}) : NULL;
    if (!all[i]) return NULL;
  }
  const mn_value *list = mn_value_list(c->arena, tools->count, all);
  return list ? list : no_memory(c);
}

static const mn_value *choice_of(const translator *c, const mn_value *choice) {
  static const char *const keys[] = {"type", "function"}, *const name[] = {"name"};
  if (choice->kind != MN_MAP) return choice;
  static const char *const known[] = {"type", "name", NULL};
  const char *other = mn_ask_other_key(choice, known);
  if (other) return other_key(c, "tool_choice", other);
  if (!is(text_at(choice, "type"), "function") || !text_at(choice, "name"))
    return wrong(c, "tool_choice", "is not none, auto, required, or {\"type\": \"function\", \"name\": ...}");
  const mn_value *function = map_of(c, 1, name, (const mn_value *const[]){mn_value_get(choice, "name")});
  return function ? map_of(c, 2, keys, (const mn_value *const[]){mn_value_get(choice, "type"), function}) : NULL;
}

/* {"format": {"type": "json_schema", "name", "schema", "strict"}} */
static const mn_value *format_of(const translator *c, const mn_value *text) {
  static const char *const keys[] = {"type", "json_schema"}, *const parts[] = {"name", "schema", "strict", "description"},
                           *const known[] = {"format", NULL}, *const of_format[] = {"type",   "name",        "schema",
                                                                                    "strict", "description", NULL};
  const mn_value *format = mn_value_get(text, "format"), *type = mn_value_get(format, "type"), *values[4];
  if (mn_ask_other_key(text, known)) return other_key(c, "text", mn_ask_other_key(text, known));
  if (text->kind != MN_MAP || (format && format->kind != MN_NULL && !type)) return wrong(c, "text", "is not {\"format\": {\"type\": ...}}");
  if (!type || !is(text_at(format, "type"), "json_schema"))
    return format && format->kind != MN_NULL ? format : mn_value_map(c->arena, 0, NULL, NULL);
  if (mn_ask_other_key(format, of_format)) return other_key(c, "text", mn_ask_other_key(format, of_format));
  for (int k = 0; k < 4; k++) values[k] = mn_value_get(format, parts[k]);
  const mn_value *schema = map_of(c, 4, parts, values);
  return schema ? map_of(c, 2, keys, (const mn_value *const[]){type, schema}) : NULL;
}

/* ---- whole ---- */
static const mn_value *given(const mn_value *map, const char *key) {
  const mn_value *v = mn_value_get(map, key);
  return v && v->kind != MN_NULL ? v : NULL;
}

const mn_value *mn_ask_response_as_chat(mn_arena *arena, const mn_value *body, mn_refusal *why) {
  static const char *const theirs[] = {"input", "instructions", "tools", "tool_choice", "text", NULL};
  enum { MOST = 48 };
  const translator c = {arena, why};
  const mn_value *input = given(body, "input"), *instructions = given(body, "instructions"), *values[MOST];
  const char *keys[MOST];
  size_t n = 0;
  if (!input) {
    mn_refuse(why, 400, "input", "missing_required_parameter", "'input' is missing");
    return NULL;
  }
  if (input->kind != MN_TEXT && (input->kind != MN_LIST || !input->count)) return wrong(&c, "input", "is not a text or a list of items");
  if (instructions && instructions->kind != MN_TEXT) return wrong(&c, "instructions", "is not a text");
  keys[n] = "messages";
  if (!(values[n++] = messages_of(&c, input, instructions))) return NULL;
  keys[n] = "tools";
  if (given(body, "tools") && !(values[n++] = tools_of(&c, given(body, "tools")))) return NULL;
  keys[n] = "tool_choice";
  if (given(body, "tool_choice") && !(values[n++] = choice_of(&c, given(body, "tool_choice")))) return NULL;
  const mn_value *format = given(body, "text") ? format_of(&c, given(body, "text")) : NULL;
  if (given(body, "text") && !format) return NULL;
  if (format && format->count) keys[n] = "response_format", values[n++] = format;
  for (size_t i = 0; i < body->count && n < MOST; i++) {
    int k = 0;
    while (theirs[k] && strcmp(theirs[k], body->as.entries[i].key) != 0) k++;
    if (!theirs[k]) keys[n] = body->as.entries[i].key, values[n++] = body->as.entries[i].value;
  }
  return map_of(&c, n, keys, values);
}
