"""Golden vectors of softmax attention: grouped heads, sliding window, persistent prefix, sinks, RoPE on halves.

    o_t,h = sum_j softmax_j(q_t,h . k_j,g / sqrt(K)) v_j,g        g = h // (H / G)
Key j of the sequence is visible to query t when j <= t and (window = 0 or j > t - window or j < sinks). The persistent
pairs prefix_k, prefix_v are visible to all and are never rotated; sinks keep the rotation of their own position.
"""
import math

import numpy as np
import torch

from golden_lib import emit, rng_of, rotate, t_rope


def numpy_forward(x, p, c):
    B, T, D = x.shape
    H, G, K = c["heads"], c["kv_heads"], c["head_dim"]
    V = p["v_proj.weight"].shape[0] // G
    n_prefix = p["prefix_k"].shape[0] if "prefix_k" in p else 0
    y, keys, values = np.zeros_like(x), np.zeros((B, T, G, K)), np.zeros((B, T, G, V))
    for b in range(B):
        for t in range(T):
            q = (p["q_proj.weight"] @ x[b, t]).reshape(H, K)
            k = (p["k_proj.weight"] @ x[b, t]).reshape(G, K)
            values[b, t] = (p["v_proj.weight"] @ x[b, t]).reshape(G, V)
            for g in range(G):
                keys[b, t, g] = rotate(k[g], t, c["rope_theta"])
            out = np.zeros((H, V))
            for h in range(H):
                g = h // (H // G)
                turned = rotate(q[h], t, c["rope_theta"])
                seen = [(p["prefix_k"][i, g], p["prefix_v"][i, g]) for i in range(n_prefix)]
                for j in range(t + 1):
                    if c["window"] == 0 or j > t - c["window"] or j < c["sinks"]:
                        seen.append((keys[b, j, g], values[b, j, g]))
                scores = np.array([turned @ key for key, _ in seen]) / math.sqrt(K)
                weights = np.exp(scores - scores.max())
                weights /= weights.sum()
                out[h] = sum(w * value for w, (_, value) in zip(weights, seen))
            y[b, t] = p["o_proj.weight"] @ out.reshape(H * V)
    return y, {"k": keys, "v": values}


def torch_forward(x, p, c):
    B, T, D = x.shape
    H, G, K = c["heads"], c["kv_heads"], c["head_dim"]
    at = torch.arange(T)
    q = t_rope((x @ p["q_proj.weight"].T).view(B, T, H, K), at, c["rope_theta"])
    k = t_rope((x @ p["k_proj.weight"].T).view(B, T, G, K), at, c["rope_theta"])
    v = (x @ p["v_proj.weight"].T).view(B, T, G, -1)
    seen = at[None, :] <= at[:, None]
    if c["window"]:
        seen = seen & ((at[None, :] > at[:, None] - c["window"]) | (at[None, :] < c["sinks"]))
    all_k, all_v = k, v
    if "prefix_k" in p:
        n = p["prefix_k"].shape[0]
        all_k = torch.cat((p["prefix_k"].expand(B, -1, -1, -1), k), 1)
        all_v = torch.cat((p["prefix_v"].expand(B, -1, -1, -1), v), 1)
        seen = torch.cat((torch.ones(T, n, dtype=torch.bool), seen), 1)
    all_k, all_v = all_k.repeat_interleave(H // G, 2), all_v.repeat_interleave(H // G, 2)
    scores = torch.einsum("bthk,bshk->bhts", q, all_k) / math.sqrt(K)
    o = torch.einsum("bhts,bshv->bthv", scores.masked_fill(~seen, -math.inf).softmax(-1), all_v)
    return o.reshape(B, T, -1) @ p["o_proj.weight"].T, {"k": k, "v": v}


def parameters(rng, D, H, G, K, V, n_prefix):
    p = {name + ".weight": rng.standard_normal(shape) / math.sqrt(shape[1]) for name, shape in
         [("q_proj", (H * K, D)), ("k_proj", (G * K, D)), ("v_proj", (G * V, D)), ("o_proj", (D, H * V))]}
    if n_prefix:
        p["prefix_k"], p["prefix_v"] = rng.standard_normal((n_prefix, G, K)), rng.standard_normal((n_prefix, G, V))
    return p


def main():
    B, T, D, H, K = 2, 21, 16, 4, 4
    for name, G, window, n_prefix, sinks in [("attention_full", 4, 0, 0, 0), ("attention_gqa", 2, 0, 0, 0),
                                             ("attention_gqa_window", 2, 6, 0, 0),
                                             ("attention_window_prefix", 4, 5, 3, 0),
                                             ("attention_window_sinks", 1, 5, 0, 2),
                                             ("attention_gqa_prefix", 2, 0, 3, 0)]:
        rng = rng_of(name)
        config = {"type": "attention", "heads": H, "kv_heads": G, "head_dim": K, "window": window,
                  "persistent": n_prefix, "sinks": sinks, "rope_theta": 10000.0}
        x = rng.standard_normal((B, T, D))
        emit(name, "attention", config, x, parameters(rng, D, H, G, K, K, n_prefix), numpy_forward, torch_forward)


if __name__ == "__main__":
    main()
