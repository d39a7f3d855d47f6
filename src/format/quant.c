/* quant.c - what blocks say, value by value, as base/blocks.h writes it down. Kernels are held to this: nothing here is fast. */
#include "format/quant.h"

#include "base/bf16.h"
#include "base/blocks.h"
#include "base/f16.h"

#include <math.h>
#include <string.h>

bool mn_quant_knows(mn_dtype type) { return type == MN_F32 || type == MN_BF16 || mn_dtype_is_stored(type); }

static int low(uint8_t byte) { return byte & 15; }
static int high(uint8_t byte) { return byte >> 4; }

/* ---- plain blocks: value j in a low half, value j + 16 in the high one ---- */

static void read_q4_0(const void *from, float *y) {
  const mn_q4_0 *b = from;
  const float d = mn_f16_to_float(b->d);
  for (int j = 0; j < 16; j++) {
    y[j] = d * (float)(low(b->qs[j]) - 8);
    y[j + 16] = d * (float)(high(b->qs[j]) - 8);
  }
}

static void read_q4_1(const void *from, float *y) {
  const mn_q4_1 *b = from;
  const float d = mn_f16_to_float(b->d), m = mn_f16_to_float(b->m);
  for (int j = 0; j < 16; j++) {
    y[j] = d * (float)low(b->qs[j]) + m;
    y[j + 16] = d * (float)high(b->qs[j]) + m;
  }
}

/* The fifth bit of value j. */
static int fifth(const uint8_t qh[4], int j) { return (qh[j / 8] >> j % 8 & 1) << 4; }

static void read_q5_0(const void *from, float *y) {
  const mn_q5_0 *b = from;
  const float d = mn_f16_to_float(b->d);
  for (int j = 0; j < 16; j++) {
    y[j] = d * (float)((low(b->qs[j]) | fifth(b->qh, j)) - 16);
    y[j + 16] = d * (float)((high(b->qs[j]) | fifth(b->qh, j + 16)) - 16);
  }
}

static void read_q5_1(const void *from, float *y) {
  const mn_q5_1 *b = from;
  const float d = mn_f16_to_float(b->d), m = mn_f16_to_float(b->m);
  for (int j = 0; j < 16; j++) {
    y[j] = d * (float)(low(b->qs[j]) | fifth(b->qh, j)) + m;
    y[j + 16] = d * (float)(high(b->qs[j]) | fifth(b->qh, j + 16)) + m;
  }
}

static void read_q8_0(const void *from, float *y) {
  const mn_q8_0 *b = from;
  const float d = mn_f16_to_float(b->d);
  for (int j = 0; j < 32; j++) y[j] = d * (float)b->qs[j];
}

static void read_iq4_nl(const void *from, float *y) {
  const mn_iq4_nl *b = from;
  const float d = mn_f16_to_float(b->d);
  for (int j = 0; j < 16; j++) {
    y[j] = d * (float)mn_iq4_values[low(b->qs[j])];
    y[j + 16] = d * (float)mn_iq4_values[high(b->qs[j])];
  }
}

static void read_mxfp4(const void *from, float *y) {
  const mn_mxfp4 *b = from;
  const float d = ldexpf(1, b->e - 128);
  for (int j = 0; j < 16; j++) {
    y[j] = d * (float)mn_fp4_values[low(b->qs[j])];
    y[j + 16] = d * (float)mn_fp4_values[high(b->qs[j])];
  }
}

/* ---- blocks with scales within ---- value i: of the g-th 128 the k-th 32, place l in it: i = 128 g + 32 k + l */

static void read_q2_k(const void *from, float *y) {
  const mn_q2_k *b = from;
  const float d = mn_f16_to_float(b->d), dmin = mn_f16_to_float(b->dmin);
  for (int i = 0; i < MN_SUPER; i++) {
    int g = i / 128, k = i % 128 / 32, l = i % 32;
    const float scale = d * (float)low(b->scales[i / 16]), min = dmin * (float)high(b->scales[i / 16]);
    y[i] = scale * (float)(b->qs[32 * g + l] >> 2 * k & 3) - min;
  }
}

static void read_q3_k(const void *from, float *y) {
  const mn_q3_k *b = from;
  const float d = mn_f16_to_float(b->d);
  for (int i = 0; i < MN_SUPER; i++) {
    int g = i / 128, k = i % 128 / 32, l = i % 32;
    int q = (b->qs[32 * g + l] >> 2 * k & 3) - (b->hmask[l] >> i / 32 & 1 ? 0 : 4);
    y[i] = d * (float)mn_k3_scale(b->scales, i / 16) * (float)q;
  }
}

/* Nibble i of 256: of the g-th 64, low halves and then high ones. */
static int nibble(const uint8_t *qs, int i) {
  uint8_t byte = qs[i / 64 * 32 + i % 32];
  return i % 64 < 32 ? low(byte) : high(byte);
}

static void read_q4_k(const void *from, float *y) {
  const mn_q4_k *b = from;
  const float d = mn_f16_to_float(b->d), dmin = mn_f16_to_float(b->dmin);
  for (int i = 0; i < MN_SUPER; i++) {
    int scale, min;
    mn_k4_scale(b->scales, i / 32, &scale, &min);
    y[i] = d * (float)scale * (float)nibble(b->qs, i) - dmin * (float)min;
  }
}

static void read_q5_k(const void *from, float *y) {
  const mn_q5_k *b = from;
  const float d = mn_f16_to_float(b->d), dmin = mn_f16_to_float(b->dmin);
  for (int i = 0; i < MN_SUPER; i++) {
    int scale, min, q = nibble(b->qs, i) | (b->qh[i % 32] >> i / 32 & 1) << 4;
    mn_k4_scale(b->scales, i / 32, &scale, &min);
    y[i] = d * (float)scale * (float)q - dmin * (float)min;
  }
}

static void read_q6_k(const void *from, float *y) {
  const mn_q6_k *b = from;
  const float d = mn_f16_to_float(b->d);
  for (int i = 0; i < MN_SUPER; i++) {
    int g = i / 128, k = i % 128 / 32, l = i % 32;
    uint8_t byte = b->ql[64 * g + 32 * (k % 2) + l];
    int q = (k < 2 ? low(byte) : high(byte)) | (b->qh[32 * g + l] >> 2 * k & 3) << 4;
    y[i] = d * (float)b->scales[i / 16] * (float)(q - 32);
  }
}

static void read_iq4_xs(const void *from, float *y) {
  const mn_iq4_xs *b = from;
  const float d = mn_f16_to_float(b->d);
  for (int i = 0; i < MN_SUPER; i++) {
    uint8_t byte = b->qs[i / 32 * 16 + i % 16];
    y[i] = d * (float)mn_iq4_scale(b, i / 32) * (float)mn_iq4_values[i % 32 < 16 ? low(byte) : high(byte)];
  }
}

/* ---- plain numbers ---- */

static void read_f32(const void *from, float *y) { memcpy(y, from, 4); }

static void read_f16(const void *from, float *y) {
  uint16_t h;
  memcpy(&h, from, 2);
  *y = mn_f16_to_float(h);
}

static void read_bf16(const void *from, float *y) {
  uint16_t h;
  memcpy(&h, from, 2);
  *y = mn_bf16_to_float(h);
}

typedef void (*reader)(const void *from, float *y);

static const reader readers[MN_ALL_TYPES] = {
    [MN_F32] = read_f32,       [MN_F16] = read_f16,     [MN_BF16] = read_bf16, [MN_STORED_BF16] = read_bf16, [MN_Q4_0] = read_q4_0,
    [MN_Q4_1] = read_q4_1,     [MN_Q5_0] = read_q5_0,   [MN_Q5_1] = read_q5_1, [MN_Q8_0] = read_q8_0,        [MN_Q2_K] = read_q2_k,
    [MN_Q3_K] = read_q3_k,     [MN_Q4_K] = read_q4_k,   [MN_Q5_K] = read_q5_k, [MN_Q6_K] = read_q6_k,        [MN_IQ4_NL] = read_iq4_nl,
    [MN_IQ4_XS] = read_iq4_xs, [MN_MXFP4] = read_mxfp4,
};

void mn_dequantize(mn_dtype type, const void *from, int64_t n, float *to) {
  const int64_t values = mn_block_values(type);
  const size_t bytes = mn_block_bytes(type);
  _Alignas(8) uint8_t block[sizeof(mn_q6_k)]; /* the largest; the caller's may be unaligned */
  for (int64_t i = 0; i < n / values; i++) {
    memcpy(block, (const uint8_t *)from + (size_t)i * bytes, bytes);
    readers[type](block, to + i * values);
  }
}
