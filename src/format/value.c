/* value.c - value trees: looking up, showing, replacing (--set) and writing as JSON. */
#include "format/value.h"

#include "format/json.h"
#include "format/yaml.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *mn_kind_name(mn_kind kind) {
  static const char *const names[] = {"null", "true or false", "an integer", "a number", "a text", "a list", "a map"};
  return (size_t)kind < sizeof names / sizeof *names ? names[kind] : "unknown";
}

/* ---- looking up --------------------------------------------------------------------------------------------------- */

const mn_value *mn_value_get(const mn_value *map, const char *key) {
  if (!map || map->kind != MN_MAP) return NULL;
  for (size_t i = 0; i < map->count; i++)
    if (!strcmp(map->as.entries[i].key, key)) return map->as.entries[i].value;
  return NULL;
}

/* An index below `count` in decimal, or SIZE_MAX. */
static size_t parse_index(const char *s, size_t count) {
  size_t digits = strspn(s, "0123456789");
  if (digits == 0 || digits > 9 || s[digits]) return SIZE_MAX;
  size_t i = (size_t)strtoul(s, NULL, 10);
  return i < count ? i : SIZE_MAX;
}

const mn_value *mn_value_find(const mn_value *root, const char *path) {
  char part[256];
  while (root && *path) {
    size_t n = strcspn(path, ".");
    if (n >= sizeof part) return NULL;
    memcpy(part, path, n);
    part[n] = 0;
    path += n + (path[n] == '.');
    if (root->kind == MN_LIST) {
      size_t i = parse_index(part, root->count);
      root = i == SIZE_MAX ? NULL : root->as.items[i];
    } else root = mn_value_get(root, part);
  }
  return root;
}

bool mn_value_number(const mn_value *v, double *out) {
  if (v && v->kind == MN_INTEGER) *out = (double)v->as.integer;
  else if (v && v->kind == MN_REAL) *out = v->as.real;
  else return false;
  return true;
}

bool mn_value_equal(const mn_value *a, const mn_value *b) {
  if (!a || !b) return a == b;
  if (a->kind != b->kind) return false;
  switch (a->kind) {
  case MN_NULL:
    return true;
  case MN_BOOLEAN:
    return a->as.boolean == b->as.boolean;
  case MN_INTEGER:
    return a->as.integer == b->as.integer;
  case MN_REAL:
    return a->as.real == b->as.real || (isnan(a->as.real) && isnan(b->as.real));
  case MN_TEXT:
    return !strcmp(a->as.text, b->as.text);
  case MN_LIST:
    if (a->count != b->count) return false;
    for (size_t i = 0; i < a->count; i++)
      if (!mn_value_equal(a->as.items[i], b->as.items[i])) return false;
    return true;
  case MN_MAP:
    if (a->count != b->count) return false;
    for (size_t i = 0; i < a->count; i++) {
      const mn_value *other = mn_value_get(b, a->as.entries[i].key);
      if (!other || !mn_value_equal(a->as.entries[i].value, other)) return false;
    }
    return true;
  }
  return false;
}

/* ---- showing ------------------------------------------------------------------------------------------------------ */

const char *mn_place(const char *file, int line, char buf[MN_PLACE]) {
  if (!file) buf[0] = 0;
  else if (line > 0) snprintf(buf, MN_PLACE, "%.200s:%d: ", file, line);
  else snprintf(buf, MN_PLACE, "%.200s: ", file);
  return buf;
}

mn_status mn_value_fail(const mn_value *v, const char *fmt, ...) {
  char place[MN_PLACE], text[1600];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(text, sizeof text, fmt, ap);
  va_end(ap);
  return mn_fail(MN_ERR_CONFIG, "%s%s", v ? mn_place(v->file, v->line, place) : "", text);
}

const char *mn_value_show(const mn_value *v, char buf[MN_PLACE]) {
  char shown[MN_PRINTABLE];
  switch (v->kind) {
  case MN_BOOLEAN:
    snprintf(buf, MN_PLACE, "%s", v->as.boolean ? "true" : "false");
    break;
  case MN_INTEGER:
    snprintf(buf, MN_PLACE, "%lld", (long long)v->as.integer);
    break;
  case MN_REAL:
    snprintf(buf, MN_PLACE, "%.9g", v->as.real);
    break;
  case MN_TEXT:
    snprintf(buf, MN_PLACE, "the text '%s'", mn_printable(v->as.text, shown));
    break;
  default:
    snprintf(buf, MN_PLACE, "%s", mn_kind_name(v->kind));
    break;
  }
  return buf;
}

enum { PATH_LIMIT = 200 };

mn_status mn_value_map_in(const mn_value *list, size_t i, const char *such_as, const mn_value **out) {
  char shown[MN_PLACE];
  *out = list->as.items[i];
  if ((*out)->kind == MN_MAP) return MN_OK;
  return mn_value_fail(*out, "%s[%zu] must be a map such as %s, but is %s", *list->path ? list->path : "the list", i, such_as,
                       mn_value_show(*out, shown));
}

/* The last PATH_LIMIT bytes of a path, from the start of a character. */
static const char *path_tail(const char *path) {
  size_t n = strlen(path);
  if (n <= PATH_LIMIT) return path;
  path += n - PATH_LIMIT;
  while (((unsigned char)*path & 0xC0) == 0x80) path++;
  return path;
}

const char *mn_value_path_key(mn_arena *arena, const char *parent, const char *key) {
  const char *p = path_tail(parent), *k = path_tail(key);
  return mn_arena_format(arena, "%s%s%s", p, *p ? "." : "", k);
}

const char *mn_value_path_item(mn_arena *arena, const char *parent, size_t i) {
  return mn_arena_format(arena, "%s[%zu]", path_tail(parent), i);
}

/* ---- replacing ---------------------------------------------------------------------------------------------------- */

typedef struct setting {
  mn_arena *arena;
  const char *source; /* "--set a.b=c" */
  const mn_value *value;
} setting;

/* The copy of `old` (NULL: nothing there yet) in which what `rest` names is replaced. */
static mn_status put(const setting *s, const mn_value *old, const char *path, const char *rest, int depth, const mn_value **out) {
  if (*rest == 0) {
    mn_value *v = mn_arena_alloc(s->arena, sizeof *v);
    if (!v) return MN_ERR_MEMORY;
    *v = *s->value;
    v->path = path;
    *out = v;
    return MN_OK;
  }
  size_t n = strcspn(rest, ".");
  char *part = mn_arena_format(s->arena, "%.*s", (int)n, rest);
  if (!part) return MN_ERR_MEMORY;
  const char *after = rest + n + (rest[n] == '.');
  if (n == 0 || (rest[n] == '.' && *after == 0)) return mn_fail(MN_ERR_CONFIG, "%s: a part of the key is empty", s->source);
  if (depth >= MN_VALUE_DEPTH) return mn_fail(MN_ERR_CONFIG, "%s: the key has too many parts", s->source);
  mn_value *copy = mn_arena_alloc(s->arena, sizeof *copy);
  if (!copy) return MN_ERR_MEMORY;
  if (old && old->kind == MN_LIST) {
    size_t i = parse_index(part, old->count);
    if (i == SIZE_MAX)
      return mn_fail(MN_ERR_CONFIG, "%s: %s is a list of %zu items; use a number from 0 to %zu, not '%s'", s->source, path, old->count,
                     old->count ? old->count - 1 : 0, part);
    const mn_value **items = mn_arena_alloc(s->arena, old->count * sizeof *items);
    const char *inner = mn_value_path_item(s->arena, path, i);
    if (!items || !inner) return MN_ERR_MEMORY;
    memcpy(items, old->as.items, old->count * sizeof *items);
    *copy = *old;
    copy->as.items = items;
    *out = copy;
    return put(s, items[i], inner, after, depth + 1, &items[i]);
  }
  bool fresh = !old || old->kind == MN_NULL;
  if (!fresh && old->kind != MN_MAP)
    return mn_fail(MN_ERR_CONFIG, "%s: %s is %s, so it has no key '%s'", s->source, *path ? path : "the recipe", mn_kind_name(old->kind),
                   part);
  size_t count = fresh ? 0 : old->count, at = 0;
  mn_entry *entries = mn_arena_alloc(s->arena, (count + 1) * sizeof *entries);
  const char *inner = mn_value_path_key(s->arena, path, part);
  if (!entries || !inner) return MN_ERR_MEMORY;
  if (count) memcpy(entries, old->as.entries, count * sizeof *entries);
  while (at < count && strcmp(entries[at].key, part) != 0) at++;
  const mn_value *inside = at < count ? entries[at].value : NULL;
  entries[at] = (mn_entry){part, s->source, 0, 0, inside};
  *copy = fresh ? (mn_value){.file = s->source, .path = path} : *old;
  copy->kind = MN_MAP;
  copy->count = at < count ? count : count + 1;
  copy->as.entries = entries;
  *out = copy;
  return put(s, inside, inner, after, depth + 1, &entries[at].value);
}

mn_status mn_value_set(mn_arena *arena, const mn_value *root, const char *assignment, const mn_value **out) {
  return mn_value_set_by(arena, root, "--set", assignment, out);
}

mn_status mn_value_set_by(mn_arena *arena, const mn_value *root, const char *by, const char *assignment, const mn_value **out) {
  *out = NULL;
  char shown[MN_PRINTABLE];
  const char *equals = strchr(assignment, '=');
  if (mn_utf8_valid(assignment, strlen(assignment)) != strlen(assignment))
    return mn_fail(MN_ERR_CONFIG, "%s %s: not valid UTF-8", by, mn_printable(assignment, shown));
  if (!equals || equals == assignment)
    return mn_fail(MN_ERR_CONFIG, "%s %s: expected key=value, as in %s", by, mn_printable(assignment, shown),
                   !strcmp(by, "--set") ? "--set model.d_model=256" : "batch=2");
  if (!equals[1 + strspn(equals + 1, " \t\r\n")])
    return mn_fail(MN_ERR_CONFIG, "%s %s: there is no value; `%.*s=null` takes the default", by, mn_printable(assignment, shown),
                   (int)(equals - assignment), assignment);
  const char *source = mn_arena_format(arena, "%s %s", by, mn_printable(assignment, shown));
  char *path = mn_arena_format(arena, "%.*s", (int)(equals - assignment), assignment);
  if (!source || !path) return MN_ERR_MEMORY;
  setting s = {arena, source, NULL};
  const char *text = equals + 1;
  MN_TRY(mn_yaml_parse_setting(arena, source, path, text, &s.value));
  mn_status status = put(&s, root, "", path, 0, out);
  if (status != MN_OK) *out = NULL;
  return status;
}

/* ---- building ----------------------------------------------------------------------------------------------------- */

static mn_value *made(mn_arena *arena, mn_kind kind) {
  mn_value *v = mn_arena_alloc(arena, sizeof *v);
  if (v) *v = (mn_value){.kind = kind, .path = ""};
  return v;
}

const mn_value *mn_value_bool(mn_arena *arena, bool b) {
  mn_value *v = made(arena, MN_BOOLEAN);
  if (v) v->as.boolean = b;
  return v;
}

const mn_value *mn_value_int(mn_arena *arena, int64_t i) {
  mn_value *v = made(arena, MN_INTEGER);
  if (v) v->as.integer = i;
  return v;
}

const mn_value *mn_value_real(mn_arena *arena, double d) {
  mn_value *v = made(arena, MN_REAL);
  if (v) v->as.real = d;
  return v;
}

const mn_value *mn_value_text(mn_arena *arena, const char *s) {
  if (!s) return NULL;
  mn_value *v = made(arena, MN_TEXT);
  if (!v) return NULL;
  v->as.text = mn_arena_strdup(arena, s);
  v->count = strlen(s);
  return v->as.text ? v : NULL;
}

const mn_value *mn_value_list(mn_arena *arena, size_t n, const mn_value *const *items) {
  mn_value *v = made(arena, MN_LIST);
  const mn_value **copy = mn_arena_alloc(arena, n * sizeof *copy);
  if (!v || !copy) return NULL;
  for (size_t i = 0; i < n; i++)
    if (!(copy[i] = items[i])) return NULL;
  v->as.items = copy;
  v->count = n;
  return v;
}

const mn_value *mn_value_map(mn_arena *arena, size_t n, const char *const *keys, const mn_value *const *values) {
  mn_value *v = made(arena, MN_MAP);
  mn_entry *entries = mn_arena_alloc(arena, n * sizeof *entries);
  if (!v || !entries) return NULL;
  for (size_t i = 0; i < n; i++) {
    entries[i] = (mn_entry){.key = mn_arena_strdup(arena, keys[i]), .value = values[i]};
    if (!entries[i].key || !entries[i].value) return NULL;
  }
  v->as.entries = entries;
  v->count = n;
  return v;
}

const mn_value *mn_value_copy(mn_arena *arena, const mn_value *v) {
  if (v && v->kind == MN_TEXT) return mn_value_text(arena, v->as.text);
  mn_value *to = v ? mn_arena_alloc(arena, sizeof *to) : NULL;
  if (!to) return NULL;
  *to = (mn_value){.kind = v->kind, .path = "", .as = v->as};
  if (v->kind != MN_LIST && v->kind != MN_MAP) return to;
  const mn_value **values = mn_arena_alloc(arena, (v->count + 1) * sizeof *values);
  const char **keys = mn_arena_alloc(arena, (v->count + 1) * sizeof *keys);
  if (!values || !keys) return NULL;
  for (size_t i = 0; i < v->count; i++) {
    if (v->kind == MN_MAP && !(keys[i] = mn_arena_strdup(arena, v->as.entries[i].key))) return NULL;
    if (!(values[i] = mn_value_copy(arena, v->kind == MN_MAP ? v->as.entries[i].value : v->as.items[i]))) return NULL;
  }
  return v->kind == MN_MAP ? mn_value_map(arena, v->count, keys, values) : mn_value_list(arena, v->count, values);
}

/* ---- JSON --------------------------------------------------------------------------------------------------------- */

static void new_line(mn_text *out, int indent, int depth) {
  if (indent == 0) return;
  mn_text_addf(out, "\n%*s", indent * depth, "");
}

/* A list of scalars stays on one line: it is a shape, a range, a few names. */
static bool is_flat(const mn_value *list) {
  for (size_t i = 0; i < list->count; i++)
    if (list->as.items[i]->kind >= MN_LIST) return false;
  return true;
}

static mn_status write_json(const mn_value *v, int indent, int depth, mn_text *out) {
  switch (v->kind) {
  case MN_NULL:
    mn_text_add(out, "null");
    break;
  case MN_BOOLEAN:
    mn_text_add(out, v->as.boolean ? "true" : "false");
    break;
  case MN_INTEGER:
    mn_text_addf(out, "%lld", (long long)v->as.integer);
    break;
  case MN_REAL:
    if (!isfinite(v->as.real)) return mn_fail(MN_ERR_ARG, "%s is %g, which JSON cannot say", *v->path ? v->path : "a value", v->as.real);
    mn_json_real(out, v->as.real);
    break;
  case MN_TEXT:
    mn_json_quote(out, v->as.text);
    break;
  case MN_LIST: {
    bool flat = is_flat(v);
    mn_text_add(out, "[");
    for (size_t i = 0; i < v->count; i++) {
      if (i) mn_text_add(out, flat || !indent ? ", " : ",");
      if (!flat) new_line(out, indent, depth + 1);
      MN_TRY(write_json(v->as.items[i], indent, depth + 1, out));
    }
    if (!flat) new_line(out, indent, depth);
    mn_text_add(out, "]");
    break;
  }
  case MN_MAP:
    mn_text_add(out, "{");
    for (size_t i = 0; i < v->count; i++) {
      if (i) mn_text_add(out, indent ? "," : ", ");
      new_line(out, indent, depth + 1);
      mn_json_quote(out, v->as.entries[i].key);
      mn_text_add(out, ": ");
      MN_TRY(write_json(v->as.entries[i].value, indent, depth + 1, out));
    }
    if (v->count) new_line(out, indent, depth);
    mn_text_add(out, "}");
    break;
  }
  return MN_OK;
}

mn_status mn_value_to_json(const mn_value *v, int indent, mn_text *out) {
  MN_TRY(write_json(v, indent, 0, out));
  if (indent) mn_text_add(out, "\n");
  return mn_text_status(out);
}
