/* tokenizer_gguf.h - a tokenizer from the metadata of a GGUF file: tokenizer.ggml.model gpt2 and gemma4 (byte-pair encoding by merges), llama
 * (SentencePiece's, by scores), bert (WordPiece) and t5 (unigram). What mn_tokenizer_json gives of it is a tokenizer.json with
 * the same ids, which `tokenizers` reads too. Other models and unknown names of pre-tokenisers (tokenizer.ggml.pre) are refused by
 * name. */
#ifndef MN_TOKENIZER_GGUF_H
#define MN_TOKENIZER_GGUF_H

#include "format/gguf.h"
#include "format/tokenizer.h"

/* The file may be closed afterwards. MN_ERR_FORMAT, with the key, for metadata that contradict themselves. */
mn_status mn_tokenizer_from_gguf(const mn_gguf *g, mn_tokenizer **out);
bool mn_tokenizer_in_gguf(const mn_gguf *g); /* has the file a vocabulary? */

/* Writes the vocabulary as other programs read it (tokenizer.ggml.model, pre, tokens, token_type, merges), where the tokenizer is of a kind
 * that they know: byte-level BPE that cuts text as one of the named families does, SentencePiece's BPE, BERT's WordPiece and RWKV's. They
 * want as many tokens as the model has rows, `rows`: added tokens behind them are left out, and rows without a token get one that no text
 * becomes. *done says whether the tokenizer is of that kind, with no others behind; nothing is written where it is not. */
mn_status mn_tokenizer_to_gguf(const mn_tokenizer *tok, int64_t rows, mn_gguf_writer *w, bool *done);

/* How a named family cuts text: the patterns in turn, each isolating what it matches (tokenizer_families.c). */
typedef struct mn_family {
  const char *const *patterns; /* ends with NULL */
  bool ignore_merges, add_bos;
  bool always_bos; /* whatever the file says */
  bool characters; /* not bytes: spaces are marked, as SentencePiece does */
} mn_family;
bool mn_family_find(const char *name, mn_family *out);

#endif
