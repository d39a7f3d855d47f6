/* token_loss.h - what objectives of tokens share: the loss of what a head says of hidden states, without its logits. */
#ifndef MN_TOKEN_LOSS_H
#define MN_TOKEN_LOSS_H

#include "objective/objective.h"

/* Mean negative log-likelihood of the field `wanted` i32 [B,T] by the head (output `head` [V,D]) over the output `hidden` [B,T,D]: sets
 * out->loss and out->each. say: gives the likeliest tokens i32 [B T], for which logits are made; else NULL. */
mn_tensor *mn_token_loss(mn_scope *s, const mn_judge *judge, const char *hidden, const char *head, const char *wanted, bool say,
                         mn_verdict *out);
/* Is `mask_id`, where one is given, a token of the head [V,D]? Else a fault that names both. */
bool mn_mask_exists(mn_graph *g, const mn_tensor *head, int64_t mask_id);

#endif
