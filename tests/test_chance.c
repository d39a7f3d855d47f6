/* test_chance.c - what is drawn while a model runs: rounding is right on average, numbers are drawn as their logits say;
 * all of it a function of seed, place and step, the same for any number of threads. */
#include "gradcheck.h"
#include "mixer_check.h"

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

int main(void) {
  if (mn_backend_cpu_new(1, &backend[0]) != MN_OK || mn_backend_cpu_new(3, &backend[1]) != MN_OK) return 1;
  RUN(rounding_is_right_on_average);
  RUN(what_rounding_leaves_as_it_is);
  RUN(numbers_are_drawn_as_logits_say);
  RUN(a_scope_knows_the_step);
  mn_backend_free(backend[0]);
  mn_backend_free(backend[1]);
  return test_end();
}
