/* kept_tensor.c - see kept_tensor.h. */
#include "run/kept_tensor.h"

#include <string.h>

#include "base/finite.h"

static bool of_blocks(mn_dtype type) { return mn_block_values(type) > 1; }

mn_dtype mn_kept_type(mn_dtype type) { return of_blocks(type) ? MN_DTYPES : type; }

mn_shape mn_kept_shape(mn_dtype type, const mn_shape *shape) {
  mn_shape s = *shape;
  if (of_blocks(type)) s.dim[s.ndim - 1] = (int64_t)mn_dtype_bytes(type, s.dim[s.ndim - 1]);
  return s;
}

int64_t mn_kept_not_finite(mn_dtype type, size_t offset, size_t n, const void *bytes) {
  if (!of_blocks(type)) {
    const int64_t bad = mn_first_not_finite(type, bytes, (int64_t)(n / mn_dtype_size(type)));
    return bad < 0 ? -1 : (int64_t)offset + bad * (int64_t)mn_dtype_size(type);
  }
  const size_t block = mn_block_bytes(type); /* of a cache's: its scale comes first, an f16 */
  for (size_t at = (offset + block - 1) / block * block; at + 2 <= offset + n; at += block)
    if (mn_first_not_finite(MN_F16, (const char *)bytes + (at - offset), 1) == 0) return (int64_t)at;
  return -1;
}

static bool is_type(const mn_st_tensor *t, mn_dtype type) {
  return of_blocks(type) ? !strcmp(t->file_dtype, "U8") : type == MN_F16 ? !strcmp(t->file_dtype, "F16") : t->dtype == type;
}

mn_status mn_kept_read(const mn_st *st, const char *name, mn_dtype type, const mn_shape *shape, bool sums, mn_st_sink put, void *ctx) {
  const mn_st_tensor *t = mn_st_find(st, name);
  const mn_shape kept = mn_kept_shape(type, shape);
  if (t && !is_type(t, type))
    return mn_fail(MN_ERR_CONFIG,
                   "%s: %s is kept as %s, here as %s; open it with the precision and the type of cache that it was saved with",
                   mn_st_path(st), name, !strcmp(t->file_dtype, "U8") ? mn_dtype_name(MN_Q8_0) : t->file_dtype, mn_dtype_name(type));
  MN_TRY(mn_st_need(st, name, &kept, &t));
  if (sums && !*t->checksum) return mn_fail(MN_ERR_FORMAT, "%s: %s has lost its checksum: it was changed", mn_st_path(st), name);
  if (!mn_dtype_is_stored(type)) return mn_st_read_to(st, t, type, true, put, ctx);
  MN_TRY(mn_st_check(st, t));
  const int64_t bad = mn_kept_not_finite(type, 0, t->bytes, t->data);
  if (bad >= 0) return mn_fail(MN_ERR_NUMERIC, "%s: %s holds a value that is not finite (byte %lld)", mn_st_path(st), name, (long long)bad);
  return put(ctx, 0, t->bytes, t->data);
}
