/* test_short_conv.c - what must be true of the gated short convolution, in order: golden vectors; a stream cut anywhere is the stream;
 * gradients; bf16; a token sees the last W and no other; what a recipe may not ask for. */
#include "mixer_suite.h"

static const char *const forms[] = {
    "{\"type\": \"short_conv\"}",
    "{\"type\": \"short_conv\", \"conv\": 5, \"bias\": true}",
    "{\"type\": \"short_conv\", \"conv\": 2}",
};
enum { FORMS = sizeof forms / sizeof *forms };

static void golden_vectors(void) {
  static const char *const files[] = {"short_conv/short_conv", "short_conv/short_conv_bias"};
  mc_golden_files(2, files, 2e-5);
}

static void a_stream_cut_anywhere_is_the_stream(void) { mc_cut_anywhere(FORMS, forms); }

static void gradients_agree_with_differences(void) { ms_gradients(FORMS, forms, 0, 1e-6); }

static void bf16_is_close(void) { ms_bf16(FORMS, forms, 2e-2); }

/* Another first token changes the first W outputs and none after them. */
static void a_token_sees_the_last_w_and_no_other(void) {
  enum { T = 12, D = 8 };
  for (int i = 0; i < FORMS; i++) {
    static const int sees[FORMS] = {3, 5, 2};
    double *x = mc_normal(T * D, 1, 5), y[T * D], z[T * D];
    mc_mixer m;
    mc_bag state = {0}, other = {0};
    bool ok = mc_open(&m, forms[i], D, 1, MN_F64, mn_backend_ref()) && mc_random_params(&m, 6) && mc_pieces(&m, T, x, 0, NULL, y, &state);
    for (int k = 0; k < D; k++) x[k] += 1;
    ok = ok && mc_pieces(&m, T, x, 0, NULL, z, &other);
    CHECK(ok, "run");
    for (int t = 0; ok && t < T; t++) {
      double e = mc_difference(y + t * D, z + t * D, D);
      CHECK((e > 0) == (t < sees[i]), "%s: token %d of %d that see the first one differs by %g", forms[i], t, sees[i], e);
    }
    mc_close(&m);
    mc_bag_free(&state), mc_bag_free(&other);
    free(x);
  }
}

static void what_a_recipe_may_not_ask_for(void) {
  mc_refused("type: short_conv\nconv: 1\n", 16, "recipe.yaml:2|conv|2");
  mc_refused("type: short_conv\nheads: 3\n", 16, "recipe.yaml:2|heads");
}

int main(void) {
  RUN(golden_vectors);
  RUN(a_stream_cut_anywhere_is_the_stream);
  RUN(gradients_agree_with_differences);
  RUN(bf16_is_close);
  RUN(a_token_sees_the_last_w_and_no_other);
  RUN(what_a_recipe_may_not_ask_for);
  return test_end();
}
