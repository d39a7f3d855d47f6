/* What must be true of the directory that a training leaves its result in: everything is tried before the first step; a training
 * that fails leaves what it found; a directory that vanishes in mid-run is made again or the training ends with an error; names
 * are names; what killed processes left is tidied. */
#include <errno.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/claim.h"
#include "train_helpers.h"
#include "train/checkpoint.h"
#include "train/out_dir.h"

static atomic_int stop;
static char remarks[4096];
static int64_t act_at = -1;
static void (*act)(void);

static void on_event(void *ctx, const mn_train_event *e) {
  (void)ctx;
  if (e->kind == MN_EVENT_STEP && e->step == act_at) act();
  if (e->kind == MN_EVENT_REMARK) snprintf(remarks + strlen(remarks), sizeof remarks - strlen(remarks), "%s\n", e->text);
}

static mn_status train_into(const char *out, mn_recipe *r, bool resume, const char *db) {
  mn_train_options o = {.out_dir = out, .resume = resume, .threads = 1, .db_path = db, .watch = {.stop = &stop}, .event = on_event};
  mn_train_result result;
  remarks[0] = 0;
  mn_status status = mn_train(r, &o, &result);
  mn_recipe_free(r);
  return status;
}

static mn_recipe *small(void) { return RECIPE("train.steps=12", "train.checkpoint_every=4"); }

static const char *in_out(const char *name) {
  static char path[8][700];
  static int turn;
  char *p = path[turn++ % 8];
  snprintf(p, sizeof path[0], "%s/%s", test_path("out"), name);
  return p;
}

static void clean(void) {
  char command[900];
  snprintf(command, sizeof command, "rm -rf '%s' '%s' '%s' '%s'", test_path("out"), test_path("moved"), test_path("other"), test_path("a"));
  CHECK(system(command) == 0, "clean");
}

static bool holds(const char *path, const char *expected) {
  char *data = NULL;
  size_t n = 0;
  bool same = mn_file_read(path, 1 << 20, &data, &n) == MN_OK && n == strlen(expected) && !memcmp(data, expected, n);
  free(data);
  return same;
}

static void a_training_that_keeps_nothing_leaves_nothing(void) {
  CHECK(train_into(test_path("a/b/c"), RECIPE("data.files=[/nonexistent]"), false, "") != MN_OK, "no data");
  CHECK(!mn_file_exists(test_path("a")), "the directories that were made for it are gone");
  CHECK_OK(mn_make_dirs(test_path("a/b")));
  CHECK_OK(mn_file_write(test_path("a/b/mine"), "mine", 4));
  CHECK(train_into(test_path("a/b/c"), RECIPE("data.files=[/nonexistent]"), false, "") != MN_OK, "no data");
  CHECK(train_into(test_path("a/b"), RECIPE("data.files=[/nonexistent]"), false, "") != MN_OK, "no data");
  char **names;
  size_t n;
  CHECK_OK(mn_dir_list(test_path("a/b"), &names, &n));
  CHECK(n == 1 && !strcmp(names[0], "mine"), "and what was there before is there, alone");
  mn_dir_list_free(names, n);
  CHECK_OK(train_into(test_path("out"), small(), false, ""));
  CHECK(!mn_file_exists(in_out(".lock")), "no lock stays after a training either");
  clean();
}

static void outputs_are_tried_before_the_first_step(void) {
  static const char *const files[] = {"model.safetensors", "config.json", "recipe.json", "tokenizer.json", "metrics.jsonl", ".lock"};
  act_at = 1;
  act = abort; /* no step is made */
  for (int kind = 0; kind < 3; kind++)
    for (int i = 0; i < 6; i++) {
      CHECK_OK(mn_make_dirs(test_path("out")));
      if (kind == 0) CHECK_OK(mn_make_dirs(in_out(files[i])));
      else if (kind == 1) CHECK(mkfifo(in_out(files[i]), 0666) == 0, "%s", strerror(errno));
      else if (i < 5) CHECK(mn_file_write(in_out(files[i]), "x", 1) == MN_OK && chmod(in_out(files[i]), 0444) == 0, "%s", files[i]);
      else continue;
      CHECK(train_into(test_path("out"), small(), false, "") == MN_ERR_IO && strstr(mn_message(), files[i]), "%s: %s", files[i],
            mn_message());
      clean();
    }
  static const char *const in_the_way[] = {"checkpoints", "checkpoints/step-12", "checkpoints/writing-step-12"};
  for (int i = 0; i < 3; i++) {
    CHECK_OK(mn_make_dirs(i ? in_out("checkpoints") : test_path("out")));
    CHECK_OK(mn_file_write(in_out(in_the_way[i]), "mine", 4));
    CHECK(train_into(test_path("out"), small(), false, "") == MN_ERR_IO && strstr(mn_message(), in_the_way[i]), "%s", mn_message());
    CHECK(holds(in_out(in_the_way[i]), "mine"), "%s is as it was", in_the_way[i]);
    clean();
  }
  CHECK_OK(mn_file_write(test_path("other"), "mine", 4));
  CHECK(train_into(test_path("other"), small(), false, "") == MN_ERR_IO &&
            train_into(test_path("other/x"), small(), false, "") == MN_ERR_IO,
        "%s", mn_message());
  CHECK(symlink("nowhere", test_path("out")) == 0 && train_into(test_path("out"), small(), false, "") == MN_ERR_IO, "%s", mn_message());
  CHECK(train_into("", small(), false, "") == MN_ERR_CONFIG, "%s", mn_message());
  CHECK(train_into(test_path("a"), small(), false, "/dev/null/x.db") == MN_ERR_IO && strstr(mn_message(), "--db"), "%s", mn_message());
  CHECK(train_into(test_path("a"), small(), false, test_dir) == MN_ERR_IO && strstr(mn_message(), "--db"), "%s", mn_message());
  CHECK(!mn_file_exists(test_path("a")) && !mn_file_exists(test_path("nowhere")), "nothing was made");
  act_at = -1;
  clean();
}

static void links_are_replaced_and_a_linked_directory_is_the_users_choice(void) {
  static const char *const files[] = {"model.safetensors", "config.json", "recipe.json", "tokenizer.json", "metrics.jsonl", ".lock"};
  struct stat st;
  CHECK_OK(mn_make_dirs(test_path("moved")));
  CHECK(symlink("moved", test_path("out")) == 0, "%s", strerror(errno));
  for (int hard = 0; hard < 2; hard++) {
    for (int i = 0; i < 6; i++) {
      char other[64];
      snprintf(other, sizeof other, "other/%d-%s", hard, files[i]);
      CHECK_OK(mn_make_dirs(test_path("other")));
      CHECK_OK(mn_file_write(test_path(other), "mine", 4));
      mn_file_remove(in_out(files[i]));
      CHECK((hard ? link : symlink)(test_path(other), in_out(files[i])) == 0, "%s", strerror(errno));
    }
    mn_recipe *r = hard ? RECIPE("train.steps=14", "train.checkpoint_every=4") : small();
    if (hard) { /* a new run beside checkpoints would be refused */
      char command[700];
      snprintf(command, sizeof command, "rm -r '%s'", in_out("checkpoints"));
      CHECK(system(command) == 0, "the old run goes");
    }
    if (!hard) CHECK(train_into(test_path("out"), small(), false, "") == MN_ERR_CONFIG, "a model that stands there by a link is one");
    CHECK(holds(in_out("model.safetensors"), "mine"), "and stays");
    mn_file_remove(in_out("model.safetensors"));
    CHECK_OK(train_into(test_path("out"), r, false, ""));
    for (int i = 0; i < 6; i++) {
      char other[64];
      snprintf(other, sizeof other, "other/%d-%s", hard, files[i]);
      CHECK(holds(test_path(other), "mine"), "%s is as it was", other);
      if (i < 5) CHECK(lstat(in_out(files[i]), &st) == 0 && S_ISREG(st.st_mode) && st.st_nlink == 1, "%s is a file of ours", files[i]);
    }
  }
  CHECK(lstat(test_path("out"), &st) == 0 && S_ISLNK(st.st_mode), "OUT is still the link that the user made");
  clean();
}

static void remove_out(void) {
  char command[700];
  snprintf(command, sizeof command, "rm -r '%s'", test_path("out"));
  CHECK(system(command) == 0, "removed");
}
static void move_out(void) { CHECK(rename(test_path("out"), test_path("moved")) == 0, "moved"); }
static void replace_out(void) {
  move_out();
  CHECK_OK(mn_make_dirs(test_path("out")));
  CHECK_OK(mn_file_write(in_out("mine"), "mine", 4));
}

static void a_directory_that_vanishes_is_made_again(void) {
  static const char *const files[] = {"model.safetensors", "config.json",   "recipe.json",
                                      "tokenizer.json",    "metrics.jsonl", "checkpoints/step-12/trainer.json"};
  static const int64_t when[] = {1, 6, 12};
  for (int i = 0; i < 3; i++) { /* before the first checkpoint, between two, after the last step */
    for (int moved = 0; moved < 2; moved++) {
      act_at = when[i];
      act = moved ? move_out : remove_out;
      CHECK_OK(train_into(test_path("out"), small(), false, ""));
      CHECK(strstr(remarks, "made again"), "it is said: %s", remarks);
      for (int k = 0; k < 6; k++) CHECK(mn_file_exists(in_out(files[k])), "%s is there at the end", files[k]);
      mn_backend *b;
      mn_model *m;
      mn_params *p;
      CHECK_OK(mn_backend_cpu_new(1, &b));
      CHECK_OK(mn_model_load_dir(test_path("out"), b, MN_F32, &m, &p));
      mn_params_free(p);
      mn_model_free(m);
      mn_backend_free(b);
      clean();
    }
  }
  act_at = -1;
}

static void empty_out(void) {
  char command[700];
  snprintf(command, sizeof command, "rm -r '%s'/*", test_path("out"));
  CHECK(system(command) == 0, "emptied");
}
static void remove_config(void) { CHECK(unlink(in_out("config.json")) == 0, "removed"); }
static void remove_model(void) { CHECK(unlink(in_out("model.safetensors")) == 0, "removed"); }

static void files_that_vanish_are_written_again(void) {
  static const char *const files[] = {"model.safetensors", "config.json",   "recipe.json",
                                      "tokenizer.json",    "metrics.jsonl", "checkpoints/step-12/trainer.json"};
  static void (*const acts[])(void) = {empty_out, remove_config, remove_model};
  static const int64_t when[] = {6, 12};
  for (int i = 0; i < 3; i++)
    for (int k = 0; k < 2; k++) {
      act_at = when[k];
      act = acts[i];
      CHECK_OK(train_into(test_path("out"), small(), false, ""));
      CHECK(strstr(remarks, "written again"), "it is said: %s", remarks);
      for (int f = 0; f < 6; f++) CHECK(mn_file_exists(in_out(files[f])), "%s is there at the end", files[f]);
      clean();
    }
  act_at = -1;
}

static void a_failed_training_leaves_no_cache(void) {
  char home[600], *before = getenv("MNEME_HOME") ? mn_strdup(getenv("MNEME_HOME")) : NULL;
  snprintf(home, sizeof home, "%s/not/yet", test_dir);
  setenv("MNEME_HOME", home, 1);
  CHECK_OK(mn_file_write(test_path("empty"), "", 0));
  char set[700];
  snprintf(set, sizeof set, "data.files=[%s]", test_path("empty"));
  CHECK(train_into(test_path("out"), RECIPE("tokenizer={type: bpe, vocab_size: 300}", "data.files=[/nonexistent]"), false, "") != MN_OK,
        "no data");
  CHECK(train_into(test_path("out"), RECIPE(set), false, "") != MN_OK, "an empty text");
  CHECK(train_into(test_path("out"), RECIPE("data.files=[/nonexistent]"), false, "") != MN_OK, "no data");
  CHECK(!mn_file_exists(test_path("not")) && !mn_file_exists(test_path("out")), "nothing was there before");
  if (before) setenv("MNEME_HOME", before, 1);
  free(before);
}

static void keep_notes(void) {
  CHECK_OK(mn_make_dirs(in_out("checkpoints/writing-step-4")));
  CHECK_OK(mn_file_write(in_out("checkpoints/writing-step-4/notes"), "mine", 4));
}

static void what_a_user_puts_there_meanwhile_stays(void) {
  act_at = 9;
  act = keep_notes;
  CHECK_OK(train_into(test_path("out"), small(), false, ""));
  act_at = -1;
  CHECK(holds(in_out("checkpoints/writing-step-4/notes"), "mine") && !mn_file_exists(in_out("checkpoints/step-4")),
        "step 4 went, the notes stay");
  CHECK(!*remarks, "and every checkpoint was written: %s", remarks);
  clean();
}

static void another_directory_in_its_place_is_not_touched(void) {
  act_at = 6;
  act = replace_out;
  CHECK(train_into(test_path("out"), small(), false, "") == MN_ERR_IO && strstr(mn_message(), "not the directory any more"), "%s",
        mn_message());
  act_at = -1;
  char **names;
  size_t n;
  CHECK_OK(mn_dir_list(test_path("out"), &names, &n));
  CHECK(n == 1 && holds(in_out("mine"), "mine"), "nothing came into it: %zu names", n);
  mn_dir_list_free(names, n);
  CHECK(mn_file_exists(test_path("moved/checkpoints/step-4/trainer.json")), "what was saved before is where it was moved to");
  clean();
}

static void a_name_is_no_path(void) {
  static const char *const bad[] = {"../escape", "a/b", "/abs", ".", "..", ".hidden", "a\tb", "a\033[31mb", "a\302\205b", "\377", ""};
  char set[400];
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    mn_arena *arena = mn_arena_new();
    const mn_value *root = NULL;
    mn_recipe *r = NULL;
    static const char text[] = "data: {files: [x]}\nmodel: {d_model: 8, layers: 1, block: {mixer: {type: attention}}}\nname: plain\n";
    CHECK_OK(mn_yaml_parse(arena, "recipe.yaml", text, strlen(text), &root));
    mn_value *name = (mn_value *)(uintptr_t)mn_value_get(root, "name");
    name->as.text = bad[i];
    CHECK(mn_recipe_parse(root, &r) == MN_ERR_CONFIG && strstr(mn_message(), "recipe.yaml:3") && strstr(mn_message(), "name"), "%zu: %s", i,
          mn_message());
    mn_arena_free(arena);
  }
  snprintf(set, sizeof set, "name=x%0300d", 1);
  mn_recipe *r = NULL;
  const char *one[] = {set};
  mn_recipe_free(small()); /* writes recipe.yaml */
  CHECK(mn_recipe_read(test_path("recipe.yaml"), one, 1, &r) == MN_ERR_CONFIG && strstr(mn_message(), "longer"), "%s", mn_message());
  one[0] = "name=Größe 2 (a+b), v1.5";
  CHECK_OK(mn_recipe_read(test_path("recipe.yaml"), one, 1, &r));
  mn_recipe_free(r);
}

static void what_killed_processes_left_is_tidied(void) {
  static const char *const where[] = {"out", "out/checkpoints/writing-step-4", "cache"}; /* MNEME_HOME is test_dir */
  for (int i = 0; i < 3; i++) {
    char path[64];
    CHECK_OK(mn_make_dirs(test_path(where[i])));
    snprintf(path, sizeof path, "%s/.mneme-4242-1.tmp", where[i]);
    CHECK_OK(mn_file_write(test_path(path), "half", 4));
  }
  CHECK_OK(mn_file_write(test_path("cache/.mneme-mine"), "mine", 4));
  CHECK_OK(mn_file_write(test_path("out/.mneme-s.safetensors.lock"), "", 0));
  CHECK_OK(train_into(test_path("out"), small(), false, ""));
  for (int i = 0; i < 3; i++) {
    char path[64];
    snprintf(path, sizeof path, "%s/.mneme-4242-1.tmp", where[i]);
    CHECK(!mn_file_exists(test_path(path)), "%s is gone", path);
  }
  CHECK(!mn_file_exists(in_out(".mneme-s.safetensors.lock")), "nor the lock of a session");
  CHECK(!mn_file_exists(in_out("checkpoints/writing-step-4")) && holds(test_path("cache/.mneme-mine"), "mine"), "and nothing else");
  clean();
}

/* Another process has the directory until `way` is closed, or for 0.3 s. */
static pid_t holder(int *way) {
  int told[2], held[2];
  char byte = 0;
  CHECK(pipe(told) == 0 && pipe(held) == 0, "%s", strerror(errno));
  fflush(stdout);
  const pid_t pid = fork();
  if (pid == 0) {
    mn_out_dir *d = NULL;
    const bool mine = mn_out_dir_open(test_path("out"), false, &d) == MN_OK;
    close(told[1]);
    (void)!write(held[1], &byte, 1);
    if (way) (void)!read(told[0], &byte, 1);
    else usleep(300000);
    mn_out_dir_close(d);
    _exit(!mine);
  }
  close(told[0]), close(held[1]);
  CHECK(read(held[0], &byte, 1) == 1, "it has it");
  close(held[0]);
  if (way) *way = told[1];
  else close(told[1]);
  return pid;
}

static bool ended_well(pid_t pid) {
  int code = 0;
  return waitpid(pid, &code, 0) == pid && WIFEXITED(code) && WEXITSTATUS(code) == 0;
}

/* The one before may still be at its last checkpoint, when the program that it worked for was killed. */
static void one_that_goes_on_waits_for_the_one_before(void) {
  int way;
  setenv("MNEME_LOG", "error", 1);
  CHECK_OK(train_into(test_path("out"), small(), false, ""));
  pid_t pid = holder(&way);
  CHECK(train_into(test_path("out"), small(), false, "") == MN_ERR_IO && strstr(mn_message(), "another process"),
        "a new one does not wait: %s", mn_message());
  close(way);
  CHECK(ended_well(pid), "the one before");
  pid = holder(NULL);
  CHECK_OK(train_into(test_path("out"), small(), true, ""));
  CHECK(ended_well(pid) && !mn_file_exists(in_out(".lock")), "and no lock is left");
  unsetenv("MNEME_LOG");
  clean();
}

/* Where no file can be made it is said, and not that one is missing. */
static void a_claim_where_nothing_may_be_written_says_so(void) {
  CHECK_OK(mn_make_dirs(test_path("out")));
  CHECK(chmod(test_path("out"), 0555) == 0, "%s", strerror(errno));
  fflush(stdout);
  const pid_t pid = fork();
  if (pid == 0) { /* permissions do not bind root */
    mn_claim *c = NULL;
    if (getuid() == 0 && (setgid(65534) || setuid(65534))) _exit(9);
    _exit(mn_claim_take(in_out("x"), &c) == MN_ERR_IO && strstr(mn_message(), strerror(EACCES)) ? 0 : 1);
  }
  CHECK(ended_well(pid), "permission denied");
  CHECK(chmod(test_path("out"), 0755) == 0, "%s", strerror(errno));
  clean();
}

int main(void) {
  test_setup("out-dir");
  RUN(a_training_that_keeps_nothing_leaves_nothing);
  RUN(outputs_are_tried_before_the_first_step);
  RUN(links_are_replaced_and_a_linked_directory_is_the_users_choice);
  RUN(a_directory_that_vanishes_is_made_again);
  RUN(files_that_vanish_are_written_again);
  RUN(a_failed_training_leaves_no_cache);
  RUN(what_a_user_puts_there_meanwhile_stays);
  RUN(another_directory_in_its_place_is_not_touched);
  RUN(a_name_is_no_path);
  RUN(what_killed_processes_left_is_tidied);
  RUN(one_that_goes_on_waits_for_the_one_before);
  RUN(a_claim_where_nothing_may_be_written_says_so);
  test_cleanup();
  return test_end();
}
