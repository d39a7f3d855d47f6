/* channel.h - the contract of a channel part: what a block does with one token alone, or (RWKV) with it and the one before, which then is
 * its state. A part is a definition
 * `const mn_channel_def mn_channel_<name> = {` in a file of src/nn or src/memory; the build finds it.
 *
 * In a recipe a block says `channel: swiglu`, or `channel: {type: mlp, activation: relu}` where the part has keys of its own. */
#ifndef MN_CHANNEL_H
#define MN_CHANNEL_H

#include "format/config.h"
#include "nn/layers.h"

typedef struct mn_channel_def {
  const char *name;    /* the recipe's word: "swiglu" */
  const char *summary; /* one line                    */
  double expand;       /* the block's `hidden` where none is given: that often d_model, rounded up to 32; 0: it has no hidden width */
  bool absent;         /* the block has no channel part */
  size_t config_size;
  const mn_field *fields;                                                                    /* of its own keys; NULL: none */
  mn_status (*check)(const mn_value *map, const char *where, int64_t d_model, void *config); /* NULL: nothing to check */
  /* x [B,T,D] in the compute type -> [B,T,D] likewise. hidden: F. */
  mn_tensor *(*apply)(mn_scope *s, const void *config, int64_t hidden, mn_tensor *x);
} mn_channel_def;

int mn_channel_count(void);
const mn_channel_def *mn_channel_at(int i);

typedef struct mn_channel { /* as configured */
  const mn_channel_def *def;
  void *config;
  int64_t hidden; /* F; 0 where it has none */
} mn_channel;

/* block: the map where `channel` and `hidden` stand; neither given: swiglu. Lives in the arena. */
mn_status mn_channel_parse(mn_arena *arena, const mn_value *block, const char *where, int64_t d_model, int64_t hidden, mn_channel *out);
/* A word where its own keys have their defaults, else a map. `hidden` is the block's to write. */
const mn_value *mn_channel_to_value(mn_arena *arena, const mn_channel *c);
bool mn_channel_same(const mn_channel *a, const mn_channel *b); /* parsed as one */
mn_tensor *mn_channel_apply(mn_scope *s, const mn_channel *c, mn_tensor *x);

/* gelu (exact, with erf), gelu_tanh, relu, silu, in this order. */
typedef enum mn_activation { MN_GELU, MN_GELU_TANH, MN_RELU, MN_SILU } mn_activation;
extern const char *const mn_activation_names[]; /* closed by NULL */
mn_tensor *mn_activate(mn_graph *g, mn_activation a, mn_tensor *x);
/* down_proj (act(gate_proj x) * up_proj x), with biases or without: x [B,T,D] -> [B,T,D]. */
mn_tensor *mn_gated_units(mn_scope *s, int64_t hidden, mn_activation activation, bool bias, mn_tensor *x);

#endif
