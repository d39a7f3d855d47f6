/* ask_tools.c - see ask_tools.h. */
#include "serve/ask_tools.h"

#include <stdio.h>
#include <string.h>

#include "base/table.h"
#include "format/json.h"

const char *mn_ask_other_key(const mn_value *map, const char *const *known) {
  for (size_t i = 0; map && map->kind == MN_MAP && i < map->count; i++) {
    const mn_value *v = map->as.entries[i].value;
    int k = 0;
    while (known[k] && strcmp(known[k], map->as.entries[i].key) != 0) k++;
    if (!known[k] && v->kind != MN_NULL && !(v->kind == MN_LIST && !v->count)) return map->as.entries[i].key;
  }
  return NULL;
}

static const mn_value *given(const mn_value *map, const char *key) {
  const mn_value *v = mn_value_get(map, key);
  return v && v->kind != MN_NULL ? v : NULL;
}

static bool is(const mn_value *v, const char *text) { return v && v->kind == MN_TEXT && !strcmp(v->as.text, text); }

/* ---- tools ---- */
static bool wrong(mn_refusal *why, size_t i, const char *key, const char *what) {
  char param[64];
  snprintf(param, sizeof param, "tools.%zu%s%.30s", i, *key ? "." : "", key);
  return mn_refuse(why, 400, param, "invalid_value", "tool %zu %s", i, what);
}

static bool unknown_key(mn_refusal *why, size_t i, const char *key) {
  char shown[MN_PRINTABLE], what[MN_PRINTABLE + 80];
  snprintf(what, sizeof what, "has the key '%s', which is not known here", mn_printable(key, shown));
  return wrong(why, i, shown, what);
}

static bool is_name(const char *s) {
  const size_t n = strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-");
  return n >= 1 && n <= 64 && !s[n];
}

/* names: of those before. */
static bool check_function(mn_table *names, const mn_value *tools, size_t i, mn_refusal *why) {
  static const char *const of_function[] = {"name", "description", "parameters", "strict", NULL};
  const mn_value *f = mn_value_get(tools->as.items[i], "function"), *name = mn_value_get(f, "name"), *text = given(f, "description"),
                 *parameters = given(f, "parameters"), *strict = given(f, "strict"), *type = mn_value_get(parameters, "type");
  const char *other = mn_ask_other_key(f, of_function);
  if (other) return unknown_key(why, i, other);
  if (!is_name(name->as.text)) return wrong(why, i, "function.name", "has a name that is not 1 to 64 letters, digits, '_' or '-'");
  if (mn_table_find(names, name->as.text, 0)) return wrong(why, i, "function.name", "has the name of one before it");
  if (mn_table_put(names, name->as.text, 1) != MN_OK) return mn_refuse(why, 503, NULL, NULL, "the server is out of memory");
  if (text && text->kind != MN_TEXT) return wrong(why, i, "function.description", "has a description that is no text");
  if (strict && strict->kind != MN_BOOLEAN) return wrong(why, i, "function.strict", "has a strict that is neither true nor false");
  if (type && !is(type, "object")) return wrong(why, i, "function.parameters", "has parameters that are not of type object");
  return true;
}

bool mn_ask_check_tools(mn_arena *arena, const mn_value *tools, mn_refusal *why) {
  mn_table names = {.arena = arena, .names = true};
  static const char *const known[] = {"type", "function", NULL};
  for (size_t i = 0; i < tools->count; i++) {
    const mn_value *tool = tools->as.items[i], *f = mn_value_get(tool, "function"), *name = mn_value_get(f, "name"),
                   *parameters = given(f, "parameters");
    const char *other = mn_ask_other_key(tool, known);
    if (!is(mn_value_get(tool, "type"), "function") || !name || name->kind != MN_TEXT || (parameters && parameters->kind != MN_MAP))
      return wrong(why, i, "", "is not {\"type\": \"function\", \"function\": {\"name\": ..., \"parameters\": {...}}}");
    if (other) return unknown_key(why, i, other);
    if (!check_function(&names, tools, i, why)) return false;
  }
  return true;
}

bool mn_ask_strict_tools(const mn_value *tools) {
  for (size_t i = 0; tools && i < tools->count; i++) {
    const mn_value *strict = mn_value_get(mn_value_get(tools->as.items[i], "function"), "strict");
    if (strict && strict->kind == MN_BOOLEAN && strict->as.boolean) return true;
  }
  return false;
}

/* ---- calls ---- */
const char *mn_ask_call_fault(const mn_value *call) {
  static const char *const known[] = {"id", "type", "function", "index", NULL}, *const of_function[] = {"name", "arguments", NULL};
  const mn_value *type = given(call, "type"), *id = given(call, "id"), *f = mn_value_get(call, "function"), *name = mn_value_get(f, "name"),
                 *arguments = given(f, "arguments");
  if (!name || name->kind != MN_TEXT) return "has a tool call without function.name";
  if (type && !is(type, "function")) return "has a tool call of another type than function";
  if (id && id->kind != MN_TEXT) return "has a tool call with an id that is no text";
  if (mn_ask_other_key(call, known) || mn_ask_other_key(f, of_function)) return "has a tool call with a key that is not known here";
  if (!arguments || arguments->kind == MN_MAP || arguments->kind == MN_TEXT)
    return NULL; /* a model may have said what is no JSON, and is shown it */
  return "has a tool call with arguments that are neither a text nor an object";
}
