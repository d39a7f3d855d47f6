"""bench/activation-policies: one training step under each activation policy, by turns."""
import argparse
import pathlib
import sys

from side_by_side import Side, print_table

POLICIES = ("keep", "recompute", "recompute_norms")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mneme", default=str(pathlib.Path(__file__).resolve().parents[2] / "build" / "mneme"))
    parser.add_argument("--sizes", nargs="+", default=["10m", "30m"], choices=["10m", "30m"])
    parser.add_argument("--dtypes", nargs="+", default=["f32", "bf16"], choices=["f32", "bf16"])
    parser.add_argument("--repetitions", type=int, default=7, help="timed turns of each policy")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()

    rows = [("decoder, type", "policy", "tok/s", "(min-max)", "of keep", "MiB", "of keep")]
    for size in args.sizes:
        for dtype in args.dtypes:
            sides = [Side(policy, [args.mneme, "bench", "train", "--json", "--steps-on-stdin", "--size", size, "--dtype", dtype,
                                   "--threads", str(args.threads), "--activations", policy]) for policy in POLICIES]
            for turn in range(args.repetitions + 1):  # the first warms up
                for side in sides[turn % 3:] + sides[:turn % 3]:
                    side.step(1, keep=turn > 0)
            speed = [side.median("tokens_per_second") for side in sides]
            memory = [side.records[-1]["peak_rss_bytes"] - side.info["rss_before_bytes"] for side in sides]
            for side, s, m in zip(sides, speed, memory):
                low, high = side.spread("tokens_per_second")
                rows.append((f"{size} {dtype}", side.name, f"{s:.0f}", f"{low:.0f}-{high:.0f}", f"{s / speed[0]:.2f}",
                             f"{m / 2 ** 20:.0f}", f"{m / memory[0]:.2f}"))
                side.end()
    print(f"medians of {args.repetitions} turns, {args.threads} threads; memory: peak resident above the process before its model")
    print_table(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
