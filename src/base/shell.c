/* shell.c - see shell.h. */
#include "base/shell.h"

#include <stdlib.h>
#include <string.h>

#include "base/text.h"

char *mn_shell_path(const char *path) {
  static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./:=,@%+-";
  mn_text t = {0};
  const bool quotes = !*path || path[strspn(path, plain)] != 0;
  if (quotes) mn_text_add(&t, "'");
  if (*path == '-') mn_text_add(&t, "./");
  for (const char *c = path; *c; c++) {
    if (*c == '\'') mn_text_add(&t, "'\\''");
    else mn_text_add_bytes(&t, c, 1);
  }
  mn_text_add(&t, quotes ? "'" : "");
  if (mn_text_status(&t) == MN_OK) return t.data;
  mn_text_free(&t);
  return NULL;
}
