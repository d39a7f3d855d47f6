/* quant.h - values in blocks of few bits (base/blocks.h): what a block says, read value by value, and blocks made from values.
 *
 * Reading is the reference that kernels are held to: bit for bit what the layouts say, in f32, one rounding for each operation that
 * blocks.h writes down. Making blocks is a search: of the scales that a block can hold, those whose squared error is least,
 *   sum_i w_i (x_i - x^_i)^2,
 * where w_i is rms(x) + |x_i| over the values that share a scale: large weights do most of a product. The same values give the same blocks. */
#ifndef MN_QUANT_H
#define MN_QUANT_H

#include "base/types.h"

/* Is it a type that these functions know: f32, f16, bf16 and those of blocks? */
bool mn_quant_knows(mn_dtype type);
/* n values, a multiple of the block; `from` may be unaligned. */
void mn_dequantize(mn_dtype type, const void *from, int64_t n, float *to);
/* The same to blocks. MN_ERR_NUMERIC for a value that is not finite or too large for the type: the message says which. The pool (may
 * be NULL) shares the work; the result does not depend on it. */
mn_status mn_quantize(mn_pool *pool, mn_dtype type, const float *from, int64_t n, void *to);
/* Weight of each of the n values of one block of `type`, as above. */
void mn_quant_weights(mn_dtype type, const float *x, int n, float *w);

#endif
