/* test_serve_errands.c - what must be true of errands of sessions whose clients leave while they run, and of sessions that are moved to files while
 * they are asked for: each errand is done whole or not at all, nobody holds a session for a client that is gone, and each session has heard just
 * what it answered, whichever of many clients asked. */
#include <sys/mman.h>

#include "serve_helpers.h"

enum { SESSIONS = 6, BEGIN = 150, CLIENTS = 3, ROUNDS = 12, SAID = 4 };
static server_process server;
static const char recipe[] = "name: kept\ntokenizer: {type: bytes}\ndata: {files: [t.txt]}\n"
                             "model: {d_model: 64, layers: 2, block: {mixer: {type: attention, heads: 2, max_context: 2000}, hidden: 32}}\n"
                             "train: {steps: 1, batch: 1, seq_len: 32, validation_batches: 1}\n";

/* A completion that goes on with the session; its status. */
static int go_on(int session, const char *prompt) {
  char *body = mn_format("{\"prompt\": \"%s\", \"max_tokens\": %d, \"ignore_eos\": true, \"session_id\": \"s%d\"}", prompt, SAID, session);
  const int status = http_post("/v1/completions", "%s", body);
  free(body);
  return status;
}

/* Of a session as /sessions/NAME tells it; -1: it is not there. */
static long tokens_of(const char *name) {
  char *path = mn_format("/sessions/%s", name);
  const int status = http_get(path);
  const char *at = status == 200 ? strstr(http_body(), "\"tokens\": ") : NULL;
  free(path);
  return at ? atol(at + 10) : -1;
}

static void prepare(void) {
  char prompt[BEGIN + 1];
  trained_on_a_book("kept", recipe);
  CHECK(server_begin(&server, "kept --sessions kept-sessions --session-mib 1 --streams 2"), "no server");
  for (int i = 0; i < SESSIONS && server.port; i++) { /* more than there is memory for */
    memset(prompt, 'a' + i, BEGIN), prompt[BEGIN] = 0;
    CHECK(go_on(i, prompt) == 200, "%s", http_reply);
  }
}

/* Is none held by anybody? Errands may still run for a while. */
static bool all_are_free(void) {
  for (int i = 0; i < 600; i++) {
    if (http_get("/sessions") == 200 && !strstr(http_body(), "\"busy\": true")) return true;
    usleep(100000);
  }
  return false;
}

static void clients_that_leave_hold_nothing(void) {
  long before[SESSIONS];
  char name[16];
  for (int i = 0; i < SESSIONS; i++) {
    snprintf(name, sizeof name, "s%d", i);
    CHECK(go_on(i, "b") == 200, "%s", http_reply);
    before[i] = tokens_of(name);
  }
  for (int round = 0; round < 60; round++) {
    static const char *const errands[] = {"fork", "save", "rollback", ""};
    const int kind = round % 4, session = round / 4 % SESSIONS;
    char *path = mn_format("/sessions/s%d%s%s", session, kind == 3 ? "" : "/", errands[kind]), *body = NULL, *text;
    if (kind == 0) body = mn_format("{\"to\": \"f%d\"}", round);
    else body = kind == 2 ? mn_format("{\"tokens\": %d}", BEGIN) : mn_strdup("");
    text = http_request(kind == 3 ? "GET" : "POST", path, "", body);
    const int fd = http_open();
    http_say(fd, text, strlen(text));
    close(fd); /* nobody waits for the answer */
    free(path), free(body), free(text);
  }
  CHECK(all_are_free(), "a session is held for a client that has left: %s", http_reply);
  for (int i = 0; i < SESSIONS; i++) {
    snprintf(name, sizeof name, "s%d", i);
    const long now = tokens_of(name);
    CHECK(now == before[i] || now == BEGIN, "%s: %ld tokens, before %ld", name, now, before[i]);
    CHECK(go_on(i, "c") == 200, "%s goes on: %s", name, http_reply);
  }
  for (int round = 0; round < 60; round += 4) { /* a fork that was made is whole */
    snprintf(name, sizeof name, "f%d", round);
    const long n = tokens_of(name);
    CHECK(n == -1 || n == before[round / 4 % SESSIONS] || n == BEGIN, "%s: %ld tokens", name, n);
    char *path = mn_format("/sessions/%s", name);
    CHECK(http_ask("DELETE", path, "", "") == 200 || n == -1, "%s", http_reply);
    free(path);
  }
  CHECK(http_get("/health") == 200, "it lives: %s", http_reply);
}

/* Clients of their own, which all ask for all sessions; how often each was answered is told in `answered`. The exit code: replies that are
 * neither an answer nor "somebody has it". */
static int client(int number, volatile int *answered) {
  int wrong = 0;
  for (int i = 0; i < ROUNDS; i++) {
    const int session = (i * (number + 1) + number) % SESSIONS, status = go_on(session, "d");
    if (status == 200) answered[number * SESSIONS + session]++;
    else wrong += status != 409;
  }
  return wrong;
}

static void sessions_that_are_moved_are_whole(void) {
  const size_t bytes = CLIENTS * SESSIONS * sizeof(int);
  volatile int *answered = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  long before[SESSIONS];
  char name[16];
  pid_t all[CLIENTS];
  if (answered == MAP_FAILED) return;
  CHECK(all_are_free(), "%s", http_reply);
  for (int i = 0; i < SESSIONS; i++) snprintf(name, sizeof name, "s%d", i), before[i] = tokens_of(name);
  for (int i = 0; i < CLIENTS; i++)
    if ((all[i] = fork()) == 0) _exit(client(i, answered));
  for (int i = 0; i < CLIENTS; i++) {
    int status = 1;
    waitpid(all[i], &status, 0);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "client %d: %d replies were wrong", i, WEXITSTATUS(status));
  }
  CHECK(all_are_free(), "%s", http_reply);
  const bool moved = strstr(http_body(), "\"in_memory\": false") != NULL;
  int whole = 0;
  for (int i = 0; i < SESSIONS; i++) {
    long times = 0;
    for (int k = 0; k < CLIENTS; k++) times += answered[k * SESSIONS + i];
    CHECK(go_on(i, "e") == 200, "%s", http_reply); /* what was in its file is read now */
    snprintf(name, sizeof name, "s%d", i);
    const long now = tokens_of(name);
    CHECK(now == before[i] + (times + 1) * (1 + SAID), "%s: %ld tokens before, answered %ld times, now %ld", name, before[i], times, now);
    whole += times > 0;
  }
  CHECK(moved && whole == SESSIONS, "%d sessions were asked for, %s in files", whole, moved ? "some" : "none");
  munmap((void *)(uintptr_t)answered, bytes);
}

static void it_ends_well(void) { CHECK(server_end(&server) == 0, "see server.log"); }

int main(void) {
  RUN(prepare);
  if (server.port) {
    RUN(clients_that_leave_hold_nothing);
    RUN(sessions_that_are_moved_are_whole);
    RUN(it_ends_well);
  }
  return test_end();
}
