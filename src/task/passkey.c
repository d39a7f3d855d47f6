/* passkey.c - passkey retrieval as text (Mohtashami & Jaggi, Landmark attention, arXiv 2305.16300): a number hidden in
 * `garbage` characters of repeated sentences, asked for at the end. */
#include "task/task.h"
#include "task/words.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct passkey_config {
  int64_t garbage;
  double depth;
} passkey_config;

static const mn_field fields[] = {
    MN_FIELD_INT(passkey_config, garbage, 1000, 0, 1 << 28, "characters of irrelevant text before and after (n)"),
    MN_FIELD_FLOAT(passkey_config, depth, -1, -1, 100, "percent of the garbage before the key; -1: uniform"), MN_FIELD_END};

static const char head[] = "There is an important info hidden inside a lot of irrelevant text. Find it and memorize "
                           "them. I will quiz you about the important information there.\n";
static const char question[] = "\nWhat is the pass key? The pass key is";

static mn_status setup(mn_task *task) {
  (void)task;
  return MN_OK;
}

static char *put_garbage(char *at, size_t n) {
  const size_t period = strlen(mn_words_noise) + 1; /* the block and the space that joins it to the next */
  for (size_t i = 0; i < n; i++) at[i] = i % period == period - 1 ? ' ' : mn_words_noise[i % period];
  return at + n;
}

static mn_status sample(const mn_task *task, int split, uint64_t seed, mn_task_text *out) {
  (void)split;
  const passkey_config *c = task->config;
  mn_rng rng;
  mn_rng_seed(&rng, seed);
  size_t n = (size_t)c->garbage;
  size_t prefix = (size_t)mn_rng_below(&rng, n + 1);
  int key = 1 + (int)mn_rng_below(&rng, 50000);
  if (c->depth >= 0) prefix = (size_t)((double)n * c->depth / 100);
  char info[96];
  int info_len = snprintf(info, sizeof info, "\nThe pass key is %d. Remember it. %d is the pass key.\n", key, key);
  char *p = out->prompt = mn_alloc(sizeof head + n + (size_t)info_len + sizeof question);
  out->answer = mn_format(" %d", key);
  out->answers = mn_calloc(1, sizeof *out->answers);
  if (!p || !out->answer || !out->answers) return MN_ERR_MEMORY;
  memcpy(p, head, sizeof head - 1);
  p = put_garbage(p + sizeof head - 1, prefix);
  memcpy(p, info, (size_t)info_len);
  p = put_garbage(p + info_len, n - prefix);
  memcpy(p, question, sizeof question);
  if (!(out->answers[0] = mn_format("%d", key))) return MN_ERR_MEMORY;
  out->n_answers = 1;
  return MN_OK;
}

static char *oracle(const mn_task *task, const char *prompt) {
  (void)task;
  static const char mark[] = "\nThe pass key is ";
  const char *p = strstr(prompt, mark);
  return mn_format(" %d", p ? atoi(p + sizeof mark - 1) : 0);
}

static double score(const mn_task *task, const mn_task_text *s, const char *output) { /* the first run of digits */
  (void)task;
  while (*output && !isdigit((unsigned char)*output)) output++;
  size_t n = 0;
  while (isdigit((unsigned char)output[n])) n++;
  return n && n == strlen(s->answers[0]) && !memcmp(output, s->answers[0], n);
}

const mn_task_def mn_task_passkey = {
    .name = "passkey",
    .help = "find a number hidden in repeated sentences (text)",
    .fields = fields,
    .config_size = sizeof(passkey_config),
    .setup = setup,
    .sample_text = sample,
    .oracle_text = oracle,
    .score_text = score,
};
