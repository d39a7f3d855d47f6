/* scope_numbers.c - see scope_numbers.h. */
#include "nn/scope_numbers.h"

#include <stdlib.h>
#include <string.h>

#include "graph/compose.h"
#include "nn/scope_internal.h"

static bool is_it(const mn_scope_numbers_of *e, mn_numbers_rule rule, int n_of, const double *of, mn_dtype t, const mn_shape *shape) {
  return e->rule == rule && e->n_of == n_of && memcmp(e->of, of, (size_t)n_of * sizeof *of) == 0 && e->made->dtype == t &&
         mn_shape_equal(&e->made->shape, shape);
}

static mn_tensor *make(mn_graph *g, mn_numbers_rule rule, const double *of, mn_dtype t, mn_shape shape) {
  const size_t n = (size_t)mn_shape_count(&shape);
  double *x = mn_alloc((n + 1) * sizeof *x);
  if (!x) {
    mn_graph_fault(g, MN_ERR_MEMORY, "%s", mn_message());
    return NULL;
  }
  const mn_status status = rule(of, &shape, x);
  if (status != MN_OK) {
    mn_graph_fault(g, status, "%s", mn_message());
    free(x);
    return NULL;
  }
  float *narrow = (float *)x; /* number i is narrowed to where no later one lies */
  for (size_t i = 0; i < n && t == MN_F32; i++) {
    const float y = (float)x[i];
    memcpy(&narrow[i], &y, sizeof y);
  }
  mn_tensor *made = mn_const(g, t, shape, x);
  free(x);
  return made;
}

mn_tensor *mn_scope_numbers(mn_scope *s, mn_numbers_rule rule, int n_of, const double *of, mn_dtype t, mn_shape shape) {
  mn_scope_root *r = s->r;
  if (t != MN_F32 && t != MN_F64) {
    mn_graph_fault(r->graph, MN_ERR_SHAPE, "numbers of a rule are f32 or f64, not %s", mn_dtype_name(t));
    return NULL;
  }
  if (r->build.names_only) return mn_full(r->graph, t, shape, 0);
  for (int i = 0; i < r->n_numbers; i++) {
    if (!is_it(&r->numbers[i], rule, n_of, of, t, &shape)) continue;
    mn_node *again = mn_node_again(r->graph, r->numbers[i].made->node, NULL);
    if (!again) return NULL;
    again->phase = r->graph->phase;
    return again->out[0];
  }
  mn_tensor *made = make(r->graph, rule, of, t, shape);
  double *kept = mn_scope_alloc(r, (size_t)n_of, sizeof *kept);
  if (!made || !kept || !mn_scope_grow(r, &r->numbers, r->n_numbers, &r->cap_numbers, sizeof *r->numbers)) return made;
  memcpy(kept, of, (size_t)n_of * sizeof *of);
  r->numbers[r->n_numbers++] = (mn_scope_numbers_of){rule, n_of, kept, made};
  return made;
}
