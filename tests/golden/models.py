"""Golden vectors of whole models: outputs of each kind in float64, from NumPy alone, one row, head and place at a time.

Every parameter is drawn where it is used and kept by the name under which a model has it. A file holds the model's recipe as JSON
(metadata `config`), in.<port>, out.<port> and the parameters. Same script, same bytes.
"""
import fnmatch
import json
import math
import zlib
from pathlib import Path

import numpy as np

import lizard
from golden_lib import legendre_step, write_safetensors

HERE = Path(__file__).resolve().parent


def write(name, tensors, config):
    path = HERE / "models" / f"{name}.safetensors"
    path.parent.mkdir(exist_ok=True)
    write_safetensors(path, tensors, {"config": json.dumps(config)})
    print(path.name, path.stat().st_size)


def erf(x):
    return np.vectorize(math.erf)(x)


ACTIVATIONS = {
    "gelu": lambda x: 0.5 * x * (1 + erf(x / math.sqrt(2))),
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "relu": lambda x: np.maximum(x, 0),
    "silu": lambda x: x / (1 + np.exp(-x)),
}


class Model:
    def __init__(self, name, config):
        self.name, self.c, self.p = name, config, {}
        self.rng = np.random.default_rng(zlib.crc32(name.encode()))

    def param(self, name, *shape, base=0.0):
        if name not in self.p:
            std = 0.3 if len(shape) == 1 or base else 1 / math.sqrt(shape[-1])
            self.p[name] = base + std * self.rng.standard_normal(shape)
        return self.p[name]

    def linear(self, name, x, out, bias):
        for rule in self.c.get("linear", []):
            if fnmatch.fnmatchcase(name, rule["match"]):
                y = self.policy(name, x, out, rule)
                return y + self.param(f"{name}.bias", out) if bias else y
        return self.dense(name, x, out, bias)

    def policy(self, name, x, out, c):
        n = x.shape[-1]
        if c["type"] == "dense":
            return self.dense(name, x, out, False)
        if c["type"] == "lora":
            a, b = self.param(f"{name}.lora_a.weight", c["rank"], n), self.param(f"{name}.lora_b.weight", out, c["rank"])
            return self.dense(name, x, out, False) + c["alpha"] / c["rank"] * (x @ a.T) @ b.T
        if c["type"] == "low_rank":
            return x @ self.param(f"{name}.a.weight", c["rank"], n).T @ self.param(f"{name}.b.weight", out, c["rank"]).T
        if c["type"] == "grouped":
            w = self.param(f"{name}.weight", c["groups"], out // c["groups"], n // c["groups"])
            parts = np.split(x, c["groups"], axis=-1)
            return np.concatenate([part @ w[i].T for i, part in enumerate(parts)], axis=-1)
        w = self.param(f"{name}.weight", out, n).copy()
        for row in w:
            for i in range(0, n, c["of"]):
                small = sorted(range(i, i + c["of"]), key=lambda j: -abs(row[j]))[c["keep"]:]
                row[small] = 0
        return x @ w.T

    def dense(self, name, x, out, bias):
        y = x @ self.param(f"{name}.weight", out, x.shape[-1]).T
        return y + self.param(f"{name}.bias", out) if bias else y

    def norm(self, name, x):
        w = self.param(f"{name}.weight", x.shape[-1], base=1.0)
        eps = self.c.get("norm_eps", 1e-6)
        if self.c.get("norm", "rms") == "rms":
            return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * w
        b = self.param(f"{name}.bias", x.shape[-1])
        centred = x - x.mean(-1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps) * w + b

    # ---- attention ----
    def heads(self, x, n):
        return x.reshape(x.shape[0], n, -1)

    def rotate(self, x, dim, theta):
        y = x.copy()
        half = dim // 2
        for t in range(x.shape[0]):
            for i in range(half):
                a = t * theta ** (-2 * i / dim)
                u, v = x[t, :, i], x[t, :, i + half]
                y[t, :, i] = u * math.cos(a) - v * math.sin(a)
                y[t, :, i + half] = v * math.cos(a) + u * math.sin(a)
        return y

    def bucket(self, d, buckets, most, both):
        """d = key - query, as in T5's relative_position_bucket."""
        offset = 0
        if both:
            buckets //= 2
            if d > 0:
                offset = buckets
            d = abs(d)
        else:
            d = max(-d, 0)
        exact = buckets // 2
        if d < exact:
            return offset + d
        far = exact + int(math.log(d / exact) / math.log(most / exact) * (buckets - exact))
        return offset + min(far, buckets - 1)

    def attend(self, q, k, v, see, bias):
        """q [T,H,K], k and v [S,G,K] -> [T,H*K]; see(t, j); bias(h, t, j)."""
        T, H, K = q.shape
        S, G, _ = k.shape
        y = np.zeros((T, H, K))
        for t in range(T):
            js = [j for j in range(S) if see(t, j)]
            for h in range(H):
                g = h // (H // G)
                s = np.array([q[t, h] @ k[j, g] / math.sqrt(K) + bias(h, t, j) for j in js])
                e = np.exp(s - s.max())
                y[t, h] = sum(w * v[j, g] for w, j in zip(e / e.sum(), js))
        return y.reshape(T, H * K)

    def self_attention(self, name, x, c, length):
        H, D = c.get("heads", 4), x.shape[-1]
        G, K, bias = c.get("kv_heads") or H, c.get("head_dim") or D // H, c.get("bias", False)
        q = self.heads(self.linear(f"{name}.q_proj", x, H * K, bias), H)
        k = self.heads(self.linear(f"{name}.k_proj", x, G * K, bias), G)
        v = self.heads(self.linear(f"{name}.v_proj", x, G * K, bias), G)
        if c.get("rope", True):
            dim, theta = c.get("rope_dim") or K, c.get("rope_theta", 10000)
            q, k = self.rotate(q, dim, theta), self.rotate(k, dim, theta)
        causal, window = c.get("causal", True), c.get("window", 0)
        see = (lambda t, j: j <= t and (not window or j > t - window)) if causal else (lambda t, j: j < length)
        offset = lambda h, t, j: 0.0
        if c.get("relative_bias"):
            table = self.param(f"{name}.relative_bias", c["relative_bias"], H)
            most = c.get("relative_distance", 128)
            offset = lambda h, t, j: table[self.bucket(j - t, c["relative_bias"], most, not causal), h]
        return self.linear(f"{name}.o_proj", self.attend(q, k, v, see, offset), D, bias)

    def cross_attention(self, name, x, m, c, length):
        H, D = c.get("heads", 4), x.shape[-1]
        G, K, bias = c.get("kv_heads") or H, c.get("head_dim") or D // H, c.get("bias", False)
        q = self.heads(self.linear(f"{name}.q_proj", x, H * K, bias), H)
        k = self.heads(self.linear(f"{name}.k_proj", m, G * K, bias), G)
        v = self.heads(self.linear(f"{name}.v_proj", m, G * K, bias), G)
        y = self.attend(q, k, v, lambda t, j: j < length, lambda h, t, j: 0.0)
        return self.linear(f"{name}.o_proj", y, D, bias)

    # ---- blocks ----
    def channel(self, name, x, block):
        kind, D = block.get("channel", "swiglu"), x.shape[-1]
        own = kind if isinstance(kind, dict) else {"type": kind}
        F = block["hidden"]
        if own["type"] == "mlp":
            h = ACTIVATIONS[own.get("activation", "gelu")](self.linear(f"{name}.up_proj", x, F, True))
            return self.linear(f"{name}.down_proj", h, D, True)
        act = ACTIVATIONS["silu" if own["type"] == "swiglu" else "gelu"]
        gate = act(self.linear(f"{name}.gate_proj", x, F, False))
        return self.linear(f"{name}.down_proj", gate * self.linear(f"{name}.up_proj", x, F, False), D, False)

    def block(self, name, x, block, length, source):
        where = block.get("norm_position", "pre")

        def branch(part, f, x):
            y = f(x if where == "post" else self.norm(f"{name}.{part}_norm", x))
            if where == "sandwich":
                y = self.norm(f"{name}.{part}_post_norm", y)
            return self.norm(f"{name}.{part}_norm", x + y) if where == "post" else x + y

        mixer = lambda h: self.self_attention(f"{name}.mixer", h, block["mixer"], length)
        channel = lambda h: self.channel(f"{name}.channel", h, block)
        if block.get("parallel"):
            assert where == "pre"
            h = self.norm(f"{name}.mixer_norm", x)
            return x + mixer(h) + channel(h)
        x = branch("mixer", mixer, x)
        if source is not None and block.get("cross") != "none":
            m, n = source
            x = branch("cross", lambda h: self.cross_attention(f"{name}.cross", h, m, block.get("cross", {}), n), x)
        return x if block.get("channel") == "none" else branch("channel", channel, x)

    def stack(self, prefix, x, c, length, source=None):
        blocks = c.get("blocks") or [c["block"]] * c["layers"]
        for i, block in enumerate(blocks):
            x = self.block(f"{prefix}layers.{i}", x, block, length, source)
        return x if blocks[-1].get("norm_position") == "post" else self.norm(f"{prefix}norm", x)

    # ---- ends ----
    def place(self, prefix, x, places=None):
        kind, D = self.c.get("positions", "none"), x.shape[-1]
        if kind == "learned":
            return x + self.param(f"{prefix}embed_positions.weight", self.c.get("max_positions", places), D)[: x.shape[0]]
        if kind == "sinusoidal":
            for t in range(x.shape[0]):
                for i in range(D // 2):
                    a = t / 10000 ** (2 * i / D)
                    x[t, 2 * i] += math.sin(a)
                    x[t, 2 * i + 1] += math.cos(a)
        return x

    def embed(self, prefix, tokens, vocab_size, at):
        D = self.c["d_model"]
        x = self.param(f"{prefix}embed_tokens.weight", vocab_size, D)[tokens]
        return self.place(at, x * math.sqrt(D) if self.c.get("scale_embeddings") else x.copy())

    def read(self, tokens, frames):
        if tokens is not None:
            return self.embed("", tokens, self.c["vocab_size"], "")
        return self.place("", self.linear("embed_frames", frames, self.c["d_model"], True))

    def head(self):
        if self.c.get("tie_embeddings", True):
            return self.p["embed_tokens.weight"]
        return self.param("lm_head.weight", self.c["vocab_size"], self.c["d_model"])

    def save(self, inputs, outputs, name=None):
        tensors = {f"in.{k}": np.asarray(v, dtype=np.float64) for k, v in inputs.items()}
        tensors.update({f"out.{k}": v for k, v in outputs.items()})
        tensors.update(self.p)
        for k, v in tensors.items():
            assert np.isfinite(v).all(), k
        write(name or self.name, tensors, self.c)


def decoder(name, config, T=9):
    m = Model(name, config)
    tokens = m.rng.integers(0, config["vocab_size"], (2, T))
    hidden = np.stack([m.stack("", m.read(row, None), config, T) for row in tokens])
    m.save({"tokens": tokens}, {"hidden": hidden, "head": m.head()})


def encoder(name, config, T=8):
    m = Model(name, config)
    length = np.array([T, T - 3])
    if "channels" in config:
        inputs = {"frames": m.rng.standard_normal((2, T, config["channels"]))}
    else:
        inputs = {"tokens": m.rng.integers(0, config["vocab_size"], (2, T))}
    rows = [m.read(inputs.get("tokens", [None, None])[b], inputs.get("frames", [None, None])[b]) for b in range(2)]
    hidden = np.stack([m.stack("", rows[b], config, length[b]) for b in range(2)])
    inputs["length"] = length
    if config["type"] == "encoder":
        m.save(inputs, {"hidden": hidden, **({} if "channels" in config else {"head": m.head()})})
        return
    how = config.get("pooling", "mean")
    pooled = {"mean": lambda h, n: h[:n].mean(0), "last": lambda h, n: h[n - 1], "first": lambda h, n: h[0],
              "none": lambda h, n: h}[how]
    p = np.stack([pooled(hidden[b], length[b]) for b in range(2)])
    logits = m.linear("classifier", p, config["num_classes"], True)
    m.save(inputs, {"logits": logits, "hidden": hidden, **({} if how == "none" else {"pooled": p})})


def encoder_decoder(name, config, T=5, S=7):
    m = Model(name, config)
    length, C, D = np.array([S - 2, S]), config.get("channels"), config["d_model"]
    tokens = m.rng.integers(0, config["vocab_size"], (2, T))
    own = config.get("source_vocab_size", 0)
    source = m.rng.standard_normal((2, S, C)) if C else m.rng.integers(0, own or config["vocab_size"], (2, S))
    hidden = []
    for b in range(2):
        if C:
            x = m.place("encoder.", m.linear("encoder.embed_frames", source[b], D, True))
        else:
            x = m.embed("encoder." if own else "", source[b], own or config["vocab_size"], "encoder.")
        memory = m.stack("encoder.", x, config["encoder"], length[b])
        hidden.append(m.stack("", m.read(tokens[b], None), config, T, (memory, length[b])))
    m.save({"tokens": tokens, "source": source, "source_length": length}, {"hidden": np.stack(hidden), "head": m.head()})


def vision(name, config):
    m = Model(name, config)
    H, W, C, p = config["height"], config["width"], config["channels"], config["patch"]
    images = m.rng.standard_normal((2, H, W, C))
    pooled = []
    for image in images:
        patches = [image[r : r + p, c : c + p].reshape(-1) for r in range(0, H, p) for c in range(0, W, p)]
        x = m.linear("embed_patches", np.array(patches), config["d_model"], True)
        if config["pooling"] == "class_token":
            x = np.concatenate([m.param("class_token", config["d_model"])[None], x])
        h = m.stack("", m.place("", x, x.shape[0]), config, x.shape[0])
        pooled.append(h[0] if config["pooling"] == "class_token" else h.mean(0))
    pooled = np.stack(pooled)
    m.save({"images": images}, {"logits": m.linear("classifier", pooled, config["num_classes"], True), "pooled": pooled})


def forecaster(name, config):
    m = Model(name, config)
    T, H, C, p = config["context"], config["horizon"], config["channels"], config["patch"]
    series = 3 + 2 * m.rng.standard_normal((2, T, C))
    forecast = np.zeros((2, H, C))
    for b in range(2):
        x = series[b].copy()
        mean, deviation = np.zeros(C), np.ones(C)
        if config.get("instance_norm", True):
            mean, deviation = x.mean(0), np.sqrt(x.var(0) + 1e-5)
        x = (x - mean) / deviation
        rows = [x[:, [c]] for c in range(C)] if config.get("independent", True) else [x]
        for c, row in enumerate(rows):
            z = m.linear("embed_patches", row.reshape(T // p, -1), config["d_model"], True)
            h = m.stack("", m.place("", z, T // p), config, T // p)
            h = h[-1] if config.get("head") == "last" else h.reshape(-1)
            y = m.linear("forecast", h, H * (C // len(rows)), True)
            if config.get("independent", True):
                forecast[b, :, c] = y
            else:
                forecast[b] = y.reshape(H, C)
        forecast[b] = forecast[b] * deviation + mean
    m.save({"series": series}, {"forecast": forecast})


def event_forecaster(name, config, T=9):
    m = Model(name, config)
    K, V, D = config["components"], config["vocab_size"], config["d_model"]
    tokens, gaps = m.rng.integers(0, V, (2, T)), np.exp(m.rng.standard_normal((2, T)))
    density, logits = [], []
    for b in range(2):
        x = m.read(tokens[b], None) + m.linear("embed_gaps", np.stack([np.log(gaps[b]), gaps[b]], 1), D, True)
        h = m.stack("", x, config, T)
        z = m.linear("gap", h, 3 * K, True)
        z[:, 2 * K:] = -3 + 4 / (1 + np.exp(-z[:, 2 * K:]))
        density.append(z)
        logits.append(m.linear("mark", h, V, True))
    m.save({"tokens": tokens, "gaps": gaps}, {"density": np.stack(density), "logits": np.stack(logits)})


def decision_transformer(name, config, T=6):
    m = Model(name, config)
    A, S, D = config["actions"], config["states"], config["d_model"]
    frames, said = m.rng.standard_normal((2, T, A + 1 + S)), []
    for f in frames:
        e = m.place("", np.zeros((T, D)), T)
        parts = [m.linear("embed_action", f[:, :A], D, True), m.linear("embed_return", f[:, A:A + 1], D, True),
                 m.linear("embed_state", f[:, A + 1:], D, True)]
        x = np.stack([part + e for part in parts], 1).reshape(3 * T, D)
        h = m.stack("", x, config, 3 * T)[2::3]
        said.append(np.tanh(m.linear("action", h, A, True)))
    m.save({"frames": frames}, {"forecast": np.stack(said)})


class Lmuformer(Model):
    def batch_norm(self, name, x):
        mean, variance = self.param(f"{name}.running_mean", x.shape[-1]), np.abs(self.param(f"{name}.running_var", x.shape[-1], base=1.0))
        self.p[f"{name}.running_var"] = variance
        return (x - mean) / np.sqrt(variance + 1e-5) * self.param(f"{name}.weight", x.shape[-1], base=1.0) + self.param(f"{name}.bias", x.shape[-1])

    def fire(self, name, x, threshold=1.0):
        """Neurons with tau 2 and a reset to nothing, behind a batch norm."""
        x, v, out = self.batch_norm(f"{name}.norm", x), np.zeros(x.shape[-1]), np.zeros_like(x)
        for t in range(x.shape[0]):
            v = v + (x[t] - v) / 2
            assert np.abs(v - threshold).min() > 1e-6, "too close to call"
            out[t] = v >= threshold
            v = np.where(v >= threshold, 0, v)
        return out

    def conv(self, name, x, out):
        w, y = self.param(f"{name}.weight", out, 3, x.shape[1]), np.zeros((x.shape[0], out))
        before = 1 if self.c.get("lookahead", True) else 2
        for t in range(x.shape[0]):
            for k in range(3):
                if 0 <= t - before + k < x.shape[0]:
                    y[t] += w[:, k] @ x[t - before + k]
        return y

    def embed(self, x):
        D, spiking = self.c["d_model"], self.c.get("spiking", False)
        if self.c.get("embedding") == "linear":
            x = self.dense("embedding.proj", x, D, False)
            return self.fire("embedding.neuron", x) if spiking else self.batch_norm("embedding.norm", np.maximum(x, 0))
        for k in range(1, 5):
            x = self.conv(f"embedding.conv{k}", x, D)
            if not spiking:
                x = self.batch_norm(f"embedding.after{k}", np.maximum(x, 0))
            elif k < 4:
                x = self.fire(f"embedding.after{k}", x)
        return x + self.conv("embedding.position", self.fire("embedding.after4", x) if spiking else x, D)

    def block(self, at, x):
        c, D, d = self.c, self.c["d_model"], self.c["order"]
        spiking = c.get("spiking", False)
        z = self.fire(f"{at}.reads", x, 0.5) if spiking else x
        u = self.dense(f"{at}.u_proj", z, 1, True)
        u = self.fire(f"{at}.writes", u) if spiking else np.maximum(u, 0)
        a, b = legendre_step(d, c["window"])
        m = np.zeros((x.shape[0], d))
        for t in range(x.shape[0]):
            m[t] = (a @ m[t - 1] if t else 0) + b * u[t, 0]
        if spiking:
            m = self.fire(f"{at}.remembers", m)
        h = self.dense(f"{at}.h_proj", np.concatenate([m, z], 1), D, True)
        h = self.fire(f"{at}.says", h) if spiking else np.maximum(h, 0)
        x = x + self.batch_norm(f"{at}.o_norm", self.dense(f"{at}.o_proj", h, D, True))
        if not c.get("mix", True):
            return x
        n = c.get("expand", 4) * D
        if spiking:
            h = self.fire(f"{at}.hidden", self.dense(f"{at}.up_proj", self.fire(f"{at}.mixes", x), n, True))
            return x + self.dense(f"{at}.down_proj", h, D, True)
        h = ACTIVATIONS["gelu"](self.batch_norm(f"{at}.up_norm", self.dense(f"{at}.up_proj", x, n, True)))
        return x + np.maximum(self.batch_norm(f"{at}.down_norm", self.dense(f"{at}.down_proj", h, D, True)), 0)


def lmuformer(name, config):
    """running_t is of the frames that are through: all up to t, or with a look-ahead of five convolutions up to t - 5."""
    m = Lmuformer(name, config)
    late = 5 if config.get("lookahead", True) and config.get("embedding") != "linear" else 0
    frames, length = m.rng.standard_normal((3, 14, config["channels"])), np.array([14, 3, 9])
    pooled, running = np.zeros((3, config["d_model"])), np.zeros((3, 14, config["d_model"]))
    for b in range(3):
        x = m.embed(frames[b, : length[b]])
        for i in range(config["layers"]):
            x = m.block(f"layers.{i}", x)
        if config.get("spiking"):
            x = m.fire("last", x)
        pooled[b] = x.mean(0)
        for t in range(late, 14 if length[b] == 14 else 0):
            running[b, t] = x[: t - late + 1].mean(0)
    m.save({"frames": frames, "length": length.astype(float)},
           {"logits": m.linear("classifier", pooled, config["num_classes"], True), "pooled": pooled})
    m.save({"frames": frames[:1]}, {"running": m.linear("classifier", running[0], config["num_classes"], True)[None]}, name + "_running")


class Base(Model):
    """A decoder whose parameters lie under base."""

    def __init__(self, outer, config):
        self.c, self.p, self.rng = config, outer.p, outer.rng

    def run(self, x):
        return self.stack("base.", self.place("base.", x.copy()), self.c, x.shape[0])


def hmt(name, config, T=14, zero_query=False):
    m = Model(name, config)
    c, D, V = config["base"], config["base"]["d_model"], config["base"]["vocab_size"]
    L, k, j, N = config["segment"], config["sensory"], config["summary_tokens"], config["cache"]
    base = Base(m, c)
    table = m.param("base.embed_tokens.weight", V, D)
    T_, first = m.param("summary_prompt", D), m.param("first_prompt", D)
    wq, wk = m.param("q_proj.weight", config["key_dim"], D), m.param("k_proj.weight", config["key_dim"], D)
    if zero_query:
        wq[:] = 0
    tokens = m.rng.integers(0, V, (2, T))
    hidden = np.zeros((2, T, D))
    for b in range(2):
        memory = []
        for start in range(0, T, L):
            now, before = tokens[b, start : start + L], tokens[b, max(start - L, 0) : start]
            prompt = first
            if memory:
                asked = now[:j] if config["query"] == "head" else before[-j:]
                s = base.run(np.stack([T_, *table[asked], T_]))[-1]
                rows = np.array(memory[-N:])
                e = np.exp([(wq @ s) @ (wk @ r) / math.sqrt(config["key_dim"]) for r in rows])
                prompt = rows.mean(0) if zero_query else (e / e.sum()) @ rows
            sensory = table[before[-k:]] if memory and k else []
            y = base.run(np.stack([prompt, *sensory, *table[now], prompt]))
            hidden[b, start : start + L] = y[1 + len(sensory) : 1 + len(sensory) + len(now)]
            memory.append(y[-1])
    m.save({"tokens": tokens}, {"hidden": hidden, "head": table})


class Matched(Base):
    """What each attention reads, and its heads before the output projection."""

    def stack(self, prefix, x, c, length, source=None):
        self.read_by, self.heads_of = {}, {}
        return super().stack(prefix, x, c, length, source)

    def linear(self, name, x, out, bias):
        if name.endswith(".q_proj"):
            self.read_by[int(name.split(".")[2])] = x
        if name.endswith(".o_proj"):
            self.heads_of[int(name.split(".")[2])] = x
        return super().linear(name, x, out, bias)


def matching(name, config, T=9):
    """Heads of Lizard are what its program says with the identity for W_o."""
    m = Model(name, config)
    c, D = config["base"], config["base"]["d_model"]
    base = Matched(m, c)
    table, tokens = m.param("base.embed_tokens.weight", c["vocab_size"], D), m.rng.integers(0, c["vocab_size"], (2, T))
    students = sorted((layer, s["mixer"]) for s in config["students"] for layer in s["layers"])
    hidden, error, size = np.zeros((2, T, D)), np.zeros((2, T, len(students))), np.zeros((2, T, len(students)))
    for b in range(2):
        hidden[b] = base.run(table[tokens[b]])
        for n, (layer, own) in enumerate(students):
            at, H, G, d = f"base.layers.{layer}.mixer", own["heads"], own["kv_heads"], own["head_dim"]
            p = {f"{k}_proj.weight": m.param(f"{at}.{k}_proj.weight", (H if k == "q" else G) * d, D) for k in "qkv"}
            p["feature_q"], p["feature_k"] = m.param(f"{at}.feature_q", H, own["features"], d), m.param(f"{at}.feature_k", G, own["features"], d)
            p["gate_proj.weight"], p["gate_proj.bias"] = m.param(f"{at}.gate_proj.weight", 1, D), m.param(f"{at}.gate_proj.bias", 1)
            p["meta_logits"], p["alpha"] = m.param(f"{at}.meta_logits", own["meta_tokens"]), m.param(f"{at}.alpha", 1)
            if config.get("of") == "output":
                p["o_proj.weight"] = m.param(f"{at}.o_proj.weight", D, H * d)
                y = base.heads_of[layer] @ p["o_proj.weight"].T
            else:
                p["o_proj.weight"], y = np.eye(H * d), base.heads_of[layer]
            z = lizard.token_by_token(base.read_by[layer][None], p, own)[0][0]
            error[b, :, n], size[b, :, n] = ((z - y) ** 2).mean(-1), (y**2).mean(-1)
    m.save({"tokens": tokens}, {"match_error": error, "match_size": size, "hidden": hidden, "head": table})


def seen(**more):
    return {"type": "attention", "heads": 2, "causal": False, **more}


def main():
    base = {"vocab_size": 11, "d_model": 8}
    decoder("decoder_post", {**base, "layers": 2, "norm": "layer", "positions": "learned", "max_positions": 12,
                             "scale_embeddings": True, "tie_embeddings": False,
                             "block": {"mixer": {"type": "attention", "heads": 2, "rope": False, "bias": True}, "hidden": 12,
                                       "norm_position": "post", "channel": {"type": "mlp", "activation": "relu"}}})
    decoder("decoder_sandwich", {**base, "layers": 1, "positions": "sinusoidal",
                                 "block": {"mixer": {"type": "attention", "heads": 2, "kv_heads": 1, "rope": False,
                                                     "relative_bias": 6, "relative_distance": 7},
                                           "hidden": 12, "norm_position": "sandwich", "channel": "geglu"}})
    decoder("decoder_parallel", {**base, "blocks": [
        {"mixer": {"type": "attention", "heads": 2, "rope_dim": 2}, "hidden": 12, "parallel": True},
        {"mixer": {"type": "attention", "heads": 2, "window": 4}, "channel": {"type": "mlp", "activation": "gelu_tanh"}, "hidden": 8},
        {"mixer": {"type": "attention", "heads": 2}, "channel": {"type": "mlp", "activation": "silu"}, "hidden": 8}]})
    decoder("decoder_policies", {**base, "layers": 1, "linear": [
        {"match": "layers.0.mixer.q_proj", "type": "lora", "rank": 2, "alpha": 3},
        {"match": "*.k_proj", "type": "low_rank", "rank": 3}, {"match": "*.v_proj", "type": "grouped", "groups": 4},
        {"match": "*.up_proj", "type": "dense"}, {"match": "layers.*.channel.*", "type": "masked", "keep": 1, "of": 4}],
        "block": {"mixer": {"type": "attention", "heads": 2, "bias": True}, "hidden": 12}})
    inner = {**base, "layers": 1, "block": {"mixer": {"type": "attention", "heads": 2}, "hidden": 12}}
    for how, more in {"prev_tail": {}, "head": {"query": "head", "base": {**inner, "positions": "sinusoidal"}},
                      "mean": {"sensory": 0, "cache": 9}}.items():
        hmt(f"hmt_{how}", {"type": "hmt", "segment": 4, "sensory": 2, "summary_tokens": 3, "cache": 2, "key_dim": 5, "query": "prev_tail",
                           "base": inner, **more}, zero_query=how == "mean")
    pair = {"mixer": {"type": "attention", "heads": 2, "kv_heads": 1}, "hidden": 12}
    own = {"type": "lizard", "heads": 2, "kv_heads": 1, "head_dim": 4, "features": 4, "window": 3, "meta_tokens": 2, "norm": "row",
           "feature_act": "exp", "feature_per_head": True, "alpha": "learned", "window_rope": False}
    matching("matching_heads", {"type": "matching", "base": {**base, "blocks": [pair, pair]}, "students": [{"layers": [0, 1], "mixer": own}]})
    matching("matching_output", {"type": "matching", "of": "output", "base": {**base, "blocks": [pair, {**pair, "norm_position": "post"}]},
                                 "students": [{"layers": [1], "mixer": {**own, "window_rope": True, "rope_theta": 10000}}]})
    encoder("encoder_tokens", {"type": "encoder", **base, "layers": 2, "positions": "sinusoidal",
                               "block": {"mixer": seen(relative_bias=8, relative_distance=6, rope=False), "hidden": 12}})
    encoder("encoder_frames", {"type": "encoder", "channels": 3, "d_model": 8, "layers": 1, "positions": "learned", "max_positions": 9,
                               "block": {"mixer": seen(), "hidden": 12}})
    for how in ["mean", "last", "first", "none"]:
        encoder(f"classifier_{how}", {"type": "classifier", "num_classes": 3, "pooling": how, **base, "layers": 1,
                                      "block": {"mixer": seen(kv_heads=1), "hidden": 12}})
    cross = {"mixer": {"type": "attention", "heads": 2}, "cross": {"heads": 2, "kv_heads": 1, "bias": True}, "hidden": 12}
    encoder_decoder("encoder_decoder_tokens", {"type": "encoder_decoder", **base, "layers": 2, "block": cross, "source_vocab_size": 9,
                                               "positions": "sinusoidal",
                                               "encoder": {"layers": 1, "block": {"mixer": seen(), "hidden": 12}}})
    encoder_decoder("encoder_decoder_shared", {"type": "encoder_decoder", **base, "scale_embeddings": True, "blocks": [
        {**cross, "norm_position": "post"}, {"mixer": {"type": "attention", "heads": 2}, "cross": "none", "hidden": 12}],
        "encoder": {"layers": 1, "block": {"mixer": seen(), "hidden": 12, "norm_position": "post"}}})
    encoder_decoder("encoder_decoder_frames", {"type": "encoder_decoder", **base, "layers": 1, "block": cross, "channels": 3,
                                               "encoder": {"layers": 1, "block": {"mixer": seen(), "hidden": 12}}})
    for how in ["class_token", "mean"]:
        vision(f"vision_{how}", {"type": "vision", "height": 6, "width": 4, "channels": 2, "patch": 2, "num_classes": 3, "pooling": how,
                                 "d_model": 8, "layers": 1, "positions": "learned", "block": {"mixer": seen(rope=False), "hidden": 12}})
    for independent in [True, False]:
        forecaster("forecaster_" + ("each" if independent else "all"),
                   {"type": "forecaster", "context": 12, "horizon": 5, "channels": 3, "patch": 4, "independent": independent,
                    "instance_norm": independent, "d_model": 8, "layers": 1, "positions": "learned",
                    "block": {"mixer": seen(rope=False), "hidden": 12}})
    forecaster("forecaster_last", {"type": "forecaster", "context": 8, "horizon": 3, "channels": 2, "patch": 2, "independent": False,
                                   "head": "last", "d_model": 8, "layers": 1, "positions": "sinusoidal",
                                   "block": {"mixer": {"type": "attention", "heads": 2}, "hidden": 12}})
    event_forecaster("event_forecaster", {"type": "event_forecaster", "vocab_size": 3, "components": 2, "d_model": 8, "layers": 1,
                                          "block": {"mixer": {"type": "attention", "heads": 2}, "hidden": 12}})
    decision_transformer("decision_transformer", {"type": "decision_transformer", "actions": 2, "states": 3, "d_model": 8, "layers": 1,
                                                  "positions": "sinusoidal",
                                                  "block": {"mixer": {"type": "attention", "heads": 2}, "hidden": 12}})
    for how, more in {"": {}, "_causal": {"lookahead": False, "layers": 2, "mix": False}, "_linear": {"embedding": "linear"},
                      "_spiking": {"spiking": True}, "_spiking_linear": {"spiking": True, "embedding": "linear"}}.items():
        lmuformer("lmuformer" + how, {"type": "lmuformer", "channels": 3, "num_classes": 4, "d_model": 6, "layers": 1, "order": 5, "window": 7.0,
                                      **({} if how == "_causal" else {"expand": 2}), **more})


main()
