/* stored.h - what reads a parameter in a type of storage (types.h): f16, bf16, or blocks of a few bits a value. Nothing is computed in such a
 * type, and no gradient goes to it; mn_cast, mn_take of rows, the product here and mn_experts are all that read it. */
#ifndef MN_STORED_H
#define MN_STORED_H

#include "graph/graph.h"

/* x W^T for x[M,K] of real numbers and n matrices W, each [N_i,K] in a type of storage of its own: [M, N_0 + N_1 ...] of type `result`.
 * Gradients reach x alone. Its meaning is the product with W's values. Kernels may round x to 8 bits where a matrix is in blocks, 32 or 256
 * values to a scale, and then do so whether rows are few or many; `exact`: never. */
enum { MN_STORED_MOST = 8 }; /* matrices of one product */
mn_tensor *mn_stored_product(mn_graph *g, mn_tensor *x, int n, mn_tensor *const *w, bool exact, mn_dtype result);

/* The rows of a table [N,K] in a type of storage that indices i32 [...] name, in a type of real numbers: [..., K]. An index beyond
 * the table gives zeros. mn_take of such a table is this in f32. */
mn_tensor *mn_stored_rows(mn_graph *g, mn_tensor *table, mn_tensor *index, mn_dtype type);

/* For kernels and passes. */
extern const mn_op mn_op_unpack; /* (x stored) -> y of real numbers: what mn_cast of x is */
MN_ATTRS_BEGIN
typedef struct mn_stored_product_attr {
  int exact;
} mn_stored_product_attr;
MN_ATTRS_END
extern const mn_op mn_op_stored_product; /* (x, w0 .. wn-1) -> y */
extern const mn_op mn_op_stored_rows;    /* (table, idx) -> y */

#endif
