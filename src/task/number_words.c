/* number_words.c - numbers in words, from English to German: a small translation that is right or wrong, with an order of its own
 * (units stand before tens), joined words and letters outside ASCII.
 *
 *     three hundred five thousand one hundred twenty-one  ->  dreihundertfünftausendeinhunderteinundzwanzig
 *
 * Both lines end in a newline, so that a decoder alone can be trained on them and knows when to stop. A hash of the number says to
 * which split it belongs, one in ten to validation and one to test: numbers that were held out were never seen. */
#include "task/task.h"

#include <stdlib.h>
#include <string.h>

typedef struct number_config {
  int64_t limit;
} number_config;

static const mn_field fields[] = {MN_FIELD_INT(number_config, limit, 1000000, 100, 1000000, "numbers are below this"), MN_FIELD_END};

static mn_status setup(mn_task *task) {
  (void)task;
  return MN_OK;
}

static const char *const en_small[] = {"zero",     "one",     "two",     "three",     "four",     "five",    "six",
                                       "seven",    "eight",   "nine",    "ten",       "eleven",   "twelve",  "thirteen",
                                       "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"};
static const char *const en_tens[] = {"", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"};
static const char *const de_small[] = {"null",     "ein",      "zwei",     "drei",     "vier",     "fünf",    "sechs",
                                       "sieben",   "acht",     "neun",     "zehn",     "elf",      "zwölf",   "dreizehn",
                                       "vierzehn", "fünfzehn", "sechzehn", "siebzehn", "achtzehn", "neunzehn"};
static const char *const de_tens[] = {"", "", "zwanzig", "dreißig", "vierzig", "fünfzig", "sechzig", "siebzig", "achtzig", "neunzig"};

/* ---- English: 0 <= n < 1,000,000 ---- */
static void english_hundreds(mn_text *out, int n) { /* 1 ... 999 */
  if (n >= 100) mn_text_addf(out, "%s hundred%s", en_small[n / 100], n % 100 ? " " : "");
  n %= 100;
  if (n >= 20) mn_text_addf(out, "%s%s%s", en_tens[n / 10], n % 10 ? "-" : "", n % 10 ? en_small[n % 10] : "");
  else if (n) mn_text_add(out, en_small[n]);
}

static void english(mn_text *out, int n) {
  if (n == 0) mn_text_add(out, en_small[0]);
  if (n >= 1000) {
    english_hundreds(out, n / 1000);
    mn_text_add(out, n % 1000 ? " thousand " : " thousand");
  }
  if (n % 1000) english_hundreds(out, n % 1000);
}

/* ---- German ---- a last one is "eins", every other "ein" */
static void german_hundreds(mn_text *out, int n, bool last) {
  if (n >= 100) mn_text_addf(out, "%shundert", de_small[n / 100]);
  n %= 100;
  if (n >= 20) {
    if (n % 10) mn_text_addf(out, "%sund", de_small[n % 10]);
    mn_text_add(out, de_tens[n / 10]);
  } else if (n) {
    mn_text_add(out, de_small[n]);
    if (n == 1 && last) mn_text_add(out, "s");
  }
}

static void german(mn_text *out, int n) {
  if (n == 0) mn_text_add(out, de_small[0]);
  if (n >= 1000) {
    german_hundreds(out, n / 1000, false);
    mn_text_add(out, "tausend");
  }
  if (n % 1000) german_hundreds(out, n % 1000, true);
}

static char *written(void (*in)(mn_text *out, int n), int n) { /* the words and a newline; NULL: memory is short */
  mn_text text = {0};
  in(&text, n);
  mn_text_add(&text, "\n");
  if (mn_text_status(&text) == MN_OK) return text.data;
  mn_text_free(&text);
  return NULL;
}

/* ---- samples ---- */
static int split_of(int n) {
  uint64_t h = ((uint64_t)n + 1) * 0x9e3779b97f4a7c15u; /* SplitMix64's finaliser */
  h = (h ^ h >> 30) * 0xbf58476d1ce4e5b9u;
  h = (h ^ h >> 27) * 0x94d049bb133111ebu;
  uint64_t tenth = (h ^ h >> 31) % 10;
  return tenth == 0 ? MN_SPLIT_VALIDATION : tenth == 1 ? MN_SPLIT_TEST : MN_SPLIT_TRAIN;
}

static mn_status sample(const mn_task *task, int split, uint64_t seed, mn_task_text *out) {
  const number_config *c = task->config;
  mn_rng rng;
  mn_rng_seed(&rng, seed);
  int n;
  do { /* as many digits as any, then the number: short ones are not rare */
    uint64_t below = 10;
    for (uint64_t more = mn_rng_below(&rng, 6); more > 0; more--) below *= 10;
    n = (int)mn_rng_below(&rng, below < (uint64_t)c->limit ? below : (uint64_t)c->limit);
  } while (split_of(n) != split);
  out->prompt = written(english, n);
  out->answer = written(german, n);
  out->answers = mn_calloc(1, sizeof *out->answers);
  if (!out->prompt || !out->answer || !out->answers) return MN_ERR_MEMORY;
  if (!(out->answers[0] = written(german, n))) return MN_ERR_MEMORY;
  out->answers[0][strlen(out->answers[0]) - 1] = 0; /* without the newline */
  out->n_answers = 1;
  return MN_OK;
}

/* Reads English words back: `units` of the thousands or of the rest so far. */
static int number_of(const char *words) {
  int total = 0, units = 0;
  while (*words && *words != '\n') {
    size_t n = strcspn(words, " -\n");
    if (n == 7 && !memcmp(words, "hundred", n)) units *= 100;
    else if (n == 8 && !memcmp(words, "thousand", n)) total = units * 1000, units = 0;
    for (int i = 0; i < 20; i++) units += strlen(en_small[i]) == n && !memcmp(words, en_small[i], n) ? i : 0;
    for (int i = 2; i < 10; i++) units += strlen(en_tens[i]) == n && !memcmp(words, en_tens[i], n) ? 10 * i : 0;
    words += n;
    if (*words == ' ' || *words == '-') words++;
  }
  return total + units;
}

static char *oracle(const mn_task *task, const char *prompt) {
  (void)task;
  return written(german, number_of(prompt));
}

static double score(const mn_task *task, const mn_task_text *s, const char *output) { /* the whole first line, letter by letter */
  (void)task;
  size_t n = strcspn(output, "\n");
  return n == strlen(s->answers[0]) && !memcmp(output, s->answers[0], n);
}

const mn_task_def mn_task_number_words = {
    .name = "number_words",
    .help = "numbers in words, English to German (text)",
    .fields = fields,
    .config_size = sizeof(number_config),
    .setup = setup,
    .sample_text = sample,
    .oracle_text = oracle,
    .score_text = score,
};
