/* regex_internal.h - what the reader of patterns (regex_parse.c), their translation (regex_compile.c) and the matcher
 * (regex_match.c, regex_memo.c) share. */
#ifndef MN_REGEX_INTERNAL_H
#define MN_REGEX_INTERNAL_H

#include "format/regex.h"
#include "format/unicode.h"

/* ---- sets of characters ---- */
typedef struct mn_ranges { /* sorted and apart once mn_ranges_tidy has been called */
  struct mn_range {
    uint32_t first, last;
  } * at;
  size_t n, cap;
  bool failed; /* out of memory */
} mn_ranges;
void mn_ranges_add(void *ranges, uint32_t first, uint32_t last); /* an mn_range_fn */
void mn_ranges_tidy(mn_ranges *r);
void mn_ranges_invert(mn_ranges *r);
void mn_ranges_keep(mn_ranges *r, const mn_ranges *also); /* the intersection */
void mn_ranges_fold(mn_ranges *r);                        /* adds the other case of each character */
void mn_ranges_free(mn_ranges *r);

typedef struct mn_set { /* for look-up: blocks of 256 characters, most of them all or nothing */
  uint64_t ascii[2];
  const uint16_t *block; /* (0x1100) index into bits; NULL: nothing beyond ASCII */
  const uint64_t (*bits)[4];
} mn_set;
static inline bool mn_set_has(const mn_set *s, uint32_t c) {
  if (c < 0x80) return s->ascii[c >> 6] >> (c & 63) & 1;
  return s->block && s->bits[s->block[c >> 8]][c >> 6 & 3] >> (c & 63) & 1;
}

/* ---- the tree of a pattern ---- */
typedef enum { NODE_EMPTY, NODE_SET, NODE_CAT, NODE_ALT, NODE_REPEAT, NODE_LOOK, NODE_ATOMIC, NODE_PLACE } mn_node_kind;
typedef enum { REPEAT_GREEDY, REPEAT_LAZY, REPEAT_POSSESSIVE } mn_repeat_kind;
typedef enum { PLACE_LINE_BEGIN, PLACE_LINE_END, PLACE_BEGIN, PLACE_END, PLACE_END_OR_NEWLINE, PLACE_WORD, PLACE_NO_WORD } mn_place;
typedef struct mn_rnode {
  mn_node_kind kind;
  struct mn_rnode *child, *next; /* of CAT and ALT the first child; siblings by next */
  const mn_set *set;
  int min, max; /* REPEAT; max -1: no limit */
  mn_repeat_kind repeat;
  bool behind, negative; /* LOOK */
  mn_place place;
} mn_rnode;
mn_status mn_regex_parse(const char *name, mn_arena *arena, const char *pattern, size_t n, bool literal, mn_rnode **out);

/* ---- the program ---- */
typedef enum { OP_MATCH, OP_SET, OP_SPAN, OP_SPLIT, OP_JUMP, OP_ALT, OP_LOOK, OP_ATOMIC, OP_PLACE } mn_opcode;
typedef struct mn_rop {
  mn_opcode op;
  uint32_t a, b;          /* SPLIT: tried in this order; JUMP: a. LOOK, ATOMIC: b is where it goes on, the inside begins after it */
  const mn_set *set;      /* SET, SPAN */
  int min, max;           /* SPAN */
  mn_repeat_kind repeat;  /* SPAN; POSSESSIVE also where giving back could never help */
  const uint32_t *mask;   /* ALT (256): which of the alternatives can begin with this byte */
  const uint32_t *target; /* ALT (n) */
  uint32_t n, empty;      /* ALT: alternatives; those that can match without a byte */
  bool behind, negative;
  int width; /* LOOK behind: characters */
  mn_place place;
} mn_rop;

struct mn_regex {
  mn_arena *arena;
  const char *name, *pattern; /* for messages */
  mn_rop *code;
  size_t n, cap;
  bool first[256]; /* can a match begin with this byte? */
  bool can_be_empty, looks_back;
};

typedef struct mn_regex_try { /* what is tried next when the current way fails */
  uint32_t pc, mask;          /* of ALT: the alternatives that are left; pc + TRY_ALL_FAILED: nothing, but pc has failed at `at` */
  size_t at, low;             /* a SPAN gives back characters from `at` down to `low`; lazy: takes more from `low` on, `mask` of them */
  size_t high;                /* of a SPAN: where its characters end; NOWHERE: not known */
} mn_regex_try;
#define TRY_ALL_FAILED (1u << 31)
#define NOWHERE        ((size_t)-1)

/* ---- what is known to fail (regex_memo.c) ---- */
/* A state is an instruction and a place. Without captures and back references its failing depends on nothing else, so one that has
 * failed once need not be tried again in the same search. Kept are states that choose, 64 places of an instruction in a word. The
 * ways out of a SPAN without an upper limit are kept as one interval: characters of its set run from `begin` up to `high`, and
 * all ways out from `lo` to `high` have failed. */
typedef struct mn_regex_run {
  uint64_t search;        /* of which search it is */
  size_t begin, high, lo; /* lo > high: none has failed */
} mn_regex_run;
typedef struct mn_regex_memo {
  struct mn_regex_cell {
    uint64_t key, value; /* key 0: empty */
  } * cell;
  size_t n, cap;
  mn_regex_run *run; /* (n_runs) of the last place of each SPAN; those of others lie in the table */
  size_t n_runs;
  uint64_t search;
  size_t far; /* nothing is known of places behind it */
} mn_regex_memo;
bool mn_memo_begin(mn_matcher *m, const mn_regex *re); /* false: out of memory, in m->status; so the others. What is full forgets */
void mn_memo_end(mn_matcher *m);
void mn_memo_free(mn_matcher *m);
bool mn_memo_has_failed(const mn_matcher *m, uint32_t pc, size_t at);
bool mn_memo_fail(mn_matcher *m, uint32_t pc, size_t at);
mn_regex_run *mn_memo_run(mn_matcher *m, uint32_t pc, size_t begin, size_t high); /* NULL: out of memory */

#endif
