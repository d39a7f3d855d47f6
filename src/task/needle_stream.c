/* needle_stream.c - the plan of the needles, and the stream as a function of its position. */
#include "task/needle_stream.h"
#include "task/prose.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { WRITE = 5 + MN_STREAM_VALUE, ASK = 4, PER_OCTAVE = 4, MAX_NEEDLES = 4096, MAX_TRIES = 2000 };

typedef struct plant { /* tokens that replace the background */
  int64_t position;
  int n;
  int32_t tokens[WRITE];
} plant;

struct mn_needle_stream {
  mn_needle_stream_config config;
  plant *plants; /* sorted by position, disjoint */
  int n_plants;
  mn_needle_query *queries;
  int n_queries;
  uint8_t key_used[MN_WORDS * MN_WORDS];
  int64_t block; /* the block in `tokens`; -1 none */
  int32_t tokens[MN_STREAM_BLOCK];
};

void mn_needle_stream_defaults(mn_needle_stream_config *c) {
  *c = (mn_needle_stream_config){
      .seed = 1, .length = 10000000, .needles = 64, .min_log2 = 8, .max_log2 = 23, .updates = 0.25, .unknown = 0.10, .distractors = 0.5};
}

static mn_status check(const mn_needle_stream_config *c) {
  if (c->min_log2 < 7 || c->max_log2 <= c->min_log2 || c->max_log2 > 40)
    return mn_fail(MN_ERR_CONFIG, "needle stream: distances 2^%d ... 2^%d must satisfy 7 <= min < max <= 40", c->min_log2, c->max_log2);
  if (c->needles < 1 || c->needles > MAX_NEEDLES)
    return mn_fail(MN_ERR_CONFIG, "needle stream: needles = %d is outside 1 ... %d", c->needles, MAX_NEEDLES);
  const double fraction[] = {c->updates, c->unknown, c->distractors};
  for (int i = 0; i < 3; i++)
    if (!(fraction[i] >= 0 && fraction[i] <= 1))
      return mn_fail(MN_ERR_CONFIG, "needle stream: updates, unknown and distractors are fractions in 0 ... 1");
  if (c->unknown > 0.9 || c->updates + c->unknown > 1)
    return mn_fail(MN_ERR_CONFIG, "needle stream: unknown must be <= 0.9 and updates + unknown <= 1");
  int64_t need = ((int64_t)1 << c->max_log2) + ((int64_t)1 << (c->max_log2 - 4)) + 1024;
  if (c->length < need)
    return mn_fail(MN_ERR_CONFIG, "needle stream: %lld tokens cannot hold distances up to 2^%d: use length >= %lld or a smaller max_log2",
                   (long long)c->length, c->max_log2, (long long)need);
  return MN_OK;
}

/* ---- the plan ---- */

static void draw_key(mn_needle_stream *s, mn_rng *rng, int32_t first_word, int32_t key[2]) {
  for (;;) { /* at most 3 keys per needle of 16,384, so a free one is found soon; a full first word takes another */
    int64_t w1 = first_word < 0 ? (int64_t)mn_rng_below(rng, MN_WORDS) : first_word - MN_ID_WORD;
    int64_t w2 = (int64_t)mn_rng_below(rng, MN_WORDS);
    if (s->key_used[w1 * MN_WORDS + w2]) {
      if (mn_rng_below(rng, 1024) == 0) first_word = -1;
      continue;
    }
    s->key_used[w1 * MN_WORDS + w2] = 1;
    key[0] = MN_ID_WORD + (int32_t)w1;
    key[1] = MN_ID_WORD + (int32_t)w2;
    return;
  }
}

static void draw_value(mn_rng *rng, int32_t value[MN_STREAM_VALUE]) {
  value[0] = MN_ID_DIGIT + 1 + (int32_t)mn_rng_below(rng, 9);
  for (int i = 1; i < MN_STREAM_VALUE; i++) value[i] = MN_ID_DIGIT + (int32_t)mn_rng_below(rng, MN_DIGITS);
}

/* Is [position, position + n) free? Plants are in no order while the plan is made. */
static bool is_free(const mn_needle_stream *s, int64_t position, int n) {
  if (position < 0 || position + n > s->config.length) return false;
  for (int i = 0; i < s->n_plants; i++)
    if (position < s->plants[i].position + s->plants[i].n && s->plants[i].position < position + n) return false;
  return true;
}

static void plant_write(mn_needle_stream *s, int64_t position, const int32_t key[2], const int32_t *value) {
  plant *p = &s->plants[s->n_plants++];
  p->position = position;
  p->n = WRITE;
  memcpy(p->tokens, (int32_t[]){MN_ID_NEEDLE, key[0], key[1], MN_ID_SEP}, 4 * sizeof(int32_t));
  memcpy(p->tokens + 4, value, MN_STREAM_VALUE * sizeof(int32_t));
  p->tokens[4 + MN_STREAM_VALUE] = MN_ID_SEP;
}

static void plant_query(mn_needle_stream *s, int64_t position, const int32_t key[2]) {
  plant *p = &s->plants[s->n_plants++];
  p->position = position;
  p->n = ASK;
  memcpy(p->tokens, (int32_t[]){MN_ID_QUERY, key[0], key[1], MN_ID_SEP}, ASK * sizeof(int32_t));
}

/* A free place for `n` tokens in [low, high); -1 when none is found. */
static int64_t find_place(const mn_needle_stream *s, mn_rng *rng, int64_t low, int64_t high, int n) {
  for (int i = 0; i < 64 && high - low > 0; i++) {
    int64_t at = low + (int64_t)mn_rng_below(rng, (uint64_t)(high - low));
    if (at + n <= high && is_free(s, at, n)) return at;
  }
  return -1;
}

typedef enum { PLAIN, UPDATED, UNKNOWN } needle_kind;

/* Plants one needle and its query. False: this draw of places collides with what is there; try another. */
static bool plant_needle(mn_needle_stream *s, mn_rng *rng, needle_kind kind, int octave, bool distractor) {
  int64_t distance = (int64_t)exp2((double)octave + mn_rng_uniform(rng)); /* query start - write start */
  int64_t room = s->config.length - distance - ASK;
  int64_t at = (int64_t)mn_rng_below(rng, (uint64_t)room + 1);
  if (!is_free(s, at, WRITE) || !is_free(s, at + distance, ASK)) return false;
  int64_t before = kind == UPDATED ? find_place(s, rng, 0, at, WRITE) : 0;
  int64_t between = distractor ? find_place(s, rng, at + WRITE, at + distance, WRITE) : 0;
  if (before < 0 || between < 0) return false;

  int32_t key[2], other[2], value[MN_STREAM_VALUE], old[MN_STREAM_VALUE];
  draw_key(s, rng, -1, key);
  draw_value(rng, value);
  mn_needle_query *q = &s->queries[s->n_queries++];
  *q = (mn_needle_query){.position = at + distance + ASK - 1,
                         .distance = distance,
                         .octave = octave,
                         .unknown = kind == UNKNOWN,
                         .updated = kind == UPDATED,
                         .distractor = distractor,
                         .n_value = kind == UNKNOWN ? 1 : MN_STREAM_VALUE};
  if (kind == UNKNOWN) q->value[0] = MN_ID_UNKNOWN;
  else memcpy(q->value, value, sizeof value);
  plant_query(s, at + distance, key);
  if (kind != UNKNOWN) plant_write(s, at, key, value);
  if (kind == UPDATED) {
    do draw_value(rng, old);
    while (!memcmp(old, value, sizeof value));
    plant_write(s, before, key, old);
  }
  if (distractor) {
    draw_key(s, rng, key[0], other);
    do draw_value(rng, old);
    while (!memcmp(old, value, sizeof value));
    plant_write(s, between, other, old);
  }
  return true;
}

static int by_plant(const void *a, const void *b) {
  int64_t x = ((const plant *)a)->position, y = ((const plant *)b)->position;
  return (x > y) - (x < y);
}

static int by_query(const void *a, const void *b) {
  int64_t x = ((const mn_needle_query *)a)->position, y = ((const mn_needle_query *)b)->position;
  return (x > y) - (x < y);
}

static mn_status make_plan(mn_needle_stream *s) {
  const mn_needle_stream_config *c = &s->config;
  int octaves = c->max_log2 - c->min_log2;
  int unknown = (int)(c->unknown * c->needles + 0.5), known = c->needles - unknown;
  if (known < PER_OCTAVE * octaves) { /* every octave of distances gets 4 needles that can be answered */
    known = PER_OCTAVE * octaves;
    unknown = (int)(c->unknown / (1 - c->unknown) * known + 0.5);
  }
  int total = known + unknown, updated = (int)(c->updates * total + 0.5);
  if (updated > known) updated = known;
  s->plants = mn_calloc((size_t)total * 4, sizeof *s->plants);
  s->queries = mn_calloc((size_t)total, sizeof *s->queries);
  int32_t *kind = mn_calloc((size_t)total, sizeof *kind);
  if (!s->plants || !s->queries || !kind) {
    free(kind);
    return MN_ERR_MEMORY;
  }
  mn_rng rng;
  mn_rng_seed(&rng, mn_sample_seed("needle_stream", 1, c->seed, 0));
  for (int j = 0; j < known; j++) kind[j] = j < updated ? UPDATED : PLAIN;
  mn_rng_shuffle(&rng, kind, (size_t)known);
  for (int j = known; j < total; j++) kind[j] = UNKNOWN;
  mn_status status = MN_OK;
  for (int k = 0; k < total && status == MN_OK; k++) {
    int j = k < known ? known - 1 - k : k; /* far distances first, while there is room */
    int octave = j < PER_OCTAVE * octaves ? c->min_log2 + j / PER_OCTAVE : c->min_log2 + (int)mn_rng_below(&rng, (uint64_t)octaves);
    bool distractor = mn_rng_uniform(&rng) < c->distractors, planted = false;
    for (int i = 0; i < MAX_TRIES && !planted; i++) planted = plant_needle(s, &rng, (needle_kind)kind[j], octave, distractor);
    if (!planted)
      status = mn_fail(MN_ERR_CONFIG, "needle stream: no room for needle %d of %d in %lld tokens; use fewer needles or a longer stream",
                       k + 1, total, (long long)c->length);
  }
  free(kind);
  qsort(s->plants, (size_t)s->n_plants, sizeof *s->plants, by_plant);
  qsort(s->queries, (size_t)s->n_queries, sizeof *s->queries, by_query);
  return status;
}

/* ---- the stream ---- */

mn_status mn_needle_stream_open(const mn_needle_stream_config *config, mn_needle_stream **out) {
  *out = NULL;
  MN_TRY(check(config));
  mn_needle_stream *s = mn_calloc(1, sizeof *s);
  if (!s) return MN_ERR_MEMORY;
  s->config = *config;
  s->block = -1;
  mn_status status = make_plan(s);
  if (status != MN_OK) mn_needle_stream_close(s);
  else *out = s;
  return status;
}

void mn_needle_stream_close(mn_needle_stream *s) {
  if (!s) return;
  free(s->plants);
  free(s->queries);
  free(s);
}

/* The first plant that ends after `position`. */
static int first_plant(const mn_needle_stream *s, int64_t position) {
  int low = 0, high = s->n_plants;
  while (low < high) {
    int middle = low + (high - low) / 2;
    if (s->plants[middle].position + s->plants[middle].n > position) high = middle;
    else low = middle + 1;
  }
  return low;
}

static void make_block(mn_needle_stream *s, int64_t block) {
  int64_t begin = block * MN_STREAM_BLOCK;
  if (s->config.loop) {
    for (int64_t i = 0; i < MN_STREAM_BLOCK; i++) s->tokens[i] = mn_loop_token(begin + i);
  } else {
    mn_rng rng;
    mn_rng_seed(&rng, mn_sample_seed("needle_stream", 0, s->config.seed, (uint64_t)block));
    mn_prose_fill(&rng, s->tokens, MN_STREAM_BLOCK);
  }
  for (int i = first_plant(s, begin); i < s->n_plants && s->plants[i].position < begin + MN_STREAM_BLOCK; i++)
    for (int k = 0; k < s->plants[i].n; k++) {
      int64_t at = s->plants[i].position + k - begin;
      if (at >= 0 && at < MN_STREAM_BLOCK) s->tokens[at] = s->plants[i].tokens[k];
    }
  s->block = block;
}

int64_t mn_needle_stream_read(mn_needle_stream *s, int64_t position, int64_t n, int32_t *out) {
  if (position < 0 || position >= s->config.length || n <= 0) return 0;
  if (n > s->config.length - position) n = s->config.length - position;
  for (int64_t done = 0; done < n;) {
    int64_t block = (position + done) / MN_STREAM_BLOCK, offset = (position + done) % MN_STREAM_BLOCK;
    int64_t take = MN_STREAM_BLOCK - offset < n - done ? MN_STREAM_BLOCK - offset : n - done;
    if (block != s->block) make_block(s, block);
    memcpy(out + done, s->tokens + offset, (size_t)take * sizeof *out);
    done += take;
  }
  return n;
}

const mn_needle_query *mn_needle_stream_queries(const mn_needle_stream *s, int *count) {
  *count = s->n_queries;
  return s->queries;
}

bool mn_needle_stream_is_planted(const mn_needle_stream *s, int64_t position) {
  int i = first_plant(s, position);
  return i < s->n_plants && s->plants[i].position <= position;
}
