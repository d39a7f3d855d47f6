/* isa/loss.h - vector code of the cross-entropy over rows of logits. */
#ifndef MN_ISA_LOSS_H
#define MN_ISA_LOSS_H

#include "backend/cpu/isa.h"

typedef struct mn_loss_isa {
  /* The negative log-likelihood of `target` in one row of logits [vocab]. */
  float (*nll)(int64_t vocab, const float *logits, int64_t target);
  /* The same, and the gradient coef * (softmax - onehot): in place, or in bf16 to dlogits when that is not NULL. */
  float (*nll_grad)(int64_t vocab, float *logits, int64_t target, float coef, uint16_t *dlogits);
  /* out[i] = sum over p < parts of x[p * step + i], in order, i < n; out is f32 or bf16 */
  void (*add_parts)(int64_t n, int64_t parts, int64_t step, const float *x, bool bf16, void *out);
} mn_loss_isa;

MN_ISA_DECLARE(mn_loss_isa, mn_loss_isa_table);

#endif
