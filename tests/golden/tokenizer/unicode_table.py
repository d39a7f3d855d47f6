#!/usr/bin/env python3
"""Makes src/format/unicode_table.c: the general category and a few scripts of every code point, as Hugging Face's `tokenizers`
(0.23.3: Oniguruma's tables, Unicode 16) sorts them. Each class is asked of the reference itself, by a pre-tokenizer that removes
what matches, so the table cannot differ from what the golden vectors were made with. Takes some minutes.

    python tests/golden/tokenizer/unicode_table.py > src/format/unicode_table.c
"""
import sys
from tokenizers import Regex, normalizers, pre_tokenizers

CATEGORIES = "Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cc Cf Co Cs Cn".split()
SCRIPTS = "Han Hiragana Katakana Hangul Latin Greek Cyrillic Arabic Hebrew Thai Devanagari".split()
POINTS = [c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF]


def matches(name, text="".join(map(chr, POINTS))):
    rest = pre_tokenizers.Split(Regex(r"\p{%s}" % name), "removed").pre_tokenize_str(text)
    out = set(POINTS)
    for piece, _ in rest:
        out.difference_update(map(ord, piece))
    return out


def ranges(points):
    out = []
    for c in sorted(points):
        if out and out[-1][1] == c - 1:
            out[-1][1] = c
        else:
            out.append([c, c])
    return out


def kept(normalizer, points):
    """The marks of later Unicode versions than the normalizer knows: it keeps them."""
    return ranges(c for c in points if normalizer.normalize_str("a" + chr(c) + "b") != "ab")


def rows(items, form, width=124):
    line = " "
    for x in items:
        word = " " + form(x) + ","
        if len(line) + len(word) > width:
            print(line)
            line = " "
        line += word
    print(line)


def main():
    category = {c: CATEGORIES.index("Cs") for c in range(0xD800, 0xE000)}
    for i, name in enumerate(CATEGORIES):
        if name != "Cs":
            category.update((c, i) for c in matches(name))
    starts = [c for c in range(0x110000) if c == 0 or category[c] != category[c - 1]]
    scripts = [r + [i] for i, name in enumerate(SCRIPTS) for r in ranges(matches(name))]
    marks = {k: matches(k) for k in ("Mn", "Mc", "Me")}
    bert = normalizers.BertNormalizer(clean_text=False, handle_chinese_chars=False, strip_accents=True, lowercase=False)
    later = [("accents", kept(normalizers.StripAccents(), marks["Mn"] | marks["Mc"] | marks["Me"])), ("nonspacing", kept(bert, marks["Mn"]))]
    print("/* unicode_table.c - made by tests/golden/tokenizer/unicode_table.py; see unicode.h. Each number is the first code point of a")
    print(" * range << 5 | its category. */")
    print('#include "format/unicode_table.h"\n')
    print("const uint32_t mn_unicode_ranges[] = {")
    rows(starts, lambda c: "%#x" % (c << 5 | category[c]))
    print("};\nconst int mn_unicode_n_ranges = %d;\n" % len(starts))
    print("const char *const mn_unicode_scripts[] = {")
    rows(SCRIPTS, lambda s: '"%s"' % s)
    print("    NULL};\n\nconst mn_script_range mn_unicode_script_ranges[] = {")
    rows(scripts, lambda r: "{%#x, %#x, %d}" % tuple(r))
    print("};\nconst int mn_unicode_n_script_ranges = %d;" % len(scripts))
    for name, found in later:
        print("\nconst uint32_t mn_unicode_later_%s[][2] = {" % name)
        rows(found, lambda r: "{%#x, %#x}" % tuple(r))
        print("};\nconst int mn_unicode_n_later_%s = %d;" % (name, len(found)))


if __name__ == "__main__":
    sys.exit(main())
