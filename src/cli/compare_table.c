/* compare_table.c - see compare.h. What is measured is asked of the trainings themselves: the columns are their figures. */
#include "cli/compare.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/output.h"
#include "cli/train_view.h"

enum { CELL = 96 };
#define MIXED "rate"

typedef struct column {
  const char *title, *key, *format;
  double (*of)(const mn_train_result *r); /* NULL: the figure called `figure` */
  const char *figure;
  bool spread;        /* over seeds the lowest and the highest are shown too */
  bool judged, rises; /* the best is marked; which end that is */
} column;

typedef struct table {
  const mn_comparison *c;
  int n;
  column *columns;
} table;

typedef struct summary {
  double mean, min, max;
  int n;
} summary;

static double of_parameters(const mn_train_result *r) { return (double)r->parameters; }
static double of_loss(const mn_train_result *r) { return r->already_done ? (double)NAN : r->loss; }
static double of_rate(const mn_train_result *r) { return r->tokens_per_second > 0 ? r->tokens_per_second : (double)NAN; }
static double of_memory(const mn_train_result *r) { return (double)r->peak_bytes / (1 << 20); }

static double of_figure(const mn_train_result *r, const char *name) {
  mn_figure figures[MN_EVALUATION_FIGURES];
  for (int i = 0, n = mn_evaluation_figures(&r->validation, figures); i < n; i++)
    if (!strcmp(figures[i].name, name)) return figures[i].value;
  return (double)NAN;
}

/* ---- the columns ---- */

static const char *unit_of(const mn_comparison *c, int recipe) { /* NULL: none of its trainings has come to an end */
  for (int i = 0; i < c->n_runs; i++)
    if (c->runs[i].recipe == recipe && !c->runs[i].fault) return c->runs[i].result.unit;
  return NULL;
}

/* "images/s"; where units differ every row says its own. */
static const char *rate_title(const mn_comparison *c) {
  const char *unit = NULL;
  for (int r = 0; r < c->n_recipes; r++) {
    const char *own = unit_of(c, r);
    if (unit && own && strcmp(unit, own)) return MIXED;
    if (own) unit = own;
  }
  return mn_arena_format(c->arena, "%s/s", unit ? unit : "tokens");
}

static bool compares(const mn_comparison *c, mn_figure_kind kind) {
  switch (kind) {
  case MN_FIGURE_LOSS:
  case MN_FIGURE_OF_LOSS:
    return c->same_objectives && c->same_tokens;
  case MN_FIGURE_BITS:
    return c->same_objectives;
  default:
    return true;
  }
}

static bool has_figure(const table *t, const char *name) {
  for (int k = 0; k < t->n; k++)
    if (t->columns[k].figure && !strcmp(t->columns[k].figure, name)) return true;
  return false;
}

static mn_status list_columns(const mn_comparison *c, table *t) {
  const size_t most = (size_t)c->n_runs * MN_EVALUATION_FIGURES + 4;
  const char *rate = rate_title(c);
  *t = (table){.c = c, .columns = mn_arena_alloc(c->arena, most * sizeof *t->columns)};
  if (!rate || !t->columns) return MN_ERR_MEMORY;
  t->columns[t->n++] = (column){"parameters", "parameters", "%.0f", .of = of_parameters};
  t->columns[t->n++] = (column){"loss", "loss", "%.4f", .of = of_loss, .spread = true};
  for (int i = 0; i < c->n_runs; i++) {
    mn_figure figures[MN_EVALUATION_FIGURES];
    if (c->runs[i].fault) continue;
    for (int k = 0, n = mn_evaluation_figures(&c->runs[i].result.validation, figures); k < n; k++) {
      const mn_figure *f = &figures[k];
      if (has_figure(t, f->name)) continue;
      const bool loss = !strcmp(f->name, "loss"); /* the training has one too */
      t->columns[t->n++] = (column){.title = loss ? "validation" : f->name,
                                    .key = loss ? "validation_loss" : f->name,
                                    .format = "%.4f",
                                    .figure = f->name,
                                    .spread = true,
                                    .judged = c->n_recipes > 1 && compares(c, f->kind),
                                    .rises = f->rises};
    }
  }
  t->columns[t->n++] = (column){rate, "tokens_per_second", "%.0f", .of = of_rate};
  t->columns[t->n++] = (column){"peak MiB", "peak_mib", "%.0f", .of = of_memory};
  return MN_OK;
}

static summary summarise(const table *t, int recipe, const column *of) {
  summary s = {0, INFINITY, -INFINITY, 0};
  for (int i = 0; i < t->c->n_runs; i++) {
    const mn_compared *r = &t->c->runs[i];
    if (r->recipe != recipe || r->fault) continue;
    double x = of->of ? of->of(&r->result) : of_figure(&r->result, of->figure);
    if (!isfinite(x)) continue;
    s.mean += x;
    s.min = x < s.min ? x : s.min;
    s.max = x > s.max ? x : s.max;
    s.n++;
  }
  s.mean = s.n ? s.mean / s.n : (double)NAN;
  return s;
}

/* Is no other mean better, and is there another? */
static bool is_best(const table *t, int recipe, const column *of) {
  int others = 0;
  summary mine = summarise(t, recipe, of);
  if (!of->judged || !mine.n) return false;
  for (int r = 0; r < t->c->n_recipes; r++) {
    summary s = summarise(t, r, of);
    if (r == recipe || !s.n) continue;
    if (of->rises ? s.mean > mine.mean : s.mean < mine.mean) return false;
    others++;
  }
  return others > 0;
}

/* ---- as text ---- */

/* "1.234", or over several seeds "1.234 (1.2-1.3)" where they differ; "*" behind the mean of the best. */
static void write_cell(const table *t, int recipe, const column *of, char out[CELL]) {
  summary s = summarise(t, recipe, of);
  if (!s.n) {
    strcpy(out, "-");
    return;
  }
  int k = snprintf(out, 32, of->format, s.mean);
  if (is_best(t, recipe, of)) out[k++] = '*', out[k] = 0;
  if (!of->spread || s.n < 2 || s.min == s.max) return;
  char low[24], high[24];
  snprintf(low, sizeof low, of->format, s.min);
  snprintf(high, sizeof high, of->format, s.max);
  snprintf(out + k, CELL - (size_t)k, " (%s-%s)", low, high);
}

/* Column k of the table, 0: the names; every cell as wide as the widest. Returns false where no recipe has it. */
static bool fill_column(const table *t, int k, char (*cells)[CELL]) {
  const mn_comparison *c = t->c;
  const column *of = k ? &t->columns[k - 1] : NULL;
  const bool own_unit = of && !strcmp(of->title, MIXED);
  bool any = !of;
  int width = 0;
  for (int r = 0; r <= c->n_recipes; r++) {
    char *text = cells[r];
    if (r == 0) snprintf(text, CELL, "%s", of ? of->title : "recipe");
    else if (!of) snprintf(text, CELL, "%s", c->recipes[r - 1]->name);
    else write_cell(t, r - 1, of, text);
    size_t used = strlen(text);
    any = any || (r && strcmp(text, "-"));
    if (r && own_unit && unit_of(c, r - 1)) used += (size_t)snprintf(text + used, CELL - used, " %s/s", unit_of(c, r - 1));
    width = (int)used > width ? (int)used : width;
  }
  for (int r = 0; r <= c->n_recipes; r++) {
    char padded[CELL];
    snprintf(padded, CELL, of ? "%*s" : "%-*s", width, cells[r]);
    memcpy(cells[r], padded, CELL);
  }
  return any;
}

mn_status mn_compare_print(const mn_comparison *c) {
  table t;
  MN_TRY(list_columns(c, &t));
  const int rows = c->n_recipes + 1;
  char(*cells)[CELL] = mn_arena_alloc(c->arena, (size_t)(rows * (t.n + 1)) * CELL); /* column by column */
  bool *shown = mn_arena_alloc(c->arena, (size_t)(t.n + 1) * sizeof *shown), marked = false;
  if (!cells || !shown) return MN_ERR_MEMORY;
  for (int k = 0; k <= t.n; k++) {
    shown[k] = fill_column(&t, k, cells + k * rows);
    for (int r = 0; k && r < c->n_recipes; r++) marked = marked || is_best(&t, r, &t.columns[k - 1]);
  }
  for (int r = 0; r < rows; r++) {
    for (int k = 0; k <= t.n; k++)
      if (shown[k]) mn_print("%s%s", k ? "  " : "", cells[k * rows + r]);
    mn_print("\n");
  }
  if (marked) mn_print("* the best of its column\n");
  if (c->n_seeds > 1) mn_print("mean over %d seeds (lowest-highest)%s\n", c->n_seeds, c->faults ? ", without trainings that failed" : "");
  for (int i = 0; i < c->n_runs; i++)
    if (c->runs[i].fault) mn_print("failed: %s\n", c->runs[i].fault);
  return MN_OK;
}

/* ---- as JSON ---- */

static json_t *row_json(const table *t, int r) {
  const mn_comparison *c = t->c;
  json_t *row =
      json_pack("{s:o,s:o,s:s?}", "recipe", mn_cli_text(c->cli->args[r]), "name", mn_cli_text(c->recipes[r]->name), "unit", unit_of(c, r));
  for (int k = 0; k < t->n; k++) {
    const column *of = &t->columns[k];
    summary s = summarise(t, r, of);
    json_t *cell = s.n ? json_pack("{s:f,s:f,s:f}", "mean", s.mean, "min", s.min, "max", s.max) : json_null();
    if (s.n && of->judged) json_object_set_new(cell, "best", json_boolean(is_best(t, r, of)));
    json_object_set_new(row, of->key, cell);
  }
  return row;
}

mn_status mn_compare_json(const mn_comparison *c, json_t **out) {
  table t;
  MN_TRY(list_columns(c, &t));
  json_t *rows = json_array(), *runs = json_array();
  for (int r = 0; r < c->n_recipes; r++) json_array_append_new(rows, row_json(&t, r));
  for (int i = 0; i < c->n_runs; i++) {
    const mn_compared *r = &c->runs[i];
    if (r->fault) {
      json_array_append_new(runs, json_pack("{s:o,s:I,s:o,s:o}", "name", mn_cli_text(r->name), "seed", (json_int_t)r->seed, "out_dir",
                                            mn_cli_text(r->out_dir), "error", mn_cli_text(r->fault)));
      continue;
    }
    json_array_append_new(runs, json_pack("{s:o,s:I,s:I,s:o,s:I,s:o}", "name", mn_cli_text(r->name), "seed", (json_int_t)r->seed, "run",
                                          (json_int_t)r->result.run, "out_dir", mn_cli_text(r->out_dir), "tokens",
                                          (json_int_t)r->result.tokens, "validation", mn_evaluation_json(&r->result.validation)));
  }
  *out = json_pack("{s:o,s:o}", "table", rows, "runs", runs);
  return MN_OK;
}
