/* test_deep_transformer.c - what must be true of DeepTransformer, SWDT and Dot, in order: golden vectors, whose linear half is attention
 * itself and the delta rule on exponentials; a stream cut anywhere is the stream; gradients; bf16; what a window forgets; where gradients
 * are taken; what a recipe may not ask for. */
#include "mixer_suite.h"

static const char *const forms[] = {
    "{\"type\": \"deep_transformer\", \"heads\": 2, \"memory_expand\": 1, \"chunk\": 4}",
    "{\"type\": \"deep_transformer\", \"heads\": 2, \"memory_net\": \"linear\", \"chunk\": 5, \"grad_clamp\": 0}",
    "{\"type\": \"swdt\", \"heads\": 2, \"memory_expand\": 1, \"chunk\": 3, \"memory_window\": 5, \"normalize\": false}",
    "{\"type\": \"swdt\", \"heads\": 2, \"memory_net\": \"linear\", \"chunk\": 4, \"memory_window\": 2}",
    "{\"type\": \"dot\", \"heads\": 2, \"memory_expand\": 1, \"chunk\": 4}",
    "{\"type\": \"dot\", \"heads\": 2, \"memory_net\": \"linear\", \"chunk\": 2, \"grad_clamp\": 0}",
};
enum { FORMS = sizeof forms / sizeof *forms };

static void golden_vectors(void) {
  static const char *const files[] = {"deep_transformer/deep_transformer",
                                      "deep_transformer/deep_transformer_plain",
                                      "deep_transformer/deep_transformer_linear",
                                      "deep_transformer/deep_transformer_softmax",
                                      "deep_transformer/swdt",
                                      "deep_transformer/swdt_linear",
                                      "deep_transformer/dot",
                                      "deep_transformer/dot_linear"};
  mc_golden_files(sizeof files / sizeof *files, files, 1e-4);
}

static void a_stream_cut_anywhere_is_the_stream(void) { mc_cut_anywhere(FORMS, forms); }

static void gradients_agree_with_differences(void) { ms_gradients(FORMS, forms, 1e-4, 1e-6); }

static void bf16_is_close(void) { ms_bf16(FORMS, forms, 6e-2); }

/* A window as long as the stream forgets nothing; a shorter one does. */
static void a_window_forgets_what_lies_before_it(void) {
  static const char *const whole = "{\"type\": \"deep_transformer\", \"heads\": 2, \"chunk\": 4, \"memory_expand\": 2}";
  double e = ms_difference(whole, "{\"type\": \"swdt\", \"heads\": 2, \"chunk\": 4, \"memory_expand\": 2, \"memory_window\": 19}", 12, 19,
                           NULL, NULL);
  CHECK(e < 1e-13, "a window of all tokens: %g", e);
  e = ms_difference(whole, "{\"type\": \"swdt\", \"heads\": 2, \"chunk\": 4, \"memory_expand\": 2, \"memory_window\": 18}", 12, 19, NULL,
                    NULL);
  CHECK(e > 1e-9, "a shorter window forgets nothing: %g", e);
}

/* Of a linear memory with inner-product loss the gradient is the value, wherever it is taken. Of an error it is not. */
static void only_values_do_not_know_chunks(void) {
  for (int dot = 0; dot < 2; dot++) {
    char a[160], b[160];
    snprintf(a, sizeof a, "{\"type\": \"%s\", \"heads\": 2, \"memory_net\": \"linear\", \"chunk\": 1}", dot ? "dot" : "deep_transformer");
    snprintf(b, sizeof b, "{\"type\": \"%s\", \"heads\": 2, \"memory_net\": \"linear\", \"chunk\": 7}", dot ? "dot" : "deep_transformer");
    const double e = ms_difference(a, b, 12, 23, NULL, NULL);
    CHECK(dot ? e > 1e-9 : e < 1e-12, "%s: %g", a, e);
  }
}

static void what_a_recipe_may_not_ask_for(void) {
  mc_refused("type: deep_transformer\nheads: 3\n", 16, "recipe.yaml:2|heads|must divide d_model 16");
  mc_refused("type: deep_transformer\nmemory_window: 8\n", 16, "recipe.yaml:2|memory_window");
  mc_refused("type: swdt\nmax_context: 8\n", 16, "recipe.yaml:2|max_context");
  mc_refused("type: dot\nmemory_net: gated\n", 16, "recipe.yaml:2|memory_net");
}

int main(void) {
  RUN(golden_vectors);
  RUN(a_stream_cut_anywhere_is_the_stream);
  RUN(gradients_agree_with_differences);
  RUN(bf16_is_close);
  RUN(a_window_forgets_what_lies_before_it);
  RUN(only_values_do_not_know_chunks);
  RUN(what_a_recipe_may_not_ask_for);
  return test_end();
}
