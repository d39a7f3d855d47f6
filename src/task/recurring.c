/* recurring.c - prose in which what was said comes again: what a model needs to learn to look back and copy.
 *
 *     ... a b c d e f g ... b c d e ... q r s ... c d e f g ...            target: the next token, everywhere
 *
 * Behind every token that is not copied a copy begins with probability `start`: a span of span_min to span_max tokens that stood a
 * uniformly drawn lag_min to lag_max tokens before. With the defaults about 30 % of the tokens lie in a copy. There is no oracle: which
 * token comes is a matter of chance, and what a copy is worth depends on what was read. */
#include "task/recurring.h"

#include "task/task.h"

#include <math.h>

typedef struct recurring_config {
  int64_t len, span_min, span_max, lag_min, lag_max;
  double start;
} recurring_config;

#define S recurring_config
static const mn_field fields[] = {MN_FIELD_INT(S, len, 256, 16, 1 << 24, "tokens of a sample (T)"),
                                  MN_FIELD_INT(S, span_min, 2, 1, 1024, "tokens of the shortest span that comes again"),
                                  MN_FIELD_INT(S, span_max, 8, 1, 1024, "and of the longest"),
                                  MN_FIELD_INT(S, lag_min, 5, 1, 1 << 20, "how far back the nearest span began, in tokens"),
                                  MN_FIELD_INT(S, lag_max, 200, 1, 1 << 20, "and the furthest"),
                                  MN_FIELD_FLOAT(S, start, 0.0857, 0, 1, "probability that a copy begins behind a token that is none"),
                                  MN_FIELD_END};
#undef S

enum { FOLLOWERS = 8 };

/* The inverse of p(k) ~ 1/(k + 10), k in [0, V): continuous, which is near enough to Zipf's law and needs no table. */
static int32_t zipf(double u) {
  const double low = 10, high = low + MN_RECURRING_VOCAB;
  const int32_t k = (int32_t)(low * pow(high / low, u) - low);
  return k < MN_RECURRING_VOCAB ? k : MN_RECURRING_VOCAB - 1;
}

int32_t mn_recurring_next(mn_rng *rng, int32_t before) {
  const uint64_t draw = mn_rng_next(rng);
  if (before < 0 || draw & 1) return zipf(mn_rng_uniform(rng));
  mn_rng row; /* of the language: the same in every text */
  mn_rng_seed(&row, mn_sample_seed("recurring.language", 0, (uint64_t)before, (draw >> 1) % FOLLOWERS));
  return zipf(mn_rng_uniform(&row));
}

static mn_status setup(mn_task *task) {
  const recurring_config *c = task->config;
  if (c->span_min > c->span_max)
    return mn_fail(MN_ERR_CONFIG, "task recurring: span_min = %lld must be at most span_max = %lld", (long long)c->span_min,
                   (long long)c->span_max);
  if (c->lag_min > c->lag_max)
    return mn_fail(MN_ERR_CONFIG, "task recurring: lag_min = %lld must be at most lag_max = %lld", (long long)c->lag_min,
                   (long long)c->lag_max);
  if (c->lag_min >= c->len)
    return mn_fail(MN_ERR_CONFIG, "task recurring: lag_min = %lld needs len above it, and len is %lld: nothing would come again",
                   (long long)c->lag_min, (long long)c->len);
  task->seq_len = c->len;
  task->vocab_size = MN_RECURRING_VOCAB;
  return MN_OK;
}

/* The text is input[0], then target[0 ... T-1]. */
static int32_t at(const int32_t *input, const int32_t *target, int64_t t) { return t ? target[t - 1] : input[0]; }

static mn_status sample(const mn_task *task, mn_rng *rng, int32_t *input, int32_t *target) {
  const recurring_config *c = task->config;
  int64_t left = 0, lag = 0; /* of the copy that goes on */
  input[0] = mn_recurring_next(rng, -1);
  for (int64_t t = 1; t <= c->len; t++) {
    if (!left && t >= c->lag_min && mn_rng_uniform(rng) < c->start) {
      const int64_t most = t < c->lag_max ? t : c->lag_max;
      lag = c->lag_min + (int64_t)mn_rng_below(rng, (uint64_t)(most - c->lag_min + 1));
      left = c->span_min + (int64_t)mn_rng_below(rng, (uint64_t)(c->span_max - c->span_min + 1));
    }
    target[t - 1] = left ? at(input, target, t - lag) : mn_recurring_next(rng, at(input, target, t - 1));
    if (t < c->len) input[t] = target[t - 1];
    left -= left > 0;
  }
  return MN_OK;
}

const mn_task_def mn_task_recurring = {
    .name = "recurring",
    .help = "prose of token ids in which spans come again, for models that are to copy; judged by the lists of verbatim",
    .fields = fields,
    .config_size = sizeof(recurring_config),
    .setup = setup,
    .sample = sample,
};
