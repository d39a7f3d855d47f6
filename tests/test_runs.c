/* test_runs.c - the run database: what is written is read back, resuming removes what lies beyond, processes share the file, and what is
 * wrong with it is said. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runs_helpers.h"

static void recorded_is_read_back(void) {
  mn_runs *db = NULL;
  CHECK_OK(mn_runs_open(at("sub/dir/a.db"), true, &db));
  int64_t first, second;
  mn_run run = example("titans", "/somewhere/a");
  CHECK_OK(mn_run_begin(db, &run, &first));
  run = example("attention", "/somewhere/b");
  CHECK_OK(mn_run_begin(db, &run, &second));
  CHECK(second != first, "numbers differ");
  for (int step = 1; step <= 50; step++) {
    mn_metric m[2] = {{step, step * 512, "loss", 4.0 / step, 100.0 + step}, {step, step * 512, "learning_rate", 1e-3, 100.0 + step}};
    CHECK_OK(mn_run_metrics(db, first, m, 2));
  }
  CHECK_OK(mn_run_metric(db, first, 50, 25600, "validation_loss", (double)NAN));
  CHECK_OK(mn_run_metric(db, first, 50, 25600, "loss", 0.5)); /* replaced */
  CHECK_OK(mn_run_finish(db, first, "finished", ""));
  CHECK_OK(mn_run_finish(db, second, "failed", "loss is NaN at step 3"));
  mn_runs_close(db);

  CHECK_OK(mn_runs_open(at("sub/dir/a.db"), false, &db));
  mn_arena *arena = mn_arena_new();
  mn_run *runs;
  size_t n;
  CHECK_OK(mn_runs_list(db, arena, 0, &runs, &n));
  CHECK(n == 2 && runs[0].id == second && !strcmp(runs[0].status, "failed") && !strcmp(runs[0].message, "loss is NaN at step 3"),
        "newest first");
  CHECK(runs[1].parameters == 12345 && runs[1].threads == 2 && !strcmp(runs[1].isa, "avx2") && runs[1].steps == 50 &&
            runs[1].tokens == 25600 && !strcmp(runs[1].recipe, "{\"model\":{\"layers\":2}}"),
        "fields");
  CHECK_OK(mn_runs_list(db, arena, 1, &runs, &n));
  CHECK(n == 1, "a limit");
  mn_run run2;
  char id[24];
  snprintf(id, sizeof id, "%d", (int)first);
  CHECK_OK(mn_runs_find(db, arena, id, &run2));
  CHECK(run2.id == first, "by number");
  CHECK_OK(mn_runs_find(db, arena, "attention", &run2));
  CHECK(run2.id == second, "by name");
  CHECK(mn_runs_find(db, arena, "titan", &run2) == MN_ERR_CONFIG && strstr(mn_message(), "did you mean titans?"), "%s", mn_message());
  CHECK(mn_runs_find(db, arena, "99'; DROP TABLE runs", &run2) == MN_ERR_CONFIG, "quotes are only text");
  mn_metric_series s;
  CHECK_OK(mn_run_series(db, arena, first, "loss", &s));
  CHECK(s.n == 50 && s.step[0] == 1 && s.value[1] == 2.0 && s.value[49] == 0.5 && s.tokens[2] == 1536, "series");
  CHECK_OK(mn_run_series(db, arena, first, "nonsuch", &s));
  CHECK(s.n == 0, "none");
  CHECK_OK(mn_run_series(db, arena, first, "validation_loss", &s));
  CHECK(s.n == 1 && isnan(s.value[0]), "NaN comes back");
  mn_metric_summary *sum;
  CHECK_OK(mn_run_summary(db, arena, first, &sum, &n));
  CHECK(n == 3 && !strcmp(sum[1].name, "loss") && sum[1].count == 50 && sum[1].last == 0.5 && sum[1].max == 4.0 && sum[1].last_step == 50 &&
            sum[1].min == 4.0 / 49,
        "summary: %zu", n);
  CHECK_OK(mn_run_delete(db, first));
  CHECK_OK(mn_run_series(db, arena, first, "loss", &s));
  CHECK(s.n == 0, "its metrics go with it");
  mn_arena_free(arena);
  mn_runs_close(db);
}

static void resuming_removes_what_lies_beyond(void) {
  mn_runs *db = NULL;
  int64_t id;
  mn_run run = example("r", "/x");
  CHECK_OK(mn_runs_open(at("resume.db"), true, &db));
  CHECK_OK(mn_run_begin(db, &run, &id));
  for (int step = 1; step <= 30; step++) CHECK_OK(mn_run_metric(db, id, step, step * 10, "loss", step));
  CHECK_OK(mn_run_finish(db, id, "interrupted", ""));
  CHECK_OK(mn_run_resume(db, id, 20));
  mn_arena *arena = mn_arena_new();
  mn_metric_series s;
  CHECK_OK(mn_run_series(db, arena, id, "loss", &s));
  CHECK(s.n == 20 && s.step[19] == 20, "%zu", s.n);
  mn_run got;
  CHECK_OK(mn_runs_find(db, arena, "r", &got));
  CHECK(!strcmp(got.status, "running") && got.steps == 20 && got.tokens == 200, "%s %d", got.status, (int)got.steps);
  CHECK(mn_run_resume(db, 777, 1) == MN_ERR_ARG, "no such run");
  CHECK_OK(mn_run_metric(db, id, 21, 210, "loss", 1)); /* the failed call left no transaction open */
  mn_arena_free(arena);
  mn_runs_close(db);
}

static void processes_share_a_database(void) {
  enum { PROCESSES = 4, RECORDS = 60 };
  pid_t pid[PROCESSES];
  fflush(stdout);
  for (int p = 0; p < PROCESSES; p++)
    if ((pid[p] = fork()) == 0) { /* all create the file at once; the last one is killed in the middle */
      mn_runs *db;
      int64_t id;
      char name[16];
      snprintf(name, sizeof name, "p%d", p);
      mn_run run = example(name, "/x");
      if (mn_runs_open(at("shared.db"), true, &db) != MN_OK) fprintf(stderr, "%s\n", mn_message()), _exit(1);
      if (mn_run_begin(db, &run, &id) != MN_OK) fprintf(stderr, "%s\n", mn_message()), _exit(2);
      for (int i = 0; i < RECORDS; i++) {
        if (p == PROCESSES - 1 && i == RECORDS / 2) raise(SIGKILL);
        if (mn_run_metric(db, id, i, i, "loss", i) != MN_OK) fprintf(stderr, "%s\n", mn_message()), _exit(3);
      }
      mn_run_finish(db, id, "finished", "");
      mn_runs_close(db);
      _exit(0);
    }
  for (int p = 0; p < PROCESSES; p++) {
    int status;
    waitpid(pid[p], &status, 0);
    CHECK(p == PROCESSES - 1 ? WIFSIGNALED(status) : WIFEXITED(status) && WEXITSTATUS(status) == 0, "process %d: %x", p, (unsigned)status);
  }
  mn_runs *db;
  mn_arena *arena = mn_arena_new();
  CHECK_OK(mn_runs_open(at("shared.db"), false, &db));
  for (int p = 0; p < PROCESSES; p++) {
    char name[16];
    snprintf(name, sizeof name, "p%d", p);
    mn_run run;
    mn_metric_series s;
    CHECK_OK(mn_runs_find(db, arena, name, &run));
    CHECK_OK(mn_run_series(db, arena, run.id, "loss", &s));
    bool killed = p == PROCESSES - 1;
    CHECK(s.n == (killed ? RECORDS / 2 : RECORDS), "%zu records", s.n);
    CHECK(!strcmp(run.status, killed ? "killed" : "finished"), "%s: %s", name, run.status);
  }
  mn_arena_free(arena);
  mn_runs_close(db);
}

static void bad_files_are_refused_with_the_reason(void) {
  mn_runs *db = NULL;
  write_text(at("garbage.db"), "this is no database at all, but it is long enough to have a header, is it not? Yes it is, "
                               "we are now beyond one hundred bytes.");
  CHECK(mn_runs_open(at("garbage.db"), true, &db) == MN_ERR_FORMAT && strstr(mn_message(), "garbage.db") &&
            strstr(mn_message(), "move it away") && !db,
        "%s", mn_message());
  sqlite3 *sql;
  sqlite3_open(at("foreign.db"), &sql);
  sqlite3_exec(sql, "CREATE TABLE t (a)", NULL, NULL, NULL);
  sqlite3_close(sql);
  CHECK(mn_runs_open(at("foreign.db"), true, &db) == MN_ERR_FORMAT && strstr(mn_message(), "not a run database"), "%s", mn_message());
  CHECK_OK(mn_runs_open(at("newer.db"), true, &db));
  mn_runs_close(db);
  sqlite3_open(at("newer.db"), &sql);
  sqlite3_exec(sql, "PRAGMA user_version=9", NULL, NULL, NULL);
  sqlite3_close(sql);
  CHECK(mn_runs_open(at("newer.db"), true, &db) == MN_ERR_UNSUPPORTED && strstr(mn_message(), "schema 9"), "%s", mn_message());
  CHECK(mn_runs_open(at("missing.db"), false, &db) == MN_ERR_IO && strstr(mn_message(), "mneme train"), "%s", mn_message());
  CHECK(access(at("missing.db"), F_OK) != 0, "and is not made");
  mkdir(at("adir.db"), 0777);
  CHECK(mn_runs_open(at("adir.db"), true, &db) == MN_ERR_IO && strstr(mn_message(), "a directory"), "%s", mn_message());
  CHECK(mn_runs_open("/proc/nonsuch/runs.db", true, &db) == MN_ERR_IO, "%s", mn_message());

  write_text(at("begun.db"), ""); /* killed before its tables stood: nothing to read, and a place to write to */
  CHECK(mn_runs_open(at("begun.db"), false, &db) == MN_ERR_FORMAT && strstr(mn_message(), "empty file"), "%s", mn_message());
  CHECK_OK(mn_runs_try(at("begun.db")));
  CHECK_OK(mn_runs_open(at("begun.db"), true, &db));
  mn_runs_close(db);
  CHECK_OK(mn_runs_open(at("begun.db"), false, &db));
  mn_runs_close(db);

  CHECK_OK(mn_runs_open(at("torn.db"), true, &db)); /* a database whose second half is gone */
  mn_run run = example("r", "/x");
  int64_t id;
  CHECK_OK(mn_run_begin(db, &run, &id));
  mn_runs_close(db);
  mn_file_info info;
  CHECK_OK(mn_file_stat(at("torn.db"), &info));
  CHECK(truncate(at("torn.db"), (off_t)info.size / 2) == 0, "%s", strerror(errno));
  mn_status status = mn_runs_open(at("torn.db"), true, &db);
  if (status == MN_OK) {
    status = mn_run_begin(db, &run, &id);
    mn_runs_close(db);
  }
  CHECK(status == MN_ERR_FORMAT && strstr(mn_message(), "damaged"), "%s", mn_message());
}

/* Changes a database behind the program's back, as a bad disk would. */
static void sneak(const char *path, const char *statement) {
  sqlite3 *sql;
  CHECK(sqlite3_open(path, &sql) == SQLITE_OK && sqlite3_exec(sql, statement, NULL, NULL, NULL) == SQLITE_OK, "%s", statement);
  sqlite3_close(sql);
}

/* A value, a row or a run that is not what was recorded is noticed, also after more was recorded; other runs are not touched. */
static void what_was_changed_is_noticed(void) {
  static const struct {
    const char *statement;
    bool of_runs; /* seen by the list; otherwise by the records of the run */
  } damage[] = {{"UPDATE runs SET steps=steps+1 WHERE id=1", true},
                {"UPDATE runs SET recipe='{}' WHERE id=2", true},
                {"DELETE FROM runs WHERE id=2", true},
                {"UPDATE runs SET seal=seal+1 WHERE id=1", true},
                {"UPDATE seals SET total=total+1", true},
                {"DELETE FROM seals", true},
                {"UPDATE metrics SET value=value+1 WHERE step=3", false},
                {"UPDATE metrics SET name='l0ss' WHERE step=4", false},
                {"DELETE FROM metrics WHERE step=2", false},
                {"UPDATE metrics SET value=NULL WHERE step=1", false},
                {"UPDATE metrics SET tokens=7 WHERE step=5 AND run=1", false}};
  for (size_t i = 0; i < sizeof damage / sizeof *damage; i++)
    for (int more = 0; more < 2; more++) {
      char name[32];
      snprintf(name, sizeof name, "changed-%zu-%d.db", i, more);
      const char *path = at(name);
      mn_runs *db = NULL;
      int64_t id, second;
      CHECK_OK(mn_runs_open(path, true, &db));
      mn_run run = example("one", "/somewhere/a");
      CHECK_OK(mn_run_begin(db, &run, &id));
      run = example("two", "/somewhere/b");
      CHECK_OK(mn_run_begin(db, &run, &second));
      for (int step = 1; step <= 9; step++) CHECK_OK(mn_run_metric(db, id, step, 10 * step, "loss", 1.0 / step));
      CHECK_OK(mn_run_resume(db, id, 7));
      CHECK_OK(mn_run_metric(db, id, 7, 70, "loss", 0.5));
      mn_arena *arena = mn_arena_new();
      mn_run *runs;
      mn_metric_summary *list;
      size_t n;
      CHECK_OK(mn_runs_list(db, arena, 0, &runs, &n));
      CHECK_OK(mn_run_summary(db, arena, id, &list, &n));
      mn_runs_close(db);
      sneak(path, damage[i].statement);
      if (more) { /* a training that goes on does not make it good */
        CHECK_OK(mn_runs_open(path, true, &db));
        (void)mn_run_metric(db, id, 8, 80, "loss", 0.25);
        run = example("three", "/somewhere/c");
        (void)mn_run_begin(db, &run, &second);
        mn_runs_close(db);
      }
      CHECK_OK(mn_runs_open(path, false, &db));
      mn_status status = damage[i].of_runs ? mn_runs_list(db, arena, 0, &runs, &n) : mn_run_summary(db, arena, id, &list, &n);
      CHECK(status == MN_ERR_FORMAT && strstr(mn_message(), "checksum") && strstr(mn_message(), name), "%s: %s", damage[i].statement,
            mn_message());
      mn_runs_close(db);
      mn_arena_free(arena);
    }
}

/* A database of the first programs has no checksums: it is read as it is, and the next training adds them. */
static void older_databases_are_read_and_get_checksums(void) {
  mn_runs *db = NULL;
  int64_t id;
  const char *path = at("older.db");
  CHECK_OK(mn_runs_open(path, true, &db));
  mn_run run = example("one", "/somewhere/a");
  CHECK_OK(mn_run_begin(db, &run, &id));
  CHECK_OK(mn_run_metric(db, id, 1, 10, "loss", 1));
  mn_runs_close(db);
  sneak(path, "ALTER TABLE runs DROP COLUMN seal; ALTER TABLE runs DROP COLUMN total; DROP TABLE seals; PRAGMA user_version=1");
  mn_arena *arena = mn_arena_new();
  mn_run *runs;
  mn_metric_summary *list;
  size_t n;
  for (int create = 0; create < 3; create++) { /* read, written, read */
    CHECK_OK(mn_runs_open(path, create == 1, &db));
    CHECK_OK(mn_runs_list(db, arena, 0, &runs, &n));
    CHECK(n == 1 && !strcmp(runs[0].name, "one"), "%zu runs", n);
    CHECK_OK(mn_run_summary(db, arena, id, &list, &n));
    CHECK(n == 1 && list[0].last == 1, "%zu metrics", n);
    mn_runs_close(db);
  }
  sneak(path, "UPDATE metrics SET value=2");
  CHECK_OK(mn_runs_open(path, false, &db));
  CHECK(mn_run_summary(db, arena, id, &list, &n) == MN_ERR_FORMAT, "now it has them");
  mn_runs_close(db);
  mn_arena_free(arena);
}

/* In a folder where one may not write: it is read all the same, and nothing else. 0: so it is. */
static int read_where_nothing_may_be_written(void) {
  mn_runs *db = NULL;
  mn_run run = example("r", "/x"), *all;
  mn_arena *arena = mn_arena_new();
  size_t n = 0;
  int64_t id;
  if (mn_runs_open(at("ro %3f?#.db"), false, &db) != MN_OK || mn_runs_list(db, arena, 0, &all, &n) != MN_OK || n != 1) return 2;
  mn_arena_free(arena);
  if (mn_run_begin(db, &run, &id) != MN_ERR_IO || !strstr(mn_message(), "permissions")) return 3;
  mn_runs_close(db);
  if (mn_runs_try(at("ro %3f?#.db")) != MN_ERR_IO || !strstr(mn_message(), "read-only")) return 4;
  char here[PATH_MAX]; /* the same from the root, with one slash and with more */
  if (!realpath(at("ro %3f?#.db"), here)) return 5;
  for (int slashes = 0; slashes < 4; slashes++) {
    char *path = mn_format("%.*s%s", slashes, "///", here);
    const mn_status status = path ? mn_runs_open(path, false, &db) : MN_ERR_MEMORY;
    free(path);
    if (status != MN_OK) return 6 + slashes;
    mn_runs_close(db);
  }
  return 0;
}

/* Names that mean something to SQLite are files here, as the other programs of the shell have it. */
static void a_database_is_a_file_whatever_its_name(void) {
  static const char *const names[] = {":memory:", "file:x.db", "file:x.db?mode=memory", ":memory:?cache=shared"};
  char was[PATH_MAX];
  CHECK(getcwd(was, sizeof was) && chdir(dir) == 0, "in the folder");
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    mn_runs *db = NULL;
    mn_run run = example("kept", "/x"), *all;
    mn_arena *arena = mn_arena_new();
    size_t n = 0;
    int64_t id;
    CHECK_OK(mn_runs_open(names[i], true, &db));
    if (db) CHECK_OK(mn_run_begin(db, &run, &id));
    mn_runs_close(db);
    CHECK(mn_file_exists(names[i]), "%s is no file", names[i]);
    CHECK_OK(mn_runs_open(names[i], false, &db));
    if (db) CHECK_OK(mn_runs_list(db, arena, 0, &all, &n));
    CHECK(n == 1, "%s keeps %zu runs", names[i], n);
    mn_runs_close(db);
    mn_arena_free(arena);
  }
  CHECK(chdir(was) == 0, "back");
}

static void read_only_files_are_refused(void) {
  mn_runs *db;
  CHECK_OK(mn_runs_open(at("ro %3f?#.db"), true, &db));
  mn_run kept = example("kept", "/x");
  int64_t kept_id;
  if (db) CHECK_OK(mn_run_begin(db, &kept, &kept_id));
  mn_runs_close(db);
  CHECK_OK(mn_runs_open(at("ro.db"), true, &db));
  mn_runs_close(db);
  chmod(dir, 0555);
  chmod(at("ro.db"), 0444);
  fflush(stdout);
  pid_t pid = fork();
  if (pid == 0) { /* permissions do not bind root */
    if (getuid() == 0 && (setgid(65534) || setuid(65534))) _exit(9);
    const int read = read_where_nothing_may_be_written();
    if (read) printf("%d: %s\n", read, mn_message()), fflush(stdout), _exit(read);
    mn_run run = example("r", "/x");
    int64_t id;
    mn_status status = mn_runs_open(at("ro.db"), true, &db);
    if (status == MN_OK) status = mn_run_begin(db, &run, &id);
    _exit(status == MN_ERR_IO && strstr(mn_message(), "permissions") ? 0 : (printf("%s\n", mn_message()), fflush(stdout), 1));
  }
  int code;
  waitpid(pid, &code, 0);
  chmod(dir, 0755);
  CHECK(WIFEXITED(code) && WEXITSTATUS(code) == 0, "%x", (unsigned)code);
}

static void a_database_is_nobody_elses_file(void) {
  mn_runs *db;
  CHECK_OK(mn_runs_open(at("one.db"), true, &db));
  mn_runs_close(db);
  CHECK_OK(mn_runs_try(at("one.db")));
  CHECK(symlink("one.db", at("link.db")) == 0 && link(at("one.db"), at("two.db")) == 0, "%s", strerror(errno));
  CHECK(mn_runs_open(at("one.db"), true, &db) == MN_ERR_IO && strstr(mn_message(), "hard link"), "%s", mn_message());
  CHECK(mn_runs_try(at("link.db")) == MN_ERR_IO && strstr(mn_message(), "hard link"), "%s", mn_message());
  CHECK(unlink(at("two.db")) == 0, "%s", strerror(errno));
  CHECK_OK(mn_runs_open(at("link.db"), true, &db)); /* a link that was named is followed */
  mn_runs_close(db);
  static const char *const ends[] = {"-wal", "-shm", "-journal"};
  for (int i = 0; i < 3; i++) {
    char name[32];
    snprintf(name, sizeof name, "one.db%s", ends[i]);
    CHECK_OK(mn_file_write(at("other"), "other", 5));
    CHECK(link(at("other"), at(name)) == 0, "%s", strerror(errno));
    CHECK(mn_runs_open(at("one.db"), true, &db) == MN_ERR_IO && mn_runs_open(at("link.db"), true, &db) == MN_ERR_IO, "%s", name);
    CHECK(content_is(at("other"), "other") && unlink(at(name)) == 0, "%s", name);
  }
  CHECK(mkfifo(at("fifo.db"), 0666) == 0 && mn_runs_open(at("fifo.db"), true, &db) == MN_ERR_IO, "%s", mn_message());
  CHECK(mn_runs_try(at("fifo.db/x")) == MN_ERR_IO, "%s", mn_message());
  CHECK_OK(mn_runs_try(at("not/yet/x.db")));
  CHECK(!mn_file_exists(at("not")), "trying makes nothing");
  mkdir(at("home"), 0777);
  setenv("MNEME_HOME", at("home"), 1); /* the default is a name of ours: a link there is not followed */
  CHECK(symlink("../one.db", at("home/runs.db")) == 0 && mn_runs_open(NULL, true, &db) == MN_ERR_IO && strstr(mn_message(), "link"), "%s",
        mn_message());
  unsetenv("MNEME_HOME");
}

int main(void) {
  if (!mkdtemp(dir)) return 1;
  RUN(recorded_is_read_back);
  RUN(resuming_removes_what_lies_beyond);
  RUN(processes_share_a_database);
  RUN(bad_files_are_refused_with_the_reason);
  RUN(what_was_changed_is_noticed);
  RUN(older_databases_are_read_and_get_checksums);
  RUN(read_only_files_are_refused);
  RUN(a_database_is_a_file_whatever_its_name);
  RUN(a_database_is_nobody_elses_file);
  char command[128];
  snprintf(command, sizeof command, "rm -rf %s", dir);
  return system(command) == 0 ? test_end() : 1;
}
