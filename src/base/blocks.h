/* blocks.h - how values lie in files that hold them in blocks: a block is so many values of one row that share scales. The layouts are
 * those of GGUF files; of the scales d and m are f16, all is little-endian, and nothing is padded. What a block means:
 *
 *   q4_0  x = d (q - 8)            q4_1  x = d q + m           nibbles: byte j holds value j in its low half, value j + 16 above
 *   q5_0  x = d (q - 16)           q5_1  x = d q + m           bit j of qh is the fifth bit of value j
 *   q8_0  x = d q                  iq4_nl x = d mn_iq4_values[q]
 *   q2_k  x = d s q - dmin m       scales: s in the low half, m above, of 16 values each
 *   q3_k  x = d (s - 32) (q - (h ? 0 : 4))
 *   q4_k  x = d s q - dmin m       s, m of 6 bits for 32 values each (mn_k4_scale)
 *   q5_k  the same, q of 5 bits
 *   q6_k  x = d s (q - 32)         s of 16 values each
 *   iq4_xs x = d (s - 32) mn_iq4_values[q]    s of 6 bits for 32 values each
 *   mxfp4 x = 2^(e - 128) mn_fp4_values[q]    the values are doubled, so that they are whole
 *
 * What reads them one by one is format/quant.h; kernels have forms of their own. */
#ifndef MN_BLOCKS_H
#define MN_BLOCKS_H

#include <assert.h>
#include <stdint.h>

enum { MN_BLOCK = 32, MN_SUPER = 256 }; /* values of a small block, and of one that has scales within */

typedef struct mn_q4_0 {
  uint16_t d;
  uint8_t qs[MN_BLOCK / 2];
} mn_q4_0;
typedef struct mn_q4_1 {
  uint16_t d, m;
  uint8_t qs[MN_BLOCK / 2];
} mn_q4_1;
typedef struct mn_q5_0 {
  uint16_t d;
  uint8_t qh[4], qs[MN_BLOCK / 2];
} mn_q5_0;
typedef struct mn_q5_1 {
  uint16_t d, m;
  uint8_t qh[4], qs[MN_BLOCK / 2];
} mn_q5_1;
typedef struct mn_q8_0 {
  uint16_t d;
  int8_t qs[MN_BLOCK];
} mn_q8_0;
typedef struct mn_q2_k { /* 128 values to 32 bytes of qs: two bits of each byte, from below, for 32 values in turn */
  uint8_t scales[MN_SUPER / 16], qs[MN_SUPER / 4];
  uint16_t d, dmin;
} mn_q2_k;
typedef struct mn_q3_k { /* the same; bit n of hmask[l] is of value l + 32 n. Scales of 6 bits: mn_k3_scale */
  uint8_t hmask[MN_SUPER / 8], qs[MN_SUPER / 4], scales[12];
  uint16_t d;
} mn_q3_k;
typedef struct mn_q4_k { /* 64 values to 32 bytes of qs: low halves, then high halves */
  uint16_t d, dmin;
  uint8_t scales[12], qs[MN_SUPER / 2];
} mn_q4_k;
typedef struct mn_q5_k { /* the same; bits 2g and 2g + 1 of qh[l] are of values l and l + 32 of the g-th 64 */
  uint16_t d, dmin;
  uint8_t scales[12], qh[MN_SUPER / 8], qs[MN_SUPER / 2];
} mn_q5_k;
typedef struct mn_q6_k { /* 128 values to 64 bytes of ql and 32 of qh: values l, l + 32 are low halves of ql[l], ql[l + 32], l + 64 and
                          * l + 96 the high ones; two bits of qh[l], from below, go on top of each */
  uint8_t ql[MN_SUPER / 2], qh[MN_SUPER / 4];
  int8_t scales[MN_SUPER / 16];
  uint16_t d;
} mn_q6_k;
typedef struct mn_iq4_nl {
  uint16_t d;
  uint8_t qs[MN_BLOCK / 2];
} mn_iq4_nl;
typedef struct mn_iq4_xs { /* scale i: four bits in scales_l, low half first, two on top in scales_h; qs as eight blocks of 32 */
  uint16_t d, scales_h;
  uint8_t scales_l[MN_SUPER / 64], qs[MN_SUPER / 2];
} mn_iq4_xs;
typedef struct mn_mxfp4 {
  uint8_t e, qs[MN_BLOCK / 2];
} mn_mxfp4;

static_assert(sizeof(mn_q4_0) == 18 && sizeof(mn_q4_1) == 20 && sizeof(mn_q5_0) == 22 && sizeof(mn_q5_1) == 24 && sizeof(mn_q8_0) == 34,
              "blocks of 32 are not padded");
static_assert(sizeof(mn_q2_k) == 84 && sizeof(mn_q3_k) == 110 && sizeof(mn_q4_k) == 144 && sizeof(mn_q5_k) == 176 && sizeof(mn_q6_k) == 210,
              "blocks of 256 are not padded");
static_assert(sizeof(mn_iq4_nl) == 18 && sizeof(mn_iq4_xs) == 136 && sizeof(mn_mxfp4) == 17, "blocks of tables are not padded");

/* What four bits stand for. */
extern const int8_t mn_iq4_values[16], mn_fp4_values[16];

/* Scale and minimum of the i-th 32 values of a q4_k or q5_k. */
static inline void mn_k4_scale(const uint8_t s[12], int i, int *scale, int *min) {
  *scale = i < 4 ? s[i] & 63 : (s[i + 4] & 15) | (s[i - 4] >> 6) << 4;
  *min = i < 4 ? s[i + 4] & 63 : s[i + 4] >> 4 | (s[i] >> 6) << 4;
}
/* Scale of the i-th 16 values of a q3_k, from -32 to 31. */
static inline int mn_k3_scale(const uint8_t s[12], int i) {
  return ((i < 8 ? s[i] & 15 : s[i - 8] >> 4) | (s[8 + i % 4] >> 2 * (i / 4) & 3) << 4) - 32;
}
/* Scale of the i-th 32 values of an iq4_xs, from -32 to 31. */
static inline int mn_iq4_scale(const mn_iq4_xs *b, int i) {
  return ((b->scales_l[i / 2] >> 4 * (i % 2) & 15) | (b->scales_h >> 2 * i & 3) << 4) - 32;
}

#endif
