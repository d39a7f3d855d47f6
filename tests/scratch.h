/* scratch.h - the files of a test program lie in a folder of its own, so that any number of tests, and of runs of one test, may go side
 * by side (each instruction set is a run). Before main the program steps into a new folder, and names its files by relative paths; at
 * the end the folder goes, unless a check failed. A child that ends by _exit leaves it alone. A program that writes thousands of files
 * defines SCRATCH_IN_MEMORY before it includes this: where the machine has /dev/shm they lie there, as each is waited for on a disk. */
#ifndef MN_TEST_SCRATCH_H
#define MN_TEST_SCRATCH_H

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#include "test.h"

#ifdef SCRATCH_IN_MEMORY
static char scratch_dir[PATH_MAX] = "/dev/shm/mneme-test-XXXXXX";
#else
static char scratch_dir[PATH_MAX] = MN_TEST_BINARY_DIR "/scratch-XXXXXX";
#endif
static pid_t scratch_owner;

static void scratch_leave(void) {
  char command[PATH_MAX + 16];
  if (getpid() != scratch_owner) return; /* a child */
  if (test_failed) {
    printf("the files of this test are in %s\n", scratch_dir);
    return;
  }
  snprintf(command, sizeof command, "rm -rf '%s'", scratch_dir);
  if (chdir("/") != 0 || system(command) != 0) printf("%s was left behind\n", scratch_dir);
}

__attribute__((constructor)) static void scratch_enter(void) {
  scratch_owner = getpid();
  if (access("/dev/shm", W_OK) != 0) strcpy(scratch_dir, MN_TEST_BINARY_DIR "/scratch-XXXXXX");
  if (!mkdtemp(scratch_dir) || chdir(scratch_dir) != 0 || atexit(scratch_leave) != 0) {
    perror(scratch_dir);
    exit(1);
  }
}

#endif
