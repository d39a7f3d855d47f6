"""Golden vectors of Titans: the neural long-term memory alone (LMM) and its uses MAG, MAL and MAC.

The recurrence, per head, on one token at a time (row vectors, so a memory matrix is [in, out] and reads as y = x W):

    k_t = l2norm(silu(conv4(x W_K)))   q_t likewise   v_t = silu(conv4(x W_V))
    theta_t = lr_max sigmoid(lr_proj x_t)   eta_t = sigmoid(momentum_proj x_t)   alpha_t = sigmoid(decay_proj x_t)
    loss l(M; k, v) = 1/2 |M(k) - v|^2
    S_t = eta_t S_{t-1} - theta_t grad l(M_anchor; k_t, v_t)       anchor: the state before the chunk's first token
    M_t = (1 - alpha_t) M_{t-1} + S_t                              y_t = M_t(q_t), or M_{t-1}(q_t) with read = before
    o_t = o_proj( RMSNorm_head(y_t) * silu(gate_proj x_t) )

Without momentum eta = 0; without decay alpha = 0. Memory networks: linear M(x) = x W; mlp of depth L,
M(x) = gelu(... gelu(x W_1) ...) W_L (+ x when memory_residual); ln_mlp M(x) = LayerNorm(mlp(x)) (1 + gamma) + x, eps 1e-6,
without bias, gamma an inner parameter like the matrices.

granularity = chunk: theta_i grad_i are summed over a chunk into one step taken after its last token, with eta and alpha
from the mean of x over the chunk; the anchor is then the current memory. y_t reads the memory after (t+1) // C chunks, or
t // C with read = before. An unfinished chunk leaves its sum (G, of -theta_i grad_i), and the sums of the gates' arguments.

grad_clamp m > 0: for every token and matrix, the gradient delta a^T is scaled by tanh(n/m) / (n/m),
n = sqrt(|delta|^2 |a|^2 + 1e-12), its norm (for gamma, n = sqrt(|grad|^2 + 1e-12)). Backpropagation inside the memory uses
the unscaled delta.

MAG  o = RMSNorm_a(attn(x)) * sigmoid(RMSNorm_b(LMM(x))), persistent pairs only in the attention.
MAL  o = attn(LMM(x)).
MAC  by segments of Cs tokens. hq_i = M(q_i), concatenated over heads, q_i from x as in the LMM and M the memory at the
     start of the segment; y_i = attn over [persistent | hq_0..hq_i | x_0..x_i] of the segment, hq_j at RoPE position j, x_j
     at Cs + j, in short segments too; o = RMSNorm_a(y) * sigmoid(RMSNorm_b(LMM(y))), the LMM running over the stream of y.
     Deviation from the card, which lets row i see all Cs memory rows and read M_s: hq_j is computed from token j, so
     rows after i would carry the future into row i; here row i sees hq_0..hq_i only, and the second read is the LMM's
     own M_i. So the layer is causal and may be cut anywhere. The window does not apply inside a segment.
"""
import math

import numpy as np
import torch

from attention import numpy_forward as numpy_attention
from attention import torch_forward as torch_attention
from golden_lib import (conv_tap, emit, gelu, gelu_slope, l2norm, rms_norm, rng_of, rotate, sigmoid, silu, t_conv, t_l2norm,
                        t_rms_norm, t_rope, t_silu)

EPS = 1e-6  # of the memory network's LayerNorm


def widths(c, d):
    if c["memory_net"] == "linear":
        return [d, d]
    return [d] + [c["memory_expand"] * d] * (c["memory_depth"] - 1) + [d]


def inner_names(c):
    depth = 1 if c["memory_net"] == "linear" else c["memory_depth"]
    return [str(l) for l in range(depth)] + (["norm"] if c["memory_net"] == "ln_mlp" else [])


# ---- NumPy: one memory of one head of one sequence ----
def net(W, c, x):
    """M(x) and what its gradient needs. W: dict of inner parameters, x [d]."""
    depth = len([n for n in W if n != "norm"])
    a, z = [x], []
    for l in range(depth):
        z.append(a[-1] @ W[str(l)])
        a.append(gelu(z[-1]) if l < depth - 1 else z[-1])
    out = z[-1]
    if c["memory_net"] == "ln_mlp":
        centred = out - out.mean()
        normed = centred / math.sqrt((centred ** 2).mean() + EPS)
        return normed * (1 + W["norm"]) + x, (a, z, normed, math.sqrt((centred ** 2).mean() + EPS))
    if c["memory_net"] == "mlp" and c["memory_residual"]:
        out = out + x
    return out, (a, z, None, None)


def net_gradient(W, c, k, v):
    """Gradient of 1/2 |M(k) - v|^2 in every inner parameter, clamped token by token when grad_clamp > 0."""
    out, (a, z, normed, deviation) = net(W, c, k)
    delta, grad = out - v, {}

    def clamped(g, n2):
        if c["grad_clamp"] == 0:
            return g
        r = math.sqrt(n2 + 1e-12) / c["grad_clamp"]
        return g * (math.tanh(r) / r)

    if c["memory_net"] == "ln_mlp":
        g = delta * normed
        grad["norm"] = clamped(g, (g ** 2).sum())
        dn = delta * (1 + W["norm"])
        delta = (dn - dn.mean() - normed * (dn * normed).mean()) / deviation
    for l in reversed(range(len(z))):
        grad[str(l)] = clamped(np.outer(a[l], delta), (a[l] ** 2).sum() * (delta ** 2).sum())
        if l > 0:
            delta = (W[str(l)] @ delta) * gelu_slope(z[l - 1])
    return grad


class HeadMemory:
    def __init__(self, W0, c):
        self.c, self.t = c, 0
        self.W = {n: w.copy() for n, w in W0.items()}
        self.S = {n: np.zeros_like(w) for n, w in W0.items()}
        self.A = {n: w.copy() for n, w in W0.items()}
        self.G = {n: np.zeros_like(w) for n, w in W0.items()}
        self.sums = np.zeros(2)  # of the momentum's and the decay's arguments, over an unfinished chunk

    def token(self, q, k, v, lr, momentum_arg, decay_arg):
        c, names = self.c, list(self.W)
        before = dict(self.W)
        grad = net_gradient(self.A, c, k, v)
        theta = c["lr_max"] * sigmoid(lr)
        if c["granularity"] == "token":
            eta = sigmoid(momentum_arg) if c["momentum"] else 0.0
            alpha = sigmoid(decay_arg) if c["decay"] else 0.0
            for n in names:
                self.S[n] = eta * self.S[n] - theta * grad[n]
                self.W[n] = (1 - alpha) * self.W[n] + self.S[n]
        else:
            for n in names:
                self.G[n] = self.G[n] - theta * grad[n]
            self.sums = self.sums + np.array([momentum_arg, decay_arg])
        self.t += 1
        if self.t % c["chunk"] == 0:
            if c["granularity"] == "chunk":
                eta = sigmoid(self.sums[0] / c["chunk"]) if c["momentum"] else 0.0
                alpha = sigmoid(self.sums[1] / c["chunk"]) if c["decay"] else 0.0
                for n in names:
                    self.S[n] = eta * self.S[n] + self.G[n]
                    self.W[n] = (1 - alpha) * self.W[n] + self.S[n]
                    self.G[n] = np.zeros_like(self.G[n])
                self.sums = np.zeros(2)
            self.A = dict(self.W)
        return net(before if c["read"] == "before" else self.W, c, q)[0]


class NumpyLmm:
    """The whole layer for one sequence, token by token. p: parameters named as in the file, with their prefix."""

    def __init__(self, p, c, prefix="memory."):
        self.p = {k[len(prefix):]: v for k, v in p.items() if k.startswith(prefix)}
        self.c, self.H = c, c["heads"]
        D = self.p["q_proj.weight"].shape[0]
        self.history = {n: np.zeros((4, D)) for n in "qkv"}
        self.heads = [HeadMemory({n: self.p[f"init.{n}.weight"][h] for n in inner_names(c)}, c) for h in range(self.H)]

    def stream(self, n, x, history):
        """Projection, convolution and silu (and l2norm for q and k) of one token: [H,d]."""
        history[:3] = history[1:].copy()
        history[3] = self.p[f"{n}_proj.weight"] @ x
        u = silu(conv_tap(self.p[f"{n}_conv.weight"], history)).reshape(self.H, -1)
        return u if n == "v" else l2norm(u)

    def token(self, x):
        p, c = self.p, self.c
        q, k, v = (self.stream(n, x, self.history[n]) for n in "qkv")

        def gate(n, on):
            return p[n + "_proj.weight"] @ x + p[n + "_proj.bias"] if on else np.zeros(self.H)

        args = gate("lr", True), gate("momentum", c["momentum"]), gate("decay", c["decay"])
        y = np.stack([self.heads[h].token(q[h], k[h], v[h], *(a[h] for a in args)) for h in range(self.H)])
        o = rms_norm(y, p["norm.weight"]).reshape(-1) * silu(p["gate_proj.weight"] @ x)
        return p["o_proj.weight"] @ o


def numpy_state(layers, c):
    """The state's named tensors, of the layers of a batch."""
    state = {}
    for n in inner_names(c):
        for kind in ("W", "S", "A") if c["granularity"] == "token" else ("W", "S", "G"):
            if kind == "S" and not c["momentum"]:
                continue
            state[f"memory.{kind}.{n}"] = np.stack([[getattr(m, kind)[n] for m in layer.heads] for layer in layers])
    if c["granularity"] == "chunk":
        for i, n in enumerate(("momentum", "decay")):
            if c[n]:
                state[f"memory.{n}_sum"] = np.stack([[m.sums[i] for m in layer.heads] for layer in layers])
    for n in "qkv":
        state[f"memory.{n}_conv"] = np.stack([layer.history[n][1:] for layer in layers])
    return state


def attention_of(p, c):
    """Parameters and configuration of the attention inside MAG and MAL."""
    return ({k[5:]: v for k, v in p.items() if k.startswith("attn.")},
            {"heads": c["heads"], "kv_heads": c["heads"], "head_dim": c["head_dim"], "window": c["window"], "sinks": 0,
             "rope_theta": c["rope_theta"]})


def numpy_lmm(x, p, c):
    layers = [NumpyLmm(p, c) for _ in x]
    return np.stack([[layer.token(token) for token in row] for layer, row in zip(layers, x)]), numpy_state(layers, c)


def numpy_gate(a, b, p):
    return rms_norm(a, p["mag_norm_a.weight"]) * sigmoid(rms_norm(b, p["mag_norm_b.weight"]))


def numpy_mag(x, p, c):
    m, state = numpy_lmm(x, p, c)
    y, kv = numpy_attention(x, *attention_of(p, c))
    return numpy_gate(y, m, p), {**state, **{"attn." + k: v for k, v in kv.items()}}


def numpy_mal(x, p, c):
    m, state = numpy_lmm(x, p, c)
    y, kv = numpy_attention(m, *attention_of(p, c))
    return y, {**state, **{"attn." + k: v for k, v in kv.items()}}


def numpy_mac(x, p, c):
    B, T, D = x.shape
    H, K, Cs = c["heads"], c["head_dim"], c["segment"]
    layers, x_history, out = [NumpyLmm(p, c) for _ in x], np.zeros((B, 4, D)), np.zeros_like(x)
    for b, layer in enumerate(layers):
        for start in range(0, T, Cs):
            memory = [dict(m.W) for m in layer.heads]  # M_{s-1}
            keys, values = [], []                      # of the segment's visible rows so far, [H,K] each
            for i in range(min(Cs, T - start)):
                token = x[b, start + i]
                q = layer.stream("q", token, x_history[b])
                hq = np.concatenate([net(memory[h], c, q[h])[0] for h in range(H)])
                for row, position in ((hq, i), (token, Cs + i)):
                    k = (p["attn.k_proj.weight"] @ row).reshape(H, K)
                    keys.append(np.stack([rotate(k[h], position, c["rope_theta"]) for h in range(H)]))
                    values.append((p["attn.v_proj.weight"] @ row).reshape(H, K))
                query, o = (p["attn.q_proj.weight"] @ token).reshape(H, K), np.zeros((H, K))
                for h in range(H):
                    turned = rotate(query[h], Cs + i, c["rope_theta"])
                    seen_k, seen_v = [k[h] for k in keys], [v[h] for v in values]
                    if c["persistent"]:
                        seen_k, seen_v = [*p["attn.prefix_k"][:, h], *seen_k], [*p["attn.prefix_v"][:, h], *seen_v]
                    scores = np.exp(np.array([turned @ k for k in seen_k]) / math.sqrt(K))
                    o[h] = sum(s * v for s, v in zip(scores / scores.sum(), seen_v))
                y = p["attn.o_proj.weight"] @ o.reshape(-1)
                out[b, start + i] = numpy_gate(y, layer.token(y), p)
    return out, {**numpy_state(layers, c), "memory.x_conv": x_history[:, 1:].copy()}


# ---- torch: batched over B and H, the inner gradient by autograd ----
def t_net(W, c, x):  # W: dict of [B,H,in,out], x [B,H,n,d]
    depth = len([n for n in W if n != "norm"])
    a = x
    for l in range(depth):
        a = a @ W[str(l)]
        if l < depth - 1:
            a = torch.nn.functional.gelu(a)
    if c["memory_net"] == "ln_mlp":
        return torch.nn.functional.layer_norm(a, a.shape[-1:], eps=EPS) * (1 + W["norm"][:, :, None]) + x
    return a + x if c["memory_net"] == "mlp" and c["memory_residual"] else a


class TorchLmm:
    """The layer for a batch. start() sets the stream's beginning; run(x) takes any number of tokens."""

    def __init__(self, p, c, B):
        self.p = {k[7:]: v for k, v in p.items() if k.startswith("memory.")}
        self.c, self.B, self.t = c, B, 0
        self.W = {n: self.p[f"init.{n}.weight"].expand(B, *self.p[f"init.{n}.weight"].shape) * 1.0 for n in inner_names(c)}
        self.S = {n: torch.zeros_like(w) for n, w in self.W.items()}
        self.G, self.A, self.args = [], self.W, []

    def queries(self, x, n="q"):
        u, tail = t_conv(x @ self.p[f"{n}_proj.weight"].T, self.p[f"{n}_conv.weight"])
        u = t_silu(u).unflatten(-1, (self.c["heads"], -1)).transpose(1, 2)  # [B,H,T,d]
        return (u if n == "v" else t_l2norm(u)), tail

    def gate(self, x, n):
        return (x @ self.p[n + "_proj.weight"].T + self.p[n + "_proj.bias"]).transpose(1, 2)  # [B,H,T]

    def step(self, q, k, v, theta, momentum_arg, decay_arg):  # q, k, v [B,H,d], gates [B,H]
        c = self.c
        names = list(self.A)
        anchor = {n: self.A[n] * 1.0 for n in names}  # an alias: in MAC k and v too depend on the memory, which is not meant
        error = t_net(anchor, c, k[:, :, None])[:, :, 0] - v
        grads = dict(zip(names, torch.autograd.grad(0.5 * error.square().sum(), [anchor[n] for n in names],
                                                    create_graph=True)))
        if c["grad_clamp"]:
            for n in names:
                norm = (grads[n].flatten(2).square().sum(-1) + 1e-12).sqrt() / c["grad_clamp"]
                grads[n] = grads[n] * (norm.tanh() / norm).reshape(*norm.shape, *[1] * (grads[n].ndim - 2))

        def scaled(s, w):
            return s.reshape(*s.shape, *[1] * (w.ndim - 2)) * w

        before, step = self.W, {n: scaled(-theta, grads[n]) for n in names}
        self.t += 1
        at_end = self.t % c["chunk"] == 0
        if c["granularity"] == "chunk":
            self.G.append(step)
            self.args.append((momentum_arg, decay_arg))
            if at_end:
                step = {n: sum(g[n] for g in self.G) for n in names}
                momentum_arg, decay_arg = (None if a[0] is None else sum(a) / c["chunk"] for a in zip(*self.args))
                self.G, self.args = [], []
        if at_end or c["granularity"] == "token":
            self.S = {n: (scaled(momentum_arg.sigmoid(), self.S[n]) if c["momentum"] else 0) + step[n] for n in names}
            self.W = {n: (scaled(1 - decay_arg.sigmoid(), self.W[n]) if c["decay"] else self.W[n]) + self.S[n]
                      for n in names}
        if at_end:
            self.A = self.W
        return t_net(before if c["read"] == "before" else self.W, c, q[:, :, None])[:, :, 0]

    def run(self, x, streams):
        """x [B,n,D] with its q, k, v [B,H,n,d]."""
        c, (q, k, v) = self.c, streams
        theta = c["lr_max"] * self.gate(x, "lr").sigmoid()
        eta = self.gate(x, "momentum") if c["momentum"] else None
        alpha = self.gate(x, "decay") if c["decay"] else None
        ys = [self.step(q[:, :, t], k[:, :, t], v[:, :, t], theta[:, :, t], None if eta is None else eta[:, :, t],
                        None if alpha is None else alpha[:, :, t]) for t in range(x.shape[1])]
        y = t_rms_norm(torch.stack(ys, 1), self.p["norm.weight"]).flatten(2)
        return (y * t_silu(x @ self.p["gate_proj.weight"].T)) @ self.p["o_proj.weight"].T

    def state(self, tails):
        c, state = self.c, {}
        for n in inner_names(c):
            state[f"memory.W.{n}"] = self.W[n]
            if c["momentum"]:
                state[f"memory.S.{n}"] = self.S[n]
            if c["granularity"] == "token":
                state[f"memory.A.{n}"] = self.A[n]
            else:
                state[f"memory.G.{n}"] = sum((g[n] for g in self.G), torch.zeros_like(self.W[n]))
        if c["granularity"] == "chunk":
            for i, n in enumerate(("momentum", "decay")):
                if c[n]:
                    state[f"memory.{n}_sum"] = sum((a[i] for a in self.args), torch.zeros(self.B, c["heads"]).double())
        return {**state, **{f"memory.{n}_conv": tail for n, tail in zip("qkv", tails)}}


def torch_lmm(x, p, c):
    lmm = TorchLmm(p, c, len(x))
    streams, tails = zip(*(lmm.queries(x, n) for n in "qkv"))
    return lmm.run(x, streams), lmm.state(tails)


def torch_gate(a, b, p):
    return t_rms_norm(a, p["mag_norm_a.weight"]) * t_rms_norm(b, p["mag_norm_b.weight"]).sigmoid()


def torch_mag(x, p, c):
    m, state = torch_lmm(x, p, c)
    y, kv = torch_attention(x, *attention_of(p, c))
    return torch_gate(y, m, p), {**state, **{"attn." + k: v for k, v in kv.items()}}


def torch_mal(x, p, c):
    m, state = torch_lmm(x, p, c)
    y, kv = torch_attention(m, *attention_of(p, c))
    return y, {**state, **{"attn." + k: v for k, v in kv.items()}}


def torch_mac(x, p, c):
    """By whole segments, with a mask over [persistent | hq | segment]; the streams of y are recomputed from its start."""
    B, T, _ = x.shape
    H, K, Cs = c["heads"], c["head_dim"], c["segment"]
    lmm, ys, outs = TorchLmm(p, c, B), [], []
    all_q, x_tail = lmm.queries(x)
    for start in range(0, T, Cs):
        rows = x[:, start:start + Cs]
        n = rows.shape[1]
        hq = t_net(lmm.W, c, all_q[:, :, start:start + n]).transpose(1, 2).flatten(2)
        both = torch.cat((hq, rows), 1)
        at = torch.cat((torch.arange(n), Cs + torch.arange(n)))
        q = t_rope((rows @ p["attn.q_proj.weight"].T).view(B, n, H, K), at[n:], c["rope_theta"])
        k = t_rope((both @ p["attn.k_proj.weight"].T).view(B, 2 * n, H, K), at, c["rope_theta"])
        v = (both @ p["attn.v_proj.weight"].T).view(B, 2 * n, H, K)
        seen = torch.ones(n, n, dtype=torch.bool).tril().repeat(1, 2)
        if c["persistent"]:
            k = torch.cat((p["attn.prefix_k"].expand(B, -1, -1, -1), k), 1)
            v = torch.cat((p["attn.prefix_v"].expand(B, -1, -1, -1), v), 1)
            seen = torch.cat((torch.ones(n, c["persistent"], dtype=torch.bool), seen), 1)
        scores = torch.einsum("bthk,bshk->bhts", q, k) / math.sqrt(K)
        o = torch.einsum("bhts,bshk->bthk", scores.masked_fill(~seen, -math.inf).softmax(-1), v)
        ys.append(o.reshape(B, n, -1) @ p["attn.o_proj.weight"].T)
        streams, tails = zip(*(lmm.queries(torch.cat(ys, 1), name) for name in "qkv"))
        outs.append(torch_gate(ys[-1], lmm.run(ys[-1], [s[:, :, start:] for s in streams]), p))
    return torch.cat(outs, 1), {**lmm.state(tails), "memory.x_conv": x_tail}


# ---- the files ----
def parameters(rng, c, D):
    H, d = c["heads"], D // c["heads"]
    p = {f"memory.{n}_proj.weight": rng.standard_normal((D, D)) / math.sqrt(D) for n in "qkv"}
    p.update({f"memory.{n}_conv.weight": rng.standard_normal((D, 4)) * 0.6 for n in "qkv"})
    for n, on in (("lr", True), ("momentum", c["momentum"]), ("decay", c["decay"])):
        if on:
            p[f"memory.{n}_proj.weight"] = rng.standard_normal((H, D)) * 0.3
            p[f"memory.{n}_proj.bias"] = rng.standard_normal(H) * 0.5 - (2 if n == "decay" else 0)
    w = widths(c, d)
    for l in range(len(w) - 1):
        p[f"memory.init.{l}.weight"] = rng.standard_normal((H, w[l], w[l + 1])) / math.sqrt(w[l]) * 0.7
    if c["memory_net"] == "ln_mlp":
        p["memory.init.norm.weight"] = rng.standard_normal((H, d)) * 0.2
    p["memory.norm.weight"] = 1 + 0.2 * rng.standard_normal(d)
    p["memory.gate_proj.weight"] = rng.standard_normal((D, D)) / math.sqrt(D)
    p["memory.o_proj.weight"] = rng.standard_normal((D, D)) / math.sqrt(D)
    if c["type"] != "titans_lmm":
        p.update({f"attn.{n}_proj.weight": rng.standard_normal((D, D)) / math.sqrt(D) for n in "qkvo"})
        if c["persistent"]:
            p["attn.prefix_k"] = rng.standard_normal((c["persistent"], H, d))
            p["attn.prefix_v"] = rng.standard_normal((c["persistent"], H, d))
    if c["type"] in ("titans_mag", "titans_mac"):
        p["mag_norm_a.weight"] = 1 + 0.2 * rng.standard_normal(D)
        p["mag_norm_b.weight"] = 1 + 0.2 * rng.standard_normal(D)
    return p


def linear(chunk, lr_max=0.3, **other):
    return dict(memory_net="linear", memory_depth=1, chunk=chunk, lr_max=lr_max, **other)


def mlp(depth, chunk, residual=True, **other):
    return dict(memory_net="mlp", memory_depth=depth, memory_residual=residual, chunk=chunk, **other)


def ln_mlp(depth, chunk, **other):
    return dict(memory_net="ln_mlp", memory_depth=depth, memory_residual=True, chunk=chunk, **other)


LMM = {
    "linear_c1": linear(1), "linear_c4": linear(4), "linear_c16": linear(16, lr_max=0.1),
    "linear_c4_no_momentum": linear(4, momentum=False), "linear_c4_no_decay": linear(4, decay=False),
    "linear_c4_plain": linear(4, momentum=False, decay=False), "linear_c4_before": linear(4, read="before"),
    "linear_c4_clamp": linear(4, grad_clamp=0.5),
    "linear_chunkwise": linear(4, granularity="chunk"),
    "linear_chunkwise_before": linear(4, granularity="chunk", read="before"),
    "mlp1_c4": mlp(1, 4), "mlp2_c1": mlp(2, 1), "mlp2_c4": mlp(2, 4), "mlp2_c16": mlp(2, 16),
    "mlp2_c4_no_residual": mlp(2, 4, residual=False), "mlp2_c4_before": mlp(2, 4, read="before"),
    "mlp2_c4_no_momentum": mlp(2, 4, momentum=False), "mlp2_c4_no_decay": mlp(2, 4, decay=False),
    "mlp2_c4_clamp": mlp(2, 4, grad_clamp=0.5), "mlp2_c4_expand4": mlp(2, 4, memory_expand=4),
    "mlp2_chunkwise": mlp(2, 4, granularity="chunk"),
    "mlp3_c4": mlp(3, 4), "mlp3_c4_no_residual": mlp(3, 4, residual=False),
    "ln_mlp2_c4": ln_mlp(2, 4), "ln_mlp2_c4_clamp": ln_mlp(2, 4, grad_clamp=0.5),
    "ln_mlp2_chunkwise": ln_mlp(2, 4, granularity="chunk"), "ln_mlp1_c16": ln_mlp(1, 16),
}
OTHERS = {
    "titans_mag_linear": ("titans_mag", linear(4, window=6, persistent=3), numpy_mag, torch_mag),
    "titans_mag_mlp2": ("titans_mag", mlp(2, 4, window=6, persistent=0), numpy_mag, torch_mag),
    "titans_mal_linear": ("titans_mal", linear(4, window=6, persistent=3), numpy_mal, torch_mal),
    "titans_mac_linear": ("titans_mac", linear(4, segment=8, persistent=3), numpy_mac, torch_mac),
    "titans_mac_linear_chunkwise": ("titans_mac", linear(4, segment=8, persistent=0, granularity="chunk"), numpy_mac,
                                    torch_mac),
    "titans_mac_mlp2": ("titans_mac", mlp(2, 4, segment=8, persistent=2), numpy_mac, torch_mac),
}


def config_of(kind, keys, D, H):
    """Every key of the mixer, defaults included, so that a reader needs no table of defaults."""
    config = {"type": kind, "heads": H, "head_dim": D // H, "memory_net": "linear", "memory_depth": 1, "memory_expand": 2,
              "memory_residual": False, "chunk": 4, "granularity": "token", "read": "after", "lr_max": 0.1, "momentum": True,
              "decay": True, "grad_clamp": 0.0}
    if kind in ("titans_mag", "titans_mal"):
        config.update(window=0, persistent=0, rope_theta=10000.0)
    if kind == "titans_mac":
        config.update(segment=8, persistent=0, rope_theta=10000.0)
    assert set(keys) <= set(config), keys
    config.update(keys)
    if config["memory_depth"] == 1:  # one matrix has no hidden width, and a linear memory no residual: the defaults stand there
        config["memory_expand"] = 4
    if config["memory_net"] == "linear":
        config["memory_residual"] = True
    return config


def main():
    B, T, H = 2, 21, 2  # small files, and with D = 6 a head_dim (3) that is no power of two
    cases = {"titans_lmm_" + name: ("titans_lmm", keys, numpy_lmm, torch_lmm) for name, keys in LMM.items()}
    for name, (kind, keys, numpy_forward, torch_forward) in {**cases, **OTHERS}.items():
        D = 12 if "_ln_" in name else 6 if "_mlp" in name and kind == "titans_lmm" else 8  # a norm over 3 entries is too steep
        rng, config = rng_of(name), config_of(kind, keys, D, H)
        x = rng.standard_normal((B, T, D))
        emit(name, kind, config, x, parameters(rng, config, D), numpy_forward, torch_forward)


if __name__ == "__main__":
    main()
