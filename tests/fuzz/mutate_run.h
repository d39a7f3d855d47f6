/* mutate_run.h - a tree of files that is put back after each use, and the program run in a forked child with everything that
 * it says and uses written down. */
#ifndef MUTATE_RUN_H
#define MUTATE_RUN_H

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cli/cli.h"
#include "mutate_bytes.h"

#if defined(__SANITIZE_ADDRESS__)
#define MUTATE_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define MUTATE_SANITIZED 1
#endif
#endif
#ifndef MUTATE_SANITIZED
#define MUTATE_SANITIZED 0
#endif

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- files ---- */

static bool read_file(const char *path, bytes *out) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  struct stat st;
  *out = (bytes){0};
  if (fd < 0) return false;
  if (fstat(fd, &st) || !S_ISREG(st.st_mode)) return close(fd), false;
  *out = (bytes){malloc((size_t)st.st_size + 1), (size_t)st.st_size};
  if (!out->data) abort();
  for (size_t done = 0; done < out->n;) {
    ssize_t got = read(fd, out->data + done, out->n - done);
    if (got <= 0) {
      out->n = done;
      break;
    }
    done += (size_t)got;
  }
  out->data[out->n] = 0;
  close(fd);
  return true;
}

static bool write_file(const char *path, const void *data, size_t n) { /* a new file: another name of the old one stays as it was */
  unlink(path);
  int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (fd < 0) return false;
  bool good = true;
  for (size_t done = 0; good && done < n;) {
    ssize_t put = write(fd, (const uint8_t *)data + done, n - done);
    good = put > 0;
    if (good) done += (size_t)put;
  }
  close(fd);
  return good;
}

typedef struct kept_file {
  char path[200];
  bool is_dir;
  bytes content;
  struct timespec changed; /* as it was put back: a file with this time, size and number needs nothing */
  ino_t inode;
} kept_file;

enum { MAX_FILES = 256 };

typedef struct tree { /* everything below the working directory */
  kept_file file[MAX_FILES];
  int n;
} tree;

static kept_file *tree_find(tree *t, const char *path) {
  for (int i = 0; i < t->n; i++)
    if (!strcmp(t->file[i].path, path)) return &t->file[i];
  return NULL;
}

static void note_times(kept_file *f) {
  struct stat st;
  if (lstat(f->path, &st)) return;
  f->changed = st.st_ctim;
  f->inode = st.st_ino;
}

static void keep(tree *t, const char *path, bool is_dir) {
  if (t->n == MAX_FILES || strlen(path) >= sizeof t->file[0].path) {
    fprintf(stderr, "mutate: %s does not fit into the tree\n", path);
    exit(1);
  }
  kept_file *f = &t->file[t->n++];
  *f = (kept_file){.is_dir = is_dir};
  snprintf(f->path, sizeof f->path, "%s", path);
  if (!is_dir) read_file(path, &f->content);
}

/* Every file below `dir` is kept; or, when the tree is known already, every file that it does not know is removed. */
static void walk(tree *t, const char *dir, bool keeping) {
  DIR *d = opendir(*dir ? dir : ".");
  for (struct dirent *e; d && (e = readdir(d));) {
    char path[600];
    struct stat st;
    if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
    snprintf(path, sizeof path, "%s%s%s", dir, *dir ? "/" : "", e->d_name);
    if (lstat(path, &st)) continue;
    bool is_dir = S_ISDIR(st.st_mode);
    if (keeping) keep(t, path, is_dir);
    if (is_dir) walk(t, path, keeping);
    kept_file *known = tree_find(t, path);
    if (!known || known->is_dir != is_dir) (is_dir ? rmdir : unlink)(path);
  }
  if (d) closedir(d);
}

/* Puts every file back and removes all others. */
static void tree_restore(tree *t) {
  walk(t, "", false);
  for (int i = 0; i < t->n; i++) {
    kept_file *f = &t->file[i];
    struct stat st;
    if (f->is_dir) {
      mkdir(f->path, 0755);
      continue;
    }
    if (!lstat(f->path, &st) && st.st_ino == f->inode && (size_t)st.st_size == f->content.n && st.st_ctim.tv_sec == f->changed.tv_sec &&
        st.st_ctim.tv_nsec == f->changed.tv_nsec)
      continue;
    if (!write_file(f->path, f->content.data, f->content.n)) {
      fprintf(stderr, "mutate: %s could not be put back\n", f->path);
      exit(1);
    }
    note_times(f);
  }
}

static void tree_keep(tree *t) {
  t->n = 0;
  walk(t, "", true);
  tree_restore(t);
}

/* ---- the program in a child ---- */

typedef struct outcome {
  int exit_code, signal; /* one of them */
  bool hung;             /* it had to be killed                              */
  long peak_kib;         /* of resident memory                               */
  char *out, *err;       /* what it wrote                                    */
} outcome;

static void outcome_free(outcome *o) {
  free(o->out);
  free(o->err);
}

static char *read_all(int fd) {
  off_t n = lseek(fd, 0, SEEK_END);
  char *text = malloc((size_t)n + 1);
  if (!text) abort();
  ssize_t got = pread(fd, text, (size_t)n, 0);
  text[got > 0 ? got : 0] = 0;
  return text;
}

/* Waits for the child for so many seconds. */
static bool wait_for(int child_fd, double seconds) {
  struct pollfd p = {child_fd, POLLIN, 0};
  return poll(&p, 1, (int)(seconds * 1000)) > 0;
}

/* `mneme ARGUMENTS` (an array that ends with NULL). After a minute, an age even on a busy machine, it
 * is asked to end (SIGTERM), after half a minute more it is killed. */
static outcome run_program(const char *const *arguments, size_t memory) {
  const char *argv[40] = {"mneme"};
  int argc = 1;
  for (; arguments[argc - 1] && argc < 39; argc++) argv[argc] = arguments[argc - 1];
  int out = memfd_create("out", MFD_CLOEXEC), err = memfd_create("err", MFD_CLOEXEC);
  fflush(NULL);
  pid_t pid = fork();
  if (pid == 0) {
    dup2(out, STDOUT_FILENO);
    dup2(err, STDERR_FILENO);
    dup2(open(access("said.txt", R_OK) ? "/dev/null" : "said.txt", O_RDONLY), STDIN_FILENO); /* what a person says, to verbs that listen */
    if (!MUTATE_SANITIZED) setrlimit(RLIMIT_AS, &(struct rlimit){memory, memory});
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    setrlimit(RLIMIT_FSIZE, &(struct rlimit){1u << 30, 1u << 30});
    int code = mn_cli_main(argc, (char **)argv, mn_verbs, mn_n_verbs);
    fflush(NULL);
    _exit(code);
  }
  outcome o = {0};
  int status = 0, child_fd = pid > 0 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;
  if (pid < 0 || child_fd < 0) {
    perror("mutate: fork");
    exit(1);
  }
  if (!wait_for(child_fd, 60)) {
    kill(pid, SIGTERM);
    if (!wait_for(child_fd, 30)) {
      kill(pid, SIGKILL);
      o.hung = true;
    }
  }
  struct rusage usage;
  wait4(pid, &status, 0, &usage);
  close(child_fd);
  if (WIFSIGNALED(status)) o.signal = WTERMSIG(status);
  else o.exit_code = WEXITSTATUS(status);
  o.peak_kib = usage.ru_maxrss;
  o.out = read_all(out);
  o.err = read_all(err);
  close(out);
  close(err);
  return o;
}

#endif
