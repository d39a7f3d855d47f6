/* test_recurrence.c - the general linear recurrence: decay by key channel, erase vectors of their own, keys shared by heads.
 * What it means, by loops over tokens in double that follow the papers' equations; gradients against differences; a sequence
 * cut anywhere; what the one form becomes in the papers' special cases; the CPU's kernels against the composition. The kernels
 * of one decay per head have tests of their own in test_cpu_recurrence.c. */
#include "gradcheck.h"
#include "graph/fused_recurrence.h"
#include "isa_set.h"

enum { Q, KEY, VAL, BETA, LOG_A, ERASE, PROBE, W0, INPUTS };
enum { NO_DECAY, BY_HEAD, BY_CHANNEL };
static const char *const names[] = {"q", "k", "v", "beta", "log_a", "erase", "probe", "w0"};

typedef struct form {
  mn_write_rule write;
  int decay;
  bool beta, before;
  int64_t B, T, H, G, K, V; /* q and k have G heads */
  double steep;             /* logs of the decay reach down to -steep; a few to -90 */
} form;

static mn_shape shape_of(const form *f, int i) {
  int64_t heads = i == VAL || i == BETA || i == LOG_A ? f->H : f->G;
  if (i == BETA || (i == LOG_A && f->decay == BY_HEAD)) return MN_SHAPE(f->B, f->T, heads);
  if (i == W0) return MN_SHAPE(f->B, f->H, f->K, f->V);
  return MN_SHAPE(f->B, f->T, heads, i == VAL ? f->V : f->K);
}
static bool has(const form *f, int i) {
  if (i == BETA) return f->beta;
  if (i == LOG_A) return f->decay != NO_DECAY;
  return i == ERASE || i == PROBE ? f->write == MN_WRITE_ERASE : true;
}
static int64_t count_of(const form *f, int i) {
  mn_shape s = shape_of(f, i);
  return mn_shape_count(&s);
}

/* Keys, probes and erase vectors short enough that no memory grows. */
static void draw(const form *f, double **x, uint64_t seed) {
  for (int i = 0; i < INPUTS; i++) {
    int64_t n = count_of(f, i);
    x[i] = malloc(sizeof(double) * (size_t)(n + 1));
    for (int64_t j = 0; j < n; j++) {
      double u = mn_random_uniform(seed, (uint64_t)i, (uint64_t)j), r = 2 * u - 1;
      if (i == BETA) r = 0.2 + 0.6 * u;
      if (i == LOG_A) r = j % 13 == 5 && f->steep > 1 ? -90 * u : -f->steep * u * u;
      if (i == Q || i == KEY || i == ERASE || i == PROBE) r *= 1.4 / sqrt((double)f->K);
      x[i][j] = (double)(float)r; /* the same numbers for f32 and f64 */
    }
  }
}
static void drop(double **x) {
  for (int i = 0; i < INPUTS; i++) free(x[i]);
}

typedef struct built {
  mn_graph *g;
  int n;
  mn_tensor *leaf[INPUTS], *y[2]; /* leaves in order of the inputs that there are */
  int which[INPUTS];
} built;

static built build(const form *f, mn_dtype t, int64_t chunk) {
  built b = {.g = mn_graph_new()};
  mn_tensor *x[INPUTS] = {NULL};
  for (int i = 0; i < INPUTS; i++)
    if (has(f, i)) b.which[b.n] = i, b.leaf[b.n++] = x[i] = mn_input(b.g, names[i], i == W0 && t == MN_BF16 ? MN_F32 : t, shape_of(f, i));
  mn_recurrence_io io = {x[Q],  x[KEY], x[VAL], x[BETA], x[LOG_A], NULL, x[ERASE], x[PROBE],
                         x[W0], NULL,   NULL,   NULL,    NULL,     NULL, NULL,     NULL};
  mn_linear_recurrence(b.g, &io, (mn_recurrence_attr){.write = f->write, .read_before = f->before, .chunk = chunk});
  b.y[0] = io.o, b.y[1] = io.w;
  CHECK_OK(mn_graph_status(b.g));
  return b;
}

/* o and w of x, in type t on the backend, as doubles */
static int run(const form *f, mn_dtype t, mn_backend *backend, double **x, double **out) {
  built b = build(f, t, 16);
  double *value[INPUTS];
  for (int i = 0; i < b.n; i++) value[i] = x[b.which[i]];
  int ok = gc_run(b.g, backend, 0, MN_KEEP, b.n, b.leaf, value, 2, b.y, out);
  CHECK(ok, "the recurrence does not run");
  mn_graph_free(b.g);
  return ok;
}

/* ---- the equations, token by token: W [K,V] of one head; o [B,T,H,V], w [B,H,K,V] ---- */
static void define(const form *f, double *const *x, double *o, double *w) {
  const int64_t K = f->K, V = f->V;
  for (int64_t b = 0; b < f->B; b++)
    for (int64_t h = 0; h < f->H; h++) {
      double *W = w + (b * f->H + h) * K * V;
      memcpy(W, x[W0] + (b * f->H + h) * K * V, sizeof(double) * (size_t)(K * V));
      for (int64_t t = 0; t < f->T; t++) {
        const int64_t at = (b * f->T + t) * f->H + h, shared = (b * f->T + t) * f->G + h / (f->H / f->G);
        const double *q = x[Q] + shared * K, *k = x[KEY] + shared * K, *v = x[VAL] + at * V;
        const double *e = x[ERASE] + shared * K, *p = x[PROBE] + shared * K;
        double beta = f->beta ? x[BETA][at] : 1, before[96 * 96];
        memcpy(before, W, sizeof(double) * (size_t)(K * V));
        for (int64_t j = 0; j < V; j++) {
          double erased = 0, u = v[j];
          for (int64_t i = 0; i < K; i++) {
            double a = f->decay == NO_DECAY ? 1 : exp(x[LOG_A][f->decay == BY_HEAD ? at : at * K + i]);
            if (f->write == MN_WRITE_ERASE) erased += p[i] * before[i * V + j];
            if (f->write == MN_WRITE_DELTA) u -= k[i] * a * before[i * V + j];
            W[i * V + j] *= a;
          }
          for (int64_t i = 0; i < K; i++) W[i * V + j] += beta * k[i] * u - (f->write == MN_WRITE_ERASE ? e[i] * erased : 0);
        }
        for (int64_t j = 0; j < V; j++) {
          o[at * V + j] = 0;
          for (int64_t i = 0; i < K; i++) o[at * V + j] += q[i] * (f->before ? before : W)[i * V + j];
        }
      }
    }
}

static const form small[] = {
    {MN_WRITE_VALUE, BY_CHANNEL, false, false, 2, 9, 2, 2, 3, 5, 0.5},  {MN_WRITE_VALUE, BY_HEAD, true, false, 1, 7, 4, 2, 3, 2, 0.5},
    {MN_WRITE_DELTA, BY_CHANNEL, true, false, 2, 9, 2, 1, 4, 3, 0.5},   {MN_WRITE_DELTA, NO_DECAY, true, true, 1, 7, 2, 2, 3, 4, 0.5},
    {MN_WRITE_ERASE, BY_CHANNEL, false, false, 2, 9, 2, 2, 4, 3, 0.5},  {MN_WRITE_ERASE, BY_CHANNEL, true, true, 1, 9, 2, 1, 3, 5, 0.5},
    {MN_WRITE_ERASE, BY_HEAD, true, false, 1, 8, 3, 3, 3, 3, 0.5},      {MN_WRITE_ERASE, NO_DECAY, false, false, 1, 8, 2, 2, 3, 3, 0.5},
    {MN_WRITE_ANCHOR, BY_CHANNEL, false, false, 1, 1, 1, 1, 1, 1, 0.5}, /* the end */
};

static void means_what_the_equation_says(void) {
  for (const form *f = small; f->write != MN_WRITE_ANCHOR; f++) {
    double *x[INPUTS], *got[2], *o = malloc(sizeof(double) * (size_t)count_of(f, VAL)),
                                *w = malloc(sizeof(double) * (size_t)count_of(f, W0));
    draw(f, x, 3);
    define(f, x, o, w);
    if (run(f, MN_F64, mn_backend_ref(), x, got)) {
      double e = gc_difference(o, got[0], count_of(f, VAL)), d = gc_difference(w, got[1], count_of(f, W0));
      CHECK(e < 1e-13 && d < 1e-13, "form %d: o %g, w %g", (int)(f - small), e, d);
    }
    free(o), free(w), free(got[0]), free(got[1]);
    drop(x);
  }
}

static const form *checked;
static void f_form(mn_graph *g, mn_tensor **x, mn_tensor **y) {
  mn_tensor *in[INPUTS] = {NULL};
  for (int i = 0, n = 0; i < INPUTS; i++)
    if (has(checked, i)) in[i] = x[n++];
  mn_recurrence_io io = {
      .q = in[Q], .k = in[KEY], .v = in[VAL], .beta = in[BETA], .log_a = in[LOG_A], .erase = in[ERASE], .probe = in[PROBE], .w0 = in[W0]};
  mn_linear_recurrence(g, &io, (mn_recurrence_attr){.write = checked->write, .read_before = checked->before, .chunk = 4});
  y[0] = io.o;
  y[1] = io.w;
}
static void gradients_agree_with_differences(void) {
  for (const form *f = small; f->write != MN_WRITE_ANCHOR; f++) {
    gc_case c = {.name = "recurrence", .n_y = 2, .f = f_form};
    checked = f;
    for (int i = 0; i < INPUTS; i++)
      if (has(f, i)) c.x[c.n_x++] = (gc_input){MN_F64, shape_of(f, i), i == LOG_A ? -1 : -0.6, i == LOG_A ? -0.05 : 0.7, false};
    double e = gc_gradient_error(&c, 1, 5);
    CHECK(e < 1e-8, "form %d: %g", (int)(f - small), e);
  }
}

/* tokens [from, to) of x [B,T,...] */
static double *cut_of(const form *f, int i, const double *x, int64_t from, int64_t to) {
  int64_t row = count_of(f, i) / (f->B * f->T), n = to - from;
  double *p = malloc(sizeof(double) * (size_t)(f->B * n * row + 1));
  for (int64_t b = 0; b < f->B; b++) memcpy(p + b * n * row, x + (b * f->T + from) * row, sizeof(double) * (size_t)(n * row));
  return p;
}
static void cut_at(const form *f, mn_dtype t, mn_backend *backend, double **x, double *const *whole, int64_t cut, double bound) {
  double *part[2][INPUTS], *got[2][2], worst = 0;
  int64_t row = f->H * f->V;
  for (int p = 0; p < 2; p++) {
    form s = *f;
    s.T = p ? f->T - cut : cut;
    for (int i = 0; i < INPUTS; i++) part[p][i] = i == W0 ? (p ? got[0][1] : x[W0]) : cut_of(f, i, x[i], p ? cut : 0, p ? f->T : cut);
    if (!run(&s, t, backend, part[p], got[p])) return;
    for (int64_t b = 0; b < f->B; b++)
      for (int64_t k = 0; k < s.T * row; k++)
        worst = fmax(worst, fabs(got[p][0][b * s.T * row + k] - whole[0][(b * f->T + (p ? cut : 0)) * row + k]));
  }
  double e = gc_difference(whole[1], got[1][1], count_of(f, W0));
  CHECK(worst < bound && e < bound, "rule %d, cut at %d of %d: o %g, w %g", f->write, (int)cut, (int)f->T, worst, e);
  for (int p = 0; p < 2; p++)
    for (int i = 0; i < INPUTS; i++)
      if (i != W0) free(part[p][i]);
  for (int p = 0; p < 4; p++) free(got[p / 2][p % 2]);
}
static void a_sequence_cut_anywhere_is_the_sequence(void) {
  for (const form *f = small; f->write != MN_WRITE_ANCHOR; f++) {
    double *x[INPUTS], *whole[2];
    draw(f, x, 4);
    if (run(f, MN_F64, mn_backend_ref(), x, whole))
      for (int64_t cut = 1; cut < f->T; cut++) cut_at(f, MN_F64, mn_backend_ref(), x, whole, cut, 1e-13);
    free(whole[0]), free(whole[1]);
    drop(x);
  }
}

/* e = beta k and f = a * k: the delta rule, with one decay (Gated DeltaNet), by channel (Kimi Delta Attention), without. */
static void erase_along_the_key_is_the_delta_rule(void) {
  for (int decay = NO_DECAY; decay <= BY_CHANNEL; decay++) {
    form d = {MN_WRITE_DELTA, decay, true, false, 2, 11, 2, 2, 5, 3, 0.7}, e = d;
    double *x[INPUTS], *want[2], *got[2];
    e.write = MN_WRITE_ERASE;
    draw(&d, x, 8);
    for (int64_t i = 0; i < count_of(&d, KEY); i++) {
      double a = decay == NO_DECAY ? 1 : exp(x[LOG_A][decay == BY_HEAD ? i / d.K : i]);
      x[ERASE][i] = x[BETA][i / d.K] * x[KEY][i];
      x[PROBE][i] = a * x[KEY][i];
    }
    if (run(&d, MN_F64, mn_backend_ref(), x, want) && run(&e, MN_F64, mn_backend_ref(), x, got)) {
      double o = gc_difference(want[0], got[0], count_of(&d, VAL)), w = gc_difference(want[1], got[1], count_of(&d, W0));
      CHECK(o < 1e-13 && w < 1e-13, "decay %d: o %g, w %g", decay, o, w);
      for (int i = 0; i < 2; i++) free(want[i]), free(got[i]);
    }
    drop(x);
  }
}

/* RWKV-7 as it is written: S [V,K], S_t = S_{t-1} (diag(w) - kappa^T (a * kappa)) + v^T k, y = S r. */
static void rwkv7_is_an_instance(void) {
  enum { T = 12, K = 4, V = 4 };
  form f = {MN_WRITE_ERASE, BY_CHANNEL, false, false, 1, T, 1, 1, K, V, 0.6};
  double *x[INPUTS], *got[2], S[V][K], o[T * V], rate[T * K];
  draw(&f, x, 21);
  for (int64_t t = 0; t < T; t++) { /* a unit kappa; the probe reads kappa, what is read is erased along a * kappa */
    double norm = 0;
    for (int i = 0; i < K; i++) norm += x[PROBE][t * K + i] * x[PROBE][t * K + i];
    for (int i = 0; i < K; i++) {
      x[PROBE][t * K + i] /= sqrt(norm);
      rate[t * K + i] = mn_random_uniform(6, 1, (uint64_t)(t * K + i));
      x[ERASE][t * K + i] = rate[t * K + i] * x[PROBE][t * K + i];
    }
  }
  for (int j = 0; j < V; j++)
    for (int i = 0; i < K; i++) S[j][i] = x[W0][i * V + j];
  for (int t = 0; t < T; t++) {
    const double *kappa = x[PROBE] + t * K;
    for (int j = 0; j < V; j++) {
      double next[K];
      for (int i = 0; i < K; i++) {
        next[i] = x[VAL][t * V + j] * x[KEY][t * K + i];
        for (int l = 0; l < K; l++) next[i] += S[j][l] * ((l == i) * exp(x[LOG_A][t * K + i]) - kappa[l] * rate[t * K + i] * kappa[i]);
      }
      memcpy(S[j], next, sizeof next);
      o[t * V + j] = 0;
      for (int i = 0; i < K; i++) o[t * V + j] += S[j][i] * x[Q][t * K + i];
    }
  }
  if (run(&f, MN_F64, mn_backend_ref(), x, got)) {
    double e = gc_difference(o, got[0], T * V);
    CHECK(e < 1e-13, "o %g", e);
    free(got[0]), free(got[1]);
  }
  drop(x);
}

/* ---- the CPU's kernels ---- every form at lengths around pieces, mild and steep decays, against the composition in f64 */
static int gradients(const form *f, mn_dtype t, mn_backend *backend, unsigned passes_off, double **x, double **out, int *n_out) {
  built b = build(f, t, 16);
  mn_tensor *y[2 + INPUTS] = {b.y[0], b.y[1]}, *d[2] = {NULL};
  double *value[INPUTS];
  for (int i = 0; i < b.n; i++) value[i] = x[b.which[i]];
  for (int i = 0; i < 2; i++) {
    int64_t n = mn_shape_count(&b.y[i]->shape);
    float *p = malloc(sizeof(float) * (size_t)n);
    double *q = malloc(sizeof(double) * (size_t)n);
    for (int64_t j = 0; j < n; j++) q[j] = p[j] = (float)(2 * mn_random_uniform(9, (uint64_t)i, (uint64_t)j) - 1);
    d[i] = mn_cast(b.g, mn_const(b.g, MN_F64, b.y[i]->shape, q), b.y[i]->dtype);
    free(p), free(q);
  }
  CHECK_OK(mn_grad(b.g, 2, b.y, d, b.n, b.leaf, y + 2));
  *n_out = 2 + b.n;
  int ok = gc_run(b.g, backend, passes_off, MN_KEEP, b.n, b.leaf, value, 2 + b.n, y, out);
  mn_graph_free(b.g);
  return ok;
}
static double kernel_error(const form *f, mn_dtype t, mn_isa isa, double bound) {
  double *x[INPUTS], *want[2 + INPUTS], *got[2 + INPUTS], worst = 0;
  mn_backend *cpu = NULL;
  int n = 0, m = 0;
  setenv("MNEME_CPU_ISA", mn_isa_name(isa), 1);
  CHECK_OK(mn_backend_cpu_new(1, &cpu));
  draw(f, x, 31);
  if (t == MN_BF16)
    for (int i = 0; i < W0; i++)
      for (int64_t j = 0; j < count_of(f, i); j++) x[i][j] = mn_bf16_to_float(mn_float_to_bf16((float)x[i][j]));
  if (gradients(f, MN_F64, mn_backend_ref(), 0, x, want, &n) && gradients(f, t, cpu, 0, x, got, &m)) {
    built b = build(f, MN_F64, 16);
    for (int i = 0; i < n; i++) {
      int64_t count = i == 0 ? count_of(f, VAL) : i == 1 ? count_of(f, W0) : count_of(f, b.which[i - 2]);
      double e = gc_difference(want[i], got[i], count);
      CHECK(e < bound, "%s %s: %g (rule %d, decay %d to %g, T %d, H %d of %d, K %d, V %d, before %d)", mn_isa_name(isa),
            i == 0   ? "o"
            : i == 1 ? "w"
                     : names[b.which[i - 2]],
            e, f->write, f->decay, f->steep, (int)f->T, (int)f->H, (int)f->G, (int)f->K, (int)f->V, f->before);
      worst = fmax(worst, e);
      free(want[i]), free(got[i]);
    }
    mn_graph_free(b.g);
  }
  mn_backend_free(cpu);
  drop(x);
  return worst;
}
static void kernels(const int64_t *lengths, int n_lengths, int64_t K, int64_t V, mn_dtype t, double bound) {
  static const struct {
    mn_write_rule write;
    int decay;
  } rules[] = {{MN_WRITE_VALUE, BY_CHANNEL},
               {MN_WRITE_DELTA, BY_CHANNEL},
               {MN_WRITE_ERASE, BY_CHANNEL},
               {MN_WRITE_ERASE, BY_HEAD},
               {MN_WRITE_ERASE, NO_DECAY}};
  double worst = 0;
  const char *named = getenv("MNEME_CPU_ISA");
  char keep[32];
  snprintf(keep, sizeof keep, "%s", named ? named : "");
  const mn_isa first = first_tested_isa(), last = last_tested_isa();
  for (mn_isa isa = first; isa <= last; isa++)
    for (int r = 0; r < 5; r++)
      for (int l = 0; l < n_lengths; l++)
        for (int bits = 0; bits < 4; bits++) {
          form f = {rules[r].write, rules[r].decay, l % 2 == 0, bits & 1, 2, lengths[l], 2, 1 + (l & 1), K, V, bits >> 1 ? 20 : 0.3};
          worst = fmax(worst, kernel_error(&f, t, isa, bound));
        }
  setenv("MNEME_CPU_ISA", keep, 1);
  printf("       worst error, K %d, V %d: %.2g\n", (int)K, (int)V, worst);
}
static void kernels_are_the_composition(void) {
  kernels((int64_t[]){1, 2, 4, 7, 33}, 5, 5, 3, MN_F32, 1e-5);
  kernels((int64_t[]){31, 32, 52, 101}, 4, 20, 12, MN_F32, 1e-5);
  kernels((int64_t[]){150}, 1, 64, 64, MN_F32, 1e-5);
}
static void wide_states(void) {
  const char *named = getenv("MNEME_CPU_ISA");
  char keep[32];
  snprintf(keep, sizeof keep, "%s", named ? named : "");
  const mn_isa first = first_tested_isa(), last = last_tested_isa();
  for (mn_isa isa = first; isa <= last; isa++)
    for (int rule = MN_WRITE_VALUE; rule <= MN_WRITE_ERASE; rule++) {
      if (rule == MN_WRITE_ANCHOR) continue; /* has no decay by channel */
      form f = {(mn_write_rule)rule, BY_CHANNEL, true, false, 1, 300, 1, 1, 256, 256, 0.3};
      kernel_error(&f, MN_F32, isa, 1e-5);
    }
  setenv("MNEME_CPU_ISA", keep, 1);
}
/* What is kept for the gradient: the states before tokens 0, E, 2E; with one sequence an earlier end is a prefix of every operand. */
static void kept_states_of(const form *f, mn_backend *cpu) {
  const int64_t state = f->K * f->V, every = mn_recurrence_every(f->K, f->V), n = (f->T + every - 1) / every;
  double *x[INPUTS], *value[INPUTS], *o = malloc(sizeof(double) * (size_t)count_of(f, VAL)),
                                     *w = malloc(sizeof(double) * (size_t)count_of(f, W0));
  draw(f, x, 5);
  for (int on_cpu = 0; on_cpu < 2; on_cpu++) {
    built b = build(f, on_cpu ? MN_F32 : MN_F64, 16);
    mn_tensor *kept = b.y[0]->node->out[2];
    double *got = NULL;
    for (int i = 0; i < b.n; i++) value[i] = x[b.which[i]];
    CHECK(kept->shape.ndim == 5 && kept->shape.dim[2] == n, "%d kept", (int)kept->shape.dim[2]);
    if (gc_run(b.g, on_cpu ? cpu : mn_backend_ref(), 0, MN_KEEP, b.n, b.leaf, value, 1, &kept, &got))
      for (int64_t i = 0; i < n; i++) {
        form until = *f;
        until.T = every * i;
        define(&until, x, o, w);
        for (int64_t h = 0; h < f->H; h++) {
          const double e = gc_difference(w + h * state, got + (h * n + i) * state, state);
          CHECK(e < (on_cpu ? 1e-5 : 1e-13), "rule %d, K %d, head %d, before token %d: %g", f->write, (int)f->K, (int)h, (int)until.T, e);
        }
      }
    free(got);
    mn_graph_free(b.g);
  }
  free(o), free(w);
  drop(x);
}
static void states_are_kept_as_they_were(void) {
  mn_backend *cpu = NULL;
  CHECK_OK(mn_backend_cpu_new(2, &cpu));
  CHECK(mn_recurrence_every(64, 64) == 32 && mn_recurrence_every(128, 128) == 64 && mn_recurrence_every(256, 256) == 128,
        "states take no more room than keys and values");
  for (int rule = MN_WRITE_VALUE; rule <= MN_WRITE_ERASE; rule++) {
    if (rule == MN_WRITE_ANCHOR) continue;
    kept_states_of(&(form){(mn_write_rule)rule, BY_CHANNEL, true, false, 1, 70, 2, 1, 5, 6, 0.3}, cpu);
    kept_states_of(&(form){(mn_write_rule)rule, BY_CHANNEL, true, false, 1, 140, 1, 1, 96, 80, 0.3}, cpu);
  }
  mn_backend_free(cpu);
}
static void kernels_take_bf16(void) { kernels((int64_t[]){1, 77}, 2, 24, 40, MN_BF16, 2e-2); }

/* A sequence's turns are taken by whichever thread is free: the bits must not tell. */
static void threads_do_not_change_bits(void) {
  for (int large = 0; large < 2; large++) /* states that are too many to be kept are made again */
    for (int rule = MN_WRITE_VALUE; rule <= MN_WRITE_ERASE; rule++) {
      if (rule == MN_WRITE_ANCHOR) continue; /* has no decay by channel */
      form f = {(mn_write_rule)rule, BY_CHANNEL, true, false, 1, large ? 300 : 500, 3, 3, large ? 256 : 24, large ? 256 : 16, 0.3};
      double *x[INPUTS], *got[3][2 + INPUTS];
      int n[3] = {0};
      draw(&f, x, 41);
      for (int threads = 1; threads <= 3; threads++) {
        mn_backend *cpu = NULL;
        CHECK_OK(mn_backend_cpu_new(threads, &cpu));
        if (!gradients(&f, MN_F32, cpu, 0, x, got[threads - 1], &n[threads - 1])) n[threads - 1] = 0;
        mn_backend_free(cpu);
      }
      built b = build(&f, MN_F32, 16);
      CHECK(n[0] == 2 + b.n && n[1] == n[0] && n[2] == n[0], "%d, %d and %d results", n[0], n[1], n[2]);
      for (int i = 0; i < n[0] && n[1] == n[0] && n[2] == n[0]; i++) {
        const int64_t count = i == 0 ? count_of(&f, VAL) : i == 1 ? count_of(&f, W0) : count_of(&f, b.which[i - 2]);
        for (int threads = 2; threads <= 3; threads++)
          CHECK(!memcmp(got[0][i], got[threads - 1][i], sizeof(double) * (size_t)count), "rule %d, result %d, %d threads", rule, i,
                threads);
      }
      for (int t = 0; t < 3; t++)
        for (int i = 0; i < n[t]; i++) free(got[t][i]);
      mn_graph_free(b.g);
      drop(x);
    }
}

static void what_does_not_fit_is_refused(void) {
  for (int wrong = 0; wrong < 4; wrong++) {
    mn_graph *g = mn_graph_new();
    mn_shape key = MN_SHAPE(2, 5, wrong == 0 ? 3 : 2, 4), gate = MN_SHAPE(2, 5, 4);
    mn_tensor *k = mn_input(g, "k", MN_F64, key), *v = mn_input(g, "v", MN_F64, MN_SHAPE(2, 5, 4, 3));
    mn_recurrence_io io = {.q = k, .k = k, .v = v, .w0 = mn_input(g, "w", MN_F64, MN_SHAPE(2, 4, 4, 3))};
    if (wrong == 1) io.log_a = mn_input(g, "a", MN_F64, MN_SHAPE(2, 5, 4, 3));
    if (wrong == 2) io.erase = k; /* and no probe */
    if (wrong == 3) io.erase = io.probe = k, io.log_eta = mn_input(g, "eta", MN_F64, gate), io.s0 = io.w0;
    mn_linear_recurrence(g, &io, (mn_recurrence_attr){.write = wrong >= 2 ? MN_WRITE_ERASE : MN_WRITE_VALUE, .chunk = 4});
    CHECK(mn_graph_status(g) == MN_ERR_SHAPE && io.o == NULL, "case %d is taken", wrong);
    CHECK(strstr(mn_message(), "linear_recurrence"), "the message is: %s", mn_message());
    mn_graph_free(g);
  }
}

int main(void) {
  RUN(means_what_the_equation_says);
  RUN(gradients_agree_with_differences);
  RUN(a_sequence_cut_anywhere_is_the_sequence);
  RUN(erase_along_the_key_is_the_delta_rule);
  RUN(rwkv7_is_an_instance);
  RUN(kernels_are_the_composition);
  RUN(wide_states);
  RUN(states_are_kept_as_they_were);
  RUN(threads_do_not_change_bits);
  RUN(kernels_take_bf16);
  RUN(what_does_not_fit_is_refused);
  return test_end();
}
