"""bench/recurrences-vs-pytorch, after the shell has prepared the environment: whole layers, forward and backward."""
import argparse
import pathlib
import sys

from side_by_side import Bars, Side, alternate, print_table

HERE = pathlib.Path(__file__).resolve().parent
BAR = 2.0
MIXERS = {"gla": "{type: gla, heads: 4, key_dim: 64}", "mamba2": "{type: mamba2, expand: 1, head_dim: 64, state: 64}",
          "gated_deltanet": "{type: gated_deltanet, heads: 4}", "rwkv7": "{type: rwkv7, heads: 4}"}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mneme", default=str(HERE.parents[1] / "build" / "mneme"))
    parser.add_argument("--repetitions", type=int, default=7, help="timed turns of each side, 5 or more")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seq-len", type=int, default=2048)
    parser.add_argument("--systems", default=" ".join(MIXERS), help="some of: " + " ".join(MIXERS))
    args = parser.parse_args()
    if args.repetitions < 5:
        parser.error("--repetitions: 5 or more are needed for a median")
    bars = Bars()
    rows = [("system", "Mneme tok/s", "(min-max)", "PyTorch tok/s", "(min-max)", "ratio")]
    for system in args.systems.split():
        common = ["--steps-on-stdin", "--seq-len", str(args.seq_len), "--threads", str(args.threads)]
        ours = Side("mneme", [args.mneme, "bench", "lmm", "--json", "--mixer", MIXERS[system], *common])
        peer = Side("PyTorch", [sys.executable, "-W", "ignore", str(HERE / "recurrences.py"), "--system", system, *common])
        if ours.info["tokens_per_step"] != peer.info["tokens_per_step"]:
            raise SystemExit(f"{system}: the sides take steps of different size")
        alternate(ours, peer, 4, args.repetitions)
        speed = [side.median("tokens_per_second") for side in (ours, peer)]
        spreads = ["{:.0f}-{:.0f}".format(*side.spread("tokens_per_second")) for side in (ours, peer)]
        rows.append((system, f"{speed[0]:.0f}", spreads[0], f"{speed[1]:.0f}", spreads[1], f"{speed[0] / speed[1]:.2f}"))
        bars.at_least(f"{system}, forward+backward, T {args.seq_len}, Mneme over PyTorch", speed[0] / speed[1], BAR)
    print(f"{peer.info['peer']} and Mneme: dim 256, 4 heads of 64, f32, {args.threads} threads, by turns, medians of {args.repetitions}")
    print_table(rows)
    return bars.close()


if __name__ == "__main__":
    sys.exit(main())
