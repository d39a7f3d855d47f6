/* test_lstm.c - what must be true of Long Short-Term Memory, in order: golden vectors; a stream cut anywhere is the stream; gradients; bf16;
 * cells behind gates that are open keep everything, behind gates that are shut nothing; what a recipe may not ask for. */
#include "mixer_suite.h"

static const char *const forms[] = {
    "{\"type\": \"lstm\"}",
    "{\"type\": \"lstm\", \"hidden\": 5, \"forget_bias\": 0}",
    "{\"type\": \"lstm\", \"hidden\": 11, \"forget_bias\": 3}",
};
enum { FORMS = sizeof forms / sizeof *forms };

static void golden_vectors(void) {
  static const char *const files[] = {"lstm/lstm"};
  mc_golden_files(1, files, 2e-5);
}

static void a_stream_cut_anywhere_is_the_stream(void) { mc_cut_anywhere(FORMS, forms); }

static void gradients_agree_with_differences(void) { ms_gradients(FORMS, forms, 1e-3, 1e-6); }

static void bf16_is_close(void) { ms_bf16(FORMS, forms, 2e-2); }

/* Gates are constants: what a token writes is tanh(g) = 1/2, what says it is open. After T tokens a cell whose forget gate is open (+40)
 * holds T/2, one whose gate is shut (-40) the last half. */
static void a_forget_gate_keeps_or_drops(void) {
  enum { T = 12, D = 6 };
  for (int keeps = 0; keeps < 2; keeps++) {
    mc_mixer m;
    mc_bag state = {0};
    double *x = mc_normal(T * D, 1, 3), y[T * D];
    bool ok = mc_open(&m, keeps ? "{\"type\": \"lstm\", \"forget_bias\": 40}" : "{\"type\": \"lstm\", \"forget_bias\": -40}", D, 1, MN_F64,
                      mn_backend_ref()) &&
              mc_random_params(&m, 1);
    if (ok) {
      ms_set(&m.params, "x_proj.weight", 0);
      ms_set(&m.params, "h_proj.weight", 0);
      mc_tensor *b = mc_get(&m.params, "x_proj.bias");
      for (int i = 0; b && i < D; i++) b->x[i] = 40, b->x[D + i] = 0, b->x[2 * D + i] = atanh(0.5), b->x[3 * D + i] = 40;
      ok = b && mc_pieces(&m, T, x, 0, NULL, y, &state);
    }
    const mc_tensor *c = ok ? mc_get(&state, "c") : NULL;
    CHECK(c != NULL, "no cells");
    for (int i = 0; c && i < D; i++) {
      const double want = keeps ? T / 2.0 : 0.5;
      CHECK(fabs(c->x[i] - want) < 1e-12 && fabs(y[(T - 1) * D + i] - tanh(want)) < 1e-12, "cell %d holds %.15g and says %.15g", i, c->x[i],
            y[(T - 1) * D + i]);
    }
    mc_bag_free(&state);
    mc_close(&m);
    free(x);
  }
}

static void what_a_recipe_may_not_ask_for(void) {
  mc_refused("type: lstm\nhidden: -1\n", 16, "recipe.yaml:2|hidden|0");
  mc_refused("type: lstm\nheads: 4\n", 16, "recipe.yaml:2|heads");
}

int main(void) {
  RUN(golden_vectors);
  RUN(a_stream_cut_anywhere_is_the_stream);
  RUN(gradients_agree_with_differences);
  RUN(bf16_is_close);
  RUN(a_forget_gate_keeps_or_drops);
  RUN(what_a_recipe_may_not_ask_for);
  return test_end();
}
