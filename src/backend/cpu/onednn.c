/* onednn.c - blocks of products by oneDNN, versions 2.x and 3.x of its C API. Everything that can fail or that costs
 * time (descriptors, primitives, memory objects, scratch) is made in mn_onednn_new; a block only sets pointers and
 * executes.
 *
 * oneDNN is driven from our own threads, each asking OpenMP for one thread while it is inside, so that the cutting into
 * blocks, and with it the summation order, is ours and the same for any number of threads. */
#define _GNU_SOURCE
#include "backend/cpu/onednn.h"

#if MN_WITH_ONEDNN

#include <dlfcn.h>
#include <stdlib.h>
#include <dnnl.h>

#if DNNL_VERSION_MAJOR >= 3
typedef dnnl_memory_desc_t mem_desc; /* an owned handle */
#else
typedef dnnl_memory_desc_t mem_desc; /* a plain struct */
#endif

enum { A, B, C, SCRATCH, ARGS };

typedef struct per_thread {
  dnnl_stream_t stream;
  dnnl_memory_t memory[4][ARGS]; /* of each of the four block sizes */
} per_thread;

struct mn_onednn {
  dnnl_engine_t engine;
  int64_t m[2], n[2];         /* full and edge sizes; an edge of 0: none */
  dnnl_primitive_t matmul[4]; /* [m edge * 2 + n edge]                   */
  int threads;
  per_thread *thread;
  void **scratch; /* [threads] */
  int (*omp_get)(void);
  void (*omp_set)(int);
};

static mn_status failed(dnnl_status_t s, const char *what) {
  return mn_fail(s == dnnl_out_of_memory ? MN_ERR_MEMORY : MN_ERR_UNSUPPORTED, "oneDNN: %s failed with status %d", what, (int)s);
}
#define TRY_DNNL(call, what)                                                                                                               \
  do {                                                                                                                                     \
    dnnl_status_t s_ = (call);                                                                                                             \
    if (s_ != dnnl_success) {                                                                                                              \
      status = failed(s_, what);                                                                                                           \
      goto done;                                                                                                                           \
    }                                                                                                                                      \
  } while (0)

/* ---- the difference between the versions ---- */
#if DNNL_VERSION_MAJOR >= 3
#define DESC_PTR(d) (d)
static dnnl_status_t make_desc(mem_desc *d, int64_t rows, int64_t cols, bool bf16, int64_t rs, int64_t cs) {
  return dnnl_memory_desc_create_with_strides(d, 2, (dnnl_dims_t){rows, cols}, bf16 ? dnnl_bf16 : dnnl_f32, (dnnl_dims_t){rs, cs});
}
static void free_desc(mem_desc *d) {
  if (*d) dnnl_memory_desc_destroy(*d);
}
static dnnl_status_t make_primitive_desc(dnnl_primitive_desc_t *pd, mem_desc *d, dnnl_primitive_attr_t attr, dnnl_engine_t engine) {
  return dnnl_matmul_primitive_desc_create(pd, engine, d[A], d[B], NULL, d[C], attr);
}
#else
#define DESC_PTR(d) (&(d))
static dnnl_status_t make_desc(mem_desc *d, int64_t rows, int64_t cols, bool bf16, int64_t rs, int64_t cs) {
  return dnnl_memory_desc_init_by_strides(d, 2, (dnnl_dims_t){rows, cols}, bf16 ? dnnl_bf16 : dnnl_f32, (dnnl_dims_t){rs, cs});
}
static void free_desc(mem_desc *d) { (void)d; }
static dnnl_status_t make_primitive_desc(dnnl_primitive_desc_t *pd, mem_desc *d, dnnl_primitive_attr_t attr, dnnl_engine_t engine) {
  dnnl_matmul_desc_t desc;
  dnnl_status_t s = dnnl_matmul_desc_init(&desc, &d[A], &d[B], NULL, &d[C]);
  return s == dnnl_success ? dnnl_primitive_desc_create(pd, &desc, attr, engine, NULL) : s;
}
#endif

static int omp_enter(const mn_onednn *o, int threads) {
  const int before = o->omp_get ? o->omp_get() : 1;
  if (o->omp_set && before != threads) o->omp_set(threads);
  return before;
}
static void omp_leave(const mn_onednn *o, int before, int threads) {
  if (o->omp_set && before != threads) o->omp_set(before);
}

/* One block size: its primitive, and every thread's memory objects. *scratch grows to what it needs. */
static mn_status make_size(mn_onednn *o, int size, const mn_product *p, int64_t M, int64_t N, size_t *scratch) {
  mn_status status = MN_OK;
  mem_desc d[ARGS] = {0};
  dnnl_primitive_attr_t attr = NULL;
  dnnl_primitive_desc_t pd = NULL;
  TRY_DNNL(make_desc(&d[A], M, p->K, p->bf16, p->a_rs, p->a_cs), "a matrix descriptor");
  TRY_DNNL(make_desc(&d[B], p->K, N, p->bf16, p->b_rs, p->b_cs), "a matrix descriptor");
  TRY_DNNL(make_desc(&d[C], M, N, p->c_bf16, p->ldc, 1), "a matrix descriptor");
  TRY_DNNL(dnnl_primitive_attr_create(&attr), "attributes");
  TRY_DNNL(dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user), "the scratchpad mode");
  TRY_DNNL(make_primitive_desc(&pd, d, attr, o->engine), "the product's descriptor");
  TRY_DNNL(dnnl_primitive_create(&o->matmul[size], pd), "the product");
#if DNNL_VERSION_MAJOR >= 3
  const const_dnnl_memory_desc_t sd = dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
#else
  const dnnl_memory_desc_t *sd = dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
#endif
  const size_t need = sd ? dnnl_memory_desc_get_size(sd) : 0;
  if (need > *scratch) *scratch = need;
  for (int t = 0; t < o->threads; t++) {
    for (int i = 0; i < SCRATCH; i++)
      TRY_DNNL(dnnl_memory_create(&o->thread[t].memory[size][i], DESC_PTR(d[i]), o->engine, DNNL_MEMORY_NONE), "memory");
    if (need) TRY_DNNL(dnnl_memory_create(&o->thread[t].memory[size][SCRATCH], sd, o->engine, DNNL_MEMORY_NONE), "memory");
  }
done:
  if (pd) dnnl_primitive_desc_destroy(pd);
  if (attr) dnnl_primitive_attr_destroy(attr);
  for (int i = 0; i < SCRATCH; i++) free_desc(&d[i]);
  return status;
}

static mn_status build(mn_onednn *o, const mn_product *p, int64_t mb, int64_t nb) {
  mn_status status = MN_OK;
  size_t scratch = 0;
  TRY_DNNL(dnnl_engine_create(&o->engine, dnnl_cpu, 0), "the engine");
  for (int t = 0; t < o->threads; t++) TRY_DNNL(dnnl_stream_create(&o->thread[t].stream, o->engine, dnnl_stream_default_flags), "a stream");
  o->m[0] = mb, o->n[0] = nb;
  o->m[1] = p->M % mb, o->n[1] = p->N % nb;
  for (int i = 0; i < 2; i++)
    for (int j = 0; j < 2; j++)
      if (o->m[i] && o->n[j]) MN_TRY(make_size(o, i * 2 + j, p, o->m[i], o->n[j], &scratch));
  for (int t = 0; scratch && t < o->threads; t++) {
    if (!(o->scratch[t] = mn_alloc_aligned(scratch))) return MN_ERR_MEMORY;
    for (int s = 0; s < 4; s++)
      if (o->thread[t].memory[s][SCRATCH])
        TRY_DNNL(dnnl_memory_set_data_handle(o->thread[t].memory[s][SCRATCH], o->scratch[t]), "the scratchpad");
  }
done:
  return status;
}

mn_status mn_onednn_new(const mn_product *p, int64_t mb, int64_t nb, int threads, mn_onednn **out) {
  *out = NULL;
#if DNNL_CPU_RUNTIME != DNNL_RUNTIME_OMP && DNNL_CPU_RUNTIME != DNNL_RUNTIME_SEQ
  return mn_fail(MN_ERR_UNSUPPORTED, "this oneDNN was built for a thread runtime that cannot be held to one thread");
#endif
  if (p->accumulate || p->alpha != 1 || p->M < 1 || p->N < 1 || p->K < 1)
    return mn_fail(MN_ERR_UNSUPPORTED, "oneDNN is used for plain, non-empty products only");
  mn_onednn *o = mn_calloc(1, sizeof *o);
  if (!o) return MN_ERR_MEMORY;
  o->threads = threads;
  o->thread = mn_calloc((size_t)threads, sizeof *o->thread);
  o->scratch = mn_calloc((size_t)threads, sizeof *o->scratch);
  *(void **)&o->omp_get = dlsym(RTLD_DEFAULT, "omp_get_max_threads");
  *(void **)&o->omp_set = dlsym(RTLD_DEFAULT, "omp_set_num_threads");
  mn_status status = o->thread && o->scratch ? MN_OK : MN_ERR_MEMORY;
  if (status == MN_OK && DNNL_CPU_RUNTIME == DNNL_RUNTIME_OMP && (!o->omp_get || !o->omp_set))
    status = mn_fail(MN_ERR_UNSUPPORTED, "oneDNN's OpenMP runtime was not found in the process");
  if (status == MN_OK) {
    const int before = omp_enter(o, 1);
    status = build(o, p, mb, nb);
    omp_leave(o, before, 1);
  }
  if (status != MN_OK) mn_onednn_free(o);
  else *out = o;
  return status;
}

void mn_onednn_free(mn_onednn *o) {
  if (!o) return;
  for (int t = 0; o->thread && o->scratch && t < o->threads; t++) {
    for (int s = 0; s < 4; s++)
      for (int i = 0; i < ARGS; i++)
        if (o->thread[t].memory[s][i]) dnnl_memory_destroy(o->thread[t].memory[s][i]);
    if (o->thread[t].stream) dnnl_stream_destroy(o->thread[t].stream);
    free(o->scratch[t]);
  }
  for (int s = 0; s < 4; s++)
    if (o->matmul[s]) dnnl_primitive_destroy(o->matmul[s]);
  if (o->engine) dnnl_engine_destroy(o->engine);
  free(o->thread);
  free(o->scratch);
  free(o);
}

static mn_status execute(mn_onednn *o, const mn_product *p, int thread, int omp_threads) {
  const int size = (p->M != o->m[0]) * 2 + (p->N != o->n[0]);
  per_thread *t = &o->thread[thread];
  dnnl_memory_t *memory = t->memory[size];
  dnnl_exec_arg_t args[ARGS] = {
      {DNNL_ARG_SRC, memory[A]}, {DNNL_ARG_WEIGHTS, memory[B]}, {DNNL_ARG_DST, memory[C]}, {DNNL_ARG_SCRATCHPAD, memory[SCRATCH]}};
  dnnl_status_t s = dnnl_memory_set_data_handle(memory[A], (void *)p->a);
  if (s == dnnl_success) s = dnnl_memory_set_data_handle(memory[B], (void *)p->b);
  if (s == dnnl_success) s = dnnl_memory_set_data_handle(memory[C], p->c);
  const int before = omp_enter(o, omp_threads);
  if (s == dnnl_success) s = dnnl_primitive_execute(o->matmul[size], t->stream, memory[SCRATCH] ? 4 : 3, args);
  if (s == dnnl_success) s = dnnl_stream_wait(t->stream);
  omp_leave(o, before, omp_threads);
  return s == dnnl_success ? MN_OK : mn_fail(MN_ERR_INTERNAL, "oneDNN refused a product with status %d", (int)s);
}

mn_status mn_onednn_block(mn_onednn *o, const mn_product *block, int thread) { return execute(o, block, thread, 1); }
mn_status mn_onednn_whole(mn_onednn *o, const mn_product *p, int omp_threads) { return execute(o, p, 0, omp_threads); }

#else /* built without oneDNN */

mn_status mn_onednn_new(const mn_product *p, int64_t mb, int64_t nb, int threads, mn_onednn **out) {
  (void)p, (void)mb, (void)nb, (void)threads;
  *out = NULL;
  return mn_fail(MN_ERR_UNSUPPORTED, "this build of Mneme has no oneDNN");
}
void mn_onednn_free(mn_onednn *o) { (void)o; }
mn_status mn_onednn_block(mn_onednn *o, const mn_product *block, int thread) {
  (void)o, (void)block, (void)thread;
  return mn_fail(MN_ERR_UNSUPPORTED, "this build of Mneme has no oneDNN");
}
mn_status mn_onednn_whole(mn_onednn *o, const mn_product *p, int omp_threads) { return mn_onednn_block(o, p, omp_threads); }

#endif
