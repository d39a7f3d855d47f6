/* backend.c - what all backends share: finding a node's kernel, and freeing. */
#include "backend/backend.h"

const mn_kernel *mn_backend_find(const mn_backend *b, const mn_node *n) {
  for (; b; b = b->fallback) {
    for (int i = 0; i < b->n_kernels; i++) {
      const mn_kernel *k = b->kernels[i];
      if (k->op == n->op && (!k->accepts || k->accepts(n))) return k;
    }
  }
  return NULL;
}

void mn_backend_free(mn_backend *b) {
  if (b && b->destroy) b->destroy(b);
}
