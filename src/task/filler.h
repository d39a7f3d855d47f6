/* filler.h - what text tasks hide things in: words of the user's texts, or prose of words that there are not; and how much of it fits
 * into a length in tokens. */
#ifndef MN_TASK_FILLER_H
#define MN_TASK_FILLER_H

#include "task/task.h"

typedef struct mn_filler { /* texts one after the other, white space collapsed to single spaces */
  char *text;
  size_t *word_end; /* (n_words) where each word ends; the next begins one later */
  size_t n_words;
} mn_filler;

/* Reads the texts of task `name`; `key` is the setting that names them. Fewer than 100 words in all are refused. */
mn_status mn_filler_open(const char *name, const char *key, const mn_strings *files, mn_filler *out);
void mn_filler_close(mn_filler *f);
/* The first `words` words from word `first` on, going round at the end of the text. */
void mn_filler_words(const mn_filler *f, size_t first, size_t words, mn_text *out);
/* Does a sentence end before the space at text[i]? It ends at . ! or ?, with closing quotes or brackets, before a space and something
 * that can open the next. */
bool mn_ends_sentence(const char *text, size_t i, size_t n);
/* The first `words` words of the prose of task/prose.h, spelt as words that there are not, in sentences. */
void mn_prose_words(mn_rng *rng, size_t words, mn_text *out);

/* A sample of `units` of filler, a pure function of (task, seed, units). */
typedef mn_status (*mn_build_sample)(const mn_task *task, uint64_t seed, size_t units, mn_task_text *out);
/* The largest number of units, a multiple of `step`, with which the prompt and new_tokens fit into `len` tokens of the model; 0: not
 * even `step`. *out holds whatever was built last (mn_task_text_free). */
mn_status mn_fit_units(const mn_task *task, mn_build_sample build, uint64_t seed, size_t step, int64_t len, int64_t new_tokens,
                       mn_task_text *out, size_t *units);

#endif
