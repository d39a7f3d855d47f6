/* spiking.h - neurons that integrate what arrives, leak, and fire. */
#ifndef MN_SPIKING_H
#define MN_SPIKING_H

#include "nn/scope.h"

/* Leaky integrate-and-fire over time, x [B,T,C] -> spikes s [B,T,C] of 0 and 1, one step for each place:
 *     v = v_{t-1} + (x_t - v_{t-1}) / tau      s_t = 1 if v >= threshold, else 0      v_t = v (1 - s_t)
 * Backward a spike has the slope of sigmoid(a (v - threshold)), and the reset (1 - s_t) is taken as a constant (Fang et al. 2021,
 * arXiv 2106.03647). */
typedef struct mn_neuron {
  double tau, threshold, steepness; /* steepness: a */
} mn_neuron;
/* v0 [B,C]: what is there before; NULL: nothing. live bool [B,T]: where it is false a neuron stays as it is and does not fire; NULL: all are.
 * *v [B,T,C]: v_t of each place. x's type, f32 or f64, is everything's. */
mn_tensor *mn_fire(mn_graph *g, mn_tensor *x, mn_tensor *v0, mn_tensor *live, mn_neuron how, mn_tensor **v);

#endif
