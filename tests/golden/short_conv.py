"""Golden vectors of the gated short convolution, from two NumPy programs: one token at a time with a list of the last products, and all
tokens at once as a sum of shifted sequences.

    [b, c, u] = W_in x + b_in    z = b * u    s_t = sum_j w_j z_{t-W+1+j} + b_conv    y = W_out (c * s) + b_out
"""
import math

import numpy as np

from golden_lib import emit, rng_of


def token_by_token(x, p, c):
    (B, T, D), W = x.shape, c["conv"]
    y, state = np.zeros_like(x), np.zeros((B, W - 1, D))
    for i in range(B):
        last = [np.zeros(D) for _ in range(W)]
        for t in range(T):
            h = p["in_proj.weight"] @ x[i, t] + p.get("in_proj.bias", 0)
            b, gate, u = h[:D], h[D:2 * D], h[2 * D:]
            last = last[1:] + [b * u]
            s = sum(p["conv.weight"][:, j] * last[j] for j in range(W)) + p.get("conv.bias", 0)
            y[i, t] = p["out_proj.weight"] @ (gate * s) + p.get("out_proj.bias", 0)
        state[i] = last[1:]
    return y, {"conv": state}


def all_at_once(x, p, c):
    (B, T, D), W = x.shape, c["conv"]
    h = np.einsum("btd,od->bto", x, p["in_proj.weight"]) + p.get("in_proj.bias", 0)
    z = np.concatenate([np.zeros((B, W - 1, D), h.dtype), h[..., :D] * h[..., 2 * D:]], 1)
    s = sum(z[:, j:j + T] * p["conv.weight"][:, j] for j in range(W)) + p.get("conv.bias", 0)
    return np.einsum("btd,od->bto", h[..., D:2 * D] * s, p["out_proj.weight"]) + p.get("out_proj.bias", 0), {"conv": z[:, T:]}


def main():
    B, T, D = 2, 21, 6
    for name, W, bias in (("short_conv", 3, False), ("short_conv_bias", 4, True)):
        rng, p = rng_of(name), {}
        p["in_proj.weight"] = rng.standard_normal((3 * D, D)) / math.sqrt(D)
        p["conv.weight"] = rng.standard_normal((D, W)) / math.sqrt(W)
        p["out_proj.weight"] = rng.standard_normal((D, D)) / math.sqrt(D)
        if bias:
            for n, width in (("in_proj", 3 * D), ("conv", D), ("out_proj", D)):
                p[n + ".bias"] = 0.5 * rng.standard_normal(width)
        config = {"type": "short_conv", "conv": W, "bias": bias}
        emit(name, "short_conv", config, rng.standard_normal((B, T, D)), p, token_by_token, numpy_second=all_at_once)


if __name__ == "__main__":
    main()
