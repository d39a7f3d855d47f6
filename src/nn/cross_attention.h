/* cross_attention.h - attention of a sequence to another, its source: queries from the one, keys and values from the other.
 *     q_t = W_Q x_t    k_j = W_K m_j    v_j = W_V m_j    y_t = W_O concat_h softmax_j(q_t . k_j / sqrt(K)) v_j
 * Every query sees the whole source, as far as it is no padding. In a stream the source's keys and values are worked out once, in
 * the segment that brings the source, and kept as state. */
#ifndef MN_CROSS_ATTENTION_H
#define MN_CROSS_ATTENTION_H

#include "format/config.h"
#include "nn/layers.h"

typedef struct mn_cross_config {
  int64_t heads, kv_heads, head_dim;
  bool bias;
} mn_cross_config;
extern const mn_field mn_cross_fields[];
/* The map `v` (NULL: nothing was given) of the key `key` in `map`, which `where` names (NULL: its own path). turned: queries or keys will be
 * turned by their position, which needs an even head_dim. */
mn_status mn_cross_parse(mn_arena *arena, const mn_value *map, const char *where, const char *key, const mn_value *v, int64_t d_model,
                         bool turned, mn_cross_config *c);

typedef struct mn_cross_source {
  mn_tensor *x;      /* [B,S,D]; NULL: a stream goes on with the source it was given before */
  mn_tensor *length; /* i32 [B], tokens of it that are no padding; NULL: all               */
  int64_t most;      /* tokens that a stream has room for                                   */
  mn_tensor *first;  /* [B,most,D]: a stream reads this until it is given another, and is always full; NULL: it is given one */
  bool turned;       /* queries are turned by where they stand (rotary, base 10000); keys are not: the source has no order */
} mn_cross_source;

/* In a stream: from the next segment on the rows that are true (bool [B]) read source->x. */
void mn_cross_give(mn_scope *s, const mn_cross_config *c, const mn_cross_source *source, mn_tensor *rows);

/* x [B,T,D] compute type -> [B,T,D]. */
mn_tensor *mn_cross_attention(mn_scope *s, const mn_cross_config *c, mn_tensor *x, const mn_cross_source *source);
/* Positions of S keys for mn_attention, where only the first `length` (i32 [B]) are there: j, or -1 beyond. i32 [B,S]. */
mn_tensor *mn_key_positions(mn_graph *g, mn_tensor *length, int64_t S);

#endif
