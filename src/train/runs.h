/* runs.h - what was trained, and how it went: the run database (SQLite) and the metrics log of one run (JSON lines).
 *
 * The database keeps all runs of a user side by side, so that they can be listed, compared and plotted; DIR/metrics.jsonl
 * keeps one run's metrics beside its checkpoints. Neither may ever stop a training: mn_runlog warns once when one of the
 * two cannot be written, and goes on with the other. Everything here is bookkeeping: it must not change a result. */
#ifndef MN_RUNS_H
#define MN_RUNS_H

#include "base/base.h"

typedef struct mn_runs mn_runs; /* an open database; used by one thread at a time, by any number of processes */

typedef struct mn_run {
  int64_t id;
  const char *name;        /* the recipe's name                                                      */
  double created, updated; /* seconds since 1970                                                     */
  const char *recipe;      /* the whole effective recipe, as JSON                                    */
  const char *fingerprint; /* of recipe, data and program: equal fingerprints promise equal bits     */
  const char *identity;    /* of what --resume does not change: the log's lines belong to it; not kept */
  int64_t parameters;      /* of the model                                                           */
  const char *status;      /* running, finished, interrupted, failed; killed (seen, never written)   */
  const char *message;     /* why it failed; "" otherwise                                            */
  const char *isa;         /* instruction set of the kernels                                         */
  int threads;
  const char *out_dir; /* absolute                                                               */
  const char *host;
  int64_t pid;
  int64_t steps, tokens; /* how far it came                                                        */
} mn_run;

typedef struct mn_metric {
  int64_t step, tokens; /* tokens seen in training until then              */
  const char *name;     /* "loss", "validation_loss", "learning_rate" ...  */
  double value;         /* NaN and infinities are kept as null, read as NaN */
  double time;          /* seconds since 1970                              */
} mn_metric;

/* ---- the database ------------------------------------------------------------------------------------------------- */

/* $MNEME_HOME/runs.db, or ./runs/mneme.db. malloc'ed. */
char *mn_runs_default_path(void);
/* path NULL: the default. `create`: make it (and its directory) when it is missing; otherwise a missing one is
 * MN_ERR_IO. A locked, damaged, foreign, newer or read-only file is refused with its path and the remedy; so is one that has
 * another name (a hard link), because a database is written in place. A path that is given may be a link; the default is ours,
 * and links are not followed there. */
mn_status mn_runs_open(const char *path, bool create, mn_runs **out);
void mn_runs_close(mn_runs *db);
/* Before the work: could it be opened for writing? Nothing is made. */
mn_status mn_runs_try(const char *path);
const char *mn_runs_path(const mn_runs *db);
void mn_runs_patience(mn_runs *db, int milliseconds); /* how long a call waits for another process's lock; 3000 at first */
bool mn_runs_locked(const mn_runs *db);               /* the last failure was such a lock: the call may be tried again   */
double mn_time_1970(void);

/* Adds a run (id, created, updated, host, pid and status are set here). */
mn_status mn_run_begin(mn_runs *db, const mn_run *run, int64_t *id);
/* The run goes on from `step`: what was recorded beyond it is removed, and it is running again. */
mn_status mn_run_resume(mn_runs *db, int64_t id, int64_t step);
/* Records metrics in one transaction; a record of the same run, name and step is replaced. */
mn_status mn_run_metrics(mn_runs *db, int64_t id, const mn_metric *metrics, size_t n);
mn_status mn_run_metric(mn_runs *db, int64_t id, int64_t step, int64_t tokens, const char *name, double value);
/* status: finished, interrupted or failed. */
mn_status mn_run_finish(mn_runs *db, int64_t id, const char *status, const char *message);
mn_status mn_run_delete(mn_runs *db, int64_t id);

/* All runs, newest first, at most `limit` (0: all). Strings live in the arena. */
mn_status mn_runs_list(mn_runs *db, mn_arena *arena, int64_t limit, mn_run **runs, size_t *n);
/* By number, by name (the newest of that name) or by output directory. A miss names the nearest. */
mn_status mn_runs_find(mn_runs *db, mn_arena *arena, const char *which, mn_run *run);
/* The newest run with this output directory; *found tells. */
mn_status mn_runs_find_dir(mn_runs *db, const char *out_dir, int64_t *id, bool *found);

typedef struct mn_metric_summary {
  const char *name;
  int64_t count, first_step, last_step;
  double last, min, max;
} mn_metric_summary;
mn_status mn_run_summary(mn_runs *db, mn_arena *arena, int64_t id, mn_metric_summary **list, size_t *n);

typedef struct mn_metric_series { /* in order of steps; arrays of n in the arena */
  size_t n;
  double *step, *tokens, *value, *time; /* time: seconds since the run began */
} mn_metric_series;
mn_status mn_run_series(mn_runs *db, mn_arena *arena, int64_t id, const char *name, mn_metric_series *out);

/* ---- the log of one training -------------------------------------------------------------------------------------- */

typedef struct mn_runlog mn_runlog;
typedef struct mn_runlog_value {
  const char *name;
  double value;
} mn_runlog_value;

/* Opens out_dir/metrics.jsonl and the database (db_path NULL: the default; "": none). resume_step < 0 begins a new run;
 * otherwise the run of that directory goes on from that step: records beyond it, and a line cut short by a kill, are
 * removed from both, and what the database missed is taken from the log. A line that is damaged, of another run or out of its
 * place (runlog_line.h) is named and left out. Fails only when out of memory or when out_dir
 * cannot be used; everything else is a warning. */
mn_status mn_runlog_open(const char *db_path, const mn_run *run, int64_t resume_step, mn_runlog **out);
/* Begins metrics.jsonl anew, in a directory that was removed and made again. */
mn_status mn_runlog_reopen(mn_runlog *log);
int64_t mn_runlog_id(const mn_runlog *log); /* the run's number; 0 without a database */
/* One line in the log, at once; the database follows within a second. Never fails: warns once. */
void mn_runlog_record(mn_runlog *log, int64_t step, int64_t tokens, const mn_runlog_value *values, size_t n);
/* Writes what is left, marks the run and frees the log (may be NULL). */
void mn_runlog_close(mn_runlog *log, const char *status, const char *message);

#endif
