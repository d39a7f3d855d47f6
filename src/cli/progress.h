/* progress.h - one line that says how far the work is, how fast it goes and how long it still takes.
 *
 * On a terminal the line is redrawn in place, at most ten times a second; elsewhere (a log file, CI) a plain line is
 * written every few seconds; with --quiet or --json nothing is. Nothing is written for work that ends within a second.
 *
 *     mn_progress *p = mn_progress_new(cli, "train", "steps", total);
 *     mn_progress_begin_at(p, resumed_step);
 *     for (...) {
 *       mn_progress_fields(p, "loss %.3f  %s tokens/s", loss, rate);   // free text, kept until it is set again
 *       mn_progress_update(p, step);
 *     }
 *     mn_progress_free(p);                                        // leaves the last state standing
 *
 * All functions accept NULL, and mn_progress_new may return it: progress never stops the work. */
#ifndef MN_PROGRESS_H
#define MN_PROGRESS_H

#include "cli/cli.h"

typedef struct mn_progress mn_progress;

/* `unit` in the plural ("steps", "tokens", "bytes"); total 0: unknown. Writes to stderr. */
mn_progress *mn_progress_new(const mn_cli *cli, const char *label, const char *unit, int64_t total);
/* The same for any stream, with an explicit clock (seconds; NULL: mn_now): what tests use. */
mn_progress *mn_progress_to(FILE *out, bool terminal, double (*clock)(void), const char *label, const char *unit, int64_t total);
void mn_progress_begin_at(mn_progress *p, int64_t done); /* work that was done before; not counted in the rate */
void mn_progress_fields(mn_progress *p, const char *fmt, ...) MN_PRINTF(2, 3);
void mn_progress_update(mn_progress *p, int64_t done);
/* For the `progress` of an mn_watch (base/watch.h) whose ctx is the line: shows what it is told, and never stops the work. */
bool mn_progress_told(void *ctx, const char *what, int64_t done, int64_t total);
/* Removes the line from the terminal, so that something else can be printed; the next update redraws it. */
void mn_progress_clear(mn_progress *p);
void mn_progress_free(mn_progress *p);

/* "1.23M", "45.6k", "12": at most six characters. "3m 20s", "1h 05m", "12s". Written into `out`, which is returned. */
char *mn_human_count(double x, char out[16]);
char *mn_human_time(double seconds, char out[16]);

#endif
