/* output.c - see output.h. */
#define _GNU_SOURCE
#include "base/output.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/claim.h"
#include "base/file.h"

/* ---- trying ------------------------------------------------------------------------------------------------------- */

static mn_status check_room(const char *dir, const char *path, uint64_t bytes) {
  struct statvfs fs;
  if (!bytes || statvfs(dir, &fs) != 0) return MN_OK;
  uint64_t room = (uint64_t)fs.f_bavail * fs.f_frsize;
  if (room >= bytes) return MN_OK;
  const bool small = bytes < 999500; /* 0.1 MB of 0.1 MB would say nothing */
  const double unit = small ? 1e-3 : 1e-6;
  return mn_fail(MN_ERR_IO, "%s needs about %.*f %s, and its disk has %.*f %s left; make room first", path, !small, unit * (double)bytes,
                 small ? "kB" : "MB", !small, unit * (double)room, small ? "kB" : "MB");
}

mn_status mn_output_try(const char *path, uint64_t bytes) {
  enum { LEAST = 4096, BLOCK = 1 << 17 };
  const size_t tried = bytes < LEAST ? LEAST : bytes < BLOCK ? (size_t)bytes : BLOCK;
  char *dir = mn_path_dir(path), *block = mn_calloc(1, BLOCK);
  mn_file_writer *w = NULL;
  mn_status status = dir && block ? MN_OK : MN_ERR_MEMORY;
  if (status == MN_OK) {
    mn_output_tidy(dir);
    status = check_room(dir, path, bytes);
  }
  if (status == MN_OK) status = mn_file_writer_open(path, &w);
  if (status == MN_OK) status = mn_file_writer_append(w, block, tried);
  if (status == MN_OK) status = mn_file_writer_replace(w, 0, block, 1); /* to the disk, not to a buffer */
  mn_file_writer_abort(w);
  free(dir);
  free(block);
  return status;
}

/* The message is about a file that never was: it becomes one about all that would be there. */
static void speak_of_all(const char *dir, const char *inside) {
  char *why = mn_strdup(mn_message()), *at = why ? strstr(why, inside) : NULL;
  if (at) mn_fail(MN_ERR_IO, "%.*sfiles in %s%s", (int)(at - why), why, dir, at + strlen(inside));
  free(why);
}

mn_status mn_output_try_dir(const char *path) {
  mn_file_info info;
  if (!*path) return mn_fail(MN_ERR_IO, "the name of a directory is empty");
  MN_TRY(mn_file_stat(path, &info));
  if (info.is_dir) {
    MN_TRY(check_room(path, path, 1 << 17)); /* no model is smaller */
    char *inside = mn_path_join(path, ".mneme-try");
    mn_status status = inside ? mn_output_try(inside, 1 << 17) : MN_ERR_MEMORY;
    if (status == MN_ERR_IO) speak_of_all(path, inside);
    free(inside);
    return status;
  }
  if (info.exists) return mn_fail(MN_ERR_IO, "%s is not a directory; give another name", path);
  struct stat st;
  if (lstat(path, &st) == 0) return mn_fail(MN_ERR_IO, "%s is a link that points nowhere; remove it, or make what it points at", path);
  char *copy = mn_strdup(path);
  if (!copy) return MN_ERR_MEMORY;
  for (size_t n = strlen(copy); n > 1 && copy[n - 1] == '/';) copy[--n] = 0;
  char *parent = mn_path_dir(copy);
  mn_status status = parent ? mn_output_try_dir(parent) : MN_ERR_MEMORY;
  free(parent);
  free(copy);
  return status;
}

/* ---- what was left ------------------------------------------------------------------------------------------------ */

void mn_output_tidy(const char *path) {
  int in = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *dir = in < 0 ? NULL : fdopendir(in);
  if (!dir) {
    if (in >= 0) close(in);
    return;
  }
  for (struct dirent *e; (e = readdir(dir));) {
    struct stat st;
    if (!mn_file_is_temp(e->d_name) && !mn_claim_is_lock(e->d_name)) continue;
    int fd = openat(in, e->d_name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) continue;
    /* A living writer holds its lock until the file has its name. */
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && flock(fd, LOCK_EX | LOCK_NB) == 0 && unlinkat(in, e->d_name, 0) == 0)
      mn_log_write(MN_LOG_INFO, "%s/%s: left by a process that was killed, removed", path, e->d_name);
    close(fd);
  }
  closedir(dir);
}

/* ---- directories -------------------------------------------------------------------------------------------------- */

void mn_output_unmake_dirs(const char *path, int made) {
  char *real = made > 0 ? realpath(path, NULL) : NULL;
  for (; real && made > 0 && strlen(real) > 1 && rmdir(real) == 0; made--) {
    char *slash = strrchr(real, '/');
    if (!slash || slash == real) break;
    *slash = 0;
  }
  free(real);
}
