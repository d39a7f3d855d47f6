/* sampler.c - see sampler.h. A vocabulary is long, and it is gone through once for each token of each stream: once for its largest, once for
 * the sum of weights, block by block, and of the block that the draw falls into once more. Nothing of its length is written, unless tokens are
 * left out by rank or share. */
#include "run/sampler.h"

#include "backend/cpu/isa/weights.h"
#include "base/finite.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = MN_WEIGHTS_BLOCK, WORDS = BLOCK / 64 };

typedef struct candidate {
  float logit;
  int32_t token;
} candidate;

struct mn_sampler_room {
  int64_t vocab_size;
  float *peaks;            /* of blocks */
  double *sums;            /* of their weights */
  float *logits, *weights; /* [vocab_size]; NULL: nobody has asked yet */
  candidate *all;          /* the same */
};

struct mn_sampler {
  mn_sampling c;
  int64_t vocab_size, n_recent;
  uint64_t key;
  const mn_weights_vec *vec;
  mn_sampler_room *own;  /* NULL: none was needed yet */
  mn_sampler_room *room; /* borrowed; NULL: its own */
  int32_t *recent;       /* ring */
  uint64_t *kept;        /* its own mask of what the tokenizer has */
  const uint64_t *has;   /* that, or a borrowed one; NULL: all */
  const uint64_t *only;
};

/* ---- memory ---- */
mn_status mn_sampler_room_new(int64_t vocab_size, mn_sampler_room **out) {
  *out = NULL;
  mn_sampler_room *r = mn_calloc(1, sizeof *r);
  if (!r) return MN_ERR_MEMORY;
  r->vocab_size = vocab_size;
  r->peaks = mn_alloc((size_t)mn_weights_blocks(vocab_size) * sizeof *r->peaks);
  r->sums = mn_alloc((size_t)mn_weights_blocks(vocab_size) * sizeof *r->sums);
  if (r->peaks && r->sums) {
    *out = r;
    return MN_OK;
  }
  mn_sampler_room_free(r);
  return MN_ERR_MEMORY;
}

void mn_sampler_room_free(mn_sampler_room *r) {
  if (!r) return;
  free(r->peaks);
  free(r->sums);
  free(r->logits);
  free(r->weights);
  free(r->all);
  free(r);
}

float *mn_sampler_room_logits(mn_sampler_room *r) {
  if (!r->logits) r->logits = mn_alloc((size_t)r->vocab_size * sizeof *r->logits);
  return r->logits;
}
static float *room_weights(mn_sampler_room *r) {
  if (!r->weights) r->weights = mn_alloc((size_t)r->vocab_size * sizeof *r->weights);
  return r->weights;
}
static candidate *room_candidates(mn_sampler_room *r) {
  if (!r->all) r->all = mn_alloc((size_t)r->vocab_size * sizeof *r->all);
  return r->all;
}

static mn_status find_room(mn_sampler *s) {
  if (!s->room && !s->own) MN_TRY(mn_sampler_room_new(s->vocab_size, &s->own));
  if (!s->room) s->room = s->own;
  return MN_OK;
}

void mn_sampler_use(mn_sampler *s, mn_sampler_room *room) { s->room = room; }

mn_status mn_sampler_new(const mn_sampling *c, int64_t vocab_size, mn_sampler **out) {
  mn_isa isa;
  *out = NULL;
  if (vocab_size < 1) return mn_fail(MN_ERR_ARG, "a sampler needs a vocabulary");
  MN_TRY(mn_isa_choose(&isa));
  mn_sampler *s = mn_calloc(1, sizeof *s);
  if (!s) return MN_ERR_MEMORY;
  *s = (mn_sampler){
      .c = *c, .vocab_size = vocab_size, .key = mn_random_key((uint64_t)c->seed, "sampler"), .vec = MN_ISA_PICK(mn_weights_table, isa)};
  s->recent = mn_alloc(((size_t)c->repetition_window + 1) * sizeof *s->recent);
  if (!s->recent) {
    mn_sampler_free(s);
    return MN_ERR_MEMORY;
  }
  *out = s;
  return MN_OK;
}

void mn_sampler_free(mn_sampler *s) {
  if (!s) return;
  mn_sampler_room_free(s->own);
  free(s->recent);
  free(s->kept);
  free(s);
}

/* ---- what may be drawn ---- */
mn_status mn_sampler_tokens(const mn_tokenizer *tok, int64_t vocab_size, uint64_t **out) {
  uint64_t *has = *out = mn_calloc((size_t)(vocab_size + 63) / 64, sizeof *has);
  bool any = false;
  if (!has) return MN_ERR_MEMORY;
  for (int64_t i = 0; i < vocab_size; i++) {
    if (!mn_tokenizer_says(tok, (int32_t)i)) continue;
    has[i / 64] |= (uint64_t)1 << (i % 64), any = true;
  }
  return any ? MN_OK : mn_fail(MN_ERR_CONFIG, "the tokenizer has no token for any of the model's %lld ids", (long long)vocab_size);
}

static uint64_t all_of(const mn_sampler *s, int64_t word) { /* bits of a word that are tokens */
  const int64_t left = s->vocab_size - word * 64;
  return left < 64 ? UINT64_MAX >> (64 - left) : UINT64_MAX;
}

void mn_sampler_keep_to_tokens(mn_sampler *s, const uint64_t *has) {
  bool all = true;
  for (int64_t w = 0; w < (s->vocab_size + 63) / 64 && all; w++) all = has[w] == all_of(s, w);
  s->has = all ? NULL : has;
}

mn_status mn_sampler_keep_to(mn_sampler *s, const mn_tokenizer *tok) {
  uint64_t *has;
  const mn_status status = mn_sampler_tokens(tok, s->vocab_size, &has);
  if (status == MN_ERR_MEMORY) return status;
  free(s->kept);
  s->kept = has;
  mn_sampler_keep_to_tokens(s, has);
  return status;
}

void mn_sampler_only(mn_sampler *s, const uint64_t *mask) { s->only = mask; }

void mn_sampler_note(mn_sampler *s, int32_t token) {
  if (s->c.repetition_window > 0) s->recent[s->n_recent++ % s->c.repetition_window] = token;
}

/* Which of 64 tokens may come. */
static uint64_t may(const mn_sampler *s, int64_t word) {
  uint64_t m = all_of(s, word);
  if (s->has) m &= s->has[word];
  return s->only ? m & s->only[word] : m;
}
static bool may_come(const mn_sampler *s, int64_t i) { return may(s, i / 64) >> (i % 64) & 1; }

/* Logits of a block of tokens where they lie, or, where some may not come, in `own`, those with none; NULL: none may. */
static const float *block_of(const mn_sampler *s, const float *x, int64_t from, float own[BLOCK]) {
  const int64_t end = s->vocab_size - from < BLOCK ? s->vocab_size : from + BLOCK;
  bool all = true, any = false;
  for (int64_t w = from / 64; w * 64 < end; w++) {
    const uint64_t m = may(s, w);
    any |= m != 0, all &= m == all_of(s, w);
  }
  if (all || !any) return all ? x + from : NULL;
  for (int64_t i = from; i < end; i++) own[i - from] = may_come(s, i) ? x[i] : -INFINITY;
  return own;
}

static int likelier_first(const void *x, const void *y) { /* ties: lower token first */
  const candidate *a = x, *b = y;
  if (a->logit != b->logit) return a->logit < b->logit ? 1 : -1;
  return a->token < b->token ? -1 : a->token > b->token;
}

static void penalise(const mn_sampler *s, float *logits) {
  int64_t n = s->n_recent < s->c.repetition_window ? s->n_recent : s->c.repetition_window;
  for (int64_t i = 0; i < n; i++) {
    bool seen = false; /* once per token, however often it occurred */
    for (int64_t j = 0; j < i && !seen; j++) seen = s->recent[j] == s->recent[i];
    if (seen || s->recent[i] < 0 || s->recent[i] >= s->vocab_size) continue;
    float *l = &logits[s->recent[i]];
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
/* The logits as they count, and the largest of each block of those that may come, and of all. */
static mn_status survey(mn_sampler *s, const float **logits, float *top) {
  mn_sampler_room *r = s->room;
  const int64_t V = s->vocab_size, blocks = mn_weights_blocks(V);
  float own[BLOCK];
  if (!s->vec->peaks(*logits, V, r->peaks))
    return mn_fail(MN_ERR_NUMERIC, "the logit of token %lld is not a number", (long long)mn_first_not_finite(MN_F32, *logits, V));
  if (s->c.repetition_penalty != 1) {
    float *lean = mn_sampler_room_logits(r);
    if (!lean) return MN_ERR_MEMORY;
    if (lean != *logits) memcpy(lean, *logits, (size_t)V * sizeof *lean);
    penalise(s, lean);
    s->vec->peaks(lean, V, r->peaks);
    *logits = lean;
  }
  for (int64_t b = 0; (s->has || s->only) && b < blocks; b++) {
    const float *x = block_of(s, *logits, b * BLOCK, own);
    if (!x) r->peaks[b] = -INFINITY;
    else if (x == own) s->vec->peaks(own, V - b * BLOCK < BLOCK ? V - b * BLOCK : BLOCK, &r->peaks[b]);
  }
  *top = r->peaks[0];
  for (int64_t b = 1; b < blocks; b++) *top = r->peaks[b] > *top ? r->peaks[b] : *top;
  if (isfinite(*top)) return MN_OK;
  return mn_fail(MN_ERR_NUMERIC, *top < 0 ? "no token may be drawn" : "the penalty makes logits infinite");
}

/* The first of the likeliest. */
static int64_t likeliest(const mn_sampler *s, const float *x, float top) {
  int64_t b = 0;
  while (s->room->peaks[b] != top) b++;
  int64_t i = b * BLOCK;
  while (x[i] != top || !may_come(s, i)) i++;
  return i;
}

/* Weights of what may come, 0 of all else; `to` NULL: their sums alone. */
static double weigh(const mn_sampler *s, const float *x, float top, float *to) {
  const int64_t V = s->vocab_size;
  double sum = 0;
  float own[BLOCK];
  if (!s->has && !s->only) return s->vec->weigh(x, V, top, s->c.temperature, s->c.min_p, to, s->room->sums);
  for (int64_t from = 0; from < V; from += BLOCK) {
    const int64_t n = V - from < BLOCK ? V - from : BLOCK;
    const float *block = block_of(s, x, from, own);
    double *part = &s->room->sums[from / BLOCK];
    *part = 0;
    if (block) sum += s->vec->weigh(block, n, top, s->c.temperature, s->c.min_p, to ? to + from : NULL, part);
    else if (to) memset(to + from, 0, (size_t)n * sizeof *to);
  }
  return sum;
}

/* Where u falls, in [0, the sum of n weights): *left of it in the block that is returned. The last that has any weight, where sums are rounded
 * otherwise than what is taken from u. */
static int64_t block_at(const double *sums, int64_t blocks, double u, double *left) {
  int64_t last = 0;
  for (int64_t b = 0; b < blocks; b++) {
    if (!(sums[b] > 0)) continue;
    last = b, *left = u;
    if (u < sums[b]) break;
    u -= sums[b];
  }
  return last;
}
static int64_t place_at(const float *weights, int64_t n, double u) {
  int64_t pick = 0;
  for (int64_t i = 0; i < n; i++) {
    if (!(weights[i] > 0)) continue;
    pick = i;
    if (u < (double)weights[i]) break;
    u -= (double)weights[i];
  }
  return pick;
}

/* One of all that may come. */
static int64_t draw(const mn_sampler *s, const float *x, float top, double share) {
  const int64_t V = s->vocab_size;
  double left = 0, of_block;
  float own[BLOCK], weights[BLOCK];
  const double sum = weigh(s, x, top, NULL);
  const int64_t from = BLOCK * block_at(s->room->sums, mn_weights_blocks(V), share * sum, &left), n = V - from < BLOCK ? V - from : BLOCK;
  s->vec->weigh(block_of(s, x, from, own), n, top, s->c.temperature, s->c.min_p, weights, &of_block);
  return from + place_at(weights, n, left);
}

/* The candidates that are left, the likeliest first, and their logits in this order. */
static void keep(mn_sampler_room *r, int64_t n) {
  qsort(r->all, (size_t)n, sizeof *r->all, likelier_first);
  for (int64_t i = 0; i < n; i++) r->logits[i] = r->all[i].logit;
}

/* All that may come, or the top_k likeliest of it, the likeliest first. */
static int64_t by_rank(mn_sampler *s, const float *x) {
  mn_sampler_room *r = s->room;
  int64_t n = 0;
  for (int64_t i = 0; i < s->vocab_size; i++)
    if (may_come(s, i)) r->all[n++] = (candidate){x[i], (int32_t)i};
  if (s->c.top_k < n) n = keep_top(r->all, n, s->c.top_k);
  keep(r, n);
  return n;
}

/* The candidates that have top_p of the sum together, the likeliest first, of n whose weights are known. listed: they are candidates
 * already. What has less than (1 - top_p) / n of the sum has, all n together, less than the 1 - top_p that is left out. */
static int64_t by_share(mn_sampler *s, const float *x, int64_t n, bool listed, float top, double *sum) {
  mn_sampler_room *r = s->room;
  const double least = (1 - s->c.top_p) * *sum / (double)n, wanted = s->c.top_p * *sum;
  int64_t kept = 0;
  for (int64_t i = 0; i < n; i++) {
    if (i % BLOCK == 0 && r->sums[i / BLOCK] < least) i += BLOCK - 1; /* no weight of the block is more than their sum */
    else if (r->weights[i] > 0 && (double)r->weights[i] >= least) r->all[kept++] = listed ? r->all[i] : (candidate){x[i], (int32_t)i};
  }
  keep(r, kept);
  s->vec->weigh(r->logits, kept, top, s->c.temperature, s->c.min_p, r->weights, r->sums);
  *sum = 0;
  for (n = 0; n < kept && (n == 0 || *sum < wanted); n++) *sum += (double)r->weights[n];
  return n;
}

/* One of those that are left when others are left out by rank or share. */
static mn_status draw_of_some(mn_sampler *s, const float *x, float top, double share, int64_t *pick) {
  mn_sampler_room *r = s->room;
  int64_t n = s->vocab_size;
  const bool ranked = s->c.top_k > 0 && s->c.top_k < n;
  if (!mn_sampler_room_logits(r) || !room_weights(r) || !room_candidates(r)) return MN_ERR_MEMORY;
  if (ranked) n = by_rank(s, x);
  double sum = ranked ? s->vec->weigh(r->logits, n, top, s->c.temperature, s->c.min_p, r->weights, r->sums) : weigh(s, x, top, r->weights);
  if (s->c.top_p < 1) n = by_share(s, x, n, ranked, top, &sum);
  *pick = r->all[place_at(r->weights, n, share * sum)].token;
  return MN_OK;
}

mn_status mn_sampler_next(mn_sampler *s, int64_t stream, int64_t position, const float *logits, int32_t *token) {
  float top;
  int64_t pick;
  MN_TRY(find_room(s));
  MN_TRY(survey(s, &logits, &top));
  const double share = mn_random_uniform(s->key, (uint64_t)stream, (uint64_t)position);
  if (s->c.temperature == 0) pick = likeliest(s, logits, top);
  else if (s->c.top_p < 1 || (s->c.top_k > 0 && s->c.top_k < s->vocab_size)) MN_TRY(draw_of_some(s, logits, top, share, &pick));
  else pick = draw(s, logits, top, share);
  *token = (int32_t)pick;
  mn_sampler_note(s, *token);
  return MN_OK;
}
