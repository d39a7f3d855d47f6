"""Golden vectors of Gated DeltaNet (Yang, Kautz, Hatamizadeh 2024, arXiv 2412.06464), one token at a time.

    q_t = l2norm(silu(conv4(x W_Q))) / sqrt(d)   k_t = l2norm(silu(conv4(x W_K)))   v_t = silu(conv4(x W_V))
    alpha_t = exp(-exp(A_log) softplus(a_proj x_t + dt_bias))    beta_t = sigmoid(b_proj x_t)         per head
    S_t = S_{t-1} (alpha_t (I - beta_t k_t k_t^T)) + beta_t v_t k_t^T       o_t = S_t q_t
    y_t = o_proj( RMSNorm_head(o_t) * silu(gate_proj x_t) )
The state in the file is W = S^T, [B,H,d,d], so that o = q W.
"""
import math

import numpy as np
import torch

from golden_lib import conv_tap, emit, l2norm, rms_norm, rng_of, sigmoid, silu, softplus, t_conv, t_l2norm, t_rms_norm, t_silu


def numpy_forward(x, p, c):
    B, T, D = x.shape
    H, d = c["heads"], c["head_dim"]
    y, W, tails = np.zeros_like(x), np.zeros((B, H, d, d)), {n: np.zeros((B, 3, D)) for n in "qkv"}
    for b in range(B):
        S = np.zeros((H, d, d))
        history = {n: np.zeros((4, D)) for n in "qkv"}
        for t in range(T):
            u = {}
            for n in "qkv":
                history[n] = np.vstack((history[n][1:], p[n + "_proj.weight"] @ x[b, t]))
                u[n] = silu(conv_tap(p[n + "_conv.weight"], history[n])).reshape(H, d)
            q, k, v = l2norm(u["q"]) / math.sqrt(d), l2norm(u["k"]), u["v"]
            alpha = np.exp(-np.exp(p["A_log"]) * softplus(p["a_proj.weight"] @ x[b, t] + p["dt_bias"]))
            beta = sigmoid(p["b_proj.weight"] @ x[b, t])
            o = np.zeros((H, d))
            for h in range(H):
                erase = alpha[h] * (np.eye(d) - beta[h] * np.outer(k[h], k[h]))
                S[h] = S[h] @ erase + beta[h] * np.outer(v[h], k[h])
                o[h] = S[h] @ q[h]
            gated = rms_norm(o, p["norm.weight"]).reshape(-1) * silu(p["gate_proj.weight"] @ x[b, t])
            y[b, t] = p["o_proj.weight"] @ gated
        W[b] = S.transpose(0, 2, 1)
        for n in "qkv":
            tails[n][b] = history[n][1:]
    return y, {"W": W, **{n + "_conv": tails[n] for n in "qkv"}}


def torch_forward(x, p, c):
    """Erase and write as the delta rule on the decayed state, batched."""
    H, d = c["heads"], c["head_dim"]
    u, tails = {}, {}
    for n in "qkv":
        s, tails[n + "_conv"] = t_conv(x @ p[n + "_proj.weight"].T, p[n + "_conv.weight"])
        u[n] = t_silu(s).unflatten(-1, (H, d))
    q, k, v = t_l2norm(u["q"]) * d ** -0.5, t_l2norm(u["k"]), u["v"]
    alpha = torch.exp(-p["A_log"].exp() * torch.nn.functional.softplus(x @ p["a_proj.weight"].T + p["dt_bias"]))
    beta = (x @ p["b_proj.weight"].T).sigmoid()
    W, outs = torch.zeros(len(x), H, d, d).double(), []
    for t in range(x.shape[1]):
        W = alpha[:, t, :, None, None] * W
        read = torch.einsum("bhi,bhij->bhj", k[:, t], W)
        W = W + torch.einsum("bhi,bhj->bhij", beta[:, t, :, None] * k[:, t], v[:, t] - read)
        outs.append(torch.einsum("bhi,bhij->bhj", q[:, t], W))
    o = t_rms_norm(torch.stack(outs, 1), p["norm.weight"]).flatten(2)
    return (o * t_silu(x @ p["gate_proj.weight"].T)) @ p["o_proj.weight"].T, {"W": W, **tails}


def main():
    B, T, D = 2, 21, 16
    for name, H in (("gated_deltanet", 2), ("gated_deltanet_h4", 4)):
        rng, d = rng_of(name), D // H
        config = {"type": "gated_deltanet", "heads": H, "head_dim": d}
        p = {f"{n}_proj.weight": rng.standard_normal((D, D)) / math.sqrt(D) for n in "qkv"}
        p.update({f"{n}_conv.weight": rng.standard_normal((D, 4)) * 0.6 for n in "qkv"})
        p.update({"a_proj.weight": rng.standard_normal((H, D)) * 0.3, "A_log": rng.standard_normal(H) * 0.5 - 1,
                  "dt_bias": rng.standard_normal(H) * 0.5, "b_proj.weight": rng.standard_normal((H, D)) * 0.3,
                  "gate_proj.weight": rng.standard_normal((D, D)) / math.sqrt(D),
                  "norm.weight": 1 + 0.2 * rng.standard_normal(d),
                  "o_proj.weight": rng.standard_normal((D, D)) / math.sqrt(D)})
        emit(name, "gated_deltanet", config, rng.standard_normal((B, T, D)), p, numpy_forward, torch_forward)


if __name__ == "__main__":
    main()
