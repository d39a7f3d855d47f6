/* niah_mini.c - S-NIAH at the level of tokens (vocabulary 512), for models trained here.
 *
 *     haystack ... [1 w1 w2 3 value... 3] ... haystack [2 w1 w2 3] value...       target on the value positions
 * kind pk: 7 digits in a loop of 25 tokens; n: 7 digits in prose; u: 32 hexadecimal digits in prose; w: 2 words in
 * prose; mix: pk, n and u in equal parts (the training mixture). */
#include "task/prose.h"
#include "task/task.h"

#include <string.h>

typedef enum { KIND_PK, KIND_N, KIND_U, KIND_W, KIND_MIX } mini_kind;
static const char *const kinds[] = {"pk", "n", "u", "w", "mix", NULL};

typedef struct mini_config {
  int64_t len, len_min;
  mini_kind kind;
  double depth;
} mini_config;

static const mn_field fields[] = {
    MN_FIELD_INT(mini_config, len, 256, 64, 1 << 26, "tokens of a sample (T)"),
    MN_FIELD_INT(mini_config, len_min, 0, 0, 1 << 26, "if > 0, a sample's length is uniform in len_min ... len, padded with 0 to len"),
    MN_FIELD_ENUM(mini_config, kind, kinds, KIND_MIX, "haystack and value; mix is pk, n and u in turn"),
    MN_FIELD_FLOAT(mini_config, depth, -1, -1, 100, "percent of the haystack before the needle; -1: uniform"), MN_FIELD_END};

enum { LONGEST_VALUE = 32, FRAME = 5 /* 1 w1 w2 3 ... 3 */, QUERY = 4 };

static mn_status setup(mn_task *task) {
  const mini_config *c = task->config;
  if (c->len_min > c->len || (c->len_min && c->len_min < 64))
    return mn_fail(MN_ERR_CONFIG, "task niah_mini: len_min = %lld must be 0 or between 64 and len = %lld", (long long)c->len_min,
                   (long long)c->len);
  int64_t shortest = c->len_min ? c->len_min : c->len;
  if ((c->kind == KIND_U || c->kind == KIND_MIX) && shortest < FRAME + QUERY + 2 * LONGEST_VALUE - 1)
    return mn_fail(MN_ERR_CONFIG, "task niah_mini: %d-digit values need %s >= %d", LONGEST_VALUE, c->len_min ? "len_min" : "len",
                   FRAME + QUERY + 2 * LONGEST_VALUE - 1);
  task->seq_len = c->len;
  task->vocab_size = MN_PROSE_VOCAB;
  return MN_OK;
}

static int64_t draw_value(mn_rng *rng, mini_kind kind, int32_t *value) {
  int64_t n = kind == KIND_U ? LONGEST_VALUE : kind == KIND_W ? 2 : 7;
  for (int64_t i = 0; i < n; i++)
    value[i] = kind == KIND_U   ? MN_ID_HEX + (int32_t)mn_rng_below(rng, MN_HEX)
               : kind == KIND_W ? MN_ID_WORD + (int32_t)mn_rng_below(rng, MN_WORDS)
               : i == 0         ? MN_ID_DIGIT + 1 + (int32_t)mn_rng_below(rng, 9) /* a number of 7 digits */
                                : MN_ID_DIGIT + (int32_t)mn_rng_below(rng, MN_DIGITS);
  return n;
}

static mn_status sample(const mn_task *task, mn_rng *rng, int32_t *input, int32_t *target) {
  const mini_config *c = task->config;
  mini_kind kind = c->kind == KIND_MIX ? (mini_kind)mn_rng_below(rng, 3) : c->kind;
  int64_t L = c->len_min ? c->len_min + (int64_t)mn_rng_below(rng, (uint64_t)(c->len - c->len_min + 1)) : c->len;
  int32_t value[LONGEST_VALUE];
  int64_t n = draw_value(rng, kind, value);
  int32_t w1 = MN_ID_WORD + (int32_t)mn_rng_below(rng, MN_WORDS), w2 = MN_ID_WORD + (int32_t)mn_rng_below(rng, MN_WORDS);
  /* the last value token is only a target, so L + 1 = hay + (FRAME + n) + QUERY + n */
  int64_t hay = L + 1 - FRAME - QUERY - 2 * n;
  int64_t before = (int64_t)mn_rng_below(rng, (uint64_t)hay + 1);
  if (c->depth >= 0) before = (int64_t)((double)hay * c->depth / 100);

  for (int64_t t = 0; t < c->len; t++) input[t] = MN_ID_PAD, target[t] = MN_IGNORE;
  if (kind == KIND_PK)
    for (int64_t i = 0; i < hay; i++) input[i] = mn_loop_token(i);
  else mn_prose_fill(rng, input, hay);
  int32_t *needle = input + before;
  memmove(needle + FRAME + n, needle, (size_t)(hay - before) * sizeof *needle);
  memcpy(needle, (int32_t[]){MN_ID_NEEDLE, w1, w2, MN_ID_SEP}, 4 * sizeof *needle);
  memcpy(needle + 4, value, (size_t)n * sizeof *value);
  needle[4 + n] = MN_ID_SEP;
  int32_t *query = input + hay + FRAME + n;
  memcpy(query, (int32_t[]){MN_ID_QUERY, w1, w2, MN_ID_SEP}, QUERY * sizeof *query);
  memcpy(query + QUERY, value, (size_t)(n - 1) * sizeof *value);
  memcpy(target + (query - input) + QUERY - 1, value, (size_t)n * sizeof *value);
  return MN_OK;
}

/* Reads needles as they pass and answers the query from them. */
static mn_status oracle(const mn_task *task, const int32_t *input, int32_t *prediction) {
  int64_t T = task->seq_len, value = -1;
  for (int64_t t = 0; t < T; t++) prediction[t] = MN_IGNORE;
  for (int64_t t = 0; t + 3 < T; t++) {
    if (input[t] == MN_ID_NEEDLE) value = t;
    if (input[t] != MN_ID_QUERY || value < 0 || input[value + 1] != input[t + 1] || input[value + 2] != input[t + 2]) continue;
    for (int64_t i = 0; t + 3 + i < T && value + 4 + i < t && input[value + 4 + i] != MN_ID_SEP; i++)
      prediction[t + 3 + i] = input[value + 4 + i];
    break;
  }
  return MN_OK;
}

const mn_task_def mn_task_niah_mini = {
    .name = "niah_mini",
    .help = "needle in a haystack of tokens: one needle in a loop (pk) or in Markov prose (n, u, w)",
    .fields = fields,
    .config_size = sizeof(mini_config),
    .setup = setup,
    .sample = sample,
    .oracle = oracle,
};
