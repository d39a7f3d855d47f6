"""Golden vectors of TTT-Linear and TTT-MLP (Sun et al. 2024, arXiv 2407.04620), one token at a time.

    f(x; W) = x + gain * norm(f_res(x; W)) + bias     f_res = x W, or gelu(x W_0) W_1        gain = 1 + inner_norm.weight
    W_t = W_{t-1} - eta_t grad 1/2 |f(k_t; A) - v_t|^2 at A, the weights where the mini-batch of t began
    eta_t = eta sigmoid(lr_proj x_t) / d      y_t = o_proj RMSNorm_head(f(q_t; W_t))
NumPy takes the inner gradient by hand, torch by autograd.
"""
import math

import numpy as np
import torch

from golden_lib import emit, gelu, gelu_slope, rms_norm, rng_of, sigmoid, t_rms_norm

EPS = 1e-6


def forward(W, x, gain, bias):
    """f and what its gradient needs."""
    hidden = [x]
    pre = []
    for l, w in enumerate(W):
        pre.append(hidden[-1] @ w)
        hidden.append(gelu(pre[-1]) if l < len(W) - 1 else pre[-1])
    z = hidden[-1]
    spread = math.sqrt(z.var() + EPS)
    normed = (z - z.mean()) / spread
    return x + gain * normed + bias, hidden, pre, normed, spread


def inner_gradient(W, k, v, gain, bias):
    y, hidden, pre, normed, spread = forward(W, k, gain, bias)
    dn = (y - v) * gain
    delta = (dn - dn.mean() - normed * (dn * normed).mean()) / spread
    out = [None] * len(W)
    for l in reversed(range(len(W))):
        out[l] = np.outer(hidden[l], delta)
        if l:
            delta = (W[l] @ delta) * gelu_slope(pre[l - 1])
    return out


def numpy_forward(x, p, c):
    B, T, D = x.shape
    H, d, M, L = c["heads"], c["head_dim"], c["mini_batch"], 1 if c["type"] == "ttt_linear" else 2
    y, state = np.zeros_like(x), {f"{n}.{l}": [] for n in "WA" for l in range(L)}
    for b in range(B):
        W = [[p[f"init.{l}.weight"][h].copy() for l in range(L)] for h in range(H)]
        A = [[w.copy() for w in W[h]] for h in range(H)]
        for t in range(T):
            q, k, v = ((p[n + "_proj.weight"] @ x[b, t]).reshape(H, d) for n in "qkv")
            eta = c["eta"] / d * sigmoid(p["lr_proj.weight"] @ x[b, t] + p["lr_proj.bias"])
            o = np.zeros((H, d))
            for h in range(H):
                gain, bias = 1 + p["inner_norm.weight"][h], p["inner_norm.bias"][h]
                if t % M == 0:
                    A[h] = [w.copy() for w in W[h]]
                for l, g in enumerate(inner_gradient(A[h], k[h], v[h], gain, bias)):
                    W[h][l] = W[h][l] - eta[h] * g
                o[h] = forward(W[h], q[h], gain, bias)[0]
                if (t + 1) % M == 0:
                    A[h] = [w.copy() for w in W[h]]
            y[b, t] = p["o_proj.weight"] @ rms_norm(o, p["norm.weight"]).reshape(-1)
        for l in range(L):
            state[f"W.{l}"].append([W[h][l] for h in range(H)])
            state[f"A.{l}"].append([A[h][l] for h in range(H)])
    return y, {n: np.array(v) for n, v in state.items()}


def t_model(W, x, gain, bias):  # W_l [B,H,in,out], x [B,H,d]
    r = x[:, :, None]
    for l, w in enumerate(W):
        r = r @ w
        if l < len(W) - 1:
            r = torch.nn.functional.gelu(r)
    return x + gain * torch.nn.functional.layer_norm(r[:, :, 0], (x.shape[-1],), eps=EPS) + bias


def torch_forward(x, p, c):
    H, M, L = c["heads"], c["mini_batch"], 1 if c["type"] == "ttt_linear" else 2
    q, k, v = ((x @ p[n + "_proj.weight"].T).unflatten(-1, (H, -1)) for n in "qkv")
    eta = c["eta"] / q.shape[-1] * (x @ p["lr_proj.weight"].T + p["lr_proj.bias"]).sigmoid()
    gain, bias = 1 + p["inner_norm.weight"], p["inner_norm.bias"]
    W = [p[f"init.{l}.weight"].expand(len(x), -1, -1, -1) for l in range(L)]
    A, outs = W, []
    for t in range(x.shape[1]):
        if t % M == 0:
            A = W
        at = [a if a.requires_grad else a.detach().requires_grad_() for a in A]
        loss = (t_model(at, k[:, t], gain, bias) - v[:, t]).square().sum() / 2
        W = [w - eta[:, t, :, None, None] * g for w, g in zip(W, torch.autograd.grad(loss, at, create_graph=True))]
        outs.append(t_model(W, q[:, t], gain, bias))
    if x.shape[1] % M == 0:
        A = W
    y = t_rms_norm(torch.stack(outs, 1), p["norm.weight"]).flatten(2) @ p["o_proj.weight"].T
    return y, {**{f"W.{l}": W[l] for l in range(L)}, **{f"A.{l}": A[l] for l in range(L)}}


def main():
    B, T, D, H = 2, 21, 12, 2
    d = D // H
    for name, kind, M, eta in (("ttt_linear", "ttt_linear", 8, 1.0), ("ttt_linear_m1", "ttt_linear", 1, 0.5), ("ttt_mlp", "ttt_mlp", 4, 0.3)):
        rng = rng_of(name)
        shapes = [(d, d)] if kind == "ttt_linear" else [(d, 4 * d), (4 * d, d)]
        p = {n + "_proj.weight": rng.standard_normal((D, D)) / math.sqrt(D) for n in "qkvo"}
        p.update({"lr_proj.weight": rng.standard_normal((H, D)) * 0.3, "lr_proj.bias": rng.standard_normal(H) * 0.3,
                  "inner_norm.weight": 0.2 * rng.standard_normal((H, d)), "inner_norm.bias": 0.2 * rng.standard_normal((H, d)),
                  "norm.weight": 1 + 0.2 * rng.standard_normal(d)})
        p.update({f"init.{l}.weight": rng.standard_normal((H, *s)) / math.sqrt(s[0]) for l, s in enumerate(shapes)})
        emit(name, kind, {"type": kind, "heads": H, "head_dim": d, "mini_batch": M, "eta": eta}, rng.standard_normal((B, T, D)), p,
             numpy_forward, torch_forward)


if __name__ == "__main__":
    main()
