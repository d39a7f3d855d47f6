"""The peers' side of bench/tokenizers-vs-peers; see there."""
import argparse, array, json, os, random, statistics, subprocess, tempfile, time

os.environ["RAYON_NUM_THREADS"] = "1"
from tokenizers import Tokenizer

WORDS = ("the of and to in is was that it for on with as his he be at by had not are but from or have an they which one you were all her she there would their we him been has when who will no more if out so up said what its about than into them can only other time new some could these two may first then do any like my now over such our man me even most made after also did many off before must well back through years much where your way down should because long each just state those people too world").split()
CODE = "def f(x, *args, **kwargs):\n    if x <= 0 and not args[\"key\"]:\n\t\treturn {'a': [1, 2.5e-3], \"b\": None}  # TODO(me): 0xFF != 255\n    for i in range(10_000):\n        print(f\"{i:>5}\\t{i**2}\")\n\n#include <stdio.h>\nint main(void) { return printf(\"%d\\n\", a->b[i]++ && !c); }\n"
HAN = "".join(chr(c) for c in list(range(0x4E00, 0x5200)) + [0x3002, 0xFF0C, 0x300A, 0x300B])
ODD = ["\U0001F600", "\U0001F468\u200d\U0001F469\u200d\U0001F467", "\U0001F1EB\U0001F1F7", "\U0001F44D\U0001F3FD", "\u0001", "\u007f", "\u200b", "\ufeff", "\ufffd", "\u00a0", "\u3000", "\r\n", "\t\t", "    ",
       "\u00bd", "\u2167", "\u0663", "e\u0301", "\u0130", "\u01c5", "\ufb01", "\uff21", "\u1e9b\u0323", "\U0001FAE8", "\u0928\u092e\u0938\u094d\u0924\u0947", "\u0645\u0631\u062d\u0628\u0627", "\u05e9\u05dc\u05d5\u05dd", "\ud55c\uad6d", "\u041c\u043e\u0439"]


def mixed(mb, seed=1):
    draw, out, size = random.Random(seed), [], 0
    while size < mb * 1e6:
        kind = draw.random()
        if kind < 0.6: piece = " ".join(draw.choices(WORDS, k=draw.randrange(5, 25))).capitalize() + draw.choice([". ", ", ", "!\n", "?\n\n", "'s ", ' "', ") ", "; "])
        elif kind < 0.8: piece = CODE[draw.randrange(len(CODE)):]
        elif kind < 0.9: piece = "".join(draw.choices(HAN, k=draw.randrange(5, 60)))
        elif kind < 0.97: piece = "".join(draw.choices(ODD, k=draw.randrange(1, 12)))
        else: piece = draw.choice(["1234567890", " " * draw.randrange(1, 80), "\n" * draw.randrange(1, 6), "=" * 70, "aGVsbG8gd29ybGQ" * 9]) + "x"
        out.append(piece)
        size += len(piece.encode())
    return "".join(out)


def run(*args):
    done = subprocess.run(args, capture_output=True, text=True)
    if done.returncode: raise SystemExit(done.stderr.strip() or f"{args[0]} failed")
    return json.loads(done.stdout)


def ids_of(path):
    a = array.array("i")
    with open(path, "rb") as f: a.frombytes(f.read())
    return a


def golden(program, path, work):
    """llama.cpp's own tokenisations beside the file: how many differ, of how many."""
    with open(path + ".inp", encoding="utf-8", newline="") as f: texts = f.read().split("\n__ggml_vocab_test__\n")
    with open(path + ".out", encoding="utf-8") as f: want = [x.split() for x in f.read().split("\n")]
    kept = [i for i, t in enumerate(texts) if t]
    with open(work + "/texts", "wb") as f: f.write(b"".join(texts[i].encode() + b"\0" for i in kept))
    run(program, "texts", path, work + "/texts", work + "/rows")
    with open(work + "/rows", encoding="utf-8") as f: rows = [line.split("\t")[0].split() for line in f.read().split("\n")]
    return sum(rows[k] != want[i] for k, i in enumerate(kept)), len(kept)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--program", required=True)
    p.add_argument("--mb", type=float, default=5)
    p.add_argument("--text")
    p.add_argument("--turns", type=int, default=3)
    p.add_argument("files", nargs="+")
    o = p.parse_args()
    text = open(o.text, encoding="utf-8", newline="").read() if o.text else mixed(o.mb)
    data, short = text.encode(), []
    print(f"{len(data) / 1e6:.1f} MB of text, one thread, medians of {o.turns} turns\n")
    print("| vocabulary | ids | equal | back | in pieces | golden | Mneme MB/s | tokenizers MB/s | ratio | back, ratio | load |\n|---|---|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as work:
        with open(work + "/text", "wb") as f: f.write(data)
        for path in o.files:
            name, saved = os.path.basename(path), path
            if path.endswith(".gguf"):
                saved = work + "/saved.json"
                run(o.program, "save", path, saved)
            peer = Tokenizer.from_file(saved)
            peer.no_truncation(); peer.no_padding()
            ours, theirs, ours_back, theirs_back = [], [], [], []
            for _ in range(o.turns):
                r = run(o.program, "encode", path, work + "/text", work + "/ids")
                ours.append(len(data) / 1e6 / r["seconds"])
                begin = time.perf_counter()
                want = peer.encode(text, add_special_tokens=False).ids
                theirs.append(len(data) / 1e6 / (time.perf_counter() - begin))
            ids = ids_of(work + "/ids")
            same = list(ids) == want
            for _ in range(o.turns):
                b = run(o.program, "decode", path, work + "/ids", work + "/back")
                ours_back.append(b["seconds"])
                begin = time.perf_counter()
                back = peer.decode(want, skip_special_tokens=False)
                theirs_back.append(time.perf_counter() - begin)
            with open(work + "/back", "rb") as f: said = f.read()
            same_back = said == back.encode() or said.decode("utf-8", "replace") == back
            pieces = True
            for size in (1, 7, 4096):
                run(o.program, "encode", path, work + "/text", work + "/pieces", str(size))
                pieces &= ids_of(work + "/pieces") == ids
            wrong, of = golden(o.program, path, work) if os.path.exists(path + ".inp") else (0, 0)
            a, b = statistics.median(ours), statistics.median(theirs)
            faster_back = statistics.median(theirs_back) / statistics.median(ours_back)
            word = {True: "yes", False: "NO"}
            print(f"| {name} | {len(ids)} | {word[same]} | {word[same_back]} | {word[pieces]} | {of - wrong} of {of} | {a:.1f} | {b:.1f} | {a / b:.2f} | {faster_back:.1f} | {r['load_seconds']:.3f} s |", flush=True)
            if not (same and same_back and pieces) or wrong: short.append(name)
    print("\nevery bar is met" if not short else "\nshort: " + ", ".join(short))
    return 1 if short else 0


if __name__ == "__main__":
    raise SystemExit(main())
