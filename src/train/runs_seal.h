/* runs_seal.h - checksums in the run database (private to src/train): SQLite notices a page that is no page, not a changed
 * number. A run's column `total` is the sum (modulo 2^64) of the hashes of its metrics' rows, `seal` the hash of all its other
 * columns, and the one row of the table `seals` the sum of all runs' seals: so a changed value, a lost row and a lost run are
 * noticed, and each change costs what it changes. Every change goes by differences, so that none makes old damage good. */
#ifndef MN_RUNS_SEAL_H
#define MN_RUNS_SEAL_H

#include <sqlite3.h>

#include "base/base.h"

/* In SQL: mn_row(a, b, ...) is the hash of its arguments, mn_total(x) the sum of a column, mn_plus(a, b) and mn_minus(a, b). */
int mn_seal_functions(sqlite3 *sql);

#define MN_SEAL_SCHEMA                                                                                                                     \
  "ALTER TABLE runs ADD COLUMN total INTEGER NOT NULL DEFAULT 0;"                                                                          \
  "ALTER TABLE runs ADD COLUMN seal INTEGER NOT NULL DEFAULT 0;"                                                                           \
  "CREATE TABLE seals (total INTEGER NOT NULL);"                                                                                           \
  "UPDATE runs SET total=(SELECT mn_total(" MN_SEAL_METRIC ") FROM metrics WHERE run=runs.id);"                                            \
  "UPDATE runs SET seal=" MN_SEAL_RUN ";"                                                                                                  \
  "INSERT INTO seals SELECT mn_total(seal) FROM runs;"
#define MN_SEAL_METRIC "mn_row(run, name, step, tokens, value, time)"
#define MN_SEAL_RUN                                                                                                                        \
  "mn_row(id, name, created, updated, recipe, fingerprint, parameters, status, message, isa, threads, out_dir, host, pid, steps, "         \
  "tokens, total)"

#endif
