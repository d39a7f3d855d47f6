/* pages.c - see pages.h. A shelf is a file in memory that is mapped privately: the system copies a page when it is written. */
#define _GNU_SOURCE
#include "base/pages.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct mn_page_shelf {
  atomic_int holders;
  int fd;
};

/* Open files are few, and of the process as this count is: others need them more. */
enum { MOST_SHELVES = 128 };
static atomic_int shelves;

size_t mn_page_size(void) { return (size_t)sysconf(_SC_PAGESIZE); }

void *mn_pages_new(size_t bytes) {
  void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) {
    mn_fail(MN_ERR_MEMORY, "out of memory: address space for %zu bytes was refused (%s)", bytes, strerror(errno));
    return NULL;
  }
  madvise(p, bytes, MADV_NOHUGEPAGE); /* one token would cost two megabytes in every cache */
  return p;
}

void mn_pages_free(void *p, size_t bytes) {
  if (p) munmap(p, bytes);
}

void mn_pages_drop(void *p, size_t bytes) {
  if (bytes && mmap(p, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) != MAP_FAILED)
    madvise(p, bytes, MADV_NOHUGEPAGE);
}

mn_status mn_page_shelf_new(size_t bytes, mn_page_shelf **out) {
  *out = NULL;
  if (atomic_fetch_add(&shelves, 1) >= MOST_SHELVES) {
    atomic_fetch_sub(&shelves, 1);
    return mn_fail(MN_ERR_MEMORY, "no pages can be shared: %d shelves are there", MOST_SHELVES);
  }
  mn_page_shelf *s = mn_calloc(1, sizeof *s);
  if (!s) {
    atomic_fetch_sub(&shelves, 1);
    return MN_ERR_MEMORY;
  }
  atomic_init(&s->holders, 1);
  s->fd = memfd_create("mneme", MFD_CLOEXEC);
  if (s->fd >= 0 && ftruncate(s->fd, (off_t)bytes) == 0) {
    *out = s;
    return MN_OK;
  }
  mn_fail(MN_ERR_MEMORY, "no pages can be shared: %s", strerror(errno));
  if (s->fd >= 0) close(s->fd);
  free(s);
  atomic_fetch_sub(&shelves, 1);
  return MN_ERR_MEMORY;
}

mn_page_shelf *mn_page_shelf_share(mn_page_shelf *s) {
  atomic_fetch_add(&s->holders, 1);
  return s;
}

void mn_page_shelf_leave(mn_page_shelf *s) {
  if (!s || atomic_fetch_sub(&s->holders, 1) > 1) return;
  close(s->fd); /* who sees its pages goes on seeing them */
  free(s);
  atomic_fetch_sub(&shelves, 1);
}

int mn_page_shelf_holders(const mn_page_shelf *s) { return atomic_load(&s->holders); }

mn_status mn_page_shelf_show(const mn_page_shelf *s, size_t offset, void *p, size_t bytes) {
  if (!bytes) return MN_OK;
  if (mmap(p, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE | MAP_FIXED, s->fd, (off_t)offset) != MAP_FAILED) return MN_OK;
  return mn_fail(MN_ERR_MEMORY, "no pages can be shared: %s", strerror(errno));
}

mn_status mn_page_shelf_take(mn_page_shelf *s, size_t offset, void *p, size_t bytes) {
  for (size_t at = 0; at < bytes;) {
    const ssize_t n = pwrite(s->fd, (const char *)p + at, bytes - at, (off_t)(offset + at));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return mn_fail(MN_ERR_MEMORY, "no pages can be shared: %s", n ? strerror(errno) : "no room");
    at += (size_t)n;
  }
  return mn_page_shelf_show(s, offset, p, bytes);
}
