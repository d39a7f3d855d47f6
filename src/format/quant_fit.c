/* quant_fit.c - scales by trial: each is measured with the levels that are nearest under it, then improved by least squares for those
 * levels and measured again. So a result is never worse than any of the scales that were tried, and those of plain rules (the largest
 * value at the last level) are among them. */
#include "format/quant_fit.h"

#include "base/f16.h"

#include <math.h>

/* Below this a scale is none: its inverse would not be a number. */
#define NOTHING 1e-30f

static float clamped(float v, float lo, float hi) { return v < lo ? lo : v > hi ? hi : v; }
static float halved(float v, bool half) { return half ? mn_f16_to_float(mn_float_to_f16(v)) : v; }

/* Sums go in so many lanes, each in its own order: the loops below have vector forms and always the same bits. */
enum { LANES = 16 };

static float sum_of(const float *lane) {
  float sum = 0;
  for (int k = 0; k < LANES; k++) sum += lane[k];
  return sum;
}

/* The level of the table that is nearest to each of the lanes. */
static void nearest_in(const int8_t *table, const float *from, float *to) {
  for (int k = 0; k < LANES; k++) to[k] = (float)table[0];
  for (int at = 0; at < 15; at++) {
    const float middle = 0.5f * (float)(table[at] + table[at + 1]), step = (float)(table[at + 1] - table[at]);
    for (int k = 0; k < LANES; k++) to[k] += from[k] >= middle ? step : 0;
  }
}

static void levels_of(const mn_levels *l, const float *x, float inverse, float *v) {
  const float lo = (float)l->lo, hi = (float)l->hi;
  float scaled[LANES];
  for (int k = 0; k < LANES; k++) scaled[k] = x[k] * inverse;
  if (l->table) nearest_in(l->table, scaled, v);
  else
    for (int k = 0; k < LANES; k++) v[k] = clamped(rintf(scaled[k]), lo, hi);
}

mn_fit mn_fit_scale(const mn_levels *l, const float *x, const float *w, int n, float s) {
  const float inverse = fabsf(s) < NOTHING ? 0 : 1 / s;
  float error[LANES] = {0}, xv[LANES] = {0}, vv[LANES] = {0}, v[LANES];
  for (int i = 0; i < n; i += LANES) {
    levels_of(l, x + i, inverse, v);
    for (int k = 0; k < LANES; k++) {
      const float r = x[i + k] - s * v[k], wv = w[i + k] * v[k];
      error[k] += w[i + k] * r * r;
      xv[k] += wv * x[i + k];
      vv[k] += wv * v[k];
    }
  }
  return (mn_fit){.error = sum_of(error), .xv = sum_of(xv), .vv = sum_of(vv)};
}

void mn_take_levels(const mn_levels *l, const float *x, int n, float s, int8_t *q) {
  const float inverse = fabsf(s) < NOTHING ? 0 : 1 / s;
  float v[LANES];
  for (int i = 0; i < n; i += LANES) {
    levels_of(l, x + i, inverse, v);
    for (int k = 0; k < LANES; k++) {
      int at = (int)v[k];
      if (l->table)
        for (at = 0; (float)l->table[at] < v[k]; at++) {
        }
      q[i + k] = (int8_t)at;
    }
  }
}

static float largest(const float *x, int n) { /* in magnitude, with its sign */
  float at = 0;
  for (int i = 0; i < n; i++)
    if (fabsf(x[i]) > fabsf(at)) at = x[i];
  return at;
}

/* Measures s and takes it where it is better; what least squares makes of it goes to *next. False: nothing. */
static bool try_scale(const mn_levels *l, const float *x, const float *w, int n, float s, float *best, float *error, mn_fit *f) {
  *f = mn_fit_scale(l, x, w, n, s);
  if (f->error < *error) *error = f->error, *best = s;
  return f->vv > 0;
}

float mn_best_scale(const mn_levels *l, const float *x, const float *w, int n, bool half) {
  const float max = largest(x, n), step = l->table ? 1.5f : 0.1f;
  float best = 0, error = mn_fit_scale(l, x, w, n, 0).error, gain = 0, next = 0;
  mn_fit f;
  if (fabsf(max) < NOTHING) return 0;
  /* The largest value at the last level, a little inside or outside of it: at the lower end, and now and then at the upper one. Least
   * squares for the levels of s takes xv^2 / vv off the error. */
  for (int k = -9; k <= 12; k++)
    for (int end = 0; end < (k % 4 ? 1 : 2); end++) {
      float s = max / (end ? (float)l->hi + step * (float)k : (float)l->lo - step * (float)k);
      if (!isfinite(s) || !try_scale(l, x, w, n, halved(s, half), &best, &error, &f)) continue;
      if (f.xv * f.xv > gain * f.vv) gain = f.xv * f.xv / f.vv, next = f.xv / f.vv;
    }
  for (int turn = 0; turn < 3 && next != 0; turn++) { /* and again, with the levels that are then nearest */
    float s = halved(next, half);
    next = try_scale(l, x, w, n, s, &best, &error, &f) ? f.xv / f.vv : 0;
  }
  return best;
}

/* ---- with a minimum ---- */

typedef struct sums { /* over the nearest levels under (s, m) */
  double error, q, qq, xq;
} sums;

static sums measure(int hi, const float *x, const float *w, int n, float s, float m) {
  const float inverse = s < NOTHING ? 0 : 1 / s, top = (float)hi;
  float error[LANES] = {0}, sq[LANES] = {0}, qq[LANES] = {0}, xq[LANES] = {0};
  for (int i = 0; i < n; i += LANES)
    for (int k = 0; k < LANES; k++) {
      const float q = clamped(rintf((x[i + k] + m) * inverse), 0, top), r = x[i + k] - (s * q - m), wq = w[i + k] * q;
      error[k] += w[i + k] * r * r;
      sq[k] += wq;
      qq[k] += wq * q;
      xq[k] += wq * x[i + k];
    }
  return (sums){.error = (double)sum_of(error), .q = (double)sum_of(sq), .qq = (double)sum_of(qq), .xq = (double)sum_of(xq)};
}

float mn_affine_error(int hi, const float *x, const float *w, int n, float s, float m) { return (float)measure(hi, x, w, n, s, m).error; }

void mn_take_affine(int hi, const float *x, int n, float s, float m, int8_t *q) {
  const float inverse = s < NOTHING ? 0 : 1 / s;
  for (int i = 0; i < n; i++) q[i] = (int8_t)clamped(rintf((x[i] + m) * inverse), 0, (float)hi);
}

/* What least squares makes of the levels of f: the new (s, m) and, as its worth, what it takes off the error of x = 0. */
static bool solve(const sums *f, double sum_w, double sum_x, bool positive, mn_affine *out) {
  double d = sum_w * f->qq - f->q * f->q;
  if (!(d > 0)) return false;
  double s = (sum_w * f->xq - sum_x * f->q) / d, m = (f->q * f->xq - f->qq * sum_x) / d;
  if (positive && m < 0) m = 0, s = f->xq / f->qq;
  *out = (mn_affine){.error = s * f->xq - m * sum_x, .s = s, .m = m};
  return s > NOTHING;
}

mn_affine mn_best_affine(int hi, const float *x, const float *w, int n, bool positive, bool half) {
  float least = x[0], most = x[0];
  double sum_w = 0, sum_x = 0;
  for (int i = 0; i < n; i++) {
    least = x[i] < least ? x[i] : least;
    most = x[i] > most ? x[i] : most;
    sum_w += w[i];
    sum_x += w[i] * x[i];
  }
  if (positive && least > 0) least = 0;
  mn_affine best = {.m = halved(-least, half)}, next = {.error = -INFINITY}, better;
  best.error = measure(hi, x, w, n, 0, best.m).error;
  if (most - least < NOTHING) return best;
  const float step = hi > 3 ? 0.1f : 0.05f;
  for (int k = -10; k <= 10; k++) { /* the whole range over a little more or less than the levels */
    float s = halved((most - least) / ((float)hi + step * (float)k), half), m = halved(-least, half);
    sums f = measure(hi, x, w, n, s, m);
    if (f.error < best.error) best = (mn_affine){.error = f.error, .s = s, .m = m};
    if (solve(&f, sum_w, sum_x, positive, &better) && better.error > next.error) next = better;
  }
  for (int turn = 0; turn < 3 && next.s > NOTHING; turn++) { /* and again, with the levels that are then nearest */
    float s = halved(next.s, half), m = halved(next.m, half);
    sums f = measure(hi, x, w, n, s, m);
    if (f.error < best.error) best = (mn_affine){.error = f.error, .s = s, .m = m};
    if (!solve(&f, sum_w, sum_x, positive, &next)) break;
  }
  return best;
}
