/* test_serve_prefixes.c - what must be true of prompts that begin alike, in order: of a hybrid as of attention only what is new is read, and the
 * answer is the same; sessions and requests without one share; another key's prompts and sessions are another's; they stay within the budget of sessions, and
 * go before a session does that was used later; a session that is rolled back has the tokens that it has. */
#include "base/file.h"
#include "serve_helpers.h"

static server_process server;
static char prompt[3][4000]; /* token ids: 300, the same and 40 more, the first 200 and others */

#define RECIPE(name, blocks)                                                                                                               \
  "name: " name "\ntokenizer: {type: bytes}\ndata: {type: dialogues, files: [d.jsonl], user: 'u', assistant: 'a', validation: 0}\n"        \
  "model: {d_model: 32, blocks: [" blocks "]}\ntrain: {steps: 60, batch: 2, seq_len: 24, optimizer: {lr: 0.01}}\n"
#define ATTENTION "{mixer: {type: attention, heads: 2, max_context: 2000}, hidden: 32}"
static const char dialogues[] =
    "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", \"content\": \"okay\"}, {\"role\": \"user\", \"content\": \"b\"}, "
    "{\"role\": \"assistant\", \"content\": \"no\"}]}\n";
static const char hybrid[] =
    RECIPE("hybrid", "{mixer: {type: short_conv}, hidden: 32}, {mixer: {type: gated_deltanet, heads: 2}, hidden: 32}, " ATTENTION);
static const char attention[] = RECIPE("attention", ATTENTION);

static void prepare(void) {
  CHECK_OK(mn_file_write("d.jsonl", dialogues, sizeof dialogues - 1));
  CHECK_OK(mn_file_write("hybrid.yaml", hybrid, sizeof hybrid - 1));
  CHECK_OK(mn_file_write("attention.yaml", attention, sizeof attention - 1));
  CHECK(sh("MNEME_HOME=home " MNEME "train hybrid.yaml --out hybrid --quiet 2>&1") == 0, "%s", out);
  CHECK(sh("MNEME_HOME=home " MNEME "train attention.yaml --out attention --quiet 2>&1") == 0, "%s", out);
  for (int k = 0; k < 3; k++)
    for (int i = 0, n = 0; i < (k == 1 ? 340 : 300); i++)
      n += snprintf(prompt[k] + n, sizeof prompt[k] - (size_t)n, "%s%d", i ? ", " : "", 97 + (i * i + (k == 2 && i >= 200)) % 26);
}

/* What is said of a prompt, and how much of it was known. */
static long ask(int k, const char *more, const char *headers, char said[200]) {
  char *body = mn_format("{\"prompt\": [%s], \"max_tokens\": 8, \"temperature\": 1, \"seed\": 3, \"ignore_eos\": true%s}", prompt[k], more);
  CHECK(body && http_ask("POST", "/v1/completions", headers, body) == 200, "%s", http_reply);
  free(body);
  if (said) snprintf(said, 200, "%.199s", http_text(http_body(), "text"));
  return http_number("cached_tokens");
}

static void only_what_is_new_is_read(void) {
  static const char *const models[] = {"attention", "hybrid"};
  for (int hybrids = 0; hybrids < 2; hybrids++) {
    char first[200], again[200], longer[200], other[200], alone[200];
    CHECK(server_begin(&server, models[hybrids]), "no server");
    CHECK(ask(0, "", "", first) == 0, "%s", http_reply);
    CHECK(ask(0, "", "", again) == (hybrids ? 256 : 299) && !strcmp(first, again), "%s, then %s", first, http_reply);
    CHECK(ask(1, "", "", longer) == 300, "a prompt's end is a place to go on from: %s", http_reply);
    CHECK(ask(0, ", \"n\": 3", "", NULL) >= 256 && http_number("prompt_tokens") == 300 && !strcmp(http_text(http_body(), "text"), first),
          "%s", http_reply);
    const long shared = ask(2, "", "", other);
    CHECK(shared == (hybrids ? 0 : 200), "another that begins so: %s", http_reply);
    CHECK(server_end(&server) == 0, "not well");
    CHECK(server_begin(&server, models[hybrids]), "no server"); /* one that knows nothing says the same */
    CHECK(ask(1, "", "", alone) == 0 && !strcmp(alone, longer), "%s, not %s", alone, longer);
    CHECK(ask(2, "", "", alone) == (hybrids ? 0 : 200) && !strcmp(alone, other), "%s, not %s", alone, other);
    CHECK(http_post("/v1/completions", "{\"prompt\": \"short\", \"max_tokens\": 1}") == 200 &&
              http_post("/v1/completions", "{\"prompt\": \"short\", \"max_tokens\": 1}") == 200 && http_number("cached_tokens") == 0,
          "a few tokens are not worth it: %s", http_reply);
    CHECK(server_end(&server) == 0, "not well");
  }
}

static void sessions_share_too(void) {
  char first[200], second[200], third[200];
  CHECK(server_begin(&server, "hybrid"), "no server");
  CHECK(ask(0, ", \"session_id\": \"one\"", "", first) == 0, "%s", http_reply);
  CHECK(ask(1, "", "", NULL) == 300, "a request without a session goes on from one's: %s", http_reply);
  CHECK(ask(0, ", \"session_id\": \"two\"", "", second) >= 256 && !strcmp(first, second), "and a session from another's: %s", http_reply);
  CHECK(ask(1, ", \"session_id\": \"three\"", "", NULL) >= 256, "or from what a request left: %s", http_reply);
  /* what went on so is a session like any other */
  CHECK(ask(0, ", \"session_id\": \"one\"", "", first) == 308, "%s", http_reply);
  CHECK(ask(0, ", \"session_id\": \"two\"", "", third) == 308 && !strcmp(first, third), "%s, not %s", third, first);
  CHECK(http_get("/sessions") == 200 && http_times("\"object\": \"session\"") == 3, "what was laid down has no name: %s", http_reply);
  CHECK(server_end(&server) == 0, "not well");
}

static void what_others_asked_is_theirs(void) {
  static const char keys[] = "first-key-of-all\nsecond-key-of-all\n";
  CHECK_OK(mn_file_write("keys.txt", keys, sizeof keys - 1));
  CHECK(server_begin(&server, "hybrid --api-key-file keys.txt"), "no server");
  CHECK(ask(0, "", "Authorization: Bearer first-key-of-all\r\n", NULL) == 0, "%s", http_reply);
  CHECK(ask(0, "", "Authorization: Bearer second-key-of-all\r\n", NULL) == 0, "%s", http_reply);
  CHECK(ask(0, "", "Authorization: Bearer first-key-of-all\r\n", NULL) == 256, "%s", http_reply);
  CHECK(server_end(&server) == 0, "not well");
}

#define FIRST  "Authorization: Bearer first-key-of-all\r\n"
#define SECOND "Authorization: Bearer second-key-of-all\r\n"

/* Whatever is asked of the first key's session by the second is answered as of one that is not there. */
static void it_is_not_there(void) {
  static const struct {
    const char *method, *verb, *body;
  } all[] = {{"GET", "", ""},
             {"POST", "/fork", "{\"to\": \"stolen\"}"},
             {"POST", "/rollback", "{\"tokens\": 1}"},
             {"POST", "/save", ""},
             {"DELETE", "", ""}};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
    char path[100], of_it[2000], *at;
    snprintf(path, sizeof path, "/sessions/mine%s", all[i].verb);
    CHECK(http_ask(all[i].method, path, SECOND, all[i].body) == 404, "%s %s: %s", all[i].method, path, http_reply);
    snprintf(of_it, sizeof of_it, "%s", http_body());
    snprintf(path, sizeof path, "/sessions/none%s", all[i].verb);
    CHECK(http_ask(all[i].method, path, SECOND, all[i].body) == 404, "%s %s: %s", all[i].method, path, http_reply);
    if ((at = strstr(of_it, "'mine'"))) memcpy(at, "'none'", 6);
    CHECK(!strcmp(of_it, http_body()), "%s, and of one that is not there %s", of_it, http_body());
  }
  CHECK(http_ask("GET", "/sessions", SECOND, "") == 200 && !strstr(http_reply, "mine") && !strstr(http_reply, "stolen"), "%s", http_reply);
  CHECK(http_ask("GET", "/sessions/mine", FIRST, "") == 200, "%s", http_reply);
}

static void so_are_their_sessions(void) {
  char first[200], second[200];
  CHECK(server_begin(&server, "hybrid --api-key-file keys.txt --sessions owned"), "no server");
  CHECK(ask(0, ", \"session_id\": \"mine\"", FIRST, first) == 0, "%s", http_reply);
  CHECK(ask(1, "", SECOND, NULL) == 0, "what the other's session read is no beginning: %s", http_reply);
  it_is_not_there();
  CHECK(server_end(&server) == 0, "not well");
  CHECK(server_begin(&server, "hybrid --api-key-file keys.txt --sessions owned"), "no server");
  it_is_not_there(); /* nor is it in the next server */
  CHECK(ask(0, ", \"session_id\": \"mine\"", SECOND, second) == 0 && !strcmp(first, second), "one of the same name begins: %s", http_reply);
  CHECK(ask(0, ", \"session_id\": \"mine\"", FIRST, NULL) == 308, "and each goes on with his own: %s", http_reply);
  CHECK(http_ask("DELETE", "/sessions/mine", SECOND, "") == 200 && http_ask("GET", "/sessions/mine", FIRST, "") == 200, "%s", http_reply);
  CHECK(http_ask("GET", "/sessions/mine", SECOND, "") == 404, "%s", http_reply);
  CHECK(server_end(&server) == 0, "not well");
  /* what a server without keys keeps is everybody's; owned sessions are not shown there */
  CHECK(server_begin(&server, "hybrid --sessions owned"), "no server");
  CHECK(http_get("/sessions") == 200 && !strstr(http_reply, "mine"), "%s", http_reply);
  CHECK(ask(0, ", \"session_id\": \"ours\"", "", NULL) == 0, "%s", http_reply);
  CHECK(server_end(&server) == 0, "not well");
  CHECK(server_begin(&server, "hybrid --api-key-file keys.txt --sessions owned"), "no server");
  CHECK(ask(0, ", \"session_id\": \"ours\"", FIRST, NULL) == 308 && ask(0, ", \"session_id\": \"ours\"", SECOND, NULL) == 616, "%s",
        http_reply);
  CHECK(server_end(&server) == 0, "not well");
}

static long session_bytes(void) {
  CHECK(http_get("/metrics") == 200, "%s", http_reply);
  const char *at = strstr(http_reply, "\nmneme_session_bytes ");
  return at ? atol(at + strlen("\nmneme_session_bytes ")) : -1;
}

static void they_have_their_budget(void) {
  long most = 0;
  CHECK(server_begin(&server, "hybrid --session-mib 1 --sessions kept"), "no server");
  CHECK(ask(0, ", \"session_id\": \"mine\"", "", NULL) == 0, "%s", http_reply);
  CHECK(session_bytes() > 0, "%s", http_reply);
  for (int i = 0, full = 0; i < 200 && full < 3; i++) { /* until it has been full, and a few more */
    char text[100];
    for (int k = 0; k < 80; k++) text[k] = (char)('a' + (i * 7 + k * (i + 1)) % 26);
    text[0] = (char)('a' + i / 26), text[80] = 0; /* each of its own */
    CHECK(http_post("/v1/completions", "{\"prompt\": \"%s\", \"max_tokens\": 1}", text) == 200, "%s", http_reply);
    const long now = session_bytes();
    full += now <= most;
    most = now > most ? now : most;
  }
  CHECK(most > 1 << 19 && most <= 1 << 20, "%ld bytes", most);
  CHECK(http_get("/sessions/mine") == 200 && strstr(http_reply, "\"in_memory\": false"), "the least lately used one is on the disk: %s",
        http_reply);
  CHECK(ask(0, ", \"session_id\": \"mine\"", "", NULL) == 308, "and goes on: %s", http_reply);
  CHECK(server_end(&server) == 0, "not well");
  CHECK(sh("ls kept") == 0 && !strcmp(out, "mine.safetensors\n"), "what has no name is in no file: %s", out);
}

/* ---- rolled back ---- */
static void a_session_has_the_tokens_that_it_has(void) {
  CHECK(server_begin(&server, "hybrid"), "no server");
  long at[4] = {0};
  for (int turn = 0; turn < 3; turn++) {
    CHECK(http_post(
              "/v1/chat/completions",
              "{\"messages\": [{\"role\": \"user\", \"content\": \"%s\"}], \"session_id\": \"s\", \"temperature\": 0, \"max_tokens\": 12}",
              turn % 2 ? "b" : "a") == 200,
          "%s", http_reply);
    CHECK(http_get("/sessions/s") == 200, "%s", http_reply);
    at[turn + 1] = http_number("tokens");
  }
  CHECK(at[3] > at[2] && at[2] > at[1], "%ld, %ld, %ld", at[1], at[2], at[3]);
  for (int turns = 2; turns >= 0; turns--) {
    CHECK(http_post("/sessions/s/rollback", "{\"messages\": %d}", turns * 2) == 200, "%s", http_reply);
    const long now = http_number("tokens"); /* the end of an answer may be a token less: the template writes a line's end behind it */
    CHECK(now == at[turns] || now == at[turns] + 1 || now == at[turns] - 1, "%d turns: %ld tokens, not %ld", turns, now, at[turns]);
    CHECK(http_get("/sessions") == 200 && http_number("tokens") == now, "the list: %s", http_reply);
  }
  CHECK(server_end(&server) == 0, "not well");
}

int main(void) {
  signal(SIGPIPE, SIG_IGN);
  RUN(prepare);
  RUN(only_what_is_new_is_read);
  RUN(sessions_share_too);
  RUN(what_others_asked_is_theirs);
  RUN(so_are_their_sessions);
  RUN(they_have_their_budget);
  RUN(a_session_has_the_tokens_that_it_has);
  if (server.pid) server_end(&server);
  return test_end();
}
