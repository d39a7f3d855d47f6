/* tokenizer_encode.c - text to ids: added tokens, runs of valid UTF-8, the pre-tokenisation's steps, then merges.
 *
 * A piece of n bytes is merged in O(n log n) with a heap of candidate pairs over a linked list; pieces up to 24 bytes
 * are remembered, which is where the time of ordinary text goes. Bytes that are not UTF-8 are pieces of one byte.
 *
 * A very long piece (a line of base64, a run of blanks) is merged in windows, at bounded memory. What lies on either side of a
 * boundary between two final tokens merges on its own, so a window begins where one ended, provided that boundary is final. A
 * boundary depends on what follows it only through merges of ever better rank, each of which reaches over one token: a window
 * therefore gives only the tokens that end MARGIN bytes before its end. */
#include "format/tokenizer_internal.h"

#include <stdlib.h>
#include <string.h>

/* ---- patterns ---- */

const char *mn_pattern_regex(mn_pattern pattern) {
  static const char *const regex[] = {
      [MN_PATTERN_GPT2] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
      [MN_PATTERN_CL100K] = "'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*"
                            "|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+",
      [MN_PATTERN_LLAMA3] = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}"
                            "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"};
  return regex[pattern];
}

bool mn_pattern_parse(const char *name, mn_pattern *out) {
  static const char *const names[] = {"gpt2", "cl100k", "llama3"};
  for (int i = 0; i < 3; i++)
    if (!strcmp(name, names[i])) return *out = (mn_pattern)i, true;
  return false;
}

mn_status mn_pattern_compile(const char *name, const char *pattern, size_t n, bool literal, pcre2_code **out) {
  enum { LONGEST = 1 << 14 };
  if (n > LONGEST) return mn_fail(MN_ERR_FORMAT, "%s: a pattern of %zu bytes is too long; at most %d", name, n, LONGEST);
  int error;
  PCRE2_SIZE at;
  uint32_t options = PCRE2_UTF | (literal ? PCRE2_LITERAL : PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C);
  *out = pcre2_compile((PCRE2_SPTR)pattern, n, options, &error, &at, NULL);
  if (!*out) {
    PCRE2_UCHAR text[120];
    pcre2_get_error_message(error, text, sizeof text);
    return mn_fail(MN_ERR_FORMAT, "%s: the pattern of the pre-tokenizer is wrong at byte %zu: %s", name, (size_t)at, text);
  }
  pcre2_jit_compile(*out, PCRE2_JIT_COMPLETE); /* without it, matching is only slower */
  return MN_OK;
}

mn_status mn_matcher_open(matcher *m) {
  m->data = pcre2_match_data_create(1, NULL);
  m->context = pcre2_match_context_create(NULL);
  m->stack = pcre2_jit_stack_create(32 << 10, 1 << 20, NULL); /* NULL on a machine without JIT */
  if (!m->data || !m->context) {
    mn_matcher_close(m);
    return mn_fail(MN_ERR_MEMORY, "out of memory for the matcher of the tokenizer");
  }
  if (m->stack) pcre2_jit_stack_assign(m->context, NULL, m->stack);
  pcre2_set_match_limit(m->context, 1000000); /* a hostile pattern may not run for ever */
  pcre2_set_heap_limit(m->context, 64 << 10); /* KiB */
  return MN_OK;
}

void mn_matcher_close(matcher *m) {
  pcre2_match_data_free(m->data);
  pcre2_match_context_free(m->context);
  pcre2_jit_stack_free(m->stack);
  *m = (matcher){NULL, NULL, NULL};
}

void mn_matcher_next(matcher *m, const pcre2_code *regex, const char *text, size_t n, size_t from, size_t *begin, size_t *end) {
  enum { GIVE_UP = 4096 }; /* bytes left uncut where a pattern runs into a limit: the cost per byte stays bounded */
  while (from < n) {
    int rc = pcre2_match(regex, (PCRE2_SPTR)text, n, from, PCRE2_NO_UTF_CHECK, m->data, m->context);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
      rc = pcre2_match(regex, (PCRE2_SPTR)text, n, from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, m->data, m->context);
    if (rc == PCRE2_ERROR_NOMATCH) break;
    PCRE2_SIZE *span = pcre2_get_ovector_pointer(m->data);
    if (rc >= 0 && span[0] >= from && span[1] > span[0]) {
      *begin = span[0];
      *end = span[1];
      return;
    }
    size_t skip = 1;
    if (rc < 0) skip = GIVE_UP;
    else if (span[0] > from) from = span[0]; /* an empty match further on */
    from += skip < n - from ? skip : n - from;
    while (from < n && ((unsigned char)text[from] & 0xC0) == 0x80) from++; /* to the next character */
  }
  *begin = *end = n;
}

/* ---- merging one piece ---- */

typedef struct symbol { /* of a doubly linked list over the piece */
  int32_t id, prev, next;
  bool gone;
} symbol;

typedef struct candidate { /* a pair that could be merged, as it was when it was pushed */
  uint32_t rank;
  int32_t at, left, right, id;
} candidate;

enum { CACHE_SLOTS = 1 << 15, CACHE_WORD = 24, CACHE_IDS = 24, CACHE_FULL = CACHE_SLOTS * 3 / 4 };

typedef struct cached {
  uint64_t hash; /* 0 empty */
  uint8_t n, n_ids;
  char word[CACHE_WORD];
  int32_t ids[CACHE_IDS];
} cached;

struct mn_encoder {
  const mn_tokenizer *tok;
  matcher match;
  symbol *symbols;
  candidate *heap;
  size_t cap, n_heap;
  cached *cache;
  size_t n_cached;
  char *prefixed; /* a piece with the space that add_prefix_space puts before it */
  size_t prefixed_cap;
};

static bool before(const candidate *a, const candidate *b) { return a->rank != b->rank ? a->rank < b->rank : a->at < b->at; }

static void heap_push(mn_encoder *e, candidate c) {
  size_t i = e->n_heap++;
  for (; i > 0 && before(&c, &e->heap[(i - 1) / 2]); i = (i - 1) / 2) e->heap[i] = e->heap[(i - 1) / 2];
  e->heap[i] = c;
}

static candidate heap_pop(mn_encoder *e) {
  candidate top = e->heap[0], last = e->heap[--e->n_heap];
  size_t i = 0, child;
  while ((child = 2 * i + 1) < e->n_heap) {
    if (child + 1 < e->n_heap && before(&e->heap[child + 1], &e->heap[child])) child++;
    if (!before(&e->heap[child], &last)) break;
    e->heap[i] = e->heap[child];
    i = child;
  }
  e->heap[i] = last;
  return top;
}

static void consider(mn_encoder *e, int32_t left) {
  int32_t right = left < 0 ? -1 : e->symbols[left].next;
  if (right < 0) return;
  const merge *m = mn_merge_find(e->tok, e->symbols[left].id, e->symbols[right].id);
  if (m) heap_push(e, (candidate){m->rank, left, e->symbols[left].id, e->symbols[right].id, m->id});
}

static mn_status reserve(mn_encoder *e, size_t n) {
  if (n <= e->cap) return MN_OK;
  size_t cap = n > 256 ? n : 256;
  free(e->symbols);
  free(e->heap);
  e->symbols = mn_alloc(cap * sizeof *e->symbols);
  e->heap = mn_alloc(cap * 3 * sizeof *e->heap); /* n pairs at first, and two more for each merge */
  e->cap = e->symbols && e->heap ? cap : 0;
  return e->cap ? MN_OK : MN_ERR_MEMORY;
}

enum { WINDOW = 1 << 17, MARGIN = 1 << 14 };

/* Merges s[0..n), n <= WINDOW, and gives the tokens that end by `until`, and the first one in any case; *used their bytes. */
static mn_status merge_window(mn_encoder *e, const char *s, size_t n, size_t until, size_t *used, mn_ids *out) {
  MN_TRY(reserve(e, n));
  int32_t count = (int32_t)n;
  for (int32_t i = 0; i < count; i++)
    e->symbols[i] = (symbol){e->tok->byte_id[(unsigned char)s[i]], i - 1, i + 1 < count ? i + 1 : -1, false};
  e->n_heap = 0;
  for (int32_t i = 0; i + 1 < count; i++) consider(e, i);
  while (e->n_heap) {
    candidate c = heap_pop(e);
    symbol *left = &e->symbols[c.at];
    if (left->gone || left->id != c.left || left->next < 0 || e->symbols[left->next].id != c.right) continue;
    symbol *right = &e->symbols[left->next];
    left->id = c.id;
    right->gone = true;
    left->next = right->next;
    if (left->next >= 0) e->symbols[left->next].prev = c.at;
    consider(e, left->prev);
    consider(e, c.at);
  }
  *used = 0;
  for (int32_t i = 0; i >= 0; i = e->symbols[i].next) {
    size_t end = e->symbols[i].next >= 0 ? (size_t)e->symbols[i].next : n;
    if (end > until && *used) break;
    MN_TRY(mn_ids_add(out, e->symbols[i].id));
    *used = end;
  }
  return MN_OK;
}

static mn_status merge_piece(mn_encoder *e, const char *s, size_t n, mn_ids *out) {
  size_t used;
  while (n > WINDOW) {
    MN_TRY(mn_stop_check("tokenising"));
    MN_TRY(merge_window(e, s, WINDOW, WINDOW - MARGIN, &used, out));
    s += used;
    n -= used;
  }
  return merge_window(e, s, n, n, &used, out);
}

enum { STOP_EVERY = 1 << 16 }; /* bytes */

static mn_status encode_piece(mn_encoder *e, const char *s, size_t n, mn_ids *out) {
  const mn_tokenizer *tok = e->tok;
  if (!n) return MN_OK;
  if (n == 1 || !tok->n_merges) {
    for (size_t i = 0; i < n; i++) {
      if (i % STOP_EVERY == STOP_EVERY - 1) MN_TRY(mn_stop_check("tokenising"));
      MN_TRY(mn_ids_add(out, tok->byte_id[(unsigned char)s[i]]));
    }
    return MN_OK;
  }
  uint64_t hash = n <= CACHE_WORD ? mn_splitmix64(mn_hash_bytes(s, n, 0)) | 1 : 0;
  size_t slot = (size_t)(hash >> 32) & (CACHE_SLOTS - 1);
  if (n <= CACHE_WORD) {
    for (; e->cache[slot].hash; slot = (slot + 1) & (CACHE_SLOTS - 1)) {
      const cached *c = &e->cache[slot];
      if (c->hash != hash || c->n != n || memcmp(c->word, s, n)) continue;
      for (int i = 0; i < c->n_ids; i++) MN_TRY(mn_ids_add(out, c->ids[i]));
      return MN_OK;
    }
  }
  int32_t whole = tok->ignore_merges ? mn_vocab_find(tok, s, n) : -1;
  if (whole >= 0) return mn_ids_add(out, whole);
  int32_t few[CACHE_IDS];
  mn_ids piece = {.data = few, .cap = CACHE_IDS};
  if (n > CACHE_IDS) return merge_piece(e, s, n, out); /* might not fit `few`; such words are rare */
  MN_TRY(merge_piece(e, s, n, &piece));
  if (e->n_cached == CACHE_FULL) {
    memset(e->cache, 0, CACHE_SLOTS * sizeof *e->cache);
    e->n_cached = 0;
    slot = (size_t)(hash >> 32) & (CACHE_SLOTS - 1);
  }
  cached *c = &e->cache[slot];
  c->hash = hash;
  c->n = (uint8_t)n;
  c->n_ids = (uint8_t)piece.len;
  memcpy(c->word, s, n);
  memcpy(c->ids, few, piece.len * sizeof *few);
  e->n_cached++;
  for (size_t i = 0; i < piece.len; i++) MN_TRY(mn_ids_add(out, few[i]));
  return MN_OK;
}

/* ---- cutting text into pieces ---- */

static mn_status run_step(mn_encoder *e, int k, const char *s, size_t n, mn_ids *out);

static mn_status byte_level(mn_encoder *e, const mn_cut *st, const char *s, size_t n, mn_ids *out) {
  if (st->prefix_space && *s != ' ') {
    if (n + 1 > e->prefixed_cap) {
      free(e->prefixed);
      e->prefixed_cap = 0;
      size_t cap = n + n / 8 + 64;
      if (!(e->prefixed = mn_alloc(cap))) return MN_ERR_MEMORY;
      e->prefixed_cap = cap;
    }
    e->prefixed[0] = ' ';
    memcpy(e->prefixed + 1, s, n);
    s = e->prefixed;
    n++;
  }
  if (!st->regex || !e->tok->n_merges) return encode_piece(e, s, n, out);
  for (size_t at = 0, begin, end, checked = 0; at < n; at = end) {
    if (at - checked >= STOP_EVERY) {
      checked = at;
      MN_TRY(mn_stop_check("tokenising"));
    }
    mn_matcher_next(&e->match, st->regex, s, n, at, &begin, &end);
    MN_TRY(encode_piece(e, s + at, begin - at, out));
    MN_TRY(encode_piece(e, s + begin, end - begin, out));
  }
  return MN_OK;
}

/* s[0..n) is valid UTF-8 and not empty. */
static mn_status run_step(mn_encoder *e, int k, const char *s, size_t n, mn_ids *out) {
  const mn_cut *st = &e->tok->steps[k];
  if (st->kind == STEP_BYTE_LEVEL) return byte_level(e, st, s, n, out);
  bool matches = st->kind == STEP_DIGITS || st->keep_matches, gaps = st->kind == STEP_DIGITS || st->keep_gaps;
  for (size_t at = 0, begin, end, checked = 0; at < n; at = end) {
    if (at - checked >= STOP_EVERY) {
      checked = at;
      MN_TRY(mn_stop_check("tokenising"));
    }
    mn_matcher_next(&e->match, st->regex, s, n, at, &begin, &end);
    if (gaps && begin > at) MN_TRY(run_step(e, k + 1, s + at, begin - at, out));
    if (matches && end > begin) MN_TRY(run_step(e, k + 1, s + begin, end - begin, out));
  }
  return MN_OK;
}

static mn_status encode_plain(mn_encoder *e, const char *s, size_t n, mn_ids *out) {
  while (n) {
    size_t valid = mn_utf8_valid(s, n);
    if (valid) MN_TRY(run_step(e, 0, s, valid, out));
    if (valid < n) MN_TRY(mn_ids_add(out, e->tok->byte_id[(unsigned char)s[valid++]]));
    s += valid;
    n -= valid;
  }
  return MN_OK;
}

static bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

/* The longest added token at s; -1 when there is none. */
static int32_t added_at(const mn_tokenizer *tok, const char *s, size_t n, unsigned flags) {
  if (!tok->added_first[(unsigned char)*s]) return -1;
  for (int i = 0; i < tok->n_added; i++) {
    const token *t = &tok->tokens[tok->added[i]];
    if ((t->flags & TOKEN_SPECIAL) && !(flags & MN_ENCODE_SPECIAL)) continue;
    if (t->n <= n && !memcmp(t->bytes, s, t->n)) return tok->added[i];
  }
  return -1;
}

mn_status mn_encoder_add(mn_encoder *e, const char *text, size_t n, unsigned flags, mn_ids *out) {
  const mn_tokenizer *tok = e->tok;
  for (int i = 0; i < tok->n_before && (flags & MN_ENCODE_TEMPLATE); i++) MN_TRY(mn_ids_add(out, tok->before[i]));
  size_t plain = 0; /* text[plain ... at) holds no added token */
  for (size_t at = 0; at < n && tok->n_added;) {
    int32_t id = added_at(tok, text + at, n - at, flags);
    if (id < 0) {
      at++;
      continue;
    }
    size_t end = at;
    if (tok->tokens[id].flags & TOKEN_LSTRIP)
      while (end > plain && is_space(text[end - 1])) end--;
    MN_TRY(encode_plain(e, text + plain, end - plain, out));
    MN_TRY(mn_ids_add(out, id));
    at += tok->tokens[id].n;
    if (tok->tokens[id].flags & TOKEN_RSTRIP)
      while (at < n && is_space(text[at])) at++;
    plain = at;
  }
  MN_TRY(encode_plain(e, text + plain, n - plain, out));
  for (int i = 0; i < tok->n_after && (flags & MN_ENCODE_TEMPLATE); i++) MN_TRY(mn_ids_add(out, tok->after[i]));
  return MN_OK;
}

mn_status mn_encoder_new(const mn_tokenizer *tok, mn_encoder **out) {
  *out = NULL;
  mn_encoder *e = mn_calloc(1, sizeof *e);
  if (!e) return MN_ERR_MEMORY;
  e->tok = tok;
  mn_status status = mn_matcher_open(&e->match);
  if (status == MN_OK && tok->n_merges && !(e->cache = mn_calloc(CACHE_SLOTS, sizeof *e->cache))) status = MN_ERR_MEMORY;
  if (status != MN_OK) mn_encoder_free(e);
  else *out = e;
  return status;
}

void mn_encoder_reserve(mn_encoder *e) {
  if (e->cache) memset(e->cache, 0, CACHE_SLOTS * sizeof *e->cache);
  e->n_cached = 0;
}

void mn_encoder_free(mn_encoder *e) {
  if (!e) return;
  mn_matcher_close(&e->match);
  free(e->symbols);
  free(e->heap);
  free(e->cache);
  free(e->prefixed);
  free(e);
}

mn_status mn_tokenizer_encode(const mn_tokenizer *tok, const char *text, size_t n, unsigned flags, mn_ids *out) {
  mn_encoder *e;
  MN_TRY(mn_encoder_new(tok, &e));
  mn_status status = mn_encoder_add(e, text, n, flags, out);
  mn_encoder_free(e);
  return status;
}
