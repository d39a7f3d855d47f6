/* isa/loss.c - vector code of the cross-entropy: one row of logits at a time, which stays in the nearest caches for all
 * passes over it. */
#include "backend/cpu/isa/loss.h"
#include "backend/cpu/isa/vecmath.h"

/* Four vectors at a time: the maximum and the sum would otherwise wait for their own latency. */
#define STEP (4 * MN_VL)

static float row_max(int64_t n, const float *x) {
  vf m[4];
  for (int k = 0; k < 4; k++) m[k] = vf_set1(-INFINITY);
  int64_t i = 0;
  for (; i + STEP <= n; i += STEP)
    for (int k = 0; k < 4; k++) m[k] = vf_max(vf_load(x + i + k * MN_VL), m[k]);
  for (; i + MN_VL <= n; i += MN_VL) m[0] = vf_max(vf_load(x + i), m[0]);
  float most = vf_hmax(vf_max(vf_max(m[0], m[1]), vf_max(m[2], m[3])));
  for (; i < n; i++) most = x[i] > most ? x[i] : most;
  return most;
}

/* sum of exp(x - most); with `keep` the terms replace x. This is arithmetic: meanwhile the next row is fetched. */
MN_INLINE float sum_exp(int64_t n, const float *x, const float *next, float most, float *keep) {
  vf m = vf_set1(most), s[4] = {{0}, {0}, {0}, {0}};
  int64_t i = 0;
  for (; i + STEP <= n; i += STEP)
    for (int k = 0; k < 4; k++) {
      int64_t at = i + k * MN_VL;
      vf e = vf_exp(vf_load(x + at) - m);
      s[k] += e;
      __builtin_prefetch((const char *)next + at * (int64_t)sizeof(float), 0, 2);
      if (keep) vf_store(keep + at, e);
    }
  for (; i < n; i += MN_VL) {
    int lanes = n - i < MN_VL ? (int)(n - i) : MN_VL;
    vf e = vf_exp(vf_loadn(x + i, lanes) - m);
    if (lanes < MN_VL) e = vf_select(vm_first(lanes), e, vf_zero());
    s[0] += e;
    if (keep) vf_storen(keep + i, e, lanes);
  }
  return vf_sum((s[0] + s[1]) + (s[2] + s[3]));
}

static float nll_of(float most, float sum, float at_target) { return logf(sum) + (most - at_target); }

static float nll(int64_t vocab, const float *logits, const float *next, int64_t target) {
  float most = row_max(vocab, logits);
  return nll_of(most, sum_exp(vocab, logits, next, most, NULL), logits[target]);
}

static float nll_grad(int64_t vocab, float *logits, const float *next, int64_t target, float coef, bool bf16) {
  float most = row_max(vocab, logits), at_target = logits[target];
  float sum = sum_exp(vocab, logits, next, most, logits), loss = nll_of(most, sum, at_target);
  float g = coef * expm1f(-loss); /* p - 1 without cancellation */
  vf c = vf_set1(coef / sum);
  int64_t i = 0;
  if (bf16) { /* what is written lies at or before what was read */
    uint16_t *out = (uint16_t *)(void *)logits;
    for (; i + 2 * MN_VL <= vocab; i += 2 * MN_VL) vf_store2_bf16(out + i, vf_load(logits + i) * c, vf_load(logits + i + MN_VL) * c);
    for (; i + MN_VL <= vocab; i += MN_VL) vf_store_bf16(out + i, vf_load(logits + i) * c);
    if (i < vocab) vf_store_bf16n(out + i, vf_loadn(logits + i, (int)(vocab - i)) * c, (int)(vocab - i));
    uint16_t h = bf16_from_f32(g);
    memcpy(out + target, &h, sizeof h);
  } else {
    for (; i + MN_VL <= vocab; i += MN_VL) vf_store(logits + i, vf_load(logits + i) * c);
    if (i < vocab) vf_storen(logits + i, vf_loadn(logits + i, (int)(vocab - i)) * c, (int)(vocab - i));
    logits[target] = g;
  }
  return loss;
}

static void add_parts(int64_t n, int64_t parts, int64_t step, const float *x, bool bf16, void *out) {
  int64_t i = 0;
  for (; i + MN_VL <= n; i += MN_VL) {
    vf sum = vf_load(x + i);
    for (int64_t p = 1; p < parts; p++) sum += vf_load(x + p * step + i);
    if (bf16) vf_store_bf16((uint16_t *)out + i, sum);
    else vf_store((float *)out + i, sum);
  }
  for (; i < n; i++) {
    float sum = x[i];
    for (int64_t p = 1; p < parts; p++) sum += x[p * step + i];
    if (bf16) ((uint16_t *)out)[i] = bf16_from_f32(sum);
    else ((float *)out)[i] = sum;
  }
}

const mn_loss_isa MN_ISA_NAME(mn_loss_isa_table) = {nll, nll_grad, add_parts};
