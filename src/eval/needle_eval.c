/* needle_eval.c - see needle_eval.h. The stream is fed in segments that end at multiples of the segment's length and at
 * queries, so that where it is cut does not depend on restarts: the same stream gives the same bits with and without. */
#include "eval/needle_eval.h"

#include "base/file.h"
#include "run/meter.h"
#include "eval/task_eval.h"
#include "task/prose.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BESIDE = 16 /* segments for which the old session runs beside the restored one */ };

#define S mn_needle_eval_config
const mn_field mn_needle_eval_fields[] = {
    MN_FIELD_INT(S, tokens, 10000000, 2048, INT32_MAX, "tokens of the stream"),
    MN_FIELD_INT(S, needles, 64, 1, 4096, "needles; raised so that every octave of distances has four"),
    MN_FIELD_INT(S, min_log2, 8, 7, 39, "the shortest distance between needle and query is 2 to this"),
    MN_FIELD_INT(S, max_log2, 0, 0, 40, "the longest is 2 to this; 0: what fits into the tokens, at most 23"),
    MN_FIELD_FLOAT(S, updates, 0.25, 0, 1, "fraction of keys written twice; the last value counts"),
    MN_FIELD_FLOAT(S, unknown, 0.10, 0, 0.9, "fraction of keys asked for that were never written"),
    MN_FIELD_FLOAT(S, distractors, 0.5, 0, 1, "fraction of needles with another of the same first word in between"),
    MN_FIELD_BOOL(S, loop, false, "background: a loop of 25 tokens instead of Markov prose"),
    MN_FIELD_INT(S, seed, 1, 0, INT64_MAX, "of the stream"),
    MN_FIELD_END};
#undef S

static mn_status open_stream(const mn_needle_eval_config *c, mn_needle_stream_config *made, mn_needle_stream **out) {
  mn_needle_stream_defaults(made);
  *made = (mn_needle_stream_config){.seed = (uint64_t)c->seed,
                                    .length = c->tokens,
                                    .needles = (int)c->needles,
                                    .min_log2 = (int)c->min_log2,
                                    .max_log2 = (int)c->max_log2,
                                    .updates = c->updates,
                                    .unknown = c->unknown,
                                    .distractors = c->distractors,
                                    .loop = c->loop};
  if (c->max_log2) return mn_needle_stream_open(made, out);
  mn_status status = MN_OK;
  for (made->max_log2 = 23; made->max_log2 > made->min_log2; made->max_log2--)
    if ((status = mn_needle_stream_open(made, out)) != MN_ERR_CONFIG) return status;
  return status != MN_OK ? status : mn_fail(MN_ERR_CONFIG, "stream: min_log2 = %d leaves no distance below 2^23", made->min_log2);
}

/* ---- a session as a reader ---- */
typedef struct session_reader {
  const mn_model *model;
  const mn_params *params;
  mn_session_config config;
  const mn_needle_eval_run *run;
  mn_needle_eval *out;
  char fingerprint[33];
  mn_session *stream, *asked, *old; /* old: what the restored stream is compared with */
  int64_t old_until, tokens;        /* tokens: of the whole stream */
  float *old_nll;
} session_reader;

/* Everything is compiled, so that the stream runs without asking for memory. */
static mn_status open_session(session_reader *r, mn_session **out) {
  MN_TRY(mn_session_new(r->model, r->params, &r->config, out));
  MN_TRY(mn_session_fits(*out, r->tokens));
  return mn_session_warm_up(*out, true, r->tokens);
}

static mn_status read_session(void *ctx, const int32_t *tokens, const int32_t *targets, int64_t n, float *nll) {
  session_reader *r = ctx;
  MN_TRY(mn_session_score(r->stream, tokens, targets, n, nll));
  if (!r->old) return MN_OK;
  MN_TRY(mn_session_score(r->old, tokens, targets, n, r->old_nll));
  if (memcmp(nll, r->old_nll, (size_t)n * sizeof *nll) != 0) r->out->restart_equal = false;
  r->out->restart_checked += n;
  return MN_OK;
}

static mn_status answer_session(void *ctx, int32_t token, int n, int32_t *answer, double *confidence) {
  session_reader *r = ctx;
  const float *logits;
  int64_t vocab_size = mn_session_vocab_size(r->stream);
  MN_TRY(mn_session_copy(r->asked, r->stream));
  for (int i = 0; i < n; i++) {
    MN_TRY(mn_session_feed(r->asked, i ? &answer[i - 1] : &token, 1, &logits));
    int64_t best = mn_greedy(logits, vocab_size, NULL);
    if (best < 0)
      return mn_fail(MN_ERR_NUMERIC, "the model's output is not a number after %lld tokens", (long long)mn_session_position(r->asked));
    answer[i] = (int32_t)best;
    if (i > 0) continue;
    double sum = 0;
    for (int64_t k = 0; k < vocab_size; k++) sum += exp((double)logits[k] - (double)logits[best]);
    *confidence = 1 / sum;
  }
  return MN_OK;
}

/* The crash test: what is left of the session is its file. */
static mn_status restart(session_reader *r, int64_t position) {
  mn_session *fresh = NULL;
  MN_TRY(mn_session_save(r->stream, r->run->scratch));
  mn_status status = open_session(r, &fresh);
  if (status == MN_OK) status = mn_session_load(fresh, r->run->scratch);
  mn_file_remove(r->run->scratch);
  if (status != MN_OK) {
    mn_session_free(fresh);
    return status;
  }
  r->old = r->stream;
  r->stream = fresh;
  r->old_until = position + BESIDE * r->config.prefill;
  r->out->restarted_at = position;
  r->out->restart_equal = mn_session_position(fresh) == position;
  return MN_OK;
}

static mn_status boundary_session(void *ctx, int64_t position) {
  session_reader *r = ctx;
  if (r->old && position >= r->old_until) {
    mn_session_free(r->old);
    r->old = NULL;
    if (r->out->resident_from) { /* two sessions side by side are no growth of one */
      r->out->resident_from = position;
      r->out->resident_start = mn_resident_bytes();
    }
  }
  return r->run->restart && r->out->restarted_at < 0 && position >= r->run->restart_at ? restart(r, position) : MN_OK;
}

mn_status mn_eval_needles(const mn_model *model, const mn_params *params, const mn_needle_eval_config *config,
                          const mn_needle_eval_run *run, mn_needle_eval *out) {
  if (model->config.vocab_size < MN_PROSE_VOCAB)
    return mn_fail(MN_ERR_CONFIG,
                   "the stream's token ids are 0 ... %d, but the model's vocab_size is %lld; train one on the task niah_mini",
                   MN_PROSE_VOCAB - 1, (long long)model->config.vocab_size);
  if (run->restart && !run->scratch) return mn_fail(MN_ERR_ARG, "a restart needs a path for the session file");
  session_reader r = {.model = model, .params = params, .run = run, .out = out, .tokens = config->tokens};
  r.config = (mn_session_config){.batch = 1,
                                 .prefill = run->segment > 0 ? run->segment : 256,
                                 .compute = run->compute,
                                 .forget = run->forget,
                                 .passing = true,
                                 .fingerprint = r.fingerprint};
  r.old_nll = mn_alloc((size_t)r.config.prefill * sizeof *r.old_nll);
  mn_status status = r.old_nll ? mn_model_fingerprint(model, params, r.fingerprint) : MN_ERR_MEMORY;
  mn_session_config one = r.config;
  one.prefill = 1;
  const float *logits;
  if (status == MN_OK) status = open_session(&r, &r.stream);
  if (status == MN_OK) status = mn_session_new(model, params, &one, &r.asked);
  if (status == MN_OK) status = mn_session_feed(r.asked, &(int32_t){0}, 1, &logits); /* compiled before memory is measured */
  mn_needle_reader reader = {&r, read_session, answer_session, boundary_session};
  if (status == MN_OK) status = mn_eval_needles_with(&reader, config, run, out);
  if (r.stream) out->state_bytes = mn_session_room_bytes(r.stream);
  mn_session_free(r.stream);
  mn_session_free(r.asked);
  mn_session_free(r.old);
  free(r.old_nll);
  return status;
}

/* ---- the protocol ---- */
typedef struct protocol {
  const mn_needle_reader *reader;
  const mn_needle_eval_run *run;
  mn_needle_stream *stream;
  mn_needle_eval *out;
  int64_t segment, asked, right;
  int32_t *tokens; /* [segment + 1] */
  float *nll;      /* [segment]     */
  double sure[2];  /* sums of confidences: keys that were written, keys that were not */
} protocol;

static void count(mn_needle_octave *o, int right, int n) {
  o->asked++;
  o->digits_right += right;
  o->right += right == n;
}

static mn_status ask(protocol *p, const mn_needle_query *q) {
  mn_needle_eval *e = p->out;
  int32_t token, answer[MN_STREAM_VALUE] = {0};
  double confidence = 0;
  mn_needle_stream_read(p->stream, q->position, 1, &token);
  MN_TRY(p->reader->answer(p->reader->ctx, token, q->n_value, answer, &confidence));
  e->digest = mn_hash_bytes(answer, (size_t)q->n_value * sizeof *answer, e->digest);
  int right = 0;
  for (int i = 0; i < q->n_value; i++) right += answer[i] == q->value[i];
  p->sure[q->unknown] += confidence;
  p->asked++;
  p->right += right == q->n_value;
  if (q->unknown) {
    count(&e->unknown, right, 1);
    return MN_OK;
  }
  count(&e->octave[q->octave], right, q->n_value);
  count(&e->all, right, q->n_value);
  if (q->updated) count(&e->updated, right, q->n_value);
  if (q->distractor) count(&e->distractor, right, q->n_value);
  return MN_OK;
}

static mn_status feed(protocol *p, int64_t at, int64_t n) {
  mn_needle_eval *e = p->out;
  int64_t got = mn_needle_stream_read(p->stream, at, n + 1, p->tokens);
  if (got == n) p->tokens[n] = MN_IGNORE; /* nothing follows the last token */
  int part = (int)(at * 10 / e->tokens);
  double began = mn_now();
  MN_TRY(p->reader->read(p->reader->ctx, p->tokens, p->tokens + 1, n, p->nll));
  mn_needle_tenth *t = &e->tenth[part < 9 ? part : 9];
  t->seconds += mn_now() - began;
  if (t->end == 0) t->begin = at;
  t->end = at + n;
  e->digest = mn_hash_bytes(p->nll, (size_t)n * sizeof *p->nll, e->digest);
  for (int64_t i = 0; i < got - 1; i++) {
    if (!isfinite(p->nll[i])) return mn_fail(MN_ERR_NUMERIC, "the model's output is not a number after %lld tokens", (long long)(at + i));
    if (mn_needle_stream_is_planted(p->stream, at + i + 1)) continue;
    t->bits += (double)p->nll[i];
    t->scored++;
  }
  return MN_OK;
}

static mn_status pass(protocol *p) {
  mn_needle_eval *e = p->out;
  int n_queries, next = 0;
  const mn_needle_query *q = mn_needle_stream_queries(p->stream, &n_queries);
  int64_t settled = e->tokens / 10 < 1000000 ? e->tokens / 10 : 1000000;
  bool goes_on = true;
  for (int64_t at = 0; at < e->tokens;) {
    if (!goes_on || mn_watch_stops(&p->run->watch))
      return mn_fail(MN_ERR_CANCELLED, "interrupted after %lld of %lld tokens", (long long)at, (long long)e->tokens);
    if (at % p->segment == 0 && p->reader->boundary) MN_TRY(p->reader->boundary(p->reader->ctx, at));
    if (!e->resident_from && at >= settled) {
      e->resident_from = at;
      e->resident_start = mn_resident_bytes();
    }
    for (; next < n_queries && q[next].position == at; next++) MN_TRY(ask(p, &q[next]));
    int64_t end = (at / p->segment + 1) * p->segment;
    if (end > e->tokens) end = e->tokens;
    if (next < n_queries && q[next].position < end) end = q[next].position;
    MN_TRY(feed(p, at, end - at));
    at = end;
    char found[64];
    snprintf(found, sizeof found, "%lld of %lld needles", (long long)p->right, (long long)p->asked);
    goes_on = mn_watch_tell(&p->run->watch, found, at, e->tokens);
  }
  e->resident_end = mn_resident_bytes();
  return MN_OK;
}

static void interval(mn_needle_octave *o) { mn_wilson_interval(o->right, o->asked, &o->low, &o->high); }

static double half_life(const mn_needle_eval *e) {
  double before = NAN, before_log2 = 0;
  for (int o = 0; o < MN_OCTAVES; o++) {
    const mn_needle_octave *c = &e->octave[o];
    if (!c->asked) continue;
    double acc = (double)c->right / (double)c->asked, middle = o + 0.5;
    if (acc < 0.5) return isnan(before) ? 0 : exp2(before_log2 + (middle - before_log2) * (before - 0.5) / (before - acc));
    before = acc;
    before_log2 = middle;
  }
  return INFINITY;
}

static void summarise(protocol *p) {
  mn_needle_eval *e = p->out;
  int64_t scored = 0;
  for (int i = 0; i < 10; i++) {
    mn_needle_tenth *t = &e->tenth[i];
    e->seconds += t->seconds;
    e->bits += t->bits;
    scored += t->scored;
    t->bits = t->scored ? t->bits / (double)t->scored / log(2) : (double)NAN;
  }
  e->bits = scored ? e->bits / (double)scored / log(2) : (double)NAN;
  for (int o = 0; o < MN_OCTAVES; o++) interval(&e->octave[o]);
  mn_needle_octave *others[] = {&e->all, &e->updated, &e->distractor, &e->unknown};
  for (int i = 0; i < 4; i++) interval(others[i]);
  e->half_life = half_life(e);
  e->known_confidence = e->all.asked ? p->sure[0] / (double)e->all.asked : (double)NAN;
  e->unknown_confidence = e->unknown.asked ? p->sure[1] / (double)e->unknown.asked : (double)NAN;
}

mn_status mn_eval_needles_with(const mn_needle_reader *reader, const mn_needle_eval_config *config, const mn_needle_eval_run *run,
                               mn_needle_eval *out) {
  *out = (mn_needle_eval){.tokens = config->tokens, .restarted_at = -1};
  protocol p = {.reader = reader, .run = run, .out = out, .segment = run->segment > 0 ? run->segment : 256};
  MN_TRY(open_stream(config, &out->stream, &p.stream));
  p.tokens = mn_alloc((size_t)(p.segment + 1) * sizeof *p.tokens);
  p.nll = mn_alloc((size_t)p.segment * sizeof *p.nll);
  mn_status status = p.tokens && p.nll ? pass(&p) : MN_ERR_MEMORY;
  if (status == MN_OK) summarise(&p);
  mn_needle_stream_close(p.stream);
  free(p.tokens);
  free(p.nll);
  return status;
}
