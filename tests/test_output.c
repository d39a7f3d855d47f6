/* test_output.c - what verbs print: names and messages do not steer a terminal, JSON is JSON whatever bytes a name has, a full
 * disk is a failure on every page, and a reader that has seen enough ends the verb. */
#define _GNU_SOURCE
#include <jansson.h>
#include <math.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "base/shell.h"
#include "base/text.h"
#include "cli/cli.h"
#include "test.h"
#include "train/runs.h"

#define MNEME MN_TEST_BINARY_DIR "/mneme"
static char dir[64] = P_tmpdir "/mneme-test-output-XXXXXX", out[1 << 18];

/* Runs a shell command in the test's directory; `out` is what it prints. */
static int sh(const char *fmt, ...) MN_PRINTF(1, 2);
static int sh(const char *fmt, ...) {
  char command[2048], line[4096];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(command, sizeof command, fmt, ap);
  va_end(ap);
  snprintf(line, sizeof line, "cd '%s'; %s", dir, command);
  FILE *p = popen(line, "r");
  size_t n = p ? fread(out, 1, sizeof out - 1, p) : 0;
  out[n] = 0;
  int status = p ? pclose(p) : -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static bool steers(const char *s) {
  for (; *s; s++)
    if (((unsigned char)*s < 0x20 && *s != '\n' && *s != '\t') || *s == 0x7F || !strncmp(s, "\xC2\x9B", 2) ||
        !strncmp(s, "\xE2\x80\xAE", 3))
      return true;
  return false;
}

static void text_is_shown(void) {
  static const struct {
    const char *text, *shown;
  } cases[] = {{"plain \xC3\xA9\xF0\x9F\x98\x80", "plain \xC3\xA9\xF0\x9F\x98\x80"},
               {"a\033[31mb", "a\\x1b[31mb"},
               {"bell\a back\b del\x7F", "bell\\x07 back\\x08 del\\x7f"},
               {"two\nlines\tand a tab\r", "two\\nlines\\tand a tab\\x0d"},
               {"C1 \xC2\x9B!", "C1 \\x9b!"},
               {"turned \xE2\x80\xAEtxet", "turned \\u202etxet"},
               {"not UTF-8: \xFF\xC3", "not UTF-8: \\xff\\xc3"}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    mn_text t = {0};
    mn_text_add_shown(&t, cases[i].text, strlen(cases[i].text), false);
    CHECK(t.data && !strcmp(t.data, cases[i].shown), "%s", t.data);
    mn_text_free(&t);
  }
  mn_text t = {0};
  mn_text_add_shown(&t, "a\nb\tc\033", 6, true);
  CHECK(!strcmp(t.data, "a\nb\tc\\x1b"), "lines stay lines: %s", t.data);
  mn_text_free(&t);
  mn_text_add_utf8(&t, "a\xFF\xC3\xA9\xC3", 5);
  CHECK(!strcmp(t.data, "a\xEF\xBF\xBD\xC3\xA9\xEF\xBF\xBD"), "%s", t.data);
  mn_text_free(&t);
}

/* What is no number has no sign either, whatever the machine made it of. */
static void what_is_no_number_has_no_sign(void) {
  fflush(stdout);
  const int screen = dup(STDOUT_FILENO);
  char path[80], *text = NULL;
  size_t n;
  snprintf(path, sizeof path, "%s/printed", dir);
  CHECK(freopen(path, "w", stdout) != NULL, "%s", path);
  mn_print("%g %.2f|%6.1f|", copysign((double)NAN, -1), -(double)NAN, copysign((double)NAN, -1));
  mn_print_flush();
  CHECK(dup2(screen, STDOUT_FILENO) == STDOUT_FILENO, "standard output");
  close(screen);
  CHECK_OK(mn_file_read(path, 1 << 10, &text, &n));
  CHECK(text && n == 15 && !strncmp(text, "nan nan|   nan|", n), "%.*s", (int)n, text);
  free(text);
}

/* Names with escape sequences in every place where a user or a file can put one. */
static void no_name_steers_the_terminal(void) {
  static const char *const commands[] = {MNEME " inspect \"$(printf 'x\\033[2Jy.yaml')\" 2>&1",
                                         MNEME " inspect good.yaml --set \"$(printf 'train.b\\033]0;title\\007=3')\" 2>&1",
                                         MNEME " \"$(printf 'tra\\033in')\" 2>&1",
                                         MNEME " train good.yaml \"$(printf -- '--st\\033ps')\" 2>&1",
                                         MNEME " train good.yaml --threads \"$(printf '1\\033')\" 2>&1",
                                         MNEME " eval --model \"$(printf 'm\\033')\" 2>&1",
                                         MNEME " eval --model model --task \"$(printf 'mq\\033ar')\" 2>&1",
                                         MNEME " eval --model model --data \"$(printf 'te\\033xt.txt')\" 2>&1",
                                         MNEME " runs show \"$(printf 'x\\033')\" 2>&1",
                                         MNEME " runs plot base --metric \"$(printf 'x\\033')\" 2>&1",
                                         MNEME " runs plot base --title \"$(printf 'x\\033[31m')\" 2>&1",
                                         MNEME " inspect bad-key.yaml 2>&1",
                                         MNEME " inspect bad-type.yaml 2>&1",
                                         "d=$(printf 'm\\033[31m'); cp -r model \"$d\"; " MNEME " inspect \"$d\" 2>&1",
                                         MNEME " apply mixer.yaml --input bad.safetensors --output y 2>&1",
                                         MNEME " runs list 2>&1",
                                         MNEME " runs show 2 2>&1",
                                         MNEME " runs plot 2 2>&1",
                                         MNEME " train bad-name.yaml --out named --resume 2>&1",
                                         MNEME " compare bad-name.yaml --out compared 2>&1"};
  for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
    sh("%s", commands[i]);
    CHECK(*out && !steers(out), "%s: %s", commands[i], out);
  }
}

static void json_is_json(void) {
  static const char *const commands[] = {MNEME " inspect \"$(printf 'x\\377y.yaml')\" --json",
                                         MNEME " \"$(printf 'tr\\377n')\" --json",
                                         MNEME " eval --model \"$(printf 'm\\377')\" --json",
                                         MNEME " runs list --json",
                                         MNEME " runs show 2 --json",
                                         MNEME " runs plot 2 --json",
                                         MNEME " eval --model \"$(printf 'model\\377')\" --json",
                                         MNEME " inspect \"$(printf 'model\\377')\" --json",
                                         MNEME " generate --model model --prompt \"$(printf 'a\\377')\" --tokens 40 --json",
                                         MNEME " train good.yaml --out \"$(printf 'o\\377')\" --json",
                                         MNEME " train --json",
                                         MNEME " --version --json"};
  CHECK(sh("cp -r model \"$(printf 'model\\377')\"") == 0, "a directory whose name is not UTF-8");
  for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
    sh("%s 2>/dev/null", commands[i]);
    json_error_t e;
    json_t *doc = json_loads(out, JSON_DECODE_ANY, &e);
    CHECK(doc, "%s: %s: %s", commands[i], e.text, out);
    const char *message = json_string_value(json_object_get(json_object_get(doc, "error"), "message"));
    CHECK(!json_object_get(doc, "error") || (message && strlen(message) > 5), "%s: the message is there: %s", commands[i], out);
    json_t *files = json_object_get(doc, "files");
    for (size_t k = 0; k < json_array_size(files); k++)
      CHECK(json_object_get(json_array_get(files, k), "file"), "%s: no name", commands[i]);
    json_decref(doc);
  }
}

static void a_full_disk_is_a_failure(void) {
  static const char *const lines[] = {"--help",
                                      "train --help",
                                      "help eval",
                                      "--version",
                                      "--version --json",
                                      "train --keys text",
                                      "inspect good.yaml",
                                      "inspect good.yaml --json",
                                      "runs list",
                                      "runs list --json",
                                      "runs show 2",
                                      "runs plot 2",
                                      "eval --model model",
                                      "eval --model model --json",
                                      "stream --model model --random 50",
                                      "stream --model model --random 1000000000 --every 1000",
                                      "generate --model model --prompt a --tokens 9",
                                      "generate --model model --prompt a --tokens 100000000 --ignore-eos",
                                      "train good.yaml --out full",
                                      "bench machine",
                                      "apply mixer.yaml --input x --output y --json"};
  for (size_t i = 0; i < sizeof lines / sizeof *lines - 1; i++) {
    int code = sh("timeout 60 " MNEME " %s 2>&1 >/dev/full", lines[i]);
    CHECK(code == 1 && strstr(out, "standard output could not be written"), "%s: %d %s", lines[i], code, out);
    if (i < 4) CHECK(sh(MNEME " %s 2>&1 >&-", lines[i]) == 1 && strstr(out, "standard output"), "closed: %s: %s", lines[i], out);
  }
}

/* The reader takes one line and goes: what would run for hours ends, and is no failure; a training is not disturbed. */
static void a_reader_that_has_seen_enough(void) {
  static const char *const lines[] = {"stream --model model --random 1000000000 --every 100",
                                      "stream --model model --random 1000000000 --every 100 --json",
                                      "stream --model model - --every 100 </dev/zero",
                                      "generate --model model --prompt a --tokens 100000000 --ignore-eos",
                                      "runs list",
                                      "train --keys text",
                                      "--help",
                                      "inspect good.yaml --params --plan"};
  for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
    sh("(timeout 60 " MNEME " %s 2>err; echo $? >code) | head -c 20 >/dev/null", lines[i]);
    sh("cat code");
    CHECK(atoi(out) == 0, "%s: %s", lines[i], out);
    sh("cat err");
    CHECK(!strstr(out, "mneme: "), "%s: %s", lines[i], out);
  }
  CHECK(sh(MNEME " train good.yaml --out piped | true; test -f piped/model.safetensors") == 0, "the training ended");
  CHECK(sh(MNEME " stream --model model --random 1000000000 --every 100 --session-out kept.st 2>/dev/null | head -1; test -f kept.st") == 0,
        "what was promised is saved");
}

/* A standard stream that is closed gives its number to no file. */
static void closed_streams(void) {
  CHECK(sh(MNEME " train good.yaml --out closed --quiet >&- 2>&-; " MNEME " eval --model closed --json") == 0, "%s", out);
  CHECK(sh(MNEME " stream --model model - <&- 2>&1") == 1, "%s", out);
}

static void put(const char *name, const char *text) {
  char path[128];
  snprintf(path, sizeof path, "%s/%s", dir, name);
  CHECK_OK(mn_file_write(path, text, strlen(text)));
}

/* A path in a command that is shown means the same file when it is pasted. */
static void commands_can_be_pasted(void) {
  static const char *const paths[] = {"plain/g.json", "my dir/g h.json", "it's", "$HOME", "a;b&c|d",  "*?[x]",
                                      "`id`",         "\"q\"",           "~",    "#x",    "\xC3\xA9", ""};
  for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
    char *word = mn_shell_path(paths[i]);
    CHECK(word && sh("printf %%s %s", word) == 0 && !strcmp(out, paths[i]), "%s became %s", word, out);
    free(word);
  }
  char *dash = mn_shell_path("--out"), *plain = mn_shell_path("runs/quick");
  CHECK(dash && !strcmp(dash, "./--out") && plain && !strcmp(plain, "runs/quick"), "%s %s", dash, plain);
  free(dash), free(plain);
}

int main(void) {
  if (!mkdtemp(dir)) return 1;
  setenv("MNEME_HOME", dir, 1);
  mn_text text = {0};
  for (int i = 0; i < 400; i++) mn_text_addf(&text, "line %d of a small text\n", i);
  put("text.txt", text.data);
  mn_text_free(&text);
  static const char rest[] =
      "data: {files: [text.txt]}\nmodel: {d_model: 16, layers: 1, block: {mixer: {type: aaren, heads: 2}, hidden: 32}}\n"
      "train: {steps: 3, batch: 1, seq_len: 32, log_every: 1, validation_batches: 1}\n";
  char recipe[1024];
  snprintf(recipe, sizeof recipe, "name: base\n%s", rest);
  put("good.yaml", recipe);
  snprintf(recipe, sizeof recipe, "name: \"na\\e[31mme\\u202e\"\n%s", rest);
  put("bad-name.yaml", recipe);
  snprintf(recipe, sizeof recipe, "\"k\\e[2J\": 1\n%s", rest);
  put("bad-key.yaml", recipe);
  put("bad-type.yaml", "model: {block: {mixer: {type: \"a\\e[2Jb\"}}}\n");
  put("mixer.yaml", "{d_model: 8, mixer: {type: aaren, heads: 2}}\n");
  static const char header[] = "{\"x\\u001b[2J\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}";
  char file[256] = {(char)(sizeof header - 1)};
  memcpy(file + 8, header, sizeof header - 1);
  char path[128];
  snprintf(path, sizeof path, "%s/bad.safetensors", dir);
  CHECK_OK(mn_file_write(path, file, 8 + sizeof header - 1 + 4));
  CHECK(sh(MNEME " train good.yaml --out model --quiet") == 0, "%s", out);
  mn_runs *db;
  int64_t id;
  snprintf(path, sizeof path, "%s/runs.db", dir);
  CHECK_OK(mn_runs_open(path, false, &db));
  const mn_run run = {.name = "x\033[31m\ny\xFF", .recipe = "{}", .fingerprint = "f", .isa = "i\033", .out_dir = "/o\033\xFF"};
  CHECK_OK(mn_run_begin(db, &run, &id));
  for (int step = 1; step < 4; step++) CHECK_OK(mn_run_metric(db, id, step, step, "loss", step));
  CHECK_OK(mn_run_finish(db, id, "failed", "because\033[2J"));
  mn_runs_close(db);
  RUN(text_is_shown);
  RUN(what_is_no_number_has_no_sign);
  RUN(commands_can_be_pasted);
  RUN(no_name_steers_the_terminal);
  RUN(json_is_json);
  RUN(a_full_disk_is_a_failure);
  RUN(a_reader_that_has_seen_enough);
  RUN(closed_streams);
  sh("cd /; rm -rf '%s'", dir);
  return test_end();
}
