/* task.c - settings, samples and scores. The generators are in their own files, where the build finds them for the table. */
#include "task/task.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const mn_task_def *mn_task_find(const char *name) {
  for (int i = 0; i < mn_task_count(); i++)
    if (!strcmp(mn_task_at(i)->name, name)) return mn_task_at(i);
  return NULL;
}

/* ---- opening ---- */

static size_t count_bytes(void *ctx, const char *text, size_t n) {
  (void)ctx;
  (void)text;
  return n;
}

typedef struct common_config { /* the keys of every task */
  const char *name;
  int64_t seed;
} common_config;
static const mn_field common_fields[] = {MN_FIELD_STRING(common_config, name, NULL, "the task"),
                                         MN_FIELD_INT(common_config, seed, 1, 0, INT64_MAX, "base seed of all samples"), MN_FIELD_END};

static const char *name_at(int i) { return mn_task_at(i)->name; }

static mn_status choose_task(const mn_value *settings, const char *name, const mn_task_def **out) {
  int i;
  *out = NULL;
  MN_TRY(mn_config_choose(mn_value_get(settings, "name"), "task", name, mn_task_count(), name_at, &i));
  *out = mn_task_at(i);
  return MN_OK;
}

static mn_status read_settings(mn_arena *arena, const mn_task_def *def, const mn_value *settings, void *config, common_config *common) {
  mn_config_defaults(common_fields, common);
  mn_config_defaults(def->fields, config);
  const mn_config_part parts[] = {{def->fields, config}, {common_fields, common}};
  return mn_config_parse(arena, settings, "task", parts, 2);
}

mn_status mn_task_check(const char *name, const mn_value *settings) {
  const mn_task_def *def;
  MN_TRY(choose_task(settings, name, &def));
  mn_arena *arena = mn_arena_new();
  void *config = arena ? mn_arena_alloc(arena, def->config_size) : NULL;
  common_config common;
  mn_status status = config ? read_settings(arena, def, settings, config, &common) : MN_ERR_MEMORY;
  mn_arena_free(arena);
  return status;
}

static mn_status open_task(mn_task *task, const mn_value *settings) {
  const mn_task_def *def = task->def;
  common_config common;
  if (!task->arena || !(task->config = mn_arena_alloc(task->arena, def->config_size))) return MN_ERR_MEMORY;
  MN_TRY(read_settings(task->arena, def, settings, task->config, &common));
  task->seed = (uint64_t)common.seed;
  return def->setup(task);
}

mn_status mn_task_open(const char *name, const mn_value *settings, mn_task **out) {
  *out = NULL;
  const mn_task_def *def;
  MN_TRY(choose_task(settings, name, &def));
  mn_task *task = mn_calloc(1, sizeof *task);
  if (!task) return MN_ERR_MEMORY;
  task->def = def;
  task->count_tokens = count_bytes;
  task->arena = mn_arena_new();
  mn_status status = open_task(task, settings);
  if (status != MN_OK) mn_task_close(task);
  else *out = task;
  return status;
}

mn_status mn_task_open_set(const char *name, const char *const *assignments, int n, mn_task **out) {
  *out = NULL;
  mn_arena *arena = mn_arena_new();
  if (!arena) return MN_ERR_MEMORY;
  const mn_value *settings = mn_value_map(arena, 0, NULL, NULL);
  mn_status status = settings ? MN_OK : MN_ERR_MEMORY;
  for (int i = 0; i < n && status == MN_OK; i++) {
    const char *a = strncmp(assignments[i], "task.", 5) ? assignments[i] : assignments[i] + 5;
    status = mn_value_set(arena, settings, a, &settings);
  }
  if (status == MN_OK) status = mn_task_open(name, settings, out);
  mn_arena_free(arena);
  return status;
}

void mn_task_close(mn_task *task) {
  if (!task) return;
  if (task->def->close && task->data) task->def->close(task);
  if (task->arena) mn_arena_free(task->arena);
  free(task);
}

void mn_task_count_with(mn_task *task, size_t (*count)(void *ctx, const char *text, size_t n), void *ctx) {
  task->count_tokens = count ? count : count_bytes;
  task->count_ctx = ctx;
}

/* ---- samples ---- */

static mn_status check_split(const mn_task *task, int split) {
  if (split >= MN_SPLIT_TRAIN && split <= MN_SPLIT_TEST) return MN_OK;
  return mn_fail(MN_ERR_ARG, "task %s: split %d is not 0 (train), 1 (validation) or 2 (test)", task->def->name, split);
}

mn_status mn_task_sample(const mn_task *task, int split, uint64_t index, int32_t *input, int32_t *target) {
  MN_TRY(check_split(task, split));
  if (!task->def->sample)
    return mn_fail(MN_ERR_ARG, "task %s makes %s", task->def->name,
                   task->def->sample_label  ? "one label for a sequence, not a target for each token"
                   : task->def->sample_span ? "a span for a sequence, not a target for each token"
                                            : "text, not token ids: it needs a tokenizer");
  mn_rng rng;
  mn_rng_seed(&rng, mn_sample_seed(task->def->name, (uint64_t)split, task->seed, index));
  return task->def->sample(task, &rng, input, target);
}

mn_status mn_task_sample_label(const mn_task *task, int split, uint64_t index, int32_t *input, int32_t *length, int32_t *label) {
  MN_TRY(check_split(task, split));
  if (!task->def->sample_label) return mn_fail(MN_ERR_ARG, "task %s does not label sequences", task->def->name);
  mn_rng rng;
  mn_rng_seed(&rng, mn_sample_seed(task->def->name, (uint64_t)split, task->seed, index));
  return task->def->sample_label(task, split, &rng, input, length, label);
}

mn_status mn_task_sample_span(const mn_task *task, int split, uint64_t index, int32_t *input, int32_t *length, int32_t span[2]) {
  MN_TRY(check_split(task, split));
  if (!task->def->sample_span) return mn_fail(MN_ERR_ARG, "task %s asks for no span", task->def->name);
  mn_rng rng;
  mn_rng_seed(&rng, mn_sample_seed(task->def->name, (uint64_t)split, task->seed, index));
  return task->def->sample_span(task, &rng, input, length, span);
}

mn_status mn_task_sample_text(const mn_task *task, int split, uint64_t index, mn_task_text *out) {
  memset(out, 0, sizeof *out);
  MN_TRY(check_split(task, split));
  if (!task->def->sample_text) return mn_fail(MN_ERR_ARG, "task %s makes token ids, not text", task->def->name);
  mn_status status = task->def->sample_text(task, split, mn_sample_seed(task->def->name, (uint64_t)split, task->seed, index), out);
  if (status != MN_OK) mn_task_text_free(out);
  return status;
}

void mn_task_text_free(mn_task_text *sample) {
  free(sample->prompt);
  free(sample->answer);
  for (int i = 0; i < sample->n_answers; i++) free(sample->answers[i]);
  free(sample->answers);
  memset(sample, 0, sizeof *sample);
}

mn_status mn_task_oracle(const mn_task *task, const int32_t *input, int32_t *prediction) {
  if (!task->def->oracle) return mn_fail(MN_ERR_ARG, "task %s has no oracle of token ids", task->def->name);
  return task->def->oracle(task, input, prediction);
}

double mn_task_score_text(const mn_task *task, const mn_task_text *sample, const char *output) {
  return task->def->score_text ? task->def->score_text(task, sample, output) : NAN;
}

/* ---- scores ---- */

void mn_task_score_add(mn_task_score *score, const int32_t *target, const int32_t *prediction, int64_t seq_len) {
  int64_t asked = 0, right = 0;
  for (int64_t t = 0; t < seq_len; t++) {
    if (target[t] == MN_IGNORE) continue;
    asked++;
    right += prediction[t] == target[t];
  }
  if (!asked) return; /* nothing was asked: the example carries no evidence */
  score->examples++;
  score->positions += asked;
  score->acc_sum += (double)right / (double)asked;
  score->all_right += right == asked;
}

double mn_task_acc(const mn_task_score *score) { return score->examples ? score->acc_sum / (double)score->examples : NAN; }

double mn_task_seq_acc(const mn_task_score *score) { return score->examples ? (double)score->all_right / (double)score->examples : NAN; }

void mn_wilson_interval(int64_t right, int64_t n, double *low, double *high) {
  if (n <= 0) {
    *low = 0;
    *high = 1;
    return;
  }
  const double z = 1.959963984540054; /* the 97.5 % point of the normal law */
  double N = (double)n, p = (double)right / N, z2 = z * z;
  double centre = (p + z2 / (2 * N)) / (1 + z2 / N);
  double half = z / (1 + z2 / N) * sqrt(p * (1 - p) / N + z2 / (4 * N * N));
  *low = right <= 0 || centre - half < 0 ? 0 : centre - half; /* without rounding's 1e-17 at the ends */
  *high = right >= n || centre + half > 1 ? 1 : centre + half;
}
