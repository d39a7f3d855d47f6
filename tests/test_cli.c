/* test_cli.c - the frame of the program: parsing against a verb's table, messages with the nearest name, exit codes,
 * help pages, JSON errors, interruption, and the progress line. */
#include "backend/backend.h"
#include "cli/cli.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/nearest.h"
#include "cli/progress.h"
#include "test.h"
#include "train/runs.h"

/* ---- a verb to parse for ------------------------------------------------------------------------------------------ */

static struct {
  int calls, n_args, n_set, threads, tags;
  int64_t steps;
  double rate;
  bool resume, json, quiet, seed_given;
  uint64_t seed;
  char arg0[64], set1[64], out[64], tag1[64];
  mn_status result;
  bool bars_short;
} seen;

static mn_status fake_run(mn_cli *cli) {
  seen.calls++;
  seen.n_args = cli->n_args;
  snprintf(seen.arg0, sizeof seen.arg0, "%s", cli->n_args ? cli->args[0] : "");
  MN_TRY(mn_cli_int(cli, "steps", 1, 1000, &seen.steps));
  MN_TRY(mn_cli_float(cli, "rate", 0, 1, &seen.rate));
  static const char *const kinds[] = {"line", "curve", NULL};
  int kind;
  MN_TRY(mn_cli_choice(cli, "kind", kinds, &kind));
  seen.resume = mn_cli_given(cli, "resume");
  seen.json = cli->json;
  seen.quiet = cli->quiet;
  seen.threads = cli->threads;
  seen.seed = cli->seed;
  seen.seed_given = cli->seed_given;
  seen.n_set = cli->n_set;
  snprintf(seen.set1, sizeof seen.set1, "%s", cli->n_set > 1 ? cli->set[1] : "");
  snprintf(seen.out, sizeof seen.out, "%s", cli->out_dir ? cli->out_dir : "");
  for (seen.tags = 0; mn_cli_nth(cli, "tag", seen.tags); seen.tags++) {
  }
  const char *tag1 = mn_cli_nth(cli, "tag", 1);
  snprintf(seen.tag1, sizeof seen.tag1, "%s", tag1 ? tag1 : "");
  cli->bars_short = seen.bars_short;
  return seen.result == MN_OK ? MN_OK : mn_fail(seen.result, "made to fail");
}

static const mn_option fake_options[] = {{"steps", "N", "100", "how many steps", 0},
                                         {"rate", "X", "0.5", "a rate", 0},
                                         {"kind", "KIND", "line", "line or curve", 0},
                                         {"resume", NULL, NULL, "go on", 0},
                                         {"tag", "WORD", "none", "a tag; may be repeated", MN_OPTION_REPEATS},
                                         {0}};
static const char *const fake_examples[] = {"mneme train r.yaml --out runs/r", NULL};
static const mn_verb fake_train = {.name = "train",
                                   .purpose = MN_VERB_TRAIN,
                                   .summary = "train a model",
                                   .usage = "RECIPE.yaml [options]",
                                   .about = "Trains.",
                                   .options = fake_options,
                                   .examples = fake_examples,
                                   .common = MN_CLI_THREADS | MN_CLI_SEED | MN_CLI_SET | MN_CLI_OUT,
                                   .min_args = 1,
                                   .max_args = 1,
                                   .run = fake_run};
static const mn_verb fake_stream = {.name = "stream",
                                    .purpose = MN_VERB_USE,
                                    .summary = "stream a text",
                                    .usage = "",
                                    .max_args = -1,
                                    .options = fake_options,
                                    .run = fake_run};
static const mn_verb *const fake_verbs[] = {&fake_train, &fake_stream};

/* Runs the frame on a command line in a child, so that what it prints can be read and signals can be sent. */
typedef struct {
  int code;
  char out[8192], err[8192];
} result;

static void slurp(FILE *f, char *buffer, size_t size) {
  fflush(f);
  rewind(f);
  size_t n = fread(buffer, 1, size - 1, f);
  buffer[n] = 0;
}

static result call(const char *line) { /* in this process, with stdout and stderr redirected to files */
  char copy[1024], *argv[64];
  int argc = 0;
  snprintf(copy, sizeof copy, "%s", line);
  for (char *w = strtok(copy, " "); w; w = strtok(NULL, " ")) argv[argc++] = w;
  argv[argc] = NULL;
  memset(&seen.calls, 0, sizeof seen.calls);
  result r = {0};
  FILE *out = tmpfile(), *err = tmpfile();
  fflush(stdout);
  int old_out = dup(1), old_err = dup(2);
  dup2(fileno(out), 1);
  dup2(fileno(err), 2);
  r.code = mn_cli_main(argc, argv, fake_verbs, 2);
  fflush(stdout);
  dup2(old_out, 1);
  dup2(old_err, 2);
  close(old_out);
  close(old_err);
  slurp(out, r.out, sizeof r.out);
  slurp(err, r.err, sizeof r.err);
  fclose(out);
  fclose(err);
  return r;
}

static void reset(void) { memset(&seen, 0, sizeof seen); }

static void options_reach_the_verb(void) {
  reset();
  result r = call("mneme train r.yaml --steps=7 --rate 0.25 --resume --set a=1 --set b.c=x=y --threads 3 --seed 9 --out d "
                  "--quiet --tag one --tag two --kind curve");
  CHECK(r.code == 0 && seen.calls == 1, "code %d: %s", r.code, r.err);
  CHECK(seen.n_args == 1 && !strcmp(seen.arg0, "r.yaml"), "%d %s", seen.n_args, seen.arg0);
  CHECK(seen.steps == 7 && seen.rate == 0.25 && seen.resume, "numbers and flags");
  CHECK(seen.n_set == 2 && !strcmp(seen.set1, "b.c=x=y"), "--set: %d %s", seen.n_set, seen.set1);
  CHECK(seen.threads == 3 && seen.seed == 9 && seen.seed_given && !strcmp(seen.out, "d"), "common options");
  CHECK(seen.quiet && !seen.json && seen.tags == 2 && !strcmp(seen.tag1, "two"), "repeats: %d", seen.tags);
  reset();
  r = call("mneme train r.yaml");
  CHECK(r.code == 0 && seen.steps == 100 && seen.rate == 0.5 && !seen.resume && !seen.seed_given, "defaults");
  CHECK(seen.tags == 1 && seen.threads == 0, "a default is the only value: %d", seen.tags);
  r = call("mneme stream -- --not-an-option -5");
  CHECK(r.code == 0 && seen.n_args == 2 && !strcmp(seen.arg0, "--not-an-option"), "%s", r.err);
}

static void wrong_usage_says_what_and_what_to_do(void) {
  static const struct {
    const char *line, *expect;
  } cases[] = {
      {"mneme trian r.yaml", "did you mean `mneme train`?"},
      {"mneme zzzzzz", "`mneme --help` lists them"},
      {"mneme --quiet train", "options come after a verb"},
      {"mneme train r.yaml --step 3", "did you mean --steps?"},
      {"mneme train r.yaml --Thread=3", "did you mean --threads?"},
      {"mneme train r.yaml --wxyz", "lists its options"},
      {"mneme train r.yaml -x", "no option -x"},
      {"mneme train r.yaml --steps", "--steps needs a value"},
      {"mneme train r.yaml --steps many", "from 1 to 1000, got 'many'"},
      {"mneme train r.yaml --steps 1001", "from 1 to 1000, got '1001'"},
      {"mneme train r.yaml --steps 99999999999999999999", "from 1 to 1000"},
      {"mneme train r.yaml --rate nan", "from 0 to 1, got 'nan'"},
      {"mneme train r.yaml --rate 0.5x", "got '0.5x'"},
      {"mneme train r.yaml --kind cruve", "did you mean curve?"},
      {"mneme train r.yaml --resume=yes", "takes no value"},
      {"mneme train r.yaml --steps 1 --steps 2", "given twice"},
      {"mneme train r.yaml --set steps", "expected KEY=VALUE"},
      {"mneme train r.yaml --set =3", "expected KEY=VALUE"},
      {"mneme train r.yaml --threads 0", "from 1 to 4096, got '0'"},
      {"mneme train", "usage is `mneme train RECIPE.yaml [options]`"},
      {"mneme train a b", "does not know what to do with 'b'"},
      {"mneme stream --seed 3", "stream has no option --seed"},
      {"mneme help nonsuch", "no verb 'nonsuch'"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    reset();
    result r = call(cases[i].line);
    CHECK(r.code == MN_EXIT_USAGE, "%s: code %d", cases[i].line, r.code);
    CHECK(strstr(r.err, cases[i].expect), "%s: %s", cases[i].line, r.err);
    CHECK(!strncmp(r.err, "mneme: ", 7) && !r.out[0], "%s: one line on stderr, nothing on stdout", cases[i].line);
    char *newline = strchr(r.err, '\n');
    CHECK(newline && !newline[1], "%s: said more than once: %s", cases[i].line, r.err);
  }
}

static void statuses_become_exit_codes(void) {
  static const struct {
    mn_status status;
    int code;
  } cases[] = {{MN_OK, 0},     {MN_ERR_CONFIG, 2}, {MN_ERR_ARG, 2},     {MN_ERR_CANCELLED, 3},
               {MN_ERR_IO, 1}, {MN_ERR_FORMAT, 1}, {MN_ERR_NUMERIC, 1}, {MN_ERR_SHAPE, 1}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    reset();
    seen.result = cases[i].status;
    result r = call("mneme train r.yaml");
    CHECK(r.code == cases[i].code, "%s: %d", mn_status_name(cases[i].status), r.code);
  }
  reset();
  seen.bars_short = true;
  CHECK(call("mneme train r.yaml").code == MN_EXIT_BAR_SHORT, "a short bar");
}

static void json_errors(void) {
  static const char *const lines[] = {"mneme train --json", "mneme trian --json", "mneme train r.yaml --stepz 1 --json"};
  for (int i = 0; i < 3; i++) {
    result r = call(lines[i]);
    json_error_t e;
    json_t *doc = json_loads(r.out, 0, &e), *error = json_object_get(doc, "error");
    CHECK(error && json_integer_value(json_object_get(error, "exit_code")) == 2 &&
              json_string_length(json_object_get(error, "message")) > 10,
          "%s: %s", lines[i], r.out);
    CHECK(r.code == 2 && !r.err[0], "only JSON: %s", r.err);
    json_decref(doc);
  }
  result r = call("mneme train \xff\xfe.yaml b --json"); /* the message quotes bytes that JSON cannot hold */
  json_t *doc = json_loads(r.out, 0, NULL);
  CHECK(r.code == 2 && json_object_get(doc, "error"), "%s", r.out);
  json_decref(doc);
}

static void help_pages(void) {
  result r = call("mneme --help");
  CHECK(r.code == 0 && strstr(r.out, "Train and compare") && strstr(r.out, "Use a model") && strstr(r.out, "train a model"), "%s", r.out);
  CHECK(strstr(r.out, "Train and compare") < strstr(r.out, "Use a model"), "the purposes keep their order");
  CHECK(!strstr(r.out, "\nMeasure"), "no heading without a verb");
  const char *ways[] = {"mneme train --help", "mneme help train", "mneme train --steps x --help", "mneme train -h"};
  for (int i = 0; i < 4; i++) {
    r = call(ways[i]);
    CHECK(r.code == 0 && seen.calls == 0 && strstr(r.out, "mneme train RECIPE.yaml [options]"), "%s: %s", ways[i], r.out);
    CHECK(strstr(r.out, "--steps N") && strstr(r.out, "(default 100)") && strstr(r.out, "--set KEY=VALUE") && strstr(r.out, "Exit status"),
          "%s", r.out);
  }
  r = call("mneme stream --help");
  CHECK(!strstr(r.out, "--seed"), "only the options it takes: %s", r.out);
  for (char *line = strtok(r.out, "\n"); line; line = strtok(NULL, "\n"))
    CHECK(strlen(line) <= 100, "a line of %zu columns: %s", strlen(line), line);
  r = call("mneme --version");
  CHECK(r.code == 0 && !strncmp(r.out, "mneme ", 6) && strstr(r.out, "generic"), "%s", r.out);
  r = call("mneme --version --json");
  json_t *doc = json_loads(r.out, 0, NULL);
  CHECK(json_string_value(json_object_get(doc, "version")), "%s", r.out);
  const json_t *backends = json_object_get(doc, "backends");
  CHECK((int)json_array_size(backends) == mn_backend_count() && mn_backend_count() > 0, "%s", r.out);
  for (int i = 0; i < mn_backend_count(); i++) {
    mn_backend *b = NULL;
    CHECK_OK(mn_backend_open(json_string_value(json_array_get(backends, (size_t)i)), 1, &b));
    CHECK(b && !strcmp(b->name, mn_backend_name(i)), "backend %d", i);
    mn_backend_free(b);
  }
  json_decref(doc);
  r = call("mneme");
  CHECK(r.code == 2 && !r.out[0] && strstr(r.err, "Usage"), "no verb");
}

static void nearest_names(void) {
  static const char *const names[] = {"window", "num_heads", "head_dim", "learning_rate", "lr", "chunk", "steps"};
  static const struct {
    const char *word, *expect;
  } cases[] = {{"windwo", "window"},
               {"num-heads", "num_heads"},
               {"headdim", "head_dim"},
               {"learnig_rate", "learning_rate"},
               {"learning", "learning_rate"},
               {"Chunk", "chunk"},
               {"xyz", NULL},
               {"", NULL},
               {"q", NULL},
               {"step", "steps"}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    const char *got = mn_nearest(cases[i].word, names, 7);
    CHECK(got == cases[i].expect || (got && cases[i].expect && !strcmp(got, cases[i].expect)), "%s -> %s", cases[i].word,
          got ? got : "nothing");
  }
  char longword[400];
  memset(longword, 'w', sizeof longword - 1);
  longword[sizeof longword - 1] = 0;
  CHECK(!mn_nearest(longword, names, 7), "a very long word is only refused");
}

/* ---- the program itself ------------------------------------------------------------------------------------------- */

static int shell(const char *command, char *out, size_t size) {
  FILE *p = popen(command, "r");
  size_t n = p ? fread(out, 1, size - 1, p) : 0;
  out[n] = 0;
  int status = p ? pclose(p) : -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void the_program_runs(void) {
  char out[16384];
  int code = shell(MN_TEST_BINARY_DIR "/mneme --help", out, sizeof out);
  CHECK(code == 0 && strstr(out, "mneme VERB"), "%d %s", code, out);
  code = shell(MN_TEST_BINARY_DIR "/mneme nonsuch 2>&1", out, sizeof out);
  CHECK(code == 2 && strstr(out, "mneme: there is no verb 'nonsuch'"), "%d %s", code, out);
  code = shell("(" MN_TEST_BINARY_DIR "/mneme --help; echo $? >&2) 2>&1 >/dev/full | cat", out, sizeof out);
  CHECK(code == 0, "%s", out);
}

static int at_work = -1; /* where a child writes that its verb runs */

static mn_status wait_run(mn_cli *cli) {
  (void)cli;
  if (write(at_work, "", 1) != 1) return mn_fail(MN_ERR_IO, "nobody listens");
  for (int i = 0; i < 2000 && !mn_cli_interrupted(); i++) usleep(5000);
  if (seen.result == MN_OK) return mn_fail(MN_ERR_CANCELLED, "interrupted; saved");
  for (int i = 0; i < 2000; i++) usleep(5000); /* a verb that does not end: the second signal must */
  return MN_OK;
}

/* A child in which a verb waits for a signal, and does not end by the first one where it is stubborn. */
static pid_t waiting_verb(bool stubborn) {
  static const mn_verb wait_verb = {.name = "wait", .usage = "", .summary = "", .run = wait_run};
  static const mn_verb *const verbs[] = {&wait_verb};
  int working[2];
  char byte;
  CHECK(pipe(working) == 0, "a pipe");
  fflush(stdout);
  pid_t pid = fork();
  if (pid == 0) {
    freopen("/dev/null", "w", stderr);
    at_work = working[1];
    seen.result = stubborn ? MN_ERR_IO : MN_OK;
    char *argv[] = {"mneme", "wait", NULL};
    _exit(mn_cli_main(2, argv, verbs, 1));
  }
  close(working[1]);
  CHECK(read(working[0], &byte, 1) == 1, "the verb runs");
  close(working[0]);
  return pid;
}

/* A part of a verb that is interrupted by what comes twice: the part ends, the verb goes on. */
static mn_status part_run(mn_cli *cli) {
  (void)cli;
  mn_cli_part_begin();
  raise(SIGINT);
  raise(SIGINT);
  const bool stopped = mn_cli_part_end();
  raise(SIGINT); /* late, behind the part's end */
  return stopped && !mn_cli_interrupted() ? MN_OK : mn_fail(MN_ERR_NUMERIC, "the verb was asked to end");
}

static void interruption_of_a_part(void) {
  static const mn_verb part_verb = {.name = "part", .usage = "", .summary = "", .run = part_run};
  static const mn_verb *const verbs[] = {&part_verb};
  int status = 1;
  for (int i = 0; i < 5 && status; i++) { /* again, where the machine slept in between */
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
      freopen("/dev/null", "w", stderr);
      char *argv[] = {"mneme", "part", NULL};
      _exit(mn_cli_main(2, argv, verbs, 1));
    }
    waitpid(pid, &status, 0);
  }
  CHECK(status == 0, "status %x", (unsigned)status);
}

static void interruption(void) {
  int status = 0;
  static const int asking[] = {SIGINT, SIGTERM, SIGHUP};
  for (int i = 0; i < 3; i++) {
    pid_t pid = waiting_verb(false);
    kill(pid, asking[i]);
    waitpid(pid, &status, 0);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == MN_EXIT_INTERRUPTED, "signal %d: status %x", asking[i], (unsigned)status);
  }
  pid_t pid = waiting_verb(true);
  kill(pid, SIGTERM);
  usleep(50000);
  CHECK(waitpid(pid, &status, WNOHANG) == 0, "the first signal only asks");
  pid_t ended = 0;
  for (int i = 0; i < 80 && !ended; i++) kill(pid, SIGINT), usleep(100000), ended = waitpid(pid, &status, WNOHANG);
  CHECK(ended == pid && WIFSIGNALED(status) && WTERMSIG(status) == SIGINT, "status %x", (unsigned)status);
}

/* timeout(1) signals its child, and then the group in which the child is: one request, not the second one. */
static void a_signal_that_comes_twice_at_once(void) {
  int status = 0;
  pid_t pid = waiting_verb(false);
  kill(pid, SIGSTOP); /* so that both wait, and come one right after the other */
  CHECK(waitpid(pid, &status, WUNTRACED) == pid && WIFSTOPPED(status), "status %x", (unsigned)status);
  kill(pid, SIGINT);
  kill(pid, SIGTERM);
  kill(pid, SIGCONT);
  waitpid(pid, &status, 0);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == MN_EXIT_INTERRUPTED, "status %x", (unsigned)status);
}

/* ---- mneme runs --------------------------------------------------------------------------------------------------- */

static void runs_on_the_command_line(void) {
  char dir[64] = P_tmpdir "/mneme-test-cli-XXXXXX", command[512], out[65536];
  if (!mkdtemp(dir)) return;
  setenv("MNEME_HOME", dir, 1);
#define MNEME(args, expect)                                                                                                                \
  do {                                                                                                                                     \
    char line_[640];                                                                                                                       \
    snprintf(line_, sizeof line_, "%s/mneme %s 2>&1", MN_TEST_BINARY_DIR, args);                                                           \
    int code_ = shell(line_, out, sizeof out);                                                                                             \
    CHECK(code_ == (expect), "mneme %s: exit %d: %s", args, code_, out);                                                                   \
  } while (0)
  MNEME("runs list", 0);
  CHECK(strstr(out, "No runs yet"), "%s", out);
  MNEME("runs list --json", 0);
  CHECK(!strncmp(out, "[]", 2), "%s", out);
  CHECK(system("ln -s round round && MNEME_HOME=round " MN_TEST_BINARY_DIR "/mneme runs list >said 2>&1") == 1 << 8 &&
            system("grep -q 'symbolic links' said; r=$?; rm round said; exit $r") == 0,
        "a home that cannot be looked at is no empty one");
  MNEME("runs show 1", 1);
  CHECK(strstr(out, "mneme train"), "the remedy: %s", out);

  mn_runs *db;
  CHECK_OK(mn_runs_open(NULL, true, &db));
  for (int r = 0; r < 2; r++) {
    int64_t id;
    mn_run run = {.name = r ? "attention" : "titans",
                  .recipe = "{\"layers\":2}",
                  .parameters = 1234567,
                  .threads = 2,
                  .isa = "avx2",
                  .out_dir = dir,
                  .fingerprint = "f"};
    CHECK_OK(mn_run_begin(db, &run, &id));
    for (int step = 1; step <= 40; step++) CHECK_OK(mn_run_metric(db, id, step, step * 64, "loss", 3.0 + 4.0 / step + r));
    CHECK_OK(mn_run_metric(db, id, 40, 2560, "validation_loss", 3.25));
    CHECK_OK(mn_run_finish(db, id, "finished", ""));
  }
  mn_runs_close(db);
  MNEME("runs list", 0);
  CHECK(strstr(out, "titans") && strstr(out, "1.23M") && strstr(out, "3.2500") && strstr(out, "finished"), "%s", out);
  MNEME("runs list --json", 0);
  json_t *doc = json_loads(out, 0, NULL);
  CHECK(json_array_size(doc) == 2 && !strcmp(json_string_value(json_object_get(json_array_get(doc, 0), "name")), "attention"), "%s", out);
  json_decref(doc);
  MNEME("runs show titans --recipe", 0);
  CHECK(strstr(out, "run 1: titans, finished") && strstr(out, "validation_loss") && strstr(out, "\"layers\": 2"), "%s", out);
  MNEME("runs show 2 --json", 0);
  doc = json_loads(out, 0, NULL);
  CHECK(json_integer_value(json_object_get(json_object_get(json_object_get(doc, "metrics"), "loss"), "count")) == 40 &&
            json_integer_value(json_object_get(json_object_get(doc, "recipe"), "layers")) == 2,
        "%s", out);
  json_decref(doc);
  MNEME("runs plot 1 2", 0);
  CHECK(strstr(out, "1 titans") && strstr(out, "2 attention") && strstr(out, "└"), "%s", out);
  MNEME("runs plot 1 --x tokens --json", 0);
  doc = json_loads(out, 0, NULL);
  CHECK(json_array_size(json_object_get(json_array_get(doc, 0), "y")) == 40, "%s", out);
  json_decref(doc);
  snprintf(command, sizeof command, "runs plot 1 2 --out %s/a.svg --out %s/a.png", dir, dir);
  MNEME(command, 0);
  char path[128];
  snprintf(path, sizeof path, "%s/a.png", dir);
  CHECK(access(path, R_OK) == 0, "%s", out);

  static const struct {
    const char *args, *expect;
  } wrong[] = {{"runs", "runs needs more"},
               {"runs lits", "did you mean list?"},
               {"runs show", "which run?"},
               {"runs show 7", "no run '7'"},
               {"runs show titan", "did you mean titans?"},
               {"runs show 1 2", "one too many"},
               {"runs plot 1 --metric los", "did you mean loss?"},
               {"runs plot 1 --x stpe", "did you mean step?"},
               {"runs plot 1 --out a.gif", ".svg or .png"},
               {"runs list 3", "no more words"}};
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    MNEME(wrong[i].args, 2);
    CHECK(strstr(out, wrong[i].expect), "mneme %s: %s", wrong[i].args, out);
  }
  MNEME("runs delete 1 nosuch", 2);
  MNEME("runs delete 1 1", 2);
  MNEME("runs show 1", 0); /* all that are named, or none */
  MNEME("runs delete 1", 0);
  MNEME("runs show 1", 2);
  MNEME("runs list | head -1", 0); /* a reader that goes away */
  snprintf(command, sizeof command, "rm -rf %s", dir);
  CHECK(system(command) == 0, "%s", dir);
  unsetenv("MNEME_HOME");
}

/* ---- progress ----------------------------------------------------------------------------------------------------- */

static double fake_time;
static double fake_clock(void) { return fake_time; }

static int count_of(const char *text, const char *what) {
  int n = 0;
  for (const char *s = text; (s = strstr(s, what)); s += strlen(what)) n++;
  return n;
}

static void progress_lines(void) {
  char text[65536];
  for (int terminal = 0; terminal < 2; terminal++) {
    FILE *f = tmpfile();
    fake_time = 100;
    mn_progress *p = mn_progress_to(f, terminal, fake_clock, "train", "steps", 1000);
    for (int i = 1; i <= 500; i++) {
      fake_time += 0.05; /* 20 steps a second, 25 s in all */
      mn_progress_fields(p, "loss %.2f", 4.0 - i * 0.001);
      mn_progress_update(p, i);
    }
    slurp(f, text, sizeof text);
    int drawn = count_of(text, "train");
    if (terminal) CHECK(drawn >= 120 && drawn <= 250, "redrawn %d times in 25 s", drawn);
    else CHECK(drawn == 5, "%d plain lines in 25 s: %s", drawn, text);
    CHECK(strstr(text, "20.0/s") && strstr(text, "29s left") && strstr(text, "/1000 steps") && strstr(text, "loss 3.5"), "%s", text);
    CHECK(terminal == (strchr(text, '\r') != NULL), "in place only on a terminal");
    mn_progress_free(p);
    slurp(f, text, sizeof text);
    CHECK(text[strlen(text) - 1] == '\n', "the line is closed");
    fclose(f);
  }
  FILE *f = tmpfile(); /* work that ends within a second shows nothing; resumed work is not in the rate */
  fake_time = 0;
  mn_progress *p = mn_progress_to(f, true, fake_clock, "quick", "steps", 10);
  for (int i = 1; i <= 10; i++) fake_time += 0.09, mn_progress_update(p, i);
  mn_progress_free(p);
  slurp(f, text, sizeof text);
  CHECK(!text[0], "shown: %s", text);
  p = mn_progress_to(f, false, fake_clock, "resumed", "steps", 2000);
  mn_progress_begin_at(p, 1000);
  for (int i = 1; i <= 20; i++) fake_time += 1, mn_progress_update(p, 1000 + 10 * i);
  slurp(f, text, sizeof text);
  CHECK(strstr(text, "10.0/s") && !strstr(text, "100/s"), "%s", text);
  mn_progress_free(p);
  fclose(f);
  mn_progress_update(NULL, 3); /* progress never stops the work */
  mn_progress_free(NULL);
  char c[16];
  CHECK(!strcmp(mn_human_count(1234567, c), "1.23M") && !strcmp(mn_human_count(999.6, c), "1.00k"), "%s", c);
  CHECK(!strcmp(mn_human_count(12, c), "12") && !strcmp(mn_human_count(45600, c), "45.6k"), "%s", c);
  CHECK(!strcmp(mn_human_time(200, c), "3m 20s") && !strcmp(mn_human_time(3900, c), "1h 05m"), "%s", c);
}

int main(void) {
  RUN(nearest_names);
  RUN(options_reach_the_verb);
  RUN(wrong_usage_says_what_and_what_to_do);
  RUN(statuses_become_exit_codes);
  RUN(json_errors);
  RUN(help_pages);
  RUN(the_program_runs);
  RUN(interruption);
  RUN(interruption_of_a_part);
  RUN(a_signal_that_comes_twice_at_once);
  RUN(runs_on_the_command_line);
  RUN(progress_lines);
  return test_end();
}
