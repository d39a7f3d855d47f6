/* json.c - JSON text to a value tree. jansson parses and refuses; what it does not keep is where each value stands, so a
 * second walk over the (then known to be valid) text, in step with jansson's tree, finds the lines and columns. */
#include "format/json.h"

#include "base/file.h"
#include "format/json_load.h"
#include "format/seal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { JSON_FILE_LIMIT = 8 << 20, LOOK_EVERY = 1 << 12 };

typedef struct walk {
  mn_arena *arena;
  const char *file;
  const char *at, *end;
  int line;
  const char *line_start;
  unsigned values; /* so many were there */
} walk;

/* To the next byte that begins a value or a key, or closes a list or map. */
static void skip_between(walk *w) {
  for (; w->at < w->end && strchr(" \t\r\n,:", *w->at); w->at++)
    if (*w->at == '\n') w->line++, w->line_start = w->at + 1;
}

static void skip_string(walk *w) {
  for (w->at++; w->at < w->end && *w->at != '"'; w->at++)
    if (*w->at == '\\') w->at++;
  w->at++;
}

static void skip_word(walk *w) {
  while (w->at < w->end && !strchr(" \t\r\n,:]}", *w->at)) w->at++;
}

static mn_status convert(walk *w, json_t *j, const char *path, int depth, const mn_value **out);

static mn_status convert_list(walk *w, json_t *j, int depth, mn_value *v) {
  v->kind = MN_LIST;
  v->count = json_array_size(j);
  const mn_value **items = mn_arena_alloc(w->arena, v->count * sizeof *items);
  if (!items) return MN_ERR_MEMORY;
  w->at++; /* [ */
  for (size_t i = 0; i < v->count; i++) {
    json_t *item = json_array_get(j, i);
    bool nested = json_is_object(item) || json_is_array(item);
    const char *path = nested ? mn_value_path_item(w->arena, v->path, i) : v->path;
    if (!path) return MN_ERR_MEMORY;
    MN_TRY(convert(w, item, path, depth, &items[i]));
  }
  skip_between(w);
  w->at++; /* ] */
  v->as.items = items;
  return MN_OK;
}

static mn_status convert_map(walk *w, json_t *j, int depth, mn_value *v) {
  v->kind = MN_MAP;
  v->count = json_object_size(j);
  mn_entry *entries = mn_arena_alloc(w->arena, v->count * sizeof *entries);
  if (!entries) return MN_ERR_MEMORY;
  w->at++; /* { */
  size_t i = 0;
  const char *key;
  json_t *member;
  json_object_foreach(j, key, member) { /* in the order of the text, since jansson 2.8 */
    skip_between(w);
    mn_entry *e = &entries[i++];
    *e = (mn_entry){mn_arena_strdup(w->arena, key), w->file, w->line, (int)(w->at - w->line_start) + 1, NULL};
    const char *path = mn_value_path_key(w->arena, v->path, key);
    if (!e->key || !path) return MN_ERR_MEMORY;
    skip_string(w);
    MN_TRY(convert(w, member, path, depth, &e->value));
  }
  skip_between(w);
  w->at++; /* } */
  v->as.entries = entries;
  return MN_OK;
}

/* How many of the characters that come next are of these: the text ends where it ends, with no zero behind it. */
static size_t span(const walk *w, const char *of) {
  const char *s = w->at;
  while (s < w->end && *s && strchr(of, *s)) s++;
  return (size_t)(s - w->at);
}

/* Does the number that comes next have a digit that is not 0, before its exponent? */
static bool is_more_than_zero(const walk *w) {
  const char *digit = w->at + span(w, "-.0");
  return digit < w->end && *digit >= '1' && *digit <= '9';
}

static mn_status too_small(const walk *w) { /* what is too large is refused by jansson */
  const size_t n = span(w, "+-.0123456789eE");
  return mn_fail(MN_ERR_FORMAT, "%s:%d: the number %.*s is too small for a double", w->file, w->line, (int)(n < 40 ? n : 40), w->at);
}

static mn_status convert(walk *w, json_t *j, const char *path, int depth, const mn_value **out) {
  skip_between(w);
  mn_value *v = mn_arena_alloc(w->arena, sizeof *v);
  if (!v) return MN_ERR_MEMORY;
  if (++w->values % LOOK_EVERY == 0) MN_TRY(mn_stop_check("reading JSON"));
  *v = (mn_value){.file = w->file, .line = w->line, .column = (int)(w->at - w->line_start) + 1, .path = path};
  *out = v;
  if (depth > MN_VALUE_DEPTH) return mn_fail(MN_ERR_FORMAT, "%s:%d: values are nested more than %d deep", w->file, w->line, MN_VALUE_DEPTH);
  switch (json_typeof(j)) {
  case JSON_OBJECT:
    return convert_map(w, j, depth + 1, v);
  case JSON_ARRAY:
    return convert_list(w, j, depth + 1, v);
  case JSON_STRING:
    v->kind = MN_TEXT;
    v->count = json_string_length(j);
    v->as.text = mn_arena_strdup(w->arena, json_string_value(j));
    skip_string(w);
    return v->as.text ? MN_OK : MN_ERR_MEMORY;
  case JSON_INTEGER:
    v->kind = MN_INTEGER, v->as.integer = json_integer_value(j);
    break;
  case JSON_REAL:
    v->kind = MN_REAL, v->as.real = json_real_value(j);
    if (v->as.real == 0 && is_more_than_zero(w)) return too_small(w);
    break;
  case JSON_TRUE:
  case JSON_FALSE:
    v->kind = MN_BOOLEAN, v->as.boolean = json_is_true(j);
    break;
  case JSON_NULL:
    v->kind = MN_NULL;
    break;
  }
  skip_word(w);
  return MN_OK;
}

mn_status mn_json_parse(mn_arena *arena, const char *file, const char *text, size_t n, const mn_value **out) {
  *out = NULL;
  json_error_t error;
  json_t *j;
  const mn_status read = mn_json_load(text, n, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &j, &error);
  if (read == MN_ERR_CANCELLED) return read;
  if (read != MN_OK) {
    char what[MN_PRINTABLE];
    if (json_error_code(&error) == json_error_null_character)
      return mn_fail(MN_ERR_FORMAT, "%s:%d: a text with the character \\u0000, which none may have (column %d)", file, error.line,
                     error.column);
    return mn_fail(MN_ERR_FORMAT, "%s:%d: not valid JSON: %s (column %d)", file, error.line, mn_printable(error.text, what), error.column);
  }
  walk w = {arena, mn_arena_strdup(arena, file), text, text + n, 1, text, 0};
  mn_status status = w.file ? convert(&w, j, "", 0, out) : MN_ERR_MEMORY;
  json_decref(j);
  if (status != MN_OK) *out = NULL;
  return status;
}

mn_status mn_json_read_sealed(mn_arena *arena, const char *path, const mn_value **out, bool *sealed) {
  char *text;
  size_t n;
  const mn_value *root = NULL;
  *out = NULL;
  MN_TRY(mn_file_read(path, JSON_FILE_LIMIT, &text, &n));
  mn_status status = mn_json_parse(arena, path, text, n, &root);
  if (status == MN_OK) status = mn_unseal(arena, root, &root, sealed);
  if (status == MN_OK) *out = root;
  free(text);
  return status;
}

mn_status mn_json_read(mn_arena *arena, const char *path, const mn_value **out) { return mn_json_read_sealed(arena, path, out, NULL); }

/* As it is written: what nobody could read back is refused. */
static mn_status written(const char *path, const mn_value *v, mn_text *out) {
  mn_arena *arena = mn_arena_new();
  mn_status status = arena ? mn_seal(arena, v, &v) : MN_ERR_MEMORY;
  if (status == MN_OK) status = mn_value_to_json(v, 2, out);
  mn_arena_free(arena);
  if (status == MN_OK && out->len > JSON_FILE_LIMIT)
    return mn_fail(MN_ERR_CONFIG, "%s would have %zu bytes, and %d are the most that is read", path, out->len, JSON_FILE_LIMIT);
  return status;
}

mn_status mn_json_try(const char *path, const mn_value *v) {
  mn_text text = {0};
  mn_status status = written(path, v, &text);
  mn_text_free(&text);
  return status;
}

mn_status mn_json_write(const char *path, const mn_value *v) { return mn_json_write_over(path, v, NULL); }

mn_status mn_json_write_over(const char *path, const mn_value *v, mn_file_stamp *stamp) {
  mn_text text = {0};
  mn_status status = written(path, v, &text);
  if (status == MN_OK) status = mn_file_write_over(path, text.data, text.len, stamp);
  mn_text_free(&text);
  return status;
}

void mn_json_quote(mn_text *out, const char *s) {
  mn_text_add(out, "\"");
  for (; *s; s++) {
    unsigned char c = (unsigned char)*s;
    if (c == '"' || c == '\\') mn_text_addf(out, "\\%c", c);
    else if (c == '\n') mn_text_add(out, "\\n");
    else if (c == '\t') mn_text_add(out, "\\t");
    else if (c == '\r') mn_text_add(out, "\\r");
    else if (c < 0x20) mn_text_addf(out, "\\u%04x", c);
    else mn_text_add_bytes(out, s, 1);
  }
  mn_text_add(out, "\"");
}

void mn_json_real(mn_text *out, double d) {
  char digits[40];
  for (int precision = 1; precision <= 17; precision++) {
    snprintf(digits, sizeof digits, "%.*g", precision, d);
    if (strtod(digits, NULL) == d) break;
  }
  mn_text_add(out, digits);
  if (!strpbrk(digits, ".e")) mn_text_add(out, ".0");
}
