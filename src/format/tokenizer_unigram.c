/* tokenizer_unigram.c - the unigram model (Kudo 2018): of all ways to spell a piece with tokens, the one whose scores add up to most,
 * found from left to right (Viterbi). A character that no token spells costs ten more than the rarest token.
 *
 * A very long piece is spelled in windows: every way to go on passes one of the last places of the window, as far back as the longest
 * token reaches; where the best ways to all of them agree, the ids are final. */
#include "format/tokenizer_internal.h"

#include <stdlib.h>
#include <string.h>

static mn_status reserve(mn_encoder *e, size_t n) {
  if (n + 1 <= e->cap_best) return MN_OK;
  free(e->best);
  e->best = mn_alloc((n + 1) * sizeof *e->best);
  e->cap_best = e->best ? n + 1 : 0;
  return e->best ? MN_OK : MN_ERR_MEMORY;
}

enum { NOT_REACHED = -2, UNKNOWN = -1 };

static inline void offer(mn_best *to, double score, size_t start, int32_t id) {
  if (to->id == NOT_REACHED || score > to->score) *to = (mn_best){score, id, (uint32_t)start};
}

/* `score`: of what lies before, so that sums are rounded as they are over the whole piece. */
static void find_best(mn_encoder *e, const char *s, size_t n, double score) {
  const mn_tokenizer *tok = e->tok;
  const mn_trie *trie = &tok->trie;
  mn_best *best = e->best;
  for (size_t i = 1; i <= n; i++) best[i].id = NOT_REACHED;
  best[0] = (mn_best){score, UNKNOWN, 0};
  for (size_t at = 0, len; at < n; at += len) {
    mn_utf8_next(s + at, n - at, &len);
    double here = best[at].score;
    bool single = false;
    int32_t node = MN_TRIE_ROOT;
    for (size_t i = at; i < n && (node = mn_trie_step(trie, node, (unsigned char)s[i])) != MN_TRIE_NONE; i++) {
      int32_t id = trie->value[node];
      if (id < 0) continue;
      offer(&best[i + 1], here + tok->score[id], at, id);
      single |= i + 1 - at == len;
    }
    if (!single) offer(&best[at + len], here + tok->unk_score, at, UNKNOWN);
  }
}

/* Gives the ids of the best way to place `end`. */
static mn_status give(mn_encoder *e, const char *s, size_t end, mn_ids *out) {
  e->path.len = 0;
  for (size_t at = end; at > 0; at = e->best[at].start) MN_TRY(mn_ids_add(&e->path, (int32_t)at));
  for (size_t i = e->path.len, at = 0; i-- > 0;) {
    size_t to = (size_t)e->path.data[i];
    int32_t id = e->best[to].id;
    if (id >= 0 && id != e->tok->unk) MN_TRY(mn_id_add(e, id, out));
    else MN_TRY(mn_unk_add(e, s + at, to - at, out));
    at = to;
  }
  return MN_OK;
}

/* The last place that the best ways to all places of the window's end have in common. */
static size_t common_place(const mn_encoder *e, size_t n) {
  size_t common = n, reach = e->tok->trie.longest;
  for (size_t p = n > reach ? n - reach : 0; p <= n; p++) {
    if (e->best[p].id == NOT_REACHED) continue;
    size_t a = common, b = p;
    while (a != b) {
      if (a > b) a = e->best[a].start;
      else b = e->best[b].start;
    }
    common = a;
  }
  return common;
}

mn_status mn_unigram_encode(mn_encoder *e, const char *s, size_t n, bool last, size_t *used, mn_ids *out) {
  size_t window = MN_WINDOW;
  double score = e->unigram_score;
  *used = 0;
  while (n - *used > window) {
    MN_TRY(mn_stop_check("tokenising"));
    size_t part = window;
    while (((unsigned char)s[*used + part] & 0xC0) == 0x80) part--;
    MN_TRY(reserve(e, part));
    find_best(e, s + *used, part, score);
    size_t common = common_place(e, part);
    MN_TRY(give(e, s + *used, common, out));
    *used += common;
    score = e->best[common].score;
    window = common ? MN_WINDOW : window * 2;
  }
  e->unigram_score = last ? 0 : score;
  if (!last) return MN_OK;
  MN_TRY(reserve(e, n - *used));
  find_best(e, s + *used, n - *used, score);
  MN_TRY(give(e, s + *used, n - *used, out));
  *used = n;
  return MN_OK;
}
