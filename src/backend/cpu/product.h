/* product.h - products of matrices on all threads, for the matmul operation and for other kernels of the CPU backend
 * that are made of large products (the loss). What one thread does is in isa/gemm.h. */
#ifndef MN_CPU_PRODUCT_H
#define MN_CPU_PRODUCT_H

#include "backend/backend.h"
#include "backend/cpu/isa/elementwise.h"
#include "backend/cpu/isa/gemm.h"
#include "backend/cpu/isa/thin.h"
#include "backend/cpu/onednn.h"

/* How a batch of equal products is cut into tasks. The cutting of M and N may follow the number of threads, because the
 * order in which an element of C is summed depends on K alone. */
typedef enum mn_product_path { MN_PRODUCT_THIN, MN_PRODUCT_SMALL, MN_PRODUCT_BLOCK, MN_PRODUCT_ONEDNN } mn_product_path;
typedef struct mn_product_plan {
  mn_product p; /* of one product; its pointers are those of the first */
  int n_axes;   /* batch axes, outermost first                         */
  int64_t dim[MN_MAX_DIMS];
  int64_t a_step[MN_MAX_DIMS], b_step[MN_MAX_DIMS]; /* strides along the batch axes; 0 = broadcast         */
  int64_t batch;                                    /* their product; C of product i is at c + i*M*N       */
  int threads;                                      /* that will run it; 0: unknown                        */
  bool swapped;                                     /* A and B changed places (transposed): p.a is the B of the caller */
  const mn_gemm *gemm;
  const mn_thin *thin;
  mn_product_path path;
  mn_onednn *onednn;                /* of the path ONEDNN, after mn_product_plan_prepare */
  int64_t mb, nb, m_tasks, n_tasks; /* one product is cut into m_tasks x n_tasks blocks    */
  int64_t group, tasks;             /* `group` products (when uncut) to a task             */
  size_t packed;                    /* bytes of B packed for all blocks; 0: each packs its own */
  int64_t parts;                    /* of K, or 1: all but the first are summed into memory of their own, and then added */
  const mn_ew_vec *ew;              /* which adds them */
  size_t scratch;                   /* bytes for one thread, a multiple of 64; its share of `packed` and of these sums included */
} mn_product_plan;

/* From p, n_axes, dim, steps and threads (the rest is filled in); pointers may be NULL still. onednn: whether the path ONEDNN
 * may be taken, which then needs mn_product_plan_prepare before the first run; where oneDNN turns out not to serve the
 * product, that call changes the path to BLOCK (with the scratch that the plan already asks for). */
typedef enum mn_product_use { MN_ONEDNN_NEVER, MN_ONEDNN_WHERE_FASTER, MN_ONEDNN_ALWAYS } mn_product_use;
void mn_product_plan_make(mn_product_plan *plan, mn_isa isa, mn_product_use onednn);
mn_status mn_product_plan_prepare(mn_product_plan *plan, int threads);
void mn_product_plan_release(mn_product_plan *plan);
/* scratch: plan->scratch bytes for each thread of the pool, 64-byte aligned */
mn_status mn_product_plan_run(const mn_product_plan *plan, mn_pool *pool, void *scratch);

/* One product at once, by Mneme's own kernels; scratch of mn_product_scratch(...) bytes. */
size_t mn_product_scratch(const mn_product *p, mn_isa isa, mn_pool *pool);
void mn_product_run(const mn_product *p, mn_isa isa, mn_pool *pool, void *scratch);

#endif
