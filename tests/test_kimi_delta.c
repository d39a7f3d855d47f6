/* test_kimi_delta.c - what must be true of Kimi Delta Attention, in order: golden vectors; a stream cut anywhere is the stream;
 * gradients; bf16; with one decay it is Gated DeltaNet; what a recipe may not ask for. */
#include "mixer_suite.h"

static const char *const forms[] = {
    "{\"type\": \"kimi_delta\", \"heads\": 2}",
    "{\"type\": \"kimi_delta\", \"heads\": 4, \"conv\": 2, \"rank\": 3}",
    "{\"type\": \"kimi_delta\", \"heads\": 2, \"head_dim\": 6, \"conv\": 1}",
};
enum { FORMS = sizeof forms / sizeof *forms };

static void golden_vectors(void) {
  static const char *const files[] = {"recurrences/kimi_delta"};
  mc_golden_files(1, files, 2e-5);
}

static void a_stream_cut_anywhere_is_the_stream(void) { mc_cut_anywhere(FORMS, forms); }

static void gradients_agree_with_differences(void) { ms_gradients(FORMS, forms, 1e-4, 1e-6); }

static void bf16_is_close(void) { ms_bf16(FORMS, forms, 2e-2); }

static void one_decay(mc_bag *a, mc_bag *b) {
  ms_set(a, "A_log", -1), ms_set(b, "A_log", -1);
  ms_set(a, "dt_bias", 0.3), ms_set(b, "dt_bias", 0.3);
  ms_set(a, "a_up.weight", 0), ms_set(b, "a_proj.weight", 0);
}
/* With one decay for all channels it is Gated DeltaNet's memory: the states agree where both forget at the same rate. */
static void with_one_decay_it_is_gated_deltanet(void) {
  ms_same_state("{\"type\": \"kimi_delta\", \"heads\": 2}", "{\"type\": \"gated_deltanet\", \"heads\": 2}", "W", one_decay, 1e-13);
}

static void what_a_recipe_may_not_ask_for(void) {
  mc_refused("type: kimi_delta\nheads: 3\n", 16, "recipe.yaml:2|heads|must divide d_model 16");
  mc_refused("type: kimi_delta\nrank: -1\n", 16, "recipe.yaml:2|rank");
  mc_refused("type: kimi_delta\nranks: 8\n", 16, "recipe.yaml:2|ranks|rank");
}

int main(void) {
  RUN(golden_vectors);
  RUN(a_stream_cut_anywhere_is_the_stream);
  RUN(gradients_agree_with_differences);
  RUN(bf16_is_close);
  RUN(with_one_decay_it_is_gated_deltanet);
  RUN(what_a_recipe_may_not_ask_for);
  return test_end();
}
