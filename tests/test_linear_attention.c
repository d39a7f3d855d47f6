/* test_linear_attention.c - what must be true of linear attention, in order: golden vectors; a stream cut anywhere is the stream; gradients;
 * bf16; a sum never stops counting; what a recipe may not ask for. */
#include "mixer_suite.h"

static const char *const forms[] = {
    "{\"type\": \"linear_attention\", \"heads\": 2}",
    "{\"type\": \"linear_attention\", \"heads\": 4}",
    "{\"type\": \"linear_attention\", \"heads\": 2, \"head_dim\": 5}",
};
enum { FORMS = sizeof forms / sizeof *forms };

static void golden_vectors(void) {
  static const char *const files[] = {"recurrences/linear_attention"};
  mc_golden_files(1, files, 2e-5);
}

static void a_stream_cut_anywhere_is_the_stream(void) { mc_cut_anywhere(FORMS, forms); }

static void gradients_agree_with_differences(void) { ms_gradients(FORMS, forms, 0, 1e-6); }

static void bf16_is_close(void) { ms_bf16(FORMS, forms, 2e-2); }

/* Equal tokens have an average that stands still, even where an f32 has stopped counting: a state of 2^24 tokens and more. */
static void a_sum_never_stops_counting(void) {
  enum { D = 8 };
  mc_mixer m;
  mc_bag state = {0};
  mn_backend *cpu = NULL;
  double x[D], y[D];
  for (int i = 0; i < D; i++) x[i] = 0.3 * i - 1;
  CHECK_OK(mn_backend_cpu_new(1, &cpu));
  int ok = cpu && mc_open(&m, forms[0], D, 1, MN_F32, cpu) && mc_random_params(&m, 6) && mc_pieces(&m, 1, x, 0, NULL, y, &state);
  CHECK(ok, "run");
  if (ok) {
    mc_tensor *W = mc_get(&state, "W");
    double one = W->x[D / 2], before;
    for (int64_t i = 0, n = mn_shape_count(&W->shape); i < n; i++) W->x[i] *= 0x1p26;
    before = W->x[D / 2];
    for (int t = 0; t < 64; t++) ok = ok && mc_segment(&m, &state, 1, x, y);
    CHECK(ok && fabs(mc_get(&state, "W")->x[D / 2] - before - 64 * one) < 1e-4 * fabs(64 * one), "after 2^26 tokens 64 more add %g of %g",
          mc_get(&state, "W")->x[D / 2] - before, 64 * one);
  }
  mc_close(&m);
  mc_bag_free(&state);
  mn_backend_free(cpu);
}

static void what_a_recipe_may_not_ask_for(void) {
  mc_refused("type: linear_attention\nheads: 3\n", 16, "recipe.yaml:2|heads|must divide d_model 16");
  mc_refused("type: linear_attention\nhead_dims: 8\n", 16, "recipe.yaml:2|head_dims|head_dim");
}

int main(void) {
  RUN(golden_vectors);
  RUN(a_stream_cut_anywhere_is_the_stream);
  RUN(gradients_agree_with_differences);
  RUN(bf16_is_close);
  RUN(a_sum_never_stops_counting);
  RUN(what_a_recipe_may_not_ask_for);
  return test_end();
}
