/* chat.c - see chat.h. */
#include "serve/chat.h"

#include <stdio.h>
#include <string.h>

#include "base/table.h"
#include "run/chat_messages.h"
#include "serve/ask_tools.h"

static const mn_value *no_memory(mn_refusal *why) {
  mn_refuse(why, 503, NULL, NULL, "the server is out of memory");
  return NULL;
}

static bool wrong(mn_refusal *why, size_t i, const char *what) {
  char param[64];
  snprintf(param, sizeof param, "messages.%zu", i);
  return mn_refuse(why, 400, param, "invalid_value", "message %zu %s", i + 1, what);
}

/* `of`: "" or ".content.0", the part of the message that has it. */
static bool other_key(mn_refusal *why, size_t i, const char *of, const char *key) {
  char param[64], shown[MN_PRINTABLE];
  snprintf(param, sizeof param, "messages.%zu%s.%.24s", i, of, mn_printable(key, shown));
  return mn_refuse(why, 400, param, "unknown_parameter",
                   "message %zu has the key '%s'%s%s, which is not known here, or would have no effect", i + 1, shown, *of ? " in " : "",
                   *of ? of + 1 : "");
}

/* Of each part the keys; whether it is text is looked at where parts are joined (run/chat_messages.h). */
static bool check_parts(const mn_value *content, size_t i, mn_refusal *why) {
  static const char *const known[] = {"type", "text", "annotations", "logprobs", NULL};
  for (size_t k = 0; k < content->count; k++) {
    const mn_value *part = content->as.items[k], *type = mn_value_get(part, "type"), *text = mn_value_get(part, "text");
    const char *other = text ? mn_ask_other_key(part, known) : NULL;
    char of[32];
    snprintf(of, sizeof of, ".content.%zu", k);
    if (type && type->kind != MN_TEXT) return wrong(why, i, "holds a part with a type that is no text");
    if (other) return other_key(why, i, of, other);
  }
  return true;
}

static bool check_calls(const mn_value *list, size_t i, mn_refusal *why) {
  if (list->kind != MN_LIST) return wrong(why, i, "has tool_calls that are not a list");
  for (size_t k = 0; k < list->count; k++) {
    const char *fault = mn_ask_call_fault(list->as.items[k]);
    if (fault) return wrong(why, i, fault);
  }
  return true;
}

static const mn_value *given(const mn_value *map, const char *key) {
  const mn_value *v = mn_value_get(map, key);
  return v && v->kind != MN_NULL ? v : NULL;
}

enum { SYSTEM, DEVELOPER, USER, ASSISTANT, TOOL };
static const char *const roles[] = {"system", "developer", "user", "assistant", "tool", NULL};

static bool check_role(const mn_value *m, size_t i, int *out, mn_refusal *why) {
  const mn_value *role = mn_value_get(m, "role");
  char shown[MN_PLACE], what[MN_PLACE + 80];
  if (m->kind != MN_MAP || !role || role->kind == MN_NULL) return wrong(why, i, "has no role");
  for (*out = 0; roles[*out]; ++*out)
    if (role->kind == MN_TEXT && !strcmp(roles[*out], role->as.text)) return true;
  snprintf(what, sizeof what, "has a role that is %s; there are system, developer, user, assistant and tool", mn_value_show(role, shown));
  return wrong(why, i, what);
}

/* Everything but its role and its calls. */
static bool check_message(const mn_value *m, size_t i, int role, bool calls, mn_refusal *why) {
  static const char *const known[] = {"role", "content", "name", "tool_calls", "tool_call_id", NULL};
  const mn_value *content = given(m, "content"), *name = given(m, "name"), *id = given(m, "tool_call_id");
  const char *other = mn_ask_other_key(m, known);
  if (other) return other_key(why, i, "", other);
  if (calls && role != ASSISTANT) return wrong(why, i, "has tool_calls and is not the assistant's");
  if (!content && role != ASSISTANT) return wrong(why, i, "has no content");
  if (!content && !calls) return wrong(why, i, "has neither content nor tool_calls");
  if (name && name->kind != MN_TEXT) return wrong(why, i, "has a name that is no text");
  if (id && id->kind != MN_TEXT) return wrong(why, i, "has a tool_call_id that is no text");
  if (id && role != TOOL) return wrong(why, i, "has a tool_call_id and is not a tool's");
  return !content || content->kind != MN_LIST || check_parts(content, i, why);
}

static const mn_value *message(mn_arena *arena, const mn_value *m, size_t i, mn_refusal *why) {
  static const char *const rest[] = {"name", "tool_call_id", NULL};
  const char *keys[8];
  const mn_value *values[8], *content, *calls = given(m, "tool_calls");
  size_t n = 0;
  int role = USER;
  if (calls && calls->kind == MN_LIST && !calls->count) calls = NULL;
  if (!check_role(m, i, &role, why) || !check_message(m, i, role, calls, why)) return NULL;
  if (calls && !check_calls(calls, i, why)) return NULL;
  keys[n] = "role", values[n++] = role == DEVELOPER ? mn_value_text(arena, roles[SYSTEM]) : mn_value_get(m, "role");
  if ((content = mn_value_get(m, "content"))) keys[n] = "content", values[n++] = content;
  if (calls) keys[n] = "tool_calls", values[n++] = calls;
  for (int k = 0; rest[k]; k++)
    if (given(m, rest[k])) keys[n] = rest[k], values[n++] = given(m, rest[k]);
  const mn_value *out = mn_value_map(arena, n, keys, values);
  return out ? out : no_memory(why);
}

/* ---- calls and their results ---- */
static bool add_calls(mn_table *ids, const mn_value *calls) {
  for (size_t k = 0; calls && calls->kind == MN_LIST && k < calls->count; k++) {
    const mn_value *id = mn_value_get(calls->as.items[k], "id");
    if (id && id->kind == MN_TEXT && mn_table_put(ids, id->as.text, 1) != MN_OK) return false;
  }
  return true;
}

bool mn_ask_check_results(mn_arena *arena, const mn_value *messages, const char *param, mn_refusal *why) {
  mn_table ids = {.arena = arena, .names = true};
  for (size_t i = 0; i < messages->count; i++) {
    const mn_value *id = mn_value_get(messages->as.items[i], "tool_call_id");
    char shown[MN_PRINTABLE];
    if (id && id->kind == MN_TEXT && !mn_table_find(&ids, id->as.text, 0))
      return mn_refuse(why, 400, param, "invalid_value", "message %zu is the result of the call '%s', which no message before it makes",
                       i + 1, mn_printable(id->as.text, shown));
    if (!add_calls(&ids, mn_value_get(messages->as.items[i], "tool_calls"))) return no_memory(why) != NULL;
  }
  return true;
}

const mn_value *mn_ask_messages(mn_arena *arena, const mn_value *messages, mn_refusal *why) {
  const mn_value **all = mn_arena_alloc(arena, (messages->count + 1) * sizeof *all), *out = NULL;
  if (!all) return no_memory(why);
  for (size_t i = 0; i < messages->count; i++)
    if (!(all[i] = message(arena, messages->as.items[i], i, why))) return NULL;
  const mn_value *list = mn_value_list(arena, messages->count, all);
  const mn_status status = list ? mn_chat_plain(arena, list, &out) : MN_ERR_MEMORY;
  if (status == MN_OK) return out;
  if (status == MN_ERR_MEMORY) return no_memory(why);
  mn_refuse(why, 400, "messages", "invalid_value", "%s", mn_message());
  return NULL;
}
