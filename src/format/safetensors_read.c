/* safetensors_read.c - a tensor of a file as the type that is wanted. Elements are read by memcpy: the format does not
 * promise alignment. */
#include "base/file.h"
#include "base/finite.h"
#include "base/bf16.h"
#include "base/text.h"
#include "format/safetensors.h"
#include "format/safetensors_sums.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- floats ---- every float type goes through double, which holds all of them exactly. */

static double half_to_double(uint16_t h) {
  int exponent = h >> 10 & 31, fraction = h & 1023;
  double magnitude = exponent == 31  ? (fraction ? NAN : INFINITY)
                     : exponent == 0 ? ldexp(fraction, -24)
                                     : ldexp(1024 + fraction, exponent - 25);
  return h >> 15 ? -magnitude : magnitude;
}

typedef enum float_kind { NO_FLOAT, FLOAT16, FLOAT_B16, FLOAT32, FLOAT64 } float_kind;

static float_kind float_kind_of(const char *file_dtype) {
  return !strcmp(file_dtype, "F32")    ? FLOAT32
         : !strcmp(file_dtype, "F64")  ? FLOAT64
         : !strcmp(file_dtype, "BF16") ? FLOAT_B16
         : !strcmp(file_dtype, "F16")  ? FLOAT16
                                       : NO_FLOAT;
}

static double load_float(float_kind kind, const uint8_t *p) {
  uint16_t half;
  float f;
  double d;
  switch (kind) {
  case FLOAT64:
    memcpy(&d, p, 8);
    return d;
  case FLOAT32:
    memcpy(&f, p, 4);
    return (double)f;
  case FLOAT_B16:
    memcpy(&half, p, 2);
    return (double)mn_bf16_to_float(half);
  default:
    memcpy(&half, p, 2);
    return half_to_double(half);
  }
}

/* ---- integers ---- false when the value does not fit in an int64_t. */

static bool load_int(const char *file_dtype, const uint8_t *p, int64_t *out) {
  static const struct {
    const char *name;
    int size;
    bool is_signed;
  } kinds[] = {{"I64", 8, true},  {"I32", 4, true},  {"I16", 2, true}, {"I8", 1, true},   {"U64", 8, false},
               {"U32", 4, false}, {"U16", 2, false}, {"U8", 1, false}, {"BOOL", 1, false}};
  for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
    if (strcmp(kinds[k].name, file_dtype) != 0) continue;
    uint64_t bits = 0;
    memcpy(&bits, p, (size_t)kinds[k].size);
    int unused = 64 - 8 * kinds[k].size;
    *out = (int64_t)bits;
    if (kinds[k].is_signed) *out = (int64_t)(bits << unused) >> unused; /* spreads the sign; gcc and clang shift so */
    return kinds[k].is_signed || bits <= INT64_MAX;
  }
  return false;
}

static mn_status read_ints(const mn_st *st, const mn_st_tensor *t, const uint8_t *src, size_t size, size_t first, size_t count,
                           mn_dtype dtype, uint8_t *dst) {
  for (size_t i = 0; i < count; i++) {
    int64_t v = 0;
    bool fits = load_int(t->file_dtype, src + i * size, &v);
    if (dtype == MN_I32) fits = fits && v >= INT32_MIN && v <= INT32_MAX;
    if (dtype == MN_BOOL) fits = fits && (v == 0 || v == 1);
    char shown[MN_PRINTABLE];
    if (!fits)
      return mn_fail(MN_ERR_FORMAT, "%s: tensor '%s': element %zu does not fit in %s", mn_st_path(st), mn_printable(t->name, shown),
                     first + i,
                     dtype == MN_BOOL  ? "BOOL"
                     : dtype == MN_I32 ? "I32"
                                       : "I64");
    int32_t narrow = (int32_t)v;
    if (dtype == MN_I64) memcpy(dst + i * 8, &v, 8);
    else if (dtype == MN_I32) memcpy(dst + i * 4, &narrow, 4);
    else dst[i] = (uint8_t)v;
  }
  return MN_OK;
}

static void read_floats(const uint8_t *src, size_t size, float_kind kind, size_t count, mn_dtype dtype, uint8_t *dst) {
  for (size_t i = 0; i < count; i++) {
    double d = load_float(kind, src + i * size);
    float f = (float)d;
    uint16_t b = mn_double_to_bf16(d);
    if (dtype == MN_F64) memcpy(dst + i * 8, &d, 8);
    else if (dtype == MN_F32) memcpy(dst + i * 4, &f, 4);
    else memcpy(dst + i * 2, &b, 2);
  }
}

/* ---- whole tensors ---- in pieces that stay in the cache while they are checked, converted and put in their place */

enum { PIECE = 32768 }; /* elements */

typedef struct reading {
  const mn_st *st;
  const mn_st_tensor *t;
  mn_dtype dtype;
  bool finite;
  float_kind kind;   /* NO_FLOAT: integers */
  size_t count;      /* elements */
  mn_hasher *hasher; /* NULL: there is no checksum, or it is known to hold */
} reading;

static mn_status read_piece(const reading *r, size_t at, size_t n, uint8_t *converted, const void **out) {
  size_t size = r->count ? r->t->bytes / r->count : 0;
  const uint8_t *src = (const uint8_t *)r->t->data + at * size;
  *out = src;
  if (r->hasher) mn_hasher_add(r->hasher, src, n * size);
  if (r->t->dtype != r->dtype) {
    *out = converted;
    if (r->kind == NO_FLOAT) MN_TRY(read_ints(r->st, r->t, src, size, at, n, r->dtype, converted));
    else read_floats(src, size, r->kind, n, r->dtype, converted);
  }
  int64_t bad = r->finite ? mn_first_not_finite(r->dtype, *out, (int64_t)n) : -1;
  char shown[MN_PRINTABLE];
  if (bad >= 0)
    return mn_fail(MN_ERR_NUMERIC, "%s: tensor '%s' holds a value that is not finite (element %zu is %s)", mn_st_path(r->st),
                   mn_printable(r->t->name, shown), at + (size_t)bad, mn_not_finite_name(r->dtype, *out, bad));
  return MN_OK;
}

static mn_status read_pieces(reading *r, uint8_t *converted, mn_st_sink put, void *ctx) {
  size_t width = mn_dtype_size(r->dtype);
  for (size_t at = 0; at < r->count; at += PIECE) {
    size_t n = r->count - at < PIECE ? r->count - at : PIECE;
    const void *bytes;
    if (at / PIECE % 64 == 63) MN_TRY(mn_stop_check("reading a file of tensors"));
    MN_TRY(read_piece(r, at, n, converted, &bytes));
    MN_TRY(put(ctx, at * width, n * width, bytes));
  }
  char hex[MN_HASH_HEX];
  if (!r->hasher) return mn_st_intact(r->st);
  mn_hasher_take(r->hasher, hex);
  return mn_st_compare(r->st, r->t, hex);
}

mn_status mn_st_read_to(const mn_st *st, const mn_st_tensor *t, mn_dtype dtype, bool finite, mn_st_sink put, void *ctx) {
  reading r = {.st = st, .t = t, .dtype = dtype, .finite = finite, .kind = float_kind_of(t->file_dtype), .count = 1};
  for (int i = 0; i < t->shape.ndim; i++) r.count *= (size_t)t->shape.dim[i]; /* checked when the file was opened */
  bool eight = t->file_dtype[0] == 'F' && t->file_dtype[1] == '8', floats = mn_dtype_is_float(dtype);
  char shown[MN_PRINTABLE];
  if (t->dtype != dtype && (eight || (r.kind != NO_FLOAT) != floats))
    return mn_fail(MN_ERR_UNSUPPORTED, "%s: tensor '%s' is %s and cannot be read as %s; convert it first", mn_st_path(st),
                   mn_printable(t->name, shown), t->file_dtype, mn_dtype_name(dtype));
  bool check = !mn_st_settled(st, t), convert = t->dtype != dtype;
  uint8_t *converted = convert ? mn_alloc(PIECE * mn_dtype_size(dtype)) : NULL;
  r.hasher = check ? mn_hasher_new() : NULL;
  mn_status status = (convert && !converted) || (check && !r.hasher) ? MN_ERR_MEMORY : read_pieces(&r, converted, put, ctx);
  mn_hasher_free(r.hasher);
  free(converted);
  /* What is damaged may also be no number, or too large: damage is the message. */
  if (status != MN_ERR_NUMERIC && status != MN_ERR_FORMAT) return status;
  const mn_kept_message why = mn_message_keep();
  mn_status damage = check ? mn_st_check(st, t) : mn_st_intact(st);
  if (damage != MN_OK) return damage;
  mn_message_restore(&why);
  return status;
}

static mn_status put_in_memory(void *ctx, size_t offset, size_t n, const void *bytes) {
  memcpy((uint8_t *)ctx + offset, bytes, n);
  return MN_OK;
}

mn_status mn_st_read(const mn_st *st, const mn_st_tensor *t, mn_dtype dtype, void *dst) {
  return mn_st_read_to(st, t, dtype, false, put_in_memory, dst);
}

mn_status mn_st_read_finite(const mn_st *st, const mn_st_tensor *t, mn_dtype dtype, void *dst) {
  return mn_st_read_to(st, t, dtype, true, put_in_memory, dst);
}
