/* test_bmojo.c - what must be true of B'MOJO, in order: golden vectors; a stream cut anywhere is the stream; gradients; bf16; what it
 * becomes when what fades is the identity, or nothing, or when the window holds everything; a later token changes nothing before it; what
 * a recipe may not ask for. */
#include "mixer_suite.h"

static const char *const forms[] = {
    "{\"type\": \"bmojo_f\", \"heads\": 2, \"window\": 3}",
    "{\"type\": \"bmojo_f\", \"heads\": 4, \"kv_heads\": 2, \"window\": 4, \"tie\": false, \"qk_norm\": true,"
    " \"fading\": {\"type\": \"deltanet\", \"heads\": 2, \"conv\": 3}}",
    "{\"type\": \"bmojo_f\", \"heads\": 2, \"kv_heads\": 1, \"window\": 5, \"fading\": {\"type\": \"mamba2\", \"head_dim\": 4, \"state\": 3}}",
    "{\"type\": \"bmojo_f\", \"heads\": 2, \"window\": 1, \"rope\": false, \"fading\": \"identity\"}",
    "{\"type\": \"bmojo_f\", \"heads\": 2, \"window\": 3, \"fading\": \"none\"}",
    "{\"type\": \"bmojo_f\", \"heads\": 2, \"kv_heads\": 1, \"window\": 3, \"conv\": 3, \"qk_norm\": true}",
    "{\"type\": \"bmojo\", \"heads\": 2, \"window\": 2, \"slots\": 3}",
    "{\"type\": \"bmojo\", \"heads\": 2, \"kv_heads\": 1, \"window\": 2, \"slots\": 3, \"conv\": 4, \"tie\": false, \"store\": 3, \"retrieve\": 1}",
    "{\"type\": \"bmojo\", \"heads\": 4, \"kv_heads\": 2, \"window\": 3, \"chunk\": 2, \"slots\": 2, \"predict_dim\": 3, \"tie\": false,"
    " \"qk_norm\": true, \"fading\": {\"type\": \"deltanet\", \"heads\": 2}}",
    "{\"type\": \"bmojo\", \"heads\": 2, \"window\": 1, \"chunk\": 4, \"slots\": 2, \"test\": \"output\", \"positions\": \"own\","
    " \"threshold\": 0.9, \"fading\": {\"type\": \"mamba2\", \"head_dim\": 4, \"state\": 3}}",
    "{\"type\": \"bmojo\", \"heads\": 2, \"kv_heads\": 1, \"window\": 2, \"chunk\": 1, \"slots\": 2, \"fading\": \"none\", \"store\": 5,"
    " \"retrieve\": 2}",
};
enum { FORMS = sizeof forms / sizeof *forms, FORMS_OF_F = 6 };

static void golden_vectors(void) {
  static const char *const files[] = {"bmojo/bmojo_f", "bmojo/bmojo_f_own", "bmojo/bmojo", "bmojo/bmojo_store"};
  mc_golden_files(4, files, 2e-5);
}

static void a_stream_cut_anywhere_is_the_stream(void) { mc_cut_anywhere(FORMS, forms); }

/* Of the predictor, which only chooses, the gradient is 0: see the_predictor_learns_beside_the_model. */
static void gradients_agree_with_differences(void) {
  ms_gradients(FORMS_OF_F, forms, 1e-4, 1e-6);
  for (int f = FORMS_OF_F; f < FORMS; f++) {
    mc_mixer m;
    const bool ok = mc_open(&m, forms[f], 8, 2, MN_F64, mn_backend_ref()) && mc_random_params(&m, 9);
    m.step = 1e-4;
    const double e = ok ? mc_gradient_error(&m, 13, "x q_proj k_proj v_proj o_proj q_conv k_conv v_conv norm fading", 5, 11) : INFINITY;
    CHECK(e < 1e-6, "%s: %g", forms[f], e);
    mc_close(&m);
  }
}

/* Where no choice is made: rounding may turn one, as it may turn any other choice. */
static void bf16_is_close(void) {
  static const char *const all_kept[] = {
      "{\"type\": \"bmojo\", \"heads\": 2, \"window\": 2, \"slots\": 70}",
      "{\"type\": \"bmojo\", \"heads\": 2, \"window\": 2, \"chunk\": 4, \"slots\": 70, \"positions\": \"own\", \"test\": \"output\"}"};
  ms_bf16(FORMS_OF_F, forms, 3e-2);
  ms_bf16(2, all_kept, 3e-2);
}

/* Tokens as they are, further back by the same matrices: a window twice as long. */
static void a_memory_that_is_the_identity_is_a_window_of_twice_the_width(void) {
  static const char *const pairs[][2] = {
      {"{\"type\": \"bmojo_f\", \"heads\": 2, \"window\": 4, \"fading\": \"identity\"}",
       "{\"type\": \"attention\", \"heads\": 2, \"window\": 8}"},
      {"{\"type\": \"bmojo_f\", \"heads\": 4, \"kv_heads\": 2, \"window\": 1, \"fading\": \"identity\", \"rope_theta\": 50}",
       "{\"type\": \"attention\", \"heads\": 4, \"kv_heads\": 2, \"window\": 2, \"rope_theta\": 50}"},
      {"{\"type\": \"bmojo_f\", \"heads\": 2, \"window\": 20, \"rope\": false, \"fading\": \"identity\"}",
       "{\"type\": \"attention\", \"heads\": 2, \"rope\": false}"}};
  for (int i = 0; i < 3; i++) {
    const double e = ms_difference(pairs[i][0], pairs[i][1], 16, 40, NULL, NULL);
    CHECK(e < 1e-12, "%s: %g", pairs[i][0], e);
  }
  const double e = ms_difference("{\"type\": \"bmojo_f\", \"heads\": 2, \"window\": 4}", pairs[0][1], 16, 40, NULL, NULL);
  CHECK(e > 1e-3, "and what fades is no token: %g", e);
}

static void without_a_memory_it_is_a_window(void) {
  double e = ms_difference("{\"type\": \"bmojo_f\", \"heads\": 2, \"window\": 5, \"fading\": \"none\"}",
                           "{\"type\": \"attention\", \"heads\": 2, \"window\": 5}", 16, 40, NULL, NULL);
  CHECK(e < 1e-12, "a window: %g", e);
  e = ms_difference("{\"type\": \"bmojo_f\", \"heads\": 2, \"window\": 40}", "{\"type\": \"attention\", \"heads\": 2}", 16, 40, NULL, NULL);
  CHECK(e < 1e-12, "a window that holds everything: %g", e);
}

/* Outputs before a token that is changed keep their bits, in training, whatever the memory. */
static void a_later_token_changes_nothing_before_it(void) {
  enum { T = 24, D = 8, AT = 13 };
  for (int f = 0; f < FORMS; f++) {
    mc_mixer m;
    double *x = mc_normal(T * D, 1, 3), y[2][T * D];
    bool ok =
        mc_open(&m, forms[f], D, 1, MN_F64, mn_backend_ref()) && mc_random_params(&m, 4) && mc_forward(&m, T, x, y[0], NULL, NULL, NULL);
    for (int i = 0; i < D; i++) x[AT * D + i] += 1;
    ok = ok && mc_forward(&m, T, x, y[1], NULL, NULL, NULL);
    CHECK(ok && !memcmp(y[0], y[1], sizeof(double) * AT * D), "%s: outputs before it differ", forms[f]);
    CHECK(ok && mc_difference(y[0] + AT * D, y[1] + AT * D, D) > 1e-3, "%s: its own does not", forms[f]);
    mc_close(&m);
    free(x);
  }
}

/* ---- the old tokens ---- */
/* What tokens see of them, by brute force: of all that no other part sees at the chunk's start, the M of most surprise, the older first. */
static bool is_kept(const double *e, int64_t j, int64_t last, int64_t M) {
  int64_t before = 0;
  for (int64_t i = 0; i <= last; i++) before += e[i] > e[j] || (e[i] == e[j] && i < j);
  return j <= last && before < M;
}
static void the_kept_are_the_most_surprising_that_no_other_part_sees(void) {
  enum { T = 60, D = 8 };
  static const struct {
    const char *json;
    int64_t M, C, span;
  } cases[] = {{"{\"type\": \"bmojo\", \"heads\": 2, \"window\": 3, \"slots\": 5}", 5, 3, 6},
               {"{\"type\": \"bmojo\", \"heads\": 2, \"window\": 4, \"chunk\": 7, \"slots\": 4, \"test\": \"output\"}", 4, 7, 8},
               {"{\"type\": \"bmojo\", \"heads\": 2, \"window\": 4, \"chunk\": 1, \"slots\": 3, \"fading\": \"none\"}", 3, 1, 4},
               {"{\"type\": \"bmojo\", \"heads\": 2, \"window\": 2, \"chunk\": 8, \"slots\": 70}", 70, 8, 4}};
  for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
    mc_mixer m;
    mc_bag reports = {0};
    double *x = mc_normal(2 * T * D, 1, 3), y[2 * T * D];
    for (int64_t i = 0; i < T * D; i++) x[T * D + i] = x[T * D + i % (3 * D)]; /* the second row repeats itself: equal surprises */
    bool ok = mc_open(&m, cases[c].json, D, 2, MN_F64, mn_backend_ref()) && mc_random_params(&m, 4) &&
              mc_forward(&m, T, x, y, NULL, NULL, &reports);
    CHECK(ok, "%s", cases[c].json);
    const mc_tensor *kept = ok ? mc_get(&reports, "kept") : NULL, *e = ok ? mc_get(&reports, "surprise") : NULL;
    for (int64_t r = 0; r < 2 * T && kept && e; r++) {
      const int64_t t = r % T, last = t / cases[c].C * cases[c].C - cases[c].span, M = cases[c].M;
      int64_t n = 0, want = 0;
      for (int64_t i = 0; i < M; i++) {
        const double at = kept->x[r * M + i];
        if (at < 0) continue;
        n++;
        CHECK((int64_t)at <= t - cases[c].span, "%s: token %lld sees %g twice", cases[c].json, (long long)t, at);
        CHECK(is_kept(e->x + r / T * T, (int64_t)at, last, M), "%s: token %lld sees %g", cases[c].json, (long long)t, at);
      }
      for (int64_t j = 0; j <= last; j++) want += is_kept(e->x + r / T * T, j, last, M);
      CHECK(n == want, "%s: token %lld sees %lld of them, not %lld", cases[c].json, (long long)t, (long long)n, (long long)want);
    }
    mc_bag_free(&reports);
    mc_close(&m);
    free(x);
  }
}

static void what_keeps_everything_is_attention(void) {
  static const char full[] = "{\"type\": \"attention\", \"heads\": 4, \"kv_heads\": 2}",
                    kept[] = "{\"type\": \"bmojo\", \"heads\": 4, \"kv_heads\": 2, \"window\": 1, \"chunk\": 1, \"slots\": 40,"
                             " \"fading\": \"none\", \"positions\": \"own\"}",
                    clamped[] = "{\"type\": \"bmojo\", \"heads\": 4, \"kv_heads\": 2, \"window\": 1, \"chunk\": 1, \"slots\": 40,"
                                " \"fading\": \"none\"}";
  double e = ms_difference(kept, full, 16, 40, NULL, NULL);
  CHECK(e < 1e-12, "tokens where they stood: %g", e);
  e = ms_difference(clamped, full, 16, 40, NULL, NULL);
  CHECK(e > 1e-3, "where tokens stand has no effect: %g", e);
  /* without rotation it makes no difference where they stand */
  e = ms_difference(
      "{\"type\": \"bmojo\", \"heads\": 2, \"window\": 1, \"chunk\": 1, \"slots\": 40, \"fading\": \"none\", \"rope\": false}",
      "{\"type\": \"attention\", \"heads\": 2, \"rope\": false}", 16, 40, NULL, NULL);
  CHECK(e < 1e-12, "without positions: %g", e);
}

/* Tokens are convolved as attention's are, in the window and where they are kept; what a memory said is not. */
static void a_convolution_is_that_of_attention(void) {
  static const char window[] = "{\"type\": \"bmojo_f\", \"heads\": 2, \"window\": 5, \"fading\": \"none\", \"conv\": 3}",
                    windowed[] = "{\"type\": \"attention\", \"heads\": 2, \"window\": 5, \"conv\": 3}",
                    kept[] = "{\"type\": \"bmojo\", \"heads\": 4, \"kv_heads\": 2, \"window\": 1, \"chunk\": 1, \"slots\": 40,"
                             " \"fading\": \"none\", \"positions\": \"own\", \"conv\": 4}",
                    full[] = "{\"type\": \"attention\", \"heads\": 4, \"kv_heads\": 2, \"conv\": 4}";
  double e = ms_difference(window, windowed, 16, 40, NULL, NULL);
  CHECK(e < 1e-12, "in the window: %g", e);
  e = ms_difference(kept, full, 16, 40, NULL, NULL);
  CHECK(e < 1e-12, "of what is kept: %g", e);
  e = ms_difference("{\"type\": \"bmojo_f\", \"heads\": 2, \"window\": 4, \"fading\": \"identity\", \"conv\": 3}",
                    "{\"type\": \"attention\", \"heads\": 2, \"window\": 8, \"conv\": 3}", 16, 40, NULL, NULL);
  CHECK(e > 1e-3, "what a memory said is convolved: %g", e);
}

/* One slot, and a store that gives all back, is as many slots. */
static void what_must_go_comes_back_from_the_store(void) {
  static const char one[] =
      "{\"type\": \"bmojo\", \"heads\": 2, \"kv_heads\": 1, \"window\": 2, \"slots\": 1, \"store\": 40, \"retrieve\": 40}",
                    many[] = "{\"type\": \"bmojo\", \"heads\": 2, \"kv_heads\": 1, \"window\": 2, \"slots\": 40}",
                    alone[] = "{\"type\": \"bmojo\", \"heads\": 2, \"kv_heads\": 1, \"window\": 2, \"slots\": 1}";
  double e = ms_difference(one, many, 16, 40, NULL, NULL);
  CHECK(e < 1e-12, "it differs by %g", e);
  e = ms_difference(one, alone, 16, 40, NULL, NULL);
  CHECK(e > 1e-3, "the store changes nothing: %g", e);
}

/* What lies below the threshold is not kept. */
static void what_does_not_surprise_is_not_kept(void) {
  static const char never[] = "{\"type\": \"bmojo\", \"heads\": 2, \"window\": 2, \"slots\": 40, \"threshold\": 1e6}",
                    f[] = "{\"type\": \"bmojo_f\", \"heads\": 2, \"window\": 2}";
  const double e = ms_difference(never, f, 16, 40, NULL, NULL);
  CHECK(e < 1e-12, "a threshold that nothing reaches and no slots differ by %g", e);
}

/* Slots in another order are the same slots. */
static void the_order_of_slots_says_nothing(void) {
  enum { T = 29, D = 8, M = 5 };
  static const char *const names[] = {"kept.k", "kept.v", "kept.surprise", "kept.at"};
  mc_mixer m;
  mc_bag state = {0}, other = {0};
  double *x = mc_normal((T + 2) * D, 1, 3), y[T * D], z[2][2 * D];
  bool ok = mc_open(&m, "{\"type\": \"bmojo\", \"heads\": 2, \"window\": 4, \"slots\": 5}", D, 1, MN_F64, mn_backend_ref()) &&
            mc_random_params(&m, 4) && mc_pieces(&m, T, x, 0, NULL, y, &state);
  for (int i = 0; ok && i < state.n; i++) mc_put(&other, state.t[i].name, state.t[i].shape, state.t[i].x);
  for (int i = 0; ok && i < 4; i++) {
    mc_tensor *t = mc_get(&other, names[i]);
    const int64_t width = mn_shape_count(&t->shape) / M;
    for (int64_t k = 0; k < M * width; k++) t->x[k] = mc_get(&state, names[i])->x[(M - 1 - k / width) * width + k % width];
  }
  ok = ok && mc_segment(&m, &state, 2, x + T * D, z[0]) && mc_segment(&m, &other, 2, x + T * D, z[1]); /* tokens 29, 30 of chunk 28 .. 31 */
  CHECK(ok, "run");
  CHECK(ok && mc_difference(z[0], z[1], 2 * D) < 1e-12, "outputs differ by %g", mc_difference(z[0], z[1], 2 * D));
  mc_bag_free(&state);
  mc_bag_free(&other);
  mc_close(&m);
  free(x);
}

/* The predictor's loss reaches the predictor alone, and the model's loss all but it. */
static void the_predictor_learns_beside_the_model(void) {
  enum { T = 20, D = 8 };
  static const char *const tests[] = {"token", "output"}, *const own[] = {"predict_proj.weight", "taps"};
  for (int c = 0; c < 2; c++) {
    char json[160];
    snprintf(json, sizeof json, "{\"type\": \"bmojo\", \"heads\": 2, \"window\": 2, \"slots\": 3, \"test\": \"%s\"}", tests[c]);
    mc_mixer m;
    mc_bag grads = {0};
    double *x = mc_normal(T * D, 1, 3), *dy = mc_normal(T * D, 1, 4), y[T * D];
    bool ok = mc_open(&m, json, D, 1, MN_F64, mn_backend_ref()) && mc_random_params(&m, 4) && mc_forward(&m, T, x, y, dy, &grads, NULL);
    CHECK(ok, "%s", json);
    for (int i = 0; ok && i < grads.n; i++) {
      double size = 0;
      for (int64_t k = 0, n = mn_shape_count(&grads.t[i].shape); k < n; k++) size += fabs(grads.t[i].x[k]);
      CHECK((size > 0) != !strcmp(grads.t[i].name, own[c]), "%s: the gradient of %s is %g", json, grads.t[i].name, size);
    }
    mn_graph *g = mn_graph_new();
    mn_scope *s = mn_scope_new(g, (mn_build){.param = MN_F64, .compute = MN_F64, .training = true}, 1);
    mn_tensor *in = mn_variable(g, "x", MN_F64, MN_SHAPE(1, T, D)), *const * params, *loss, *wrt[MC_MAX] = {in}, *grad[MC_MAX];
    const mn_param_info *info;
    mn_mixer_apply(s, &m.mixer, in);
    loss = mn_scope_total_loss(s);
    const int n = mn_scope_params(s, &info, &params);
    for (int i = 0; i < n; i++) wrt[i + 1] = params[i];
    CHECK(loss != NULL, "%s: there is no loss", json);
    CHECK_OK(loss ? mn_grad(g, 1, &loss, NULL, n + 1, wrt, grad) : MN_ERR_INTERNAL);
    for (int i = 0; loss && i <= n; i++) {
      double value;
      const bool none = mn_is_full(grad[i], &value) && value == 0, predictor = i && !strcmp(info[i - 1].name, own[c]);
      CHECK(none == !predictor, "%s: the predictor's loss %s %s", json, none ? "does not reach" : "reaches", i ? info[i - 1].name : "x");
    }
    mn_graph_free(g);
    mc_bag_free(&grads);
    mc_close(&m);
    free(x);
    free(dy);
  }
}

static void what_a_recipe_may_not_ask_for(void) {
  mc_refused("type: bmojo_f\nslots: 3\n", 16, "recipe.yaml:2|slots");
  mc_refused("type: bmojo\nshared: true\n", 16, "recipe.yaml:2: shared is no key|each layer");
  mc_refused("type: bmojo\neidetic: {slots: 3, shared: true}\n", 16, "recipe.yaml:2: eidetic is no key|slots|each layer");
  mc_refused("type: bmojo\nstorage: {retrieve: 3}\n", 16, "recipe.yaml:2: storage is no key|store and retrieve");
  mc_refused("type: bmojo\nasync: true\n", 16, "recipe.yaml:2: async is no key|store and retrieve");
  mc_refused("type: bmojo\ntaps: 3\n", 16, "recipe.yaml:2|taps|test: token");
  mc_refused("type: bmojo\ntest: output\npredict_dim: 3\n", 16, "recipe.yaml:3|predict_dim|test: output");
  mc_refused("type: bmojo\nrope: false\npositions: own\n", 16, "recipe.yaml:3|positions|rope: false");
  mc_refused("type: bmojo\nstore: 300\n", 16, "recipe.yaml|retrieve|store");
  mc_refused("type: bmojo\nretrieve: 3\n", 16, "recipe.yaml|store|retrieve");
  mc_refused("type: bmojo\nstore: 20\nretrieve: 3\n", 16, "recipe.yaml|store|128");
  mc_refused("type: bmojo\nchunk: 4\nstore: 20\nretrieve: 30\n", 16, "recipe.yaml:4|retrieve|20");
  mc_refused("type: bmojo_f\nheads: 3\n", 16, "recipe.yaml:2|heads|divide d_model 16");
  mc_refused("type: bmojo_f\nheads: 16\n", 16, "head_dim|even");
  mc_refused("type: bmojo_f\nrope: false\nrope_theta: 500\n", 16, "recipe.yaml:3|rope_theta|rope: false");
  mc_refused("type: bmojo_f\nfading: none\ntie: false\n", 16, "recipe.yaml:3|tie|fading: none");
  mc_refused("type: bmojo_f\nfading: 3\n", 16, "recipe.yaml:2|fading|a mixer");
  mc_refused("type: bmojo_f\nfading: mambo2\n", 16, "recipe.yaml:2|mambo2|mamba2");
  mc_refused("type: bmojo_f\nfading: {type: gla, key_dims: 3}\n", 16, "recipe.yaml:2|key_dims|key_dim");
  mc_refused("type: bmojo_f\nheads: 1\n", 4, "recipe.yaml:1: fading.key_dim must be given");
  mc_refused("type: bmojo_f\nheads: 1\nfading: retnet\n", 4, "recipe.yaml:3: fading.key_dim must be even");
  mc_refused("type: bmojo_f\nfading: {type: attention, causal: false}\n", 16, "recipe.yaml:2|fading|later tokens");
}

int main(void) {
  RUN(golden_vectors);
  RUN(a_stream_cut_anywhere_is_the_stream);
  RUN(gradients_agree_with_differences);
  RUN(bf16_is_close);
  RUN(a_memory_that_is_the_identity_is_a_window_of_twice_the_width);
  RUN(without_a_memory_it_is_a_window);
  RUN(a_later_token_changes_nothing_before_it);
  RUN(the_kept_are_the_most_surprising_that_no_other_part_sees);
  RUN(what_keeps_everything_is_attention);
  RUN(a_convolution_is_that_of_attention);
  RUN(what_must_go_comes_back_from_the_store);
  RUN(what_does_not_surprise_is_not_kept);
  RUN(the_order_of_slots_says_nothing);
  RUN(the_predictor_learns_beside_the_model);
  RUN(what_a_recipe_may_not_ask_for);
  return test_end();
}
