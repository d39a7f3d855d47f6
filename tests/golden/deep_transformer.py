"""Golden vectors of DeepTransformer, SWDT and Dot (Behrouz et al. 2025, arXiv 2505.23735): memories with exponential features.

    q_t, k_t = W_Q x_t, W_K x_t divided by their root mean squares     v_t = W_V x_t     theta_t = lr_max sigmoid(lr_proj x_t)
    M(z) = gelu(z W_0 + sum_i kappa(z, k_i) P_i) (W_1 + sum_i a_i^T Q_i);  linear: M(z) = sum_i kappa(z, k_i) P_i
    kappa(z, k) = exp(z . k / sqrt(d)), with normalize over its sum;  P_t, Q_t = -theta_t times the gradients of l at the anchor
    y_t = o_proj RMSNorm_head(M_t(q_t))
The NumPy half goes token by token over what was kept. The torch half, for a linear memory with inner-product loss, is attention: one
matrix of scores for the whole sequence, exponentials or a softmax. Otherwise it is that of all tokens at once, chunk by chunk, with W_1
as a matrix and the gradients of the hidden layer by autograd.
"""
import math

import numpy as np
import torch

from golden_lib import emit, gelu, gelu_slope, rms_norm, rng_of, sigmoid, t_rms_norm


def visible(i, last, t, c):
    return i <= last and (not c["memory_window"] or i > t - c["memory_window"])


def clamped(delta, n2, c):
    if not c["grad_clamp"]:
        return delta
    r = math.sqrt(n2 + 1e-12) / c["grad_clamp"]
    return delta * math.tanh(r) / r


def numpy_forward(x, p, c):
    B, T, D = x.shape
    H, d, deep, slots = c["heads"], c["head_dim"], c["memory_net"] == "mlp", slots_of(c, x.shape[1])
    hidden = c["memory_expand"] * d if deep else d
    y = np.zeros_like(x)
    width = d + hidden + (hidden + d if deep else 0)
    state = {"rows": np.zeros((B, slots, H, width))}
    for b in range(B):
        rows = [[] for _ in range(H)]
        for t in range(T):
            q, k, v = ((p[n + "_proj.weight"] @ x[b, t]).reshape(H, d) for n in "qkv")
            q, k = rms_norm(q, 1.0), rms_norm(k, 1.0)
            theta = c["lr_max"] * sigmoid(p["lr_proj.weight"] @ x[b, t] + p["lr_proj.bias"])
            o = np.zeros((H, d))
            for h in range(H):
                W0, W1 = (p["init.0.weight"][h], p["init.1.weight"][h]) if deep else (None, None)

                def first(z, seen):
                    w = np.array([np.exp(z @ r[0] / math.sqrt(d)) for r in seen])
                    if c["normalize"] and len(seen):
                        w = w / w.sum()
                    out = z @ W0 if deep else np.zeros(d, dtype=z.dtype)
                    return out + sum(a * r[1] for a, r in zip(w, seen))

                def second(a, seen):
                    return a @ W1 + sum((a @ r[2]) * r[3] for r in seen)

                seen = [r for i, r in enumerate(rows[h]) if visible(i, t - t % c["chunk"] - 1, t, c)]
                z = first(k[h], seen)
                if deep:
                    a = gelu(z)
                    d2 = -v[h] if c["type"] != "dot" else second(a, seen) - v[h]
                    d1 = (W1 @ d2 + sum((r[3] @ d2) * r[2] for r in seen)) * gelu_slope(z)
                    rows[h].append((k[h], -theta[h] * clamped(d1, d1 @ d1, c), a, -theta[h] * clamped(d2, (d2 @ d2) * (a @ a), c)))
                else:
                    d1 = -v[h] if c["type"] != "dot" else z - v[h]
                    rows[h].append((k[h], -theta[h] * clamped(d1, d1 @ d1, c)))
                seen = [r for i, r in enumerate(rows[h]) if visible(i, t, t, c)]
                o[h] = second(gelu(first(q[h], seen)), seen) if deep else first(q[h], seen)
                state["rows"][b, t % slots, h] = np.concatenate(rows[h][-1])
            y[b, t] = p["o_proj.weight"] @ rms_norm(o, p["norm.weight"]).reshape(-1)
    return y, state


def slots_of(c, T):
    return c["memory_window"] - 1 + c["chunk"] if c["memory_window"] else c["max_context"]


def kernel(score, mask, c):
    if c["normalize"]:
        return torch.where(mask, torch.where(mask, score, -torch.inf).nan_to_num(neginf=-1e30).softmax(-1), 0.0)
    return torch.where(mask, score.exp(), 0.0)


def torch_forward(x, p, c):
    B, T, D = x.shape
    H, d, C, deep = c["heads"], c["head_dim"], c["chunk"], c["memory_net"] == "mlp"
    q, k, v = ((x @ p[n + "_proj.weight"].T).unflatten(-1, (H, d)).transpose(1, 2) for n in "qkv")
    q, k = (u * (u.square().mean(-1, keepdim=True) + 1e-6).rsqrt() for u in (q, k))
    theta = c["lr_max"] * (x @ p["lr_proj.weight"].T + p["lr_proj.bias"]).sigmoid().transpose(1, 2)[..., None]
    t, i = torch.arange(T)[:, None], torch.arange(T)[None, :]
    near = (i > t - c["memory_window"]) if c["memory_window"] else torch.ones(T, T, dtype=torch.bool)
    reads = (i <= t) & near
    scores = q @ k.mT / math.sqrt(d)
    if not deep and c["type"] != "dot":
        rows = [k, theta * clamp_t(v, v.square().sum(-1, keepdim=True), c)]
        out = kernel(scores, reads, c) @ rows[1]
    else:
        P, a, Q = (torch.zeros(B, H, 0, n).double() for n in (v.shape[-1] if not deep else c["memory_expand"] * d, c["memory_expand"] * d, d))
        for begin in range(0, T, C):
            end = min(T, begin + C)
            now, past = slice(begin, end), slice(0, begin)
            mask = near[now, past]
            kappa = kernel(k[:, :, now] @ k[:, :, past].mT / math.sqrt(d), mask, c) if begin else torch.zeros(B, H, end - begin, 0).double()
            z = kappa @ P
            if not deep:
                delta = z - v[:, :, now]
                P = torch.cat((P, -theta[:, :, now] * clamp_t(delta, delta.square().sum(-1, keepdim=True), c)), 2)
                continue
            z = z + k[:, :, now] @ p["init.0.weight"]
            hidden = torch.nn.functional.gelu(z)
            W1 = p["init.1.weight"][None, :, None] + torch.einsum("ti,bhim,bhin->bhtmn", mask.double(), a, Q)  # each token's
            out = torch.einsum("bhtm,bhtmn->bhtn", hidden, W1)
            d2 = -v[:, :, now] if c["type"] != "dot" else out - v[:, :, now]
            d1 = torch.autograd.grad(hidden, z, torch.einsum("bhtn,bhtmn->bhtm", d2, W1), create_graph=True)[0]
            P = torch.cat((P, -theta[:, :, now] * clamp_t(d1, d1.square().sum(-1, keepdim=True), c)), 2)
            n2 = d2.square().sum(-1, keepdim=True) * hidden.square().sum(-1, keepdim=True)
            Q = torch.cat((Q, -theta[:, :, now] * clamp_t(d2, n2, c)), 2)
            a = torch.cat((a, hidden), 2)
        out = kernel(scores, reads, c) @ P
        rows = [k, P]
        if deep:
            hidden = torch.nn.functional.gelu(out + q @ p["init.0.weight"])
            out = hidden @ p["init.1.weight"] + torch.where(reads, hidden @ a.mT, 0.0) @ Q
            rows += [a, Q]
    y = t_rms_norm(out.transpose(1, 2), p["norm.weight"]).flatten(2) @ p["o_proj.weight"].T
    slots = slots_of(c, T)
    kept = torch.zeros(B, slots, H, sum(r.shape[-1] for r in rows)).double()
    for j in range(max(0, T - slots), T):
        kept[:, j % slots] = torch.cat(rows, -1)[:, :, j]
    return y, {"rows": kept}


def clamp_t(delta, n2, c):
    if not c["grad_clamp"]:
        return delta
    r = (n2 + 1e-12).sqrt() / c["grad_clamp"]
    return delta * r.tanh() / r


def main():
    B, T, D, H = 2, 21, 12, 2
    d = D // H
    for name, kind, keys in (
            ("deep_transformer", "deep_transformer", {}),
            ("deep_transformer_plain", "deep_transformer", {"normalize": False, "grad_clamp": 0.5}),
            ("deep_transformer_linear", "deep_transformer", {"memory_net": "linear", "normalize": False}),
            ("deep_transformer_softmax", "deep_transformer", {"memory_net": "linear"}),
            ("swdt", "swdt", {"memory_window": 5}),
            ("swdt_linear", "swdt", {"memory_window": 7, "memory_net": "linear"}),
            ("dot", "dot", {"grad_clamp": 0.5}),
            ("dot_linear", "dot", {"memory_net": "linear", "normalize": False, "chunk": 1})):
        c = {"type": kind, "heads": H, "head_dim": d, "memory_net": "mlp", "memory_expand": 2, "chunk": 4, "normalize": True, "lr_max": 0.3,
             "grad_clamp": 0}
        c.update({"memory_window": 0} if kind == "swdt" else {"max_context": 24})
        c.update(keys)
        if c["memory_net"] == "linear":
            c["memory_expand"] = 4  # the default: a linear memory has no hidden width
        rng = rng_of(name)
        p = {n + "_proj.weight": rng.standard_normal((D, D)) / math.sqrt(D) for n in "qkvo"}
        p.update({"lr_proj.weight": rng.standard_normal((H, D)) * 0.3, "lr_proj.bias": rng.standard_normal(H) * 0.3,
                  "norm.weight": 1 + 0.2 * rng.standard_normal(d)})
        if c["memory_net"] == "mlp":
            p["init.0.weight"] = rng.standard_normal((H, d, 2 * d)) / math.sqrt(d)
            p["init.1.weight"] = rng.standard_normal((H, 2 * d, d)) / math.sqrt(2 * d)
        emit(name, kind, c, rng.standard_normal((B, T, D)), p, lambda *a: numpy_forward(a[0], a[1], {"memory_window": 0, **a[2]}),
             lambda *a: torch_forward(a[0], a[1], {"memory_window": 0, **a[2]}))


if __name__ == "__main__":
    main()
