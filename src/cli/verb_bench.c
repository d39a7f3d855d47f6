/* verb_bench.c - `mneme bench`: what the machine allows, and how fast a training step or a memory is on it. With
 * --steps-on-stdin it runs steps when told ("step 3" lines) and answers with one JSON line each, so that a driver can run it
 * and a peer by turns in one run; see bench/. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backend/cpu/machine.h"
#include "base/nearest.h"
#include "cli/bench_stream.h"
#include "cli/cli.h"
#include "format/yaml.h"
#include "model/unit.h"
#include "run/program.h"
#include "train/optimizer.h"

static const mn_option options[] = {
    {"size", "SIZE", "10m", "train: 10m (10,059,840 parameters) or 30m (29,893,120)", 0},
    {"dtype", "TYPE", "f32", "train: f32, or bf16 products with f32 masters; stream: f32 or bf16", 0},
    {"chunk", "C", "16", "lmm: tokens between two anchors", 0},
    {"seq-len", "T", NULL, "tokens of a sequence (train 512, lmm 8192)", 0},
    {"batch", "B", NULL, "sequences (train 8 or 4, lmm 1)", 0},
    {"mixer", "MAP", NULL, "lmm, stream: another mixer, as YAML: {type: gated_deltanet, heads: 4}", 0},
    {"steps", "N", "5", "counted steps, after two that are not; stream: turns", 0},
    {"activations", "POLICY", "recompute_norms", "keep, recompute (cheap results) or recompute_norms (norms and rotations too)", 0},
    {"profile", NULL, NULL, "time every kernel: mean and shortest of the counted steps", 0},
    {"steps-on-stdin", NULL, NULL, "run steps as told on standard input", 0},
    {0}};
static const char *const examples[] = {"mneme bench machine", "mneme bench train --size 10m --dtype bf16",
                                       "mneme bench lmm --chunk 64 --seq-len 8192", NULL};

typedef struct problem { /* something that can be run again and again */
  mn_cli *cli;
  mn_arena *arena;
  mn_backend *backend;
  mn_unit unit;
  mn_params *params;
  mn_optimizer *optimizer;
  mn_update update;
  mn_program *program;
  mn_routine *routine; /* entered from making to ending */
  int64_t B, T, taken;
  size_t rss_before;
} problem;

static size_t status_bytes(const char *key) { /* of /proc/self/status, in bytes; 0 where there is none */
  FILE *f = fopen("/proc/self/status", "r");
  char line[256];
  size_t kib = 0, n = strlen(key);
  while (f && fgets(line, sizeof line, f))
    if (strncmp(line, key, n) == 0 && line[n] == ':') kib = (size_t)strtoull(line + n + 1, NULL, 10);
  if (f) fclose(f);
  return kib * 1024;
}

static mn_status parse_unit(problem *p, const char *yaml) {
  const mn_value *v;
  MN_TRY(mn_yaml_parse(p->arena, "bench", yaml, strlen(yaml), &v));
  return mn_unit_parse(p->arena, v, 0, &p->unit);
}

static mn_status sizes(problem *p, int64_t T, int64_t B) {
  p->T = T;
  p->B = B;
  MN_TRY(mn_cli_int(p->cli, "seq-len", 1, 1 << 24, &p->T));
  return mn_cli_int(p->cli, "batch", 1, 65536, &p->B);
}

/* Of the one form there is. bound: binds what the builder's graph has besides parameters. */
static mn_status enter(problem *p, mn_dtype compute, mn_program_builder builder, void (*bound)(void *ctx, mn_plan *plan)) {
  static const char *const policies[] = {"keep", "recompute", "recompute_norms", NULL};
  int policy;
  MN_TRY(mn_cli_choice(p->cli, "activations", policies, &policy));
  const mn_program_config c = {.backend = p->backend,
                               .params = p->params,
                               .build = {.param = MN_F32, .compute = compute},
                               .builder = builder,
                               .bound = bound,
                               .ctx = p,
                               .activations = (mn_activation_policy)policy};
  MN_TRY(mn_program_new(&c, &p->program));
  return mn_program_enter(p->program, &(mn_form){.batch = p->B, .length = p->T}, &p->routine);
}

/* The whole update of a decoder: forward, backward, clipping, AdamW. */
static mn_status build_train(void *ctx, mn_scope *s, const mn_form *form, mn_parts *parts) {
  problem *p = ctx;
  mn_graph *g = mn_scope_graph(s);
  const mn_shape shape = MN_SHAPE(form->batch, form->length);
  mn_tensor *tokens = mn_parts_feed(parts, "tokens", MN_I32, shape), *target = mn_parts_feed(parts, "target", MN_I32, shape);
  mn_tensor *weight = mn_full(g, MN_F32, shape, 1 / (double)(form->batch * form->length));
  mn_tensor *loss = mn_model_loss(s, p->unit.model, tokens, target, weight, NULL);
  MN_TRY(mn_graph_status(g));
  mn_tensor *const *params;
  int n = mn_scope_params(s, NULL, &params);
  mn_tensor **grads = mn_arena_alloc(g->arena, (size_t)(n + 1) * sizeof *grads);
  if (!grads) return MN_ERR_MEMORY;
  MN_TRY(mn_grad(g, 1, &loss, NULL, n, params, grads));
  mn_optimizer_build(p->optimizer, s, params, grads, 1.0, &p->update);
  MN_TRY(mn_graph_status(g));
  mn_parts_fed(parts, p->update.rate);
  mn_parts_give(parts, "loss", loss);
  mn_parts_give(parts, "grad_norm", p->update.norm);
  for (int i = 0; i < p->update.n_assigns; i++) mn_parts_assign(parts, p->update.variables[i], p->update.values[i]);
  return MN_OK;
}

static void bind_moments(void *ctx, mn_plan *plan) {
  const problem *p = ctx;
  mn_optimizer_bind(p->optimizer, &p->update, plan);
}

static mn_status make_train(problem *p) {
  static const char *const names[] = {"10m", "30m", NULL};
  static const char *const models[] = {
      "{model: {vocab_size: 8192, d_model: 320, layers: 6, block: {mixer: {type: attention, heads: 5}, channel: swiglu, hidden: 864}}}",
      "{model: {vocab_size: 8192, d_model: 512, layers: 8, block: {mixer: {type: attention, heads: 8}, channel: swiglu, hidden: 1408}}}"};
  int size;
  mn_dtype compute;
  MN_TRY(mn_cli_choice(p->cli, "size", names, &size));
  MN_TRY(mn_cli_precision(p->cli, "dtype", false, &compute));
  MN_TRY(sizes(p, 512, size ? 4 : 8));
  MN_TRY(parse_unit(p, models[size]));
  MN_TRY(mn_params_new(p->unit.model, p->backend, MN_F32, 1, &p->params));
  mn_optimizer_config config;
  mn_config_defaults(mn_optimizer_fields, &config);
  MN_TRY(mn_optimizer_check(NULL, "bench", &config));
  MN_TRY(mn_optimizer_new(&config, NULL, p->params, &p->optimizer));
  MN_TRY(enter(p, compute, build_train, bind_moments));
  const int64_t count = p->B * p->T;
  int32_t *x = mn_alloc((size_t)count * sizeof *x);
  mn_status status = x ? MN_OK : MN_ERR_MEMORY;
  for (int i = 0; i < 2 && status == MN_OK; i++) {
    for (int64_t k = 0; k < count; k++) x[k] = (int32_t)(mn_random_uniform(11 + (uint64_t)i, 0, (uint64_t)k) * 8192);
    status = mn_routine_put(p->routine, i, x);
  }
  free(x);
  return status;
}

/* Forward and backward of one mixer, gradients of a fixed cotangent for the input and every parameter. */
static mn_status build_lmm(void *ctx, mn_scope *s, const mn_form *form, mn_parts *parts) {
  problem *p = ctx;
  mn_graph *g = mn_scope_graph(s);
  mn_model_io in;
  mn_unit_inputs(s, &p->unit, (mn_sizes){form->batch, form->length, 0}, MN_INPUTS_ALL, &in);
  mn_tensor *x = mn_io_get(&in, "x"), *y = mn_unit_apply(s, &p->unit, &in);
  MN_TRY(mn_graph_status(g));
  mn_parts_fed(parts, x);
  mn_tensor *dy = mn_parts_feed(parts, "dy", MN_F32, y->shape);
  MN_TRY(mn_params_of_scope(s, p->backend, MN_F32, 1, &p->params));
  mn_program_use(p->program, p->params);
  mn_tensor *const *params;
  int n = mn_scope_params(s, NULL, &params);
  mn_tensor **wrt = mn_arena_alloc(g->arena, (size_t)(2 * n + 2) * sizeof *wrt), **grads = wrt + n + 1;
  if (!wrt) return MN_ERR_MEMORY;
  wrt[0] = x;
  for (int i = 0; i < n; i++) wrt[i + 1] = params[i];
  MN_TRY(mn_grad(g, 1, &y, &dy, n + 1, wrt, grads));
  mn_parts_give(parts, "y", y);
  for (int i = 0; i <= n; i++) mn_parts_give(parts, i ? params[i - 1]->name : "x", grads[i]);
  return MN_OK;
}

static mn_status make_lmm(problem *p) {
  int64_t chunk = 16;
  char text[512];
  MN_TRY(mn_cli_int(p->cli, "chunk", 1, 65536, &chunk));
  const char *mixer = mn_cli_get(p->cli, "mixer");
  snprintf(text, sizeof text,
           mixer ? "{d_model: 256, mixer: %s}"
                 : "{d_model: 256, mixer: {type: titans_lmm, heads: 4, memory_net: linear, chunk: %s, grad_clamp: 0}}",
           mixer ? mixer : mn_cli_get(p->cli, "chunk"));
  MN_TRY(sizes(p, 8192, 1));
  MN_TRY(parse_unit(p, text));
  MN_TRY(enter(p, MN_F32, build_lmm, NULL));
  const int64_t count = p->B * p->T * 256;
  float *v = mn_alloc((size_t)count * sizeof *v);
  mn_status status = v ? MN_OK : MN_ERR_MEMORY;
  for (int i = 0; i < 2 && status == MN_OK; i++) {
    for (int64_t k = 0; k < count && (k % 65536 || !mn_stopped()); k++) v[k] = (float)mn_random_normal(21 + (uint64_t)i, 0, (uint64_t)k);
    status = mn_stop_check("making an input");
    if (status == MN_OK) status = mn_routine_put(p->routine, i, v);
  }
  free(v);
  return status;
}

static mn_status run_step(problem *p) {
  if (p->optimizer) {
    float rate[3];
    mn_optimizer_rate(p->optimizer, 3e-4, ++p->taken, rate);
    MN_TRY(mn_routine_put(p->routine, 2, rate)); /* after tokens and targets */
  }
  MN_TRY(mn_routine_run(p->routine, NULL));
  return p->backend->sync(p->backend);
}

static mn_status run_steps(problem *p, int64_t n, double *seconds) {
  double start = mn_now();
  for (int64_t i = 0; i < n; i++) {
    MN_TRY(run_step(p));
    MN_TRY(mn_stop_check("timing steps"));
  }
  *seconds = mn_now() - start;
  return MN_OK;
}

static void answer(problem *p, int64_t steps, double seconds) {
  mn_cli_json_line(p->cli, json_pack("{s:I, s:f, s:f, s:f, s:I}", "steps", (json_int_t)steps, "seconds", seconds, "seconds_per_step",
                                     seconds / (double)steps, "tokens_per_second", (double)(steps * p->B * p->T) / seconds,
                                     "peak_rss_bytes", (json_int_t)status_bytes("VmHWM")));
  mn_print_flush();
}

static mn_status serve(problem *p) {
  char line[128];
  mn_cli_json_line(p->cli, json_pack("{s:b, s:I, s:I, s:I, s:I, s:s}", "ready", 1, "parameters", (json_int_t)mn_params_count(p->params),
                                     "tokens_per_step", (json_int_t)(p->B * p->T), "flops_per_step",
                                     (json_int_t)mn_plan_get_report(mn_routine_plan(p->routine))->flops, "rss_before_bytes",
                                     (json_int_t)p->rss_before, "isa", p->backend->isa));
  mn_print_flush();
  while (fgets(line, sizeof line, stdin)) {
    long long n = 0;
    double seconds;
    if (sscanf(line, "step %lld", &n) != 1 || n < 1 || n > 1000000)
      return mn_fail(MN_ERR_ARG, "--steps-on-stdin: expected a line 'step N', got '%.*s'", (int)strcspn(line, "\n"), line);
    MN_TRY(run_steps(p, n, &seconds));
    answer(p, n, seconds);
  }
  return mn_stop_check("waiting for steps");
}

static int by_size(const void *a, const void *b) {
  return *(const double *)a < *(const double *)b ? -1 : *(const double *)a > *(const double *)b;
}
static void print_line(void *ctx, const char *text) {
  (void)ctx;
  mn_print("%s\n", text);
}

static mn_status time_steps(problem *p) {
  int64_t n = 5;
  double unused, *t;
  MN_TRY(mn_cli_int(p->cli, "steps", 1, 100000, &n));
  MN_TRY(run_steps(p, 2, &unused));
  t = mn_alloc((size_t)n * sizeof *t);
  if (!t) return MN_ERR_MEMORY;
  mn_status status = MN_OK;
  for (int64_t i = 0; i < n && status == MN_OK && !mn_cli_interrupted(); i++) {
    if (i == 0 && mn_cli_given(p->cli, "profile")) mn_plan_profile(mn_routine_plan(p->routine), true);
    status = run_steps(p, 1, &t[i]);
  }
  if (status == MN_OK && mn_cli_interrupted()) status = mn_fail(MN_ERR_CANCELLED, "interrupted");
  if (status == MN_OK) {
    qsort(t, (size_t)n, sizeof *t, by_size);
    double median = t[n / 2], flops = (double)mn_plan_get_report(mn_routine_plan(p->routine))->flops;
    if (p->cli->json) answer(p, 1, median);
    else
      mn_print("%.0f tokens/s (median of %lld steps of %lld tokens; %.1f to %.1f ms), %.1f GFLOP/s, peak resident %.0f MiB\n",
               (double)(p->B * p->T) / median, (long long)n, (long long)(p->B * p->T), 1e3 * t[0], 1e3 * t[n - 1], 1e-9 * flops / median,
               (double)status_bytes("VmHWM") / 1048576);
    if (mn_cli_given(p->cli, "profile") && !p->cli->json) mn_plan_describe(mn_routine_plan(p->routine), print_line, NULL);
  }
  free(t);
  return status;
}

static mn_status bench_machine(mn_cli *cli, mn_backend *b) {
  mn_isa isa; /* the machine's: it is measured by itself, whatever a backend computes with */
  MN_TRY(mn_isa_choose(&isa));
  double f32 = mn_machine_peak(b->pool, isa, false), bf16 = mn_machine_peak(b->pool, isa, true), read = mn_machine_bandwidth(b->pool);
  MN_TRY(mn_stop_check("measuring the machine"));
  if (cli->json)
    return mn_cli_json(cli, json_pack("{s:s, s:i, s:f, s:f, s:f}", "isa", mn_isa_name(isa), "threads", mn_pool_threads(b->pool),
                                      "f32_gflops", f32, "bf16_gflops", bf16, "read_gbytes_per_second", read));
  mn_print("instruction set          %s, %d threads\n", mn_isa_name(isa), mn_pool_threads(b->pool));
  mn_print("f32 multiply-add peak    %.0f GFLOP/s\n", f32);
  mn_print("bf16 dot-product peak    %.0f GFLOP/s\n", bf16);
  mn_print("read bandwidth           %.1f GB/s\n", read);
  return MN_OK;
}

static mn_status check_options(const mn_cli *cli, int what) {
  bool told = mn_cli_given(cli, "steps-on-stdin");
  MN_TRY(mn_cli_only(cli, what == 1, "`mneme bench train`", "size"));
  MN_TRY(mn_cli_only(cli, what == 1 || what == 3, "`mneme bench train` and `mneme bench stream`", "dtype"));
  MN_TRY(mn_cli_only(cli, what == 2, "`mneme bench lmm`", "chunk"));
  MN_TRY(mn_cli_only(cli, what == 2 || what == 3, "`mneme bench lmm` and `mneme bench stream`", "mixer"));
  MN_TRY(mn_cli_only(cli, what == 1 || what == 2, "`mneme bench train` and `mneme bench lmm`",
                     "seq-len batch activations profile steps-on-stdin"));
  MN_TRY(mn_cli_only(cli, what != 0, "`mneme bench train`, `mneme bench lmm` and `mneme bench stream`", "steps"));
  MN_TRY(mn_cli_only(cli, !told, "steps that the verb counts itself, without --steps-on-stdin", "steps profile"));
  MN_TRY(mn_cli_only(cli, !cli->json, "people; with --json it is not shown", "profile"));
  return mn_cli_only(cli, !mn_cli_given(cli, "mixer"), "the memory that is timed without --mixer", "chunk");
}

static mn_status run(mn_cli *cli) {
  static const char *const whats[] = {"machine", "train", "lmm", "stream", NULL};
  int what = 0;
  while (whats[what] && strcmp(whats[what], cli->args[0]) != 0) what++;
  if (!whats[what]) {
    const char *near = mn_nearest(cli->args[0], whats, 4);
    return mn_fail(MN_ERR_ARG, "bench %s: there are machine, train, lmm and stream%s%s%s", cli->args[0], near ? "; did you mean " : "",
                   near ? near : "", near ? "?" : "");
  }
  MN_TRY(check_options(cli, what));
  if (what == 3) return mn_bench_stream(cli);
  problem p = {.cli = cli, .arena = mn_arena_new(), .rss_before = status_bytes("VmRSS")};
  mn_status status = p.arena ? mn_backend_open(NULL, cli->threads, &p.backend) : MN_ERR_MEMORY;
  if (status == MN_OK && what == 0) status = bench_machine(cli, p.backend);
  if (status == MN_OK && what == 1) status = make_train(&p);
  if (status == MN_OK && what == 2) status = make_lmm(&p);
  mn_release_free_memory();
  if (status == MN_OK && what > 0) status = mn_cli_given(cli, "steps-on-stdin") ? serve(&p) : time_steps(&p);
  if (p.routine) mn_program_leave(p.program);
  mn_program_free(p.program);
  mn_optimizer_free(p.optimizer);
  mn_params_free(p.params);
  mn_unit_free(&p.unit);
  mn_backend_free(p.backend);
  mn_arena_free(p.arena);
  return status;
}

const mn_verb mn_verb_bench = {
    .name = "bench",
    .purpose = MN_VERB_MEASURE,
    .summary = "what the machine allows, and how fast training steps and memories are on it",
    .usage = "machine | train | lmm | stream [options]",
    .about =
        "machine measures the arithmetic peaks and the read bandwidth that other figures are held against. train times the whole "
        "update of a "
        "decoder (forward, backward, clipping, AdamW). lmm times forward and backward of one memory layer, d_model 256. stream times a token, 256 tokens and 255, a fork and a reset of a "
        "session of a decoder (d_model 320, 6 layers), each the shortest of its turns.",
    .options = options,
    .examples = examples,
    .common = MN_CLI_THREADS,
    .min_args = 1,
    .max_args = 1,
    .run = run,
};
