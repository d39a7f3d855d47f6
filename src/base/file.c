/* file.c - files that are there: read as wholes with a limit, looked at, told apart, hashed. Writing is file_write.c's, names of files and
 * directories are path.c's. */
#define _GNU_SOURCE
#include "base/file_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- reading ------------------------------------------------------------------------------------------------------ */

int mn_file_open_retry(const char *path, int flags, mode_t mode) {
  int fd;
  do fd = open(path, flags | O_CLOEXEC, mode);
  while (fd < 0 && errno == EINTR);
  return fd;
}

mn_status mn_file_open_to_read(const char *path, int *fd, struct stat *st) {
  *fd = -1;
  if (!*path) return mn_fail(MN_ERR_IO, "could not open a file: its name is empty");
  *fd = mn_file_open_retry(path, O_RDONLY | O_NONBLOCK, 0); /* opening a pipe that nobody writes to would wait for ever */
  if (*fd < 0) return mn_fail(MN_ERR_IO, "could not open %s: %s", path, strerror(errno));
  int fault = 0;
  if (fstat(*fd, st) != 0) fault = errno;
  else if (S_ISDIR(st->st_mode)) fault = EISDIR;
  if (!fault) return MN_OK;
  close(*fd);
  return mn_fail(MN_ERR_IO, "could not read %s: %s", path, strerror(fault));
}

/* A pipe is waited for: for its bytes as long as somebody may write them, for a first writer 2 seconds. False: no more. */
static bool wait_for_bytes(int fd, bool somebody, int *patience) {
  struct pollfd p = {.fd = fd, .events = POLLIN};
  if (!somebody && --*patience < 0) return false;
  int ready = poll(&p, 1, 100);
  return !(ready > 0 && !(p.revents & POLLIN)) || somebody; /* hung up: the last writer has gone */
}

ssize_t mn_file_read_full(int fd, void *data, size_t n) {
  size_t done = 0;
  struct stat st;
  int patience = fstat(fd, &st) == 0 && S_ISFIFO(st.st_mode) ? 20 : 0;
  while (done < n) {
    ssize_t r = read(fd, (char *)data + done, n - done);
    if (r < 0 && errno == EINTR && !mn_stopped()) continue;
    if (mn_stopped() && (r < 0 || !S_ISREG(st.st_mode))) return errno = EINTR, -1;
    if (r < 0 && errno == EAGAIN && wait_for_bytes(fd, true, &patience)) continue;
    if (r < 0) return -1;
    if (r == 0 && done == 0 && wait_for_bytes(fd, false, &patience)) continue;
    if (r == 0) break;
    done += (size_t)r;
  }
  return (ssize_t)done;
}

static mn_status not_read(const char *path) {
  if (errno == EINTR && mn_stopped()) return mn_fail(MN_ERR_CANCELLED, "interrupted while reading %s", path);
  return mn_fail(MN_ERR_IO, "could not read %s: %s", path, strerror(errno));
}

mn_status mn_file_cut_short(const char *path, const struct stat *st, size_t got) {
  if (!S_ISREG(st->st_mode) || got >= (uint64_t)st->st_size) return MN_OK;
  return mn_fail(MN_ERR_IO, "%s was cut short while it was read: it had %lld bytes and has %zu; put it back as it was", path,
                 (long long)st->st_size, got);
}

static mn_status too_large(const char *path, size_t limit) {
  return mn_fail(MN_ERR_IO, "%s has more than %zu bytes, the most that is read here", path, limit);
}

mn_status mn_file_read(const char *path, size_t limit, char **data, size_t *size) {
  int fd;
  struct stat st;
  *data = NULL;
  *size = 0;
  MN_TRY(mn_file_open_to_read(path, &fd, &st));
  if (limit > (size_t)SSIZE_MAX - 2) limit = (size_t)SSIZE_MAX - 2;
  size_t used = 0, room = 65536;
  if (S_ISREG(st.st_mode)) {
    if ((uint64_t)st.st_size > limit) {
      close(fd);
      return too_large(path, limit);
    }
    room = (size_t)st.st_size + 1; /* one more byte than the file has shows its end without growing */
  }
  char *text = mn_alloc(room + 1);
  mn_status status = text ? MN_OK : MN_ERR_MEMORY;
  while (status == MN_OK) {
    ssize_t r = mn_file_read_full(fd, text + used, room - used);
    if (r < 0) {
      status = not_read(path);
      break;
    }
    used += (size_t)r;
    if (used > limit) status = too_large(path, limit);
    if (used < room) break;
    if (status != MN_OK) break;
    size_t more = room > limit / 2 ? limit + 1 : room * 2;
    char *grown = mn_realloc(text, more + 1);
    if (!grown) status = MN_ERR_MEMORY;
    else text = grown, room = more;
  }
  close(fd);
  if (status == MN_OK) status = mn_file_cut_short(path, &st, used);
  if (status != MN_OK) {
    free(text);
    return status;
  }
  text[used] = 0;
  *data = text;
  *size = used;
  return MN_OK;
}

/* ---- what is there ------------------------------------------------------------------------------------------------ */

mn_status mn_file_stat(const char *path, mn_file_info *info) {
  struct stat st;
  *info = (mn_file_info){0};
  if (stat(path, &st) != 0) {
    if (errno == ENOENT || errno == ENOTDIR) return MN_OK;
    return mn_fail(MN_ERR_IO, "could not look at %s: %s", path, strerror(errno));
  }
  info->exists = true;
  info->is_dir = S_ISDIR(st.st_mode);
  info->is_regular = S_ISREG(st.st_mode);
  info->size = (uint64_t)st.st_size;
  info->mtime_ns = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
  return MN_OK;
}

mn_file_stamp mn_file_stamp_from(const struct stat *st) {
  return (mn_file_stamp){true, (uint64_t)st->st_dev, (uint64_t)st->st_ino, (uint64_t)st->st_size,
                         (int64_t)st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec};
}

bool mn_file_exists(const char *path) {
  struct stat st;
  return stat(path, &st) == 0;
}

mn_file_stamp mn_file_stamp_of(const char *path) {
  struct stat st;
  return stat(path, &st) == 0 ? mn_file_stamp_from(&st) : (mn_file_stamp){0};
}

bool mn_file_changed(const char *path, const mn_file_stamp *was) {
  const mn_file_stamp is = mn_file_stamp_of(path);
  return is.exists &&
         (!was->exists || is.device != was->device || is.inode != was->inode || is.size != was->size || is.mtime_ns != was->mtime_ns);
}

static bool same_now(const char *a, const char *b, bool *there) {
  struct stat x, y;
  const bool first = stat(a, &x) == 0, second = stat(b, &y) == 0;
  *there = first || second;
  return first && second && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

bool mn_file_same(const char *a, const char *b) {
  bool there, same = same_now(a, b, &there);
  if (there) return same;
  char *x = mn_path_real(a), *y = mn_path_real(b);
  same = x && y && !strcmp(x, y);
  free(x);
  free(y);
  return same;
}

mn_status mn_file_remove(const char *path) {
  if (unlink(path) == 0 || errno == ENOENT) return MN_OK;
  return mn_fail(MN_ERR_IO, "could not remove %s: %s", path, strerror(errno));
}

/* ---- content hash (hash.c) ---------------------------------------------------------------------------------------- */

/* Read in pieces, not mapped: a file that shrinks meanwhile must not raise SIGBUS. */
mn_status mn_file_hash(const char *path, char hex[MN_HASH_HEX]) {
  enum { PIECE = 1 << 18 };
  int fd;
  struct stat st;
  hex[0] = 0;
  MN_TRY(mn_file_open_to_read(path, &fd, &st));
  mn_hasher *hasher = mn_hasher_new();
  unsigned char *piece = mn_alloc(PIECE);
  mn_status status = hasher && piece ? MN_OK : MN_ERR_MEMORY;
  ssize_t n = 0;
  size_t total = 0;
  while (status == MN_OK && (n = mn_file_read_full(fd, piece, PIECE)) > 0) {
    mn_hasher_add(hasher, piece, (size_t)n);
    total += (size_t)n;
    if (mn_stopped()) status = mn_fail(MN_ERR_CANCELLED, "interrupted while reading %s", path);
  }
  if (status == MN_OK && n < 0) status = not_read(path);
  if (status == MN_OK) status = mn_file_cut_short(path, &st, total);
  if (status == MN_OK) mn_hasher_take(hasher, hex);
  mn_hasher_free(hasher);
  free(piece);
  close(fd);
  return status;
}
