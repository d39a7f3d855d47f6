/* tokenizer.c - the vocabulary: bytes and their printable code, tokens by id and by key, what is known of them. */
#include "format/tokenizer_internal.h"

#include "base/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- bytes as characters: the printable Latin-1 bytes are themselves, the other 68 are U+0100 and up, in order ----
 */

static bool is_printable(unsigned b) { return (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || (b >= 174 && b <= 255); }

unsigned mn_byte_to_char(unsigned char byte) {
  if (is_printable(byte)) return byte;
  unsigned rank = 0; /* among the bytes that are not printable */
  for (unsigned b = 0; b < byte; b++) rank += !is_printable(b);
  return 256 + rank;
}

int mn_char_to_byte(unsigned c) {
  if (c < 256) return is_printable(c) ? (int)c : -1;
  unsigned rank = c - 256;
  if (rank <= 32) return (int)rank;
  if (rank < 67) return (int)(127 + rank - 33);
  return rank == 67 ? 173 : -1;
}

int mn_fallback_byte(const char *key, size_t n) {
  if (n != 6 || memcmp(key, "<0x", 3) != 0 || key[5] != '>') return -1;
  int byte = 0;
  for (int i = 3; i < 5; i++) {
    char c = key[i];
    if (c >= '0' && c <= '9') byte = byte << 4 | (c - '0');
    else if (c >= 'A' && c <= 'F') byte = byte << 4 | (c - 'A' + 10);
    else return -1;
  }
  return byte;
}

/* ---- making ---- */

mn_tokenizer *mn_tokenizer_blank(void) {
  mn_tokenizer *tok = mn_calloc(1, sizeof *tok);
  if (!tok) return NULL;
  pthread_mutex_init(&tok->source_lock, NULL);
  tok->unk = tok->bos = -1;
  tok->eos = -2;
  for (int b = 0; b < 256; b++) tok->byte_id[b] = -1;
  if ((tok->arena = mn_arena_new())) return tok;
  mn_tokenizer_free(tok);
  return NULL;
}

static mn_status empty_table(void **table, size_t size, size_t *mask, size_t n, int fill) {
  size_t slots = 16;
  while (slots < 2 * n) slots *= 2;
  if (!(*table = mn_alloc(slots * size))) return MN_ERR_MEMORY;
  memset(*table, fill, slots * size);
  *mask = slots - 1;
  return MN_OK;
}

mn_status mn_vocab_table(mn_tokenizer *tok, size_t n) {
  return empty_table((void **)&tok->by_key, sizeof *tok->by_key, &tok->by_key_mask, n, 0xFF);
}

static inline size_t key_slot(const mn_tokenizer *tok, const char *key, size_t n) {
  return (size_t)mn_splitmix64(mn_hash_bytes(key, n, 0)) & tok->by_key_mask;
}

void mn_vocab_enter(mn_tokenizer *tok, int32_t id) {
  const token *t = &tok->tokens[id];
  size_t at = key_slot(tok, t->key, t->key_n);
  for (int32_t there; (there = tok->by_key[at]) >= 0; at = (at + 1) & tok->by_key_mask)
    if (tok->tokens[there].key_n == t->key_n && !memcmp(tok->tokens[there].key, t->key, t->key_n)) break; /* the later one counts */
  tok->by_key[at] = id;
  if (t->key_n > tok->longest_key) tok->longest_key = t->key_n;
}

int32_t mn_vocab_find(const mn_tokenizer *tok, const char *key, size_t n) {
  for (size_t i = key_slot(tok, key, n);; i = (i + 1) & tok->by_key_mask) {
    int32_t id = tok->by_key[i];
    if (id < 0) return -1;
    if (tok->tokens[id].key_n == n && !memcmp(tok->tokens[id].key, key, n)) return id;
  }
}

mn_status mn_merge_table(mn_tokenizer *tok, size_t n) {
  return empty_table((void **)&tok->merges, sizeof *tok->merges, &tok->merges_mask, n, 0xFF);
}

void mn_merge_enter(mn_tokenizer *tok, int32_t left, int32_t right, uint32_t rank, int32_t id) {
  uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
  size_t at = (size_t)mn_splitmix64(key) & tok->merges_mask;
  while (tok->merges[at].key != UINT64_MAX && tok->merges[at].key != key) at = (at + 1) & tok->merges_mask;
  if (tok->merges[at].key == key) return;
  tok->merges[at] = (merge){key, rank, id};
  tok->n_merges++;
}

/* Two neighbouring characters that stand in no token are never merged and never spelled by one: a piece may be cut there. */
mn_status mn_pairs_make(mn_tokenizer *tok) {
  if (!(tok->pairs = mn_calloc((1u << 21) / 64, sizeof *tok->pairs))) return MN_ERR_MEMORY;
  for (int32_t id = 0; id < tok->n_ids; id++) {
    const token *t = &tok->tokens[id];
    if (!(t->flags & TOKEN_EXISTS) || !t->key_n || mn_utf8_valid(t->key, t->key_n) != t->key_n) continue;
    size_t len;
    uint32_t left = mn_utf8_next(t->key, t->key_n, &len);
    for (size_t i = len; i < t->key_n; i += len) {
      uint32_t right = mn_utf8_next(t->key + i, t->key_n - i, &len);
      uint64_t bit = mn_pair_bit(left, right);
      tok->pairs[bit >> 6] |= 1ull << (bit & 63);
      left = right;
    }
  }
  return MN_OK;
}

static _Thread_local const float *sort_scores; /* qsort takes no context */
static int best_first(const void *a, const void *b) {
  float x = sort_scores[*(const int32_t *)a], y = sort_scores[*(const int32_t *)b];
  return (x < y) - (x > y);
}

/* Equal scores are equal ranks: among pairs of such the left one is merged first. */
mn_status mn_scores_set(mn_tokenizer *tok, const float *score) {
  int32_t n = tok->n_ids, *order = mn_alloc((size_t)n * sizeof *order);
  tok->rank = mn_alloc((size_t)n * sizeof *tok->rank);
  tok->score = mn_alloc((size_t)n * sizeof *tok->score);
  if (!order || !tok->rank || !tok->score) {
    free(order);
    return MN_ERR_MEMORY;
  }
  for (int32_t id = 0; id < n; id++) {
    order[id] = id;
    tok->score[id] = score[id];
  }
  sort_scores = score;
  qsort(order, (size_t)n, sizeof *order, best_first);
  for (int32_t i = 0; i < n; i++) tok->rank[order[i]] = i && score[order[i]] == score[order[i - 1]] ? tok->rank[order[i - 1]] : (uint32_t)i;
  free(order);
  return MN_OK;
}

/* Tokens that are looked for in normalised text come after the others, and stand for what their content becomes. */
static mn_status find_added(mn_tokenizer *tok) {
  mn_norm_work work = {0};
  mn_status status = MN_OK;
  for (int i = 0; i < tok->n_added && status == MN_OK; i++) {
    int32_t id = tok->added[i];
    const token *t = &tok->tokens[id];
    const char *s = t->key;
    size_t n = t->key_n;
    if (!(t->flags & TOKEN_NORMALIZED)) {
      tok->added_first[(unsigned char)*s] = true;
      status = mn_trie_add(&tok->added_raw, s, n, id);
      continue;
    }
    if (tok->n_norms && !tok->normal && !(tok->normal = mn_calloc((size_t)tok->n_ids, sizeof *tok->normal))) status = MN_ERR_MEMORY;
    if (status == MN_OK) status = mn_normalize(tok, &work, s, n, true, true, &s, &n);
    if (status == MN_OK && n) status = mn_trie_add(&tok->added_normalized, s, n, id);
    if (status != MN_OK || !tok->normal) continue;
    char *copy = mn_arena_alloc(tok->arena, n + 1);
    if (copy) memcpy(copy, s, n);
    else status = MN_ERR_MEMORY;
    tok->normal[id] = copy;
  }
  mn_norm_work_free(&work);
  return status;
}

static mn_status decoded_bytes(mn_tokenizer *tok) {
  mn_text text = {0};
  mn_status status = MN_OK;
  for (int32_t id = 0; id < tok->n_ids && status == MN_OK; id++) {
    token *t = &tok->tokens[id];
    if (!(t->flags & TOKEN_EXISTS)) continue;
    text.len = 0;
    status = mn_decode_token(tok, id, false, false, &text);
    if (status == MN_OK) status = mn_text_status(&text);
    if (status != MN_OK || (text.len == t->key_n && (!text.len || !memcmp(text.data, t->key, text.len)))) continue;
    char *bytes = mn_arena_alloc(tok->arena, text.len + 1);
    if (!bytes) status = MN_ERR_MEMORY;
    else if (text.len) memcpy(bytes, text.data, text.len);
    t->bytes = bytes;
    t->n = (uint32_t)text.len;
  }
  mn_text_free(&text);
  return status;
}

static mn_status unigram_tables(mn_tokenizer *tok) {
  double least = 0;
  bool any = false;
  for (int32_t id = 0; id < tok->n_ids; id++) {
    const token *t = &tok->tokens[id];
    if (!(t->flags & TOKEN_EXISTS) || !t->key_n || tok->score[id] > 1e300) continue; /* added ones have none */
    if (!any || tok->score[id] < least) least = tok->score[id];
    any = true;
    MN_TRY(mn_trie_add(&tok->trie, t->key, t->key_n, mn_vocab_find(tok, t->key, t->key_n)));
  }
  tok->unk_score = least - 10;
  return tok->trie.cap ? MN_OK : mn_trie_add(&tok->trie, "\xFF", 1, -1);
}

/* Those that text may become. */
static mn_status longest_table(mn_tokenizer *tok) {
  for (int32_t id = 0; id < tok->n_ids; id++) {
    const token *t = &tok->tokens[id];
    if (!(t->flags & TOKEN_EXISTS) || (t->flags & (TOKEN_ADDED | TOKEN_RAW)) || !t->key_n) continue;
    MN_TRY(mn_trie_add(&tok->trie, t->key, t->key_n, id));
  }
  for (int b = 0; b < 256; b++)
    if (mn_trie_find(&tok->trie, (char[]){(char)b}, 1) < 0)
      return mn_fail(MN_ERR_FORMAT, "%s: the vocabulary has no token for byte 0x%02X; one whose longest token is taken needs all",
                     tok->name, b);
  return MN_OK;
}

static int32_t special_named(const mn_tokenizer *tok, const char *name) {
  for (int i = 0; i < tok->n_added; i++) {
    const token *t = &tok->tokens[tok->added[i]];
    if ((t->flags & TOKEN_SPECIAL) && t->key_n == strlen(name) && !memcmp(t->key, name, t->key_n)) return tok->added[i];
  }
  return -1;
}

/* Tokens after which a model has ended its answer: what the file names stands there already. */
static void find_ends(mn_tokenizer *tok) {
  int32_t eos = mn_tokenizer_eos(tok);
  bool channels =
      special_named(tok, "<|return|>") >= 0 && special_named(tok, "<|call|>") >= 0; /* there <|end|> ends a message of several */
  if (eos >= 0 && !mn_tokenizer_is_end(tok, eos)) tok->ends[tok->n_ends++] = eos;
  for (const mn_token_name *k = mn_token_names; k->name && tok->n_ends < MAX_ENDS; k++) {
    if (!(k->is & MN_NAME_ENDS) || (channels && !strcmp(k->name, "<|end|>"))) continue;
    const int32_t id = special_named(tok, k->name);
    if (id >= 0 && !mn_tokenizer_is_end(tok, id)) tok->ends[tok->n_ends++] = id;
  }
}

mn_status mn_tokenizer_complete(mn_tokenizer *tok, const char *name) {
  if (tok->n_ids == 0) return mn_fail(MN_ERR_FORMAT, "%s: the vocabulary has no token", name);
  if (!(tok->name = mn_arena_strdup(tok->arena, name))) return MN_ERR_MEMORY;
  if (!tok->byte_level)
    for (int b = 0; b < 256 && tok->byte_fallback; b++) {
      char key[8];
      snprintf(key, sizeof key, "<0x%02X>", b);
      tok->byte_id[b] = mn_vocab_find(tok, key, 6);
    }
  for (int i = 0; i < tok->n_decode; i++) tok->decode_first |= tok->decode[i].kind == DECODE_WORDPIECE || tok->decode[i].skip_first;
  tok->decode_first |= tok->join_by_space;
  MN_TRY(find_added(tok));
  if (tok->n_decode || tok->join_by_space || tok->normal) MN_TRY(decoded_bytes(tok));
  if (tok->model == MODEL_UNIGRAM) MN_TRY(unigram_tables(tok));
  if (tok->model == MODEL_WORDPIECE && tok->byte_level) MN_TRY(longest_table(tok));
  /* Where nothing stands for what no token spells, it vanishes, and its neighbours meet. */
  bool all_spelled = tok->unk >= 0 || tok->rank;
  if (tok->model == MODEL_BPE && !tok->byte_level && !tok->prefix && !tok->suffix && all_spelled) MN_TRY(mn_pairs_make(tok));
  if (!tok->ends_given) find_ends(tok);
  return MN_OK;
}

/* ---- asking ---- */

static bool exists(const mn_tokenizer *tok, int32_t id) { return id >= 0 && id < tok->n_ids && (tok->tokens[id].flags & TOKEN_EXISTS); }

void mn_tokenizer_warn_of_cuts(const mn_tokenizer *tok) {
  if (!tok->cuts) return;
  mn_log_write(MN_LOG_WARN, "%s: 'truncation' cuts texts after %lld tokens where other programs heed it, and here they stay whole",
               tok->name, (long long)tok->cuts);
}

int32_t mn_tokenizer_vocab_size(const mn_tokenizer *tok) { return tok->n_ids; }

bool mn_tokenizer_is_bytes(const mn_tokenizer *tok) { return tok->byte_level && tok->model == MODEL_BPE && tok->n_merges == 0; }

bool mn_tokenizer_is_special(const mn_tokenizer *tok, int32_t id) { return exists(tok, id) && (tok->tokens[id].flags & TOKEN_SPECIAL); }

void mn_tokenizer_silence(mn_tokenizer *tok, const int32_t *ids, size_t n) {
  for (size_t i = 0; i < n; i++)
    if (exists(tok, ids[i])) tok->tokens[ids[i]].flags |= TOKEN_SILENT;
}

bool mn_tokenizer_says(const mn_tokenizer *tok, int32_t id) { return exists(tok, id) && !(tok->tokens[id].flags & TOKEN_SILENT); }

const char *mn_tokenizer_token(const mn_tokenizer *tok, int32_t id, size_t *n) {
  *n = 0;
  if (!exists(tok, id)) return NULL;
  *n = tok->tokens[id].n;
  return tok->tokens[id].bytes;
}

int32_t mn_tokenizer_find(const mn_tokenizer *tok, const char *content) {
  size_t n = strlen(content);
  for (int i = 0; i < tok->n_added; i++) {
    const token *t = &tok->tokens[tok->added[i]];
    if (t->key_n == n && !memcmp(t->key, content, n)) return tok->added[i];
  }
  return mn_vocab_find(tok, content, n);
}

int32_t mn_tokenizer_eos(const mn_tokenizer *tok) {
  static const char *const names[] = {"<|endoftext|>", "<|end_of_text|>",       "</s>",      "<eos>", "<|eos|>",
                                      "[EOS]",         "<｜end▁of▁sentence｜>", "<|im_end|>"};
  for (size_t i = 0; tok->eos == -2 && i < sizeof names / sizeof *names; i++)
    if (special_named(tok, names[i]) >= 0) return special_named(tok, names[i]);
  return tok->eos == -2 ? -1 : tok->eos;
}

int32_t mn_tokenizer_bos(const mn_tokenizer *tok) { return tok->bos >= 0 ? tok->bos : tok->n_before ? tok->before[0] : -1; }

bool mn_tokenizer_adds_bos(const mn_tokenizer *tok) { return tok->n_before && tok->before[0] == mn_tokenizer_bos(tok); }

size_t mn_tokenizer_ends(const mn_tokenizer *tok, const int32_t **ids) {
  *ids = tok->ends;
  return (size_t)tok->n_ends;
}

bool mn_tokenizer_is_end(const mn_tokenizer *tok, int32_t id) {
  for (int i = 0; i < tok->n_ends; i++)
    if (tok->ends[i] == id) return true;
  return false;
}

mn_status mn_tokenizer_set_ends(mn_tokenizer *tok, const int32_t *ids, size_t n) {
  if (n > MAX_ENDS) return mn_fail(MN_ERR_ARG, "%zu tokens that end an answer are too many; at most %d", n, MAX_ENDS);
  for (size_t i = 0; i < n; i++)
    if (!exists(tok, ids[i]))
      return mn_fail(MN_ERR_FORMAT, "token %d is said to end an answer, but the vocabulary has no such token", ids[i]);
  tok->n_ends = 0;
  tok->ends_given = true;
  for (size_t i = 0; i < n; i++) tok->ends[tok->n_ends++] = ids[i];
  if (n) tok->eos = ids[0];
  return MN_OK;
}

/* The text of a tokenizer that came as one is there; that of another is written when it is first asked for. */
static mn_status source_of(const mn_tokenizer *shared) {
  mn_tokenizer *tok = (mn_tokenizer *)shared;
  mn_status status = MN_OK;
  pthread_mutex_lock(&tok->source_lock);
  if (!tok->source) {
    mn_text text = {0};
    status = mn_tokenizer_write(tok, &text);
    tok->source_len = text.len;
    if (status == MN_OK) tok->source = mn_text_take(&text);
    mn_text_free(&text);
  }
  pthread_mutex_unlock(&tok->source_lock);
  return status;
}

const char *mn_tokenizer_json(const mn_tokenizer *tok, size_t *n) {
  bool there = source_of(tok) == MN_OK;
  *n = there ? tok->source_len : 0;
  return there ? tok->source : "";
}

void mn_tokenizer_hash(const mn_tokenizer *tok, char hex[33]) {
  size_t n;
  const char *json = mn_tokenizer_json(tok, &n);
  mn_content_hash(json, n, hex);
}

mn_status mn_tokenizer_save(const mn_tokenizer *tok, const char *path) { return mn_tokenizer_save_over(tok, path, NULL); }

mn_status mn_tokenizer_save_over(const mn_tokenizer *tok, const char *path, mn_file_stamp *stamp) {
  MN_TRY(source_of(tok));
  return mn_file_write_over(path, tok->source, tok->source_len, stamp);
}

void mn_tokenizer_free(mn_tokenizer *tok) {
  if (!tok) return;
  for (int i = 0; i < tok->n_steps; i++) mn_regex_free(tok->steps[i].regex);
  for (int i = 0; i < tok->n_norms; i++) mn_regex_free(tok->norms[i].regex);
  for (int i = 0; i < tok->n_decode; i++) mn_regex_free(tok->decode[i].regex);
  if (tok->arena) mn_arena_free(tok->arena);
  pthread_mutex_destroy(&tok->source_lock);
  mn_trie_free(&tok->trie);
  mn_trie_free(&tok->added_raw);
  mn_trie_free(&tok->added_normalized);
  free(tok->source);
  free(tok->tokens);
  free(tok->by_key);
  free(tok->merges);
  free(tok->rank);
  free(tok->pairs);
  free(tok->score);
  free(tok->added);
  free(tok->normal);
  free(tok);
}

mn_status mn_tokenizer_bytes(const char *const *special, int n_special, mn_tokenizer **out) {
  *out = NULL;
  if (n_special < 0 || n_special > 1 << 16) return mn_fail(MN_ERR_ARG, "bytes tokenizer: %d special tokens", n_special);
  char bytes[256];
  int32_t n = 256 + n_special;
  mn_span *tokens = mn_calloc((size_t)n, sizeof *tokens);
  bool *is_special = mn_calloc((size_t)n, sizeof *is_special);
  mn_status status = tokens && is_special ? MN_OK : MN_ERR_MEMORY;
  for (int32_t i = 0; i < n && status == MN_OK; i++) {
    if (i < 256) bytes[i] = (char)i;
    tokens[i] = i < 256 ? (mn_span){&bytes[i], 1} : (mn_span){special[i - 256], strlen(special[i - 256])};
    is_special[i] = i >= 256;
  }
  mn_text json = {0};
  if (status == MN_OK) status = mn_tokenizer_write_json(&(bpe_spec){.n_tokens = n, .tokens = tokens, .special = is_special}, &json);
  if (status == MN_OK) status = mn_tokenizer_parse("bytes tokenizer", json.data, json.len, out);
  mn_text_free(&json);
  free(tokens);
  free(is_special);
  return status;
}

/* ---- ids ---- */

mn_status mn_ids_add(mn_ids *ids, int32_t id) {
  enum { FLUSH_AT = 1 << 16 };
  if (ids->len == ids->cap) {
    if (ids->flush && ids->len >= FLUSH_AT) {
      MN_TRY(ids->flush(ids->ctx, ids->data, ids->len));
      ids->len = 0;
    } else {
      size_t cap = ids->cap ? ids->cap * 2 : 64;
      int32_t *data = cap > SIZE_MAX / sizeof *data ? NULL : mn_realloc(ids->data, cap * sizeof *data);
      if (!data) return MN_ERR_MEMORY;
      ids->data = data;
      ids->cap = cap;
    }
  }
  ids->data[ids->len++] = id;
  return MN_OK;
}

void mn_ids_free(mn_ids *ids) {
  free(ids->data);
  ids->data = NULL;
  ids->len = ids->cap = 0;
}
