/* connection.c - see connection.h. */
#include "serve/connection.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/listener.h>
#include <event2/thread.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "format/json.h"
#include "serve/tls.h"

enum { READS_AHEAD = 1 << 16 };

typedef struct posted {
  struct posted *next;
  void (*fn)(void *arg);
  void *arg;
} posted;

typedef enum state { WAITING, HEAD, BODY, BUSY, CLOSING } state; /* for a request, within it, for the reply, for the client's end */
enum { LINGER = 2 };   /* seconds: a connection that is closed while its client writes would lose the reply */
enum { PATIENCE = 2 }; /* seconds: while the server ends, for a request that is not whole */

struct mn_exchange { /* a connection, and its request when there is one */
  mn_web *web;
  mn_exchange *next, *before;
  struct bufferevent *bev; /* NULL: of a server that speaks TLS, whose client has said nothing yet */
  struct event *deadline, *first_byte;
  state state;
  char peer[INET6_ADDRSTRLEN];
  mn_http_head head;
  mn_http_chunks chunks;
  mn_text body, headers; /* of the request; of the reply, beside the usual ones */
  void (*leave)(void *ctx);
  void *leave_ctx;
  mn_exchange_record record;
  double began;
  bool keeps, in_pieces, silent; /* the connection goes on; Transfer-Encoding: chunked; a reply to HEAD has no body */
  bool late;                     /* it was opened while the server ends */
  bool plain;                    /* its client speaks no TLS, and the server does */
};

struct mn_web {
  mn_web_config config;
  struct event_base *base;
  struct evconnlistener *listener;
  struct event *mail, *ticker, *again;
  SSL_CTX *tls;
  mn_exchange *first;
  int connections, late, port; /* late: of the connections */
  bool draining;
  pthread_mutex_t mutex; /* of the four below */
  posted *oldest, *newest;
  int waiting; /* posted, and not called yet */
  bool runs;
  pthread_cond_t fewer;
  void (*tick)(void *ctx);
  void *tick_ctx;
};

static void read_more(mn_exchange *x);

/* ---- connections ---- */
static void forget_request(mn_exchange *x) {
  mn_http_head_free(&x->head);
  mn_text_free(&x->body);
  mn_text_free(&x->headers);
  x->chunks = (mn_http_chunks){0};
  x->record = (mn_exchange_record){0};
  x->leave = NULL;
  x->in_pieces = x->silent = false;
}

static void close_connection(mn_exchange *x) {
  mn_web *w = x->web;
  if (x->before) x->before->next = x->next;
  else w->first = x->next;
  if (x->next) x->next->before = x->before;
  w->connections--, w->late -= x->late;
  forget_request(x);
  if (x->deadline) event_free(x->deadline);
  if (x->bev) bufferevent_free(x->bev);
  if (x->first_byte) {
    const evutil_socket_t fd = event_get_fd(x->first_byte);
    event_free(x->first_byte);
    if (!x->bev) evutil_closesocket(fd);
  }
  free(x);
}

static void over(mn_exchange *x) {
  x->record.seconds = mn_now() - x->began;
  if (x->web->config.over) x->web->config.over(x->web->config.ctx, x);
}

/* The client does not wait for the reply any more. */
static void leave(mn_exchange *x) {
  void (*fn)(void *) = x->leave;
  x->leave = NULL;
  x->record.left = true;
  if (x->state == BUSY) over(x);
  if (fn) fn(x->leave_ctx);
  close_connection(x);
}

static void wait_at_most(mn_exchange *x, double seconds) {
  const struct timeval t = {(time_t)seconds, (suseconds_t)((seconds - (double)(time_t)seconds) * 1e6)};
  event_add(x->deadline, &t);
}

/* A request, from its first byte to its last. One that comes too late is refused at best, and may not keep an ending server waiting. */
static void wait_for_request(mn_exchange *x) {
  const double most = x->web->config.request_seconds;
  wait_at_most(x, x->web->draining && most > PATIENCE ? PATIENCE : most);
}

static void late(evutil_socket_t fd, short what, void *arg) {
  mn_exchange *x = arg;
  (void)fd, (void)what;
  if ((x->state == HEAD || x->state == BODY) && x->web->draining) {
    mn_exchange_refuse(x, 503, "server_error", NULL, "server_ending", "the server is ending");
  } else if (x->state == HEAD || x->state == BODY) {
    char text[120];
    snprintf(text, sizeof text, "the request was not whole after %g seconds", x->web->config.request_seconds);
    x->keeps = false;
    mn_exchange_refuse(x, 408, "invalid_request_error", NULL, "request_timeout", text);
  } else if (x->state != BUSY) close_connection(x);
}

static void on_event(struct bufferevent *bev, short what, void *arg) {
  (void)bev;
  if (what & (BEV_EVENT_EOF | BEV_EVENT_ERROR | BEV_EVENT_TIMEOUT)) leave(arg);
}

static void on_read(struct bufferevent *bev, void *arg) {
  mn_exchange *x = arg;
  if (x->state == CLOSING) evbuffer_drain(bufferevent_get_input(bev), evbuffer_get_length(bufferevent_get_input(bev)));
  else read_more(x);
}

/* ---- a reply ---- */
static void add_head(mn_exchange *x, int status, const char *type, int64_t n) {
  struct evbuffer *to = bufferevent_get_output(x->bev);
  x->record.status = status;
  evbuffer_add_printf(to, "HTTP/1.1 %d %s\r\nContent-Type: %s\r\n%s%s", status, mn_http_reason(status), type, x->web->config.headers,
                      x->headers.data ? x->headers.data : "");
  if (n >= 0) evbuffer_add_printf(to, "Content-Length: %lld\r\n", (long long)n);
  else if (x->in_pieces) evbuffer_add_printf(to, "Transfer-Encoding: chunked\r\n");
  evbuffer_add_printf(to, "Connection: %s\r\n\r\n", x->keeps && !x->web->draining ? "keep-alive" : "close");
}

/* Of one that is CLOSING: all is said. Its client sees the end, and closes in turn. */
static void on_written(struct bufferevent *bev, void *arg) {
  mn_exchange *x = arg;
  if (x->state != CLOSING || evbuffer_get_length(bufferevent_get_output(bev))) return;
  if (x->web->tls && !x->plain) close_connection(x);
  else shutdown(bufferevent_getfd(bev), SHUT_WR), wait_at_most(x, LINGER);
}

/* The reply is whole: the next request, or the end. */
static void next_request(mn_exchange *x) {
  over(x);
  forget_request(x);
  if (!x->keeps || x->web->draining) {
    x->state = CLOSING;
    wait_at_most(x, x->web->config.idle_seconds);
    bufferevent_trigger(x->bev, EV_WRITE, BEV_TRIG_DEFER_CALLBACKS);
    return;
  }
  x->state = WAITING;
  wait_at_most(x, x->web->config.idle_seconds);
  if (evbuffer_get_length(bufferevent_get_input(x->bev)))
    bufferevent_trigger(x->bev, EV_READ, BEV_TRIG_DEFER_CALLBACKS | BEV_TRIG_IGNORE_WATERMARKS);
}

void mn_exchange_header(mn_exchange *x, const char *name, const char *value) { mn_text_addf(&x->headers, "%s: %s\r\n", name, value); }

void mn_exchange_reply(mn_exchange *x, int status, const char *type, const char *body, size_t n) {
  x->state = BUSY;
  add_head(x, status, type, (int64_t)n);
  if (!x->silent) bufferevent_write(x->bev, body, n), x->record.bytes += n;
  next_request(x);
}

void mn_exchange_begin(mn_exchange *x, int status, const char *type) {
  x->in_pieces = x->head.minor >= 1;
  if (!x->in_pieces) x->keeps = false;
  add_head(x, status, type, -1);
}

void mn_exchange_send(mn_exchange *x, const char *data, size_t n) {
  struct evbuffer *to = bufferevent_get_output(x->bev);
  if (!n || x->silent) return;
  if (x->in_pieces) evbuffer_add_printf(to, "%zx\r\n", n);
  evbuffer_add(to, data, n);
  if (x->in_pieces) evbuffer_add(to, "\r\n", 2);
  x->record.bytes += n;
}

void mn_exchange_end(mn_exchange *x) {
  if (x->in_pieces && !x->silent) evbuffer_add(bufferevent_get_output(x->bev), "0\r\n\r\n", 5);
  next_request(x);
}

void mn_exchange_drop(mn_exchange *x) {
  x->leave = NULL;
  leave(x);
}

size_t mn_exchange_behind(const mn_exchange *x) { return evbuffer_get_length(bufferevent_get_output(x->bev)); }

static void quote_or_null(mn_text *out, const char *s) {
  if (s) mn_json_quote(out, s);
  else mn_text_add(out, "null");
}

void mn_exchange_refuse(mn_exchange *x, int status, const char *type, const char *param, const char *code, const char *message) {
  mn_text body = {0}, clean = {0};
  mn_text_add_utf8(&clean, message, strlen(message));
  mn_text_add(&body, "{\"error\": {\"message\": ");
  mn_json_quote(&body, clean.data ? clean.data : "");
  mn_text_add(&body, ", \"type\": ");
  mn_json_quote(&body, type);
  mn_text_add(&body, ", \"param\": ");
  quote_or_null(&body, param);
  mn_text_add(&body, ", \"code\": ");
  quote_or_null(&body, code);
  mn_text_add(&body, "}}\n");
  mn_exchange_reply(x, status, "application/json", body.data ? body.data : "", body.len);
  mn_text_free(&body);
  mn_text_free(&clean);
}

/* ---- a request ---- */
static void refuse_request(mn_exchange *x, const mn_http_fault *fault) {
  x->keeps = false; /* where the next request would begin is not known */
  if (fault->status == 415) mn_exchange_header(x, "Accept-Encoding", "identity");
  mn_exchange_refuse(x, fault->status, fault->status >= 500 ? "server_error" : "invalid_request_error", NULL, NULL, fault->message);
}

static void too_large(mn_exchange *x) {
  char text[160];
  snprintf(text, sizeof text, "the body is larger than the %zu bytes that this server reads", x->web->config.most_body);
  refuse_request(x, &(mn_http_fault){413, text});
}

static bool begin_body(mn_exchange *x) { /* false: refused */
  mn_web *w = x->web;
  x->keeps = x->head.keeps;
  x->silent = !strcmp(x->head.method, "HEAD");
  if (x->head.length > (int64_t)w->config.most_body) {
    too_large(x);
    return false;
  }
  if (x->head.expects && (x->head.length > 0 || x->head.chunked)) bufferevent_write(x->bev, "HTTP/1.1 100 Continue\r\n\r\n", 25);
  x->state = BODY;
  return true;
}

static bool read_head(mn_exchange *x) { /* true: go on with its body */
  struct evbuffer *in = bufferevent_get_input(x->bev);
  const size_t n = evbuffer_get_length(in);
  mn_http_fault fault = {0};
  if (!n) return false;
  if (x->state == WAITING) {
    x->state = HEAD;
    x->began = mn_now();
    wait_for_request(x);
  }
  const char *data = (const char *)evbuffer_pullup(in, -1);
  const int64_t taken = data ? mn_http_parse_head(data, n, &x->head, &fault) : 0;
  if (taken < 0) refuse_request(x, &fault);
  else if (taken > (int64_t)x->web->config.most_head || (taken == 0 && n > x->web->config.most_head))
    refuse_request(x, &(mn_http_fault){431, "the request's head is larger than this server reads"});
  else if (taken > 0) {
    evbuffer_drain(in, (size_t)taken);
    return begin_body(x);
  }
  return false;
}

/* True: it is whole. */
static bool read_body(mn_exchange *x) {
  struct evbuffer *in = bufferevent_get_input(x->bev);
  size_t n = evbuffer_get_length(in);
  bool done = false;
  if (!x->head.chunked) {
    const size_t length = x->head.length > 0 ? (size_t)x->head.length : 0, left = length - x->body.len;
    if (n > left) n = left;
    if (n) mn_text_add_bytes(&x->body, evbuffer_pullup(in, (ssize_t)n), n);
    evbuffer_drain(in, n);
    if (x->body.failed) refuse_request(x, &(mn_http_fault){503, "out of memory"});
    else done = x->body.len == length;
    return done;
  }
  mn_http_fault fault = {0};
  const char *data = n ? (const char *)evbuffer_pullup(in, -1) : NULL;
  const int64_t taken = data ? mn_http_take_chunks(&x->chunks, data, n, x->web->config.most_body, &x->body, &done, &fault) : 0;
  if (taken < 0 && fault.status == 413) too_large(x);
  else if (taken < 0) refuse_request(x, &fault);
  else evbuffer_drain(in, (size_t)taken);
  return done;
}

static void read_more(mn_exchange *x) {
  if (x->state == WAITING || x->state == HEAD) {
    if (!read_head(x)) return;
  }
  if (x->state != BODY || !read_body(x)) return;
  x->state = BUSY;
  event_del(x->deadline);
  x->web->config.handle(x->web->config.ctx, x);
}

const mn_http_head *mn_exchange_head(const mn_exchange *x) { return &x->head; }
const char *mn_exchange_peer(const mn_exchange *x) { return x->peer; }
mn_exchange_record mn_exchange_so_far(const mn_exchange *x) { return x->record; }
char *mn_exchange_take_body(mn_exchange *x, size_t *n) {
  char *out = x->body.data;
  *n = x->body.len;
  x->body = (mn_text){0};
  return out;
}
const char *mn_exchange_body(const mn_exchange *x, size_t *n) {
  *n = x->body.len;
  return x->body.data ? x->body.data : "";
}
void mn_exchange_on_leave(mn_exchange *x, void (*fn)(void *ctx), void *ctx) { x->leave = fn, x->leave_ctx = ctx; }

/* ---- who listens ---- */
static void name_peer(mn_exchange *x, const struct sockaddr *a) {
  const void *from = a->sa_family == AF_INET6 ? (const void *)&((const struct sockaddr_in6 *)(const void *)a)->sin6_addr
                                              : (const void *)&((const struct sockaddr_in *)(const void *)a)->sin_addr;
  if (!inet_ntop(a->sa_family, from, x->peer, sizeof x->peer)) strcpy(x->peer, "?");
}

/* What is read and written passes through libevent from now on. False: there is no memory. */
static bool open_bev(mn_exchange *x, evutil_socket_t fd) {
  mn_web *w = x->web;
  const int flags = BEV_OPT_CLOSE_ON_FREE | BEV_OPT_DEFER_CALLBACKS;
  const double idle = w->config.idle_seconds;
  const struct timeval stuck = {(time_t)idle, (suseconds_t)((idle - (double)(time_t)idle) * 1e6)};
  x->bev = w->tls && !x->plain ? mn_tls_accept(w->tls, w->base, fd, flags) : bufferevent_socket_new(w->base, fd, flags);
  if (!x->bev) return false;
  bufferevent_setcb(x->bev, on_read, on_written, on_event, x);
  bufferevent_setwatermark(x->bev, EV_READ, 0, READS_AHEAD > w->config.most_head * 2 ? READS_AHEAD : w->config.most_head * 2);
  bufferevent_set_timeouts(x->bev, NULL, &stuck); /* a client that does not read */
  bufferevent_enable(x->bev, EV_READ | EV_WRITE);
  if (x->plain) {
    refuse_request(x, &(mn_http_fault){400, "this server speaks TLS: ask it by https://, not http://"});
  } else if (w->connections > w->config.most_connections) {
    mn_exchange_header(x, "Retry-After", "1");
    refuse_request(x, &(mn_http_fault){503, "the server has as many connections as it keeps; try again later"});
  }
  return true;
}

/* Requests begin with a letter, and TLS with none. */
static void first_byte(evutil_socket_t fd, short what, void *arg) {
  mn_exchange *x = arg;
  unsigned char c = 0;
  (void)what;
  const ssize_t n = recv(fd, &c, 1, MSG_PEEK);
  x->plain = n == 1 && ((c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z'));
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) event_add(x->first_byte, NULL);
  else if (n != 1 || !open_bev(x, fd)) close_connection(x);
}

static void accepted(struct evconnlistener *l, evutil_socket_t fd, struct sockaddr *a, int n, void *arg) {
  mn_web *w = arg;
  (void)l, (void)n;
  mn_exchange *x = mn_calloc(1, sizeof *x);
  struct event *deadline = x ? evtimer_new(w->base, late, x) : NULL;
  struct event *first = deadline && w->tls ? event_new(w->base, fd, EV_READ, first_byte, x) : NULL;
  if (!deadline || (w->tls && !first)) {
    if (deadline) event_free(deadline);
    evutil_closesocket(fd);
    free(x);
    return;
  }
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
  *x = (mn_exchange){.web = w, .deadline = deadline, .first_byte = first, .next = w->first, .began = mn_now(), .late = w->draining};
  name_peer(x, a);
  if (w->first) w->first->before = x;
  w->first = x;
  w->connections++, w->late += x->late;
  const double idle = w->config.idle_seconds;
  wait_at_most(x, w->config.request_seconds < idle ? w->config.request_seconds : idle);
  if (first) event_add(first, NULL);
  else if (!open_bev(x, fd)) {
    evutil_closesocket(fd);
    close_connection(x);
  }
}

/* Out of descriptors, for example: after a while again. */
static void accept_failed(struct evconnlistener *l, void *arg) {
  mn_web *w = arg;
  mn_log_write(MN_LOG_WARN, "a connection could not be taken: %s", evutil_socket_error_to_string(EVUTIL_SOCKET_ERROR()));
  evconnlistener_disable(l);
  event_add(w->again, &(struct timeval){0, 200000});
}

static void accept_again(evutil_socket_t fd, short what, void *arg) {
  mn_web *w = arg;
  (void)fd, (void)what;
  if (w->listener) evconnlistener_enable(w->listener);
}

static mn_status listen_at(mn_web *w) {
  const mn_web_config *c = &w->config;
  struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *list = NULL;
  char port[16];
  snprintf(port, sizeof port, "%d", c->port);
  int fault = getaddrinfo(c->host, port, &hints, &list);
  if (fault) return mn_fail(MN_ERR_CONFIG, "--host %s is no address of this machine: %s", c->host, gai_strerror(fault));
  int why = 0;
  for (struct addrinfo *a = list; a && !w->listener; a = a->ai_next) {
    w->listener = evconnlistener_new_bind(w->base, accepted, w, LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC | LEV_OPT_REUSEABLE, 512,
                                          a->ai_addr, (int)a->ai_addrlen);
    if (!w->listener) why = errno;
  }
  freeaddrinfo(list);
  if (!w->listener) return mn_fail(MN_ERR_IO, "cannot listen at %s port %d: %s", c->host, c->port, strerror(why));
  evconnlistener_set_error_cb(w->listener, accept_failed);
  struct sockaddr_storage at;
  socklen_t n = sizeof at;
  if (getsockname(evconnlistener_get_fd(w->listener), (struct sockaddr *)&at, &n) == 0)
    w->port = ntohs(at.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&at)->sin6_port : ((struct sockaddr_in *)&at)->sin_port);
  return MN_OK;
}

static mn_status open_tls(mn_web *w) {
  const mn_web_config *c = &w->config;
  return c->tls_cert || c->tls_key ? mn_tls_open(c->tls_cert, c->tls_key, &w->tls) : MN_OK;
}

/* ---- the loop ---- */
enum { MOST_WAITING = 1024, AT_ONCE = 32 };
static void read_mail(evutil_socket_t fd, short what, void *arg) {
  mn_web *w = arg;
  (void)fd, (void)what;
  for (int i = 0; i < AT_ONCE; i++) {
    pthread_mutex_lock(&w->mutex);
    posted *p = w->oldest;
    if (p) w->oldest = p->next;
    if (!w->oldest) w->newest = NULL;
    if (p && --w->waiting == MOST_WAITING / 2) pthread_cond_broadcast(&w->fewer);
    pthread_mutex_unlock(&w->mutex);
    if (!p) return;
    p->fn(p->arg);
    free(p);
  }
  event_active(w->mail, EV_READ, 0); /* there may be more, behind what sockets have */
}

void mn_web_wait(mn_web *w) {
  pthread_mutex_lock(&w->mutex);
  while (w->runs && w->waiting >= MOST_WAITING) pthread_cond_wait(&w->fewer, &w->mutex);
  pthread_mutex_unlock(&w->mutex);
}

static void runs(mn_web *w, bool yes) {
  pthread_mutex_lock(&w->mutex);
  w->runs = yes;
  pthread_cond_broadcast(&w->fewer);
  pthread_mutex_unlock(&w->mutex);
}

/* A loop that looks at its sockets again after a few calls, however many more are posted meanwhile. */
static struct event_base *new_base(void) {
  struct event_config *c = event_config_new();
  const bool fine = c && event_config_set_max_dispatch_interval(c, NULL, 2, 0) == 0;
  struct event_base *base = fine ? event_base_new_with_config(c) : NULL;
  if (c) event_config_free(c);
  return base;
}

bool mn_web_post(mn_web *w, void (*fn)(void *arg), void *arg) {
  posted *p = mn_alloc(sizeof *p);
  if (!p) return false;
  *p = (posted){NULL, fn, arg};
  pthread_mutex_lock(&w->mutex);
  const bool first = !w->oldest;
  if (first) w->oldest = p;
  else w->newest->next = p;
  w->newest = p;
  w->waiting++;
  pthread_mutex_unlock(&w->mutex);
  if (first) event_active(w->mail, EV_READ, 0);
  return true;
}

void mn_web_settle(mn_web *w) {
  while (w->oldest) read_mail(-1, 0, w);
}

static void on_tick(evutil_socket_t fd, short what, void *arg) {
  mn_web *w = arg;
  (void)fd, (void)what;
  if (w->tick) w->tick(w->tick_ctx);
}

mn_status mn_web_new(const mn_web_config *config, mn_web **out) {
  *out = NULL;
  if (evthread_use_pthreads() != 0) return mn_fail(MN_ERR_UNSUPPORTED, "libevent was built without threads");
  mn_web *w = mn_calloc(1, sizeof *w);
  if (!w) return MN_ERR_MEMORY;
  w->config = *config;
  pthread_mutex_init(&w->mutex, NULL);
  pthread_cond_init(&w->fewer, NULL);
  w->base = new_base();
  w->mail = w->base ? event_new(w->base, -1, EV_PERSIST, read_mail, w) : NULL;
  w->ticker = w->mail ? event_new(w->base, -1, EV_PERSIST, on_tick, w) : NULL;
  w->again = w->ticker ? evtimer_new(w->base, accept_again, w) : NULL;
  mn_status status = w->again ? open_tls(w) : mn_fail(MN_ERR_MEMORY, "libevent has no loop for this process");
  if (status == MN_OK) status = listen_at(w);
  if (status != MN_OK) mn_web_free(w);
  else *out = w;
  return status;
}

void mn_web_free(mn_web *w) {
  if (!w) return;
  while (w->first) close_connection(w->first);
  if (w->listener) evconnlistener_free(w->listener);
  if (w->mail) event_free(w->mail);
  if (w->ticker) event_free(w->ticker);
  if (w->again) event_free(w->again);
  if (w->base) event_base_free(w->base);
  SSL_CTX_free(w->tls);
  pthread_mutex_destroy(&w->mutex);
  pthread_cond_destroy(&w->fewer);
  while (w->oldest) {
    posted *next = w->oldest->next;
    free(w->oldest);
    w->oldest = next;
  }
  free(w);
}

int mn_web_port(const mn_web *w) { return w->port; }
bool mn_web_secure(const mn_web *w) { return w->tls != NULL; }
int mn_web_connections(const mn_web *w) { return w->connections; }
int mn_web_late(const mn_web *w) { return w->late; }

mn_status mn_web_run(mn_web *w, void (*tick)(void *ctx), void *ctx) {
  w->tick = tick, w->tick_ctx = ctx;
  event_add(w->ticker, &(struct timeval){0, 100000});
  runs(w, true);
  const int end = event_base_dispatch(w->base);
  event_del(w->ticker);
  runs(w, false);
  return end < 0 ? mn_fail(MN_ERR_IO, "libevent's loop ended") : MN_OK;
}

void mn_web_stop(mn_web *w) { event_base_loopbreak(w->base); }

static void close_waiting(mn_web *w) {
  for (mn_exchange *x = w->first, *next; x; x = next) {
    next = x->next;
    if (x->state == WAITING) close_connection(x);
  }
}

void mn_web_drain(mn_web *w) {
  if (w->draining) return;
  w->draining = true;
  close_waiting(w);
  for (mn_exchange *x = w->first; x; x = x->next)
    if (x->state == HEAD || x->state == BODY) wait_for_request(x);
}

void mn_web_shut(mn_web *w) {
  if (!w->listener) return;
  evconnlistener_free(w->listener);
  w->listener = NULL;
  close_waiting(w);
}
