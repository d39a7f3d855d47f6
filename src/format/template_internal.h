/* template_internal.h - what the rooms of templates share: values, the tree of a template, a rendering under way.
 *
 * Faults are sticky, as a graph's are: mn_tpl_fail keeps the first one in the rendering, functions give anything from then on, and loops
 * look at it. All values of a rendering lie in its arena and go with it. */
#ifndef MN_TEMPLATE_INTERNAL_H
#define MN_TEMPLATE_INTERNAL_H

#include "base/table.h"
#include "format/template.h"

/* ---- values ---- */
typedef enum mn_tpl_kind {
  TPL_UNDEFINED,
  TPL_NONE,
  TPL_BOOL,
  TPL_INT,
  TPL_FLOAT,
  TPL_STRING,
  TPL_LIST, /* of any form */
  TPL_MAP,
  TPL_NAMESPACE,
  TPL_LOOP,
  TPL_MACRO,
  TPL_FUNCTION, /* built in, with what it is a method of */
} mn_tpl_kind;

typedef struct mn_tpl_string { /* UTF-8 */
  const char *data;
  size_t n;
  int64_t length; /* in characters; -1: not counted yet */
  bool safe;      /* by the filters safe and escape: what is added to it is escaped for HTML, as in Jinja */
} mn_tpl_string;

typedef struct mn_tpl_value mn_tpl_value;
typedef struct mn_tpl_node mn_tpl_node;
typedef struct mn_tpl_run mn_tpl_run;
typedef struct mn_tpl_scope mn_tpl_scope;

/* A tuple is a list of another name; a lazy one is what Python would make as it is asked for: it is true, and has no length. */
typedef enum mn_tpl_form { TPL_PLAIN, TPL_TUPLE, TPL_LAZY, TPL_VIEW, TPL_RANGE } mn_tpl_form;
typedef struct mn_tpl_list {
  mn_tpl_value *at;
  size_t n, room;
  mn_tpl_form form;
} mn_tpl_list;

typedef struct mn_tpl_map { /* in the order of insertion; few keys: looked through, many: a table of open addressing */
  struct mn_tpl_pair *at;
  size_t n, room;
  uint32_t *slot; /* index + 1; NULL while small */
  size_t slots;
} mn_tpl_map;

typedef struct mn_tpl_loop { /* what `loop` is */
  mn_tpl_list *over;
  size_t at; /* of the item that is on */
  int depth;
  mn_tpl_value *changed; /* what loop.changed saw last; NULL: nothing */
} mn_tpl_loop;

typedef struct mn_tpl_macro {
  const mn_tpl_node *node; /* TPL_N_MACRO or TPL_N_CALL_BLOCK */
  mn_tpl_scope *scope;     /* where it was defined */
} mn_tpl_macro;

struct mn_tpl_value {
  mn_tpl_kind kind;
  union {
    bool boolean;
    int64_t integer;
    double real;
    mn_tpl_string *string;
    mn_tpl_list *list;
    mn_tpl_map *map; /* of a namespace, too */
    mn_tpl_loop *loop;
    mn_tpl_macro *macro;
    struct mn_tpl_bound *bound;
    const char *missing; /* undefined: what is not there, as a message says it; NULL: nothing in particular */
  } as;
};

typedef struct mn_tpl_pair {
  mn_tpl_value key, value;
  uint64_t hash;
} mn_tpl_pair;

/* ---- functions, methods, filters and tests ---- */
enum { TPL_ARGS = 5 }; /* most that any of them takes by name */
typedef struct mn_tpl_args {
  int n, n_named;
  const mn_tpl_value *at, *named; /* by place; by name */
  const char *const *name;
} mn_tpl_args;

typedef struct mn_tpl_def {
  const char *name;
  const char *takes; /* "width first blank": names of arguments in order, those after ! must be there; NULL: it looks at `all` itself */
  mn_tpl_value (*call)(mn_tpl_run *r, mn_tpl_value self, const mn_tpl_value *const *arg, const mn_tpl_args *all);
} mn_tpl_def;
typedef struct mn_tpl_bound {
  const mn_tpl_def *def;
  mn_tpl_value self;
} mn_tpl_bound;

const mn_tpl_def *mn_tpl_find(const mn_tpl_def *table, const char *name); /* NULL: there is none */
extern const mn_tpl_def mn_tpl_filters[], mn_tpl_tests[], mn_tpl_globals[];
extern const mn_tpl_def mn_tpl_string_methods[], mn_tpl_list_methods[], mn_tpl_map_methods[], mn_tpl_loop_methods[];
const mn_tpl_def *mn_tpl_filter(const char *name);
const mn_tpl_def *mn_tpl_test(const char *name);
/* kind: "filter", "test", "method", "function", for messages. */
mn_tpl_value mn_tpl_apply(mn_tpl_run *r, const mn_tpl_def *def, const char *kind, mn_tpl_value self, const mn_tpl_args *args);

/* ---- the tree ---- */
typedef enum mn_tpl_type {
  /* expressions */
  TPL_N_CONST,
  TPL_N_NAME,
  TPL_N_LIST,
  TPL_N_TUPLE,
  TPL_N_DICT,  /* key, value, key, value ... */
  TPL_N_ATTR,  /* a.name */
  TPL_N_ITEM,  /* a[b] */
  TPL_N_SLICE, /* as b: items 0..2, which may be NULL */
  TPL_N_CALL,
  TPL_N_FILTER, /* a NULL: of a filter block */
  TPL_N_TEST,
  TPL_N_NOT,
  TPL_N_NEGATIVE,
  TPL_N_POSITIVE,
  TPL_N_AND,
  TPL_N_OR,
  TPL_N_IF_ELSE, /* b if a else c */
  TPL_N_COMPARE, /* a op[0] item[0] op[1] item[1] ... */
  TPL_N_BINARY,  /* a op b */
  TPL_N_CONCAT,
  TPL_N_NS_NAME, /* a target: name.attribute */
  /* statements */
  TPL_N_BODY,
  TPL_N_TEXT,
  TPL_N_OUTPUT,
  TPL_N_IF,           /* a: condition, b: body, c: what else (another if, a body) or NULL */
  TPL_N_FOR,          /* a: target, b: over what, item[0]: filter or NULL, item[1]: body, item[2]: else or NULL */
  TPL_N_SET,          /* a: target, b: value */
  TPL_N_SET_BLOCK,    /* a: target, b: filters or NULL, c: body */
  TPL_N_MACRO,        /* name, item: names of arguments, c: body, defaults */
  TPL_N_CALL_BLOCK,   /* a: call; the rest as a macro */
  TPL_N_FILTER_BLOCK, /* b: filters, c: body */
  TPL_N_WITH,         /* item: target, value, target, value ...; c: body */
  TPL_N_GENERATION,   /* c: body */
  TPL_N_BREAK,
  TPL_N_CONTINUE,
} mn_tpl_type;

struct mn_tpl_node {
  mn_tpl_type type;
  int line;
  mn_tpl_node *a, *b, *c;
  int n, n_named; /* items; those after the first n are arguments by name */
  mn_tpl_node **item;
  const char **name_of;         /* [n_named] */
  mn_tpl_node *star, *stars;    /* *list and **map of a call */
  const uint8_t *op;            /* [n] of a comparison; [1] of a binary operation: mn_tpl_op */
  const char *name, *attribute; /* kept once per template: equal names are the same pointer */
  mn_tpl_value value;
  const mn_tpl_def *def; /* of a filter or test */
};

/* ---- signs ---- */
typedef enum mn_tpl_op {
  TPL_ADD = 1,
  TPL_SUB,
  TPL_MUL,
  TPL_DIV,
  TPL_FLOOR_DIV,
  TPL_MOD,
  TPL_POW,
  TPL_TILDE,
  TPL_EQ,
  TPL_NE,
  TPL_LT,
  TPL_LE,
  TPL_GT,
  TPL_GE,
  TPL_IN,
  TPL_NOT_IN,
  TPL_ASSIGN,
  TPL_DOT,
  TPL_COLON,
  TPL_PIPE,
  TPL_COMMA,
  TPL_SEMICOLON,
  TPL_OPEN_ROUND,
  TPL_CLOSE_ROUND,
  TPL_OPEN_SQUARE,
  TPL_CLOSE_SQUARE,
  TPL_OPEN_CURLY,
  TPL_CLOSE_CURLY,
} mn_tpl_op;

typedef enum mn_tpl_sign_kind {
  TPL_S_END,
  TPL_S_TEXT,
  TPL_S_OUTPUT,     /* {{ */
  TPL_S_OUTPUT_END, /* }} */
  TPL_S_BLOCK,
  TPL_S_BLOCK_END,
  TPL_S_NAME,
  TPL_S_STRING,
  TPL_S_INT,
  TPL_S_FLOAT,
  TPL_S_OP,
} mn_tpl_sign_kind;

typedef struct mn_tpl_sign {
  mn_tpl_sign_kind kind;
  mn_tpl_op op;
  int line;
  const char *text; /* of a text, a name, a string: without quotes and escapes */
  size_t n;
  int64_t integer;
  double real;
} mn_tpl_sign;

struct mn_template {
  mn_arena *arena;
  const char *name;
  mn_table names;    /* all that stand in it, by number */
  const char **kept; /* [names.count] */
  int kept_room;
  mn_tpl_sign *sign;
  int n_signs, room;
  const mn_tpl_node *root;
};

mn_status mn_tpl_fault(const mn_template *t, int line, const char *fmt, ...) MN_PRINTF(3, 4); /* MN_ERR_FORMAT */
mn_status mn_tpl_lex(mn_template *t, const char *text, size_t n);
const char *mn_tpl_keep_name(mn_template *t, const char *s, size_t n); /* NULL: out of memory */

typedef struct mn_tpl_parser {
  mn_template *t;
  int at; /* the next sign */
  int depth, loops, macros;
  mn_status status;
} mn_tpl_parser;
/* Parser's rooms: NULL or anything once status is not MN_OK. */
mn_tpl_node *mn_tpl_parse_expression(mn_tpl_parser *p);                                /* with `x if y else z` */
mn_tpl_node *mn_tpl_parse_tuple(mn_tpl_parser *p, bool conditional, const char *ends); /* one, or several with commas */
mn_tpl_node *mn_tpl_parse_target(mn_tpl_parser *p, bool namespaces);                   /* of set, for, with */
mn_tpl_node *mn_tpl_parse_filters(mn_tpl_parser *p, mn_tpl_node *of, bool bare);       /* bare: the first without | */
mn_tpl_node *mn_tpl_parse_or(mn_tpl_parser *p);
mn_tpl_node *mn_tpl_parse_body(mn_tpl_parser *p, const char *const *ends, const char **ended); /* ends with the name of a block in `ends` */
const mn_tpl_sign *mn_tpl_peek(const mn_tpl_parser *p);
bool mn_tpl_is_op(const mn_tpl_parser *p, mn_tpl_op op);
bool mn_tpl_skip_op(mn_tpl_parser *p, mn_tpl_op op);
bool mn_tpl_expect_op(mn_tpl_parser *p, mn_tpl_op op);
bool mn_tpl_is_name(const mn_tpl_parser *p, const char *name);
bool mn_tpl_skip_name(mn_tpl_parser *p, const char *name);
const char *mn_tpl_expect_name(mn_tpl_parser *p);
mn_tpl_node *mn_tpl_new_node(mn_tpl_parser *p, mn_tpl_type type);
bool mn_tpl_add_item(mn_tpl_parser *p, mn_tpl_node *n, mn_tpl_node *item); /* NULL items, too */
void mn_tpl_unexpected(mn_tpl_parser *p, const char *wanted);
bool mn_tpl_parser_fail(mn_tpl_parser *p, int line, const char *fmt, ...) MN_PRINTF(3, 4); /* false */

/* ---- a rendering ---- */
typedef struct mn_tpl_binding {
  const char *name;
  mn_tpl_value value;
} mn_tpl_binding;
struct mn_tpl_scope {
  mn_tpl_scope *around;
  mn_tpl_binding *at;
  int n, room;
};

struct mn_tpl_run {
  const mn_template *t;
  mn_arena *arena;
  mn_template_limits limits;
  mn_status status;
  int line, depth, loops;
  int64_t steps;
  size_t read; /* bytes that are no whole step yet */
  size_t made; /* values */
  mn_tpl_scope *scope;
  mn_text out; /* what is captured stands behind what is written */
  enum { TPL_ON, TPL_BREAK, TPL_CONTINUE } flow;
};

/* The first fault; undefined. Messages begin with template and line. */
mn_tpl_value mn_tpl_fail(mn_tpl_run *r, const char *fmt, ...) MN_PRINTF(2, 3);
void *mn_tpl_alloc(mn_tpl_run *r, size_t n); /* zeroed; NULL: a fault */
bool mn_tpl_step(mn_tpl_run *r, int64_t n);  /* false: a fault, now or earlier */
/* n bytes of a value are looked through: 64 are a step. Whoever reads a text, for a comparison, a search, a hash, says so here, and before
 * he does; filters and methods are charged for what they are given where they are called. What makes a value is bounded by memory. */
bool mn_tpl_read(mn_tpl_run *r, size_t n);
/* In a long pass, for each character: now and then the stop flag is looked at. false: a fault, now or earlier. */
enum { TPL_LOOK_EVERY = 1 << 16 };
bool mn_tpl_look(mn_tpl_run *r);
static inline bool mn_tpl_goes_on(mn_tpl_run *r, size_t *passed) { return ++*passed % TPL_LOOK_EVERY || mn_tpl_look(r); }
bool mn_tpl_enter(mn_tpl_run *r); /* one level deeper; false: too deep */
void mn_tpl_leave(mn_tpl_run *r);

mn_tpl_value mn_tpl_evaluate(mn_tpl_run *r, const mn_tpl_node *n);
void mn_tpl_execute(mn_tpl_run *r, const mn_tpl_node *n);
mn_tpl_value mn_tpl_call(mn_tpl_run *r, mn_tpl_value f, const mn_tpl_args *args);
mn_tpl_value mn_tpl_call_macro(mn_tpl_run *r, const mn_tpl_macro *m, const mn_tpl_args *args, const mn_tpl_value *caller);
void mn_tpl_bind(mn_tpl_run *r, mn_tpl_scope *s, const char *name, mn_tpl_value v);
void mn_tpl_assign(mn_tpl_run *r, const mn_tpl_node *target, mn_tpl_value v);
void mn_tpl_write(mn_tpl_run *r, const char *s, size_t n);

/* ---- values: making (template_value.c) ---- */
static inline mn_tpl_value mn_tpl_undefined(void) { return (mn_tpl_value){.kind = TPL_UNDEFINED}; }
static inline mn_tpl_value mn_tpl_none(void) { return (mn_tpl_value){.kind = TPL_NONE}; }
static inline mn_tpl_value mn_tpl_bool(bool b) { return (mn_tpl_value){.kind = TPL_BOOL, .as.boolean = b}; }
static inline mn_tpl_value mn_tpl_int(int64_t i) { return (mn_tpl_value){.kind = TPL_INT, .as.integer = i}; }
static inline mn_tpl_value mn_tpl_real(double d) { return (mn_tpl_value){.kind = TPL_FLOAT, .as.real = d}; }
mn_tpl_value mn_tpl_string_of(mn_tpl_run *r, const char *s, size_t n);      /* copied */
mn_tpl_value mn_tpl_safe(mn_tpl_run *r, const mn_tpl_string *s);            /* a copy that is */
mn_tpl_value mn_tpl_escaped(mn_tpl_run *r, const mn_tpl_string *s);         /* safe, and escaped unless it was */
mn_tpl_value mn_tpl_take(mn_tpl_run *r, mn_text *text);                     /* its bytes, and it is empty again */
mn_tpl_list *mn_tpl_new_list(mn_tpl_run *r, size_t room, mn_tpl_form form); /* never NULL without a fault */
bool mn_tpl_push(mn_tpl_run *r, mn_tpl_list *l, mn_tpl_value v);
mn_tpl_value mn_tpl_list_value(mn_tpl_list *l);
mn_tpl_map *mn_tpl_new_map(mn_tpl_run *r);
bool mn_tpl_put(mn_tpl_run *r, mn_tpl_map *m, mn_tpl_value key, mn_tpl_value value);
const mn_tpl_value *mn_tpl_get(mn_tpl_run *r, const mn_tpl_map *m, mn_tpl_value key); /* NULL: not there */
const mn_tpl_value *mn_tpl_get_text(mn_tpl_run *r, const mn_tpl_map *m, const char *key);
bool mn_tpl_remove(mn_tpl_run *r, mn_tpl_map *m, mn_tpl_value key);
mn_tpl_value mn_tpl_map_value(mn_tpl_map *m);
mn_tpl_value mn_tpl_import(mn_tpl_run *r, const mn_value *v);

/* ---- numbers (template_number.c) ---- */
typedef enum mn_tpl_reading { TPL_NO_NUMBER, TPL_NUMBER, TPL_WIDE /* an integer that 64 bits do not hold */ } mn_tpl_reading;
mn_status mn_tpl_read_int(const mn_tpl_string *s, int base, mn_tpl_reading *got, int64_t *out); /* base 0: as it says itself */
mn_status mn_tpl_read_real(const mn_tpl_string *s, mn_tpl_reading *got, double *out);
double mn_tpl_round_real(double d, int64_t digits);
bool mn_tpl_round_int(int64_t i, int64_t digits, int64_t *out); /* false: 64 bits do not hold it */

/* ---- asking ---- */
const char *mn_tpl_type_name(mn_tpl_value v); /* "a string", "None" */
bool mn_tpl_truth(mn_tpl_value v);
bool mn_tpl_is_number(mn_tpl_value v); /* an integer, a boolean or a float */
double mn_tpl_number(mn_tpl_value v);
bool mn_tpl_is_text(mn_tpl_value v, const char *s);
bool mn_tpl_equal(mn_tpl_run *r, mn_tpl_value a, mn_tpl_value b);
int mn_tpl_order(mn_tpl_run *r, mn_tpl_value a, mn_tpl_value b); /* < 0, 0, > 0; a fault where they have no order */
bool mn_tpl_contains(mn_tpl_run *r, mn_tpl_value in, mn_tpl_value what);
int64_t mn_tpl_length(mn_tpl_run *r, mn_tpl_value v);
mn_tpl_list *mn_tpl_items(mn_tpl_run *r, mn_tpl_value v);                        /* what iterating gives: the list itself where it is one */
mn_tpl_value mn_tpl_attribute(mn_tpl_run *r, mn_tpl_value of, const char *name); /* of.name */
mn_tpl_value mn_tpl_subscript(mn_tpl_run *r, mn_tpl_value of, mn_tpl_value key); /* of[key] */
/* "a.b.0" as filters take it, or an integer. otherwise (or NULL): what stands for a part that is not there. */
mn_tpl_value mn_tpl_path(mn_tpl_run *r, mn_tpl_value of, mn_tpl_value path, const mn_tpl_value *otherwise);
mn_tpl_value mn_tpl_slice(mn_tpl_run *r, mn_tpl_value of, const mn_tpl_value part[3]); /* none: left out */
mn_tpl_value mn_tpl_binary(mn_tpl_run *r, mn_tpl_op op, mn_tpl_value a, mn_tpl_value b);

/* ---- as text (template_write.c) ---- */
mn_tpl_value mn_tpl_str(mn_tpl_run *r, mn_tpl_value v); /* as Python's str() writes it; undefined: nothing */
void mn_tpl_add_str(mn_tpl_run *r, mn_tpl_value v, mn_text *out);
void mn_tpl_add_repr(mn_tpl_run *r, mn_tpl_value v, mn_text *out);
void mn_tpl_add_real(double d, mn_text *out); /* as Python's repr() */
typedef struct mn_tpl_json {
  bool ascii, sorted;
  const char *indent; /* of a level; NULL: all on one line */
  const char *comma, *colon;
} mn_tpl_json;
void mn_tpl_add_json(mn_tpl_run *r, mn_tpl_value v, const mn_tpl_json *how, mn_text *out);
/* "%s is %d" % values; "{} is {x}".format(...) */
mn_tpl_value mn_tpl_percent(mn_tpl_run *r, const mn_tpl_string *format, const mn_tpl_list *values, const mn_tpl_map *named);
mn_tpl_value mn_tpl_format(mn_tpl_run *r, const mn_tpl_string *format, const mn_tpl_args *args);

/* ---- characters (template_chars.c) ---- */
int32_t mn_tpl_next(const mn_tpl_string *s, size_t *at); /* the character at *at, which moves on; a byte that is none: U+FFFD */
void mn_tpl_add_char(mn_text *out, int32_t c);
int64_t mn_tpl_count(mn_tpl_string *s);            /* characters */
size_t mn_tpl_offset(mn_tpl_string *s, int64_t i); /* byte where character i begins */
bool mn_tpl_is_space(int32_t c);
bool mn_tpl_is_printable(int32_t c);
bool mn_tpl_is_line_end(int32_t c);
typedef enum mn_tpl_case { TPL_LOWER, TPL_UPPER, TPL_CAPITAL, TPL_TITLE, TPL_SWAPPED, TPL_FOLDED } mn_tpl_case;
mn_tpl_value mn_tpl_cased(mn_tpl_run *r, const mn_tpl_string *s, mn_tpl_case how);
void mn_tpl_add_cased(mn_tpl_run *r, const mn_tpl_string *s, mn_tpl_case how, mn_text *out); /* template_case.c */
bool mn_tpl_is_letter(int32_t c);
bool mn_tpl_is_decimal(int32_t c); /* what int() reads; a digit: the superscripts, too; numeric: whatever has a value */
bool mn_tpl_is_digit(int32_t c);
bool mn_tpl_is_numeric(int32_t c);
bool mn_tpl_is_upper(int32_t c);
bool mn_tpl_is_title(int32_t c);
bool mn_tpl_is_lower(int32_t c);
/* chars NULL: white space. sides: 1 the left, 2 the right, 3 both. */
mn_tpl_value mn_tpl_strip(mn_tpl_run *r, const mn_tpl_string *s, const mn_tpl_string *chars, int sides);
mn_tpl_value mn_tpl_replace(mn_tpl_run *r, const mn_tpl_string *s, const mn_tpl_string *from, const mn_tpl_string *to, int64_t most);
mn_tpl_list *mn_tpl_lines(mn_tpl_run *r, const mn_tpl_string *s, bool keep_ends);

#endif
