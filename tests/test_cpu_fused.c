/* test_cpu_fused.c - fused operations in a graph: the same small model (norms, a fused projection cut into heads,
 * rotary embedding, softmax, convolution with prefix and bias, cross-entropy) with its gradients, compiled for the CPU
 * backend with its kernels and for the reference backend, which takes the compositions. */
#include "graph/fused_conv.h"
#include "graph/fused_loss.h"
#include "graph/fused_norm.h"
#include "graph/fused_rope.h"
#include "graph/fused_softmax.h"
#include "graph/ops.h"
#include "compile/plan.h"
#include "gradcheck.h"

enum { B = 2, T = 11, H = 3, K = 8, D = 24, W = 4, VOCAB = 50, MAX_LEAVES = 16, GRADS = 9 };

typedef struct model {
  mn_graph *g;
  mn_tensor *leaf[MAX_LEAVES];
  void *data[MAX_LEAVES];
  int n;
  mn_tensor *out[2 + GRADS];
} model;

static mn_tensor *leaf(model *m, mn_dtype t, mn_shape s, double scale, double shift) {
  int64_t n = mn_shape_count(&s);
  void *data = mn_calloc((size_t)n, 4);
  for (int64_t i = 0; i < n; i++) {
    float x = (float)(shift + scale * mn_random_normal((uint64_t)m->n + 1, 0, (uint64_t)i));
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if (t == MN_F32) ((float *)data)[i] = x;
    else if (t == MN_BF16) ((uint16_t *)data)[i] = (uint16_t)(bits >> 16);
    else ((int32_t *)data)[i] = i % 4 == 3 ? -1 : (int32_t)(i * 7 % VOCAB);
  }
  m->data[m->n] = data;
  return m->leaf[m->n++] = mn_input(m->g, "leaf", t, s);
}

static void build(model *m, mn_dtype t, mn_dtype head) {
  mn_graph *g = m->g = mn_graph_new();
  mn_tensor *x = leaf(m, t, MN_SHAPE(B, T, D), 1, 0), *w_norm = leaf(m, MN_F32, MN_SHAPE(D), 0.3, 1);
  mn_tensor *b_norm = leaf(m, MN_F32, MN_SHAPE(D), 0.3, 0), *w_in = leaf(m, t, MN_SHAPE(D, 3 * D), 0.2, 0);
  mn_tensor *w_head = leaf(m, MN_F32, MN_SHAPE(K), 0.3, 1), *taps = leaf(m, t, MN_SHAPE(D, W), 0.5, 0);
  mn_tensor *bias = leaf(m, t, MN_SHAPE(D), 0.3, 0), *prefix = leaf(m, t, MN_SHAPE(B, W - 1, D), 1, 0);
  mn_tensor *w_out = leaf(m, head, MN_SHAPE(VOCAB, D), 0.3, 0), *cos = leaf(m, MN_F32, MN_SHAPE(T, K / 2), 1, 0);
  mn_tensor *sin = leaf(m, MN_F32, MN_SHAPE(T, K / 2), 1, 0), *target = leaf(m, MN_I32, MN_SHAPE(B * T), 0, 0);
  mn_tensor *weight = leaf(m, MN_F32, MN_SHAPE(B * T), 0.2, 1);

  mn_tensor *y = mn_norm(g, MN_NORM_LAYER, x, w_norm, b_norm, 1e-5, t);
  mn_tensor *all = mn_matmul(g, mn_reshape(g, y, MN_SHAPE(B * T, D)), w_in);
  mn_tensor *part[3];
  for (int i = 0; i < 3; i++) part[i] = mn_slice(g, mn_reshape(g, all, MN_SHAPE(B, T, 3 * D)), 2, i * D, D); /* rows 3 D apart */
  mn_tensor *q = mn_norm(g, MN_NORM_RMS, mn_reshape(g, part[0], MN_SHAPE(B, T, H, K)), w_head, NULL, 1e-6, t);
  q = mn_rope(g, q, cos, sin, MN_ROPE_HALVES);
  mn_tensor *k = mn_norm(g, MN_NORM_L2, mn_reshape(g, part[1], MN_SHAPE(B, T, H, K)), NULL, NULL, 1e-6, t);
  k = mn_rope(g, k, cos, sin, MN_ROPE_INTERLEAVED);
  mn_tensor *gate = mn_softmax(g, mn_mul(g, q, k));
  mn_tensor *c = mn_causal_conv(g, part[2], taps, bias, prefix);
  mn_tensor *h = mn_mul(g, mn_reshape(g, gate, MN_SHAPE(B, T, D)), c);
  mn_tensor *nll, *loss = mn_linear_cross_entropy(g, mn_reshape(g, h, MN_SHAPE(B * T, D)), w_out, target, weight, &nll);
  m->out[0] = loss;
  m->out[1] = nll;
  mn_tensor *xs[GRADS] = {x, w_norm, b_norm, w_in, w_head, taps, bias, prefix, w_out};
  CHECK_OK(mn_grad(g, 1, &loss, NULL, GRADS, xs, &m->out[2]));
  CHECK_OK(mn_graph_status(g));
}

static double value(const mn_view *v, int64_t i) {
  if (v->dtype == MN_F32) return ((const float *)v->data)[i];
  uint32_t bits = (uint32_t)((const uint16_t *)v->data)[i] << 16;
  float f;
  memcpy(&f, &bits, sizeof f);
  return f;
}

static void collect(void *ctx, const char *text) {
  char *all = ctx;
  strncat(all, text, (1 << 16) - strlen(all) - 2);
  strcat(all, "\n");
}
/* The plan runs the CPU's kernels and not the compositions. */
static void check_kernels(const mn_plan *plan) {
  static const char *const kernels[] = {"cpu norm", "cpu norm_grad", "cpu softmax",   "cpu softmax_grad",
                                        "cpu rope", "cpu conv",      "cpu conv_grad", "cpu linear_cross_entropy_grad"};
  char *all = mn_calloc(1, 1 << 16);
  mn_plan_describe(plan, collect, all);
  for (int i = 0; i < 8; i++) CHECK(strstr(all, kernels[i]), "no %s in\n%s", kernels[i], all);
  CHECK(!strstr(all, "cpu linear_cross_entropy\n") && !strstr(all, "cpu linear_cross_entropy "),
        "the forward runs beside the gradient, which gives its values, in\n%s", all);
  free(all);
}

static void compare(mn_backend *cpu, mn_dtype t, mn_dtype head, double tolerance) {
  static const char *const names[2 + GRADS] = {"loss",    "nll",   "dx",    "dw_norm", "db_norm", "dw_in",
                                               "dw_head", "dtaps", "dbias", "dprefix", "dw_out"};
  model m = {0};
  build(&m, t, head);
  mn_plan *plan[2] = {NULL, NULL};
  for (int i = 0; i < 2; i++) {
    mn_plan_request request = {.graph = m.g, .n_outputs = 2 + GRADS, .outputs = m.out, .backend = i ? cpu : mn_backend_ref()};
    CHECK_OK(mn_plan_compile(&request, &plan[i]));
    if (!plan[i]) continue;
    for (int l = 0; l < m.n; l++) mn_plan_bind(plan[i], m.leaf[l], m.data[l]);
    CHECK_OK(mn_plan_run(plan[i]));
    if (i) check_kernels(plan[i]);
  }
  for (int o = 0; o < 2 + GRADS && plan[0] && plan[1]; o++) {
    const mn_view *ref = mn_plan_output(plan[0], o), *got = mn_plan_output(plan[1], o);
    double most = 1e-3, diff = 0;
    for (int64_t i = 0; i < mn_view_count(ref); i++) {
      double d = fabs(value(ref, i) - value(got, i));
      if (!(d <= diff)) diff = d;
      if (fabs(value(ref, i)) > most) most = fabs(value(ref, i));
    }
    CHECK(diff <= tolerance * most, "%s (head %s) %s: %g of %g", mn_dtype_name(t), mn_dtype_name(head), names[o], diff, most);
  }
  for (int i = 0; i < 2; i++) mn_plan_free(plan[i]);
  for (int l = 0; l < m.n; l++) free(m.data[l]);
  mn_graph_free(m.g);
}

static void test_kernels_agree_with_compositions(void) {
  for (int threads = 1; threads <= 2; threads++) {
    mn_backend *cpu;
    CHECK_OK(mn_backend_cpu_new(threads, &cpu));
    compare(cpu, MN_F32, MN_F32, 2e-5);
    compare(cpu, MN_BF16, MN_BF16, 5e-2); /* the reference rounds to bf16 in other places */
    compare(cpu, MN_BF16, MN_F32, 5e-2);
    mn_backend_free(cpu);
  }
}

/* A fused chain of operations in bf16 is rounded once: each result is the bf16 number nearest to the exact one of the same inputs (but for
 * f32's own errors); on the reference, which rounds after each operation, it is not. A cast in the chain is still a cast. */
static void test_a_chain_is_rounded_once(void) {
  enum { N = 2000 };
  mn_backend *cpu = NULL;
  double x[N], y[N], *value_of_leaf[2] = {x, y}, worst[2] = {0, 0}, uncast = 0;
  CHECK_OK(mn_backend_cpu_new(1, &cpu));
  for (int i = 0; i < N; i++) {
    float a = (float)mn_random_normal(1, 0, (uint64_t)i), b = (float)mn_random_normal(2, 0, (uint64_t)i);
    uint16_t s;
    mn_element_store(&s, MN_BF16, 0, (double)a), x[i] = mn_element_load(&s, MN_BF16, 0);
    mn_element_store(&s, MN_BF16, 0, (double)b), y[i] = mn_element_load(&s, MN_BF16, 0);
  }
  for (int where = 0; where < 2 && cpu; where++) {
    mn_graph *g = mn_graph_new();
    mn_tensor *leaf[2] = {mn_input(g, "x", MN_BF16, MN_SHAPE(N)), mn_input(g, "y", MN_BF16, MN_SHAPE(N))}, *out[2];
    mn_tensor *product = mn_mul(g, leaf[0], leaf[1]);
    out[0] = mn_sigmoid(g, mn_add(g, mn_mul(g, product, leaf[0]), leaf[1]));
    mn_tensor *wide = mn_mul(g, mn_cast(g, leaf[0], MN_F32), mn_cast(g, leaf[1], MN_F32));
    out[1] = mn_mul_scalar(g, mn_cast(g, mn_cast(g, wide, MN_BF16), MN_F32), 1.5);
    double *got[2];
    CHECK(gc_run(g, where ? cpu : mn_backend_ref(), 0, MN_KEEP, 2, leaf, value_of_leaf, 2, out, got), "%s", mn_message());
    for (int i = 0; i < N && got[0] && got[1]; i++) {
      const double exact = 1 / (1 + exp(-(x[i] * y[i] * x[i] + y[i])));
      worst[where] = fmax(worst[where], fabs(got[0][i] - exact) / exact);
      uint16_t cast;
      mn_element_store(&cast, MN_BF16, 0, x[i] * y[i]);
      uncast = fmax(uncast, fabs(got[1][i] - 1.5 * mn_element_load(&cast, MN_BF16, 0)));
    }
    free(got[0]), free(got[1]);
    mn_graph_free(g);
  }
  CHECK(worst[1] <= 0x1p-8 * 1.01, "a fused chain is off by %g of a result, half a place is %g", worst[1], 0x1p-8);
  CHECK(worst[0] > 0x1p-8 * 1.5, "the reference rounds as rarely: %g", worst[0]);
  CHECK(uncast == 0, "a cast to bf16 was dropped: %g", uncast);
  mn_backend_free(cpu);
}

int main(void) {
  RUN(test_kernels_agree_with_compositions);
  RUN(test_a_chain_is_rounded_once);
  return test_end();
}
