"""Writes tests/rounded.h: a row that ggml's own functions rounded to 8 bits, in the forms of its CPU library for x86 (quantize_row_q8_0,
quantize_row_q8_1, quantize_row_q8_K).

    pip install numpy llama-cpp-python
    python rounded.py .../llama_cpp/lib/libggml-cpu.so > ../rounded.h
"""
import ctypes
import sys

import numpy as np

K = 512
X = """static inline float rounded_x(int i) {
  const int unit = i / 32, n = (31 * i * i + 977 * i) % 4001 - 2000;
  if (unit == 3) return 0;
  if (unit == 5) return i % 32 == 9 ? 127 : (float)(n % 250) / 2; /* halves of steps */
  return (float)n * (unit == 7 ? 0x1p-30f : unit % 3 ? 0x1p-9f : 0x1p-13f);
}"""


def x_of(i):
    unit, n = i // 32, (31 * i * i + 977 * i) % 4001 - 2000
    if unit == 3:
        return 0
    if unit == 5:
        return 127 if i % 32 == 9 else int(np.fmod(n, 250)) / 2
    return n * (2.0 ** -30 if unit == 7 else 2.0 ** -9 if unit % 3 else 2.0 ** -13)


def rounded(library, name, dtype, x):
    out = np.zeros(K // (256 if "q8_K" in name else 32), dtype)
    getattr(library, name)(x.ctypes.data_as(ctypes.c_void_p), out.ctypes.data_as(ctypes.c_void_p), ctypes.c_int64(K))
    return out


def table(kind, name, values, spell):
    print(f"static const {kind} {name}[] = {{")
    for i in range(0, len(values), 16):
        print("    " + ", ".join(spell(v) for v in values[i:i + 16]) + ",")
    print("};")


def main():
    library = ctypes.CDLL(sys.argv[1])
    x = np.array([x_of(i) for i in range(K)], np.float32)
    q8_0 = rounded(library, "quantize_row_q8_0", [("d", "<f2"), ("q", "i1", 32)], x)
    q8_1 = rounded(library, "quantize_row_q8_1", [("d", "<f2"), ("s", "<f2"), ("q", "i1", 32)], x)
    q8_k = rounded(library, "quantize_row_q8_K", [("d", "<f4"), ("q", "i1", 256), ("sums", "<i2", 16)], x)
    assert (q8_0["q"] == q8_1["q"]).all() and (q8_0["d"] == q8_1["d"]).all()
    print("/* rounded.h - a row of activations as ggml rounds it to 8 bits; golden/rounded.py made this. */")
    print(f"#ifndef ROUNDED_H\n#define ROUNDED_H\n\nenum {{ ROUNDED_K = {K} }};\n\n{X}\n\n/* clang-format off */")
    table("int8_t", "rounded_q_32", q8_0["q"].ravel(), str)
    table("int8_t", "rounded_q_256", q8_k["q"].ravel(), str)
    for name, values in (("rounded_d_32", q8_0["d"]), ("rounded_sum", q8_1["s"]), ("rounded_d_256", q8_k["d"])):
        table("float", name, values, lambda v: float(v).hex() + "f")
    print("/* clang-format on */\n\n#endif")


if __name__ == "__main__":
    main()
