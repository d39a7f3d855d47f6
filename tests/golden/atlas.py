"""Golden vectors of ATLAS and the memories of its family (Behrouz et al. 2025, arXiv 2505.23735), one token at a time.

    k_t = l2norm(silu(conv4(x W_K)))   q_t likewise   v_t = silu(conv4(x W_V))
    gamma_{t,j} = sigmoid(window_proj x_t)_j / min(c, t)     over the pairs that exist; the token's own pair last
    g_t = sum_{j < c} gamma_{t,j} grad l(M_anchor; k_{t-j}, v_{t-j})     l = 1/2 |M(k) - v|^2, or -M(k) . v (dla, swla)
    S_t = eta_t S_{t-1} - theta_t g_t
    M_t = (1 - alpha_t) M_{t-1} + S_t, or, with orthogonal steps, + step_t NS(S_t) at every ns_every-th token
    o_t = o_proj( RMSNorm_head(M_t(q_t)) * silu(gate_proj x_t) )
    phi(x) = [s_0, s_1 x, s_2 x_i^2, s_2 sqrt(2) x_i x_j (i < j)], divided by sqrt(|phi|^2 + 1e-6) with features_normed; s_i is
    features.scale_i sqrt(1 / i!)
    M(x) = phi(x) W;  x + gelu(phi(x) W_0) W_1;  x + (gelu(phi(x) W_gate) * phi(x) W_up) W_down
A pair's gradient of a matrix, of norm n, becomes m tanh(n/m) long with grad_clamp m > 0. NumPy takes the inner gradient by hand and
works out phi pair by pair, torch by autograd and by the outer product of x with itself.
"""
import math

import numpy as np
import torch

from golden_lib import (conv_tap, emit, gelu, gelu_slope, l2norm, rms_norm, rng_of, sigmoid, silu, t_conv, t_l2norm, t_rms_norm, t_silu)
from titans import attention_of, numpy_attention, numpy_gate, torch_attention, torch_gate

NAMES = {"linear": ["0"], "mlp": ["0", "1"], "gated": ["gate", "up", "down"]}
NS = (3.4445, -4.7750, 2.0315)


def dot_loss(c):
    return c["type"] in ("dla", "swla")


def orthogonal(c):
    return c["type"].startswith("atlas")


def has_momentum(c):
    return orthogonal(c) or c.get("momentum", False)


def window(c):
    return c.get("memory_window", 1)


def width(c, d):
    return 1 + d + d * (d + 1) // 2 if c["features"] == "poly2" else d


# ---- NumPy ----
def phi(x, scale, c):
    if c["features"] == "plain":
        return x
    s, out = scale / np.sqrt([1, 1, 2]), []
    out.append(s[0])
    out.extend(s[1] * x)
    for i in range(len(x)):
        for j in range(i, len(x)):
            out.append(s[2] * x[i] * x[j] * (1 if i == j else math.sqrt(2)))
    out = np.array(out)
    return out / math.sqrt((out * out).sum() + 1e-6) if c["features_normed"] else out


def net(W, c, x, scale):
    """M(x) and what its gradient needs."""
    f = phi(x, scale, c)
    if c["memory_net"] == "linear":
        return f @ W["0"], (f,)
    rest = x if c["memory_residual"] else 0
    if c["memory_net"] == "mlp":
        z = f @ W["0"]
        return gelu(z) @ W["1"] + rest, (f, z)
    z, up = f @ W["gate"], f @ W["up"]
    return (gelu(z) * up) @ W["down"] + rest, (f, z, up)


def gradient(W, c, k, v, scale):
    y, saved = net(W, c, k, scale)
    delta = -v if dot_loss(c) else y - v
    if c["memory_net"] == "linear":
        pairs = {"0": (saved[0], delta)}
    elif c["memory_net"] == "mlp":
        f, z = saved
        pairs = {"1": (gelu(z), delta), "0": (f, (W["1"] @ delta) * gelu_slope(z))}
    else:
        f, z, up = saved
        hidden = W["down"] @ delta
        pairs = {"down": (gelu(z) * up, delta), "up": (f, hidden * gelu(z)), "gate": (f, hidden * up * gelu_slope(z))}
    out = {}
    for n, (a, b) in pairs.items():
        out[n] = np.outer(a, b)
        if c["grad_clamp"]:
            r = math.sqrt((out[n] ** 2).sum() + 1e-12) / c["grad_clamp"]
            out[n] = out[n] * math.tanh(r) / r
    return out


def newton_schulz(S, steps):
    X = S / (math.sqrt((S * S).sum()) + 1e-7)
    flip = X.shape[0] > X.shape[1]
    X = X.T if flip else X
    for _ in range(steps):
        A = X @ X.T
        X = NS[0] * X + (NS[1] * A + NS[2] * A @ A) @ X
    return X.T if flip else X


class Layer:
    def __init__(self, p, c):
        self.p = {k[7:]: v for k, v in p.items() if k.startswith("memory.")}
        self.c, self.H, self.t = c, c["heads"], 0
        D = self.p["q_proj.weight"].shape[0]
        self.history = {n: np.zeros((4, D)) for n in "qkv"}
        self.W = [{n: self.p[f"init.{n}.weight"][h].copy() for n in NAMES[c["memory_net"]]} for h in range(self.H)]
        self.A = [dict(w) for w in self.W]
        self.S = [{n: np.zeros_like(m) for n, m in w.items()} for w in self.W]
        past = window(c) - 1
        self.past_k, self.past_v = np.zeros((past, self.H, D // self.H)), np.zeros((past, self.H, D // self.H))

    def stream(self, n, x):
        history = self.history[n]
        history[:3] = history[1:].copy()
        history[3] = self.p[f"{n}_proj.weight"] @ x
        u = silu(conv_tap(self.p[f"{n}_conv.weight"], history)).reshape(self.H, -1)
        return u if n == "v" else l2norm(u)

    def token(self, x):
        p, c, w = self.p, self.c, window(self.c)
        q, k, v = (self.stream(n, x) for n in "qkv")
        gate = {n: p[n + "_proj.weight"] @ x + p[n + "_proj.bias"] for n in ("lr", "momentum", "decay", "step", "window")
                if n + "_proj.weight" in p}
        keys, values = np.concatenate([self.past_k, k[None]]), np.concatenate([self.past_v, v[None]])
        exist = min(w, self.t + 1)
        self.t += 1
        y = np.zeros_like(q)
        for h in range(self.H):
            scale = p["features.scale"][h] if c["features"] == "poly2" else None
            total = {n: np.zeros_like(m) for n, m in self.W[h].items()}
            for u in range(w - exist, w):
                weight = 1.0 if w == 1 else 1 / exist
                if w > 1 and c["window_gate"]:
                    weight *= sigmoid(gate["window"].reshape(self.H, w)[h, u])
                for n, grad in gradient(self.A[h], c, keys[u, h], values[u, h], scale).items():
                    total[n] = total[n] + weight * grad
            theta = c["lr_max"] * sigmoid(gate["lr"][h])
            eta = sigmoid(gate["momentum"][h]) if has_momentum(c) else 0.0
            alpha = sigmoid(gate["decay"][h]) if c["decay"] else 0.0
            for n in self.W[h]:
                self.S[h][n] = eta * self.S[h][n] - theta * total[n]
                self.W[h][n] = (1 - alpha) * self.W[h][n]
                if not orthogonal(c):
                    self.W[h][n] = self.W[h][n] + self.S[h][n]
                elif self.t % (c["ns_every"] or c["chunk"]) == 0:
                    move = newton_schulz(self.S[h][n], c["ns_steps"]) if c["ns_steps"] else self.S[h][n]
                    self.W[h][n] = self.W[h][n] + c["step_max"] * sigmoid(gate["step"][h]) * move
            if self.t % c["chunk"] == 0:
                self.A[h] = dict(self.W[h])
            y[h] = net(self.W[h], c, q[h], scale)[0]
        self.past_k, self.past_v = keys[1:], values[1:]
        return p["o_proj.weight"] @ (rms_norm(y, p["norm.weight"]).reshape(-1) * silu(p["gate_proj.weight"] @ x))


def numpy_lmm(x, p, c):
    layers = [Layer(p, c) for _ in x]
    y = np.stack([[layer.token(token) for token in row] for layer, row in zip(layers, x)])
    state = {}
    for n in NAMES[c["memory_net"]]:
        for kind in "WSA" if has_momentum(c) else "WA":
            state[f"memory.{kind}.{n}"] = np.stack([[m[n] for m in getattr(layer, kind)] for layer in layers])
    if window(c) > 1:
        state["memory.past_k"] = np.stack([layer.past_k for layer in layers])
        state["memory.past_v"] = np.stack([layer.past_v for layer in layers])
    for n in "qkv":
        state[f"memory.{n}_conv"] = np.stack([layer.history[n][1:] for layer in layers])
    return y, state


def numpy_mag(x, p, c):
    m, state = numpy_lmm(x, p, c)
    y, kv = numpy_attention(x, *attention_of(p, c))
    return numpy_gate(y, m, p), {**state, **{"attn." + k: v for k, v in kv.items()}}


# ---- torch: batched over B and H ----
def t_phi(x, p, c):  # x [B,H,n,d]
    if c["features"] == "plain":
        return x
    s = (p["features.scale"] / torch.tensor([1.0, 1.0, 2.0]).double().sqrt())[None, :, None]
    i, j = torch.triu_indices(x.shape[-1], x.shape[-1])
    twice = (1 + (i != j).double()).sqrt()
    squares = (x[..., :, None] * x[..., None, :])[..., i, j] * twice
    f = torch.cat((s[..., 0:1].expand(*x.shape[:-1], 1), s[..., 1:2] * x, s[..., 2:3] * squares), -1)
    return f * (f.square().sum(-1, keepdim=True) + 1e-6).rsqrt() if c["features_normed"] else f


def t_net(W, c, x, p):
    f, act = t_phi(x, p, c), torch.nn.functional.gelu
    if c["memory_net"] == "linear":
        return f @ W["0"]
    y = act(f @ W["0"]) @ W["1"] if c["memory_net"] == "mlp" else (act(f @ W["gate"]) * (f @ W["up"])) @ W["down"]
    return y + x if c["memory_residual"] else y


def t_newton_schulz(S, steps):
    X = S / (torch.linalg.matrix_norm(S, keepdim=True) + 1e-7)
    flip = X.shape[-2] > X.shape[-1]
    X = X.mT if flip else X
    for _ in range(steps):
        A = X @ X.mT
        X = NS[0] * X + NS[1] * A @ X + NS[2] * A @ (A @ X)
    return X.mT if flip else X


def torch_lmm(x, params, c):
    p = {k[7:]: v for k, v in params.items() if k.startswith("memory.")}
    B, T, D = x.shape
    H, w, names = c["heads"], window(c), NAMES[c["memory_net"]]
    streams, tails = {}, {}
    for n in "qkv":
        u, tails[n] = t_conv(x @ p[f"{n}_proj.weight"].T, p[f"{n}_conv.weight"])
        u = t_silu(u).unflatten(-1, (H, -1))
        streams[n] = u if n == "v" else t_l2norm(u)
    gate = {n: x @ p[n + "_proj.weight"].T + p[n + "_proj.bias"] for n in ("lr", "momentum", "decay", "step", "window")
            if n + "_proj.weight" in p}
    W = {n: p[f"init.{n}.weight"].expand(B, *p[f"init.{n}.weight"].shape) * 1.0 for n in names}
    S, A, ys = {n: torch.zeros_like(m) for n, m in W.items()}, W, []
    past = {n: torch.nn.functional.pad(streams[n], (0, 0, 0, 0, w - 1, 0)) for n in "kv"}  # [B,w-1+T,H,d]
    for t in range(T):
        step = {n: 0 for n in names}
        exist = min(w, t + 1)
        for u in range(w - exist, w):  # the pair at past[t + u]
            anchor = {n: A[n] * 1.0 for n in names}
            k, v = (past[n][:, t + u, :, None] for n in "kv")
            y = t_net(anchor, c, k, p)
            loss = -(y * v).sum() if dot_loss(c) else (y - v).square().sum() / 2
            grads = torch.autograd.grad(loss, [anchor[n] for n in names], create_graph=True)
            weight = torch.full((B, H), 1.0 if w == 1 else 1 / exist).double()
            if w > 1:
                weight = torch.ones(B, H).double() / exist
                if c["window_gate"]:
                    weight = weight * gate["window"][:, t].unflatten(-1, (H, w))[..., u].sigmoid()
            for n, g in zip(names, grads):
                if c["grad_clamp"]:
                    r = (g.square().sum((-2, -1), keepdim=True) + 1e-12).sqrt() / c["grad_clamp"]
                    g = g * r.tanh() / r
                step[n] = step[n] + weight[..., None, None] * g

        def of(n):
            return gate[n][:, t, :, None, None].sigmoid()

        S = {n: (of("momentum") * S[n] if has_momentum(c) else 0) - c["lr_max"] * of("lr") * step[n] for n in names}
        W = {n: (1 - of("decay")) * W[n] if c["decay"] else W[n] for n in names}
        if not orthogonal(c):
            W = {n: W[n] + S[n] for n in names}
        elif (t + 1) % (c["ns_every"] or c["chunk"]) == 0:
            W = {n: W[n] + c["step_max"] * of("step") * (t_newton_schulz(S[n], c["ns_steps"]) if c["ns_steps"] else S[n]) for n in names}
        if (t + 1) % c["chunk"] == 0:
            A = W
        ys.append(t_net(W, c, streams["q"][:, t, :, None], p)[:, :, 0])
    y = t_rms_norm(torch.stack(ys, 1), p["norm.weight"]).flatten(2)
    state = {f"memory.{kind}.{n}": m[n] for kind, m in (("W", W), ("S", S), ("A", A)) if kind != "S" or has_momentum(c) for n in names}
    if w > 1:
        state.update({f"memory.past_{n}": past[n][:, T:] for n in "kv"})
    state.update({f"memory.{n}_conv": tails[n] for n in "qkv"})
    return (y * t_silu(x @ p["gate_proj.weight"].T)) @ p["o_proj.weight"].T, state


def torch_mag(x, p, c):
    m, state = torch_lmm(x, p, c)
    y, kv = torch_attention(x, *attention_of(p, c))
    return torch_gate(y, m, p), {**state, **{"attn." + k: v for k, v in kv.items()}}


# ---- the examples ----
def parameters(rng, c, D):
    H, d, e = c["heads"], c["head_dim"], c["memory_expand"]
    p = {f"memory.{n}_proj.weight": rng.standard_normal((D, D)) / math.sqrt(D) for n in ("q", "k", "v", "gate", "o")}
    p.update({f"memory.{n}_conv.weight": rng.standard_normal((D, 4)) * 0.4 for n in "qkv"})
    gates = {"lr": (H, 0.0), "decay": (H, -2.0)}
    if has_momentum(c):
        gates["momentum"] = (H, 0.0)
    if orthogonal(c):
        gates["step"] = (H, 0.0)
    if window(c) > 1 and c["window_gate"]:
        gates["window"] = (H * window(c), 0.5)
    for n, (rows, bias) in gates.items():
        p[f"memory.{n}_proj.weight"] = rng.standard_normal((rows, D)) * 0.3
        p[f"memory.{n}_proj.bias"] = bias + 0.3 * rng.standard_normal(rows)
    if c["features"] == "poly2":
        p["memory.features.scale"] = 1 + 0.2 * rng.standard_normal((H, 3))
    first, hidden = width(c, d), e * d
    shapes = {"linear": [(first, d)], "mlp": [(first, hidden), (hidden, d)], "gated": [(first, hidden), (first, hidden), (hidden, d)]}
    for n, shape in zip(NAMES[c["memory_net"]], shapes[c["memory_net"]]):
        p[f"memory.init.{n}.weight"] = rng.standard_normal((H, *shape)) / math.sqrt(shape[0])
    p["memory.norm.weight"] = 1 + 0.2 * rng.standard_normal(d)
    if c["type"] == "atlas_mag":
        p.update({f"attn.{n}_proj.weight": rng.standard_normal((D, D)) / math.sqrt(D) for n in "qkvo"})
        p.update({f"mag_norm_{n}.weight": 1 + 0.2 * rng.standard_normal(D) for n in "ab"})
    return p


def config(kind, **keys):
    c = {"type": kind, "heads": 2, "head_dim": 4, "memory_net": "mlp", "memory_expand": 2, "memory_residual": True, "features": "poly2",
         "features_normed": True, "chunk": 4, "lr_max": 0.3, "decay": True, "grad_clamp": 0, "conv": 4, "output_gate": True}
    if kind != "dla":
        c.update({"memory_window": 3, "window_gate": True})
    if kind == "omeganet":
        c["momentum"] = False
    if orthogonal(c):
        c.update({"ns_steps": 5, "ns_every": 0, "step_max": 0.2})
    if kind == "atlas_mag":
        c.update({"window": 6, "persistent": 0, "rope_theta": 10000.0, "max_context": 4096})
    c.update(keys)
    if c["memory_net"] == "linear":
        c["memory_expand"] = 4  # the default: a linear memory has no hidden width
    return c


def main():
    B, T, D = 2, 21, 8
    for name, c in {
        "dla": config("dla", features="plain"),
        "dla_linear": config("dla", memory_net="linear", features="plain", chunk=1),
        "swla": config("swla", memory_net="linear", grad_clamp=0.5),
        "omeganet": config("omeganet", memory_window=6, grad_clamp=0.5),
        "omeganet_momentum": config("omeganet", momentum=True, memory_net="gated", features_normed=False, lr_max=0.1),
        "omeganet_ungated": config("omeganet", memory_net="linear", window_gate=False, memory_window=9),
        "atlas": config("atlas"),
        "atlas_gated": config("atlas", memory_net="gated", ns_every=2, memory_residual=False),
        "atlas_each": config("atlas", memory_net="linear", chunk=1, ns_steps=3),
        "atlas_mag": config("atlas_mag", memory_net="linear", memory_window=2),
    }.items():
        rng = rng_of("atlas " + name)
        mag = c["type"] == "atlas_mag"
        emit(name, c["type"], c, rng.standard_normal((B, T, D)), parameters(rng, c, D), numpy_mag if mag else numpy_lmm,
             torch_mag if mag else torch_lmm)


if __name__ == "__main__":
    main()
