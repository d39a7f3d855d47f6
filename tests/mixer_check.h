/* mixer_check.h - what every mixer is held to, by name of its configuration: golden vectors (y, final state, gradients),
 * split invariance, streaming, gradients by central differences.
 *
 *   mc_mixer m;
 *   if (mc_open(&m, "{\"type\": \"titans\", \"heads\": 2}", 16, 2, MN_F64, mn_backend_ref())) {
 *     mc_random_params(&m, 1);
 *     CHECK(mc_split_error(&m, T, 2, (int64_t[]){5, 9}) < 1e-10, ...);
 *   }
 *   mc_close(&m);
 *
 * All numbers pass through doubles; the mixer computes in the type that mc_open was given. Functions that can fail return
 * 0 (or NAN, INFINITY) and have printed why. */
#ifndef MN_MIXER_CHECK_H
#define MN_MIXER_CHECK_H

#include "format/json.h"
#include "format/safetensors.h"
#include "format/yaml.h"
#include "compile/plan.h"
#include "nn/mixer.h"
#include "mixer_values.h"

enum { MC_PLANS = 80 };

/* ---- a mixer ---- */
typedef struct mc_built { /* the graph of one segment of T tokens, carried */
  int64_t T;
  mn_graph *g;
  mn_scope *s;
  mn_plan *plan;
  mn_tensor *x, *length;
  int32_t *length_mem;
  void *x_mem, *param_mem[MC_MAX], *state_mem[MC_MAX];
} mc_built;

typedef struct mc_mixer {
  mn_arena *arena;
  mn_mixer mixer;
  int64_t d_model, B;
  mn_dtype type;
  mn_backend *backend;
  bool bf16;             /* with MN_F32: products in bf16 */
  double step;           /* of gradient checks; 0: 1e-3 */
  bool forget;           /* streams may outgrow the mixer's limit */
  int64_t multiple;      /* promised to carried builds: positions are multiples of it; 0: any */
  const int32_t *length; /* [B], of carried builds: how many tokens of each row count; NULL: all */
  mc_bag params;         /* change them freely, then mc_drop() */
  int n_plans;
  mc_built plans[MC_PLANS];
} mc_mixer;

static inline int mc_complain(const char *what) {
  printf("  %s: %s\n", what, mn_message());
  return 0;
}

static inline int mc_open_value(mc_mixer *m, mn_arena *arena, const mn_value *v, int64_t d_model, int64_t B, mn_dtype type,
                                mn_backend *backend) {
  *m = (mc_mixer){.arena = arena, .d_model = d_model, .B = B, .type = type, .backend = backend};
  return mn_mixer_parse(arena, v, "mixer", d_model, &m->mixer) == MN_OK || mc_complain("mixer");
}
static inline int mc_open(mc_mixer *m, const char *json, int64_t d_model, int64_t B, mn_dtype type, mn_backend *backend) {
  mn_arena *arena = mn_arena_new();
  const mn_value *v = NULL;
  *m = (mc_mixer){.arena = arena};
  if (mn_json_parse(arena, "test", json, strlen(json), &v) != MN_OK) return mc_complain(json);
  return mc_open_value(m, arena, v, d_model, B, type, backend);
}
static inline void mc_built_free(mc_built *b) {
  mn_plan_free(b->plan);
  mn_graph_free(b->g);
  free(b->x_mem);
  free(b->length_mem);
  for (int i = 0; i < MC_MAX; i++) free(b->param_mem[i]), free(b->state_mem[i]);
}
static inline void mc_drop(mc_mixer *m) { /* forgets the plans: call it when params have changed */
  for (int i = 0; i < m->n_plans; i++) mc_built_free(&m->plans[i]);
  m->n_plans = 0;
}
static inline void mc_close(mc_mixer *m) {
  mc_drop(m);
  mc_bag_free(&m->params);
  mn_arena_free(m->arena);
}

static inline mn_scope *mc_scope(mc_mixer *m, mn_graph *g, bool carried) {
  mn_build build = {.param = m->type, .compute = m->bf16 ? MN_BF16 : m->type, .carried = carried};
  build.position_multiple = m->multiple;
  build.forget = m->forget;
  if (carried && m->length) build.length = mn_input(g, "length", MN_I32, MN_SHAPE(m->B));
  return mn_scope_new(g, build, m->B);
}

/* Values that leave nothing special: matrices N(0, 1/in), vectors their constant + 0.3 N(0,1). */
static inline int mc_random_params(mc_mixer *m, uint64_t seed) {
  mn_graph *g = mn_graph_new();
  mn_scope *s = mc_scope(m, g, false);
  mn_mixer_apply(s, &m->mixer, mn_input(g, "x", m->type, MN_SHAPE(m->B, 1, m->d_model)));
  int ok = mn_graph_status(g) == MN_OK || mc_complain("parameters");
  const mn_param_info *info;
  for (int i = 0, n = mn_scope_params(s, &info, NULL); ok && i < n; i++) {
    double *p = mc_put(&m->params, info[i].name, info[i].shape, NULL);
    bool vector = info[i].shape.ndim < 2 || info[i].init.kind == MN_INIT_CONSTANT;
    double base = info[i].init.kind == MN_INIT_CONSTANT ? info[i].init.a : 0;
    double std = vector ? 0.3 : 1 / sqrt((double)info[i].shape.dim[info[i].shape.ndim - 1]);
    for (int64_t k = 0, count = mn_shape_count(&info[i].shape); k < count; k++)
      p[k] = base + std * mn_random_normal(mn_random_key(seed, info[i].name), 1, (uint64_t)k);
  }
  mn_graph_free(g);
  mc_drop(m);
  return ok;
}

/* Binds parameters to fresh copies of m->params in mem[]. */
static inline int mc_bind_params(mc_mixer *m, mn_scope *s, mn_plan *plan, void **mem) {
  const mn_param_info *info;
  mn_tensor *const *t;
  for (int i = 0, n = mn_scope_params(s, &info, &t); i < n; i++) {
    mc_tensor *p = mc_get(&m->params, info[i].name);
    if (!p || !mn_shape_equal(&p->shape, &info[i].shape)) {
      printf("  parameter %s: %s\n", info[i].name, p ? "another shape is given" : "no value is given");
      return 0;
    }
    mem[i] = mc_pack(p->x, m->type, mn_shape_count(&p->shape));
    mn_plan_bind(plan, t[i], mem[i]);
  }
  return 1;
}

/* Training: a fresh stream x [B,T,D] -> y (caller's memory), and, with dy, the gradients of sum(y * dy) as "x" and by
 * parameter name; reports by name. grads and reports may be NULL. */
static inline int mc_forward(mc_mixer *m, int64_t T, const double *x, double *y, const double *dy, mc_bag *grads, mc_bag *reports) {
  mn_graph *g = mn_graph_new();
  mn_scope *s = mc_scope(m, g, false);
  mn_shape shape = MN_SHAPE(m->B, T, m->d_model);
  int64_t n = mn_shape_count(&shape);
  mn_tensor *in = mn_input(g, "x", m->type, shape), *out[MC_MAX] = {NULL}, *wrt[MC_MAX];
  const mn_param_info *info = NULL;
  mn_tensor *const *param = NULL, *const *report = NULL;
  const char *const *names = NULL;
  void *mem[MC_MAX] = {NULL}, *x_mem = mc_pack(x, m->type, n);
  mn_plan *plan = NULL;
  out[0] = mn_cast(g, mn_mixer_apply(s, &m->mixer, in), m->type);
  mn_scope_advance(s, T);
  int n_params = mn_scope_params(s, &info, &param), n_out = 1, n_wrt = 0, n_reports = 0;
  int ok = mn_graph_status(g) == MN_OK;
  if (ok && dy && grads) {
    void *w = mc_pack(dy, m->type, n);
    mn_tensor *cotangent = mn_const(g, m->type, shape, w);
    free(w);
    wrt[n_wrt++] = in;
    for (int i = 0; i < n_params; i++) wrt[n_wrt++] = param[i];
    ok = mn_grad(g, 1, out, &cotangent, n_wrt, wrt, out + 1) == MN_OK;
    n_out += n_wrt;
  }
  if (ok && reports) {
    n_reports = mn_scope_reports(s, &names, &report);
    for (int i = 0; i < n_reports; i++) out[n_out + i] = report[i];
    n_out += n_reports;
  }
  mn_plan_request q = {.graph = g, .n_outputs = n_out, .outputs = out, .backend = m->backend};
  ok = ok && mn_plan_compile(&q, &plan) == MN_OK;
  if (!ok) mc_complain("forward");
  ok = ok && mc_bind_params(m, s, plan, mem);
  if (ok) {
    mn_plan_bind(plan, in, x_mem);
    ok = mn_plan_run(plan) == MN_OK || mc_complain("run");
  }
  for (int j = 0; ok && j < n_out; j++) {
    const mn_view *v = mn_plan_output(plan, j);
    double *to = y;
    if (j > 0 && j <= n_wrt) to = mc_put(grads, j == 1 ? "x" : info[j - 2].name, out[j]->shape, NULL);
    if (j > n_wrt) to = mc_put(reports, names[j - 1 - n_wrt], out[j]->shape, NULL);
    if (to) mc_unpack(v->data, v->dtype, mn_view_count(v), to);
  }
  mn_plan_free(plan);
  mn_graph_free(g);
  free(x_mem);
  for (int i = 0; i < MC_MAX; i++) free(mem[i]);
  return ok;
}

/* ---- streams ---- */
static inline mc_built *mc_build_carried(mc_mixer *m, int64_t T) {
  for (int i = 0; i < m->n_plans; i++)
    if (m->plans[i].T == T) return &m->plans[i];
  if (m->n_plans == MC_PLANS) mc_drop(m);
  mc_built *b = &m->plans[m->n_plans];
  *b = (mc_built){.T = T, .g = mn_graph_new()};
  b->s = mc_scope(m, b->g, true);
  b->length = mn_scope_length(b->s);
  b->x = mn_input(b->g, "x", m->type, MN_SHAPE(m->B, T, m->d_model));
  mn_tensor *y = mn_mixer_apply(b->s, &m->mixer, b->x), *leaf[MC_MAX], *value[MC_MAX];
  mn_scope_advance(b->s, T);
  const mn_built_state *st;
  int n = mn_scope_states(b->s, &st), ok = n <= MC_MAX && mn_graph_status(b->g) == MN_OK;
  for (int i = 0; ok && i < n; i++) leaf[i] = st[i].leaf, value[i] = st[i].value;
  mn_plan_request q = {
      .graph = b->g, .n_outputs = 1, .outputs = &y, .n_assigns = n, .variables = leaf, .values = value, .backend = m->backend};
  ok = ok && mn_plan_compile(&q, &b->plan) == MN_OK;
  if (!ok) mc_complain("carried build");
  ok = ok && mc_bind_params(m, b->s, b->plan, b->param_mem);
  for (int i = 0; ok && i < n; i++) {
    b->state_mem[i] = mn_alloc_aligned((size_t)(mn_shape_count(&st[i].info.shape) + 1) * mn_dtype_size(st[i].info.dtype));
    mn_plan_bind(b->plan, leaf[i], b->state_mem[i]);
  }
  b->x_mem = mn_alloc_aligned((size_t)(m->B * T * m->d_model + 1) * mn_dtype_size(m->type));
  if (ok) mn_plan_bind(b->plan, b->x, b->x_mem);
  if (ok && b->length) mn_plan_bind(b->plan, b->length, b->length_mem = mn_alloc_aligned((size_t)m->B * sizeof *b->length_mem));
  m->n_plans++;
  return ok ? b : NULL;
}

/* The state of a fresh stream ("position" too). */
static inline int mc_start(mc_mixer *m, mc_bag *state) {
  mn_graph *g = mn_graph_new();
  mn_scope *s = mc_scope(m, g, true);
  mn_mixer_apply(s, &m->mixer, mn_input(g, "x", m->type, MN_SHAPE(m->B, 1, m->d_model)));
  const mn_built_state *st;
  int n = mn_scope_states(s, &st), ok = mn_graph_status(g) == MN_OK;
  mn_tensor *init[MC_MAX];
  void *mem[MC_MAX] = {NULL};
  mn_plan *plan = NULL;
  for (int i = 0; ok && i < n; i++) init[i] = st[i].init;
  mn_plan_request q = {.graph = g, .n_outputs = n, .outputs = init, .backend = m->backend};
  ok = ok && mn_plan_compile(&q, &plan) == MN_OK && mc_bind_params(m, s, plan, mem) && mn_plan_run(plan) == MN_OK;
  if (!ok) mc_complain("start of a stream");
  for (int i = 0; ok && i < n; i++) {
    const mn_view *v = mn_plan_output(plan, i);
    mc_unpack(v->data, v->dtype, mn_view_count(v), mc_put(state, st[i].info.name, st[i].info.shape, NULL));
  }
  mn_plan_free(plan);
  mn_graph_free(g);
  for (int i = 0; i < MC_MAX; i++) free(mem[i]);
  return ok;
}

/* The next T tokens of a stream: x [B,T,D] -> y [B,T,D] (NULL: not wanted), state replaced. */
static inline int mc_segment(mc_mixer *m, mc_bag *state, int64_t T, const double *x, double *y) {
  mc_built *b = mc_build_carried(m, T);
  const mn_built_state *st;
  if (!b) return 0;
  int n = mn_scope_states(b->s, &st);
  for (int64_t i = 0; i < m->B * T * m->d_model; i++) mn_element_store(b->x_mem, m->type, i, x[i]);
  if (b->length) memcpy(b->length_mem, m->length, (size_t)m->B * sizeof *b->length_mem);
  for (int i = 0; i < n; i++) {
    mc_tensor *t = mc_get(state, st[i].info.name);
    if (!t || !mn_shape_equal(&t->shape, &st[i].info.shape)) {
      printf("  state %s: %s\n", st[i].info.name, t ? "its shape depends on the segment" : "is not in the stream's start");
      return 0;
    }
    for (int64_t k = 0, count = mn_shape_count(&t->shape); k < count; k++) mn_element_store(b->state_mem[i], st[i].info.dtype, k, t->x[k]);
  }
  if (mn_plan_run(b->plan) != MN_OK) return mc_complain("run");
  const mn_view *v = mn_plan_output(b->plan, 0);
  if (y) mc_unpack(v->data, v->dtype, mn_view_count(v), y);
  for (int i = 0; i < n; i++) {
    mc_tensor *t = mc_get(state, st[i].info.name);
    mc_unpack(b->state_mem[i], st[i].info.dtype, mn_shape_count(&t->shape), t->x);
  }
  return 1;
}

/* x [B,T,D] as a stream in pieces that end at cuts[0] < cuts[1] < ... < T: y [B,T,D] and the final state. */
static inline int mc_pieces(mc_mixer *m, int64_t T, const double *x, int n_cuts, const int64_t *cuts, double *y, mc_bag *state) {
  if (!mc_start(m, state)) return 0;
  for (int i = 0; i <= n_cuts; i++) {
    int64_t from = i ? cuts[i - 1] : 0, to = i < n_cuts ? cuts[i] : T, D = m->d_model;
    double *piece = mc_cut(x, m->B, T, D, from, to - from), *out = malloc((size_t)(m->B * (to - from) * D + 1) * sizeof *out);
    int ok = mc_segment(m, state, to - from, piece, out);
    for (int64_t b = 0; ok && b < m->B; b++)
      memcpy(y + (b * T + from) * D, out + b * (to - from) * D, (size_t)((to - from) * D) * sizeof *y);
    free(piece);
    free(out);
    if (!ok) return 0;
  }
  return 1;
}

/* Largest difference of a state from another, over all tensors. */
static inline double mc_state_difference(mc_bag *a, mc_bag *b) {
  double worst = a->n == b->n ? 0 : INFINITY;
  for (int i = 0; i < a->n; i++) {
    mc_tensor *t = mc_get(b, a->t[i].name);
    double e = t ? mc_difference(a->t[i].x, t->x, mn_shape_count(&t->shape)) : INFINITY;
    if (!(e <= worst)) worst = e;
  }
  return worst;
}

/* A stream cut anywhere gives the training-time y and the state of one pass. What is compared against is computed once: */
typedef struct mc_whole {
  int64_t T;
  double *x, *y;
  mc_bag state;
} mc_whole;
static inline int mc_whole_of(mc_mixer *m, int64_t T, uint64_t seed, mc_whole *w) {
  int64_t n = m->B * T * m->d_model;
  *w = (mc_whole){.T = T, .x = mc_normal(n, 1, seed), .y = malloc((size_t)(n + 1) * sizeof(double))};
  double *y = malloc((size_t)(n + 1) * sizeof *y);
  int ok = mc_forward(m, T, w->x, w->y, NULL, NULL, NULL) && mc_pieces(m, T, w->x, 0, NULL, y, &w->state);
  free(y);
  return ok;
}
static inline void mc_whole_free(mc_whole *w) {
  free(w->x);
  free(w->y);
  mc_bag_free(&w->state);
}
static inline double mc_split_error(mc_mixer *m, mc_whole *w, int n_cuts, const int64_t *cuts) {
  int64_t n = m->B * w->T * m->d_model;
  double *y = malloc((size_t)(n + 1) * sizeof *y), worst = INFINITY;
  mc_bag state = {0};
  if (mc_pieces(m, w->T, w->x, n_cuts, cuts, y, &state)) worst = fmax(mc_difference(y, w->y, n), mc_state_difference(&state, &w->state));
  mc_bag_free(&state);
  free(y);
  return worst;
}
/* The worst over: every single cut of T tokens, one token at a time, and `random` draws of several cuts. */
static inline double mc_split_everywhere(mc_mixer *m, int64_t T, int random, uint64_t seed) {
  mc_whole w;
  double worst = mc_whole_of(m, T, seed, &w) ? 0 : INFINITY;
  int64_t *cuts = malloc((size_t)(T + 1) * sizeof *cuts);
  int n = 0;
  worst = fmax(worst, mc_split_error(m, &w, 0, NULL)); /* one carried pass against training */
  for (int64_t c = 1; c < T && worst < INFINITY; c++) worst = fmax(worst, mc_split_error(m, &w, 1, &c));
  for (int64_t c = 1; c < T; c++) cuts[n++] = c;
  if (worst < INFINITY) worst = fmax(worst, mc_split_error(m, &w, n, cuts));
  for (int r = 0; r < random && worst < INFINITY; r++) {
    n = 0;
    for (int64_t c = 1; c < T; c++)
      if (mn_random_uniform(seed, 21 + (uint64_t)r, (uint64_t)c) < 4.0 / (double)T) cuts[n++] = c;
    worst = fmax(worst, mc_split_error(m, &w, n, cuts));
  }
  free(cuts);
  mc_whole_free(&w);
  return worst;
}

/* The worst of one stream of T tokens with `n_cuts` random cuts. */
static inline double mc_split_long(mc_mixer *m, int64_t T, int n_cuts, uint64_t seed) {
  mc_whole w;
  int64_t cuts[MC_MAX];
  int n = 0;
  for (int64_t c = 1, left = n_cuts; c < T && n < n_cuts; c++) /* n_cuts of the T - 1 places, all alike (Knuth's S) */
    if (mn_random_uniform(seed, 31, (uint64_t)c) * (double)(T - c) < (double)left) cuts[n++] = c, left--;
  double worst = mc_whole_of(m, T, seed, &w) ? mc_split_error(m, &w, n, cuts) : INFINITY;
  mc_whole_free(&w);
  return worst;
}

/* Training with products in bf16 against the same in f32: root of the mean square difference over that of y. The mixer must
 * be an f32 one. */
static inline double mc_bf16_error(mc_mixer *m, int64_t T, uint64_t seed) {
  int64_t n = m->B * T * m->d_model;
  double *x = mc_normal(n, 1, seed), *exact = malloc((size_t)(n + 1) * sizeof *exact), *y = malloc((size_t)(n + 1) * sizeof *y);
  int ok = mc_forward(m, T, x, exact, NULL, NULL, NULL);
  m->bf16 = true;
  ok = ok && mc_forward(m, T, x, y, NULL, NULL, NULL);
  m->bf16 = false;
  double d = 0, all = 1e-30, e = 0;
  for (int64_t i = 0; i < n; i++) e = y[i] - exact[i], d += e * e, all += exact[i] * exact[i];
  free(x);
  free(exact);
  free(y);
  return ok && isfinite(d) ? sqrt(d / all) : INFINITY;
}

/* A recipe's mixer that must be refused: the message holds every one of `words`, separated by '|'. */
static inline void mc_refused(const char *yaml, int64_t d_model, const char *words) {
  mn_arena *arena = mn_arena_new();
  const mn_value *v = NULL;
  mn_mixer m;
  char word[64];
  CHECK_OK(mn_yaml_parse(arena, "recipe.yaml", yaml, strlen(yaml), &v));
  mn_status status = v ? mn_mixer_parse(arena, v, NULL, d_model, &m) : MN_ERR_FORMAT;
  CHECK(status == MN_ERR_CONFIG, "%s: %s", yaml, mn_status_name(status));
  for (const char *p = words; *p;) {
    size_t n = strcspn(p, "|");
    snprintf(word, sizeof word, "%.*s", (int)n, p);
    CHECK(strstr(mn_message(), word) != NULL, "the message \"%s\" does not say %s", mn_message(), word);
    p += n + (p[n] == '|');
  }
  mn_arena_free(arena);
}

/* ---- gradients by differences ---- about `entries` entries of each parameter (and of x) whose name contains one of the
 * space-separated `words` (NULL: all): the worst error relative to the largest gradient entry of that tensor. */
static inline bool mc_wanted(const char *words, const char *name) {
  char word[64];
  if (!words) return true;
  for (const char *p = words; *p;) {
    size_t n = strcspn(p, " ");
    snprintf(word, sizeof word, "%.*s", (int)n, p);
    if (n && strstr(name, word)) return true;
    p += n + (p[n] == ' ');
  }
  return false;
}
static inline double mc_gradient_error(mc_mixer *m, int64_t T, const char *words, int entries, uint64_t seed) {
  int64_t n = m->B * T * m->d_model;
  double *x = mc_normal(n, 1, seed), *dy = mc_normal(n, 1, seed + 1), *y = malloc((size_t)(n + 1) * sizeof *y), worst = INFINITY;
  mc_bag grads = {0};
  mn_graph *g = mn_graph_new();
  mn_scope *s = mc_scope(m, g, false);
  mn_tensor *in = mn_input(g, "x", MN_F64, MN_SHAPE(m->B, T, m->d_model)), *out = mn_mixer_apply(s, &m->mixer, in);
  const mn_param_info *info;
  void *mem[MC_MAX] = {NULL};
  mn_plan *plan = NULL;
  mn_plan_request q = {.graph = g, .n_outputs = 1, .outputs = &out, .backend = m->backend};
  if (mn_graph_status(g) != MN_OK || mn_plan_compile(&q, &plan) != MN_OK) mc_complain("gradient check");
  else if (mc_bind_params(m, s, plan, mem) && mc_forward(m, T, x, y, dy, &grads, NULL)) {
    int n_params = mn_scope_params(s, &info, NULL);
    mn_plan_bind(plan, in, x);
    worst = 0;
    for (int i = -1; i < n_params; i++) {
      const char *name = i < 0 ? "x" : info[i].name;
      if (!mc_wanted(words, name)) continue;
      mc_tensor *d = mc_get(&grads, name);
      double scale = 1e-6, *p = i < 0 ? x : mem[i];
      int64_t count = mn_shape_count(&d->shape);
      for (int64_t k = 0; k < count; k++) scale = fmax(scale, fabs(d->x[k]));
      for (int64_t k = 0; k < count; k++) {
        if (mn_random_uniform(seed + 5, (uint64_t)(i + 1), (uint64_t)k) * (double)count > entries) continue;
        double keep = p[k], h = m->step > 0 ? m->step : 1e-3, numeric = 0;
        for (int j = 0; j < 4; j++) { /* fourth-order central difference */
          p[k] = keep + h * (double[]){-2, -1, 1, 2}[j];
          if (mn_plan_run(plan) != MN_OK) numeric = NAN;
          const double *v = mn_plan_output(plan, 0)->data;
          double f = 0;
          for (int64_t e = 0; e < n; e++) f += v[e] * dy[e];
          numeric += f * (double[]){1, -8, 8, -1}[j] / (12 * h);
        }
        p[k] = keep;
        double e = fabs(numeric - d->x[k]) / scale;
        if (!(e <= worst)) worst = isfinite(e) ? e : INFINITY;
      }
    }
  }
  mn_plan_free(plan);
  mn_graph_free(g);
  mc_bag_free(&grads);
  for (int i = 0; i < MC_MAX; i++) free(mem[i]);
  free(x);
  free(dy);
  free(y);
  return worst;
}

/* ---- golden vectors (tests/golden/README.md) ---- */
/* Keys or values of attention: the file has all T tokens in order, the cache persistent slots, sinks, then a ring. Puts the
 * file's tokens where the ring should have them; slots that nothing was written to are taken from the cache itself. */
static inline void mc_ring(const mn_value *config, const mc_tensor *ours, const double *file, int64_t T, double *want) {
  double v = 0;
  int64_t slots = ours->shape.dim[1], B = ours->shape.dim[0], width = ours->shape.dim[2] * ours->shape.dim[3];
  int64_t persistent = mn_value_number(mn_value_get(config, "persistent"), &v) ? (int64_t)v : 0;
  int64_t sinks = mn_value_number(mn_value_get(config, "sinks"), &v) ? (int64_t)v : 0, ring = slots - persistent - sinks;
  memcpy(want, ours->x, (size_t)(B * slots * width) * sizeof *want);
  for (int64_t b = 0; b < B; b++)
    for (int64_t p = 0; p < T; p++) {
      int64_t slot = p < sinks ? persistent + p : persistent + sinks + (p - sinks) % ring;
      memcpy(want + (b * slots + slot) * width, file + (b * T + p) * width, (size_t)width * sizeof *want);
    }
}

/* The mixer of a golden file gives its y (training and as a stream), state and gradients within `tolerance`, relative to
 * the largest entry of each tensor. `own`: space-separated names of states that are not compared here. Each fault is a
 * failed check that names the tensor. */
static inline void mc_golden(const char *file, mn_backend *backend, mn_dtype type, double tolerance, const char *own) {
  char path[512];
  snprintf(path, sizeof path, "%s/tests/golden/%s.safetensors", MN_TEST_SOURCE_DIR, file);
  mn_st *st = NULL;
  mn_arena *arena = mn_arena_new();
  const mn_value *config = NULL;
  mc_mixer m = {.arena = arena};
  mc_bag f = {0}, grads = {0}, state = {0};
  double *y = NULL;
  mn_status status = mn_st_open(path, &st);
  CHECK(status == MN_OK, "%s: %s", file, mn_message());
  if (status != MN_OK) goto done;
  const char *json = mn_st_meta(st, "config"), *d_model = mn_st_meta(st, "d_model");
  status = json && d_model ? mn_json_parse(arena, file, json, strlen(json), &config) : MN_ERR_FORMAT;
  CHECK(status == MN_OK, "%s: no configuration", file);
  if (status != MN_OK) goto done;
  for (int i = 0; i < mn_st_count(st); i++) {
    const mn_st_tensor *t = mn_st_at(st, i);
    CHECK_OK(mn_st_read(st, t, MN_F64, mc_put(&f, t->name, t->shape, NULL)));
  }
  mc_tensor *x = mc_get(&f, "x");
  int64_t B = x->shape.dim[0], T = x->shape.dim[1], n = mn_shape_count(&x->shape);
  int ok = mc_open_value(&m, arena, config, strtoll(d_model, NULL, 10), B, type, backend);
  CHECK(ok, "%s: the configuration is refused", file);
  if (!ok) goto done;
  for (int i = 0; i < f.n; i++)
    if (strncmp(f.t[i].name, "state.", 6) && strncmp(f.t[i].name, "grad.", 5)) mc_put(&m.params, f.t[i].name, f.t[i].shape, f.t[i].x);
  y = malloc((size_t)(n + 1) * sizeof *y);
  ok = mc_forward(&m, T, x->x, y, mc_get(&f, "dy")->x, &grads, NULL);
  CHECK(ok, "%s: training does not run", file);
  if (!ok) goto done;
  double e = mc_difference(y, mc_get(&f, "y")->x, n);
  CHECK(e < tolerance, "%s: y differs by %g", file, e);
  for (int i = 0; i < grads.n; i++) {
    char name[128];
    snprintf(name, sizeof name, "grad.%s", grads.t[i].name);
    mc_tensor *want = mc_get(&f, name);
    CHECK(want != NULL, "%s: parameter %s is not in the file", file, grads.t[i].name);
    if (!want) continue;
    e = mc_difference(grads.t[i].x, want->x, mn_shape_count(&want->shape));
    double largest = 0; /* a gradient that is zero but for rounding has no relative error */
    for (int64_t k = 0, count = mn_shape_count(&want->shape); k < count; k++) largest = fmax(largest, fabs(want->x[k]));
    CHECK(e < tolerance || largest < 1e-12, "%s: the gradient of %s differs by %g", file, grads.t[i].name, e);
  }
  for (int i = 0; i < f.n; i++) /* and no parameter of the file is unused */
    if (!strncmp(f.t[i].name, "grad.", 5))
      CHECK(mc_get(&grads, f.t[i].name + 5) != NULL, "%s: %s is not a parameter", file, f.t[i].name + 5);
  ok = mc_pieces(&m, T, x->x, 0, NULL, y, &state);
  CHECK(ok, "%s: a stream does not run", file);
  if (!ok) goto done;
  e = mc_difference(y, mc_get(&f, "y")->x, n);
  CHECK(e < tolerance, "%s: y as a stream differs by %g", file, e);
  for (int i = 0; i < f.n; i++) {
    if (strncmp(f.t[i].name, "state.", 6) || (own && mc_wanted(own, f.t[i].name + 6))) continue;
    mc_tensor *ours = mc_get(&state, f.t[i].name + 6), *want = &f.t[i];
    CHECK(ours != NULL, "%s: there is no state %s", file, want->name + 6);
    if (!ours) continue;
    int64_t count = mn_shape_count(&ours->shape);
    double *expect = malloc((size_t)(count + 1) * sizeof *expect);
    bool same = mn_shape_equal(&ours->shape, &want->shape), ring = !same && ours->shape.ndim == 4 && want->shape.dim[1] == T;
    if (ring) mc_ring(config, ours, want->x, T, expect);
    if (same) memcpy(expect, want->x, (size_t)count * sizeof *expect);
    e = same || ring ? mc_difference(ours->x, expect, count) : INFINITY;
    CHECK(e < tolerance, "%s: state %s differs by %g", file, want->name + 6, e);
    free(expect);
  }
done:
  mn_st_close(st);
  mc_bag_free(&f);
  mc_bag_free(&grads);
  mc_bag_free(&state);
  mc_close(&m);
  free(y);
}

/* mc_golden in f64 on ref and in f32, to `tolerance`, on two threads of the CPU backend. */
static inline void mc_golden_files(int n, const char *const *files, double tolerance) {
  mn_backend *cpu = NULL;
  CHECK_OK(mn_backend_cpu_new(2, &cpu));
  for (int i = 0; i < n; i++) {
    mc_golden(files[i], mn_backend_ref(), MN_F64, 1e-9, NULL);
    if (cpu) mc_golden(files[i], cpu, MN_F32, tolerance, NULL);
  }
  mn_backend_free(cpu);
}

#include "mixer_lengths.h"

/* A stream cut anywhere, one token at a time among the cuts, is the stream: each configuration in f64 and, longer, in f32. */
static inline void mc_cut_anywhere(int n, const char *const *forms) {
  mn_backend *cpu = NULL;
  mc_rows_of_any_length(n, forms);
  CHECK_OK(mn_backend_cpu_new(1, &cpu));
  for (int i = 0; i < n && cpu; i++) {
    mc_mixer m;
    int ok = mc_open(&m, forms[i], 8, 2, MN_F64, mn_backend_ref()) && mc_random_params(&m, 1);
    double e = ok ? mc_split_everywhere(&m, 33, 3, 5) : INFINITY;
    CHECK(e < 1e-10, "%s: f64, T 33: %g", forms[i], e);
    mc_close(&m);
    ok = mc_open(&m, forms[i], 16, 2, MN_F32, cpu) && mc_random_params(&m, 2);
    e = ok ? mc_split_everywhere(&m, 33, 3, 6) : INFINITY;
    CHECK(e < 1e-4, "%s: f32, T 33: %g", forms[i], e);
    e = ok ? mc_split_long(&m, 4096, 20, 7) : INFINITY;
    CHECK(e < 1e-4, "%s: f32, T 4096, 20 random cuts: %g", forms[i], e);
    mc_close(&m);
  }
  mn_backend_free(cpu);
}

#endif
