/* talk.c - requests that the model answers: from the body to tasks of the batcher, and from what the worker tells to a reply, whole or
 * as a stream of events (SSE). The worker's three callbacks only post; all else is in the loop's thread. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "serve/answer.h"
#include "serve/json_schema.h"
#include "serve/server_internal.h"

enum { BEHIND = 8 << 20 }; /* bytes that a client may leave untaken */

typedef struct choice {
  mn_text text;
  mn_answer_logs logs;
  mn_ending ending;
  bool begun; /* its first piece has gone out */
} choice;

typedef struct part { /* a prompt */
  mn_talk *talk;
  mn_task task;
  mn_ids ids;
  int64_t index;
} part;

struct mn_talk {
  mn_server *server;
  mn_talk *next;
  mn_exchange *x; /* NULL: the client has left */
  mn_arena *arena;
  mn_ask ask;
  int32_t end; /* the token that ends answers */
  part *parts;
  choice *choices;                  /* [n_prompts * n] */
  int64_t n_parts, n_choices, open; /* parts that are not over */
  mn_grammar *grammar;              /* what answers must be; NULL: any text */
  mn_machine *machine;
  char id[48];
  int64_t created;
  double began;
  bool started, failed, timed_out; /* the reply has begun; a part has failed, and the client knows */
};

typedef struct event_of { /* what the worker tells */
  part *part;
  int64_t answer;
  enum { TOLD, ENDED, OVER } what;
  bool has_said;
  mn_said said;
  mn_ending ending;
  mn_status status;
  size_t n;
  char text[];
} event_of;

/* ---- ending ---- */
static void free_talk(mn_talk *t) {
  for (mn_talk **at = &t->server->talks; *at; at = &(*at)->next)
    if (*at == t) {
      *at = t->next;
      break;
    }
  for (int64_t i = 0; i < t->n_parts; i++) mn_ids_free(&t->parts[i].ids);
  for (int64_t i = 0; i < t->n_choices; i++) mn_text_free(&t->choices[i].text), mn_answer_logs_free(&t->choices[i].logs);
  mn_machine_free(t->machine);
  mn_grammar_free(t->grammar);
  free(t->parts);
  free(t->choices);
  mn_arena_free(t->arena);
  free(t);
}

static void cancel(mn_talk *t) {
  for (int64_t i = 0; i < t->n_parts; i++) mn_batcher_cancel(t->server->batcher, &t->parts[i].task);
}

static void left(void *arg) {
  mn_talk *t = arg;
  t->x = NULL;
  cancel(t);
}

/* ---- pieces of a stream ---- */
static mn_answer_head head_of(const mn_talk *t) {
  return (mn_answer_head){.kind = t->ask.kind,
                          .id = t->id,
                          .model = t->server->config.name,
                          .created = t->created,
                          .stream = t->ask.stream,
                          .usage = t->ask.include_usage};
}

static void send_event(mn_talk *t, const char *data, size_t n) {
  mn_text line = {0};
  mn_text_add(&line, "data: ");
  mn_text_add_bytes(&line, data, n);
  mn_text_add(&line, "\n\n");
  if (!line.failed) mn_exchange_send(t->x, line.data, line.len);
  mn_text_free(&line);
}

static void begin_stream(mn_talk *t) {
  if (t->started) return;
  t->started = true;
  mn_exchange_header(t->x, "Cache-Control", "no-cache");
  mn_exchange_begin(t->x, 200, "text/event-stream");
}

static const char *finish_of(mn_ending e) { return e == MN_END_NOT_YET ? NULL : e == MN_END_STOP ? "stop" : "length"; }

static void send_piece(mn_talk *t, int64_t i, const char *text, size_t n, bool last) {
  choice *c = &t->choices[i];
  const mn_answer_head head = head_of(t);
  const mn_answer_choice one = {i, text, n, !c->begun, t->ask.manner.top >= 0 ? &c->logs : NULL, last ? finish_of(c->ending) : NULL};
  mn_text out = {0};
  begin_stream(t);
  mn_answer_write(&out, &head, &one, 1, NULL);
  if (!out.failed) send_event(t, out.data, out.len);
  c->begun = true;
  mn_answer_logs_clear(&c->logs);
  mn_text_free(&out);
}

/* ---- what the worker tells ---- in the loop */
static void heard(mn_talk *t, const event_of *e, int64_t i) {
  choice *c = &t->choices[i];
  if (e->has_said) mn_answer_log(&c->logs, t->ask.kind, t->server->config.bundle->tokenizer, &e->said);
  if (!t->ask.stream) mn_text_add_bytes(&c->text, e->text, e->n);
  else if (e->n || e->has_said) send_piece(t, i, e->text, e->n, false);
  if (mn_exchange_behind(t->x) > BEHIND) { /* a client that does not read */
    mn_exchange_drop(t->x);
    left(t);
  }
}

static mn_answer_usage usage_of(const mn_talk *t) {
  mn_answer_usage u = {0};
  for (int64_t i = 0; i < t->n_parts; i++) u.prompt += (int64_t)t->parts[i].ids.len, u.made += t->parts[i].task.made;
  return u;
}

static void finish_stream(mn_talk *t) {
  if (t->ask.include_usage) {
    const mn_answer_head head = head_of(t);
    const mn_answer_usage usage = usage_of(t);
    mn_text out = {0};
    mn_answer_write(&out, &head, NULL, 0, &usage);
    if (!out.failed) send_event(t, out.data, out.len);
    mn_text_free(&out);
  }
  begin_stream(t);
  send_event(t, "[DONE]", 6);
  mn_exchange_end(t->x);
}

static void finish_whole(mn_talk *t) {
  const mn_answer_head head = head_of(t);
  const mn_answer_usage usage = usage_of(t);
  mn_text out = {0};
  mn_answer_choice *list = mn_arena_alloc(t->arena, (size_t)t->n_choices * sizeof *list);
  for (int64_t i = 0; list && i < t->n_choices; i++) {
    const choice *c = &t->choices[i];
    out.failed = out.failed || c->text.failed;
    list[i] = (mn_answer_choice){i,    c->text.data ? c->text.data : "",         c->text.len,
                                 true, t->ask.manner.top >= 0 ? &c->logs : NULL, finish_of(c->ending)};
  }
  if (list) mn_answer_write(&out, &head, list, t->n_choices, &usage);
  mn_text_add(&out, "\n");
  if (!list || out.failed) mn_serve_failed(t->x, MN_ERR_MEMORY, "out of memory");
  else mn_exchange_reply(t->x, 200, "application/json", out.data, out.len);
  mn_text_free(&out);
}

/* A part failed: the client is told, once. */
static void fail(mn_talk *t, mn_status status, const char *why) {
  if (!t->x) return;
  mn_exchange_on_leave(t->x, NULL, NULL);
  if (!t->started) mn_serve_failed(t->x, status, why);
  else {
    mn_text out = {0};
    mn_text_add(&out, "{\"error\": {\"message\": ");
    mn_answer_quote(&out, why, strlen(why));
    mn_text_add(&out, ", \"type\": \"server_error\", \"param\": null, \"code\": null}}");
    if (!out.failed) send_event(t, out.data, out.len);
    mn_text_free(&out);
    mn_exchange_end(t->x);
  }
  left(t);
}

static void part_over(mn_talk *t, const event_of *e) {
  mn_metrics_task(&t->server->metrics, &e->part->task);
  const char *why = t->timed_out                    ? "the answer took longer than this server allows"
                    : e->status == MN_ERR_CANCELLED ? "the server is ending"
                                                    : e->text;
  if (e->status != MN_OK) fail(t, e->status, why);
  if (--t->open > 0) return;
  if (t->x) {
    mn_exchange_on_leave(t->x, NULL, NULL);
    if (t->ask.stream) finish_stream(t);
    else finish_whole(t);
  }
  free_talk(t);
}

static void deliver(void *arg) {
  event_of *e = arg;
  mn_talk *t = e->part->talk;
  const int64_t i = e->part->index * t->ask.n + e->answer;
  if (e->what == OVER) part_over(t, e);
  else if (t->x && e->what == TOLD) heard(t, e, i);
  else if (t->x) {
    t->choices[i].ending = e->ending;
    if (t->ask.stream) send_piece(t, i, "", 0, true);
  }
  free(e);
}

/* ---- the worker's side ---- */
static void post(part *p, event_of event, const char *text, size_t n) {
  event_of *e = mn_alloc(sizeof *e + n + 1);
  if (e) {
    *e = event;
    e->part = p, e->n = n;
    memcpy(e->text, text, n);
    e->text[n] = 0;
    if (mn_web_post(p->talk->server->web, deliver, e)) return;
    free(e);
  }
  mn_log_write(MN_LOG_ERROR, "out of memory: a client waits in vain");
  atomic_store(&p->task.cancelled, true);
}

static void told(void *ctx, int64_t answer, const mn_said *said, const char *text, size_t n) {
  event_of e = {.answer = answer, .what = TOLD, .has_said = said != NULL};
  if (said) e.said = *said;
  if (said || n) post(ctx, e, text, n);
}

static void ended(void *ctx, int64_t answer, mn_ending why) {
  post(ctx, (event_of){.answer = answer, .what = ENDED, .ending = why}, "", 0);
}

static void over(void *ctx, mn_status status, const char *why) { post(ctx, (event_of){.what = OVER, .status = status}, why, strlen(why)); }

/* ---- a request ---- */
static bool encode(mn_talk *t, int64_t i, mn_refusal *why) {
  const mn_ask_prompt *p = &t->ask.prompts[i];
  mn_ids *ids = &t->parts[i].ids;
  const int64_t context = mn_batcher_context(t->server->batcher);
  mn_status status = MN_OK;
  for (int64_t k = 0; p->ids && k < p->n_ids && status == MN_OK; k++) status = mn_ids_add(ids, p->ids[k]);
  if (!p->ids) status = mn_tokenizer_encode(t->server->config.bundle->tokenizer, p->text, p->n, MN_ENCODE_TEMPLATE, ids);
  if (status != MN_OK) return mn_refuse(why, mn_serve_http_status(status), "prompt", NULL, "%s", mn_message());
  if (!ids->len) return mn_refuse(why, 400, "prompt", "invalid_value", "the prompt is empty: there is nothing to go on from");
  const int64_t wanted = t->ask.manner.most > 0 ? t->ask.manner.most : 1;
  if ((int64_t)ids->len > context)
    return mn_refuse(why, 400, "prompt", "context_length_exceeded", "this model's context is %lld tokens, and the prompt has %zu",
                     (long long)context, ids->len);
  if (context != MN_LIMIT_NONE && wanted > context - (int64_t)ids->len + 1)
    return mn_refuse(why, 400, "max_tokens", "context_length_exceeded",
                     "this model's context is %lld tokens; the prompt has %zu, and %lld more are asked for", (long long)context, ids->len,
                     (long long)wanted);
  return true;
}

/* What may be said: tokens that are not special. */
static const char *sayable(void *ctx, int32_t i, size_t *bytes) {
  return mn_tokenizer_is_special(ctx, i) ? NULL : mn_tokenizer_token(ctx, i, bytes);
}

static bool want_form(mn_talk *t, mn_refusal *why) {
  mn_server *s = t->server;
  if (t->ask.format == MN_FORMAT_TEXT) return true;
  mn_status status =
      t->ask.format == MN_FORMAT_OBJECT ? mn_grammar_of_json(true, &t->grammar) : mn_grammar_of_schema(t->ask.schema, &t->grammar);
  if (status == MN_OK) status = mn_machine_new(t->grammar, &t->machine);
  void *tok;
  memcpy(&tok, &s->config.bundle->tokenizer, sizeof tok);
  if (status == MN_OK && !s->lexicon) status = mn_lexicon_new(s->config.bundle->model->config.vocab_size, sayable, tok, &s->lexicon);
  if (status != MN_OK) return mn_refuse(why, mn_serve_http_status(status), "response_format", "invalid_value", "%s", mn_message());
  t->ask.manner.machine = t->machine;
  t->ask.manner.lexicon = s->lexicon;
  return true;
}

static bool set_up(mn_talk *t, mn_refusal *why) {
  mn_ask *a = &t->ask;
  const mn_bundle *bundle = t->server->config.bundle;
  t->end = mn_tokenizer_eos(bundle->tokenizer);
  if (!a->ignore_eos && bundle->speech.n_eos) a->manner.ends = bundle->speech.eos, a->manner.n_ends = bundle->speech.n_eos;
  else if (!a->ignore_eos && t->end >= 0) a->manner.ends = &t->end, a->manner.n_ends = 1;
  if (!a->seeded && getrandom(&a->manner.sampling.seed, sizeof a->manner.sampling.seed, 0) < 0)
    a->manner.sampling.seed = (int64_t)t->server->number;
  if (!want_form(t, why)) return false;
  t->n_parts = a->n_prompts;
  t->n_choices = a->n_prompts * a->n;
  t->parts = mn_calloc((size_t)t->n_parts, sizeof *t->parts);
  t->choices = mn_calloc((size_t)t->n_choices, sizeof *t->choices);
  if (!t->parts || !t->choices) return mn_refuse(why, 503, NULL, NULL, "the server is out of memory");
  for (int64_t i = 0; i < t->n_parts; i++)
    if (!encode(t, i, why)) return false;
  return true;
}

static void echo(mn_talk *t) {
  for (int64_t i = 0; i < t->n_choices; i++) {
    const mn_ids *ids = &t->parts[i / t->ask.n].ids;
    choice *c = &t->choices[i];
    mn_text text = {0};
    if (mn_tokenizer_decode(t->server->config.bundle->tokenizer, ids->data, ids->len, true, &text) == MN_OK) {
      if (t->ask.stream) send_piece(t, i, text.data ? text.data : "", text.len, false);
      else mn_text_add_utf8(&c->text, text.data ? text.data : "", text.len);
    }
    mn_text_free(&text);
  }
}

/* As many tokens as there is room for, where the request says nothing. */
static int64_t most_of(const mn_talk *t, int64_t i) {
  const int64_t context = mn_batcher_context(t->server->batcher), usual = t->server->config.most_tokens;
  if (t->ask.manner.most >= 0) return t->ask.manner.most;
  const int64_t room = context == MN_LIMIT_NONE ? INT32_MAX : context - (int64_t)t->parts[i].ids.len + 1;
  return usual && usual < room ? usual : room;
}

static bool post_all(mn_talk *t, uint64_t client, mn_refusal *why) {
  for (int64_t i = 0; i < t->n_parts; i++) {
    part *p = &t->parts[i];
    bool full;
    *p = (part){.talk = t, .ids = p->ids, .index = i};
    p->task.prompt = p->ids.data, p->task.n_prompt = (int64_t)p->ids.len, p->task.answers = t->ask.n;
    p->task.manner = t->ask.manner;
    p->task.manner.most = most_of(t, i);
    p->task.client = client;
    p->task.told = told, p->task.ended = ended, p->task.over = over, p->task.ctx = p;
    const mn_status status = mn_batcher_post(t->server->batcher, &p->task, &full);
    if (status == MN_OK) t->open++;
    else if (full) return mn_refuse(why, 429, NULL, "queue_full", "the server is busy: %s; try again later", mn_message());
    else return mn_refuse(why, mn_serve_http_status(status), "n", "invalid_value", "%s", mn_message());
  }
  return true;
}

static void refuse_talk(mn_talk *t, const mn_refusal *why) {
  mn_exchange *x = t->x;
  t->x = NULL;
  if (why->status == 429) t->server->metrics.refused++, mn_exchange_header(x, "Retry-After", "1");
  mn_exchange_on_leave(x, NULL, NULL);
  mn_serve_refuse(x, why);
  if (t->open) cancel(t); /* those of its prompts that wait already; the last of them frees it */
  else free_talk(t);
}

static void name_labels(mn_talk *t) {
  mn_text list = {0};
  for (int i = 0; i < t->ask.n_labels; i++) mn_text_addf(&list, "%s%s", i ? ", " : "", t->ask.labels[i]);
  if (list.len && !list.failed) mn_exchange_header(t->x, "Mneme-No-Effect", list.data);
  mn_text_free(&list);
}

void mn_serve_generate(mn_server *s, const mn_request *r, mn_ask_kind kind) {
  mn_refusal why = {0};
  size_t n;
  const char *body = mn_exchange_body(r->x, &n);
  const int64_t rows = s->batcher ? mn_batcher_rows(s->batcher) : 1;
  const mn_ask_limits limits = {s->config.bundle->model->config.vocab_size, rows < 128 ? rows : 128, 128, INT32_MAX};
  mn_talk *t = mn_calloc(1, sizeof *t);
  if (t) *t = (mn_talk){.server = s, .x = r->x, .arena = mn_arena_new(), .created = time(NULL), .began = mn_now(), .next = s->talks};
  if (!t || !t->arena) {
    free(t);
    mn_serve_failed(r->x, MN_ERR_MEMORY, "out of memory");
    return;
  }
  s->talks = t;
  snprintf(t->id, sizeof t->id, "%s-%012llx%08llx", kind == MN_ASK_CHAT ? "chatcmpl" : "cmpl",
           (unsigned long long)(s->salt & 0xffffffffffff), (unsigned long long)s->number++);
  if (!s->config.bundle->tokenizer || !mn_batcher_program(s->batcher))
    mn_refuse(&why, 400, "model", "unsupported_model", "this model makes no text");
  else if (kind == MN_ASK_CHAT) mn_refuse(&why, 400, "model", "unsupported_model", "this model has no chat template: ask /v1/completions");
  else if (mn_ask_read(t->arena, kind, body, n, &limits, &t->ask, &why) && mn_serve_check_model(s, &t->ask, &why) && set_up(t, &why)) {
    name_labels(t);
    mn_exchange_on_leave(t->x, left, t);
    if (post_all(t, r->client, &why)) {
      if (t->ask.echo) echo(t);
      return;
    }
  }
  refuse_talk(t, &why);
}

void mn_serve_cancel_all(mn_server *s) {
  for (mn_talk *t = s->talks; t; t = t->next) cancel(t);
}

void mn_serve_check_times(mn_server *s) {
  if (s->config.most_seconds <= 0) return;
  for (mn_talk *t = s->talks; t; t = t->next) {
    if (t->timed_out || mn_now() - t->began < s->config.most_seconds) continue;
    t->timed_out = true;
    cancel(t);
  }
}
