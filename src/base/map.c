/* map.c - files mapped read-only, and what happens when such a file shrinks under its map: the system raises SIGBUS in
 * whichever thread reads beyond the new end. A handler, which the first map installs, puts zero pages there, marks the map as
 * cut and lets the reader go on; mn_map_check tells the reader's caller. A fault that is not of a map goes to the handler
 * that was there before. */
#define _GNU_SOURCE
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct mn_map_watch {          /* of one map; never freed, so that a handler in any thread may look at it */
  atomic_uintptr_t begin, end; /* begin 0: free */
  atomic_bool cut, changed;    /* for good: what is put back later was not there when it was read */
  char *path;
  struct stat was; /* when it was mapped */
  struct mn_map_watch *next;
};

/* Of the process, as its signal handlers are: the handler has no other way to find the maps. */
static struct {
  pthread_mutex_t mutex; /* taking and giving back watches */
  _Atomic(mn_map_watch *) first;
  bool installed;
  struct sigaction before;
  uintptr_t page;
} maps = {.mutex = PTHREAD_MUTEX_INITIALIZER};

/* ---- the handler ---- only what may be done in one: atomics, mmap, sigaction */

static void pass_on(int sig, siginfo_t *info, void *context) {
  if (maps.before.sa_flags & SA_SIGINFO) maps.before.sa_sigaction(sig, info, context);
  else if (maps.before.sa_handler == SIG_IGN && info->si_code <= 0) return; /* sent by a process, and ignored as before */
  else if (maps.before.sa_handler != SIG_DFL && maps.before.sa_handler != SIG_IGN) maps.before.sa_handler(sig);
  else {
    signal(sig, SIG_DFL); /* the fault comes again and ends the process, as without us */
    if (info->si_code <= 0) raise(sig);
  }
}

static void on_bus(int sig, siginfo_t *info, void *context) {
  int error = errno;
  uintptr_t at = (uintptr_t)info->si_addr;
  for (mn_map_watch *w = info->si_code > 0 ? atomic_load(&maps.first) : NULL; w; w = w->next) {
    uintptr_t begin = atomic_load(&w->begin), end = atomic_load(&w->end);
    if (!begin || at < begin || at >= end) continue;
    atomic_store(&w->cut, true);
    uintptr_t from = at / maps.page * maps.page;
    if (mmap((void *)from, end - from, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED) break;
    errno = error;
    return;
  }
  pass_on(sig, info, context);
}

/* ---- watches ---- */

static mn_status install(void) {
  if (maps.installed) return MN_OK;
  maps.page = (uintptr_t)sysconf(_SC_PAGESIZE);
  struct sigaction action = {.sa_sigaction = on_bus, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART};
  sigemptyset(&action.sa_mask);
  if (sigaction(SIGBUS, &action, &maps.before) != 0) return mn_fail(MN_ERR_IO, "no handler for files that shrink: %s", strerror(errno));
  maps.installed = true;
  return MN_OK;
}

static mn_map_watch *free_watch(void) {
  mn_map_watch *w = atomic_load(&maps.first);
  while (w && w->path) w = w->next;
  if (w) return w;
  w = mn_calloc(1, sizeof *w);
  if (!w) return NULL;
  w->next = atomic_load(&maps.first);
  atomic_store(&maps.first, w);
  return w;
}

static mn_status watch(const char *path, const struct stat *st, void *data, size_t n, mn_map_watch **out) {
  pthread_mutex_lock(&maps.mutex);
  mn_status status = install();
  mn_map_watch *w = status == MN_OK ? free_watch() : NULL;
  if (w && (w->path = mn_strdup(path))) {
    w->was = *st;
    atomic_store(&w->cut, false);
    atomic_store(&w->changed, false);
    atomic_store(&w->end, (uintptr_t)data + n);
    atomic_store(&w->begin, (uintptr_t)data);
    *out = w;
  } else if (status == MN_OK) {
    status = MN_ERR_MEMORY;
  }
  pthread_mutex_unlock(&maps.mutex);
  return status;
}

/* ---- maps ---- */

static mn_status map_fd(const char *path, int fd, mn_map *map) {
  struct stat st;
  if (fstat(fd, &st) != 0) return mn_fail(MN_ERR_IO, "could not read %s: %s", path, strerror(errno));
  if (S_ISDIR(st.st_mode)) return mn_fail(MN_ERR_IO, "could not read %s: %s", path, strerror(EISDIR));
  if (!S_ISREG(st.st_mode)) return mn_fail(MN_ERR_IO, "could not map %s: it is not a regular file", path);
  if ((uint64_t)st.st_size > SIZE_MAX / 2) return mn_fail(MN_ERR_MEMORY, "%s is too large to map", path);
  size_t n = (size_t)st.st_size, whole = mn_align(n, (size_t)sysconf(_SC_PAGESIZE));
  if (!n) return MN_OK;
  void *p = mmap(NULL, n, PROT_READ, MAP_PRIVATE, fd, 0);
  if (p == MAP_FAILED) return mn_fail(errno == ENOMEM ? MN_ERR_MEMORY : MN_ERR_IO, "could not map %s: %s", path, strerror(errno));
  mn_map_watch *w = NULL;
  mn_status status = watch(path, &st, p, whole, &w);
  if (status == MN_OK) *map = (mn_map){p, n, w};
  else munmap(p, n);
  return status;
}

mn_status mn_map_open(const char *path, mn_map *map) {
  *map = (mn_map){0};
  if (!*path) return mn_fail(MN_ERR_IO, "could not open a file: its name is empty");
  int fd;
  do fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe that nobody writes to would be waited for */
  while (fd < 0 && errno == EINTR);
  if (fd < 0) return mn_fail(MN_ERR_IO, "could not open %s: %s", path, strerror(errno));
  mn_status status = map_fd(path, fd, map);
  close(fd);
  return status;
}

void mn_map_close(mn_map *map) {
  if (map->watch) {
    pthread_mutex_lock(&maps.mutex);
    atomic_store(&map->watch->begin, 0);
    free(map->watch->path);
    map->watch->path = NULL;
    pthread_mutex_unlock(&maps.mutex);
  }
  if (map->data) munmap((void *)(uintptr_t)map->data, map->size);
  *map = (mn_map){0};
}

mn_status mn_map_check(const mn_map *map) {
  mn_map_watch *w = map->watch;
  if (!w) return MN_OK;
  struct stat st;
  bool same = stat(w->path, &st) == 0 && st.st_ino == w->was.st_ino && st.st_dev == w->was.st_dev;
  bool cut = atomic_load(&w->cut), short_now = same && st.st_size < w->was.st_size;
  if (same && (short_now || st.st_mtim.tv_sec != w->was.st_mtim.tv_sec || st.st_mtim.tv_nsec != w->was.st_mtim.tv_nsec))
    atomic_store(&w->changed, true);
  if (short_now)
    return mn_fail(MN_ERR_IO, "%s was cut short while it was read: it had %zu bytes and has %lld; put it back as it was", w->path,
                   map->size, (long long)st.st_size);
  if (cut)
    return mn_fail(MN_ERR_IO, "%s could not be read to its end: it was cut short meanwhile, or its disk fails; put it back", w->path);
  if (atomic_load(&w->changed))
    return mn_fail(MN_ERR_IO, "%s was changed while it was read; leave it alone meanwhile, and begin again", w->path);
  return MN_OK;
}
