"""bench/vs-llama-cpp, after the shell has prepared the environment: one checkpoint in two programs.

Both sides are given token ids, so that tokenizers and models are judged apart. llama.cpp runs with its usual settings and with f32 in its
cache; a window of the perplexity begins with the token that begins a text, where the model has one, as its own tool does.
"""
import argparse
import json
import math
import os
import subprocess
import sys
import tempfile

import llama_cpp
import numpy
from llama_cpp import Llama

PROMPTS = [
    "The capital of France is", "Once upon a time, in a village by the sea,", "Water boils at a temperature of",
    "def fibonacci(n):\n", "The three primary colours are", "In 1969, the first human",
    "To make bread, you need flour,", "The opposite of hot is", "A triangle has three sides, and a square has",
    "She opened the door and saw", "The largest planet in our solar system is", "import numpy as np\n\nx = np.",
    "Dear Sir or Madam,\n\nI am writing to", "Q: What is the sum of 2 and 3?\nA:", "The cat sat on the",
    "Photosynthesis is the process by which", "List of fruits:\n1. Apple\n2.", "It was the best of times,",
    "The Pythagorean theorem says that", "Good morning! How are",
]
TEXTS = PROMPTS[:12] + [
    "Tabs\tand  double spaces, and a line\r\nof Windows.", "naïve café, Ελληνικά, русский, 中文字符, 日本語, العربية",
    "emoji: 😀👩‍👩‍👧 and flags 🇩🇪", "numbers 1234567890 3.14159 1e-9", "I'll we've don't IT'S", "<b>html & entities;</b>",
    "x" * 200, " leading and trailing ",
]


def ours(args, model, lines, *options):
    bench = os.path.join(os.path.dirname(args.mneme), "bench-greedy")
    text = "".join(" ".join(map(str, ids)) + "\n" for ids in lines)
    run = subprocess.run([bench, model, "--threads", str(args.threads), *options], input=text, capture_output=True, text=True)
    if run.returncode:
        sys.exit(run.stderr)
    return [json.loads(line) for line in run.stdout.splitlines()]


def our_ids(args, model, text, begin):
    run = subprocess.run([args.mneme, "tokenize", model, "--json", *([] if begin else ["--plain"])], input=text.encode(), capture_output=True)
    if run.returncode:
        sys.exit(run.stderr.decode())
    return json.loads(run.stdout)["ids"]


def open_llama(args, model, n_ctx, everything):
    return Llama(model, n_ctx=n_ctx, n_batch=512, n_threads=args.threads, n_threads_batch=args.threads, logits_all=everything, verbose=False,
                 type_k=0, type_v=0)


def last_logits(llama):
    at = llama_cpp.llama_get_logits_ith(llama.ctx, -1)
    return numpy.ctypeslib.as_array(at, shape=(llama.n_vocab(),))


def greedy(llama, ids, n, one_by_one=False):
    """The n likeliest tokens after ids, and the gap of each one's logit to the second's."""
    llama.reset()
    out, gaps = [], []
    for piece in [[i] for i in ids] if one_by_one else [ids]:
        llama.eval(piece)
    for i in range(n):
        logits = last_logits(llama)
        second, first = sorted(numpy.argpartition(logits, -2)[-2:], key=lambda k: logits[k])
        out.append(int(first))
        gaps.append(float(logits[first] - logits[second]))
        if i + 1 < n:
            llama.eval([int(first)])
    return out, gaps


def part_ways(args, name, llama, prompts, mine, bars, what):
    """Where two programs' likeliest tokens part, and how near the second was there."""
    worst, whole = 0.0, 0
    for text, ids, our in zip(PROMPTS, prompts, mine):
        theirs, gaps = greedy(llama, ids, len(our["ids"]))
        at = next((i for i, (a, b) in enumerate(zip(theirs, our["ids"])) if a != b), None)
        whole += at is None
        if at is not None:
            worst = max(worst, gaps[at])
            print(f"{name}, {what}: {text!r} parts at token {at}, gap {gaps[at]:.4f} there, {our['gap'][at]:.4f} here", flush=True)
    bars.append((f"{name}, {what}, {len(PROMPTS)} prompts", f"{whole} equal, largest gap where they part {worst:.4f}", worst < 1e-2))


def beside_itself(args, model, name, prompts):
    """The same file in llama.cpp with sums in other orders: a prompt token by token, flash attention, its usual cache of f16."""
    def again(flash, one_by_one, cache):
        llama = Llama(model, n_ctx=1024, n_batch=512, n_threads=args.threads, n_threads_batch=args.threads, verbose=False, flash_attn=flash,
                      type_k=cache, type_v=cache)
        return [greedy(llama, ids, 64, one_by_one) for ids in prompts]
    usual = again(False, False, 0)
    for what, other in (("prompts token by token", (False, True, 0)), ("flash attention", (True, False, 0)), ("a cache in f16", (False, False, 1))):
        worst, whole = 0.0, 0
        for (first, gaps), (second, _) in zip(usual, again(*other)):
            at = next((i for i, (a, b) in enumerate(zip(first, second)) if a != b), None)
            whole += at is None
            worst = max(worst, gaps[at] if at is not None else 0)
        print(f"{name}: llama.cpp beside itself with {what}: {whole} of {len(prompts)} equal, largest gap where they part {worst:.4f}", flush=True)


def windows(ids, begin, n=512):
    rows = [ids[i:i + n] for i in range(0, len(ids) - n + 1, n)]
    return [[begin] + row[1:] if begin is not None else row for row in rows]


def scores(llama, row):
    llama.reset()
    llama.eval(row)
    logits = numpy.array(llama.scores[:len(row) - 1], dtype=numpy.float64)
    top = logits.max(axis=1)
    norm = top + numpy.log(numpy.exp(logits - top[:, None]).sum(axis=1))
    return norm - logits[numpy.arange(len(row) - 1), row[1:]]


def perplexity(nll):
    late = numpy.concatenate([numpy.asarray(row)[len(row) // 2:] for row in nll])
    return math.exp(late.mean())


def exactly(args, model, name, prompts, narrow, bars):
    """The same weights as f32 for llama.cpp, so that neither side rounds activations."""
    with tempfile.TemporaryDirectory() as folder:
        wide = os.path.join(folder, "f32.gguf")
        subprocess.run([args.mneme, "convert", model, "--out", wide, "--type", "f32", "--quiet"], check=True, stdout=subprocess.DEVNULL)
        llama = open_llama(args, wide, 1024, False)
        same = sum(greedy(llama, ids, 64)[0] == out for ids, out in zip(prompts, narrow))
        print(f"{name}: llama.cpp's own answers with its weights in blocks and as f32 are the same for {same} of {len(prompts)} prompts", flush=True)
        part_ways(args, name, llama, prompts, ours(args, model, prompts, "--tokens", "64", "--exact"), bars, "greedy, nobody rounds activations")


def compare(args, model, bars):
    name = os.path.basename(model)
    llama = open_llama(args, model, 1024, False)
    usual = "true" if llama.metadata.get("tokenizer.ggml.model") == "llama" else "false"
    begins = llama.metadata.get("tokenizer.ggml.add_bos_token", usual) == "true"
    prompts = [llama.tokenize(p.encode(), add_bos=True) for p in PROMPTS]
    if "tokens" in args.parts:
        equal = sum(our_ids(args, model, text, True) == llama.tokenize(text.encode(), add_bos=True) for text in TEXTS)
        bars.append((f"{name}, tokens of {len(TEXTS)} texts", f"{equal} equal", equal == len(TEXTS)))
    if "greedy" in args.parts:
        part_ways(args, name, llama, prompts, ours(args, model, prompts, "--tokens", "64"), bars, "greedy")
    if "itself" in args.parts:
        beside_itself(args, model, name, prompts)
    if "exact" in args.parts:
        exactly(args, model, name, prompts, [greedy(llama, ids, 64)[0] for ids in prompts], bars)
    if "perplexity" in args.parts:
        begin = llama.token_bos() if begins else None
        with open(args.text, "rb") as f:
            text = f.read(50 * 1024).decode("utf-8", "ignore")
        rows = windows(llama.tokenize(text.encode(), add_bos=begins), begin)
        llama = open_llama(args, model, 512, True)
        theirs = perplexity([scores(llama, row) for row in rows])
        mine = perplexity([r["nll"] for r in ours(args, model, rows, "--score")])
        bars.append((f"{name}, perplexity, {len(rows)} windows", f"{mine:.4f} beside {theirs:.4f} ({mine / theirs:.5f})",
                     abs(mine / theirs - 1) < 0.005))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--mneme", required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--text", default=os.path.join(os.path.dirname(__file__), "../../data/books/moby-dick.txt"))
    parser.add_argument("--parts", default="tokens,greedy,itself,exact,perplexity")
    parser.add_argument("models", nargs="+")
    args = parser.parse_args()
    args.parts = args.parts.split(",")
    bars = []
    for model in args.models:
        compare(args, model, bars)
    print()
    for what, figure, ok in bars:
        print(f"{what}: {figure} {'ok' if ok else 'short'}")
    sys.exit(0 if all(ok for _, _, ok in bars) else 1)


if __name__ == "__main__":
    main()
