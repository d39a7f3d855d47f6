/* test_chat.c - what must be true of `mneme chat`, in order: a dialogue goes on after a restart as if there had been none, to the bit;
 * what is kept is of whole turns and of one size; sessions are listed and forked; an interruption is a clean end; any model that is a
 * stream may be talked with; what is refused, and that it leaves what is kept as it was. */
#include "base/file.h"
#include "program.h"
#include "scratch.h"
#include "test.h"

#define ROOT "chat"
#define CHAT "cd " ROOT " && " MNEME "chat "

static const char data_text[] =
    "{\"messages\": [{\"role\": \"user\", \"content\": \"a b\"}, {\"role\": \"assistant\", \"content\": \"ok\"}, {\"role\": \"user\", \"content\": "
    "\"b a\"}, {\"role\": \"assistant\", \"content\": \"no\"}]}\n"
    "{\"messages\": [{\"role\": \"user\", \"content\": \"c\"}, {\"role\": \"assistant\", \"content\": \"ok\"}]}\n";
#define DATA "data: {type: dialogues, files: [d.jsonl], user: 'Q', assistant: 'A', validation: 0"
static const char rxt_text[] =
    "name: rxt\ntokenizer: {type: bytes}\n" DATA ", turn: 12}\n"
    "model: {type: rxt, d_model: 8, turn: 12, slots: 4, memory: {heads: 2}, layers: 1, block: {mixer: {type: attention, "
    "heads: 2}, cross: {heads: 2}, hidden: 8}, encoder: {layers: 1, block: {mixer: {type: attention, heads: 2, causal: "
    "false}, hidden: 8}}}\n"
    "train: {steps: 3, batch: 2, seq_len: 24}\n";
static const char decoder_text[] =
    "name: decoder\ntokenizer: {type: bytes}\n" DATA "}\n"
    "model: {d_model: 8, layers: 1, block: {mixer: {type: attention, heads: 2, max_context: 80}, hidden: 8}}\n"
    "train: {steps: 3, batch: 2, seq_len: 24}\n";

static void prepare(void) {
  CHECK(sh("rm -rf " ROOT " && mkdir -p " ROOT) == 0, "%s", out);
  CHECK_OK(mn_file_write(ROOT "/d.jsonl", data_text, sizeof data_text - 1));
  CHECK_OK(mn_file_write(ROOT "/rxt.yaml", rxt_text, sizeof rxt_text - 1));
  CHECK_OK(mn_file_write(ROOT "/decoder.yaml", decoder_text, sizeof decoder_text - 1));
  CHECK(sh("cd " ROOT " && export MNEME_HOME=home && " MNEME "train rxt.yaml --out rxt --quiet 2>&1 && " MNEME
           "train rxt.yaml --seed 2 --out other --quiet 2>&1 && " MNEME "train decoder.yaml --out decoder --quiet 2>&1") == 0,
        "%s", out);
}

static void a_dialogue_goes_on_after_a_restart(void) {
  char whole[4096];
  CHECK(sh("printf 'a b\\nc\\n\\nb\\r\\na' | (" CHAT "rxt --session whole --temperature 0.9 --seed 4 --json 2>/dev/null)") == 0, "%s", out);
  snprintf(whole, sizeof whole, "%.4000s", out);
  int lines = 0;
  for (const char *p = whole; (p = strchr(p, '\n')); p++) lines++;
  CHECK(lines == 4 && strstr(whole, "\"answer\"") && strstr(whole, "\"stopped_by\""), "%d lines: %s", lines, whole);
  CHECK(sh("for m in 'a b' c b a; do printf '%%s\\n' \"$m\" | (" CHAT
           "rxt --session parts --temperature 0.9 --seed 4 --json 2>/dev/null) || exit 1; done") == 0,
        "%s", out);
  CHECK(!strcmp(out, whole), "in four programs: %s\nin one: %s", out, whole);
  CHECK(sh("cd " ROOT "/rxt/sessions && cmp whole.safetensors parts.safetensors") == 0, "%s", out);
}

static void sessions_are_listed_and_forked(void) {
  CHECK(sh(CHAT "rxt --list 2>&1") == 0 && strstr(out, "whole: 4 turns") && strstr(out, "parts: 4 turns"), "%s", out);
  CHECK(sh("printf 'c\\n' | (" CHAT "rxt --session forked --fork whole 2>&1)") == 0 && strstr(out, "goes on after 4 turns"), "%s", out);
  CHECK(sh(CHAT "rxt --list --json 2>&1") == 0 && strstr(out, "\"forked\"") && strstr(out, "5"), "%s", out);
  CHECK(sh("cd " ROOT
           "/rxt/sessions && cmp whole.safetensors parts.safetensors && test $(stat -c %%s whole.safetensors) -le $(( $(stat -c %%s "
           "forked.safetensors) + 16 ))") == 0,
        "what is kept does not grow: %s", out);
  CHECK(sh("printf 'c\\n' | (" CHAT "rxt --session begun --new --sessions elsewhere 2>&1)") == 0 &&
            strstr(out, "elsewhere/begun.safetensors begins"),
        "%s", out);
  CHECK(sh(CHAT "rxt --list --sessions nowhere 2>&1") == 0 && strstr(out, "holds no session yet"), "%s", out);
}

/* The program waits for a line when it is interrupted: what was answered is kept. */
static void an_interruption_is_a_clean_end(void) {
  CHECK(sh("cd " ROOT " && mkfifo pipe && { " MNEME
           "chat rxt --session left <pipe >left.txt 2>&1 & } && pid=$! && exec 3>pipe && printf 'a b\\n' >&3 && "
           "until test -s rxt/sessions/left.safetensors; do sleep 0.05; done && kill -INT $pid; wait $pid; test $? = 3 && cat left.txt") ==
                0 &&
            strstr(out, "holds all turns that were answered"),
        "%s", out);
  CHECK(sh(CHAT "rxt --list 2>&1") == 0 && strstr(out, "left: 1 turns"), "%s", out);
}

static void any_stream_may_be_talked_with(void) {
  CHECK(sh("printf 'a b\\nc\\n' | (" CHAT "decoder --session a --tokens 4 2>&1)") == 0 && strstr(out, "begins"), "%s", out);
  CHECK(sh("printf 'b\\n' | (" CHAT "decoder --session a --tokens 4 2>&1)") == 0 && strstr(out, "goes on after"), "%s", out);
  CHECK(sh(CHAT "decoder --list 2>&1") == 0 && strstr(out, " tokens"), "%s", out);
  CHECK(sh("for i in 1 2 3 4 5 6 7 8 9 10; do echo b; done | (" CHAT "decoder --session a --tokens 4 2>&1)") == 2 &&
            strstr(out, "max_context is 80"),
        "%s", out);
}

static void what_is_refused(void) {
  static const struct {
    const char *command, *says;
  } cases[] = {
      {"printf 'one that is far too long\\n' | (" CHAT "rxt --session whole 2>&1)", "a turn of this model has room for 12"},
      {"echo a | (" CHAT "other --session whole --sessions rxt/sessions 2>&1)",
       "rxt/sessions/whole.safetensors was saved with another model"},
      {"echo a | (" CHAT "rxt --session whole --new 2>&1)", "would be overwritten"},
      {"echo a | (" CHAT "rxt --session whole --fork parts 2>&1)", "would be overwritten"},
      {"echo a | (" CHAT "rxt --session fresh --fork nobody 2>&1)", "nobody.safetensors"},
      {"echo a | (" CHAT "rxt --session ../x 2>&1)", "the name of a session, '../x'"},
      {"echo a | (" CHAT "rxt --session a/b 2>&1)", "a name is no path"},
      {"echo a | (" CHAT "rxt --new 2>&1)", "--new has no effect"},
      {"echo a | (" CHAT "rxt --list --session a 2>&1)", "--session has no effect"},
      {"(cd " ROOT "/rxt/sessions && head -c 900 whole.safetensors >cut.safetensors) && echo a | (" CHAT "rxt --session cut 2>&1)",
       "cut.safetensors"},
      {"(cd " ROOT " && ln -s rxt/sessions links) && echo a | (" CHAT "rxt --session a --sessions links 2>&1)", "links"},
  };
  CHECK(sh("cd " ROOT "/rxt/sessions && cp whole.safetensors ../before") == 0, "%s", out);
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    const int rc = sh("%s", cases[i].command);
    CHECK((rc == 1 || rc == 2) && strstr(out, cases[i].says), "%s: %d: %s", cases[i].command, rc, out);
  }
  CHECK(sh("cd " ROOT "/rxt && cmp before sessions/whole.safetensors && test ! -e sessions/fresh.safetensors") == 0, "%s", out);
  CHECK(sh(CHAT "rxt --list 2>&1") == 0 && strstr(out, "cut: "), "and the list says which cannot be read: %s", out);
}

/* HOLD opens a session and waits; what it is told comes down the pipe as file 3, and REST ends it. */
#define HOLD(name)                                                                                                                         \
  "cd " ROOT " && rm -f way && mkfifo way && { " MNEME "chat decoder --session " name " --tokens 3 <way >held.txt 2>&1 & } && pid=$! && "  \
  "exec 3>way && printf 'a\n' >&3 && until test -s decoder/sessions/" name ".safetensors; do sleep 0.02; done && "
#define REST "exec 3>&- && wait $pid && cat held.txt && ls -A decoder/sessions"

static void a_session_is_one_processs(void) {
  CHECK(sh(HOLD("one") "echo b | " MNEME "chat decoder --session one --tokens 3 2>&1; test $? = 2 && printf 'b\n' >&3 && " REST) == 0 &&
            strstr(out, "session one is open in another process") && strstr(out, "one.safetensors begins") && !strstr(out, ".lock"),
        "%s", out);
  CHECK(
      sh(HOLD(
          "two") "echo b | " MNEME "chat decoder --session three --fork one --tokens 3 2>&1 && echo b | " MNEME
                 "chat decoder --session two --fork one --tokens 3 2>&1; test $? = 2 && cat decoder/sessions/two.safetensors >was && " REST
                 " && cmp was decoder/sessions/two.safetensors") == 0 &&
          strstr(out, "session two is open in another process"),
      "%s", out);
  CHECK(sh(HOLD("dead") "kill -KILL $pid; exec 3>&-; wait $pid; echo b | " MNEME
                        "chat decoder --session dead --tokens 3 2>&1 && ls -A decoder/sessions") == 0 &&
            strstr(out, "dead.safetensors goes on after") && !strstr(out, ".lock"),
        "the lock of one that was killed holds nobody up: %s", out);
}

/* By a program that asks nobody. */
static void what_another_wrote_meanwhile_stays(void) {
  CHECK(
      sh(HOLD(
          "torn") "cp decoder/sessions/one.safetensors decoder/sessions/new && mv decoder/sessions/new decoder/sessions/torn.safetensors && "
                  "printf 'b\n' >&3 && " REST " && cmp decoder/sessions/one.safetensors decoder/sessions/torn.safetensors") == 0 &&
          strstr(out, "kept in decoder/sessions/torn-2.safetensors") && strstr(out, "\ntorn-2.safetensors") && !strstr(out, ".lock"),
      "%s", out);
  CHECK(sh("echo c | (" CHAT "decoder --session torn-2 --tokens 3 2>&1)") == 0 && strstr(out, "goes on after"), "%s", out);
}

/* Of --session-in and --session-out, too, where they are one file. */
static void other_verbs_go_on_alone(void) {
  static const char go_on[] = MNEME "generate --model decoder --tokens 2 --session-in g.safetensors --session-out g.safetensors 2>&1";
  CHECK(sh("cd " ROOT " && printf a | " MNEME
           "stream --model decoder --session-out g.safetensors - 2>&1 && rm -f way && mkfifo way && { " MNEME
           "stream --model decoder --session-in g.safetensors --session-out ./g.safetensors - <way >held.txt 2>&1 & } && pid=$! && "
           "exec 3>way && until test -e .mneme-g.safetensors.lock; do sleep 0.02; done; %s; test $? = 2 && printf b >&3 && exec 3>&- && "
           "wait $pid && cat held.txt && test ! -e .mneme-g.safetensors.lock && %s",
           go_on, go_on) == 0 &&
            strstr(out, "g.safetensors is open in another process") && strstr(out, "the session after 5 tokens"),
        "%s", out);
}

/* SOON waits for what is to come; not for ever, where it does not. */
#define SOON(what) "i=0; until " what " || test $((i += 1)) -gt 1000; do sleep 0.02; done; "
static void a_dialogue_outlives_its_folder(void) {
  CHECK(sh(HOLD("lost") "rm -rf decoder/sessions && printf 'b\\n' >&3; " SOON("test -s decoder/sessions/lost.safetensors") REST) == 0 &&
            strstr(out, "\nlost.safetensors") && !strstr(out, ".lock"),
        "a folder that was removed is made again: %s", out);
  CHECK(sh("echo c | (" CHAT "decoder --session lost --tokens 3 2>&1)") == 0 && strstr(out, "goes on after"), "%s", out);
  /* of a model that is moved away nothing is made again; while it is back at the end, all is saved */
  CHECK(sh(HOLD("back") "mv decoder moved && printf 'b\\nc\\n' >&3; " SOON(
            "grep -q 'each turn tries again' held.txt") "mv moved decoder; " REST) == 0 &&
            strstr(out, "could not write decoder/sessions/back.safetensors"),
        "%s", out);
  CHECK(sh(CHAT "decoder --list 2>&1") == 0, "%s", out);
  const char *of = strstr(out, "back: ");
  const int three_turns = of ? atoi(of + 6) : 0;
  CHECK(sh("printf 'a\\nb\\nc\\n' | (" CHAT "decoder --session alike --tokens 3 >/dev/null 2>&1); " CHAT "decoder --list 2>&1") == 0, "%s",
        out);
  of = strstr(out, "alike: ");
  CHECK(of && three_turns && atoi(of + 7) == three_turns, "all three turns: %d, %s", three_turns, out);
  CHECK(
      sh(HOLD(
          "gone") "mv decoder moved && printf 'b\\n' >&3 && exec 3>&-; wait $pid; test $? = 1 && test ! -e decoder && mv moved decoder && "
                  "cat held.txt && ls -A decoder/sessions") == 0 &&
          strstr(out, "mneme: the last turns are lost: could not write"),
      "%s", out);
}

int main(void) {
  RUN(prepare);
  RUN(a_dialogue_goes_on_after_a_restart);
  RUN(sessions_are_listed_and_forked);
  RUN(an_interruption_is_a_clean_end);
  RUN(any_stream_may_be_talked_with);
  RUN(a_session_is_one_processs);
  RUN(what_another_wrote_meanwhile_stays);
  RUN(other_verbs_go_on_alone);
  RUN(a_dialogue_outlives_its_folder);
  RUN(what_is_refused);
  return test_end();
}
