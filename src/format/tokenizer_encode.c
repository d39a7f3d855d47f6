/* tokenizer_encode.c - text to ids: added tokens, runs of valid UTF-8, normalisation, more added tokens, then the steps of the
 * pre-tokeniser (tokenizer_cut.c) and the model. A text may come in pieces: whatever could still be changed by what follows waits.
 *
 * Bytes that are not UTF-8 are pieces of one byte: the byte's own token where the vocabulary has one, else the unknown token. */
#include "format/tokenizer_internal.h"

#include <stdlib.h>
#include <string.h>

/* ---- one piece of the pre-tokeniser ---- */

static mn_status model(mn_encoder *e, const char *s, size_t n, mn_ids *out) {
  size_t used;
  switch (e->tok->model) {
  case MODEL_BPE:
    return mn_bpe_encode(e, s, n, out);
  case MODEL_UNIGRAM:
    return mn_unigram_encode(e, s, n, true, &used, out);
  default:
    return mn_wordpiece_encode(e, s, n, out);
  }
}

/* Appends remembered ids; unknown characters on both sides of a cut are one. */
static mn_status recall(mn_encoder *e, const int32_t *ids, int n, mn_ids *out) {
  int i = n && e->unk_before && e->tok->fuse_unk && ids[0] == e->tok->unk;
  for (; i < n; i++) MN_TRY(mn_ids_add(out, ids[i]));
  if (n) e->unk_before = ids[n - 1] == e->tok->unk;
  return MN_OK;
}

static mn_status encode_word(mn_encoder *e, const char *s, size_t n, mn_ids *out) {
  const mn_tokenizer *tok = e->tok;
  uint64_t hash = n <= CACHE_WORD ? mn_splitmix64(mn_hash_bytes(s, n, 0)) | 1 : 0;
  size_t slot = (size_t)(hash >> 32) & (CACHE_SLOTS - 1);
  if (n <= CACHE_WORD) {
    for (; e->cache[slot].hash; slot = (slot + 1) & (CACHE_SLOTS - 1)) {
      const mn_cached *c = &e->cache[slot];
      if (c->hash == hash && c->n == n && !memcmp(c->word, s, n)) return recall(e, c->ids, c->n_ids, out);
    }
  }
  int32_t whole = tok->ignore_merges && tok->model == MODEL_BPE && n <= tok->longest_key ? mn_vocab_find(tok, s, n) : -1;
  if (whole >= 0) return mn_id_add(e, whole, out);
  if (n > CACHE_WORD) return model(e, s, n, out); /* might not fit `few`; such words are rare */
  int32_t few[CACHE_IDS];
  mn_ids piece = {.data = few, .cap = CACHE_IDS};
  bool unk = e->unk_before;
  e->unk_before = false; /* what is remembered does not depend on what came before */
  MN_TRY(model(e, s, n, &piece));
  e->unk_before = unk;
  if (e->n_cached == CACHE_FULL) {
    memset(e->cache, 0, CACHE_SLOTS * sizeof *e->cache);
    e->n_cached = 0;
    slot = (size_t)(hash >> 32) & (CACHE_SLOTS - 1);
  }
  mn_cached *c = &e->cache[slot];
  c->hash = hash;
  c->n = (uint8_t)n;
  c->n_ids = (uint8_t)piece.len;
  memcpy(c->word, s, n);
  memcpy(c->ids, few, piece.len * sizeof *few);
  e->n_cached++;
  return recall(e, few, (int)piece.len, out);
}

static mn_status encode_bytes(mn_encoder *e, const char *s, size_t n, mn_ids *out) {
  for (size_t i = 0; i < n; i++) {
    if (i % STOP_EVERY == STOP_EVERY - 1) MN_TRY(mn_stop_check("tokenising"));
    int32_t id = e->tok->byte_id[(unsigned char)s[i]];
    if (id >= 0) MN_TRY(mn_ids_add(out, id));
  }
  return MN_OK;
}

mn_status mn_piece_encode(mn_encoder *e, const char *s, size_t n, bool last, size_t *used, mn_ids *out) {
  const mn_tokenizer *tok = e->tok;
  *used = last ? n : 0;
  if (!n) return MN_OK;
  if (tok->byte_level && tok->model == MODEL_WORDPIECE) return mn_longest_encode(e, s, n, last, used, out);
  if (tok->byte_level && (!tok->n_merges || (n == 1 && last))) { /* every byte is a token */
    *used = n;
    return encode_bytes(e, s, n, out);
  }
  size_t word = 0;
  if (tok->pairs) { /* cut where nothing joins two characters */
    size_t len, checked = 0;
    uint32_t left = mn_utf8_next(s, n, &len);
    for (size_t i = len; i < n; i += len) {
      uint32_t right = mn_utf8_next(s + i, n - i, &len);
      if (!mn_pair_possible(tok, left, right)) {
        MN_TRY(encode_word(e, s + word, i - word, out));
        word = i;
        if (i - checked >= STOP_EVERY) {
          checked = i;
          MN_TRY(mn_stop_check("tokenising"));
        }
      }
      left = right;
    }
  }
  if (last) return encode_word(e, s + word, n - word, out);
  *used = word;
  size_t some = 0;
  if (n - word > 2 * MN_WINDOW && tok->model == MODEL_BPE && !tok->suffix) MN_TRY(mn_bpe_prefix(e, s + word, n - word, &some, out));
  if (n - word > 2 * MN_WINDOW && tok->model == MODEL_UNIGRAM) MN_TRY(mn_unigram_encode(e, s + word, n - word, false, &some, out));
  *used += some;
  return MN_OK;
}

/* ---- added tokens ---- */

typedef struct found {
  size_t begin, end; /* with the blanks that the token takes */
  int32_t id;
} found;

static size_t blanks_before(const char *s, size_t from, size_t at) {
  while (at > from) {
    size_t begin = mn_utf8_before(s, at), len;
    uint32_t c = mn_utf8_next(s + begin, at - begin, &len);
    if (begin < from || begin + len != at || !mn_unicode_space(c)) break;
    at = begin;
  }
  return at;
}

static size_t blanks_after(const char *s, size_t n, size_t at) {
  size_t len;
  while (at < n && mn_unicode_space(mn_utf8_next(s + at, n - at, &len))) at += len;
  return at;
}

static bool word_ends(const char *s, size_t at) {
  size_t len, before = at ? mn_utf8_before(s, at) : 0;
  return at && mn_unicode_word(mn_utf8_next(s + before, at - before, &len));
}

/* `word_before`: a sign of a word stands before s[0]. */
static bool alone(const char *s, size_t n, size_t begin, size_t end, bool word_before) {
  size_t len;
  if (begin ? word_ends(s, begin) : word_before) return false;
  return end == n || !mn_unicode_word(mn_utf8_next(s + end, n - end, &len));
}

/* The longest token of the trie at s[at]; -1 when there is none. */
static int32_t added_at(const mn_tokenizer *tok, const mn_trie *trie, const char *s, size_t n, size_t at, unsigned flags, size_t *end) {
  int32_t node = MN_TRIE_ROOT, longest = -1;
  for (size_t i = at; i < n && (node = mn_trie_step(trie, node, (unsigned char)s[i])) != MN_TRIE_NONE; i++) {
    int32_t id = trie->value[node];
    if (id < 0 || ((tok->tokens[id].flags & TOKEN_SPECIAL) && !(flags & MN_ENCODE_SPECIAL))) continue;
    longest = id;
    *end = i + 1;
  }
  return longest;
}

/* The next added token in s[from..n). */
static bool next_added(const mn_tokenizer *tok, const mn_trie *trie, const bool *first, const char *s, size_t n, size_t from,
                       unsigned flags, bool word_before, found *out) {
  if (!trie->cap) return false;
  for (size_t at = from; at < n;) {
    size_t end;
    int32_t id = first && !first[(unsigned char)s[at]] ? -1 : added_at(tok, trie, s, n, at, flags, &end);
    if (id < 0) {
      at++;
      continue;
    }
    uint8_t kind = tok->tokens[id].flags;
    if ((kind & TOKEN_SINGLE_WORD) && !alone(s, n, at, end, word_before)) {
      at = end;
      continue;
    }
    *out = (found){kind & TOKEN_LSTRIP ? blanks_before(s, from, at) : at, kind & TOKEN_RSTRIP ? blanks_after(s, n, end) : end, id};
    return true;
  }
  return false;
}

/* Where s[0..n), of which more is to come, may hold no part of an added token that is not whole yet, nor blanks before one. */
static size_t certain_end(const mn_tokenizer *tok, const mn_trie *trie, const char *s, size_t n) {
  if (!trie->cap) return n;
  size_t end = n > trie->longest + 4 ? n - trie->longest - 4 : 0;
  while (end > 0 && ((unsigned char)s[end] & 0xC0) == 0x80) end--;
  for (int i = 0; i < tok->n_added; i++)
    if (tok->tokens[tok->added[i]].flags & TOKEN_LSTRIP) return blanks_before(s, 0, end);
  return end;
}

/* ---- normalised text ---- */

static mn_status run_steps(mn_encoder *e, const char *s, size_t n, bool last, size_t *used, mn_ids *out) {
  MN_TRY(mn_cut_run(e, 0, s, n, !e->in_text, last, used, out));
  if (*used) e->in_text = true;
  return MN_OK;
}

/* s[0..n) valid UTF-8 between two tokens that are looked for in the text as it is. */
static mn_status normalized(mn_encoder *e, const char *s, size_t n, unsigned flags, bool last, size_t *used, mn_ids *out) {
  const mn_tokenizer *tok = e->tok;
  const mn_trie *trie = &tok->added_normalized;
  size_t at = 0, some, certain = last ? n : certain_end(tok, trie, s, n);
  found x;
  *used = 0;
  while (next_added(tok, trie, NULL, s, n, at, flags, e->word_before_held, &x)) {
    if (!last && (x.begin >= certain || x.end + 4 > n)) break;
    MN_TRY(run_steps(e, s + at, x.begin - at, true, &some, out));
    e->in_text = true;
    MN_TRY(mn_ids_add(out, x.id));
    *used = at = x.end;
  }
  if (certain < at) certain = at;
  MN_TRY(run_steps(e, s + at, certain - at, last, &some, out));
  *used = at + some;
  if (last) e->word_before_held = false;
  else if (*used) e->word_before_held = word_ends(s, *used);
  return MN_OK;
}

/* Does the text no longer begin where it began? Then it is no "first" piece, either. */
static bool loses_beginning(const mn_tokenizer *tok, const char *s, size_t n) {
  size_t len;
  for (int i = 0; i < tok->n_norms; i++)
    if (tok->norms[i].kind == NORM_STRIP && tok->norms[i].left) return n && mn_unicode_space(mn_utf8_next(s, n, &len));
  return false;
}

static mn_status run_of_text(mn_encoder *e, const char *s, size_t n, unsigned flags, bool last, size_t *used, mn_ids *out) {
  const mn_tokenizer *tok = e->tok;
  enum { PART = 1 << 16 };
  if (!tok->n_norms) return normalized(e, s, n, flags, last, used, out);
  *used = 0;
  for (size_t most = PART; *used < n || last;) {
    size_t left = n - *used, part = left, some;
    bool end = last && left <= most;
    if (!end) MN_TRY(mn_normalize_cut(tok, s + *used, left < most ? left : most, &part));
    if (!part && !end) { /* no place to cut: a longer part, or what comes later */
      if (left <= most && !last) return MN_OK;
      most *= 2;
      continue;
    }
    const char *text;
    size_t text_n;
    MN_TRY(mn_normalize(tok, &e->norm, s + *used, part, !e->in_section, end, &text, &text_n));
    if (!e->in_section && loses_beginning(tok, s + *used, part)) e->in_text = true;
    e->in_section = true;
    *used += part;
    most = PART;
    if (!e->held.len && end) { /* as it is */
      MN_TRY(normalized(e, text, text_n, flags, true, &some, out));
      return MN_OK;
    }
    mn_text_add_bytes(&e->held, text, text_n);
    MN_TRY(mn_text_status(&e->held));
    MN_TRY(normalized(e, e->held.len ? e->held.data : "", e->held.len, flags, end, &some, out));
    if (end) some = e->held.len;
    if (some) memmove(e->held.data, e->held.data + some, e->held.len - some);
    e->held.len -= some;
    if (end) return MN_OK;
  }
  return MN_OK;
}

/* ---- text as it is ---- */

static mn_status broken_byte(mn_encoder *e, unsigned char byte, mn_ids *out) {
  const mn_tokenizer *tok = e->tok;
  e->in_text = e->in_section = true;
  int32_t id = tok->byte_id[byte] >= 0 ? tok->byte_id[byte] : tok->unk;
  return id < 0 ? mn_unk_add(e, (const char *)&byte, 1, out) : mn_ids_add(out, id);
}

/* Could s[0..n) be the beginning of a character? */
static bool torn(const char *s, size_t n) {
  unsigned char b = (unsigned char)s[0];
  if (n >= 4 || b < 0xC2 || b > 0xF4 || n >= (b < 0xE0 ? 2u : b < 0xF0 ? 3u : 4u)) return false;
  char whole[4] = {(char)b, (char)(b == 0xE0 ? 0xA0 : b == 0xF0 ? 0x90 : 0x80), (char)0x80, (char)0x80};
  memcpy(whole, s, n);
  size_t len = b < 0xE0 ? 2 : b < 0xF0 ? 3 : 4;
  return mn_utf8_valid(whole, len) == len;
}

/* The text between two added tokens. */
static mn_status section(mn_encoder *e, const char *s, size_t n, unsigned flags, bool last, size_t *used, mn_ids *out) {
  *used = 0;
  while (*used < n || last) {
    const char *at = s + *used;
    size_t left = n - *used, valid = mn_utf8_valid(at, left), some;
    bool waits = !last && left > valid && torn(at + valid, left - valid);
    bool ends = valid < left ? !waits : last;
    MN_TRY(run_of_text(e, at, valid, flags, ends, &some, out));
    *used += ends ? valid : some;
    if (!ends) return MN_OK;
    if (valid == left) break;
    MN_TRY(broken_byte(e, (unsigned char)at[valid], out));
    ++*used;
  }
  if (last) e->in_section = false;
  return MN_OK;
}

static mn_status text_part(mn_encoder *e, const char *s, size_t n, unsigned flags, bool last, size_t *used, mn_ids *out) {
  const mn_tokenizer *tok = e->tok;
  for (int i = 0; i < tok->n_before && !e->begun && (flags & MN_ENCODE_TEMPLATE); i++) MN_TRY(mn_ids_add(out, tok->before[i]));
  e->begun = true;
  size_t at = 0, some, certain = last ? n : certain_end(tok, &tok->added_raw, s, n);
  found x;
  *used = 0;
  while (next_added(tok, &tok->added_raw, tok->added_first, s, n, at, flags, e->word_before_raw, &x)) {
    if (!last && (x.begin >= certain || x.end + 4 > n)) break;
    MN_TRY(section(e, s + at, x.begin - at, flags, true, &some, out));
    e->in_text = true;
    MN_TRY(mn_ids_add(out, x.id));
    *used = at = x.end;
  }
  if (certain < at) certain = at;
  MN_TRY(section(e, s + at, certain - at, flags, last, &some, out));
  *used = at + some;
  if (*used) e->word_before_raw = word_ends(s, *used);
  for (int i = 0; i < tok->n_after && last && (flags & MN_ENCODE_TEMPLATE); i++) MN_TRY(mn_ids_add(out, tok->after[i]));
  return MN_OK;
}

static void forget(mn_encoder *e) { /* the text has ended, or failed */
  e->begun = e->in_text = e->in_section = e->unk_before = false;
  e->raw.len = e->held.len = 0;
  e->raw_tried = 0;
  e->unigram_score = 0;
  e->word_before_raw = e->word_before_held = false;
  memset(e->open, 0, sizeof e->open);
}

mn_status mn_encoder_add(mn_encoder *e, const char *text, size_t n, unsigned flags, mn_ids *out) {
  size_t used;
  forget(e);
  mn_status status = text_part(e, n ? text : "", n, flags, true, &used, out);
  forget(e);
  return status;
}

mn_status mn_encoder_push(mn_encoder *e, const char *text, size_t n, unsigned flags, mn_ids *out) {
  enum { FEW = 1 << 12 };
  size_t used = 0;
  if (!n) return MN_OK;
  if (!e->raw.len) {
    mn_status status = text_part(e, text, n, flags, false, &used, out);
    mn_text_add_bytes(&e->raw, text + used, n - used);
    e->raw_tried = e->raw.len;
    if (status == MN_OK) status = mn_text_status(&e->raw);
    if (status != MN_OK) forget(e);
    return status;
  }
  mn_text_add_bytes(&e->raw, text, n);
  MN_TRY(mn_text_status(&e->raw));
  if (e->raw_tried > FEW && e->raw.len < 2 * e->raw_tried) return MN_OK; /* a long piece: when twice as much is there */
  mn_status status = text_part(e, e->raw.data, e->raw.len, flags, false, &used, out);
  if (status != MN_OK) {
    forget(e);
    return status;
  }
  if (used) memmove(e->raw.data, e->raw.data + used, e->raw.len - used);
  e->raw.len -= used;
  e->raw_tried = e->raw.len;
  return MN_OK;
}

mn_status mn_encoder_finish(mn_encoder *e, unsigned flags, mn_ids *out) {
  size_t used;
  mn_status status = text_part(e, e->raw.len ? e->raw.data : "", e->raw.len, flags, true, &used, out);
  forget(e);
  return status;
}

size_t mn_encoder_held(const mn_encoder *e) { return e->raw.len + e->held.len; }

/* ---- encoders ---- */

mn_status mn_encoder_new(const mn_tokenizer *tok, mn_encoder **out) {
  *out = NULL;
  mn_encoder *e = mn_calloc(1, sizeof *e);
  if (!e) return MN_ERR_MEMORY;
  e->tok = tok;
  if (!mn_tokenizer_is_bytes(tok) && !(e->cache = mn_calloc(CACHE_SLOTS, sizeof *e->cache))) {
    mn_encoder_free(e);
    return MN_ERR_MEMORY;
  }
  *out = e;
  return MN_OK;
}

void mn_encoder_reserve(mn_encoder *e) {
  if (e->cache) memset(e->cache, 0, CACHE_SLOTS * sizeof *e->cache);
  e->n_cached = 0;
}

void mn_encoder_free(mn_encoder *e) {
  if (!e) return;
  for (int i = 0; i < MAX_STEPS; i++) {
    mn_matcher_close(&e->match[i]);
    mn_text_free(&e->step[i]);
  }
  mn_norm_work_free(&e->norm);
  mn_text_free(&e->raw);
  mn_text_free(&e->held);
  mn_text_free(&e->key);
  free(e->symbols);
  free(e->heap);
  free(e->best);
  free(e->cache);
  mn_ids_free(&e->path);
  free(e);
}

mn_status mn_tokenizer_encode(const mn_tokenizer *tok, const char *text, size_t n, unsigned flags, mn_ids *out) {
  mn_encoder *e;
  MN_TRY(mn_encoder_new(tok, &e));
  mn_status status = mn_encoder_add(e, text, n, flags, out);
  mn_encoder_free(e);
  return status;
}
