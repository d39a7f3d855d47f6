/* What must be true of checkpoints: a training that is killed at any moment, interrupted, or out of disk goes on to the same
 * bits as one that never was; what is damaged is passed over; another recipe or other data is refused by name; nothing is
 * removed or written but what a training wrote itself. */
#include <signal.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>

#include "train_helpers.h"
#include "train/checkpoint.h"

static atomic_int stop;
static int64_t stop_at = -1, limit_at = -1;
static int steps_to = -1;    /* a pipe that gets a byte for every step, or -1 */
static long stop_after = -1; /* microseconds after the last step, or -1 */
static int remarks, checkpoints;
static char last_remark[1024];

static void on_alarm(int sig) {
  (void)sig;
  stop = 1;
}

static void on_event(void *ctx, const mn_train_event *e) {
  (void)ctx;
  if (e->kind == MN_EVENT_STEP && e->step == stop_at) stop = 1;
  if (e->kind == MN_EVENT_STEP && stop_after >= 0)
    setitimer(ITIMER_REAL, &(struct itimerval){.it_value = {stop_after / 1000000, stop_after % 1000000}}, NULL);
  if (e->kind == MN_EVENT_STEP && steps_to >= 0 && write(steps_to, "", 1) != 1) _exit(3);
  if (e->kind == MN_EVENT_STEP && e->step == limit_at) { /* as a full disk: no file may grow beyond this */
    struct rlimit l;
    getrlimit(RLIMIT_FSIZE, &l);
    l.rlim_cur = 6000;
    setrlimit(RLIMIT_FSIZE, &l);
  }
  if (e->kind == MN_EVENT_CHECKPOINT) checkpoints++;
  if (e->kind == MN_EVENT_REMARK) remarks++, snprintf(last_remark, sizeof last_remark, "%s", e->text);
}

static mn_status train_into(const char *out, mn_recipe *r, bool resume, mn_train_result *result) {
  mn_train_options o = {.out_dir = out, .resume = resume, .threads = 2, .db_path = "", .watch = {.stop = &stop}, .event = on_event};
  mn_train_result unused;
  stop = 0;
  mn_status status = mn_train(r, &o, result ? result : &unused);
  mn_recipe_free(r);
  return status;
}

static mn_recipe *recipe(void) { return RECIPE("train.checkpoint_every=4", "train.keep_last=2"); }

/* Hash of the trained model and of what goes with it. */
static void run_hash(const char *out, char hex[2][33]) {
  char path[700];
  snprintf(path, sizeof path, "%s/model.safetensors", out);
  CHECK_OK(mn_file_hash(path, hex[0]));
  snprintf(path, sizeof path, "%s/checkpoints/step-40/optimizer.safetensors", out);
  CHECK_OK(mn_file_hash(path, hex[1]));
}

static char straight[2][33];

static void test_straight_through(void) {
  mn_train_result r;
  CHECK_OK(train_into(test_path("straight"), recipe(), false, &r));
  run_hash(test_path("straight"), straight);
  CHECK(r.steps == 40 && r.tokens == 40 * 4 * 32 && r.validation.batches > 0 && !r.already_done, "%lld steps, %lld tokens",
        (long long)r.steps, (long long)r.tokens);
  static const char *const files[] = {"model.safetensors", "config.json", "tokenizer.json", "recipe.json", "metrics.jsonl"};
  char path[700];
  for (int i = 0; i < 5; i++) {
    snprintf(path, sizeof path, "%s/%s", test_path("straight"), files[i]);
    CHECK(mn_file_exists(path), "%s is written", path);
  }
  int64_t *steps;
  size_t n;
  CHECK_OK(mn_checkpoint_list(test_path("straight"), &steps, &n));
  CHECK(n == 2 && steps[0] == 40 && steps[1] == 36, "the last two are kept: %zu", n);
  free(steps);
  mn_backend *b;
  mn_model *m;
  mn_params *p;
  CHECK_OK(mn_backend_cpu_new(1, &b));
  CHECK_OK(mn_model_load_dir(test_path("straight"), b, MN_F32, &m, &p));
  mn_params_free(p);
  mn_model_free(m);
  mn_backend_free(b);
  CHECK(train_into(test_path("straight"), recipe(), false, NULL) == MN_ERR_CONFIG && strstr(mn_message(), "--resume"), "%s", mn_message());
  CHECK_OK(train_into(test_path("straight"), recipe(), true, &r));
  CHECK(r.already_done && r.steps == 40, "a finished run is finished");
}

/* Trains in a process of its own that is killed after a random number of steps and a random part of the next, again and again,
 * until it ends by itself. The moment is counted in steps, so that the kill finds it at work on a fast machine and on a slow one. */
static int kills_until_done(const char *out, mn_recipe *(*make)(void), int kills, uint64_t seed) {
  int killed = 0;
  for (int round = 0; round < 200; round++) {
    int steps[2];
    CHECK(pipe(steps) == 0, "a pipe");
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
      close(steps[0]);
      steps_to = steps[1];
      mn_status status = train_into(out, make(), true, NULL);
      if (status != MN_OK) fprintf(stderr, "%s\n", mn_message());
      _exit(status == MN_OK ? 0 : 1);
    }
    close(steps[1]);
    if (killed < kills) {
      char byte;
      int life = (int)(12 * mn_random_uniform(seed, 0, (uint64_t)round));
      double seconds = 0.005 * mn_random_uniform(seed, 1, (uint64_t)round);
      while (life-- > 0 && read(steps[0], &byte, 1) == 1) {
      }
      nanosleep(&(struct timespec){0, (long)(seconds * 1e9)}, NULL);
      kill(child, SIGKILL);
    }
    int status;
    waitpid(child, &status, 0);
    close(steps[0]); /* only now: a child that may not write would end */
    if (WIFSIGNALED(status)) killed++;
    else {
      CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the training failed");
      return killed;
    }
  }
  CHECK(false, "it never ended");
  return killed;
}

static void test_killed_and_resumed(void) {
  char hex[2][33];
  int killed = kills_until_done(test_path("killed"), recipe, 6, 11);
  CHECK(killed > 0, "at least one kill found it at work");
  run_hash(test_path("killed"), hex);
  CHECK(!strcmp(hex[0], straight[0]) && !strcmp(hex[1], straight[1]), "%d kills: model %s, never killed %s", killed, hex[0], straight[0]);
}

static mn_recipe *carried(void) {
  return RECIPE("train.checkpoint_every=4", "train.carry_state=true", "data.order=sequential", "train.accumulate=2",
                "train.optimizer.type=muon", "train.precision=bf16", "train.steps=16");
}

/* Carried state, accumulation, Muon, bf16: everything that a step changes must be in the checkpoint. */
static void test_all_that_changes_is_kept(void) {
  char a[33], b[33], path[700];
  CHECK_OK(train_into(test_path("carried"), carried(), false, NULL));
  stop_at = 7;
  CHECK(train_into(test_path("carried-stopped"), carried(), false, NULL) == MN_ERR_CANCELLED, "interrupted");
  stop_at = -1;
  CHECK_OK(train_into(test_path("carried-stopped"), carried(), true, NULL));
  snprintf(path, sizeof path, "%s/checkpoints/step-16/optimizer.safetensors", test_path("carried"));
  CHECK_OK(mn_file_hash(path, a));
  snprintf(path, sizeof path, "%s/checkpoints/step-16/optimizer.safetensors", test_path("carried-stopped"));
  CHECK_OK(mn_file_hash(path, b));
  CHECK(!strcmp(a, b), "moments and state: %s and %s", a, b);
  CHECK_OK(mn_file_hash(test_path("carried/model.safetensors"), a));
  CHECK_OK(mn_file_hash(test_path("carried-stopped/model.safetensors"), b));
  CHECK(!strcmp(a, b), "model: %s and %s", a, b);
}

static void test_interrupted_and_resumed(void) {
  char hex[2][33];
  mn_train_result r;
  stop_at = 13;
  CHECK(train_into(test_path("stopped"), recipe(), false, &r) == MN_ERR_CANCELLED && strstr(mn_message(), "step 13") &&
            strstr(mn_message(), "--resume"),
        "%s", mn_message());
  CHECK(r.steps == 13, "%lld steps", (long long)r.steps);
  stop_at = -1;
  CHECK_OK(train_into(test_path("stopped"), recipe(), true, &r));
  run_hash(test_path("stopped"), hex);
  CHECK(!strcmp(hex[0], straight[0]) && !strcmp(hex[1], straight[1]), "model %s, uninterrupted %s", hex[0], straight[0]);
  char *log;
  size_t n;
  int lines = 0;
  CHECK_OK(mn_file_read(test_path("stopped/metrics.jsonl"), 1 << 20, &log, &n));
  for (size_t i = 0; i < n; i++) lines += log[i] == '\n';
  CHECK(lines == 41, "a line for each of 40 steps and one of validation: %d", lines);
  free(log);
}

/* Reading a long text looks at the flag that is raised now, and so does writing what is checked as it would be read. */
static mn_recipe *long_recipe(void) {
  enum { FILES = 1500 };
  mn_text files = {0};
  CHECK_OK(mn_file_write(test_path("a-few-words-of-which-there-are-many"), "the old whale\n", 14));
  mn_text_addf(&files, "data.files=[%s", test_path("text.txt"));
  for (int i = 0; i < FILES; i++) mn_text_addf(&files, ", %s", test_path("a-few-words-of-which-there-are-many"));
  mn_text_add(&files, "]");
  mn_recipe *r = RECIPE(files.data, "train.checkpoint_every=4", "train.keep_last=2");
  CHECK(files.len > (1 << 16), "%zu bytes", files.len);
  mn_text_free(&files);
  return r;
}
static void test_interrupted_with_a_long_recipe(void) {
  char path[700], hex[2][33];
  mn_train_result r;
  CHECK_OK(train_into(test_path("long"), long_recipe(), false, NULL));
  snprintf(path, sizeof path, "%s/model.safetensors", test_path("long"));
  CHECK_OK(mn_file_hash(path, hex[0]));
  mn_recipe *again = long_recipe();
  stop_at = 13, stop = 0;
  mn_stop_watch(&stop); /* as the program's signals have it */
  const mn_status status = train_into(test_path("long-stopped"), again, false, &r);
  mn_stop_watch(NULL);
  CHECK(status == MN_ERR_CANCELLED && strstr(mn_message(), "step 13") && strstr(mn_message(), "--resume") && r.steps == 13, "%s",
        mn_message());
  stop_at = -1;
  int64_t *steps = NULL;
  size_t n = 0;
  CHECK_OK(mn_checkpoint_list(test_path("long-stopped"), &steps, &n));
  CHECK(n && steps[0] == 13, "what the flag ended is saved");
  free(steps);
  CHECK_OK(train_into(test_path("long-stopped"), long_recipe(), true, NULL));
  snprintf(path, sizeof path, "%s/model.safetensors", test_path("long-stopped"));
  CHECK_OK(mn_file_hash(path, hex[1]));
  CHECK(!strcmp(hex[0], hex[1]), "model %s, uninterrupted %s", hex[1], hex[0]);
}

static void test_a_full_disk(void) {
  char hex[2][33];
  fflush(stdout);
  pid_t child = fork(); /* the limit stays with the child */
  if (child == 0) {
    signal(SIGXFSZ, SIG_IGN);
    limit_at = 6;
    mn_status status = train_into(test_path("full"), recipe(), false, NULL);
    bool said = remarks > 0 && strstr(last_remark, "training goes on") && strstr(last_remark, "step 4 is intact");
    bool end = status == MN_ERR_IO && strstr(mn_message(), "could not be written") && strstr(mn_message(), "step 4 is intact");
    if (!said) fprintf(stderr, "remark: %s\n", last_remark);
    if (!end) fprintf(stderr, "end: %s\n", mn_message());
    _exit(said && end ? 0 : 1);
  }
  int status;
  waitpid(child, &status, 0);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "a full disk is said, and the training goes on to its end");
  int64_t *steps;
  size_t n;
  CHECK_OK(mn_checkpoint_list(test_path("full"), &steps, &n));
  CHECK(n == 1 && steps[0] == 4, "the checkpoint before is intact");
  free(steps);
  CHECK_OK(train_into(test_path("full"), recipe(), true, NULL));
  run_hash(test_path("full"), hex);
  CHECK(!strcmp(hex[0], straight[0]) && !strcmp(hex[1], straight[1]), "with room again it goes on to the same bits");
}

static void test_going_on_says_nothing_of_beginning(void) {
  stop_at = 6;
  CHECK(train_into(test_path("quiet"), recipe(), false, NULL) == MN_ERR_CANCELLED, "interrupted");
  stop_at = -1;
  remarks = 0;
  CHECK_OK(train_into(test_path("quiet"), recipe(), true, NULL));
  CHECK(remarks == 0, "%s", last_remark);
  CHECK_OK(train_into(test_path("begun"), recipe(), true, NULL));
  CHECK(remarks == 1 && strstr(last_remark, "begins at step 0"), "%s", last_remark);
}

static void test_a_damaged_checkpoint_is_passed_over(void) {
  char hex[2][33], path[700];
  stop_at = 14;
  CHECK(train_into(test_path("damaged"), recipe(), false, NULL) == MN_ERR_CANCELLED, "interrupted");
  stop_at = -1;
  snprintf(path, sizeof path, "%s/checkpoints/step-14/optimizer.safetensors", test_path("damaged"));
  CHECK(truncate(path, 1000) == 0, "cut short");
  setenv("MNEME_LOG", "error", 1);
  CHECK_OK(train_into(test_path("damaged"), recipe(), true, NULL));
  unsetenv("MNEME_LOG");
  run_hash(test_path("damaged"), hex);
  CHECK(!strcmp(hex[0], straight[0]) && !strcmp(hex[1], straight[1]), "from the one before it, to the same bits");
}

static void test_another_recipe_is_refused(void) {
  mn_recipe *r = RECIPE("train.checkpoint_every=4", "train.optimizer.lr=1e-4");
  CHECK(train_into(test_path("straight"), r, true, NULL) == MN_ERR_CONFIG &&
            strstr(mn_message(), "train.optimizer.lr was 0.005 and is 0.0001"),
        "%s", mn_message());
  r = RECIPE("model.block.hidden=96");
  CHECK(train_into(test_path("straight"), r, true, NULL) == MN_ERR_CONFIG &&
            strstr(mn_message(), "model.blocks[0].hidden was 64 and is 96"),
        "%s", mn_message());
  char *text;
  size_t n;
  CHECK_OK(mn_file_read(test_path("text.txt"), 1 << 20, &text, &n));
  text[100] = '#';
  CHECK_OK(mn_file_write(test_path("text.txt"), text, n));
  CHECK(train_into(test_path("straight"), recipe(), true, NULL) == MN_ERR_CONFIG &&
            strstr(mn_message(), "a file of `data`, or a teacher, has changed"),
        "%s", mn_message());
  free(text);
}

static const char *inside(const char *run, const char *name) {
  static char path[8][1300];
  static int turn;
  char *p = path[turn++ % 8];
  snprintf(p, sizeof path[0], "%s/%s", test_path(run), name);
  return p;
}

static bool holds(const char *path, const char *expected) {
  char *data = NULL;
  size_t n = 0;
  bool same = mn_file_read(path, 1 << 20, &data, &n) == MN_OK && n == strlen(expected) && !memcmp(data, expected, n);
  free(data);
  return same;
}

static void test_links_are_never_entered(void) {
  stop_at = 6;
  CHECK(train_into(test_path("trapped"), recipe(), false, NULL) == MN_ERR_CANCELLED, "interrupted");
  stop_at = -1;
  CHECK_OK(mn_make_dirs(test_path("archive")));
  static const char *const names[] = {"model.safetensors", "optimizer.safetensors", "trainer.json", ".mneme-1-1.tmp"};
  for (int i = 0; i < 4; i++) CHECK_OK(mn_file_write(inside("archive", names[i]), "archived", 8));
  static const char *const links[] = {"checkpoints/writing-x", "checkpoints/writing-step-8", "checkpoints/step-3", "checkpoints/step-40"};
  for (int i = 0; i < 4; i++) CHECK(symlink(test_path("archive"), inside("trapped", links[i])) == 0, "%s", links[i]);
  CHECK(unlink(inside("trapped", "model.safetensors")) == 0 && symlink(inside("archive", names[0]), inside("trapped", names[0])) == 0,
        "a link");
  CHECK_OK(train_into(test_path("trapped"), recipe(), true, NULL));
  for (int i = 0; i < 4; i++) CHECK(holds(inside("archive", names[i]), "archived"), "%s is as it was", names[i]);
  char hex[2][33];
  run_hash(test_path("trapped"), hex);
  CHECK(!strcmp(hex[0], straight[0]) && !strcmp(hex[1], straight[1]), "and the training ends with the same bits");
  CHECK_OK(mn_make_dirs(test_path("astray")));
  CHECK(symlink(test_path("archive"), inside("astray", "checkpoints")) == 0, "a link");
  CHECK(train_into(test_path("astray"), recipe(), false, NULL) == MN_ERR_IO && strstr(mn_message(), "symbolic link"), "%s", mn_message());
  char **list;
  size_t n;
  CHECK_OK(mn_dir_list(test_path("archive"), &list, &n));
  CHECK(n == 4, "nothing came into the archive: %zu names", n);
  mn_dir_list_free(list, n);
}

static void test_what_a_user_keeps_in_a_checkpoint_stays(void) {
  stop_at = 6;
  CHECK(train_into(test_path("kept"), recipe(), false, NULL) == MN_ERR_CANCELLED, "interrupted");
  stop_at = -1;
  CHECK_OK(mn_make_dirs(inside("kept", "checkpoints/step-6/model.d")));
  CHECK_OK(mn_make_dirs(inside("kept", "checkpoints/step-40")));
  CHECK_OK(mn_make_dirs(inside("kept", "checkpoints/writing-mine")));
  CHECK_OK(mn_file_write(inside("kept", "checkpoints/step-6/notes.txt"), "mine", 4));
  CHECK_OK(mn_file_write(inside("kept", "checkpoints/step-40/notes.txt"), "mine too", 8));
  CHECK_OK(mn_file_write(inside("kept", "checkpoints/writing-mine/notes.txt"), "mine as well", 12));
  setenv("MNEME_LOG", "error", 1);
  CHECK_OK(train_into(test_path("kept"), recipe(), true, NULL));
  unsetenv("MNEME_LOG");
  CHECK(holds(inside("kept", "checkpoints/step-6/notes.txt"), "mine") && mn_file_exists(inside("kept", "checkpoints/step-6/model.d")),
        "step 6");
  CHECK(holds(inside("kept", "checkpoints/step-40/notes.txt"), "mine too"), "step 40");
  CHECK(holds(inside("kept", "checkpoints/writing-mine/notes.txt"), "mine as well"), "a directory called as unfinished ones are");
  CHECK(!mn_file_exists(inside("kept", "checkpoints/step-6/model.safetensors")), "the checkpoint itself went");
  char hex[2][33];
  run_hash(test_path("kept"), hex);
  CHECK(!strcmp(hex[0], straight[0]) && !strcmp(hex[1], straight[1]), "and the training ends with the same bits");
  int64_t *steps;
  size_t n;
  CHECK_OK(mn_checkpoint_list(test_path("kept"), &steps, &n));
  CHECK(n == 2 && steps[0] == 40 && steps[1] == 36, "the last two are checkpoints: %zu", n);
  free(steps);
}

static void test_a_checkpoint_is_nobody_elses_file(void) {
  char before[33], after[33];
  const char *model = inside("straight", "checkpoints/step-40/model.safetensors");
  CHECK_OK(mn_file_hash(model, before));
  FILE *f = fopen(inside("straight", "model.safetensors"), "r+");
  CHECK(f && fseek(f, 2000, SEEK_SET) == 0 && fputs("written over in place", f) >= 0 && fclose(f) == 0, "written over");
  CHECK_OK(mn_file_hash(model, after));
  CHECK(!strcmp(before, after), "the checkpoint has not changed");
}

static void test_one_process_per_directory(void) {
  fflush(stdout);
  int ready[2];
  CHECK(pipe(ready) == 0, "a pipe");
  pid_t child = fork();
  if (child == 0) {
    mn_recipe *r = RECIPE("train.steps=100000");
    (void)!write(ready[1], "x", 1);
    train_into(test_path("busy"), r, false, NULL);
    _exit(0);
  }
  char c;
  (void)!read(ready[0], &c, 1);
  for (int i = 0; i < 60000 && !mn_file_exists(test_path("busy/metrics.jsonl")) && waitpid(child, NULL, WNOHANG) == 0; i++)
    nanosleep(&(struct timespec){0, 1000000}, NULL);
  CHECK(train_into(test_path("busy"), recipe(), true, NULL) == MN_ERR_IO && strstr(mn_message(), "another process"), "%s", mn_message());
  kill(child, SIGKILL);
  waitpid(child, NULL, 0);
  close(ready[0]);
  close(ready[1]);
}

/* Kernels of another instruction set round otherwise: a run that goes on with them is not the one that had not stopped, and that is said. */
static void test_other_kernels_are_said(void) {
  static const char words[] =
      "{name: isa, tokenizer: {type: bytes}, data: {files: [isa.txt], validation: 0}, model: {d_model: 16, layers: 1, block: "
      "{mixer: {type: gated_deltanet, heads: 2}}}, train: {steps: 2, batch: 1, seq_len: 8, checkpoint_every: 1}}";
  char command[2048], said[4096] = "";
  CHECK_OK(mn_file_write(test_path("isa.yaml"), words, sizeof words - 1));
  CHECK_OK(mn_file_write(test_path("isa.txt"), words, sizeof words - 1));
  snprintf(
      command, sizeof command,
      "cd '%s' && export MNEME_HOME=. && M='" MN_TEST_BINARY_DIR "/mneme train isa.yaml' && MNEME_CPU_ISA=generic $M --out isa --quiet "
      ">/dev/null 2>&1 && $M --out best --quiet >/dev/null 2>&1 && MNEME_CPU_ISA=generic $M --out isa --set train.steps=3 --resume 2>&1 | "
      "grep -c kernels; $M --out isa --set train.steps=4 --resume 2>&1 | grep -c 'kernels of generic until now'; "
      "grep -c '\"isa\": \"generic\"' best/checkpoints/step-2/trainer.json",
      test_path(""));
  FILE *p = popen(command, "r");
  const size_t n = p ? fread(said, 1, sizeof said - 1, p) : 0;
  said[n] = 0;
  if (p) pclose(p);
  CHECK(!strcmp(said, "0\n1\n0\n") || !strcmp(said, "0\n0\n1\n"), "the same, others, or a machine that has no others: %s", said);
}

/* The last validation is left wherever a signal finds it: the model is whole, and a part of the batches makes no figure. */
static void test_a_validation_that_is_left(void) {
  signal(SIGALRM, on_alarm);
  int64_t all = 0;
  int left = 0;
  for (stop_after = 1; all == 0 && stop_after < 60000000; stop_after = stop_after * 3 / 2 + 1) {
    mn_train_result r;
    char name[32];
    snprintf(name, sizeof name, "left-%d", left);
    remarks = 0;
    CHECK_OK(train_into(test_path(name), RECIPE("train.steps=1", "train.validation_batches=4096", "data.validation=0.9"), false, &r));
    all = r.validation.batches;
    left += all == 0;
    CHECK(all == 0 || r.validation.loss > 0, "%lld batches, loss %g", (long long)all, r.validation.loss);
    CHECK(all != 0 || (remarks == 1 && strstr(last_remark, "mneme eval")), "%d remarks, %s", remarks, last_remark);
    CHECK(all == 0 || all > 8, "only %lld batches: too few to be left in between", (long long)all);
  }
  stop_after = -1;
  setitimer(ITIMER_REAL, &(struct itimerval){0}, NULL);
  CHECK(left > 0 && all > 0, "%d were left, then %lld batches ended", left, (long long)all);
}

int main(void) {
  test_setup("resume");
  RUN(test_straight_through);
  RUN(test_killed_and_resumed);
  RUN(test_interrupted_and_resumed);
  RUN(test_a_validation_that_is_left);
  RUN(test_interrupted_with_a_long_recipe);
  RUN(test_all_that_changes_is_kept);
  RUN(test_a_full_disk);
  RUN(test_going_on_says_nothing_of_beginning);
  RUN(test_a_damaged_checkpoint_is_passed_over);
  RUN(test_links_are_never_entered);
  RUN(test_what_a_user_keeps_in_a_checkpoint_stays);
  RUN(test_a_checkpoint_is_nobody_elses_file);
  RUN(test_one_process_per_directory);
  RUN(test_another_recipe_is_refused);
  RUN(test_other_kernels_are_said);
  test_cleanup();
  return test_end();
}
