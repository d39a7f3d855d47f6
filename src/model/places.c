/* places.c - rows with gaps: which places are there, those that are brought together, and what came of them brought back. */
#include "model/model.h"

mn_places mn_model_places(mn_scope *s, const mn_model *m, mn_tensor *masks, mn_tensor *length) {
  mn_graph *g = mn_scope_graph(s);
  const mn_dtype exact = mn_scope_exact(s); /* counts are exact in it */
  if (!masks) return (mn_places){.length = length};
  if (mn_scope_is_stream(s) && m->config.positions != MN_POSITIONS_NONE) {
    mn_graph_fault(g, MN_ERR_CONFIG,
                   "a stream with masks cannot have positions that are added: they count what is there; set positions: none");
    return (mn_places){0};
  }
  const int64_t B = mn_dim(masks, 0), T = mn_dim(masks, 1);
  mn_tensor *there = mn_lt(g, mn_scalar(g, MN_I32, 0), masks); /* [B,T] */
  if (length) there = mn_and(g, there, mn_lt(g, mn_iota(g, MN_I32, MN_SHAPE(B, T), 1), mn_reshape(g, length, MN_SHAPE(B, 1))));
  mn_tensor *count = mn_cumsum(g, mn_cast(g, there, exact), 1, MN_FORWARD);
  mn_tensor *rank = mn_cast(g, mn_add_scalar(g, count, -1), MN_I32);
  return (mn_places){.rank = mn_select(g, there, rank, mn_full(g, MN_I32, rank->shape, -1)),
                     .length = mn_cast(g, mn_reshape(g, mn_slice(g, count, 1, T - 1, 1), MN_SHAPE(B)), MN_I32)};
}

mn_tensor *mn_places_gather(mn_scope *s, const mn_places *p, mn_tensor *x) {
  return p->rank ? mn_put(mn_scope_graph(s), mn_zeros_like(mn_scope_graph(s), x), p->rank, x, 1, MN_PUT_SET) : x;
}

mn_tensor *mn_places_spread(mn_scope *s, const mn_places *p, mn_tensor *h) {
  return p->rank ? mn_take(mn_scope_graph(s), h, p->rank, 1) : h;
}
