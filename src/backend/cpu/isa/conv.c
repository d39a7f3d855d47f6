/* isa/conv.c - vector code of the causal depthwise convolution. A block of time steps is worked off together: memory is
 * read in order and each tap is loaded once for the block. */
#include "backend/cpu/isa/conv.h"
#include "backend/cpu/isa/vec.h"

enum { BLOCK = 4, GRAD_BLOCK = 8 }; /* steps that are held in registers */

/* The rows of a block are short runs in memory, too short for the processor to foresee the next block's. They most
 * often follow at the same distance; a wrong guess does no harm. */
MN_INLINE void prefetch_next(const void *before, const void *last, int64_t offset, int steps, const int write) {
  uintptr_t distance = (uintptr_t)last - (uintptr_t)before, at = (uintptr_t)last + (uintptr_t)offset;
  for (int k = 1; k <= steps; k++) { /* the builtin wants a literal */
    if (write) __builtin_prefetch((const void *)(at + (uintptr_t)k * distance), 1, 3);
    else __builtin_prefetch((const void *)(at + (uintptr_t)k * distance), 0, 3);
  }
}

/* n lanes from element i on, of `steps` <= BLOCK steps */
MN_INLINE void conv_lanes(mn_dtype t, int steps, int64_t W, int64_t D, const void *const *row, const float *w, const float *bias,
                          void *const *y, int64_t i, int n) {
  vf sum[BLOCK], b = bias ? vf_load_of(MN_F32, bias, i, n) : vf_zero();
  for (int k = 0; k < BLOCK; k++) sum[k] = b;
  if (steps > 1 && W > 0) {
    int64_t last = steps + W - 2, offset = i * (t == MN_F32 ? 4 : 2);
    prefetch_next(row[last - 1], row[last], offset, steps, 0);
    prefetch_next(y[steps - 2], y[steps - 1], offset, steps, 1);
  }
  for (int64_t j = 0; j < W; j++) {
    vf tap = vf_load_of(MN_F32, w + j * D, i, n);
    for (int k = 0; k < steps; k++) sum[k] = vf_fma(tap, vf_load_of(t, row[j + k], i, n), sum[k]);
  }
  for (int k = 0; k < steps; k++) vf_store_of(t, y[k], i, sum[k], n);
}
MN_INLINE void conv_steps(mn_dtype t, int steps, int64_t W, int64_t D, const void *const *row, const float *w, const float *bias,
                          void *const *y) {
  int64_t i = 0;
  for (; i + MN_VL <= D; i += MN_VL) conv_lanes(t, steps, W, D, row, w, bias, y, i, MN_VL);
  if (i < D) conv_lanes(t, steps, W, D, row, w, bias, y, i, (int)(D - i));
}
MN_INLINE void conv_type(mn_dtype t, int64_t n, int64_t W, int64_t D, const void *const *row, const float *w, const float *bias,
                         void *const *y) {
  int64_t k = 0;
  for (; k + BLOCK <= n; k += BLOCK) conv_steps(t, BLOCK, W, D, row + k, w, bias, y + k);
  for (; k < n; k++) conv_steps(t, 1, W, D, row + k, w, bias, y + k);
}
static void conv(mn_dtype t, int64_t n, int64_t W, int64_t D, const void *const *row, const float *w, const float *bias, void *const *y) {
  if (t == MN_F32) conv_type(MN_F32, n, W, D, row, w, bias, y);
  else conv_type(MN_BF16, n, W, D, row, w, bias, y);
}

MN_INLINE void grad_lanes(mn_dtype t, int steps, int64_t W, int64_t D, const void *const *row, const void *const *dy, float *sum, int64_t i,
                          int n) {
  vf d[GRAD_BLOCK], all = vf_load_of(MN_F32, sum + W * D, i, n);
  if (steps > 1 && W > 0) {
    int64_t last = steps + W - 2, offset = i * (t == MN_F32 ? 4 : 2);
    prefetch_next(row[last - 1], row[last], offset, steps, 0);
    prefetch_next(dy[steps - 2], dy[steps - 1], offset, steps, 0);
  }
  for (int k = 0; k < steps; k++) all += d[k] = vf_load_of(t, dy[k], i, n);
  vf_store_of(MN_F32, sum + W * D, i, all, n);
  for (int64_t j = 0; j < W; j++) {
    vf s = vf_load_of(MN_F32, sum + j * D, i, n);
    for (int k = 0; k < steps; k++) s = vf_fma(d[k], vf_load_of(t, row[j + k], i, n), s);
    vf_store_of(MN_F32, sum + j * D, i, s, n);
  }
}
MN_INLINE void grad_steps(mn_dtype t, int steps, int64_t W, int64_t D, const void *const *row, const void *const *dy, float *sum) {
  int64_t i = 0;
  for (; i + MN_VL <= D; i += MN_VL) grad_lanes(t, steps, W, D, row, dy, sum, i, MN_VL);
  if (i < D) grad_lanes(t, steps, W, D, row, dy, sum, i, (int)(D - i));
}
MN_INLINE void grad_type(mn_dtype t, int64_t n, int64_t W, int64_t D, const void *const *row, const void *const *dy, float *sum) {
  int64_t k = 0;
  for (; k + GRAD_BLOCK <= n; k += GRAD_BLOCK) grad_steps(t, GRAD_BLOCK, W, D, row + k, dy + k, sum);
  for (; k < n; k++) grad_steps(t, 1, W, D, row + k, dy + k, sum);
}
static void conv_weight_grad(mn_dtype t, int64_t n, int64_t W, int64_t D, const void *const *row, const void *const *dy, float *sum) {
  if (t == MN_F32) grad_type(MN_F32, n, W, D, row, dy, sum);
  else grad_type(MN_BF16, n, W, D, row, dy, sum);
}

/* Eight steps are held in registers: each tap is loaded once for them, each x is an operand in memory. */
static void wide(int64_t n, int64_t W, const float *x, const float *w, float *y) {
  for (int64_t i = 0; i < n; i += MN_CONV_STEP)
    for (int v = 0; v < MN_CONV_LANES; v += MN_VL) {
      vf sum[MN_CONV_STEP];
      float *to = y + i * MN_CONV_LANES + v;
      const float *from = x + i * MN_CONV_LANES + v;
      for (int k = 0; k < MN_CONV_STEP; k++) sum[k] = vf_load(to + k * MN_CONV_LANES);
      for (int64_t j = 0; j < W; j++, from += MN_CONV_LANES) {
        const vf tap = vf_load(w + j * MN_CONV_LANES + v);
        for (int k = 0; k < MN_CONV_STEP; k++) sum[k] = vf_fma(tap, vf_load(from + k * MN_CONV_LANES), sum[k]);
      }
      for (int k = 0; k < MN_CONV_STEP; k++) vf_store(to + k * MN_CONV_LANES, sum[k]);
    }
}

const mn_conv_isa MN_ISA_NAME(mn_conv_isa_table) = {conv, conv_weight_grad, wide};
