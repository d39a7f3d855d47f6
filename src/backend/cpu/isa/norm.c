/* isa/norm.c - vector code of norms, softmax and rotary embedding. A function for one row takes the types as arguments
 * and is inlined with constants, so each pair of types becomes its own loop. */
#include "backend/cpu/isa/norm.h"
#include "backend/cpu/isa/vecmath.h"
#include "graph/fused_norm.h"

/* The body sees i, the first element, and n, how many of the vector's lanes are elements: a constant but at the end. */
#define FOR_VECTORS(D, ...)                                                                                                                \
  do {                                                                                                                                     \
    int64_t i = 0;                                                                                                                         \
    for (; i + MN_VL <= (D); i += MN_VL) {                                                                                                 \
      const int n = MN_VL;                                                                                                                 \
      __VA_ARGS__                                                                                                                          \
    }                                                                                                                                      \
    if (i < (D)) {                                                                                                                         \
      const int n = (int)((D)-i);                                                                                                          \
      __VA_ARGS__                                                                                                                          \
    }                                                                                                                                      \
  } while (0)

/* The same for bodies that sum: into sums[k], as one sum alone would wait for its own latency. */
enum { SUMS = 4 };
#define FOR_SUMS(D, ...)                                                                                                                   \
  do {                                                                                                                                     \
    int64_t at = 0;                                                                                                                        \
    for (; at + SUMS * MN_VL <= (D); at += SUMS * MN_VL)                                                                                   \
      for (int k = 0; k < SUMS; k++) {                                                                                                     \
        const int64_t i = at + k * MN_VL;                                                                                                  \
        const int n = MN_VL;                                                                                                               \
        __VA_ARGS__                                                                                                                        \
      }                                                                                                                                    \
    enum { k = 0 };                                                                                                                        \
    for (; at + MN_VL <= (D); at += MN_VL) {                                                                                               \
      const int64_t i = at;                                                                                                                \
      const int n = MN_VL;                                                                                                                 \
      __VA_ARGS__                                                                                                                          \
    }                                                                                                                                      \
    if (at < (D)) {                                                                                                                        \
      const int64_t i = at;                                                                                                                \
      const int n = (int)((D)-at);                                                                                                         \
      __VA_ARGS__                                                                                                                          \
    }                                                                                                                                      \
  } while (0)
#define NO_SUMS                                                                                                                            \
  {                                                                                                                                        \
    {0}, {0}, {0}, { 0 }                                                                                                                   \
  }
MN_INLINE float total(const vf s[SUMS]) { return vf_sum((s[0] + s[1]) + (s[2] + s[3])); }

MN_INLINE vf only(vf x, int n) { return n == MN_VL ? x : vf_select(vm_first(n), x, vf_zero()); } /* others 0 */
MN_INLINE void *row(mn_dtype t, const void *p, int64_t elements) { return (char *)p + elements * (t == MN_F32 ? 4 : 2); }
#define F32(p, i, n) vf_load_of(MN_F32, p, i, n)

/* ---- norm ------------------------------------------------------------------------------------------------------- */
/* y = xhat * weight + bias, xhat = (x - mean) * scale; the mean is 0 but for LAYER */
MN_INLINE void norm_row(const mn_norm_rows *a, mn_norm_kind kind, mn_dtype xt, mn_dtype yt, const void *x, void *y) {
  int64_t D = a->D;
  vf sums[SUMS] = NO_SUMS, squares[SUMS] = NO_SUMS;
  float mean = 0;
  if (kind == MN_NORM_LAYER) {
    FOR_SUMS(D, sums[k] += vf_load_of(xt, x, i, n););
    mean = total(sums) / (float)D;
    vf m = vf_set1(mean);
    FOR_SUMS(D, vf d = only(vf_load_of(xt, x, i, n) - m, n); squares[k] = vf_fma(d, d, squares[k]););
  } else {
    FOR_SUMS(D, vf v = vf_load_of(xt, x, i, n); squares[k] = vf_fma(v, v, squares[k]););
  }
  float s = total(squares) / (kind == MN_NORM_L2 ? 1.0f : (float)D);
  vf scale = vf_set1(1.0f / sqrtf(s + a->eps)), m = vf_set1(mean);
#define XHAT ((kind == MN_NORM_LAYER ? vf_load_of(xt, x, i, n) - m : vf_load_of(xt, x, i, n)) * scale)
  const float *w = a->weight, *b = a->bias;
  if (w && b) FOR_VECTORS(D, vf_store_of(yt, y, i, vf_fma(XHAT, F32(w, i, n), F32(b, i, n)), n););
  else if (w) FOR_VECTORS(D, vf_store_of(yt, y, i, XHAT * F32(w, i, n), n););
  else if (b) FOR_VECTORS(D, vf_store_of(yt, y, i, XHAT + F32(b, i, n), n););
  else FOR_VECTORS(D, vf_store_of(yt, y, i, XHAT, n););
#undef XHAT
}

/* With g = dy * weight and M = D (1 for L2):
 *     dx = scale * (g - [LAYER: mean g] - xhat * sum(g xhat) / M),  dweight += dy * xhat,  dbias += dy */
MN_INLINE void norm_grad_row(const mn_norm_rows *a, mn_norm_kind kind, mn_dtype xt, mn_dtype yt, const void *x, const void *dy, void *dx) {
  int64_t D = a->D;
  const float *w = a->weight;
  vf sum_x[SUMS] = NO_SUMS, sum_g[SUMS] = NO_SUMS, squares[SUMS] = NO_SUMS, products[SUMS] = NO_SUMS;
  float mean = 0, mean_g = 0;
  if (kind == MN_NORM_LAYER) {
    FOR_SUMS(D, vf g = vf_load_of(yt, dy, i, n); sum_x[k] += vf_load_of(xt, x, i, n);
             sum_g[k] = w ? vf_fma(g, F32(w, i, n), sum_g[k]) : sum_g[k] + g;);
    mean = total(sum_x) / (float)D;
    mean_g = total(sum_g) / (float)D;
  }
  vf m = vf_set1(mean);
  FOR_SUMS(D, vf v = vf_load_of(xt, x, i, n); if (kind == MN_NORM_LAYER) v = only(v - m, n); vf g = vf_load_of(yt, dy, i, n);
           if (w) g *= F32(w, i, n); squares[k] = vf_fma(v, v, squares[k]); products[k] = vf_fma(g, v, products[k]););
  float M = kind == MN_NORM_L2 ? 1.0f : (float)D;
  float scale = 1.0f / sqrtf(total(squares) / M + a->eps);
  vf s = vf_set1(scale), c = vf_set1(scale * scale * total(products) / M), mg = vf_set1(scale * mean_g);
  float *dw = a->dweight, *db = a->dbias;
  FOR_VECTORS(D, vf xhat = (kind == MN_NORM_LAYER ? vf_load_of(xt, x, i, n) - m : vf_load_of(xt, x, i, n)) * s;
              vf d = vf_load_of(yt, dy, i, n); vf g = s * (w ? d * F32(w, i, n) : d);
              if (dw) vf_store_of(MN_F32, dw, i, vf_fma(d, xhat, F32(dw, i, n)), n);
              if (db) vf_store_of(MN_F32, db, i, F32(db, i, n) + d, n); if (kind == MN_NORM_LAYER) g -= mg;
              vf_store_of(xt, dx, i, vf_fnma(xhat, c, g), n););
}

MN_INLINE void norm_rows(const mn_norm_rows *a, mn_norm_kind kind, mn_dtype xt, mn_dtype yt, bool grad) {
  for (int64_t r = 0; r < a->n; r++) {
    const void *x = row(xt, a->x, r * a->x_step);
    if (grad) norm_grad_row(a, kind, xt, yt, x, row(yt, a->dy, r * a->dy_step), row(xt, a->y, r * a->D));
    else norm_row(a, kind, xt, yt, x, row(yt, a->y, r * a->D));
  }
}
MN_INLINE void norm_types(const mn_norm_rows *a, mn_norm_kind kind, bool grad) {
  if (a->x_type == MN_F32 && a->y_type == MN_F32) norm_rows(a, kind, MN_F32, MN_F32, grad);
  else if (a->x_type == MN_F32) norm_rows(a, kind, MN_F32, MN_BF16, grad);
  else if (a->y_type == MN_F32) norm_rows(a, kind, MN_BF16, MN_F32, grad);
  else norm_rows(a, kind, MN_BF16, MN_BF16, grad);
}
static void norm(const mn_norm_rows *a) {
  switch (a->kind) {
  case MN_NORM_RMS:
    norm_types(a, MN_NORM_RMS, false);
    break;
  case MN_NORM_LAYER:
    norm_types(a, MN_NORM_LAYER, false);
    break;
  case MN_NORM_L2:
    norm_types(a, MN_NORM_L2, false);
    break;
  }
}
static void norm_grad(const mn_norm_rows *a) {
  switch (a->kind) {
  case MN_NORM_RMS:
    norm_types(a, MN_NORM_RMS, true);
    break;
  case MN_NORM_LAYER:
    norm_types(a, MN_NORM_LAYER, true);
    break;
  case MN_NORM_L2:
    norm_types(a, MN_NORM_L2, true);
    break;
  }
}

/* ---- gated norm ---- y = xhat * weight * act(gate), xhat = x * scale */
MN_INLINE void gated_row(const mn_gated_rows *a, mn_gated_kind kind, mn_dtype xt, mn_dtype yt, const void *x, const void *gate, void *y) {
  const int64_t D = a->D;
  const float *w = a->weight;
  vf squares[SUMS] = NO_SUMS;
  FOR_SUMS(D, vf v = vf_load_of(xt, x, i, n); squares[k] = vf_fma(v, v, squares[k]););
  const vf scale = vf_set1(1.0f / sqrtf(total(squares) / (float)D + a->eps));
#define GATED                                                                                                                              \
  vf u = vf_load_of(yt, gate, i, n), s = vf_sigmoid(u);                                                                                    \
  vf xhat = vf_load_of(xt, x, i, n) * scale, act = kind == MN_GATED_BY_SILU ? u * s : s;
  if (w) FOR_VECTORS(D, GATED vf_store_of(yt, y, i, xhat * F32(w, i, n) * act, n););
  else FOR_VECTORS(D, GATED vf_store_of(yt, y, i, xhat * act, n););
#undef GATED
}

/* With g = dy * weight * act(gate):
 *     dx = scale * (g - xhat * sum(g xhat) / D),  dgate = dy * xhat * weight * act'(gate),  dweight += dy * act(gate) * xhat
 * The sigmoids of the first pass stay for the second where there is room for them. */
enum { GATES = 1024 };
MN_INLINE void gated_grad_row(const mn_gated_rows *a, mn_gated_kind kind, mn_dtype xt, mn_dtype yt, const void *x, const void *gate,
                              const void *dy, void *dx, void *dgate) {
  const int64_t D = a->D;
  const float *w = a->weight;
  float kept[GATES];
  vf squares[SUMS] = NO_SUMS, products[SUMS] = NO_SUMS;
  FOR_SUMS(D, vf v = vf_load_of(xt, x, i, n); vf u = vf_load_of(yt, gate, i, n); vf s = vf_sigmoid(u);
           if (D <= GATES) vf_store_of(MN_F32, kept, i, s, n); vf g = vf_load_of(yt, dy, i, n) * (kind == MN_GATED_BY_SILU ? u * s : s);
           if (w) g *= F32(w, i, n); squares[k] = vf_fma(v, v, squares[k]); products[k] = vf_fma(g, v, products[k]););
  const float r = 1.0f / sqrtf(total(squares) / (float)D + a->eps);
  const vf scale = vf_set1(r), c = vf_set1(r * r * total(products) / (float)D), one = vf_set1(1);
  float *dw = a->dweight;
  FOR_VECTORS(D, vf u = vf_load_of(yt, gate, i, n); vf s = D <= GATES ? F32(kept, i, n) : vf_sigmoid(u); vf d = vf_load_of(yt, dy, i, n);
              vf act = kind == MN_GATED_BY_SILU ? u * s : s; vf slope = s * (kind == MN_GATED_BY_SILU ? vf_fma(u, one - s, one) : one - s);
              vf xhat = vf_load_of(xt, x, i, n) * scale; vf g = d * act;
              if (dw) vf_store_of(MN_F32, dw, i, vf_fma(g, xhat, F32(dw, i, n)), n); d *= xhat; if (w) g *= F32(w, i, n);
              if (w) d *= F32(w, i, n); vf_store_of(yt, dgate, i, d * slope, n); vf_store_of(xt, dx, i, vf_fnma(xhat, c, scale * g), n););
}

MN_INLINE void gated_rows(const mn_gated_rows *a, mn_gated_kind kind, mn_dtype xt, mn_dtype yt, bool grad) {
  for (int64_t r = 0; r < a->n; r++) {
    const void *x = row(xt, a->x, r * a->x_step), *gate = row(yt, a->gate, r * a->gate_step);
    if (grad)
      gated_grad_row(a, kind, xt, yt, x, gate, row(yt, a->dy, r * a->dy_step), row(xt, a->y, r * a->D), row(yt, a->dgate, r * a->D));
    else gated_row(a, kind, xt, yt, x, gate, row(yt, a->y, r * a->D));
  }
}
MN_INLINE void gated_types(const mn_gated_rows *a, mn_gated_kind kind, bool grad) {
  if (a->x_type == MN_F32 && a->y_type == MN_F32) gated_rows(a, kind, MN_F32, MN_F32, grad);
  else if (a->x_type == MN_F32) gated_rows(a, kind, MN_F32, MN_BF16, grad);
  else if (a->y_type == MN_F32) gated_rows(a, kind, MN_BF16, MN_F32, grad);
  else gated_rows(a, kind, MN_BF16, MN_BF16, grad);
}
static void gated_norm(const mn_gated_rows *a) {
  if (a->kind == MN_GATED_BY_SILU) gated_types(a, MN_GATED_BY_SILU, false);
  else gated_types(a, MN_GATED_BY_SIGMOID, false);
}
static void gated_norm_grad(const mn_gated_rows *a) {
  if (a->kind == MN_GATED_BY_SILU) gated_types(a, MN_GATED_BY_SILU, true);
  else gated_types(a, MN_GATED_BY_SIGMOID, true);
}

static void add_rows(int64_t rows, int64_t D, int64_t step, const float *part, float *out) {
  FOR_VECTORS(D, vf sum = vf_zero(); for (int64_t r = 0; r < rows; r++) sum += F32(part + r * step, i, n);
              vf_store_of(MN_F32, out, i, sum, n););
}

/* ---- softmax ---------------------------------------------------------------------------------------------------- */
enum { KEEP = 4096 }; /* elements of a bf16 row whose exponentials are kept in f32; a longer one computes them twice */
MN_INLINE void softmax_row(mn_dtype t, int64_t D, const void *x, void *y) {
  float kept[KEEP], *e_row = t == MN_F32 ? y : D <= KEEP ? kept : NULL;
  vf most[SUMS], sums[SUMS] = NO_SUMS, least = vf_set1(-INFINITY);
  for (int k = 0; k < SUMS; k++) most[k] = least;
  FOR_SUMS(D, vf v = vf_load_of(t, x, i, n); if (n < MN_VL) v = vf_select(vm_first(n), v, least); most[k] = vf_max(v, most[k]););
  vf m = vf_set1(vf_hmax(vf_max(vf_max(most[0], most[1]), vf_max(most[2], most[3]))));
  FOR_SUMS(D, vf e = only(vf_exp(vf_load_of(t, x, i, n) - m), n); sums[k] += e; if (e_row) vf_store_of(MN_F32, e_row, i, e, n););
  vf scale = vf_set1(1.0f / total(sums));
  if (e_row) FOR_VECTORS(D, vf_store_of(t, y, i, F32(e_row, i, n) * scale, n););
  else FOR_VECTORS(D, vf_store_of(t, y, i, vf_exp(vf_load_of(t, x, i, n) - m) * scale, n););
}
static void softmax(mn_dtype t, int64_t rows, int64_t D, const void *x, int64_t x_step, void *y) {
  for (int64_t r = 0; r < rows; r++) {
    if (t == MN_F32) softmax_row(MN_F32, D, row(t, x, r * x_step), row(t, y, r * D));
    else softmax_row(MN_BF16, D, row(t, x, r * x_step), row(t, y, r * D));
  }
}

MN_INLINE void softmax_grad_row(mn_dtype t, int64_t D, const void *y, const void *dy, void *dx) {
  vf sums[SUMS] = NO_SUMS;
  FOR_SUMS(D, sums[k] = vf_fma(vf_load_of(t, y, i, n), vf_load_of(t, dy, i, n), sums[k]););
  vf s = vf_set1(total(sums));
  FOR_VECTORS(D, vf_store_of(t, dx, i, vf_load_of(t, y, i, n) * (vf_load_of(t, dy, i, n) - s), n););
}
static void softmax_grad(mn_dtype t, int64_t rows, int64_t D, const void *y, int64_t y_step, const void *dy, int64_t dy_step, void *dx) {
  for (int64_t r = 0; r < rows; r++) {
    const void *yr = row(t, y, r * y_step), *dyr = row(t, dy, r * dy_step);
    if (t == MN_F32) softmax_grad_row(MN_F32, D, yr, dyr, row(t, dx, r * D));
    else softmax_grad_row(MN_BF16, D, yr, dyr, row(t, dx, r * D));
  }
}

/* ---- rotary embedding -------------------------------------------------------------------------------------------- */
typedef uint64_t vpair __attribute__((vector_size(4 * MN_VL))); /* pairs of f32 */
typedef uint32_t vhalf __attribute__((vector_size(2 * MN_VL))); /* half a vector of f32 */
MN_INLINE vf swap_pairs(vf x) { return (vf)(((vpair)x << 32) | ((vpair)x >> 32)); }
MN_INLINE vf each_twice(const float *p, int n) { /* p0, p0, p1, p1, ...: n of them */
  vhalf h = {0};
  if (n == MN_VL / 2) memcpy(&h, p, sizeof h);
  else memcpy(&h, p, sizeof(float) * (size_t)n);
  vpair wide = __builtin_convertvector(h, vpair);
  return (vf)(wide | (wide << 32));
}

MN_INLINE void rope_rows(const mn_rope_rows *a, mn_dtype t) {
  int64_t K = a->K, half = K / 2;
  vf sign = vf_set1(a->inverse ? -1.0f : 1.0f);
  if (!a->interleaved) {
    FOR_VECTORS(
        half, vf c = F32(a->cos, i, n); vf s = F32(a->sin, i, n) * sign; for (int64_t h = 0; h < a->H; h++) {
          const void *x = row(t, a->x, h * a->x_step);
          void *y = row(t, a->y, h * K);
          vf first = vf_load_of(t, x, i, n);
          vf second = vf_load_of(t, x, i + half, n);
          vf_store_of(t, y, i, vf_fnma(second, s, first * c), n);
          vf_store_of(t, y, i + half, vf_fma(first, s, second * c), n);
        });
  } else {
    vf alternating = vf_select(vi_eq(vi_iota() & 1, vi_set1(0)), -sign, sign);
    FOR_VECTORS(
        K, vf c = each_twice(a->cos + i / 2, n / 2); vf s = each_twice(a->sin + i / 2, n / 2) * alternating;
        for (int64_t h = 0; h < a->H; h++) {
          vf v = vf_load_of(t, row(t, a->x, h * a->x_step), i, n);
          vf_store_of(t, row(t, a->y, h * K), i, vf_fma(swap_pairs(v), s, v * c), n);
        });
  }
}
static void rope(const mn_rope_rows *a) {
  if (a->type == MN_F32) rope_rows(a, MN_F32);
  else rope_rows(a, MN_BF16);
}

const mn_norm_isa MN_ISA_NAME(mn_norm_isa_table) = {norm, norm_grad, gated_norm, gated_norm_grad, softmax, softmax_grad, rope, add_rows};
