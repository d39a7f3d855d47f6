/* The CPU's kernels of the chunked linear recurrence against its definition: a loop over tokens in double, forward and
 * backward, for each instruction set that this machine runs. */
#include "graph/fused_recurrence.h"
#include "graph/ops.h"
#include "kernel_call.h"

/* ---- one problem: shapes, attributes and all tensors in float (bf16 problems hold values that bf16 holds) ---- */
enum { Q, KEY, VAL, BETA, LOG_A, LOG_ETA, W0, S0, A0, TENSORS };
enum { O, W, S, A, RESULTS };
typedef struct problem {
  int64_t B, T, H, K, V;
  mn_recurrence_attr attr;
  mn_dtype type; /* of q, k, v, o */
  bool strided;  /* q, k, v are slices of one wider tensor */
  int32_t phase[8];
  float *in[TENSORS], *g[RESULTS]; /* inputs; gradients of the results */
} problem;

static uint64_t draws;
static float draw(void) { return (float)(mn_random_uniform(7, 1, draws++) * 2 - 1); }
static int64_t in_count(const problem *p, int i) {
  int64_t tok = p->B * p->T * p->H, st = p->B * p->H * p->K * p->V;
  return i <= KEY ? tok * p->K : i == VAL ? tok * p->V : i <= LOG_ETA ? tok : st;
}
static int64_t out_count(const problem *p, int i) { return i == O ? p->B * p->T * p->H * p->V : p->B * p->H * p->K * p->V; }
static bool has_in(const mn_recurrence_attr *a, int i) {
  return i == LOG_A ? a->decay : i == LOG_ETA || i == S0 ? a->momentum : i == A0 ? a->write == MN_WRITE_ANCHOR : true;
}
static bool has_out(const mn_recurrence_attr *a, int i) { return i == S ? a->momentum : i == A ? a->write == MN_WRITE_ANCHOR : true; }
static void problem_make(problem *p) {
  for (int i = 0; i < TENSORS; i++) {
    int64_t n = in_count(p, i);
    p->in[i] = malloc(sizeof(float) * (size_t)n);
    for (int64_t j = 0; j < n; j++) {
      float x = draw();
      if (i <= KEY) x *= 1.4f / sqrtf((float)p->K); /* keys of length about 0.8, so that no rule diverges */
      if (i == BETA) x = 0.25f + 0.2f * x;
      if (i == LOG_A) x = j % 11 == 3 ? -30.0f : -0.1f - 0.09f * x;
      if (i == LOG_ETA) x = -0.5f - 0.4f * x;
      p->in[i][j] = i <= VAL && p->type == MN_BF16 ? to_bf16(x) : x;
    }
  }
  for (int i = 0; i < RESULTS; i++) {
    int64_t n = out_count(p, i);
    p->g[i] = malloc(sizeof(float) * (size_t)n);
    for (int64_t j = 0; j < n; j++) {
      float x = draw();
      p->g[i][j] = i == O && p->type == MN_BF16 ? to_bf16(x) : x;
    }
  }
}
static void problem_free(problem *p) {
  for (int i = 0; i < TENSORS; i++) free(p->in[i]);
  for (int i = 0; i < RESULTS; i++) free(p->g[i]);
}

/* ---- the definition, token by token, in double ---- */
typedef struct answer {
  double *out[RESULTS], *grad[TENSORS];
} answer;
static void answer_free(answer *r) {
  for (int i = 0; i < RESULTS; i++) free(r->out[i]);
  for (int i = 0; i < TENSORS; i++) free(r->grad[i]);
}
static bool opens(const problem *p, int64_t b, int64_t t) {
  int64_t phase = p->attr.has_phase ? p->phase[b] : 0;
  return (phase + t) % p->attr.chunk == 0;
}
/* What clamping multiplies a write k e^T by, and the slope of that in its norm n. */
typedef struct clamping {
  double f, slope, n, k2, e2;
} clamping;
static clamping clamp(const problem *p, const double *k, const double *e) {
  clamping c = {.f = 1};
  const double m = p->attr.grad_clamp;
  if (m == 0) return c;
  for (int64_t i = 0; i < p->K; i++) c.k2 += k[i] * k[i];
  for (int64_t j = 0; j < p->V; j++) c.e2 += e[j] * e[j];
  c.n = sqrt(c.k2 * c.e2 + 1e-12);
  const double r = c.n / m, th = tanh(r);
  c.f = th / r;
  c.slope = ((1 - th * th) * r - th) / (r * r) / m;
  return c;
}
static answer define(const problem *p, double **in) {
  const int64_t T = p->T, H = p->H, K = p->K, V = p->V, KV = K * V;
  const mn_recurrence_attr *at = &p->attr;
  answer r;
  for (int i = 0; i < RESULTS; i++) r.out[i] = calloc((size_t)out_count(p, i), sizeof(double));
  for (int i = 0; i < TENSORS; i++) r.grad[i] = calloc((size_t)in_count(p, i), sizeof(double));
  double *ws = malloc(sizeof(double) * (size_t)((T + 1) * KV)), *ss = calloc((size_t)((T + 1) * KV), sizeof(double));
  double *as = calloc((size_t)((T + 1) * KV), sizeof(double)), *us = malloc(sizeof(double) * (size_t)(T * V));
  double *gw = malloc(sizeof(double) * (size_t)KV), *gs = malloc(sizeof(double) * (size_t)KV);
  double *ga = malloc(sizeof(double) * (size_t)KV), *gp = malloc(sizeof(double) * (size_t)KV);
  double du[512];
  for (int64_t b = 0; b < p->B; b++)
    for (int64_t h = 0; h < H; h++) {
      const int64_t st = (b * H + h) * KV;
      for (int64_t x = 0; x < KV; x++) {
        ws[x] = in[W0][st + x];
        ss[x] = at->momentum ? in[S0][st + x] : 0;
        as[x] = at->write == MN_WRITE_ANCHOR ? in[A0][st + x] : 0; /* as[t+1]: the anchor that token t sees */
      }
#define TOK(t) ((b * T + (t)) * H + h)
      for (int64_t t = 0; t < T; t++) {
        const double *q = in[Q] + TOK(t) * K, *k = in[KEY] + TOK(t) * K, *v = in[VAL] + TOK(t) * V;
        const double th = in[BETA][TOK(t)], a = at->decay ? exp(in[LOG_A][TOK(t)]) : 1;
        const double e = at->momentum ? exp(in[LOG_ETA][TOK(t)]) : 0;
        double *w0 = ws + t * KV, *w1 = w0 + KV, *s0 = ss + t * KV, *s1 = s0 + KV, *a1 = as + (t + 1) * KV;
        memcpy(a1, opens(p, b, t) ? w0 : a1 - KV, sizeof(double) * (size_t)KV);
        for (int64_t j = 0; j < V; j++) {
          double u = v[j];
          for (int64_t i = 0; i < K; i++) {
            if (at->write == MN_WRITE_ANCHOR) u -= a1[i * V + j] * k[i];
            if (at->write == MN_WRITE_DELTA) u -= a * w0[i * V + j] * k[i];
          }
          us[t * V + j] = u;
        }
        const double f = clamp(p, k, us + t * V).f;
        for (int64_t j = 0; j < V; j++) us[t * V + j] *= f;
        for (int64_t i = 0; i < K; i++)
          for (int64_t j = 0; j < V; j++) {
            s1[i * V + j] = e * s0[i * V + j] + th * k[i] * us[t * V + j];
            w1[i * V + j] = a * w0[i * V + j] + s1[i * V + j];
          }
        const double *read = at->read_before ? w0 : w1;
        for (int64_t j = 0; j < V; j++)
          for (int64_t i = 0; i < K; i++) r.out[O][TOK(t) * V + j] += read[i * V + j] * q[i];
      }
      for (int64_t x = 0; x < KV; x++) {
        r.out[W][st + x] = ws[T * KV + x];
        r.out[S][st + x] = ss[T * KV + x];
        const bool ended = opens(p, b, T); /* then the anchor handed on is the state itself */
        const double g_a = at->write == MN_WRITE_ANCHOR ? p->g[A][st + x] : 0;
        r.out[A][st + x] = ended ? ws[T * KV + x] : as[T * KV + x];
        gw[x] = p->g[W][st + x] + (ended ? g_a : 0);
        gs[x] = at->momentum ? p->g[S][st + x] : 0;
        ga[x] = ended ? 0 : g_a;
      }
      for (int64_t t = T - 1; t >= 0; t--) {
        const double *q = in[Q] + TOK(t) * K, *k = in[KEY] + TOK(t) * K, *u = us + t * V;
        const double th = in[BETA][TOK(t)], a = at->decay ? exp(in[LOG_A][TOK(t)]) : 1;
        const double e = at->momentum ? exp(in[LOG_ETA][TOK(t)]) : 0;
        const double *w0 = ws + t * KV, *w1 = w0 + KV, *s0 = ss + t * KV, *a1 = as + (t + 1) * KV;
        double *dq = r.grad[Q] + TOK(t) * K, *dk = r.grad[KEY] + TOK(t) * K, da = 0, de = 0, dth = 0;
        memset(gp, 0, sizeof(double) * (size_t)KV);
        memset(du, 0, sizeof du);
        for (int64_t i = 0; i < K; i++)
          for (int64_t j = 0; j < V; j++) {
            const double go = p->g[O][TOK(t) * V + j];
            (at->read_before ? gp : gw)[i * V + j] += q[i] * go;
            dq[i] += (at->read_before ? w0 : w1)[i * V + j] * go;
          }
        for (int64_t i = 0; i < K; i++)
          for (int64_t j = 0; j < V; j++) {
            const int64_t x = i * V + j;
            gs[x] += gw[x];
            da += gw[x] * w0[x];
            gp[x] += a * gw[x];
            de += gs[x] * s0[x];
            dth += k[i] * gs[x] * u[j];
            dk[i] += th * gs[x] * u[j];
            du[j] += th * gs[x] * k[i];
            gs[x] *= e;
          }
        if (at->grad_clamp > 0) { /* u = f e, e = v - anchor k */
          double err[512], along = 0;
          for (int64_t j = 0; j < V; j++) {
            err[j] = in[VAL][TOK(t) * V + j];
            for (int64_t i = 0; i < K; i++) err[j] -= a1[i * V + j] * k[i];
          }
          const clamping c = clamp(p, k, err);
          for (int64_t j = 0; j < V; j++) along += du[j] * err[j];
          for (int64_t j = 0; j < V; j++) du[j] = c.f * du[j] + along * c.slope * c.k2 / c.n * err[j];
          for (int64_t i = 0; i < K; i++) dk[i] += along * c.slope * c.e2 / c.n * k[i];
        }
        for (int64_t i = 0; i < K; i++)
          for (int64_t j = 0; j < V; j++) {
            const int64_t x = i * V + j;
            if (at->write == MN_WRITE_ANCHOR) {
              dk[i] -= a1[x] * du[j];
              ga[x] -= k[i] * du[j];
            }
            if (at->write == MN_WRITE_DELTA) {
              dk[i] -= a * w0[x] * du[j];
              gp[x] -= a * k[i] * du[j];
              da -= k[i] * w0[x] * du[j];
            }
          }
        for (int64_t x = 0; x < KV; x++) {
          if (at->write == MN_WRITE_ANCHOR && opens(p, b, t)) {
            gp[x] += ga[x];
            ga[x] = 0;
          }
          gw[x] = gp[x];
        }
        memcpy(r.grad[VAL] + TOK(t) * V, du, sizeof(double) * (size_t)V);
        r.grad[BETA][TOK(t)] = dth;
        r.grad[LOG_A][TOK(t)] = da * a;
        r.grad[LOG_ETA][TOK(t)] = de * e;
      }
      memcpy(r.grad[W0] + st, gw, sizeof(double) * (size_t)KV);
      memcpy(r.grad[S0] + st, gs, sizeof(double) * (size_t)KV);
      memcpy(r.grad[A0] + st, ga, sizeof(double) * (size_t)KV);
    }
#undef TOK
  free(ws), free(ss), free(as), free(us), free(gw), free(gs), free(ga), free(gp);
  return r;
}
static answer define_problem(const problem *p) {
  double *in[TENSORS];
  for (int i = 0; i < TENSORS; i++) {
    int64_t n = in_count(p, i);
    in[i] = malloc(sizeof(double) * (size_t)n);
    for (int64_t j = 0; j < n; j++) in[i][j] = p->in[i][j];
  }
  answer r = define(p, in);
  for (int i = 0; i < TENSORS; i++) free(in[i]);
  return r;
}

/* ---- calling the kernels ---- */
typedef struct result {
  float *out[RESULTS], *grad[TENSORS];
} result;
static void result_free(result *r) {
  for (int i = 0; i < RESULTS; i++) free(r->out[i]);
  for (int i = 0; i < TENSORS; i++) free(r->grad[i]);
}

static result compute(const problem *p, mn_isa isa, mn_pool *pool, bool backward) {
  const int64_t dims[TENSORS][4] = {{p->B, p->T, p->H, p->K}, {p->B, p->T, p->H, p->K}, {p->B, p->T, p->H, p->V},
                                    {p->B, p->T, p->H},       {p->B, p->T, p->H},       {p->B, p->T, p->H},
                                    {p->B, p->H, p->K, p->V}, {p->B, p->H, p->K, p->V}, {p->B, p->H, p->K, p->V}};
  const int64_t od[RESULTS][4] = {{p->B, p->T, p->H, p->V}, {p->B, p->H, p->K, p->V}, {p->B, p->H, p->K, p->V}, {p->B, p->H, p->K, p->V}};
  held in[TENSORS + 1 + RESULTS], out[TENSORS];
  int which_in[TENSORS], n_in = 0, n = 0;
  mn_recurrence_attr attr = p->attr;
  result r = {0};
  for (int i = 0; i < TENSORS; i++) {
    if (!has_in(&p->attr, i)) continue;
    which_in[n_in] = i;
    in[n_in] = hold(i <= VAL ? p->type : MN_F32, i >= BETA && i <= LOG_ETA ? 3 : 4, dims[i], p->strided && i <= VAL ? 3 : 1);
    fill(&in[n_in++], p->in[i]);
  }
  int first_g = n_in;
  if (p->attr.has_phase) {
    in[first_g] = hold(MN_I32, 1, &p->B, 1);
    memcpy(in[first_g].memory, p->phase, sizeof(int32_t) * (size_t)p->B);
    first_g++;
  }
  if (!backward) {
    int which[RESULTS];
    for (int i = 0; i < RESULTS; i++)
      if (has_out(&p->attr, i)) {
        which[n] = i;
        out[n++] = hold(i == O ? p->type : MN_F32, 4, od[i], 1);
      }
    call_kernel(mn_cpu_recurrence_kernels, &mn_op_recurrence, &attr, isa, pool, in, first_g, out, n);
    for (int i = 0; i < n; i++) r.out[which[i]] = read_out(&out[i]);
    for (int i = 0; i < n; i++) free(out[i].memory);
    for (int i = 0; i < first_g; i++) free(in[i].memory);
  } else {
    int all = first_g;
    for (int i = 0; i < RESULTS; i++)
      if (has_out(&p->attr, i)) {
        in[all] = hold(i == O ? p->type : MN_F32, 4, od[i], 1);
        fill(&in[all++], p->g[i]);
      }
    for (int i = 0; i < n_in; i++) out[i] = hold(which_in[i] <= VAL ? p->type : MN_F32, in[i].view.ndim, in[i].view.dim, 1);
    call_kernel(mn_cpu_recurrence_kernels, &mn_op_recurrence_grad, &attr, isa, pool, in, all, out, n_in);
    for (int i = 0; i < n_in; i++) r.grad[which_in[i]] = read_out(&out[i]);
    for (int i = 0; i < n_in; i++) free(out[i].memory);
    for (int i = 0; i < all; i++) free(in[i].memory);
  }
  return r;
}

/* ---- comparing ---- */
static double worst; /* over a test */
static double difference(const float *got, const double *want, int64_t n) {
  double d = relative_difference(got, want, n);
  if (!(d <= worst)) worst = d;
  return d;
}
static const char *in_name[] = {"q", "k", "v", "beta", "log_a", "log_eta", "w0", "s0", "a0"};
static const char *out_name[] = {"o", "w", "s", "a"};

static void check(const problem *p, mn_isa isa, mn_pool *pool, const answer *want, double tolerance) {
  result f = compute(p, isa, pool, false), g = compute(p, isa, pool, true);
  for (int i = 0; i < RESULTS; i++)
    if (f.out[i]) {
      double d = difference(f.out[i], want->out[i], out_count(p, i));
      CHECK(d <= tolerance, "%s %s: %g (T %d K %d V %d write %d momentum %d decay %d before %d chunk %d phase %d)", mn_isa_name(isa),
            out_name[i], d, (int)p->T, (int)p->K, (int)p->V, p->attr.write, p->attr.momentum, p->attr.decay, p->attr.read_before,
            (int)p->attr.chunk, p->attr.has_phase ? p->phase[0] : -1);
    }
  for (int i = 0; i < TENSORS; i++)
    if (g.grad[i]) {
      double d = difference(g.grad[i], want->grad[i], in_count(p, i));
      CHECK(d <= tolerance, "%s d%s: %g (T %d K %d V %d write %d momentum %d decay %d before %d chunk %d phase %d)", mn_isa_name(isa),
            in_name[i], d, (int)p->T, (int)p->K, (int)p->V, p->attr.write, p->attr.momentum, p->attr.decay, p->attr.read_before,
            (int)p->attr.chunk, p->attr.has_phase ? p->phase[0] : -1);
    }
  result_free(&f);
  result_free(&g);
}

/* ---- the tests ---- */
/* The three write rules, and ANCHOR with clamped writes: some well within the clamp, some far beyond it. */
enum { CLAMPED = 3, RULES };
static mn_write_rule write_of(int rule) { return rule == CLAMPED ? MN_WRITE_ANCHOR : (mn_write_rule)rule; }
static double clamp_of(int rule) { return rule == CLAMPED ? 0.7 : 0; }

/* The definition's own gradient, against central differences of its forward part. */
static void definition_gradient(void) {
  for (int rule = 0; rule < RULES; rule++)
    for (int bits = 0; bits < 8; bits++) {
      problem p = {.B = 1,
                   .T = 7,
                   .H = 1,
                   .K = 3,
                   .V = 2,
                   .type = MN_F32,
                   .attr = {.write = write_of(rule),
                            .grad_clamp = clamp_of(rule),
                            .momentum = bits & 1,
                            .decay = bits >> 1 & 1,
                            .read_before = bits >> 2,
                            .has_phase = true,
                            .chunk = 3},
                   .phase = {1}};
      problem_make(&p);
      double *in[TENSORS];
      for (int i = 0; i < TENSORS; i++) {
        in[i] = malloc(sizeof(double) * (size_t)in_count(&p, i));
        for (int64_t j = 0; j < in_count(&p, i); j++) in[i][j] = p.in[i][j];
      }
      answer r = define(&p, in);
      for (int i = 0; i < TENSORS; i++)
        for (int64_t j = 0; has_in(&p.attr, i) && j < in_count(&p, i); j++) {
          double x = in[i][j], sum[2] = {0, 0};
          for (int side = 0; side < 2; side++) {
            in[i][j] = x + (side ? 1e-5 : -1e-5);
            answer s = define(&p, in);
            for (int o = 0; o < RESULTS; o++)
              for (int64_t y = 0; has_out(&p.attr, o) && y < out_count(&p, o); y++) sum[side] += s.out[o][y] * p.g[o][y];
            answer_free(&s);
          }
          in[i][j] = x;
          double d = (sum[1] - sum[0]) / 2e-5;
          CHECK(fabs(d - r.grad[i][j]) <= 1e-7 * (1 + fabs(d)), "%s[%d]: %g, difference quotient %g (rule %d, %d)", in_name[i], (int)j,
                r.grad[i][j], d, rule, bits);
        }
      answer_free(&r);
      for (int i = 0; i < TENSORS; i++) free(in[i]);
      problem_free(&p);
    }
}

static void every_rule(int64_t T, int64_t K, int64_t V, mn_dtype type, double tolerance, bool few) {
  const int64_t chunks[] = {1, 4, 16, 64, T};
  for (int rule = 0; rule < RULES; rule++)
    for (int bits = 0; bits < 16; bits++) {
      if (few && bits != 3 && bits != 15 && bits != 0) continue;
      for (int c = 0; c < 5; c++) {
        problem p = {.B = 2,
                     .T = T,
                     .H = 2,
                     .K = K,
                     .V = V,
                     .type = type,
                     .strided = c & 1,
                     .attr = {.write = write_of(rule),
                              .grad_clamp = clamp_of(rule),
                              .momentum = bits & 1,
                              .decay = bits >> 1 & 1,
                              .read_before = bits >> 2 & 1,
                              .has_phase = bits >> 3,
                              .chunk = chunks[c]}};
        if (p.attr.write != MN_WRITE_ANCHOR && (c % 2 || p.attr.has_phase)) continue; /* no meaning there */
        for (int b = 0; b < 2; b++) p.phase[b] = (int32_t)((b ? 1 : chunks[c] - 1) % chunks[c]);
        problem_make(&p);
        answer want = define_problem(&p);
        for (mn_isa isa = first_isa(); isa <= last_isa(); isa++) check(&p, isa, NULL, &want, tolerance);
        answer_free(&want);
        problem_free(&p);
      }
    }
}
static void one_token(void) { every_rule(1, 20, 12, MN_F32, 1e-5, false); }
static void short_sequences(void) {
  every_rule(2, 5, 3, MN_F32, 1e-5, false);
  every_rule(7, 16, 16, MN_F32, 1e-5, false);
}
static void odd_sequences(void) { every_rule(77, 20, 12, MN_F32, 1e-4, false); }
static void long_sequences(void) {
  worst = 0;
  every_rule(301, 64, 64, MN_F32, 1e-4, true);
  printf("       worst error, f32: %.2g\n", worst);
}
/* States so large that backward does not keep them all, but makes runs of them again. */
static void states_made_again(void) {
  for (int rule = 0; rule < RULES; rule++) {
    problem p = {
        .B = 1,
        .T = 200,
        .H = 1,
        .K = 256,
        .V = 256,
        .type = MN_F32,
        .attr = {.write = write_of(rule), .grad_clamp = clamp_of(rule), .momentum = true, .decay = true, .has_phase = true, .chunk = 48},
        .phase = {7}};
    if (p.attr.write != MN_WRITE_ANCHOR) p.attr.has_phase = false;
    problem_make(&p);
    answer want = define_problem(&p);
    for (mn_isa isa = first_isa(); isa <= last_isa(); isa++) check(&p, isa, NULL, &want, 1e-4);
    answer_free(&want);
    problem_free(&p);
  }
}
static void in_bf16(void) {
  worst = 0;
  every_rule(77, 24, 40, MN_BF16, 2e-2, true);
  printf("       worst error, bf16: %.2g\n", worst);
}

/* A run of T tokens equals two runs that hand over W, S, A and the phase, wherever the cut is. */
static void split_invariance(void) {
  enum { T = 150 };
  for (int rule = 0; rule < RULES; rule++)
    for (int cut_no = 0; cut_no < 6; cut_no++) {
      int64_t cut = 1 + (int64_t)(mn_random_uniform(3, (uint64_t)rule, (uint64_t)cut_no) * (T - 1));
      if (cut_no == 0) cut = 16;
      if (cut_no == 1) cut = 1;
      problem p = {
          .B = 1,
          .T = T,
          .H = 1,
          .K = 16,
          .V = 20,
          .type = MN_F32,
          .phase = {5},
          .attr = {.write = write_of(rule), .grad_clamp = clamp_of(rule), .momentum = true, .decay = true, .has_phase = true, .chunk = 16}};
      problem_make(&p);
      mn_isa isa = last_isa();
      result whole = compute(&p, isa, NULL, false);
      problem left = p, right = p;
      left.T = cut;
      result l = compute(&left, isa, NULL, false);
      right.T = T - cut;
      right.phase[0] = (int32_t)((5 + cut) % 16);
      for (int i = 0; i < W0; i++) right.in[i] = p.in[i] + cut * (in_count(&p, i) / T);
      right.in[W0] = l.out[W], right.in[S0] = l.out[S], right.in[A0] = l.out[A] ? l.out[A] : p.in[A0];
      result r = compute(&right, isa, NULL, false);
      double worst_o = 0, worst_w = 0;
      for (int64_t i = 0; i < T * p.V; i++) {
        float got = i < cut * p.V ? l.out[O][i] : r.out[O][i - cut * p.V];
        worst_o = fmax(worst_o, fabs((double)got - whole.out[O][i]));
      }
      for (int o = W; o <= A; o++)
        for (int64_t i = 0; whole.out[o] && i < p.K * p.V; i++) worst_w = fmax(worst_w, fabs((double)r.out[o][i] - whole.out[o][i]));
      CHECK(worst_o < 2e-5 && worst_w < 2e-5, "rule %d, cut at %d: o %g, state %g", rule, (int)cut, worst_o, worst_w);
      result_free(&whole), result_free(&l), result_free(&r);
      problem_free(&p);
    }
}

/* What the graph says the operation and its gradient are. */
static void kernel_equals_composition(void) {
  for (int c = 0; c < 10; c++) {
    problem p = {.B = 2,
                 .T = c < 6 || c == 9 ? 13 : 1,
                 .H = 2,
                 .K = 6,
                 .V = 5,
                 .type = MN_F32,
                 .phase = {c % 3 == 2 ? 3 : 1, 2},
                 .attr = {.write = c == 9 ? MN_WRITE_ANCHOR : (mn_write_rule)(c % 3),
                          .grad_clamp = c == 9 ? 0.7 : 0,
                          .momentum = c & 1,
                          .decay = c != 4,
                          .read_before = c == 5,
                          .has_phase = c >= 3,
                          .chunk = 4}};
    problem_make(&p);
    mn_graph *g = mn_graph_new();
    mn_tensor *leaf[TENSORS + 1], *out[RESULTS + TENSORS], *ys[RESULTS], *dys[RESULTS], *xs[TENSORS], *all[16];
    void *data[16];
    int n = 0, n_y = 0, n_x = 0;
    for (int i = 0; i < TENSORS; i++) {
      int64_t w = i <= KEY ? p.K : p.V;
      mn_shape shape = i <= VAL ? MN_SHAPE(p.B, p.T, p.H, w) : i <= LOG_ETA ? MN_SHAPE(p.B, p.T, p.H) : MN_SHAPE(p.B, p.H, p.K, p.V);
      leaf[i] = has_in(&p.attr, i) ? mn_input(g, in_name[i], MN_F32, shape) : NULL;
      if (leaf[i]) all[n] = leaf[i], data[n++] = p.in[i], xs[n_x++] = leaf[i];
    }
    mn_tensor *phase = p.attr.has_phase ? mn_input(g, "phase", MN_I32, MN_SHAPE(p.B)) : NULL;
    if (phase) all[n] = phase, data[n++] = p.phase;
    mn_recurrence_io io = {.q = leaf[Q],
                           .k = leaf[KEY],
                           .v = leaf[VAL],
                           .beta = leaf[BETA],
                           .log_a = leaf[LOG_A],
                           .log_eta = leaf[LOG_ETA],
                           .w0 = leaf[W0],
                           .s0 = leaf[S0],
                           .a0 = leaf[A0],
                           .phase = phase};
    mn_linear_recurrence(g, &io, p.attr);
    mn_tensor *made[RESULTS] = {io.o, io.w, io.s, io.a};
    for (int i = 0; i < RESULTS; i++)
      if (has_out(&p.attr, i)) {
        ys[n_y] = out[n_y] = made[i];
        dys[n_y] = mn_input(g, "gradient", MN_F32, made[i] ? made[i]->shape : MN_SHAPE(1));
        all[n] = dys[n_y++], data[n++] = p.g[i];
      }
    CHECK_OK(mn_grad(g, n_y, ys, dys, n_x, xs, out + n_y));
    char what[32];
    snprintf(what, sizeof what, "case %d", c);
    compare_backends(g, n_y + n_x, out, n, all, data, 1e-5, what);
    mn_graph_free(g);
    problem_free(&p);
  }
}

static void same_bits_for_any_threads(void) {
  mn_pool *one = mn_pool_new(1), *two = mn_pool_new(2);
  for (int rule = 0; rule < RULES; rule++) {
    problem p = {.B = 2,
                 .T = 99,
                 .H = 3,
                 .K = 32,
                 .V = 16,
                 .type = MN_F32,
                 .attr = {.write = write_of(rule), .grad_clamp = clamp_of(rule), .momentum = true, .decay = true, .chunk = 16}};
    problem_make(&p);
    result a = compute(&p, last_isa(), one, false), b = compute(&p, last_isa(), two, false);
    result c = compute(&p, last_isa(), one, true), d = compute(&p, last_isa(), two, true);
    for (int i = 0; i < RESULTS; i++)
      CHECK(!a.out[i] || !memcmp(a.out[i], b.out[i], sizeof(float) * (size_t)out_count(&p, i)), "%s", out_name[i]);
    for (int i = 0; i < TENSORS; i++)
      CHECK(!c.grad[i] || !memcmp(c.grad[i], d.grad[i], sizeof(float) * (size_t)in_count(&p, i)), "d%s", in_name[i]);
    result_free(&a), result_free(&b), result_free(&c), result_free(&d);
    problem_free(&p);
  }
  mn_pool_free(one), mn_pool_free(two);
}

int main(void) {
  RUN(definition_gradient);
  RUN(one_token);
  RUN(short_sequences);
  RUN(odd_sequences);
  RUN(long_sequences);
  RUN(states_made_again);
  RUN(in_bf16);
  RUN(split_invariance);
  RUN(kernel_equals_composition);
  RUN(same_bits_for_any_threads);
  return test_end();
}
