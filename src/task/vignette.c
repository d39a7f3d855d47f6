/* vignette.c - see vignette.h. */
#include "task/vignette.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "task/recurring.h"

enum { POOL = MN_VIGNETTE_LISTS * MN_VIGNETTE_NOUNS, ID_BLOCK = MN_RECURRING_NOUNS / MN_VIGNETTE_NOUNS, ID_PREFACE = 12 };
/* A delay is brought about by words; it is refused where it stays further off than this. */
enum { MOST_OFF = 24 };

const char *const mn_vignette_kinds[] = {"arbitrary", "semantic", NULL};
const char *const mn_vignette_seconds[] = {"repeat", "permuted", "novel", NULL};
const char *const mn_vignette_controls[] = {"none", "preface", "comma", "protagonist", "prompt", NULL};
const char *const mn_vignette_contexts[] = {"intact", "scrambled", "incongruent", "short", NULL};

static const char PREFACE[] = "One morning Clara wrote down a list of words: ",
                  PREFACE_OF_TWO[] = "One morning Clara wrote down two lists of words: ", PROMPT[] = "She read it again: ",
                  PROMPT_SHORT[] = "And the other: ";

struct mn_vignettes {
  const mn_tokenizer *tok; /* NULL: token ids */
  mn_encoder *enc;
  uint64_t seed;
  int32_t pool[2][POOL]; /* nouns by kind: group g is pool[kind][10 g ...] */
  mn_ids ids;
  mn_text between;
  int64_t between_delay; /* what `between` was made for; -1: nothing yet */
  int between_context, between_control;
};

/* ---- lists ---- */

static mn_rng stream(const mn_vignettes *v, const char *what, uint64_t index) {
  mn_rng rng;
  mn_rng_seed(&rng, mn_sample_seed(what, 0, v->seed, index));
  return rng;
}

static void make_pools(mn_vignettes *v) {
  mn_rng rng = stream(v, "verbatim.pool", 0);
  if (v->tok) {
    for (int kind = 0; kind < 2; kind++)
      for (int32_t i = 0; i < POOL; i++) v->pool[kind][i] = i;
    mn_rng_shuffle(&rng, v->pool[MN_LISTS_ARBITRARY], POOL);
    return;
  }
  int32_t nouns[MN_RECURRING_NOUNS];
  for (int g = 0; g < MN_VIGNETTE_LISTS; g++) {
    if (g % ID_BLOCK == 0) {
      for (int32_t i = 0; i < MN_RECURRING_NOUNS; i++) nouns[i] = i;
      mn_rng_shuffle(&rng, nouns, MN_RECURRING_NOUNS);
    }
    memcpy(v->pool[0] + g * MN_VIGNETTE_NOUNS, nouns + g % ID_BLOCK * MN_VIGNETTE_NOUNS, MN_VIGNETTE_NOUNS * sizeof *nouns);
  }
}

static void rotated(const int32_t *group, int by, int length, int32_t *out) {
  for (int k = 0; k < length; k++) out[k] = group[(k - by + MN_VIGNETTE_NOUNS) % MN_VIGNETTE_NOUNS];
}

/* The group whose rotation s is novel to group g: another of the same block, and for each s a permutation of the block. */
static int novel_to(const mn_vignettes *v, int g, int s) {
  const int block = v->tok ? MN_VIGNETTE_LISTS : ID_BLOCK, begin = g / block * block;
  const int n = begin + block < MN_VIGNETTE_LISTS ? block : MN_VIGNETTE_LISTS - begin;
  mn_rng rng = stream(v, "verbatim.novel", (uint64_t)begin);
  const int first = (int)mn_rng_below(&rng, (uint64_t)(n - 1));
  return begin + (g - begin + 1 + (first + s) % (n - 1)) % n;
}

void mn_vignettes_lists(const mn_vignettes *v, const mn_vignette_cell *cell, int index, int32_t *first, int32_t *second) {
  const int g = index / MN_VIGNETTE_NOUNS, s = index % MN_VIGNETTE_NOUNS, n = cell->length;
  const int32_t *pool = v->pool[cell->kind];
  rotated(pool + g * MN_VIGNETTE_NOUNS, s, n, first);
  if (cell->second == MN_SECOND_NOVEL) {
    rotated(pool + novel_to(v, g, s) * MN_VIGNETTE_NOUNS, s, n, second);
    return;
  }
  memcpy(second, first, (size_t)n * sizeof *second);
  mn_rng rng = stream(v, "verbatim.order", (uint64_t)index);
  while (cell->second == MN_SECOND_PERMUTED && !memcmp(first, second, (size_t)n * sizeof *second)) mn_rng_shuffle(&rng, second, (size_t)n);
}

/* ---- token ids ---- */

static mn_status room(mn_vignette *out, int64_t n) {
  if (n <= out->cap) return MN_OK;
  int32_t *ids = mn_realloc(out->ids, (size_t)n * sizeof *ids);
  if (!ids) return MN_ERR_MEMORY;
  out->ids = ids;
  int32_t *word = mn_realloc(out->word, (size_t)n * sizeof *word);
  if (!word) return MN_ERR_MEMORY;
  out->word = word;
  out->cap = n;
  return MN_OK;
}

static void add_prose(mn_rng *rng, int64_t n, mn_vignette *out) {
  for (int64_t i = 0; i < n; i++) {
    const int32_t before = out->n ? out->ids[out->n - 1] : -1;
    int32_t id;
    do id = mn_recurring_next(rng, before);
    while (mn_recurring_is_noun(id));
    out->word[out->n] = -1;
    out->ids[out->n++] = id;
  }
}

static void add_nouns(const int32_t *nouns, int n, int from, mn_vignette *out) {
  for (int k = 0; k < n; k++) {
    out->word[out->n] = from + k;
    out->ids[out->n++] = MN_RECURRING_NOUN + nouns[k];
  }
}

static mn_status build_ids(mn_vignettes *v, const mn_vignette_cell *c, int index, const int32_t *first, const int32_t *second,
                           mn_vignette *out) {
  if (c->kind != MN_LISTS_ARBITRARY)
    return mn_fail(MN_ERR_CONFIG, "lists %s need words, and this model reads token ids; only arbitrary lists can be made of them",
                   mn_vignette_kinds[c->kind]);
  if (c->context != MN_CONTEXT_INTACT)
    return mn_fail(MN_ERR_CONFIG, "the context %s needs words, and this model reads token ids; only intact ones can be made of them",
                   mn_vignette_contexts[c->context]);
  if (c->control != MN_CONTROL_NONE)
    return mn_fail(MN_ERR_CONFIG, "the control %s changes words, and this model reads token ids", mn_vignette_controls[c->control]);
  mn_rng rng = stream(v, "verbatim.prose", (uint64_t)index); /* the same whatever the second list is */
  MN_TRY(room(out, ID_PREFACE + c->delay + 2 * c->length));
  out->n = 0;
  add_prose(&rng, ID_PREFACE, out);
  add_nouns(first, c->length, 0, out);
  add_prose(&rng, c->delay, out);
  add_nouns(second, c->length, c->length, out);
  return MN_OK;
}

/* ---- text ---- */

static mn_status encode(mn_vignettes *v, const mn_text *text) {
  v->ids.len = 0;
  return mn_encoder_add(v->enc, text->data, text->len, 0, &v->ids);
}

/* ". <words of the story> She read it again: " */
static mn_status write_between(mn_vignettes *v, int context, int control, size_t words) {
  mn_text story = {0};
  mn_rng rng = stream(v, "verbatim.story", 0), order = stream(v, "verbatim.scramble", 0);
  v->between.len = 0;
  mn_text_add(&v->between, ". ");
  if (context != MN_CONTEXT_SHORT && words) {
    mn_vignette_story(&rng, context == MN_CONTEXT_INCONGRUENT, words, &story);
    mn_status status = mn_text_status(&story);
    if (status == MN_OK && context == MN_CONTEXT_SCRAMBLED) status = mn_vignette_scramble(&order, story.data, &v->between);
    else if (status == MN_OK) mn_text_add_bytes(&v->between, story.data, story.len);
    mn_text_free(&story);
    MN_TRY(status);
    mn_text_add(&v->between, " ");
  }
  mn_text prompt = {0};
  mn_text_add(&prompt, context == MN_CONTEXT_SHORT ? PROMPT_SHORT : PROMPT);
  mn_rng words_of = stream(v, "verbatim.prompt", 0);
  mn_status status = control == MN_CONTROL_PROMPT ? mn_vignette_change(&words_of, control, &prompt) : mn_text_status(&prompt);
  if (status == MN_OK) mn_text_add(&v->between, prompt.data);
  mn_text_free(&prompt);
  MN_TRY(status);
  return control == MN_CONTROL_COMMA || control == MN_CONTROL_PROTAGONIST ? mn_vignette_change(NULL, control, &v->between)
                                                                          : mn_text_status(&v->between);
}

static mn_status gap_of(mn_vignettes *v, const mn_vignette_cell *c, size_t words, int64_t *gap) {
  MN_TRY(write_between(v, c->context, c->control, words));
  v->between.data[--v->between.len] = 0; /* its last space belongs to the noun that follows, as most tokenizers see it */
  mn_status status = encode(v, &v->between);
  mn_text_add(&v->between, " ");
  *gap = (int64_t)v->ids.len + mn_tokenizer_is_bytes(v->tok);
  return status == MN_OK ? mn_text_status(&v->between) : status;
}

/* As many words as bring the lists nearest to `delay` tokens apart. */
static mn_status fit_between(mn_vignettes *v, const mn_vignette_cell *c) {
  const int64_t delay = c->context == MN_CONTEXT_SHORT ? 0 : c->delay;
  if (v->between_delay == delay && v->between_context == c->context && v->between_control == c->control) return MN_OK;
  v->between_delay = -1;
  size_t low = 0, high = 1; /* gap(low) <= delay < gap(high) */
  int64_t least, below, above;
  MN_TRY(gap_of(v, c, 0, &least));
  if (delay && least > delay)
    return mn_fail(MN_ERR_CONFIG,
                   "delay %" PRId64 ": the full stop and \"%.18s\" between the lists are %" PRId64
                   " of this model's tokens; ask for that or more, or for 0, the shortest",
                   delay, PROMPT, least);
  if (delay) {
    for (below = least;; high *= 2) {
      MN_TRY(gap_of(v, c, high, &above));
      if (above > delay) break;
      low = high, below = above;
    }
    while (high - low > 1) {
      const size_t middle = low + (high - low) / 2;
      int64_t gap;
      MN_TRY(gap_of(v, c, middle, &gap));
      if (gap <= delay) low = middle, below = gap;
      else high = middle, above = gap;
    }
    if (above - delay < delay - below) low = high, below = above;
    if (below - delay > MOST_OFF || delay - below > MOST_OFF)
      return mn_fail(MN_ERR_CONFIG, "delay %" PRId64 " cannot be met: with whole words the lists stand %" PRId64 " tokens apart", delay,
                     below);
    MN_TRY(write_between(v, c->context, c->control, low));
  }
  v->between_delay = delay;
  v->between_context = c->context;
  v->between_control = c->control;
  return MN_OK;
}

typedef struct place { /* of a noun, in bytes of the text */
  size_t begin, end;
} place;

static void write_list(const int32_t *nouns, int n, mn_text *out, place *at) {
  for (int k = 0; k < n; k++) {
    const char *noun = mn_vignette_noun(nouns[k]);
    if (k) mn_text_add(out, ", ");
    at[k] = (place){out->len, out->len + strlen(noun)};
    mn_text_add(out, noun);
  }
}

static mn_status spans(const char *token, size_t n, const mn_text *text, const place *p) {
  char shown[MN_PRINTABLE], piece[48];
  snprintf(piece, sizeof piece, "%.*s", (int)(n < sizeof piece ? n : sizeof piece - 1), token);
  return mn_fail(
      MN_ERR_CONFIG,
      "the tokenizer's token '%s' spans the noun '%.*s' and what stands beside it, so that the noun has no surprisal of its own; "
      "the probe needs a tokenizer that splits words from punctuation (bytes, or bpe with a pattern)",
      mn_printable(piece, shown), (int)(p->end - p->begin), text->data + p->begin);
}

/* Which noun each token is of: one that covers letters of it, and nothing else but a space before. */
static mn_status map_words(mn_vignettes *v, const place *at, int n_nouns, mn_vignette *out) {
  size_t begin = 0, n;
  int noun = 0;
  MN_TRY(room(out, (int64_t)v->ids.len));
  out->n = (int64_t)v->ids.len;
  for (int64_t t = 0; t < out->n; t++) {
    const char *token = mn_tokenizer_token(v->tok, v->ids.data[t], &n);
    if (!token || begin + n > out->text.len || memcmp(token, out->text.data + begin, n) != 0)
      return mn_fail(
          MN_ERR_CONFIG,
          "the tokenizer changes the text (a prefix, a normalizer): at '%.16s' its tokens spell something else, and the probe must "
          "know which tokens are a noun's",
          out->text.data + begin);
    const size_t end = begin + n;
    while (noun < n_nouns && at[noun].end <= begin) noun++;
    const bool of = noun < n_nouns && end > at[noun].begin;
    if (of && (end > at[noun].end || begin + 1 < at[noun].begin || (begin < at[noun].begin && *token != ' ')))
      return spans(token, n, &out->text, &at[noun]);
    out->ids[t] = v->ids.data[t];
    out->word[t] = of ? noun : -1;
    begin = end;
  }
  return begin == out->text.len ? MN_OK : mn_fail(MN_ERR_CONFIG, "the tokenizer leaves out the end of the text");
}

static mn_status build_text(mn_vignettes *v, const mn_vignette_cell *c, const int32_t *first, const int32_t *second, mn_vignette *out) {
  place at[2 * MN_VIGNETTE_NOUNS];
  MN_TRY(fit_between(v, c));
  out->text.len = 0;
  mn_text_add(&out->text, c->context == MN_CONTEXT_SHORT ? PREFACE_OF_TWO : PREFACE);
  mn_rng words = stream(v, "verbatim.preface", 0);
  if (c->control != MN_CONTROL_PROMPT) MN_TRY(mn_vignette_change(&words, c->control, &out->text));
  write_list(first, c->length, &out->text, at);
  mn_text_add_bytes(&out->text, v->between.data, v->between.len);
  write_list(second, c->length, &out->text, at + c->length);
  mn_text_add(&out->text, ".");
  MN_TRY(mn_text_status(&out->text));
  MN_TRY(encode(v, &out->text));
  return map_words(v, at, 2 * c->length, out);
}

/* ---- both ---- */

mn_status mn_vignettes_build(mn_vignettes *v, const mn_vignette_cell *cell, int index, mn_vignette *out) {
  int32_t first[MN_VIGNETTE_NOUNS], second[MN_VIGNETTE_NOUNS];
  if (index < 0 || index >= MN_VIGNETTES || cell->length < 2 || cell->length > MN_VIGNETTE_NOUNS)
    return mn_fail(MN_ERR_ARG, "vignette %d of lists of %d nouns: there are %d, of 2 to %d nouns", index, cell->length, MN_VIGNETTES,
                   MN_VIGNETTE_NOUNS);
  mn_vignettes_lists(v, cell, index, first, second);
  MN_TRY(v->tok ? build_text(v, cell, first, second, out) : build_ids(v, cell, index, first, second, out));
  int64_t last = 0, next = out->n;
  for (int64_t t = 0; t < out->n; t++) {
    if (out->word[t] >= 0 && out->word[t] < cell->length) last = t;
    if (out->word[t] == cell->length && t < next) next = t;
  }
  out->gap = next - last - 1;
  return MN_OK;
}

mn_status mn_vignettes_open(const mn_tokenizer *tok, uint64_t seed, mn_vignettes **out) {
  mn_vignettes *v = mn_calloc(1, sizeof *v);
  *out = NULL;
  if (!v) return MN_ERR_MEMORY;
  v->tok = tok;
  v->seed = seed;
  v->between_delay = -1;
  make_pools(v);
  mn_status status = tok ? mn_encoder_new(tok, &v->enc) : MN_OK;
  if (status != MN_OK) free(v);
  else *out = v;
  return status;
}

void mn_vignettes_close(mn_vignettes *v) {
  if (!v) return;
  mn_encoder_free(v->enc);
  mn_ids_free(&v->ids);
  mn_text_free(&v->between);
  free(v);
}

void mn_vignette_free(mn_vignette *v) {
  free(v->ids);
  free(v->word);
  mn_text_free(&v->text);
  *v = (mn_vignette){0};
}
