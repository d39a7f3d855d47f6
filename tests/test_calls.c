/* test_calls.c - a mixer or a model inside another: calling twice is calling twice, a call has a stream of its own (position, state,
 * batch, rows that begin), fresh or going on, in loops and out of them. */
#include "mixer_check.h"
#include "model/params.h"
#include "small_mixers.h"

enum { B = 2, T = 12, D = 8, COUNT = B * T * D, MAX_Y = 4 };

/* ---- running what is built around a mixer's parameters ---- */
typedef struct built { /* what a builder is given: x of this segment, and gives */
  mc_mixer *m;
  mn_tensor *x;
  int n_y;
  mn_tensor *y[MAX_Y]; /* [B,T,D] */
} built;
typedef void (*builder)(mn_scope *s, built *b);

typedef struct call { /* how it is run */
  mc_mixer *m;
  builder f;
  bool gradients; /* of sum(y[0] * dy) for x */
} call;

static mn_status build(void *ctx, mn_scope *s, const mn_form *form, mn_parts *parts) {
  const call *c = ctx;
  mn_graph *g = mn_scope_graph(s);
  built b = {.m = c->m, .x = mn_parts_feed(parts, "x", MN_F64, MN_SHAPE(B, form->length, D))};
  c->f(s, &b);
  mn_scope_advance(s, form->length);
  MN_TRY(mn_graph_status(g));
  for (int j = 0; j < b.n_y; j++) mn_parts_give(parts, mn_arena_format(g->arena, "y%d", j), b.y[j]);
  if (!c->gradients) return MN_OK;
  mn_tensor *dy = mn_parts_feed(parts, "dy", MN_F64, b.x->shape), *dx;
  MN_TRY(mn_grad(g, 1, b.y, &dy, 1, &b.x, &dx));
  mn_parts_give(parts, "dx", dx);
  return MN_OK;
}

/* y[j] [B,T,D] of a stream x [B,T,D] in `segments` of one length, carried; with dx, at once and with gradients of
 * sum(y[0] * dy) for x. 0: it does not run, and why was printed. */
static int run(mc_mixer *m, builder f, int64_t segments, const double *x, double (*y)[COUNT], const double *dy, double *dx) {
  const int64_t n = T / segments;
  call c = {m, f, dx != NULL};
  trial t;
  mn_states *states = NULL;
  const mn_program_config config = {.backend = m->backend,
                                    .build = {.param = MN_F64, .compute = MN_F64, .carried = !dx},
                                    .builder = build,
                                    .ctx = &c,
                                    .learn = {.batch = B, .length = n}};
  int ok = trial_open(&t, &config, &m->params);
  if (ok && !dx && mn_program_states(t.program, B, &states) != MN_OK) ok = mc_complain("states");
  for (int64_t at = 0; ok && at < segments; at++) {
    double *piece = mc_cut(x, B, T, D, at * n, n);
    mc_bag in = {0}, out = {0};
    mc_put(&in, "x", MN_SHAPE(B, n, D), piece);
    if (dx) mc_put(&in, "dy", MN_SHAPE(B, T, D), dy);
    ok = trial_run(&t, &config.learn, states, NULL, &in, &out);
    for (int j = 0; ok && j < out.n; j++) {
      const mc_tensor *r = &out.t[j];
      if (!strcmp(r->name, "dx")) memcpy(dx, r->x, COUNT * sizeof *dx);
      else
        for (int64_t row = 0; row < B; row++) memcpy(y[j] + (row * T + at * n) * D, r->x + row * n * D, (size_t)(n * D) * sizeof(double));
    }
    mc_bag_free(&in);
    mc_bag_free(&out);
    free(piece);
  }
  mn_states_free(states);
  trial_close(&t);
  return ok;
}

static mn_tensor *mixed(mn_scope *s, void *ctx, mn_tensor *x) { return mn_mixer_apply(s, ctx, x); }
static mn_tensor *mixed_twice(mn_scope *s, void *ctx, mn_tensor *x) {
  mn_tensor *y = mn_mixer_apply(s, ctx, x);
  return mn_sub(mn_scope_graph(s), mn_mul_scalar(mn_scope_graph(s), y, 3), mn_mul_scalar(mn_scope_graph(s), mn_mixer_apply(s, ctx, x), 2));
}

/* ---- twice ---- */
static void once(mn_scope *s, built *b) { b->y[b->n_y++] = mn_mixer_apply(s, &b->m->mixer, b->x); }
static void twice(mn_scope *s, built *b) {
  once(s, b);
  once(s, b);
}
static void once_in_loop(mn_scope *s, built *b) { b->y[b->n_y++] = mn_scope_loop(s, 5, mixed, &b->m->mixer, b->x); }
static void twice_in_loop(mn_scope *s, built *b) { b->y[b->n_y++] = mn_scope_loop(s, 5, mixed_twice, &b->m->mixer, b->x); }

static void each(void (*f)(mc_mixer *m, const char *form, const double *x, const double *dy)) {
  double *x = mc_normal(COUNT, 1, 1), *dy = mc_normal(COUNT, 1, 2);
  for (int i = 0; i < MN_SMALL_MIXERS; i++) {
    const char *form = mn_small_mixers[i];
    mc_mixer m = {.arena = mn_arena_new()};
    const mn_value *v = NULL;
    CHECK_OK(mn_yaml_parse(m.arena, "small_mixers.h", form, strlen(form), &v));
    if (v && mc_open_value(&m, m.arena, v, D, B, MN_F64, mn_backend_ref()) && mc_random_params(&m, 1)) f(&m, form, x, dy);
    else CHECK(0, "%s", form);
    mc_close(&m);
  }
  free(x);
  free(dy);
}

static void two_uses_are_two(mc_mixer *m, const char *form, const double *x, const double *dy) {
  static double one[1][COUNT], two[2][COUNT], dx[COUNT], dx2[COUNT];
  if (!run(m, once, 1, x, one, dy, dx)) test_failed++;
  for (int k = 0; k < 3; k++) { /* at once; as a stream in one piece, in three */
    if (!run(m, twice, k == 2 ? 3 : 1, x, two, dy, k ? NULL : dx2)) test_failed++;
    for (int j = 0; j < 2; j++) {
      double e = mc_difference(two[j], one[0], COUNT);
      CHECK(e < (k ? 1e-10 : 1e-15), "%s: use %d of two (%d) differs from one by %g", form, j + 1, k, e);
    }
  }
  double e = mc_difference(dx2, dx, COUNT);
  CHECK(e < 1e-14, "%s: gradient %g", form, e); /* of the first use, the second beside it */
  if (!run(m, once_in_loop, 1, x, one, dy, dx) || !run(m, twice_in_loop, 1, x, two, dy, dx2)) test_failed++;
  CHECK(mc_difference(two[0], one[0], COUNT) < 1e-13 && mc_difference(dx2, dx, COUNT) < 1e-12, "%s: in a loop", form);
  if (!run(m, twice_in_loop, 2, x, two, NULL, NULL)) test_failed++;
  CHECK(mc_difference(two[0], one[0], COUNT) < 1e-10, "%s: in a loop, in a stream", form);
}
static void calling_twice_is_calling_twice(void) { each(two_uses_are_two); }

/* ---- a stream of its own ---- */
/* Each piece of four tokens is a stream by itself: at once as B * 3 rows, in a loop, and call by call. */
static void in_rows(mn_scope *s, built *b) {
  mn_graph *g = mn_scope_graph(s);
  mn_scope *in = mn_scope_call(s, "inner", (mn_call_options){.params = "", .fresh = true, .batch = B * T / 4});
  CHECK(mn_scope_batch(in) == B * T / 4, "its own batch");
  mn_tensor *y = mn_mixer_apply(in, &b->m->mixer, mn_reshape(g, b->x, MN_SHAPE(B * T / 4, 4, D)));
  b->y[b->n_y++] = mn_reshape(g, y, b->x->shape);
}
static mn_tensor *fresh_piece(mn_scope *s, void *ctx, mn_tensor *x) {
  mn_scope *in = mn_scope_call(s, "inner", (mn_call_options){.params = "", .fresh = true});
  CHECK(!mn_scope_is_stream(in), "nobody goes on where a call begins anew each time");
  return mn_mixer_apply(in, ctx, x);
}
static void in_loop(mn_scope *s, built *b) { b->y[b->n_y++] = mn_scope_loop(s, 4, fresh_piece, &b->m->mixer, b->x); }
static mn_tensor *fresh_loop(mn_scope *s, void *ctx, mn_tensor *x) { /* a loop in a fresh call in a loop */
  mn_scope *in = mn_scope_call(s, "inner", (mn_call_options){.params = "", .fresh = true});
  return mn_scope_loop(in, 3, mixed, ctx, x);
}
static void in_loop_in_loop(mn_scope *s, built *b) { b->y[b->n_y++] = mn_scope_loop(s, 4, fresh_loop, &b->m->mixer, b->x); }
static void one_by_one(mn_scope *s, built *b) {
  mn_tensor *y[3];
  for (int i = 0; i < 3; i++) y[i] = fresh_piece(s, &b->m->mixer, mn_slice(mn_scope_graph(s), b->x, 1, 4 * i, 4));
  b->y[b->n_y++] = mn_concat(mn_scope_graph(s), 3, y, 1);
}

static void begins_each_time(mc_mixer *m, const char *form, const double *x, const double *dy) {
  static const builder builders[] = {in_loop, in_loop_in_loop, one_by_one};
  static double want[1][COUNT], y[1][COUNT], dx[COUNT], dx2[COUNT];
  if (!run(m, in_rows, 1, x, want, dy, dx)) test_failed++;
  for (int k = 0; k < 3; k++) {
    if (!run(m, builders[k], 1, x, y, dy, dx2)) test_failed++;
    double e = mc_difference(y[0], want[0], COUNT), d = mc_difference(dx2, dx, COUNT);
    CHECK(e < 1e-10 && d < 1e-9, "%s: builder %d: y %g, dx %g", form, k, e, d);
  }
  if (!run(m, in_loop, 3, x, y, NULL, NULL)) test_failed++; /* a segment is a piece: nothing is carried */
  CHECK(mc_difference(y[0], want[0], COUNT) < 1e-10, "%s: as a stream", form);
}
static void a_fresh_call_begins_each_time(void) { each(begins_each_time); }

/* One stream in several steps of different lengths is that stream, in a segment and across segments; twice it is two streams. */
static mn_tensor *in_steps_of(mn_scope *s, built *b, bool second) {
  mn_graph *g = mn_scope_graph(s);
  int64_t n = mn_dim(b->x, 1), cuts[] = {0, n / 2, n - 1, n};
  mn_tensor *y[3];
  for (int i = 0; i < 3; i++) {
    mn_call_options how = {.params = "", .again = i > 0, .longest = second ? 0 : T};
    mn_scope *in = mn_scope_call(s, "inner", how);
    CHECK(mn_scope_longest(in) == (second ? MN_LIMIT_NONE : T), "how long it may become");
    y[i] = mn_mixer_apply(in, &b->m->mixer, mn_slice(g, b->x, 1, cuts[i], cuts[i + 1] - cuts[i]));
    mn_scope_advance(in, cuts[i + 1] - cuts[i]);
  }
  return mn_concat(g, 3, y, 1);
}
static void in_steps(mn_scope *s, built *b) { b->y[b->n_y++] = in_steps_of(s, b, false); }
static void in_steps_twice(mn_scope *s, built *b) {
  in_steps(s, b);
  b->y[b->n_y++] = in_steps_of(s, b, true);
}
static void steps_are_one(mc_mixer *m, const char *form, const double *x, const double *dy) {
  static double want[1][COUNT], y[1][COUNT], two[2][COUNT];
  (void)dy;
  if (!run(m, once, 1, x, want, NULL, NULL)) test_failed++;
  for (int segments = 1; segments <= 3; segments += 2) {
    if (!run(m, in_steps, segments, x, y, NULL, NULL) || !run(m, in_steps_twice, segments, x, two, NULL, NULL)) test_failed++;
    double e = mc_difference(y[0], want[0], COUNT), d = fmax(mc_difference(two[0], want[0], COUNT), mc_difference(two[1], want[0], COUNT));
    CHECK(e < 1e-10 && d < 1e-10, "%s: in %d segments %g, twice %g", form, segments, e, d);
  }
}
static void a_call_goes_on_in_steps(void) { each(steps_are_one); }

/* A call that goes on sees two of each four tokens: it is the stream of those, at positions of its own. */
static mn_tensor *half(mn_scope *s, void *ctx, mn_tensor *x) {
  mn_graph *g = mn_scope_graph(s);
  mn_scope *in = mn_scope_call(s, "inner", (mn_call_options){.params = ""});
  mn_tensor *y = mn_mixer_apply(in, ctx, mn_slice(g, x, 1, 0, 2));
  mn_scope_advance(in, 2);
  return mn_concat(g, 2, (mn_tensor *[]){y, mn_slice(g, x, 1, 2, 2)}, 1);
}
static void halves(mn_scope *s, built *b) { b->y[b->n_y++] = mn_scope_loop(s, 4, half, &b->m->mixer, b->x); }
static void half_alone(mn_scope *s, built *b) {
  mn_graph *g = mn_scope_graph(s);
  mn_tensor *x[6], *y;
  for (int i = 0; i < 3; i++) x[i] = mn_slice(g, b->x, 1, 4 * i, 2), x[3 + i] = mn_slice(g, b->x, 1, 4 * i + 2, 2);
  y = mn_mixer_apply(s, &b->m->mixer, mn_concat(g, 3, x, 1));
  for (int i = 0; i < 3; i++) x[i] = mn_slice(g, y, 1, 2 * i, 2);
  b->y[b->n_y++] = mn_concat(g, 6, (mn_tensor *[]){x[0], x[3], x[1], x[4], x[2], x[5]}, 1);
}

static void goes_on(mc_mixer *m, const char *form, const double *x, const double *dy) {
  static double want[1][COUNT], y[1][COUNT], dx[COUNT], dx2[COUNT];
  if (!run(m, half_alone, 1, x, want, dy, dx) || !run(m, halves, 1, x, y, dy, dx2)) test_failed++;
  double e = mc_difference(y[0], want[0], COUNT), d = mc_difference(dx2, dx, COUNT);
  CHECK(e < 1e-10 && d < 1e-9, "%s: in a loop: y %g, dx %g", form, e, d);
  if (!run(m, halves, 3, x, y, NULL, NULL)) test_failed++;
  e = mc_difference(y[0], want[0], COUNT);
  CHECK(e < 1e-10, "%s: segment by segment: y %g", form, e);
}
static void a_call_has_positions_of_its_own(void) { each(goes_on); }

/* Row 1 begins anew at token 4, row 0 at token 8: the rows are streams of those lengths. */
static mn_tensor *begins(mn_scope *s) {
  mn_graph *g = mn_scope_graph(s);
  mn_tensor *at = mn_scope_position(s);
  return at ? mn_eq(g, at, mn_const(g, MN_I32, MN_SHAPE(B), (int32_t[]){8, 4})) : mn_full(g, MN_BOOL, MN_SHAPE(B), 0);
}
static mn_tensor *reset_piece(mn_scope *s, void *ctx, mn_tensor *x) {
  mn_scope *in = mn_scope_call(s, "inner", (mn_call_options){.params = "", .reset = begins(s)});
  mn_tensor *y = mn_mixer_apply(in, ctx, x);
  mn_scope_advance(in, mn_dim(x, 1));
  return y;
}
static void with_resets(mn_scope *s, built *b) { b->y[b->n_y++] = mn_scope_loop(s, 2, reset_piece, &b->m->mixer, b->x); }
static mn_tensor *reset_around(mn_scope *s, void *ctx, mn_tensor *x) { /* the loop stands inside the call */
  mn_scope *in = mn_scope_call(s, "inner", (mn_call_options){.params = "", .reset = begins(s)});
  mn_tensor *y = mn_scope_loop(in, 2, mixed, ctx, x);
  mn_scope_advance(in, mn_dim(x, 1));
  return y;
}
static void with_resets_around(mn_scope *s, built *b) { b->y[b->n_y++] = mn_scope_loop(s, 4, reset_around, &b->m->mixer, b->x); }
static void by_length(mn_scope *s, built *b) {
  static const int at[B][3] = {{0, 8, T}, {0, 4, T}};
  mn_graph *g = mn_scope_graph(s);
  mn_tensor *rows[B];
  for (int row = 0; row < B; row++) {
    mn_tensor *part[2];
    for (int k = 0; k < 2; k++) {
      mn_scope *in = mn_scope_call(s, "part", (mn_call_options){.params = "", .fresh = true, .batch = 1});
      mn_tensor *x = mn_slice(g, mn_slice(g, b->x, 0, row, 1), 1, at[row][k], at[row][k + 1] - at[row][k]);
      part[k] = mn_mixer_apply(in, &b->m->mixer, x);
    }
    rows[row] = mn_concat(g, 2, part, 1);
  }
  b->y[b->n_y++] = mn_concat(g, B, rows, 0);
}

static void rows_begin(mc_mixer *m, const char *form, const double *x, const double *dy) {
  static double want[1][COUNT], y[1][COUNT], dx[COUNT], dx2[COUNT];
  static const builder builders[] = {with_resets, with_resets_around};
  if (!run(m, by_length, 1, x, want, dy, dx)) test_failed++;
  for (int k = 0; k < 2; k++) {
    if (!run(m, builders[k], 1, x, y, dy, dx2)) test_failed++;
    double e = mc_difference(y[0], want[0], COUNT), d = mc_difference(dx2, dx, COUNT);
    CHECK(e < 1e-10 && d < 1e-9, "%s, builder %d: y %g, dx %g", form, k, e, d);
    if (!run(m, builders[k], 3, x, y, NULL, NULL)) test_failed++;
    e = mc_difference(y[0], want[0], COUNT);
    CHECK(e < 1e-10, "%s, builder %d, segment by segment: y %g", form, k, e);
  }
}
static void rows_begin_where_a_call_says(void) { each(rows_begin); }

/* ---- rows of different lengths: outputs and gradients are those of each row alone, in pieces and at once ---- */
static const int32_t lengths[B] = {5, 12};
static void padded(mn_scope *s, built *b, int64_t piece) {
  mn_tensor *length = mn_const(mn_scope_graph(s), MN_I32, MN_SHAPE(B), lengths);
  mn_scope *in = mn_scope_call(s, "inner", (mn_call_options){.params = "", .fresh = true, .length = length});
  b->y[b->n_y++] = mn_scope_masked(in, mn_scope_loop(in, piece, mixed, &b->m->mixer, b->x), 0);
}
static void padded_at_once(mn_scope *s, built *b) { padded(s, b, T); }
static void padded_in_pieces(mn_scope *s, built *b) { padded(s, b, 5); }
/* Said inside: of two lengths the lesser counts. */
static void padded_from_here_on(mn_scope *s, built *b) {
  static const int32_t longer[2][B] = {{12, 12}, {7, 12}};
  mn_graph *g = mn_scope_graph(s);
  mn_scope *in = mn_scope_call(s, "inner", (mn_call_options){.params = "", .fresh = true});
  mn_scope_set_length(in, mn_const(g, MN_I32, MN_SHAPE(B), longer[1]));
  mn_scope_set_length(in, mn_const(g, MN_I32, MN_SHAPE(B), lengths));
  mn_scope_set_length(in, mn_const(g, MN_I32, MN_SHAPE(B), longer[0]));
  mn_scope_set_length(in, NULL);
  b->y[b->n_y++] = mn_scope_masked(in, mn_scope_loop(in, 5, mixed, &b->m->mixer, b->x), 0);
}
static void cut_to_length(mn_scope *s, built *b) {
  mn_graph *g = mn_scope_graph(s);
  mn_tensor *rows[B];
  for (int row = 0; row < B; row++) {
    mn_scope *in = mn_scope_call(s, "row", (mn_call_options){.params = "", .fresh = true, .batch = 1});
    mn_tensor *x = mn_slice(g, mn_slice(g, b->x, 0, row, 1), 1, 0, lengths[row]);
    rows[row] = mn_pad(g, mn_mixer_apply(in, &b->m->mixer, x), 1, 0, T - lengths[row]);
  }
  b->y[b->n_y++] = mn_concat(g, B, rows, 0);
}

static void rows_end(mc_mixer *m, const char *form, const double *x, const double *dy) {
  static double want[1][COUNT], y[1][COUNT], dx[COUNT], dx2[COUNT];
  static const builder builders[] = {padded_at_once, padded_in_pieces, padded_from_here_on};
  if (!run(m, cut_to_length, 1, x, want, dy, dx)) test_failed++;
  for (int k = 0; k < 3; k++) {
    if (!run(m, builders[k], 1, x, y, dy, dx2)) test_failed++;
    double e = mc_difference(y[0], want[0], COUNT), d = mc_difference(dx2, dx, COUNT);
    CHECK(e < 1e-10 && d < 1e-9, "%s, builder %d: y %g, dx %g", form, k, e, d);
  }
}
static void rows_end_where_their_length_says(void) { each(rows_end); }

/* ---- what cannot be is refused; names ---- */
static void a_model_beside_shares_the_stream_and_nothing_else(void) {
  mn_graph *g = mn_graph_new();
  mn_scope *s = mn_scope_new(g, (mn_build){.param = MN_BF16, .compute = MN_F32, .carried = true, .training = true}, B), *in = NULL;
  const mn_built_state *states;
  const mn_param_info *params;
  const mn_built_loss *losses;
  mn_tensor *const *tensors;
  mn_param(s, "w", MN_SHAPE(1), MN_ZEROS, 0, "");
  for (int i = 0; i < 2; i++) {
    in = mn_scope_beside(s, "teacher");
    mn_state(in, "h", MN_F32, MN_SHAPE(B, 1), NULL, "");
    mn_param(in, "w", MN_SHAPE(2), MN_ZEROS, 0, "");
    mn_loss(in, "size", mn_scalar(g, MN_F32, 1), 1);
    mn_report(in, "size", mn_scalar(g, MN_F32, 1));
    mn_scope_limit(in, 10, "most", "less");
    mn_scope_advance(in, 5);
  }
  mn_scope_advance(s, 5);
  static const char *const want[] = {"position", "teacher.position", "teacher.h", "teacher-2.position", "teacher-2.h"};
  const int n = mn_scope_states(s, &states);
  CHECK(n == 5, "%d states", n);
  for (int i = 0; i < 5 && i < n; i++) CHECK(strcmp(states[i].info.name, want[i]) == 0, "%s, not %s", states[i].info.name, want[i]);
  CHECK(mn_scope_params(s, &params, NULL) == 1 && params->shape.dim[0] == 1, "the model's own parameter");
  CHECK(mn_scope_params(in, &params, &tensors) == 1 && params->shape.dim[0] == 2 && tensors[0]->dtype == MN_F32,
        "one of the same name, in the exact type");
  CHECK(mn_scope_losses(s, &losses) == 0 && mn_scope_losses(in, &losses) == 1 && !mn_scope_training(in), "its losses are its own");
  CHECK(mn_scope_limit_of(s).tokens == 10, "its stream ends where the model's does: %lld", (long long)mn_scope_limit_of(s).tokens);
  CHECK_OK(mn_graph_status(g));
  mn_graph_free(g);
}

static void names_and_limits_are_a_calls_own(void) {
  mn_graph *g = mn_graph_new();
  mn_scope *s = mn_scope_new(g, (mn_build){.param = MN_F32, .compute = MN_F32, .carried = true}, B), *in;
  const mn_built_state *states;
  const mn_param_info *params;
  for (int i = 0; i < 2; i++) {
    in = mn_scope_call(mn_scope_in(s, "a"), "b", (mn_call_options){.params = "teacher", .batch = 3});
    for (int k = 0; k < 2; k++) mn_state(mn_scope_again(in), "h", MN_F32, MN_SHAPE(3, 1), NULL, "");
    mn_param(in, "w", MN_SHAPE(1), MN_ZEROS, 0, "");
    mn_scope_limit(in, 10, "most", "less");
    mn_scope_advance(in, 4);
  }
  static const char *const want[] = {"position", "a.b.position", "a.b.h", "a.b.call2.h", "a.b-2.position", "a.b-2.h", "a.b-2.call2.h"};
  int n = mn_scope_states(s, &states);
  CHECK(n == 7, "%d states", n);
  for (int i = 0; i < 7 && i < n; i++) CHECK(strcmp(states[i].info.name, want[i]) == 0, "%s, not %s", states[i].info.name, want[i]);
  CHECK(mn_scope_params(s, &params, NULL) == 1 && strcmp(params->name, "teacher.w") == 0, "one parameter for both");
  CHECK(mn_scope_limit_of(s).tokens == 8, "10 tokens in calls of 4 are 2 calls of a segment of 4: %lld",
        (long long)mn_scope_limit_of(s).tokens);
  mn_scope_set_length(s, mn_full(g, MN_I32, MN_SHAPE(B + 1), 1));
  CHECK(mn_graph_status(g) == MN_ERR_SHAPE && strstr(mn_message(), "lengths"), "%s", mn_message());
  mn_graph_free(g);
  g = mn_graph_new();
  s = mn_scope_new(g, (mn_build){.param = MN_F32, .compute = MN_F32, .carried = true}, B);
  mn_scope_call(s, "c", (mn_call_options){.fresh = true, .reset = mn_full(g, MN_BOOL, MN_SHAPE(B), 1)});
  CHECK(mn_graph_status(g) == MN_ERR_ARG && strstr(mn_message(), "call c resets"), "%s", mn_message());
  mn_graph_free(g);
  g = mn_graph_new();
  s = mn_scope_new(g, (mn_build){.param = MN_F32, .compute = MN_F32, .carried = true}, B);
  mn_scope_advance(s, 4);
  mn_scope_advance(s, 4);
  CHECK_OK(mn_graph_status(g));
  mn_scope_advance(s, 2);
  CHECK(mn_graph_status(g) == MN_ERR_INTERNAL && strstr(mn_message(), "is a call"), "%s", mn_message());
  mn_graph_free(g);
  g = mn_graph_new();
  mn_build build = {.param = MN_F32, .compute = MN_F32, .carried = true, .reset = mn_input(g, "reset", MN_BOOL, MN_SHAPE(B))};
  mn_scope_call(mn_scope_new(g, build, B), "c", (mn_call_options){.batch = 3});
  CHECK(mn_graph_status(g) == MN_ERR_ARG && strstr(mn_message(), "call c has 3 rows"), "%s", mn_message());
  mn_graph_free(g);
}

/* A message has the name of what it is about, without the point that joins names. */
static void a_message_ends_no_name_in_a_point(void) {
  for (int i = 0; i < 5; i++) {
    mn_graph *g = mn_graph_new();
    mn_scope *s = mn_scope_in(mn_scope_new(g, (mn_build){.param = MN_F32, .compute = MN_F32, .carried = true}, B), "a");
    mn_tensor *one_more = mn_full(g, MN_I32, MN_SHAPE(B + 1), 1), *x = mn_full(g, MN_F32, MN_SHAPE(B, 3, 1, 4), 1);
    if (i == 0) mn_scope_set_length(s, one_more);
    if (i == 1) mn_scope_call(s, "b", (mn_call_options){.length = one_more});
    if (i == 2) mn_scope_call(s, "b", (mn_call_options){.again = true});
    if (i == 3) mn_scope_call(s, "b", (mn_call_options){.fresh = true, .reset = mn_full(g, MN_BOOL, MN_SHAPE(B), 1)});
    if (i == 4) {
      mn_recurrence_io io = {.q = x, .k = x, .v = x, .log_eta = mn_full(g, MN_F32, MN_SHAPE(B, 3, 1), -1)};
      mn_scope_set_length(s, mn_full(g, MN_I32, MN_SHAPE(B), 1));
      mn_linear_memory(s, &io, (mn_recurrence_attr){.write = MN_WRITE_DELTA, .chunk = 4});
    }
    static const char *const want[] = {"lengths of a are", "lengths of call a.b are", "call a.b goes on", "call a.b resets",
                                       "a.momentum: "};
    CHECK(mn_graph_status(g) != MN_OK && strstr(mn_message(), want[i]), "%s: %s", want[i], mn_message());
    mn_graph_free(g);
  }
}

int main(void) {
  RUN(small_mixers_are_all_systems);
  RUN(calling_twice_is_calling_twice);
  RUN(a_fresh_call_begins_each_time);
  RUN(a_call_goes_on_in_steps);
  RUN(a_call_has_positions_of_its_own);
  RUN(rows_begin_where_a_call_says);
  RUN(rows_end_where_their_length_says);
  RUN(names_and_limits_are_a_calls_own);
  RUN(a_message_ends_no_name_in_a_point);
  RUN(a_model_beside_shares_the_stream_and_nothing_else);
  return test_end();
}
