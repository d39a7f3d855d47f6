/* test_mla.c - what must be true of multi-head latent attention, in order: golden vectors; a stream, which keeps one short vector of each
 * token, cut anywhere is the sequence, whose heads have keys of their own; gradients; bf16; a window ends where it says; a stream's cache
 * is as wide as it says; the part of keys that heads share has a say; what a recipe may not ask for. */
#include "mixer_suite.h"

static const char *const forms[] = {
    "{\"type\": \"mla\", \"heads\": 2}",
    "{\"type\": \"mla\", \"heads\": 2, \"kv_lora_rank\": 5, \"qk_nope_head_dim\": 3, \"qk_rope_head_dim\": 2, \"v_head_dim\": 6, \"rope\": false}",
    "{\"type\": \"mla\", \"heads\": 4, \"q_lora_rank\": 6, \"kv_lora_rank\": 8, \"v_head_dim\": 3, \"window\": 7, \"rope_theta\": 100}",
};
enum { FORMS = sizeof forms / sizeof *forms };

static void golden_vectors(void) {
  static const char *const files[] = {"mla/mla", "mla/mla_turned"};
  mc_golden_files(2, files, 2e-5);
}

static void a_stream_cut_anywhere_is_the_sequence(void) { mc_cut_anywhere(FORMS, forms); }

static void gradients_agree_with_differences(void) { ms_gradients(FORMS, forms, 0, 1e-6); }

static void bf16_is_close(void) { ms_bf16(FORMS, forms, 2e-2); }

/* Another first token moves the outputs of the window's length, and none after them. */
static void a_window_ends_where_it_says(void) {
  enum { T = 20, D = 8, WINDOW = 7 };
  mc_mixer m;
  double *x = mc_normal(T * D, 1, 3), a[T * D], b[T * D];
  mc_bag state = {0}, other = {0};
  bool ok = mc_open(&m, forms[2], D, 1, MN_F64, mn_backend_ref()) && mc_random_params(&m, 4) && mc_pieces(&m, T, x, 0, NULL, a, &state);
  x[0] += 1;
  ok = ok && mc_pieces(&m, T, x, 2, (int64_t[]){3, 9}, b, &other);
  CHECK(ok, "run");
  for (int t = 0; ok && t < T; t++)
    CHECK((mc_difference(a + t * D, b + t * D, D) > 1e-9) == (t < WINDOW), "token %d and the first one: %g", t,
          mc_difference(a + t * D, b + t * D, D));
  mc_close(&m);
  mc_bag_free(&state), mc_bag_free(&other);
  free(x);
}

/* Of each token R + P numbers, however many heads there are. */
static void a_stream_keeps_one_vector_of_each_token(void) {
  enum { T = 5, D = 8 };
  static const int width[FORMS] = {16 + 2, 5 + 2, 8 + 2};
  for (int i = 0; i < FORMS; i++) {
    mc_mixer m;
    mc_bag state = {0};
    double *x = mc_normal(T * D, 1, 3), y[T * D];
    const bool ok =
        mc_open(&m, forms[i], D, 1, MN_F64, mn_backend_ref()) && mc_random_params(&m, 4) && mc_pieces(&m, T, x, 0, NULL, y, &state);
    const mc_tensor *kept = ok ? mc_get(&state, "latent") : NULL;
    CHECK(kept && kept->shape.dim[2] == 1 && kept->shape.dim[3] == width[i] && !mc_get(&state, "k") && !mc_get(&state, "v"),
          "%s: %lld numbers", forms[i], kept ? (long long)kept->shape.dim[3] : 0);
    mc_close(&m);
    mc_bag_free(&state);
    free(x);
  }
}

/* Without the part of keys that all heads share other tokens are chosen. */
static void what_the_shared_part_says_counts(void) {
  enum { T = 12, D = 8 };
  mc_mixer m;
  double *x = mc_normal(T * D, 1, 3), a[T * D], b[T * D];
  bool ok = mc_open(&m, forms[1], D, 1, MN_F64, mn_backend_ref()) && mc_random_params(&m, 4) && mc_forward(&m, T, x, a, NULL, NULL, NULL);
  mc_tensor *down = ok ? mc_get(&m.params, "kv_down.weight") : NULL;
  CHECK(down && down->shape.dim[0] == 7, "kv_down");
  for (int64_t i = 5 * D; down && i < 7 * D; i++) down->x[i] = 0;
  ok = ok && mc_forward(&m, T, x, b, NULL, NULL, NULL);
  CHECK(ok && mc_difference(a, b, D) < 1e-12 && mc_difference(a + D, b + D, (T - 1) * D) > 1e-3,
        "one token alone has no choice: %g, then %g", mc_difference(a, b, D), mc_difference(a + D, b + D, (T - 1) * D));
  mc_close(&m);
  free(x);
}

static void what_a_recipe_may_not_ask_for(void) {
  mc_refused("type: mla\nheads: 3\n", 16, "recipe.yaml:2|heads");
  mc_refused("type: mla\nqk_rope_head_dim: 3\n", 16, "recipe.yaml:2|qk_rope_head_dim|even");
  mc_refused("type: mla\nrope: false\nrope_theta: 100\n", 16, "recipe.yaml:3|rope_theta|no effect");
  mc_refused("type: mla\nwindow: 8\nmax_context: 64\n", 16, "recipe.yaml:3|max_context|no effect");
  mc_refused("type: mla\nkv_heads: 2\n", 16, "recipe.yaml:2|kv_heads");
}

int main(void) {
  RUN(golden_vectors);
  RUN(a_stream_cut_anywhere_is_the_sequence);
  RUN(gradients_agree_with_differences);
  RUN(bf16_is_close);
  RUN(a_window_ends_where_it_says);
  RUN(a_stream_keeps_one_vector_of_each_token);
  RUN(what_the_shared_part_says_counts);
  RUN(what_a_recipe_may_not_ask_for);
  return test_end();
}
