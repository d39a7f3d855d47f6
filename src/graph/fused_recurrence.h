/* fused_recurrence.h - the chunked linear recurrence, the shared core of linear memories. */
#ifndef MN_FUSED_RECURRENCE_H
#define MN_FUSED_RECURRENCE_H

#include "graph/graph.h"

/* The chunked linear recurrence: the shared core of linear memories. Per batch and head, a matrix state W[K,V] (and
 * momentum S[K,V]) is written by rank-one updates and read by queries:
 *     S_t = eta_t S_{t-1} + beta_t k_t u_t^T                         (momentum; without it S_t = beta_t k_t u_t^T)
 *     W_t = diag(a_t) W_{t-1} + S_t                                  (a_t = exp(log_a_t): one number per head, or one per key channel)
 *     o_t = W_t^T q_t   (after)   or   W_{t-1}^T q_t   (before)
 * where the written value is
 *     MN_WRITE_VALUE    u_t = v_t                                     (linear attention, RetNet, GLA, HGRN2, Mamba-2, Aaren, Lizard, synapses)
 *     MN_WRITE_ANCHOR   u_t = v_t - W_anchor^T k_t, anchor = state before the current chunk    (Titans)
 *     MN_WRITE_DELTA    u_t = v_t - W_{t-1}^T (a_t * k_t)             (DeltaNet, Gated DeltaNet, Kimi Delta Attention)
 *     MN_WRITE_ERASE    u_t = v_t, and what the probe f_t reads is taken away along e_t (no momentum):
 *                       W_t = diag(a_t) W_{t-1} - e_t (f_t^T W_{t-1}) + beta_t k_t v_t^T               (RWKV-7)
 * ERASE is the general form. The probe reads the state before it decays, so DELTA is e = beta k, f = a * k; RWKV-7's
 * S (diag(w) - kappa^T (a * kappa)) + v^T k is, transposed, f = kappa, e = a * kappa. DELTA needs no second pair of vectors
 * and is faster.
 * q, k and (ERASE) erase, probe [B,T,H,K] or, shared by H/G heads each, [B,T,G,K]: head h reads group h / (H/G). v [B,T,H,V].
 * beta [B,T,H] or NULL (1); log_a [B,T,H] or [B,T,H,K] or NULL (no decay); log_eta [B,T,H] or NULL (no momentum); logs <= 0.
 * W0, S0, A0 [B,H,K,V] (S0 only with momentum; A0, the anchor's value, only with ANCHOR); phase i32 [B] or NULL (0): how many
 * tokens of the current chunk lie before this segment. chunk, at least 1, is part of the meaning of ANCHOR and only a speed knob of
 * the others (64 does). With grad_clamp m > 0 (ANCHOR only) what a token writes, k u^T, keeps its direction and its norm n becomes
 * m tanh(n/m), n^2 = |k|^2 |u|^2 + 1e-12. Arithmetic and state are f32 (f64), W0's type. Each operand may have a type of its own:
 * q, k, v the compute type or f32; logs and gates f32, as a rounded decay is another decay. Returns o [B,T,H,V] in v's type; the final
 * W, S, A. For the gradient of what mn_recurrence_keeps: the states before tokens 0, E, 2E, ..., E = mn_recurrence_every(K, V), which costs
 * nothing where nobody reads them: passing them on takes less time than making them again. */
typedef enum mn_write_rule { MN_WRITE_VALUE, MN_WRITE_ANCHOR, MN_WRITE_DELTA, MN_WRITE_ERASE } mn_write_rule;
MN_ATTRS_BEGIN
typedef struct mn_recurrence_attr {
  mn_write_rule write;
  bool momentum, decay, by_channel, read_before, has_phase; /* but for read_before, set from the operands */
  uint8_t unused[7];
  int64_t chunk;
  double grad_clamp; /* ANCHOR: m; 0: off */
} mn_recurrence_attr;
MN_ATTRS_END
/* Tokens from one state that is kept to the next: a kernel's pieces, or as many together that states take no more room than keys and values */
enum { MN_RECURRENCE_PIECE = 32 };
static inline int64_t mn_recurrence_every(int64_t K, int64_t V) {
  int64_t every = MN_RECURRENCE_PIECE;
  while (every * (K + V) < K * V) every *= 2;
  return every;
}
static inline bool mn_recurrence_keeps(const mn_recurrence_attr *a) {
  return (a->by_channel || a->write == MN_WRITE_ERASE) && !a->momentum && a->write != MN_WRITE_ANCHOR;
}
typedef struct mn_recurrence_io {
  mn_tensor *q, *k, *v, *beta, *log_a, *log_eta, *erase, *probe, *w0, *s0, *a0, *phase; /* in  */
  mn_tensor *o, *w, *s, *a;                                                             /* out */
} mn_recurrence_io;
void mn_linear_recurrence(mn_graph *g, mn_recurrence_io *io, mn_recurrence_attr attr);

/* For kernels and passes: operands and results in order. */
/* (q, k, v, beta, [log_a], [log_eta], [erase, probe], w0, [s0], [a0], [phase]) -> (o, w, [s], [a], [kept]); beta is ones where io has none;
 * mn_recurrence_attr says what is there (decay: log_a; momentum: log_eta, s0, s; write ERASE: erase, probe; ANCHOR: a0, a; has_phase; kept:
 * mn_recurrence_keeps). kept: [B,H,ceil(T/E),K,V] in W0's type. */
extern const mn_op mn_op_recurrence;
/* (the same inputs.., do, dw, [ds], [da], [kept]) -> (dq, dk, dv, dbeta, [dlog_a], [dlog_eta], [derase, dprobe], dw0, [ds0], [da0]) */
extern const mn_op mn_op_recurrence_grad;

#endif
