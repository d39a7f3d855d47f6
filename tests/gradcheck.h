/* gradcheck.h - running small graphs in tests: a function of some tensors, its values, its gradients against central
 * differences in float64, its gradients' gradients. */
#ifndef MN_GRADCHECK_H
#define MN_GRADCHECK_H

#include "base/element.h"
#include "compile/plan.h"
#include "test.h"

enum { GC_MAX = 16 };

typedef struct gc_input {
  mn_dtype dtype;
  mn_shape shape;
  double lo, hi; /* drawn uniformly from [lo, hi]; integers too */
  bool constant; /* not differentiated */
} gc_input;

typedef void (*gc_function)(mn_graph *g, mn_tensor **x, mn_tensor **y); /* y: n_y results, any shapes */

typedef struct gc_case {
  const char *name;
  int n_x, n_y;
  gc_input x[GC_MAX];
  gc_function f;
} gc_case;

static inline void gc_fill(double *p, const gc_input *in, uint64_t seed, int i) {
  for (int64_t k = 0, n = mn_shape_count(&in->shape); k < n; k++) {
    double u = mn_random_uniform(seed * 1000 + (uint64_t)i, 7, (uint64_t)k);
    p[k] = in->lo + (in->hi - in->lo) * u;
    if (!mn_dtype_is_float(in->dtype)) p[k] = floor(in->lo + (in->hi - in->lo + 1) * u);
  }
}

/* Converts doubles to the type of a leaf, and back. */
static inline void *gc_pack(const double *x, mn_dtype t, int64_t n) {
  void *p = mn_alloc_aligned((size_t)n * mn_dtype_size(t));
  for (int64_t i = 0; i < n; i++) mn_element_store(p, t, i, x[i]);
  return p;
}
static inline double *gc_unpack(const mn_view *v) {
  int64_t n = mn_view_count(v);
  double *x = malloc((size_t)(n + 1) * sizeof *x);
  for (int64_t i = 0; i < n; i++) x[i] = mn_element_load(v->data, v->dtype, i);
  return x;
}

/* Compiles outputs over leaves bound to the given doubles and returns the outputs as doubles. 0 on failure. */
static inline int gc_run(mn_graph *g, mn_backend *b, unsigned passes_off, mn_activation_policy policy, int n_x, mn_tensor **leaf,
                         double **value, int n_y, mn_tensor **y, double **out) {
  mn_plan *plan = NULL;
  mn_plan_request q = {.graph = g, .n_outputs = n_y, .outputs = y, .backend = b, .passes_off = passes_off, .activations = policy};
  mn_status s = mn_plan_compile(&q, &plan);
  void *mem[GC_MAX * 4] = {NULL};
  if (s == MN_OK) {
    for (int i = 0; i < n_x; i++) {
      mem[i] = gc_pack(value[i], leaf[i]->dtype, mn_shape_count(&leaf[i]->shape));
      mn_plan_bind(plan, leaf[i], mem[i]);
    }
    s = mn_plan_run(plan);
  }
  if (s != MN_OK) printf("  %s: %s\n", mn_status_name(s), mn_message());
  for (int j = 0; j < n_y; j++) out[j] = s == MN_OK ? gc_unpack(mn_plan_output(plan, j)) : NULL;
  for (int i = 0; i < n_x; i++) free(mem[i]);
  mn_plan_free(plan);
  return s == MN_OK;
}

/* sum over all outputs of sum(y * fixed random weights): a scalar with every output in it */
static inline mn_tensor *gc_objective(mn_graph *g, int n_y, mn_tensor **y) {
  mn_tensor *total = mn_scalar(g, MN_F64, 0);
  for (int j = 0; j < n_y; j++) {
    if (!y[j]) return NULL;
    int64_t n = mn_shape_count(&y[j]->shape);
    double *w = malloc((size_t)(n + 1) * sizeof *w);
    for (int64_t i = 0; i < n; i++) w[i] = mn_random_normal(99 + (uint64_t)j, 3, (uint64_t)i);
    mn_tensor *t = mn_mul(g, mn_cast(g, y[j], MN_F64), mn_const(g, MN_F64, y[j]->shape, w));
    total = mn_add(g, total, mn_reshape(g, mn_sum(g, t, ~0u), (mn_shape){0}));
    free(w);
  }
  return total;
}

/* Largest error of the analytic gradients, relative to the largest gradient entry. order 2 differentiates
 * sum(gradient * random weights) instead of the objective itself. */
static inline double gc_gradient_error(const gc_case *c, int order, uint64_t seed) {
  mn_graph *g = mn_graph_new();
  mn_tensor *x[GC_MAX], *y[GC_MAX], *wrt[GC_MAX], *d[GC_MAX], *out[GC_MAX + 1];
  double *value[GC_MAX], *result[GC_MAX + 1] = {NULL};
  int n_wrt = 0, which[GC_MAX];
  for (int i = 0; i < c->n_x; i++) {
    x[i] = mn_input(g, c->name, c->x[i].dtype, c->x[i].shape);
    value[i] = malloc((size_t)(mn_shape_count(&c->x[i].shape) + 1) * sizeof(double));
    gc_fill(value[i], &c->x[i], seed, i);
    if (!c->x[i].constant && mn_dtype_is_float(c->x[i].dtype)) which[n_wrt] = i, wrt[n_wrt++] = x[i];
  }
  c->f(g, x, y);
  mn_tensor *objective = gc_objective(g, c->n_y, y);
  double worst = INFINITY;
  if (mn_graph_status(g) != MN_OK) goto fail;
  if (order == 2) {
    if (mn_grad(g, 1, &objective, NULL, n_wrt, wrt, d) != MN_OK) goto fail;
    objective = gc_objective(g, n_wrt, d);
  }
  if (mn_grad(g, 1, &objective, NULL, n_wrt, wrt, d) != MN_OK) goto fail;
  out[0] = objective;
  for (int i = 0; i < n_wrt; i++) out[i + 1] = d[i];
  if (!gc_run(g, mn_backend_ref(), 0, MN_KEEP, c->n_x, x, value, n_wrt + 1, out, result)) goto fail;
  /* one plan for the differences */
  mn_plan *plan = NULL;
  mn_plan_request q = {.graph = g, .n_outputs = 1, .outputs = &objective, .backend = mn_backend_ref()};
  if (mn_plan_compile(&q, &plan) != MN_OK) goto fail;
  void *mem[GC_MAX];
  for (int i = 0; i < c->n_x; i++) {
    mem[i] = gc_pack(value[i], c->x[i].dtype, mn_shape_count(&c->x[i].shape));
    mn_plan_bind(plan, x[i], mem[i]);
  }
  worst = 0;
  double scale = 1e-3;
  for (int w = 0; w < n_wrt; w++)
    for (int64_t k = 0, n = mn_shape_count(&wrt[w]->shape); k < n; k++) scale = fmax(scale, fabs(result[w + 1][k]));
  for (int w = 0; w < n_wrt; w++)
    for (int64_t k = 0, n = mn_shape_count(&wrt[w]->shape); k < n; k++) {
      if (n > 40 && mn_random_uniform(5, (uint64_t)w, (uint64_t)k) * (double)n > 40) continue; /* about 40 entries of each */
      double *p = (double *)mem[which[w]] + k, keep = *p, h = 1e-4 * fmax(1, fabs(keep)), f[4];
      for (int s = 0; s < 4; s++) { /* fourth-order central difference */
        *p = keep + h * (double[]){-2, -1, 1, 2}[s];
        f[s] = mn_plan_run(plan) == MN_OK ? *(double *)mn_plan_output(plan, 0)->data : NAN;
      }
      *p = keep;
      double numeric = (f[0] - 8 * f[1] + 8 * f[2] - f[3]) / (12 * h);
      double error = fabs(numeric - result[w + 1][k]) / scale;
      if (!(error <= worst)) worst = error;
    }
  for (int i = 0; i < c->n_x; i++) free(mem[i]);
  mn_plan_free(plan);
  goto done;
fail:
  printf("  %s: %s\n", c->name, mn_message());
done:
  for (int i = 0; i < c->n_x; i++) free(value[i]);
  for (int i = 0; i <= n_wrt; i++) free(result[i]);
  mn_graph_free(g);
  return worst;
}

static inline double gc_difference(const double *a, const double *b, int64_t n) { /* relative to the largest entry */
  double scale = 1e-12, worst = 0;
  for (int64_t i = 0; i < n; i++) scale = fmax(scale, isfinite(a[i]) ? fabs(a[i]) : 0);
  for (int64_t i = 0; i < n; i++) {
    double e = a[i] == b[i] ? 0 : fabs(a[i] - b[i]) / scale;
    if (!(e <= worst)) worst = e;
  }
  return worst;
}

#endif
