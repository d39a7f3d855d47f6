"""Golden vectors of Aaren (Feng et al. 2024, arXiv 2405.13956): attention whose query is a learned token.

    qh = split_heads(q_proj query + b_q)    s_t = qh . k_t / sqrt(Dh)    o_t = sum_{i<=t} exp(s_i) v_i / sum_{i<=t} exp(s_i)
    y_t = o_proj concat(o_t) + b_o
The state is m = max s_i, u = sum exp(s_i - m), w = sum exp(s_i - m) v_i. NumPy streams (m, u, w); torch takes
the dense triangular softmax. k_proj.bias shifts all scores of a head alike, so its gradient is zero up to rounding.
"""
import math

import numpy as np
import torch

from golden_lib import emit, rng_of


def numpy_forward(x, p, c):
    B, T, D = x.shape
    H, d = c["heads"], c["head_dim"]
    qh = (p["q_proj.weight"] @ p["query"] + p["q_proj.bias"]).reshape(H, d)
    y, m, u, w = np.zeros_like(x), np.full((B, H), -np.inf), np.zeros((B, H)), np.zeros((B, H, d))
    for b in range(B):
        for t in range(T):
            k = (p["k_proj.weight"] @ x[b, t] + p["k_proj.bias"]).reshape(H, d)
            v = (p["v_proj.weight"] @ x[b, t] + p["v_proj.bias"]).reshape(H, d)
            for h in range(H):
                s = qh[h] @ k[h] / math.sqrt(d)
                top = max(m[b, h], s)
                keep, add = math.exp(m[b, h] - top), math.exp(s - top)
                m[b, h], u[b, h], w[b, h] = top, u[b, h] * keep + add, w[b, h] * keep + add * v[h]
            y[b, t] = p["o_proj.weight"] @ (w[b] / u[b][:, None]).reshape(-1) + p["o_proj.bias"]
    return y, {"m": m, "u": u, "w": w}


def torch_forward(x, p, c):
    B, T, _ = x.shape
    H, d = c["heads"], c["head_dim"]
    qh = (p["q_proj.weight"] @ p["query"] + p["q_proj.bias"]).view(H, d)
    k = (x @ p["k_proj.weight"].T + p["k_proj.bias"]).view(B, T, H, d)
    v = (x @ p["v_proj.weight"].T + p["v_proj.bias"]).view(B, T, H, d)
    s = torch.einsum("hd,bthd->bht", qh, k) / math.sqrt(d)
    seen = torch.ones(T, T, dtype=torch.bool).tril()
    o = s[:, :, None].expand(B, H, T, T).masked_fill(~seen, -math.inf).softmax(-1) @ v.transpose(1, 2)
    m = s.detach().amax(-1)
    e = (s - m[..., None]).exp()
    y = o.transpose(1, 2).reshape(B, T, -1) @ p["o_proj.weight"].T + p["o_proj.bias"]
    return y, {"m": m, "u": e.sum(-1), "w": torch.einsum("bht,bthd->bhd", e, v)}


def main():
    B, T, D = 2, 21, 16
    for name, H, spread in (("aaren", 2, 1.0), ("aaren_wide_scores", 4, 6.0)):
        rng = rng_of(name)
        p = {"query": rng.standard_normal(D) * spread}
        for n in "qkvo":
            p[n + "_proj.weight"] = rng.standard_normal((D, D)) / math.sqrt(D)
            p[n + "_proj.bias"] = rng.standard_normal(D) * 0.3
        config = {"type": "aaren", "heads": H, "head_dim": D // H}
        emit(name, "aaren", config, rng.standard_normal((B, T, D)), p, numpy_forward, torch_forward)


if __name__ == "__main__":
    main()
