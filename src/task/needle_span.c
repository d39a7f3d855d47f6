/* needle_span.c - where does the answer stand? A question, a passage with several records in it, and the span of the record's values
 * that the question asks for: its first and last position.
 *
 *     question key | noise ... [1 key v v v 2] ... noise ... [1 key v 2] ... noise
 * Ids: 0 pad, 1 a record begins, 2 it ends, then 16 keys, 64 values and 64 of noise. */
#include "task/task.h"

#include <stdlib.h>

enum { PAD, BEGIN, END, KEY, KEYS = 16, VALUE = KEY + KEYS, VALUES = 64, NOISE = VALUE + VALUES, NOISES = 64, VOCABULARY = NOISE + NOISES };

typedef struct span_config {
  int64_t len, len_min, needles, longest;
} span_config;

static const mn_field fields[] = {
    MN_FIELD_INT(span_config, len, 64, 8, 1 << 20, "tokens of a row (T)"),
    MN_FIELD_INT(span_config, len_min, 0, 0, 1 << 20, "if > 0, a row's length is uniform in len_min ... len, padded with 0 to len"),
    MN_FIELD_INT(span_config, needles, 2, 1, KEYS, "records in a passage, each with a key of its own"),
    MN_FIELD_INT(span_config, longest, 4, 1, 64, "a record has 1 to so many values"), MN_FIELD_END};

static mn_status setup(mn_task *task) {
  const span_config *c = task->config;
  const int64_t shortest = c->len_min ? c->len_min : c->len, needed = 1 + c->needles * (3 + c->longest);
  if (c->len_min > c->len)
    return mn_fail(MN_ERR_CONFIG, "task needle_span: len_min = %lld is above len = %lld", (long long)c->len_min, (long long)c->len);
  if (shortest < needed)
    return mn_fail(MN_ERR_CONFIG, "task needle_span: %lld records of up to %lld values need %s >= %lld", (long long)c->needles,
                   (long long)c->longest, c->len_min ? "len_min" : "len", (long long)needed);
  task->seq_len = c->len;
  task->vocab_size = VOCABULARY;
  return MN_OK;
}

static int32_t drawn(mn_rng *rng, int32_t first, uint64_t n) { return first + (int32_t)mn_rng_below(rng, n); }

static int by_number(const void *a, const void *b) { return *(const int32_t *)a - *(const int32_t *)b; }

static mn_status sample(const mn_task *task, mn_rng *rng, int32_t *input, int32_t *length, int32_t *span) {
  const span_config *c = task->config;
  int32_t key[KEYS], scratch[KEYS], values[KEYS], before[KEYS];
  const int n = (int)c->needles, asked = (int)mn_rng_below(rng, (uint64_t)n);
  int64_t L = c->len_min ? c->len_min + (int64_t)mn_rng_below(rng, (uint64_t)(c->len - c->len_min + 1)) : c->len, noise = L - 1;
  mn_rng_choose(rng, KEY, KEYS, (size_t)n, scratch, key);
  for (int i = 0; i < n; i++) noise -= 3 + (values[i] = drawn(rng, 1, (uint64_t)c->longest));
  for (int i = 0; i < n; i++) before[i] = drawn(rng, 0, (uint64_t)noise + 1); /* how much noise stands before each */
  qsort(before, (size_t)n, sizeof *before, by_number);
  int64_t t = 0, passed = 0;
  input[t++] = key[asked];
  for (int i = 0; i <= n; i++) {
    for (; passed < (i < n ? before[i] : noise); passed++) input[t++] = drawn(rng, NOISE, NOISES);
    if (i == n) break;
    input[t++] = BEGIN;
    input[t++] = key[i];
    if (i == asked) span[0] = (int32_t)t, span[1] = (int32_t)t + values[i] - 1;
    for (int k = 0; k < values[i]; k++) input[t++] = drawn(rng, VALUE, VALUES);
    input[t++] = END;
  }
  *length = (int32_t)t;
  while (t < c->len) input[t++] = PAD;
  return MN_OK;
}

/* Reads records as they pass. */
static mn_status oracle(const mn_task *task, const int32_t *input, int32_t length, int32_t *span) {
  for (int32_t t = 1; t + 2 < length; t++) {
    if (input[t] != BEGIN || input[t + 1] != input[0]) continue;
    span[0] = span[1] = t + 2;
    while (span[1] + 1 < length && input[span[1] + 1] != END) span[1]++;
    return MN_OK;
  }
  return mn_fail(MN_ERR_ARG, "task %s: no record has the key %d that is asked for", task->def->name, (int)input[0]);
}

const mn_task_def mn_task_needle_span = {
    .name = "needle_span",
    .help = "where in a passage the answer stands: first and last position of the record that is asked for",
    .fields = fields,
    .config_size = sizeof(span_config),
    .setup = setup,
    .sample_span = sample,
    .oracle_span = oracle,
};
