"""bench/train-vs-pytorch, after the shell has prepared the environment: the training step of both decoders, side by side."""
import argparse
import pathlib
import sys

from side_by_side import Bars, Side, alternate, print_table

HERE = pathlib.Path(__file__).resolve().parent
SPEED_BAR = {"f32": 1.5, "bf16": 1.3}
MEMORY_BAR = 0.5


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mneme", default=str(HERE.parents[1] / "build" / "mneme"))
    parser.add_argument("--sizes", nargs="+", default=["10m", "30m"], choices=["10m", "30m"])
    parser.add_argument("--dtypes", nargs="+", default=["f32", "bf16"], choices=["f32", "bf16"])
    parser.add_argument("--repetitions", type=int, default=7, help="timed turns of each side, 5 or more")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    if args.repetitions < 5:
        parser.error("--repetitions: 5 or more are needed for a median")

    bars, mib = Bars(), 2 ** 20
    rows = [("decoder, type", "Mneme tok/s", "(min-max)", "PyTorch tok/s", "(min-max)", "ratio", "Mneme MiB", "PyTorch MiB",
             "ratio")]
    for size in args.sizes:
        for dtype in args.dtypes:
            ours = Side("mneme", [args.mneme, "bench", "train", "--json", "--steps-on-stdin", "--size", size, "--dtype",
                                  dtype, "--threads", str(args.threads)])
            peer = Side("PyTorch", [sys.executable, str(HERE / "pytorch_train.py"), "--steps-on-stdin", "--size", size,
                                    "--precision", dtype, "--threads", str(args.threads)])
            alternate(ours, peer, 1, args.repetitions)
            if ours.info["parameters"] != peer.info["parameters"]:
                raise SystemExit(f"{size}: Mneme has {ours.info['parameters']} parameters, PyTorch "
                                 f"{peer.info['parameters']}: not the same model")
            if ours.info["tokens_per_step"] != peer.info["tokens_per_step"]:
                raise SystemExit(f"{size}: the two sides take different batches")
            speed = [side.median("tokens_per_second") for side in (ours, peer)]
            spreads = ["{:.0f}-{:.0f}".format(*side.spread("tokens_per_second")) for side in (ours, peer)]
            # Of the step: what the process holds at its peak above what it held before the model was made.
            memory = [side.records[-1]["peak_rss_bytes"] - side.info["rss_before_bytes"] for side in (ours, peer)]
            ratio, memory_ratio = speed[0] / speed[1], memory[0] / memory[1]
            form = f" ({peer.info['precision']})" if dtype == "bf16" else ""
            rows.append((f"{size} {dtype}{form}", f"{speed[0]:.0f}", spreads[0], f"{speed[1]:.0f}", spreads[1], f"{ratio:.2f}",
                         f"{memory[0] / mib:.0f}", f"{memory[1] / mib:.0f}", f"{memory_ratio:.2f}"))
            bars.at_least(f"training tokens/s, {size} {dtype}, Mneme over PyTorch", ratio, SPEED_BAR[dtype])
            bars.at_most(f"peak memory of the step, {size} {dtype}, Mneme over PyTorch", memory_ratio, MEMORY_BAR)
    print(f"{peer.info['peer']} and Mneme, {args.threads} threads, by turns, medians of {args.repetitions}; memory: peak "
          "resident above the process before its model")
    print_table(rows)
    return bars.close()


if __name__ == "__main__":
    sys.exit(main())
