/* test_runlog.c - the log of a training: lines of JSON beside the database, and nothing that is wrong with either stops the training. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runs_helpers.h"

static int lines_in(const char *path) {
  char *text = read_text(path);
  int n = 0;
  for (char *s = text; *s; s++) n += *s == '\n';
  free(text);
  return n;
}

static void record(mn_runlog *log, int64_t step) {
  mn_runlog_value v[2] = {{"loss", 3.0 / (double)step}, {"learning_rate", 0.1}};
  mn_runlog_record(log, step, step * 100, v, step % 2 ? 1 : 2);
}

static void logs_are_lines_of_json(void) {
  const char *out = at("log");
  mn_run run = example("logged", out);
  mn_runlog *log;
  CHECK_OK(mn_runlog_open(at("log.db"), &run, -1, &log));
  for (int step = 1; step <= 10; step++) record(log, step);
  mn_runlog_value bad = {"loss", (double)INFINITY};
  mn_runlog_record(log, 11, 1100, &bad, 1);
  char *text = read_text(at("log/metrics.jsonl")); /* all is there before the log is closed */
  int lines = 0;
  char *save = NULL;
  for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save), lines++) {
    json_t *r = json_loads(line, 0, NULL);
    CHECK(json_integer_value(json_object_get(r, "step")) == lines + 1 && json_object_get(r, "time"), "%s", line);
    if (lines < 10) CHECK(json_number_value(json_object_get(r, "loss")) > 0, "%s", line);
    else CHECK(json_is_null(json_object_get(r, "loss")), "%s", line);
    json_decref(r);
  }
  CHECK(lines == 11, "%d lines", lines);
  free(text);
  int64_t id = mn_runlog_id(log);
  mn_runlog_close(log, "finished", "");
  mn_runs *db;
  mn_arena *arena = mn_arena_new();
  mn_metric_series s;
  mn_run got;
  CHECK_OK(mn_runs_open(at("log.db"), false, &db));
  CHECK_OK(mn_run_series(db, arena, id, "loss", &s));
  CHECK(s.n == 11 && isnan(s.value[10]), "%zu", s.n);
  char full[PATH_MAX];
  CHECK_OK(mn_runs_find(db, arena, realpath(at("log"), full), &got));
  CHECK(got.id == id && !strcmp(got.status, "finished"), "by directory: %s", got.status);
  mn_arena_free(arena);
  mn_runs_close(db);
}

/* A training is killed at any moment and goes on from a checkpoint: afterwards log and database both hold every step
 * once, as if it had never been killed. */
static void killed_and_resumed(void) {
  uint64_t seed = 7;
  for (int round = 0; round < 6; round++) {
    char out[256];
    snprintf(out, sizeof out, "%s", at("killed"));
    mn_run run = example("killed", out);
    fflush(stdout);
    mn_file_remove(at("killed/metrics.jsonl"));
    pid_t pid = fork();
    if (pid == 0) {
      mn_runlog *log;
      if (mn_runlog_open(at("killed.db"), &run, -1, &log) != MN_OK) _exit(1);
      for (int step = 1;; step++) record(log, step);
    }
    while (lines_in(at("killed/metrics.jsonl")) < 40) usleep(2000); /* the checkpoint it will go on from */
    seed = mn_splitmix64(seed);
    usleep((useconds_t)(seed % (round == 5 ? 1400000 : 60000)));
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    if (round == 3) { /* a line cut short */
      FILE *f = fopen(at("killed/metrics.jsonl"), "a");
      fputs("{\"step\": 2, \"lo", f);
      fclose(f);
    }
    mn_runlog *log;
    int64_t from = 40, to = 60;
    CHECK_OK(mn_runlog_open(at("killed.db"), &run, from, &log));
    for (int64_t step = from + 1; step <= to; step++) record(log, step);
    int64_t id = mn_runlog_id(log);
    mn_runlog_close(log, "finished", "");
    char *text = read_text(at("killed/metrics.jsonl")), *save = NULL;
    int64_t lines = 0;
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
      json_t *r = json_loads(line, 0, NULL);
      CHECK(r && json_integer_value(json_object_get(r, "step")) == ++lines, "line %d: %s", (int)lines, line);
      json_decref(r);
    }
    CHECK(lines == to, "%d lines", (int)lines);
    free(text);
    mn_runs *db;
    mn_arena *arena = mn_arena_new();
    mn_metric_series s;
    CHECK_OK(mn_runs_open(at("killed.db"), false, &db));
    CHECK_OK(mn_run_series(db, arena, id, "loss", &s));
    bool whole = s.n == (size_t)to;
    for (size_t i = 0; whole && i < s.n; i++) whole = s.step[i] == (double)(i + 1) && fabs(s.value[i] - 3.0 / (double)(i + 1)) < 1e-12;
    CHECK(whole, "the database holds %zu of %d steps", s.n, (int)to);
    mn_run *runs;
    size_t n;
    CHECK_OK(mn_runs_list(db, arena, 0, &runs, &n));
    CHECK(n == (size_t)round + 1, "the resumed run is the one that was killed: %zu", n);
    mn_arena_free(arena);
    mn_runs_close(db);
  }
}

/* Runs `body` with stderr in a file; returns what it said. */
static char *said_by(void (*body)(void)) {
  FILE *f = tmpfile();
  int old = dup(2);
  dup2(fileno(f), 2);
  body();
  dup2(old, 2);
  close(old);
  char *text = calloc(1, 4096);
  rewind(f);
  size_t got = fread(text, 1, 4095, f);
  (void)got;
  fclose(f);
  return text;
}

static void damaged_body(void) {
  mn_runlog *log;
  mn_run run = example("d", at("nodb"));
  write_text(at("garbage.db"),
             "this is no database at all, but it is long enough to have a header, is it not? Yes it is, it goes on and on and on.");
  CHECK_OK(mn_runlog_open(at("garbage.db"), &run, -1, &log));
  for (int step = 1; step <= 20; step++) record(log, step);
  CHECK(mn_runlog_id(log) == 0, "no number");
  mn_runlog_close(log, "finished", "");
}

static sqlite3 *locker;
static void locked_body(void) {
  mn_runlog *log;
  mn_run run = example("l", at("locked"));
  CHECK_OK(mn_runlog_open(at("locked.db"), &run, -1, &log));
  sqlite3_open(at("locked.db"), &locker);
  sqlite3_exec(locker, "BEGIN IMMEDIATE", NULL, NULL, NULL);
  double began = mn_now();
  int step = 1;
  for (; mn_now() - began < 2.6; step++) record(log, step), usleep(20000); /* two attempts to write meet the lock */
  sqlite3_exec(locker, "ROLLBACK", NULL, NULL, NULL);
  sqlite3_close(locker);
  record(log, step);
  int64_t id = mn_runlog_id(log);
  mn_runlog_close(log, "finished", "");
  mn_runs *db;
  mn_arena *arena = mn_arena_new();
  mn_metric_series s;
  CHECK_OK(mn_runs_open(at("locked.db"), false, &db));
  CHECK_OK(mn_run_series(db, arena, id, "loss", &s));
  CHECK(s.n == (size_t)step, "nothing is lost: %zu of %d", s.n, step);
  CHECK(lines_in(at("locked/metrics.jsonl")) == step, "nor in the log");
  mn_arena_free(arena);
  mn_runs_close(db);
}

static void full_body(void) { /* a log that cannot grow, as on a full disk, and no database */
  mn_runlog *log;
  mn_run run = example("f", at("full"));
  CHECK_OK(mn_runlog_open("", &run, -1, &log));
  struct rlimit limit, none;
  void (*before)(int) = signal(SIGXFSZ, SIG_IGN);
  fflush(stdout);
  getrlimit(RLIMIT_FSIZE, &limit);
  none = limit;
  none.rlim_cur = 1000; /* room for the warning, which goes into a file here */
  setrlimit(RLIMIT_FSIZE, &none);
  for (int step = 1; step <= 100; step++) record(log, step);
  setrlimit(RLIMIT_FSIZE, &limit);
  signal(SIGXFSZ, before);
  mn_runlog_close(log, "finished", "");
}

static void limited_body(void) { /* files may not grow: the database fails in the middle of the training */
  fflush(stdout);
  pid_t pid = fork();
  if (pid == 0) {
    mn_runlog *log;
    mn_run run = example("s", at("limited"));
    if (mn_runlog_open(at("limited.db"), &run, -1, &log) != MN_OK) _exit(1);
    signal(SIGXFSZ, SIG_IGN);
    struct rlimit limit = {.rlim_cur = 60000, .rlim_max = 60000};
    setrlimit(RLIMIT_FSIZE, &limit);
    for (int step = 1; step <= 5000; step++) record(log, step);
    mn_runlog_close(log, "finished", "");
    _exit(0);
  }
  int code;
  waitpid(pid, &code, 0);
  CHECK(WIFEXITED(code) && WEXITSTATUS(code) == 0, "the training went on: %x", (unsigned)code);
}

static void a_log_is_nobody_elses_file(void) {
  mn_runlog *log;
  mkdir(at("mine"), 0777);
  for (int k = 0; k < 2; k++) { /* a link, a second name; a new run, and one that goes on */
    for (int goes_on = 0; goes_on < 2; goes_on++) {
      mn_run run = example("m", at("mine"));
      CHECK_OK(mn_file_write(at("other"), "other\n", 6));
      CHECK_OK(mn_file_remove(at("mine/metrics.jsonl")));
      CHECK((k ? link : symlink)(at("other"), at("mine/metrics.jsonl")) == 0, "%s", strerror(errno));
      CHECK_OK(mn_runlog_open("", &run, goes_on ? 3 : -1, &log));
      record(log, 4);
      mn_runlog_close(log, "finished", "");
      CHECK(content_is(at("other"), "other\n"), "case %d %d", k, goes_on);
      CHECK(lines_in(at("mine/metrics.jsonl")) == (k && goes_on ? 2 : 1), "case %d %d", k, goes_on);
    }
  }
}

static void nothing_stops_a_training(void) {
  static const struct {
    void (*body)(void);
    const char *expect;
    int warnings;
  } cases[] = {{damaged_body, "metrics.jsonl only", 1},
               {locked_body, "locked by another process", 1},
               {full_body, "File too large", 1},
               {limited_body, "training goes on", 2}};
  for (int i = 0; i < 4; i++) {
    char *text = said_by(cases[i].body);
    int warnings = 0;
    for (char *s = text; *s; s++) warnings += *s == '\n';
    CHECK(strstr(text, cases[i].expect) && warnings == cases[i].warnings, "case %d: %s", i, text);
    free(text);
  }
  CHECK(lines_in(at("nodb/metrics.jsonl")) == 20, "the log is whole without a database");
}

int main(void) {
  if (!mkdtemp(dir)) return 1;
  RUN(logs_are_lines_of_json);
  RUN(killed_and_resumed);
  RUN(a_log_is_nobody_elses_file);
  RUN(nothing_stops_a_training);
  char command[128];
  snprintf(command, sizeof command, "rm -rf %s", dir);
  return system(command) == 0 ? test_end() : 1;
}
