/* test_rwkv7.c - what must be true of RWKV-7's time mixing, in order: golden vectors; a stream cut anywhere is the stream;
 * gradients; bf16; a rate of one erases what it reads; what a recipe may not ask for. */
#include "mixer_suite.h"

static const char *const forms[] = {
    "{\"type\": \"rwkv7\", \"heads\": 2, \"decay_rank\": 3, \"rate_rank\": 3, \"gate_rank\": 4}",
    "{\"type\": \"rwkv7\", \"heads\": 4}",
    "{\"type\": \"rwkv7\", \"heads\": 1, \"head_dim\": 5, \"decay_rank\": 2}",
};
enum { FORMS = sizeof forms / sizeof *forms };

static void golden_vectors(void) {
  static const char *const files[] = {"recurrences/rwkv7"};
  mc_golden_files(1, files, 2e-5);
}

static void a_stream_cut_anywhere_is_the_stream(void) { mc_cut_anywhere(FORMS, forms); }

static void gradients_agree_with_differences(void) { ms_gradients(FORMS, forms, 1e-4, 1e-6); }

static void bf16_is_close(void) { ms_bf16(FORMS, forms, 2e-2); }

/* The memory can be emptied of one direction: with a = 1, w near 1 and nothing written, what lies along kappa is gone after one
 * token, as (I - kappa^T kappa) is a projection. */
static void a_rate_of_one_erases_what_it_reads(void) {
  enum { D = 8, K = 8 };
  double x[D], y[D], W[K * K];
  mc_mixer m;
  mc_bag state = {0};
  for (int i = 0; i < D; i++) x[i] = 0.4 * i - 1;
  int ok = mc_open(&m, "{\"type\": \"rwkv7\", \"heads\": 1}", D, 1, MN_F64, mn_backend_ref()) && mc_random_params(&m, 6);
  ms_set(&m.params, "w_up.weight", 0), ms_set(&m.params, "w_up.bias", -60); /* decay exp(-exp(-1/2) sigmoid(-60)) = 1 */
  ms_set(&m.params, "a_up.weight", 0), ms_set(&m.params, "a_up.bias", 60);
  ms_set(&m.params, "v_proj.weight", 0);
  ok = ok && mc_start(&m, &state);
  for (int i = 0; ok && i < K * K; i++) W[i] = mc_get(&state, "W")->x[i] = mn_random_normal(3, 1, (uint64_t)i);
  ok = ok && mc_segment(&m, &state, 1, x, y);
  CHECK(ok, "run");
  if (ok) {
    double k[K], norm = 0, left = 0, was = 0;
    for (int i = 0; i < K; i++) { /* kappa of the first token: x_{t-1} = 0 */
      k[i] = 0;
      for (int j = 0; j < D; j++) k[i] += mc_get(&m.params, "k_proj.weight")->x[i * D + j] * x[j] * (1 - mc_get(&m.params, "mu_k")->x[j]);
      k[i] *= mc_get(&m.params, "xi")->x[i];
      norm += k[i] * k[i];
    }
    for (int j = 0; j < K; j++) {
      double a = 0, b = 0;
      for (int i = 0; i < K; i++) a += k[i] * mc_get(&state, "W")->x[i * K + j] / sqrt(norm), b += k[i] * W[i * K + j] / sqrt(norm);
      left = fmax(left, fabs(a)), was = fmax(was, fabs(b));
    }
    CHECK(was > 0.1 && left < 1e-5 * was, "%g of %g is left", left, was);
  }
  mc_close(&m);
  mc_bag_free(&state);
}

/* Values are mixed with those of a layer below that hands on as many, of the same width; who has none is named. */
static void mixed_values_need_a_layer_that_hands_them_on(void) {
  static const char upper[] = "{\"type\": \"rwkv7\", \"heads\": 2, \"values\": \"mixed\"}";
  static const char *const lower[] = {"{\"type\": \"rwkv7\", \"heads\": 2, \"values\": \"first\"}", "{\"type\": \"rwkv7\", \"heads\": 2}",
                                      "{\"type\": \"rwkv7\", \"heads\": 1, \"values\": \"first\"}", NULL};
  for (int i = 0; i < 4; i++) {
    mc_mixer up, low = {0};
    if (!mc_open(&up, upper, 8, 1, MN_F64, mn_backend_ref()) || (lower[i] && !mc_open(&low, lower[i], 8, 1, MN_F64, mn_backend_ref())))
      continue;
    mn_graph *g = mn_graph_new();
    mn_scope *s = mn_scope_new(g, mc_how(&up, false), 1);
    mn_tensor *x = mn_input(g, "x", MN_F64, MN_SHAPE(1, 3, 8));
    if (lower[i]) x = mn_mixer_apply(mn_scope_in(s, "layers.0"), &low.mixer, x);
    mn_mixer_apply(mn_scope_in(s, "layers.1"), &up.mixer, x);
    const mn_status status = mn_graph_status(g);
    CHECK(status == (i ? MN_ERR_CONFIG : MN_OK), "below it is %s: %s", lower[i] ? lower[i] : "nothing", mn_status_name(status));
    if (i) CHECK(strstr(mn_message(), "layers.1.values: mixed needs a layer below it"), "%s", mn_message());
    mn_graph_free(g);
    mc_close(&up);
    if (lower[i]) mc_close(&low);
  }
}

static void what_a_recipe_may_not_ask_for(void) {
  mc_refused("type: rwkv7\nheads: 3\n", 16, "recipe.yaml:2|heads|must divide d_model 16");
  mc_refused("type: rwkv7\ndecay_rank: 0\n", 16, "recipe.yaml:2|decay_rank");
  mc_refused("type: rwkv7\nvalue_rank: 4\n", 16, "recipe.yaml:2|value_rank|values: mixed");
  mc_refused("type: rwkv\n", 16, "recipe.yaml:1|rwkv7");
}

int main(void) {
  RUN(golden_vectors);
  RUN(a_stream_cut_anywhere_is_the_stream);
  RUN(gradients_agree_with_differences);
  RUN(bf16_is_close);
  RUN(a_rate_of_one_erases_what_it_reads);
  RUN(mixed_values_need_a_layer_that_hands_them_on);
  RUN(what_a_recipe_may_not_ask_for);
  return test_end();
}
