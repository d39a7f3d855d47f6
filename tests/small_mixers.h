/* small_mixers.h - small configurations of every system, for what must be true of them all: a few tokens of a width of 8 make every
 * one of them turn over its chunk, its window or its segment. */
#ifndef MN_SMALL_MIXERS_H
#define MN_SMALL_MIXERS_H

#include <string.h>

#include "nn/mixer.h"
#include "test.h"

static const char *const mn_small_mixers[] = {
    "{type: attention, heads: 2, kv_heads: 1, window: 4, sinks: 1, persistent: 2}",
    "{type: attention, heads: 2, max_context: 16, persistent: 1, conv: 3, bias: true}",
    "{type: attention, heads: 2, kv_heads: 1, window: 4, qk_norm: heads, score_scale: 0.6, output_gate: true}",
    "{type: mla, heads: 2, kv_lora_rank: 3, window: 4}",
    "{type: mla, heads: 2, q_lora_rank: 5, kv_lora_rank: 6, v_head_dim: 3, max_context: 16, rope: false}",
    "{type: aaren, heads: 2, query_init_std: 1}",
    "{type: aaren, heads: 2, query_init_std: 1, decay: true}",
    "{type: gated_deltanet, heads: 2, conv: 3, chunk: 4}",
    "{type: gated_deltanet, heads: 2, head_dim: 3, key_heads: 1, value_dim: 4, conv: 2, chunk: 4}",
    "{type: deltanet, heads: 2, conv: 3}",
    "{type: kimi_delta, heads: 2, conv: 3, rank: 3}",
    "{type: gla, heads: 2, decay_temperature: 2}",
    "{type: hgrn2, heads: 2, lower_bound: 0.25}",
    "{type: rwkv7, heads: 2, decay_rank: 3, rate_rank: 3, gate_rank: 3, values: first}",
    "{type: mamba2, head_dim: 4, state: 3, groups: 2}",
    "{type: mamba2, inner: 8, head_dim: 4, state: 3, norm: before_gate, norm_groups: 2, bias: true, dt_min: 0.01, dt_max: 1}",
    "{type: retnet, heads: 2}",
    "{type: parallel, mixers: [{type: attention, heads: 2, window: 4}, {type: mamba2, head_dim: 4, state: 3}]}",
    "{type: short_conv}",
    "{type: short_conv, conv: 2, bias: true}",
    "{type: linear_attention, heads: 2}",
    "{type: lizard, heads: 2, kv_heads: 1, window: 3}",
    "{type: lizard, heads: 2, window: 4, norm: joint, alpha: per_head, features: 3, window_rope: true}",
    "{type: synaptic, heads: 2, chunk: 4, base: {type: attention, heads: 2, window: 3}}",
    "{type: synaptic, heads: 2, chunk: 3, mode: gated, start: learned, base: {type: retnet, heads: 2}}",
    "{type: bmojo_f, heads: 2, kv_heads: 1, window: 2}",
    "{type: bmojo_f, heads: 2, window: 2, tie: false, qk_norm: true, fading: {type: deltanet, heads: 2, conv: 2}}",
    "{type: bmojo, heads: 2, window: 1, slots: 2, predict_dim: 3}",
    "{type: bmojo, heads: 2, kv_heads: 1, window: 1, chunk: 2, slots: 1, fading: none, test: output, taps: 2, store: 3, retrieve: 1}",
    "{type: lmu, order: 5, window: 9, channels: 2, input: linear}",
    "{type: lmu_cell, order: 4, window: 7}",
    "{type: lstm, hidden: 5}",
    "{type: ttt_linear, heads: 2, mini_batch: 3}",
    "{type: ttt_mlp, heads: 2, mini_batch: 4}",
    "{type: deep_transformer, heads: 2, memory_expand: 1, chunk: 4, max_context: 16}",
    "{type: swdt, heads: 2, memory_expand: 1, chunk: 4, memory_window: 5}",
    "{type: dot, heads: 2, memory_net: linear, chunk: 4, max_context: 16}",
    "{type: dla, heads: 2, memory_expand: 1, chunk: 4, grad_clamp: 0, conv: 0}",
    "{type: omeganet, heads: 2, memory_net: gated, memory_expand: 1, chunk: 4, memory_window: 3, conv: 0}",
    "{type: atlas, heads: 2, memory_net: linear, chunk: 4, ns_every: 2, ns_steps: 1, memory_window: 3, conv: 0}",
    "{type: swla, heads: 2, chunk: 4, memory_window: 3, conv: 0}",
    "{type: atlas_mag, heads: 2, memory_net: linear, chunk: 4, ns_steps: 1, memory_window: 3, conv: 0, window: 3, persistent: 2}",
    "{type: atlas_mal, heads: 2, memory_net: linear, chunk: 4, ns_steps: 1, memory_window: 3, conv: 0, window: 3, persistent: 2}",
    "{type: atlas_mac, heads: 2, memory_net: linear, chunk: 2, ns_steps: 1, memory_window: 2, conv: 0, segment: 4, persistent: 2}",
    "{type: titans, heads: 2, chunk: 4}",
    "{type: titans_lmm, heads: 2, memory_net: linear, chunk: 4, grad_clamp: 0}",
    "{type: titans_lmm, heads: 2, memory_net: mlp, memory_depth: 2, memory_expand: 1, chunk: 4, grad_clamp: 1, conv: 0}",
    "{type: titans_lmm, heads: 2, memory_net: ln_mlp, memory_depth: 2, memory_expand: 1, chunk: 4, granularity: chunk, conv: 0}",
    "{type: titans_mag, heads: 2, memory_net: linear, chunk: 4, window: 3, persistent: 2}",
    "{type: titans_mal, heads: 2, memory_net: linear, chunk: 4, max_context: 16, persistent: 2}",
    "{type: titans_mac, heads: 2, memory_net: linear, chunk: 2, segment: 4, persistent: 2}",
};
enum { MN_SMALL_MIXERS = sizeof mn_small_mixers / sizeof *mn_small_mixers };

/* A system that is added is added here. */
static inline void small_mixers_are_all_systems(void) {
  for (int i = 0; i < mn_mixer_count(); i++) {
    const char *name = mn_mixer_at(i)->name;
    const size_t n = strlen(name), type = strlen("{type: ");
    bool there = false;
    for (int k = 0; k < MN_SMALL_MIXERS; k++)
      there = there || (!strncmp(mn_small_mixers[k] + type, name, n) && strchr(",}", mn_small_mixers[k][type + n]));
    CHECK(there, "there is no small configuration of %s", name);
  }
}

#endif
