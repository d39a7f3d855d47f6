/* chat.h - what a request's messages are: checked, key by key, before a template is given them (run/chat.h). */
#ifndef MN_SERVE_CHAT_H
#define MN_SERVE_CHAT_H

#include "serve/ask.h"

/* Each with its role, a content that is one text, and what else templates read; keys that would have no effect are refused, developers are
 * the system. They live in the arena. NULL: refused. */
const mn_value *mn_ask_messages(mn_arena *arena, const mn_value *messages, mn_refusal *why);
/* Does each tool_call_id name a call of a message before? param: the request's name for its messages. */
bool mn_ask_check_results(mn_arena *arena, const mn_value *messages, const char *param, mn_refusal *why);

#endif
