/* ask_tools.h - the functions that a request offers, and keys of maps inside of requests: what is not known, or would have no effect, is named. */
#ifndef MN_SERVE_ASK_TOOLS_H
#define MN_SERVE_ASK_TOOLS_H

#include "serve/ask.h"

/* The first key of a map that is none of `known` (its end is NULL) and says something: neither null nor an empty list. NULL: none. */
const char *mn_ask_other_key(const mn_value *map, const char *const *known);
/* Is each a function as OpenAI's interface has them: a name of 1 to 64 letters, digits, '_' or '-' that no other has, a description that is a
 * text, parameters of type object, strict true or false, and nothing else? */
bool mn_ask_check_tools(mn_arena *arena, const mn_value *tools, mn_refusal *why);
/* Does one say strict: true? */
bool mn_ask_strict_tools(const mn_value *tools);
/* What is wrong with a call of a message, {"id", "type": "function", "function": {"name", "arguments"}}; NULL: nothing. Arguments are an object
 * or a text, which need be no JSON: a model may have said it. */
const char *mn_ask_call_fault(const mn_value *call);

#endif
