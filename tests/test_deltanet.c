/* test_deltanet.c - what must be true of DeltaNet, in order: golden vectors; a stream cut anywhere is the stream; gradients; bf16;
 * without decay Gated DeltaNet remembers the same; what a recipe may not ask for. */
#include "mixer_suite.h"

static const char *const forms[] = {
    "{\"type\": \"deltanet\", \"heads\": 2}",
    "{\"type\": \"deltanet\", \"heads\": 4, \"conv\": 2}",
    "{\"type\": \"deltanet\", \"heads\": 2, \"head_dim\": 6, \"conv\": 1}",
};
enum { FORMS = sizeof forms / sizeof *forms };

static void golden_vectors(void) {
  static const char *const files[] = {"recurrences/deltanet"};
  mc_golden_files(1, files, 2e-5);
}

static void a_stream_cut_anywhere_is_the_stream(void) { mc_cut_anywhere(FORMS, forms); }

static void gradients_agree_with_differences(void) { ms_gradients(FORMS, forms, 1e-4, 1e-6); }

static void bf16_is_close(void) { ms_bf16(FORMS, forms, 2e-2); }

static void no_decay(mc_bag *a, mc_bag *b) {
  (void)a;
  ms_set(b, "A_log", -200);
}
/* Gated DeltaNet whose decay is 1 has the same memory; so the states W agree to rounding. */
static void without_decay_gated_deltanet_remembers_the_same(void) {
  ms_same_state("{\"type\": \"deltanet\", \"heads\": 2}", "{\"type\": \"gated_deltanet\", \"heads\": 2}", "W", no_decay, 1e-13);
}

static void what_a_recipe_may_not_ask_for(void) {
  mc_refused("type: deltanet\nheads: 3\n", 16, "recipe.yaml:2|heads|must divide d_model 16");
  mc_refused("type: deltanet\nconv: 0\n", 16, "recipe.yaml:2|conv");
  mc_refused("type: delta_net\n", 16, "recipe.yaml:1|deltanet");
}

int main(void) {
  RUN(golden_vectors);
  RUN(a_stream_cut_anywhere_is_the_stream);
  RUN(gradients_agree_with_differences);
  RUN(bf16_is_close);
  RUN(without_decay_gated_deltanet_remembers_the_same);
  RUN(what_a_recipe_may_not_ask_for);
  return test_end();
}
