/* voice.c - see voice.h. */
#define _GNU_SOURCE /* memmem */
#include "serve/voice.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct mn_voice {
  mn_manner c;
  mn_sampler *sampler;
  mn_decoder decoder;
  int64_t vocab_size, number, count;
  int32_t *counted; /* [vocab_size] how often the answer holds each; NULL: nobody asks */
  mn_ids distinct;  /* those that it holds, as far as they are counted */
  mn_text held;     /* text that may turn out to be the beginning of a stop */
  mn_text text;     /* of the last step */
  mn_said said;
  bool ended;     /* by a token */
  int32_t state;  /* of the machine */
  uint64_t *mask; /* [vocab_size / 64] where ends may come, too */
};

mn_status mn_voice_new(const mn_manner *manner, const mn_tokenizer *tok, int64_t vocab_size, int64_t i, mn_voice **out) {
  *out = NULL;
  mn_voice *v = mn_calloc(1, sizeof *v);
  if (!v) return MN_ERR_MEMORY;
  *v = (mn_voice){.c = *manner, .decoder = {.tok = tok, .skip_special = true}, .vocab_size = vocab_size, .number = i, .state = -1};
  mn_status status = mn_sampler_new(&manner->sampling, vocab_size, &v->sampler);
  if (status == MN_OK && manner->has) mn_sampler_keep_to_tokens(v->sampler, manner->has);
  else if (status == MN_OK) status = mn_sampler_keep_to(v->sampler, tok);
  if (status == MN_OK && (manner->presence_penalty != 0 || manner->frequency_penalty != 0)) {
    v->counted = mn_calloc((size_t)vocab_size, sizeof *v->counted);
    if (!v->counted) status = MN_ERR_MEMORY;
  }
  if (status == MN_OK && manner->machine) {
    mn_machine_hold(manner->machine, v->state = mn_machine_begin(manner->machine));
    v->mask = mn_alloc((size_t)(vocab_size + 63) / 64 * sizeof *v->mask);
    if (!v->mask) status = MN_ERR_MEMORY;
  }
  if (status != MN_OK) mn_voice_free(v);
  else *out = v;
  return status;
}

void mn_voice_free(mn_voice *v) {
  if (!v) return;
  if (v->c.machine) mn_machine_leave(v->c.machine, v->state);
  mn_sampler_free(v->sampler);
  mn_text_free(&v->held);
  mn_text_free(&v->text);
  mn_ids_free(&v->distinct);
  free(v->counted);
  free(v->mask);
  free(v);
}

void mn_voice_hear(mn_voice *v, const int32_t *prompt, int64_t n) {
  const int64_t window = v->c.sampling.repetition_window;
  for (int64_t i = n > window ? n - window : 0; i < n; i++) mn_sampler_note(v->sampler, prompt[i]);
}

/* ---- drawing ---- */
/* The logits as the request wants them, in `room` where it wants anything. */
static mn_status lean(const mn_voice *v, mn_sampler_room *room, const float **logits) {
  if (!v->c.n_bias && !v->distinct.len) return MN_OK;
  float *to = mn_sampler_room_logits(room);
  if (!to) return MN_ERR_MEMORY;
  memcpy(to, *logits, (size_t)v->vocab_size * sizeof *to);
  for (int i = 0; i < v->c.n_bias; i++) to[v->c.bias[i].token] += (float)v->c.bias[i].bias;
  for (size_t i = 0; i < v->distinct.len; i++) {
    const int32_t token = v->distinct.data[i];
    to[token] -= (float)(v->c.presence_penalty + v->c.frequency_penalty * v->counted[token]);
  }
  *logits = to;
  return MN_OK;
}

/* The tokens that what must be said allows next. */
static mn_status allow(mn_voice *v) {
  const mn_manner *c = &v->c;
  const size_t n = (size_t)(v->vocab_size + 63) / 64;
  const uint64_t *mask = mn_machine_mask(c->machine, v->state, c->lexicon);
  uint64_t any = 0;
  if (!mask) return mn_machine_status(c->machine);
  memcpy(v->mask, mask, n * sizeof *mask);
  for (int i = 0; i < c->n_ends && mn_machine_whole(c->machine, v->state); i++)
    if (c->ends[i] >= 0 && c->ends[i] < v->vocab_size) v->mask[c->ends[i] / 64] |= (uint64_t)1 << (c->ends[i] % 64);
  for (size_t i = 0; i < n; i++) any |= v->mask[i];
  mn_sampler_only(v->sampler, v->mask);
  return any ? MN_OK : mn_fail(MN_ERR_CONFIG, "no token of the vocabulary goes on with what the grammar wants next");
}

/* Is what must be said whole with this token? */
static bool completes(mn_voice *v, int32_t token) {
  size_t n;
  const char *bytes = mn_tokenizer_token(v->decoder.tok, token, &n);
  const int32_t from = v->state;
  for (size_t i = 0; bytes && i < n; i++) v->state = mn_machine_next(v->c.machine, v->state, (unsigned char)bytes[i]);
  mn_machine_hold(v->c.machine, v->state), mn_machine_leave(v->c.machine, from);
  return mn_machine_whole(v->c.machine, v->state) && (!v->c.n_ends || !mn_machine_goes_on(v->c.machine, v->state));
}

void mn_said_of(const float *logits, int64_t vocab_size, int32_t token, int most, mn_said *s) {
  double best = logits[0], sum = 0;
  for (int64_t i = 1; i < vocab_size; i++) best = logits[i] > best ? logits[i] : best;
  for (int64_t i = 0; i < vocab_size; i++) sum += exp((double)logits[i] - best);
  const double all = best + log(sum);
  *s = (mn_said){.token = token, .log_p = (double)logits[token] - all};
  for (int64_t i = 0; i < vocab_size && most > 0; i++) {
    const double p = (double)logits[i] - all;
    int at = s->n_top;
    if (at == most && p <= s->top_log_p[at - 1]) continue; /* of equals the first */
    if (at < most) s->n_top++;
    else at--;
    for (; at > 0 && s->top_log_p[at - 1] < p; at--) s->top[at] = s->top[at - 1], s->top_log_p[at] = s->top_log_p[at - 1];
    s->top[at] = (int32_t)i, s->top_log_p[at] = p;
  }
}

/* ---- the text ---- */
/* Where the first stop begins in held; held.len: nowhere. */
static size_t find_stop(const mn_voice *v) {
  size_t first = v->held.len;
  for (int i = 0; i < v->c.n_stops; i++) {
    const size_t n = strlen(v->c.stops[i]);
    const char *at = n && v->held.len >= n ? memmem(v->held.data, v->held.len, v->c.stops[i], n) : NULL;
    if (at && (size_t)(at - v->held.data) < first) first = (size_t)(at - v->held.data);
  }
  return first;
}

/* How many bytes at the end of held may be the beginning of a stop. */
static size_t may_be_stop(const mn_voice *v) {
  size_t most = 0;
  for (int i = 0; i < v->c.n_stops; i++) {
    const size_t n = strlen(v->c.stops[i]);
    for (size_t k = n ? n - 1 : 0; k > most; k--)
      if (k <= v->held.len && !memcmp(v->held.data + v->held.len - k, v->c.stops[i], k)) most = k;
  }
  return most;
}

/* The first n bytes of what is held become text. */
static void release(mn_voice *v, size_t n) {
  mn_text_add_bytes(&v->text, v->held.data, n);
  if (!n) return;
  memmove(v->held.data, v->held.data + n, v->held.len - n);
  v->held.len -= n;
}

static void empty(mn_text *t) { t->len = 0; }

static mn_status finish(mn_voice *v) { /* no token comes any more */
  MN_TRY(mn_decoder_finish(&v->decoder, &v->held));
  if (v->held.len) release(v, find_stop(v));
  empty(&v->held);
  return mn_text_status(&v->text);
}

mn_status mn_voice_cut(mn_voice *v) {
  empty(&v->text);
  return finish(v);
}

static bool ends(const mn_voice *v, int32_t token) {
  for (int i = 0; i < v->c.n_ends; i++)
    if (v->c.ends[i] == token) return true;
  return false;
}

static mn_status hear(mn_voice *v, int32_t token, mn_ending *ending) {
  empty(&v->text);
  if (ends(v, token)) {
    *ending = MN_END_STOP;
    v->ended = true;
    return finish(v);
  }
  MN_TRY(mn_decoder_push(&v->decoder, token, &v->held));
  MN_TRY(mn_text_status(&v->held));
  const size_t stop = find_stop(v);
  if (stop < v->held.len) {
    *ending = MN_END_STOP;
    release(v, stop);
    empty(&v->held);
    return mn_text_status(&v->text);
  }
  const bool whole = v->c.machine && completes(v, token);
  if (whole || v->count >= v->c.most) {
    *ending = whole ? MN_END_STOP : MN_END_LENGTH;
    return finish(v);
  }
  *ending = MN_END_NOT_YET;
  if (v->held.len) release(v, v->held.len - may_be_stop(v));
  return mn_text_status(&v->text);
}

mn_status mn_voice_next(mn_voice *v, int64_t position, const float *logits, mn_sampler_room *room, int32_t *token, mn_ending *ending) {
  const float *leaning = logits;
  if (v->c.machine) MN_TRY(allow(v));
  MN_TRY(lean(v, room, &leaning));
  mn_sampler_use(v->sampler, room);
  MN_TRY(mn_sampler_next(v->sampler, v->number, position, leaning, token));
  v->count++;
  if (v->counted && v->counted[*token]++ == 0) MN_TRY(mn_ids_add(&v->distinct, *token));
  if (v->c.top >= 0) mn_said_of(logits, v->vocab_size, *token, v->c.top, &v->said);
  return hear(v, *token, ending);
}

const char *mn_voice_text(const mn_voice *v, size_t *n) {
  *n = v->text.len;
  return v->text.data ? v->text.data : "";
}
const mn_said *mn_voice_said(const mn_voice *v) { return v->c.top >= 0 && !v->ended ? &v->said : NULL; }
int64_t mn_voice_count(const mn_voice *v) { return v->count; }
