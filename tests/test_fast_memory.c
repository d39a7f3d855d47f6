/* What must be true of a fast memory whose answers have another width than its questions, and of its losses: it is the recurrence of
 * fast_memory.h, token by token, with gradients that are quotients of differences here; cut anywhere it is the same; its outer gradients
 * agree with central differences. (What Titans asks of it: test_titans_identities.c.) */
#include "gradcheck.h"
#include "nn/fast_memory.h"

enum { B = 2, T = 8, H = 2, D = 3, V = 5, CHUNK = 3, MOST = D * 2 * D + 2 * D * V };

static mn_fast_config config;
static int64_t cut; /* 0: none */

#define F64(lo, hi, ...)                                                                                                                   \
  { MN_F64, {(int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), {__VA_ARGS__}}, lo, hi, false }
/* q, k, v, theta, the arguments of eta and alpha, the memory at the start */
static const gc_input inputs[] = {F64(-1, 1, B, T, H, D), F64(-1, 1, B, T, H, D), F64(-1, 1, B, T, H, V), F64(0.1, 0.4, B, T, H),
                                  F64(-1, 1, B, T, H),    F64(-3, -1, B, T, H),   F64(-1, 1, MOST)};
enum { INPUTS = sizeof inputs / sizeof *inputs };

/* y [B,T,H,V] and the memory after it; the start is of all rows and heads. */
static void memory(mn_graph *g, mn_tensor **x, mn_tensor **y) {
  mn_fast_state s = {.W = {NULL}};
  int64_t at = 0;
  for (int p = 0; p < mn_fast_parts(&config); p++) {
    const mn_shape shape = mn_fast_shape(&config, p, B);
    const int64_t n = shape.dim[2] * shape.dim[3];
    s.W[p] = mn_expand(g, mn_reshape(g, mn_slice(g, x[6], 0, at, n), MN_SHAPE(1, 1, shape.dim[2], shape.dim[3])), shape);
    s.A[p] = s.W[p];
    s.S[p] = mn_full(g, MN_F64, shape, 0);
    at += n;
  }
  mn_tensor *parts[2];
  for (int64_t from = 0, i = 0; from < T; i++) {
    const int64_t n = cut && from == 0 ? cut : T - from;
    mn_tensor *of[6];
    for (int k = 0; k < 6; k++) of[k] = mn_slice(g, x[k], 1, from, n);
    mn_fast_input in = {.q = of[0], .k = of[1], .v = of[2], .theta = of[3], .momentum = of[4], .decay = of[5]};
    if (cut) in.phase = mn_full(g, MN_I32, MN_SHAPE(B), (double)(from % CHUNK));
    const mn_fast_result r = mn_fast_memory(g, &config, &s, &in);
    parts[i] = r.y;
    s = r.state;
    from += n;
  }
  y[0] = cut ? mn_concat(g, 2, parts, 1) : parts[0];
  y[1] = s.W[mn_fast_parts(&config) - 1];
}

/* ---- the definition ---- */
static double gelu(double z) { return 0.5 * z * (1 + erf(z / sqrt(2))); }
static void answer(const double *w, const double *x, double *y) {
  double hidden[2 * D];
  const int64_t width = config.depth == 2 ? 2 * D : D;
  const double *last = w + (config.depth == 2 ? D * width : 0), *from = x;
  if (config.depth == 2) {
    for (int j = 0; j < width; j++) {
      hidden[j] = 0;
      for (int i = 0; i < D; i++) hidden[j] += x[i] * w[i * width + j];
      hidden[j] = gelu(hidden[j]);
    }
    from = hidden;
  }
  for (int j = 0; j < V; j++) {
    y[j] = 0;
    for (int i = 0; i < width; i++) y[j] += from[i] * last[i * V + j];
  }
}
static double loss(const double *w, const double *k, const double *v) {
  double y[V], l = 0;
  answer(w, k, y);
  for (int j = 0; j < V; j++) l += config.loss == MN_FAST_DOT ? -y[j] * v[j] : 0.5 * (y[j] - v[j]) * (y[j] - v[j]);
  return l;
}
static double sigmoid(double x) { return 1 / (1 + exp(-x)); }
static void define(double *const *x, double *y) {
  const int64_t n = config.depth == 2 ? MOST : D * V;
  for (int b = 0; b < B; b++)
    for (int h = 0; h < H; h++) {
      double w[MOST], s[MOST] = {0}, anchor[MOST];
      memcpy(w, x[6], (size_t)n * sizeof *w);
      for (int t = 0; t < T; t++) {
        const int64_t at = (b * T + t) * H + h;
        const double *k = x[1] + at * D, *v = x[2] + at * V, eta = sigmoid(x[4][at]), alpha = sigmoid(x[5][at]);
        if (t % CHUNK == 0) memcpy(anchor, w, sizeof w);
        for (int64_t i = 0; i < n; i++) {
          const double keep = anchor[i], d = 1e-5;
          anchor[i] = keep + d;
          double up = loss(anchor, k, v);
          anchor[i] = keep - d;
          double slope = (up - loss(anchor, k, v)) / (2 * d);
          anchor[i] = keep;
          s[i] = eta * s[i] - x[3][at] * slope;
          w[i] = (1 - alpha) * w[i] + s[i];
        }
        answer(w, x[0] + at * D, y + at * V);
      }
    }
}

static double *run(double **x) {
  mn_graph *g = mn_graph_new();
  mn_tensor *in[INPUTS], *y[2];
  double *out[2] = {NULL};
  for (int i = 0; i < INPUTS; i++) in[i] = mn_input(g, "x", MN_F64, inputs[i].shape);
  memory(g, in, y);
  CHECK_OK(mn_graph_status(g));
  CHECK(gc_run(g, mn_backend_ref(), 0, MN_KEEP, INPUTS, in, x, 2, y, out), "%s", mn_message());
  free(out[1]);
  mn_graph_free(g);
  return out[0];
}

static void each_form(void (*f)(const char *what)) {
  for (int depth = 1; depth <= 2; depth++)
    for (int l = MN_FAST_L2; l <= MN_FAST_DOT; l++) {
      char what[64];
      config = (mn_fast_config){.net = depth == 1 ? MN_FAST_LINEAR : MN_FAST_MLP,
                                .depth = depth,
                                .expand = 2,
                                .heads = H,
                                .head_dim = D,
                                .value_dim = V,
                                .chunk = CHUNK,
                                .momentum = true,
                                .decay = true,
                                .loss = l};
      snprintf(what, sizeof what, "depth %d, %s", depth, l == MN_FAST_DOT ? "dot" : "l2");
      f(what);
    }
  cut = 0;
}

static void by_token(const char *what) {
  double *x[INPUTS], want[B * T * H * V];
  for (int i = 0; i < INPUTS; i++)
    x[i] = malloc((size_t)mn_shape_count(&inputs[i].shape) * sizeof(double)), gc_fill(x[i], &inputs[i], 2, i);
  define(x, want);
  for (cut = 0; cut < T; cut++) {
    double *got = run(x);
    CHECK(got && gc_difference(got, want, B * T * H * V) < 1e-7, "%s, cut at %lld: %g", what, (long long)cut,
          got ? gc_difference(got, want, B * T * H * V) : INFINITY);
    free(got);
  }
  for (int i = 0; i < INPUTS; i++) free(x[i]);
}
static void it_is_the_recurrence_wherever_it_is_cut(void) { each_form(by_token); }

static void outer_gradient(const char *what) {
  gc_case c = {.name = what, .n_x = INPUTS, .n_y = 2, .f = memory};
  memcpy(c.x, inputs, sizeof inputs);
  for (cut = 0; cut <= 4; cut += 4) {
    double e = gc_gradient_error(&c, 1, 3);
    CHECK(e < 1e-6, "%s, cut at %lld: %g", what, (long long)cut, e);
  }
}
static void outer_gradients_agree_with_differences(void) { each_form(outer_gradient); }

static void what_adds_its_input_has_its_width(void) {
  mn_graph *g = mn_graph_new();
  mn_tensor *x[INPUTS], *y[2];
  config = (mn_fast_config){
      .net = MN_FAST_MLP, .residual = true, .depth = 2, .expand = 2, .heads = H, .head_dim = D, .value_dim = V, .chunk = CHUNK};
  for (int i = 0; i < INPUTS; i++) x[i] = mn_input(g, "x", MN_F64, inputs[i].shape);
  cut = 0;
  memory(g, x, y);
  CHECK(mn_graph_status(g) == MN_ERR_CONFIG, "refused");
  mn_graph_free(g);
}

int main(void) {
  RUN(it_is_the_recurrence_wherever_it_is_cut);
  RUN(outer_gradients_agree_with_differences);
  RUN(what_adds_its_input_has_its_width);
  return test_end();
}
