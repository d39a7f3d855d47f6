"""Golden vectors of multi-head latent attention, from two programs: one token at a time with every head's keys and values made of what is
kept of each token, and all at once with queries that meet what is kept itself.

    c_t = RMSNorm(W_DKV x_t)   p_t = R_t W_KR x_t   [q_t; r_t] = W_Q x_t or W_UQ RMSNorm(W_DQ x_t)
    k_t^h = [W_UK^h c_t; p_t]  v_t^h = W_UV^h c_t   y_t = W_O concat_h softmax_j([q_t^h; R_t r_t^h] . k_j^h / sqrt(N + P)) v_j^h
"""
import math

import numpy as np
import torch

from golden_lib import emit, rms_norm, rng_of, rotate, t_rms_norm, t_rope


def sizes(c):
    return [c[k] for k in ("heads", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")]


def token_by_token(x, p, c):
    (B, T, D), (H, R, N, P, V) = x.shape, sizes(c)
    up, values = p["k_up.weight"].reshape(H, N, R), p["v_up.weight"].reshape(H, V, R)
    y, kept = np.zeros_like(x), np.zeros((B, T, 1, R + P))
    for b in range(B):
        for t in range(T):
            q = p["q_proj.weight"] @ x[b, t] if "q_proj.weight" in p else (
                p["q_up.weight"] @ rms_norm(p["q_down.weight"] @ x[b, t], p["q_norm.weight"]))
            q = q.reshape(H, N + P)
            narrow = p["kv_down.weight"] @ x[b, t]
            turned = rotate(narrow[R:], t, c["rope_theta"]) if c["rope"] else narrow[R:]
            kept[b, t, 0] = np.concatenate((rms_norm(narrow[:R], p["kv_norm.weight"]), turned))
            out = np.zeros((H, V))
            for h in range(H):
                r = rotate(q[h, N:], t, c["rope_theta"]) if c["rope"] else q[h, N:]
                query = np.concatenate((q[h, :N], r))
                seen = [j for j in range(t + 1) if not c["window"] or j > t - c["window"]]
                scores = np.array([query @ np.concatenate((up[h] @ kept[b, j, 0, :R], kept[b, j, 0, R:])) for j in seen])
                weights = np.exp((scores - scores.max()) / math.sqrt(N + P))
                for w, j in zip(weights / weights.sum(), seen):
                    out[h] += w * (values[h] @ kept[b, j, 0, :R])
            y[b, t] = p["o_proj.weight"] @ out.reshape(H * V)
    return y, {"latent": kept}


def all_at_once(x, p, c):
    (B, T, D), (H, R, N, P, V) = x.shape, sizes(c)
    at = torch.arange(T)
    q = x @ p["q_proj.weight"].T if "q_proj.weight" in p else t_rms_norm(x @ p["q_down.weight"].T, p["q_norm.weight"]) @ p["q_up.weight"].T
    q = q.view(B, T, H, N + P)
    narrow = x @ p["kv_down.weight"].T
    latent, shared, r = t_rms_norm(narrow[..., :R], p["kv_norm.weight"]), narrow[..., None, R:], q[..., N:]
    if c["rope"]:
        shared, r = t_rope(shared, at, c["rope_theta"]), t_rope(r, at, c["rope_theta"])
    kept = torch.cat((latent[:, :, None], shared), -1)
    query = torch.cat((torch.einsum("bthn,hnr->bthr", q[..., :N], p["k_up.weight"].view(H, N, R)), r), -1)
    seen = at[None, :] <= at[:, None]
    if c["window"]:
        seen = seen & (at[None, :] > at[:, None] - c["window"])
    scores = torch.einsum("bthk,bsk->bhts", query, kept[:, :, 0]) / math.sqrt(N + P)
    read = torch.einsum("bhts,bsr->bthr", scores.masked_fill(~seen, -math.inf).softmax(-1), latent)
    o = torch.einsum("bthr,hvr->bthv", read, p["v_up.weight"].view(H, V, R))
    return o.reshape(B, T, H * V) @ p["o_proj.weight"].T, {"latent": kept}


def main():
    B, T, D, H = 2, 13, 6, 2
    for name, q_rank, R, N, P, V, rope, window in (("mla", 0, 4, 3, 2, 3, False, 0), ("mla_turned", 3, 5, 2, 4, 3, True, 6)):
        rng = rng_of(name)
        shapes = {"kv_down.weight": (R + P, D), "k_up.weight": (H * N, R), "v_up.weight": (H * V, R), "o_proj.weight": (D, H * V)}
        if q_rank:
            shapes.update({"q_down.weight": (q_rank, D), "q_up.weight": (H * (N + P), q_rank)})
        else:
            shapes["q_proj.weight"] = (H * (N + P), D)
        p = {k: rng.standard_normal(s) * 1.5 / math.sqrt(s[1]) for k, s in shapes.items()}
        p["kv_norm.weight"] = 1 + 0.3 * rng.standard_normal(R)
        if q_rank:
            p["q_norm.weight"] = 1 + 0.3 * rng.standard_normal(q_rank)
        config = {"type": "mla", "heads": H, "q_lora_rank": q_rank, "kv_lora_rank": R, "qk_nope_head_dim": N, "qk_rope_head_dim": P,
                  "v_head_dim": V, "window": window, "rope": rope, "norm_eps": 1e-6}
        config.update({"rope_theta": 100.0} if rope else {"max_context": 4096})
        emit(name, "mla", config, rng.standard_normal((B, T, D)), p, token_by_token, all_at_once)


if __name__ == "__main__":
    main()
