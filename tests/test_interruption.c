/* test_interruption.c - SIGTERM and SIGINT are heard: every verb, whatever it is busy with or waiting for, says that it ends
 * and ends, with exit status 3. And what it is busy with costs memory in proportion to what it must hold, whatever the text. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "base/text.h"
#include "format/safetensors.h"
#include "task/rng.h"
#include "test.h"

#define MNEME MN_TEST_BINARY_DIR "/mneme"
static char dir[64] = P_tmpdir "/mneme-test-interruption-XXXXXX";

static const char *at(const char *name) {
  static char paths[8][128];
  static int next;
  char *p = paths[next++ % 8];
  snprintf(p, 128, "%s/%s", dir, name);
  return p;
}

static int sh(const char *fmt, ...) MN_PRINTF(1, 2);
static int sh(const char *fmt, ...) {
  char command[1024];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(command, sizeof command, fmt, ap);
  va_end(ap);
  int status = system(command);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* A line of N letters and digits at random: nothing repeats and nothing ends a line. */
static void write_line(const char *path, size_t n) {
  static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+/";
  char *text = mn_alloc(n);
  mn_rng rng;
  mn_rng_seed(&rng, 1);
  for (size_t i = 0; i < n; i += 8) {
    uint64_t bits = mn_rng_next(&rng);
    for (size_t k = i; k < i + 8 && k < n; k++, bits >>= 6) text[k] = letters[bits & 63];
  }
  CHECK_OK(mn_file_write(path, text, n));
  free(text);
}

static void write_recipe(const char *name, const char *text) {
  mn_text t = {0};
  mn_text_addf(&t,
               "data: {files: [%s], cache: %s/cache-%s, validation: 0.1}\n"
               "model: {d_model: 16, layers: 1, block: {mixer: {type: aaren, heads: 2}, hidden: 32}}\n"
               "train: {steps: 100000000, batch: 1, seq_len: 32, validation_batches: 1, log_every: 100000}\n",
               text, dir, name);
  CHECK_OK(mn_file_write(at(name), t.data, t.len));
  mn_text_free(&t);
}

/* A mixer with a loop, and an input that it needs minutes for. */
static void write_unit(void) {
  enum { T = 400000 };
  static const char unit[] = "{d_model: 16, mixer: {type: titans_lmm, heads: 1, memory_net: mlp, memory_expand: 8, chunk: 1}}\n";
  float *x = mn_calloc(T * 16, sizeof *x);
  mn_st_writer *w = mn_st_writer_new();
  const mn_shape shape = MN_SHAPE(1, T, 16);
  CHECK_OK(mn_st_writer_add(w, "x", MN_F32, &shape, x));
  CHECK_OK(mn_st_writer_save(w, at("x.safetensors")));
  mn_st_writer_free(w);
  free(x);
  CHECK_OK(mn_file_write(at("mixer.yaml"), unit, sizeof unit - 1));
}

/* One tensor of 16 GB of zeros, which take no room: minutes of reading. */
static void write_large(void) {
  static const char json[] = "{\"x\":{\"dtype\":\"F32\",\"shape\":[4294967296],\"data_offsets\":[0,17179869184]}}   ";
  uint64_t length = sizeof json - 1;
  FILE *f = fopen(at("large.safetensors"), "wb");
  CHECK(f && fwrite(&length, 8, 1, f) == 1 && fwrite(json, 1, length, f) == length && fclose(f) == 0 &&
            truncate(at("large.safetensors"), 8 + (off_t)length + 17179869184) == 0,
        "a large file");
}

/* ---- signals ---- */

/* Has the process taken charge of SIGTERM? */
static bool listens(pid_t pid) {
  char path[64], *text = NULL;
  size_t n;
  snprintf(path, sizeof path, "/proc/%ld/status", (long)pid);
  if (mn_file_read(path, 1 << 16, &text, &n) != MN_OK) return false;
  const char *caught = strstr(text, "SigCgt:");
  bool yes = caught && (strtoull(caught + 7, NULL, 16) >> (SIGTERM - 1) & 1);
  free(text);
  return yes;
}

/* Starts `mneme LINE` by the shell, waits until it has worked for a while, and interrupts it. stdin is a pipe that stays open
 * and silent. */
static void interrupted(const char *line) {
  int in[2], status = 0;
  char command[1024], *said = NULL;
  size_t n;
  snprintf(command, sizeof command, "exec " MNEME " %s >/dev/null 2>%s", line, at("said"));
  CHECK(pipe2(in, O_CLOEXEC) == 0, "a pipe");
  fflush(stdout);
  pid_t pid = fork();
  if (pid == 0) {
    dup2(in[0], 0);
    execl("/bin/sh", "sh", "-c", command, (char *)NULL);
    _exit(127);
  }
  close(in[0]);
  bool over = false;
  for (int i = 0; i < 2000 && !listens(pid) && !over; i++) over = usleep(10000) || waitpid(pid, &status, WNOHANG) == pid;
  if (!over) over = usleep(400000) || waitpid(pid, &status, WNOHANG) == pid;
  if (!over) kill(pid, SIGTERM);
  for (int i = 0; i < 2000 && !over && waitpid(pid, &status, WNOHANG) != pid; i++) { /* 20 s: the machine may be busy */
    usleep(10000);
    if (i == 1999) kill(pid, SIGKILL), waitpid(pid, &status, 0);
  }
  close(in[1]);
  CHECK_OK(mn_file_read(at("said"), 1 << 20, &said, &n));
  CHECK(!over, "%s: it was over too soon: %s", line, said);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 3 && strstr(said, "ending cleanly") && strstr(said, "nterrupted"), "%s: status %x: %s",
        line, (unsigned)status, said);
  const char *once = strstr(said, "ending cleanly");
  CHECK(!once || !strstr(once + 1, "ending cleanly"), "%s: it is said twice: %s", line, said);
  free(said);
}

static void verbs_hear_a_signal(void) {
  char line[512];
#define INTERRUPTED(...) snprintf(line, sizeof line, __VA_ARGS__), interrupted(line)
  INTERRUPTED("train %s --out %s", at("bytes.yaml"), at("training"));
  INTERRUPTED("compare %s --out %s", at("bytes.yaml"), at("comparison"));
  INTERRUPTED(
      "train %s --set train.seq_len=400000 --set 'model.block.mixer={type: titans_lmm, heads: 1, memory_net: mlp, chunk: 1}' --out %s",
      at("long.yaml"), at("long-step"));
  INTERRUPTED("train %s --set 'tokenizer={type: bpe, vocab_size: 60000}' --out %s", at("long.yaml"), at("vocabulary"));
  INTERRUPTED("train %s --set 'tokenizer={type: file, file: %s}' --out %s", at("long.yaml"), at("bpe/tokenizer.json"), at("tokenising"));
  INTERRUPTED("train %s --set 'model.block.mixer={type: lmu, order: 4096}' --out %s", at("bytes.yaml"), at("order"));
  INTERRUPTED("embed %s", at("encoder"));
  INTERRUPTED("eval --model %s --data %s", at("bpe"), at("long.txt"));
  INTERRUPTED("stream --model %s --random 100000000", at("model"));
  INTERRUPTED("stream --model %s - --score", at("model"));
  INTERRUPTED("stream --model %s %s", at("model"), at("fifo"));
  INTERRUPTED("stream --model %s /dev/zero", at("model"));
  INTERRUPTED("generate --model %s --prompt a --tokens 100000000 --ignore-eos", at("model"));
  INTERRUPTED("generate --model %s --prompt-file %s", at("model"), at("long.txt"));
  INTERRUPTED("generate --model %s --prompt a --beams 64 --tokens 100000000", at("model"));
  INTERRUPTED("eval --model %s --data %s", at("model"), at("long.txt"));
  INTERRUPTED("eval --model %s --task niah_single_1 --set len=200000000", at("model"));
  INTERRUPTED("eval --model %s --task passkey --set garbage=200000000", at("model"));
  INTERRUPTED("eval --model %s --task mqar --set vocab_size=64 --set len=100000 --stream", at("model"));
  INTERRUPTED("eval --model %s --task stream --tokens 100000000", at("wide"));
  INTERRUPTED("apply %s --input %s --output %s", at("mixer.yaml"), at("x.safetensors"), at("y.safetensors"));
  INTERRUPTED("inspect %s", at("large.safetensors"));
  INTERRUPTED("bench train --steps 100000 --seq-len 64 --batch 1");
  INTERRUPTED("bench lmm --steps 100000 --seq-len 256");
  INTERRUPTED("bench lmm --seq-len 1000000");
  INTERRUPTED("bench train --steps-on-stdin --seq-len 64 --batch 1");
#undef INTERRUPTED
}

/* ---- inputs without an end ---- */

/* What is read whole has a limit, and what has no end is refused or read as a stream: never hanging, never all memory. */
static void endless_inputs(void) {
  static const char *const lines[] = {"eval --model %s --data /dev/zero",
                                      "inspect /dev/zero",
                                      "train /dev/zero --out none",
                                      "generate --model %s --prompt-file /dev/zero",
                                      "apply /dev/zero --input x --output y",
                                      "eval --model %s --data %s",
                                      "runs list --db /dev/zero",
                                      "stream --model %s --random 5 --session-in /dev/zero",
                                      "generate --model /dev/zero --prompt a",
                                      "eval --model %s --data /dev/null",
                                      "stream --model %s /dev/null",
                                      "inspect /dev/null"};
  for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
    char line[512], command[1024];
    snprintf(line, sizeof line, lines[i], at("model"), dir);
    snprintf(command, sizeof command, "%s timeout 60 " MNEME " %s >%s 2>&1", TEST_ADDRESS_SANITIZER ? "" : "ulimit -v 2000000;", line,
             at("said"));
    int code = sh("bash -c '%s'", command);
    char *said = NULL;
    size_t n;
    CHECK_OK(mn_file_read(at("said"), 1 << 20, &said, &n));
    CHECK((code == 1 || code == 2) && strstr(said, "mneme: ") && !strstr(said, "out of memory"), "%s: %d %s", line, code, said);
    free(said);
  }
}

/* ---- memory ---- */

/* The most that a training of a vocabulary and of tokens holds, for one line of n bytes. */
static void one_line(size_t n, long most_mib) {
  struct rusage used;
  int status;
  write_line(at("line.txt"), n);
  write_recipe("line.yaml", at("line.txt"));
  pid_t pid = fork();
  if (pid == 0) {
    int null = open("/dev/null", O_WRONLY);
    dup2(null, 1);
    execl(MNEME, "mneme", "train", at("line.yaml"), "--set", "train.steps=1", "--set", "tokenizer={type: bpe, vocab_size: 4096}", "--out",
          at("line"), "--quiet", (char *)NULL);
    _exit(127);
  }
  wait4(pid, &status, 0, &used);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %x", (unsigned)status);
  CHECK(used.ru_maxrss / 1024 < most_mib, "%zu bytes of one line: %ld MiB at most, %ld allowed", n, used.ru_maxrss / 1024, most_mib);
  remove(at("line.txt"));
  sh("rm -rf '%s' '%s/cache-line.yaml'", at("line"), dir);
}

static void memory_of_one_line(void) {
  one_line(8 << 20, TEST_ADDRESS_SANITIZER ? 1200 : 300);   /* it keeps what was freed */
  if (getenv("MNEME_TEST_LONG")) one_line(200000000, 1000); /* a minute */
}

int main(void) {
  if (!mkdtemp(dir)) return 1;
  setenv("MNEME_HOME", dir, 1);
  write_line(at("long.txt"), 40 << 20);
  write_line(at("short.txt"), 30000);
  write_recipe("long.yaml", at("long.txt"));
  write_recipe("bytes.yaml", at("short.txt"));
  write_unit();
  write_large();
  CHECK(mkfifo(at("fifo"), 0600) == 0, "a fifo");
  CHECK(sh(MNEME " train %s --set train.steps=1 --out %s --quiet >/dev/null", at("bytes.yaml"), at("model")) == 0, "a model of bytes");
  CHECK(sh(MNEME " train %s --set train.steps=1 --set model.vocab_size=512 --out %s --quiet >/dev/null", at("bytes.yaml"), at("wide")) == 0,
        "a model of 512 ids");
  CHECK(sh(MNEME " train %s --set train.steps=1 --set 'tokenizer={type: bpe, vocab_size: 400}' --out %s --quiet >/dev/null",
           at("bytes.yaml"), at("bpe")) == 0,
        "a model of pieces");
  CHECK(sh(MNEME " train %s --set train.steps=1 --set model.type=encoder --set model.vocab_size=300 --set 'model.block.mixer={type: "
                 "attention, heads: 2, causal: false}' --set 'objective={type: masked_token}' --out %s --quiet >/dev/null",
           at("bytes.yaml"), at("encoder")) == 0,
        "a model of texts as vectors");
  RUN(verbs_hear_a_signal);
  RUN(endless_inputs);
  RUN(memory_of_one_line);
  sh("rm -rf '%s'", dir);
  return test_end();
}
