/* cross_attention.c - see cross_attention.h. */
#include "nn/cross_attention.h"

#include <math.h>

#include "graph/fused_attention.h"
#include "nn/mixer.h"

#define S mn_cross_config
const mn_field mn_cross_fields[] = {MN_FIELD_INT(S, heads, 4, 1, 4096, "query heads H"),
                                    MN_FIELD_INT(S, kv_heads, 0, 0, 4096, "key/value heads G, a divisor of heads; 0: as many as heads"),
                                    MN_FIELD_INT(S, head_dim, 0, 0, 4096, "width K of a head; 0: d_model / heads"),
                                    MN_FIELD_BOOL(S, bias, false, "biases in the projections"), MN_FIELD_END};
#undef S

mn_status mn_cross_parse(mn_arena *arena, const mn_value *map, const char *where, const char *key, const mn_value *v, int64_t d_model,
                         bool turned, mn_cross_config *c) {
  if (v && v->kind != MN_MAP) return mn_config_fail(map, where, key, "must be a map such as {heads: 4}");
  const char *in = NULL; /* of keys that nobody gave */
  if (!v && !(in = mn_arena_format(arena, "%s.%s", where ? where : map->path, key))) return MN_ERR_MEMORY;
  MN_TRY(mn_config_read(arena, v, NULL, mn_cross_fields, c));
  if (!v) v = map;
  if (c->kv_heads == 0) c->kv_heads = c->heads;
  if (c->heads % c->kv_heads)
    return mn_config_fail(v, in, "kv_heads", "must divide heads: %lld does not divide %lld", (long long)c->kv_heads, (long long)c->heads);
  MN_TRY(mn_check_heads(v, in, d_model, c->heads, &c->head_dim));
  if (turned && c->head_dim % 2)
    return mn_config_fail(v, in, "head_dim", "must be even for rotary positions, it is %lld", (long long)c->head_dim);
  return MN_OK;
}

mn_tensor *mn_key_positions(mn_graph *g, mn_tensor *length, int64_t S) {
  if (!length) return NULL;
  int64_t B = mn_dim(length, 0);
  mn_tensor *j = mn_iota(g, MN_I32, MN_SHAPE(1, S), 1), *there = mn_lt(g, j, mn_reshape(g, length, MN_SHAPE(B, 1)));
  return mn_select(g, there, mn_expand(g, j, MN_SHAPE(B, S)), mn_scalar(g, MN_I32, -1));
}

/* Keys and values of the source, and how many there are (i32 [B]; NULL: all). */
typedef struct pairs {
  mn_tensor *k, *v, *length;
} pairs;

static pairs projected(mn_scope *s, const mn_cross_config *c, const mn_cross_source *source) {
  mn_init init = {MN_INIT_XAVIER_UNIFORM, 1, 0};
  mn_tensor *x = mn_cast(mn_scope_graph(s), source->x, mn_scope_compute(s));
  pairs p = {.length = source->length};
  p.k = mn_split_heads(s, mn_linear(s, "k_proj", x, c->kv_heads * c->head_dim, c->bias, init), c->kv_heads);
  p.v = mn_split_heads(s, mn_linear(s, "v_proj", x, c->kv_heads * c->head_dim, c->bias, init), c->kv_heads);
  return p;
}

/* What a stream keeps that has a source from the first: room for as many, and nothing beyond them. */
static pairs kept_full(mn_scope *s, const mn_cross_config *c, const mn_cross_source *source) {
  const pairs first = projected(s, c, &(mn_cross_source){.x = source->first});
  const mn_dtype t = mn_scope_compute(s);
  if (!first.k || !first.v) return first;
  return (pairs){.k = mn_state(s, "k", t, first.k->shape, first.k, "keys of the source"),
                 .v = mn_state(s, "v", t, first.v->shape, first.v, "values of the source")};
}

void mn_cross_give(mn_scope *s, const mn_cross_config *c, const mn_cross_source *source, mn_tensor *rows) {
  mn_graph *g = mn_scope_graph(s);
  const pairs before = kept_full(s, c, source), new = projected(s, c, source);
  mn_tensor *one = mn_reshape(g, rows, MN_SHAPE(mn_dim(rows, 0), 1, 1, 1));
  mn_state_set(s, "k", mn_select(g, one, new.k, before.k));
  mn_state_set(s, "v", mn_select(g, one, new.v, before.v));
}

/* What a stream keeps: set where the source is given, read where it is not. */
static pairs kept(mn_scope *s, const mn_cross_config *c, const mn_cross_source *source, int64_t B) {
  mn_graph *g = mn_scope_graph(s);
  mn_shape shape = MN_SHAPE(B, source->most, c->kv_heads, c->head_dim);
  mn_dtype t = mn_scope_compute(s);
  pairs p = {.k = mn_state(s, "k", t, shape, NULL, "keys of the source"),
             .v = mn_state(s, "v", t, shape, NULL, "values of the source"),
             .length = mn_state(s, "length", MN_I32, MN_SHAPE(B), NULL, "tokens of the source")};
  if (!source->x) return p;
  int64_t n = mn_dim(source->x, 1);
  p = projected(s, c, source);
  if (n > source->most) {
    mn_graph_fault(g, MN_ERR_CONFIG, "a source of %lld tokens is longer than a stream has room for: max_source is %lld; raise it",
                   (long long)n, (long long)source->most);
    return p;
  }
  if (!p.length) p.length = mn_full(g, MN_I32, MN_SHAPE(B), (double)n);
  if (n < source->most) p.k = mn_pad(g, p.k, 1, 0, source->most - n), p.v = mn_pad(g, p.v, 1, 0, source->most - n);
  mn_state_set(s, "k", p.k);
  mn_state_set(s, "v", p.v);
  mn_state_set(s, "length", p.length);
  return p;
}

static mn_tensor *turned(mn_scope *s, const mn_cross_config *c, mn_tensor *q) {
  mn_tensor *cos, *sin;
  mn_rope_tables(s, &(mn_rope_config){.theta = 10000}, c->head_dim, mn_dim(q, 1), &cos, &sin);
  return mn_rope(mn_scope_graph(s), q, cos, sin, MN_ROPE_HALVES);
}

mn_tensor *mn_cross_attention(mn_scope *s, const mn_cross_config *c, mn_tensor *x, const mn_cross_source *source) {
  mn_graph *g = mn_scope_graph(s);
  mn_init init = {MN_INIT_XAVIER_UNIFORM, 1, 0};
  const bool stream = mn_scope_is_stream(s);
  if (!source->x && !stream) {
    mn_graph_fault(g, MN_ERR_CONFIG, "cross-attention needs its source");
    return NULL;
  }
  int64_t B = mn_dim(x, 0);
  mn_tensor *q = mn_split_heads(s, mn_linear(s, "q_proj", x, c->heads * c->head_dim, c->bias, init), c->heads);
  if (source->turned) q = turned(s, c, q);
  pairs p = !stream ? projected(s, c, source) : source->first ? kept_full(s, c, source) : kept(s, c, source, B);
  mn_tensor *k_pos = mn_key_positions(g, p.length, mn_dim(p.k, 1)), *q_pos = k_pos ? mn_full(g, MN_I32, MN_SHAPE(B), 0) : NULL;
  mn_tensor *y = mn_attention(g, q, p.k, p.v, q_pos, k_pos, NULL, (mn_attention_attr){.scale = 1 / sqrt((double)c->head_dim)}, NULL);
  return mn_linear(s, "o_proj", mn_join_heads(s, y), mn_dim(x, -1), c->bias, init);
}
