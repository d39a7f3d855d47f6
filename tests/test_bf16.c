/* test_bf16.c - what bf16 costs. The measure is what nobody can avoid: the error that appears when inputs and parameters alone
 * are rounded to bf16 and everything is exact from there on. Every fused kernel and every mixer, forward and backward, stays
 * within 1.5 times of it by the root of the mean square over results and gradients (one tensor alone within 1.75 times), and
 * within 3 times by the worst entry. */
#include "graph/fused_attention.h"
#include "graph/fused_conv.h"
#include "graph/fused_loss.h"
#include "graph/fused_masked_product.h"
#include "graph/fused_norm.h"
#include "graph/fused_recurrence.h"
#include "graph/fused_rope.h"
#include "graph/fused_softmax.h"
#include "kernel_call.h"
#include "mixer_check.h"
#include "plainest_mixer.h"

enum { MANY = 1000 }; /* entries from which on one tensor's own ratio is no accident */
static const double L2 = 1.5, ONE = 1.75, ENTRY = 3;

/* ---- three runs of one thing: exact; exact from rounded inputs; in bf16 ---- several draws together, as one token whose key
 * is short may decide about a gradient */
enum { EXACT, LEAST, BF16, RUNS, DRAWS = 4 };

static double l2(const double *x, const double *exact, int64_t n) {
  double d = 0, all = 1e-60;
  for (int64_t i = 0; i < n; i++) d += (x[i] - exact[i]) * (x[i] - exact[i]), all += exact[i] * exact[i];
  return sqrt(d / all);
}
static void round_all(double *x, int64_t n) {
  for (int64_t i = 0; i < n; i++) x[i] = (double)to_bf16((float)x[i]);
}

typedef struct tally { /* of one tensor: sums of squared errors over the draws, and the worst entries */
  char name[112];
  int64_t n;
  double l2[RUNS], entry[RUNS];
} tally;
typedef struct book {
  int n;
  tally t[MC_MAX];
} book;
static void note(book *b, const char *name, int64_t n, double *const run[RUNS]) {
  int i = 0;
  while (i < b->n && strcmp(b->t[i].name, name) != 0) i++;
  if (i == MC_MAX) abort();
  tally *t = &b->t[i];
  if (i == b->n) b->n++, snprintf(t->name, sizeof t->name, "%s", name), t->n = n;
  for (int r = LEAST; r < RUNS; r++) {
    const double e = l2(run[r], run[EXACT], n);
    t->l2[r] += e * e;
    t->entry[r] = fmax(t->entry[r], mc_difference(run[r], run[EXACT], n));
  }
}
static void note_bags(book *b, mc_bag run[RUNS]) {
  for (int i = 0; i < run[EXACT].n; i++) {
    const mc_tensor *t = &run[EXACT].t[i], *least = mc_get(&run[LEAST], t->name), *bf16 = mc_get(&run[BF16], t->name);
    CHECK(least && bf16, "%s", t->name);
    if (least && bf16) note(b, t->name, mn_shape_count(&t->shape), (double *const[RUNS]){t->x, least->x, bf16->x});
  }
}
static void judge(const char *what, const book *b) {
  double all[RUNS] = {0};
  for (int i = 0; i < b->n; i++) {
    const tally *t = &b->t[i];
    const double least = sqrt(t->l2[LEAST] / DRAWS), got = sqrt(t->l2[BF16] / DRAWS);
    if (least > 0.3) continue; /* nothing but cancellation: the gradient of a bias that softmax does not see */
    all[LEAST] += t->l2[LEAST], all[BF16] += t->l2[BF16];
    if (t->n < MANY) continue;
    CHECK(got <= (i == 0 ? L2 : ONE) * least, "%s, %s: off by %.5f, by %.5f from rounded inputs alone", what, t->name, got, least);
    CHECK(t->entry[BF16] <= ENTRY * t->entry[LEAST], "%s, %s: an entry is off by %.5f, by %.5f from rounded inputs alone", what, t->name,
          t->entry[BF16], t->entry[LEAST]);
  }
  CHECK(all[BF16] <= L2 * L2 * all[LEAST], "%s, all tensors: off by %.5f, by %.5f from rounded inputs alone", what, sqrt(all[BF16] / DRAWS),
        sqrt(all[LEAST] / DRAWS));
  if (getenv("MN_TEST_SHOW")) { /* the figures of docs/performance.md */
    double worst = 0, entry = 0;
    for (int i = 0; i < b->n; i++)
      if (b->t[i].n >= MANY) worst = fmax(worst, sqrt(b->t[i].l2[BF16] / b->t[i].l2[LEAST])), entry = fmax(entry, b->t[i].entry[BF16]);
    printf("%-70s result %.4f, %.2f of least; worst tensor %.2f, all %.2f; worst entry %.3f\n", what, sqrt(b->t[0].l2[BF16] / DRAWS),
           sqrt(b->t[0].l2[BF16] / b->t[0].l2[LEAST]), worst, sqrt(all[BF16] / all[LEAST]), entry);
  }
}

/* ---- fused kernels ---- */
enum { LEAVES = 16, OUTS = 24 };
typedef struct work { /* a graph whose tensors are of type t: f64 on the reference backend, or bf16 on the CPU */
  mn_graph *g;
  mn_dtype t, exact; /* bf16 and f32, or f64 both */
  bool rounded;
  uint64_t draw;
  int n, n_wrt, n_out;
  mn_tensor *leaf[LEAVES], *wrt[LEAVES], *out[OUTS];
  void *data[LEAVES];
} work;

static mn_tensor *leaf_of(work *w, mn_dtype t, mn_shape s, double std, double mean, bool rounds) {
  int64_t n = mn_shape_count(&s);
  double *x = mc_normal(n, std, 100 * w->draw + (uint64_t)w->n);
  for (int64_t i = 0; i < n; i++) x[i] += mean;
  if (rounds && w->rounded) round_all(x, n);
  w->data[w->n] = mc_pack(x, t, n);
  free(x);
  return w->leaf[w->n++] = mn_input(w->g, "leaf", t, s);
}
static mn_tensor *input(work *w, mn_shape s, double std) { /* is rounded, and its gradient wanted */
  return w->wrt[w->n_wrt++] = leaf_of(w, w->t, s, std, 0, true);
}
static mn_tensor *weight(work *w, mn_shape s, double std, double mean) { /* stays in f32 */
  return w->wrt[w->n_wrt++] = leaf_of(w, w->exact, s, std, mean, false);
}
static mn_tensor *fixed(work *w, mn_shape s, double std, double mean) { return leaf_of(w, w->exact, s, std, mean, false); }
static void gradients(work *w, mn_tensor *y) { /* of y, by a random cotangent */
  mn_tensor *dy = leaf_of(w, y->dtype, y->shape, 1, 0, true);
  w->out[w->n_out++] = y;
  CHECK_OK(mn_grad(w->g, 1, &y, &dy, w->n_wrt, w->wrt, w->out + w->n_out));
  w->n_out += w->n_wrt;
}

enum { B = 2, T = 90, H = 2, K = 32, D = H * K, VOCAB = 300 };
static void build_rms(work *w) {
  mn_tensor *x = input(w, MN_SHAPE(B, T, D), 1), *p = weight(w, MN_SHAPE(D), 0.3, 1);
  gradients(w, mn_norm(w->g, MN_NORM_RMS, x, p, NULL, 1e-6, w->t));
}
static void build_layer_norm(work *w) {
  mn_tensor *x = input(w, MN_SHAPE(B, T, D), 1), *p = weight(w, MN_SHAPE(D), 0.3, 1), *b = weight(w, MN_SHAPE(D), 0.3, 0);
  gradients(w, mn_norm(w->g, MN_NORM_LAYER, x, p, b, 1e-5, w->t));
}
static void build_l2(work *w) { gradients(w, mn_norm(w->g, MN_NORM_L2, input(w, MN_SHAPE(B, T, D), 1), NULL, NULL, 1e-6, w->t)); }
static void build_softmax(work *w) { gradients(w, mn_softmax(w->g, input(w, MN_SHAPE(B, T, D), 1))); }
static void build_rope(work *w) {
  mn_tensor *x = input(w, MN_SHAPE(B, T, H, K), 1), *c = fixed(w, MN_SHAPE(T, K / 2), 0.7, 0), *s = fixed(w, MN_SHAPE(T, K / 2), 0.7, 0);
  gradients(w, mn_rope(w->g, x, c, s, MN_ROPE_HALVES));
}
static void build_attention(work *w) {
  mn_tensor *q = input(w, MN_SHAPE(B, T, H, K), 1), *k = input(w, MN_SHAPE(B, T, 1, K), 1), *v = input(w, MN_SHAPE(B, T, 1, K), 1);
  gradients(w, mn_attention(w->g, q, k, v, NULL, NULL, NULL, (mn_attention_attr){.scale = 1 / sqrt(K), .causal = true}, NULL));
}
static void build_window(work *w) {
  mn_tensor *q = input(w, MN_SHAPE(B, T, H, K), 1), *k = input(w, MN_SHAPE(B, T, H, K), 1), *v = input(w, MN_SHAPE(B, T, H, K), 1);
  mn_tensor *bias = weight(w, MN_SHAPE(1, H, T, T), 1, 0);
  gradients(w, mn_attention(w->g, q, k, v, NULL, NULL, bias,
                            (mn_attention_attr){.scale = 1 / sqrt(K), .causal = true, .window = 20, .sinks = 2, .has_bias = true}, NULL));
}
static void build_loss(work *w) {
  mn_tensor *h = input(w, MN_SHAPE(B * T, D), 1), *p = input(w, MN_SHAPE(VOCAB, D), 0.3), *nll;
  int32_t target[B * T];
  for (int i = 0; i < B * T; i++) target[i] = i * 7 % VOCAB;
  mn_linear_cross_entropy(w->g, h, p, mn_const(w->g, MN_I32, MN_SHAPE(B * T), target), NULL, &nll);
  gradients(w, nll);
}
static void build_conv(work *w) {
  mn_tensor *x = input(w, MN_SHAPE(B, T, D), 1), *taps = input(w, MN_SHAPE(D, 4), 0.5), *bias = input(w, MN_SHAPE(D), 0.3);
  gradients(w, mn_causal_conv(w->g, x, taps, bias, input(w, MN_SHAPE(B, 3, D), 1)));
}
static void build_masked_product(work *w) {
  mn_tensor *x = input(w, MN_SHAPE(B, T, K), 1), *y = input(w, MN_SHAPE(B, T, K), 1), *p = input(w, MN_SHAPE(B, T, T), 1);
  gradients(w, mn_masked_product(w->g, x, y, p, input(w, MN_SHAPE(B, T, K), 1)));
}
static mn_tensor *gate(work *w, double mean) { return mn_sigmoid(w->g, weight(w, MN_SHAPE(B, T, H), 1, mean)); }
static mn_tensor *state(work *w) { return weight(w, MN_SHAPE(B, H, K, K), 0.3, 0); }
static void recurrence(work *w, mn_write_rule rule, bool momentum) {
  mn_graph *g = w->g;
  mn_recurrence_io io = {0};
  io.q = input(w, MN_SHAPE(B, T, H, K), 1), io.k = input(w, MN_SHAPE(B, T, H, K), 1 / sqrt(K)), io.v = input(w, MN_SHAPE(B, T, H, K), 1);
  io.beta = gate(w, -1), io.log_a = mn_log(g, gate(w, 2)), io.w0 = state(w);
  if (momentum) io.log_eta = mn_log(g, gate(w, 2)), io.s0 = state(w);
  if (rule == MN_WRITE_ANCHOR) io.a0 = state(w);
  mn_linear_recurrence(g, &io, (mn_recurrence_attr){.write = rule, .momentum = momentum, .decay = true, .chunk = 16});
  gradients(w, io.o);
}
static void build_value(work *w) { recurrence(w, MN_WRITE_VALUE, false); }
static void build_value_momentum(work *w) { recurrence(w, MN_WRITE_VALUE, true); }
static void build_anchor(work *w) { recurrence(w, MN_WRITE_ANCHOR, true); }
static void build_delta(work *w) { recurrence(w, MN_WRITE_DELTA, false); }

static void run_graph(void (*build)(work *), int which, uint64_t draw, mn_backend *cpu, mc_bag *out) {
  const bool bf16 = which == BF16;
  work w = {.g = mn_graph_new(), .t = bf16 ? MN_BF16 : MN_F64, .exact = bf16 ? MN_F32 : MN_F64, .rounded = which != EXACT, .draw = draw};
  mn_plan *plan = NULL;
  build(&w);
  CHECK_OK(mn_graph_status(w.g));
  mn_plan_request q = {.graph = w.g, .n_outputs = w.n_out, .outputs = w.out, .backend = bf16 ? cpu : mn_backend_ref()};
  CHECK_OK(mn_plan_compile(&q, &plan));
  for (int i = 0; plan && i < w.n; i++) mn_plan_bind(plan, w.leaf[i], w.data[i]);
  if (plan) CHECK_OK(mn_plan_run(plan));
  for (int i = 0; plan && i < w.n_out; i++) {
    const mn_view *v = mn_plan_output(plan, i);
    char name[24];
    snprintf(name, sizeof name, i ? "gradient of input %d" : "result", i);
    mc_unpack(v->data, v->dtype, mn_view_count(v), mc_put(out, name, w.out[i]->shape, NULL));
  }
  for (int i = 0; i < w.n; i++) free(w.data[i]);
  mn_plan_free(plan);
  mn_graph_free(w.g);
}
static void kernels_lose_little_more_than_rounded_inputs(void) {
  static const struct {
    const char *what;
    void (*build)(work *);
  } cases[] = {{"rms norm", build_rms},
               {"layer norm", build_layer_norm},
               {"l2 norm", build_l2},
               {"softmax", build_softmax},
               {"rope", build_rope},
               {"attention", build_attention},
               {"attention, window, sinks, bias", build_window},
               {"linear_cross_entropy", build_loss},
               {"causal_conv", build_conv},
               {"masked_product", build_masked_product},
               {"recurrence, value", build_value},
               {"recurrence, value, momentum", build_value_momentum},
               {"recurrence, anchor, momentum", build_anchor},
               {"recurrence, delta", build_delta}};
  mn_backend *cpu = NULL;
  CHECK_OK(mn_backend_cpu_new(1, &cpu));
  for (size_t c = 0; cpu && c < sizeof cases / sizeof *cases; c++) {
    book b = {0};
    for (uint64_t draw = 0; draw < DRAWS; draw++) {
      mc_bag run[RUNS] = {{0}};
      for (int i = 0; i < RUNS; i++) run_graph(cases[c].build, i, draw, cpu, &run[i]);
      note_bags(&b, run);
      for (int i = 0; i < RUNS; i++) mc_bag_free(&run[i]);
    }
    judge(cases[c].what, &b);
  }
  mn_backend_free(cpu);
}

/* ---- mixers ---- */
static void draw_mixer(const char *json, int64_t tokens, uint64_t draw, mn_backend *cpu, book *b) {
  enum { WIDTH = 64 };
  const int64_t n = tokens * WIDTH;
  mc_mixer m;
  double *x = mc_normal(n, 1, 2 * draw), *dy = mc_normal(n, 1, 2 * draw + 1), *y[RUNS];
  mc_bag grads[RUNS] = {{0}};
  for (int i = 0; i < RUNS; i++) y[i] = malloc((size_t)n * sizeof *y[i]);
  int ok = mc_open(&m, json, WIDTH, 1, MN_F32, cpu) && mc_random_params(&m, draw);
  ok = ok && mc_forward(&m, tokens, x, y[EXACT], dy, &grads[EXACT], NULL);
  m.bf16 = true;
  ok = ok && mc_forward(&m, tokens, x, y[BF16], dy, &grads[BF16], NULL);
  m.bf16 = false;
  round_all(x, n), round_all(dy, n);
  for (int i = 0; i < m.params.n; i++) round_all(m.params.t[i].x, mn_shape_count(&m.params.t[i].shape));
  ok = ok && mc_forward(&m, tokens, x, y[LEAST], dy, &grads[LEAST], NULL);
  CHECK(ok, "%s", json);
  if (ok) note(b, "result", n, y), note_bags(b, grads);
  for (int i = 0; i < RUNS; i++) free(y[i]), mc_bag_free(&grads[i]);
  free(x), free(dy);
  mc_close(&m);
}
static void one_mixer(const char *json, int64_t tokens, mn_backend *cpu) {
  book b = {0};
  for (uint64_t draw = 0; draw < DRAWS; draw++) draw_mixer(json, tokens, draw, cpu, &b);
  judge(json, &b);
}

static void mixers_lose_little_more_than_rounded_inputs(void) {
  static const char *const variants[] = {
      /* besides every system at its defaults: what those leave out, at widths where errors show */
      "{\"type\": \"attention\", \"heads\": 4, \"kv_heads\": 2}",
      "{\"type\": \"attention\", \"heads\": 2, \"window\": 40}",
      "{\"type\": \"gated_deltanet\", \"heads\": 2, \"chunk\": 8}",
      "{\"type\": \"titans\", \"heads\": 2, \"chunk\": 1}",
      "{\"type\": \"titans\", \"heads\": 2, \"momentum\": false, \"decay\": false}",
      "{\"type\": \"titans\", \"heads\": 2, \"memory_net\": \"mlp\"}",
      "{\"type\": \"titans\", \"heads\": 2, \"memory_net\": \"ln_mlp\", \"lr_max\": 0.02}",
  };
  mn_backend *cpu = NULL;
  CHECK_OK(mn_backend_cpu_new(1, &cpu));
  for (int i = 0; cpu && i < mn_mixer_count(); i++) { /* each at its defaults */
    char json[MN_PLAINEST];
    mn_plainest_mixer(json, mn_mixer_at(i)->name);
    one_mixer(json, 200, cpu);
  }
  for (size_t i = 0; cpu && i < sizeof variants / sizeof *variants; i++) one_mixer(variants[i], 200, cpu);
  mn_backend_free(cpu);
}

/* Along a stream the error does not grow beyond what rounded inputs cost: memories keep their state and gates in f32. */
static void long_sequences_lose_no_more(void) {
  mn_backend *cpu = NULL;
  CHECK_OK(mn_backend_cpu_new(2, &cpu));
  if (cpu) one_mixer("{\"type\": \"gated_deltanet\", \"heads\": 2}", 4097, cpu);
  if (cpu) one_mixer("{\"type\": \"titans\", \"heads\": 2}", 2050, cpu);
  mn_backend_free(cpu);
}

/* Attention may keep keys and values widened from one block of queries to the next, but of no other head, and not for another run:
 * the second run of a plan, whose keys are others, gives the bits of a plan that has seen nothing else. */
static void keys_that_were_widened_are_those_of_the_run(void) {
  enum { LONG = 150, WIDTH = 32, MOST = 2 * LONG * 4 * WIDTH };
  static const int64_t of[][3] = {{1, 1, 1}, {1, 3, 1}, {2, 4, 2}}; /* batch, heads, heads of keys */
  mn_backend *cpu = NULL;
  CHECK_OK(mn_backend_cpu_new(1, &cpu));
  for (size_t i = 0; cpu && i < sizeof of / sizeof *of; i++) {
    const mn_shape queries = MN_SHAPE(of[i][0], LONG, of[i][1], WIDTH), keys = MN_SHAPE(of[i][0], LONG, of[i][2], WIDTH);
    const int64_t n = mn_shape_count(&queries), m = mn_shape_count(&keys);
    mn_graph *g = mn_graph_new();
    mn_tensor *leaf[3] = {mn_input(g, "q", MN_BF16, queries), mn_input(g, "k", MN_BF16, keys), mn_input(g, "v", MN_BF16, keys)};
    mn_tensor *o = mn_attention(g, leaf[0], leaf[1], leaf[2], NULL, NULL, NULL, (mn_attention_attr){.scale = 0.2, .causal = true}, NULL);
    uint16_t seen[3][MOST]; /* the first run, the second of the same plan, and that of a plan of its own */
    mn_plan *plan[2] = {0};
    for (int r = 0; r < 3; r++) {
      const int which = r == 2;
      const mn_plan_request request = {.graph = g, .n_outputs = 1, .outputs = &o, .backend = cpu};
      if (!plan[which]) CHECK_OK(mn_plan_compile(&request, &plan[which]));
      if (!plan[which]) continue;
      void *data[3];
      for (int k = 0; k < 3; k++) {
        double *x = mc_normal(k ? m : n, 1, (uint64_t)(k && r ? 10 + k : k));
        data[k] = mc_pack(x, MN_BF16, k ? m : n);
        free(x);
        mn_plan_bind(plan[which], leaf[k], data[k]);
      }
      CHECK_OK(mn_plan_run(plan[which]));
      memcpy(seen[r], mn_plan_output(plan[which], 0)->data, (size_t)n * sizeof **seen);
      for (int k = 0; k < 3; k++) free(data[k]);
    }
    CHECK(memcmp(seen[0], seen[1], (size_t)n * sizeof **seen) != 0, "other keys give another result");
    CHECK(memcmp(seen[1], seen[2], (size_t)n * sizeof **seen) == 0, "case %zu: keys of the run before", i);
    for (int k = 0; k < 2; k++) mn_plan_free(plan[k]);
    mn_graph_free(g);
  }
  mn_backend_free(cpu);
}

int main(void) {
  RUN(keys_that_were_widened_are_those_of_the_run);
  RUN(kernels_lose_little_more_than_rounded_inputs);
  RUN(mixers_lose_little_more_than_rounded_inputs);
  RUN(long_sequences_lose_no_more);
  return test_end();
}
