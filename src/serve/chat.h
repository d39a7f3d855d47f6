/* chat.h - messages to the text that a model goes on from: its chat template, given what a request says. */
#ifndef MN_SERVE_CHAT_H
#define MN_SERVE_CHAT_H

#include "checkpoint/bundle.h"
#include "format/template.h"
#include "serve/ask.h"

/* Messages as templates read them: each a map with role and content, whose parts of text are one text and whose calls have arguments as
 * maps. They live in the arena. NULL: refused. */
const mn_value *mn_chat_messages(mn_arena *arena, const mn_value *messages, mn_refusal *why);
/* The whole dialogue, ready for the model's answer. */
bool mn_chat_render(mn_arena *arena, const mn_template *t, const mn_bundle *bundle, const mn_value *messages, const mn_ask *ask,
                    mn_text *out, mn_refusal *why);
/* Of a model of ours, in its directory: a template that writes dialogues as its training did (recipe.json), and, where no token ends an
 * answer, the text that does. Both malloc'ed; NULL: it was not trained on dialogues. */
mn_status mn_chat_form(const char *dir, const mn_tokenizer *tok, char **text, char **end);

#endif
