/* verb_inspect.c - `mneme inspect`: what a recipe or a trained model is made of, what a token costs, and what each pass of the
 * compiler did. */
#include "model/params.h"
#include "base/file.h"
#include "cli/inspect_checkpoint.h"
#include "cli/inspect_files.h"
#include "cli/inspect_synapses.h"
#include "cli/unit_arg.h"
#include "run/program.h"
#include "run/state.h"

#include <stdlib.h>
#include <string.h>

static const mn_option options[] = {
    {"params", NULL, NULL, "list every parameter, buffer and state tensor: name, shape, type, meaning", 0},
    {"plan", NULL, NULL, "list the compiled steps", 0},
    {"mode", "WORD", "train", "what is compiled: train (forward and backward), forward, step (one token of a stream)", 0},
    {"batch", "B", "1", "sequences", 0},
    {"seq-len", "T", NULL, "tokens of a sequence (512, or what the model holds where that is less); of --synapses: that are read (4096)",
     0},
    {"dtype", "TYPE", "f32", "type of products: f32 or bf16", 0},
    {"activations", "POLICY", "recompute_norms", "keep, recompute (cheap results) or recompute_norms (norms and rotations too)", 0},
    {"synapses", "FILE", NULL,
     "instead: how synapses (mixers of type synaptic) behave while the trained model reads that text; -: standard input", MN_OPTION_STREAM},
    {"off", "PASS", NULL, "switch a pass off: simplify, recompute, fuse, inplace, share_memory, loops, parts, layers", MN_OPTION_REPEATS},
    {0}};
static const char *const examples[] = {"mneme inspect recipes/quick.yaml",
                                       "mneme inspect titans.yaml --params --json",
                                       "mneme inspect runs/quick --mode step --plan",
                                       "mneme inspect model.gguf",
                                       "mneme inspect runs/synaptic --synapses data/books/moby-dick.txt",
                                       NULL};
static const char *const modes[] = {"train", "forward", "step", NULL};
static const char *const policies[] = {"keep", "recompute", "recompute_norms", NULL};
static const char *const passes[] = {"simplify", "recompute", "fuse", "inplace", "share_memory", "loops", "parts", "layers", NULL};

typedef struct inspection {
  mn_cli *cli;
  mn_arena *arena;
  mn_backend *backend;
  mn_unit unit;
  mn_plan *plan;
  int mode, policy;
  mn_dtype compute;
  unsigned passes_off;
  int64_t B, T;
  mn_params *params; /* all, and buffers, whatever the computation reads of them; without memory */
  int n_states;
  mn_state_info *states; /* of a stream; none where there is no stream */
  mn_limit limit;        /* of a stream */
  json_t *files;         /* of a model's directory; else NULL */
} inspection;

static mn_status read_options(inspection *x) {
  const mn_cli *cli = x->cli;
  int off;
  MN_TRY(mn_cli_choice(cli, "mode", modes, &x->mode));
  MN_TRY(mn_cli_only(cli, x->mode != 2, "modes train and forward; a step is one token", "seq-len"));
  MN_TRY(mn_cli_only(cli, x->mode == 0, "mode train, which has a backward pass", "activations"));
  MN_TRY(mn_cli_precision(cli, "dtype", false, &x->compute));
  MN_TRY(mn_cli_choice(cli, "activations", policies, &x->policy));
  MN_TRY(mn_cli_int(cli, "batch", 1, 65536, &x->B));
  MN_TRY(mn_cli_int(cli, "seq-len", 1, 1 << 24, &x->T));
  for (int i = 0; mn_cli_nth(cli, "off", i); i++) {
    MN_TRY(mn_cli_choice_of("off", mn_cli_nth(cli, "off", i), passes, &off));
    x->passes_off |= 1u << off;
  }
  return MN_OK;
}

/* ---- what is built ---- */
/* For T tokens; of a second sequence, as long as the first, but no longer than it may be. */
static mn_sizes sizes_of(const inspection *x, int64_t T) {
  const int64_t most = x->unit.kind == MN_UNIT_MODEL ? mn_model_most(x->unit.model, 'S') : T;
  return (mn_sizes){x->B, T, T < most ? T : most};
}

typedef struct computation {
  const inspection *x;
  mn_inputs inputs;
  bool backward;
} computation;

static mn_status build(void *ctx, mn_scope *s, const mn_form *form, mn_parts *parts) {
  const computation *c = ctx;
  mn_graph *g = mn_scope_graph(s);
  mn_tensor *y = mn_unit_build(s, &c->x->unit, sizes_of(c->x, form->length), c->inputs, c->backward);
  MN_TRY(mn_graph_status(g));
  mn_parts_give(parts, "y", y);
  if (!c->backward) return MN_OK;
  const mn_param_info *info;
  mn_tensor *const *params;
  const int n = mn_scope_params(s, &info, &params);
  mn_tensor **grads = mn_arena_alloc(g->arena, (size_t)(n + 1) * sizeof *grads);
  if (!grads) return MN_ERR_MEMORY;
  MN_TRY(mn_grad(g, 1, &y, NULL, n, params, grads));
  for (int i = 0; i < n; i++) mn_parts_give(parts, info[i].name, grads[i]);
  return MN_OK;
}

static mn_status program_of(computation *c, mn_dtype compute, bool carried, mn_program **out) {
  const inspection *x = c->x;
  const mn_program_config config = {.backend = x->backend,
                                    .build = {.param = MN_F32, .compute = compute, .carried = carried},
                                    .builder = build,
                                    .ctx = c,
                                    .learn = {.batch = x->B, .length = 1},
                                    .activations = (mn_activation_policy)x->policy,
                                    .passes_off = x->passes_off};
  return mn_program_new(&config, out);
}

/* ---- what is learned of it ---- */
/* T where nobody gave it: 512, or what the model holds, which shows when it is built for one token; in whole turns. */
static mn_status usual_length(inspection *x) {
  const bool given = mn_cli_given(x->cli, "seq-len");
  if (given || x->mode == 2) {
    x->T = given ? x->T : 1;
    return MN_OK;
  }
  computation c = {x, MN_INPUTS_NEEDED, false};
  mn_program *p;
  mn_limit limit = {0};
  MN_TRY(program_of(&c, MN_F32, false, &p));
  const mn_status status = mn_program_limit(p, &limit);
  if (status == MN_OK) x->T = limit.tokens != MN_LIMIT_NONE && limit.tokens < 512 ? limit.tokens : 512;
  const int64_t whole = x->unit.kind == MN_UNIT_MODEL ? mn_model_whole(x->unit.model) : 1;
  if (x->T > whole) x->T -= x->T % whole;
  mn_program_free(p);
  return status;
}

static bool keep_text(mn_arena *arena, const char **text) { /* beyond the end of its scope */
  if (!*text) *text = "";
  return (*text = mn_arena_strdup(arena, *text)) != NULL;
}

static mn_status take_params(void *ctx, const mn_scope *s) {
  inspection *x = ctx;
  if (x->unit.kind != MN_UNIT_MODEL) return mn_params_declare_scope(s, x->backend, MN_F32, &x->params);
  MN_TRY(mn_params_declare(x->unit.model, x->backend, MN_F32, &x->params));
  return mn_cli_unit_groups(x->cli, x->arena, x->params->info, x->params->n);
}

static mn_status compile(inspection *x) {
  const bool step = x->mode == 2;
  computation c = {x, step ? MN_INPUTS_LATER : MN_INPUTS_NEEDED, x->mode == 0};
  const mn_form form = {.batch = x->B, .length = x->T, .multiple = 1};
  mn_program *p;
  if (step) MN_TRY(mn_unit_check_stream(&x->unit));
  MN_TRY(program_of(&c, x->compute, step, &p));
  const mn_status status = mn_program_plan(p, &form, take_params, x, &x->plan);
  mn_program_free(p);
  return status;
}

static mn_status take_states(void *ctx, const mn_scope *s) {
  inspection *x = ctx;
  const mn_built_state *states;
  x->n_states = mn_scope_states(s, &states);
  x->states = mn_arena_alloc(x->arena, (size_t)(x->n_states + 1) * sizeof *x->states);
  if (!x->states) return MN_ERR_MEMORY;
  for (int i = 0; i < x->n_states; i++) {
    x->states[i] = states[i].info;
    if (!keep_text(x->arena, &x->states[i].name) || !keep_text(x->arena, &x->states[i].help)) return MN_ERR_MEMORY;
  }
  x->limit = mn_scope_limit_of(s);
  return keep_text(x->arena, &x->limit.where) && keep_text(x->arena, &x->limit.key) ? MN_OK : MN_ERR_MEMORY;
}

/* States show themselves only in a stream: built anew for one token. */
static mn_status find_states(inspection *x) {
  computation c = {x, MN_INPUTS_LATER, false};
  const mn_form form = {.batch = x->B, .length = 1, .multiple = 1};
  mn_program *p;
  x->limit = (mn_limit){.tokens = MN_LIMIT_NONE};
  if (mn_unit_check_stream(&x->unit) != MN_OK) return MN_OK; /* it keeps nothing */
  MN_TRY(program_of(&c, MN_F32, true, &p));
  const mn_status status = mn_program_look(p, &form, take_states, x);
  mn_program_free(p);
  return status;
}

/* ---- what is said of it ---- */
static double mib(size_t n) { return (double)n / 1048576; }

static json_t *shape_json(const mn_shape *s) {
  json_t *a = json_array();
  for (int i = 0; i < s->ndim; i++) json_array_append_new(a, json_integer(s->dim[i]));
  return a;
}

static json_t *params_json(const inspection *x) {
  json_t *list = json_array();
  const mn_params *p = x->params;
  for (int i = 0; i < p->n_all; i++) {
    const bool decays = i < p->n && !(p->info[i].flags & MN_PARAM_NO_DECAY);
    json_array_append_new(list, json_pack("{s:s, s:o, s:s, s:b, s:s}", "name", p->info[i].name, "shape", shape_json(&p->info[i].shape),
                                          "dtype", mn_dtype_name(p->type[i]), "weight_decay", decays, "meaning", p->info[i].help));
  }
  return list;
}

static void collect(void *ctx, const char *text) { json_array_append_new(ctx, json_string(text)); }
static void print_line(void *ctx, const char *text) {
  (void)ctx;
  mn_print("%s\n", text);
}

static void print_ports(const inspection *x, const char *title, const mn_port *p) {
  char shape[96];
  for (; p->name; p++, title = "")
    mn_print("%-15s %-14s %-5s %-20s %s%s\n", title, p->name, mn_dtype_name(p->dtype),
             mn_model_axes(x->unit.model, p, sizes_of(x, x->T), shape), p->help, p->optional ? " (may be left out)" : "");
}

/* What kind it is, and beyond a plain decoder what goes in and comes out. */
static void print_model(const inspection *x) {
  const mn_model *m = x->unit.model;
  mn_text about = {0};
  mn_text_addf(&about, "%d blocks, d_model %lld", m->stack.n, (long long)m->config.d_model);
  if (m->config.vocab_size) mn_text_addf(&about, ", vocab_size %lld", (long long)m->config.vocab_size);
  if (about.data) mn_print("model           %s\n", about.data);
  mn_text_free(&about);
  if (!strcmp(m->def->name, "decoder")) return;
  mn_print("kind            %s: %s\n", m->def->name, m->def->summary);
  print_ports(x, "in", m->inputs);
  print_ports(x, "out", m->outputs);
}

static mn_status report(inspection *x) {
  const mn_plan_report *r = mn_plan_get_report(x->plan);
  double tokens = (double)(x->B * x->T);
  const mn_state_info *states = x->states;
  const mn_limit limit = x->limit;
  const int64_t parameters = mn_params_count(x->params);
  size_t state_bytes = 0, state_room = 0; /* after T tokens; of streams that fill their caches */
  for (int i = 0; i < x->n_states; i++)
    state_bytes += mn_state_bytes_at(&states[i], x->T), state_room += mn_shape_bytes(&states[i].shape, states[i].dtype);
  if (x->cli->json) {
    json_t *doc = json_pack("{s:I, s:I, s:I, s:f, s:s, s:I, s:I}", "parameters", (json_int_t)parameters, "state_bytes",
                            (json_int_t)state_bytes, "state_room_bytes", (json_int_t)state_room, "flops_per_token",
                            (double)r->flops / tokens, "mode", modes[x->mode], "batch", (json_int_t)x->B, "seq_len", (json_int_t)x->T);
    json_object_set_new(doc, "plan",
                        json_pack("{s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i}", "nodes", r->nodes_given, "lowered",
                                  r->nodes_lowered, "simplified", r->nodes_simplified, "recomputed", r->nodes_recomputed,
                                  "elementwise_before", r->elementwise_before, "elementwise_after", r->elementwise_after, "fused",
                                  r->nodes_fused, "steps", r->steps, "copies", r->copies, "in_place", r->in_place));
    json_object_set_new(doc, "memory",
                        json_pack("{s:I, s:I, s:I, s:I, s:I, s:I}", "intermediate_bytes_unshared", (json_int_t)r->bytes_unshared,
                                  "intermediate_bytes", (json_int_t)r->bytes_planned, "activation_bytes", (json_int_t)r->bytes_activations,
                                  "output_bytes", (json_int_t)r->bytes_outputs, "constant_bytes", (json_int_t)r->bytes_constants,
                                  "parameter_bytes", (json_int_t)(4 * parameters)));
    if (x->unit.kind == MN_UNIT_MODEL) json_object_set_new(doc, "kind", json_string(x->unit.model->def->name));
    json_object_set_new(doc, "stream_limit", limit.tokens == MN_LIMIT_NONE ? json_null() : json_integer((json_int_t)limit.tokens));
    if (mn_cli_given(x->cli, "params")) {
      json_object_set_new(doc, "params", params_json(x));
      json_t *list = json_array();
      for (int i = 0; i < x->n_states; i++)
        json_array_append_new(list, json_pack("{s:s, s:o, s:s, s:s}", "name", states[i].name, "shape", shape_json(&states[i].shape),
                                              "dtype", mn_dtype_name(states[i].dtype), "meaning", states[i].help));
      json_object_set_new(doc, "states", list);
    }
    if (mn_cli_given(x->cli, "plan")) {
      json_t *steps = json_array();
      mn_plan_describe(x->plan, collect, steps);
      json_object_set_new(doc, "steps", steps);
    }
    if (x->files) json_object_set(doc, "files", x->files);
    return mn_cli_json(x->cli, doc);
  }
  char shape[96];
  if (x->unit.kind == MN_UNIT_MODEL) print_model(x);
  mn_print("parameters      %lld (%.1f MiB in f32)\n", (long long)parameters, mib((size_t)parameters * 4));
  mn_print("state           %zu bytes for %lld stream%s", state_bytes, (long long)x->B, x->B == 1 ? "" : "s");
  if (state_room > state_bytes) mn_print(" of %lld tokens, %zu with full caches", (long long)x->T, state_room);
  mn_print("\n");
  if (mn_unit_check_stream(&x->unit) != MN_OK) mn_print("stream          none: %s\n", mn_message());
  else if (limit.tokens == MN_LIMIT_NONE) mn_print("stream length   without end\n");
  else mn_print("stream length   %lld tokens (%s%s%s)\n", (long long)limit.tokens, limit.where, *limit.where ? ": " : "", limit.key);
  mn_print("FLOPs per token %.3g (%s, batch %lld, seq_len %lld)\n\n", (double)r->flops / tokens, modes[x->mode], (long long)x->B,
           (long long)x->T);
  mn_print("pass            effect\n");
  mn_print("  lower         %d operations -> %d\n", r->nodes_given, r->nodes_lowered);
  mn_print("  loops         %d operations left their loops; %d loops run part by part\n", r->nodes_moved, r->loops_in_parts);
  mn_print("  simplify      %d -> %d\n", r->nodes_lowered, r->nodes_simplified);
  mn_print("  recompute     %d results made again instead of kept; %.1f MiB of activations kept for the backward pass\n",
           r->nodes_recomputed, mib(r->bytes_activations));
  mn_print("  fuse          %d element-wise operations -> %d kernels; %d operations in all\n", r->elementwise_before, r->elementwise_after,
           r->nodes_fused);
  if (r->layers_alike) mn_print("  layers        %d as those beside them\n", r->layers_alike);
  mn_print("  layout        %d copies\n", r->copies);
  mn_print("  in place      %d results\n", r->in_place);
  mn_print("  memory        %.1f MiB side by side -> %.1f MiB shared; largest workspace %.1f MiB; outputs %.1f MiB; constants %.1f MiB\n",
           mib(r->bytes_unshared), mib(r->bytes_planned), mib(r->bytes_workspace), mib(r->bytes_outputs), mib(r->bytes_constants));
  mn_print("  steps         %d\n", r->steps);
  if (mn_cli_given(x->cli, "params")) {
    mn_print("\nparameter                                          shape                  meaning\n");
    for (int i = 0; i < x->params->n_all; i++) {
      const mn_param_info *p = &x->params->info[i];
      mn_print("%-50s %-22s %s\n", p->name, mn_shape_str(&p->shape, shape), p->help);
    }
    mn_print("\nstate                                              shape             type  meaning\n");
    for (int i = 0; i < x->n_states; i++)
      mn_print("%-50s %-17s %-5s %s\n", states[i].name, mn_shape_str(&states[i].shape, shape), mn_dtype_name(states[i].dtype),
               states[i].help);
  }
  if (mn_cli_given(x->cli, "plan")) {
    mn_print("\n step operation                  kernel                 type  shape\n");
    mn_plan_describe(x->plan, print_line, NULL);
  }
  if (x->files) {
    mn_print("\n");
    mn_print_files(x->files);
  }
  return MN_OK;
}

/* A file of tensors has no model to compile. */
static mn_status inspect_tensors(mn_cli *cli) {
  for (const mn_option *o = options; o->name; o++) MN_TRY(mn_cli_only(cli, false, "recipes and directories of a model", o->name));
  if (cli->n_set) return mn_fail(MN_ERR_CONFIG, "--set changes a recipe, and %s is a file of tensors", cli->args[0]);
  json_t *files = json_array();
  mn_status status = files ? mn_inspect_safetensors(cli->args[0], files) : MN_ERR_MEMORY;
  if (status == MN_OK && cli->json) {
    json_t *doc = json_object();
    json_object_set(doc, "files", files);
    status = mn_cli_json(cli, doc);
  } else if (status == MN_OK) {
    mn_print_files(files);
  }
  json_decref(files);
  return status;
}

/* Other programs' models: what the files hold. */
static mn_status inspect_checkpoint(mn_cli *cli) {
  for (const mn_option *o = options; o->name; o++)
    if (strcmp(o->name, "params") != 0) MN_TRY(mn_cli_only(cli, false, "recipes and directories of a model of Mneme's", o->name));
  if (cli->n_set) return mn_fail(MN_ERR_CONFIG, "--set changes a recipe, and %s is another program's model", cli->args[0]);
  return mn_inspect_checkpoint(cli);
}

/* Of a trained model, while it reads: no recipe, and nothing is said of what is compiled. */
static mn_status inspect_synapses(mn_cli *cli) {
  int64_t tokens = 4096;
  mn_file_info info = {0};
  MN_TRY(mn_cli_only(cli, false, "inspect without --synapses", "params plan mode batch dtype activations off"));
  if (cli->n_set) return mn_fail(MN_ERR_CONFIG, "--set changes a recipe, and --synapses looks at what a trained model does");
  MN_TRY(mn_cli_int(cli, "seq-len", 1, 1 << 24, &tokens));
  MN_TRY(mn_file_stat(cli->args[0], &info));
  if (info.exists && !info.is_dir)
    return mn_fail(MN_ERR_CONFIG, "--synapses needs a trained model, a directory that mneme train --out made; %s is a file", cli->args[0]);
  return mn_inspect_synapses(cli, tokens);
}

static mn_status run(mn_cli *cli) {
  if (mn_cli_given(cli, "synapses")) return inspect_synapses(cli);
  if (mn_is_safetensors(cli->args[0])) return inspect_tensors(cli);
  if (mn_is_checkpoint(cli->args[0])) return inspect_checkpoint(cli);
  inspection x = {.cli = cli, .arena = mn_arena_new()};
  mn_file_info info = {0};
  mn_status status = x.arena ? read_options(&x) : MN_ERR_MEMORY;
  if (status == MN_OK) status = mn_file_stat(cli->args[0], &info);
  if (status == MN_OK && info.is_dir) status = (x.files = json_array()) ? mn_inspect_model_dir(cli->args[0], x.files) : MN_ERR_MEMORY;
  if (status == MN_OK) status = mn_cli_unit(cli, x.arena, 256, &x.unit);
  if (status == MN_OK) status = mn_backend_open(cli->backend, cli->threads, &x.backend);
  if (status == MN_OK) status = usual_length(&x);
  if (status == MN_OK) status = compile(&x);
  if (status == MN_OK) status = find_states(&x);
  if (status == MN_OK) status = report(&x);
  json_decref(x.files);
  mn_plan_free(x.plan);
  mn_params_free(x.params);
  mn_unit_free(&x.unit);
  mn_backend_free(x.backend);
  mn_arena_free(x.arena);
  return status;
}

const mn_verb mn_verb_inspect = {
    .name = "inspect",
    .purpose = MN_VERB_LOOK,
    .summary = "parameters, states, FLOPs per token, and what each pass of the compiler did",
    .usage = "RECIPE.yaml | MODEL_DIR | FILE.gguf | FILE.safetensors [options]",
    .about =
        "Compiles the recipe's model (or a single mixer or block, see mneme apply) and prints what came of it. The passes: lower "
        "replaces fused "
        "operations that have no kernel by their compositions; loops moves out of loops what need not be done at every step; simplify removes what is said twice; recompute chooses which "
        "activations are "
        "kept for the backward pass (compressing and off-loading are further values of that policy); fuse joins element-wise chains; "
        "memory "
        "lets buffers share by lifetime. Of a model's directory it also checks every checksum and that the files belong together; of "
        "a file of tensors (weights, a checkpoint's optimizer, a session) it says that only, and what the file belongs to. Of a GGUF file or a "
        "directory of Hugging Face's it shows metadata, how many tensors of which type there are, with --params each of them, and whether Mneme "
        "opens it as a model.",
    .options = options,
    .examples = examples,
    .common = MN_CLI_BACKEND | MN_CLI_THREADS | MN_CLI_SET,
    .min_args = 1,
    .max_args = 1,
    .run = run,
};
