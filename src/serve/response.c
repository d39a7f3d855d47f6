/* response.c - see response.h. */
#include "serve/response.h"

#include <string.h>

#include "format/json.h"

/* ---- items ---- */
/* What ids of items end with: the response's own, without the word before it. */
static const char *number_of(const mn_response *r) {
  const char *at = strchr(r->id, '_');
  return at ? at + 1 : r->id;
}

static void add_part(mn_text *out, const char *text, size_t n) {
  mn_text_add(out, "{\"type\": \"output_text\", \"annotations\": [], \"logprobs\": [], \"text\": ");
  mn_answer_quote(out, text, n);
  mn_text_add(out, "}");
}

/* content: with what was said; else an item that begins. */
static void add_message(mn_text *out, const mn_response *r, const char *status, bool content) {
  mn_text_addf(out, "{\"type\": \"message\", \"id\": \"msg_%s\", \"role\": \"assistant\", \"status\": \"%s\", \"content\": [", number_of(r),
               status);
  if (content) add_part(out, r->text, r->n);
  mn_text_add(out, "]}");
}

static void add_call(mn_text *out, const mn_response *r, int k, const char *status, bool whole) {
  const char *arguments = whole ? r->calls[k].arguments : "";
  mn_text_addf(out, "{\"type\": \"function_call\", \"id\": \"fc_%s_%d\", \"call_id\": \"call_%s_%d\", \"status\": \"%s\", \"name\": ",
               number_of(r), k, number_of(r), k, status);
  mn_answer_quote(out, r->calls[k].name, strlen(r->calls[k].name));
  mn_text_add(out, ", \"arguments\": ");
  mn_answer_quote(out, arguments, strlen(arguments));
  mn_text_add(out, "}");
}

/* Is there an item of text? One that says nothing stands where there are no calls. */
static bool has_message(const mn_response *r) { return r->n || !r->n_calls; }

/* ---- whole ---- */
/* What was asked for, as it was asked. */
static void add_asked(mn_text *out, const mn_response *r, const char *key, const char *otherwise) {
  const mn_value *v = mn_value_get(r->ask->asked, key);
  mn_text_addf(out, ", \"%s\": ", key);
  if (!v || v->kind == MN_NULL) mn_text_add(out, otherwise);
  else if (mn_value_to_json(v, 0, out) != MN_OK) out->failed = true;
}

static void add_usage(mn_text *out, const mn_answer_usage *u) {
  if (!u) {
    mn_text_add(out, ", \"usage\": null");
    return;
  }
  mn_text_addf(out,
               ", \"usage\": {\"input_tokens\": %lld, \"input_tokens_details\": {\"cached_tokens\": %lld}, \"output_tokens\": %lld, "
               "\"output_tokens_details\": {\"reasoning_tokens\": 0}, \"total_tokens\": %lld}",
               (long long)u->prompt, (long long)u->cached, (long long)u->made, (long long)(u->prompt + u->made));
}

void mn_response_write(mn_text *out, const mn_response *r) {
  static const char *const states[] = {"in_progress", "completed", "incomplete", "failed"};
  const char *status = r->state == MN_RESPONSE_CUT ? "incomplete" : "completed";
  mn_text_addf(out, "{\"id\": \"%s\", \"object\": \"response\", \"created_at\": %lld, \"status\": \"%s\", \"error\": ", r->id,
               (long long)r->created, states[r->state]);
  if (r->state == MN_RESPONSE_FAILED) {
    mn_text_add(out, "{\"code\": \"server_error\", \"message\": ");
    mn_answer_quote(out, r->why, strlen(r->why));
    mn_text_add(out, "}");
  } else mn_text_add(out, "null");
  mn_text_addf(out,
               ", \"incomplete_details\": %s, \"model\": ", r->state == MN_RESPONSE_CUT ? "{\"reason\": \"max_output_tokens\"}" : "null");
  mn_json_quote(out, r->model);
  mn_text_add(out, ", \"output\": [");
  const bool over = r->state == MN_RESPONSE_WHOLE || r->state == MN_RESPONSE_CUT, message = over && has_message(r);
  if (message) add_message(out, r, status, true);
  for (int k = 0; over && k < r->n_calls; k++) {
    if (k || message) mn_text_add(out, ", ");
    add_call(out, r, k, status, true);
  }
  mn_text_add(out, "]");
  add_asked(out, r, "instructions", "null"), add_asked(out, r, "max_output_tokens", "null"), add_asked(out, r, "metadata", "{}");
  add_asked(out, r, "parallel_tool_calls", "true"), add_asked(out, r, "previous_response_id", "null"), add_asked(out, r, "store", "false");
  add_asked(out, r, "temperature", "1.0"), add_asked(out, r, "top_p", "1.0"),
      add_asked(out, r, "text", "{\"format\": {\"type\": \"text\"}}");
  add_asked(out, r, "tool_choice", "\"auto\""), add_asked(out, r, "tools", "[]"), add_asked(out, r, "truncation", "\"disabled\"");
  add_usage(out, r->usage);
  mn_text_add(out, "}");
}

/* ---- events ---- */
static void open_event(mn_text *out, mn_response_stream *s, const char *type) {
  mn_text_addf(out, "event: response.%s\ndata: {\"type\": \"response.%s\", \"sequence_number\": %lld", type, type, (long long)s->number++);
}
static void close_event(mn_text *out) { mn_text_add(out, "}\n\n"); }

static void whole_event(mn_text *out, mn_response_stream *s, const mn_response *r, const char *type) {
  open_event(out, s, type);
  mn_text_add(out, ", \"response\": ");
  mn_response_write(out, r);
  close_event(out);
}

static void open_part(mn_text *out, mn_response_stream *s, const mn_response *r, const char *type) {
  open_event(out, s, type);
  mn_text_addf(out, ", \"item_id\": \"msg_%s\", \"output_index\": 0, \"content_index\": 0", number_of(r));
}

static void open_message(mn_text *out, mn_response_stream *s, const mn_response *r) {
  if (s->message) return;
  s->message = true;
  open_event(out, s, "output_item.added");
  mn_text_add(out, ", \"output_index\": 0, \"item\": ");
  add_message(out, r, "in_progress", false);
  close_event(out);
  open_part(out, s, r, "content_part.added");
  mn_text_add(out, ", \"part\": ");
  add_part(out, "", 0);
  close_event(out);
}

static void close_message(mn_text *out, mn_response_stream *s, const mn_response *r, const char *status) {
  open_part(out, s, r, "output_text.done");
  mn_text_add(out, ", \"logprobs\": [], \"text\": ");
  mn_answer_quote(out, r->text, r->n);
  close_event(out);
  open_part(out, s, r, "content_part.done");
  mn_text_add(out, ", \"part\": ");
  add_part(out, r->text, r->n);
  close_event(out);
  open_event(out, s, "output_item.done");
  mn_text_add(out, ", \"output_index\": 0, \"item\": ");
  add_message(out, r, status, true);
  close_event(out);
}

static void say_call(mn_text *out, mn_response_stream *s, const mn_response *r, int k, const char *status) {
  static const char *const types[] = {"function_call_arguments.delta", "function_call_arguments.done"};
  static const char *const keys[] = {"delta", "arguments"};
  const int index = k + s->message;
  open_event(out, s, "output_item.added");
  mn_text_addf(out, ", \"output_index\": %d, \"item\": ", index);
  add_call(out, r, k, "in_progress", false);
  close_event(out);
  for (int i = 0; i < 2; i++) {
    open_event(out, s, types[i]);
    mn_text_addf(out, ", \"item_id\": \"fc_%s_%d\", \"output_index\": %d, \"%s\": ", number_of(r), k, index, keys[i]);
    mn_answer_quote(out, r->calls[k].arguments, strlen(r->calls[k].arguments));
    if (i) mn_text_add(out, ", \"name\": "), mn_answer_quote(out, r->calls[k].name, strlen(r->calls[k].name));
    close_event(out);
  }
  open_event(out, s, "output_item.done");
  mn_text_addf(out, ", \"output_index\": %d, \"item\": ", index);
  add_call(out, r, k, status, true);
  close_event(out);
}

void mn_response_begin(mn_text *out, mn_response_stream *s, const mn_response *r) {
  whole_event(out, s, r, "created");
  whole_event(out, s, r, "in_progress");
}

void mn_response_say(mn_text *out, mn_response_stream *s, const mn_response *r, const char *text, size_t n) {
  if (!n) return;
  open_message(out, s, r);
  mn_text_add_bytes(&s->said, text, n);
  open_part(out, s, r, "output_text.delta");
  mn_text_add(out, ", \"logprobs\": [], \"delta\": ");
  mn_answer_quote(out, text, n);
  close_event(out);
}

void mn_response_end(mn_text *out, mn_response_stream *s, const mn_response *r) {
  const char *status = r->state == MN_RESPONSE_CUT ? "incomplete" : "completed";
  if (r->state == MN_RESPONSE_FAILED) {
    whole_event(out, s, r, "failed");
    return;
  }
  if (has_message(r)) open_message(out, s, r), close_message(out, s, r, status);
  for (int k = 0; k < r->n_calls; k++) say_call(out, s, r, k, status);
  whole_event(out, s, r, r->state == MN_RESPONSE_CUT ? "incomplete" : "completed");
  out->failed = out->failed || s->said.failed;
}
