/* eval_tasks.c - see eval_tasks.h. */
#include "cli/eval_tasks.h"

#include "base/file.h"
#include "eval/needle_eval.h"
#include "eval/task_eval.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SINGLE_EXAMPLES = 50, CELL_EXAMPLES = 20, PARITY_EXAMPLES = 128 };

/* ---- what every line says ---- */

/* How long the model was trained, where its file says so. */
static void add_training(json_t *line, const mn_origin *origin) {
  if (!origin->run) return;
  json_object_set_new(line, "steps", json_integer(origin->step));
  if (origin->tokens) json_object_set_new(line, "tokens_seen", json_integer(origin->tokens));
}

static json_t *to_json(const mn_value *v) {
  mn_text text = {0};
  json_t *out = v && mn_value_to_json(v, 0, &text) == MN_OK ? json_loads(text.data, JSON_DECODE_ANY, NULL) : NULL;
  mn_text_free(&text);
  return out ? out : json_null();
}

mn_status mn_eval_line(const mn_eval_view *v, const char *task, const mn_field *fields, void *settings, uint64_t seed, size_t state_bytes,
                       json_t **out) {
  char hex[33];
  *out = NULL;
  MN_TRY(mn_model_fingerprint(v->bundle->model, v->bundle->params, hex));
  *out = json_pack("{s:s,s:s,s:o,s:s,s:I,s:I,s:I}", "task", task, "split", "test", "model", mn_cli_text(mn_cli_get(v->cli, "model")),
                   "fingerprint", hex, "parameters", (json_int_t)mn_params_count(v->bundle->params), "state_bytes", (json_int_t)state_bytes,
                   "seed", (json_int_t)seed);
  if (!*out) return mn_fail(MN_ERR_MEMORY, "out of memory");
  json_object_set_new(*out, "settings", to_json(mn_config_to_value(v->arena, &(mn_config_part){fields, settings}, 1)));
  add_training(*out, &v->bundle->params->origin);
  return MN_OK;
}

void mn_eval_metric(json_t *line, const char *metric, double value) {
  json_object_set_new(line, "metric", json_string(metric));
  json_object_set_new(line, "value", mn_cli_number(value));
}

static mn_status set(const mn_eval_view *v, const mn_value **settings, const char *key, const char *text) {
  char *assignment = mn_arena_format(v->arena, "%s=%s", key, text);
  return assignment ? mn_value_set(v->arena, *settings, assignment, settings) : MN_ERR_MEMORY;
}

mn_status mn_eval_with_seed(const mn_eval_view *v, const mn_value **settings) {
  char number[32];
  snprintf(number, sizeof number, "%" PRIu64, v->cli->seed);
  return v->cli->seed_given ? set(v, settings, "seed", number) : MN_OK;
}

/* A session file's name in a directory that nobody else has. */
static mn_status scratch_new(const mn_eval_view *v, const char **file) {
  const char *place = getenv("TMPDIR");
  char *dir = mn_arena_format(v->arena, "%s/mneme-eval-XXXXXX", place && *place ? place : P_tmpdir);
  if (!dir) return MN_ERR_MEMORY;
  if (!mkdtemp(dir))
    return mn_fail(MN_ERR_IO, "%s: cannot be made: %s; set TMPDIR to a directory that can be written", dir, strerror(errno));
  *file = mn_arena_format(v->arena, "%s/session", dir);
  return *file ? MN_OK : MN_ERR_MEMORY;
}

static void scratch_end(const char *file) {
  char *dir = file ? mn_path_dir(file) : NULL;
  if (!dir) return;
  unlink(file);
  rmdir(dir);
  free(dir);
}

/* ---- text ---- */

/* "256,1024,4096" */
static mn_status split_list(const mn_eval_view *v, const char *text, const char *option, const char ***out, int *n) {
  char *copy = mn_arena_strdup(v->arena, text);
  const char **items = mn_arena_alloc(v->arena, (strlen(text) + 1) * sizeof *items);
  if (!copy || !items) return MN_ERR_MEMORY;
  for (char *p = copy; p; *n += 1) {
    items[*n] = p;
    p = strchr(p, ',');
    if (p) *p++ = 0;
    if (!*items[*n]) return mn_fail(MN_ERR_CONFIG, "--%s '%s' has an empty item", option, text);
  }
  *out = items;
  return MN_OK;
}

static mn_status grid_options(const mn_eval_view *v, mn_grid_config *c) {
  const char *lengths = mn_cli_get(v->cli, "lengths"), *vary = mn_cli_get(v->cli, "vary");
  int64_t depths = 1, new_tokens = 0;
  MN_TRY(mn_cli_int(v->cli, "depths", 1, 101, &depths));
  MN_TRY(mn_cli_int(v->cli, "new-tokens", 1, 1 << 16, &new_tokens));
  c->depths = (int)depths;
  c->each.new_tokens = new_tokens;
  const char **values = NULL;
  if (lengths && vary) return mn_fail(MN_ERR_CONFIG, "--lengths and --vary are both the rows of the grid: give one of them");
  if (lengths) MN_TRY(split_list(v, lengths, "lengths", &values, &c->n_values));
  if (vary) {
    char *key = mn_arena_strdup(v->arena, vary), *equal = key ? strchr(key, '=') : NULL;
    if (!key) return MN_ERR_MEMORY;
    if (!equal) return mn_fail(MN_ERR_CONFIG, "--vary '%s' should be KEY=VALUE,VALUE,...", vary);
    *equal = 0;
    c->vary = key;
    MN_TRY(split_list(v, equal + 1, "vary", &values, &c->n_values));
  }
  c->values = values;
  c->each.examples = v->examples ? v->examples : depths > 1 || c->n_values > 1 ? CELL_EXAMPLES : SINGLE_EXAMPLES;
  return MN_OK;
}

static mn_status text_lines(const mn_eval_view *v, const char *name, const mn_grid *g, size_t state_bytes) {
  for (int i = 0; i < g->rows * g->columns; i++) {
    const mn_text_eval *c = &g->cells[i];
    mn_task *task = NULL;
    json_t *line = NULL;
    MN_TRY(mn_task_open(name, g->settings[i], &task));
    mn_status status = mn_eval_line(v, name, task->def->fields, task->config, task->seed, state_bytes, &line);
    const json_t *len = json_object_get(json_object_get(line, "settings"), "len"); /* the length that was asked for */
    int64_t T = json_is_integer(len) ? json_integer_value(len) : c->longest;
    bool partial = task->several_answers;
    mn_task_close(task);
    MN_TRY(status);
    mn_eval_metric(line, partial ? "string_match_all" : "accuracy", c->score);
    json_t *more = json_pack("{s:I,s:f,s:s,s:I,s:I,s:f,s:[f,f]}", "T", (json_int_t)T, "prompt_tokens", c->prompt_tokens, "depth",
                             g->depth_names[i % g->columns], "examples", (json_int_t)c->examples, "right", (json_int_t)c->right,
                             "all_right", (double)c->right / (double)c->examples, "interval", c->low, c->high);
    json_object_update(line, more);
    json_decref(more);
    mn_cli_json_line(v->cli, line);
  }
  return MN_OK;
}

static mn_status show_grid(const mn_eval_view *v, const char *name, mn_grid *g) {
  mn_print("%s: greedy generation from a fresh stream, %" PRId64 " examples each\n\n", name, g->cells[0].examples);
  mn_print("  %12s  %7s  %9s  %8s  %8s  %s\n", g->row_label, "depth %", "tokens", "score", "right", "95 %");
  for (int i = 0; i < g->rows * g->columns; i++) {
    const mn_text_eval *c = &g->cells[i];
    mn_print("  %12s  %7s  %9.0f  %8.4f  %8.4f  %.3f to %.3f\n", g->row_names[i / g->columns], g->depth_names[i % g->columns],
             c->prompt_tokens, c->score, (double)c->right / (double)c->examples, c->low, c->high);
  }
  char *title = mn_arena_format(v->arena, "%s: part of the answers that were right", name);
  mn_heatmap map = mn_grid_heatmap(g, title);
  if (!title || !map.values) return MN_ERR_MEMORY;
  char *text = g->columns > 1 ? mn_heatmap_text(&map, mn_cli_columns(stdout), mn_cli_color(stdout)) : NULL;
  if (text) {
    mn_print("\n");
    mn_print_bytes(text, strlen(text));
  }
  free(text);
  return MN_OK;
}

mn_status mn_eval_view_text(const mn_eval_view *v, const char *name, const mn_value *settings) {
  mn_generator *generator = NULL;
  mn_grid grid = {0};
  mn_grid_config c = {.each = {.split = MN_SPLIT_TEST, .watch = {mn_cli_stop_flag(), mn_progress_told, NULL}}};
  MN_TRY(mn_bundle_need_tokenizer(v->bundle, mn_cli_get(v->cli, "model")));
  MN_TRY(grid_options(v, &c));
  MN_TRY(mn_eval_with_seed(v, &settings));
  MN_TRY(mn_generator_new(v->bundle->model, v->bundle->params, v->bundle->tokenizer, v->prefill, v->compute, v->forget, &generator));
  mn_responder who = mn_generator_responder(generator);
  mn_progress *progress =
      mn_progress_new(v->cli, name, "examples", c.each.examples * (c.n_values ? c.n_values : 1) * (c.depths > 1 ? c.depths : 1));
  c.each.watch.ctx = progress;
  mn_status status = mn_eval_grid(name, settings, &who, &c, &grid);
  mn_progress_free(progress);
  if (mn_generator_forgot(generator))
    mn_cli_note(v->cli, "some prompts were longer than the model holds: their oldest tokens were forgotten");
  if (status == MN_OK) status = v->cli->json ? text_lines(v, name, &grid, mn_generator_state_bytes(generator)) : show_grid(v, name, &grid);
  mn_heatmap map = status == MN_OK ? mn_grid_heatmap(&grid, name) : (mn_heatmap){0};
  const char *path;
  for (int i = 0; status == MN_OK && (path = mn_cli_nth(v->cli, "plot", i)); i++)
    if ((status = map.values ? mn_heatmap_write(&map, path) : MN_ERR_MEMORY) == MN_OK) mn_cli_note(v->cli, "wrote %s", path);
  mn_grid_free(&grid);
  mn_generator_free(generator);
  return status;
}

/* ---- token ids, parallel and streamed ---- */

static mn_status parity_lines(const mn_eval_view *v, const mn_task *task, const mn_stream_eval *e, bool equal) {
  for (int k = 0; k < 2; k++) {
    const mn_task_score *s = k ? &e->streamed : &e->parallel;
    json_t *line = NULL;
    MN_TRY(mn_eval_line(v, task->def->name, task->def->fields, task->config, task->seed, e->state_bytes, &line));
    mn_eval_metric(line, "acc", mn_task_acc(s));
    json_t *more = json_pack("{s:I,s:s,s:I,s:f,s:f,s:b}", "T", (json_int_t)task->seq_len, "form", k ? "streamed" : "parallel", "examples",
                             (json_int_t)s->examples, "seq_acc", mn_task_seq_acc(s), "logits_difference", e->difference, "parity", equal);
    json_object_update(line, more);
    json_decref(more);
    mn_cli_json_line(v->cli, line);
  }
  return MN_OK;
}

mn_status mn_eval_view_parity(const mn_eval_view *v, const char *name, const mn_value *settings) {
  mn_task *task = NULL;
  mn_stream_eval e;
  mn_stream_eval_config c = {.examples = v->examples ? v->examples : PARITY_EXAMPLES,
                             .split = MN_SPLIT_TEST,
                             .seed = v->cli->seed,
                             .compute = v->compute,
                             .forget = v->forget,
                             .watch = {mn_cli_stop_flag(), mn_progress_told, NULL}};
  MN_TRY(mn_eval_with_seed(v, &settings));
  MN_TRY(mn_task_open(name, settings, &task));
  c.watch.ctx = mn_progress_new(v->cli, name, "examples", c.examples);
  mn_status status = scratch_new(v, &c.scratch);
  if (status == MN_OK) status = mn_eval_streamed(v->bundle->model, v->bundle->params, task, &c, &e);
  scratch_end(c.scratch);
  mn_progress_free(c.watch.ctx);
  if (status == MN_OK) {
    bool exact = v->compute == MN_F32; /* bf16 promises no parity */
    bool equal = fabs(mn_task_acc(&e.streamed) - mn_task_acc(&e.parallel)) < 1e-12 && e.streamed.all_right == e.parallel.all_right;
    bool close = e.difference <= 1e-4;
    if (exact && !(equal && close)) v->cli->bars_short = true;
    if (v->cli->json) {
      status = parity_lines(v, task, &e, equal && close);
    } else {
      mn_print("%s: %" PRId64 " examples of %" PRId64 " tokens, each streamed through a saved file; %zu bytes of state\n", name,
               e.parallel.examples, task->seq_len, e.state_bytes);
      mn_print("  parallel  acc %.4f  seq_acc %.4f\n  streamed  acc %.4f  seq_acc %.4f\n", mn_task_acc(&e.parallel),
               mn_task_seq_acc(&e.parallel), mn_task_acc(&e.streamed), mn_task_seq_acc(&e.streamed));
      mn_print("largest difference between logits: %.2e%s\n", e.difference, !exact ? "" : close ? " (<= 1e-4) ok" : " (<= 1e-4) short");
      if (exact) mn_print("accuracies: %s\n", equal ? "equal ok" : "differ short");
    }
  }
  mn_task_close(task);
  return status;
}

/* ---- needles in an endless stream ---- */

typedef struct needle_bars { /* of the protocol */
  double speed, drift;       /* fastest over slowest tenth; largest distance of a tenth's bits from all, part of all */
  int64_t growth;            /* bytes */
} needle_bars;

static needle_bars bars_of(const mn_needle_eval *e) {
  needle_bars b = {.growth = e->resident_end - e->resident_start};
  double slow = INFINITY, fast = 0;
  for (int i = 0; i < 10; i++) {
    const mn_needle_tenth *t = &e->tenth[i];
    double rate = (double)(t->end - t->begin) / t->seconds;
    slow = fmin(slow, rate);
    fast = fmax(fast, rate);
    b.drift = fmax(b.drift, fabs(t->bits / e->bits - 1));
  }
  b.speed = fast / slow;
  return b;
}

static json_t *octave_json(const mn_needle_octave *o) {
  return json_pack("{s:I,s:I,s:[f,f],s:I}", "asked", (json_int_t)o->asked, "right", (json_int_t)o->right, "interval", o->low, o->high,
                   "digits_right", (json_int_t)o->digits_right);
}

static double part(const mn_needle_octave *o) { return o->asked ? (double)o->right / (double)o->asked : (double)NAN; }

static mn_status needle_lines(const mn_eval_view *v, mn_needle_eval_config *c, const mn_needle_eval *e, const needle_bars *b) {
  json_t *line = NULL;
  for (int o = 0; o < MN_OCTAVES; o++) {
    if (!e->octave[o].asked) continue;
    MN_TRY(mn_eval_line(v, "stream", mn_needle_eval_fields, c, (uint64_t)c->seed, e->state_bytes, &line));
    mn_eval_metric(line, "seq_acc", part(&e->octave[o]));
    json_object_set_new(line, "T", json_integer(e->tokens));
    json_object_set_new(line, "distance", json_pack("[f,f]", exp2(o), exp2(o + 1)));
    json_object_update_new(line, octave_json(&e->octave[o]));
    mn_cli_json_line(v->cli, line);
  }
  MN_TRY(mn_eval_line(v, "stream", mn_needle_eval_fields, c, (uint64_t)c->seed, e->state_bytes, &line));
  mn_eval_metric(line, "half_life", e->half_life);
  json_t *tenths = json_array();
  for (int i = 0; i < 10; i++)
    json_array_append_new(tenths, json_pack("{s:I,s:f,s:o}", "end", (json_int_t)e->tenth[i].end, "tokens_per_second",
                                            (double)(e->tenth[i].end - e->tenth[i].begin) / e->tenth[i].seconds, "bits_per_token",
                                            mn_cli_number(e->tenth[i].bits)));
  char digest[17];
  snprintf(digest, sizeof digest, "%016" PRIx64, e->digest);
  json_object_update_new(line, json_pack("{s:I,s:f,s:o,s:o,s:o,s:o,s:o,s:o,s:I,s:I,s:s}", "T", (json_int_t)e->tokens, "seconds", e->seconds,
                                         "bits_per_token", mn_cli_number(e->bits), "all", octave_json(&e->all), "updated",
                                         octave_json(&e->updated), "distractor", octave_json(&e->distractor), "unknown",
                                         octave_json(&e->unknown), "tenths", tenths, "resident_from", (json_int_t)e->resident_from,
                                         "resident_growth_bytes", (json_int_t)b->growth, "digest", digest));
  json_object_update_new(line, json_pack("{s:o,s:o,s:o,s:o}", "confidence_known", mn_cli_number(e->known_confidence), "confidence_unknown",
                                         mn_cli_number(e->unknown_confidence), "speed_ratio", mn_cli_number(b->speed), "bits_drift",
                                         mn_cli_number(b->drift)));
  if (e->restarted_at >= 0)
    json_object_set_new(line, "restart",
                        json_pack("{s:I,s:I,s:b}", "at", (json_int_t)e->restarted_at, "compared", (json_int_t)e->restart_checked, "equal",
                                  e->restart_equal));
  mn_cli_json_line(v->cli, line);
  return MN_OK;
}

static void print_octave(const char *name, const mn_needle_octave *o) {
  if (o->asked)
    mn_print("  %-16s  %5" PRId64 "  %5" PRId64 "   %.3f    %.3f to %.3f\n", name, o->asked, o->right, part(o), o->low, o->high);
}

static void print_needles(const mn_needle_eval *e, const needle_bars *b) {
  char rate[16], time[16], name[48];
  mn_print("%" PRId64 " tokens in %s, %s tokens/s; %zu bytes of state\n\n  %-16s  asked  right  seq_acc  95 %%\n", e->tokens,
           mn_human_time(e->seconds, time), mn_human_count((double)e->tokens / e->seconds, rate), e->state_bytes, "distance");
  for (int o = 0; o < MN_OCTAVES; o++) {
    snprintf(name, sizeof name, "2^%d to 2^%d", o, o + 1);
    print_octave(name, &e->octave[o]);
  }
  print_octave("all", &e->all);
  print_octave("written twice", &e->updated);
  print_octave("distractor", &e->distractor);
  print_octave("never written", &e->unknown);
  if (e->half_life <= 0) mn_print("half-life: below the shortest distance\n");
  else if (isinf(e->half_life)) mn_print("half-life: beyond the longest distance\n");
  else mn_print("half-life: %.0f tokens\n", e->half_life);
  mn_print("confidence in the first answer token: %.3f where the key was written, %.3f where not\n\n  tenth   up to token   bits/token   "
           "tokens/s\n",
           e->known_confidence, e->unknown_confidence);
  for (int i = 0; i < 10; i++)
    mn_print("  %5d  %12" PRId64 "   %10.4f   %8s\n", i + 1, e->tenth[i].end, e->tenth[i].bits,
             mn_human_count((double)(e->tenth[i].end - e->tenth[i].begin) / e->tenth[i].seconds, rate));
  mn_print("\nspeed, fastest tenth over slowest: %.3f (<= 1.2) %s\n", b->speed, b->speed <= 1.2 ? "ok" : "short");
  mn_print("resident memory, growth since token %" PRId64 ": %" PRId64 " KiB (< 1024) %s\n", e->resident_from, b->growth / 1024,
           b->growth < 1 << 20 ? "ok" : "short");
  mn_print("background, drift of a tenth's bits: %.2f %% (< 2) %s\n", 100 * b->drift, b->drift < 0.02 ? "ok" : "short");
  if (e->restarted_at >= 0)
    mn_print("restart at %" PRId64 ", %" PRId64 " tokens compared: %s\n", e->restarted_at, e->restart_checked,
             e->restart_equal ? "same bits ok" : "other bits short");
  mn_print("digest of all losses and answers: %016" PRIx64 "\n", e->digest);
}

static mn_status plot_needles(const mn_eval_view *v, const mn_needle_eval *e) {
  double x[MN_OCTAVES], y[3][MN_OCTAVES];
  size_t n = 0;
  for (int o = 0; o < MN_OCTAVES; o++)
    if (e->octave[o].asked) x[n] = exp2(o + 0.5), y[0][n] = part(&e->octave[o]), y[1][n] = e->octave[o].low, y[2][n++] = e->octave[o].high;
  const mn_plot_series series[] = {{.label = "seq_acc", .x = x, .y = y[0], .n = n},
                                   {.label = "95 %, lower", .x = x, .y = y[1], .n = n, .dashed = true},
                                   {.label = "95 %, upper", .x = x, .y = y[2], .n = n, .dashed = true}};
  const mn_plot plot = {.title = "Recall against distance in one stream",
                        .x_label = "tokens between writing and asking",
                        .y_label = "part right",
                        .x_log = true,
                        .y_min = 0,
                        .y_max = 1,
                        .series = series,
                        .n_series = 3};
  return mn_cli_draw(v->cli, &plot);
}

mn_status mn_eval_view_needles(const mn_eval_view *v, const mn_value *settings) {
  static const mn_field name_only[] = {{.name = "name", .type = MN_TYPE_STRING, .help = "the task"}, MN_FIELD_END};
  mn_needle_eval_config c;
  mn_needle_eval e;
  mn_needle_eval_run run = {.segment = v->prefill,
                            .compute = v->compute,
                            .forget = v->forget,
                            .restart = mn_cli_given(v->cli, "restart-at"),
                            .watch = {mn_cli_stop_flag(), mn_progress_told, NULL}};
  const char *tokens = mn_cli_get(v->cli, "tokens");
  MN_TRY(mn_eval_with_seed(v, &settings));
  if (tokens) MN_TRY(set(v, &settings, "tokens", tokens));
  MN_TRY(mn_cli_int(v->cli, "restart-at", 0, INT32_MAX, &run.restart_at));
  mn_config_defaults(mn_needle_eval_fields, &c);
  MN_TRY(mn_config_parse(v->arena, settings, "task", (const mn_config_part[]){{mn_needle_eval_fields, &c}, {name_only, NULL}}, 2));
  run.watch.ctx = mn_progress_new(v->cli, "stream", "tokens", c.tokens);
  mn_status status = scratch_new(v, &run.scratch);
  if (status == MN_OK) status = mn_eval_needles(v->bundle->model, v->bundle->params, &c, &run, &e);
  scratch_end(run.scratch);
  mn_progress_free(run.watch.ctx);
  MN_TRY(status);
  needle_bars b = bars_of(&e);
  bool flat = b.speed <= 1.2 && b.growth < 1 << 20 && b.drift < 0.02;
  if ((!flat && e.tokens >= 1000000) || (e.restarted_at >= 0 && !e.restart_equal))
    v->cli->bars_short = true; /* a short stream is too noisy to judge */
  if (v->cli->json) MN_TRY(needle_lines(v, &c, &e, &b));
  else print_needles(&e, &b);
  return plot_needles(v, &e);
}
