/* What must be true of `mneme chat` with a chat template: only a turn's own tokens are read, also after a restart, which changes no bit; turns
 * are taken back and sessions forked; a template that leaves out what was said is followed; Ctrl-C ends an answer and not the program; values
 * and system prompts reach the template; what is refused. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "program.h"
#include "scratch.h"
#include "test.h"

#define ROOT "talk"
#define CHAT "cd " ROOT " && " MNEME "chat "

static const char data_text[] =
    "{\"messages\": [{\"role\": \"user\", \"content\": \"a b\"}, {\"role\": \"assistant\", \"content\": \"ok\"}]}\n"
    "{\"messages\": [{\"role\": \"user\", \"content\": \"c\"}, {\"role\": \"assistant\", \"content\": \"ok\"}]}\n";
#define RECIPE(mixer)                                                                                                                      \
  "name: m\ntokenizer: {type: bytes}\ndata: {type: dialogues, files: [d.jsonl], user: 'Q', assistant: 'A', validation: 0}\n"               \
  "model: {d_model: 8, layers: 1, block: {mixer: {" mixer "}, hidden: 8}}\ntrain: {steps: 3, batch: 2, seq_len: 24}\n"
static const char cut_text[] = RECIPE("type: attention, heads: 2, max_context: 60000");
static const char kept_text[] = RECIPE("type: gated_deltanet, heads: 2, chunk: 4");
static const char template_text[] =
    "{% for m in messages %}{% if m.role == 'system' %}S{{ m.content }}{{ '\\n' }}{% elif m.role == 'user' %}Q{{ m.content }}"
    "{{ '\\n' }}{% else %}A{{ m.content }}<|endoftext|>{% endif %}{% endfor %}{% if add_generation_prompt %}A{% endif %}";
/* Thoughts are left out later: here all but the last three letters of answers. */
static const char thinking_text[] =
    "{% for m in messages %}{% if m.role == 'user' %}Q{{ m.content }}{{ '\\n' }}{% else %}A{{ m.content[-3:] }}"
    "<|endoftext|>{% endif %}{% endfor %}A{{ 'T' if think else '' }}";

static void prepare(void) {
  CHECK(sh("rm -rf " ROOT " && mkdir -p " ROOT) == 0, "%s", out);
  CHECK_OK(mn_file_write(ROOT "/d.jsonl", data_text, sizeof data_text - 1));
  CHECK_OK(mn_file_write(ROOT "/cut.yaml", cut_text, sizeof cut_text - 1));
  CHECK_OK(mn_file_write(ROOT "/kept.yaml", kept_text, sizeof kept_text - 1));
  CHECK_OK(mn_file_write(ROOT "/t.jinja", template_text, sizeof template_text - 1));
  CHECK_OK(mn_file_write(ROOT "/think.jinja", thinking_text, sizeof thinking_text - 1));
  CHECK(sh("cd " ROOT " && export MNEME_HOME=home && " MNEME "train cut.yaml --out cut --quiet 2>&1 && " MNEME
           "train kept.yaml --out kept --quiet 2>&1") == 0,
        "%s", out);
}

static int count(const char *what) {
  int n = 0;
  for (const char *p = out; (p = strstr(p, what)); p++) n++;
  return n;
}

static void a_dialogue_goes_on_after_a_restart(void) {
  static const char *const models[] = {"cut", "kept"};
  for (int m = 0; m < 2; m++) {
    char whole[8192];
    CHECK(sh("printf 'a b\\nc\\n\\nb\\r\\na' | (" CHAT
             "%s --template t.jinja --session whole --system 'Be brief.' --temperature 0.9 --seed 4 --tokens 9 --json 2>/dev/null)",
             models[m]) == 0,
          "%s", out);
    CHECK(count("\"answer\"") == 4 && count("\"stopped_by\"") == 4, "%s", out);
    snprintf(whole, sizeof whole, "%.8000s", out);
    CHECK(
        sh("for m in 'a b' c b a; do printf '%%s\\n' \"$m\" | (" CHAT
           "%s --template t.jinja --session parts --system 'Be brief.' --temperature 0.9 --seed 4 --tokens 9 --json 2>/dev/null) || exit 1; done",
           models[m]) == 0,
        "%s", out);
    CHECK(!strcmp(out, whole), "in four programs: %s\nin one: %s", out, whole);
    CHECK(sh("cd " ROOT "/%s/sessions && cmp whole.safetensors parts.safetensors", models[m]) == 0, "%s", out);
    /* "Qb\n", "A", and behind an answer that was cut the token that ends it */
    CHECK(sh("printf 'b\\n' | (" CHAT "%s --template t.jinja --session parts --tokens 5 --json 2>/dev/null)", models[m]) == 0, "%s", out);
    CHECK(strstr(out, "\"read\":5") || strstr(out, "\"read\":4"), "only the new turn is read: %s", out);
  }
}

static void turns_are_taken_back(void) {
  char first[4096], second[4096];
  CHECK(sh("printf 'a\\nb\\nc\\nd\\n/undo 3\\nb\\n/reset\\na\\n' | (" CHAT
           "kept --template t.jinja --session back --tokens 6 --temperature 0.7 --verbose --json 2>/dev/null)") == 0,
        "%s", out);
  const char *at = out;
  for (int line = 0; line < 9 && at && *at; line++) {
    const char *end = strchr(at, '\n');
    if (line == 0) snprintf(first, sizeof first, "%.*s", (int)(end - at), at);
    if (line == 1) snprintf(second, sizeof second, "%.*s", (int)(end - at), at);
    if (line == 4) CHECK(!strncmp(at, "{\"command\":\"undo\",\"turns\":1", 27), "%.*s", (int)(end - at), at);
    if (line == 5) CHECK(!strncmp(at, second, strlen(second)), "the second turn as it was: %.*s, not %s", (int)(end - at), at, second);
    if (line == 7) CHECK(!strncmp(at, first, strlen(first)), "the first as it was: %.*s, not %s", (int)(end - at), at, first);
    at = end ? end + 1 : NULL;
  }
  CHECK(sh("printf 'a\\nb\\nc\\nd\\n/undo 3\\n' | (" CHAT "kept --template t.jinja --tokens 6 --temperature 0.7 --verbose 2>&1)") == 0 &&
            strstr(out, "0 tokens are read again"),
        "three turns back, and nothing is read: %s", out);
}

static void sessions_are_forked_and_listed(void) {
  CHECK(sh("printf 'a\\n/fork second\\nb\\nc\\n/sessions\\n' | (" CHAT
           "cut --template t.jinja --session first --sessions f --tokens 4 2>&1)") == 0,
        "%s", out);
  CHECK(strstr(out, "goes on as session second, which holds 1 turns") && strstr(out, "first: 1 turns") && strstr(out, "second: 3 turns"),
        "%s", out);
  CHECK(sh("printf 'x\\n' | (" CHAT "cut --template t.jinja --session third --fork first --sessions f --tokens 4 2>&1)") == 0, "%s", out);
  CHECK(sh("printf 'x\\n/save kept\\ny\\n/save\\n' | (" CHAT "cut --template t.jinja --sessions f --tokens 4 2>&1)") == 0 &&
            strstr(out, "--session NAME or /save NAME") && strstr(out, "session kept is saved, with 2 turns"),
        "%s", out);
  CHECK(sh(CHAT "cut --list --sessions f 2>&1") == 0 && strstr(out, "third: 2 turns") && strstr(out, "kept: 2 turns") &&
            count("turns") == 4,
        "%s", out);
}

static void a_dialogue_outlives_its_folder(void) {
  CHECK(sh("{ printf 'a\\n'; i=0; until test -s " ROOT "/left/v.safetensors || test $((i += 1)) -gt 1000; do sleep 0.02; done; rm -rf " ROOT
           "/left; printf 'b\\n'; } | (" CHAT "cut --template t.jinja --session v --sessions left --tokens 4 2>&1)") == 0 &&
            !strstr(out, "could not"),
        "a folder that was removed is made again: %s", out);
  CHECK(sh(CHAT "cut --list --sessions left 2>&1") == 0 && strstr(out, "v: 2 turns"), "%s", out);
}

static void what_a_template_leaves_out_is_followed(void) {
  CHECK(sh("printf 'abcdef\\nb\\n' | (" CHAT "kept --template think.jinja --tokens 9 --temperature 0 --verbose --json 2>/dev/null)") == 0,
        "%s", out);
  const char *second = strchr(out, '\n');
  CHECK(second && strstr(second, "\"known\":9,"), "back to the end of the first question, where there is a snapshot: %s", out);
  CHECK(sh("printf 'abcdef\\nb\\n' | (" CHAT "kept --template think.jinja --tokens 9 --temperature 0 --verbose 2>&1)") == 0 &&
            strstr(out, "otherwise from token") && strstr(out, "tokens are taken back"),
        "%s", out);
}

static void values_and_system_prompts_reach_the_template(void) {
  CHECK(sh("printf 'a\\n' | (" CHAT "cut --template think.jinja --with think=true --tokens 2 --json 2>/dev/null)") == 0 &&
            strstr(out, "\"read\":5"),
        "%s", out);
  CHECK(sh("printf 'a\\n' | (" CHAT "cut --template think.jinja --with think=false --tokens 2 --json 2>/dev/null)") == 0 &&
            strstr(out, "\"read\":4"),
        "%s", out);
  CHECK(sh("printf 'a\\n' | (" CHAT "cut --template t.jinja --system 12345 --tokens 2 --json 2>/dev/null)") == 0 &&
            strstr(out, "\"read\":11"),
        "%s", out);
  CHECK(sh("printf 'a\\nb\\n' | (" CHAT "cut --template t.jinja --system 12345 --session sys --tokens 2 --json 2>/dev/null)") == 0, "%s",
        out);
  CHECK(sh("printf 'a\\n' | (" CHAT "cut --template t.jinja --system 12x --session sys --tokens 2 --verbose 2>&1)") == 0 &&
            strstr(out, "another one now") && strstr(out, "3 tokens were known"),
        "%s", out);
}

static void what_is_refused(void) {
  static const struct {
    const char *command, *says;
  } cases[] = {
      {"echo a | (" CHAT "cut --system x 2>&1)", "--system has no effect"},
      {"echo a | (" CHAT "cut --template none.jinja 2>&1)", "none.jinja"},
      {"echo a | (" CHAT "cut --template d.jsonl --tokens 2 2>&1)", ""},
      {"echo a | (" CHAT "cut --template t.jinja --with color=1 2>&1)", "asks for no 'color'"},
      {"echo a | (" CHAT "cut --template t.jinja --with think 2>&1)", "write KEY=VALUE"},
      {"echo /undo | (" CHAT "cut --template t.jinja 2>&1)", "there are 0 turns, not 1"},
      {"echo /undo x | (" CHAT "cut --template t.jinja 2>&1)", "/undo takes a number"},
      {"echo /unod | (" CHAT "cut --template t.jinja 2>&1)", "did you mean /undo?"},
      {"echo /help me | (" CHAT "cut --template t.jinja 2>&1)", "/help takes nothing"},
      {"echo /fork | (" CHAT "cut --template t.jinja 2>&1)", "/fork wants the name"},
      {"echo /fork ../x | (" CHAT "cut --template t.jinja --session z 2>&1)", "the name of a session"},
      {"echo /fork whole | (" CHAT "cut --template t.jinja --session z 2>&1)", "is there: choose another name"},
      {"echo a | (" CHAT "kept --template t.jinja --session whole --sessions cut/sessions 2>&1)", "saved with another model"},
      {"echo a | (" CHAT "cut --session old --tokens 2 2>&1) && echo a | (" CHAT "cut --template t.jinja --session old 2>&1)",
       "is a state alone, as a chat without a template keeps it"},
      {"echo a | (" CHAT "cut --session whole 2>&1)", "is a dialogue with its words"},
      {"head -c 70000 /dev/zero | tr '\\0' a | (" CHAT "cut --template t.jinja 2>&1)", "max_context is 60000: say less"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    const int rc = sh("%s", cases[i].command);
    CHECK(i == 2 ? rc == 0 : (rc == 1 || rc == 2) && strstr(out, cases[i].says), "%s: %d: %s", cases[i].command, rc, out);
  }
  CHECK(sh("echo '{%% if %%}' >" ROOT "/bad.jinja && echo a | (" CHAT "cut --template bad.jinja 2>&1)") == 1 && strstr(out, "bad.jinja:1:"),
        "%s", out);
  CHECK(sh("echo '{{ raise_exception(\"no \" ~ messages[0].role) }}' >" ROOT "/no.jinja && echo a | (" CHAT
           "cut --template no.jinja 2>&1)") == 2 &&
            strstr(out, "the template refuses: no user"),
        "%s", out);
}

/* ---- a terminal ---- */
static bool wait_for(int fd, const char *what, size_t from) {
  const time_t end = time(NULL) + 60;
  for (size_t n = strlen(out); time(NULL) < end;) {
    if (n >= from && strstr(out + from, what)) return true;
    const bool room = n < sizeof out - 1;
    const ssize_t got = room ? read(fd, out + n, sizeof out - 1 - n) : -1;
    if (got > 0) n += (size_t)got, out[n] = 0;
    else if (got == 0 || (room && errno == EIO)) return false; /* nobody is at the other side any more */
    else usleep(2000);
  }
  return false;
}

static void say(int fd, const char *line) { CHECK(write(fd, line, strlen(line)) == (ssize_t)strlen(line), "%s", line); }

/* `mneme chat` with more options at a terminal of its own, once it asks; its other side, -1 where there are no terminals. */
static int chat_at_a_terminal(const char *const *more, pid_t *child) {
  const int fd = posix_openpt(O_RDWR | O_NOCTTY);
  const char *name = fd >= 0 && grantpt(fd) == 0 && unlockpt(fd) == 0 ? ptsname(fd) : NULL;
  if (!name) {
    printf("skipped: there are no terminals here\n");
    return -1;
  }
  out[0] = 0;
  *child = fork();
  if (*child == 0) {
    const char *words[16] = {"mneme", "chat", "cut", "--template", "t.jinja", "--temperature", "0"};
    for (int i = 0; more[i] && i < 8; i++) words[7 + i] = more[i];
    setsid();
    const int terminal = open(name, O_RDWR);
    if (terminal < 0 || dup2(terminal, 0) < 0 || dup2(terminal, 1) < 0 || dup2(terminal, 2) < 0 || chdir(ROOT) != 0) _exit(9);
    execv(MN_TEST_BINARY_DIR "/mneme", (char *const *)words);
    _exit(9);
  }
  fcntl(fd, F_SETFL, O_NONBLOCK);
  CHECK(wait_for(fd, "> ", 0), "%s", out);
  return fd;
}

static void caches_are_as_long_as_they_are_asked_to_be(void) {
#define SHORT "cut --template t.jinja --session short --temperature 0 --tokens 60 --json"
  CHECK(sh("echo 'a b' | (" CHAT SHORT " --context 30 2>&1)") == 0 && strstr(out, "\"stopped_by\":\"room\""), "%s", out);
  CHECK(sh("echo c | (" CHAT SHORT " --context 30 2>&1)") != 0 && strstr(out, "max_context is 30"), "%s", out);
  CHECK(sh("echo c | (" CHAT SHORT " 2>&1)") != 0 && strstr(out, "another model"), "the session's caches were shorter: %s", out);
  CHECK(sh("echo c | (" CHAT "kept --template t.jinja --context 30 2>&1)") != 0 && strstr(out, "--context 30 has no effect"), "%s", out);
  CHECK(sh("cd " ROOT " && " MNEME "generate --model cut --prompt Qa --context 20 --tokens 30 2>&1") != 0 && strstr(out, "is 20"), "%s",
        out);
  CHECK(sh("cd " ROOT " && " MNEME "generate --model cut --prompt Qa --context 70000 --tokens 3 2>&1") != 0 && strstr(out, "no effect"),
        "%s", out);
  CHECK(sh("echo c | (" CHAT "cut --template t.jinja --exact 2>&1)") != 0 && strstr(out, "--exact: no matrix"), "%s", out);
}

static void an_interruption_ends_the_answer_and_not_the_program(void) {
  pid_t child;
  const int fd = chat_at_a_terminal((const char *[]){"--session", "seen", "--tokens", "50000", NULL}, &child);
  if (fd < 0) return;
  say(fd, "tell me all\n");
  size_t n = strlen(out);
  CHECK(wait_for(fd, "tell me all", n), "echo: %s", out);
  n = strlen(out) + 1; /* something is said */
  while (strlen(out) < n + 200 && wait_for(fd, "", strlen(out)) && read(fd, out + strlen(out), 0) == 0) {
    const size_t had = strlen(out);
    const ssize_t got = read(fd, out + had, 4096);
    if (got > 0) out[had + (size_t)got] = 0;
    else usleep(1000);
  }
  n = strlen(out);
  kill(child, SIGINT);
  CHECK(wait_for(fd, "\n> ", n), "the program asks again");
  n = strlen(out);
  say(fd, "/sessions\n");
  CHECK(wait_for(fd, "seen: 1 turns", n), "what was said is kept: %s", out + n);
  say(fd, "/nonsense\n");
  CHECK(wait_for(fd, "there is no command /nonsense", n), "a person may say it otherwise: %s", out + n);
  say(fd, "/quit\n");
  int status = 0;
  for (int i = 0; i < 10000 && waitpid(child, &status, WNOHANG) == 0; i++) {
    char rest[4096];
    if (read(fd, rest, sizeof rest) <= 0) usleep(2000);
  }
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %d", status);
  close(fd);
}

/* A message that is left while it is read is forgotten: the next one goes on from where the dialogue stood, and nothing is said to be taken back. When
 * it is read is for the machine to say, so pauses before the signal are tried until one fits: a longer one behind a signal that came before the
 * reading, a shorter one behind one that came after it. */
static void a_message_that_was_not_read_leaves_nothing(void) {
  char message[3900];
  memset(message, 'm', sizeof message);
  message[sizeof message - 2] = '\n', message[sizeof message - 1] = 0;
  bool left = false;
  unsigned pause = 1000, early = 0, late = 0; /* microseconds; late 0: none was, yet */
  for (int k = 0; k < 60 && !left; k++) {
    pid_t child;
    const int fd = chat_at_a_terminal((const char *[]){"--verbose", "--tokens", "4", NULL}, &child);
    if (fd < 0) return;
    say(fd, "one\n");
    CHECK(wait_for(fd, " are read", 0) && wait_for(fd, "\n> ", (size_t)(strstr(out, " are read") - out)), "%s", out);
    size_t n = strlen(out);
    say(fd, message);
    usleep(pause);
    kill(child, SIGINT);
    left = wait_for(fd, "\n> ", n) && strstr(out + n, "was not read to its end");
    if (left) {
      n = strlen(out);
      say(fd, "two\n");
      CHECK(wait_for(fd, " are read", n), "%s", out + n);
      CHECK(!strstr(out + n, "taken back"), "nothing is taken back: %s", out + n);
    }
    if (strstr(out + n, " are read")) late = pause;
    else early = pause;
    if (late && (late <= early || late - early < 100))
      early = early > late ? late / 2 : early / 2, late = 2 * late; /* it is faster or slower now */
    pause = !late ? 2 * pause : (early + late) / 2;
    if (pause > 1000000) pause = 1000, early = late = 0;
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    close(fd);
  }
  CHECK(left, "of 60 signals none came while the message was read: %s", out);
}

int main(void) {
  RUN(prepare);
  RUN(a_dialogue_goes_on_after_a_restart);
  RUN(turns_are_taken_back);
  RUN(sessions_are_forked_and_listed);
  RUN(a_dialogue_outlives_its_folder);
  RUN(what_a_template_leaves_out_is_followed);
  RUN(values_and_system_prompts_reach_the_template);
  RUN(what_is_refused);
  RUN(caches_are_as_long_as_they_are_asked_to_be);
  RUN(an_interruption_ends_the_answer_and_not_the_program);
  RUN(a_message_that_was_not_read_leaves_nothing);
  return test_end();
}
