/* scan_over.c - see scan_over.h. */
#include "graph/scan_over.h"

#include <assert.h>

/* The operands that are there, one after the other. */
static int compact(int n, mn_tensor *const *from, mn_tensor **to) {
  int there = 0;
  for (int i = 0; i < n; i++)
    if (from[i]) to[there++] = from[i];
  return there;
}
/* The reverse: `values`, one for each operand that was there, to where they belong. */
static void spread(int n, mn_tensor *const *as, mn_tensor *const *values, mn_tensor **to) {
  for (int i = 0, at = 0; i < n; i++) to[i] = as[i] ? values[at++] : NULL;
}

void mn_scan_over(mn_graph *g, const mn_loop_over *l) {
  assert(l->n_carry <= MN_LOOP_MOST && l->n_xs <= MN_LOOP_MOST && l->n_ys <= MN_LOOP_MOST);
  mn_tensor *outer_carry[MN_LOOP_MOST], *inner_carry[MN_LOOP_MOST], *outer_x[MN_LOOP_MOST], *inner_x[MN_LOOP_MOST];
  mn_tensor *carry[MN_LOOP_MOST], *x[MN_LOOP_MOST], *y[MN_LOOP_MOST] = {NULL};
  for (int i = 0; i < l->n_ys; i++) l->ys[i] = NULL;
  const int n_carry = compact(l->n_carry, l->carry, outer_carry), n_xs = compact(l->n_xs, l->xs, outer_x);
  mn_scan_builder *b = mn_scan_begin(g, l->steps, MN_FORWARD, n_carry, outer_carry, n_xs, outer_x, inner_carry, inner_x);
  mn_graph *body = mn_scan_body(b);
  if (!body) return;
  if (l->live) mn_scan_set_live(b, l->live);
  spread(l->n_carry, l->carry, inner_carry, carry);
  spread(l->n_xs, l->xs, inner_x, x);
  l->f(body, l->ctx, carry, x, y);
  mn_tensor *after[MN_LOOP_MOST], *final[MN_LOOP_MOST];
  for (int i = 0, at = 0; i < l->n_carry; i++)
    if (l->carry[i]) after[at++] = carry[i];
  mn_scan_end(b, after, l->n_ys, y, final, l->ys);
  if (g->status == MN_OK) spread(l->n_carry, l->carry, final, l->carry);
}
