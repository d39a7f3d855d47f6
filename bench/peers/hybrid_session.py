"""The peers' side of bench/hybrid-session: hybrid_session.py --mneme MNEME --golden FOLDER [options] [FILE.gguf...]; see there.

llama.cpp is given its best way for each thing: a state of one sequence in a file, a fork by copying the sequence, and for going back both what
it does by itself (llama_memory_seq_rm, and where that is refused everything is read again) and what a caller can do who keeps the part
of the state that cannot be cut (LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY) at the end of every turn. Then the class Llama, which decides by itself what
of a prompt it has read. Each side reads in one process and goes on in a fresh one.
"""
import argparse
import ctypes
import importlib
import json
import os
import pathlib
import pickle
import statistics
import subprocess
import sys
import tempfile
import time

BACK, BATCH, WORDS = 3, 512, 1024
ROPE = {"rope_type": "default", "rope_theta": 10000.0}
SMALL = dict(vocab_size=WORDS, hidden_size=256, intermediate_size=512, num_hidden_layers=4, num_attention_heads=8, num_key_value_heads=2, max_position_embeddings=8192)
FAMILIES = {  # three layers that remember and one of attention, random
    "qwen3_5": ("Qwen3_5ForCausalLM", dict(SMALL, head_dim=32, linear_num_key_heads=2, linear_num_value_heads=4, linear_key_head_dim=64, linear_value_head_dim=64,
                                           linear_conv_kernel_dim=4, rope_parameters=dict(ROPE, partial_rotary_factor=0.25))),
    "granite": ("GraniteMoeHybridForCausalLM", dict(
        SMALL, mamba_n_heads=16, mamba_d_head=32, mamba_d_state=32, mamba_n_groups=1, mamba_expand=2, mamba_d_conv=4, mamba_chunk_size=64,
        layer_types=["linear_attention"] * 3 + ["full_attention"], num_local_experts=0, shared_intermediate_size=512, embedding_multiplier=6.0, logits_scaling=2.0,
        residual_multiplier=0.4, attention_multiplier=0.2, position_embedding_type=None, tie_word_embeddings=True)),
    "lfm2": ("Lfm2ForCausalLM", dict(SMALL, layer_types=["conv"] * 3 + ["full_attention"], block_multiple_of=8, conv_L_cache=3, rope_parameters=ROPE)),
}


class Theirs:
    """llama.cpp with two sequences; `fed` counts the tokens that were computed."""

    def __init__(self, args):
        import llama_cpp
        import numpy
        self.lib, self.np, self.fed = llama_cpp, numpy, 0
        self.log = llama_cpp.llama_log_callback(lambda *_: None)
        llama_cpp.llama_log_set(self.log, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        m = llama_cpp.llama_model_default_params()
        m.n_gpu_layers = 0
        self.model = llama_cpp.llama_model_load_from_file(args.files[0].encode(), m)
        if not self.model:
            sys.exit(f"llama.cpp does not open {args.files[0]}")
        c = llama_cpp.llama_context_default_params()
        c.n_ctx, c.n_seq_max = 2 * room(args), 2
        c.n_threads = c.n_threads_batch = args.threads
        self.ctx = llama_cpp.llama_init_from_model(self.model, c)
        if not self.ctx:
            sys.exit("llama.cpp opens no context")
        self.words = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        self.memory = llama_cpp.llama_get_memory(self.ctx)

    def feed(self, tokens, at, sequence=0):
        lib = self.lib
        for a in range(0, len(tokens), BATCH):
            piece = tokens[a:a + BATCH]
            batch = lib.llama_batch_init(len(piece), 0, 1)
            batch.n_tokens = len(piece)
            for i, token in enumerate(piece):
                batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, at + a + i, 1, a + i + 1 == len(tokens)
                batch.seq_id[i][0] = sequence
            if lib.llama_decode(self.ctx, batch):
                sys.exit("llama.cpp could not decode")
            lib.llama_batch_free(batch)
            self.fed += len(piece)
        return self.np.ctypeslib.as_array(lib.llama_get_logits_ith(self.ctx, -1), shape=(self.words,)).copy()

    def tell(self, args, to, at_turn=lambda: None):
        """The conversation as bench-resumed tells it: up to two turns before its end at once, then turn by turn."""
        words = text(args, 0)
        at = 0
        while at < to:
            then = at + args.turn if at else stands_at(args, "back")
            self.feed(words[at:then], at)
            at_turn()
            at = then

    def checkpoint(self):
        flags = self.lib.LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY
        part = (ctypes.c_uint8 * self.lib.llama_state_seq_get_size_ext(self.ctx, 0, flags))()
        if self.lib.llama_state_seq_get_data_ext(self.ctx, part, len(part), 0, flags) != len(part):
            sys.exit("llama.cpp gives no part of its state")
        return bytes(part)

    def put_back(self, part):
        flags = self.lib.LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY
        data = (ctypes.c_uint8 * len(part)).from_buffer_copy(part)
        return self.lib.llama_state_seq_set_data_ext(self.ctx, data, len(part), 0, flags) == len(part)

    def close(self):
        self.lib.llama_free(self.ctx)
        self.lib.llama_model_free(self.model)


def room(args):
    return -(-(args.tokens + BACK * args.turn) // 256) * 256


def stands_at(args, way):
    return args.tokens - (BACK - 1) * args.turn if way == "back" else args.tokens


def text(args, which):
    """0: the conversation; 1 and on: the turn that comes last in a way."""
    import numpy
    return numpy.random.default_rng(which).integers(0, WORDS, args.turn if which else args.tokens).tolist()


WAYS = ("resumed", "forked", "back")


def high(args):
    """The class Llama, which counts what it computes."""
    import llama_cpp
    llama = llama_cpp.Llama(args.files[0], n_ctx=room(args), n_batch=BATCH, n_threads=args.threads, n_threads_batch=args.threads, verbose=False)
    computed, decode = [0], llama._ctx.decode

    def counting(batch):
        computed[0] += batch.n_tokens()
        return decode(batch)

    llama._ctx.decode = counting
    return llama, computed


def tell(args):
    """Reads, saves, and writes what one says that never stopped, was never forked and never went back."""
    t = Theirs(args)
    parts, saving = [], 0.0

    def at_turn():
        nonlocal saving
        began = time.perf_counter()
        parts.append(t.checkpoint())
        saving += time.perf_counter() - began

    began = time.perf_counter()
    t.tell(args, args.tokens, at_turn)
    reading = time.perf_counter() - began - saving
    words = text(args, 0)
    began = time.perf_counter()
    if not t.lib.llama_state_seq_save_file(t.ctx, (args.folder + "/kept").encode(), 0, (ctypes.c_int32 * len(words))(*words), len(words)):
        sys.exit("llama.cpp does not save")
    saving += time.perf_counter() - began
    began = time.perf_counter()
    pathlib.Path(args.folder + "/parts").write_bytes(pickle.dumps(parts))
    saving += time.perf_counter() - began
    t.close()
    said = {}
    for i, way in enumerate(WAYS):
        t = Theirs(args)
        t.tell(args, stands_at(args, way))
        said[way] = t.feed(text(args, 1 + i), stands_at(args, way))
        t.close()
    llama, _ = high(args)
    llama.eval(words)
    pathlib.Path(args.folder + "/high").write_bytes(pickle.dumps(llama.save_state()))
    pathlib.Path(args.folder + "/said").write_bytes(pickle.dumps(said))
    print(json.dumps({"reading": reading, "saving": saving, "bytes": os.path.getsize(args.folder + "/kept"), "part": len(parts[0]), "parts": len(parts)}))


def ask(args):
    """The same in a fresh process, from the files."""
    read = lambda name: pickle.loads(pathlib.Path(args.folder + "/" + name).read_bytes())
    said, end, then = read("said"), args.tokens, stands_at(args, "back")
    turn = {way: text(args, 1 + i) for i, way in enumerate(WAYS)}
    did = {}
    t = Theirs(args)
    remove = lambda: bool(t.lib.llama_memory_seq_rm(t.memory, 0, then, -1))

    def timed(name, way, at, before, sequence=0):
        fed, began = t.fed, time.perf_counter()
        before()
        logits = t.feed(turn[way], at, sequence)
        did[name] = [time.perf_counter() - began, t.fed - fed, bool((logits == said[way]).all())]

    def load():
        tokens, n = (ctypes.c_int32 * (end + 1))(), ctypes.c_size_t()
        if not t.lib.llama_state_seq_load_file(t.ctx, (args.folder + "/kept").encode(), 0, tokens, end + 1, ctypes.byref(n)) or n.value != end:
            sys.exit("llama.cpp does not restore")

    def fork():
        t.lib.llama_memory_seq_cp(t.memory, 0, 1, -1, -1)

    def put_back():
        if not t.put_back(parts[0]) or not remove():
            sys.exit("llama.cpp does not go back to a checkpoint")

    def read_again():
        t.lib.llama_memory_seq_rm(t.memory, 0, -1, -1)
        t.tell(args, then)

    began = time.perf_counter()
    load()
    loading = time.perf_counter() - began
    began = time.perf_counter()
    fork()
    forking = time.perf_counter() - began
    timed("resumed", "resumed", end, lambda: None)
    timed("forked", "forked", end, lambda: None, 1)
    did["resumed"][0] += loading
    did["forked"][0] += forking
    parts = read("parts")
    did["cuts"] = remove()  # by itself
    if did["cuts"]:
        timed("back", "back", then, lambda: None)
    else:
        timed("kept", "back", then, put_back)
        timed("back", "back", then, read_again)
    t.close()
    llama, computed = high(args)
    began = time.perf_counter()
    llama.load_state(read("high"))
    for name, words in (("class", text(args, 0) + turn["resumed"]), ("class_back", text(args, 0)[:then] + turn["back"])):
        computed[0] = 0
        next(iter(llama.generate(words, temp=0.0)))
        did[name] = [time.perf_counter() - began, computed[0]]
        began = time.perf_counter()
    print(json.dumps(did))


# ---- both sides ----
def run(command):
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ, GGML_NO_BACKTRACE="1"))
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{(done.stderr or done.stdout).strip()[-600:]}")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def pair(args, file, ours_first):
    """({what they did}, {what they did}): Mneme's and llama.cpp's."""
    numbers = ["--tokens", str(args.tokens), "--turn", str(args.turn), "--threads", str(args.threads)]

    def ours():
        told, asked = run([os.path.join(os.path.dirname(args.mneme), "bench-resumed"), file, *numbers, "--cache", "f16", "--told"])
        return dict(told, **asked)

    def theirs():
        with tempfile.TemporaryDirectory() as folder:
            told, asked = (run([sys.executable, __file__, step, *numbers, "--folder", folder, file])[0] for step in ("--tell", "--ask"))
        return dict(told, **asked)

    if ours_first:
        return ours(), theirs()
    other = theirs()
    return ours(), other


def compare(args, file):
    pairs = [pair(args, file, i % 2 == 0) for i in range(args.pairs)]
    mine, other = pairs[0]
    value = lambda side, key: side[key][0] if isinstance(side[key], list) else side[key]
    median = lambda i, key: statistics.median(value(p[i], key) for p in pairs)
    row = lambda *cells: print("| " + " | ".join(cells) + " |")

    def seconds(what, key, their_key=None, words=""):
        their_key = their_key or key
        ratio = statistics.median(value(p[1], their_key) / value(p[0], key) for p in pairs)
        row(what + ", ms", f"{1e3 * median(0, key):.1f}", f"{1e3 * median(1, their_key):.1f}{words}", f"{ratio:.2f}")

    def turn(what, key, their_key=None, words=""):
        their = other[their_key or key]
        row(what + ": tokens computed", f"{mine[key][1]:,}", f"{their[1]:,}{words}", f"{their[1] / mine[key][1]:.1f}")
        seconds(what, key, their_key)
        if len(their) > 2:
            row("its logits as of one that never stopped", *("same bits" if all(p[i][k][2] for p in pairs) else "other bits" for i, k in ((0, key), (1, their_key or key))), "")

    print(f"\n{os.path.basename(file)}: {args.tokens:,} tokens, turns of {args.turn}, {args.threads} threads, keys and values in f16; medians of {args.pairs} pairs\n")
    row("", "Mneme", "llama.cpp", "llama.cpp / Mneme")
    row("---", "---:", "---:", "---:")
    seconds("all read", "reading")
    kept = other["bytes"] + other["parts"] * other["part"]
    row("kept in files, KiB", f"{mine['bytes'] / 1024:,.0f}", f"{kept / 1024:,.0f}", f"{kept / mine['bytes']:.2f}")
    row("of that the state alone, KiB", f"{mine['state'] / 1024:,.0f}", f"{other['bytes'] / 1024:,.0f}", f"{other['bytes'] / mine['state']:.2f}")
    seconds("saving", "saving")
    turn("restored, and a turn", "resumed")
    turn("a fork, and a turn", "forked")
    turn("three turns taken back, and a turn", "back", words="" if other["cuts"] else " (llama_memory_seq_rm refuses: all is read again)")
    if not other["cuts"]:
        turn("the same, where the caller kept parts of the state", "back", "kept")
    turn("the class Llama: restored, and a turn", "resumed", "class")
    turn("the class Llama: three turns taken back, and a turn", "back", "class_back")
    return any(not m[w][2] or m[w][1] > args.turn for m, _ in pairs for w in WAYS)


def make(args, folder, family):
    sys.path.insert(0, args.golden)
    hybrids = importlib.import_module("hybrids")
    hybrids.HERE, hybrids.CASES = pathlib.Path(folder), {family: FAMILIES[family]}
    hybrids.make(family)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--mneme")
    parser.add_argument("--golden")
    parser.add_argument("--tokens", type=int, default=6000)
    parser.add_argument("--turn", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--folder")
    parser.add_argument("--make")
    for step in ("tell", "ask"):
        parser.add_argument("--" + step, action="store_true")
    parser.add_argument("files", nargs="*")
    args = parser.parse_args()
    for step in (tell, ask):
        if getattr(args, step.__name__):
            return step(args)
    if args.make:
        return make(args, args.folder, args.make)
    short = False
    with tempfile.TemporaryDirectory() as folder:
        for name in args.files or FAMILIES:
            file = name
            if name in FAMILIES:
                run([sys.executable, __file__, "--make", name, "--golden", args.golden, "--folder", folder])
                file = f"{folder}/{name}.gguf"
                run([args.mneme, "convert", f"{folder}/{name}", "--out", file, "--type", "f32", "--quiet"])
            short |= compare(args, file)
    sys.exit(short)


if __name__ == "__main__":
    main()
