/* conv.h - one run of the causal depthwise convolution or of its gradient: what conv.c, which looks at the call and cuts time into
 * tasks, shares with conv_wide.c, which does those with many taps. */
#ifndef MN_CPU_CONV_H
#define MN_CPU_CONV_H

#include "backend/cpu/cpu.h"
#include "backend/cpu/isa/conv.h"

typedef struct mn_conv_job {
  const mn_conv_isa *isa;
  mn_dtype type;
  int64_t B, T, D, W;
  int64_t per, per_row; /* steps of a task, tasks of a sequence */
  int64_t groups;       /* of channels, each a task of its own; 1: all channels together, as few taps want it */
  const mn_view *x, *prefix, *dy;
  const float *taps, *bias, *zeros; /* [W, D], [D], [D]; for the gradient the taps are reversed */
  char *y, *dprefix;                /* the gradient's y is dx; NULL where nobody asks for it */
  float *parts;                     /* [B * per_row, W + 1, D]; NULL: nobody asks for dw or dbias */
  char *scratch;                    /* of one thread: each bytes, a multiple of 64 */
  size_t each;
} mn_conv_job;

static inline const void *mn_conv_row(const mn_view *v, int64_t b, int64_t t) {
  return (const char *)v->data + (b * v->stride[0] + t * v->stride[1]) * (int64_t)mn_dtype_size(v->dtype);
}
/* x at step t >= 1 - W: the prefix, or zeros, lie before step 0 */
static inline const void *mn_conv_input(const mn_conv_job *j, int64_t b, int64_t t) {
  if (t >= 0) return mn_conv_row(j->x, b, t);
  return j->prefix ? mn_conv_row(j->prefix, b, t + j->W - 1) : (const void *)j->zeros;
}
/* Where the gradient of the input at step t >= 1 - W goes. */
static inline char *mn_conv_dx(const mn_conv_job *j, int64_t b, int64_t t) {
  const int64_t row = t >= 0 ? b * j->T + t : b * (j->W - 1) + t + j->W - 1;
  return (t >= 0 ? j->y : j->dprefix) + row * j->D * (int64_t)mn_dtype_size(j->type);
}

/* Tasks of the wide path: one of `groups` groups of channels, of the steps of one of per_row tasks of one sequence. */
int64_t mn_conv_wide_groups(int64_t D);
size_t mn_conv_wide_scratch(int64_t W);
void mn_conv_wide_task(void *job, int64_t i, int thread);
void mn_conv_wide_grad_task(void *job, int64_t i, int thread);

#endif
