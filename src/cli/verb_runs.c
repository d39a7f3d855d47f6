/* verb_runs.c - `mneme runs`: what was trained, side by side; curves in the terminal or as files. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/dir.h"
#include "base/file.h"
#include "base/nearest.h"
#include "cli/cli.h"
#include "cli/progress.h"
#include "format/plot.h"
#include "train/runs.h"

enum { MAX_CURVES = 64, MAX_METRICS = 8 };

static const char *shorten(double x, char out[16]) { return isfinite(x) ? mn_human_count(x, out) : "-"; }

static const char *date(double seconds, char out[32]) {
  time_t t = (time_t)seconds;
  struct tm tm;
  if (!localtime_r(&t, &tm) || !strftime(out, 32, "%Y-%m-%d %H:%M", &tm)) return strcpy(out, "?");
  return out;
}

/* ---- as JSON ------------------------------------------------------------------------------------------------------ */

static json_t *run_json(const mn_run *r) {
  return json_pack("{s:I,s:o,s:o,s:o,s:I,s:I,s:I,s:o,s:i,s:o,s:o,s:f,s:f}", "id", (json_int_t)r->id, "name", mn_cli_text(r->name), "status",
                   mn_cli_text(r->status), "message", mn_cli_text(r->message), "steps", (json_int_t)r->steps, "tokens",
                   (json_int_t)r->tokens, "parameters", (json_int_t)r->parameters, "isa", mn_cli_text(r->isa), "threads", r->threads,
                   "fingerprint", mn_cli_text(r->fingerprint), "out_dir", mn_cli_text(r->out_dir), "created", r->created, "updated",
                   r->updated);
}

static json_t *summary_json(const mn_metric_summary *m, size_t n) {
  json_t *all = json_object();
  for (size_t i = 0; i < n; i++)
    json_object_set_new(all, m[i].name,
                        json_pack("{s:I,s:I,s:I,s:o,s:o,s:o}", "count", (json_int_t)m[i].count, "first_step", (json_int_t)m[i].first_step,
                                  "last_step", (json_int_t)m[i].last_step, "last", mn_cli_number(m[i].last), "min", mn_cli_number(m[i].min),
                                  "max", mn_cli_number(m[i].max)));
  return all;
}

/* ---- list --------------------------------------------------------------------------------------------------------- */

static double last_of(const mn_metric_summary *m, size_t n, const char *name) {
  for (size_t i = 0; i < n; i++)
    if (!strcmp(m[i].name, name)) return m[i].last;
  return (double)NAN;
}

static mn_status list(mn_cli *cli, mn_runs *db, mn_arena *arena) {
  int64_t limit = 0;
  mn_run *runs = NULL;
  size_t n = 0;
  MN_TRY(mn_cli_int(cli, "limit", 0, INT64_MAX, &limit));
  if (db) MN_TRY(mn_runs_list(db, arena, limit, &runs, &n));
  json_t *all = cli->json ? json_array() : NULL;
  if (!cli->json && n == 0) mn_print("No runs yet: `mneme train RECIPE.yaml --out DIR` makes the first.\n");
  int name_width = 4;
  for (size_t i = 0; i < n; i++) name_width = strlen(runs[i].name) > (size_t)name_width ? (int)strlen(runs[i].name) : name_width;
  if (name_width > 32) name_width = 32;
  if (!cli->json && n)
    mn_print("%5s  %-*s  %-11s  %8s  %7s  %7s  %9s  %10s  %s\n", "id", name_width, "name", "status", "steps", "tokens", "params", "loss",
             "validation", "begun");
  for (size_t i = 0; i < n; i++) {
    const mn_run *r = &runs[i];
    mn_metric_summary *m;
    size_t n_metrics;
    mn_status status = mn_stop_check("listing runs");
    if (status == MN_OK) status = mn_run_summary(db, arena, r->id, &m, &n_metrics);
    if (status != MN_OK) {
      json_decref(all);
      return status;
    }
    if (cli->json) {
      json_t *run = run_json(r);
      json_object_set_new(run, "metrics", summary_json(m, n_metrics));
      json_array_append_new(all, run);
      continue;
    }
    char tokens[16], parameters[16], when[32], loss[24] = "-", validation[24] = "-";
    double l = last_of(m, n_metrics, "loss"), v = last_of(m, n_metrics, "validation_loss");
    if (isfinite(l)) snprintf(loss, sizeof loss, "%.4f", l);
    if (isfinite(v)) snprintf(validation, sizeof validation, "%.4f", v);
    mn_print("%5" PRId64 "  %-*.*s  %-11s  %8" PRId64 "  %7s  %7s  %9s  %10s  %s\n", r->id, name_width, name_width, r->name, r->status,
             r->steps, shorten((double)r->tokens, tokens), shorten((double)r->parameters, parameters), loss, validation,
             date(r->created, when));
  }
  return cli->json ? mn_cli_json(cli, all) : MN_OK;
}

/* ---- show --------------------------------------------------------------------------------------------------------- */

static mn_status show(mn_cli *cli, mn_runs *db, mn_arena *arena, const char *which) {
  mn_run r;
  mn_metric_summary *m;
  size_t n;
  MN_TRY(mn_runs_find(db, arena, which, &r));
  MN_TRY(mn_run_summary(db, arena, r.id, &m, &n));
  json_t *recipe = json_loads(r.recipe, JSON_DECODE_ANY, NULL);
  if (cli->json) {
    json_t *run = run_json(&r);
    json_object_set_new(run, "recipe", recipe ? recipe : mn_cli_text(r.recipe));
    json_object_set_new(run, "metrics", summary_json(m, n));
    return mn_cli_json(cli, run);
  }
  char a[16], b[16], from[32], to[32];
  mn_print("run %" PRId64 ": %s, %s%s%s\n\n", r.id, r.name, r.status, *r.message ? ": " : "", r.message);
  mn_print("  begun        %s\n  last record  %s (%s)\n", date(r.created, from), date(r.updated, to),
           mn_human_time(r.updated - r.created, a));
  mn_print("  steps        %" PRId64 "\n  tokens       %s\n  parameters   %s\n", r.steps, shorten((double)r.tokens, a),
           shorten((double)r.parameters, b));
  mn_print("  machine      %s, %d threads, %s\n  fingerprint  %s\n  directory    %s\n", r.host, r.threads, r.isa, r.fingerprint, r.out_dir);
  if (n) mn_print("\n  %-24s %9s %12s %12s %12s\n", "metric", "records", "last", "lowest", "highest");
  for (size_t i = 0; i < n; i++)
    mn_print("  %-24s %9" PRId64 " %12.6g %12.6g %12.6g\n", m[i].name, m[i].count, m[i].last, m[i].min, m[i].max);
  if (recipe && mn_cli_given(cli, "recipe")) {
    mn_print("\nrecipe\n");
    MN_TRY(mn_print_json(json_incref(recipe), JSON_INDENT(2)));
  }
  json_decref(recipe);
  return MN_OK;
}

/* ---- plot --------------------------------------------------------------------------------------------------------- */

static mn_status refuse_metric(mn_runs *db, mn_arena *arena, const mn_run *r, const char *metric) {
  mn_metric_summary *m;
  size_t n;
  MN_TRY(mn_run_summary(db, arena, r->id, &m, &n));
  const char *names[256];
  char known[512] = "";
  int count = 0;
  for (size_t i = 0; i < n && i < 256; i++) {
    names[count++] = m[i].name;
    size_t used = strlen(known);
    snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "", m[i].name);
  }
  if (n == 0) return mn_fail(MN_ERR_CONFIG, "run %" PRId64 " (%s) has no metrics yet", r->id, r->name);
  const char *near = mn_nearest(metric, names, count);
  return mn_fail(MN_ERR_CONFIG, "run %" PRId64 " (%s) has no metric '%s'%s%s%s; it has %s", r->id, r->name, metric,
                 near ? "; did you mean " : "", near ? near : "", near ? "?" : "", known);
}

static mn_status write_files(mn_cli *cli, const mn_plot *plot) {
  for (int i = 0;; i++) {
    const char *path = mn_cli_nth(cli, "out", i);
    if (!path) return MN_OK;
    MN_TRY(mn_plot_write(plot, path));
    mn_cli_note(cli, "wrote %s", path);
  }
}

typedef struct curve {
  int64_t run;
  const char *name, *metric;
} curve;

static json_t *curves_json(const curve *curves, const mn_plot_series *series, int n, const char *axis) {
  json_t *all = json_array();
  for (int i = 0; i < n; i++) {
    json_t *xs = json_array(), *ys = json_array();
    for (size_t j = 0; j < series[i].n; j++) {
      json_array_append_new(xs, mn_cli_number(series[i].x[j]));
      json_array_append_new(ys, mn_cli_number(series[i].y[j]));
    }
    json_array_append_new(all, json_pack("{s:I,s:o,s:o,s:s,s:o,s:o}", "run", (json_int_t)curves[i].run, "name", mn_cli_text(curves[i].name),
                                         "metric", mn_cli_text(curves[i].metric), "x_axis", axis, "x", xs, "y", ys));
  }
  return all;
}

static mn_status plot(mn_cli *cli, mn_runs *db, mn_arena *arena) {
  static const char *const axes[] = {"step", "tokens", "time", NULL};
  static const char *const axis_label[] = {"step", "tokens", "seconds"};
  static const char *const scales[] = {"linear", "log", NULL};
  int axis = 0, x_scale = 0, y_scale = 0, n = 0, n_metrics = 0;
  int64_t smooth = -1;
  MN_TRY(mn_cli_choice(cli, "x", axes, &axis));
  MN_TRY(mn_cli_choice(cli, "x-scale", scales, &x_scale));
  MN_TRY(mn_cli_choice(cli, "y-scale", scales, &y_scale));
  MN_TRY(mn_cli_int(cli, "smooth", 0, 1000000, &smooth));
  while (mn_cli_nth(cli, "metric", n_metrics)) n_metrics++;
  if (n_metrics > MAX_METRICS)
    return mn_fail(MN_ERR_CONFIG, "runs plot: at most %d metrics in one picture, not %d", MAX_METRICS, n_metrics);
  if (cli->n_args - 1 > MAX_CURVES / n_metrics) return mn_fail(MN_ERR_CONFIG, "runs plot: at most %d curves in one picture", MAX_CURVES);

  mn_plot_series series[MAX_CURVES];
  curve curves[MAX_CURVES];
  for (int i = 1; i < cli->n_args; i++) {
    mn_run r;
    MN_TRY(mn_runs_find(db, arena, cli->args[i], &r));
    for (int k = 0; k < n_metrics; k++) {
      const char *metric = mn_cli_nth(cli, "metric", k);
      mn_metric_series s;
      MN_TRY(mn_run_series(db, arena, r.id, metric, &s));
      if (s.n == 0) return refuse_metric(db, arena, &r, metric);
      const char *shown;
      char *label = n_metrics == 1     ? mn_arena_format(arena, "%" PRId64 " %s", r.id, r.name)
                    : cli->n_args == 2 ? mn_arena_strdup(arena, metric)
                                       : mn_arena_format(arena, "%" PRId64 " %s, %s", r.id, r.name, metric);
      if (!label || !(shown = mn_cli_shown(arena, label))) return MN_ERR_MEMORY;
      const double *x = axis == 0 ? s.step : axis == 1 ? s.tokens : s.time;
      /* Noise is averaged only where it would hide the curve. */
      size_t window = smooth >= 0 ? (size_t)smooth : s.n > 200 ? s.n / 50 : 0;
      curves[n] = (curve){r.id, r.name, metric};
      series[n++] = (mn_plot_series){.label = shown, .x = x, .y = s.value, .n = s.n, .smooth = window};
    }
  }
  const char *first = mn_cli_shown(arena, mn_cli_nth(cli, "metric", 0)), *title = mn_cli_get(cli, "title");
  if (title && !(title = mn_cli_shown(arena, title))) return MN_ERR_MEMORY;
  if (!first) return MN_ERR_MEMORY;
  mn_plot p = {.title = title    ? title
                        : n == 1 ? series[0].label
                                 : first,
               .x_label = axis_label[axis],
               .y_label = n_metrics == 1 ? first : "",
               .x_log = x_scale == 1,
               .y_log = y_scale == 1,
               .series = series,
               .n_series = n};
  MN_TRY(write_files(cli, &p));
  if (cli->json) return mn_cli_json(cli, curves_json(curves, series, n, axes[axis]));
  if (mn_cli_given(cli, "out")) return MN_OK;
  int columns = mn_cli_columns(stdout);
  char *text = mn_plot_text(&p, columns > 120 ? 120 : columns, 22, mn_cli_color(stdout));
  if (!text) return MN_ERR_MEMORY;
  mn_print_bytes(text, strlen(text));
  free(text);
  return MN_OK;
}

/* ---- the verb ----------------------------------------------------------------------------------------------------- */

/* All that are named, or none. */
static mn_status remove_runs(mn_cli *cli, mn_runs *db, mn_arena *arena) {
  mn_run *runs = mn_arena_alloc(arena, (size_t)cli->n_args * sizeof *runs);
  if (!runs) return MN_ERR_MEMORY;
  for (int i = 1; i < cli->n_args; i++) {
    MN_TRY(mn_runs_find(db, arena, cli->args[i], &runs[i]));
    if (!strcmp(runs[i].status, "running"))
      return mn_fail(MN_ERR_CONFIG, "run %" PRId64 " (%s) is still running; end it first", runs[i].id, runs[i].name);
    for (int k = 1; k < i; k++)
      if (runs[k].id == runs[i].id) return mn_fail(MN_ERR_CONFIG, "runs delete: %s and %s are one run", cli->args[k], cli->args[i]);
  }
  for (int i = 1; i < cli->n_args; i++) {
    MN_TRY(mn_run_delete(db, runs[i].id));
    mn_cli_note(cli, "removed run %" PRId64 " (%s) from the database; its files in %s are untouched", runs[i].id, runs[i].name,
                runs[i].out_dir);
  }
  return MN_OK;
}

static mn_status act(mn_cli *cli, mn_runs *db, mn_arena *arena, int action) {
  const char *name = cli->args[0];
  if (action == 0) {
    if (cli->n_args > 1) return mn_fail(MN_ERR_CONFIG, "runs list takes no more words: '%s'", cli->args[1]);
    return list(cli, db, arena);
  }
  if (cli->n_args < 2) return mn_fail(MN_ERR_CONFIG, "runs %s: which run? Give a number or a name from `mneme runs list`", name);
  if (action == 2) return plot(cli, db, arena);
  if (action == 1 && cli->n_args > 2) return mn_fail(MN_ERR_CONFIG, "runs show takes one run; '%s' is one too many", cli->args[2]);
  if (action == 1) return show(cli, db, arena, cli->args[1]);
  return remove_runs(cli, db, arena);
}

static mn_status run(mn_cli *cli) {
  static const char *const actions[] = {"list", "show", "plot", "delete", NULL};
  int action = 0;
  while (actions[action] && strcmp(actions[action], cli->args[0])) action++;
  if (!actions[action]) {
    const char *near = mn_nearest(cli->args[0], actions, 4);
    return mn_fail(MN_ERR_CONFIG, "runs: '%s' is not one of list, show, plot, delete%s%s%s", cli->args[0], near ? "; did you mean " : "",
                   near ? near : "", near ? "?" : "");
  }
  MN_TRY(mn_cli_only(cli, action == 0, "`mneme runs list`", "limit"));
  MN_TRY(mn_cli_only(cli, action == 1, "`mneme runs show`", "recipe"));
  MN_TRY(mn_cli_only(cli, action == 2, "`mneme runs plot`", "metric out x x-scale y-scale smooth title"));
  const char *path = mn_cli_get(cli, "db");
  char *standard = path ? NULL : mn_runs_default_path();
  mn_path_kind kind = MN_PATH_NONE;
  mn_status seen = standard ? mn_path_look(standard, &kind) : MN_OK;
  bool none = standard && kind == MN_PATH_NONE; /* nothing was trained here: an empty list, no error */
  free(standard);
  if (seen != MN_OK) return seen; /* what cannot be looked at is no empty list */
  mn_runs *db = NULL;
  if (!none || action != 0) MN_TRY(mn_runs_open(path, false, &db));
  mn_arena *arena = mn_arena_new();
  mn_status status = arena ? act(cli, db, arena, action) : MN_ERR_MEMORY;
  mn_arena_free(arena);
  mn_runs_close(db);
  return status;
}

static const mn_option options[] = {
    {"db", "FILE", NULL, "the run database ($MNEME_HOME/runs.db or ./runs/mneme.db unless given)", 0},
    {"limit", "N", "0", "list: only the newest N; 0 lists all", 0},
    {"recipe", NULL, NULL, "show: the whole recipe too", 0},
    {"metric", "NAME", "loss", "plot: what to draw; may be repeated", MN_OPTION_REPEATS},
    {"out", "FILE", NULL, "plot: write FILE.svg or FILE.png instead of drawing in the terminal; may be repeated",
     MN_OPTION_REPEATS | MN_OPTION_PICTURE},
    {"x", "AXIS", "step", "plot: step, tokens or time", 0},
    {"x-scale", "SCALE", "linear", "plot: linear or log", 0},
    {"y-scale", "SCALE", "linear", "plot: linear or log", 0},
    {"smooth", "N", NULL, "plot: average over N records, 0 for none (a fiftieth of them if more than 200)", 0},
    {"title", "TEXT", NULL, "plot: the title", 0},
    {0}};
static const char *const examples[] = {"mneme runs list", "mneme runs show 3 --recipe",
                                       "mneme runs plot 3 4 --metric loss --metric validation_loss",
                                       "mneme runs plot titans attention --x tokens --out curves.svg --out curves.png", NULL};
const mn_verb mn_verb_runs = {
    .name = "runs",
    .purpose = MN_VERB_LOOK,
    .summary = "list, show and plot training runs",
    .usage = "list | show RUN | plot RUN... | delete RUN... [options]",
    .about = "Every training is recorded in a database: its recipe, its machine, how it ended, and its metrics. RUN is a "
             "number from the list, a name (the newest of that name) or an output directory.",
    .options = options,
    .examples = examples,
    .min_args = 1,
    .max_args = -1,
    .run = run};
