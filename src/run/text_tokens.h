/* text_tokens.h - the tokens of a text of any length, from a file or a pipe, at constant memory.
 *
 * The text is read in blocks and encoded block by block; what could still be changed by the next block waits for it, so that the
 * tokens are those of the whole text. */
#ifndef MN_TEXT_TOKENS_H
#define MN_TEXT_TOKENS_H

#include "format/spelled.h"
#include "format/tokenizer.h"

typedef struct mn_text_tokens mn_text_tokens;

/* path "-": standard input. The tokenizer must outlive it. */
mn_status mn_text_tokens_open(const char *path, const mn_tokenizer *tok, mn_text_tokens **out);
void mn_text_tokens_close(mn_text_tokens *t);
/* At most n tokens into ids; *got 0 at the end of the text. */
mn_status mn_text_tokens_next(mn_text_tokens *t, int64_t n, int32_t *ids, int64_t *got);
mn_spelled mn_text_tokens_spelled(const mn_text_tokens *t); /* special tokens that the text spelled out so far */
int64_t mn_text_tokens_bytes(const mn_text_tokens *t);      /* of text, encoded so far              */
int64_t mn_text_tokens_file_bytes(const mn_text_tokens *t); /* of the whole file; 0: it is not known */

#endif
