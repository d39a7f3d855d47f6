"""bench/lmm-vs-titans-pytorch, after the shell has prepared the environment: forward and backward of a linear memory, or of deep ones.

NeuralMemory has neither convolutions on its queries, keys and values nor an output gate, so the bars are held with ours switched
off, too: the same projections on both sides. The rows "whole layer" are our layer as a model uses it, with both. --deep: memories of two
matrices of expansion 2 instead, Titans' and ATLAS'; beside ATLAS, whose window of past pairs it has no equal of, NeuralMemory makes what it
writes orthogonal, too.
"""
import argparse
import pathlib
import sys

from side_by_side import Bars, Side, alternate, print_table

HERE = pathlib.Path(__file__).resolve().parent
SPEED_BAR = {16: 3.0, 64: 2.0}
DEEP_BAR = {16: 10.0, 64: 2.0}
DEEP = {"Titans": "type: titans_lmm, memory_net: mlp, memory_depth: 2", "ATLAS": "type: atlas, memory_net: mlp, features: plain"}
LENGTH_BAR = 15.0  # per cent between the shortest and the longest sequence


def deep(args):
    """Memories of two matrices, expansion 2."""
    bars = Bars()
    rows = [("memory, chunk, T", "Mneme tok/s", "(min-max)", "titans-pytorch tok/s", "(min-max)", "ratio")]
    common = ["--steps-on-stdin", "--seq-len", "8192", "--threads", str(args.threads)]
    for name, memory in DEEP.items():
        for chunk, bar in DEEP_BAR.items():
            if args.only and args.only != f"{name}-{chunk}":
                continue
            mixer = f"{{{memory}, memory_expand: 2, memory_residual: false, heads: 4, chunk: {chunk}, grad_clamp: 0, conv: 0, output_gate: false}}"
            ours = Side("mneme", [args.mneme, "bench", "lmm", "--json", "--mixer", mixer, *common])
            peer = Side("titans-pytorch", [sys.executable, "-W", "ignore", str(HERE / "titans_lmm.py"), "--depth", "2", "--expand", "2",
                                           "--chunk", str(chunk), *common] + ["--orthogonal"] * (name == "ATLAS"))
            if ours.info["tokens_per_step"] != peer.info["tokens_per_step"]:
                raise SystemExit(f"{name}: the sides take steps of different size")
            alternate(ours, peer, 1, args.repetitions, warm_up=1)
            speed = [side.median("tokens_per_second") for side in (ours, peer)]
            spreads = ["{:.0f}-{:.0f}".format(*side.spread("tokens_per_second")) for side in (ours, peer)]
            rows.append((f"{name}, {chunk}, 8192", f"{speed[0]:.0f}", spreads[0], f"{speed[1]:.0f}", spreads[1],
                         f"{speed[0] / speed[1]:.2f}"))
            bars.at_least(f"{name} with two matrices, forward+backward, chunk {chunk}, T 8192, Mneme over titans-pytorch",
                          speed[0] / speed[1], bar)
    print(f"{peer.info['peer']} and Mneme: dim 256, 4 heads of 64, two matrices of expansion 2, f32, {args.threads} threads, by turns, "
          f"medians of {args.repetitions}")
    print_table(rows)
    return bars.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mneme", default=str(HERE.parents[1] / "build" / "mneme"))
    parser.add_argument("--repetitions", type=int, default=7, help="timed turns of each side, 5 or more")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--deep", action="store_true", help="memories of two matrices instead of linear ones")
    parser.add_argument("--only", choices=[f"{name}-{chunk}" for name in DEEP for chunk in DEEP_BAR], help="with --deep: one row")
    args = parser.parse_args()
    if args.repetitions < 5:
        parser.error("--repetitions: 5 or more are needed for a median")
    if args.deep:
        return deep(args)

    def mneme(chunk, seq_len, whole=False):
        mixer = f"{{type: titans_lmm, heads: 4, chunk: {chunk}" + (", grad_clamp: 0}" if whole else ", grad_clamp: 0, conv: 0, output_gate: false}")
        return Side("mneme", [args.mneme, "bench", "lmm", "--json", "--steps-on-stdin", "--mixer", mixer, "--seq-len",
                              str(seq_len), "--threads", str(args.threads)])

    def check(side, seq_len):
        if side.info["tokens_per_step"] != seq_len:
            raise SystemExit(f"{side.name}: takes {side.info['tokens_per_step']} tokens a step, not {seq_len}")

    bars = Bars()
    rows = [("chunk, T", "Mneme tok/s", "(min-max)", "titans-pytorch tok/s", "(min-max)", "ratio")]
    for chunk in (16, 64):
        seq_len = 8192
        for whole in (False, True):
            ours = mneme(chunk, seq_len, whole)
            peer = Side("titans-pytorch", [sys.executable, "-W", "ignore", str(HERE / "titans_lmm.py"), "--steps-on-stdin",
                                           "--chunk", str(chunk), "--seq-len", str(seq_len), "--threads", str(args.threads)])
            check(ours, seq_len)
            check(peer, seq_len)
            alternate(ours, peer, 4, args.repetitions)  # a step is a tenth of a second: too short for a turn
            speed = [side.median("tokens_per_second") for side in (ours, peer)]
            spreads = ["{:.0f}-{:.0f}".format(*side.spread("tokens_per_second")) for side in (ours, peer)]
            rows.append((f"{chunk}, {seq_len}" + (", whole layer" if whole else ""), f"{speed[0]:.0f}", spreads[0],
                         f"{speed[1]:.0f}", spreads[1], f"{speed[0] / speed[1]:.2f}"))
            if not whole:
                bars.at_least(f"linear LMM forward+backward, chunk {chunk}, T {seq_len}, Mneme over titans-pytorch",
                              speed[0] / speed[1], SPEED_BAR[chunk])
            ours.end()
            peer.end()
    for chunk in (16, 64):
        short, long = mneme(chunk, 1024), mneme(chunk, 32768)
        check(short, 1024)
        check(long, 32768)
        for i in range(args.repetitions + 2):  # the same number of tokens at each turn
            short.step(32, keep=i >= 2)
            long.step(1, keep=i >= 2)
        short.end()
        long.end()
        speed = [side.median("tokens_per_second") for side in (short, long)]
        for side, seq_len, value in ((short, 1024, speed[0]), (long, 32768, speed[1])):
            rows.append((f"{chunk}, {seq_len}", f"{value:.0f}", "{:.0f}-{:.0f}".format(*side.spread("tokens_per_second"))))
        bars.at_most(f"linear LMM, chunk {chunk}, difference of tokens/s between T 1024 and T 32768",
                     100 * abs(speed[0] - speed[1]) / max(speed), LENGTH_BAR, unit=" %")
    rows = [row + ("",) * (len(rows[0]) - len(row)) for row in rows]
    print(f"{peer.info['peer']} and Mneme: dim 256, 4 heads of 64, depth 1, f32, {args.threads} threads, by turns, medians of "
          f"{args.repetitions}")
    print_table(rows)
    return bars.close()


if __name__ == "__main__":
    sys.exit(main())
