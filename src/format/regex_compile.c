/* regex_compile.c - the tree of a pattern becomes a program for the matcher. */
#include "format/regex_internal.h"

#include "base/text.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_CODE = 1 << 16, MAX_PATTERN = 1 << 14, MAX_ALT = 32 };

typedef struct bytes256 {
  bool in[256];
} bytes256;

/* Can x match without a character? */
static bool can_be_empty(const mn_rnode *x) {
  switch (x->kind) {
  case NODE_SET:
    return false;
  case NODE_CAT:
    for (const mn_rnode *c = x->child; c; c = c->next)
      if (!can_be_empty(c)) return false;
    return true;
  case NODE_ALT:
    for (const mn_rnode *c = x->child; c; c = c->next)
      if (can_be_empty(c)) return true;
    return false;
  case NODE_REPEAT:
    return x->min == 0 || can_be_empty(x->child);
  case NODE_ATOMIC:
    return can_be_empty(x->child);
  default:
    return true;
  }
}

/* The bytes that a match of x can begin with, when it is not empty. */
static void first_bytes(const mn_rnode *x, bytes256 *out) {
  if (x->kind == NODE_SET) {
    for (uint32_t c = 0; c < 0x80; c++) out->in[c] |= mn_set_has(x->set, c);
    if (!x->set->block) return;
    for (uint32_t b = 0; b < 0x1100; b++) {
      uint16_t at = x->set->block[b];
      for (uint32_t q = 0; at && q < 4; q++) { /* 64 characters share the first byte from U+0080 on */
        uint32_t c = b << 8 | q << 6;
        if (!x->set->bits[at][q] || c < 0x80) continue;
        out->in[c < 0x800 ? 0xC0 | c >> 6 : c < 0x10000 ? 0xE0 | c >> 12 : 0xF0 | c >> 18] = true;
      }
    }
    return;
  }
  if (x->kind == NODE_LOOK || x->kind == NODE_PLACE || x->kind == NODE_EMPTY) return;
  for (const mn_rnode *c = x->child; c; c = c->next) {
    first_bytes(c, out);
    if (x->kind == NODE_CAT && !can_be_empty(c)) return;
    if (x->kind == NODE_REPEAT || x->kind == NODE_ATOMIC) return;
  }
}

/* The width of x in characters; -1: not fixed. */
static int width_of(const mn_rnode *x) {
  int sum = 0, w;
  switch (x->kind) {
  case NODE_SET:
    return 1;
  case NODE_CAT:
    for (const mn_rnode *c = x->child; c; c = c->next) {
      if ((w = width_of(c)) < 0) return -1;
      sum += w;
    }
    return sum;
  case NODE_ALT:
    sum = width_of(x->child);
    for (const mn_rnode *c = x->child->next; c; c = c->next)
      if (width_of(c) != sum) return -1;
    return sum;
  case NODE_REPEAT:
    return x->min == x->max && (w = width_of(x->child)) >= 0 ? w * x->min : -1;
  case NODE_ATOMIC:
    return width_of(x->child);
  default:
    return 0;
  }
}

typedef struct compiler {
  const char *name;
  mn_regex *re;
} compiler;

static mn_status put(compiler *c, mn_rop op, size_t *at) {
  mn_regex *re = c->re;
  if (re->n == MAX_CODE) return mn_fail(MN_ERR_UNSUPPORTED, "%s: the pattern of the pre-tokenizer repeats too much", c->name);
  if (re->n == re->cap) {
    size_t cap = re->cap ? re->cap * 2 : 64;
    mn_rop *code = mn_realloc(re->code, cap * sizeof *code);
    if (!code) return MN_ERR_MEMORY;
    re->code = code;
    re->cap = cap;
  }
  if (at) *at = re->n;
  re->code[re->n++] = op;
  return MN_OK;
}

static mn_status compile(compiler *c, const mn_rnode *x);

static mn_status compile_alternatives(compiler *c, const mn_rnode *first, uint32_t n) {
  uint32_t *mask = mn_arena_alloc(c->re->arena, 256 * sizeof *mask), *target = mn_arena_alloc(c->re->arena, n * sizeof *target), k = 0;
  if (!mask || !target) return MN_ERR_MEMORY;
  size_t at, jumps[MAX_ALT];
  mn_rop alt = {.op = OP_ALT, .mask = mask, .target = target, .n = n};
  const mn_rnode *x = first;
  for (; k < n; x = x->next, k++) {
    bytes256 bytes = {{false}};
    first_bytes(x, &bytes);
    bool empty = can_be_empty(x);
    for (int b = 0; b < 256; b++)
      if (empty || bytes.in[b]) mask[b] |= 1u << k;
    if (empty) alt.empty |= 1u << k;
  }
  MN_TRY(put(c, alt, &at));
  for (x = first, k = 0; k < n; x = x->next, k++) {
    target[k] = (uint32_t)c->re->n;
    MN_TRY(compile(c, x));
    MN_TRY(put(c, (mn_rop){.op = OP_JUMP}, &jumps[k]));
  }
  for (k = 0; k < n; k++) c->re->code[jumps[k]].a = (uint32_t)c->re->n;
  return MN_OK;
}

static mn_status compile_alt(compiler *c, const mn_rnode *x) {
  uint32_t n = 0;
  for (const mn_rnode *k = x->child; k; k = k->next) n++;
  if (n == 1) return compile(c, x->child);
  if (n <= MAX_ALT) return compile_alternatives(c, x->child, n);
  size_t split, jump; /* one alternative, or all others */
  MN_TRY(put(c, (mn_rop){.op = OP_SPLIT}, &split));
  c->re->code[split].a = (uint32_t)c->re->n;
  MN_TRY(compile(c, x->child));
  MN_TRY(put(c, (mn_rop){.op = OP_JUMP}, &jump));
  c->re->code[split].b = (uint32_t)c->re->n;
  mn_rnode rest = {.kind = NODE_ALT, .child = x->child->next};
  MN_TRY(compile_alt(c, &rest));
  c->re->code[jump].a = (uint32_t)c->re->n;
  return MN_OK;
}

static mn_status compile_inside(compiler *c, mn_rop op, const mn_rnode *child) { /* a program of its own, which ends with MATCH */
  size_t at;
  MN_TRY(put(c, op, &at));
  MN_TRY(compile(c, child));
  MN_TRY(put(c, (mn_rop){.op = OP_MATCH}, NULL));
  c->re->code[at].b = (uint32_t)c->re->n;
  return MN_OK;
}

static const mn_rnode *single(const mn_rnode *x) { /* a set, perhaps in groups of one */
  while ((x->kind == NODE_CAT || x->kind == NODE_ALT) && x->child && !x->child->next) x = x->child;
  return x->kind == NODE_SET ? x : NULL;
}

static mn_status compile_repeat(compiler *c, const mn_rnode *x) {
  const mn_rnode *one = single(x->child);
  if (one) return put(c, (mn_rop){.op = OP_SPAN, .set = one->set, .min = x->min, .max = x->max, .repeat = x->repeat}, NULL);
  if (x->repeat == REPEAT_POSSESSIVE) {
    mn_rnode greedy = *x;
    greedy.repeat = REPEAT_GREEDY;
    return compile_inside(c, (mn_rop){.op = OP_ATOMIC}, &greedy);
  }
  if (x->max < 0 && can_be_empty(x->child))
    return mn_fail(MN_ERR_UNSUPPORTED, "%s: the pattern of the pre-tokenizer repeats a group that can be empty, which is not supported",
                   c->name);
  for (int i = 0; i < x->min; i++) MN_TRY(compile(c, x->child));
  bool lazy = x->repeat == REPEAT_LAZY;
  size_t begin = c->re->n, split;
  if (x->max < 0) { /* begin: split inside, after; inside; jump begin */
    MN_TRY(put(c, (mn_rop){.op = OP_SPLIT}, &split));
    uint32_t inside = (uint32_t)c->re->n;
    MN_TRY(compile(c, x->child));
    MN_TRY(put(c, (mn_rop){.op = OP_JUMP, .a = (uint32_t)begin}, NULL));
    uint32_t after = (uint32_t)c->re->n;
    c->re->code[split].a = lazy ? after : inside;
    c->re->code[split].b = lazy ? inside : after;
    return MN_OK;
  }
  size_t first = c->re->n;
  for (int i = x->min; i < x->max; i++) {
    MN_TRY(put(c, (mn_rop){.op = OP_SPLIT, .min = -2}, &split));
    MN_TRY(compile(c, x->child));
  }
  uint32_t after = (uint32_t)c->re->n;
  for (size_t k = first; k < after; k++) { /* the optional copies all leave to the same place */
    mn_rop *op = &c->re->code[k];
    if (op->op != OP_SPLIT || op->min != -2) continue;
    op->a = lazy ? after : (uint32_t)k + 1;
    op->b = lazy ? (uint32_t)k + 1 : after;
    op->min = 0;
  }
  return MN_OK;
}

static mn_status compile(compiler *c, const mn_rnode *x) {
  switch (x->kind) {
  case NODE_EMPTY:
    return MN_OK;
  case NODE_SET:
    return put(c, (mn_rop){.op = OP_SET, .set = x->set}, NULL);
  case NODE_CAT:
    for (const mn_rnode *k = x->child; k; k = k->next) MN_TRY(compile(c, k));
    return MN_OK;
  case NODE_ALT:
    return compile_alt(c, x);
  case NODE_REPEAT:
    return compile_repeat(c, x);
  case NODE_ATOMIC:
    return compile_inside(c, (mn_rop){.op = OP_ATOMIC}, x->child);
  case NODE_PLACE:
    c->re->looks_back |= x->place != PLACE_LINE_END && x->place != PLACE_END && x->place != PLACE_END_OR_NEWLINE;
    return put(c, (mn_rop){.op = OP_PLACE, .place = x->place}, NULL);
  default:
    break;
  }
  mn_rop look = {.op = OP_LOOK, .behind = x->behind, .negative = x->negative};
  if (x->behind && (look.width = width_of(x->child)) < 0)
    return mn_fail(MN_ERR_UNSUPPORTED, "%s: the pattern of the pre-tokenizer looks behind by no fixed width, which is not supported",
                   c->name);
  c->re->looks_back |= x->behind;
  return compile_inside(c, look, x->child);
}

/* From `pc` on, can nothing fail? Then a span before it never has to give anything back. */
static bool never_fails(const mn_regex *re, size_t pc) {
  for (int steps = 0; steps < 16; steps++) {
    const mn_rop *op = &re->code[pc];
    if (op->op == OP_MATCH) return true;
    if (op->op == OP_JUMP) pc = op->a;
    else if (op->op == OP_SPAN && op->min == 0) pc++;
    else return false;
  }
  return false;
}

mn_status mn_regex_compile(const char *name, const char *pattern, size_t n, bool literal, mn_regex **out) {
  *out = NULL;
  if (n > MAX_PATTERN) return mn_fail(MN_ERR_FORMAT, "%s: a pattern of %zu bytes is too long; at most %d", name, n, MAX_PATTERN);
  if (mn_utf8_valid(pattern, n) != n) return mn_fail(MN_ERR_FORMAT, "%s: the pattern of the pre-tokenizer is not UTF-8", name);
  mn_regex *re = mn_calloc(1, sizeof *re);
  mn_rnode *tree = NULL;
  mn_status status = re && (re->arena = mn_arena_new()) ? MN_OK : MN_ERR_MEMORY;
  if (status == MN_OK &&
      (!(re->name = mn_arena_strdup(re->arena, name)) || !(re->pattern = mn_arena_format(re->arena, "%.*s", (int)n, pattern))))
    status = MN_ERR_MEMORY;
  if (status == MN_OK) status = mn_regex_parse(name, re->arena, pattern, n, literal, &tree);
  compiler c = {name, re};
  if (status == MN_OK) status = compile(&c, tree);
  if (status == MN_OK) status = put(&c, (mn_rop){.op = OP_MATCH}, NULL);
  if (status != MN_OK) {
    mn_regex_free(re);
    return status;
  }
  re->can_be_empty = can_be_empty(tree);
  bytes256 first = {{false}};
  first_bytes(tree, &first);
  for (int b = 0; b < 256; b++) re->first[b] = first.in[b] || re->can_be_empty;
  for (size_t i = 0; i < re->n; i++)
    if (re->code[i].op == OP_SPAN && re->code[i].repeat == REPEAT_GREEDY && never_fails(re, i + 1)) re->code[i].repeat = REPEAT_POSSESSIVE;
  *out = re;
  return MN_OK;
}

void mn_regex_free(mn_regex *re) {
  if (!re) return;
  if (re->arena) mn_arena_free(re->arena);
  free(re->code);
  free(re);
}

bool mn_regex_looks_back(const mn_regex *re) { return re->looks_back; }
