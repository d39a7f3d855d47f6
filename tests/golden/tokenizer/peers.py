#!/usr/bin/env python3
"""Makes peers.json of test_tokenizer_gguf.c (pip install llama-cpp-python==0.3.36 tokenizers==0.23.3 gguf): ids that llama.cpp gives.

`cuts`: one byte-level vocabulary whose merges heed no words, so that where a text is cut shows in its ids, and rows of texts with their ids for
families of tokenizer.ggml.pre. Where the family's own pattern is known, `tokenizers` gives ids by it too: rows that both agree in are kept, and
of the others those of `tokenizers`, for llama.cpp takes patterns apart by hand and knows less of case and marks.
`rwkv`: a vocabulary as RWKV's are written, the longest token first.
"""
import ctypes, json, os, random, tempfile
import gguf
from llama_cpp import llama_cpp as L
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

here = os.path.dirname(os.path.abspath(__file__))
bits = (" |  |   |\n|\n\n| \n|\t|\r\n|a|the|The|HELLO|don't|I'M|it's|we'LL|x1|12|123|1234|1234567|3.14|?!|...|--|__init__|foo(bar)|{}|=>|"
        "e\u0301|\u00c0\u00c9|\u4e2d\u6587|\u65e5\u672c\u8a9e|\u3072\u3089|\ud55c\uad6d|\u0e20\u0e32\u0e29\u0e32|\u0939\u093f\u0928\u094d\u0926\u0940|"
        "\u0440\u0443\u0441|\u05e2\u05d1\u05e8|\U0001f642|\u2167|\u3000|\u3002|'s| 'S|$5|/\n|1st|fooBar|MLModel|\u4e2dA|A\u4e2d|1\u4e2d|\u4e2d's").split("|")
pick = random.Random(5)
texts = ["".join(pick.choice(bits) for _ in range(pick.randint(2, 7))) for _ in range(60)]

suffix = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
upper, lower = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
kimi = (r"[\p{Han}]+|" + "|".join(rf"[^\r\n\p{{L}}\p{{N}}]?[{upper}&&[^\p{{Han}}]]{a}[{lower}&&[^\p{{Han}}]]{b}{suffix}?" for a, b in ("*+", "+*"))
        + r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
granite = ("|".join(rf"[^\r\n\p{{L}}\p{{N}}]?[{upper}]{a}[{lower}]{b}{suffix}?" for a, b in ("*+", "+*"))
           + r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def trained():
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    pick = random.Random(9)
    many = ["".join(pick.choice(bits) for _ in range(8)) for _ in range(3000)]
    t.train_from_iterator(many, trainers.BpeTrainer(vocab_size=900, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    model = json.loads(t.to_str())["model"]
    return t, sorted(model["vocab"], key=model["vocab"].get), [" ".join(m) for m in model["merges"]]


def ids_of(text, special=False, model="gpt2", pre=None, tokens=(), kinds=None, merges=None):
    """llama.cpp's, of a vocabulary that is written for it; a list of texts gives a list."""
    with tempfile.TemporaryDirectory() as d:
        path = os.path.join(d, "v.gguf")
        w = gguf.GGUFWriter(path, "llama")
        w.add_tokenizer_model(model)
        if pre:
            w.add_tokenizer_pre(pre)
        w.add_token_list(tokens)
        w.add_token_types(kinds or [1] * len(tokens))
        if merges:
            w.add_token_merges(merges)
        w.write_header_to_file(), w.write_kv_data_to_file(), w.close()
        how = L.llama_model_default_params()
        how.vocab_only = True
        m = L.llama_model_load_from_file(path.encode(), how)
        rows = []
        for t in text:
            b, room = t.encode(), (ctypes.c_int32 * (len(t.encode()) + 8))()
            n = L.llama_tokenize(L.llama_model_get_vocab(m), b, len(b), room, len(room), False, special)
            rows.append(list(room[:n]))
        L.llama_model_free(m)
        return rows


quiet = L.llama_log_callback(lambda level, text, data: None)
L.llama_log_set(quiet, None)
bpe, tokens, merges = trained()
cuts = {}
for name, pattern in (("kimi-k2", kimi), ("granite-embed-multi-97m", granite), ("afmoe", None), ("spark2_5", None)):
    theirs = ids_of(texts, pre=name, tokens=tokens, merges=merges)
    if pattern:
        bpe.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"),
                                                     pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
        bpe.model.ignore_merges = name.startswith("granite")
        own = [bpe.encode(t).ids for t in texts]
        print(name, sum(a == b for a, b in zip(own, theirs)), "of", len(texts), "agree")
        theirs = own
    cuts[name] = [{"text": t, "ids": i} for t, i in zip(texts, theirs)]
# llama.cpp leaves what stands before digits with them while the other patterns look at it; blanks there are cut as if no digit followed
cuts["afmoe"] = [r for r in cuts["afmoe"] if not any(a.isspace() and b.isspace() and c.isnumeric() for a, b, c in zip(r["text"], r["text"][1:], r["text"][2:]))]

words = " |  |the| the|he|hello| hello world|\n\n|\t|don't|\\|'|\"|\u4e2d|\u4e2d\u6587|\u65e5\u672c|\U0001f642|<s|s>|User:|\n\nUser".split("|")
pieces = [bytes([b]) for b in range(256)] + [w.encode() for w in words] + ["\u4e2d".encode()[:2], "\u6587\u5b57".encode()[:5], b"\x00\x01"]
pieces = list(dict.fromkeys(pieces))
spelled = ["<s>"] + [repr(p)[2:-1] for p in pieces] + ["[PAD9]"]
said = ["", "a", "hello world the  he\n\n\nUser: don't \\ '\"'", "\u4e2d\u6587\u5b57\u4e2d\u6587\u5b66\u65e5\u672c \U0001f642\U0001f643", "\t\0\1\2\x7f caf\u00e9",
        "[PAD9] [PAD8]", "x hello worl hello world", "the\n\nUser:\n\nUse"]
kinds = [3] + [1] * len(pieces) + [5]
rwkv = [{"text": t, "ids": i} for t, i in zip(said, ids_of(said, model="rwkv", tokens=spelled, kinds=kinds))]
rwkv += [{"text": t, "ids": i, "special": True} for t, i in zip(["<s>a<s>"], ids_of(["<s>a<s>"], True, model="rwkv", tokens=spelled, kinds=kinds))]
with open(os.path.join(here, "peers.json"), "w") as f:
    json.dump({"cuts": {"tokens": tokens, "merges": merges, "families": cuts}, "rwkv": {"tokens": spelled, "kinds": kinds, "rows": rwkv}}, f,
              ensure_ascii=True, separators=(",", ":"))
    f.write("\n")
