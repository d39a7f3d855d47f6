/* test_gradients_wanted.c - gradients that nobody asks for are not made, in order: a constant mask costs the backward pass of
 * attention nothing, however it is made constant; the same for weights that are frozen (norm, convolution, head of the loss) and for
 * what a loop carries along; what is asked for keeps its bits. Then a bias that batch elements, heads or queries share: its gradient is
 * the sum of theirs, cut into several tasks, with the same bits for any number of threads. */
#include "gradcheck.h"
#include "graph/fused_attention.h"
#include "graph/fused_conv.h"
#include "graph/fused_loss.h"
#include "graph/fused_norm.h"

/* Calls of the pool are counted on their way (the linker leads mn_pool_run here). */
void __real_mn_pool_run(mn_pool *pool, int64_t n, mn_pool_fn fn, void *ctx);
void __wrap_mn_pool_run(mn_pool *pool, int64_t n, mn_pool_fn fn, void *ctx);
static int64_t most_tasks;
void __wrap_mn_pool_run(mn_pool *pool, int64_t n, mn_pool_fn fn, void *ctx) {
  if (n > most_tasks) most_tasks = n;
  __real_mn_pool_run(pool, n, fn, ctx);
}

static mn_backend *cpu[4]; /* by threads */

/* ---- a function of a few tensors, and the gradients of some of them ---- */
typedef struct subject {
  mn_graph *g;
  int n;
  mn_tensor *x[8];
  double *value[8];
  mn_tensor *y;
} subject;

static subject begin(void) { return (subject){.g = mn_graph_new()}; }
static mn_tensor *operand(subject *s, mn_shape shape) {
  const int64_t count = mn_shape_count(&shape);
  double *v = s->value[s->n] = malloc((size_t)(count + 1) * sizeof *v);
  for (int64_t i = 0; i < count; i++) v[i] = mn_random_normal(31, (uint64_t)s->n, (uint64_t)i);
  return s->x[s->n++] = mn_input(s->g, "x", MN_F32, shape);
}
static void end(subject *s) {
  for (int i = 0; i < s->n; i++) free(s->value[i]);
  mn_graph_free(s->g);
}

/* The plan of the gradients for the operands in `which` (a mask), with weights of y that differ; their values to out. */
static mn_plan_report gradients(subject *s, mn_backend *b, unsigned which, double **out) {
  mn_tensor *wrt[8], *d[8];
  int n = 0;
  for (int i = 0; i < s->n; i++)
    if (which >> i & 1) wrt[n++] = s->x[i];
  const int64_t count = s->y ? mn_shape_count(&s->y->shape) : 0;
  float *w = malloc((size_t)(count + 1) * sizeof *w);
  for (int64_t i = 0; i < count; i++) w[i] = (float)mn_random_normal(77, 1, (uint64_t)i);
  mn_tensor *dy = mn_const(s->g, MN_F32, s->y->shape, w);
  free(w);
  CHECK_OK(mn_grad(s->g, 1, &s->y, &dy, n, wrt, d));
  mn_plan *plan = NULL;
  mn_plan_request q = {.graph = s->g, .n_outputs = n, .outputs = d, .backend = b, .activations = MN_RECOMPUTE_NORMS};
  CHECK_OK(mn_plan_compile(&q, &plan));
  mn_plan_report r = plan ? *mn_plan_get_report(plan) : (mn_plan_report){0};
  void *memory[8] = {NULL};
  for (int i = 0; plan && i < s->n; i++) {
    memory[i] = gc_pack(s->value[i], MN_F32, mn_shape_count(&s->x[i]->shape));
    mn_plan_bind(plan, s->x[i], memory[i]);
  }
  if (plan && out) {
    CHECK_OK(mn_plan_run(plan));
    for (int j = 0; j < n; j++) out[j] = gc_unpack(mn_plan_output(plan, j));
  }
  for (int i = 0; i < s->n; i++) free(memory[i]);
  mn_plan_free(plan);
  return r;
}

static void free_all(int n, double **x) {
  for (int i = 0; i < n; i++) free(x[i]);
}
static bool same_bits(const double *a, const double *b, int64_t n) { return memcmp(a, b, (size_t)n * sizeof *a) == 0; }

/* ---- attention ---- */
enum { B = 2, T = 96, H = 4, G = 2, K = 8 };
typedef enum mask_kind { NO_MASK, INPUT, CONSTANT, STOPPED, CAST, WANTED } mask_kind;

static subject attention(mask_kind kind) {
  subject s = begin();
  mn_tensor *q = operand(&s, MN_SHAPE(B, T, H, K)), *k = operand(&s, MN_SHAPE(B, T, G, K)), *v = operand(&s, MN_SHAPE(B, T, G, K));
  mn_tensor *bias = NULL;
  const mn_shape shape = MN_SHAPE(T, T);
  static float zeros[T * T];
  if (kind == INPUT || kind == WANTED || kind == STOPPED) bias = operand(&s, shape);
  if (kind == STOPPED) bias = mn_stop_gradient(s.g, bias);
  if (kind == CONSTANT) bias = mn_const(s.g, MN_F32, shape, zeros);
  if (kind == CAST) bias = mn_cast(s.g, mn_input(s.g, "mask", MN_I32, shape), MN_F32), s.x[s.n] = NULL;
  s.y = mn_attention(s.g, q, k, v, NULL, NULL, bias, (mn_attention_attr){.scale = 0.4, .causal = true}, NULL);
  return s;
}

static void a_constant_mask_costs_the_backward_pass_nothing(void) {
  subject none = attention(NO_MASK), wanted = attention(WANTED);
  const mn_plan_report least = gradients(&none, cpu[2], 7, NULL), most = gradients(&wanted, cpu[2], 15, NULL);
  CHECK(most.bytes_unshared > least.bytes_unshared || most.bytes_outputs > least.bytes_outputs,
        "the mask's own gradient is made when asked");
  for (mask_kind kind = INPUT; kind <= CAST; kind++) {
    subject s = attention(kind);
    const mn_plan_report r = gradients(&s, cpu[2], 7, NULL);
    const int casts = kind == CAST ? 2 : 0; /* the cast itself, made again for the backward pass */
    const size_t read = (size_t)casts * T * T * sizeof(float);
    CHECK(r.steps == least.steps + casts, "mask %d: %d steps, without mask %d", kind, r.steps, least.steps);
    CHECK(r.bytes_unshared == least.bytes_unshared + read, "mask %d: %zu bytes, without mask %zu", kind, r.bytes_unshared,
          least.bytes_unshared);
    CHECK(r.bytes_outputs == least.bytes_outputs && r.flops == least.flops + casts * T * T, "mask %d", kind);
    end(&s);
  }
  end(&none);
  end(&wanted);
}

/* ---- the others: the operands in `frozen` need no gradient; it costs `bytes` less, and the others keep their bits ---- */
static void frozen_is_free(const char *what, subject (*f)(void), unsigned frozen) {
  subject s = f(), t = f();
  double *all[8], *some[8];
  const unsigned every = (1u << s.n) - 1;
  const mn_plan_report a = gradients(&s, cpu[2], every, all), b = gradients(&t, cpu[2], every & ~frozen, some);
  size_t bytes = 0;
  for (int i = 0; i < s.n; i++)
    if (frozen >> i & 1) bytes += mn_align((size_t)mn_shape_count(&s.x[i]->shape) * sizeof(float), 64);
  const size_t took = a.bytes_unshared + a.bytes_outputs, takes = b.bytes_unshared + b.bytes_outputs;
  CHECK(takes + bytes <= took, "%s: %zu bytes with all gradients, %zu without %zu", what, took, takes, bytes);
  CHECK(b.bytes_workspace <= a.bytes_workspace && b.steps <= a.steps, "%s", what);
  for (int i = 0, j = 0; i < s.n; i++) {
    if (frozen >> i & 1) continue;
    CHECK(same_bits(all[i], some[j], mn_shape_count(&s.x[i]->shape)), "%s: gradient %d", what, i);
    j++;
  }
  free_all(s.n, all);
  free_all(s.n - __builtin_popcount(frozen), some);
  end(&s);
  end(&t);
}

static subject norm(void) {
  subject s = begin();
  mn_tensor *x = operand(&s, MN_SHAPE(50, 24)), *w = operand(&s, MN_SHAPE(24)), *b = operand(&s, MN_SHAPE(24));
  s.y = mn_norm(s.g, MN_NORM_LAYER, x, w, b, 1e-5, MN_F32);
  return s;
}
static subject conv(void) {
  subject s = begin();
  mn_tensor *x = operand(&s, MN_SHAPE(2, 40, 12)), *w = operand(&s, MN_SHAPE(12, 4)), *b = operand(&s, MN_SHAPE(12));
  s.y = mn_causal_conv(s.g, x, w, b, operand(&s, MN_SHAPE(2, 3, 12)));
  return s;
}
static subject loss(void) {
  subject s = begin();
  static int32_t target[40];
  for (int i = 0; i < 40; i++) target[i] = i % 30 - 1;
  mn_tensor *h = operand(&s, MN_SHAPE(40, 16)), *w = operand(&s, MN_SHAPE(64, 16)), *nll;
  mn_linear_cross_entropy(s.g, h, w, mn_const(s.g, MN_I32, MN_SHAPE(40), target), mn_full(s.g, MN_F32, MN_SHAPE(40), 1), &nll);
  s.y = nll;
  return s;
}
/* c1' = tanh(c1 + c2 w + x); c2 only passes by, and takes a gradient when its start does. */
static subject carrying_loop(void) {
  subject s = begin();
  mn_tensor *carry[2] = {operand(&s, MN_SHAPE(3, 8)), operand(&s, MN_SHAPE(3, 8))}, *w = operand(&s, MN_SHAPE(8, 8));
  mn_tensor *x = operand(&s, MN_SHAPE(20, 3, 8)), *in[2], *xt, *final[2];
  mn_scan_builder *b = mn_scan_begin(s.g, 20, MN_FORWARD, 2, carry, 1, &x, in, &xt);
  mn_graph *body = mn_scan_body(b);
  mn_tensor *next = mn_tanh(body, mn_add(body, mn_add(body, in[0], mn_matmul(body, in[1], w)), xt));
  mn_scan_end(b, (mn_tensor *[]){next, mn_mul_scalar(body, in[1], 0.5)}, 0, NULL, final, NULL);
  s.y = final[0];
  return s;
}

static void what_is_frozen_pays_for_no_gradient(void) {
  frozen_is_free("norm, weight and bias", norm, 6);
  frozen_is_free("norm, bias", norm, 4);
  frozen_is_free("convolution, taps and bias", conv, 6);
  frozen_is_free("convolution, input", conv, 1);
  frozen_is_free("convolution, prefix", conv, 8);
  frozen_is_free("loss, head", loss, 2);
  frozen_is_free("loss, hidden states", loss, 1);
  frozen_is_free("loop, what is carried along", carrying_loop, 2);
  frozen_is_free("loop, weight", carrying_loop, 4);
  frozen_is_free("loop, input", carrying_loop, 8);
}

/* A frozen weight is not only without memory: its product is not computed. */
static void a_loop_without_their_gradient_has_fewer_steps(void) {
  subject all = carrying_loop(), some = carrying_loop();
  const mn_plan_report a = gradients(&all, cpu[2], 15, NULL), b = gradients(&some, cpu[2], 9, NULL);
  CHECK(b.steps < a.steps && b.flops <= a.flops, "%d steps, %d without the gradients of weight and second carry", a.steps, b.steps);
  end(&all);
  end(&some);
}

/* ---- a bias that is shared ---- */
static subject with_bias(int64_t b, int64_t t, int64_t h, int64_t g, mn_shape bias) {
  subject s = begin();
  mn_tensor *q = operand(&s, MN_SHAPE(b, t, h, 4)), *k = operand(&s, MN_SHAPE(b, t, g, 4)), *v = operand(&s, MN_SHAPE(b, t, g, 4));
  s.y = mn_attention(s.g, q, k, v, NULL, NULL, operand(&s, bias), (mn_attention_attr){.scale = 0.5, .causal = true}, NULL);
  return s;
}

/* The gradient of a bias of its own for every batch element, head and query, summed to the shape of one that is shared. */
static void sum_to(const double *full, const mn_shape *f, const mn_shape *shared, double *sum) {
  memset(sum, 0, (size_t)mn_shape_count(shared) * sizeof *sum);
  for (int64_t i = 0, n = mn_shape_count(f); i < n; i++) {
    int64_t at = 0, step = 1, rest = i;
    for (int d = 3; d >= 0; d--) {
      const int64_t own = rest % f->dim[d];
      rest /= f->dim[d];
      if (shared->dim[d] > 1) at += own * step;
      step *= shared->dim[d];
    }
    sum[at] += full[i];
  }
}

static void a_shared_bias_gathers_in_several_tasks(void) {
  static const struct {
    int64_t b, t, h, g;
    bool b1, h1, t1;
    int64_t tasks;
  } cases[] = {{3, 40, 4, 4, true, true, false, 8},   {3, 40, 4, 2, true, true, false, 6}, {1, 200, 2, 1, false, true, false, 4},
               {9, 20, 1, 1, true, false, false, 8},  {2, 100, 4, 2, true, true, true, 4}, {1, 300, 1, 1, false, false, true, 5},
               {1, 1500, 2, 1, false, true, false, 8}};
  for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
    const int64_t b = cases[c].b, t = cases[c].t, h = cases[c].h, g = cases[c].g;
    mn_shape full = MN_SHAPE(b, h, t, t), shared = MN_SHAPE(cases[c].b1 ? 1 : b, cases[c].h1 ? 1 : h, cases[c].t1 ? 1 : t, t);
    const int64_t n = mn_shape_count(&shared);
    subject s = with_bias(b, t, h, g, shared), whole = with_bias(b, t, h, g, full);
    for (int64_t i = 0, all = mn_shape_count(&full); i < all; i++) { /* the same values, spread */
      int64_t at = 0, step = 1, rest = i;
      for (int d = 3; d >= 0; d--) {
        if (shared.dim[d] > 1) at += rest % full.dim[d] * step;
        rest /= full.dim[d];
        step *= shared.dim[d];
      }
      whole.value[3][i] = s.value[3][at];
    }
    double *d[4], *again[4], *parts[4], *sum = malloc((size_t)n * sizeof *sum);
    most_tasks = 0;
    gradients(&s, cpu[1], 8, d); /* the bias's alone */
    CHECK(most_tasks >= cases[c].tasks, "case %zu: %lld tasks", c, (long long)most_tasks);
    free(d[0]);
    subject one = with_bias(b, t, h, g, shared), three = with_bias(b, t, h, g, shared);
    gradients(&one, cpu[1], 15, d);
    gradients(&three, cpu[3], 15, again);
    gradients(&whole, cpu[2], 15, parts);
    for (int i = 0; i < 4; i++)
      CHECK(same_bits(d[i], again[i], mn_shape_count(&one.x[i]->shape)), "case %zu: gradient %d by threads", c, i);
    sum_to(parts[3], &full, &shared, sum);
    CHECK(gc_difference(sum, d[3], n) < 1e-5, "case %zu: %g", c, gc_difference(sum, d[3], n));
    for (int i = 0; i < 3; i++) {
      double e = gc_difference(parts[i], d[i], mn_shape_count(&one.x[i]->shape));
      CHECK(e < 1e-5, "case %zu: gradient %d: %g", c, i, e);
    }
    free(sum);
    free_all(4, d);
    free_all(4, again);
    free_all(4, parts);
    end(&s);
    end(&one);
    end(&three);
    end(&whole);
  }
}

int main(void) {
  for (int i = 1; i < 4; i++)
    if (mn_backend_cpu_new(i, &cpu[i]) != MN_OK) return 1;
  RUN(a_constant_mask_costs_the_backward_pass_nothing);
  RUN(what_is_frozen_pays_for_no_gradient);
  RUN(a_loop_without_their_gradient_has_fewer_steps);
  RUN(a_shared_bias_gathers_in_several_tasks);
  for (int i = 1; i < 4; i++) mn_backend_free(cpu[i]);
  return test_end();
}
