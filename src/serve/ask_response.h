/* ask_response.h - the body of /v1/responses as that of a chat: the same model answers, only the words are others. */
#ifndef MN_SERVE_ASK_RESPONSE_H
#define MN_SERVE_ASK_RESPONSE_H

#include "serve/ask.h"

/* `input` and `instructions` become messages, function_call and function_call_output items among them; tools, tool_choice and text.format
 * take the chat's shape; other keys stay as they are. It lives in the arena. NULL: refused. */
const mn_value *mn_ask_response_as_chat(mn_arena *arena, const mn_value *body, mn_refusal *why);

#endif
