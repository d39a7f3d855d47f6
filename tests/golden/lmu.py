"""Golden vectors of Legendre Memory Units. NumPy: one token at a time, the matrices of the step from a Taylor series in extended
precision. PyTorch: the memory as a convolution by FFT with the impulse response, whose matrices are torch's own matrix exponential
(lmu); the cell in PyTorch goes one token at a time, as nothing else is possible, with gradients by autograd.

    u = relu(W_u x + b_u)   m' = a m + b u   y = relu(W_h [m ; x] + b_h)
    cell: u = E_x x + E_h h + E_m m   m' = a m + b u   h' = tanh(W_x x + W_h h + W_m m' + b_h)   y = h'
"""
import math

import numpy as np
import torch

from golden_lib import emit, legendre_step, legendre_system, rng_of


def token_by_token(x, p, c):
    (B, T, D), M, d = x.shape, c["channels"], c["order"]
    a, b = legendre_step(d, c["window"])
    y, m = np.zeros((B, T, D)), np.zeros((B, M, d))
    for row in range(B):
        for t in range(T):
            u = p["u_proj.weight"] @ x[row, t] + p["u_proj.bias"]
            if c["input"] == "relu":
                u = np.maximum(u, 0)
            for k in range(M):
                m[row, k] = a @ m[row, k] + b * u[k]
            y[row, t] = np.maximum(p["h_proj.weight"] @ np.concatenate([m[row].reshape(-1), x[row, t]]) + p["h_proj.bias"], 0)
    return y, {"m": m}


def by_fft(x, p, c):
    (B, T, D), M, d = x.shape, c["channels"], c["order"]
    A, b = legendre_system(d, c["window"])
    X = np.zeros((d + 1, d + 1))
    X[:d, :d], X[:d, d] = A, b
    E = torch.linalg.matrix_exp(torch.tensor(X))
    H = [E[:d, d]]
    for _ in range(T - 1):
        H.append(E[:d, :d] @ H[-1])
    u = x @ p["u_proj.weight"].T + p["u_proj.bias"]
    if c["input"] == "relu":
        u = torch.relu(u)
    Uf, Hf = torch.fft.rfft(u, 2 * T, dim=1), torch.fft.rfft(torch.stack(H), 2 * T, dim=0)
    m = torch.fft.irfft(Uf[:, :, :, None] * Hf[None, :, None, :], 2 * T, dim=1)[:, :T]
    y = torch.relu(torch.cat([m.reshape(B, T, M * d), x], 2) @ p["h_proj.weight"].T + p["h_proj.bias"])
    return y, {"m": m[:, -1]}


def cell(x, p, c):
    (B, T, D), M, d = x.shape, c["channels"], c["order"]
    a, b = legendre_step(d, c["window"])
    y, m, h = np.zeros((B, T, D)), np.zeros((B, M, d)), np.zeros((B, D))
    for row in range(B):
        for t in range(T):
            u = p["x_to_u.weight"] @ x[row, t] + p["h_to_u.weight"] @ h[row] + p["m_to_u.weight"] @ m[row].reshape(-1)
            for k in range(M):
                m[row, k] = a @ m[row, k] + b * u[k]
            h[row] = np.tanh(p["x_to_h.weight"] @ x[row, t] + p["x_to_h.bias"] + p["h_to_h.weight"] @ h[row]
                             + p["m_to_h.weight"] @ m[row].reshape(-1))
            y[row, t] = h[row]
    return y, {"m": m, "h": h}


def cell_in_torch(x, p, c):
    (B, T, D), M, d = x.shape, c["channels"], c["order"]
    A, b = legendre_system(d, c["window"])
    X = np.zeros((d + 1, d + 1))
    X[:d, :d], X[:d, d] = A, b
    E = torch.linalg.matrix_exp(torch.tensor(X))
    m, h, y = torch.zeros(B, M, d, dtype=torch.float64), torch.zeros(B, D, dtype=torch.float64), []
    for t in range(T):
        u = x[:, t] @ p["x_to_u.weight"].T + h @ p["h_to_u.weight"].T + m.reshape(B, -1) @ p["m_to_u.weight"].T
        m = m @ E[:d, :d].T + u[:, :, None] * E[:d, d]
        h = torch.tanh(x[:, t] @ p["x_to_h.weight"].T + p["x_to_h.bias"] + h @ p["h_to_h.weight"].T + m.reshape(B, -1) @ p["m_to_h.weight"].T)
        y.append(h)
    return torch.stack(y, 1), {"m": m, "h": h}


def main():
    B, T, D = 2, 37, 8
    for name, d, M, window, inp in (("lmu", 6, 1, 20.0, "relu"), ("lmu_channels", 5, 3, 6.5, "linear")):
        rng = rng_of(name)
        p = {"u_proj.weight": rng.standard_normal((M, D)) / math.sqrt(D), "u_proj.bias": rng.standard_normal(M) * 0.5,
             "h_proj.weight": rng.standard_normal((D, M * d + D)) / math.sqrt(D), "h_proj.bias": rng.standard_normal(D) * 0.5}
        config = {"type": "lmu", "order": d, "window": window, "channels": M, "input": inp}
        emit(name, "lmu", config, rng.standard_normal((B, T, D)), p, token_by_token, torch_forward=by_fft)
    name, d, M = "lmu_cell", 4, 2
    rng = rng_of(name)
    p = {n + "_to_u.weight": rng.standard_normal((M, w)) / math.sqrt(w) * 0.5 for n, w in (("x", D), ("h", D), ("m", M * d))}
    p |= {n + "_to_h.weight": rng.standard_normal((D, w)) / math.sqrt(w) for n, w in (("x", D), ("h", D), ("m", M * d))}
    p["x_to_h.bias"] = rng.standard_normal(D) * 0.5
    config = {"type": "lmu_cell", "order": d, "window": 12.0, "channels": M}
    emit(name, "lmu_cell", config, rng.standard_normal((B, 19, D)), p, cell, torch_forward=cell_in_torch)


if __name__ == "__main__":
    main()
