/* test_atlas.c - what must be true of ATLAS and the memories of its family, in order: golden vectors; a stream cut anywhere is the stream,
 * though windows cross chunks; gradients, through windows, features and orthogonal steps; bf16; what it becomes when its parts are switched
 * off; what polynomial features are worth; what a loop over chunks carries; what an orthogonal step keeps; what a recipe may not ask for. */
#include "gradcheck.h"
#include "graph/ops.h"
#include "graph/orthogonal.h"
#include "mixer_suite.h"
#include "nn/fast_memory.h"
#include "nn/feature_map.h"

static const char *const forms[] = {
    "{\"type\": \"dla\", \"heads\": 2, \"memory_expand\": 1, \"chunk\": 4, \"grad_clamp\": 0}",
    "{\"type\": \"dla\", \"heads\": 2, \"memory_net\": \"linear\", \"chunk\": 5}",
    "{\"type\": \"swla\", \"heads\": 2, \"chunk\": 4, \"memory_window\": 3}",
    "{\"type\": \"omeganet\", \"heads\": 2, \"memory_expand\": 1, \"chunk\": 3, \"memory_window\": 5}",
    "{\"type\": \"omeganet\", \"heads\": 2, \"memory_net\": \"linear\", \"momentum\": true, \"chunk\": 4, \"memory_window\": 2, \"decay\": false}",
    "{\"type\": \"omeganet\", \"heads\": 2, \"memory_net\": \"gated\", \"memory_expand\": 1, \"chunk\": 4, \"memory_window\": 10, "
    "\"window_gate\": false, \"features_normed\": false, \"lr_max\": 0.02}",
    "{\"type\": \"atlas\", \"heads\": 2, \"memory_net\": \"gated\", \"memory_expand\": 1, \"chunk\": 4, \"memory_window\": 3, \"ns_steps\": 2}",
    "{\"type\": \"atlas\", \"heads\": 2, \"memory_expand\": 1, \"chunk\": 6, \"ns_every\": 2, \"memory_window\": 2, \"ns_steps\": 2, "
    "\"step_max\": 0.05, \"features\": \"plain\"}",
    "{\"type\": \"atlas\", \"heads\": 2, \"memory_net\": \"linear\", \"chunk\": 4, \"ns_every\": 1, \"memory_window\": 1, \"ns_steps\": 0}",
    "{\"type\": \"atlas_mag\", \"heads\": 2, \"memory_net\": \"linear\", \"chunk\": 4, \"memory_window\": 2, \"window\": 3, \"persistent\": 2, "
    "\"ns_steps\": 1}",
    "{\"type\": \"atlas_mal\", \"heads\": 2, \"memory_net\": \"linear\", \"chunk\": 4, \"memory_window\": 2, \"window\": 3, \"ns_steps\": 1}",
    "{\"type\": \"atlas_mac\", \"heads\": 2, \"memory_net\": \"linear\", \"chunk\": 2, \"memory_window\": 3, \"segment\": 4, \"persistent\": 2, "
    "\"ns_steps\": 1}",
};
enum { FORMS = sizeof forms / sizeof *forms };

/* In f64 all are held alike; in f32 orthogonal steps make rounding larger (see the last test), as much as a processor and a compiler like. */
static void golden_vectors(void) {
  static const char *const smooth[] = {"atlas/dla",      "atlas/dla_linear",        "atlas/swla",
                                       "atlas/omeganet", "atlas/omeganet_momentum", "atlas/omeganet_ungated"};
  static const char *const orthogonal[] = {"atlas/atlas", "atlas/atlas_gated", "atlas/atlas_each", "atlas/atlas_mag"};
  mc_golden_files(sizeof smooth / sizeof *smooth, smooth, 2e-4);
  mc_golden_files(sizeof orthogonal / sizeof *orthogonal, orthogonal, 3e-3);
}

static void a_stream_cut_anywhere_is_the_stream(void) { mc_cut_anywhere(FORMS, forms); }

static void gradients_agree_with_differences(void) { ms_gradients(FORMS, forms, 1e-4, 1e-6); }

/* Orthogonal steps make a small momentum as large as a great one, and its rounding with it: atlas is not among these. */
static void bf16_is_close(void) { ms_bf16(6, forms, 6e-2); }

/* ---- its parts switched off ---- */
#define ALIKE "\"heads\": 2, \"chunk\": 4, \"memory_net\": "
static void without_window_and_features_it_is_titans(void) {
  static const char *const nets[] = {"\"linear\"", "\"mlp\", \"memory_expand\": 2"};
  for (int i = 0; i < 2; i++)
    for (int momentum = 0; momentum < 2; momentum++) {
      char a[256], b[256];
      const char *on = momentum ? "true" : "false";
      snprintf(a, sizeof a, "{\"type\": \"omeganet\", " ALIKE "%s, \"momentum\": %s, \"features\": \"plain\", \"memory_window\": 1}",
               nets[i], on);
      snprintf(b, sizeof b, "{\"type\": \"titans_lmm\", " ALIKE "%s, \"momentum\": %s}", nets[i], on);
      const double e = ms_difference(a, b, 12, 21, NULL, NULL);
      CHECK(e == 0, "%s: %g", a, e);
    }
}
/* The slope of an inner product is the value, wherever it is taken: of a linear memory chunks do not matter. */
static void linear_attention_does_not_know_chunks(void) {
  static const char *const types[] = {"\"dla\"", "\"swla\", \"memory_window\": 5"};
  for (int i = 0; i < 2; i++) {
    char a[256], b[256];
    snprintf(a, sizeof a, "{\"type\": %s, \"heads\": 2, \"memory_net\": \"linear\", \"chunk\": 1, \"lr_max\": 0.1}", types[i]);
    snprintf(b, sizeof b, "{\"type\": %s, \"heads\": 2, \"memory_net\": \"linear\", \"chunk\": 7, \"lr_max\": 0.1}", types[i]);
    const double e = ms_difference(a, b, 12, 23, NULL, NULL);
    CHECK(e < 1e-12, "%s: %g", a, e);
  }
}
/* sum over the last tokens, weighed alike, divides by how many there are: the first token's step is that of no window */
static void one_token_has_no_window(void) {
  const double e =
      ms_difference("{\"type\": \"omeganet\", " ALIKE "\"linear\", \"memory_window\": 1}",
                    "{\"type\": \"omeganet\", " ALIKE "\"linear\", \"memory_window\": 6, \"window_gate\": false}", 12, 1, NULL, NULL);
  CHECK(e < 1e-13, "%g", e);
  const double more =
      ms_difference("{\"type\": \"omeganet\", " ALIKE "\"linear\", \"memory_window\": 1}",
                    "{\"type\": \"omeganet\", " ALIKE "\"linear\", \"memory_window\": 6, \"window_gate\": false}", 12, 9, NULL, NULL);
  CHECK(more > 1e-6, "a window changes nothing: %g", more);
}
/* ---- features ---- */
enum { D = 4, WIDTH = 1 + D + D * (D + 1) / 2 };
/* phi of n vectors x [n,D] */
static void lift(int n, const double *x, const double *scale, double *phi) {
  mn_graph *g = mn_graph_new();
  mn_tensor *y = mn_poly2(g, mn_const(g, MN_F64, MN_SHAPE(1, 1, n, D), x), mn_const(g, MN_F64, MN_SHAPE(1, 3), scale));
  mn_plan *plan = NULL;
  mn_plan_request q = {.graph = g, .n_outputs = 1, .outputs = &y, .backend = mn_backend_ref()};
  CHECK(mn_dim(y, 3) == WIDTH && mn_poly2_width(D) == WIDTH, "%lld features", (long long)mn_dim(y, 3));
  if (mn_plan_compile(&q, &plan) == MN_OK && mn_plan_run(plan) == MN_OK)
    memcpy(phi, mn_plan_output(plan, 0)->data, sizeof(double) * (size_t)(n * WIDTH));
  else CHECK(0, "%s", mn_message());
  mn_plan_free(plan);
  mn_graph_free(g);
}
static double dot(const double *a, const double *b, int n) {
  double s = 0;
  for (int i = 0; i < n; i++) s += a[i] * b[i];
  return s;
}
static void products_of_features_are_polynomials_of_products(void) {
  const double scale[3] = {0.7, 1.3, 0.6};
  double *x = mc_normal(6 * D, 1, 3), phi[6 * WIDTH] = {0};
  lift(6, x, scale, phi);
  for (int i = 0; i < 6; i++)
    for (int j = 0; j < 6; j++) {
      const double s = dot(x + i * D, x + j * D, D);
      const double want = scale[0] * scale[0] + scale[1] * scale[1] * s + scale[2] * scale[2] * s * s;
      const double got = dot(phi + i * WIDTH, phi + j * WIDTH, WIDTH);
      CHECK(fabs(got - want) < 1e-12 * (1 + fabs(want)), "%g, %g expected", got, want);
    }
  free(x);
}
/* How many of n random keys of one memory can be told any value: the rank of what they are lifted to. */
static int rank_of(int n, int width, double *rows) {
  int rank = 0;
  for (int c = 0; c < width && rank < n; c++) {
    int best = rank;
    for (int r = rank; r < n; r++)
      if (fabs(rows[r * width + c]) > fabs(rows[best * width + c])) best = r;
    if (fabs(rows[best * width + c]) < 1e-9) continue;
    for (int k = 0; k < width; k++) {
      const double keep = rows[rank * width + k];
      rows[rank * width + k] = rows[best * width + k];
      rows[best * width + k] = keep;
    }
    for (int r = rank + 1; r < n; r++) {
      const double f = rows[r * width + c] / rows[rank * width + c];
      for (int k = c; k < width; k++) rows[r * width + k] -= f * rows[rank * width + k];
    }
    rank++;
  }
  return rank;
}
/* A matrix holds as many pairs as its keys have independent features: d without, 1 + d + d (d + 1) / 2 with; one less on the sphere,
 * where sum x_i^2 is the constant feature again. */
static void capacity_is_the_number_of_features(void) {
  const double scale[3] = {1, 1, 0.7};
  double *x = mc_normal(WIDTH * D, 1, 8), phi[WIDTH * WIDTH], plain[WIDTH * D];
  memcpy(plain, x, sizeof plain);
  CHECK(rank_of(WIDTH, D, plain) == D, "plain keys hold more than %d pairs", D);
  lift(WIDTH, x, scale, phi);
  int rank = rank_of(WIDTH, WIDTH, phi);
  CHECK(rank == WIDTH, "rank %d of %d", rank, WIDTH);
  for (int i = 0; i < WIDTH; i++) {
    const double size = sqrt(dot(x + i * D, x + i * D, D));
    for (int k = 0; k < D; k++) x[i * D + k] /= size;
  }
  lift(WIDTH, x, scale, phi);
  rank = rank_of(WIDTH, WIDTH, phi);
  CHECK(rank == WIDTH - 1, "rank %d of %d on the sphere", rank, WIDTH);
  free(x);
}

/* ---- the loop over chunks ---- */
/* Blocks come with the pairs before them, so that the loop carries W and S of each matrix and nothing else: then its heads run apart. */
static void pairs_are_not_carried(void) {
  enum { TOKENS = 12, PAST = 4 };
  mn_graph *g = mn_graph_new();
  const mn_fast_config c = {.net = MN_FAST_MLP,
                            .depth = 2,
                            .expand = 2,
                            .heads = 3,
                            .head_dim = 4,
                            .chunk = 4,
                            .window = PAST + 1,
                            .step = MN_FAST_ORTHOGONAL,
                            .steps = 2,
                            .momentum = true};
  mn_fast_state s = {0};
  for (int p = 0; p < mn_fast_parts(&c); p++) s.W[p] = s.S[p] = s.A[p] = mn_input(g, "w", MN_F32, mn_fast_shape(&c, p, 1));
  s.past_k = s.past_v = mn_input(g, "past", MN_F32, MN_SHAPE(1, PAST, 3, 4));
  mn_tensor *x = mn_input(g, "x", MN_F32, MN_SHAPE(1, TOKENS, 3, 4)), *gate = mn_input(g, "gate", MN_F32, MN_SHAPE(1, TOKENS, 3));
  mn_tensor *window = mn_input(g, "window", MN_F32, MN_SHAPE(1, TOKENS, 3, PAST + 1));
  const mn_fast_input in = {.q = x, .k = x, .v = x, .theta = gate, .momentum = gate, .rate = gate, .window = window};
  const mn_fast_result r = mn_fast_memory(g, &c, &s, &in);
  CHECK_OK(mn_graph_status(g));
  CHECK(r.state.past_k && r.state.past_v && mn_dim(r.state.past_k, 1) == PAST, "the last pairs are not there");
  int loops = 0;
  for (int i = 0; i < g->n_nodes; i++)
    if (g->nodes[i]->op == &mn_op_scan) {
      const int n = ((const mn_scan_attr *)g->nodes[i]->attr)->n_carry;
      loops++;
      CHECK(n == 4, "%d carries", n);
    }
  CHECK(loops == 1, "%d loops", loops);
  mn_graph_free(g);
}

/* ---- orthogonal steps ---- */
enum { ROWS = 3, COLUMNS = 7 };
/* NS(G) of G [ROWS,columns] */
static void orthogonal_of(int columns, const double *G, double *y) {
  mn_graph *g = mn_graph_new();
  mn_tensor *out = mn_orthogonal(g, mn_const(g, MN_F64, MN_SHAPE(ROWS, columns), G), 5);
  mn_plan *plan = NULL;
  mn_plan_request q = {.graph = g, .n_outputs = 1, .outputs = &out, .backend = mn_backend_ref()};
  if (mn_plan_compile(&q, &plan) == MN_OK && mn_plan_run(plan) == MN_OK)
    memcpy(y, mn_plan_output(plan, 0)->data, sizeof(double) * (size_t)(ROWS * columns));
  else CHECK(0, "%s", mn_message());
  mn_plan_free(plan);
  mn_graph_free(g);
}
/* A reflection, which is orthogonal: entry (i,j) of 1 - 2 w w^T / |w|^2. */
static double reflected(const double *w, int n, int i, int j) { return (i == j) - 2 * w[i] * w[j] / dot(w, w, n); }

/* NS(U diag(s) V^T) is U diag(s') V^T: it keeps the singular vectors, so that turning G turns what comes of it; s' lies about 1 where s
 * is above a hundredth of the largest, is 0 where s is 0, and does not know how large G is, but for the 1e-7 that is added to its norm: to a
 * norm of 1/100 that is 1e-5 of it. Of seven columns steps are taken on the Gram matrix, of five one by one. */
static void orthogonal_steps_keep_singular_vectors(void) {
  static const double s[][ROWS] = {{1, 0.4, 0.011}, {1, 0.1, 0}, {0, 0, 0}}, size[] = {1, 1e-2, 1e5, 30};
  const double u[ROWS] = {0.3, -1.2, 0.7}, v[COLUMNS] = {1, 0.2, -0.8, 0.5, 1.7, -0.4, 0.9};
  for (int columns = 5; columns <= COLUMNS; columns += 2)
    for (int c = 0; c < 3; c++) {
      double first[ROWS * COLUMNS];
      for (int k = 0; k < 4; k++) {
        double G[ROWS * COLUMNS], y[ROWS * COLUMNS] = {0};
        for (int i = 0; i < ROWS; i++)
          for (int j = 0; j < columns; j++) {
            G[i * columns + j] = 0;
            for (int r = 0; r < ROWS; r++) G[i * columns + j] += size[k] * reflected(u, ROWS, i, r) * s[c][r] * reflected(v, columns, j, r);
          }
        orthogonal_of(columns, G, y);
        for (int a = 0; a < ROWS; a++)
          for (int b = 0; b < columns; b++) { /* entry (a,b) of U^T NS(G) V */
            double e = 0;
            for (int i = 0; i < ROWS; i++)
              for (int j = 0; j < columns; j++) e += reflected(u, ROWS, i, a) * y[i * columns + j] * reflected(v, columns, j, b);
            if (a == b && s[c][a] > 0) CHECK(e > 0.6 && e < 1.2, "singular value %g of size %g became %g", s[c][a], size[k], e);
            else CHECK(fabs(e) < 1e-11, "entry %d, %d: %g", a, b, e);
          }
        if (!k) memcpy(first, y, sizeof first);
        const double e = mc_difference(first, y, (size_t)(ROWS * columns));
        CHECK(e < (size[k] < 1 ? 2e-5 : 1e-6), "size %g changes the step by %g", size[k], e);
      }
    }
}

static void what_a_recipe_may_not_ask_for(void) {
  mc_refused("type: atlas\nheads: 3\n", 16, "recipe.yaml:2|heads|must divide d_model 16");
  mc_refused("type: atlas\nchunk: 16\nns_every: 5\n", 16, "recipe.yaml:3|ns_every|must divide chunk 16");
  mc_refused("type: omeganet\nns_steps: 5\n", 16, "recipe.yaml:2|ns_steps");
  mc_refused("type: dla\nmemory_window: 5\n", 16, "recipe.yaml:2|memory_window");
  mc_refused("type: omeganet\nmemory_window: 0\n", 16, "recipe.yaml:2|memory_window");
  mc_refused("type: swla\nmemory_window: 1\nwindow_gate: false\n", 16, "recipe.yaml:3|window_gate has no effect with memory_window: 1");
  mc_refused("type: dla\nfeatures_normed: false\n", 16, "recipe.yaml:2|features_normed has no effect with features: plain");
  mc_refused("type: atlas_mag\nheads: 2\nhead_dim: 3\n", 16, "head_dim|must be even");
  mc_refused("type: atlas_mac\nheads: 2\nhead_dim: 4\n", 16, "head_dim|d_model 16");
}

/* How far the outputs of tokens 1024 to 2047 are apart, over those of tokens 32 to 63, when the first token is moved by 6e-8: in f64, in one
 * piece, so that nothing but the mathematics moves them. Five Newton-Schulz steps enlarge a small singular value 3.4445^5 = 485 times,
 * two 12 times: with five the memory is a chaotic system, and what rounding moves in f32 grows as a moved token does; with two it forgets. */
static double growth(int steps) {
  enum { T = 2048, W = 16 };
  char json[200];
  snprintf(json, sizeof json,
           "{\"type\": \"atlas\", \"heads\": 2, \"memory_net\": \"gated\", \"memory_expand\": 1, \"chunk\": 4, "
           "\"memory_window\": 3, \"ns_every\": 2, \"ns_steps\": %d}",
           steps);
  mc_mixer m;
  double *x = mc_normal(T * W, 1, 7), *y = malloc(T * W * sizeof *y), *moved = malloc(T * W * sizeof *y), near = 0, far = 0;
  bool ok = mc_open(&m, json, W, 1, MN_F64, mn_backend_ref()) && mc_random_params(&m, 2) && mc_forward(&m, T, x, y, NULL, NULL, NULL);
  for (int i = 0; i < W; i++) x[i] *= 1 + 6e-8 * mn_random_normal(3, 4, (uint64_t)i);
  ok = ok && mc_forward(&m, T, x, moved, NULL, NULL, NULL);
  for (int i = 32 * W; ok && i < 64 * W; i++) near = fmax(near, fabs(y[i] - moved[i]));
  for (int i = 1024 * W; ok && i < T * W; i++) far = fmax(far, fabs(y[i] - moved[i]));
  mc_close(&m);
  free(x);
  free(y);
  free(moved);
  return ok && near > 0 ? far / near : (double)NAN;
}
static void five_orthogonal_steps_are_chaotic_and_two_are_not(void) {
  const double two = growth(2), five = growth(5);
  CHECK(two < 100, "with two steps a moved token's difference grows %g times", two);
  CHECK(five > 1000, "with five steps it grows %g times", five);
}

int main(void) {
  RUN(golden_vectors);
  RUN(a_stream_cut_anywhere_is_the_stream);
  RUN(gradients_agree_with_differences);
  RUN(bf16_is_close);
  RUN(without_window_and_features_it_is_titans);
  RUN(linear_attention_does_not_know_chunks);
  RUN(one_token_has_no_window);
  RUN(products_of_features_are_polynomials_of_products);
  RUN(capacity_is_the_number_of_features);
  RUN(pairs_are_not_carried);
  RUN(orthogonal_steps_keep_singular_vectors);
  RUN(what_a_recipe_may_not_ask_for);
  RUN_ONCE(five_orthogonal_steps_are_chaotic_and_two_are_not);
  return test_end();
}
