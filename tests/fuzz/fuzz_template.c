/* Any bytes as a chat template over a small conversation: refused with a message, or a text; and the same text again. */
#include "format/json.h"
#include "format/template.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char values[] =
    "{\"messages\": [{\"role\": \"user\", \"content\": \"Hi \\u00fc\"}, {\"role\": \"assistant\", \"content\": null, "
    "\"tool_calls\": [{\"function\": {\"name\": \"f\", \"arguments\": {\"x\": [1, 2.5, true]}}}]}], \"tools\": [], "
    "\"a\": 7, \"b\": -3, \"f\": 2.5, \"s\": \" text \", \"t\": true, \"n\": null, \"l\": [3, 1, 2], \"m\": {\"x\": 1}, "
    "\"add_generation_prompt\": true, \"bos_token\": \"<s>\"}";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const mn_template_limits limits = {.output = 1 << 18, .memory = 16 << 20, .steps = 100000, .now = 1764417600};
  mn_arena *arena = mn_arena_new();
  const mn_value *v = NULL;
  mn_template *t = NULL;
  mn_text first = {0}, again = {0};
  if (mn_json_parse(arena, "values", values, sizeof values - 1, &v) != MN_OK) abort();
  if (mn_template_parse("fuzz", (const char *)data, size, &t) != MN_OK) {
    if (t || !*mn_message()) abort();
  } else if (mn_template_render(t, v, &limits, &first) != MN_OK) {
    if (!*mn_message() || first.len) abort();
  } else if (mn_template_render(t, v, &limits, &again) != MN_OK || again.len != first.len ||
             (first.len && memcmp(first.data, again.data, first.len) != 0)) {
    abort();
  }
  mn_text_free(&first);
  mn_text_free(&again);
  mn_template_free(t);
  mn_arena_free(arena);
  return 0;
}
