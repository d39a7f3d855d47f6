/* apart.h - a backend whose memory the host cannot read, for tests: what any device's is. Whoever above it looks into a tensor, or binds
 * memory of its own to a plan, ends there.
 *
 * Its memory is one file without a name that is mapped twice: once without any permission, and the addresses there are what the backend
 * hands out; once for reading and writing, a constant distance away, which only its own calls know. Its kernels are those of another
 * backend, called at that distance: so it computes the other's bits. Addresses are never used twice: what is freed is gone. */
#ifndef MN_TEST_APART_H
#define MN_TEST_APART_H

#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "backend/backend.h"
#include "test.h"

enum { APART_IO = 4096 };                         /* tensors of one call, those of a loop's too */
static const size_t apart_room = (size_t)8 << 30; /* addresses; a page of memory is taken when it is written */

typedef struct apart_kernel {
  mn_kernel here; /* first: a call's kernel is this */
  const mn_kernel *theirs;
  mn_backend *owner; /* whose kernel it is */
} apart_kernel;

typedef struct apart_place {
  mn_backend here;
  mn_backend *theirs;
  int fd;
  char *outside, *inside; /* the same bytes: without permission, and with */
  size_t used;
  long long transfers, bytes_alive;
  apart_kernel *kernel;
  const mn_kernel **list;
} apart_place;

static inline apart_place *apart_of(mn_backend *b) { return b->impl; }

static inline bool apart_holds(const apart_place *a, const void *p, size_t n) {
  return (const char *)p >= a->outside && (const char *)p + n <= a->outside + a->used;
}

/* Where bytes of its memory can be read and written; NULL: they are none of it. */
static inline void *apart_inside(const apart_place *a, const void *p, size_t n) {
  return apart_holds(a, p, n) ? a->inside + ((const char *)p - a->outside) : NULL;
}

static inline void *apart_alloc(mn_backend *b, size_t bytes) {
  apart_place *a = apart_of(b);
  const size_t page = 4096, n = (bytes + page) / page * page; /* one more than asked for: addresses differ */
  if (n > apart_room - a->used) {
    mn_fail(MN_ERR_MEMORY, "the test's backend has no more addresses");
    return NULL;
  }
  a->used += n;
  a->bytes_alive += (long long)bytes;
  return a->outside + a->used - n;
}

static inline void apart_free(mn_backend *b, void *p, size_t bytes) {
  apart_place *a = apart_of(b);
  char *inside = p ? apart_inside(a, p, bytes) : NULL;
  if (!inside) return;
  a->bytes_alive -= (long long)bytes;
  if (bytes) madvise(inside, bytes, MADV_REMOVE);
}

static inline mn_status apart_not_ours(const char *what) {
  return mn_fail(MN_ERR_INTERNAL, "%s: memory that is not the backend's own was given as its own, or the other way round", what);
}

static inline mn_status apart_upload(mn_backend *b, void *dst, const void *host, size_t n) {
  void *to = apart_inside(apart_of(b), dst, n);
  if (!n) return MN_OK;
  if (!to || apart_holds(apart_of(b), host, n)) return apart_not_ours("upload");
  memcpy(to, host, n);
  return MN_OK;
}
static inline mn_status apart_download(mn_backend *b, void *host, const void *src, size_t n) {
  const void *from = apart_inside(apart_of(b), src, n);
  if (!n) return MN_OK;
  if (!from || apart_holds(apart_of(b), host, n)) return apart_not_ours("download");
  memcpy(host, from, n);
  return MN_OK;
}
static inline mn_status apart_copy(mn_backend *b, void *dst, const void *src, size_t n) {
  void *to = apart_inside(apart_of(b), dst, n);
  const void *from = apart_inside(apart_of(b), src, n);
  if (!n) return MN_OK;
  if (!to || !from) return apart_not_ours("copy");
  memmove(to, from, n);
  return MN_OK;
}
static inline mn_status apart_zero(mn_backend *b, void *dst, size_t n) {
  void *to = apart_inside(apart_of(b), dst, n);
  if (!n) return MN_OK;
  if (!to) return apart_not_ours("zero");
  memset(to, 0, n);
  return MN_OK;
}
static inline mn_status apart_sync(mn_backend *b) {
  (void)b;
  return MN_OK;
}
/* Another of its kind it knows: no byte passes through the host. */
static inline mn_status apart_receive(mn_backend *b, void *dst, mn_backend *from, const void *src, size_t n, bool *done) {
  if (from->receive != apart_receive) return MN_OK;
  void *to = apart_inside(apart_of(b), dst, n);
  const void *there = apart_inside(apart_of(from), src, n);
  if (!to || !there) return apart_not_ours("receive");
  memcpy(to, there, n);
  apart_of(b)->transfers++;
  *done = true;
  return MN_OK;
}

/* ---- kernels ---- */
typedef struct apart_swap { /* a call as it was */
  const mn_kernel *kernel;
  mn_backend *backend;
  void *workspace, *data[APART_IO];
} apart_swap;

static inline mn_view *apart_view(mn_call *c, int i) { return i < c->n_in ? &c->in[i] : &c->out[i - c->n_in]; }

static inline void apart_leave(mn_call *c, const apart_swap *was, bool with_memory) {
  c->kernel = was->kernel;
  c->backend = was->backend;
  c->workspace = was->workspace;
  for (int i = 0; with_memory && i < c->n_in + c->n_out; i++) apart_view(c, i)->data = was->data[i];
}

/* The call as the other backend's kernel sees it. False: a tensor lies elsewhere; nothing has changed. */
static inline bool apart_enter(mn_call *c, apart_swap *was, bool with_memory) {
  const apart_kernel *k = (const apart_kernel *)c->kernel;
  const apart_place *a = apart_of(c->backend);
  const int n = with_memory ? c->n_in + c->n_out : 0;
  bool ok = n <= APART_IO;
  *was = (apart_swap){.kernel = c->kernel, .backend = c->backend, .workspace = c->workspace};
  for (int i = 0; ok && i < n; i++) {
    was->data[i] = apart_view(c, i)->data;
    ok = !was->data[i] || apart_inside(a, was->data[i], 0);
  }
  if (!ok || (with_memory && c->workspace && !apart_inside(a, c->workspace, 0))) return false;
  c->kernel = k->theirs;
  c->backend = k->owner;
  for (int i = 0; i < n; i++)
    if (was->data[i]) apart_view(c, i)->data = apart_inside(a, was->data[i], 0);
  if (n && c->workspace) c->workspace = apart_inside(a, c->workspace, 0);
  return true;
}
static inline mn_status apart_run(mn_call *c) {
  static _Thread_local apart_swap was;
  if (!apart_enter(c, &was, true)) return apart_not_ours(c->node->op->name);
  mn_status status = c->kernel->run(c);
  apart_leave(c, &was, true);
  return status;
}
static inline mn_status apart_prepare(mn_call *c) {
  apart_swap was;
  apart_enter(c, &was, false);
  mn_status status = c->kernel->prepare(c);
  apart_leave(c, &was, false);
  return status;
}
static inline void apart_release(mn_call *c) {
  apart_swap was;
  apart_enter(c, &was, false);
  c->kernel->release(c);
  apart_leave(c, &was, false);
}
static inline size_t apart_workspace(const mn_call *c) {
  mn_call there = *c;
  apart_swap was;
  apart_enter(&there, &was, false);
  return there.kernel->workspace(&there);
}

/* The other's kernels, and then those of its fallback for core operations, in the order in which they are found there. */
static inline bool apart_kernels(apart_place *a) {
  int n = 0;
  for (mn_backend *b = a->theirs; b; b = b->fallback) n += b->n_kernels;
  a->kernel = calloc((size_t)n + 1, sizeof *a->kernel);
  a->list = calloc((size_t)n + 1, sizeof *a->list);
  if (!a->kernel || !a->list) return false;
  for (mn_backend *b = a->theirs; b; b = b->fallback)
    for (int i = 0; i < b->n_kernels; i++) {
      if (b != a->theirs && b->kernels[i]->op->cls == MN_OP_FUSED) continue;
      apart_kernel *k = &a->kernel[a->here.n_kernels];
      *k = (apart_kernel){*b->kernels[i], b->kernels[i], b};
      k->here.run = apart_run;
      if (k->here.prepare) k->here.prepare = apart_prepare;
      if (k->here.release) k->here.release = apart_release;
      if (k->here.workspace) k->here.workspace = apart_workspace;
      a->list[a->here.n_kernels++] = &k->here;
    }
  return true;
}

static inline void apart_destroy(mn_backend *b) {
  apart_place *a = apart_of(b);
  if (a->inside) munmap(a->inside, apart_room);
  if (a->outside) munmap(a->outside, apart_room);
  if (a->fd >= 0) close(a->fd);
  mn_backend_free(a->theirs);
  free(a->kernel);
  free(a->list);
  free(a);
}

/* Over a backend that it takes: mn_backend_ref(), or one of the processor's. NULL: the system gives no such memory. */
static inline mn_backend *apart_over(mn_backend *theirs) {
  apart_place *a = calloc(1, sizeof *a);
  if (!a) return NULL;
  *a = (apart_place){.theirs = theirs, .fd = (int)syscall(SYS_memfd_create, "apart", 0)};
  a->here = *theirs;
  mn_backend *b = &a->here;
  b->name = "apart";
  b->n_kernels = 0;
  b->sorted = false;
  b->fallback = NULL;
  b->on_host = false;
  b->impl = a;
  b->alloc = apart_alloc, b->free = apart_free, b->upload = apart_upload, b->download = apart_download;
  b->copy = apart_copy, b->zero = apart_zero, b->sync = apart_sync, b->receive = apart_receive, b->destroy = apart_destroy;
  bool ok = a->fd >= 0 && ftruncate(a->fd, (off_t)apart_room) == 0 && apart_kernels(a);
  b->kernels = a->list;
  if (ok) a->outside = mmap(NULL, apart_room, PROT_NONE, MAP_SHARED | MAP_NORESERVE, a->fd, 0);
  if (ok) a->inside = mmap(NULL, apart_room, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, a->fd, 0);
  if (a->outside == MAP_FAILED) a->outside = NULL;
  if (a->inside == MAP_FAILED) a->inside = NULL;
  if (ok && a->outside && a->inside) return b;
  printf("no memory that the host cannot read\n");
  apart_destroy(b);
  return NULL;
}

#endif
