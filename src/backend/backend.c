/* backend.c - what all backends share: being opened by name, finding a node's kernel, and freeing. */
#include "backend/backend.h"

#include "format/config.h"

#if MN_WITH_REF
static mn_status open_ref(int threads, mn_backend **out) {
  if (threads > 1)
    return mn_fail(MN_ERR_CONFIG, "the backend ref runs on one thread, not on %d: leave --threads out, or take the backend cpu", threads);
  *out = mn_backend_ref();
  return MN_OK;
}
#endif

static const struct {
  const char *name;
  mn_status (*open)(int threads, mn_backend **out);
  bool reference; /* what others are held to: every operation in doubles */
} backends[] = {
    {"cpu", mn_backend_cpu_new, false}, /* the first is the usual one */
#if MN_WITH_REF
    {"ref", open_ref, true},
#endif
};
enum { BACKENDS = sizeof backends / sizeof *backends };

int mn_backend_count(void) { return BACKENDS; }
const char *mn_backend_name(int i) { return backends[i].name; }

const char *mn_backend_usual(mn_dtype type) {
  for (int i = 0; i < BACKENDS && type == MN_F64; i++)
    if (backends[i].reference) return backends[i].name;
  return backends[0].name;
}

mn_status mn_backend_open(const char *name, int threads, mn_backend **out) {
  int i = 0;
  *out = NULL;
  if (name) MN_TRY(mn_config_choose(NULL, "backend", name, BACKENDS, mn_backend_name, &i));
  return backends[i].open(threads, out);
}

const mn_kernel *mn_backend_find(mn_backend *b, const mn_node *n, mn_backend **owner) {
  for (; b; b = n->op->cls == MN_OP_FUSED ? NULL : b->fallback) {
    for (int i = 0; i < b->n_kernels; i++) {
      const mn_kernel *k = b->kernels[i];
      if (k->op != n->op || (k->accepts && !k->accepts(n))) continue;
      if (owner) *owner = b;
      return k;
    }
  }
  return NULL;
}

void mn_backend_free(mn_backend *b) {
  if (b && b->destroy) b->destroy(b);
}
