/* recurrence.h - the chunked linear recurrence of one (batch, head), one table per instruction set. */
#ifndef MN_CPU_ISA_RECURRENCE_H
#define MN_CPU_ISA_RECURRENCE_H

#include "backend/backend.h"
#include "backend/cpu/isa.h"
#include "graph/fused_recurrence.h"

typedef struct mn_rec_tensor { /* a tensor of [B,T,H,*], [B,T,H], [B,H,K,V] or [B,H,n,K,V]; strides in elements; data NULL: absent */
  void *data;
  bool bf16;
  int64_t b, t, h, r; /* strides of batch, time (or of n), head, row (states only) */
} mn_rec_tensor;

typedef struct mn_rec_args {
  int64_t B, T, H, K, V, chunk;
  mn_write_rule write;
  bool momentum, decay, by_channel, read_before;
  float grad_clamp; /* ANCHOR: a write of norm n gets the norm m tanh(n/m); 0: off */
  bool plain;       /* DELTA without its a_t: u_t = v_t - W_{t-1}^T k_t, which is what ANCHOR is when a chunk is one token */
  mn_rec_tensor q, k, v, beta, log_a, log_eta, erase, probe, w0, s0, a0;
  const int32_t *phase; /* [B] or NULL */
  int64_t phase_stride;
  mn_rec_tensor kept;       /* what mn_recurrence_keeps: forward a result, or absent; backward an operand */
  mn_rec_tensor o, w, s, a; /* forward: results; backward: their gradients */
  mn_rec_tensor dq, dk, dv, dbeta, dlog_a, dlog_eta, derase, dprobe, dw0, ds0, da0; /* backward only */
} mn_rec_args;

typedef struct mn_recurrence_isa {
  /* Bytes that a sequence keeps from one turn to the next, 0 if there is one, and that a turn needs besides; multiples of 64. */
  void (*sizes)(const mn_rec_args *a, size_t *kept, size_t *scratch);
  /* Turn 0, 1, 2, ... of the sequence of (b, h), one after the other; true: there is another. */
  bool (*turn)(const mn_rec_args *a, int64_t b, int64_t h, int64_t turn, void *kept, void *scratch);
} mn_recurrence_isa;
MN_ISA_DECLARE(mn_recurrence_isa, mn_recurrence); /* forward */
MN_ISA_DECLARE(mn_recurrence_isa, mn_recurrence_grad);
MN_ISA_DECLARE(mn_recurrence_isa, mn_recurrence_channel); /* a decay for each key channel, or erase vectors: forward */
MN_ISA_DECLARE(mn_recurrence_isa, mn_recurrence_channel_grad);

#endif
