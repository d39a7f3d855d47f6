/* peak.c - see peak.h. Twelve independent chains in registers: enough to cover the latency of two units. */
#include "backend/cpu/isa/peak.h"

#include "backend/cpu/isa/vec.h"

#if defined(__x86_64__)
#define VECTOR "+x" /* the assembler's constraint for a vector register */
#else
#define VECTOR "+w"
#endif

enum { CHAINS = 12 };
#define EACH(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11)

static double peak_f32(int64_t rounds) {
#define X(i) vf c##i = vf_set1(i);
  EACH(X)
#undef X
  vf a = vf_set1(0.5f), b = vf_set1(0.25f);
  for (int64_t r = 0; r < rounds; r++) {
    __asm__ volatile("" : VECTOR(a), VECTOR(b)); /* so that the loop is not folded */
#define X(i) c##i += a * b;
    EACH(X)
#undef X
#define X(i) __asm__ volatile("" : VECTOR(c##i));
    EACH(X)
#undef X
  }
  return 2.0 * MN_VL * CHAINS * (double)rounds;
}

#if defined(MN_ISA_avx512_bf16)
static double peak_bf16(int64_t rounds) {
#define X(i) __m512 c##i = _mm512_set1_ps(i);
  EACH(X)
#undef X
  __m512 a = _mm512_set1_ps(0.5f), b = _mm512_set1_ps(0.25f);
  for (int64_t r = 0; r < rounds; r++) {
    __asm__ volatile("" : VECTOR(a), VECTOR(b));
#define X(i) c##i = _mm512_dpbf16_ps(c##i, (__m512bh)a, (__m512bh)b);
    EACH(X)
#undef X
#define X(i) __asm__ volatile("" : VECTOR(c##i));
    EACH(X)
#undef X
  }
  return 4.0 * MN_VL * CHAINS * (double)rounds;
}
#else
#define peak_bf16 peak_f32
#endif

const mn_peak MN_ISA_NAME(mn_peak_table) = {peak_f32, peak_bf16};
