/* niah.c - needles in a haystack as text, after RULER (Hsieh et al., arXiv 2404.06654).
 *
 * A needle is "One of the special magic numbers for KEY is: VALUE."; a haystack is the noise block (repeat), any prose
 * the user has (essay) or other needles (needle). The haystack grows, in steps, to the largest at which prompt and
 * answer fit in `len` tokens of the model (mn_task_count_with); a sample is built afresh from its own seed at every
 * size tried, so it depends on its seed and on the token count only. */
#include "task/filler.h"
#include "task/words.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef enum { HAY_REPEAT, HAY_ESSAY, HAY_NEEDLE } hay_kind;
typedef enum { KIND_NUMBERS, KIND_WORDS, KIND_UUIDS } word_kind;
typedef enum { START_FIRST, START_RANDOM } start_kind;
static const char *const haystacks[] = {"repeat", "essay", "needle", NULL};
static const char *const word_kinds[] = {"numbers", "words", "uuids", NULL};
static const char *const starts[] = {"first", "random", NULL};
enum { MAX_NEEDLES = 64, DEPTH_POINTS = 40, WORD_MAX = 40, STOP_EVERY = 1 << 14, MAX_TRIES = 1000 };

typedef struct niah_config {
  hay_kind haystack;
  word_kind key, value;
  start_kind start;
  int64_t keys, values, queries, len, new_tokens;
  double depth;
  const char *text;
} niah_config;

typedef struct niah_data { /* the user's text */
  mn_filler filler;
  bool has_needles; /* the text speaks of special magic things itself */
} niah_data;

/* One table of settings per named task: the same fields, other defaults. */
#define FIELDS(hay, key_kind, value_kind, n_keys, n_values, n_queries)                                                                     \
  {                                                                                                                                        \
    MN_FIELD_ENUM(niah_config, haystack, haystacks, hay, "what the needles hide in"),                                                      \
        MN_FIELD_ENUM(niah_config, key, word_kinds, key_kind, "kind of keys"),                                                             \
        MN_FIELD_ENUM(niah_config, value, word_kinds, value_kind, "kind of values"),                                                       \
        MN_FIELD_INT(niah_config, keys, n_keys, 1, 16, "different keys written"),                                                          \
        MN_FIELD_INT(niah_config, values, n_values, 1, 16, "values written for each key"),                                                 \
        MN_FIELD_INT(niah_config, queries, n_queries, 1, 16, "keys asked for"),                                                            \
        MN_FIELD_INT(niah_config, len, 4096, 64, 1 << 28, "prompt and new tokens fit in this many tokens (T)"),                            \
        MN_FIELD_INT(niah_config, new_tokens, 128, 1, 1 << 16, "tokens kept free for the answer"),                                         \
        MN_FIELD_ENUM(niah_config, start, starts, START_FIRST, "essay: where in the text a haystack begins"),                              \
        MN_FIELD_FLOAT(niah_config, depth, -1, -1, 100, "percent of the haystack before the only needle; -1: random"),                     \
        MN_FIELD_STRING(niah_config, text, NULL, "essay: a text file, any prose"), MN_FIELD_END                                            \
  }

/* ---- keys, values, needles ---- */

static const char *const kind_plural[] = {"numbers", "words", "uuids"};
static const char *const kind_singular[] = {"number", "word", "uuid"};

static void draw_word(mn_rng *rng, word_kind kind, char out[WORD_MAX]) {
  if (kind == KIND_NUMBERS) {
    snprintf(out, WORD_MAX, "%u", 1000000u + (unsigned)mn_rng_below(rng, 9000000));
  } else if (kind == KIND_WORDS) {
    const char *adjective = mn_adjectives[mn_rng_below(rng, MN_ADJECTIVES)];
    snprintf(out, WORD_MAX, "%s-%s", adjective, mn_nouns[mn_rng_below(rng, MN_NOUNS)]);
  } else { /* RFC 4122 version 4: 122 random bits */
    uint64_t hi = mn_rng_next(rng), lo = mn_rng_next(rng);
    hi = (hi & ~(uint64_t)0xF000) | 0x4000;
    lo = (lo & ~((uint64_t)3 << 62)) | (uint64_t)1 << 63;
    snprintf(out, WORD_MAX, "%08x-%04x-%04x-%04x-%012llx", (unsigned)(hi >> 32), (unsigned)(hi >> 16 & 0xFFFF), (unsigned)(hi & 0xFFFF),
             (unsigned)(lo >> 48), (unsigned long long)(lo & 0xFFFFFFFFFFFF));
  }
}

typedef struct needles {
  char key[16][WORD_MAX];
  char value[16][16][WORD_MAX];
  int32_t order[MAX_NEEDLES * 4]; /* the order in which (key, value) pairs are inserted */
  int count;
} needles;

static bool overlap(const char *a, const char *b) { return strstr(a, b) || strstr(b, a); }

/* Is the word one of the sample's first `keys` keys, or part of one? Then it would make two answers of one. */
static bool is_key(const needles *s, int64_t keys, const char *word) {
  for (int64_t k = 0; k < keys; k++)
    if (overlap(s->key[k], word)) return true;
  return false;
}

/* The same of the sample's first `count` values. */
static bool is_value(const niah_config *c, const needles *s, int64_t count, const char *word) {
  for (int64_t i = 0; i < count; i++)
    if (overlap(s->value[i / c->values][i % c->values], word)) return true;
  return false;
}

/* Keys that neither contain each other nor stand in the user's text, where needles may be from another sample; values
 * that are told apart. */
static mn_status draw_needles(const mn_task *task, mn_rng *rng, needles *s) {
  const niah_config *c = task->config;
  const niah_data *d = task->data;
  for (int64_t k = 0; k < c->keys; k++) {
    char word[WORD_MAX];
    int tries = 0;
    do {
      if (tries++ == MAX_TRIES)
        return mn_fail(MN_ERR_CONFIG,
                       "task %s: text '%s' has needles of its own, for nearly every key that could be asked for; give a text without them",
                       task->def->name, c->text);
      draw_word(rng, c->key, word);
    } while (is_key(s, k, word) || (d->has_needles && strstr(d->filler.text, word)));
    memcpy(s->key[k], word, WORD_MAX);
    for (int64_t v = 0; v < c->values; v++) {
      do draw_word(rng, c->value, s->value[k][v]);
      while (is_value(c, s, k * c->values + v, s->value[k][v]));
    }
  }
  s->count = (int)(c->keys * c->values);
  for (int i = 0; i < s->count; i++) s->order[i] = i;
  mn_rng_shuffle(rng, s->order, (size_t)s->count);
  return MN_OK;
}

static void put_needle(mn_text *out, word_kind value_kind, const char *key, const char *value) {
  mn_text_add(out, "One of the special magic ");
  mn_text_add(out, kind_plural[value_kind]);
  mn_text_add(out, " for ");
  mn_text_add(out, key);
  mn_text_add(out, " is: ");
  mn_text_add(out, value);
  mn_text_add(out, ".");
}

static void put_needle_at(mn_text *out, const niah_config *c, const needles *s, int i) {
  int pair = s->order[i];
  put_needle(out, c->value, s->key[pair / c->values], s->value[pair / c->values][pair % c->values]);
}

static int by_value(const void *a, const void *b) {
  int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
  return (x > y) - (x < y);
}

/* ---- haystacks ---- */

static mn_status put_lines(const niah_config *c, mn_rng *rng, const needles *s, size_t lines, mn_text *out) {
  int32_t *at = mn_alloc((lines + (size_t)s->count) * sizeof *at), *scratch = at + s->count;
  if (!at) return MN_ERR_MEMORY;
  mn_rng_choose(rng, 0, lines, (size_t)s->count, scratch, at);
  if (c->depth >= 0) at[0] = (int32_t)((double)lines * c->depth / 100);
  qsort(at, (size_t)s->count, sizeof *at, by_value);
  int next = 0;
  for (size_t i = 0; i <= lines && (i % STOP_EVERY || !mn_stopped()); i++) { /* whoever stops, drops the sample */
    while (next < s->count && (size_t)at[next] == i) {
      put_needle_at(out, c, s, next++);
      mn_text_add(out, "\n");
    }
    if (i == lines) break;
    if (c->haystack == HAY_REPEAT) {
      mn_text_add(out, mn_words_noise);
    } else {
      char key[WORD_MAX], value[WORD_MAX];
      do draw_word(rng, c->key, key);
      while (is_key(s, c->keys, key));
      do draw_word(rng, c->value, value);
      while (is_value(c, s, s->count, value));
      put_needle(out, c->value, key, value);
    }
    mn_text_add(out, "\n");
  }
  free(at);
  return MN_OK;
}

static mn_status put_essay(const niah_config *c, const niah_data *d, mn_rng *rng, const needles *s, size_t words, mn_text *out) {
  int32_t depth[MAX_NEEDLES * 4], scratch[DEPTH_POINTS];
  mn_text hay = {0};
  size_t first = c->start ? (size_t)mn_rng_below(rng, d->filler.n_words) : 0;
  mn_filler_words(&d->filler, first, words, &hay);
  if (hay.failed) {
    free(hay.data);
    return MN_ERR_MEMORY;
  }
  mn_rng_choose(rng, 0, DEPTH_POINTS, (size_t)s->count, scratch, depth);
  qsort(depth, (size_t)s->count, sizeof *depth, by_value);
  size_t sentences = 1;
  for (size_t i = 0; i < hay.len; i++) sentences += mn_ends_sentence(hay.data, i, hay.len);
  size_t sentence = 0, begin = 0;
  int next = 0;
  for (size_t i = 0; i <= hay.len; i++) { /* sentence by sentence, each needle before the sentence of its depth */
    if (i < hay.len && !mn_ends_sentence(hay.data, i, hay.len)) continue;
    for (int pass = 0; pass < (i == hay.len ? 2 : 1); pass++) {
      for (; next < s->count; next++) {
        double percent = (double)(int)(100.0 * depth[next] / (DEPTH_POINTS - 1) + 0.5);
        if (c->depth >= 0) percent = c->depth;
        if ((size_t)((double)sentences * percent / 100) > sentence) break;
        if (out->len && out->data[out->len - 1] != '\n') mn_text_add(out, " ");
        put_needle_at(out, c, s, next);
      }
      if (pass == 0) {
        if (out->len && out->data[out->len - 1] != '\n') mn_text_add(out, " ");
        mn_text_add_bytes(out, hay.data + begin, i - begin);
        begin = i + 1;
        sentence++;
      }
    }
  }
  free(hay.data);
  return MN_OK;
}

/* ---- samples ---- */

static void put_query(mn_text *out, char key[][WORD_MAX], const int32_t *asked, int64_t n) {
  for (int64_t i = 0; i < n; i++) {
    if (i) mn_text_add(out, i == n - 1 ? ", and " : ", ");
    mn_text_add(out, key[asked[i]]);
  }
}

/* The sample of `seed` with a haystack of `units` words or lines. */
static mn_status build(const mn_task *task, uint64_t seed, size_t units, mn_task_text *out) {
  const niah_config *c = task->config;
  mn_rng rng;
  mn_rng_seed(&rng, seed);
  needles s = {.count = 0};
  MN_TRY(draw_needles(task, &rng, &s));
  int32_t asked[16], scratch[16];
  mn_rng_choose(&rng, 0, (size_t)c->keys, (size_t)c->queries, scratch, asked);

  bool one = c->queries * c->values == 1;
  const char *kind = one ? kind_singular[c->value] : kind_plural[c->value];
  mn_text p = {0}, answer = {0};
  mn_text_add(&p, one ? "A special magic " : "Some special magic ");
  mn_text_add(&p, kind);
  mn_text_add(&p, one ? " is" : " are");
  mn_text_add(&p, " hidden within the following text. Make sure to memorize it. I will quiz you about the ");
  mn_text_add(&p, kind);
  mn_text_add(&p, " afterwards.\n");
  mn_status status = c->haystack == HAY_ESSAY ? put_essay(c, task->data, &rng, &s, units, &p) : put_lines(c, &rng, &s, units, &p);
  mn_text_add(&p, c->haystack == HAY_ESSAY ? "\n" : "");
  mn_text_add(&p, one ? "What is the special magic " : "What are all the special magic ");
  mn_text_add(&p, kind);
  mn_text_add(&p, " for ");
  put_query(&p, s.key, asked, c->queries);
  mn_text_add(&p, " mentioned in the provided text? The special magic ");
  mn_text_add(&p, kind);
  mn_text_add(&p, " for ");
  put_query(&p, s.key, asked, c->queries);
  mn_text_add(&p, one ? " mentioned in the provided text is" : " mentioned in the provided text are");

  out->answers = mn_calloc((size_t)(c->queries * c->values), sizeof *out->answers);
  for (int64_t q = 0; q < c->queries && out->answers; q++)
    for (int64_t v = 0; v < c->values; v++) {
      char *value = s.value[asked[q]][v];
      mn_text_add(&answer, answer.len ? ", " : " ");
      mn_text_add(&answer, value);
      if ((out->answers[out->n_answers] = mn_strdup(value))) out->n_answers++;
      else status = MN_ERR_MEMORY;
    }
  out->prompt = p.data;
  out->answer = answer.data;
  return p.failed || answer.failed || !out->answers ? MN_ERR_MEMORY : status;
}

static size_t increment(const niah_config *c) {
  if (c->haystack == HAY_ESSAY) return c->len < 4096 ? 25 : 500;
  return c->len < 4096 ? 5 : 25;
}

/* Not fewer lines than needles. */
static mn_status build_units(const mn_task *task, uint64_t seed, size_t units, mn_task_text *out) {
  const niah_config *c = task->config;
  if (c->haystack != HAY_ESSAY && units < (size_t)(c->keys * c->values)) units = (size_t)(c->keys * c->values);
  return build(task, seed, units, out);
}

static mn_status sample_text(const mn_task *task, int split, uint64_t seed, mn_task_text *out) {
  (void)split;
  const niah_config *c = task->config;
  size_t units;
  MN_TRY(mn_fit_units(task, build_units, seed, increment(c), c->len, c->new_tokens, out, &units));
  if (!units)
    return mn_fail(MN_ERR_CONFIG, "task %s: len = %lld is too short for a haystack of %zu %s and %lld new tokens; raise len",
                   task->def->name, (long long)c->len, increment(c), c->haystack == HAY_ESSAY ? "words" : "lines",
                   (long long)c->new_tokens);
  mn_task_text_free(out);
  return build_units(task, seed, units, out);
}

/* Reads the question, then every needle that answers it. */
static char *oracle_text(const mn_task *task, const char *prompt) {
  (void)task;
  static const char *const opens[] = {"What is the special magic ", "What are all the special magic "};
  const char *question = NULL, *end;
  for (int i = 0; i < 2; i++)
    for (const char *p = prompt; (p = strstr(p, opens[i])); p++) question = p > question ? p : question;
  const char *key = question ? strstr(question, " for ") : NULL;
  end = key ? strstr(key, " mentioned in the provided text") : NULL;
  mn_text out = {0};
  mn_text_add(&out, "");
  while (end && key && key < end) {
    key += !strncmp(key, " for ", 5) ? 5 : !strncmp(key, ", and ", 6) ? 6 : 2;
    size_t n = strcspn(key, ", ");
    for (const char *p = prompt; (p = strstr(p, " for ")) && p < question; p++) {
      if (strncmp(p + 5, key, n) || strncmp(p + 5 + n, " is: ", 5)) continue;
      const char *value = p + 10 + n;
      mn_text_add(&out, out.len ? ", " : " ");
      mn_text_add_bytes(&out, value, strcspn(value, "."));
    }
    key += n;
  }
  return mn_text_take(&out);
}

static bool contains_folded(const char *text, const char *word) {
  size_t n = strlen(word);
  for (; *text; text++) {
    size_t i = 0;
    while (i < n && tolower((unsigned char)text[i]) == tolower((unsigned char)word[i])) i++;
    if (i == n) return true;
  }
  return n == 0;
}

static double score_text(const mn_task *task, const mn_task_text *s, const char *output) {
  (void)task;
  int found = 0;
  for (int i = 0; i < s->n_answers; i++) found += contains_folded(output, s->answers[i]);
  return s->n_answers ? (double)found / s->n_answers : 0;
}

/* ---- opening ---- */

static mn_status setup(mn_task *task) {
  const niah_config *c = task->config;
  task->new_tokens = c->new_tokens;
  task->several_answers = true;
  const char *name = task->def->name;
  if (c->queries > c->keys)
    return mn_fail(MN_ERR_CONFIG, "task %s: queries = %lld is more than keys = %lld", name, (long long)c->queries, (long long)c->keys);
  int64_t most = c->haystack == HAY_ESSAY ? DEPTH_POINTS : MAX_NEEDLES;
  if (c->keys * c->values > most)
    return mn_fail(MN_ERR_CONFIG, "task %s: keys x values = %lld needles, but a haystack of this kind takes at most %lld", name,
                   (long long)(c->keys * c->values), (long long)most);
  if (c->depth >= 0 && c->keys * c->values != 1) return mn_fail(MN_ERR_CONFIG, "task %s: depth needs keys = 1 and values = 1", name);
  niah_data *d = task->data = mn_calloc(1, sizeof *d);
  if (!d) return MN_ERR_MEMORY;
  if (c->haystack != HAY_ESSAY) return MN_OK;
  if (!c->text) return mn_fail(MN_ERR_CONFIG, "task %s: haystack = essay needs a text; set text=FILE (for example data/books/...)", name);
  MN_TRY(mn_filler_open(name, "text", &(mn_strings){&c->text, 1}, &d->filler));
  d->has_needles = strstr(d->filler.text, "special magic") != NULL;
  return MN_OK;
}

static void close_(mn_task *task) {
  niah_data *d = task->data;
  mn_filler_close(&d->filler);
  free(d);
}

/* haystack, key, value; keys, values, queries */
#define DEFAULTS(id, ...) static const mn_field fields_##id[] = FIELDS(__VA_ARGS__)
DEFAULTS(niah, HAY_REPEAT, KIND_WORDS, KIND_NUMBERS, 1, 1, 1);
DEFAULTS(niah_single_1, HAY_REPEAT, KIND_WORDS, KIND_NUMBERS, 1, 1, 1);
DEFAULTS(niah_single_2, HAY_ESSAY, KIND_WORDS, KIND_NUMBERS, 1, 1, 1);
DEFAULTS(niah_single_3, HAY_ESSAY, KIND_WORDS, KIND_UUIDS, 1, 1, 1);
DEFAULTS(niah_single_w, HAY_ESSAY, KIND_WORDS, KIND_WORDS, 1, 1, 1);
DEFAULTS(niah_multikey_1, HAY_ESSAY, KIND_WORDS, KIND_NUMBERS, 4, 1, 1);
DEFAULTS(niah_multivalue, HAY_ESSAY, KIND_WORDS, KIND_NUMBERS, 1, 4, 1);
DEFAULTS(niah_multiquery, HAY_ESSAY, KIND_WORDS, KIND_NUMBERS, 4, 1, 4);

#define NIAH(id, title)                                                                                                                    \
  .name = #id, .help = title, .fields = fields_##id, .config_size = sizeof(niah_config), .setup = setup, .close = close_,                  \
  .sample_text = sample_text, .oracle_text = oracle_text, .score_text = score_text
/* clang-format off: a definition stands at a line's start, where the build finds it */
const mn_task_def mn_task_niah = {NIAH(niah, "needles in a haystack (text), every part settable")};
const mn_task_def mn_task_niah_single_1 = {NIAH(niah_single_1, "S-NIAH-PK: one number in repeated noise")};
const mn_task_def mn_task_niah_single_2 = {NIAH(niah_single_2, "S-NIAH-N: one number in prose")};
const mn_task_def mn_task_niah_single_3 = {NIAH(niah_single_3, "S-NIAH-U: one uuid in prose")};
const mn_task_def mn_task_niah_single_w = {NIAH(niah_single_w, "S-NIAH-W: one word pair in prose")};
const mn_task_def mn_task_niah_multikey_1 = {NIAH(niah_multikey_1, "MK-NIAH: four keys in prose, one asked")};
const mn_task_def mn_task_niah_multivalue = {NIAH(niah_multivalue, "one key with four values in prose")};
const mn_task_def mn_task_niah_multiquery = {NIAH(niah_multiquery, "four keys in prose, all asked")};
/* clang-format on */
