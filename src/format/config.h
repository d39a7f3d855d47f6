/* config.h - configuration fields, described once. A table of fields (name, type, default, range, help) beside a struct is
 * used to fill it with defaults, to read it from a recipe with every fault named (file, line, key, expected, given, nearest
 * valid name), to print help and documents, and to write it back (config.json). Mixers, blocks, models, training, data
 * and sampling are all described so:
 *
 *   typedef struct titans_config { int heads; double eta_max; enum { PER_TOKEN, PER_CHUNK } granularity; } titans_config;
 *   static const char *const granularities[] = {"token", "chunk", NULL}; (in the order of the enum)
 *   static const mn_field titans_fields[] = {
 *     MN_FIELD_INT(titans_config, heads, 4, 1, 1024, "memory heads; d_model must be a multiple"),
 *     MN_FIELD_FLOAT(titans_config, eta_max, 1.0, 0, 1, "upper bound of the learned momentum"),
 *     MN_FIELD_ENUM(titans_config, granularity, granularities, 0, "when the memory is written"),
 *     MN_FIELD_END};
 *
 * The macros do not compile when the member's C type does not fit the field's type. */
#ifndef MN_CONFIG_H
#define MN_CONFIG_H

#include "format/value.h"

#include <float.h>

typedef enum mn_field_type {
  MN_TYPE_END, /* closes a table */
  MN_TYPE_INT,
  MN_TYPE_FLOAT,
  MN_TYPE_BOOL,
  MN_TYPE_STRING,
  MN_TYPE_ENUM,
  MN_TYPE_INTS,
  MN_TYPE_FLOATS,
  MN_TYPE_STRINGS,
  MN_TYPE_VALUE /* any value, kept as it is for the caller: nested maps, "one word or a map" ... */
} mn_field_type;

typedef struct mn_ints { /* lists point into the arena that was parsed into; empty by default */
  const int64_t *items;
  int count;
} mn_ints;
typedef struct mn_floats {
  const double *items;
  int count;
} mn_floats;
typedef struct mn_strings {
  const char *const *items;
  int count;
} mn_strings;

typedef struct mn_field {
  const char *name;
  mn_field_type type;
  size_t offset, size;                     /* of the member */
  bool required;                           /* has no default: the key must be there */
  int64_t int_default, int_min, int_max;   /* INT, INTS; BOOL and ENUM (an index): the default */
  double real_default, real_min, real_max; /* FLOAT, FLOATS. A minimum of DBL_MIN means above 0; with a maximum of DBL_MAX no
                                              model computes with it, and it may be less than 32 bits hold. */
  const char *text_default;                /* STRING; may be NULL: not given */
  const char *const *names;                /* ENUM, closed by NULL */
  const char *help;                        /* one line: meaning and unit */
  bool sparse;                             /* written back only where it is not the default: keys that files of before do not hold */
  bool tokens;                             /* a number of tokens that a sequence should fill: a chunk, a segment */
} mn_field;
#define MN_SPARSE .sparse = true /* behind a field's help */
#define MN_TOKENS .tokens = true

#define MN_MEMBER(S, member)                  (((S *)0)->member)
#define MN_FIELD_HEAD(S, member, kind, bytes) .name = #member, .type = MN_TYPE_##kind, .offset = offsetof(S, member), .size = (bytes)
#define MN_INT_SIZE(S, member)                _Generic(MN_MEMBER(S, member), int : sizeof(int), int64_t : sizeof(int64_t))
#define MN_REAL_SIZE(S, member)               _Generic(MN_MEMBER(S, member), float : sizeof(float), double : sizeof(double))
#define MN_ENUM_SIZE(S, member)               (sizeof(char[sizeof MN_MEMBER(S, member) == sizeof(int) ? 1 : -1]) * sizeof(int))
#define MN_TYPE_SIZE(S, member, type)         _Generic(MN_MEMBER(S, member), type : sizeof(type))

#define MN_FIELD_INT(S, member, def, low, high, ...)                                                                                       \
  { MN_FIELD_HEAD(S, member, INT, MN_INT_SIZE(S, member)), .int_default = (def), .int_min = (low), .int_max = (high), .help = __VA_ARGS__ }
#define MN_FIELD_INT_REQUIRED(S, member, low, high, ...)                                                                                   \
  {                                                                                                                                        \
    MN_FIELD_HEAD(S, member, INT, MN_INT_SIZE(S, member)), .required = true, .int_default = (low), .int_min = (low), .int_max = (high),    \
                                                           .help = __VA_ARGS__                                                             \
  }
#define MN_FIELD_FLOAT(S, member, def, low, high, ...)                                                                                     \
  {                                                                                                                                        \
    MN_FIELD_HEAD(S, member, FLOAT, MN_REAL_SIZE(S, member)), .real_default = (def), .real_min = (low), .real_max = (high),                \
                                                              .help = __VA_ARGS__                                                          \
  }
#define MN_FIELD_BOOL(S, member, def, ...)                                                                                                 \
  { MN_FIELD_HEAD(S, member, BOOL, MN_TYPE_SIZE(S, member, bool)), .int_default = (def), .help = __VA_ARGS__ }
#define MN_FIELD_STRING(S, member, def, ...)                                                                                               \
  { MN_FIELD_HEAD(S, member, STRING, MN_TYPE_SIZE(S, member, const char *)), .text_default = (def), .help = __VA_ARGS__ }
#define MN_FIELD_STRING_REQUIRED(S, member, ...)                                                                                           \
  { MN_FIELD_HEAD(S, member, STRING, MN_TYPE_SIZE(S, member, const char *)), .required = true, .help = __VA_ARGS__ }
#define MN_FIELD_ENUM(S, member, words, def, ...)                                                                                          \
  { MN_FIELD_HEAD(S, member, ENUM, MN_ENUM_SIZE(S, member)), .names = (words), .int_default = (def), .help = __VA_ARGS__ }
#define MN_FIELD_INTS(S, member, low, high, ...)                                                                                           \
  { MN_FIELD_HEAD(S, member, INTS, MN_TYPE_SIZE(S, member, mn_ints)), .int_min = (low), .int_max = (high), .help = __VA_ARGS__ }
#define MN_FIELD_FLOATS(S, member, low, high, ...)                                                                                         \
  { MN_FIELD_HEAD(S, member, FLOATS, MN_TYPE_SIZE(S, member, mn_floats)), .real_min = (low), .real_max = (high), .help = __VA_ARGS__ }
#define MN_FIELD_STRINGS(S, member, ...)                                                                                                   \
  { MN_FIELD_HEAD(S, member, STRINGS, MN_TYPE_SIZE(S, member, mn_strings)), .help = __VA_ARGS__ }
#define MN_FIELD_VALUE(S, member, ...)                                                                                                     \
  { MN_FIELD_HEAD(S, member, VALUE, MN_TYPE_SIZE(S, member, const mn_value *)), .help = __VA_ARGS__ }
#define MN_FIELD_END                                                                                                                       \
  { .type = MN_TYPE_END }

/* Several tables may share one map (the fields of every block beside those of its mixer). target NULL: the table's keys are
 * known, but somebody else reads them. */
typedef struct mn_config_part {
  const mn_field *fields;
  void *target;
} mn_config_part;

void mn_config_defaults(const mn_field *fields, void *target);
/* Sets the members whose keys are in `map`; a null value leaves its member alone. Call mn_config_defaults first. `map` may
 * be NULL (nothing given); `where` names it in messages, NULL: its own path. Texts and lists are copied into `arena`;
 * MN_TYPE_VALUE members point into the tree. MN_ERR_CONFIG when a key is unknown or missing, or a value does not fit. */
mn_status mn_config_parse(mn_arena *arena, const mn_value *map, const char *where, const mn_config_part *parts, int n_parts);
/* The usual case: defaults, then one table over one map. */
mn_status mn_config_read(mn_arena *arena, const mn_value *map, const char *where, const mn_field *fields, void *target);
/* Did the user write this key? False for null, and in JSON, where the program spells out every key, used or not (recipe.json,
 * config.json). */
bool mn_config_given(const mn_value *map, const char *key);
/* For a map whose `key` says what it is, and is missing: MN_ERR_CONFIG when one of its keys is `key` misspelt. */
mn_status mn_config_misspelt(const mn_value *map, const char *key);
/* Keys that only some types read, for example {"decay_steps", "wsd"}; closed by {NULL, NULL}. A key that was given for another
 * type is a mistake: it would have no effect. */
typedef struct mn_key_use {
  const char *key, *types; /* types: words, one space between */
} mn_key_use;
mn_status mn_config_uses(const mn_value *map, const char *where, const mn_key_use *uses, const char *type);
/* For checks across fields: "recipe.yaml:12: model.mixer.head_dim TEXT", MN_ERR_CONFIG. The place is the key's, or the
 * map's when the key was not given. */
mn_status mn_config_fail(const mn_value *map, const char *where, const char *key, const char *fmt, ...) MN_PRINTF(4, 5);

/* The structs as a map, every field in order (config.json): reading it back gives the same structs. NULL: out of memory. */
const mn_value *mn_config_to_value(mn_arena *arena, const mn_config_part *parts, int n_parts);

typedef enum mn_help_form { MN_HELP_TEXT, MN_HELP_MARKDOWN } mn_help_form;
void mn_config_help(const mn_field *fields, mn_help_form form, mn_text *out);

int64_t mn_field_int(const mn_field *f, const void *config);             /* of an INT, BOOL or ENUM */
const mn_field *mn_field_find(const mn_field *fields, const char *name); /* NULL when absent */
/* Whether a table keeps its own rules (names differ, defaults lie in their ranges, everything has help): for tests. */
mn_status mn_fields_check(const mn_field *fields);

/* The row of a table whose name is `word`: *out is its number. An unknown word is refused at v's place (which may be NULL), as
 * "unknown WHAT 'word'", with the nearest name and all that are known. */
mn_status mn_config_choose(const mn_value *v, const char *what, const char *word, int count, const char *(*name)(int i), int *out);

#endif
