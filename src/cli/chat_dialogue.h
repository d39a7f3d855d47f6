/* chat_dialogue.h - what was said in a dialogue, turn by turn, and where the model's stream stood behind each; as the note of its file. */
#ifndef MN_CHAT_DIALOGUE_H
#define MN_CHAT_DIALOGUE_H

#include "base/text.h"
#include "format/value.h"

typedef struct mn_chat_turn {
  char *user, *answer;
  size_t bytes;   /* of the text, up to its end */
  int64_t tokens; /* of the stream               */
} mn_chat_turn;

typedef struct mn_dialogue { /* zero-initialise */
  char *system;              /* NULL: none */
  mn_chat_turn *turns;
  int64_t n, room;
  mn_text text; /* all that the model has read and said, special tokens among it */
} mn_dialogue;

void mn_dialogue_free(mn_dialogue *d);
/* Takes the strings over, also when it fails. */
mn_status mn_dialogue_add(mn_dialogue *d, char *user, char *answer, int64_t tokens);
/* All but the first n turns go. */
void mn_dialogue_cut(mn_dialogue *d, int64_t n);
/* The messages, and one more of the user where it is not NULL. */
mn_status mn_dialogue_messages(const mn_dialogue *d, const char *user, size_t n, mn_arena *arena, const mn_value **out);

mn_status mn_dialogue_write(const mn_dialogue *d, mn_text *out);
/* `file` is for messages. tokens: of the stream, which no turn may pass. */
mn_status mn_dialogue_read(const char *file, const mn_text *note, int64_t tokens, mn_dialogue *out);

#endif
