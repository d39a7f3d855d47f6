/* server.c - see server.h. Who may ask what, and where each request goes. */
#include "serve/server_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/dir.h"
#include "base/file.h"
#include "base/output.h"
#include "run/chat_form.h"
#include "serve/answer.h"
#include "serve/hosts.h"

/* ---- small endpoints ---- */
static void reply_text(mn_exchange *x, int status, const char *type, mn_text *body) {
  if (body->failed) mn_serve_failed(x, MN_ERR_MEMORY, "out of memory");
  else mn_exchange_reply(x, status, type, body->data ? body->data : "", body->len);
  mn_text_free(body);
}

/* To a client of a server that ends: another may be there then. */
static void tell_when(const mn_server *s, mn_exchange *x) {
  char seconds[32];
  const double left = s->drains_until - mn_now();
  snprintf(seconds, sizeof seconds, "%lld", left > 0 ? (long long)left + 1 : 1);
  mn_exchange_header(x, "Retry-After", seconds);
}

static void health(mn_server *s, const mn_request *r) {
  mn_text out = {0};
  const mn_batcher_counts c = mn_batcher_count(s->batcher);
  const bool ends = s->drains_until > 0;
  mn_text_addf(&out, "{\"status\": \"%s\", \"reading\": %d, \"waiting\": %lld, \"running\": %lld}\n", ends ? "ending" : "ok",
               mn_readers_count(s->readers), (long long)c.waiting, (long long)(c.reading + c.rows));
  if (ends) tell_when(s, r->x);
  reply_text(r->x, ends ? 503 : 200, "application/json", &out);
}

static void metrics(mn_server *s, const mn_request *r) {
  mn_text out = {0};
  const mn_metrics_now now = {.batch = mn_batcher_count(s->batcher),
                              .connections = mn_web_connections(s->web),
                              .bodies = mn_readers_count(s->readers),
                              .text = mn_batcher_program(s->batcher) != NULL,
                              .session_bytes = s->shelf ? mn_shelf_bytes(s->shelf) : 0};
  mn_metrics_write(&s->metrics, &now, &out);
  reply_text(r->x, 200, "text/plain; version=0.0.4; charset=utf-8", &out);
}

static void add_model(const mn_server *s, mn_text *out) {
  const int64_t context = mn_batcher_context(s->batcher);
  mn_text_add(out, "{\"id\": ");
  mn_answer_quote(out, s->config.name, strlen(s->config.name));
  mn_text_addf(out, ", \"object\": \"model\", \"created\": %lld, \"owned_by\": \"mneme\"", (long long)s->created);
  if (mn_batcher_program(s->batcher)) {
    if (context != MN_LIMIT_NONE) mn_text_addf(out, ", \"context_length\": %lld", (long long)context);
    mn_text_addf(out, ", \"state_bytes\": %zu, \"chat\": %s", mn_batcher_stream_bytes(s->batcher), s->chat ? "true" : "false");
  }
  if (s->embedder)
    mn_text_addf(out, ", \"context_length\": %lld, \"dimensions\": %lld", (long long)mn_embedder_most(s->embedder),
                 (long long)mn_embedder_width(s->embedder));
  mn_text_add(out, "}");
}

static void models(mn_server *s, const mn_request *r) {
  mn_text out = {0};
  mn_refusal why;
  if (!*r->rest) {
    mn_text_add(&out, "{\"object\": \"list\", \"data\": [");
    add_model(s, &out);
    mn_text_add(&out, "]}\n");
  } else if (!strcmp(r->rest, s->config.name)) {
    add_model(s, &out);
    mn_text_add(&out, "\n");
  } else {
    char shown[MN_PRINTABLE];
    mn_refuse(&why, 404, "model", "model_not_found", "there is no model '%s' here; this server has '%s'", mn_printable(r->rest, shown),
              s->config.name);
    mn_serve_refuse(r->x, &why);
    return;
  }
  reply_text(r->x, 200, "application/json", &out);
}

static void completions(mn_server *s, const mn_request *r) { mn_serve_generate(s, r, MN_ASK_COMPLETION); }
static void responses(mn_server *s, const mn_request *r) { mn_serve_generate(s, r, MN_ASK_RESPONSE); }
static void chat(mn_server *s, const mn_request *r) { mn_serve_generate(s, r, MN_ASK_CHAT); }

/* src/serve/page.html: it asks this server alone, and nobody may put it into another page. */
static void page(mn_server *s, const mn_request *r) {
  static const char bytes[] = {
#include "page.inc"
  };
  (void)s;
  mn_exchange_header(
      r->x, "Content-Security-Policy",
      "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; frame-ancestors 'none'");
  mn_exchange_header(r->x, "X-Content-Type-Options", "nosniff");
  mn_exchange_reply(r->x, 200, "text/html; charset=utf-8", bytes, sizeof bytes);
}

/* ---- the table ---- */
typedef struct endpoint {
  const char *method, *path;
  bool below;    /* what follows the path, behind a '/', too */
  bool open;     /* without a key */
  bool computes; /* counts against a key's limit */
  void (*serve)(mn_server *s, const mn_request *r);
  const char *(*methods)(const char *rest); /* those that a path below it is for; NULL: those of this table */
} endpoint;
static const endpoint endpoints[] = {
    {"GET", "/", false, true, false, page, NULL},
    {"GET", "/health", false, true, false, health, NULL},
    {"GET", "/metrics", false, false, false, metrics, NULL},
    {"GET", "/v1/models", true, false, false, models, NULL},
    {"POST", "/v1/completions", false, false, true, completions, NULL},
    {"POST", "/v1/chat/completions", false, false, true, chat, NULL},
    {"POST", "/v1/responses", false, false, true, responses, NULL},
    {"POST", "/v1/embeddings", false, false, true, mn_serve_embeddings, NULL},
    {"GET", "/sessions", true, false, false, mn_serve_sessions, mn_serve_sessions_methods},
    {"POST", "/sessions", true, false, false, mn_serve_sessions, mn_serve_sessions_methods},
    {"DELETE", "/sessions", true, false, false, mn_serve_sessions, mn_serve_sessions_methods},
};
enum { N_ENDPOINTS = sizeof endpoints / sizeof *endpoints };

enum { METHODS = 64 };
/* NULL: none. allow: the methods that the path is for, "GET, HEAD"; "" where it is for none. */
static const endpoint *find(const char *method, const char *path, const char **rest, char allow[METHODS]) {
  size_t written = 0;
  *allow = 0;
  if (!strcmp(method, "HEAD")) method = "GET";
  for (int i = 0; i < N_ENDPOINTS; i++) {
    const endpoint *e = &endpoints[i];
    const size_t n = strlen(e->path);
    if (strncmp(path, e->path, n) != 0 || (path[n] && !(e->below && path[n] == '/'))) continue;
    *rest = path[n] ? path + n + 1 : "";
    if (!strcmp(e->method, method)) return e;
    if (e->methods) {
      const char *of = e->methods(*rest);
      written = (size_t)snprintf(allow, METHODS, "%s", of ? of : "");
      continue;
    }
    written += (size_t)snprintf(allow + written, METHODS - written, "%s%s%s", written ? ", " : "", e->method,
                                strcmp(e->method, "GET") ? "" : ", HEAD");
  }
  return NULL;
}

static void refuse_path(mn_exchange *x, const char *allow) {
  const mn_http_head *h = mn_exchange_head(x);
  char path[MN_PRINTABLE], method[MN_PRINTABLE];
  mn_refusal why;
  if (*allow) {
    mn_exchange_header(x, "Allow", allow);
    mn_refuse(&why, 405, NULL, "method_not_allowed", "%s is not for the method %s, but for %s", mn_printable(h->path, path),
              mn_printable(h->method, method), allow);
  } else
    mn_refuse(&why, 404, NULL, "unknown_url", "there is nothing at %s; docs/server.md lists the endpoints", mn_printable(h->path, path));
  mn_serve_refuse(x, &why);
}

/* ---- who asks ---- */
static bool admit(mn_server *s, mn_exchange *x, const endpoint *e, mn_request *r) {
  mn_refusal why;
  r->client = mn_hash_str(mn_exchange_peer(x));
  if (!s->keys || e->open) return true;
  const int key = mn_keys_find(s->keys, mn_http_header_of(mn_exchange_head(x), "authorization"));
  if (key < 0) {
    mn_exchange_header(x, "WWW-Authenticate", "Bearer");
    mn_refuse(&why, 401, NULL, "invalid_api_key", "this server wants an API key that it knows, in the header Authorization: Bearer KEY");
    mn_serve_refuse(x, &why);
    return false;
  }
  r->client = r->owner = mn_keys_owner(s->keys, key);
  const double wait = e->computes ? mn_keys_spend(s->keys, key, mn_now()) : 0;
  if (wait <= 0) return true;
  char seconds[32];
  snprintf(seconds, sizeof seconds, "%lld", (long long)wait + 1);
  mn_exchange_header(x, "Retry-After", seconds);
  mn_refuse(&why, 429, NULL, "rate_limit_exceeded", "this key has asked as often as it may; try again in %s s", seconds);
  mn_serve_refuse(x, &why);
  return false;
}

/* Headers of any name are let through: those that nobody knows here are not looked at, and clients' libraries send their own. */
static void preflight(mn_exchange *x) {
  const char *wanted = mn_http_header_of(mn_exchange_head(x), "access-control-request-headers");
  static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_, ";
  const bool names = wanted && *wanted && !wanted[strspn(wanted, letters)];
  mn_exchange_header(x, "Access-Control-Allow-Methods", "GET, POST, DELETE");
  mn_exchange_header(x, "Access-Control-Allow-Headers", names ? wanted : "authorization, content-type");
  mn_exchange_header(x, "Access-Control-Max-Age", "86400");
  mn_exchange_reply(x, 204, "text/plain", "", 0);
}

/* By a name that may be another site's? Where keys are asked for such a page knows none, and with TLS a browser has seen that the name is in the
 * certificate; where all pages may ask, so may this one. */
static bool by_another_name(const mn_server *s, const mn_http_head *h) {
  const mn_server_config *c = &s->config;
  char machine[256];
  const bool named = gethostname(machine, sizeof machine) == 0 && memchr(machine, 0, sizeof machine);
  const char *const own[] = {c->host, named ? machine : NULL};
  if (s->keys || mn_web_secure(s->web) || (c->cors && !strcmp(c->cors, "*"))) return false;
  return !mn_host_may(h->host, own, 2, c->hosts, c->n_hosts);
}

static void refuse_name(mn_exchange *x) {
  char shown[MN_PRINTABLE];
  mn_refusal why;
  const char *host = mn_exchange_head(x)->host;
  mn_printable(host, shown);
  if (mn_host_name(host) < sizeof shown) shown[mn_host_name(host)] = 0;
  mn_refuse(
      &why, 403, NULL, "unknown_host",
      "this server does not know that it is called %s, and without keys a page of any site may let its name lead here; --allow-host %s "
      "says that it is, and so does an address in place of the name",
      shown, shown);
  mn_serve_refuse(x, &why);
}

/* A browser sends a POST of any page that it shows, wherever that is from, and keeps only the reply from it; but where the body is called JSON
 * it asks first (OPTIONS). So pages of others can do nothing here, neither change sessions nor make the model work. Where keys are asked for
 * they know none. */
static bool from_elsewhere(const mn_server *s, const mn_http_head *h) {
  static const char json[] = "application/json";
  const char *origin = mn_http_header_of(h, "origin"), *type = mn_http_header_of(h, "content-type");
  if (!origin || s->keys || strcmp(h->method, "POST") != 0) return false;
  if (s->config.cors && (!strcmp(s->config.cors, "*") || !strcasecmp(s->config.cors, origin))) return false;
  if (type && !strncasecmp(type, json, sizeof json - 1) && strchr(" ;", type[sizeof json - 1])) return false;
  const char *place = strstr(origin, "://");
  return !place || !h->host || strcasecmp(place + 3, h->host) != 0;
}

static void handle(void *ctx, mn_exchange *x) {
  mn_server *s = ctx;
  const mn_http_head *h = mn_exchange_head(x);
  mn_request r = {.x = x, .rest = ""};
  char allow[METHODS];
  if (by_another_name(s, h)) {
    refuse_name(x);
    return;
  }
  if (s->config.cors && !strcmp(h->method, "OPTIONS")) {
    preflight(x);
    return;
  }
  const endpoint *e = find(h->method, h->path, &r.rest, allow);
  if (*h->query && e) mn_exchange_header(x, "Mneme-No-Effect", "query");
  if (!e) refuse_path(x, allow);
  else if (from_elsewhere(s, h)) {
    char shown[MN_PRINTABLE];
    mn_refusal why;
    mn_refuse(&why, 403, NULL, "cross_origin",
              "a page of %s asks, which --cors did not let in, and its body is not called application/json",
              mn_printable(mn_http_header_of(h, "origin"), shown));
    mn_serve_refuse(x, &why);
  } else if (s->drains_until > 0 && strcmp(e->method, "GET") != 0) {
    tell_when(s, x);
    mn_serve_refuse(x, &(mn_refusal){.status = 503, .code = "server_ending", .message = "the server is ending"});
  } else if (admit(s, x, e, &r)) e->serve(s, &r);
}

/* What cannot be written is lost, not waited for: that is said when it begins, and how much when it ends. */
static void write_log(mn_server *s, const char *line) {
  errno = 0;
  const bool fine = fprintf(s->log, "%s\n", line) > 0 && fflush(s->log) == 0;
  const char *name = strcmp(s->config.log, "-") ? s->config.log : "standard error";
  if (!fine && !s->log_lost++)
    mn_log_write(MN_LOG_WARN, "--access-log: %s cannot be written: %s; its lines are lost until it can", name, strerror(errno));
  if (!fine) clearerr(s->log);
  else if (s->log_lost) {
    mn_log_write(MN_LOG_WARN, "--access-log: %s is written again; %lld lines were lost", name, (long long)s->log_lost);
    s->log_lost = 0;
  }
}

static void replied(void *ctx, const mn_exchange *x) {
  mn_server *s = ctx;
  const mn_http_head *h = mn_exchange_head(x);
  const mn_exchange_record so_far = mn_exchange_so_far(x);
  const char *rest;
  char allow[METHODS];
  const endpoint *e = h->path ? find(h->method, h->path, &rest, allow) : NULL;
  mn_metrics_reply(&s->metrics, e ? e->path : "other", so_far.status ? so_far.status : 499);
  s->metrics.left += so_far.left;
  if (!s->log) return;
  char when[40];
  const time_t now = time(NULL);
  struct tm at;
  mn_text line = {0};
  strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &at));
  mn_text_addf(&line, "%s %s %d %zu %.3f%s ", when, mn_exchange_peer(x), so_far.status, so_far.bytes, so_far.seconds,
               so_far.left ? " left" : "");
  if (h->path) {
    mn_text_add_shown(&line, h->method, strlen(h->method), false);
    mn_text_add(&line, " ");
    mn_text_add_shown(&line, h->path, strlen(h->path), false);
  } else mn_text_add(&line, "-");
  if (!line.failed) write_log(s, line.data);
  mn_text_free(&line);
}

/* ---- refusals ---- */
int mn_serve_http_status(mn_status status) {
  switch (status) {
  case MN_OK:
    return 200;
  case MN_ERR_ARG:
  case MN_ERR_CONFIG:
  case MN_ERR_SHAPE:
  case MN_ERR_FORMAT:
    return 400;
  case MN_ERR_UNSUPPORTED:
    return 501;
  case MN_ERR_MEMORY:
  case MN_ERR_CANCELLED:
    return 503;
  default:
    return 500;
  }
}

void mn_serve_refuse(mn_exchange *x, const mn_refusal *why) {
  const char *type = why->status == 401   ? "authentication_error"
                     : why->status == 429 ? "rate_limit_error"
                     : why->status >= 500 ? "server_error"
                                          : "invalid_request_error";
  mn_exchange_refuse(x, why->status, type, *why->param ? why->param : NULL, why->code, why->message);
}

void mn_serve_name_labels(mn_exchange *x, const mn_ask *ask) {
  mn_text list = {0};
  for (int i = 0; i < ask->n_labels; i++) mn_text_addf(&list, "%s%s", i ? ", " : "", ask->labels[i]);
  if (list.len && !list.failed) mn_exchange_header(x, "Mneme-No-Effect", list.data);
  mn_text_free(&list);
}

void mn_serve_failed(mn_exchange *x, mn_status status, const char *message) {
  mn_refusal why;
  mn_refuse(&why, mn_serve_http_status(status), NULL, NULL, "%s", message);
  mn_serve_refuse(x, &why);
}

bool mn_serve_check_model(const mn_server *s, const mn_ask *ask, mn_refusal *why) {
  char shown[MN_PRINTABLE];
  if (!ask->model || !strcmp(ask->model, s->config.name)) return true;
  return mn_refuse(why, 404, "model", "model_not_found", "there is no model '%s' here; this server has '%s'",
                   mn_printable(ask->model, shown), s->config.name);
}

/* ---- the server ---- */
static mn_status open_log(mn_server *s) {
  const char *path = s->config.log;
  if (!path) return MN_OK;
  if (!strcmp(path, "-")) s->log = stderr;
  else { /* lines are added to an ordinary file of its own name, and to nothing else */ struct stat st;
    const int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0644);
    const bool ours = fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_nlink == 1;
    if (fd >= 0 && !ours) {
      close(fd);
      return mn_fail(MN_ERR_IO, "--access-log %s is no ordinary file, or has a second name; choose another", path);
    }
    s->log = fd >= 0 ? fdopen(fd, "a") : NULL;
  }
  return s->log ? MN_OK : mn_fail(MN_ERR_IO, "--access-log %s: %s", path, strerror(errno));
}

/* A file's, the model's own, or of a model of ours the form of the dialogues that it was trained on. */
static mn_status open_chat(mn_server *s) {
  const mn_server_config *c = &s->config;
  mn_chat_form form;
  mn_text text = {0};
  if (!c->bundle->tokenizer) return MN_OK;
  if (c->template) return mn_chat_format_new(c->bundle, c->template, &s->chat);
  if (c->bundle->speech.chat_template) {
    if (mn_chat_format_new(c->bundle, NULL, &s->chat) != MN_OK) mn_log_write(MN_LOG_WARN, "no chats: %s", mn_message());
    return MN_OK; /* completions can be served */
  }
  mn_arena *arena = mn_arena_new();
  mn_status status = arena ? MN_OK : MN_ERR_MEMORY;
  if (status == MN_OK && c->dir) status = mn_chat_form_read(c->dir, arena, &form);
  if (status == MN_OK && c->dir && form.trained) {
    status = mn_chat_form_template(&form, &text);
    if (status == MN_OK) status = mn_chat_format_from(c->bundle, "the recipe's dialogues", text.data, text.len, &s->chat);
  }
  mn_text_free(&text);
  mn_arena_free(arena);
  return status;
}

/* The folder can be made, and written in, before anybody says anything. */
static mn_status try_folder(const char *folder) {
  MN_TRY(mn_dir_need_real(folder));
  return mn_output_try_dir(folder);
}

static mn_status open_shelf(mn_server *s) {
  const mn_server_config *c = &s->config;
  if (c->sessions) MN_TRY(mn_context(try_folder(c->sessions), "--sessions"));
  const mn_shelf_config shelf = {.model = c->bundle->model,
                                 .params = c->bundle->params,
                                 .session = {.prefill = c->piece, .program = mn_batcher_program(s->batcher)},
                                 .folder = c->sessions,
                                 .bytes = c->session_bytes ? c->session_bytes : (size_t)1 << 30,
                                 .keeps = c->sessions != NULL};
  return mn_shelf_new(&shelf, &s->shelf);
}

static mn_status open_embedder(mn_server *s) {
  const mn_bundle *b = s->config.bundle;
  if (b->sentences.fault) return mn_fail(MN_ERR_UNSUPPORTED, "%s", b->sentences.fault);
  return mn_embedder_new(&(mn_embedder_config){b->model, b->params, s->config.compute, b->sentences.pooling, b->sentences.most},
                         &s->embedder);
}

/* As a browser writes it, sign for sign: another would be let in by nobody. "null": pages that have none, of a file. */
static bool is_origin(const char *s) {
  if (!strcmp(s, "*") || !strcmp(s, "null")) return true;
  const char *place = strstr(s, "://");
  if (!place || place == s || !place[3] || strpbrk(place + 3, "/?#@,")) return false;
  for (; *s; s++)
    if (*s <= ' ' || *s > '~' || (*s >= 'A' && *s <= 'Z')) return false;
  return true;
}

static mn_status open_server(mn_server *s) {
  const mn_server_config *c = &s->config;
  s->headers = c->cors ? mn_format("Access-Control-Allow-Origin: %s\r\nAccess-Control-Expose-Headers: Mneme-No-Effect, Retry-After\r\n%s",
                                   c->cors, strcmp(c->cors, "*") ? "Vary: Origin\r\n" : "")
                       : mn_strdup("");
  if (!s->headers) return MN_ERR_MEMORY;
  if (c->cors && !is_origin(c->cors))
    return mn_fail(MN_ERR_CONFIG,
                   "--cors is one origin in small letters, such as https://example.org, with nothing behind it but a port, or *");
  MN_TRY(mn_readers_new(2, s->config.waiting, &s->readers));
  MN_TRY(open_log(s));
  MN_TRY(open_chat(s));
  if (c->keys) MN_TRY(mn_keys_read(c->keys, c->rate, &s->keys));
  const bool text = mn_model_check_stream(c->bundle->model) == MN_OK;
  const mn_batcher_config batch = {.model = text ? c->bundle->model : NULL,
                                   .params = c->bundle->params,
                                   .tokenizer = c->bundle->tokenizer,
                                   .compute = c->compute,
                                   .forget = c->forget,
                                   .rows = c->rows,
                                   .piece = c->piece,
                                   .waiting = c->waiting,
                                   .state_bytes = c->state_bytes};
  MN_TRY(mn_batcher_new(&batch, &s->batcher));
  if (text) MN_TRY(open_shelf(s));
  else MN_TRY(open_embedder(s));
  const mn_web_config web = {.host = c->host,
                             .port = c->port,
                             .tls_cert = c->tls_cert,
                             .tls_key = c->tls_key,
                             .most_head = c->most_head,
                             .most_body = c->most_body,
                             .most_connections = c->most_connections,
                             .request_seconds = c->request_seconds,
                             .idle_seconds = c->idle_seconds,
                             .headers = s->headers,
                             .handle = handle,
                             .over = replied,
                             .ctx = s};
  return mn_web_new(&web, &s->web);
}

mn_status mn_server_new(const mn_server_config *config, mn_server **out) {
  *out = NULL;
  mn_server *s = mn_calloc(1, sizeof *s);
  if (!s) return MN_ERR_MEMORY;
  s->config = *config;
  s->created = time(NULL);
  pthread_mutex_init(&s->lexicon_lock, NULL);
  if (getrandom(&s->salt, sizeof s->salt, 0) < 0) s->salt = (uint64_t)s->created;
  mn_status status = open_server(s);
  if (status != MN_OK) mn_server_free(s);
  else *out = s;
  return status;
}

mn_status mn_server_end(mn_server *s) {
  mn_readers_free(s->readers);
  s->readers = NULL;
  mn_batcher_free(s->batcher);
  s->batcher = NULL; /* what it posted is heard, and begins nothing */
  if (s->web) mn_web_settle(s->web);
  if (s->kept || !s->shelf) return MN_OK;
  s->kept = true;
  return mn_shelf_keep(s->shelf);
}

void mn_server_free(mn_server *s) {
  if (!s) return;
  mn_server_end(s);
  mn_web_free(s->web);
  mn_shelf_free(s->shelf);
  mn_embedder_free(s->embedder);
  mn_keys_free(s->keys);
  mn_lexicon_free(s->lexicon);
  pthread_mutex_destroy(&s->lexicon_lock);
  mn_chat_format_free(s->chat);
  if (s->log && s->log != stderr) fclose(s->log);
  free(s->headers);
  free(s);
}

int mn_server_port(const mn_server *s) { return mn_web_port(s->web); }
int64_t mn_server_rows(const mn_server *s) { return mn_batcher_program(s->batcher) ? mn_batcher_rows(s->batcher) : 0; }

static void tick(void *ctx) {
  mn_server *s = ctx;
  mn_serve_check_times(s);
  if (s->stop && *s->stop && s->drains_until == 0) {
    s->drains_until = mn_now() + s->config.drain_seconds;
    mn_web_drain(s->web);
  }
  if (s->drains_until == 0) return;
  const bool late = mn_now() >= s->drains_until;
  if (late) mn_serve_cancel_all(s);
  if (!s->talks && !s->errands && mn_web_connections(s->web) == mn_web_late(s->web)) mn_web_shut(s->web);
  if (!s->talks && ((!s->errands && mn_web_connections(s->web) == 0) || late)) mn_web_stop(s->web);
}

mn_status mn_server_run(mn_server *s, const atomic_int *stop) {
  s->stop = stop;
  return mn_web_run(s->web, tick, s);
}
