"""What the golden scripts share: the files' layout, random parameters, and the two-way check.

A golden file is written only when two programs that share no code path agree: the NumPy one (float64, one token at a time,
loops over batch and head, inner gradients by the formulas of the card) gives y and the final state; the torch one
(float64, inner gradients by autograd) must give the same y and state to 1e-12, and its autograd gives the gradients of
sum(y * dy). See README.md for the names inside a file.
"""
import json
import math
import struct
import sys
import zlib
from pathlib import Path

import numpy as np

try:
    import torch
except ImportError:  # scripts with two NumPy programs do without
    torch = None

HERE = Path(__file__).resolve().parent
TOLERANCE = 1e-12


def write_safetensors(path, tensors, metadata=None):
    """The safetensors layout: u64 header length, JSON header, raw little-endian data. Same input, same bytes."""
    header, offset = {"__metadata__": metadata} if metadata else {}, 0
    for name, value in tensors.items():
        header[name] = {"dtype": "F64", "shape": list(value.shape), "data_offsets": [offset, offset + value.nbytes]}
        offset += value.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for value in tensors.values():
            f.write(np.ascontiguousarray(value, dtype="<f8").tobytes())


def rng_of(name):
    return np.random.default_rng(zlib.crc32(name.encode()))


def second_in_torch(x, params, dy, config, torch_forward):
    """y, states and gradients by autograd."""
    tx = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    tparams = {k: torch.tensor(v, dtype=torch.float64, requires_grad=True) for k, v in params.items()}
    ty, tstate = torch_forward(tx, tparams, config)
    (ty * torch.tensor(dy)).sum().backward()
    grads = {"x": tx.grad.numpy()}
    for key, value in tparams.items():
        grads[key] = np.zeros(value.shape) if value.grad is None else value.grad.numpy()
    return ty.detach().numpy(), {key: value.detach().numpy() for key, value in tstate.items()}, grads


def second_in_numpy(x, params, dy, config, forward):
    """y, states and gradients by complex steps: Im f(x + ih) / h has no cancellation, so h may be as small as one likes."""
    y, state = forward(x, params, config)
    values, grads, h = {"x": x, **params}, {}, 1e-40
    for key, value in values.items():
        grads[key] = np.zeros(value.shape)
        for i in np.ndindex(value.shape):
            moved = value.astype(complex)
            moved[i] += 1j * h
            shifted = {**values, key: moved}
            grads[key][i] = (forward(shifted["x"], {k: shifted[k] for k in params}, config)[0].imag * dy).sum() / h
    return y, state, grads


def emit(name, system, config, x, params, numpy_forward, torch_forward=None, numpy_second=None, only_chooses=()):
    """Runs the NumPy program and the second one, in torch or in NumPy, on (x, params, config), checks them against each other, writes
    HERE/SCRIPT/name.safetensors: a folder for each script. A program takes (x, params, config) and gives y and the states by name. only_chooses: names of
    parameters that y depends on by choices alone, whose gradient is 0."""
    y, state = numpy_forward(x, params, config)
    dy = rng_of(name + ".dy").standard_normal(y.shape)
    second = second_in_torch if torch_forward else second_in_numpy
    y2, state2, grads = second(x, params, dy, config, torch_forward or numpy_second)
    worst = float(np.abs(y2 - y).max())
    assert set(state2) == set(state), f"{name}: states differ in name: {set(state2) ^ set(state)}"
    for key, value in state.items():
        assert tuple(state2[key].shape) == value.shape, f"{name}: {key}"
        worst = max(worst, float(np.abs(state2[key] - value).max()))
    assert worst <= TOLERANCE, f"{name}: the two programs differ by {worst:.1e}"
    assert np.isfinite(y).all() and np.abs(y).max() < 1e3, f"{name}: not a usable example"
    for key in params:
        assert (np.abs(grads[key]).max() > 0) != (key in only_chooses), f"{name}: no gradient reaches {key}, or one that should not"
    error = check_by_differences(name, x, params, dy, grads, config, numpy_forward)

    tensors = {"x": x, "dy": dy, "y": y, **params}
    tensors.update({"state." + k: v for k, v in state.items()})
    tensors.update({"grad." + k: v for k, v in grads.items()})
    path = HERE / Path(sys.argv[0]).stem / f"{name}.safetensors"
    path.parent.mkdir(exist_ok=True)
    write_safetensors(path, tensors, {"system": system, "config": json.dumps(config), "d_model": str(x.shape[-1]),
                                      "parameters": json.dumps(list(params)), "states": json.dumps(list(state))})
    print(f"{path.name}: {path.stat().st_size} bytes, |y| {np.abs(y).max():.3g}, first - second program {worst:.1e}, "
          f"gradient - differences {error:.1e}", flush=True)


def check_by_differences(name, x, params, dy, grads, config, numpy_forward):
    """One random direction through input and parameters: autograd against central differences of the NumPy program."""
    rng = rng_of(name + ".direction")
    ex = rng.standard_normal(x.shape)
    ep = {k: rng.standard_normal(v.shape) for k, v in params.items()}
    expected = (ex * grads["x"]).sum() + sum((ep[k] * grads[k]).sum() for k in params)

    def loss(s):
        return (numpy_forward(x + s * ex, {k: v + s * ep[k] for k, v in params.items()}, config)[0] * dy).sum()

    h = 2e-5  # five points: error O(h^4)
    found = (8 * (loss(h) - loss(-h)) - (loss(2 * h) - loss(-2 * h))) / (12 * h)
    error = abs(found - expected) / max(1.0, abs(expected))
    assert error <= 1e-7, f"{name}: gradient {expected}, differences {found}"
    return error


# ---- small pieces, NumPy ----
def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def silu(x):
    return x * sigmoid(x)


def softplus(x):
    return np.logaddexp(0, x)


erf = np.vectorize(math.erf, otypes=[float])


def gelu(x):
    return x * 0.5 * (1 + erf(x / math.sqrt(2)))


def gelu_slope(x):
    return 0.5 * (1 + erf(x / math.sqrt(2))) + x * np.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def l2norm(x):
    return x / np.sqrt((x * x).sum(-1, keepdims=True) + 1e-6)


def rms_norm(x, weight):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6) * weight


def rotate(x, position, theta):
    """RoPE on one vector x[K]: pair (i, i + K/2) turns by position * theta^(-2i/K)."""
    half = x.shape[-1] // 2
    out = np.empty_like(x)
    for i in range(half):
        angle = position * theta ** (-2 * i / x.shape[-1])
        c, s = math.cos(angle), math.sin(angle)
        out[i] = x[i] * c - x[i + half] * s
        out[i + half] = x[i + half] * c + x[i] * s
    return out


def conv_tap(w, history):
    """history: the last four inputs [4,D], the newest last; w [D,4], w[:,3] multiplies the newest."""
    return sum(w[:, j] * history[j] for j in range(4))


# ---- small pieces, torch ----
def t_silu(x):
    return torch.nn.functional.silu(x)


def t_l2norm(x):
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + 1e-6)


def t_rms_norm(x, weight):
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * weight


def t_conv(x, w):
    """Causal depthwise convolution of x[B,T,D] by torch's own conv1d; also the last three inputs."""
    padded = torch.nn.functional.pad(x, (0, 0, 3, 0))
    y = torch.nn.functional.conv1d(padded.transpose(1, 2), w[:, None, :], groups=w.shape[0]).transpose(1, 2)
    return y, padded[:, -3:]


def t_rope(x, positions, theta):  # x [B,T,H,K], positions [T]
    K = x.shape[-1]
    angle = positions[:, None].double() * theta ** (-torch.arange(0, K, 2).double() / K)
    cos, sin = angle.cos()[None, :, None], angle.sin()[None, :, None]
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


def legendre_system(d, theta):
    """A [d,d], B [d] of the Legendre state space: d numbers that hold the last theta inputs."""
    i, j = np.arange(d)[:, None], np.arange(d)[None, :]
    A = (2 * i + 1) / theta * np.where(i < j, -1.0, (-1.0) ** (i - j + 1))
    return A, ((2 * np.arange(d) + 1) / theta * (-1.0) ** np.arange(d))


def legendre_step(d, theta):
    """exp [A B; 0 0]: 2^-12 of it by its series in extended precision, then squared."""
    A, B = legendre_system(d, theta)
    X = np.zeros((d + 1, d + 1), dtype=np.longdouble)
    X[:d, :d], X[:d, d] = A, B
    X /= 2**12
    E, term = np.eye(d + 1, dtype=np.longdouble), np.eye(d + 1, dtype=np.longdouble)
    for n in range(1, 40):
        term = term @ X / n
        E = E + term
    for _ in range(12):
        E = E @ E
    return E[:d, :d].astype(float), E[:d, d].astype(float)
