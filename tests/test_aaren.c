/* test_aaren.c - what must be true of Aaren, in order: golden vectors; the checks of its card on scores that are given; a
 * stream cut anywhere is the stream; states merge; gradients; bf16; a layer's size; what a recipe may not ask for. */
#include "format/yaml.h"
#include "mixer_suite.h"
#include "model/model.h"

static const char *const forms[] = {
    "{\"type\": \"aaren\", \"heads\": 2}",
    "{\"type\": \"aaren\", \"heads\": 4, \"decay\": true, \"chunk\": 8}",
    "{\"type\": \"aaren\", \"heads\": 2, \"head_dim\": 6, \"score_scale\": \"none\", \"bias\": false, \"chunk\": 5}",
};
enum { FORMS = sizeof forms / sizeof *forms };

static void golden_vectors(void) {
  static const char *const files[] = {"aaren/aaren", "aaren/aaren_wide_scores"};
  mc_golden_files(2, files, 5e-5);
}

/* ---- scores that are given ---- All projections the identity and the query (scale, 0, 0, 0): a token's score is
 * scale * x[0], its value is x, and y is the average. */
enum { D = 4, LONG = 257 };
static int open_probe(mc_mixer *m, double scale, mn_dtype t, mn_backend *backend) {
  static const char *const names[] = {"q_proj.weight", "k_proj.weight", "v_proj.weight", "o_proj.weight"};
  double eye[D * D] = {0}, query[D] = {scale};
  for (int i = 0; i < D; i++) eye[i * D + i] = 1;
  if (!mc_open(m, "{\"type\": \"aaren\", \"heads\": 1, \"score_scale\": \"none\", \"bias\": false}", D, 1, t, backend)) return 0;
  for (int i = 0; i < 4; i++) mc_put(&m->params, names[i], MN_SHAPE(D, D), eye);
  mc_put(&m->params, "query", MN_SHAPE(D), query);
  return 1;
}
/* The definition, with all scores of the past at once: y[t] over x[0..t]. */
static void dense(const double *x, double scale, int64_t T, double *y) {
  for (int64_t t = 0; t < T; t++) {
    double top = -INFINITY, sum = 0, o[D] = {0};
    for (int64_t i = 0; i <= t; i++) top = fmax(top, scale * x[i * D]);
    for (int64_t i = 0; i <= t; i++) {
      double e = exp(scale * x[i * D] - top);
      sum += e;
      for (int k = 0; k < D; k++) o[k] += e * x[i * D + k];
    }
    for (int k = 0; k < D; k++) y[t * D + k] = o[k] / sum;
  }
}
/* The worst difference over the three coordinates that are not the score, relative to the largest value. */
static double apart(const double *a, const double *b, int64_t T) {
  double worst = 0, scale = 1e-12;
  for (int64_t i = 0; i < T * D; i++) {
    if (i % D == 0) continue;
    scale = fmax(scale, fabs(b[i]));
    double e = fabs(a[i] - b[i]);
    if (!(e <= worst)) worst = isfinite(e) ? e : INFINITY;
  }
  return worst / scale;
}
/* y of the probe in f32 (fast) or f64: whole, or token by token */
static void probe(double scale, bool f64, bool stream, int64_t T, const double *x, double *y) {
  mc_mixer m;
  mn_backend *cpu = NULL;
  mc_bag state = {0};
  int64_t cuts[LONG];
  for (int64_t i = 0; i + 1 < T; i++) cuts[i] = i + 1;
  CHECK_OK(mn_backend_cpu_new(1, &cpu));
  int ok = open_probe(&m, scale, f64 ? MN_F64 : MN_F32, f64 ? mn_backend_ref() : cpu);
  ok = ok && (stream ? mc_pieces(&m, T, x, (int)T - 1, cuts, y, &state) : mc_forward(&m, T, x, y, NULL, NULL, NULL));
  CHECK(ok, "the probe does not run");
  if (!ok) memset(y, 0, (size_t)(T * D) * sizeof *y);
  mc_bag_free(&state);
  mc_close(&m);
  mn_backend_free(cpu);
}

static void all_forms_are_the_dense_softmax(void) { /* scores N(0, 30^2) */
  double *x = mc_normal(LONG * D, 1, 3), want[LONG * D], y[LONG * D];
  for (int i = 0; i < LONG; i++) x[i * D] = (double)(float)(30 * x[i * D]); /* both types have the same scores */
  dense(x, 1, LONG, want);
  for (int f64 = 0; f64 < 2; f64++)
    for (int stream = 0; stream < 2; stream++) {
      probe(1, f64, stream, LONG, x, y);
      CHECK(apart(y, want, LONG) < (f64 ? 1e-12 : 1e-5), "%s, %s: %g", f64 ? "f64" : "f32", stream ? "token by token" : "parallel",
            apart(y, want, LONG));
    }
  free(x);
}

/* cumsum(exp(s - cummax(s))), which some implementations ship, keeps old terms at an old maximum: with rising scores it is
 * far off, and so it would be seen here. */
static void rising_scores(void) {
  enum { T = 12 };
  double *x = mc_normal(T * D, 1, 3), want[T * D], y[T * D], naive[T * D], sum = 0, o[D] = {0}, top = -INFINITY;
  for (int t = 0; t < T; t++) {
    x[t * D] = t;
    top = fmax(top, t);
    sum += exp(t - top);
    for (int k = 0; k < D; k++) o[k] += exp(t - top) * x[t * D + k], naive[t * D + k] = o[k] / sum;
  }
  dense(x, 1, T, want);
  for (int k = 0; k < 4; k++) {
    probe(1, k & 1, k & 2, T, x, y);
    CHECK(apart(y, want, T) < 1e-6, "scores 0, 1, 2, ...: %g", apart(y, want, T));
  }
  CHECK(apart(naive, want, T) > 0.1, "the shortcut is off by %g and passes: this test sees nothing", apart(naive, want, T));
  free(x);
}

static void limits(void) {
  enum { T = 40 };
  double *x = mc_normal(T * D, 1, 5), y[T * D], want[T * D];
  for (int k = 0; k < 4; k++) {
    for (int t = 0; t < T; t++) { /* no query: the running mean */
      for (int j = 0; j < D; j++) want[t * D + j] = ((t ? want[(t - 1) * D + j] * t : 0) + x[t * D + j]) / (t + 1);
    }
    probe(0, k & 1, k & 2, T, x, y);
    CHECK(apart(y, want, T) < 1e-6, "query 0: %g", apart(y, want, T));
    double *z = malloc(sizeof(double) * T * D);
    memcpy(z, x, sizeof(double) * T * D);
    for (int t = 0; t < T; t++) z[t * D] = 1e4 * (t + 1);
    probe(1, k & 1, k & 2, T, z, y);
    CHECK(apart(y, z, T) < 1e-6, "scores 10000 t: the newest alone, off by %g", apart(y, z, T));
    for (int t = 0; t < T; t++) memcpy(want + t * D, x, sizeof(double) * D);
    probe(-1, k & 1, k & 2, T, z, y);
    CHECK(apart(y, want, T) < 1e-6, "scores -10000 t: the first alone, off by %g", apart(y, want, T));
    free(z);
  }
  free(x);
}

static void scores_count_by_difference_and_tokens_have_no_order(void) {
  enum { T = 30 };
  double *x = mc_normal(T * D, 1, 5), y[T * D], want[T * D];
  for (int t = 0; t < T; t++) x[t * D] = floor(x[t * D] * 256) / 256; /* exact in f32 after the shift */
  for (int k = 0; k < 4; k++) {
    probe(1, k & 1, k & 2, T, x, want);
    double *z = malloc(sizeof(double) * T * D);
    for (double shift = -1e4; shift <= 1e4; shift += 1e4) {
      memcpy(z, x, sizeof(double) * T * D);
      for (int t = 0; t < T; t++) z[t * D] += shift;
      probe(1, k & 1, k & 2, T, z, y);
      CHECK(apart(y, want, T) < 1e-5, "all scores %+g: %g", shift, apart(y, want, T));
    }
    for (int t = 0; t < T; t++) memcpy(z + t * D, x + (T - 1 - t) * D, sizeof(double) * D);
    probe(1, k & 1, k & 2, T, z, y);
    CHECK(apart(y + (T - 1) * D, want + (T - 1) * D, 1) < 1e-5, "the other way round, the last y differs by %g",
          apart(y + (T - 1) * D, want + (T - 1) * D, 1));
    free(z);
  }
  free(x);
}

/* Five million equal tokens into a stream, one more has the weight 1 / (n + 1), in f32, too. */
static void late_tokens_still_count(void) {
  mc_mixer m;
  mn_backend *cpu = NULL;
  mc_bag state = {0};
  double x[D] = {0, 1e6, -1e6, 0}, y[D], n = 5e6, none[D] = {0}, minus = 0;
  CHECK_OK(mn_backend_cpu_new(1, &cpu));
  if (cpu && open_probe(&m, 1, MN_F32, cpu) && mc_start(&m, &state)) {
    mc_put(&state, "m", MN_SHAPE(1, 1), &minus);
    mc_put(&state, "u", MN_SHAPE(1, 1), &n);
    mc_put(&state, "w", MN_SHAPE(1, 1, D), none);
    CHECK(mc_segment(&m, &state, 1, x, y), "run");
    for (int k = 1; k < 3; k++) CHECK(fabs(y[k] / (x[k] / (n + 1)) - 1) < 1e-5, "%g", y[k]);
    CHECK(mc_get(&state, "u")->x[0] == n + 1, "u");
    mc_close(&m);
  }
  mc_bag_free(&state);
  mn_backend_free(cpu);
}

/* However many tokens came before, each one more counts as one, alone and in company: u and w gain what they gain in f64. */
static void sums_never_stop_counting(void) {
  enum { W = 8, H = 2, K = 4, MORE = 512 };
  static const double before[] = {16777216, 3e8, 0x1p36};
  mn_backend *cpu = NULL;
  double *x = mc_normal(MORE * W, 1, 4), gain[3][H + H * K], *y[3];
  CHECK_OK(mn_backend_cpu_new(1, &cpu));
  for (size_t k = 0; cpu && k < sizeof before / sizeof *before; k++) {
    for (int form = 0; form < 3; form++) { /* f64; f32 one by one; f32 at once */
      mc_mixer m;
      mc_bag state = {0};
      double u[H], w[H * K], zero[H] = {0};
      y[form] = calloc(MORE * W, sizeof(double));
      int ok = mc_open(&m, "{\"type\": \"aaren\", \"heads\": 2}", W, 1, form ? MN_F32 : MN_F64, form ? cpu : mn_backend_ref()) &&
               mc_random_params(&m, 6);
      if (ok) memset(mc_get(&m.params, "query")->x, 0, W * sizeof(double)); /* all tokens weigh the same */
      if (ok) memset(mc_get(&m.params, "q_proj.bias")->x, 0, H * K * sizeof(double));
      ok = ok && mc_start(&m, &state);
      for (int h = 0; h < H; h++) u[h] = before[k];
      for (int i = 0; i < H * K; i++) w[i] = (0.25 + i) * before[k];
      if (ok) mc_put(&state, "m", MN_SHAPE(1, H), zero), mc_put(&state, "u", MN_SHAPE(1, H), u), mc_put(&state, "w", MN_SHAPE(1, H, K), w);
      int64_t length = form == 1 ? 1 : MORE;
      for (int64_t at = 0; ok && at < MORE; at += length) ok = mc_segment(&m, &state, length, x + at * W, y[form] + at * W);
      CHECK(ok, "run");
      for (int i = 0; ok && i < H; i++) gain[form][i] = (mc_get(&state, "u")->x[i] - u[i]);
      for (int i = 0; ok && i < H * K; i++) gain[form][H + i] = (mc_get(&state, "w")->x[i] - w[i]);
      mc_bag_free(&state);
      mc_close(&m);
      if (!ok) return;
    }
    CHECK(gain[1][0] == MORE && gain[1][1] == MORE, "after %g: one by one u gains %g", before[k], gain[1][0]);
    for (int form = 1; form < 3; form++) {
      double e = mc_difference(gain[form], gain[0], H + H * K), e_y = mc_difference(y[form], y[0], MORE * W);
      CHECK(e < 1e-4 && e_y < 1e-5, "after %g, form %d: gains differ by %g, y by %g", before[k], form, e, e_y);
    }
    for (int form = 0; form < 3; form++) free(y[form]);
  }
  free(x);
  mn_backend_free(cpu);
}

/* ---- any parameters ---- */
/* At the last token: ordinary cross-attention of one query over all tokens, keys projected one by one (nothing folded), with
 * decay as a bias by age. */
static void the_last_output_is_cross_attention(void) {
  enum { T = 23, W = 8 };
  for (int i = 0; i < FORMS; i++) {
    mc_mixer m;
    double *x = mc_normal(T * W, 1, 4), y[T * W], o[64] = {0};
    if (!mc_open(&m, forms[i], W, 1, MN_F64, mn_backend_ref()) || !mc_random_params(&m, 6) || !mc_forward(&m, T, x, y, NULL, NULL, NULL)) {
      CHECK(false, "%s does not run", forms[i]);
      continue;
    }
    int64_t H = i == 1 ? 4 : 2, K = i == 2 ? 6 : W / H;
    double *p[4], *b[4], *query = mc_get(&m.params, "query")->x;
    for (int k = 0; k < 4; k++) {
      char name[32];
      snprintf(name, sizeof name, "%c_proj.weight", "qkvo"[k]);
      p[k] = mc_get(&m.params, name)->x;
      snprintf(name, sizeof name, "%c_proj.bias", "qkvo"[k]);
      b[k] = mc_get(&m.params, name) ? mc_get(&m.params, name)->x : NULL;
    }
    for (int64_t h = 0; h < H; h++) {
      double sum = 0, rate = i == 1 ? log1p(exp(mc_get(&m.params, "decay")->x[h])) : 0;
      for (int64_t t = 0; t < T; t++) {
        double score = 0, v[8];
        for (int64_t k = 0; k < K; k++) {
          int64_t row = h * K + k;
          double q = b[0] ? b[0][row] : 0, key = b[1] ? b[1][row] : 0;
          v[k] = b[2] ? b[2][row] : 0;
          for (int64_t j = 0; j < W; j++)
            q += p[0][row * W + j] * query[j], key += p[1][row * W + j] * x[t * W + j], v[k] += p[2][row * W + j] * x[t * W + j];
          score += q * key / (i == 2 ? 1 : sqrt((double)K));
        }
        double e = exp(score - rate * (double)(T - 1 - t));
        sum += e;
        for (int64_t k = 0; k < K; k++) o[h * K + k] += e * v[k];
      }
      for (int64_t k = 0; k < K; k++) o[h * K + k] /= sum;
    }
    for (int64_t j = 0; j < W; j++) {
      double want = b[3] ? b[3][j] : 0;
      for (int64_t k = 0; k < H * K; k++) want += p[3][j * H * K + k] * o[k];
      CHECK(fabs(want - y[(T - 1) * W + j]) < 1e-10, "%s: %g and %g", forms[i], want, y[(T - 1) * W + j]);
    }
    mc_close(&m);
    free(x);
  }
}

static void a_stream_cut_anywhere_is_the_stream(void) { mc_cut_anywhere(FORMS, forms); }

/* (m, u, w) of pieces that were read independently, merged in any order, is that of the whole (one layer, no decay). */
static void states_merge(void) {
  enum { PIECES = 7, LEN = 5, W = 8, H = 2, K = 4 };
  mc_mixer m;
  double *x = mc_normal(PIECES * LEN * W, 2, 4), y[PIECES * LEN * W], piece_m[PIECES][H], piece_u[PIECES][H], piece_w[PIECES][H * K];
  mc_bag whole = {0};
  if (!mc_open(&m, forms[0], W, 1, MN_F64, mn_backend_ref()) || !mc_random_params(&m, 6) ||
      !mc_pieces(&m, PIECES * LEN, x, 0, NULL, y, &whole)) {
    CHECK(false, "run");
    return;
  }
  for (int tree = 0; tree < 5; tree++) {
    for (int i = 0; i < PIECES; i++) {
      mc_bag s = {0};
      CHECK(mc_pieces(&m, LEN, x + i * LEN * W, 0, NULL, y, &s), "piece %d", i);
      memcpy(piece_m[i], mc_get(&s, "m")->x, sizeof piece_m[i]);
      memcpy(piece_u[i], mc_get(&s, "u")->x, sizeof piece_u[i]);
      memcpy(piece_w[i], mc_get(&s, "w")->x, sizeof piece_w[i]);
      mc_bag_free(&s);
    }
    for (int left = PIECES; left > 1; left--) { /* two random ones become one */
      int a = (int)(mn_random_uniform(8, (uint64_t)tree, (uint64_t)left) * left), b = left - 1;
      if (a == b) a = 0;
      for (int h = 0; h < H; h++) {
        double top = fmax(piece_m[a][h], piece_m[b][h]), ea = exp(piece_m[a][h] - top), eb = exp(piece_m[b][h] - top);
        piece_m[a][h] = top;
        piece_u[a][h] = piece_u[a][h] * ea + piece_u[b][h] * eb;
        for (int k = 0; k < K; k++) piece_w[a][h * K + k] = piece_w[a][h * K + k] * ea + piece_w[b][h * K + k] * eb;
      }
    }
    double e = fmax(mc_difference(piece_m[0], mc_get(&whole, "m")->x, H), mc_difference(piece_u[0], mc_get(&whole, "u")->x, H));
    e = fmax(e, mc_difference(piece_w[0], mc_get(&whole, "w")->x, H * K));
    CHECK(e < 1e-12, "tree %d: %g", tree, e);
  }
  mc_bag_free(&whole);
  mc_close(&m);
  free(x);
}

static void gradients_agree_with_differences(void) { /* query and q_proj among them */
  for (int i = 0; i < FORMS; i++) {
    mc_mixer m;
    int ok = mc_open(&m, forms[i], 8, 2, MN_F64, mn_backend_ref()) && mc_random_params(&m, 9);
    m.step = 3e-3; /* k_proj.bias has the gradient 0: rounding alone, the less the longer the step */
    double e = ok ? mc_gradient_error(&m, 13, NULL, 8, 11) : INFINITY;
    CHECK(e < 1e-6, "%s: %g", forms[i], e);
    mc_close(&m);
  }
}

/* Through the state, too: in a loop over segments the gradients are those of one piece. */
static mn_tensor *segment(mn_scope *s, void *mixer, mn_tensor *x) { return mn_mixer_apply(s, mixer, x); }
enum { AS_IT_IS, IN_A_LOOP };
static mn_status squares(void *ctx, mn_scope *s, const mn_form *form, mn_parts *parts) {
  mc_mixer *m = ctx;
  mn_graph *g = mn_scope_graph(s);
  mn_tensor *x = mn_parts_feed(parts, "x", MN_F64, MN_SHAPE(1, form->length, m->d_model)), *wrt[MC_MAX] = {x}, *grad[MC_MAX];
  mn_tensor *y = form->what == IN_A_LOOP ? mn_scope_loop(s, 5, segment, &m->mixer, x) : mn_mixer_apply(s, &m->mixer, x);
  mn_tensor *loss = mn_sum(g, mn_mul(g, y, y), 7);
  mn_tensor *const *params;
  const mn_param_info *info;
  const int n = mn_scope_params(s, &info, &params);
  for (int k = 0; k < n; k++) wrt[k + 1] = params[k];
  MN_TRY(mn_grad(g, 1, &loss, NULL, n + 1, wrt, grad));
  for (int k = 0; k <= n; k++) mn_parts_give(parts, k ? info[k - 1].name : "x", grad[k]);
  return MN_OK;
}
static void gradients_flow_through_the_state(void) {
  enum { T = 22, W = 8 };
  for (int i = 0; i < FORMS; i++) {
    mc_mixer m;
    trial t = {0};
    double *x = mc_normal(T * W, 1, 4), worst = INFINITY;
    mc_bag in = {0}, whole = {0}, looped = {0};
    int ok = mc_open(&m, forms[i], W, 1, MN_F64, mn_backend_ref()) && mc_random_params(&m, 6);
    mn_program_config c = {.backend = m.backend, .build = mc_how(&m, false), .builder = squares, .ctx = &m};
    mc_put(&in, "x", MN_SHAPE(1, T, W), x);
    ok = ok && trial_open(&t, &c, &m.params);
    ok = ok && trial_run(&t, &(mn_form){.batch = 1, .length = T, .what = AS_IT_IS}, NULL, NULL, &in, &whole) &&
         trial_run(&t, &(mn_form){.batch = 1, .length = T, .what = IN_A_LOOP}, NULL, NULL, &in, &looped);
    double largest = 0; /* of all gradients: some are zero but for rounding */
    for (int k = 0; ok && k < whole.n; k++)
      for (int64_t e = 0; e < mn_shape_count(&whole.t[k].shape); e++) largest = fmax(largest, fabs(whole.t[k].x[e]));
    for (int k = 0; ok && k < whole.n; k++) {
      worst = k ? worst : 0;
      for (int64_t e = 0; e < mn_shape_count(&whole.t[k].shape); e++)
        worst = fmax(worst, fabs(looped.t[k].x[e] - whole.t[k].x[e]) / largest);
    }
    CHECK(worst < 1e-12, "%s: %g", forms[i], worst);
    trial_close(&t);
    mc_bag_free(&in);
    mc_bag_free(&whole);
    mc_bag_free(&looped);
    free(x);
    mc_close(&m);
  }
}

static void bf16_is_close(void) { ms_bf16(FORMS, forms, 2e-2); }

/* ---- in a model ---- */
static mn_model *model_of(mn_arena *arena, const char *yaml) {
  const mn_value *v = NULL;
  mn_model *m = NULL;
  CHECK_OK(mn_yaml_parse(arena, "test", yaml, strlen(yaml), &v));
  CHECK_OK(mn_model_parse(v, "test", 0, &m));
  return m;
}

static void a_layer_has_512_parameters_more_than_attention(void) { /* D 512, H 8, F 2048, as in the paper */
  mn_arena *arena = mn_arena_new();
  int64_t count[2] = {0, 0};
  for (int k = 0; k < 2; k++) {
    mn_model *model = model_of(
        arena,
        k ? "{vocab_size: 1, d_model: 512, layers: 1, norm: layer, block: {mixer: {type: attention, heads: 8, bias: true}, channel: mlp, "
            "hidden: 2048}}"
          : "{vocab_size: 1, d_model: 512, layers: 1, norm: layer, block: {mixer: {type: aaren, heads: 8}, channel: mlp, hidden: 2048}}");
    mn_graph *g = mn_graph_new();
    mn_scope *s = mn_scope_new(g, (mn_build){.param = MN_F32, .compute = MN_F32}, 1);
    if (model) mn_block_apply(mn_scope_in(s, "layer"), &model->stack.blocks[0], mn_input(g, "x", MN_F32, MN_SHAPE(1, 4, 512)), NULL);
    CHECK_OK(mn_graph_status(g));
    const mn_param_info *info;
    for (int i = 0, n = mn_scope_params(s, &info, NULL); i < n; i++) count[k] += mn_shape_count(&info[i].shape);
    mn_graph_free(g);
    mn_model_free(model);
  }
  CHECK(count[0] == 3152896 && count[1] == 3152384, "Aaren %lld, attention %lld", (long long)count[0], (long long)count[1]);
  mn_arena_free(arena);
}

static void what_a_recipe_may_not_ask_for(void) {
  mc_refused("type: aaren\nheads: 3\n", 16, "recipe.yaml:2|heads|must divide d_model 16");
  mc_refused("type: aaren\nheads: 2\nchunk: 0\n", 16, "recipe.yaml:3|chunk");
  mc_refused("type: aaren\nheads: 2\nscore_scale: rsqrt\n", 16, "recipe.yaml:3|score_scale|rsqrt_dim");
  mc_refused("type: aaren\nheads: 2\nquery_init_std: -1\n", 16, "recipe.yaml:3|query_init_std");
  mc_refused("type: aaren\nheads: 2\ndecays: true\n", 16, "recipe.yaml:3|decays|decay");
}

int main(void) {
  RUN(golden_vectors);
  RUN(all_forms_are_the_dense_softmax);
  RUN(rising_scores);
  RUN(limits);
  RUN(scores_count_by_difference_and_tokens_have_no_order);
  RUN(late_tokens_still_count);
  RUN(sums_never_stop_counting);
  RUN(the_last_output_is_cross_attention);
  RUN(a_stream_cut_anywhere_is_the_stream);
  RUN(states_merge);
  RUN(gradients_agree_with_differences);
  RUN(gradients_flow_through_the_state);
  RUN(bf16_is_close);
  RUN(a_layer_has_512_parameters_more_than_attention);
  RUN(what_a_recipe_may_not_ask_for);
  return test_end();
}
