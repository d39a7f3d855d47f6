/* test_serve_sessions.c - what must be true of sessions on the disk: the folder is tried before anything is served; two servers on one folder go on
 * with a session by turns, never at once, and lose nothing; what could not be kept at the end is named, and the exit code says so. */
#include "serve_helpers.h"

static server_process one, two;
static const char recipe[] =
    "name: kept\ntokenizer: {type: bytes}\ndata: {files: [t.txt]}\n"
    "model: {d_model: 16, layers: 1, block: {mixer: {type: attention, heads: 2, max_context: 20000}, hidden: 32}}\n"
    "train: {steps: 1, batch: 1, seq_len: 32, validation_batches: 1}\n";

static void prepare(void) { trained_on_a_book("kept", recipe); }

static void the_folder_is_tried_first(void) {
  static const struct {
    const char *folder, *says;
  } cases[] = {
      {"file", "file is a file"}, {"link", "link is a symbolic link"}, {"nowhere", "nowhere is a symbolic link"}, {"file/in", "file"}};
  CHECK(sh("echo x >file && mkdir real && ln -s real link && ln -s gone nowhere") == 0, "%s", out);
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    const int rc = sh(MNEME "serve kept --port 0 --check --sessions %s 2>&1", cases[i].folder);
    CHECK(rc == 1 && strstr(out, "--sessions: ") && strstr(out, cases[i].says) && !strstr(out, "serves"), "%s: %d: %s", cases[i].folder, rc,
          out);
  }
  CHECK(sh(MNEME "serve kept --port 0 --check --sessions new/deep 2>&1 && test ! -e new && " MNEME
                 "serve kept --port 0 --check --sessions real 2>&1 && test -z \"$(ls -A real)\"") == 0,
        "nothing is made: %s", out);
}

static int say(const server_process *s, const char *body) {
  http_port = s->port;
  return http_post("/v1/completions", "%s", body);
}

static long tokens(const server_process *s) {
  http_port = s->port;
  const char *at = http_get("/sessions/abc") == 200 ? strstr(http_body(), "\"tokens\": ") : NULL;
  return at ? atol(at + 10) : -1;
}

static void two_servers_go_on_by_turns(void) {
  CHECK(server_begin(&one, "kept --sessions both") && server_begin(&two, "kept --sessions both"), "no servers");
  CHECK(say(&one, "{\"prompt\": \"hi\", \"max_tokens\": 5, \"ignore_eos\": true, \"session_id\": \"abc\"}") == 200, "%s", http_reply);
  const long first = tokens(&one);
  CHECK(say(&two, "{\"prompt\": \"ho\", \"max_tokens\": 5, \"ignore_eos\": true, \"session_id\": \"abc\"}") == 200, "%s", http_reply);
  CHECK(tokens(&two) == first + 7, "%ld after %ld", tokens(&two), first);
  CHECK(say(&one, "{\"prompt\": \"ha\", \"max_tokens\": 5, \"ignore_eos\": true, \"session_id\": \"abc\"}") == 200, "%s", http_reply);
  CHECK(tokens(&one) == first + 14, "nothing that the other read is lost: %ld after %ld", tokens(&one), first);
}

static void and_never_at_once(void) {
  http_port = one.port;
  char *text =
      http_request("POST", "/v1/completions", "",
                   "{\"prompt\": \"and\", \"max_tokens\": 15000, \"ignore_eos\": true, \"stream\": true, \"session_id\": \"abc\"}");
  const int fd = http_open();
  char byte;
  http_say(fd, text, strlen(text));
  CHECK(read(fd, &byte, 1) == 1, "the first answers");
  while (!mn_file_exists("both/.mneme-abc.safetensors.lock")) usleep(1000);
  CHECK(say(&two, "{\"prompt\": \"ho\", \"max_tokens\": 5, \"session_id\": \"abc\"}") == 409 && strstr(http_body(), "session_busy") &&
            strstr(http_body(), "open in another process"),
        "%s", http_reply);
  CHECK(http_post("/sessions/abc/fork", "{\"to\": \"copy\"}") == 409 && strstr(http_body(), "session_busy"), "%s", http_reply);
  CHECK(http_ask("DELETE", "/sessions/abc", "", "") == 409 && strstr(http_body(), "session_busy"), "%s", http_reply);
  http_port = one.port;
  static const char *const errands[] = {"fork", "rollback", "save"}, *const bodies[] = {"{\"to\": \"copy\"}", "{\"tokens\": 0}", ""};
  for (int i = 0; i < 3; i++) {
    char path[40];
    snprintf(path, sizeof path, "/sessions/abc/%s", errands[i]);
    CHECK(http_post(path, "%s", bodies[i]) == 409 && strstr(http_body(), "session_busy") && strstr(http_body(), "session abc is in use"),
          "%s: %s", errands[i], http_reply);
  }
  close(fd);
  free(text);
  for (int i = 0; i < 6000 && mn_file_exists("both/.mneme-abc.safetensors.lock"); i++) usleep(10000);
  CHECK(say(&two, "{\"prompt\": \"ho\", \"max_tokens\": 5, \"session_id\": \"abc\"}") == 200, "it is free again: %s", http_reply);
  CHECK(server_end(&one) == 0 && server_end(&two) == 0, "see server.log");
  CHECK(sh("ls -A both | grep -v '^abc.safetensors$'") == 1, "no lock stays: %s", out);
}

static void a_session_that_is_full_says_so(void) {
  CHECK(server_begin(&one, "kept --context 64"), "no server");
  CHECK(say(&one, "{\"prompt\": \"hi\", \"max_tokens\": 63, \"ignore_eos\": true, \"session_id\": \"full\"}") == 200, "%s", http_reply);
  CHECK(say(&one, "{\"prompt\": \"ho\", \"max_tokens\": 1, \"session_id\": \"full\"}") == 400 &&
            strstr(http_body(), "context_length_exceeded") && strstr(http_body(), "\"param\": \"prompt\""),
        "%s", http_reply);
  CHECK(server_end(&one) == 0, "see server.log");
}

static void what_is_lost_is_named(void) {
  CHECK(server_begin(&one, "kept --sessions lost"), "no server");
  CHECK(say(&one, "{\"prompt\": \"hi\", \"max_tokens\": 5, \"session_id\": \"abc\"}") == 200, "%s", http_reply);
  CHECK(rename("lost", "moved") == 0 && mn_file_write("lost", "x", 1) == MN_OK, "a file in the folder's place");
  CHECK(say(&one, "{\"prompt\": \"hi\", \"max_tokens\": 5, \"session_id\": \"def\"}") == 200, "%s", http_reply);
  CHECK(server_end(&one) == 1, "see server.log");
  CHECK(sh("grep 'session def is lost: .*lost is a file' server.log && ! grep 'session abc is lost' server.log") == 0, "%s", out);
}

int main(void) {
  RUN(prepare);
  if (!test_failed) {
    RUN(the_folder_is_tried_first);
    RUN(two_servers_go_on_by_turns);
    RUN(and_never_at_once);
    RUN(a_session_that_is_full_says_so);
    RUN(what_is_lost_is_named);
  }
  return test_end();
}
