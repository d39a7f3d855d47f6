/* types.c - element types and shapes. */
#include "base/types.h"

#include "base/blocks.h"

#include <stdio.h>

static const struct {
  const char *name;
  int32_t values, bytes; /* of a block */
} types[MN_ALL_TYPES] = {
    [MN_F32] = {"f32", 1, 4},
    [MN_F64] = {"f64", 1, 8},
    [MN_BF16] = {"bf16", 1, 2},
    [MN_I32] = {"i32", 1, 4},
    [MN_I64] = {"i64", 1, 8},
    [MN_BOOL] = {"bool", 1, 1},
    [MN_DTYPES] = {"?", 1, 0},
    [MN_F16] = {"f16", 1, 2},
    [MN_STORED_BF16] = {"bf16", 1, 2},
    [MN_Q4_0] = {"q4_0", MN_BLOCK, sizeof(mn_q4_0)},
    [MN_Q4_1] = {"q4_1", MN_BLOCK, sizeof(mn_q4_1)},
    [MN_Q5_0] = {"q5_0", MN_BLOCK, sizeof(mn_q5_0)},
    [MN_Q5_1] = {"q5_1", MN_BLOCK, sizeof(mn_q5_1)},
    [MN_Q8_0] = {"q8_0", MN_BLOCK, sizeof(mn_q8_0)},
    [MN_Q2_K] = {"q2_k", MN_SUPER, sizeof(mn_q2_k)},
    [MN_Q3_K] = {"q3_k", MN_SUPER, sizeof(mn_q3_k)},
    [MN_Q4_K] = {"q4_k", MN_SUPER, sizeof(mn_q4_k)},
    [MN_Q5_K] = {"q5_k", MN_SUPER, sizeof(mn_q5_k)},
    [MN_Q6_K] = {"q6_k", MN_SUPER, sizeof(mn_q6_k)},
    [MN_IQ4_NL] = {"iq4_nl", MN_BLOCK, sizeof(mn_iq4_nl)},
    [MN_IQ4_XS] = {"iq4_xs", MN_SUPER, sizeof(mn_iq4_xs)},
    [MN_MXFP4] = {"mxfp4", MN_BLOCK, sizeof(mn_mxfp4)},
};

const int8_t mn_iq4_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
const int8_t mn_fp4_values[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

static mn_dtype known(mn_dtype t) { return (unsigned)t < MN_ALL_TYPES ? t : MN_DTYPES; }
const char *mn_dtype_name(mn_dtype t) { return types[known(t)].name; }
int64_t mn_block_values(mn_dtype t) { return types[known(t)].values; }
size_t mn_block_bytes(mn_dtype t) { return (size_t)types[known(t)].bytes; }
size_t mn_dtype_size(mn_dtype t) { return mn_block_values(t) == 1 ? mn_block_bytes(t) : 0; }
size_t mn_dtype_align(mn_dtype t) { return mn_block_values(t) == 1 ? mn_block_bytes(t) : t == MN_MXFP4 ? 1 : sizeof(uint16_t); }
size_t mn_dtype_bytes(mn_dtype t, int64_t n) { return (size_t)(n / mn_block_values(t)) * mn_block_bytes(t); }

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

size_t mn_shape_bytes(const mn_shape *s, mn_dtype t) { return mn_dtype_bytes(t, mn_shape_count(s)); }

bool mn_shape_holds(const mn_shape *s, mn_dtype t) {
  const int64_t block = mn_block_values(t);
  return block == 1 || (s->ndim >= 1 && s->dim[s->ndim - 1] % block == 0);
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
