/* scope_loop.c - time is a loop: a function over pieces of a segment, everything that a scope knows carried or brought out. */
#include "nn/scope_internal.h"

#include <string.h>

/* [B, n*len, ...] -> [n, B, len, ...] */
static mn_tensor *to_pieces(mn_graph *g, mn_tensor *x, int64_t n, int64_t len) {
  if (!x) return NULL;
  mn_shape s = {.ndim = mn_ndim(x) + 1, .dim = {mn_dim(x, 0), n, len}};
  if (s.ndim > MN_MAX_DIMS) s.ndim = -1;
  for (int i = 2; i < mn_ndim(x) && s.ndim > 0; i++) s.dim[i + 1] = x->shape.dim[i];
  return mn_transpose(g, mn_reshape(g, x, s), 0, 1);
}

/* [n, B, len, ...] -> [B, n*len, ...] */
static mn_tensor *from_pieces(mn_graph *g, mn_tensor *y) {
  if (!y) return NULL;
  mn_shape s = {.ndim = y->shape.ndim - 1, .dim = {mn_dim(y, 1), mn_dim(y, 0) * mn_dim(y, 2)}};
  for (int i = 3; i < y->shape.ndim; i++) s.dim[i - 1] = y->shape.dim[i];
  return mn_reshape(g, mn_transpose(g, y, 0, 1), s);
}

typedef struct looping { /* one loop over pieces of `length` tokens */
  mn_scope *s;
  int64_t length;
  mn_loop_function f;
  void *ctx;
  int n_in, n_out;
  bool once;    /* a condition: one piece, which may be left out                      */
  bool grouped; /* a piece is itself a loop over pieces, which has stacked its reports */
} looping;

/* How many of each list there are: what a piece adds lies behind. */
typedef struct marks {
  int reports, losses, shares, calls;
} marks;
static marks marks_of(const mn_scope *s) { return (marks){s->r->n_reports, s->r->n_losses, s->r->n_shares, s->frame->store->n_called}; }
static void back_to(const mn_scope *s, marks m) {
  s->r->n_reports = m.reports;
  s->r->n_losses = m.losses;
  s->r->n_shares = m.shares;
  mn_scope_uncall(s->r, s->frame->store, m.calls);
}

static mn_tensor **slices(const looping *l, mn_tensor *const *x, int64_t start, int64_t len) {
  mn_scope_root *r = l->s->r;
  mn_tensor **y = mn_scope_alloc(r, (size_t)l->n_in, sizeof *y);
  for (int i = 0; y && i < l->n_in; i++) y[i] = mn_slice(r->graph, x[i], 1, start, len);
  return y;
}

/* Built once for nothing but its effects: parameters, states and buffers become known in the outer graph, and their values are
 * put back. What it computed is read by nobody and disappears. */
static void discover(const looping *l, mn_tensor *const *piece) {
  mn_scope_root *r = l->s->r;
  mn_scope_frame *frame = l->s->frame;
  mn_state_store *t = frame->store;
  const mn_state_group *below = mn_state_group_of(t, l->s->state_path);
  const int n = below ? below->n : 0, n_buffers = r->n_buffers;
  const marks before = marks_of(l->s);
  const int64_t turns = frame->turns;
  const bool mute = r->graph->mute;
  mn_tensor **out = mn_scope_alloc(r, (size_t)l->n_out, sizeof *out);
  mn_tensor **keep = mn_scope_alloc(r, (size_t)n, sizeof *keep), **keep_buffer = mn_scope_alloc(r, (size_t)n_buffers, sizeof *keep);
  if (!piece || !out || !keep || !keep_buffer) return;
  for (int i = 0; i < n; i++) keep[i] = t->states[below->state[i]].value;
  for (int i = 0; i < n_buffers; i++) keep_buffer[i] = r->buffers[i].value;
  r->graph->mute = true;
  l->f(l->s, l->ctx, piece, out);
  r->graph->mute = mute;
  below = mn_state_group_of(t, l->s->state_path);
  for (int i = 0; below && i < below->n; i++) {
    mn_built_state *e = &t->states[below->state[i]];
    e->value = i < n ? keep[i] : mn_state_begun(r, frame, e, e->before);
  }
  for (int i = 0; i < r->n_buffers; i++) {
    mn_tensor *was = i < n_buffers ? keep_buffer[i] : r->buffers[i].leaf;
    r->buffer_written[i] |= r->buffers[i].value != was;
    r->buffers[i].value = was;
  }
  back_to(l->s, before);
  frame->turns = turns;
}

/* What goes from piece to piece: every state below the loop's scope, the buffers that are assigned, the position. */
typedef struct carries {
  int n;
  mn_tensor ***place; /* [n] where the scope keeps each, the position last; there is room for more behind it */
  mn_tensor **first, **in, **out, **final;
} carries;

static bool carries_of(const looping *l, int more, carries *c) {
  mn_scope_root *r = l->s->r;
  mn_scope_frame *frame = l->s->frame;
  const mn_state_group *below = mn_state_group_of(frame->store, l->s->state_path);
  const size_t room = (size_t)(below ? below->n : 0) + (size_t)r->n_buffers + 1 + (size_t)more;
  *c = (carries){.place = mn_scope_alloc(r, room, sizeof *c->place)};
  mn_tensor ***const lists[] = {&c->first, &c->in, &c->out, &c->final};
  for (int i = 0; i < 4; i++)
    if (!(*lists[i] = mn_scope_alloc(r, room, sizeof **lists[i]))) return false;
  if (!c->place) return false;
  for (int i = 0; below && i < below->n; i++)
    if (below->state[i] != frame->position_state) c->place[c->n++] = &frame->store->states[below->state[i]].value;
  for (int i = 0; i < r->n_buffers; i++)
    if (r->buffer_written[i]) c->place[c->n++] = &r->buffers[i].value;
  c->place[c->n++] = &frame->position;
  for (int i = 0; i < c->n; i++) c->first[i] = *c->place[i];
  if (!frame->position) c->first[c->n - 1] = mn_full(r->graph, MN_I32, MN_SHAPE(frame->batch), 0);
  return true;
}

/* What each is behind the loop; of those that no piece changes, what it was before: a loop that they only stand beside owes them nothing. */
static void put_final(const carries *c) {
  for (int i = 0; i < c->n; i++) *c->place[i] = c->out[i] == c->in[i] ? c->first[i] : c->final[i];
}

/* Which piece of all loops piece i of this one is: i64 []. */
static mn_tensor *tick_of(mn_scope_root *r, mn_tensor *outside, mn_tensor *i) {
  enum { APART = 1000003 }; /* of two pieces of the loop outside */
  mn_tensor *tick = outside ? mn_add(r->graph, mn_mul_scalar(r->graph, outside, APART), i) : i;
  return mn_mod(r->graph, mn_add_scalar(r->graph, tick, 1), mn_scalar(r->graph, MN_I64, 0x1p32));
}

/* Something for each token of the stream that is looped over; a call's tokens are its own. */
static bool is_by_token(const looping *l, const mn_scope_report *report, int64_t length) {
  const mn_tensor *t = report->value;
  return t && report->frame == l->s->frame && t->shape.ndim >= 2 && t->shape.dim[0] == l->s->frame->batch && t->shape.dim[1] == length;
}

static mn_tensor *in_one_row(mn_graph *g, mn_tensor *x) { /* [n,m,...] -> [n*m,...] */
  if (!x) return NULL;
  mn_shape s = {.ndim = mn_ndim(x) - 1, .dim = {mn_dim(x, 0) * mn_dim(x, 1)}};
  for (int i = 2; i < mn_ndim(x); i++) s.dim[i - 1] = x->shape.dim[i];
  return mn_reshape(g, x, s);
}

/* Closes the loop, back in the graph around it: results y stacked by piece, as what is returned; so are, in their lists, what was
 * reported by token joined to [B, n*length, ...], other reports stacked, losses summed. NULL: a fault. */
static mn_tensor **bring_out(const looping *l, mn_scan_builder *b, carries *c, marks before, int n_y, mn_tensor *const *y,
                             mn_tensor *tick) {
  mn_scope_root *r = l->s->r;
  const int n_reports = r->n_reports - before.reports, n_losses = r->n_losses - before.losses, n_ys = n_y + n_reports + n_losses;
  mn_tensor **all = mn_scope_alloc(r, (size_t)n_ys, sizeof *all), **ys = mn_scope_alloc(r, (size_t)n_ys, sizeof *ys);
  r->graph = r->graph->parent;
  r->tick = tick;
  r->n_shares = before.shares;
  if (!all || !ys) return NULL;
  for (int i = 0; i < n_y; i++) all[i] = y[i];
  for (int i = 0; i < n_reports; i++) all[n_y + i] = r->reports[before.reports + i].value;
  for (int i = 0; i < n_losses; i++) all[n_y + n_reports + i] = r->losses[before.losses + i].value;
  mn_scan_end(b, c->out, n_ys, all, c->final, ys);
  if (r->graph->status != MN_OK) return NULL;
  for (int i = 0; i < n_reports; i++) {
    mn_scope_report *report = &r->reports[before.reports + i];
    mn_tensor *stacked = ys[n_y + i];
    if (l->once) report->value = mn_squeeze(r->graph, stacked, 0);
    else if (is_by_token(l, report, l->length)) report->value = from_pieces(r->graph, stacked);
    else report->value = l->grouped ? in_one_row(r->graph, stacked) : stacked;
  }
  for (int i = 0; i < n_losses; i++)
    r->losses[before.losses + i].value = mn_reshape(r->graph, mn_sum(r->graph, ys[n_y + n_reports + i], MN_ALL_AXES), (mn_shape){0});
  return ys;
}

/* The loop itself over n pieces. Results [B, n*m, ...], what was reported and lost brought out. */
static void over_pieces(const looping *l, int64_t n, mn_tensor *const *x, mn_tensor **out) {
  mn_scope_root *r = l->s->r;
  mn_scope_frame *frame = l->s->frame;
  mn_graph *outer = r->graph;
  mn_tensor *const tick = r->tick;
  const int64_t multiple = frame->multiple;
  const marks before = marks_of(l->s);
  carries c;
  mn_tensor **xs = mn_scope_alloc(r, (size_t)l->n_in + 2, sizeof *xs), **piece = mn_scope_alloc(r, (size_t)l->n_in + 2, sizeof *piece);
  mn_tensor **y = mn_scope_alloc(r, (size_t)l->n_out, sizeof *y); /* now: from inside the body no failure may return */
  if (!xs || !piece || !y || !carries_of(l, 0, &c)) return;
  int n_xs = 0;
  for (int i = 0; i < l->n_in; i++) xs[n_xs++] = to_pieces(outer, mn_slice(outer, x[i], 1, 0, n * l->length), n, l->length);
  if (r->draws) xs[n_xs++] = mn_add_scalar(outer, mn_iota(outer, MN_I64, MN_SHAPE(n), 0), (double)frame->turns);
  mn_tensor *const length = frame->length;
  if (length) xs[n_xs++] = mn_length_parts(outer, length, n, l->length);
  mn_scan_builder *b = mn_scan_begin(outer, n, MN_FORWARD, c.n, c.first, n_xs, xs, c.in, piece);
  mn_graph *body = mn_scan_body(b);
  if (!body) return;

  r->graph = body;
  frame->multiple = mn_common_divisor(multiple, l->length);
  frame->turns += n;
  for (int i = 0; i < c.n; i++) *c.place[i] = c.in[i];
  if (r->draws) r->tick = tick_of(r, tick, piece[l->n_in]);
  if (length) frame->length = piece[n_xs - 1];
  l->f(l->s, l->ctx, piece, y);
  for (int i = 0; i < c.n; i++) c.out[i] = *c.place[i];
  c.out[c.n - 1] = mn_moved(body, c.in[c.n - 1], frame->length, l->length);
  frame->length = length;

  mn_tensor **ys = bring_out(l, b, &c, before, l->n_out, y, tick);
  if (!ys) return;
  put_final(&c);
  for (int i = 0; i < l->n_out; i++) out[i] = from_pieces(outer, ys[i]);
}

/* The reports of the last, shorter piece behind those of the others. */
static void join_reports(const looping *l, int first, int middle, int64_t rest) {
  mn_scope_root *r = l->s->r;
  mn_graph *g = r->graph;
  for (int i = middle; i < r->n_reports; i++) {
    mn_scope_report *to = &r->reports[first + i - middle], *from = &r->reports[i];
    if (first + i - middle >= middle || strcmp(to->name, from->name) != 0) {
      mn_graph_fault(g, MN_ERR_INTERNAL, "a loop's last, shorter piece reports %s, which the others do not", from->name);
      return;
    }
    bool by_token = is_by_token(l, from, rest);
    mn_tensor *last = by_token || l->grouped ? from->value : mn_unsqueeze(g, from->value, 0);
    to->value = mn_concat(g, 2, (mn_tensor *[]){to->value, last}, by_token);
  }
  if (r->n_reports - middle != middle - first)
    mn_graph_fault(g, MN_ERR_INTERNAL, "a loop's last, shorter piece does not report all that the others do");
  r->n_reports = middle;
}

static void last_piece(const looping *l, mn_tensor *const *x, int64_t start, int64_t rest, marks before, mn_tensor **out) {
  mn_scope_root *r = l->s->r;
  mn_tensor *const tick = r->tick;
  const int middle = r->n_reports, shares = r->n_shares;
  mn_tensor **piece = slices(l, x, start, rest), **y = mn_scope_alloc(r, (size_t)l->n_out, sizeof *y);
  if (!piece || !y) return;
  if (r->draws) r->tick = tick_of(r, tick, mn_scalar(r->graph, MN_I64, (double)l->s->frame->turns));
  l->s->frame->turns++;
  mn_scope_uncall(r, l->s->frame->store, before.calls);
  mn_tensor *const length = l->s->frame->length;
  l->s->frame->length = mn_length_part(r->graph, length, start, rest);
  l->f(l->s, l->ctx, piece, y);
  l->s->frame->length = length;
  r->tick = tick;
  r->n_shares = shares;
  for (int i = 0; i < l->n_out; i++) out[i] = mn_concat(r->graph, 2, (mn_tensor *[]){out[i], y[i]}, 1);
  join_reports(l, before.reports, middle, rest);
}

static void loop(const looping *l, mn_tensor *const *x, mn_tensor **out) {
  mn_scope_root *r = l->s->r;
  mn_scope_frame *frame = l->s->frame;
  const int64_t T = mn_dim(x[0], 1), n = T / l->length, rest = T - n * l->length;
  if (n == 0 || (n == 1 && rest == 0)) {
    l->f(l->s, l->ctx, x, out);
    return;
  }
  mn_tensor *const start = frame->position, *const length = frame->length;
  const int64_t multiple = frame->multiple, piece = frame->piece;
  const marks before = marks_of(l->s);
  frame->loops++;
  frame->piece = l->length;
  if (r->graph == frame->store->home) {
    frame->length = mn_length_part(r->graph, length, 0, l->length);
    discover(l, slices(l, x, 0, l->length));
    frame->length = length;
  }
  if (r->graph->status == MN_OK) over_pieces(l, n, x, out);
  if (r->graph->status == MN_OK && rest) {
    frame->multiple = mn_common_divisor(multiple, l->length);
    last_piece(l, x, n * l->length, rest, before, out);
  }
  frame->loops--;
  frame->piece = piece;
  frame->position = start;
  frame->multiple = multiple;
}

/* ---- gradients that stop every so many pieces: a loop over groups of pieces ---- */
/* What a group of one piece has reported since `first`, stacked as a group of several has it. */
static void stack_reports(const looping *l, int first, int64_t T) {
  mn_scope_root *r = l->s->r;
  for (int i = first; i < r->n_reports && T <= l->length; i++)
    if (!is_by_token(l, &r->reports[i], T)) r->reports[i].value = mn_unsqueeze(r->graph, r->reports[i].value, 0);
}

static void one_group(mn_scope *s, void *ctx, mn_tensor *const *in, mn_tensor **out) {
  const looping *l = ctx;
  mn_state_store *t = s->frame->store;
  const mn_state_group *below = mn_state_group_of(t, s->state_path);
  for (int i = 0; below && i < below->n; i++) {
    mn_tensor **value = &t->states[below->state[i]].value;
    if (*value && mn_dtype_is_float((*value)->dtype)) *value = mn_stop_gradient(s->r->graph, *value);
  }
  const int first = s->r->n_reports;
  loop(l, in, out);
  stack_reports(l, first, mn_dim(in[0], 1));
}

/* The first group keeps its gradient, to what the states begin with; the others begin from constants. */
static void loop_with_stops(const looping *l, int64_t every, mn_tensor *const *x, mn_tensor **out) {
  mn_scope_root *r = l->s->r;
  mn_scope_frame *frame = l->s->frame;
  const int64_t T = mn_dim(x[0], 1), group = every * l->length;
  if (T <= group) {
    loop(l, x, out);
    return;
  }
  mn_tensor *const start = frame->position;
  const int64_t multiple = frame->multiple;
  const marks before = marks_of(l->s);
  mn_tensor **first = slices(l, x, 0, group), **others = slices(l, x, group, T - group);
  mn_tensor **y = mn_scope_alloc(r, (size_t)l->n_out, sizeof *y);
  if (!first || !others || !y) return;
  mn_tensor *const length = frame->length;
  frame->loops++;
  frame->length = mn_length_part(r->graph, length, 0, group);
  loop(l, first, out);
  stack_reports(l, before.reports, group);
  const int middle = r->n_reports;
  mn_tensor *begin = start ? start : mn_full(r->graph, MN_I32, MN_SHAPE(frame->batch), 0);
  frame->position = mn_moved(r->graph, begin, frame->length, group);
  frame->length = mn_length_part(r->graph, length, group, T - group);
  frame->multiple = mn_common_divisor(multiple, group);
  const looping groups = {
      .s = l->s, .length = group, .f = one_group, .ctx = (void *)l, .n_in = l->n_in, .n_out = l->n_out, .grouped = true};
  mn_scope_uncall(r, frame->store, before.calls);
  loop(&groups, others, y);
  if (r->graph->status == MN_OK) {
    for (int i = 0; i < l->n_out; i++) out[i] = mn_concat(r->graph, 2, (mn_tensor *[]){out[i], y[i]}, 1);
    join_reports(&groups, before.reports, middle, T - group);
  }
  frame->loops--;
  frame->length = length;
  frame->position = start;
  frame->multiple = multiple;
}

void mn_scope_loop_n(mn_scope *s, mn_loop how, mn_loop_function f, void *ctx, int n_in, mn_tensor *const *in, int n_out, mn_tensor **out) {
  const looping l = {.s = s, .length = how.length, .f = f, .ctx = ctx, .n_in = n_in, .n_out = n_out};
  for (int i = 0; i < n_out; i++) out[i] = NULL;
  if (how.length < 1 || how.stop_every < 0 || n_in < 1) {
    mn_graph_fault(s->r->graph, MN_ERR_ARG, "a loop over pieces of %lld tokens of %d tensors", (long long)how.length, n_in);
    return;
  }
  for (int i = 0; i < n_in; i++) {
    if (!in[i]) return;
    if (in[i]->shape.ndim >= 2 && mn_dim(in[i], 1) == mn_dim(in[0], 1)) continue;
    mn_graph_fault(s->r->graph, MN_ERR_SHAPE, "what a loop over time runs over has %lld tokens in tensor %d and %lld in tensor 0",
                   (long long)mn_dim(in[i], 1), i, (long long)mn_dim(in[0], 1));
    return;
  }
  if (how.stop_every > 0) loop_with_stops(&l, how.stop_every, in, out);
  else loop(&l, in, out);
  if (s->r->graph->status != MN_OK)
    for (int i = 0; i < n_out; i++) out[i] = NULL;
}

/* ---- a condition: a loop of one piece whose live length is 0 or 1 ---- */
void mn_scope_when(mn_scope *s, mn_tensor *flag, mn_loop_function f, void *ctx, int n_in, mn_tensor *const *in, int n_out,
                   mn_tensor *const *otherwise, mn_tensor **out) {
  mn_scope_root *r = s->r;
  mn_scope_frame *frame = s->frame;
  mn_graph *outer = r->graph;
  mn_tensor *const tick = r->tick, *const position = frame->position;
  const looping l = {.s = s, .length = 1, .f = f, .ctx = ctx, .n_in = n_in, .n_out = n_out, .once = true};
  const marks before = marks_of(s);
  carries c;
  for (int i = 0; i < n_out; i++) out[i] = NULL;
  if (flag && (flag->shape.ndim != 0 || (flag->dtype != MN_BOOL && flag->dtype != MN_I32)))
    mn_graph_fault(outer, MN_ERR_SHAPE, "a condition is one bool or one i32");
  mn_tensor **y = mn_scope_alloc(r, (size_t)n_out, sizeof *y), **given = mn_scope_alloc(r, (size_t)n_in, sizeof *given);
  if (!flag || !y || !given || outer->status != MN_OK) return;
  frame->loops++;
  if (outer == frame->store->home) discover(&l, in);
  if (!carries_of(&l, n_out, &c)) return;
  for (int i = 0; i < n_out; i++) c.first[c.n + i] = otherwise[i];
  mn_scan_builder *b = mn_scan_begin(outer, 1, MN_FORWARD, c.n + n_out, c.first, 0, NULL, c.in, NULL);
  mn_scan_set_live(b, flag->dtype == MN_I32 ? flag : mn_cast(outer, flag, MN_I32));
  mn_graph *body = mn_scan_body(b);
  if (!body) return;
  r->graph = body;
  for (int i = 0; i < c.n; i++) *c.place[i] = c.in[i];
  frame->position = position; /* it does not move */
  for (int i = 0; i < n_in; i++) given[i] = mn_capture(body, in[i]);
  f(s, ctx, given, y);
  for (int i = 0; i < c.n; i++) c.out[i] = *c.place[i];
  c.out[c.n - 1] = c.in[c.n - 1];
  for (int i = 0; i < n_out; i++) c.out[c.n + i] = y[i];
  if (bring_out(&l, b, &c, before, 0, NULL, tick)) {
    put_final(&c);
    for (int i = 0; i < n_out; i++) out[i] = c.final[c.n + i];
  }
  frame->position = position;
  frame->loops--;
}

void mn_scope_foresee(mn_scope *s, mn_loop_function f, void *ctx, int n_in, mn_tensor *const *in, int n_out) {
  if (s->r->graph != s->frame->store->home || s->r->graph->status != MN_OK) return; /* who opened the loop has seen it */
  const looping l = {.s = s, .length = 1, .f = f, .ctx = ctx, .n_in = n_in, .n_out = n_out};
  s->frame->loops++; /* states must be kept */
  discover(&l, in);
  s->frame->loops--;
}

/* ---- one in, one out ---- */
typedef struct one_to_one {
  mn_segment_function f;
  void *ctx;
} one_to_one;
static void apply_one(mn_scope *s, void *ctx, mn_tensor *const *in, mn_tensor **out) {
  const one_to_one *one = ctx;
  out[0] = one->f(s, one->ctx, in[0]);
}

mn_tensor *mn_scope_loop(mn_scope *s, int64_t length, mn_segment_function f, void *ctx, mn_tensor *x) {
  mn_tensor *y;
  mn_scope_loop_n(s, (mn_loop){.length = length}, apply_one, &(one_to_one){f, ctx}, 1, &x, 1, &y);
  return y;
}
