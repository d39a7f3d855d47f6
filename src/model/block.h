/* block.h - a block as described by a recipe, and the stacks that models are made of. A block is a mixer (how tokens meet the
 * past) and a channel part (one token alone), with norms and residuals; a stack is blocks one above the other. */
#ifndef MN_BLOCK_H
#define MN_BLOCK_H

#include "nn/channel.h"
#include "nn/cross_attention.h"
#include "nn/mixer.h"

/* Where a branch f (mixer, channel part) is normalised; n, n' are norms with gains of their own:
 *     pre       x + f(n(x))          post     n(x + f(x))          sandwich     x + n'(f(n(x)))
 * In parallel, both branches read the same x (and, where there is one before them, the same norm) and are added at once.
 * In training, what a branch adds to x may be dropped: elements of it (dropout; locked_dropout: the same ones at all tokens of a row), or all of it in some rows of the batch (drop_path). */
typedef enum mn_norm_position { MN_PRE_NORM, MN_POST_NORM, MN_SANDWICH_NORM } mn_norm_position;

/* How a condition c [B,D] (a class, a time, whatever a port `condition` says of a row) reaches a branch f, which reads n(x):
 *     adaln_zero    x + gate f((1 + scale) n(x) + shift),    [shift, scale, gate] = W silu(c) + b        (Peebles & Xie 2023, DiT)
 *     film          x + ((1 + scale) f(n(x)) + shift),       [shift, scale] = W silu(c) + b              (Perez et al. 2018)
 * W and b begin at 0, for mixer and channel part each its own: at the start adaln_zero's branches add nothing, and film's are what they
 * are without. DiT's norms have no gains of their own; here they keep them. */
typedef enum mn_condition_kind { MN_CONDITION_NONE, MN_CONDITION_ADALN_ZERO, MN_CONDITION_FILM } mn_condition_kind;

typedef struct mn_block {
  mn_mixer mixer;
  const mn_cross_config *cross; /* between the two, in a decoder that has a source; NULL: none */
  mn_channel channel;
  int norm; /* mn_norm_kind */
  double norm_eps;
  int norm_position; /* mn_norm_position */
  bool parallel;
  int condition;                             /* mn_condition_kind */
  double dropout, locked_dropout, drop_path; /* probabilities; 0: nothing is dropped */
  double residual_scale;                     /* of what a part adds; 1 */
} mn_block;

typedef struct mn_stack {
  bool source; /* see mn_stack_config */
  int n;
  mn_block *blocks;
} mn_stack;

/* What a stack's blocks have in common, and where they stand in the recipe. */
typedef struct mn_stack_config {
  bool source;      /* there is a sequence to attend to: a block does, unless it says cross: none */
  bool turned;      /* and its queries are turned by their position */
  bool conditioned; /* blocks may have a condition */
  int64_t d_model, layers;
  int norm; /* mn_norm_kind */
  double norm_eps;
  const mn_value *block;  /* one, `layers` times ... */
  const mn_value *blocks; /* ... or a list of {repeat: n, mixer: ..., channel: ...} */
} mn_stack_config;

extern const mn_field mn_block_fields[];
extern const char *const mn_norm_names[]; /* in the order of mn_norm_kind, closed by NULL */

/* map: where `block` or `blocks` stand, for what is said about faults. The blocks live in the arena. */
mn_status mn_stack_parse(mn_arena *arena, const mn_value *map, const char *where, const mn_stack_config *c, mn_stack *out);
/* The list of blocks, each spelled out, equal neighbours joined by repeat. */
const mn_value *mn_stack_to_value(mn_arena *arena, const mn_stack *stack);

/* Lengths in tokens of the stack's mixers against the sequences they will see; `map` as in mn_stack_parse. */
mn_status mn_stack_check_lengths(const mn_stack *stack, const mn_value *map, int64_t seq_len);
/* Why it is no stream that can be cut anywhere, as the end of a sentence; NULL: it is one. */
const char *mn_stack_not_causal(const mn_stack *stack);
/* Does what comes out still want a norm? Not after a block that ends with one. */
bool mn_stack_wants_norm(const mn_stack *stack);

typedef struct mn_beside {       /* what blocks read beside x; NULL: there is none */
  const mn_cross_source *source; /* what blocks with a `cross` attend to */
  mn_tensor *condition;          /* [B,D], exact type: what blocks with a `condition` are told of their rows */
} mn_beside;

bool mn_stack_has_condition(const mn_stack *stack); /* some block does */
/* x [B,T,D] exact type -> [B,T,D]. beside: NULL where there is nothing. What the mixer read and what it said, [B,T,D], are shared
 * (mn_shared) for who compares. */
#define MN_MIXER_INPUT  "mixer_input"
#define MN_MIXER_OUTPUT "mixer_output"
mn_tensor *mn_block_apply(mn_scope *s, const mn_block *b, mn_tensor *x, const mn_beside *beside);
/* The blocks in order, in scopes layers.0, layers.1, ... */
mn_tensor *mn_stack_apply(mn_scope *s, const mn_stack *stack, mn_tensor *x, const mn_beside *beside);

#endif
