"""bench/decode-vs-llama-cpp, after the shell has prepared the environment: how long tokens take in two programs, by turns.

llama.cpp runs with its usual settings, with as many threads, and a batch that holds all that is read at once.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import time

from llama_cpp import Llama

CONTEXT, PREFILL = 128, 512


class Ours:
    def __init__(self, args, model):
        bench = os.path.join(os.path.dirname(args.mneme), "bench-decode")
        self.process = subprocess.Popen([bench, model, "--threads", str(args.threads), "--context", str(CONTEXT), "--prefill", str(PREFILL),
                                         "--tokens", str(args.tokens), "--told"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def turn(self):
        self.process.stdin.write("turn\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            sys.exit("bench-decode ended early")
        record = json.loads(line)
        return record["prefill"], record["token"]


class Theirs:
    def __init__(self, args, model):
        self.tokens = args.tokens
        self.llama = Llama(model, n_ctx=CONTEXT + PREFILL + args.tokens, n_batch=PREFILL, n_ubatch=PREFILL, n_threads=args.threads,
                           n_threads_batch=args.threads, verbose=False)
        self.ids = [7 * i % (self.llama.n_vocab() - 1) + 1 for i in range(PREFILL)]

    def turn(self):
        self.llama.reset()
        began = time.perf_counter()
        self.llama.eval(self.ids)
        prefill = time.perf_counter() - began
        self.llama.reset()
        self.llama.eval(self.ids[:CONTEXT])
        began = time.perf_counter()
        for i in range(self.tokens):
            self.llama.eval(self.ids[i:i + 1])
        return prefill, (time.perf_counter() - began) / self.tokens


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--mneme", required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("models", nargs="+")
    args = parser.parse_args()
    short = False
    for model in args.models:
        sides = [Ours(args, model), Theirs(args, model)]
        for side in sides:
            side.turn()
        times = [[], []]
        for turn in range(args.turns):
            for i in (0, 1) if turn % 2 == 0 else (1, 0):
                times[i].append(sides[i].turn())
        print(os.path.basename(model))
        for k, what in ((1, "a token behind %d" % CONTEXT), (0, "%d tokens" % PREFILL)):
            mine, other = ([t[k] for t in side] for side in times)
            ratio = statistics.median(o / m for m, o in zip(mine, other))
            short |= ratio < 1
            print("  %-20s Mneme %8.2f ms, llama.cpp %8.2f ms (shortest); %.2f times its speed" % (what, 1e3 * min(mine), 1e3 * min(other), ratio))
        sides[0].process.stdin.close()
        sides[0].process.wait()
    sys.exit(short)


if __name__ == "__main__":
    main()
