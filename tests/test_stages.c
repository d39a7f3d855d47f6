/* test_stages.c - what must be true of beginning with another model's values and of stages, in order: values come under their new
 * names and nothing else passes; a training in stages is the same as one training after the other; it can be broken off after any
 * step; what a stage cannot change is refused before the first one begins. */
#include <fcntl.h>
#include <unistd.h>

#include "train/trainer_internal.h"
#include "train_helpers.h"

static void weights_hash(const char *dir, char hex[33]) {
  char *file = mn_path_join(dir, "model.safetensors"), *text = NULL;
  size_t n = 0;
  uint64_t head = 0;
  hex[0] = 0;
  CHECK_OK(mn_file_read(file, 1 << 26, &text, &n));
  if (text) {
    memcpy(&head, text, 8);
    mn_content_hash(text + 8 + head, n - 8 - head, hex);
  }
  free(text);
  free(file);
}

static int stop_after; /* 0: never */
static atomic_int stop;
static void on_event(void *ctx, const mn_train_event *e) {
  (void)ctx;
  if (e->kind == MN_EVENT_STEP && e->step == stop_after) stop = 1;
}

static mn_status train(const char *dir, bool resume, const char *const *set, int n, char hex[33]) {
  mn_recipe *r = NULL;
  mn_train_result result;
  mn_status status = test_try_recipe(set, n, &r);
  if (status != MN_OK) return status;
  stop = 0;
  mn_train_options o = {.out_dir = dir, .resume = resume, .threads = 1, .db_path = "", .watch = {.stop = &stop}, .event = on_event};
  status = mn_train(r, &o, &result);
  mn_recipe_free(r);
  if (hex && status == MN_OK) weights_hash(dir, hex);
  return status;
}
#define TRAIN(dir, resume, hex, ...)                                                                                                       \
  train(dir, resume, (const char *const[]){__VA_ARGS__}, (int)(sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *)), hex)

static const char *path_of(const char *name) {
  static char kept[8][600];
  static int next;
  char *p = kept[next++ % 8];
  snprintf(p, sizeof kept[0], "%s", test_path(name));
  return p;
}

/* ---- init ---- */

static void test_values_of_another_model(void) {
  char setting[700];
  const char *dir = path_of("first");
  CHECK_OK(TRAIN(dir, false, NULL, "train.steps=3"));
  /* layer 0 of the old model becomes layer 1 of a new one of three layers; the rest of it is drawn or left out */
  snprintf(setting, sizeof setting,
           "init={from: '%s', rename: {'layers.0.*': 'layers.1.*', 'layers.1.*': 'old.*'}, missing: draw, unknown: ignore}", dir);
  mn_recipe *r = RECIPE(setting, "model.layers=3"), *s = RECIPE("model.layers=3"), *old = RECIPE("train.steps=3");
  mn_trainer *t = NULL, *fresh = NULL, *first = NULL;
  CHECK_OK(mn_trainer_new(r, 1, NULL, NULL, &t));
  CHECK_OK(mn_trainer_new(s, 1, NULL, NULL, &fresh));
  CHECK_OK(mn_trainer_new(old, 1, NULL, NULL, &first));
  for (int i = 0; first && i < 3; i++) CHECK_OK(mn_trainer_step(first, &(mn_step_result){0}));
  for (int i = 0; t && fresh && first && i < t->params->n; i++) {
    const char *name = t->params->info[i].name;
    char was[200];
    snprintf(was, sizeof was, "%s", name);
    if (!strncmp(name, "layers.1.", 9)) was[7] = '0';
    bool drawn = !strncmp(name, "layers.0.", 9) || !strncmp(name, "layers.2.", 9);
    const mn_params *from = drawn ? fresh->params : first->params;
    int k = mn_params_find(from, was);
    size_t bytes = (size_t)mn_shape_count(&t->params->info[i].shape) * 4;
    CHECK(k >= 0 && !memcmp(t->params->data[i], from->data[k], bytes), "%s is not %s of the %s model", name, was,
          drawn ? "fresh" : "trained");
  }
  CHECK(t && t->drawn > 0, "what is drawn is counted");
  mn_trainer_free(t);
  mn_trainer_free(fresh);
  mn_trainer_free(first);
  mn_recipe_free(r);
  mn_recipe_free(s);
  mn_recipe_free(old);
}

static void test_values_that_do_not_fit(void) {
  const char *dir = path_of("first");
  static const struct {
    const char *rest, *more, *part, *remedy;
  } bad[] = {{"", "model.layers=3", "layers.2.", "missing: draw"},
             {"", "model.layers=1", "layers.1.", "unknown: ignore"},
             {", missing: draw, rename: {'layers.0.*': 'layer.0.*'}", "model.layers=2", "nearest is 'layers.0.", "init.rename"},
             {", missing: draw, rename: {'layers.0.*': 'layers.1.*'}", "model.layers=2", "would both be", "layers.1."},
             {", rename: {'layer.0.*': 'layers.0.*'}", "model.layers=2", "'layer.0.*' renames no tensor", "such as layers."},
             {", rename: {'layers.*': 'layers.*', 'layers.0.*': 'layers.1.*'}", "model.layers=2", "'layers.0.*' renames no", "before it"},
             {", rename: {'layers.7.norm': 'layers.0.norm'}", "model.layers=2", "'layers.7.norm' renames no tensor", "such as layers."},
             {"", "model.d_model=64", "embed_tokens.weight", "[257, 32]"}};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    char setting[700];
    snprintf(setting, sizeof setting, "init={from: '%s'%s}", dir, bad[i].rest);
    mn_recipe *r = RECIPE(setting, bad[i].more);
    mn_trainer *t = NULL;
    mn_status status = mn_trainer_new(r, 1, NULL, NULL, &t);
    CHECK(status == MN_ERR_CONFIG && strstr(mn_message(), bad[i].part) && strstr(mn_message(), bad[i].remedy), "%s: %s", bad[i].rest,
          mn_message());
    mn_trainer_free(t);
    mn_recipe_free(r);
  }
  static const char *const keys[][2] = {{"init={frm: x}", "from"},
                                        {"init={from: x, rename: {'a*': 'b'}}", "one * each"},
                                        {"init={from: x, missing: drawn}", "draw"},
                                        {"init={from: x, rename: [a]}", "must be a map"}};
  for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
    mn_recipe *r = NULL;
    CHECK(test_try_recipe(&keys[i][0], 1, &r) == MN_ERR_CONFIG && strstr(mn_message(), keys[i][1]), "%s: %s", keys[i][0], mn_message());
    mn_recipe_free(r);
  }
}

/* ---- stages ---- */

#define SECOND                                                                                                                             \
  "{optimizer: {lr: 0.002, weight_decay: 0.2}, seq_len: 16, batch: 8, schedule: {type: constant}, groups: [{match: 'layers.0.*', frozen: true}]}"
static const char *const staged = "stages=[{steps: 5, name: whole}, {steps: 4, train: " SECOND "}, {steps: 3, train: {accumulate: 2}}]";

static void test_stages_are_one_after_the_other(void) {
  char hex[2][33], from[700];
  const char *a = path_of("a"), *b = path_of("b"), *c = path_of("c"), *all = path_of("all");
  CHECK_OK(TRAIN(a, false, NULL, "train.steps=5"));
  snprintf(from, sizeof from, "init={from: '%s'}", a);
  char second[700];
  snprintf(second, sizeof second,
           "train={steps: 4, log_every: 1, seq_len: 16, batch: 8, schedule: {type: constant}, optimizer: {lr: 0.002, weight_decay: "
           "0.2}, groups: [{match: 'layers.0.*', frozen: true}]}");
  CHECK_OK(TRAIN(b, false, NULL, from, second));
  snprintf(from, sizeof from, "init={from: '%s'}", b);
  CHECK_OK(TRAIN(c, false, hex[0], from, "train.steps=3", "train.accumulate=2"));
  CHECK_OK(TRAIN(all, false, hex[1], "train.steps=null", staged));
  CHECK(!strcmp(hex[0], hex[1]), "stages end otherwise than one training after the other");
}

static void test_broken_off_anywhere(void) {
  char whole[33], hex[33], name[32];
  weights_hash(path_of("all"), whole);
  for (int step = 1; step < 12; step++) {
    snprintf(name, sizeof name, "broken%d", step);
    const char *dir = path_of(name);
    stop_after = step;
    CHECK(TRAIN(dir, false, NULL, "train.steps=null", staged) == MN_ERR_CANCELLED, "not stopped after step %d", step);
    stop_after = 0;
    CHECK_OK(TRAIN(dir, true, hex, "train.steps=null", staged));
    CHECK(!strcmp(hex, whole), "broken off after step %d, it ends otherwise", step);
  }
}

/* A run is known by its first data: whatever stage it is taken up in, its log is its own. */
static void test_a_log_goes_on_through_stages_with_other_data(void) {
  char stages[900], again[900];
  const char *dir = path_of("other-data"), *text = path_of("text.txt");
  snprintf(stages, sizeof stages, "stages=[{steps: 3}, {steps: 3, data: {files: ['%s'], validation: 0.3}}]", text);
  snprintf(again, sizeof again, "stages=[{steps: 3}, {steps: 5, data: {files: ['%s'], validation: 0.3}}]", text);
  const int said = open(path_of("said"), O_RDWR | O_CREAT | O_TRUNC, 0600), before = dup(STDERR_FILENO);
  CHECK(said >= 0 && before >= 0 && dup2(said, STDERR_FILENO) >= 0, "nobody listens");
  for (stop_after = 1; stop_after < 6; stop_after++)
    CHECK(TRAIN(dir, stop_after > 1, NULL, "train.steps=null", stages) == MN_ERR_CANCELLED, "%s", mn_message());
  stop_after = 0;
  CHECK_OK(TRAIN(dir, true, NULL, "train.steps=null", stages));
  CHECK_OK(TRAIN(dir, true, NULL, "train.steps=null", stages)); /* there is nothing to do */
  CHECK_OK(TRAIN(dir, true, NULL, "train.steps=null", again));
  dup2(before, STDERR_FILENO);
  close(before);
  char line[400] = "";
  CHECK(pread(said, line, sizeof line - 1, 0) == 0, "a training does not know its own log: %s", line);
  close(said);
}

static void test_more_steps_of_the_last_stage(void) {
  char hex[2][33];
  const char *a = path_of("longer"), *b = path_of("at-once");
  static const char *const two[] = {"stages=[{steps: 4}, {steps: 3, train: {schedule: {type: constant}}}]",
                                    "stages=[{steps: 4}, {steps: 6, train: {schedule: {type: constant}}}]",
                                    "stages=[{steps: 5}, {steps: 6, train: {schedule: {type: constant}}}]"};
  CHECK_OK(TRAIN(a, false, NULL, "train.steps=null", two[0]));
  CHECK_OK(TRAIN(a, true, hex[0], "train.steps=null", two[1]));
  CHECK_OK(TRAIN(b, false, hex[1], "train.steps=null", two[1]));
  CHECK(!strcmp(hex[0], hex[1]), "more steps of the last stage are not those of a longer run");
  CHECK(TRAIN(a, true, NULL, "train.steps=null", two[2]) == MN_ERR_CONFIG && strstr(mn_message(), "stages[0].steps"), "%s", mn_message());
}

static void test_what_a_stage_cannot_change(void) {
  static const struct {
    const char *set, *part, *more;
  } bad[] = {
      {"stages=[{steps: 2}]", "train.steps has no effect beside stages", ""},
      {"stages=[{name: ../x, steps: 2}]", "give the stage a plain name", ""},
      {"stages=[{steps: 2}, {steps: 2, model: {d_model: 64}}]", "cannot change the model", ""},
      {"stages=[{steps: 2}, {steps: 2, data: {task: {name: mqar, vocab_size: 512}}, train: {seq_len: 64}}]", "stages[1]", "512 tokens"},
      {"stages=[{steps: 2}, {steps: 2, train: {groups: [{match: 'layer.0.*', frozen: true}]}}]", "stages[1]", "fits no parameter"},
      {"stages=[{steps: 2}, {steps: 2, objective: {type: classification}}]", "stages[1]", "label"},
      {"stages=[{steps: 2, train: {steps: 3}}]", "a stage has steps of its own", ""},
      {"stages=[{train: {}}]", "steps", ""},
      {"stages=[{steps: 2, trian: {}}]", "did you mean 'train'", "stages[0]"},
      {"stages=[{steps: 2, train: {optimizer: {lrr: 1}}}]", "lrr", "stages[0]"},
      {"stages={steps: 2}", "must be a list", ""},
      {"stages=[]", "must be a list", ""}};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    mn_status status = TRAIN(path_of("refused"), false, NULL, i ? "train.steps=null" : "train.steps=9", bad[i].set);
    CHECK(status == MN_ERR_CONFIG && strstr(mn_message(), bad[i].part) && strstr(mn_message(), bad[i].more), "%s: %s", bad[i].set,
          mn_message());
  }
}

int main(void) {
  test_setup("stages");
  RUN(test_values_of_another_model);
  RUN(test_values_that_do_not_fit);
  RUN(test_stages_are_one_after_the_other);
  RUN(test_broken_off_anywhere);
  RUN(test_a_log_goes_on_through_stages_with_other_data);
  RUN(test_more_steps_of_the_last_stage);
  RUN(test_what_a_stage_cannot_change);
  test_cleanup();
  return test_end();
}
