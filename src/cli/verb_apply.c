/* verb_apply.c - `mneme apply`: one mixer, block or model on given tensors, with gradients and state, so that anyone can
 * hold Mneme against another implementation. */
#include "base/element.h"
#include "base/file.h"
#include "base/finite.h"
#include "cli/apply_inputs.h"
#include "cli/session_file.h"
#include "cli/unit_arg.h"
#include "run/program.h"

#include <stdlib.h>
#include <string.h>

static const mn_option options[] = {
    {"params", "FILE", NULL, "parameters by name (safetensors); absent: initialised from --seed", 0},
    {"input", "FILE", NULL,
     "x [B,T,D], or what the model reads (tokens, source, frames, images, series, length ...), and with --grad cotangents: dy, "
     "cotangent.state.<name>",
     0},
    {"output", "FILE", NULL, "where y goes and, with --grad, grad.x (grad.images ...), grad.<parameter> and grad.state.<name>",
     MN_OPTION_OUTPUT},
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
  mn_program *program;
  mn_states *states; /* NULL: none goes in or comes out */
  mn_build build;
  mn_st *input, *state_in;
  mn_apply_inputs inputs;
  int64_t B, T; /* rows, and tokens that a stream moves on by; 1 where the unit reads no sequence */
  mn_st_writer *out, *state_out;
  mn_session_file kept; /* of --state-in and --state-out, where they are one */
  void **held;          /* host memory the writers point at */
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
static mn_status read_tensor(work *w, const mn_st *st, const char *name, mn_dtype dtype, const mn_shape *shape, void **p) {
  const mn_st_tensor *t;
  MN_TRY(mn_st_need(st, name, shape, &t));
  MN_TRY(hold(w, (size_t)mn_shape_count(shape) * mn_dtype_size(dtype), p));
  return mn_st_read_finite(st, t, dtype, *p);
}

/* What is no number is no result. */
static mn_status write_numbers(mn_st_writer *to, const char *name, mn_dtype dtype, const mn_shape *shape, const void *data) {
  int64_t bad = mn_first_not_finite(dtype, data, mn_shape_count(shape));
  if (bad < 0) return mn_st_writer_add(to, name, dtype, shape, data);
  return mn_fail(MN_ERR_NUMERIC, "%s is not finite (element %lld is %s); nothing is written", name, (long long)bad,
                 mn_not_finite_name(dtype, data, bad));
}

static mn_status prepare(work *w) {
  const char *path;
  mn_dtype type;
  MN_TRY(mn_cli_precision(w->cli, "dtype", true, &type));
  w->build = (mn_build){.param = mn_inner_type(type), .compute = type};
  w->build.carried = mn_cli_get(w->cli, "state-in") || mn_cli_get(w->cli, "state-out");
  w->build.forget = mn_cli_given(w->cli, "forget");
  MN_TRY(mn_cli_only(w->cli, !mn_cli_given(w->cli, "params"), "drawn parameters, and --params gives them", "seed"));
  MN_TRY(mn_cli_unit(w->cli, w->arena, 0, &w->unit));
  const char *backend = mn_cli_given(w->cli, "backend") ? w->cli->backend : mn_backend_usual(type);
  MN_TRY(mn_backend_open(backend, w->cli->threads, &w->backend));
  MN_TRY(need_option(w->cli, "input", &path));
  MN_TRY(mn_st_open(path, &w->input));
  MN_TRY(mn_apply_inputs_find(&w->unit, w->input, mn_cli_get(w->cli, "state-in") != NULL, &w->inputs));
  w->B = w->inputs.sizes.B;
  w->T = w->inputs.sizes.T ? w->inputs.sizes.T : 1;
  path = mn_cli_get(w->cli, "state-in");
  MN_TRY(mn_session_file_of_both(path, mn_cli_get(w->cli, "state-out"), &w->kept));
  return path ? mn_st_open(path, &w->state_in) : MN_OK;
}

/* ---- what is computed ---- */
static bool has_gradient(const mn_built_state *state) { return mn_dtype_is_float(state->info.dtype); }

/* Parameters are a model's, whatever this call reads of them, or those of the graph that is built first. */
static mn_status open_params(work *w, const mn_scope *s) {
  if (w->params) return MN_OK;
  MN_TRY(w->unit.kind == MN_UNIT_MODEL ? mn_params_declare(w->unit.model, w->backend, w->build.param, &w->params)
                                       : mn_params_declare_scope(s, w->backend, w->build.param, &w->params));
  mn_program_use(w->program, w->params);
  const char *path = mn_cli_get(w->cli, "params");
  return path ? mn_params_load(w->params, path) : mn_params_draw(w->params, w->cli->seed_given ? w->cli->seed : 1);
}

/* Every tensor of the input and of the state must be one that is read. */
static mn_status check_tensors(const work *w, const mn_scope *s) {
  bool grad = mn_cli_given(w->cli, "grad");
  const mn_built_state *states;
  const int n_states = mn_scope_states(s, &states);
  const char **names = mn_arena_alloc(w->arena, (size_t)(n_states + MN_IO_MAX + 2) * sizeof *names);
  int n = 0;
  if (!names) return MN_ERR_MEMORY;
  mn_text what = {0};
  mn_text_add(&what, "an input: there are");
  for (const mn_port *p = mn_apply_ports(&w->unit); p->name; p++) {
    names[n++] = p->name;
    mn_text_addf(&what, " %s,", p->name);
  }
  if (grad) names[n++] = "dy";
  for (int i = 0; grad && w->build.carried && i < n_states; i++) {
    if (!has_gradient(&states[i])) continue;
    names[n] = mn_arena_format(w->arena, COTANGENT "%s", states[i].info.name);
    if (!names[n++]) return MN_ERR_MEMORY;
  }
  mn_text_add(&what, grad ? " dy and, with --state-in or --state-out, cotangent.state.<name> for each state of floats"
                          : " and cotangents with --grad");
  mn_status status = mn_text_status(&what);
  if (status == MN_OK) status = mn_st_only(w->input, names, n, what.data);
  mn_text_free(&what);
  MN_TRY(status);
  if (!w->state_in) return MN_OK;
  n = 0;
  for (int i = 0; i < n_states; i++) names[n++] = states[i].info.name;
  return mn_st_only(w->state_in, names, n, "a state of this recipe");
}

typedef struct sum { /* what gradients are of: sum over i of y[i] * dy[i] */
  int n;
  mn_tensor **y, **dy; /* dy NULL: ones */
} sum;

/* y and, where the input has a cotangent for one, states after the last token. */
static mn_status list_sum(const work *w, mn_scope *s, mn_tensor *y, mn_parts *parts, sum *out) {
  mn_graph *g = mn_scope_graph(s);
  const mn_built_state *states;
  const int n_states = mn_scope_states(s, &states);
  out->y = mn_arena_alloc(g->arena, (size_t)(2 * n_states + 2) * sizeof *out->y);
  if (!out->y) return MN_ERR_MEMORY;
  out->dy = out->y + n_states + 1;
  out->y[0] = y;
  out->dy[0] = mn_st_find(w->input, "dy") ? mn_parts_feed(parts, "dy", y->dtype, y->shape) : NULL;
  out->n = 1;
  for (int i = 0; i < n_states; i++) {
    const char *name = mn_arena_format(g->arena, COTANGENT "%s", states[i].info.name);
    if (!name) return MN_ERR_MEMORY;
    if (!mn_st_find(w->input, name)) continue;
    out->y[out->n] = states[i].value;
    out->dy[out->n++] = mn_parts_feed(parts, name, states[i].info.dtype, states[i].info.shape);
  }
  return MN_OK;
}

/* Gradients of sum(y * dy) + sum over states (state' * cotangent.state) for the inputs that are numbers, every parameter
 * and, with --state-in, the state that was given. */
static mn_status differentiate(const work *w, mn_scope *s, const mn_model_io *in, mn_tensor *y, mn_parts *parts) {
  mn_graph *g = mn_scope_graph(s);
  const mn_param_info *info;
  const mn_built_state *states;
  mn_tensor *const *params;
  const int n_params = mn_scope_params(s, &info, &params), n_states = mn_scope_states(s, &states), most = n_params + n_states + in->n;
  mn_tensor **wrt = mn_arena_alloc(g->arena, (size_t)(2 * most) * sizeof *wrt);
  const char **names = mn_arena_alloc(g->arena, (size_t)most * sizeof *names);
  sum of;
  int n = 0;
  if (!wrt || !names) return MN_ERR_MEMORY;
  MN_TRY(list_sum(w, s, y, parts, &of));
  for (int i = 0; i < in->n; i++)
    if (mn_dtype_is_float(in->tensor[i]->dtype)) names[n] = mn_arena_format(g->arena, "grad.%s", in->name[i]), wrt[n++] = in->tensor[i];
  for (int i = 0; i < n_params; i++) names[n] = mn_arena_format(g->arena, "grad.%s", info[i].name), wrt[n++] = params[i];
  for (int i = 0; w->state_in && i < n_states; i++)
    if (has_gradient(&states[i])) names[n] = mn_arena_format(g->arena, "grad.state.%s", states[i].info.name), wrt[n++] = states[i].leaf;
  mn_tensor **grads = wrt + most;
  MN_TRY(mn_grad(g, of.n, of.y, of.dy, n, wrt, grads));
  for (int i = 0; i < n; i++) {
    if (!names[i]) return MN_ERR_MEMORY;
    mn_parts_give(parts, names[i], grads[i]);
  }
  return MN_OK;
}

/* --report NAME: every report whose last word it is, as report.<path>. */
static mn_status add_reports(const work *w, mn_scope *s, mn_parts *parts) {
  const char *wanted;
  for (int k = 0; (wanted = mn_cli_nth(w->cli, "report", k)) != NULL; k++) {
    const char *const *names;
    mn_tensor *const *values;
    int n = mn_scope_reports(s, &names, &values), found = 0;
    for (int i = 0; i < n; i++) {
      const char *dot = strrchr(names[i], '.');
      if (strcmp(dot ? dot + 1 : names[i], wanted) != 0 && strcmp(names[i], wanted) != 0) continue;
      const char *name = mn_arena_format(mn_scope_graph(s)->arena, "report.%s", names[i]);
      if (!name) return MN_ERR_MEMORY;
      mn_parts_give(parts, name, values[i]);
      found++;
    }
    if (!found)
      return mn_fail(MN_ERR_ARG,
                     "--report %s: nothing here reports it%s%s; Titans' memories report `surprise`, but not from inside a loop over "
                     "segments (titans_mac with more tokens than its segment)",
                     wanted, n ? "; there is " : "", n ? names[0] : "");
  }
  return MN_OK;
}

static mn_status build(void *ctx, mn_scope *s, const mn_form *form, mn_parts *parts) {
  work *w = ctx;
  mn_model_io in;
  (void)form; /* there is one, of the inputs' sizes */
  mn_apply_inputs_leaves(s, &w->inputs, &in);
  mn_tensor *y = mn_unit_apply(s, &w->unit, &in);
  MN_TRY(mn_graph_status(mn_scope_graph(s)));
  MN_TRY(open_params(w, s));
  MN_TRY(check_tensors(w, s));
  for (int i = 0; i < in.n; i++) mn_parts_fed(parts, in.tensor[i]);
  mn_parts_give(parts, "y", y);
  if (mn_cli_given(w->cli, "grad")) MN_TRY(differentiate(w, s, &in, y, parts));
  return add_reports(w, s, parts);
}

/* Without --state-in every row begins a stream in here, so that gradients reach what a stream begins with. */
static mn_status open_program(work *w, mn_form form) {
  const mn_program_config c = {
      .backend = w->backend, .build = w->build, .builder = build, .ctx = w, .learn = form, .fresh = w->build.carried && !w->state_in};
  MN_TRY(mn_program_new(&c, &w->program));
  return w->build.carried ? mn_program_states(w->program, w->B, &w->states) : MN_OK;
}

/* ---- what goes in and comes out ---- */
/* Every stream must have room for the T tokens to come. */
static mn_status check_positions(const work *w) {
  mn_limit limit;
  MN_TRY(mn_program_limit(w->program, &limit));
  for (int64_t b = 0; b < w->B; b++) {
    mn_status status = mn_limit_check(&limit, w->build.forget, mn_states_position(w->states)[b], w->T);
    if (status != MN_OK) return mn_context(status, "row %lld", (long long)b);
  }
  return MN_OK;
}

static mn_status read_states(work *w) {
  void *p;
  for (int i = 0; w->state_in && i < mn_states_count(w->states); i++) {
    const mn_state_info *info = mn_states_info(w->states, i);
    MN_TRY(read_tensor(w, w->state_in, info->name, info->dtype, &info->shape, &p));
    MN_TRY(mn_states_put(w->states, i, p));
  }
  return check_positions(w);
}

/* The inputs and the cotangents, by their names in the file. */
static mn_status read_feeds(work *w, mn_routine *r) {
  void *p;
  for (int i = 0; i < mn_routine_feeds(r); i++) {
    const char *name = mn_routine_feed_name(r, i);
    MN_TRY(read_tensor(w, w->input, name, mn_routine_feed_type(r, i), mn_routine_feed_shape(r, i), &p));
    MN_TRY(mn_apply_inputs_check(&w->inputs, name, p, mn_shape_count(mn_routine_feed_shape(r, i))));
    MN_TRY(mn_routine_put(r, i, p));
  }
  return MN_OK;
}

static mn_status take_results(work *w, const mn_routine *r) {
  for (int j = 0; j < mn_routine_results(r); j++) {
    const mn_shape *shape = mn_routine_result_shape(r, j);
    const mn_dtype type = mn_routine_result_type(r, j);
    void *p;
    MN_TRY(hold(w, (size_t)mn_shape_count(shape) * mn_dtype_size(type), &p));
    MN_TRY(mn_routine_get_all(r, j, p));
    MN_TRY(write_numbers(w->out, mn_routine_result_name(r, j), type, shape, p));
  }
  return MN_OK;
}

static mn_status take_states(work *w) {
  for (int i = 0; i < mn_states_count(w->states); i++) {
    const mn_state_info *info = mn_states_info(w->states, i);
    void *p;
    MN_TRY(hold(w, mn_states_bytes(w->states, i), &p));
    MN_TRY(mn_states_get(w->states, i, p));
    MN_TRY(write_numbers(w->state_out, info->name, info->dtype, &info->shape, p));
  }
  return MN_OK;
}

static mn_status run_once(work *w, mn_form form) {
  mn_routine *r;
  MN_TRY(mn_program_enter(w->program, &form, &r));
  mn_status status = read_feeds(w, r);
  if (status == MN_OK) status = mn_routine_run(r, w->states);
  if (status == MN_OK) status = take_results(w, r);
  mn_program_leave(w->program);
  return status;
}

static mn_status write_state(void *ctx, const char *path, mn_file_stamp *stamp) { return mn_st_writer_save_over(ctx, path, stamp); }

static mn_status compute(work *w) {
  const char *out_path, *path = mn_cli_get(w->cli, "state-out");
  const mn_form form = {.batch = w->B, .length = w->T};
  MN_TRY(need_option(w->cli, "output", &out_path));
  MN_TRY(open_program(w, form));
  if (w->states) MN_TRY(read_states(w));
  MN_TRY(run_once(w, form));
  if (path) MN_TRY(take_states(w));
  MN_TRY(mn_st_writer_save(w->out, out_path));
  if (path) MN_TRY(mn_session_file_save_to(&w->kept, path, write_state, w->state_out));
  path = mn_cli_get(w->cli, "params-out");
  return path ? mn_params_save(w->params, path) : MN_OK;
}

static mn_status run(mn_cli *cli) {
  work w = {.cli = cli, .arena = mn_arena_new(), .out = mn_st_writer_new(), .state_out = mn_st_writer_new()};
  mn_status status = w.arena && w.out && w.state_out ? prepare(&w) : MN_ERR_MEMORY;
  if (status == MN_OK) status = compute(&w);
  if (status == MN_OK && cli->json)
    status = mn_cli_json(cli, json_pack("{s:o, s:I, s:I, s:I}", "output", mn_cli_text(mn_cli_get(cli, "output")), "batch", (json_int_t)w.B,
                                        "seq_len", (json_int_t)w.T, "parameters", (json_int_t)mn_params_count(w.params)));
  mn_states_free(w.states);
  mn_program_free(w.program);
  mn_st_writer_free(w.out);
  mn_st_writer_free(w.state_out);
  mn_session_file_close(&w.kept);
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
    .about =
        "The recipe is {d_model: D, mixer: {type: ...}}, {d_model: D, block: {...}} or {model: {...}}. `mneme inspect RECIPE.yaml "
        "--params` lists every parameter, buffer and state tensor by name, shape and meaning, and what a model reads. A mixer or a block "
        "reads x [B,T,D]; a model reads tensors of its ports' names and shapes: tokens [B,T], source [B,S] or [B,S,C] and "
        "source_length [B], frames [B,T,C], length [B], images [B,H,W,C], series [B,T,C]; those that may be left out are as if "
        "every row were full. y is what it says: a decoder's logits [B,T,vocab_size], a classifier's, a forecast. With --grad "
        "the gradients of sum(y * dy) for every input of floats and every parameter that the call reads are written as "
        "grad.<input> (grad.x) and grad.<parameter>.\n"
        "With states, the loss may reach into the state after the last token, too: each tensor cotangent.state.<name> of the input "
        "adds sum(state * cotangent). Without --state-in a stream begins here, and gradients reach what it begins with (a learned "
        "start as Titans' memory.init); with it, the gradient of the given state is written as grad.state.<name>, and what a stream "
        "begins with has none. So two calls chain: give the second's grad.state.<name> to the first as cotangent.state.<name>, and "
        "the parameters' gradients add up to those of one call over all tokens.",
    .options = options,
    .examples = examples,
    .common = MN_CLI_BACKEND | MN_CLI_THREADS | MN_CLI_SEED | MN_CLI_SET,
    .min_args = 1,
    .max_args = 1,
    .run = run,
};
