/* chat_lines.h - standard input line by line, from a terminal or a pipe, which can be waited for and interrupted. */
#ifndef MN_CHAT_LINES_H
#define MN_CHAT_LINES_H

#include "base/base.h"

typedef struct mn_lines { /* zero-initialise */
  char *data;
  size_t len, from; /* what was read, and how much of it was used */
  bool ended;
} mn_lines;

/* The next line without its end; *n -1: there is none. Waits for it, and not longer than until it is interrupted (cli.h). */
mn_status mn_lines_next(mn_lines *in, const char **line, int64_t *n);
void mn_lines_free(mn_lines *in);

#endif
