/* gguf.c - opening: the header, the metadata, the list of tensors, in the order of the file; then all of it together: no key
 * and no name twice, alignment, places of the data, checksums. Nothing is trusted before it has been compared with what the
 * file holds, so no count or length of a file can ask for more memory than a few times its own size. */
#include "format/gguf.h"

#include "format/gguf_internal.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "GGUF data is little-endian and is used in place"
#endif

#define DAMAGED "the file is damaged or cut short; copy or download it again"

enum {
  NAME_LIMIT = 65535, /* bytes of a key, as the format says, and of a tensor's name */
  DIMS_LIMIT = 4,
  META_LEAST = 8 + 1 + 4 + 1,       /* bytes of the shortest entry of the metadata */
  TENSOR_LEAST = 8 + 1 + 4 + 4 + 8, /* and of the list of tensors */
};

uint32_t mn_gguf_load32(const uint8_t *p) {
  uint32_t v;
  memcpy(&v, p, 4);
  return v;
}

uint64_t mn_gguf_load64(const uint8_t *p) {
  uint64_t v;
  memcpy(&v, p, 8);
  return v;
}

bool mn_gguf_is(const void *data, size_t n) { return n >= 4 && !memcmp(data, "GGUF", 4); }

/* ---- a place in the file ---- */

typedef struct cursor {
  mn_gguf *g;
  size_t at;
  char what[200]; /* is being read, for messages */
} cursor;

static mn_status fault(const cursor *c, const char *fmt, ...) MN_PRINTF(2, 3);
static mn_status fault(const cursor *c, const char *fmt, ...) {
  char why[600];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(why, sizeof why, fmt, ap);
  va_end(ap);
  return mn_fail(MN_ERR_FORMAT, "%s: byte %zu: %s: %s", c->g->path, c->at, c->what, why);
}

/* The next n bytes, of the field that is named. */
static mn_status take(cursor *c, size_t n, const char *field, const uint8_t **out) {
  size_t left = c->g->size - c->at;
  if (n > left) return fault(c, "%s needs %zu bytes, but %zu are left; " DAMAGED, field, n, left);
  *out = c->g->bytes + c->at;
  c->at += n;
  return MN_OK;
}

static mn_status take32(cursor *c, const char *field, uint32_t *out) {
  const uint8_t *p = NULL;
  MN_TRY(take(c, 4, field, &p));
  *out = mn_gguf_load32(p);
  return MN_OK;
}

static mn_status take64(cursor *c, const char *field, uint64_t *out) {
  const uint8_t *p = NULL;
  MN_TRY(take(c, 8, field, &p));
  *out = mn_gguf_load64(p);
  return MN_OK;
}

/* How many things follow, each of `least` bytes at least. */
static mn_status take_count(cursor *c, const char *field, size_t least, size_t most, size_t *out) {
  uint64_t n = 0;
  MN_TRY(take64(c, field, &n));
  size_t left = c->g->size - c->at;
  if (n > left / least || n > most)
    return fault(c, "%s is %llu, but the %zu bytes that are left cannot hold so many; " DAMAGED, field, (unsigned long long)n, left);
  *out = (size_t)n;
  return MN_OK;
}

static mn_status take_string(cursor *c, const char *field, const uint8_t **data, size_t *n) {
  uint64_t length = 0;
  MN_TRY(take64(c, field, &length));
  size_t left = c->g->size - c->at;
  if (length > left) return fault(c, "%s is %llu bytes long, but %zu are left; " DAMAGED, field, (unsigned long long)length, left);
  *n = (size_t)length;
  return take(c, *n, field, data);
}

/* A key or a tensor's name: UTF-8, not empty, without a zero byte. */
static mn_status take_name(cursor *c, const char *field, const char **out) {
  const uint8_t *data = NULL;
  size_t n = 0;
  MN_TRY(take_string(c, field, &data, &n));
  if (n == 0) return fault(c, "%s is empty; " DAMAGED, field);
  if (n > NAME_LIMIT) return fault(c, "%s of %zu bytes is longer than the %d that the format allows; " DAMAGED, field, n, NAME_LIMIT);
  char *name = mn_arena_alloc(c->g->arena, n + 1);
  if (!name) return MN_ERR_MEMORY;
  memcpy(name, data, n);
  if (strlen(name) != n || mn_utf8_valid(name, n) != n) return fault(c, "%s is no text in UTF-8; " DAMAGED, field);
  *out = name;
  return MN_OK;
}

/* ---- metadata ---- */

static const struct {
  const char *name;
  size_t size;
} kinds[MN_GGUF_KINDS] = {
    [MN_GGUF_UINT8] = {"UINT8", 1},     [MN_GGUF_INT8] = {"INT8", 1},   [MN_GGUF_UINT16] = {"UINT16", 2},   [MN_GGUF_INT16] = {"INT16", 2},
    [MN_GGUF_UINT32] = {"UINT32", 4},   [MN_GGUF_INT32] = {"INT32", 4}, [MN_GGUF_FLOAT32] = {"FLOAT32", 4}, [MN_GGUF_BOOL] = {"BOOL", 1},
    [MN_GGUF_STRING] = {"STRING", 0},   [MN_GGUF_ARRAY] = {"ARRAY", 0}, [MN_GGUF_UINT64] = {"UINT64", 8},   [MN_GGUF_INT64] = {"INT64", 8},
    [MN_GGUF_FLOAT64] = {"FLOAT64", 8},
};

const char *mn_gguf_kind_name(mn_gguf_kind kind) { return (unsigned)kind < MN_GGUF_KINDS ? kinds[kind].name : "unknown"; }
size_t mn_gguf_kind_size(uint32_t kind) { return kind < MN_GGUF_KINDS ? kinds[kind].size : 0; }

static mn_status take_kind(cursor *c, const char *field, mn_gguf_kind *out) {
  uint32_t kind = 0;
  MN_TRY(take32(c, field, &kind));
  if (kind >= MN_GGUF_KINDS)
    return fault(c, "%s is %u, but kinds of values end with %d (FLOAT64); " DAMAGED, field, kind, MN_GGUF_KINDS - 1);
  *out = (mn_gguf_kind)kind;
  return MN_OK;
}

static mn_status check_bools(const cursor *c, const uint8_t *data, size_t n) {
  for (size_t i = 0; i < n; i++)
    if (data[i] > 1) return fault(c, "element %zu is %d, but a BOOL is 0 or 1; " DAMAGED, i, data[i]);
  return MN_OK;
}

static mn_status take_array(cursor *c, mn_gguf_meta *m) {
  MN_TRY(take_kind(c, "the kind of its elements", &m->of));
  if (m->of == MN_GGUF_ARRAY) return fault(c, "arrays inside of arrays are not read; no writer of models makes them");
  size_t size = kinds[m->of].size, begin;
  MN_TRY(take_count(c, "the number of its elements", size ? size : 8, SIZE_MAX, &m->count));
  begin = c->at;
  m->data = c->g->bytes + begin;
  if (size) MN_TRY(take(c, m->count * size, "the array", &m->data)); /* no overflow: take_count compared it with the file */
  for (size_t i = 0; !size && i < m->count; i++) {
    const uint8_t *data;
    size_t n;
    MN_TRY(take_string(c, "a string of the array", &data, &n));
  }
  m->bytes = c->at - begin;
  return m->of == MN_GGUF_BOOL ? check_bools(c, m->data, m->count) : MN_OK;
}

static mn_status take_meta(cursor *c, int i, mn_gguf_meta *m) {
  char shown[MN_PRINTABLE];
  snprintf(c->what, sizeof c->what, "metadata entry %d", i);
  MN_TRY(take_name(c, "its key", &m->key));
  snprintf(c->what, sizeof c->what, "metadata key '%s'", mn_printable(m->key, shown));
  MN_TRY(take_kind(c, "its kind", &m->kind));
  if (m->kind == MN_GGUF_ARRAY) return take_array(c, m);
  m->of = m->kind;
  m->count = 1;
  m->bytes = kinds[m->kind].size;
  if (m->kind == MN_GGUF_STRING) {
    MN_TRY(take_string(c, "its string", &m->data, &m->bytes));
    m->count = m->bytes;
    return MN_OK;
  }
  MN_TRY(take(c, m->bytes, "its value", &m->data));
  return m->kind == MN_GGUF_BOOL ? check_bools(c, m->data, 1) : MN_OK;
}

static int by_key(const void *a, const void *b) {
  return strcmp((*(const mn_gguf_meta *const *)a)->key, (*(const mn_gguf_meta *const *)b)->key);
}

static mn_status read_metas(cursor *c, size_t n) {
  mn_gguf *g = c->g;
  g->metas = mn_arena_alloc(g->arena, n * sizeof *g->metas);
  g->by_key = mn_arena_alloc(g->arena, n * sizeof *g->by_key);
  if (!g->metas || !g->by_key) return MN_ERR_MEMORY;
  for (size_t i = 0; i < n; i++) {
    MN_TRY(take_meta(c, (int)i, &g->metas[i]));
    g->by_key[i] = &g->metas[i];
  }
  if (n) qsort(g->by_key, n, sizeof *g->by_key, by_key);
  g->meta_count = (int)n;
  char shown[MN_PRINTABLE];
  for (size_t i = 1; i < n; i++)
    if (!strcmp(g->by_key[i - 1]->key, g->by_key[i]->key))
      return mn_fail(MN_ERR_FORMAT, "%s: the metadata key '%s' is there twice", g->path, mn_printable(g->by_key[i]->key, shown));
  return MN_OK;
}

/* What the metadata says of the file itself. */
static mn_status read_layout(mn_gguf *g) {
  const uint32_t usual = MN_GGUF_ALIGNMENT;
  uint32_t alignment = 0;
  MN_TRY(mn_gguf_u32(g, "general.alignment", &usual, &alignment));
  if (alignment < 8 || (alignment & (alignment - 1)))
    return mn_fail(MN_ERR_FORMAT, "%s: metadata key 'general.alignment' is %u, but must be a power of two, 8 or more", g->path, alignment);
  g->alignment = alignment;
  return MN_OK;
}

/* ---- the list of tensors ---- */

typedef struct place { /* of a tensor's data */
  uint64_t begin, end;
  int tensor;
} place;

/* Types that are in use elsewhere and that Mneme does not read. */
static const char *unread_name(uint32_t type) {
  static const struct {
    uint32_t type;
    const char *name;
  } unread[] = {{9, "Q8_1"},   {15, "Q8_K"},  {16, "IQ2_XXS"}, {17, "IQ2_XS"}, {18, "IQ3_XXS"}, {19, "IQ1_S"}, {21, "IQ3_S"},
                {22, "IQ2_S"}, {29, "IQ1_M"}, {34, "TQ1_0"},   {35, "TQ2_0"},  {40, "NVFP4"},   {41, "Q1_0"},  {42, "Q2_0"}};
  for (size_t i = 0; i < sizeof unread / sizeof *unread; i++)
    if (unread[i].type == type) return unread[i].name;
  return "unknown";
}

static mn_status take_type(cursor *c, const mn_gguf_type_info **out) {
  uint32_t type = 0;
  MN_TRY(take32(c, "its type", &type));
  if ((*out = mn_gguf_type_find(type))) return MN_OK;
  mn_text list = {0};
  const mn_gguf_type_info *t;
  for (int i = 0; (t = mn_gguf_type_at(i)); i++) mn_text_addf(&list, "%s%s", i ? ", " : "", t->name);
  mn_status status = mn_text_status(&list);
  if (status == MN_OK)
    status = mn_fail(MN_ERR_UNSUPPORTED, "%s: byte %zu: %s: its type is number %u (%s), which Mneme does not read; it reads %s", c->g->path,
                     c->at - 4, c->what, type, unread_name(type), list.data);
  mn_text_free(&list);
  return status;
}

static mn_status take_shape(cursor *c, mn_shape *shape) {
  uint32_t ndim = 0;
  MN_TRY(take32(c, "its number of dimensions", &ndim));
  if (ndim > DIMS_LIMIT) return fault(c, "it has %u dimensions, but the format allows %d; " DAMAGED, ndim, DIMS_LIMIT);
  shape->ndim = (int)ndim;
  for (int i = shape->ndim - 1; i >= 0; i--) {
    uint64_t dim = 0;
    MN_TRY(take64(c, "a dimension", &dim));
    if (dim > INT64_MAX) return fault(c, "dimension %d is %llu, which is impossible; " DAMAGED, i, (unsigned long long)dim);
    shape->dim[i] = (int64_t)dim;
  }
  return MN_OK;
}

/* What the blocks need. */
static mn_status size_of(const cursor *c, mn_gguf_tensor *t) {
  const mn_shape *s = &t->shape;
  int64_t width = s->ndim ? s->dim[s->ndim - 1] : 1;
  char text[96];
  if (width % t->type->block)
    return fault(c, "%s: its rows have %lld elements, but %s needs a multiple of %d; " DAMAGED, mn_shape_str(s, text), (long long)width,
                 t->type->name, t->type->block);
  size_t elements = 1, bytes = (size_t)t->type->bytes;
  bool fits = mn_size_mul(bytes, (size_t)(width / t->type->block), &bytes) && bytes <= INT64_MAX;
  for (int i = 0; i < s->ndim; i++) {
    fits = fits && mn_size_mul(elements, (size_t)s->dim[i], &elements) && elements <= INT64_MAX;
    if (i < s->ndim - 1) fits = fits && mn_size_mul(bytes, (size_t)s->dim[i], &bytes) && bytes <= INT64_MAX;
  }
  if (!fits) return fault(c, "its shape %s is larger than any memory; " DAMAGED, mn_shape_str(s, text));
  t->bytes = bytes;
  return MN_OK;
}

static mn_status take_tensor(cursor *c, int i, mn_gguf_tensor *t, place *p) {
  char shown[MN_PRINTABLE];
  uint64_t offset = 0;
  snprintf(c->what, sizeof c->what, "tensor %d", i);
  MN_TRY(take_name(c, "its name", &t->name));
  snprintf(c->what, sizeof c->what, "tensor '%s'", mn_printable(t->name, shown));
  MN_TRY(take_shape(c, &t->shape));
  MN_TRY(take_type(c, &t->type));
  MN_TRY(take64(c, "its offset", &offset));
  MN_TRY(size_of(c, t));
  if (offset % c->g->alignment)
    return fault(c, "its offset %llu is no multiple of the alignment %zu; " DAMAGED, (unsigned long long)offset, c->g->alignment);
  *p = (place){.begin = offset, .tensor = i};
  if (__builtin_add_overflow(offset, (uint64_t)t->bytes, &p->end))
    return fault(c, "its offset %llu lies outside of any file; " DAMAGED, (unsigned long long)offset);
  return MN_OK;
}

static int by_name(const void *a, const void *b) {
  return strcmp((*(const mn_gguf_tensor *const *)a)->name, (*(const mn_gguf_tensor *const *)b)->name);
}

static int by_begin(const void *a, const void *b) { /* empty tensors before the one that begins at their place */
  const place *x = a, *y = b;
  if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
  if (x->end != y->end) return x->end < y->end ? -1 : 1;
  return x->tensor - y->tensor;
}

static mn_status tensor_fault(const mn_gguf *g, const mn_gguf_tensor *t, const char *fmt, ...) MN_PRINTF(3, 4);
static mn_status tensor_fault(const mn_gguf *g, const mn_gguf_tensor *t, const char *fmt, ...) {
  char why[600], shown[MN_PRINTABLE];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(why, sizeof why, fmt, ap);
  va_end(ap);
  return mn_fail(MN_ERR_FORMAT, "%s: tensor '%s': %s", g->path, mn_printable(t->name, shown), why);
}

/* Checksums of ours behind the data, which ends there, and nothing behind them. */
static bool find_checksums(mn_gguf *g, size_t end) {
  const size_t at = mn_align(end, g->alignment), need = MN_GGUF_SUMS_HEAD + ((size_t)g->count + 1) * MN_GGUF_DIGITS;
  if (at > g->size || g->size - at != need || memcmp(g->bytes + at, MN_GGUF_SUMS, sizeof MN_GGUF_SUMS) != 0 ||
      mn_gguf_load64(g->bytes + at + sizeof MN_GGUF_SUMS) != (uint64_t)g->count)
    return false;
  g->sums = g->bytes + at;
  return true;
}

/* In order, the tensors cover the data but for padding. */
static mn_status check_cover(mn_gguf *g, const place *places) {
  size_t have = g->size - g->data_at;
  uint64_t at = 0; /* where the tensor before ends */
  for (int i = 0; i < g->count; i++) {
    const place *p = &places[i];
    const mn_gguf_tensor *t = &g->tensors[p->tensor];
    if (p->end > have)
      return tensor_fault(g, t, "its bytes %llu to %llu lie outside of the %zu bytes of data; " DAMAGED, (unsigned long long)p->begin,
                          (unsigned long long)p->end, have);
    if (p->begin < at)
      return tensor_fault(g, t, "its data overlaps that of tensor '%.100s'; " DAMAGED, g->tensors[places[i - 1].tensor].name);
    if (p->begin - at >= g->alignment)
      return tensor_fault(g, t, "%llu bytes before its data belong to no tensor; " DAMAGED, (unsigned long long)(p->begin - at));
    at = p->end;
  }
  if (find_checksums(g, g->data_at + (size_t)at)) return MN_OK;
  bool padding = have <= at || have - at < g->alignment; /* zeros, and not what a cut has left of checksums */
  for (uint64_t i = at; padding && i < have; i++) padding = g->bytes[g->data_at + i] == 0;
  if (!padding)
    return mn_fail(MN_ERR_FORMAT, "%s: %llu bytes at its end belong to no tensor; " DAMAGED, g->path, (unsigned long long)(have - at));
  return MN_OK;
}

static mn_status read_list(cursor *c, size_t n, place *places) {
  mn_gguf *g = c->g;
  g->tensors = mn_arena_alloc(g->arena, n * sizeof *g->tensors);
  g->by_name = mn_arena_alloc(g->arena, n * sizeof *g->by_name);
  g->held = mn_arena_alloc(g->arena, n + 1);
  if (!g->tensors || !g->by_name || !g->held) return MN_ERR_MEMORY;
  for (size_t i = 0; i < n; i++) {
    MN_TRY(take_tensor(c, (int)i, &g->tensors[i], &places[i]));
    g->by_name[i] = &g->tensors[i];
  }
  g->count = (int)n;
  if (n) qsort(g->by_name, n, sizeof *g->by_name, by_name);
  for (size_t i = 1; i < n; i++)
    if (!strcmp(g->by_name[i - 1]->name, g->by_name[i]->name)) return tensor_fault(g, g->by_name[i], "its name is there twice; " DAMAGED);
  g->data_at = mn_align(c->at, g->alignment);
  if (g->data_at > g->size) g->data_at = g->size; /* a file without data may end before its padding */
  for (size_t i = 0; i < n; i++)
    g->tensors[i].data = places[i].begin <= g->size - g->data_at ? g->bytes + g->data_at + places[i].begin : NULL;
  if (n) qsort(places, n, sizeof *places, by_begin);
  return check_cover(g, places);
}

/* ---- checksums ---- */

static mn_status read_checksums(mn_gguf *g, size_t header) {
  if (!g->sums) return MN_OK;
  const size_t before = MN_GGUF_SUMS_HEAD + (size_t)g->count * MN_GGUF_DIGITS;
  mn_hasher *h = mn_hasher_new();
  if (!h) return MN_ERR_MEMORY;
  mn_hasher_add(h, g->bytes, header);
  mn_hasher_add(h, g->sums, before);
  mn_hasher_take(h, g->checksum);
  mn_hasher_free(h);
  if (memcmp(g->checksum, g->sums + before, MN_GGUF_DIGITS) != 0)
    return mn_fail(MN_ERR_FORMAT, "%s: the header does not match its checksum: the file is damaged; copy or make it again", g->path);
  for (int i = 0; i < g->count; i++)
    memcpy(g->tensors[i].checksum, g->sums + MN_GGUF_SUMS_HEAD + (size_t)i * MN_GGUF_DIGITS, MN_GGUF_DIGITS);
  return MN_OK;
}

mn_status mn_gguf_intact(const mn_gguf *g) { return mn_map_check(&g->map); }

mn_status mn_gguf_check(const mn_gguf *g, const mn_gguf_tensor *t) {
  enum { PIECE = 1 << 20 };
  bool *held = &g->held[t - g->tensors];
  char hex[MN_HASH_HEX];
  if (!t->checksum[0] || __atomic_load_n(held, __ATOMIC_RELAXED)) return MN_OK;
  mn_hasher *h = mn_hasher_new();
  if (!h) return MN_ERR_MEMORY;
  mn_status status = MN_OK;
  for (size_t at = 0; at < t->bytes && status == MN_OK; at += PIECE) {
    status = mn_stop_check("reading a file of tensors");
    mn_hasher_add(h, (const char *)t->data + at, t->bytes - at < PIECE ? t->bytes - at : PIECE);
  }
  mn_hasher_take(h, hex);
  mn_hasher_free(h);
  MN_TRY(status);
  MN_TRY(mn_gguf_intact(g)); /* zeros in place of what is gone are another message */
  if (strcmp(hex, t->checksum) != 0)
    return tensor_fault(g, t, "its data does not match its checksum: the file is damaged; copy or make it again");
  __atomic_store_n(held, true, __ATOMIC_RELAXED); /* several threads may read one file */
  return MN_OK;
}

/* ---- the whole ---- */

static mn_status read_version(cursor *c) {
  uint32_t version = 0;
  snprintf(c->what, sizeof c->what, "the header");
  if (!mn_gguf_is(c->g->bytes, c->g->size))
    return mn_fail(MN_ERR_FORMAT, "%s: does not begin with 'GGUF'; this is no GGUF file", c->g->path);
  c->at = 4;
  MN_TRY(take32(c, "the version", &version));
  if (version && !(version & 0xFFFF))
    return mn_fail(MN_ERR_UNSUPPORTED,
                   "%s: a big-endian GGUF file (version %u); Mneme reads little-endian ones: convert it with gguf-convert-endian",
                   c->g->path, __builtin_bswap32(version));
  if (version != 2 && version != 3)
    return mn_fail(MN_ERR_UNSUPPORTED, "%s: GGUF version %u; Mneme reads 2 and 3%s", c->g->path, version,
                   version == 1 ? ": convert the model again with a newer program" : "");
  c->g->version = version;
  return MN_OK;
}

static mn_status read_all(mn_gguf *g) {
  cursor c = {.g = g};
  size_t tensors = 0, metas = 0;
  MN_TRY(read_version(&c));
  MN_TRY(take_count(&c, "the number of tensors", TENSOR_LEAST, INT_MAX, &tensors));
  MN_TRY(take_count(&c, "the number of metadata entries", META_LEAST, INT_MAX, &metas));
  MN_TRY(read_metas(&c, metas));
  MN_TRY(read_layout(g));
  place *places = mn_alloc((tensors + 1) * sizeof *places);
  if (!places) return MN_ERR_MEMORY;
  mn_status status = read_list(&c, tensors, places);
  free(places);
  return status == MN_OK ? read_checksums(g, c.at) : status;
}

static mn_status open_over(const char *path, mn_map map, const void *data, size_t n, mn_gguf **out) {
  mn_status status = MN_ERR_MEMORY;
  mn_gguf *g = mn_calloc(1, sizeof *g);
  if (g) {
    g->map = map;
    g->bytes = data;
    g->size = n;
    g->arena = mn_arena_new();
    g->path = g->arena ? mn_arena_strdup(g->arena, path) : NULL;
    if (g->path) status = read_all(g);
    mn_status intact = mn_gguf_intact(g);
    if (intact != MN_OK) status = intact;
  } else mn_map_close(&map);
  if (status == MN_OK) *out = g;
  else mn_gguf_close(g);
  return status;
}

mn_status mn_gguf_open(const char *path, mn_gguf **out) {
  mn_map map;
  *out = NULL;
  MN_TRY(mn_map_open(path, &map));
  return open_over(path, map, map.data, map.size, out);
}

mn_status mn_gguf_open_bytes(const char *name, const void *data, size_t n, mn_gguf **out) {
  *out = NULL;
  return open_over(name, (mn_map){0}, data, n, out);
}

void mn_gguf_close(mn_gguf *g) {
  if (!g) return;
  mn_map_close(&g->map);
  if (g->arena) mn_arena_free(g->arena);
  free(g);
}

/* ---- asking ---- */

const char *mn_gguf_path(const mn_gguf *g) { return g->path; }
uint32_t mn_gguf_version(const mn_gguf *g) { return g->version; }
size_t mn_gguf_alignment(const mn_gguf *g) { return g->alignment; }
const char *mn_gguf_checksum(const mn_gguf *g) { return g->sums ? g->checksum : NULL; }
int mn_gguf_count(const mn_gguf *g) { return g->count; }
const mn_gguf_tensor *mn_gguf_at(const mn_gguf *g, int i) { return i >= 0 && i < g->count ? &g->tensors[i] : NULL; }

const mn_gguf_tensor *mn_gguf_find(const mn_gguf *g, const char *name) {
  const mn_gguf_tensor wanted = {.name = name}, *key = &wanted;
  const mn_gguf_tensor **at = g->count ? bsearch(&key, g->by_name, (size_t)g->count, sizeof *g->by_name, by_name) : NULL;
  return at ? *at : NULL;
}

int mn_gguf_meta_count(const mn_gguf *g) { return g->meta_count; }
const mn_gguf_meta *mn_gguf_meta_at(const mn_gguf *g, int i) { return i >= 0 && i < g->meta_count ? &g->metas[i] : NULL; }

const mn_gguf_meta *mn_gguf_meta_find(const mn_gguf *g, const char *key) {
  const mn_gguf_meta wanted = {.key = key}, *at_key = &wanted;
  const mn_gguf_meta **at = g->meta_count ? bsearch(&at_key, g->by_key, (size_t)g->meta_count, sizeof *g->by_key, by_key) : NULL;
  return at ? *at : NULL;
}
