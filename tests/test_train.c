/* What must be true of training: it learns; the number of threads changes no bit; a batch cut in pieces gives the same
 * gradient; carried state makes short segments one long one; schedules are what they say; and a recipe that cannot be is
 * refused with file, line, key and what to do. */
#include <pthread.h>
#include <signal.h>

#include "train_helpers.h"

static void test_the_loss_falls(void) {
  double loss[60];
  char hex[33];
  train_steps(RECIPE("train.steps=60"), 2, 60, loss, hex);
  CHECK(loss[0] > 5 && loss[0] < 6, "a fresh model of 257 tokens begins at ln 257 = 5.55, not %g", loss[0]);
  CHECK(loss[59] < 2.6, "loss %g after 60 steps", loss[59]);
}

static void test_threads_change_no_bit(void) {
  const char *const kinds[][3] = {{"train.precision=f32", "train.accumulate=1", "train.optimizer.type=adamw"},
                                  {"train.precision=bf16", "train.accumulate=1", "train.optimizer.type=adamw"},
                                  {"train.precision=f32", "train.accumulate=2", "train.optimizer.type=muon"}};
  for (int k = 0; k < 3; k++) {
    char one[33], two[33], again[33];
    train_steps(test_recipe(kinds[k], 3), 1, 50, NULL, one);
    train_steps(test_recipe(kinds[k], 3), 2, 50, NULL, two);
    CHECK(!strcmp(one, two), "%s: 1 thread %s, 2 threads %s", kinds[k][0], one, two);
    if (k) continue;
    train_steps(RECIPE("seed=4"), 2, 50, NULL, again);
    CHECK(strcmp(two, again), "another seed gives other parameters");
  }
}

static void test_accumulation_is_a_larger_batch(void) {
  double whole[8], parts[8];
  char hex[33];
  train_steps(RECIPE("train.batch=8"), 1, 8, whole, hex);
  train_steps(RECIPE("train.batch=4", "train.accumulate=2"), 1, 8, parts, hex);
  for (int i = 0; i < 8; i++) CHECK(fabs(whole[i] - parts[i]) < 1e-4 * whole[i], "step %d: %.8g and %.8g", i, whole[i], parts[i]);
}

static void test_activation_policies_agree(void) {
  double keep[6], cheap[6], norms[6];
  char hex[33];
  train_steps(RECIPE("train.activations=keep"), 1, 6, keep, hex);
  train_steps(RECIPE("train.activations=recompute"), 1, 6, cheap, hex);
  train_steps(RECIPE("train.activations=recompute_norms"), 1, 6, norms, hex);
  for (int i = 0; i < 6; i++)
    CHECK(fabs(keep[i] - cheap[i]) < 1e-5 * keep[i] && fabs(keep[i] - norms[i]) < 1e-5 * keep[i], "step %d: %.9g %.9g %.9g", i, keep[i],
          cheap[i], norms[i]);
}

/* With a learning rate of 0, two segments of 16 with carried state cost what one of 32 does. */
static void test_carried_state_joins_segments(void) {
  double halves[6], fresh[6], wholes[3];
  char hex[33];
  train_steps(RECIPE("data.order=sequential", "train.carry_state=true", "train.seq_len=16", "train.optimizer.lr=0"), 1, 6, halves, hex);
  train_steps(RECIPE("data.order=sequential", "train.carry_state=true", "train.seq_len=32", "train.optimizer.lr=0"), 1, 3, wholes, hex);
  train_steps(RECIPE("data.order=sequential", "train.seq_len=16", "train.optimizer.lr=0"), 1, 6, fresh, hex);
  CHECK(fabs((halves[0] + halves[1]) / 2 - wholes[0]) < 1e-5, "%.8g and %.8g", (halves[0] + halves[1]) / 2, wholes[0]);
  CHECK(fabs((halves[2] + halves[3]) / 2 - wholes[1]) < 1e-5, "%.8g and %.8g", (halves[2] + halves[3]) / 2, wholes[1]);
  CHECK(fabs(halves[1] - fresh[1]) > 1e-7, "state that is carried matters: %.9g", halves[1]);
}

/* Where streams begin anew, so does the state: the second pass over a short text costs what the first did. */
static void test_state_is_reset_with_the_stream(void) {
  double loss[8];
  char hex[33];
  mn_text text = {0};
  for (int i = 0; i < 36; i++) mn_text_add(&text, "hear ye ");
  CHECK_OK(mn_file_write(test_path("short.txt"), text.data, text.len));
  mn_text_free(&text);
  char files[700];
  snprintf(files, sizeof files, "data.files=[%s]", test_path("short.txt"));
  /* 288 bytes and an end: 2 streams of 144, 4 segments of 32 each, then from the beginning */
  train_steps(
      RECIPE(files, "data.validation=0", "data.order=sequential", "train.carry_state=true", "train.batch=2", "train.optimizer.lr=0"), 1, 8,
      loss, hex);
  for (int i = 0; i < 4; i++) CHECK(loss[i] == loss[i + 4], "step %d: %.9g, then %.9g", i, loss[i], loss[i + 4]);
  CHECK(loss[0] != loss[1], "later segments know more");
}

static void test_muon_learns(void) {
  double loss[40];
  char hex[33];
  train_steps(RECIPE("train.optimizer.type=muon"), 2, 40, loss, hex);
  CHECK(loss[39] < 3, "loss %g after 40 steps", loss[39]);
}

/* One step of Muon moves a matrix by a nearly orthogonal one, of AdamW's usual size. */
static void test_muon_is_orthogonal(void) {
  mn_recipe *r = RECIPE("train.optimizer={type: muon, lr: 0.01, weight_decay: 0}");
  mn_trainer *t = NULL;
  mn_step_result s;
  CHECK_OK(mn_trainer_new(r, 1, NULL, NULL, &t));
  if (!t) return;
  mn_params *p = mn_trainer_params(t);
  int k = mn_params_find(p, "layers.0.channel.up_proj.weight"); /* [64, 32] */
  enum { ROWS = 64, COLS = 32 };
  static float before[ROWS * COLS], o[ROWS * COLS];
  float *w = p->data[k];
  memcpy(before, w, sizeof before);
  CHECK_OK(mn_trainer_step(t, &s));
  for (int i = 0; i < ROWS * COLS; i++) o[i] = (before[i] - w[i]) / (0.01f * 0.2f * 8.0f); /* sqrt(64) = 8 */
  for (int a = 0; a < COLS; a += 5)
    for (int b = 0; b <= a; b += 5) { /* O^T O is near the identity: the iteration ends between 0.7 and 1.2 */
      double dot = 0;
      for (int i = 0; i < ROWS; i++) dot += (double)o[i * COLS + a] * (double)o[i * COLS + b];
      CHECK(a == b ? dot > 0.4 && dot < 1.5 : fabs(dot) < 0.35, "(O^T O)[%d, %d] = %g", a, b, dot);
    }
  mn_trainer_free(t);
  mn_recipe_free(r);
}

static void test_schedules(void) {
  mn_schedule_config c;
  mn_config_defaults(mn_schedule_fields, &c);
  c.warmup_steps = 10;
  c.min_ratio = 0.1;
  CHECK(mn_schedule_factor(&c, 0, 110) == 0.1 && mn_schedule_factor(&c, 9, 110) == 1, "the warm-up is a line that ends at 1");
  CHECK(fabs(mn_schedule_factor(&c, 60, 110) - 0.55) < 1e-12, "half way down the cosine: %g", mn_schedule_factor(&c, 60, 110));
  c.type = MN_SCHEDULE_LINEAR;
  CHECK(fabs(mn_schedule_factor(&c, 35, 110) - 0.775) < 1e-12, "a quarter down the line: %g", mn_schedule_factor(&c, 35, 110));
  c.type = MN_SCHEDULE_CONSTANT;
  CHECK(mn_schedule_factor(&c, 109, 110) == 1, "constant");
  c.type = MN_SCHEDULE_WSD;
  c.decay_steps = 20;
  CHECK(mn_schedule_factor(&c, 89, 110) == 1 && fabs(mn_schedule_factor(&c, 100, 110) - 0.55) < 1e-12, "constant, then down");
  for (int64_t step = 0, last = 110; step < last; step++)
    CHECK(mn_schedule_factor(&c, step, last) > 0 && mn_schedule_factor(&c, step, last) <= 1, "step %d", (int)step);
}

static void test_a_task_is_learned_by_name(void) {
  const char *yaml = "data: {task: {name: mqar, vocab_size: 32, len: 32, kv: 2}}\n"
                     "model: {d_model: 32, layers: 2, block: {mixer: {type: attention, heads: 2}, hidden: 64}}\n"
                     "train: {steps: 10, batch: 4, optimizer: {lr: 2e-3}}\n";
  CHECK_OK(mn_file_write(test_path("task.yaml"), yaml, strlen(yaml)));
  mn_recipe *r = NULL;
  CHECK_OK(mn_recipe_read(test_path("task.yaml"), NULL, 0, &r));
  if (!r) return;
  CHECK(r->train.seq_len == 32 && !strcmp(r->name, "task"), "the task's length %lld, the file's name %s", (long long)r->train.seq_len,
        r->name);
  mn_trainer *t = NULL;
  CHECK_OK(mn_trainer_new(r, 1, NULL, NULL, &t));
  mn_step_result s;
  mn_evaluation e;
  for (int i = 0; i < 10 && t; i++) CHECK_OK(mn_trainer_step(t, &s));
  if (t) {
    CHECK_OK(mn_trainer_validate(t, NULL, &e));
    CHECK(e.score.examples == 16 * 4 && e.score.positions == 16 * 4 * 2 && e.tokens == e.score.positions, "%lld examples, %lld positions",
          (long long)e.score.examples, (long long)e.score.positions);
    CHECK(e.bytes == 0 && isnan(e.bits_per_byte) && e.n_metrics == 1 && !strcmp(e.metrics[0].name, "perplexity") &&
              fabs(e.metrics[0].value - exp(e.loss)) < 1e-9,
          "ids are no text");
  }
  mn_trainer_free(t);
  mn_recipe_free(r);
}

static void test_validation_measures_text(void) {
  mn_recipe *r = RECIPE("train.steps=5");
  mn_trainer *t = NULL;
  mn_evaluation e;
  CHECK_OK(mn_trainer_new(r, 1, NULL, NULL, &t));
  if (t) {
    CHECK_OK(mn_trainer_validate(t, NULL, &e));
    CHECK(e.tokens > 0 && e.bytes == e.tokens && fabs(e.bits_per_byte - e.loss / log(2)) < 1e-9, "bytes are tokens: %g bits, loss %g",
          e.bits_per_byte, e.loss);
  }
  mn_trainer_free(t);
  mn_recipe_free(r);
}

/* ---- recipes ---- */

static void test_bad_recipes_are_refused(void) {
  static const struct {
    const char *yaml, *words[3];
  } bad[] = {
      {"data: {files: [x]}\nmodel: {d_model: 8}\ntrain:\n  stepps: 3\n", {"bad.yaml:4", "stepps", "steps"}},
      {"data: {files: [x]}\nmodel: {d_model: 8}\ntrain: {batch: big}\n", {"bad.yaml:3", "train.batch", "integer"}},
      {"data: {files: [x]}\nmodel: {d_model: 8}\ntrain: {batch: 0}\n", {"bad.yaml:3", "train.batch", "from 1"}},
      {"data: {files: [x]}\nmodel: {d_model: 8}\ntrain: {optimizer: {typ: adamw}}\n", {"bad.yaml:3", "train.optimizer", "type"}},
      {"data: {files: [x]}\nmodel: {d_model: 8}\ntrain: {optimizer: {betas: [0.9]}}\n", {"bad.yaml:3", "betas", "two numbers"}},
      {"data: {files: [x]}\nmodel: {d_model: 8}\ntrain: {schedule: {type: cosin}}\n", {"bad.yaml:3", "train.schedule.type", "cosine"}},
      {"data: {files: [x]}\nmodel: {d_model: 8}\ntrain: {steps: 5, schedule: {warmup_steps: 9}}\n", {"bad.yaml:3", "9", "train.steps"}},
      {"data: {files: [x]}\nmodel: {d_model: 8}\ntrain: {carry_state: true}\n", {"bad.yaml:3", "carry_state", "sequential"}},
      {"data: {files: [x]}\nmodel: {d_model: 8}\ntrain: {checkpoint_minutes: 0}\n", {"checkpoint_every", "checkpoint_minutes", "0"}},
      {"data: {files: [x]}\nmodel: {d_model: 8}\ntrain: {batch: 65536, seq_len: 16777216}\n", {"bad.yaml:3", "train.batch", "tokens"}},
      {"data: {}\nmodel: {d_model: 8}\n", {"bad.yaml:1", "data", "files"}},
      {"data: {task: {len: 3}}\nmodel: {d_model: 8}\n", {"bad.yaml:1", "data.task", "name"}},
      {"data: {task: {name: mqarr}}\nmodel: {d_model: 8}\n", {"mqarr", "mqar", ""}},
      {"data: {task: {name: mqar, len: 7}}\nmodel: {d_model: 8}\n", {"mqar", "len", "even"}},
      {"tokenizer: {type: file}\ndata: {files: [x]}\nmodel: {d_model: 8}\n", {"bad.yaml:1", "tokenizer.file", "tokenizer.json"}},
      {"tokenizer: {type: bpe, vocab_size: 10}\ndata: {files: [x]}\nmodel: {d_model: 8}\n", {"bad.yaml:1", "vocab_size", "257"}},
      {"data: {files: [x]}\n", {"bad.yaml", "model", "map"}},
      {"data: {files: [x]}\nmodle: {}\n", {"bad.yaml:2", "modle", "model"}},
      {"seed: -1\ndata: {files: [x]}\nmodel: {d_model: 8}\n", {"bad.yaml:1", "seed", "at least 0"}},
      {"", {"bad.yaml", "", ""}},
  };
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    mn_recipe *r = NULL;
    CHECK_OK(mn_file_write(test_path("bad.yaml"), bad[i].yaml, strlen(bad[i].yaml)));
    mn_status status = mn_recipe_read(test_path("bad.yaml"), NULL, 0, &r);
    CHECK(status == MN_ERR_CONFIG && !r, "recipe %zu: %s %s", i, mn_status_name(status), mn_message());
    for (int k = 0; k < 3; k++)
      CHECK(strstr(mn_message(), bad[i].words[k]), "recipe %zu: no '%s' in: %s", i, bad[i].words[k], mn_message());
    mn_recipe_free(r);
  }
}

/* What shows only together with the model or the data. */
static void test_bad_models_and_data_are_refused(void) {
  static const struct {
    const char *set, *words[2];
  } bad[] = {
      {"model.block.mixer.heads=5", {"heads", "32"}},
      {"model.block.mixer.type=atention", {"atention", "attention"}},
      {"model.vocab_size=100", {"vocab_size", "257"}},
      {"model.block.mixer.window=-1", {"window", "-1"}},
      {"model={d_model: 131072, layers: 64, block: {mixer: {type: attention}}}", {"GiB", "d_model"}},
      {"data.files=[/nowhere/at/all.txt]", {"/nowhere/at/all.txt", "data.files"}},
      {"train.seq_len=100000", {"100000", "tokens"}},
      {"model.block.mixer={type: titans_lmm, heads: 2, chunk: 33}", {"chunk of 33", "seq_len 32"}},
      {"model.block.mixer={type: titans_mac, heads: 2, chunk: 8, segment: 40}", {"segment of 40", "seq_len 32"}},
      {"tokenizer={type: file, file: /nowhere.json}", {"/nowhere.json", "tokenizer.file"}},
  };
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    mn_recipe *r = NULL;
    mn_trainer *t = NULL;
    mn_status status = test_try_recipe(&bad[i].set, 1, &r);
    if (status == MN_OK) status = mn_trainer_new(r, 1, NULL, NULL, &t);
    CHECK(status != MN_OK && !t, "%s is refused", bad[i].set);
    for (int k = 0; k < 2; k++)
      CHECK(strstr(mn_message(), bad[i].words[k]), "%s: no '%s' in: %s", bad[i].set, bad[i].words[k], mn_message());
    mn_trainer_free(t);
    mn_recipe_free(r);
  }
}

/* A length that no sequence fills is refused by its key, whichever type of mixer has it. */
static void test_lengths_that_no_sequence_fills_are_refused(void) {
  int n = 0;
  for (int i = 0; i < mn_mixer_count(); i++)
    for (const mn_field *f = mn_mixer_at(i)->fields; f->name; f++) {
      if (!f->tokens) continue;
      mn_recipe *r = NULL;
      mn_trainer *t = NULL;
      char set[200], part[200];
      const int length = f->int_default == 128 ? 256 : 128; /* not the default, which short sequences may have */
      snprintf(set, sizeof set, "model.block.mixer={type: %s, heads: 2, %s: %d}", mn_mixer_at(i)->name, f->name, length);
      snprintf(part, sizeof part, "%s: its %s of %d tokens is longer than train.seq_len 32", mn_mixer_at(i)->name, f->name, length);
      const char *const sets[] = {set};
      mn_status status = test_try_recipe(sets, 1, &r);
      if (status == MN_OK) status = mn_trainer_new(r, 1, NULL, NULL, &t);
      CHECK(status == MN_ERR_CONFIG && strstr(mn_message(), part), "%s: %s", set, mn_message());
      mn_trainer_free(t);
      mn_recipe_free(r);
      n++;
    }
  CHECK(n > 10, "%d lengths", n);
}

static void test_the_effective_recipe_reads_back(void) {
  mn_recipe *r = RECIPE("train.optimizer.betas=[0.8, 0.9]");
  mn_arena *arena = mn_arena_new();
  mn_model *m = NULL;
  CHECK_OK(mn_recipe_model(r, 257, &m));
  const mn_value *v = mn_recipe_to_value(arena, r, m), *a, *b, *parsed = NULL;
  mn_text json = {0};
  CHECK_OK(mn_value_to_json(v, 2, &json));
  CHECK_OK(mn_yaml_parse(arena, "effective.json", json.data, json.len, &parsed));
  mn_recipe *again = NULL;
  CHECK_OK(mn_recipe_parse(parsed, &again));
  mn_model *m2 = NULL;
  if (again) CHECK_OK(mn_recipe_model(again, 257, &m2));
  const mn_value *v2 = again && m2 ? mn_recipe_to_value(arena, again, m2) : NULL;
  CHECK(v2 && mn_value_equal(v, v2), "%s", json.data);
  const char *key = mn_recipe_difference(arena, v, v2, &a, &b);
  CHECK(!key, "no difference, but %s", key ? key : "");
  mn_recipe *other = RECIPE("train.optimizer.betas=[0.8, 0.9]", "train.threads=7", "train.optimizer.weight_decay=0.3");
  key = mn_recipe_difference(arena, v, mn_recipe_to_value(arena, other, m), &a, &b);
  CHECK(key && !strcmp(key, "train.optimizer.weight_decay"), "first difference: %s", key ? key : "none");
  mn_recipe_free(other);
  mn_text_free(&json);
  mn_model_free(m);
  mn_model_free(m2);
  mn_recipe_free(again);
  mn_recipe_free(r);
  mn_arena_free(arena);
}

static void test_tables_keep_their_rules(void) {
  CHECK_OK(mn_fields_check(mn_recipe_fields));
  CHECK_OK(mn_fields_check(mn_tokenizer_fields));
  CHECK_OK(mn_fields_check(mn_train_fields));
  CHECK_OK(mn_fields_check(mn_optimizer_fields));
  CHECK_OK(mn_fields_check(mn_schedule_fields));
}

static void test_bpe_is_trained_once(void) {
  mn_recipe *r = RECIPE("tokenizer={type: bpe, vocab_size: 270}");
  mn_tokenizer *a = NULL, *b = NULL;
  char x[33] = "", y[33] = "";
  CHECK_OK(mn_recipe_tokenizer(r, NULL, NULL, &a));
  CHECK_OK(mn_recipe_tokenizer(r, NULL, NULL, &b));
  if (a) mn_tokenizer_hash(a, x);
  if (b) mn_tokenizer_hash(b, y);
  CHECK(a && !strcmp(x, y) && mn_tokenizer_vocab_size(a) == 270, "the second comes from the cache");
  mn_tokenizer_free(a);
  mn_tokenizer_free(b);
  mn_recipe_free(r);
}

static atomic_int stop;
static void *raise_later(void *microseconds) {
  usleep(*(useconds_t *)microseconds);
  stop = 1;
  return NULL;
}

/* Left at any moment, a step was not taken: taken again, it gives what it would have given. Buffers, carried state and sums of
 * gradients move within a step, before its update. */
static void test_a_step_that_is_left_was_not_taken(void) {
  static const char *const ways[] = {"name=plain", "train.carry_state=true", "train.accumulate=3", "train.optimizer.type=muon"};
  for (size_t w = 0; w < sizeof ways / sizeof *ways; w++) {
#define THIS_WAY                                                                                                                           \
  RECIPE(ways[w], w == 1 ? "data.order=sequential" : "train.steps=40", w == 1 ? "train.accumulate=2" : "train.steps=40",                   \
         "model.block.mixer={type: titans_mal, heads: 2, window: 16, chunk: 8}")
    mn_trainer *t = NULL;
    mn_step_result s;
    char whole[33], again[33] = "";
    int left = 0;
    train_steps(THIS_WAY, 1, 4, NULL, whole);
    mn_recipe *r = THIS_WAY;
    CHECK_OK(mn_trainer_new(r, 1, NULL, NULL, &t));
    for (int i = 0; i < 4 && t; i++) {
      mn_status status = MN_ERR_CANCELLED;
      for (useconds_t wait = 0; status == MN_ERR_CANCELLED; wait += wait / 4 + 300) {
        pthread_t thread;
        stop = wait == 0;
        mn_stop_watch(&stop);
        CHECK(pthread_create(&thread, NULL, raise_later, &wait) == 0, "a thread");
        status = mn_trainer_step(t, &s);
        pthread_join(thread, NULL);
        mn_stop_watch(NULL);
        left += status == MN_ERR_CANCELLED;
      }
      CHECK_OK(status);
    }
    if (t) params_hash(mn_trainer_params(t), again);
    CHECK(left >= 4 && !strcmp(whole, again), "%s: left %d times: %s, alone %s", ways[w], left, again, whole);
    mn_trainer_free(t);
    mn_recipe_free(r);
  }
}

int main(void) {
  test_setup("train");
  RUN(test_tables_keep_their_rules);
  RUN(test_bad_recipes_are_refused);
  RUN(test_bad_models_and_data_are_refused);
  RUN(test_lengths_that_no_sequence_fills_are_refused);
  RUN(test_the_effective_recipe_reads_back);
  RUN(test_schedules);
  RUN(test_bpe_is_trained_once);
  RUN(test_the_loss_falls);
  RUN(test_threads_change_no_bit);
  RUN(test_accumulation_is_a_larger_batch);
  RUN(test_activation_policies_agree);
  RUN(test_carried_state_joins_segments);
  RUN(test_state_is_reset_with_the_stream);
  RUN(test_a_step_that_is_left_was_not_taken);
  RUN(test_muon_learns);
  RUN(test_muon_is_orthogonal);
  RUN(test_a_task_is_learned_by_name);
  RUN(test_validation_measures_text);
  test_cleanup();
  return test_end();
}
