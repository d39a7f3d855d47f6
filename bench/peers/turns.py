"""bench/turns: two builds of Mneme by turns. What both can do is asked of both; nothing but Python's own library is needed.

A case is either a process that takes steps as told on standard input (`mneme bench`), or a command that is run whole. Each turn
runs both builds, the first of them changing from turn to turn, and gives one ratio; a case's figure is the median of its ratios.
"""
import argparse
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

from side_by_side import Side, print_table

BAR = 0.97
ROOT = pathlib.Path(__file__).resolve().parents[2]
MIXERS = {
    "titans_mag": "{type: titans_mag, heads: 4, memory_net: linear, chunk: 32, window: 64}",
    "gated_deltanet": "{type: gated_deltanet, heads: 4}",
    "aaren": "{type: aaren, heads: 4}",
}


class Steps:
    """A process that takes `count` steps a turn; seconds by the processor's time of its one thread, or by the wall clock."""

    def __init__(self, binary, args, threads, count):
        self.side, self.one_thread, self.count = Side(binary, [binary, "bench", *args, "--json", "--steps-on-stdin"]), threads == 1, count
        self.turn()

    def busy(self):
        return int(pathlib.Path(f"/proc/{self.side.process.pid}/schedstat").read_text().split()[0]) * 1e-9

    def turn(self):
        before = self.busy()
        self.side.step(self.count)
        return self.busy() - before if self.one_thread else self.side.records[-1]["seconds"]

    def end(self):
        self.side.end()


NEW = "{new}"  # in a command: a directory that is not there yet, another one each turn


class Command:
    """A command that is run whole each turn."""

    def __init__(self, binary, args, threads, home):
        self.command, self.one_thread, self.home, self.turns = [binary, *args], threads == 1, home, 0
        self.turn()

    def turn(self):
        self.turns += 1
        command = [f"{self.home}/new-{self.turns}" if word == NEW else word for word in self.command]
        start, process = time.monotonic(), subprocess.Popen(command, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise SystemExit(f"{' '.join(command)} failed")
        return usage.ru_utime + usage.ru_stime if self.one_thread else time.monotonic() - start

    def end(self):
        pass


def trained(binary, where):
    """A small model, trained by the build that will run it."""
    command = [binary, "train", str(ROOT / "recipes/quick.yaml"), "--set", "train.steps=25", "--set",
               f"model.block.mixer={MIXERS['gated_deltanet']}", "--out", where, "--quiet"]
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    return where


def cases(threads, models):
    """Pairs of a name and what makes one side of it from a binary."""
    t = ["--threads", str(threads)]
    for dtype in "f32", "bf16":
        yield f"train 10m {dtype}", lambda b, d=dtype: Steps(b, ["train", "--size", "10m", "--dtype", d, *t], threads, 1)
    for name, mixer in MIXERS.items():
        yield f"layer {name}", lambda b, m=mixer: Steps(b, ["lmm", "--mixer", m, "--seq-len", "2048", *t], threads, 4)
    train = ["train", str(ROOT / "recipes/quick.yaml"), "--set", "train.steps=60", "--out", NEW, "--quiet", *t]
    yield "train recipes/quick.yaml", lambda b: Command(b, train, threads, models[b])
    for precision in "f32", "bf16":
        p = ["--precision", precision, *t]
        stream = ["stream", "--random", "200000", "--quiet", *p]
        decode = ["generate", "--prompt", "The", "--tokens", "20000", "--ignore-eos", "--quiet", *p]
        for name, args in ("stream", stream), ("decode", decode):
            yield f"{name} {precision}", lambda b, a=args: Command(b, [*a, "--model", models[b] + "/m"], threads, models[b])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", help="the older build's program")
    parser.add_argument("--mneme", default=str(ROOT / "build" / "mneme"))
    parser.add_argument("--repetitions", type=int, default=7, help="turns of each case, 3 or more")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", default="", help="cases whose name has this text")
    args = parser.parse_args()
    if args.repetitions < 3:
        parser.error("--repetitions: 3 or more are needed for a median")
    binaries = [os.path.abspath(args.old), os.path.abspath(args.mneme)]
    if binaries[0] == binaries[1]:
        parser.error("the two programs are one and the same")
    rows, slower = [("case", "turns", "old s (min)", "new s (min)", "ratio (min-max)", "")], 0
    with tempfile.TemporaryDirectory() as home:
        os.chdir(ROOT)  # recipes name their data from here
        models = {}
        for i, binary in enumerate(binaries):
            models[binary] = f"{home}/{i}"
            os.mkdir(models[binary])
            trained(binary, models[binary] + "/m")
        for name, make in cases(args.threads, models):
            if args.only not in name:
                continue
            sides, times = [make(binary) for binary in binaries], []
            for i in range(args.repetitions):
                turn = {}
                for at in (0, 1) if i % 2 == 0 else (1, 0):
                    turn[at] = sides[at].turn()
                times.append((turn[0], turn[1]))
            for side in sides:
                side.end()
            ratios = [old / new for old, new in times]
            ratio = statistics.median(ratios)
            slower += ratio < BAR
            rows.append((name, str(len(times)), f"{min(t[0] for t in times):.3f}", f"{min(t[1] for t in times):.3f}",
                         f"{ratio:.2f} ({min(ratios):.2f}-{max(ratios):.2f})", "SLOWER" if ratio < BAR else ""))
            print(f"{name}: {ratio:.2f}", file=sys.stderr, flush=True)
    clock = "the processor's time" if args.threads == 1 else "the wall clock"
    print(f"old {binaries[0]}, new {binaries[1]}: {args.threads} thread{'s' * (args.threads != 1)}, by turns, {clock}; the ratio is the "
          "median of the turns' ratios, above 1 the new build is faster")
    print_table(rows)
    print(f"{slower} below {BAR}" if slower else f"nothing below {BAR}")
    return 1 if slower else 0


if __name__ == "__main__":
    sys.exit(main())
