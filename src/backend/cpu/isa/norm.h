/* isa/norm.h - vector code of the kernels that work on one row at a time: norms, softmax and rotary embedding. Types
 * are MN_F32 or MN_BF16; arithmetic is f32. Strides are in elements. */
#ifndef MN_ISA_NORM_H
#define MN_ISA_NORM_H

#include "backend/cpu/isa.h"
#include "graph/fused_gated_norm.h"
#include "graph/fused_norm.h"
#include "graph/graph.h"

typedef struct mn_norm_rows { /* n rows of D elements */
  mn_norm_kind kind;
  float eps;
  int64_t n, D;
  mn_dtype x_type, y_type; /* y_type: also that of dy; dx has x's */
  const void *x, *dy;
  int64_t x_step, dy_step;
  const float *weight, *bias; /* [D] or NULL */
  void *y;                    /* forward: y [n, D] dense; gradient: dx [n, D] dense */
  float *dweight, *dbias;     /* [D], added to; or NULL */
} mn_norm_rows;

typedef struct mn_gated_rows { /* n rows of D elements */
  mn_gated_kind kind;
  float eps;
  int64_t n, D;
  mn_dtype x_type, y_type; /* y_type: also that of the gate, of dy and of dgate; dx has x's */
  const void *x, *gate, *dy;
  int64_t x_step, gate_step, dy_step;
  const float *weight; /* [D] or NULL */
  void *y, *dgate;     /* y, or in the gradient dx, and dgate: [n, D] dense */
  float *dweight;      /* [D], added to; or NULL */
} mn_gated_rows;

typedef struct mn_rope_rows { /* H heads of one token */
  bool interleaved, inverse;
  int64_t H, K;
  mn_dtype type;
  const void *x;
  int64_t x_step;
  const float *cos, *sin; /* [K/2] */
  void *y;                /* [H, K] dense */
} mn_rope_rows;

typedef struct mn_norm_isa {
  void (*norm)(const mn_norm_rows *a);
  void (*norm_grad)(const mn_norm_rows *a);
  void (*gated_norm)(const mn_gated_rows *a);
  void (*gated_norm_grad)(const mn_gated_rows *a);
  /* y = softmax(x) and dx = y * (dy - sum y dy), n rows of D; outputs dense */
  void (*softmax)(mn_dtype type, int64_t n, int64_t D, const void *x, int64_t x_step, void *y);
  void (*softmax_grad)(mn_dtype type, int64_t n, int64_t D, const void *y, int64_t y_step, const void *dy, int64_t dy_step, void *dx);
  void (*rope)(const mn_rope_rows *a);
  /* out[D] = sum over i < n of part[i * step + 0..D), in order */
  void (*add_rows)(int64_t n, int64_t D, int64_t step, const float *part, float *out);
} mn_norm_isa;

MN_ISA_DECLARE(mn_norm_isa, mn_norm_isa_table);

#endif
