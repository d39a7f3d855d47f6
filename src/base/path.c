/* path.c - names of files and directories: made with their parents, listed, joined and taken apart. */
#define _GNU_SOURCE
#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

mn_status mn_make_dirs(const char *path) {
  int made;
  return mn_make_dirs_counted(path, &made);
}

mn_status mn_make_dirs_counted(const char *path, int *made) {
  *made = 0;
  char *copy = mn_strdup(path);
  if (!copy) return MN_ERR_MEMORY;
  mn_status status = MN_OK;
  size_t n = strlen(copy);
  for (size_t i = 1; i <= n && status == MN_OK; i++) {
    if (copy[i] != '/' && copy[i] != 0) continue;
    copy[i] = 0;
    struct stat st;
    if (mkdir(copy, 0777) == 0) ++*made;
    else {
      int error = errno;
      bool is_dir = stat(copy, &st) == 0 && S_ISDIR(st.st_mode);
      if (!is_dir) status = mn_fail(MN_ERR_IO, "could not make the directory %s: %s", copy, strerror(error == EEXIST ? ENOTDIR : error));
    }
    if (i < n) copy[i] = '/';
  }
  free(copy);
  return status;
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

mn_status mn_dir_list(const char *path, char ***names, size_t *count) {
  *names = NULL;
  *count = 0;
  DIR *dir = opendir(path);
  if (!dir) return mn_fail(MN_ERR_IO, "could not list the directory %s: %s", path, strerror(errno));
  char **list = NULL;
  size_t used = 0, room = 0;
  mn_status status = MN_OK;
  for (;;) {
    errno = 0;
    struct dirent *e = readdir(dir);
    if (!e) {
      if (errno) status = mn_fail(MN_ERR_IO, "could not list the directory %s: %s", path, strerror(errno));
      break;
    }
    if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
    if (used == room) {
      room = room ? room * 2 : 16;
      char **grown = mn_realloc(list, room * sizeof *list);
      if (!grown) {
        status = MN_ERR_MEMORY;
        break;
      }
      list = grown;
    }
    list[used] = mn_strdup(e->d_name);
    if (!list[used]) {
      status = MN_ERR_MEMORY;
      break;
    }
    used++;
  }
  closedir(dir);
  if (status != MN_OK) {
    mn_dir_list_free(list, used);
    return status;
  }
  if (used) qsort(list, used, sizeof *list, by_name);
  *names = list;
  *count = used;
  return MN_OK;
}

void mn_dir_list_free(char **names, size_t count) {
  for (size_t i = 0; i < count; i++) free(names[i]);
  free(names);
}

char *mn_path_join(const char *dir, const char *name) {
  size_t n = strlen(dir);
  if (n == 0 || name[0] == '/') return mn_strdup(name);
  return mn_format("%s%s%s", dir, dir[n - 1] == '/' ? "" : "/", name);
}

/* One name more, or one less for "..". Frees `path`; NULL: out of memory. */
static char *walked(char *path, const char *name, size_t n) {
  char *slash = strrchr(path, '/');
  if (n == 2 && !memcmp(name, "..", 2)) {
    slash[slash == path] = 0;
    return path;
  }
  char *longer = mn_format("%s%s%.*s", path, path[1] ? "/" : "", (int)n, name);
  free(path);
  return longer;
}

char *mn_path_real(const char *path) {
  char *head = mn_strdup(path), *real = NULL;
  size_t cut = strlen(path);
  while (head) { /* the longest part that is there */
    head[cut] = 0;
    real = realpath(cut ? head : ".", NULL);
    if (real || !cut) break;
    while (cut && path[cut - 1] == '/') cut--;
    while (cut && path[cut - 1] != '/') cut--;
  }
  free(head);
  for (const char *at = path + cut; real && *at;) {
    const size_t n = strcspn(at, "/");
    if (n && !(n == 1 && *at == '.')) real = walked(real, at, n);
    at += n + (at[n] == '/');
  }
  return real;
}

char *mn_path_dir(const char *path) {
  const char *slash = strrchr(path, '/');
  if (!slash) return mn_strdup(".");
  if (slash == path) return mn_strdup("/");
  return mn_format("%.*s", (int)(slash - path), path);
}

const char *mn_path_base(const char *path) {
  const char *slash = strrchr(path, '/');
  return slash ? slash + 1 : path;
}
