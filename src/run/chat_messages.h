/* chat_messages.h - messages as a chat template is given them, and marks around what was written by people but spells a special token.
 *
 * The marks are two noncharacters of Unicode, which no text holds; those that stand in a message are taken out first. Methods of strings in a
 * template may cut one of the two off: what stands beside the other is still no special token. */
#ifndef MN_CHAT_MESSAGES_H
#define MN_CHAT_MESSAGES_H

#include "format/tokenizer.h"
#include "format/value.h"

typedef struct mn_chat_word { /* a special token */
  const char *text;
  size_t n;
  int32_t id;
} mn_chat_word;
typedef struct mn_chat_words { /* long ones first */
  mn_chat_word *at;
  size_t n;
  bool begins[256]; /* which bytes one begins with */
} mn_chat_words;

mn_status mn_chat_words_of(const mn_tokenizer *tok, mn_arena *arena, mn_chat_words *out);
int32_t mn_chat_word_at(const mn_chat_words *words, const char *s, size_t n); /* the one that s begins with; -1: none */

/* What is null goes, and parts of text are joined. MN_ERR_CONFIG says which message is no message of a model of text. */
mn_status mn_chat_plain(mn_arena *arena, const mn_value *messages, const mn_value **out);
/* The same, and arguments are a map or text, and words are marked. */
mn_status mn_chat_prepared(mn_arena *arena, const mn_chat_words *words, const mn_value *messages, bool as_map, const mn_value **out);
/* The tree with its texts, and the keys of its maps, marked; NULL: out of memory. */
const mn_value *mn_chat_marked(mn_arena *arena, const mn_chat_words *words, const mn_value *v);

void mn_chat_unmark(const char *s, size_t n, mn_text *out); /* appends it without marks */
/* The next part of a marked text of n > 0 bytes; one between marks is plain: no special tokens are read in it. */
typedef struct mn_chat_part {
  const char *text;
  size_t n;
  bool plain;
  size_t passed; /* bytes to go on by, marks among them */
} mn_chat_part;
mn_chat_part mn_chat_next(const mn_chat_words *words, const char *s, size_t n);
/* Does s without its marks begin with `known`? *at: where in s it ends. */
bool mn_chat_begins(const char *s, size_t n, const char *known, size_t n_known, size_t *at);

#endif
