/* talk.c - requests that the model answers: from the body to tasks of the batcher, and from what the worker tells to a reply, whole or
 * as a stream of events (SSE). The worker's three callbacks only post; all else is in the loop's thread. */
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "serve/chat.h"
#include "serve/json_schema.h"
#include "serve/kept.h"
#include "serve/talk_internal.h"

/* ---- ending ---- */
void talk_free(mn_talk *t) {
  for (mn_talk **at = &t->server->talks; *at; at = &(*at)->next)
    if (*at == t) {
      *at = t->next;
      break;
    }
  for (int64_t i = 0; i < t->n_parts; i++) mn_ids_free(&t->parts[i].ids), mn_ids_free(&t->parts[i].task.drawn);
  for (int64_t i = 0; i < t->n_choices; i++) mn_text_free(&t->choices[i].text), mn_answer_logs_free(&t->choices[i].logs);
  mn_text_free(&t->note), mn_text_free(&t->next_note), mn_text_free(&t->said), mn_ids_free(&t->known);
  mn_text_free(&t->events.said);
  free(t->body);
  mn_machine_free(t->machine);
  mn_grammar_free(t->grammar);
  free(t->parts);
  free(t->choices);
  mn_arena_free(t->arena);
  free(t);
}

static void cancel(mn_talk *t) { /* one that is being read looks at this when that is over */
  for (int64_t i = 0; !t->read && i < t->n_parts; i++) mn_batcher_cancel(t->server->batcher, &t->parts[i].task);
}

void talk_left(void *arg) {
  mn_talk *t = arg;
  t->x = NULL;
  atomic_store(&t->gone, true);
  cancel(t);
}

/* ---- the worker's side ---- */
static void post(part *p, event_of event, const char *text, size_t n) {
  event_of *e = mn_alloc(sizeof *e + n + 1);
  if (e) {
    *e = event;
    e->part = p, e->n = n;
    memcpy(e->text, text, n);
    e->text[n] = 0;
    if (mn_web_post(p->talk->server->web, talk_deliver, e)) return;
    free(e);
  }
  mn_log_write(MN_LOG_ERROR, "out of memory: a client waits in vain");
  atomic_store(&p->task.cancelled, true);
}

static void told(void *ctx, int64_t answer, const mn_said *said, const char *text, size_t n) {
  event_of e = {.answer = answer, .what = TOLD, .has_said = said != NULL};
  mn_talk *t = ((part *)ctx)->talk;
  if (said) e.said = *said;
  if (t->ask.session) mn_text_add_bytes(&t->said, text, n);
  mn_web_wait(t->server->web);
  if (said || n) post(ctx, e, text, n);
}

static void heard(void *ctx, const mn_said *said) { post(ctx, (event_of){.what = HEARD, .has_said = true, .said = *said}, "", 0); }

static void ended(void *ctx, int64_t answer, mn_ending why) {
  post(ctx, (event_of){.answer = answer, .what = ENDED, .ending = why}, "", 0);
}

static void over(void *ctx, mn_status status, const char *why) { post(ctx, (event_of){.what = OVER, .status = status}, why, strlen(why)); }

/* ---- a kept session ---- in the worker */
enum { WORTH = 32 }; /* tokens of a beginning that is kept for others, and used */

/* Of a request without a session: what was read before of a prompt that begins so. */
static mn_status borrow(void *ctx, mn_conversation **out) {
  const part *p = ctx;
  const mn_task *k = &p->task;
  return mn_shelf_begin_or_new(p->talk->server->shelf, p->talk->client, k->prompt, k->n_prompt, WORTH, out);
}

static void lay_down(void *ctx, mn_conversation *c, mn_status status) {
  const mn_talk *t = ((part *)ctx)->talk;
  if (status == MN_OK) mn_shelf_lay(t->server->shelf, t->client, c);
  else mn_conversation_free(c);
}

static bool by_id(const mn_talk *t) { return t->ask.session == t->id; } /* a response's own */

/* The prompt was made of the note as it was then. */
static mn_status same_note(const mn_talk *t) {
  mn_text now = {0};
  mn_status status = mn_shelf_note(t->server->shelf, t->owner, t->ask.session, &now);
  if (status == MN_OK && (now.len != t->note.len || (now.len && memcmp(now.data, t->note.data, now.len) != 0)))
    status = mn_fail(MN_ERR_CONFIG, "session %s was changed while this request waited; send it again", t->ask.session);
  mn_text_free(&now);
  return status;
}

static mn_status take_named(mn_talk *t, mn_conversation **out) {
  mn_shelf *s = t->server->shelf;
  mn_status status = t->ask.previous ? mn_shelf_fork(s, t->owner, t->ask.previous, t->ask.session) : MN_OK;
  if (status == MN_OK) status = mn_shelf_take(s, t->owner, t->ask.session, true, out);
  t->busy = status == MN_ERR_CONFIG && mn_shelf_is_elsewhere(s, t->owner, t->ask.previous ? t->ask.previous : t->ask.session);
  if (status != MN_OK) return status;
  status = same_note(t);
  t->busy = status == MN_ERR_CONFIG;
  if (status == MN_OK) return MN_OK;
  const mn_kept_message why = mn_message_keep();
  const bool made = !mn_conversation_length(*out); /* for it had gone meanwhile */
  if (mn_shelf_give(s, t->owner, t->ask.session, *out, NULL) != MN_OK)
    mn_log_write(MN_LOG_WARN, "session %s: %s", t->ask.session, mn_message());
  if ((by_id(t) || made) && mn_shelf_remove(s, t->owner, t->ask.session) != MN_OK)
    mn_log_write(MN_LOG_WARN, "session %s: %s", t->ask.session, mn_message());
  *out = NULL;
  mn_message_restore(&why);
  return status;
}

static mn_status take(void *ctx, mn_conversation **out) {
  mn_talk *t = ((part *)ctx)->talk;
  mn_task *p = &((part *)ctx)->task;
  mn_status status = take_named(t, out);
  if (status != MN_OK) return status;
  if (mn_conversation_length(*out)) return MN_OK;
  mn_conversation *begun = NULL; /* its first prompt may begin as others did */
  if (mn_shelf_begin(t->server->shelf, t->client, p->prompt, p->n_prompt, WORTH, &begun) != MN_OK)
    mn_log_write(MN_LOG_WARN, "session %s: %s", t->ask.session, mn_message());
  if (begun) mn_conversation_free(*out), *out = begun, p->begun = true;
  return MN_OK;
}

/* With what was said, if all went well; else as it was. */
static void give(void *ctx, mn_conversation *c, mn_status status) {
  mn_talk *t = ((part *)ctx)->talk;
  const bool spoke = status == MN_OK && t->next_note.len && !t->said.failed;
  if (spoke) mn_kept_close_note(&t->next_note, t->said.data ? t->said.data : "", t->said.len);
  const mn_text *note = spoke && !t->next_note.failed ? &t->next_note : &t->note;
  if (mn_shelf_give(t->server->shelf, t->owner, t->ask.session, c, note->len ? note->data : NULL) != MN_OK)
    mn_log_write(MN_LOG_WARN, "session %s: %s", t->ask.session, mn_message());
  if (by_id(t) && (!t->ask.store || status != MN_OK) && mn_shelf_remove(t->server->shelf, t->owner, t->ask.session) != MN_OK)
    mn_log_write(MN_LOG_WARN, "response %s: %s", t->ask.session, mn_message());
}

/* ---- a request ---- */
const char *talk_prompt_key(const mn_ask *a) { return a->response ? "input" : a->kind == MN_ASK_CHAT ? "messages" : "prompt"; }
static const char *session_key(const mn_ask *a) { return a->previous ? "previous_response_id" : "session_id"; }

static bool encode(mn_talk *t, int64_t i, mn_refusal *why) {
  const mn_ask_prompt *p = &t->ask.prompts[i];
  char key[32];
  if (t->ask.n_prompts > 1) snprintf(key, sizeof key, "%s.%lld", talk_prompt_key(&t->ask), (long long)i);
  else snprintf(key, sizeof key, "%s", talk_prompt_key(&t->ask));
  mn_ids *ids = &t->parts[i].ids;
  const int64_t context = mn_batcher_context(t->server->batcher);
  mn_status status = MN_OK;
  for (int64_t k = 0; p->ids && k < p->n_ids && status == MN_OK; k++) status = mn_ids_add(ids, p->ids[k]);
  if (!p->ids) status = mn_tokenizer_encode(t->server->config.bundle->tokenizer, p->text, p->n, MN_ENCODE_TEMPLATE, ids);
  if (status != MN_OK) return mn_refuse(why, mn_serve_http_status(status), key, NULL, "%s", mn_message());
  if (!ids->len) return mn_refuse(why, 400, key, "invalid_value", "'%s' is empty: there is nothing to go on from", key);
  const int64_t wanted = t->ask.manner.most > 0 ? t->ask.manner.most : 1;
  if ((int64_t)ids->len > context)
    return mn_refuse(why, 400, key, "context_length_exceeded", "this model's context is %lld tokens, and the prompt has %zu",
                     (long long)context, ids->len);
  if (context != MN_LIMIT_NONE && wanted > context - (int64_t)ids->len + 1)
    return mn_refuse(why, 400, t->ask.most_key, "context_length_exceeded",
                     "this model's context is %lld tokens; the prompt has %zu, and %lld more are asked for", (long long)context, ids->len,
                     (long long)wanted);
  return true;
}

/* What may be said: tokens that are not special. */
static const char *sayable(void *ctx, int32_t i, size_t *bytes) {
  return mn_tokenizer_is_special(ctx, i) ? NULL : mn_tokenizer_token(ctx, i, bytes);
}

const char *talk_form_key(const mn_talk *t) {
  return t->ask.choice == MN_TOOLS_MUST ? "tools" : t->ask.response ? "text" : "response_format";
}

static bool want_form(mn_talk *t, mn_refusal *why) {
  mn_server *s = t->server;
  const bool call = t->ask.choice == MN_TOOLS_MUST;
  mn_status status = MN_OK;
  if (t->ask.format == MN_FORMAT_TEXT && !call) return true;
  if (call) status = mn_grammar_of_calls(t->ask.tools, t->ask.function, &t->grammar);
  else
    status = t->ask.format == MN_FORMAT_OBJECT ? mn_grammar_of_json(true, &t->grammar) : mn_grammar_of_schema(t->ask.schema, &t->grammar);
  if (status == MN_OK) status = mn_machine_new(t->grammar, &t->machine);
  void *tok;
  memcpy(&tok, &s->config.bundle->tokenizer, sizeof tok);
  pthread_mutex_lock(&s->lexicon_lock);
  if (status == MN_OK && !s->lexicon) status = mn_lexicon_new(s->config.bundle->model->config.vocab_size, sayable, tok, &s->lexicon);
  pthread_mutex_unlock(&s->lexicon_lock);
  if (status != MN_OK) return mn_refuse(why, mn_serve_http_status(status), talk_form_key(t), "invalid_value", "%s", mn_message());
  t->ask.manner.machine = t->machine;
  t->ask.manner.lexicon = s->lexicon;
  return true;
}

static bool no_memory(mn_refusal *why) { return mn_refuse(why, 503, NULL, NULL, "the server is out of memory"); }

/* ---- what the template shows ---- */
static bool is_a_tools(const mn_value *m) {
  const mn_value *role = mn_value_get(m, "role");
  return role && role->kind == MN_TEXT && !strcmp(role->as.text, "tool");
}

/* The messages without their names, or without those of tools. NULL: out of memory. */
static const mn_value *without(mn_arena *arena, const mn_value *messages, bool names) {
  const mn_value **all = mn_arena_alloc(arena, (messages->count + 1) * sizeof *all);
  size_t n = 0;
  for (size_t i = 0; all && i < messages->count; i++) {
    const mn_value *m = messages->as.items[i];
    const char *keys[8];
    const mn_value *values[8];
    size_t k = 0;
    if (!names && is_a_tools(m)) continue;
    for (size_t e = 0; e < m->count && k < 8; e++)
      if (!names || strcmp(m->as.entries[e].key, "name") != 0) keys[k] = m->as.entries[e].key, values[k++] = m->as.entries[e].value;
    if (!(all[n++] = mn_value_map(arena, k, keys, values))) return NULL;
  }
  return all ? mn_value_list(arena, n, all) : NULL;
}

/* Is the text the same without them? A template that refuses either says so itself. */
static bool leaves_out(mn_talk *t, const mn_chat_request *r, bool names) {
  mn_chat_request other = *r;
  mn_text with = {0}, rest = {0};
  other.messages = without(t->arena, r->messages, names);
  other.now = other.now ? other.now : (int64_t)t->created;
  mn_chat_request whole = other;
  whole.messages = r->messages;
  const bool same = other.messages && mn_chat_text(t->server->chat, &whole, &with) == MN_OK &&
                    mn_chat_text(t->server->chat, &other, &rest) == MN_OK && with.len == rest.len &&
                    (!with.len || !memcmp(with.data, rest.data, with.len));
  mn_text_free(&with), mn_text_free(&rest);
  return same;
}

/* Calls and results that a template would drop are refused, names are told of. */
static bool check_shown(mn_talk *t, const mn_chat_request *r, mn_refusal *why) {
  const mn_template *form = mn_chat_format_template(t->server->chat);
  bool names = false;
  size_t results = 0;
  for (size_t i = 0; i < r->messages->count; i++) {
    const mn_value *m = r->messages->as.items[i];
    if (mn_value_get(m, "tool_calls") && !mn_template_mentions(form, "tool_calls"))
      return mn_refuse(why, 400, talk_prompt_key(&t->ask), "unsupported_parameter",
                       "message %zu has tool_calls, and this model's chat template has no place for them", i + 1);
    names = names || mn_value_get(m, "name");
    if (is_a_tools(m) && !results) results = i + 1;
  }
  if (results && leaves_out(t, r, false))
    return mn_refuse(why, 400, talk_prompt_key(&t->ask), "unsupported_parameter",
                     "message %zu is a tool's, and this model's chat template leaves those out", results);
  names = names && (!mn_template_mentions(form, "name") || leaves_out(t, r, true));
  if (names && t->ask.n_labels < MN_ASK_LABELS) t->ask.labels[t->ask.n_labels++] = "messages.name";
  return true;
}

/* Messages through the template; the tokens of a session stay, where its dialogue goes on. */
static bool tokens_of(mn_talk *t, const mn_value *messages, mn_ids *out, mn_refusal *why) {
  const mn_chat_format *f = t->server->chat;
  const bool tools = t->ask.tools && t->ask.choice != MN_TOOLS_NONE;
  if (tools && !mn_template_mentions(mn_chat_format_template(f), "tools"))
    return mn_refuse(why, 400, "tools", "unsupported_parameter", "this model's chat template has no place for tools");
  if (mn_chat_check_values(f, t->ask.template_values) != MN_OK)
    return mn_refuse(why, 400, "chat_template_kwargs", "invalid_value", "%s", mn_message());
  const mn_chat_request r = {.messages = messages, .tools = tools ? t->ask.tools : NULL, .values = t->ask.template_values, .answers = true};
  const mn_chat_known known = {.tokens = t->known.data, .n_tokens = (int64_t)t->known.len};
  if (!check_shown(t, &r, why)) return false;
  const mn_status status = mn_chat_tokens_on(f, &r, &known, NULL, out);
  if (status == MN_ERR_MEMORY) return no_memory(why);
  return status == MN_OK || mn_refuse(why, 400, talk_prompt_key(&t->ask), "invalid_value", "%s", mn_message());
}

/* The one prompt of a chat: its messages, as the template writes them. */
static bool render(mn_talk *t, mn_refusal *why) {
  const char *note = t->note.data ? t->note.data : "";
  const mn_value *messages = mn_ask_messages(t->arena, t->ask.messages, why);
  mn_ids ids = {0};
  if (!messages || (!t->ask.session && !mn_ask_check_results(t->arena, messages, talk_prompt_key(&t->ask), why))) return false;
  if (t->ask.session) {
    messages = t->ask.previous ? mn_kept_after(t->arena, note, messages) : mn_kept_messages(t->arena, note, messages);
    if (!messages || mn_kept_open_note(note, messages, &t->next_note) != MN_OK) return no_memory(why);
  }
  bool good = tokens_of(t, messages, &ids, why);
  mn_ask_prompt *p = good ? mn_arena_alloc(t->arena, sizeof *p) : NULL;
  int32_t *copy = good ? mn_arena_alloc(t->arena, (ids.len + 1) * sizeof *copy) : NULL;
  if (good && (!p || !copy)) good = no_memory(why);
  if (good) {
    if (ids.len) memcpy(copy, ids.data, ids.len * sizeof *copy);
    *p = (mn_ask_prompt){.ids = copy, .n_ids = (int64_t)ids.len};
    t->ask.prompts = p, t->ask.n_prompts = 1;
  }
  mn_ids_free(&ids);
  return good;
}

/* What ends answers: tokens, and of a chat, where no token does, a text. Answers of a form that is asked for are whole without that. */
static bool want_ends(mn_talk *t, mn_refusal *why) {
  mn_manner *m = &t->ask.manner;
  const mn_bundle *bundle = t->server->config.bundle;
  const bool chat = t->ask.kind == MN_ASK_CHAT;
  if (t->ask.ignore_eos) return true;
  if (chat) m->n_ends = mn_chat_end_tokens(t->server->chat, &m->ends);
  else m->ends = bundle->speech.eos, m->n_ends = bundle->speech.n_eos;
  const char *text = chat ? mn_chat_end_text(t->server->chat) : "";
  if (!*text || m->machine) return true;
  const char **stops = mn_arena_alloc(t->arena, (size_t)(m->n_stops + 1) * sizeof *stops);
  if (!stops) return no_memory(why);
  for (int i = 0; i < m->n_stops; i++) stops[i] = m->stops[i];
  stops[m->n_stops++] = text;
  m->stops = stops;
  return true;
}

static bool set_up(mn_talk *t, mn_refusal *why) {
  mn_ask *a = &t->ask;
  if (!a->seeded && getrandom(&a->manner.sampling.seed, sizeof a->manner.sampling.seed, 0) < 0)
    a->manner.sampling.seed = (int64_t)mn_hash_str(t->id);
  if (!want_form(t, why) || !want_ends(t, why)) return false;
  if (a->kind == MN_ASK_CHAT && !render(t, why)) return false;
  t->n_parts = a->n_prompts;
  t->n_choices = a->n_prompts * a->n;
  t->parts = mn_calloc((size_t)t->n_parts, sizeof *t->parts);
  t->choices = mn_calloc((size_t)t->n_choices, sizeof *t->choices);
  if (!t->parts || !t->choices) return no_memory(why);
  for (int64_t i = 0; i < t->n_parts; i++)
    if (atomic_load(&t->gone) || !encode(t, i, why)) return false;
  return true;
}

static void echo(mn_talk *t) {
  for (int64_t i = 0; i < t->n_choices; i++) {
    const mn_ids *ids = &t->parts[i / t->ask.n].ids;
    choice *c = &t->choices[i];
    mn_text text = {0};
    if (t->ask.manner.top >= 0) mn_answer_log_first(&c->logs, t->server->config.bundle->tokenizer, ids->data[0]);
    if (mn_tokenizer_decode(t->server->config.bundle->tokenizer, ids->data, ids->len, true, &text) == MN_OK) {
      if (t->ask.stream) talk_send(t, i, text.data ? text.data : "", text.len, false);
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

static bool post_all(mn_talk *t, mn_refusal *why) {
  for (int64_t i = 0; i < t->n_parts; i++) {
    part *p = &t->parts[i];
    bool full;
    *p = (part){.talk = t, .ids = p->ids, .index = i};
    p->task.prompt = p->ids.data, p->task.n_prompt = (int64_t)p->ids.len, p->task.answers = t->ask.n;
    p->task.manner = t->ask.manner;
    p->task.manner.most = most_of(t, i);
    p->task.client = t->client;
    p->task.told = told, p->task.ended = ended, p->task.over = over, p->task.ctx = p;
    if (t->ask.echo && t->ask.manner.top >= 0) p->task.heard = heard;
    const bool lends = !t->ask.session && !p->task.heard && p->task.n_prompt >= WORTH;
    if (lends) p->task.take = borrow, p->task.give = lay_down, p->task.lends = true;
    if (t->ask.session) p->task.take = take, p->task.give = give, p->task.appends = t->ask.kind == MN_ASK_COMPLETION;
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
  if (why->status == 429) t->server->metrics.refused++;
  if (why->status == 429 || why->status == 503) mn_exchange_header(x, "Retry-After", "1");
  mn_exchange_on_leave(x, NULL, NULL);
  mn_serve_refuse(x, why);
  if (t->open) cancel(t); /* those of its prompts that wait already; the last of them frees it */
  else talk_free(t);
}

/* ---- reading what it asks for ---- */
static void is_read(void *talk);

static void told_loop(mn_talk *t) {
  if (!mn_web_post(t->server->web, is_read, t)) mn_log_write(MN_LOG_ERROR, "out of memory: a client waits in vain");
}

static bool wants_session(const mn_ask *a) { return a->session || a->store || a->previous; }

/* By a reader: the body, and where no session must be looked at first, the prompts. */
static void read_body(void *talk) {
  mn_talk *t = talk;
  const mn_server *s = t->server;
  const int64_t rows = mn_batcher_rows(s->batcher);
  const int64_t waiting = s->config.waiting; /* more prompts than may wait would never fit */
  const mn_ask_limits limits = {s->config.bundle->model->config.vocab_size, rows < 128 ? rows : 128, waiting < 128 ? (int)waiting : 128,
                                INT32_MAX};
  t->fine = !atomic_load(&t->gone) && mn_ask_read(t->arena, t->ask.kind, t->body ? t->body : "", t->n_body, &limits, &t->ask, &t->why) &&
            mn_serve_check_model(s, &t->ask, &t->why) && !atomic_load(&t->gone);
  free(t->body);
  t->body = NULL;
  t->is_set_up = t->fine && !wants_session(&t->ask);
  if (t->is_set_up) t->fine = set_up(t, &t->why);
  told_loop(t);
}

static void read_prompts(void *talk) {
  mn_talk *t = talk;
  t->is_set_up = true;
  t->fine = !atomic_load(&t->gone) && set_up(t, &t->why);
  told_loop(t);
}

static void have_read(mn_talk *t, void (*fn)(void *talk)) {
  mn_readers *r = t->server->readers;
  bool full = false;
  t->read = true;
  if ((fn == read_body ? mn_readers_ask(r, fn, t, &full) : mn_readers_post(r, fn, t)) == MN_OK) return;
  t->read = false;
  if (full) mn_refuse(&t->why, 429, NULL, "queue_full", "the server is busy: %s; try again later", mn_message());
  else no_memory(&t->why);
  refuse_talk(t, &t->why);
}

static void note_is_read(void *talk) { /* in the loop */
  mn_talk *t = talk;
  t->open = 0;
  if (t->x && t->lost && !t->why.status)
    mn_refuse(&t->why, 404, "previous_response_id", "previous_response_not_found",
              "there is no response of that id here: those are kept that were asked for with \"store\": true, as long as there is room");
  else if (t->x && !t->server->batcher) mn_refuse(&t->why, 503, NULL, NULL, "the server is ending");
  if (!t->x) talk_free(t);
  else if (t->why.status) refuse_talk(t, &t->why);
  else have_read(t, read_prompts);
}

static void read_note(void *talk) { /* in the worker */
  mn_talk *t = talk;
  const char *name = t->ask.previous ? t->ask.previous : t->ask.session;
  mn_status status = mn_shelf_note(t->server->shelf, t->owner, name, &t->note);
  if (status == MN_OK && t->ask.kind == MN_ASK_CHAT) status = mn_shelf_tokens(t->server->shelf, t->owner, name, &t->known);
  if (status != MN_OK) mn_refuse(&t->why, mn_serve_http_status(status), session_key(&t->ask), NULL, "%s", mn_message());
  t->lost = t->ask.previous && !t->note.len;
  if (!mn_web_post(t->server->web, note_is_read, t)) mn_log_write(MN_LOG_ERROR, "out of memory: a client waits in vain");
}

static bool check_session(mn_talk *t, mn_refusal *why) {
  mn_ask *a = &t->ask;
  if (a->store || a->previous) a->session = t->id;
  const char *name = a->previous ? a->previous : a->session;
  if (!mn_kept_name(name, why)) {
    snprintf(why->param, sizeof why->param, "%s", session_key(a));
    return false;
  }
  if (a->n != 1 || (a->kind == MN_ASK_COMPLETION && a->n_prompts != 1))
    return mn_refuse(why, 400, "session_id", "invalid_value", "a session goes on with one prompt and one answer");
  uint64_t holder;
  mn_shelf_has(t->server->shelf, t->owner, name, &holder);
  for (const mn_talk *other = t->server->talks; other; other = other->next)
    if (other != t && other->holds && other->holder == holder && !strcmp(other->holds, name))
      return mn_refuse(why, 409, session_key(a), "session_busy", "session '%s' is answering another request", name);
  t->holds = a->session, t->holder = a->previous ? t->owner : holder;
  return true;
}

/* In the loop, behind a reader: it is refused, its session is looked at, or its prompts wait for their turn. */
static void is_read(void *talk) {
  mn_talk *t = talk;
  mn_server *s = t->server;
  t->read = false;
  const bool ending = !s->batcher || (s->drains_until > 0 && mn_now() >= s->drains_until);
  if (t->fine && ending) t->fine = mn_refuse(&t->why, 503, NULL, NULL, "the server is ending");
  else if (t->fine && t->timed_out) t->fine = mn_refuse(&t->why, 503, NULL, NULL, "the answer took longer than this server allows");
  if (!t->x) {
    talk_free(t);
    return;
  }
  if (t->fine && t->is_set_up) mn_serve_name_labels(t->x, &t->ask);
  if (t->fine && !t->is_set_up) {
    t->fine = check_session(t, &t->why);
    t->open = t->fine; /* the look at the note */
    if (t->fine && mn_batcher_call(s->batcher, read_note, t) == MN_OK) return;
    t->open = 0;
    if (t->fine) t->fine = no_memory(&t->why);
  }
  if (!t->fine || !post_all(t, &t->why)) refuse_talk(t, &t->why);
  else if (t->ask.echo) echo(t);
}

void mn_serve_generate(mn_server *s, const mn_request *r, mn_ask_kind kind) {
  mn_refusal why = {0};
  mn_talk *t = mn_calloc(1, sizeof *t);
  if (t)
    *t = (mn_talk){.server = s,
                   .x = r->x,
                   .arena = mn_arena_new(),
                   .ask = {.kind = kind},
                   .client = r->client,
                   .owner = r->owner,
                   .created = time(NULL),
                   .began = mn_now(),
                   .next = s->talks};
  if (!t || !t->arena) {
    free(t);
    mn_serve_failed(r->x, MN_ERR_MEMORY, "out of memory");
    return;
  }
  s->talks = t;
  snprintf(t->id, sizeof t->id, "%s%012llx%08llx",
           kind == MN_ASK_CHAT       ? "chatcmpl-"
           : kind == MN_ASK_RESPONSE ? "resp_"
                                     : "cmpl-",
           (unsigned long long)(s->salt & 0xffffffffffff), (unsigned long long)s->number++);
  if (!s->config.bundle->tokenizer || !mn_batcher_program(s->batcher))
    mn_refuse(&why, 400, "model", "unsupported_model", "this model makes no text");
  else if (kind != MN_ASK_COMPLETION && !s->chat)
    mn_refuse(&why, 400, "model", "unsupported_model",
              "this model has no chat template: ask /v1/completions, or give it one with --chat-template");
  if (why.status) {
    refuse_talk(t, &why);
    return;
  }
  t->body = mn_exchange_take_body(r->x, &t->n_body);
  mn_exchange_on_leave(t->x, talk_left, t);
  have_read(t, read_body);
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
