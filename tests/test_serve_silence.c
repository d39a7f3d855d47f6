/* test_serve_silence.c - what must be true of all that a request says: it has an effect, is refused by its name, or is named in the reply's header
 * Mneme-No-Effect. With a chat template that shows calls, results and names, with one that shows none of them, and with one that leaves out what
 * tools said. */
#include "base/text.h"
#include "serve_helpers.h"

static server_process server;
static const char dialogues[] =
    "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", \"content\": \"ok\"}, {\"role\": \"user\", \"content\": \"b\"}, "
    "{\"role\": \"assistant\", \"content\": \"no\"}]}\n";
static const char recipe[] =
    "name: talks\ntokenizer: {type: bytes}\ndata: {type: dialogues, files: [d.jsonl], user: 'u', assistant: 'a', validation: 0}\n"
    "model: {d_model: 16, layers: 1, block: {mixer: {type: attention, heads: 2, max_context: 900}, hidden: 16}}\n"
    "train: {steps: 1, batch: 1, seq_len: 16}\n";
static const char
    shows[] = "{%- if tools %}T{{ tools | tojson }}{% endif %}{%- for m in messages %}{{ m.role[0] }}{{ m.name }}{{ m.content or '' }}"
              "{% for c in m.tool_calls or [] %}C{{ c.function.name }}{{ c.function.arguments | tojson }}{% endfor %}{% endfor %}a",
    plain[] = "{%- for m in messages %}{{ m.role[0] + m.content }}{% endfor %}a",
    deaf[] = "{%- for m in messages %}{% if m.role != 'tool' %}{{ m.role[0] }}{% for c in m.tool_calls or [] %}{{ c.function.name }}"
             "{% endfor %}{{ m.content or '' }}{% endif %}{% endfor %}a";

static void prepare(void) {
  trained("talks", recipe, "d.jsonl", dialogues, sizeof dialogues - 1);
  CHECK_OK(mn_file_write("shows.jinja", shows, sizeof shows - 1));
  CHECK_OK(mn_file_write("plain.jinja", plain, sizeof plain - 1));
  CHECK_OK(mn_file_write("deaf.jinja", deaf, sizeof deaf - 1));
}

typedef struct asked {
  const char *body;
  int status;
  const char *said; /* in the reply */
} asked;

/* Each body has one of these ends, which say nothing that is looked at here. */
static void ask_all(const char *path, const char *end, const asked *all, size_t n) {
  for (size_t i = 0; i < n; i++) {
    const int status = http_post(path, "{%s, %s}", all[i].body, end);
    CHECK(status == all[i].status && strstr(http_reply, all[i].said), "%s {%s}: %d, %s", path, all[i].body, status, http_reply);
  }
}
#define ASK(path, end, all) ask_all(path, end, all, sizeof all / sizeof *all)
#define CHAT                "/v1/chat/completions"
#define USER                "{\"role\": \"user\", \"content\": \"a\"}"
#define CALL                "{\"id\": \"c1\", \"type\": \"function\", \"function\": {\"name\": \"add\", \"arguments\": \"{\\\"a\\\": 1}\"}}"
#define CALLS(call)         "{\"role\": \"assistant\", \"content\": null, \"tool_calls\": [" call "]}"
#define RESULT              "{\"role\": \"tool\", \"tool_call_id\": \"c1\", \"content\": \"3\"}"
#define NONE                "Mneme-No-Effect: "

static void messages_are_read_to_their_last_key(void) {
  static const asked all[] = {
      {"\"messages\": []", 400, "'messages' is an empty list"},
      {"\"messages\": [{\"role\": \"user\"}]", 400, "message 1 has no content"},
      {"\"messages\": [" USER ", {\"role\": \"user\", \"content\": null}]", 400, "\"param\": \"messages.1\""},
      {"\"messages\": [{\"role\": \"assistant\"}]", 400, "message 1 has neither content nor tool_calls"},
      {"\"messages\": [{\"role\": \"wizard\", \"content\": \"a\"}]", 400, "a role that is the text 'wizard'"},
      {"\"messages\": [{\"role\": \"user\", \"content\": \"a\", \"foo\": 1}]", 400, "message 1 has the key 'foo'"},
      {"\"messages\": [{\"role\": \"user\", \"content\": \"a\", \"foo\": null, \"annotations\": []}]", 200, "chat.completion"},
      {"\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"text\", \"text\": \"a\", \"foo\": 1}]}]", 400,
       "\"param\": \"messages.0.content.0.foo\""},
      {"\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": 5, \"text\": \"a\"}]}]", 400, "a type that is no text"},
      {"\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"image_url\", \"image_url\": {}}]}]", 400, "reads text, no images"},
      {"\"messages\": [{\"role\": \"user\", \"content\": \"a\", \"tool_call_id\": \"c1\"}]", 400, "and is not a tool's"},
      {"\"messages\": [{\"role\": \"user\", \"content\": \"a\", \"name\": 3}]", 400, "a name that is no text"},
      {"\"messages\": [" USER "], \"max_completion_tokens\": 2", 400, "'max_tokens' is 1 and 'max_completion_tokens' 2"},
      {"\"messages\": [" USER "], \"max_completion_tokens\": 1", 200, "chat.completion"},
      {"\"messages\": [" USER "], \"parallel_tool_calls\": false", 200, NONE "parallel_tool_calls"},
      {"\"messages\": [" USER "], \"response_format\": {\"type\": \"json_schema\", \"json_schema\": {\"schema\": {}, \"foo\": 1}}", 400,
       "unknown key 'json_schema.foo'"},
      {"\"messages\": [" USER "], \"response_format\": {\"type\": \"json_schema\", \"json_schema\": {\"schema\": {}, \"strict\": 1}}", 400,
       "neither true nor false"},
  };
  ASK(CHAT, "\"max_tokens\": 1", all);
}

static void calls_are_looked_at(void) {
  static const asked all[] = {
      {"\"messages\": [" USER ", " CALLS(CALL) ", " RESULT "]", 200, "chat.completion"},
      {"\"messages\": [" USER ", " RESULT "]", 400, "message 2 is the result of the call 'c1'"},
      {"\"messages\": [" USER ", " CALLS("{\"function\": {\"name\": \"f\", \"arguments\": \"{x\"}}") "]", 200, "chat.completion"},
      {"\"messages\": [" USER ", " CALLS("{\"function\": {\"name\": \"f\", \"arguments\": [1]}}") "]", 400, "neither a text nor an object"},
      {"\"messages\": [" USER ", " CALLS("{\"function\": {\"name\": \"f\", \"arguments\": \"\"}}") "]", 200, "chat.completion"},
      {"\"messages\": [" USER ", " CALLS("{\"type\": \"x\", \"function\": {\"name\": \"f\"}}") "]", 400, "another type than function"},
      {"\"messages\": [" USER ", " CALLS("{\"foo\": 1, \"function\": {\"name\": \"f\"}}") "]", 400, "a key that is not known here"},
      {"\"messages\": [{\"role\": \"user\", \"content\": \"a\", \"name\": \"bob\"}]", 200, "\"prompt_tokens\": 6"},
  };
  ASK(CHAT, "\"max_tokens\": 1", all);
  CHECK(!strstr(http_reply, NONE), "the template writes it: %s", http_reply);
}

#define FUNCTION(more) "\"tools\": [{\"type\": \"function\", \"function\": {\"name\": \"f\"" more "}}]"
static void tools_are_looked_at(void) {
  static const asked all[] = {
      {FUNCTION(", \"description\": \"d\", \"parameters\": {\"type\": \"object\"}, \"strict\": false"), 200, "chat.completion"},
      {FUNCTION(", \"strict\": true"), 200, NONE "tools.strict"},
      {FUNCTION(", \"strict\": \"x\""), 400, "a strict that is neither true nor false"},
      {FUNCTION(", \"description\": 5"), 400, "\"param\": \"tools.0.function.description\""},
      {FUNCTION(", \"foo\": 1"), 400, "tool 0 has the key 'foo'"},
      {FUNCTION(", \"parameters\": {\"type\": \"obj\"}"), 400, "parameters that are not of type object"},
      {"\"tools\": [{\"type\": \"function\", \"foo\": 1, \"function\": {\"name\": \"f\"}}]", 400, "tool 0 has the key 'foo'"},
      {"\"tools\": [{\"type\": \"function\", \"function\": {\"name\": \"a b/c\"}}]", 400, "1 to 64 letters, digits"},
      {"\"tools\": [{\"type\": \"function\", \"function\": {\"name\": \""
       "0123456789012345678901234567890123456789012345678901234567890123"
       "4\"}}]",
       400, "1 to 64 letters, digits"},
      {"\"tools\": [{\"type\": \"function\", \"function\": {\"name\": \"f\"}}, {\"type\": \"function\", \"function\": {\"name\": \"f\"}}]",
       400, "tool 1 has the name of one before it"},
      {FUNCTION("") ", \"tool_choice\": {\"type\": \"x\", \"function\": {\"name\": \"f\"}}", 400, "'tool_choice' is"},
      {FUNCTION("") ", \"tool_choice\": {\"type\": \"function\", \"foo\": 1, \"function\": {\"name\": \"f\"}}", 400, "'tool_choice' is"},
  };
  ASK(CHAT, "\"messages\": [" USER "], \"max_tokens\": 1", all);
  CHECK(http_post(CHAT, "{\"messages\": [" USER
                        "], \"max_tokens\": 40, \"tool_choice\": \"required\", " FUNCTION(", \"strict\": true") "}") == 200 &&
            !strstr(http_reply, NONE),
        "a call that is asked for fits: %s", http_reply);
}

static void responses_name_their_own_keys(void) {
  static const asked all[] = {
      {"\"input\": [{\"role\": \"tool\", \"content\": \"a\"}]", 400, "\"param\": \"input.0\""},
      {"\"input\": [{\"role\": \"user\", \"content\": [{\"type\": \"input_text\", \"text\": \"a\", \"foo\": 1}]}]", 400,
       "'input.0.content' has the key 'foo'"},
      {"\"input\": [{\"type\": \"function_call\", \"call_id\": \"c\", \"name\": \"f\", \"arguments\": 5}]", 400, "arguments that are text"},
      {"\"input\": [{\"type\": \"function_call_output\", \"call_id\": \"zz\", \"output\": \"1\"}]", 400, "the call 'zz'"},
      {"\"input\": \"a\", \"tools\": [{\"type\": \"function\", \"name\": \"f\", \"foo\": 1}]", 400, "'tools' has the key 'foo'"},
      {"\"input\": \"a\", \"tools\": [{\"type\": \"function\", \"name\": \"f\", \"strict\": true}]", 200, NONE "tools.strict"},
      {"\"input\": \"a\", \"tool_choice\": {\"type\": \"function\", \"name\": \"f\", \"foo\": 1}", 400, "'tool_choice' has the key 'foo'"},
      {"\"input\": \"a\", \"text\": {\"format\": {\"type\": \"zz\"}}", 400, "'text.format' must be of type text"},
      {"\"input\": \"a\", \"text\": {\"format\": {\"type\": \"json_schema\"}}", 400,
       "'text.format' of type json_schema holds it as schema"},
      {"\"input\": \"a\", \"text\": {\"format\": {\"type\": \"json_schema\", \"schema\": {}, \"foo\": 1}}", 400,
       "'text' has the key 'foo'"},
      {"\"input\": \"a\", \"text\": {\"format\": {\"type\": \"json_object\", \"foo\": 1}}", 400, "'text.format' has an unknown key 'foo'"},
  };
  ASK("/v1/responses", "\"max_output_tokens\": 1", all);
}

/* A schema that the grammar cannot follow while it is met is the form's fault, by its key. */
static void a_form_that_cannot_be_kept_is_named(void) {
  mn_text body = {0};
  mn_text_add(&body,
              "{\"prompt\": \"a\", \"max_tokens\": 40, \"response_format\": {\"type\": \"json_schema\", \"json_schema\": {\"schema\": "
              "{\"type\": \"object\", \"properties\": {");
  for (int i = 0; i < 1000; i++) mn_text_addf(&body, "%s\"k%d\": {\"type\": \"integer\"}", i ? ", " : "", i);
  mn_text_add(&body, "}}}}}");
  CHECK(http_ask("POST", "/v1/completions", "", body.data) == 400 && strstr(http_reply, "\"param\": \"response_format\""), "%s",
        http_reply);
  mn_text_free(&body);
}

static void one_header_of_a_kind(void) {
  CHECK(http_ask("GET", "/v1/models", "Authorization: Bearer a\r\nAuthorization: Bearer b\r\n", "") == 400, "%s", http_reply);
  CHECK(http_ask("GET", "/v1/models", "Host: y\r\n", "") == 400 && strstr(http_reply, "two headers"), "%s", http_reply);
}

static void what_a_template_shows_is_all_that_it_is_given(void) {
  CHECK(server_begin(&server, "talks --chat-template shows.jinja"), "no server");
  if (!server.port) return;
  messages_are_read_to_their_last_key();
  calls_are_looked_at();
  tools_are_looked_at();
  responses_name_their_own_keys();
  a_form_that_cannot_be_kept_is_named();
  one_header_of_a_kind();
  CHECK(server_end(&server) == 0, "not well");
}

static void what_it_would_drop_is_refused(void) {
  static const asked all[] = {
      {"\"messages\": [{\"role\": \"user\", \"content\": \"a\", \"name\": \"bob\"}]", 200, NONE "messages.name"},
      {"\"messages\": [{\"role\": \"user\", \"content\": \"a\", \"name\": \"bob\"}], \"user\": \"me\", \"session_id\": \"s\"", 200,
       NONE "user, messages.name"},
      {"\"messages\": [" USER ", " CALLS(CALL) ", " RESULT "]", 400,
       "message 2 has tool_calls, and this model's chat template has no place"},
  };
  CHECK(server_begin(&server, "talks --chat-template plain.jinja"), "no server");
  if (!server.port) return;
  ASK(CHAT, "\"max_tokens\": 1", all);
  CHECK(server_end(&server) == 0, "not well");
  static const asked results[] = {
      {"\"messages\": [" USER ", " CALLS(CALL) "]", 200, "chat.completion"},
      {"\"messages\": [" USER ", " CALLS(CALL) ", " RESULT "]", 400,
       "message 3 is a tool's, and this model's chat template leaves those out"},
      {"\"messages\": [{\"role\": \"user\", \"content\": \"a\", \"name\": \"bob\"}]", 200, NONE "messages.name"},
  };
  CHECK(server_begin(&server, "talks --chat-template deaf.jinja"), "no server");
  if (!server.port) return;
  ASK(CHAT, "\"max_tokens\": 1", results);
  CHECK(server_end(&server) == 0, "not well");
}

int main(void) {
  signal(SIGPIPE, SIG_IGN);
  RUN(prepare);
  RUN(what_a_template_shows_is_all_that_it_is_given);
  RUN(what_it_would_drop_is_refused);
  if (server.pid) server_end(&server);
  return test_end();
}
