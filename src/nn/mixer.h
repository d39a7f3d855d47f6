/* mixer.h - the contract of a mixer: how tokens meet the past. A system is one file src/memory/<name>.c that defines
 * `const mn_mixer_def mn_mixer_<name>`; the build finds the file and puts it into the table below. */
#ifndef MN_MIXER_H
#define MN_MIXER_H

#include "format/config.h"
#include "nn/layers.h"

typedef struct mn_mixer_def {
  const char *name;    /* the recipe's `type`: "attention"                                  */
  const char *aliases; /* further types the same file serves, space-separated; may be NULL  */
  const char *kind;    /* context, state, weights, storage                                  */
  const char *summary; /* one line                                                          */
  const char *paper;   /* authors, year, arXiv id                                           */
  size_t config_size;
  const mn_field *fields; /* of the config; `type` is not among them                         */
  const mn_key_use *uses; /* keys that only some of the types read; may be NULL              */
  /* Fills what was left open (0) from d_model and refuses what cannot be, with mn_config_fail(map, where, key, ...). `type`
   * is the recipe's word (the name or an alias) and lives as long as the config. */
  mn_status (*check)(const mn_value *map, const char *where, const char *type, int64_t d_model, void *config);
  /* x [B,T,D] -> [B,T,D] in the compute type; see scope.h */
  mn_tensor *(*apply)(mn_scope *s, const void *config, mn_tensor *x);
  /* What to do when a training diverges inside this mixer, keys with their values now: "lower lr_max (0.1 now)". NULL: nothing of
   * its own, the outer step is too large. */
  void (*remedy)(const void *config, mn_text *out);
} mn_mixer_def;

int mn_mixer_count(void);
const mn_mixer_def *mn_mixer_at(int i);
/* By type; an unknown one is refused with the known ones, at v's place. */
mn_status mn_mixer_find(const mn_value *v, const char *type, const mn_mixer_def **out);

typedef struct mn_mixer { /* a mixer as configured */
  const mn_mixer_def *def;
  const char *type;
  void *config;
} mn_mixer;
/* map: {type: ..., keys}. Lives in the arena. */
mn_status mn_mixer_parse(mn_arena *arena, const mn_value *map, const char *where, int64_t d_model, mn_mixer *out);
const mn_value *mn_mixer_to_value(mn_arena *arena, const mn_mixer *m);
mn_tensor *mn_mixer_apply(mn_scope *s, const mn_mixer *m, mn_tensor *x);

#endif
