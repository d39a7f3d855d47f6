/* batch_norm.h - normalisation by the statistics of a batch (Ioffe & Szegedy 2015, arXiv 1502.03167). */
#ifndef MN_BATCH_NORM_H
#define MN_BATCH_NORM_H

#include "nn/scope.h"

/* y = (x - mean) / sqrt(var + eps) * weight + bias for each channel, the last axis of x [..., C]; result in x's type. In training mean and
 * variance are of this batch, over all other axes, and running ones move towards them by `momentum` (the variance without bias, as n / (n-1)); in
 * evaluation the running ones serve. Parameters `name`.weight, `name`.bias [C]; buffers `name`.running_mean, `name`.running_var. Inner
 * arithmetic in the exact type. In training what one row becomes depends on the other rows: not for streams. Of x [B,T,C] only places within
 * their rows count (mn_scope_length). */
mn_tensor *mn_batch_norm(mn_scope *s, const char *name, mn_tensor *x, double eps, double momentum);

#endif
