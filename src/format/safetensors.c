/* safetensors.c - reading: the header is checked in three steps (its length; its outline, which bounds what parsing it can
 * cost; every entry), then the tensors together must cover the data exactly. */
#define _GNU_SOURCE /* memmem */
#include "format/safetensors.h"

#include "base/file.h"
#include "base/nearest.h"
#include "base/text.h"
#include "format/json_load.h"
#include "format/safetensors_sums.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "safetensors data is little-endian and is used in place"
#endif

enum { HEADER_LIMIT = 100000000 }; /* as in the reference implementation */
enum { LOOK_EVERY = 1 << 10 };     /* tensors, until the stop flag is looked at */

#define DAMAGED "the file is damaged or cut short; copy or download it again"

typedef struct file_type {
  const char *name;
  size_t size;
  mn_dtype dtype;
} file_type;

static const file_type file_types[] = {
    {"F32", 4, MN_F32},    {"F64", 8, MN_F64},    {"BF16", 2, MN_BF16},  {"I32", 4, MN_I32},        {"I64", 8, MN_I64},
    {"BOOL", 1, MN_BOOL},  {"F16", 2, MN_DTYPES}, {"U8", 1, MN_DTYPES},  {"I8", 1, MN_DTYPES},      {"U16", 2, MN_DTYPES},
    {"I16", 2, MN_DTYPES}, {"U32", 4, MN_DTYPES}, {"U64", 8, MN_DTYPES}, {"F8_E4M3", 1, MN_DTYPES}, {"F8_E5M2", 1, MN_DTYPES},
};

struct mn_st {
  mn_arena *arena;
  mn_map map; /* of a file that we opened; else empty */
  const char *path;
  const uint8_t *data; /* behind the header */
  size_t data_size;
  int count, meta_count;
  mn_st_tensor *tensors;        /* in the order of their data */
  const mn_st_tensor **by_name; /* sorted */
  const char **meta_keys, **meta_values;
  const char *sums, *self; /* checksums: of the tensors, one after the other; of the header. NULL: none */
  bool *held;              /* tensors whose checksum was found to hold */
};

/* ---- the header's outline ----------------------------------------------------------------------------------------- */

/* One pass before parsing: at most {name: {key: [numbers]}} and no more numbers than dimensions. So a hostile header
 * cannot make the parser build a tree many times its own size. What is not JSON passes here and fails in the parser. */
static bool outline_fits(const char *s, size_t n) {
  int depth = 0, commas = 0;
  for (size_t i = 0; i < n; i++) {
    switch (s[i]) {
    case '"':
      for (i++; i < n && s[i] != '"'; i++)
        if (s[i] == '\\') i++;
      break;
    case '{':
      if (++depth > 2) return false;
      break;
    case '[':
      if (++depth != 3) return false;
      commas = 0;
      break;
    case '}':
    case ']':
      if (--depth < 0) return false;
      break;
    case ',':
      if (depth == 3 && ++commas > 16) return false;
      break;
    default:
      break;
    }
  }
  return depth == 0;
}

/* ---- one entry ---------------------------------------------------------------------------------------------------- */

typedef struct entry { /* a tensor with its place, before the order is known */
  mn_st_tensor tensor;
  size_t begin, end;
} entry;

static mn_status tensor_fault(const mn_st *st, const char *name, const char *fmt, ...) MN_PRINTF(3, 4);
static mn_status tensor_fault(const mn_st *st, const char *name, const char *fmt, ...) {
  char what[600], shown[MN_PRINTABLE];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(what, sizeof what, fmt, ap);
  va_end(ap);
  return mn_fail(MN_ERR_FORMAT, "%s: tensor '%s': %s", st->path, mn_printable(name, shown), what);
}

static mn_status read_type(const mn_st *st, const char *name, json_t *value, const file_type **out) {
  const char *given = json_string_value(value);
  if (!given) return tensor_fault(st, name, "'dtype' must be a text such as \"F32\"");
  for (size_t i = 0; i < sizeof file_types / sizeof *file_types; i++)
    if (!strcmp(given, file_types[i].name)) {
      *out = &file_types[i];
      return MN_OK;
    }
  char shown[MN_PRINTABLE];
  return tensor_fault(st, name,
                      "unknown dtype '%s'; known are F64, F32, F16, BF16, I64, I32, I16, I8, U64, U32, U16, U8, "
                      "BOOL, F8_E4M3 and F8_E5M2",
                      mn_printable(given, shown));
}

/* The shape, and in *bytes what it needs. */
static mn_status read_shape(const mn_st *st, const char *name, json_t *value, const file_type *type, mn_shape *shape, size_t *bytes) {
  if (!json_is_array(value)) return tensor_fault(st, name, "'shape' must be a list of dimensions");
  size_t ndim = json_array_size(value);
  if (ndim > MN_MAX_DIMS) return tensor_fault(st, name, "has %zu dimensions; Mneme reads at most %d", ndim, MN_MAX_DIMS);
  *shape = (mn_shape){.ndim = (int)ndim};
  size_t total = type->size;
  bool fits = true;
  for (size_t i = 0; i < ndim; i++) {
    json_t *dim = json_array_get(value, i);
    if (!json_is_integer(dim) || json_integer_value(dim) < 0)
      return tensor_fault(st, name, "dimension %zu of 'shape' must be a whole number, 0 or more", i);
    shape->dim[i] = json_integer_value(dim);
    fits = fits && mn_size_mul(total, (size_t)shape->dim[i], &total) && total <= (size_t)INT64_MAX;
  }
  char text[96];
  if (!fits) return tensor_fault(st, name, "shape %s is larger than any memory; " DAMAGED, mn_shape_str(shape, text));
  *bytes = total;
  return MN_OK;
}

static mn_status read_offsets(const mn_st *st, const char *name, json_t *value, entry *e) {
  if (!json_is_array(value) || json_array_size(value) != 2) return tensor_fault(st, name, "'data_offsets' must be a list of two numbers");
  size_t at[2];
  for (size_t i = 0; i < 2; i++) {
    json_t *offset = json_array_get(value, i);
    if (!json_is_integer(offset) || json_integer_value(offset) < 0)
      return tensor_fault(st, name, "'data_offsets' must be whole numbers, 0 or more");
    at[i] = (size_t)json_integer_value(offset);
  }
  if (at[0] > at[1] || at[1] > st->data_size)
    return tensor_fault(st, name, "data_offsets [%zu, %zu] lie outside the %zu bytes of data; " DAMAGED, at[0], at[1], st->data_size);
  e->begin = at[0];
  e->end = at[1];
  return MN_OK;
}

/* Bytes other than 0 and 1 are no truth values; kernels rely on it. */
static mn_status check_bools(const mn_st *st, const entry *e) {
  for (size_t i = e->begin; i < e->end; i++)
    if (st->data[i] > 1) return tensor_fault(st, e->tensor.name, "element %zu is %d, but a BOOL is 0 or 1", i - e->begin, st->data[i]);
  return MN_OK;
}

static mn_status read_entry(mn_st *st, const char *name, json_t *value, entry *e) {
  if (!*name) return mn_fail(MN_ERR_FORMAT, "%s: a tensor has an empty name", st->path);
  if (!json_is_object(value)) return tensor_fault(st, name, "must be a map of dtype, shape and data_offsets");
  const char *key;
  json_t *member;
  char shown[MN_PRINTABLE], text[96];
  json_object_foreach(
      value, key,
      member) if (strcmp(key, "dtype") && strcmp(key, "shape") &&
                  strcmp(key, "data_offsets")) return tensor_fault(st, name, "unknown key '%s'; a tensor has dtype, shape and data_offsets",
                                                                   mn_printable(key, shown));
  const file_type *type = NULL;
  size_t bytes = 0;
  mn_shape shape = {0};
  MN_TRY(read_type(st, name, json_object_get(value, "dtype"), &type));
  MN_TRY(read_shape(st, name, json_object_get(value, "shape"), type, &shape, &bytes));
  MN_TRY(read_offsets(st, name, json_object_get(value, "data_offsets"), e));
  if (e->end - e->begin != bytes)
    return tensor_fault(st, name, "data_offsets [%zu, %zu] hold %zu bytes, but %s %s needs %zu", e->begin, e->end, e->end - e->begin,
                        type->name, mn_shape_str(&shape, text), bytes);
  e->tensor = (mn_st_tensor){.dtype = type->dtype, .file_dtype = type->name, .shape = shape, .bytes = bytes};
  e->tensor.name = mn_arena_strdup(st->arena, name);
  if (!e->tensor.name) return MN_ERR_MEMORY;
  e->tensor.data = st->data + e->begin;
  return type->dtype == MN_BOOL ? check_bools(st, e) : MN_OK;
}

static mn_status read_meta(mn_st *st, json_t *value) {
  if (!json_is_object(value)) return mn_fail(MN_ERR_FORMAT, "%s: __metadata__ must be a map of texts", st->path);
  size_t n = json_object_size(value);
  if (n > INT_MAX) return mn_fail(MN_ERR_FORMAT, "%s: __metadata__ has too many entries", st->path);
  st->meta_keys = mn_arena_alloc(st->arena, n * sizeof *st->meta_keys);
  st->meta_values = mn_arena_alloc(st->arena, n * sizeof *st->meta_values);
  if (!st->meta_keys || !st->meta_values) return MN_ERR_MEMORY;
  const char *key;
  json_t *member;
  char shown[MN_PRINTABLE];
  json_object_foreach(value, key, member) {
    if (!json_is_string(member)) return mn_fail(MN_ERR_FORMAT, "%s: __metadata__ '%s' must be a text", st->path, mn_printable(key, shown));
    bool sums = !strcmp(key, MN_ST_SUMS), self = !strcmp(key, MN_ST_SELF);
    if (sums && !(st->sums = mn_arena_strdup(st->arena, json_string_value(member)))) return MN_ERR_MEMORY;
    if (self && !(st->self = mn_arena_strdup(st->arena, json_string_value(member)))) return MN_ERR_MEMORY;
    if (sums || self) continue;
    int i = st->meta_count++;
    st->meta_keys[i] = mn_arena_strdup(st->arena, key);
    st->meta_values[i] = mn_arena_strdup(st->arena, json_string_value(member));
    if (!st->meta_keys[i] || !st->meta_values[i]) return MN_ERR_MEMORY;
  }
  return MN_OK;
}

/* ---- checksums ---------------------------------------------------------------------------------------------------- */

#define REWRITTEN                                                                                                                          \
  "the file is damaged; copy or make it again (when another program wrote it anew, remove " MN_ST_SUMS " and " MN_ST_SELF                  \
  " from its metadata)"

/* The header's own checksum, over its text with zeros in its place. */
static mn_status check_header(const mn_st *st, const char *text, size_t n) {
  static const char mark[] = "\"" MN_ST_SELF "\":\"";
  if (!st->sums && !st->self) return MN_OK;
  if (!st->sums || !st->self)
    return mn_fail(MN_ERR_FORMAT, "%s: its metadata has %s without %s: " REWRITTEN, st->path, st->sums ? MN_ST_SUMS : MN_ST_SELF,
                   st->sums ? MN_ST_SELF : MN_ST_SUMS);
  const char *at = memmem(text, n, mark, sizeof mark - 1); /* quotes inside of strings have a backslash before them */
  char *copy = mn_alloc(n), hex[MN_HASH_HEX] = "";
  if (!copy) return MN_ERR_MEMORY;
  size_t place = at ? (size_t)(at - text) + sizeof mark - 1 : n;
  memcpy(copy, text, n);
  if (n - place >= MN_ST_DIGITS) {
    memset(copy + place, '0', MN_ST_DIGITS);
    mn_content_hash(copy, n, hex);
  }
  free(copy);
  if (strcmp(hex, st->self) != 0) return mn_fail(MN_ERR_FORMAT, "%s: the header does not match its checksum: " REWRITTEN, st->path);
  return MN_OK;
}

/* Every tensor gets its checksum. */
static mn_status deal_checksums(mn_st *st) {
  st->held = mn_arena_alloc(st->arena, (size_t)st->count + 1);
  if (!st->held) return MN_ERR_MEMORY;
  if (!st->sums) return MN_OK;
  if (strlen(st->sums) != (size_t)st->count * MN_ST_DIGITS)
    return mn_fail(MN_ERR_FORMAT, "%s: " MN_ST_SUMS " are of another number of tensors: " REWRITTEN, st->path);
  for (int i = 0; i < st->count; i++) memcpy(st->tensors[i].checksum, st->sums + (size_t)i * MN_ST_DIGITS, MN_ST_DIGITS);
  return MN_OK;
}

mn_status mn_st_intact(const mn_st *st) { return mn_map_check(&st->map); }

mn_status mn_st_compare(const mn_st *st, const mn_st_tensor *t, const char *hex) {
  MN_TRY(mn_st_intact(st)); /* zeros in place of what is gone are another message */
  if (strcmp(hex, t->checksum) != 0) return tensor_fault(st, t->name, "its data does not match its checksum: " REWRITTEN);
  __atomic_store_n(&st->held[t - st->tensors], true, __ATOMIC_RELAXED); /* several threads may read one file */
  return MN_OK;
}

bool mn_st_settled(const mn_st *st, const mn_st_tensor *t) {
  return !t->checksum[0] || __atomic_load_n(&st->held[t - st->tensors], __ATOMIC_RELAXED);
}

mn_status mn_st_check(const mn_st *st, const mn_st_tensor *t) {
  char hex[MN_HASH_HEX];
  if (mn_st_settled(st, t)) return MN_OK;
  enum { PIECE = 1 << 20 };
  mn_hasher *h = mn_hasher_new();
  if (!h) return MN_ERR_MEMORY;
  mn_status status = MN_OK;
  for (size_t at = 0; at < t->bytes && status == MN_OK; at += PIECE) {
    status = mn_stop_check("reading a file of tensors");
    mn_hasher_add(h, (const char *)t->data + at, t->bytes - at < PIECE ? t->bytes - at : PIECE);
  }
  if (status == MN_OK) mn_hasher_take(h, hex);
  mn_hasher_free(h);
  return status == MN_OK ? mn_st_compare(st, t, hex) : status;
}

/* ---- all entries -------------------------------------------------------------------------------------------------- */

static int by_begin(const void *a, const void *b) { /* empty tensors before the one that begins at their place */
  const entry *x = a, *y = b;
  if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
  if (x->end != y->end) return x->end < y->end ? -1 : 1;
  return strcmp(x->tensor.name, y->tensor.name);
}

static int by_name(const void *a, const void *b) {
  return strcmp((*(const mn_st_tensor *const *)a)->name, (*(const mn_st_tensor *const *)b)->name);
}

/* In order, the tensors cover the data: each begins where the one before ends, the last ends where the file ends. */
static mn_status check_cover(const mn_st *st, const entry *entries) {
  size_t at = 0;
  for (int i = 0; i < st->count; i++) {
    const entry *e = &entries[i];
    if (e->begin < at) return tensor_fault(st, e->tensor.name, "its data overlaps that of tensor '%.100s'", entries[i - 1].tensor.name);
    if (e->begin > at) return tensor_fault(st, e->tensor.name, "%zu bytes before its data belong to no tensor", e->begin - at);
    at = e->end;
  }
  if (at != st->data_size) return mn_fail(MN_ERR_FORMAT, "%s: %zu bytes at its end belong to no tensor", st->path, st->data_size - at);
  return MN_OK;
}

static mn_status read_entries(mn_st *st, json_t *header, entry *entries) {
  const char *key;
  json_t *value;
  json_object_foreach(header, key, value) {
    if (strcmp(key, "__metadata__") != 0) {
      if (st->count % LOOK_EVERY == LOOK_EVERY - 1) MN_TRY(mn_stop_check("reading a file of tensors"));
      MN_TRY(read_entry(st, key, value, &entries[st->count]));
      st->count++;
    }
  }
  if (st->count) qsort(entries, (size_t)st->count, sizeof *entries, by_begin);
  MN_TRY(check_cover(st, entries));
  st->tensors = mn_arena_alloc(st->arena, (size_t)st->count * sizeof *st->tensors);
  st->by_name = mn_arena_alloc(st->arena, (size_t)st->count * sizeof *st->by_name);
  if (!st->tensors || !st->by_name) return MN_ERR_MEMORY;
  for (int i = 0; i < st->count; i++) {
    st->tensors[i] = entries[i].tensor;
    st->by_name[i] = &st->tensors[i];
  }
  if (st->count) qsort(st->by_name, (size_t)st->count, sizeof *st->by_name, by_name);
  return deal_checksums(st);
}

static mn_status read_header(mn_st *st, const uint8_t *data, size_t n) {
  if (n < 8) return mn_fail(MN_ERR_FORMAT, "%s: %zu bytes are too few for a safetensors file; " DAMAGED, st->path, n);
  uint64_t length = 0;
  for (int i = 7; i >= 0; i--) length = length << 8 | data[i];
  if (length > HEADER_LIMIT)
    return mn_fail(MN_ERR_FORMAT, "%s: a header of %llu bytes is beyond the limit of %d; is this a safetensors file?", st->path,
                   (unsigned long long)length, HEADER_LIMIT);
  if (length > n - 8)
    return mn_fail(MN_ERR_FORMAT, "%s: the header needs %llu bytes, but only %zu follow; " DAMAGED, st->path, (unsigned long long)length,
                   n - 8);
  const char *text = (const char *)data + 8;
  size_t size = (size_t)length;
  st->data = data + 8 + size;
  st->data_size = n - 8 - size;
  if (size == 0 || text[0] != '{')
    return mn_fail(MN_ERR_FORMAT, "%s: the header does not begin with '{'; is this a safetensors file?", st->path);
  if (!outline_fits(text, size))
    return mn_fail(MN_ERR_FORMAT, "%s: the header is not a map of tensors with dtype, shape and data_offsets", st->path);
  json_error_t error;
  json_t *header;
  const mn_status read = mn_json_load(text, size, JSON_REJECT_DUPLICATES, &header, &error);
  char shown[MN_PRINTABLE];
  if (read == MN_ERR_CANCELLED) return read;
  if (read != MN_OK)
    return mn_fail(MN_ERR_FORMAT, "%s: the header is not valid JSON: %s (byte %d)", st->path, mn_printable(error.text, shown),
                   error.position);
  json_t *meta = json_object_get(header, "__metadata__");
  mn_status status = meta ? read_meta(st, meta) : MN_OK;
  if (status == MN_OK) status = check_header(st, text, size);
  size_t members = json_object_size(header);
  entry *entries = status == MN_OK && members < INT_MAX ? mn_calloc(members + 1, sizeof *entries) : NULL;
  if (entries) status = read_entries(st, header, entries);
  else if (status == MN_OK) status = mn_fail(MN_ERR_MEMORY, "%s: %zu tensors are too many for this memory", st->path, members);
  free(entries);
  json_decref(header);
  return status;
}

static mn_status open_over(const char *path, mn_map map, const void *data, size_t n, mn_st **out) {
  mn_status status = MN_ERR_MEMORY;
  mn_st *st = mn_calloc(1, sizeof *st);
  if (st) {
    st->map = map;
    st->arena = mn_arena_new();
    st->path = st->arena ? mn_arena_strdup(st->arena, path) : NULL;
    if (st->path) status = read_header(st, data, n);
    mn_status intact = mn_st_intact(st);
    if (intact != MN_OK) status = intact;
  } else mn_map_close(&map);
  if (status == MN_OK) *out = st;
  else mn_st_close(st);
  return status;
}

mn_status mn_st_open(const char *path, mn_st **out) {
  mn_map map;
  *out = NULL;
  MN_TRY(mn_map_open(path, &map));
  return open_over(path, map, map.data, map.size, out);
}

mn_status mn_st_open_bytes(const char *name, const void *data, size_t n, mn_st **out) {
  *out = NULL;
  return open_over(name, (mn_map){0}, data, n, out);
}

void mn_st_close(mn_st *st) {
  if (!st) return;
  mn_map_close(&st->map);
  if (st->arena) mn_arena_free(st->arena);
  free(st);
}

/* ---- asking ------------------------------------------------------------------------------------------------------- */

const char *mn_st_path(const mn_st *st) { return st->path; }
const char *mn_st_checksum(const mn_st *st) { return st->self; }
int mn_st_count(const mn_st *st) { return st->count; }
const mn_st_tensor *mn_st_at(const mn_st *st, int i) { return i >= 0 && i < st->count ? &st->tensors[i] : NULL; }

const mn_st_tensor *mn_st_find(const mn_st *st, const char *name) {
  int low = 0, high = st->count;
  while (low < high) {
    int middle = low + (high - low) / 2, order = strcmp(name, st->by_name[middle]->name);
    if (order == 0) return st->by_name[middle];
    if (order < 0) high = middle;
    else low = middle + 1;
  }
  return NULL;
}

mn_status mn_st_need(const mn_st *st, const char *name, const mn_shape *shape, const mn_st_tensor **out) {
  const mn_st_tensor *t = *out = mn_st_find(st, name);
  if (!t) return mn_fail(MN_ERR_FORMAT, "%s: tensor '%s' is missing", st->path, name);
  char given[96], expected[96];
  if (shape && !mn_shape_equal(shape, &t->shape))
    return mn_fail(MN_ERR_SHAPE, "%s: tensor '%s' has the shape %s, but %s is needed", st->path, name, mn_shape_str(&t->shape, given),
                   mn_shape_str(shape, expected));
  return MN_OK;
}

mn_status mn_st_only(const mn_st *st, const char *const *names, int n, const char *what) {
  bool *known = mn_calloc((size_t)st->count + 1, sizeof *known);
  int i = 0;
  if (!known) return MN_ERR_MEMORY;
  for (int k = 0; k < n; k++) {
    const mn_st_tensor *t = mn_st_find(st, names[k]);
    if (t) known[t - st->tensors] = true;
  }
  while (i < st->count && known[i]) i++;
  free(known);
  if (i == st->count) return MN_OK;
  const char *name = st->tensors[i].name, *near = mn_nearest(name, names, n);
  char shown[MN_PRINTABLE];
  return mn_fail(MN_ERR_FORMAT, "%s: tensor '%s' is not %s%s%s%s", st->path, mn_printable(name, shown), what,
                 near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
}

int mn_st_meta_count(const mn_st *st) { return st->meta_count; }
const char *mn_st_meta_key(const mn_st *st, int i) { return i >= 0 && i < st->meta_count ? st->meta_keys[i] : NULL; }
const char *mn_st_meta_value(const mn_st *st, int i) { return i >= 0 && i < st->meta_count ? st->meta_values[i] : NULL; }

const char *mn_st_meta(const mn_st *st, const char *key) {
  for (int i = 0; i < st->meta_count; i++)
    if (!strcmp(st->meta_keys[i], key)) return st->meta_values[i];
  return NULL;
}
