/* chat_lines.c - see chat_lines.h. */
#include "cli/chat_lines.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"

enum { LINE = 1 << 20 }; /* bytes of a message */

mn_status mn_lines_next(mn_lines *in, const char **line, int64_t *n) {
  *n = -1;
  if (!in->data && !(in->data = mn_alloc(LINE))) return MN_ERR_MEMORY;
  for (;;) {
    char *end = in->len > in->from ? memchr(in->data + in->from, '\n', in->len - in->from) : NULL;
    if (!end && in->ended && in->from < in->len) end = in->data + in->len; /* a last line without its end */
    if (end) {
      *line = in->data + in->from;
      *n = end - *line;
      in->from = (size_t)(end - in->data) + (end < in->data + in->len);
      return MN_OK;
    }
    if (in->ended) return MN_OK;
    memmove(in->data, in->data + in->from, in->len -= in->from);
    in->from = 0;
    if (in->len == LINE) return mn_fail(MN_ERR_CONFIG, "a message is longer than %d bytes: say it in several", LINE);
    struct pollfd wait = {.fd = STDIN_FILENO, .events = POLLIN};
    while (!mn_cli_interrupted() && poll(&wait, 1, 100) <= 0) continue;
    if (mn_cli_interrupted()) return MN_OK;
    ssize_t got = read(STDIN_FILENO, in->data + in->len, LINE - in->len);
    if (got < 0 && errno != EINTR && errno != EAGAIN) return mn_fail(MN_ERR_IO, "standard input: %s", strerror(errno));
    if (got == 0) in->ended = true;
    if (got > 0) in->len += (size_t)got;
  }
}

void mn_lines_free(mn_lines *in) {
  free(in->data);
  *in = (mn_lines){0};
}
