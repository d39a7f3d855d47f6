/* mqar.c - multi-query associative recall (Arora et al., Zoology, arXiv 2312.04927; Based, arXiv 2402.18668).
 *
 * A context of key-value pairs, then each key once more: the answer is the value that followed it.
 *     k1 v1 k2 v2 ... kn vn | . . k2 . . . k1 . ...        target v_j on the position that holds the query key k_j
 *     . . k1 v1 . . . . k2 v2 . . | . k2 . . k1 . ...      with `scatter`, pairs at random even places of so many tokens
 * The true value is never shown after a query. Also here: update MQAR (some keys get a second value; the last counts)
 * and compositional MQAR (a key is two tokens, neither of which suffices). */
#include "task/task.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef enum { FILL_ZERO, FILL_RANDOM } fill_kind;
static const char *const fills[] = {"zero", "random", NULL};

typedef struct mqar_config {
  int64_t vocab_size, len, kv, kv_min, update, passes, scatter;
  fill_kind fill;
  double power;
} mqar_config;

typedef struct mqar_data {
  int64_t context, slots; /* C tokens of context of the most pairs; S slots of two tokens for the queries of the fewest */
  double *log_weight;     /* (S) of the query gaps; fewer slots have the first of them                                   */
} mqar_data;

static const mn_field mqar_fields[] = {
    MN_FIELD_INT(mqar_config, vocab_size, 8192, 4, 1 << 24, "ids: 0 blank, keys below half, values above"),
    MN_FIELD_INT(mqar_config, len, 64, 4, 1 << 24, "tokens of a sample (T, even)"),
    MN_FIELD_INT(mqar_config, kv, 4, 1, 1 << 20, "key-value pairs (n); each key is asked once"),
    MN_FIELD_INT(mqar_config, kv_min, 0, 0, 1 << 20, "n is drawn for each sample, from this to kv; 0: it is kv", MN_SPARSE),
    MN_FIELD_FLOAT(mqar_config, power, 0.01, 1e-6, 1e3, "gap law p_i ~ a (i+1)^(a-1): 0.01 puts queries near the context, 1 is uniform"),
    MN_FIELD_ENUM(mqar_config, fill, fills, FILL_ZERO, "what stands between queries"),
    MN_FIELD_INT(mqar_config, passes, 1, 1, 64, "times the context is repeated"),
    MN_FIELD_INT(mqar_config, update, 0, 0, 1 << 20, "keys written a second time with a new value; the last counts"),
    MN_FIELD_INT(mqar_config, scatter, 0, 0, 1 << 24,
                 "tokens of the context, among whose blanks the pairs lie anywhere; 0: they are all of it", MN_SPARSE),
    MN_FIELD_END};

static double *gap_log_weights(int64_t slots, double power) {
  double *w = mn_alloc((size_t)slots * sizeof *w);
  if (w)
    for (int64_t i = 0; i < slots; i++) w[i] = (power - 1) * log((double)(i + 1)); /* the constant factor a cancels */
  return w;
}

static mn_status mqar_setup(mn_task *task) {
  const mqar_config *c = task->config;
  int64_t half = c->vocab_size / 2, values = c->kv + c->update;
  if (c->len % 2) return mn_fail(MN_ERR_CONFIG, "task mqar: len = %lld must be even", (long long)c->len);
  if (c->update > c->kv)
    return mn_fail(MN_ERR_CONFIG, "task mqar: update = %lld is more than the kv = %lld keys", (long long)c->update, (long long)c->kv);
  if (c->kv_min > c->kv)
    return mn_fail(MN_ERR_CONFIG, "task mqar: kv_min = %lld is more than kv = %lld", (long long)c->kv_min, (long long)c->kv);
  if (c->kv_min && (c->fill == FILL_RANDOM || c->update))
    return mn_fail(MN_ERR_CONFIG, "task mqar: with kv_min a blank tells where the context ends: it needs fill = zero and update = 0");
  if (c->kv > half - 1 || values > c->vocab_size - half)
    return mn_fail(MN_ERR_CONFIG, "task mqar: vocab_size = %lld has too few ids for %lld keys and %lld values; use >= %lld",
                   (long long)c->vocab_size, (long long)c->kv, (long long)values, (long long)(2 * (values + 1)));
  if (c->fill == FILL_RANDOM && c->kv > half - 2)
    return mn_fail(MN_ERR_CONFIG,
                   "task mqar: with kv = %lld all ids below vocab_size / 2 are keys, and fill = random draws ids that answer no query: "
                   "use vocab_size >= %lld, or fill = zero",
                   (long long)c->kv, (long long)(2 * (c->kv + 2)));
  int64_t context = 2 * values * c->passes;
  if (c->scatter && (c->fill == FILL_RANDOM || c->update || c->kv_min || c->passes > 1))
    return mn_fail(MN_ERR_CONFIG,
                   "task mqar: with scatter = %lld pairs lie among blanks, each once: it needs fill = zero, update = 0, "
                   "kv_min = 0 and passes = 1",
                   (long long)c->scatter);
  if (c->scatter && (c->scatter % 2 || c->scatter < context))
    return mn_fail(MN_ERR_CONFIG, "task mqar: scatter = %lld must be even and hold %lld pairs, %lld tokens", (long long)c->scatter,
                   (long long)c->kv, (long long)context);
  if (c->scatter) context = c->scatter;
  if (context + 2 * c->kv > c->len)
    return mn_fail(MN_ERR_CONFIG, "task mqar: len = %lld is too short: the context takes %lld tokens and %lld queries take %lld",
                   (long long)c->len, (long long)context, (long long)c->kv, (long long)(2 * c->kv));
  mqar_data *d = task->data = mn_calloc(1, sizeof *d);
  if (!d) return MN_ERR_MEMORY;
  d->context = context;
  d->slots = (c->len - (c->kv_min ? 2 * c->kv_min * c->passes : context)) / 2;
  if (!(d->log_weight = gap_log_weights(d->slots, c->power))) return MN_ERR_MEMORY;
  task->seq_len = c->len;
  task->vocab_size = c->vocab_size;
  return MN_OK;
}

static void mqar_close(mn_task *task) {
  free(((mqar_data *)task->data)->log_weight);
  free(task->data);
}

/* What `fill: random` may draw: every id that the sample does not use as a key or a value, in order, so that nothing after
 * the context binds a key again or shows an answer. A token that follows a key is drawn from the ids below `values` only,
 * so that no value of the vocabulary stands behind a key outside the context. */
typedef struct filler {
  int32_t *ids;     /* (vocab_size) */
  size_t n, n_keys; /* ids; ids below the values, blank among them */
} filler;

static mn_status filler_open(filler *f, int64_t vocab_size, int64_t values, const int32_t *input, int64_t context) {
  f->n = f->n_keys = 0;
  if (!(f->ids = mn_alloc((size_t)vocab_size * sizeof *f->ids))) return MN_ERR_MEMORY;
  for (int64_t i = 0; i < vocab_size; i++) f->ids[i] = (int32_t)i;
  for (int64_t t = 0; t < context; t++) f->ids[input[t]] = -1;
  for (int64_t i = 0; i < vocab_size; i++) {
    if (f->ids[i] < 0) continue;
    f->ids[f->n++] = (int32_t)i;
    f->n_keys += i < values;
  }
  return MN_OK;
}

static int32_t filler_draw(const filler *f, mn_rng *rng, bool after_key) { return f->ids[mn_rng_below(rng, after_key ? f->n_keys : f->n)]; }

/* The order of writes: pairs[p] is the key index of write p, each key's first write before its second. */
static void order_of_writes(mn_rng *rng, const mqar_config *c, int64_t n, int32_t *writes) {
  int64_t count = n + c->update;
  for (int64_t j = 0; j < n; j++) writes[j] = (int32_t)j;
  for (int64_t j = 0; j < c->update; j++) writes[n + j] = (int32_t)j; /* keys are random, so "the first u" is random */
  if (c->update) mn_rng_shuffle(rng, writes, (size_t)count);
}

static mn_status mqar_sample(const mn_task *task, mn_rng *rng, int32_t *input, int32_t *target) {
  const mqar_config *c = task->config;
  const mqar_data *d = task->data;
  int64_t T = c->len, half = c->vocab_size / 2;
  int64_t n = c->kv_min ? c->kv_min + (int64_t)mn_rng_below(rng, (uint64_t)(c->kv - c->kv_min + 1)) : c->kv, count = n + c->update;
  int64_t context = c->scatter ? c->scatter : 2 * count * c->passes, slots = (T - context) / 2;
  size_t ids = (size_t)(c->vocab_size - half);
  const size_t room = ids > (size_t)(context / 2) ? ids : (size_t)(context / 2);
  int32_t *scratch = mn_alloc((room + (size_t)(2 * n + 3 * count)) * sizeof *scratch);
  double *gumbel = mn_alloc((size_t)slots * sizeof *gumbel);
  if (!scratch || !gumbel) {
    free(scratch);
    free(gumbel);
    return MN_ERR_MEMORY;
  }
  int32_t *keys = scratch + room, *gaps = keys + n, *values = gaps + n, *writes = values + count, *places = writes + count;
  mn_rng_choose(rng, 1, (size_t)(half - 1), (size_t)n, scratch, keys);
  mn_rng_choose(rng, (int32_t)half, ids, (size_t)count, scratch, values);
  order_of_writes(rng, c, n, writes);
  mn_rng_choose_weighted(rng, d->log_weight, (size_t)slots, (size_t)n, gumbel, gaps);

  if (c->scatter) mn_rng_choose(rng, 0, (size_t)(context / 2), (size_t)count, scratch, places);

  for (int64_t t = 0; t < T; t++) input[t] = 0, target[t] = MN_IGNORE;
  for (int64_t p = 0; p < count * c->passes; p++) {
    const int64_t at = c->scatter ? 2 * places[p] : 2 * p;
    input[at] = keys[writes[p % count]];
    input[at + 1] = values[p % count];
  }
  for (int64_t p = 0; p < count; p++) { /* a later write replaces the answer of an earlier one */
    int64_t at = context + 2 * gaps[writes[p]];
    input[at] = keys[writes[p]];
    target[at] = values[p];
  }
  free(scratch);
  free(gumbel);
  if (c->fill != FILL_RANDOM) return MN_OK;
  filler f;
  MN_TRY(filler_open(&f, c->vocab_size, half, input, context));
  for (int64_t t = context; t < T; t++)
    if (!input[t]) input[t] = filler_draw(&f, rng, target[t - 1] != MN_IGNORE);
  free(f.ids);
  return MN_OK;
}

/* A dictionary filled from the context; a key asked later is looked up. */
static mn_status mqar_oracle(const mn_task *task, const int32_t *input, int32_t *prediction) {
  const mqar_config *c = task->config;
  const mqar_data *d = task->data;
  int32_t *value_of = mn_calloc((size_t)c->vocab_size, sizeof *value_of);
  if (!value_of) return MN_ERR_MEMORY;
  int64_t context = c->kv_min ? 0 : d->context;
  while (context < d->context && input[context + 1]) context += 2;            /* no value: a question, or a blank */
  for (int64_t t = 0; t < context; t += 2) value_of[input[t]] = input[t + 1]; /* a blank is followed by one */
  for (int64_t t = 0; t < c->len; t++) prediction[t] = t >= context && value_of[input[t]] ? value_of[input[t]] : MN_IGNORE;
  free(value_of);
  return MN_OK;
}

const mn_task_def mn_task_mqar = {
    .name = "mqar",
    .help = "multi-query associative recall: recall the value of every key of the context",
    .fields = mqar_fields,
    .config_size = sizeof(mqar_config),
    .setup = mqar_setup,
    .close = mqar_close,
    .sample = mqar_sample,
    .oracle = mqar_oracle,
};

/* ---- compositional: keys K1 K2 on a g x g grid, thirds of the vocabulary for K1, K2 and values ---- */

typedef struct grid_config {
  int64_t vocab_size, len, grid;
  fill_kind fill;
  double power;
} grid_config;

static const mn_field grid_fields[] = {
    MN_FIELD_INT(grid_config, vocab_size, 512, 9, 1 << 24, "ids: 0 blank, a third each for K1, K2 and values"),
    MN_FIELD_INT(grid_config, len, 128, 6, 1 << 24, "tokens of a sample (T)"),
    MN_FIELD_INT(grid_config, grid, 3, 1, 1 << 10, "g: g x g two-token keys, 6 g^2 <= len"),
    MN_FIELD_FLOAT(grid_config, power, 0.01, 1e-6, 1e3, "gap law, as in mqar"),
    MN_FIELD_ENUM(grid_config, fill, fills, FILL_ZERO, "what stands between queries"),
    MN_FIELD_END};

static mn_status grid_setup(mn_task *task) {
  const grid_config *c = task->config;
  int64_t third = c->vocab_size / 3, n = c->grid * c->grid;
  if (c->grid > third - 1 || n > c->vocab_size - 2 * third)
    return mn_fail(MN_ERR_CONFIG, "task mqar_compositional: vocab_size = %lld has too few ids for grid = %lld; use >= %lld",
                   (long long)c->vocab_size, (long long)c->grid, (long long)(3 * (n + 1)));
  if (6 * n > c->len)
    return mn_fail(MN_ERR_CONFIG, "task mqar_compositional: len = %lld is too short for grid = %lld; use >= %lld", (long long)c->len,
                   (long long)c->grid, (long long)(6 * n));
  mqar_data *d = task->data = mn_calloc(1, sizeof *d);
  if (!d) return MN_ERR_MEMORY;
  d->context = 3 * n;
  d->slots = (c->len - d->context) / 3; /* a slot is K1 K2 and one blank */
  if (!(d->log_weight = gap_log_weights(d->slots, c->power))) return MN_ERR_MEMORY;
  task->seq_len = c->len;
  task->vocab_size = c->vocab_size;
  return MN_OK;
}

static mn_status grid_sample(const mn_task *task, mn_rng *rng, int32_t *input, int32_t *target) {
  const grid_config *c = task->config;
  const mqar_data *d = task->data;
  int64_t third = c->vocab_size / 3, g = c->grid, n = g * g;
  size_t ids = (size_t)(c->vocab_size - 2 * third);
  int32_t *scratch = mn_alloc((ids + (size_t)(2 * g + 3 * n)) * sizeof *scratch);
  double *gumbel = mn_alloc((size_t)d->slots * sizeof *gumbel);
  if (!scratch || !gumbel) {
    free(scratch);
    free(gumbel);
    return MN_ERR_MEMORY;
  }
  int32_t *first = scratch + ids, *second = first + g, *values = second + g, *cells = values + n, *gaps = cells + n;
  mn_rng_choose(rng, 1, (size_t)(third - 1), (size_t)g, scratch, first);
  mn_rng_choose(rng, (int32_t)third, (size_t)third, (size_t)g, scratch, second);
  mn_rng_choose(rng, (int32_t)(2 * third), ids, (size_t)n, scratch, values);
  for (int64_t j = 0; j < n; j++) cells[j] = (int32_t)j;
  mn_rng_shuffle(rng, cells, (size_t)n);
  mn_rng_choose_weighted(rng, d->log_weight, (size_t)d->slots, (size_t)n, gumbel, gaps);

  for (int64_t t = 0; t < c->len; t++) input[t] = 0, target[t] = MN_IGNORE;
  for (int64_t j = 0; j < n; j++) {
    int32_t k1 = first[cells[j] / g], k2 = second[cells[j] % g];
    int64_t at = d->context + 3 * gaps[j];
    input[3 * j] = input[at] = k1;
    input[3 * j + 1] = input[at + 1] = k2;
    input[3 * j + 2] = target[at + 1] = values[j];
  }
  free(scratch);
  free(gumbel);
  if (c->fill != FILL_RANDOM) return MN_OK;
  filler f;
  MN_TRY(filler_open(&f, c->vocab_size, 2 * third, input, d->context));
  for (int64_t t = d->context; t < c->len; t++)
    if (!input[t]) input[t] = filler_draw(&f, rng, target[t - 1] != MN_IGNORE);
  free(f.ids);
  return MN_OK;
}

static mn_status grid_oracle(const mn_task *task, const int32_t *input, int32_t *prediction) {
  const mqar_data *d = task->data;
  for (int64_t t = 0; t < task->seq_len; t++) {
    prediction[t] = MN_IGNORE;
    if (t <= d->context) continue;
    for (int64_t j = 0; j < d->context; j += 3)
      if (input[j] == input[t - 1] && input[j + 1] == input[t]) prediction[t] = input[j + 2];
  }
  return MN_OK;
}

const mn_task_def mn_task_mqar_compositional = {
    .name = "mqar_compositional",
    .help = "associative recall with two-token keys: neither half of a key suffices",
    .fields = grid_fields,
    .config_size = sizeof(grid_config),
    .setup = grid_setup,
    .close = mqar_close,
    .sample = grid_sample,
    .oracle = grid_oracle,
};
