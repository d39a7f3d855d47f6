/* runs_read.c - reading the run database: lists, runs by name, number or directory, summaries and series of metrics. What is
 * read is held against its checksums first. */
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/nearest.h"
#include "train/runs_internal.h"

#define RUN_COLUMNS                                                                                                                        \
  "id, name, created, updated, recipe, fingerprint, parameters, status, message, isa, threads, out_dir, host, pid, "                       \
  "steps, tokens"

/* A run that says "running" on this machine but whose process is gone was killed. */
static const char *seen_status(const mn_run *run) {
  char host[256];
  mn_runs_host(host);
  bool gone =
      !strcmp(run->status, "running") && !strcmp(run->host, host) && run->pid > 0 && kill((pid_t)run->pid, 0) != 0 && errno == ESRCH;
  return gone ? "killed" : run->status;
}

static mn_status read_run(sqlite3_stmt *s, mn_arena *arena, mn_run *run) {
  const char *text[8];
  static const int column[8] = {1, 4, 5, 7, 8, 9, 11, 12};
  for (int i = 0; i < 8; i++) {
    const char *t = (const char *)sqlite3_column_text(s, column[i]);
    text[i] = mn_arena_strdup(arena, t ? t : "");
    if (!text[i]) return MN_ERR_MEMORY;
  }
  *run = (mn_run){.id = sqlite3_column_int64(s, 0),
                  .name = text[0],
                  .created = sqlite3_column_double(s, 2),
                  .updated = sqlite3_column_double(s, 3),
                  .recipe = text[1],
                  .fingerprint = text[2],
                  .parameters = sqlite3_column_int64(s, 6),
                  .status = text[3],
                  .message = text[4],
                  .isa = text[5],
                  .threads = sqlite3_column_int(s, 10),
                  .out_dir = text[6],
                  .host = text[7],
                  .pid = sqlite3_column_int64(s, 13),
                  .steps = sqlite3_column_int64(s, 14),
                  .tokens = sqlite3_column_int64(s, 15)};
  run->status = seen_status(run);
  return MN_OK;
}

/* Grows an array in an arena by doubling; the old copy stays until the arena goes. */
static void *grown(mn_arena *arena, void *old, size_t n, size_t *room, size_t size) {
  if (n < *room) return old;
  size_t more = *room ? *room * 2 : 64;
  void *p = mn_arena_alloc(arena, more * size);
  if (p && n) memcpy(p, old, n * size);
  *room = more;
  return p;
}

mn_status mn_runs_list(mn_runs *db, mn_arena *arena, int64_t limit, mn_run **runs, size_t *n) {
  sqlite3_stmt *s;
  MN_TRY(mn_runs_check(db));
  MN_TRY(mn_runs_prepare(db, "SELECT " RUN_COLUMNS " FROM runs ORDER BY id DESC LIMIT ?", &s));
  sqlite3_bind_int64(s, 1, limit > 0 ? limit : -1);
  size_t room = 0;
  mn_status status = MN_OK;
  int code;
  *runs = NULL;
  *n = 0;
  while (status == MN_OK && (code = sqlite3_step(s)) != SQLITE_DONE) {
    if (code != SQLITE_ROW) status = mn_runs_fail(db, code, "listing the runs");
    else if (!(*runs = grown(arena, *runs, *n, &room, sizeof **runs))) status = MN_ERR_MEMORY;
    else status = read_run(s, arena, &(*runs)[(*n)++]);
  }
  sqlite3_finalize(s);
  return status;
}

static mn_status find_where(mn_runs *db, mn_arena *arena, const char *where, const char *text, mn_run *run, bool *found) {
  char sql[256];
  MN_TRY(mn_runs_check(db));
  snprintf(sql, sizeof sql, "SELECT " RUN_COLUMNS " FROM runs WHERE %s=? ORDER BY id DESC LIMIT 1", where);
  sqlite3_stmt *s;
  MN_TRY(mn_runs_prepare(db, sql, &s));
  mn_runs_bind(s, 1, text);
  int code = sqlite3_step(s);
  *found = code == SQLITE_ROW;
  mn_status status = *found ? read_run(s, arena, run) : code == SQLITE_DONE ? MN_OK : mn_runs_fail(db, code, "looking for a run");
  sqlite3_finalize(s);
  return status;
}

mn_status mn_runs_find_dir(mn_runs *db, const char *out_dir, int64_t *id, bool *found) {
  mn_arena *arena = mn_arena_new();
  if (!arena) return MN_ERR_MEMORY;
  char full[PATH_MAX];
  mn_run run = {0};
  mn_status status = find_where(db, arena, "+out_dir", realpath(out_dir, full) ? full : out_dir, &run, found);
  *id = run.id;
  mn_arena_free(arena);
  return status;
}

mn_status mn_runs_find(mn_runs *db, mn_arena *arena, const char *which, mn_run *run) {
  bool found = false, number = *which && !which[strspn(which, "0123456789")];
  if (number) MN_TRY(find_where(db, arena, "id", which, run, &found));
  if (!found) MN_TRY(find_where(db, arena, "name", which, run, &found));
  char full[PATH_MAX];
  if (!found && realpath(which, full)) MN_TRY(find_where(db, arena, "+out_dir", full, run, &found));
  if (found) return MN_OK;

  mn_run *runs;
  size_t n;
  const char *names[256];
  MN_TRY(mn_runs_list(db, arena, 256, &runs, &n));
  if (n == 0) return mn_fail(MN_ERR_CONFIG, "%s: there are no runs yet", db->path);
  for (size_t i = 0; i < n; i++) names[i] = runs[i].name;
  const char *near = mn_nearest(which, names, (int)n);
  return mn_fail(MN_ERR_CONFIG, "%s: there is no run '%s'%s%s%s; `mneme runs list` shows them", db->path, which,
                 near ? "; did you mean " : "", near ? near : "", near ? "?" : "");
}

static double column_value(sqlite3_stmt *s, int i) {
  return sqlite3_column_type(s, i) == SQLITE_NULL ? (double)NAN : sqlite3_column_double(s, i);
}

mn_status mn_run_summary(mn_runs *db, mn_arena *arena, int64_t id, mn_metric_summary **list, size_t *n) {
  sqlite3_stmt *s;
  MN_TRY(mn_runs_check_metrics(db, id));
  MN_TRY(mn_runs_prepare(db,
                         "SELECT m.name, m.count, m.first, m.last, l.value, m.low, m.high FROM (SELECT name, count(*) AS "
                         "count, min(step) AS first, max(step) AS last, min(value) AS low, max(value) AS high FROM metrics "
                         "WHERE run=?1 GROUP BY name) AS m JOIN metrics AS l ON l.run=?1 AND l.name=m.name AND "
                         "l.step=m.last ORDER BY m.name",
                         &s));
  sqlite3_bind_int64(s, 1, id);
  size_t room = 0;
  mn_status status = MN_OK;
  int code;
  *list = NULL;
  *n = 0;
  while (status == MN_OK && (code = sqlite3_step(s)) != SQLITE_DONE) {
    if (code != SQLITE_ROW) {
      status = mn_runs_fail(db, code, "summing up a run");
      break;
    }
    *list = grown(arena, *list, *n, &room, sizeof **list);
    char *name = *list ? mn_arena_strdup(arena, (const char *)sqlite3_column_text(s, 0)) : NULL;
    if (!name) {
      status = MN_ERR_MEMORY;
      break;
    }
    (*list)[(*n)++] = (mn_metric_summary){name,
                                          sqlite3_column_int64(s, 1),
                                          sqlite3_column_int64(s, 2),
                                          sqlite3_column_int64(s, 3),
                                          column_value(s, 4),
                                          column_value(s, 5),
                                          column_value(s, 6)};
  }
  sqlite3_finalize(s);
  return status;
}

mn_status mn_run_series(mn_runs *db, mn_arena *arena, int64_t id, const char *name, mn_metric_series *out) {
  *out = (mn_metric_series){0};
  sqlite3_stmt *s;
  MN_TRY(mn_runs_check_metrics(db, id));
  MN_TRY(mn_runs_prepare(db,
                         "SELECT step, tokens, value, time - (SELECT created FROM runs WHERE id=?1) FROM metrics WHERE run=?1 "
                         "AND name=?2 ORDER BY step",
                         &s));
  sqlite3_bind_int64(s, 1, id);
  mn_runs_bind(s, 2, name);
  size_t room = 0;
  double(*rows)[4] = NULL;
  mn_status status = MN_OK;
  int code;
  while (status == MN_OK && (code = sqlite3_step(s)) != SQLITE_DONE) {
    if (code != SQLITE_ROW) status = mn_runs_fail(db, code, "reading a series");
    else if (!(rows = grown(arena, rows, out->n, &room, sizeof *rows))) status = MN_ERR_MEMORY;
    else {
      for (int i = 0; i < 4; i++) rows[out->n][i] = column_value(s, i);
      out->n++;
    }
  }
  sqlite3_finalize(s);
  MN_TRY(status);
  double *arrays = mn_arena_alloc(arena, (out->n + 1) * 4 * sizeof *arrays);
  if (!arrays) return MN_ERR_MEMORY;
  double **field[4] = {&out->step, &out->tokens, &out->value, &out->time};
  for (int j = 0; j < 4; j++) {
    *field[j] = arrays + (size_t)j * out->n;
    for (size_t i = 0; i < out->n; i++) (*field[j])[i] = rows[i][j];
  }
  return MN_OK;
}
