/* test_serve.c - what must be true of `mneme serve`, in order: the interface says what mneme generate says; streams are the whole in
 * pieces; many answers at once are each what it would be alone; what is asked wrongly is refused by name and hurts nobody; clients that
 * leave, creep or stay silent are noticed; keys and limits hold; it ends when told, after what it was saying. */
#include <ctype.h>
#include <math.h>

#include "base/file.h"
#include "format/json.h"
#include "serve_helpers.h"

#include <jansson.h>
#include <signal.h>

static const char recipe[] = "name: tiny\n"
                             "tokenizer: {type: bpe, vocab_size: 300}\n"
                             "data: {files: [t.txt]}\n"
                             "model: {d_model: 16, layers: 2, block: {mixer: {type: attention, heads: 2, max_context: 400}, hidden: 16}}\n"
                             "train: {steps: 8, batch: 2, seq_len: 32, validation_batches: 1}\n";
static server_process server;

static void prepare(void) {
  trained_on_a_book("tiny", recipe);
  CHECK(server_begin(&server, "tiny --max-body-kib 64 --max-head-kib 2 --request-seconds 3 --idle-seconds 5"), "no server");
}

static void it_says_what_it_is(void) {
  CHECK(http_get("/health") == 200 && strstr(http_reply, "\"status\": \"ok\""), "%s", http_reply);
  CHECK(http_get("/v1/models") == 200 && strstr(http_reply, "\"id\": \"tiny\"") && http_number("context_length") == 400, "%s", http_reply);
  CHECK(http_get("/v1/models/tiny") == 200 && strstr(http_reply, "\"object\": \"model\""), "%s", http_reply);
  CHECK(http_get("/v1/models/other") == 404 && strstr(http_reply, "model_not_found"), "%s", http_reply);
  CHECK(http_ask("HEAD", "/health", "", "") == 200 && !*http_body(), "%s", http_reply);
}

static void there_is_a_page(void) {
  CHECK(http_get("/") == 200 && strstr(http_reply, "text/html") && strstr(http_reply, "Content-Security-Policy") &&
            strstr(http_body(), "</html>"),
        "%.300s", http_reply);
  CHECK(!strstr(http_body(), "http://") && !strstr(http_body(), "https://"), "it asks nobody else");
}

static void it_says_what_generate_says(void) {
  char said[4096];
  CHECK(http_post("/v1/completions", "{\"prompt\": \"Call me\", \"max_tokens\": 30, \"seed\": 3, \"temperature\": 0}") == 200, "%s",
        http_reply);
  CHECK(http_number("prompt_tokens") > 0 && http_number("completion_tokens") == 30 && strstr(http_reply, "\"finish_reason\": \"length\""),
        "%s", http_reply);
  snprintf(said, sizeof said, "%s", http_text(http_body(), "text"));
  CHECK(sh(MNEME "generate --model tiny --prompt 'Call me' --tokens 30 --temperature 0 --json --threads 1 2>/dev/null") == 0, "%s", out);
  CHECK(strstr(out, said) && *said, "serve: %s\ngenerate: %s", said, out);
  CHECK(http_post("/v1/completions",
                  "{\"model\": \"tiny\", \"prompt\": \"Call me\", \"max_tokens\": 30, \"seed\": 3, \"temperature\": 0.9, \"top_p\": 0.9, "
                  "\"echo\": true}") == 200 &&
            !strncmp(http_text(http_body(), "text"), "Call me", 7),
        "%s", http_reply);
  snprintf(said, sizeof said, "%s", http_text(http_body(), "text"));
  CHECK(http_post("/v1/completions", "{\"prompt\": \"Call me\", \"max_tokens\": 30, \"seed\": 3, \"temperature\": 0.9, \"top_p\": 0.9}") ==
            200,
        "%s", http_reply);
  CHECK(!strcmp(said + 7, http_text(http_body(), "text")), "%s\n%s", said, http_reply);
}

/* The text in a reply of the server, or in what `mneme generate --json` prints: "" where there is none. Free it. */
static char *text_in(const char *json) {
  json_t *root = json_loads(json, 0, NULL);
  const json_t *choice = json_array_get(json_object_get(root, "choices"), 0);
  const char *text = json_string_value(json_object_get(choice ? choice : root, "text"));
  char *copy = strdup(text ? text : "");
  json_decref(root);
  return copy;
}

/* Tokens of the prompt are recent ones, too. */
static void a_penalty_looks_back_at_the_prompt(void) {
  static const char ask[] = "{\"prompt\": \"%s\", \"max_tokens\": 20, \"temperature\": 0, \"repetition_penalty\": %s}";
  CHECK(http_post("/v1/completions", ask, "the whale the ship", "1") == 200, "%s", http_reply);
  char *plain = text_in(http_body());
  CHECK(http_post("/v1/completions", ask, "the whale the ship", "4") == 200, "%s", http_reply);
  char *served = text_in(http_body());
  CHECK(sh(MNEME
           "generate --model tiny --prompt 'the whale the ship' --tokens 20 --temperature 0 --repetition-penalty 4 --json --threads 1 "
           "2>/dev/null") == 0,
        "%s", out);
  char *generated = text_in(out);
  CHECK(*served && !strcmp(served, generated) && strcmp(served, plain) != 0, "serve: %s\ngenerate: %s\nwithout it: %s", served, generated,
        plain);
  free(plain), free(served), free(generated);
}

/* All pieces of a stream's text. */
static void join_pieces(char *to, size_t most) {
  size_t n = 0;
  char *body = strdup(http_body());
  for (const char *at = body; (at = strstr(at, "data: {")); at += 7) {
    const char *text = http_text(at, "text");
    n += (size_t)snprintf(to + n, most - n, "%s", text);
  }
  free(body);
}

static void a_stream_is_the_whole_in_pieces(void) {
  char whole[4096], pieces[4096] = "";
#define ASKED                                                                                                                              \
  "\"prompt\": [70, 71, 72], \"max_tokens\": 25, \"temperature\": 0, \"logit_bias\": {\"10\": -100}, \"stop\": [\"zqxj\", \"%s\"]"
  CHECK(http_post("/v1/completions", "{" ASKED "}", "unlikely") == 200, "%s", http_reply);
  snprintf(whole, sizeof whole, "%s", http_text(http_body(), "text"));
  CHECK(http_post("/v1/completions", "{" ASKED ", \"stream\": true, \"stream_options\": {\"include_usage\": true}}", "unlikely") == 200,
        "%s", http_reply);
  join_pieces(pieces, sizeof pieces);
  CHECK(!strcmp(whole, pieces) && *whole, "%s\n%s", whole, pieces);
  CHECK(strstr(http_reply, "text/event-stream") && strstr(http_reply, "data: [DONE]") && http_number("completion_tokens") == 25 &&
            http_times("\"finish_reason\": \"length\"") == 1,
        "%s", http_reply);
}

static void a_stop_ends_it_wherever_tokens_end(void) {
  char whole[4096], stop[4], pieces[4096] = "";
#define GREEDY "\"prompt\": \"the whale\", \"max_tokens\": 40, \"temperature\": 0, \"presence_penalty\": 1.5"
  CHECK(http_post("/v1/completions", "{" GREEDY "}") == 200, "%s", http_reply);
  snprintf(whole, sizeof whole, "%s", http_text(http_body(), "text"));
  size_t at = strlen(whole) / 3; /* two signs that need no escape */
  for (size_t k = 0, plain = 0; whole[k]; k += whole[k] != '\\' ? 1 : whole[k + 1] == 'u' ? 6 : 2) {
    plain = isalnum((unsigned char)whole[k]) || whole[k] == ' ' ? plain + 1 : 0;
    if (plain == 2) at = k - 1;
  }
  snprintf(stop, sizeof stop, "%.2s", whole + at);
  const size_t first = (size_t)(strstr(whole, stop) - whole);
  CHECK(http_post("/v1/completions", "{" GREEDY ", \"stop\": \"%s\"}", stop) == 200 && strstr(http_reply, "\"finish_reason\": \"stop\""),
        "%s: %s", stop, http_reply);
  const char *text = http_text(http_body(), "text");
  CHECK(strlen(text) == first && !strncmp(text, whole, first), "%s, stopped at %s: %s", whole, stop, text);
  CHECK(http_post("/v1/completions", "{" GREEDY ", \"stream\": true, \"stop\": \"%s\"}", stop) == 200, "%s", http_reply);
  join_pieces(pieces, sizeof pieces);
  CHECK(strlen(pieces) == first && !strncmp(pieces, whole, first), "%s: %s", whole, pieces);
}

static void several_answers_are_in_order(void) {
  char first[2000];
  CHECK(http_post("/v1/completions", "{\"prompt\": [\"a b\", \"c d e\"], \"n\": 3, \"max_tokens\": 5, \"seed\": 1, \"logprobs\": 2}") ==
            200,
        "%s", http_reply);
  CHECK(http_times("\"index\": ") == 6 && http_times("\"top_logprobs\"") == 6 && http_number("completion_tokens") == 30, "%s", http_reply);
  for (int i = 1; i < 6; i++) {
    char before[40], after[40];
    snprintf(before, sizeof before, "\"index\": %d,", i - 1), snprintf(after, sizeof after, "\"index\": %d,", i);
    CHECK(strstr(http_reply, before) < strstr(http_reply, after), "%s", http_reply);
  }
  snprintf(first, sizeof first, "%s", http_text(strstr(http_reply, "\"index\": 3,"), "text"));
  CHECK(http_post("/v1/completions", "{\"prompt\": \"c d e\", \"max_tokens\": 5, \"seed\": 1}") == 200, "%s", http_reply);
  CHECK(!strcmp(first, http_text(http_body(), "text")), "beside others: %s\nalone: %s", first, http_reply);
}

/* The same three tokens, made by the model and read by it, have the same chances. */
static void a_prompt_is_judged_too(void) {
  mn_arena *arena = mn_arena_new();
  const mn_value *made = NULL, *read = NULL;
  CHECK(http_post("/v1/completions",
                  "{\"prompt\": [70, 71, 72], \"max_tokens\": 3, \"temperature\": 0, \"logit_bias\": {\"10\": 100}, \"logprobs\": 2}") ==
            200,
        "%s", http_reply);
  CHECK_OK(mn_json_parse(arena, "made", http_body(), strlen(http_body()), &made));
  CHECK(http_post("/v1/completions",
                  "{\"prompt\": [70, 71, 72, 10, 10, 10], \"max_tokens\": 0, \"echo\": true, \"logprobs\": 2, \"n\": 2}") == 200,
        "%s", http_reply);
  CHECK_OK(mn_json_parse(arena, "read", http_body(), strlen(http_body()), &read));
  for (int choice = 0; choice < 2; choice++) {
    const mn_value *logs = mn_value_find(read, choice ? "choices.1.logprobs" : "choices.0.logprobs"),
                   *all = mn_value_get(logs, "token_logprobs"), *top = mn_value_get(logs, "top_logprobs"),
                   *tokens = mn_value_get(logs, "tokens"), *offset = mn_value_get(logs, "text_offset");
    CHECK(all && top && tokens && offset && all->count == 6 && top->count == 6 && tokens->count == 6 && offset->count == 6 &&
              all->as.items[0]->kind == MN_NULL && top->as.items[0]->kind == MN_NULL,
          "%s", http_reply);
    for (size_t i = 0; all && all->count == 6 && i < 3; i++) {
      double x = 0, y = 1, best = 0;
      const mn_value *said = mn_value_find(made, "choices.0.logprobs.token_logprobs");
      CHECK(said && said->count == 3 && mn_value_number(said->as.items[i], &x) && mn_value_number(all->as.items[3 + i], &y) &&
                fabs(x - y) < 1e-4 * (1 + fabs(x)),
            "%g made, %g read", x, y);
      const mn_value *likely = top->as.items[3 + i];
      CHECK(likely->kind == MN_MAP && likely->count == 2 && mn_value_number(likely->as.entries[0].value, &best) && best >= y - 1e-9, "%s",
            http_reply);
    }
  }
  CHECK(http_post("/v1/completions",
                  "{\"prompt\": [70, 71, 72, 10], \"max_tokens\": 2, \"temperature\": 0, \"logit_bias\": {\"10\": 100}, \"echo\": true, "
                  "\"logprobs\": 0, \"stream\": true}") == 200 &&
            http_times("\"token_logprobs\": [null]") == 1 && strstr(http_reply, "\"text_offset\": [1, 2, 3, 4]") &&
            strstr(http_reply, "[DONE]"),
        "%s", http_reply);
  CHECK(http_post("/v1/completions", "{\"prompt\": [70, 71], \"echo\": true, \"logprobs\": 0, \"session_id\": \"s\"}") == 400 &&
            strstr(http_reply, "leave one out"),
        "%s", http_reply);
  mn_arena_free(arena);
}

static void answers_have_the_form_that_is_asked_for(void) {
#define FORM                                                                                                                                               \
  "\"max_tokens\": 120, \"seed\": %d, \"response_format\": {\"type\": \"json_schema\", \"json_schema\": {\"name\": \"x\", \"schema\": "                    \
  "{\"type\": \"object\", \"properties\": {\"colour\": {\"enum\": [\"red\", \"blue\"]}, \"n\": {\"type\": \"integer\", \"minimum\": 1, \"maximum\": 30}, " \
  "\"name\": {\"type\": \"string\", \"maxLength\": 4}}, \"required\": [\"colour\", \"n\", \"name\"]}}}"
  for (int seed = 0; seed < 8; seed++) {
    mn_arena *arena = mn_arena_new();
    const mn_value *v = NULL;
    CHECK(http_post("/v1/completions", "{\"prompt\": \"a\", \"n\": 2, " FORM "}", seed) == 200 &&
              http_times("\"finish_reason\": \"stop\"") == 2,
          "%s", http_reply);
    CHECK_OK(mn_json_parse(arena, "reply", http_body(), strlen(http_body()), &v));
    for (int k = 0; v && k < 2; k++) {
      const mn_value *text = mn_value_find(v, k ? "choices.1.text" : "choices.0.text"), *said = NULL, *n;
      CHECK(text && text->kind == MN_TEXT, "%s", http_reply);
      mn_status status = text ? mn_json_parse(arena, "text", text->as.text, text->count, &said) : MN_ERR_FORMAT;
      if (status != MN_OK && strstr(mn_message(), "u0000")) continue; /* JSON, but not what our reader takes */
      CHECK(status == MN_OK, "%s: %s", mn_message(), text ? text->as.text : "");
      n = said ? mn_value_get(said, "n") : NULL;
      CHECK(n && n->kind == MN_INTEGER && n->as.integer >= 1 && n->as.integer <= 30 && said->count == 3, "%s", text ? text->as.text : "");
    }
    mn_arena_free(arena);
  }
  CHECK(http_post("/v1/completions",
                  "{\"prompt\": \"a\", \"response_format\": {\"type\": \"json_object\"}, \"max_tokens\": 3, \"temperature\": 0}") == 200 &&
            !strncmp(http_text(http_body(), "text"), "{", 1),
        "%s", http_reply);
  CHECK(http_post("/v1/completions",
                  "{\"prompt\": \"a\", \"response_format\": {\"type\": \"json_schema\", \"json_schema\": {\"schema\": {\"pattern\": "
                  "\"(?=a)\"}}}}") == 400 &&
            strstr(http_reply, "looks around itself"),
        "%s", http_reply);
}

/* ---- what is asked wrongly ---- */
static void wrong_requests_are_refused_by_name(void) {
  static const struct {
    const char *body;
    int status;
    const char *said;
  } all[] = {
      {"", 400, "not valid JSON"},
      {"{", 400, "not valid JSON"},
      {"[1]", 400, "must be a JSON object"},
      {"{\"prompt\": \"a\", \"prompt\": \"b\"}", 400, "duplicate"},
      {"{}", 400, "'prompt' is missing"},
      {"{\"prompt\": 7}", 400, "'prompt' is 7"},
      {"{\"prompt\": []}", 400, "empty list"},
      {"{\"prompt\": \"\"}", 400, "'prompt' is empty"},
      {"{\"prompt\": [\"a\", \"\"]}", 400, "'prompt.1' is empty"},
      {"{\"prompt\": [\"a\", 3.5]}", 400, "\"param\": \"prompt.1\""},
      {"{\"prompt\": [1, \"a\"]}", 400, "'prompt.1' is the text 'a'; it must be a token id"},
      {"{\"prompt\": [1, 300]}", 400, "'prompt.1' is the token 300; this model has tokens from 0 to 299"},
      {"{\"prompt\": [-1]}", 400, "tokens from 0 to 299"},
      {"{\"promt\": \"a\"}", 400, "did you mean 'prompt'"},
      {"{\"prompt\": \"a\", \"model\": \"other\"}", 404, "there is no model 'other'"},
      {"{\"prompt\": \"a\", \"model\": 3}", 400, "'model' is 3"},
      {"{\"prompt\": \"a\", \"temperature\": \"hot\"}", 400, "'temperature' is the text 'hot'"},
      {"{\"prompt\": \"a\", \"temperature\": 3}", 400, "from 0 to 2"},
      {"{\"prompt\": \"a\", \"temperature\": -1e999}", 400, "not valid JSON"},
      {"{\"prompt\": \"a\", \"top_p\": 1.5}", 400, "from 0 to 1"},
      {"{\"prompt\": \"a\", \"n\": 0}", 400, "'n' is 0"},
      {"{\"prompt\": \"a\", \"n\": 1000}", 400, "'n' is 1000"},
      {"{\"prompt\": \"a\", \"n\": 1.5}", 400, "an integer"},
      {"{\"prompt\": \"a\", \"max_tokens\": -1}", 400, "'max_tokens' is -1"},
      {"{\"prompt\": \"a\", \"max_tokens\": 1e9}", 400, "an integer"},
      {"{\"prompt\": \"a\", \"max_tokens\": 100000}", 400, "context is 400 tokens; the prompt has 1, and 100000 more"},
      {"{\"prompt\": \"a\", \"stop\": \"\"}", 400, "an empty text"},
      {"{\"prompt\": \"a\", \"stop\": [\"b\", 1]}", 400, "'stop.1' is 1"},
      {"{\"prompt\": \"a\", \"stream\": \"yes\"}", 400, "true or false"},
      {"{\"prompt\": \"a\", \"stream_options\": {}}", 400, "no effect without 'stream'"},
      {"{\"prompt\": \"a\", \"logprobs\": 21}", 400, "'logprobs' is 21"},
      {"{\"prompt\": \"a\", \"logit_bias\": {\"x\": 1}}", 400, "the key 'x'"},
      {"{\"prompt\": \"a\", \"logit_bias\": {\"1\": 101}}", 400, "from -100 to 100"},
      {"{\"prompt\": \"a\", \"logit_bias\": {\"4294967297\": 1}}", 400, "token ids from 0"},
      {"{\"prompt\": \"a\", \"best_of\": 4}", 400, "'best_of' is not supported"},
      {"{\"prompt\": \"a\", \"suffix\": \"b\"}", 400, "'suffix' is not supported"},
      {"{\"prompt\": \"\xff\xfe\"}", 400, "not valid JSON"},
      {"{\"prompt\": \"a\\u0000b\"}", 400, "u0000, which none may have"},
      {"{\"prompt\": \"\\ud800\"}", 400, "not valid JSON"},
      {"{\"prompt\": \"a\", \"response_format\": \"json\"}", 400, "a map with a type"},
      {"{\"prompt\": \"a\", \"response_format\": {\"type\": \"xml\"}}", 400, "text, json_object or json_schema"},
      {"{\"messages\": []}", 400, "unknown parameter 'messages'"},
  };
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
    const int status = http_post("/v1/completions", "%s", all[i].body);
    CHECK(status == all[i].status && strstr(http_reply, all[i].said) && strstr(http_body(), "{\"error\": {\"message\": "), "%s: %d, %s",
          all[i].body, status, http_reply);
  }
  char deep[4000] = "{\"prompt\": ";
  for (int i = 0; i < 1000; i++) strcat(deep, "[");
  CHECK(http_post("/v1/completions", "%s", deep) == 400, "%s", http_reply);
  CHECK(http_post("/v1/completions", "{\"prompt\": \"a\", \"user\": \"me\", \"max_tokens\": 1}") == 200 &&
            strstr(http_reply, "Mneme-No-Effect: user"),
        "%s", http_reply);
  char *text = malloc(6002);
  memset(text, 'z', 6000), strcpy(text + 6000, "");
  CHECK(http_post("/v1/completions", "{\"prompt\": \"%s\"}", text) == 400 &&
            strstr(http_reply, "context is 400 tokens, and the prompt has 6000"),
        "%.300s", http_reply);
  free(text);
}

/* What else a reply must tell in its head. */
static void replies_say_what_would_do(void) {
  static const struct {
    const char *bytes;
    int status;
    const char *said;
  } all[] = {
      {"DELETE /v1/models HTTP/1.0\r\n\r\n", 405, "\r\nAllow: GET, HEAD\r\n"},
      {"PATCH /sessions/a HTTP/1.0\r\n\r\n", 405, "\r\nAllow: GET, HEAD, DELETE\r\n"},
      {"PUT /sessions HTTP/1.0\r\n\r\n", 405, "\r\nAllow: GET, HEAD\r\n"},
      {"PUT /sessions/a/save HTTP/1.0\r\n\r\n", 405, "\r\nAllow: POST\r\n"},
      {"PUT /sessions/a/b HTTP/1.0\r\n\r\n", 404, "unknown_url"},
      {"BREW /v1/completions HTTP/1.0\r\n\r\n", 405, "\r\nAllow: POST\r\n"},
      {"GET /v1/models?limit=1 HTTP/1.0\r\n\r\n", 200, "\r\nMneme-No-Effect: query\r\n"},
      {"POST /v1/completions HTTP/1.0\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx", 415, "\r\nAccept-Encoding: identity\r\n"},
      {"POST /v1/completions HTTP/1.0\r\nContent-Encoding: Identity\r\nContent-Length: 14\r\n\r\n{\"prompt\":\"a\"}", 200, "\"text\""},
  };
  for (size_t i = 0; i < sizeof all / sizeof *all; i++)
    CHECK(http_bytes(all[i].bytes, strlen(all[i].bytes)) == all[i].status && strstr(http_reply, all[i].said), "%s: %s", all[i].bytes,
          http_reply);
}

static void what_is_no_request_is_refused(void) {
  static const struct {
    const char *bytes;
    int status;
  } all[] = {
      {"\r\n\r\n\r\nGET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 200},
      {"GET /health HTTP/1.0\r\n\r\n", 200},
      {"GET http://x/health HTTP/1.0\r\n\r\n", 200},
      {"GET /health HTTP/1.1\r\n\r\n", 400},
      {"GET /health HTTP/1.1\r\nHost: x y\r\n\r\n", 400},
      {"GET /health HTTP/1.1\r\nHost: x/y\r\n\r\n", 400},
      {"GET /health HTTP/1.1\r\nHost: a@x\r\n\r\n", 400},
      {"GET http://a@x/health HTTP/1.1\r\nHost: x\r\n\r\n", 400},
      {"GET /health\r\n\r\n", 400},
      {"GET  /health HTTP/1.1\r\nHost: x\r\n\r\n", 400},
      {"GET /health HTTP/2.0\r\nHost: x\r\n\r\n", 505},
      {"G@T /health HTTP/1.1\r\nHost: x\r\n\r\n", 400},
      {"hello\r\n\r\n", 400},
      {"GET /a/../health HTTP/1.1\r\nHost: x\r\n\r\n", 400},
      {"GET /%2e%2e/etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", 400},
      {"GET /..%2fetc HTTP/1.1\r\nHost: x\r\n\r\n", 400},
      {"GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n", 400},
      {"GET /a%00b HTTP/1.1\r\nHost: x\r\n\r\n", 400},
      {"GET /nothing HTTP/1.0\r\n\r\n", 404},
      {"GET /health HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n", 400},
      {"GET /health HTTP/1.1\r\nHost : x\r\n\r\n", 400},
      {"GET /health HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n", 400},
      {"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400},
      {"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999999999999999999\r\n\r\n", 400},
      {"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", 400},
      {"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
      {"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501},
      {"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 65537\r\n\r\n", 413},
      {"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400},
      {"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nfffffffff\r\n", 413},
      {"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffffff\r\n", 413},
      {"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}x", 400},
      {"POST /v1/completions HTTP/1.1\r\nHost: x\r\nExpect: tea\r\n\r\n", 417},
  };
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
    const int status = http_bytes(all[i].bytes, strlen(all[i].bytes));
    CHECK(status == all[i].status, "%s: %d, %s", all[i].bytes, status, http_reply);
    CHECK(status < 400 || strstr(http_body(), "{\"error\": {\"message\": "), "%s: %s", all[i].bytes, http_reply);
  }
  char long_head[6000] = "GET /health HTTP/1.1\r\nHost: x\r\nX-Long: ";
  memset(long_head + strlen(long_head), 'x', 4000);
  strcpy(long_head + strlen(long_head), "\r\n\r\n");
  CHECK(http_bytes(long_head, strlen(long_head)) == 431, "%s", http_reply);
  const char zero[] = "GET /health HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n";
  CHECK(http_bytes(zero, sizeof zero - 1) == 400, "%s", http_reply);
  const char tls[] = "\x16\x03\x01\x02", half[] = "\x01"; /* which say no more until they are answered */
  const int hello = http_open(), noise = http_open();
  http_say(hello, tls, sizeof tls - 1), http_say(noise, half, 1);
  CHECK(http_hear(hello, NULL) && http_status() == 400 && strstr(http_reply, "http://, not https://"), "TLS: %s", http_reply);
  CHECK(http_hear(noise, NULL) && http_status() == 400 && !strstr(http_reply, "TLS"), "%s", http_reply);
  close(hello), close(noise);
  /* a body in chunks, byte by byte, with a trailer; and two requests at once on one connection */
  const char chunks[] = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
                        "8;x=y\r\n{\"prompt\r\n1D\r\n\": \"a\", \"max_tokens\": 1}     \r\n0\r\nX: y\r\n\r\n";
  const int fd = http_open();
  for (size_t i = 0; i < sizeof chunks - 1; i++) http_say(fd, chunks + i, 1);
  CHECK(http_hear(fd, NULL) && http_status() == 200, "%s", http_reply);
  close(fd);
  const char two[] = "GET /health HTTP/1.1\r\nHost: x\r\n\r\nGET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
  CHECK(http_bytes(two, sizeof two - 1) == 200 && http_times("HTTP/1.1 200") == 2, "%s", http_reply);
}

/* ---- clients that do not behave ---- */
static long metric(const char *name) {
  http_get("/metrics");
  const char *at = strstr(http_body(), name);
  return at ? atol(at + strlen(name)) : -1;
}

static void wait_until_idle(void) {
  for (int i = 0; i < 3000 && (metric("\nmneme_streams_running ") != 0 || metric("\nmneme_prompts_reading ") != 0); i++) usleep(10000);
}

static void clients_that_leave_are_let_go(void) {
  const long before = metric("\nmneme_clients_left_total ");
  for (int i = 0; i < 6; i++) {
    char *text = http_request("POST", "/v1/completions", "",
                              i % 2 ? "{\"prompt\": \"a\", \"max_tokens\": 390, \"stream\": true, \"ignore_eos\": true}"
                                    : "{\"prompt\": \"a\", \"max_tokens\": 390, \"ignore_eos\": true}");
    const int fd = http_open();
    CHECK(http_say(fd, text, strlen(text)), "not said");
    if (i % 2) CHECK(http_hear(fd, "data: "), "%s", http_reply);
    close(fd);
    free(text);
  }
  wait_until_idle();
  const long after = metric("\nmneme_clients_left_total ");
  CHECK(after > before && after <= before + 6, "%ld left, and then %ld", before, after); /* a fast answer may have been whole */
  CHECK(metric("\nmneme_streams_running ") == 0 && metric("\nmneme_batch_room ") == 0, "%s", http_reply);
  CHECK(http_post("/v1/completions", "{\"prompt\": \"a\", \"max_tokens\": 2}") == 200, "%s", http_reply);
}

static void a_request_must_come_in_time(void) {
  const char *const begun = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{";
  const int silent = http_open(), slow = http_open(), half = http_open();
  http_say(slow, "GET /hea", 8);
  http_say(half, begun, strlen(begun));
  CHECK(http_hear(slow, NULL) && http_status() == 408 && strstr(http_reply, "not whole after 3 seconds"), "%s", http_reply);
  CHECK(http_hear(half, NULL) && http_status() == 408, "%s", http_reply);
  CHECK(http_hear(silent, NULL) && http_n == 0, "%s", http_reply);
  close(silent), close(slow), close(half);
  /* one that goes away within its request */
  const int gone = http_open();
  http_say(gone, begun, strlen(begun));
  close(gone);
  CHECK(http_get("/health") == 200, "%s", http_reply);
}

/* While a body of many megabytes is read and becomes tokens, the loop answers others and passes tokens on. The server says itself that it is at
 * it: from a loop that did it nobody could hear that. */
static void a_long_prompt_keeps_nobody_waiting(void) {
  enum { MANY = 4 << 20 };
  static const char endless[] = "name: stream\ntokenizer: {type: bpe, vocab_size: 300}\ndata: {files: [t.txt]}\n"
                                "model: {d_model: 16, layers: 1, block: {mixer: {type: gated_deltanet, heads: 2}, hidden: 16}}\n"
                                "train: {steps: 1, batch: 1, seq_len: 32, validation_batches: 1}\n";
  char *body = malloc(MANY + 100);
  CHECK_OK(mn_file_write("stream.yaml", endless, sizeof endless - 1));
  CHECK(sh("MNEME_HOME=home " MNEME "train stream.yaml --out stream --quiet 2>&1") == 0, "%s", out);
  CHECK(server_begin(&server, "stream --max-body-kib 16384 --request-seconds 60"), "no server");
  if (!server.port || !body) return;
  char *ask =
      http_request("POST", "/v1/completions", "", "{\"prompt\": \"a\", \"max_tokens\": 200000, \"ignore_eos\": true, \"stream\": true}");
  const int stream = http_open();
  http_say(stream, ask, strlen(ask));
  CHECK(http_hear(stream, "data: {"), "%s", http_reply);
  strcpy(body, "{\"prompt\": \"");
  size_t n = strlen(body);
  for (; n < MANY; n += 10) memcpy(body + n, "of whales ", 10);
  strcpy(body + n, "\"}");
  char *head = mn_format("POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n", strlen(body));
  const int slow = http_open();
  bool seen = false, over = false;
  long passed = 0;
  CHECK(http_say(slow, head, strlen(head)) && http_say(slow, body, strlen(body)), "it is taken");
  while (!seen && !over) {
    struct pollfd p = {.fd = slow, .events = POLLIN};
    CHECK(http_get("/health") == 200, "%s", http_reply);
    seen = http_number("reading") > 0;
    over = !seen && poll(&p, 1, 0) > 0;
  }
  if (over) http_hear(slow, NULL);
  CHECK(seen, "the loop waited for a long prompt: %.300s", http_reply);
  while (seen && passed < 5 && http_hear(stream, "data: {")) passed++;
  CHECK(passed == 5 && http_get("/health") == 200 && http_number("reading") > 0, "%ld pieces of another's answer came meanwhile: %s",
        passed, http_reply);
  close(slow), close(stream), free(head), free(body), free(ask);
  CHECK(server_end(&server) == 0, "not well");
}

static void it_ends_when_told(void) {
  char *text =
      http_request("POST", "/v1/completions", "", "{\"prompt\": \"a\", \"max_tokens\": 200, \"stream\": true, \"ignore_eos\": true}");
  const int fd = http_open();
  http_say(fd, text, strlen(text));
  free(text);
  CHECK(http_hear(fd, "data: "), "%s", http_reply);
  const bool whole = strstr(http_reply, "[DONE]") != NULL; /* a fast machine */
  kill(server.pid, SIGTERM);
  CHECK(whole || http_hear(fd, NULL), "%s", http_reply);
  CHECK(strstr(http_reply, "[DONE]") || strstr(http_reply, "\"finish_reason\": \"length\""), "what was being said comes to its end: %s",
        http_reply);
  close(fd);
  CHECK(server_wait(&server) == 0, "not well");
}

/* ---- keys and limits ---- */
static void keys_are_asked_for(void) {
  const char keys[] = "# who may ask\nfirst-key-of-all\nsecond-key-of-all 6\n";
  CHECK_OK(mn_file_write("keys.txt", keys, sizeof keys - 1));
  CHECK(server_begin(&server, "tiny --api-key-file keys.txt --name mind --cors https://example.org --access-log access.log"), "no server");
#define ASK(key) http_ask("POST", "/v1/completions", key, "{\"prompt\": \"a\", \"max_tokens\": 1}")
  CHECK(http_get("/health") == 200, "%s", http_reply);
  CHECK(ASK("") == 401 && strstr(http_reply, "WWW-Authenticate: Bearer") && strstr(http_reply, "invalid_api_key"), "%s", http_reply);
  CHECK(ASK("Authorization: Bearer first-key-of-al\r\n") == 401 && ASK("Authorization: Bearer first-key-of-alll\r\n") == 401, "%s",
        http_reply);
  CHECK(ASK("Authorization: Basic first-key-of-all\r\n") == 401 && http_get("/v1/models") == 401 && http_get("/metrics") == 401, "%s",
        http_reply);
  for (int i = 0; i < 5; i++) CHECK(ASK("Authorization: Bearer first-key-of-all\r\n") == 200, "%s", http_reply);
  CHECK(strstr(http_reply, "Access-Control-Allow-Origin: https://example.org") && strstr(http_reply, "\"model\": \"mind\""), "%s",
        http_reply);
  CHECK(ASK("authorization: bearer second-key-of-all\r\n") == 200, "%s", http_reply);
  CHECK(ASK("Authorization: Bearer second-key-of-all\r\n") == 429 && strstr(http_reply, "Retry-After: ") &&
            strstr(http_reply, "rate_limit_exceeded"),
        "%s", http_reply);
  CHECK(http_ask("OPTIONS", "/v1/completions",
                 "Origin: https://example.org\r\nAccess-Control-Request-Headers: authorization, x-stainless-os\r\n", "") == 204 &&
            strstr(http_reply, "\r\nAccess-Control-Allow-Headers: authorization, x-stainless-os\r\n"),
        "%s", http_reply);
  CHECK(http_ask("OPTIONS", "/v1/completions", "Access-Control-Request-Headers: a<b\r\n", "") == 204 &&
            strstr(http_reply, "\r\nAccess-Control-Allow-Headers: authorization, content-type\r\n"),
        "%s", http_reply);
  CHECK(http_ask("OPTIONS", "/v1/completions", "Origin: https://example.org\r\n", "") == 204 &&
            strstr(http_reply, "\r\nAccess-Control-Expose-Headers: Mneme-No-Effect, Retry-After\r\n"),
        "%s", http_reply);
  CHECK(server_end(&server) == 0, "not well");
  CHECK(sh("grep -c 'POST /v1/completions' access.log") == 0 && atoi(out) == 11, "%s", out);
}

static void what_waits_has_a_limit(void) {
  enum { N = 12 };
  int fd[N], done = 0, refused = 0;
  CHECK(server_begin(&server, "tiny --streams 1 --queue 2"), "no server");
  char *text = http_request("POST", "/v1/completions", "", "{\"prompt\": \"a\", \"max_tokens\": 300, \"ignore_eos\": true}");
  for (int i = 0; i < N; i++) fd[i] = http_open(), http_say(fd[i], text, strlen(text));
  for (int i = 0; i < N; i++) {
    http_hear(fd[i], NULL);
    done += http_status() == 200;
    refused += http_status() == 429 && strstr(http_reply, "Retry-After: 1") && strstr(http_reply, "queue_full");
    close(fd[i]);
  }
  free(text);
  CHECK(done >= 1 && done + refused == N, "%d done, %d refused", done, refused);
  CHECK(http_post("/v1/completions", "{\"prompt\": [\"a\", \"b\", \"c\"], \"max_tokens\": 1}") == 400 &&
            strstr(http_reply, "at most 2 are taken at once"),
        "what can never wait is no matter of trying again: %s", http_reply);
  CHECK(server_end(&server) == 0, "not well");
}

static void wrong_settings_are_refused(void) {
  static const struct {
    const char *words, *said;
  } all[] = {
      {"tiny --tls-cert r.yaml", "both --tls-cert and --tls-key"},
      {"tiny --tls-cert r.yaml --tls-key r.yaml", "--tls-cert r.yaml: OpenSSL says"},
      {"tiny --tls-cert nothing.pem --tls-key r.yaml", "--tls-cert nothing.pem: No such file"},
      {"tiny --tls-cert r.yaml --tls-key tiny", "--tls-key tiny: Is a directory"},
      {"tiny --host nowhere.invalid", "--host nowhere.invalid"},
      {"tiny --queue 0", "--queue: expected a whole number from 1"},
      {"tiny --api-key-file r.yaml", "r.yaml:"},
      {"tiny --rate 5", "--rate has no effect"},
      {"tiny --port 70000", "--port"},
      {"tiny --cors 'a b'", "--cors is one origin"},
      {"tiny --cors example.org", "--cors is one origin"},
      {"tiny --cors https://example.org/", "--cors is one origin"},
      {"tiny --cors https://Example.org", "--cors is one origin"},
      {"nothing", "nothing"},
  };
  for (size_t i = 0; i < sizeof all / sizeof *all; i++)
    CHECK(sh(MNEME "serve %s 2>&1", all[i].words) != 0 && strstr(out, all[i].said), "%s: %s", all[i].words, out);
  CHECK(sh(MNEME "serve tiny --context 400 2>&1") != 0 && strstr(out, "--context 400 has no effect"), "%s", out);
  CHECK(sh(MNEME "serve tiny --exact 2>&1") != 0 && strstr(out, "--exact: no matrix"), "%s", out);
  CHECK(server_begin(&server, "tiny --context 50") && http_get("/v1/models") == 200 && http_number("context_length") == 50, "%s",
        http_reply);
  CHECK(http_post("/v1/completions", "{\"prompt\": \"a\", \"max_tokens\": 51}") == 400 &&
            http_post("/v1/completions", "{\"prompt\": \"a\", \"max_tokens\": 50}") == 200,
        "%s", http_reply);
  CHECK(server_end(&server) == 0, "not well");
  CHECK(sh(MNEME "serve tiny --port 0 --check --json 2>&1") == 0 && strstr(out, "\"url\""), "%s", out);
}

static void over_tls_too(void) {
  if (sh("openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=localhost 2>&1") != 0 ||
      sh("command -v curl") != 0) {
    printf("skip   no openssl or no curl\n");
    return;
  }
  CHECK(server_begin(&server, "tiny --tls-cert cert.pem --tls-key key.pem"), "no server");
  CHECK(
      sh("curl -s --cacert cert.pem --resolve localhost:%d:127.0.0.1 https://localhost:%d/v1/completions -d '{\"prompt\": \"a\", \"max_tokens\": 3, \"stream\": "
         "true}'",
         server.port, server.port) == 0 &&
          strstr(out, "[DONE]"),
      "%s", out);
  CHECK(http_get("/health") == 400 && strstr(http_body(), "https://, not http://"), "plain HTTP is told so: %s", http_reply);
  const int silent = http_open(), gone = http_open();
  close(gone);
  CHECK(sh("curl -s --cacert cert.pem --resolve localhost:%d:127.0.0.1 https://localhost:%d/health", server.port, server.port) == 0,
        "and one that says nothing keeps nobody waiting: %s", out);
  close(silent);
  CHECK(server_end(&server) == 0, "not well");
}

int main(void) {
  signal(SIGPIPE, SIG_IGN);
  RUN(prepare);
  if (!test_failed) {
    RUN(it_says_what_it_is);
    RUN(there_is_a_page);
    RUN(it_says_what_generate_says);
    RUN(a_penalty_looks_back_at_the_prompt);
    RUN(a_stream_is_the_whole_in_pieces);
    RUN(a_stop_ends_it_wherever_tokens_end);
    RUN(several_answers_are_in_order);
    RUN(a_prompt_is_judged_too);
    RUN(answers_have_the_form_that_is_asked_for);
    RUN(wrong_requests_are_refused_by_name);
    RUN(replies_say_what_would_do);
    RUN(what_is_no_request_is_refused);
    RUN(clients_that_leave_are_let_go);
    RUN(a_request_must_come_in_time);
    RUN(it_ends_when_told);
    RUN(a_long_prompt_keeps_nobody_waiting);
    RUN(keys_are_asked_for);
    RUN(what_waits_has_a_limit);
    RUN(over_tls_too);
    RUN(wrong_settings_are_refused);
  }
  if (server.pid) server_end(&server);
  return test_end();
}
