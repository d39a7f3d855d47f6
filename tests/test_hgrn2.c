/* test_hgrn2.c - what must be true of HGRN2, in order: golden vectors; a stream cut anywhere is the stream; gradients; bf16; the lower
 * bound is what a closed gate keeps; the memory is a weighted mean of values; what a recipe may not ask for. */
#include "mixer_suite.h"

static const char *const forms[] = {
    "{\"type\": \"hgrn2\", \"heads\": 2}",
    "{\"type\": \"hgrn2\", \"heads\": 4, \"lower_bound\": 0.9}",
    "{\"type\": \"hgrn2\", \"heads\": 1, \"key_dim\": 5, \"value_dim\": 3, \"lower_bound\": 0.25}",
};
enum { FORMS = sizeof forms / sizeof *forms };

static void golden_vectors(void) {
  static const char *const files[] = {"hgrn2/hgrn2", "hgrn2/hgrn2_bound"};
  mc_golden_files(2, files, 2e-5);
}

static void a_stream_cut_anywhere_is_the_stream(void) { mc_cut_anywhere(FORMS, forms); }

static void gradients_agree_with_differences(void) { ms_gradients(FORMS, forms, 1e-3, 1e-6); }

static void bf16_is_close(void) { ms_bf16(FORMS, forms, 2e-2); }

/* A gate that is shut keeps l of what is there, as one without a bound does that stands at l = 3/4 for all tokens. */
static void shut(mc_bag *p) {
  ms_set(p, "f_proj.weight", 0);
  ms_set(p, "f_proj.bias", -40);
}
static void three_quarters(mc_bag *p) { ms_set(p, "f_proj.bias", log(3)); }
static void the_lower_bound_is_what_a_shut_gate_keeps(void) {
  static const char bound[] = "{\"type\": \"hgrn2\", \"heads\": 2, \"lower_bound\": 0.75}", none[] = "{\"type\": \"hgrn2\", \"heads\": 2}";
  double e = ms_difference(bound, none, 8, 30, shut, three_quarters);
  CHECK(e < 1e-12, "a shut gate above 3/4 and a gate at 3/4 differ by %g", e);
  e = ms_difference(bound, none, 8, 30, shut, NULL);
  CHECK(e > 1e-2, "the bound changes nothing: %g", e);
}

/* As keys are 1 - f, each row of W is a mean of the values whose weights sum to 1 less the product of all f: when v is 1 for all
 * tokens and f is 3/4, every entry is 1 - (3/4)^T. */
static void the_memory_is_a_weighted_mean_of_values(void) {
  enum { T = 12, D = 8 };
  mc_mixer m;
  mc_bag state = {0};
  double *x = mc_normal(T * D, 1, 3), y[T * D];
  int ok = mc_open(&m, "{\"type\": \"hgrn2\", \"heads\": 2}", D, 1, MN_F64, mn_backend_ref()) && mc_random_params(&m, 1);
  if (ok) {
    shut(&m.params);
    three_quarters(&m.params);
    ms_set(&m.params, "v_proj.weight", 0);
    ms_set(&m.params, "v_proj.bias", 1.2784645427610738); /* silu of it is 1 */
    ok = mc_pieces(&m, T, x, 0, NULL, y, &state);
  }
  mc_tensor *W = ok ? mc_get(&state, "W") : NULL;
  CHECK(W != NULL, "no memory");
  for (int64_t i = 0, n = W ? mn_shape_count(&W->shape) : 0; i < n; i++)
    CHECK(fabs(W->x[i] - (1 - pow(0.75, T))) < 1e-12, "entry %lld is %.15g", (long long)i, W->x[i]);
  mc_bag_free(&state);
  mc_close(&m);
  free(x);
}

static void what_a_recipe_may_not_ask_for(void) {
  mc_refused("type: hgrn2\nheads: 3\n", 16, "recipe.yaml:2|heads|must divide 16|key_dim");
  mc_refused("type: hgrn2\nlower_bound: 1\n", 16, "recipe.yaml:2|lower_bound|0.9999");
  mc_refused("type: hgrn2\nhead_dim: 4\n", 16, "recipe.yaml:2|head_dim|key_dim");
}

int main(void) {
  RUN(golden_vectors);
  RUN(a_stream_cut_anywhere_is_the_stream);
  RUN(gradients_agree_with_differences);
  RUN(bf16_is_close);
  RUN(the_lower_bound_is_what_a_shut_gate_keeps);
  RUN(the_memory_is_a_weighted_mean_of_values);
  RUN(what_a_recipe_may_not_ask_for);
  return test_end();
}
