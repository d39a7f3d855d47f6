/* tokenizer_cut.c - pre-tokenisation: each step cuts the pieces of the step before it, and the last gives its pieces to the model.
 *
 * A step can be given a piece whose end has not come yet. It then passes on what is certain: matches that did not look past the end
 * of what is there, and of the text between matches all where no match can begin any more. So a text is cut in pieces exactly as
 * it is cut whole, and no more of it is held than the longest piece that is not certain. */
#include "format/tokenizer_internal.h"

#include <stdlib.h>
#include <string.h>

const char mn_punctuation_class[] =
    "[!-/:-@\\[-`{-~\\x{166D}\\x{111C9}[\\p{P}&&[^"
    "\\x{61D}\\x{9FD}\\x{A76}\\x{C77}\\x{C84}\\x{1B4E}-\\x{1B4F}\\x{1B7D}-\\x{1B7F}\\x{2E43}-\\x{2E4F}"
    "\\x{2E52}-\\x{2E5D}\\x{10D6E}\\x{10EAD}\\x{10F55}-\\x{10F59}\\x{10F86}-\\x{10F89}\\x{113D4}-\\x{113D5}"
    "\\x{113D7}-\\x{113D8}\\x{1144B}-\\x{1144F}\\x{1145A}-\\x{1145B}\\x{1145D}\\x{11660}-\\x{1166C}\\x{116B9}"
    "\\x{1183B}\\x{11944}-\\x{11946}\\x{119E2}\\x{11A3F}-\\x{11A46}\\x{11A9A}-\\x{11A9C}\\x{11A9E}-\\x{11AA2}"
    "\\x{11B00}-\\x{11B09}\\x{11BE1}\\x{11C41}-\\x{11C45}\\x{11C70}-\\x{11C71}\\x{11EF7}-\\x{11EF8}"
    "\\x{11F43}-\\x{11F4F}\\x{11FFF}\\x{12FF1}-\\x{12FF2}\\x{16D6D}-\\x{16D6F}\\x{16E97}-\\x{16E9A}\\x{16FE2}"
    "\\x{1E5FF}\\x{1E95E}-\\x{1E95F}"
    "]]]";

static void close_steps(mn_encoder *e, int from) {
  for (int k = from; k <= e->tok->n_steps; k++) e->open[k] = false;
}

/* ---- Split ---- */

typedef struct splitter {
  mn_encoder *e;
  int k;
  const char *s;
  bool first;   /* the text begins with s[0] */
  bool went_on; /* s[0] continues a piece that the next step has begun */
  size_t piece; /* the piece that is being put together: s[piece ... end) */
  size_t end;
  enum { PIECE_NONE, PIECE_GAP, PIECE_MATCH } kind;
  mn_ids *out;
} splitter;

static mn_status give(splitter *x, size_t begin, size_t end) {
  size_t used;
  if (!(begin == 0 && x->went_on)) close_steps(x->e, x->k + 1);
  x->went_on = false;
  return mn_cut_run(x->e, x->k + 1, x->s + begin, end - begin, x->first && begin == 0, true, &used, x->out);
}

static mn_status flush(splitter *x) {
  int kind = x->kind;
  x->kind = PIECE_NONE;
  return kind == PIECE_NONE ? MN_OK : give(x, x->piece, x->end);
}

/* The next span of the text, a match or what lies between two. */
static mn_status span(splitter *x, const mn_cut *st, size_t begin, size_t end, bool is_match) {
  bool is_gap = is_match == st->invert;
  bool with_last = false;
  if (!is_gap && begin == 0 && st->behavior != CUT_WITH_PREVIOUS) x->went_on = false; /* a match ends the piece before it */
  switch (st->behavior) {
  case CUT_REMOVED:
    return is_gap && end > begin ? give(x, begin, end) : MN_OK;
  case CUT_ISOLATED:
    return end > begin ? give(x, begin, end) : MN_OK;
  case CUT_WITH_PREVIOUS:
    with_last = !is_gap && x->kind == PIECE_GAP;
    break;
  case CUT_WITH_NEXT:
    with_last = is_gap && x->kind == PIECE_MATCH;
    break;
  case CUT_CONTIGUOUS:
    with_last = x->kind == (is_gap ? PIECE_GAP : PIECE_MATCH);
    break;
  }
  if (with_last) {
    x->end = end;
    if (st->behavior == CUT_CONTIGUOUS) return MN_OK;
    return flush(x);
  }
  MN_TRY(flush(x));
  x->piece = begin;
  x->end = end;
  x->kind = is_gap ? PIECE_GAP : PIECE_MATCH;
  bool waits = st->behavior == CUT_CONTIGUOUS || (st->behavior == CUT_WITH_PREVIOUS) == is_gap;
  return waits ? MN_OK : flush(x);
}

static mn_status split(mn_encoder *e, int k, const char *s, size_t n, bool first, bool last, size_t *used, mn_ids *out) {
  const mn_cut *st = &e->tok->steps[k];
  if (!last && mn_regex_looks_back(st->regex)) return MN_OK; /* it must see all that stands before a match */
  splitter x = {.e = e, .k = k, .s = s, .first = first, .went_on = e->open[k + 1], .out = out};
  size_t at = 0, checked = 0, gap = 0; /* a span of text without a match begins at `gap` */
  while (at < n) {
    size_t begin, end;
    if (at - checked >= STOP_EVERY) {
      checked = at;
      MN_TRY(mn_stop_check("tokenising"));
    }
    e->match[k].same_text = at > 0; /* and where a search was not sure it was the last */
    MN_TRY(mn_matcher_next(&e->match[k], st->regex, s, n, at, &begin, &end));
    bool unsure = !last && (e->match[k].unsure != (size_t)-1 || begin == n);
    if (unsure) {
      gap = at;
      at = e->match[k].unsure < begin ? e->match[k].unsure : begin; /* nothing begins before that */
      break;
    }
    if (begin > at) MN_TRY(span(&x, st, at, begin, false));
    if (begin < n) MN_TRY(span(&x, st, begin, end, true));
    at = gap = end;
  }
  if (last) {
    MN_TRY(flush(&x));
    close_steps(e, k + 1);
    *used = n;
    return MN_OK;
  }
  /* What is left: s[gap ... at) holds no match, and behind it nothing is known. Where it is a piece that goes on, the next step may
   * take of it what is certain. */
  *used = x.kind == PIECE_NONE ? gap : x.piece;
  if (at == gap || x.kind == PIECE_MATCH || st->invert) return MN_OK;
  size_t begin = x.kind == PIECE_GAP ? x.piece : gap, some = 0;
  if (!(begin == 0 && x.went_on)) close_steps(e, k + 1);
  MN_TRY(mn_cut_run(e, k + 1, s + begin, at - begin, first && begin == 0, false, &some, out));
  *used = begin + some;
  e->open[k + 1] |= some > 0 || (begin == 0 && x.went_on);
  return MN_OK;
}

/* ---- steps that change the text: part by part, the rest of a part waits in front of the next ---- */

enum { PART = 1 << 16 };

static size_t part_of(const char *s, size_t n, size_t most) {
  if (n <= most) return n;
  while (most > 1 && ((unsigned char)s[most] & 0xC0) == 0x80) most--;
  return most;
}

static void drop_front(mn_text *t, size_t n) {
  if (n) memmove(t->data, t->data + n, t->len - n);
  t->len -= n;
}

/* How many bytes of s[0..n) stand in the last `left` bytes of what they became, and whether what was put before them does, too. */
static size_t bytes_of(const mn_cut *st, const char *s, size_t n, size_t left, bool *mark_too) {
  size_t at = n;
  while (left && at) {
    at--;
    size_t became = st->kind == CUT_METASPACE && s[at] == ' ' ? st->mark_n : 1;
    left = left > became ? left - became : 0;
  }
  *mark_too = left > 0;
  return n - at;
}

static mn_status change(mn_encoder *e, int k, const char *s, size_t n, bool first, bool last, size_t *used, mn_ids *out) {
  const mn_cut *st = &e->tok->steps[k];
  mn_text *t = &e->step[k];
  const char *mark = st->kind == CUT_METASPACE ? st->mark : " ";
  size_t mark_n = st->kind == CUT_METASPACE ? st->mark_n : 1;
  bool put = st->prepend == PREPEND_ALWAYS || (st->prepend == PREPEND_FIRST && first);
  bool begun = e->open[k], has_mark = n && (*s == ' ' || (n >= mark_n && !memcmp(s, mark, mark_n)));
  t->len = 0;
  *used = 0;
  if (!n) {
    if (last) close_steps(e, k);
    return MN_OK;
  }
  if (!begun && put && !has_mark) mn_text_add_bytes(t, mark, mark_n);
  size_t at = 0, most = PART, some = 0;
  do {
    size_t part = part_of(s + at, n - at, most);
    if (st->kind == CUT_METASPACE) {
      for (const char *p = s + at, *end = p + part, *space; p < end; p = space + 1) {
        space = memchr(p, ' ', (size_t)(end - p));
        if (!space) space = end;
        mn_text_add_bytes(t, p, (size_t)(space - p));
        if (space < end) mn_text_add_bytes(t, mark, mark_n);
      }
    } else {
      mn_text_add_bytes(t, s + at, part);
    }
    MN_TRY(mn_text_status(t));
    at += part;
    bool end = last && at == n;
    MN_TRY(mn_cut_run(e, k + 1, t->data, t->len, first && !begun, end, &some, out));
    begun |= some > 0;
    most = some ? PART : most * 2; /* a long piece: try again when twice as much is there */
    drop_front(t, some);
  } while (at < n);
  if (last) {
    close_steps(e, k);
    *used = n;
    return MN_OK;
  }
  bool mark_too;
  size_t left = bytes_of(st, s, n, t->len, &mark_too);
  *used = mark_too && !begun ? 0 : n - left;
  e->open[k] |= begun;
  return MN_OK;
}

mn_status mn_cut_run(mn_encoder *e, int k, const char *s, size_t n, bool first, bool last, size_t *used, mn_ids *out) {
  *used = 0;
  if (k == e->tok->n_steps) {
    if (!e->open[k]) e->unk_before = false;
    MN_TRY(mn_piece_encode(e, s, n, last, used, out));
    e->open[k] = !last && (e->open[k] || *used > 0);
    return MN_OK;
  }
  return e->tok->steps[k].kind == CUT_SPLIT ? split(e, k, s, n, first, last, used, out) : change(e, k, s, n, first, last, used, out);
}

mn_status mn_cut_add(mn_tokenizer *tok, const char *name, const char *regex, bool literal, mn_cut_behavior behavior, bool invert) {
  if (tok->n_steps == MAX_STEPS) return mn_fail(MN_ERR_FORMAT, "%s: pre_tokenizer has more than %d steps", name, MAX_STEPS);
  mn_cut *st = &tok->steps[tok->n_steps];
  *st = (mn_cut){.kind = CUT_SPLIT, .behavior = behavior, .invert = invert};
  MN_TRY(mn_regex_compile(name, regex, strlen(regex), literal, &st->regex));
  tok->n_steps++;
  return MN_OK;
}
