/* blocks_many.c - products of activations in 8 bits with weights in blocks, for many rows of them, and for few where mn_blocks_few says so.
 *
 * The sums are those of blocks.c; what differs is where they stand. Eight rows of weights are unpacked to their codes and laid so that a vector holds
 * four consecutive codes of each: a lane is a row of weights, four values of x go to all lanes, and a unit's sum stays whole until its scales, one
 * to a lane, are known. So nothing is added across lanes, a vector of codes serves four rows of x, four values of x serve two such groups of rows,
 * and what unpacking costs is shared by all rows of x. Of one or two rows of x codes are used as they are unpacked, and never stored; the sums are
 * the same to the bit. Plain vectors have no products of bytes: there codes are f32, a vector holds one of each row, and sums of a unit are whole
 * numbers below 2^24, exact in f32 as well. */
#include "backend/cpu/isa/blocks_codes.h"

enum { LANES = 8 /* rows of weights to a vector */, MOST_X = 4 /* rows of x */ };

#if defined(__AVX2__)
typedef vb packed; /* four codes of each row */
typedef v8i whole;
enum { DEEP = 4, GROUPS = 2 /* of eight rows of weights at a time: each four values of x are put in all lanes once for both */ };
#else
typedef v8f packed; /* one code of each row */
typedef v8f whole;
enum { DEEP = 1, GROUPS = 1 };
#endif

#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
enum { LIFTS = true }; /* codes with signs are kept 128 higher, as sums of such products have the room */
#else
enum { LIFTS = false };
#endif
/* Of codes with signs, where they are not lifted, each pair is added at once, and x changes its sign for each of them: there a second group
 * gains nothing. */
INLINE int groups(const mn_dtype t) { return is_signed(t) && !LIFTS ? 1 : GROUPS; }

/* Groups of eight rows, those of a unit side by side, so that one place is told to know all: codes in the order of K, and scales and offsets
 * of units or halves. */
typedef struct lanes {
  packed *codes; /* [K/32, groups, 32/DEEP]           */
  v8f *scales;   /* [K/32 or /16, groups, s and o]    */
} lanes;

#if defined(__AVX2__)
INLINE void transpose(vb x[8]) { /* of 8 x 8 times four bytes */
  __m256i a[8], b[8];
  UNROLL for (int i = 0; i < 4; i++) {
    a[2 * i] = _mm256_unpacklo_epi32((__m256i)x[2 * i], (__m256i)x[2 * i + 1]);
    a[2 * i + 1] = _mm256_unpackhi_epi32((__m256i)x[2 * i], (__m256i)x[2 * i + 1]);
  }
  UNROLL for (int i = 0; i < 2; i++) {
    UNROLL for (int j = 0; j < 2; j++) {
      b[4 * i + 2 * j] = _mm256_unpacklo_epi64(a[4 * i + j], a[4 * i + 2 + j]);
      b[4 * i + 2 * j + 1] = _mm256_unpackhi_epi64(a[4 * i + j], a[4 * i + 2 + j]);
    }
  }
  UNROLL for (int i = 0; i < 4; i++) {
    x[i] = (vb)_mm256_permute2x128_si256(b[i], b[4 + i], 0x20);
    x[4 + i] = (vb)_mm256_permute2x128_si256(b[i], b[4 + i], 0x31);
  }
}
/* 16 bytes of each row, so many bytes behind `block`, four to a lane. */
INLINE void four_words(const char *block, const int64_t at[LANES], const int64_t from, __m256i to[4]) {
  __m256i a[4];
  UNROLL for (int r = 0; r < 4; r++) {
    const __m128i *low = (const void *)(block + at[r] + from), *high = (const void *)(block + at[4 + r] + from);
    a[r] = _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128(low)), _mm_loadu_si128(high), 1);
  }
  const __m256i b[4] = {_mm256_unpacklo_epi32(a[0], a[1]), _mm256_unpacklo_epi32(a[2], a[3]), _mm256_unpackhi_epi32(a[0], a[1]),
                        _mm256_unpackhi_epi32(a[2], a[3])};
  UNROLL for (int i = 0; i < 2; i++) {
    to[2 * i] = _mm256_unpacklo_epi64(b[2 * i], b[2 * i + 1]);
    to[2 * i + 1] = _mm256_unpackhi_epi64(b[2 * i], b[2 * i + 1]);
  }
}
/* Where the halves of bytes lie that are all of a unit's codes, or all but a fifth bit of each; -1: codes lie otherwise. */
INLINE int64_t halves_from(const mn_dtype t, const int g) {
  return t == MN_Q4_0     ? (int64_t)offsetof(mn_q4_0, qs)
         : t == MN_Q4_1   ? (int64_t)offsetof(mn_q4_1, qs)
         : t == MN_Q5_0   ? (int64_t)offsetof(mn_q5_0, qs)
         : t == MN_Q5_1   ? (int64_t)offsetof(mn_q5_1, qs)
         : t == MN_IQ4_NL ? (int64_t)offsetof(mn_iq4_nl, qs)
         : t == MN_MXFP4  ? (int64_t)offsetof(mn_mxfp4, qs)
         : t == MN_IQ4_XS ? (int64_t)offsetof(mn_iq4_xs, qs) + 16 * g
                          : -1;
}
/* The fifth bits, 32 to a row, as 16 in the bytes of their codes. */
INLINE void add_fifth_bits(const char *block, const int64_t at[LANES], const int64_t from, __m256i c[LANES]) {
  int32_t of_row[LANES];
  UNROLL for (int r = 0; r < LANES; r++) memcpy(&of_row[r], block + at[r] + from, 4);
  const __m256i all = _mm256_loadu_si256((const void *)of_row), byte = _mm256_set1_epi32(0x01010101);
  const __m256i first = _mm256_setr_epi32(0, 0x04040404, 0x08080808, 0x0C0C0C0C, 0, 0x04040404, 0x08080808, 0x0C0C0C0C);
  UNROLL for (int k = 0; k < LANES; k++) { /* four bits to a vector */
    const __m256i spread = _mm256_shuffle_epi8(all, _mm256_add_epi8(first, _mm256_set1_epi8((char)(k / 2))));
    const __m256i bit = k % 2 ? _mm256_slli_epi32(_mm256_set1_epi32(0x08040201), 4) : _mm256_set1_epi32(0x08040201);
    const __m256i set = _mm256_cmpeq_epi8(_mm256_and_si256(spread, bit), bit);
    c[k] = _mm256_or_si256(c[k], _mm256_and_si256(set, _mm256_slli_epi32(byte, 4)));
  }
}
INLINE vb lifted(vb codes) { return LIFTS ? codes ^ 0x80 : codes; }
/* Such a unit: its bytes are laid anew before they are taken apart, and one laying serves both halves. */
INLINE void pack_halves(const mn_dtype t, const char *block, const int64_t at[LANES], const int g, packed *to) {
  __m256i low[4], c[LANES];
  four_words(block, at, halves_from(t, g), low);
  UNROLL for (int k = 0; k < 4; k++) {
    c[k] = _mm256_and_si256(low[k], _mm256_set1_epi8(15));
    c[4 + k] = _mm256_and_si256(_mm256_srli_epi16(low[k], 4), _mm256_set1_epi8(15));
  }
  if (t == MN_Q5_0) add_fifth_bits(block, at, (int64_t)offsetof(mn_q5_0, qh), c);
  if (t == MN_Q5_1) add_fifth_bits(block, at, (int64_t)offsetof(mn_q5_1, qh), c);
  UNROLL for (int k = 0; k < LANES; k++) {
    to[k] = t == MN_IQ4_NL || t == MN_IQ4_XS ? lifted(looked_up(mn_iq4_values, (vb)c[k]))
            : t == MN_MXFP4                  ? lifted(looked_up(mn_fp4_values, (vb)c[k]))
                                             : (vb)c[k];
  }
}
/* Codes of a unit and of the next, which are the two halves of the same bytes. */
INLINE void pack_pair(const char *block, const int64_t at[LANES], const int g, packed *to, packed *next) {
  UNROLL for (int half = 0; half < 2; half++) {
    __m256i c[4];
    four_words(block, at, (int64_t)offsetof(mn_q4_k, qs) + 16 * g + 16 * half, c);
    UNROLL for (int k = 0; k < 4; k++) {
      to[4 * half + k] = (vb)_mm256_and_si256(c[k], _mm256_set1_epi8(15));
      next[4 * half + k] = (vb)_mm256_and_si256(_mm256_srli_epi16(c[k], 4), _mm256_set1_epi8(15));
    }
  }
}
/* Bytes that are codes as they lie. */
INLINE void pack_bytes(const char *block, const int64_t at[LANES], packed *to) {
  UNROLL for (int half = 0; half < 2; half++) {
    __m256i c[4];
    four_words(block, at, (int64_t)offsetof(mn_q8_0, qs) + 16 * half, c);
    UNROLL for (int k = 0; k < 4; k++) to[4 * half + k] = lifted((vb)c[k]);
  }
}
#endif
/* A unit of the rows, whose blocks lie so many bytes behind `block`. The next unit comes so much further. */
INLINE void pack_unit(const mn_dtype t, const char *block, const int64_t at[LANES], const int g, const int further, packed *to) {
#if defined(__AVX2__)
  vb c[LANES];
  if (halves_from(t, g) >= 0) pack_halves(t, block, at, g, to);
  else if (t == MN_Q8_0) pack_bytes(block, at, to);
  else if (t == MN_Q4_K) {
    if (g % 2 == 0) pack_pair(block, at, g, to, to + further);
  } else {
    UNROLL for (int r = 0; r < LANES; r++) c[r] = codes(t, block + at[r], g);
    transpose(c);
    UNROLL for (int k = 0; k < LANES; k++) to[k] = c[k]; /* one by one: a copy of all would go by way of the stack */
  }
#else
  (void)further;
  for (int r = 0; r < LANES; r++) {
    const vb c = codes(t, block + at[r], g);
    for (int k = 0; k < UNIT; k++) to[k][r] = is_signed(t) ? (float)(int8_t)c[k] : (float)c[k];
  }
#endif
}
/* Scales and offsets of a block of the rows; of those that follow each other each is `step` further. */
INLINE void pack_scales(const mn_dtype t, const char *block, const int64_t at[LANES], const int step, v8f *s, v8f *o) {
  enum { MOST_PARTS = 16 };
#if defined(__AVX2__)
  if (!is_super(t)) {
    eight_scales(t, block, at, s, o);
    return;
  }
  v8f all_s[MOST_PARTS / 8][LANES], all_o[MOST_PARTS / 8][LANES];
  UNROLL for (int r = 0; r < LANES; r++) {
    float one_s[MOST_PARTS], one_o[MOST_PARTS];
    scales(t, block + at[r], one_s, one_o);
    UNROLL for (int i = 0; i < parts(t) / 8; i++) {
      all_s[i][r] = load8f(one_s + 8 * i);
      if (!is_signed(t)) all_o[i][r] = load8f(one_o + 8 * i);
    }
  }
  UNROLL for (int i = 0; i < parts(t) / 8; i++) {
    transpose((vb *)all_s[i]);
    UNROLL for (int r = 0; r < LANES; r++) s[(8 * i + r) * step] = all_s[i][r];
    if (is_signed(t)) continue;
    transpose((vb *)all_o[i]);
    UNROLL for (int r = 0; r < LANES; r++) o[(8 * i + r) * step] = all_o[i][r];
  }
#else
  for (int r = 0; r < LANES; r++) {
    float one_s[MOST_PARTS], one_o[MOST_PARTS];
    scales(t, block + at[r], one_s, one_o);
    for (int k = 0; k < parts(t); k++) {
      s[k * step][r] = one_s[k];
      if (!is_signed(t)) o[k * step][r] = one_o[k];
    }
  }
#endif
}
/* n rows of weights, `apart` bytes apart; what other lanes hold does not matter. */
INLINE void pack(const mn_dtype t, const char *w, int64_t apart, int64_t n, int64_t K, const lanes *to, const int group) {
  const int units = is_super(t) ? 8 : 1, G = groups(t);
  packed *c = to->codes + group * (UNIT / DEEP);
  v8f *s = to->scales + 2 * group;
  int64_t at[LANES];
  for (int r = 0; r < LANES; r++) at[r] = (r < n ? r : 0) * apart;
  for (int64_t b = 0; b < K / (units * UNIT); b++, w += size_of(t), s += 2 * G * parts(t)) {
    pack_scales(t, w, at, 2 * G, s, s + 1);
    UNROLL for (int g = 0; g < units; g++, c += G * (UNIT / DEEP)) pack_unit(t, w, at, g, G * (UNIT / DEEP), c);
  }
}

#if defined(__AVX2__)
INLINE v8i four_to_all(const int8_t *q) {
  int32_t four;
  memcpy(&four, q, 4);
  return (v8i)_mm256_set1_epi32(four);
}
/* Vectors of codes whose products may be added in 16 bits: so many times 2 x the largest code x 127 is below 2^15. */
INLINE int in_16_bits(const mn_dtype t) {
  return is_signed(t) ? 1 : t == MN_Q6_K ? 2 : t == MN_Q5_0 || t == MN_Q5_1 || t == MN_Q5_K || by_halves(t) ? 4 : 8;
}
#endif
/* Sums stay in the order and the registers that they are written in: a compiler that pairs them anew runs out of registers. What many sums
 * are added to stays in memory between two units, unless there are 32 registers. */
#if defined(__GNUC__)
#define KEEP(x) __asm__("" : "+x"(x))
#else
#define KEEP(x) (void)(x)
#endif
#if defined(__GNUC__) && defined(__AVX2__) && !defined(__AVX512VL__)
#define LEAVE(x) __asm__("" : "+m"(x))
#else
#define LEAVE(x) (void)(x)
#endif
/* Sums of n values of M rows of x by their codes, of each of G groups of rows of weights, of which c has a unit each; less: what lifted codes
 * have too much in that unit of the first row. */
INLINE void sums_of(const mn_dtype t, const int M, const int G, const int n, const packed *c, const int8_t *q, int64_t K,
                    const int32_t *less, whole sum[MOST_X][GROUPS]) {
#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
  UNROLL for (int m = 0; m < M; m++) UNROLL for (int g = 0; g < G; g++) sum[m][g] =
      is_signed(t) ? (v8i)_mm256_set1_epi32(less[m * (K / UNIT)]) : (v8i){0};
  UNROLL for (int k = 0; k < n / DEEP; k++) UNROLL for (int m = 0; m < M; m++) {
    const __m256i x = (__m256i)four_to_all(q + m * K + k * DEEP);
    UNROLL for (int g = 0; g < G; g++) sum[m][g] = (v8i)_mm256_dpbusd_epi32((__m256i)sum[m][g], (__m256i)c[k + g * (UNIT / DEEP)], x);
  }
#elif defined(__AVX2__)
  (void)less;
  const int by = in_16_bits(t);
  __m256i part[MOST_X][GROUPS];
  UNROLL for (int k = 0; k < n / DEEP; k++) {
    __m256i w[GROUPS], size[GROUPS];
    UNROLL for (int g = 0; g < G; g++) w[g] = (__m256i)c[k + g * (UNIT / DEEP)], size[g] = is_signed(t) ? _mm256_abs_epi8(w[g]) : w[g];
    UNROLL for (int m = 0; m < M; m++) {
      const __m256i x = (__m256i)four_to_all(q + m * K + k * DEEP);
      UNROLL for (int g = 0; g < G; g++) {
        const __m256i two = _mm256_maddubs_epi16(size[g], is_signed(t) ? _mm256_sign_epi8(x, w[g]) : x);
        part[m][g] = k % by ? _mm256_add_epi16(part[m][g], two) : two;
        KEEP(part[m][g]);
        if (k % by < by - 1 && k + 1 < n / DEEP) continue;
        const v8i four = (v8i)_mm256_madd_epi16(part[m][g], _mm256_set1_epi16(1));
        sum[m][g] = k < by ? four : sum[m][g] + four;
      }
    }
  }
#else
  (void)t, (void)G, (void)less;
  for (int m = 0; m < M; m++) sum[m][0] = splat(0);
  for (int k = 0; k < n; k++)
    for (int m = 0; m < M; m++) sum[m][0] += c[k] * splat((float)q[m * K + k]);
#endif
}
INLINE v8f real_of(whole x) {
#if defined(__AVX2__)
  return real(x);
#else
  return x;
#endif
}

/* acc += s d sum + o (sum of x), of unit u of M rows of x from `d` and `sums` on, `all` apart. */
INLINE void add_unit(const mn_dtype t, const int M, const int G, whole sum[MOST_X][GROUPS], const v8f s[GROUPS], const v8f o[GROUPS],
                     const float *d, const float *sums, int64_t all, v8f acc[MOST_X][GROUPS]) {
  UNROLL for (int m = 0; m < M; m++) {
    const v8f d_of_all = splat(d[m * all]), sum_of_all = is_signed(t) ? splat(0) : splat(sums[m * all]);
    UNROLL for (int g = 0; g < G; g++) {
      v8f a = acc[m][g] + real_of(sum[m][g]) * (s[g] * d_of_all);
      if (!is_signed(t)) a += o[g] * sum_of_all;
      acc[m][g] = a;
    }
  }
}

/* What comes next from memory: so many bytes are asked for with each unit of what is computed now. */
typedef struct ahead {
  const char *from;
  int64_t each;
} ahead;

/* M rows of x from row i on, by n of weights. */
INLINE void rows(const mn_dtype t, const int M, const lanes *w, const mn_rounded *x, int64_t i, int64_t n, const ahead *next, float *y,
                 int64_t y_stride) {
  const int per = by_halves(t) ? 2 : 1, length = UNIT / per, G = groups(t);
  const int64_t K = x->K, all = K / UNIT * per;
  const float *d = (per == 2 ? x->d_of_half : x->d) + i * all, *sums = (per == 2 ? x->sum_of_half : x->sum) + i * all;
  const int8_t *q = x->q + i * K;
  const packed *c = w->codes;
  const v8f *scale = w->scales;
  v8f acc[MOST_X][GROUPS];
  UNROLL for (int m = 0; m < M; m++) UNROLL for (int g = 0; g < G; g++) acc[m][g] = splat(0);
  for (int64_t u = 0; u < all; u += per, c += G * (UNIT / DEEP)) {
    UNROLL for (int part = 0; part < per; part++, d++, sums++, q += length, scale += 2 * G) {
      whole sum[MOST_X][GROUPS];
      v8f s[GROUPS], o[GROUPS];
      if (G * M > 4) LEAVE(acc);
      if (t == MN_Q8_0 && LIFTS) ask_early(next->from + u * next->each, next->each); /* used up faster than the first cache gets them */
      else ask(next->from + (u + part) * next->each, next->each);
      sums_of(t, M, G, length, c + part * (length / DEEP), q, K, x->lifted + i * (K / UNIT) + u / per, sum);
      UNROLL for (int g = 0; g < G; g++) s[g] = scale[2 * g], o[g] = is_signed(t) ? splat(0) : scale[2 * g + 1];
      add_unit(t, M, G, sum, s, o, d, sums, all, acc);
    }
  }
  if (n == G * LANES) /* as nearly always: so many are known */
    UNROLL for (int m = 0; m < M; m++) memcpy(y + m * y_stride, acc[m], sizeof(float) * (size_t)(G * LANES));
  else UNROLL for (int m = 0; m < M; m++) memcpy(y + m * y_stride, acc[m], sizeof(float) * (size_t)n);
}
#if defined(__AVX2__)
/* The same of one or two rows of x by up to eight of weights: codes are not kept. */
INLINE void rows_at_once(const mn_dtype t, const int M, const char *w, int64_t apart, const mn_rounded *x, int64_t n, const char *next,
                         float *y, int64_t y_stride) {
  const int units = is_super(t) ? 8 : 1;
  const int64_t all = x->K / UNIT;
  const int8_t *q = x->q;
  int64_t at[LANES];
  v8f acc[MOST_X][GROUPS];
  UNROLL for (int m = 0; m < M; m++) acc[m][0] = splat(0);
  UNROLL for (int r = 0; r < LANES; r++) at[r] = (r < n ? r : 0) * apart;
  for (int64_t u = 0; u < all; u += units, w += size_of(t)) {
    v8f s[LANES], o[LANES];
    packed c[2 * LANES];
    ask(next, LANES * size_of(t));
    next += next ? LANES * size_of(t) : 0;
    pack_scales(t, w, at, 1, s, o);
    UNROLL for (int g = 0; g < units; g++, q += UNIT) {
      whole sum[MOST_X][GROUPS];
      pack_unit(t, w, at, g, LANES, c + g % 2 * LANES);
      sums_of(t, M, 1, UNIT, c + g % 2 * LANES, q, x->K, x->lifted + u + g, sum);
      add_unit(t, M, 1, sum, s + g, o + g, x->d + u + g, x->sum + u + g, all, acc);
    }
  }
  UNROLL for (int m = 0; m < M; m++) memcpy(y + m * y_stride, acc[m], sizeof(float) * (size_t)n);
}
#endif
/* Bytes of a row of weights. */
INLINE int64_t apart_of(const mn_dtype t, int64_t K) { return K / (is_super(t) ? MN_SUPER : MN_BLOCK) * size_of(t); }
/* One or two rows of x, which need no scratch. */
INLINE void few_rows(const mn_dtype t, const int M, const char *w, int64_t N, const mn_rounded *x, float *y, int64_t y_stride) {
#if defined(__AVX2__)
  const int64_t apart = apart_of(t, x->K);
  for (int64_t j = 0; j < N; j += LANES, w += LANES * apart) {
    const char *next = j + 2 * LANES <= N ? w + LANES * apart : NULL;
    rows_at_once(t, M, w, apart, x, N - j < LANES ? N - j : LANES, next, y + j, y_stride);
  }
#else
  (void)t, (void)M, (void)w, (void)N, (void)x, (void)y, (void)y_stride;
#endif
}
/* All rows of x by n of weights, which are unpacked. */
INLINE void all_x(const mn_dtype t, const lanes *w, const mn_rounded *x, int64_t n, ahead next, float *y, int64_t y_stride) {
  const int64_t asked = x->K / UNIT * (by_halves(t) ? 2 : 1) * next.each;
  int64_t i = 0;
  for (; i + MOST_X <= x->M; i += MOST_X, next.from += asked) rows(t, MOST_X, w, x, i, n, &next, y + i * y_stride, y_stride);
  const int64_t rest = x->M - i;
  float *last = y + i * y_stride;
  if (rest == 3) rows(t, 3, w, x, i, n, &next, last, y_stride);
  if (rest == 2) rows(t, 2, w, x, i, n, &next, last, y_stride);
  if (rest == 1) rows(t, 1, w, x, i, n, &next, last, y_stride);
}
INLINE void all_rows(const mn_dtype t, const char *w, int64_t N, const mn_rounded *x, void *scratch, float *y, int64_t y_stride) {
  const int64_t apart = apart_of(t, x->K);
  const int64_t units = x->K / UNIT * (by_halves(t) ? 2 : 1), asked = units * ((x->M + MOST_X - 1) / MOST_X); /* 0: K is */
  const int G = groups(t);
  const lanes to = {scratch, (v8f *)((packed *)scratch + G * (x->K / DEEP))};
  for (int64_t j = 0, n; j < N; j += n, w += n * apart) {
    n = N - j < G * LANES ? N - j : G * LANES;
    const int64_t further = N - j - n < n ? N - j - n : n;
    const ahead next = {w + n * apart, asked ? (further * apart + asked - 1) / asked : 0};
    for (int g = 0; g < G; g++) { /* where there are no rows for a group it has the first ones again, for nothing */
      const int64_t from = g * LANES < n ? g * LANES : 0;
      pack(t, w + from * apart, apart, n - from < LANES ? n - from : LANES, x->K, &to, g);
    }
    all_x(t, &to, x, n, next, y + j, y_stride);
  }
}

#if defined(__AVX2__)
#define KEEPS(t) by_halves(t) /* codes of few rows of x, too */
#else
#define KEEPS(t) true
#endif
#define X(t)                                                                                                                               \
  static void many_##t(const void *w, int64_t N, const mn_rounded *x, void *scratch, float *y, int64_t y_stride) {                         \
    if (KEEPS(t) || x->M > 2) all_rows(t, w, N, x, scratch, y, y_stride);                                                                  \
    else if (x->M == 2) few_rows(t, 2, w, N, x, y, y_stride);                                                                              \
    else if (x->M == 1) few_rows(t, 1, w, N, x, y, y_stride);                                                                              \
  }
TYPES(X)
#undef X

static void many(mn_dtype type, const void *w, int64_t N, const mn_rounded *x, void *scratch, float *y, int64_t y_stride) {
#define X(t) [t] = many_##t,
  static void (*const of[MN_ALL_TYPES])(const void *, int64_t, const mn_rounded *, void *, float *, int64_t) = {TYPES(X)};
#undef X
  of[type](w, N, x, scratch, y, y_stride);
}

const mn_blocks_many_vec MN_ISA_NAME(mn_blocks_many_table) = {many};
