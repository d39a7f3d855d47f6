"""Golden vectors of mixers side by side: a gated short convolution and linear attention, each from the two
programs of its own script, added up.

    y = sum_i mixer_i(x)
"""
import math

import recurrences
import short_conv
from golden_lib import emit, rng_of


def split(p, i):
    start = f"mixers.{i}."
    return {k[len(start):]: v for k, v in p.items() if k.startswith(start)}


def beside(first, second):
    def program(x, p, c):
        a, b = first(x, split(p, 0), c["mixers"][0]), second(x, split(p, 1), c["mixers"][1])
        return a[0] + b[0], {**{f"mixers.0.{k}": v for k, v in a[1].items()}, **{f"mixers.1.{k}": v for k, v in b[1].items()}}
    return program


def all_at_once_torch(x, p, c):
    """The convolution as a sum of shifted sequences, in torch."""
    import torch
    (B, T, D), W = x.shape, c["conv"]
    h = x @ p["in_proj.weight"].T
    z = torch.cat([torch.zeros(B, W - 1, D, dtype=x.dtype), h[..., :D] * h[..., 2 * D:]], 1)
    s = sum(z[:, j:j + T] * p["conv.weight"][:, j] for j in range(W))
    return (h[..., D:2 * D] * s) @ p["out_proj.weight"].T, {"conv": z[:, T:]}


def main():
    B, T, D, H, K = 2, 21, 6, 2, 3
    rng = rng_of("parallel")
    p = {f"mixers.0.{n}": rng.standard_normal(s) / math.sqrt(s[-1])
         for n, s in (("in_proj.weight", (3 * D, D)), ("conv.weight", (D, 3)), ("out_proj.weight", (D, D)))}
    p.update({f"mixers.1.{n}_proj.weight": rng.standard_normal((H * K, D)) / math.sqrt(D) for n in "qkvo"})
    config = {"type": "parallel", "mixers": [{"type": "short_conv", "conv": 3, "bias": False},
                                             {"type": "linear_attention", "heads": H, "head_dim": K}]}
    emit("parallel", "parallel", config, rng.standard_normal((B, T, D)), p,
         beside(short_conv.token_by_token, recurrences.linear_attention_n), beside(all_at_once_torch, recurrences.linear_attention_t))


if __name__ == "__main__":
    main()
