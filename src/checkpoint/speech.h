/* speech.h - what a checkpoint says of texts and dialogues: which tokens begin and end them, and its chat template. */
#ifndef MN_SPEECH_H
#define MN_SPEECH_H

#include "checkpoint/bundle.h"
#include "format/gguf.h"

/* generation_config.json, config.json, tokenizer_config.json, chat_template.jinja (or .json), as far as they are there. tok may be NULL. */
mn_status mn_speech_read_hf(const char *dir, const mn_tokenizer *tok, mn_speech *out);

void mn_speech_add_eos(mn_speech *s, int64_t id); /* once, as far as there is room */
void mn_speech_free(mn_speech *s);                /* its texts */

/* A whole tokenizer.json among a GGUF file's metadata. */
#define MN_GGUF_TOKENIZER_JSON "tokenizer.huggingface.json"
/* All tokens that end an answer, where they are several. */
#define MN_GGUF_EOS_IDS "tokenizer.mneme.eos_token_ids"
/* Those that are never drawn. */
#define MN_GGUF_SILENT_IDS "tokenizer.ggml.suppress_tokens"
/* The same of a GGUF file's metadata. */
mn_status mn_speech_read_gguf(const mn_gguf *g, mn_speech *out);

#endif
