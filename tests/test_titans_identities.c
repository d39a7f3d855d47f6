/* test_titans_identities.c - where Titans' memory is a simpler model: tokens one by one are the gated delta rule, one chunk from zero is
 * linear attention, what does not learn is a fixed network; what is learned is remembered, and the surprise is the inner loss. */
#include "mixer_suite.h"
#include "nn/fast_memory.h"

/* The memory alone: one sequence, one head, numbers given; run(c, ...) returns y [T,d] */
enum { D = 6, T_MAX = 24 };
typedef struct numbers {
  int64_t T;
  double q[T_MAX][D], k[T_MAX][D], v[T_MAX][D], theta[T_MAX], momentum[T_MAX], decay[T_MAX], W[MN_FAST_PARTS][16 * D * D];
  double window[T_MAX * 8]; /* [T,c], the token's own pair last */
} numbers;

static void draw(numbers *x, int64_t T, uint64_t seed) {
  memset(x, 0, sizeof *x);
  x->T = T;
  for (int64_t t = 0; t < T; t++) {
    double nq = 0, nk = 0;
    for (int i = 0; i < D; i++) {
      uint64_t at = (uint64_t)(t * D + i);
      x->q[t][i] = mn_random_normal(seed, 1, at), x->k[t][i] = mn_random_normal(seed, 2, at), x->v[t][i] = mn_random_normal(seed, 3, at);
      nq += x->q[t][i] * x->q[t][i], nk += x->k[t][i] * x->k[t][i];
    }
    for (int i = 0; i < D; i++) x->q[t][i] /= sqrt(nq), x->k[t][i] /= sqrt(nk);
    x->theta[t] = 0.3 * mn_random_uniform(seed, 4, (uint64_t)t);
    x->momentum[t] = mn_random_normal(seed, 5, (uint64_t)t);
    x->decay[t] = mn_random_normal(seed, 6, (uint64_t)t) - 1;
  }
  for (int p = 0; p < MN_FAST_PARTS; p++)
    for (int i = 0; i < 16 * D * D; i++) x->W[p][i] = 0.3 * mn_random_normal(seed, 7 + (uint64_t)p, (uint64_t)i);
}

static int run(const mn_fast_config *c, const numbers *x, double (*y)[D], double *surprise) {
  mn_graph *g = mn_graph_new();
  int64_t T = x->T;
  mn_shape rows = MN_SHAPE(1, T, 1, D), gate = MN_SHAPE(1, T, 1);
  mn_fast_state s = {.each = {NULL}};
  for (int p = 0; p < mn_fast_parts(c); p++) {
    s.W[p] = mn_const(g, MN_F64, mn_fast_shape(c, p, 1), x->W[p]);
    s.A[p] = s.W[p];
    s.S[p] = s.G[p] = mn_zeros_like(g, s.W[p]);
  }
  if (c->window > 1) s.past_k = s.past_v = mn_full(g, MN_F64, MN_SHAPE(1, c->window - 1, 1, D), 0);
  const mn_fast_input in = {.q = mn_const(g, MN_F64, rows, x->q),
                            .k = mn_const(g, MN_F64, rows, x->k),
                            .v = mn_const(g, MN_F64, rows, x->v),
                            .theta = mn_const(g, MN_F64, gate, x->theta),
                            .momentum = c->momentum ? mn_const(g, MN_F64, gate, x->momentum) : NULL,
                            .decay = c->decay ? mn_const(g, MN_F64, gate, x->decay) : NULL,
                            .window = c->window > 1 ? mn_const(g, MN_F64, MN_SHAPE(1, T, 1, c->window), x->window) : NULL};
  const mn_fast_result r = mn_fast_memory(g, c, &s, &in);
  mn_tensor *out[2] = {r.y, r.surprise};
  mn_plan *plan = NULL;
  mn_plan_request q = {.graph = g, .n_outputs = 2, .outputs = out, .backend = mn_backend_ref()};
  int ok = mn_graph_status(g) == MN_OK && mn_plan_compile(&q, &plan) == MN_OK && mn_plan_run(plan) == MN_OK;
  CHECK(ok, "%s", mn_message());
  if (ok) memcpy(y, mn_plan_output(plan, 0)->data, (size_t)T * sizeof *y);
  if (ok && surprise) memcpy(surprise, mn_plan_output(plan, 1)->data, (size_t)T * sizeof *surprise);
  mn_plan_free(plan);
  mn_graph_free(g);
  return ok;
}

static mn_fast_config linear(int64_t chunk, bool momentum, bool decay) {
  return (mn_fast_config){
      .net = MN_FAST_LINEAR, .depth = 1, .expand = 2, .heads = 1, .head_dim = D, .chunk = chunk, .momentum = momentum, .decay = decay};
}
/* The same function without the fused operation: a clamp that nothing reaches. */
static mn_fast_config composed(mn_fast_config c) {
  c.grad_clamp = 1e12;
  return c;
}
static double worst(double (*a)[D], double (*b)[D], int64_t T) { return mc_difference(&a[0][0], &b[0][0], T * D); }
static double sigmoid(double x) { return 1 / (1 + exp(-x)); }

static void times(const double *W, const double *x, double *y) { /* y = x W */
  for (int j = 0; j < D; j++) {
    y[j] = 0;
    for (int i = 0; i < D; i++) y[j] += x[i] * W[i * D + j];
  }
}

/* C = 1 without momentum: M_t = (1 - alpha) M - theta k (k M - v), the gated delta rule; without decay the delta rule. */
static void one_token_chunks_are_the_gated_delta_rule(void) {
  static numbers x;
  double want[T_MAX][D], y[T_MAX][D];
  for (int decay = 0; decay < 2; decay++) {
    draw(&x, 20, 3);
    double W[D * D], p[D];
    memcpy(W, x.W[0], sizeof W);
    for (int t = 0; t < 20; t++) {
      double keep = decay ? 1 - sigmoid(x.decay[t]) : 1;
      times(W, x.k[t], p);
      for (int i = 0; i < D; i++)
        for (int j = 0; j < D; j++) W[i * D + j] = keep * W[i * D + j] - x.theta[t] * x.k[t][i] * (p[j] - x.v[t][j]);
      times(W, x.q[t], want[t]);
    }
    mn_fast_config c = linear(1, false, decay), b = composed(c);
    if (run(&c, &x, y, NULL)) CHECK(worst(y, want, 20) < 1e-10, "%g", worst(y, want, 20));
    if (run(&b, &x, y, NULL)) CHECK(worst(y, want, 20) < 1e-10, "composed: %g", worst(y, want, 20));
  }
}

/* M_0 = 0 and one chunk: every gradient is taken at zero, so y_t = sum_i theta_i v_i (k_i . q_t). */
static void one_chunk_from_zero_is_linear_attention(void) {
  static numbers x;
  double want[T_MAX][D] = {{0}}, y[T_MAX][D];
  draw(&x, 20, 4);
  memset(x.W, 0, sizeof x.W);
  for (int t = 0; t < 20; t++)
    for (int i = 0; i <= t; i++) {
      double dot = 0;
      for (int j = 0; j < D; j++) dot += x.k[i][j] * x.q[t][j];
      for (int j = 0; j < D; j++) want[t][j] += x.theta[i] * dot * x.v[i][j];
    }
  mn_fast_config c = linear(20, false, false), b = composed(c);
  if (run(&c, &x, y, NULL)) CHECK(worst(y, want, 20) < 1e-10, "%g", worst(y, want, 20));
  if (run(&b, &x, y, NULL)) CHECK(worst(y, want, 20) < 1e-10, "composed: %g", worst(y, want, 20));
}

/* Without squares, l = -M(k) . v, a gradient does not know the memory: M_t = (1 - alpha) M + theta sum_j gamma_j k_{t-j} v_{t-j}, gated linear
 * attention for one pair, in chunks of any length. */
static void inner_products_are_gated_linear_attention(void) {
  enum { T = 20 };
  static const int64_t chunks[] = {1, 4, 7, T};
  static numbers x;
  double want[T_MAX][D], y[T_MAX][D];
  for (int64_t window = 1; window <= 5; window += 4) /* over one chunk, into the next, over several */
    for (int decay = 0; decay < 2; decay++) {
      draw(&x, T, 6);
      for (int64_t t = 0; t < T; t++)
        for (int64_t j = 0; j < window; j++)
          x.window[t * window + window - 1 - j] = j <= t ? mn_random_uniform(6, 90 + (uint64_t)j, (uint64_t)t) : 0;
      double W[D * D];
      memcpy(W, x.W[0], sizeof W);
      for (int64_t t = 0; t < T; t++) {
        for (int i = 0; i < D * D; i++) W[i] *= decay ? 1 - sigmoid(x.decay[t]) : 1;
        for (int64_t j = 0; j < window && j <= t; j++) {
          const double share = x.theta[t] * (window > 1 ? x.window[t * window + window - 1 - j] : 1);
          for (int i = 0; i < D; i++)
            for (int k = 0; k < D; k++) W[i * D + k] += share * x.k[t - j][i] * x.v[t - j][k];
        }
        times(W, x.q[t], want[t]);
      }
      for (int i = 0; i < 4; i++) {
        mn_fast_config c = linear(chunks[i], false, decay);
        c.loss = MN_FAST_DOT, c.window = window;
        if (run(&c, &x, y, NULL))
          CHECK(worst(y, want, T) < 1e-10, "window %d, chunk %d: %g", (int)window, (int)chunks[i], worst(y, want, T));
      }
    }
}

/* theta = 0: nothing is learned; the memory is a fixed network of q. alpha = 1 then makes it the zero network. */
static void a_memory_that_does_not_learn_is_fixed(void) {
  static numbers x;
  double y[T_MAX][D], want[T_MAX][D];
  for (int forget = 0; forget < 2; forget++) {
    draw(&x, 20, 5);
    for (int t = 0; t < 20; t++) x.theta[t] = 0, x.decay[t] = 60;
    mn_fast_config c = {.net = MN_FAST_MLP,
                        .depth = 2,
                        .expand = 2,
                        .residual = true,
                        .heads = 1,
                        .head_dim = D,
                        .chunk = 8,
                        .momentum = true,
                        .decay = forget};
    for (int t = 0; t < 20; t++)
      for (int j = 0; j < D; j++) {
        want[t][j] = x.q[t][j];
        for (int h = 0; h < 2 * D && !forget; h++) {
          double z = 0;
          for (int i = 0; i < D; i++) z += x.q[t][i] * x.W[0][i * 2 * D + h];
          want[t][j] += 0.5 * z * (1 + erf(z / sqrt(2))) * x.W[1][h * D + j];
        }
      }
    if (run(&c, &x, y, NULL)) CHECK(worst(y, want, 20) < 1e-10, "forget %d: %g", forget, worst(y, want, 20));
  }
}

/* Orthonormal keys, theta = 1, C = 1: each value is kept exactly, until d keys are stored. */
static void orthonormal_keys_are_remembered_exactly(void) {
  static numbers x;
  double y[T_MAX][D], u[D], n = 0;
  draw(&x, 2 * D, 6);
  memset(x.W, 0, sizeof x.W);
  for (int i = 0; i < D; i++) u[i] = x.k[0][i], n += u[i] * u[i];
  for (int t = 0; t < D; t++) { /* rows of a reflection */
    x.theta[t] = 1, x.theta[D + t] = 0;
    for (int i = 0; i < D; i++) x.k[t][i] = (i == t) - 2 * u[i] * u[t] / n;
  }
  for (int t = 0; t < D; t++) memcpy(x.q[D + t], x.k[D - 1 - t], sizeof x.q[0]);
  mn_fast_config c = linear(1, false, false), b = composed(c);
  for (int form = 0; form < 2; form++)
    if (run(form ? &b : &c, &x, y, NULL))
      for (int t = 0; t < D; t++) CHECK(mc_difference(y[D + t], x.v[D - 1 - t], D) < 1e-12, "key %d is not returned", D - 1 - t);
}

/* Out of MAC's loop over segments comes what each token is surprised by: cut off after any number of tokens, it is the same. */
static void mac_reports_its_surprise(const double *in, double *out) {
  mc_mixer m;
  mc_bag whole = {0};
  if (ms_open(&m, "'type': 'titans_mac', 'heads': 2, 'chunk': 3, 'segment': 4", 8, 2, MN_F64, mn_backend_ref()) &&
      mc_random_params(&m, 1) && mc_forward(&m, 20, in, out, NULL, NULL, &whole)) {
    mc_tensor *r = mc_get(&whole, "memory.surprise");
    CHECK(r && r->shape.ndim == 2 && r->shape.dim[0] == 2 && r->shape.dim[1] == 20, "memory.surprise [B,T] is reported");
    for (int64_t n = 1; r && n < 20; n++) {
      mc_bag some = {0};
      double *cut = mc_cut(in, 2, 20, 8, 0, n);
      mc_tensor *p = mc_forward(&m, n, cut, out, NULL, NULL, &some) ? mc_get(&some, "memory.surprise") : NULL;
      CHECK(p && p->shape.ndim == 2 && p->shape.dim[1] == n, "of %d tokens", (int)n);
      for (int64_t i = 0; p && i < 2 * n; i++) {
        double want = r->x[i / n * 20 + i % n];
        CHECK(want > 0 && fabs(p->x[i] - want) < 1e-12 * want, "of %d tokens, %d: %g, not %g", (int)n, (int)i, p->x[i], want);
      }
      mc_bag_free(&some);
      free(cut);
    }
  }
  mc_bag_free(&whole);
  mc_close(&m);
}

/* The report is the inner loss at the anchor, in every form. */
static void surprise_is_the_inner_loss(void) {
  static numbers x;
  double y[T_MAX][D], fused[T_MAX], block[T_MAX], p[D];
  draw(&x, 20, 8);
  mn_fast_config c = linear(20, true, true), b = composed(c);
  if (run(&c, &x, y, fused) && run(&b, &x, y, block))
    for (int t = 0; t < 20; t++) {
      double want = 0;
      times(x.W[0], x.k[t], p);
      for (int j = 0; j < D; j++) want += 0.5 * (p[j] - x.v[t][j]) * (p[j] - x.v[t][j]);
      CHECK(fabs(fused[t] - want) < 1e-12 && fabs(block[t] - want) < 1e-12, "token %d: %g and %g, not %g", t, fused[t], block[t], want);
    }
  mc_mixer m;
  mc_bag reports = {0};
  int64_t n = 2 * 20 * 8;
  double *in = mc_normal(n, 1, 1), *out = malloc((size_t)n * sizeof *out);
  if (ms_open(&m, "'type': 'titans_mag', 'heads': 2, 'chunk': 8", 8, 2, MN_F64, mn_backend_ref()) && mc_random_params(&m, 1) &&
      mc_forward(&m, 20, in, out, NULL, NULL, &reports)) {
    mc_tensor *r = mc_get(&reports, "memory.surprise");
    CHECK(r && r->shape.ndim == 2 && r->shape.dim[0] == 2 && r->shape.dim[1] == 20, "memory.surprise [B,T] is reported");
    for (int i = 0; r && i < 40; i++) CHECK(r->x[i] >= 0 && isfinite(r->x[i]), "surprise %g", r->x[i]);
  }
  mc_bag_free(&reports);
  mc_close(&m);
  mac_reports_its_surprise(in, out);
  free(in);
  free(out);
}

int main(void) {
  RUN(one_token_chunks_are_the_gated_delta_rule);
  RUN(one_chunk_from_zero_is_linear_attention);
  RUN(inner_products_are_gated_linear_attention);
  RUN(a_memory_that_does_not_learn_is_fixed);
  RUN(orthonormal_keys_are_remembered_exactly);
  RUN(surprise_is_the_inner_loss);
  return test_end();
}
