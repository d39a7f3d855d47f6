/* json_schema_internal.h - what the rooms of the compiler of schemas share: values of all kinds (json_schema.c), objects (json_object.c), arrays (json_array.c), strings and numbers
 * (json_scalar.c). */
#ifndef MN_SERVE_JSON_SCHEMA_INTERNAL_H
#define MN_SERVE_JSON_SCHEMA_INTERNAL_H

#include "format/value.h"
#include "serve/json_rules.h"
#include "serve/schema_why.h"

/* How a place of the schema is meant that a $ref leads to: as it stands, as one that null fits only where it says so itself, or as what does not fit. */
typedef enum schema_sense { SCHEMA_AS_IT_IS, SCHEMA_WITHOUT_NULL, SCHEMA_OPPOSITE } schema_sense;

typedef struct schema_reference { /* a place of the schema that is a rule, in a sense */
  const mn_value *at, *beside;    /* NULL: alone */
  schema_sense sense;
  int32_t rule;
  bool open;             /* it is being compiled */
  int outermost;         /* of those that were open meanwhile and that it leads to, the first; itself: none */
  double around, within; /* where it began, `ways`; and by how much `overlaps` grows within it */
} schema_reference;

enum {
  SCHEMA_STRINGS = 128,
  SCHEMA_OPPOSITES = 32,
  SCHEMA_OVERLAPS = 33 /* counts that may be alive at once, of all lists that stand within each other */
};
typedef struct schema_kept_string { /* a kind of strings that is a rule */
  const char *patterns[4];
  int64_t least, most;
  int32_t rule;
} schema_kept_string;

typedef struct schema_budget { /* of a schema and of all that is compiled on the way */
  int merges;
  double left; /* comparisons, of about 16 bytes each */
} schema_budget;

typedef struct schema_compiler {
  mn_grammar *g;
  json_rules rules;
  const mn_value *root;
  mn_arena *arena; /* for schemas that are merged of others */
  schema_reference *refs;
  int n_refs, depth, n_strings;
  schema_kept_string strings[SCHEMA_STRINGS];
  schema_budget *budget;
  mn_status status;
  double overlaps; /* counts of items that may be alive at once, of all lists around */
  double widest;   /* the most of those since the reference around began */
  double ways;     /* in how many ways a counted item may stand in all lists around */
  int outermost;   /* as of a reference: of the one that is being compiled */
  const mn_value *opposites[SCHEMA_OPPOSITES];
  int n_opposites; /* places whose opposite is being written down */
  bool nothing;    /* it is refused as no value could fit */
} schema_compiler;

/* Each gives the node that begins, before `next`; MN_NO_NODE where it was refused. */
mn_bytes_node schema_value(schema_compiler *c, const mn_value *schema, mn_bytes_node next);
mn_bytes_node schema_item(schema_compiler *c, const mn_value *items, mn_bytes_node next); /* NULL: any value */
/* The rule of a place beside another schema (NULL: alone), in a sense; one that leads to itself calls itself. -1: refused, `ref` to blame. */
int32_t schema_rule_of(schema_compiler *c, const mn_value *at, const mn_value *beside, schema_sense sense, const mn_value *ref);
mn_bytes_node schema_array(schema_compiler *c, const mn_value *schema, mn_bytes_node next);
mn_bytes_node schema_object(schema_compiler *c, const mn_value *schema, mn_bytes_node next);
mn_bytes_node schema_string(schema_compiler *c, const mn_value *schema, mn_bytes_node next);
mn_bytes_node schema_number(schema_compiler *c, const mn_value *schema, bool whole, mn_bytes_node next);
bool schema_is_format_of_numbers(const mn_value *format); /* int32, double ...; NULL: no */
/* A count, at most 4096; *out stays as it is where the key is not there. */
bool schema_count(schema_compiler *c, const mn_value *schema, const char *key, int64_t *out);
/* The same of one that says how many there may be: more than 4096 are never made. */
bool schema_most(schema_compiler *c, const mn_value *schema, const char *key, int64_t least, int64_t *out);
/* Of a maxItems or a maxProperties (-1: there is none) what is made: each has states of its own, so at most 1024, or as many as there must be or are
 * named. */
int64_t schema_most_made(int64_t most, int64_t least, int64_t named);
mn_bytes_node schema_refuse(schema_compiler *c, const mn_value *at, const char *what);
/* The same where no value fits: the way of anyOf that leads here is none. */
mn_bytes_node schema_refuse_as_nothing(schema_compiler *c, const mn_value *at, const char *what);
/* The same for the reason that is given; none: memory ran out. */
mn_bytes_node schema_refuse_because(schema_compiler *c, const mn_value *at, const schema_why *why);
/* Was it refused as no value fits? Then that is taken back, and *last says what it was. */
bool schema_took_nothing(schema_compiler *c, mn_status *last);
bool schema_spend(schema_compiler *c, const mn_value *at, double comparisons); /* false: refused, as they ran out */
const char *schema_text(const mn_value *v);                                    /* NULL: it is none */
/* Nothing more can be made: it was refused, or the grammar has as many nodes as there may be. */
bool schema_is_full(const schema_compiler *c);
/* Where a $ref leads; NULL: refused. */
const mn_value *schema_look_up(schema_compiler *c, const mn_value *ref);
/* The $ref of a schema that says nothing but where it leads and in which sense: {"$ref"}, beside "nullable": false, or under `not`. NULL: it is another. */
const mn_value *schema_lone_reference(const mn_value *schema, schema_sense *sense);

#endif
