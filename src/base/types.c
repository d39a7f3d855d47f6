/* types.c - element types and shapes. */
#include "base/types.h"

#include <stdio.h>

size_t mn_dtype_size(mn_dtype t) {
  static const size_t sizes[MN_DTYPES] = {4, 8, 2, 4, 8, 1};
  return (unsigned)t < MN_DTYPES ? sizes[t] : 0;
}

const char *mn_dtype_name(mn_dtype t) {
  static const char *const names[MN_DTYPES] = {"f32", "f64", "bf16", "i32", "i64", "bool"};
  return (unsigned)t < MN_DTYPES ? names[t] : "?";
}

mn_shape mn_shape_of(int ndim, const int64_t *dim) {
  mn_shape s = {.ndim = ndim > MN_MAX_DIMS ? -1 : ndim};
  for (int i = 0; i < s.ndim; i++) s.dim[i] = dim[i];
  return s;
}

int64_t mn_shape_count(const mn_shape *s) {
  int64_t n = 1;
  for (int i = 0; i < s->ndim; i++) n *= s->dim[i];
  return n;
}

bool mn_shape_equal(const mn_shape *a, const mn_shape *b) {
  if (a->ndim != b->ndim) return false;
  for (int i = 0; i < a->ndim; i++)
    if (a->dim[i] != b->dim[i]) return false;
  return true;
}

const char *mn_shape_str(const mn_shape *s, char buf[96]) {
  char whole[2 + 22 * MN_MAX_DIMS + 1] = "["; /* 20 characters and ", " for each; a message shows 95 of them */
  int n = 1;
  for (int i = 0; i < s->ndim && i < MN_MAX_DIMS; i++)
    n += snprintf(whole + n, sizeof whole - (size_t)n, "%s%lld", i ? ", " : "", (long long)s->dim[i]);
  snprintf(whole + n, sizeof whole - (size_t)n, "]");
  snprintf(buf, 96, "%.95s", whole);
  return buf;
}
