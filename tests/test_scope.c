/* test_scope.c - what a scope promises to whoever builds a model in it: loops carry and bring out everything, chance is a
 * function of where it is drawn, buffers are assigned in training. */
#include "gradcheck.h"
#include "nn/layers.h"

static mn_backend *backend[2]; /* one and three threads */

static mn_scope *scope_in(mn_graph *g, int64_t batch) { return mn_scope_new(g, (mn_build){.param = MN_F64, .compute = MN_F64}, batch); }

/* One output of a graph without inputs, as doubles (caller's to free); NULL: it does not run. */
static double *value_of(mn_graph *g, mn_backend *b, mn_tensor *y) {
  double *out = NULL;
  if (mn_graph_status(g) != MN_OK || !gc_run(g, b, 0, MN_KEEP, 0, NULL, NULL, 1, &y, &out)) return NULL;
  return out;
}

/* ---- loops: n in, n out ---- */
enum { B = 2, T = 7, D = 3 };

/* A running product and two results of two tensors; what it reports and loses. */
static void two(mn_scope *s, void *ctx, mn_tensor *const *in, mn_tensor **out) {
  mn_graph *g = mn_scope_graph(s);
  int64_t n = mn_dim(in[0], 1);
  (void)ctx;
  mn_tensor *h = mn_state(s, "h", MN_F64, MN_SHAPE(B, D), NULL, "");
  mn_tensor *rows[T];
  for (int64_t t = 0; t < n; t++) { /* a piece is short here */
    mn_tensor *x = mn_squeeze(g, mn_slice(g, in[0], 1, t, 1), 1), *a = mn_squeeze(g, mn_slice(g, in[1], 1, t, 1), 1);
    h = mn_add(g, mn_mul(g, h, mn_sigmoid(g, a)), mn_tanh(g, x));
    rows[t] = mn_unsqueeze(g, h, 1);
  }
  mn_state_set(s, "h", h);
  out[0] = mn_concat(g, (int)n, rows, 1);
  out[1] = mn_mul(g, out[0], in[1]);
  mn_report(s, "rows", out[0]);
  mn_loss(s, "size", mn_reshape(g, mn_sum(g, mn_square(g, out[1]), ~0u), (mn_shape){0}), 0.5);
}

static int64_t two_length, two_stop;
static void two_looped(mn_graph *g, mn_tensor **x, mn_tensor **y) {
  mn_scope *s = scope_in(g, B);
  const char *const *names;
  mn_tensor *const *values;
  if (two_length) mn_scope_loop_n(s, (mn_loop){two_length, two_stop}, two, NULL, 2, x, 2, y);
  else two(s, NULL, x, y);
  y[2] = mn_scope_total_loss(s);
  y[3] = mn_scope_reports(s, &names, &values) == 1 ? values[0] : NULL;
}

static void loops_bring_out_results_reports_and_losses(void) {
  gc_case c = {"two", 2, 4, {{MN_F64, MN_SHAPE(B, T, D), -1, 1, false}, {MN_F64, MN_SHAPE(B, T, D), -1, 1, false}}, two_looped};
  double *whole[4], *looped[4], *value[2];
  for (int k = 0; k < 2; k++) value[k] = malloc(B * T * D * sizeof(double)), gc_fill(value[k], &c.x[k], 1, k);
  for (int64_t length = 0; length <= T; length++) {
    two_length = length;
    mn_graph *g = mn_graph_new();
    mn_tensor *x[2], *y[4];
    for (int k = 0; k < 2; k++) x[k] = mn_input(g, "x", MN_F64, c.x[k].shape);
    two_looped(g, x, y);
    CHECK_OK(mn_graph_status(g));
    CHECK(y[3] && mn_shape_equal(&y[3]->shape, &y[0]->shape), "the report is not one of %d tokens", T);
    double **out = length ? looped : whole;
    if (mn_graph_status(g) == MN_OK && y[3] && gc_run(g, backend[1], 0, MN_KEEP, 2, x, value, 4, y, out) && length)
      for (int k = 0; k < 4; k++) {
        double e = gc_difference(looped[k], whole[k], k == 2 ? 1 : B * T * D);
        CHECK(e < 1e-13, "pieces of %d, result %d: %g", (int)length, k, e);
        free(looped[k]);
      }
    mn_graph_free(g);
    double e = gc_gradient_error(&c, 1, 5);
    CHECK(e < 1e-8, "pieces of %d: gradients %g", (int)length, e);
  }
  for (int k = 0; k < 4; k++) free(whole[k]);
  for (int k = 0; k < 2; k++) free(value[k]);
}

/* Gradients that stop at every `stop`-th piece are those of segments that begin from constants. */
static void gradients_stop_where_asked(void) {
  gc_input in = {MN_F64, MN_SHAPE(B, T, D), -1, 1, false};
  double *value[2], *dx[2][2];
  for (int k = 0; k < 2; k++) value[k] = malloc(B * T * D * sizeof(double)), gc_fill(value[k], &in, 3, k);
  for (int64_t stop = 1; stop <= 3; stop++)
    for (int form = 0; form < 2; form++) {
      mn_graph *g = mn_graph_new();
      mn_scope *s = scope_in(g, B);
      mn_tensor *x[2], *y[2], *part[2], *cut[2], *d[2], *joined = NULL;
      for (int k = 0; k < 2; k++) x[k] = mn_input(g, "x", MN_F64, in.shape);
      if (form == 0) {
        mn_scope_loop_n(s, (mn_loop){2, stop}, two, NULL, 2, x, 2, y);
        joined = y[0];
      } else { /* the same by hand */
        for (int64_t at = 0; at < T; at += 2 * stop) {
          int64_t n = T - at < 2 * stop ? T - at : 2 * stop;
          for (int k = 0; k < 2; k++) cut[k] = mn_slice(g, x[k], 1, at, n);
          if (at) mn_state_set(s, "h", mn_stop_gradient(g, mn_state(s, "h", MN_F64, MN_SHAPE(B, D), NULL, "")));
          two(s, NULL, cut, part);
          joined = joined ? mn_concat(g, 2, (mn_tensor *[]){joined, part[0]}, 1) : part[0];
        }
      }
      CHECK_OK(mn_graph_status(g));
      mn_tensor *objective = gc_objective(g, 1, &joined);
      CHECK_OK(mn_grad(g, 1, &objective, NULL, 2, x, d));
      CHECK(gc_run(g, backend[0], 0, MN_KEEP, 2, x, value, 2, d, dx[form]), "gradients");
      mn_graph_free(g);
      for (int k = 0; k < 2 && form; k++) {
        double e = gc_difference(dx[0][k], dx[1][k], B * T * D);
        CHECK(e < 1e-13, "stop every %d, input %d: %g", (int)stop, k, e);
        free(dx[0][k]);
        free(dx[1][k]);
      }
    }
  for (int k = 0; k < 2; k++) free(value[k]);
}

/* Loops in loops: the position that a piece of a piece sees is the token's own. */
static mn_tensor *positions(mn_scope *s, void *ctx, mn_tensor *x) {
  mn_graph *g = mn_scope_graph(s);
  (void)ctx;
  mn_tensor *start = mn_scope_position(s);
  if (!start) start = mn_full(g, MN_I32, MN_SHAPE(B), 0);
  mn_tensor *at = mn_add(g, mn_reshape(g, start, MN_SHAPE(B, 1)), mn_iota(g, MN_I32, MN_SHAPE(1, mn_dim(x, 1)), 1));
  mn_report(s, "position", at);
  return mn_unsqueeze(g, mn_cast(g, at, MN_F64), 2);
}
static mn_tensor *by_two(mn_scope *s, void *ctx, mn_tensor *x) { return mn_scope_loop(s, 2, positions, ctx, x); }
static void stops(mn_scope *s, void *ctx, mn_tensor *const *in, mn_tensor **out) { out[0] = by_two(s, ctx, in[0]); }

static void nested_loops_keep_the_position(void) {
  for (int64_t stop = 0; stop < 3; stop++) {
    mn_graph *g = mn_graph_new();
    mn_scope *s = scope_in(g, B);
    mn_tensor *x = mn_full(g, MN_F64, MN_SHAPE(B, 17, 1), 0), *y;
    mn_scope_loop_n(s, (mn_loop){5, stop}, stops, NULL, 1, &x, 1, &y);
    const char *const *names;
    mn_tensor *const *values;
    CHECK(mn_scope_reports(s, &names, &values) == 1, "one report");
    double *p = value_of(g, backend[0], y), *q = value_of(g, backend[0], values[0]);
    CHECK(p && q, "%s", mn_message());
    for (int i = 0; p && q && i < B * 17; i++) CHECK(p[i] == i % 17 && q[i] == i % 17, "token %d is at %g, %g", i, p[i], q[i]);
    free(p);
    free(q);
    mn_graph_free(g);
  }
}

/* What a loop reports costs nothing where nobody reads it. */
static mn_tensor *talks(mn_scope *s, void *ctx, mn_tensor *x) {
  mn_graph *g = mn_scope_graph(s);
  if (ctx) mn_report(s, "sum", mn_exp(g, mn_matmul(g, x, mn_transpose(g, x, 1, 2))));
  return mn_neg(g, x);
}

static void unread_reports_cost_nothing(void) {
  int steps[3];
  for (int form = 0; form < 3; form++) { /* silent, unread, read */
    mn_graph *g = mn_graph_new();
    mn_scope *s = scope_in(g, B);
    mn_tensor *out[2] = {mn_scope_loop(s, 2, talks, form ? s : NULL, mn_input(g, "x", MN_F64, MN_SHAPE(B, 6, D)))};
    const char *const *names;
    mn_tensor *const *values;
    CHECK(mn_scope_reports(s, &names, &values) == (form > 0), "%d reports", form > 0);
    if (form == 2) out[1] = values[0];
    if (form) CHECK(values[0]->shape.ndim == 3 && values[0]->shape.dim[1] == 6, "[B,2,2] of each piece is by token here");
    mn_plan *p = NULL;
    mn_plan_request q = {.graph = g, .n_outputs = 1 + (form == 2), .outputs = out, .backend = backend[0]};
    CHECK_OK(mn_plan_compile(&q, &p));
    steps[form] = p ? mn_plan_get_report(p)->steps : -1;
    mn_plan_free(p);
    mn_graph_free(g);
  }
  CHECK(steps[0] == steps[1] && steps[1] < steps[2], "%d steps without a report, %d unread, %d read", steps[0], steps[1], steps[2]);
}

/* ---- a condition over time ---- sums of each two tokens, added to a state at every second pair alone */
static void adds(mn_scope *s, void *ctx, mn_tensor *const *in, mn_tensor **out) {
  mn_graph *g = mn_scope_graph(s);
  (void)ctx;
  mn_tensor *h = mn_state(mn_scope_in(s, "sum"), "h", MN_F64, MN_SHAPE(B, D), NULL, "");
  h = mn_add(g, mn_mul_scalar(g, h, 0.5), mn_reshape(g, mn_sum(g, mn_mul(g, in[0], in[0]), 2u), MN_SHAPE(B, D)));
  mn_state_set(mn_scope_in(s, "sum"), "h", h);
  out[0] = mn_add(g, in[0], mn_unsqueeze(g, h, 1));
  mn_report(s, "sum", h);
  mn_loss(s, "size", mn_reshape(g, mn_sum(g, h, ~0u), (mn_shape){0}), 1);
}

static int when_form; /* 0: where it is time, 1: always computed and chosen, 2: never */
static mn_tensor *sometimes(mn_scope *s, void *ctx, mn_tensor *x) {
  mn_graph *g = mn_scope_graph(s);
  (void)ctx;
  mn_tensor *position = mn_scope_position(s), *y, *none = mn_neg(g, x);
  if (!position) position = mn_full(g, MN_I32, MN_SHAPE(B), 0);
  mn_tensor *first = mn_slice(g, position, 0, 0, 1);
  mn_tensor *flag = mn_reshape(g, mn_eq(g, mn_mod(g, first, mn_scalar(g, MN_I32, 4)), mn_scalar(g, MN_I32, 2)), (mn_shape){0});
  if (when_form == 2) flag = mn_full(g, MN_BOOL, (mn_shape){0}, 0);
  if (when_form != 1) {
    mn_scope_when(s, flag, adds, NULL, 1, &x, 1, &none, &y);
    return y;
  }
  mn_scope *sum = mn_scope_in(s, "sum");
  mn_tensor *h = mn_state(sum, "h", MN_F64, MN_SHAPE(B, D), NULL, ""), *h1;
  h1 = mn_add(g, mn_mul_scalar(g, h, 0.5), mn_reshape(g, mn_sum(g, mn_mul(g, x, x), 2u), MN_SHAPE(B, D)));
  mn_state_set(sum, "h", mn_select(g, flag, h1, h));
  mn_report(s, "sum", mn_select(g, flag, h1, mn_zeros_like(g, h1)));
  mn_loss(s, "size", mn_select(g, flag, mn_reshape(g, mn_sum(g, h1, ~0u), (mn_shape){0}), mn_scalar(g, MN_F64, 0)), 1);
  return mn_select(g, flag, mn_add(g, x, mn_unsqueeze(g, h1, 1)), none);
}
static void when(mn_graph *g, mn_tensor **x, mn_tensor **y) {
  mn_scope *s = scope_in(g, B);
  const char *const *names;
  mn_tensor *const *values;
  y[0] = mn_scope_loop(s, 2, sometimes, NULL, x[0]);
  y[1] = mn_scope_total_loss(s);
  y[2] = mn_scope_reports(s, &names, &values) == 1 ? values[0] : NULL;
}

static void what_is_done_only_at_times(void) {
  gc_case c = {"when", 1, 3, {{MN_F64, MN_SHAPE(B, 10, D), -1, 1, false}}, when};
  enum { N = B * 10 * D };
  double *out[3][3] = {{NULL}}, *value = malloc(N * sizeof *value);
  gc_fill(value, &c.x[0], 4, 0);
  for (when_form = 0; when_form < 3; when_form++) {
    mn_graph *g = mn_graph_new();
    mn_tensor *x = mn_input(g, "x", MN_F64, c.x[0].shape), *y[3];
    when(g, &x, y);
    CHECK_OK(mn_graph_status(g));
    CHECK(y[2] && gc_run(g, backend[0], 0, MN_KEEP, 1, &x, &value, 3, y, out[when_form]), "%s", mn_message());
    mn_graph_free(g);
    double e = gc_gradient_error(&c, 1, 5);
    CHECK(e < 1e-8, "form %d: gradient %g", when_form, e);
  }
  for (int k = 0; k < 3 && out[0][k] && out[1][k]; k++) {
    double e = gc_difference(out[0][k], out[1][k], k == 0 ? N : k == 1 ? 1 : 5 * B * D);
    CHECK(e < 1e-14, "result %d: a condition differs from a choice by %g", k, e);
  }
  for (int i = 0; i < N && out[2][0]; i++) CHECK(out[2][0][i] == -value[i], "never: %g of %g", out[2][0][i], value[i]);
  CHECK(out[2][1] && out[2][1][0] == 0, "never, but lost");
  for (int k = 0; k < 9; k++) free(out[k / 3][k % 3]);
  free(value);
}

/* ---- rows of different lengths ---- */
static mn_tensor *counted(mn_scope *s, void *ctx, mn_tensor *x) { /* how many tokens that count came before, per token */
  (void)ctx;
  mn_tensor *tail = mn_state(s, "tail", MN_F64, MN_SHAPE(B, 2, 1), NULL, "the last two tokens");
  mn_state_set(s, "tail", mn_scope_last(s, tail, x));
  return mn_scope_masked(s, positions(s, ctx, x), -1);
}

static void one_counted(mn_scope *s, void *ctx, mn_tensor *const *in, mn_tensor **out) { out[0] = counted(s, ctx, in[0]); }

static void lengths_reach_every_piece(void) {
  const int32_t lengths[B] = {5, 12};
  for (int64_t form = 0; form < 4; form++) {
    mn_graph *g = mn_graph_new();
    mn_tensor *length = mn_const(g, MN_I32, MN_SHAPE(B), lengths), *y, *last;
    mn_scope *s = mn_scope_new(g, (mn_build){.param = MN_F64, .compute = MN_F64, .carried = true, .length = length}, B);
    mn_tensor *x = mn_iota(g, MN_F64, MN_SHAPE(B, 13, 1), 1);
    const mn_built_state *states;
    if (form < 2) y = mn_scope_loop(s, form ? 4 : 13, counted, NULL, x);
    else mn_scope_loop_n(s, (mn_loop){2, form}, one_counted, NULL, 1, &x, 1, &y);
    mn_scope_advance(s, 13);
    CHECK(mn_scope_states(s, &states) == 2, "position and tail");
    last = mn_cast(g, mn_reshape(g, states[0].value, MN_SHAPE(B, 1, 1)), MN_F64);
    mn_tensor *outs = mn_concat(g, 3, (mn_tensor *[]){y, last, states[1].value}, 1), *leaf[2] = {states[0].leaf, states[1].leaf};
    double *out = NULL, zeros[4] = {0}, *given[2] = {zeros, zeros};
    CHECK(mn_graph_status(g) == MN_OK && gc_run(g, backend[0], 0, MN_KEEP, 2, leaf, given, 1, &outs, &out), "%s", mn_message());
    for (int row = 0; out && row < B; row++) {
      const double *p = out + row * 16;
      for (int t = 0; t < 13; t++) CHECK(p[t] == (t < lengths[row] ? t : -1), "form %d, row %d, token %d: %g", (int)form, row, t, p[t]);
      CHECK(p[13] == lengths[row] && p[14] == lengths[row] - 2 && p[15] == lengths[row] - 1, "form %d, row %d: position %g, tail %g %g",
            (int)form, row, p[13], p[14], p[15]);
    }
    free(out);
    mn_graph_free(g);
  }
}

/* ---- chance ---- */
static mn_tensor *noise(mn_scope *s, void *ctx, mn_tensor *x) {
  mn_graph *g = mn_scope_graph(s);
  (void)ctx;
  return mn_add(g, x, mn_cast(g, mn_draw_normal(s, "noise", x->shape), x->dtype));
}
static mn_tensor *noise_by_two(mn_scope *s, void *ctx, mn_tensor *x) { return mn_scope_loop(s, 2, noise, ctx, x); }

typedef struct place {
  uint64_t seed;
  double step;
  const char *path;
} place;
enum { LONG = 1000, DRAWN = 3 * LONG };

static double *drawn_at(place p, mn_backend *b, int nested) {
  mn_graph *g = mn_graph_new();
  mn_build build = {.param = MN_F32, .compute = MN_F32, .training = true, .seed = p.seed, .step = mn_scalar(g, MN_I64, p.step)};
  mn_scope *s = mn_scope_new(g, build, 1);
  mn_tensor *x = mn_full(g, MN_F32, MN_SHAPE(1, LONG, 3), 0);
  s = mn_scope_in(s, "%s", p.path);
  double *y = value_of(
      g, b, nested == 0 ? noise(s, NULL, x) : mn_scope_loop(s, nested == 1 ? LONG / 3 : 7, nested == 1 ? noise : noise_by_two, NULL, x));
  CHECK(y != NULL, "%s", mn_message());
  mn_graph_free(g);
  return y;
}

static int equal_numbers(const double *a, const double *b, int n) {
  int same = 0;
  for (int i = 0; i < n; i++) same += a[i] == b[i];
  return same;
}

static void chance_is_where_it_is_drawn(void) {
  for (int nested = 0; nested < 3; nested++) {
    place here = {1, 5, "a"}, others[] = {{2, 5, "a"}, {1, 6, "a"}, {1, 5, "b"}};
    double *one = drawn_at(here, backend[0], nested), *three = drawn_at(here, backend[1], nested),
           *ref = drawn_at(here, mn_backend_ref(), nested);
    CHECK(equal_numbers(one, three, DRAWN) == DRAWN, "other numbers with other threads");
    CHECK(equal_numbers(one, ref, DRAWN) == DRAWN, "other numbers on another backend");
    for (int i = 0; i < 3; i++) {
      double *other = drawn_at(others[i], backend[0], nested);
      CHECK(equal_numbers(one, other, DRAWN) < DRAWN / 100, "the same numbers elsewhere (%d)", i);
      free(other);
    }
    double mean = 0, square = 0;
    for (int i = 0; i < DRAWN; i++) mean += one[i] / DRAWN, square += one[i] * one[i] / DRAWN;
    CHECK(fabs(mean) < 0.1 && fabs(square - 1) < 0.15, "mean %g, mean square %g", mean, square); /* five deviations and more */
    const int piece = (nested == 1 ? LONG / 3 : 2) * 3; /* numbers of one: each piece has its own */
    for (int i = 1; nested && i < DRAWN / piece; i++)
      CHECK(equal_numbers(one, one + i * piece, piece) <= piece / 100, "piece %d repeats the first", i);
    free(one);
    free(three);
    free(ref);
  }
}

/* Dropout in x (form 0), of rows (1). */
static mn_tensor *dropped(mn_graph *g, bool training, int form, double p, mn_tensor *x) {
  mn_scope *s = mn_scope_new(g, (mn_build){.param = MN_F64, .compute = MN_F64, .training = training, .seed = 3}, mn_dim(x, 0));
  return form ? mn_drop_path(s, "drop", x, p) : mn_dropout(s, "drop", x, p);
}
static void dropout_gradient(mn_graph *g, mn_tensor **x, mn_tensor **y) {
  y[0] = dropped(g, true, 0, 0.3, x[0]);
  y[1] = dropped(g, true, 1, 0.3, x[0]);
}

static void dropout_drops_in_training_alone(void) {
  for (int form = 0; form < 2; form++) {
    mn_graph *g = mn_graph_new();
    mn_tensor *x = mn_full(g, MN_F64, MN_SHAPE(2000, 4), 3);
    const int before = g->n_nodes;
    CHECK(dropped(g, false, form, 0.3, x) == x, "evaluation drops");
    for (int i = before; i < g->n_nodes; i++) CHECK(strcmp(g->nodes[i]->op->name, "random") != 0, "evaluation draws");
    double *y = value_of(g, backend[1], dropped(g, true, form, 0.3, x));
    int zeros = 0, others = 0;
    for (int i = 0; y && i < 8000; i++) {
      zeros += y[i] == 0;
      others += y[i] != 0 && fabs(y[i] - 3 / 0.7) > 1e-6;
      if (form) CHECK((y[i] == 0) == (y[i / 4 * 4] == 0), "half a row is dropped");
    }
    CHECK(others == 0 && abs(zeros - 2400) < (form ? 420 : 210), "%d of 8000 are dropped, %d are neither", zeros,
          others); /* 5 deviations */
    free(y);
    CHECK(dropped(g, true, form, 1, x) == NULL && mn_graph_status(g) == MN_ERR_ARG, "all are dropped");
    mn_graph_free(g);
  }
  gc_case c = {"dropout", 1, 2, {{MN_F64, MN_SHAPE(5, 4), -1, 1, false}}, dropout_gradient};
  double e = gc_gradient_error(&c, 1, 5);
  CHECK(e < 1e-8, "gradient of dropout: %g", e);
}

/* ---- buffers, inputs, shares ---- */
static mn_tensor *counts(mn_scope *s, void *ctx, mn_tensor *x) {
  mn_graph *g = mn_scope_graph(s);
  (void)ctx;
  mn_tensor *seen = mn_model_buffer(s, "seen", MN_F64, MN_SHAPE(1), 0, "tokens seen so far");
  mn_model_buffer_set(s, "seen", mn_add_scalar(g, seen, (double)mn_dim(x, 1)));
  return mn_add(g, x, mn_reshape(g, seen, MN_SHAPE(1, 1, 1)));
}

/* What is said of rows and tokens is said of tensors of any number of axes. */
static void tensors_of_all_axes_have_rows(void) {
  for (int ndim = 2; ndim <= MN_MAX_DIMS; ndim++) {
    mn_graph *g = mn_graph_new();
    mn_shape shape = {.ndim = ndim, .dim = {2, 3, 1, 1, 1, 1, 1, 1}};
    shape.dim[ndim - 1] = 3;
    const int32_t length[2] = {1, 3};
    const bool reset[2] = {true, false};
    mn_build how = {.param = MN_F64, .compute = MN_F64, .training = true};
    how.length = mn_const(g, MN_I32, MN_SHAPE(2), length);
    how.reset = mn_const(g, MN_BOOL, MN_SHAPE(2), reset);
    mn_scope *s = mn_scope_new(g, how, 2);
    mn_tensor *x = mn_add(g, mn_state(s, "x", MN_F64, shape, NULL, ""), mn_full(g, MN_F64, shape, 1));
    double *y = value_of(g, backend[0], mn_scope_masked(s, mn_drop_path(s, "drop", x, 1e-9), 0));
    const int64_t each = mn_shape_count(&shape) / 2, live = ndim == 2 ? 1 : each / 3; /* row 0 has one token */
    CHECK(y, "%d axes: %s", ndim, mn_message());
    for (int64_t i = 0; y && i < 2 * each; i++)
      CHECK(fabs(y[i] - (i < each && i >= live ? 0 : 1)) < 1e-6, "%d axes: element %d is %g", ndim, (int)i, y[i]);
    free(y);
    mn_graph_free(g);
  }
}

static void buffers_are_assigned_in_training(void) {
  for (int training = 0; training < 2; training++) {
    mn_graph *g = mn_graph_new();
    mn_scope *s = mn_scope_new(g, (mn_build){.param = MN_F64, .compute = MN_F64, .training = training}, 1);
    mn_tensor *x = mn_full(g, MN_F64, MN_SHAPE(1, 7, 1), 0), *y = mn_scope_loop(mn_scope_in(s, "a"), 3, counts, NULL, x);
    const mn_built_buffer *b;
    CHECK(mn_scope_buffers(s, &b) == 1 && strcmp(b->info.name, "a.seen") == 0, "one buffer");
    mn_tensor *out[2] = {y, b->value}, *leaf = b->leaf;
    double *value[2] = {NULL}, *start = &(double){100};
    CHECK(gc_run(g, backend[0], 0, MN_KEEP, 1, &leaf, &start, 2, out, value), "%s", mn_message());
    CHECK(value[1] && value[1][0] == (training ? 107 : 100), "the buffer becomes %g", value[1] ? value[1][0] : NAN);
    for (int i = 0; value[0] && i < 7; i++) CHECK(value[0][i] == (training ? 100 + i / 3 * 3 : 100), "token %d sees %g", i, value[0][i]);
    free(value[0]);
    free(value[1]);
    mn_graph_free(g);
  }
}

static mn_tensor *reads_what_is_shared(mn_scope *s, void *ctx, mn_tensor *x) {
  mn_graph *g = mn_scope_graph(s);
  (void)ctx;
  mn_tensor *y = mn_add(g, x, mn_add(g, mn_shared(s, "bias"), mn_feed(s, "scale", MN_F64, MN_SHAPE(1), "")));
  mn_share(s, "bias", mn_full(g, MN_F64, MN_SHAPE(1), 1000));
  return mn_add(g, y, mn_shared(s, "bias"));
}

static void names_are_tensors(void) {
  mn_graph *g = mn_graph_new();
  mn_scope *s = scope_in(g, 1);
  const mn_feed_info *info;
  mn_tensor *const *feeds;
  mn_tensor *scale = mn_feed(s, "scale", MN_F64, MN_SHAPE(1), "a number");
  CHECK(mn_feed(mn_scope_in(s, "b"), "scale", MN_F64, MN_SHAPE(1), "") == scale, "another tensor of the same name");
  CHECK(mn_shared(s, "bias") == NULL, "nobody shared it");
  mn_share(mn_scope_in(s, "a"), "bias", mn_full(g, MN_F64, MN_SHAPE(1), 20));
  mn_tensor *y = mn_scope_loop(s, 2, reads_what_is_shared, NULL, mn_full(g, MN_F64, MN_SHAPE(1, 5, 1), 1)),
            *out[2] = {y, mn_shared(s, "bias")};
  CHECK(mn_scope_feeds(s, &info, &feeds) == 1 && strcmp(info->name, "scale") == 0 && feeds[0] == scale, "one input");
  double *value[2] = {NULL}, *given = &(double){300};
  CHECK(mn_graph_status(g) == MN_OK && gc_run(g, backend[0], 0, MN_KEEP, 1, &scale, &given, 2, out, value), "%s", mn_message());
  for (int i = 0; value[0] && i < 5; i++) CHECK(value[0][i] == 1321, "token %d: %g", i, value[0][i]);
  CHECK(value[1] && value[1][0] == 20, "what a loop's body shared left it");
  free(value[0]);
  free(value[1]);
  mn_feed(s, "scale", MN_F64, MN_SHAPE(2), "");
  CHECK(mn_graph_status(g) != MN_OK && strstr(mn_message(), "scale"), "two shapes under one name: %s", mn_message());
  mn_graph_free(g);
}

/* What no memory could hold is refused by its name, not by an operation's: what a recipe asked for can be found by it. */
static mn_tensor *nothing(mn_scope *s, const void *ctx) {
  (void)ctx;
  return mn_full(mn_scope_graph(s), MN_F32, MN_SHAPE(1), 0);
}
static void what_is_too_large_is_named(void) {
  static const char *const what[] = {"parameter a.wide ", "buffer a.wide ", "state a.wide ", "state a.wide "};
  const mn_shape shape = MN_SHAPE(1 << 24, 1 << 24);
  for (int i = 0; i < 4; i++) {
    mn_graph *g = mn_graph_new();
    mn_scope *s = mn_scope_in(mn_scope_new(g, (mn_build){.param = MN_F32, .compute = MN_F32}, 1), "a");
    if (i == 0) mn_param(s, "wide", shape, MN_ZEROS, 0, "");
    if (i == 1) mn_model_buffer(s, "wide", MN_F32, shape, 0, "");
    if (i == 2) mn_state(s, "wide", MN_F32, shape, NULL, "");
    if (i == 3) mn_state_from(s, "wide", MN_F32, shape, nothing, NULL, "");
    const char *text = mn_message();
    CHECK(mn_graph_status(g) == MN_ERR_SHAPE && strstr(text, "64 TiB") && strstr(text, "16777216") && strstr(text, what[i]), "%s: %s",
          what[i], text);
    mn_graph_free(g);
  }
}

static void exact_is_a_type_of_its_own(void) {
  mn_graph *g = mn_graph_new();
  const struct {
    mn_dtype param, exact, is;
  } cases[] = {{MN_F32, 0, MN_F32}, {MN_F64, 0, MN_F64}, {MN_BF16, 0, MN_F32}, {MN_BF16, MN_F64, MN_F64}, {MN_F32, MN_F64, MN_F64}};
  for (int i = 0; i < 5; i++) {
    mn_scope *s = mn_scope_new(g, (mn_build){.param = cases[i].param, .compute = MN_F32, .exact = cases[i].exact}, 1);
    CHECK(mn_scope_exact(s) == cases[i].is, "case %d", i);
  }
  mn_graph_free(g);
}

int main(void) {
  if (mn_backend_cpu_new(1, &backend[0]) != MN_OK || mn_backend_cpu_new(3, &backend[1]) != MN_OK) return 1;
  RUN(loops_bring_out_results_reports_and_losses);
  RUN(gradients_stop_where_asked);
  RUN(nested_loops_keep_the_position);
  RUN(unread_reports_cost_nothing);
  RUN(what_is_done_only_at_times);
  RUN(lengths_reach_every_piece);
  RUN(chance_is_where_it_is_drawn);
  RUN(dropout_drops_in_training_alone);
  RUN(tensors_of_all_axes_have_rows);
  RUN(buffers_are_assigned_in_training);
  RUN(names_are_tensors);
  RUN(what_is_too_large_is_named);
  RUN(exact_is_a_type_of_its_own);
  mn_backend_free(backend[0]);
  mn_backend_free(backend[1]);
  return test_end();
}
