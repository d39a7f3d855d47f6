/* aaren.c - Aaren (Feng, Tung, Hajimirsadeghi, Ahmed, Bengio & Mori 2024, arXiv 2405.13956): softmax attention over the whole
 * past by one learned query, so that what it remembers has a fixed size: a weighted average per head.
 *
 *     s_t = (W_q query) . (W_k x_t) / sqrt(Dh)     one score per token and head, the same for ever
 *     o_t = sum_{i<=t} exp(s_i) v_i / sum_{i<=t} exp(s_i)
 * State: m = max s_i, u = sum exp(s_i - m), w = sum exp(s_i - m) v_i. Training: m and u of all prefixes by doubling, then
 *     o_t = (1 - p_t) o_{t-1} + p_t v_t,   p_t = exp(s_t - m_t) / u_t
 * as a linear recurrence with one row. u and w only ever grow, and past 2^24 equal tokens one more would no longer change an
 * f32: as state they are f64, which counts on to 2^53. m only keeps the exponentials small: nothing is differentiated through
 * it. With decay the score of a token falls by lambda >= 0 with every token that follows. */
#include "graph/fused_recurrence.h"
#include "nn/mixer.h"
#include "nn/prefix.h"

#include <math.h>

typedef struct aaren_config {
  int64_t heads, head_dim, chunk;
  int score_scale;
  double query_init_std;
  bool decay, bias;
} aaren_config;

enum { RSQRT_DIM, NONE };
static const char *const scales[] = {"rsqrt_dim", "none", NULL};
#define S aaren_config
static const mn_field fields[] = {
    MN_FIELD_INT(S, heads, 4, 1, 4096, "heads H"),
    MN_FIELD_INT(S, head_dim, 0, 0, 4096, "width Dh of a head; 0: d_model / heads"),
    MN_FIELD_ENUM(S, score_scale, scales, RSQRT_DIM, "scores are divided by sqrt(head_dim), or taken as they are"),
    MN_FIELD_FLOAT(S, query_init_std, 0.02, 0, 100, "standard deviation of the learned query at the start"),
    MN_FIELD_BOOL(S, decay, false, "a learned rate per head at which scores fall with age"),
    MN_FIELD_BOOL(S, bias, true, "biases in the projections"),
    MN_FIELD_INT(S, chunk, 64, 1, 4096, "tokens worked on together; changes speed, not results", MN_TOKENS),
    MN_FIELD_END};
#undef S

static mn_status check(const mn_value *map, const char *where, int64_t d_model, void *config) {
  aaren_config *c = config;
  return mn_check_heads(map, where, d_model, c->heads, &c->head_dim);
}

/* Scores [B,T,H], exact. The query does not depend on the token, so the key projection is folded into it:
 * s_t = x_t . (W_k^T q) + b_k . q, at D H instead of D^2 per token. */
static mn_tensor *scores(mn_scope *s, const aaren_config *c, mn_tensor *x) {
  mn_graph *g = mn_scope_graph(s);
  mn_init xavier = {MN_INIT_XAVIER_UNIFORM, 1, 0};
  int64_t B = mn_dim(x, 0), T = mn_dim(x, 1), D = mn_dim(x, 2), H = c->heads, K = c->head_dim;
  mn_tensor *query =
      mn_param_exact(s, "query", MN_SHAPE(D), MN_NORMAL(c->query_init_std), MN_PARAM_NO_DECAY, "the learned query token [D]");
  mn_tensor *wq = mn_param_exact(s, "q_proj.weight", MN_SHAPE(H * K, D), xavier, MN_PARAM_MATRIX, "projection [out, in]");
  mn_tensor *wk = mn_param_exact(s, "k_proj.weight", MN_SHAPE(H * K, D), xavier, MN_PARAM_MATRIX, "projection [out, in]");
  mn_tensor *q = mn_matmul(g, wq, mn_reshape(g, query, MN_SHAPE(D, 1))); /* [H K, 1] */
  if (c->bias) {
    mn_tensor *b = mn_param_exact(s, "q_proj.bias", MN_SHAPE(H * K), MN_ZEROS, MN_PARAM_NO_DECAY, "bias [out]");
    q = mn_add(g, q, mn_reshape(g, b, MN_SHAPE(H * K, 1)));
  }
  q = mn_mul_scalar(g, mn_reshape(g, q, MN_SHAPE(H, 1, K)), c->score_scale == RSQRT_DIM ? 1 / sqrt((double)K) : 1);
  mn_tensor *a = mn_reshape(g, mn_matmul(g, q, mn_reshape(g, wk, MN_SHAPE(H, K, D))), MN_SHAPE(H, D));
  mn_tensor *rows = mn_reshape(g, mn_cast(g, x, mn_scope_exact(s)), MN_SHAPE(B * T, D));
  mn_tensor *y = mn_matmul(g, rows, mn_transpose(g, a, 0, 1)); /* [B T, H] */
  if (c->bias) {
    mn_tensor *b = mn_param_exact(s, "k_proj.bias", MN_SHAPE(H * K), MN_ZEROS, MN_PARAM_NO_DECAY, "bias [out]");
    y = mn_add(g, y, mn_reshape(g, mn_matmul(g, q, mn_reshape(g, b, MN_SHAPE(H, K, 1))), MN_SHAPE(H)));
  }
  return mn_reshape(g, y, MN_SHAPE(B, T, H));
}

/* tokens of the segment, [1] or, of rows of different lengths, [B,1], in type t */
static mn_tensor *tokens_of(mn_scope *s, mn_dtype t, int64_t T) {
  mn_graph *g = mn_scope_graph(s);
  mn_tensor *length = mn_scope_length(s);
  return length ? mn_cast(g, mn_unsqueeze(g, length, 1), t) : mn_full(g, t, MN_SHAPE(1), (double)T);
}

/* tokens that follow each of T: [1 or B,T,1] */
static mn_tensor *age(mn_graph *g, mn_tensor *tokens, int64_t T) {
  int64_t rows = mn_dim(tokens, 0);
  mn_tensor *last = mn_add_scalar(g, mn_reshape(g, tokens, MN_SHAPE(rows, 1, 1)), -1);
  return mn_sub(g, last, mn_iota(g, mn_type(tokens), MN_SHAPE(1, T, 1), 1));
}

/* Of all prefixes [B,1+T,H], the state in front, that of the whole segment: [B,H]. */
static mn_tensor *at_end(mn_scope *s, mn_tensor *x) {
  mn_graph *g = mn_scope_graph(s);
  int64_t B = mn_dim(x, 0), T = mn_dim(x, 1) - 1, H = mn_dim(x, 2);
  mn_tensor *length = mn_scope_length(s);
  return mn_reshape(g, length ? mn_take(g, x, mn_unsqueeze(g, length, 1), 1) : mn_slice(g, x, 1, T, 1), MN_SHAPE(B, H));
}

/* 0 with the slope of the last m, the largest score aged to the end: [B,H]. m0 [B,H], score [B,T,H]. */
static mn_tensor *rise(mn_graph *g, mn_tensor *m0, mn_tensor *score, mn_tensor *lambda, mn_tensor *tokens) {
  int64_t B = mn_dim(score, 0), T = mn_dim(score, 1), H = mn_dim(score, 2);
  if (lambda) {
    score = mn_sub(g, score, mn_mul(g, age(g, tokens, T), lambda));
    m0 = mn_sub(g, m0, mn_mul(g, tokens, lambda));
  }
  mn_tensor *top = mn_maximum(g, m0, mn_reshape(g, mn_max(g, score, MN_AXIS(1)), MN_SHAPE(B, H)));
  return mn_sub(g, top, mn_stop_gradient(g, top));
}

/* A sum that never stops counting, in f64: what there was, times `fade` (1 while m stands), plus `more`; in slopes, `value`, which
 * is the same number in the exact type. */
static void set_sum(mn_scope *s, const char *name, mn_tensor *was, mn_tensor *fade, mn_tensor *more, mn_tensor *value) {
  mn_graph *g = mn_scope_graph(s);
  mn_tensor *sum = mn_mul(g, mn_stop_gradient(g, was), mn_cast(g, fade, MN_F64));
  sum = mn_add(g, sum, mn_cast(g, mn_stop_gradient(g, more), MN_F64));
  mn_state_set(s, name, mn_add(g, sum, mn_cast(g, mn_sub(g, value, mn_stop_gradient(g, value)), MN_F64)));
}

static mn_tensor *apply(mn_scope *s, const void *config, mn_tensor *x) {
  const aaren_config *c = config;
  mn_graph *g = mn_scope_graph(s);
  mn_dtype t = mn_scope_exact(s);
  mn_init xavier = {MN_INIT_XAVIER_UNIFORM, 1, 0};
  int64_t B = mn_dim(x, 0), T = mn_dim(x, 1), D = mn_dim(x, 2), H = c->heads, K = c->head_dim;
  mn_shape head = MN_SHAPE(B, H), one = MN_SHAPE(B, 1, H);
  mn_tensor *score = mn_scope_masked(s, scores(s, c, x), MN_NOTHING), *lambda = NULL, *tokens = tokens_of(s, t, T); /* [B,T,H], [H] */
  mn_tensor *v = mn_cast(g, mn_split_heads(s, mn_linear(s, "v_proj", x, H * K, c->bias, xavier), H), t);
  if (c->decay)
    lambda = mn_softplus(g, mn_param_exact(s, "decay", MN_SHAPE(H), (mn_init){MN_INIT_TIME_STEP, 0.001, 0.1}, MN_PARAM_NO_DECAY,
                                           "scores fall by softplus(decay) per token [H]"));
  mn_tensor *m0 = mn_state(s, "m", t, head, mn_full(g, t, head, MN_NOTHING), "largest score; -1e30: no token yet");
  mn_tensor *u_was = mn_state(s, "u", MN_F64, head, NULL, "sum of exp(score - m)");
  mn_tensor *w_was = mn_state(s, "w", MN_F64, MN_SHAPE(B, H, K), NULL, "sum of exp(score - m) v; w / u is the average");
  mn_tensor *u0 = mn_cast(g, u_was, t), *w0 = mn_cast(g, w_was, t);
  /* inside, m is a constant; what it says of u and w as state it says here and at the end, in slopes alone: the values are 1 */
  mn_tensor *given = mn_exp(g, mn_sub(g, m0, mn_stop_gradient(g, m0))); /* [B,H] */
  u0 = mn_mul(g, u0, given);
  w0 = mn_mul(g, w0, mn_reshape(g, given, MN_SHAPE(B, H, 1)));

  /* m and u of all prefixes [B,1+T,H], the state in front: after the step with d, place t covers (t - 2d, t] */
  mn_tensor *ms = mn_stop_gradient(g, score);
  mn_tensor *m = mn_concat(g, 2, (mn_tensor *[]){mn_stop_gradient(g, mn_reshape(g, m0, one)), ms}, 1);
  mn_tensor *u = mn_concat(g, 2, (mn_tensor *[]){mn_reshape(g, u0, one), mn_exp(g, mn_sub(g, score, ms))}, 1);
  for (int64_t d = 1; d <= T; d *= 2) {
    mn_tensor *mb = mn_later(g, m, d, MN_NOTHING), *ub = mn_later(g, u, d, 0);
    if (lambda) mb = mn_sub(g, mb, mn_mul_scalar(g, lambda, (double)d));
    mn_tensor *top = mn_stop_gradient(g, mn_maximum(g, m, mb));
    u = mn_add(g, mn_mul(g, u, mn_exp(g, mn_sub(g, m, top))), mn_mul(g, ub, mn_exp(g, mn_sub(g, mb, top))));
    m = top;
  }
  mn_tensor *mt = mn_slice(g, m, 1, 1, T), *ut = mn_slice(g, u, 1, 1, T), *mp = mn_slice(g, m, 1, 0, T), *up = mn_slice(g, u, 1, 0, T);
  mn_tensor *p = mn_div(g, mn_exp(g, mn_sub(g, score, mt)), ut); /* a token's weight when it comes [B,T,H] */

  /* log(1 - p): its value from p, exact when p is tiny, as it is late in a stream; its slope from the equal
   * m_{t-1} + log u_{t-1} - m_t - log u_t, which stays bounded as p nears 1 */
  double largest = 1 - (t == MN_F64 ? 0x1p-53 : 0x1p-24);
  mn_tensor *keep = mn_log1p(g, mn_neg(g, mn_minimum(g, p, mn_scalar(g, t, largest))));
  mn_tensor *slope = mn_sub(g, mn_sub(g, mn_add(g, mp, mn_log(g, mn_maximum(g, up, mn_scalar(g, t, 1e-30)))), mt), mn_log(g, ut));
  if (lambda) slope = mn_sub(g, slope, lambda);
  keep = mn_add(g, mn_stop_gradient(g, keep), mn_sub(g, slope, mn_stop_gradient(g, slope)));

  mn_tensor *ones = mn_full(g, t, MN_SHAPE(B, T, H, 1), 1);
  mn_tensor *o0 = mn_div(g, w0, mn_reshape(g, mn_maximum(g, u0, mn_scalar(g, t, 1e-30)), MN_SHAPE(B, H, 1)));
  mn_recurrence_io io = {.q = ones, .k = ones, .v = v, .beta = p, .log_a = keep, .w0 = mn_reshape(g, o0, MN_SHAPE(B, H, 1, K))};
  mn_linear_memory(s, &io, (mn_recurrence_attr){.write = MN_WRITE_VALUE, .chunk = c->chunk});
  mn_tensor *u_end = at_end(s, u), *m_end = at_end(s, m), *slope_of_m = rise(g, m0, score, lambda, tokens);
  u_end = mn_mul(g, u_end, mn_exp(g, mn_neg(g, slope_of_m)));
  mn_state_set(s, "m", mn_add(g, m_end, slope_of_m));
  mn_tensor *w_end = mn_mul(g, mn_reshape(g, io.w, MN_SHAPE(B, H, K)), mn_reshape(g, u_end, MN_SHAPE(B, H, 1)));
  if (mn_scope_is_stream(s)) {
    mn_tensor *fade = m0, *each = score, *end = mn_stop_gradient(g, m_end); /* exp of a score less the largest, at the end */
    if (lambda) {
      each = mn_sub(g, each, mn_mul(g, age(g, tokens, T), lambda));
      fade = mn_sub(g, fade, mn_mul(g, tokens, lambda));
    }
    each = mn_scope_masked(s, mn_exp(g, mn_sub(g, each, mn_reshape(g, end, one))), 0);
    fade = mn_stop_gradient(g, mn_exp(g, mn_sub(g, fade, end)));
    set_sum(s, "u", u_was, fade, mn_reshape(g, mn_sum(g, each, MN_AXIS(1)), head), u_end);
    mn_tensor *values = mn_sum(g, mn_mul(g, mn_reshape(g, each, MN_SHAPE(B, T, H, 1)), v), MN_AXIS(1)); /* over the tokens */
    set_sum(s, "w", w_was, mn_reshape(g, fade, MN_SHAPE(B, H, 1)), mn_reshape(g, values, MN_SHAPE(B, H, K)), w_end);
  }
  return mn_linear(s, "o_proj", mn_cast(g, mn_join_heads(s, io.o), mn_scope_compute(s)), D, c->bias, xavier);
}

static void remedy(const void *config, mn_text *out) {
  const aaren_config *c = config;
  if (c->score_scale == NONE) mn_text_add(out, "set score_scale: rsqrt_dim (none now)");
  else mn_text_add(out, "what it reads is an average, so its weights have grown: train with more weight decay");
  mn_text_add(out, ", or with a lower lr or a longer warm-up");
}

const mn_mixer_def mn_mixer_aaren = {
    .name = "aaren",
    .kind = "state",
    .summary = "attention as an RNN: one learned query over the whole past, in a state of fixed size",
    .paper = "Feng, Tung, Hajimirsadeghi, Ahmed, Bengio & Mori 2024, arXiv 2405.13956",
    .config_size = sizeof(aaren_config),
    .fields = fields,
    .check = check,
    .apply = apply,
    .remedy = remedy,
};
