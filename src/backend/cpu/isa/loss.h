/* isa/loss.h - vector code of the cross-entropy over rows of logits. */
#ifndef MN_ISA_LOSS_H
#define MN_ISA_LOSS_H

#include "backend/cpu/isa.h"

typedef struct mn_loss_isa {
  /* The negative log-likelihood of `target` in one row of logits [vocab]. */
  float (*nll)(int64_t vocab, const float *logits, int64_t target);
  /* The same, and the gradient coef * (softmax - onehot): in place, or in bf16 to dlogits when that is not NULL. */
  float (*nll_grad)(int64_t vocab, float *logits, int64_t target, float coef, uint16_t *dlogits);
  void (*to_bf16)(int64_t n, const float *x, uint16_t *y);
} mn_loss_isa;

MN_ISA_DECLARE(mn_loss_isa, mn_loss_isa_table);

#endif
