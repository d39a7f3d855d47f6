/* test_gated_deltanet.c - what must be true of Gated DeltaNet, in order: golden vectors; a stream cut anywhere is the stream;
 * the chunk is a knob of speed alone; gradients; bf16; a long stream stays finite; heads that share keys; what a recipe may not ask for. */
#include "mixer_suite.h"

static const char *const forms[] = {
    "{\"type\": \"gated_deltanet\", \"heads\": 2, \"chunk\": 8}",
    "{\"type\": \"gated_deltanet\", \"heads\": 4, \"conv\": 2, \"chunk\": 64}",
    "{\"type\": \"gated_deltanet\", \"heads\": 2, \"head_dim\": 6, \"conv\": 1, \"chunk\": 5}",
    "{\"type\": \"gated_deltanet\", \"heads\": 4, \"head_dim\": 3, \"key_heads\": 2, \"value_dim\": 5, \"chunk\": 8, \"norm_eps\": 1e-3}",
};
enum { FORMS = sizeof forms / sizeof *forms };

static void golden_vectors(void) {
  static const char *const files[] = {"gated_deltanet/gated_deltanet", "gated_deltanet/gated_deltanet_h4"};
  mc_golden_files(2, files, 2e-5);
}

static void a_stream_cut_anywhere_is_the_stream(void) { mc_cut_anywhere(FORMS, forms); }

static void the_chunk_changes_no_result(void) {
  enum { T = 50, D = 8, B = 2 };
  mn_backend *cpu = NULL;
  CHECK_OK(mn_backend_cpu_new(1, &cpu));
  double *x = mc_normal(B * T * D, 1, 3), y[2][B * T * D];
  for (int chunk = 1; chunk <= 64 && cpu; chunk = chunk * 4 + 1) {
    for (int f64 = 0; f64 < 2; f64++) {
      mc_mixer m;
      char json[96];
      snprintf(json, sizeof json, "{\"type\": \"gated_deltanet\", \"heads\": 2, \"chunk\": %d}", chunk);
      CHECK(mc_open(&m, json, D, B, f64 ? MN_F64 : MN_F32, f64 ? mn_backend_ref() : cpu) && mc_random_params(&m, 4) &&
                mc_forward(&m, T, x, y[f64], NULL, NULL, NULL),
            "chunk %d", chunk);
      mc_close(&m);
    }
    double e = mc_difference(y[0], y[1], B * T * D);
    CHECK(e < 1e-5, "chunk %d against the recurrence token by token in f64: %g", chunk, e);
  }
  free(x);
  mn_backend_free(cpu);
}

static void gradients_agree_with_differences(void) { ms_gradients(FORMS, forms, 1e-4, 1e-6); } /* l2norm of a short k bends strongly */

static void bf16_is_close(void) { ms_bf16(FORMS, forms, 2e-2); }

/* beta < 1 and |k| = 1: every write contracts, so that one key repeated for ever never makes the memory grow */
static void one_token_repeated_for_ever_converges(void) {
  enum { T = 3000, D = 8 };
  mc_mixer m;
  mn_backend *cpu = NULL;
  CHECK_OK(mn_backend_cpu_new(1, &cpu));
  double *one = mc_normal(D, 30, 3), *x = malloc(sizeof(double) * T * D), *y = malloc(sizeof(double) * T * D);
  for (int t = 0; t < T; t++) memcpy(x + t * D, one, sizeof(double) * D);
  if (cpu && mc_open(&m, forms[0], D, 1, MN_F32, cpu) && mc_random_params(&m, 2)) {
    CHECK(mc_forward(&m, T, x, y, NULL, NULL, NULL), "run");
    double e = mc_difference(y + (T - 500) * D, y + (T - 1) * D, D);
    CHECK(e < 1e-5, "y moves by %g in the last 500 of %d equal tokens", e, T);
    mc_close(&m);
  }
  free(one);
  free(x);
  free(y);
  mn_backend_free(cpu);
}

/* Two value heads on one key head are two heads whose queries and keys are equal. */
static void equal_keys(mc_bag *p) {
  static const char *const names[] = {"q_proj.weight", "k_proj.weight", "q_conv.weight", "k_conv.weight"};
  for (int i = 0; i < 4; i++) { /* rows of heads: 0 0 1 1 */
    mc_tensor *t = mc_get(p, names[i]);
    int64_t head = t ? mn_shape_count(&t->shape) / 4 : 0;
    for (int64_t k = 0; t && k < head; k++) t->x[head + k] = t->x[k], t->x[3 * head + k] = t->x[2 * head + k];
  }
}
static mc_bag *shared_from;
static void shared_keys(mc_bag *p) {
  static const char *const names[] = {"q_proj.weight", "k_proj.weight", "q_conv.weight", "k_conv.weight"};
  for (int i = 0; i < 4; i++) {
    mc_tensor *t = mc_get(p, names[i]), *from = mc_get(shared_from, names[i]);
    int64_t head = t ? mn_shape_count(&t->shape) / 2 : 0;
    for (int64_t k = 0; t && from && k < head; k++) t->x[k] = from->x[k], t->x[head + k] = from->x[2 * head + k];
  }
}
static void remember(mc_bag *p) { equal_keys(p), shared_from = p; }
static void key_heads_are_heads_with_equal_keys(void) {
  static const char each[] = "{\"type\": \"gated_deltanet\", \"heads\": 4, \"head_dim\": 3, \"value_dim\": 5}";
  static const char shared[] = "{\"type\": \"gated_deltanet\", \"heads\": 4, \"head_dim\": 3, \"value_dim\": 5, \"key_heads\": 2}";
  double e = ms_difference(each, shared, 8, 30, remember, shared_keys);
  CHECK(e < 1e-12, "y differs by %g", e);
}

static void what_a_recipe_may_not_ask_for(void) {
  mc_refused("type: gated_deltanet\nheads: 3\n", 16, "recipe.yaml:2|heads|must divide d_model 16");
  mc_refused("type: gated_deltanet\nchunk: 0\n", 16, "recipe.yaml:2|chunk");
  mc_refused("type: gated_deltanet\nconv: 0\n", 16, "recipe.yaml:2|conv");
  mc_refused("type: gated_deltanet\nchunks: 8\n", 16, "recipe.yaml:2|chunks|chunk");
  mc_refused("type: gated_deltanet\nheads: 2.5\n", 16, "recipe.yaml:2|heads|2.5");
  mc_refused("type: gated_deltanet\nkey_heads: 3\n", 16, "recipe.yaml:2|key_heads|3 does not divide 4");
  mc_refused("type: gated_delta_net\n", 16, "recipe.yaml:1|gated_deltanet");
}

int main(void) {
  RUN(golden_vectors);
  RUN(a_stream_cut_anywhere_is_the_stream);
  RUN(the_chunk_changes_no_result);
  RUN(gradients_agree_with_differences);
  RUN(bf16_is_close);
  RUN(one_token_repeated_for_ever_converges);
  RUN(key_heads_are_heads_with_equal_keys);
  RUN(what_a_recipe_may_not_ask_for);
  return test_end();
}
