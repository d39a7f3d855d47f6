/* synaptic.c - our concretisation of Synaptic Resonance (Applegarth, Weatherstone, Hollingsworth, Middlebrook & Irvin 2025, arXiv
 * 2502.10699): beside another mixer, the base, a matrix of synapses per head changes while text is read. What arrives strengthens
 * pathways that predicted it, and what fits the present context; the others fade. Experimental: the paper has no equations that could
 * be checked, these are ours.
 *
 *     u_t = l2norm(W_u x_t)   v_t = W_v x_t   r_t = l2norm(W_r x_t)   e_t = l2norm(W_e x_t)                [d] per head
 *     c_t = mu c_{t-1} + (1 - mu) e_t              rel_t = e_t . c_{t-1} / (|c_{t-1}| + 1e-3)               relevance
 *     p_t = A u_t                                  res_t = p_t . v_t / (|p_t| |v_t| + 1e-3)                 resonance
 *     rho_t = sigmoid(b + w . x_t + beta_res res_t + beta_rel rel_t)                                        reinforcement
 *     P_t = lambda_t P_{t-1} + eta rho_t v_t u_t^T       lambda_t = 1 - delta (1 - rho_t), at least e^-4
 *     y_t = base(x)_t + g * W_o RMSNorm(concat_h P_t r_t)                                                   g starts at 0
 * A is P as it was before the chunk's first token; at the end of a chunk P becomes P min(1, pi / |P|_F), pi = p_max sqrt(d)
 * (homeostasis). So the chunk is part of the model. The state holds P transposed: rows are what is read by u and r.
 * P begins at zeros, at a learned matrix, or at a buffer that follows where training leaves P: slow synapses (consolidation). */
#include "graph/fused_norm.h"
#include "graph/fused_recurrence.h"
#include "nn/fast_layer.h"
#include "nn/heads.h"
#include "nn/mixer.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct synaptic_config {
  const mn_value *base; /* while parsing */
  mn_mixer inner;       /* what it describes */
  int64_t heads, head_dim, chunk, conv;
  double eta, mu, beta_res, beta_rel, rho_bias, delta_bias, p_max, consolidate_rate;
  int mode, start;
  bool detach_resonance;
} synaptic_config;

enum { OFF, STATIC, HEBB, GATED, RESONANCE };
enum { ZEROS, LEARNED };
static const char *const modes[] = {"off", "static", "hebb", "gated", "resonance", NULL};
static const char *const starts[] = {"zeros", "learned", NULL};
#define S synaptic_config
static const mn_field fields[] = {
    MN_FIELD_VALUE(S, base, "the mixer that it stands beside: {type: attention, window: 64}; none: attention"),
    MN_FIELD_ENUM(S, mode, modes, RESONANCE,
                  "what decides how much is written: resonance and relevance; gated: the token alone; hebb: half of everything; static: "
                  "nothing is, P is learned; off: the base alone"),
    MN_FIELD_INT(S, heads, 4, 1, 4096, "heads H, each with synapses of its own"),
    MN_FIELD_INT(S, head_dim, 0, 0, 4096, "width d of a head; 0: d_model / heads"),
    MN_FIELD_INT(S, chunk, 16, 1, 65536, "tokens between anchors and homeostasis; part of the model, keep it when streaming", MN_TOKENS),
    MN_FIELD_FLOAT(S, eta, 1, 0, 1e6, "how much a token writes at most"),
    MN_FIELD_FLOAT(S, mu, 0.95, 1e-6, 0.999999, "where mu of the running context starts; learned, one per head"),
    MN_FIELD_FLOAT(S, beta_res, 1, -1e6, 1e6, "where beta_res starts; learned, one per head; below 0: what is new is written"),
    MN_FIELD_FLOAT(S, beta_rel, 1, -1e6, 1e6, "where beta_rel starts; learned, one per head"),
    MN_FIELD_FLOAT(S, rho_bias, 0, -1e6, 1e6, "where b starts; learned, one per head"),
    MN_FIELD_FLOAT(S, delta_bias, -3, -1e6, 1e6, "where delta starts, the most that fades in a token: its sigmoid; learned, one per head"),
    MN_FIELD_FLOAT(S, p_max, 4, DBL_MIN, 1e30, "homeostasis: |P|_F is at most p_max sqrt(d) at the end of a chunk"),
    MN_FIELD_BOOL(S, detach_resonance, false, "no gradient through res"),
    MN_FIELD_INT(S, conv, 0, 0, 1 << 20, "kernel of a causal depthwise convolution before u, v, r and e; 0: none"),
    MN_FIELD_ENUM(S, start, starts, ZEROS, "P before the first token"),
    MN_FIELD_FLOAT(
        S, consolidate_rate, 0, 0, 1,
        "kappa: P before the first token is a buffer, and each training step moves it by this part to where P ended; 0: it is not"),
    MN_FIELD_END};
#undef S

/* Keys that a mode has no use for. */
static mn_status check_mode(const mn_value *map, const char *where, const synaptic_config *c) {
  static const struct {
    const char *key;
    int least; /* mode */
  } needs[] = {{"heads", STATIC},
               {"head_dim", STATIC},
               {"conv", STATIC},
               {"chunk", HEBB},
               {"eta", HEBB},
               {"delta_bias", HEBB},
               {"p_max", HEBB},
               {"start", HEBB},
               {"consolidate_rate", HEBB},
               {"rho_bias", GATED},
               {"mu", RESONANCE},
               {"beta_res", RESONANCE},
               {"beta_rel", RESONANCE},
               {"detach_resonance", RESONANCE}};
  for (size_t i = 0; i < sizeof needs / sizeof *needs; i++)
    if (c->mode < needs[i].least && mn_config_given(map, needs[i].key))
      return mn_config_fail(map, where, needs[i].key, "has no effect with mode: %s; leave it out", modes[c->mode]);
  return MN_OK;
}

static mn_status check(const mn_value *map, const char *where, int64_t d_model, void *config) {
  synaptic_config *c = config;
  if (!strcmp(c->inner.def->name, "synaptic"))
    return mn_config_fail(map, where, "base", "is synaptic, which has these synapses already; name the mixer inside it");
  MN_TRY(check_mode(map, where, c));
  if (c->start == LEARNED && c->consolidate_rate > 0)
    return mn_config_fail(map, where, "consolidate_rate",
                          "makes P before the first token a buffer that follows the training, and start: learned a parameter; choose one");
  return c->mode == OFF ? MN_OK : mn_check_heads(map, where, d_model, c->heads, &c->head_dim);
}

static const mn_init xavier = {MN_INIT_XAVIER_UNIFORM, 1, 0};
static mn_init at(double x) { return (mn_init){MN_INIT_CONSTANT, x, 0}; }

static mn_tensor *by_head(mn_scope *s, const synaptic_config *c, const char *name, double start, const char *help) { /* [H], exact */
  return mn_param_exact(s, name, MN_SHAPE(c->heads), at(start), MN_PARAM_NO_DECAY, help);
}

/* ---- what P begins with ---- transposed [H,d,d], exact */
static mn_tensor *learned(mn_scope *s, const synaptic_config *c) {
  const double std = 1 / sqrt((double)c->head_dim);
  return mn_param_exact(s, "P0", MN_SHAPE(c->heads, c->head_dim, c->head_dim), MN_NORMAL(std), 0,
                        "synapses before the first token, transposed [H,d,d]");
}
static mn_tensor *slow(mn_scope *s, const synaptic_config *c) {
  return mn_model_buffer(s, "P0", mn_scope_exact(s), MN_SHAPE(c->heads, c->head_dim, c->head_dim), 0,
                         "slow synapses: where P begins, transposed [H,d,d]");
}
static mn_tensor *begin(mn_scope *s, const void *config) {
  const synaptic_config *c = config;
  mn_graph *g = mn_scope_graph(s);
  const mn_shape shape = MN_SHAPE(mn_scope_batch(s), c->heads, c->head_dim, c->head_dim);
  if (c->start == ZEROS && c->consolidate_rate == 0) return mn_full(g, mn_scope_exact(s), shape, 0);
  return mn_expand(g, mn_unsqueeze(g, c->start == LEARNED ? learned(s, c) : slow(s, c), 0), shape);
}
static mn_tensor *synapses(mn_scope *s, const synaptic_config *c, const char *name, const char *help) {
  return mn_state_from(s, name, mn_scope_exact(s), MN_SHAPE(mn_scope_batch(s), c->heads, c->head_dim, c->head_dim), begin, c, help);
}
/* P_0 <- (1 - kappa) P_0 + kappa mean over the batch of P */
static void consolidate(mn_scope *s, const synaptic_config *c, mn_tensor *P) {
  mn_graph *g = mn_scope_graph(s);
  if (c->consolidate_rate == 0) return;
  mn_tensor *was = slow(s, c), *now = mn_reshape(g, mn_mean(g, P, MN_AXIS(0)), mn_shape_as(was));
  mn_model_buffer_set(s, "P0", mn_add(g, was, mn_mul_scalar(g, mn_sub(g, now, was), c->consolidate_rate)));
}

/* What is said about each token, x [B,T,H]: the mean of the heads, [B,T]. */
static void say(mn_scope *s, const char *name, mn_tensor *x) {
  mn_graph *g = mn_scope_graph(s);
  mn_report(s, name, mn_reshape(g, mn_mean(g, x, MN_AXIS(2)), MN_SHAPE(mn_dim(x, 0), mn_dim(x, 1))));
}

/* ---- activity, context ---- */
static mn_tensor *activity(mn_scope *s, const synaptic_config *c, const char *name, mn_tensor *x, bool unit) { /* [B,T,H,d], exact */
  char proj[16], conv[16];
  snprintf(proj, sizeof proj, "%s_proj", name);
  snprintf(conv, sizeof conv, "%s_conv", name);
  mn_tensor *z = mn_linear_exact(s, proj, x, c->heads * c->head_dim, MN_NO_BIAS, xavier, MN_ZEROS);
  if (c->conv) z = mn_conv_layer(s, conv, z, c->conv);
  z = mn_split_heads(s, z, c->heads);
  return unit ? mn_norm(mn_scope_graph(s), MN_NORM_L2, z, NULL, NULL, 1e-6, mn_scope_exact(s)) : z;
}

/* |x| over the last axis, which stays with size 1. What is added keeps the slope at 0 finite. */
static mn_tensor *length_of(mn_graph *g, mn_tensor *x) {
  return mn_sqrt(g, mn_add_scalar(g, mn_sum(g, mn_square(g, x), mn_last_axis(x)), 1e-12));
}
static mn_tensor *without_last(mn_graph *g, mn_tensor *x) { /* [B,T,H,1] -> [B,T,H] */
  return mn_reshape(g, x, MN_SHAPE(mn_dim(x, 0), mn_dim(x, 1), mn_dim(x, 2)));
}

/* rel [B,T,H] of e [B,T,H,d]: the running context is a memory of one row, read before it is written. */
static mn_tensor *relevance(mn_scope *s, const synaptic_config *c, mn_tensor *e) {
  mn_graph *g = mn_scope_graph(s);
  const mn_dtype t = mn_scope_exact(s);
  const int64_t B = mn_dim(e, 0), T = mn_dim(e, 1), H = c->heads, d = c->head_dim;
  mn_tensor *logit = by_head(s, c, "mu_logit", log(c->mu / (1 - c->mu)), "mu is its sigmoid [H]");
  mn_tensor *one = mn_full(g, t, MN_SHAPE(B, T, H, 1), 1);
  mn_recurrence_io io = {
      .q = one,
      .k = one,
      .v = e,
      .beta = mn_expand(g, mn_sigmoid(g, mn_neg(g, logit)), MN_SHAPE(B, T, H)),
      .log_a = mn_expand(g, mn_log_sigmoid(g, logit), MN_SHAPE(B, T, H)),
      .w0 = mn_reshape(g, mn_state(s, "c", t, MN_SHAPE(B, H, d), NULL, "running context"), MN_SHAPE(B, H, 1, d)),
  };
  mn_linear_memory(s, &io, (mn_recurrence_attr){.write = MN_WRITE_VALUE, .read_before = true, .chunk = 16});
  mn_state_set(s, "c", mn_reshape(g, io.w, MN_SHAPE(B, H, d)));
  mn_tensor *agree = mn_sum(g, mn_mul(g, e, io.o), MN_AXIS(3));
  return without_last(g, mn_div(g, agree, mn_add_scalar(g, length_of(g, io.o), 1e-3)));
}

/* ---- a chunk, or a piece of one ---- in: u, v, r [B,n,H,d], the argument of rho without resonance [B,n,H]; out: P_t r_t */
enum { U, V, R, DRIVE, INPUTS };

static mn_tensor *resonance(mn_scope *s, const synaptic_config *c, mn_tensor *anchor, mn_tensor *u, mn_tensor *v) { /* [B,n,H] */
  mn_graph *g = mn_scope_graph(s);
  mn_tensor *p = mn_transpose(g, mn_matmul(g, mn_transpose(g, u, 1, 2), anchor), 1, 2); /* [B,n,H,d] */
  mn_tensor *agree = mn_sum(g, mn_mul(g, p, v), MN_AXIS(3));
  mn_tensor *size = mn_add_scalar(g, mn_mul(g, length_of(g, p), length_of(g, v)), 1e-3);
  mn_tensor *res = without_last(g, mn_div(g, agree, size));
  if (c->detach_resonance) res = mn_stop_gradient(g, res);
  say(s, "res", res);
  return res;
}

static mn_tensor *norm_of(mn_graph *g, mn_tensor *P) { /* |P|_F, [B,H,1,1] */
  return mn_sqrt(g, mn_add_scalar(g, mn_sum(g, mn_square(g, P), MN_AXIS(2) | MN_AXIS(3)), 1e-12));
}
/* P min(1, pi / |P|_F) */
static mn_tensor *homeostasis(mn_graph *g, const synaptic_config *c, mn_tensor *P) {
  mn_tensor *norm = norm_of(g, P);
  mn_tensor *most = mn_scalar(g, mn_type(P), c->p_max * sqrt((double)c->head_dim)), *one = mn_scalar(g, mn_type(P), 1);
  return mn_mul(g, P, mn_minimum(g, one, mn_div(g, most, norm)));
}

/* A number for each head's P, said of each of n tokens, [B,n,H]. */
static void say_of(mn_scope *s, const char *name, mn_tensor *x, int64_t n) {
  mn_graph *g = mn_scope_graph(s);
  const int64_t B = mn_dim(x, 0), H = mn_dim(x, 1);
  mn_report(s, name, mn_expand(g, mn_reshape(g, x, MN_SHAPE(B, 1, H)), MN_SHAPE(B, n, H)));
}

/* Rows whose chunk ends with this piece of n tokens, bool [B,1,1,1]; NULL: *all says for every row. */
static mn_tensor *ends(mn_scope *s, const synaptic_config *c, mn_tensor *phase, int64_t n, bool *all) {
  mn_graph *g = mn_scope_graph(s);
  mn_tensor *length = mn_scope_length(s), *zero = mn_scalar(g, MN_I32, 0);
  *all = !phase && !length && n == c->chunk;
  if (!phase && (!length || n < c->chunk)) return NULL; /* pieces cross no end */
  if (!length) length = mn_full(g, MN_I32, MN_SHAPE(mn_scope_batch(s)), (double)n);
  else length = mn_maximum(g, mn_minimum(g, length, mn_scalar(g, MN_I32, (double)n)), zero);
  mn_tensor *at_end = mn_eq(g, phase ? mn_add(g, phase, length) : length, mn_scalar(g, MN_I32, (double)c->chunk));
  return mn_reshape(g, mn_and(g, at_end, mn_lt(g, zero, length)), MN_SHAPE(mn_scope_batch(s), 1, 1, 1));
}

static void piece(mn_scope *s, void *ctx, mn_tensor *const *in, mn_tensor **out) {
  const synaptic_config *c = ctx;
  mn_graph *g = mn_scope_graph(s);
  const mn_dtype t = mn_scope_exact(s);
  const int64_t B = mn_dim(in[U], 0), n = mn_dim(in[U], 1), H = c->heads;
  const bool anchored = c->mode == RESONANCE && c->chunk > 1;
  mn_tensor *P = synapses(s, c, "P", "synapses, transposed: a query r reads r P"), *phase = mn_fast_phase(s, c->chunk);
  mn_tensor *A = anchored ? synapses(s, c, "A", "P where the chunk began") : P;
  mn_tensor *z = in[DRIVE]; /* [B,n,H] */
  if (c->mode == RESONANCE) {
    mn_tensor *beta = by_head(s, c, "beta_res", c->beta_res, "weight of resonance [H]");
    z = mn_add(g, z, mn_mul(g, beta, resonance(s, c, phase ? A : P, in[U], in[V])));
  }
  mn_tensor *rho = mn_sigmoid(g, z), *delta = mn_sigmoid(g, by_head(s, c, "delta_logit", c->delta_bias, "delta is its sigmoid [H]"));
  mn_tensor *fade = mn_mul(g, delta, mn_sigmoid(g, mn_neg(g, z))); /* 1 - lambda */
  fade = mn_minimum(g, fade, mn_scalar(g, t, 1 - exp(-4)));
  say(s, "rho", rho);
  mn_report(s, "rho_heads", rho);
  mn_recurrence_io io = {.q = in[R],
                         .k = in[U],
                         .v = in[V],
                         .beta = mn_expand(g, mn_mul_scalar(g, rho, c->eta), MN_SHAPE(B, n, H)),
                         .log_a = mn_expand(g, mn_log1p(g, mn_neg(g, fade)), MN_SHAPE(B, n, H)),
                         .w0 = P};
  mn_linear_memory(s, &io, (mn_recurrence_attr){.write = MN_WRITE_VALUE, .chunk = c->chunk < 64 ? c->chunk : 64});
  bool all;
  mn_tensor *end = ends(s, c, phase, n, &all), *clipped = end || all ? homeostasis(g, c, io.w) : NULL;
  P = end ? mn_select(g, end, clipped, io.w) : all ? clipped : io.w;
  if (anchored && (end || all)) mn_state_set(s, "A", end ? mn_select(g, end, P, A) : P);
  mn_state_set(s, "P", P);
  say_of(s, "P_norm", norm_of(g, P), n);
  say_of(s, "P_full", mn_mul_scalar(g, norm_of(g, io.w), 1 / (c->p_max * sqrt((double)c->head_dim))), n);
  out[0] = io.o;
}

/* s_t = P_t r_t, [B,T,H,d]. Pieces of a chunk, or of a divisor of it, never cross a chunk's end; where nothing is known of a stream's
 * position they are tokens. */
static mn_tensor *plastic(mn_scope *s, const synaptic_config *c, mn_tensor *x) {
  mn_graph *g = mn_scope_graph(s);
  const int64_t B = mn_dim(x, 0), T = mn_dim(x, 1), H = c->heads;
  mn_tensor *in[INPUTS] = {activity(s, c, "u", x, true), activity(s, c, "v", x, false), activity(s, c, "r", x, true)}, *read;
  if (c->mode == HEBB) in[DRIVE] = mn_full(g, mn_scope_exact(s), MN_SHAPE(B, T, H), 0);
  else in[DRIVE] = mn_linear_exact(s, "rho_proj", x, H, MN_BIAS, MN_ZEROS, at(c->rho_bias));
  if (c->mode == RESONANCE) {
    mn_tensor *rel = relevance(s, c, activity(s, c, "e", x, true));
    say(s, "rel", rel);
    in[DRIVE] = mn_add(g, in[DRIVE], mn_mul(g, rel, by_head(s, c, "beta_rel", c->beta_rel, "weight of relevance [H]")));
  }
  int64_t length = c->chunk;
  while (length > 1 && (c->chunk % length || !mn_scope_aligned(s, length))) length--;
  synaptic_config own = *c;
  mn_scope_loop_n(s, (mn_loop){.length = length}, piece, &own, INPUTS, in, 1, &read);
  consolidate(s, c, synapses(s, c, "P", NULL));
  return read;
}

/* The same with P as it is learned. */
static mn_tensor *unchanging(mn_scope *s, const synaptic_config *c, mn_tensor *x) {
  mn_graph *g = mn_scope_graph(s);
  mn_tensor *r = mn_transpose(g, activity(s, c, "r", x, true), 1, 2); /* [B,H,T,d] */
  return mn_transpose(g, mn_matmul(g, r, learned(s, c)), 1, 2);
}

static mn_tensor *apply(mn_scope *outer, const void *config, mn_tensor *x) {
  const synaptic_config *c = config;
  mn_graph *g = mn_scope_graph(outer);
  const mn_dtype t = mn_scope_exact(outer);
  const int64_t D = mn_dim(x, 2);
  mn_tensor *y = mn_mixer_apply_base(outer, &c->inner, x);
  if (c->mode == OFF || !y) return y;
  mn_scope *s = mn_scope_in(outer, "synaptic");
  mn_tensor *read = c->mode == STATIC ? unchanging(s, c, x) : plastic(s, c, x);
  read = mn_norm_layer(s, "norm", MN_NORM_RMS, mn_join_heads(s, read), 1e-6, mn_scope_compute(s));
  read = mn_linear_exact(s, "o_proj", read, D, MN_NO_BIAS, xavier, MN_ZEROS);
  mn_tensor *gate = mn_param_exact(s, "gate", MN_SHAPE(D), MN_ZEROS, MN_PARAM_NO_DECAY, "g [D]: how much of what is read is added");
  return mn_cast(g, mn_add(g, mn_cast(g, y, t), mn_mul(g, gate, read)), mn_scope_compute(s));
}

static void remedy(const void *config, mn_text *out) {
  const synaptic_config *c = config;
  if (c->mode == RESONANCE)
    mn_text_addf(out, "set detach_resonance: true or lower beta_res (%g at the start), so that rho and P do not raise each other, or ",
                 c->beta_res);
  if (c->mode > STATIC) mn_text_addf(out, "lower p_max (%g now) or eta (%g now), or ", c->p_max, c->eta);
  if (c->inner.def->remedy) c->inner.def->remedy(c->inner.config, out);
  else mn_text_add(out, "train with a lower lr or a longer warm-up");
}

static const char *not_causal(const void *config) {
  const synaptic_config *c = config;
  return c->inner.def->not_causal ? c->inner.def->not_causal(c->inner.config) : NULL;
}

static const mn_mixer_without without[] = {
    {"persist", "synapses live as long as their stream, which --session-out FILE keeps; set mode: static where nothing may change"},
    {NULL, NULL}};

const mn_mixer_def mn_mixer_synaptic = {
    .name = "synaptic",
    .kind = "state + weights",
    .summary = "experimental: Hebbian synapses around any mixer, written by resonance and relevance",
    .paper = "our concretisation of Synaptic Resonance, Applegarth et al. 2025, arXiv 2502.10699",
    .config_size = sizeof(synaptic_config),
    .fields = fields,
    .without = without,
    .check = check,
    .apply = apply,
    .remedy = remedy,
    .not_causal = not_causal,
    .base = offsetof(synaptic_config, inner),
};
