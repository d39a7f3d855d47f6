/* file_write.c - files written whole or not at all. The one place that writes files that must survive: everything that is kept
 * (checkpoints, sessions, caches, plots) goes through mn_file_writer. */
#define _GNU_SOURCE
#include "base/file_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <unistd.h>
#ifdef __linux__
#include <linux/fs.h>
#endif

enum { WRITER_BUFFER = 1 << 16 };

struct mn_file_writer {
  char *path;
  char *temp;   /* the temporary file; not linked yet while unnamed */
  bool unnamed; /* O_TMPFILE: nothing to clean up, even after SIGKILL */
  bool existed;
  int fd;
  mn_file_stamp *expected; /* NULL: whatever is there is replaced */
  mn_status status;        /* sticky; the text of the first fault is in `fault` */
  char *fault;
  size_t used;
  unsigned char buffer[WRITER_BUFFER];
};

static void writer_free(mn_file_writer *w) {
  if (w->fd >= 0) close(w->fd);
  if (w->temp && !w->unnamed) unlink(w->temp);
  free(w->path);
  free(w->temp);
  free(w->fault);
  free(w);
}

/* Records the first fault; errno says why. */
static mn_status writer_fault(mn_file_writer *w, int error) {
  if (w->status != MN_OK) return w->status;
  w->status = mn_fail(MN_ERR_IO, "could not write %s: %s; %s", w->path, strerror(error),
                      w->existed ? "the previous file is intact" : "no file was left behind");
  w->fault = mn_strdup(mn_message());
  return w->status;
}

bool mn_file_is_temp(const char *name) {
  static const char digits[] = "0123456789";
  if (strncmp(name, ".mneme-", 7) != 0) return false;
  size_t pid = strspn(name + 7, digits), n = name[7 + pid] == '-' ? strspn(name + 8 + pid, digits) : 0;
  return pid && n && !strcmp(name + 8 + pid + n, ".tmp");
}

/* A name beside `path` that no file has; the counter keeps concurrent writers of one process apart. */
static char *temp_name(const char *path) {
  static unsigned counter; /* atomic below: several threads may save at once */
  unsigned n = __atomic_add_fetch(&counter, 1, __ATOMIC_RELAXED);
  char *dir = mn_path_dir(path);
  if (!dir) return NULL;
  char *name = mn_format("%s/.mneme-%ld-%u.tmp", dir, (long)getpid(), n);
  free(dir);
  return name;
}

/* The lock says that a writer lives, to whoever tidies up after killed ones (output.c). False: that one was quicker. */
static bool hold(int fd) {
  struct stat st;
  return flock(fd, LOCK_EX) != 0 /* a file system without locks */ || (fstat(fd, &st) == 0 && st.st_nlink > 0);
}

static int create_named(mn_file_writer *w, mode_t mode) {
  for (int attempt = 0; attempt < 100; attempt++) { /* a name left by a killed process may be taken */
    free(w->temp);
    w->temp = temp_name(w->path);
    if (!w->temp) return ENOMEM;
    w->fd = mn_file_open_retry(w->temp, O_CREAT | O_EXCL | O_WRONLY, mode);
    if (w->fd >= 0 && hold(w->fd)) return 0;
    int error = w->fd >= 0 ? EEXIST : errno;
    if (w->fd >= 0) close(w->fd);
    w->fd = -1;
    if (error == EEXIST) continue;
    free(w->temp);
    w->temp = NULL;
    return error;
  }
  free(w->temp);
  w->temp = NULL;
  return EEXIST;
}

static mn_status writer_create(mn_file_writer *w, const struct stat *old) {
  mode_t mode = w->existed && S_ISREG(old->st_mode) ? old->st_mode & 0777 : 0666;
  int error = 0;
#ifdef O_TMPFILE
  char *dir = mn_path_dir(w->path);
  if (!dir) return MN_ERR_MEMORY;
  if (access("/proc/self/fd", X_OK) == 0) w->fd = mn_file_open_retry(dir, O_TMPFILE | O_WRONLY, mode);
  free(dir);
  w->unnamed = w->fd >= 0;
  if (w->unnamed) hold(w->fd);
  if (w->unnamed && !(w->temp = temp_name(w->path))) return MN_ERR_MEMORY;
#endif
  if (!w->unnamed) error = create_named(w, mode);
  if (error) return error == ENOMEM ? MN_ERR_MEMORY : writer_fault(w, error);
  if (w->existed && S_ISREG(old->st_mode)) (void)fchmod(w->fd, mode); /* keep the old file's mode where the umask would narrow it */
  return MN_OK;
}

/* What may be replaced: nothing, a file, and a link to a file or to nothing. *st is of the path itself, not of a link's target;
 * st_mode is 0 when there is nothing. */
static mn_status look_at_target(const char *path, struct stat *st) {
  struct stat target;
  *st = (struct stat){0};
  if (!*path) return mn_fail(MN_ERR_IO, "could not write a file: its name is empty");
  if (lstat(path, st) != 0) {
    *st = (struct stat){0};
    return MN_OK; /* what hinders looking hinders writing, which says it */
  }
  bool link = S_ISLNK(st->st_mode), reached = !link || stat(path, &target) == 0;
  if (!link) target = *st;
  if (reached && S_ISDIR(target.st_mode))
    return mn_fail(MN_ERR_IO, "could not write %s: it is %sa directory; give the name of a file", path, link ? "a link to " : "");
  if (reached && !S_ISREG(target.st_mode))
    return mn_fail(MN_ERR_IO, "could not write %s: it is not a regular file, so it cannot be replaced whole", path);
  if (!link && (!(st->st_mode & 0222) || access(path, W_OK) != 0))
    return mn_fail(MN_ERR_IO, "could not write %s: it is read-only; make it writable (chmod u+w), or give another name", path);
  return MN_OK;
}

mn_status mn_file_writer_open(const char *path, mn_file_writer **out) {
  *out = NULL;
  mn_file_writer *w = mn_calloc(1, sizeof *w);
  if (!w) return MN_ERR_MEMORY;
  w->fd = -1;
  struct stat st;
  w->path = mn_strdup(path);
  mn_status status = w->path ? look_at_target(path, &st) : MN_ERR_MEMORY;
  w->existed = status == MN_OK && st.st_mode != 0;
  if (status == MN_OK) status = writer_create(w, &st);
  if (status != MN_OK) {
    writer_free(w);
    return status;
  }
  *out = w;
  return MN_OK;
}

static mn_status write_full(mn_file_writer *w, const unsigned char *data, size_t n) {
  while (n > 0) {
    ssize_t r = write(w->fd, data, n > (1u << 30) ? 1u << 30 : n);
    if (r < 0 && errno == EINTR) continue;
    if (r < 0) return writer_fault(w, errno);
    data += r;
    n -= (size_t)r;
  }
  return MN_OK;
}

static mn_status flush(mn_file_writer *w) {
  size_t n = w->used;
  w->used = 0;
  return write_full(w, w->buffer, n);
}

static mn_status say_again(const mn_file_writer *w) {
  return mn_fail(w->status, "%s", w->fault ? w->fault : "the file could not be written");
}

mn_status mn_file_writer_append(mn_file_writer *w, const void *data, size_t n) {
  if (w->status != MN_OK) return say_again(w);
  if (n > WRITER_BUFFER - w->used) {
    MN_TRY(flush(w));
    if (n >= WRITER_BUFFER) return write_full(w, data, n);
  }
  if (n) memcpy(w->buffer + w->used, data, n);
  w->used += n;
  return MN_OK;
}

mn_status mn_file_writer_replace(mn_file_writer *w, uint64_t at, const void *data, size_t n) {
  if (w->status != MN_OK) return say_again(w);
  MN_TRY(flush(w));
  for (const unsigned char *from = data; n > 0;) {
    ssize_t r = pwrite(w->fd, from, n, (off_t)at);
    if (r < 0 && errno == EINTR) continue;
    if (r < 0) return writer_fault(w, errno);
    from += r;
    at += (uint64_t)r;
    n -= (size_t)r;
  }
  return MN_OK;
}

/* Gives the unnamed file its temporary name, so that rename can put it in place. */
static mn_status link_unnamed(mn_file_writer *w) {
  char proc[64];
  snprintf(proc, sizeof proc, "/proc/self/fd/%d", w->fd);
  for (int attempt = 0; attempt < 100; attempt++) {
    if (linkat(AT_FDCWD, proc, AT_FDCWD, w->temp, AT_SYMLINK_FOLLOW) == 0) {
      w->unnamed = false;
      return MN_OK;
    }
    if (errno != EEXIST) return writer_fault(w, errno);
    free(w->temp);
    w->temp = temp_name(w->path);
    if (!w->temp) return MN_ERR_MEMORY;
  }
  return writer_fault(w, EEXIST);
}

static mn_status sync_dir_of(const char *path) {
  char *dir = mn_path_dir(path);
  if (!dir) return MN_ERR_MEMORY;
  int fd = mn_file_open_retry(dir, O_RDONLY | O_DIRECTORY, 0);
  /* Some file systems cannot sync a directory (EINVAL); there is nothing more to be done on them. */
  bool bad = fd < 0 || (fsync(fd) != 0 && errno != EINVAL && errno != ENOTSUP);
  mn_status status = MN_OK;
  if (bad) status = mn_fail(MN_ERR_IO, "%s was written, but its directory could not be synced to the disk: %s", path, strerror(errno));
  if (fd >= 0) close(fd);
  free(dir);
  return status;
}

void mn_file_writer_expect(mn_file_writer *w, mn_file_stamp *stamp) { w->expected = stamp; }

/* The finished file gets its name. 0, or what stood in the way; EEXIST: another file than the expected one. */
static int put_in_place(const mn_file_writer *w) {
  struct stat st;
  if (w->expected && mn_file_changed(w->path, w->expected)) return EEXIST;
  if (w->expected && !w->expected->exists && lstat(w->path, &st) != 0) { /* nor one that comes just now */
    if (renameat2(AT_FDCWD, w->temp, AT_FDCWD, w->path, RENAME_NOREPLACE) == 0) return 0;
    if (errno != EINVAL && errno != ENOSYS) return errno; /* the file system knows no such thing */
  }
  return rename(w->temp, w->path) == 0 ? 0 : errno;
}

static mn_status another_is_there(mn_file_writer *w) {
  w->status = mn_fail(MN_ERR_IO, "%s %s another program has written it since; it stays as it is, and nothing was saved in its place",
                      w->path, w->expected->exists ? "is not the file that was there before:" : "was not there before:");
  return w->status;
}

static mn_status commit(mn_file_writer *w) {
  if (w->status != MN_OK) return say_again(w);
  MN_TRY(flush(w));
  if (fsync(w->fd) != 0) return writer_fault(w, errno);
  if (w->unnamed) MN_TRY(link_unnamed(w));
  int held = fcntl(w->fd, F_DUPFD_CLOEXEC, 0);                 /* keeps the lock until the file has its name */
  int error = close(w->fd) != 0 && errno != EINTR ? errno : 0; /* NFS reports a full disk or quota here */
  w->fd = -1;
  if (!error) error = put_in_place(w);
  struct stat st;
  if (!error && w->expected && (held >= 0 ? fstat(held, &st) : stat(w->path, &st)) == 0) *w->expected = mn_file_stamp_from(&st);
  if (held >= 0) close(held);
  if (error == EEXIST && w->expected) return another_is_there(w);
  if (error) return writer_fault(w, error);
  free(w->temp);
  w->temp = NULL;
  return sync_dir_of(w->path);
}

mn_status mn_file_writer_commit(mn_file_writer *w) {
  mn_status status = commit(w);
  writer_free(w);
  return status;
}

void mn_file_writer_abort(mn_file_writer *w) {
  if (w) writer_free(w);
}

mn_status mn_file_write(const char *path, const void *data, size_t n) { return mn_file_write_over(path, data, n, NULL); }

mn_status mn_file_write_over(const char *path, const void *data, size_t n, mn_file_stamp *stamp) {
  mn_file_writer *w;
  MN_TRY(mn_file_writer_open(path, &w));
  mn_file_writer_expect(w, stamp);
  mn_file_writer_append(w, data, n); /* commit repeats its fault */
  return mn_file_writer_commit(w);
}

mn_status mn_file_copy(const char *from, const char *to) {
  enum { PIECE = 1 << 20 };
  int fd;
  struct stat st;
  mn_file_writer *w = NULL;
  char *piece = NULL;
  MN_TRY(mn_file_open_to_read(from, &fd, &st));
  mn_status status =
      S_ISREG(st.st_mode) ? mn_file_writer_open(to, &w) : mn_fail(MN_ERR_IO, "could not copy %s: it is not a regular file", from);
  bool shared = false;
#ifdef FICLONE
  shared = status == MN_OK && ioctl(w->fd, FICLONE, fd) == 0; /* its blocks, until one of the two is written to */
#endif
  if (status == MN_OK && !shared && !(piece = mn_alloc(PIECE))) status = MN_ERR_MEMORY;
  size_t total = 0;
  for (ssize_t n = 1; status == MN_OK && !shared && n > 0; total += n > 0 ? (size_t)n : 0) {
    n = mn_file_read_full(fd, piece, PIECE);
    if (n < 0) status = mn_fail(MN_ERR_IO, "could not read %s: %s", from, strerror(errno));
    else status = mn_file_writer_append(w, piece, (size_t)n);
  }
  free(piece);
  close(fd);
  if (status == MN_OK && !shared) status = mn_file_cut_short(from, &st, total);
  if (status == MN_OK) return mn_file_writer_commit(w);
  mn_file_writer_abort(w);
  return status;
}
