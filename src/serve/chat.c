/* chat.c - see chat.h. */
#include "serve/chat.h"

#include <stdio.h>
#include <string.h>

#include "run/chat_messages.h"

static const mn_value *no_memory(mn_refusal *why) {
  mn_refuse(why, 503, NULL, NULL, "the server is out of memory");
  return NULL;
}

static bool wrong(mn_refusal *why, size_t i, const char *what) {
  char param[64];
  snprintf(param, sizeof param, "messages.%zu", i);
  return mn_refuse(why, 400, param, "invalid_value", "message %zu %s", i + 1, what);
}

/* [{function: {name, ...}, ...}, ...] */
static bool check_calls(const mn_value *list, size_t i, mn_refusal *why) {
  if (list->kind != MN_LIST) return wrong(why, i, "has tool_calls that are not a list");
  for (size_t k = 0; k < list->count; k++) {
    const mn_value *f = mn_value_get(list->as.items[k], "function"), *name = mn_value_get(f, "name");
    if (!name || name->kind != MN_TEXT) return wrong(why, i, "has a tool call without function.name");
  }
  return true;
}

static const mn_value *refused(mn_refusal *why, size_t i, const char *what) {
  wrong(why, i, what);
  return NULL;
}

static const mn_value *message(mn_arena *arena, const mn_value *m, size_t i, mn_refusal *why) {
  static const char *const roles[] = {"system", "developer", "user", "assistant", "tool", NULL};
  static const char *const known[] = {"role",    "content", "name",          "tool_calls",  "tool_call_id",
                                      "refusal", "audio",   "function_call", "annotations", NULL};
  const char *keys[8];
  const mn_value *values[8], *role = mn_value_get(m, "role"), *content = mn_value_get(m, "content"), *calls = mn_value_get(m, "tool_calls");
  size_t n = 0;
  int r = 0;
  if (m->kind != MN_MAP || !role || role->kind != MN_TEXT) return refused(why, i, "has no role");
  while (roles[r] && strcmp(roles[r], role->as.text) != 0) r++;
  if (!roles[r]) return refused(why, i, "has a role that is none of system, developer, user, assistant, tool");
  for (size_t k = 0; k < m->count; k++) {
    int w = 0;
    while (known[w] && strcmp(known[w], m->as.entries[k].key) != 0) w++;
    const bool empty = m->as.entries[k].value->kind == MN_NULL;
    if (!known[w] || (w >= 5 && !empty && !(m->as.entries[k].value->kind == MN_LIST && !m->as.entries[k].value->count)))
      return refused(why, i, "has a key that is not known here, or that would have no effect");
  }
  keys[n] = "role", values[n++] = r == 1 ? mn_value_text(arena, "system") : role;
  if (content) keys[n] = "content", values[n++] = content;
  if (calls && calls->kind != MN_NULL && !(calls->kind == MN_LIST && !calls->count)) {
    if (r != 3) return refused(why, i, "has tool_calls and is not the assistant's");
    if (!check_calls(calls, i, why)) return NULL;
    keys[n] = "tool_calls", values[n++] = calls;
  }
  for (int w = 2; w <= 4; w += 2) {
    const mn_value *v = mn_value_get(m, known[w]);
    if (!v || v->kind == MN_NULL) continue;
    if (v->kind != MN_TEXT) return refused(why, i, "has a name or a tool_call_id that is no text");
    keys[n] = known[w], values[n++] = v;
  }
  const mn_value *out = mn_value_map(arena, n, keys, values);
  return out ? out : no_memory(why);
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
