/* tokenizer_wordpiece.c - WordPiece: the longest token that a word begins with, then the longest one with the prefix ("##") that what
 * is left begins with, and so on; a word that cannot be spelled so is unknown as a whole. WordLevel: a word is a token or unknown.
 *
 * Over bytes there are no words and nothing is unknown: a text is the longest token that it begins with, and so on (RWKV's World). */
#include "format/tokenizer_internal.h"

#include <string.h>

static size_t characters(const char *s, size_t n) {
  size_t count = 0;
  for (size_t i = 0; i < n; i++) count += ((unsigned char)s[i] & 0xC0) != 0x80;
  return count;
}

mn_status mn_wordpiece_encode(mn_encoder *e, const char *s, size_t n, mn_ids *out) {
  const mn_tokenizer *tok = e->tok;
  if (tok->model == MODEL_WORDLEVEL) {
    int32_t id = mn_vocab_find(tok, s, n);
    if (id < 0) id = tok->unk;
    return id < 0 ? MN_OK : mn_ids_add(out, id);
  }
  if (characters(s, n) > tok->max_word) return mn_ids_add(out, tok->unk);
  e->path.len = 0;
  for (size_t at = 0, end = 0; at < n; at = end) {
    int32_t id = -1;
    size_t before = at ? tok->prefix_n : 0, most = tok->longest_key > before ? tok->longest_key - before : 0;
    e->key.len = 0;
    if (at) mn_text_add_bytes(&e->key, tok->prefix, tok->prefix_n);
    end = n - at > most ? at + most : n;
    while (end > at && end < n && ((unsigned char)s[end] & 0xC0) == 0x80) end--;
    mn_text_add_bytes(&e->key, s + at, end - at);
    MN_TRY(mn_text_status(&e->key));
    for (; end > at; end = mn_utf8_before(s, end))
      if ((id = mn_vocab_find(tok, e->key.data, before + end - at)) >= 0) break;
    if (id < 0) return mn_ids_add(out, tok->unk);
    MN_TRY(mn_ids_add(&e->path, id));
  }
  for (size_t i = 0; i < e->path.len; i++) MN_TRY(mn_ids_add(out, e->path.data[i]));
  return MN_OK;
}

/* The tokens of s[0..n), of which more is to come where it is not the last: then those that end where a character does, and that no longer one
 * could take the place of. */
mn_status mn_longest_encode(mn_encoder *e, const char *s, size_t n, bool last, size_t *used, mn_ids *out) {
  const mn_trie *trie = &e->tok->trie;
  size_t checked = 0;
  e->path.len = 0;
  *used = 0;
  for (size_t at = 0, end; at < n; at = end) {
    int32_t node = MN_TRIE_ROOT, id = -1;
    size_t i = at;
    for (end = at; i < n && (node = mn_trie_step(trie, node, (unsigned char)s[i])) != MN_TRIE_NONE; i++) {
      if (trie->value[node] < 0) continue;
      id = trie->value[node];
      end = i + 1;
    }
    if (i == n && !last) break;
    MN_TRY(mn_ids_add(&e->path, id)); /* each byte is a token, so there is one */
    if (end < n && ((unsigned char)s[end] & 0xC0) == 0x80) continue;
    for (size_t k = 0; k < e->path.len; k++) MN_TRY(mn_ids_add(out, e->path.data[k]));
    e->path.len = 0;
    *used = end;
    if (end - checked < STOP_EVERY) continue;
    checked = end;
    MN_TRY(mn_stop_check("tokenising"));
  }
  return MN_OK;
}
