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
  bool cut; /* what is not whole at the end is a call, too */
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

static bool add_text(finder *f, const char *name, const char *arguments) {
  if (f->n == MN_TOOL_CALLS || !arguments || !mn_tools_function(f->tools, name)) return false;
  f->calls[f->n++] = (mn_tool_call){mn_arena_strdup(f->arena, name), arguments};
  return f->calls[f->n - 1].name != NULL;
}

static bool add(finder *f, const char *name, const mn_value *arguments) {
  const bool text = arguments && arguments->kind == MN_TEXT;
  return add_text(f, name, text ? arguments->as.text : arguments ? written(f->arena, arguments) : "{}");
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

static const char *behind_spaces(const char *s, const char *end) {
  while (s < end && *s && strchr(" \t\r\n", *s)) s++;
  return s;
}

static bool parse(finder *f, const char *s, size_t n, const mn_value **out) {
  const char *from = behind_spaces(s, s + n);
  n -= (size_t)(from - s), s = from;
  while (n && strchr(" \t\r\n", s[n - 1])) n--;
  return n && (*s == '{' || *s == '[') && mn_json_parse(f->arena, "call", s, n, out) == MN_OK;
}

/* ---- calls that are not whole: the end came before theirs ---- */
/* Where the JSON value at s ends; NULL: it is not whole. */
static const char *end_of_value(const char *s, const char *end) {
  int depth = 0;
  bool text = false;
  for (const char *at = s; at < end; at++) {
    if (text && *at == '\\') at++;
    else if (*at == '"') text = !text;
    else if (!text && (*at == '{' || *at == '[')) depth++;
    else if (!text && (*at == '}' || *at == ']')) depth--;
    if (depth < 0 || (!text && !depth && (*at == ',' || *at == ':'))) return at; /* behind a number or a word */
    if (!text && !depth && (*at == '"' || *at == '}' || *at == ']')) return at + 1;
  }
  return NULL;
}

/* The text whose beginning stands in s[0..n), behind its '"', as far as it can be read. */
static const char *begun_text(finder *f, const char *s, size_t n) {
  mn_text t = {0};
  const mn_value *v = NULL;
  for (size_t less = 0; !v && less <= n && less < 12; less++) { /* in the middle of an escape, of two at most */
    t.len = 0;
    mn_text_add(&t, "[\"");
    mn_text_add_bytes(&t, s, n - less);
    mn_text_add(&t, "\"]");
    if (t.failed || mn_json_parse(f->arena, "call", t.data, t.len, &v) != MN_OK) v = NULL;
  }
  mn_text_free(&t);
  return v ? v->as.items[0]->as.text : "";
}

static const char *raw(finder *f, const char *s, const char *end) {
  if (s < end && *s == '"') return begun_text(f, s + 1, (size_t)(end - s - 1 - (end - s > 1 && end_of_value(s, end) == end)));
  while (end > s && strchr(" \t\r\n", end[-1])) end--;
  return mn_arena_format(f->arena, "%.*s", (int)(end - s), s);
}

static bool is_key(const char *s, const char *end, const char *key) {
  const size_t n = strlen(key);
  return (size_t)(end - s) == n + 2 && !memcmp(s + 1, key, n);
}

/* A map at s, as far as it is there. inner: it stands in another. */
static bool add_begun(finder *f, const char *s, const char *end, bool inner) {
  const mn_value *name = NULL;
  const char *arguments = NULL;
  for (s++;;) {
    s = behind_spaces(s, end);
    const char *key = s, *to = s < end && *s == '"' ? end_of_value(s, end) : NULL;
    if (!to) break;
    s = behind_spaces(to, end);
    if (s == end || *s != ':') break;
    s = behind_spaces(s + 1, end);
    if (s == end) break;
    if (is_key(key, to, "function") && *s == '{') return !inner && add_begun(f, s, end, true);
    const char *last = end_of_value(s, end);
    if ((is_key(key, to, "name") || is_key(key, to, "function")) && last && *s == '"') {
      const char *list = mn_arena_format(f->arena, "[%.*s]", (int)(last - s), s);
      if (!list || mn_json_parse(f->arena, "call", list, strlen(list), &name) != MN_OK) name = NULL;
    } else if (is_key(key, to, "arguments") || is_key(key, to, "parameters")) arguments = raw(f, s, last ? last : end);
    if (!last) break;
    s = behind_spaces(last, end);
    if (s == end || *s != ',') break;
    s++;
  }
  return name && add_text(f, name->as.items[0]->as.text, arguments ? arguments : "");
}

/* One, or a list of them, of which the last need not be whole. Where something else stands behind them they are part of a text, as they are in
 * an answer that was not cut. */
static void add_what_is_there(finder *f, const char *s, const char *end) {
  const mn_value *v;
  const int before = f->n;
  s = behind_spaces(s, end);
  const bool list = s < end && *s == '[';
  if (list) s = behind_spaces(s + 1, end);
  while (s < end && *s == '{') {
    const char *to = end_of_value(s, end);
    if (!to || !parse(f, s, (size_t)(to - s), &v) || !add_value(f, v)) add_begun(f, s, end, false);
    if (!to) return;
    s = behind_spaces(to, end);
    if (list && s < end && *s == ',') s = behind_spaces(s + 1, end);
  }
  if (list && s < end && *s == ']') s = behind_spaces(s + 1, end);
  if (s < end) f->n = before;
}

static bool add_json(finder *f, const char *s, size_t n, bool is_last) {
  const mn_value *v = NULL;
  const int before = f->n;
  if (parse(f, s, n, &v)) return add_value(f, v);
  if (f->cut && is_last) add_what_is_there(f, s, s + n);
  return f->n > before;
}

/* ---- marks ---- */
/* From `at` on, behind its mark, up to `close` or the end. Where the next may be. */
static const char *add_between(finder *f, const char *at, const char *end, const char *close) {
  const char *to = memmem(at, (size_t)(end - at), close, strlen(close));
  add_json(f, at, (size_t)((to ? to : end) - at), !to);
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
  else if (f->cut && !to) add_text(f, name, raw(f, behind_spaces(open + 1, end), end));
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

int mn_tools_find(mn_arena *arena, const mn_value *tools, const char *text, size_t n, bool cut, mn_tool_call *calls, size_t *content) {
  finder f = {arena, tools, cut, calls, 0};
  const char *end = text + n, *at = text, *first = NULL;
  int which = 0;
  *content = n;
  if (add_json(&f, text, n, true)) first = text; /* nothing but the call */
  else {
    f.n = 0;
    for (const char *mark; (mark = next_mark(at, end, &which));) {
      const int before = f.n;
      const char *behind = mark + strlen(marks[which]);
      if (which == 0) at = add_between(&f, behind, end, "</tool_call>");
      else if (which == 2) at = add_function(&f, behind, end);
      else add_json(&f, behind, (size_t)(end - behind), true), at = end;
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
