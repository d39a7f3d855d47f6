/* bmojo.c - B'MOJO-F (Zancato, Seshadri, Dukler, Golatkar, Shen, Bowman, Trager, Achille & Soatto 2024, arXiv 2407.06324): one softmax
 * over the last tokens as they are and, further back, over what a memory that fades said of its tokens. With f the output of any
 * recurrence that reads the same input, w the window:
 *
 *     f_t = fading(x)_t
 *     q_t = W_q x_t      k_t = W_k x_t      v_t = W_v x_t
 *     k'_t = W_k f_t     v'_t = W_v f_t                                     tie: false has W_q', W_k', W_v' of its own
 *     o_t = softmax over {k_i : t - w < i <= t} and {k'_i : t - 2w < i <= t - w}, q_t . k / sqrt(d), of their v and v'
 *     y_t = W_o o_t
 * Queries and keys are rotated at their positions. The parts are attentions of their own, joined by their sums of weights, which
 * is the one softmax. */
#include "memory/attention.h"
#include "graph/fused_norm.h"

#include <string.h>

typedef struct bmojo_config {
  mn_attention_config attention; /* first: the window */
  const mn_value *fading;
  mn_mixer memory; /* what fades; empty: nothing, or the tokens themselves */
  bool tie, qk_norm, faded;
} bmojo_config;

static const char *const instead[] = {"identity", "none", NULL}; /* of a memory */
#define A mn_attention_config
#define S bmojo_config
static const mn_field fields[] = {
    MN_FIELD_INT(A, heads, 4, 1, 4096, "query heads H"),
    MN_FIELD_INT(A, kv_heads, 0, 0, 4096, "key/value heads G, a divisor of heads; 0: as many as heads"),
    MN_FIELD_INT(A, head_dim, 0, 0, 4096, "width d of a head; 0: d_model / heads"),
    MN_FIELD_INT(A, window, 128, 1, 1 << 24, "w: the last tokens that are seen as they are, and as many before them as the memory saw them",
                 MN_TOKENS),
    MN_FIELD_VALUE(S, fading,
                   "the memory that fades: any causal mixer, as a type or a map such as {type: gla, key_dim: 16}; identity: the tokens "
                   "themselves; none: they are not seen. Left out: gla"),
    MN_FIELD_BOOL(S, tie, true, "keys and values of what the memory said are made by the tokens' projections"),
    MN_FIELD_BOOL(S, qk_norm, false, "RMSNorm of each head's queries and keys"),
    MN_FIELD_BOOL(A, rope, true, "rotary position embedding"),
    MN_FIELD_FLOAT(A, rope_theta, 10000, 1, 1e12, "base of the rotary frequencies"),
    MN_FIELD_END};
#undef S
#undef A

static mn_status check(const mn_value *map, const char *where, int64_t d_model, void *config) {
  bmojo_config *c = config;
  c->attention.causal = true;
  c->attention.max_context = MN_USUAL_CONTEXT;
  c->attention.rope_factor = 1;
  c->faded = c->memory.def || strcmp(c->fading->as.text, "none") != 0;
  const char *why = c->memory.def && c->memory.def->not_causal ? c->memory.def->not_causal(c->memory.config) : NULL;
  if (why) return mn_config_fail(map, where, "fading", "cannot be a memory of the past: %s", why);
  if (!c->faded && mn_config_given(map, "tie"))
    return mn_config_fail(map, where, "tie", "has no effect with fading: none, of which no keys are made; leave it out");
  return mn_attention_check(map, where, d_model, &c->attention);
}

static const mn_init xavier = {MN_INIT_XAVIER_UNIFORM, 1, 0};

/* W x by heads, normed where asked: [B,T,h,d] */
static mn_tensor *heads_of(mn_scope *s, const char *name, const char *norm, mn_tensor *x, int64_t heads, int64_t d) {
  mn_tensor *y = mn_split_heads(s, mn_linear(s, name, x, heads * d, MN_NO_BIAS, xavier), heads);
  return norm ? mn_norm_layer(s, norm, MN_NORM_RMS, y, 1e-6, mn_scope_compute(s)) : y;
}

/* What a query reads of one set of keys: o [B,T,H,d] in the exact type, lse [B,H,T]. */
typedef struct reading {
  mn_tensor *o, *lse;
} reading;
static reading read_window(mn_scope *s, const mn_attention_config *a, mn_tensor *q, mn_tensor *k, mn_tensor *v) {
  reading r;
  if (a->rope) mn_attention_rotate(s, a, &q, &k);
  r.o = mn_cast(mn_scope_graph(s), mn_attention_heads(s, a, q, k, v, &r.lse), mn_scope_exact(s));
  return r;
}
static reading join(mn_graph *g, reading a, reading b) {
  reading r;
  r.o = mn_attention_join(g, a.o, a.lse, b.o, b.lse, &r.lse);
  return r;
}

/* The tokens (t - 2w, t - w] as the memory saw them. */
static reading read_faded(mn_scope *s, const bmojo_config *c, mn_tensor *x, mn_tensor *q, mn_tensor *f) {
  mn_attention_config a = c->attention;
  const int64_t H = a.heads, G = a.kv_heads, d = a.head_dim;
  const char *q_norm = c->qk_norm ? c->tie ? "q_norm" : "fading_q_norm" : NULL,
             *k_norm = c->qk_norm ? c->tie ? "k_norm" : "fading_k_norm" : NULL;
  if (!c->tie) q = heads_of(s, "fading_q_proj", q_norm, x, H, d);
  mn_tensor *k = heads_of(s, c->tie ? "k_proj" : "fading_k_proj", k_norm, f, G, d);
  mn_tensor *v = heads_of(s, c->tie ? "v_proj" : "fading_v_proj", NULL, f, G, d);
  a.delay = a.window;
  return read_window(mn_scope_in(s, "faded"), &a, q, k, v);
}

static mn_tensor *apply(mn_scope *s, const void *config, mn_tensor *x) {
  const bmojo_config *c = config;
  mn_graph *g = mn_scope_graph(s);
  const int64_t H = c->attention.heads, G = c->attention.kv_heads, d = c->attention.head_dim;
  mn_tensor *f = c->memory.def ? mn_mixer_apply(mn_scope_in(s, "fading"), &c->memory, x) : x;
  mn_tensor *q = heads_of(s, "q_proj", c->qk_norm ? "q_norm" : NULL, x, H, d),
            *k = heads_of(s, "k_proj", c->qk_norm ? "k_norm" : NULL, x, G, d);
  mn_tensor *v = heads_of(s, "v_proj", NULL, x, G, d);
  reading r = read_window(s, &c->attention, q, k, v);
  if (c->faded) r = join(g, read_faded(s, c, x, q, f), r);
  mn_tensor *o = mn_cast(g, r.o, mn_scope_compute(s));
  mn_share(s, MN_ATTENTION_HEADS, o);
  return mn_linear(s, "o_proj", mn_join_heads(s, o), mn_dim(x, 2), MN_NO_BIAS, xavier);
}

static void remedy(const void *config, mn_text *out) {
  const bmojo_config *c = config;
  const mn_mixer_def *d = c->memory.def;
  if (!c->qk_norm) mn_text_add(out, "set qk_norm: true (false now), or ");
  mn_text_add(out, "train with a lower lr or a longer warm-up");
  if (d && d->remedy) {
    mn_text_addf(out, "; of the memory that fades, %s: ", d->name);
    d->remedy(c->memory.config, out);
  }
}

#define BMOJO                                                                                                                              \
  .page = "bmojo", .kind = "state + context", .paper = "Zancato et al. 2024, arXiv 2407.06324", .config_size = sizeof(bmojo_config),       \
  .check = check, .base = offsetof(bmojo_config, memory), .base_key = "fading", .base_type = "gla", .base_words = instead, .apply = apply, \
  .remedy = remedy

const mn_mixer_def mn_mixer_bmojo_f = {
    .name = "bmojo_f",
    BMOJO,
    .summary = "B'MOJO-F: one softmax over a window and, further back, over what a memory that fades said",
    .fields = fields,
};
