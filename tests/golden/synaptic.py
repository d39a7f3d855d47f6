"""Golden vectors of the synapses around a mixer, from two NumPy programs: one token at a time, head by head, as the recurrence writes it,
and chunk by chunk with masked products, with P^T as the state holds it. The base is attention over the last tokens, without positions.

    c_t = mu c_{t-1} + (1 - mu) e_t     rel_t = e_t . c_{t-1} / (|c_{t-1}| + 1e-3)
    p_t = A u_t     res_t = p_t . v_t / (|p_t| |v_t| + 1e-3)      A: P before the chunk
    rho_t = sigmoid(b + w . x_t + beta_res res_t + beta_rel rel_t)      lambda_t = 1 - delta (1 - rho_t)
    P_t = lambda_t P_{t-1} + eta rho_t v_t u_t^T      at a chunk's end P <- P min(1, p_max sqrt(d) / |P|)
    y_t = base(x)_t + g * W_o RMSNorm(concat_h P_t r_t)
|x| is sqrt(x . x + 1e-12). With detach_resonance the gradient is that of the same program with res_t as constants.
"""
import math

import numpy as np

from golden_lib import emit, l2norm, rms_norm, rng_of, sigmoid

held = {}  # res by token, row and head, of a first run: what a detached one takes


def size(x):
    return np.sqrt((x * x).sum() + 1e-12)


def delayed(p, name, z, conv):
    """z [T,H d], then the causal convolution over it."""
    if not conv:
        return z
    w, before = p["synaptic." + name + "_conv.weight"], np.concatenate((np.zeros((conv - 1, z.shape[1])), z))
    return np.array([(before[t:t + conv] * w.T).sum(0) for t in range(len(z))])


def token_by_token(x, p, c, note=None):
    (B, T, D), H, d, C, mode, base = x.shape, c["heads"], c["head_dim"], c["chunk"], c["mode"], c["base"]
    K, G = base["head_dim"], base["window"]
    y, P, context = np.zeros_like(x), np.zeros((B, H, d, d)), np.zeros((B, H, d))
    anchor, keys, values = np.zeros((B, H, d, d)), np.zeros((B, T, 1, K)), np.zeros((B, T, 1, K))
    tails = {}
    for b in range(B):
        activity = {}
        for n in "uvre" if mode == "resonance" else "uvr":
            z = x[b] @ p[f"synaptic.{n}_proj.weight"].T
            if c["conv"]:
                tails.setdefault(f"synaptic.{n}_conv", np.zeros((B, c["conv"] - 1, H * d)))[b] = z[T - c["conv"] + 1:]
            activity[n] = delayed(p, n, z, c["conv"]).reshape(T, H, d)
        if c["start"] == "learned":
            P[b] = anchor[b] = np.transpose(p["synaptic.P0"], (0, 2, 1))
        for t in range(T):
            q = p["q_proj.weight"] @ x[b, t]
            keys[b, t, 0], values[b, t, 0] = p["k_proj.weight"] @ x[b, t], p["v_proj.weight"] @ x[b, t]
            seen = range(max(0, t - G + 1), t + 1)
            e = np.exp([q @ keys[b, i, 0] / math.sqrt(K) for i in seen])
            y[b, t] = p["o_proj.weight"] @ (sum(w * values[b, i, 0] for w, i in zip(e, seen)) / e.sum())
            said = np.zeros((H, d))
            for h in range(H):
                u, v, r = l2norm(activity["u"][t, h]), activity["v"][t, h], l2norm(activity["r"][t, h])
                z = 0.0
                if mode != "hebb":
                    z = p["synaptic.rho_proj.weight"][h] @ x[b, t] + p["synaptic.rho_proj.bias"][h]
                if mode == "resonance":
                    e, predicted = l2norm(activity["e"][t, h]), anchor[b, h] @ u
                    res = predicted @ v / (size(predicted) * size(v) + 1e-3)
                    if note is not None:
                        note[b, t, h] = res
                    if c["detach_resonance"] and note is None:
                        res = held[c["name"]][b, t, h]
                    mu = sigmoid(p["synaptic.mu_logit"][h])
                    z += p["synaptic.beta_res"][h] * res
                    z += p["synaptic.beta_rel"][h] * (e @ context[b, h]) / (size(context[b, h]) + 1e-3)
                    context[b, h] = mu * context[b, h] + (1 - mu) * e
                rho = sigmoid(z)
                P[b, h] = (1 - sigmoid(p["synaptic.delta_logit"][h]) * (1 - rho)) * P[b, h] + c["eta"] * rho * np.outer(v, u)
                said[h] = P[b, h] @ r
                if (t + 1) % C == 0:
                    P[b, h] *= min(1, c["p_max"] * math.sqrt(d) / size(P[b, h]))
                    anchor[b, h] = P[b, h]
            y[b, t] += p["synaptic.gate"] * (p["synaptic.o_proj.weight"] @ rms_norm(said.reshape(-1), p["synaptic.norm.weight"]))
    state = {"k": keys, "v": values, "synaptic.P": np.transpose(P, (0, 1, 3, 2)), **tails}
    if mode == "resonance":
        state["synaptic.c"] = context
        if C > 1:
            state["synaptic.A"] = np.transpose(anchor, (0, 1, 3, 2))
    return y, state


def chunk_by_chunk(x, p, c):
    (B, T, D), H, d, C, mode, base = x.shape, c["heads"], c["head_dim"], c["chunk"], c["mode"], c["base"]
    q, k, v = (np.einsum("btd,od->bto", x, p[n + "_proj.weight"]) for n in "qkv")
    at = np.arange(T)
    inside = (at[None, :] <= at[:, None]) & (at[None, :] > at[:, None] - base["window"])
    e = np.exp(np.einsum("btk,bik->bti", q, k) / math.sqrt(base["head_dim"])) * inside
    attended = np.einsum("bti,bik->btk", e, v) / e.sum(-1, keepdims=True)
    y = np.einsum("btk,dk->btd", attended, p["o_proj.weight"])
    state = {"k": k[:, :, None], "v": v[:, :, None]}

    def activity(n):
        z = np.einsum("btd,od->bto", x, p[f"synaptic.{n}_proj.weight"])
        if c["conv"]:
            before = np.concatenate((np.zeros((B, c["conv"] - 1, H * d)), z), 1)
            state[f"synaptic.{n}_conv"] = before[:, T:]
            z = sum(before[:, j:T + j] * p[f"synaptic.{n}_conv.weight"][:, j] for j in range(c["conv"]))
        return z.reshape(B, T, H, d)

    def norm(z):
        return np.sqrt((z * z).sum(-1) + 1e-12)

    U, V, R = l2norm(activity("u")), activity("v"), l2norm(activity("r"))
    drive = np.zeros((B, T, H))
    if mode != "hebb":
        drive = np.einsum("btd,hd->bth", x, p["synaptic.rho_proj.weight"]) + p["synaptic.rho_proj.bias"]
    if mode == "resonance":
        E, mu = l2norm(activity("e")), sigmoid(p["synaptic.mu_logit"])
        power = np.where(at[:, None] >= at[None, :], at[:, None] - at[None, :], 0)[:, :, None]
        weights = mu ** power * (at[:, None] >= at[None, :])[:, :, None] * (1 - mu)                     # [t,i,H]
        contexts = np.einsum("tih,bihd->bthd", weights, E)
        before = np.concatenate((np.zeros((B, 1, H, d)), contexts[:, :-1]), 1)
        drive = drive + p["synaptic.beta_rel"] * (E * before).sum(-1) / (norm(before) + 1e-3)
        state["synaptic.c"] = contexts[:, -1]
    delta = sigmoid(p["synaptic.delta_logit"])
    M = np.zeros((B, H, d, d)) + (p["synaptic.P0"] if c["start"] == "learned" else 0)                   # P^T
    said, A = [], M
    for start in range(0, T, C):
        u, v, r, z = (w[:, start:start + C] for w in (U, V, R, drive))
        n, A = u.shape[1], M
        if mode == "resonance":
            predicted = np.einsum("bthi,bhio->btho", u, A)
            res = (predicted * v).sum(-1) / (norm(predicted) * norm(v) + 1e-3)
            z = z + p["synaptic.beta_res"] * (held[c["name"]][:, start:start + C] if c["detach_resonance"] else res)
        rho = sigmoid(z)
        total = np.cumsum(np.log(1 - delta * (1 - rho)), 1)                                             # [B,n,H]
        lower = np.tril(np.ones((n, n)))[None, :, :, None]
        decay = np.exp((total[:, :, None] - total[:, None, :]) * lower) * lower
        score = np.einsum("bthi,bmhi->btmh", r, u) * decay
        write = c["eta"] * rho[..., None] * v
        said.append(np.exp(total)[..., None] * np.einsum("bthi,bhio->btho", r, A) + np.einsum("btmh,bmho->btho", score, write))
        M = np.exp(total[:, -1])[:, :, None, None] * A + np.einsum("bmh,bmhi,bmho->bhio", decay[:, -1], u, write)
        if n == C:
            norms = np.sqrt((M * M).sum((2, 3), keepdims=True) + 1e-12)
            scale = c["p_max"] * math.sqrt(d) / norms
            M = M * np.where(scale.real < 1, scale, 1)
            A = M
    state["synaptic.P"] = M
    if mode == "resonance" and C > 1:
        state["synaptic.A"] = A
    read = rms_norm(np.concatenate(said, 1).reshape(B, T, H * d), p["synaptic.norm.weight"])
    return y + p["synaptic.gate"] * np.einsum("bto,do->btd", read, p["synaptic.o_proj.weight"]), state


def main():
    B, T, D, H, d, K = 1, 10, 5, 2, 3, 4
    base = {"type": "attention", "heads": 1, "kv_heads": 1, "head_dim": K, "window": 3, "sinks": 0, "persistent": 0, "rope": False,
            "conv": 0, "bias": False}
    usual = {"type": "synaptic", "base": base, "mode": "resonance", "heads": H, "head_dim": d, "chunk": 4, "conv": 0, "eta": 1.0, "mu": 0.9,
             "beta_res": 1.0, "beta_rel": 1.0, "rho_bias": 0.0, "delta_bias": -1.0, "p_max": 0.6, "detach_resonance": False,
             "start": "zeros", "consolidate_rate": 0.0}
    other = {"synaptic": {}, "synaptic_detached": {"detach_resonance": True, "chunk": 3, "conv": 2, "start": "learned", "p_max": 2.0},
             "synaptic_token": {"chunk": 1, "eta": 0.7, "beta_res": -1.5}, "synaptic_gated": {"mode": "gated", "chunk": 5},
             "synaptic_hebb": {"mode": "hebb"}}
    unused = {"resonance": (), "gated": ("mu", "beta_res", "beta_rel", "detach_resonance")}
    unused["hebb"] = (*unused["gated"], "rho_bias")
    for name, change in other.items():
        c, rng, p = {**usual, **change}, rng_of(name), {}
        c = {key: value for key, value in c.items() if key not in unused[c["mode"]]}
        for n in "qkv":
            p[n + "_proj.weight"] = rng.standard_normal((K, D)) / math.sqrt(D)
        p["o_proj.weight"] = rng.standard_normal((D, K)) / math.sqrt(K)
        for n in "uvre" if c["mode"] == "resonance" else "uvr":
            p[f"synaptic.{n}_proj.weight"] = 1.5 * rng.standard_normal((H * d, D)) / math.sqrt(D)
            if c["conv"]:
                p[f"synaptic.{n}_conv.weight"] = rng.standard_normal((H * d, c["conv"]))
        if c["mode"] != "hebb":
            p["synaptic.rho_proj.weight"] = rng.standard_normal((H, D)) / math.sqrt(D)
            p["synaptic.rho_proj.bias"] = 0.3 * rng.standard_normal(H)
        if c["mode"] == "resonance":
            p["synaptic.mu_logit"] = math.log(0.9 / 0.1) + 0.3 * rng.standard_normal(H)
            p["synaptic.beta_res"] = c["beta_res"] + 0.3 * rng.standard_normal(H)
            p["synaptic.beta_rel"] = 1 + 0.3 * rng.standard_normal(H)
        p["synaptic.delta_logit"] = -1 + 0.3 * rng.standard_normal(H)
        if c["start"] == "learned":
            p["synaptic.P0"] = rng.standard_normal((H, d, d)) / math.sqrt(d)
        p["synaptic.norm.weight"] = 1 + 0.3 * rng.standard_normal(H * d)
        p["synaptic.o_proj.weight"] = rng.standard_normal((D, H * d)) / math.sqrt(H * d)
        p["synaptic.gate"] = rng.standard_normal(D)
        x = rng.standard_normal((B, T, D))
        if c.get("detach_resonance"):
            held[name] = np.zeros((B, T, H))
            token_by_token(x, p, c, held[name])
        programs = [lambda x, p, c, f=f: f(x, p, {**c, "name": name}) for f in (token_by_token, chunk_by_chunk)]
        emit(name, "synaptic", c, x, p, programs[0], numpy_second=programs[1])


if __name__ == "__main__":
    main()
