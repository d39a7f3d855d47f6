/* quant_encode.c - blocks made from values: scales by the searches of quant_fit.h, measured as they will be stored (rounded to f16,
 * or a whole number of steps), then the levels that are nearest under them. */
#include "format/quant.h"

#include "base/bf16.h"
#include "base/blocks.h"
#include "base/f16.h"
#include "base/finite.h"
#include "format/quant_fit.h"

#include <math.h>
#include <string.h>

static const mn_levels four_bits = {-8, 7, NULL}, five_bits = {-16, 15, NULL}, eight_bits = {-127, 127, NULL}, three_bits = {-4, 3, NULL},
                       six_bits = {-32, 31, NULL}, iq4 = {-127, 113, mn_iq4_values};

static float half(float v) { return mn_f16_to_float(mn_float_to_f16(v)); }

/* ---- weights ---- */

static void root_weights(const float *x, int n, float *w) {
  float sum = 0;
  for (int i = 0; i < n; i++) sum += x[i] * x[i];
  const float rms = sqrtf(sum / (float)n);
  for (int i = 0; i < n; i++) w[i] = rms + fabsf(x[i]);
}

/* Values that share a scale. */
static int group_of(mn_dtype type) { return type == MN_Q2_K || type == MN_Q3_K || type == MN_Q6_K ? 16 : 32; }

void mn_quant_weights(mn_dtype type, const float *x, int n, float *w) {
  const int group = group_of(type);
  for (int at = 0; at < n; at += group) root_weights(x + at, group, w + at);
}

/* ---- plain blocks ---- */

static void pack_nibbles(const int8_t *q, int plus, uint8_t *qs) {
  for (int j = 0; j < 16; j++) qs[j] = (uint8_t)(((q[j] + plus) & 15) | ((q[j + 16] + plus) & 15) << 4);
}

static void pack_fifth(const int8_t *q, int plus, uint8_t *qh) {
  memset(qh, 0, 4);
  for (int j = 0; j < 32; j++) qh[j / 8] |= (uint8_t)(((q[j] + plus) >> 4 & 1) << j % 8);
}

static void make_q4_0(const float *x, const float *w, void *to) {
  mn_q4_0 *b = to;
  int8_t q[32];
  const float d = mn_best_scale(&four_bits, x, w, 32, true);
  b->d = mn_float_to_f16(d);
  mn_take_levels(&four_bits, x, 32, d, q);
  pack_nibbles(q, 8, b->qs);
}

static void make_q4_1(const float *x, const float *w, void *to) {
  mn_q4_1 *b = to;
  int8_t q[32];
  const mn_affine a = mn_best_affine(15, x, w, 32, false, true);
  b->d = mn_float_to_f16(a.s);
  b->m = mn_float_to_f16(-a.m);
  mn_take_affine(15, x, 32, a.s, a.m, q);
  pack_nibbles(q, 0, b->qs);
}

static void make_q5_0(const float *x, const float *w, void *to) {
  mn_q5_0 *b = to;
  int8_t q[32];
  const float d = mn_best_scale(&five_bits, x, w, 32, true);
  b->d = mn_float_to_f16(d);
  mn_take_levels(&five_bits, x, 32, d, q);
  pack_nibbles(q, 16, b->qs);
  pack_fifth(q, 16, b->qh);
}

static void make_q5_1(const float *x, const float *w, void *to) {
  mn_q5_1 *b = to;
  int8_t q[32];
  const mn_affine a = mn_best_affine(31, x, w, 32, false, true);
  b->d = mn_float_to_f16(a.s);
  b->m = mn_float_to_f16(-a.m);
  mn_take_affine(31, x, 32, a.s, a.m, q);
  pack_nibbles(q, 0, b->qs);
  pack_fifth(q, 0, b->qh);
}

static void make_q8_0(const float *x, const float *w, void *to) {
  mn_q8_0 *b = to;
  const float d = mn_best_scale(&eight_bits, x, w, 32, true);
  b->d = mn_float_to_f16(d);
  mn_take_levels(&eight_bits, x, 32, d, b->qs);
}

static void make_iq4_nl(const float *x, const float *w, void *to) {
  mn_iq4_nl *b = to;
  int8_t q[32];
  const float d = mn_best_scale(&iq4, x, w, 32, true);
  b->d = mn_float_to_f16(d);
  mn_take_levels(&iq4, x, 32, d, q);
  pack_nibbles(q, 0, b->qs);
}

/* The power of two is floor(log2 max) - 2, so that the largest value is below 8 of them, or the one on either side. Values are their
 * magnitude and a sign, of 8 each; the table is not in order. */
static void make_mxfp4(const float *x, const float *w, void *to) {
  mn_mxfp4 *b = to;
  float max = 0, least = INFINITY;
  for (int i = 0; i < 32; i++) max = fabsf(x[i]) > max ? fabsf(x[i]) : max;
  memset(b, 0, sizeof *b);
  if (max == 0) return;
  const int usual = (int)floorf(log2f(max)) - 2 + 127;
  for (int e = usual - 1; e <= usual + 1; e++) {
    if (e < 0 || e > 254) continue;
    int8_t q[32];
    float error = 0;
    const float d = ldexpf(1, e - 128);
    for (int i = 0; i < 32; i++) {
      float nearest = INFINITY;
      for (int k = 0; k < 16; k++) {
        float r = fabsf(x[i] - d * (float)mn_fp4_values[k]);
        if (r < nearest) nearest = r, q[i] = (int8_t)k;
      }
      error += w[i] * nearest * nearest;
    }
    if (error >= least) continue;
    least = error;
    b->e = (uint8_t)e;
    pack_nibbles(q, 0, b->qs);
  }
}

/* ---- blocks with scales within ---- */

typedef struct super {     /* a block of 256 while it is made: x = d scale v, or d scale q - dmin min */
  const mn_levels *levels; /* NULL: with minima */
  int group, top;          /* values of a scale; the last level of q where there are minima */
  int scale_lo, scale_hi;  /* of the whole numbers that scales may be; minima from 0 */
  const float *x, *w;
  float d, dmin, error;
  int scale[16], min[16];
  int8_t q[MN_SUPER];
} super;

static float group_error(const super *s, int j, int scale, int min) {
  const float *x = s->x + j * s->group, *w = s->w + j * s->group;
  if (s->levels) return mn_fit_scale(s->levels, x, w, s->group, s->d * (float)scale).error;
  return mn_affine_error(s->top, x, w, s->group, s->d * (float)scale, s->dmin * (float)min);
}

static int whole(float v, float unit, int lo, int hi) {
  float q = unit == 0 ? 0 : rintf(v / unit);
  return q < (float)lo ? lo : q > (float)hi ? hi : (int)q;
}

/* With d and dmin as they stand: for every group the whole numbers near what it asks for whose error is least. */
static void choose_scales(super *s, const mn_affine *want) {
  s->error = 0;
  for (int j = 0; j < MN_SUPER / s->group; j++) {
    const int scale = whole(want[j].s, s->d, s->scale_lo, s->scale_hi), min = whole(want[j].m, s->dmin, 0, s->scale_hi),
              wide = s->levels ? 0 : 1;
    float least = INFINITY;
    for (int a = scale - 1; a <= scale + 1; a++)
      for (int b = min - wide; b <= min + wide; b++) {
        if (a < s->scale_lo || a > s->scale_hi || b < 0 || b > s->scale_hi) continue;
        float error = group_error(s, j, a, b);
        if (error < least) least = error, s->scale[j] = a, s->min[j] = b;
      }
    s->error += least;
  }
}

static void take_all(super *s) {
  for (int j = 0; j < MN_SUPER / s->group; j++) {
    const float *x = s->x + j * s->group;
    const float scale = s->d * (float)s->scale[j], min = s->dmin * (float)s->min[j];
    if (s->levels) mn_take_levels(s->levels, x, s->group, scale, s->q + j * s->group);
    else mn_take_affine(s->top, x, s->group, scale, min, s->q + j * s->group);
  }
}

/* d and dmin by least squares for the levels and whole numbers as they stand: x = d a - dmin b. */
static void solve_units(const super *s, float *d, float *dmin) {
  double aa = 0, ab = 0, bb = 0, xa = 0, xb = 0;
  for (int i = 0; i < MN_SUPER; i++) {
    const int j = i / s->group, v = s->levels && s->levels->table ? s->levels->table[s->q[i]] : s->q[i];
    const double w = (double)s->w[i], x = (double)s->x[i], a = (double)s->scale[j] * v, b = -(double)s->min[j];
    aa += w * a * a;
    ab += w * a * b;
    bb += w * b * b;
    xa += w * x * a;
    xb += w * x * b;
  }
  const double det = aa * bb - ab * ab;
  if (bb > 0 && det > 1e-12 * aa * bb) {
    *d = (float)((xa * bb - xb * ab) / det);
    *dmin = (float)((xb * aa - xa * ab) / det);
  } else if (aa > 0) *d = (float)(xa / aa);
}

/* Scales of the groups alone; then their unit d so that the largest is the last whole number; then both in turn while it helps. */
static void make_super(super *s) {
  mn_affine want[16];
  float most = 0, most_min = 0;
  for (int j = 0; j < MN_SUPER / s->group; j++) {
    const float *x = s->x + j * s->group, *w = s->w + j * s->group;
    if (s->levels) want[j] = (mn_affine){.s = mn_best_scale(s->levels, x, w, s->group, false)};
    else want[j] = mn_best_affine(s->top, x, w, s->group, true, false);
    if (fabsf(want[j].s) > fabsf(most)) most = want[j].s;
    if (want[j].m > most_min) most_min = want[j].m;
  }
  s->d = half(most / (float)(s->scale_lo ? s->scale_lo : s->scale_hi));
  s->dmin = half(most_min / (float)s->scale_hi);
  choose_scales(s, want);
  take_all(s);
  for (int turn = 0; turn < 3; turn++) {
    super t = *s;
    solve_units(&t, &t.d, &t.dmin);
    t.d = half(t.d);
    t.dmin = half(t.dmin);
    if (!(t.dmin >= 0)) t.dmin = 0;
    if (!isfinite(t.d) || !isfinite(t.dmin) || (!t.levels && t.d < 0)) return;
    choose_scales(&t, want);
    if (!(t.error < s->error)) return;
    take_all(&t);
    *s = t;
  }
}

/* Two bits of each value, as 32 bytes for 128. */
static void pack_pairs(const int8_t *q, int plus, uint8_t *qs) {
  memset(qs, 0, MN_SUPER / 4);
  for (int i = 0; i < MN_SUPER; i++) qs[i / 128 * 32 + i % 32] |= (uint8_t)(((q[i] + plus) & 3) << 2 * (i % 128 / 32));
}

/* Four bits of each value, as 32 bytes for 64. */
static void pack_halves(const int8_t *q, uint8_t *qs) {
  memset(qs, 0, MN_SUPER / 2);
  for (int i = 0; i < MN_SUPER; i++) qs[i / 64 * 32 + i % 32] |= (uint8_t)((q[i] & 15) << (i % 64 < 32 ? 0 : 4));
}

static void pack_k4_scales(const super *s, uint8_t out[12]) {
  memset(out, 0, 12);
  for (int j = 0; j < 4; j++) {
    out[j] = (uint8_t)(s->scale[j] | s->scale[j + 4] >> 4 << 6);
    out[j + 4] = (uint8_t)(s->min[j] | s->min[j + 4] >> 4 << 6);
    out[j + 8] = (uint8_t)((s->scale[j + 4] & 15) | (s->min[j + 4] & 15) << 4);
  }
}

static void make_q2_k(const float *x, const float *w, void *to) {
  mn_q2_k *b = to;
  super s = {.group = 16, .top = 3, .scale_hi = 15, .x = x, .w = w};
  make_super(&s);
  b->d = mn_float_to_f16(s.d);
  b->dmin = mn_float_to_f16(s.dmin);
  for (int j = 0; j < 16; j++) b->scales[j] = (uint8_t)(s.scale[j] | s.min[j] << 4);
  pack_pairs(s.q, 0, b->qs);
}

static void make_q3_k(const float *x, const float *w, void *to) {
  mn_q3_k *b = to;
  super s = {.levels = &three_bits, .group = 16, .scale_lo = -32, .scale_hi = 31, .x = x, .w = w};
  make_super(&s);
  b->d = mn_float_to_f16(s.d);
  memset(b->scales, 0, sizeof b->scales);
  memset(b->hmask, 0, sizeof b->hmask);
  for (int j = 0; j < 16; j++) {
    const int v = s.scale[j] + 32;
    b->scales[j % 8] |= (uint8_t)((v & 15) << (j < 8 ? 0 : 4));
    b->scales[8 + j % 4] |= (uint8_t)(v >> 4 << 2 * (j / 4));
  }
  for (int i = 0; i < MN_SUPER; i++) b->hmask[i % 32] |= (uint8_t)((s.q[i] >= 0) << i / 32);
  pack_pairs(s.q, 4, b->qs);
}

static void make_q4_k(const float *x, const float *w, void *to) {
  mn_q4_k *b = to;
  super s = {.group = 32, .top = 15, .scale_hi = 63, .x = x, .w = w};
  make_super(&s);
  b->d = mn_float_to_f16(s.d);
  b->dmin = mn_float_to_f16(s.dmin);
  pack_k4_scales(&s, b->scales);
  pack_halves(s.q, b->qs);
}

static void make_q5_k(const float *x, const float *w, void *to) {
  mn_q5_k *b = to;
  super s = {.group = 32, .top = 31, .scale_hi = 63, .x = x, .w = w};
  make_super(&s);
  b->d = mn_float_to_f16(s.d);
  b->dmin = mn_float_to_f16(s.dmin);
  pack_k4_scales(&s, b->scales);
  pack_halves(s.q, b->qs);
  memset(b->qh, 0, sizeof b->qh);
  for (int i = 0; i < MN_SUPER; i++) b->qh[i % 32] |= (uint8_t)((s.q[i] >> 4 & 1) << i / 32);
}

static void make_q6_k(const float *x, const float *w, void *to) {
  mn_q6_k *b = to;
  super s = {.levels = &six_bits, .group = 16, .scale_lo = -128, .scale_hi = 127, .x = x, .w = w};
  make_super(&s);
  b->d = mn_float_to_f16(s.d);
  for (int j = 0; j < 16; j++) b->scales[j] = (int8_t)s.scale[j];
  memset(b->ql, 0, sizeof b->ql);
  memset(b->qh, 0, sizeof b->qh);
  for (int i = 0; i < MN_SUPER; i++) {
    const int g = i / 128, k = i % 128 / 32, l = i % 32, q = s.q[i] + 32;
    b->ql[64 * g + 32 * (k % 2) + l] |= (uint8_t)((q & 15) << (k < 2 ? 0 : 4));
    b->qh[32 * g + l] |= (uint8_t)(q >> 4 << 2 * k);
  }
}

static void make_iq4_xs(const float *x, const float *w, void *to) {
  mn_iq4_xs *b = to;
  super s = {.levels = &iq4, .group = 32, .scale_lo = -32, .scale_hi = 31, .x = x, .w = w};
  make_super(&s);
  memset(b, 0, sizeof *b);
  b->d = mn_float_to_f16(s.d);
  for (int j = 0; j < 8; j++) {
    const int v = s.scale[j] + 32;
    b->scales_l[j / 2] |= (uint8_t)((v & 15) << 4 * (j % 2));
    b->scales_h |= (uint16_t)(v >> 4 << 2 * j);
    pack_nibbles(s.q + 32 * j, 0, b->qs + 16 * j);
  }
}

/* ---- all ---- */

typedef void (*maker)(const float *x, const float *w, void *to);

static const struct {
  maker make;
  float most; /* the largest magnitude, so that f16 holds the scales */
} makers[MN_ALL_TYPES] = {
    [MN_Q4_0] = {make_q4_0, 65504.0f * 7},
    [MN_Q4_1] = {make_q4_1, 65504},
    [MN_Q5_0] = {make_q5_0, 65504.0f * 15},
    [MN_Q5_1] = {make_q5_1, 65504},
    [MN_Q8_0] = {make_q8_0, 65504.0f * 126},
    [MN_Q2_K] = {make_q2_k, 65504},
    [MN_Q3_K] = {make_q3_k, 65504.0f * 64},
    [MN_Q4_K] = {make_q4_k, 65504},
    [MN_Q5_K] = {make_q5_k, 65504},
    [MN_Q6_K] = {make_q6_k, 65504.0f * 1024},
    [MN_IQ4_NL] = {make_iq4_nl, 65504.0f * 64},
    [MN_IQ4_XS] = {make_iq4_xs, 65504.0f * 1024},
    [MN_MXFP4] = {make_mxfp4, 0x1p126f},
    [MN_F16] = {NULL, 65504},
    [MN_BF16] = {NULL, 0x1.fefffep127f}, /* what is larger rounds to infinity */
    [MN_STORED_BF16] = {NULL, 0x1.fefffep127f},
};

typedef struct work {
  mn_dtype type;
  const float *from;
  int64_t n, part; /* values in all; of one task, whole blocks */
  uint8_t *to;
} work;

static void make_part(void *ctx, int64_t i, int thread) {
  (void)thread;
  const work *k = ctx;
  const int64_t values = mn_block_values(k->type), end = (i + 1) * k->part < k->n ? (i + 1) * k->part : k->n;
  const size_t bytes = mn_block_bytes(k->type);
  _Alignas(8) uint8_t block[sizeof(mn_q6_k)];
  float w[MN_SUPER];
  for (int64_t at = i * k->part; at < end; at += values) {
    const float *x = k->from + at;
    if (k->type == MN_F32) memcpy(block, x, 4);
    else if (k->type == MN_F16) memcpy(block, &(uint16_t){mn_float_to_f16(*x)}, 2);
    else if (mn_dtype_plain(k->type) == MN_BF16) memcpy(block, &(uint16_t){mn_float_to_bf16(*x)}, 2);
    else {
      mn_quant_weights(k->type, x, (int)values, w);
      makers[k->type].make(x, w, block);
    }
    memcpy(k->to + (size_t)(at / values) * bytes, block, bytes);
  }
}

mn_status mn_quantize(mn_pool *pool, mn_dtype type, const float *from, int64_t n, void *to) {
  const float most = makers[type].most;
  const int64_t bad = mn_first_not_finite(MN_F32, from, n), part = 4096;
  if (bad >= 0) return mn_fail(MN_ERR_NUMERIC, "value %lld is %s", (long long)bad, mn_not_finite_name(MN_F32, from, bad));
  for (int64_t i = 0; most > 0 && i < n; i++)
    if (fabsf(from[i]) > most)
      return mn_fail(MN_ERR_NUMERIC, "value %lld is %g, but %s holds %g at most", (long long)i, (double)from[i], mn_dtype_name(type),
                     (double)most);
  work k = {.type = type, .from = from, .n = n, .part = part, .to = to};
  mn_pool_run(pool, (n + part - 1) / part, make_part, &k);
  return MN_OK;
}
