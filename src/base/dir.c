/* dir.c - see dir.h. */
#define _GNU_SOURCE
#include "base/dir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/text.h"

/* ---- what stands where -------------------------------------------------------------------------------------------- */

static mn_path_kind entry_of(const struct stat *st) {
  return S_ISDIR(st->st_mode) ? MN_PATH_DIR : S_ISREG(st->st_mode) ? MN_PATH_FILE : S_ISLNK(st->st_mode) ? MN_PATH_LINK : MN_PATH_OTHER;
}

mn_status mn_path_look(const char *path, mn_path_kind *out) {
  struct stat st;
  *out = MN_PATH_NONE;
  if (lstat(path, &st) == 0) *out = entry_of(&st);
  else if (errno != ENOENT && errno != ENOTDIR) return mn_fail(MN_ERR_IO, "could not look at %s: %s", path, strerror(errno));
  return MN_OK;
}

const char *mn_path_kind_name(mn_path_kind e) {
  static const char *const names[] = {"nothing", "a directory", "a file", "a symbolic link", "neither a file nor a directory"};
  return names[e];
}

mn_status mn_dir_need_real(const char *path) {
  mn_path_kind e;
  MN_TRY(mn_path_look(path, &e));
  if (e == MN_PATH_NONE || e == MN_PATH_DIR) return MN_OK;
  return mn_fail(MN_ERR_IO, "%s is %s, where a directory of our own goes; %s", path, mn_path_kind_name(e),
                 e == MN_PATH_LINK ? "links are not followed there: remove it, or put what it points at in its place" : "move it away");
}

const char *mn_name_fault(const char *name) {
  enum { LONGEST = 200 }; /* of 255, so that "-seed17" fits behind it */
  size_t n = strlen(name);
  if (!n) return "is empty";
  if (n > LONGEST) return "is longer than 200 bytes";
  if (name[0] == '.') return "begins with a '.'";
  if (strchr(name, '/')) return "has a '/'; a name is no path";
  if (mn_utf8_valid(name, n) != n) return "is not valid UTF-8";
  for (size_t i = 0; i < n; i++) {
    unsigned char c = (unsigned char)name[i], next = (unsigned char)name[i + 1];
    if (c < 0x20 || c == 0x7F || (c == 0xC2 && next >= 0x80 && next < 0xA0)) return "has a control character";
  }
  return NULL;
}

/* ---- removal ------------------------------------------------------------------------------------------------------ */

static int open_dir(int parent, const char *name) {
  return openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
}

/* Opens parent/name, or finds that it is no directory: then *fd is -1. */
static mn_status open_both(const char *parent, const char *name, int *in, int *fd, mn_path_kind *what) {
  struct stat st;
  *fd = -1;
  *what = MN_PATH_NONE;
  *in = open_dir(AT_FDCWD, parent);
  if (*in < 0) {
    if (errno == ENOENT) return MN_OK;
    return mn_fail(MN_ERR_IO, "could not open the directory %s: %s", parent, errno == ELOOP ? "it is a symbolic link" : strerror(errno));
  }
  int error = 0;
  if (fstatat(*in, name, &st, AT_SYMLINK_NOFOLLOW) == 0) *what = entry_of(&st);
  else if (errno != ENOENT) error = errno;
  if (*what == MN_PATH_DIR && (*fd = open_dir(*in, name)) < 0) error = errno;
  if (!error) return MN_OK;
  close(*in);
  *in = -1;
  return mn_fail(MN_ERR_IO, "could not open %s/%s: %s", parent, name, strerror(error));
}

/* Goes through the entries of a directory; with `remove` those that are ours are unlinked. */
static int sweep(int fd, mn_dir_ours ours, bool remove, char foreign[MN_DIR_NAME]) {
  int own = open_dir(fd, "."); /* closed with the stream */
  DIR *dir = own < 0 ? NULL : fdopendir(own);
  if (!dir) {
    int error = errno;
    if (own >= 0) close(own);
    return error;
  }
  int error = 0;
  for (struct dirent *e; !error && (errno = 0, e = readdir(dir));) {
    struct stat st;
    if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
    if (fstatat(fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0) {
      error = errno == ENOENT ? 0 : errno;
    } else if (!ours(e->d_name) || S_ISDIR(st.st_mode)) {
      if (!*foreign) snprintf(foreign, MN_DIR_NAME, "%s", e->d_name);
    } else if (remove && unlinkat(fd, e->d_name, 0) != 0 && errno != ENOENT) {
      error = errno;
    }
  }
  if (!error) error = errno;
  closedir(dir);
  return error;
}

mn_status mn_dir_foreign(const char *parent, const char *name, mn_dir_ours ours, char foreign[MN_DIR_NAME]) {
  int in, fd;
  mn_path_kind what;
  foreign[0] = 0;
  MN_TRY(open_both(parent, name, &in, &fd, &what));
  int error = fd >= 0 ? sweep(fd, ours, false, foreign) : 0;
  if (fd >= 0) close(fd);
  if (in >= 0) close(in);
  return error ? mn_fail(MN_ERR_IO, "could not list %s/%s: %s", parent, name, strerror(error)) : MN_OK;
}

static int remove_opened(int in, int fd, const char *name, mn_dir_ours ours, const char *first, char foreign[MN_DIR_NAME]) {
  if (first && unlinkat(fd, first, 0) != 0 && errno != ENOENT && errno != EISDIR && errno != EPERM) return errno;
  int error = sweep(fd, ours, true, foreign);
  if (error || *foreign) return error;
  if (unlinkat(in, name, AT_REMOVEDIR) == 0 || errno == ENOENT) return 0;
  if (errno != ENOTEMPTY && errno != EEXIST) return errno;
  snprintf(foreign, MN_DIR_NAME, "a file that has just come"); /* between the look and the removal */
  return 0;
}

mn_status mn_dir_remove(const char *parent, const char *name, mn_dir_ours ours, const char *first, char foreign[MN_DIR_NAME]) {
  int in, fd, error = 0;
  mn_path_kind what;
  foreign[0] = 0;
  MN_TRY(open_both(parent, name, &in, &fd, &what));
  mn_status status = MN_OK;
  if (fd >= 0) error = remove_opened(in, fd, name, ours, first, foreign);
  else if (what == MN_PATH_LINK && unlinkat(in, name, 0) != 0 && errno != ENOENT) error = errno;
  else if (what == MN_PATH_FILE || what == MN_PATH_OTHER)
    status = mn_fail(MN_ERR_IO, "%s/%s is %s, where a directory of our own goes; move it away", parent, name, mn_path_kind_name(what));
  if (error) status = mn_fail(MN_ERR_IO, "could not remove %s/%s: %s", parent, name, strerror(error));
  if (fd >= 0) close(fd);
  if (in >= 0) close(in);
  return status;
}
