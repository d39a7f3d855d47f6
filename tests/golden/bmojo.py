"""Golden vectors of B'MOJO and B'MOJO-F, from two NumPy programs: one token at a time with lists of keys and values and a heap of old
tokens, and all tokens at once with masks, where the memory that fades is products under a mask of decays (GLA) or a triangular system
(DeltaNet), and what is kept follows from the rank of each token among all before it.

    f = fading(x)    q, k, v = W_q x, W_k x, W_v x    k', v' = W_k f, W_v f (or matrices of their own, q' too), rotated at their positions
    o_t = softmax over {k_i : t - w < i <= t} and {k'_i : t - 2w < i <= t - w} of their v, v', and in bmojo over the k_j of E;   y = W_o o
    E of the chunk that begins at b: the M largest e_j of j <= b - s (s = 2w, or w when nothing fades), and R of those that had to go
    token: e_t = |R x_t - P rms(f_{t-1})|^2 / D'     output: e_t = |f_t - sum_j c_j f_{t-j}|^2 / (|f_t|^2 + 1e-3)
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
    if memory in ("identity", "none"):
        return x, {}
    run = {"gla": (gla_steps, gla_products), "deltanet": (delta_steps, delta_system)}[memory["type"]][form]
    f, state = run(x, part_of(p, "fading."), memory)
    return f, {"fading." + n: s for n, s in state.items()}


# ---- the layer ----
def heads_of(p, c, x, name, norm, n):
    z = np.einsum("...d,od->...o", x, p[name + ".weight"]).reshape(*x.shape[:-1], n, c["head_dim"])
    return rms(z, p[norm + ".weight"]) if norm and c["qk_norm"] else z


def names(c):
    own = "" if c.get("tie", True) else "fading_"
    return own + "q_proj", own + "q_norm", own + "k_proj", own + "k_norm", own + "v_proj"


def span_of(c):
    return c["window"] * (1 if c["fading"] == "none" else 2)


class Heap:
    """The kept tokens of one row as the page says it: what is pending is merged at a chunk's start, the smallest go, and are stored."""

    def __init__(self, c):
        self.c, self.kept, self.pending, self.store, self.found, self.asked, self.stored = c, [], [], [], [], 0, 0

    def begin(self, b, keys):
        c = self.c
        for e, j in [z for z in self.pending if z[1] <= b - span_of(c)]:
            self.pending.remove((e, j))
            if e >= c["threshold"]:
                self.kept.append((e, j))
        self.kept.sort(key=lambda z: (-z[0], z[1]))
        gone, self.kept = self.kept[c["slots"]:], self.kept[: c["slots"]]
        if c["store"]:
            self.stored += len(gone)
            self.store = (self.store + [j for _, j in gone])[-c["store"]:]
            score = [sum(self.asked[h] @ keys[j, h // (len(self.asked) // keys.shape[1])] for h in range(len(self.asked))) for j in self.store]
            self.found = [self.store[i] for i in np.argsort(-np.array(score), kind="stable")[: c["retrieve"]]] if self.store else []
        self.asked = 0


def token_by_token(x, p, c):
    (B, T, D), H, G, d, w, theta = x.shape, c["heads"], c["kv_heads"], c["head_dim"], c["window"], c["rope_theta"]
    f, state = fading(x, p, c, 0)
    nq, nqn, nk, nkn, nv = names(c)
    y, full = np.zeros_like(x), c["type"] == "bmojo"
    k, v, kf, vf, kept_k = (np.zeros((B, T, G, d)) for _ in range(5))
    e, J = np.zeros((B, T)), (c["taps"] if c.get("test") == "output" else 1)
    heaps = [Heap(c) for _ in range(B)]
    for b in range(B):
        for t in range(T):
            q, own = heads_of(p, c, x[b, t], "q_proj", "q_norm", H), heads_of(p, c, x[b, t], nq, nqn, H)
            fresh = heads_of(p, c, x[b, t], "k_proj", "k_norm", G)
            v[b, t] = heads_of(p, c, x[b, t], "v_proj", None, G)
            for g in range(G):
                k[b, t, g] = rotate(fresh[g], t, theta)
            if c["fading"] != "none":
                faded, vf[b, t] = heads_of(p, c, f[b, t], nk, nkn, G), heads_of(p, c, f[b, t], nv, None, G)
                for g in range(G):
                    kf[b, t, g] = rotate(faded[g], t, theta)
            asks, heap = q, heaps[b]
            if full:
                stands = c["positions"] == "own"
                kept_k[b, t] = k[b, t] if stands else fresh
                asks = np.stack([rotate(q[h], t if stands else span_of(c), theta) for h in range(H)])
                if t % c["chunk"] == 0:
                    heap.begin(t, kept_k[b])
                heap.asked = heap.asked + asks
            o = np.zeros((H, d))
            for h in range(H):
                g, entries = h // (H // G), []
                for i in range(max(0, t - w + 1), t + 1):
                    entries.append((rotate(q[h], t, theta) @ k[b, i, g], v[b, i, g]))
                for i in range(max(0, t - 2 * w + 1), t - w + 1) if c["fading"] != "none" else ():
                    entries.append((rotate(own[h], t, theta) @ kf[b, i, g], vf[b, i, g]))
                for i in [j for _, j in heap.kept] + heap.found if full else ():
                    entries.append((asks[h] @ kept_k[b, i, g], v[b, i, g]))
                s = [math.exp(score / math.sqrt(d)) for score, _ in entries]
                o[h] = sum(weight * value for weight, (_, value) in zip(s, entries)) / sum(s)
            y[b, t] = p["o_proj.weight"] @ o.reshape(-1)
            if full and c["test"] == "token":
                past = f[b, t - 1] if t else np.zeros(D)
                r = (p["predicted"] @ x[b, t] if c["predict_dim"] else x[b, t]) - p["predict_proj.weight"] @ rms(past, 1)
                e[b, t] = (r * r).mean()
            elif full:
                r = f[b, t] - sum(p["taps"][j - 1] * f[b, t - j] for j in range(1, J + 1) if t >= j)
                e[b, t] = (r @ r) / (f[b, t] @ f[b, t] + 1e-3)
            if full:
                heap.pending.append((e[b, t], t))
    state.update({"k": k, "v": v})
    if c["fading"] != "none":
        state.update({"faded.k": kf, "faded.v": vf})
    if full:
        state.update({"past": f[:, T - J:]})
        state.update(states_of(c, kept_k, v, e, [[j for _, j in h.kept] for h in heaps], [h.store for h in heaps], [h.found for h in heaps],
                               [h.stored for h in heaps], np.stack([h.asked for h in heaps]) if c["store"] else None))
    return y, state


def states_of(c, k, v, e, kept, store, found, stored, asked):
    """What slots hold, from the positions that stand in them, by row."""
    (B, T, G, d), R = k.shape, span_of(c) + c["chunk"]
    out = {"pending.k": k, "pending.v": v, "pending.surprise": np.zeros((B, R))}
    for b in range(B):
        for t in range(T):
            out["pending.surprise"][b, t % R] = e[b, t].real
    places = {"kept": (kept, c["slots"])}
    if c["store"]:
        turned = []
        for b in range(B):  # the last S of them, each at its number modulo S
            slots = [-1] * c["store"]
            for i, j in enumerate(store[b]):
                slots[(stored[b] - len(store[b]) + i) % c["store"]] = j
            turned.append(slots)
        places.update({"store": (turned, c["store"]), "found": (found, c["retrieve"])})
        out.update({"asked": asked, "store.count": np.array(stored, dtype=float)[:, None]})
    for name, (rows, n) in places.items():
        at = np.array([list(r) + [-1] * (n - len(r)) for r in rows], dtype=int)
        there = (at >= 0)[:, :, None, None]
        out[name + ".k"] = np.stack([k[b, at[b]] for b in range(B)]) * there
        out[name + ".v"] = np.stack([v[b, at[b]] for b in range(B)]) * there
        out[name + ".at"] = at.astype(float)
        if name == "kept":
            out[name + ".surprise"] = np.where(at >= 0, np.stack([e[b, at[b]] for b in range(B)]), -1)
    return {n: z.real for n, z in out.items()}


def all_at_once(x, p, c):
    (B, T, D), H, G, d, w = x.shape, c["heads"], c["kv_heads"], c["head_dim"], c["window"]
    f, state = fading(x, p, c, 1)
    nq, nqn, nk, nkn, nv = names(c)
    at, R, full = np.arange(T), H // G, c["type"] == "bmojo"

    def turned(z, position=None):
        angle = np.full(T, position) if position is not None else at
        angle = angle[:, None] * c["rope_theta"] ** (-2 * np.arange(d // 2) / d)
        c1, s1 = np.cos(angle)[None, :, None], np.sin(angle)[None, :, None]
        a, b = z[..., : d // 2], z[..., d // 2:]
        return np.concatenate((a * c1 - b * s1, b * c1 + a * s1), -1)

    def seen(first, last):  # keys i with t - last < i <= t - first
        return ((at[None, :] <= at[:, None] - first) & (at[None, :] > at[:, None] - last))[None]

    q, fresh = heads_of(p, c, x, "q_proj", "q_norm", H), heads_of(p, c, x, "k_proj", "k_norm", G)
    k, v = turned(fresh), heads_of(p, c, x, "v_proj", None, G)
    state.update({"k": k, "v": v})
    parts = [(turned(q), k, v, seen(0, w))]
    if c["fading"] != "none":
        kf, vf = turned(heads_of(p, c, f, nk, nkn, G)), heads_of(p, c, f, nv, None, G)
        parts.append((turned(heads_of(p, c, x, nq, nqn, H)), kf, vf, seen(w, 2 * w)))
        state.update({"faded.k": kf, "faded.v": vf})
    if full:
        stands = c["positions"] == "own"
        asks, keys = (turned(q), k) if stands else (turned(q, span_of(c)), fresh)
        mask, more = chosen(x, p, c, f, asks, keys, v)
        parts.append((asks, keys, v, mask))
        state.update(more)
    sums, weights = 0, 0
    for query, key, value, mask in parts:
        e = np.exp(np.einsum("bthd,bihd->bhti", query, np.repeat(key, R, 2)) / math.sqrt(d)) * mask[:, None]
        sums = sums + np.einsum("bhti,bihd->bthd", e, np.repeat(value, R, 2))
        weights = weights + np.moveaxis(e.sum(-1), 1, 2)[..., None]
    y = np.einsum("bto,do->btd", (sums / weights).reshape(B, T, -1), p["o_proj.weight"])
    return y, state


def chosen(x, p, c, f, asks, keys, v):
    """mask [B,T,T]: which old tokens each query sees, from the rank of every token among all that had left its chunk; the states."""
    (B, T, D), C, M, J = x.shape, c["chunk"], c["slots"], (c["taps"] if c["test"] == "output" else 1)
    shifted = [np.concatenate((np.zeros((B, j, D)), f[:, : T - j]), 1) for j in range(1, J + 1)]
    if c["test"] == "token":
        want = np.einsum("btd,rd->btr", x, p["predicted"]) if c["predict_dim"] else x
        e = ((want - np.einsum("btd,rd->btr", rms(shifted[0], 1), p["predict_proj.weight"])) ** 2).mean(-1)
    else:
        e = ((f - np.einsum("j,jbtd->btd", p["taps"], np.array(shifted))) ** 2).sum(-1) / ((f * f).sum(-1) + 1e-3)
    size = e.real
    mask, last = np.zeros((B, T, T)), (T - 1) // C * C
    kept, store, found, asked, stored = [[] for _ in range(B)], [[] for _ in range(B)], [[] for _ in range(B)], [], []
    for b in range(B):
        for start in range(0, last + 1, C):
            old = [j for j in range(T) if j <= start - span_of(c) and size[b, j] >= c["threshold"]]
            rank = {j: sum(size[b, i] > size[b, j] or (size[b, i] == size[b, j] and i < j) for i in old) for j in old}
            now = sorted((j for j in old if rank[j] < M), key=rank.get)
            left = sorted((j for j in old if rank[j] >= M and j not in store[b]), key=rank.get)
            store[b] = store[b] + left
            kept[b] = now
            if c["store"]:
                asked_b = asks[b, max(0, start - C): start].sum(0).real.reshape(keys.shape[2], -1, keys.shape[3]).sum(1)
                there = store[b][-c["store"]:]
                score = np.array([(asked_b * keys[b, j].real).sum() for j in there])
                found[b] = [there[i] for i in np.argsort(-score, kind="stable")[: c["retrieve"]]] if there else []
            mask[b, start: start + C, now + found[b]] = 1
        asked.append(asks[b, last:].sum(0).real)
        stored.append(len(store[b]))
        store[b] = store[b][-c["store"]:] if c["store"] else []
    return mask, {"past": f[:, T - J:], **states_of(c, keys, v, e, kept, store, found, stored, np.stack(asked) if c["store"] else None)}


# ---- parameters ----
def matrix(rng, out, width):
    return rng.standard_normal((out, width)) / math.sqrt(width)


def parameters(rng, c, D):
    H, G, d = c["heads"], c["kv_heads"], c["head_dim"]
    p = {"q_proj.weight": matrix(rng, H * d, D), "k_proj.weight": matrix(rng, G * d, D), "v_proj.weight": matrix(rng, G * d, D),
         "o_proj.weight": matrix(rng, D, H * d)}
    own = ("",) if c.get("tie", True) else ("", "fading_")
    if not c.get("tie", True):
        p.update({"fading_" + n: matrix(rng, *p[n].shape) for n in ("q_proj.weight", "k_proj.weight", "v_proj.weight")})
    if c["qk_norm"]:
        p.update({o + n: 1 + 0.2 * rng.standard_normal(d) for o in own for n in ("q_norm.weight", "k_norm.weight")})
    if c["type"] == "bmojo" and c["test"] == "token":
        p["predict_proj.weight"] = matrix(rng, c["predict_dim"] or D, D)
        if c["predict_dim"]:
            p["predicted"] = matrix(rng, c["predict_dim"], D)
    elif c["type"] == "bmojo":
        p["taps"] = rng.standard_normal(c["taps"]) / 2
    m = c["fading"]
    if m == "none":
        return p
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
    usual_set = {"type": "bmojo", "slots": 2, "chunk": 2, "test": "token", "threshold": 0, "positions": "clamp", "predict_dim": 0,
                 "predict_weight": 0.1, "store": 0, "retrieve": 0}
    files = {"bmojo_f": (T, {"fading": gla}),
             "bmojo_f_own": (T, {"fading": delta, "tie": False, "qk_norm": True, "kv_heads": 2}),
             "bmojo": (13, {**usual_set, "fading": gla, "predict_dim": 3}),
             "bmojo_store": (13, {**usual_set, "fading": "none", "test": "output", "taps": 2, "threshold": 0.2, "positions": "own", "chunk": 3,
                                  "slots": 1, "store": 4, "retrieve": 2})}
    for name, (T, change) in files.items():
        config, rng = {**usual, **change}, rng_of(name)
        if config["fading"] == "none":
            del config["tie"]
        if config.get("test") == "output":
            del config["predict_dim"]
        p = parameters(rng, config, D)
        emit(name, config["type"], config, rng.standard_normal((B, T, D)), p, token_by_token, numpy_second=all_at_once,
             only_chooses=("predict_proj.weight", "predicted", "taps"))


if __name__ == "__main__":
    main()
