/* runs_internal.h - what the two rooms of the run database share: runs.c opens it and writes, runs_read.c reads. */
#ifndef MN_RUNS_INTERNAL_H
#define MN_RUNS_INTERNAL_H

#include <sqlite3.h>

#include "train/runs.h"

struct mn_runs {
  sqlite3 *sql;
  char *path;
  bool given;                   /* the user named the path */
  sqlite3_stmt *insert, *touch; /* prepared once: the two statements of every record */
  sqlite3_stmt *hash;           /* of one metric's row                                */
  bool locked;                  /* what the last failure was about                    */
  bool sealed;                  /* it has checksums: all but those of older programs  */
};

/* The message of an SQLite code; `doing` says what was being done. */
mn_status mn_runs_fail(mn_runs *db, int code, const char *doing);
mn_status mn_runs_prepare(mn_runs *db, const char *sql, sqlite3_stmt **out);
void mn_runs_bind(sqlite3_stmt *s, int i, const char *text); /* NULL: "" */
/* Whether the checksums of all runs, of one run's metrics, hold. */
mn_status mn_runs_check(mn_runs *db);
mn_status mn_runs_check_metrics(mn_runs *db, int64_t id);
void mn_runs_host(char out[256]); /* this machine's name */

#endif
