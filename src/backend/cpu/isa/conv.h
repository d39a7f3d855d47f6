/* isa/conv.h - vector code of the causal depthwise convolution. Types are MN_F32 or MN_BF16; arithmetic is f32. */
#ifndef MN_ISA_CONV_H
#define MN_ISA_CONV_H

#include "backend/cpu/isa.h"
#include "graph/graph.h"

enum { MN_CONV_LANES = 16, MN_CONV_STEP = 8 };

typedef struct mn_conv_isa {
  /* y[i] = bias + sum over j < W of w[j] * row[i + j], i < n: rows of D elements. w [W, D] and bias [D] (or
   * NULL) are f32. */
  void (*conv)(mn_dtype type, int64_t n, int64_t W, int64_t D, const void *const *row, const float *w, const float *bias, void *const *y);
  /* sum[j] += sum over i < n of dy[i] * row[i + j] for j < W, sum[W] += sum of dy[i]; sum [W + 1, D] is f32 */
  void (*conv_weight_grad)(mn_dtype type, int64_t n, int64_t W, int64_t D, const void *const *row, const void *const *dy, float *sum);
  /* y[i] += sum over j < W of w[j] * x[i + j], i < n, in the order of j: rows of MN_CONV_LANES; n is a multiple of MN_CONV_STEP */
  void (*wide)(int64_t n, int64_t W, const float *x, const float *w, float *y);
} mn_conv_isa;

MN_ISA_DECLARE(mn_conv_isa, mn_conv_isa_table);

#endif
