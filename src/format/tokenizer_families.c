/* tokenizer_families.c - the names of tokenizer.ggml.pre and how each family of models cuts text. The patterns are those of the models' own
 * tokenizers, as they publish them. */
#include "format/tokenizer_gguf.h"

#include <string.h>

#define SUFFIXES                  "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define BLANKS                    "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define WORDS                     "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+"
#define SIGNS                     " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"
#define GPT2                      "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define UPPER                     "\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}"
#define LOWER                     "\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}"
#define CASED_OF(upper, lower, s) "[^\\r\\n\\p{L}\\p{N}]?" upper "*" lower "+" s "|[^\\r\\n\\p{L}\\p{N}]?" upper "+" lower "*" s
#define CASED(s)                  CASED_OF("[" UPPER "]", "[" LOWER "]", s)
#define NO_HAN(set)               "[" set "&&[^\\p{Han}]]"
#define CASED_BUT_HAN(s)          CASED_OF(NO_HAN(UPPER), NO_HAN(LOWER), s)
#define ASCII_SIGNS               "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~]"
#define CHINESE                   "[一-龥぀-ゟ゠-ヿ]+"
#define OLD_CHINESE               "[一-龥ࠀ-一가-퟿]+"
/* The letters with case that DeepSeek's first tokenizer lists. */
#define CASED_LETTERS                                                                                                                      \
  "A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵ"                                                              \
  "Ϸ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅ"                                           \
  "Ὀ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂ"                                    \
  "ℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳ"                                       \
  "Ꙁ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓"                                               \
  "𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃"

#define LIST(name, ...) static const char *const name[] = {__VA_ARGS__, NULL}
LIST(gpt2, GPT2);
LIST(digits_gpt2, "\\p{N}", GPT2);
LIST(llama3, SUFFIXES "|" WORDS "|\\p{N}{1,3}|" SIGNS "|" BLANKS);
LIST(minicpm, "\\p{N}{1,3}", SUFFIXES "|" WORDS "|\\p{N}+|" SIGNS "|" BLANKS);
LIST(
    jais2, SUFFIXES
    "|" WORDS "|\\p{N}{1,3}|" SIGNS
    "|\\s*[\\r\\n]+|\\s{512}(?!\\S)|\\s{256}(?!\\S)|\\s{128}(?!\\S)|\\s{64}(?!\\S)|\\s{32}(?!\\S)|\\s{16}(?!\\S)|\\s{8}(?!\\S)|\\s{4}(?!\\S)|\\s{1,2}(?!\\S)|\\s{1}");
LIST(qwen2, SUFFIXES "|" WORDS "|\\p{N}|" SIGNS "|" BLANKS);
LIST(qwen35, SUFFIXES "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|" BLANKS);
LIST(no_suffix, WORDS "|\\p{N}|" SIGNS "|" BLANKS);
LIST(laguna, "[^\\n]+|[\\n]+", SUFFIXES "|" WORDS "|\\p{N}|" SIGNS "|" BLANKS);
LIST(seed, SUFFIXES "|" WORDS "|\\p{N}{1}| ?[^\\s\\p{L}\\p{N}\\r\\n]+|" BLANKS);
LIST(bailing, "'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+");
LIST(exaone_moe, SUFFIXES
     "|[^\\r\\n\\p{L}\\p{N}]?(?:\\p{L}\\p{M}*(?: \\p{L}\\p{M}*)*)+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]?|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+");
LIST(gpt4o, CASED(SUFFIXES "?") "|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|" BLANKS);
LIST(tekken, CASED("") "|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|" BLANKS);
LIST(aya, "\\d{1,3}(?=(?:\\d{3})*\\b)", CASED(SUFFIXES "?") "|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|" BLANKS);
LIST(youtu, "[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|" CHINESE,
     CASED(SUFFIXES "?") "|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|" BLANKS);
LIST(superbpe, "\\p{N}+", "(?=(\\d{3})+(?!\\d))");
LIST(bloom, " ?[^(\\s|.,!?…。，、।۔،)]+");
LIST(viking, " ?[^(\\s|.,!?…。，、।۔،)]+", "\\p{N}");
LIST(falcon, "[\\p{P}\\$\\+<=>\\^~\\|`]+", GPT2, "[0-9][0-9][0-9]");
LIST(oldest, "[\\p{P}\\$\\+<=>\\^~\\|]+", GPT2, "\\p{N}+", "[0-9][0-9][0-9]");
LIST(deepseek_llm, "[\\r\\n]", "\\s?[" CASED_LETTERS "]+", "\\s?[!-/:-~！-／：-～‘-‟　-。]+", "\\s+\\z", OLD_CHINESE, "\\p{N}+");
LIST(deepseek_coder, "[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", OLD_CHINESE, "\\p{N}");
LIST(deepseek_v3, "\\p{N}{1,3}", CHINESE,
     ASCII_SIGNS "[A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|" BLANKS);
LIST(spark, "\\p{N}{1,3}", CHINESE,
     ASCII_SIGNS "[A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+|[\\r\\n]|\\s+(?!\\S)|\\s+", "\\p{N}");
LIST(kimi, "\\p{Han}+|" CASED_BUT_HAN(SUFFIXES "?") "|\\p{N}{1,3}|" SIGNS "|" BLANKS);
/* Digits in threes from the right; scripts that put no blank between words. */
LIST(
    afmoe, "\\p{N}{1,3}(?=(?:\\p{N}{3})*(?!\\p{N}))",
    "[\\x{4E00}-\\x{9FFF}\\x{3400}-\\x{4DBF}\\x{F900}-\\x{FAFF}\\x{3040}-\\x{309F}\\x{30A0}-\\x{30FF}\\x{FF65}-\\x{FF9F}\\x{2F00}-\\x{2FDF}"
    "\\x{0E40}-\\x{0E7F}\\x{0EC0}-\\x{0EFF}\\x{1780}-\\x{17FF}\\x{1000}-\\x{109F}\\x{AA60}-\\x{AA7F}\\x{A9E0}-\\x{A9FF}\\x{AC00}-\\x{D7AF}\\x{1100}-\\x{11FF}]+",
    ASCII_SIGNS "[A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|" BLANKS);
LIST(chameleon, "<sentinel:[0-9]+>", "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z", "([\\t\\n]|    |  )", "\\p{N}", "[\\p{P}!-/:-@\\[-`{-~]", GPT2);
LIST(lines, "[^\\n]+|[\\n]+");

enum { IGNORE = 1, BOS = 2, ALWAYS = 4, CHARACTERS = 8 };
static const struct {
  const char *names; /* separated by blanks */
  const char *const *patterns;
  int flags;
} families[] = {
    {"gpt-2 phi-2 jina-es jina-de gigachat jina-v2-es jina-v2-de a.x-4.0 mellum modern-bert mpt olmo jais trillion granite-docling exaone4 "
     "jina-v1-en jina-v2-code roberta-bpe",
     gpt2, 0},
    {"starcoder refact command-r smollm codeshell exaone minerva-7b mellum2", digits_gpt2, 0},
    {"llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano", llama3, IGNORE | BOS},
    {"dbrx smaug-bpe chatglm-bpe", llama3, 0},
    {"glm4 glm5", llama3, IGNORE},
    {"minicpm5", minicpm, IGNORE},
    {"jais-2", jais2, 0},
    {"qwen2 deepseek-r1-qwen kormo f2llmv2 stablelm2 hunyuan solar-open megrez grok-2", qwen2, 0},
    {"qwen35", qwen35, 0},
    {"ufakzeka", no_suffix, 0},
    {"laguna", laguna, 0},
    {"seed-coder", seed, 0},
    {"bailingmoe bailingmoe2 llada-moe", bailing, 0},
    {"exaone-moe", exaone_moe, 0},
    {"gpt-4o llama4 kanana2 talkie minimax-m2", gpt4o, 0},
    {"granite-embed-multi-97m", gpt4o, IGNORE},
    {"kimi-k2", kimi, 0},
    {"afmoe", afmoe, 0},
    {"spark2_5", spark, 0},
    {"tekken", tekken, IGNORE | BOS},
    {"tiny_aya cohere2moe", aya, 0},
    {"youtu", youtu, IGNORE},
    {"superbpe", superbpe, 0},
    {"poro-chat bloom gpt3-finnish", bloom, 0},
    {"viking", viking, 0},
    {"falcon", falcon, 0},
    {"default", oldest, 0},
    {"deepseek-llm", deepseek_llm, 0},
    {"deepseek-coder", deepseek_coder, 0},
    {"deepseek-v3 hunyuan-dense joyai-llm hy_v4", deepseek_v3, 0},
    {"chameleon", chameleon, BOS},
    {"gemma4 granite-embed-multi-311m", lines, ALWAYS | CHARACTERS},
    {"sarvam-moe", lines, CHARACTERS},
};

bool mn_family_find(const char *name, mn_family *out) {
  size_t n = strlen(name);
  for (size_t i = 0; n && i < sizeof families / sizeof *families; i++)
    for (const char *at = families[i].names; (at = strstr(at, name)); at += n) {
      bool begins = at == families[i].names || at[-1] == ' ', ends = at[n] == 0 || at[n] == ' ';
      if (!begins || !ends || strchr(name, ' ')) continue;
      int f = families[i].flags;
      *out = (mn_family){families[i].patterns, f & IGNORE, f & BOS, f & ALWAYS, f & CHARACTERS};
      return true;
    }
  return false;
}
