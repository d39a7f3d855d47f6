"""How well can the task `recurring` be read (docs/tasks.md)? Two readers that know its language exactly: one looks at the token before, the other also
at what followed earlier occurrences of the last two tokens, or of the last one. Nats and accuracy over rows of 256, as `mneme eval` has them.

    python3 bench/peers/recurring_readers.py

Needs NumPy. The language is drawn anew, by the law of src/task/recurring.c: figures are of another vocabulary of the same kind."""
import numpy as np

VOCAB, FOLLOWERS, LENGTH, ROWS = 512, 8, 256, 400
SPAN, LAG, START = (2, 8), (5, 200), 0.0857
rng = np.random.default_rng(0)


def zipf(u):
    low, high = 10, 10 + VOCAB
    return np.minimum((low * (high / low) ** u - low).astype(int), VOCAB - 1)


follower = zipf(rng.random((VOCAB, FOLLOWERS)))
law = np.tile(0.5 * np.bincount(zipf(rng.random(4_000_000)), minlength=VOCAB) / 4e6, (VOCAB, 1))  # law[before, next]
for k in range(FOLLOWERS):
    np.add.at(law, (np.arange(VOCAB), follower[:, k]), 0.5 / FOLLOWERS)


def fresh(before):
    return int(zipf(rng.random(1))[0]) if before is None or rng.random() < 0.5 else int(follower[before, rng.integers(FOLLOWERS)])


def row():
    x, copied, left, lag = [fresh(None)], [False], 0, 0
    for t in range(1, LENGTH + 1):
        if not left and t >= LAG[0] and rng.random() < START:
            lag, left = rng.integers(LAG[0], min(t, LAG[1]) + 1), rng.integers(SPAN[0], SPAN[1] + 1)
        copied.append(left > 0)
        x.append(x[t - lag] if left else fresh(x[-1]))
        left -= left > 0
    return x, copied


def looking_back(x, t):
    """law, mixed with what followed the last two tokens before (weight 3/4), or else the last one (1/4)."""
    one = [j for j in range(1, t) if x[j - 1] == x[t - 1]]
    two = [j for j in one if j >= 2 and t >= 2 and x[j - 2] == x[t - 2]]
    seen, weight = (two, 0.75) if two else (one, 0.25 if one else 0)
    p = (1 - weight) * law[x[t - 1]]
    for j in seen:
        p[x[j]] += weight / len(seen)
    return p


nats, right, copies = {"the token before": [], "looking back": []}, [], []
for _ in range(ROWS):
    x, copied = row()
    for t in range(1, LENGTH + 1):
        nats["the token before"].append(-np.log(law[x[t - 1], x[t]]))
        nats["looking back"].append(-np.log(looking_back(x, t)[x[t]]))
        right.append(law[x[t - 1]].argmax() == x[t])
        copies.append(copied[t])
copies = np.array(copies)
print(f"{copies.mean():.1%} of the tokens lie in a copy; the likeliest token after the one before is right in {np.mean(right):.1%}")
for reader, n in nats.items():
    n = np.array(n)
    print(f"{reader}: {n.mean():.3f} nats, {n[copies].mean():.3f} in copies, {n[~copies].mean():.3f} elsewhere")
