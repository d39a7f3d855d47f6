/* test_serve_hosts.c - what must be true of pages of other sites, whose browsers can reach a server that asks for no keys: what they send without
 * asking does nothing, and a page whose own name leads here (DNS rebinding) is told by that name, whatever it asks for; who asks by an address, by
 * a name that is nobody's in the DNS or by one that the server was told is let through, and so is everybody where there are keys or TLS; a
 * private key or certificate that does not do is told by what is wrong with it. */
#include "serve/hosts.h"
#include "serve_helpers.h"

static const char recipe[] = "name: tiny\ntokenizer: {type: bytes}\ndata: {files: [t.txt]}\n"
                             "model: {d_model: 16, layers: 1, block: {mixer: {type: attention, heads: 2, max_context: 64}, hidden: 16}}\n"
                             "train: {steps: 1, batch: 1, seq_len: 32, validation_batches: 1}\n";
static server_process server;

/* ---- names ---- */
static void a_host_has_a_form(void) {
  static const char *const good[] = {
      "", "x", "localhost:8080", "127.0.0.1", "127.0.0.1:", "[::1]", "[::1]:65535", "a.b-c", "a_b:80", "[fe80::1%25en0]"};
  static const char *const bad[] = {"a b",   "a@b", "a/b",      "[::1", "[]",       "[::1]x", "a:b",
                                    "a:1:2", "::1", "a:123456", "a\\b", "\xc3\xa4", "a\"",    "[a]]"};
  for (size_t i = 0; i < sizeof good / sizeof *good; i++) CHECK(mn_host_valid(good[i], strlen(good[i])), "%s", good[i]);
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) CHECK(!mn_host_valid(bad[i], strlen(bad[i])), "%s", bad[i]);
  CHECK(mn_host_name("a.b.:80") == 3 && mn_host_name("[::1]:80") == 5 && mn_host_name("a") == 1 && mn_host_name("") == 0, "names");
}

static void what_is_nobodys_is_let_through(void) {
  static const char *const nobodys[] = {
      "",           "localhost", "LOCALHOST:1", "a.localhost", "mneme",     "mneme:80",   "127.0.0.1",
      "10.0.0.1:5", "127.1",     "0x7f.0x1",    "[::1]:8080",  "box.local", "box.LOCAL.", "host.docker.internal",
      "a.home.arpa"};
  static const char *const others[] = {"evil.example",
                                       "evil.example:8080",
                                       "localhost.evil.example",
                                       "127.0.0.1.evil.example",
                                       "evil.example.",
                                       "notlocal.com",
                                       "a.localhosts",
                                       "local.example",
                                       "1.2.3.4.com",
                                       "a.0y"};
  for (size_t i = 0; i < sizeof nobodys / sizeof *nobodys; i++) CHECK(mn_host_may(nobodys[i], NULL, 0, NULL, 0), "%s", nobodys[i]);
  for (size_t i = 0; i < sizeof others / sizeof *others; i++) CHECK(!mn_host_may(others[i], NULL, 0, NULL, 0), "%s", others[i]);
  CHECK(mn_host_may(NULL, NULL, 0, NULL, 0), "none");
}

static void names_may_be_added(void) {
  static const char *const own[] = {NULL, "Box.Example.org"}, *const more[] = {"a.example", "*.b.example"}, *const all[] = {"*"};
  char long_name[400];
  memset(long_name, 'a', sizeof long_name);
  memcpy(long_name + 300, ".example", 9);
  CHECK(mn_host_may("box.example.ORG:80", own, 2, NULL, 0) && !mn_host_may("abox.example.org", own, 2, NULL, 0), "own");
  CHECK(mn_host_may("A.example:1", own, 2, more, 2) && mn_host_may("x.y.B.example.", own, 2, more, 2), "more");
  CHECK(!mn_host_may("b.example", own, 2, more, 2) && !mn_host_may("evil.a.example", own, 2, more, 2), "others");
  CHECK(mn_host_may("evil.example", own, 2, all, 1) && !mn_host_may(long_name, own, 2, all, 1), "any that is a name");
}

/* ---- a server ---- */
static int ask_as(const char *host, const char *method, const char *path, const char *body) {
  char *text =
      mn_format("%s %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
                method, path, host, strlen(body), body);
  const int status = text ? http_bytes(text, strlen(text)) : 0;
  free(text);
  return status;
}

static const char asked[] = "{\"prompt\": \"a\", \"max_tokens\": 1, \"session_id\": \"mine\"}";

static void a_page_whose_name_leads_here_is_refused(void) {
  static const char *const paths[] = {"/", "/health", "/metrics", "/v1/models", "/sessions", "/sessions/mine", "/nothing"};
  CHECK(server_begin(&server, "tiny"), "no server");
  CHECK(http_post("/v1/completions", "%s", asked) == 200, "%s", http_reply);
  for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
    CHECK(ask_as("evil.example", "GET", paths[i], "") == 403 && strstr(http_reply, "unknown_host") &&
              strstr(http_reply, "--allow-host evil.example says"),
          "%s: %s", paths[i], http_reply);
  CHECK(ask_as("evil.example:8080", "POST", "/v1/completions", asked) == 403 &&
            ask_as("evil.example", "DELETE", "/sessions/mine", "") == 403 &&
            ask_as("127.0.0.1.evil.example", "POST", "/sessions/mine/rollback", "{\"tokens\": 1}") == 403,
        "%s", http_reply);
  CHECK(http_get("/sessions/mine") == 200 && strstr(http_body(), "\"tokens\": 2"), "nothing was done: %s", http_reply);
  static const char *const own[] = {"localhost", "127.0.0.1:1", "[::1]:8080", "a.localhost:3000", ""};
  for (size_t i = 0; i < sizeof own / sizeof *own; i++)
    CHECK(ask_as(own[i], "POST", "/v1/completions", "{\"prompt\": \"a\", \"max_tokens\": 1}") == 200, "%s: %s", own[i], http_reply);
  /* the target says whom it asks, where it says so (RFC 9112, 3.2.2) */
  static const char evil[] = "GET http://evil.example/health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
                    good[] = "GET http://localhost:1/health HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n",
                    old[] = "GET /health HTTP/1.0\r\n\r\n";
  CHECK(http_bytes(evil, sizeof evil - 1) == 403 && http_bytes(good, sizeof good - 1) == 200 && http_bytes(old, sizeof old - 1) == 200,
        "%s", http_reply);
  CHECK(server_end(&server) == 0, "not well");
}

static void names_are_told_to_it(void) {
  char name[256];
  CHECK(server_begin(&server, "tiny --allow-host mneme.example --allow-host *.example.org"), "no server");
  CHECK(ask_as("mneme.example", "GET", "/v1/models", "") == 200 && ask_as("A.example.org:80", "GET", "/", "") == 200, "%s", http_reply);
  CHECK(ask_as("example.org", "GET", "/v1/models", "") == 403 && ask_as("evil.example", "GET", "/v1/models", "") == 403, "%s", http_reply);
  CHECK(gethostname(name, sizeof name) == 0 && ask_as(name, "GET", "/v1/models", "") == 200, "its machine's own name: %s", http_reply);
  CHECK(server_end(&server) == 0, "not well");
  CHECK(server_begin(&server, "tiny --allow-host *") && ask_as("evil.example", "GET", "/v1/models", "") == 200, "%s", http_reply);
  CHECK(server_end(&server) == 0, "not well");
  CHECK(server_begin(&server, "tiny --cors *") && ask_as("evil.example", "GET", "/v1/models", "") == 200, "all pages may: %s", http_reply);
  CHECK(server_end(&server) == 0, "not well");
  static const char *const wrong[] = {"http://a.example", "a.example:80", "a/b"};
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
    CHECK(sh(MNEME "serve tiny --allow-host %s 2>&1", wrong[i]) != 0 && strstr(out, "--allow-host is a name"), "%s: %s", wrong[i], out);
}

static void keys_and_certificates_do_it_too(void) {
  CHECK_OK(mn_file_write("keys.txt", "first-key-of-all\n", 17));
  CHECK(sh(MNEME "serve tiny --api-key-file keys.txt --allow-host a.example 2>&1") != 0 && strstr(out, "--allow-host has no effect"), "%s",
        out);
  CHECK(server_begin(&server, "tiny --api-key-file keys.txt") && ask_as("evil.example", "GET", "/health", "") == 200 &&
            ask_as("evil.example", "GET", "/sessions", "") == 401,
        "%s", http_reply);
  CHECK(server_end(&server) == 0, "not well");
  if (sh("openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=mneme.example 2>&1") != 0 ||
      sh("command -v curl") != 0) {
    printf("skip   no openssl or no curl\n");
    return;
  }
  CHECK(server_begin(&server, "tiny --tls-cert cert.pem --tls-key key.pem"), "no server");
  CHECK(sh("curl -s --cacert cert.pem --resolve mneme.example:%d:127.0.0.1 https://mneme.example:%d/v1/models", server.port, server.port) ==
                0 &&
            strstr(out, "\"id\": \"tiny\""),
        "%s", out);
  CHECK(server_end(&server) == 0, "not well");
}

/* A browser sends what any page says, and asks first only where the body is JSON by its name. */
static void pages_of_others_do_nothing(void) {
  static const char body[] = "{\"prompt\": \"a\", \"max_tokens\": 1, \"session_id\": \"mine\"}";
#define FROM(origin, type) http_ask("POST", "/v1/completions", "Origin: " origin "\r\nContent-Type: " type "\r\n", body)
  CHECK(server_begin(&server, "tiny --cors https://example.org"), "no server");
  CHECK(FROM("http://evil.example", "text/plain") == 403 && strstr(http_reply, "cross_origin") && strstr(http_reply, "http://evil.example"),
        "%s", http_reply);
  CHECK(FROM("null", "application/x-www-form-urlencoded") == 403 && FROM("http://evil.example", "application/jsonx") == 403, "%s",
        http_reply);
  CHECK(http_ask("POST", "/v1/completions", "Origin: http://evil.example\r\n", body) == 403, "%s", http_reply);
  CHECK(http_get("/sessions/mine") == 404, "nothing was done: %s", http_reply);
  CHECK(FROM("https://example.org", "text/plain") == 200, "%s", http_reply);
  CHECK(http_ask("POST", "/sessions/mine/rollback", "Origin: http://evil.example\r\n", "{\"tokens\": 1}") == 403, "%s", http_reply);
  CHECK(FROM("http://evil.example", "application/json; charset=utf-8") == 200, "the browser has asked first: %s", http_reply);
  CHECK(FROM("http://x", "text/plain") == 200, "its own page: %s", http_reply);
  CHECK(http_post("/v1/completions", "%s", body) == 200, "who is no page: %s", http_reply);
  CHECK(server_end(&server) == 0, "not well");
}

/* ---- certificates ---- */
static void keys_that_do_not_do_are_told_why(void) {
  if (sh("openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=localhost 2>&1 && "
         "openssl genpkey -algorithm RSA -out other.pem 2>&1 && openssl ecparam -genkey -name prime256v1 -noout -out curve.pem 2>&1 && "
         "openssl pkey -in key.pem -aes128 -passout pass:word -out locked.pem 2>&1 && "
         "openssl req -new -key key.pem -subj /CN=localhost -out request.pem 2>&1 && "
         "openssl x509 -req -in request.pem -signkey key.pem -days -1 -out past.pem 2>&1") != 0) {
    printf("skip   no openssl\n");
    return;
  }
  static const struct {
    const char *key, *said;
  } all[] = {{"locked.pem", "the key is encrypted"},
             {"other.pem", "it is another key than that of the certificate in cert.pem"},
             {"curve.pem", "it is another key than that of the certificate in cert.pem"},
             {"cert.pem", "--tls-key cert.pem: OpenSSL says"}};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++)
    CHECK(sh(MNEME "serve tiny --port 0 --check --tls-cert cert.pem --tls-key %s 2>&1", all[i].key) == 2 && strstr(out, all[i].said) &&
              !strstr(out, "pass phrase:"),
          "%s: %s", all[i].key, out);
  CHECK(sh(MNEME "serve tiny --port 0 --check --tls-cert past.pem --tls-key key.pem 2>&1") == 0 && strstr(out, "it has expired"), "%s",
        out);
  CHECK(sh("cat cert.pem past.pem >chain.pem; " MNEME "serve tiny --port 0 --check --tls-cert chain.pem --tls-key key.pem 2>&1") == 0 &&
            !strstr(out, "expired"),
        "a chain: %s", out);
}

int main(void) {
  signal(SIGPIPE, SIG_IGN);
  RUN(a_host_has_a_form);
  RUN(what_is_nobodys_is_let_through);
  RUN(names_may_be_added);
  trained_on_a_book("tiny", recipe);
  RUN(a_page_whose_name_leads_here_is_refused);
  RUN(names_are_told_to_it);
  RUN(keys_and_certificates_do_it_too);
  RUN(pages_of_others_do_nothing);
  RUN(keys_that_do_not_do_are_told_why);
  if (server.pid) server_end(&server);
  return test_end();
}
