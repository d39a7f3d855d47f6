/* sentences.h - what a checkpoint of an encoder says of making one vector of a text: which of its vectors counts, and how many tokens are
 * read. Directories of sentence-transformers (Reimers & Gurevych 2019, arXiv 1908.10084) say it in modules.json, in config.json of the module
 * of pooling and in sentence_bert_config.json; GGUF in pooling_type. Where nothing is said, it is the mean of all. */
#ifndef MN_SENTENCES_H
#define MN_SENTENCES_H

#include "checkpoint/bundle.h"
#include "format/gguf.h"

/* What is said and not done goes to out->fault, as a message, for the model may be of other use. Free with mn_sentences_free. */
mn_status mn_sentences_read_hf(const char *dir, mn_sentences *out);
mn_status mn_sentences_read_gguf(const mn_gguf *g, mn_sentences *out);
void mn_sentences_free(mn_sentences *s);
/* Where texts are read in small letters, `tok` (or NULL) makes them so; else that is out->fault. */
mn_status mn_sentences_check_case(const mn_tokenizer *tok, mn_sentences *out);

/* How many tokens of a text are read, where a checkpoint says so: other programs have no key for it. */
#define MN_GGUF_MOST_TOKENS "tokenizer.mneme.max_seq_length"
/* GGUF's number for it (llama.cpp's enum llama_pooling_type). */
int mn_sentences_gguf(mn_pooling pooling);
/* DIR/modules.json and the files that it names, for other programs. */
mn_status mn_sentences_write_hf(mn_arena *arena, const char *dir, const mn_sentences *s, int64_t width);

#endif
