/* tokenizer.h - text to token ids and back: byte-level BPE as Hugging Face's tokenizer.json describes it, of which
 * plain bytes are the case without merges. One opaque, immutable mn_tokenizer; any number of threads may share it.
 *
 * No text is refused: what is not UTF-8 is split byte by byte. decode(encode(text)) == text, byte for byte, whenever
 * the tokenizer has no add_prefix_space and removes nothing. A tokenizer.json is untrusted: every size, id and name in
 * it is checked, and a kind of tokenizer that this file does not implement is refused by name. */
#ifndef MN_TOKENIZER_H
#define MN_TOKENIZER_H

#include "base/watch.h"
#include "base/base.h"
#include "base/file.h"
#include "base/text.h"

typedef struct mn_tokenizer mn_tokenizer;

/* ---- making ---- */
/* Ids 0 ... 255 are the bytes, then the special tokens in order. */
mn_status mn_tokenizer_bytes(const char *const *special, int n_special, mn_tokenizer **out);
mn_status mn_tokenizer_load(const char *path, mn_tokenizer **out); /* tokenizer.json, at most 256 MiB */
/* `name` is for messages. */
mn_status mn_tokenizer_parse(const char *name, const char *json, size_t n, mn_tokenizer **out);
void mn_tokenizer_free(mn_tokenizer *tok);
/* Writes tokenizer.json, whole or not at all; what was loaded is written back as it was. */
mn_status mn_tokenizer_save(const mn_tokenizer *tok, const char *path);
mn_status mn_tokenizer_save_over(const mn_tokenizer *tok, const char *path, mn_file_stamp *stamp); /* in the place of no other file */
const char *mn_tokenizer_json(const mn_tokenizer *tok, size_t *n);                                 /* the same text; lives as long as tok */

/* ---- asking ---- */
/* Warns of a `truncation`: the program that the file comes from cuts texts there, and here they are whole. For who reads texts whole; an
 * encoder that refuses long ones has nothing to say. */
void mn_tokenizer_warn_of_cuts(const mn_tokenizer *tok);
int32_t mn_tokenizer_vocab_size(const mn_tokenizer *tok); /* the largest id + 1; there may be holes */
bool mn_tokenizer_is_bytes(const mn_tokenizer *tok);      /* no merges: any byte is one token */
bool mn_tokenizer_is_special(const mn_tokenizer *tok, int32_t id);
/* The bytes a token stands for; NULL for an id that does not exist. Not zero-terminated. */
const char *mn_tokenizer_token(const mn_tokenizer *tok, int32_t id, size_t *n);
/* Tokens that are read and not said, as a checkpoint asks for (suppress_tokens): ids without a token are left aside. */
void mn_tokenizer_silence(mn_tokenizer *tok, const int32_t *ids, size_t n);
bool mn_tokenizer_says(const mn_tokenizer *tok, int32_t id); /* is there such a token, and may it be drawn? */
/* Id of an added or special token by its content, or else of a vocabulary token by its bytes; -1 when there is none. */
int32_t mn_tokenizer_find(const mn_tokenizer *tok, const char *content);
/* The token that ends a document, by its usual names ("<|endoftext|>", "</s>", "<eos>" ...); -1 when there is none. */
int32_t mn_tokenizer_eos(const mn_tokenizer *tok);
int32_t mn_tokenizer_bos(const mn_tokenizer *tok);   /* the token that begins a text; -1 when there is none */
bool mn_tokenizer_adds_bos(const mn_tokenizer *tok); /* does the post-processor put it before a text? */
/* The tokens after which a model has ended its answer (end of text, of turn, of message), the first the eos: where a file says
 * which they are, those, else those that have usual names. */
size_t mn_tokenizer_ends(const mn_tokenizer *tok, const int32_t **ids);
bool mn_tokenizer_is_end(const mn_tokenizer *tok, int32_t id);
/* For who has read them elsewhere (generation_config.json). The first becomes the eos; none: there is no end. */
mn_status mn_tokenizer_set_ends(mn_tokenizer *tok, const int32_t *ids, size_t n);
void mn_tokenizer_hash(const mn_tokenizer *tok, char hex[33]); /* of the tokenizer.json: 32 hexadecimal digits */

/* ---- encoding ---- */
typedef struct mn_ids { /* ids that grow; zero-initialise. With `flush`, it is emptied through it whenever it is large.
                         */
  int32_t *data;
  size_t len, cap;
  mn_status (*flush)(void *ctx, const int32_t *ids, size_t n);
  void *ctx;
} mn_ids;
mn_status mn_ids_add(mn_ids *ids, int32_t id);
void mn_ids_free(mn_ids *ids);

enum {
  MN_ENCODE_SPECIAL = 1, /* text that spells a special token becomes it; leave it out for text that is not trusted */
  MN_ENCODE_TEMPLATE = 2 /* the post-processor's tokens before and after (begin-of-text ...) */
};
/* Works on one thread: keeps a cache of words and the matcher's memory. The tokenizer must outlive it. */
typedef struct mn_encoder mn_encoder;
mn_status mn_encoder_new(const mn_tokenizer *tok, mn_encoder **out);
void mn_encoder_free(mn_encoder *enc);
/* Touches the memory of its cache (4 MiB) now, so that a long stream's resident memory does not grow as words come. */
void mn_encoder_reserve(mn_encoder *enc);
/* Appends the ids of text[0..n). */
mn_status mn_encoder_add(mn_encoder *enc, const char *text, size_t n, unsigned flags, mn_ids *out);
/* The same text in pieces, at bounded memory: ids come as soon as nothing that follows can change them, and together they are
 * those of the whole text. `flags` stay the same for a text; finish ends it, and the next may begin. */
mn_status mn_encoder_push(mn_encoder *enc, const char *text, size_t n, unsigned flags, mn_ids *out);
mn_status mn_encoder_finish(mn_encoder *enc, unsigned flags, mn_ids *out);
size_t mn_encoder_held(const mn_encoder *enc); /* bytes that wait for what follows */
/* The same with a fresh encoder, for single texts. */
mn_status mn_tokenizer_encode(const mn_tokenizer *tok, const char *text, size_t n, unsigned flags, mn_ids *out);

/* ---- decoding ---- */
/* Appends the exact bytes of the ids; special tokens are left out when `skip_special`. MN_ERR_ARG for an id that does
 * not exist. */
mn_status mn_tokenizer_decode(const mn_tokenizer *tok, const int32_t *ids, size_t n, bool skip_special, mn_text *out);
/* A decoder for ids that arrive one by one: what it appends is always valid UTF-8. A character whose bytes have not all
 * arrived is held back; bytes that can no longer become a character are U+FFFD. Zero-initialise, set tok. */
typedef struct mn_decoder {
  const mn_tokenizer *tok;
  bool skip_special;
  unsigned char held[4];
  int n_held;
  bool begun;         /* a token has been given: the first may stand for other bytes */
  int stripped, tail; /* taken from the beginning; held back at the end, where it may have to go */
  int32_t waiting;    /* id + 1 of a token that stands for other bytes if it is the last */
} mn_decoder;
mn_status mn_decoder_push(mn_decoder *dec, int32_t id, mn_text *out);
mn_status mn_decoder_finish(mn_decoder *dec, mn_text *out); /* what is still held; the next text may begin */

/* ---- training ---- */
typedef enum { MN_PATTERN_GPT2, MN_PATTERN_CL100K, MN_PATTERN_LLAMA3 } mn_pattern;
const char *mn_pattern_regex(mn_pattern pattern);
bool mn_pattern_parse(const char *name, mn_pattern *out); /* "gpt2", "cl100k", "llama3" */

typedef struct mn_tokenizer_train_config {
  int32_t vocab_size;    /* specials, 256 bytes and merges together */
  int64_t min_frequency; /* a pair that occurs less often is not merged; 0 counts as 1 */
  mn_pattern pattern;
  const char *const *special; /* get the first ids; NULL: only "<|endoftext|>" */
  int n_special;
  const mn_watch *watch; /* told the merges done, as mn_progress_vocabulary; may be NULL */
} mn_tokenizer_train_config;
extern const char mn_progress_vocabulary[]; /* what a watch is told while a tokenizer is trained: this very pointer */
typedef struct mn_span {
  const char *data;
  size_t size;
} mn_span;
/* Byte-level BPE (Gage 1994; Sennrich et al. 2016): the most frequent pair is merged, ties go to the smaller ids, so
 * the result depends on the texts only. Stops early, with fewer tokens, when no pair is left. */
mn_status mn_tokenizer_train(const mn_tokenizer_train_config *config, const mn_span *texts, size_t n_texts, mn_tokenizer **out);

#endif
