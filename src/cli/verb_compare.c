/* verb_compare.c - `mneme compare`: several recipes trained one after the other, one table and one picture. Each training is a
 * process of its own, so that its peak memory is its own. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/dir.h"
#include "base/file.h"
#include "base/output.h"
#include "cli/compare.h"
#include "cli/compare_child.h"
#include "cli/compare_work.h"
#include "cli/train_view.h"
#include "format/plot.h"
#include "train/checkpoint.h"
#include "train/out_dir.h"
#include "train/runs.h"

/* ---- one training, in a child ---- */

static mn_status read_recipe(mn_comparison *c, int which, int64_t seed, mn_recipe **out) {
  const char **set;
  int n;
  char text[40];
  snprintf(text, sizeof text, "seed=%lld", (long long)seed);
  MN_TRY(mn_train_settings(c->cli, &set, &n));
  const char **all = mn_arena_alloc(c->arena, (size_t)(n + 1) * sizeof *all);
  if (all) memcpy(all, set, (size_t)n * sizeof *all);
  free(set);
  if (!all) return MN_ERR_MEMORY;
  if (seed >= 0) all[n++] = text;
  return mn_recipe_read(c->cli->args[which], all, n, out);
}

typedef struct training { /* what a child is given */
  mn_comparison *c;
  mn_compared *r;
} training;

static mn_status train_in_child(void *ctx, void *out) {
  const training *t = ctx;
  mn_recipe *recipe = NULL;
  mn_train_view view = {.cli = t->c->cli, .label = t->r->name};
  mn_train_options o = {.out_dir = t->r->out_dir,
                        .resume = mn_cli_given(t->c->cli, "resume"),
                        .threads = t->c->cli->threads,
                        .db_path = mn_cli_get(t->c->cli, "db"),
                        .watch = {mn_cli_stop_flag(), mn_train_view_data, &view},
                        .event = mn_train_view_event};
  mn_status status = read_recipe(t->c, t->r->recipe, t->r->seed, &recipe);
  if (status == MN_OK) status = mn_train(recipe, &o, out);
  mn_train_view_end(&view);
  return status;
}

/* One that fails is said, and the others are trained; only an interruption and a lack of memory end all. */
static mn_status train_one(mn_comparison *c, mn_compared *r) {
  const mn_status status = mn_compare_child(r->name, train_in_child, &(training){c, r}, &r->result, sizeof r->result);
  if (status == MN_OK || status == MN_ERR_CANCELLED || status == MN_ERR_MEMORY || mn_cli_interrupted()) return status;
  if (!c->faults++) c->first_fault = status;
  r->fault = mn_arena_strdup(c->arena, mn_message());
  if (!r->fault) return MN_ERR_MEMORY;
  mn_log_write(MN_LOG_WARN, "%s%s", r->fault, r + 1 < c->runs + c->n_runs ? "; the others go on" : "");
  return MN_OK;
}

/* The exit code is that of the first that failed. */
static mn_status say_faults(const mn_comparison *c) {
  const mn_compared *r = c->runs;
  if (!c->faults) return MN_OK;
  while (!r->fault) r++;
  return mn_fail(c->first_fault, "%d of %d trainings failed%s; the first: %s", c->faults, c->n_runs,
                 c->faults < c->n_runs ? ", the others stand" : "", r->fault);
}

/* ---- what compares ---- */

/* What a trained model is judged by at the end. */
static const mn_objectives *objectives_of(const mn_recipe *r) { return &(r->n_stages ? r->stages[r->n_stages - 1].recipe : r)->objectives; }

static int64_t seen(const mn_recipe *r) { /* in training: tokens, or examples of other data */
  return r->train.steps * r->train.batch * r->train.accumulate * (mn_source_is_tokens(&r->source) ? r->train.seq_len : 1);
}

/* Losses compare only where the same thing is asked, and losses per token only where the same text is cut into the same tokens. */
static mn_status note_differences(mn_comparison *c) {
  c->same_objectives = c->same_tokens = true;
  for (int i = 1; i < c->n_recipes; i++) {
    const mn_recipe *a = c->recipes[0], *b = c->recipes[i];
    const mn_tokenizer_config *x = &a->tokenizer, *y = &b->tokenizer;
    const mn_value *asked = mn_objectives_to_value(c->arena, objectives_of(a)), *too = mn_objectives_to_value(c->arena, objectives_of(b));
    if (!asked || !too) return MN_ERR_MEMORY;
    if (!mn_value_equal(asked, too)) {
      c->same_objectives = false;
      mn_cli_note(c->cli, "%s and %s are trained for different objectives: compare what they have in common, not losses", a->name, b->name);
    }
    if (!a->data.task && (x->type != y->type || (x->type == MN_TOKENIZER_BPE && x->vocab_size != y->vocab_size))) {
      c->same_tokens = false;
      mn_cli_note(c->cli, "%s and %s have different tokenizers: compare bits per byte, not losses", a->name, b->name);
    }
    const bool tokens = mn_source_is_tokens(&a->source);
    if (tokens == mn_source_is_tokens(&b->source) && seen(a) != seen(b))
      mn_cli_note(c->cli, "%s sees %lld %s, %s %lld: --set train.steps makes them equal", a->name, (long long)seen(a),
                  tokens ? "tokens" : "examples", b->name, (long long)seen(b));
  }
  return MN_OK;
}

/* ---- the curves ---- */

/* Every curve that the recipes' trainings may leave in the run log has a picture of its name. */
static const char *const picture_ends[] = {"svg", "png"};
enum { PICTURE_ENDS = sizeof picture_ends / sizeof *picture_ends };

static mn_status add_curve(mn_comparison *c, const char *name) {
  for (int i = 0; i < c->n_curves; i++)
    if (!strcmp(c->curves[i], name)) return MN_OK;
  if (c->n_curves == MN_COMPARE_CURVES)
    return mn_fail(MN_ERR_CONFIG, "these recipes have more than %d curves; compare fewer at once", MN_COMPARE_CURVES);
  c->curves[c->n_curves] = mn_arena_strdup(c->arena, name);
  return c->curves[c->n_curves++] ? MN_OK : MN_ERR_MEMORY;
}

static mn_status add_metrics(mn_comparison *c, const mn_objectives *o) {
  char title[72], name[96];
  for (int k = 0; k < o->n; k++) {
    const mn_metric_def *defs = o->list[k].def->metrics;
    for (int i = o->n > 1 ? -1 : 0; i < 0 || (defs && defs[i].name); i++) { /* of several objectives also each one's loss */
      if (i >= 0 && defs[i].of_loss) continue;
      mn_metric_title(o, k, i < 0 ? NULL : &defs[i], title);
      snprintf(name, sizeof name, "validation_%s", title);
      MN_TRY(add_curve(c, name));
    }
  }
  return MN_OK;
}

static mn_status list_curves(mn_comparison *c) {
  static const char *const always[] = {"loss", "validation_loss"}, *const of_task[] = {"validation_accuracy",
                                                                                       "validation_sequence_accuracy"};
  for (int k = 0; k < 2; k++) MN_TRY(add_curve(c, always[k]));
  for (int r = 0; r < c->n_recipes; r++) {
    const mn_recipe *recipe = c->recipes[r];
    if (recipe->data.task)
      for (int k = 0; k < 2; k++) MN_TRY(add_curve(c, of_task[k]));
    else if (mn_source_is_tokens(&recipe->source)) MN_TRY(add_curve(c, "validation_bits_per_byte"));
    MN_TRY(add_metrics(c, &recipe->objectives));
    for (int k = 0; k < recipe->n_stages; k++) MN_TRY(add_metrics(c, &recipe->stages[k].recipe->objectives));
  }
  return MN_OK;
}

static mn_status picture_path(mn_comparison *c, int curve, int end, char **path) {
  *path = mn_arena_format(c->arena, "%s/%s.%s", c->cli->out_dir, c->curves[curve], picture_ends[end]);
  return *path ? MN_OK : MN_ERR_MEMORY;
}

static mn_status draw(mn_comparison *c, mn_runs *db, int which) {
  const char *metric = c->curves[which], *held_out = strncmp(metric, "validation_", 11) ? NULL : metric + 11;
  char *title =
      held_out ? mn_arena_format(c->arena, "%s on held-out data", held_out) : mn_arena_format(c->arena, "%s while training", metric);
  if (!title) return MN_ERR_MEMORY;
  mn_plot_series *series = mn_arena_alloc(c->arena, (size_t)c->n_runs * sizeof *series);
  if (!series) return MN_ERR_MEMORY;
  int n = 0;
  for (int i = 0; i < c->n_runs; i++) {
    mn_metric_series s;
    if (!c->runs[i].result.run) continue;
    MN_TRY(mn_run_series(db, c->arena, c->runs[i].result.run, metric, &s));
    if (s.n < 2) continue;
    const char *label = mn_cli_shown(c->arena, c->runs[i].name);
    if (!label) return MN_ERR_MEMORY;
    series[n++] = (mn_plot_series){.label = label, .x = s.step, .y = s.value, .n = s.n, .smooth = s.n > 200 ? s.n / 50 : 0};
  }
  if (!n) return MN_OK;
  mn_plot p = {.title = title, .x_label = "step", .y_label = metric, .series = series, .n_series = n};
  for (int k = 0; k < PICTURE_ENDS; k++) {
    char *path;
    MN_TRY(picture_path(c, which, k, &path));
    MN_TRY(mn_plot_write(&p, path));
    mn_cli_note(c->cli, "wrote %s", path);
  }
  if (held_out || c->cli->json) return MN_OK;
  int width = mn_cli_columns(stdout);
  char *text = mn_plot_text(&p, width > 120 ? 120 : width, 20, mn_cli_color(stdout));
  if (!text) return MN_ERR_MEMORY;
  mn_print("\n");
  mn_print_bytes(text, strlen(text));
  free(text);
  return MN_OK;
}

static mn_status draw_all(mn_comparison *c) {
  mn_runs *db;
  if (mn_runs_open(mn_cli_get(c->cli, "db"), false, &db) != MN_OK) {
    mn_cli_note(c->cli, "no curves: %s", mn_message());
    return MN_OK;
  }
  mn_status status = MN_OK;
  for (int k = 0; status == MN_OK && k < c->n_curves; k++) status = draw(c, db, k);
  mn_runs_close(db);
  return status;
}

/* ---- the verb ---- */

static mn_status read_seeds(mn_comparison *c) {
  MN_TRY(mn_cli_ints(c->cli, "seeds", 0, INT64_MAX, c->seeds, MN_COMPARE_SEEDS, &c->n_seeds));
  for (int i = 0; i < c->n_seeds; i++)
    for (int k = 0; k < i; k++)
      if (c->seeds[i] == c->seeds[k]) return mn_fail(MN_ERR_CONFIG, "--seeds names %lld twice; keep one", (long long)c->seeds[i]);
  if (!c->n_seeds) c->seeds[c->n_seeds++] = -1; /* the recipe's */
  return MN_OK;
}

/* Every training has a directory of its own, and so has no picture: not even where the file system takes Loss for loss. */
static mn_status check_names(const mn_comparison *c) {
  for (int r = 0; r < c->n_recipes; r++) {
    const char *name = c->recipes[r]->name;
    for (int k = 0; k < r; k++)
      if (!strcasecmp(c->recipes[k]->name, name))
        return mn_fail(MN_ERR_CONFIG, "%s and %s have the same name '%s'; give one another `name`", c->cli->args[k], c->cli->args[r], name);
    if (mn_out_dir_uses(name))
      return mn_fail(MN_ERR_CONFIG, "%s is called %s, as a file of a training is; give it another `name`", c->cli->args[r], name);
    for (int k = 0; k < c->n_curves * PICTURE_ENDS; k++) {
      char picture[112];
      snprintf(picture, sizeof picture, "%s.%s", c->curves[k / PICTURE_ENDS], picture_ends[k % PICTURE_ENDS]);
      if (!strcasecmp(picture, name))
        return mn_fail(MN_ERR_CONFIG, "%s is called %s, as a picture of compare is; give it another `name`", c->cli->args[r], name);
    }
  }
  return MN_OK;
}

mn_status mn_compare_open_dir(const mn_cli *cli, mn_out_dir **dir) {
  MN_TRY(mn_out_dir_open(cli->out_dir, mn_cli_given(cli, "resume"), dir));
  return mn_out_dir_bare(cli->out_dir);
}

mn_status mn_compare_try_dir(const mn_cli *cli, const char *dir, const char *const *recipes, int n) {
  const bool resume = mn_cli_given(cli, "resume");
  int64_t *steps;
  size_t n_steps;
  MN_TRY(mn_dir_need_real(dir));
  MN_TRY(mn_output_try_dir(dir));
  for (int i = 0; i < n && !resume; i++) MN_TRY(mn_out_dir_spares(dir, recipes[i]));
  MN_TRY(mn_checkpoint_list(dir, &steps, &n_steps));
  free(steps);
  return !n_steps || resume
             ? MN_OK
             : mn_fail(MN_ERR_CONFIG, "%s already holds a run: --resume goes on with it; choose another --out for a new one", dir);
}

/* DIR is the user's; the directories in it are ours, and a link in the place of one is not followed. */
static mn_status try_outputs(mn_comparison *c) {
  for (int i = 0; i < c->n_runs; i++) MN_TRY(mn_compare_try_dir(c->cli, c->runs[i].out_dir, c->cli->args, c->n_recipes));
  for (int k = 0; k < c->n_curves * PICTURE_ENDS; k++) {
    char *path;
    MN_TRY(picture_path(c, k / PICTURE_ENDS, k % PICTURE_ENDS, &path));
    MN_TRY(mn_output_try(path, 0));
  }
  const char *db = mn_cli_get(c->cli, "db");
  return db ? mn_context(mn_runs_try(db), "--db") : MN_OK;
}

static mn_status plan_runs(mn_comparison *c) {
  c->runs = mn_arena_alloc(c->arena, (size_t)(c->n_recipes * c->n_seeds) * sizeof *c->runs);
  if (!c->runs) return MN_ERR_MEMORY;
  for (int r = 0; r < c->n_recipes; r++)
    MN_TRY(read_recipe(c, r, c->seeds[0], &c->recipes[r])); /* all mistakes before the first training */
  MN_TRY(list_curves(c));
  MN_TRY(check_names(c));
  for (int r = 0; r < c->n_recipes; r++) {
    for (int s = 0; s < c->n_seeds; s++) {
      mn_compared *x = &c->runs[c->n_runs++];
      const char *name = c->recipes[r]->name;
      *x = (mn_compared){.recipe = r, .seed = c->seeds[s] >= 0 ? c->seeds[s] : c->recipes[r]->seed};
      x->name = c->n_seeds > 1 ? mn_arena_format(c->arena, "%s-seed%lld", name, (long long)x->seed) : name;
      x->out_dir = x->name ? mn_arena_format(c->arena, "%s/%s", c->cli->out_dir, x->name) : NULL;
      if (!x->out_dir) return MN_ERR_MEMORY;
    }
  }
  return MN_OK;
}

static mn_status compare(mn_comparison *c) {
  MN_TRY(mn_cli_only(c->cli, !mn_cli_given(c->cli, "seeds"), "one seed, and --seeds names several", "seed"));
  MN_TRY(read_seeds(c));
  if (mn_cli_given(c->cli, "tracks")) return mn_compare_work(c->cli, c->arena, c->seeds, c->n_seeds);
  MN_TRY(plan_runs(c));
  MN_TRY(mn_compare_open_dir(c->cli, &c->dir));
  MN_TRY(try_outputs(c));
  MN_TRY(note_differences(c));
  for (int i = 0; i < c->n_runs; i++) MN_TRY(train_one(c, &c->runs[i]));
  if (c->faults == c->n_runs) return say_faults(c);
  if (!c->cli->json) MN_TRY(mn_compare_print(c));
  MN_TRY(draw_all(c));
  json_t *table = NULL;
  if (c->cli->json) MN_TRY(mn_compare_json(c, &table));
  if (table) MN_TRY(mn_cli_json(c->cli, table));
  return say_faults(c);
}

static mn_status run(mn_cli *cli) {
  if (!cli->out_dir) return mn_fail(MN_ERR_CONFIG, "compare needs --out DIR: where the trained models and the curves go");
  if (cli->n_args > MN_COMPARE_RECIPES) return mn_fail(MN_ERR_CONFIG, "compare takes at most %d recipes", MN_COMPARE_RECIPES);
  mn_comparison c = {.cli = cli, .arena = mn_arena_new(), .n_recipes = cli->n_args};
  mn_status status = c.arena ? compare(&c) : MN_ERR_MEMORY;
  for (int i = 0; i < c.n_recipes; i++) mn_recipe_free(c.recipes[i]);
  mn_arena_free(c.arena);
  mn_out_dir_close(c.dir);
  return status;
}

static const mn_option options[] = {
    {"tracks", "FILE", NULL, "train every recipe's model on the same works, described in FILE, and measure each", 0},
    {"seeds", "LIST", NULL, "train each recipe once per seed: 1,2,3 (each recipe's own seed unless given)", 0},
    {"resume", NULL, NULL, "go on with what an earlier compare left in DIR", 0},
    {"db", "FILE", NULL, "the run database ($MNEME_HOME/runs.db or ./runs/mneme.db unless given; with --tracks DIR/compare.db)", 0},
    {0}};
static const char *const examples[] = {
    "mneme compare recipes/mqar-swa.yaml recipes/mqar-lmm.yaml recipes/mqar-mag.yaml --seeds 1,2 --out runs/recall",
    "mneme compare a.yaml b.yaml --set train.steps=500 --out runs/ab", NULL};
const mn_verb mn_verb_compare = {
    .name = "compare",
    .purpose = MN_VERB_TRAIN,
    .summary = "train several recipes and compare them",
    .usage = "RECIPE.yaml... --out DIR [options]",
    .about =
        "Trains the recipes one after the other, each in a process of its own, then prints one table - parameters, losses, every metric of "
        "their objectives, tokens (images, frames, rows) per second, peak memory - with the best of each metric marked, and draws the "
        "curves: of the loss in the terminal, of the loss and every held-out metric as DIR/loss.svg, .png, "
        "DIR/validation_loss.svg, .png, DIR/validation_accuracy.svg, .png ... DIR/NAME holds each trained model.\n"
        "With --tracks every recipe, or every recipe of a directory, gives its model to the works that FILE describes, at equal numbers of "
        "parameters and equal tokens; what FILE asks for is measured, kept in DIR/compare.db, and written as DIR/table.md, table.json and "
        "pictures. One that fails loses nothing else, and --resume does what is missing. docs/recipes.md describes FILE.",
    .options = options,
    .examples = examples,
    .common = MN_CLI_THREADS | MN_CLI_SEED | MN_CLI_SET | MN_CLI_OUT,
    .min_args = 1,
    .max_args = -1,
    .run = run};
