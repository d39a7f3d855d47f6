/* test_titans.c - what must be true of Titans, in order: golden vectors of every configuration; the chunk form is the
 * recurrence; a stream cut anywhere is the stream; its uses beside attention; outer gradients through the inner learning; what it
 * refuses. (The identities that tie its memory to simpler models: test_titans_identities.c.) */
#include "mixer_suite.h"

/* ---- golden vectors ---- */
static const char *const goldens[] = {"lmm_linear_c1",
                                      "lmm_linear_c16",
                                      "lmm_linear_c4",
                                      "lmm_linear_c4_before",
                                      "lmm_linear_c4_clamp",
                                      "lmm_linear_c4_no_decay",
                                      "lmm_linear_c4_no_momentum",
                                      "lmm_linear_c4_plain",
                                      "lmm_linear_chunkwise",
                                      "lmm_linear_chunkwise_before",
                                      "lmm_ln_mlp1_c16",
                                      "lmm_ln_mlp2_c4",
                                      "lmm_ln_mlp2_c4_clamp",
                                      "lmm_ln_mlp2_chunkwise",
                                      "lmm_mlp1_c4",
                                      "lmm_mlp2_c1",
                                      "lmm_mlp2_c16",
                                      "lmm_mlp2_c4",
                                      "lmm_mlp2_c4_before",
                                      "lmm_mlp2_c4_clamp",
                                      "lmm_mlp2_c4_expand4",
                                      "lmm_mlp2_c4_no_decay",
                                      "lmm_mlp2_c4_no_momentum",
                                      "lmm_mlp2_c4_no_residual",
                                      "lmm_mlp2_chunkwise",
                                      "lmm_mlp3_c4",
                                      "lmm_mlp3_c4_no_residual",
                                      "mag_linear",
                                      "mag_mlp2",
                                      "mal_linear",
                                      "mac_linear",
                                      "mac_linear_chunkwise",
                                      "mac_mlp2"};
static mn_backend *cpu;

static void golden_vectors_in_f64(void) {
  for (size_t i = 0; i < sizeof goldens / sizeof *goldens; i++) {
    char file[80];
    snprintf(file, sizeof file, "titans/titans_%s", goldens[i]);
    mc_golden(file, mn_backend_ref(), MN_F64, 1e-9, NULL);
  }
}

static void golden_vectors_in_f32_on_the_cpu(void) {
  for (size_t i = 0; i < sizeof goldens / sizeof *goldens; i++) {
    char file[80];
    snprintf(file, sizeof file, "titans/titans_%s", goldens[i]);
    mc_golden(file, cpu, MN_F32, 1e-4, NULL);
  }
}

/* ---- streams ---- */
/* One token at a time is the recurrence itself (no products over a chunk); one pass is the chunk form. */
static void the_chunk_form_is_the_recurrence(void) {
  static const char *const nets[] = {"'memory_net': 'linear'",
                                     "'memory_net': 'linear', 'grad_clamp': 1",
                                     "'memory_net': 'mlp', 'memory_depth': 1",
                                     "'memory_net': 'mlp', 'memory_depth': 2, 'memory_expand': 2",
                                     "'memory_net': 'mlp', 'memory_depth': 3, 'memory_expand': 2",
                                     "'memory_net': 'ln_mlp', 'memory_depth': 2, 'memory_expand': 2"};
  int64_t chunks[] = {1, 4, 16, 19}, T = 19, tokens[18];
  for (int64_t i = 0; i < T - 1; i++) tokens[i] = i + 1;
  for (int n = 0; n < 6; n++)
    for (int c = 0; c < 4; c++) {
      char keys[256];
      snprintf(keys, sizeof keys, "'type': 'titans_lmm', 'heads': 2, 'chunk': %d, %s", (int)chunks[c], nets[n]);
      mc_mixer m;
      mc_whole whole = {0};
      double e = INFINITY;
      if (ms_open(&m, keys, 8, 2, MN_F64, mn_backend_ref()) && mc_random_params(&m, 1) && mc_whole_of(&m, T, 7, &whole))
        e = mc_split_error(&m, &whole, (int)T - 1, tokens);
      CHECK(e < 1e-10, "%s: %g", keys, e);
      mc_whole_free(&whole);
      mc_close(&m);
    }
}

static void split(const char *keys) {
  mc_mixer m;
  double l = ms_open(&m, keys, 8, ML_ROWS, MN_F64, mn_backend_ref()) && mc_random_params(&m, 1) ? ml_error(&m, 5) : INFINITY;
  CHECK(l < 1e-10, "%s: rows of different lengths: %g", keys, l);
  mc_close(&m);
  double e = ms_open(&m, keys, 8, 2, MN_F64, mn_backend_ref()) && mc_random_params(&m, 1) ? mc_split_everywhere(&m, 33, 4, 5) : INFINITY;
  CHECK(e < 1e-10, "%s: %g", keys, e);
  mc_close(&m);
}

static void a_stream_cut_anywhere_is_the_stream(void) {
  split("'type': 'titans_lmm', 'heads': 2, 'chunk': 8");
  split("'type': 'titans_lmm', 'heads': 2, 'chunk': 8, 'read': 'before'");
  split("'type': 'titans_lmm', 'heads': 2, 'chunk': 5, 'momentum': false, 'conv': 0");
  split("'type': 'titans_lmm', 'heads': 2, 'chunk': 8, 'granularity': 'chunk'");
  split("'type': 'titans_lmm', 'heads': 2, 'chunk': 8, 'memory_net': 'mlp', 'memory_expand': 2");
  split("'type': 'titans_lmm', 'heads': 2, 'chunk': 8, 'memory_net': 'mlp', 'memory_expand': 2, 'momentum': false, 'decay': false");
  split("'type': 'titans_lmm', 'heads': 2, 'chunk': 8, 'memory_net': 'ln_mlp', 'memory_expand': 2, 'read': 'before', 'grad_clamp': 0.5");
  split("'type': 'titans_lmm', 'heads': 2, 'chunk': 8, 'memory_net': 'mlp', 'memory_expand': 2, 'granularity': 'chunk'");
  split("'type': 'titans_lmm', 'heads': 2, 'chunk': 8, 'memory_net': 'ln_mlp', 'granularity': 'chunk', 'read': 'before', 'decay': false");
  split("'type': 'titans_mag', 'heads': 2, 'chunk': 8, 'window': 6, 'persistent': 2");
  split("'type': 'titans_mal', 'heads': 2, 'chunk': 5, 'window': 6, 'persistent': 2, 'memory_net': 'mlp', 'memory_expand': 2");
  split("'type': 'titans_mac', 'heads': 2, 'chunk': 4, 'segment': 8, 'persistent': 2");
  split("'type': 'titans_mac', 'heads': 2, 'chunk': 3, 'segment': 8, 'memory_net': 'mlp', 'memory_expand': 2");
  split("'type': 'titans_mac', 'heads': 2, 'chunk': 4, 'segment': 6, 'granularity': 'chunk'");
}

/* Positions that are promised to be multiples of something take shorter paths to the same numbers. */
static void promised_positions_change_nothing(void) {
  static const struct {
    const char *keys;
    int64_t multiple, cuts[3];
  } cases[] = {
      {"'type': 'titans_lmm', 'heads': 2, 'chunk': 4", 4, {4, 12, 20}},
      {"'type': 'titans_lmm', 'heads': 2, 'chunk': 4, 'memory_net': 'mlp', 'memory_expand': 2", 4, {4, 12, 20}},
      {"'type': 'titans_lmm', 'heads': 2, 'chunk': 4, 'memory_net': 'mlp', 'granularity': 'chunk'", 4, {8, 12, 20}},
      {"'type': 'titans_mac', 'heads': 2, 'chunk': 4, 'segment': 8, 'persistent': 2", 8, {8, 16, 24}},
      {"'type': 'titans_mac', 'heads': 2, 'chunk': 4, 'segment': 8, 'memory_net': 'mlp'", 4, {4, 12, 20}},
      {"'type': 'titans_mac', 'heads': 2, 'chunk': 4, 'segment': 12", 8, {8, 16, 24}},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    mc_mixer m;
    mc_whole whole = {0};
    double e = INFINITY;
    if (ms_open(&m, cases[i].keys, 8, 2, MN_F64, mn_backend_ref()) && mc_random_params(&m, 2) && mc_whole_of(&m, 30, 7, &whole)) {
      m.multiple = cases[i].multiple;
      e = mc_split_error(&m, &whole, 3, cases[i].cuts);
    }
    CHECK(e < 1e-10, "%s: %g", cases[i].keys, e);
    mc_whole_free(&whole);
    mc_close(&m);
  }
}

static void long_streams_in_f32(void) {
  static const char *const kinds[] = {"'type': 'titans_lmm', 'heads': 2, 'chunk': 32",
                                      "'type': 'titans_lmm', 'heads': 2, 'chunk': 32, 'memory_net': 'mlp', 'memory_expand': 2",
                                      "'type': 'titans_mag', 'heads': 2, 'chunk': 32, 'window': 40, 'persistent': 4",
                                      "'type': 'titans_mac', 'heads': 2, 'chunk': 16, 'segment': 48, 'persistent': 4"};
  for (int k = 0; k < 4; k++) {
    mc_mixer m;
    double e = ms_open(&m, kinds[k], 16, 1, MN_F32, cpu) && mc_random_params(&m, 3) ? mc_split_long(&m, 4096, 20, 7) : INFINITY;
    CHECK(e < 1e-4, "%s: %g", kinds[k], e);
    mc_close(&m);
  }
}

static void bf16_products_stay_near_f32(void) {
  static const char *const types[] = {"titans_lmm", "titans_mag", "titans_mal", "titans_mac"};
  for (int k = 0; k < 8; k++) {
    mc_mixer m;
    mc_whole exact = {0};
    char keys[256];
    int64_t T = 40, n = 2 * T * 16, cuts[] = {7, 8, 24};
    double *y = malloc((size_t)n * sizeof *y), mean = INFINITY;
    mc_bag state = {0};
    snprintf(keys, sizeof keys, "'type': '%s', 'heads': 2, 'chunk': 8, 'memory_net': '%s', 'lr_max': 0.05%s", types[k % 4],
             k < 4 ? "linear" : "mlp", k % 4 == 3 ? ", 'segment': 16" : "");
    if (ms_open(&m, keys, 16, 2, MN_F32, cpu) && mc_random_params(&m, 4) && mc_whole_of(&m, T, 7, &exact)) {
      m.bf16 = true;
      if (mc_pieces(&m, T, exact.x, 3, cuts, y, &state)) {
        double error = 0, size = 0;
        for (int64_t i = 0; i < n; i++) error += (y[i] - exact.y[i]) * (y[i] - exact.y[i]), size += exact.y[i] * exact.y[i];
        mean = sqrt(error / size);
      }
    }
    CHECK(mean < 0.05, "%s: %g", keys, mean);
    CHECK(mean > 1e-6, "%s: not computed in bf16", keys);
    free(y);
    mc_bag_free(&state);
    mc_whole_free(&exact);
    mc_close(&m);
  }
}

/* ---- its uses against attention ---- */
static void rms(double *x, int64_t n, double scale) {
  double sum = 0;
  for (int64_t i = 0; i < n; i++) sum += x[i] * x[i];
  for (int64_t i = 0; i < n; i++) x[i] *= scale / sqrt(sum / (double)n + 1e-6);
}
static void fill(mc_bag *b, const char *word, double value) {
  for (int i = 0; i < b->n; i++)
    if (strstr(b->t[i].name, word))
      for (int64_t k = 0; k < mn_shape_count(&b->t[i].shape); k++) b->t[i].x[k] = value;
}

/* A gate that is held at sigmoid(0) = 1/2 leaves RMSNorm(attention) / 2. */
static void mag_with_a_constant_gate_is_sliding_window_attention(void) {
  mc_mixer mag, attention;
  int64_t T = 25, n = 2 * T * 8;
  double *x = mc_normal(n, 1, 1), *a = malloc((size_t)n * sizeof *a), *b = malloc((size_t)n * sizeof *b), e = INFINITY;
  int ok = ms_open(&mag, "'type': 'titans_mag', 'heads': 2, 'chunk': 8, 'window': 6, 'persistent': 2", 8, 2, MN_F64, mn_backend_ref()) &
           ms_open(&attention, "'type': 'attention', 'heads': 2, 'window': 6, 'persistent': 2", 8, 2, MN_F64, mn_backend_ref());
  if (ok && mc_random_params(&mag, 1)) {
    fill(&mag.params, "mag_norm_b", 0);
    fill(&mag.params, "mag_norm_a", 1);
    for (int i = 0; i < mag.params.n; i++) {
      mc_tensor *t = &mag.params.t[i];
      if (!strncmp(t->name, "attn.", 5)) mc_put(&attention.params, t->name + 5, t->shape, t->x);
    }
    if (mc_forward(&mag, T, x, a, NULL, NULL, NULL) && mc_forward(&attention, T, x, b, NULL, NULL, NULL)) {
      for (int64_t t = 0; t < 2 * T; t++) rms(b + t * 8, 8, 0.5);
      e = mc_difference(a, b, n);
    }
  }
  CHECK(e < 1e-10, "%g", e);
  mc_close(&mag);
  mc_close(&attention);
  free(x);
  free(a);
  free(b);
}

/* A memory of zeros reads zeros: row i of MAC sees, beside x_0..x_i, i + 1 rows with key and value 0. One head of width 4,
 * one segment; RoPE sees differences of positions only. */
static void mac_with_an_empty_memory_is_attention_beside_zeros(void) {
  enum { W = 4, T = 9 };
  mc_mixer m;
  double *x = mc_normal(T * W, 1, 1), y[T * W], q[T][W], k[T][W], v[T][W], o[W], want[T * W], e = INFINITY;
  if (ms_open(&m, "'type': 'titans_mac', 'heads': 1, 'chunk': 4, 'segment': 9, 'lr_max': 0", W, 1, MN_F64, mn_backend_ref()) &&
      mc_random_params(&m, 1)) {
    fill(&m.params, "memory.init", 0);
    fill(&m.params, "mag_norm_b", 0);
    fill(&m.params, "mag_norm_a", 1);
    for (int t = 0; t < T; t++)
      for (int which = 0; which < 3; which++) {
        double *to = which == 0 ? q[t] : which == 1 ? k[t] : v[t];
        const double *w = mc_get(&m.params, which == 0   ? "attn.q_proj.weight"
                                            : which == 1 ? "attn.k_proj.weight"
                                                         : "attn.v_proj.weight")
                              ->x;
        for (int i = 0; i < W; i++) {
          to[i] = 0;
          for (int j = 0; j < W; j++) to[i] += w[i * W + j] * x[t * W + j];
        }
        for (int i = 0; i < W / 2 && which < 2; i++) {
          double angle = t * pow(10000, -2.0 * i / W), a = to[i], b = to[i + W / 2];
          to[i] = a * cos(angle) - b * sin(angle);
          to[i + W / 2] = b * cos(angle) + a * sin(angle);
        }
      }
    const double *wo = mc_get(&m.params, "attn.o_proj.weight")->x;
    for (int t = 0; t < T; t++) {
      double sum = t + 1; /* exp(0) of each memory row */
      memset(o, 0, sizeof o);
      for (int j = 0; j <= t; j++) {
        double s = 0;
        for (int i = 0; i < W; i++) s += q[t][i] * k[j][i] / sqrt(W);
        sum += exp(s);
        for (int i = 0; i < W; i++) o[i] += exp(s) * v[j][i];
      }
      for (int i = 0; i < W; i++) {
        want[t * W + i] = 0;
        for (int j = 0; j < W; j++) want[t * W + i] += wo[i * W + j] * o[j] / sum;
      }
      rms(want + t * W, W, 0.5);
    }
    if (mc_forward(&m, T, x, y, NULL, NULL, NULL)) e = mc_difference(y, want, T * W);
  }
  CHECK(e < 1e-10, "%g", e);
  mc_close(&m);
  free(x);
}

/* ---- training ---- */
static void outer_gradients_pass_through_the_inner_learning(void) {
  static const char *const kinds[] = {
      "'type': 'titans_lmm', 'heads': 2, 'chunk': 4",
      "'type': 'titans_lmm', 'heads': 2, 'chunk': 4, 'memory_net': 'mlp', 'memory_expand': 2",
      "'type': 'titans_lmm', 'heads': 2, 'chunk': 4, 'memory_net': 'ln_mlp', 'memory_expand': 2, 'grad_clamp': 0.5, 'read': 'before'",
      "'type': 'titans_lmm', 'heads': 2, 'chunk': 4, 'memory_net': 'mlp', 'memory_expand': 2, 'granularity': 'chunk'",
      "'type': 'titans_mac', 'heads': 2, 'chunk': 4, 'segment': 4, 'persistent': 1"};
  for (int k = 0; k < 5; k++) {
    mc_mixer m;
    double e = ms_open(&m, kinds[k], 8, 1, MN_F64, mn_backend_ref()) && mc_random_params(&m, 3)
                   ? mc_gradient_error(&m, 14, "q_proj k_proj v_proj bias init x_conv", 6, 9)
                   : INFINITY;
    CHECK(e < 1e-6, "%s: %g", kinds[k], e);
    mc_close(&m);
  }
}

/* A long loop keeps the carries of some chunks only and works the others out again: the same gradients. */
static void gradients_of_many_chunks(void) {
  mc_mixer m;
  double e = ms_open(&m, "'type': 'titans_lmm', 'heads': 1, 'chunk': 1, 'memory_net': 'mlp', 'memory_expand': 1", 4, 1, MN_F64,
                     mn_backend_ref()) &&
                     mc_random_params(&m, 3)
                 ? mc_gradient_error(&m, 30, "k_proj lr_proj.bias init", 4, 9)
                 : INFINITY;
  CHECK(e < 1e-6, "%g", e);
  mc_close(&m);
}

/* trunc_bptt = 2 chunks: the same outputs; what the last two pieces (one of the loop, one left over) ask of the memory does not reach the
 * tokens before them. */
static void truncation_stops_gradients_and_nothing_else(void) {
  static const char *const nets[] = {"'type': 'titans_lmm', 'memory_net': 'linear'",
                                     "'type': 'titans_lmm', 'memory_net': 'mlp', 'memory_expand': 2",
                                     "'type': 'titans_lmm', 'memory_net': 'linear', 'granularity': 'chunk'",
                                     "'type': 'titans_mac', 'segment': 4", /* shorter than two chunks: over segments */
                                     "'type': 'titans_mac', 'segment': 16, 'memory_net': 'mlp', 'memory_expand': 2"};
  for (int k = 0; k < 5; k++) {
    int64_t T = 30, n = T * 8, reached[2] = {0};
    double *x = mc_normal(n, 1, 1), *dy = calloc((size_t)n, sizeof *dy), *y[2];
    for (int64_t i = 16 * 8; i < n; i++) dy[i] = 1 + (double)(i % 3);
    for (int cut = 0; cut < 2; cut++) {
      mc_mixer m;
      mc_bag grads = {0};
      char keys[256];
      snprintf(keys, sizeof keys, "'heads': 2, 'chunk': 4, 'conv': 0, 'trunc_bptt': %d, %s", 2 * cut, nets[k]);
      y[cut] = calloc((size_t)n, sizeof *y[cut]);
      int ok =
          ms_open(&m, keys, 8, 1, MN_F64, mn_backend_ref()) && mc_random_params(&m, 1) && mc_forward(&m, T, x, y[cut], dy, &grads, NULL);
      CHECK(ok, "%s does not run", keys);
      for (int64_t i = 0; ok && i < 16 * 8; i++) reached[cut] += mc_get(&grads, "x")->x[i] != 0;
      mc_bag_free(&grads);
      mc_close(&m);
    }
    CHECK(mc_difference(y[1], y[0], n) < 1e-12, "%s: outputs change", nets[k]);
    CHECK(reached[0] > 0 && reached[1] == 0, "%s: %d and %d entries reached", nets[k], (int)reached[0], (int)reached[1]);
    for (int i = 0; i < 2; i++) free(y[i]);
    free(x);
    free(dy);
  }
}

static void graphs_do_not_grow_with_time(void) {
  static const char *const kinds[] = {"'type': 'titans_lmm', 'heads': 2, 'chunk': 8, 'memory_net': 'mlp'",
                                      "'type': 'titans_mac', 'heads': 2, 'chunk': 8, 'segment': 16"};
  for (int k = 0; k < 2; k++) {
    int nodes[2];
    mc_mixer m;
    CHECK(ms_open(&m, kinds[k], 8, 1, MN_F32, cpu), "%s", kinds[k]);
    for (int i = 0; i < 2; i++) {
      mn_graph *g = mn_graph_new();
      mn_mixer_apply(mn_scope_new(g, mc_how(&m, false), m.B), &m.mixer, mn_input(g, "x", MN_F32, MN_SHAPE(1, i ? 8000 : 80, 8)));
      CHECK_OK(mn_graph_status(g));
      nodes[i] = g->n_nodes;
      mn_graph_free(g);
    }
    CHECK(nodes[0] == nodes[1], "%s: %d nodes for 80 tokens, %d for 8000", kinds[k], nodes[0], nodes[1]);
    mc_close(&m);
  }
}

static void gates_start_where_the_card_says(void) {
  mc_mixer m;
  mn_graph *g = mn_graph_new();
  CHECK(ms_open(&m, "'type': 'titans', 'memory_net': 'mlp'", 16, 1, MN_F32, cpu), "titans");
  mn_scope *s = mn_scope_new(g, mc_how(&m, false), m.B);
  mn_mixer_apply(s, &m.mixer, mn_input(g, "x", MN_F32, MN_SHAPE(1, 4, 16)));
  const mn_param_info *info;
  int seen = 0;
  for (int i = 0, n = mn_scope_params(s, &info, NULL); i < n; i++) {
    bool bias = strstr(info[i].name, ".bias"), decay = strstr(info[i].name, "decay_proj");
    if (!bias && !strstr(info[i].name, "lr_proj") && !decay && !strstr(info[i].name, "momentum_proj")) continue;
    CHECK(info[i].init.kind == MN_INIT_CONSTANT && info[i].init.a == (bias && decay ? -4 : 0), "%s starts at %g", info[i].name,
          info[i].init.a);
    seen++;
  }
  CHECK(seen == 6, "%d gate parameters", seen);
  static const char *const projections[] = {"q_proj.weight", "k_proj.weight", "v_proj.weight", "gate_proj.weight", "o_proj.weight"};
  for (int k = 0; k < 5; k++) { /* all of one scale, that of the output and its gate, too */
    const mn_param_info *found = NULL;
    for (int i = 0, n = mn_scope_params(s, &info, NULL); i < n; i++)
      if (strstr(info[i].name, projections[k])) found = &info[i];
    CHECK(found && found->init.kind == MN_INIT_XAVIER_UNIFORM && found->init.a == 1, "%s", projections[k]);
  }
  mn_graph_free(g);
  mc_close(&m);
}

static void what_cannot_be_is_refused(void) {
  mc_refused("{type: titans_lmm, heads: 3}", 8, "heads|d_model 8");
  mc_refused("{type: titans_mac, heads: 2, head_dim: 2}", 8, "head_dim|titans_mac");
  mc_refused("{type: titans_mag, heads: 2, head_dim: 3}", 8, "head_dim|even");
  mc_refused("{type: titans_lmm, memory_net: deep}", 8, "memory_net|ln_mlp");
  mc_refused("{type: titans_lmm, chunks: 4}", 8, "chunks|chunk");
  mc_refused("{type: titans_mag, window: 8, max_context: 64}", 8, "max_context|no effect|window: 8");
  mc_refused("{type: titans_lmm, chunk: 0}", 8, "chunk");
}

int main(void) {
  CHECK_OK(mn_backend_cpu_new(2, &cpu));
  RUN(golden_vectors_in_f64);
  RUN(golden_vectors_in_f32_on_the_cpu);
  RUN(the_chunk_form_is_the_recurrence);
  RUN(a_stream_cut_anywhere_is_the_stream);
  RUN(promised_positions_change_nothing);
  RUN(long_streams_in_f32);
  RUN(bf16_products_stay_near_f32);
  RUN(mag_with_a_constant_gate_is_sliding_window_attention);
  RUN(mac_with_an_empty_memory_is_attention_beside_zeros);
  RUN(outer_gradients_pass_through_the_inner_learning);
  RUN(gradients_of_many_chunks);
  RUN(truncation_stops_gradients_and_nothing_else);
  RUN(graphs_do_not_grow_with_time);
  RUN(gates_start_where_the_card_says);
  RUN(what_cannot_be_is_refused);
  mn_backend_free(cpu);
  return test_end();
}
