/* idx.c - see idx.h. A compressed file is unpacked up to what its own header says, and one byte more: no bomb gets further. */
#include "format/idx.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "base/file.h"

static const size_t limit = (size_t)1 << 31;

typedef struct reader { /* the plain bytes, whatever they lie in */
  const char *name;
  const uint8_t *bytes;
  size_t n, at;
  bool packed, ended;
  z_stream z;
} reader;

static mn_status begin(reader *r) {
  r->packed = r->n >= 2 && r->bytes[0] == 0x1f && r->bytes[1] == 0x8b;
  if (!r->packed) return MN_OK;
  if (r->n > UINT32_MAX) return mn_fail(MN_ERR_FORMAT, "%s: is larger than 4 GiB", r->name);
  r->z.next_in = (Bytef *)(uintptr_t)r->bytes;
  r->z.avail_in = (uInt)r->n;
  return inflateInit2(&r->z, 15 + 16) == Z_OK ? MN_OK : mn_fail(MN_ERR_MEMORY, "%s: no memory to unpack it", r->name);
}

/* The next n bytes; *got fewer at the end. */
static mn_status take(reader *r, void *out, size_t n, size_t *got) {
  *got = 0;
  if (!r->packed) {
    *got = n < r->n - r->at ? n : r->n - r->at;
    memcpy(out, r->bytes + r->at, *got);
    r->at += *got;
    return MN_OK;
  }
  while (*got < n && !r->ended) {
    size_t piece = n - *got < (1u << 24) ? n - *got : 1u << 24;
    r->z.next_out = (Bytef *)out + *got;
    r->z.avail_out = (uInt)piece;
    int rc = inflate(&r->z, Z_NO_FLUSH);
    size_t made = piece - r->z.avail_out;
    *got += made;
    r->ended = rc == Z_STREAM_END;
    if (r->ended && r->z.avail_in > 1 && r->z.next_in[0] == 0x1f && r->z.next_in[1] == 0x8b) /* another member (RFC 1952, 2.2) */
      r->ended = inflateReset(&r->z) != Z_OK;
    if (rc != Z_OK && rc != Z_STREAM_END && rc != Z_BUF_ERROR)
      return mn_fail(MN_ERR_FORMAT, "%s: the compressed data is damaged (%s)", r->name, r->z.msg ? r->z.msg : "no gzip");
    if (rc == Z_BUF_ERROR || (!made && rc != Z_STREAM_END)) break; /* the file ends here */
    MN_TRY(mn_stop_check("a file was unpacked"));
  }
  return MN_OK;
}

static mn_status cut_short(const reader *r, size_t said, size_t there) {
  return mn_fail(MN_ERR_FORMAT, "%s: says that it holds %zu bytes of data, but %zu are there: it is cut short; get the whole file again",
                 r->name, said, there);
}

static mn_status goes_on(const reader *r, size_t said) {
  return mn_fail(MN_ERR_FORMAT, "%s: goes on behind the %zu bytes of data that it says it holds: its sizes are wrong, or it is two files",
                 r->name, said);
}

static mn_status parse(reader *r, mn_idx *out) {
  uint8_t head[20];
  size_t got, count = 1;
  MN_TRY(take(r, head, 4, &got));
  if (got < 4 || head[0] || head[1]) return mn_fail(MN_ERR_FORMAT, "%s: is no IDX file: it does not begin with two zero bytes", r->name);
  if (head[2] != 8)
    return mn_fail(MN_ERR_FORMAT, "%s: holds elements of type 0x%02x; only unsigned bytes (0x08) are read", r->name, head[2]);
  out->ndim = head[3];
  if (out->ndim < 1 || out->ndim > 4) return mn_fail(MN_ERR_FORMAT, "%s: has %d axes; 1 to 4 are read", r->name, out->ndim);
  MN_TRY(take(r, head, 4 * (size_t)out->ndim, &got));
  if (got < 4 * (size_t)out->ndim) return mn_fail(MN_ERR_FORMAT, "%s: ends within its sizes", r->name);
  for (int i = 0; i < out->ndim; i++) {
    const uint8_t *b = head + 4 * i;
    out->dim[i] = (int64_t)((uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3]);
    if (!out->dim[i]) return mn_fail(MN_ERR_FORMAT, "%s: says that axis %d is empty", r->name, i);
    if (!mn_size_mul(count, (size_t)out->dim[i], &count) || count > limit)
      return mn_fail(MN_ERR_FORMAT, "%s: says that it holds more than 2 GiB", r->name);
  }
  if (!r->packed && count < r->n - r->at) return goes_on(r, count);
  if (!r->packed && count > r->n - r->at) return cut_short(r, count, r->n - r->at);
  if (r->packed && count / 1100 > r->n) /* deflate packs at most 1032 to 1 */
    return mn_fail(MN_ERR_FORMAT, "%s: says that it holds %zu bytes of data, which %zu packed ones cannot", r->name, count, r->n);
  out->data = mn_alloc(count);
  if (!out->data) return MN_ERR_MEMORY;
  MN_TRY(take(r, out->data, count, &got));
  if (got < count) return cut_short(r, count, got);
  MN_TRY(take(r, head, 1, &got));
  if (got) return goes_on(r, count);
  if (r->packed && !r->ended)
    return mn_fail(MN_ERR_FORMAT, "%s: is cut short: the checksum behind its data is missing; get the whole file again", r->name);
  if (r->packed && r->z.avail_in)
    return mn_fail(MN_ERR_FORMAT, "%s: goes on behind its compressed data by %u bytes: it is two files, or damaged", r->name,
                   r->z.avail_in);
  return MN_OK;
}

mn_status mn_idx_parse(const char *name, const void *bytes, size_t n, mn_idx *out) {
  reader r = {.name = name, .bytes = bytes, .n = n};
  *out = (mn_idx){0};
  MN_TRY(begin(&r));
  mn_status status = parse(&r, out);
  if (r.packed) inflateEnd(&r.z);
  if (status != MN_OK) mn_idx_free(out);
  return status;
}

mn_status mn_idx_read(const char *path, mn_idx *out) {
  char *bytes;
  size_t n;
  *out = (mn_idx){0};
  MN_TRY(mn_file_read(path, limit + 64, &bytes, &n));
  mn_status status = mn_idx_parse(path, bytes, n, out);
  free(bytes);
  return status;
}

void mn_idx_free(mn_idx *x) {
  free(x->data);
  *x = (mn_idx){0};
}
