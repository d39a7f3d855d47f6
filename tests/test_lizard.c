/* test_lizard.c - what must be true of Lizard, in order: golden vectors; a stream cut anywhere is the stream;
 * gradients; bf16; what it becomes when the gate is open or shut, when a branch says nothing, when the window holds everything; meta
 * tokens; linear attention where nothing is forgotten; the form that folds gates into exponents, right for exp and wrong for softmax; large
 * scores and small gates; heads that share keys; what a recipe may not ask for. */
#include "mixer_suite.h"

static const char *const forms[] = {
    "{\"type\": \"lizard\", \"heads\": 2, \"window\": 4}",
    "{\"type\": \"lizard\", \"heads\": 4, \"kv_heads\": 2, \"window\": 3, \"features\": 3, \"feature_per_head\": false, \"bias\": true}",
    "{\"type\": \"lizard\", \"heads\": 2, \"kv_heads\": 1, \"window\": 5, \"norm\": \"joint\", \"alpha\": \"per_head\", \"window_rope\": true}",
    "{\"type\": \"lizard\", \"heads\": 2, \"window\": 2, \"norm\": \"none\", \"feature_act\": \"softmax\", \"meta_tokens\": 0}",
    "{\"type\": \"lizard\", \"heads\": 2, \"branches\": \"gated\", \"gate\": \"none\"}",
    "{\"type\": \"lizard\", \"heads\": 2, \"branches\": \"window\", \"window\": 3, \"alpha\": \"fixed\"}",
};
enum { FORMS = sizeof forms / sizeof *forms };

static void golden_vectors(void) {
  static const char *const files[] = {"lizard/lizard", "lizard/lizard_joint", "lizard/lizard_softmax"};
  mc_golden_files(3, files, 2e-5);
}

static void a_stream_cut_anywhere_is_the_stream(void) { mc_cut_anywhere(FORMS, forms); }

/* Pieces of 1, 8 and 64 tokens, whose last one is cut short, are the whole: the dense form, the chunked one, the recurrence. */
static void pieces_are_the_whole(mn_dtype type, mn_backend *backend, double bound) {
  enum { T = 150 };
  static const int64_t lengths[] = {1, 8, 64};
  for (int f = 0; f < 3; f++) {
    mc_mixer m;
    mc_whole w = {0};
    int64_t cuts[T];
    bool ok = mc_open(&m, forms[f], 8, 1, type, backend) && mc_random_params(&m, 4) && mc_whole_of(&m, T, 3, &w);
    CHECK(ok, "%s", forms[f]);
    for (int i = 0; ok && i < 3; i++) {
      int n = 0;
      for (int64_t at = lengths[i]; at < T; at += lengths[i]) cuts[n++] = at;
      const double e = mc_split_error(&m, &w, n, cuts);
      CHECK(e < bound, "%s in pieces of %lld: %g", forms[f], (long long)lengths[i], e);
    }
    mc_whole_free(&w);
    mc_close(&m);
  }
}
static void pieces_of_any_length_are_the_whole(void) {
  mn_backend *cpu = NULL;
  pieces_are_the_whole(MN_F64, mn_backend_ref(), 1e-12);
  CHECK_OK(mn_backend_cpu_new(1, &cpu));
  if (cpu) pieces_are_the_whole(MN_F32, cpu, 1e-5);
  mn_backend_free(cpu);
}

static void gradients_agree_with_differences(void) { ms_gradients(FORMS, forms, 1e-4, 1e-6); }

static void bf16_is_close(void) { ms_bf16(FORMS, forms, 3e-2); }

static void open_gate(mc_bag *p) {
  ms_set(p, "gate_proj.weight", 0);
  ms_set(p, "gate_proj.bias", 50);
}
static void an_open_gate_is_none(void) {
  static const char gate[] = "{\"type\": \"lizard\", \"heads\": 2}", none[] = "{\"type\": \"lizard\", \"heads\": 2, \"gate\": \"none\"}";
  double e = ms_difference(gate, none, 8, 30, open_gate, NULL);
  CHECK(e < 1e-12, "a gate of 1 and none differ by %g", e);
  e = ms_difference(gate, none, 8, 30, NULL, NULL);
  CHECK(e > 1e-3, "the gate changes nothing: %g", e);
}

/* What is forgotten at once leaves the present value alone, as a window of one token does. */
static void shut_gate(mc_bag *p) {
  ms_set(p, "gate_proj.weight", 0);
  ms_set(p, "gate_proj.bias", -1e6);
}
static void a_shut_gate_gives_the_present_value(void) {
  const double e = ms_difference("{\"type\": \"lizard\", \"heads\": 2, \"branches\": \"gated\"}",
                                 "{\"type\": \"attention\", \"heads\": 2, \"window\": 1}", 8, 20, shut_gate, NULL);
  CHECK(e < 1e-12, "it differs from the value by %g", e);
}

static void no_alpha(mc_bag *p) { ms_set(p, "alpha", 0); }
static void without_alpha_the_memory_is_alone(void) {
  const double e = ms_difference("{\"type\": \"lizard\", \"heads\": 2, \"window\": 4}",
                                 "{\"type\": \"lizard\", \"heads\": 2, \"branches\": \"gated\"}", 8, 20, no_alpha, NULL);
  CHECK(e < 1e-12, "alpha 0 and no window differ by %g", e);
}

static void lost_meta(mc_bag *p) { ms_set(p, "meta_logits", -1e4); }
static void a_window_that_holds_everything_is_attention(void) {
  static const char nope[] = "{\"type\": \"lizard\", \"heads\": 4, \"kv_heads\": 2, \"branches\": \"window\", \"alpha\": \"fixed\"}";
  double e = ms_difference(nope, "{\"type\": \"attention\", \"heads\": 4, \"kv_heads\": 2, \"rope\": false}", 16, 40, lost_meta, NULL);
  CHECK(e < 1e-12, "without positions: %g", e);
  e = ms_difference(nope, "{\"type\": \"attention\", \"heads\": 4, \"kv_heads\": 2, \"rope\": false}", 16, 40, NULL, NULL);
  CHECK(e > 1e-3, "meta tokens change nothing: %g", e);
}
static void alpha_of_one(mc_bag *p) { ms_set(p, "alpha", 1); }
static void a_window_with_positions_is_the_teacher(void) {
  const double e =
      ms_difference("{\"type\": \"lizard\", \"heads\": 4, \"kv_heads\": 2, \"branches\": \"window\", \"window_rope\": true,"
                    " \"rope_theta\": 50, \"meta_tokens\": 0}",
                    "{\"type\": \"attention\", \"heads\": 4, \"kv_heads\": 2, \"rope_theta\": 50}", 16, 40, alpha_of_one, NULL);
  CHECK(e < 1e-12, "with positions: %g", e);
}

static void zeros(mc_bag *p) { ms_set(p, "meta_logits", 0); }
static void log_of_four(mc_bag *p) { ms_set(p, "meta_logits", log(4)); }
static void meta_tokens_are_one_number(void) {
  const double e = ms_difference("{\"type\": \"lizard\", \"heads\": 2, \"window\": 4}",
                                 "{\"type\": \"lizard\", \"heads\": 2, \"window\": 4, \"meta_tokens\": 1}", 8, 20, zeros, log_of_four);
  CHECK(e < 1e-12, "four zeros and log 4 differ by %g", e);
}

/* ---- one head of width D, whose projections are the identity: q, k, v and x are one, and y is what the head says ---- */
enum { D = 4 };
static void identity(mc_mixer *m) {
  static const char *const names[] = {"q_proj.weight", "k_proj.weight", "v_proj.weight", "o_proj.weight"};
  for (int i = 0; i < 4; i++)
    for (int e = 0; e < D * D; e++) mc_get(&m->params, names[i])->x[e] = e % (D + 1) == 0;
}

/* All scores c higher, and the meta logits too: nothing changes. The first entry of all tokens is 1, and q's is moved. */
static void a_constant_in_all_scores_changes_nothing(void) {
  enum { T = 9 };
  mc_mixer m;
  double *x = mc_normal(T * D, 1, 7), y[2][T * D], c = 2.5;
  for (int t = 0; t < T; t++) x[t * D] = 1;
  bool ok = mc_open(&m, "{\"type\": \"lizard\", \"heads\": 1, \"branches\": \"window\", \"window\": 4}", D, 1, MN_F64, mn_backend_ref()) &&
            mc_random_params(&m, 8);
  for (int i = 0; ok && i < 2; i++) {
    identity(&m);
    mc_get(&m.params, "q_proj.weight")->x[0] = 1 + (i ? c * sqrt(D) : 0);
    ms_set(&m.params, "meta_logits", i ? c : 0);
    ok = mc_forward(&m, T, x, y[i], NULL, NULL, NULL);
  }
  const double e = ok ? mc_difference(y[0], y[1], T * D) : INFINITY;
  CHECK(e < 1e-12, "y moves by %g", e);
  mc_close(&m);
  free(x);
}

/* The memory of one head as one sum over tokens, in the log domain so that nothing is too large: `folded`, with gates inside the exponents
 * of features (exp(z + log C)), else beside them. softmax features of z + c are those of z. */
static void dense(int T, const double *x, const double *log_gamma, bool softmax, bool folded, double *y) {
  double C[512] = {0};
  for (int t = 0; t < T; t++) C[t] = (t ? C[t - 1] : 0) + log_gamma[t];
  for (int t = 0; t < T; t++) {
    double sum[D] = {0}, weights = 0, top = -INFINITY, lw[512];
    for (int i = 0; i <= t; i++) {
      double terms[2 * D], most = -INFINITY, norm_q[2] = {0}, norm_k[2] = {0};
      for (int f = 0; f < D; f++)
        for (int s = 0; s < 2; s++) {
          norm_q[s] += exp((s ? -1 : 1) * x[t * D + f] + (folded ? C[t] : 0));
          norm_k[s] += exp((s ? -1 : 1) * x[i * D + f] - (folded ? C[i] : 0));
        }
      for (int f = 0; f < 2 * D; f++) {
        const int s = f >= D;
        const double sign = s ? -1 : 1, q = sign * x[t * D + f % D] + (folded ? C[t] : 0),
                     k = sign * x[i * D + f % D] - (folded ? C[i] : 0);
        terms[f] = q + k - (softmax ? log(norm_q[s]) + log(norm_k[s]) : 0);
        most = fmax(most, terms[f]);
      }
      double e = 0;
      for (int f = 0; f < 2 * D; f++) e += exp(terms[f] - most);
      lw[i] = most + log(e) + (folded ? 0 : C[t] - C[i]);
      top = fmax(top, lw[i]);
    }
    for (int i = 0; i <= t; i++) {
      const double w = exp(lw[i] - top);
      weights += w;
      for (int d = 0; d < D; d++) sum[d] += w * x[i * D + d];
    }
    for (int d = 0; d < D; d++) y[t * D + d] = sum[d] / weights;
  }
}

/* y of the memory with gates that follow the first entry of x: log gamma = log sigmoid(slope x_0 + bias). log_gamma NULL: there are no
 * gates. */
static bool memory(const char *act, mn_dtype type, double slope, double bias, int T, const double *x, double *y, double *log_gamma) {
  char json[160];
  snprintf(json, sizeof json, "{\"type\": \"lizard\", \"heads\": 1, \"branches\": \"gated\", \"feature_act\": \"%s\"%s}", act,
           log_gamma ? "" : ", \"gate\": \"none\"");
  mc_mixer m;
  mc_bag grads = {0};
  bool ok = mc_open(&m, json, D, 1, type, mn_backend_ref()) && mc_random_params(&m, 8);
  if (ok) {
    identity(&m);
    ms_set(&m.params, "feature_q", 0);
    ms_set(&m.params, "feature_k", 0);
    if (log_gamma) {
      ms_set(&m.params, "gate_proj.weight", 0);
      mc_get(&m.params, "gate_proj.weight")->x[0] = slope;
      ms_set(&m.params, "gate_proj.bias", bias);
    }
    ok = mc_forward(&m, T, x, y, x, &grads, NULL);
  }
  for (int i = 0; ok && i < grads.n; i++)
    for (int64_t e = 0, n = mn_shape_count(&grads.t[i].shape); e < n; e++)
      if (!isfinite(grads.t[i].x[e])) ok = false;
  for (int t = 0; ok && log_gamma && t < T; t++) log_gamma[t] = -log1p(exp(-(slope * x[t * D] + bias)));
  mc_bag_free(&grads);
  mc_close(&m);
  return ok;
}

/* Without gates, and with gates of 1, the memory is linear attention with the features [exp(z), exp(-z)] (Hedgehog's). */
static void without_gates_it_is_linear_attention(void) {
  enum { T = 40 };
  static const double none[T] = {0};
  double *x = mc_normal(T * D, 1, 5), y[T * D], want[T * D], log_gamma[T];
  for (int i = 0; i < 2; i++) {
    dense(T, x, none, i, false, want);
    CHECK(memory(i ? "softmax" : "exp", MN_F64, 0, 0, T, x, y, NULL), "run");
    CHECK(mc_difference(y, want, T * D) < 1e-12, "without gates: %g", mc_difference(y, want, T * D));
    CHECK(memory(i ? "softmax" : "exp", MN_F64, 0, 50, T, x, y, log_gamma), "run");
    CHECK(mc_difference(y, want, T * D) < 1e-12, "with gates of 1: %g", mc_difference(y, want, T * D));
  }
  free(x);
}

static void gates_fold_into_exponents_but_not_through_a_softmax(void) {
  enum { T = 24 };
  double *x = mc_normal(T * D, 1, 5), y[T * D], want[T * D], closed[T * D], log_gamma[T], none[T] = {0};
  CHECK(memory("exp", MN_F64, 1, 0.5, T, x, y, log_gamma), "run");
  dense(T, x, log_gamma, false, false, want);
  CHECK(mc_difference(y, want, T * D) < 1e-12, "exp, gates beside: %g", mc_difference(y, want, T * D));
  dense(T, x, log_gamma, false, true, want);
  CHECK(mc_difference(y, want, T * D) < 1e-6, "exp, gates inside: %g", mc_difference(y, want, T * D));
  CHECK(memory("softmax", MN_F64, 1, 0.5, T, x, y, log_gamma), "run");
  dense(T, x, log_gamma, true, false, want);
  CHECK(mc_difference(y, want, T * D) < 1e-12, "softmax, gates beside: %g", mc_difference(y, want, T * D));
  dense(T, x, log_gamma, true, true, want);
  dense(T, x, none, true, false, closed);
  CHECK(mc_difference(closed, want, T * D) < 1e-12, "a softmax erases gates inside it: %g", mc_difference(closed, want, T * D));
  CHECK(mc_difference(y, want, T * D) > 1e-2, "and is then another memory: %g", mc_difference(y, want, T * D));
  free(x);
}

/* |q . k| / sqrt(d) reaches 150 and features e^20 and more; gates go down to 1e-6; an early token that is never forgotten stays. */
static void large_scores_and_small_gates_are_finite_and_right(void) {
  enum { T = 200 };
  double *x = mc_normal(T * D, 1, 5), y[T * D], want[T * D], log_gamma[T];
  for (int i = 0; i < T * D; i++) x[i] *= 6;
  static const double slope[] = {0.6, 0, 0}, bias[] = {-3, -13.8, 9};
  for (int i = 0; i < 3; i++) {
    CHECK(memory("exp", MN_F64, slope[i], bias[i], T, x, y, log_gamma), "gate %d: not finite", i);
    dense(T, x, log_gamma, false, false, want);
    CHECK(mc_difference(y, want, T * D) < 1e-10, "gate %d: %g in f64", i, mc_difference(y, want, T * D));
    CHECK(memory("exp", MN_F32, slope[i], bias[i], T, x, y, log_gamma), "gate %d: not finite in f32", i);
    CHECK(mc_difference(y, want, T * D) < 1e-2, "gate %d: %g in f32", i, mc_difference(y, want, T * D));
  }
  mc_mixer m;
  double *z = mc_normal(T * 8, 1, 5), out[T * 8];
  bool ok = mc_open(&m, "{\"type\": \"lizard\", \"heads\": 2, \"window\": 16}", 8, 1, MN_F32, mn_backend_ref()) && mc_random_params(&m, 8);
  for (int i = 0; i < T * 8; i++) z[i] *= 8;
  ok = ok && mc_forward(&m, T, z, out, NULL, NULL, NULL);
  for (int i = 0; ok && i < T * 8; i++) ok = isfinite(out[i]);
  CHECK(ok, "both branches are not finite");
  mc_close(&m);
  free(x);
  free(z);
}

/* Two query heads that share keys read one memory; the same with keys and values written twice has two, which are equal. */
static void twice(mc_bag *p) {
  static const char *const names[] = {"k_proj.weight", "v_proj.weight", "feature_k"};
  for (int i = 0; i < 3; i++) {
    mc_tensor *t = mc_get(p, names[i]);
    const int64_t half = mn_shape_count(&t->shape) / 2;
    memcpy(t->x + half, t->x, (size_t)half * sizeof *t->x);
  }
}
static void heads_that_share_keys_share_a_memory(void) {
  enum { T = 17, W = 8 };
  static const char *const json[] = {"{\"type\": \"lizard\", \"heads\": 2, \"kv_heads\": 1, \"window\": 4}",
                                     "{\"type\": \"lizard\", \"heads\": 2, \"window\": 4}"};
  double *x = mc_normal(T * W, 1, 3), y[2][T * W];
  mc_mixer m[2];
  mc_bag state[2] = {{0}};
  bool ok = true;
  for (int i = 0; i < 2; i++) ok = mc_open(&m[i], json[i], W, 1, MN_F64, mn_backend_ref()) && mc_random_params(&m[i], 6) && ok;
  for (int i = 0; ok && i < m[0].params.n; i++) {
    const mc_tensor *t = &m[0].params.t[i];
    memcpy(mc_get(&m[1].params, t->name)->x, t->x, (size_t)mn_shape_count(&t->shape) * sizeof *t->x);
  }
  if (ok) twice(&m[1].params);
  for (int i = 0; ok && i < 2; i++) ok = mc_pieces(&m[i], T, x, 0, NULL, y[i], &state[i]);
  CHECK(ok, "run");
  if (ok) {
    const mc_tensor *one = mc_get(&state[0], "S"), *two = mc_get(&state[1], "S");
    const int64_t n = mn_shape_count(&one->shape);
    CHECK(mc_difference(y[0], y[1], T * W) < 1e-12, "y differs by %g", mc_difference(y[0], y[1], T * W));
    CHECK(mn_shape_count(&two->shape) == 2 * n, "the memories are not half as many");
    CHECK(mc_difference(one->x, two->x, n) < 1e-12 && mc_difference(one->x, two->x + n, n) < 1e-12, "the memories differ");
  }
  for (int i = 0; i < 2; i++) {
    mc_bag_free(&state[i]);
    mc_close(&m[i]);
  }
  free(x);
}

static void what_a_recipe_may_not_ask_for(void) {
  mc_refused("type: lizard\nheads: 3\n", 16, "recipe.yaml:2|heads|divide d_model 16");
  mc_refused("type: lizard\nheads: 4\nkv_heads: 3\n", 16, "recipe.yaml:3|kv_heads|divide heads");
  mc_refused("type: lizard\nbranches: gated\nwindow: 4\n", 16, "recipe.yaml:3|window|branches: gated");
  mc_refused("type: lizard\nbranches: window\nfeatures: 4\n", 16, "recipe.yaml:3|features|branches: window");
  mc_refused("type: lizard\nbranches: window\nnorm: joint\n", 16, "recipe.yaml:3|norm|branches: window");
  mc_refused("type: lizard\nrope_theta: 500\n", 16, "recipe.yaml:2|rope_theta|window_rope: true");
  mc_refused("type: lizard\ngate: none\ngate_bias: 1\n", 16, "recipe.yaml:3|gate_bias|gate: none");
  mc_refused("type: lizard\nheads: 16\nwindow_rope: true\n", 16, "recipe.yaml|head_dim|even");
}

int main(void) {
  RUN(golden_vectors);
  RUN(a_stream_cut_anywhere_is_the_stream);
  RUN(pieces_of_any_length_are_the_whole);
  RUN(gradients_agree_with_differences);
  RUN(bf16_is_close);
  RUN(an_open_gate_is_none);
  RUN(a_shut_gate_gives_the_present_value);
  RUN(without_alpha_the_memory_is_alone);
  RUN(a_window_that_holds_everything_is_attention);
  RUN(a_window_with_positions_is_the_teacher);
  RUN(meta_tokens_are_one_number);
  RUN(a_constant_in_all_scores_changes_nothing);
  RUN(without_gates_it_is_linear_attention);
  RUN(gates_fold_into_exponents_but_not_through_a_softmax);
  RUN(large_scores_and_small_gates_are_finite_and_right);
  RUN(heads_that_share_keys_share_a_memory);
  RUN(what_a_recipe_may_not_ask_for);
  return test_end();
}
