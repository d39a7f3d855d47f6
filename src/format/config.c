/* config.c - reading maps into structs by tables of fields. */
#include "format/config_internal.h"

#include "base/file.h"
#include "base/nearest.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const mn_field *mn_field_find(const mn_field *fields, const char *name) {
  for (MN_EACH_FIELD(f, fields))
    if (!strcmp(f->name, name)) return f;
  return NULL;
}

int mn_field_words(const char *const *names) {
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

int64_t mn_field_int(const mn_field *f, const void *target) {
  const char *member = (const char *)target + f->offset;
  int64_t v = 0;
  int narrow;
  bool flag;
  if (f->type == MN_TYPE_BOOL) memcpy(&flag, member, sizeof flag), v = flag;
  else if (f->size == sizeof v) memcpy(&v, member, sizeof v);
  else memcpy(&narrow, member, sizeof narrow), v = narrow;
  return v;
}

static void store_real(const mn_field *f, void *target, double v) {
  float narrow = (float)v;
  memcpy((char *)target + f->offset, f->size == sizeof v ? (const void *)&v : (const void *)&narrow, f->size);
}

double mn_field_real(const mn_field *f, const void *target) {
  double v;
  float narrow;
  if (f->size == sizeof v) memcpy(&v, (const char *)target + f->offset, sizeof v);
  else memcpy(&narrow, (const char *)target + f->offset, sizeof narrow), v = (double)narrow;
  return v;
}

void mn_config_defaults(const mn_field *fields, void *target) {
  for (MN_EACH_FIELD(f, fields)) {
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

typedef struct parsing {
  mn_arena *arena;
  const char *where; /* "model.mixer"; "" for the root */
} parsing;

/* "recipe.yaml:12: model.mixer.head_dim must be an integer from 1 to 512, but is the text 'big'". item: v is that item of
 * a list; -1: the whole value. */
static mn_status wrong_item(const parsing *p, const mn_field *f, const mn_value *v, int item) {
  char shown[MN_PLACE], place[MN_PLACE];
  mn_text expected = {0};
  mn_field_expected(&expected, f, item >= 0);
  char index[16] = "";
  if (item >= 0) snprintf(index, sizeof index, "[%d]", item);
  const char *near = f->type == MN_TYPE_ENUM && v->kind == MN_TEXT ? mn_nearest(v->as.text, f->names, mn_field_words(f->names)) : NULL;
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

/* Models compute in 32 bits: what they hold no more would be 0 there, or its inverse infinite. Numbers without a bound are of no model. */
static mn_status check_size(const parsing *p, const mn_field *f, const mn_value *v, double d, int item) {
  char index[16] = "", place[MN_PLACE];
  if (d == 0 || fabs(d) >= (double)FLT_MIN || f->real_max == DBL_MAX) return MN_OK;
  if (item >= 0) snprintf(index, sizeof index, "[%d]", item);
  return mn_fail(MN_ERR_CONFIG, "%s%s%s%s%s is %g, too small for a number of 32 bits; give one of at least %.2g%s",
                 mn_place(v->file, v->line, place), p->where, *p->where ? "." : "", f->name, index, d, (double)FLT_MIN,
                 f->real_min <= 0 ? ", or 0" : "");
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
    MN_TRY(check_size(p, f, item, d, (int)i));
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
    MN_TRY(check_size(p, f, v, d, -1));
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
    for (MN_EACH_FIELD(f, parts[i].fields)) cap++;
  const char **names = mn_alloc((size_t)cap * sizeof *names);
  if (!names) return MN_ERR_MEMORY;
  mn_text known = {0};
  for (int i = 0; i < n_parts; i++)
    for (MN_EACH_FIELD(f, parts[i].fields)) {
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
    for (MN_EACH_FIELD(f, parts[i].fields)) {
      if (!f->required || !parts[i].target) continue;
      const mn_value *v = mn_value_get(map, f->name);
      if (v && v->kind != MN_NULL) continue;
      mn_text expected = {0};
      char place[MN_PLACE];
      mn_field_expected(&expected, f, false);
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

/* ---- the tables' own rules ---------------------------------------------------------------------------------------- */

static const char *fault_of(const mn_field *f, const mn_field *fields) {
  if (!f->name || !*f->name) return "has no name";
  if (!f->help || !*f->help) return "has no help";
  if (f->help[strlen(f->help) - 1] == '.') return "has help that ends with a full stop, which is added where it is shown";
  if (mn_field_find(fields, f->name) != f) return "is there twice";
  if (f->type == MN_TYPE_INT && (f->int_default < f->int_min || f->int_default > f->int_max)) return "has a default outside its range";
  if (f->type == MN_TYPE_FLOAT && !(f->real_default >= f->real_min && f->real_default <= f->real_max))
    return "has a default outside its range";
  if (f->type == MN_TYPE_ENUM && (!f->names || !f->names[0] || f->int_default < 0 || f->int_default >= mn_field_words(f->names)))
    return "has a default that is none of its words";
  return NULL;
}

mn_status mn_fields_check(const mn_field *fields) {
  for (MN_EACH_FIELD(f, fields)) {
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
