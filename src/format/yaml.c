/* yaml.c - libyaml's events to a value tree. */
#include "format/yaml.h"

#include "base/file.h"
#include "format/seal.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

enum { YAML_FILE_LIMIT = 8 << 20 };

typedef struct reader {
  yaml_parser_t yaml;
  mn_arena *arena;
  const char *file;
  bool lines; /* false: a setting of the command line, which has none */
} reader;

static int line_of(const reader *r, yaml_mark_t at) { return r->lines ? (int)at.line + 1 : 0; }

static mn_status fault(const reader *r, yaml_mark_t at, const char *what) {
  char place[MN_PLACE];
  return mn_fail(MN_ERR_CONFIG, "%s%s", mn_place(r->file, line_of(r, at), place), what);
}

static mn_status next(reader *r, yaml_event_t *e) {
  if (yaml_parser_parse(&r->yaml, e)) return MN_OK;
  if (r->yaml.error == YAML_MEMORY_ERROR) return mn_fail(MN_ERR_MEMORY, "out of memory while %s was read", r->file);
  const char *problem = r->yaml.problem ? r->yaml.problem : "unreadable";
  if (r->yaml.error == YAML_READER_ERROR)
    return mn_fail(MN_ERR_FORMAT, "%s: not valid YAML: %s at byte %zu; save the file as UTF-8", r->file, problem, r->yaml.problem_offset);
  char place[MN_PLACE];
  return mn_fail(MN_ERR_CONFIG, "%snot valid YAML: %s%s%s (column %zu)", mn_place(r->file, line_of(r, r->yaml.problem_mark), place),
                 problem, r->yaml.context ? ", " : "", r->yaml.context ? r->yaml.context : "", r->yaml.problem_mark.column + 1);
}

/* ---- scalars: the YAML 1.2 core schema ---------------------------------------------------------------------------- */

static bool is_one_of(const char *s, const char *a, const char *b, const char *c) {
  return !strcmp(s, a) || !strcmp(s, b) || !strcmp(s, c);
}

/* [-+]?[0-9]+ */
static bool is_integer(const char *s) {
  if (*s == '-' || *s == '+') s++;
  size_t digits = strspn(s, "0123456789");
  return digits > 0 && s[digits] == 0;
}

/* [-+]? ( \. [0-9]+ | [0-9]+ ( \. [0-9]* )? ) ( [eE] [-+]? [0-9]+ )? */
static bool is_real(const char *s) {
  if (*s == '-' || *s == '+') s++;
  size_t whole = strspn(s, "0123456789"), part = 0;
  s += whole;
  if (*s == '.') {
    part = strspn(++s, "0123456789");
    s += part;
  }
  if (whole + part == 0) return false;
  if (*s != 'e' && *s != 'E') return *s == 0;
  s++;
  return is_integer(s);
}

static mn_status read_integer(const reader *r, yaml_mark_t at, const char *digits, int base, int64_t *out) {
  errno = 0;
  *out = strtoll(digits, NULL, base);
  char shown[MN_PRINTABLE], place[MN_PLACE];
  if (errno == ERANGE)
    return mn_fail(MN_ERR_CONFIG, "%sthe integer %s does not fit in 64 bits", mn_place(r->file, line_of(r, at), place),
                   mn_printable(digits, shown));
  return MN_OK;
}

/* One that is not infinite or 0 and would become so is refused. */
static mn_status read_real(const reader *r, yaml_mark_t at, const char *digits, double *out) {
  *out = strtod(digits, NULL);
  char shown[MN_PRINTABLE], place[MN_PLACE];
  const size_t mantissa = strcspn(digits, "eE");
  if (!isinf(*out) && (*out != 0 || strcspn(digits, "123456789") >= mantissa)) return MN_OK;
  return mn_fail(MN_ERR_CONFIG, "%sthe number %s is too %s for a double", mn_place(r->file, line_of(r, at), place),
                 mn_printable(digits, shown), *out != 0 ? "large" : "small");
}

static mn_status type_plain(const reader *r, yaml_mark_t at, const char *s, mn_value *v) {
  char radix = s[0] == '0' ? s[1] : 0;
  if (*s == 0 || !strcmp(s, "~") || is_one_of(s, "null", "Null", "NULL")) v->kind = MN_NULL;
  else if (is_one_of(s, "true", "True", "TRUE")) v->kind = MN_BOOLEAN, v->as.boolean = true;
  else if (is_one_of(s, "false", "False", "FALSE")) v->kind = MN_BOOLEAN, v->as.boolean = false;
  else if (is_integer(s)) {
    v->kind = MN_INTEGER;
    return read_integer(r, at, s, 10, &v->as.integer);
  } else if ((radix == 'x' && s[2] && !s[2 + strspn(s + 2, "0123456789abcdefABCDEF")]) ||
             (radix == 'o' && s[2] && !s[2 + strspn(s + 2, "01234567")])) {
    v->kind = MN_INTEGER;
    return read_integer(r, at, s + 2, radix == 'x' ? 16 : 8, &v->as.integer);
  } else if (is_real(s)) {
    v->kind = MN_REAL;
    return read_real(r, at, s, &v->as.real);
  } else if (is_one_of(*s == '-' || *s == '+' ? s + 1 : s, ".inf", ".Inf", ".INF"))
    v->kind = MN_REAL, v->as.real = *s == '-' ? -INFINITY : INFINITY;
  else if (is_one_of(s, ".nan", ".NaN", ".NAN")) v->kind = MN_REAL, v->as.real = NAN;
  else {
    v->kind = MN_TEXT;
    v->count = strlen(s);
    v->as.text = mn_arena_strdup(r->arena, s);
    return v->as.text ? MN_OK : MN_ERR_MEMORY;
  }
  return MN_OK;
}

static mn_status read_scalar(const reader *r, const yaml_event_t *e, mn_value *v) {
  const char *s = (const char *)e->data.scalar.value;
  if (strlen(s) != e->data.scalar.length) return fault(r, e->start_mark, "a text may not hold a zero byte");
  if (e->data.scalar.style == YAML_PLAIN_SCALAR_STYLE) return type_plain(r, e->start_mark, s, v);
  v->kind = MN_TEXT;
  v->count = e->data.scalar.length;
  v->as.text = mn_arena_strdup(r->arena, s);
  return v->as.text ? MN_OK : MN_ERR_MEMORY;
}

/* ---- lists and maps ----------------------------------------------------------------------------------------------- */

/* A list that grows by doubling in plain memory and ends in the arena. */
typedef struct growing {
  void *data;
  size_t n, cap;
} growing;

static void *grow(growing *g, size_t size) {
  if (g->n == g->cap) {
    size_t cap = g->cap ? g->cap * 2 : 8;
    void *data = mn_realloc(g->data, cap * size);
    if (!data) return NULL;
    g->data = data;
    g->cap = cap;
  }
  return (char *)g->data + g->n++ * size;
}

static const void *settle(reader *r, growing *g, size_t size) {
  void *p = mn_arena_alloc(r->arena, g->n * size);
  if (p && g->n) memcpy(p, g->data, g->n * size);
  return p;
}

static mn_status read_value(reader *r, const yaml_event_t *e, const char *path, int depth, const mn_value **out);

static mn_status read_list(reader *r, int depth, mn_value *v) {
  growing items = {0};
  mn_status status;
  for (;;) {
    yaml_event_t e;
    if ((status = next(r, &e)) != MN_OK) break;
    bool end = e.type == YAML_SEQUENCE_END_EVENT;
    if (!end) {
      const mn_value **item = grow(&items, sizeof *item);
      const char *path = e.type == YAML_SCALAR_EVENT ? v->path : mn_value_path_item(r->arena, v->path, items.n - 1);
      status = item && path ? read_value(r, &e, path, depth, item) : MN_ERR_MEMORY;
    }
    yaml_event_delete(&e);
    if (end || status != MN_OK) break;
  }
  v->kind = MN_LIST;
  v->count = items.n;
  if (status == MN_OK && !(v->as.items = settle(r, &items, sizeof(mn_value *)))) status = MN_ERR_MEMORY;
  free(items.data);
  return status;
}

static int by_key(const void *a, const void *b) { return strcmp((*(const mn_entry *const *)a)->key, (*(const mn_entry *const *)b)->key); }

static mn_status refuse_duplicates(const reader *r, const mn_value *map) {
  if (map->count < 2) return MN_OK;
  const mn_entry **sorted = mn_alloc(map->count * sizeof *sorted);
  if (!sorted) return MN_ERR_MEMORY;
  for (size_t i = 0; i < map->count; i++) sorted[i] = &map->as.entries[i];
  qsort(sorted, map->count, sizeof *sorted, by_key);
  mn_status status = MN_OK;
  for (size_t i = 1; i < map->count && status == MN_OK; i++) {
    if (strcmp(sorted[i - 1]->key, sorted[i]->key) != 0) continue;
    int one = sorted[i - 1]->line, two = sorted[i]->line;
    char shown[MN_PRINTABLE], place[MN_PLACE], where[32] = "";
    if (r->lines) snprintf(where, sizeof where, " on line %d", one > two ? two : one);
    status = mn_fail(MN_ERR_CONFIG, "%sthe key '%s' is already given%s; keep one of the two",
                     mn_place(r->file, one > two ? one : two, place), mn_printable(sorted[i]->key, shown), where);
  }
  free(sorted);
  return status;
}

static mn_status read_key(reader *r, const yaml_event_t *e, mn_entry *entry) {
  if (e->type == YAML_ALIAS_EVENT || (e->type == YAML_SCALAR_EVENT && e->data.scalar.anchor))
    return fault(r, e->start_mark, "anchors and aliases are not supported; write the key out");
  if (e->type != YAML_SCALAR_EVENT) return fault(r, e->start_mark, "a key must be a word, not a list or a map");
  if (e->data.scalar.tag) return fault(r, e->start_mark, "tags (!...) are not supported; write the key without");
  const char *key = (const char *)e->data.scalar.value;
  if (strlen(key) != e->data.scalar.length) return fault(r, e->start_mark, "a key may not hold a zero byte");
  if (!*key) return fault(r, e->start_mark, "a key is empty; give it a name");
  *entry = (mn_entry){mn_arena_strdup(r->arena, key), r->file, line_of(r, e->start_mark), (int)e->start_mark.column + 1, NULL};
  return entry->key ? MN_OK : MN_ERR_MEMORY;
}

static mn_status read_map(reader *r, int depth, mn_value *v) {
  growing entries = {0};
  mn_status status;
  for (;;) {
    yaml_event_t e;
    if ((status = next(r, &e)) != MN_OK) break;
    bool end = e.type == YAML_MAPPING_END_EVENT;
    mn_entry entry = {0};
    if (!end) status = read_key(r, &e, &entry);
    yaml_event_delete(&e);
    if (end || status != MN_OK) break;
    const char *path = mn_value_path_key(r->arena, v->path, entry.key);
    if (!path) status = MN_ERR_MEMORY;
    if (status != MN_OK || (status = next(r, &e)) != MN_OK) break;
    status = read_value(r, &e, path, depth, &entry.value);
    yaml_event_delete(&e);
    mn_entry *slot = status == MN_OK ? grow(&entries, sizeof *slot) : NULL;
    if (slot) *slot = entry;
    else if (status == MN_OK) status = MN_ERR_MEMORY;
    if (status != MN_OK) break;
  }
  v->kind = MN_MAP;
  v->count = entries.n;
  if (status == MN_OK && !(v->as.entries = settle(r, &entries, sizeof(mn_entry)))) status = MN_ERR_MEMORY;
  free(entries.data);
  return status == MN_OK ? refuse_duplicates(r, v) : status;
}

static mn_status read_value(reader *r, const yaml_event_t *e, const char *path, int depth, const mn_value **out) {
  if (e->type == YAML_ALIAS_EVENT) return fault(r, e->start_mark, "anchors and aliases are not supported; write the value out");
  bool scalar = e->type == YAML_SCALAR_EVENT, list = e->type == YAML_SEQUENCE_START_EVENT;
  if (!scalar && !list && e->type != YAML_MAPPING_START_EVENT)
    return mn_fail(MN_ERR_INTERNAL, "%s: libyaml gave event %d for a value", r->file, (int)e->type);
  if (scalar ? e->data.scalar.anchor : list ? e->data.sequence_start.anchor : e->data.mapping_start.anchor)
    return fault(r, e->start_mark, "anchors and aliases are not supported; write the value out");
  if (scalar ? e->data.scalar.tag : list ? e->data.sequence_start.tag : e->data.mapping_start.tag)
    return fault(r, e->start_mark, "tags (!...) are not supported; quote a text, write a number plainly");
  if (depth > MN_VALUE_DEPTH) return fault(r, e->start_mark, "values are nested more than 64 deep");
  mn_value *v = mn_arena_alloc(r->arena, sizeof *v);
  if (!v) return MN_ERR_MEMORY;
  *v = (mn_value){.file = r->file, .line = line_of(r, e->start_mark), .column = (int)e->start_mark.column + 1, .path = path};
  *out = v;
  if (scalar) return read_scalar(r, e, v);
  return list ? read_list(r, depth + 1, v) : read_map(r, depth + 1, v);
}

/* ---- documents ---------------------------------------------------------------------------------------------------- */

/* Takes the next event, which must be of this type. */
static mn_status expect(reader *r, yaml_event_type_t type, const char *otherwise) {
  yaml_event_t e;
  MN_TRY(next(r, &e));
  mn_status status = e.type == type ? MN_OK : fault(r, e.start_mark, otherwise);
  yaml_event_delete(&e);
  return status;
}

static mn_status read_document(reader *r, const char *path, int depth, const mn_value **out) {
  MN_TRY(expect(r, YAML_STREAM_START_EVENT, "not valid YAML"));
  MN_TRY(expect(r, YAML_DOCUMENT_START_EVENT, "nothing is in this file but comments; write at least one key"));
  yaml_event_t e;
  MN_TRY(next(r, &e));
  mn_status status = read_value(r, &e, path, depth, out);
  yaml_event_delete(&e);
  MN_TRY(status);
  MN_TRY(expect(r, YAML_DOCUMENT_END_EVENT, "not valid YAML"));
  return expect(r, YAML_STREAM_END_EVENT, "a second document begins here; keep one document per file");
}

static mn_status parse(mn_arena *arena, const char *file, bool lines, const char *path, int depth, const char *text, size_t n,
                       const mn_value **out) {
  *out = NULL;
  reader r = {.arena = arena, .file = mn_arena_strdup(arena, file), .lines = lines};
  if (!r.file) return MN_ERR_MEMORY;
  size_t blank = 0;
  while (blank < n && strchr(" \t\r\n", text[blank]) && text[blank]) blank++;
  if (blank == n) return mn_fail(MN_ERR_CONFIG, "%s is empty; write at least one key", file);
  if (!yaml_parser_initialize(&r.yaml)) return mn_fail(MN_ERR_MEMORY, "out of memory while %s was read", file);
  yaml_parser_set_encoding(&r.yaml, YAML_UTF8_ENCODING);
  yaml_parser_set_input_string(&r.yaml, (const unsigned char *)text, n);
  mn_status status = read_document(&r, path, depth, out);
  yaml_parser_delete(&r.yaml);
  if (status != MN_OK) *out = NULL;
  return status;
}

mn_status mn_yaml_parse(mn_arena *arena, const char *file, const char *text, size_t n, const mn_value **out) {
  return parse(arena, file, true, "", 0, text, n, out);
}

mn_status mn_yaml_parse_setting(mn_arena *arena, const char *source, const char *path, const char *text, const mn_value **out) {
  int depth = 1; /* as deep as the value will lie in the tree */
  for (const char *s = path; *s && depth <= MN_VALUE_DEPTH; s++) depth += *s == '.';
  return parse(arena, source, false, path, depth, text, strlen(text), out);
}

mn_status mn_yaml_read(mn_arena *arena, const char *path, const mn_value **out) {
  char *text;
  size_t n;
  *out = NULL;
  MN_TRY(mn_file_read(path, YAML_FILE_LIMIT, &text, &n));
  mn_status status = mn_yaml_parse(arena, path, text, n, out);
  free(text);
  return status == MN_OK ? mn_unseal(arena, *out, out, NULL) : status; /* recipe.json, which a training wrote */
}
