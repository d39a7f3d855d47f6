/* scan_grad.c - the gradient of a loop over time.
 *
 * The gradient of a scan is a scan that runs the other way. Step t needs the carry with which the forward step t was entered. A scan that
 * is short, or whose carries find room (graph.h: keep_bytes), keeps all of them. Another keeps the carry at the start of every segment of
 * s ~ sqrt(length) steps; the reverse loop over segments first runs the segment forward again, keeping its carries, then backward. So
 * memory grows with sqrt(length), arithmetic by one forward pass, and the graph not at all. */
#include "graph/compose.h"
#include "graph/loops_alike.h"
#include "graph/ops.h"
#include "graph/scan_internal.h"

#include <math.h>

enum { KEEP_ALL = 16 }; /* up to this many steps every carry is kept, however large */

/* What one stretch of the loop, run backwards, is given and gives. All arrays belong to the graph `g` it is built in. */
typedef struct stretch {
  const mn_scan_attr *a; /* the forward loop                                      */
  int64_t len;           /* steps                                                 */
  mn_tensor *live;       /* i32 []: how many of them run; NULL: all               */
  mn_tensor **saved;     /* [n_carry] carries entering each step: [len, ...]      */
  mn_tensor **xs;        /* [n_xs]    [len, ...]                                  */
  mn_tensor **consts;    /* [n_const]                                             */
  mn_tensor **dys;       /* [n_ys]    [len, ...] or NULL                          */
  mn_tensor **dsaved;    /* [n_carry] [len, ...] or NULL: reach the entering carry */
  mn_tensor **dcarry;    /* [n_carry] in and out; NULL for non-float carries       */
  mn_tensor **dxs;       /* [n_xs] out, NULL where not wanted                     */
  mn_tensor **dconsts;   /* [n_const] in and out: running sums; NULL not wanted    */
  const bool *want_x;
  const mn_node *of; /* the forward loop's node, where this is all of it; NULL: a part */
} stretch;

/* What of its operands and results there is: n answers. */
static const bool *what_is_there(mn_graph *g, const stretch *s, int *n) {
  const mn_scan_attr *a = s->a;
  bool *there = NEW(g, bool, 2 * a->n_carry + a->n_const + a->n_ys + a->n_xs);
  *n = 0;
  for (int i = 0; i < a->n_carry && there; i++) there[(*n)++] = s->dcarry[i], there[(*n)++] = s->dsaved[i];
  for (int i = 0; i < a->n_const && there; i++) there[(*n)++] = s->dconsts[i];
  for (int j = 0; j < a->n_ys && there; j++) there[(*n)++] = s->dys[j];
  for (int i = 0; i < a->n_xs && there; i++) there[(*n)++] = s->want_x[i];
  return there;
}

/* Results of a reverse loop to where they belong. */
static void take_reversed(stretch *s, mn_tensor *const *final, mn_tensor *const *stacked) {
  const mn_scan_attr *a = s->a;
  int c = 0, y = 0;
  for (int i = 0; i < a->n_carry; i++)
    if (s->dcarry[i]) s->dcarry[i] = final[c++];
  for (int i = 0; i < a->n_const; i++)
    if (s->dconsts[i]) s->dconsts[i] = final[c++];
  for (int i = 0; i < a->n_xs; i++) s->dxs[i] = s->want_x[i] ? stacked[y++] : NULL;
}

/* One reverse scan: each step rebuilds the body at its saved carry and differentiates it. */
static void reverse_stretch(mn_graph *g, stretch *s) {
  const mn_scan_attr *a = s->a;
  int nc = a->n_carry, max = nc + a->n_xs + a->n_const + a->n_ys + nc;
  mn_tensor **carries = NEW(g, mn_tensor *, max), **cin = NEW(g, mn_tensor *, max);
  mn_tensor **xs = NEW(g, mn_tensor *, 2 * max), **xin = NEW(g, mn_tensor *, 2 * max), **in = NEW(g, mn_tensor *, 4 * max);
  if (g->status != MN_OK) return;
  int n_carry = 0, n_xs = 0, n_there = 0;
  for (int i = 0; i < nc; i++)
    if (s->dcarry[i]) carries[n_carry++] = s->dcarry[i];
  for (int i = 0; i < a->n_const; i++)
    if (s->dconsts[i]) carries[n_carry++] = s->dconsts[i];
  for (int i = 0; i < nc; i++) xs[n_xs++] = s->saved[i];
  for (int i = 0; i < a->n_xs; i++) xs[n_xs++] = s->xs[i];
  for (int j = 0; j < a->n_ys; j++)
    if (s->dys[j]) xs[n_xs++] = s->dys[j];
  for (int i = 0; i < nc; i++)
    if (s->dsaved[i] && s->dcarry[i]) xs[n_xs++] = s->dsaved[i];
  const bool *there = s->of && !s->live && !a->body->effects ? what_is_there(g, s, &n_there) : NULL;
  for (int i = 0; i < n_carry + n_xs; i++) in[i] = i < n_carry ? carries[i] : xs[i - n_carry];
  const mn_node *again = there ? mn_reversed_again(g, s->of, n_there, there, in, n_carry + n_xs) : NULL;
  if (again) {
    take_reversed(s, again->out, again->out + n_carry);
    return;
  }

  mn_scan_builder *b = mn_scan_begin(g, s->len, a->reverse ? MN_FORWARD : MN_BACKWARD, n_carry, carries, n_xs, xs, cin, xin);
  mn_graph *body = mn_scan_body(b);
  if (!body) return;
  if (s->live) mn_scan_set_live(b, s->live);
  /* the body again, in the new body */
  int n_map = nc + a->n_xs + a->n_const, n_out = nc + a->n_ys;
  mn_tensor **map_to = NEW(g, mn_tensor *, n_map), **outs = NEW(g, mn_tensor *, n_out);
  mn_tensor **ys = NEW(g, mn_tensor *, n_out), **dys = NEW(g, mn_tensor *, n_out);
  mn_tensor **wrt = NEW(g, mn_tensor *, n_map), **dwrt = NEW(g, mn_tensor *, n_map);
  mn_tensor **cout = NEW(g, mn_tensor *, n_carry), **yout = NEW(g, mn_tensor *, a->n_xs);
  if (g->status != MN_OK) return;
  int k = 0;
  for (int i = 0; i < nc + a->n_xs; i++) map_to[i] = mn_identity(body, xin[k++]);
  for (int i = 0; i < a->n_const; i++) map_to[nc + a->n_xs + i] = mn_identity(body, mn_capture(body, s->consts[i]));
  if (mn_graph_inline(body, n_map, a->body_in, map_to, n_out, a->body_out, outs) != MN_OK) return;
  int n_y = 0, n_wrt = 0, c = 0;
  for (int i = 0; i < nc; i++)
    if (s->dcarry[i]) ys[n_y] = outs[i], dys[n_y++] = cin[c++];
  for (int j = 0; j < a->n_ys; j++)
    if (s->dys[j]) ys[n_y] = outs[nc + j], dys[n_y++] = xin[k++];
  for (int i = 0; i < nc; i++)
    if (s->dcarry[i]) wrt[n_wrt++] = map_to[i];
  for (int i = 0; i < a->n_xs; i++)
    if (s->want_x[i]) wrt[n_wrt++] = map_to[nc + i];
  for (int i = 0; i < a->n_const; i++)
    if (s->dconsts[i]) wrt[n_wrt++] = map_to[nc + a->n_xs + i];
  if (mn_grad(body, n_y, ys, dys, n_wrt, wrt, dwrt) != MN_OK) {
    mn_graph_fault(g, MN_ERR_INTERNAL, "%s", mn_message());
    return;
  }
  int w = 0, o = 0, n_yo = 0;
  for (int i = 0; i < nc; i++)
    if (s->dcarry[i]) {
      cout[o] = dwrt[w++];
      if (s->dsaved[i]) cout[o] = mn_add(body, cout[o], xin[k++]);
      o++;
    }
  for (int i = 0; i < a->n_xs; i++)
    if (s->want_x[i]) yout[n_yo++] = dwrt[w++];
  for (int i = 0; i < a->n_const; i++)
    if (s->dconsts[i]) {
      cout[o] = mn_add(body, cin[o], dwrt[w++]);
      o++;
    }
  mn_tensor **final = NEW(g, mn_tensor *, n_carry), **stacked = NEW(g, mn_tensor *, n_yo);
  if (g->status != MN_OK) return;
  mn_scan_end(b, cout, n_yo, yout, final, stacked);
  if (g->status != MN_OK) return;
  mn_reversed *r = there && n_carry + n_yo ? NEW(g, mn_reversed, 1) : NULL;
  if (r) *r = (mn_reversed){s->of, (n_carry ? final : stacked)[0]->node, n_there, there, g->reversed}, g->reversed = r;
  take_reversed(s, final, stacked);
}

static mn_tensor *clamped(mn_graph *g, mn_tensor *x, int64_t most) { /* to [0, most] */
  return mn_minimum(g, mn_maximum(g, x, mn_full(g, MN_I32, x->shape, 0)), mn_full(g, MN_I32, x->shape, (double)most));
}

/* Of a loop with live length `live`, or NULL: how many steps of the rows [start, start + len) run. */
static mn_tensor *live_part(mn_graph *g, mn_tensor *live, int64_t start, int64_t len) {
  return live ? clamped(g, mn_sub(g, live, mn_full(g, MN_I32, live->shape, (double)start)), len) : NULL;
}

/* The forward loop over one segment again, from the carries `start`, keeping every entering carry. */
static void replay_stretch(mn_graph *g, stretch *s, mn_tensor **start) {
  mn_scan_attr a = *s->a;
  mn_tensor **in = NEW(g, mn_tensor *, mn_scan_body_inputs(&a) + 1);
  if (!in) return;
  in[mn_scan_body_inputs(&a)] = s->live;
  for (int i = 0; i < a.n_carry; i++) in[i] = start[i];
  for (int i = 0; i < a.n_xs; i++) in[a.n_carry + i] = s->xs[i];
  for (int i = 0; i < a.n_const; i++) in[a.n_carry + a.n_xs + i] = s->consts[i];
  a.length = s->len;
  a.n_ys = 0;
  a.save_every = 1;
  mn_node *n = a.body->effects ? mn_scan_without_effects(g, &a, in) : mn_scan_node(g, &a, in);
  if (!n) return;
  for (int i = 0; i < a.n_carry; i++) s->saved[i] = n->out[a.n_carry + i];
}

static mn_tensor *rows(mn_graph *g, mn_tensor *t, int64_t start, int64_t len) { return t ? mn_slice(g, t, 0, start, len) : NULL; }

static mn_tensor *split_rows(mn_graph *g, mn_tensor *t, int64_t n, int64_t s) { /* [n*s, ...] -> [n, s, ...] */
  if (!t) return NULL;
  mn_shape shape = mn_shape_with_first(&t->shape, n);
  if (shape.ndim > 1) shape.dim[1] = s;
  return mn_reshape(g, t, shape);
}

static mn_tensor *join_rows(mn_graph *g, mn_tensor *t) { /* the inverse */
  if (!t) return NULL;
  mn_shape s = mn_shape_without_first(&t->shape);
  s.dim[0] *= t->shape.dim[0];
  return mn_reshape(g, t, s);
}

/* One segment (in graph g), from the carries it was entered with. No step may be live in it: then nobody kept its carries, and what
 * would reach them is not there. */
static void segment_vjp(mn_graph *g, stretch *s, mn_tensor **start, mn_tensor **dstart) {
  mn_tensor **none = NEW(g, mn_tensor *, s->a->n_carry);
  s->saved = NEW(g, mn_tensor *, s->a->n_carry);
  if (g->status != MN_OK) return;
  s->dsaved = none;
  replay_stretch(g, s, start);
  if (g->status == MN_OK) reverse_stretch(g, s);
  for (int i = 0; i < s->a->n_carry && g->status == MN_OK; i++) {
    if (!dstart[i] || !s->dcarry[i]) continue;
    mn_tensor *d = dstart[i];
    if (s->live) d = mn_select(g, mn_lt(g, mn_full(g, MN_I32, s->live->shape, 0), s->live), d, mn_zeros_like(g, d));
    s->dcarry[i] = mn_add(g, s->dcarry[i], d);
  }
}

/* How many steps of each of n_seg segments run, i32 [n_seg], and how many segments have any. */
static void live_segments(mn_graph *g, mn_tensor *live, int64_t n_seg, int64_t every, mn_tensor **each, mn_tensor **segments) {
  mn_tensor *starts = mn_mul_scalar(g, mn_iota(g, MN_I32, MN_SHAPE(n_seg), 0), (double)every);
  mn_tensor *left = mn_sub(g, clamped(g, live, n_seg * every), starts);
  *each = clamped(g, left, every);
  *segments = mn_reshape(g, mn_sum(g, mn_cast(g, mn_lt(g, mn_zeros_like(g, left), left), MN_I32), MN_AXIS(0)), (mn_shape){0});
}

/* All full segments [0, n_seg): a reverse loop whose body is segment_vjp. */
static void segments_vjp(mn_graph *g, stretch *s, int64_t n_seg, int64_t every, mn_tensor **start, mn_tensor **dstart) {
  const mn_scan_attr *a = s->a;
  int nc = a->n_carry, max = 2 * nc + a->n_xs + a->n_ys + a->n_const + 1, n_carry = 0, n_xs = 0;
  mn_tensor *live_each = NULL, *live_count = NULL;
  if (s->live) live_segments(g, s->live, n_seg, every, &live_each, &live_count);
  mn_tensor **carries = NEW(g, mn_tensor *, max), **cin = NEW(g, mn_tensor *, max);
  mn_tensor **xs = NEW(g, mn_tensor *, max), **xin = NEW(g, mn_tensor *, max);
  if (g->status != MN_OK) return;
  for (int i = 0; i < nc; i++)
    if (s->dcarry[i]) carries[n_carry++] = s->dcarry[i];
  for (int i = 0; i < a->n_const; i++)
    if (s->dconsts[i]) carries[n_carry++] = s->dconsts[i];
  for (int i = 0; i < nc; i++) xs[n_xs++] = start[i];
  for (int i = 0; i < a->n_xs; i++) xs[n_xs++] = split_rows(g, s->xs[i], n_seg, every);
  for (int j = 0; j < a->n_ys; j++)
    if (s->dys[j]) xs[n_xs++] = split_rows(g, s->dys[j], n_seg, every);
  for (int i = 0; i < nc; i++)
    if (dstart[i] && s->dcarry[i]) xs[n_xs++] = dstart[i];
  if (s->live) xs[n_xs++] = live_each;
  mn_scan_builder *b = mn_scan_begin(g, n_seg, a->reverse ? MN_FORWARD : MN_BACKWARD, n_carry, carries, n_xs, xs, cin, xin);
  mn_graph *body = mn_scan_body(b);
  if (!body) return;
  if (s->live) mn_scan_set_live(b, live_count);

  stretch in = {.a = a, .len = every, .want_x = s->want_x};
  mn_tensor **first = NEW(g, mn_tensor *, nc), **dfirst = NEW(g, mn_tensor *, nc);
  in.xs = NEW(g, mn_tensor *, a->n_xs);
  in.consts = NEW(g, mn_tensor *, a->n_const);
  in.dys = NEW(g, mn_tensor *, a->n_ys);
  in.dcarry = NEW(g, mn_tensor *, nc);
  in.dxs = NEW(g, mn_tensor *, a->n_xs);
  in.dconsts = NEW(g, mn_tensor *, a->n_const);
  mn_tensor **cout = NEW(g, mn_tensor *, n_carry), **yout = NEW(g, mn_tensor *, a->n_xs);
  mn_tensor **final = NEW(g, mn_tensor *, n_carry), **stacked = NEW(g, mn_tensor *, a->n_xs);
  if (g->status != MN_OK) return;
  int k = 0, c = 0;
  for (int i = 0; i < nc; i++) in.dcarry[i] = s->dcarry[i] ? cin[c++] : NULL;
  for (int i = 0; i < a->n_const; i++) {
    in.dconsts[i] = s->dconsts[i] ? cin[c++] : NULL;
    in.consts[i] = mn_capture(body, s->consts[i]);
  }
  for (int i = 0; i < nc; i++) first[i] = xin[k++];
  for (int i = 0; i < a->n_xs; i++) in.xs[i] = xin[k++];
  for (int j = 0; j < a->n_ys; j++) in.dys[j] = s->dys[j] ? xin[k++] : NULL;
  for (int i = 0; i < nc; i++) dfirst[i] = dstart[i] && s->dcarry[i] ? xin[k++] : NULL;
  in.live = s->live ? xin[k++] : NULL;
  segment_vjp(body, &in, first, dfirst);
  if (g->status != MN_OK) return;
  c = 0;
  for (int i = 0; i < nc; i++)
    if (in.dcarry[i]) cout[c++] = in.dcarry[i];
  for (int i = 0; i < a->n_const; i++)
    if (in.dconsts[i]) cout[c++] = in.dconsts[i];
  int n_yo = 0;
  for (int i = 0; i < a->n_xs; i++)
    if (s->want_x[i]) yout[n_yo++] = in.dxs[i];
  mn_scan_end(b, cout, n_yo, yout, final, stacked);
  if (g->status != MN_OK) return;
  c = n_yo = 0;
  for (int i = 0; i < nc; i++)
    if (s->dcarry[i]) s->dcarry[i] = final[c++];
  for (int i = 0; i < a->n_const; i++)
    if (s->dconsts[i]) s->dconsts[i] = final[c++];
  for (int i = 0; i < a->n_xs; i++) s->dxs[i] = s->want_x[i] ? join_rows(g, stacked[n_yo++]) : NULL;
}

/* Which results of the body depend on something whose gradient is wanted, by way of later steps included. The others pay for no
 * gradient: a mask that is carried along, a constant rate. */
static bool *wanted_results(mn_graph *g, const mn_scan_attr *a, const bool *need) {
  const int n_in = mn_scan_body_inputs(a), n_out = a->n_carry + a->n_ys;
  bool *result = NEW(g, bool, n_out), *on = NEW(g, bool, a->body->n_nodes);
  if (!result || !on) return NULL;
  for (int i = 0; i < n_in; i++) on[a->body_in[i]->node->id] = need[i] && mn_dtype_is_float(a->body_in[i]->dtype);
  for (bool changed = true; changed;) {
    changed = false;
    for (int i = 0; i < a->body->n_nodes; i++) {
      const mn_node *n = a->body->nodes[i];
      for (int k = 0; k < n->n_in && !on[i] && !n->op->no_grad; k++) on[i] = on[n->in[k]->node->id] && mn_dtype_is_float(n->in[k]->dtype);
    }
    for (int j = 0; j < n_out; j++) {
      result[j] = on[a->body_out[j]->node->id] && mn_dtype_is_float(a->body_out[j]->dtype);
      if (j >= a->n_carry || !result[j] || on[a->body_in[j]->node->id]) continue;
      on[a->body_in[j]->node->id] = changed = true;
    }
  }
  for (int i = 0; i < a->n_carry; i++) result[i] |= on[a->body_in[i]->node->id]; /* what a carry begins with counts, too */
  return result;
}

/* Is there room for the carries of all steps? Then it is taken. */
static bool takes_room(mn_graph *g, const mn_scan_attr *a) {
  int64_t bytes = 0, most = g->keep_bytes / a->length;
  for (int i = 0; i < a->n_carry && bytes <= most; i++)
    bytes += mn_shape_count(&a->body_in[i]->shape) * (int64_t)mn_dtype_size(a->body_in[i]->dtype);
  if (bytes > most) return false;
  g->keep_bytes -= bytes * a->length;
  return true;
}

/* Carries that no step reads or changes, as are states that stand beside a loop: what reaches their end reaches their start. */
static bool *idle_carries(mn_graph *g, const mn_scan_attr *a) {
  bool *idle = NEW(g, bool, a->n_carry), *read = NEW(g, bool, a->body->n_nodes);
  if (!idle || !read) return NULL;
  for (int i = 0; i < a->body->n_nodes; i++)
    for (int k = 0; k < a->body->nodes[i]->n_in; k++) read[a->body->nodes[i]->in[k]->node->id] = true;
  for (int j = 0; j < a->n_carry + a->n_ys; j++)
    if (j >= a->n_carry || a->body_out[j] != a->body_in[j]) read[a->body_out[j]->node->id] = true;
  for (int i = 0; i < a->n_carry; i++) idle[i] = a->body_out[i] == a->body_in[i] && !read[a->body_in[i]->node->id];
  return idle;
}

void mn_scan_grad(mn_graph *g, mn_node *n, mn_tensor **dout, const bool *need, mn_tensor **din) {
  const mn_scan_attr *a = n->attr;
  int nc = a->n_carry, nx = a->n_xs, first_saved = nc + a->n_ys;
  bool already_saved = a->save_every > 0, any = false;
  const bool *wanted = wanted_results(g, a, need), *idle = idle_carries(g, a);
  for (int j = 0; j < n->n_out && wanted && idle; j++) {
    const int result = j < first_saved ? j : j - first_saved;
    any |= dout[j] && wanted[result];
  }
  if (!any) return;
  int64_t length = a->length;
  int64_t every = already_saved ? a->save_every : length <= KEEP_ALL || takes_room(g, a) ? 1 : (int64_t)ceil(sqrt((double)length));
  mn_scan_save_carries(g, n, every);
  mn_tensor *live = a->has_live ? n->in[mn_scan_body_inputs(a)] : NULL;
  stretch s = {.a = a, .live = live};
  s.dys = NEW(g, mn_tensor *, a->n_ys);
  s.dcarry = NEW(g, mn_tensor *, nc);
  s.dconsts = NEW(g, mn_tensor *, a->n_const);
  s.consts = n->in + nc + nx;
  s.dxs = NEW(g, mn_tensor *, nx);
  mn_tensor **saved = NEW(g, mn_tensor *, nc), **dsaved = NEW(g, mn_tensor *, nc);
  if (g->status != MN_OK) return;
  for (int i = 0; i < nc; i++) {
    saved[i] = n->out[first_saved + i];
    dsaved[i] = already_saved ? dout[first_saved + i] : NULL;
    if (wanted[i] && (!idle[i] || dsaved[i])) s.dcarry[i] = dout[i] ? dout[i] : mn_zeros_like(g, n->in[i]);
  }
  for (int j = 0; j < a->n_ys; j++) s.dys[j] = wanted[nc + j] ? dout[nc + j] : NULL;
  for (int i = 0; i < a->n_const; i++)
    if (need[nc + nx + i]) s.dconsts[i] = mn_zeros_like(g, s.consts[i]);
  s.want_x = need + nc;

  if (every == 1) {
    s.of = n;
    s.len = length;
    s.saved = saved;
    s.dsaved = dsaved;
    s.xs = n->in + nc;
    reverse_stretch(g, &s);
    for (int i = 0; i < nx; i++) din[nc + i] = s.dxs[i];
  } else {
    int64_t n_seg = length / every, full = n_seg * every, rest = length - full;
    mn_tensor **dx_full = NEW(g, mn_tensor *, nx), **dx_rest = NEW(g, mn_tensor *, nx), **whole_dys = s.dys;
    mn_tensor **start = NEW(g, mn_tensor *, nc), **dstart = NEW(g, mn_tensor *, nc);
    if (g->status != MN_OK) return;
    /* Backwards over what ran last first: for a forward loop the rest, for a reverse loop the full segments. */
    for (int part = 0; part < 2; part++) {
      bool is_rest = (part == 0) != a->reverse;
      int64_t at = is_rest ? full : 0, len = is_rest ? rest : full;
      if (len == 0) continue;
      s.xs = NEW(g, mn_tensor *, nx);
      s.dys = NEW(g, mn_tensor *, a->n_ys);
      s.dxs = is_rest ? dx_rest : dx_full;
      s.live = live_part(g, live, at, len);
      if (g->status != MN_OK) return;
      for (int i = 0; i < nx; i++) s.xs[i] = rows(g, n->in[nc + i], at, len);
      for (int j = 0; j < a->n_ys; j++) s.dys[j] = rows(g, whole_dys[j], at, len);
      for (int i = 0; i < nc; i++) {
        start[i] = rows(g, saved[i], is_rest ? n_seg : 0, is_rest ? 1 : n_seg);
        dstart[i] = rows(g, dsaved[i], is_rest ? n_seg : 0, is_rest ? 1 : n_seg);
        if (is_rest) {
          start[i] = mn_squeeze(g, start[i], 0);
          dstart[i] = dstart[i] ? mn_squeeze(g, dstart[i], 0) : NULL;
        }
      }
      if (is_rest) {
        s.len = rest;
        segment_vjp(g, &s, start, dstart);
      } else {
        segments_vjp(g, &s, n_seg, every, start, dstart);
      }
      if (g->status != MN_OK) return;
    }
    for (int i = 0; i < nx; i++)
      if (s.want_x[i]) din[nc + i] = rest ? mn_concat(g, 2, (mn_tensor *[]){dx_full[i], dx_rest[i]}, 0) : dx_full[i];
  }
  for (int i = 0; i < nc; i++) din[i] = idle[i] && !dsaved[i] ? dout[i] : s.dcarry[i];
  for (int i = 0; i < a->n_const; i++) din[nc + nx + i] = s.dconsts[i];
}
