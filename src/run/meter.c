/* meter.c - see meter.h. Parts of equal length are joined in pairs whenever there are too many; segment times are kept for
 * the first and the last few thousand segments. All memory is taken and touched when the meter is made. */
#include "run/meter.h"

#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PARTS = 1024, TIMES = 8192, FEWEST = 5, WARM_UP = 64, RESIDENT_EVERY = 256 /* segments */ };
static const double warm_up_seconds = 1.5; /* by then the progress line, too, has been drawn, and its code is in memory */

typedef struct part {
  int64_t begin, tokens, scored;
  double nll, seconds;
} part;

struct mn_meter {
  part parts[PARTS + 1];
  int n;
  int64_t part_tokens;                             /* a part is full with so many */
  double first[TIMES], last[TIMES], sorted[TIMES]; /* seconds per token; last: a ring */
  int64_t segments;
  int64_t last_tokens; /* of the last segment */
  bool cut_short;      /* it had fewer than the one before */
  part all;
  int64_t resident_start, resident_end, resident_max;
  bool warm;
};

mn_status mn_meter_new(mn_meter **out) {
  mn_meter *m = *out = mn_alloc(sizeof *m);
  if (!m) return MN_ERR_MEMORY;
  memset(m, 0x55, sizeof *m); /* so that every page is there before the stream begins */
  memset(m, 0, sizeof *m);
  return MN_OK;
}

void mn_meter_free(mn_meter *m) { free(m); }

/* "Rss: 1234 kB" of smaps_rollup is exact; statm's counters lag behind by some pages per thread. */
int64_t mn_resident_bytes(void) {
  char text[2048];
  int fd = open("/proc/self/smaps_rollup", O_RDONLY | O_CLOEXEC);
  ssize_t n = fd >= 0 ? read(fd, text, sizeof text - 1) : -1;
  if (fd >= 0) close(fd);
  if (n > 0) {
    text[n] = 0;
    const char *at = strstr(text, "\nRss:");
    if (at) return 1024 * strtoll(at + 5, NULL, 10);
  }
  fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
  n = fd >= 0 ? read(fd, text, sizeof text - 1) : -1;
  if (fd >= 0) close(fd);
  if (n <= 0) return 0;
  text[n] = 0;
  const char *second = strchr(text, ' ');
  return second ? strtoll(second, NULL, 10) * sysconf(_SC_PAGESIZE) : 0;
}

static void join(part *a, const part *b) {
  a->tokens += b->tokens;
  a->scored += b->scored;
  a->nll += b->nll;
  a->seconds += b->seconds;
}

void mn_meter_add(mn_meter *m, int64_t tokens, int64_t scored, double nll, double seconds) {
  const part p = {.begin = m->all.tokens, .tokens = tokens, .scored = scored, .nll = nll, .seconds = seconds};
  if (tokens <= 0) return;
  if (m->part_tokens == 0) m->part_tokens = tokens;
  if (m->n == 0 || m->parts[m->n - 1].tokens >= m->part_tokens) {
    if (m->n == PARTS) {
      for (int i = 0; i < PARTS / 2; i++) {
        m->parts[i] = m->parts[2 * i];
        join(&m->parts[i], &m->parts[2 * i + 1]);
      }
      m->n = PARTS / 2;
      m->part_tokens *= 2;
    }
    m->parts[m->n++] = (part){.begin = p.begin};
  }
  join(&m->parts[m->n - 1], &p);
  join(&m->all, &p);
  double each = seconds / (double)tokens;
  if (m->segments < TIMES) m->first[m->segments] = each;
  m->last[m->segments % TIMES] = each;
  m->cut_short = m->segments > 0 && tokens < m->last_tokens;
  m->last_tokens = tokens;
  m->segments++;
  bool warm = m->segments >= WARM_UP && m->all.seconds >= warm_up_seconds;
  if (m->segments == 1 || m->segments == WARM_UP || (warm && !m->warm)) { /* a short stream keeps the earlier figure */
    m->resident_max = m->resident_start = mn_resident_bytes();
    m->warm = warm;
  } else if (m->segments % RESIDENT_EVERY == 0) {
    int64_t now = mn_resident_bytes();
    if (now > m->resident_max) m->resident_max = now;
  }
}

static int rising(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* Of `segments`: a last one that the end of the text cut short is left out, a token of it takes longer. */
static double median(mn_meter *m, int64_t segments, bool from_end, int64_t n) {
  if (n == 0) return (double)NAN;
  for (int64_t i = 0; i < n; i++) m->sorted[i] = from_end ? m->last[(segments - 1 - i) % TIMES] : m->first[i];
  qsort(m->sorted, (size_t)n, sizeof *m->sorted, rising);
  return n % 2 ? m->sorted[n / 2] : (m->sorted[n / 2 - 1] + m->sorted[n / 2]) / 2;
}

static mn_meter_part shown(const part *p) {
  return (mn_meter_part){p->begin, p->begin + p->tokens, p->scored ? exp(p->nll / (double)p->scored) : (double)NAN,
                         p->tokens ? p->seconds / (double)p->tokens : (double)NAN};
}

int mn_meter_parts(const mn_meter *m) { return m->n; }
mn_meter_part mn_meter_at(const mn_meter *m, int i) { return shown(&m->parts[i]); }

void mn_meter_summarise(mn_meter *m, mn_meter_summary *out) {
  mn_meter_part all = shown(&m->all);
  *out = (mn_meter_summary){.tokens = m->all.tokens, .scored = m->all.scored, .seconds = m->all.seconds, .perplexity = all.perplexity};
  const int64_t segments = m->segments - m->cut_short, few = segments / 2 < FEWEST ? segments / 2 : FEWEST;
  int64_t n = segments / 100 > few ? segments / 100 : few;
  if (n < 1) n = segments ? 1 : 0;
  if (n > TIMES - 1) n = TIMES - 1;
  out->first_seconds = median(m, segments, false, n);
  out->last_seconds = median(m, segments, true, n);
  m->resident_end = mn_resident_bytes();
  if (m->resident_end > m->resident_max) m->resident_max = m->resident_end;
  out->resident_start = m->resident_start;
  out->resident_end = m->resident_end;
  out->resident_max = m->resident_max;
  for (int k = 0, i = 0; k < 10; k++) { /* a part belongs to the tenth that its middle is in */
    part sum = {.begin = i < m->n ? m->parts[i].begin : m->all.tokens};
    while (i < m->n && (2 * m->parts[i].begin + m->parts[i].tokens) * 10 < 2 * m->all.tokens * (k + 1)) join(&sum, &m->parts[i++]);
    if (k == 9)
      while (i < m->n) join(&sum, &m->parts[i++]);
    out->tenth[k] = shown(&sum);
  }
}
