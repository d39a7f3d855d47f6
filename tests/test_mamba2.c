/* test_mamba2.c - what must be true of Mamba-2, in order: golden vectors; a stream cut anywhere is the stream; gradients; bf16; a
 * step of no length writes nothing; limits hold dt; where the norm stands; what a recipe may not ask for. */
#include "mixer_suite.h"

static const char *const forms[] = {
    "{\"type\": \"mamba2\", \"head_dim\": 4, \"state\": 5}",
    "{\"type\": \"mamba2\", \"expand\": 1, \"head_dim\": 2, \"state\": 3, \"groups\": 2, \"conv\": 2}",
    "{\"type\": \"mamba2\", \"expand\": 3, \"head_dim\": 8, \"state\": 4, \"conv\": 1}",
    "{\"type\": \"mamba2\", \"inner\": 12, \"head_dim\": 3, \"state\": 4, \"groups\": 2, \"norm_groups\": 2, \"norm_eps\": 1e-3, \"bias\": true}",
    "{\"type\": \"mamba2\", \"head_dim\": 8, \"state\": 4, \"norm\": \"before_gate\", \"norm_groups\": 2, \"norm_eps\": 1e-2, \"conv_bias\": false}",
    "{\"type\": \"mamba2\", \"head_dim\": 8, \"state\": 4, \"norm\": \"none\", \"dt_min\": 0.1, \"dt_max\": 0.9}",
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

/* A limit beyond what dt can be changes nothing, one below it makes dt a constant: with both limits at 0.5 the weights of dt have no say. */
static void nothing_of_dt(mc_bag *p) { ms_set(p, "dt_proj.weight", 0); }
static void limits_hold_dt(void) {
  static const char plain[] = "{\"type\": \"mamba2\", \"head_dim\": 4, \"state\": 5}";
  double e = ms_difference(plain, "{\"type\": \"mamba2\", \"head_dim\": 4, \"state\": 5, \"dt_max\": 1e5}", 8, 30, NULL, NULL);
  CHECK(e == 0, "a limit that nothing reaches changes y by %g", e);
  static const char held[] = "{\"type\": \"mamba2\", \"head_dim\": 4, \"state\": 5, \"dt_min\": 0.5, \"dt_max\": 0.5}";
  e = ms_difference(held, held, 8, 30, NULL, nothing_of_dt);
  CHECK(e == 0, "dt is held at 0.5, and its weights change y by %g", e);
  e = ms_difference(plain, held, 8, 30, NULL, NULL);
  CHECK(e > 1e-3, "limits change nothing: %g", e);
}

/* Where a group is all channels and the gate is 1 (silu(z) = 1), it does not matter where the norm stands. */
static void an_open_gate(mc_bag *p) {
  mc_tensor *w = mc_get(p, "in_proj.weight"), *b = mc_get(p, "in_proj.bias");
  for (int64_t i = 0; w && b && i < b->shape.dim[0] / 2 - 5; i++) { /* z: [E] of [2 E + 2 N] rows */
    b->x[i] = 1.2784645427610738;                                   /* silu of it is 1 */
    for (int64_t k = 0; k < w->shape.dim[1]; k++) w->x[i * w->shape.dim[1] + k] = 0;
  }
}
static void an_open_gate_lets_the_norm_stand_anywhere(void) {
  static const char after[] = "{\"type\": \"mamba2\", \"head_dim\": 4, \"state\": 5, \"bias\": true}";
  static const char before[] = "{\"type\": \"mamba2\", \"head_dim\": 4, \"state\": 5, \"bias\": true, \"norm\": \"before_gate\"}";
  double e = ms_difference(after, before, 8, 30, an_open_gate, NULL);
  CHECK(e < 1e-12, "y differs by %g", e);
  e = ms_difference(after, before, 8, 30, NULL, NULL);
  CHECK(e > 1e-3, "where the norm stands changes nothing: %g", e);
}

static void what_a_recipe_may_not_ask_for(void) {
  mc_refused("type: mamba2\nhead_dim: 5\n", 16, "recipe.yaml:2|head_dim|must divide expand|32");
  mc_refused("type: mamba2\nhead_dim: 8\ngroups: 3\n", 16, "recipe.yaml:3|groups|4");
  mc_refused("type: mamba2\nexpand: 2\ninner: 128\n", 16, "recipe.yaml:2|expand|no effect|inner: 128");
  mc_refused("type: mamba2\ninner: 100\n", 16, "head_dim|must divide inner|100");
  mc_refused("type: mamba2\nhead_dim: 8\nnorm: none\nnorm_groups: 2\n", 16, "recipe.yaml:4|norm_groups|no effect|norm: none");
  mc_refused("type: mamba2\nhead_dim: 8\nnorm: none\nnorm_eps: 1e-5\n", 16, "recipe.yaml:4|norm_eps|no effect|norm: none");
  mc_refused("type: mamba2\nhead_dim: 8\nnorm_groups: 3\n", 16, "recipe.yaml:3|norm_groups|must divide|32");
  mc_refused("type: mamba2\nhead_dim: 8\ndt_min: 0.2\ndt_max: 0.1\n", 16, "recipe.yaml:4|dt_max|dt_min|0.2");
  mc_refused("type: mamba2\nstates: 5\n", 16, "recipe.yaml:2|states|state");
}

int main(void) {
  RUN(golden_vectors);
  RUN(a_stream_cut_anywhere_is_the_stream);
  RUN(gradients_agree_with_differences);
  RUN(bf16_is_close);
  RUN(a_step_of_no_length_writes_nothing);
  RUN(limits_hold_dt);
  RUN(an_open_gate_lets_the_norm_stand_anywhere);
  RUN(what_a_recipe_may_not_ask_for);
  return test_end();
}
