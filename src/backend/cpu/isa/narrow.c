/* narrow.c - values in the types of caches: f16 in vectors where the processor turns eight at once; what it does not is left to
 * base/narrow.c. */
#include "backend/cpu/isa/narrow.h"

#include "base/narrow.h"

#if defined(__F16C__) && defined(__AVX2__)
#include <immintrin.h>

/* A finite value beyond the largest becomes the largest; as magnitudes, bits stand in the order of the numbers. */
static inline __m256 within(__m256 x) {
  const __m256i largest = _mm256_castps_si256(_mm256_set1_ps(65504)), infinite = _mm256_set1_epi32(0x7F800000);
  const __m256i sign = _mm256_set1_epi32(INT32_MIN), u = _mm256_castps_si256(x), magnitude = _mm256_andnot_si256(sign, u);
  const __m256i finite = _mm256_cmpgt_epi32(infinite, magnitude), least = _mm256_min_epi32(magnitude, largest);
  return _mm256_castsi256_ps(_mm256_blendv_epi8(u, _mm256_or_si256(_mm256_and_si256(u, sign), least), finite));
}
static int64_t narrow_f16(const float *from, int64_t n, uint16_t *to) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    const __m128i h = _mm256_cvtps_ph(within(_mm256_loadu_ps(from + i)), _MM_FROUND_TO_NEAREST_INT);
    _mm_storeu_si128((__m128i *)(void *)(to + i), h);
  }
  return i;
}
static int64_t widen_f16(const uint16_t *from, int64_t n, float *to) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) _mm256_storeu_ps(to + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(from + i))));
  return i;
}
#else
static int64_t narrow_f16(const float *from, int64_t n, uint16_t *to) {
  (void)from, (void)n, (void)to;
  return 0;
}
static int64_t widen_f16(const uint16_t *from, int64_t n, float *to) {
  (void)from, (void)n, (void)to;
  return 0;
}
#endif

static void narrow(mn_dtype type, const float *from, int64_t n, void *to) {
  const int64_t done = type == MN_F16 ? narrow_f16(from, n, to) : 0;
  mn_narrow(type, from + done, n - done, (uint16_t *)to + done);
}
static void widen(mn_dtype type, const void *from, int64_t n, float *to) {
  const int64_t done = type == MN_F16 ? widen_f16(from, n, to) : 0;
  mn_widen(type, (const uint16_t *)from + done, n - done, to + done);
}

const mn_narrow_vec MN_ISA_NAME(mn_narrow_table) = {narrow, widen};
