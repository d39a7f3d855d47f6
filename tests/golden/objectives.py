"""Losses and metrics of every objective, in float64, one unit at a time with loops: no library's loss function is used.

objectives/objectives.safetensors holds for each case `case/out/<output of the model>`, `case/data/<field of the source>`, `case/weight`
(of each unit), and what must come out: `case/each` (units' losses), `case/loss` (their weighted sum) and `case/metric/<name>` (units' values).
"""
import json
import math
import struct
import zlib
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
TENSORS = {}


def log_softmax(x):
    top = max(x)
    total = sum(math.exp(v - top) for v in x)
    return [v - top - math.log(total) for v in x]


def case(name, outputs, data, each, metrics, counted=None):
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    each = np.array(each, dtype=float)
    weight = rng.uniform(0.1, 1, each.shape)
    if counted is not None:
        weight = weight * np.array(counted, dtype=float)
        each = np.where(np.array(counted, dtype=bool), each, 0)
    for key, value in outputs.items():
        TENSORS[f"{name}/out/{key}"] = value
    for key, value in data.items():
        TENSORS[f"{name}/data/{key}"] = value
    TENSORS[f"{name}/weight"], TENSORS[f"{name}/each"] = weight, each
    TENSORS[f"{name}/loss"] = np.array([sum(w * e for w, e in zip(weight, each))])
    for key, value in metrics.items():
        TENSORS[f"{name}/metric/{key}"] = np.array(value, dtype=float)


def classification(name, logits, labels, smoothing, key):
    C = logits.shape[-1]
    each, right, counted = [], [], []
    for x, y in zip(logits.reshape(-1, C), labels.reshape(-1)):
        p = log_softmax(list(x))
        counted.append(y >= 0)
        each.append(-(1 - smoothing) * p[y] - smoothing * sum(p) / C if y >= 0 else 0)
        right.append(float(int(np.argmax(x)) == y))
    case(name, {"logits": logits}, {key: labels}, each, {"accuracy": right}, counted)


def tokens(name, rng, metrics):
    B, T, D, V = 2, 5, 6, 11
    h, w = rng.standard_normal((B, T, D)), rng.standard_normal((V, D))
    target = rng.integers(0, V, (B, T))
    target[0, 1] = target[1, 4] = -100
    each, right = [], []
    for hidden, y in zip(h.reshape(-1, D), target.reshape(-1)):
        x = [float(np.dot(hidden, row)) for row in w]
        each.append(-log_softmax(x)[y] if y >= 0 else 0)
        right.append(float(int(np.argmax(x)) == y))
    data = {"target": target} if not metrics else {"tokens": np.zeros((B, T)), "target": target}
    case(name, {"hidden": h, "head": w}, data, each, {"accuracy": right} if metrics else {}, target.reshape(-1) >= 0)


def regression(rng):
    B, H, C = 3, 4, 2
    y, t = rng.standard_normal((B, H, C)), rng.standard_normal((B, H, C))
    d = (y - t).reshape(B, -1)
    square = [sum(v * v for v in row) / len(row) for row in d]
    absolute = [sum(abs(v) for v in row) / len(row) for row in d]
    delta = 0.7
    huber = [sum(v * v / 2 if abs(v) <= delta else delta * (abs(v) - delta / 2) for v in row) / len(row) for row in d]
    for name, each in (("regression_mse", square), ("regression_mae", absolute), ("regression_huber", huber)):
        case(name, {"forecast": y}, {"target": t}, each, {"mse": square, "mae": absolute})


def quantile(rng):
    B, H, C, qs = 3, 4, 2, (0.1, 0.5, 0.8)
    y, t = rng.standard_normal((B, H, C, len(qs))), rng.standard_normal((B, H, C))
    each, covered = [], []
    for row, want in zip(y.reshape(B, H * C, len(qs)), t.reshape(B, H * C)):
        total, inside = 0.0, 0
        for said, v in zip(row, want):
            for q, s in zip(qs, said):
                total += q * (v - s) if v > s else (1 - q) * (s - v)
            inside += said[0] <= v <= said[-1]
        each.append(total / (H * C * len(qs)))
        covered.append(inside / (H * C))
    case("quantile", {"forecast": y}, {"target": t}, each, {"coverage": covered})


def span(rng):
    B, T = 4, 7
    x = rng.standard_normal((B, T, 2))
    length = np.array([7, 5, 4, 7])
    ends = np.array([[1, 3], [0, 4], [2, 2], [-100, -100]])
    x[1, 0, 0] = x[1, 4, 1] = 5.0
    each, exact, half = [], [], []
    for b in range(B):
        part = [log_softmax(list(x[b, : length[b], k])) for k in (0, 1)]
        each.append(-(part[0][ends[b, 0]] + part[1][ends[b, 1]]) / 2 if ends[b, 0] >= 0 else 0)
        right = [int(np.argmax(part[k])) == ends[b, k] for k in (0, 1)]
        exact.append(float(all(right)))
        half.append(sum(right) / 2)
    case("span", {"logits": x}, {"span": ends, "length": length}, each, {"exact_match": exact, "ends_right": half}, ends[:, 0] >= 0)


def contrastive(name, rng, other_side):
    B, T, D, temperature = 6, 4, 5, 0.2
    x = rng.standard_normal((B, T, D))
    length = np.array([4, 2, 3, 4, 1, 4])
    z = []
    for b in range(B):
        v = x[b, : length[b]].mean(0)
        z.append(v / math.sqrt(float((v * v).sum()) + 1e-12))
    each, best = [], []
    for i in range(B):
        j = i + 1 if i % 2 == 0 else i - 1
        others = [k for k in range(B) if (k % 2 != i % 2 if other_side else k != i)]
        scores = [float(np.dot(z[i], z[k])) / temperature for k in others]
        each.append(-log_softmax(scores)[others.index(j)])
        best.append(float(others[int(np.argmax(scores))] == j))
    case(name, {"hidden": x}, {"length": length}, each, {"retrieval": best})


def distillation(rng):
    B, T, D, V, t = 2, 3, 4, 6, 2.0
    x, y = rng.standard_normal((B, T, V)), rng.standard_normal((B, T, V))
    target = np.zeros((B, T), dtype=int)
    target[1, 2] = -100
    each, agree = [], []
    for a, b in zip(x.reshape(-1, V), y.reshape(-1, V)):
        p, q = log_softmax(list(a / t)), log_softmax(list(b / t))
        each.append(t * t * sum(math.exp(v) * (v - u) for u, v in zip(p, q)))
        agree.append(float(np.argmax(a) == np.argmax(b)))
    case("distillation_logits", {"logits": x, "teacher.logits": y}, {"target": target}, each, {"agreement": agree}, target.reshape(-1) >= 0)
    h, k = rng.standard_normal((B, T, D)), rng.standard_normal((B, T, D))
    each = [sum((u - v) ** 2 for u, v in zip(a, b)) / D for a, b in zip(h.reshape(-1, D), k.reshape(-1, D))]
    case("distillation_features", {"hidden": h, "teacher.hidden": k}, {"target": target}, each, {}, target.reshape(-1) >= 0)
    ids = np.stack([rng.permutation(V)[:3] for _ in range(B * T)]).reshape(B, T, 3)
    soft = rng.dirichlet(np.ones(4), (B, T))[:, :, :3]  # what is left is of all other tokens
    ids[0, 0, 2], soft[0, 0, 2] = -1, 0.5
    each = []
    for a, i, w in zip(x.reshape(-1, V), ids.reshape(-1, 3), soft.reshape(-1, 3)):
        p = log_softmax(list(a))
        kept = [(int(k), float(v)) for k, v in zip(i, w) if k >= 0]
        others = [math.exp(p[v]) for v in range(V) if v not in [k for k, _ in kept]]
        rest = 1 - sum(v for _, v in kept)
        each.append(-sum(v * p[k] for k, v in kept) - rest * math.log(sum(others)))
    case("distillation_sparse", {"logits": x}, {"soft_ids": ids, "soft_weights": soft}, each, {})


def match(rng):
    B, T, L = 3, 4, 2
    error, size = rng.uniform(0, 1, (B, T, L)), rng.uniform(0.5, 2, (B, T, L))
    each = [sum(row.reshape(-1)) / (T * L) for row in error]
    relative = [e / (sum(row.reshape(-1)) / (T * L)) for e, row in zip(each, size)]
    case("match", {"match_error": error, "match_size": size}, {}, each, {"relative": relative})


def events(rng):
    B, T, K, M = 2, 3, 3, 4
    density, logits = 0.5 * rng.standard_normal((B, T, 3 * K)), rng.standard_normal((B, T, M))
    gaps, marks = np.exp(rng.standard_normal((B, T))), rng.integers(0, M, (B, T))
    marks[1, 2] = -100
    each, of_gap, square, right = [], [], [], []
    for d, l, s, y in zip(density.reshape(-1, 3 * K), logits.reshape(-1, M), gaps.reshape(-1), marks.reshape(-1)):
        w = [math.exp(v) for v in log_softmax(list(d[:K]))]
        p, mean = 0.0, 0.0
        for k in range(K):
            deviation = math.exp(d[2 * K + k])
            z = (math.log(s) - d[K + k]) / deviation
            p += w[k] * math.exp(-z * z / 2) / (deviation * math.sqrt(2 * math.pi) * s)
            mean += w[k] * math.exp(d[K + k] + deviation**2 / 2)
        of_gap.append(-math.log(p))
        each.append(-math.log(p) - (log_softmax(list(l))[y] if y >= 0 else 0))
        square.append((mean - s) ** 2)
        right.append(float(int(np.argmax(l)) == y))
    case("events", {"density": density, "logits": logits}, {"target": marks, "target_gaps": gaps}, each,
         {"gap_nll": of_gap, "gap_rmse": square, "mark_accuracy": right}, marks.reshape(-1) >= 0)


def main():
    rng = np.random.default_rng(7)
    tokens("next_token", rng, False)
    tokens("masked_token", rng, True)
    labels = rng.integers(0, 4, (5,))
    labels[2] = -100
    classification("classification", rng.standard_normal((5, 4)), labels, 0.0, "label")
    classification("classification_smooth", rng.standard_normal((5, 4)), labels, 0.3, "label")
    positions = rng.integers(0, 3, (2, 4))
    positions[1, 1] = -100
    classification("classification_positions", rng.standard_normal((2, 4, 3)), positions, 0.1, "target")
    regression(rng)
    quantile(rng)
    span(rng)
    contrastive("contrastive", rng, False)
    contrastive("contrastive_other_side", rng, True)
    distillation(rng)
    match(rng)
    events(rng)
    header, offset = {"__metadata__": {"system": "objectives"}}, 0
    for name, value in TENSORS.items():
        TENSORS[name] = value = np.ascontiguousarray(value, dtype="<f8")
        header[name] = {"dtype": "F64", "shape": list(value.shape), "data_offsets": [offset, offset + value.nbytes]}
        offset += value.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    (HERE / "objectives").mkdir(exist_ok=True)
    with open(HERE / "objectives" / "objectives.safetensors", "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for value in TENSORS.values():
            f.write(value.tobytes())


if __name__ == "__main__":
    main()
