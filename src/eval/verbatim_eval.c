/* verbatim_eval.c - see verbatim_eval.h. */
#include "eval/verbatim_eval.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/nearest.h"
#include "run/meter.h"
#include "task/recurring.h"

#define S mn_verbatim_config
const mn_field mn_verbatim_fields[] = {
    MN_FIELD_STRINGS(S, lists, "arbitrary (nouns of all kinds) and semantic (ten of one kind); arbitrary"),
    MN_FIELD_INTS(S, lengths, 3, MN_VIGNETTE_NOUNS, "nouns of a list; 10"),
    MN_FIELD_INTS(S, delays, 0, 1 << 24, "tokens of the model between the lists, 0: the fewest there can be; 26, 99, 435"),
    MN_FIELD_STRINGS(S, contexts, "what stands between: intact, scrambled, incongruent, short; intact"),
    MN_FIELD_STRINGS(S, seconds, "the second list: repeat, permuted, novel; all three"),
    MN_FIELD_ENUM(S, control, mn_vignette_controls, MN_CONTROL_NONE, "a change of the words around the lists, which should not matter"),
    MN_FIELD_INT(S, from, 2, 1, MN_VIGNETTE_NOUNS, "the first noun that counts; nothing foretells the first of a list"),
    MN_FIELD_INT(S, resamples, 1000, 1, 1000000, "draws of the bootstrap"),
    MN_FIELD_INT(S, seed, 1, 0, INT64_MAX, "of lists, orders, stories and the bootstrap"),
    MN_FIELD_END};
#undef S

enum { MOST_LEVELS = 16, BATCH = 16, PREFILL = 256 };

/* ---- the grid ---- */

typedef struct levels {
  int n;
  int64_t of[MOST_LEVELS];
} levels;

static mn_status words_of(const char *key, const mn_strings *given, const char *const *names, int n_default, levels *out) {
  int n_names = 0;
  while (names[n_names]) n_names++;
  *out = (levels){.n = given->count ? given->count : n_default};
  for (int i = 0; i < out->n; i++) out->of[i] = i;
  for (int i = 0; i < given->count; i++) {
    int k = 0;
    while (k < n_names && strcmp(names[k], given->items[i]) != 0) k++;
    if (k == n_names) {
      const char *near = mn_nearest(given->items[i], names, (size_t)n_names);
      char shown[MN_PRINTABLE];
      return mn_fail(MN_ERR_CONFIG, "task verbatim: %s has no '%s'%s%s%s; it knows %s, %s%s%s%s%s", key,
                     mn_printable(given->items[i], shown), near ? " (did you mean " : "", near ? near : "", near ? "?)" : "", names[0],
                     names[1], n_names > 2 ? ", " : "", n_names > 2 ? names[2] : "", n_names > 3 ? ", " : "", n_names > 3 ? names[3] : "");
    }
    for (int before = 0; before < i; before++)
      if (out->of[before] == k) return mn_fail(MN_ERR_CONFIG, "task verbatim: %s names '%s' twice", key, names[k]);
    out->of[i] = k;
  }
  return MN_OK;
}

static mn_status numbers_of(const char *key, const mn_ints *given, const int64_t *usual, int n_usual, levels *out) {
  if (given->count > MOST_LEVELS) return mn_fail(MN_ERR_CONFIG, "task verbatim: %s has more than %d values", key, MOST_LEVELS);
  *out = (levels){.n = given->count ? given->count : n_usual};
  for (int i = 0; i < out->n; i++) {
    out->of[i] = given->count ? given->items[i] : usual[i];
    for (int before = 0; before < i; before++)
      if (out->of[before] == out->of[i]) return mn_fail(MN_ERR_CONFIG, "task verbatim: %s names %" PRId64 " twice", key, out->of[i]);
  }
  return MN_OK;
}

/* The cells, malloc'ed. Delays are nothing to a short context. */
static mn_status make_grid(const mn_verbatim_config *c, mn_verbatim_cell **out, int *n) {
  levels kinds, lengths, contexts, delays, seconds;
  *out = NULL;
  *n = 0;
  MN_TRY(words_of("lists", &c->lists, mn_vignette_kinds, 1, &kinds));
  MN_TRY(words_of("contexts", &c->contexts, mn_vignette_contexts, 1, &contexts));
  MN_TRY(words_of("seconds", &c->seconds, mn_vignette_seconds, MN_SECONDS, &seconds));
  MN_TRY(numbers_of("lengths", &c->lengths, (const int64_t[]){MN_VIGNETTE_NOUNS}, 1, &lengths));
  MN_TRY(numbers_of("delays", &c->delays, (const int64_t[]){26, 99, 435}, 3, &delays));
  for (int i = 0; i < lengths.n; i++)
    if (c->from > lengths.of[i])
      return mn_fail(MN_ERR_CONFIG, "task verbatim: from = %" PRId64 " leaves no noun of lists of %" PRId64, c->from, lengths.of[i]);
  if (c->delays.count && contexts.n == 1 && contexts.of[0] == MN_CONTEXT_SHORT)
    return mn_fail(MN_ERR_CONFIG,
                   "task verbatim: delays have no effect on contexts: [short], where nothing but a few words stands between");
  mn_verbatim_cell *cells = mn_calloc((size_t)(kinds.n * lengths.n * contexts.n * delays.n * seconds.n), sizeof *cells);
  if (!cells) return MN_ERR_MEMORY;
  for (int k = 0; k < kinds.n; k++)
    for (int l = 0; l < lengths.n; l++)
      for (int x = 0; x < contexts.n; x++)
        for (int d = 0; d < (contexts.of[x] == MN_CONTEXT_SHORT ? 1 : delays.n); d++)
          for (int s = 0; s < seconds.n; s++)
            cells[(*n)++].of = (mn_vignette_cell){.kind = (int)kinds.of[k],
                                                  .second = (int)seconds.of[s],
                                                  .context = (int)contexts.of[x],
                                                  .control = c->control,
                                                  .length = (int)lengths.of[l],
                                                  .delay = contexts.of[x] == MN_CONTEXT_SHORT ? 0 : delays.of[d]};
  *out = cells;
  return MN_OK;
}

static int64_t vignettes_of(const mn_verbatim_run *run) {
  return run->vignettes > 0 && run->vignettes < MN_VIGNETTES ? run->vignettes : MN_VIGNETTES;
}

mn_status mn_verbatim_count(const mn_verbatim_config *config, const mn_verbatim_run *run, int64_t *out) {
  mn_verbatim_cell *cells;
  int n;
  MN_TRY(make_grid(config, &cells, &n));
  free(cells);
  *out = n * vignettes_of(run);
  return MN_OK;
}

void mn_verbatim_free(mn_verbatim_eval *e) {
  free(e->cells);
  free(e->ratio);
  *e = (mn_verbatim_eval){0};
}

/* ---- one cell ---- */

typedef struct work {
  const mn_verbatim_reader *reader;
  const mn_verbatim_config *config;
  const mn_verbatim_run *run;
  mn_verbatim_eval *out;
  mn_vignettes *vignettes;
  mn_vignette *made; /* [rows] */
  int64_t rows, width;
  int32_t *ids, *length; /* [rows, width], [rows] */
  double *nats;          /* [rows, width] */
  double *noun;          /* [2 lists, MN_VIGNETTE_NOUNS, vignettes], nats */
  double *scratch;       /* [4, vignettes] */
  int64_t done, all;
} work;

static double *noun_at(const work *w, int list, int k) { return w->noun + (int64_t)(list * MN_VIGNETTE_NOUNS + k) * w->out->vignettes; }

/* Few of them are spread over all groups and rotations. */
static int vignette_at(const mn_verbatim_eval *e, int64_t v) { return (int)(v * MN_VIGNETTES / e->vignettes); }

/* Vignettes `from` to from + rows of a cell, read side by side; what their nouns have is added up. */
static mn_status read_some(work *w, mn_verbatim_cell *cell, int64_t from, int64_t rows) {
  int64_t n = 0;
  for (int64_t b = 0; b < rows; b++) {
    MN_TRY(mn_vignettes_build(w->vignettes, &cell->of, vignette_at(w->out, from + b), &w->made[b]));
    cell->gap += (double)w->made[b].gap / (double)w->out->vignettes;
    if (w->made[b].n > n) n = w->made[b].n;
  }
  if (n > cell->longest) cell->longest = n;
  if (n > w->width) return mn_fail(MN_ERR_INTERNAL, "a vignette has %" PRId64 " tokens, and there is room for %" PRId64, n, w->width);
  memset(w->ids, 0, (size_t)(rows * n) * sizeof *w->ids);
  for (int64_t b = 0; b < rows; b++) {
    memcpy(w->ids + b * n, w->made[b].ids, (size_t)w->made[b].n * sizeof *w->ids);
    w->length[b] = (int32_t)w->made[b].n;
    w->out->tokens += w->made[b].n;
  }
  MN_TRY(w->reader->read(w->reader->ctx, w->ids, w->length, rows, n, w->nats));
  for (int64_t b = 0; b < rows; b++) {
    for (int64_t t = 1; t < w->made[b].n; t++) {
      const int32_t k = w->made[b].word[t];
      const double x = w->nats[b * n + t];
      if (!isfinite(x)) return mn_fail(MN_ERR_NUMERIC, "the model's output is not a number at token %" PRId64 " of a vignette", t);
      if (k >= 0) noun_at(w, k >= cell->of.length, k % cell->of.length)[from + b] += x;
    }
  }
  return MN_OK;
}

static mn_status summarise(work *w, mn_verbatim_cell *cell, double *ratio) {
  const mn_verbatim_config *c = w->config;
  const int64_t all = w->out->vignettes, from = c->from - 1;
  double *x[2] = {w->scratch, w->scratch + all}, *change = w->scratch + 2 * all, *kept = w->scratch + 3 * all;
  int64_t n = 0;
  for (int64_t v = 0; v < all; v++) {
    for (int list = 0; list < 2; list++) {
      x[list][v] = 0;
      for (int k = (int)from; k < cell->of.length; k++) x[list][v] += noun_at(w, list, k)[v] / (double)(cell->of.length - from);
    }
    cell->flagged += x[0][v] < 1;
    ratio[v] = x[0][v] > 0 ? 100 * (x[1][v] / x[0][v]) : (double)NAN;
    cell->nothing += !(x[0][v] > 0);
    if (!(x[0][v] > 0)) continue;
    change[n] = (x[1][v] - x[0][v]) / (x[1][v] + x[0][v]);
    kept[n++] = ratio[v];
  }
  MN_TRY(mn_bootstrap_median(kept, n, c->resamples, (uint64_t)c->seed, &cell->repeat));
  cell->change = mn_median(change, n);
  cell->deviation = mn_median_deviation(kept, n, cell->repeat.value, change);
  cell->first = mn_median(x[0], all);
  cell->second = mn_median(x[1], all);
  for (int list = 0; list < 2; list++)
    for (int k = 0; k < cell->of.length; k++)
      MN_TRY(mn_bootstrap_mean(noun_at(w, list, k), all, c->resamples, (uint64_t)c->seed, &cell->at[list][k]));
  return MN_OK;
}

static mn_status read_cell(work *w, int i) {
  mn_verbatim_cell *cell = &w->out->cells[i];
  const int64_t all = cell->vignettes = w->out->vignettes;
  memset(w->noun, 0, (size_t)(2 * MN_VIGNETTE_NOUNS * all) * sizeof *w->noun);
  for (int64_t v = 0; v < all; v += w->rows) {
    const int64_t rows = all - v < w->rows ? all - v : w->rows;
    if (mn_watch_stops(&w->run->watch) || !mn_watch_tell(&w->run->watch, NULL, w->done, w->all))
      return mn_fail(MN_ERR_CANCELLED, "interrupted after %" PRId64 " of %" PRId64 " vignettes", w->done, w->all);
    MN_TRY(read_some(w, cell, v, rows));
    w->done += rows;
  }
  return summarise(w, cell, w->out->ratio + i * all);
}

/* ---- all ---- */

/* All vignettes are made once before any is read: what cannot be made, and what is too long, is said at once. */
static mn_status longest(mn_vignettes *from, const mn_verbatim_eval *e, int64_t *out, int64_t *delay) {
  mn_vignette made = {0};
  mn_status status = MN_OK;
  for (int i = 0; i < e->n && status == MN_OK; i++)
    for (int v = 0; v < e->vignettes && status == MN_OK; v++)
      if ((status = mn_vignettes_build(from, &e->cells[i].of, vignette_at(e, v), &made)) == MN_OK && made.n > *out)
        *out = made.n, *delay = made.gap;
  mn_vignette_free(&made);
  return status;
}

static mn_status read_all(work *w) {
  const int64_t all = w->out->vignettes;
  w->rows = w->reader->rows > 0 ? w->reader->rows : 1;
  if (w->rows > all) w->rows = all;
  w->all = w->out->n * all;
  w->made = mn_calloc((size_t)w->rows, sizeof *w->made);
  w->ids = mn_alloc((size_t)(w->rows * w->width) * sizeof *w->ids);
  w->length = mn_alloc((size_t)w->rows * sizeof *w->length);
  w->nats = mn_alloc((size_t)(w->rows * w->width) * sizeof *w->nats);
  w->noun = mn_alloc((size_t)(2 * MN_VIGNETTE_NOUNS * all) * sizeof *w->noun);
  w->scratch = mn_alloc((size_t)(4 * all) * sizeof *w->scratch);
  w->out->ratio = mn_alloc((size_t)(w->out->n * all) * sizeof *w->out->ratio);
  if (!w->made || !w->ids || !w->length || !w->nats || !w->noun || !w->scratch || !w->out->ratio) return MN_ERR_MEMORY;
  const double began = mn_now();
  for (int i = 0; i < w->out->n; i++) MN_TRY(read_cell(w, i));
  w->out->seconds = mn_now() - began;
  return MN_OK;
}

/* prepare: told the longest vignette and how far apart its lists are, before anything is read; may be NULL. */
typedef mn_status (*prepare_fn)(void *ctx, int64_t tokens, int64_t delay);

static mn_status evaluate(const mn_verbatim_reader *reader, prepare_fn prepare, const mn_tokenizer *tok, const mn_verbatim_config *config,
                          const mn_verbatim_run *run, mn_verbatim_eval *out) {
  work w = {.reader = reader, .config = config, .run = run, .out = out};
  int64_t delay = 0;
  MN_TRY(make_grid(config, &out->cells, &out->n));
  out->vignettes = vignettes_of(run);
  mn_status status = mn_vignettes_open(tok, (uint64_t)config->seed, &w.vignettes);
  if (status == MN_OK) status = longest(w.vignettes, out, &w.width, &delay);
  if (status == MN_OK && prepare) status = prepare(reader->ctx, w.width, delay);
  if (status == MN_OK) status = read_all(&w);
  for (int64_t b = 0; w.made && b < w.rows; b++) mn_vignette_free(&w.made[b]);
  mn_vignettes_close(w.vignettes);
  free(w.made);
  free(w.ids);
  free(w.length);
  free(w.nats);
  free(w.noun);
  free(w.scratch);
  if (status != MN_OK) mn_verbatim_free(out);
  return status;
}

mn_status mn_eval_verbatim_with(const mn_verbatim_reader *reader, const mn_tokenizer *tok, const mn_verbatim_config *config,
                                const mn_verbatim_run *run, mn_verbatim_eval *out) {
  *out = (mn_verbatim_eval){0};
  return evaluate(reader, NULL, tok, config, run, out);
}

/* ---- a session as a reader ---- */

typedef struct session_reader {
  mn_session *session;
  int64_t batch, width;
  int32_t *tokens, *targets; /* [batch, width] */
  float *nll;                /* [batch, width] */
} session_reader;

static mn_status prepare_session(void *ctx, int64_t tokens, int64_t delay) {
  session_reader *r = ctx;
  const mn_limit limit = mn_session_limit(r->session);
  const int64_t fed = tokens - 1; /* nothing comes after the last */
  if (mn_session_room(r->session) != MN_LIMIT_NONE && mn_session_room(r->session) < fed)
    return mn_fail(MN_ERR_CONFIG,
                   "the longest vignette, with %" PRId64 " tokens between its lists, has %" PRId64 " tokens, and the model holds %" PRId64
                   " (%s%s%s); ask for shorter delays, %s, or let it forget the oldest tokens",
                   delay, tokens, limit.tokens, limit.where, *limit.where ? "." : "", limit.key, limit.remedy);
  const size_t n = (size_t)(r->batch * tokens);
  r->width = tokens;
  r->tokens = mn_alloc(n * sizeof *r->tokens);
  r->targets = mn_alloc(n * sizeof *r->targets);
  r->nll = mn_alloc(n * sizeof *r->nll);
  return r->tokens && r->targets && r->nll ? MN_OK : MN_ERR_MEMORY;
}

/* The session has `batch` rows; those beyond `rows`, and what lies behind a text, are fed zeros that nobody looks at. Token t says how
 * probable token t + 1 was. */
static mn_status read_session(void *ctx, const int32_t *ids, const int32_t *length, int64_t rows, int64_t n, double *nats) {
  session_reader *r = ctx;
  const int64_t fed = n - 1;
  for (int64_t b = 0; b < r->batch; b++) {
    for (int64_t t = 0; t < fed; t++) {
      const bool there = b < rows && t + 1 < length[b];
      r->tokens[b * fed + t] = there ? ids[b * n + t] : 0;
      r->targets[b * fed + t] = there ? ids[b * n + t + 1] : -1;
    }
  }
  MN_TRY(mn_session_reset(r->session));
  MN_TRY(mn_session_score(r->session, r->tokens, r->targets, fed, r->nll));
  for (int64_t b = 0; b < rows; b++)
    for (int64_t t = 0; t < fed; t++) nats[b * n + t + 1] = (double)r->nll[b * fed + t];
  return MN_OK;
}

mn_status mn_eval_verbatim(const mn_model *model, const mn_params *params, const mn_tokenizer *tok, const mn_verbatim_config *config,
                           const mn_verbatim_run *run, mn_verbatim_eval *out) {
  *out = (mn_verbatim_eval){0};
  if (!tok && model->config.vocab_size < MN_RECURRING_VOCAB)
    return mn_fail(
        MN_ERR_CONFIG,
        "without a tokenizer the lists are written in token ids 0 ... %d, but the model's vocab_size is %lld; train one on text, "
        "or on the task recurring",
        MN_RECURRING_VOCAB - 1, (long long)model->config.vocab_size);
  session_reader r = {.batch = run->batch > 0 ? run->batch : BATCH};
  const mn_session_config how = {.batch = r.batch,
                                 .prefill = run->prefill > 0 ? run->prefill : PREFILL,
                                 .compute = run->compute,
                                 .forget = run->forget,
                                 .passing = true};
  MN_TRY(mn_session_new(model, params, &how, &r.session));
  const mn_verbatim_reader reader = {&r, r.batch, read_session};
  mn_status status = evaluate(&reader, prepare_session, tok, config, run, out);
  if (status == MN_OK) out->state_bytes = mn_session_room_bytes(r.session) / (size_t)r.batch;
  mn_session_free(r.session);
  free(r.tokens);
  free(r.targets);
  free(r.nll);
  return status;
}
