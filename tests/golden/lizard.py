"""Golden vectors of Lizard, from two NumPy programs: one token at a time with S and z as the paper's recurrence writes them, unscaled, and
all tokens at once as masked products of features and gates. The state in the files holds [S, z] e^-mu, with mu the running maximum.

    gamma_t = sigmoid(w . x_t + b)      phi(z) = [exp(z), exp(-z)] or [softmax(z), softmax(-z)]
    S_t = gamma_t S_{t-1} + phi_k(k_t) v_t^T      z_t = gamma_t z_{t-1} + phi_k(k_t)      G_t = phi_q^T S_t / phi_q^T z_t
    A_t = sum_i e^{q k_i / sqrt(d)} v_i / (sum_j e^{s_j} + sum_i e^{q k_i / sqrt(d)}), i in (t - window, t]
    y_t = W_o [G_t + alpha A_t]
"""
import math

import numpy as np

from golden_lib import emit, rng_of, rotate


def map_of(p, c, name, head):
    w = p[name][head if c["feature_per_head"] else 0]
    return w + np.eye(c["features"]) if c["features"] == c["head_dim"] else w


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def features(c, z):
    return np.concatenate((np.exp(z), np.exp(-z)) if c["feature_act"] == "exp" else (softmax(z), softmax(-z)))


def token_by_token(x, p, c):
    (B, T, D), H, G, d, F = x.shape, c["heads"], c["kv_heads"], c["head_dim"], c["features"]
    y, R = np.zeros_like(x), H // G
    keys, values = np.zeros((B, T, G, d)), np.zeros((B, T, G, d))
    S, mu = np.zeros((B, G, 2 * F, d + 1)), np.full((B, G), -np.inf)
    for b in range(B):
        for t in range(T):
            q = (p["q_proj.weight"] @ x[b, t]).reshape(H, d)
            k, values[b, t] = (p["k_proj.weight"] @ x[b, t]).reshape(G, d), (p["v_proj.weight"] @ x[b, t]).reshape(G, d)
            keys[b, t] = [rotate(k[g], t, c["rope_theta"]) if c["window_rope"] else k[g] for g in range(G)]
            gamma = 1 / (1 + math.exp(-(p["gate_proj.weight"][0] @ x[b, t] + p["gate_proj.bias"][0])))
            for g in range(G):
                z = map_of(p, c, "feature_k", g) @ k[g]
                S[b, g] = gamma * S[b, g] + np.outer(features(c, z), np.append(values[b, t, g], 1))
                mu[b, g] = max(mu[b, g] + math.log(gamma), np.abs(z).max())
            o = np.zeros((H, d))
            for h in range(H):
                g, alpha = h // R, p["alpha"].reshape(-1)[h if c["alpha"] == "per_head" else 0]
                read = features(c, map_of(p, c, "feature_q", h) @ q[h]) @ S[b, g]
                turned = rotate(q[h], t, c["rope_theta"]) if c["window_rope"] else q[h]
                seen = range(max(0, t - c["window"] + 1), t + 1)
                e = [math.exp(turned @ keys[b, i, g] / math.sqrt(d)) for i in seen]
                total, said = np.exp(p["meta_logits"]).sum() + sum(e), sum(w * values[b, i, g] for w, i in zip(e, seen))
                if c["norm"] == "joint":
                    o[h] = (read[:d] + abs(alpha) * said) / (read[d] + abs(alpha) * total)
                else:
                    o[h] = (read[:d] / read[d] if c["norm"] == "row" else read[:d]) + alpha * said / total
            y[b, t] = p["o_proj.weight"] @ o.reshape(-1)
    state = {"k": keys, "v": values, "S": S}
    if c["feature_act"] == "exp":
        state["S"], state["mu"] = S * np.exp(-mu)[:, :, None, None], mu
    return y, state


def all_at_once(x, p, c):
    B, T, _ = x.shape
    H, G, d = c["heads"], c["kv_heads"], c["head_dim"]
    R, at = H // G, np.arange(T)
    q, k, v = (np.einsum("btd,od->bto", x, p[n + "_proj.weight"]).reshape(B, T, -1, d) for n in "qkv")

    def lifted(name, z):
        w = p[name] + (np.eye(d) if c["features"] == d else 0)
        w = np.repeat(w, z.shape[2] // w.shape[0], 0)
        z = np.einsum("hfd,bthd->bthf", w, z)
        e, i = np.exp(z), np.exp(-z)
        if c["feature_act"] == "softmax":
            e, i = e / e.sum(-1, keepdims=True), i / i.sum(-1, keepdims=True)
        return np.concatenate((e, i), -1), z

    def turned(z):
        if not c["window_rope"]:
            return z
        angle = at[:, None] * c["rope_theta"] ** (-2 * np.arange(d // 2) / d)
        c1, s1 = np.cos(angle)[None, :, None], np.sin(angle)[None, :, None]
        a, b = z[..., : d // 2], z[..., d // 2:]
        return np.concatenate((a * c1 - b * s1, b * c1 + a * s1), -1)

    phi_q, _ = lifted("feature_q", q)
    phi_k, zk = lifted("feature_k", k)
    log_gamma = -np.log(1 + np.exp(-(np.einsum("btd,d->bt", x, p["gate_proj.weight"][0]) + p["gate_proj.bias"][0])))
    total = np.cumsum(log_gamma, 1)
    lower = np.tril(np.ones((T, T)))
    decay = np.exp((total[:, :, None] - total[:, None, :]) * lower) * lower                         # [B,t,i]
    keys = turned(k)
    v1 = np.concatenate((v, np.ones((B, T, G, 1))), -1)
    wide = {n: np.repeat(z, R, 2) for n, z in (("phi", phi_k), ("k", keys), ("v", v1))}
    weights = np.einsum("bthf,bihf->bhti", phi_q, wide["phi"]) * decay[:, None]
    inside = (at[None, :] <= at[:, None]) & (at[None, :] > at[:, None] - c["window"])
    scores = np.exp(np.einsum("bthd,bihd->bhti", turned(q), wide["k"]) / math.sqrt(d)) * inside
    read, said = (np.einsum("bhti,bihd->bthd", m, wide["v"]) for m in (weights, scores))
    mass = np.exp(p["meta_logits"]).sum()
    alpha = p["alpha"].reshape(-1, 1)
    if c["norm"] == "joint":
        size = alpha * np.sign(alpha.real)
        o = (read[..., :d] + size * said[..., :d]) / (read[..., d:] + size * (said[..., d:] + mass))
    else:
        o = (read[..., :d] / read[..., d:] if c["norm"] == "row" else read[..., :d]) + alpha * said[..., :d] / (said[..., d:] + mass)
    S = np.einsum("bi,bigf,bigd->bgfd", decay[:, -1], phi_k, v1)
    state = {"k": keys, "v": v, "S": S}
    if c["feature_act"] == "exp":
        state["mu"] = (np.abs(zk.real).max(-1) + (total.real[:, -1:] - total.real)[..., None]).max(1)
        state["S"] = S * np.exp(-state["mu"])[:, :, None, None]
    return np.einsum("bto,do->btd", o.reshape(B, T, -1), p["o_proj.weight"]), state


def main():
    B, T, D, H, G, d, m = 1, 7, 6, 2, 1, 4, 2
    usual = {"type": "lizard", "heads": H, "kv_heads": G, "head_dim": d, "window": 3, "meta_tokens": m, "features": d, "feature_act": "exp",
             "feature_per_head": True, "norm": "row", "gate": "token", "gate_bias": 1, "alpha": "learned", "alpha_init": 1,
             "branches": "both", "window_rope": False, "rope_theta": 10000}
    other = {"lizard": {}, "lizard_joint": {"norm": "joint", "alpha": "per_head", "window_rope": True, "rope_theta": 100},
             "lizard_softmax": {"feature_act": "softmax", "features": 3, "feature_per_head": False, "norm": "none"}}
    for name, change in other.items():
        config, rng, p = {**usual, **change}, rng_of(name), {}
        if not config["window_rope"]:
            del config["rope_theta"]
        for n, width in (("q", H * d), ("k", G * d), ("v", G * d)):
            p[n + "_proj.weight"] = rng.standard_normal((width, D)) / math.sqrt(D)
        each, F = config["feature_per_head"], config["features"]
        p["feature_q"] = 0.5 * rng.standard_normal((H if each else 1, F, d))
        p["feature_k"] = 0.5 * rng.standard_normal((G if each else 1, F, d))
        p["gate_proj.weight"], p["gate_proj.bias"] = rng.standard_normal((1, D)) / math.sqrt(D), np.array([1.0])
        p["meta_logits"], p["alpha"] = rng.standard_normal(m), 0.5 + rng.random((H, 1) if config["alpha"] == "per_head" else 1)
        p["o_proj.weight"] = rng.standard_normal((D, H * d)) / math.sqrt(H * d)
        emit(name, "lizard", config, rng.standard_normal((B, T, D)), p, token_by_token, numpy_second=all_at_once)


if __name__ == "__main__":
    main()
