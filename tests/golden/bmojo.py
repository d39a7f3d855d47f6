"""Golden vectors of B'MOJO-F, from two NumPy programs: one token at a time with lists of keys and values, and all tokens at once with
masks, where the memory that fades is products under a mask of decays (GLA) or a triangular system (DeltaNet).

    f = fading(x)    q, k, v = W_q x, W_k x, W_v x    k', v' = W_k f, W_v f (or matrices of their own, q' too), rotated at their positions
    o_t = softmax over {k_i : t - w < i <= t} and {k'_i : t - 2w < i <= t - w} of their v, v';   y = W_o o
"""
import math

import numpy as np

from golden_lib import emit, rng_of, rotate


def sig(z):
    return 1 / (1 + np.exp(-z))


def unit(z, eps=1e-6):
    return z / np.sqrt((z * z).sum(-1, keepdims=True) + eps)


def rms(z, weight):
    return z / np.sqrt((z * z).mean(-1, keepdims=True) + 1e-6) * weight


def part_of(p, prefix):
    return {n[len(prefix):]: w for n, w in p.items() if n.startswith(prefix)}


# ---- what fades ----
def gla_steps(x, p, c):
    (B, T, D), H, K, V = x.shape, c["heads"], c["key_dim"], c["value_dim"]
    y, W = np.zeros_like(x), np.zeros((B, H, K, V))
    for b in range(B):
        for t in range(T):
            z = x[b, t]
            q, k, v = ((p[n + "_proj.weight"] @ z).reshape(H, -1) for n in "qkv")
            a = sig(p["a_up.weight"] @ (p["a_down.weight"] @ z) + p["a_up.bias"]).reshape(H, K) ** (1 / c["decay_temperature"])
            for h in range(H):
                W[b, h] = a[h][:, None] * W[b, h] + np.outer(k[h], v[h])
            o = np.stack([rms(q[h] / math.sqrt(K) @ W[b, h], p["norm.weight"]) for h in range(H)]).reshape(-1)
            g = p["gate_proj.weight"] @ z
            y[b, t] = p["o_proj.weight"] @ (o * g * sig(g))
    return y, {"W": W}


def gla_products(x, p, c):
    (B, T, D), H, K = x.shape, c["heads"], c["key_dim"]
    q, k, v, g = (np.einsum("btd,od->bto", x, p[n + "_proj.weight"]) for n in ("q", "k", "v", "gate"))
    q, k, v = (z.reshape(B, T, H, -1) for z in (q, k, v))
    a = np.einsum("btr,or->bto", np.einsum("btd,rd->btr", x, p["a_down.weight"]), p["a_up.weight"]) + p["a_up.bias"]
    total = np.cumsum(-np.log(1 + np.exp(-a)) / c["decay_temperature"], 1).reshape(B, T, H, K)
    weights = np.einsum("bthk,bihk->bhti", q * np.exp(total), k * np.exp(-total)) / math.sqrt(K) * np.tril(np.ones((T, T)))
    o = rms(np.einsum("bhti,bihv->bthv", weights, v), p["norm.weight"]).reshape(B, T, -1)
    W = np.einsum("bihk,bihv->bhkv", k * np.exp(total[:, -1:] - total), v)
    return np.einsum("bto,do->btd", o * g * sig(g), p["o_proj.weight"]), {"W": W}


def delta_streams(x, p, c):
    B, T, H, d = *x.shape[:2], c["heads"], c["head_dim"]
    z = {n: np.einsum("btd,od->bto", x, p[n + "_proj.weight"]) * p[n + "_conv.weight"][:, 0] for n in "qkv"}
    z = {n: (u * sig(u)).reshape(B, T, H, d) for n, u in z.items()}
    return unit(z["q"]) / math.sqrt(d), unit(z["k"]), z["v"], sig(np.einsum("btd,hd->bth", x, p["b_proj.weight"]))


def delta_steps(x, p, c):
    (B, T, D), H, d = x.shape, c["heads"], c["head_dim"]
    q, k, v, beta = delta_streams(x, p, c)
    y, W = np.zeros_like(x), np.zeros((B, H, d, d))
    for b in range(B):
        for t in range(T):
            for h in range(H):
                W[b, h] += beta[b, t, h] * np.outer(k[b, t, h], v[b, t, h] - k[b, t, h] @ W[b, h])
            o = np.stack([rms(q[b, t, h] @ W[b, h], p["norm.weight"]) for h in range(H)])
            y[b, t] = p["o_proj.weight"] @ o.reshape(-1)
    return y, {"W": W}


def delta_system(x, p, c):
    (B, T, D), H = x.shape, c["heads"]
    q, k, v, beta = (np.moveaxis(z, 2, 1) for z in delta_streams(x, p, c))  # [B,H,T,...]
    overlap = np.einsum("bhtd,bhid->bhti", k, k) * np.tril(np.ones((T, T)), -1)
    written = np.linalg.solve(np.eye(T) + beta[..., None] * overlap, beta[..., None] * v)
    o = np.einsum("bhti,bhid->bthd", np.einsum("bhtd,bhid->bhti", q, k) * np.tril(np.ones((T, T))), written)
    y = np.einsum("bto,do->btd", rms(o, p["norm.weight"]).reshape(B, T, -1), p["o_proj.weight"])
    return y, {"W": np.einsum("bhid,bhie->bhde", k, written)}


def fading(x, p, c, form):
    memory = c["fading"]
    if memory == "identity":
        return x, {}
    run = {"gla": (gla_steps, gla_products), "deltanet": (delta_steps, delta_system)}[memory["type"]][form]
    f, state = run(x, part_of(p, "fading."), memory)
    return f, {"fading." + n: s for n, s in state.items()}


# ---- the layer ----
def heads_of(p, c, x, name, norm, n):
    z = np.einsum("...d,od->...o", x, p[name + ".weight"]).reshape(*x.shape[:-1], n, c["head_dim"])
    return rms(z, p[norm + ".weight"]) if norm and c["qk_norm"] else z


def names(c):
    own = "" if c["tie"] else "fading_"
    return own + "q_proj", own + "q_norm", own + "k_proj", own + "k_norm", own + "v_proj"


def token_by_token(x, p, c):
    (B, T, D), H, G, d, w, theta = x.shape, c["heads"], c["kv_heads"], c["head_dim"], c["window"], c["rope_theta"]
    f, state = fading(x, p, c, 0)
    nq, nqn, nk, nkn, nv = names(c)
    y = np.zeros_like(x)
    k, v, kf, vf = (np.zeros((B, T, G, d)) for _ in range(4))
    for b in range(B):
        for t in range(T):
            q, own = heads_of(p, c, x[b, t], "q_proj", "q_norm", H), heads_of(p, c, x[b, t], nq, nqn, H)
            fresh, faded = heads_of(p, c, x[b, t], "k_proj", "k_norm", G), heads_of(p, c, f[b, t], nk, nkn, G)
            for g in range(G):
                k[b, t, g], kf[b, t, g] = rotate(fresh[g], t, theta), rotate(faded[g], t, theta)
            v[b, t], vf[b, t] = heads_of(p, c, x[b, t], "v_proj", None, G), heads_of(p, c, f[b, t], nv, None, G)
            o = np.zeros((H, d))
            for h in range(H):
                g, entries = h // (H // G), []
                for i in range(max(0, t - w + 1), t + 1):
                    entries.append((rotate(q[h], t, theta) @ k[b, i, g], v[b, i, g]))
                for i in range(max(0, t - 2 * w + 1), t - w + 1):
                    entries.append((rotate(own[h], t, theta) @ kf[b, i, g], vf[b, i, g]))
                e = [math.exp(score / math.sqrt(d)) for score, _ in entries]
                o[h] = sum(weight * value for weight, (_, value) in zip(e, entries)) / sum(e)
            y[b, t] = p["o_proj.weight"] @ o.reshape(-1)
    return y, {"k": k, "v": v, "faded.k": kf, "faded.v": vf, **state}


def all_at_once(x, p, c):
    (B, T, D), H, G, d, w = x.shape, c["heads"], c["kv_heads"], c["head_dim"], c["window"]
    f, state = fading(x, p, c, 1)
    nq, nqn, nk, nkn, nv = names(c)
    at = np.arange(T)

    def turned(z):
        angle = at[:, None] * c["rope_theta"] ** (-2 * np.arange(d // 2) / d)
        c1, s1 = np.cos(angle)[None, :, None], np.sin(angle)[None, :, None]
        a, b = z[..., : d // 2], z[..., d // 2:]
        return np.concatenate((a * c1 - b * s1, b * c1 + a * s1), -1)

    def seen(first, last):  # keys i with t - last < i <= t - first
        return (at[None, :] <= at[:, None] - first) & (at[None, :] > at[:, None] - last)

    k, kf = turned(heads_of(p, c, x, "k_proj", "k_norm", G)), turned(heads_of(p, c, f, nk, nkn, G))
    v, vf = heads_of(p, c, x, "v_proj", None, G), heads_of(p, c, f, nv, None, G)
    sums, weights = 0, 0
    for q, keys, values, mask in ((heads_of(p, c, x, "q_proj", "q_norm", H), k, v, seen(0, w)),
                                  (heads_of(p, c, x, nq, nqn, H), kf, vf, seen(w, 2 * w))):
        e = np.exp(np.einsum("bthd,bihd->bhti", turned(q), np.repeat(keys, H // G, 2)) / math.sqrt(d)) * mask
        sums = sums + np.einsum("bhti,bihd->bthd", e, np.repeat(values, H // G, 2))
        weights = weights + np.moveaxis(e.sum(-1), 1, 2)[..., None]
    y = np.einsum("bto,do->btd", (sums / weights).reshape(B, T, -1), p["o_proj.weight"])
    return y, {"k": k, "v": v, "faded.k": kf, "faded.v": vf, **state}


# ---- parameters ----
def matrix(rng, out, width):
    return rng.standard_normal((out, width)) / math.sqrt(width)


def parameters(rng, c, D):
    H, G, d = c["heads"], c["kv_heads"], c["head_dim"]
    p = {"q_proj.weight": matrix(rng, H * d, D), "k_proj.weight": matrix(rng, G * d, D), "v_proj.weight": matrix(rng, G * d, D),
         "o_proj.weight": matrix(rng, D, H * d)}
    own = ("",) if c["tie"] else ("", "fading_")
    if not c["tie"]:
        p.update({"fading_" + n: matrix(rng, *p[n].shape) for n in ("q_proj.weight", "k_proj.weight", "v_proj.weight")})
    if c["qk_norm"]:
        p.update({o + n: 1 + 0.2 * rng.standard_normal(d) for o in own for n in ("q_norm.weight", "k_norm.weight")})
    m = c["fading"]
    if m["type"] == "gla":
        h, K, V, r = m["heads"], m["key_dim"], m["value_dim"], m["decay_rank"]
        inner = {"q_proj.weight": (h * K, D), "k_proj.weight": (h * K, D), "v_proj.weight": (h * V, D), "a_down.weight": (r, D),
                 "a_up.weight": (h * K, r), "gate_proj.weight": (h * V, D), "o_proj.weight": (D, h * V)}
        inner = {n: matrix(rng, *s) for n, s in inner.items()}
        inner.update({"a_up.bias": rng.standard_normal(h * K), "norm.weight": 1 + 0.2 * rng.standard_normal(V)})
    else:
        h, e = m["heads"], m["head_dim"]
        inner = {n + "_proj.weight": matrix(rng, h * e, D) for n in "qkv"}
        inner.update({n + "_conv.weight": rng.standard_normal((h * e, 1)) for n in "qkv"})
        inner.update({"b_proj.weight": matrix(rng, h, D), "norm.weight": 1 + 0.2 * rng.standard_normal(e), "o_proj.weight": matrix(rng, D, h * e)})
    p.update({"fading." + n: w for n, w in inner.items()})
    return p


def main():
    B, T, D = 1, 7, 4
    usual = {"type": "bmojo_f", "heads": 2, "kv_heads": 1, "head_dim": 2, "window": 2, "tie": True, "qk_norm": False, "rope": True,
             "rope_theta": 100}
    gla = {"type": "gla", "heads": 1, "key_dim": 2, "value_dim": 2, "decay_rank": 1, "decay_temperature": 2}
    delta = {"type": "deltanet", "heads": 1, "head_dim": 2, "conv": 1}
    for name, change in {"bmojo_f": {"fading": gla}, "bmojo_f_own": {"fading": delta, "tie": False, "qk_norm": True, "kv_heads": 2}}.items():
        config, rng = {**usual, **change}, rng_of(name)
        p = parameters(rng, config, D)
        emit(name, config["type"], config, rng.standard_normal((B, T, D)), p, token_by_token, numpy_second=all_at_once)


if __name__ == "__main__":
    main()
