/* answer.c - see answer.h. */
#include "serve/answer.h"

#include <string.h>

#include "format/json.h"

void mn_answer_quote(mn_text *out, const char *s, size_t n) {
  mn_text clean = {0};
  mn_text_add_utf8(&clean, s, n);
  mn_text_add(out, "\"");
  for (size_t i = 0; i < clean.len; i++) {
    const unsigned char c = (unsigned char)clean.data[i];
    if (c == '"' || c == '\\') mn_text_addf(out, "\\%c", c);
    else if (c == '\n') mn_text_add(out, "\\n");
    else if (c < 0x20) mn_text_addf(out, "\\u%04x", c);
    else mn_text_add_bytes(out, clean.data + i, 1);
  }
  mn_text_add(out, "\"");
  out->failed = out->failed || clean.failed;
  mn_text_free(&clean);
}

/* ---- log-probabilities ---- */
static void comma(mn_text *out) {
  if (out->len) mn_text_add(out, ", ");
}

/* A chance of 0 has no JSON: OpenAI's interface writes -9999 for it. */
static void add_log_p(mn_text *out, double x) { mn_json_real(out, x > -9999 ? x : -9999.0); }

static const char *bytes_of(const mn_tokenizer *tok, int32_t id, size_t *n) {
  const char *bytes = mn_tokenizer_token(tok, id, n);
  if (!bytes) *n = 0;
  return bytes ? bytes : "";
}

static void add_entry(mn_text *out, const mn_tokenizer *tok, int32_t id, double log_p) { /* without its closing brace */
  size_t n;
  const char *bytes = bytes_of(tok, id, &n);
  mn_text_add(out, "{\"token\": ");
  mn_answer_quote(out, bytes, n);
  mn_text_add(out, ", \"logprob\": ");
  add_log_p(out, log_p);
  mn_text_add(out, ", \"bytes\": [");
  for (size_t i = 0; i < n; i++) mn_text_addf(out, "%s%d", i ? ", " : "", (unsigned char)bytes[i]);
  mn_text_add(out, "]");
}

static int64_t characters(const char *s, size_t n) {
  int64_t out = 0;
  for (size_t i = 0; i < n; i++) out += ((unsigned char)s[i] & 0xc0) != 0x80;
  return out;
}

void mn_answer_log(mn_answer_logs *l, mn_ask_kind kind, const mn_tokenizer *tok, const mn_said *said) {
  size_t n;
  const char *bytes = bytes_of(tok, said->token, &n);
  if (kind == MN_ASK_CHAT) {
    comma(&l->content);
    add_entry(&l->content, tok, said->token, said->log_p);
    mn_text_add(&l->content, ", \"top_logprobs\": [");
    for (int i = 0; i < said->n_top; i++) {
      if (i) mn_text_add(&l->content, ", ");
      add_entry(&l->content, tok, said->top[i], said->top_log_p[i]);
      mn_text_add(&l->content, "}");
    }
    mn_text_add(&l->content, "]}");
  } else {
    comma(&l->tokens), comma(&l->log_p), comma(&l->top), comma(&l->offset);
    mn_answer_quote(&l->tokens, bytes, n);
    add_log_p(&l->log_p, said->log_p);
    mn_text_add(&l->top, "{");
    for (int i = 0; i < said->n_top; i++) {
      size_t m;
      const char *other = bytes_of(tok, said->top[i], &m);
      if (i) mn_text_add(&l->top, ", ");
      mn_answer_quote(&l->top, other, m);
      mn_text_add(&l->top, ": ");
      add_log_p(&l->top, said->top_log_p[i]);
    }
    mn_text_add(&l->top, "}");
    mn_text_addf(&l->offset, "%lld", (long long)l->at);
  }
  l->at += characters(bytes, n);
  l->n++;
}

void mn_answer_log_first(mn_answer_logs *l, const mn_tokenizer *tok, int32_t token) {
  size_t n;
  const char *bytes = bytes_of(tok, token, &n);
  mn_answer_quote(&l->tokens, bytes, n);
  mn_text_add(&l->log_p, "null"), mn_text_add(&l->top, "null"), mn_text_addf(&l->offset, "%lld", (long long)l->at);
  l->at += characters(bytes, n);
  l->n++;
}

void mn_answer_logs_clear(mn_answer_logs *l) {
  l->tokens.len = l->log_p.len = l->top.len = l->offset.len = l->content.len = 0;
  l->n = 0;
}

void mn_answer_logs_free(mn_answer_logs *l) {
  mn_text_free(&l->tokens), mn_text_free(&l->log_p), mn_text_free(&l->top), mn_text_free(&l->offset), mn_text_free(&l->content);
}

static void add_list(mn_text *out, const char *name, const mn_text *list) {
  mn_text_addf(out, "\"%s\": [", name);
  mn_text_add_bytes(out, list->data ? list->data : "", list->len);
  mn_text_add(out, "]");
}

static void add_logs(mn_text *out, mn_ask_kind kind, const mn_answer_logs *l) {
  mn_text_add(out, ", \"logprobs\": ");
  if (!l || !l->n) {
    mn_text_add(out, "null");
    return;
  }
  mn_text_add(out, "{");
  if (kind == MN_ASK_CHAT) {
    add_list(out, "content", &l->content);
    mn_text_add(out, ", \"refusal\": null");
  } else {
    add_list(out, "tokens", &l->tokens), mn_text_add(out, ", ");
    add_list(out, "token_logprobs", &l->log_p), mn_text_add(out, ", ");
    add_list(out, "top_logprobs", &l->top), mn_text_add(out, ", ");
    add_list(out, "text_offset", &l->offset);
  }
  mn_text_add(out, "}");
}

/* ---- replies ---- */
static void add_message(mn_text *out, const mn_answer_head *h, const mn_answer_choice *c) {
  mn_text_addf(out, "\"%s\": {", h->stream ? "delta" : "message");
  if (!h->stream || c->begins) mn_text_add(out, "\"role\": \"assistant\", ");
  if (!h->stream || c->begins || c->n || (c->calls && !c->begins)) {
    mn_text_add(out, "\"content\": ");
    if (c->calls && !c->n) mn_text_add(out, "null");
    else mn_answer_quote(out, c->text, c->n);
  }
  if (c->calls) mn_text_addf(out, ", \"tool_calls\": ["), mn_text_add(out, c->calls), mn_text_add(out, "]");
  if (!h->stream) mn_text_add(out, ", \"refusal\": null");
  mn_text_add(out, "}");
}

static void add_choice(mn_text *out, const mn_answer_head *h, const mn_answer_choice *c) {
  mn_text_addf(out, "{\"index\": %lld, ", (long long)c->index);
  if (h->kind == MN_ASK_CHAT) add_message(out, h, c);
  else mn_text_add(out, "\"text\": "), mn_answer_quote(out, c->text, c->n);
  add_logs(out, h->kind, c->logs);
  mn_text_add(out, ", \"finish_reason\": ");
  if (c->finish) mn_json_quote(out, c->finish);
  else mn_text_add(out, "null");
  mn_text_add(out, "}");
}

void mn_answer_write(mn_text *out, const mn_answer_head *h, const mn_answer_choice *choices, int64_t n, const mn_answer_usage *usage) {
  const char *object = h->kind != MN_ASK_CHAT ? "text_completion" : h->stream ? "chat.completion.chunk" : "chat.completion";
  mn_text_addf(out, "{\"id\": \"%s\", \"object\": \"%s\", \"created\": %lld, \"model\": ", h->id, object, (long long)h->created);
  mn_json_quote(out, h->model);
  mn_text_add(out, ", \"choices\": [");
  for (int64_t i = 0; i < n; i++) {
    if (i) mn_text_add(out, ", ");
    add_choice(out, h, &choices[i]);
  }
  mn_text_add(out, "]");
  if (usage)
    mn_text_addf(out,
                 ", \"usage\": {\"prompt_tokens\": %lld, \"completion_tokens\": %lld, \"total_tokens\": %lld, "
                 "\"prompt_tokens_details\": {\"cached_tokens\": %lld}}",
                 (long long)usage->prompt, (long long)usage->made, (long long)(usage->prompt + usage->made), (long long)usage->cached);
  else if (h->stream && h->usage) mn_text_add(out, ", \"usage\": null");
  mn_text_add(out, "}");
}
