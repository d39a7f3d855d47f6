/* sampler.c - see sampler.h. */
#include "run/sampler.h"

#include "base/finite.h"
#include "run/weights.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define S mn_sampling
const mn_field mn_sampling_fields[] = {
    MN_FIELD_FLOAT(S, temperature, 0.8, 0, 100, "spread of the draw; 0: always the likeliest token"),
    MN_FIELD_INT(S, top_k, 0, 0, 1 << 26, "draw from the k likeliest tokens; 0: from all"),
    MN_FIELD_FLOAT(S, top_p, 1, 0, 1, "draw from the smallest set of tokens with this probability; 1: from all"),
    MN_FIELD_FLOAT(S, min_p, 0, 0, 1, "leave out tokens below this fraction of the best one's probability"),
    MN_FIELD_FLOAT(S, repetition_penalty, 1, 0.01, 100, "makes recent tokens less likely; 1: off"),
    MN_FIELD_INT(S, repetition_window, 64, 0, 65536, "how many recent tokens the penalty looks at"),
    MN_FIELD_INT(S, seed, 1, 0, INT64_MAX, "of the draws"),
    MN_FIELD_END};
#undef S

typedef struct candidate {
  float logit;
  int32_t token;
} candidate;

struct mn_sampler {
  mn_sampling c;
  int64_t vocab_size, n_recent;
  uint64_t key;
  float *logits;  /* [vocab_size], as they count */
  float *weights; /* [vocab_size]                */
  double *sums;   /* of the weights, block by block */
  candidate *all;
  int32_t *recent; /* ring */
  bool *barred;    /* [vocab_size] ids that are never drawn; NULL: none */
  const uint64_t *only;
};

mn_status mn_sampler_new(const mn_sampling *c, int64_t vocab_size, mn_sampler **out) {
  *out = NULL;
  if (vocab_size < 1) return mn_fail(MN_ERR_ARG, "a sampler needs a vocabulary");
  mn_sampler *s = mn_calloc(1, sizeof *s);
  if (!s) return MN_ERR_MEMORY;
  *s = (mn_sampler){.c = *c, .vocab_size = vocab_size, .key = mn_random_key((uint64_t)c->seed, "sampler")};
  s->all = mn_alloc((size_t)vocab_size * sizeof *s->all);
  s->logits = mn_alloc((size_t)vocab_size * sizeof *s->logits);
  s->weights = mn_alloc((size_t)vocab_size * sizeof *s->weights);
  s->sums = mn_alloc((size_t)mn_weights_blocks(vocab_size) * sizeof *s->sums);
  s->recent = mn_alloc(((size_t)c->repetition_window + 1) * sizeof *s->recent);
  if (!s->all || !s->logits || !s->weights || !s->sums || !s->recent) {
    mn_sampler_free(s);
    return MN_ERR_MEMORY;
  }
  *out = s;
  return MN_OK;
}

void mn_sampler_free(mn_sampler *s) {
  if (!s) return;
  free(s->all);
  free(s->logits);
  free(s->weights);
  free(s->sums);
  free(s->recent);
  free(s->barred);
  free(s);
}

mn_status mn_sampler_keep_to(mn_sampler *s, const mn_tokenizer *tok) {
  bool *barred = mn_alloc((size_t)s->vocab_size * sizeof *barred), any = false;
  if (!barred) return MN_ERR_MEMORY;
  for (int64_t i = 0; i < s->vocab_size; i++) {
    size_t bytes;
    barred[i] = !mn_tokenizer_token(tok, (int32_t)i, &bytes);
    any = any || !barred[i];
  }
  free(s->barred);
  s->barred = barred;
  return any ? MN_OK : mn_fail(MN_ERR_CONFIG, "the tokenizer has no token for any of the model's %lld ids", (long long)s->vocab_size);
}

void mn_sampler_only(mn_sampler *s, const uint64_t *mask) { s->only = mask; }

void mn_sampler_note(mn_sampler *s, int32_t token) {
  if (s->c.repetition_window > 0) s->recent[s->n_recent++ % s->c.repetition_window] = token;
}

static int likelier_first(const void *x, const void *y) { /* ties: lower token first */
  const candidate *a = x, *b = y;
  if (a->logit != b->logit) return a->logit < b->logit ? 1 : -1;
  return a->token < b->token ? -1 : a->token > b->token;
}

static void penalise(mn_sampler *s) {
  int64_t n = s->n_recent < s->c.repetition_window ? s->n_recent : s->c.repetition_window;
  for (int64_t i = 0; i < n; i++) {
    bool seen = false; /* once per token, however often it occurred */
    for (int64_t j = 0; j < i && !seen; j++) seen = s->recent[j] == s->recent[i];
    if (seen || s->recent[i] < 0 || s->recent[i] >= s->vocab_size) continue;
    float *l = &s->logits[s->recent[i]];
    *l = (float)(*l > 0 ? *l / s->c.repetition_penalty : *l * s->c.repetition_penalty);
  }
}

/* ---- leaving out, before anything is sorted: a vocabulary is long ---- */
static void sink(candidate *heap, int64_t n, int64_t at) {
  for (int64_t child; (child = 2 * at + 1) < n; at = child) {
    if (child + 1 < n && likelier_first(&heap[child], &heap[child + 1]) < 0) child++;
    if (likelier_first(&heap[at], &heap[child]) >= 0) return;
    const candidate other = heap[at];
    heap[at] = heap[child], heap[child] = other;
  }
}

/* The k likeliest of n come to the front, in any order: a heap whose top is the least likely of those that are kept. */
static int64_t keep_top(candidate *all, int64_t n, int64_t k) {
  for (int64_t i = k / 2; i-- > 0;) sink(all, k, i);
  for (int64_t i = k; i < n; i++) {
    if (likelier_first(&all[i], &all[0]) > 0) continue;
    all[0] = all[i];
    sink(all, k, 0);
  }
  return k;
}

/* ---- a draw ---- */
/* What may be drawn as the model says it, all else with a chance of exactly 0. */
static mn_status take(mn_sampler *s, const float *logits) {
  const int64_t V = s->vocab_size, bad = mn_first_not_finite(MN_F32, logits, V);
  if (bad >= 0) return mn_fail(MN_ERR_NUMERIC, "the logit of token %lld is not a number", (long long)bad);
  memcpy(s->logits, logits, (size_t)V * sizeof *logits);
  for (int64_t i = 0; s->barred && i < V; i++)
    if (s->barred[i]) s->logits[i] = -INFINITY;
  for (int64_t w = 0; s->only && w < (V + 63) / 64; w++) {
    if (s->only[w] == UINT64_MAX) continue;
    for (int64_t i = 64 * w; i < V && i < 64 * w + 64; i++)
      if (!(s->only[w] >> (i % 64) & 1)) s->logits[i] = -INFINITY;
  }
  if (s->c.repetition_penalty != 1) penalise(s);
  return MN_OK;
}

/* The first n candidates are all that is left, the likeliest first. */
static void keep(mn_sampler *s, int64_t n) {
  qsort(s->all, (size_t)n, sizeof *s->all, likelier_first);
  for (int64_t i = 0; i < n; i++) s->logits[i] = s->all[i].logit;
}
static candidate one_of(const mn_sampler *s, bool chosen, int64_t i) { /* of all tokens, or of those that were kept */
  return chosen ? s->all[i] : (candidate){s->logits[i], (int32_t)i};
}

/* Where u falls, in [0, the sum of n weights). */
static int64_t at(const mn_sampler *s, int64_t n, double u) {
  int64_t i = 0, pick = n - 1;
  for (; i + MN_WEIGHTS_BLOCK < n && u >= s->sums[i / MN_WEIGHTS_BLOCK]; i += MN_WEIGHTS_BLOCK) u -= s->sums[i / MN_WEIGHTS_BLOCK];
  for (; i < n; i++) { /* a block's sum is rounded otherwise than what is taken from u: the next block may follow */
    if (s->weights[i] > 0) pick = i;
    if (u < s->weights[i]) break;
    u -= s->weights[i];
  }
  return pick;
}

mn_status mn_sampler_next(mn_sampler *s, int64_t stream, int64_t position, const float *logits, int32_t *token) {
  MN_TRY(take(s, logits));
  int64_t n = s->vocab_size;
  const int64_t best = mn_largest(s->logits, n);
  if (!isfinite(s->logits[best]))
    return mn_fail(MN_ERR_NUMERIC, s->logits[best] < 0 ? "no token may be drawn" : "the penalty makes logits infinite");
  if (s->c.temperature == 0) {
    *token = (int32_t)best;
    mn_sampler_note(s, *token);
    return MN_OK;
  }
  const float top = s->logits[best];
  const bool by_rank = s->c.top_k > 0 && s->c.top_k < n, by_share = s->c.top_p < 1;
  if (by_rank) {
    for (int64_t i = 0; i < n; i++) s->all[i] = one_of(s, false, i);
    n = keep_top(s->all, n, s->c.top_k);
    keep(s, n);
  }
  double sum = mn_weights(s->logits, n, top, s->c.temperature, s->c.min_p, s->weights, s->sums);
  if (by_share) {
    /* What has less than (1 - top_p) / n of the sum has, all n together, less than the 1 - top_p that is left out. */
    const double least = (1 - s->c.top_p) * sum / (double)n, wanted = s->c.top_p * sum;
    int64_t kept = 0;
    for (int64_t i = 0; i < n; i++)
      if (s->weights[i] > 0 && s->weights[i] >= least) s->all[kept++] = one_of(s, by_rank, i);
    keep(s, kept);
    mn_weights(s->logits, kept, top, s->c.temperature, s->c.min_p, s->weights, s->sums);
    sum = 0;
    for (n = 0; n < kept && (n == 0 || sum < wanted); n++) sum += s->weights[n];
  }
  const int64_t pick = at(s, n, mn_random_uniform(s->key, (uint64_t)stream, (uint64_t)position) * sum);
  *token = one_of(s, by_rank || by_share, pick).token;
  mn_sampler_note(s, *token);
  return MN_OK;
}
