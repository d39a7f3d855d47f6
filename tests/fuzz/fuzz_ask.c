/* Any bytes to what reads the bodies of requests (the first byte says of which kind) and the messages in them, to the compiler of schemas, to the machine that runs
 * them, and to who looks for calls in what a model said: refused with a message, or read within its limits. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "format/json.h"
#include "serve/ask.h"
#include "serve/chat.h"
#include "serve/json_schema.h"
#include "serve/tools.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void need(bool fine, const char *what) {
  if (fine) return;
  fprintf(stderr, "%s\n", what);
  abort();
}

/* The text is walked through; where it leaves, what may come is looked at. */
static void walk(mn_grammar *g, const uint8_t *data, size_t size) {
  mn_machine *m;
  if (mn_machine_new(g, &m) == MN_OK) {
    int32_t at = mn_machine_begin(m);
    for (size_t i = 0; i < size && i < 2000; i++) {
      int32_t next = mn_machine_next(m, at, data[i]);
      for (int b = 0; b < 256 && next < 0; b++) next = mn_machine_next(m, at, (unsigned char)(b * 7 + data[i]));
      if (next < 0) break;
      at = next;
    }
    need(mn_machine_status(m) != MN_OK || mn_machine_whole(m, at) || mn_machine_goes_on(m, at), "a state that leads nowhere");
    mn_machine_free(m);
  }
  mn_grammar_free(g);
}

/* What a template is given: each message with a role, and results of calls that are there. */
static void read_messages(mn_arena *arena, const mn_value *messages) {
  mn_refusal why = {0};
  const mn_value *all = mn_ask_messages(arena, messages, &why);
  for (size_t i = 0; all && i < all->count; i++) need(mn_value_get(all->as.items[i], "role") != NULL, "a message without a role");
  if (!all || !mn_ask_check_results(arena, all, "messages", &why)) need(why.status >= 400 && why.message[0], "a refusal without a word");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const mn_ask_kind kinds[] = {MN_ASK_COMPLETION, MN_ASK_CHAT, MN_ASK_EMBEDDING, MN_ASK_RESPONSE};
  const mn_ask_limits limits = {1000, 8, 16, 4096};
  mn_arena *arena = mn_arena_new();
  mn_ask ask;
  mn_refusal why = {0};
  const mn_value *v = NULL;
  if (!arena || !size) {
    mn_arena_free(arena);
    return 0;
  }
  const char *body = (const char *)data + 1;
  const size_t n = size - 1;
  if (mn_ask_read(arena, kinds[data[0] % 4], body, n, &limits, &ask, &why)) {
    need(ask.n_prompts <= limits.most_prompts && ask.manner.n_stops <= MN_ASK_STOPS && ask.manner.top <= MN_TOP, "more than may be");
    if (ask.kind != MN_ASK_EMBEDDING)
      need(ask.n >= 1 && ask.n <= limits.most_answers && ask.manner.sampling.temperature <= 2, "out of its range");
    for (int i = 0; i < ask.manner.n_bias; i++)
      need(ask.manner.bias[i].token >= 0 && ask.manner.bias[i].token < limits.vocab_size, "a token that is none");
    if (ask.messages) read_messages(arena, ask.messages);
    mn_grammar *g = NULL;
    if (ask.format == MN_FORMAT_SCHEMA && mn_grammar_of_schema(ask.schema, &g) == MN_OK) walk(g, data, size);
    if (ask.tools && mn_grammar_of_calls(ask.tools, ask.function, &g) == MN_OK) walk(g, data, size);
    if (ask.tools) {
      mn_tool_call calls[MN_TOOL_CALLS];
      size_t content;
      for (int cut = 0; cut < 2; cut++) {
        const int found = mn_tools_find(arena, ask.tools, body, n, cut, calls, &content);
        need(found >= 0 && found <= MN_TOOL_CALLS && content <= n && mn_tools_certain(body, n) <= n, "calls that are none");
        for (int i = 0; i < found; i++) need(calls[i].name && calls[i].arguments, "a call without a name or arguments");
      }
    }
  } else need(why.status >= 400 && why.message[0], "a refusal without a word");
  if (mn_json_parse(arena, "schema", body, n, &v) == MN_OK) {
    mn_grammar *g = NULL;
    if (mn_grammar_of_schema(v, &g) == MN_OK) walk(g, data, size);
  }
  mn_arena_free(arena);
  return 0;
}
