/* vignette.h - a short text in which a list of nouns comes twice: what shows how much of the first list a model can still give word for
 * word. After Armeni, Honey & Linzen (2022, arXiv 2210.13569), with nouns and sentences of our own.
 *
 *     One morning Clara wrote down a list of words: bench, sofa, desk. <story> She read it again: bench, sofa, desk.
 *     preface                                       first list         delay                      second list
 *
 * There are 230 vignettes of a kind: 23 groups of ten nouns, each in its ten rotations, so that every noun stands at every place; shorter
 * lists are the first nouns of them. The second list is the first (repeat), its nouns in another order (permuted), or the rotation of
 * another group, which shares no noun with it (novel); each list is a novel one as often as it is a first one.
 *
 * For a model of text the vignette is text, in its tokenizer's tokens; the story is as many words as bring the lists nearest to the wanted
 * number of tokens apart. For a model of token ids it is written in the language of the task `recurring`: prose, the list's nouns one
 * after another, prose, and the second list, with nothing between nouns. Groups are 23 tens out of its 64 nouns there; those of one
 * shuffle, six of them, share none, and novel lists come from the same shuffle. */
#ifndef MN_TASK_VIGNETTE_H
#define MN_TASK_VIGNETTE_H

#include "base/text.h"
#include "format/tokenizer.h"
#include "task/rng.h"

enum { MN_VIGNETTE_LISTS = 23, MN_VIGNETTE_NOUNS = 10, MN_VIGNETTES = MN_VIGNETTE_LISTS * MN_VIGNETTE_NOUNS };

typedef enum mn_vignette_kind { MN_LISTS_ARBITRARY, MN_LISTS_SEMANTIC } mn_vignette_kind; /* semantic: a group is of one kind of thing */
typedef enum mn_vignette_second { MN_SECOND_REPEAT, MN_SECOND_PERMUTED, MN_SECOND_NOVEL, MN_SECONDS } mn_vignette_second;
typedef enum mn_vignette_context {
  MN_CONTEXT_INTACT,
  MN_CONTEXT_SCRAMBLED,   /* the words of each sentence, and the sentences, in another order */
  MN_CONTEXT_INCONGRUENT, /* sentences about the sea */
  MN_CONTEXT_SHORT,       /* nothing but "And the other:"; the preface speaks of two lists */
} mn_vignette_context;
typedef enum mn_vignette_control { /* a small change of the words around the lists, which should not matter */
                                   MN_CONTROL_NONE,
                                   MN_CONTROL_PREFACE,     /* the preface's words in another order */
                                   MN_CONTROL_COMMA,       /* commas for colons                    */
                                   MN_CONTROL_PROTAGONIST, /* Peter for Clara, he for she          */
                                   MN_CONTROL_PROMPT       /* the prompt's words in another order  */
} mn_vignette_control;
extern const char *const mn_vignette_controls[],
    *const mn_vignette_kinds[], *const mn_vignette_seconds[], *const mn_vignette_contexts[]; /* in that order; end with NULL */

typedef struct mn_vignette_cell { /* what the vignettes of one cell share */
  int kind, second, context;      /* as above */
  int control;
  int length;    /* nouns of a list, 3 to 10 */
  int64_t delay; /* tokens between the lists; 0: the fewest there can be. Without meaning in a short context */
} mn_vignette_cell;

typedef struct mn_vignette { /* zero-initialise; build again into the same, mn_vignette_free in the end */
  int64_t n, cap;
  int32_t *ids;
  int32_t *word; /* of each token: k for noun k of the first list, length + k of the second; -1: no noun's */
  int64_t gap;   /* tokens behind the last noun of the first list and before the first of the second */
  mn_text text;  /* "" of a model of token ids */
} mn_vignette;
void mn_vignette_free(mn_vignette *v);

typedef struct mn_vignettes mn_vignettes;
/* tok NULL: for a model of token ids. The tokenizer must outlive it. */
mn_status mn_vignettes_open(const mn_tokenizer *tok, uint64_t seed, mn_vignettes **out);
void mn_vignettes_close(mn_vignettes *v);
/* Vignette `index` of a cell. Refused: a delay that the text between the lists does not fit into (the message says which does), a
 * tokenizer that changes the text, or one of whose tokens spans a noun and what stands beside it; of token ids, all that needs words. */
mn_status mn_vignettes_build(mn_vignettes *v, const mn_vignette_cell *cell, int index, mn_vignette *out);
/* The nouns of both lists, as numbers (from 0; `count` of them there are): what mn_vignettes_build writes down. */
void mn_vignettes_lists(const mn_vignettes *v, const mn_vignette_cell *cell, int index, int32_t *first, int32_t *second);

/* ---- words ---- (vignette_words.c) */
extern const char *const mn_vignette_nouns[MN_VIGNETTE_LISTS][MN_VIGNETTE_NOUNS]; /* all different */
static inline const char *mn_vignette_noun(int i) { return mn_vignette_nouns[i / MN_VIGNETTE_NOUNS][i % MN_VIGNETTE_NOUNS]; }
/* Appends so many words of sentences, the last of which ends where the words do. None of them is a noun of a list. */
void mn_vignette_story(mn_rng *rng, bool incongruent, size_t words, mn_text *out);
/* The words before the last colon in another order; commas for colons; a man in the woman's place. */
mn_status mn_vignette_change(mn_rng *rng, int control, mn_text *text);
mn_status mn_vignette_scramble(mn_rng *rng, const char *text, mn_text *out);

#endif
