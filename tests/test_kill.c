/* What must be true of a training that is killed: wherever that happens (between any two things it does to files, in the middle
 * of a write, after any merge of its tokenizer, after any file that it tokenises, after any step), it goes on to the same bits,
 * and leaves nothing behind. The place is counted in what was done, so that the test is the same on every machine. This program
 * stands between the library and the functions that change files (CMakeLists.txt wraps them). */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "train/checkpoint.h"
#include "train_helpers.h"

/* ---- between the library and the system --------------------------------------------------------------------------- */

static long done, fatal = -1; /* changes of files; the one before which this process is killed */
static bool halfway;          /* and if that is a write, half of it is done                    */
static bool no_proc;          /* unnamed files cannot be linked: temporary files have names    */

static bool due(void) { return done++ == fatal; }
static void die(void) { raise(SIGKILL); }

#define WRAP(type, name, parameters, arguments)                                                                                            \
  type __real_##name parameters;                                                                                                           \
  type __wrap_##name parameters;                                                                                                           \
  type __wrap_##name parameters {                                                                                                          \
    if (due()) die();                                                                                                                      \
    return __real_##name arguments;                                                                                                        \
  }
WRAP(int, fsync, (int fd), (fd))
WRAP(int, ftruncate, (int fd, off_t n), (fd, n))
WRAP(int, rename, (const char *from, const char *to), (from, to))
WRAP(int, renameat, (int a, const char *from, int b, const char *to), (a, from, b, to))
WRAP(int, linkat, (int a, const char *from, int b, const char *to, int flags), (a, from, b, to, flags))
WRAP(int, unlink, (const char *path), (path))
WRAP(int, unlinkat, (int dir, const char *path, int flags), (dir, path, flags))
WRAP(int, mkdir, (const char *path, mode_t mode), (path, mode))
WRAP(int, rmdir, (const char *path), (path))

ssize_t __real_write(int fd, const void *data, size_t n);
ssize_t __wrap_write(int fd, const void *data, size_t n);
ssize_t __wrap_write(int fd, const void *data, size_t n) {
  if (!due()) return __real_write(fd, data, n);
  if (halfway) (void)!__real_write(fd, data, n / 2);
  die();
  return -1;
}

int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...) {
  va_list ap;
  va_start(ap, flags);
  mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(ap, mode_t) : 0;
  va_end(ap);
  if ((flags & O_ACCMODE) != O_RDONLY && due()) die();
  return __real_open(path, flags, mode);
}

int __real_access(const char *path, int mode);
int __wrap_access(const char *path, int mode);
int __wrap_access(const char *path, int mode) { return no_proc && !strcmp(path, "/proc/self/fd") ? -1 : __real_access(path, mode); }

/* ---- trainings ---------------------------------------------------------------------------------------------------- */

static long reports, fatal_report = -1; /* progress of tokenizer and text, and steps */
static void report(void) {
  if (reports++ == fatal_report) die();
}

static bool on_data(void *ctx, const char *file, int64_t bytes, int64_t total) {
  (void)ctx, (void)file, (void)bytes, (void)total;
  report();
  return true;
}

static void on_event(void *ctx, const mn_train_event *e) {
  (void)ctx;
  if (e->kind == MN_EVENT_STEP) report();
}

typedef struct arm {
  const char *name, *recipe;
} arm;

static const arm arms[] = {
    {"plain", "seed: 3\ndata: {files: [@a.txt, @b.txt, @c.txt], cache: @/shards}\n"
              "model: {d_model: 8, layers: 1, block: {mixer: {type: attention, heads: 2, max_context: 64}, hidden: 8}}\n"
              "train: {steps: 6, batch: 2, seq_len: 16, checkpoint_every: 2, keep_last: 2, log_every: 1, validation_batches: 1}\n"},
    {"carried", "seed: 3\ntokenizer: {type: bpe, vocab_size: 280}\n"
                "data: {files: [@a.txt, @b.txt, @c.txt], cache: @/shards, order: sequential}\n"
                "model: {d_model: 8, layers: 1, block: {mixer: {type: gated_deltanet, heads: 1}, hidden: 8}}\n"
                "train: {steps: 6, batch: 2, seq_len: 16, checkpoint_every: 2, keep_last: 2, log_every: 1, validation_batches: 1,\n"
                "  carry_state: true, accumulate: 3, optimizer: {type: muon}}\n"},
};

/* All files of one training lie in a directory of their own; '@' in a recipe stands for it. */
static const char *home(const arm *a, const char *name) {
  static char path[8][900];
  static int turn;
  char *p = path[turn++ % 8];
  snprintf(p, sizeof path[0], "%s/%s/%s", test_dir, a->name, name);
  return p;
}

static void make_home(const arm *a, bool empty) {
  char command[1000];
  snprintf(command, sizeof command, empty ? "rm -rf '%s'" : "true", home(a, ""));
  CHECK(system(command) == 0, "%s", command);
  CHECK_OK(mn_make_dirs(home(a, "")));
  for (int f = 0; f < 3; f++) {
    mn_text t = {0};
    for (int i = 0; i < 300; i++)
      mn_text_addf(&t, "%d times the whale %s ", (int)(mn_splitmix64((uint64_t)(f * 1000 + i)) % 100), i % 7 ? "and" : "sea.\n");
    CHECK_OK(mn_file_write(home(a, f == 0 ? "a.txt" : f == 1 ? "b.txt" : "c.txt"), t.data, t.len));
    mn_text_free(&t);
  }
  mn_text t = {0};
  for (const char *p = a->recipe; *p; p++) {
    if (*p == '@') mn_text_addf(&t, "%s", home(a, ""));
    else mn_text_add_bytes(&t, p, 1);
  }
  CHECK_OK(mn_file_write(home(a, "recipe.yaml"), t.data, t.len));
  mn_text_free(&t);
}

typedef struct moment { /* of a kill; all -1: it lives */
  long change, report;
  bool halfway, no_proc;
} moment;
static const moment never = {-1, -1, false, false};

/* Trains in a process of its own. *changes and *said: how often it changed files and reported. True: it came to its end. */
static bool train(const arm *a, moment m, long *changes, long *said) {
  int ends[2];
  long counts[2] = {0, 0};
  CHECK(pipe(ends) == 0, "a pipe");
  fflush(stdout);
  pid_t child = fork();
  if (child == 0) {
    mn_recipe *r = NULL;
    mn_train_result result;
    mn_train_options o = {.out_dir = home(a, "out"),
                          .resume = true,
                          .threads = 1,
                          .db_path = home(a, "runs.db"),
                          .event = on_event,
                          .watch = {.progress = on_data}};
    mn_status status = mn_recipe_read(home(a, "recipe.yaml"), NULL, 0, &r);
    done = reports = 0;
    fatal = m.change, fatal_report = m.report, halfway = m.halfway, no_proc = m.no_proc;
    setenv("MNEME_LOG", "error", 1);
    if (status == MN_OK) status = mn_train(r, &o, &result);
    counts[0] = done, counts[1] = reports;
    fatal = -1;
    if (status != MN_OK) fprintf(stderr, "%s\n", mn_message());
    if (__real_write(ends[1], counts, sizeof counts) != sizeof counts) _exit(2);
    _exit(status == MN_OK ? 0 : 1);
  }
  close(ends[1]);
  if (read(ends[0], counts, sizeof counts) == sizeof counts && changes) *changes = counts[0], *said = counts[1];
  close(ends[0]);
  int status;
  waitpid(child, &status, 0);
  bool lived = WIFEXITED(status);
  CHECK(lived ? WEXITSTATUS(status) == 0 : WTERMSIG(status) == SIGKILL, "%s: exit code %d, signal %d", a->name, WEXITSTATUS(status),
        WTERMSIG(status));
  return lived;
}

/* What a training leaves: every name, and the bits of all that does not hold a time. */
static void add_tree(mn_text *out, const char *dir, int depth) {
  char **names;
  size_t n;
  CHECK_OK(mn_dir_list(dir, &names, &n));
  for (size_t i = 0; i < n; i++) {
    char path[1500], hex[MN_HASH_HEX] = "";
    struct stat st;
    snprintf(path, sizeof path, "%s/%s", dir, names[i]);
    CHECK(lstat(path, &st) == 0, "%s", path);
    bool timed = strstr(names[i], "runs.db") || !strcmp(names[i], "metrics.jsonl");
    if (S_ISREG(st.st_mode) && !timed) CHECK_OK(mn_file_hash(path, hex));
    mn_text_addf(out, "%*s%s %s\n", 2 * depth, "", names[i], hex);
    if (S_ISDIR(st.st_mode)) add_tree(out, path, depth + 1);
  }
  mn_dir_list_free(names, n);
}

/* The steps, losses and numbers of the lines of metrics.jsonl, in their order, without times and speeds. */
static void add_metrics(mn_text *out, const char *path) {
  char *log;
  size_t n;
  CHECK_OK(mn_file_read(path, 1 << 20, &log, &n));
  for (char *line = strtok(log, "\n"); line; line = strtok(NULL, "\n")) {
    const char *loss = strstr(line, "loss"), *step = strstr(line, "\"step\""), *number = strstr(line, "\"line\"");
    mn_text_addf(out, "%.*s %.*s %.*s\n", step ? (int)strcspn(step, ",") : 0, step, loss ? (int)strcspn(loss, ",}") : 0, loss,
                 number ? (int)strcspn(number, ",") : 0, number);
  }
  free(log);
}

static char *what_is_left(const arm *a) {
  mn_text t = {0};
  add_tree(&t, home(a, ""), 0);
  add_metrics(&t, home(a, "out/metrics.jsonl"));
  return mn_text_take(&t);
}

static void check_left(const arm *a, const char *straight, const char *how, long at) {
  char *left = what_is_left(a);
  size_t same = 0; /* bytes up to the first line that differs */
  for (size_t i = 0; left[i] && left[i] == straight[i]; i++)
    if (left[i] == '\n') same = i + 1;
  CHECK(!strcmp(left, straight), "%s, %s %ld: there is '%.*s' and not '%.*s'", a->name, how, at, (int)strcspn(left + same, "\n"),
        left + same, (int)strcspn(straight + same, "\n"), straight + same);
  free(left);
}

static long changes[2], said[2];
static char *straight[2];

static void test_left_alone(void) {
  for (int i = 0; i < 2; i++) {
    make_home(&arms[i], true);
    CHECK(train(&arms[i], never, &changes[i], &said[i]), "it ends");
    straight[i] = what_is_left(&arms[i]);
    CHECK(changes[i] > 50 && said[i] >= 9, "%s: %ld changes, %ld reports", arms[i].name, changes[i], said[i]);
  }
}

static void test_killed_at_any_change_of_a_file(void) {
  for (int i = 0; i < 2; i++)
    for (long at = 0; at < changes[i]; at++) {
      make_home(&arms[i], true);
      CHECK(!train(&arms[i], (moment){at, -1, at % 2, at % 3 == 0}, NULL, NULL) || at % 3 == 0, "%s: change %ld comes", arms[i].name, at);
      CHECK(train(&arms[i], never, NULL, NULL), "it ends");
      check_left(&arms[i], straight[i], "killed at change", at);
      if (test_failed > 20) return;
    }
}

static void test_killed_after_any_report(void) {
  for (int i = 0; i < 2; i++)
    for (long at = 0; at < said[i]; at++) {
      make_home(&arms[i], true);
      CHECK(!train(&arms[i], (moment){-1, at, false, false}, NULL, NULL), "%s: report %ld comes", arms[i].name, at);
      CHECK(train(&arms[i], never, NULL, NULL), "it ends");
      check_left(&arms[i], straight[i], "killed at report", at);
      if (test_failed > 20) return;
    }
}

static void test_killed_again_and_again(void) {
  for (int i = 0; i < 2; i++)
    for (uint64_t round = 0; round < 12; round++) {
      make_home(&arms[i], true);
      long lives = 0;
      for (bool ended = false; !ended && lives < 60; lives++) { /* a life long enough to write the next checkpoint, on average */
        long at = lives < 8 ? (long)(mn_splitmix64(round * 100 + (uint64_t)lives) % (uint64_t)changes[i]) : -1;
        ended = train(&arms[i], (moment){at, -1, lives % 2, lives % 3 == 0}, NULL, NULL);
      }
      check_left(&arms[i], straight[i], "round", (long)round);
      if (test_failed > 20) return;
    }
}

int main(void) {
  if (!getenv("TMPDIR") && __real_access("/dev/shm", W_OK) == 0) setenv("TMPDIR", "/dev/shm", 1); /* syncing is not what is tested */
  test_setup("kill");
  RUN(test_left_alone);
  RUN(test_killed_at_any_change_of_a_file);
  RUN(test_killed_after_any_report);
  RUN(test_killed_again_and_again);
  for (int i = 0; i < 2; i++) free(straight[i]);
  test_cleanup();
  return test_end();
}
