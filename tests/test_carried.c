/* What must be true of training with carried state: a parameter is read where it is used, so persistent tokens get a gradient
 * in every step, not only where streams begin; and the model that is saved is the one that was trained: loaded, with the state
 * that a step began with, it gives that step's loss. */
#include "train/trainer_internal.h"
#include "train_helpers.h"

static const char *const mixers[] = {"{type: attention, heads: 2, window: 8, persistent: 2}",
                                     "{type: titans_mag, heads: 2, memory_net: linear, chunk: 8, window: 8, persistent: 2}",
                                     "{type: titans_mal, heads: 2, memory_net: linear, chunk: 8, window: 8, persistent: 2}",
                                     "{type: titans_mac, heads: 2, memory_net: linear, chunk: 8, segment: 16, persistent: 2}"};
enum { N = sizeof mixers / sizeof *mixers };

static mn_recipe *carried_recipe(const char *mixer) {
  char set[300];
  snprintf(set, sizeof set, "model.block.mixer=%s", mixer);
  /* beta1 = 0: the first moment is the step's gradient */
  return RECIPE(set, "data.order=sequential", "train.carry_state=true", "train.optimizer.betas=[0, 0.9]", "model.layers=1");
}

static bool ends_with(const char *s, const char *end) { return strlen(s) >= strlen(end) && !strcmp(s + strlen(s) - strlen(end), end); }

static void test_persistent_tokens_train_in_every_step(void) {
  for (int c = 0; c < N; c++) {
    mn_recipe *r = carried_recipe(mixers[c]);
    mn_trainer *t = NULL;
    CHECK_OK(mn_trainer_new(r, 1, NULL, NULL, &t));
    for (int step = 1; t && step <= 5; step++) {
      mn_step_result s;
      int seen = 0;
      CHECK_OK(mn_trainer_step(t, &s));
      for (int i = 0; i < t->params->n; i++) {
        const mn_param_info *p = &t->params->info[i];
        if (!ends_with(p->name, "prefix_k") && !ends_with(p->name, "prefix_v")) continue;
        const float *g = t->optimizer->m[i];
        double size = 0;
        for (int64_t k = 0; k < mn_shape_count(&p->shape); k++) size += fabs((double)g[k]);
        CHECK(size > 0, "%s, step %d: %s has no gradient", mixers[c], step, p->name);
        seen++;
      }
      CHECK(seen == 2, "%s: %d persistent parameters", mixers[c], seen);
    }
    mn_trainer_free(t);
    mn_recipe_free(r);
  }
}

/* The loss of the trainer's last batch by other parameters, from the given state. */
static double loss_of(mn_trainer *t, mn_params *params, void *const *state) {
  const mn_train_config *c = &t->recipe->train;
  mn_graph *g = mn_graph_new();
  mn_build build = {.param = MN_F32, .compute = MN_F32, .carried = true, .position_multiple = c->seq_len};
  build.reset = mn_input(g, "reset", MN_BOOL, MN_SHAPE(c->batch));
  mn_scope *s = mn_scope_new(g, build, c->batch);
  mn_shape shape = MN_SHAPE(c->batch, c->seq_len);
  mn_tensor *tokens = mn_input(g, "tokens", MN_I32, shape), *target = mn_input(g, "target", MN_I32, shape);
  mn_tensor *weight = mn_input(g, "weight", MN_F32, shape), *loss = mn_model_loss(s, t->model, tokens, target, weight, NULL);
  const mn_built_state *states;
  mn_plan *plan = NULL;
  float l = (float)NAN;
  mn_plan_request q = {.graph = g, .n_outputs = 1, .outputs = &loss, .backend = t->backend};
  CHECK_OK(mn_plan_compile(&q, &plan));
  mn_params_bind(params, s, plan);
  mn_plan_bind(plan, build.reset, mn_batch_get(&t->batches[0], "reset"));
  mn_plan_bind(plan, tokens, mn_batch_get(&t->batches[0], "tokens"));
  mn_plan_bind(plan, target, mn_batch_get(&t->batches[0], "target"));
  mn_plan_bind(plan, weight, t->weight[0]);
  for (int i = 0, n = mn_scope_states(s, &states); i < n; i++) mn_plan_bind(plan, states[i].leaf, state[i]);
  CHECK_OK(mn_plan_run(plan));
  l = *(const float *)mn_plan_output(plan, 0)->data;
  mn_plan_free(plan);
  mn_graph_free(g);
  return (double)l;
}

static void test_the_saved_model_is_the_trained_one(void) {
  for (int c = 0; c < N; c++) {
    mn_recipe *r = carried_recipe(mixers[c]);
    mn_trainer *t = NULL;
    mn_params *loaded = NULL;
    mn_step_result s = {0};
    void *state[64] = {NULL};
    CHECK_OK(mn_trainer_new(r, 1, NULL, NULL, &t));
    for (int step = 1; t && step <= 12; step++) CHECK_OK(mn_trainer_step(t, &s));
    if (!t) continue;
    const int n = mn_states_count(t->carried);
    for (int i = 0; i < n; i++) {
      state[i] = mn_alloc_aligned(mn_states_bytes(t->carried, i));
      CHECK_OK(mn_states_get(t->carried, i, state[i]));
    }
    CHECK_OK(mn_params_save(t->params, test_path("saved.safetensors")));
    CHECK_OK(mn_trainer_step(t, &s));
    CHECK_OK(mn_params_new(t->model, t->backend, MN_F32, 99, &loaded));
    CHECK_OK(mn_params_load(loaded, test_path("saved.safetensors")));
    double l = loss_of(t, loaded, state);
    CHECK(fabs(l - s.loss) < 1e-5 * s.loss, "%s: trained %.8g, saved and loaded %.8g", mixers[c], s.loss, l);
    /* and from a session's state that another model left: what stood for persistent tokens is not read */
    for (int i = 0; i < n; i++) {
      const mn_state_info *b = mn_states_info(t->carried, i);
      bool cache =
          ends_with(b->name, "mixer.k") || ends_with(b->name, "mixer.v") || ends_with(b->name, "attn.k") || ends_with(b->name, "attn.v");
      int64_t row = mn_shape_count(&b->shape) / b->shape.dim[0], pairs = cache ? 2 * row / b->shape.dim[1] : 0;
      for (int64_t k = 0; k < pairs; k++)
        for (int64_t row_of = 0; row_of < b->shape.dim[0]; row_of++) ((float *)state[i])[row_of * row + k] = 1e3f;
    }
    CHECK(loss_of(t, loaded, state) == l, "%s: a copy in the state was read", mixers[c]);
    for (int i = 0; i < n; i++) free(state[i]);
    mn_params_free(loaded);
    mn_trainer_free(t);
    mn_recipe_free(r);
  }
}

int main(void) {
  test_setup("carried");
  RUN(test_persistent_tokens_train_in_every_step);
  RUN(test_the_saved_model_is_the_trained_one);
  test_cleanup();
  return test_end();
}
