/* tokenizer_bpe.c - byte-pair encoding of one piece: of bytes or of characters, by a list of merges or, as SentencePiece does, by
 * the scores of the tokens that two neighbours spell.
 *
 * A piece of n bytes is merged in O(n log n) with a heap of candidate pairs over a linked list; short pieces are remembered, which
 * is where the time of ordinary text goes.
 *
 * A piece of characters is first cut where two neighbours stand together in no token: nothing is ever merged across. So a text that
 * is one piece as a whole (SentencePiece cuts none) is merged word by word.
 *
 * A very long piece (a line of base64, a run of blanks) is merged in windows, at bounded memory. What lies on either side of a
 * boundary between two final tokens merges on its own, so a window begins where one ended, provided that boundary is final. A
 * boundary depends on what follows it only through merges of ever better rank, each of which reaches over one token: a window
 * therefore gives only the tokens that end MARGIN bytes before its end. */
#include "format/tokenizer_internal.h"

#include <stdlib.h>
#include <string.h>

enum { MARGIN = 1 << 14 };

mn_status mn_id_add(mn_encoder *e, int32_t id, mn_ids *out) {
  e->unk_before = false;
  return mn_ids_add(out, id);
}

mn_status mn_unk_add(mn_encoder *e, const char *s, size_t n, mn_ids *out) {
  const mn_tokenizer *tok = e->tok;
  bool all = tok->byte_fallback;
  for (size_t i = 0; i < n && all; i++) all = tok->byte_id[(unsigned char)s[i]] >= 0;
  if (all) {
    for (size_t i = 0; i < n; i++) MN_TRY(mn_id_add(e, tok->byte_id[(unsigned char)s[i]], out));
    return MN_OK;
  }
  if (tok->unk < 0 && tok->model == MODEL_UNIGRAM) {
    size_t len;
    const bool whole = mn_utf8_valid(s, n) == n;
    return mn_fail(MN_ERR_FORMAT, "%s: no token spells %s%0*X, and none is there for what is unknown (unk_id)", tok->name,
                   whole ? "the character U+" : "the byte 0x", whole ? 4 : 2, whole ? mn_utf8_next(s, n, &len) : (unsigned char)*s);
  }
  if (tok->unk < 0 || (tok->fuse_unk && e->unk_before)) return MN_OK;
  MN_TRY(mn_ids_add(out, tok->unk));
  e->unk_before = true;
  return MN_OK;
}

/* ---- the heap ---- */

static bool before(const mn_candidate *a, const mn_candidate *b) { return a->rank != b->rank ? a->rank < b->rank : a->at < b->at; }

static void heap_push(mn_encoder *e, mn_candidate c) {
  size_t i = e->n_heap++;
  for (; i > 0 && before(&c, &e->heap[(i - 1) / 2]); i = (i - 1) / 2) e->heap[i] = e->heap[(i - 1) / 2];
  e->heap[i] = c;
}

static mn_candidate heap_pop(mn_encoder *e) {
  mn_candidate top = e->heap[0], last = e->heap[--e->n_heap];
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

/* ---- merging ---- */

static inline uint32_t end_of(const mn_encoder *e, int32_t i, size_t n) {
  return e->symbols[i].next >= 0 ? e->symbols[e->symbols[i].next].start : (uint32_t)n;
}

static inline void consider(mn_encoder *e, const char *s, size_t n, int32_t left) {
  int32_t right = left < 0 ? -1 : e->symbols[left].next;
  if (right < 0) return;
  const mn_symbol *l = &e->symbols[left], *r = &e->symbols[right];
  if (e->tok->rank) {
    uint32_t end = end_of(e, right, n);
    if (end - l->start > e->tok->longest_key) return;
    int32_t id = mn_vocab_find(e->tok, s + l->start, end - l->start);
    if (id >= 0) heap_push(e, (mn_candidate){e->tok->rank[id], left, l->id, r->id, id, end});
    return;
  }
  const merge *m = mn_merge_find(e->tok, l->id, r->id);
  if (m) heap_push(e, (mn_candidate){m->rank, left, l->id, r->id, m->id, 0});
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

/* The token of one character, with what a vocabulary may put before it inside a word and behind it at its end. */
static mn_status character_id(mn_encoder *e, const char *s, size_t len, bool inside, bool at_end, int32_t *id) {
  const mn_tokenizer *tok = e->tok;
  if (!(tok->prefix && inside) && !(tok->suffix && at_end)) return *id = mn_vocab_find(tok, s, len), MN_OK;
  e->key.len = 0;
  if (tok->prefix && inside) mn_text_add_bytes(&e->key, tok->prefix, tok->prefix_n);
  mn_text_add_bytes(&e->key, s, len);
  if (tok->suffix && at_end) mn_text_add_bytes(&e->key, tok->suffix, tok->suffix_n);
  MN_TRY(mn_text_status(&e->key));
  *id = mn_vocab_find(tok, e->key.data, e->key.len);
  return MN_OK;
}

enum { UNKNOWN = -2 }; /* a character that no token spells */

static int32_t add_symbol(mn_encoder *e, int32_t count, int32_t id, size_t start) {
  e->symbols[count] = (mn_symbol){id, count - 1, count + 1, (uint32_t)start, false};
  return count + 1;
}

static mn_status symbols_of(mn_encoder *e, const char *s, size_t n, int32_t *count) {
  const mn_tokenizer *tok = e->tok;
  int32_t k = 0;
  if (tok->byte_level) {
    for (size_t i = 0; i < n; i++) {
      int32_t id = tok->byte_id[(unsigned char)s[i]];
      k = add_symbol(e, k, id < 0 ? UNKNOWN : id, i);
    }
  } else {
    for (size_t i = 0, len; i < n; i += len) {
      mn_utf8_next(s + i, n - i, &len);
      int32_t id;
      MN_TRY(character_id(e, s + i, len, i > 0, i + len == n, &id));
      if (id >= 0 || tok->rank) {
        k = add_symbol(e, k, id, i);
        continue;
      }
      bool bytes = tok->byte_fallback;
      for (size_t b = 0; b < len && bytes; b++) bytes = tok->byte_id[(unsigned char)s[i + b]] >= 0;
      if (bytes)
        for (size_t b = 0; b < len; b++) k = add_symbol(e, k, tok->byte_id[(unsigned char)s[i + b]], i + b);
      else if (tok->unk >= 0 && !(tok->fuse_unk && k && e->symbols[k - 1].id == UNKNOWN)) k = add_symbol(e, k, UNKNOWN, i);
    }
  }
  if (k) e->symbols[k - 1].next = -1;
  *count = k;
  return MN_OK;
}

/* Merges s[0..n), n <= MN_WINDOW, and gives the tokens that end by `until`, and the first one in any case; *used their bytes. */
static mn_status merge_window(mn_encoder *e, const char *s, size_t n, size_t until, size_t *used, mn_ids *out) {
  MN_TRY(reserve(e, n));
  int32_t count;
  MN_TRY(symbols_of(e, s, n, &count));
  e->n_heap = 0;
  for (int32_t i = 0; i + 1 < count; i++) consider(e, s, n, i);
  while (e->n_heap) {
    mn_candidate c = heap_pop(e);
    mn_symbol *left = &e->symbols[c.at];
    if (left->gone || left->id != c.left || left->next < 0 || e->symbols[left->next].id != c.right) continue;
    mn_symbol *right = &e->symbols[left->next];
    if (e->tok->rank && end_of(e, left->next, n) != c.end) continue;
    left->id = c.id;
    right->gone = true;
    left->next = right->next;
    if (left->next >= 0) e->symbols[left->next].prev = c.at;
    consider(e, s, n, left->prev);
    consider(e, s, n, c.at);
  }
  *used = count ? 0 : n;
  for (int32_t i = count ? 0 : -1; i >= 0; i = e->symbols[i].next) {
    const mn_symbol *x = &e->symbols[i];
    size_t end = end_of(e, i, n);
    if (end > until && *used) break;
    if (x->id >= 0) MN_TRY(mn_id_add(e, x->id, out));
    else MN_TRY(mn_unk_add(e, s + x->start, end - x->start, out));
    *used = end;
  }
  return MN_OK;
}

mn_status mn_bpe_prefix(mn_encoder *e, const char *s, size_t n, size_t *used, mn_ids *out) {
  size_t some;
  *used = 0;
  while (n > MN_WINDOW) {
    MN_TRY(mn_stop_check("tokenising"));
    size_t window = MN_WINDOW;
    while (!e->tok->byte_level && ((unsigned char)s[window] & 0xC0) == 0x80) window--;
    MN_TRY(merge_window(e, s, window, window - MARGIN, &some, out));
    s += some;
    n -= some;
    *used += some;
  }
  return MN_OK;
}

mn_status mn_bpe_encode(mn_encoder *e, const char *s, size_t n, mn_ids *out) {
  size_t used;
  MN_TRY(mn_bpe_prefix(e, s, n, &used, out));
  return merge_window(e, s + used, n - used, n - used, &(size_t){0}, out);
}
