/* compare_child.c - see compare_child.h. */
#define _GNU_SOURCE
#include "cli/compare_child.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif

#include "cli/cli.h"

typedef struct report { /* what the child sends through the pipe */
  mn_status status;
  char message[1024];
  _Alignas(max_align_t) char result[MN_CHILD_RESULT];
} report;
_Static_assert(sizeof(report) <= PIPE_BUF, "a report goes through the pipe whole or not at all");

static void in_child(mn_status (*work)(void *ctx, void *out), void *ctx, int pipe_end) {
  report out = {0};
  out.status = work(ctx, out.result);
  snprintf(out.message, sizeof out.message, "%s", out.status == MN_OK ? "" : mn_message());
  ssize_t written = write(pipe_end, &out, sizeof out); /* below PIPE_BUF: whole or not at all */
  _exit(written == (ssize_t)sizeof out ? 0 : 1);
}

mn_status mn_compare_child(const char *name, mn_status (*work)(void *ctx, void *out), void *ctx, void *out, size_t size) {
  int ends[2];
  if (size > MN_CHILD_RESULT) return mn_fail(MN_ERR_INTERNAL, "%s: a result of %zu bytes", name, size);
  if (pipe(ends) != 0) return mn_fail(MN_ERR_IO, "compare: no pipe: %s", strerror(errno));
  fflush(NULL);
  pid_t parent = getpid(), pid = fork();
  if (pid < 0) {
    close(ends[0]);
    close(ends[1]);
    return mn_fail(MN_ERR_IO, "compare: no process for %s: %s", name, strerror(errno));
  }
  if (pid == 0) {
    setpgid(0, 0); /* the terminal's interrupt comes once, through the parent */
    mn_cli_is_child();
#ifdef __linux__
    prctl(PR_SET_PDEATHSIG, SIGTERM);
#endif
    if (getppid() != parent) _exit(1);
    close(ends[0]);
    in_child(work, ctx, ends[1]);
  }
  close(ends[1]);
  report in = {0};
  ssize_t got;
  bool told = false;
  do { /* a signal may come at any moment, between two calls too: so no call waits for long */
    struct pollfd child_end = {.fd = ends[0], .events = POLLIN};
    if (mn_cli_interrupted() && !told) told = kill(pid, SIGTERM) == 0;
    got = poll(&child_end, 1, 200) > 0 ? read(ends[0], &in, sizeof in) : -1;
  } while (got < 0);
  close(ends[0]);
  int status;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) continue;
  if (got != (ssize_t)sizeof in)
    return WIFSIGNALED(status) ? mn_fail(MN_ERR_IO, "%s: its process was ended by signal %d%s", name, WTERMSIG(status),
                                         WTERMSIG(status) == SIGKILL ? " (out of memory?)" : "")
                               : mn_fail(MN_ERR_INTERNAL, "%s: its process ended without a result", name);
  if (in.status != MN_OK) return mn_fail(in.status, "%s: %s", name, in.message);
  memcpy(out, in.result, size);
  return MN_OK;
}
