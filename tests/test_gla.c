/* test_gla.c - what must be true of Gated Linear Attention, in order: golden vectors; a stream cut anywhere is the stream;
 * gradients; bf16; a gate that stays open forgets nothing; what a recipe may not ask for. */
#include "mixer_suite.h"

static const char *const forms[] = {
    "{\"type\": \"gla\", \"heads\": 2}",
    "{\"type\": \"gla\", \"heads\": 4, \"decay_rank\": 3, \"decay_temperature\": 1}",
    "{\"type\": \"gla\", \"heads\": 1, \"key_dim\": 5, \"value_dim\": 3}",
};
enum { FORMS = sizeof forms / sizeof *forms };

static void golden_vectors(void) {
  static const char *const files[] = {"recurrences/gla", "recurrences/gla_steep"};
  mc_golden_files(2, files, 2e-5);
}

static void a_stream_cut_anywhere_is_the_stream(void) { mc_cut_anywhere(FORMS, forms); }

static void gradients_agree_with_differences(void) { ms_gradients(FORMS, forms, 1e-4, 1e-6); }

static void bf16_is_close(void) { ms_bf16(FORMS, forms, 2e-2); }

/* One decay for all channels of a head and all tokens is retention with that decay, but for the rotation: with tau so large
 * that nothing is forgotten, y no longer depends on the decay's parameters. */
static void no_decay(mc_bag *p) { ms_set(p, "a_up.bias", 40); }
static void a_gate_that_stays_open_forgets_nothing(void) {
  double e = ms_difference("{\"type\": \"gla\", \"heads\": 2, \"decay_temperature\": 1e6}",
                           "{\"type\": \"gla\", \"heads\": 2, \"decay_temperature\": 1}", 8, 30, NULL, no_decay);
  CHECK(e < 1e-3, "tau 1e6 and a gate at sigmoid(40) differ by %g", e);
  e = ms_difference("{\"type\": \"gla\", \"heads\": 2, \"decay_temperature\": 1}",
                    "{\"type\": \"gla\", \"heads\": 2, \"decay_temperature\": 1}", 8, 30, NULL, no_decay);
  CHECK(e > 1e-2, "the gate changes nothing: %g", e);
}

static void what_a_recipe_may_not_ask_for(void) {
  mc_refused("type: gla\nheads: 3\n", 16, "recipe.yaml:2|heads|must divide 8|key_dim");
  mc_refused("type: gla\nheads: 1\n", 1, "recipe.yaml:1: key_dim must be given");
  mc_refused("type: gla\ndecay_temperature: 0\n", 16, "recipe.yaml:2|decay_temperature");
  mc_refused("type: gla\nhead_dim: 4\n", 16, "recipe.yaml:2|head_dim|key_dim");
}

int main(void) {
  RUN(golden_vectors);
  RUN(a_stream_cut_anywhere_is_the_stream);
  RUN(gradients_agree_with_differences);
  RUN(bf16_is_close);
  RUN(a_gate_that_stays_open_forgets_nothing);
  RUN(what_a_recipe_may_not_ask_for);
  return test_end();
}
