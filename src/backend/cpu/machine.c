/* machine.c - measures the machine's limits (machine.h). */
#include "backend/cpu/machine.h"

#include <stdlib.h>
#include <string.h>

#include "backend/cpu/isa/peak.h"
#if defined(__x86_64__)
#include <immintrin.h>
#endif

/* ---- arithmetic ---- */
#if defined(__x86_64__)
/* Four tiles of sums, two of each operand: the shape that keeps the tile unit busy. */
__attribute__((target("amx-tile,amx-bf16"))) static double peak_amx(int64_t rounds) {
  _Alignas(64) struct {
    uint8_t palette, start, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
  } config;
  memset(&config, 0, sizeof config);
  config.palette = 1;
  for (int i = 0; i < 8; i++) config.bytes[i] = 64, config.rows[i] = 16;
  __asm__ volatile("" : : "m"(config)); /* all of it is read: gcc 12 says so of its first eight bytes, and leaves out the rest */
  _tile_loadconfig(&config);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_zero(4);
  _tile_zero(5);
  _tile_zero(6);
  _tile_zero(7);
  for (int64_t r = 0; r < rounds; r++) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_release();
  return 4.0 * 2 * 16 * 16 * 32 * (double)rounds;
}
#endif

typedef struct peak_job {
  double (*loop)(int64_t rounds);
  int64_t rounds;
} peak_job;

static void peak_task(void *ctx, int64_t i, int thread) {
  const peak_job *job = ctx;
  (void)i, (void)thread;
  job->loop(job->rounds);
}

double mn_machine_peak(mn_pool *pool, mn_isa isa, bool bf16) {
  const mn_peak *peak = MN_ISA_PICK(mn_peak_table, isa);
  peak_job job = {bf16 ? peak->bf16 : peak->f32, 1000};
#if defined(__x86_64__)
  if (bf16 && isa >= MN_ISA_LEVEL_AMX) job.loop = peak_amx;
#endif
  const int threads = mn_pool_threads(pool);
  double best = 0;
  for (double t = 0; t < 2e-3 && job.rounds < (int64_t)1 << 40;) { /* one task lasts some milliseconds */
    job.rounds *= 2;
    const double start = mn_now();
    job.loop(job.rounds);
    t = mn_now() - start;
  }
  const double work = job.loop(1) * (double)job.rounds * threads * 4;
  for (int trial = 0; trial < 12; trial++) {
    const double start = mn_now();
    mn_pool_run(pool, (int64_t)threads * 4, peak_task, &job);
    const double rate = work / (mn_now() - start) * 1e-9;
    if (rate > best) best = rate;
  }
  return best;
}

/* ---- memory ---- */
enum { PIECE = 1 << 20 };

typedef struct read_job {
  const uint64_t *block;
  uint64_t sums[1024];
} read_job;

static void read_task(void *ctx, int64_t i, int thread) {
  read_job *job = ctx;
  const uint64_t *p = job->block + i * (PIECE / (int)sizeof *p);
  uint64_t s[8] = {0};
  for (size_t k = 0; k < PIECE / sizeof *p; k += 8)
    for (int l = 0; l < 8; l++) s[l] += p[k + (size_t)l];
  for (int l = 1; l < 8; l++) s[0] += s[l];
  job->sums[thread] += s[0]; /* so that the reading is not dropped */
}

double mn_machine_bandwidth(mn_pool *pool) {
  const int64_t pieces = 256;
  read_job job = {.sums = {0}};
  uint64_t *block = mn_alloc_aligned((size_t)pieces * PIECE);
  if (!block) return 0;
  memset(block, 1, (size_t)pieces * PIECE);
  job.block = block;
  double best = 0;
  for (int trial = 0; trial < 6; trial++) {
    const double start = mn_now();
    mn_pool_run(pool, pieces, read_task, &job);
    const double rate = (double)pieces * PIECE / (mn_now() - start) * 1e-9;
    if (rate > best) best = rate;
  }
  volatile uint64_t keep = job.sums[0];
  (void)keep;
  free(block);
  return best;
}
