/* gguf_write.c - writing: metadata and the list of tensors are gathered, then header and data go out in one pass, and behind
 * them the checksums that were made of both on their way. */
#include "format/gguf.h"

#include "format/gguf_internal.h"
#include "format/named_items.h"

#include <stdlib.h>
#include <string.h>

enum {
  PIECE = 1 << 20, /* bytes asked of a source at once, about */
  NAME_LIMIT = 63, /* bytes of a tensor's name that other programs hold */
  KEY_LIMIT = 65535,
  DIMS_LIMIT = 4,
};

typedef struct item {
  const char *name;
  const mn_gguf_type_info *type;
  mn_shape shape;
  size_t bytes, offset;
  const void *data; /* or */
  mn_gguf_source source;
  void *ctx;
} item;

struct mn_gguf_writer {
  mn_arena *arena;
  mn_text metas; /* as they go into the file */
  const char **keys;
  size_t meta_count, meta_cap;
  item *items;
  size_t count, cap;
  uint32_t alignment;
};

mn_gguf_writer *mn_gguf_writer_new(void) {
  mn_gguf_writer *w = mn_calloc(1, sizeof *w);
  if (w && !(w->arena = mn_arena_new())) {
    free(w);
    return NULL;
  }
  if (w) w->alignment = MN_GGUF_ALIGNMENT;
  return w;
}

void mn_gguf_writer_free(mn_gguf_writer *w) {
  if (!w) return;
  mn_arena_free(w->arena);
  mn_text_free(&w->metas);
  free(w->keys);
  free(w->items);
  free(w);
}

/* Room for one more element of `size` bytes. */
static mn_status check_name(const char *name, const char *what, size_t limit) {
  char shown[MN_PRINTABLE];
  size_t n = strlen(name);
  if (n == 0) return mn_fail(MN_ERR_ARG, "%s is empty", what);
  if (n > limit)
    return mn_fail(MN_ERR_ARG, "%s '%s' is longer than %zu bytes, the most that GGUF files hold", what, mn_printable(name, shown), limit);
  if (mn_utf8_valid(name, n) != n) return mn_fail(MN_ERR_ARG, "%s '%s' is not valid UTF-8", what, mn_printable(name, shown));
  return MN_OK;
}

/* ---- metadata ---- */

static void put32(mn_text *t, uint32_t v) { mn_text_add_bytes(t, &v, 4); }
static void put64(mn_text *t, uint64_t v) { mn_text_add_bytes(t, &v, 8); }

static void put_string(mn_text *t, const void *s, size_t n) {
  put64(t, n);
  mn_text_add_bytes(t, s, n);
}

/* The entry's key and kind; its value follows. */
static mn_status begin(mn_gguf_writer *w, const char *key, mn_gguf_kind kind) {
  MN_TRY(check_name(key, "the metadata key", KEY_LIMIT));
  for (size_t i = 0; i < w->meta_count; i++)
    if (!strcmp(w->keys[i], key)) return mn_fail(MN_ERR_ARG, "the metadata key '%s' is given twice", key);
  if (!strcmp(key, "general.alignment") && kind != MN_GGUF_UINT32)
    return mn_fail(MN_ERR_ARG, "the metadata key 'general.alignment' must be of the kind UINT32");
  void *keys = w->keys;
  mn_status status = mn_items_room(&keys, w->meta_count, &w->meta_cap, sizeof *w->keys);
  w->keys = keys;
  MN_TRY(status);
  if (!(w->keys[w->meta_count] = mn_arena_strdup(w->arena, key))) return MN_ERR_MEMORY;
  w->meta_count++;
  put_string(&w->metas, key, strlen(key));
  put32(&w->metas, (uint32_t)kind);
  return mn_text_status(&w->metas);
}

static mn_status value(mn_gguf_writer *w, const char *key, mn_gguf_kind kind, const void *data, size_t n) {
  MN_TRY(begin(w, key, kind));
  mn_text_add_bytes(&w->metas, data, n);
  return mn_text_status(&w->metas);
}

static mn_status array(mn_gguf_writer *w, const char *key, mn_gguf_kind of, size_t count, const void *data, size_t n) {
  MN_TRY(begin(w, key, MN_GGUF_ARRAY));
  put32(&w->metas, (uint32_t)of);
  put64(&w->metas, count);
  if (n) mn_text_add_bytes(&w->metas, data, n);
  return mn_text_status(&w->metas);
}

mn_status mn_gguf_writer_u32(mn_gguf_writer *w, const char *key, uint32_t v) {
  bool layout = !strcmp(key, "general.alignment");
  if (layout && (v < 8 || (v & (v - 1)))) return mn_fail(MN_ERR_ARG, "general.alignment is %u, but must be a power of two, 8 or more", v);
  MN_TRY(value(w, key, MN_GGUF_UINT32, &v, 4));
  if (layout) w->alignment = v;
  return MN_OK;
}

mn_status mn_gguf_writer_u64(mn_gguf_writer *w, const char *key, uint64_t v) { return value(w, key, MN_GGUF_UINT64, &v, 8); }
mn_status mn_gguf_writer_i32(mn_gguf_writer *w, const char *key, int32_t v) { return value(w, key, MN_GGUF_INT32, &v, 4); }
mn_status mn_gguf_writer_f32(mn_gguf_writer *w, const char *key, float v) { return value(w, key, MN_GGUF_FLOAT32, &v, 4); }

mn_status mn_gguf_writer_bool(mn_gguf_writer *w, const char *key, bool v) {
  const uint8_t byte = v ? 1 : 0;
  return value(w, key, MN_GGUF_BOOL, &byte, 1);
}

mn_status mn_gguf_writer_string(mn_gguf_writer *w, const char *key, const char *v) {
  MN_TRY(begin(w, key, MN_GGUF_STRING));
  put_string(&w->metas, v, strlen(v));
  return mn_text_status(&w->metas);
}

mn_status mn_gguf_writer_strings(mn_gguf_writer *w, const char *key, const mn_gguf_bytes *values, size_t n) {
  MN_TRY(array(w, key, MN_GGUF_STRING, n, NULL, 0));
  for (size_t i = 0; i < n; i++) put_string(&w->metas, values[i].data, values[i].n);
  return mn_text_status(&w->metas);
}

mn_status mn_gguf_writer_i32s(mn_gguf_writer *w, const char *key, const int32_t *values, size_t n) {
  return array(w, key, MN_GGUF_INT32, n, values, n * sizeof *values);
}

mn_status mn_gguf_writer_f32s(mn_gguf_writer *w, const char *key, const float *values, size_t n) {
  return array(w, key, MN_GGUF_FLOAT32, n, values, n * sizeof *values);
}

mn_status mn_gguf_writer_bools(mn_gguf_writer *w, const char *key, const bool *values, size_t n) {
  MN_TRY(array(w, key, MN_GGUF_BOOL, n, NULL, 0));
  for (size_t i = 0; i < n; i++) mn_text_add_bytes(&w->metas, values[i] ? "\1" : "\0", 1);
  return mn_text_status(&w->metas);
}

mn_status mn_gguf_writer_copy(mn_gguf_writer *w, const mn_gguf_meta *m) {
  if (m->kind == MN_GGUF_ARRAY) return array(w, m->key, m->of, m->count, m->data, m->bytes);
  if (m->kind == MN_GGUF_UINT32) return mn_gguf_writer_u32(w, m->key, mn_gguf_load32(m->data));
  if (m->kind != MN_GGUF_STRING) return value(w, m->key, m->kind, m->data, m->bytes);
  MN_TRY(begin(w, m->key, MN_GGUF_STRING));
  put_string(&w->metas, m->data, m->bytes);
  return mn_text_status(&w->metas);
}

/* ---- tensors ---- */

static mn_status size_of(const char *name, const mn_gguf_type_info *type, const mn_shape *shape, size_t *bytes) {
  int64_t width = shape->ndim ? shape->dim[shape->ndim - 1] : 1;
  char text[96];
  bool fits = true;
  *bytes = (size_t)type->bytes;
  if (width < 0 || width % type->block)
    return mn_fail(MN_ERR_ARG, "tensor '%s' %s: rows of %lld elements have no form in %s, which needs a multiple of %d", name,
                   mn_shape_str(shape, text), (long long)width, type->name, type->block);
  for (int i = 0; i < shape->ndim; i++) {
    int64_t n = i == shape->ndim - 1 ? width / type->block : shape->dim[i];
    fits = fits && n >= 0 && mn_size_mul(*bytes, (size_t)n, bytes) && *bytes <= INT64_MAX / 2;
  }
  return fits ? MN_OK : mn_fail(MN_ERR_ARG, "tensor '%s': the shape %s is impossible", name, mn_shape_str(shape, text));
}

static mn_status add(mn_gguf_writer *w, const char *name, mn_gguf_type type, const mn_shape *shape, item it) {
  MN_TRY(check_name(name, "the tensor name", NAME_LIMIT));
  if (!(it.type = mn_gguf_type_find((uint32_t)type))) return mn_fail(MN_ERR_ARG, "tensor '%s' has no type that can be written", name);
  if (shape->ndim < 0 || shape->ndim > DIMS_LIMIT)
    return mn_fail(MN_ERR_ARG, "tensor '%s' has %d dimensions; a GGUF file holds %d at most", name, shape->ndim, DIMS_LIMIT);
  MN_TRY(size_of(name, it.type, shape, &it.bytes));
  if (it.bytes && !it.data && !it.source) return mn_fail(MN_ERR_ARG, "tensor '%s' has no data", name);
  void *items = w->items;
  mn_status status = mn_items_room(&items, w->count, &w->cap, sizeof *w->items);
  w->items = items;
  MN_TRY(status);
  it.shape = *shape;
  if (!(it.name = mn_arena_strdup(w->arena, name))) return MN_ERR_MEMORY;
  w->items[w->count++] = it;
  return MN_OK;
}

mn_status mn_gguf_writer_add(mn_gguf_writer *w, const char *name, mn_gguf_type type, const mn_shape *shape, const void *data) {
  return add(w, name, type, shape, (item){.data = data});
}

mn_status mn_gguf_writer_add_source(mn_gguf_writer *w, const char *name, mn_gguf_type type, const mn_shape *shape, mn_gguf_source source,
                                    void *ctx) {
  return add(w, name, type, shape, (item){.source = source, .ctx = ctx});
}

static const char *name_at(const void *writer, size_t i) { return ((const mn_gguf_writer *)writer)->items[i].name; }

/* ---- the file ---- */

static mn_status make_header(mn_gguf_writer *w, mn_text *t) {
  mn_text_add(t, "GGUF");
  put32(t, 3);
  put64(t, w->count);
  put64(t, w->meta_count);
  if (w->metas.len) mn_text_add_bytes(t, w->metas.data, w->metas.len);
  size_t offset = 0;
  for (size_t i = 0; i < w->count; i++) {
    item *it = &w->items[i];
    put_string(t, it->name, strlen(it->name));
    put32(t, (uint32_t)it->shape.ndim);
    for (int d = it->shape.ndim - 1; d >= 0; d--) put64(t, (uint64_t)it->shape.dim[d]);
    put32(t, (uint32_t)it->type->type);
    put64(t, offset);
    it->offset = offset;
    offset = mn_align(offset + it->bytes, w->alignment); /* both below INT64_MAX / 2 */
    if (offset > INT64_MAX / 2) return mn_fail(MN_ERR_ARG, "tensor '%s': the tensors together are larger than any file", it->name);
  }
  return mn_text_status(t);
}

typedef struct output {
  mn_file_writer *file;
  mn_hasher *hasher;
  uint8_t *piece, *padding;
} output;

static mn_status pad(output *o, size_t at, size_t alignment) {
  size_t n = mn_align(at, alignment) - at;
  return n ? mn_file_writer_append(o->file, o->padding, n) : MN_OK;
}

static mn_status write_data(output *o, const item *it, mn_text *sums) {
  size_t block = (size_t)it->type->bytes, piece = PIECE / block * block;
  for (size_t at = 0; at < it->bytes; at += piece) {
    size_t n = it->bytes - at < piece ? it->bytes - at : piece;
    const void *data = it->source ? o->piece : (const uint8_t *)it->data + at;
    mn_status status = it->source ? it->source(it->ctx, at, n, o->piece) : mn_stop_check("writing a file of tensors");
    if (status != MN_OK) return mn_context(status, "tensor '%s'", it->name);
    mn_hasher_add(o->hasher, data, n);
    MN_TRY(mn_file_writer_append(o->file, data, n));
  }
  char hex[MN_HASH_HEX];
  mn_hasher_take(o->hasher, hex);
  mn_text_add_bytes(sums, hex, MN_GGUF_DIGITS);
  return mn_text_status(sums);
}

static mn_status write_file(mn_gguf_writer *w, const mn_text *header, mn_text *sums, output *o) {
  char hex[MN_HASH_HEX];
  MN_TRY(mn_file_writer_append(o->file, header->data, header->len));
  MN_TRY(pad(o, header->len, w->alignment));
  mn_text_add_bytes(sums, MN_GGUF_SUMS, sizeof MN_GGUF_SUMS);
  put64(sums, w->count);
  for (size_t i = 0; i < w->count; i++) {
    MN_TRY(write_data(o, &w->items[i], sums));
    MN_TRY(pad(o, w->items[i].offset + w->items[i].bytes, w->alignment));
  }
  MN_TRY(mn_text_status(sums));
  mn_hasher_add(o->hasher, header->data, header->len);
  mn_hasher_add(o->hasher, sums->data, sums->len);
  mn_hasher_take(o->hasher, hex);
  MN_TRY(mn_file_writer_append(o->file, sums->data, sums->len));
  return mn_file_writer_append(o->file, hex, MN_GGUF_DIGITS);
}

mn_status mn_gguf_writer_save(mn_gguf_writer *w, const char *path) {
  mn_text h = {0}, sums = {0};
  output o = {0};
  MN_TRY(mn_text_status(&w->metas));
  MN_TRY(mn_items_differ(w->count, name_at, w));
  mn_status status = make_header(w, &h);
  if (status == MN_OK) {
    o.hasher = mn_hasher_new();
    o.piece = mn_alloc(PIECE);
    o.padding = mn_calloc(1, w->alignment);
    status = o.hasher && o.piece && o.padding ? mn_file_writer_open(path, &o.file) : MN_ERR_MEMORY;
  }
  if (status == MN_OK) {
    status = write_file(w, &h, &sums, &o);
    if (status == MN_OK) status = mn_file_writer_commit(o.file);
    else mn_file_writer_abort(o.file);
  }
  free(o.piece);
  free(o.padding);
  mn_hasher_free(o.hasher);
  mn_text_free(&h);
  mn_text_free(&sums);
  return status;
}
