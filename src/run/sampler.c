/* sampler.c - see sampler.h. */
#include "run/sampler.h"

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
  candidate *all;
  double *p;
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
  s->p = mn_alloc((size_t)vocab_size * sizeof *s->p);
  s->recent = mn_alloc(((size_t)c->repetition_window + 1) * sizeof *s->recent);
  if (!s->all || !s->p || !s->recent) {
    mn_sampler_free(s);
    return MN_ERR_MEMORY;
  }
  *out = s;
  return MN_OK;
}

void mn_sampler_free(mn_sampler *s) {
  if (!s) return;
  free(s->all);
  free(s->p);
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

static bool may_be_drawn(const mn_sampler *s, int64_t i) {
  return !(s->barred && s->barred[i]) && (!s->only || (s->only[i / 64] >> (i % 64) & 1));
}

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
    float *l = &s->all[s->recent[i]].logit;
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

/* Those that min_p leaves, *sum of them, and of these those that may be among the likeliest that reach top_p together: what has less than
 * (1 - top_p) / n of the sum has, all n together, less than the 1 - top_p that is left out. */
static int64_t keep_likely(mn_sampler *s, int64_t n, float top, double *sum) {
  int64_t left = 0, kept = 0;
  *sum = 0;
  for (int64_t i = 0; i < n; i++) {
    const double p = exp(((double)s->all[i].logit - (double)top) / s->c.temperature);
    if (p < s->c.min_p) continue; /* the best one has 1 here */
    s->all[left] = s->all[i];
    *sum += s->p[left++] = p;
  }
  for (int64_t i = 0; i < left; i++)
    if (s->p[i] >= (1 - s->c.top_p) * *sum / (double)left) s->all[kept++] = s->all[i];
  return kept;
}

mn_status mn_sampler_next(mn_sampler *s, int64_t stream, int64_t position, const float *logits, int32_t *token) {
  int64_t n = s->vocab_size, best = 0;
  for (int64_t i = 0; i < n; i++) {
    if (!isfinite(logits[i])) return mn_fail(MN_ERR_NUMERIC, "the logit of token %lld is not a number", (long long)i);
    s->all[i] = (candidate){may_be_drawn(s, i) ? logits[i] : -INFINITY, (int32_t)i}; /* a chance of exactly 0 */
  }
  if (s->c.repetition_penalty != 1) penalise(s);
  for (int64_t i = 1; i < n; i++)
    if (s->all[i].logit > s->all[best].logit) best = i;
  if (s->c.temperature == 0) {
    *token = (int32_t)best;
    mn_sampler_note(s, *token);
    return MN_OK;
  }
  float top = s->all[best].logit;
  double sum = 0, all = 0;
  if (s->c.top_k > 0 && s->c.top_k < n) n = keep_top(s->all, n, s->c.top_k);
  if (s->c.top_p < 1) n = keep_likely(s, n, top, &all);
  if (s->c.top_k > 0 || s->c.top_p < 1) qsort(s->all, (size_t)n, sizeof *s->all, likelier_first);
  for (int64_t i = 0; i < n; i++) sum += s->p[i] = exp(((double)s->all[i].logit - (double)top) / s->c.temperature);
  if (s->c.top_p < 1) sum = all;
  else if (s->c.min_p > 0)
    for (int64_t i = 0; i < n; i++)
      if (s->p[i] < s->c.min_p) sum -= s->p[i], s->p[i] = 0; /* the best one has 1 here */
  if (s->c.top_p < 1) {
    double reached = 0;
    int64_t k = 0;
    while (k < n && reached < s->c.top_p * sum) reached += s->p[k++];
    n = k > 0 ? k : 1;
    sum = k > 0 ? reached : s->p[0];
  }
  double u = mn_random_uniform(s->key, (uint64_t)stream, (uint64_t)position) * sum;
  int64_t pick = n - 1;
  for (int64_t i = 0; i < n; i++) {
    if (s->p[i] > 0) pick = i;
    if (u < s->p[i]) break;
    u -= s->p[i];
  }
  *token = s->all[pick].token;
  mn_sampler_note(s, *token);
  return MN_OK;
}
