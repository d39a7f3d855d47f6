/* meter.h - what an endless stream is judged by, kept in constant memory however long it runs: perplexity along the stream,
 * time per token at its start and at its end, resident memory after warm-up and at the end. */
#ifndef MN_METER_H
#define MN_METER_H

#include "base/base.h"

typedef struct mn_meter mn_meter;

mn_status mn_meter_new(mn_meter **out);
void mn_meter_free(mn_meter *m);
/* After each segment: its tokens, how many of them were scored, the sum of their negative log-likelihoods (nats), and the
 * seconds it took. */
void mn_meter_add(mn_meter *m, int64_t tokens, int64_t scored, double nll, double seconds);

typedef struct mn_meter_part { /* a stretch of the stream */
  int64_t begin, end;          /* tokens */
  double perplexity;           /* NaN when nothing was scored */
  double token_seconds;        /* mean */
} mn_meter_part;

typedef struct mn_meter_summary {
  int64_t tokens, scored;
  double seconds;
  double perplexity; /* of all scored tokens; NaN without */
  /* per token: medians over the segments of the first and of the last 1 %, 5 at least; without one that the end cut short */
  double first_seconds, last_seconds;
  int64_t resident_start, resident_end, resident_max; /* bytes: after warm-up, now, the largest seen from warm-up on */
  mn_meter_part tenth[10];
} mn_meter_summary;
void mn_meter_summarise(mn_meter *m, mn_meter_summary *out);
/* The curve: at most 1,024 parts of equal length (the last may be shorter). */
int mn_meter_parts(const mn_meter *m);
mn_meter_part mn_meter_at(const mn_meter *m, int i);

/* Resident memory of this process in bytes, exact to the page; 0 where the system does not tell. */
int64_t mn_resident_bytes(void);

#endif
