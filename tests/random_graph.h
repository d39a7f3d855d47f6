/* random_graph.h - graphs drawn at random from every operation that has a value on every backend: small shapes, loops, gradients,
 * assignments, each value with a bound of its size. */
#ifndef MN_RANDOM_GRAPH_H
#define MN_RANDOM_GRAPH_H

#include "gradcheck.h"

#include "graph/fused_norm.h"
#include "graph/fused_softmax.h"
#include "graph/ops.h"

enum { POOL = 96, LEAVES = 10, VARS = 4, OUTS = 6, GRADS = 4, RUNS = 3, OPS = 22, GRAPHS = 400 };
enum { WITH_ASSIGNS = 1, WITH_GRADS = 2, WITH_SCANS = 4, WITH_ALL = 7 };

typedef struct item { /* something to build with */
  mn_tensor *t;
  double bound; /* on the magnitude, roughly */
  bool exact;   /* the same to the last bit however it is computed: may decide something */
} item;

typedef struct drawn {
  mn_graph *g;
  mn_dtype real;
  bool bf16, smooth; /* smooth: will be differentiated, so no kink may lie where rounding decides */
  uint64_t rng;
  unsigned with;
  int n_leaves, n_vars, n_outs;
  mn_tensor *leaf[LEAVES + VARS]; /* inputs, then variables */
  mn_tensor *var[VARS], *next[VARS], *out[OUTS + 2 * GRADS];
} drawn;

typedef struct pool {
  mn_graph *g;
  int n, depth;
  item at[POOL];
} pool;

static uint64_t draw(drawn *d) { return d->rng = mn_splitmix64(d->rng + 0x9E3779B97F4A7C15u); }
static int below(drawn *d, int n) { return n > 0 ? (int)(draw(d) % (uint64_t)n) : 0; }

static int64_t some_size(drawn *d) {
  static const int64_t sizes[] = {1, 2, 3, 4, 5, 4, 3, 2, 8, 7, 17, 33};
  return sizes[below(d, 12)];
}

static void keep(pool *p, mn_tensor *t, double bound, bool exact) {
  if (!t || p->n == POOL || mn_shape_count(&t->shape) > 6000) return;
  if (mn_dtype_is_float(t->dtype) && bound > 6) t = mn_tanh(p->g, t), bound = 1, exact = false;
  p->at[p->n++] = (item){t, bound, exact};
}

static bool is_real(const item *i) { return mn_dtype_is_float(i->t->dtype); }
static bool is_int(const item *i) { return i->t->dtype == MN_I32; }
static bool is_bool(const item *i) { return i->t->dtype == MN_BOOL; }
static bool is_exact_real(const item *i) { return is_real(i) && i->exact; }
static bool any(const item *i) { return i->t != NULL; }
static bool has_axis(const item *i) { return i->t->shape.ndim > 0; }
static bool real_axis(const item *i) { return is_real(i) && i->t->shape.ndim > 0; }
static bool is_matrix(const item *i) { return is_real(i) && i->t->shape.ndim > 1; }

static item *pick(drawn *d, pool *p, bool (*fits)(const item *)) { /* the newer half of the time */
  for (int tries = 0; tries < 24; tries++) {
    int recent = p->n > 8 && below(d, 2) ? p->n - 1 - below(d, 8) : below(d, p->n);
    if (fits(&p->at[recent])) return &p->at[recent];
  }
  return NULL;
}

/* Another tensor of the pool of the type of a that broadcasts with it, or one made of a. */
static item partner(drawn *d, pool *p, const item *a) {
  for (int tries = 0; tries < 12; tries++) {
    item *b = &p->at[below(d, p->n)];
    const mn_shape *x = &a->t->shape, *y = &b->t->shape;
    bool ok = b->t->dtype == a->t->dtype;
    for (int i = x->ndim - 1, j = y->ndim - 1; ok && i >= 0 && j >= 0; i--, j--)
      ok = x->dim[i] == y->dim[j] || x->dim[i] == 1 || y->dim[j] == 1;
    if (ok) return *b;
  }
  if (a->t->shape.ndim > 0 && a->t->dtype != MN_BOOL) {
    item b = *a;
    b.t = mn_slice(p->g, a->t, below(d, a->t->shape.ndim), 0, 1);
    return b;
  }
  return *a;
}

static void unary(drawn *d, pool *p, item a) {
  mn_graph *g = p->g;
  mn_tensor *x = a.t, *one = mn_scalar(g, x->dtype, 1);
  switch (below(d, 16)) {
  case 0:
    keep(p, mn_neg(g, x), a.bound, a.exact);
    break;
  case 1:
    if (a.exact || !d->smooth) keep(p, mn_abs(g, x), a.bound, a.exact);
    break;
  case 2:
    keep(p, mn_sqrt(g, mn_add(g, mn_square(g, x), one)), a.bound + 1, false);
    break;
  case 3:
    keep(p, mn_rsqrt(g, mn_add(g, mn_square(g, x), one)), 1, false);
    break;
  case 4:
    keep(p, mn_recip(g, mn_add(g, mn_square(g, x), one)), 1, false);
    break;
  case 5:
    keep(p, mn_exp(g, mn_tanh(g, x)), 3, false);
    break;
  case 6:
    keep(p, mn_log1p(g, mn_square(g, x)), a.bound, false);
    break;
  case 7:
    keep(p, mn_sin(g, x), 1, false);
    break;
  case 8:
    keep(p, mn_cos(g, x), 1, false);
    break;
  case 9:
    keep(p, mn_tanh(g, x), 1, false);
    break;
  case 10:
    keep(p, mn_sigmoid(g, x), 1, false);
    break;
  case 11:
    keep(p, mn_erf(g, x), 1, false);
    break;
  case 12:
    keep(p, mn_softplus(g, x), a.bound + 1, false);
    break;
  case 13:
    keep(p, mn_gelu(g, mn_silu(g, x)), a.bound, false);
    break;
  case 14:
    if (a.exact) keep(p, mn_floor(g, x), a.bound + 1, true);
    break;
  default:
    keep(p, mn_log_sigmoid(g, mn_mul_scalar(g, x, 0.5)), a.bound + 1, false);
    break;
  }
}

static void binary(drawn *d, pool *p, item a) {
  mn_graph *g = p->g;
  item b = partner(d, p, &a);
  if (below(d, 2)) {
    item t = a;
    a = b, b = t;
  }
  mn_tensor *x = a.t, *y = b.t;
  bool exact = a.exact && b.exact;
  switch (below(d, 8)) {
  case 0:
    keep(p, mn_add(g, x, y), a.bound + b.bound, false);
    break;
  case 1:
    keep(p, mn_sub(g, x, y), a.bound + b.bound, false);
    break;
  case 2:
    keep(p, mn_mul(g, x, y), a.bound * b.bound, false);
    break;
  case 3:
    keep(p, mn_div(g, x, mn_add_scalar(g, mn_square(g, y), 1)), a.bound, false);
    break;
  case 4:
    if (exact || !d->smooth) keep(p, mn_maximum(g, x, y), fmax(a.bound, b.bound), exact);
    break;
  case 5:
    if (exact || !d->smooth) keep(p, mn_minimum(g, x, y), fmax(a.bound, b.bound), exact);
    break;
  case 6:
    if (exact) keep(p, below(d, 2) ? mn_lt(g, x, y) : mn_le(g, x, y), 1, true);
    break;
  default:
    keep(p, mn_pow(g, mn_add_scalar(g, mn_abs(g, mn_tanh(g, x)), 0.5), mn_tanh(g, y)), 2, false);
    break;
  }
}

static void view(drawn *d, pool *p, item a) {
  mn_graph *g = p->g;
  mn_tensor *x = a.t;
  mn_shape s = x->shape;
  int axis = below(d, s.ndim);
  switch (below(d, 8)) {
  case 0:
  case 1: { /* any permutation */
    int axes[MN_MAX_DIMS];
    for (int i = 0; i < s.ndim; i++) axes[i] = i;
    for (int i = s.ndim - 1; i > 0; i--) {
      int j = below(d, i + 1), t = axes[i];
      axes[i] = axes[j], axes[j] = t;
    }
    x = mn_permute(g, x, axes);
    break;
  }
  case 2:
  case 3:
    if (s.ndim) {
      int64_t start = below(d, (int)s.dim[axis]), len = 1 + below(d, (int)(s.dim[axis] - start));
      x = mn_slice(g, x, axis, start, len);
    }
    break;
  case 4: /* flatten, or join two axes */
    if (s.ndim < 2 || below(d, 2)) {
      x = mn_reshape(g, x, MN_SHAPE(mn_shape_count(&s)));
    } else {
      axis = below(d, s.ndim - 1);
      s.dim[axis] *= s.dim[axis + 1];
      for (int i = axis + 1; i + 1 < s.ndim; i++) s.dim[i] = s.dim[i + 1];
      s.ndim--;
      x = mn_reshape(g, x, s);
    }
    break;
  case 5: /* split an axis */
    if (s.ndim && s.ndim < 4) {
      int64_t f = s.dim[axis] % 3 == 0 ? 3 : s.dim[axis] % 2 == 0 ? 2 : 1;
      for (int i = s.ndim; i > axis + 1; i--) s.dim[i] = s.dim[i - 1];
      s.dim[axis + 1] = s.dim[axis] / f;
      s.dim[axis] = f;
      s.ndim++;
      x = mn_reshape(g, x, s);
    }
    break;
  case 6:
    if (s.ndim < 4) {
      x = mn_unsqueeze(g, x, below(d, s.ndim + 1));
      s = x->shape;
      for (int i = 0; i < s.ndim; i++)
        if (s.dim[i] == 1 && below(d, 2)) s.dim[i] = 1 + below(d, 4);
      x = mn_expand(g, x, s);
    }
    break;
  default:
    x = below(d, 2) ? mn_stop_gradient(g, x) : mn_identity(g, x);
    break;
  }
  if (x != a.t) keep(p, x, a.bound, a.exact);
}

static void reduce(drawn *d, pool *p, item a) {
  mn_graph *g = p->g;
  unsigned axes = (unsigned)below(d, 15) + 1;
  double n = 1;
  for (int i = 0; i < a.t->shape.ndim; i++) n *= axes >> i & 1 ? (double)a.t->shape.dim[i] : 1;
  switch (below(d, 6)) {
  case 0:
    keep(p, mn_mul_scalar(g, mn_sum(g, a.t, axes), 1 / sqrt(n)), a.bound * sqrt(n), false);
    break;
  case 1:
    if (a.exact || !d->smooth) keep(p, mn_max(g, a.t, axes), a.bound, a.exact);
    break;
  case 2:
    keep(p, mn_mean(g, a.t, axes), a.bound, false);
    break;
  case 3:
    keep(p, mn_sumsq(g, mn_mul_scalar(g, a.t, 0.1)), a.bound * n / 100, false);
    break;
  case 4:
    keep(p, mn_cumsum(g, a.t, below(d, a.t->shape.ndim), below(d, 2)), a.bound * 5, false);
    break;
  default:
    if (a.exact) keep(p, below(d, 2) ? mn_argmax(g, a.t) : mn_topk(g, a.t, 1 + below(d, (int)mn_dim(a.t, -1))), 40, true);
    break;
  }
}

static void product(drawn *d, pool *p, item a) {
  mn_graph *g = p->g;
  mn_tensor *b = NULL;
  double bound = a.bound;
  for (int tries = 0; tries < 12 && !b; tries++) {
    item *c = &p->at[below(d, p->n)];
    const mn_shape *x = &a.t->shape, *y = &c->t->shape;
    if (c->t->dtype != a.t->dtype || y->ndim < 2) continue;
    bool batch = true;
    for (int i = x->ndim - 3, j = y->ndim - 3; batch && i >= 0 && j >= 0; i--, j--)
      batch = x->dim[i] == y->dim[j] || x->dim[i] == 1 || y->dim[j] == 1;
    if (!batch) continue;
    if (mn_dim(a.t, -1) == mn_dim(c->t, -2)) b = c->t, bound = c->bound;
    else if (mn_dim(a.t, -1) == mn_dim(c->t, -1)) b = mn_transpose(g, c->t, -1, -2), bound = c->bound;
  }
  if (!b) b = mn_transpose(g, a.t, -1, -2);
  double k = (double)mn_dim(a.t, -1);
  mn_tensor *y = mn_matmul_as(g, a.t, b, a.t->dtype == MN_BF16 && below(d, 2) ? MN_F32 : a.t->dtype);
  keep(p, mn_mul_scalar(g, y, 1 / (k + 1)), a.bound * bound, false);
}

static void move(drawn *d, pool *p, item a) {
  mn_graph *g = p->g;
  int axis = below(d, a.t->shape.ndim);
  item *i = pick(d, p, is_int);
  int64_t rows = mn_dim(a.t, 0);
  switch (below(d, 6)) {
  case 0: {
    item b = a;
    for (int k = 0; k < p->n; k++)
      if (p->at[k].t->dtype == a.t->dtype && mn_shape_equal(&p->at[k].t->shape, &a.t->shape) && below(d, 3)) b = p->at[k];
    keep(p, mn_concat(g, 3, (mn_tensor *[]){a.t, b.t, mn_slice(g, a.t, axis, 0, 1)}, axis), fmax(a.bound, b.bound), a.exact && b.exact);
    break;
  }
  case 1:
    keep(p, mn_pad(g, a.t, axis, below(d, 3), below(d, 3)), a.bound, a.exact);
    break;
  case 2:
    if (i && a.t->shape.ndim + i->t->shape.ndim < 5) {
      mn_tensor *idx = mn_add_scalar(g, mn_mod(g, i->t, mn_scalar(g, MN_I32, (double)rows + 1)), -1); /* -1: no row */
      keep(p, mn_take(g, a.t, idx, 0), a.bound, a.exact);
    }
    break;
  case 3: /* put rows of it, in another order, into it */
    if (rows > 1 && a.t->dtype != MN_BOOL) {
      mn_tensor *idx =
          mn_mod(g, mn_add_scalar(g, mn_iota(g, MN_I32, MN_SHAPE(rows - 1), 0), below(d, 4)), mn_scalar(g, MN_I32, (double)rows));
      bool add = below(d, 2) && is_real(&a);
      mn_tensor *base = below(d, 2) && is_real(&a) ? mn_tanh(g, a.t) : a.t;
      keep(p, mn_put(g, base, idx, mn_slice(g, a.t, 0, 0, rows - 1), 0, add), add ? 2 * a.bound : a.bound, a.exact && !add && base == a.t);
    }
    break;
  case 4:
    keep(p, mn_copy(g, a.t), a.bound, a.exact);
    break;
  default: { /* rolled by one */
    int64_t n = mn_dim(a.t, axis);
    if (n > 1)
      keep(p, mn_concat(g, 2, (mn_tensor *[]){mn_slice(g, a.t, axis, 1, n - 1), mn_slice(g, a.t, axis, 0, 1)}, axis), a.bound, a.exact);
    break;
  }
  }
}

static void fused(drawn *d, pool *p, item a) {
  mn_graph *g = p->g;
  switch (below(d, 4)) {
  case 0:
    keep(p, mn_softmax(g, a.t), 1, false);
    break;
  case 1:
    keep(p, mn_norm(g, MN_NORM_RMS, a.t, NULL, NULL, 1e-2, a.t->dtype), 3, false);
    break;
  case 2:
    keep(p, mn_norm(g, MN_NORM_LAYER, a.t, NULL, NULL, 1e-1, a.t->dtype), 3, false);
    break;
  default:
    keep(p, mn_norm(g, MN_NORM_L2, a.t, NULL, NULL, 1e-1, a.t->dtype), 1, false);
    break;
  }
}

static void discrete(drawn *d, pool *p) {
  mn_graph *g = p->g;
  item *i = pick(d, p, is_int), *b = pick(d, p, is_bool), *a = pick(d, p, any);
  mn_tensor *m = mn_scalar(g, MN_I32, 13);
  switch (below(d, 7)) {
  case 0:
    if (i) keep(p, mn_mod(g, mn_add(g, i->t, partner(d, p, i).t), m), 13, true);
    break;
  case 1:
    if (i) keep(p, mn_mod(g, mn_mul(g, i->t, mn_neg(g, i->t)), m), 13, true);
    break;
  case 2:
    if (i) keep(p, mn_eq(g, i->t, partner(d, p, i).t), 1, true);
    break;
  case 3:
    if (b) keep(p, mn_or(g, mn_not(g, b->t), mn_and(g, b->t, partner(d, p, b).t)), 1, true);
    break;
  case 4: /* a condition chooses */
    if (b && a && a->t->dtype != MN_BOOL) {
      item c = partner(d, p, a);
      mn_tensor *cond = b->t;
      if (!mn_shape_equal(&cond->shape, &a->t->shape))
        cond = mn_reshape(g, mn_slice(g, mn_reshape(g, cond, MN_SHAPE(mn_shape_count(&cond->shape))), 0, 0, 1), (mn_shape){0});
      keep(p, mn_select(g, cond, a->t, c.t), fmax(a->bound, c.bound), a->exact && c.exact);
    }
    break;
  case 5:
    if (a && a->t->dtype != d->real) keep(p, mn_cast(g, a->t, d->real), a->bound, a->exact);
    else if (a && is_exact_real(a)) keep(p, mn_cast(g, a->t, MN_I32), a->bound, true);
    break;
  default:
    if (d->bf16 && a && is_real(a)) keep(p, mn_cast(g, a->t, MN_BF16), a->bound, false);
    else if (a && is_exact_real(a)) keep(p, mn_cast(g, mn_floor(g, a->t), MN_I32), a->bound, true);
    break;
  }
}

static void operation(drawn *d, pool *p);

static bool whole_scalar(const item *i) { return i->t->dtype == MN_I32 && i->t->shape.ndim == 0; }

/* A loop over some tensor's first axis, or of any length over none, perhaps with a live length; its body is drawn from the carries,
 * the slice and all that is outside. */
static void loop(drawn *d, pool *p) {
  mn_graph *g = p->g;
  item *x = pick(d, p, real_axis);
  mn_tensor *carry[3], *cin[3], *xin[1], *xs[1], *final[3], *ys[3], *out[3], *y[3];
  item from[3];
  int n_carry = 1 + below(d, 3), n_xs = x && below(d, 4), n_ys = below(d, 4), ops = 2 + below(d, 5);
  int64_t length = n_xs ? mn_dim(x->t, 0) : 1 + below(d, p->depth ? 4 : below(d, 3) ? 5 : 24);
  for (int i = 0; i < n_carry; i++) {
    item *c = pick(d, p, below(d, 5) ? is_real : any);
    if (!c || c->t->shape.ndim > 3 || mn_shape_count(&c->t->shape) > 400) return;
    from[i] = *c;
    carry[i] = c->t;
  }
  if (n_xs) xs[0] = x->t;
  mn_scan_builder *b = mn_scan_begin(g, length, below(d, 2), n_carry, carry, n_xs, xs, cin, xin);
  if (below(d, 3) == 0) {
    item *some = pick(d, p, whole_scalar);
    mn_scan_set_live(b, some ? some->t : mn_scalar(g, MN_I32, below(d, (int)length + 2)));
  }
  pool *in = calloc(1, sizeof *in);
  if (!in) abort();
  in->g = mn_scan_body(b);
  in->depth = p->depth + 1;
  for (int i = 0; i < p->n && in->n < 40; i++)
    if (p->n - i < 12) in->at[in->n++] = p->at[i];
  for (int i = 0; i < n_carry; i++) in->at[in->n++] = (item){cin[i], is_real(&from[i]) ? 3 : 40, !is_real(&from[i]) && from[i].exact};
  if (n_xs) in->at[in->n++] = (item){xin[0], x->bound, x->exact};
  for (int k = 0; in->g && k < ops; k++) operation(d, in);
  for (int i = 0; in->g && i < n_carry; i++) { /* something of the carry's type and shape, mixed with what was drawn */
    mn_tensor *c = cin[i], *v = NULL;
    int how = below(d, 5);
    for (int k = in->n - 1; k >= 0 && !v; k--)
      if (in->at[k].t != c && in->at[k].t->dtype == c->dtype && mn_shape_equal(&in->at[k].t->shape, &c->shape) && below(d, 3) &&
          (is_real(&in->at[k]) || in->at[k].exact))
        v = in->at[k].t;
    if (how == 0) out[i] = c; /* unchanged */
    else if (how == 1 && v) out[i] = mn_dtype_is_float(v->dtype) ? mn_tanh(in->g, v) : v;
    else if (how == 2 && v) out[i] = v; /* perhaps another carry, or a captured tensor */
    else if (is_real(&from[i])) {
      item *m = pick(d, in, is_real);
      mn_tensor *mean = m ? mn_cast(in->g, mn_reshape(in->g, mn_mean(in->g, m->t, 15), (mn_shape){0}), c->dtype) : c;
      out[i] = mn_tanh(in->g, mn_add(in->g, mean, c));
    } else if (c->dtype == MN_I32) out[i] = mn_mod(in->g, mn_add_scalar(in->g, c, 3), mn_scalar(in->g, MN_I32, 11));
    else out[i] = mn_not(in->g, c);
  }
  bool y_exact[3];
  for (int j = 0; in->g && j < n_ys; j++) {
    item *i = &in->at[in->n - 1 - below(d, in->n > 14 ? 14 : in->n)];
    y[j] = i->t->shape.ndim < 4 && mn_shape_count(&i->t->shape) < 200 ? i->t : cin[0]; /* also a carry, a slice, an outer tensor */
    if (below(d, 6) == 0) y[j] = out[below(d, n_carry)];
    y_exact[j] = y[j]->dtype == MN_BOOL || y[j]->dtype == MN_I32;
  }
  mn_scan_end(b, out, n_ys, y, final, ys);
  for (int i = 0; in->g && mn_graph_status(g) == MN_OK && i < n_carry; i++)
    keep(p, final[i], is_real(&from[i]) ? 3 : 40, !is_real(&from[i]));
  for (int j = 0; in->g && mn_graph_status(g) == MN_OK && j < n_ys; j++) keep(p, ys[j], 6, y_exact[j]);
  free(in);
}

static void operation(drawn *d, pool *p) {
  item *a = pick(d, p, is_real), *v = pick(d, p, has_axis), *r = pick(d, p, real_axis), *m = pick(d, p, is_matrix);
  if (mn_graph_status(p->g) != MN_OK) return;
  switch (below(d, 16)) {
  case 0:
  case 1:
    if (a) unary(d, p, *a);
    break;
  case 2:
  case 3:
  case 4:
    if (a) binary(d, p, *a);
    break;
  case 5:
  case 6:
  case 7:
    if (v) view(d, p, *v);
    break;
  case 8:
    if (r) reduce(d, p, *r);
    break;
  case 9:
  case 10:
    if (m) product(d, p, *m);
    break;
  case 11:
    if (v) move(d, p, *v);
    break;
  case 12:
    if (r) fused(d, p, *r);
    break;
  case 13:
  case 14:
    discrete(d, p);
    break;
  default:
    if ((d->with & WITH_SCANS) && p->depth < 2) loop(d, p);
    break;
  }
}

static void add_leaf(drawn *d, pool *p, mn_dtype t, mn_shape s) {
  mn_tensor *x = d->leaf[d->n_leaves++] = mn_input(d->g, "x", t, s);
  keep(p, x, t == MN_I32 ? 13 : 2, true);
}

/* What a variable becomes. */
static mn_tensor *next_value(drawn *d, pool *p, int i) {
  mn_graph *g = d->g;
  mn_tensor *v = d->var[i], *w = d->var[below(d, d->n_vars)], *other = NULL;
  for (int k = p->n - 1; k >= 0 && !other; k--)
    if (p->at[k].t->dtype == v->dtype && mn_shape_equal(&p->at[k].t->shape, &v->shape) && below(d, 2)) other = p->at[k].t;
  item *a = pick(d, p, is_real);
  bool square = v->shape.dim[0] == v->shape.dim[1];
  if (!mn_shape_equal(&v->shape, &w->shape)) w = v;
  switch (below(d, 9)) {
  case 0:
    return w; /* another variable, or itself */
  case 1:
    return square ? mn_transpose(g, w, 0, 1) : w;
  case 2:
    return mn_copy(g, w);
  case 3:
    return mn_tanh(g, mn_add(g, w, mn_mul_scalar(g, v, 0.5)));
  case 4:
    return other ? mn_add(g, mn_tanh(g, other), mn_mul_scalar(g, v, 0.25)) : v;
  case 5:
    return other ? other : w;
  case 6: {
    int64_t n = v->shape.dim[0];
    return n > 1 ? mn_concat(g, 2, (mn_tensor *[]){mn_slice(g, w, 0, 1, n - 1), mn_slice(g, v, 0, 0, 1)}, 0) : v;
  }
  case 7: {
    mn_tensor *idx = mn_iota(g, MN_I32, MN_SHAPE(1), 0);
    return mn_put(g, v, idx, mn_mul_scalar(g, mn_slice(g, w, 0, v->shape.dim[0] - 1, 1), 0.5), 0, below(d, 2));
  }
  default:
    return a ? mn_tanh(g, mn_add(g, v, mn_cast(g, mn_reshape(g, mn_mean(g, a->t, 15), (mn_shape){0}), v->dtype))) : v;
  }
}

static void draw_graph(drawn *d, uint64_t seed, int ops, unsigned with) {
  *d = (drawn){.g = mn_graph_new(), .with = with, .rng = mn_splitmix64(seed)};
  pool *p = calloc(1, sizeof *p);
  if (!d->g || !p) abort();
  p->g = d->g;
  d->real = below(d, 4) ? MN_F32 : MN_F64;
  d->bf16 = d->real == MN_F32 && below(d, 4) == 0;
  d->smooth = below(d, 3);
  int64_t a = some_size(d), b = some_size(d), c = below(d, 6) ? some_size(d) : 1 + below(d, 20);
  add_leaf(d, p, d->real, MN_SHAPE(a, b));
  add_leaf(d, p, d->real, MN_SHAPE(b));
  add_leaf(d, p, d->real, MN_SHAPE(c, a, b));
  add_leaf(d, p, d->real, MN_SHAPE(b, c));
  add_leaf(d, p, MN_I32, MN_SHAPE(c));
  add_leaf(d, p, MN_I32, MN_SHAPE(a, b));
  if (d->bf16) add_leaf(d, p, MN_BF16, MN_SHAPE(a, b));
  if (d->with & WITH_ASSIGNS) {
    d->n_vars = 1 + below(d, VARS);
    for (int i = 0; i < d->n_vars; i++) {
      d->var[i] = d->leaf[d->n_leaves + i] = mn_variable(d->g, "v", d->real, i < 2 ? MN_SHAPE(a, b) : MN_SHAPE(b, b));
      keep(p, d->var[i], 2, false);
    }
  }
  for (int k = 0; k < ops; k++) {
    d->rng = mn_splitmix64(seed * 1000003 + (uint64_t)k);
    operation(d, p);
  }
  d->rng = mn_splitmix64(seed ^ 0x5DEECE66Du);
  for (int i = 0; i < d->n_vars; i++) d->next[i] = next_value(d, p, i);
  d->n_outs = 1 + below(d, OUTS);
  for (int j = 0; j < d->n_outs; j++) d->out[j] = below(d, 2) ? p->at[p->n - 1 - below(d, p->n > 6 ? 6 : p->n)].t : p->at[below(d, p->n)].t;
  if ((with & WITH_GRADS) && d->smooth &&
      mn_graph_status(d->g) == MN_OK) { /* of one or two results by some leaves, or by something in between */
    mn_tensor *y[2], *x[GRADS], *dx[GRADS];
    int n_y = 0, n_x = 0, want = 1 + below(d, 2);
    for (int i = p->n - 1; i >= 0 && n_y < want; i--)
      if (p->at[i].t->dtype == d->real && below(d, 2)) y[n_y++] = mn_mul_scalar(d->g, p->at[i].t, 0.1);
    for (int i = 0; i < d->n_leaves + d->n_vars && n_x < GRADS - 1; i++)
      if (mn_dtype_is_float(d->leaf[i]->dtype) && below(d, 2)) x[n_x++] = d->leaf[i];
    item *between = pick(d, p, is_real);
    if (between) x[n_x++] = between->t;
    if (n_y && n_x && mn_grad(d->g, n_y, y, NULL, n_x, x, dx) == MN_OK)
      for (int i = 0; i < n_x; i++) d->out[d->n_outs++] = dx[i];
  }
  free(p);
}

#endif
