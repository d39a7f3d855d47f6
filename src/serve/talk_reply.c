/* talk_reply.c - what the worker tells becomes a reply: whole, or a stream of events (SSE). */
#include <stdlib.h>
#include <string.h>

#include "serve/talk_internal.h"
#include "serve/tools.h"

enum { BEHIND = 8 << 20 }; /* bytes that a client may leave untaken */

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

/* ---- responses ---- */
static mn_response response_of(const mn_talk *t) {
  const choice *c = &t->choices[0];
  return (mn_response){.id = t->id,
                       .model = t->server->config.name,
                       .created = t->created,
                       .ask = &t->ask,
                       .text = t->events.said.data ? t->events.said.data : "",
                       .n = t->events.said.len,
                       .calls = c->calls,
                       .n_calls = c->n_calls};
}

static void send_events(mn_talk *t, mn_text *events) {
  if (!events->failed && events->len) mn_exchange_send(t->x, events->data, events->len);
  mn_text_free(events);
}

static void begin_stream(mn_talk *t) {
  if (t->started) return;
  t->started = true;
  mn_exchange_header(t->x, "Cache-Control", "no-cache");
  mn_exchange_begin(t->x, 200, "text/event-stream");
  if (!t->ask.response) return;
  mn_text out = {0};
  const mn_response r = response_of(t);
  mn_response_begin(&out, &t->events, &r);
  send_events(t, &out);
}

static void say_response(mn_talk *t, const char *text, size_t n) {
  mn_text out = {0};
  const mn_response r = response_of(t);
  begin_stream(t);
  mn_response_say(&out, &t->events, &r, text, n);
  send_events(t, &out);
}

static void end_response(mn_talk *t, const mn_answer_usage *usage, const char *why) {
  mn_text out = {0};
  mn_response r = response_of(t);
  r.usage = usage, r.why = why;
  r.state = why ? MN_RESPONSE_FAILED : t->choices[0].ending == MN_END_STOP ? MN_RESPONSE_WHOLE : MN_RESPONSE_CUT;
  mn_response_end(&out, &t->events, &r);
  send_events(t, &out);
}

/* ---- pieces of a chat or a completion ---- */

static const char *finish_of(const choice *c) {
  return c->ending == MN_END_NOT_YET ? NULL : c->ending != MN_END_STOP ? "length" : c->n_calls ? "tool_calls" : "stop";
}

/* The one function that must be called; NULL: there are several. */
static const char *only_function(const mn_ask *a) {
  if (a->function || a->tools->count != 1) return a->function;
  return mn_value_get(mn_value_get(a->tools->as.items[0], "function"), "name")->as.text;
}

/* What was said, looked at for calls of functions; how many bytes are text before them. An answer that was cut may end in a call that is not whole,
 * and one that must be a call is no text, however little of it is there. */
static size_t find_calls(mn_talk *t, choice *c) {
  mn_tool_call calls[MN_TOOL_CALLS], *kept;
  size_t content = c->text.len;
  const bool must = t->ask.choice == MN_TOOLS_MUST;
  if (!t->ask.tools || t->ask.choice == MN_TOOLS_NONE || (!must && !c->text.len)) return content;
  const char *text = c->text.data ? c->text.data : "", *only = must ? only_function(&t->ask) : NULL;
  int n = mn_tools_find(t->arena, t->ask.tools, text, c->text.len, must || c->ending != MN_END_STOP, calls, &content);
  if (n > 1 && t->ask.one_call) n = 1;
  if (!n && only) calls[n++] = (mn_tool_call){only, ""};
  if (!n || !(kept = mn_arena_alloc(t->arena, (size_t)n * sizeof *kept))) return must ? 0 : c->text.len;
  memcpy(kept, calls, (size_t)n * sizeof *kept);
  c->calls = kept, c->n_calls = n;
  return must ? 0 : content;
}

/* Them as items of a list; NULL: there are none. */
static const char *calls_of(mn_talk *t, const choice *c) {
  mn_text out = {0};
  for (int k = 0; k < c->n_calls; k++) {
    mn_text_addf(&out, "%s{", k ? ", " : "");
    if (t->ask.stream) mn_text_addf(&out, "\"index\": %d, ", k);
    mn_text_addf(&out, "\"id\": \"call_%s_%d\", \"type\": \"function\", \"function\": {\"name\": ", t->id + strlen("chatcmpl-"), k);
    mn_answer_quote(&out, c->calls[k].name, strlen(c->calls[k].name));
    mn_text_add(&out, ", \"arguments\": ");
    mn_answer_quote(&out, c->calls[k].arguments, strlen(c->calls[k].arguments));
    mn_text_add(&out, "}}");
  }
  const char *list = c->n_calls && !out.failed ? mn_arena_strdup(t->arena, out.data) : NULL;
  mn_text_free(&out);
  return list;
}

static void send(mn_talk *t, int64_t i, const char *text, size_t n, const char *calls, bool last) {
  choice *c = &t->choices[i];
  if (t->ask.response) {
    say_response(t, text, n);
    return;
  }
  const mn_answer_head head = head_of(t);
  const mn_answer_choice one = {i, text, n, !c->begun, t->ask.manner.top >= 0 ? &c->logs : NULL, calls, last ? finish_of(c) : NULL};
  mn_text out = {0};
  begin_stream(t);
  mn_answer_write(&out, &head, &one, 1, NULL);
  if (!out.failed) send_event(t, out.data, out.len);
  c->begun = true;
  mn_answer_logs_clear(&c->logs);
  mn_text_free(&out);
}

void talk_send(mn_talk *t, int64_t i, const char *text, size_t n, bool last) { send(t, i, text, n, NULL, last); }

/* With tools, what may be the beginning of a call is held back. */
static void send_certain(mn_talk *t, int64_t i) {
  choice *c = &t->choices[i];
  const size_t n = c->text.len ? mn_tools_certain(c->text.data, c->text.len) : 0;
  if (!n && !c->logs.n) return;
  talk_send(t, i, n ? c->text.data : "", n, false);
  if (!n) return;
  memmove(c->text.data, c->text.data + n, c->text.len - n);
  c->text.len -= n;
}

static void end_stream(mn_talk *t, int64_t i) {
  choice *c = &t->choices[i];
  const size_t n = find_calls(t, c);
  const char *calls = calls_of(t, c);
  if (n) send(t, i, c->text.data, n, NULL, false);
  if (calls) send(t, i, "", 0, calls, false);
  talk_send(t, i, "", 0, true);
}

/* ---- what the worker tells ---- in the loop */
static void told(mn_talk *t, const event_of *e, int64_t i) {
  choice *c = &t->choices[i];
  if (e->has_said) mn_answer_log(&c->logs, t->ask.kind, t->server->config.bundle->tokenizer, &e->said);
  const bool tools = t->ask.tools && t->ask.choice != MN_TOOLS_NONE;
  if (!t->ask.stream || tools) mn_text_add_bytes(&c->text, e->text, e->n);
  if (t->ask.stream && tools) send_certain(t, i);
  else if (!t->ask.stream) return;
  else if (e->n || e->has_said) talk_send(t, i, e->text, e->n, false);
  if (mn_exchange_behind(t->x) > BEHIND) { /* a client that does not read */
    mn_exchange_drop(t->x);
    talk_left(t);
  }
}

static mn_answer_usage usage_of(const mn_talk *t) {
  mn_answer_usage u = {0};
  for (int64_t i = 0; i < t->n_parts; i++)
    u.prompt += (int64_t)t->parts[i].ids.len, u.made += t->parts[i].task.made, u.cached += t->parts[i].task.cached;
  return u;
}

static void finish_stream(mn_talk *t) {
  begin_stream(t);
  if (t->ask.response) {
    const mn_answer_usage usage = usage_of(t);
    end_response(t, &usage, NULL);
    mn_exchange_end(t->x);
    return;
  }
  if (t->ask.include_usage) {
    const mn_answer_head head = head_of(t);
    const mn_answer_usage usage = usage_of(t);
    mn_text out = {0};
    mn_answer_write(&out, &head, NULL, 0, &usage);
    if (!out.failed) send_event(t, out.data, out.len);
    mn_text_free(&out);
  }
  send_event(t, "[DONE]", 6);
  mn_exchange_end(t->x);
}

static void whole_response(mn_talk *t, const mn_answer_usage *usage, mn_text *out) {
  choice *c = &t->choices[0];
  const size_t n = find_calls(t, c);
  mn_response r = response_of(t);
  r.text = c->text.data ? c->text.data : "", r.n = n, r.calls = c->calls, r.n_calls = c->n_calls, r.usage = usage;
  r.state = c->ending == MN_END_STOP ? MN_RESPONSE_WHOLE : MN_RESPONSE_CUT;
  mn_response_write(out, &r);
  out->failed = out->failed || c->text.failed;
}

static void finish_whole(mn_talk *t) {
  const mn_answer_head head = head_of(t);
  const mn_answer_usage usage = usage_of(t);
  mn_text out = {0};
  mn_answer_choice *list = mn_arena_alloc(t->arena, (size_t)t->n_choices * sizeof *list);
  for (int64_t i = 0; list && !t->ask.response && i < t->n_choices; i++) {
    choice *c = &t->choices[i];
    const size_t content = find_calls(t, c);
    const char *calls = calls_of(t, c), *text = c->text.data ? c->text.data : "";
    out.failed = out.failed || c->text.failed;
    list[i] = (mn_answer_choice){i, text, content, true, t->ask.manner.top >= 0 ? &c->logs : NULL, calls, finish_of(c)};
  }
  if (t->ask.response) whole_response(t, &usage, &out);
  else if (list) mn_answer_write(&out, &head, list, t->n_choices, &usage);
  mn_text_add(&out, "\n");
  if (!list || out.failed) mn_serve_failed(t->x, MN_ERR_MEMORY, "out of memory");
  else mn_exchange_reply(t->x, 200, "application/json", out.data, out.len);
  mn_text_free(&out);
}

/* A part failed: the client is told, once. */
static void fail(mn_talk *t, mn_status status, const char *why) {
  if (!t->x) return;
  mn_exchange_on_leave(t->x, NULL, NULL);
  if (!t->started && t->machine && mn_machine_status(t->machine) == status && status != MN_OK) {
    mn_refusal form;
    mn_refuse(&form, mn_serve_http_status(status), talk_form_key(t), "invalid_value", "%s", why);
    mn_serve_refuse(t->x, &form);
  } else if (!t->started && t->busy) {
    mn_refusal busy = {0};
    mn_refuse(&busy, 409, t->ask.previous ? "previous_response_id" : "session_id", "session_busy", "%s", why);
    mn_serve_refuse(t->x, &busy);
  } else if (!t->started && t->parts[0].task.no_room) {
    mn_refusal full;
    mn_refuse(&full, 400, talk_prompt_key(&t->ask), "context_length_exceeded", "%s", why);
    mn_serve_refuse(t->x, &full);
  } else if (!t->started) mn_serve_failed(t->x, status, why);
  else if (t->ask.response) {
    end_response(t, NULL, why);
    mn_exchange_end(t->x);
  } else {
    mn_text out = {0};
    mn_text_add(&out, "{\"error\": {\"message\": ");
    mn_answer_quote(&out, why, strlen(why));
    mn_text_add(&out, ", \"type\": \"server_error\", \"param\": null, \"code\": null}}");
    if (!out.failed) send_event(t, out.data, out.len);
    mn_text_free(&out);
    mn_exchange_end(t->x);
  }
  talk_left(t);
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
  talk_free(t);
}

void talk_deliver(void *arg) {
  event_of *e = arg;
  mn_talk *t = e->part->talk;
  const int64_t i = e->part->index * t->ask.n + e->answer;
  if (e->what == OVER) part_over(t, e);
  else if (t->x && e->what == TOLD) told(t, e, i);
  else if (t->x && e->what == HEARD)
    for (int64_t k = 0; k < t->ask.n; k++)
      mn_answer_log(&t->choices[i + k].logs, t->ask.kind, t->server->config.bundle->tokenizer, &e->said);
  else if (t->x) {
    t->choices[i].ending = e->ending;
    if (t->ask.stream) end_stream(t, i);
  }
  free(e);
}
