/* value.h - one tree of values for everything a user or a file says: recipes (YAML), config.json (JSON), --set.
 *
 * A tree is never changed once it is built; it lives in the arena it was built in. Every value and every key knows where
 * it stands, so that a fault found much later still names file, line and key. */
#ifndef MN_VALUE_H
#define MN_VALUE_H

#include "base/base.h"
#include "base/text.h"

typedef enum mn_kind { MN_NULL, MN_BOOLEAN, MN_INTEGER, MN_REAL, MN_TEXT, MN_LIST, MN_MAP } mn_kind;
const char *mn_kind_name(mn_kind kind); /* with its article: "an integer" */

enum { MN_VALUE_DEPTH = 64 }; /* deeper trees are refused by every parser */

typedef struct mn_value mn_value;

typedef struct mn_entry { /* of a map */
  const char *key;
  const char *file; /* where the key stands; as in mn_value */
  int line, column;
  const mn_value *value;
} mn_entry;

struct mn_value {
  mn_kind kind;
  const char *file; /* "recipe.yaml", or "--set a.b=c" with line 0; NULL for values that the program made */
  int line, column; /* from 1; 0 unknown */
  const char *path; /* "model.blocks[2].mixer"; "" for the root; a scalar in a list has the list's */
  union {
    bool boolean;
    int64_t integer;
    double real;
    const char *text;             /* UTF-8, no zero byte inside */
    const mn_value *const *items; /* of a list */
    const mn_entry *entries;      /* of a map, in the order of the file; keys differ */
  } as;
  size_t count; /* items or entries; bytes of a text */
};

const mn_value *mn_value_get(const mn_value *map, const char *key);    /* NULL when absent or not a map */
const mn_value *mn_value_find(const mn_value *root, const char *path); /* "model.blocks.2.mixer"; NULL when absent */
bool mn_value_number(const mn_value *v, double *out);                  /* an integer or a real */
bool mn_value_equal(const mn_value *a, const mn_value *b);             /* content, not place; maps in any order */

/* MN_ERR_CONFIG with "FILE:LINE: text"; without the place when there is none or `v` is NULL. */
mn_status mn_value_fail(const mn_value *v, const char *fmt, ...) MN_PRINTF(2, 3);
/* "recipe.yaml:12: ", "--set a.b=c: " or "" in buf. */
enum { MN_PLACE = 256 };
const char *mn_place(const char *file, int line, char buf[MN_PLACE]);
/* The value as a message shows it: "the text 'big'", "-3", "a list". */
const char *mn_value_show(const mn_value *v, char buf[MN_PLACE]);

/* Item i of a list of maps, for example of blocks, which is refused by its own place where it is none: "model.blocks[1] must be a map such
 * as {mixer: {type: attention}}, but is -7". */
mn_status mn_value_map_in(const mn_value *list, size_t i, const char *such_as, const mn_value **out);

/* A new root in which the value at a dotted path is replaced, e.g. "model.blocks.2.mixer.window=64"; the right side is
 * YAML ("[1, 2]", "true", "text"). Missing maps on the way are made; a number picks an item of a list. */
mn_status mn_value_set(mn_arena *arena, const mn_value *root, const char *assignment, const mn_value **out);
/* The same, where messages begin not with "--set" but with what the one who assigns knows it by. */
mn_status mn_value_set_by(mn_arena *arena, const mn_value *root, const char *by, const char *assignment, const mn_value **out);

/* For parsers: the path of a member; the end of it when it is long, so that its size is bounded. */
const char *mn_value_path_key(mn_arena *arena, const char *parent, const char *key);
const char *mn_value_path_item(mn_arena *arena, const char *parent, size_t i);

/* Building: values without a place, in `arena`. NULL when out of memory; NULL arguments are passed through. */
const mn_value *mn_value_bool(mn_arena *arena, bool b);
const mn_value *mn_value_int(mn_arena *arena, int64_t i);
const mn_value *mn_value_real(mn_arena *arena, double d);
const mn_value *mn_value_text(mn_arena *arena, const char *s);                          /* copied */
const mn_value *mn_value_list(mn_arena *arena, size_t n, const mn_value *const *items); /* the arrays are copied */
const mn_value *mn_value_map(mn_arena *arena, size_t n, const char *const *keys, const mn_value *const *values);
const mn_value *mn_value_copy(mn_arena *arena, const mn_value *v); /* the whole tree, without places */

/* JSON (RFC 8259) of the tree. indent 0: one line without a newline at its end. Reals are written with the fewest digits
 * that read back the same. NaN and infinities have no JSON: MN_ERR_ARG. */
mn_status mn_value_to_json(const mn_value *v, int indent, mn_text *out);

#endif
