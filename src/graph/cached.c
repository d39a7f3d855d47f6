/* cached.c - see cached.h. */
#include "graph/cached.h"

#include "base/narrow.h"

const mn_op mn_op_narrowed = {.name = "narrowed", .cls = MN_OP_CORE, .attr_size = sizeof(mn_narrowed_attr), .no_grad = true};

mn_tensor *mn_narrowed(mn_graph *g, mn_tensor *x, mn_dtype type) {
  if (x && (!mn_is_narrow(type) || x->dtype != MN_F32 || !mn_shape_holds(&x->shape, type))) {
    char shape[96];
    mn_graph_fault(g, MN_ERR_SHAPE, "narrowed: %s %s to %s: it takes f32 to a type of cache, in whole blocks", mn_dtype_name(x->dtype),
                   mn_shape_str(&x->shape, shape), mn_dtype_name(type));
    return NULL;
  }
  return mn_node1(g, &mn_op_narrowed, 1, &x, MN_F32, x ? x->shape : (mn_shape){0}, &(mn_narrowed_attr){type});
}

static int on_cache(const mn_node *n, int j) {
  (void)n, (void)j;
  return 0;
}
const mn_op mn_op_cache_put = {.name = "cache_put", .cls = MN_OP_CORE, .no_grad = true, .inplace = on_cache, .stored = 1};

mn_tensor *mn_cache_put(mn_graph *g, mn_tensor *cache, mn_tensor *slots, mn_tensor *rows) {
  mn_tensor *in[3] = {cache, slots, rows};
  if (!cache || !slots || !rows) return mn_node1(g, &mn_op_cache_put, 3, in, MN_F32, (mn_shape){0}, NULL);
  const mn_shape *c = &cache->shape, *s = &slots->shape, *r = &rows->shape;
  if (!mn_is_narrow(cache->dtype) || slots->dtype != MN_I32 || rows->dtype != MN_F32 || c->ndim != 4 || s->ndim != 2 || r->ndim != 4 ||
      s->dim[0] != c->dim[0] || r->dim[0] != c->dim[0] || r->dim[1] != s->dim[1] || r->dim[2] != c->dim[2] || r->dim[3] != c->dim[3]) {
    char x[96], y[96], z[96];
    mn_graph_fault(g, MN_ERR_SHAPE, "cache_put: %s %s, slots %s, rows %s %s do not fit", mn_dtype_name(cache->dtype), mn_shape_str(c, x),
                   mn_shape_str(s, y), mn_dtype_name(rows->dtype), mn_shape_str(r, z));
    return NULL;
  }
  return mn_node1(g, &mn_op_cache_put, 3, in, cache->dtype, *c, NULL);
}
