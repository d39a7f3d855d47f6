/* output.c - everything that a verb writes for people or machines goes through here: what is filled in cannot steer the
 * terminal, what cannot be written is noticed, and a reader that goes away ends the verb. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/text.h"
#include "cli/cli.h"

/* ---- formatting: printf's, but a text that is filled in is shown, not obeyed ---- */

/* One conversion with its stars filled in. */
static void add_conversion(mn_text *out, const char *spec, char length, char kind, va_list *ap) {
  if (kind == 's') { /* the length counts what is shown */
    const char *s = va_arg(*ap, const char *);
    mn_text shown = {0};
    mn_text_add_shown(&shown, s ? s : "(none)", strlen(s ? s : "(none)"), false);
    mn_text_addf(out, spec, shown.data ? shown.data : "");
    out->failed |= shown.failed;
    mn_text_free(&shown);
  } else if (strchr("eEfFgGaA", kind)) {
    const double x = va_arg(*ap, double);
    mn_text_addf(out, spec, isnan(x) ? (double)NAN : x); /* which has no sign */
  } else if (kind == 'c') mn_text_addf(out, spec, va_arg(*ap, int));
  else if (length == 'L') mn_text_addf(out, spec, va_arg(*ap, long long));
  else if (length == 'l') mn_text_addf(out, spec, va_arg(*ap, long));
  else if (length == 'z') mn_text_addf(out, spec, va_arg(*ap, size_t));
  else mn_text_addf(out, spec, va_arg(*ap, int));
}

static void add_formatted(mn_text *out, const char *fmt, va_list *ap) {
  while (*fmt) {
    size_t plain = strcspn(fmt, "%");
    mn_text_add_bytes(out, fmt, plain);
    fmt += plain;
    if (!*fmt) return;
    if (fmt[1] == '%') {
      mn_text_add(out, "%");
      fmt += 2;
      continue;
    }
    char spec[64] = "%", length = 0;
    size_t n = 1;
    for (fmt++; *fmt && strchr("-+ #0123456789.*", *fmt) && n < sizeof spec - 24; fmt++) {
      if (*fmt == '*') n += (size_t)snprintf(spec + n, 16, "%d", va_arg(*ap, int));
      else spec[n++] = *fmt;
    }
    for (; *fmt == 'l' || *fmt == 'z'; fmt++) {
      length = length == 'l' ? 'L' : *fmt;
      spec[n++] = *fmt;
    }
    spec[n++] = *fmt;
    spec[n] = 0;
    if (*fmt) add_conversion(out, spec, length, *fmt++, ap);
  }
}

/* ---- standard output ---- */

static int fault; /* errno of the first write that failed; 0: none */

static void write_out(const char *data, size_t n) {
  if (fault || !n) return;
  errno = 0;
  if (fwrite(data, 1, n, stdout) == n) return;
  fault = errno ? errno : EIO;
  mn_cli_ask_to_stop(); /* nobody reads on: a long verb ends here */
}

void mn_print_flush(void) {
  if (fault) return;
  errno = 0;
  if (fflush(stdout) == 0 && !ferror(stdout)) return;
  fault = errno ? errno : EIO;
  mn_cli_ask_to_stop();
}

void mn_print_bytes(const void *data, size_t n) { write_out(data, n); }

void mn_print(const char *fmt, ...) {
  mn_text t = {0};
  va_list ap;
  va_start(ap, fmt);
  add_formatted(&t, fmt, &ap);
  va_end(ap);
  if (t.data) write_out(t.data, t.len);
  mn_text_free(&t);
}

void mn_print_model_text(const char *s, size_t n) {
  if (!isatty(STDOUT_FILENO)) {
    write_out(s, n);
    return;
  }
  mn_text t = {0};
  mn_text_add_shown(&t, s, n, true);
  if (t.data) write_out(t.data, t.len);
  mn_text_free(&t);
}

mn_status mn_print_end(bool *reader_left) {
  mn_print_flush();
  *reader_left = fault == EPIPE;
  if (!fault || fault == EPIPE) return MN_OK;
  return mn_fail(MN_ERR_IO, "standard output could not be written: %s%s", strerror(fault), fault == ENOSPC ? "; is the disk full?" : "");
}

/* A descriptor that was closed by the caller would be given to the next file that is opened, and what is printed would go
 * into it. So the three are taken: by something that cannot be written or read, and says so. */
void mn_print_begin(void) {
  fault = 0;
  for (int fd = 0; fd <= 2; fd++)
    if (fcntl(fd, F_GETFD) < 0 && errno == EBADF) {
      int taken = open("/dev/null", fd == STDOUT_FILENO ? O_RDONLY : fd == STDIN_FILENO ? O_WRONLY : O_RDWR);
      (void)taken; /* the lowest free number: fd */
    }
}

/* ---- standard error ---- */

void mn_print_error(const char *message) {
  mn_text t = {0};
  mn_text_add(&t, "mneme: ");
  mn_text_add_shown(&t, message, strlen(message), false);
  mn_text_add(&t, "\n");
  if (t.data) fwrite(t.data, 1, t.len, stderr);
  mn_text_free(&t);
}

void mn_cli_note(const mn_cli *cli, const char *fmt, ...) {
  if (cli->quiet || cli->json) return;
  mn_text t = {0};
  va_list ap;
  va_start(ap, fmt);
  add_formatted(&t, fmt, &ap);
  va_end(ap);
  mn_text_add(&t, "\n");
  if (t.data) fwrite(t.data, 1, t.len, stderr);
  mn_text_free(&t);
}

const char *mn_cli_shown(mn_arena *arena, const char *s) {
  mn_text t = {0};
  mn_text_add_shown(&t, s, strlen(s), false);
  const char *copy = t.failed ? NULL : mn_arena_strdup(arena, t.data ? t.data : "");
  mn_text_free(&t);
  return copy;
}

/* ---- JSON ---- */

json_t *mn_cli_bytes(const char *s, size_t n) {
  mn_text t = {0};
  mn_text_add_utf8(&t, s, n);
  json_t *j = t.failed ? NULL : json_stringn(t.data ? t.data : "", t.len);
  mn_text_free(&t);
  return j;
}

json_t *mn_cli_text(const char *s) { return s ? mn_cli_bytes(s, strlen(s)) : json_null(); }

/* 15 digits: what is left of a double when 0.1 is to be printed as 0.1. */
mn_status mn_print_json(json_t *value, size_t flags) {
  if (!value) return mn_fail(MN_ERR_INTERNAL, "a JSON document could not be built");
  char *text = json_dumps(value, flags | JSON_REAL_PRECISION(15) | JSON_ENCODE_ANY);
  json_decref(value);
  if (!text) return mn_fail(MN_ERR_MEMORY, "out of memory while JSON was written");
  write_out(text, strlen(text));
  write_out("\n", 1);
  free(text);
  return MN_OK;
}
