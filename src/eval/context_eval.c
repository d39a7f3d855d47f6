/* context_eval.c - see context_eval.h. */
#include "eval/context_eval.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { RESAMPLES = 1000 };

typedef struct work {
  const mn_corpus *corpus;
  int split;
  const mn_context_config *config;
  mn_session *session;
  int64_t text, places, batch; /* tokens of the text; places there are, and side by side */
  int32_t *window;             /* [longest + 1]: of one place */
  int32_t *before, *said;      /* [batch, longest - judged], [batch, judged] */
  int32_t *target;             /* [batch, judged] */
  float *nll;                  /* [batch, judged] */
  double *loss, *gain;         /* [n, places], [places]: nats a token at each place */
  int64_t bytes, done, all;
} work;

static int64_t longest_of(const mn_context_config *c) { return c->length[c->n - 1]; }

/* Judged tokens of two places do not meet. */
static int64_t places_of(const mn_context_config *c, int64_t text) {
  const int64_t room = text - longest_of(c) - 1, most = room < 0 ? 0 : room / c->judged + 1;
  return most < c->places ? most : c->places;
}

int64_t mn_context_tokens(const mn_corpus *corpus, int split, const mn_context_config *config) {
  int64_t sum = 0;
  for (int i = 0; i < config->n; i++) sum += config->length[i];
  return sum * places_of(config, mn_corpus_tokens(corpus, split));
}

/* The window of place p begins here; the first begins with the text, the last ends with it. */
static int64_t place_at(const work *w, int64_t p) {
  const int64_t room = w->text - longest_of(w->config) - 1;
  return w->places > 1 ? (int64_t)((double)room * (double)p / (double)(w->places - 1)) : room / 2;
}

/* Where a stream of `length` tokens begins whose window is place p's: all end at one token. */
static int64_t stream_at(const work *w, int64_t p, int64_t length) { return place_at(w, p) + longest_of(w->config) - length; }

/* Row b reads `length` tokens up to the end of place p's window, and one more is asked for only. */
static mn_status lay_out(work *w, int64_t p, int64_t b, int64_t length) {
  const int64_t judged = w->config->judged, context = length - judged;
  const int64_t got = mn_corpus_read(w->corpus, w->split, stream_at(w, p, length), length + 1, w->window);
  if (got < 0) return MN_ERR_IO;
  if (got != length + 1) return mn_fail(MN_ERR_INTERNAL, "a text of %" PRId64 " tokens ends before its place %" PRId64, w->text, p);
  memcpy(w->before + b * context, w->window, (size_t)context * sizeof *w->before);
  memcpy(w->said + b * judged, w->window + context, (size_t)judged * sizeof *w->said);
  memcpy(w->target + b * judged, w->window + context + 1, (size_t)judged * sizeof *w->target);
  return MN_OK;
}

/* Rows beyond the last place say it again, and nobody looks. */
static mn_status read_some(work *w, int i, int64_t from) {
  const int64_t judged = w->config->judged, length = w->config->length[i];
  const int64_t rows = w->places - from < w->batch ? w->places - from : w->batch;
  for (int64_t b = 0; b < w->batch; b++) MN_TRY(lay_out(w, b < rows ? from + b : w->places - 1, b, length));
  MN_TRY(mn_session_reset(w->session));
  if (length > judged) MN_TRY(mn_session_feed(w->session, w->before, length - judged, NULL));
  MN_TRY(mn_session_score(w->session, w->said, w->target, judged, w->nll));
  for (int64_t b = 0; b < rows; b++) {
    double sum = 0;
    for (int64_t t = 0; t < judged; t++) sum += (double)w->nll[b * judged + t];
    if (!isfinite(sum))
      return mn_fail(MN_ERR_NUMERIC,
                     "the model's output is not a number after some %" PRId64 " tokens of the text from its token %" PRId64 " on", length,
                     stream_at(w, from + b, length));
    w->loss[i * w->places + from + b] = sum / (double)judged;
    if (i == 0) w->bytes += mn_corpus_target_bytes(w->corpus, w->target + b * judged, judged); /* the same for all lengths */
  }
  w->done += rows * length;
  return MN_OK;
}

static mn_status summarise(work *w, int i, mn_context_eval *out) {
  const double *first = w->loss, *here = w->loss + i * w->places;
  mn_context_cell *cell = &out->cell[i];
  for (int64_t p = 0; p < w->places; p++) w->gain[p] = first[p] - here[p];
  MN_TRY(mn_bootstrap_mean(here, w->places, RESAMPLES, w->config->seed, &cell->loss));
  MN_TRY(mn_bootstrap_mean(w->gain, w->places, RESAMPLES, w->config->seed, &cell->gain));
  const double nats = cell->loss.value * (double)(w->places * w->config->judged);
  cell->bits_per_byte = w->bytes ? nats / (double)w->bytes / log(2) : (double)NAN;
  return MN_OK;
}

static mn_status make(work *w) {
  const int64_t longest = longest_of(w->config), judged = w->config->judged;
  const size_t B = (size_t)w->batch;
  w->window = mn_alloc((size_t)(longest + 1) * sizeof *w->window);
  w->before = mn_alloc(B * (size_t)(longest - judged) * sizeof *w->before);
  w->said = mn_alloc(B * (size_t)judged * sizeof *w->said);
  w->target = mn_alloc(B * (size_t)judged * sizeof *w->target);
  w->nll = mn_alloc(B * (size_t)judged * sizeof *w->nll);
  w->loss = mn_alloc((size_t)(w->config->n * w->places) * sizeof *w->loss);
  w->gain = mn_alloc((size_t)w->places * sizeof *w->gain);
  return w->window && w->before && w->said && w->target && w->nll && w->loss && w->gain ? MN_OK : MN_ERR_MEMORY;
}

/* The longest last: the state that is left is its. */
static mn_status read_all(work *w, mn_context_eval *out) {
  MN_TRY(make(w));
  for (int i = 0; i < w->config->n; i++)
    for (int64_t p = 0; p < w->places; p += w->batch) {
      if (mn_watch_stops(&w->config->watch) || !mn_watch_tell(&w->config->watch, NULL, w->done, w->all))
        return mn_fail(MN_ERR_CANCELLED, "interrupted after %" PRId64 " of %" PRId64 " tokens", w->done, w->all);
      MN_TRY(read_some(w, i, p));
    }
  out->state_bytes = mn_session_state_bytes(w->session) / (size_t)w->batch;
  out->forgot = mn_session_forgets(w->session);
  for (int i = 0; i < w->config->n; i++) MN_TRY(summarise(w, i, out));
  return MN_OK;
}

static mn_status check(const mn_corpus *corpus, int split, const mn_context_config *c) {
  if (c->n < 1 || c->n > MN_CONTEXTS || c->judged < 1 || c->places < 1 || c->batch < 1)
    return mn_fail(MN_ERR_ARG, "contexts: 1 to %d lengths, and at least one token judged, one place and one row", MN_CONTEXTS);
  for (int i = 0; i < c->n; i++)
    if (c->length[i] < c->judged || c->length[i] >= MN_POSITION_MAX || (i && c->length[i] <= c->length[i - 1]))
      return mn_fail(MN_ERR_CONFIG,
                     "a length of %" PRId64 " tokens: lengths rise, from at least the %" PRId64 " tokens that are judged to less than %d",
                     c->length[i], c->judged, MN_POSITION_MAX);
  if (mn_corpus_task(corpus)) return mn_fail(MN_ERR_CONFIG, "a past of many lengths is taken from a text, and this data is a task");
  if (mn_corpus_separate(corpus))
    return mn_fail(MN_ERR_CONFIG,
                   "each document of this data is alone, and none of them has a past of every length; give a text as one file");
  const int64_t text = mn_corpus_tokens(corpus, split);
  if (!places_of(c, text))
    return mn_fail(MN_ERR_CONFIG,
                   "the text has %" PRId64 " tokens; a length of %" PRId64 " needs one more than that: leave it out, or give a longer text",
                   text, longest_of(c));
  return MN_OK;
}

mn_status mn_eval_contexts(const mn_model *model, const mn_params *params, const mn_corpus *corpus, int split,
                           const mn_context_config *config, mn_context_eval *out) {
  *out = (mn_context_eval){0};
  MN_TRY(check(corpus, split, config));
  work w = {.corpus = corpus, .split = split, .config = config, .text = mn_corpus_tokens(corpus, split)};
  w.places = out->places = places_of(config, w.text);
  w.batch = config->batch < w.places ? config->batch : w.places;
  w.all = mn_context_tokens(corpus, split, config);
  const mn_session_config how = {
      .batch = w.batch, .prefill = config->prefill, .compute = config->compute, .forget = config->forget, .passing = true};
  MN_TRY(mn_session_new(model, params, &how, &w.session));
  mn_status status = mn_session_fits(w.session, longest_of(config));
  if (status == MN_OK) status = read_all(&w, out);
  mn_session_free(w.session);
  free(w.window);
  free(w.before);
  free(w.said);
  free(w.target);
  free(w.nll);
  free(w.loss);
  free(w.gain);
  return status;
}
