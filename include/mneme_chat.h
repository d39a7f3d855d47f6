/* mneme_chat.h - dialogues with a model, beside mneme.h, whose rules of errors, ownership, settings and threads hold here, too. */
#ifndef MNEME_CHAT_H
#define MNEME_CHAT_H

#include <mneme.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- a dialogue: turns of a person and a model --------------------------------------------------------------------- */

typedef struct mn_chat mn_chat;

/* A dialogue with a model that has a chat template (Jinja), or is given one in a file (NULL: its own). system: what the model is told before all
 * (NULL: nothing). The model's directory may be one of Hugging Face's, and mn_lm_open also takes a GGUF file. MN_ERR_CONFIG: no template, no
 * tokenizer, or a model that keeps no text. What a person writes never becomes a special token. */
mn_status mn_chat_new(const mn_lm *lm, const char *template_file, const char *system, mn_chat **out);
void mn_chat_free(mn_chat *c);
mn_status mn_chat_fork(const mn_chat *c, mn_chat **out); /* an independent copy that goes its own way */

/* Called with each piece of an answer: valid UTF-8, `bytes` long. Borrowed. false stops: what was said of the answer is kept. */
typedef bool (*mn_piece_fn)(void *ctx, const char *text, size_t bytes);
/* A turn: the person's message, and the model's answer of at most max_tokens (0: as many as there is room for). Only what is new of the dialogue
 * is read. Settings are those of mn_stream_generate. After a failure the dialogue is as it was. on_piece may be NULL. */
mn_status mn_chat_say(mn_chat *c, const char *text, int64_t max_tokens, const char *const *settings, mn_piece_fn on_piece, void *ctx);

int64_t mn_chat_turns(const mn_chat *c);           /* that were said */
mn_status mn_chat_back(mn_chat *c, int64_t turns); /* takes back the last so many; MN_ERR_ARG: there are fewer */
int64_t mn_chat_tokens_read(const mn_chat *c);     /* tokens computed since it was made, its answers' among them */

/* The dialogue's file: messages, tokens, state and snapshots, written whole or not at all. Loading refuses the file of another model, one that was
 * cut or changed, and one without messages; what follows has the same bits as if nothing had stopped. Saving to the file that it was loaded from
 * is MN_ERR_IO where somebody else has written that since, as for mn_stream_save. */
mn_status mn_chat_save(mn_chat *c, const char *path);
mn_status mn_chat_load(const mn_lm *lm, const char *template_file, const char *path, mn_chat **out);

#ifdef __cplusplus
}
#endif

#endif
