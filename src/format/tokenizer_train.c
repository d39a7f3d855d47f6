/* tokenizer_train.c - byte-level BPE learned from texts.
 *
 * The texts are cut into words by the pattern and counted; then, vocab_size times over, the most frequent pair of
 * neighbours becomes a token. Each pair knows the words it occurs in and its count is kept up to date, so a merge costs
 * what it touches. The heap holds old counts; an entry whose count has fallen is pushed again when it comes up.
 *
 * A merge walks through every word that it touches, so words must be short for the cost to follow the text: what the pattern
 * leaves longer than LONGEST bytes (a line of base64, a rule of dashes) counts as several words. Of such different words only
 * the first LONG_BYTES take part; they are few in any text that is language. Where there are more than MOST different words (a
 * line of random digits and letters), the rarest are forgotten, so that memory is bounded, too. */
#include "format/tokenizer_internal.h"

#include <stdlib.h>
#include <string.h>

const char mn_progress_vocabulary[] = "vocabulary";

enum { LONGEST = 256, LONG = 128, LONG_BYTES = 16 << 20, MOST = 1 << 21, CHECK_EVERY = 4096 };

typedef struct word {
  int32_t *ids; /* in the arena; shrinks in place */
  int32_t n;
  int64_t count;
  const char *text;
  size_t size;
} word;

typedef struct pair {
  int32_t left, right;
  int64_t count;
  int32_t *words; /* where it occurs or has occurred; a word may stand twice */
  uint32_t n_words, cap;
  bool fresh; /* arose in the merge that is being made */
} pair;

typedef struct entry { /* of the heap */
  int64_t count;
  int32_t left, right;
  uint32_t pair;
} entry;

typedef struct trainer {
  const mn_tokenizer_train_config *config;
  mn_arena *arena;
  word *words;
  size_t n_words, cap_words, long_bytes;
  int32_t *word_table; /* hash of word texts -> index + 1 */
  size_t word_mask;
  pair *pairs;
  size_t n_pairs, cap_pairs;
  uint32_t *pair_table; /* hash of (left, right) -> index + 1 */
  size_t pair_mask;
  entry *heap;
  size_t n_heap, cap_heap;
  mn_span *tokens;
  bool *special;
  int32_t n_tokens;
  int32_t *token_table; /* hash of bytes -> id + 1: two merges can spell the same token */
  size_t token_mask;
  int32_t (*merges)[2];
  size_t n_merges;
} trainer;

/* Makes room for one more element. */
static mn_status grow(void **data, size_t *cap, size_t n, size_t size) {
  if (n < *cap) return MN_OK;
  size_t more = *cap ? *cap * 2 : 64, bytes;
  if (!mn_size_mul(more, size, &bytes)) return mn_fail(MN_ERR_MEMORY, "training a tokenizer: too many elements");
  void *p = mn_realloc(*data, bytes);
  if (!p) return MN_ERR_MEMORY;
  *data = p;
  *cap = more;
  return MN_OK;
}

/* ---- words ---- */

static mn_status make_word_table(trainer *t, size_t size) {
  int32_t *table = mn_calloc(size, sizeof *table);
  if (!table) return MN_ERR_MEMORY;
  for (size_t w = 0; w < t->n_words; w++) {
    size_t at = (size_t)mn_splitmix64(mn_hash_bytes(t->words[w].text, t->words[w].size, 0)) & (size - 1);
    while (table[at]) at = (at + 1) & (size - 1);
    table[at] = (int32_t)w + 1;
  }
  free(t->word_table);
  t->word_table = table;
  t->word_mask = size - 1;
  return MN_OK;
}

/* Leaves out the words that occurred least often, until at most half of MOST are left. */
static mn_status forget_rare_words(trainer *t) {
  for (int64_t least = 1; t->n_words > MOST / 2; least++) {
    size_t kept = 0;
    for (size_t w = 0; w < t->n_words; w++)
      if (t->words[w].count > least) t->words[kept++] = t->words[w];
    t->n_words = kept;
  }
  return make_word_table(t, t->word_mask + 1);
}

static mn_status count_word(trainer *t, const char *s, size_t n) {
  if (n < 2) return MN_OK; /* nothing to merge */
  if (t->n_words >= MOST) MN_TRY(forget_rare_words(t));
  if (2 * t->n_words >= t->word_mask) MN_TRY(make_word_table(t, (t->word_mask + 1) * 2));
  size_t at = (size_t)mn_splitmix64(mn_hash_bytes(s, n, 0)) & t->word_mask;
  for (; t->word_table[at]; at = (at + 1) & t->word_mask) {
    word *w = &t->words[t->word_table[at] - 1];
    if (w->size == n && !memcmp(w->text, s, n)) {
      w->count++;
      return MN_OK;
    }
  }
  if (n >= LONG && (t->long_bytes += n) > LONG_BYTES) return MN_OK;
  MN_TRY(grow((void **)&t->words, &t->cap_words, t->n_words, sizeof *t->words));
  t->words[t->n_words++] = (word){.text = s, .size = n, .count = 1}; /* the texts outlive the training */
  t->word_table[at] = (int32_t)t->n_words;
  return MN_OK;
}

/* A piece of the pattern, cut between characters where it is too long. */
static mn_status count_piece(trainer *t, const char *s, size_t n) {
  while (n > LONGEST) {
    size_t cut = LONGEST;
    while (((unsigned char)s[cut] & 0xC0) == 0x80) cut--;
    MN_TRY(count_word(t, s, cut));
    s += cut;
    n -= cut;
  }
  return count_word(t, s, n);
}

static mn_status count_text(trainer *t, mn_matcher *m, const mn_regex *regex, const mn_span *text) {
  const char *s = text->data;
  size_t n = text->size;
  while (n) {
    size_t valid = mn_utf8_valid(s, n);
    for (size_t at = 0, begin, end, checked = 0; at < valid; at = end) {
      if (at - checked >= CHECK_EVERY) {
        checked = at;
        MN_TRY(mn_stop_check("training a tokenizer"));
      }
      m->same_text = at > 0;
      MN_TRY(mn_matcher_next(m, regex, s, valid, at, &begin, &end));
      if (begin > at) MN_TRY(count_piece(t, s + at, begin - at));
      if (end > begin) MN_TRY(count_piece(t, s + begin, end - begin));
    }
    if (valid < n) valid++; /* a byte that is no UTF-8 is a word of its own */
    s += valid;
    n -= valid;
  }
  return MN_OK;
}

static mn_status count_words(trainer *t, const mn_span *texts, size_t n_texts) {
  mn_regex *regex;
  mn_matcher m = {0};
  const char *pattern = mn_pattern_regex(t->config->pattern);
  MN_TRY(mn_regex_compile("training a tokenizer", pattern, strlen(pattern), false, &regex));
  mn_status status = make_word_table(t, 1 << 12);
  for (size_t i = 0; i < n_texts && status == MN_OK; i++) status = count_text(t, &m, regex, &texts[i]);
  mn_matcher_close(&m);
  mn_regex_free(regex);
  return status;
}

/* ---- tokens: specials, then the bytes in the order of their characters, then merges ---- */

static void note_token(trainer *t, int32_t id) {
  const mn_span *s = &t->tokens[id];
  size_t at = (size_t)mn_splitmix64(mn_hash_bytes(s->data, s->size, 0)) & t->token_mask;
  while (t->token_table[at]) at = (at + 1) & t->token_mask;
  t->token_table[at] = id + 1;
}

static int32_t find_token(const trainer *t, const char *s, size_t n) {
  for (size_t at = (size_t)mn_splitmix64(mn_hash_bytes(s, n, 0)) & t->token_mask; t->token_table[at]; at = (at + 1) & t->token_mask) {
    const mn_span *k = &t->tokens[t->token_table[at] - 1];
    if (k->size == n && !memcmp(k->data, s, n)) return t->token_table[at] - 1;
  }
  return -1;
}

static mn_status first_tokens(trainer *t) {
  static const char *const only[] = {"<|endoftext|>"};
  const mn_tokenizer_train_config *c = t->config;
  const char *const *special = c->special ? c->special : only;
  int n_special = c->special ? c->n_special : 1;
  if (n_special < 0 || c->vocab_size < 256 + n_special || c->vocab_size > 1 << 24)
    return mn_fail(MN_ERR_CONFIG, "training a tokenizer: vocab_size = %d must be in %d ... %d (%d special tokens and 256 bytes)",
                   c->vocab_size, 256 + n_special, 1 << 24, n_special);
  size_t size = 1024;
  while (size < 2 * (size_t)c->vocab_size) size *= 2;
  t->token_mask = size - 1;
  t->token_table = mn_calloc(size, sizeof *t->token_table);
  t->tokens = mn_calloc((size_t)c->vocab_size, sizeof *t->tokens);
  t->special = mn_calloc((size_t)c->vocab_size, sizeof *t->special);
  t->merges = mn_alloc((size_t)c->vocab_size * sizeof *t->merges);
  char *bytes = mn_arena_alloc(t->arena, 256);
  if (!t->token_table || !t->tokens || !t->special || !t->merges || !bytes) return MN_ERR_MEMORY;
  for (int i = 0; i < n_special; i++) {
    if (!special[i] || !*special[i] || mn_utf8_valid(special[i], strlen(special[i])) != strlen(special[i]) ||
        find_token(t, special[i], strlen(special[i])) >= 0)
      return mn_fail(MN_ERR_CONFIG, "training a tokenizer: special token %d is empty, repeated or not UTF-8", i);
    t->special[t->n_tokens] = true;
    t->tokens[t->n_tokens] = (mn_span){special[i], strlen(special[i])};
    note_token(t, t->n_tokens++);
  }
  for (unsigned c32 = 0; c32 < 256 + 68; c32++) {
    int b = mn_char_to_byte(c32);
    if (b < 0) continue;
    bytes[b] = (char)b;
    t->tokens[t->n_tokens] = (mn_span){&bytes[b], 1};
    note_token(t, t->n_tokens++);
  }
  return MN_OK;
}

/* ---- pairs ---- */

static mn_status grow_pair_table(trainer *t) {
  size_t size = t->pair_mask ? (t->pair_mask + 1) * 2 : 1 << 14;
  uint32_t *table = mn_calloc(size, sizeof *table);
  if (!table) return MN_ERR_MEMORY;
  for (size_t i = 0; i < t->n_pairs; i++) {
    uint64_t key = (uint64_t)(uint32_t)t->pairs[i].left << 32 | (uint32_t)t->pairs[i].right;
    size_t at = (size_t)mn_splitmix64(key) & (size - 1);
    while (table[at]) at = (at + 1) & (size - 1);
    table[at] = (uint32_t)i + 1;
  }
  free(t->pair_table);
  t->pair_table = table;
  t->pair_mask = size - 1;
  return MN_OK;
}

static mn_status find_pair(trainer *t, int32_t left, int32_t right, uint32_t *index) {
  if (2 * t->n_pairs >= t->pair_mask) MN_TRY(grow_pair_table(t));
  uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
  size_t at = (size_t)mn_splitmix64(key) & t->pair_mask;
  for (; t->pair_table[at]; at = (at + 1) & t->pair_mask) {
    const pair *p = &t->pairs[t->pair_table[at] - 1];
    if (p->left == left && p->right == right) {
      *index = t->pair_table[at] - 1;
      return MN_OK;
    }
  }
  MN_TRY(grow((void **)&t->pairs, &t->cap_pairs, t->n_pairs, sizeof *t->pairs));
  t->pairs[t->n_pairs] = (pair){.left = left, .right = right};
  t->pair_table[at] = (uint32_t)++t->n_pairs;
  *index = (uint32_t)t->n_pairs - 1;
  return MN_OK;
}

/* `change` more occurrences of a pair in word w. */
static mn_status change_pair(trainer *t, int32_t left, int32_t right, int64_t change, int32_t w, uint32_t *index) {
  MN_TRY(find_pair(t, left, right, index));
  pair *p = &t->pairs[*index];
  p->count += change;
  if (change < 0 || (p->n_words && p->words[p->n_words - 1] == w)) return MN_OK;
  if (p->n_words == p->cap) {
    uint32_t cap = p->cap + p->cap / 2 + 4;
    int32_t *words = mn_realloc(p->words, cap * sizeof *words);
    if (!words) return MN_ERR_MEMORY;
    p->words = words;
    p->cap = cap;
  }
  p->words[p->n_words++] = w;
  return MN_OK;
}

/* Higher counts first, then smaller ids. */
static bool comes_first(const entry *a, const entry *b) {
  if (a->count != b->count) return a->count > b->count;
  return a->left != b->left ? a->left < b->left : a->right < b->right;
}

static mn_status push(trainer *t, uint32_t index) {
  const pair *p = &t->pairs[index];
  if (p->count <= 0) return MN_OK;
  MN_TRY(grow((void **)&t->heap, &t->cap_heap, t->n_heap, sizeof *t->heap));
  entry e = {p->count, p->left, p->right, index};
  size_t i = t->n_heap++;
  for (; i > 0 && comes_first(&e, &t->heap[(i - 1) / 2]); i = (i - 1) / 2) t->heap[i] = t->heap[(i - 1) / 2];
  t->heap[i] = e;
  return MN_OK;
}

static entry pop(trainer *t) {
  entry top = t->heap[0], last = t->heap[--t->n_heap];
  size_t i = 0, child;
  while ((child = 2 * i + 1) < t->n_heap) {
    if (child + 1 < t->n_heap && comes_first(&t->heap[child + 1], &t->heap[child])) child++;
    if (!comes_first(&t->heap[child], &last)) break;
    t->heap[i] = t->heap[child];
    i = child;
  }
  t->heap[i] = last;
  return top;
}

static mn_status first_pairs(trainer *t) {
  int32_t byte_id[256];
  for (int b = 0; b < 256; b++) byte_id[b] = find_token(t, (char[]){(char)b}, 1);
  for (size_t w = 0; w < t->n_words; w++) {
    if (w % CHECK_EVERY == 0) MN_TRY(mn_stop_check("training a tokenizer"));
    word *x = &t->words[w];
    x->n = (int32_t)x->size;
    if (!(x->ids = mn_arena_alloc(t->arena, x->size * sizeof *x->ids))) return MN_ERR_MEMORY;
    for (size_t i = 0; i < x->size; i++) x->ids[i] = byte_id[(unsigned char)x->text[i]];
    uint32_t index;
    for (size_t i = 0; i + 1 < x->size; i++) MN_TRY(change_pair(t, x->ids[i], x->ids[i + 1], x->count, (int32_t)w, &index));
  }
  for (size_t i = 0; i < t->n_pairs; i++) MN_TRY(push(t, (uint32_t)i));
  return MN_OK;
}

static mn_status note_fresh(trainer *t, uint32_t index, mn_ids *fresh) {
  if (t->pairs[index].fresh) return MN_OK;
  t->pairs[index].fresh = true;
  return mn_ids_add(fresh, (int32_t)index);
}

/* Replaces (left, right) by id in one word, left to right. Pairs that arise are noted in `fresh` for the heap. */
static mn_status merge_word(trainer *t, int32_t w, int32_t left, int32_t right, int32_t id, mn_ids *fresh) {
  word *x = &t->words[w];
  int32_t out = 0;
  uint32_t index;
  for (int32_t i = 0; i < x->n;) {
    if (i + 1 >= x->n || x->ids[i] != left || x->ids[i + 1] != right) {
      x->ids[out++] = x->ids[i++];
      continue;
    }
    if (out > 0) {
      MN_TRY(change_pair(t, x->ids[out - 1], left, -x->count, w, &index));
      MN_TRY(change_pair(t, x->ids[out - 1], id, x->count, w, &index));
      MN_TRY(note_fresh(t, index, fresh));
    }
    if (i + 2 < x->n) {
      MN_TRY(change_pair(t, right, x->ids[i + 2], -x->count, w, &index));
      MN_TRY(change_pair(t, id, x->ids[i + 2], x->count, w, &index));
      MN_TRY(note_fresh(t, index, fresh));
    }
    x->ids[out++] = id;
    i += 2;
  }
  x->n = out;
  return MN_OK;
}

static int by_index(const void *a, const void *b) {
  int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
  return (x > y) - (x < y);
}

static mn_status merge_pair(trainer *t, uint32_t index, mn_ids *fresh) {
  int32_t left = t->pairs[index].left, right = t->pairs[index].right;
  size_t n = t->tokens[left].size + t->tokens[right].size;
  char *bytes = mn_arena_alloc(t->arena, n);
  if (!bytes) return MN_ERR_MEMORY;
  memcpy(bytes, t->tokens[left].data, t->tokens[left].size);
  memcpy(bytes + t->tokens[left].size, t->tokens[right].data, t->tokens[right].size);
  int32_t id = find_token(t, bytes, n);
  if (id < 0) {
    id = t->n_tokens++;
    t->tokens[id] = (mn_span){bytes, n};
    note_token(t, id);
  }
  t->merges[t->n_merges][0] = left;
  t->merges[t->n_merges++][1] = right;

  int32_t *words = t->pairs[index].words; /* merging may add pairs and move the table, not this list */
  uint32_t n_words = t->pairs[index].n_words;
  t->pairs[index].words = NULL;
  t->pairs[index].n_words = t->pairs[index].cap = 0;
  qsort(words, n_words, sizeof *words, by_index);
  mn_status status = MN_OK;
  for (uint32_t i = 0; i < n_words && status == MN_OK; i++) {
    if (i == 0 || words[i] != words[i - 1]) status = merge_word(t, words[i], left, right, id, fresh);
    if (status == MN_OK && i % CHECK_EVERY == 0) status = mn_stop_check("training a tokenizer");
  }
  free(words);
  MN_TRY(status);
  t->pairs[index].count = 0;
  qsort(fresh->data, fresh->len, sizeof *fresh->data, by_index);
  for (size_t i = 0; i < fresh->len; i++) {
    t->pairs[fresh->data[i]].fresh = false;
    MN_TRY(push(t, (uint32_t)fresh->data[i]));
  }
  fresh->len = 0;
  return MN_OK;
}

static mn_status learn_merges(trainer *t) {
  const mn_tokenizer_train_config *c = t->config;
  int64_t least = c->min_frequency > 1 ? c->min_frequency : 1;
  mn_ids fresh = {0};
  mn_status status = MN_OK;
  int32_t first = t->n_tokens;
  /* a merge whose token existed already adds no token, so merges are bounded on their own */
  while (status == MN_OK && t->n_tokens < c->vocab_size && t->n_merges < (size_t)c->vocab_size && t->n_heap) {
    entry top = pop(t);
    const pair *p = &t->pairs[top.pair];
    if (p->count != top.count) {
      status = push(t, top.pair);
      continue;
    }
    if (top.count < least) break;
    status = merge_pair(t, top.pair, &fresh);
    if (status == MN_OK && !mn_watch_tell(c->watch, mn_progress_vocabulary, t->n_tokens - first, c->vocab_size - first))
      status = mn_fail(MN_ERR_CANCELLED, "training a tokenizer: interrupted after %d merges", (int)t->n_merges);
  }
  mn_ids_free(&fresh);
  return status;
}

static mn_status write_result(const trainer *t, mn_tokenizer **out) {
  mn_text json = {0};
  bpe_spec spec = {.n_tokens = t->n_tokens,
                   .tokens = t->tokens,
                   .special = t->special,
                   .merges = (const int32_t(*)[2])t->merges,
                   .n_merges = t->n_merges,
                   .regex = mn_pattern_regex(t->config->pattern)};
  mn_status status = mn_tokenizer_write_json(&spec, &json);
  if (status == MN_OK) status = mn_tokenizer_parse("trained tokenizer", json.data, json.len, out);
  mn_text_free(&json);
  return status;
}

mn_status mn_tokenizer_train(const mn_tokenizer_train_config *config, const mn_span *texts, size_t n_texts, mn_tokenizer **out) {
  *out = NULL;
  trainer t = {.config = config, .arena = mn_arena_new()};
  mn_status status = t.arena ? first_tokens(&t) : MN_ERR_MEMORY;
  if (status == MN_OK) status = count_words(&t, texts, n_texts);
  if (status == MN_OK) status = grow_pair_table(&t);
  if (status == MN_OK) status = first_pairs(&t);
  if (status == MN_OK) status = learn_merges(&t);
  if (status == MN_OK) status = write_result(&t, out);
  for (size_t i = 0; i < t.n_pairs; i++) free(t.pairs[i].words);
  free(t.words);
  free(t.word_table);
  free(t.pairs);
  free(t.pair_table);
  free(t.heap);
  free(t.tokens);
  free(t.special);
  free(t.token_table);
  free(t.merges);
  if (t.arena) mn_arena_free(t.arena);
  return status;
}
