/* compare_tracks.c - see compare_tracks.h. */
#include "cli/compare_tracks.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/dir.h"
#include "base/file.h"
#include "eval/verbatim_eval.h"
#include "format/yaml.h"
#include "model/params.h"

static const char *const kinds[] = {"figure", "task", "speed", "verbatim", NULL}; /* in the order of mn_measure_kind */
#define S mn_track
const mn_field mn_track_fields[] = {
    MN_FIELD_STRING_REQUIRED(S, name, "of the track, and of a directory in --out"),
    MN_FIELD_INT(S, parameters, 0, 0, INT64_MAX, "every model is made so wide that it has so many; 0: as wide as its recipe says"),
    MN_FIELD_INT(S, tokens, 0, 0, INT64_MAX, "seen in training, by all the same; 0: as many as train.steps gives"),
    MN_FIELD_VALUE(S, recipe, "sections that take the place of every recipe's; model is merged into theirs"),
    {.name = "measure",
     .type = MN_TYPE_VALUE,
     .offset = offsetof(S, measure_list),
     .size = sizeof(const mn_value *),
     .help = "a list of what is measured of the trained models"},
    MN_FIELD_END};
#undef S
#define S mn_measure
const mn_field mn_measure_fields[] = {
    MN_FIELD_STRING_REQUIRED(S, title, "of the column"),
    MN_FIELD_ENUM(S, kind, kinds, MN_MEASURE_FIGURE, "a figure of the last validation, a task, speed, or lists that come again"),
    MN_FIELD_STRING(S, figure, "loss", "figure: its name, such as bits_per_byte or accuracy"),
    MN_FIELD_VALUE(S, task, "task: {name: ..., settings}"),
    MN_FIELD_VALUE(S, verbatim, "verbatim: settings of that task which name one cell: {delays: [26], seconds: [repeat]}"),
    MN_FIELD_INT(S, examples, 128, 1, 1 << 30, "task: so many examples of the test split; verbatim: so many vignettes"),
    MN_FIELD_INT(S, repeats, 32, 1, 1 << 20, "speed: tokens that are timed one by one at each position; their median counts"),
    MN_FIELD_INTS(S, positions, 1, 1 << 30, "speed: tokens of the stream before the timed ones, rising"),
    MN_FIELD_END};
#undef S

/* ---- reading ---- */

/* A column is one number, and so one cell. */
static mn_status check_verbatim(mn_arena *arena, const mn_value *v, const char *where, const mn_measure *m) {
  mn_verbatim_config c;
  int64_t cells;
  if (!m->verbatim || m->verbatim->kind != MN_MAP)
    return mn_config_fail(v, where, "verbatim", "is missing: name a cell, as in {delays: [26], seconds: [repeat]}");
  char *at = mn_arena_format(arena, "%s.verbatim", where);
  if (!at) return MN_ERR_MEMORY;
  MN_TRY(mn_config_read(arena, m->verbatim, at, mn_verbatim_fields, &c));
  MN_TRY(mn_context(mn_verbatim_count(&c, &(mn_verbatim_run){.vignettes = 1}, &cells), "%s", at));
  if (cells != 1)
    return mn_config_fail(v, where, "verbatim",
                          "names %" PRId64 " cells, and a column shows one: give one of lists, lengths, delays, contexts and seconds",
                          cells);
  return m->examples <= MN_VIGNETTES ? MN_OK
                                     : mn_config_fail(v, where, "examples", "must be at most %d, which is all there are", MN_VIGNETTES);
}

/* It heads a column of a table that a terminal shows. */
static bool is_title(const char *title) { return mn_utf8_plain(title, strlen(title)) && !strchr(title, '|'); }

/* What is kept of a measure bears its title and an end, as "us@1024" or "recall.low": no other title may be such a name. */
static bool is_part_of(const char *title, const char *whole) {
  const size_t n = strlen(whole);
  return !strncmp(title, whole, n) && (!title[n] || title[n] == '.' || title[n] == '@');
}

static mn_status read_measure(mn_arena *arena, const mn_value *v, const char *where, mn_measure *m) {
  static const mn_key_use uses[] = {{"figure", "figure"},
                                    {"task", "task"},
                                    {"examples", "task verbatim"},
                                    {"repeats", "speed"},
                                    {"positions", "speed"},
                                    {"verbatim", "verbatim"},
                                    {0}};
  MN_TRY(mn_config_read(arena, v, where, mn_measure_fields, m));
  MN_TRY(mn_config_uses(v, where, uses, kinds[m->kind]));
  m->at = v;
  if (!is_title(m->title)) return mn_config_fail(v, where, "title", "must be signs that can be shown, and not |");
  const mn_value *name = mn_value_get(m->task, "name");
  if (m->kind == MN_MEASURE_TASK) {
    if (!name || name->kind != MN_TEXT) return mn_config_fail(v, where, "task", "needs a name, as in {name: mqar, len: 64}");
    MN_TRY(mn_task_check(name->as.text, m->task));
  }
  if (m->kind == MN_MEASURE_VERBATIM) MN_TRY(check_verbatim(arena, v, where, m));
  if (m->kind != MN_MEASURE_SPEED) return MN_OK;
  if (!m->positions.count) return mn_config_fail(v, where, "positions", "is missing: name tokens of a stream, such as [1024, 4096]");
  if (m->positions.count > MN_SPEED_POSITIONS)
    return mn_config_fail(v, where, "positions", "names more than %d places", MN_SPEED_POSITIONS);
  for (int i = 1; i < m->positions.count; i++)
    if (m->positions.items[i] <= m->positions.items[i - 1])
      return mn_config_fail(v, where, "positions", "must rise, but %" PRId64 " follows %" PRId64, m->positions.items[i],
                            m->positions.items[i - 1]);
  return MN_OK;
}

static mn_status read_track(mn_arena *arena, const mn_value *v, const char *where, mn_track *t) {
  MN_TRY(mn_config_read(arena, v, where, mn_track_fields, t));
  const char *fault = mn_name_fault(t->name);
  if (fault) return mn_config_fail(v, where, "name", "%s; give the track a plain name", fault);
  if (!t->recipe || t->recipe->kind != MN_MAP)
    return mn_config_fail(v, where, "recipe", "must be a map of sections: {data: ..., train: ...}");
  if (t->tokens && mn_value_find(t->recipe, "train.steps"))
    return mn_config_fail(v, where, "tokens", "make the steps, and recipe.train.steps is given too; keep one");
  if (t->parameters && mn_value_find(t->recipe, "model.d_model"))
    return mn_config_fail(v, where, "parameters", "make the width, and recipe.model.d_model is given too; keep one");
  const mn_value *list = t->measure_list;
  if (!list) return MN_OK;
  if (list->kind != MN_LIST) return mn_config_fail(v, where, "measure", "must be a list of {title: ..., kind: ...}");
  t->measures = mn_arena_alloc(arena, (list->count + 1) * sizeof *t->measures);
  if (!t->measures) return MN_ERR_MEMORY;
  for (size_t i = 0; i < list->count; i++) {
    char *at = mn_arena_format(arena, "%s.measure[%zu]", where, i);
    if (!at) return MN_ERR_MEMORY;
    MN_TRY(read_measure(arena, list->as.items[i], at, &t->measures[t->n_measures]));
    for (int k = 0; k < t->n_measures; k++) {
      const char *old = t->measures[k].title, *new = t->measures[t->n_measures].title;
      if (!strcmp(old, new)) return mn_config_fail(list->as.items[i], at, "title", "'%s' is there twice; titles differ", old);
      if (is_part_of(new, old) || is_part_of(old, new))
        return mn_config_fail(list->as.items[i], at, "title", "'%s' reads as a part of '%s'; choose another",
                              is_part_of(new, old) ? new : old, is_part_of(new, old) ? old : new);
    }
    t->n_measures++;
  }
  return MN_OK;
}

mn_status mn_tracks_read(mn_arena *arena, const char *path, mn_track **out, int *n) {
  const mn_value *root, *list;
  MN_TRY(mn_yaml_read(arena, path, &root));
  list = mn_value_get(root, "tracks");
  if (!list || list->kind != MN_LIST || !list->count)
    return mn_value_fail(root, "needs tracks: a list of {name: ..., recipe: {...}, measure: [...]}");
  for (size_t i = 0; i < root->count; i++)
    if (strcmp(root->as.entries[i].key, "tracks") != 0)
      return mn_value_fail(root->as.entries[i].value, "unknown key '%s' beside tracks; leave it out, or put it where it belongs",
                           root->as.entries[i].key);
  mn_track *tracks = mn_arena_alloc(arena, list->count * sizeof *tracks);
  if (!tracks) return MN_ERR_MEMORY;
  for (size_t i = 0; i < list->count; i++) {
    char *where = mn_arena_format(arena, "tracks[%zu]", i);
    if (!where) return MN_ERR_MEMORY;
    MN_TRY(read_track(arena, list->as.items[i], where, &tracks[i]));
    for (size_t k = 0; k < i; k++)
      if (!strcmp(tracks[k].name, tracks[i].name))
        return mn_config_fail(list->as.items[i], where, "name", "'%s' is there twice; names differ", tracks[i].name);
  }
  *out = tracks;
  *n = (int)list->count;
  return MN_OK;
}

double mn_value_mark(const mn_value *v) {
  mn_text text = {0};
  char hex[33];
  double mark = 0;
  if (v && mn_value_to_json(v, 0, &text) == MN_OK && mn_text_status(&text) == MN_OK) {
    mn_content_hash(text.data, text.len, hex);
    hex[12] = 0; /* 48 bits: a double holds them */
    mark = (double)strtoull(hex, NULL, 16);
  }
  mn_text_free(&text);
  return mark;
}

/* ---- a recipe in a track ---- */

/* `over`'s entries take the place of `under`'s; below `merge`, and in maps there, key by key. NULL: out of memory. */
static const mn_value *overlay(mn_arena *arena, const mn_value *under, const mn_value *over, const char *merge) {
  const size_t n = under->count, m = over->count;
  const char **keys = mn_arena_alloc(arena, (n + m + 1) * sizeof *keys);
  const mn_value **values = mn_arena_alloc(arena, (n + m + 1) * sizeof *values);
  size_t k = 0;
  if (!keys || !values) return NULL;
  for (size_t i = 0; i < n; i++) {
    const char *key = under->as.entries[i].key;
    const mn_value *old = under->as.entries[i].value, *new = mn_value_get(over, key);
    const bool both = new &&new->kind == MN_MAP && old->kind == MN_MAP && (!merge || !strcmp(merge, key));
    keys[k] = key;
    values[k] = both ? overlay(arena, old, new, NULL) : new ? new : old;
    if (!values[k++]) return NULL;
  }
  for (size_t i = 0; i < m; i++) {
    if (mn_value_get(under, over->as.entries[i].key)) continue;
    keys[k] = over->as.entries[i].key;
    values[k++] = over->as.entries[i].value;
  }
  return mn_value_map(arena, k, keys, values);
}

static mn_status with_int(mn_arena *arena, const mn_value *root, const char *key, int64_t value, const mn_value **out) {
  char *assignment = mn_arena_format(arena, "%s=%" PRId64, key, value);
  return assignment ? mn_value_set(arena, root, assignment, out) : MN_ERR_MEMORY;
}

/* Parameters of the model as the tree says it, none of them drawn. */
static mn_status count(const mn_value *root, int64_t vocab_size, int64_t *out) {
  mn_model *m;
  mn_params *p = NULL;
  MN_TRY(mn_model_parse(mn_value_get(root, "model"), "model", vocab_size, &m));
  mn_status status = mn_params_declare(m, mn_backend_ref(), MN_F32, &p);
  if (status == MN_OK) *out = mn_params_count(p);
  mn_params_free(p);
  mn_model_free(m);
  return status;
}

/* What is no answer to whether a model can have this width. */
static bool ends_all(mn_status status) { return status == MN_ERR_MEMORY || status == MN_ERR_CANCELLED; }

enum { WIDTH_STEP = 4, WIDEST = 1 << 14, HIDDEN_STEP = 4 };

static double apart(const mn_track *track, int64_t parameters) {
  return fabs((double)(parameters - track->parameters)) / (double)track->parameters;
}

/* The width whose model is closest to `parameters`. Widths that a mixer refuses (heads that do not divide them) are passed over. */
static mn_status solve_width(const mn_track *track, const mn_value *root, int64_t vocab_size, int64_t *width, int64_t *parameters) {
  int64_t found = 0;
  char *why = NULL;
  *width = 0;
  for (int64_t d = WIDTH_STEP; d <= WIDEST && found <= 2 * track->parameters; d += WIDTH_STEP) {
    mn_arena *arena = mn_arena_new(); /* for the trees that are tried */
    const mn_value *tried = NULL;
    mn_status status = arena ? with_int(arena, root, "model.d_model", d, &tried) : MN_ERR_MEMORY;
    if (status == MN_OK) status = count(tried, vocab_size, &found);
    mn_arena_free(arena);
    if (status == MN_OK) status = mn_stop_check("looking for a width");
    if (ends_all(status)) {
      free(why);
      return status;
    }
    if (status != MN_OK) {
      free(why);
      if (!(why = mn_strdup(mn_message()))) return MN_ERR_MEMORY;
    } else if (!*width || apart(track, found) < apart(track, *parameters)) {
      *width = d;
      *parameters = found;
    }
  }
  mn_status status = *width ? MN_OK : mn_fail(MN_ERR_CONFIG, "the model can have no width at all: %s", why ? why : "");
  free(why);
  return status;
}

/* What the width leaves over goes into the channel part: parameters are linear in its hidden width. Nothing where it has none. */
static mn_status solve_hidden(mn_arena *arena, const mn_track *track, int64_t vocab_size, int64_t width, const mn_value **root,
                              int64_t *parameters) {
  const mn_value *block = mn_value_find(*root, "model.block"), *tried;
  int64_t at[2], hidden = 2 * width;
  if (!block || block->kind != MN_MAP) return MN_OK;
  for (int i = 0; i < 2; i++) {
    MN_TRY(with_int(arena, *root, "model.block.hidden", hidden + i * HIDDEN_STEP, &tried));
    const mn_status status = count(tried, vocab_size, &at[i]);
    if (status != MN_OK) return ends_all(status) ? status : MN_OK;
  }
  if (at[1] <= at[0]) return MN_OK;
  hidden += HIDDEN_STEP * (int64_t)llround((double)(track->parameters - at[0]) / (double)(at[1] - at[0]));
  if (hidden < HIDDEN_STEP) return MN_OK;
  MN_TRY(with_int(arena, *root, "model.block.hidden", hidden, &tried));
  const mn_status status = count(tried, vocab_size, &at[0]);
  if (status != MN_OK || apart(track, at[0]) >= apart(track, *parameters)) return ends_all(status) ? status : MN_OK;
  *root = tried;
  *parameters = at[0];
  return MN_OK;
}

static mn_status solve(mn_arena *arena, const mn_track *track, int64_t vocab_size, const mn_value **root, mn_track_recipe *out) {
  MN_TRY(solve_width(track, *root, vocab_size, &out->d_model, &out->parameters));
  MN_TRY(with_int(arena, *root, "model.d_model", out->d_model, root));
  if (apart(track, out->parameters) > 0.01) MN_TRY(solve_hidden(arena, track, vocab_size, out->d_model, root, &out->parameters));
  if (apart(track, out->parameters) <= 0.05) return MN_OK;
  return mn_fail(MN_ERR_CONFIG,
                 "no width comes within 5 %% of %" PRId64 " parameters (d_model %" PRId64 " has %" PRId64
                 "); change layers or heads, or ask for another number",
                 track->parameters, out->d_model, out->parameters);
}

/* Steps that see the track's tokens, the last of them whole. */
static mn_status set_steps(mn_arena *arena, const mn_track *track, const mn_value **root) {
  mn_recipe *r;
  MN_TRY(mn_recipe_parse(*root, &r));
  const int64_t each = r->train.batch * r->train.accumulate * (mn_source_is_tokens(&r->source) ? r->train.seq_len : 1);
  mn_recipe_free(r);
  return with_int(arena, *root, "train.steps", (track->tokens + each - 1) / each, root);
}

static mn_status named(mn_arena *arena, const char *path, const mn_value **root) {
  if (mn_value_get(*root, "name")) return MN_OK;
  char *stem = mn_arena_strdup(arena, mn_path_base(path)), *dot = stem ? strrchr(stem, '.') : NULL;
  if (dot && dot != stem) *dot = 0;
  char *assignment = stem ? mn_arena_format(arena, "name='%s'", stem) : NULL;
  return assignment ? mn_value_set(arena, *root, assignment, root) : MN_ERR_MEMORY;
}

/* What the track works out is nobody's to set: it would have no effect. section.key, by itself or with the whole section. */
static bool sets(const char *assignment, const mn_value *after, const char *section, const char *key) {
  const size_t n = strlen(section), m = strlen(key);
  if (strncmp(assignment, section, n) != 0) return false;
  if (assignment[n] == '=') return mn_value_get(mn_value_get(after, section), key) != NULL;
  return assignment[n] == '.' && !strncmp(assignment + n + 1, key, m) && assignment[n + 1 + m] == '=';
}

static mn_status set_by_user(mn_arena *arena, const mn_track *track, const char *assignment, const mn_value **root) {
  static const char why[] = "--set %s: the track has `%s`, which make the %s; change them, or leave them out of the track";
  MN_TRY(mn_value_set(arena, *root, assignment, root));
  if (track->tokens && sets(assignment, *root, "train", "steps")) return mn_fail(MN_ERR_CONFIG, why, assignment, "tokens", "steps");
  if (track->parameters && sets(assignment, *root, "model", "d_model"))
    return mn_fail(MN_ERR_CONFIG, why, assignment, "parameters", "width");
  return MN_OK;
}

static mn_status derive(mn_arena *arena, const mn_track *track, const char *path, const char *const *set, int n, mn_track_recipe *out) {
  const mn_value *root;
  int64_t vocab_size;
  MN_TRY(mn_yaml_read(arena, path, &root));
  if (root->kind != MN_MAP) return mn_value_fail(root, "must be a recipe: a map with a model");
  MN_TRY(named(arena, path, &root));
  if (!(root = overlay(arena, root, track->recipe, "model"))) return MN_ERR_MEMORY;
  for (int i = 0; i < n; i++) MN_TRY(set_by_user(arena, track, set[i], &root));
  MN_TRY(mn_recipe_vocabulary(root, &vocab_size));
  if (track->parameters) {
    MN_TRY(solve(arena, track, vocab_size, &root, out));
  } else {
    const mn_value *d = mn_value_find(root, "model.d_model");
    out->d_model = d && d->kind == MN_INTEGER ? d->as.integer : 0;
    MN_TRY(count(root, vocab_size, &out->parameters));
  }
  if (track->tokens) MN_TRY(set_steps(arena, track, &root));
  out->root = root;
  return mn_recipe_parse(root, &out->recipe);
}

mn_status mn_track_recipe_read(mn_arena *arena, const mn_track *track, const char *path, const char *const *set, int n,
                               mn_track_recipe *out) {
  *out = (mn_track_recipe){0};
  return mn_context(derive(arena, track, path, set, n, out), "%s in track %s", path, track->name);
}
