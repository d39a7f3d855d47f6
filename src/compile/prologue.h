/* prologue.h - what is the same in every run, computed once.
 *
 * Some leaves of a graph are fixed: weights that are read and never written while plans run. What depends on them alone - a weight in
 * the type that products take, weights joined to one matrix, the exponential of a decay - need not be computed at every step. A plan
 * that is compiled with a prologue leaves such values out, reads them from the prologue's memory, and is otherwise the plan that it
 * would be: the operations and their results are the same. Plans share what they have in common; a value is known by what it is
 * computed from (names of leaves, operations), so that plans of different graphs meet in one weight. */
#ifndef MN_PROLOGUE_H
#define MN_PROLOGUE_H

#include "backend/backend.h"

typedef struct mn_prologue mn_prologue;

typedef struct mn_fixed_leaf {
  const mn_tensor *leaf; /* a variable with a name, which means the same tensor in every graph of the prologue */
  void *data;            /* on the backend, filled: compiling reads it */
} mn_fixed_leaf;

mn_status mn_prologue_new(mn_backend *b, mn_prologue **out);
void mn_prologue_free(mn_prologue *p); /* after the plans that read it; NULL is fine */
/* Computes everything anew: the fixed leaves' memory was filled with other values. No plan of it runs meanwhile. */
mn_status mn_prologue_refresh(mn_prologue *p);
int mn_prologue_count(const mn_prologue *p);    /* values */
size_t mn_prologue_bytes(const mn_prologue *p); /* and what they take */

#endif
