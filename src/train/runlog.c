/* runlog.c - the log of one training: a line of JSON per record in out_dir/metrics.jsonl, at once, and the same records
 * in the run database, in one transaction a second. Nothing that goes wrong here stops the training. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/dir.h"
#include "base/file.h"
#include "train/runlog_line.h"
#include "train/runs.h"

enum {
  PENDING_MAX = 65536, /* records kept for a database that is locked                     */
  PATIENCE_MS = 200,   /* how long a step may wait for the lock; the records wait longer */
  LAST_PATIENCE_MS = 5000,
  FAULTS_NAMED = 8 /* lines of a log; of more only the number is said */
};
static const double flush_every = 1.0;

struct mn_runlog {
  mn_runs *db; /* NULL: none, or given up */
  int64_t id;
  int fd;             /* of metrics.jsonl; -1: given up */
  int64_t resumed_at; /* step that the run went on from; -1: it began here */
  int64_t lines;      /* the number of the log's last line               */
  char *path, *identity;
  bool warned_db, warned_log, torn; /* torn: the disk filled up in the middle of a line */
  mn_arena *names;                  /* of the pending records */
  mn_metric *pending;
  size_t n_pending, room;
  double flushed;
};

static void warn_db(mn_runlog *log, const char *then) {
  if (!log->warned_db) mn_log_write(MN_LOG_WARN, "%s; training goes on, %s", mn_message(), then);
  log->warned_db = true;
}

/* ---- the log file ------------------------------------------------------------------------------------------------- */

/* Where a resumed run writes on: after the last record that is not beyond `step`. What follows it (records of steps that
 * will come again, a line that a kill cut short) goes; a damaged line before it stays. */
static size_t keep_until(const mn_map *map, const char *identity, int64_t step) {
  mn_loglines l = {.text = (const char *)map->data, .size = map->size, .identity = identity};
  size_t keep = 0;
  for (size_t began = 0; mn_loglines_next(&l); began = l.at) {
    bool sound = l.kind == MN_LOGLINE_SOUND;
    if (sound ? l.step <= step : keep == began)
      keep = l.at; /* after lines of later steps, only a record shows that they are the damaged ones */
  }
  return keep;
}

/* Names what is wrong with the lines that stay; returns the number of the last sound one. */
static int64_t name_faults(const mn_map *map, size_t keep, const char *identity, int64_t step, const char *path) {
  mn_loglines l = {.text = (const char *)map->data, .size = keep, .identity = identity};
  long long named = 0;
  while (mn_loglines_next(&l)) {
    bool sound = l.kind == MN_LOGLINE_SOUND, later = sound && l.step > step;
    const char *what = l.kind == MN_LOGLINE_DAMAGED ? "damaged, or of another run" : "not in its place, or there a second time";
    if (l.missing && named++ < FAULTS_NAMED)
      mn_log_write(MN_LOG_WARN, "%s:%lld: before this line %lld %s missing; what is there is used", path, (long long)l.line,
                   (long long)l.missing, l.missing == 1 ? "is" : "are");
    if ((!sound || later) && named++ < FAULTS_NAMED)
      mn_log_write(MN_LOG_WARN, "%s:%lld: the line is %s; it stays, and is left out of the run database", path, (long long)l.line, what);
  }
  if (named > FAULTS_NAMED) mn_log_write(MN_LOG_WARN, "%s: %lld more such lines", path, named - FAULTS_NAMED);
  return l.last;
}

static mn_status write_all(int fd, const char *data, size_t n, const char *path) {
  while (n) {
    ssize_t w = write(fd, data, n);
    if (w < 0 && errno == EINTR) continue;
    if (w < 0) return mn_fail(MN_ERR_IO, "%s: the metrics log cannot be written: %s", path, strerror(errno));
    data += w;
    n -= (size_t)w;
  }
  return MN_OK;
}

/* The log is written in place, so it must be nobody else's file: a link is unlinked, a file with other names is replaced by a
 * copy of its own, and what an earlier run of the directory left goes as a name, not by cutting the file. */
static mn_status make_it_ours(const char *path, bool goes_on) {
  mn_path_kind kind;
  struct stat st;
  MN_TRY(mn_path_look(path, &kind));
  if (kind == MN_PATH_LINK || (kind == MN_PATH_FILE && !goes_on)) return mn_file_remove(path);
  if (kind == MN_PATH_FILE && lstat(path, &st) == 0 && st.st_nlink > 1) return mn_file_copy(path, path);
  if (kind == MN_PATH_NONE || kind == MN_PATH_FILE) return MN_OK;
  return mn_fail(MN_ERR_IO, "%s: the metrics log cannot be opened: there is %s; move it away", path, mn_path_kind_name(kind));
}

static mn_status open_log(mn_runlog *log, int64_t resume_step) {
  MN_TRY(make_it_ours(log->path, resume_step >= 0));
  log->fd = open(log->path, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0666);
  if (log->fd < 0) return mn_fail(MN_ERR_IO, "%s: the metrics log cannot be opened: %s", log->path, strerror(errno));
  log->lines = 0;
  if (resume_step < 0) return MN_OK;
  mn_map map;
  MN_TRY(mn_map_open(log->path, &map));
  size_t keep = keep_until(&map, log->identity, resume_step);
  log->lines = name_faults(&map, keep, log->identity, resume_step, log->path);
  mn_status status = mn_map_check(&map);
  mn_map_close(&map);
  MN_TRY(status);
  if (ftruncate(log->fd, (off_t)keep) != 0)
    return mn_fail(MN_ERR_IO, "%s: records after step %lld cannot be removed: %s", log->path, (long long)resume_step, strerror(errno));
  return MN_OK;
}

/* ---- the database ------------------------------------------------------------------------------------------------- */

static mn_status add_pending(mn_runlog *log, const mn_metric *m) {
  if (log->n_pending == log->room) {
    size_t room = log->room ? log->room * 2 : 256;
    mn_metric *p = mn_realloc(log->pending, room * sizeof *p);
    if (!p) return MN_ERR_MEMORY;
    log->pending = p;
    log->room = room;
  }
  mn_metric copy = *m;
  if (!log->names) log->names = mn_arena_new();
  copy.name = log->names ? mn_arena_strdup(log->names, m->name) : NULL;
  if (!copy.name) return MN_ERR_MEMORY;
  log->pending[log->n_pending++] = copy;
  return MN_OK;
}

static void drop_db(mn_runlog *log) {
  mn_runs_close(log->db);
  log->db = NULL;
}

/* A locked database is tried again a second later, until too much waits for it; any other failure ends its use. */
static void flush_db(mn_runlog *log) {
  log->flushed = mn_now();
  if (!log->db || log->n_pending == 0) return;
  mn_status status = mn_run_metrics(log->db, log->id, log->pending, log->n_pending);
  bool locked = status != MN_OK && mn_runs_locked(log->db);
  if (status != MN_OK) warn_db(log, locked ? "and the records wait" : "and metrics go to metrics.jsonl only");
  if (locked && log->n_pending < PENDING_MAX) return;
  if (status != MN_OK) drop_db(log);
  log->n_pending = 0;
  mn_arena_free(log->names);
  log->names = NULL;
}

/* A record's values: all members but those that every line has. */
static mn_status add_record(mn_runlog *log, json_t *record, int64_t step) {
  static const char *const shared[] = {"step", "tokens", "time", "line", "checksum"};
  mn_metric m = {.step = step,
                 .tokens = json_integer_value(json_object_get(record, "tokens")),
                 .time = json_number_value(json_object_get(record, "time"))};
  json_t *value;
  json_object_foreach(record, m.name, value) {
    bool skip = false;
    for (int i = 0; i < 5; i++) skip = skip || !strcmp(m.name, shared[i]);
    m.value = json_is_number(value) ? json_number_value(value) : (double)NAN;
    if (!skip) MN_TRY(add_pending(log, &m));
  }
  return MN_OK;
}

/* Everything that the log file holds goes (again) into the database: what it missed is there afterwards. */
static mn_status import_log(mn_runlog *log) {
  mn_map map;
  MN_TRY(mn_map_open(log->path, &map));
  mn_loglines l = {.text = (const char *)map.data, .size = map.size, .identity = log->identity};
  mn_status status = MN_OK;
  while (status == MN_OK && mn_loglines_next(&l))
    if (l.kind == MN_LOGLINE_SOUND && l.step <= log->resumed_at) status = add_record(log, l.record, l.step);
  mn_loglines_end(&l);
  if (status == MN_OK) status = mn_map_check(&map);
  mn_map_close(&map);
  MN_TRY(status);
  if (log->n_pending) status = mn_run_metrics(log->db, log->id, log->pending, log->n_pending);
  log->n_pending = 0;
  mn_arena_free(log->names);
  log->names = NULL;
  return status;
}

static mn_status open_db(mn_runlog *log, const char *db_path, const mn_run *run, int64_t resume_step) {
  MN_TRY(mn_runs_open(db_path, true, &log->db));
  bool found = false;
  if (resume_step >= 0) MN_TRY(mn_runs_find_dir(log->db, run->out_dir, &log->id, &found));
  mn_runs_patience(log->db, LAST_PATIENCE_MS);
  if (found) MN_TRY(mn_run_resume(log->db, log->id, resume_step));
  else MN_TRY(mn_run_begin(log->db, run, &log->id));
  if (resume_step >= 0 && log->fd >= 0) MN_TRY(import_log(log));
  mn_runs_patience(log->db, PATIENCE_MS);
  return MN_OK;
}

/* ---- the log ------------------------------------------------------------------------------------------------------ */

mn_status mn_runlog_open(const char *db_path, const mn_run *run, int64_t resume_step, mn_runlog **out) {
  *out = NULL;
  char full[PATH_MAX];
  MN_TRY(mn_make_dirs(run->out_dir));
  if (!realpath(run->out_dir, full)) return mn_fail(MN_ERR_IO, "%s: %s", run->out_dir, strerror(errno));
  mn_runlog *log = mn_calloc(1, sizeof *log);
  if (!log) return MN_ERR_MEMORY;
  log->fd = -1;
  log->resumed_at = resume_step;
  log->path = mn_path_join(full, "metrics.jsonl");
  log->identity = mn_strdup(run->identity ? run->identity : "");
  if (!log->path || !log->identity) {
    free(log->path);
    free(log->identity);
    free(log);
    return MN_ERR_MEMORY;
  }
  if (open_log(log, resume_step) != MN_OK) {
    mn_log_write(MN_LOG_WARN, "%s; training goes on without it", mn_message());
    log->warned_log = true;
    if (log->fd >= 0) close(log->fd);
    log->fd = -1;
  }
  mn_run entry = *run;
  entry.out_dir = full;
  if (!(db_path && !*db_path) && open_db(log, db_path, &entry, resume_step) != MN_OK) {
    warn_db(log, "and metrics go to metrics.jsonl only");
    drop_db(log);
    log->id = 0;
  }
  log->flushed = mn_now();
  *out = log;
  return MN_OK;
}

mn_status mn_runlog_reopen(mn_runlog *log) {
  if (log->fd >= 0) close(log->fd);
  log->fd = -1;
  return open_log(log, -1);
}

int64_t mn_runlog_id(const mn_runlog *log) { return log->id; }

/* Does the log hold this value of this step already? A run that goes on from its last step measures again what it may have
 * written before. */
static bool holds(const mn_runlog *log, int64_t step, const char *name) {
  mn_map map;
  bool found = false;
  if (mn_map_open(log->path, &map) != MN_OK) return false;
  mn_loglines l = {.text = (const char *)map.data, .size = map.size, .identity = log->identity};
  while (!found && mn_loglines_next(&l)) found = l.kind == MN_LOGLINE_SOUND && l.step == step && json_object_get(l.record, name);
  mn_loglines_end(&l);
  found = found && mn_map_check(&map) == MN_OK;
  mn_map_close(&map);
  return found;
}

static void append_line(mn_runlog *log, int64_t step, int64_t tokens, double time, const mn_runlog_value *values, size_t n) {
  json_t *record = json_object();
  json_object_set_new(record, "step", json_integer(step));
  json_object_set_new(record, "tokens", json_integer(tokens));
  json_object_set_new(record, "time", json_real(time));
  for (size_t i = 0; i < n; i++)
    json_object_set_new(record, values[i].name, isfinite(values[i].value) ? json_real(values[i].value) : json_null());
  char *text = mn_logline_write(record, log->identity, log->lines + 1);
  mn_status status = MN_ERR_MEMORY;
  if (text) {
    size_t length = strlen(text); /* newline in the terminator's place: one write, so that a kill cuts at most one line */
    text[length] = '\n';
    status = log->torn ? write_all(log->fd, "\n", 1, log->path) : MN_OK;
    if (status == MN_OK) status = write_all(log->fd, text, length + 1, log->path);
    log->torn = status != MN_OK;
    log->lines += status == MN_OK;
  }
  free(text);
  if (status == MN_OK) return;
  if (!log->warned_log) mn_log_write(MN_LOG_WARN, "%s; training goes on", mn_message());
  log->warned_log = true;
}

void mn_runlog_record(mn_runlog *log, int64_t step, int64_t tokens, const mn_runlog_value *values, size_t n) {
  double time = mn_time_1970();
  bool again = log->fd >= 0 && step == log->resumed_at && n && holds(log, step, values[0].name);
  if (log->fd >= 0 && !again) append_line(log, step, tokens, time, values, n);
  if (!log->db) return;
  for (size_t i = 0; i < n; i++) {
    mn_metric m = {step, tokens, values[i].name, values[i].value, time};
    if (add_pending(log, &m) != MN_OK) break; /* the log file has it */
  }
  if (mn_now() - log->flushed >= flush_every) flush_db(log);
}

void mn_runlog_close(mn_runlog *log, const char *run_status, const char *message) {
  if (!log) return;
  if (log->db) mn_runs_patience(log->db, LAST_PATIENCE_MS);
  flush_db(log);
  if (log->db && mn_run_finish(log->db, log->id, run_status, message) != MN_OK) warn_db(log, "but the run stays marked as running");
  mn_runs_close(log->db);
  if (log->fd >= 0) close(log->fd);
  mn_arena_free(log->names);
  free(log->pending);
  free(log->path);
  free(log->identity);
  free(log);
}
