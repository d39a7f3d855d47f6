/* embeddings.c - texts as vectors: the worker reads them, the loop writes the reply. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "format/json.h"
#include "run/embedder.h"
#include "serve/answer.h"
#include "serve/server_internal.h"

typedef struct errand {
  mn_server *server;
  mn_exchange *x;   /* NULL: the client has left */
  atomic_bool gone; /* the same, for a reader */
  mn_arena *arena;
  char *body;
  size_t n_body;
  mn_refusal refusal; /* status 0: none */
  mn_ask ask;
  mn_ids *ids;    /* [n_prompts] */
  float *vectors; /* [n_prompts, D] */
  mn_status status;
  char why[600];
  mn_text out; /* the reply */
} errand;

static void left(void *arg) {
  errand *e = arg;
  e->x = NULL;
  atomic_store(&e->gone, true);
}

static void free_errand(errand *e) {
  for (int64_t i = 0; e->ids && i < e->ask.n_prompts; i++) mn_ids_free(&e->ids[i]);
  free(e->ids);
  free(e->vectors);
  free(e->body);
  mn_text_free(&e->out);
  mn_arena_free(e->arena);
  free(e);
}

/* ---- the reply ---- */
static void add_base64(mn_text *out, const unsigned char *s, size_t n) {
  static const char signs[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  for (size_t i = 0; i < n; i += 3) {
    const unsigned v = (unsigned)s[i] << 16 | (i + 1 < n ? (unsigned)s[i + 1] << 8 : 0) | (i + 2 < n ? s[i + 2] : 0);
    const char four[4] = {signs[v >> 18], signs[v >> 12 & 63], i + 1 < n ? signs[v >> 6 & 63] : '=', i + 2 < n ? signs[v & 63] : '='};
    mn_text_add_bytes(out, four, 4);
  }
}

/* The first `dimensions` numbers, of length 1 again. */
static void add_vector(mn_text *out, const errand *e, float *v) {
  const int64_t D = mn_embedder_width(e->server->embedder), n = e->ask.dimensions ? e->ask.dimensions : D;
  double squares = 0;
  for (int64_t d = 0; d < n; d++) squares += (double)v[d] * (double)v[d];
  for (int64_t d = 0; d < n && n < D && squares > 0; d++) v[d] = (float)((double)v[d] / sqrt(squares));
  if (e->ask.as_base64) { /* little-endian f32, as this machine's are */
    mn_text_add(out, "\"");
    add_base64(out, (const unsigned char *)v, (size_t)n * sizeof *v);
    mn_text_add(out, "\"");
    return;
  }
  mn_text_add(out, "[");
  for (int64_t d = 0; d < n; d++) mn_text_addf(out, "%s%.9g", d ? "," : "", (double)v[d]);
  mn_text_add(out, "]");
}

static void write_reply(errand *e) {
  const mn_server *s = e->server;
  int64_t tokens = 0;
  mn_text_add(&e->out, "{\"object\": \"list\", \"data\": [");
  for (int64_t i = 0; i < e->ask.n_prompts; i++) {
    mn_text_addf(&e->out, "%s{\"object\": \"embedding\", \"index\": %lld, \"embedding\": ", i ? ", " : "", (long long)i);
    add_vector(&e->out, e, e->vectors + i * mn_embedder_width(s->embedder));
    mn_text_add(&e->out, "}");
    tokens += (int64_t)e->ids[i].len;
  }
  mn_text_add(&e->out, "], \"model\": ");
  mn_answer_quote(&e->out, s->config.name, strlen(s->config.name));
  mn_text_addf(&e->out, ", \"usage\": {\"prompt_tokens\": %lld, \"total_tokens\": %lld}}\n", (long long)tokens, (long long)tokens);
}

static void done(void *arg) { /* in the loop */
  errand *e = arg;
  if (e->x) {
    mn_exchange_on_leave(e->x, NULL, NULL);
    if (e->refusal.status) mn_serve_refuse(e->x, &e->refusal);
    else if (e->status != MN_OK) mn_serve_failed(e->x, e->status, e->why);
    else if (e->out.failed) mn_serve_failed(e->x, MN_ERR_MEMORY, "out of memory");
    else mn_exchange_reply(e->x, 200, "application/json", e->out.data, e->out.len);
  }
  e->server->errands--;
  free_errand(e);
}

static void work(void *arg) { /* in the worker */
  errand *e = arg;
  const int64_t n = e->ask.n_prompts;
  const int32_t **tokens = mn_alloc((size_t)n * sizeof *tokens);
  int64_t *length = mn_alloc((size_t)n * sizeof *length);
  e->vectors = mn_alloc((size_t)(n * mn_embedder_width(e->server->embedder)) * sizeof *e->vectors);
  e->status = tokens && length && e->vectors ? MN_OK : mn_fail(MN_ERR_MEMORY, "out of memory");
  for (int64_t i = 0; i < n && e->status == MN_OK; i++) tokens[i] = e->ids[i].data, length[i] = (int64_t)e->ids[i].len;
  if (e->status == MN_OK) e->status = mn_embedder_texts(e->server->embedder, n, tokens, length, e->vectors);
  if (e->status != MN_OK) snprintf(e->why, sizeof e->why, "%s", mn_message());
  else write_reply(e);
  free(tokens);
  free(length);
  if (!mn_web_post(e->server->web, done, e)) mn_log_write(MN_LOG_ERROR, "out of memory: a client waits in vain");
}

/* ---- the request ---- */
static bool encode(errand *e, mn_refusal *why) {
  const mn_bundle *bundle = e->server->config.bundle;
  const int64_t D = mn_embedder_width(e->server->embedder);
  if (e->ask.dimensions > D)
    return mn_refuse(why, 400, "dimensions", "invalid_value", "this model's vectors have %lld numbers, and %lld are asked for",
                     (long long)D, (long long)e->ask.dimensions);
  e->ids = mn_calloc((size_t)e->ask.n_prompts, sizeof *e->ids);
  mn_status status = e->ids ? MN_OK : MN_ERR_MEMORY;
  for (int64_t i = 0; i < e->ask.n_prompts && status == MN_OK && !atomic_load(&e->gone); i++) {
    const mn_ask_prompt *p = &e->ask.prompts[i];
    for (int64_t k = 0; p->ids && k < p->n_ids && status == MN_OK; k++) status = mn_ids_add(&e->ids[i], p->ids[k]);
    if (!p->ids) status = mn_tokenizer_encode(bundle->tokenizer, p->text, p->n, MN_ENCODE_TEMPLATE, &e->ids[i]);
    if (status == MN_OK && !e->ids[i].len)
      return mn_refuse(why, 400, "input", "invalid_value", "text %lld of the input is empty", (long long)i);
    if (status == MN_OK && (int64_t)e->ids[i].len > mn_embedder_most(e->server->embedder))
      return mn_refuse(why, 400, "input", "context_length_exceeded", "this model reads %lld tokens, and text %lld of the input has %zu",
                       (long long)mn_embedder_most(e->server->embedder), (long long)i, e->ids[i].len);
  }
  return status == MN_OK || mn_refuse(why, mn_serve_http_status(status), "input", NULL, "%s", mn_message());
}

/* In the loop, behind a reader. */
static void is_read(void *arg) {
  errand *e = arg;
  if (!e->refusal.status && !e->server->batcher) mn_refuse(&e->refusal, 503, NULL, NULL, "the server is ending");
  if (e->x && !e->refusal.status) {
    mn_serve_name_labels(e->x, &e->ask);
    if (mn_batcher_call(e->server->batcher, work, e) == MN_OK) return;
    mn_refuse(&e->refusal, 503, NULL, NULL, "the server is out of memory");
  }
  done(e);
}

static void read_body(void *arg) { /* by a reader */
  errand *e = arg;
  const mn_server *s = e->server;
  const mn_ask_limits limits = {s->config.bundle->model->config.vocab_size, 1, 2048, 1};
  const char *body = e->body ? e->body : "";
  if (!atomic_load(&e->gone) && mn_ask_read(e->arena, MN_ASK_EMBEDDING, body, e->n_body, &limits, &e->ask, &e->refusal) &&
      mn_serve_check_model(s, &e->ask, &e->refusal) && !atomic_load(&e->gone))
    encode(e, &e->refusal);
  if (!mn_web_post(e->server->web, is_read, e)) mn_log_write(MN_LOG_ERROR, "out of memory: a client waits in vain");
}

void mn_serve_embeddings(mn_server *s, const mn_request *r) {
  mn_refusal why = {0};
  errand *e = mn_calloc(1, sizeof *e);
  if (e) *e = (errand){.server = s, .x = r->x, .arena = mn_arena_new()};
  if (!e || !e->arena) {
    free(e);
    mn_serve_failed(r->x, MN_ERR_MEMORY, "out of memory");
    return;
  }
  if (!s->embedder) mn_refuse(&why, 400, "model", "unsupported_model", "this model makes no vectors of texts: an encoder does");
  else {
    e->body = mn_exchange_take_body(r->x, &e->n_body);
    mn_exchange_on_leave(r->x, left, e);
    s->errands++;
    bool full;
    if (mn_readers_ask(s->readers, read_body, e, &full) == MN_OK) return;
    s->errands--;
    mn_exchange_on_leave(r->x, NULL, NULL);
    if (full) {
      s->metrics.refused++, mn_exchange_header(r->x, "Retry-After", "1");
      mn_refuse(&why, 429, NULL, "queue_full", "the server is busy: %s; try again later", mn_message());
    } else mn_refuse(&why, 503, NULL, NULL, "the server is out of memory");
  }
  free_errand(e);
  mn_serve_refuse(r->x, &why);
}
