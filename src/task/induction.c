/* induction.c - induction heads (Olsson et al. 2022; the form of Gu & Dao 2023, Mamba, arXiv 2312.00752, appendix E.1).
 *
 *     x x x x S a x x x x x x x x x S       target a on the last position
 *
 * Random symbols; a special one stands in the middle, and at the end, where what followed it is asked for. Trained at one length and
 * judged at others, it tells whether a memory finds what it looks for however long ago that was. */
#include "task/task.h"

typedef struct induction_config {
  int64_t vocab_size, len;
} induction_config;

static const mn_field fields[] = {
    MN_FIELD_INT(induction_config, vocab_size, 16, 3, 1 << 24, "ids: symbols, and at the end the special one"),
    MN_FIELD_INT(induction_config, len, 256, 4, 1 << 24, "tokens of a sample (T)"), MN_FIELD_END};

static mn_status setup(mn_task *task) {
  const induction_config *c = task->config;
  task->seq_len = c->len;
  task->vocab_size = c->vocab_size;
  return MN_OK;
}

static mn_status sample(const mn_task *task, mn_rng *rng, int32_t *input, int32_t *target) {
  const induction_config *c = task->config;
  const int32_t special = (int32_t)c->vocab_size - 1;
  for (int64_t t = 0; t < c->len; t++) {
    input[t] = (int32_t)mn_rng_below(rng, (uint64_t)special);
    target[t] = MN_IGNORE;
  }
  const int64_t at = (int64_t)mn_rng_below(rng, (uint64_t)c->len - 2); /* a symbol follows before the end */
  input[at] = input[c->len - 1] = special;
  target[c->len - 1] = input[at + 1];
  return MN_OK;
}

static mn_status oracle(const mn_task *task, const int32_t *input, int32_t *prediction) {
  const induction_config *c = task->config;
  int64_t at = 0;
  while (input[at] != c->vocab_size - 1) at++;
  for (int64_t t = 0; t < c->len; t++) prediction[t] = input[at + 1];
  return MN_OK;
}

static void evidence(const mn_task *task, const int32_t *input, int32_t *position) {
  const induction_config *c = task->config;
  int32_t at = 0;
  while (input[at] != c->vocab_size - 1) at++;
  for (int64_t t = 0; t < c->len; t++) position[t] = t == c->len - 1 ? at + 1 : -1;
}

const mn_task_def mn_task_induction = {.name = "induction",
                                       .help = "what followed the special symbol, when it comes again at the end",
                                       .fields = fields,
                                       .config_size = sizeof(induction_config),
                                       .setup = setup,
                                       .sample = sample,
                                       .oracle = oracle,
                                       .evidence = evidence};
