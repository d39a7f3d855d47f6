/* Limits of the system - the size of a file, memory, open files, time of the processor - end the program with a message and
 * an exit status of its own, never by a signal, and leave earlier files as they were. */
#include "test.h"

#include <stdbool.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char dir[400];

/* Runs a shell line in the directory, $M being the program; what it said on both channels is in `said`. */
static char said[8192];
static int sh(const char *line) {
  char command[2000];
  snprintf(command, sizeof command, "cd '%s' && M='%s/mneme' && { %s; } 2>&1", dir, MN_TEST_BINARY_DIR, line);
  FILE *p = popen(command, "r");
  size_t n = p ? fread(said, 1, sizeof said - 1, p) : 0;
  said[n] = 0;
  int status = p ? pclose(p) : -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static void write_file(const char *name, const char *text, int times) {
  char path[500];
  snprintf(path, sizeof path, "%s/%s", dir, name);
  FILE *f = fopen(path, "w");
  for (int i = 0; i < times; i++) fputs(text, f);
  fclose(f);
}

#define TRAIN "$M train r.yaml --quiet --db none.db --out "

/* What no machine trains is refused at once, with the name of what is largest: it may be no width of the model itself. */
static void a_model_that_no_memory_holds(void) {
  write_file("wide.yaml",
             "data: {files: [t.txt], cache: cache}\ntokenizer: {type: bytes}\n"
             "model: {d_model: 8, layers: 1, block: {mixer: {type: lstm, hidden: 1048576}}}\ntrain: {steps: 1, batch: 2, seq_len: 32}\n",
             1);
  CHECK(sh("$M train wide.yaml --quiet --db none.db --out wide") == 1, "%s", said);
  CHECK(strstr(said, "GiB") && strstr(said, "layers.0.mixer.h_proj.weight") && strstr(said, "4194304"), "%s", said);
}

static void a_model(void) {
  write_file("t.txt", "The whale and the sea and the ship sailed far and old.\n", 3000);
  write_file("r.yaml",
             "data: {files: [t.txt], cache: cache}\nmodel: {d_model: 32, layers: 2, block: {mixer: {type: attention}}}\n"
             "train: {steps: 6, batch: 2, seq_len: 32, checkpoint_every: 2, validate_every: 0}\n",
             1);
  CHECK(sh(TRAIN "model") == 0, "%s", said);
  CHECK(sh("cp -r model before") == 0, "%s", said);
}

static void a_limit_on_the_size_of_files_is_a_message(void) {
  static const int kib[] = {1, 4, 40, 100, 130};
  for (int i = 0; i < 5; i++) {
    char line[300];
    snprintf(line, sizeof line, "rm -rf out; ulimit -f %d; " TRAIN "out", 2 * kib[i]); /* blocks of 512 bytes */
    int code = sh(line);
    CHECK(code == 1 && strstr(said, "File too large"), "%d KiB: exit status %d: %s", kib[i], code, said);
    snprintf(line, sizeof line, "rm -rf cache2; ulimit -f %d; " TRAIN "out --set data.cache=cache2", 2 * kib[i]);
    code = sh(line);
    CHECK(code == 1 && strstr(said, "File too large"), "%d KiB, tokenising: exit status %d: %s", kib[i], code, said);
  }
  CHECK(
      sh("ulimit -f 20; $M stream --model model --random 100 --session-out s.safetensors --json >/dev/null; s=$?; test ! -e s.safetensors "
         "&& exit $s") == 1,
      "a session: %s", said);
  CHECK(sh("s='$M stream --model model --random 9 --quiet --session-out s.safetensors'; eval $s >/dev/null; n=$(stat -c %s s.safetensors); "
           "ulimit -f $((n / 512 + 2)); eval $s >/dev/null") == 0,
        "one that has just the room it needs: %s", said);
  CHECK(sh("ulimit -f 20; " TRAIN "model --resume --set train.steps=8") == 1, "%s", said);
  CHECK(sh("cmp model/model.safetensors before/model.safetensors && diff -r model/checkpoints before/checkpoints") == 0, "intact: %s",
        said);
}

static void memory_that_is_not_there_is_a_message(void) {
  int crashed = 0, refused = 0;
  for (int kib = 60000; kib <= 100000; kib += 5000) {
    char line[200];
    snprintf(line, sizeof line, "rm -rf out; ulimit -v %d; " TRAIN "out", kib);
    int code = sh(line);
    if (code > 128 && !strstr(said, "loading shared libraries")) crashed++, printf("%d KiB: %d: %s\n", kib, code, said);
    if (code == 1) refused++;
    if (code == 1 && !strstr(said, "memory") && !strstr(said, "thread")) crashed++, printf("%d KiB says only: %s\n", kib, said);
  }
  CHECK(crashed == 0, "%d ended without a word", crashed);
  (void)refused; /* how much the libraries take differs from machine to machine */
}

static void open_files_that_are_not_there_are_a_message(void) {
  for (int n = 3; n < 16; n++) {
    char line[200];
    snprintf(line, sizeof line, "rm -rf out; exec 2>&1; ulimit -n %d; exec " TRAIN "out", n);
    int code = sh(line);
    CHECK(code == 0 || (code == 1 && strstr(said, "oo many open files")) || strstr(said, "loading shared libraries"), "%d files: %d: %s", n,
          code, said);
  }
}

/* A small stack ended a training by a signal, without a word. The soft limit is raised, also for threads. */
static void a_small_stack_is_a_message(void) {
  if (TEST_ADDRESS_SANITIZER) return;
  CHECK(sh("rm -rf out; ulimit -s 128; " TRAIN "out") == 1 && strstr(said, "128 kB (ulimit -s), and 1024"), "%s", said);
  CHECK(access("out", F_OK) != 0, "it was refused, and began");
  CHECK(sh("rm -rf out; ulimit -Ss 64; " TRAIN "out --threads 3") == 0, "%s", said);
}

/* The soft limit alone, and both limits at once, as `ulimit -t` sets them. */
static void the_end_of_processor_time_is_as_an_interruption(void) {
  for (int both = 0; both < 2; both++) {
    char line[300];
    snprintf(line, sizeof line,
             "rm -rf out; ulimit %s-t %d; " TRAIN "out --threads 1 --set train.steps=100000000 --set train.checkpoint_every=0",
             both ? "" : "-S ", both ? 2 : 1);
    int code = sh(line);
    CHECK(code == 3 && strstr(said, "limit of CPU time") && strstr(said, "--resume goes on"), "%d: %s", code, said);
    CHECK(sh("ls out/checkpoints/*/trainer.json") == 0, "its checkpoint: %s", said);
  }
}

static void inspect_says_whether_checksums_hold(void) {
  CHECK(sh("$M inspect model") == 0 && strstr(said, "model.safetensors: checksums hold") && strstr(said, "config.json: checksum holds") &&
            strstr(said, "trained with") && strstr(said, "step          6"),
        "%s", said);
  CHECK(sh("$M inspect model/checkpoints/step-6/optimizer.safetensors --json") == 0 && strstr(said, "\"checksums\": \"hold\"") &&
            strstr(said, "\"weights\""),
        "%s", said);
  /* as another program writes it */
  char path[500];
  snprintf(path, sizeof path, "%s/other.safetensors", dir);
  FILE *f = fopen(path, "wb");
  const char *header = "{\"x\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}";
  unsigned char length[8] = {(unsigned char)strlen(header)};
  fwrite(length, 1, 8, f);
  fwrite(header, 1, strlen(header), f);
  fwrite("\0\0\0\0\0\0\0\0", 1, 8, f);
  fclose(f);
  CHECK(sh("$M inspect other.safetensors") == 0 && strstr(said, "no checksums: not written by Mneme"), "%s", said);
  CHECK(sh("printf x | dd of=model/model.safetensors bs=1 seek=20000 conv=notrunc 2>/dev/null; $M inspect model") == 1 &&
            strstr(said, "does not match its checksum"),
        "%s", said);
  CHECK(sh("$M eval --model model") == 1 && strstr(said, "does not match its checksum"), "%s", said);
}

/* A text that shrinks under a stream: said, and what was read is kept. */
static void a_text_that_shrinks_ends_a_stream_with_its_session(void) {
  write_file("long.txt", "The whale and the sea and the ship sailed far and old.\n", 200000);
  CHECK(sh("rm -f s.safetensors streamed; { $M stream --model model --forget --segment 8 --threads 1 long.txt --every 1000 --json "
           "--session-out s.safetensors >streamed & p=$!; until [ -s streamed ] || ! kill -0 $p 2>/dev/null; do sleep 0.01; done; "
           "truncate -s 3000 long.txt; wait $p; }") == 1 &&
            strstr(said, "long.txt was cut short") && strstr(said, "session is in s.safetensors"),
        "%s", said);
  CHECK(sh("$M inspect s.safetensors") == 0 && strstr(said, "checksums hold"), "%s", said);
}

int main(void) {
  snprintf(dir, sizeof dir, "%s/mneme-limits-%d", getenv("TMPDIR") ? getenv("TMPDIR") : P_tmpdir, (int)getpid());
  if (mkdir(dir, 0777) != 0) return 1;
  RUN(a_model);
  RUN(a_model_that_no_memory_holds);
  RUN(a_limit_on_the_size_of_files_is_a_message);
  RUN(a_small_stack_is_a_message);
  if (!TEST_ADDRESS_SANITIZER) RUN(memory_that_is_not_there_is_a_message);
  RUN(open_files_that_are_not_there_are_a_message);
  RUN(the_end_of_processor_time_is_as_an_interruption);
  RUN(a_text_that_shrinks_ends_a_stream_with_its_session);
  RUN(inspect_says_whether_checksums_hold);
  char command[500];
  snprintf(command, sizeof command, "rm -rf '%s'", dir);
  if (system(command) != 0) printf("%s was left behind\n", dir);
  return test_end();
}
