/* What must be true of the public API's dialogues, seen as a foreign program sees it (mneme_chat.h alone): an answer comes in pieces; only what is new is
 * read; a fork goes its own way; a turn that is taken back can be said again, with the same answer; a saved dialogue goes on as if nothing had
 * stopped; the example does so; wrong use is named. */
#include <mneme_chat.h>

#include "program.h"
#include "test.h"

static mn_lm *lm;
static const char template[] =
    "{% for m in messages %}{{ m.role[0] }}{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}a{% endif %}";

static void put(const char *path, const char *text) {
  FILE *f = fopen(path, "w");
  CHECK(f && fputs(text, f) >= 0, "%s", path);
  if (f) fclose(f);
}

static void prepare(void) {
  put("d.jsonl",
      "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", \"content\": \"okay\"}, {\"role\": \"user\", "
      "\"content\": \"b\"}, {\"role\": \"assistant\", \"content\": \"no\"}]}\n");
  put("r.yaml",
      "name: talks\ntokenizer: {type: bytes}\ndata: {type: dialogues, files: [d.jsonl], user: 'u', assistant: 'a', validation: 0}\n"
      "model: {d_model: 32, layers: 1, block: {mixer: {type: gated_deltanet, heads: 2}, hidden: 32}}\n"
      "train: {steps: 150, batch: 4, seq_len: 24, optimizer: {lr: 0.01}}\n");
  put("t.jinja", template);
  CHECK(sh("MNEME_HOME=home " MNEME "train r.yaml --out talks --quiet 2>&1") == 0, "%s", out);
  CHECK_OK(mn_lm_open("talks", 1, &lm));
}

typedef struct heard {
  char text[200];
  int pieces, most;
} heard;

static bool hear(void *ctx, const char *text, size_t bytes) {
  heard *h = ctx;
  h->pieces++;
  if (strlen(h->text) + bytes < sizeof h->text) strncat(h->text, text, bytes);
  return !h->most || h->pieces < h->most;
}

static void say(mn_chat *c, const char *text, heard *h) {
  const char *const settings[] = {"temperature=1", "seed=4", NULL};
  const int most = h->most;
  *h = (heard){.most = most};
  CHECK_OK(mn_chat_say(c, text, 12, settings, hear, h));
}

static void turns_are_said_forked_and_taken_back(void) {
  mn_chat *c = NULL, *fork = NULL, *loaded = NULL;
  heard one = {0}, two = {0}, again = {0}, other = {0}, last = {0};
  CHECK_OK(mn_chat_new(lm, "t.jinja", "x", &c));
  if (!c) return;
  say(c, "a", &one);
  CHECK(one.pieces > 1 && *one.text && mn_chat_turns(c) == 1, "%d pieces: %s", one.pieces, one.text);
  const int64_t first = mn_chat_tokens_read(c);
  say(c, "b", &two);
  CHECK(mn_chat_turns(c) == 2 && mn_chat_tokens_read(c) - first <= 12 + 8, "only what is new: %lld tokens, then %lld", (long long)first,
        (long long)mn_chat_tokens_read(c));
  CHECK_OK(mn_chat_fork(c, &fork));
  CHECK_OK(mn_chat_back(c, 1));
  CHECK(mn_chat_turns(c) == 1 && mn_chat_turns(fork) == 2, "%lld turns", (long long)mn_chat_turns(c));
  say(c, "b", &again);
  CHECK(!strcmp(two.text, again.text), "%s, not %s", again.text, two.text);
  say(fork, "c", &other);
  CHECK_OK(mn_chat_save(c, "c.safetensors"));
  CHECK_OK(mn_chat_load(lm, "t.jinja", "c.safetensors", &loaded));
  if (loaded) {
    CHECK(mn_chat_turns(loaded) == 2, "%lld turns", (long long)mn_chat_turns(loaded));
    say(loaded, "c", &last);
    CHECK(!strcmp(last.text, other.text) && mn_chat_tokens_read(loaded) <= 12 + 8, "%s, not %s", last.text, other.text);
    CHECK_OK(mn_chat_back(loaded, 3));
    say(loaded, "a", &last);
    CHECK(!strcmp(last.text, one.text), "%s, not %s", last.text, one.text);
  }
  CHECK_OK(mn_chat_save(c, "c.safetensors"));
  CHECK(!loaded || (mn_chat_save(loaded, "./c.safetensors") == MN_ERR_IO && strstr(mn_message(), "another program has written it")), "%s",
        mn_message());
  last.most = 2;
  say(c, "d", &last);
  CHECK(last.pieces == 2 && mn_chat_turns(c) == 4 - 1, "who listens may stop it: %d", last.pieces);
  mn_chat_free(c), mn_chat_free(fork), mn_chat_free(loaded);
}

/* Each run goes on where the one before it ended; a fork and a turn that was taken back are where they were left. */
static void the_example_talks(void) {
#define EXAMPLE MN_TEST_BINARY_DIR "/example-chat talks "
  CHECK(sh("printf 'a\nb\n' | " EXAMPLE "e.safetensors t.jinja 2>&1") == 0 && strstr(out, "0 turns so far") && strstr(out, "\n2 turns, "),
        "%s", out);
  CHECK(sh("printf '/fork f.safetensors\n/back\n/back\n/back\na\n' | " EXAMPLE "e.safetensors t.jinja 2>&1") == 0 &&
            strstr(out, "2 turns so far") && strstr(out, "mn_chat_back") && strstr(out, "\n1 turns, "),
        "%s", out);
  CHECK(sh("printf '/back\n' | " EXAMPLE "e.safetensors t.jinja 2>&1") == 0 && strstr(out, "1 turns so far") && strstr(out, "\n0 turns, "),
        "%s", out);
  CHECK(sh("printf '' | " EXAMPLE "e.safetensors t.jinja 2>&1") == 0 && strstr(out, "0 turns so far"),
        "a turn taken back is not there again: %s", out);
  CHECK(sh("head -c 6000 /dev/zero | tr '\\0' a | " EXAMPLE "long.safetensors t.jinja 2>&1") == 0 && strstr(out, "\n1 turns, "),
        "a long line is one turn: %s", out);
  CHECK(sh("printf 'c\n' | " EXAMPLE "f.safetensors t.jinja 2>&1") == 0 && strstr(out, "2 turns so far") && strstr(out, "\n3 turns, "),
        "%s", out);
  CHECK(sh(EXAMPLE "talks/model.safetensors t.jinja </dev/null 2>&1") == 1 && strstr(out, "model.safetensors"), "%s", out);
  CHECK(sh(MN_TEST_BINARY_DIR "/example-chat nowhere e.safetensors 2>&1") == 1 && strstr(out, "nowhere"), "%s", out);
}

static void wrong_use_is_named(void) {
  mn_chat *c = NULL, *no = NULL;
  CHECK(mn_chat_new(lm, NULL, NULL, &no) == MN_ERR_CONFIG && !no && strstr(mn_message(), "chat template"), "%s", mn_message());
  CHECK(mn_chat_new(NULL, NULL, NULL, &no) == MN_ERR_ARG && mn_chat_new(lm, "nowhere.jinja", NULL, &no) == MN_ERR_IO && !no, "%s",
        mn_message());
  CHECK_OK(mn_chat_new(lm, "t.jinja", NULL, &c));
  if (!c) return;
  CHECK(mn_chat_say(c, NULL, 1, NULL, NULL, NULL) == MN_ERR_ARG && mn_chat_say(c, "a", -1, NULL, NULL, NULL) == MN_ERR_ARG, "%s",
        mn_message());
  CHECK(mn_chat_say(c, "a", 1, (const char *const[]){"tempreature=1", NULL}, NULL, NULL) == MN_ERR_CONFIG &&
            strstr(mn_message(), "temperature"),
        "%s", mn_message());
  CHECK(mn_chat_back(c, 1) == MN_ERR_ARG && mn_chat_turns(c) == 0, "%s", mn_message());
  CHECK(mn_chat_load(lm, "t.jinja", "talks/model.safetensors", &no) != MN_OK && !no, "%s", mn_message());
  CHECK_OK(mn_chat_say(c, "a", 3, NULL, NULL, NULL));
  mn_chat_free(c), mn_chat_free(NULL);
}

int main(void) {
  RUN(prepare);
  if (lm) {
    RUN(turns_are_said_forked_and_taken_back);
    RUN(the_example_talks);
    RUN(wrong_use_is_named);
  }
  mn_lm_free(lm);
  return test_end();
}
