/* test_ttt.c - what must be true of TTT-Linear and TTT-MLP, in order: golden vectors; a stream cut anywhere is the stream, though its
 * mini-batches are counted from its start; gradients; bf16; an inner model that learns tells the values of a repeated pair; with
 * eta 0 it stands still; what a recipe may not ask for. */
#include "mixer_suite.h"

static const char *const forms[] = {
    "{\"type\": \"ttt_linear\", \"heads\": 2, \"mini_batch\": 8}",
    "{\"type\": \"ttt_linear\", \"heads\": 2, \"mini_batch\": 1, \"eta\": 0.3}",
    "{\"type\": \"ttt_mlp\", \"heads\": 2, \"mini_batch\": 5}",
};
enum { FORMS = sizeof forms / sizeof *forms };

static void golden_vectors(void) {
  static const char *const files[] = {"ttt/ttt_linear", "ttt/ttt_linear_m1", "ttt/ttt_mlp"};
  mc_golden_files(3, files, 5e-5);
}

static void a_stream_cut_anywhere_is_the_stream(void) { mc_cut_anywhere(FORMS, forms); }

static void gradients_agree_with_differences(void) { ms_gradients(FORMS, forms, 1e-4, 1e-6); }

static void bf16_is_close(void) { ms_bf16(FORMS, forms, 4e-2); }

/* One token repeated: its inner loss falls from mini-batch to mini-batch, and with eta 0 it does not move at all. */
static void the_inner_model_learns(void) {
  enum { T = 64, D = 8 };
  for (int i = 0; i < FORMS; i++)
    for (int still = 0; still < 2; still++) {
      mc_mixer m;
      mc_bag reports = {0};
      double *one = mc_normal(D, 1, 3), x[T * D], y[T * D];
      char json[160];
      for (int t = 0; t < T; t++) memcpy(x + t * D, one, sizeof(double) * D);
      snprintf(json, sizeof json, "{\"type\": \"%s\", \"heads\": 2, \"mini_batch\": 4, \"eta\": %g}", i < 2 ? "ttt_linear" : "ttt_mlp",
               still ? 0.0 : 0.1);
      int ok = mc_open(&m, json, D, 1, MN_F64, mn_backend_ref()) && mc_random_params(&m, 6);
      ok = ok && mc_forward(&m, T, x, y, NULL, NULL, &reports);
      mc_tensor *loss = ok ? mc_get(&reports, "surprise") : NULL;
      CHECK(loss != NULL, "%s: no surprise is told", json);
      if (loss && still) CHECK(loss->x[T - 1] == loss->x[0], "%s: %g becomes %g", json, loss->x[0], loss->x[T - 1]);
      if (loss && !still) CHECK(loss->x[T - 1] < 0.9 * loss->x[0], "%s: %g becomes %g", json, loss->x[0], loss->x[T - 1]);
      mc_close(&m);
      mc_bag_free(&reports);
      free(one);
    }
}

static void what_a_recipe_may_not_ask_for(void) {
  mc_refused("type: ttt_linear\nheads: 3\n", 16, "recipe.yaml:2|heads|must divide d_model 16");
  mc_refused("type: ttt_mlp\nmini_batch: 0\n", 16, "recipe.yaml:2|mini_batch");
  mc_refused("type: ttt_mlp\nminibatch: 8\n", 16, "recipe.yaml:2|minibatch|mini_batch");
  mc_refused("type: ttt\n", 16, "recipe.yaml:1|ttt_");
}

int main(void) {
  RUN(golden_vectors);
  RUN(a_stream_cut_anywhere_is_the_stream);
  RUN(gradients_agree_with_differences);
  RUN(bf16_is_close);
  RUN(the_inner_model_learns);
  RUN(what_a_recipe_may_not_ask_for);
  return test_end();
}
