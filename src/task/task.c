/* task.c - the table of tasks, settings, samples and scores. The generators are in their own files. */
#include "task/task.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

extern const mn_task_def mn_task_mqar, mn_task_mqar_compositional, mn_task_passkey, mn_task_niah, mn_task_niah_single_1,
    mn_task_niah_single_2, mn_task_niah_single_3, mn_task_niah_single_w, mn_task_niah_multikey_1,
    mn_task_niah_multivalue, mn_task_niah_multiquery, mn_task_niah_mini;

static const mn_task_def *const table[] = {
    &mn_task_mqar,          &mn_task_mqar_compositional, &mn_task_niah_mini,       &mn_task_passkey,
    &mn_task_niah,          &mn_task_niah_single_1,      &mn_task_niah_single_2,   &mn_task_niah_single_3,
    &mn_task_niah_single_w, &mn_task_niah_multikey_1,    &mn_task_niah_multivalue, &mn_task_niah_multiquery};

const mn_task_def *mn_task_at(int i) { return i >= 0 && (size_t)i < sizeof table / sizeof *table ? table[i] : NULL; }

const mn_task_def *mn_task_find(const char *name) {
  for (size_t i = 0; i < sizeof table / sizeof *table; i++)
    if (!strcmp(table[i]->name, name)) return table[i];
  return NULL;
}

/* ---- settings ---- */

static void names_of_fields(const mn_task_def *def, char *buf, size_t size) {
  size_t n = 0;
  buf[0] = 0;
  for (int i = 0; i <= def->n_fields && n + 32 < size; i++) {
    const char *name = i < def->n_fields ? def->fields[i].name : "seed";
    size_t len = strlen(name);
    if (n + len + 3 > size) break;
    if (i) memcpy(buf + n, ", ", 2), n += 2;
    memcpy(buf + n, name, len + 1);
    n += len;
  }
}

static bool parse_choice(const char *choices, const char *value, int64_t *out) {
  size_t len = strlen(value);
  const char *p = choices;
  for (int64_t i = 0;; i++) {
    size_t n = strcspn(p, "|");
    if (n == len && !memcmp(p, value, n)) return *out = i, true;
    if (!p[n]) return false;
    p += n + 1;
  }
}

static mn_status parse_field(mn_task *task, const mn_task_field *f, const char *value) {
  const char *task_name = task->def->name;
  char *at = (char *)task->config + f->offset, *end = NULL;
  errno = 0;
  switch (f->kind) {
  case MN_TASK_INT: {
    long long x = strtoll(value, &end, 10);
    if (end == value || *end || errno)
      return mn_fail(MN_ERR_CONFIG, "task %s: %s = '%s' is not a whole number", task_name, f->name, value);
    if ((double)x < f->min || (double)x > f->max)
      return mn_fail(MN_ERR_CONFIG, "task %s: %s = %lld is outside %.0f ... %.0f", task_name, f->name, x, f->min,
                     f->max);
    memcpy(at, &(int64_t){x}, sizeof(int64_t));
    return MN_OK;
  }
  case MN_TASK_REAL: {
    double x = strtod(value, &end);
    if (end == value || *end || !isfinite(x))
      return mn_fail(MN_ERR_CONFIG, "task %s: %s = '%s' is not a number", task_name, f->name, value);
    if (x < f->min || x > f->max)
      return mn_fail(MN_ERR_CONFIG, "task %s: %s = %g is outside %g ... %g", task_name, f->name, x, f->min, f->max);
    memcpy(at, &x, sizeof x);
    return MN_OK;
  }
  case MN_TASK_CHOICE: {
    int64_t x;
    if (!parse_choice(f->choices, value, &x))
      return mn_fail(MN_ERR_CONFIG, "task %s: %s = '%s' is not one of %s", task_name, f->name, value, f->choices);
    memcpy(at, &x, sizeof x);
    return MN_OK;
  }
  case MN_TASK_STRING: {
    const char *copy = mn_arena_strdup(task->arena, value);
    if (!copy) return MN_ERR_MEMORY;
    memcpy(at, &copy, sizeof copy);
    return MN_OK;
  }
  }
  return MN_ERR_INTERNAL;
}

static void set_defaults(mn_task *task) {
  for (int i = 0; i < task->def->n_fields; i++) {
    const mn_task_field *f = &task->def->fields[i];
    char *at = (char *)task->config + f->offset;
    double x = task->def->preset ? task->def->preset[i] : f->initial;
    if (f->kind == MN_TASK_REAL)
      memcpy(at, &x, sizeof x);
    else if (f->kind == MN_TASK_STRING)
      memcpy(at, &(const char *){""}, sizeof(const char *));
    else
      memcpy(at, &(int64_t){(int64_t)x}, sizeof(int64_t));
  }
}

static mn_status apply_setting(mn_task *task, const char *setting) {
  const char *key = strncmp(setting, "task.", 5) ? setting : setting + 5;
  const char *eq = strchr(key, '=');
  if (!eq) return mn_fail(MN_ERR_CONFIG, "task %s: setting '%s' has no '='; write key=value", task->def->name, setting);
  size_t len = (size_t)(eq - key);
  if (len == 4 && !memcmp(key, "seed", 4)) {
    char *end;
    errno = 0;
    task->seed = strtoull(eq + 1, &end, 10);
    if (end == eq + 1 || *end || errno || eq[1] == '-')
      return mn_fail(MN_ERR_CONFIG, "task %s: seed = '%s' is not a whole number >= 0", task->def->name, eq + 1);
    return MN_OK;
  }
  for (int i = 0; i < task->def->n_fields; i++) {
    const mn_task_field *f = &task->def->fields[i];
    if (strlen(f->name) == len && !memcmp(f->name, key, len)) return parse_field(task, f, eq + 1);
  }
  char names[512];
  names_of_fields(task->def, names, sizeof names);
  return mn_fail(MN_ERR_CONFIG, "task %s: unknown setting '%.*s'; the settings are %s", task->def->name, (int)len, key,
                 names);
}

static size_t count_bytes(void *ctx, const char *text, size_t n) {
  (void)ctx;
  (void)text;
  return n;
}

mn_status mn_task_open(const char *name, const char *const *settings, int n_settings, mn_task **out) {
  *out = NULL;
  const mn_task_def *def = mn_task_find(name);
  if (!def) {
    char names[512] = "";
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
      if (strlen(names) + strlen(table[i]->name) + 3 > sizeof names) break;
      if (i) strcat(names, ", ");
      strcat(names, table[i]->name);
    }
    return mn_fail(MN_ERR_CONFIG, "unknown task '%s'; the tasks are %s", name, names);
  }
  mn_task *task = mn_calloc(1, sizeof *task);
  if (!task) return MN_ERR_MEMORY;
  mn_status status = MN_OK;
  task->def = def;
  task->seed = 1;
  task->count_tokens = count_bytes;
  task->arena = mn_arena_new();
  task->config = task->arena ? mn_arena_alloc(task->arena, def->config_size) : NULL;
  if (!task->config) status = MN_ERR_MEMORY;
  if (status == MN_OK) set_defaults(task);
  for (int i = 0; i < n_settings && status == MN_OK; i++) status = apply_setting(task, settings[i]);
  if (status == MN_OK) status = def->setup(task);
  if (status != MN_OK) {
    mn_task_close(task);
    return status;
  }
  *out = task;
  return MN_OK;
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
    return mn_fail(MN_ERR_ARG, "task %s makes text, not token ids: it needs a tokenizer", task->def->name);
  mn_rng rng;
  mn_rng_seed(&rng, mn_sample_seed(task->def->name, (uint64_t)split, task->seed, index));
  return task->def->sample(task, &rng, input, target);
}

mn_status mn_task_sample_text(const mn_task *task, int split, uint64_t index, mn_task_text *out) {
  memset(out, 0, sizeof *out);
  MN_TRY(check_split(task, split));
  if (!task->def->sample_text) return mn_fail(MN_ERR_ARG, "task %s makes token ids, not text", task->def->name);
  mn_status status =
      task->def->sample_text(task, mn_sample_seed(task->def->name, (uint64_t)split, task->seed, index), out);
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
  if (!task->def->oracle) return mn_fail(MN_ERR_ARG, "task %s makes text; use its text oracle", task->def->name);
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

double mn_task_acc(const mn_task_score *score) {
  return score->examples ? score->acc_sum / (double)score->examples : NAN;
}

double mn_task_seq_acc(const mn_task_score *score) {
  return score->examples ? (double)score->all_right / (double)score->examples : NAN;
}

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
  *low = centre - half < 0 ? 0 : centre - half;
  *high = centre + half > 1 ? 1 : centre + half;
}
