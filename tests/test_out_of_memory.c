/* Building, differentiating and compiling a graph when memory runs out: whichever allocation fails, the answer is
 * MN_ERR_MEMORY (or a result that needed no memory), nothing is lost and nothing is wrong afterwards. The build wraps the
 * allocation functions of this program (CMakeLists.txt). */
#include "backend/backend.h"
#include "checkpoint/convert.h"
#include "compile/plan.h"
#include "format/gguf.h"
#include "graph/fused_norm.h"
#include "graph/fused_softmax.h"
#include "scratch.h"
#include "test.h"

static long allocations, failing = -1; /* the number of the allocation that fails; -1: none */

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void *__real_aligned_alloc(size_t align, size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);
void *__wrap_aligned_alloc(size_t align, size_t n);

static int refused(void) { return allocations++ == failing; }
void *__wrap_malloc(size_t n) { return refused() ? NULL : __real_malloc(n); }
void *__wrap_calloc(size_t n, size_t size) { return refused() ? NULL : __real_calloc(n, size); }
void *__wrap_realloc(void *p, size_t n) { return refused() ? NULL : __real_realloc(p, n); }
void *__wrap_aligned_alloc(size_t align, size_t n) { return refused() ? NULL : __real_aligned_alloc(align, n); }

enum { N = 24 };

/* A loop with a gradient through checkpoints, fused operations, views that need copies, an assigned variable. Returns the
 * sum of all outputs' entries of one run. */
static mn_status all_of_it(mn_backend *b, double *sum) {
  mn_graph *g = mn_graph_new();
  mn_plan *p = NULL;
  if (!g) return MN_ERR_MEMORY;
  mn_tensor *x = mn_input(g, "x", MN_F32, MN_SHAPE(N, 3, 4)), *w = mn_variable(g, "w", MN_F32, MN_SHAPE(4, 4));
  mn_tensor *start = mn_full(g, MN_F32, MN_SHAPE(3, 4), 0.5), *c, *xt, *final = NULL, *ys = NULL, *d[2], *next = NULL;
  mn_scan_builder *s = mn_scan_begin(g, N, MN_FORWARD, 1, &start, 1, &x, &c, &xt);
  mn_graph *body = mn_scan_body(s);
  if (body) {
    mn_tensor *h = mn_tanh(body, mn_add(body, mn_matmul(body, c, w), mn_norm(body, MN_NORM_RMS, xt, NULL, NULL, 1e-5, MN_F32)));
    mn_scan_end(s, &h, 1, &c, &final, &ys);
  }
  mn_tensor *y = mn_softmax(g, ys ? mn_reshape(g, mn_transpose(g, ys, 0, 2), MN_SHAPE(4, 3 * N)) : NULL);
  mn_status status = mn_graph_status(g);
  if (status == MN_OK) {
    y = mn_add(g, mn_sumsq(g, y), mn_sumsq(g, final));
    status = mn_grad(g, 1, &y, NULL, 2, (mn_tensor *[]){x, w}, d);
  }
  if (status == MN_OK) {
    next = mn_sub(g, w, mn_mul_scalar(g, d[1], 0.1));
    mn_plan_request q = {.graph = g,
                         .n_outputs = 2,
                         .outputs = (mn_tensor *[]){y, d[0]},
                         .n_assigns = 1,
                         .variables = &w,
                         .values = &next,
                         .backend = b,
                         .activations = MN_RECOMPUTE_NORMS};
    status = mn_graph_status(g);
    if (status == MN_OK) status = mn_plan_compile(&q, &p);
  }
  if (status == MN_OK) {
    static float xs[N * 12], ws[16];
    for (int i = 0; i < N * 12; i++) xs[i] = (float)(i % 7) / 7 - 0.4f;
    for (int i = 0; i < 16; i++) ws[i] = (float)(i % 5) / 5 - 0.3f;
    mn_plan_bind(p, x, xs);
    mn_plan_bind(p, w, ws);
    status = mn_plan_run(p);
    *sum = 0;
    for (int j = 0; j < 2 && status == MN_OK; j++) {
      const mn_view *v = mn_plan_output(p, j);
      for (int64_t i = 0; i < mn_view_count(v); i++) *sum += (double)((const float *)v->data)[i] * (double)(i % 3 + 1);
    }
    for (int i = 0; i < 16; i++) *sum += (double)ws[i];
  }
  mn_plan_free(p);
  mn_graph_free(g);
  return status;
}

static void refuse_each(mn_backend *b) {
  double expected = 0, sum = 0;
  failing = -1;
  CHECK_OK(all_of_it(b, &expected)); /* what a first run keeps for good is there from now on */
  allocations = 0;
  CHECK_OK(all_of_it(b, &expected));
  long n = allocations;
  CHECK(n > 50, "%ld allocations", n);
  for (long k = 0; k < n; k++) {
    allocations = 0;
    failing = k;
    mn_status status = all_of_it(b, &sum);
    failing = -1;
    CHECK(status == MN_ERR_MEMORY || (status == MN_OK && sum == expected), "allocation %ld of %ld: %s: %s; %g for %g", k, n,
          mn_status_name(status), mn_message(), sum, expected);
  }
  CHECK_OK(all_of_it(b, &sum));
  CHECK(sum == expected, "%g for %g", sum, expected);
}

static void the_reference_backend(void) { refuse_each(mn_backend_ref()); }

static void the_processor(void) {
  mn_backend *cpu = NULL;
  CHECK_OK(mn_backend_cpu_new(1, &cpu));
  if (cpu) refuse_each(cpu);
  mn_backend_free(cpu);
}

/* ---- files ---- */

static mn_status write_gguf(void) {
  static const float values[512] = {1, -2, 3};
  mn_gguf_writer *w = mn_gguf_writer_new();
  mn_status status = w ? mn_gguf_writer_string(w, "general.architecture", "none") : MN_ERR_MEMORY;
  if (status == MN_OK) status = mn_gguf_writer_strings(w, "tokens", (mn_gguf_bytes[]){{"a", 1}, {"bc", 2}}, 2);
  if (status == MN_OK) status = mn_gguf_writer_add(w, "one.weight", MN_GGUF_F32, &(mn_shape){2, {2, 256}}, values);
  if (status == MN_OK) status = mn_gguf_writer_add(w, "two.weight", MN_GGUF_F32, &(mn_shape){2, {4, 32}}, values);
  if (status == MN_OK) status = mn_gguf_writer_save(w, "a.gguf");
  mn_gguf_writer_free(w);
  return status;
}

static mn_status read_gguf(void) {
  mn_gguf *g = NULL;
  mn_arena *a = mn_arena_new();
  const mn_gguf_bytes *tokens;
  const char *text;
  size_t n;
  mn_status status = a ? mn_gguf_open("a.gguf", &g) : MN_ERR_MEMORY;
  if (status == MN_OK) status = mn_gguf_strings(g, "tokens", a, &tokens, &n);
  if (status == MN_OK) status = mn_gguf_string(g, "general.architecture", NULL, a, &text);
  for (int i = 0; status == MN_OK && i < mn_gguf_count(g); i++) status = mn_gguf_check(g, mn_gguf_at(g, i));
  mn_gguf_close(g);
  if (a) mn_arena_free(a);
  return status;
}

static mn_status convert_gguf(void) {
  mn_convert_report report;
  return mn_convert("a.gguf", "b.gguf", &(mn_convert_options){.type = MN_Q4_K}, &report);
}

/* Whichever allocation fails, that is what is said, or it was not needed; and with all of them it works. */
static void each_refused(const char *what, mn_status (*work)(void)) {
  CHECK_OK(work());
  allocations = 0;
  CHECK_OK(work());
  const long n = allocations;
  CHECK(n > 3, "%s: %ld allocations", what, n);
  for (long k = 0; k < n; k++) {
    allocations = 0;
    failing = k;
    const mn_status status = work();
    failing = -1;
    CHECK(status == MN_OK || status == MN_ERR_MEMORY, "%s, allocation %ld: %s: %s", what, k, mn_status_name(status), mn_message());
  }
  CHECK_OK(work());
}

static void files_of_tensors(void) {
  each_refused("writing", write_gguf);
  each_refused("reading", read_gguf);
  each_refused("converting", convert_gguf);
}

int main(void) {
  RUN(the_reference_backend);
  RUN(the_processor);
  RUN(files_of_tensors);
  return test_end();
}
