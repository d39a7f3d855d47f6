"""Golden vectors of the matrix memories that are one linear recurrence: linear attention, RetNet, GLA, DeltaNet, Mamba-2, RWKV-7
and Kimi Delta Attention, in one script as they share projections, convolutions and the gated output.

NumPy: one token at a time, loops over batch and head, the memory S [V,K] as the papers write it (o = S q). torch: batched,
memories W = S^T, and where the paper gives one a parallel form without any recurrence (linear attention, RetNet, GLA, Mamba-2 as
masked products of queries and keys). The state in the files is W.
"""
import math

import numpy as np
import torch

from golden_lib import conv_tap, emit, l2norm, rms_norm, rng_of, sigmoid, silu, softplus, t_conv, t_l2norm, t_rms_norm, t_silu

F = torch.nn.functional


# ---- what they share, NumPy: a head's vectors of one token ----
def n_conv_heads(p, name, x, history, H):
    history[name] = np.vstack((history[name][1:], p[name + "_proj.weight"] @ x))
    return silu(conv_tap(p[name + "_conv.weight"], history[name])).reshape(H, -1)


def n_gated(p, o, x):
    return p["o_proj.weight"] @ (rms_norm(o, p["norm.weight"]).reshape(-1) * silu(p["gate_proj.weight"] @ x))


def walk(x, shape, start, step):
    """step(b, t, x_t, S, memo) -> y_t, S_t for every token; start() makes memo. Returns y, the states S [B,...], the memos."""
    B, T, D = x.shape
    y, states, memos = np.zeros_like(x), [], []
    for b in range(B):
        S, memo = np.zeros(shape), start()
        for t in range(T):
            y[b, t], S = step(t, x[b, t], S, memo)
        states.append(S)
        memos.append(memo)
    return y, np.array(states), memos


def tails(memos, names):
    return {n + "_conv": np.array([m[n][1:] for m in memos]) for n in names}


# ---- what they share, torch ----
def t_conv_heads(p, name, x, H):
    s, tail = t_conv(x @ p[name + "_proj.weight"].T, p[name + "_conv.weight"])
    return t_silu(s).unflatten(-1, (H, -1)), tail


def t_heads(p, name, x, H):
    return (x @ p[name + "_proj.weight"].T).unflatten(-1, (H, -1))


def t_gated(p, o, x):
    return (t_rms_norm(o, p["norm.weight"]).flatten(2) * t_silu(x @ p["gate_proj.weight"].T)) @ p["o_proj.weight"].T


def t_masked(q, k, v, log_a):
    """All tokens at once: o_t = sum_{m<=t} (q_t . (exp(sum_{m<j<=t} log_a_j) k_m)) v_m; log_a [B,T,H,K or 1]. And the last W."""
    total = log_a.cumsum(1)
    T = q.shape[1]
    between = total[:, :, None] - total[:, None, :]                                   # [B,t,m,H,K]
    lower = torch.ones(T, T).tril().bool()[None, :, :, None, None]
    decay = torch.where(lower, between, torch.tensor(-torch.inf, dtype=q.dtype)).exp()
    scores = torch.einsum("bthk,btmhk,bmhk->bhtm", q, decay.expand(*decay.shape[:-1], q.shape[-1]), k)
    W = torch.einsum("bmhk,bmhv->bhkv", (total[:, -1:] - total).exp() * k, v)
    return torch.einsum("bhtm,bmhv->bthv", scores, v), W


# ---- linear attention ----
def linear_attention_n(x, p, c):
    H = c["heads"]

    def phi(z):
        return np.where(z > 0, z + 1, np.exp(z))

    def step(t, xt, S, memo):
        q, k, v = (p[n + "_proj.weight"] @ xt for n in "qkv")
        q, k, v = phi(q).reshape(H, -1), phi(k).reshape(H, -1), v.reshape(H, -1)
        o = np.zeros_like(v)
        S = S.copy()
        for h in range(H):
            S[h, :-1] += np.outer(v[h], k[h])
            S[h, -1] += k[h]
            o[h] = S[h, :-1] @ q[h] / (S[h, -1] @ q[h] + 1e-6)
        return p["o_proj.weight"] @ o.reshape(-1), S
    d = c["head_dim"]
    y, S, _ = walk(x, (H, d + 1, d), dict, step)
    return y, {"W": S.swapaxes(-1, -2)}


def linear_attention_t(x, p, c):
    q, k, v = (t_heads(p, n, x, c["heads"]) for n in "qkv")
    q, k = F.elu(q) + 1, F.elu(k) + 1
    v1 = torch.cat((v, torch.ones_like(v[..., :1])), -1)
    o, W = t_masked(q, k, v1, torch.zeros_like(q[..., :1]))
    return (o[..., :-1] / (o[..., -1:] + 1e-6)).flatten(2) @ p["o_proj.weight"].T, {"W": W}


# ---- RetNet ----
def retnet_n(x, p, c):
    from golden_lib import rotate
    H, K, V = c["heads"], c["key_dim"], c["value_dim"]

    def step(t, xt, S, memo):
        q = (p["q_proj.weight"] @ xt).reshape(H, K) / math.sqrt(K)
        k, v = (p["k_proj.weight"] @ xt).reshape(H, K), (p["v_proj.weight"] @ xt).reshape(H, V)
        o, S = np.zeros((H, V)), S.copy()
        for h in range(H):
            S[h] = (1 - 2.0 ** (-5 - h)) * S[h] + np.outer(v[h], rotate(k[h], t, 10000.0))
            o[h] = S[h] @ rotate(q[h], t, 10000.0)
        return n_gated(p, o, xt), S
    y, S, _ = walk(x, (H, V, K), dict, step)
    return y, {"W": S.swapaxes(-1, -2)}


def retnet_t(x, p, c):
    from golden_lib import t_rope
    H, K, pos = c["heads"], c["key_dim"], torch.arange(x.shape[1])
    q, k, v = (t_heads(p, n, x, H) for n in "qkv")
    gamma = (1 - torch.exp2(-5 - torch.arange(H).double())).log()
    o, W = t_masked(t_rope(q, pos, 10000.0) * K ** -0.5, t_rope(k, pos, 10000.0), v, gamma[:, None].expand(*x.shape[:2], H, 1))
    return t_gated(p, o, x), {"W": W}


# ---- GLA ----
def gla_n(x, p, c):
    H, K, V, tau = c["heads"], c["key_dim"], c["value_dim"], c["decay_temperature"]

    def step(t, xt, S, memo):
        q = (p["q_proj.weight"] @ xt).reshape(H, K) / math.sqrt(K)
        k, v = (p["k_proj.weight"] @ xt).reshape(H, K), (p["v_proj.weight"] @ xt).reshape(H, V)
        a = sigmoid(p["a_up.weight"] @ (p["a_down.weight"] @ xt) + p["a_up.bias"]).reshape(H, K) ** (1 / tau)
        o, S = np.zeros((H, V)), S.copy()
        for h in range(H):
            S[h] = S[h] * a[h][None, :] + np.outer(v[h], k[h])
            o[h] = S[h] @ q[h]
        return n_gated(p, o, xt), S
    y, S, _ = walk(x, (H, V, K), dict, step)
    return y, {"W": S.swapaxes(-1, -2)}


def gla_t(x, p, c):
    H, K = c["heads"], c["key_dim"]
    q, k, v = (t_heads(p, n, x, H) for n in "qkv")
    log_a = F.logsigmoid(x @ p["a_down.weight"].T @ p["a_up.weight"].T + p["a_up.bias"]).unflatten(-1, (H, K))
    o, W = t_masked(q * K ** -0.5, k, v, log_a / c["decay_temperature"])
    return t_gated(p, o, x), {"W": W}


# ---- DeltaNet ----
def n_delta(p, c, x, decay, out):
    """The erase matrices, written out: S_t = S_{t-1} diag(alpha) (I - beta k k^T) + beta v k^T."""
    H, d, D = c["heads"], c["head_dim"], x.shape[-1]

    def step(t, xt, S, memo):
        q, k, v = (n_conv_heads(p, n, xt, memo, H) for n in "qkv")
        q, k = l2norm(q) / math.sqrt(d), l2norm(k)
        alpha, beta, o, S = decay(xt), sigmoid(p["b_proj.weight"] @ xt), np.zeros((H, d)), S.copy()
        for h in range(H):
            S[h] = S[h] @ np.diag(alpha[h]) @ (np.eye(d) - beta[h] * np.outer(k[h], k[h])) + beta[h] * np.outer(v[h], k[h])
            o[h] = S[h] @ q[h]
        return out(o, xt), S
    y, S, memos = walk(x, (H, d, d), lambda: {n: np.zeros((4, H * d)) for n in "qkv"}, step)
    return y, {"W": S.swapaxes(-1, -2), **tails(memos, "qkv")}


def t_delta(p, c, x, alpha):
    """Decay, read, correct; alpha [B,T,H,d]. Returns o and the states."""
    H, d = c["heads"], c["head_dim"]
    u, state = {}, {}
    for n in "qkv":
        u[n], state[n + "_conv"] = t_conv_heads(p, n, x, H)
    q, k, v = t_l2norm(u["q"]) * d ** -0.5, t_l2norm(u["k"]), u["v"]
    beta = (x @ p["b_proj.weight"].T).sigmoid()
    W, outs = torch.zeros(len(x), H, d, d).double(), []
    for t in range(x.shape[1]):
        W = alpha[:, t, :, :, None] * W
        error = v[:, t] - torch.einsum("bhi,bhij->bhj", k[:, t], W)
        W = W + torch.einsum("bhi,bhj->bhij", beta[:, t, :, None] * k[:, t], error)
        outs.append(torch.einsum("bhi,bhij->bhj", q[:, t], W))
    return torch.stack(outs, 1), {"W": W, **state}


def deltanet_n(x, p, c):
    return n_delta(p, c, x, lambda xt: np.ones((c["heads"], c["head_dim"])),
                   lambda o, xt: p["o_proj.weight"] @ rms_norm(o, p["norm.weight"]).reshape(-1))


def deltanet_t(x, p, c):
    o, state = t_delta(p, c, x, torch.ones(*x.shape[:2], c["heads"], c["head_dim"]).double())
    return t_rms_norm(o, p["norm.weight"]).flatten(2) @ p["o_proj.weight"].T, state


# ---- Kimi Delta Attention ----
def kimi_delta_n(x, p, c):
    H, d = c["heads"], c["head_dim"]

    def decay(xt):
        step = softplus(p["a_up.weight"] @ (p["a_down.weight"] @ xt) + p["dt_bias"]).reshape(H, d)
        return np.exp(-np.exp(p["A_log"]) * step)

    def out(o, xt):
        gate = sigmoid(p["gate_up.weight"] @ (p["gate_down.weight"] @ xt))
        return p["o_proj.weight"] @ (rms_norm(o, p["norm.weight"]).reshape(-1) * gate)
    return n_delta(p, c, x, decay, out)


def kimi_delta_t(x, p, c):
    H, d = c["heads"], c["head_dim"]
    step = F.softplus(x @ p["a_down.weight"].T @ p["a_up.weight"].T + p["dt_bias"]).unflatten(-1, (H, d))
    o, state = t_delta(p, c, x, torch.exp(-p["A_log"].exp() * step))
    gate = (x @ p["gate_down.weight"].T @ p["gate_up.weight"].T).sigmoid()
    return (t_rms_norm(o, p["norm.weight"]).flatten(2) * gate) @ p["o_proj.weight"].T, state


# ---- Mamba-2 ----
def mamba2_n(x, p, c):
    P, N, G, D = c["head_dim"], c["state"], c["groups"], x.shape[-1]
    inner = c["expand"] * D
    H = inner // P

    def step(t, xt, h, memo):
        zu = p["in_proj.weight"] @ xt
        memo["u"] = np.vstack((memo["u"][1:], zu[inner:]))
        u = silu(conv_tap(p["conv.weight"], memo["u"]) + p["conv.bias"])
        v, Bm, Cm = u[:inner].reshape(H, P), u[inner:inner + G * N].reshape(G, N), u[inner + G * N:].reshape(G, N)
        dt = softplus(p["dt_proj.weight"] @ xt + p["dt_bias"])
        y, h = np.zeros((H, P)), h.copy()
        for i in range(H):
            g = i // (H // G)
            h[i] = math.exp(-math.exp(p["A_log"][i]) * dt[i]) * h[i] + dt[i] * np.outer(v[i], Bm[g])
            y[i] = h[i] @ Cm[g] + p["D"][i, 0] * v[i]
        return p["out_proj.weight"] @ rms_norm(y.reshape(-1) * silu(zu[:inner]), p["norm.weight"]), h
    y, h, memos = walk(x, (H, P, N), lambda: {"u": np.zeros((4, inner + 2 * G * N))}, step)
    return y, {"h": h.swapaxes(-1, -2), "conv": np.array([m["u"][1:] for m in memos])}


def mamba2_t(x, p, c):
    P, N, G = c["head_dim"], c["state"], c["groups"]
    inner = c["expand"] * x.shape[-1]
    H = inner // P
    z, u = (x @ p["in_proj.weight"].T).split((inner, inner + 2 * G * N), -1)
    u, tail = t_conv(u, p["conv.weight"])
    v, Bm, Cm = t_silu(u + p["conv.bias"]).split((inner, G * N, G * N), -1)
    v = v.unflatten(-1, (H, P))
    Bm, Cm = (m.unflatten(-1, (G, N)).repeat_interleave(H // G, 2) for m in (Bm, Cm))
    dt = F.softplus(x @ p["dt_proj.weight"].T + p["dt_bias"])
    y, h = t_masked(Cm, Bm * dt[..., None], v, (-p["A_log"].exp() * dt)[..., None])
    y = (y + p["D"] * v).flatten(2) * t_silu(z)
    return t_rms_norm(y, p["norm.weight"]) @ p["out_proj.weight"].T, {"h": h, "conv": tail}


# ---- RWKV-7 ----
def rwkv7_n(x, p, c):
    H, K, D = c["heads"], c["head_dim"], x.shape[-1]

    def step(t, xt, S, memo):
        m = {n: xt + p["mu_" + n] * (memo["x"] - xt) for n in "rwkvag"}
        memo["x"] = xt
        r, k, v = (( p[n + "_proj.weight"] @ m[n]).reshape(H, K) for n in "rkv")
        w = np.exp(-math.exp(-0.5) * sigmoid(p["w_up.weight"] @ np.tanh(p["w_down.weight"] @ m["w"]) + p["w_up.bias"])).reshape(H, K)
        a = sigmoid(p["a_up.weight"] @ (p["a_down.weight"] @ m["a"]) + p["a_up.bias"]).reshape(H, K)
        gate = p["g_up.weight"] @ sigmoid(p["g_down.weight"] @ m["g"])
        kappa, kt = l2norm(k * p["xi"]), k * (1 + (a - 1) * p["alpha"])
        o, S = np.zeros((H, K)), S.copy()
        for h in range(H):
            S[h] = S[h] @ (np.diag(w[h]) - np.outer(kappa[h], a[h] * kappa[h])) + np.outer(v[h], kt[h])
            raw = S[h] @ r[h]
            normed = (raw - raw.mean()) / np.sqrt(raw.var() + 64e-5)
            o[h] = normed * p["norm.weight"][h] + p["norm.bias"][h] + (r[h] * p["rho"][h] * kt[h]).sum() * v[h]
        return p["o_proj.weight"] @ (o.reshape(-1) * gate), S
    y, S, memos = walk(x, (H, K, K), lambda: {"x": np.zeros(D)}, step)
    return y, {"W": S.swapaxes(-1, -2), "x": np.array([m["x"][None] for m in memos])}


def rwkv7_t(x, p, c):
    H, K = c["heads"], c["head_dim"]
    before = F.pad(x, (0, 0, 1, 0))[:, :-1]
    m = {n: torch.lerp(x, before, p["mu_" + n].expand_as(x)) for n in "rwkvag"}
    r, k, v = (t_heads(p, n, m[n], H) for n in "rkv")
    w = torch.exp(-math.exp(-0.5) * ((m["w"] @ p["w_down.weight"].T).tanh() @ p["w_up.weight"].T + p["w_up.bias"]).sigmoid())
    a = (m["a"] @ p["a_down.weight"].T @ p["a_up.weight"].T + p["a_up.bias"]).sigmoid().unflatten(-1, (H, K))
    w, gate = w.unflatten(-1, (H, K)), (m["g"] @ p["g_down.weight"].T).sigmoid() @ p["g_up.weight"].T
    kappa, kt = t_l2norm(k * p["xi"]), torch.lerp(k, k * a, p["alpha"].expand_as(k))
    W, outs = torch.zeros(len(x), H, K, K).double(), []
    for t in range(x.shape[1]):
        read = torch.einsum("bhi,bhij->bhj", kappa[:, t], W)
        W = w[:, t, :, :, None] * W - torch.einsum("bhi,bhj->bhij", a[:, t] * kappa[:, t], read)
        W = W + torch.einsum("bhi,bhj->bhij", kt[:, t], v[:, t])
        outs.append(torch.einsum("bhi,bhij->bhj", r[:, t], W))
    o = F.layer_norm(torch.stack(outs, 1), (K,), eps=64e-5) * p["norm.weight"] + p["norm.bias"]
    o = o + (r * p["rho"] * kt).sum(-1, keepdim=True) * v
    return (o.flatten(2) * gate) @ p["o_proj.weight"].T, {"W": W, "x": x[:, -1:]}


# ---- parameters ----
def matrix(rng, out, width):
    return rng.standard_normal((out, width)) / math.sqrt(width)


def projections(rng, D, **widths):
    return {n + "_proj.weight": matrix(rng, w, D) for n, w in widths.items()}


def convolutions(rng, width):
    return {f"{n}_conv.weight": rng.standard_normal((width, 4)) * 0.6 for n in "qkv"}


def gated(rng, D, heads, value_dim):
    return {**projections(rng, D, gate=heads * value_dim), "norm.weight": 1 + 0.2 * rng.standard_normal(value_dim),
            "o_proj.weight": matrix(rng, D, heads * value_dim)}


def main():
    B, T, D, H = 2, 21, 16, 2
    d = D // H

    def write(name, config, parameters, numpy_forward, torch_forward):
        rng = rng_of(name)
        p = parameters(rng)
        emit(name, config["type"], config, rng.standard_normal((B, T, D)), p, numpy_forward, torch_forward)

    write("linear_attention", {"type": "linear_attention", "heads": H, "head_dim": d},
          lambda r: projections(r, D, q=D, k=D, v=D, o=D), linear_attention_n, linear_attention_t)
    for name, K, V in (("retnet", d, 2 * d), ("retnet_narrow", 4, 6)):
        write(name, {"type": "retnet", "heads": H, "key_dim": K, "value_dim": V},
              lambda r: {**projections(r, D, q=H * K, k=H * K, v=H * V), **gated(r, D, H, V)}, retnet_n, retnet_t)
    for name, K, V, tau in (("gla", d // 2, d, 16), ("gla_steep", d, 6, 0.5)):
        write(name, {"type": "gla", "heads": H, "key_dim": K, "value_dim": V, "decay_rank": 5, "decay_temperature": tau},
              lambda r: {**projections(r, D, q=H * K, k=H * K, v=H * V), "a_down.weight": matrix(r, 5, D),
                         "a_up.weight": matrix(r, H * K, 5), "a_up.bias": r.standard_normal(H * K), **gated(r, D, H, V)}, gla_n, gla_t)
    write("deltanet", {"type": "deltanet", "heads": H, "head_dim": d},
          lambda r: {**projections(r, D, q=D, k=D, v=D, b=H, o=D), **convolutions(r, D),
                     "norm.weight": 1 + 0.2 * r.standard_normal(d)}, deltanet_n, deltanet_t)
    write("kimi_delta", {"type": "kimi_delta", "heads": H, "head_dim": d, "rank": 5},
          lambda r: {**projections(r, D, q=D, k=D, v=D, b=H, o=D), **convolutions(r, D),
                     "a_down.weight": matrix(r, 5, D), "a_up.weight": matrix(r, D, 5), "A_log": r.standard_normal((H, 1)) * 0.5 - 1,
                     "dt_bias": r.standard_normal(D) * 0.5, "gate_down.weight": matrix(r, 5, D), "gate_up.weight": matrix(r, D, 5),
                     "norm.weight": 1 + 0.2 * r.standard_normal(d)}, kimi_delta_n, kimi_delta_t)
    for name, G in (("mamba2", 1), ("mamba2_groups", 2)):
        inner, P, N = 2 * D, 8, 6
        wide = inner + 2 * G * N
        write(name, {"type": "mamba2", "expand": 2, "head_dim": P, "state": N, "groups": G},
              lambda r: {"in_proj.weight": matrix(r, inner + wide, D), "conv.weight": r.standard_normal((wide, 4)) * 0.6,
                         "conv.bias": r.standard_normal(wide) * 0.3, "dt_proj.weight": matrix(r, inner // P, D) * 0.5,
                         "dt_bias": r.standard_normal(inner // P) * 0.5, "A_log": r.standard_normal(inner // P) * 0.5,
                         "D": r.standard_normal((inner // P, 1)), "norm.weight": 1 + 0.2 * r.standard_normal(inner),
                         "out_proj.weight": matrix(r, D, inner)}, mamba2_n, mamba2_t)
    write("rwkv7", {"type": "rwkv7", "heads": H, "head_dim": d, "decay_rank": 5, "rate_rank": 4, "gate_rank": 6},
          lambda r: {**{"mu_" + n: r.uniform(0, 1, D) for n in "rwkvag"}, **projections(r, D, r=D, k=D, v=D, o=D),
                     "w_down.weight": matrix(r, 5, D), "w_up.weight": matrix(r, D, 5), "w_up.bias": r.standard_normal(D),
                     "a_down.weight": matrix(r, 4, D), "a_up.weight": matrix(r, D, 4), "a_up.bias": r.standard_normal(D),
                     "g_down.weight": matrix(r, 6, D), "g_up.weight": matrix(r, D, 6), "xi": 1 + 0.3 * r.standard_normal((H, d)),
                     "alpha": r.uniform(0.5, 1.5, (H, d)), "rho": r.standard_normal((H, d)),
                     "norm.weight": 1 + 0.2 * r.standard_normal((H, d)), "norm.bias": 0.2 * r.standard_normal((H, d))},
          rwkv7_n, rwkv7_t)


if __name__ == "__main__":
    main()
