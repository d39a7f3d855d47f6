/* voice.h - one answer as it is made, token by token: how its tokens are drawn, the text that they are, and where it ends. It knows
 * logits and tokens, and neither the model nor who listens. */
#ifndef MN_SERVE_VOICE_H
#define MN_SERVE_VOICE_H

#include "run/sampler.h"
#include "serve/grammar.h"

typedef struct mn_bias {
  int32_t token;
  double bias; /* added to its logit */
} mn_bias;

typedef struct mn_manner { /* how an answer is made; all of it is borrowed */
  mn_sampling sampling;
  /* Taken from the logit of a token that the answer holds already: once, and for each time that it does. */
  double presence_penalty, frequency_penalty;
  const mn_bias *bias;
  int n_bias;
  const char *const *stops; /* the answer ends before the first of them, wherever tokens begin and end */
  int n_stops;
  const int32_t *ends; /* tokens that end it; they are not part of its text */
  int n_ends;
  mn_machine *machine;       /* what the text must be: of the voice's thread; NULL: any. It ends when it is whole and cannot go on */
  const mn_lexicon *lexicon; /* of the vocabulary, where there is a machine */
  const uint64_t *has;       /* ids that have a token (mn_sampler_tokens); NULL: the voice finds out which do */
  int64_t most;              /* tokens */
  int top;                   /* of each token its log-probability, and those of so many likeliest ones; -1: none */
} mn_manner;

enum { MN_TOP = 20 };
typedef struct mn_said { /* a token, as far as `top` asks for it */
  int32_t token;
  double log_p; /* of the model's own distribution, before temperature and all else; nats */
  int n_top;
  int32_t top[MN_TOP];
  double top_log_p[MN_TOP];
} mn_said;

/* What logits say of a token that is known, and of the `top` likeliest. */
void mn_said_of(const float *logits, int64_t vocab_size, int32_t token, int top, mn_said *out);

typedef enum mn_ending {
  MN_END_NOT_YET,
  MN_END_STOP,   /* by a token or a text that ends answers */
  MN_END_LENGTH, /* it is as long as it may be             */
  MN_END_ROOM    /* the stream is                          */
} mn_ending;

typedef struct mn_voice mn_voice;
/* The i-th answer to the same prompt draws otherwise than the others. `tok` and what `manner` points to must outlive it. */
mn_status mn_voice_new(const mn_manner *manner, const mn_tokenizer *tok, int64_t vocab_size, int64_t i, mn_voice **out);
void mn_voice_free(mn_voice *v); /* NULL is fine */
/* What it answers: the repetition penalty looks back at that, too. */
void mn_voice_hear(mn_voice *v, const int32_t *prompt, int64_t n);
/* Draws the next token of a stream that has seen `position` tokens, in `room`, which voices of other threads do not use meanwhile. What the
 * token adds to the text that is certain by now is mn_voice_text; *ending: the answer is whole, and its last text has come. Voices of
 * different machines, or of none, may do this at once. */
mn_status mn_voice_next(mn_voice *v, int64_t position, const float *logits, mn_sampler_room *room, int32_t *token, mn_ending *ending);
/* Ends it here: what was held back comes. */
mn_status mn_voice_cut(mn_voice *v);
const char *mn_voice_text(const mn_voice *v, size_t *n); /* of the last step */
const mn_said *mn_voice_said(const mn_voice *v);         /* of the last step; NULL: nobody asks, or the token is an end */
int64_t mn_voice_count(const mn_voice *v);               /* tokens so far */

#endif
