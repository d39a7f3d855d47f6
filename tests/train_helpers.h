/* train_helpers.h - small texts, recipes and trainings for the tests of training. */
#ifndef TRAIN_HELPERS_H
#define TRAIN_HELPERS_H

#include <unistd.h>

#include "base/file.h"
#include "format/yaml.h"
#include "test.h"
#include "train/trainer.h"

static char test_dir[400];

static inline const char *test_path(const char *name) {
  static char path[8][600];
  static int next;
  char *p = path[next++ % 8];
  snprintf(p, sizeof path[0], "%s/%s", test_dir, name);
  return p;
}

/* A directory of its own, a text in it that can be learned, and a run database that nobody else sees. */
static inline void test_setup(const char *name) {
  snprintf(test_dir, sizeof test_dir, "%s/mneme-%s-%d", getenv("TMPDIR") ? getenv("TMPDIR") : P_tmpdir, name, (int)getpid());
  CHECK_OK(mn_make_dirs(test_dir));
  setenv("MNEME_HOME", test_dir, 1);
  static const char *const words[] = {"the ", "whale ", "sea ", "ship ", "and ", "of ", "old ", "sailed ", "white ", "far.\n"};
  mn_text text = {0};
  uint64_t x = 1;
  for (int i = 0; i < 6000; i++) {
    x = mn_splitmix64(x);
    mn_text_add(&text, words[x % 10]);
  }
  CHECK_OK(mn_file_write(test_path("text.txt"), text.data, text.len));
  mn_text_free(&text);
}

static inline void test_cleanup(void) {
  char command[500];
  snprintf(command, sizeof command, "rm -rf '%s'", test_dir);
  if (system(command) != 0) printf("%s was left behind\n", test_dir);
}

/* The recipe that all these tests begin with; assignments change it. */
static inline mn_status test_try_recipe(const char *const *set, int n, mn_recipe **out) {
  mn_text t = {0};
  mn_text_addf(&t,
               "name: test\nseed: 3\ndata:\n  files: [%s]\nmodel:\n  d_model: 32\n  layers: 2\n"
               "  block: {mixer: {type: attention, heads: 2}, hidden: 64}\n"
               "train:\n  steps: 40\n  batch: 4\n  seq_len: 32\n  optimizer: {lr: 5e-3}\n  log_every: 1\n",
               test_path("text.txt"));
  const char *path = test_path("recipe.yaml");
  CHECK_OK(mn_file_write(path, t.data, t.len));
  mn_text_free(&t);
  return mn_recipe_read(path, set, n, out);
}
static inline mn_recipe *test_recipe(const char *const *set, int n) {
  mn_recipe *r = NULL;
  CHECK_OK(test_try_recipe(set, n, &r));
  return r;
}
#define RECIPE(...)                                                                                                                        \
  test_recipe((const char *const[]){"seed=3", __VA_ARGS__}, (int)(sizeof((const char *const[]){"seed=3", __VA_ARGS__}) / sizeof(char *)))

/* Hash of all parameters, bit by bit. */
static inline void params_hash(mn_params *p, char hex[33]) {
  mn_text all = {0};
  for (int i = 0; i < p->n; i++) {
    void *host = NULL;
    CHECK_OK(mn_params_on_host(p, i, &host));
    if (host) mn_text_add_bytes(&all, host, mn_params_bytes(p, i));
    free(host);
  }
  mn_content_hash(all.data, all.len, hex);
  mn_text_free(&all);
}

/* Trains `steps` steps without keeping anything; losses[i] is the loss of step i. */
static inline void train_steps(mn_recipe *r, int threads, int steps, double *losses, char hex[33]) {
  mn_trainer *t = NULL;
  CHECK_OK(mn_trainer_new(r, threads, NULL, NULL, &t));
  hex[0] = 0;
  for (int i = 0; i < steps && t; i++) {
    mn_step_result s;
    CHECK_OK(mn_trainer_step(t, &s));
    if (losses) losses[i] = s.loss;
  }
  if (t) params_hash(mn_trainer_params(t), hex);
  mn_trainer_free(t);
  mn_recipe_free(r);
}

#endif
