/* memory_attention.c - see memory_attention.h. */
#include "nn/memory_attention.h"

#include <math.h>

#include "graph/fused_attention.h"

const char *const mn_write_names[] = {"simple", "self", "interlayer", "self_interlayer", "grouped", NULL};
const char *const mn_slot_gate_names[] = {"none", "static", "elementwise", "linear", NULL};
const char *const mn_slot_gate_act_names[] = {"sigmoid", "tanh", NULL};

static const mn_init xavier = {MN_INIT_XAVIER_UNIFORM, 1, 0};

/* Slots x [B,S,D] ask y [B,N,D]: [B,S,D], exact type. */
static mn_tensor *asked(mn_scope *s, const mn_cross_config *c, mn_tensor *x, mn_tensor *y, mn_tensor *length, bool turned) {
  mn_graph *g = mn_scope_graph(s);
  const int64_t B = mn_dim(x, 0), N = mn_dim(y, 1);
  mn_tensor *q = mn_split_heads(s, mn_linear(s, "q_proj", x, c->heads * c->head_dim, c->bias, xavier), c->heads);
  mn_tensor *k = mn_split_heads(s, mn_linear(s, "k_proj", y, c->kv_heads * c->head_dim, c->bias, xavier), c->kv_heads);
  mn_tensor *v = mn_split_heads(s, mn_linear(s, "v_proj", y, c->kv_heads * c->head_dim, c->bias, xavier), c->kv_heads);
  if (turned) {
    mn_tensor *cos, *sin;
    mn_rope_tables_at(s, &(mn_rope_config){.theta = 10000}, c->head_dim, N, NULL, &cos, &sin);
    k = mn_rope(g, k, cos, sin, MN_ROPE_HALVES);
  }
  mn_tensor *k_pos = mn_key_positions(g, length, N), *q_pos = k_pos ? mn_full(g, MN_I32, MN_SHAPE(B), 0) : NULL;
  mn_tensor *o = mn_attention(g, q, k, v, q_pos, k_pos, NULL, (mn_attention_attr){.scale = 1 / sqrt((double)c->head_dim)}, NULL);
  return mn_cast(g, mn_linear(s, "o_proj", mn_join_heads(s, o), mn_dim(x, 2), c->bias, xavier), mn_scope_exact(s));
}

/* old and new [B,S,D] exact type. */
static mn_tensor *gated(mn_scope *s, const mn_memory_attention_config *c, const char *name, mn_tensor *old, mn_tensor *new) {
  mn_graph *g = mn_scope_graph(s);
  const int64_t B = mn_dim(old, 0), S = mn_dim(old, 1);
  mn_tensor *sum = mn_add(g, new, old), *x;
  if (c->gate == MN_GATE_NONE) return sum;
  const bool tanh = c->gate_act == MN_GATE_TANH;
  if (c->gate == MN_GATE_LINEAR) {
    const mn_init init = {MN_INIT_UNIFORM, 1 / sqrt((double)S), 0};
    mn_tensor *mean = mn_reshape(g, mn_mean(g, sum, mn_last_axis(sum)), MN_SHAPE(B, S));
    x = mn_reshape(g, mn_linear_exact(s, name, mean, S, MN_BIAS, init, init), MN_SHAPE(B, S, 1));
  } else {
    const mn_init start = {MN_INIT_CONSTANT, tanh ? 3 : 0, 0}; /* tanh: the new alone, or nearly; sigmoid: half of either */
    x = mn_param_exact(mn_scope_in(s, "%s", name), "weight", MN_SHAPE(S), start, MN_PARAM_NO_DECAY,
                       "how much of the new each slot takes [S]");
    x = mn_reshape(g, x, MN_SHAPE(1, S, 1));
    if (c->gate == MN_GATE_ELEMENTWISE) x = mn_mul(g, x, mn_mean(g, sum, mn_last_axis(sum)));
  }
  x = tanh ? mn_tanh(g, x) : mn_sigmoid(g, x);
  mn_tensor *rest = mn_add_scalar(g, mn_neg(g, x), 1), *share = tanh ? mn_add_scalar(g, x, 1) : x;
  return mn_add(g, mn_mul(g, share, new), mn_mul(g, rest, old));
}

static mn_tensor *normed(mn_scope *s, const mn_memory_attention_config *c, const char *name, mn_tensor *x, mn_dtype out) {
  return mn_norm_layer(s, name, (mn_norm_kind)c->norm, x, c->norm_eps, out);
}

static mn_tensor *of_layer(mn_graph *g, mn_tensor *memory, int64_t i) { /* [B,S,D] */
  return mn_reshape(g, mn_slice(g, memory, 1, i, 1), MN_SHAPE(mn_dim(memory, 0), mn_dim(memory, 2), mn_dim(memory, 3)));
}

/* m of layer i: [B,S,D]. */
static mn_tensor *mean_of(mn_graph *g, const mn_memory_attention_config *c, mn_tensor *memory, int64_t i) {
  if (c->write == MN_WRITE_GROUPED) memory = mn_slice(g, memory, 1, i / c->group * c->group, c->group);
  return of_layer(g, mn_mean(g, memory, MN_AXIS(1)), 0);
}

/* U_i. */
static mn_tensor *asking(mn_scope *s, const mn_memory_attention_config *c, mn_tensor *memory, int64_t i) {
  mn_graph *g = mn_scope_graph(s);
  const mn_dtype t = mn_scope_compute(s), exact = mn_scope_exact(s);
  mn_tensor *old = of_layer(g, memory, i);
  if (c->write == MN_WRITE_SIMPLE) return old;
  mn_tensor *x = normed(s, c, "between_norm", old, t), *y = x;
  if (c->write != MN_WRITE_SELF) y = normed(s, c, "mean_norm", mean_of(g, c, memory, i), t);
  if (c->write == MN_WRITE_SELF_INTERLAYER) y = mn_cast(g, gated(s, c, "in_gate", mn_cast(g, x, exact), mn_cast(g, y, exact)), t);
  return gated(s, c, "between_gate", old, asked(mn_scope_in(s, "between"), &c->heads, x, y, NULL, false));
}

mn_tensor *mn_memory_attention(mn_scope *s, const mn_memory_attention_config *c, mn_tensor *memory, mn_tensor *const *read,
                               mn_tensor *length) {
  mn_graph *g = mn_scope_graph(s);
  const int64_t B = mn_dim(memory, 0), M = mn_dim(memory, 1), S = mn_dim(memory, 2), D = mn_dim(memory, 3);
  const mn_dtype t = mn_scope_compute(s);
  mn_tensor **layers = mn_arena_alloc(g->arena, (size_t)(M + 1) * sizeof *layers);
  if (!layers) return NULL;
  for (int64_t i = 0; i < M; i++) {
    mn_scope *in = mn_scope_in(s, "layers.%d", (int)i);
    mn_tensor *u = asking(in, c, memory, i), *x = normed(in, c, "read_norm", read[i], t);
    mn_tensor *a = asked(mn_scope_in(in, "write"), &c->heads, normed(in, c, "slot_norm", u, t), x, length, true);
    layers[i] = mn_reshape(g, gated(in, c, "gate", u, a), MN_SHAPE(B, 1, S, D));
  }
  return mn_concat(g, (int)M, layers, 1);
}
