/* test_serve_responses.c - what must be true of /v1/responses, in order: it says what a chat says, in its own words; a stream's events are
 * the whole in pieces, in order and numbered; calls of functions are items, and their results are read back; forms hold; a response that was
 * kept is gone on from, any number of times, and not with another key; what is asked wrongly is refused by the name that the request has; many
 * calls cost memory as they are long. */
#include "base/file.h"
#include "base/text.h"
#include "format/json.h"
#include "serve/ask_response.h"
#include "serve_helpers.h"

#define TOOL                                                                                                                               \
  "{\"type\": \"function\", \"name\": \"add\", \"description\": \"adds\", \"strict\": true, \"parameters\": {\"type\": \"object\", "       \
  "\"properties\": {\"a\": {\"type\": \"integer\", \"minimum\": 0, \"maximum\": 99}}, \"required\": [\"a\"], \"additionalProperties\": "   \
  "false}}"

static server_process server;
static const char dialogues[] =
    "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", \"content\": \"ok\"}, {\"role\": \"user\", \"content\": \"b\"}, "
    "{\"role\": \"assistant\", \"content\": \"no\"}]}\n";
static const char recipe[] =
    "name: talks\ntokenizer: {type: bytes}\ndata: {type: dialogues, files: [d.jsonl], user: 'u', assistant: 'a', validation: 0}\n"
    "model: {d_model: 24, layers: 1, block: {mixer: {type: attention, heads: 2, max_context: 900}, hidden: 24}}\n"
    "train: {steps: 150, batch: 4, seq_len: 16, optimizer: {lr: 0.01}}\n";
static const char jinja[] =
    "{%- if tools %}T{{ tools | tojson }}\n{% endif %}{%- for m in messages %}{{ m.role[0] }}{{ m.content }}{% for c in m.tool_calls or [] %}"
    "C{{ c.function.name }}{{ c.function.arguments | tojson }}{% endfor %}\n{% endfor %}{% if add_generation_prompt %}a{% endif %}";

static void prepare(void) {
  trained("talks", recipe, "d.jsonl", dialogues, sizeof dialogues - 1);
  CHECK_OK(mn_file_write("t.jinja", jinja, sizeof jinja - 1));
  CHECK(server_begin(&server, "talks --chat-template t.jinja --sessions kept"), "no server");
}

static const mn_value *reply_of(mn_arena *arena) {
  const mn_value *v = NULL;
  CHECK(mn_json_parse(arena, "reply", http_body(), strlen(http_body()), &v) == MN_OK, "%s", http_reply);
  return v;
}

static const char *text_at(const mn_value *v, const char *path) {
  const mn_value *at = v ? mn_value_find(v, path) : NULL;
  return at && at->kind == MN_TEXT ? at->as.text : "";
}

/* A stream's events, each checked to have the next number and the type that its line says. */
enum { EVENTS = 400 };
typedef struct events {
  mn_arena *arena;
  const mn_value *at[EVENTS];
  int n;
} events;

static void read_events(events *e, mn_arena *arena) {
  *e = (events){.arena = arena};
  for (const char *at = http_body(); (at = strstr(at, "event: ")) && e->n < EVENTS; at += 7) {
    const char *line = strstr(at, "\ndata: "), *end = line ? strstr(line, "\n\n") : NULL;
    const mn_value *v = NULL;
    if (!end) break;
    CHECK(mn_json_parse(arena, "event", line + 7, (size_t)(end - line - 7), &v) == MN_OK, "%.300s: %s", at, mn_message());
    const mn_value *number = mn_value_get(v, "sequence_number");
    const char *type = text_at(v, "type");
    CHECK(number && number->kind == MN_INTEGER && number->as.integer == e->n && !strncmp(at + 7, type, strlen(type)), "%.200s", at);
    e->at[e->n++] = v;
  }
}

static const char *type_of(const events *e, int i) { return i >= 0 && i < e->n ? text_at(e->at[i], "type") : ""; }

static int find_event(const events *e, const char *type) {
  for (int i = 0; i < e->n; i++)
    if (!strcmp(type_of(e, i), type)) return i;
  return -1;
}

/* All deltas of a type in one. */
static void join(const events *e, const char *type, mn_text *to) {
  for (int i = 0; i < e->n; i++)
    if (!strcmp(type_of(e, i), type)) mn_text_add(to, text_at(e->at[i], "delta"));
}

static void it_says_what_a_chat_says(void) {
  mn_arena *arena = mn_arena_new();
  char said[200];
  CHECK(http_post(
            "/v1/chat/completions",
            "{\"messages\": [{\"role\": \"system\", \"content\": \"x\"}, {\"role\": \"user\", \"content\": \"a\"}], \"temperature\": 0, "
            "\"max_tokens\": 20}") == 200,
        "%s", http_reply);
  snprintf(said, sizeof said, "%s", http_text(http_body(), "content"));
  const long read = http_number("prompt_tokens");
  static const char *const asked[] = {
      "\"input\": \"a\"", "\"input\": [{\"role\": \"user\", \"content\": \"a\"}]",
      "\"input\": [{\"type\": \"message\", \"role\": \"user\", \"content\": [{\"type\": \"input_text\", \"text\": \"a\"}]}]"};
  for (int i = 0; i < 3; i++) {
    CHECK(http_post("/v1/responses", "{%s, \"instructions\": \"x\", \"temperature\": 0, \"max_output_tokens\": 20}", asked[i]) == 200, "%s",
          http_reply);
    const mn_value *v = reply_of(arena);
    CHECK(!strcmp(text_at(v, "output.0.content.0.text"), said) && http_number("input_tokens") == read &&
              !strcmp(text_at(v, "object"), "response") && !strcmp(text_at(v, "instructions"), "x") &&
              !strncmp(text_at(v, "id"), "resp_", 5) && !strncmp(text_at(v, "output.0.id"), "msg_", 4),
          "%s: %s", said, http_reply);
  }
  CHECK(http_post("/v1/responses", "{\"input\": \"a\", \"max_output_tokens\": 1}") == 200 &&
            strstr(http_reply, "\"reason\": \"max_output_tokens\"") && strstr(http_reply, "\"status\": \"incomplete\""),
        "%s", http_reply);
  mn_arena_free(arena);
}

static void a_stream_is_the_whole_in_events(void) {
  static const char *const order[] = {
      "response.created",           "response.in_progress",      "response.output_item.added", "response.content_part.added",
      "response.output_text.delta", "response.output_text.done", "response.content_part.done", "response.output_item.done"};
  for (int most = 1; most <= 20; most += 19) {
    mn_arena *arena = mn_arena_new();
    mn_text deltas = {0};
    char whole[300];
    events e;
    CHECK(http_post("/v1/responses", "{\"input\": \"a\", \"temperature\": 0, \"max_output_tokens\": %d}", most) == 200, "%s", http_reply);
    snprintf(whole, sizeof whole, "%s", text_at(reply_of(arena), "output.0.content.0.text"));
    CHECK(http_post("/v1/responses", "{\"input\": \"a\", \"temperature\": 0, \"max_output_tokens\": %d, \"stream\": true}", most) == 200,
          "%s", http_reply);
    read_events(&e, arena);
    join(&e, "response.output_text.delta", &deltas);
    CHECK(*whole && deltas.data && !strcmp(deltas.data, whole), "%s: %s", whole, deltas.data ? deltas.data : "");
    for (int i = 0; i < 8; i++) {
      const int here = find_event(&e, order[i]);
      CHECK(here >= 0 && (i == 0 || here > find_event(&e, order[i - 1])), "%s: %s", order[i], http_reply);
    }
    const int done = find_event(&e, "response.output_text.done");
    const mn_value *last = e.n ? e.at[e.n - 1] : NULL;
    CHECK(done >= 0 && !strcmp(text_at(e.at[done], "text"), whole), "%s", http_reply);
    const char *state = text_at(last, "response.status");
    CHECK(!strcmp(text_at(last, "response.output.0.content.0.text"), whole) &&
              (!strcmp(state, "completed") || !strcmp(state, "incomplete")) && !strncmp(type_of(&e, e.n - 1) + 9, state, strlen(state)) &&
              mn_value_find(last, "response.usage.total_tokens"),
          "%s", http_reply);
    CHECK(most > 1 || !strcmp(state, "incomplete"), "one token is not all: %s", http_reply);
    mn_text_free(&deltas), mn_arena_free(arena);
  }
}

static void calls_are_items(void) {
#define CALLING "\"input\": \"1+2\", \"tools\": [" TOOL "], \"tool_choice\": %s, \"seed\": %d, \"max_output_tokens\": 200"
  for (int seed = 0; seed < 4; seed++) {
    mn_arena *arena = mn_arena_new();
    mn_text deltas = {0};
    events e;
    char arguments[200];
    const char *choice = seed % 2 ? "\"required\"" : "{\"type\": \"function\", \"name\": \"add\"}";
    CHECK(http_post("/v1/responses", "{" CALLING "}", choice, seed) == 200, "%s", http_reply);
    const mn_value *v = reply_of(arena), *said = NULL;
    snprintf(arguments, sizeof arguments, "%s", text_at(v, "output.0.arguments"));
    CHECK(!strcmp(text_at(v, "output.0.type"), "function_call") && !strcmp(text_at(v, "output.0.name"), "add") &&
              !strncmp(text_at(v, "output.0.call_id"), "call_", 5) && !mn_value_find(v, "output.1") && mn_value_find(v, "tools.0.name"),
          "%s", http_reply);
    CHECK_OK(mn_json_parse(arena, "arguments", arguments, strlen(arguments), &said));
    CHECK(said && mn_value_get(said, "a") && said->count == 1, "%s", arguments);
    CHECK(http_post("/v1/responses", "{" CALLING ", \"stream\": true}", choice, seed) == 200, "%s", http_reply);
    read_events(&e, arena);
    join(&e, "response.function_call_arguments.delta", &deltas);
    const int added = find_event(&e, "response.output_item.added"), done = find_event(&e, "response.function_call_arguments.done");
    CHECK(deltas.data && !strcmp(deltas.data, arguments) && added >= 0 && done > added &&
              !strcmp(text_at(e.at[added], "item.name"), "add") && !strcmp(text_at(e.at[done], "arguments"), arguments) &&
              find_event(&e, "response.output_text.delta") < 0,
          "%s", http_reply);
    mn_text_free(&deltas), mn_arena_free(arena);
  }
  /* one that is cut is a call, too, and the response incomplete */
  mn_arena *arena = mn_arena_new();
  for (int most = 1; most < 30; most += 4) {
    CHECK(http_post("/v1/responses",
                    "{\"input\": \"1+2\", \"tools\": [" TOOL "], \"tool_choice\": \"required\", \"seed\": 1, \"max_output_tokens\": %d}",
                    most) == 200,
          "%s", http_reply);
    const mn_value *v = reply_of(arena);
    CHECK(!strcmp(text_at(v, "status"), "incomplete") && !strcmp(text_at(v, "output.0.type"), "function_call") &&
              !strcmp(text_at(v, "output.0.status"), "incomplete") && !strcmp(text_at(v, "output.0.name"), "add") &&
              !mn_value_find(v, "output.1"),
          "%d: %s", most, http_reply);
  }
  mn_arena_free(arena);
  /* results are read back: what the template was given is what it would write of a chat */
  CHECK(
      http_post(
          "/v1/chat/completions",
          "{\"messages\": [{\"role\": \"user\", \"content\": \"1+2\"}, {\"role\": \"assistant\", \"content\": \"so\", \"tool_calls\": [{\"id\": "
          "\"c1\", \"type\": \"function\", \"function\": {\"name\": \"add\", \"arguments\": \"{\\\"a\\\": 1}\"}}, {\"id\": \"c2\", "
          "\"type\": \"function\", \"function\": {\"name\": \"add\", \"arguments\": \"{\\\"a\\\": 2}\"}}]}, {\"role\": \"tool\", "
          "\"tool_call_id\": \"c1\", \"content\": \"3\"}], \"max_tokens\": 1}") == 200,
      "%s", http_reply);
  const long read = http_number("prompt_tokens");
  CHECK(
      http_post(
          "/v1/responses",
          "{\"input\": [{\"role\": \"user\", \"content\": \"1+2\"}, {\"type\": \"message\", \"id\": \"msg_1\", \"status\": \"completed\", "
          "\"role\": \"assistant\", \"content\": [{\"type\": \"output_text\", \"text\": \"so\", \"annotations\": []}]}, {\"type\": "
          "\"function_call\", \"id\": \"fc_1\", \"call_id\": \"c1\", \"name\": \"add\", \"arguments\": \"{\\\"a\\\": 1}\"}, {\"type\": "
          "\"function_call\", \"call_id\": \"c2\", \"name\": \"add\", \"arguments\": \"{\\\"a\\\": 2}\"}, {\"type\": "
          "\"function_call_output\", \"call_id\": \"c1\", \"output\": \"3\"}], \"max_output_tokens\": 1}") == 200 &&
          http_number("input_tokens") == read,
      "%ld: %s", read, http_reply);
}

static void forms_hold(void) {
  mn_arena *arena = mn_arena_new();
  CHECK(
      http_post(
          "/v1/responses",
          "{\"input\": \"a\", \"seed\": 1, \"text\": {\"format\": {\"type\": \"json_schema\", \"name\": \"x\", \"strict\": true, \"schema\": "
          "{\"type\": \"object\", \"properties\": {\"c\": {\"enum\": [\"red\", \"blue\"]}}, \"required\": [\"c\"]}}}}") == 200,
      "%s", http_reply);
  const char *said = text_at(reply_of(arena), "output.0.content.0.text");
  CHECK(strstr(said, "\"red\"") || strstr(said, "\"blue\""), "%s", http_reply);
  CHECK(http_post("/v1/responses", "{\"input\": \"a\", \"max_output_tokens\": 3, \"text\": {\"format\": {\"type\": \"text\"}}}") == 200,
        "%s", http_reply);
  mn_arena_free(arena);
}

/* The id of what is said now; *text: what is said. */
static void respond(const char *more, const char *previous, char id[64], char text[64], long *cached) {
  mn_arena *arena = mn_arena_new();
  CHECK(http_post("/v1/responses", "{%s, \"temperature\": 0, \"max_output_tokens\": 12%s%s%s}", more,
                  previous ? ", \"previous_response_id\": \"" : "", previous ? previous : "", previous ? "\"" : "") == 200,
        "%s", http_reply);
  const mn_value *v = reply_of(arena);
  snprintf(id, 64, "%s", text_at(v, "id"));
  snprintf(text, 64, "%s", text_at(v, "output.0.content.0.text"));
  if (cached) *cached = http_number("cached_tokens");
  mn_arena_free(arena);
}

static void a_kept_response_is_gone_on_from(void) {
  char first[64], second[64], third[64], other[64], one[64], two[64], again[64], text[64];
  long cached;
  respond("\"input\": \"a\", \"store\": true", NULL, first, one, NULL);
  respond("\"input\": \"b\", \"store\": true", first, second, two, &cached);
  CHECK(cached >= 4, "what was read is not read again: %s", http_reply);
  const long read = http_number("input_tokens");
  respond("\"input\": \"b\"", first, other, again, &cached); /* not kept, and the first is as it was */
  CHECK(!strcmp(two, again) && cached >= 4, "%s, %s", two, again);
  respond("\"input\": \"c\", \"store\": true", second, third, text, &cached);
  CHECK(cached >= 8, "%s", http_reply);
  CHECK(
      http_post(
          "/v1/chat/completions",
          "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", \"content\": \"%s\"}, {\"role\": \"user\", "
          "\"content\": \"b\"}], \"temperature\": 0, \"max_tokens\": 12}",
          one) == 200 &&
          !strcmp(http_text(http_body(), "content"), two) && http_number("prompt_tokens") == read,
      "%s: %s", two, http_reply);
  respond("\"input\": \"b\", \"instructions\": \"y\"", first, other, text, NULL);
  CHECK(http_get("/sessions") == 200 && strstr(http_reply, first) && strstr(http_reply, second) && strstr(http_reply, third) &&
            http_times("\"object\": \"session\"") == 3,
        "those are kept that were to be: %s", http_reply);
  CHECK(http_post("/v1/responses", "{\"input\": \"b\", \"previous_response_id\": \"%s\"}", other) == 404 &&
            strstr(http_reply, "previous_response_not_found"),
        "%s", http_reply);
  CHECK(server_end(&server) == 0, "not well");
  CHECK(server_begin(&server, "talks --chat-template t.jinja --sessions kept"), "no server");
  respond("\"input\": \"b\"", first, other, again, &cached); /* also of another server */
  CHECK(!strcmp(two, again), "%s, %s", two, again);
  char path[300];
  snprintf(path, sizeof path, "/sessions/%s", first);
  CHECK(http_ask("DELETE", path, "", "") == 200, "%s", http_reply);
  CHECK(http_post("/v1/responses", "{\"input\": \"b\", \"previous_response_id\": \"%s\"}", first) == 404, "%s", http_reply);
}

/* param is the key that the request has, whatever a chat would call it. */
static void refusals_name_its_own_keys(void) {
  char long_one[1001];
  memset(long_one, 'a', 1000), long_one[1000] = 0;
  CHECK_OK(mn_file_write("kept/resp_bad.safetensors", "none", 4));
  const struct {
    const char *path, *param, *body;
  } all[] = {
      {"/v1/responses", "previous_response_id", "{\"input\": \"a\", \"previous_response_id\": \"../x\"}"},
      {"/v1/responses", "previous_response_id", "{\"input\": \"a\", \"previous_response_id\": \"resp_bad\"}"},
      {"/v1/responses", "session_id", "{\"input\": \"a\", \"session_id\": \"resp_bad\"}"},
      {"/v1/responses", "input", "{\"input\": \"%s\"}"},
      {"/v1/responses", "max_output_tokens", "{\"input\": \"a\", \"max_output_tokens\": 2000}"},
      {"/v1/responses", "text",
       "{\"input\": \"a\", \"text\": {\"format\": {\"type\": \"json_schema\", \"name\": \"x\", \"schema\": {\"type\": \"stone\"}}}}"},
      {"/v1/chat/completions", "messages", "{\"messages\": [{\"role\": \"user\", \"content\": \"%s\"}]}"},
      {"/v1/chat/completions", "max_tokens", "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}], \"max_tokens\": 2000}"},
      {"/v1/chat/completions", "max_completion_tokens",
       "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}], \"max_completion_tokens\": 2000}"},
      {"/v1/completions", "prompt", "{\"prompt\": \"%s\"}"},
  };
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
    const char *at = strstr(all[i].body, "%s");
    char *body = at ? mn_format("%.*s%s%s", (int)(at - all[i].body), all[i].body, long_one, at + 2) : mn_format("%s", all[i].body);
    CHECK(http_ask("POST", all[i].path, "", body) == 400 && !strcmp(http_text(http_body(), "param"), all[i].param), "%.200s: %s", body,
          http_reply);
    CHECK(!strstr(all[i].body, "resp_bad") || (!strstr(http_reply, "not_found") && strstr(http_reply, "resp_bad.safetensors")), "why: %s",
          http_reply);
    free(body);
  }
}

static void anothers_response_is_not_there(void) {
  static const char keys[] = "first-key-of-all\nsecond-key-of-all\n", first[] = "Authorization: Bearer first-key-of-all\r\n",
                    second[] = "Authorization: Bearer second-key-of-all\r\n";
  char id[64], of_it[1000], *body;
  mn_arena *arena = mn_arena_new();
  CHECK(server_end(&server) == 0, "not well");
  CHECK_OK(mn_file_write("keys.txt", keys, sizeof keys - 1));
  CHECK(server_begin(&server, "talks --chat-template t.jinja --api-key-file keys.txt"), "no server");
  CHECK(http_ask("POST", "/v1/responses", first, "{\"input\": \"a\", \"store\": true, \"max_output_tokens\": 4}") == 200, "%s", http_reply);
  snprintf(id, sizeof id, "%s", text_at(reply_of(arena), "id"));
  body = mn_format("{\"input\": \"b\", \"max_output_tokens\": 4, \"previous_response_id\": \"%s\"}", id);
  CHECK(http_ask("POST", "/v1/responses", second, body) == 404, "%s", http_reply);
  snprintf(of_it, sizeof of_it, "%s", http_body());
  CHECK(http_ask("POST", "/v1/responses", second, "{\"input\": \"b\", \"previous_response_id\": \"resp_none\"}") == 404 &&
            !strcmp(of_it, http_body()),
        "%s, not %s", http_body(), of_it);
  CHECK(http_ask("POST", "/v1/responses", first, body) == 200, "%s", http_reply);
  CHECK(http_ask("GET", "/sessions", second, "") == 200 && !http_times("\"object\": \"session\"") &&
            http_ask("GET", "/sessions", first, "") == 200 && strstr(http_reply, id),
        "%s", http_reply);
  free(body), mn_arena_free(arena);
}

static void wrong_requests_are_refused_by_name(void) {
  static const struct {
    const char *body, *said;
  } all[] = {
      {"{}", "'input' is missing"},
      {"{\"input\": 3}", "'input' is not a text"},
      {"{\"input\": []}", "'input' is not a text"},
      {"{\"input\": \"a\", \"messages\": []}", "unknown parameter 'messages'"},
      {"{\"input\": [3]}", "'input.0' is not a map"},
      {"{\"input\": [{\"type\": \"reasoning\"}]}", "'input.0' is of a type"},
      {"{\"input\": [{\"content\": \"a\"}]}", "'input.0' has no role"},
      {"{\"input\": [{\"role\": \"user\", \"content\": [{\"type\": \"input_image\"}]}]}", "a part that is no text"},
      {"{\"input\": [{\"role\": \"user\", \"content\": \"a\", \"colour\": 1}]}", "'input.0' has the key 'colour'"},
      {"{\"input\": [{\"type\": \"function_call\", \"name\": \"f\"}]}", "without a call_id"},
      {"{\"input\": [{\"type\": \"function_call_output\", \"output\": \"f\"}]}", "without a call_id"},
      {"{\"input\": \"a\", \"tools\": 3}", "not a list of tools"},
      {"{\"input\": \"a\", \"tools\": [{\"type\": \"web_search\"}]}", "has one that is not"},
      {"{\"input\": \"a\", \"tool_choice\": {\"type\": \"x\"}}", "'tool_choice' is not"},
      {"{\"input\": \"a\", \"tool_choice\": \"required\"}", "there are no 'tools'"},
      {"{\"input\": \"a\", \"text\": {\"verbosity\": \"low\"}}", "'text' has the key 'verbosity'"},
      {"{\"input\": \"a\", \"text\": {\"format\": {\"type\": \"xml\"}}}", "text, json_object or json_schema"},
      {"{\"input\": \"a\", \"instructions\": 3}", "'instructions' is not a text"},
      {"{\"input\": \"a\", \"background\": true}", "'background' is not supported"},
      {"{\"input\": \"a\", \"truncation\": \"auto\"}", "'truncation' is not supported"},
      {"{\"input\": \"a\", \"store\": true, \"session_id\": \"s\"}", "leave out 'store'"},
      {"{\"input\": \"a\", \"previous_response_id\": \"../x\"}", "no name of a session"},
      {"{\"input\": \"a\", \"previous_response_id\": 3}", "'previous_response_id' is 3"},
  };
  for (size_t i = 0; i < sizeof all / sizeof *all; i++)
    CHECK(http_post("/v1/responses", "%s", all[i].body) == 400 && strstr(http_reply, all[i].said), "%s: %s", all[i].body, http_reply);
  CHECK(http_get("/health") == 200, "%s", http_reply);
}

/* Calls and results in turn. */
static double memory_of_calls(int n) {
  mn_arena *arena = mn_arena_new();
  mn_text t = {0};
  const mn_value *body = NULL;
  mn_refusal why = {0};
  mn_text_add(&t, "{\"input\": [");
  for (int i = 0; i < n; i++)
    mn_text_addf(&t,
                 "%s{\"type\": \"function_call\", \"call_id\": \"a\", \"name\": \"add\", \"arguments\": \"{}\"}, "
                 "{\"type\": \"function_call_output\", \"call_id\": \"a\", \"output\": \"1\"}",
                 i ? ", " : "");
  mn_text_add(&t, "]}");
  CHECK_OK(mn_json_parse(arena, "body", t.data, t.len, &body));
  const double before = (double)mn_arena_used(arena);
  const mn_value *chat = body ? mn_ask_response_as_chat(arena, body, &why) : NULL, *messages = mn_value_get(chat, "messages");
  CHECK(messages && messages->count == 2 * (size_t)n, "%s", mn_message());
  const double used = (double)mn_arena_used(arena) - before;
  mn_text_free(&t), mn_arena_free(arena);
  return used;
}

static void many_calls_cost_what_they_are_long(void) {
  const double one = memory_of_calls(2000), two = memory_of_calls(4000);
  CHECK(one > 0 && two < 2.5 * one, "%.0f bytes, of twice as many %.0f", one, two);
}

int main(void) {
  signal(SIGPIPE, SIG_IGN);
  RUN(many_calls_cost_what_they_are_long);
  RUN(prepare);
  if (server.port) {
    RUN(it_says_what_a_chat_says);
    RUN(a_stream_is_the_whole_in_events);
    RUN(calls_are_items);
    RUN(forms_hold);
    RUN(a_kept_response_is_gone_on_from);
    RUN(wrong_requests_are_refused_by_name);
    RUN(refusals_name_its_own_keys);
    RUN(anothers_response_is_not_there);
  }
  if (server.pid) server_end(&server);
  return test_end();
}
