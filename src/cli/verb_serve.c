/* verb_serve.c - `mneme serve`: a model behind HTTP, with OpenAI's interface. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "cli/model_options.h"
#include "serve/server.h"

static mn_status read_limits(const mn_cli *cli, mn_server_config *c) {
  int64_t port = 0, connections = 0, head = 0, body = 0, state = 0, kept = 0;
  MN_TRY(mn_cli_int(cli, "port", 0, 65535, &port));
  MN_TRY(mn_cli_int(cli, "streams", 1, 4096, &c->rows));
  MN_TRY(mn_cli_int(cli, "piece", 1, 65536, &c->piece));
  MN_TRY(mn_cli_int(cli, "queue", 1, 1 << 20, &c->waiting));
  MN_TRY(mn_cli_int(cli, "state-mib", 0, 1 << 24, &state));
  MN_TRY(mn_cli_int(cli, "session-mib", 1, 1 << 24, &kept));
  MN_TRY(mn_cli_int(cli, "max-tokens", 1, INT32_MAX, &c->most_tokens));
  MN_TRY(mn_cli_int(cli, "connections", 1, 1 << 20, &connections));
  MN_TRY(mn_cli_int(cli, "max-head-kib", 1, 1024, &head));
  MN_TRY(mn_cli_int(cli, "max-body-kib", 1, 1 << 20, &body));
  MN_TRY(mn_cli_float(cli, "request-seconds", 0.1, 3600, &c->request_seconds));
  MN_TRY(mn_cli_float(cli, "idle-seconds", 0.1, 86400, &c->idle_seconds));
  MN_TRY(mn_cli_float(cli, "answer-seconds", 0, 86400, &c->most_seconds));
  MN_TRY(mn_cli_float(cli, "drain-seconds", 0, 86400, &c->drain_seconds));
  MN_TRY(mn_cli_float(cli, "rate", 0, 1e9, &c->rate));
  MN_TRY(mn_cli_only(cli, mn_cli_given(cli, "api-key-file"), "API keys: --api-key-file FILE", "rate"));
  c->port = (int)port;
  c->most_connections = (int)connections;
  c->most_head = (size_t)head << 10;
  c->most_body = (size_t)body << 10;
  c->state_bytes = (size_t)state << 20;
  c->session_bytes = (size_t)kept << 20;
  return mn_cli_precision(cli, "precision", false, &c->compute);
}

/* Names alone: a server may be asked at any port that leads to it. */
static mn_status read_hosts(const mn_cli *cli, const mn_server_config *c, const char *names[], int most, int *n) {
  const char *name;
  for (*n = 0; (name = mn_cli_nth(cli, "allow-host", *n)); names[(*n)++] = name) {
    if (*n == most) return mn_fail(MN_ERR_CONFIG, "--allow-host: at most %d names are taken; * in one stands for any signs", most);
    if (!*name || strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.*?") != strlen(name) || strlen(name) > 255)
      return mn_fail(MN_ERR_CONFIG, "--allow-host is a name, such as mneme.example.org, without http:// and without a port; not '%s'",
                     name);
  }
  return mn_cli_only(cli, !c->keys && !c->tls_cert, "servers without keys and without TLS; others may be asked by any name", "allow-host");
}

/* The last name of its path: what a client calls it. */
static char *name_of(const mn_cli *cli) {
  const char *given = mn_cli_get(cli, "name");
  char *path = mn_strdup(given ? given : cli->args[0]);
  for (size_t n = path ? strlen(path) : 0; n > 1 && path[n - 1] == '/' && !given;) path[--n] = 0;
  char *name = path ? mn_strdup(given ? path : mn_path_base(path)) : NULL;
  free(path);
  return name;
}

static void greet(mn_cli *cli, const mn_server_config *c, const mn_server *s) {
  char url[300];
  snprintf(url, sizeof url, "http%s://%s%s%s:%d", c->tls_cert ? "s" : "", strchr(c->host, ':') ? "[" : "", c->host,
           strchr(c->host, ':') ? "]" : "", mn_server_port(s));
  if (cli->json) mn_cli_json_line(cli, json_pack("{s:s,s:s,s:I}", "url", url, "model", c->name, "streams", (json_int_t)mn_server_rows(s)));
  else if (mn_server_rows(s)) mn_print("%s serves %s: %lld streams at once\n", url, c->name, (long long)mn_server_rows(s));
  else mn_print("%s serves %s: vectors of texts\n", url, c->name);
  mn_print_flush();
  if (!c->keys && strcmp(c->host, "127.0.0.1") != 0 && strcmp(c->host, "localhost") != 0 && strcmp(c->host, "::1") != 0)
    mn_cli_note(cli, "whoever reaches %s may ask; --api-key-file FILE lets in those with a key alone", url);
}

static mn_status serve(mn_cli *cli, mn_server_config *c, const char *dir) {
  mn_bundle bundle;
  mn_server *s = NULL;
  mn_status status = mn_cli_open(cli, dir, &bundle);
  c->bundle = &bundle;
  c->dir = bundle.form == MN_FORM_MNEME ? dir : NULL;
  if (status == MN_OK) status = mn_bundle_need_tokenizer(&bundle, dir);
  if (status == MN_OK) status = mn_server_new(c, &s);
  if (status == MN_OK) greet(cli, c, s);
  if (status == MN_OK && !mn_cli_given(cli, "check")) status = mn_server_run(s, mn_cli_stop_flag());
  if (s) {
    const mn_status kept = mn_server_end(s);
    if (status == MN_OK) status = kept;
  }
  mn_server_free(s);
  mn_bundle_close(&bundle);
  return status;
}

static mn_status run(mn_cli *cli) {
  mn_server_config c = {.host = mn_cli_get(cli, "host"),
                        .tls_cert = mn_cli_get(cli, "tls-cert"),
                        .tls_key = mn_cli_get(cli, "tls-key"),
                        .keys = mn_cli_get(cli, "api-key-file"),
                        .cors = mn_cli_get(cli, "cors"),
                        .log = mn_cli_get(cli, "access-log"),
                        .sessions = mn_cli_get(cli, "sessions"),
                        .template = mn_cli_get(cli, "chat-template"),
                        .forget = mn_cli_given(cli, "forget")};
  char *name = name_of(cli);
  if (!name) return MN_ERR_MEMORY;
  const char *hosts[64];
  c.name = name, c.hosts = hosts;
  mn_status status = read_limits(cli, &c);
  if (status == MN_OK) status = read_hosts(cli, &c, hosts, sizeof hosts / sizeof *hosts, &c.n_hosts);
  if (status == MN_OK && (!*name || mn_utf8_valid(name, strlen(name)) != strlen(name)))
    status = mn_fail(MN_ERR_CONFIG, "this model's name is no text; give it one with --name");
  if (status == MN_OK) status = serve(cli, &c, cli->args[0]);
  free(name);
  return status;
}

static const mn_option options[] = {
    {"port", "N", "8080", "where to listen; 0: any port that is free", 0},
    {"host", "ADDRESS", "127.0.0.1", "at which address; 0.0.0.0: all of this machine", 0},
    {"name", "WORD", NULL, "what clients call the model; otherwise the last name of its path", 0},
    {"chat-template", "FILE", NULL, "a chat template (Jinja) instead of the model's own", 0},
    {"tls-cert", "FILE", NULL, "a certificate (PEM): HTTPS instead of HTTP", 0},
    {"tls-key", "FILE", NULL, "its private key (PEM)", 0},
    {"api-key-file", "FILE", NULL, "who may ask: a key in each line, and behind it requests per minute if it has a limit of its own", 0},
    {"rate", "N", "0", "requests per minute of a key that says none; 0: any number", 0},
    {"allow-host", "NAME", NULL,
     "without keys and TLS: a name that it may be asked by, too, such as '*.example.org'; *: any; may be repeated", MN_OPTION_REPEATS},
    {"cors", "ORIGIN", NULL, "pages of this origin may ask, too; *: all", 0},
    {"streams", "N", "16", "answers that are made at once, at most", 0},
    MN_CONTEXT_OPTION,
    MN_CACHE_OPTION,
    {"piece", "N", "128", "tokens of a prompt that are read between two steps", 0},
    {"queue", "N", "256", "prompts that may wait; more are refused with 429", 0},
    {"state-mib", "N", "0", "MiB for the states of all streams, as far as they may get; others wait; 0: any", 0},
    {"sessions", "DIR", NULL, "keep sessions in this folder, too; otherwise they end with the server", 0},
    {"session-mib", "N", "1024", "MiB in memory for kept sessions that nobody uses just now", 0},
    {"max-tokens", "N", "4096", "of a chat's answer, where the request says nothing", 0},
    {"answer-seconds", "X", "0", "an answer that takes longer is ended; 0: none is", 0},
    {"max-body-kib", "N", "4096", "of a request", 0},
    {"max-head-kib", "N", "32", "of a request's line and headers", 0},
    {"connections", "N", "512", "open at once", 0},
    {"request-seconds", "X", "30", "a request must be whole so long after it began", 0},
    {"idle-seconds", "X", "120", "a connection is closed when it is silent, or its client reads nothing, for so long", 0},
    {"drain-seconds", "X", "30", "what is being answered when the server is told to end may take so long", 0},
    {"access-log", "FILE", NULL, "a line for each reply, at the end of this file; -: to standard error",
     MN_OPTION_APPENDS | MN_OPTION_STREAM},
    {"precision", "WORD", "f32", "f32 or bf16", 0},
    MN_EXACT_OPTION,
    {"forget", NULL, NULL, "past the end of a cache (max_context) forget the oldest tokens", 0},
    {"check", NULL, NULL, "open the model and the port, and end", 0},
    {0}};
static const char *const examples[] = {"mneme serve runs/quick --port 8080",
                                       "mneme serve runs/quick --host 0.0.0.0 --api-key-file keys.txt", NULL};
const mn_verb mn_verb_serve = {
    .name = "serve",
    .purpose = MN_VERB_USE,
    .summary = "serve a model over HTTP, with OpenAI's interface",
    .usage = "MODEL [options]",
    .about =
        "Many clients are answered at once: their streams are the rows of one batch, which join and leave between tokens. The first line "
        "that is printed says the address; the first SIGTERM or Ctrl-C lets what is being answered come to its end, the second ends at "
        "once.\ndocs/server.md lists the endpoints.",
    .options = options,
    .examples = examples,
    .common = MN_CLI_BACKEND | MN_CLI_THREADS,
    .min_args = 1,
    .max_args = 1,
    .run = run,
};
