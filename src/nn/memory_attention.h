/* memory_attention.h - a memory of slots that is written by attention (Filipek 2025, arXiv 2510.03561): every slot of every layer asks
 * what was read, and a gate says how much of the answer it takes over. All layers are written from the memory as it was before.
 *     A_i = Attn(q = n(U_i), k = v = n(X_i))     M'_i = gate(U_i, A_i)
 * What stands before the question is `write`; m is the mean of all layers' memories, or with `grouped` of adjacent ones:
 *     simple            U_i = M_i
 *     self              U_i = gate(M_i, Attn(n'(M_i), n'(M_i)))
 *     interlayer        U_i = gate(M_i, Attn(n'(M_i), n''(m)))          grouped: the same, m of a group
 *     self_interlayer   U_i = gate(M_i, Attn(n'(M_i), gate'(n'(M_i), n''(m))))
 * The keys of what was read are turned by their places (rotary); slots have no order, so nothing of them is. */
#ifndef MN_MEMORY_ATTENTION_WRITE_H
#define MN_MEMORY_ATTENTION_WRITE_H

#include "nn/cross_attention.h"

typedef enum mn_write_kind {
  MN_WRITE_SIMPLE,
  MN_WRITE_SELF,
  MN_WRITE_INTERLAYER,
  MN_WRITE_SELF_INTERLAYER,
  MN_WRITE_GROUPED
} mn_write_kind;
/* How much of the new a slot takes, a number for each slot: act(p), act(p mean(new + old)), act(W mean(new + old) + b) over all slots.
 * none: new + old. sigmoid: g new + (1 - g) old, which never grows. tanh: (1 + g) new + (1 - g) old. */
typedef enum mn_slot_gate { MN_GATE_NONE, MN_GATE_STATIC, MN_GATE_ELEMENTWISE, MN_GATE_LINEAR } mn_slot_gate;
typedef enum mn_slot_gate_act { MN_GATE_SIGMOID, MN_GATE_TANH } mn_slot_gate_act;
extern const char *const mn_write_names[], *const mn_slot_gate_names[], *const mn_slot_gate_act_names[]; /* each closed by NULL */

typedef struct mn_memory_attention_config {
  mn_cross_config heads;
  int write, gate, gate_act; /* mn_write_kind, mn_slot_gate, mn_slot_gate_act */
  int64_t group;             /* layers of a group, with grouped */
  int norm;                  /* mn_norm_kind */
  double norm_eps;
} mn_memory_attention_config;

/* memory [B,M,S,D] exact type, read: M tensors [B,T,D], of which the first `length` (i32 [B]; NULL: all) places are there. */
mn_tensor *mn_memory_attention(mn_scope *s, const mn_memory_attention_config *c, mn_tensor *memory, mn_tensor *const *read,
                               mn_tensor *length);

#endif
