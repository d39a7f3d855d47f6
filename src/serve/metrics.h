/* metrics.h - what a server counts, as Prometheus reads it (text format 0.0.4). One thread, the loop's. */
#ifndef MN_SERVE_METRICS_H
#define MN_SERVE_METRICS_H

#include "base/text.h"
#include "serve/batcher.h"

enum { MN_HISTOGRAM = 16, MN_METRIC_STATUSES = 24 };
typedef struct mn_histogram {
  int64_t count[MN_HISTOGRAM + 1]; /* up to 1 ms, 2 ms, 4 ms ... 32.768 s; and beyond */
  double sum;
} mn_histogram;
void mn_histogram_add(mn_histogram *h, double seconds);

typedef struct mn_metrics { /* zero-initialise */
  struct {
    const char *endpoint; /* a path of the table of endpoints, or "other" */
    int status;
    int64_t n;
  } replies[MN_METRIC_STATUSES * 8];
  int n_replies;
  int64_t left, refused; /* clients that did not wait; requests for which there was no room */
  mn_histogram waited, first, token,
      whole; /* seconds of a generation: until it was read, until its first token, for each further one, all */
} mn_metrics;

void mn_metrics_reply(mn_metrics *m, const char *endpoint, int status);
/* A generation is over. */
void mn_metrics_task(mn_metrics *m, const mn_task *t);
typedef struct mn_metrics_now {
  mn_batcher_counts batch;
  int connections, bodies; /* that are read */
  size_t session_bytes;
  bool text; /* the model makes text: there is a batch */
} mn_metrics_now;
void mn_metrics_write(const mn_metrics *m, const mn_metrics_now *now, mn_text *out);

#endif
