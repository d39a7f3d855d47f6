/* filler.c - see filler.h. */
#include "task/filler.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "task/prose.h"

enum { TEXT_LIMIT = 1 << 30 };

/* ---- texts of the user ---- */

/* Collapses runs of white space to one space and notes where the words end. */
static mn_status collapse(const char *name, const char *key, const mn_strings *files, mn_filler *f, size_t n) {
  size_t out = 0;
  for (size_t i = 0; i < n; i++) {
    char ch = f->text[i] ? f->text[i] : ' '; /* a NUL inside the text would end the prompt */
    if (isspace((unsigned char)ch)) {
      if (out && f->text[out - 1] != ' ') f->text[out++] = ' ';
    } else {
      f->text[out++] = ch;
    }
  }
  while (out && f->text[out - 1] == ' ') out--;
  f->text[out] = 0; /* whoever read the text left room for the end */
  f->n_words = out > 0;
  for (size_t i = 0; i < out; i++) f->n_words += f->text[i] == ' ';
  if (f->n_words < 100)
    return mn_fail(MN_ERR_CONFIG, "task %s: %s '%s' has only %zu words; give a text of at least 100", name, key, files->items[0],
                   f->n_words);
  if (!(f->word_end = mn_alloc(f->n_words * sizeof *f->word_end))) return MN_ERR_MEMORY;
  size_t w = 0;
  for (size_t i = 0; i <= out; i++)
    if (i == out || f->text[i] == ' ') f->word_end[w++] = i;
  return MN_OK;
}

mn_status mn_filler_open(const char *name, const char *key, const mn_strings *files, mn_filler *out) {
  mn_text all = {0};
  mn_status status = MN_OK;
  *out = (mn_filler){0};
  for (int i = 0; i < files->count && status == MN_OK; i++) {
    char *data;
    size_t n;
    status = mn_context(mn_file_read(files->items[i], TEXT_LIMIT, &data, &n), "task %s", name);
    if (status != MN_OK) break;
    if (!n) status = mn_fail(MN_ERR_CONFIG, "task %s: %s '%s' is empty", name, key, files->items[i]);
    mn_text_add_bytes(&all, data, n);
    mn_text_add(&all, "\n");
    free(data);
  }
  if (status == MN_OK) status = mn_text_status(&all);
  if (status == MN_OK) {
    const size_t n = all.len;
    out->text = mn_text_take(&all);
    status = out->text ? collapse(name, key, files, out, n) : MN_ERR_MEMORY;
  }
  mn_text_free(&all);
  if (status != MN_OK) mn_filler_close(out);
  return status;
}

void mn_filler_close(mn_filler *f) {
  free(f->text);
  free(f->word_end);
  *f = (mn_filler){0};
}

void mn_filler_words(const mn_filler *f, size_t first, size_t words, mn_text *out) {
  while (words) {
    size_t take = f->n_words - first < words ? f->n_words - first : words;
    size_t from = first ? f->word_end[first - 1] + 1 : 0;
    mn_text_add_bytes(out, f->text + from, f->word_end[first + take - 1] - from);
    words -= take;
    first = 0;
    if (words) mn_text_add(out, " ");
  }
}

bool mn_ends_sentence(const char *text, size_t i, size_t n) {
  size_t j = i;
  if (j >= n || text[j] != ' ') return false;
  while (j > 0 && strchr("\"')]*_", text[j - 1])) j--;
  if (j == 0 || !strchr(".!?", text[j - 1])) return false;
  unsigned char next = i + 1 < n ? (unsigned char)text[i + 1] : ' ';
  return isupper(next) || isdigit(next) || next == '"' || next == '\'' || next == '(' || next == '_' || next >= 0x80;
}

/* ---- words that there are not ---- */

/* The 320 ids of the prose as two syllables each: 16 that begin a word, 20 that end one. */
static void put_prose_word(int32_t id, bool capital, mn_text *out) {
  static const char *const begins[] = {"ba", "do", "fi", "gu", "ke", "la", "mo", "ni", "pe", "ra", "so", "ti", "vu", "wa", "ze", "jo"};
  static const char *const ends[] = {"b",  "dan", "fel", "go",  "kir", "lus", "m",   "ned", "pa",  "rit",
                                     "so", "tek", "v",   "wyn", "xo",  "zar", "gul", "hem", "lin", "rop"};
  const int n = id - MN_ID_PROSE;
  const char *begin = begins[n / 20];
  char first[2] = {capital ? (char)toupper((unsigned char)*begin) : *begin, 0};
  mn_text_add(out, first);
  mn_text_add(out, begin + 1);
  mn_text_add(out, ends[n % 20]);
}

void mn_prose_words(mn_rng *rng, size_t words, mn_text *out) {
  enum { SHORTEST = 6, SPREAD = 9 }; /* words of a sentence */
  int32_t a = 0, b = 0;
  uint64_t left = 0;
  for (size_t i = 0; i < words; i++) {
    const int32_t id = i < 2 ? MN_ID_PROSE + (int32_t)mn_rng_below(rng, MN_PROSE) : mn_prose_next(rng, a, b);
    const bool begins = left == 0;
    if (begins) left = SHORTEST + mn_rng_below(rng, SPREAD);
    if (i) mn_text_add(out, " ");
    put_prose_word(id, begins, out);
    left--;
    if (left == 0 || i + 1 == words) mn_text_add(out, ".");
    a = b;
    b = id;
  }
}

/* ---- how much fits ---- */

static mn_status try_size(const mn_task *task, mn_build_sample build, uint64_t seed, size_t units, int64_t room, mn_task_text *out,
                          bool *fits) {
  mn_task_text_free(out);
  MN_TRY(mn_stop_check("making a sample"));
  MN_TRY(build(task, seed, units, out));
  *fits = (int64_t)task->count_tokens(task->count_ctx, out->prompt, strlen(out->prompt)) <= room;
  return mn_stop_check("making a sample");
}

mn_status mn_fit_units(const mn_task *task, mn_build_sample build, uint64_t seed, size_t step, int64_t len, int64_t new_tokens,
                       mn_task_text *out, size_t *units) {
  size_t low = 0, high = 1; /* in steps: low fits (or is nothing), high does not */
  for (bool fits = true; fits; high *= 2) {
    MN_TRY(try_size(task, build, seed, high * step, len - new_tokens, out, &fits));
    if (fits) low = high;
    else break;
  }
  while (low && high - low > 1) {
    const size_t middle = low + (high - low) / 2;
    bool fits;
    MN_TRY(try_size(task, build, seed, middle * step, len - new_tokens, out, &fits));
    *(fits ? &low : &high) = middle;
  }
  *units = low * step;
  return MN_OK;
}
