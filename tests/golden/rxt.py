"""Golden vectors of the Reactive Transformer (Filipek 2025, arXiv 2510.03561) in float64, from NumPy alone: one row, turn, head, slot and
place at a time, each turn at its own length with no padding.

A file holds the model's recipe as JSON (metadata `config`), in.<port>, out.<port> and the parameters. Same script, same bytes.
"""
import json
import math
import zlib
from pathlib import Path

import numpy as np

from golden_lib import write_safetensors

HERE = Path(__file__).resolve().parent
ROPE = 10000.0


class Rxt:
    def __init__(self, name, config):
        self.c, self.p = config, {}
        self.rng = np.random.default_rng(zlib.crc32(name.encode()))
        self.D = config["d_model"]
        self.decoder = config.get("blocks") or [config["block"]] * config["layers"]
        self.encoder = [config["encoder"]["block"]] * config["encoder"]["layers"]
        self.M = len(self.encoder)

    def param(self, name, *shape, base=0.0):
        if name not in self.p:
            std = 0.3 if len(shape) == 1 or base else 1 / math.sqrt(shape[-1])
            self.p[name] = base + std * self.rng.standard_normal(shape)
        return self.p[name]

    def linear(self, name, x, out):
        return np.array([self.param(f"{name}.weight", out, x.shape[-1]) @ row for row in x])

    def norm(self, name, x):
        w = self.param(f"{name}.weight", x.shape[-1], base=1.0)
        return np.array([w * row / math.sqrt((row @ row) / len(row) + 1e-6) for row in x])

    def turned(self, x, at):
        """One head's vector at a place."""
        half, y = len(x) // 2, x.copy()
        for i in range(half):
            a = at * ROPE ** (-2 * i / len(x))
            y[i], y[i + half] = x[i] * math.cos(a) - x[i + half] * math.sin(a), x[i + half] * math.cos(a) + x[i] * math.sin(a)
        return y

    def attention(self, name, x, y, heads, causal=False, turn_q=False, turn_k=False):
        """x asks y: x [T,D], y [N,D]."""
        H = heads.get("heads", 4)
        G, K = heads.get("kv_heads") or H, heads.get("head_dim") or self.D // H
        q, k, v = (self.linear(f"{name}.{n}_proj", z, h * K).reshape(len(z), h, K) for n, z, h in (("q", x, H), ("k", y, G), ("v", y, G)))
        out = np.zeros((len(x), H, K))
        for h in range(H):
            g = h // (H // G)
            for t in range(len(x)):
                a = self.turned(q[t, h], t) if turn_q else q[t, h]
                js = range(t + 1) if causal else range(len(y))
                s = np.array([a @ (self.turned(k[j, g], j) if turn_k else k[j, g]) / math.sqrt(K) for j in js])
                e = np.exp(s - s.max())
                out[t, h] = sum(w * v[j, g] for w, j in zip(e / e.sum(), js))
        return self.linear(f"{name}.o_proj", out.reshape(len(x), H * K), self.D)

    def channel(self, name, x, hidden):
        gate, up = self.linear(f"{name}.gate_proj", x, hidden), self.linear(f"{name}.up_proj", x, hidden)
        return self.linear(f"{name}.down_proj", gate / (1 + np.exp(-gate)) * up, self.D)

    # ---- what reads, what writes, what answers ----
    def read(self, tokens):
        """What each layer of the encoder leaves: M times [T,D]."""
        x, layers = self.param("embed_tokens.weight", self.c["vocab_size"], self.D)[tokens], []
        for i, b in enumerate(self.encoder):
            at = f"encoder.layers.{i}"
            h = self.norm(f"{at}.mixer_norm", x)
            x = x + self.attention(f"{at}.mixer", h, h, b["mixer"], turn_q=True, turn_k=True)
            x = x + self.channel(f"{at}.channel", self.norm(f"{at}.channel_norm", x), b["hidden"])
            layers.append(x)
        return layers

    def gate(self, name, old, new):
        kind, tanh = self.c["gate"], self.c.get("gate_act", "sigmoid") == "tanh"
        S = self.c["slots"]
        if kind == "none":
            return new + old
        mean = [(new[s] + old[s]).sum() / self.D for s in range(S)]
        if kind == "linear":
            z = self.param(f"{name}.weight", S, S) @ np.array(mean) + self.param(f"{name}.bias", S)
        else:
            p = self.param(f"{name}.weight", S, base=3.0 if tanh else 0.0)
            z = p * np.array(mean) if kind == "elementwise" else p
        y = np.zeros_like(old)
        for s in range(S):
            g = math.tanh(z[s]) if tanh else 1 / (1 + math.exp(-z[s]))
            y[s] = (1 + g) * new[s] + (1 - g) * old[s] if tanh else g * new[s] + (1 - g) * old[s]
        return y

    def write(self, memory, layers):
        heads, kind, after = self.c.get("memory", {}), self.c["write"], []
        for i in range(self.M):
            at, old = f"memory.layers.{i}", memory[i]
            asks = old
            if kind != "simple":
                own = other = self.norm(f"{at}.between_norm", old)
                if kind != "self":
                    n = self.c["group"] if kind == "grouped" else self.M
                    near = memory[i // n * n : i // n * n + n]
                    other = self.norm(f"{at}.mean_norm", sum(near) / len(near))
                if kind == "self_interlayer":
                    other = self.gate(f"{at}.in_gate", own, other)
                asks = self.gate(f"{at}.between_gate", old, self.attention(f"{at}.between", own, other, heads))
            said = self.attention(f"{at}.write", self.norm(f"{at}.slot_norm", asks), self.norm(f"{at}.read_norm", layers[i]), heads, turn_k=True)
            after.append(self.gate(f"{at}.gate", asks, said))
        return np.array(after)

    def answer(self, tokens, memory):
        """memory: what each of the M layers looks at."""
        x, k = self.param("embed_tokens.weight", self.c["vocab_size"], self.D)[tokens], 0
        for i, b in enumerate(self.decoder):
            at = f"layers.{i}"
            h = self.norm(f"{at}.mixer_norm", x)
            x = x + self.attention(f"{at}.mixer", h, h, b["mixer"], causal=True, turn_q=True, turn_k=True)
            if b.get("cross") != "none":
                seen = self.norm(f"{at}.memory_norm", memory[k])
                x = x + self.attention(f"{at}.cross", self.norm(f"{at}.cross_norm", x), seen, b.get("cross", {}), turn_q=True)
                k += 1
            x = x + self.channel(f"{at}.channel", self.norm(f"{at}.channel_norm", x), b["hidden"])
        return self.norm("norm", x)

    def hidden_words(self, layers):
        x = self.linear("masked.dense", layers[-1], self.D) + self.param("masked.dense.bias", self.D)
        x = 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))
        w, b = self.param("masked.norm.weight", self.D, base=1.0), self.param("masked.norm.bias", self.D)
        return np.array([(row - row.mean()) / math.sqrt(row.var() + 1e-6) * w + b for row in x])

    def pooled(self, x, L):
        """Shares of ceil(L / S) places, the mean of those that are there."""
        S, each, y = self.c["slots"], -(-L // self.c["slots"]), np.zeros((self.c["slots"], self.D))
        for s in range(S):
            rows = [x[t] for t in range(s * each, min((s + 1) * each, L)) if t < len(x)]
            if rows:
                y[s] = sum(rows) / len(rows)
        return y


def write(name, config, lengths):
    m = Rxt(name, config)
    L, D, S, V = config["turn"], config["d_model"], config["slots"], config["vocab_size"]
    B, N = lengths.shape
    tokens, masked = m.rng.integers(0, V, (B, N * L)), None
    masked = np.where(m.rng.random((B, N * L)) < 0.3, V - 1, tokens)
    masks = (np.arange(N * L)[None] % L < np.repeat(lengths, L, axis=1)).astype(float)
    first = m.param("initial_memory", m.M, S, D)
    out = {k: np.zeros((B, N * L, D)) for k in ("hidden", "joint_hidden", "masked_hidden")}
    kept = {k: np.zeros((B, N, m.M * S, D)) for k in ("before", "after", "read")}
    written = np.zeros((B, N))
    seen = np.zeros((B, N * L), dtype=bool)
    for b in range(B):
        memory, last = first, []
        for n in range(N):
            kept["before"][b, n] = memory.reshape(-1, D)
            if len(last):
                layers = m.read(last)
                memory = m.write(memory, layers)
                kept["read"][b, n] = np.concatenate([m.pooled(x, L) for x in layers])
                written[b, n] = 1
            kept["after"][b, n] = memory.reshape(-1, D)
            there = slice(n * L, n * L + lengths[b, n])
            last = tokens[b, there]
            if len(last):
                out["hidden"][b, there] = m.answer(last, memory)
                layers = m.read(masked[b, there])
                out["joint_hidden"][b, there] = m.answer(last, layers)
                out["masked_hidden"][b, there] = m.hidden_words(layers)
                seen[b, there] = True
    tensors = {"in.tokens": tokens.astype(float), "in.masked": masked.astype(float), "in.masks": masks, "in.there": seen.astype(float)}
    if not config.get("tie_embeddings", True):
        m.param("lm_head.weight", V, D)
    m.param("masked.head.weight", V, D)
    tensors |= {f"out.{k}": v for k, v in out.items()} | {f"out.memory_{k}": v for k, v in kept.items()} | {"out.memory_written": written}
    tensors |= m.p
    path = HERE / "rxt" / f"{name}.safetensors"
    path.parent.mkdir(exist_ok=True)
    write_safetensors(path, tensors, {"config": json.dumps(config)})
    print(path.name, path.stat().st_size)


def main():
    mixer, lengths = {"type": "attention", "heads": 2}, np.array([[4, 2, 0, 3], [3, 4, 4, 1]])
    encoder = {"block": {"mixer": {**mixer, "causal": False}, "hidden": 3}}
    block = {"mixer": mixer, "cross": {"heads": 2, "kv_heads": 1}, "hidden": 3}
    base = {"type": "rxt", "vocab_size": 5, "d_model": 4, "turn": 4, "truncate": 0}
    write("interlayer", {**base, "layers": 2, "block": block, "slots": 3, "write": "interlayer", "gate": "linear", "memory": {"heads": 2},
                         "encoder": {**encoder, "layers": 2}}, lengths)
    small, one = {"type": "attention", "heads": 1}, np.array([[3, 1, 2]])
    encoder = {"block": {"mixer": {**small, "causal": False}, "hidden": 2}}
    block = {"mixer": small, "cross": {"heads": 1}, "hidden": 2}
    base = {"type": "rxt", "vocab_size": 3, "d_model": 2, "turn": 3, "truncate": 0, "memory": {"heads": 1}, "layers": 2, "block": block,
            "encoder": {**encoder, "layers": 2}}
    write("self_interlayer", {**base, "slots": 2, "write": "self_interlayer", "gate": "elementwise", "gate_act": "tanh"}, one)
    base |= {"layers": 1, "encoder": {**encoder, "layers": 1}}
    write("self", {**base, "slots": 4, "write": "self", "gate": "static", "gate_act": "tanh"}, one)
    del base["layers"], base["block"]
    write("simple", {**base, "slots": 1, "write": "simple", "gate": "none", "tie_embeddings": False,
                     "blocks": [block, {**block, "cross": "none"}]}, one)


main()
