/* settings.h - reading a checkpoint's settings, whichever form they have, and writing the keys of a recipe.
 *
 * A setting has a name in config.json and one in GGUF's metadata, without the architecture's word that stands before it there
 * ("embedding_length" of "llama.embedding_length"). NULL: that form has none, and the default holds. Every fault names file and key. */
#ifndef MN_SETTINGS_H
#define MN_SETTINGS_H

#include <float.h>

#include "checkpoint/checkpoint.h"

typedef struct mn_setting_seen { /* what was asked for: its name here, and both its names */
  const char *key, *hf, *gguf;
  bool real;             /* a number with a point, however it is written */
  const mn_value *usual; /* what was taken as it is absent; NULL: it is there, or nothing was */
} mn_setting_seen;

typedef struct mn_settings {
  mn_arena *arena; /* where recipes are built */
  const mn_checkpoint *from;
  mn_checkpoint_form form;
  const mn_value *map;     /* config.json or what is read of it; GGUF: all metadata */
  const char *file, *word; /* for messages; GGUF: general.architecture */
  mn_setting_seen *seen;
  int n_seen, room;
} mn_settings;

mn_status mn_settings_open(mn_arena *arena, const mn_checkpoint *c, mn_settings *out);

/* A default that is none: the setting must be there. */
#define MN_NEEDED      INT64_MIN
#define MN_NEEDED_REAL DBL_MAX
/* *out is the setting, or `otherwise` where it is absent or null. Integers are from 0 to 2^40. */
mn_status mn_setting_int(mn_settings *s, const char *hf, const char *gguf, int64_t otherwise, int64_t *out);
/* The same of at least 1, as every integer that is needed is. */
mn_status mn_setting_count(mn_settings *s, const char *hf, const char *gguf, int64_t otherwise, int64_t *out);
mn_status mn_setting_real(mn_settings *s, const char *hf, const char *gguf, double otherwise, double *out);
mn_status mn_setting_bool(mn_settings *s, const char *hf, const char *gguf, bool otherwise, bool *out);
mn_status mn_setting_text(mn_settings *s, const char *hf, const char *gguf, const char *otherwise, const char **out);
const mn_value *mn_setting(mn_settings *s, const char *hf, const char *gguf); /* any kind; NULL: absent or null */
mn_status mn_setting_between(mn_settings *s, const char *hf, const char *gguf, double otherwise, double low, double high, double *out);
/* A number that something is multiplied by: 0, which would leave nothing, is refused. */
mn_status mn_setting_factor(mn_settings *s, const char *hf, const char *gguf, double otherwise, double *out);
/* Is it there, as null? Hugging Face's way to say that something is not done where its default would be. */
bool mn_setting_is_null(const mn_settings *s, const char *hf);
/* MN_ERR_UNSUPPORTED: "FILE:LINE: KEY text", for what cannot be honoured. */
mn_status mn_setting_refuse(const mn_settings *s, const char *hf, const char *gguf, const char *fmt, ...) MN_PRINTF(4, 5);
/* The setting changes what a model says, and is done in one way only: absent, null, or `only`; else it is refused. */
mn_status mn_setting_only_bool(mn_settings *s, const char *hf, const char *gguf, bool only);
mn_status mn_setting_only_real(mn_settings *s, const char *hf, const char *gguf, double only);
mn_status mn_setting_only_text(mn_settings *s, const char *hf, const char *gguf, const char *only);
/* After all was asked for: names of the settings that nobody asked for, and that are none of `idle` (words, a space between) nor of those
 * that never change what a model says, go to the log as a warning. */
void mn_settings_rest(const mn_settings *s, const char *idle);

/* ---- a recipe's keys ---- what fails for memory is known at the end. */
enum { MN_KEYS = 64 };
typedef struct mn_keys {
  mn_arena *arena;
  int n;
  bool failed;
  const char *key[MN_KEYS];
  const mn_value *value[MN_KEYS];
} mn_keys;
void mn_keys_put(mn_keys *k, const char *key, const mn_value *v);    /* NULL: no memory was there for it */
void mn_keys_change(mn_keys *k, const char *key, const mn_value *v); /* of a key that was put there */
void mn_keys_int(mn_keys *k, const char *key, int64_t v);
void mn_keys_real(mn_keys *k, const char *key, double v);
void mn_keys_bool(mn_keys *k, const char *key, bool v);
void mn_keys_text(mn_keys *k, const char *key, const char *v);
const mn_value *mn_keys_map(const mn_keys *k); /* NULL: no memory */

#endif
