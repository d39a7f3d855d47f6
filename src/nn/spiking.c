/* spiking.c - see spiking.h. */
#include "nn/spiking.h"

mn_tensor *mn_fire(mn_graph *g, mn_tensor *x, mn_tensor *v0, mn_tensor *live, mn_neuron how, mn_tensor **v) {
  const int64_t B = mn_dim(x, 0), T = mn_dim(x, 1), C = mn_dim(x, 2);
  const mn_dtype t = mn_type(x);
  mn_tensor *start = v0 ? v0 : mn_full(g, t, MN_SHAPE(B, C), 0), *was, *now[2], *final, *over_time[2];
  mn_tensor *by_time[] = {mn_transpose(g, x, 0, 1), live ? mn_unsqueeze(g, mn_transpose(g, live, 0, 1), 2) : NULL};

  mn_scan_builder *loop = mn_scan_begin(g, T, MN_FORWARD, 1, &start, live ? 2 : 1, by_time, &was, now);
  mn_graph *b = mn_scan_body(loop);
  *v = NULL;
  if (!b) return NULL;
  mn_tensor *charged = mn_add(b, was, mn_mul_scalar(b, mn_sub(b, now[0], was), 1 / how.tau));
  mn_tensor *fires = mn_cast(b, mn_le(b, mn_scalar(b, t, how.threshold), charged), t);
  mn_tensor *slope = mn_sigmoid(b, mn_mul_scalar(b, mn_add_scalar(b, charged, -how.threshold), how.steepness));
  mn_tensor *spike = mn_with_gradient(b, fires, slope), *rest = mn_mul(b, charged, mn_add_scalar(b, mn_neg(b, fires), 1));
  if (live) {
    rest = mn_select(b, now[1], rest, was);
    spike = mn_select(b, now[1], spike, mn_zeros_like(b, spike));
  }
  mn_scan_end(loop, &rest, 2, (mn_tensor *[]){spike, rest}, &final, over_time);
  *v = mn_transpose(g, over_time[1], 0, 1);
  return mn_transpose(g, over_time[0], 0, 1);
}
