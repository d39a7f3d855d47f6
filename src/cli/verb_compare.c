/* verb_compare.c - `mneme compare`: several recipes trained one after the other, one table and one picture. Each training is a
 * process of its own, so that its peak memory is its own. */
#define _GNU_SOURCE
#include <errno.h>
#include <math.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/wait.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif

#include "base/dir.h"
#include "base/file.h"
#include "base/output.h"
#include "cli/train_view.h"
#include "format/plot.h"
#include "train/checkpoint.h"
#include "train/runs.h"

enum { MAX_RECIPES = 32, MAX_SEEDS = 32 };

typedef struct one_run {
  int recipe; /* which of the arguments */
  int64_t seed;
  const char *name, *out_dir;
  mn_train_result result;
} one_run;

typedef struct comparison {
  mn_cli *cli;
  mn_arena *arena;
  int n_recipes, n_seeds, n_runs;
  int made; /* directories of --out that there were not before */
  int64_t seeds[MAX_SEEDS];
  mn_recipe *recipes[MAX_RECIPES]; /* as read with the first seed */
  one_run *runs;
} comparison;

/* ---- one training, in a child ---- */

typedef struct report { /* what the child sends through the pipe */
  mn_status status;
  char message[1024];
  mn_train_result result;
} report;

static mn_status read_recipe(comparison *c, int which, int64_t seed, mn_recipe **out) {
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

static void child(comparison *c, one_run *r, int pipe_end) {
  report out = {0};
  mn_recipe *recipe = NULL;
  mn_train_view view = {.cli = c->cli, .label = r->name};
  mn_train_options o = {.out_dir = r->out_dir,
                        .resume = mn_cli_given(c->cli, "resume"),
                        .threads = c->cli->threads,
                        .db_path = mn_cli_get(c->cli, "db"),
                        .watch = {mn_cli_stop_flag(), mn_train_view_data, &view},
                        .event = mn_train_view_event};
  out.status = read_recipe(c, r->recipe, r->seed, &recipe);
  if (out.status == MN_OK) out.status = mn_train(recipe, &o, &out.result);
  mn_train_view_end(&view);
  snprintf(out.message, sizeof out.message, "%s", out.status == MN_OK ? "" : mn_message());
  ssize_t written = write(pipe_end, &out, sizeof out); /* below PIPE_BUF: whole or not at all */
  _exit(written == (ssize_t)sizeof out ? 0 : 1);
}

static mn_status train_one(comparison *c, one_run *r) {
  int ends[2];
  if (pipe(ends) != 0) return mn_fail(MN_ERR_IO, "compare: no pipe: %s", strerror(errno));
  fflush(NULL);
  pid_t parent = getpid(), pid = fork();
  if (pid < 0) return mn_fail(MN_ERR_IO, "compare: no process for %s: %s", r->name, strerror(errno));
  if (pid == 0) {
    setpgid(0, 0); /* the terminal's interrupt comes once, through the parent */
#ifdef __linux__
    prctl(PR_SET_PDEATHSIG, SIGTERM);
#endif
    if (getppid() != parent) _exit(1);
    close(ends[0]);
    child(c, r, ends[1]);
  }
  close(ends[1]);
  report in = {0};
  ssize_t got;
  bool told = false;
  do { /* a signal may come at any moment, between two calls too: so no call waits for long */
    struct pollfd child_end = {.fd = ends[0], .events = POLLIN};
    if (mn_cli_interrupted() && !told) told = kill(pid, SIGTERM) == 0;
    got = poll(&child_end, 1, 200) > 0 ? read(ends[0], &in, sizeof in) : -1;
  } while (got < 0);
  close(ends[0]);
  int status;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) continue;
  if (got != (ssize_t)sizeof in)
    return WIFSIGNALED(status) ? mn_fail(MN_ERR_IO, "%s: its process was ended by signal %d%s", r->name, WTERMSIG(status),
                                         WTERMSIG(status) == SIGKILL ? " (out of memory?)" : "")
                               : mn_fail(MN_ERR_INTERNAL, "%s: its process ended without a result", r->name);
  if (in.status != MN_OK) return mn_fail(in.status, "%s: %s", r->name, in.message);
  r->result = in.result;
  return MN_OK;
}

/* ---- the table ---- */

typedef double (*measure)(const mn_train_result *r);
static double of_loss(const mn_train_result *r) { return r->already_done ? (double)NAN : r->loss; }
static double of_validation(const mn_train_result *r) { return r->validation.batches ? r->validation.loss : (double)NAN; }
static double of_bits(const mn_train_result *r) { return r->validation.batches ? r->validation.bits_per_byte : (double)NAN; }
static double of_accuracy(const mn_train_result *r) {
  return r->validation.score.examples ? mn_task_acc(&r->validation.score) : (double)NAN;
}
static double of_rate(const mn_train_result *r) { return r->tokens_per_second > 0 ? r->tokens_per_second : (double)NAN; }
static double of_memory(const mn_train_result *r) { return (double)r->peak_bytes / (1 << 20); }
static double of_parameters(const mn_train_result *r) { return (double)r->parameters; }

static const struct column {
  const char *title, *key;
  measure of;
  const char *format;
} columns[] = {{"parameters", "parameters", of_parameters, "%.0f"},
               {"loss", "loss", of_loss, "%.4f"},
               {"validation", "validation_loss", of_validation, "%.4f"},
               {"bits/byte", "bits_per_byte", of_bits, "%.4f"},
               {"accuracy", "accuracy", of_accuracy, "%.4f"},
               {"tokens/s", "tokens_per_second", of_rate, "%.0f"},
               {"peak MiB", "peak_mib", of_memory, "%.0f"}};
enum { N_COLUMNS = sizeof columns / sizeof *columns };

typedef struct summary {
  double mean, min, max;
  int n;
} summary;

static summary summarise(const comparison *c, int recipe, measure of) {
  summary s = {0, INFINITY, -INFINITY, 0};
  for (int i = 0; i < c->n_runs; i++) {
    double x = c->runs[i].recipe == recipe ? of(&c->runs[i].result) : (double)NAN;
    if (!isfinite(x)) continue;
    s.mean += x;
    s.min = x < s.min ? x : s.min;
    s.max = x > s.max ? x : s.max;
    s.n++;
  }
  s.mean = s.n ? s.mean / s.n : (double)NAN;
  return s;
}

/* "1.234", or over several seeds "1.234 (1.2-1.3)" where they differ */
static void cell(const summary *s, const char *format, bool spread, char out[64]) {
  if (!s->n) {
    strcpy(out, "-");
    return;
  }
  int k = snprintf(out, 64, format, s->mean);
  if (!spread || s->n < 2 || s->min == s->max) return;
  char low[24], high[24];
  snprintf(low, sizeof low, format, s->min);
  snprintf(high, sizeof high, format, s->max);
  snprintf(out + k, 64 - (size_t)k, " (%s-%s)", low, high);
}

static void print_table(const comparison *c) {
  char cells[MAX_RECIPES + 1][N_COLUMNS + 1][64];
  int width[N_COLUMNS + 1] = {0};
  bool any[N_COLUMNS + 1] = {true};
  for (int r = 0; r <= c->n_recipes; r++)
    for (int k = 0; k <= N_COLUMNS; k++) {
      char *text = cells[r][k];
      if (r == 0) snprintf(text, 64, "%s", k ? columns[k - 1].title : "recipe");
      else if (k == 0) snprintf(text, 64, "%s", c->recipes[r - 1]->name);
      else {
        summary s = summarise(c, r - 1, columns[k - 1].of);
        any[k] = any[k] || s.n;
        cell(&s, columns[k - 1].format, k >= 2 && k <= 5, text);
      }
      int w = (int)strlen(text);
      width[k] = w > width[k] ? w : width[k];
    }
  for (int r = 0; r <= c->n_recipes; r++) {
    for (int k = 0; k <= N_COLUMNS; k++)
      if (any[k]) mn_print(k ? "  %*s" : "%-*s", width[k], cells[r][k]);
    mn_print("\n");
  }
  if (c->n_seeds > 1) mn_print("mean over %d seeds (lowest-highest)\n", c->n_seeds);
}

static json_t *table_json(const comparison *c) {
  json_t *rows = json_array(), *runs = json_array();
  for (int r = 0; r < c->n_recipes; r++) {
    json_t *row = json_pack("{s:o,s:o}", "recipe", mn_cli_text(c->cli->args[r]), "name", mn_cli_text(c->recipes[r]->name));
    for (int k = 0; k < N_COLUMNS; k++) {
      summary s = summarise(c, r, columns[k].of);
      json_object_set_new(row, columns[k].key, s.n ? json_pack("{s:f,s:f,s:f}", "mean", s.mean, "min", s.min, "max", s.max) : json_null());
    }
    json_array_append_new(rows, row);
  }
  for (int i = 0; i < c->n_runs; i++) {
    const one_run *r = &c->runs[i];
    json_array_append_new(runs, json_pack("{s:o,s:I,s:I,s:o,s:I,s:o}", "name", mn_cli_text(r->name), "seed", (json_int_t)r->seed, "run",
                                          (json_int_t)r->result.run, "out_dir", mn_cli_text(r->out_dir), "tokens",
                                          (json_int_t)r->result.tokens, "validation", mn_evaluation_json(&r->result.validation)));
  }
  return json_pack("{s:o,s:o}", "table", rows, "runs", runs);
}

/* Losses per token compare only where the same text is cut into the same tokens. */
static void note_differences(const comparison *c) {
  for (int i = 1; i < c->n_recipes; i++) {
    const mn_recipe *a = c->recipes[0], *b = c->recipes[i];
    const mn_tokenizer_config *x = &a->tokenizer, *y = &b->tokenizer;
    if (!a->data.task && (x->type != y->type || (x->type == MN_TOKENIZER_BPE && x->vocab_size != y->vocab_size)))
      mn_cli_note(c->cli, "%s and %s have different tokenizers: compare bits per byte, not losses", a->name, b->name);
    int64_t p = a->train.steps * a->train.batch * a->train.accumulate * a->train.seq_len;
    int64_t q = b->train.steps * b->train.batch * b->train.accumulate * b->train.seq_len;
    if (p != q)
      mn_cli_note(c->cli, "%s sees %lld tokens, %s %lld: --set train.steps makes them equal", a->name, (long long)p, b->name, (long long)q);
  }
}

/* ---- the curves ---- */

static const char *const metrics[] = {"loss", "validation_loss"}, *const picture_ends[] = {"svg", "png"};

static mn_status picture_path(comparison *c, int metric, int end, char **path) {
  *path = mn_arena_format(c->arena, "%s/%s.%s", c->cli->out_dir, metrics[metric], picture_ends[end]);
  return *path ? MN_OK : MN_ERR_MEMORY;
}

static mn_status draw(comparison *c, mn_runs *db, int which, const char *title, bool show) {
  const char *metric = metrics[which];
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
  for (int k = 0; k < 2; k++) {
    char *path;
    MN_TRY(picture_path(c, which, k, &path));
    MN_TRY(mn_plot_write(&p, path));
    mn_cli_note(c->cli, "wrote %s", path);
  }
  if (!show || c->cli->json) return MN_OK;
  int width = mn_cli_columns(stdout);
  char *text = mn_plot_text(&p, width > 120 ? 120 : width, 20, mn_cli_color(stdout));
  if (!text) return MN_ERR_MEMORY;
  mn_print("\n");
  mn_print_bytes(text, strlen(text));
  free(text);
  return MN_OK;
}

static mn_status draw_all(comparison *c) {
  mn_runs *db;
  if (mn_runs_open(mn_cli_get(c->cli, "db"), false, &db) != MN_OK) {
    mn_cli_note(c->cli, "no curves: %s", mn_message());
    return MN_OK;
  }
  mn_status status = draw(c, db, 0, "loss while training", true);
  if (status == MN_OK) status = draw(c, db, 1, "loss on held-out data", false);
  mn_runs_close(db);
  return status;
}

/* ---- the verb ---- */

static mn_status read_seeds(comparison *c) {
  const char *s = mn_cli_get(c->cli, "seeds");
  if (!s) {
    c->n_seeds = 1;
    c->seeds[0] = -1; /* the recipe's */
    return MN_OK;
  }
  while (*s) {
    char *end;
    errno = 0;
    long long v = strtoll(s, &end, 10);
    if (end == s || errno || v < 0 || (*end && *end != ',') || (*end && !end[1]) || c->n_seeds == MAX_SEEDS)
      return mn_fail(MN_ERR_CONFIG, "--seeds must be at most %d numbers such as 1,2,3, not '%s'", MAX_SEEDS, mn_cli_get(c->cli, "seeds"));
    for (int i = 0; i < c->n_seeds; i++)
      if (c->seeds[i] == v) return mn_fail(MN_ERR_CONFIG, "--seeds names %lld twice; keep one", v);
    c->seeds[c->n_seeds++] = v;
    s = *end ? end + 1 : end;
  }
  return c->n_seeds ? MN_OK : mn_fail(MN_ERR_CONFIG, "--seeds is empty; give numbers such as 1,2,3");
}

/* Every training has a directory of its own, and so has no picture: not even where the file system takes Loss for loss. */
static mn_status check_names(const comparison *c, int r) {
  const char *name = c->recipes[r]->name;
  for (int k = 0; k < r; k++)
    if (!strcasecmp(c->recipes[k]->name, name))
      return mn_fail(MN_ERR_CONFIG, "%s and %s have the same name '%s'; give one another `name`", c->cli->args[k], c->cli->args[r], name);
  for (int k = 0; k < 4; k++) {
    char picture[64];
    snprintf(picture, sizeof picture, "%s.%s", metrics[k / 2], picture_ends[k % 2]);
    if (!strcasecmp(picture, name))
      return mn_fail(MN_ERR_CONFIG, "%s is called %s, as a picture of compare is; give it another `name`", c->cli->args[r], name);
  }
  return MN_OK;
}

/* DIR is the user's; the directories in it are ours, and a link in the place of one is not followed. */
static mn_status try_outputs(comparison *c) {
  for (int i = 0; i < c->n_runs; i++) {
    const one_run *r = &c->runs[i];
    int64_t *steps;
    size_t n;
    MN_TRY(mn_dir_need_real(r->out_dir));
    MN_TRY(mn_output_try_dir(r->out_dir));
    MN_TRY(mn_checkpoint_list(r->out_dir, &steps, &n));
    free(steps);
    if (n && !mn_cli_given(c->cli, "resume"))
      return mn_fail(MN_ERR_CONFIG, "%s already holds a run: --resume goes on with it; choose another --out for a new one", r->out_dir);
  }
  for (int k = 0; k < 4; k++) {
    char *path;
    MN_TRY(picture_path(c, k / 2, k % 2, &path));
    MN_TRY(mn_output_try(path, 0));
  }
  const char *db = mn_cli_get(c->cli, "db");
  return db ? mn_context(mn_runs_try(db), "--db") : MN_OK;
}

static mn_status plan_runs(comparison *c) {
  c->runs = mn_arena_alloc(c->arena, (size_t)(c->n_recipes * c->n_seeds) * sizeof *c->runs);
  if (!c->runs) return MN_ERR_MEMORY;
  for (int r = 0; r < c->n_recipes; r++) {
    MN_TRY(read_recipe(c, r, c->seeds[0], &c->recipes[r])); /* all mistakes before the first training */
    MN_TRY(check_names(c, r));
    for (int s = 0; s < c->n_seeds; s++) {
      one_run *x = &c->runs[c->n_runs++];
      const char *name = c->recipes[r]->name;
      *x = (one_run){.recipe = r, .seed = c->seeds[s] >= 0 ? c->seeds[s] : c->recipes[r]->seed};
      x->name = c->n_seeds > 1 ? mn_arena_format(c->arena, "%s-seed%lld", name, (long long)x->seed) : name;
      x->out_dir = x->name ? mn_arena_format(c->arena, "%s/%s", c->cli->out_dir, x->name) : NULL;
      if (!x->out_dir) return MN_ERR_MEMORY;
    }
  }
  return MN_OK;
}

static mn_status compare(comparison *c) {
  MN_TRY(mn_cli_only(c->cli, !mn_cli_given(c->cli, "seeds"), "one seed, and --seeds names several", "seed"));
  MN_TRY(read_seeds(c));
  MN_TRY(plan_runs(c));
  MN_TRY(mn_make_dirs_counted(c->cli->out_dir, &c->made));
  MN_TRY(try_outputs(c));
  note_differences(c);
  for (int i = 0; i < c->n_runs; i++) MN_TRY(train_one(c, &c->runs[i]));
  if (!c->cli->json) print_table(c);
  MN_TRY(draw_all(c));
  return c->cli->json ? mn_cli_json(c->cli, table_json(c)) : MN_OK;
}

static mn_status run(mn_cli *cli) {
  if (!cli->out_dir) return mn_fail(MN_ERR_CONFIG, "compare needs --out DIR: where the trained models and the curves go");
  if (cli->n_args > MAX_RECIPES) return mn_fail(MN_ERR_CONFIG, "compare takes at most %d recipes", MAX_RECIPES);
  comparison c = {.cli = cli, .arena = mn_arena_new(), .n_recipes = cli->n_args};
  mn_status status = c.arena ? compare(&c) : MN_ERR_MEMORY;
  for (int i = 0; i < c.n_recipes; i++) mn_recipe_free(c.recipes[i]);
  mn_arena_free(c.arena);
  mn_output_unmake_dirs(cli->out_dir, c.made); /* what holds nothing */
  return status;
}

static const mn_option options[] = {
    {"seeds", "LIST", NULL, "train each recipe once per seed: 1,2,3 (each recipe's own seed unless given)", 0},
    {"resume", NULL, NULL, "go on with what an earlier compare left in DIR", 0},
    {"db", "FILE", NULL, "the run database ($MNEME_HOME/runs.db or ./runs/mneme.db unless given)", 0},
    {0}};
static const char *const examples[] = {
    "mneme compare recipes/mqar-swa.yaml recipes/mqar-lmm.yaml recipes/mqar-mag.yaml --seeds 1,2 --out runs/recall",
    "mneme compare a.yaml b.yaml --set train.steps=500 --out runs/ab", NULL};
const mn_verb mn_verb_compare = {
    .name = "compare",
    .purpose = MN_VERB_TRAIN,
    .summary = "train several recipes and compare them",
    .usage = "RECIPE.yaml... --out DIR [options]",
    .about = "Trains the recipes one after the other, each in a process of its own, then prints one table - parameters, losses, accuracy, "
             "tokens per second, peak memory - and draws the curves: in the terminal and as DIR/loss.svg, .png and "
             "DIR/validation_loss.svg, .png. DIR/NAME holds each trained model.",
    .options = options,
    .examples = examples,
    .common = MN_CLI_THREADS | MN_CLI_SEED | MN_CLI_SET | MN_CLI_OUT,
    .min_args = 1,
    .max_args = -1,
    .run = run};
