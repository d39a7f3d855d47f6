/* The CPU's attention kernels against the definition: a full matrix of scores in double, forward and backward, for each
 * instruction set that this machine runs. And the masked product against its three loops. */
#include "graph/fused_attention.h"
#include "graph/fused_masked_product.h"
#include "graph/ops.h"
#include "kernel_call.h"

typedef struct problem {
  int64_t B, T, S, H, G, K, V;
  mn_attention_attr attr;
  mn_dtype type;
  bool strided;
  int64_t bias_dim[4];                                   /* when attr.has_bias */
  bool hide;                                             /* some biases are -inf */
  int32_t q_pos[4], *each_q, *k_pos, length[4], *blocks; /* each_q [B,T]: instead of q_pos */
  int64_t blocks_dim[4];                                 /* when attr.has_blocks */
  float *q, *k, *v, *bias, *g_o, *g_lse;
} problem;

static uint64_t draws;
static float draw(void) { return (float)(mn_random_uniform(11, 1, draws++) * 2 - 1); }
static float *tensor(int64_t n, mn_dtype type, float scale) {
  float *x = malloc(sizeof(float) * (size_t)n);
  for (int64_t i = 0; i < n; i++) {
    float y = scale * draw();
    x[i] = type == MN_BF16 ? to_bf16(y) : y;
  }
  return x;
}
static int64_t bias_count(const problem *p) { return p->bias_dim[0] * p->bias_dim[1] * p->bias_dim[2] * p->bias_dim[3]; }
static void make(problem *p) {
  p->q = tensor(p->B * p->T * p->H * p->K, p->type, 2);
  p->k = tensor(p->B * p->S * p->G * p->K, p->type, 2);
  p->v = tensor(p->B * p->S * p->G * p->V, p->type, 1);
  p->g_o = tensor(p->B * p->T * p->H * p->V, p->type, 1);
  p->g_lse = tensor(p->B * p->H * p->T, MN_F32, 1);
  if (p->attr.has_bias) p->bias = tensor(bias_count(p), MN_F32, 1);
  for (int64_t i = 0; p->hide && i < bias_count(p); i += 3) p->bias[i] = -INFINITY;
  if (p->attr.scale == 0) p->attr.scale = 1 / sqrt((double)p->K);
}
static void done(problem *p) {
  free(p->q), free(p->k), free(p->v), free(p->g_o), free(p->g_lse), free(p->bias), free(p->k_pos), free(p->each_q);
  free(p->blocks);
}

/* ---- the definition ---- */
typedef struct answer {
  double *o, *lse, *dq, *dk, *dv, *dbias;
} answer;
static void answer_free(answer *r) { free(r->o), free(r->lse), free(r->dq), free(r->dk), free(r->dv), free(r->dbias); }

/* Token after token is written into a ring: who is in the slot at last. */
static int64_t in_ring(const problem *p, int64_t slot, int64_t written) {
  const int64_t sinks = p->attr.sinks, R = p->S - p->attr.prefix - sinks;
  int64_t token = -1;
  for (int64_t x = 0; x < written; x++)
    if ((x < sinks ? x : sinks + (x - sinks) % R) == slot) token = x;
  return token;
}
static bool in_lists(const problem *p, int64_t b, int64_t h, int64_t t, int64_t j) {
  const int64_t *d = p->blocks_dim, row = (((d[0] == 1 ? 0 : b) * d[1] + (d[1] == 1 ? 0 : h)) * d[2] + t / p->attr.block_q) * d[3];
  for (int64_t i = 0; i < d[3]; i++)
    if (p->blocks[row + i] == j / p->attr.block_k) return true;
  return false;
}
static bool visible(const problem *p, int64_t b, int64_t h, int64_t t, int64_t j) {
  const mn_attention_attr *a = &p->attr;
  if (j < a->prefix) return true;
  if (a->has_blocks && !in_lists(p, b, h, t, j - a->prefix)) return false;
  int64_t k = a->has_k_pos ? p->k_pos[b * p->S + j] : j - a->prefix, q = (a->has_q_pos ? p->q_pos[b] : a->q_start) + t;
  if (p->each_q) q = p->each_q[b * p->T + t];
  if (a->has_length && j - a->prefix >= p->length[b]) return false;
  if (a->ring) k = in_ring(p, j - a->prefix, p->length[b]);
  if (k < 0 || (a->causal && k > q)) return false;
  return a->window <= 0 || k > q - a->window || k < a->sinks;
}
static int64_t bias_at(const problem *p, int64_t b, int64_t h, int64_t t, int64_t j) {
  const int64_t *d = p->bias_dim, i[4] = {b, h, t, j};
  int64_t x = 0;
  for (int a = 0; a < 4; a++) x = x * d[a] + (d[a] == 1 ? 0 : i[a]);
  return x;
}
static answer define(const problem *p, const double *q, const double *k, const double *v, const double *bias) {
  const int64_t B = p->B, T = p->T, S = p->S, H = p->H, G = p->G, K = p->K, V = p->V;
  answer r = {calloc((size_t)(B * T * H * V), 8), calloc((size_t)(B * H * T), 8),
              calloc((size_t)(B * T * H * K), 8), calloc((size_t)(B * S * G * K), 8),
              calloc((size_t)(B * S * G * V), 8), calloc((size_t)(p->attr.has_bias ? bias_count(p) : 1), 8)};
  double *s = malloc(sizeof(double) * (size_t)S), *slope = malloc(sizeof(double) * (size_t)S);
  for (int64_t b = 0; b < B; b++)
    for (int64_t h = 0; h < H; h++)
      for (int64_t t = 0; t < T; t++) {
        const int64_t g = h / (H / G), row = (b * T + t) * H + h, line = (b * H + h) * T + t;
        double m = -INFINITY, l = 0;
        const double cap = p->attr.softcap;
        for (int64_t j = 0; j < S; j++) {
          slope[j] = 1;
          s[j] = -INFINITY;
          if (!visible(p, b, h, t, j)) continue;
          s[j] = 0;
          for (int64_t x = 0; x < K; x++) s[j] += q[row * K + x] * k[((b * S + j) * G + g) * K + x];
          s[j] *= p->attr.scale;
          if (cap > 0) {
            const double y = tanh(s[j] / cap);
            s[j] = cap * y, slope[j] = 1 - y * y;
          }
          if (p->attr.has_bias) s[j] += bias[bias_at(p, b, h, t, j)];
          m = fmax(m, s[j]);
        }
        for (int64_t j = 0; j < S; j++) l += s[j] > -INFINITY ? exp(s[j] - m) : 0;
        r.lse[line] = l > 0 ? m + log(l) : -INFINITY;
        double delta = -p->g_lse[line];
        for (int64_t j = 0; j < S; j++) {
          s[j] = s[j] > -INFINITY ? exp(s[j] - m) / l : 0;
          for (int64_t x = 0; x < V; x++) r.o[row * V + x] += s[j] * v[((b * S + j) * G + g) * V + x];
        }
        for (int64_t x = 0; x < V; x++) delta += r.o[row * V + x] * p->g_o[row * V + x];
        for (int64_t j = 0; j < S; j++) {
          double d = 0;
          const int64_t kr = (b * S + j) * G + g;
          for (int64_t x = 0; x < V; x++) {
            d += v[kr * V + x] * p->g_o[row * V + x];
            r.dv[kr * V + x] += s[j] * p->g_o[row * V + x];
          }
          d = s[j] * (d - delta);
          if (p->attr.has_bias) r.dbias[bias_at(p, b, h, t, j)] += d;
          d *= slope[j];
          for (int64_t x = 0; x < K; x++) {
            r.dq[row * K + x] += p->attr.scale * d * k[kr * K + x];
            r.dk[kr * K + x] += p->attr.scale * d * q[row * K + x];
          }
        }
      }
  free(s), free(slope);
  return r;
}
static double *widen(const float *x, int64_t n) {
  double *y = malloc(sizeof(double) * (size_t)(n ? n : 1));
  for (int64_t i = 0; i < n; i++) y[i] = x[i];
  return y;
}
static answer define_problem(const problem *p) {
  double *q = widen(p->q, p->B * p->T * p->H * p->K), *k = widen(p->k, p->B * p->S * p->G * p->K);
  double *v = widen(p->v, p->B * p->S * p->G * p->V), *bias = p->attr.has_bias ? widen(p->bias, bias_count(p)) : NULL;
  answer r = define(p, q, k, v, bias);
  free(q), free(k), free(v), free(bias);
  return r;
}

/* ---- calling ---- */
typedef struct result {
  float *o, *lse, *dq, *dk, *dv, *dbias;
} result;
static void result_free(result *r) { free(r->o), free(r->lse), free(r->dq), free(r->dk), free(r->dv), free(r->dbias); }

static result compute(const problem *p, mn_isa isa, mn_pool *pool) {
  const int64_t qd[4] = {p->B, p->T, p->H, p->K}, kd[4] = {p->B, p->S, p->G, p->K}, vd[4] = {p->B, p->S, p->G, p->V};
  const int64_t od[4] = {p->B, p->T, p->H, p->V}, ld[3] = {p->B, p->H, p->T}, pd[2] = {p->B, p->S};
  const int spread = p->strided ? 3 : 1;
  mn_attention_attr attr = p->attr;
  held in[12], out[4];
  int n = 0;
  in[n++] = hold_filled(p->type, 4, qd, spread, p->q);
  in[n++] = hold_filled(p->type, 4, kd, spread, p->k);
  in[n++] = hold_filled(p->type, 4, vd, spread, p->v);
  const int64_t td[2] = {p->B, p->T};
  if (attr.has_q_pos) {
    in[n] = hold(MN_I32, p->each_q ? 2 : 1, td, 1);
    memcpy(in[n++].memory, p->each_q ? p->each_q : p->q_pos, sizeof(int32_t) * (size_t)(p->B * (p->each_q ? p->T : 1)));
  }
  if (attr.has_k_pos) {
    in[n] = hold(MN_I32, 2, pd, 1);
    memcpy(in[n++].memory, p->k_pos, sizeof(int32_t) * (size_t)(p->B * p->S));
  }
  if (attr.has_length) {
    in[n] = hold(MN_I32, 1, &p->B, 1);
    memcpy(in[n++].memory, p->length, sizeof(int32_t) * (size_t)p->B);
  }
  if (attr.has_blocks) {
    in[n] = hold(MN_I32, 4, p->blocks_dim, 1);
    memcpy(in[n++].memory, p->blocks,
           sizeof(int32_t) * (size_t)(p->blocks_dim[0] * p->blocks_dim[1] * p->blocks_dim[2] * p->blocks_dim[3]));
  }
  if (attr.has_bias) in[n++] = hold_filled(MN_F32, 4, p->bias_dim, 1, p->bias);
  out[0] = hold(p->type, 4, od, 1);
  out[1] = hold(MN_F32, 3, ld, 1);
  call_kernel(mn_cpu_attention_kernels, &mn_op_attention, &attr, isa, pool, in, n, out, 2);
  result r = {.o = read_out(&out[0]), .lse = read_out(&out[1])};
  in[n++] = out[0], in[n++] = out[1];
  in[n++] = hold_filled(p->type, 4, od, spread, p->g_o);
  in[n++] = hold_filled(MN_F32, 3, ld, 1, p->g_lse);
  out[0] = hold(p->type, 4, qd, 1);
  out[1] = hold(p->type, 4, kd, 1);
  out[2] = hold(p->type, 4, vd, 1);
  if (attr.has_bias) out[3] = hold(MN_F32, 4, p->bias_dim, 1);
  call_kernel(mn_cpu_attention_kernels, &mn_op_attention_grad, &attr, isa, pool, in, n, out, attr.has_bias ? 4 : 3);
  r.dq = read_out(&out[0]), r.dk = read_out(&out[1]), r.dv = read_out(&out[2]);
  if (attr.has_bias) r.dbias = read_out(&out[3]), free(out[3].memory);
  for (int i = 0; i < 3; i++) free(out[i].memory);
  for (int i = 0; i < n; i++) free(in[i].memory);
  return r;
}

static double worst;
static void check_one(const char *what, const problem *p, mn_isa isa, const float *got, const double *want, int64_t n, double tolerance) {
  double d = relative_difference(got, want, n);
  if (!(d <= worst)) worst = d;
  CHECK(d <= tolerance, "%s %s: %g (T %d S %d H %d/%d K %d V %d causal %d window %d prefix %d sinks %d pos %d bias %d)", mn_isa_name(isa),
        what, d, (int)p->T, (int)p->S, (int)p->H, (int)p->G, (int)p->K, (int)p->V, p->attr.causal, (int)p->attr.window, (int)p->attr.prefix,
        (int)p->attr.sinks, p->attr.has_k_pos, p->attr.has_bias);
}
static void check(problem *p, double tolerance) {
  make(p);
  answer want = define_problem(p);
  for (mn_isa isa = first_isa(); isa <= last_isa(); isa++) {
    result r = compute(p, isa, NULL);
    check_one("o", p, isa, r.o, want.o, p->B * p->T * p->H * p->V, tolerance);
    bool same = true;
    for (int64_t i = 0; i < p->B * p->H * p->T; i++)
      same &= want.lse[i] == -INFINITY ? r.lse[i] == -INFINITY : fabs(r.lse[i] - want.lse[i]) < 1e-5 * (1 + fabs(want.lse[i]));
    CHECK(same, "%s lse", mn_isa_name(isa));
    check_one("dq", p, isa, r.dq, want.dq, p->B * p->T * p->H * p->K, tolerance);
    check_one("dk", p, isa, r.dk, want.dk, p->B * p->S * p->G * p->K, tolerance);
    check_one("dv", p, isa, r.dv, want.dv, p->B * p->S * p->G * p->V, tolerance);
    if (p->attr.has_bias) check_one("dbias", p, isa, r.dbias, want.dbias, bias_count(p), tolerance);
    result_free(&r);
  }
  answer_free(&want);
  done(p);
}

/* ---- the tests ---- */
static void definition_gradient(void) {
  problem p = {.B = 1,
               .T = 3,
               .S = 5,
               .H = 2,
               .G = 1,
               .K = 2,
               .V = 3,
               .type = MN_F32,
               .bias_dim = {1, 2, 1, 5},
               .attr = {.causal = true, .has_bias = true, .prefix = 1, .q_start = 1}};
  make(&p);
  double *x[4] = {widen(p.q, 12), widen(p.k, 10), widen(p.v, 15), widen(p.bias, 10)};
  const int64_t n[4] = {12, 10, 15, 10};
  answer r = define(&p, x[0], x[1], x[2], x[3]);
  const double *g[4] = {r.dq, r.dk, r.dv, r.dbias};
  for (int i = 0; i < 4; i++)
    for (int64_t j = 0; j < n[i]; j++) {
      double sum[2] = {0, 0}, y = x[i][j];
      for (int side = 0; side < 2; side++) {
        x[i][j] = y + (side ? 1e-5 : -1e-5);
        answer s = define(&p, x[0], x[1], x[2], x[3]);
        for (int64_t e = 0; e < 18; e++) sum[side] += s.o[e] * p.g_o[e];
        for (int64_t e = 0; e < 6; e++) sum[side] += s.lse[e] * p.g_lse[e];
        answer_free(&s);
      }
      x[i][j] = y;
      CHECK(fabs((sum[1] - sum[0]) / 2e-5 - g[i][j]) < 1e-7, "input %d[%d]: %g, quotient %g", i, (int)j, g[i][j], (sum[1] - sum[0]) / 2e-5);
    }
  answer_free(&r);
  for (int i = 0; i < 4; i++) free(x[i]);
  done(&p);
}

static void masks(mn_dtype type, double tolerance) {
  const mn_attention_attr kinds[] = {
      {.causal = false},
      {.causal = true},
      {.causal = true, .window = 20},
      {.causal = true, .window = 70, .sinks = 3},
      {.causal = true, .prefix = 5},
      {.causal = true, .prefix = 70, .window = 9},
      {.window = 30},
      {.causal = true, .scale = -0.4},
      {.causal = true, .softcap = 1.5},
      {.causal = true, .softcap = 3, .window = 20, .scale = -0.4},
  };
  const int64_t shapes[][7] = {/* T, S - prefix, H, G, K, V, q_start */
                               {150, 150, 2, 2, 16, 16, 0},
                               {65, 200, 4, 2, 24, 20, 135},
                               {3, 77, 4, 1, 20, 12, 74},
                               {1, 90, 6, 2, 36, 20, 89},
                               {130, 40, 1, 1, 5, 7, 0}};
  for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++)
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
      const int64_t *d = shapes[s];
      problem p = {.B = 2,
                   .T = d[0],
                   .S = d[1] + kinds[k].prefix,
                   .H = d[2],
                   .G = d[3],
                   .K = d[4],
                   .V = d[5],
                   .type = type,
                   .strided = s & 1,
                   .attr = kinds[k]};
      p.attr.q_start = d[6];
      check(&p, tolerance);
    }
}
static void masks_f32(void) {
  worst = 0;
  masks(MN_F32, 1e-5);
  printf("       worst error, f32: %.2g\n", worst);
}
static void masks_bf16(void) {
  worst = 0;
  masks(MN_BF16, 2e-2);
  printf("       worst error, bf16: %.2g\n", worst);
}

/* A ring cache: keys at positions in any order, some slots empty. */
static void ring_cache(void) {
  for (int c = 0; c < 6; c++) {
    const int64_t T = c % 3 == 0 ? 1 : c % 3 == 1 ? 4 : 100, S = c < 3 ? 150 : 1300;
    problem p = {
        .B = 2,
        .T = T,
        .S = S,
        .H = 4,
        .G = 2,
        .K = 16,
        .V = 16,
        .type = c == 5 ? MN_BF16 : MN_F32,
        .attr = {.causal = true, .has_q_pos = true, .has_k_pos = true, .window = c & 1 ? 40 : 0, .sinks = 2, .prefix = c == 2 ? 3 : 0}};
    p.k_pos = malloc(sizeof(int32_t) * (size_t)(2 * S));
    for (int64_t j = 0; j < S; j++) {
      p.k_pos[j] = (int32_t)((j + 31) % S);             /* a full ring, turned */
      p.k_pos[S + j] = j < 50 ? (int32_t)(49 - j) : -1; /* the other has 50 keys, backwards */
    }
    p.q_pos[0] = (int32_t)(S - T), p.q_pos[1] = 10;
    check(&p, p.type == MN_BF16 ? 2e-2 : 1e-5);
  }
}
static void nothing_to_see(void) {
  problem p = {.B = 1, .T = 70, .S = 80, .H = 1, .G = 1, .K = 16, .V = 16, .attr = {.causal = true}};
  p.attr.has_q_pos = p.attr.has_k_pos = true;
  p.k_pos = malloc(sizeof(int32_t) * 80);
  for (int j = 0; j < 80; j++) p.k_pos[j] = j < 40 ? -1 : 30 + j;
  p.q_pos[0] = 10; /* queries 10 .. 79: those before 70 see no key */
  check(&p, 1e-5);
  problem one = {.B = 1, .T = 1, .S = 8, .H = 2, .G = 1, .K = 4, .V = 4, .attr = p.attr};
  one.k_pos = malloc(sizeof(int32_t) * 8);
  for (int j = 0; j < 8; j++) one.k_pos[j] = -1;
  check(&one, 1e-5);
}
/* Scores of any size that f32 holds give what the definition gives: the largest of a row has all the weight, equal ones the same, near ones (small
 * differences beside a large number) their shares. Where rows are many, keys times queries are exact. Gradients of queries and keys are nothing
 * times what is huge: numbers, whose size is rounding. */
static bool all_finite(const float *x, int64_t n) {
  for (int64_t i = 0; i < n; i++)
    if (!isfinite(x[i])) return false;
  return true;
}
static void scores_that_are_huge(void) {
  static const float sizes[] = {0x1p14f, 0x1p24f, 0x1p33f, 0x1p60f, 0x1p90f, 1, 1};
  enum { T = 150, K = 8, V = 8, TWIN = 140 };
  for (int i = 0; i < 8 * 7; i++) {
    const bool one = i & 1, below = i & 2, causal = i & 4, near = sizes[i / 8] == 1, bf16 = i / 8 == 2 || i / 8 == 6;
    problem p = {.B = 1, .T = one ? 1 : T, .S = T, .H = 2, .G = 1, .K = K, .V = V, .attr = {.causal = causal, .scale = 0.3}};
    if (one && near) continue; /* a single query gets its scale before the product: it is not exact */
    p.type = bf16 ? MN_BF16 : MN_F32, p.attr.q_start = one ? T - 1 : 0;
    make(&p);
    for (int64_t k = 0; k < p.T * p.H * K; k++) {
      p.q[k] = near && k % K == 0 ? 256 : (one ? p.q[k] : rintf(4 * p.q[k]) / 4) * sizes[i / 8];
      if (below) p.q[k] = fabsf(p.q[k]);
    }
    for (int64_t k = 0; k < (int64_t)T * K; k++) {
      p.k[k] = near && k % K == 0 ? 256 : one ? p.k[k] : rintf(4 * p.k[k]) / 4;
      if (below) p.k[k] = -fabsf(p.k[k]);
    }
    memcpy(p.k + TWIN * K, p.k + 5 * K, sizeof(float) * K); /* equal keys in different blocks */
    answer want = define_problem(&p);
    for (mn_isa isa = first_isa(); isa <= last_isa(); isa++) {
      result r = compute(&p, isa, NULL);
      check_one("o", &p, isa, r.o, want.o, p.T * p.H * V, bf16 ? 1e-2 : near ? 2e-3 : 2e-5); /* near: without an FMA products are rounded */
      check_one("dv", &p, isa, r.dv, want.dv, (int64_t)T * V, bf16 ? 1e-2 : 2e-5);
      for (int64_t k = 0; k < p.H * p.T; k++)
        CHECK(fabs(r.lse[k] - want.lse[k]) <= 1e-6 * fabs(want.lse[k]), "%s: lse %g for %g", mn_isa_name(isa), (double)r.lse[k],
              want.lse[k]);
      CHECK(all_finite(r.dq, p.T * p.H * K) && all_finite(r.dk, T * K), "%s, scores of %g", mn_isa_name(isa), (double)sizes[i / 8]);
      result_free(&r);
    }
    answer_free(&want);
    done(&p);
  }
}

/* Encoders and cross-attention: rows of different lengths, among them none and more than there is room for. */
static void lengths(void) {
  for (int c = 0; c < 12; c++) {
    problem p = {.B = 3,
                 .T = c % 3 == 0   ? 1
                      : c % 3 == 1 ? 70
                                   : 130,
                 .S = c % 3 == 2 ? 40 : 150,
                 .H = 4,
                 .G = 2,
                 .K = 16,
                 .V = 20,
                 .type = c >= 9 ? MN_BF16 : MN_F32,
                 .length = {0, c % 3 == 2 ? 23 : 100, 1000},
                 .bias_dim = {1, 4, 1, c % 3 == 2 ? 40 : 150},
                 .attr = {.causal = c / 3 == 1, .has_length = true, .prefix = c == 5 ? 3 : 0, .has_bias = c / 3 == 2}};
    check(&p, p.type == MN_BF16 ? 2e-2 : 1e-5);
  }
}
/* Tokens written into a ring and read before and after it has turned, by queries one after the other and by any. */
static void rings(void) {
  for (int c = 0; c < 24; c++) {
    const int64_t T = c % 3 == 0 ? 1 : c % 3 == 1 ? 5 : 80, size = c / 3 % 2 ? 300 : 70;
    const int64_t prefix = c / 6 % 2 ? 3 : 0, sinks = c / 12 ? 67 : 2;
    problem p = {.B = 4,
                 .T = T,
                 .S = size + prefix + sinks,
                 .H = 2,
                 .G = 1,
                 .K = 16,
                 .V = 16,
                 .type = c == 23 ? MN_BF16 : MN_F32,
                 .length = {0, 65, 200, 1000},
                 .attr = {.causal = c % 5 != 4,
                          .ring = true,
                          .has_length = true,
                          .has_q_pos = true,
                          .softcap = c % 7 == 2 ? 1.5 : 0,
                          .window = c % 2 ? size - 20 : 0,
                          .sinks = sinks,
                          .prefix = prefix}};
    for (int b = 0; b < 4; b++) p.q_pos[b] = p.length[b];
    if (c % 4 == 3) { /* any order: before, among and after what is there */
      p.each_q = malloc(sizeof(int32_t) * (size_t)(4 * T));
      for (int64_t i = 0; i < 4 * T; i++) p.each_q[i] = (int32_t)(i * 37 % 1100);
    }
    check(&p, p.type == MN_BF16 ? 2e-2 : 1e-5);
  }
}
/* Lists of blocks: of one row and head or of all, of any size, with doubles and numbers of no block, some empty. */
static void make_lists(problem *p, int64_t B, int64_t H, int64_t n) {
  const int64_t rows = (p->T + p->attr.block_q - 1) / p->attr.block_q,
                cols = (p->S - p->attr.prefix + p->attr.block_k - 1) / p->attr.block_k;
  memcpy(p->blocks_dim, (int64_t[]){B, H, rows, n}, sizeof p->blocks_dim);
  p->attr.has_blocks = true;
  p->blocks = malloc(sizeof(int32_t) * (size_t)(B * H * rows * n));
  for (int64_t i = 0; i < B * H * rows * n; i++)
    p->blocks[i] = i / n % 5 == 3 ? -1 : (int32_t)floorf((draw() + 1) * 0.6f * (float)cols) - 1;
}
static void patterns(void) {
  static const int64_t sizes[][2] = {{64, 64}, {128, 64}, {16, 16}, {1, 8}, {7, 5}, {40, 100}, {3, 1}, {64, 32}};
  for (int c = 0; c < 16; c++) {
    problem p = {.B = 2,
                 .T = c % 5 == 4 ? 1 : 150,
                 .S = 203,
                 .H = 4,
                 .G = 2,
                 .K = 16,
                 .V = 20,
                 .type = c == 8 ? MN_BF16 : MN_F32,
                 .length = {150, 90},
                 .bias_dim = {1, 4, 1, 203},
                 .attr = {.causal = c % 3 == 1,
                          .q_start = 50,
                          .prefix = c % 4 == 1 ? 3 : 0,
                          .has_length = c % 7 == 2,
                          .has_bias = c % 6 == 5,
                          .block_q = sizes[c % 8][0],
                          .block_k = sizes[c % 8][1]}};
    make_lists(&p, c & 1 ? 2 : 1, c & 2 ? 4 : 1, 6);
    check(&p, p.type == MN_BF16 ? 2e-2 : 1e-5);
  }
}
static void biases(void) {
  const int64_t dims[][4] = {{2, 4, 90, 100}, {1, 4, 90, 100}, {2, 1, 90, 100}, {1, 1, 90, 100},
                             {1, 4, 1, 100},  {2, 4, 90, 1},   {1, 1, 1, 1}};
  for (size_t i = 0; i < sizeof dims / sizeof *dims; i++)
    for (int one = 0; one < 2; one++) {
      problem p = {.B = 2,
                   .T = one ? 1 : 90,
                   .S = 100,
                   .H = 4,
                   .G = 2,
                   .K = 16,
                   .V = 16,
                   .type = MN_F32,
                   .attr = {.causal = true, .q_start = 10, .has_bias = true}};
      for (int d = 0; d < 4; d++) p.bias_dim[d] = d == 2 && one ? 1 : dims[i][d];
      p.hide = i == 0;
      check(&p, 1e-5);
    }
}
static void same_bits_for_any_threads(void) {
  mn_pool *one = mn_pool_new(1), *two = mn_pool_new(2);
  for (int c = 0; c < 6; c++) {
    problem p = {.B = c & 1 ? 3 : 1,
                 .T = c < 2 ? 1 : 300,
                 .S = c < 2 ? 2000 : 300,
                 .H = 6,
                 .G = c & 1 ? 3 : 1,
                 .K = 32,
                 .V = 32,
                 .type = c == 5 ? MN_BF16 : MN_F32,
                 .attr = {.causal = true, .q_start = c < 2 ? 1999 : 0}};
    make(&p);
    result a = compute(&p, last_isa(), one), b = compute(&p, last_isa(), two);
    CHECK(!memcmp(a.o, b.o, 4 * (size_t)(p.B * p.T * p.H * p.V)), "o, case %d", c);
    CHECK(!memcmp(a.dq, b.dq, 4 * (size_t)(p.B * p.T * p.H * p.K)), "dq, case %d", c);
    CHECK(!memcmp(a.dk, b.dk, 4 * (size_t)(p.B * p.S * p.G * p.K)), "dk, case %d", c);
    CHECK(!memcmp(a.dv, b.dv, 4 * (size_t)(p.B * p.S * p.G * p.V)), "dv, case %d", c);
    result_free(&a), result_free(&b);
    done(&p);
  }
  mn_pool_free(one), mn_pool_free(two);
}

/* What the graph says the operation and its gradient are. */
static void kernel_equals_composition(void) {
  for (int c = 0; c < 11; c++) {
    problem p = {.B = 2,
                 .T = c == 4 || c == 8 ? 1 : 9,
                 .S = 14,
                 .H = 4,
                 .G = 2,
                 .K = 6,
                 .V = 5,
                 .type = MN_F32,
                 .bias_dim = {1, 4, c == 4 || c == 8 ? 1 : 9, 14},
                 .length = {c == 6 ? 9 : 40, 7},
                 .q_pos = {4, 9},
                 .attr = {.causal = c != 3 && c != 6,
                          .window = c == 1   ? 4
                                    : c == 7 ? 6
                                             : 0,
                          .prefix = c == 2 || c == 7 || c >= 9 ? 3 : 0,
                          .sinks = c == 1 || c >= 7 ? 2 : 0,
                          .q_start = 5,
                          .ring = c == 7 || c == 8,
                          .block_q = c == 9 ? 4 : 2,
                          .block_k = c == 9 ? 3 : 5,
                          .has_q_pos = c >= 4,
                          .has_k_pos = c == 4 || c == 5,
                          .has_length = c >= 6,
                          .has_bias = c >= 3}};
    if (c >= 6) {
      p.each_q = malloc(sizeof(int32_t) * (size_t)(2 * p.T));
      for (int j = 0; j < 2 * p.T; j++) p.each_q[j] = (7 * j + 3) % 41;
    }
    if (p.attr.has_k_pos) {
      p.k_pos = malloc(sizeof(int32_t) * 28);
      for (int j = 0; j < 28; j++) p.k_pos[j] = j % 5 == 3 ? -1 : (j * 3) % 14;
    }
    if (c >= 9) make_lists(&p, c == 9 ? 2 : 1, c == 9 ? 4 : 1, 2);
    make(&p);
    mn_graph *g = mn_graph_new();
    mn_tensor *q = mn_input(g, "q", MN_F32, MN_SHAPE(p.B, p.T, p.H, p.K));
    mn_tensor *k = mn_input(g, "k", MN_F32, MN_SHAPE(p.B, p.S, p.G, p.K)), *v = mn_input(g, "v", MN_F32, MN_SHAPE(p.B, p.S, p.G, p.V));
    mn_tensor *all[12] = {q, k, v}, *xs[4] = {q, k, v}, *out[8], *dys[2];
    mn_attention_io io = {.q = q, .k = k, .v = v};
    void *data[12] = {p.q, p.k, p.v};
    int n = 3, n_x = 3;
    if (p.attr.has_q_pos) {
      all[n] = io.q_pos = mn_input(g, "q_pos", MN_I32, p.each_q ? MN_SHAPE(p.B, p.T) : MN_SHAPE(p.B));
      data[n++] = p.each_q ? p.each_q : p.q_pos;
    }
    if (p.attr.has_k_pos) all[n] = io.k_pos = mn_input(g, "k_pos", MN_I32, MN_SHAPE(p.B, p.S)), data[n++] = p.k_pos;
    if (p.attr.has_length) all[n] = io.length = mn_input(g, "length", MN_I32, MN_SHAPE(p.B)), data[n++] = p.length;
    if (p.attr.has_blocks) all[n] = io.blocks = mn_input(g, "blocks", MN_I32, mn_shape_of(4, p.blocks_dim)), data[n++] = p.blocks;
    if (p.attr.has_bias) all[n] = xs[n_x++] = io.bias = mn_input(g, "bias", MN_F32, mn_shape_of(4, p.bias_dim)), data[n++] = p.bias;
    mn_attend(g, &io, p.attr);
    out[0] = io.o;
    out[1] = io.lse;
    dys[0] = mn_input(g, "do", MN_F32, out[0]->shape), dys[1] = mn_input(g, "dlse", MN_F32, io.lse->shape);
    all[n] = dys[0], data[n++] = p.g_o;
    all[n] = dys[1], data[n++] = p.g_lse;
    CHECK_OK(mn_grad(g, 2, out, dys, n_x, xs, out + 2));
    char what[32];
    snprintf(what, sizeof what, "case %d", c);
    compare_backends(g, 2 + n_x, out, n, all, data, 1e-5, what);
    mn_graph_free(g);
    done(&p);
  }
}

/* ---- ((x y^T) * p) z ---- */
typedef enum mask { ALL, LOWER, UPPER, BANDED, NOTHING, MASKS } mask;
static bool shown(mask m, int64_t i, int64_t j) {
  return m == ALL || (m == LOWER && j <= i) || (m == UPPER && j >= i) || (m == BANDED && j > i - 9 && j < i + 3);
}
static void masked_product(void) {
  const int64_t shapes[][4] = {{16, 16, 64, 64}, {64, 64, 32, 16}, {1, 5, 3, 2}, {130, 70, 20, 33}, {100, 150, 17, 5}, {70, 150, 32, 16}};
  for (size_t c = 0; c < MASKS * sizeof shapes / sizeof *shapes; c++)
    for (int bf16 = 0; bf16 < 2; bf16++)
      for (mn_isa isa = first_isa(); isa <= last_isa(); isa++) {
        const mask what = (mask)(c % MASKS);
        const int64_t M = shapes[c / MASKS][0], N = shapes[c / MASKS][1], K = shapes[c / MASKS][2], V = shapes[c / MASKS][3], B = 3;
        const mn_dtype type = bf16 ? MN_BF16 : MN_F32;
        const int64_t d[5][4] = {{1, B, M, K}, {1, B, N, K}, {1, B, M, N}, {1, B, N, V}, {1, B, M, V}};
        float *x[4];
        held in[4], out = hold(type, 4, d[4], 1);
        for (int i = 0; i < 4; i++) {
          mn_dtype t = i == 2 ? MN_F32 : type;
          x[i] = tensor(B * d[i][2] * d[i][3], t, 1);
          for (int64_t e = 0; i == 2 && e < B * M * N; e++)
            if (!shown(what, e / N % M, e % N)) x[i][e] = 0;
          in[i] = hold_filled(t, 4, d[i], 2, x[i]);
        }
        call_kernel(mn_cpu_attention_kernels, &mn_op_masked_product, NULL, isa, NULL, in, 4, &out, 1);
        float *got = read_out(&out);
        double *want = calloc((size_t)(B * M * V), sizeof(double));
        for (int64_t b = 0; b < B; b++)
          for (int64_t i = 0; i < M; i++)
            for (int64_t j = 0; j < N; j++) {
              double s = 0;
              for (int64_t k = 0; k < K; k++) s += (double)x[0][(b * M + i) * K + k] * x[1][(b * N + j) * K + k];
              s *= x[2][(b * M + i) * N + j];
              for (int64_t v = 0; v < V; v++) want[(b * M + i) * V + v] += s * x[3][(b * N + j) * V + v];
            }
        double e = relative_difference(got, want, B * M * V);
        CHECK(what == NOTHING || e <= (bf16 ? 5e-3 : 1e-5), "%s, case %d, bf16 %d: %g", mn_isa_name(isa), (int)c, bf16, e);
        for (int64_t v = 0; what == NOTHING && v < B * M * V; v++) CHECK(got[v] == 0, "nothing is seen, and %g comes of it", got[v]);
        for (int i = 0; i < 4; i++) free(x[i]), free(in[i].memory);
        free(got), free(want), free(out.memory);
      }
}

int main(void) {
  RUN(definition_gradient);
  RUN(masks_f32);
  RUN(masks_bf16);
  RUN(ring_cache);
  RUN(nothing_to_see);
  RUN(scores_that_are_huge);
  RUN(lengths);
  RUN(rings);
  RUN(patterns);
  RUN(biases);
  RUN(same_bits_for_any_threads);
  RUN(kernel_equals_composition);
  RUN(masked_product);
  return test_end();
}
