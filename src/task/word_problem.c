/* word_problem.c - word problems of groups: state tracking (Merrill, Petty & Sabharwal 2024, arXiv 2404.08819).
 *
 *     x1 x2 x3 ... xT        target xt ... x2 x1, the product so far, on every position, or on the last alone
 *
 * cyclic: numbers added modulo n; n = 2 is parity. symmetric: permutations of n things, numbered in lexicographic order, applied one
 * after the other; from n = 5 on no state space model with a diagonal transition and no attention of fixed depth solves it at every
 * length, while one dense or nonlinear step for each token does. */
#include "task/task.h"

#include <stdlib.h>

typedef enum { CYCLIC, SYMMETRIC } group_kind;
static const char *const groups[] = {"cyclic", "symmetric", NULL};
typedef enum { EACH, LAST } asked_kind;
static const char *const asked[] = {"each", "last", NULL};

enum { MOST_THINGS = 5, MOST_PERMUTATIONS = 120 };

typedef struct word_config {
  group_kind group;
  asked_kind ask;
  int64_t n, len;
} word_config;

typedef struct word_data { /* of the symmetric group: by number, and a number by its permutation */
  int8_t permutation[MOST_PERMUTATIONS][MOST_THINGS];
  int64_t size;
} word_data;

static const mn_field fields[] = {
    MN_FIELD_ENUM(word_config, group, groups, SYMMETRIC, "numbers added modulo n, or permutations of n things"),
    MN_FIELD_INT(word_config, n, 5, 2, 1 << 20, "what the numbers are modulo, or how many things are permuted (2 to 5)"),
    MN_FIELD_INT(word_config, len, 32, 1, 1 << 24, "elements of a word (T)"),
    MN_FIELD_ENUM(word_config, ask, asked, EACH, "the product is asked for at each position, or at the last alone"), MN_FIELD_END};

/* The permutations of n things in lexicographic order. */
static void number_permutations(word_data *d, int n) {
  int8_t p[MOST_THINGS];
  for (int8_t i = 0; i < n; i++) p[i] = i;
  for (d->size = 0;; d->size++) {
    for (int i = 0; i < n; i++) d->permutation[d->size][i] = p[i];
    int k = n - 2; /* the next one: the last rise, its smallest larger one behind it, and what follows turned round */
    while (k >= 0 && p[k] > p[k + 1]) k--;
    if (k < 0) break;
    int j = n - 1;
    while (p[j] < p[k]) j--;
    int8_t kept = p[k];
    p[k] = p[j], p[j] = kept;
    for (int a = k + 1, b = n - 1; a < b; a++, b--) kept = p[a], p[a] = p[b], p[b] = kept;
  }
  d->size++;
}

static mn_status setup(mn_task *task) {
  const word_config *c = task->config;
  if (c->group == SYMMETRIC && c->n > MOST_THINGS)
    return mn_fail(MN_ERR_CONFIG,
                   "task word_problem: n = %lld things have too many permutations for a vocabulary; use 2 to %d, or group = cyclic",
                   (long long)c->n, MOST_THINGS);
  word_data *d = task->data = mn_calloc(1, sizeof *d);
  if (!d) return MN_ERR_MEMORY;
  d->size = c->n;
  if (c->group == SYMMETRIC) number_permutations(d, (int)c->n);
  task->seq_len = c->len;
  task->vocab_size = d->size;
  return MN_OK;
}

static void close(mn_task *task) { free(task->data); }

/* What `state` becomes by x: thing i goes where x puts what state made of it. */
static int32_t times(const mn_task *task, int32_t x, int32_t state) {
  const word_config *c = task->config;
  const word_data *d = task->data;
  if (c->group == CYCLIC) return (int32_t)(((int64_t)x + state) % c->n);
  int32_t at = 0; /* its number: of each thing, how many smaller ones come behind it */
  for (int i = 0; i < c->n; i++) {
    int smaller = 0;
    for (int j = i + 1; j < c->n; j++) smaller += d->permutation[x][d->permutation[state][j]] < d->permutation[x][d->permutation[state][i]];
    at = at * (int32_t)(c->n - i) + smaller;
  }
  return at;
}

static mn_status sample(const mn_task *task, mn_rng *rng, int32_t *input, int32_t *target) {
  const word_config *c = task->config;
  for (int64_t t = 0, state = 0; t < c->len; t++) { /* 0: what changes nothing */
    input[t] = (int32_t)mn_rng_below(rng, (uint64_t)task->vocab_size);
    state = times(task, input[t], (int32_t)state);
    target[t] = c->ask == EACH || t == c->len - 1 ? (int32_t)state : MN_IGNORE;
  }
  return MN_OK;
}

/* Follows each thing by itself, where the generator numbers whole permutations. */
static mn_status oracle(const mn_task *task, const int32_t *input, int32_t *prediction) {
  const word_config *c = task->config;
  const word_data *d = task->data;
  int8_t where[MOST_THINGS] = {0, 1, 2, 3, 4};
  uint64_t sum = 0;
  for (int64_t t = 0; t < c->len; t++) {
    sum += (uint64_t)input[t];
    prediction[t] = (int32_t)(sum % (uint64_t)c->n);
    if (c->group == CYCLIC) continue;
    for (int i = 0; i < c->n; i++) where[i] = d->permutation[input[t]][where[i]];
    for (int32_t k = 0; k < d->size; k++) {
      int same = 0;
      for (int i = 0; i < c->n; i++) same += d->permutation[k][i] == where[i];
      if (same == c->n) prediction[t] = k;
    }
  }
  return MN_OK;
}

const mn_task_def mn_task_word_problem = {.name = "word_problem",
                                          .help =
                                              "state tracking: the product of a word's elements so far; parity, modular sums, permutations",
                                          .fields = fields,
                                          .config_size = sizeof(word_config),
                                          .setup = setup,
                                          .close = close,
                                          .sample = sample,
                                          .oracle = oracle};
