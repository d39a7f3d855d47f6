/* serve_helpers.h - a server as a program of its own: begun on a port that is free, and ended. */
#ifndef MN_TEST_SERVE_HELPERS_H
#define MN_TEST_SERVE_HELPERS_H

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>

#include "base/file.h"
#include "http_client.h"
#include "program.h"

/* A model in the folder `name`, trained by a recipe on one file. */
static inline void trained(const char *name, const char *recipe, const char *data_file, const char *data, size_t n) {
  CHECK_OK(mn_file_write(data_file, data, n));
  CHECK_OK(mn_file_write("r.yaml", recipe, strlen(recipe)));
  CHECK(sh("MNEME_HOME=home " MNEME "train r.yaml --out %s --quiet 2>&1", name) == 0, "%s", out);
}

/* The same on the beginning of a book, t.txt. */
static inline void trained_on_a_book(const char *name, const char *recipe) {
  char *text;
  size_t n;
  CHECK_OK(mn_file_read(MN_TEST_SOURCE_DIR "/data/books/moby-dick.txt", 1 << 24, &text, &n));
  trained(name, recipe, "t.txt", text, n < 20000 ? n : 20000);
  free(text);
}

typedef struct server_process {
  pid_t pid;
  int port;
} server_process;

/* `words`: what follows `mneme serve`, split at spaces. http_port is its port then. */
static inline bool server_begin(server_process *s, const char *words) {
  char line[512] = "", copy[1024], *argv[64] = {(char[]){MN_TEST_BINARY_DIR "/mneme"}, (char[]){"serve"}};
  int n = 2, pipe_of[2];
  snprintf(copy, sizeof copy, "%s --port 0 --threads 1 --quiet", words);
  for (char *w = strtok(copy, " "); w && n < 63; w = strtok(NULL, " ")) argv[n++] = w;
  *s = (server_process){0};
  if (pipe(pipe_of) != 0) return false;
  s->pid = fork();
  if (s->pid == 0) {
    dup2(pipe_of[1], STDOUT_FILENO);
    dup2(open("server.log", O_WRONLY | O_CREAT | O_APPEND, 0600), STDERR_FILENO);
    close(pipe_of[0]);
    execv(argv[0], argv);
    _exit(127);
  }
  close(pipe_of[1]);
  FILE *f = fdopen(pipe_of[0], "r");
  if (!f || !fgets(line, sizeof line, f)) line[0] = 0;
  if (f) fclose(f);
  const char *at = strstr(line, "://"), *colon = at ? strchr(at + 3, ':') : NULL;
  http_port = s->port = colon ? atoi(colon + 1) : 0;
  return s->port > 0;
}

/* Its exit code, 128 + the signal that ended it. */
static inline int server_wait(server_process *s) {
  int status = 0;
  waitpid(s->pid, &status, 0);
  s->pid = 0;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static inline int server_end(server_process *s) {
  kill(s->pid, SIGTERM);
  return server_wait(s);
}

#endif
