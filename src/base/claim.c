/* claim.c - see claim.h. Whoever leaves removes the lock file before he lets go of it: a lock on a file that has no name any more keeps nobody
 * out, so who has got one looks whether the name still means it. */
#define _GNU_SOURCE
#include "base/claim.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"

/* ---- a lock with a name ---- */

/* The lock file, which is no link and no pipe. */
static mn_status open_lock(int dir, const char *where, const char *name, int *fd) {
  struct stat st;
  for (int attempt = 0; attempt < 3; attempt++) {
    *fd = openat(dir, name, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0666);
    if (*fd < 0 && errno == EACCES) { /* left by somebody else? */
      *fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
      if (*fd < 0 && errno == ENOENT) errno = EACCES; /* there is none, and none may be made */
    }
    if (*fd >= 0 || errno != ELOOP || unlinkat(dir, name, 0) != 0) break;
  }
  if (*fd < 0) return mn_fail(MN_ERR_IO, "%s/%s: cannot be written: %s", where, name, strerror(errno));
  if (fstat(*fd, &st) == 0 && S_ISREG(st.st_mode)) return MN_OK;
  close(*fd);
  *fd = -1;
  return mn_fail(MN_ERR_IO, "%s/%s is not a regular file, and this is where a lock goes; move it away", where, name);
}

static bool means(int dir, const char *name, int fd) {
  struct stat mine, named;
  return fstat(fd, &mine) == 0 && fstatat(dir, name, &named, AT_SYMLINK_NOFOLLOW) == 0 && mine.st_ino == named.st_ino &&
         mine.st_dev == named.st_dev;
}

mn_status mn_lock_take(int dir, const char *where, const char *name, int *fd, mn_lock_state *state) {
  enum { PATIENCE = 10 }; /* times 2 ms: whoever is just leaving, or tidying up */
  for (int waited = 0;;) {
    MN_TRY(open_lock(dir, where, name, fd));
    const int error = flock(*fd, LOCK_EX | LOCK_NB) == 0 ? 0 : errno;
    *state = !error ? MN_LOCK_MINE : error == EWOULDBLOCK ? MN_LOCK_OTHERS : MN_LOCK_NONE;
    const bool named = means(dir, name, *fd);
    if (!error && named) return MN_OK;
    if (*state == MN_LOCK_NONE) unlinkat(dir, name, 0);
    close(*fd);
    *fd = -1;
    if (error == EINTR || (!error && !named) || (error == EWOULDBLOCK && !named)) continue;
    if (*state == MN_LOCK_NONE || waited++ == PATIENCE) return MN_OK;
    nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
  }
}

/* ---- claims ---- */

struct mn_claim {
  int fd; /* -1: the file system has no locks */
  char *lock;
};

static const char begin[] = ".mneme-", end[] = ".lock";

bool mn_claim_is_lock(const char *name) {
  const size_t n = strlen(name), least = sizeof begin - 1 + sizeof end - 1;
  return n > least && !strncmp(name, begin, sizeof begin - 1) && !strcmp(name + n - (sizeof end - 1), end);
}

/* Of names that are too long already a hash. */
static char *lock_name(const char *path) {
  enum { LONGEST = 240 };
  char hex[MN_HASH_HEX];
  const char *base = mn_path_base(path);
  if (strlen(base) > LONGEST) mn_content_hash(base, strlen(base), hex), base = hex;
  return mn_format("%s%s%s", begin, base, end);
}

static mn_status lock_beside(const char *path, const char *where, const char *name, mn_claim *c) {
  mn_lock_state state = MN_LOCK_NONE;
  const int dir = open(where, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (dir < 0) return mn_fail(MN_ERR_IO, "could not open the directory %s: %s", where, strerror(errno));
  mn_status status = mn_lock_take(dir, where, name, &c->fd, &state);
  close(dir);
  if (status == MN_OK && state == MN_LOCK_OTHERS) status = mn_fail(MN_ERR_CONFIG, "%s is open in another process", path);
  return status;
}

mn_status mn_claim_take(const char *path, mn_claim **out) {
  *out = NULL;
  mn_claim *c = mn_calloc(1, sizeof *c);
  char *where = mn_path_dir(path), *name = lock_name(path);
  if (c) c->fd = -1;
  if (c && where && name) c->lock = mn_path_join(where, name);
  mn_status status = c && c->lock ? lock_beside(path, where, name, c) : MN_ERR_MEMORY;
  free(where);
  free(name);
  if (status == MN_OK) *out = c;
  else if (c) free(c->lock), free(c);
  return status;
}

void mn_claim_leave(mn_claim *c) {
  if (!c) return;
  if (c->fd >= 0) {
    if (means(AT_FDCWD, c->lock, c->fd)) unlink(c->lock); /* its directory may be another one by now */
    close(c->fd);
  }
  free(c->lock);
  free(c);
}
