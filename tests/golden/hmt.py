"""Gradients of the Hierarchical Memory Transformer through all segments at once, in float64, by torch's autograd over the whole graph:
nothing is recomputed and nothing is a loop. Models and tokens are those of models/hmt_*.safetensors, whose outputs come from NumPy.

The loss is sum(w * hidden), w[i] = cos(i + 1) over the flattened hidden states. A file holds grad.<parameter>.
"""
import json
import math
import struct
from pathlib import Path

import numpy as np
import torch

from golden_lib import write_safetensors

HERE = Path(__file__).resolve().parent
torch.set_default_dtype(torch.float64)


def read(name):
    data = (HERE / "models" / f"{name}.safetensors").read_bytes()
    (n,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + n])
    config = json.loads(header.pop("__metadata__")["config"])
    at = lambda t: np.frombuffer(data[8 + n + t["data_offsets"][0] : 8 + n + t["data_offsets"][1]], "<f8").reshape(t["shape"])
    return config, {k: at(t).copy() for k, t in header.items()}


def write(name, tensors):
    path = HERE / "hmt" / f"{name}.safetensors"
    path.parent.mkdir(exist_ok=True)
    write_safetensors(path, tensors)
    print(path.name, path.stat().st_size)


def norm(x, w):
    return x * torch.rsqrt((x**2).mean(-1, keepdim=True) + 1e-6) * w


def rotated(x):  # [B,H,T,K]
    T, K = x.shape[-2:]
    angle = torch.arange(T)[:, None] * 10000.0 ** (-2 * torch.arange(K // 2) / K)
    u, v = x[..., : K // 2], x[..., K // 2 :]
    return torch.cat([u * angle.cos() - v * angle.sin(), v * angle.cos() + u * angle.sin()], -1)


def base(p, c, x):  # [B,T,D] -> [B,T,D]
    B, T, D = x.shape
    if c.get("positions") == "sinusoidal":
        angle = torch.arange(T)[:, None] * 10000.0 ** (-2 * torch.arange(D // 2) / D)
        x = x + torch.stack([angle.sin(), angle.cos()], -1).reshape(T, D)
    for i in range(c["layers"]):
        w = lambda name: p[f"base.layers.{i}.{name}.weight"]
        h = norm(x, w("mixer_norm"))
        q, k, v = ((h @ w(f"mixer.{n}_proj").T).reshape(B, T, 2, -1).transpose(1, 2) for n in "qkv")
        score = rotated(q) @ rotated(k).transpose(-1, -2) / math.sqrt(q.shape[-1])
        score = score.masked_fill(torch.ones(T, T).triu(1).bool(), -torch.inf)
        y = (score.softmax(-1) @ v).transpose(1, 2).reshape(B, T, -1)
        x = x + y @ w("mixer.o_proj").T
        h = norm(x, w("channel_norm"))
        x = x + (torch.nn.functional.silu(h @ w("channel.gate_proj").T) * (h @ w("channel.up_proj").T)) @ w("channel.down_proj").T
    return norm(x, p["base.norm.weight"])


def hidden(p, c, tokens):
    table, L, k, j = p["base.embed_tokens.weight"], c["segment"], c["sensory"], c["summary_tokens"]
    B, T = tokens.shape
    row = lambda name: p[name].expand(B, 1, -1)
    memory, out = [], []
    for start in range(0, T, L):
        now, before = tokens[:, start : start + L], tokens[:, max(start - L, 0) : start]
        prompt, sensory = row("first_prompt"), table[before[:, before.shape[1] - min(k, before.shape[1]) :]]
        if memory:
            asked = now[:, :j] if c["query"] == "head" else before[:, -j:]
            s = base(p, c["base"], torch.cat([row("summary_prompt"), table[asked], row("summary_prompt")], 1))[:, -1:]
            rows = torch.cat(memory[-c["cache"] :], 1)
            score = (s @ p["q_proj.weight"].T) @ (rows @ p["k_proj.weight"].T).transpose(1, 2) / math.sqrt(c["key_dim"])
            prompt = score.softmax(-1) @ rows
        y = base(p, c["base"], torch.cat([prompt, sensory, table[now], prompt], 1))
        first = 1 + sensory.shape[1]
        out.append(y[:, first : first + now.shape[1]])
        memory.append(y[:, -1:])
    return torch.cat(out, 1)


for name in ["hmt_prev_tail", "hmt_head"]:
    config, tensors = read(name)
    tokens = torch.tensor(tensors.pop("in.tokens")).long()
    want = tensors.pop("out.hidden")
    tensors.pop("out.head")
    p = {k: torch.tensor(v, requires_grad=True) for k, v in tensors.items()}
    y = hidden(p, config, tokens)
    error = float((y.detach() - torch.tensor(want)).abs().max())
    assert error < 1e-12, (name, error)
    (y.flatten() * torch.arange(1, y.numel() + 1).cos()).sum().backward()
    write(name, {f"grad.{k}": v.grad.numpy() for k, v in p.items()})
