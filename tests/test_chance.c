/* test_chance.c - what is drawn while a model runs: rounding is right on average, numbers are drawn as their logits say, blocks drop
 * what they add in training alone; all of it a function of seed, place and step, the same for any number of threads. */
#include "gradcheck.h"
#include "model_check.h"

static mn_backend *backend[2]; /* one and three threads */

static mn_scope *scope_at(mn_graph *g, mn_dtype exact, bool training, uint64_t seed, int64_t step) {
  mn_build how = {.param = exact, .compute = exact, .training = training, .seed = seed, .step = mn_scalar(g, MN_I64, (double)step)};
  return mn_scope_new(g, how, 1);
}

static double *value_of(mn_graph *g, mn_backend *b, mn_tensor *y) {
  double *out = NULL;
  if (mn_graph_status(g) != MN_OK || !gc_run(g, b, 0, MN_KEEP, 0, NULL, NULL, 1, &y, &out)) return NULL;
  return out;
}

static int differing(const double *a, const double *b, int n) {
  int others = 0;
  for (int i = 0; a && b && i < n; i++) others += a[i] != b[i];
  return a && b ? others : n;
}

static bool draws(const mn_graph *g) {
  for (int i = 0; i < g->n_nodes; i++)
    if (!strcmp(g->nodes[i]->op->name, "random")) return true;
  return false;
}

/* ---- rounding ---- */
typedef struct rounding {
  mn_dtype from, to;
  int digits; /* binary, of `to` */
} rounding;
static const rounding roundings[] = {{MN_F32, MN_BF16, 8}, {MN_F64, MN_BF16, 8}, {MN_F64, MN_F32, 24}};

/* In units of the last place of numbers near 1: just below and above powers of 2, where the unit changes, and away from them. */
static const double offsets[] = {-1.25, -0.75, -0.375, -0.125, 0, 0.25, 0.5, 0.75, 1.25, 33.4375};
enum { OFFSETS = sizeof offsets / sizeof *offsets, SCALES = 3, VALUES = 2 * SCALES * OFFSETS, EACH = 2000, ROUNDED = VALUES * EACH };

static void values_for(const rounding *r, double *x) {
  static const double scale[SCALES] = {1, 0x1p-90, 0x1p100};
  for (int i = 0; i < VALUES; i++)
    x[i] = (i % 2 ? -1 : 1) * scale[i / 2 % SCALES] * (1 + offsets[i / 2 / SCALES] * ldexp(1, 1 - r->digits));
}

/* EACH roundings of each of VALUES numbers, or (form 1) a plain cast of them. */
static double *rounded(const rounding *r, mn_backend *b, bool training, uint64_t seed, int64_t step, bool plain) {
  double x[VALUES];
  mn_graph *g = mn_graph_new();
  mn_scope *s = scope_at(g, r->from, training, seed, step);
  values_for(r, x);
  void *packed = mc_pack(x, r->from, VALUES);
  mn_tensor *many = mn_expand(g, mn_const(g, r->from, MN_SHAPE(VALUES, 1), packed), MN_SHAPE(VALUES, EACH));
  double *y = value_of(g, b, plain ? mn_cast(g, many, r->to) : mn_round_stochastic(s, "round", many, r->to));
  CHECK(y, "%s", mn_message());
  CHECK(draws(g) == (training && !plain), "evaluation draws, or training does not");
  free(packed);
  mn_graph_free(g);
  return y;
}

static void rounding_is_right_on_average(void) {
  for (size_t k = 0; k < sizeof roundings / sizeof *roundings; k++) {
    const rounding *r = &roundings[k];
    double x[VALUES], *one = rounded(r, backend[0], true, 1, 5, false);
    values_for(r, x);
    for (int i = 0; one && i < VALUES; i++) {
      int exponent, ups = 0;
      frexp(x[i], &exponent);
      const double size = fabs(x[i]), unit = ldexp(1, exponent - r->digits), low = floor(size / unit) * unit;
      const double p = (size - low) / unit, deviation = sqrt(p * (1 - p) / EACH);
      for (int j = 0; j < EACH; j++) {
        const double y = one[i * EACH + j];
        CHECK(y == copysign(low, x[i]) || y == copysign(low + unit, x[i]), "%d: %a becomes %a", (int)k, x[i], y);
        ups += fabs(y) == low + unit;
      }
      CHECK(fabs((double)ups / EACH - p) <= 5 * deviation, "%d: %a is rounded up %d times of %d, not with probability %g", (int)k, x[i],
            ups, EACH, p);
    }
    double *three = rounded(r, backend[1], true, 1, 5, false), *ref = rounded(r, mn_backend_ref(), true, 1, 5, false);
    double *step = rounded(r, backend[1], true, 1, 6, false), *seed = rounded(r, backend[1], true, 2, 5, false);
    double *still = rounded(r, backend[1], false, 1, 5, false), *nearest = rounded(r, backend[1], true, 1, 5, true);
    CHECK(differing(one, three, ROUNDED) == 0, "other bits with other threads");
    CHECK(differing(one, ref, ROUNDED) == 0, "other bits on another backend");
    CHECK(differing(one, step, ROUNDED) > ROUNDED / 10 && differing(one, seed, ROUNDED) > ROUNDED / 10, "the same at another step or seed");
    CHECK(differing(still, nearest, ROUNDED) == 0, "evaluation does not round to the nearest");
    double *const all[] = {one, three, ref, step, seed, still, nearest};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
  }
}

static void what_rounding_leaves_as_it_is(void) {
  const float x[] = {0, 0.5f, -3, INFINITY, -INFINITY, NAN, 0x1.fep127f, 0x1.fe4p127f, 0x1.ffcp127f, -0x1.fffffep127f};
  const double want[] = {0, 0.5, -3, INFINITY, -INFINITY, NAN, 0x1.fep127, 0x1.fep127, INFINITY, -INFINITY};
  enum { N = sizeof x / sizeof *x };
  for (int64_t step = 0; step < 20; step++) {
    mn_graph *g = mn_graph_new();
    mn_scope *s = scope_at(g, MN_F32, true, 1, step);
    double *y = value_of(g, backend[0], mn_round_stochastic(s, "round", mn_const(g, MN_F32, MN_SHAPE(N), x), MN_BF16));
    CHECK(y, "%s", mn_message());
    for (int i = 0; y && i < N; i++) CHECK(y[i] == want[i] || (isnan(y[i]) && isnan(want[i])), "%a becomes %a", x[i], y[i]);
    free(y);
    mn_graph_free(g);
  }
  mn_graph *g = mn_graph_new();
  mn_scope *s = scope_at(g, MN_F32, true, 1, 0);
  mn_tensor *t = mn_input(g, "x", MN_F32, MN_SHAPE(4)), *y = mn_round_stochastic(s, "round", t, MN_BF16), *dx = NULL;
  CHECK(mn_round_stochastic(s, "same", t, MN_F32) == t, "a type that is not narrower is no rounding");
  mn_tensor *total = mn_sum(g, mn_mul_scalar(g, mn_cast(g, y, MN_F32), 3), MN_ALL_AXES); /* what arrives passes */
  CHECK_OK(mn_grad(g, 1, &total, NULL, 1, &t, &dx));
  double *value = (double[]){0.1, 1.01, -5.3, 1e-5}, *d = NULL;
  CHECK(gc_run(g, backend[0], 0, MN_KEEP, 1, &t, &value, 1, &dx, &d), "%s", mn_message());
  for (int i = 0; d && i < 4; i++) CHECK(d[i] == 3, "gradient %g", d[i]);
  free(d);
  CHECK(!mn_round_stochastic(s, "round", t, MN_I32) && mn_graph_status(g) == MN_ERR_ARG && strstr(mn_message(), "round rounds"), "%s",
        mn_message());
  mn_graph_free(g);
}

/* ---- sampling ---- */
enum { SAMPLES = 20000, WORDS = 5 };
static const float logits_of[2][WORDS] = {{0, 1, -1, 2, -INFINITY}, {-INFINITY, 3, 3, -2, 0}};

static double *sampled(mn_backend *b, mn_dtype exact, bool training, uint64_t seed, int64_t step) {
  mn_graph *g = mn_graph_new();
  mn_scope *s = scope_at(g, exact, training, seed, step);
  mn_tensor *logits = mn_const(g, MN_F32, MN_SHAPE(2, 1, WORDS), logits_of);
  mn_tensor *y = mn_draw_categorical(s, "word", mn_expand(g, logits, MN_SHAPE(2, SAMPLES, WORDS)));
  CHECK(mn_type(y) == MN_I32 && mn_ndim(y) == 2 && mn_dim(y, 1) == SAMPLES, "one number for each row of logits");
  double *value = value_of(g, b, y);
  CHECK(value, "%s", mn_message());
  mn_graph_free(g);
  return value;
}

static void numbers_are_drawn_as_logits_say(void) {
  for (int wide = 0; wide < 2; wide++) {
    const mn_dtype exact = wide ? MN_F64 : MN_F32;
    double *one = sampled(backend[0], exact, false, 1, 5), *three = sampled(backend[1], exact, true, 1, 5);
    double *step = sampled(backend[1], exact, false, 1, 6), *seed = sampled(backend[1], exact, false, 2, 5);
    for (int row = 0; one && row < 2; row++) {
      double total = 0;
      for (int w = 0; w < WORDS; w++) total += exp(logits_of[row][w]);
      for (int w = 0; w < WORDS; w++) {
        const double p = exp(logits_of[row][w]) / total;
        int n = 0;
        for (int i = 0; i < SAMPLES; i++) n += one[row * SAMPLES + i] == w;
        CHECK(fabs((double)n / SAMPLES - p) <= 5 * sqrt(p * (1 - p) / SAMPLES), "row %d: %d comes %d times of %d, not with probability %g",
              row, w, n, SAMPLES, p);
      }
    }
    CHECK(differing(one, three, 2 * SAMPLES) == 0, "other numbers with other threads, or in training");
    CHECK(differing(one, step, 2 * SAMPLES) > SAMPLES / 2, "the same numbers at another step");
    CHECK(differing(one, seed, 2 * SAMPLES) > SAMPLES / 2, "the same numbers with another seed");
    free(one);
    free(three);
    free(step);
    free(seed);
  }
  mn_graph *g = mn_graph_new();
  mn_scope *s = scope_at(g, MN_F32, false, 1, 0);
  CHECK(mn_ndim(mn_draw_categorical(s, "word", mn_full(g, MN_F32, MN_SHAPE(3), 0))) == 0, "logits [N] give one number");
  CHECK(!mn_draw_categorical(s, "word", mn_scalar(g, MN_F32, 0)) && mn_graph_status(g) == MN_ERR_ARG && strstr(mn_message(), "word draws"),
        "%s", mn_message());
  mn_graph_free(g);
}

static mn_tensor *plus_step(mn_scope *s, void *ctx, mn_tensor *x) {
  mn_graph *g = mn_scope_graph(s);
  (void)ctx;
  return mn_add(g, x, mn_cast(g, mn_scope_step(s), mn_type(x)));
}

static void a_scope_knows_the_step(void) {
  mn_graph *g = mn_graph_new();
  CHECK(!mn_scope_step(mn_scope_new(g, (mn_build){.param = MN_F32, .compute = MN_F32}, 1)), "a step that nobody gave");
  mn_scope *s = scope_at(g, MN_F64, true, 1, 7);
  double *y = value_of(g, backend[0], mn_scope_loop(s, 2, plus_step, NULL, mn_full(g, MN_F64, MN_SHAPE(1, 5, 1), 100)));
  for (int i = 0; i < 5; i++) CHECK(y && y[i] == 107, "%s", mn_message()); /* in a loop's body, too */
  free(y);
  mn_graph_free(g);
}

/* ---- blocks ---- */
typedef struct form {
  const char *name, *yaml; /* with %s for the block's keys */
  int parts;               /* what the block adds */
  bool source;
} form;
#define DECODER(more) "{vocab_size: 9, d_model: 8, block: {mixer: {type: attention, heads: 2}, hidden: 8" more "%s}, layers: 1}"
static const form forms[] = {
    {"pre", DECODER(""), 2, false},
    {"post", DECODER(", norm_position: post"), 2, false},
    {"sandwich", DECODER(", norm_position: sandwich"), 2, false},
    {"parallel", DECODER(", parallel: true"), 2, false},
    {"mixer alone", "{vocab_size: 9, d_model: 8, layers: 1, block: {mixer: {type: attention, heads: 2}, channel: none%s}}", 1, false},
    {"cross",
     "{type: encoder_decoder, vocab_size: 9, d_model: 8, layers: 1, block: {mixer: {type: attention, heads: 2}, hidden: 8%s}, "
     "encoder: {layers: 1, block: {mixer: {type: attention, heads: 2, causal: false}}}}",
     3, true},
};
enum { FORMS = sizeof forms / sizeof *forms, ROWS = 64, TOKENS = 4, WIDTH = 8, LEAVES = 64 };

typedef struct built { /* a model in training or not, with all that it reads */
  mn_graph *g;
  int n, n_params; /* parameters first */
  mn_tensor *leaf[LEAVES], *hidden;
  double *value[LEAVES];
} built;

/* All rows hold the same tokens. */
static bool build(mk_model *m, const form *f, int rows, mn_build how, int64_t step, built *b) {
  const mn_param_info *info;
  mn_tensor *const *params;
  mn_model_io in = {0}, out = {0};
  *b = (built){.g = mn_graph_new()};
  how.param = how.compute = MN_F64;
  how.step = mn_scalar(b->g, MN_I64, (double)step);
  mn_scope *s = mn_scope_new(b->g, how, rows);
  double tokens[ROWS * TOKENS];
  for (int i = 0; i < rows * TOKENS; i++) tokens[i] = 1 + i % TOKENS * 2;
  void *packed = mc_pack(tokens, MN_I32, rows * TOKENS);
  mn_io_put(&in, "tokens", mn_const(b->g, MN_I32, MN_SHAPE(rows, TOKENS), packed));
  if (f->source) mn_io_put(&in, "source", mn_const(b->g, MN_I32, MN_SHAPE(rows, TOKENS), packed));
  free(packed);
  mn_model_build(s, m->model, &in, &out);
  b->n = b->n_params = mn_scope_params(s, &info, &params);
  for (int i = 0; i < b->n; i++) {
    mc_tensor *p = mc_get(&m->params, info[i].name);
    CHECK(p, "%s has no value", info[i].name);
    if (!p) return false;
    b->leaf[i] = params[i], b->value[i] = p->x;
  }
  b->hidden = mn_io_get(&out, "hidden");
  CHECK(mn_graph_status(b->g) == MN_OK && b->hidden, "%s: %s", f->name, mn_message());
  return mn_graph_status(b->g) == MN_OK && b->hidden;
}

static double *run(const built *b, mn_backend *on, mn_tensor *y) {
  double *out = NULL;
  return gc_run(b->g, on, 0, MN_KEEP, b->n, (mn_tensor **)b->leaf, (double **)b->value, 1, &y, &out) ? out : NULL;
}

static double *hidden_of(mk_model *m, const form *f, mn_backend *on, mn_build how, int64_t step) {
  built b;
  double *y = build(m, f, ROWS, how, step, &b) ? run(&b, on, b.hidden) : NULL;
  CHECK(y, "%s: %s", f->name, mn_message());
  if (!how.training) CHECK(!draws(b.g), "%s: evaluation draws", f->name);
  mn_graph_free(b.g);
  return y;
}

static bool open_form(mk_model *m, const form *f, const char *keys) {
  char yaml[600];
  snprintf(yaml, sizeof yaml, f->yaml, keys);
  return mk_open(m, yaml, 4);
}

/* How many different rows there are. */
static int kinds_of_rows(const double *y) {
  int kinds = 0;
  for (int i = 0; i < ROWS; i++) {
    bool seen = false;
    for (int k = 0; k < i && !seen; k++)
      seen = gc_difference((double *)y + i * TOKENS * WIDTH, (double *)y + k * TOKENS * WIDTH, TOKENS * WIDTH) < 1e-9;
    kinds += !seen;
  }
  return kinds;
}

/* Each part is left out of some rows, and of others than the next part is: 2^parts kinds of rows. Elements are dropped in each. */
static void blocks_drop_in_training_alone(void) {
  static const mn_build training = {.training = true, .seed = 3}, evaluation = {.seed = 3}, other = {.training = true, .seed = 4};
  static const char *const keys[] = {"", ", drop_path: 0.5", ", dropout: 0.3", ", dropout: 0.3, drop_path: 0.5"};
  for (int k = 0; k < FORMS; k++) {
    double *plain = NULL;
    const form *f = &forms[k];
    for (int i = 0; i < 4; i++) {
      mk_model m;
      if (!open_form(&m, f, keys[i])) continue;
      double *still = hidden_of(&m, f, backend[1], evaluation, 5);
      if (i == 0) plain = still;
      CHECK(differing(still, plain, ROWS * TOKENS * WIDTH) == 0, "%s%s changes evaluation", f->name, keys[i]);
      double *one = hidden_of(&m, f, backend[0], training, 5), *three = hidden_of(&m, f, backend[1], training, 5);
      double *step = hidden_of(&m, f, backend[0], training, 6), *seed = hidden_of(&m, f, backend[0], other, 5);
      const int kinds = one ? kinds_of_rows(one) : 0, want = i == 0 ? 1 : i == 1 ? 1 << f->parts : ROWS;
      CHECK(i < 3 ? kinds == want : kinds > ROWS / 4, "%s%s: %d kinds of rows, not %d", f->name, keys[i], kinds, want);
      CHECK(differing(one, three, ROWS * TOKENS * WIDTH) == 0, "%s%s: other bits with other threads", f->name, keys[i]);
      CHECK((differing(one, step, ROWS * TOKENS * WIDTH) > 0) == (i > 0), "%s%s: another step", f->name, keys[i]);
      CHECK((differing(one, seed, ROWS * TOKENS * WIDTH) > 0) == (i > 0), "%s%s: another seed", f->name, keys[i]);
      free(one);
      free(three);
      free(step);
      free(seed);
      if (i) free(still);
      mk_close(&m);
    }
    free(plain);
  }
}

/* With the draws of one seed and step, along a random direction of all parameters at once. */
static void gradients_of(const form *f) {
  static const mn_build training = {.training = true, .seed = 3};
  mk_model m;
  built b;
  if (!open_form(&m, f, ", dropout: 0.3, locked_dropout: 0.2, drop_path: 0.4")) return;
  if (build(&m, f, 5, training, 5, &b)) {
    mn_tensor *objective = gc_objective(b.g, 1, &b.hidden), *slope = mn_scalar(b.g, MN_F64, 0), *d[LEAVES];
    CHECK_OK(mn_grad(b.g, 1, &objective, NULL, b.n_params, b.leaf, d));
    double *direction[LEAVES], difference = 0;
    for (int i = 0; i < b.n_params; i++) {
      const int64_t n = mn_shape_count(&b.leaf[i]->shape);
      direction[i] = mc_normal(n, 1, 50 + (uint64_t)i);
      if (!d[i]) continue; /* does not reach the objective */
      mn_tensor *t = mn_mul(b.g, d[i], mn_const(b.g, MN_F64, b.leaf[i]->shape, direction[i]));
      slope = mn_add(b.g, slope, mn_reshape(b.g, mn_sum(b.g, t, MN_ALL_AXES), (mn_shape){0}));
    }
    const double h = 1e-6;
    double *g = run(&b, backend[0], slope);
    for (int side = -1; side <= 1; side += 2) {
      for (int i = 0; i < b.n_params; i++)
        for (int64_t e = 0; e < mn_shape_count(&b.leaf[i]->shape); e++) b.value[i][e] += (side < 0 ? -1 : 2) * h * direction[i][e];
      double *at = run(&b, backend[0], objective);
      difference += at ? side * at[0] / (2 * h) : NAN;
      free(at);
    }
    CHECK(g && fabs(g[0] - difference) < 1e-6 * (1 + fabs(difference)), "%s: %g, by differences %g", f->name, g ? g[0] : NAN, difference);
    CHECK(fabs(difference) > 1e-2, "%s: the direction says nothing", f->name);
    for (int i = 0; i < b.n_params; i++) free(direction[i]);
    free(g);
  }
  mn_graph_free(b.g);
  mk_close(&m);
}

/* ---- weights ---- the same of them at all tokens, which a loop reads one after the other */
#define CELLS "{vocab_size: 9, d_model: 8, layers: 1, block: {mixer: {type: lstm}, channel: none%s}"
static const form plain_cells = {"cells", CELLS "}", 1, false};
static const form dropped_cells = {"cells with fewer weights", CELLS ", linear: [{match: '*.h_proj', type: weight_drop, p: 0.4}]}", 1,
                                   false};

static void dropped_weights_are_the_same_for_all_tokens(void) {
  static const mn_build training = {.training = true, .seed = 3}, evaluation = {.seed = 3};
  static const char weights[] = "layers.0.mixer.h_proj.weight", place[] = "layers.0.mixer.h_proj";
  mk_model dropped, plain;
  if (!open_form(&dropped, &dropped_cells, "") || !open_form(&plain, &plain_cells, "")) return;
  double *want[3],
      *at[3] = {hidden_of(&dropped, &dropped_cells, backend[0], evaluation, 5),
                hidden_of(&dropped, &dropped_cells, backend[0], training, 5), hidden_of(&dropped, &dropped_cells, backend[1], training, 6)};
  mc_tensor *w = mc_get(&plain.params, weights);
  for (int i = 0; w && i < 3; i++) {
    double was[4 * WIDTH * WIDTH];
    int left = 0;
    memcpy(was, w->x, sizeof was);
    for (uint64_t k = 0; i && k < 4 * WIDTH * WIDTH; k++) {
      const bool stays = mn_random_uniform(mn_random_key(3, place), (uint64_t)(i == 1 ? 5 : 6), k) >= 0.4;
      w->x[k] = stays ? was[k] / 0.6 : 0;
      left += stays;
    }
    CHECK(!i || (left > 100 && left < 200), "%d of 256 weights stay with probability 0.6", left);
    want[i] = hidden_of(&plain, &plain_cells, backend[0], evaluation, 0);
    CHECK(at[i] && want[i] && gc_difference(at[i], want[i], ROWS * TOKENS * WIDTH) < 1e-12, "%s",
          i ? "not the cells with these weights alone" : "weights are left out in evaluation");
    memcpy(w->x, was, sizeof was);
  }
  CHECK(w != NULL, "no %s", weights);
  CHECK(differing(want[0], want[1], ROWS * TOKENS * WIDTH) && differing(want[1], want[2], ROWS * TOKENS * WIDTH), "they say nothing");
  for (int i = 0; i < 3; i++) free(at[i]), free(want[i]);
  mk_close(&dropped);
  mk_close(&plain);
}

/* Two calls with one set of parameters lose the same weights, and each row of theirs elements of its own. */
static void calls_that_share_weights_drop_the_same_ones(void) {
  enum { N = 200 };
  mn_graph *g = mn_graph_new();
  mn_scope *s = scope_at(g, MN_F64, true, 3, 5), *call[3];
  double *weights[3], *rows[3];
  for (int i = 0; i < 3; i++) { /* the third has parameters of its own */
    call[i] = mn_scope_call(s,
                            i == 0   ? "one"
                            : i == 1 ? "two"
                                     : "three",
                            (mn_call_options){.params = i < 2 ? "shared" : NULL, .fresh = true});
    weights[i] = value_of(g, backend[0], mn_drop_weights(call[i], "w", mn_full(g, MN_F64, MN_SHAPE(N), 1), 0.5));
    rows[i] = value_of(g, backend[0], mn_dropout_locked(call[i], "x", mn_full(g, MN_F64, MN_SHAPE(1, 1, N), 1), 0.5));
  }
  CHECK(differing(weights[0], weights[1], N) == 0, "other weights are left out in another call");
  CHECK(differing(weights[0], weights[2], N) > N / 4, "another parameter loses the same");
  CHECK(differing(rows[0], rows[1], N) > N / 4, "another call's rows lose the same");
  for (int i = 0; i < 3; i++) free(weights[i]), free(rows[i]);
  mn_graph_free(g);
}

/* What a block adds to a row loses the same elements at all of its tokens; other rows lose others. The scale of what stays shows them. */
static void a_locked_row_loses_the_same_elements_at_all_tokens(void) {
  enum { N = 4, T = 6, D = 40 };
  mn_graph *g = mn_graph_new();
  double x[N * T * D];
  for (int i = 0; i < N * T * D; i++) x[i] = 1 + i;
  mn_tensor *in = mn_const(g, MN_F64, MN_SHAPE(N, T, D), x);
  double *y = value_of(g, backend[0], mn_dropout_locked(scope_at(g, MN_F64, true, 3, 5), "locked", in, 0.5));
  int lost = 0, others = 0;
  for (int i = 0; y && i < N * T * D; i++) {
    const int row = i / (T * D), d = i % D;
    const bool gone = y[row * T * D + d] == 0;
    CHECK(y[i] == (gone ? 0 : 2 * x[i]), "row %d, element %d: %g of %g", row, d, y[i], x[i]);
    lost += gone;
    others += gone != (y[d] == 0);
  }
  CHECK(y && lost > N * T * D / 4 && lost < N * T * D * 3 / 4 && others > 0, "%d of %d are lost, %d otherwise than in the first row", lost,
        N * T * D, others);
  free(y);
  y = value_of(g, backend[0], mn_dropout_locked(scope_at(g, MN_F64, false, 3, 5), "locked", in, 0.5));
  CHECK(y && !memcmp(x, y, sizeof x), "something is lost in evaluation");
  free(y);
  mn_graph_free(g);
}

static void gradients_of_what_is_left(void) {
  for (int k = 0; k < FORMS; k++) gradients_of(&forms[k]);
  gradients_of(&dropped_cells);
}

/* Written back where they are set, and only there: what was kept in a file before stays as it is. */
static void keys_of_blocks_come_back(void) {
  for (int set = 0; set < 2; set++) {
    mk_model m;
    mn_text json = {0};
    if (!open_form(&m, &forms[0], set ? ", dropout: 0.25, locked_dropout: 0.375, drop_path: 0.125" : ", dropout: 0")) continue;
    CHECK_OK(mn_value_to_json(mn_model_to_value(m.arena, m.model), 0, &json));
    CHECK(json.data && !strstr(json.data, "drop") == !set, "%s", json.data);
    if (set && json.data) CHECK(strstr(json.data, "0.25") && strstr(json.data, "0.375") && strstr(json.data, "0.125"), "%s", json.data);
    mn_text_free(&json);
    mk_close(&m);
  }
  mk_refused("vocab_size: 9\nblock: {mixer: {type: attention}, dropout: 1}\n", "recipe.yaml:2|dropout");
  mk_refused("vocab_size: 9\nblock: {mixer: {type: attention}, drop_path: -0.1}\n", "recipe.yaml:2|drop_path");
  mk_refused("vocab_size: 9\nblock: {mixer: {type: attention}, locked_dropout: 1}\n", "recipe.yaml:2|locked_dropout");
}

int main(void) {
  if (mn_backend_cpu_new(1, &backend[0]) != MN_OK || mn_backend_cpu_new(3, &backend[1]) != MN_OK) return 1;
  RUN(rounding_is_right_on_average);
  RUN(what_rounding_leaves_as_it_is);
  RUN(numbers_are_drawn_as_logits_say);
  RUN(a_scope_knows_the_step);
  RUN(blocks_drop_in_training_alone);
  RUN(dropped_weights_are_the_same_for_all_tokens);
  RUN(calls_that_share_weights_drop_the_same_ones);
  RUN(a_locked_row_loses_the_same_elements_at_all_tokens);
  RUN(gradients_of_what_is_left);
  RUN(keys_of_blocks_come_back);
  mn_backend_free(backend[0]);
  mn_backend_free(backend[1]);
  return test_end();
}
