/* config.c - reading maps into structs, and structs back into maps, by tables of fields. */
#include "format/config.h"

#include "base/file.h"
#include "base/nearest.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const mn_field *next_field(const mn_field *f) { return f->type == MN_TYPE_END ? NULL : f; }
#define EACH_FIELD(f, fields)                                                                                                              \
  const mn_field *f = (fields);                                                                                                            \
  f &&next_field(f);                                                                                                                       \
  f++

const mn_field *mn_field_find(const mn_field *fields, const char *name) {
  for (EACH_FIELD(f, fields))
    if (!strcmp(f->name, name)) return f;
  return NULL;
}

static int count_names(const char *const *names) {
  int n = 0;
  while (names[n]) n++;
  return n;
}

/* ---- members ------------------------------------------------------------------------------------------------------ */

static void store_int(const mn_field *f, void *target, int64_t v) {
  char *member = (char *)target + f->offset;
  int narrow = (int)v;
  bool flag = v != 0;
  if (f->type == MN_TYPE_BOOL) memcpy(member, &flag, sizeof flag);
  else if (f->size == sizeof v) memcpy(member, &v, sizeof v);
  else memcpy(member, &narrow, sizeof narrow);
}

static int64_t load_int(const mn_field *f, const void *target) {
  const char *member = (const char *)target + f->offset;
  int64_t v = 0;
  int narrow;
  bool flag;
  if (f->type == MN_TYPE_BOOL) memcpy(&flag, member, sizeof flag), v = flag;
  else if (f->size == sizeof v) memcpy(&v, member, sizeof v);
  else memcpy(&narrow, member, sizeof narrow), v = narrow;
  return v;
}

int64_t mn_field_int(const mn_field *f, const void *config) { return load_int(f, config); }

static void store_real(const mn_field *f, void *target, double v) {
  float narrow = (float)v;
  memcpy((char *)target + f->offset, f->size == sizeof v ? (const void *)&v : (const void *)&narrow, f->size);
}

static double load_real(const mn_field *f, const void *target) {
  double v;
  float narrow;
  if (f->size == sizeof v) memcpy(&v, (const char *)target + f->offset, sizeof v);
  else memcpy(&narrow, (const char *)target + f->offset, sizeof narrow), v = (double)narrow;
  return v;
}

void mn_config_defaults(const mn_field *fields, void *target) {
  for (EACH_FIELD(f, fields)) {
    switch (f->type) {
    case MN_TYPE_INT:
    case MN_TYPE_BOOL:
    case MN_TYPE_ENUM:
      store_int(f, target, f->int_default);
      break;
    case MN_TYPE_FLOAT:
      store_real(f, target, f->real_default);
      break;
    case MN_TYPE_STRING:
      memcpy((char *)target + f->offset, &f->text_default, sizeof f->text_default);
      break;
    default:
      memset((char *)target + f->offset, 0, f->size);
      break;
    }
  }
}

/* ---- saying what a field takes ------------------------------------------------------------------------------------ */

/* Any bound beyond this is "no bound" in messages. */
static bool unbounded(int64_t low, int64_t high) { return low == INT64_MIN && high == INT64_MAX; }

static void add_int_range(mn_text *t, const mn_field *f) {
  int64_t high = f->type == MN_TYPE_INT && f->size == sizeof(int) && f->int_max == INT32_MAX ? INT64_MAX : f->int_max;
  if (unbounded(f->int_min, high)) return;
  if (high == INT64_MAX) mn_text_addf(t, ", at least %lld", (long long)f->int_min);
  else if (f->int_min == INT64_MIN) mn_text_addf(t, ", at most %lld", (long long)high);
  else mn_text_addf(t, " from %lld to %lld", (long long)f->int_min, (long long)high);
}

static void add_real_range(mn_text *t, const mn_field *f) {
  bool low = !isinf(f->real_min), high = !isinf(f->real_max), above = f->real_min == DBL_MIN;
  if (above) mn_text_add(t, " above 0");
  if (low && !above) mn_text_addf(t, high ? " from %g" : ", at least %g", f->real_min);
  if (high && low) mn_text_addf(t, above ? ", at most %g" : " to %g", f->real_max);
  else if (high) mn_text_addf(t, ", at most %g", f->real_max);
}

/* `item`: what one item of a list field must be. */
static void add_expected(mn_text *t, const mn_field *f, bool item) {
  switch (f->type) {
  case MN_TYPE_INT:
  case MN_TYPE_INTS:
    mn_text_add(t, f->type == MN_TYPE_INTS && !item ? "a list of integers" : "an integer");
    add_int_range(t, f);
    break;
  case MN_TYPE_FLOAT:
  case MN_TYPE_FLOATS:
    mn_text_add(t, f->type == MN_TYPE_FLOATS && !item ? "a list of numbers" : "a number");
    add_real_range(t, f);
    break;
  case MN_TYPE_BOOL:
    mn_text_add(t, "true or false");
    break;
  case MN_TYPE_STRING:
  case MN_TYPE_STRINGS:
    mn_text_add(t, f->type == MN_TYPE_STRINGS && !item ? "a list of texts" : "a text");
    break;
  case MN_TYPE_ENUM:
    mn_text_add(t, f->names[1] ? "one of " : "");
    for (int i = 0; f->names[i]; i++) mn_text_addf(t, "%s%s", i ? ", " : "", f->names[i]);
    break;
  default:
    mn_text_add(t, "a value");
    break;
  }
}

typedef struct parsing {
  mn_arena *arena;
  const char *where; /* "model.mixer"; "" for the root */
} parsing;

/* "recipe.yaml:12: model.mixer.head_dim must be an integer from 1 to 512, but is the text 'big'". item: v is that item of
 * a list; -1: the whole value. */
static mn_status wrong_item(const parsing *p, const mn_field *f, const mn_value *v, int item) {
  char shown[MN_PLACE], place[MN_PLACE];
  mn_text expected = {0};
  add_expected(&expected, f, item >= 0);
  char index[16] = "";
  if (item >= 0) snprintf(index, sizeof index, "[%d]", item);
  const char *near = f->type == MN_TYPE_ENUM && v->kind == MN_TEXT ? mn_nearest(v->as.text, f->names, count_names(f->names)) : NULL;
  const char *given = v->kind == MN_TEXT && v->count == 0 ? "an empty text" : mn_value_show(v, shown);
  mn_status status = mn_fail(MN_ERR_CONFIG, "%s%s%s%s%s must be %s, but is %s%s%s%s", mn_place(v->file, v->line, place), p->where,
                             *p->where ? "." : "", f->name, index, expected.data ? expected.data : "something else", given,
                             near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
  mn_text_free(&expected);
  return status;
}

static mn_status wrong(const parsing *p, const mn_field *f, const mn_value *v) { return wrong_item(p, f, v, -1); }

/* ---- reading one value -------------------------------------------------------------------------------------------- */

/* 1e6 is an integer too: the recipe's writer meant one million. */
static bool as_int(const mn_field *f, const mn_value *v, int64_t *out) {
  if (v->kind == MN_INTEGER) *out = v->as.integer;
  else if (v->kind == MN_REAL && fabs(v->as.real) <= 9007199254740992.0 && floor(v->as.real) == v->as.real) *out = (int64_t)v->as.real;
  else return false;
  if (f->type == MN_TYPE_INT && f->size == sizeof(int) && (*out < INT32_MIN || *out > INT32_MAX)) return false;
  return *out >= f->int_min && *out <= f->int_max;
}

static bool as_real(const mn_field *f, const mn_value *v, double *out) {
  if (v->kind == MN_TEXT && !strcmp(v->as.text, "inf")) *out = INFINITY; /* as JSON has to spell it */
  else if (v->kind == MN_TEXT && !strcmp(v->as.text, "-inf")) *out = -INFINITY;
  else if (!mn_value_number(v, out)) return false;
  return *out >= f->real_min && *out <= f->real_max; /* false for NaN */
}

static mn_status read_list(const parsing *p, const mn_field *f, const mn_value *v, void *target) {
  size_t element = f->type == MN_TYPE_INTS ? sizeof(int64_t) : f->type == MN_TYPE_FLOATS ? sizeof(double) : sizeof(char *);
  if (v->kind != MN_LIST || v->count > INT32_MAX) return wrong(p, f, v);
  char *items = mn_arena_alloc(p->arena, v->count * element);
  if (!items) return MN_ERR_MEMORY;
  for (size_t i = 0; i < v->count; i++) {
    const mn_value *item = v->as.items[i];
    int64_t n = 0;
    double d = 0;
    bool fits = f->type == MN_TYPE_INTS ? as_int(f, item, &n) : f->type == MN_TYPE_FLOATS ? as_real(f, item, &d) : item->kind == MN_TEXT;
    if (!fits) return wrong_item(p, f, item, (int)i);
    const char *s = f->type == MN_TYPE_STRINGS ? mn_arena_strdup(p->arena, item->as.text) : "";
    if (!s) return MN_ERR_MEMORY;
    const void *from = f->type == MN_TYPE_INTS ? (const void *)&n : f->type == MN_TYPE_FLOATS ? (const void *)&d : &s;
    memcpy(items + i * element, from, element);
  }
  char *member = (char *)target + f->offset;
  mn_ints ints = {(const int64_t *)(void *)items, (int)v->count};
  mn_floats floats = {(const double *)(void *)items, (int)v->count};
  mn_strings strings = {(const char *const *)(void *)items, (int)v->count};
  if (f->type == MN_TYPE_INTS) memcpy(member, &ints, sizeof ints);
  else if (f->type == MN_TYPE_FLOATS) memcpy(member, &floats, sizeof floats);
  else memcpy(member, &strings, sizeof strings);
  return MN_OK;
}

static mn_status read_field(const parsing *p, const mn_field *f, const mn_value *v, void *target) {
  int64_t n;
  double d;
  const char *s;
  switch (f->type) {
  case MN_TYPE_INT:
    if (!as_int(f, v, &n)) return wrong(p, f, v);
    store_int(f, target, n);
    return MN_OK;
  case MN_TYPE_FLOAT:
    if (!as_real(f, v, &d)) return wrong(p, f, v);
    store_real(f, target, d);
    return MN_OK;
  case MN_TYPE_BOOL:
    if (v->kind != MN_BOOLEAN) return wrong(p, f, v);
    store_int(f, target, v->as.boolean);
    return MN_OK;
  case MN_TYPE_STRING:
    if (v->kind != MN_TEXT) return wrong(p, f, v);
    if (!(s = mn_arena_strdup(p->arena, v->as.text))) return MN_ERR_MEMORY;
    memcpy((char *)target + f->offset, &s, sizeof s);
    return MN_OK;
  case MN_TYPE_ENUM:
    if (v->kind == MN_TEXT)
      for (int i = 0; f->names[i]; i++)
        if (!strcmp(f->names[i], v->as.text)) {
          store_int(f, target, i);
          return MN_OK;
        }
    return wrong(p, f, v);
  case MN_TYPE_VALUE:
    memcpy((char *)target + f->offset, &v, sizeof v);
    return MN_OK;
  default:
    return read_list(p, f, v, target);
  }
}

/* ---- reading a map ------------------------------------------------------------------------------------------------ */

static mn_status unknown_key(const parsing *p, const mn_entry *e, const mn_config_part *parts, int n_parts) {
  int n = 0, cap = 0;
  for (int i = 0; i < n_parts; i++)
    for (EACH_FIELD(f, parts[i].fields)) cap++;
  const char **names = mn_alloc((size_t)cap * sizeof *names);
  if (!names) return MN_ERR_MEMORY;
  mn_text known = {0};
  for (int i = 0; i < n_parts; i++)
    for (EACH_FIELD(f, parts[i].fields)) {
      mn_text_addf(&known, "%s%s", n ? ", " : "", f->name);
      names[n++] = f->name;
    }
  char place[MN_PLACE], shown[MN_PRINTABLE];
  const char *near = mn_nearest(e->key, names, n);
  mn_status status = mn_fail(MN_ERR_CONFIG, "%sunknown key '%s' in %s%s%s%s (known: %s)", mn_place(e->file, e->line, place),
                             mn_printable(e->key, shown), *p->where ? p->where : "the top level", near ? "; did you mean '" : "",
                             near ? near : "", near ? "'?" : "", known.data ? known.data : "none");
  mn_text_free(&known);
  free(names);
  return status;
}

static mn_status read_entry(const parsing *p, const mn_entry *e, const mn_config_part *parts, int n_parts) {
  for (int i = 0; i < n_parts; i++) {
    const mn_field *f = mn_field_find(parts[i].fields, e->key);
    if (!f) continue;
    return parts[i].target && e->value->kind != MN_NULL ? read_field(p, f, e->value, parts[i].target) : MN_OK;
  }
  return unknown_key(p, e, parts, n_parts);
}

static mn_status check_required(const parsing *p, const mn_value *map, const mn_config_part *parts, int n_parts) {
  for (int i = 0; i < n_parts; i++)
    for (EACH_FIELD(f, parts[i].fields)) {
      if (!f->required || !parts[i].target) continue;
      const mn_value *v = mn_value_get(map, f->name);
      if (v && v->kind != MN_NULL) continue;
      mn_text expected = {0};
      char place[MN_PLACE];
      add_expected(&expected, f, false);
      mn_status status = mn_fail(MN_ERR_CONFIG, "%s%s needs the key '%s': %s (%s)", map ? mn_place(map->file, map->line, place) : "",
                                 *p->where ? p->where : "the top level", f->name, f->help, expected.data ? expected.data : "");
      mn_text_free(&expected);
      return status;
    }
  return MN_OK;
}

mn_status mn_config_parse(mn_arena *arena, const mn_value *map, const char *where, const mn_config_part *parts, int n_parts) {
  parsing p = {arena, where ? where : map ? map->path : ""};
  if (map && map->kind != MN_MAP && map->kind != MN_NULL) {
    char shown[MN_PLACE];
    return mn_value_fail(map, "%s must be a map of keys and values, but is %s", *p.where ? p.where : "the top level",
                         mn_value_show(map, shown));
  }
  for (size_t i = 0; map && map->kind == MN_MAP && i < map->count; i++) MN_TRY(read_entry(&p, &map->as.entries[i], parts, n_parts));
  return check_required(&p, map, parts, n_parts);
}

mn_status mn_config_read(mn_arena *arena, const mn_value *map, const char *where, const mn_field *fields, void *target) {
  mn_config_defaults(fields, target);
  return mn_config_parse(arena, map, where, &(mn_config_part){fields, target}, 1);
}

mn_status mn_config_fail(const mn_value *map, const char *where, const char *key, const char *fmt, ...) {
  char text[1200];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(text, sizeof text, fmt, ap);
  va_end(ap);
  const mn_value *v = mn_value_get(map, key);
  const char *in = where ? where : map ? map->path : "";
  return mn_value_fail(v ? v : map, "%s%s%s %s", in, *in ? "." : "", key, text);
}

static bool spelled_out(const mn_value *v) {
  size_t n = v->file ? strlen(v->file) : 0;
  return n == 0 || (n > 5 && !strcmp(v->file + n - 5, ".json"));
}

bool mn_config_given(const mn_value *map, const char *key) {
  const mn_value *v = mn_value_get(map, key);
  return v && v->kind != MN_NULL && !spelled_out(v);
}

mn_status mn_config_misspelt(const mn_value *map, const char *key) {
  for (size_t i = 0; map && map->kind == MN_MAP && i < map->count; i++) {
    const mn_entry *e = &map->as.entries[i];
    char place[MN_PLACE], shown[MN_PRINTABLE];
    if (mn_nearest(e->key, &key, 1))
      return mn_fail(MN_ERR_CONFIG, "%sunknown key '%s' in %s; did you mean '%s'?", mn_place(e->file, e->line, place),
                     mn_printable(e->key, shown), *map->path ? map->path : "the top level", key);
  }
  return MN_OK;
}

static bool is_word_of(const char *words, const char *word) {
  size_t n = strlen(word), k;
  for (; *words; words += k + (words[k] == ' '))
    if ((k = strcspn(words, " ")) == n && !memcmp(words, word, n)) return true;
  return false;
}

mn_status mn_config_uses(const mn_value *map, const char *where, const mn_key_use *uses, const char *type) {
  for (; uses && uses->key; uses++)
    if (mn_config_given(map, uses->key) && !is_word_of(uses->types, type))
      return mn_config_fail(map, where, uses->key, "has no effect with type %s (it is for %s); leave it out", type, uses->types);
  return MN_OK;
}

/* ---- writing back ------------------------------------------------------------------------------------------------- */

static const mn_value *real_value(mn_arena *arena, double d) {
  return isinf(d) ? mn_value_text(arena, d < 0 ? "-inf" : "inf") : mn_value_real(arena, d);
}

static int list_count(const mn_field *f, const void *target) {
  const char *member = (const char *)target + f->offset;
  mn_ints ints = {0};
  mn_floats floats = {0};
  mn_strings strings = {0};
  if (f->type == MN_TYPE_INTS) memcpy(&ints, member, sizeof ints);
  else if (f->type == MN_TYPE_FLOATS) memcpy(&floats, member, sizeof floats);
  else memcpy(&strings, member, sizeof strings);
  return ints.count + floats.count + strings.count;
}

static const mn_value *list_value(mn_arena *arena, const mn_field *f, const char *member) {
  mn_ints ints = {0};
  mn_floats floats = {0};
  mn_strings strings = {0};
  int count;
  if (f->type == MN_TYPE_INTS) memcpy(&ints, member, sizeof ints), count = ints.count;
  else if (f->type == MN_TYPE_FLOATS) memcpy(&floats, member, sizeof floats), count = floats.count;
  else memcpy(&strings, member, sizeof strings), count = strings.count;
  const mn_value **items = mn_alloc((size_t)count * sizeof *items);
  if (!items) return NULL;
  for (int i = 0; i < count; i++)
    items[i] = f->type == MN_TYPE_INTS     ? mn_value_int(arena, ints.items[i])
               : f->type == MN_TYPE_FLOATS ? real_value(arena, floats.items[i])
                                           : mn_value_text(arena, strings.items[i]);
  const mn_value *list = mn_value_list(arena, (size_t)count, items);
  free(items);
  return list;
}

static const mn_value *null_value(mn_arena *arena) {
  mn_value *v = mn_arena_alloc(arena, sizeof *v); /* zeroed: MN_NULL */
  if (v) v->path = "";
  return v;
}

/* A float member is written with the digits that a float needs: 0.1, not 0.10000000149. */
static double shortest(const mn_field *f, double d) {
  if (f->size == sizeof(double) || !isfinite(d)) return d;
  char digits[40];
  for (int precision = 1; precision <= 9; precision++) {
    snprintf(digits, sizeof digits, "%.*g", precision, d);
    if (strtof(digits, NULL) == (float)d) break;
  }
  return strtod(digits, NULL);
}

static const mn_value *field_value(mn_arena *arena, const mn_field *f, const void *target) {
  const char *member = (const char *)target + f->offset;
  const char *s;
  const mn_value *v;
  switch (f->type) {
  case MN_TYPE_INT:
    return mn_value_int(arena, load_int(f, target));
  case MN_TYPE_BOOL:
    return mn_value_bool(arena, load_int(f, target) != 0);
  case MN_TYPE_FLOAT:
    return real_value(arena, shortest(f, load_real(f, target)));
  case MN_TYPE_ENUM: {
    int64_t i = load_int(f, target);
    return i >= 0 && i < count_names(f->names) ? mn_value_text(arena, f->names[i]) : null_value(arena);
  }
  case MN_TYPE_STRING:
    memcpy(&s, member, sizeof s);
    return s ? mn_value_text(arena, s) : null_value(arena);
  case MN_TYPE_VALUE:
    memcpy(&v, member, sizeof v);
    return v ? v : null_value(arena);
  default:
    return list_value(arena, f, member);
  }
}

static bool is_default(const mn_field *f, const void *target) {
  const char *s;
  const mn_value *v;
  switch (f->type) {
  case MN_TYPE_INT:
  case MN_TYPE_BOOL:
  case MN_TYPE_ENUM:
    return load_int(f, target) == f->int_default;
  case MN_TYPE_FLOAT:
    return load_real(f, target) == f->real_default;
  case MN_TYPE_STRING:
    memcpy(&s, (const char *)target + f->offset, sizeof s);
    return s == f->text_default || (s && f->text_default && !strcmp(s, f->text_default));
  case MN_TYPE_VALUE:
    memcpy(&v, (const char *)target + f->offset, sizeof v);
    return !v;
  default: /* lists are empty by default */
    return list_count(f, target) == 0;
  }
}

const mn_value *mn_config_to_value(mn_arena *arena, const mn_config_part *parts, int n_parts) {
  size_t n = 0, cap = 0;
  for (int i = 0; i < n_parts; i++)
    for (EACH_FIELD(f, parts[i].fields)) cap++;
  const char **keys = mn_alloc(cap * sizeof *keys);
  const mn_value **values = mn_alloc(cap * sizeof *values);
  for (int i = 0; keys && values && i < n_parts; i++) {
    if (!parts[i].target) continue;
    for (EACH_FIELD(f, parts[i].fields)) {
      if (f->sparse && is_default(f, parts[i].target)) continue;
      keys[n] = f->name;
      values[n++] = field_value(arena, f, parts[i].target);
    }
  }
  const mn_value *map = keys && values ? mn_value_map(arena, n, keys, values) : NULL;
  free(keys);
  free(values);
  return map;
}

/* ---- help --------------------------------------------------------------------------------------------------------- */

static void add_default(mn_text *t, const mn_field *f) {
  if (f->required) {
    mn_text_add(t, "required");
    return;
  }
  switch (f->type) {
  case MN_TYPE_INT:
    mn_text_addf(t, "%lld", (long long)f->int_default);
    break;
  case MN_TYPE_FLOAT:
    mn_text_addf(t, "%g", f->real_default);
    break;
  case MN_TYPE_BOOL:
    mn_text_add(t, f->int_default ? "true" : "false");
    break;
  case MN_TYPE_ENUM:
    mn_text_add(t, f->names[f->int_default]);
    break;
  case MN_TYPE_STRING:
    mn_text_add(t, f->text_default ? (*f->text_default ? f->text_default : "empty") : "none");
    break;
  case MN_TYPE_VALUE:
    mn_text_add(t, "none");
    break;
  default:
    mn_text_add(t, "empty");
    break;
  }
}

/* Words of `s`, broken so that no line passes `width`, further lines indented to `column`. */
static void add_wrapped(mn_text *t, const char *s, size_t column, size_t width) {
  size_t at = column;
  while (*s) {
    size_t n = strcspn(s, " ");
    if (at > column && at + 1 + n > width) {
      mn_text_add(t, "\n");
      mn_text_pad(t, column);
      at = column;
    } else if (at > column) {
      mn_text_add(t, " ");
      at++;
    }
    mn_text_add_bytes(t, s, n);
    at += n;
    s += n + (s[n] == ' ');
  }
}

static void help_text(const mn_field *fields, mn_text *out) {
  size_t name_width = 0;
  for (EACH_FIELD(f, fields)) name_width = strlen(f->name) > name_width ? strlen(f->name) : name_width;
  const size_t column = name_width + 4;
  for (EACH_FIELD(f, fields)) {
    mn_text line = {0};
    mn_text_addf(&line, "%s. (", f->help);
    add_expected(&line, f, false);
    mn_text_add(&line, f->required ? "; " : "; default ");
    add_default(&line, f);
    mn_text_add(&line, ")");
    mn_text_addf(out, "  %s", f->name);
    mn_text_pad(out, column);
    if (line.data) add_wrapped(out, line.data, column, 100);
    mn_text_add(out, "\n");
    mn_text_free(&line);
  }
}

static void add_cell(mn_text *out, const char *s) {
  for (; *s; s++) {
    if (*s == '|') mn_text_add(out, "\\");
    mn_text_add_bytes(out, s, 1);
  }
}

static void help_markdown(const mn_field *fields, mn_text *out) {
  mn_text_add(out, "| key | value | default | meaning |\n|---|---|---|---|\n");
  for (EACH_FIELD(f, fields)) {
    mn_text cell = {0};
    add_expected(&cell, f, false);
    mn_text_addf(out, "| `%s` | ", f->name);
    add_cell(out, cell.data ? cell.data : "");
    mn_text_free(&cell);
    mn_text_add(out, " | ");
    add_default(&cell, f);
    add_cell(out, cell.data ? cell.data : "");
    mn_text_free(&cell);
    mn_text_add(out, " | ");
    add_cell(out, f->help);
    mn_text_add(out, " |\n");
  }
}

void mn_config_help(const mn_field *fields, mn_help_form form, mn_text *out) {
  if (form == MN_HELP_MARKDOWN) help_markdown(fields, out);
  else help_text(fields, out);
}

/* ---- the tables' own rules ---------------------------------------------------------------------------------------- */

static const char *fault_of(const mn_field *f, const mn_field *fields) {
  if (!f->name || !*f->name) return "has no name";
  if (!f->help || !*f->help) return "has no help";
  if (f->help[strlen(f->help) - 1] == '.') return "has help that ends with a full stop, which is added where it is shown";
  if (mn_field_find(fields, f->name) != f) return "is there twice";
  if (f->type == MN_TYPE_INT && (f->int_default < f->int_min || f->int_default > f->int_max)) return "has a default outside its range";
  if (f->type == MN_TYPE_FLOAT && !(f->real_default >= f->real_min && f->real_default <= f->real_max))
    return "has a default outside its range";
  if (f->type == MN_TYPE_ENUM && (!f->names || !f->names[0] || f->int_default < 0 || f->int_default >= count_names(f->names)))
    return "has a default that is none of its words";
  return NULL;
}

mn_status mn_fields_check(const mn_field *fields) {
  for (EACH_FIELD(f, fields)) {
    const char *fault = fault_of(f, fields);
    if (fault) return mn_fail(MN_ERR_INTERNAL, "field '%s' %s", f->name ? f->name : "", fault);
  }
  return MN_OK;
}

mn_status mn_config_choose(const mn_value *v, const char *what, const char *word, int count, const char *(*name)(int i), int *out) {
  const char **names = mn_alloc((size_t)(count + 1) * sizeof *names);
  mn_text known = {0};
  if (!names) return MN_ERR_MEMORY;
  for (*out = 0; *out < count; ++*out) {
    names[*out] = name(*out);
    if (!strcmp(names[*out], word)) break;
    mn_text_addf(&known, "%s%s", *out ? ", " : "", names[*out]);
  }
  mn_status status = MN_OK;
  if (*out == count) {
    const char *near = mn_nearest(word, names, count);
    status = mn_value_fail(v, "unknown %s '%s'%s%s%s (known: %s)", what, word, near ? "; did you mean '" : "", near ? near : "",
                           near ? "'?" : "", known.data ? known.data : "none");
  }
  mn_text_free(&known);
  free(names);
  return status;
}
