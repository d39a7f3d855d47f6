"""Golden vectors of HGRN2, from two NumPy programs: one token at a time with the memory S [V,K] as the paper writes it (o = S q),
and all tokens at once as a masked product of gates and keys, without any recurrence. The state in the files is W = S^T.

    q = sigmoid(W_q x + b_q)   v = silu(W_v x + b_v)   f = l + (1 - l) sigmoid(W_f x + b_f)
    S_t = S_{t-1} diag(f_t) + v_t (1 - f_t)^T          y_t = W_o RMSNorm(S_t q_t)
"""
import math

import numpy as np

from golden_lib import emit, rms_norm, rng_of, sigmoid, silu


def token_by_token(x, p, c):
    (B, T, D), H, K, V, bound = x.shape, c["heads"], c["key_dim"], c["value_dim"], c["lower_bound"]
    y, W = np.zeros_like(x), np.zeros((B, H, K, V))
    for b in range(B):
        S = np.zeros((H, V, K))
        for t in range(T):
            q, v, f = (p[n + "_proj.weight"] @ x[b, t] + p[n + "_proj.bias"] for n in "qvf")
            q, v, f = sigmoid(q).reshape(H, K), silu(v).reshape(H, V), (bound + (1 - bound) * sigmoid(f)).reshape(H, K)
            o = np.zeros((H, V))
            for h in range(H):
                S[h] = S[h] @ np.diag(f[h]) + np.outer(v[h], 1 - f[h])
                o[h] = S[h] @ q[h]
            y[b, t] = p["o_proj.weight"] @ rms_norm(o, p["norm.weight"]).reshape(-1)
        W[b] = S.swapaxes(-1, -2)
    return y, {"W": W}


def all_at_once(x, p, c):
    B, T, _ = x.shape
    H, l = c["heads"], c["lower_bound"]
    z = {n: (np.einsum("btd,od->bto", x, p[n + "_proj.weight"]) + p[n + "_proj.bias"]).reshape(B, T, H, -1) for n in "qvf"}
    k = (1 - l) / (1 + np.exp(z["f"]))
    total = np.cumsum(np.log(1 - k), 1)
    lower = np.tril(np.ones((T, T)))[None, :, :, None, None]
    decay = np.exp((total[:, :, None] - total[:, None, :]) * lower) * lower                      # [B,t,m,H,K]
    q, v = 1 / (1 + np.exp(-z["q"])), z["v"] / (1 + np.exp(-z["v"]))
    o = np.einsum("bthk,btmhk,bmhk,bmhv->bthv", q, decay, k, v, optimize=True)
    o = o / np.sqrt((o * o).mean(-1, keepdims=True) + 1e-6) * p["norm.weight"]
    return np.einsum("btv,dv->btd", o.reshape(B, T, -1), p["o_proj.weight"]), {"W": np.einsum("bmhk,bmhv->bhkv", decay[:, -1] * k, v)}


def main():
    B, T, D, H = 2, 21, 16, 2
    for name, K, V, bound in (("hgrn2", 8, 8, 0), ("hgrn2_bound", 5, 6, 0.75)):
        rng, p = rng_of(name), {}
        for n, width in (("q", H * K), ("f", H * K), ("v", H * V)):
            p[n + "_proj.weight"] = rng.standard_normal((width, D)) / math.sqrt(D)
            p[n + "_proj.bias"] = rng.standard_normal(width) * 0.5
        p["norm.weight"] = 1 + 0.2 * rng.standard_normal(V)
        p["o_proj.weight"] = rng.standard_normal((D, H * V)) / math.sqrt(H * V)
        config = {"type": "hgrn2", "heads": H, "key_dim": K, "value_dim": V, "lower_bound": bound}
        emit(name, "hgrn2", config, rng.standard_normal((B, T, D)), p, token_by_token, numpy_second=all_at_once)


if __name__ == "__main__":
    main()
