#!/usr/bin/env python3
"""Makes the golden vectors of test_tokenizer_kinds.c (pip install tokenizers==0.23.3 sentencepiece==0.2.1 gguf).

Writes, beside itself: kinds.json, a list of small tokenizers of every kind (tokenizer.json as `tokenizers` writes it) with texts, their
ids and the decoded text; and NAME.gguf, vocabularies in the metadata of GGUF files, with their rows in gguf.json: those of SentencePiece for
its own models, of `tokenizers` for the others.
"""
import json, os, tempfile
import gguf, sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, decoders as D, models, normalizers as N, pre_tokenizers as P, processors, trainers
from make import CORPUS, LLAMA3

here = os.path.dirname(os.path.abspath(__file__))
TEXTS = ["", "a", " ", "  a  b ", "Hello, world!", "The weather  whether we DON'T like it.", "line\nline\r\n\n x\ty", "x\u00a0y\u3000z", "12 345 6.7",
         "caf\u00e9 cafe\u0301 \u00c5ngstr\u00f6m \u0130\u01c5 \ufb01 \uff21\uff42\u2167\u00bd", "\u6625\u7720\u4e0d\u89ba\u66c9\u3002\ud55c\uad6d", "\U0001F600 \U0001F468\u200d\U0001F469 \U0001FAE8",
         "<s>x</s> y </s>z", "a <mask> b<mask>", "the <tool>  them", "\u2581under\u2581line", "zz\u0000\u0007\u200b\ufeffq", "a" * 130, "A.B-C--D...e", "fox foxes, the fox"]
BYTES = ["<0x%02X>" % i for i in range(256)]
FIRST = ["<unk>", "<s>", "</s>"]


LATIN = CORPUS[:900]


def train(model, trainer, normalizer=None, pre=None, decoder=None, post=None, first=None, byte_fallback=False, corpus=CORPUS):
    tok = Tokenizer(model)
    if normalizer: tok.normalizer = normalizer
    if pre: tok.pre_tokenizer = pre
    tok.train_from_iterator([corpus], trainer)
    if decoder: tok.decoder = decoder
    if post: tok.post_processor = post
    j = json.loads(tok.to_str())
    if first: j["added_tokens"] = j["added_tokens"][:first]
    if byte_fallback: j["model"]["byte_fallback"] = True
    return Tokenizer.from_str(json.dumps(j))


def bpe(**k):
    return trainers.BpeTrainer(vocab_size=k.pop("size", 130), special_tokens=k.pop("special", FIRST), limit_alphabet=45, show_progress=False, **k)


def framed(before, after):
    return processors.TemplateProcessing(single=f"{before} $A {after}", special_tokens=[(before, 1), (after, 2)])


def fallback(normalizer=None, pre=None, decoder=None):
    return train(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True), bpe(size=400, special=FIRST + BYTES), normalizer, pre, decoder, framed("<s>", "</s>"), 3)


def piece_model(kind, **k):
    with tempfile.TemporaryDirectory() as d:
        with open(d + "/c.txt", "w") as f: f.write(LATIN)
        sentencepiece.SentencePieceTrainer.train(input=d + "/c.txt", model_prefix=d + "/m", model_type=kind, hard_vocab_limit=False, minloglevel=2, **k)
        with open(d + "/m.model", "rb") as f: return f.read()


def fields(data):  # of a protocol buffer
    i = 0
    def number():
        nonlocal i
        v = shift = 0
        while True:
            b = data[i]; i += 1; v |= (b & 127) << shift; shift += 7
            if b < 128: return v
    while i < len(data):
        key = number()
        if key & 7 == 0: yield key >> 3, number()
        else:
            n = number() if key & 7 == 2 else 4 if key & 7 == 5 else 8
            yield key >> 3, data[i:i + n]; i += n


def charsmap():
    with tempfile.NamedTemporaryFile("w", suffix=".tsv") as f:
        f.write("FF21\t41\nFF42\t62\nFB01\t66 69\n65 301\tE9\n2167\t56 49 49 49\n3000\t20\nA0\t20\n9\t20\nA\t20\n200B\t\n")
        f.flush()
        model = piece_model("unigram", vocab_size=200, normalization_rule_tsv=f.name)
    return next(x for k, v in fields(model) if k == 3 for g, x in fields(v) if g == 2)


def kinds():
    out = {}
    out["spm_prepend"] = fallback(N.Sequence([N.Prepend("\u2581"), N.Replace(" ", "\u2581")]), None,
                                  D.Sequence([D.Replace("\u2581", " "), D.ByteFallback(), D.Fuse(), D.Strip(" ", 1, 0)]))
    out["spm_split"] = fallback(N.Replace(" ", "\u2581"), P.Split(" ", "merged_with_previous"), D.Sequence([D.Replace("\u2581", " "), D.ByteFallback(), D.Fuse()]))
    out["metaspace_first"] = train(models.BPE(unk_token="<unk>", fuse_unk=True), bpe(), None, P.Metaspace(prepend_scheme="first", split=False), D.Metaspace(prepend_scheme="first", split=False))
    out["word_end"] = train(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"), bpe(end_of_word_suffix="</w>"),
                            N.Sequence([N.NFC(), N.Replace(Regex(r"\s+"), " "), N.Lowercase()]),
                            P.Split(Regex(r"'s|'t|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"), "removed", invert=True), D.BPEDecoder())
    out["word_inside"] = train(models.BPE(unk_token="<unk>", continuing_subword_prefix="##"), bpe(continuing_subword_prefix="##"), N.Sequence([N.NFKD(), N.StripAccents(), N.Strip()]),
                               P.BertPreTokenizer(), D.WordPiece())
    out["dropped"] = train(models.BPE(), bpe(), N.NFKC(), P.Sequence([P.WhitespaceSplit(), P.Punctuation(behavior="contiguous"), P.Digits(individual_digits=True)]))
    wordpiece = lambda: trainers.WordPieceTrainer(vocab_size=160, special_tokens=["[UNK]", "<s>", "</s>"], limit_alphabet=50, show_progress=False)
    out["bert"] = train(models.WordPiece(unk_token="[UNK]"), wordpiece(), N.BertNormalizer(), P.BertPreTokenizer(), D.WordPiece(), framed("<s>", "</s>"))
    out["bert_cased"] = train(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=12), wordpiece(), N.BertNormalizer(lowercase=False), P.BertPreTokenizer(), D.WordPiece(cleanup=False))
    out["words"] = train(models.WordLevel(unk_token="<unk>"), trainers.WordLevelTrainer(vocab_size=60, special_tokens=FIRST, show_progress=False), N.Nmt(), P.Whitespace())
    unigram = lambda special=FIRST, size=150: trainers.UnigramTrainer(vocab_size=size, special_tokens=special, unk_token="<unk>", show_progress=False, max_piece_length=8)
    out["unigram"] = train(models.Unigram(), unigram(), N.Sequence([N.Precompiled(charsmap()), N.Replace(Regex(" {2,}"), " ")]), P.Metaspace(), D.Metaspace(), framed("<s>", "</s>"), corpus=LATIN)
    out["unigram_bytes"] = train(models.Unigram(), unigram(FIRST + BYTES, 420), N.NFD(), P.Metaspace(prepend_scheme="never", split=False), D.Sequence([D.ByteFallback(), D.Metaspace(prepend_scheme="never")]), None, 3, True, LATIN)
    for name, behavior, invert in [("previous", "merged_with_previous", False), ("next", "merged_with_next", False), ("next_inverted", "merged_with_next", True), ("contiguous", "contiguous", False)]:
        out["split_" + name] = train(models.BPE(unk_token="<unk>"), bpe(size=70), None, P.Split(Regex(r"[\s\.\-]"), behavior, invert=invert))
    pattern = r"(?<=[a-z])(?=[A-Z])|\b[[:punct:]]|^\w|\d+?|(?>ab|a)b|[\uac00-\ud7a3]{2,}?|\h\h|(?:\p{Han}|[^\S\n])+|\Ax|\w\z|[a-z&&[^aeiou]]+"
    out["patterns"] = train(models.BPE(unk_token="<unk>"), bpe(size=90), None, P.Split(Regex(pattern), "isolated"))
    added = [AddedToken("<mask>", lstrip=True), AddedToken("<tool>", rstrip=True, normalized=False), AddedToken("the", single_word=True), AddedToken("fox", single_word=True, normalized=False)]
    for name in ["spm_prepend", "bert", "metaspace_first"]:
        tok = Tokenizer.from_str(out[name].to_str())
        tok.add_tokens(added)
        out[name + "_added"] = tok
    return out


def rows_of(tok):
    rows = []
    for text in TEXTS:
        ids = tok.encode(text, add_special_tokens=False).ids
        rows.append({"text": text, "ids": ids, "template": tok.encode(text).ids, "decoded": tok.decode(ids, skip_special_tokens=False)})
    return rows


def write_gguf(name, model, tokens, kinds, scores=None, merges=None, pre=None, bos=1, eos=2, unk=0, more=()):
    w = gguf.GGUFWriter(os.path.join(here, name + ".gguf"), "llama")
    w.add_tokenizer_model(model)
    if pre: w.add_tokenizer_pre(pre)
    w.add_token_list(tokens)
    w.add_token_types(kinds)
    if scores: w.add_token_scores(scores)
    if merges: w.add_token_merges(merges)
    for key, id in (("bos", bos), ("eos", eos), ("unknown", unk), *more):
        if id is not None: w.add_uint32("tokenizer.ggml.%s_token_id" % key, id)
    w.write_header_to_file(); w.write_kv_data_to_file(); w.close()


def vocabularies(kinds):
    rows = {}
    for name, kind in (("spm", "bpe"), ("ugm", "unigram")):
        model = piece_model(kind, vocab_size=460, byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False, character_coverage=0.98)
        sp = sentencepiece.SentencePieceProcessor(model_proto=model)
        n = sp.get_piece_size()
        types = [2 if sp.is_unknown(i) else 3 if sp.is_control(i) else 6 if sp.is_byte(i) else 1 for i in range(n)]
        write_gguf(name, "llama" if name == "spm" else "t5", [sp.id_to_piece(i) for i in range(n)], types, [sp.get_score(i) for i in range(n)])
        texts = [t for t in TEXTS if "<s>" not in t and "\0" not in t]
        rows[name] = [{"text": t, "ids": sp.encode(t), "decoded": sp.decode(sp.encode(t))} for t in texts]
    tok = Tokenizer.from_file(os.path.join(here, "llama3.json"))
    j = json.loads(tok.to_str())
    tokens = sorted(j["model"]["vocab"], key=j["model"]["vocab"].get)
    write_gguf("bpe", "gpt2", tokens, [3, 3] + [1] * (len(tokens) - 2), None, [" ".join(m) for m in j["model"]["merges"]], "llama-bpe", 0, 1, None)
    rows["bpe"] = [{"text": r["text"], "ids": r["ids"], "decoded": r["decoded"]} for r in rows_of(tok)]
    tok = kinds["bert"]
    vocab = tok.get_vocab()
    tokens = [t if i < 3 else t[2:] if t.startswith("##") else "\u2581" + t for i, t in enumerate(sorted(vocab, key=vocab.get))]
    write_gguf("bert", "bert", tokens, [3] * 3 + [1] * (len(tokens) - 3), None, None, None, 1, None, 0, (("seperator", 2),))
    rows["bert"] = [{"text": r["text"], "ids": r["ids"], "decoded": r["decoded"]} for r in rows_of(tok) if len(r["text"]) < 100]
    return rows


def main():
    all_kinds = kinds()
    save = lambda name, x: json.dump(x, open(os.path.join(here, name), "w"), ensure_ascii=True, separators=(",", ":"))
    save("kinds.json", {name: {"tokenizer": json.loads(tok.to_str()), "rows": rows_of(tok)} for name, tok in all_kinds.items()})
    save("gguf.json", vocabularies(all_kinds))


if __name__ == "__main__":
    main()
