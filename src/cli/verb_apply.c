/* verb_apply.c - `mneme apply`: one mixer, block or model on given tensors, with gradients and state, so that anyone can
 * hold Mneme against another implementation. */
#include "backend/ref/element.h"
#include "base/file.h"
#include "cli/unit_arg.h"
#include "format/safetensors.h"

#include <stdlib.h>
#include <string.h>

static const mn_option options[] = {
    {"params", "FILE", NULL, "parameters by name (safetensors); absent: initialised from --seed", 0},
    {"input", "FILE", NULL, "x [B,T,D] (a model: tokens [B,T]) and, with --grad, optionally the cotangent dy", 0},
    {"output", "FILE", NULL, "where y goes and, with --grad, grad.x and grad.<parameter>", MN_OPTION_OUTPUT},
    {"grad", NULL, NULL, "also the gradients of sum(y * dy); dy absent from the input: ones", 0},
    {"dtype", "TYPE", "f32", "f32, f64 (the reference backend) or bf16 (products in bf16)", 0},
    {"state-in", "FILE", NULL, "the state to start from, by name; absent: a fresh stream", 0},
    {"state-out", "FILE", NULL, "where the state after the last token goes", MN_OPTION_OUTPUT},
    {"forget", NULL, NULL, "past the end of a cache (max_context) forget the oldest tokens", 0},
    {"params-out", "FILE", NULL, "writes the parameters that were used", MN_OPTION_OUTPUT},
    {0}};
static const char *const examples[] = {
    "mneme apply titans.yaml --params p.safetensors --input x.safetensors --output y.safetensors --grad --dtype f64",
    "mneme apply titans.yaml --params p.safetensors --input x.safetensors --output y.safetensors --state-out s.safetensors", NULL};

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
  return mn_st_read(st, t, like->dtype, *p);
}

static mn_status write_view(work *w, mn_st_writer *to, const char *name, const mn_view *v) {
  mn_shape s = mn_shape_of(v->ndim, v->dim);
  size_t n = (size_t)mn_view_count(v) * mn_dtype_size(v->dtype);
  void *p;
  MN_TRY(hold(w, n, &p));
  MN_TRY(w->backend->download(w->backend, p, v->data, n));
  return mn_st_writer_add(to, name, v->dtype, &s, p);
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
  bool grad = mn_cli_given(w->cli, "grad");
  MN_TRY(
      mn_st_only(w->input, (const char *const[]){name, "dy"}, grad ? 2 : 1,
                 grad ? "an input: there are x (a model: tokens) and dy" : "an input: there is x (a model: tokens), and dy with --grad"));
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

/* Every stream must have room for the T tokens to come. */
static mn_status check_positions(const work *w, const mn_scope *s, const int32_t *position) {
  mn_limit limit = mn_scope_limit_of(s);
  for (int64_t b = 0; b < w->B; b++) {
    mn_status status = mn_limit_check(&limit, w->build.forget, position[b], w->T);
    if (status != MN_OK) return mn_context(status, "row %lld", (long long)b);
  }
  return MN_OK;
}

/* Every state variable gets memory: from the file, or from its initial expression. */
static mn_status bind_states(work *w, mn_graph *g, mn_scope *s, mn_plan *plan, void ***memory) {
  const mn_built_state *states;
  int n = mn_scope_states(s, &states);
  mn_tensor **init = mn_arena_alloc(g->arena, (size_t)(n + 1) * sizeof *init);
  void **m = mn_arena_alloc(w->arena, (size_t)(n + 1) * sizeof *m);
  mn_plan *start = NULL;
  if (!init || !m) return MN_ERR_MEMORY;
  const char **names = mn_arena_alloc(w->arena, (size_t)(n + 1) * sizeof *names);
  if (!names) return MN_ERR_MEMORY;
  for (int i = 0; i < n; i++) init[i] = states[i].init, names[i] = states[i].info.name;
  if (w->state_in) MN_TRY(mn_st_only(w->state_in, names, n, "a state of this recipe"));
  mn_plan_request q = {.graph = g, .n_outputs = n, .outputs = init, .backend = w->backend};
  MN_TRY(mn_plan_compile(&q, &start));
  mn_params_bind(w->params, s, start);
  mn_status status = mn_plan_run(start);
  for (int i = 0; i < n && status == MN_OK; i++) {
    size_t bytes = (size_t)mn_shape_count(&states[i].info.shape) * mn_dtype_size(states[i].info.dtype);
    if (w->state_in) status = read_tensor(w, w->state_in, states[i].info.name, states[i].leaf, &m[i]);
    else if ((status = hold(w, bytes, &m[i])) == MN_OK) status = w->backend->copy(w->backend, m[i], mn_plan_output(start, i)->data, bytes);
    if (status == MN_OK && i == 0) status = check_positions(w, s, m[0]);
    if (status == MN_OK) mn_plan_bind(plan, states[i].leaf, m[i]);
  }
  mn_plan_free(start);
  *memory = m;
  return status;
}

static mn_status compute(work *w) {
  bool grad = mn_cli_given(w->cli, "grad");
  mn_graph *g = mn_graph_new();
  mn_scope *s = g ? mn_scope_new(g, w->build, w->B) : NULL;
  mn_plan *plan = NULL;
  mn_status status = s ? MN_OK : MN_ERR_MEMORY;
  const char *path = NULL, *out_path = NULL;
  if (status != MN_OK) goto done;
  mn_tensor *x = mn_unit_input(s, &w->unit, w->B, w->T), *y = mn_unit_apply(s, &w->unit, x), *dy = NULL;
  if ((status = mn_graph_status(g)) != MN_OK) goto done;
  if ((status = mn_params_declare_scope(s, w->backend, w->build.param, &w->params)) != MN_OK) goto done;
  path = mn_cli_get(w->cli, "params");
  status = path ? mn_params_load(w->params, path) : mn_params_draw(w->params, w->cli->seed_given ? w->cli->seed : 1);
  if (status != MN_OK) goto done;
  if ((status = need_option(w->cli, "output", &out_path)) != MN_OK) goto done;

  const mn_param_info *info;
  mn_tensor *const *params;
  int n_params = mn_scope_params(s, &info, &params), n = 0;
  mn_tensor **outs = mn_arena_alloc(g->arena, (size_t)(n_params + 3) * sizeof *outs),
            **wrt = mn_arena_alloc(g->arena, (size_t)(n_params + 3) * sizeof *wrt);
  if (!outs || !wrt) {
    status = MN_ERR_MEMORY;
    goto done;
  }
  outs[n++] = y;
  bool has_dx = w->unit.kind != MN_UNIT_MODEL;
  if (grad) {
    bool given = mn_st_find(w->input, "dy") != NULL;
    dy = given ? mn_input(g, "dy", y->dtype, y->shape) : NULL;
    int k = 0;
    if (has_dx) wrt[k++] = x;
    for (int i = 0; i < n_params; i++) wrt[k++] = params[i];
    if ((status = mn_grad(g, 1, &y, &dy, k, wrt, outs + 1)) != MN_OK) goto done;
    n += k;
  }
  const mn_built_state *states;
  int n_states = mn_scope_states(s, &states);
  mn_tensor **vars = mn_arena_alloc(g->arena, (size_t)(n_states + 1) * sizeof *vars),
            **vals = mn_arena_alloc(g->arena, (size_t)(n_states + 1) * sizeof *vals);
  if (!vars || !vals) {
    status = MN_ERR_MEMORY;
    goto done;
  }
  for (int i = 0; i < n_states; i++) vars[i] = states[i].leaf, vals[i] = states[i].value;
  mn_plan_request q = {.graph = g,
                       .n_outputs = n,
                       .outputs = outs,
                       .n_assigns = w->build.carried ? n_states : 0,
                       .variables = vars,
                       .values = vals,
                       .backend = w->backend};
  if ((status = mn_plan_compile(&q, &plan)) != MN_OK) goto done;
  mn_params_bind(w->params, s, plan);
  void *p, **memory = NULL;
  if ((status = read_tensor(w, w->input, x->name, x, &p)) != MN_OK) goto done;
  mn_plan_bind(plan, x, p);
  if (dy) {
    if ((status = read_tensor(w, w->input, "dy", dy, &p)) != MN_OK) goto done;
    mn_plan_bind(plan, dy, p);
  }
  if (w->build.carried && (status = bind_states(w, g, s, plan, &memory)) != MN_OK) goto done;
  if ((status = mn_plan_run(plan)) != MN_OK) goto done;

  for (int j = 0; j < n && status == MN_OK; j++) {
    char *name = j == 0 ? mn_strdup("y") : has_dx && j == 1 ? mn_strdup("grad.x") : mn_format("grad.%s", info[j - 1 - has_dx].name);
    status = name ? write_view(w, w->out, name, mn_plan_output(plan, j)) : MN_ERR_MEMORY;
    free(name);
  }
  if (status == MN_OK) status = mn_st_writer_save(w->out, out_path);
  path = mn_cli_get(w->cli, "state-out");
  for (int i = 0; path && i < n_states && status == MN_OK; i++)
    status = mn_st_writer_add(w->state_out, states[i].info.name, states[i].info.dtype, &states[i].info.shape, memory[i]);
  if (path && status == MN_OK) status = mn_st_writer_save(w->state_out, path);
  path = mn_cli_get(w->cli, "params-out");
  if (path && status == MN_OK) status = mn_params_save(w->params, path);
done:
  mn_plan_free(plan);
  mn_graph_free(g);
  return status;
}

static mn_status run(mn_cli *cli) {
  work w = {.cli = cli, .arena = mn_arena_new(), .out = mn_st_writer_new(), .state_out = mn_st_writer_new()};
  mn_status status = w.arena && w.out && w.state_out ? prepare(&w) : MN_ERR_MEMORY;
  if (status == MN_OK) status = compute(&w);
  if (status == MN_OK && cli->json)
    status = mn_cli_json(cli, json_pack("{s:s, s:I, s:I, s:I}", "output", mn_cli_get(cli, "output"), "batch", (json_int_t)w.B, "seq_len",
                                        (json_int_t)w.T, "parameters", (json_int_t)mn_params_count(w.params)));
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
             "for the input and every parameter are written as grad.x and grad.<parameter>.",
    .options = options,
    .examples = examples,
    .common = MN_CLI_THREADS | MN_CLI_SEED | MN_CLI_SET,
    .min_args = 1,
    .max_args = 1,
    .run = run,
};
