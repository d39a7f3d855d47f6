/* sampler.h - from logits to a token: greedy, temperature, top-k, top-p (Holtzman et al. 2020), min-p (Nguyen et al. 2024),
 * repetition penalty (Keskar et al. 2019). Deterministic: a draw is a function of the seed, of which stream it is for, and of where that
 * stands. So a stream that was saved and goes on elsewhere draws what it would have drawn. */
#ifndef MN_SAMPLER_H
#define MN_SAMPLER_H

#include "format/config.h"
#include "format/tokenizer.h"

typedef struct mn_sampling {
  double temperature;        /* 0: greedy                                                        */
  int64_t top_k;             /* 0: all                                                           */
  double top_p;              /* 1: all; the smallest set whose probability reaches top_p         */
  double min_p;              /* 0: all; at least min_p times the best one's probability          */
  double repetition_penalty; /* 1: none; divides positive, multiplies negative logits of recent tokens */
  int64_t repetition_window; /* how many recent tokens count                                      */
  int64_t seed;
} mn_sampling;
extern const mn_field mn_sampling_fields[];

/* What a draw works in, which may be shared by samplers that draw one after the other: one for each thread is enough. */
typedef struct mn_sampler_room mn_sampler_room;
mn_status mn_sampler_room_new(int64_t vocab_size, mn_sampler_room **out);
void mn_sampler_room_free(mn_sampler_room *r); /* NULL is fine */
/* Its room for logits [vocab_size], which a draw may be given; NULL: no memory. */
float *mn_sampler_room_logits(mn_sampler_room *r);

typedef struct mn_sampler mn_sampler;
mn_status mn_sampler_new(const mn_sampling *c, int64_t vocab_size, mn_sampler **out);
void mn_sampler_free(mn_sampler *s);
/* From now on it draws in this one, which is borrowed; NULL: in one of its own, made when it is needed. */
void mn_sampler_use(mn_sampler *s, mn_sampler_room *room);
/* Only ids that the tokenizer has a token for are drawn from now on, greedily too: a model may have room for more, and its
 * tokenizer may have holes. MN_ERR_CONFIG when no id of the vocabulary has one. */
mn_status mn_sampler_keep_to(mn_sampler *s, const mn_tokenizer *tok);
/* The same for many samplers: bit i % 64 of word i / 64 stands for id i. *out is freed by the caller, whatever is returned, and borrowed
 * by the samplers that keep to it. */
mn_status mn_sampler_tokens(const mn_tokenizer *tok, int64_t vocab_size, uint64_t **out);
void mn_sampler_keep_to_tokens(mn_sampler *s, const uint64_t *has);
/* At the next draw only tokens whose bit stands in mask[token / 64] are drawn; NULL: all. It is borrowed. */
void mn_sampler_only(mn_sampler *s, const uint64_t *mask);
void mn_sampler_note(mn_sampler *s, int32_t token); /* a token of the prompt counts as recent, too */
/* The next token of a stream (its row) that has seen `position` tokens (mn_session_position); it is noted. A logit that is not finite:
 * MN_ERR_NUMERIC. */
mn_status mn_sampler_next(mn_sampler *s, int64_t stream, int64_t position, const float *logits, int32_t *token);

#endif
