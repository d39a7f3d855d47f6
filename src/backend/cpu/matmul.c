/* matmul.c - the matmul operation of the CPU backend, and products that are scaled and added to what is there: from the views of a
 * call to a product (product.h). */
#include <stdlib.h>

#include "backend/cpu/cpu.h"
#include "backend/cpu/copy.h"
#include "backend/cpu/product.h"
#include "graph/fused_product.h"
#include "graph/ops.h"

static bool accepts(const mn_node *n) { /* f32 x f32 -> f32, bf16 x bf16 -> f32 or bf16 */
  const mn_dtype a = n->in[0]->dtype, b = n->in[1]->dtype, c = n->out[0]->dtype;
  return a == b && ((a == MN_F32 && c == MN_F32) || (a == MN_BF16 && (c == MN_F32 || c == MN_BF16)));
}

static bool accepts_scaled(const mn_node *n) {
  for (int i = 0; i < n->n_in; i++)
    if (n->in[i]->dtype != MN_F32) return false;
  return true;
}

static bool is_scaled(const mn_call *c) { return c->node->op == &mn_op_scaled_product; }
static void plan_of_call(const mn_call *c, mn_product_plan *t) {
  const mn_view *a = &c->in[0], *b = &c->in[1], *out = &c->out[0];
  const int d = out->ndim;
  *t = (mn_product_plan){.n_axes = d - 2, .threads = mn_pool_threads(c->pool)};
  t->p = (mn_product){
      .M = out->dim[d - 2],
      .N = out->dim[d - 1],
      .K = a->dim[a->ndim - 1],
      .a_rs = a->stride[a->ndim - 2],
      .a_cs = a->stride[a->ndim - 1],
      .b_rs = b->stride[b->ndim - 2],
      .b_cs = b->stride[b->ndim - 1],
      .ldc = out->dim[d - 1],
      .bf16 = a->dtype == MN_BF16,
      .c_bf16 = out->dtype == MN_BF16,
      .accumulate = is_scaled(c) && c->n_in == 3,
      .alpha = is_scaled(c) ? (float)((const mn_scaled_product_attr *)c->attr)->alpha : 1,
  };
  /* operands may have fewer batch axes, or axes of size 1: both are broadcast */
  for (int i = 0; i < d - 2; i++) {
    const int ia = i - (d - a->ndim), ib = i - (d - b->ndim);
    t->dim[i] = out->dim[i];
    t->a_step[i] = ia < 0 || a->dim[ia] == 1 ? 0 : a->stride[ia];
    t->b_step[i] = ib < 0 || b->dim[ib] == 1 ? 0 : b->stride[ib];
  }
  mn_product_plan_make(t, mn_cpu_isa(c->backend), MN_ONEDNN_WHERE_FASTER);
}

static size_t workspace(const mn_call *c) {
  mn_product_plan t;
  plan_of_call(c, &t);
  return t.scratch * (size_t)mn_pool_threads(c->pool);
}

/* The plan is made once; only the pointers can change from run to run. */
static mn_status prepare(mn_call *c) {
  mn_product_plan *t = mn_calloc(1, sizeof *t);
  if (!t) return MN_ERR_MEMORY;
  plan_of_call(c, t);
  c->state = t;
  return mn_product_plan_prepare(t, mn_pool_threads(c->pool));
}

static void release(mn_call *c) {
  if (c->state) mn_product_plan_release(c->state);
  free(c->state);
  c->state = NULL;
}

static mn_status run(mn_call *c) {
  if (c->n_in == 3 && c->in[2].data != c->out[0].data)
    mn_cpu_copy(c->pool, mn_cpu_isa(c->backend), sizeof(float), c->out[0].ndim, c->out[0].dim, c->out[0].data, c->out[0].stride,
                c->in[2].data, c->in[2].stride);
  mn_product_plan t = *(const mn_product_plan *)c->state;
  t.p.a = c->in[t.swapped].data;
  t.p.b = c->in[!t.swapped].data;
  t.p.c = c->out[0].data;
  return mn_product_plan_run(&t, c->pool, c->workspace);
}

static const mn_kernel matmul = {
    .op = &mn_op_matmul,
    .name = "matmul",
    .layout = MN_LAYOUT_MATRIX,
    .accepts = accepts,
    .alike = true,
    .workspace = workspace,
    .prepare = prepare,
    .release = release,
    .run = run,
};

static const mn_kernel scaled = {
    .op = &mn_op_scaled_product,
    .name = "cpu.scaled_product",
    .layout = MN_LAYOUT_MATRIX,
    .accepts = accepts_scaled,
    .alike = true,
    .workspace = workspace,
    .prepare = prepare,
    .release = release,
    .run = run,
};

const mn_kernel *const *mn_cpu_matmul_kernels(mn_isa isa, int *n) {
  static const mn_kernel *const kernels[] = {&matmul, &scaled};
  (void)isa;
  *n = 2;
  return kernels;
}
