/* safetensors_write.c - writing: the list is gathered, then header and data go out in one pass. Tensors of wider types come
 * first (otherwise in the order they were added), so that every one of them is aligned in the file. Checksums are made of
 * the data on its way out; their places in the header, of a fixed size, are filled in before the file takes its name. */
#include "base/file.h"
#include "base/text.h"
#include "format/json.h"
#include "format/named_items.h"
#include "format/safetensors.h"
#include "format/safetensors_sums.h"

#include <stdlib.h>
#include <string.h>

enum { PIECE = 1 << 20 }; /* bytes asked of a source at once */

static const struct {
  const char *name;
  size_t size;
} written_as[MN_ALL_TYPES] = {
    [MN_F32] = {"F32", 4},   [MN_F64] = {"F64", 8}, [MN_BF16] = {"BF16", 2},        [MN_I32] = {"I32", 4},   [MN_I64] = {"I64", 8},
    [MN_BOOL] = {"BOOL", 1}, [MN_F16] = {"F16", 2}, [MN_STORED_BF16] = {"BF16", 2}, [MN_DTYPES] = {"U8", 1},
};

typedef struct item {
  const char *name;
  mn_dtype dtype;
  mn_shape shape;
  size_t bytes;
  const void *data; /* or */
  mn_st_source source;
  void *ctx;
} item;

struct mn_st_writer {
  mn_arena *arena;
  item *items;
  size_t count, cap;
  const char **meta; /* key, value, key, value ... */
  size_t meta_count, meta_cap;
  char checksum[MN_HASH_HEX]; /* of the file that was saved last */
};

mn_st_writer *mn_st_writer_new(void) {
  mn_st_writer *w = mn_calloc(1, sizeof *w);
  if (w && !(w->arena = mn_arena_new())) {
    free(w);
    return NULL;
  }
  return w;
}

void mn_st_writer_free(mn_st_writer *w) {
  if (!w) return;
  mn_arena_free(w->arena);
  free(w->items);
  free(w->meta);
  free(w);
}

/* Room for one more element of `size` bytes. */
static mn_status check_name(const char *name, const char *what) {
  char shown[MN_PRINTABLE];
  if (mn_utf8_valid(name, strlen(name)) == strlen(name)) return MN_OK;
  return mn_fail(MN_ERR_ARG, "%s '%s' is not valid UTF-8", what, mn_printable(name, shown));
}

mn_status mn_st_writer_meta(mn_st_writer *w, const char *key, const char *value) {
  MN_TRY(check_name(key, "the metadata key"));
  MN_TRY(check_name(value, "the metadata value"));
  if (!strcmp(key, MN_ST_SUMS) || !strcmp(key, MN_ST_SELF)) return mn_fail(MN_ERR_ARG, "the metadata key '%s' is kept for checksums", key);
  for (size_t i = 0; i < w->meta_count; i++)
    if (!strcmp(w->meta[2 * i], key)) return mn_fail(MN_ERR_ARG, "the metadata key '%s' is given twice", key);
  void *meta = w->meta;
  mn_status status = mn_items_room(&meta, w->meta_count, &w->meta_cap, 2 * sizeof *w->meta);
  w->meta = meta;
  MN_TRY(status);
  w->meta[2 * w->meta_count] = mn_arena_strdup(w->arena, key);
  w->meta[2 * w->meta_count + 1] = mn_arena_strdup(w->arena, value);
  if (!w->meta[2 * w->meta_count] || !w->meta[2 * w->meta_count + 1]) return MN_ERR_MEMORY;
  w->meta_count++;
  return MN_OK;
}

static mn_status add(mn_st_writer *w, const char *name, mn_dtype dtype, const mn_shape *shape, item it) {
  if (!*name || !strcmp(name, "__metadata__")) return mn_fail(MN_ERR_ARG, "'%s' is no name for a tensor", name);
  MN_TRY(check_name(name, "the tensor name"));
  if (mn_block_values(dtype) > 1)
    return mn_fail(MN_ERR_UNSUPPORTED,
                   "tensor '%s' is kept in blocks (%s), which our safetensors files do not hold: write a GGUF file (mneme convert)", name,
                   mn_dtype_name(dtype));
  if (dtype < 0 || dtype >= MN_ALL_TYPES || !written_as[dtype].name || shape->ndim < 0 || shape->ndim > MN_MAX_DIMS)
    return mn_fail(MN_ERR_ARG, "tensor '%s' has no type or shape that can be written", name);
  it.bytes = written_as[dtype].size;
  for (int i = 0; i < shape->ndim; i++)
    if (shape->dim[i] < 0 || !mn_size_mul(it.bytes, (size_t)shape->dim[i], &it.bytes) || it.bytes > INT64_MAX)
      return mn_fail(MN_ERR_ARG, "tensor '%s': dimension %d is impossible", name, i);
  if (it.bytes && !it.data && !it.source) return mn_fail(MN_ERR_ARG, "tensor '%s' has no data", name);
  void *items = w->items;
  mn_status status = mn_items_room(&items, w->count, &w->cap, sizeof *w->items);
  w->items = items;
  MN_TRY(status);
  it.name = mn_arena_strdup(w->arena, name);
  it.dtype = dtype;
  it.shape = *shape;
  if (!it.name) return MN_ERR_MEMORY;
  w->items[w->count++] = it;
  return MN_OK;
}

mn_status mn_st_writer_add(mn_st_writer *w, const char *name, mn_dtype dtype, const mn_shape *shape, const void *data) {
  return add(w, name, dtype, shape, (item){.data = data});
}

mn_status mn_st_writer_add_source(mn_st_writer *w, const char *name, mn_dtype dtype, const mn_shape *shape, mn_st_source source,
                                  void *ctx) {
  return add(w, name, dtype, shape, (item){.source = source, .ctx = ctx});
}

static const char *name_at(const void *writer, size_t i) { return ((const mn_st_writer *)writer)->items[i].name; }

/* Calls fn for every tensor in the order of the file: wider types first. */
typedef mn_status (*visitor)(const item *it, void *ctx);
static mn_status visit(const mn_st_writer *w, visitor fn, void *ctx) {
  for (size_t size = 8; size >= 1; size /= 2)
    for (size_t i = 0; i < w->count; i++)
      if (written_as[w->items[i].dtype].size == size) MN_TRY(fn(&w->items[i], ctx));
  return MN_OK;
}

typedef struct header {
  mn_text text;
  size_t offset;
  size_t sums, self; /* where the checksums stand in the text */
} header;

static mn_status describe(const item *it, void *ctx) {
  header *h = ctx;
  size_t end;
  if (!mn_size_add(h->offset, it->bytes, &end) || end > INT64_MAX)
    return mn_fail(MN_ERR_ARG, "tensor '%s': the tensors together are larger than any file", it->name);
  mn_text_add(&h->text, ",");
  mn_json_quote(&h->text, it->name);
  mn_text_addf(&h->text, ":{\"dtype\":\"%s\",\"shape\":[", written_as[it->dtype].name);
  for (int i = 0; i < it->shape.ndim; i++) mn_text_addf(&h->text, "%s%lld", i ? "," : "", (long long)it->shape.dim[i]);
  mn_text_addf(&h->text, "],\"data_offsets\":[%zu,%zu]}", h->offset, end);
  h->offset = end;
  return MN_OK;
}

/* A metadata entry of `n` zeros; the place of the first of them. */
static size_t zeros(mn_text *t, const char *key, size_t n) {
  mn_text_addf(t, "\"%s\":\"", key);
  size_t at = t->len;
  for (size_t i = 0; i < n; i++) mn_text_add(t, "0");
  mn_text_add(t, "\"");
  return at;
}

static mn_status make_header(const mn_st_writer *w, header *out) {
  header h = {0};
  mn_text_add(&h.text, "{\"__metadata__\":{");
  for (size_t i = 0; i < w->meta_count; i++) {
    mn_json_quote(&h.text, w->meta[2 * i]);
    mn_text_add(&h.text, ":");
    mn_json_quote(&h.text, w->meta[2 * i + 1]);
    mn_text_add(&h.text, ",");
  }
  h.sums = zeros(&h.text, MN_ST_SUMS, w->count * MN_ST_DIGITS);
  mn_text_add(&h.text, ",");
  h.self = zeros(&h.text, MN_ST_SELF, MN_ST_DIGITS);
  mn_text_add(&h.text, "}");
  mn_status status = visit(w, describe, &h);
  mn_text_add(&h.text, "}");
  /* The data begins at a multiple of 64, counting the 8 bytes before the header: so wide vectors are read where the file is mapped. */
  while ((8 + h.text.len) % 64 != 0 && !h.text.failed) mn_text_add(&h.text, " ");
  if (status == MN_OK) status = mn_text_status(&h.text);
  if (status == MN_OK && h.text.len > 100000000)
    status = mn_fail(MN_ERR_ARG, "a header of %zu bytes is beyond the format's limit of 100 MB", h.text.len);
  if (status == MN_OK) *out = h;
  else mn_text_free(&h.text);
  return status;
}

typedef struct output {
  mn_file_writer *file;
  mn_hasher *hasher;
  char *sum;   /* where the next tensor's checksum goes */
  void *piece; /* made when the first source is met */
} output;

static mn_status write_data(const item *it, void *ctx) {
  output *o = ctx;
  if (it->source && !o->piece && !(o->piece = mn_alloc(PIECE))) return MN_ERR_MEMORY;
  for (size_t at = 0; at < it->bytes; at += PIECE) {
    size_t n = it->bytes - at < PIECE ? it->bytes - at : PIECE;
    const void *data = it->source ? o->piece : (const char *)it->data + at;
    mn_status status = it->source ? it->source(it->ctx, at, n, o->piece) : MN_OK;
    if (status != MN_OK) return mn_context(status, "tensor '%s'", it->name);
    mn_hasher_add(o->hasher, data, n);
    MN_TRY(mn_file_writer_append(o->file, data, n));
  }
  char hex[MN_HASH_HEX];
  mn_hasher_take(o->hasher, hex);
  memcpy(o->sum, hex, MN_ST_DIGITS);
  o->sum += MN_ST_DIGITS;
  return MN_OK;
}

static mn_status write_file(mn_st_writer *w, header *h, output *o) {
  uint8_t length[8];
  for (int i = 0; i < 8; i++) length[i] = (uint8_t)((uint64_t)h->text.len >> 8 * i);
  MN_TRY(mn_file_writer_append(o->file, length, 8));
  MN_TRY(mn_file_writer_append(o->file, h->text.data, h->text.len));
  o->sum = h->text.data + h->sums;
  MN_TRY(visit(w, write_data, o));
  mn_content_hash(h->text.data, h->text.len, w->checksum);
  memcpy(h->text.data + h->self, w->checksum, MN_ST_DIGITS);
  return mn_file_writer_replace(o->file, 8, h->text.data, h->text.len);
}

mn_status mn_st_writer_save(mn_st_writer *w, const char *path) { return mn_st_writer_save_over(w, path, NULL); }

mn_status mn_st_writer_save_over(mn_st_writer *w, const char *path, mn_file_stamp *stamp) {
  header h;
  output o = {0};
  MN_TRY(mn_items_differ(w->count, name_at, w));
  MN_TRY(make_header(w, &h));
  mn_status status = (o.hasher = mn_hasher_new()) ? mn_file_writer_open(path, &o.file) : MN_ERR_MEMORY;
  if (status == MN_OK) {
    mn_file_writer_expect(o.file, stamp);
    status = write_file(w, &h, &o);
    if (status == MN_OK) status = mn_file_writer_commit(o.file);
    else mn_file_writer_abort(o.file);
  }
  free(o.piece);
  mn_hasher_free(o.hasher);
  mn_text_free(&h.text);
  return status;
}

const char *mn_st_writer_checksum(const mn_st_writer *w) { return w->checksum; }
