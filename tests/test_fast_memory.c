/* What must be true of a fast memory whose answers have another width than its questions, of every net that can have one, loss, step and
 * window: it is the recurrence of fast_memory.h, token by token, with gradients that are quotients of differences here; cut anywhere it is
 * the same; its outer gradients agree with central differences. (What Titans asks of it: test_titans_identities.c.) */
#include "gradcheck.h"
#include "nn/fast_memory.h"

enum { B = 2, T = 8, H = 2, D = 3, V = 5, CHUNK = 3, WINDOW = 2, HIDDEN = 2 * D, MOST = 2 * D * HIDDEN + HIDDEN * V };

static mn_fast_config config;
static int64_t cut; /* 0: none */

#define F64(lo, hi, ...)                                                                                                                   \
  { MN_F64, {(int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), {__VA_ARGS__}}, lo, hi, false }
/* q, k, v, theta, the arguments of eta and alpha, the memory at the start; the weights of a window's pairs, the rate of steps */
static const gc_input inputs[] = {F64(-1, 1, B, T, H, D), F64(-1, 1, B, T, H, D),       F64(-1, 1, B, T, H, V),
                                  F64(0.1, 0.4, B, T, H), F64(-1, 1, B, T, H),          F64(-3, -1, B, T, H),
                                  F64(-1, 1, MOST),       F64(0.2, 1, B, T, H, WINDOW), F64(0.1, 0.4, B, T, H)};
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
    s.S[p] = s.G[p] = mn_full(g, MN_F64, shape, 0);
    at += n;
  }
  s.momentum_sum = s.decay_sum = mn_full(g, MN_F64, MN_SHAPE(B, H), 0);
  if (config.window > 1) { /* what is not there has no gradient */
    s.past_k = mn_full(g, MN_F64, MN_SHAPE(B, WINDOW - 1, H, D), 0);
    s.past_v = mn_full(g, MN_F64, MN_SHAPE(B, WINDOW - 1, H, V), 0);
  }
  mn_tensor *parts[2];
  for (int64_t from = 0, i = 0; from < T; i++) {
    const int64_t n = cut && from == 0 ? cut : T - from;
    mn_tensor *of[INPUTS];
    for (int k = 0; k < INPUTS; k++) of[k] = k == 6 ? NULL : mn_slice(g, x[k], 1, from, n);
    mn_fast_input in = {.q = of[0], .k = of[1], .v = of[2], .theta = of[3], .momentum = of[4], .decay = of[5]};
    if (config.window > 1) in.window = of[7];
    if (config.step == MN_FAST_ORTHOGONAL) in.rate = of[8];
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
static void product(const double *x, const double *w, int64_t in, int64_t out, double *y) {
  for (int j = 0; j < out; j++) {
    y[j] = 0;
    for (int i = 0; i < in; i++) y[j] += x[i] * w[i * out + j];
  }
}
static int64_t numbers(void) { return config.net == MN_FAST_LINEAR ? D * V : config.net == MN_FAST_MLP ? D * HIDDEN + HIDDEN * V : MOST; }
static void answer(const double *w, const double *x, double *y) {
  double hidden[HIDDEN], up[HIDDEN];
  if (config.net == MN_FAST_LINEAR) {
    product(x, w, D, V, y);
    return;
  }
  product(x, w, D, HIDDEN, hidden);
  for (int j = 0; j < HIDDEN; j++) hidden[j] = gelu(hidden[j]);
  if (config.net == MN_FAST_GATED) {
    product(x, w + D * HIDDEN, D, HIDDEN, up);
    for (int j = 0; j < HIDDEN; j++) hidden[j] *= up[j];
  }
  product(hidden, w + numbers() - HIDDEN * V, HIDDEN, V, y);
}
static double loss(const double *w, const double *k, const double *v) {
  double y[V], l = 0;
  answer(w, k, y);
  for (int j = 0; j < V; j++) l += config.loss == MN_FAST_DOT ? -y[j] * v[j] : 0.5 * (y[j] - v[j]) * (y[j] - v[j]);
  return l;
}
static double sigmoid(double x) { return 1 / (1 + exp(-x)); }
/* The gradient of the loss of the pairs that token t sees, weighed, at w. */
static void slopes(double *const *x, int b, int h, int t, double *w, double *slope) {
  for (int64_t i = 0; i < numbers(); i++) {
    const double keep = w[i], d = 1e-5;
    slope[i] = 0;
    for (int back = 0; back < (config.window > 1 ? WINDOW : 1) && back <= t; back++) {
      const int64_t own = (b * T + t) * H + h, at = own - back * H;
      const double *k = x[1] + at * D, *v = x[2] + at * V;
      w[i] = keep + d;
      const double up = loss(w, k, v);
      w[i] = keep - d;
      slope[i] += (config.window > 1 ? x[7][own * WINDOW + WINDOW - 1 - back] : 1) * (up - loss(w, k, v)) / (2 * d);
    }
    w[i] = keep;
  }
}
static void define(double *const *x, double *y) {
  const int64_t n = numbers();
  for (int b = 0; b < B; b++)
    for (int h = 0; h < H; h++) {
      double w[MOST], s[MOST] = {0}, sum[MOST], anchor[MOST], slope[MOST], eta_sum = 0, alpha_sum = 0;
      memcpy(w, x[6], (size_t)n * sizeof *w);
      for (int t = 0; t < T; t++) {
        const int64_t at = (b * T + t) * H + h;
        const bool ends = t % CHUNK == CHUNK - 1;
        if (t % CHUNK == 0) {
          memcpy(anchor, w, (size_t)n * sizeof *w);
          memset(sum, 0, sizeof sum);
          eta_sum = alpha_sum = 0;
        }
        slopes(x, b, h, t, anchor, slope);
        eta_sum += x[4][at], alpha_sum += x[5][at];
        for (int64_t i = 0; i < n; i++) {
          sum[i] -= x[3][at] * slope[i];
          if (config.step == MN_FAST_EVERY_CHUNK) {
            if (!ends) continue;
            s[i] = sigmoid(eta_sum / CHUNK) * s[i] + sum[i];
            w[i] = (1 - sigmoid(alpha_sum / CHUNK)) * w[i] + s[i];
            continue;
          }
          s[i] = sigmoid(x[4][at]) * s[i] - x[3][at] * slope[i];
          w[i] = (1 - sigmoid(x[5][at])) * w[i];
          if (config.step == MN_FAST_EVERY_TOKEN) w[i] += s[i];
          else if (ends) w[i] += x[8][at] * s[i]; /* the momentum as it is: steps is 0 */
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
  static const char *const steps[] = {"every token", "every chunk", "orthogonal"}, *const nets[] = {"linear", "mlp", "ln_mlp", "gated"};
  for (int net = MN_FAST_LINEAR; net <= MN_FAST_GATED; net++)
    for (int form = 0; form < 2 * 3 * 2 && net != MN_FAST_LN_MLP; form++) { /* a norm adds its input */
      char what[96];
      config = (mn_fast_config){.net = net,
                                .depth = net == MN_FAST_LINEAR ? 1 : 2,
                                .expand = HIDDEN / D,
                                .heads = H,
                                .head_dim = D,
                                .value_dim = V,
                                .chunk = CHUNK,
                                .momentum = true,
                                .decay = true,
                                .loss = form % 2 ? MN_FAST_DOT : MN_FAST_L2,
                                .step = (mn_fast_step)(form / 2 % 3),
                                .window = form / 6 ? WINDOW : 1};
      snprintf(what, sizeof what, "%s, %s, %s, window %d", nets[net], form % 2 ? "dot" : "l2", steps[config.step], (int)config.window);
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
  if (config.step == MN_FAST_ORTHOGONAL) config.steps = 2;
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
