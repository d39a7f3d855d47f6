/* progress.c - see progress.h. */
#include "cli/progress.h"

#include "base/text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const double first_after = 1.0;  /* seconds before anything is shown                 */
static const double redraw_every = 0.1; /* on a terminal                                    */
static const double line_every = 5.0;   /* elsewhere                                        */
static const double rate_memory = 10.0; /* time constant of the moving average of the rate  */

struct mn_progress {
  FILE *out;
  bool terminal, color, shown, line_open;
  double (*clock)(void);
  char label[48], unit[24], fields[256];
  int64_t total, start, done;
  double began, drawn, sampled, rate; /* rate: units per second, moving average */
  int64_t sampled_done;
};

char *mn_human_count(double x, char out[16]) {
  static const char *const suffix[] = {"", "k", "M", "G", "T", "P", "E"};
  int i = 0;
  while (fabs(x) >= 999.5 && i < 6) x /= 1000, i++;
  bool whole = i == 0 && (x == floor(x) || fabs(x) >= 99.95);
  snprintf(out, 16, fabs(x) >= 99.95 || whole ? "%.0f%s" : fabs(x) >= 9.995 ? "%.1f%s" : "%.2f%s", x, suffix[i]);
  return out;
}

char *mn_human_time(double seconds, char out[16]) {
  if (!(seconds >= 0 && seconds < 1e9)) return strcpy(out, "?");
  int s = (int)lround(seconds);
  if (s < 60) snprintf(out, 16, "%ds", s);
  else if (s < 3600) snprintf(out, 16, "%dm %02ds", s / 60, s % 60);
  else if (s < 86400) snprintf(out, 16, "%dh %02dm", s / 3600, s % 3600 / 60);
  else snprintf(out, 16, "%dd %02dh", s / 86400, s % 86400 / 3600);
  return out;
}

/* The names of files and runs are shown with their control characters written out. */
static void show(char *text, size_t size) {
  mn_text t = {0};
  mn_text_add_shown(&t, text, strlen(text), false);
  snprintf(text, size, "%s", t.data ? t.data : "");
  mn_text_free(&t);
}

mn_progress *mn_progress_to(FILE *out, bool terminal, double (*clock)(void), const char *label, const char *unit, int64_t total) {
  mn_progress *p = mn_calloc(1, sizeof *p);
  if (!p) return NULL;
  p->out = out;
  p->terminal = terminal;
  p->color = terminal && mn_cli_color(out);
  p->clock = clock ? clock : mn_now;
  p->total = total;
  snprintf(p->label, sizeof p->label, "%s", label);
  show(p->label, sizeof p->label);
  snprintf(p->unit, sizeof p->unit, "%s", unit);
  p->began = p->sampled = p->clock();
  p->drawn = -INFINITY;
  return p;
}

mn_progress *mn_progress_new(const mn_cli *cli, const char *label, const char *unit, int64_t total) {
  if (cli->quiet || cli->json) return NULL;
  const char *term = getenv("TERM");
  bool terminal = isatty(STDERR_FILENO) && term && strcmp(term, "dumb");
  return mn_progress_to(stderr, terminal, NULL, label, unit, total);
}

void mn_progress_begin_at(mn_progress *p, int64_t done) {
  if (!p) return;
  p->start = p->done = p->sampled_done = done;
  p->began = p->sampled = p->clock();
}

/* Small amounts exactly, large ones shortened. */
static char *amount(const mn_progress *p, int64_t n, char out[16]) {
  if ((p->total > 0 ? p->total : n) >= 100000) return mn_human_count((double)n, out);
  snprintf(out, 16, "%d", (int)n);
  return out;
}

static void draw(mn_progress *p, double now) {
  char line[512], count[16], total[16], rate[16], left[16], bar[64] = "";
  int width = p->terminal ? mn_cli_columns(p->out) : 400;
  double fraction = p->total > 0 ? (double)p->done / (double)p->total : 0;
  fraction = fraction < 0 ? 0 : fraction > 1 ? 1 : fraction;
  int n = 0;
  const size_t size = sizeof line;
  n += snprintf(line, size, "%s", p->label);
  if (p->total > 0) {
    if (p->terminal && width >= 72) { /* twelve cells, in eighths */
      static const char *const eighth[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉", "█"};
      int cells = 12, filled = (int)lround(fraction * cells * 8), used = 0, blank = cells;
      for (; filled > 0; filled -= 8, blank--)
        used += snprintf(bar + used, sizeof bar - (size_t)used, "%s", eighth[filled > 8 ? 8 : filled]);
      n += snprintf(line + n, size - (size_t)n, " %s%s%*s%s", p->color ? "\033[36m" : "", bar, blank, "", p->color ? "\033[0m" : "");
    }
    n += snprintf(line + n, size - (size_t)n, " %3.0f%%  %s/%s %s", 100 * fraction, amount(p, p->done, count), amount(p, p->total, total),
                  p->unit);
  } else n += snprintf(line + n, size - (size_t)n, "  %s %s", amount(p, p->done, count), p->unit);
  if (p->rate > 0) {
    n += snprintf(line + n, size - (size_t)n, "  %s/s", mn_human_count(p->rate, rate));
    if (p->total > p->done)
      n += snprintf(line + n, size - (size_t)n, "  %s left", mn_human_time((double)(p->total - p->done) / p->rate, left));
  }
  if (p->total > 0 && p->done >= p->total) n += snprintf(line + n, size - (size_t)n, "  in %s", mn_human_time(now - p->began, left));
  if (p->fields[0] && n < (int)size) snprintf(line + n, size - (size_t)n, "  %s", p->fields);

  if (p->terminal) { /* cut to the width: count columns, not bytes, and no escape sequences */
    int columns = 0;
    char *s = line;
    while (*s && columns < width - 1) {
      if (*s == '\033') {
        while (*s && *s != 'm') s++;
        if (*s) s++;
        continue;
      }
      s++;
      while ((*s & 0xC0) == 0x80) s++;
      columns++;
    }
    *s = 0;
    fprintf(p->out, "\r%s%s\033[K", line, p->color ? "\033[0m" : "");
    p->line_open = true;
  } else fprintf(p->out, "%s\n", line);
  fflush(p->out);
  p->drawn = now;
  p->shown = true;
}

void mn_progress_fields(mn_progress *p, const char *fmt, ...) {
  if (!p) return;
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(p->fields, sizeof p->fields, fmt, ap);
  va_end(ap);
  show(p->fields, sizeof p->fields);
}

void mn_progress_update(mn_progress *p, int64_t done) {
  if (!p) return;
  double now = p->clock(), dt = now - p->sampled;
  p->done = done;
  if (dt >= 0.05) {
    double rate = (double)(done - p->sampled_done) / dt, elapsed = now - p->began;
    /* While young, the average is over all that was done; later it forgets with a time constant of rate_memory. */
    double weight = elapsed <= rate_memory ? dt / elapsed : 1 - exp(-dt / rate_memory);
    p->rate += (rate - p->rate) * (weight < 1 ? weight : 1);
    p->sampled = now;
    p->sampled_done = done;
  }
  if (now - p->began < first_after) return;
  if (now - p->drawn >= (p->terminal ? redraw_every : line_every)) draw(p, now);
}

bool mn_progress_told(void *ctx, const char *what, int64_t done, int64_t total) {
  (void)total; /* the line has its own */
  if (what) mn_progress_fields(ctx, "%s", what);
  mn_progress_update(ctx, done);
  return true;
}

void mn_progress_clear(mn_progress *p) {
  if (!p || !p->line_open) return;
  fputs("\r\033[K", p->out);
  fflush(p->out);
  p->line_open = false;
  p->drawn = -INFINITY;
}

void mn_progress_free(mn_progress *p) {
  if (!p) return;
  double now = p->clock();
  if (p->shown) draw(p, now);
  if (p->line_open) fputc('\n', p->out);
  fflush(p->out);
  free(p);
}
