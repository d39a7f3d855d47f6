/* test_retnet.c - what must be true of RetNet's retention, in order: golden vectors; a stream cut anywhere is the stream;
 * gradients; bf16; a head fades at its rate; what a recipe may not ask for. */
#include "mixer_suite.h"

static const char *const forms[] = {
    "{\"type\": \"retnet\", \"heads\": 2}",
    "{\"type\": \"retnet\", \"heads\": 4, \"rope_theta\": 100}",
    "{\"type\": \"retnet\", \"heads\": 1, \"key_dim\": 6, \"value_dim\": 5}",
};
enum { FORMS = sizeof forms / sizeof *forms };

static void golden_vectors(void) {
  static const char *const files[] = {"recurrences/retnet", "recurrences/retnet_narrow"};
  mc_golden_files(2, files, 2e-5);
}

static void a_stream_cut_anywhere_is_the_stream(void) { mc_cut_anywhere(FORMS, forms); }

static void gradients_agree_with_differences(void) { ms_gradients(FORMS, forms, 0, 1e-6); }

static void bf16_is_close(void) { ms_bf16(FORMS, forms, 2e-2); }

/* What one token writes fades by 1 - 2^(-5-h) a token: two states after equal streams, one of them 20 silent tokens later. */
static void a_head_fades_at_its_rate(void) {
  enum { D = 8, SILENT = 20 };
  double x[(1 + SILENT) * D] = {0}, y[(1 + SILENT) * D];
  mc_mixer m;
  mc_bag one = {0}, late = {0};
  for (int i = 0; i < D; i++) x[i] = 1 + i;
  int ok = mc_open(&m, forms[0], D, 1, MN_F64, mn_backend_ref()) && mc_random_params(&m, 6);
  ok = ok && mc_pieces(&m, 1, x, 0, NULL, y, &one) && mc_pieces(&m, 1 + SILENT, x, 0, NULL, y, &late);
  CHECK(ok, "run");
  if (ok) {
    mc_tensor *a = mc_get(&one, "W"), *b = mc_get(&late, "W");
    int64_t n = mn_shape_count(&a->shape);
    for (int64_t i = 0; i < n; i++) a->x[i] *= pow(1 - pow(2, -5 - (double)(i >= n / 2)), SILENT);
    double e = mc_difference(b->x, a->x, n);
    CHECK(e < 1e-13, "%g", e);
  }
  mc_close(&m);
  mc_bag_free(&one);
  mc_bag_free(&late);
}

static void what_a_recipe_may_not_ask_for(void) {
  mc_refused("type: retnet\nheads: 3\n", 16, "recipe.yaml:2|heads|must divide 16|key_dim");
  mc_refused("type: retnet\nkey_dim: 5\n", 16, "recipe.yaml:2|key_dim|even");
  mc_refused("type: retnet\nvalue_dims: 5\n", 16, "recipe.yaml:2|value_dims|value_dim");
}

int main(void) {
  RUN(golden_vectors);
  RUN(a_stream_cut_anywhere_is_the_stream);
  RUN(gradients_agree_with_differences);
  RUN(bf16_is_close);
  RUN(a_head_fades_at_its_rate);
  RUN(what_a_recipe_may_not_ask_for);
  return test_end();
}
