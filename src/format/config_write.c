/* config_write.c - structs back into maps, by the tables that they were read by. */
#include "format/config_internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
    return mn_value_int(arena, mn_field_int(f, target));
  case MN_TYPE_BOOL:
    return mn_value_bool(arena, mn_field_int(f, target) != 0);
  case MN_TYPE_FLOAT:
    return real_value(arena, shortest(f, mn_field_real(f, target)));
  case MN_TYPE_ENUM: {
    int64_t i = mn_field_int(f, target);
    return i >= 0 && i < mn_field_words(f->names) ? mn_value_text(arena, f->names[i]) : null_value(arena);
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
    return mn_field_int(f, target) == f->int_default;
  case MN_TYPE_FLOAT:
    return mn_field_real(f, target) == f->real_default;
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
    for (MN_EACH_FIELD(f, parts[i].fields)) cap++;
  const char **keys = mn_alloc(cap * sizeof *keys);
  const mn_value **values = mn_alloc(cap * sizeof *values);
  for (int i = 0; keys && values && i < n_parts; i++) {
    if (!parts[i].target) continue;
    for (MN_EACH_FIELD(f, parts[i].fields)) {
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
