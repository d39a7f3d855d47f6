/* test_serve_hostile.c - what must be true of a server that is treated badly, in order: a client that waits for "100 Continue" gets it; one that
 * closes its side of the connection has left, and so has one that does not read what it is told; schemas that explode are refused with the
 * reason; bodies that wait to be read are bounded, and those that nobody waits for are passed over; while it ends, who asks is told so; a log that cannot be written is said; when the model's file is cut while it is mapped, the request that needs it ends with an error that names the file, also a stream that
 * was under way, and the server lives. */
#include "base/file.h"
#include "serve_helpers.h"
#include <sys/resource.h>

static server_process server;
static const char recipe[] =
    "name: cut\ntokenizer: {type: bytes}\ndata: {files: [t.txt]}\n"
    "model: {d_model: 64, layers: 2, block: {mixer: {type: attention, heads: 2, max_context: 4000}, hidden: 512}}\n"
    "train: {steps: 1, batch: 1, seq_len: 32, validation_batches: 1}\n";

static void cut_under(const char *file, const char *model) {
  char body[] = "{\"prompt\": \"a\", \"max_tokens\": 3000, \"stream\": true, \"ignore_eos\": true}";
  CHECK(server_begin(&server, model), "no server");
  if (!server.port) return;
  CHECK(http_post("/v1/completions", "{\"prompt\": \"a whale\", \"max_tokens\": 4}") == 200, "%s", http_reply);
  char *text = http_request("POST", "/v1/completions", "", body);
  const int fd = http_open();
  http_say(fd, text, strlen(text));
  CHECK(http_hear(fd, "data: "), "%s", http_reply);
  CHECK(truncate(file, 6000) == 0, "cut");
  CHECK(http_hear(fd, NULL), "it ends");
  const char *error = strstr(http_reply, "{\"error\": {\"message\": ");
  CHECK(error && strstr(error, "was cut short while it was read") && !strstr(http_reply, "[DONE]"), "a stream says why it ends: %.400s",
        error ? error : http_reply);
  close(fd), free(text);
  for (int i = 0; i < 3; i++)
    CHECK(http_post("/v1/completions", "{\"prompt\": \"a whale\", \"max_tokens\": 4}") == 500 &&
              strstr(http_reply, "was cut short while it was read"),
          "%s", http_reply);
  CHECK(http_get("/health") == 200 && http_get("/v1/models") == 200, "it lives: %s", http_reply);
  CHECK(server_end(&server) == 0, "not well");
}

static void a_file_that_is_cut_ends_requests_alone(void) {
  trained_on_a_book("cut", recipe);
  CHECK(sh(MNEME "convert cut --out cut.gguf --type q8_0 2>&1") == 0, "%s", out);
  cut_under("cut/model.safetensors", "cut");
  cut_under("cut.gguf", "cut.gguf");
}

/* ---- clients ---- */
static void prepare(void) {
  static const char endless[] = "name: endless\ntokenizer: {type: bytes}\ndata: {files: [t.txt]}\n"
                                "model: {d_model: 16, layers: 1, block: {mixer: {type: gated_deltanet, heads: 2}, hidden: 16}}\n"
                                "train: {steps: 1, batch: 1, seq_len: 32, validation_batches: 1}\n";
  CHECK_OK(mn_file_write("t.txt", endless, sizeof endless - 1));
  CHECK_OK(mn_file_write("endless.yaml", endless, sizeof endless - 1));
  CHECK(sh("MNEME_HOME=home " MNEME "train endless.yaml --out endless --quiet 2>&1") == 0, "%s", out);
  CHECK(server_begin(&server, "endless --idle-seconds 3600"), "no server");
}

static long metric(const char *name) {
  http_get("/metrics");
  const char *at = strstr(http_body(), name);
  return at ? atol(at + strlen(name)) : -1;
}

static void who_waits_to_go_on_is_told(void) {
  const char *const head =
      "POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: 32\r\n\r\n";
  const int fd = http_open();
  http_say(fd, head, strlen(head));
  CHECK(http_hear(fd, "\r\n\r\n") && !strcmp(http_reply, "HTTP/1.1 100 Continue\r\n\r\n"), "%s", http_reply);
  http_say(fd, "{\"prompt\": \"a\", \"max_tokens\": 1}", 32);
  CHECK(http_hear(fd, NULL) && http_status() == 200, "%s", http_reply);
  close(fd);
  const char *const large = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 99999999999\r\n\r\n";
  CHECK(http_bytes(large, strlen(large)) == 413, "one whose body would be refused is not: %s", http_reply);
}

/* Streams that nobody hears end; `how`: 0, it closes its side for writing; 1, it reads nothing. */
static void nobody_hears(int how) {
  const long before = metric("\nmneme_clients_left_total ");
  char *text = http_request("POST", "/v1/completions", "",
                            "{\"prompt\": \"a\", \"max_tokens\": 2000000, \"stream\": true, \"ignore_eos\": true, \"logprobs\": 20}");
  const int fd = http_open();
  setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &(int){4096}, sizeof(int));
  http_say(fd, text, strlen(text));
  free(text);
  CHECK(http_hear(fd, "data: "), "%s", http_reply);
  if (how == 0) shutdown(fd, SHUT_WR);
  long running = 1;
  for (int i = 0; i < 2000 && running; i++) usleep(100000), running = metric("\nmneme_streams_running ");
  CHECK(running == 0 && metric("\nmneme_clients_left_total ") == before + 1, "%d: it goes on for nobody: %s", how, http_reply);
  close(fd);
}

static void a_half_open_connection_is_one_that_was_left(void) { nobody_hears(0); }
static void who_reads_nothing_is_let_go(void) { nobody_hears(1); }

#define WITH_SCHEMA                                                                                                                        \
  "{\"prompt\": \"a\", \"max_tokens\": 4, \"response_format\": {\"type\": \"json_schema\", \"json_schema\": {\"schema\": %s}}}"

static void schemas_that_explode_are_refused(void) {
  static const char *const large[] = {
      /* lists of lists have a rule each, and a pattern as many states as letters */
      "{\"type\": \"array\", \"maxItems\": 4000, \"items\": {\"type\": \"array\", \"maxItems\": 4000, \"items\": {\"type\": \"string\", \"maxLength\": 4000}}}",
      "{\"type\": \"string\", \"pattern\": \"^(a|b|c){200}$\", \"maxLength\": 4096}",
  };
  static const char *const all[] = {
      "{\"type\": \"array\", \"minItems\": 5000, \"items\": {\"type\": \"array\", \"minItems\": 5000, \"items\": {\"type\": \"string\", \"minLength\": 5000}}}",
      "{\"type\": \"string\", \"pattern\": \"((((a{1000}){1000}){1000}){1000}){1000}\"}",
      "{\"type\": \"string\", \"pattern\": \"^(aa|b|ca){500}$\", \"maxLength\": 4000}",
      "{\"$defs\": {\"a\": {\"allOf\": [{\"$ref\": \"#/$defs/a\"}, {\"$ref\": \"#/$defs/a\"}]}}, \"$ref\": \"#/$defs/a\"}",
      "{\"$defs\": {\"a\": {\"$ref\": \"#/$defs/b\"}, \"b\": {\"$ref\": \"#/$defs/a\"}}, \"$ref\": \"#/$defs/a\"}",
      "{\"type\": \"object\", \"properties\": {\"a\": {\"$ref\": \"#\"}}, \"required\": [\"a\"]}",
      "{\"allOf\": [{\"anyOf\": [{}, {}, {}, {}, {}, {}, {}, {}, {}]}, {\"anyOf\": [{}, {}, {}, {}, {}, {}, {}, {}, {}]}]}",
  };
  for (size_t i = 0; i < sizeof all / sizeof *all; i++)
    CHECK(http_post("/v1/completions", WITH_SCHEMA, all[i]) == 400 && strstr(http_reply, "response_format") &&
              (strstr(http_reply, "the schema") || strstr(http_reply, "the grammar")),
          "%s: %s", all[i], http_reply);
  for (size_t i = 0; i < sizeof large / sizeof *large; i++)
    CHECK(http_post("/v1/completions", WITH_SCHEMA, large[i]) == 200, "%s: %s", large[i], http_reply);
  CHECK(http_get("/health") == 200 && server_end(&server) == 0, "it lives: %s", http_reply);
}

/* Many large bodies, all whole at nearly the same time: more than may wait to be read. leave: their clients go at once. */
static void all_at_once(bool leave) {
  enum { N = 24, LARGE = 1 << 20 };
  int fd[N], read_all = 0, refused = 0;
  char *body = malloc(LARGE + 1);
  if (!body) return;
  memset(body, '1', LARGE), body[LARGE] = 0;
  for (int i = 0; i < LARGE - 1; i += 2) body[i] = ',';
  memcpy(body, "{\"prompt\":[1", 12), memcpy(body + LARGE - 8, "],\"x\":1}", 8); /* whole, and of a key that is not known */
  char *text = http_request("POST", "/v1/completions", "", body);
  const size_t n = strlen(text);
  for (int i = 0; i < N; i++) fd[i] = http_open(), http_say(fd[i], text, n - 1);
  for (int i = 0; i < N; i++) http_say(fd[i], text + n - 1, 1);
  for (int i = 0; i < N; i++) {
    if (!leave) {
      http_hear(fd[i], NULL);
      read_all += http_status() == 400;
      refused += http_status() == 429 && strstr(http_reply, "Retry-After: 1") && strstr(http_reply, "queue_full");
    }
    close(fd[i]);
  }
  CHECK(leave || (read_all >= 1 && refused >= 1 && read_all + refused == N), "%d read, %d refused: %s", read_all, refused, http_reply);
  free(text), free(body);
}

static void bodies_that_wait_are_bounded(void) {
  CHECK(server_begin(&server, "endless --queue 1"), "no server");
  if (!server.port) return;
  all_at_once(false);
  all_at_once(true);
  long reading = 1;
  for (int i = 0; i < 2000 && reading; i++) usleep(10000), http_get("/health"), reading = http_number("reading");
  CHECK(reading == 0 && http_post("/v1/completions", "{\"prompt\": \"a\", \"max_tokens\": 1}") == 200, "it lives: %s", http_reply);
  CHECK(server_end(&server) == 0, "not well");
}

/* While it ends, who asks is told so, and what is being said goes on; one that only opened a connection, or said half of what it asks, keeps it
 * from nothing. */
static void while_it_ends_who_asks_is_told(void) {
  static const char half_head[] = "GET /health HTTP/1.1\r\nHo",
                    half_body[] = "POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{";
  CHECK(server_begin(&server, "endless --idle-seconds 3600 --request-seconds 3600 --drain-seconds 3600"), "no server");
  if (!server.port) return;
  const int early = http_open(), earlier = http_open();
  http_say(early, half_head, sizeof half_head - 1);
  http_say(earlier, half_body, sizeof half_body - 1);
  char *text = http_request("POST", "/v1/completions", "",
                            "{\"prompt\": \"a\", \"max_tokens\": 2000000000, \"stream\": true, \"ignore_eos\": true}");
  const int stream = http_open();
  http_say(stream, text, strlen(text));
  free(text);
  CHECK(http_hear(stream, "data: "), "%s", http_reply);
  kill(server.pid, SIGTERM);
  int status = 200;
  for (int i = 0; i < 2000 && status != 503; i++) status = http_get("/health"), usleep(10000);
  CHECK(status == 503 && strstr(http_reply, "\"status\": \"ending\"") && strstr(http_reply, "\r\nRetry-After: ") &&
            strstr(http_reply, "\r\nConnection: close\r\n"),
        "%d: %s", status, http_reply);
  CHECK(http_post("/v1/completions", "{\"prompt\": \"a\", \"max_tokens\": 1}") == 503 && strstr(http_reply, "the server is ending") &&
            strstr(http_reply, "\r\nRetry-After: ") && strstr(http_reply, "\r\nConnection: close\r\n"),
        "%s", http_reply);
  CHECK(http_ask("DELETE", "/sessions/a", "", "") == 503 && http_get("/metrics") == 200, "%s", http_reply);
  const int silent = http_open(), late = http_open();
  http_say(late, half_head, sizeof half_head - 1);
  CHECK(silent >= 0 && http_hear(stream, "data: ") && http_hear(stream, "data: "), "the stream goes on: %.200s", http_reply);
  close(stream);
  CHECK(http_hear(late, "the server is ending"), "%.200s", http_reply);
  CHECK(server_wait(&server) == 0, "not well");
  close(silent), close(late), close(early), close(earlier);
}

/* A log that may not grow ends; the server does not, and says what is lost. */
static void a_log_that_cannot_be_written_is_said(void) {
  struct rlimit had, small;
  size_t n;
  char *said = NULL;
  getrlimit(RLIMIT_FSIZE, &had);
  small = had;
  small.rlim_cur = 2000;
  unlink("server.log");
  setrlimit(RLIMIT_FSIZE, &small);
  const bool began = server_begin(&server, "endless --access-log short.log");
  setrlimit(RLIMIT_FSIZE, &had);
  CHECK(began, "no server");
  for (int i = 0; i < 60; i++) CHECK(http_get("/health") == 200, "%s", http_reply);
  CHECK(server_end(&server) == 0, "not well");
  CHECK_OK(mn_file_read("server.log", 1 << 20, &said, &n));
  CHECK(said && strstr(said, "--access-log: short.log cannot be written") && strstr(said, "lost until it can"), "%s", said);
  const char *first = said ? strstr(said, "cannot be written") : NULL;
  CHECK(first && !strstr(first + 1, "cannot be written"), "said more than once: %s", said);
  free(said);
}

int main(void) {
  signal(SIGPIPE, SIG_IGN);
  RUN(prepare);
  if (server.port) {
    RUN(who_waits_to_go_on_is_told);
    RUN(a_half_open_connection_is_one_that_was_left);
    RUN(who_reads_nothing_is_let_go);
    RUN(schemas_that_explode_are_refused);
  }
  RUN(bodies_that_wait_are_bounded);
  RUN(while_it_ends_who_asks_is_told);
  RUN(a_log_that_cannot_be_written_is_said);
  RUN(a_file_that_is_cut_ends_requests_alone);
  if (server.pid) server_end(&server);
  return test_end();
}
