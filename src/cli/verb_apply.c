/* verb_apply.c - `mneme apply`: one mixer, block or model on given tensors, with gradients and state, so that anyone can
 * hold Mneme against another implementation. */
#include "backend/ref/element.h"
#include "base/file.h"
#include "base/finite.h"
#include "cli/unit_arg.h"
#include "format/safetensors.h"

#include <stdlib.h>
#include <string.h>

static const mn_option options[] = {
    {"params", "FILE", NULL, "parameters by name (safetensors); absent: initialised from --seed", 0},
    {"input", "FILE", NULL, "x [B,T,D] (a model: tokens [B,T]) and, with --grad, optionally cotangents: dy, cotangent.state.<name>", 0},
    {"output", "FILE", NULL, "where y goes and, with --grad, grad.x, grad.<parameter> and grad.state.<name>", MN_OPTION_OUTPUT},
    {"grad", NULL, NULL, "also the gradients of sum(y * dy); dy absent from the input: ones", 0},
    {"report", "NAME", NULL, "also what the mixers tell about each token, as report.<path>, e.g. surprise (Titans)", MN_OPTION_REPEATS},
    {"dtype", "TYPE", "f32", "f32, f64 (the reference backend) or bf16 (products in bf16)", 0},
    {"state-in", "FILE", NULL, "the state to start from, by name; absent: a fresh stream", 0},
    {"state-out", "FILE", NULL, "where the state after the last token goes", MN_OPTION_OUTPUT},
    {"forget", NULL, NULL, "past the end of a cache (max_context) forget the oldest tokens", 0},
    {"params-out", "FILE", NULL, "writes the parameters that were used", MN_OPTION_OUTPUT},
    {0}};
static const char *const examples[] = {
    "mneme apply titans.yaml --params p.safetensors --input x.safetensors --output y.safetensors --grad --dtype f64",
    "mneme apply titans.yaml --params p.safetensors --input x.safetensors --output y.safetensors --state-out s.safetensors", NULL};

#define COTANGENT "cotangent.state."

typedef struct work {
  mn_cli *cli;
  mn_arena *arena;
  mn_backend *backend;
  mn_unit unit;
  mn_params *params;
  mn_build build;
  mn_st *input, *state_in;
  int64_t B, T;
  mn_st_writer *out, *state_out;
  void **held; /* host memory the writers point at */
  int n_held;
} work;

static mn_status need_option(mn_cli *cli, const char *name, const char **value) {
  *value = mn_cli_get(cli, name);
  return *value ? MN_OK : mn_fail(MN_ERR_ARG, "--%s FILE is needed; see mneme apply --help", name);
}

static mn_status hold(work *w, size_t n, void **p) {
  void **held = mn_realloc(w->held, (size_t)(w->n_held + 1) * sizeof *held);
  if (!held) return MN_ERR_MEMORY;
  w->held = held;
  *p = w->held[w->n_held] = mn_alloc(n);
  if (!*p) return MN_ERR_MEMORY;
  w->n_held++;
  return MN_OK;
}

/* A tensor of a file as memory of the wanted type. */
static mn_status read_tensor(work *w, const mn_st *st, const char *name, const mn_tensor *like, void **p) {
  const mn_st_tensor *t;
  MN_TRY(mn_st_need(st, name, &like->shape, &t));
  MN_TRY(hold(w, (size_t)mn_shape_count(&like->shape) * mn_dtype_size(like->dtype), p));
  return mn_st_read_finite(st, t, like->dtype, *p);
}

/* What is no number is no result. */
static mn_status write_numbers(mn_st_writer *to, const char *name, mn_dtype dtype, const mn_shape *shape, const void *data) {
  int64_t bad = mn_first_not_finite(dtype, data, mn_shape_count(shape));
  if (bad < 0) return mn_st_writer_add(to, name, dtype, shape, data);
  return mn_fail(MN_ERR_NUMERIC, "%s is not finite (element %lld is %s); nothing is written", name, (long long)bad,
                 mn_not_finite_name(dtype, data, bad));
}

static mn_status write_view(work *w, mn_st_writer *to, const char *name, const mn_view *v) {
  mn_shape s = mn_shape_of(v->ndim, v->dim);
  size_t n = (size_t)mn_view_count(v) * mn_dtype_size(v->dtype);
  void *p;
  MN_TRY(hold(w, n, &p));
  MN_TRY(w->backend->download(w->backend, p, v->data, n));
  return write_numbers(to, name, v->dtype, &s, p);
}

/* A model's input: ids of its vocabulary. */
static mn_status check_tokens(const work *w, const mn_tensor *x, const int32_t *tokens) {
  if (w->unit.kind != MN_UNIT_MODEL) return MN_OK;
  int64_t V = w->unit.model->config.vocab_size;
  for (int64_t i = 0, n = mn_shape_count(&x->shape); i < n; i++)
    if (tokens[i] < 0 || tokens[i] >= V)
      return mn_fail(MN_ERR_CONFIG, "%s: tokens holds %d (element %lld); the model's vocabulary has %lld", mn_st_path(w->input), tokens[i],
                     (long long)i, (long long)V);
  return MN_OK;
}

static mn_status prepare(work *w) {
  static const char *const types[] = {"f32", "f64", "bf16", NULL};
  const char *path;
  int type;
  MN_TRY(mn_cli_choice(w->cli, "dtype", types, &type));
  w->build = (mn_build){.param = type == 1 ? MN_F64 : MN_F32, .compute = (mn_dtype[]){MN_F32, MN_F64, MN_BF16}[type]};
  w->build.carried = mn_cli_get(w->cli, "state-in") || mn_cli_get(w->cli, "state-out");
  w->build.forget = mn_cli_given(w->cli, "forget");
  MN_TRY(mn_cli_only(w->cli, !mn_cli_given(w->cli, "params"), "drawn parameters, and --params gives them", "seed"));
  MN_TRY(mn_cli_unit(w->cli, w->arena, 0, &w->unit));
  if (type == 1) w->backend = mn_backend_ref();
  else MN_TRY(mn_backend_cpu_new(w->cli->threads, &w->backend));
  MN_TRY(need_option(w->cli, "input", &path));
  MN_TRY(mn_st_open(path, &w->input));
  const char *name = w->unit.kind == MN_UNIT_MODEL ? "tokens" : "x";
  const mn_st_tensor *x;
  MN_TRY(mn_st_need(w->input, name, NULL, &x));
  int rank = w->unit.kind == MN_UNIT_MODEL ? 2 : 3;
  if (x->shape.ndim != rank || x->shape.dim[0] < 1 || x->shape.dim[1] < 1 || (rank == 3 && x->shape.dim[2] != w->unit.d_model)) {
    char s[96];
    return mn_fail(MN_ERR_SHAPE, "%s: %s has shape %s; it must be %s with D = %lld", path, name, mn_shape_str(&x->shape, s),
                   rank == 2 ? "[B, T]" : "[B, T, D]", (long long)w->unit.d_model);
  }
  w->B = x->shape.dim[0];
  w->T = x->shape.dim[1];
  path = mn_cli_get(w->cli, "state-in");
  return path ? mn_st_open(path, &w->state_in) : MN_OK;
}

/* ---- what is computed ---- */
typedef struct job { /* one graph and what is read from it */
  mn_graph *g;
  mn_scope *s;
  mn_plan *plan;
  mn_tensor *x, *y;
  int n_states;
  const mn_built_state *states;
  void **state; /* memory of the states in a carried build */
  int n_ys;     /* what sum(y * dy) is made of: y, then every state that has a cotangent */
  mn_tensor **ys, **dys;
  int n_out; /* results with their names in the output file */
  mn_tensor **out;
  const char **names;
} job;

static void result(job *j, const char *name, mn_tensor *t) {
  j->names[j->n_out] = name;
  j->out[j->n_out++] = t;
}

static bool has_gradient(const mn_built_state *state) { return mn_dtype_is_float(state->info.dtype); }

/* The graph and its parameters. Without --state-in every row begins a stream in here, so that gradients reach what a stream
 * begins with. */
static mn_status build(work *w, job *j) {
  j->g = mn_graph_new();
  if (!j->g) return MN_ERR_MEMORY;
  if (w->build.carried && !w->state_in) w->build.reset = mn_full(j->g, MN_BOOL, MN_SHAPE(w->B), 1);
  j->s = mn_scope_new(j->g, w->build, w->B);
  if (!j->s) return MN_ERR_MEMORY;
  j->x = mn_unit_input(j->s, &w->unit, w->B, w->T);
  j->y = mn_unit_apply(j->s, &w->unit, j->x);
  MN_TRY(mn_graph_status(j->g));
  MN_TRY(mn_params_declare_scope(j->s, w->backend, w->build.param, &w->params));
  const char *path = mn_cli_get(w->cli, "params");
  MN_TRY(path ? mn_params_load(w->params, path) : mn_params_draw(w->params, w->cli->seed_given ? w->cli->seed : 1));
  j->n_states = mn_scope_states(j->s, &j->states);
  size_t most = (size_t)(mn_scope_params(j->s, NULL, NULL) + j->n_states +
                         mn_scope_reports(j->s, &(const char *const *){0}, &(mn_tensor *const *){0}) + 4);
  j->out = mn_arena_alloc(j->g->arena, most * sizeof *j->out);
  j->names = mn_arena_alloc(j->g->arena, most * sizeof *j->names);
  j->ys = mn_arena_alloc(j->g->arena, most * sizeof *j->ys);
  j->dys = mn_arena_alloc(j->g->arena, most * sizeof *j->dys);
  j->state = mn_arena_alloc(w->arena, most * sizeof *j->state);
  return j->out && j->names && j->ys && j->dys && j->state ? MN_OK : MN_ERR_MEMORY;
}

/* Every tensor of the input and of the state must be one that is read. */
static mn_status check_tensors(const work *w, const job *j) {
  bool grad = mn_cli_given(w->cli, "grad");
  const char **names = mn_arena_alloc(w->arena, (size_t)(j->n_states + 3) * sizeof *names);
  int n = 0;
  if (!names) return MN_ERR_MEMORY;
  names[n++] = j->x->name;
  if (grad) names[n++] = "dy";
  for (int i = 0; grad && w->build.carried && i < j->n_states; i++) {
    if (!has_gradient(&j->states[i])) continue;
    names[n] = mn_arena_format(w->arena, COTANGENT "%s", j->states[i].info.name);
    if (!names[n++]) return MN_ERR_MEMORY;
  }
  MN_TRY(
      mn_st_only(w->input, names, n,
                 grad ? "an input: there are x (a model: tokens), dy and, with --state-in or --state-out, cotangent.state.<name> for each "
                        "state of floats"
                      : "an input: there is x (a model: tokens), and cotangents with --grad"));
  if (!w->state_in) return MN_OK;
  n = 0;
  for (int i = 0; i < j->n_states; i++) names[n++] = j->states[i].info.name;
  return mn_st_only(w->state_in, names, n, "a state of this recipe");
}

/* Gradients of sum(y * dy) + sum over states (state' * cotangent.state) for the input, every parameter and, with --state-in, the
 * state that was given. */
static mn_status differentiate(work *w, job *j) {
  mn_graph *g = j->g;
  j->ys[0] = j->y;
  j->dys[0] = mn_st_find(w->input, "dy") ? mn_input(g, "dy", j->y->dtype, j->y->shape) : NULL;
  j->n_ys = 1;
  for (int i = 0; i < j->n_states; i++) {
    const mn_built_state *state = &j->states[i];
    const char *name = mn_arena_format(g->arena, COTANGENT "%s", state->info.name);
    if (!name) return MN_ERR_MEMORY;
    if (!mn_st_find(w->input, name)) continue;
    j->ys[j->n_ys] = state->value;
    j->dys[j->n_ys++] = mn_input(g, name, state->info.dtype, state->info.shape);
  }
  const mn_param_info *info;
  mn_tensor *const *params;
  int n_params = mn_scope_params(j->s, &info, &params), n = 0;
  mn_tensor **wrt = mn_arena_alloc(g->arena, (size_t)(n_params + j->n_states + 1) * sizeof *wrt), **grads = j->out + j->n_out;
  if (!wrt) return MN_ERR_MEMORY;
  int first = j->n_out;
  if (w->unit.kind != MN_UNIT_MODEL) result(j, "grad.x", wrt[n++] = j->x);
  for (int i = 0; i < n_params; i++) result(j, mn_arena_format(g->arena, "grad.%s", info[i].name), wrt[n++] = params[i]);
  for (int i = 0; w->state_in && i < j->n_states; i++)
    if (has_gradient(&j->states[i]))
      result(j, mn_arena_format(g->arena, "grad.state.%s", j->states[i].info.name), wrt[n++] = j->states[i].leaf);
  for (int i = first; i < j->n_out; i++)
    if (!j->names[i]) return MN_ERR_MEMORY;
  return mn_grad(g, j->n_ys, j->ys, j->dys, n, wrt, grads);
}

/* --report NAME: every report whose last word it is, as report.<path>. */
static mn_status add_reports(const work *w, job *j) {
  const char *wanted;
  for (int k = 0; (wanted = mn_cli_nth(w->cli, "report", k)) != NULL; k++) {
    const char *const *names;
    mn_tensor *const *values;
    int n = mn_scope_reports(j->s, &names, &values), found = 0;
    for (int i = 0; i < n; i++) {
      const char *dot = strrchr(names[i], '.');
      if (strcmp(dot ? dot + 1 : names[i], wanted) != 0 && strcmp(names[i], wanted) != 0) continue;
      const char *name = mn_arena_format(j->g->arena, "report.%s", names[i]);
      if (!name) return MN_ERR_MEMORY;
      result(j, name, values[i]);
      found++;
    }
    if (!found)
      return mn_fail(MN_ERR_ARG, "--report %s: nothing here reports it%s%s; Titans' memories report `surprise`", wanted,
                     n ? "; there is " : "", n ? names[0] : "");
  }
  return MN_OK;
}

static mn_status compile(const work *w, job *j) {
  mn_tensor **vars = mn_arena_alloc(j->g->arena, (size_t)(2 * j->n_states + 1) * sizeof *vars), **vals = vars + j->n_states;
  if (!vars) return MN_ERR_MEMORY;
  for (int i = 0; i < j->n_states; i++) vars[i] = j->states[i].leaf, vals[i] = j->states[i].value;
  mn_plan_request q = {.graph = j->g,
                       .n_outputs = j->n_out,
                       .outputs = j->out,
                       .n_assigns = w->build.carried ? j->n_states : 0,
                       .variables = vars,
                       .values = vals,
                       .backend = w->backend};
  return mn_plan_compile(&q, &j->plan);
}

/* Every stream must have room for the T tokens to come. */
static mn_status check_positions(const work *w, const mn_scope *s, const int32_t *position) {
  mn_limit limit = mn_scope_limit_of(s);
  for (int64_t b = 0; b < w->B; b++) {
    mn_status status = mn_limit_check(&limit, w->build.forget, position[b], w->T);
    if (status != MN_OK) return mn_context(status, "row %lld", (long long)b);
  }
  return MN_OK;
}

/* Parameters, inputs, cotangents and the state's memory: zeros where every stream begins in here. */
static mn_status bind(work *w, job *j) {
  void *p;
  mn_params_bind(w->params, j->s, j->plan);
  MN_TRY(read_tensor(w, w->input, j->x->name, j->x, &p));
  MN_TRY(check_tokens(w, j->x, p));
  mn_plan_bind(j->plan, j->x, p);
  for (int i = 0; i < j->n_ys; i++) {
    if (!j->dys[i]) continue;
    MN_TRY(read_tensor(w, w->input, j->dys[i]->name, j->dys[i], &p));
    mn_plan_bind(j->plan, j->dys[i], p);
  }
  for (int i = 0; w->build.carried && i < j->n_states; i++) {
    const mn_state_info *info = &j->states[i].info;
    size_t bytes = (size_t)mn_shape_count(&info->shape) * mn_dtype_size(info->dtype);
    if (w->state_in) MN_TRY(read_tensor(w, w->state_in, info->name, j->states[i].leaf, &j->state[i]));
    else {
      MN_TRY(hold(w, bytes, &j->state[i]));
      memset(j->state[i], 0, bytes);
    }
    if (i == 0) MN_TRY(check_positions(w, j->s, j->state[i]));
    mn_plan_bind(j->plan, j->states[i].leaf, j->state[i]);
  }
  return MN_OK;
}

static mn_status write_results(work *w, const job *j, const char *out_path) {
  for (int i = 0; i < j->n_out; i++) MN_TRY(write_view(w, w->out, j->names[i], mn_plan_output(j->plan, i)));
  const char *path = mn_cli_get(w->cli, "state-out");
  for (int i = 0; path && i < j->n_states; i++)
    MN_TRY(write_numbers(w->state_out, j->states[i].info.name, j->states[i].info.dtype, &j->states[i].info.shape, j->state[i]));
  MN_TRY(mn_st_writer_save(w->out, out_path));
  if (path) MN_TRY(mn_st_writer_save(w->state_out, path));
  path = mn_cli_get(w->cli, "params-out");
  return path ? mn_params_save(w->params, path) : MN_OK;
}

static mn_status compute(work *w, job *j) {
  const char *out_path;
  MN_TRY(need_option(w->cli, "output", &out_path));
  MN_TRY(build(w, j));
  MN_TRY(check_tensors(w, j));
  result(j, "y", j->y);
  if (mn_cli_given(w->cli, "grad")) MN_TRY(differentiate(w, j));
  MN_TRY(add_reports(w, j));
  MN_TRY(compile(w, j));
  MN_TRY(bind(w, j));
  MN_TRY(mn_plan_run(j->plan));
  return write_results(w, j, out_path);
}

static mn_status run(mn_cli *cli) {
  work w = {.cli = cli, .arena = mn_arena_new(), .out = mn_st_writer_new(), .state_out = mn_st_writer_new()};
  job j = {0};
  mn_status status = w.arena && w.out && w.state_out ? prepare(&w) : MN_ERR_MEMORY;
  if (status == MN_OK) status = compute(&w, &j);
  if (status == MN_OK && cli->json)
    status = mn_cli_json(cli, json_pack("{s:o, s:I, s:I, s:I}", "output", mn_cli_text(mn_cli_get(cli, "output")), "batch", (json_int_t)w.B,
                                        "seq_len", (json_int_t)w.T, "parameters", (json_int_t)mn_params_count(w.params)));
  mn_plan_free(j.plan);
  mn_graph_free(j.g);
  mn_st_writer_free(w.out);
  mn_st_writer_free(w.state_out);
  for (int i = 0; i < w.n_held; i++) free(w.held[i]);
  free(w.held);
  mn_st_close(w.input);
  mn_st_close(w.state_in);
  mn_params_free(w.params);
  mn_unit_free(&w.unit);
  mn_backend_free(w.backend);
  mn_arena_free(w.arena);
  return status;
}

const mn_verb mn_verb_apply = {
    .name = "apply",
    .purpose = MN_VERB_LOOK,
    .summary = "run one mixer, block or model on given tensors",
    .usage = "RECIPE.yaml --input X.safetensors --output Y.safetensors [options]",
    .about = "The recipe is {d_model: D, mixer: {type: ...}}, {d_model: D, block: {...}} or {model: {...}}. `mneme inspect RECIPE.yaml "
             "--params` lists every parameter and state tensor by name, shape and meaning. With --grad the gradients of sum(y * dy) "
             "for the input and every parameter are written as grad.x and grad.<parameter>.\n"
             "With states, the loss may reach into the state after the last token, too: each tensor cotangent.state.<name> of the input "
             "adds sum(state * cotangent). Without --state-in a stream begins here, and gradients reach what it begins with (a learned "
             "start as Titans' memory.init); with it, the gradient of the given state is written as grad.state.<name>, and what a stream "
             "begins with has none. So two calls chain: give the second's grad.state.<name> to the first as cotangent.state.<name>, and "
             "the parameters' gradients add up to those of one call over all tokens.",
    .options = options,
    .examples = examples,
    .common = MN_CLI_THREADS | MN_CLI_SEED | MN_CLI_SET,
    .min_args = 1,
    .max_args = 1,
    .run = run,
};
