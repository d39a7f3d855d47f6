/* task_helpers.h - tasks by name and settings, the essays that filler is taken from, and how even counts are. */
#ifndef MN_TASK_HELPERS_H
#define MN_TASK_HELPERS_H

#include "base/base.h"
#include "scratch.h"
#include "task/task.h"
#include "task/words.h"
#include "test.h"

static const char essay_path[] = "essay.txt";

static inline mn_task *open_task(const char *name, const char *settings) { /* "a=1 b=2"; '@' stands for the essay's path */
  char copy[700], text[300], *argv[16];
  int n = 0;
  snprintf(copy, sizeof copy, "%s", settings);
  for (char *p = strtok(copy, " "); p && n < 15; p = strtok(NULL, " ")) argv[n++] = p;
  for (int i = 0; i < n; i++)
    if (!strcmp(argv[i], "@")) {
      snprintf(text, sizeof text, "text=%s", essay_path);
      argv[i] = text;
    }
  mn_task *task = NULL;
  CHECK_OK(mn_task_open_set(name, (const char *const *)argv, n, &task));
  return task;
}

/* Prose with a known sentence count: sentence i is "S<i> plain words stand here." */
static inline void write_essay(void) {
  FILE *f = fopen(essay_path, "w");
  for (int i = 0; f && i < 4000; i++) fprintf(f, "S%d plain words stand here.%s", i, i % 7 == 6 ? "\n\n" : "  ");
  if (f) fclose(f);
}

/* A user's text that is made of needles: one for every second adjective with every noun. */
static inline const char *test_trap_text(void) {
  static const char path[] = "trap.txt";
  FILE *f = fopen(path, "w");
  for (int i = 0; f && i < MN_ADJECTIVES; i += 2)
    for (int j = 0; j < MN_NOUNS; j++) fprintf(f, "One of the special magic numbers for %s-%s is: 7. ", mn_adjectives[i], mn_nouns[j]);
  if (f) fclose(f);
  return path;
}

/* Upper 0.1 % point of chi-squared with k degrees of freedom (Wilson & Hilferty 1931). */
static inline double chi2_limit(int k) {
  double d = 2.0 / (9.0 * k), x = 1 - d + 3.0902 * sqrt(d);
  return k * x * x * x;
}

static inline double chi2_uniform(const int *count, int bins, int n) {
  double sum = 0, expected = (double)n / bins;
  for (int i = 0; i < bins; i++) sum += (count[i] - expected) * (count[i] - expected) / expected;
  return sum;
}

#endif
