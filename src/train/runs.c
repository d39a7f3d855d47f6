/* runs.c - the run database: opening and writing (runs_read.c reads). Two tables, `runs` and `metrics`, and their checksums
 * (runs_seal.h); write-ahead log, so that readers never wait for a training and a killed process leaves a whole database. */
#include "train/runs.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/dir.h"
#include "base/file.h"
#include "base/output.h"
#include "base/text.h"
#include "train/runs_internal.h"
#include "train/runs_seal.h"

enum { SCHEMA = 2, APPLICATION = 0x4D6E656D /* "Mnem" */, BUSY_MS = 3000 };

static const char schema_sql[] =
    "CREATE TABLE runs (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, created REAL NOT NULL, updated REAL "
    "NOT NULL, recipe TEXT NOT NULL, fingerprint TEXT NOT NULL, parameters INTEGER NOT NULL, status TEXT NOT NULL, "
    "message TEXT NOT NULL, isa TEXT NOT NULL, threads INTEGER NOT NULL, out_dir TEXT NOT NULL, host TEXT NOT NULL, "
    "pid INTEGER NOT NULL, steps INTEGER NOT NULL, tokens INTEGER NOT NULL);"
    "CREATE INDEX runs_by_dir ON runs(out_dir);"
    "CREATE TABLE metrics (run INTEGER NOT NULL REFERENCES runs(id) ON DELETE CASCADE, name TEXT NOT NULL, step INTEGER "
    "NOT NULL, tokens INTEGER NOT NULL, value REAL, time REAL NOT NULL, PRIMARY KEY (run, name, step)) WITHOUT ROWID;";

double mn_time_1970(void) {
  struct timespec t;
  clock_gettime(CLOCK_REALTIME, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void mn_runs_host(char out[256]) {
  if (gethostname(out, 255) != 0) strcpy(out, "localhost");
  out[255] = 0;
}

/* ---- errors and statements ---------------------------------------------------------------------------------------- */

mn_status mn_runs_fail(mn_runs *db, int code, const char *doing) {
  char said[256]; /* what SQLite says, and what the system said to it: "disk I/O error: File too large" */
  int why = db->sql && ((code & 0xFF) == SQLITE_IOERR || (code & 0xFF) == SQLITE_CANTOPEN) ? sqlite3_system_errno(db->sql) : 0;
  snprintf(said, sizeof said, "%s%s%s", db->sql ? sqlite3_errmsg(db->sql) : sqlite3_errstr(code), why ? ": " : "",
           why ? strerror(why) : "");
  db->locked = (code & 0xFF) == SQLITE_BUSY || (code & 0xFF) == SQLITE_LOCKED;
  switch (code & 0xFF) {
  case SQLITE_BUSY:
  case SQLITE_LOCKED:
    return mn_fail(MN_ERR_IO, "%s: the run database is locked by another process (%s); wait for it or end it", db->path, doing);
  case SQLITE_CORRUPT:
  case SQLITE_NOTADB:
    return mn_fail(MN_ERR_FORMAT, "%s: damaged, or not a run database (%s: %s); move it away and a new one is made", db->path, doing, said);
  case SQLITE_READONLY:
  case SQLITE_PERM:
  case SQLITE_AUTH:
    return mn_fail(MN_ERR_IO,
                   "%s: the run database cannot be written (%s: %s); check its and its directory's "
                   "permissions, or set MNEME_HOME to a directory of yours",
                   db->path, doing, said);
  case SQLITE_CANTOPEN:
    return mn_fail(MN_ERR_IO,
                   "%s: the run database cannot be opened (%s); check that the directory exists and is "
                   "yours, or set MNEME_HOME",
                   db->path, said);
  case SQLITE_FULL:
    return mn_fail(MN_ERR_IO, "%s: the disk is full, or a limit on files is reached (%s); free some space", db->path, doing);
  case SQLITE_INTERRUPT:
    return mn_fail(MN_ERR_CANCELLED, "%s: interrupted (%s)", db->path, doing);
  case SQLITE_NOMEM:
    return mn_fail(MN_ERR_MEMORY, "%s: out of memory (%s)", db->path, doing);
  default:
    return mn_fail(MN_ERR_IO, "%s: run database: %s: %s", db->path, doing, said);
  }
}

static mn_status exec(mn_runs *db, const char *sql, const char *doing) {
  int code = sqlite3_exec(db->sql, sql, NULL, NULL, NULL);
  return code == SQLITE_OK ? MN_OK : mn_runs_fail(db, code, doing);
}

mn_status mn_runs_prepare(mn_runs *db, const char *sql, sqlite3_stmt **out) {
  int code = sqlite3_prepare_v2(db->sql, sql, -1, out, NULL);
  return code == SQLITE_OK ? MN_OK : mn_runs_fail(db, code, "preparing a statement");
}

/* Runs a statement that returns no rows, and makes it ready to be bound again. */
static mn_status step_done(mn_runs *db, sqlite3_stmt *s, const char *doing) {
  int code = sqlite3_step(s);
  mn_status status = code == SQLITE_DONE ? MN_OK : mn_runs_fail(db, code, doing);
  sqlite3_reset(s);
  return status;
}

/* The one number that a statement gives; ?1 is the run. */
static mn_status ask(mn_runs *db, const char *sql, int64_t id, int64_t *out) {
  sqlite3_stmt *s;
  MN_TRY(mn_runs_prepare(db, sql, &s));
  sqlite3_bind_int64(s, 1, id);
  int code = sqlite3_step(s);
  if (code == SQLITE_ROW) *out = sqlite3_column_int64(s, 0);
  mn_status status = code == SQLITE_ROW ? MN_OK : mn_runs_fail(db, code, "reading the header");
  sqlite3_finalize(s);
  return status;
}

static mn_status pragma_int(mn_runs *db, const char *sql, int64_t *out) { return ask(db, sql, 0, out); }

/* A statement without rows, about a run. */
static mn_status change(mn_runs *db, const char *sql, int64_t id, const char *doing) {
  sqlite3_stmt *s;
  MN_TRY(mn_runs_prepare(db, sql, &s));
  sqlite3_bind_int64(s, 1, id);
  mn_status status = step_done(db, s, doing);
  sqlite3_finalize(s);
  return status;
}

/* Ends the transaction; a failed one is rolled back, and keeps its message. */
static mn_status end_transaction(mn_runs *db, mn_status status) {
  if (status == MN_OK) status = exec(db, "COMMIT", "committing");
  if (status != MN_OK) sqlite3_exec(db->sql, "ROLLBACK", NULL, NULL, NULL);
  return status;
}

/* ---- checksums ---------------------------------------------------------------------------------------------------- */

static mn_status damaged(const mn_runs *db, const char *what) {
  return mn_fail(MN_ERR_FORMAT, "%s: damaged: %s not match their checksum; move it away and a new one is made", db->path, what);
}

/* Takes a run out of the sums before it changes; seal_run puts it back. Both inside the transaction of the change. */
static mn_status unseal_run(mn_runs *db, int64_t id) {
  if (!db->sealed) return MN_OK;
  int64_t bad = 0;
  MN_TRY(ask(db, "SELECT count(*) FROM runs WHERE id=?1 AND seal IS NOT " MN_SEAL_RUN, id, &bad));
  if (bad) return damaged(db, "the data of a run do");
  return change(db, "UPDATE seals SET total=mn_minus(total, coalesce((SELECT seal FROM runs WHERE id=?1), 0))", id, "changing a checksum");
}

static mn_status seal_run(mn_runs *db, int64_t id) {
  if (!db->sealed) return MN_OK;
  MN_TRY(change(db, "UPDATE runs SET seal=" MN_SEAL_RUN " WHERE id=?1", id, "changing a checksum"));
  return change(db, "UPDATE seals SET total=mn_plus(total, coalesce((SELECT seal FROM runs WHERE id=?1), 0))", id, "changing a checksum");
}

mn_status mn_runs_check(mn_runs *db) {
  if (!db->sealed) return MN_OK;
  int64_t bad = 0;
  MN_TRY(ask(db,
             "SELECT (SELECT count(*) FROM runs WHERE seal IS NOT " MN_SEAL_RUN ") + ((SELECT mn_total(seal) FROM runs) IS NOT (SELECT "
             "mn_total(total) FROM seals)) + ((SELECT count(*) FROM seals) IS NOT 1)",
             0, &bad));
  return bad ? damaged(db, "its runs do") : MN_OK;
}

mn_status mn_runs_check_metrics(mn_runs *db, int64_t id) {
  if (!db->sealed) return MN_OK;
  int64_t bad = 0;
  MN_TRY(ask(db, "SELECT count(*) FROM runs WHERE id=?1 AND total IS NOT (SELECT mn_total(" MN_SEAL_METRIC ") FROM metrics WHERE run=?1)",
             id, &bad));
  return bad ? damaged(db, "the records of a run do") : MN_OK;
}

/* ---- opening ------------------------------------------------------------------------------------------------------ */

char *mn_runs_default_path(void) {
  const char *home = getenv("MNEME_HOME");
  return home && *home ? mn_path_join(home, "runs.db") : mn_strdup("runs/mneme.db");
}

const char *mn_runs_path(const mn_runs *db) { return db->path; }
void mn_runs_patience(mn_runs *db, int milliseconds) { sqlite3_busy_timeout(db->sql, milliseconds); }
bool mn_runs_locked(const mn_runs *db) { return db->locked; }

/* SQLite does not wait for locks when the journal changes its kind: so this does. */
static mn_status use_write_ahead_log(mn_runs *db) {
  for (double began = mn_now();;) {
    mn_status status = exec(db, "PRAGMA journal_mode=WAL", "switching to write-ahead logging");
    if (status == MN_OK || !db->locked || mn_now() - began > 1e-3 * BUSY_MS) return status;
    sqlite3_sleep(5);
  }
}

static int asked_to_stop(void *ctx) {
  (void)ctx;
  return mn_stopped();
}

static mn_status open_schema(mn_runs *db, bool create) {
  int64_t version = 0, application = 0, tables = 0;
  /* In this order: another process may be making the tables, which it does in one transaction. */
  MN_TRY(pragma_int(db, "SELECT count(*) FROM sqlite_master", &tables));
  MN_TRY(pragma_int(db, "PRAGMA user_version", &version));
  MN_TRY(pragma_int(db, "PRAGMA application_id", &application));
  if (application != APPLICATION && (tables > 0 || version > 0))
    return mn_fail(MN_ERR_FORMAT, "%s: an SQLite database, but not a run database of Mneme; give another path", db->path);
  if (version > SCHEMA)
    return mn_fail(MN_ERR_UNSUPPORTED,
                   "%s: written by a newer Mneme (schema %lld, this one knows %d); use that one, or "
                   "another database",
                   db->path, (long long)version, SCHEMA);
  db->sealed = version == SCHEMA;
  if (db->sealed) return MN_OK;
  if (version && !create) { /* of an older program: read as it is */
    MN_TRY(pragma_int(db, "SELECT count(*) FROM sqlite_master WHERE name='seals'", &tables));
    return tables ? damaged(db, "its header does") : MN_OK;
  }
  if (!create) return mn_fail(MN_ERR_FORMAT, "%s: an empty file: no training has been recorded there yet", db->path);
  /* Two processes may arrive here at once: the second finds the schema made. */
  MN_TRY(use_write_ahead_log(db));
  MN_TRY(exec(db, "BEGIN IMMEDIATE", "creating the tables"));
  mn_status status = pragma_int(db, "PRAGMA user_version", &version);
  if (status == MN_OK && version < SCHEMA) {
    char pragmas[96];
    snprintf(pragmas, sizeof pragmas, "PRAGMA application_id=%d; PRAGMA user_version=%d;", APPLICATION, SCHEMA);
    if (version == 0) status = exec(db, schema_sql, "creating the tables");
    if (status == MN_OK) status = exec(db, MN_SEAL_SCHEMA, "adding checksums");
    if (status == MN_OK) status = exec(db, pragmas, "creating the tables");
  }
  db->sealed = true;
  return end_transaction(db, status);
}

/* SQLite writes in place: into a file that has one name, and beside it into files that are nobody else's. */
static mn_status check_one_file(const char *path, bool may_be_link) {
  struct stat st;
  if (lstat(path, &st) != 0) return MN_OK;
  if (S_ISLNK(st.st_mode) && !may_be_link)
    return mn_fail(MN_ERR_IO, "%s: a symbolic link, and links are not followed there; remove it, or name what it points at (--db)", path);
  if (S_ISLNK(st.st_mode) && stat(path, &st) != 0) return mn_fail(MN_ERR_IO, "%s: a link that points nowhere; remove it", path);
  if (S_ISDIR(st.st_mode)) return mn_fail(MN_ERR_IO, "%s: a directory, where a run database was expected", path);
  if (!S_ISREG(st.st_mode)) return mn_fail(MN_ERR_IO, "%s: not a regular file, where a run database was expected", path);
  if (st.st_nlink > 1)
    return mn_fail(MN_ERR_IO, "%s: the file has another name (a hard link), and would change under that name too; copy it and use the copy",
                   path);
  return MN_OK;
}

static mn_status check_files(const char *path, bool given) {
  static const char *const ends[] = {"", "-wal", "-shm", "-journal"};
  char *real = realpath(path, NULL); /* SQLite puts its files beside what a link points at */
  mn_status status = MN_OK;
  for (int i = 0; i < 4 && status == MN_OK; i++) {
    char *name = mn_format("%s%s", i && real ? real : path, ends[i]);
    status = name ? check_one_file(name, i == 0 && given) : MN_ERR_MEMORY;
    free(name);
  }
  free(real);
  return status;
}

/* ./runs is ours where the user has named no place; what a link of that name leads to is not. */
static mn_status check_default_place(const char *path) {
  const char *home = getenv("MNEME_HOME");
  if (home && *home) return MN_OK;
  char *dir = mn_path_dir(path);
  mn_status status =
      dir ? mn_context(mn_dir_need_real(dir), "the run database (set MNEME_HOME or --db to a place of yours)") : MN_ERR_MEMORY;
  free(dir);
  return status;
}

/* SQLite wants to write beside a database that it only reads, unless it is told that nobody changes it: as where the folder may not be written, and
 * no log holds what is not in the file yet. */
static bool stands_still(const char *path) {
  mn_file_info log = {0};
  char *dir = mn_path_dir(path), *wal = mn_format("%s-wal", path);
  const bool closed = dir && access(dir, W_OK) != 0 && (errno == EACCES || errno == EROFS);
  const bool still = closed && wal && mn_file_stat(wal, &log) == MN_OK && !(log.exists && log.size);
  free(dir);
  free(wal);
  return still;
}

mn_status mn_runs_try(const char *path) {
  mn_status status = MN_OK;
  char *file = path ? mn_strdup(path) : mn_runs_default_path(), *dir = file ? mn_path_dir(file) : NULL;
  if (!dir) status = MN_ERR_MEMORY;
  if (status == MN_OK && !path) status = check_default_place(file);
  if (status == MN_OK) status = check_files(file, path != NULL);
  mn_file_info info = {0};
  if (status == MN_OK) status = mn_file_stat(file, &info);
  if (status == MN_OK && info.exists && info.size == 0) { /* whoever began it was killed before its tables stood: they are made now */
    if (access(file, W_OK) != 0) status = mn_fail(MN_ERR_IO, "%s: the run database is read-only", file);
  } else if (status == MN_OK && info.exists) {
    mn_runs *db;
    status = mn_runs_open(path, false, &db);
    if (status == MN_OK)
      status = access(db->path, W_OK) == 0 && !stands_still(db->path) ? MN_OK
                                                                      : mn_fail(MN_ERR_IO, "%s: the run database is read-only", db->path);
    if (status == MN_OK || db) mn_runs_close(db);
  } else if (status == MN_OK) {
    status = mn_output_try_dir(dir);
  }
  free(file);
  free(dir);
  return status;
}

/* As SQLite takes it for a file, whatever it begins with: ":memory:" and "file:x" are files here. */
static char *plain_name(const char *path) { return mn_format("%s%s", *path == '/' ? "" : "./", path); }

/* A URI. Before a path from the root stands an empty authority, or in "//home/x" home would be one. */
static char *still_name(const char *path) {
  mn_text t = {0};
  mn_text_add(&t, *path == '/' ? "file://" : "file:./");
  for (const unsigned char *c = (const unsigned char *)path; *c; c++) {
    if (strchr("?#%", *c)) mn_text_addf(&t, "%%%02X", *c);
    else mn_text_add_bytes(&t, (const char *)c, 1);
  }
  mn_text_add(&t, "?immutable=1");
  if (mn_text_status(&t) == MN_OK) return t.data;
  mn_text_free(&t);
  return NULL;
}

static mn_status open_file(mn_runs *db, bool create) {
  mn_file_info info;
  if (!db->given) MN_TRY(check_default_place(db->path));
  MN_TRY(check_files(db->path, db->given));
  MN_TRY(mn_file_stat(db->path, &info));
  if (!info.exists) {
    if (!create) return mn_fail(MN_ERR_IO, "%s: there is no run database here yet; `mneme train` makes one", db->path);
    char *dir = mn_path_dir(db->path);
    mn_status made = dir ? mn_make_dirs(dir) : MN_ERR_MEMORY;
    free(dir);
    MN_TRY(mn_context(made, "run database"));
  }
  const bool still = !create && stands_still(db->path);
  char *name = still ? still_name(db->path) : plain_name(db->path);
  if (!name) return MN_ERR_MEMORY;
  int flags = still ? SQLITE_OPEN_READONLY | SQLITE_OPEN_URI : SQLITE_OPEN_READWRITE | (create ? SQLITE_OPEN_CREATE : 0);
  int code = sqlite3_open_v2(name, &db->sql, flags | SQLITE_OPEN_NOMUTEX, NULL);
  free(name);
  if (code != SQLITE_OK) return mn_runs_fail(db, code, "opening");
  sqlite3_extended_result_codes(db->sql, 1);
  if ((code = mn_seal_functions(db->sql)) != SQLITE_OK) return mn_runs_fail(db, code, "opening");
  sqlite3_busy_timeout(db->sql, BUSY_MS);
  MN_TRY(open_schema(db, create));
  if (!create) sqlite3_progress_handler(db->sql, 100000, asked_to_stop, NULL); /* a training writes its end even so */
  MN_TRY(exec(db, "PRAGMA foreign_keys=ON", "opening"));
  return exec(db, "PRAGMA synchronous=NORMAL", "opening"); /* whole after a kill; the last second may go with the power */
}

mn_status mn_runs_open(const char *path, bool create, mn_runs **out) {
  *out = NULL;
  mn_runs *db = mn_calloc(1, sizeof *db);
  if (!db) return MN_ERR_MEMORY;
  db->given = path != NULL;
  db->path = path ? mn_strdup(path) : mn_runs_default_path();
  mn_status status = db->path ? open_file(db, create) : MN_ERR_MEMORY;
  if (status != MN_OK) {
    mn_runs_close(db);
    return status;
  }
  *out = db;
  return MN_OK;
}

void mn_runs_close(mn_runs *db) {
  if (!db) return;
  sqlite3_finalize(db->insert);
  sqlite3_finalize(db->touch);
  sqlite3_finalize(db->hash);
  sqlite3_close(db->sql);
  free(db->path);
  free(db);
}

/* ---- writing ------------------------------------------------------------------------------------------------------ */

void mn_runs_bind(sqlite3_stmt *s, int i, const char *text) { sqlite3_bind_text(s, i, text ? text : "", -1, SQLITE_TRANSIENT); }

mn_status mn_run_begin(mn_runs *db, const mn_run *run, int64_t *id) {
  sqlite3_stmt *s;
  MN_TRY(mn_runs_prepare(db,
                         "INSERT INTO runs (name, created, updated, recipe, fingerprint, parameters, status, message, isa, "
                         "threads, out_dir, host, pid, steps, tokens) VALUES (?1,?2,?2,?3,?4,?5,'running','',?6,?7,?8,?9,?10,"
                         "0,0)",
                         &s));
  char host[256];
  mn_runs_host(host);
  mn_runs_bind(s, 1, run->name);
  sqlite3_bind_double(s, 2, mn_time_1970());
  mn_runs_bind(s, 3, run->recipe);
  mn_runs_bind(s, 4, run->fingerprint);
  sqlite3_bind_int64(s, 5, run->parameters);
  mn_runs_bind(s, 6, run->isa);
  sqlite3_bind_int(s, 7, run->threads);
  mn_runs_bind(s, 8, run->out_dir);
  mn_runs_bind(s, 9, host);
  sqlite3_bind_int64(s, 10, getpid());
  mn_status status = exec(db, "BEGIN IMMEDIATE", "adding a run");
  if (status != MN_OK) {
    sqlite3_finalize(s);
    return status;
  }
  status = step_done(db, s, "adding a run");
  sqlite3_finalize(s);
  if (status == MN_OK) *id = sqlite3_last_insert_rowid(db->sql);
  if (status == MN_OK) status = seal_run(db, *id);
  return end_transaction(db, status);
}

mn_status mn_run_resume(mn_runs *db, int64_t id, int64_t step) {
  char sql[300], host[256];
  mn_runs_host(host);
  MN_TRY(exec(db, "BEGIN IMMEDIATE", "resuming a run"));
  mn_status status = unseal_run(db, id);
  if (status == MN_OK && db->sealed) {
    snprintf(sql, sizeof sql,
             "UPDATE runs SET total=mn_minus(total, (SELECT mn_total(" MN_SEAL_METRIC ") FROM metrics WHERE run=?1 AND step>%lld)) WHERE "
             "id=?1",
             (long long)step);
    status = change(db, sql, id, "resuming a run");
  }
  snprintf(sql, sizeof sql, "DELETE FROM metrics WHERE run=%lld AND step>%lld", (long long)id, (long long)step);
  if (status == MN_OK) status = exec(db, sql, "removing later records");
  sqlite3_stmt *s = NULL;
  if (status == MN_OK)
    status = mn_runs_prepare(db,
                             "UPDATE runs SET status='running', message='', host=?2, pid=?3, updated=?4, "
                             "steps=min(steps,?5), tokens=coalesce((SELECT max(tokens) FROM metrics WHERE run=?1),0) WHERE "
                             "id=?1",
                             &s);
  if (status == MN_OK) {
    sqlite3_bind_int64(s, 1, id);
    mn_runs_bind(s, 2, host);
    sqlite3_bind_int64(s, 3, getpid());
    sqlite3_bind_double(s, 4, mn_time_1970());
    sqlite3_bind_int64(s, 5, step);
    status = step_done(db, s, "resuming a run");
    if (status == MN_OK && sqlite3_changes(db->sql) == 0) status = mn_fail(MN_ERR_ARG, "%s: there is no run %lld", db->path, (long long)id);
  }
  sqlite3_finalize(s);
  if (status == MN_OK) status = seal_run(db, id);
  return end_transaction(db, status);
}

/* The hash of the row of a metric, 0 when there is none. */
static mn_status row_hash(mn_runs *db, int64_t id, const mn_metric *m, uint64_t *out) {
  if (!db->hash) MN_TRY(mn_runs_prepare(db, "SELECT " MN_SEAL_METRIC " FROM metrics WHERE run=? AND name=? AND step=?", &db->hash));
  sqlite3_bind_int64(db->hash, 1, id);
  sqlite3_bind_text(db->hash, 2, m->name, -1, SQLITE_STATIC);
  sqlite3_bind_int64(db->hash, 3, m->step);
  int code = sqlite3_step(db->hash);
  *out = code == SQLITE_ROW ? (uint64_t)sqlite3_column_int64(db->hash, 0) : 0;
  mn_status status = code == SQLITE_ROW || code == SQLITE_DONE ? MN_OK : mn_runs_fail(db, code, "recording metrics");
  sqlite3_reset(db->hash);
  return status;
}

mn_status mn_run_metrics(mn_runs *db, int64_t id, const mn_metric *metrics, size_t n) {
  if (n == 0) return MN_OK;
  if (!db->insert)
    MN_TRY(mn_runs_prepare(db, "INSERT OR REPLACE INTO metrics (run, name, step, tokens, value, time) VALUES (?,?,?,?,?,?)", &db->insert));
  if (!db->touch)
    MN_TRY(mn_runs_prepare(
        db, "UPDATE runs SET updated=?2, steps=max(steps,?3), tokens=max(tokens,?4), total=mn_plus(total,?5) WHERE id=?1", &db->touch));
  MN_TRY(exec(db, "BEGIN IMMEDIATE", "recording metrics"));
  mn_status status = unseal_run(db, id);
  int64_t steps = 0, tokens = 0;
  uint64_t more = 0, before, after; /* of the run's sum */
  double updated = 0;
  for (size_t i = 0; i < n && status == MN_OK; i++) {
    const mn_metric *m = &metrics[i];
    if ((status = row_hash(db, id, m, &before)) != MN_OK) break;
    sqlite3_bind_int64(db->insert, 1, id);
    sqlite3_bind_text(db->insert, 2, m->name, -1, SQLITE_STATIC);
    sqlite3_bind_int64(db->insert, 3, m->step);
    sqlite3_bind_int64(db->insert, 4, m->tokens);
    if (isfinite(m->value)) sqlite3_bind_double(db->insert, 5, m->value);
    else sqlite3_bind_null(db->insert, 5);
    sqlite3_bind_double(db->insert, 6, m->time);
    status = step_done(db, db->insert, "recording metrics");
    if (status == MN_OK) status = row_hash(db, id, m, &after);
    if (status == MN_OK) more += after - before;
    if (m->step > steps) steps = m->step;
    if (m->tokens > tokens) tokens = m->tokens;
    if (m->time > updated) updated = m->time;
  }
  if (status == MN_OK) {
    sqlite3_bind_int64(db->touch, 1, id);
    sqlite3_bind_double(db->touch, 2, updated);
    sqlite3_bind_int64(db->touch, 3, steps);
    sqlite3_bind_int64(db->touch, 4, tokens);
    sqlite3_bind_int64(db->touch, 5, (int64_t)more);
    status = step_done(db, db->touch, "recording metrics");
  }
  if (status == MN_OK) status = seal_run(db, id);
  return end_transaction(db, status);
}

mn_status mn_run_metric(mn_runs *db, int64_t id, int64_t step, int64_t tokens, const char *name, double value) {
  mn_metric m = {.step = step, .tokens = tokens, .name = name, .value = value, .time = mn_time_1970()};
  return mn_run_metrics(db, id, &m, 1);
}

mn_status mn_run_finish(mn_runs *db, int64_t id, const char *run_status, const char *message) {
  sqlite3_stmt *s;
  MN_TRY(mn_runs_prepare(db, "UPDATE runs SET status=?2, message=?3, updated=?4 WHERE id=?1", &s));
  sqlite3_bind_int64(s, 1, id);
  mn_runs_bind(s, 2, run_status);
  mn_runs_bind(s, 3, message);
  sqlite3_bind_double(s, 4, mn_time_1970());
  mn_status status = exec(db, "BEGIN IMMEDIATE", "closing a run");
  if (status != MN_OK) {
    sqlite3_finalize(s);
    return status;
  }
  status = unseal_run(db, id);
  if (status == MN_OK) status = step_done(db, s, "closing a run");
  sqlite3_finalize(s);
  if (status == MN_OK) status = seal_run(db, id);
  return end_transaction(db, status);
}

mn_status mn_run_delete(mn_runs *db, int64_t id) {
  char sql[96];
  snprintf(sql, sizeof sql, "DELETE FROM runs WHERE id=%lld", (long long)id); /* its metrics go with it */
  MN_TRY(exec(db, "BEGIN IMMEDIATE", "removing a run"));
  mn_status status = unseal_run(db, id);
  if (status == MN_OK) status = exec(db, sql, "removing a run");
  return end_transaction(db, status);
}
