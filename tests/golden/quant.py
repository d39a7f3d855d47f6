"""Golden vectors of block formats (quant/formats.safetensors): what blocks of random bytes hold, and how well others make blocks.

blocks.<type>   the bytes of 256 values: codes and scales of every kind, for blocks of 32 also a scale below the normal ones, a
                negative one and zero
values.<type>   what the `gguf` package says they hold
gauss, heavy    2048 values each, of a normal and of a t distribution with three degrees of freedom

The metadata's `errors` has for each type the squared error on them, as a part of the sum of squares: of the `gguf` package where it
makes blocks, else of libggml's own ggml_quantize_chunk (no importance matrix), whose library is the argument.

    pip install gguf numpy safetensors llama-cpp-python
    python quant.py .../llama_cpp/lib/libggml-base.so
"""
import ctypes
import json
import sys

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as T, quants
from safetensors.numpy import save_file

PLAIN = [T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.Q8_0, T.MXFP4]
OTHERS = [T.Q2_K, T.Q3_K, T.Q4_K, T.Q5_K, T.Q6_K, T.IQ4_NL, T.IQ4_XS]
# where the f16 numbers of a block lie
HALVES = {T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2], T.Q8_0: [0], T.Q2_K: [80, 82], T.Q3_K: [108], T.Q4_K: [0, 2],
          T.Q5_K: [0, 2], T.Q6_K: [208], T.IQ4_NL: [0], T.IQ4_XS: [0], T.MXFP4: []}
rng = np.random.default_rng(2024)


def blocks_of(t):
    size, nbytes = GGML_QUANT_SIZES[t]
    n = 256 // size
    b = rng.integers(0, 256, (n, nbytes), dtype=np.uint8)
    for at in HALVES[t]:
        d = rng.normal(0, 0.05, n).astype(np.float16)
        if n > 3:
            d[:4] = [3e-6, -0.25, 0, 777]
        b[:, at:at + 2] = d.reshape(n, 1).view(np.uint8)
    if t == T.MXFP4:
        b[:, 0] = [0, 1, 2, 100, 127, 130, 200, 250]
    return b


def chunk(library, t, x):
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    out = np.zeros(x.size // GGML_QUANT_SIZES[t][0] * GGML_QUANT_SIZES[t][1], np.uint8)
    got = library.ggml_quantize_chunk(ctypes.c_int(int(t)), x.ctypes.data_as(ctypes.c_void_p), out.ctypes.data_as(ctypes.c_void_p),
                                      ctypes.c_int64(0), ctypes.c_int64(1), ctypes.c_int64(x.size), None)
    assert got == out.size
    return out


def main():
    library = ctypes.CDLL(sys.argv[1])
    library.ggml_quantize_init(ctypes.c_int(int(T.IQ4_NL)))
    rows = {"gauss": rng.standard_normal(2048).astype(np.float16), "heavy": (0.02 * rng.standard_t(3, 2048)).astype(np.float16)}
    tensors = dict(rows)
    errors = {}
    for t in PLAIN + OTHERS:
        name = t.name.lower()
        b = blocks_of(t)
        tensors["blocks." + name] = b.reshape(-1)
        tensors["values." + name] = quants.dequantize(b, t).reshape(-1)
        for row, half in rows.items():
            x = half.astype(np.float32)
            q = quants.quantize(x, t) if t in PLAIN else chunk(library, t, x)
            e = x.astype(float) - quants.dequantize(q, t).astype(float)
            errors[f"{row}.{name}"] = float((e * e).sum() / (x.astype(float) ** 2).sum())
    save_file(tensors, "quant/formats.safetensors", {"errors": json.dumps(errors)})


main()
