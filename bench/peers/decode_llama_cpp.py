"""bench/decode-vs-llama-cpp, after the shell has prepared the environment: how long tokens take in two programs, by turns.

llama.cpp runs with its usual settings, with as many threads, and reads 512 tokens at once, of all streams together; so does Mneme, with keys
and values in f16 as they are there. Each side is a process of its own that takes a turn for each line that it is told; the memory is its
peak of resident pages (those of the mapped file are among them on both sides), of llama.cpp's less what Python and the library took before
the model was opened. The first token is that of fresh processes, by turns, of which the median counts.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import time

FIRST, PREFILL, OPENINGS = 16, 512, 5


class Theirs:
    def __init__(self, args, model):
        import llama_cpp
        self.lib, self.args = llama_cpp, args
        self.before = peak_of("self")
        began = time.perf_counter()
        self.room = max(args.context, PREFILL) + args.tokens * (args.turns + 1 if args.going_on else 1)
        self.llama = llama_cpp.Llama(model, n_ctx=self.room, n_batch=PREFILL, n_ubatch=PREFILL,
                                     n_threads=args.threads, n_threads_batch=args.threads, verbose=False)
        ids = [7 * i % (self.llama.n_vocab() - 1) + 1 for i in range(self.room)]
        self.ids = ids
        self.llama.eval(ids[:FIRST])
        self.first = time.perf_counter() - began
        self.llama.reset()
        self.there = False  # the context, of a side that goes on
        self.streams = None if args.streams == 1 else self.open_streams()

    def open_streams(self):
        lib, args = self.lib, self.args
        params = lib.llama_context_default_params()
        params.n_ctx = args.streams * (args.context + args.tokens)
        params.n_batch = params.n_ubatch = PREFILL
        params.n_seq_max = args.streams
        params.n_threads = params.n_threads_batch = args.threads
        context = lib.llama_init_from_model(self.llama.model, params)
        if not context:
            sys.exit("llama.cpp opens no context of so many streams")
        return context

    def decode(self, tokens):
        """Of (token, position, stream) one step, and logits of each stream's last one."""
        batch = self.lib.llama_batch_init(len(tokens), 0, 1)
        batch.n_tokens = len(tokens)
        for i, (token, position, stream) in enumerate(tokens):
            batch.token[i], batch.pos[i], batch.n_seq_id[i] = token, position, 1
            batch.seq_id[i][0] = stream
            batch.logits[i] = i + 1 == len(tokens) or tokens[i + 1][2] != stream
        if self.lib.llama_decode(self.streams, batch):
            sys.exit("llama.cpp could not decode")
        self.lib.llama_batch_free(batch)

    def turn(self):
        args, llama, ids = self.args, self.llama, self.ids
        prefill = None
        if args.going_on and self.there:
            began = time.perf_counter()
            for i in range(args.tokens):
                llama.eval(ids[i:i + 1])
        elif self.streams:
            self.lib.llama_memory_clear(self.lib.llama_get_memory(self.streams), True)
            for stream in range(args.streams):
                for at in range(0, args.context, PREFILL):
                    self.decode([(ids[i], i, stream) for i in range(at, min(at + PREFILL, args.context))])
            began = time.perf_counter()
            for i in range(args.tokens):
                self.decode([(ids[i], args.context + i, stream) for stream in range(args.streams)])
        else:
            self.there = True
            llama.reset()
            began = time.perf_counter()
            if not args.going_on:
                llama.eval(ids[:PREFILL])
                prefill = time.perf_counter() - began
                llama.reset()
            llama.eval(ids[:args.context])
            began = time.perf_counter()
            for i in range(args.tokens):
                llama.eval(ids[i:i + 1])
        return {"prefill": prefill, "token": (time.perf_counter() - began) / args.tokens}

    def serve(self):
        print(json.dumps({"first": self.first, "before": self.before}), flush=True)
        for _ in sys.stdin:
            print(json.dumps(self.turn()), flush=True)


def peak_of(process):
    with open(f"/proc/{process}/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmHWM:")) / 1024


class Side:
    def __init__(self, command):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.opened = self.read()

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"{self.process.args[0]} ended early")
        return json.loads(line)

    def turn(self):
        self.process.stdin.write("turn\n")
        self.process.stdin.flush()
        return self.read()

    def close(self):
        peak = peak_of(self.process.pid) - self.opened.get("before", 0)
        self.process.stdin.close()
        self.process.wait()
        return peak


def compare(args, model, context, streams):
    """True where Mneme is the slower or the larger one."""
    numbers = ["--threads", str(args.threads), "--context", str(context), "--tokens", str(args.tokens)]
    bench = os.path.join(os.path.dirname(args.mneme), "bench-decode")
    turns = ["--turns", str(args.turns)] + (["--going-on"] if args.going_on else [])
    prefill = streams == 1 and not args.going_on
    commands = [[bench, model, *numbers, "--prefill", str(PREFILL if prefill else 0), "--batch", str(streams), "--cache", "f16", "--told", *turns],
                [sys.executable, __file__, "--theirs", *numbers, "--streams", str(streams), "--mneme", args.mneme, *turns, model]]
    sides = [Side(command) for command in commands]
    for side in sides:
        side.turn()
    times = [[], []]
    for turn in range(args.turns):
        for i in (0, 1) if turn % 2 == 0 else (1, 0):
            times[i].append(sides[i].turn())
    first = [[side.opened["first"]] for side in sides]
    for opening in range(1, 1 if args.going_on else OPENINGS):
        for i in (0, 1) if opening % 2 == 0 else (1, 0):
            fresh = Side(commands[i])
            first[i].append(fresh.opened["first"])
            fresh.close()
    first = [statistics.median(times) for times in first]
    short = False
    print(f"{os.path.basename(model)}, {streams} stream{'s' * (streams > 1)}")
    rows = [("token", f"a token behind {context}")] + ([("prefill", f"{PREFILL} tokens")] if prefill else [])
    for key, what in rows:
        mine, other = ([t[key] for t in side] for side in times)
        ratio = statistics.median(o / m for m, o in zip(mine, other))
        short |= ratio < 1
        print(f"  {what:22} Mneme {1e3 * min(mine):8.2f} ms, llama.cpp {1e3 * min(other):8.2f} ms (shortest); {ratio:.2f} times its speed")
    peak = [side.close() for side in sides]
    if not args.going_on:
        print(f"  {'the first token':22} Mneme {1e3 * first[0]:8.2f} ms, llama.cpp {1e3 * first[1]:8.2f} ms, file opened and {FIRST} tokens read")
    print(f"  {'memory':22} Mneme {peak[0]:8.1f} MiB, llama.cpp {peak[1]:8.1f} MiB; {peak[0] / peak[1]:.2f} of it", flush=True)
    return short or peak[0] > peak[1] or (first[0] > first[1] and not args.going_on)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--mneme", required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--context", default="128")
    parser.add_argument("--streams", default="1")
    parser.add_argument("--going-on", action="store_true", help="one stream whose context is read once; turns follow each other")
    parser.add_argument("--theirs", action="store_true")
    parser.add_argument("models", nargs="+")
    args = parser.parse_args()
    if args.theirs:
        args.context, args.streams = int(args.context), int(args.streams)
        Theirs(args, args.models[0]).serve()
        return
    short = False
    for model in args.models:
        for context in map(int, args.context.split(",")):
            for streams in map(int, args.streams.split(",")):
                short |= compare(args, model, context, streams)
    sys.exit(short)


if __name__ == "__main__":
    main()
