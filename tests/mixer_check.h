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
#include "nn/mixer.h"
#include "trial.h"

enum { MC_PLANS = 80 };

/* ---- a mixer ---- */
typedef struct mc_mixer {
  mn_arena *arena;
  mn_mixer mixer;
  int64_t d_model, B;
  mn_dtype type;
  mn_backend *backend;
  bool bf16;             /* with MN_F32: products in bf16 */
  double step;           /* of gradient checks; 0: 1e-3 */
  bool forget;           /* streams may outgrow the mixer's limit */
  int64_t multiple;      /* promised to streams: positions are multiples of it; 0: any */
  const int32_t *length; /* [B], of streams: how many tokens of each row count; NULL: all */
  mc_bag params;         /* change them freely */
  trial training, stream;
  mn_states *rows; /* of the stream, as the last run left them */
} mc_mixer;

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
static inline void mc_drop_stream(mc_mixer *m) {
  mn_states_free(m->rows);
  m->rows = NULL;
  trial_close(&m->stream);
}
static inline void mc_close(mc_mixer *m) {
  mc_drop_stream(m);
  trial_close(&m->training);
  mc_bag_free(&m->params);
  mn_arena_free(m->arena);
}
/* The same mixer and parameters (which stay the other's) for B rows. */
static inline mc_mixer mc_for_rows(const mc_mixer *m, int64_t B) {
  mc_mixer other = *m;
  other.B = B;
  other.training = other.stream = (trial){0};
  other.rows = NULL;
  return other;
}

static inline mn_build mc_how(const mc_mixer *m, bool carried) {
  return (mn_build){.param = m->type, .compute = m->bf16 ? MN_BF16 : m->type, .carried = carried, .forget = m->forget};
}

/* Values that leave nothing special: matrices N(0, 1/in), vectors their constant + 0.3 N(0,1). */
static inline int mc_random_params(mc_mixer *m, uint64_t seed) {
  mn_graph *g = mn_graph_new();
  mn_scope *s = mn_scope_new(g, mc_how(m, false), m->B);
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
  return ok;
}

/* ---- running ---- y of T tokens as a program gives it, and by form.what, as "grad.x", "grad.<parameter>" and "report.<path>": */
enum { MC_GRADS = 1, MC_REPORTS = 2 };

static inline mn_status mc_build_grads(const mc_mixer *m, mn_scope *s, mn_tensor *x, mn_tensor *y, mn_parts *parts) {
  mn_graph *g = mn_scope_graph(s);
  mn_tensor *dy = mn_parts_feed(parts, "dy", m->type, y->shape), *wrt[MC_MAX] = {x}, *grad[MC_MAX];
  mn_tensor *const *params;
  const mn_param_info *info;
  const int n = mn_scope_params(s, &info, &params);
  for (int i = 0; i < n; i++) wrt[i + 1] = params[i];
  MN_TRY(mn_grad(g, 1, &y, &dy, n + 1, wrt, grad));
  for (int i = 0; i <= n; i++) mn_parts_give(parts, mn_arena_format(g->arena, "grad.%s", i ? info[i - 1].name : "x"), grad[i]);
  return MN_OK;
}

static inline mn_status mc_build(void *ctx, mn_scope *s, const mn_form *form, mn_parts *parts) {
  const mc_mixer *m = ctx;
  mn_graph *g = mn_scope_graph(s);
  mn_tensor *x = mn_parts_feed(parts, "x", m->type, MN_SHAPE(m->B, form->length, m->d_model));
  mn_tensor *y = mn_cast(g, mn_mixer_apply(s, &m->mixer, x), m->type);
  mn_scope_advance(s, form->length);
  MN_TRY(mn_graph_status(g));
  mn_parts_give(parts, "y", y);
  if (form->what & MC_GRADS) MN_TRY(mc_build_grads(m, s, x, y, parts));
  mn_tensor *const *report;
  const char *const *names;
  const int n = form->what & MC_REPORTS ? mn_scope_reports(s, &names, &report) : 0;
  for (int i = 0; i < n; i++) mn_parts_give(parts, mn_arena_format(g->arena, "report.%s", names[i]), report[i]);
  return MN_OK;
}

/* Open, with the parameters as they are now. NULL: it is not, and why was printed. */
static inline trial *mc_trial(mc_mixer *m, bool carried) {
  trial *t = carried ? &m->stream : &m->training;
  const mn_program_config c = {
      .backend = m->backend, .build = mc_how(m, carried), .builder = mc_build, .ctx = m, .learn = {.batch = m->B, .length = 1}};
  const mn_build *was = t->program ? &mn_program_config_of(t->program)->build : NULL;
  if (was && was->compute == c.build.compute && was->forget == c.build.forget && mn_program_compiled(t->program) < MC_PLANS)
    return trial_put_values(t, &m->params) ? t : NULL;
  if (carried) mc_drop_stream(m);
  else trial_close(t);
  return trial_open(t, &c, &m->params) ? t : NULL;
}

/* Training: a fresh stream x [B,T,D] -> y (caller's memory), and, with dy, the gradients of sum(y * dy) as "x" and by
 * parameter name; reports by name. grads and reports may be NULL. */
static inline int mc_forward(mc_mixer *m, int64_t T, const double *x, double *y, const double *dy, mc_bag *grads, mc_bag *reports) {
  const mn_shape shape = MN_SHAPE(m->B, T, m->d_model);
  const int what = (dy && grads ? MC_GRADS : 0) | (reports ? MC_REPORTS : 0);
  trial *t = mc_trial(m, false);
  mc_bag in = {0}, out = {0};
  mc_put(&in, "x", shape, x);
  if (what & MC_GRADS) mc_put(&in, "dy", shape, dy);
  int ok = t && trial_run(t, &(mn_form){.batch = m->B, .length = T, .what = what}, NULL, NULL, &in, &out);
  if (ok) memcpy(y, mc_get(&out, "y")->x, (size_t)mn_shape_count(&shape) * sizeof *y);
  for (int i = 0; ok && i < out.n; i++) {
    const mc_tensor *r = &out.t[i];
    if (!strncmp(r->name, "grad.", 5)) mc_put(grads, r->name + 5, r->shape, r->x);
    if (!strncmp(r->name, "report.", 7)) mc_put(reports, r->name + 7, r->shape, r->x);
  }
  mc_bag_free(&in);
  mc_bag_free(&out);
  return ok;
}

/* ---- streams ---- */
static inline mn_form mc_stream_form(const mc_mixer *m, int64_t T) {
  return (mn_form){.batch = m->B, .length = T, .multiple = m->multiple, .lengths = m->length != NULL};
}

/* The state of a fresh stream ("position" too). */
static inline int mc_start(mc_mixer *m, mc_bag *state) {
  trial *t = mc_trial(m, true);
  mn_states_free(m->rows);
  m->rows = NULL;
  if (!t) return 0;
  int ok = mn_program_refresh(t->program) == MN_OK && mn_program_states(t->program, m->B, &m->rows) == MN_OK;
  return ok ? trial_states_get(m->rows, state) : mc_complain("start of a stream");
}

/* The next T tokens of a stream: x [B,T,D] -> y [B,T,D] (NULL: not wanted), state replaced. */
static inline int mc_segment(mc_mixer *m, mc_bag *state, int64_t T, const double *x, double *y) {
  const mn_form form = mc_stream_form(m, T);
  trial *t = mc_trial(m, true);
  mc_bag in = {0}, out = {0};
  if (!t) return 0;
  if (!m->rows && mn_program_states(t->program, m->B, &m->rows) != MN_OK) return mc_complain("states");
  mc_put(&in, "x", MN_SHAPE(m->B, T, m->d_model), x);
  int ok = trial_states_put(m->rows, state) && trial_run(t, &form, m->rows, m->length, &in, &out) && trial_states_get(m->rows, state);
  if (ok && y) memcpy(y, mc_get(&out, "y")->x, (size_t)(m->B * T * m->d_model) * sizeof *y);
  mc_bag_free(&in);
  mc_bag_free(&out);
  return ok;
}

/* What the compiler made of a stream's segment of T tokens. */
static inline int mc_plan_report(mc_mixer *m, int64_t T, mn_plan_report *report) {
  const mn_form form = mc_stream_form(m, T);
  trial *t = mc_trial(m, true);
  mn_routine *r;
  if (!t || mn_program_enter(t->program, &form, &r) != MN_OK) return mc_complain("building");
  *report = *mn_plan_get_report(mn_routine_plan(r));
  mn_program_leave(t->program);
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
/* sum(y * dy) by one more run of the routine that has been fed. */
static inline double mc_loss(const mn_routine *r, const double *dy, double *y, int64_t n) {
  double f = 0;
  mn_routine *run;
  memcpy(&run, &r, sizeof run);
  if (mn_routine_run(run, NULL) != MN_OK || mn_routine_get_all(r, 0, y) != MN_OK) return (double)NAN;
  for (int64_t e = 0; e < n; e++) f += y[e] * dy[e];
  return f;
}
static inline double mc_gradient_error(mc_mixer *m, int64_t T, const char *words, int entries, uint64_t seed) {
  int64_t n = m->B * T * m->d_model;
  double *x = mc_normal(n, 1, seed), *dy = mc_normal(n, 1, seed + 1), *y = malloc((size_t)(n + 1) * sizeof *y), worst = INFINITY;
  mc_bag grads = {0};
  const mn_form form = {.batch = m->B, .length = T};
  mn_routine *r = NULL;
  int ok = mc_forward(m, T, x, y, dy, &grads, NULL);
  trial *t = &m->training;
  if (ok && mn_program_enter(t->program, &form, &r) != MN_OK) ok = mc_complain("gradient check");
  if (ok) ok = mn_routine_put(r, 0, x) == MN_OK;
  if (ok) worst = 0;
  for (int i = -1; ok && i < t->params->n; i++) {
    const char *name = i < 0 ? "x" : t->params->info[i].name;
    if (!mc_wanted(words, name)) continue;
    mc_tensor *d = mc_get(&grads, name);
    double scale = 1e-6, *p = i < 0 ? x : mc_get(&m->params, name)->x;
    int64_t count = mn_shape_count(&d->shape);
    for (int64_t k = 0; k < count; k++) scale = fmax(scale, fabs(d->x[k]));
    for (int64_t k = 0; k < count; k++) {
      if (mn_random_uniform(seed + 5, (uint64_t)(i + 1), (uint64_t)k) * (double)count > entries) continue;
      double keep = p[k], h = m->step > 0 ? m->step : 1e-3, numeric = 0;
      for (int j = 0; j <= 4; j++) { /* fourth-order central difference, and back */
        p[k] = j < 4 ? keep + h * (double[]){-2, -1, 1, 2}[j] : keep;
        if (i < 0 ? mn_routine_put(r, 0, x) != MN_OK : !trial_put_value(t, i, p)) numeric = NAN;
        if (j < 4) numeric += mc_loss(r, dy, y, n) * (double[]){1, -8, 8, -1}[j] / (12 * h);
      }
      double e = fabs(numeric - d->x[k]) / scale;
      if (!(e <= worst)) worst = isfinite(e) ? e : INFINITY;
    }
  }
  if (r) mn_program_leave(t->program);
  mc_bag_free(&grads);
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
    if (test_of_reference()) mc_golden(files[i], mn_backend_ref(), MN_F64, 1e-9, NULL);
    if (cpu) mc_golden(files[i], cpu, MN_F32, tolerance, NULL);
  }
  mn_backend_free(cpu);
}

#include "mixer_lengths.h"

/* Caches of the mixer and of all its parts hold no more than these few tokens: the reference computes with every place that there is. */
static inline void mc_with_little_room(const mn_mixer *m) {
  enum { ROOM = 64 };
  char *config = m->config;
  const mn_field *f = m->def ? mn_field_find(m->def->fields, "max_context") : NULL;
  if (f && f->size == sizeof(int64_t) && mn_field_int(f, config) > ROOM) *(int64_t *)(void *)(config + f->offset) = ROOM;
  if (m->def && m->def->base) mc_with_little_room((const mn_mixer *)(const void *)(config + m->def->base));
  const mn_mixer_list *list = m->def && m->def->list ? (const mn_mixer_list *)(const void *)(config + m->def->list) : NULL;
  for (int i = 0; list && i < list->n; i++) mc_with_little_room(&list->items[i]);
}

/* A stream cut anywhere, one token at a time among the cuts, is the stream: each configuration in f64 and, longer, in f32. */
static inline void mc_cut_anywhere(int n, const char *const *forms) {
  mn_backend *cpu = NULL;
  if (test_of_reference()) mc_rows_of_any_length(n, forms);
  CHECK_OK(mn_backend_cpu_new(1, &cpu));
  for (int i = 0; i < n && cpu; i++) {
    mc_mixer m;
    int ok;
    double e;
    if (test_of_reference()) {
      ok = mc_open(&m, forms[i], 8, 2, MN_F64, mn_backend_ref());
      if (ok) mc_with_little_room(&m.mixer);
      ok = ok && mc_random_params(&m, 1);
      e = ok ? mc_split_everywhere(&m, 33, 3, 5) : INFINITY;
      CHECK(e < 1e-10, "%s: f64, T 33: %g", forms[i], e);
      mc_close(&m);
    }
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
