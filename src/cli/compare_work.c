/* compare_work.c - see compare_work.h. */
#define _GNU_SOURCE
#include "cli/compare_work.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/dir.h"
#include "base/file.h"
#include "base/nearest.h"
#include "base/output.h"
#include "cli/compare.h"
#include "cli/compare_child.h"
#include "cli/compare_measure.h"
#include "cli/train_view.h"
#include "eval/evaluate.h"

#define DB_NAME "compare.db"

/* ---- recipes, also by directories ---- */

static bool is_recipe(const char *name) {
  const char *dot = strrchr(name, '.');
  return *name != '.' && dot && (!strcmp(dot, ".yaml") || !strcmp(dot, ".yml") || !strcmp(dot, ".json"));
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static mn_status add_path(mn_work *w, const char *path) {
  const char **more = mn_arena_alloc(w->arena, (size_t)(w->n_recipes + 1) * sizeof *more);
  if (!more) return MN_ERR_MEMORY;
  if (w->n_recipes) memcpy(more, w->paths, (size_t)w->n_recipes * sizeof *more);
  w->paths = more;
  return (w->paths[w->n_recipes++] = path) ? MN_OK : MN_ERR_MEMORY;
}

static mn_status add_paths(mn_work *w, const char *path) {
  mn_file_info info;
  MN_TRY(mn_file_stat(path, &info));
  if (!info.is_dir) return add_path(w, path);
  char **names;
  size_t n;
  const int before = w->n_recipes;
  MN_TRY(mn_dir_list(path, &names, &n));
  qsort(names, n, sizeof *names, by_name);
  mn_status status = MN_OK;
  for (size_t i = 0; i < n && status == MN_OK; i++)
    if (is_recipe(names[i])) status = add_path(w, mn_arena_format(w->arena, "%s/%s", path, names[i]));
  mn_dir_list_free(names, n);
  if (status == MN_OK && w->n_recipes == before)
    return mn_fail(MN_ERR_CONFIG, "%s: a directory without recipes; name files, or a directory of .yaml files", path);
  return status;
}

/* ---- what is to be done ---- */

/* A recipe that cannot be had is said now, and the others are trained. */
static mn_status fault(mn_work *w, mn_status status) {
  const char **all = mn_arena_alloc(w->arena, (size_t)(w->faults + 1) * sizeof *all), *why = mn_arena_strdup(w->arena, mn_message());
  if (!all || !why) return MN_ERR_MEMORY;
  if (w->faults) memcpy(all, w->said, (size_t)w->faults * sizeof *all);
  else w->first_status = status;
  all[w->faults++] = why;
  w->said = all;
  mn_log_write(MN_LOG_WARN, "%s; the others go on", why);
  return MN_OK;
}

static mn_status settings_of(const mn_work *w, int64_t seed, const char ***out, int *n) {
  const char **set;
  MN_TRY(mn_train_settings(w->cli, &set, n));
  *out = mn_arena_alloc(w->arena, (size_t)(*n + 1) * sizeof **out);
  if (*out && *n) memcpy(*out, set, (size_t)*n * sizeof *set);
  free(set);
  if (!*out) return MN_ERR_MEMORY;
  if (seed < 0) return MN_OK;
  (*out)[*n] = mn_arena_format(w->arena, "seed=%" PRId64, seed);
  return (*out)[(*n)++] ? MN_OK : MN_ERR_MEMORY;
}

/* A figure that the last validation of this recipe's training will not have is a mistake, and known before it. */
static mn_status check_figures(const mn_track *t, const mn_recipe *recipe) {
  enum { MOST = 3 + MN_EVALUATION_FIGURES };
  const mn_recipe *last = recipe->n_stages ? recipe->stages[recipe->n_stages - 1].recipe : recipe;
  const mn_objectives *o = &last->objectives;
  const char *names[MOST] = {"loss"};
  char titles[MOST][72];
  int n = 1;
  if (last->data.task) names[n++] = "accuracy", names[n++] = "sequence_accuracy";
  else if (mn_source_is_tokens(&last->source)) names[n++] = "bits_per_byte";
  for (int k = 0; k < o->n; k++)
    for (int i = o->n > 1 ? -1 : 0; n < MOST && (i < 0 || (o->list[k].def->metrics && o->list[k].def->metrics[i].name)); i++) {
      mn_metric_title(o, k, i < 0 ? NULL : &o->list[k].def->metrics[i], titles[n]);
      names[n] = titles[n];
      n++;
    }
  for (int k = 0; k < t->n_measures; k++) {
    const mn_measure *m = &t->measures[k];
    bool there = m->kind != MN_MEASURE_FIGURE;
    for (int i = 0; i < n; i++) there = there || !strcmp(names[i], m->figure);
    if (there) continue;
    const char *near = mn_nearest(m->figure, names, n);
    return mn_fail(MN_ERR_CONFIG, "track %s asks for the figure '%s', and %s has none of that name%s%s%s", t->name, m->figure, recipe->name,
                   near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
  }
  return MN_OK;
}

static mn_status plan_run(mn_work *w, int track, int recipe, int64_t seed) {
  mn_work_run *r = &w->runs[w->n_runs++];
  const char **set;
  int n;
  *r = (mn_work_run){.track = track, .recipe = recipe, .seed = seed, .name = w->names[recipe]};
  MN_TRY(settings_of(w, seed, &set, &n));
  mn_status status = mn_track_recipe_read(w->arena, &w->tracks[track], w->paths[recipe], set, n, &r->of);
  if (status == MN_OK) status = check_figures(&w->tracks[track], r->of.recipe);
  if (status == MN_ERR_MEMORY || status == MN_ERR_CANCELLED) return status;
  if (r->of.recipe && !r->name) w->names[recipe] = r->name = r->of.recipe->name;
  const char *name = r->name ? r->name : mn_path_base(w->paths[recipe]), *t = w->tracks[track].name;
  r->label = w->n_seeds > 1 ? mn_arena_format(w->arena, "%s/%s-seed%" PRId64, t, name, seed) : mn_arena_format(w->arena, "%s/%s", t, name);
  r->out_dir = r->label ? mn_arena_format(w->arena, "%s/%s", w->cli->out_dir, r->label) : NULL;
  if (!r->out_dir) return MN_ERR_MEMORY;
  if (status == MN_OK) return MN_OK;
  r->fault = mn_arena_strdup(w->arena, mn_message());
  return r->fault ? fault(w, status) : MN_ERR_MEMORY;
}

static mn_status plan(mn_work *w) {
  MN_TRY(mn_tracks_read(w->arena, mn_cli_get(w->cli, "tracks"), &w->tracks, &w->n_tracks));
  for (int i = 0; i < w->cli->n_args; i++) MN_TRY(add_paths(w, w->cli->args[i]));
  w->names = mn_arena_alloc(w->arena, (size_t)w->n_recipes * sizeof *w->names);
  w->runs = mn_arena_alloc(w->arena, (size_t)(w->n_tracks * w->n_recipes * w->n_seeds) * sizeof *w->runs);
  if (!w->names || !w->runs) return MN_ERR_MEMORY;
  for (int r = 0; r < w->n_recipes; r++) w->names[r] = NULL;
  for (int t = 0; t < w->n_tracks; t++)
    for (int r = 0; r < w->n_recipes; r++)
      for (int s = 0; s < w->n_seeds; s++) MN_TRY(plan_run(w, t, r, w->seeds[s]));
  int good = 0;
  for (int i = 0; i < w->n_runs; i++) good += !w->runs[i].fault;
  if (!good) return mn_fail(MN_ERR_CONFIG, "no recipe can be trained in any track; the first: %s", w->said[0]);
  for (int r = 0; r < w->n_recipes; r++) {
    if (!w->names[r] && !(w->names[r] = mn_arena_strdup(w->arena, mn_path_base(w->paths[r])))) return MN_ERR_MEMORY;
    for (int k = 0; k < r; k++)
      if (!strcasecmp(w->names[k], w->names[r]))
        return mn_fail(MN_ERR_CONFIG, "%s and %s have the same name '%s'; give one another `name`", w->paths[k], w->paths[r], w->names[r]);
  }
  return MN_OK;
}

/* --out is the user's; the directories in it are ours, and a link in the place of one is not followed. */
static mn_status try_outputs(const mn_work *w) {
  for (int t = 0; t < w->n_tracks; t++) {
    if (mn_out_dir_uses(w->tracks[t].name))
      return mn_fail(MN_ERR_CONFIG, "track %s is called as a file of a training is; give it another `name`", w->tracks[t].name);
    char *dir = mn_arena_format(w->arena, "%s/%s", w->cli->out_dir, w->tracks[t].name);
    if (!dir) return MN_ERR_MEMORY;
    MN_TRY(mn_dir_need_real(dir));
  }
  for (int i = 0; i < w->n_runs; i++)
    if (!w->runs[i].fault) MN_TRY(mn_compare_try_dir(w->cli, w->runs[i].out_dir, (const char *const *)w->paths, w->n_recipes));
  MN_TRY(mn_work_try_report(w));
  for (int t = 0; t < w->n_tracks && !mn_cli_given(w->cli, "db"); t++)
    if (!strcasecmp(w->tracks[t].name, DB_NAME))
      return mn_fail(MN_ERR_CONFIG, "track %s is called as the run database is; give it another `name`", w->tracks[t].name);
  return mn_context(mn_runs_try(w->db_path), "--db");
}

/* ---- what is known ---- */

double mn_work_value(const mn_work_run *r, const char *name) {
  for (size_t i = 0; i < r->n_values; i++)
    if (!strcmp(r->values[i].name, name)) return r->values[i].last;
  return (double)NAN;
}

double mn_work_mean(const mn_work *w, int track, int recipe, const char *name) {
  double sum = 0;
  int n = 0;
  for (int i = 0; i < w->n_runs; i++) {
    const mn_work_run *r = &w->runs[i];
    const double x = r->track == track && r->recipe == recipe && !r->fault ? mn_work_value(r, name) : (double)NAN;
    if (isfinite(x)) sum += x, n++;
  }
  return n ? sum / n : (double)NAN;
}

static mn_status look_up(mn_work *w, mn_runs *db, mn_work_run *r) {
  bool found;
  char id[24];
  r->n_values = 0;
  r->id = 0;
  MN_TRY(mn_runs_find_dir(db, r->out_dir, &r->id, &found));
  if (!found) return MN_OK;
  snprintf(id, sizeof id, "%" PRId64, r->id);
  MN_TRY(mn_runs_find(db, w->arena, id, &r->found));
  return mn_run_summary(db, w->arena, r->id, &r->values, &r->n_values);
}

static mn_status look_up_in(mn_work *w, mn_work_run *r) {
  mn_runs *db;
  r->n_values = 0;
  r->id = 0;
  if (!mn_file_exists(w->db_path)) return MN_OK;
  MN_TRY(mn_runs_open(w->db_path, false, &db));
  mn_status status = look_up(w, db, r);
  mn_runs_close(db);
  return status;
}

static mn_status keep(const mn_work *w, const mn_work_run *r, const mn_metric *metrics, size_t n) {
  mn_runs *db;
  MN_TRY(mn_runs_open(w->db_path, false, &db));
  mn_status status = mn_run_metrics(db, r->id, metrics, n);
  mn_runs_close(db);
  return status;
}

/* ---- one training ---- */

typedef struct training { /* what a child is given */
  const mn_work *w;
  const mn_work_run *r;
} training;

static mn_status train_in_child(void *ctx, void *out) {
  const training *t = ctx;
  mn_train_view view = {.cli = t->w->cli, .label = t->r->label};
  mn_train_options o = {.out_dir = t->r->out_dir,
                        .resume = mn_cli_given(t->w->cli, "resume"),
                        .threads = t->w->cli->threads,
                        .db_path = t->w->db_path,
                        .watch = {mn_cli_stop_flag(), mn_train_view_data, &view},
                        .event = mn_train_view_event};
  mn_status status = mn_train(t->r->of.recipe, &o, out);
  mn_train_view_end(&view);
  return status;
}

static const char RECIPE_MARK[] = "compare.recipe", SECONDS[] = "compare.seconds", PEAK[] = "compare.peak_mib";

static mn_status train_one(mn_work *w, mn_work_run *r) {
  const double mark = mn_value_mark(r->of.root);
  mn_train_result result;
  MN_TRY(look_up_in(w, r));
  if (r->id && !strcmp(r->found.status, "finished") && mn_work_value(r, RECIPE_MARK) == mark) return MN_OK;
  MN_TRY(mn_compare_child(r->label, train_in_child, &(training){w, r}, &result, sizeof result));
  if (!result.run)
    return mn_fail(MN_ERR_IO, "%s: trained, but the run database %s did not take it, and measurements are kept there; --resume tries again",
                   r->label, w->db_path);
  r->id = result.run;
  const double now = mn_time_1970();
  mn_metric m[3] = {{result.steps, result.tokens, PEAK, (double)result.peak_bytes / (1 << 20), now},
                    {result.steps, result.tokens, RECIPE_MARK, mark, now},
                    {result.steps, result.tokens, SECONDS, result.seconds, now}};
  MN_TRY(keep(w, r, m, result.already_done ? 2 : 3));
  return look_up_in(w, r);
}

/* ---- measurements ---- */

const char *mn_work_metric(mn_arena *arena, const mn_measure *m) {
  if (m->kind == MN_MEASURE_FIGURE) return mn_arena_format(arena, "validation_%s", m->figure);
  return m->title;
}

static mn_status measure_one(mn_work *w, mn_work_run *r, const mn_measure *m) {
  char *mark_name = mn_arena_format(w->arena, "%s.mark", m->title), *label = mn_arena_format(w->arena, "%s: %s", r->label, m->title);
  const double mark = mn_value_mark(m->at), now = mn_time_1970();
  mn_measured_list found = {0};
  mn_metric metrics[MN_MEASURED + 1];
  if (!mark_name || !label) return MN_ERR_MEMORY;
  if (m->kind == MN_MEASURE_FIGURE || mn_work_value(r, mark_name) == mark) return MN_OK;
  if (isfinite(mn_work_value(r, m->title)) && !isfinite(mn_work_value(r, mark_name)))
    return mn_fail(MN_ERR_CONFIG, "%s: the training itself has a metric of that name; give the measure another title", label);
  MN_TRY(mn_compare_child(label, mn_compare_measure, &(mn_measuring){w->cli, label, r->out_dir, m}, &found, sizeof found));
  for (int i = 0; i < found.n; i++) metrics[i] = (mn_metric){r->found.steps, r->found.tokens, found.item[i].name, found.item[i].value, now};
  metrics[found.n] = (mn_metric){r->found.steps, r->found.tokens, mark_name, mark, now};
  return keep(w, r, metrics, (size_t)found.n + 1);
}

/* What fails is said, and the rest goes on; only an interruption and a lack of memory end it. */
static mn_status all_of(mn_work *w, mn_work_run *r) {
  mn_status status = train_one(w, r);
  for (int k = 0; status == MN_OK && k < w->tracks[r->track].n_measures; k++) {
    status = measure_one(w, r, &w->tracks[r->track].measures[k]);
    if (status == MN_ERR_CANCELLED || status == MN_ERR_MEMORY || mn_cli_interrupted()) return status;
    if (status != MN_OK) MN_TRY(fault(w, status));
    status = MN_OK;
  }
  if (status == MN_ERR_CANCELLED || status == MN_ERR_MEMORY || mn_cli_interrupted()) return status;
  if (status != MN_OK) {
    r->fault = mn_arena_strdup(w->arena, mn_message());
    MN_TRY(r->fault ? fault(w, status) : MN_ERR_MEMORY);
  }
  return MN_OK;
}

static mn_status report(mn_work *w) {
  mn_runs *db;
  MN_TRY(mn_runs_open(w->db_path, false, &db));
  mn_status status = MN_OK;
  for (int i = 0; i < w->n_runs && status == MN_OK; i++) status = look_up(w, db, &w->runs[i]);
  if (status == MN_OK) status = mn_work_report(w, db);
  mn_runs_close(db);
  return status;
}

static mn_status work(mn_work *w, mn_out_dir **dir) {
  MN_TRY(plan(w));
  MN_TRY(mn_compare_open_dir(w->cli, dir));
  MN_TRY(try_outputs(w));
  mn_status status = MN_OK;
  for (int i = 0; i < w->n_runs && status == MN_OK && !mn_cli_interrupted(); i++)
    if (!w->runs[i].fault) status = all_of(w, &w->runs[i]);
  if (status == MN_OK && mn_cli_interrupted()) status = mn_fail(MN_ERR_CANCELLED, "interrupted; --resume goes on where it stopped");
  if (status != MN_OK) return status;
  MN_TRY(report(w));
  return w->faults ? mn_fail(w->first_status, "%d trainings or measurements failed, the others stand; the first: %s", w->faults, w->said[0])
                   : MN_OK;
}

mn_status mn_compare_work(mn_cli *cli, mn_arena *arena, const int64_t *seeds, int n_seeds) {
  mn_work w = {.cli = cli, .arena = arena, .n_seeds = n_seeds, .db_path = mn_cli_get(cli, "db")};
  mn_out_dir *dir = NULL;
  w.seeds = mn_arena_alloc(arena, (size_t)n_seeds * sizeof *w.seeds);
  if (!w.db_path) w.db_path = mn_arena_format(arena, "%s/" DB_NAME, cli->out_dir);
  if (!w.seeds || !w.db_path) return MN_ERR_MEMORY;
  memcpy(w.seeds, seeds, (size_t)n_seeds * sizeof *seeds);
  mn_status status = work(&w, &dir);
  for (int i = 0; i < w.n_runs; i++) mn_recipe_free(w.runs[i].of.recipe);
  mn_out_dir_close(dir);
  return status;
}
