/* shell.h - names in commands that a message shows: what is pasted into a shell means the same file. */
#ifndef MN_SHELL_H
#define MN_SHELL_H

#include "base/base.h"

/* The path as one word of a command: as it is where no shell changes it, else between quotes; one that begins with a dash behind "./". malloc'ed;
 * NULL (message set) when out of memory. */
char *mn_shell_path(const char *path);

#endif
