/* tools.c - see tools.h. */
#define _GNU_SOURCE /* memmem */
#include "serve/tools.h"

#include <string.h>

#include "format/json.h"

static const char *const marks[] = {"<tool_call>", "[TOOL_CALLS]", "<function=", "<|python_tag|>"};
enum { MARKS = sizeof marks / sizeof *marks };

const mn_value *mn_tools_function(const mn_value *tools, const char *name) {
  for (size_t i = 0; tools && tools->kind == MN_LIST && i < tools->count; i++) {
    const mn_value *f = mn_value_get(tools->as.items[i], "function"), *is = mn_value_get(f, "name");
    if (is && is->kind == MN_TEXT && !strcmp(is->as.text, name)) return f;
  }
  return NULL;
}

/* ---- reading ---- */
typedef struct finder {
  mn_arena *arena;
  const mn_value *tools;
  mn_tool_call *calls;
  int n;
} finder;

static const char *written(mn_arena *arena, const mn_value *v) {
  mn_text t = {0};
  const char *out = NULL;
  if (mn_value_to_json(v, 0, &t) == MN_OK && mn_text_status(&t) == MN_OK) out = mn_arena_strdup(arena, t.data);
  mn_text_free(&t);
  return out;
}

static bool add(finder *f, const char *name, const mn_value *arguments) {
  const char *text = arguments && arguments->kind == MN_TEXT ? arguments->as.text : arguments ? written(f->arena, arguments) : "{}";
  if (f->n == MN_TOOL_CALLS || !text || !mn_tools_function(f->tools, name)) return false;
  f->calls[f->n++] = (mn_tool_call){mn_arena_strdup(f->arena, name), text};
  return f->calls[f->n - 1].name != NULL;
}

/* {"name", "arguments"}, {"name", "parameters"}, {"type": "function", "function": ...}, or a list of these. */
static bool add_value(finder *f, const mn_value *v) {
  if (v->kind == MN_LIST) {
    bool all = v->count > 0;
    for (size_t i = 0; i < v->count; i++) all = add_value(f, v->as.items[i]) && all;
    return all;
  }
  const mn_value *inner = mn_value_get(v, "function"), *name = mn_value_get(v, "name");
  if (inner && inner->kind == MN_MAP) return add_value(f, inner);
  if (inner && inner->kind == MN_TEXT && !name) name = inner;
  if (!name || name->kind != MN_TEXT) return false;
  const mn_value *arguments = mn_value_get(v, "arguments");
  return add(f, name->as.text, arguments ? arguments : mn_value_get(v, "parameters"));
}

static bool parse(finder *f, const char *s, size_t n, const mn_value **out) {
  while (n && strchr(" \t\r\n", *s)) s++, n--;
  while (n && strchr(" \t\r\n", s[n - 1])) n--;
  return n && (*s == '{' || *s == '[') && mn_json_parse(f->arena, "call", s, n, out) == MN_OK;
}

static bool add_json(finder *f, const char *s, size_t n) {
  const mn_value *v = NULL;
  return parse(f, s, n, &v) && add_value(f, v);
}

/* From `at` on, behind its mark, up to `close` or the end. Where the next may be. */
static const char *add_between(finder *f, const char *at, const char *end, const char *close) {
  const char *to = memmem(at, (size_t)(end - at), close, strlen(close));
  add_json(f, at, (size_t)((to ? to : end) - at));
  return to ? to + strlen(close) : end;
}

static const char *add_function(finder *f, const char *at, const char *end) { /* NAME>{...}</function> */
  const char *open = memchr(at, '>', (size_t)(end - at)), *to = open ? memmem(open, (size_t)(end - open), "</function>", 11) : NULL;
  char name[128];
  const mn_value *v = NULL;
  if (!open || (size_t)(open - at) >= sizeof name) return end;
  memcpy(name, at, (size_t)(open - at));
  name[open - at] = 0;
  if (parse(f, open + 1, (size_t)((to ? to : end) - open - 1), &v)) add(f, name, v);
  return to ? to + 11 : end;
}

static const char *next_mark(const char *at, const char *end, int *which) {
  const char *first = NULL;
  for (int i = 0; i < MARKS; i++) {
    const char *found = memmem(at, (size_t)(end - at), marks[i], strlen(marks[i]));
    if (found && (!first || found < first)) first = found, *which = i;
  }
  return first;
}

int mn_tools_find(mn_arena *arena, const mn_value *tools, const char *text, size_t n, mn_tool_call *calls, size_t *content) {
  finder f = {arena, tools, calls, 0};
  const char *end = text + n, *at = text, *first = NULL;
  int which = 0;
  *content = n;
  if (add_json(&f, text, n)) first = text; /* nothing but the call */
  else {
    f.n = 0;
    for (const char *mark; (mark = next_mark(at, end, &which));) {
      const int before = f.n;
      const char *behind = mark + strlen(marks[which]);
      if (which == 0) at = add_between(&f, behind, end, "</tool_call>");
      else if (which == 2) at = add_function(&f, behind, end);
      else add_json(&f, behind, (size_t)(end - behind)), at = end;
      if (f.n > before && !first) first = mark;
    }
  }
  if (!f.n) return 0;
  *content = (size_t)(first - text);
  while (*content && strchr(" \t\r\n", text[*content - 1])) --*content;
  return f.n;
}

size_t mn_tools_certain(const char *text, size_t n) {
  size_t spaces = 0;
  while (spaces < n && strchr(" \t\r\n", text[spaces])) spaces++;
  if (spaces == n || text[spaces] == '{' || text[spaces] == '[') return 0; /* it may all be a call */
  int which;
  const char *mark = next_mark(text, text + n, &which);
  size_t out = mark ? (size_t)(mark - text) : n;
  for (int i = 0; i < MARKS && !mark; i++) { /* the beginning of a mark at the end */
    const size_t length = strlen(marks[i]);
    for (size_t k = length - 1; k > 0; k--)
      if (k <= n && !memcmp(text + n - k, marks[i], k) && n - k < out) out = n - k;
  }
  while (out && strchr(" \t\r\n", text[out - 1])) out--; /* spaces before a call are not said */
  return out;
}
