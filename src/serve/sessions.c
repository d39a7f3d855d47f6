/* sessions.c - the endpoints of kept sessions: a list of them, one of them, fork, roll back, save, delete. The worker does each between two
 * steps of the batch, as it owns all streams; but for the list, which opens files: that is a reader's. */
#include <stdlib.h>
#include <string.h>

#include "format/json.h"
#include "serve/answer.h"
#include "serve/kept.h"
#include "serve/server_internal.h"

enum { MOST_BODY = 4096 }; /* it is read by the loop */
typedef enum what { LIST, SHOW, FORK, BACK, SAVE, REMOVE } what;

typedef struct errand {
  mn_server *server;
  mn_exchange *x; /* NULL: the client has left */
  what what;
  uint64_t owner;
  char name[MN_KEPT_NAME + 1], to[MN_KEPT_NAME + 1];
  int64_t messages, tokens; /* BACK: the first so many; -1: not said */
  mn_refusal why;           /* status 0: it went well */
  mn_text out;
} errand;

static void left(void *arg) { ((errand *)arg)->x = NULL; }

/* 409: somebody has the session. */
static void failed(errand *e, mn_status status, int http) {
  if (status != MN_OK && !e->why.status)
    mn_refuse(&e->why, http ? http : mn_serve_http_status(status), http == 409 ? "session_id" : NULL, http == 409 ? "session_busy" : NULL,
              "%s", mn_message());
}

/* Also of another's. */
static void refuse_unknown(errand *e) { mn_refuse(&e->why, 404, "session_id", "session_not_found", "there is no session '%s'", e->name); }

/* ---- looking ---- in the worker, or in a reader */
typedef struct entries {
  mn_shelf_entry *list;
  size_t n, cap;
  bool failed;
} entries;

static void collect(void *ctx, const mn_shelf_entry *e) {
  entries *all = ctx;
  if (all->n == all->cap) {
    const size_t cap = all->cap ? all->cap * 2 : 16;
    mn_shelf_entry *more = mn_realloc(all->list, cap * sizeof *more);
    if (!more) {
      all->failed = true;
      return;
    }
    all->list = more, all->cap = cap;
  }
  char *name = mn_strdup(e->name);
  if (!name) all->failed = true;
  else all->list[all->n] = *e, all->list[all->n++].name = name;
}

/* Of its note the parent and the messages; of a file that cannot be read why that is. */
static void describe(errand *e, const mn_shelf_entry *s, bool whole) {
  mn_text note = {0};
  mn_arena *arena = mn_arena_new();
  const mn_value *root = NULL;
  mn_status status = arena ? mn_shelf_note(e->server->shelf, e->owner, s->name, &note) : MN_ERR_MEMORY;
  if (status == MN_OK && note.len) status = mn_json_parse(arena, "note", note.data, note.len, &root);
  char *fault = status == MN_OK ? NULL : mn_strdup(mn_message());
  if (whole) failed(e, status, 0);
  const mn_value *parent = mn_value_get(root, "parent"), *messages = mn_value_get(root, "messages");
  mn_text_add(&e->out, "{\"id\": ");
  mn_json_quote(&e->out, s->name);
  mn_text_add(&e->out, ", \"object\": \"session\", \"tokens\": ");
  if (s->length < 0) mn_text_add(&e->out, "null");
  else mn_text_addf(&e->out, "%lld", (long long)s->length);
  mn_text_addf(&e->out, ", \"bytes\": %zu, \"in_memory\": %s, \"busy\": %s, \"parent\": ", s->bytes, s->in_memory ? "true" : "false",
               s->taken ? "true" : "false");
  if (parent && parent->kind == MN_TEXT) mn_json_quote(&e->out, parent->as.text);
  else mn_text_add(&e->out, "null");
  if (whole) {
    mn_text_add(&e->out, ", \"messages\": ");
    if (!messages || mn_value_to_json(messages, 0, &e->out) != MN_OK) mn_text_add(&e->out, "[]");
  } else if (messages && messages->kind == MN_LIST) mn_text_addf(&e->out, ", \"messages\": %zu", messages->count);
  if (fault) mn_text_add(&e->out, ", \"error\": "), mn_answer_quote(&e->out, fault, strlen(fault));
  mn_text_add(&e->out, "}");
  free(fault);
  mn_text_free(&note);
  mn_arena_free(arena);
}

static void look(errand *e) {
  entries all = {0};
  bool found = false;
  failed(e, mn_shelf_each(e->server->shelf, e->owner, collect, &all), 0);
  if (all.failed) mn_refuse(&e->why, 503, NULL, NULL, "the server is out of memory");
  if (e->what == LIST) mn_text_add(&e->out, "{\"object\": \"list\", \"data\": [");
  for (size_t i = 0; i < all.n; i++) {
    if (e->what == LIST) {
      if (i) mn_text_add(&e->out, ", ");
      describe(e, &all.list[i], false);
    } else if (!strcmp(all.list[i].name, e->name)) describe(e, &all.list[i], true), found = true;
  }
  mn_text_add(&e->out, e->what == LIST ? "]}\n" : "\n");
  if (e->what != LIST && !found && !e->why.status) refuse_unknown(e);
  for (size_t i = 0; i < all.n; i++) free((void *)(uintptr_t)all.list[i].name);
  free(all.list);
}

/* ---- changing ---- in the worker */
static void give(errand *e, const char *name, mn_conversation *c, const mn_text *note) {
  failed(e, mn_shelf_give(e->server->shelf, e->owner, name, c, note->len ? note->data : NULL), 0);
}

/* Takes the session; false: it is not there, or somebody has it. */
static bool take(errand *e, mn_conversation **c, mn_text *note) {
  *c = NULL;
  mn_status status = mn_shelf_take(e->server->shelf, e->owner, e->name, false, c);
  if (status == MN_OK && *c) { /* nobody else writes it any more */
    status = mn_shelf_note(e->server->shelf, e->owner, e->name, note);
    if (status != MN_OK) give(e, e->name, *c, note), *c = NULL;
  }
  if (status != MN_OK) failed(e, status, status == MN_ERR_CONFIG ? 409 : 0);
  else if (!*c) refuse_unknown(e);
  return *c != NULL;
}

/* How many of the conversation's tokens are the first messages, as its template writes them: up to where their text and the tokens' part. -1: it
 * cannot be told (a template that refuses them, tokens that are no text), and the next request finds the place. */
static int64_t tokens_of(const errand *e, const mn_conversation *c, const mn_text *cut) {
  const mn_server *s = e->server;
  const mn_tokenizer *tok = s->config.bundle->tokenizer;
  const mn_value *root = NULL;
  mn_arena *arena = mn_arena_new();
  mn_text text = {0};
  int64_t n = -1, first = 0;
  size_t at = 0, bytes;
  if (arena && s->chat && mn_json_parse(arena, "note", cut->data, cut->len, &root) == MN_OK) {
    const mn_value *messages = mn_value_get(root, "messages");
    const mn_chat_request r = {.messages = messages};
    if (messages && !messages->count) n = 0;
    else if (messages && mn_chat_text(s->chat, &r, &text) == MN_OK && text.data) {
      const int32_t *tokens = mn_conversation_tokens(c);
      const int32_t bos = s->config.bundle->speech.bos;
      const char *begin = bos >= 0 ? mn_tokenizer_token(tok, bos, &bytes) : NULL;
      if (mn_conversation_length(c) && tokens[0] == bos && (!begin || bytes > text.len || memcmp(text.data, begin, bytes) != 0)) first = 1;
      for (n = first; n < mn_conversation_length(c); n++) {
        const char *word = mn_tokenizer_token(tok, tokens[n], &bytes);
        if (!word || bytes > text.len - at || memcmp(text.data + at, word, bytes) != 0) break;
        at += bytes;
      }
      if (n == first) n = -1; /* not even the first: these tokens are spelled otherwise */
    }
  }
  mn_text_free(&text);
  mn_arena_free(arena);
  return n;
}

static mn_status back_to_messages(errand *e, mn_conversation *c, const mn_text *note, mn_text *cut) {
  const int64_t there = mn_kept_count(note->data ? note->data : "");
  if (there < 0)
    mn_refuse(&e->why, 400, "messages", "invalid_value",
              "session '%s' has no messages, as completions made it: roll it back to {\"tokens\": N}", e->name);
  else if (e->messages > there)
    mn_refuse(&e->why, 400, "messages", "invalid_value", "session '%s' has %lld messages", e->name, (long long)there);
  if (e->messages > there) return MN_OK;
  MN_TRY(mn_kept_cut_note(note->data ? note->data : "", e->messages, NULL, cut));
  const int64_t n = note->len && strcmp(note->data, cut->data) != 0 ? tokens_of(e, c, cut) : -1;
  return n >= 0 ? mn_conversation_back(c, n) : MN_OK;
}

static void roll_back(errand *e) {
  mn_text note = {0}, cut = {0};
  mn_conversation *c;
  if (take(e, &c, &note)) {
    mn_status status = MN_OK;
    if (e->tokens >= 0 && e->tokens > mn_conversation_length(c))
      mn_refuse(&e->why, 400, "tokens", "invalid_value", "session '%s' has %lld tokens", e->name, (long long)mn_conversation_length(c));
    else if (e->tokens >= 0) status = mn_conversation_back(c, e->tokens);
    else status = back_to_messages(e, c, &note, &cut);
    failed(e, status, 0);
    give(e, e->name, c, cut.len ? &cut : &note);
  }
  mn_text_free(&note), mn_text_free(&cut);
}

static void fork_it(errand *e) {
  mn_text note = {0}, born = {0};
  mn_conversation *c = NULL;
  uint64_t holder;
  if (!mn_shelf_has(e->server->shelf, e->owner, e->name, &holder)) refuse_unknown(e);
  else if (mn_shelf_has(e->server->shelf, e->owner, e->to, &holder))
    mn_refuse(&e->why, 409, "to", "session_exists", "there is a session '%s' already: choose another name", e->to);
  else {
    const mn_status status = mn_shelf_fork(e->server->shelf, e->owner, e->name, e->to);
    failed(e, status, status == MN_ERR_CONFIG ? 409 : 0);
  }
  if (!e->why.status) failed(e, mn_shelf_note(e->server->shelf, e->owner, e->name, &note), 0);
  if (!e->why.status) failed(e, mn_kept_cut_note(note.data ? note.data : "", INT64_MAX, e->name, &born), 0);
  if (!e->why.status) failed(e, mn_shelf_take(e->server->shelf, e->owner, e->to, false, &c), 0);
  if (c) give(e, e->to, c, &born);
  mn_text_free(&note), mn_text_free(&born);
}

/* Also what cannot be read. */
static void remove_it(errand *e) {
  uint64_t holder;
  if (!mn_shelf_has(e->server->shelf, e->owner, e->name, &holder)) {
    refuse_unknown(e);
    return;
  }
  const mn_status status = mn_shelf_remove(e->server->shelf, e->owner, e->name);
  failed(e, status, status == MN_ERR_CONFIG ? 409 : 0);
  if (!e->why.status) mn_text_addf(&e->out, "{\"id\": \"%s\", \"object\": \"session\", \"deleted\": true}\n", e->name);
}

static void done(void *arg);
static void work(void *arg) {
  errand *e = arg;
  mn_text note = {0};
  mn_conversation *c;
  switch (e->what) {
  case LIST:
  case SHOW:
    break;
  case FORK:
    fork_it(e);
    break;
  case BACK:
    roll_back(e);
    break;
  case SAVE: /* what is given back is saved */
    if (take(e, &c, &note)) give(e, e->name, c, &note);
    break;
  case REMOVE:
    remove_it(e);
    break;
  }
  mn_text_free(&note);
  if (e->what == FORK) snprintf(e->name, sizeof e->name, "%s", e->to);
  if (!e->why.status && e->what != REMOVE) look(e);
  if (!mn_web_post(e->server->web, done, e)) mn_log_write(MN_LOG_ERROR, "out of memory: a client waits in vain");
}

static void done(void *arg) { /* in the loop */
  errand *e = arg;
  if (e->x) {
    mn_exchange_on_leave(e->x, NULL, NULL);
    if (e->why.status) mn_serve_refuse(e->x, &e->why);
    else if (e->out.failed) mn_serve_failed(e->x, MN_ERR_MEMORY, "out of memory");
    else mn_exchange_reply(e->x, 200, "application/json", e->out.data, e->out.len);
  }
  e->server->errands--;
  mn_text_free(&e->out);
  free(e);
}

/* ---- requests ---- */
static const char fork_says[] = "a fork says {\"to\": NAME}",
                  back_says[] = "a session is rolled back to {\"messages\": N}, the first N of them, or to {\"tokens\": N}",
                  no_body[] = "this asks for no body";

static bool missing(const char *key, const char *says, mn_refusal *why) {
  return mn_refuse(why, 400, key, "missing_required_parameter", "'%s' is missing: %s", key, says);
}

static bool wrong(const char *key, const mn_value *v, const char *expected, mn_refusal *why) {
  char shown[MN_PLACE];
  return mn_refuse(why, 400, key, "invalid_type", "'%s' is %s; it must be %s", key, mn_value_show(v, shown), expected);
}

static bool read_numbers(const mn_value *body, errand *e, mn_refusal *why) {
  const mn_value *messages = mn_value_get(body, "messages"), *tokens = mn_value_get(body, "tokens"), *n = messages ? messages : tokens;
  const char *key = messages ? "messages" : "tokens";
  if (!n) return missing("messages", back_says, why);
  if (messages && tokens) return mn_refuse(why, 400, "tokens", "invalid_value", "'messages' and 'tokens' are both given: leave one out");
  if (n->kind != MN_INTEGER || n->as.integer < 0) return wrong(key, n, "an integer from 0 on", why);
  *(messages ? &e->messages : &e->tokens) = n->as.integer;
  return true;
}

static bool read_to(const mn_value *body, errand *e, mn_refusal *why) {
  const mn_value *to = mn_value_get(body, "to");
  if (!to) return missing("to", fork_says, why);
  if (to->kind != MN_TEXT) return wrong("to", to, "the name of a session", why);
  const bool fine = mn_kept_name(to->as.text, why);
  snprintf(fine ? e->to : why->param, fine ? sizeof e->to : sizeof why->param, "%s", fine ? to->as.text : "to");
  return fine;
}

/* The first key that is none of these. */
static bool check_keys(const mn_value *body, const char *const *known, const char *says, mn_refusal *why) {
  for (size_t i = 0; i < body->count; i++) {
    const char *key = body->as.entries[i].key;
    char shown[MN_PRINTABLE];
    int k = 0;
    while (known[k] && strcmp(known[k], key) != 0) k++;
    if (!known[k]) return mn_refuse(why, 400, mn_printable(key, shown), "unknown_parameter", "unknown parameter '%s': %s", shown, says);
  }
  return true;
}

static bool read_keys(const mn_value *body, errand *e, mn_refusal *why) {
  static const char *const of_fork[] = {"to", NULL}, *const of_back[] = {"messages", "tokens", NULL}, *const none[] = {NULL};
  if (body && body->kind != MN_MAP)
    return mn_refuse(why, 400, NULL, "invalid_json", "the body is %s; it must be a JSON object", mn_kind_name(body->kind));
  const bool forks = e->what == FORK, back = e->what == BACK;
  if (body && !check_keys(body, forks ? of_fork : back ? of_back : none, forks ? fork_says : back ? back_says : no_body, why)) return false;
  return forks ? read_to(body, e, why) : back ? read_numbers(body, e, why) : true;
}

static bool read_body(const mn_request *r, errand *e, mn_refusal *why) {
  mn_arena *arena = mn_arena_new();
  const mn_value *body = NULL;
  size_t n;
  const char *text = mn_exchange_body(r->x, &n);
  bool fine = arena != NULL || mn_refuse(why, 503, NULL, NULL, "the server is out of memory");
  if (fine && n > MOST_BODY) fine = mn_refuse(why, 413, NULL, "request_too_large", "a session is asked in less than %d bytes", MOST_BODY);
  if (fine && n && mn_json_parse(arena, "body", text, n, &body) != MN_OK)
    fine = mn_refuse(why, 400, NULL, "invalid_json", "%s", mn_message());
  if (fine) fine = read_keys(body, e, why);
  mn_arena_free(arena);
  return fine;
}

/* What is asked with other methods. */
static bool wrong_method(const mn_request *r, const char *allow, mn_refusal *why) {
  const mn_http_head *h = mn_exchange_head(r->x);
  char path[MN_PRINTABLE], method[MN_PRINTABLE];
  mn_exchange_header(r->x, "Allow", allow);
  return mn_refuse(why, 405, NULL, "method_not_allowed", "%s is not for the method %s, but for %s", mn_printable(h->path, path),
                   mn_printable(h->method, method), allow);
}

static const struct {
  const char *method, *verb, *allow;
  what what;
} asked[] = {{"GET", "", "GET, HEAD, DELETE", SHOW},
             {"DELETE", "", "GET, HEAD, DELETE", REMOVE},
             {"POST", "fork", "POST", FORK},
             {"POST", "rollback", "POST", BACK},
             {"POST", "save", "POST", SAVE}};
enum { N_ASKED = sizeof asked / sizeof *asked };

const char *mn_serve_sessions_methods(const char *rest) {
  const char *slash = strchr(rest, '/'), *verb = slash ? slash + 1 : "";
  if (!*rest) return "GET, HEAD";
  for (int i = 0; i < N_ASKED; i++)
    if (!strcmp(verb, asked[i].verb)) return asked[i].allow;
  return NULL;
}

/* "NAME/fork" and the like, after the method. */
static bool understand(const mn_request *r, errand *e, mn_refusal *why) {
  const char *method = mn_exchange_head(r->x)->method, *slash = strchr(r->rest, '/'), *verb = slash ? slash + 1 : "";
  const char *allow = mn_serve_sessions_methods(r->rest);
  const size_t n = slash ? (size_t)(slash - r->rest) : strlen(r->rest);
  char name[MN_KEPT_NAME + 2];
  if (!strcmp(method, "HEAD")) method = "GET";
  if (!n && !slash) return e->what = LIST, !strcmp(method, "GET") || wrong_method(r, allow, why);
  snprintf(name, sizeof name, "%.*s", (int)(n < sizeof name ? n : sizeof name), r->rest);
  if (!mn_kept_name(name, why)) return false;
  memcpy(e->name, name, n + 1);
  for (int i = 0; i < N_ASKED; i++) {
    if (strcmp(verb, asked[i].verb) != 0 || strcmp(method, asked[i].method) != 0) continue;
    e->what = asked[i].what;
    if (e->what == SAVE && !e->server->config.sessions)
      return mn_refuse(why, 400, NULL, "unsupported", "this server keeps sessions in memory alone: start it with --sessions DIR");
    return read_body(r, e, why);
  }
  if (allow) return wrong_method(r, allow, why);
  return mn_refuse(why, 404, NULL, "unknown_url", "a session knows GET, DELETE, and POST of fork, rollback and save");
}

void mn_serve_sessions(mn_server *s, const mn_request *r) {
  mn_refusal why = {0};
  errand *e = mn_calloc(1, sizeof *e);
  if (!e) {
    mn_serve_failed(r->x, MN_ERR_MEMORY, "out of memory");
    return;
  }
  *e = (errand){.server = s, .x = r->x, .owner = r->owner, .messages = -1, .tokens = -1};
  bool fine =
      s->shelf ? understand(r, e, &why) : mn_refuse(&why, 400, NULL, "unsupported_model", "this model makes no text: it has no sessions");
  if (fine) mn_exchange_on_leave(r->x, left, e);
  bool full = false;
  if (fine && (e->what == LIST ? mn_readers_ask(s->readers, work, e, &full) : mn_batcher_call(s->batcher, work, e)) == MN_OK) {
    s->errands++;
    return;
  }
  if (fine) mn_exchange_on_leave(r->x, NULL, NULL), mn_refuse(&why, 503, NULL, NULL, "the server is out of memory");
  if (full) mn_refuse(&why, 429, NULL, "queue_full", "the server is busy: %s; try again later", mn_message());
  if (full) s->metrics.refused++, mn_exchange_header(r->x, "Retry-After", "1");
  free(e);
  mn_serve_refuse(r->x, &why);
}
