/* conv_wide.c - the causal depthwise convolution with many taps. A group of 16 channels at a time is packed, so that its steps follow
 * each other in memory and stay in the first cache; then
 *     y_i += sum over j of w_j x_{i+j}                                                                    (isa/conv.h: wide)
 * is three things: the convolution (w the taps), the gradient of its input (x the arriving gradient, the taps reversed), and the
 * gradient of the taps (w the arriving gradient, y the taps'). Each element is summed in the order of its taps, as in conv.c, so a
 * sequence that is cut anywhere gives the same bits. */
#include "backend/cpu/conv.h"
#include "base/bf16.h"

#include <string.h>

enum { LANES = MN_CONV_LANES, TILE = 128, TAPS = 256, STEP = MN_CONV_STEP }; /* steps of a tile, taps at a time: as the cache holds */

static int64_t up(int64_t n) { return (n + STEP - 1) / STEP * STEP; }

typedef struct buffers {
  float *x, *taps, *y, *dy, *dw;
} buffers;

static int64_t x_rows(int64_t W) { return TILE + W + 2 * STEP; }

int64_t mn_conv_wide_groups(int64_t D) { return (D + LANES - 1) / LANES; }

size_t mn_conv_wide_scratch(int64_t W) { return sizeof(float) * LANES * (size_t)(x_rows(W) + 2 * up(W) + 2 * TILE); }

static buffers buffers_of(const mn_conv_job *j, int thread) {
  float *p = (float *)(j->scratch + (size_t)thread * j->each);
  buffers b = {.x = p};
  b.taps = b.x + LANES * x_rows(j->W);
  b.dw = b.taps + LANES * up(j->W);
  b.y = b.dw + LANES * up(j->W);
  b.dy = b.y + LANES * TILE;
  return b;
}

/* Channels [d, d + n) of a row, zeros beyond n. */
static void pack(float *to, const void *row, mn_dtype type, int64_t d, int64_t n) {
  if (type == MN_F32 && n == LANES) memcpy(to, (const float *)row + d, sizeof(float) * LANES);
  else if (type == MN_F32) memcpy(to, (const float *)row + d, sizeof(float) * (size_t)n);
  else
    for (int64_t i = 0; i < n; i++) to[i] = mn_bf16_to_float(((const uint16_t *)row)[d + i]);
  for (int64_t i = n; i < LANES; i++) to[i] = 0;
}

static void unpack(void *row, const float *from, mn_dtype type, int64_t d, int64_t n) {
  if (type == MN_F32) memcpy((float *)row + d, from, sizeof(float) * (size_t)n);
  else
    for (int64_t i = 0; i < n; i++) ((uint16_t *)row)[d + i] = mn_float_to_bf16(from[i]);
}

static void clear(float *rows, int64_t n) { memset(rows, 0, sizeof(float) * LANES * (size_t)n); }

/* The rows [t, t + n) of the input, or (dy) of the arriving gradient, which is zero beyond the last; then some rows of zeros. */
static void pack_rows(const mn_conv_job *j, float *to, bool dy, int64_t b, int64_t t, int64_t n, int64_t d, int64_t width) {
  for (int64_t k = 0; k < n; k++) {
    const void *row = !dy ? mn_conv_input(j, b, t + k) : t + k >= 0 && t + k < j->T ? mn_conv_row(j->dy, b, t + k) : j->zeros;
    pack(to + k * LANES, row, row == j->zeros ? MN_F32 : j->type, d, width);
  }
  clear(to + n * LANES, 2 * STEP);
}

/* y[n, LANES] += the convolution of x with taps[W, LANES]; n is a multiple of STEP. */
static void convolve(const mn_conv_job *j, int64_t n, int64_t W, const float *x, const float *taps, float *y) {
  for (int64_t at = 0; at < W; at += TAPS) j->isa->wide(n, W - at < TAPS ? W - at : TAPS, x + at * LANES, taps + at * LANES, y);
}

static void pack_taps(const mn_conv_job *j, float *to, int64_t d, int64_t width) {
  for (int64_t k = 0; k < j->W; k++) pack(to + k * LANES, j->taps + k * j->D, MN_F32, d, width);
}

typedef struct part { /* of the work: sequence b, steps [t, end), channels [d, d + width) */
  int64_t b, t, end, d, width, number;
} part;

static part part_of(const mn_conv_job *j, int64_t i) {
  part p = {.number = i / j->groups, .d = i % j->groups * LANES};
  p.b = p.number / j->per_row;
  p.t = p.number % j->per_row * j->per;
  p.end = p.t + j->per < j->T ? p.t + j->per : j->T;
  p.width = j->D - p.d < LANES ? j->D - p.d : LANES;
  return p;
}

void mn_conv_wide_task(void *ctx, int64_t i, int thread) {
  const mn_conv_job *j = ctx;
  const part p = part_of(j, i);
  const buffers s = buffers_of(j, thread);
  pack_taps(j, s.taps, p.d, p.width);
  for (int64_t t = p.t; t < p.end; t += TILE) {
    const int64_t n = p.end - t < TILE ? p.end - t : TILE;
    pack_rows(j, s.x, false, p.b, t - j->W + 1, n + j->W - 1, p.d, p.width);
    clear(s.y, up(n));
    for (int64_t k = 0; k < n && j->bias; k++) memcpy(s.y + k * LANES, j->bias + p.d, sizeof(float) * (size_t)p.width);
    convolve(j, up(n), j->W, s.x, s.taps, s.y);
    for (int64_t k = 0; k < n; k++)
      unpack(j->y + (p.b * j->T + t + k) * j->D * (int64_t)mn_dtype_size(j->type), s.y + k * LANES, j->type, p.d, p.width);
  }
}

/* dx_s = sum over k of w[W-1-k] dy_{s+k}, for s from 1 - W (the prefix) on. The task of the first steps does the prefix. */
static void input_gradient(const mn_conv_job *j, const part *p, const buffers *s) {
  pack_taps(j, s->taps, p->d, p->width);
  int64_t n;
  for (int64_t t = p->t == 0 && j->dprefix ? 1 - j->W : p->t; t < p->end; t += n) {
    const int64_t end = t < 0 ? 0 : p->end;
    n = end - t < TILE ? end - t : TILE;
    if (t >= 0 && !j->y) return;
    pack_rows(j, s->x, true, p->b, t, n + j->W - 1, p->d, p->width);
    clear(s->y, up(n));
    convolve(j, up(n), j->W, s->x, s->taps, s->y);
    for (int64_t k = 0; k < n; k++) unpack(mn_conv_dx(j, p->b, t + k), s->y + k * LANES, j->type, p->d, p->width);
  }
}

/* dw_j = sum over t of dy_t x_{t-W+1+j}: the part's share; and that of the bias. */
static void tap_gradient(const mn_conv_job *j, const part *p, const buffers *s) {
  const int64_t W = j->W;
  float bias[LANES] = {0}, *share = j->parts + p->number * (W + 1) * j->D + p->d;
  clear(s->dw, up(W));
  for (int64_t t = p->t; t < p->end; t += TILE) {
    const int64_t n = p->end - t < TILE ? p->end - t : TILE;
    pack_rows(j, s->x, false, p->b, t - W + 1, n + W - 1, p->d, p->width);
    for (int64_t k = 0; k < n; k++) {
      pack(s->dy + k * LANES, mn_conv_row(j->dy, p->b, t + k), j->type, p->d, p->width);
      for (int d = 0; d < LANES; d++) bias[d] += s->dy[k * LANES + d];
    }
    convolve(j, up(W), n, s->x, s->dy, s->dw);
  }
  for (int64_t k = 0; k < W; k++) memcpy(share + k * j->D, s->dw + k * LANES, sizeof(float) * (size_t)p->width);
  memcpy(share + W * j->D, bias, sizeof(float) * (size_t)p->width);
}

void mn_conv_wide_grad_task(void *ctx, int64_t i, int thread) {
  const mn_conv_job *j = ctx;
  const part p = part_of(j, i);
  const buffers s = buffers_of(j, thread);
  if (j->y || j->dprefix) input_gradient(j, &p, &s);
  if (j->parts) tap_gradient(j, &p, &s);
}
