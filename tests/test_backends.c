/* test_backends.c - what a backend may count on when another stands on it: its kernels are called with itself and its own threads;
 * and what the one above may: a fused operation is never slow for its sake. */
#include "gradcheck.h"
#include "graph/fused_softmax.h"
#include "graph/ops.h"

/* ---- a backend of two levels: the lower has kernels for all three, the upper for one ---- */
typedef struct call {
  int n;
  const mn_backend *backend;
  const mn_pool *pool;
} call;
static call seen[3]; /* of core, fused and own */

static mn_status see(mn_call *c, int which) {
  seen[which].n++;
  seen[which].backend = c->backend;
  seen[which].pool = c->pool;
  memcpy(c->out[0].data, c->in[0].data, (size_t)mn_view_count(&c->in[0]) * mn_dtype_size(c->in[0].dtype));
  return MN_OK;
}
static mn_status run_core(mn_call *c) { return see(c, 0); }
static mn_status run_fused(mn_call *c) { return see(c, 1); }
static mn_status run_own(mn_call *c) { return see(c, 2); }

static size_t workspace_pool_must_fit(const mn_call *c) { return (size_t)mn_pool_threads(c->pool) * 64; }

static const mn_op op_core = {.name = "core", .cls = MN_OP_CORE}, op_own = {.name = "own", .cls = MN_OP_CORE};
static void fused_compose(mn_graph *g, mn_node *n, mn_tensor **in, mn_tensor **out) {
  (void)n;
  out[0] = mn_node1(g, &op_own, 1, in, in[0]->dtype, in[0]->shape, NULL);
}
static const mn_op op_fused = {.name = "fused", .cls = MN_OP_FUSED, .compose = fused_compose};
static const mn_kernel core = {.op = &op_core, .name = "core", .workspace = workspace_pool_must_fit, .run = run_core};
static const mn_kernel fused = {.op = &op_fused, .name = "fused", .run = run_fused}, own = {.op = &op_own, .name = "own", .run = run_own};

static void kernels_run_with_the_backend_that_has_them(void) {
  mn_backend *cpu = NULL;
  mn_pool *pool = mn_pool_new(1);
  CHECK_OK(mn_backend_cpu_new(2, &cpu));
  if (!cpu || !pool) return;
  const mn_kernel **lists = calloc((size_t)cpu->n_kernels + 3, sizeof *lists);
  lists[0] = &core, lists[1] = &fused, lists[2] = &own;
  for (int k = 0; k < cpu->n_kernels; k++) lists[3 + k] = cpu->kernels[k];
  mn_backend lower = *cpu;
  lower.kernels = lists;
  lower.n_kernels = cpu->n_kernels + 3;
  lower.sorted = false;
  const mn_kernel *upper_list[] = {&own};
  mn_backend upper = *mn_backend_ref(); /* a kernel of the processor's would find nothing in it: impl is NULL */
  upper.name = "upper";
  upper.kernels = upper_list;
  upper.n_kernels = 1;
  upper.fallback = &lower;
  upper.pool = pool;

  mn_graph *g = mn_graph_new();
  mn_tensor *x = mn_input(g, "x", MN_F32, MN_SHAPE(8, 8)), *y[2];
  y[0] = mn_node1(g, &op_core, 1, &x, x->dtype, x->shape, NULL);
  y[0] = mn_node1(g, &op_fused, 1, &y[0], x->dtype, x->shape, NULL);
  y[1] = mn_softmax(g, mn_matmul(g, y[0], mn_exp(g, x))); /* the processor's own kernels, from the fallback */
  double in[64], *value = in, *out[2], *plain[2];
  for (int i = 0; i < 64; i++) in[i] = 0.1 * mn_random_normal(1, 1, (uint64_t)i);
  CHECK(gc_run(g, &upper, 0, MN_KEEP, 1, &x, &value, 2, y, out), "%s", mn_message());
  CHECK(seen[0].n == 1 && seen[0].backend == &lower && seen[0].pool == cpu->pool, "a fallback's kernel, %d times, of backend %s", seen[0].n,
        seen[0].backend ? seen[0].backend->name : "?");
  CHECK(seen[1].n == 0 && seen[2].n == 1, "a fused operation is not the fallback's (%d times) where its parts are fast here (%d)",
        seen[1].n, seen[2].n);
  CHECK(seen[2].backend == &upper && seen[2].pool == pool, "one's own kernel with one's own threads");
  CHECK(gc_run(g, &lower, 0, MN_KEEP, 1, &x, &value, 2, y, plain), "%s", mn_message());
  CHECK(seen[1].n == 1 && seen[1].backend == &lower, "where the kernel is one's own it is used");
  for (int j = 0; j < 2 && out[0] && plain[0]; j++) {
    CHECK(gc_difference(plain[j], out[j], 64) < 1e-5, "result %d", j);
    free(out[j]), free(plain[j]);
  }
  mn_graph_free(g);
  free(lists);
  mn_pool_free(pool);
  mn_backend_free(cpu);
}

static void ref_runs_on_one_thread(void) {
  mn_backend *b = NULL;
  CHECK_OK(mn_backend_open("ref", 0, &b));
  CHECK_OK(mn_backend_open("ref", 1, &b));
  CHECK(mn_backend_open("ref", 2, &b) == MN_ERR_CONFIG && !b && strstr(mn_message(), "one thread"), "%s", mn_message());
}

/* ---- what is made ready ---- */
static int made_ready, released;
static mn_status make_ready(mn_call *c) {
  made_ready++;
  return (c->state = malloc(1)) ? MN_OK : MN_ERR_MEMORY;
}
static void release(mn_call *c) {
  released++;
  free(c->state);
  c->state = NULL;
}
static mn_status run_ready(mn_call *c) { return c->state ? run_core(c) : mn_fail(MN_ERR_INTERNAL, "nothing was made ready"); }

/* Steps of equal shapes share it where their kernel says that it follows from these; what is shared is released once. */
static void steps_that_are_alike_share_what_is_made_ready(void) {
  for (int alike = 0; alike < 2; alike++) {
    const mn_kernel ready = {.op = &op_core, .name = "core", .alike = alike, .prepare = make_ready, .release = release, .run = run_ready};
    const mn_kernel *const list[] = {&ready};
    mn_backend b = *mn_backend_ref();
    b.kernels = list, b.n_kernels = 1, b.sorted = false, b.fallback = mn_backend_ref();
    mn_graph *g = mn_graph_new();
    mn_tensor *x = mn_input(g, "x", MN_F32, MN_SHAPE(8, 8)), *y = x;
    double in[64], *value = in, *out = NULL;
    for (int i = 0; i < 64; i++) in[i] = i;
    for (int i = 0; i < 3; i++) y = mn_node1(g, &op_core, 1, &y, y->dtype, y->shape, NULL);
    y = mn_reshape(g, y, MN_SHAPE(4, 16));
    y = mn_node1(g, &op_core, 1, &y, y->dtype, y->shape, NULL);
    made_ready = released = 0;
    CHECK(gc_run(g, &b, 0, MN_KEEP, 1, &x, &value, 1, &y, &out), "%s", mn_message());
    CHECK(made_ready == (alike ? 2 : 4) && released == made_ready, "alike %d: made ready %d times, released %d", alike, made_ready,
          released);
    for (int i = 0; i < 64 && out; i++) CHECK(out[i] == i, "element %d is %g", i, out[i]);
    free(out);
    mn_graph_free(g);
  }
}

int main(void) {
  RUN(kernels_run_with_the_backend_that_has_them);
  RUN(steps_that_are_alike_share_what_is_made_ready);
  RUN(ref_runs_on_one_thread);
  return test_end();
}
