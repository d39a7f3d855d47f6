/* backend.c - what all backends share: being opened by name, finding a node's kernel, copies between two of them, and freeing. */
#include "backend/backend.h"

#include "format/config.h"

#include <stdlib.h>

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

/* The number of the first kernel that may be of the operation: every node of a model is looked up, and there are a hundred kernels. */
static int first_of(const mn_backend *b, const mn_op *op) {
  int lo = 0, hi = b->sorted ? b->n_kernels : 0;
  while (lo < hi) {
    const int mid = lo + (hi - lo) / 2;
    if ((uintptr_t)b->kernels[mid]->op < (uintptr_t)op) lo = mid + 1;
    else hi = mid;
  }
  return lo;
}

const mn_kernel *mn_backend_find(mn_backend *b, const mn_node *n, mn_backend **owner) {
  for (; b; b = n->op->cls == MN_OP_FUSED ? NULL : b->fallback) {
    for (int i = first_of(b, n->op); i < b->n_kernels; i++) {
      const mn_kernel *k = b->kernels[i];
      if (b->sorted && k->op != n->op) break;
      if (k->op != n->op || (k->accepts && !k->accepts(n))) continue;
      if (owner) *owner = b;
      return k;
    }
  }
  return NULL;
}

/* ---- from place to place ---- */
enum { PIECE = 4 << 20 }; /* bytes that wait on the host at a time */

static mn_status through_host(mn_backend *to, char *dst, mn_backend *from, const char *src, size_t bytes) {
  const size_t most = bytes < PIECE ? bytes : PIECE;
  void *host = mn_alloc(most);
  mn_status status = host ? MN_OK : MN_ERR_MEMORY;
  for (size_t at = 0; at < bytes && status == MN_OK; at += most) {
    const size_t n = bytes - at < most ? bytes - at : most;
    status = from->download(from, host, src + at, n);
    if (status == MN_OK) status = to->upload(to, dst + at, host, n);
    if (status == MN_OK) status = to->sync(to); /* the next piece takes its place */
  }
  free(host);
  return status;
}

mn_status mn_backend_transfer(mn_backend *to, void *dst, mn_backend *from, const void *src, size_t bytes) {
  bool done = false;
  if (to == from) return to->copy(to, dst, src, bytes);
  if (!bytes) return MN_OK;
  MN_TRY(from->sync(from));
  if (to->receive) {
    MN_TRY(to->sync(to));
    MN_TRY(to->receive(to, dst, from, src, bytes, &done));
    if (done) return MN_OK;
  }
  if (from->on_host) return to->upload(to, dst, src, bytes);
  if (to->on_host) return from->download(from, dst, src, bytes);
  return through_host(to, dst, from, src, bytes);
}

void mn_backend_free(mn_backend *b) {
  if (b && b->destroy) b->destroy(b);
}
