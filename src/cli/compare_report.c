/* compare_report.c - see compare_work.h: what was found, as a table for people, as JSON and as pictures. */
#include <ctype.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/file.h"
#include "base/output.h"
#include "cli/compare_measure.h"
#include "cli/compare_work.h"
#include "format/plot.h"

typedef struct column {
  const char *title, *metric; /* metric: what the run database calls it; NULL: the number of parameters */
  int track;
} column;

typedef struct table {
  const mn_work *w;
  int n;
  column *columns;
} table;

static mn_status add(table *t, int track, const char *title, const char *metric) {
  if (!title) return MN_ERR_MEMORY;
  t->columns[t->n++] = (column){title, metric, track};
  return MN_OK;
}

static mn_status list_columns(mn_work *w, table *t) {
  size_t most = 0;
  for (int k = 0; k < w->n_tracks; k++) most += 3 + (size_t)w->tracks[k].n_measures * (MN_SPEED_POSITIONS + 2);
  *t = (table){.w = w, .columns = mn_arena_alloc(w->arena, most * sizeof *t->columns)};
  if (!t->columns) return MN_ERR_MEMORY;
  for (int k = 0; k < w->n_tracks; k++) {
    const mn_track *track = &w->tracks[k];
    MN_TRY(add(t, k, mn_arena_format(w->arena, "%s: parameters", track->name), NULL));
    for (int i = 0; i < track->n_measures; i++) {
      const mn_measure *m = &track->measures[i];
      if (m->kind != MN_MEASURE_SPEED) {
        MN_TRY(add(t, k, m->title, mn_work_metric(w->arena, m)));
        continue;
      }
      for (int p = 0; p < m->positions.count; p++) {
        char *name = mn_arena_format(w->arena, "%s@%" PRId64, m->title, m->positions.items[p]);
        MN_TRY(add(t, k, name, name));
      }
      MN_TRY(add(t, k, "bytes of state", mn_arena_format(w->arena, "%s.state_bytes", m->title)));
      MN_TRY(add(t, k, "longest stream", mn_arena_format(w->arena, "%s.limit", m->title)));
    }
    MN_TRY(add(t, k, mn_arena_format(w->arena, "%s: seconds of training", track->name), "compare.seconds"));
  }
  return MN_OK;
}

/* Over a recipe's seeds, of the runs that there are; NaN: none. */
static double cell(const table *t, int recipe, const column *c) {
  if (c->metric) return mn_work_mean(t->w, c->track, recipe, c->metric);
  for (int i = 0; i < t->w->n_runs; i++)
    if (t->w->runs[i].track == c->track && t->w->runs[i].recipe == recipe && t->w->runs[i].of.recipe)
      return (double)t->w->runs[i].of.parameters;
  return (double)NAN;
}

static const char *number(double x, char out[32]) {
  if (!isfinite(x)) snprintf(out, 32, "-");
  else if (fabs(x) >= 1000 || x == floor(x)) snprintf(out, 32, "%.0f", x);
  else snprintf(out, 32, fabs(x) < 10 ? "%.3f" : "%.1f", x);
  return out;
}

/* ---- files ---- */

/* A name as a cell of Markdown: what would end the cell or be markup stands for itself, and what would steer a terminal is shown. `_` is
 * markup only where a word begins. */
static void add_cell(mn_text *out, const char *name) {
  mn_text shown = {0};
  mn_text_add_shown(&shown, name, strlen(name), false);
  bool in_word = false;
  for (const char *p = shown.data ? shown.data : ""; *p; p++) {
    if (strchr("\\|`*<[~&", *p) || (*p == '_' && !in_word)) mn_text_add(out, "\\");
    mn_text_add_bytes(out, p, 1);
    in_word = *p & 0x80 || isalnum((unsigned char)*p) || (in_word && *p == '_');
  }
  out->failed |= shown.failed;
  mn_text_free(&shown);
}

/* The table, and below it what is missing in it. */
static mn_status markdown(const table *t, mn_text *out) {
  char text[32];
  mn_text_add(out, "| recipe |");
  for (int k = 0; k < t->n; k++) mn_text_addf(out, " %s |", t->columns[k].title);
  mn_text_add(out, "\n|---|");
  for (int k = 0; k < t->n; k++) mn_text_add(out, "---:|");
  mn_text_add(out, "\n");
  for (int r = 0; r < t->w->n_recipes; r++) {
    mn_text_add(out, "| ");
    add_cell(out, t->w->names[r]);
    mn_text_add(out, " |");
    for (int k = 0; k < t->n; k++) mn_text_addf(out, " %s |", number(cell(t, r, &t->columns[k]), text));
    mn_text_add(out, "\n");
  }
  for (int i = 0; i < t->w->faults; i++) {
    mn_text_add(out, i ? "- failed: " : "\n- failed: ");
    add_cell(out, t->w->said[i]);
    mn_text_add(out, "\n");
  }
  return mn_text_status(out);
}

static json_t *as_json(const table *t) {
  json_t *tracks = json_array(), *rows = json_array();
  for (int k = 0; k < t->w->n_tracks; k++)
    json_array_append_new(tracks, json_pack("{s:o,s:I,s:I}", "name", mn_cli_text(t->w->tracks[k].name), "parameters",
                                            (json_int_t)t->w->tracks[k].parameters, "tokens", (json_int_t)t->w->tracks[k].tokens));
  for (int r = 0; r < t->w->n_recipes; r++) {
    json_t *row = json_pack("{s:o}", "recipe", mn_cli_text(t->w->names[r])), *of = NULL;
    for (int k = 0, track = -1; k < t->n; k++) {
      const column *c = &t->columns[k];
      if (c->track != track) json_object_set_new(row, t->w->tracks[track = c->track].name, of = json_object());
      json_object_set_new(of, c->metric ? c->title : "parameters", mn_cli_number(cell(t, r, c)));
    }
    json_array_append_new(rows, row);
  }
  json_t *failed = json_array();
  for (int i = 0; i < t->w->faults; i++) json_array_append_new(failed, mn_cli_text(t->w->said[i]));
  return json_pack("{s:o,s:o,s:o}", "tracks", tracks, "table", rows, "failed", failed);
}

static mn_status write_file(const mn_work *w, const char *name, const char *data, size_t n) {
  char *path = mn_arena_format(w->arena, "%s/%s", w->cli->out_dir, name);
  if (!path) return MN_ERR_MEMORY;
  MN_TRY(mn_file_write(path, data, n));
  mn_cli_note(w->cli, "wrote %s", path);
  return MN_OK;
}

/* ---- pictures ---- */

/* recall-loss-by-time.svg: what each track has. */
static const char *const of_track[] = {"loss-by-tokens", "loss-by-time", "by-state", "time-per-token"};
enum { LOSS_BY_TOKENS, LOSS_BY_TIME, BY_STATE, TIME_PER_TOKEN, PICTURES };

/* The second measure of speed in a track has its own picture: time-per-token-2. */
static char *picture_name(const mn_work *w, int track, int which, int number) {
  char more[16] = "";
  if (number > 1) snprintf(more, sizeof more, "-%d", number);
  return mn_arena_format(w->arena, "%s-%s%s.svg", w->tracks[track].name, of_track[which], more);
}

static mn_status draw(const mn_work *w, const mn_plot *plot, const char *name) {
  char *path = mn_arena_format(w->arena, "%s/%s", w->cli->out_dir, name);
  if (!path) return MN_ERR_MEMORY;
  if (!plot->n_series) return MN_OK;
  MN_TRY(mn_plot_write(plot, path));
  mn_cli_note(w->cli, "wrote %s", path);
  return MN_OK;
}

/* The held-out loss of a track against what the trainings had seen, and against their time. */
static mn_status draw_losses(const mn_work *w, mn_runs *db, int track, bool by_time) {
  mn_plot_series *series = mn_arena_alloc(w->arena, (size_t)w->n_runs * sizeof *series);
  mn_plot plot = {.x_label = by_time ? "seconds" : "tokens seen", .y_label = "held-out loss, nats", .series = series, .height = 640};
  plot.title = mn_arena_format(w->arena, "%s: held-out loss against %s", w->tracks[track].name, by_time ? "time" : "tokens");
  char *name = picture_name(w, track, by_time ? LOSS_BY_TIME : LOSS_BY_TOKENS, 1);
  if (!series || !plot.title || !name) return MN_ERR_MEMORY;
  for (int i = 0; i < w->n_runs; i++) {
    const mn_work_run *r = &w->runs[i];
    mn_metric_series s;
    if (r->track != track || !r->id) continue;
    MN_TRY(mn_run_series(db, w->arena, r->id, "validation_loss", &s));
    if (s.n < 2) continue;
    series[plot.n_series++] = (mn_plot_series){.label = r->name, .x = by_time ? s.time : s.tokens, .y = s.value, .n = s.n};
  }
  return draw(w, &plot, name);
}

/* Time per token by position, a line for each recipe. */
static mn_status draw_speed(const mn_work *w, int track, const mn_measure *m, int number) {
  const int n = m->positions.count;
  mn_plot_series *series = mn_arena_alloc(w->arena, (size_t)w->n_recipes * sizeof *series);
  double *x = mn_arena_alloc(w->arena, (size_t)n * sizeof *x);
  char *name = picture_name(w, track, TIME_PER_TOKEN, number);
  if (!series || !x || !name) return MN_ERR_MEMORY;
  mn_plot plot = {.title = "time per token against position",
                  .x_label = "tokens of the stream",
                  .y_label = "microseconds",
                  .x_log = true,
                  .y_log = true,
                  .series = series,
                  .height = 640};
  for (int p = 0; p < n; p++) x[p] = (double)m->positions.items[p];
  for (int r = 0; r < w->n_recipes && n > 1; r++) {
    double *y = mn_arena_alloc(w->arena, (size_t)n * sizeof *y);
    if (!y) return MN_ERR_MEMORY;
    bool any = false;
    for (int p = 0; p < n; p++) {
      char at[128];
      snprintf(at, sizeof at, "%s@%" PRId64, m->title, m->positions.items[p]);
      y[p] = mn_work_mean(w, track, r, at);
      any = any || isfinite(y[p]);
    }
    if (any) series[plot.n_series++] = (mn_plot_series){.label = w->names[r], .x = x, .y = y, .n = (size_t)n};
  }
  return draw(w, &plot, name);
}

typedef struct point {
  double bytes, recall;
} point;

static int by_bytes(const void *a, const void *b) {
  const point *x = a, *y = b;
  return (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

/* Every task of a track against the bytes of state that some track measured, rising. */
static mn_status draw_recall(const mn_work *w, int track, const char *state_bytes, int state_track) {
  const mn_track *t = &w->tracks[track];
  mn_plot_series *series = mn_arena_alloc(w->arena, (size_t)(t->n_measures + 1) * sizeof *series);
  char *name = picture_name(w, track, BY_STATE, 1);
  if (!series || !name) return MN_ERR_MEMORY;
  mn_plot plot = {.title = "recall against bytes of state",
                  .x_label = "bytes of state",
                  .y_label = "part right",
                  .x_log = true,
                  .y_min = 0,
                  .y_max = 1,
                  .series = series};
  for (int k = 0; k < t->n_measures; k++) {
    point *p = mn_arena_alloc(w->arena, (size_t)w->n_recipes * sizeof *p);
    double *x = mn_arena_alloc(w->arena, 2 * (size_t)w->n_recipes * sizeof *x), *y = x ? x + w->n_recipes : NULL;
    size_t n = 0;
    if (!p || !x) return MN_ERR_MEMORY;
    if (t->measures[k].kind != MN_MEASURE_TASK) continue;
    for (int r = 0; r < w->n_recipes; r++) {
      p[n] = (point){mn_work_mean(w, state_track, r, state_bytes), mn_work_mean(w, track, r, t->measures[k].title)};
      n += isfinite(p[n].bytes) && isfinite(p[n].recall);
    }
    qsort(p, n, sizeof *p, by_bytes);
    for (size_t i = 0; i < n; i++) x[i] = p[i].bytes, y[i] = p[i].recall;
    if (n > 1) series[plot.n_series++] = (mn_plot_series){.label = t->measures[k].title, .x = x, .y = y, .n = n};
  }
  return draw(w, &plot, name);
}

/* The track's own measure of speed says what its models keep; without one, the first that any track has. */
static const char *state_measure(const mn_work *w, int track, int *of) {
  for (int i = -1; i < w->n_tracks; i++) {
    const mn_track *t = &w->tracks[i < 0 ? track : i];
    for (int k = 0; k < t->n_measures; k++) {
      if (t->measures[k].kind != MN_MEASURE_SPEED) continue;
      *of = i < 0 ? track : i;
      return mn_arena_format(w->arena, "%s.state_bytes", t->measures[k].title);
    }
  }
  return NULL;
}

/* A file of the report: it can be written, and no track's folder has its name, not even where the file system takes A for a. */
static mn_status try_file(const mn_work *w, const char *name) {
  if (!name) return MN_ERR_MEMORY;
  for (int k = 0; k < w->n_tracks; k++)
    if (!strcasecmp(w->tracks[k].name, name))
      return mn_fail(MN_ERR_CONFIG, "track %s is called as a file of compare is; give it another `name`", w->tracks[k].name);
  char *path = mn_arena_format(w->arena, "%s/%s", w->cli->out_dir, name);
  if (!path) return MN_ERR_MEMORY;
  for (int k = -1; k < w->n_recipes; k++) {
    const char *read = k < 0 ? mn_cli_get(w->cli, "tracks") : w->paths[k];
    if (mn_file_same(path, read)) return mn_fail(MN_ERR_CONFIG, "%s: a file of compare would take its place; choose another --out", read);
  }
  return mn_output_try(path, 0);
}

mn_status mn_work_try_report(const mn_work *w) {
  MN_TRY(try_file(w, "table.md"));
  MN_TRY(try_file(w, "table.json"));
  for (int k = 0; k < w->n_tracks; k++) {
    for (int which = 0; which < TIME_PER_TOKEN; which++) MN_TRY(try_file(w, picture_name(w, k, which, 1)));
    for (int i = 0, speeds = 0; i < w->tracks[k].n_measures; i++)
      if (w->tracks[k].measures[i].kind == MN_MEASURE_SPEED) MN_TRY(try_file(w, picture_name(w, k, TIME_PER_TOKEN, ++speeds)));
  }
  return MN_OK;
}

mn_status mn_work_report(mn_work *w, mn_runs *db) {
  table t;
  mn_text text = {0};
  MN_TRY(list_columns(w, &t));
  mn_status status = markdown(&t, &text);
  if (status == MN_OK) status = write_file(w, "table.md", text.data, text.len);
  if (status == MN_OK && !w->cli->json) mn_print_bytes(text.data, text.len);
  mn_text_free(&text);
  MN_TRY(status);
  json_t *json = as_json(&t);
  char *dump = json ? json_dumps(json, JSON_INDENT(2)) : NULL;
  status = dump ? write_file(w, "table.json", dump, strlen(dump)) : MN_ERR_MEMORY;
  free(dump);
  if (status == MN_OK && w->cli->json) status = mn_cli_json(w->cli, json);
  else json_decref(json);
  for (int k = 0; k < w->n_tracks && status == MN_OK; k++) {
    int of = 0;
    const char *state = state_measure(w, k, &of);
    status = draw_losses(w, db, k, false);
    if (status == MN_OK) status = draw_losses(w, db, k, true);
    if (status == MN_OK && state) status = draw_recall(w, k, state, of);
    for (int i = 0, speeds = 0; i < w->tracks[k].n_measures && status == MN_OK; i++)
      if (w->tracks[k].measures[i].kind == MN_MEASURE_SPEED) status = draw_speed(w, k, &w->tracks[k].measures[i], ++speeds);
  }
  return status;
}
