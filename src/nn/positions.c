/* positions.c - see positions.h. */
#include "nn/positions.h"

#include <math.h>

mn_tensor *mn_positions_of(mn_scope *s, int64_t T) {
  mn_graph *g = mn_scope_graph(s);
  mn_tensor *start = mn_scope_position(s), *t = mn_iota(g, MN_I32, MN_SHAPE(1, T), 1);
  return start ? mn_add(g, mn_reshape(g, start, MN_SHAPE(mn_dim(start, 0), 1)), t) : t;
}

mn_tensor *mn_learned_positions(mn_scope *s, const char *name, int64_t max, int64_t D, int64_t T, double std) {
  mn_graph *g = mn_scope_graph(s);
  mn_tensor *table = mn_param(s, name, MN_SHAPE(max, D), MN_NORMAL(std), 0, "learned positions [max_positions, d_model]");
  mn_scope_limit(s, max, "max_positions", "raise max_positions, or use positions that have no end (positions: sinusoidal)");
  mn_tensor *at = mn_minimum(g, mn_positions_of(s, T), mn_scalar(g, MN_I32, (double)(max - 1)));
  return mn_cast(g, mn_take(g, table, at, 0), mn_scope_exact(s));
}

mn_tensor *mn_sinusoidal_positions(mn_scope *s, int64_t D, int64_t T) {
  mn_graph *g = mn_scope_graph(s);
  mn_rope_config r = {.theta = 10000, .factor = 1};
  mn_tensor *cosine, *sine; /* [1 or B, T, D/2]: the angles are those of rotary embedding */
  mn_rope_tables(s, &r, D, T, &cosine, &sine);
  int64_t B = mn_ndim(cosine) == 3 ? mn_dim(cosine, 0) : 1;
  mn_shape pair = MN_SHAPE(B, T, D / 2, 1);
  mn_tensor *both = mn_concat(g, 2, (mn_tensor *[]){mn_reshape(g, sine, pair), mn_reshape(g, cosine, pair)}, 3);
  return mn_reshape(g, both, MN_SHAPE(B, T, D));
}

/* The bucket of a distance of n >= 0 tokens, of `buckets` on this side. */
static int32_t bucket_of(int64_t n, int64_t buckets, int64_t max_distance) {
  int64_t exact = buckets / 2;
  if (n < exact || exact < 1 || max_distance <= exact) return (int32_t)(n < buckets - 1 ? n : buckets - 1);
  double share = log((double)n / (double)exact) / log((double)max_distance / (double)exact);
  int64_t far = exact + (int64_t)floor(share * (double)(buckets - exact) + 1e-9); /* whole shares stay whole when rounded */
  return (int32_t)(far < buckets - 1 ? far : buckets - 1);
}

mn_tensor *mn_distance_bias_of(mn_scope *s, const char *name, const mn_distance_bias *c, int64_t *zero) {
  mn_graph *g = mn_scope_graph(s);
  const int64_t side = c->both_sides ? c->buckets / 2 : c->buckets, most = c->max_distance, N = (c->both_sides ? 2 : 1) * most + 1;
  int32_t *bucket = mn_arena_alloc(g->arena, (size_t)N * sizeof *bucket);
  if (!bucket) {
    mn_graph_fault(g, MN_ERR_MEMORY, "%s", mn_message());
    return NULL;
  }
  *zero = c->both_sides ? most : 0;
  for (int64_t i = 0; i < N; i++) { /* back: how far the key lies behind the query */
    const int64_t back = i - *zero;
    bucket[i] = back < 0 ? (int32_t)side + bucket_of(-back, side, most) : bucket_of(back, side, most);
  }
  mn_tensor *weight = mn_param_exact(s, name, MN_SHAPE(c->buckets, c->heads), MN_NORMAL(0.02), MN_PARAM_NO_DECAY,
                                     "bias of scores by distance [buckets, heads]");
  mn_tensor *rows = mn_take(g, weight, mn_const(g, MN_I32, MN_SHAPE(N), bucket), 0); /* [N,H] */
  return mn_cast(g, mn_transpose(g, rows, 0, 1), mn_scope_exact(s));
}
