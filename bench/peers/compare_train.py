"""bench/train-vs-pytorch, after the shell has prepared the environment: the training step of both decoders, side by side.

Every line says what share of the arithmetic peak each side reaches: `mneme bench machine`, measured in the same run before and
after each case. The operations of a step are Mneme's count, for both sides: the models are the same.

Everything ends within --minutes. Without AVX-512 PyTorch emulates bf16, at minutes a step; there it takes one step, in its
autocast form, and if even that does not end in its share of the time, its speed is given as an upper bound.
"""
import argparse
import json
import pathlib
import subprocess
import sys
import time

from side_by_side import Bars, Side, TooSlow, print_table

HERE = pathlib.Path(__file__).resolve().parent
SPEED_BAR = {"f32": 1.5, "bf16": 1.3}
MEMORY_BAR = 0.5
WARM_UP = 2


def has_avx512():
    try:
        with open("/proc/cpuinfo") as f:
            return " avx512f " in f.read().replace("\n", " ")
    except OSError:
        return True


class Peak:
    """The arithmetic peak, the best of all times that it was measured."""

    def __init__(self, mneme, threads):
        self.command, self.best = [mneme, "bench", "machine", "--json", "--threads", str(threads)], {"f32": 0, "bf16": 0}

    def measure(self):
        found = json.loads(subprocess.run(self.command, check=True, capture_output=True, text=True).stdout)
        for dtype in self.best:
            self.best[dtype] = max(self.best[dtype], found[f"{dtype}_gflops"])


class Case:
    """One decoder in one type: both sides by turns, until there are enough turns or no time is left."""

    def __init__(self, args, size, dtype, until):
        self.size, self.dtype, self.late, self.turns = size, dtype, None, 0
        self.emulated = dtype == "bf16" and not has_avx512()
        common = ["--steps-on-stdin", "--size", size, "--threads", str(args.threads)]
        precision = "bf16-autocast" if self.emulated else dtype
        self.ours, self.peer = None, None
        try:
            self.ours = Side("Mneme", [args.mneme, "bench", "train", "--json", "--dtype", dtype, *common], until=until)
            self.peer = Side("PyTorch", [sys.executable, str(HERE / "pytorch_train.py"), "--precision", precision, *common],
                             until=until)
            self.check()
            self.run(args.repetitions, until)
        except TooSlow:
            pass
        for side in filter(None, (self.ours, self.peer)):
            side.end()

    def measured(self):
        """Whether there is a time of Mneme's, and of PyTorch's or a bound on it."""
        return bool(self.peer and self.ours.records and (self.peer.records or self.late))

    def check(self):
        ours, peer = self.ours.info, self.peer.info
        for key in ("parameters", "tokens_per_step"):
            if ours[key] != peer[key]:
                raise SystemExit(f"{self.size}: {key} {ours[key]} of Mneme, {peer[key]} of PyTorch: not the same step")

    def run(self, repetitions, until):
        for _ in range(WARM_UP):
            self.ours.step(1, keep=False)
        start = time.monotonic()
        try:
            for _ in range(0 if self.emulated else WARM_UP):
                self.peer.step(1, keep=False)
            for i in range(1 if self.emulated else repetitions):
                began = time.monotonic()
                for side in (self.ours, self.peer) if i % 2 == 0 else (self.peer, self.ours):
                    side.step(1)
                self.turns += 1
                if sys.stderr.isatty():
                    print(f"\r{self.size} {self.dtype}: {i + 1} turns", end="", file=sys.stderr, flush=True)
                if 2 * time.monotonic() - began > until:  # the next turn would come too late
                    break
        except TooSlow:
            self.late = time.monotonic() - start
        if sys.stderr.isatty():
            print("\r" + " " * 30 + "\r", end="", file=sys.stderr, flush=True)

    def tokens_per_second(self, side):
        return side.median("tokens_per_second") if side.records else self.peer.info["tokens_per_step"] / self.late

    def note(self):
        if not self.measured():
            return f"{self.size} {self.dtype}: left out, no time for a turn of both; give --minutes more, or --sizes or --dtypes fewer"
        if self.late and not self.peer.records:
            return f"{self.size} {self.dtype}: PyTorch's first step had not ended after {self.late:.0f} s; its speed is below what is given"
        if self.emulated:
            return f"{self.size} {self.dtype}: without AVX-512 PyTorch emulates bf16: one step, not warmed up, autocast form alone"
        return None


def end_of_case(at, count, deadline):
    """When the case that comes now must have ended: an equal part of what is left."""
    now = time.monotonic()
    return now + (deadline - now) / (count - at)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mneme", default=str(HERE.parents[1] / "build" / "mneme"))
    parser.add_argument("--sizes", nargs="+", default=["10m", "30m"], choices=["10m", "30m"])
    parser.add_argument("--dtypes", nargs="+", default=["f32", "bf16"], choices=["f32", "bf16"])
    parser.add_argument("--repetitions", type=int, default=7, help="timed turns of each side, 5 or more")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=14, help="all cases end within so many")
    args = parser.parse_args()
    if args.repetitions < 5:
        parser.error("--repetitions: 5 or more are needed for a median")
    if args.minutes <= 0:
        parser.error("--minutes: must be positive")

    deadline, peak, cases = time.monotonic() + 60 * args.minutes, Peak(args.mneme, args.threads), []
    order = [(size, dtype) for dtype in sorted(args.dtypes, reverse=True) for size in args.sizes]  # f32 first: it is never slow
    peak.measure()
    for at, (size, dtype) in enumerate(order):
        cases.append(Case(args, size, dtype, end_of_case(at, len(order), deadline)))
        peak.measure()

    bars, mib = Bars(), 2 ** 20
    rows = [("decoder, type", "turns", "Mneme tok/s", "(min-max)", "of peak", "PyTorch tok/s", "(min-max)", "of peak", "ratio",
             "Mneme MiB", "PyTorch MiB", "ratio")]
    for case in cases:
        if not case.measured():
            bars.add(f"training tokens/s, {case.size} {case.dtype}, Mneme over PyTorch", "not measured", f">= {SPEED_BAR[case.dtype]}x", False)
            continue
        speed, cells = [], []
        for side in (case.ours, case.peer):
            tokens = case.tokens_per_second(side)
            share = tokens / case.ours.info["tokens_per_step"] * case.ours.info["flops_per_step"] / (peak.best[case.dtype] * 1e9)
            bound = "" if side.records else "< "
            spread = "{:.0f}-{:.0f}".format(*side.spread("tokens_per_second")) if side.records else ""
            speed.append(tokens)
            cells += [f"{bound}{tokens:.0f}", spread, f"{bound}{100 * share:.0f} %"]
        ratio, form = speed[0] / speed[1], f" ({case.peer.info['precision']})" if case.dtype == "bf16" else ""
        bars.at_least(f"training tokens/s, {case.size} {case.dtype}, Mneme over PyTorch", ratio, SPEED_BAR[case.dtype])
        memory = ["", "", ""]
        if case.peer.records:  # of the step: what the process holds at its peak above what it held before the model was made
            held = [side.records[-1]["peak_rss_bytes"] - side.info["rss_before_bytes"] for side in (case.ours, case.peer)]
            memory = [f"{held[0] / mib:.0f}", f"{held[1] / mib:.0f}", f"{held[0] / held[1]:.2f}"]
            bars.at_most(f"peak memory of the step, {case.size} {case.dtype}, Mneme over PyTorch", held[0] / held[1], MEMORY_BAR)
        rows.append((f"{case.size} {case.dtype}{form}", str(case.turns), *cells, f"{ratio:.2f}", *memory))
    peer = next((case.peer.info["peer"] for case in cases if case.measured()), "PyTorch")
    print(f"{peer} and Mneme, {args.threads} threads, by turns, medians; memory: peak resident above the process "
          "before its model")
    print(f"arithmetic peak measured in this run: {peak.best['f32']:.0f} GFLOP/s in f32, {peak.best['bf16']:.0f} in bf16")
    print_table(rows)
    for note in filter(None, (case.note() for case in cases)):
        print(note)
    return bars.close()


if __name__ == "__main__":
    sys.exit(main())
