/* model_check.h - what every kind of model is held to, by its ports: golden vectors, gradients by central differences, and, where
 * it is a stream, that cutting it anywhere changes nothing. All numbers pass through doubles; f64 on the reference backend.
 *
 *   mk_model m;
 *   if (mk_open(&m, "{type: encoder, ...}", 1)) {
 *     mc_bag in = {0};
 *     mk_tokens(&in, "tokens", 2, 7, 10, 1);
 *     CHECK(mk_gradient_error(&m, &in, 20, 1) < 1e-7, ...);
 *   }
 *   mk_close(&m); */
#ifndef MN_MODEL_CHECK_H
#define MN_MODEL_CHECK_H

#include "mixer_check.h"
#include "model/params.h"

typedef struct mk_model {
  mn_arena *arena;
  mn_model *model;
  mc_bag params;
} mk_model;

typedef struct mk_built { /* one graph and its plan */
  mn_graph *g;
  mn_scope *s;
  mn_plan *plan;
  mn_model_io in, out;
  void *in_mem[MN_IO_MAX], *param_mem[MC_MAX], *buffer_mem[MC_MAX];
} mk_built;

static inline void mk_free(mk_built *b) {
  mn_plan_free(b->plan);
  mn_graph_free(b->g);
  for (int i = 0; i < MN_IO_MAX; i++) free(b->in_mem[i]);
  for (int i = 0; i < MC_MAX; i++) free(b->param_mem[i]), free(b->buffer_mem[i]);
}

/* Random parameters, none of them special: matrices N(0, 1/in), others their constant + 0.3 N(0,1). Buffers are among them: their
 * first value and something more. */
static inline void mk_random_params(mk_model *m, uint64_t seed) {
  mn_graph *g = mn_graph_new();
  mn_scope *s = mn_scope_new(g, (mn_build){.param = MN_F64, .compute = MN_F64}, 1);
  const mn_param_info *info;
  mn_model_declare(s, m->model);
  CHECK_OK(mn_graph_status(g));
  for (int i = 0, n = mn_scope_params(s, &info, NULL); i < n; i++) {
    double *p = mc_put(&m->params, info[i].name, info[i].shape, NULL);
    bool constant = info[i].init.kind == MN_INIT_CONSTANT;
    double base = constant ? info[i].init.a : 0;
    double std = info[i].shape.ndim < 2 || constant ? 0.3 : 1 / sqrt((double)info[i].shape.dim[info[i].shape.ndim - 1]);
    for (int64_t k = 0, count = mn_shape_count(&info[i].shape); k < count; k++)
      p[k] = base + std * mn_random_normal(mn_random_key(seed, info[i].name), 1, (uint64_t)k);
  }
  const mn_built_buffer *buffer;
  for (int i = 0, n = mn_scope_buffers(s, &buffer); i < n; i++) {
    double *p = mc_put(&m->params, buffer[i].info.name, buffer[i].info.shape, NULL);
    for (int64_t k = 0, count = mn_shape_count(&buffer[i].info.shape); k < count; k++)
      p[k] = buffer[i].info.init + 0.3 * fabs(mn_random_normal(mn_random_key(seed, buffer[i].info.name), 1, (uint64_t)k));
  }
  mn_graph_free(g);
}

static inline bool mk_open(mk_model *m, const char *yaml, uint64_t seed) {
  const mn_value *v = NULL;
  *m = (mk_model){.arena = mn_arena_new()};
  mn_status status = mn_yaml_parse(m->arena, "recipe.yaml", yaml, strlen(yaml), &v);
  if (status == MN_OK) status = mn_model_parse(v, NULL, 0, &m->model);
  CHECK(status == MN_OK, "%s: %s", yaml, mn_message());
  if (status == MN_OK) mk_random_params(m, seed);
  return status == MN_OK;
}

static inline void mk_close(mk_model *m) {
  mn_model_free(m->model);
  mc_bag_free(&m->params);
  mn_arena_free(m->arena);
}

/* ---- inputs ---- */
static inline void mk_tokens(mc_bag *in, const char *name, int64_t B, int64_t T, int64_t vocab_size, uint64_t seed) {
  double *x = mc_put(in, name, MN_SHAPE(B, T), NULL);
  for (int64_t i = 0; i < B * T; i++) x[i] = floor(mn_random_uniform(seed, 3, (uint64_t)i) * (double)vocab_size);
}
static inline void mk_numbers(mc_bag *in, const char *name, mn_shape shape, uint64_t seed) {
  double *x = mc_put(in, name, shape, NULL);
  for (int64_t i = 0; i < mn_shape_count(&shape); i++) x[i] = mn_random_normal(seed, 4, (uint64_t)i);
}

/* ---- building and running ---- inputs are those of the bag whose names are ports. */
static inline bool mk_build(mk_model *m, const mc_bag *in, bool carried, mk_built *b) {
  *b = (mk_built){.g = mn_graph_new()};
  int64_t B = in->t[0].shape.dim[0];
  b->s = mn_scope_new(b->g, (mn_build){.param = MN_F64, .compute = MN_F64, .carried = carried}, B);
  for (int i = 0; i < in->n; i++) {
    const mn_port *p = mn_model_input(m->model, in->t[i].name);
    if (!p) continue;
    mn_dtype t = p->dtype == MN_F32 ? MN_F64 : p->dtype;
    b->in_mem[b->in.n] = mc_pack(in->t[i].x, t, mn_shape_count(&in->t[i].shape));
    mn_io_put(&b->in, p->name, mn_input(b->g, p->name, t, in->t[i].shape));
  }
  mn_model_build(b->s, m->model, &b->in, &b->out);
  bool ok = mn_graph_status(b->g) == MN_OK;
  if (!ok) printf("  %s\n", mn_message());
  return ok;
}

static inline bool mk_bind_buffers(mk_model *m, mk_built *b, mn_plan *plan) {
  const mn_built_buffer *buffer;
  for (int i = 0, n = mn_scope_buffers(b->s, &buffer); i < n; i++) {
    mc_tensor *p = mc_get(&m->params, buffer[i].info.name);
    CHECK(p && mn_shape_equal(&p->shape, &buffer[i].info.shape), "buffer %s has no value of its shape", buffer[i].info.name);
    if (!p) return false;
    if (!b->buffer_mem[i]) b->buffer_mem[i] = mc_pack(p->x, buffer[i].info.dtype, mn_shape_count(&p->shape));
    mn_plan_bind(plan, buffer[i].leaf, b->buffer_mem[i]);
  }
  return true;
}

static inline bool mk_bind(mk_model *m, mk_built *b) {
  const mn_param_info *info;
  mn_tensor *const *t;
  for (int i = 0, n = mn_scope_params(b->s, &info, &t); i < n; i++) {
    mc_tensor *p = mc_get(&m->params, info[i].name);
    bool fits = p && mn_shape_equal(&p->shape, &info[i].shape);
    CHECK(fits, "parameter %s has no value of its shape", info[i].name);
    if (!fits) return false;
    b->param_mem[i] = mc_pack(p->x, MN_F64, mn_shape_count(&p->shape));
    mn_plan_bind(b->plan, t[i], b->param_mem[i]);
  }
  for (int i = 0; i < b->in.n; i++) mn_plan_bind(b->plan, b->in.tensor[i], b->in_mem[i]);
  return mk_bind_buffers(m, b, b->plan);
}

/* A fixed random weight for every entry of every output, and the model's own losses. */
static inline mn_tensor *mk_objective(mk_built *b) {
  mn_tensor *own = mn_scope_total_loss(b->s), *total = own ? own : mn_scalar(b->g, MN_F64, 0);
  for (int i = 0; i < b->out.n; i++) {
    mn_tensor *y = b->out.tensor[i];
    double *w = mc_normal(mn_shape_count(&y->shape), 1, mn_random_key(77, b->out.name[i]));
    mn_tensor *t = mn_mul(b->g, mn_cast(b->g, y, MN_F64), mn_const(b->g, MN_F64, y->shape, w));
    total = mn_add(b->g, total, mn_reshape(b->g, mn_sum(b->g, t, ~0u), (mn_shape){0}));
    free(w);
  }
  return total;
}

/* What a program makes of a model: the inputs of the bag that are its ports in, `only` (NULL: all outputs) out. */
typedef struct mk_call {
  mk_model *m;
  const mc_bag *in;
  const char *only;
} mk_call;
static inline mn_status mk_outputs(void *ctx, mn_scope *s, const mn_form *form, mn_parts *parts) {
  const mk_call *c = ctx;
  mn_model_io in = {0}, out;
  (void)form; /* there is one, of the inputs' sizes */
  for (int i = 0; i < c->in->n; i++) {
    const mn_port *p = mn_model_input(c->m->model, c->in->t[i].name);
    const mn_dtype t = p && p->dtype == MN_F32 ? MN_F64 : p ? p->dtype : MN_F64;
    if (p) mn_io_put(&in, p->name, mn_parts_feed(parts, p->name, t, c->in->t[i].shape));
  }
  mn_model_build(s, c->m->model, &in, &out);
  MN_TRY(mn_graph_status(mn_scope_graph(s)));
  for (int i = 0; i < out.n; i++)
    if (!c->only || !strcmp(c->only, out.name[i])) mn_parts_give(parts, out.name[i], out.tensor[i]);
  return MN_OK;
}
static inline bool mk_call_open(trial *t, mk_call *c, bool carried) {
  const mn_program_config config = {.backend = mn_backend_ref(),
                                    .build = {.param = MN_F64, .compute = MN_F64, .carried = carried},
                                    .builder = mk_outputs,
                                    .ctx = c,
                                    .learn = {.batch = c->in->t[0].shape.dim[0], .length = 1}};
  return trial_open(t, &config, &c->m->params);
}

/* All outputs by name. */
static inline bool mk_run(mk_model *m, const mc_bag *in, mc_bag *out) {
  mk_call c = {m, in, NULL};
  trial t;
  const bool ok = mk_call_open(&t, &c, false) && trial_run(&t, &mn_program_config_of(t.program)->learn, NULL, NULL, in, out);
  CHECK(ok, "%s", mn_message());
  trial_close(&t);
  return ok;
}

/* The worst error of gradients (of parameters and of inputs that are numbers) against fourth-order central differences, relative to
 * each tensor's largest; about `entries` entries of each, in steps of h: small where the model has corners. */
static inline double mk_gradient_error_by(mk_model *m, const mc_bag *in, int entries, uint64_t seed, double h) {
  mk_built b;
  double worst = INFINITY, *mem[MC_MAX], *grad[MC_MAX] = {NULL};
  mn_tensor *wrt[MC_MAX], *d[MC_MAX + 1];
  mn_tensor *const *params;
  mn_plan *plan = NULL;
  int n = 0, n_params;
  bool ok = mk_build(m, in, false, &b);
  mn_tensor *y = ok ? mk_objective(&b) : NULL;
  n_params = mn_scope_params(b.s, NULL, &params);
  for (int i = 0; i < n_params; i++) wrt[n++] = params[i];
  for (int i = 0; i < b.in.n; i++)
    if (b.in.tensor[i]->dtype == MN_F64) wrt[n++] = b.in.tensor[i];
  d[0] = y;
  ok = ok && mn_grad(b.g, 1, &y, NULL, n, wrt, d + 1) == MN_OK;
  mn_plan_request q = {.graph = b.g, .n_outputs = n + 1, .outputs = d, .backend = mn_backend_ref()};
  mn_plan_request value = {.graph = b.g, .n_outputs = 1, .outputs = &y, .backend = mn_backend_ref()};
  ok = ok && mn_plan_compile(&q, &b.plan) == MN_OK && mk_bind(m, &b) && mn_plan_run(b.plan) == MN_OK;
  for (int i = 0; ok && i < n; i++) {
    const mn_view *v = mn_plan_output(b.plan, i + 1);
    grad[i] = malloc((size_t)(mn_view_count(v) + 1) * sizeof(double));
    mc_unpack(v->data, v->dtype, mn_view_count(v), grad[i]);
  }
  ok = ok && mn_plan_compile(&value, &plan) == MN_OK && mk_bind_buffers(m, &b, plan);
  for (int i = 0, k = n_params; ok && i < b.in.n; i++) {
    mn_plan_bind(plan, b.in.tensor[i], b.in_mem[i]);
    if (b.in.tensor[i]->dtype == MN_F64) mem[k++] = b.in_mem[i];
  }
  for (int i = 0; ok && i < n_params; i++) mn_plan_bind(plan, params[i], mem[i] = b.param_mem[i]);
  if (ok) worst = 0;
  for (int i = 0; ok && i < n; i++) {
    int64_t count = mn_shape_count(&wrt[i]->shape);
    double scale = 1e-3; /* a bias of all keys alike has no gradient, and so no relative error */
    for (int64_t k = 0; k < count; k++) scale = fmax(scale, fabs(grad[i][k]));
    for (int64_t k = 0; k < count; k++) {
      if (mn_random_uniform(seed, (uint64_t)i, (uint64_t)k) * (double)count > entries) continue;
      double keep = mem[i][k], numeric = 0;
      for (int j = 0; j < 4; j++) {
        mem[i][k] = keep + h * (double[]){-2, -1, 1, 2}[j];
        double f = mn_plan_run(plan) == MN_OK ? *(const double *)mn_plan_output(plan, 0)->data : NAN;
        numeric += f * (double[]){1, -8, 8, -1}[j] / (12 * h);
      }
      mem[i][k] = keep;
      double e = fabs(numeric - grad[i][k]) / scale;
      if (!(e <= worst)) worst = isfinite(e) ? e : INFINITY;
    }
  }
  if (!ok) printf("  %s\n", mn_message());
  for (int i = 0; i < n; i++) free(grad[i]);
  mn_plan_free(plan);
  mk_free(&b);
  return worst;
}

static inline double mk_gradient_error(mk_model *m, const mc_bag *in, int entries, uint64_t seed) {
  return mk_gradient_error_by(m, in, entries, seed, 2e-4);
}

/* ---- streams ---- */
/* Tokens [from, to) of each input that has the axis T; whole inputs that have not, those that a stream keeps with the first
 * segment alone. */
static inline void mk_cut(mk_model *m, const mc_bag *in, int64_t from, int64_t to, mc_bag *piece) {
  for (int i = 0; i < in->n; i++) {
    const mc_tensor *t = &in->t[i];
    const mn_port *p = mn_model_input(m->model, t->name);
    if (!p) continue;
    bool of_source = strncmp(p->name, "source", 6) == 0;
    if (of_source && from > 0) continue;
    if (of_source || p->axes[1] != 'T') {
      mc_put(piece, t->name, t->shape, t->x);
      continue;
    }
    mn_shape s = t->shape;
    int64_t inner = mn_shape_count(&s) / (s.dim[0] * s.dim[1]);
    s.dim[1] = to - from;
    double *x = mc_put(piece, t->name, s, NULL);
    for (int64_t b = 0; b < s.dim[0]; b++)
      memcpy(x + b * (to - from) * inner, t->x + (b * t->shape.dim[1] + from) * inner, (size_t)((to - from) * inner) * sizeof *x);
  }
}

/* One segment as a stream, which begins where the bag of states is empty. */
static inline bool mk_segment(mk_model *m, const mc_bag *in, mc_bag *state, const char *name, mc_bag *out) {
  mk_call c = {m, in, name};
  trial t;
  mn_states *states = NULL;
  bool ok = mk_call_open(&t, &c, true);
  if (ok && mn_program_states(t.program, in->t[0].shape.dim[0], &states) != MN_OK) ok = mc_complain("states");
  if (ok && state->n) ok = trial_states_put(states, state);
  ok = ok && trial_run(&t, &mn_program_config_of(t.program)->learn, states, NULL, in, out) && trial_states_get(states, state);
  mn_states_free(states);
  trial_close(&t);
  return ok;
}

/* The output `name` [B,T,...] of T tokens in pieces that end at cuts, against one piece that is no stream. */
static inline double mk_split_error(mk_model *m, const mc_bag *in, const char *name, int64_t T, int n_cuts, const int64_t *cuts) {
  mc_bag whole = {0}, state = {0};
  double worst = mk_run(m, in, &whole) ? 0 : INFINITY;
  mc_tensor *y = mc_get(&whole, name);
  for (int i = 0; i <= n_cuts && y; i++) {
    int64_t from = i ? cuts[i - 1] : 0, to = i < n_cuts ? cuts[i] : T;
    mc_bag piece = {0}, out = {0};
    mk_cut(m, in, from, to, &piece);
    if (!mk_segment(m, &piece, &state, name, &out)) worst = INFINITY;
    mc_tensor *part = mc_get(&out, name);
    int64_t inner = mn_shape_count(&y->shape) / (y->shape.dim[0] * y->shape.dim[1]), n = (to - from) * inner;
    for (int64_t b = 0; part && b < y->shape.dim[0]; b++)
      worst = fmax(worst, mc_difference(part->x + b * n, y->x + (b * T + from) * inner, n));
    mc_bag_free(&piece);
    mc_bag_free(&out);
  }
  mc_bag_free(&whole);
  mc_bag_free(&state);
  return worst;
}

/* ---- golden files: tests/golden/models/<file>.safetensors ---- in.<port>, out.<port>, and parameters by name. */
typedef struct mk_golden {
  mk_model m;
  mc_bag in, want;
} mk_golden;

static inline void mk_golden_close(mk_golden *f) {
  mk_close(&f->m);
  mc_bag_free(&f->in);
  mc_bag_free(&f->want);
}

static inline bool mk_golden_open(mk_golden *f, const char *file) {
  char path[512];
  mn_st *st = NULL;
  *f = (mk_golden){0};
  snprintf(path, sizeof path, "%s/tests/golden/models/%s.safetensors", MN_TEST_SOURCE_DIR, file);
  CHECK_OK(mn_st_open(path, &st));
  const char *config = st ? mn_st_meta(st, "config") : NULL;
  bool ok = config && mk_open(&f->m, config, 1);
  int given = 0;
  for (int i = 0; ok && i < mn_st_count(st); i++) {
    const mn_st_tensor *t = mn_st_at(st, i);
    mc_bag *bag = !strncmp(t->name, "in.", 3) ? &f->in : !strncmp(t->name, "out.", 4) ? &f->want : &f->m.params;
    const char *name = bag == &f->in ? t->name + 3 : bag == &f->want ? t->name + 4 : t->name;
    CHECK(bag != &f->m.params || mc_get(&f->m.params, name), "%s: %s is no parameter of the model", file, name);
    given += bag == &f->m.params;
    CHECK_OK(mn_st_read(st, t, MN_F64, mc_put(bag, name, t->shape, NULL)));
  }
  CHECK(!ok || given == f->m.params.n, "%s gives %d of %d parameters", file, given, f->m.params.n);
  CHECK(!ok || f->want.n > 0, "%s has no outputs", file);
  mn_st_close(st);
  if (!ok) mk_golden_close(f);
  return ok;
}

/* The worst difference of any output that the file has. */
static inline double mk_golden_error(mk_golden *f) {
  mc_bag out = {0};
  double worst = mk_run(&f->m, &f->in, &out) ? 0 : INFINITY;
  for (int i = 0; i < f->want.n && isfinite(worst); i++) {
    mc_tensor *y = mc_get(&out, f->want.t[i].name), *want = &f->want.t[i];
    bool fits = y && mn_shape_equal(&y->shape, &want->shape);
    worst = fmax(worst, fits ? mc_difference(y->x, want->x, mn_shape_count(&y->shape)) : INFINITY);
  }
  mc_bag_free(&out);
  return worst;
}

/* A recipe's model that must be refused: the message holds every one of `words`, separated by '|'. */
static inline void mk_refused(const char *yaml, const char *words) {
  mn_arena *arena = mn_arena_new();
  const mn_value *v = NULL;
  mn_model *m = NULL;
  char word[128];
  CHECK_OK(mn_yaml_parse(arena, "recipe.yaml", yaml, strlen(yaml), &v));
  mn_status status = v ? mn_model_parse(v, NULL, 0, &m) : MN_ERR_FORMAT;
  CHECK(status == MN_ERR_CONFIG, "%s: %s", yaml, mn_status_name(status));
  for (const char *p = words; *p;) {
    size_t n = strcspn(p, "|");
    snprintf(word, sizeof word, "%.*s", (int)n, p);
    CHECK(status == MN_OK || strstr(mn_message(), word) != NULL, "the message \"%s\" does not say %s", mn_message(), word);
    p += n + (p[n] == '|');
  }
  if (m) mn_model_free(m);
  mn_arena_free(arena);
}

/* Gradients of sum(w * hidden) for all parameters, w[i] = cos(i + 1) from token `from` on and 0 before it. grad
 * (NULL: they are not run) gets them by name, report (or NULL) what compiling them said. */
static inline bool mk_gradients(mk_model *m, const mc_bag *in, int64_t from, mc_bag *grad, mn_plan_report *report) {
  mk_built b;
  mn_tensor *d[MC_MAX];
  mn_tensor *const *params;
  const mn_param_info *info;
  bool ok = mk_build(m, in, false, &b);
  mn_tensor *h = mn_io_get(&b.out, "hidden");
  int n = mn_scope_params(b.s, &info, &params);
  if (ok) {
    int64_t count = mn_shape_count(&h->shape), T = h->shape.dim[1], D = h->shape.dim[2];
    double *w = malloc((size_t)count * sizeof *w);
    for (int64_t i = 0; i < count; i++) w[i] = i / D % T < from ? 0 : cos((double)(i + 1));
    mn_tensor *dy = mn_const(b.g, MN_F64, h->shape, w);
    free(w);
    ok = mn_grad(b.g, 1, &h, &dy, n, params, d) == MN_OK;
  }
  mn_plan_request q = {.graph = b.g, .n_outputs = n, .outputs = d, .backend = mn_backend_ref()};
  if (report) q.passes_off = MN_PASS_LOOPS; /* which trades memory for speed, up to 128 MiB a loop */
  ok = ok && mn_plan_compile(&q, &b.plan) == MN_OK;
  if (ok && report) *report = *mn_plan_get_report(b.plan);
  if (ok && grad) ok = mk_bind(m, &b) && mn_plan_run(b.plan) == MN_OK;
  for (int i = 0; ok && grad && i < n; i++) {
    const mn_view *v = mn_plan_output(b.plan, i);
    mc_unpack(v->data, v->dtype, mn_view_count(v), mc_put(grad, info[i].name, info[i].shape, NULL));
  }
  CHECK(ok, "%s", mn_message());
  mk_free(&b);
  return ok;
}

#endif
