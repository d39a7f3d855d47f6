/* product.c - products of matrices on all threads: looks at the layout of the operands, cuts the product into tasks,
 * and hands the tasks to the threads. The arithmetic is in isa/gemm.c. */
#include "backend/cpu/product.h"

#include "backend/cpu/chains.h"
#include "base/bf16.h"

#include <stdatomic.h>
#include <string.h>

static int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
static int64_t round_up(int64_t a, int64_t to) { return ceil_div(a, to) * to; }
/* ---- cutting ----------------------------------------------------------------------------------------------------- */
static void cut(mn_product_plan *t, int64_t mb, int64_t nb) {
  t->mb = mb;
  t->nb = nb;
  t->m_tasks = ceil_div(t->p.M, mb);
  t->n_tasks = ceil_div(t->p.N, nb);
}

/* The cutting into blocks that promises the shortest time: blocks are computed at one tile row per cycle, B is packed for
 * each block anew and A often too, and the last blocks leave threads idle. The bits of C do not depend on it: K is cut in
 * gemm.c, by K alone. */
static void cut_blocks(mn_product_plan *t) {
  enum { ROWS = 2048, COLUMNS = 704, TRIES = 24 }; /* of a block at most: more columns of B do not stay in the cache */
  const int64_t columns = t->gemm->shares_b ? min64(COLUMNS, t->gemm->near_columns(&t->p, false)) : COLUMNS;
  const double lanes = (double)t->gemm->nr / 2, start = 3000;                 /* cycles: a vector, a block */
  const double pack_b = 1.5, pack_a = t->gemm->packs_a(&t->p) ? pack_b : 0.5; /* an element; less where it is only read */
  const int64_t mr = t->gemm->mr, nr = t->gemm->nr, threads = t->threads > 0 ? t->threads : 4;
  const double pieces = (double)t->parts, depth = (double)t->p.K / pieces / (t->p.bf16 ? t->gemm->bf16_per_unit : 1);
  double best = 0;
  int64_t best_mb = 0, best_nb = 0;
  const int64_t m0 = ceil_div(t->p.M, ROWS), n0 = ceil_div(t->p.N, columns);
  for (int64_t i = m0; i < m0 + TRIES && i <= ceil_div(t->p.M, mr); i++)
    for (int64_t j = n0; j < n0 + TRIES && j <= ceil_div(t->p.N, nr); j++) {
      const int64_t mb = round_up(ceil_div(t->p.M, i), mr), nb = round_up(ceil_div(t->p.N, j), nr);
      const double tasks = pieces * (double)(t->batch * ceil_div(t->p.M, mb) * ceil_div(t->p.N, nb));
      const double m = (double)mb, n = (double)nb;
      const double rounds = (double)((int64_t)(tasks + (double)threads - 1) / threads) + 0.03; /* threads are seldom quite in step */
      const double time = rounds * (m * n * depth / lanes + (pack_a * m + pack_b * n) * depth + start);
      if (best_mb && time >= best) continue;
      best = time;
      best_mb = mb;
      best_nb = nb;
    }
  cut(t, best_mb, best_nb);
}

/* Where B is packed once for all blocks, these may be small, so that a thread that is slower than the others takes fewer of them.
 * Whether it is depends on the shape alone, and the bits of C do not depend on it. */
static bool shares_b(const mn_product_plan *t) {
  enum { ROWS = 768, BYTES = 2 << 20 };
  return t->gemm->shares_b && t->threads > 0 && t->batch == 1 && t->p.M >= ROWS && t->p.K > 0 && t->gemm->packed_b_bytes(&t->p) <= BYTES;
}
static void cut_shared(mn_product_plan *t) {
  enum { TILES = 4, TASKS = 48 }; /* tiles of A in a block at least, a multiple of it; blocks for a thread */
  const int64_t nr = t->gemm->nr, rows = TILES * t->gemm->mr;
  const int64_t n_tasks = ceil_div(t->p.N, t->gemm->near_columns(&t->p, true)), m_tasks = ceil_div(TASKS * t->threads, n_tasks);
  cut(t, round_up(ceil_div(t->p.M, m_tasks), rows), round_up(ceil_div(t->p.N, n_tasks), nr));
}

/* The gradient of a weight: few elements, each a sum over all tokens. Cut along M or N for two threads, each would pack one operand whole and half
 * the other; cut along K it packs half of both. Four parts, where their sums are small, so that a thread that is slower than the other takes
 * fewer. How many depends on the shape alone, as the order of the sums does. */
static bool few_sums(const mn_product_plan *t) {
  enum { LONG = 1024, TIMES = 4 };
  const mn_product *p = &t->p;
  return t->threads > 0 && t->batch == 1 && !p->c_bf16 && p->K >= LONG && p->K >= TIMES * p->M && p->K >= TIMES * p->N;
}
static int64_t parts_of_k(const mn_product_plan *t) {
  enum { FOUR = 2048, BYTES = 2 << 20 };
  if (!few_sums(t)) return 1;
  return t->p.K >= FOUR && 3 * t->p.M * t->p.N * (int64_t)sizeof(float) <= BYTES ? 4 : 2;
}
static int64_t part_of_k(const mn_product_plan *t) { return t->parts > 1 ? round_up(ceil_div(t->p.K, t->parts), 64) : t->p.K; }
static size_t sums_bytes(const mn_product_plan *t) { return mn_align(sizeof(float) * (size_t)((t->parts - 1) * t->p.M * t->p.N), 64); }
/* A part takes two turns, the second short, so that a thread that is slower takes fewer of those, too. */
static int64_t k_of_turn(const mn_product_plan *t, int64_t part, int64_t turn) {
  const int64_t first = min64(part * part_of_k(t), t->p.K), end = min64(first + part_of_k(t), t->p.K);
  return turn == 0 ? first : turn == 1 ? min64(first + round_up((end - first) / 4 * 3, 64), end) : end;
}
static int64_t chains_of(const mn_product_plan *t) { return t->m_tasks * t->n_tasks * t->parts; }
static size_t chain_bytes(const mn_product_plan *t) { return t->parts > 1 ? mn_chain_bytes(chains_of(t), t->threads) : 0; }
/* What all threads share of the scratch memory, and the share of it that each brings along */
static size_t shared_bytes(const mn_product_plan *t) { return t->packed + sums_bytes(t) + chain_bytes(t); }
static size_t share_of(const mn_product_plan *t) { return shared_bytes(t) ? mn_align(shared_bytes(t) / (size_t)t->threads + 64, 64) : 0; }

/* A product with one column is the transposed product with one row; and a batch whose second operand is shared is one
 * product with more rows. */
static void simplify(mn_product_plan *t) {
  mn_product *p = &t->p;
  while (t->n_axes > 0) {
    const int last = t->n_axes - 1;
    const int64_t n = t->dim[last];
    const bool rows_follow = t->a_step[last] == p->M * p->a_rs || p->M == 1;
    if (n != 1 && (t->b_step[last] != 0 || !rows_follow || p->ldc != p->N)) break;
    if (n != 1) {
      if (p->M == 1) p->a_rs = t->a_step[last];
      p->M *= n;
      t->batch /= n;
    }
    t->n_axes--;
  }
  if (p->N == 1 && p->M > 1 && p->ldc == 1 && !p->b_f32) {
    const mn_product q = *p;
    p->M = 1, p->N = q.M;
    p->a = q.b, p->a_rs = q.b_cs, p->a_cs = q.b_rs;
    p->b = q.a, p->b_rs = q.a_cs, p->b_cs = q.a_rs;
    for (int i = 0; i < t->n_axes; i++) {
      const int64_t step = t->a_step[i];
      t->a_step[i] = t->b_step[i];
      t->b_step[i] = step;
    }
    p->ldc = q.M;
    t->swapped = true;
  }
}

/* Where oneDNN is used: large products of bf16 on machines with AMX tiles, which Mneme's own kernels do not drive. On
 * machines without, Mneme's kernels are as fast or faster (docs/matmul.md has the table), and a forced lower
 * instruction set must be honoured, so there it is never used. */
static bool onednn_faster(const mn_product *p, mn_isa isa) {
  const double work = 2.0 * (double)p->M * (double)p->N * (double)p->K;
  return isa >= MN_ISA_LEVEL_AMX && p->bf16 && work >= 2.0 * 256 * 256 * 256 && p->M >= 32 && p->N >= 32;
}

void mn_product_plan_make(mn_product_plan *t, mn_isa isa, mn_product_use onednn) {
  mn_product *p = &t->p;
  t->gemm = MN_ISA_PICK(mn_gemm_table, isa);
  t->thin = MN_ISA_PICK(mn_thin_table, isa);
  t->ew = MN_ISA_PICK(mn_ew_table, isa);
  t->batch = 1;
  for (int i = 0; i < t->n_axes; i++) t->batch *= t->dim[i];
  t->group = 1;
  t->scratch = t->packed = 0;
  t->parts = 1;
  if (t->batch == 0 || p->M == 0 || p->N == 0) {
    *p = (mn_product){0};
    t->tasks = 0;
    return;
  }
  simplify(t);
  const int64_t nr = t->gemm->nr;
  const double work = 2.0 * (double)p->M * (double)p->N * (double)p->K;
  const bool dense_b = p->b_rs == 1 || p->b_cs == 1;
  if (p->M <= (p->b_cs == 1 ? 4 : 12) && dense_b && !p->b_f32 && p->K * p->N >= 4096) {
    t->path = MN_PRODUCT_THIN;
    /* about 32 Ki elements of B to a task; its rows are read in pieces that are long enough for the memory */
    const int64_t nb = round_up(ceil_div(32768, p->K ? p->K : 1), 64);
    cut(t, p->M, p->b_cs == 1 && nb < 256 ? 256 : nb);
    t->scratch = sizeof(float) * (size_t)(p->M * p->K);
  } else if (!p->bf16 && !p->c_bf16 && (work <= 2.0 * 96 * 96 * 96 || (p->M <= 24 && !few_sums(t)) || p->N <= nr / 2)) {
    t->path = MN_PRODUCT_SMALL;
    const int64_t mb = work <= 4e6 ? p->M : 480;
    cut(t, mb, work <= 4e6 ? p->N : p->M <= 24 ? 4 * nr : 16 * nr);
  } else {
    t->path = MN_PRODUCT_BLOCK;
    const bool shared = shares_b(t);
    if (!shared) t->parts = parts_of_k(t);
    if (shared) cut_shared(t);
    else cut_blocks(t);
    mn_product part = *p;
    part.M = min64(t->mb, p->M);
    part.N = min64(t->nb, p->N);
    for (int64_t i = 0; i < 2 * t->parts; i++) { /* a part that is shorter may have longer slices */
      if (t->parts > 1) part.K = k_of_turn(t, i / 2, i % 2 + 1) - k_of_turn(t, i / 2, i % 2);
      const size_t bytes = t->gemm->block_scratch(&part, shared);
      if (bytes > t->scratch) t->scratch = bytes;
    }
    t->packed = shared ? mn_align(t->gemm->packed_b_bytes(p), 64) : 0;
  }
  t->onednn = NULL;
  const bool plain = !p->accumulate && p->alpha == 1 && p->K > 0 && !p->b_f32;
  if (plain && (onednn == MN_ONEDNN_ALWAYS || (onednn == MN_ONEDNN_WHERE_FASTER && onednn_faster(p, isa)))) {
    t->threads = 8; /* oneDNN chooses its kernel by the size of a block, which therefore must not follow the threads */
    t->parts = 1;
    cut_blocks(t);
    mn_product part = *p;
    part.M = min64(t->mb, p->M);
    part.N = min64(t->nb, p->N);
    t->path = MN_PRODUCT_ONEDNN;
    t->packed = 0;
    t->scratch = t->gemm->block_scratch(&part, false);
  }
  t->scratch = mn_align(t->scratch, 64);
  t->scratch += share_of(t);
  if (t->parts == 1 && t->m_tasks * t->n_tasks == 1) { /* small products share a task, so that handing out tasks costs nothing */
    const double few = 5e5;
    t->group = work >= few ? 1 : (int64_t)(few / (work + 1)) + 1;
  }
  t->tasks = ceil_div(t->batch, t->group) * t->m_tasks * t->n_tasks * t->parts;
}

/* ---- running ----------------------------------------------------------------------------------------------------- */
typedef struct product_job {
  const mn_product_plan *plan;
  char *packed, *scratch;
  float *sums; /* [parts - 1, M, N]     */
  size_t own;  /* scratch of one thread */
  atomic_bool failed;
} product_job;

static void dense_rows(const mn_product *p, bool keep_bf16, void *out) { /* A as [M,K] */
  for (int64_t i = 0; i < p->M; i++)
    for (int64_t k = 0; k < p->K; k++) {
      const int64_t from = i * p->a_rs + k * p->a_cs, to = i * p->K + k;
      if (!p->bf16) {
        ((float *)out)[to] = ((const float *)p->a)[from];
      } else if (keep_bf16) {
        ((uint16_t *)out)[to] = ((const uint16_t *)p->a)[from];
      } else {
        ((float *)out)[to] = mn_bf16_to_float(((const uint16_t *)p->a)[from]);
      }
    }
}

/* Block (m, n) of a product; of products in parts `product` is the part, and `turn` counts its slices of K. */
static mn_status run_part(const product_job *job, int64_t product, int64_t turn, int64_t m, int64_t n, int thread, void *scratch) {
  const mn_product_plan *t = job->plan;
  const size_t size = t->p.bf16 ? 2 : 4, c_size = t->p.c_bf16 ? 2 : 4;
  int64_t a = m * t->p.a_rs, b = n * t->p.b_cs, index = product;
  for (int i = t->n_axes - 1; i >= 0; i--) {
    a += index % t->dim[i] * t->a_step[i];
    b += index % t->dim[i] * t->b_step[i];
    index /= t->dim[i];
  }
  mn_product p = t->p;
  p.M = min64(t->mb, p.M - m);
  p.N = min64(t->nb, p.N - n);
  p.a = (const char *)p.a + (int64_t)size * a;
  p.b = (const char *)p.b + (int64_t)mn_product_b_size(&p) * b;
  if (t->parts > 1) {
    const int64_t k = k_of_turn(t, product, turn);
    p.K = k_of_turn(t, product, turn + 1) - k;
    p.a = (const char *)p.a + (int64_t)size * k * p.a_cs;
    p.b = (const char *)p.b + (int64_t)mn_product_b_size(&p) * k * p.b_rs;
    if (product) p.c = job->sums + (product - 1) * t->p.M * t->p.N, p.ldc = t->p.N, p.accumulate = false;
    if (turn) p.accumulate = true;
    product = 0;
  }
  p.c = (char *)p.c + (int64_t)c_size * (product * t->p.M * t->p.N + m * p.ldc + n);
  switch (t->path) {
  case MN_PRODUCT_THIN:
    dense_rows(&p, t->thin->a_bf16, scratch);
    t->thin->run(&p, scratch);
    break;
  case MN_PRODUCT_SMALL:
    t->gemm->small_f32(p.M, p.N, p.K, p.alpha, p.a, p.a_rs, p.a_cs, p.b, p.b_rs, p.b_cs, p.c, p.ldc, p.accumulate);
    break;
  case MN_PRODUCT_BLOCK:
    t->gemm->block(&p, t->packed ? &(mn_packed_b){job->packed, ceil_div(t->p.N, t->gemm->nr), n / t->gemm->nr} : NULL, scratch);
    break;
  case MN_PRODUCT_ONEDNN:
    return mn_onednn_block(t->onednn, &p, thread);
  }
  return MN_OK;
}

/* Block `part`, counted as blocks are taken */
static mn_status run_block(const product_job *job, int64_t product, int64_t turn, int64_t part, int thread) {
  const mn_product_plan *t = job->plan;
  const int64_t m = (t->packed ? part % t->m_tasks : part / t->n_tasks) * t->mb; /* shared panels: all rows before the next */
  const int64_t n = (t->packed ? part / t->m_tasks : part % t->n_tasks) * t->nb;
  return run_part(job, product, turn, m, n, thread, job->scratch + (size_t)thread * job->own);
}

static void run_task(void *ctx, int64_t task, int thread) {
  product_job *job = ctx;
  const mn_product_plan *t = job->plan;
  const int64_t blocks = t->m_tasks * t->n_tasks, first = task / blocks * t->group;
  for (int64_t product = first; product < min64(first + t->group, t->batch); product++)
    if (run_block(job, product, 0, task % blocks, thread) != MN_OK) atomic_store(&job->failed, true);
}

/* A part's slices of K follow each other, since they add to the same sums. */
static bool run_turn(void *ctx, int64_t chain, int64_t turn, int room, int thread) {
  (void)room;
  product_job *job = ctx;
  const mn_product_plan *t = job->plan;
  const int64_t blocks = t->m_tasks * t->n_tasks, part = chain / blocks;
  if (run_block(job, part, turn, chain % blocks, thread) != MN_OK) atomic_store(&job->failed, true);
  return k_of_turn(t, part, turn + 1) < k_of_turn(t, part + 1, 0);
}

enum { ROWS_ADDED = 16 };
static void add_task(void *ctx, int64_t task, int thread) {
  (void)thread;
  const product_job *job = ctx;
  const mn_product *p = &job->plan->p;
  for (int64_t i = task * ROWS_ADDED; i < min64((task + 1) * ROWS_ADDED, p->M); i++) {
    float *c = (float *)p->c + i * p->ldc;
    for (int64_t part = 0; part + 1 < job->plan->parts; part++)
      job->plan->ew->f32[MN_EW_ADD](c, c, job->sums + (part * p->M + i) * p->N, NULL, p->N, 0);
  }
}

enum { PANELS = 4 }; /* that a task packs */
static void pack_task(void *ctx, int64_t task, int thread) {
  (void)thread;
  const product_job *job = ctx;
  const mn_product_plan *t = job->plan;
  t->gemm->pack_b(&t->p, task * PANELS, min64((task + 1) * PANELS, ceil_div(t->p.N, t->gemm->nr)), job->packed);
}

mn_status mn_product_plan_run(const mn_product_plan *t, mn_pool *pool, void *scratch) {
  char *const own = (char *)scratch + shared_bytes(t);
  product_job job = {.plan = t,
                     .packed = scratch,
                     .sums = (float *)(void *)((char *)scratch + t->packed),
                     .scratch = own,
                     .own = t->scratch - share_of(t)};
  if (t->packed) mn_pool_run(pool, ceil_div(ceil_div(t->p.N, t->gemm->nr), PANELS), pack_task, &job);
  if (t->parts > 1) mn_chains_run(pool, t->tasks, run_turn, &job, (char *)scratch + t->packed + sums_bytes(t));
  else mn_pool_run(pool, t->tasks, run_task, &job);
  if (t->parts > 1) mn_pool_run(pool, ceil_div(t->p.M, ROWS_ADDED), add_task, &job);
  return atomic_load(&job.failed) ? mn_fail(MN_ERR_INTERNAL, "a product failed in oneDNN") : MN_OK;
}

mn_status mn_product_plan_prepare(mn_product_plan *t, int threads) {
  if (t->path != MN_PRODUCT_ONEDNN || t->tasks == 0 || t->onednn) return MN_OK;
  mn_status status = mn_onednn_new(&t->p, min64(t->mb, t->p.M), min64(t->nb, t->p.N), threads, &t->onednn);
  if (status == MN_ERR_UNSUPPORTED) { /* this oneDNN does not serve the product: our own kernels do */
    mn_log_write(MN_LOG_INFO, "matmul: %s", mn_message());
    t->path = MN_PRODUCT_BLOCK;
    status = MN_OK;
  }
  return status;
}

void mn_product_plan_release(mn_product_plan *t) {
  mn_onednn_free(t->onednn);
  t->onednn = NULL;
}

size_t mn_product_scratch(const mn_product *p, mn_isa isa, mn_pool *pool) {
  mn_product_plan t = {.p = *p, .threads = mn_pool_threads(pool)};
  mn_product_plan_make(&t, isa, MN_ONEDNN_NEVER);
  return t.scratch * (size_t)mn_pool_threads(pool);
}

void mn_product_run(const mn_product *p, mn_isa isa, mn_pool *pool, void *scratch) {
  mn_product_plan t = {.p = *p, .threads = mn_pool_threads(pool)};
  mn_product_plan_make(&t, isa, MN_ONEDNN_NEVER);
  mn_product_plan_run(&t, pool, scratch);
}
