/* chat_form.h - how a model of ours was trained to read dialogues: what its recipe says stands before and behind messages. */
#ifndef MN_CHAT_FORM_H
#define MN_CHAT_FORM_H

#include "base/text.h"
#include "format/value.h"

typedef struct mn_chat_form {
  bool trained;                       /* on dialogues; else the three are the usual ones */
  const char *user, *assistant, *end; /* before a person's message, before an answer, behind each */
} mn_chat_form;

/* dir: the model's directory, whose recipe.json tells: of the last stage that has data. Texts live in the arena. */
mn_status mn_chat_form_read(const char *dir, mn_arena *arena, mn_chat_form *out);
/* Appends a chat template (Jinja) that writes dialogues so. */
mn_status mn_chat_form_template(const mn_chat_form *f, mn_text *out);

#endif
