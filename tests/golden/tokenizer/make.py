#!/usr/bin/env python3
"""Makes the golden vectors of test_tokenizer.c with Hugging Face's `tokenizers` (pip install tokenizers==0.23.3).

Writes, beside itself: corpus.txt (what the tokenizers are trained on), one NAME.json per tokenizer (HF's own
tokenizer.json), and cases.json: for every tokenizer, texts with their ids (special tokens parsed) and the decoded text.
"""
import json, os
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

here = os.path.dirname(os.path.abspath(__file__))
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
CL100K = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"

CORPUS = """The quick brown fox jumps over the lazy dog. The dog didn't mind; it's a lazy dog, and the fox has jumped before.
Whenever the weather is cold, whenever the weather is hot, we'll weather the weather, whatever the weather, whether we like it or not.
She sells sea shells by the sea shore; the shells she sells are surely sea shells. They've said they're hers, and I'd agree.
In 1999, 2000 and 2001 the numbers were 1234567, 31415926 and 27182818; in 2010: 42, 42, 42.
Der schnelle braune Fuchs springt \u00fcber den faulen Hund. \u00dcber allen Gipfeln ist Ruh, in allen Wipfeln sp\u00fcrest du kaum einen Hauch.
Le c\u0153ur a ses raisons que la raison ne conna\u00eet point. \u00c0 la recherche du temps perdu, o\u00f9 \u00eates-vous?
\u041c\u043e\u0439 \u0434\u044f\u0434\u044f \u0441\u0430\u043c\u044b\u0445 \u0447\u0435\u0441\u0442\u043d\u044b\u0445 \u043f\u0440\u0430\u0432\u0438\u043b, \u043a\u043e\u0433\u0434\u0430 \u043d\u0435 \u0432 \u0448\u0443\u0442\u043a\u0443 \u0437\u0430\u043d\u0435\u043c\u043e\u0433.
\u6625\u7720\u4e0d\u89ba\u66c9\uff0c\u8655\u8655\u805e\u557c\u9ce5\u3002\u591c\u4f86\u98a8\u96e8\u8072\uff0c\u82b1\u843d\u77e5\u591a\u5c11\u3002 \u5409\u53e3\u543e\u8f29\u306f\u732b\u3067\u3042\u308b\u3002\u540d\u524d\u306f\u307e\u3060\u7121\u3044\u3002
\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645. \u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd. \u0928\u092e\u0938\u094d\u0924\u0947 \u0926\u0941\u0928\u093f\u092f\u093e.
    def f(x):\n        if x  ==  0:\n            return  1\n\t\treturn x*f(x-1)   # the factorial\n
Smile \U0001F600\U0001F600 and family \U0001F468\u200d\U0001F469\u200d\U0001F467 or thumbs \U0001F44D\U0001F3FD! Flags \U0001F1EB\U0001F1F7\U0001F1E9\U0001F1EA.
"""
TEXTS = [
    "", "a", " ", "  ", "\n", " a", "Hello, world!", "The quick brown fox", "the weather  whether", "it's I'LL we'Re DON'T they've'd",
    "   leading and   inner   and trailing   ", "tabs\tand\t\ttabs \t mixed", "line\nline\n\nline\r\n\r\nline \n \n x", "x\u00a0y\u2003z\u3000w",
    "12345678 1 22 333 4444 3.14 1,000,000", "\u00bd \u2167 \u0663\u0664\u0665 \u00b2", "!!! ??? ... --- ==== /* c */ <html> &amp;\n", "caf\u00e9 cafe\u0301 na\u00efve \u00c5ngstr\u00f6m",
    "\u041c\u043e\u0439 \u0434\u044f\u0434\u044f \u0441\u0430\u043c\u044b\u0445", "\u6625\u7720\u4e0d\u89ba\u66c9\uff0c\u540d\u524d\u306f", "\u0645\u0631\u062d\u0628\u0627 \u05e9\u05dc\u05d5\u05dd \u0928\u092e\u0938\u094d\u0924\u0947",
    "\U0001F600 \U0001F468\u200d\U0001F469\u200d\U0001F467\U0001F44D\U0001F3FD\U0001F1EB\U0001F1F7", "\u017f'\u017f \u212a", "\ufeffbom \ufffd\u200b zero", "\u0000nul\u0001\u001f\u007f\u0080\u0085",
    "a" * 300, " " * 70, "\n" * 9, "ab" * 100, "<|endoftext|>", "x<|endoftext|>y <|endoftext|> z", "<|endoftext", "one <mask> two  <mask>three", "<tool> not special <tool>",
    "def f(x):\n        return  1\n", "'s 's's ''s", "\u00e9" * 40, "\ue000\U0010ffff",
]


def train(name, pre, specials, vocab_size, **model):
    tok = Tokenizer(models.BPE(**model))
    tok.pre_tokenizer = pre
    tok.decoder = decoders.ByteLevel()
    tok.train_from_iterator([CORPUS], trainers.BpeTrainer(vocab_size=vocab_size, min_frequency=2,
              special_tokens=specials, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    return tok


def main():
    with open(os.path.join(here, "corpus.txt"), "w", encoding="utf-8", newline="") as f:
        f.write(CORPUS)
    split = lambda p: pre_tokenizers.Split(Regex(p), "isolated")
    level = lambda **k: pre_tokenizers.ByteLevel(**k)
    tokens = {}
    tokens["gpt2"] = train("gpt2", level(add_prefix_space=False), ["<|endoftext|>"], 600)
    tokens["llama3"] = train("llama3", pre_tokenizers.Sequence([split(LLAMA3), level(add_prefix_space=False, use_regex=False)]),
                             ["<|begin|>", "<|endoftext|>"], 500, ignore_merges=True)
    tokens["llama3"].post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(single="<|begin|> $A", special_tokens=[("<|begin|>", 0)])])
    tokens["cl100k"] = train("cl100k", pre_tokenizers.Sequence([split(CL100K), level(add_prefix_space=False, use_regex=False)]),
                             ["<|endoftext|>"], 500)
    tokens["digits"] = train("digits", pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                             level(add_prefix_space=True, use_regex=True)]), ["<|endoftext|>"], 400)
    tokens["digits"].add_special_tokens([AddedToken("<mask>", lstrip=True, rstrip=False)])
    tokens["digits"].add_tokens([AddedToken("<tool>", rstrip=True, normalized=False)])
    tokens["removed"] = train("removed", pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(GPT2), "removed", invert=True),
                              level(add_prefix_space=False, use_regex=False)]), ["<|endoftext|>"], 400)
    cases = {}
    for name, tok in tokens.items():
        tok.save(os.path.join(here, name + ".json"), pretty=False)
        rows = []
        for text in TEXTS:
            try:
                enc = tok.encode(text)
            except Exception:
                continue
            plain = tok.encode(text, add_special_tokens=False).ids
            rows.append({"text": text, "ids": plain, "template": enc.ids, "decoded": tok.decode(plain, skip_special_tokens=False)})
        cases[name] = rows
    with open(os.path.join(here, "cases.json"), "w", encoding="utf-8") as f:
        json.dump(cases, f, ensure_ascii=True, separators=(",", ":"))


main()
