"""Golden vectors of Long Short-Term Memory, from two programs: NumPy one token and one gate at a time as the equations stand, and torch's own
LSTM (torch.nn.functional's kernel behind torch.nn.LSTM, gates i f g o), whose second bias is the constant that is added to the forget gate.

    i f g o = W_x x + b + W_h h   c' = sigmoid(f + forget_bias) c + sigmoid(i) tanh(g)   h' = sigmoid(o) tanh(c')   y = W_o h'
"""
import math

import numpy as np
import torch

from golden_lib import emit, rng_of, sigmoid


def token_by_token(x, p, c):
    (B, T, D), H = x.shape, c["hidden"]
    y, h, cells = np.zeros((B, T, D)), np.zeros((B, H)), np.zeros((B, H))
    for row in range(B):
        for t in range(T):
            z = p["x_proj.weight"] @ x[row, t] + p["x_proj.bias"] + p["h_proj.weight"] @ h[row]
            for n in range(H):
                i, f, g, o = (z[k * H + n] for k in range(4))
                cells[row, n] = sigmoid(f + c["forget_bias"]) * cells[row, n] + sigmoid(i) * np.tanh(g)
                h[row, n] = sigmoid(o) * np.tanh(cells[row, n])
            y[row, t] = p["o_proj.weight"] @ h[row]
    return y, {"h": h, "c": cells}


def torch_lstm(x, p, c):
    B, H = x.shape[0], c["hidden"]
    second = torch.zeros(4 * H, dtype=torch.float64)
    second[H:2 * H] = c["forget_bias"]
    zeros = torch.zeros(1, B, H, dtype=torch.float64)
    weights = [p["x_proj.weight"], p["h_proj.weight"], p["x_proj.bias"], second]
    h, last, cells = torch._VF.lstm(x, (zeros, zeros), weights, True, 1, 0.0, False, False, True)
    return h @ p["o_proj.weight"].T, {"h": last[0], "c": cells[0]}


def main():
    B, T, D, H = 2, 9, 4, 3
    rng = rng_of("lstm")
    p = {"x_proj.weight": rng.standard_normal((4 * H, D)) / math.sqrt(D), "x_proj.bias": rng.standard_normal(4 * H) * 0.5,
         "h_proj.weight": rng.standard_normal((4 * H, H)) / math.sqrt(H), "o_proj.weight": rng.standard_normal((D, H)) / math.sqrt(H)}
    config = {"type": "lstm", "hidden": H, "forget_bias": 0.75}
    emit("lstm", "lstm", config, rng.standard_normal((B, T, D)), p, token_by_token, torch_forward=torch_lstm)


if __name__ == "__main__":
    main()
