/* test_step_params.c - what must be true of parameters that a training step has and the model has not, such as the head of an
 * auxiliary loss: they train, with and without accumulation; what no loss reads stays where it is, whatever decays; a checkpoint keeps
 * them, so that a training goes on to the same bits; the model that is saved is the model alone. And what a step reads is fed by name, or
 * refused by name. */
#include "train/trainer_internal.h"
#include "train_helpers.h"

extern const mn_objective_def mn_objective_next_token;

/* The next-token loss, and in training a head [4, D] that makes ones of the hidden vectors. */
static void with_head(mn_scope *s, const void *config, const mn_judge *judge, mn_verdict *out) {
  mn_objective_next_token.build(s, config, judge, out);
  if (!mn_scope_training(s)) return;
  mn_graph *g = mn_scope_graph(s);
  mn_tensor *h = mn_cast(g, mn_io_get(judge->outputs, "hidden"), MN_F32);
  const int64_t D = mn_dim(h, -1), N = mn_shape_count(&h->shape) / D;
  mn_tensor *w = mn_param(s, "aux_head.weight", MN_SHAPE(4, D), MN_NORMAL(0.3), 0, "head of the auxiliary loss [4,D]");
  mn_tensor *y = mn_matmul(g, mn_reshape(g, h, MN_SHAPE(N, D)), mn_transpose(g, w, 0, 1));
  mn_tensor *e = mn_add_scalar(g, y, -1);
  mn_loss(s, "aux", mn_reshape(g, mn_mean(g, mn_mul(g, e, e), ~0u), (mn_shape){0}), 0.1);
}

/* Beside the next-token loss: a matrix and a vector that no loss reads, and a matrix whose gradient is 0 though it is read. */
static void with_spares(mn_scope *s, const void *config, const mn_judge *judge, mn_verdict *out) {
  mn_objective_next_token.build(s, config, judge, out);
  if (!mn_scope_training(s)) return;
  mn_graph *g = mn_scope_graph(s);
  mn_param(s, "spare.matrix", MN_SHAPE(4, 6), MN_NORMAL(0.3), MN_PARAM_MATRIX, "read by nothing");
  mn_param(s, "spare.vector", MN_SHAPE(5), MN_NORMAL(0.3), 0, "read by nothing");
  mn_param(s, "held.matrix", MN_SHAPE(4, 6), MN_NORMAL(0.3), MN_PARAM_FROZEN, "read by nothing, and no parameter that moves");
  mn_tensor *w = mn_param(s, "flat.matrix", MN_SHAPE(4, 6), MN_NORMAL(0.3), 0, "read, and worth nothing");
  mn_loss(s, "flat", mn_reshape(g, mn_mean(g, mn_mul_scalar(g, w, 0), ~0u), (mn_shape){0}), 1);
}

static void with_unknown_input(mn_scope *s, const void *config, const mn_judge *judge, mn_verdict *out) {
  mn_objective_next_token.build(s, config, judge, out);
  mn_tensor *x = mn_feed(s, "oracle", MN_F32, MN_SHAPE(2), "nobody has it");
  if (out->loss)
    out->loss = mn_add(mn_scope_graph(s), out->loss, mn_reshape(mn_scope_graph(s), mn_sum(mn_scope_graph(s), x, ~0u), (mn_shape){0}));
}

static mn_recipe *recipe(mn_objective_def *def, void (*build)(mn_scope *, const void *, const mn_judge *, mn_verdict *),
                         const char *const *set, int n) {
  mn_recipe *r = test_recipe(set, n);
  *def = mn_objective_next_token;
  def->build = build;
  if (r) r->objectives.list[0].def = def;
  return r;
}

static int number_of_head(const mn_trainer *t) { return mn_params_find(t->params, "aux_head.weight"); }

static void trains(const char *accumulate) {
  mn_objective_def def;
  const char *const set[] = {"train.steps=40", accumulate};
  mn_recipe *r = recipe(&def, with_head, set, 2), *plain = test_recipe(set, 2);
  mn_trainer *t = NULL;
  mn_params *model = NULL, *drawn = NULL;
  mn_step_result first = {0}, last = {0};
  float before[4 * 32], after[4 * 32];
  CHECK_OK(mn_trainer_new(r, 1, NULL, NULL, &t));
  if (t) {
    const int k = number_of_head(t);
    CHECK(k == t->params->n_model && t->params->n == t->params->n_model + 1, "the head is parameter %d of %d", k, t->params->n);
    CHECK_OK(mn_params_new(t->model, t->backend, MN_F32, (uint64_t)r->seed, &drawn));
    CHECK(mn_params_count(drawn) == mn_params_count(t->params), "the model's parameters are as many with a head beside them");
    for (int i = 0; i < drawn->n; i++)
      CHECK(!memcmp(drawn->data[i], t->params->data[i], mn_params_bytes(drawn, i)), "%s is drawn as without the head", drawn->info[i].name);
    if (k >= 0) memcpy(before, t->params->data[k], sizeof before);
    for (int i = 0; i < 40; i++) CHECK_OK(mn_trainer_step(t, i ? &last : &first));
    if (k >= 0) memcpy(after, t->params->data[k], sizeof after);
    CHECK(k >= 0 && memcmp(before, after, sizeof before) != 0, "the head has not moved");
    CHECK(last.loss < 0.8 * first.loss, "the loss was %g and is %g", first.loss, last.loss);
    CHECK_OK(mn_params_save(t->params, test_path("model.safetensors")));
    CHECK_OK(mn_params_declare(t->model, t->backend, MN_F32, &model));
    if (model) CHECK_OK(mn_params_load(model, test_path("model.safetensors")));
    mn_params_free(model);
    mn_params_free(drawn);
    mn_optimizer_free(t->optimizer); /* first, as at the end of a stage: it has moments of the head */
    t->optimizer = NULL;
    mn_params_shrink(t->params);
    CHECK(number_of_head(t) < 0 && t->params->n == t->params->n_model, "the set without the head is the model's");
    mn_trainer_free(t);
  }
  mn_recipe_free(plain);
  mn_recipe_free(r);
}

static void test_a_parameter_of_the_step_alone_trains(void) {
  trains("train.accumulate=1");
  trains("train.accumulate=2");
}

/* Decay is part of a step that a parameter takes: what the step does not use takes none. */
static void test_what_a_step_does_not_use_stays(void) {
  static const char *const accumulate[] = {"train.accumulate=1", "train.accumulate=2"};
  static const char *const kind[] = {"train.optimizer={type: adamw, lr: 0.01, weight_decay: 0.5}",
                                     "train.optimizer={type: muon, lr: 0.01, weight_decay: 0.5}"};
  for (int c = 0; c < 4; c++) {
    mn_objective_def def;
    const char *const set[] = {"train.steps=8", accumulate[c / 2], kind[c % 2]};
    mn_recipe *r = recipe(&def, with_spares, set, 3);
    mn_trainer *t = NULL;
    mn_step_result s;
    CHECK_OK(mn_trainer_new(r, 1, NULL, NULL, &t));
    for (int i = t ? t->params->n_model : 0, n = t ? t->params->n : 0, k = 0; i < n; i++, k++) {
      const size_t bytes = mn_params_bytes(t->params, i);
      const char *name = t->params->info[i].name;
      const bool stays = strcmp(name, "flat.matrix") != 0;
      void *before = malloc(bytes);
      memcpy(before, t->params->data[i], bytes);
      for (int step = 0; step < 2; step++) CHECK_OK(mn_trainer_step(t, &s));
      CHECK((memcmp(before, t->params->data[i], bytes) == 0) == stays, "%s, %s: %s %s", accumulate[c / 2], kind[c % 2], name,
            stays ? "has moved" : "has not decayed");
      free(before);
      CHECK(k < 4 && n == t->params->n_model + 4, "%d parameters of the step alone", n - t->params->n_model);
    }
    mn_trainer_free(t);
    mn_recipe_free(r);
  }
}

static atomic_int stop;
static int stop_after;
static void on_event(void *ctx, const mn_train_event *e) {
  (void)ctx;
  if (e->kind == MN_EVENT_STEP && e->step == stop_after) stop = 1;
}

static mn_status train(const char *dir, bool resume, int until) {
  mn_objective_def def;
  const char *const set[] = {"train.steps=8", "train.validate_every=4"};
  mn_recipe *r = recipe(&def, with_head, set, 2);
  mn_train_result result;
  stop = 0;
  stop_after = until;
  mn_train_options o = {.out_dir = dir, .resume = resume, .threads = 1, .db_path = "", .watch = {.stop = &stop}, .event = on_event};
  mn_status status = mn_train(r, &o, &result);
  mn_recipe_free(r);
  return status;
}

static void read_weights(const char *dir, char **text, size_t *n) {
  char *file = mn_path_join(dir, "model.safetensors");
  *text = NULL;
  CHECK_OK(mn_file_read(file, 1 << 26, text, n));
  free(file);
}

static void test_a_checkpoint_keeps_it(void) {
  char straight[600], broken[600], *a, *b;
  size_t n = 0, m = 0;
  snprintf(straight, sizeof straight, "%s", test_path("straight"));
  snprintf(broken, sizeof broken, "%s", test_path("broken"));
  CHECK_OK(train(straight, false, 0));
  CHECK(train(broken, false, 3) == MN_ERR_CANCELLED, "it was to be broken off");
  CHECK_OK(train(broken, true, 0));
  read_weights(straight, &a, &n);
  read_weights(broken, &b, &m);
  CHECK(a && b && n == m && memcmp(a, b, n) == 0, "broken off and resumed, it is another model");
  CHECK(a && !strstr(a + 8, "aux_head"), "the saved model has the head");
  free(a);
  free(b);
}

static void test_what_nobody_feeds_is_refused_by_name(void) {
  mn_objective_def def;
  mn_recipe *r = recipe(&def, with_unknown_input, (const char *const[]){"train.steps=2"}, 1);
  mn_trainer *t = NULL;
  mn_step_result s;
  CHECK_OK(mn_trainer_new(r, 1, NULL, NULL, &t));
  if (t) {
    CHECK(mn_trainer_step(t, &s) == MN_ERR_CONFIG && strstr(mn_message(), "oracle"), "%s", mn_message());
    mn_trainer_free(t);
  }
  mn_recipe_free(r);
}

int main(void) {
  test_setup("step-params");
  RUN(test_a_parameter_of_the_step_alone_trains);
  RUN(test_what_a_step_does_not_use_stays);
  RUN(test_a_checkpoint_keeps_it);
  RUN(test_what_nobody_feeds_is_refused_by_name);
  test_cleanup();
  return test_end();
}
