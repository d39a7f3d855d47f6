/* isa/loss.h - vector code of the cross-entropy over rows of logits. */
#ifndef MN_ISA_LOSS_H
#define MN_ISA_LOSS_H

#include "backend/cpu/isa.h"

typedef struct mn_loss_isa {
  /* The negative log-likelihood of `target` in one row of logits [vocab]. next: the row that is read after this one. */
  float (*nll)(int64_t vocab, const float *logits, const float *next, int64_t target);
  /* The same, and in place the gradient coef * (softmax - onehot): f32, or bf16 in the first half of the row. */
  float (*nll_grad)(int64_t vocab, float *logits, const float *next, int64_t target, float coef, bool bf16);
  /* out[i] = sum over p < parts of x[p * step + i], in order, i < n; out is f32 or bf16 */
  void (*add_parts)(int64_t n, int64_t parts, int64_t step, const float *x, bool bf16, void *out);
} mn_loss_isa;

MN_ISA_DECLARE(mn_loss_isa, mn_loss_isa_table);

#endif
