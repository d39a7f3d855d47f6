/* feature_map.c - see feature_map.h. */
#include "nn/feature_map.h"

#include <math.h>
#include <stdlib.h>

int64_t mn_poly2_width(int64_t d) { return 1 + d + d * (d + 1) / 2; }

/* The pairs i <= j, and what their products are multiplied by, as constants of the graph. */
typedef struct pairs {
  mn_tensor *first, *second; /* i32 [P]      */
  mn_tensor *weight;         /* [P,1,1,1]    */
} pairs;

static pairs pairs_of(mn_graph *g, int64_t d, mn_dtype type) {
  const int64_t n = d * (d + 1) / 2;
  int32_t *first = malloc(sizeof(int32_t) * (size_t)(2 * n + 1));
  double *weight = malloc(sizeof(double) * (size_t)(n + 1));
  pairs p = {0};
  if (first && weight) {
    int32_t *second = first + n;
    int64_t at = 0;
    for (int32_t i = 0; i < d; i++)
      for (int32_t j = i; j < d; j++, at++) {
        first[at] = i, second[at] = j;
        weight[at] = i == j ? 1 : sqrt(2);
      }
    p.first = mn_const(g, MN_I32, MN_SHAPE(n), first);
    p.second = mn_const(g, MN_I32, MN_SHAPE(n), second);
    p.weight = mn_cast(g, mn_const(g, MN_F64, MN_SHAPE(n, 1, 1, 1), weight), type);
  } else mn_graph_fault(g, MN_ERR_MEMORY, "no memory for the %lld pairs of a polynomial", (long long)n);
  free(first);
  free(weight);
  return p;
}

mn_tensor *mn_poly2(mn_graph *g, mn_tensor *x, mn_tensor *s) {
  const int64_t B = mn_dim(x, 0), H = mn_dim(x, 1), n = mn_dim(x, 2), d = mn_dim(x, 3);
  const pairs p = pairs_of(g, d, mn_type(x));
  mn_tensor *rows = mn_permute(g, x, (int[]){3, 0, 1, 2}); /* [d,B,H,n]: an entry of all tokens is a row */
  mn_tensor *products = mn_mul(g, mn_take(g, rows, p.first, 0), mn_take(g, rows, p.second, 0));
  mn_tensor *by_degree[3]; /* [1,1,H,1] each */
  for (int i = 0; i < 3; i++) by_degree[i] = mn_reshape(g, mn_slice(g, s, 1, i, 1), MN_SHAPE(1, 1, H, 1));
  mn_tensor *phi[3] = {mn_expand(g, by_degree[0], MN_SHAPE(1, B, H, n)), mn_mul(g, by_degree[1], rows),
                       mn_mul(g, by_degree[2], mn_mul(g, products, p.weight))};
  return mn_permute(g, mn_concat(g, 3, phi, 0), (int[]){1, 2, 3, 0});
}

/* Kept as what they are over sqrt(1 / i!), so that all start at 1. */
mn_tensor *mn_poly2_scales(mn_scope *s, const char *name, int64_t heads, const char *help) {
  static const double start[3] = {1, 1, 0.70710678118654752440};
  mn_graph *g = mn_scope_graph(s);
  mn_tensor *over = mn_param(s, name, MN_SHAPE(heads, 3), MN_ONES, MN_PARAM_NO_DECAY, help);
  mn_tensor *of = mn_cast(g, mn_const(g, MN_F64, MN_SHAPE(1, 3), start), mn_scope_exact(s));
  return mn_mul(g, mn_cast(g, over, mn_scope_exact(s)), of);
}
