/* copying.c - copying and selective copying (Poli et al. 2024, MAD, arXiv 2403.17844; Gu & Dao 2023, Mamba, arXiv 2312.00752).
 *
 *     copying             d1 d2 ... dm . . . . . . COPY . . . .       target d1 ... dm on the last m positions
 *     selective_copying   d1 . . d2 . d3 ... . dm  COPY . . . .       the same; blanks lie anywhere before a token of data
 *
 * Ids: data from 0 on, then the blank, then COPY. Copying asks for a memory of places; selective copying for one that tells what
 * to keep: nothing about the time of a token says which it is. */
#include "task/task.h"

#include <stdlib.h>

typedef struct copying_config {
  int64_t vocab_size, len, copied;
} copying_config;

static const mn_field fields[] = {MN_FIELD_INT(copying_config, vocab_size, 16, 4, 1 << 24, "ids: data, and at the end blank and copy"),
                                  MN_FIELD_INT(copying_config, len, 256, 3, 1 << 24, "tokens of a sample (T)"),
                                  MN_FIELD_INT(copying_config, copied, 16, 1, 1 << 22, "tokens of data (m), asked for at the end"),
                                  MN_FIELD_END};

static mn_status setup(mn_task *task) {
  const copying_config *c = task->config;
  if (c->len < 2 * c->copied + 1)
    return mn_fail(MN_ERR_CONFIG, "task %s: len = %lld is too short to say %lld tokens twice; use >= %lld", task->def->name,
                   (long long)c->len, (long long)c->copied, (long long)(2 * c->copied + 1));
  task->seq_len = c->len;
  task->vocab_size = c->vocab_size;
  return MN_OK;
}

static int32_t blank(const copying_config *c) { return (int32_t)c->vocab_size - 2; }

/* selective: each blank stands before a token of data that is drawn for it, uniformly, so that none stands behind the last one. */
static mn_status draw(const mn_task *task, mn_rng *rng, bool selective, int32_t *input, int32_t *target) {
  const copying_config *c = task->config;
  const int64_t m = c->copied, first = c->len - m, blanks = first - 1 - m;
  int32_t *before = mn_calloc((size_t)m, sizeof *before); /* blanks before each token of data */
  if (!before) return MN_ERR_MEMORY;
  for (int64_t i = 0; i < blanks && selective; i++) before[mn_rng_below(rng, (uint64_t)m)]++;
  for (int64_t t = 0; t < c->len; t++) {
    input[t] = blank(c);
    target[t] = MN_IGNORE;
  }
  for (int64_t i = 0, t = 0; i < m; i++, t++) {
    t += before[i];
    input[t] = target[first + i] = (int32_t)mn_rng_below(rng, (uint64_t)c->vocab_size - 2);
  }
  input[first - 1] = blank(c) + 1;
  free(before);
  return MN_OK;
}

static mn_status sample(const mn_task *task, mn_rng *rng, int32_t *input, int32_t *target) { return draw(task, rng, false, input, target); }
static mn_status sample_selective(const mn_task *task, mn_rng *rng, int32_t *input, int32_t *target) {
  return draw(task, rng, true, input, target);
}

static mn_status oracle(const mn_task *task, const int32_t *input, int32_t *prediction) {
  const copying_config *c = task->config;
  int64_t at = c->len - c->copied;
  for (int64_t t = 0; t < c->len; t++) prediction[t] = 0;
  for (int64_t t = 0; input[t] != blank(c) + 1; t++)
    if (input[t] != blank(c)) prediction[at++] = input[t];
  return MN_OK;
}

const mn_task_def mn_task_copying = {.name = "copying",
                                     .help = "say again, after blanks, what the sample began with",
                                     .fields = fields,
                                     .config_size = sizeof(copying_config),
                                     .setup = setup,
                                     .sample = sample,
                                     .oracle = oracle};
const mn_task_def mn_task_selective_copying = {.name = "selective_copying",
                                               .help = "say again, in order, the tokens that lay scattered among blanks",
                                               .fields = fields,
                                               .config_size = sizeof(copying_config),
                                               .setup = setup,
                                               .sample = sample_selective,
                                               .oracle = oracle};
