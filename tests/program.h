/* program.h - a test that runs the program as a user would: a shell command, its exit code, and what it printed. It runs in
 * the test's own folder (scratch.h). */
#ifndef MN_TEST_PROGRAM_H
#define MN_TEST_PROGRAM_H

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "base/base.h"
#include "scratch.h"

#ifndef MNEME
#define MNEME MN_TEST_BINARY_DIR "/mneme "
#endif
#ifndef SH_BEGIN /* what stands before each command of a test */
#define SH_BEGIN ""
#endif

static char out[1 << 20]; /* what the last command printed, cut to that; errors too where it says 2>&1 */

/* The exit code; 128 + the signal that ended it. */
static int sh(const char *fmt, ...) MN_PRINTF(1, 2);
static int sh(const char *fmt, ...) {
  char command[8192] = SH_BEGIN;
  const size_t begin = sizeof SH_BEGIN - 1;
  va_list ap;
  va_start(ap, fmt);
  int length = vsnprintf(command + begin, sizeof command - begin, fmt, ap);
  va_end(ap);
  out[0] = 0;
  if (length < 0 || (size_t)length >= sizeof command - begin) return 128; /* never half a command */
  FILE *f = popen(command, "r");
  size_t n = f ? fread(out, 1, sizeof out - 1, f) : 0;
  out[n] = 0;
  while (f && fgetc(f) != EOF) continue; /* what did not fit must not end the command by a closed pipe */
  int status = f ? pclose(f) : -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : WIFSIGNALED(status) ? 128 + WTERMSIG(status) : 128;
}

#endif
