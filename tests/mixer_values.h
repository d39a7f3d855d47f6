/* mixer_values.h - the numbers that checks of mixers pass around: tensors by name, all in doubles, and how far two are apart. */
#ifndef MN_MIXER_VALUES_H
#define MN_MIXER_VALUES_H

#include "base/element.h"
#include "graph/graph.h"
#include "test.h"

enum { MC_MAX = 96 };

/* ---- tensors by name ---- */
typedef struct mc_tensor {
  char name[112];
  mn_shape shape;
  double *x;
} mc_tensor;
typedef struct mc_bag {
  int n;
  mc_tensor t[MC_MAX];
} mc_bag;

static inline mc_tensor *mc_get(mc_bag *b, const char *name) {
  for (int i = 0; i < b->n; i++)
    if (strcmp(b->t[i].name, name) == 0) return &b->t[i];
  return NULL;
}
/* Adds or replaces; x NULL: zeros. Returns the numbers. */
static inline double *mc_put(mc_bag *b, const char *name, mn_shape shape, const double *x) {
  mc_tensor *t = mc_get(b, name);
  int64_t n = mn_shape_count(&shape);
  if (!t) {
    if (b->n == MC_MAX) abort();
    t = &b->t[b->n++];
    *t = (mc_tensor){.x = NULL};
    snprintf(t->name, sizeof t->name, "%s", name);
  }
  double *p = calloc((size_t)n + 1, sizeof *p);
  if (x) memcpy(p, x, (size_t)n * sizeof *p);
  free(t->x);
  t->x = p;
  t->shape = shape;
  return p;
}
static inline void mc_bag_free(mc_bag *b) {
  for (int i = 0; i < b->n; i++) free(b->t[i].x);
  b->n = 0;
}
/* Largest difference, relative to the largest entry (or to 1e-12). */
static inline double mc_difference(const double *a, const double *b, int64_t n) {
  double scale = 1e-12, worst = 0;
  for (int64_t i = 0; i < n; i++) scale = fmax(scale, isfinite(b[i]) ? fabs(b[i]) : 0);
  for (int64_t i = 0; i < n; i++) {
    double e = a[i] == b[i] ? 0 : fabs(a[i] - b[i]) / scale;
    if (!(e <= worst)) worst = isfinite(e) ? e : INFINITY;
  }
  return worst;
}
static inline double *mc_normal(int64_t n, double std, uint64_t seed) {
  double *x = malloc((size_t)(n + 1) * sizeof *x);
  for (int64_t i = 0; i < n; i++) x[i] = std * mn_random_normal(seed, 11, (uint64_t)i);
  return x;
}
/* x [B,T,D] -> its tokens [start, start + len) */
static inline double *mc_cut(const double *x, int64_t B, int64_t T, int64_t D, int64_t start, int64_t len) {
  double *p = malloc((size_t)(B * len * D + 1) * sizeof *p);
  for (int64_t b = 0; b < B; b++) memcpy(p + b * len * D, x + (b * T + start) * D, (size_t)(len * D) * sizeof *p);
  return p;
}

/* To memory of type t, and back. */
static inline void *mc_pack(const double *x, mn_dtype t, int64_t n) {
  void *p = mn_alloc_aligned((size_t)(n + 1) * mn_dtype_size(t));
  for (int64_t i = 0; i < n; i++) mn_element_store(p, t, i, x[i]);
  return p;
}
static inline void mc_unpack(const void *p, mn_dtype t, int64_t n, double *x) {
  for (int64_t i = 0; i < n; i++) x[i] = mn_element_load(p, t, i);
}

#endif
