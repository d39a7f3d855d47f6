/* test_attention.c - what must be true of softmax attention and its cache, in order: golden vectors of every form; a stream
 * cut anywhere is the stream; a cache forgets as a window does; it costs and reads what is
 * filled; gradients; bf16; rotary tables and their stretching; what a
 * recipe may not ask for. */
#include "mixer_suite.h"

static const char *const forms[] = {
    "{\"type\": \"attention\", \"heads\": 4, \"max_context\": 4096}",
    "{\"type\": \"attention\", \"heads\": 4, \"kv_heads\": 2, \"window\": 7}",
    "{\"type\": \"attention\", \"heads\": 4, \"kv_heads\": 1, \"window\": 5, \"sinks\": 3}",
    "{\"type\": \"attention\", \"heads\": 2, \"window\": 9, \"sinks\": 2, \"persistent\": 3, \"conv\": 4, \"bias\": true}",
    "{\"type\": \"attention\", \"heads\": 2, \"kv_heads\": 1, \"head_dim\": 6, \"persistent\": 2, \"rope_scaling\": \"yarn\", \"rope_factor\": 4, \"rope_original_context\": 64}",
    "{\"type\": \"attention\", \"heads\": 2, \"rope\": false, \"window\": 64}",
    "{\"type\": \"attention\", \"heads\": 2, \"rope_dim\": 2, \"relative_bias\": 6, \"relative_distance\": 12, \"window\": 9}",
    "{\"type\": \"attention\", \"heads\": 4, \"kv_heads\": 2, \"rope\": false, \"relative_bias\": 5, \"window\": 6, \"sinks\": 2}",
    "{\"type\": \"attention\", \"heads\": 4, \"kv_heads\": 2, \"qk_norm\": \"heads\", \"qk_norm_eps\": 1e-3, \"output_gate\": true}",
    "{\"type\": \"attention\", \"heads\": 2, \"kv_heads\": 1, \"qk_norm\": \"all\", \"score_scale\": 0.7, \"window\": 6}",
};
enum { FORMS = sizeof forms / sizeof *forms };

static void golden_vectors(void) {
  static const char *const files[] = {"attention/attention_full",          "attention/attention_gqa",
                                      "attention/attention_gqa_prefix",    "attention/attention_gqa_window",
                                      "attention/attention_window_prefix", "attention/attention_window_sinks"};
  mc_golden_files(6, files, 2e-5);
}

static void a_stream_cut_anywhere_is_the_stream(void) { mc_cut_anywhere(FORMS, forms); }

/* Full attention whose stream outgrows max_context, where that is allowed, is sliding-window attention from there on. */
static void a_full_cache_forgets_the_oldest(void) {
  mc_mixer full, window, large;
  enum { T = 40, D = 8 };
  double *x = mc_normal(T * D, 1, 3), a[T * D], b[T * D], no_window[T * D];
  mc_bag state = {0};
  if (mc_open(&full, "{\"type\": \"attention\", \"heads\": 2, \"max_context\": 8}", D, 1, MN_F64, mn_backend_ref()) &&
      mc_open(&window, "{\"type\": \"attention\", \"heads\": 2, \"window\": 8}", D, 1, MN_F64, mn_backend_ref()) &&
      mc_open(&large, "{\"type\": \"attention\", \"heads\": 2}", D, 1, MN_F64, mn_backend_ref()) && mc_random_params(&full, 4) &&
      mc_random_params(&window, 4) && mc_random_params(&large, 4)) {
    full.forget = true;
    CHECK(mc_pieces(&full, T, x, 3, (int64_t[]){5, 6, 30}, a, &state), "stream");
    CHECK(mc_forward(&window, T, x, b, NULL, NULL, NULL), "window");
    CHECK(mc_forward(&large, T, x, no_window, NULL, NULL, NULL), "full");
    CHECK(mc_difference(a, b, T * D) < 1e-12, "%g", mc_difference(a, b, T * D));
    CHECK(mc_difference(a, no_window, 8 * D) < 1e-12, "before the cache is full nothing is forgotten");
    CHECK(mc_difference(a + 8 * D, no_window + 8 * D, (T - 8) * D) > 1e-3, "afterwards something is");
  }
  mc_close(&full);
  mc_close(&large);
  mc_close(&window);
  mc_bag_free(&state);
  free(x);
}

/* What lies outside the window has no influence, what lies in it has; sinks keep theirs. */
static void a_window_ends_where_it_says(void) {
  enum { T = 20, D = 8, WINDOW = 5 };
  for (int sinks = 0; sinks < 3; sinks += 2) {
    mc_mixer m;
    char json[128];
    double *x = mc_normal(T * D, 1, 3), a[T * D], b[T * D];
    snprintf(json, sizeof json, "{\"type\": \"attention\", \"heads\": 2, \"window\": %d, \"sinks\": %d}", WINDOW, sinks);
    if (mc_open(&m, json, D, 1, MN_F64, mn_backend_ref()) && mc_random_params(&m, 4) && mc_forward(&m, T, x, a, NULL, NULL, NULL))
      for (int j = 0; j < T; j += j == 0 ? 1 : 3) {
        double keep = x[j * D];
        x[j * D] += 1;
        CHECK(mc_forward(&m, T, x, b, NULL, NULL, NULL), "run");
        x[j * D] = keep;
        for (int t = 0; t < T; t++) {
          bool seen = j <= t && (t - j < WINDOW || j < sinks), moved = mc_difference(a + t * D, b + t * D, D) > 0;
          CHECK(seen == moved, "token %d sees token %d: %d, sinks %d", t, j, (int)moved, sinks);
        }
      }
    mc_close(&m);
    free(x);
  }
}

/* A stream costs what is filled, not what there is room for: the longest stream that is allowed changes the size of the cache alone.
 * (4,096 slots of one key head are still one split of decoding; where they are many more, each split has a sum of its own.) */
static void room_costs_no_work(void) {
  static const int64_t lengths[] = {1, 64};
  mn_backend *cpu = NULL;
  CHECK_OK(mn_backend_cpu_new(2, &cpu));
  for (int i = 0; i < 2 && cpu; i++)
    for (int bf16 = 0; bf16 < 2; bf16++) {
      mc_mixer small, large;
      bool ok = mc_open(&small, "{\"type\": \"attention\", \"heads\": 2, \"kv_heads\": 1, \"max_context\": 64}", 16, 2, MN_F32, cpu) &&
                mc_random_params(&small, 4);
      ok = mc_open(&large, "{\"type\": \"attention\", \"heads\": 2, \"kv_heads\": 1, \"max_context\": 4096}", 16, 2, MN_F32, cpu) &&
           mc_random_params(&large, 4) && ok;
      small.bf16 = large.bf16 = bf16;
      mn_plan_report p = {0}, q = {0};
      ok = ok && mc_plan_report(&small, lengths[i], &p) && mc_plan_report(&large, lengths[i], &q);
      CHECK(ok && p.steps == q.steps && p.copies == q.copies, "%lld tokens: %d steps and %d copies, with more room %d and %d",
            (long long)lengths[i], p.steps, p.copies, q.steps, q.copies);
      CHECK(p.bytes_planned == q.bytes_planned && p.bytes_workspace == q.bytes_workspace,
            "%lld tokens: %zu bytes and %zu of workspace, with more room %zu and %zu", (long long)lengths[i], p.bytes_planned,
            p.bytes_workspace, q.bytes_planned, q.bytes_workspace);
      mc_close(&small);
      mc_close(&large);
    }
  mn_backend_free(cpu);
}

/* x [2,T,D] in pieces, over caches whose slots hold `unwritten` at the start: y and the caches at the end. */
static int from_slots_of(mc_mixer *m, double unwritten, int64_t T, const double *x, double *y, mc_bag *state) {
  static const int64_t pieces[] = {1, 5, 1, 1, 9, 4};
  int ok = mc_start(m, state);
  for (int i = 0; ok && i < state->n; i++)
    if (!strcmp(state->t[i].name, "k") || !strcmp(state->t[i].name, "v"))
      for (int64_t k = 0, n = mn_shape_count(&state->t[i].shape); k < n; k++) state->t[i].x[k] = unwritten;
  for (int64_t at = 0, i = 0; ok && at < T; at += pieces[i++]) {
    double *piece = mc_cut(x, m->B, T, m->d_model, at, pieces[i]), *out = y + at * m->B * m->d_model; /* piece after piece */
    ok = mc_segment(m, state, pieces[i], piece, out);
    free(piece);
  }
  return ok;
}

/* Neither kernels nor composition read what was never written: what is not a number there is in no result. */
static void unwritten_slots_are_not_read(void) {
  enum { T = 21, D = 8 };
  mn_backend *cpu = NULL;
  CHECK_OK(mn_backend_cpu_new(2, &cpu));
  double *x = mc_normal(2 * T * D, 1, 3), clean[2 * T * D], y[2 * T * D];
  for (int i = 0; i < FORMS && cpu; i++)
    for (int how = 0; how < 3; how++) { /* f32, products in bf16, the reference */
      mc_mixer m;
      mc_bag a = {0}, b = {0};
      bool ok = mc_open(&m, forms[i], D, 2, MN_F32, how == 2 ? mn_backend_ref() : cpu) && mc_random_params(&m, 4);
      m.bf16 = how == 1;
      ok = ok && from_slots_of(&m, 0, T, x, clean, &a) && from_slots_of(&m, (double)NAN, T, x, y, &b);
      CHECK(ok && !memcmp(y, clean, sizeof y), "%s (%d): differs by %g", forms[i], how, ok ? mc_difference(y, clean, 2 * T * D) : INFINITY);
      mc_bag_free(&a);
      mc_bag_free(&b);
      mc_close(&m);
    }
  free(x);
  mn_backend_free(cpu);
}

static void gradients_agree_with_differences(void) { ms_gradients(FORMS, forms, 0, 1e-6); }

static void bf16_is_close(void) { ms_bf16(FORMS, forms, 2e-2); }

/* ---- rotary tables ---- angle[i] of one step at head_dim 64 in cos and sin, at `position`; NAN where it fails */
enum { HALF = 32 };
static void tables(mn_rope_config c, int32_t position, bool known, double *cosine, double *sine) {
  mn_graph *g = mn_graph_new();
  mn_scope *s = mn_scope_new(g, (mn_build){.param = MN_F64, .compute = MN_F64}, 1);
  mn_tensor *start = known ? NULL : mn_const(g, MN_I32, MN_SHAPE(1), &position), *out[2];
  mn_rope_tables_at(s, &c, 2 * HALF, known ? position + 1 : 1, start, &out[0], &out[1]);
  mn_plan_request q = {.graph = g, .n_outputs = 2, .outputs = out, .backend = mn_backend_ref()};
  mn_plan *p = NULL;
  CHECK_OK(mn_graph_status(g));
  CHECK_OK(mn_plan_compile(&q, &p));
  CHECK_OK(mn_plan_run(p));
  for (int i = 0; i < HALF; i++) {
    int64_t at = i + (known ? (int64_t)position * HALF : 0);
    cosine[i] = ((const double *)mn_plan_output(p, 0)->data)[at];
    sine[i] = ((const double *)mn_plan_output(p, 1)->data)[at];
  }
  mn_plan_free(p);
  mn_graph_free(g);
}

/* the frequencies a table turns with: the angle after one token (below pi for every base used here) */
static void frequencies(mn_rope_config c, double *f, double *gain) {
  double cosine[HALF], sine[HALF];
  tables(c, 1, true, cosine, sine);
  *gain = hypot(cosine[0], sine[0]);
  for (int i = 0; i < HALF; i++) f[i] = atan2(sine[i], cosine[i]);
}

static void rotary_tables(void) {
  double f[HALF], plain[HALF], cosine[HALF], sine[HALF], gain, two_pi = 2 * acos(-1);
  mn_rope_config c = {.theta = 10000, .factor = 8, .original_context = 2048};
  frequencies(c, plain, &gain);
  for (int i = 0; i < HALF; i++) CHECK(fabs(plain[i] - pow(10000, -i / 32.0)) < 1e-12 && fabs(gain - 1) < 1e-12, "pair %d", i);
  c.scaling = MN_ROPE_LINEAR;
  frequencies(c, f, &gain);
  for (int i = 0; i < HALF; i++) CHECK(fabs(f[i] * 8 - plain[i]) < 1e-12, "linear: pair %d", i);
  c.scaling = MN_ROPE_NTK; /* the fastest pair keeps its frequency, the slowest is stretched by the factor */
  frequencies(c, f, &gain);
  CHECK(fabs(f[0] - plain[0]) < 1e-12 && fabs(f[HALF - 1] * 8 / plain[HALF - 1] - 1) < 1e-9, "ntk: %g", f[HALF - 1]);
  for (int i = 1; i < HALF; i++) CHECK(f[i] < f[i - 1] && f[i] <= plain[i] && f[i] >= plain[i] / 8, "ntk: pair %d", i);
  c.scaling = MN_ROPE_YARN; /* pairs that turn > 32 times in the old context are kept, those below once are stretched */
  frequencies(c, f, &gain);
  CHECK(fabs(gain - (0.1 * log(8) + 1)) < 1e-12, "yarn: gain %g", gain);
  for (int i = 0; i < HALF; i++) {
    double turns = 2048 * plain[i] / two_pi, stretch = plain[i] / f[i];
    CHECK(turns < 34 || fabs(stretch - 1) < 0.15, "yarn: pair %d turns %g times and is stretched by %g", i, turns, stretch);
    CHECK(turns > 0.5 || fabs(stretch - 8) < 1e-9, "yarn: pair %d turns %g times and is stretched by %g", i, turns, stretch);
    CHECK(stretch > 1 - 1e-12 && stretch < 8 + 1e-9, "yarn: pair %d", i);
  }
  c.scaling = MN_ROPE_LLAMA3;
  frequencies(c, f, &gain);
  for (int i = 0; i < HALF; i++) {
    double turns = 2048 * plain[i] / two_pi; /* > 4: kept; < 1: stretched; between: a blend by turns */
    double share = turns > 4 ? 1 : turns < 1 ? 0 : (turns - 1) / 3;
    CHECK(fabs(f[i] - (share * plain[i] + (1 - share) * plain[i] / 8)) < 1e-12, "llama3: pair %d", i);
  }
  c.scaling = MN_ROPE_PLAIN; /* positions that are data: the same tables, and exact ten million tokens into a stream */
  double cosine_known[HALF], sine_known[HALF];
  tables(c, 37, true, cosine_known, sine_known);
  tables(c, 37, false, cosine, sine);
  CHECK(mc_difference(cosine, cosine_known, HALF) < 1e-12 && mc_difference(sine, sine_known, HALF) < 1e-12, "position 37");
  tables(c, 10000000, false, cosine, sine);
  for (int i = 0; i < HALF; i++)
    CHECK(fabs(cosine[i] - cos(1e7 * plain[i])) < 1e-6 && fabs(sine[i] - sin(1e7 * plain[i])) < 1e-6, "position 10,000,000, pair %d", i);
}

/* A scale of 1/sqrt(K) that is said is the one that is not; a gate of 1 is none. */
static void open_gates(mc_bag *p) {
  ms_set(p, "gate_proj.weight", 0);
  ms_set(p, "gate_proj.bias", 800);
}
static void scales_and_gates_that_do_nothing(void) {
  static const char plain[] = "{\"type\": \"attention\", \"heads\": 2, \"bias\": true}";
  double e = ms_difference(plain, "{\"type\": \"attention\", \"heads\": 2, \"bias\": true, \"score_scale\": 0.5}", 8, 30, NULL, NULL);
  CHECK(e < 1e-13, "1/sqrt(4) said and not said differ by %g", e);
  static const char gated[] = "{\"type\": \"attention\", \"heads\": 2, \"bias\": true, \"output_gate\": true}";
  e = ms_difference(plain, gated, 8, 30, NULL, open_gates);
  CHECK(e < 1e-13, "an open gate changes y by %g", e);
  e = ms_difference(plain, gated, 8, 30, NULL, NULL);
  CHECK(e > 1e-2, "a gate changes nothing: %g", e);
}

/* With a norm queries and keys have no length: that of what projects them has no say. */
static void seven_times(mc_bag *p) {
  static const char *const names[] = {"q_proj.weight", "k_proj.weight"};
  for (int i = 0; i < 2; i++) {
    mc_tensor *t = mc_get(p, names[i]);
    for (int64_t k = 0; t && k < mn_shape_count(&t->shape); k++) t->x[k] *= 7;
  }
}
static void normalised_queries_have_no_length(void) {
  static const char *const kinds[] = {"heads", "all"};
  for (int i = 0; i < 2; i++) {
    char form[128];
    snprintf(form, sizeof form, "{\"type\": \"attention\", \"heads\": 2, \"qk_norm\": \"%s\", \"qk_norm_eps\": 1e-37}", kinds[i]);
    double e = ms_difference(form, form, 8, 30, NULL, seven_times);
    CHECK(e < 1e-12, "%s: y differs by %g", kinds[i], e);
  }
}

static void what_a_recipe_may_not_ask_for(void) {
  mc_refused("{type: attention, heads: 2, window: 8, max_context: 64}", 8, "max_context|no effect|window: 8");
  mc_refused("type: attention\nheads: 5\n", 16, "recipe.yaml:2|heads|must divide d_model 16");
  mc_refused("type: attention\nheads: 4\nkv_heads: 3\n", 16, "recipe.yaml:3|kv_heads|3 does not divide 4");
  mc_refused("type: attention\nheads: 2\nhead_dim: 7\n", 16, "recipe.yaml:3|head_dim|even");
  mc_refused("type: attention\nheads: 2\nsinks: 4\n", 16, "recipe.yaml:3|sinks|window");
  mc_refused("type: attention\nheads: 2\nwindow: -1\n", 16, "recipe.yaml:3|window|-1");
  mc_refused("type: attention\nheads: 2\nmax_context: 0\n", 16, "recipe.yaml:3|max_context");
  mc_refused("type: attention\nheads: two\n", 16, "recipe.yaml:2|heads|two");
  mc_refused("type: attention\nheads: 2\nwindwo: 8\n", 16, "recipe.yaml:3|windwo|window");
  mc_refused("type: attention\nheads: 2\nrope_scaling: yarm\n", 16, "recipe.yaml:3|rope_scaling|yarn");
  mc_refused("type: atention\nheads: 2\n", 16, "recipe.yaml:1|atention|attention");
  mc_refused("heads: 2\n", 16, "type");
  mc_refused("type: attention\nheads: 2\ncausal: false\nwindow: 4\n", 16, "recipe.yaml:4|window|causal: false");
  mc_refused("type: attention\nheads: 2\nqk_norm_eps: 1e-5\n", 16, "recipe.yaml:3|qk_norm_eps|qk_norm");
  mc_refused("type: attention\nheads: 2\nqk_norm: head\n", 16, "recipe.yaml:3|qk_norm|heads");
  mc_refused("type: attention\nheads: 2\nrope_dim: 10\n", 16, "recipe.yaml:3|rope_dim|at most head_dim, which is 8");
  mc_refused("type: attention\nheads: 2\nrope_dim: 3\n", 16, "recipe.yaml:3|rope_dim|even");
  mc_refused("type: attention\nheads: 2\nrelative_distance: 9\n", 16, "recipe.yaml:3|relative_distance|relative_bias");
  mc_refused("type: attention\nheads: 2\nrelative_bias: 8\npersistent: 2\n", 16, "recipe.yaml:3|relative_bias|persistent");
  mc_refused("type: attention\nheads: 2\ncausal: false\nrelative_bias: 3\n", 16, "recipe.yaml:4|relative_bias|at least 4");
}

int main(void) {
  RUN(golden_vectors);
  RUN(a_stream_cut_anywhere_is_the_stream);
  RUN(a_full_cache_forgets_the_oldest);
  RUN(a_window_ends_where_it_says);
  RUN(room_costs_no_work);
  RUN(unwritten_slots_are_not_read);
  RUN(gradients_agree_with_differences);
  RUN(bf16_is_close);
  RUN(rotary_tables);
  RUN(scales_and_gates_that_do_nothing);
  RUN(normalised_queries_have_no_length);
  RUN(what_a_recipe_may_not_ask_for);
  return test_end();
}
