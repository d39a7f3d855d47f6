/* test_rxt_training.c - what must be true of a Reactive Transformer's training, in order: the objective of its memory is the formula; hidden
 * tokens are hidden from the encoder alone; noise is drawn in training and nowhere else; three stages one after the other learn, leave
 * frozen what is frozen, and give the same bits on any number of threads. */
#include "model_check.h"
#include "train_helpers.h"

#define RXT                                                                                                                                \
  "{type: rxt, vocab_size: 11, d_model: 8, turn: 5, slots: 3, memory: {heads: 2}, layers: 2, block: {mixer: {type: attention, heads: 2}, " \
  "cross: {heads: 2}, hidden: 8}, encoder: {layers: 2, block: {mixer: {type: attention, heads: 2, causal: false}, hidden: 8}}}"

static bool parse_objective(mn_arena *arena, const char *yaml, mn_objectives *out) {
  const mn_value *v = NULL;
  CHECK_OK(mn_yaml_parse(arena, "objective.yaml", yaml, strlen(yaml), &v));
  mn_status status = v ? mn_objectives_parse(arena, v, "objective", out) : MN_ERR_FORMAT;
  CHECK(status == MN_OK, "%s: %s", yaml, mn_message());
  return status == MN_OK;
}

/* The losses of the rows, as the objective says. */
static bool losses_of(mk_model *m, const mc_bag *in, const char *yaml, double *each, int64_t n) {
  mn_objectives o;
  mk_built b;
  mn_verdict said = {0};
  bool ok = parse_objective(m->arena, yaml, &o) && mk_build(m, in, false, &b);
  if (!ok) return false;
  mn_model_io none = {0};
  mn_judge judge = {&b.out, &none, mn_full(b.g, MN_F64, MN_SHAPE(n), 1), true, false, NULL};
  o.list[0].def->build(b.s, o.list[0].config, &judge, &said);
  mn_plan_request q = {.graph = b.g, .n_outputs = 1, .outputs = &said.each, .backend = mn_backend_ref()};
  ok = mn_graph_status(b.g) == MN_OK && mn_plan_compile(&q, &b.plan) == MN_OK && mk_bind(m, &b) && mn_plan_run(b.plan) == MN_OK;
  CHECK(ok, "%s", mn_message());
  if (ok) mc_unpack(mn_plan_output(b.plan, 0)->data, MN_F64, n, each);
  mk_free(&b);
  return ok;
}

/* By hand, of what the model says it was, read and became. */
static double by_hand(const mc_bag *out, int64_t row, double still) {
  mc_bag *o = (mc_bag *)out;
  const mc_tensor *written = mc_get(o, "memory_written");
  const int64_t N = written->shape.dim[1], S = 6, D = 8;
  double total = 0, count = 0;
  for (int64_t n = 0; n < N; n++) {
    if (written->x[row * N + n] == 0) continue;
    const double w = n == 1 ? 0.8 : 0.5 - 0.1 * (double)(n - 1);
    double cosine = 0, moved = 0;
    for (int64_t s = 0; s < S; s++) {
      double ab = 0, aa = 0, bb = 0;
      for (int64_t d = 0; d < D; d++) {
        const int64_t at = ((row * N + n) * S + s) * D + d;
        const double old = mc_get(o, "memory_before")->x[at], a = mc_get(o, "memory_after")->x[at];
        const double b = (1 - w) * old + w * mc_get(o, "memory_read")->x[at];
        ab += a * b, aa += a * a, bb += b * b, moved += (a - old) * (a - old);
      }
      cosine += ab / sqrt(aa * bb + 1e-12) / (double)S;
    }
    total += still * sqrt((double)n) * moved / (double)(S * D) - cosine;
    count++;
  }
  return count > 0 ? total / count : 0;
}

static void the_memory_becomes_a_mean(void) {
  mk_model m;
  mc_bag in = {0}, out = {0};
  double each[3];
  if (!mk_open(&m, RXT, 3)) return;
  mk_tokens(&in, "tokens", 3, 20, 11, 7);
  double *there = mc_put(&in, "masks", MN_SHAPE(3, 20), NULL);
  for (int i = 0; i < 60; i++)
    there[i] = i < 40 ? i % 5 < 2 + i / 5 % 3 : i < 45; /* the last row has one turn, which nothing follows but turns that are not there */
  if (mk_run(&m, &in, &out))
    for (int k = 0; k < 2; k++) {
      const char *yaml =
          k ? "{type: memory_mean, first: 0.8, next: 0.5, fall: 0.1, still: 0.3}" : "{type: memory_mean, first: 0.8, next: 0.5, fall: 0.1}";
      if (!losses_of(&m, &in, yaml, each, 3)) continue;
      for (int row = 0; row < 3; row++) {
        const double want = by_hand(&out, row, k ? 0.3 : 0);
        CHECK(fabs(each[row] - want) < 1e-12, "row %d: %g, by hand %g", row, each[row], want);
      }
    }
  mc_bag_free(&in);
  mc_bag_free(&out);
  mk_close(&m);
}

/* ---- trainings ---- */
static void write_dialogues(void) {
  mn_text t = {0};
  for (int i = 0; i < 40; i++) {
    mn_text_add(&t, "{\"messages\": [");
    for (int n = 0; n < 3; n++)
      mn_text_addf(&t, "%s{\"role\": \"user\", \"content\": \"%c\"}, {\"role\": \"assistant\", \"content\": \"%c\"}", n ? ", " : "",
                   'a' + (i * 3 + n) % 7, n ? 'a' + (i * 3 + n - 1) % 7 : 'z'); /* the answer is what was said a turn before */
    mn_text_add(&t, "]}\n");
  }
  CHECK_OK(mn_file_write(test_path("dialogues.jsonl"), t.data, t.len));
  mn_text_free(&t);
}

static mn_recipe *recipe_of(const char *stages, const char *more) {
  static char data[700], all[1400];
  snprintf(data, sizeof data, "data={type: dialogues, files: [%s], user: Q, assistant: A, turn: 8, learn: all}",
           test_path("dialogues.jsonl"));
  snprintf(all, sizeof all, "stages=%s", stages);
  return RECIPE(
      data, all, "tokenizer={type: bytes}", "train.steps=null", "train.seq_len=24", "train.batch=8", "train.validation_batches=1",
      "model={type: rxt, vocab_size: 258, d_model: 16, turn: 8, slots: 4, init_std: 0.2, memory: {heads: 2}, layers: 1, block: {mixer: {type: "
      "attention, heads: 2}, cross: {heads: 2}, hidden: 16}, encoder: {layers: 1, block: {mixer: {type: attention, heads: 2, causal: "
      "false}, hidden: 16}}}",
      more);
}

#define JOINT "{steps: 20, objective: [{type: joint_token}, {type: joint_masked}]}"
#define MEMORY                                                                                                                             \
  "{steps: 20, objective: {type: memory_mean}, train: {groups: [{match: 'encoder.*', frozen: true}, {match: 'embed_tokens.*', frozen: true}]}}"

static double mean_of(const double *x, int n) {
  double s = 0;
  for (int i = 0; i < n; i++) s += x[i] / n;
  return s;
}

static void *value_of(mn_trainer *t, const char *name) {
  void *host = NULL;
  const int k = mn_params_find(mn_trainer_params(t), name);
  CHECK(k >= 0, "no parameter %s", name);
  if (k >= 0) CHECK_OK(mn_params_on_host(mn_trainer_params(t), k, &host));
  return host;
}

static void stages_learn_one_after_the_other(void) {
  mn_recipe *r = recipe_of("[" JOINT ", " MEMORY ", {steps: 40}]", "train.optimizer.lr=5e-3");
  mn_trainer *t = NULL;
  mn_step_result step;
  double loss[80];
  void *encoder = NULL, *memory = NULL, *first = NULL, *now;
  if (r) CHECK_OK(mn_trainer_new(r, 1, NULL, NULL, &t));
  for (int i = 0; t && i < 80; i++) {
    if (i == 20) encoder = value_of(t, "encoder.layers.0.mixer.q_proj.weight"), memory = value_of(t, "memory.layers.0.write.v_proj.weight");
    if (i == 0) first = value_of(t, "initial_memory");
    mn_status status = mn_trainer_step(t, &step);
    CHECK(status == MN_OK, "step %d: %s", i, mn_message());
    if (status != MN_OK) break;
    loss[i] = step.loss;
    if (i == 39) {
      now = value_of(t, "encoder.layers.0.mixer.q_proj.weight");
      CHECK(!memcmp(now, encoder, 256 * sizeof(float)), "the encoder is frozen while the memory is trained");
      free(now);
      now = value_of(t, "memory.layers.0.write.v_proj.weight");
      CHECK(memcmp(now, memory, 256 * sizeof(float)) != 0, "and the memory is not");
      free(now);
    }
  }
  if (t) {
    CHECK(mean_of(loss + 15, 5) < mean_of(loss, 5) - 0.5, "joint: from %g to %g", mean_of(loss, 5), mean_of(loss + 15, 5));
    CHECK(mean_of(loss + 35, 5) < mean_of(loss + 20, 5) - 0.05, "memory: from %g to %g", mean_of(loss + 20, 5), mean_of(loss + 35, 5));
    CHECK(loss[20] >= -1 && loss[39] >= -1, "a cosine is at most 1");
    CHECK(mean_of(loss + 75, 5) < mean_of(loss + 40, 5) - 0.1, "aware: from %g to %g", mean_of(loss + 40, 5), mean_of(loss + 75, 5));
    now = value_of(t, "encoder.layers.0.mixer.q_proj.weight");
    CHECK(memcmp(now, encoder, 256 * sizeof(float)) != 0, "what is asked for reaches the encoder");
    free(now);
    now = value_of(t, "initial_memory");
    CHECK(!memcmp(now, first, 64 * sizeof(float)), "the memory that a dialogue begins with does not train");
    free(now);
  }
  free(encoder);
  free(memory);
  free(first);
  mn_trainer_free(t);
  mn_recipe_free(r);
}

static void threads_change_no_bit(void) {
  char hex[2][33];
  double loss[2][9];
  for (int k = 0; k < 2; k++) {
    mn_recipe *r = recipe_of(
        "[{steps: 3, objective: [{type: joint_token}, {type: joint_masked}]}, {steps: 3, objective: {type: memory_mean}}, {steps: 3}]",
        "seed=5");
    if (r) train_steps(r, k ? 3 : 1, 9, loss[k], hex[k]);
  }
  CHECK(!strcmp(hex[0], hex[1]) && !memcmp(loss[0], loss[1], sizeof loss[0]), "%s with one thread, %s with three", hex[0], hex[1]);
}

/* Two evaluations are one, whatever is drawn in training. */
static void an_evaluation_draws_nothing(void) {
  mn_recipe *r = recipe_of("[{steps: 2, objective: {type: memory_mean}}]", "data.validation=0.3");
  mn_trainer *t = NULL;
  mn_evaluation a = {0}, b = {0};
  mn_step_result step;
  if (r) CHECK_OK(mn_trainer_new(r, 1, NULL, NULL, &t));
  if (t) {
    CHECK_OK(mn_trainer_step(t, &step));
    CHECK_OK(mn_trainer_validate(t, NULL, &a));
    CHECK_OK(mn_trainer_validate(t, NULL, &b));
    CHECK(a.batches > 0 && a.loss == b.loss && a.n_metrics == 1 && fabs(a.loss + a.metrics[0].value) < 1e-6, "%g and %g", a.loss, b.loss);
  }
  mn_trainer_free(t);
  mn_recipe_free(r);
}

static void what_does_not_fit_is_refused(void) {
  mn_recipe *r = RECIPE("objective={type: memory_mean}");
  mn_trainer *t = NULL;
  CHECK(mn_trainer_new(r, 1, NULL, NULL, &t) == MN_ERR_CONFIG && strstr(mn_message(), "memory_before") && strstr(mn_message(), "decoder"),
        "%s", mn_message());
  mn_recipe_free(r);
  r = recipe_of("[{steps: 1, objective: {type: memory_mean}, train: {seq_len: 8}}]", "seed=1");
  CHECK(mn_trainer_new(r, 1, NULL, NULL, &t) == MN_ERR_CONFIG && strstr(mn_message(), "a row has one turn"), "%s", mn_message());
  mn_recipe_free(r);
  r = recipe_of("[{steps: 1, objective: {type: joint_masked, mask_id: 258}}]", "seed=1");
  CHECK(mn_trainer_new(r, 1, NULL, NULL, &t) == MN_ERR_CONFIG && strstr(mn_message(), "mask_id is 258") &&
            strstr(mn_message(), "the last is 257"),
        "%s", mn_message());
  mn_recipe_free(r);
}

int main(void) {
  test_setup("rxt-training");
  write_dialogues();
  RUN(the_memory_becomes_a_mean);
  RUN(stages_learn_one_after_the_other);
  RUN(threads_change_no_bit);
  RUN(an_evaluation_draws_nothing);
  RUN(what_does_not_fit_is_refused);
  test_cleanup();
  return test_end();
}
