/* mixer.h - the contract of a mixer: how tokens meet the past. A system is one file src/memory/<name>.c that defines
 * `const mn_mixer_def mn_mixer_<type>` for each type it serves; the build finds them and puts them into the table below. */
#ifndef MN_MIXER_H
#define MN_MIXER_H

#include "format/config.h"
#include "nn/layers.h"

typedef struct mn_mixer_without { /* a key that a paper's readers may look for, and what stands in its place: "is no key: ..." */
  const char *key, *says;
} mn_mixer_without;

typedef struct mn_mixer_def {
  const char *name;    /* the recipe's `type`: "attention"                                  */
  const char *page;    /* docs/systems/<page>.md; NULL: the name                            */
  const char *kind;    /* context, state, weights, storage                                  */
  const char *summary; /* one line                                                          */
  const char *paper;   /* authors, year, arXiv id                                           */
  size_t config_size;
  const mn_field *fields; /* the keys of this type; `type` is not among them                 */
  /* Of types that share one config struct: the whole struct, as files spell it out for each of them. A recipe may hold `fields`
   * alone. NULL: the same. */
  const mn_field *written;
  const mn_mixer_without *without; /* closed by {NULL, NULL}; NULL: none */
  /* Fills what was left open (0) from d_model and refuses what cannot be, with mn_config_fail(map, where, key, ...). */
  mn_status (*check)(const mn_value *map, const char *where, int64_t d_model, void *config);
  /* x [B,T,D] -> [B,T,D] in the compute type; see scope.h */
  mn_tensor *(*apply)(mn_scope *s, const void *config, mn_tensor *x);
  /* What to do when a training diverges inside this mixer, keys with their values now: "lower lr_max (0.1 now)". NULL: nothing of
   * its own, the outer step is too large. */
  void (*remedy)(const void *config, mn_text *out);
  /* What a training with this config has to fear before it begins, a sentence with the keys and their values; nothing is added where there
   * is nothing to fear. NULL: there never is. */
  void (*doubt)(const void *config, mn_text *out);
  /* Why it is no stream that can be cut anywhere, as the end of a sentence ("it sees later tokens"); NULL: it is one. */
  const char *(*not_causal)(const void *config);
  /* A mixer around another, which one of its keys describes (a map, or a type alone): where in the config the mn_mixer lies that is made
   * of it before `check`, which is not at its beginning. 0: it stands around none. One whose key is `base` can be put around a trained
   * mixer: its own parameters lie in the scope of its name, and those of the base where they would lie without it. */
  size_t base;
  const char *base_key, *base_type; /* the key and the type that stands there when nothing was said; NULL: `base`, attention */
  const char *const *base_words;    /* what the key may say instead of a mixer, closed by NULL: the mn_mixer is zeros then; or NULL */
  /* A mixer of several others, which the key `list_key` lists: where in the config the mn_mixer_list lies that is made of it before
   * `check`, which is not at its beginning. 0: it has none. */
  size_t list;
  const char *list_key;
} mn_mixer_def;

int mn_mixer_count(void);
const mn_mixer_def *mn_mixer_at(int i);
/* By type; an unknown one is refused with the known ones, at v's place. */
mn_status mn_mixer_find(const mn_value *v, const char *type, const mn_mixer_def **out);

typedef struct mn_mixer { /* a mixer as configured */
  const mn_mixer_def *def;
  void *config;
} mn_mixer;
typedef struct mn_mixer_list {
  int n;
  mn_mixer *items;
} mn_mixer_list;
/* map: {type: ..., keys}. Lives in the arena. */
mn_status mn_mixer_parse(mn_arena *arena, const mn_value *map, const char *where, int64_t d_model, mn_mixer *out);
const mn_value *mn_mixer_to_value(mn_arena *arena, const mn_mixer *m);
/* Its lengths in tokens (MN_TOKENS) against those of the sequences that it will see; `map` is what it was parsed from. */
mn_status mn_mixer_check_lengths(const mn_mixer *m, const mn_value *map, int64_t seq_len);
/* heads and head_dim of a check: a head_dim of 0 becomes d_model / heads. For widths of other names or shares: mn_head_width (heads.h). */
mn_status mn_check_heads(const mn_value *map, const char *where, int64_t d_model, int64_t heads, int64_t *head_dim);
mn_tensor *mn_mixer_apply(mn_scope *s, const mn_mixer *m, mn_tensor *x);
/* The one inside a mixer that stands around another; NULL: it does not, or a word stands there. */
mn_mixer *mn_mixer_base(const mn_mixer *m);
/* Those that it is made of; NULL: it is not made of others. */
const mn_mixer_list *mn_mixer_parts(const mn_mixer *m);
/* Its doubt, and of what it stands around or is made of: "titans_lmm: ..."; nothing is added where there is none. */
void mn_mixer_doubt(const mn_mixer *m, mn_text *out);
/* What stands in the place of another: parameters and states of the base bear the names that they have without what is around it. */
mn_tensor *mn_mixer_apply_base(mn_scope *s, const mn_mixer *base, mn_tensor *x);

#endif
