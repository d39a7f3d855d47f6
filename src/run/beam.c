/* beam.c - see beam.h. */
#include "run/beam.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct word { /* beginnings share what they have in common: each word knows the one before it */
  int64_t before;     /* -1: it is the first */
  int32_t token;
} word;

typedef struct beam {   /* a beginning */
  int64_t last, length; /* its last word, -1: none; its tokens */
  double log_p;
  bool ended, dead; /* dead: there is no such beginning (yet) */
} beam;

typedef struct candidate { /* a beginning and what it goes on with; token -1: it has ended */
  int64_t from;
  int32_t token;
  double log_p, score;
} candidate;

typedef struct search {
  const mn_beam_config *c;
  int64_t n, V, said; /* tokens so far */
  bool *barred;       /* [V] ids that are never said */
  beam *now, *next;   /* [n * beams] */
  word *words;
  size_t n_words, room;
  candidate *best; /* [beams], best first */
  int64_t *rows;   /* [n * beams] */
  int32_t *feed;   /* [n * beams] */
} search;

static double score_of(const mn_beam_config *c, double log_p, int64_t tokens) {
  return log_p / pow((5 + (double)tokens) / 6, c->length_penalty);
}

static double log_sum_exp(const float *x, int64_t n) {
  double most = -INFINITY, sum = 0;
  for (int64_t i = 0; i < n; i++) most = fmax(most, (double)x[i]);
  for (int64_t i = 0; i < n; i++) sum += exp((double)x[i] - most);
  return most + log(sum);
}

/* Among the best so far? Of equals the earlier stays in front. */
static void offer(const search *s, int64_t *count, candidate x) {
  const int64_t K = s->c->beams;
  int64_t i = *count < K ? (*count)++ : K - 1;
  if (i == K - 1 && *count == K && s->best[i].from >= 0 && s->best[i].score >= x.score) return;
  for (; i > 0 && s->best[i - 1].score < x.score; i--) s->best[i] = s->best[i - 1];
  s->best[i] = x;
}

/* The best goings-on of the beginnings [first, first + beams). */
static mn_status choose(const search *s, int64_t first, const float *logits, int64_t *found) {
  int64_t count = 0;
  for (int64_t k = 0; k < s->c->beams; k++) s->best[k].from = -1;
  for (int64_t k = 0; k < s->c->beams; k++) {
    const beam *b = &s->now[first + k];
    const float *x = logits + (first + k) * s->V;
    if (b->dead) continue;
    if (b->ended) {
      offer(s, &count, (candidate){first + k, -1, b->log_p, score_of(s->c, b->log_p, b->length + 1)});
      continue;
    }
    for (int64_t t = 0; t < s->V; t++)
      if (!isfinite(x[t])) return mn_fail(MN_ERR_NUMERIC, "the logit of token %lld is not a number", (long long)t);
    const double all = log_sum_exp(x, s->V);
    for (int32_t t = 0; t < s->V; t++) {
      if (s->barred[t]) continue;
      const double log_p = b->log_p + (double)x[t] - all;
      offer(s, &count, (candidate){first + k, t, log_p, score_of(s->c, log_p, s->said + 1)});
    }
  }
  *found = count;
  return MN_OK;
}

static bool is_end(const mn_beam_config *c, int32_t token) {
  for (int i = 0; i < c->n_ends; i++)
    if (c->ends[i] == token) return true;
  return false;
}

static mn_status extend(search *s, const candidate *x, beam *out) {
  *out = s->now[x->from];
  out->log_p = x->log_p;
  out->ended = x->token < 0 || is_end(s->c, x->token);
  if (out->ended) return MN_OK;
  if (s->n_words == s->room) {
    const size_t room = 2 * s->room + 256;
    word *more = mn_realloc(s->words, room * sizeof *more);
    if (!more) return MN_ERR_MEMORY;
    s->words = more;
    s->room = room;
  }
  s->words[s->n_words] = (word){out->last, x->token};
  out->last = (int64_t)s->n_words++;
  out->length++;
  return MN_OK;
}

/* One token for every beginning; *going: how many have not ended. */
static mn_status step(search *s, const float *logits, int64_t *going) {
  const int64_t K = s->c->beams;
  *going = 0;
  for (int64_t i = 0; i < s->n; i++) {
    const int64_t first = i * K;
    int64_t count = 0;
    MN_TRY(choose(s, first, logits, &count));
    for (int64_t k = 0; k < K; k++) {
      beam *b = &s->next[first + k];
      s->rows[first + k] = first;
      s->feed[first + k] = 0; /* nobody looks at what follows */
      if (k >= count) {
        *b = (beam){.dead = true};
        continue;
      }
      MN_TRY(extend(s, &s->best[k], b));
      s->rows[first + k] = s->best[k].from;
      if (b->ended) continue;
      s->feed[first + k] = s->best[k].token;
      ++*going;
    }
  }
  beam *was = s->now;
  s->now = s->next;
  s->next = was;
  s->said++;
  return MN_OK;
}

static bool in_place(const search *s) { /* does every beginning go on where it is? */
  for (int64_t i = 0; i < s->n * s->c->beams; i++)
    if (s->rows[i] != i) return false;
  return true;
}

static mn_status run(search *s, mn_session *at, mn_session *spare, const float *logits) {
  int64_t going = s->n;
  while (going > 0 && s->said < s->c->max_tokens) {
    MN_TRY(mn_stop_check("searching for an answer"));
    MN_TRY(step(s, logits, &going));
    if (going == 0 || s->said == s->c->max_tokens) break;
    if (!in_place(s)) {
      MN_TRY(mn_session_select(spare, at, s->rows));
      mn_session *was = at;
      at = spare;
      spare = was;
    }
    MN_TRY(mn_session_feed(at, s->feed, 1, &logits));
  }
  return MN_OK;
}

/* The best of a group; one that ended is preferred to one that was cut. */
static mn_status take_best(const search *s, int64_t first, mn_beam_answer *out) {
  const beam *best = NULL;
  double most = -INFINITY;
  for (int64_t k = 0; k < s->c->beams; k++) {
    const beam *b = &s->now[first + k];
    const double score = b->dead ? -INFINITY : score_of(s->c, b->log_p, b->length + b->ended);
    if (b->dead || (best && (best->ended > b->ended || (best->ended == b->ended && score <= most)))) continue;
    best = b;
    most = score;
  }
  if (!best) return MN_OK;
  *out = (mn_beam_answer){.log_p = best->log_p, .ended = best->ended};
  for (int64_t i = 0; i < best->length; i++) MN_TRY(mn_ids_add(&out->tokens, 0));
  for (int64_t i = best->length, at = best->last; i-- > 0; at = s->words[at].before) out->tokens.data[i] = s->words[at].token;
  return MN_OK;
}

/* Only what the tokenizer has a token for is said: a model may have room for more, and its tokenizer may have holes. */
static mn_status bar(search *s) {
  bool any = !s->c->tokens;
  s->barred = mn_calloc((size_t)s->V, sizeof *s->barred);
  if (!s->barred) return MN_ERR_MEMORY;
  for (int64_t t = 0; t < s->V && s->c->tokens; t++) {
    s->barred[t] = !mn_tokenizer_says(s->c->tokens, (int32_t)t);
    any = any || !s->barred[t];
  }
  return any ? MN_OK : mn_fail(MN_ERR_CONFIG, "the tokenizer has no token for any of the model's %lld ids", (long long)s->V);
}

mn_status mn_beam_search(mn_session *session, mn_session *spare, const mn_beam_config *config, int64_t n, const float *logits,
                         mn_beam_answer *answers) {
  const int64_t K = config->beams, all = n * K, V = mn_session_vocab_size(session);
  if (K < 1 || n < 1 || config->max_tokens < 1) return mn_fail(MN_ERR_ARG, "a search needs an answer, a beam and a token at least");
  if (mn_session_batch(session) != all || (spare && mn_session_batch(spare) != all))
    return mn_fail(MN_ERR_ARG, "%lld answers by %lld beams need sessions of %lld rows", (long long)n, (long long)K, (long long)all);
  if (K > 1 && !spare) return mn_fail(MN_ERR_ARG, "several beams need a second session");
  search s = {.c = config, .n = n, .V = V};
  s.now = mn_calloc((size_t)all, sizeof *s.now);
  s.next = mn_calloc((size_t)all, sizeof *s.next);
  s.best = mn_calloc((size_t)K, sizeof *s.best);
  s.rows = mn_calloc((size_t)all, sizeof *s.rows);
  s.feed = mn_calloc((size_t)all, sizeof *s.feed);
  mn_status status = s.now && s.next && s.best && s.rows && s.feed ? bar(&s) : MN_ERR_MEMORY;
  for (int64_t i = 0; i < all && status == MN_OK; i++) s.now[i] = (beam){.last = -1, .dead = i % K > 0}; /* equal rows: one beginning */
  if (status == MN_OK) status = run(&s, session, spare, logits);
  for (int64_t i = 0; i < n && status == MN_OK; i++) status = take_best(&s, i * K, &answers[i]);
  free(s.barred);
  free(s.words);
  free(s.now);
  free(s.next);
  free(s.best);
  free(s.rows);
  free(s.feed);
  return status;
}

void mn_beam_answers_free(mn_beam_answer *answers, int64_t n) {
  for (int64_t i = 0; answers && i < n; i++) mn_ids_free(&answers[i].tokens);
}
