/* What must be true when a training diverges: it is seen by the loss's own history, whatever the loss is; nothing of the failed
 * step is kept; the first tensor that went wrong is named, in the order of computation, with the remedy of the system it is in. */
#include "train/trainer_internal.h"
#include "train_helpers.h"

static double noise(uint64_t i) { return 2 * mn_random_uniform(7, 3, i) - 1; }

typedef double (*curve)(int step);
static double falls(int i) { return 1.2 + 4.3 * exp(-i / 80.0) + 0.1 * noise((uint64_t)i); }
static double falls_after_a_bump(int i) { return falls(i) + 1.5 * exp(-(i - 10) * (i - 10) / 100.0); }
static double stays(int i) { return 4.16 + 0.002 * noise((uint64_t)i) + (i > 100 && i < 400 ? 0.2 : 0); }
static double spikes(int i) { return falls(i) + (i % 90 == 80 ? 20 : 0); }
static double begins_low(int i) { return fabs(0.02 + 0.015 * noise((uint64_t)i) + (i % 17 == 3 ? 0.1 : 0)); }
static double likelihood(int i) { return -1 - 2.0 * (1 - exp(-i / 50.0)) + 0.2 * noise((uint64_t)i); } /* of a density: negative */
static double accuracy(int i) { return -0.9 * (1 - exp(-i / 100.0)) + 0.05 * noise((uint64_t)i); }     /* its negative */
static double forgets(int i) { return falls(i) + (i > 300 ? 3 : 0); } /* worse than it was, better than it began */

static double climbs(int i) { return i < 100 ? falls(i) : falls(i) + 0.1 * (i - 100); }
static double jumps(int i) { return i < 60 ? falls(i) : 300 + 50 * noise((uint64_t)i); }
static double low_climbs(int i) { return begins_low(i) + (i > 100 ? 0.02 * (i - 100) : 0); }
static double negative_climbs(int i) { return likelihood(i) + (i > 100 ? 0.05 * (i - 100) : 0); }

/* The step at which it is said to run away; 0: never. */
static int verdict(curve c, double scale, double shift, int steps) {
  mn_loss_watch w = {0};
  for (int i = 0; i < steps; i++)
    if (mn_loss_watch_add(&w, scale * c(i) + shift)) return i + 1;
  return 0;
}

static void test_a_loss_is_judged_by_its_history(void) {
  static const curve well[] = {falls, falls_after_a_bump, stays, spikes, begins_low, likelihood, accuracy, forgets};
  for (size_t i = 0; i < sizeof well / sizeof *well; i++) {
    CHECK(verdict(well[i], 1, 0, 1000) == 0, "curve %zu runs away at %d", i, verdict(well[i], 1, 0, 1000));
    CHECK(verdict(well[i], 1000, 0, 1000) == 0 && verdict(well[i], 1e-3, 0, 1000) == 0, "curve %zu in another unit", i);
  }
  static const curve away[] = {climbs, jumps, low_climbs, negative_climbs};
  for (size_t i = 0; i < sizeof away / sizeof *away; i++) {
    int at = verdict(away[i], 1, 0, 1000);
    CHECK(at > 60 && at < 400, "curve %zu: %d", i, at);
    CHECK(verdict(away[i], 1e3, 0, 1000) == at && verdict(away[i], 1.0 / 1024, 0, 1000) == at, "curve %zu in another unit", i);
  }
}

static void test_a_new_stage_begins_anew(void) {
  mn_loss_watch w = {0};
  for (int i = 0; i < 200; i++) CHECK(!mn_loss_watch_add(&w, begins_low(i)), "%d", i);
  w = (mn_loss_watch){0};
  for (int i = 0; i < 200; i++) CHECK(!mn_loss_watch_add(&w, falls(i)), "%d", i);
}

static void test_the_watch_goes_on_after_a_checkpoint(void) {
  mn_recipe *r = RECIPE("train.steps=40");
  mn_trainer *a = NULL, *b = NULL;
  mn_step_result s;
  CHECK_OK(mn_trainer_new(r, 1, NULL, NULL, &a));
  CHECK_OK(mn_trainer_new(r, 1, NULL, NULL, &b));
  for (int i = 0; a && i < 20; i++) CHECK_OK(mn_trainer_step(a, &s));
  CHECK_OK(mn_make_dirs(test_path("watch")));
  if (a && b) {
    CHECK_OK(mn_checkpoint_save(test_path("watch"), &a->state, 1));
    CHECK_OK(mn_checkpoint_load(test_path("watch"), 20, &b->state));
    CHECK(b->state.watch.seen == 20 && !memcmp(&a->state.watch, &b->state.watch, sizeof a->state.watch), "mean %.17g and %.17g",
          a->state.watch.mean, b->state.watch.mean);
  }
  mn_trainer_free(a);
  mn_trainer_free(b);
  mn_recipe_free(r);
}

/* Trains until it fails; the message is mn_message(). */
static mn_status until_it_fails(mn_trainer *t, int steps) {
  mn_status status = MN_OK;
  mn_step_result s;
  for (int i = 0; i < steps && status == MN_OK; i++) status = mn_trainer_step(t, &s);
  return status;
}

static void poison(mn_trainer *t, const char *name, float x) {
  int i = mn_params_find(t->params, name);
  CHECK(i >= 0, "there is no parameter %s", name);
  if (i < 0) return;
  for (int64_t k = 0; k < mn_shape_count(&t->params->info[i].shape); k++) ((float *)t->params->data[i])[k] = x;
}

/* Each system, its output made infinite in one layer: that layer is named and that system's own remedy. */
static void test_the_system_that_blew_up_is_named(void) {
  static const struct {
    const char *mixer, *parameter, *tensor, *remedy;
  } c[] = {
      {"{type: attention, heads: 2}", "layers.1.mixer.v_proj.weight", "layers.1.mixer.output", "weight decay"},
      {"{type: aaren, heads: 2}", "layers.1.mixer.v_proj.weight", "layers.1.mixer.output", "weight decay"},
      {"{type: aaren, heads: 2, score_scale: none}", "layers.0.mixer.v_proj.weight", "layers.0.mixer.output", "score_scale: rsqrt_dim"},
      {"{type: gated_deltanet, heads: 2}", "layers.1.mixer.v_proj.weight", "layers.1.mixer", "weight decay"},
      {"{type: titans_lmm, heads: 2, memory_net: linear, grad_clamp: 0}", "layers.1.mixer.memory.v_proj.weight", "layers.1.mixer.memory.",
       "grad_clamp: 1"},
      {"{type: titans_lmm, heads: 2, memory_net: mlp}", "layers.0.mixer.memory.v_proj.weight", "layers.0.mixer.memory.",
       "lower grad_clamp"},
      {"{type: titans_mag, heads: 2, memory_net: linear}", "layers.1.mixer.memory.v_proj.weight", "layers.1.mixer.memory.", "lr_max"},
      {"{type: titans_mal, heads: 2, memory_net: linear}", "layers.1.mixer.memory.v_proj.weight", "layers.1.mixer.memory.", "lr_max"},
      {"{type: titans_mac, heads: 2, memory_net: linear}", "layers.1.mixer.memory.v_proj.weight", "layers.1.mixer", "lr_max"},
      {"{type: attention, heads: 2}", "layers.1.channel.gate_proj.weight", "layers.1.channel.output", "try a lower train.optimizer.lr"}};
  for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
    char set[200];
    snprintf(set, sizeof set, "model.block.mixer=%s", c[i].mixer);
    mn_recipe *r = RECIPE(set);
    mn_trainer *t = NULL;
    mn_step_result s;
    char before[33], after[33];
    CHECK_OK(mn_trainer_new(r, 1, NULL, NULL, &t));
    if (t) {
      CHECK_OK(mn_trainer_step(t, &s));
      poison(t, c[i].parameter, 3e38f);
      if (strstr(c[i].parameter, "channel.")) poison(t, "layers.1.channel.up_proj.weight", 3e38f);
      params_hash(t->params, before);
      CHECK(mn_trainer_step(t, &s) == MN_ERR_NUMERIC, "%s: no failure", c[i].mixer);
      const char *said = strstr(mn_message(), "the first tensor with");
      CHECK(strstr(mn_message(), "step 2") && said && strstr(said, c[i].tensor) && strstr(said, c[i].remedy), "%s: %s", c[i].mixer,
            mn_message());
      params_hash(t->params, after);
      CHECK(!strcmp(before, after), "%s: a failed step changed the parameters", c[i].mixer);
    }
    mn_trainer_free(t);
    mn_recipe_free(r);
  }
}

/* Memories that run away by themselves, with carried state, over batches that are added up, by either optimizer. */
static void test_a_memory_that_runs_away_is_named(void) {
  static const char *const how[][2] = {{"train.accumulate=1", "train.optimizer.type=adamw"},
                                       {"train.accumulate=2", "train.optimizer.type=adamw"},
                                       {"train.accumulate=1", "train.optimizer.type=muon"}};
  for (int i = 0; i < 3; i++) {
    mn_recipe *r = RECIPE("model.block.mixer={type: titans_lmm, heads: 2, memory_net: mlp, chunk: 16, lr_max: 30, grad_clamp: 0}",
                          how[i][0], how[i][1], "data.order=sequential", "train.carry_state=true", "train.seq_len=64");
    mn_trainer *t = NULL;
    CHECK_OK(mn_trainer_new(r, 1, NULL, NULL, &t));
    if (t) {
      mn_status status = until_it_fails(t, 40);
      CHECK(status == MN_ERR_NUMERIC && strstr(mn_message(), "layers.") && strstr(mn_message(), ".mixer.") &&
                strstr(mn_message(), "grad_clamp: 1") && strstr(mn_message(), "lr_max (30 now)"),
            "%s: %s", mn_status_name(status), mn_message());
      CHECK_OK(mn_params_check_finite(t->params));
    }
    mn_trainer_free(t);
    mn_recipe_free(r);
  }
}

/* A memory whose chunks overshoot from the start, and which nothing holds, is said before the first step; the rest is trusted. */
static void test_a_memory_that_may_run_away_is_said_before(void) {
  static const struct {
    const char *block, *says; /* NULL: nothing */
  } cases[] = {
      {"{mixer: {type: titans_lmm, heads: 2, grad_clamp: 0, lr_max: 0.1}}", "titans_lmm: a chunk is one step of up to 6.4 at the start"},
      {"{mixer: {type: titans_mac, heads: 2, grad_clamp: 0, lr_max: 0.1, chunk: 32, segment: 32}}", "up to 3.2 at the start"},
      {"{mixer: {type: dla, heads: 2, grad_clamp: 0, lr_max: 0.1, chunk: 64}}", "dla: a chunk is one step of up to 3.2"},
      {"{mixer: {type: titans_lmm, heads: 2, grad_clamp: 0, lr_max: 0.1, momentum: false, chunk: 32}}", NULL},
      {"{mixer: {type: titans_lmm, heads: 2, grad_clamp: 0}}", NULL},
      {"{mixer: {type: titans_lmm, heads: 2, lr_max: 0.1}}", NULL},
      {"{mixer: {type: attention, heads: 2}}", NULL}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    char block[200];
    mn_text said = {0};
    snprintf(block, sizeof block, "model.block=%s", cases[i].block);
    mn_recipe *r = RECIPE(block, "train.seq_len=64");
    mn_trainer *t = NULL;
    CHECK_OK(mn_trainer_new(r, 1, NULL, NULL, &t));
    if (t) mn_model_doubt(t->model, &said);
    CHECK_OK(mn_text_status(&said));
    CHECK(cases[i].says ? said.data && strstr(said.data, cases[i].says) && strstr(said.data, "grad_clamp: 1") : !said.len, "%s: %s", block,
          said.len ? said.data : "nothing");
    mn_text_free(&said);
    mn_trainer_free(t);
    mn_recipe_free(r);
  }
}

static void test_what_is_not_finite_is_named(void) {
  mn_recipe *r = RECIPE("train.steps=5");
  mn_trainer *t = NULL;
  mn_step_result s;
  CHECK_OK(mn_trainer_new(r, 1, NULL, NULL, &t));
  if (t) {
    CHECK_OK(mn_trainer_step(t, &s));
    ((float *)t->params->data[mn_params_find(t->params, "layers.1.channel.down_proj.weight")])[3] = (float)NAN;
    CHECK(mn_trainer_step(t, &s) == MN_ERR_NUMERIC, "a NaN ends the training");
    CHECK(strstr(mn_message(), "step 2") && strstr(mn_message(), "NaN is the parameter layers.1.channel.down_proj.weight") &&
              strstr(mn_message(), "train.optimizer.lr"),
          "%s", mn_message());
  }
  mn_trainer_free(t);
  mn_recipe_free(r);
}

static void test_a_rate_that_is_too_high_ends_the_training(void) {
  mn_recipe *r = RECIPE("train.steps=200", "train.optimizer.lr=30", "train.clip_norm=0");
  mn_trainer *t = NULL;
  CHECK_OK(mn_trainer_new(r, 2, NULL, NULL, &t));
  mn_status status = t ? until_it_fails(t, 200) : MN_OK;
  CHECK(status == MN_ERR_NUMERIC && strstr(mn_message(), "step ") && strstr(mn_message(), "train.optimizer.lr (30 now)"), "%s",
        mn_message());
  mn_trainer_free(t);
  mn_recipe_free(r);
}

int main(void) {
  test_setup("divergence");
  RUN(test_a_loss_is_judged_by_its_history);
  RUN(test_a_new_stage_begins_anew);
  RUN(test_the_watch_goes_on_after_a_checkpoint);
  RUN(test_what_is_not_finite_is_named);
  RUN(test_the_system_that_blew_up_is_named);
  RUN(test_a_memory_that_runs_away_is_named);
  RUN(test_a_memory_that_may_run_away_is_said_before);
  RUN(test_a_rate_that_is_too_high_ends_the_training);
  test_cleanup();
  return test_end();
}
