/* bundle.h - a model as it lies on a disk, opened whole: model, parameters, tokenizer, and what its maker said of texts, with the backend
 * they run on. What generate, stream and the public API begin with.
 *
 * Three forms are opened (checkpoint.h): a directory that mneme train made (config.json, model.safetensors and, for text, tokenizer.json);
 * a directory of Hugging Face's; a GGUF file. */
#ifndef MN_BUNDLE_H
#define MN_BUNDLE_H

#include "checkpoint/checkpoint.h"
#include "format/tokenizer.h"
#include "model/params.h"

enum { MN_EOS_MOST = 16 };
typedef struct mn_speech { /* what a checkpoint says of texts and dialogues; zeros and -1: nothing */
  char *chat_template;     /* of a Jinja template; NULL: none. Free: mn_bundle_close */
  char *eos_token;         /* what chat templates call so, as tokenizer_config.json says; NULL: the first of eos. Free: the same */
  int n_eos;               /* tokens that end an answer: generation_config.json's, else the settings', else the tokenizer's */
  int32_t eos[MN_EOS_MOST];
  int32_t bos;     /* the token that begins a text; -1: none */
  bool add_bos;    /* a text begins with it: GGUF and tokenizer_config.json say so */
  int32_t *silent; /* tokens that are never drawn. Free: the same */
  size_t n_silent;
} mn_speech;

typedef struct mn_sentences { /* what it says of one vector for a text (sentences.h) */
  mn_pooling pooling;         /* which of its vectors counts: the mean, where nothing is said */
  int64_t most;               /* tokens of a text; 0: as many as the model reads */
  bool lower;                 /* texts are read in small letters, which their tokenizer must see to */
  char *fault;                /* why no vector is made; NULL: one is */
} mn_sentences;

typedef struct mn_bundle {
  mn_checkpoint_form form;
  mn_backend *backend;
  mn_model *model;
  mn_params *params;       /* f32; mapped where they can be */
  mn_tokenizer *tokenizer; /* NULL: the model was trained on token ids, or its tokenizer is not there or cannot be read */
  char *no_tokenizer;      /* of a checkpoint: why it cannot be read; NULL: it is not there, or can */
  mn_speech speech;
  mn_sentences sentences;
} mn_bundle;

/* path: a MODEL of any form. backend: by name (backend.h); NULL: the usual one. threads 0: all. A tokenizer with more tokens than the
 * vocabulary of a model of ours is refused; those of checkpoints may have tokens that the model never learned. Close also after a
 * failure. */
mn_status mn_bundle_open(const char *path, const char *backend, int threads, mn_bundle *out);
void mn_bundle_close(mn_bundle *b);
/* A tokenizer alone, for who needs no model: of a model's directory, a GGUF file or a tokenizer.json. */
mn_status mn_bundle_tokenizer_of(const char *path, mn_tokenizer **out);
/* MN_OK, or what is missing and where, for callers that need text. */
mn_status mn_bundle_need_tokenizer(const mn_bundle *b, const char *path);
/* A text's tokens. begins: it is where a stream begins, and has what its tokenizer puts there (a token that begins texts); of models of
 * ours nothing is put anywhere. */
mn_status mn_bundle_encode(const mn_bundle *b, const char *text, size_t n, bool begins, mn_ids *out);
/* Caches have room for n tokens at most, those of wider windows, too, where a cache without a window bounds streams; before a session is made. It bounds what one stream can come to hold: room itself costs nothing until it
 * is used. MN_ERR_CONFIG where no cache would hold more. */
mn_status mn_bundle_limit(const mn_bundle *b, int64_t n);
/* The token ends an answer. */
bool mn_bundle_ends(const mn_bundle *b, int32_t token);

#endif
