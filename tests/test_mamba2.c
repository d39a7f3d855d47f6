/* test_mamba2.c - what must be true of Mamba-2, in order: golden vectors; a stream cut anywhere is the stream; gradients; bf16; a
 * step of no length writes nothing; what a recipe may not ask for. */
#include "mixer_suite.h"

static const char *const forms[] = {
    "{\"type\": \"mamba2\", \"head_dim\": 4, \"state\": 5}",
    "{\"type\": \"mamba2\", \"expand\": 1, \"head_dim\": 2, \"state\": 3, \"groups\": 2, \"conv\": 2}",
    "{\"type\": \"mamba2\", \"expand\": 3, \"head_dim\": 8, \"state\": 4, \"conv\": 1}",
};
enum { FORMS = sizeof forms / sizeof *forms };

static void golden_vectors(void) {
  static const char *const files[] = {"recurrences/mamba2", "recurrences/mamba2_groups"};
  mc_golden_files(2, files, 2e-5);
}

static void a_stream_cut_anywhere_is_the_stream(void) { mc_cut_anywhere(FORMS, forms); }

static void gradients_agree_with_differences(void) { ms_gradients(FORMS, forms, 0, 1e-6); }

static void bf16_is_close(void) { ms_bf16(FORMS, forms, 2e-2); }

/* A step of length zero is no step: with dt = 0 the state stays, and y is the skip alone. */
static void a_step_of_no_length_writes_nothing(void) {
  enum { T = 12, D = 8 };
  double *x = mc_normal(T * D, 1, 5), y[T * D];
  mc_mixer m;
  mc_bag state = {0};
  int ok = mc_open(&m, forms[0], D, 1, MN_F64, mn_backend_ref()) && mc_random_params(&m, 6);
  ms_set(&m.params, "dt_proj.weight", 0), ms_set(&m.params, "dt_bias", -800);
  ok = ok && mc_pieces(&m, T, x, 0, NULL, y, &state);
  CHECK(ok, "run");
  for (int64_t i = 0; ok && i < mn_shape_count(&mc_get(&state, "h")->shape); i++)
    CHECK(mc_get(&state, "h")->x[i] == 0, "entry %d of the state is %g", (int)i, mc_get(&state, "h")->x[i]);
  mc_close(&m);
  mc_bag_free(&state);
  free(x);
}

static void what_a_recipe_may_not_ask_for(void) {
  mc_refused("type: mamba2\nhead_dim: 5\n", 16, "recipe.yaml:2|head_dim|must divide expand|32");
  mc_refused("type: mamba2\nhead_dim: 8\ngroups: 3\n", 16, "recipe.yaml:3|groups|4");
  mc_refused("type: mamba2\nstates: 5\n", 16, "recipe.yaml:2|states|state");
}

int main(void) {
  RUN(golden_vectors);
  RUN(a_stream_cut_anywhere_is_the_stream);
  RUN(gradients_agree_with_differences);
  RUN(bf16_is_close);
  RUN(a_step_of_no_length_writes_nothing);
  RUN(what_a_recipe_may_not_ask_for);
  return test_end();
}
