/* test_bmojo.c - what must be true of B'MOJO, in order: golden vectors; a stream cut anywhere is the stream; gradients; bf16; what it
 * becomes when what fades is the identity, or nothing, or when the window holds everything; a later token changes nothing before it; what
 * a recipe may not ask for. */
#include "mixer_suite.h"

static const char *const forms[] = {
    "{\"type\": \"bmojo_f\", \"heads\": 2, \"window\": 3}",
    "{\"type\": \"bmojo_f\", \"heads\": 4, \"kv_heads\": 2, \"window\": 4, \"tie\": false, \"qk_norm\": true,"
    " \"fading\": {\"type\": \"deltanet\", \"heads\": 2, \"conv\": 3}}",
    "{\"type\": \"bmojo_f\", \"heads\": 2, \"kv_heads\": 1, \"window\": 5, \"fading\": {\"type\": \"mamba2\", \"head_dim\": 4, \"state\": 3}}",
    "{\"type\": \"bmojo_f\", \"heads\": 2, \"window\": 1, \"rope\": false, \"fading\": \"identity\"}",
    "{\"type\": \"bmojo_f\", \"heads\": 2, \"window\": 3, \"fading\": \"none\"}",
};
enum { FORMS = sizeof forms / sizeof *forms };

static void golden_vectors(void) {
  static const char *const files[] = {"bmojo/bmojo_f", "bmojo/bmojo_f_own"};
  mc_golden_files(2, files, 2e-5);
}

static void a_stream_cut_anywhere_is_the_stream(void) { mc_cut_anywhere(FORMS, forms); }

static void gradients_agree_with_differences(void) { ms_gradients(FORMS, forms, 1e-4, 1e-6); }

static void bf16_is_close(void) { ms_bf16(FORMS, forms, 3e-2); }

/* Tokens as they are, further back by the same matrices: a window twice as long. */
static void a_memory_that_is_the_identity_is_a_window_of_twice_the_width(void) {
  static const char *const pairs[][2] = {
      {"{\"type\": \"bmojo_f\", \"heads\": 2, \"window\": 4, \"fading\": \"identity\"}",
       "{\"type\": \"attention\", \"heads\": 2, \"window\": 8}"},
      {"{\"type\": \"bmojo_f\", \"heads\": 4, \"kv_heads\": 2, \"window\": 1, \"fading\": \"identity\", \"rope_theta\": 50}",
       "{\"type\": \"attention\", \"heads\": 4, \"kv_heads\": 2, \"window\": 2, \"rope_theta\": 50}"},
      {"{\"type\": \"bmojo_f\", \"heads\": 2, \"window\": 20, \"rope\": false, \"fading\": \"identity\"}",
       "{\"type\": \"attention\", \"heads\": 2, \"rope\": false}"}};
  for (int i = 0; i < 3; i++) {
    const double e = ms_difference(pairs[i][0], pairs[i][1], 16, 40, NULL, NULL);
    CHECK(e < 1e-12, "%s: %g", pairs[i][0], e);
  }
  const double e = ms_difference("{\"type\": \"bmojo_f\", \"heads\": 2, \"window\": 4}", pairs[0][1], 16, 40, NULL, NULL);
  CHECK(e > 1e-3, "and what fades is no token: %g", e);
}

static void without_a_memory_it_is_a_window(void) {
  double e = ms_difference("{\"type\": \"bmojo_f\", \"heads\": 2, \"window\": 5, \"fading\": \"none\"}",
                           "{\"type\": \"attention\", \"heads\": 2, \"window\": 5}", 16, 40, NULL, NULL);
  CHECK(e < 1e-12, "a window: %g", e);
  e = ms_difference("{\"type\": \"bmojo_f\", \"heads\": 2, \"window\": 40}", "{\"type\": \"attention\", \"heads\": 2}", 16, 40, NULL, NULL);
  CHECK(e < 1e-12, "a window that holds everything: %g", e);
}

/* Outputs before a token that is changed keep their bits, in training, whatever the memory. */
static void a_later_token_changes_nothing_before_it(void) {
  enum { T = 24, D = 8, AT = 13 };
  for (int f = 0; f < FORMS; f++) {
    mc_mixer m;
    double *x = mc_normal(T * D, 1, 3), y[2][T * D];
    bool ok =
        mc_open(&m, forms[f], D, 1, MN_F64, mn_backend_ref()) && mc_random_params(&m, 4) && mc_forward(&m, T, x, y[0], NULL, NULL, NULL);
    for (int i = 0; i < D; i++) x[AT * D + i] += 1;
    ok = ok && mc_forward(&m, T, x, y[1], NULL, NULL, NULL);
    CHECK(ok && !memcmp(y[0], y[1], sizeof(double) * AT * D), "%s: outputs before it differ", forms[f]);
    CHECK(ok && mc_difference(y[0] + AT * D, y[1] + AT * D, D) > 1e-3, "%s: its own does not", forms[f]);
    mc_close(&m);
    free(x);
  }
}

static void what_a_recipe_may_not_ask_for(void) {
  mc_refused("type: bmojo_f\nheads: 3\n", 16, "recipe.yaml:2|heads|divide d_model 16");
  mc_refused("type: bmojo_f\nheads: 16\n", 16, "head_dim|even");
  mc_refused("type: bmojo_f\nrope: false\nrope_theta: 500\n", 16, "recipe.yaml:3|rope_theta|rope: false");
  mc_refused("type: bmojo_f\nfading: none\ntie: false\n", 16, "recipe.yaml:3|tie|fading: none");
  mc_refused("type: bmojo_f\nfading: 3\n", 16, "recipe.yaml:2|fading|a mixer");
  mc_refused("type: bmojo_f\nfading: mambo2\n", 16, "recipe.yaml:2|mambo2|mamba2");
  mc_refused("type: bmojo_f\nfading: {type: gla, key_dims: 3}\n", 16, "recipe.yaml:2|key_dims|key_dim");
  mc_refused("type: bmojo_f\nfading: {type: attention, causal: false}\n", 16, "recipe.yaml:2|fading|later tokens");
}

int main(void) {
  RUN(golden_vectors);
  RUN(a_stream_cut_anywhere_is_the_stream);
  RUN(gradients_agree_with_differences);
  RUN(bf16_is_close);
  RUN(a_memory_that_is_the_identity_is_a_window_of_twice_the_width);
  RUN(without_a_memory_it_is_a_window);
  RUN(a_later_token_changes_nothing_before_it);
  RUN(what_a_recipe_may_not_ask_for);
  return test_end();
}
