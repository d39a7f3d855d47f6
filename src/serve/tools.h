/* tools.h - calls of functions in what a model said, in the forms that models were trained on:
 *   <tool_call>{"name": ..., "arguments": {...}}</tool_call>, also with a list inside, any number of them (Hermes, Qwen, SmolLM)
 *   [TOOL_CALLS] [{"name": ..., "arguments": {...}}, ...]                                             (Mistral)
 *   <function=NAME>{...}</function>                                                                   (Llama 3.1, functionary)
 *   <|python_tag|>{"name": ..., "parameters": {...}}, or that JSON as all that was said               (Llama 3)
 * Only functions that the request names are calls; anything else is text. */
#ifndef MN_SERVE_TOOLS_H
#define MN_SERVE_TOOLS_H

#include "base/text.h"
#include "format/value.h"

typedef struct mn_tool_call {
  const char *name, *arguments; /* the arguments as JSON; of a call that was cut the beginning of that, "" where it had not begun */
} mn_tool_call;

enum { MN_TOOL_CALLS = 64 };
/* The calls in text[0..n); *content: how many bytes at its beginning are text before them (n: all). tools: the request's list. cut: the text
 * ends where it may not be whole; then the last call is one, too, if as much of it is there as its name. What is given out lives in the
 * arena. */
int mn_tools_find(mn_arena *arena, const mn_value *tools, const char *text, size_t n, bool cut, mn_tool_call *calls, size_t *content);
/* How many bytes of what was said so far are text for certain, whatever follows: for who passes it on as it comes. */
size_t mn_tools_certain(const char *text, size_t n);
/* The function of that name in a request's tools; NULL: none. */
const mn_value *mn_tools_function(const mn_value *tools, const char *name);

#endif
