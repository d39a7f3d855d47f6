/* eval_verbatim.c - `mneme eval --task verbatim`: the lists that come again (eval/verbatim_eval.h), as a table, as JSON lines and drawn. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/eval_tasks.h"
#include "eval/shuffle.h"
#include "eval/verbatim_eval.h"
#include "format/plot.h"

/* ---- the table ---- */

static void print_cells(const mn_verbatim_eval *e) {
  char rate[16], time[16];
  int64_t flagged = 0, nothing = 0;
  mn_print("verbatim: %" PRId64 " vignettes each, %s tokens/s, %s; %zu bytes of state\n", e->vignettes,
           mn_human_count((double)e->tokens / e->seconds, rate), mn_human_time(e->seconds, time), e->state_bytes);
  mn_print("surprisal of the second list, per cent of the first's: median, and 95 %% of its bootstrap\n\n");
  mn_print("  %-9s  %5s  %-11s  %7s  %-8s  %8s  %16s  %6s  %8s  %8s\n", "lists", "nouns", "context", "between", "second", "per cent",
           "95 %", "MAD", "nats 1st", "nats 2nd");
  for (int i = 0; i < e->n; i++) {
    const mn_verbatim_cell *c = &e->cells[i];
    char interval[32];
    snprintf(interval, sizeof interval, "%.1f to %.1f", c->repeat.low, c->repeat.high);
    mn_print("  %-9s  %5d  %-11s  %7.0f  %-8s  %8.1f  %16s  %6.1f  %8.2f  %8.2f%s\n", mn_vignette_kinds[c->of.kind], c->of.length,
             mn_vignette_contexts[c->of.context], c->gap, mn_vignette_seconds[c->of.second], c->repeat.value, interval, c->deviation,
             c->first, c->second, c->flagged ? " !" : "");
    flagged += c->flagged;
    nothing += c->nothing;
  }
  mn_print("\nbetween: tokens between the lists; nats: of a noun, in the first and the second list (median)\n");
  if (flagged)
    mn_print("! %" PRId64 " vignettes whose first list has under 1 nat a noun: their ratio says little%s\n", flagged,
             nothing ? "; where it has none there is no ratio" : "");
}

/* ---- JSON ---- */

static json_t *places(const mn_verbatim_cell *c, int list) {
  json_t *all = json_array();
  for (int k = 0; k < c->of.length; k++) {
    const mn_estimate *at = &c->at[list][k];
    json_array_append_new(all, json_pack("[o,o,o]", mn_cli_number(at->value), mn_cli_number(at->low), mn_cli_number(at->high)));
  }
  return all;
}

static mn_status lines(const mn_eval_view *v, mn_verbatim_config *config, bool shuffled, const mn_verbatim_eval *e) {
  for (int i = 0; i < e->n; i++) {
    const mn_verbatim_cell *c = &e->cells[i];
    json_t *line = NULL;
    MN_TRY(mn_eval_line(v, "verbatim", mn_verbatim_fields, config, (uint64_t)config->seed, e->state_bytes, &line));
    mn_eval_metric(line, "repeat_surprisal", c->repeat.value);
    json_object_update_new(line,
                           json_pack("{s:I,s:s,s:i,s:s,s:o,s:f,s:s}", "T", (json_int_t)c->longest, "lists", mn_vignette_kinds[c->of.kind],
                                     "length", c->of.length, "context", mn_vignette_contexts[c->of.context], "delay",
                                     c->of.context == MN_CONTEXT_SHORT ? json_null() : json_integer(c->of.delay), "between", c->gap,
                                     "second", mn_vignette_seconds[c->of.second]));
    json_object_update_new(line,
                           json_pack("{s:I,s:[o,o],s:o,s:o,s:f,s:f,s:I,s:I}", "vignettes", (json_int_t)c->vignettes, "interval",
                                     mn_cli_number(c->repeat.low), mn_cli_number(c->repeat.high), "deviation", mn_cli_number(c->deviation),
                                     "change", mn_cli_number(c->change), "first_nats", c->first, "second_nats", c->second, "flagged",
                                     (json_int_t)c->flagged, "without_ratio", (json_int_t)c->nothing));
    json_object_update_new(line, json_pack("{s:o,s:o}", "first_places", places(c, 0), "second_places", places(c, 1)));
    json_object_set_new(line, "shuffled", json_boolean(shuffled));
    mn_cli_json_line(v->cli, line);
  }
  return MN_OK;
}

/* ---- pictures ---- */

enum { MOST_SERIES = 3 * (MN_SECONDS + 1), MOST_POINTS = 64 };

typedef struct drawing {
  mn_plot plot;
  mn_plot_series series[MOST_SERIES];
  double x[MN_SECONDS + 1][MOST_POINTS], y[MN_SECONDS + 1][3][MOST_POINTS];
} drawing;

/* A line with its interval. */
static void draw_line(drawing *d, int at, size_t n, const char *label) {
  if (!n) return;
  for (int k = 0; k < 3; k++)
    d->series[d->plot.n_series++] =
        (mn_plot_series){.label = k ? NULL : label, .x = d->x[at], .y = d->y[at][k], .n = n, .dashed = k > 0, .beside = k > 0};
}

static void set_point(drawing *d, int at, size_t n, double x, const mn_estimate *y) {
  d->x[at][n] = x;
  d->y[at][0][n] = y->value;
  d->y[at][1][n] = y->low;
  d->y[at][2][n] = y->high;
}

/* Repeat surprisal against the tokens between the lists; of the first kind, context and length. */
static void draw_delays(drawing *d, const mn_verbatim_eval *e) {
  const mn_vignette_cell *first = &e->cells[0].of;
  d->plot = (mn_plot){.title = "Surprisal of a list that comes again",
                      .x_label = "tokens between the lists",
                      .y_label = "per cent of the first list's",
                      .x_log = true,
                      .y_zero = true};
  for (int s = 0; s < MN_SECONDS; s++) {
    size_t n = 0;
    for (int i = 0; i < e->n && n < MOST_POINTS; i++) {
      const mn_vignette_cell *of = &e->cells[i].of;
      if (of->second == s && of->kind == first->kind && of->length == first->length && of->context == first->context)
        set_point(d, s, n++, fmax(e->cells[i].gap, 1), &e->cells[i].repeat);
    }
    draw_line(d, s, n, mn_vignette_seconds[s]);
  }
}

/* Surprisal by place in the list: the first list, and each second one, of the first of all cells. */
static void draw_places(drawing *d, const mn_verbatim_eval *e) {
  const mn_vignette_cell *first = &e->cells[0].of;
  d->plot = (mn_plot){
      .title = "Surprisal along a list and where it comes again", .x_label = "place in the list", .y_label = "nats", .y_zero = true};
  for (int k = 0; k < first->length; k++) set_point(d, MN_SECONDS, (size_t)k, k + 1, &e->cells[0].at[0][k]);
  draw_line(d, MN_SECONDS, (size_t)first->length, "first list");
  for (int i = 0; i < e->n; i++) {
    const mn_verbatim_cell *c = &e->cells[i];
    if (c->of.kind != first->kind || c->of.length != first->length || c->of.context != first->context || c->of.delay != first->delay)
      continue;
    for (int k = 0; k < c->of.length; k++) set_point(d, c->of.second, (size_t)k, k + 1, &c->at[1][k]);
    draw_line(d, c->of.second, (size_t)c->of.length, mn_vignette_seconds[c->of.second]);
  }
}

static mn_status draw(const mn_eval_view *v, const mn_verbatim_eval *e) {
  bool delays = false;
  for (int i = 1; i < e->n; i++)
    delays = delays || (e->cells[i].of.context == e->cells[0].of.context && e->cells[i].of.delay != e->cells[0].of.delay);
  drawing *d = mn_arena_alloc(v->arena, sizeof *d);
  if (!d) return MN_ERR_MEMORY;
  if (delays) draw_delays(d, e);
  else draw_places(d, e);
  d->plot.series = d->series;
  return mn_cli_draw(v->cli, &d->plot);
}

/* ---- what a reader of the table should know of the model ---- */

/* The widest `window` of the model's settings; 0: none. */
static int64_t widest_window(const mn_value *v) {
  int64_t most = 0;
  for (size_t i = 0; v && (v->kind == MN_MAP || v->kind == MN_LIST) && i < v->count; i++) {
    const mn_value *x = v->kind == MN_MAP ? v->as.entries[i].value : v->as.items[i];
    const int64_t below =
        v->kind == MN_MAP && !strcmp(v->as.entries[i].key, "window") && x->kind == MN_INTEGER ? x->as.integer : widest_window(x);
    most = below > most ? below : most;
  }
  return most;
}

static mn_status note_windows(const mn_eval_view *v, const mn_verbatim_eval *e) {
  const mn_value *settings = mn_model_to_value(v->arena, v->bundle->model);
  if (!settings) return MN_ERR_MEMORY;
  const int64_t window = widest_window(settings);
  const mn_verbatim_cell *last = NULL;
  for (int i = 0; i < e->n; i++)
    if (window && e->cells[i].gap >= (double)window && (!last || e->cells[i].gap > last->gap)) last = &e->cells[i];
  if (last)
    mn_cli_note(v->cli,
                "the model's widest window has %" PRId64
                " tokens, and up to %.0f stand between the lists: there no window holds both, and what "
                "comes back was handed on",
                window, last->gap);
  return MN_OK;
}

/* ---- all ---- */

typedef struct control {
  bool shuffle;
} control;
static const mn_field control_fields[] = {
    MN_FIELD_BOOL(control, shuffle, false, "a control: the weights of every q_proj and k_proj change places before anything is read"),
    MN_FIELD_END};

mn_status mn_eval_view_verbatim(const mn_eval_view *v, const mn_value *settings) {
  static const mn_field name_only[] = {{.name = "name", .type = MN_TYPE_STRING, .help = "the task"}, MN_FIELD_END};
  mn_verbatim_config c;
  mn_verbatim_eval e;
  control also;
  mn_verbatim_run run = {.vignettes = v->examples,
                         .prefill = v->prefill,
                         .compute = v->compute,
                         .forget = v->forget,
                         .watch = {mn_cli_stop_flag(), mn_progress_told, NULL}};
  int64_t all;
  MN_TRY(mn_eval_with_seed(v, &settings));
  mn_config_defaults(mn_verbatim_fields, &c);
  mn_config_defaults(control_fields, &also);
  MN_TRY(mn_config_parse(v->arena, settings, "task",
                         (const mn_config_part[]){{mn_verbatim_fields, &c}, {control_fields, &also}, {name_only, NULL}}, 3));
  if (run.vignettes > MN_VIGNETTES)
    return mn_fail(MN_ERR_CONFIG, "--examples %" PRId64 ": there are %d vignettes of a cell", run.vignettes, MN_VIGNETTES);
  MN_TRY(mn_cli_int(v->cli, "batch", 1, 65536, &run.batch));
  MN_TRY(mn_verbatim_count(&c, &run, &all));
  if (also.shuffle) MN_TRY(mn_shuffle_queries_and_keys(v->bundle->params, (uint64_t)c.seed, false));
  run.watch.ctx = mn_progress_new(v->cli, "verbatim", "vignettes", all);
  mn_status status = mn_eval_verbatim(v->bundle->model, v->bundle->params, v->bundle->tokenizer, &c, &run, &e);
  mn_progress_free(run.watch.ctx);
  MN_TRY(status);
  if (v->cli->json) status = lines(v, &c, also.shuffle, &e);
  else print_cells(&e);
  if (status == MN_OK) status = note_windows(v, &e);
  if (status == MN_OK) status = draw(v, &e);
  mn_verbatim_free(&e);
  return status;
}
