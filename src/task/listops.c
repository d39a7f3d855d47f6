/* listops.c - ListOps: the value of a nested expression of digit lists (Nangia & Bowman 2018, arXiv 1804.06028), as in Long
 * Range Arena (Tay et al. 2021, arXiv 2011.04006): a sequence of tokens and one of ten classes.
 *
 *     expression(depth): a digit with probability `value_probability`, or when depth has reached max_depth;
 *                        else [OP and 2 ... max_args expressions(depth + 1) and a closing bracket
 *     MIN, MAX; MED: the middle one, of an even number the mean of the two middle ones, cut; SM: the sum modulo 10
 *
 * Drawn again until min_length < tokens < max_length. A hash of the expression says to which split it belongs, one in ten to
 * validation and one to test, so that no two splits share one. */
#include "task/task.h"

#include <stdlib.h>
#include <string.h>

enum { PAD = 0, DIGIT = 1, OPERATOR = 11, CLOSE = 15, VOCABULARY = 16, MAX_ARGS = 32, MAX_DRAWS = 100000 };
enum { OP_MIN, OP_MAX, OP_MED, OP_SM, OPERATORS };

typedef struct listops_config {
  int64_t max_depth, max_args, min_length, max_length;
  double value_probability;
} listops_config;

#define FIELDS(depth, args, shortest, longest, value)                                                                                      \
  {                                                                                                                                        \
    MN_FIELD_INT(listops_config, max_depth, depth, 1, 64, "brackets within brackets, at most"),                                            \
        MN_FIELD_INT(listops_config, max_args, args, 2, MAX_ARGS, "most expressions of an operator"),                                      \
        MN_FIELD_INT(listops_config, min_length, shortest, 0, 1 << 16, "an expression has more tokens than this"),                         \
        MN_FIELD_INT(listops_config, max_length, longest, 2, 1 << 16, "and fewer than this: T of a sample"),                               \
        MN_FIELD_FLOAT(listops_config, value_probability, value, 0, 0.99, "how often an expression is a digit"), MN_FIELD_END              \
  }
static const mn_field fields[] = FIELDS(10, 10, 500, 2000, 0.75), small_fields[] = FIELDS(4, 4, 16, 128, 0.5);

static mn_status setup(mn_task *task) {
  const listops_config *c = task->config;
  if (c->min_length + 2 > c->max_length)
    return mn_fail(MN_ERR_CONFIG, "task %s: nothing is longer than min_length = %lld and shorter than max_length = %lld", task->def->name,
                   (long long)c->min_length, (long long)c->max_length);
  task->seq_len = c->max_length;
  task->vocab_size = VOCABULARY;
  task->n_classes = 10;
  return MN_OK;
}

/* ---- values ---- */

static int by_value(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }

static int apply(int operator, int * x, int n) {
  int sum = 0;
  qsort(x, (size_t)n, sizeof *x, by_value);
  for (int i = 0; i < n; i++) sum += x[i];
  switch (operator) {
  case OP_MIN:
    return x[0];
  case OP_MAX:
    return x[n - 1];
  case OP_MED:
    return n % 2 ? x[n / 2] : (x[n / 2 - 1] + x[n / 2]) / 2;
  default:
    return sum % 10;
  }
}

/* ---- drawing ---- */

typedef struct drawing {
  const listops_config *c;
  mn_rng *rng;
  int32_t *tokens;
  int64_t n; /* so far; beyond max_length nothing more is written */
} drawing;

static void put(drawing *d, int32_t token) {
  if (d->n < d->c->max_length) d->tokens[d->n] = token;
  d->n++;
}

static int draw(drawing *d, int64_t depth) { /* its value */
  const listops_config *c = d->c;
  bool leaf = depth >= c->max_depth || mn_rng_uniform(d->rng) < c->value_probability;
  if (leaf || d->n >= c->max_length) {
    int digit = (int)mn_rng_below(d->rng, 10);
    put(d, DIGIT + digit);
    return digit;
  }
  int x[MAX_ARGS], n = 2 + (int)mn_rng_below(d->rng, (uint64_t)c->max_args - 1), operator=(int) mn_rng_below(d->rng, OPERATORS);
  put(d, OPERATOR + operator);
  for (int i = 0; i < n; i++) x[i] = draw(d, depth + 1);
  put(d, CLOSE);
  return apply(operator, x, n);
}

static int split_of(const int32_t *tokens, int64_t n) {
  uint64_t h = 0xcbf29ce484222325u; /* FNV-1a */
  for (int64_t i = 0; i < n; i++) h = (h ^ (uint64_t)tokens[i]) * 0x100000001b3u;
  uint64_t tenth = (h ^ h >> 32) % 10;
  return tenth == 0 ? MN_SPLIT_VALIDATION : tenth == 1 ? MN_SPLIT_TEST : MN_SPLIT_TRAIN;
}

static mn_status sample(const mn_task *task, int split, mn_rng *rng, int32_t *input, int32_t *length, int32_t *label) {
  const listops_config *c = task->config;
  for (int i = 0; i < MAX_DRAWS; i++) {
    drawing d = {.c = c, .rng = rng, .tokens = input};
    *label = draw(&d, 1);
    if (d.n <= c->min_length || d.n >= c->max_length || split_of(input, d.n) != split) continue;
    memset(input + d.n, PAD, (size_t)(task->seq_len - d.n) * sizeof *input);
    *length = (int32_t)d.n;
    return MN_OK;
  }
  return mn_fail(MN_ERR_CONFIG,
                 "task %s: none of %d expressions has more than %lld and fewer than %lld tokens; raise max_depth or max_args, lower "
                 "value_probability, or widen the lengths",
                 task->def->name, MAX_DRAWS, (long long)c->min_length, (long long)c->max_length);
}

/* ---- solving ---- a stack of open brackets, from the tokens alone */
static mn_status oracle(const mn_task *task, const int32_t *input, int32_t length, int32_t *label) {
  struct open {
    int operator, n, x[MAX_ARGS];
  } *stack = mn_alloc(65 * sizeof *stack);
  if (!stack) return MN_ERR_MEMORY;
  mn_status status = MN_OK;
  int depth = 0, value = -1;
  for (int32_t i = 0; i < length && status == MN_OK; i++) {
    int32_t t = input[i];
    if (t >= OPERATOR && t < CLOSE && depth < 65) {
      stack[depth++] = (struct open){.operator= t - OPERATOR };
      continue;
    }
    if (t == CLOSE && depth && stack[depth - 1].n) {
      depth--;
      value = apply(stack[depth].operator, stack[depth].x, stack[depth].n);
    } else if (t >= DIGIT && t < OPERATOR) value = t - DIGIT;
    else status = mn_fail(MN_ERR_ARG, "task %s: token %d at %d does not belong there", task->def->name, t, i);
    if (depth && stack[depth - 1].n < MAX_ARGS) stack[depth - 1].x[stack[depth - 1].n++] = value;
  }
  free(stack);
  if (status == MN_OK && (depth || value < 0)) status = mn_fail(MN_ERR_ARG, "task %s: an expression does not end", task->def->name);
  *label = value;
  return status;
}

#define LISTOPS(id, title, its_fields)                                                                                                     \
  .name = id, .help = title, .fields = its_fields, .config_size = sizeof(listops_config), .setup = setup, .sample_label = sample,          \
  .oracle_label = oracle
/* clang-format off: a definition stands at a line's start, where the build finds it */
const mn_task_def mn_task_listops = {LISTOPS("listops", "the value of a nested expression, ten classes", fields)};
const mn_task_def mn_task_listops_mini = {LISTOPS("listops_mini", "ListOps with short expressions", small_fields)};
/* clang-format on */
