/* tokenizer_gguf_write.c - a tokenizer.json's vocabulary as the metadata of a GGUF file. How text is cut has only a name there: a tokenizer
 * of bytes is written when its patterns are, letter by letter, those of a family; beside those BERT's, SentencePiece's BPE, and RWKV's. */
#include "format/tokenizer_gguf.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "format/json.h"
#include "format/tokenizer_internal.h"

enum { NORMAL = 1, UNKNOWN = 2, CONTROL = 3, USER = 4, UNUSED = 5, BYTE = 6, MOST_PATTERNS = 8, MOST_TOKENS = 1 << 24 };

static bool is_text(const mn_value *map, const char *key, const char *text) {
  const mn_value *v = mn_value_get(map, key);
  return v && v->kind == MN_TEXT && !strcmp(v->as.text, text);
}

static bool is_true(const mn_value *map, const char *key) {
  const mn_value *v = mn_value_get(map, key);
  return v && v->kind == MN_BOOLEAN && v->as.boolean;
}

/* ---- how text is cut ---- */

typedef struct cutting {
  const char *pattern[MOST_PATTERNS + 1];
  int n;
  bool bytes; /* the last step makes characters of bytes */
} cutting;

static bool add_pattern(cutting *c, const char *pattern) {
  if (c->n == MOST_PATTERNS || c->bytes) return false;
  c->pattern[c->n++] = pattern;
  return true;
}

static bool add_step(cutting *c, const mn_value *step) {
  static const char gpt2[] =
      "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"; /* what use_regex means */
  if (is_text(step, "type", "Split")) {
    const mn_value *regex = mn_value_get(mn_value_get(step, "pattern"), "Regex");
    if (!regex || regex->kind != MN_TEXT) return false;
    const size_t n = strlen(regex->as.text);
    const bool all =
        n > 4 && !strcmp(regex->as.text + n - 4, "|\\s+"); /* such a pattern leaves nothing out: to keep matches alone is the same */
    return (is_true(step, "invert") ? all && is_text(step, "behavior", "Removed") : is_text(step, "behavior", "Isolated")) &&
           add_pattern(c, regex->as.text);
  }
  if (is_text(step, "type", "Digits")) return is_true(step, "individual_digits") && add_pattern(c, "\\p{N}");
  if (!is_text(step, "type", "ByteLevel") || is_true(step, "add_prefix_space")) return false;
  const mn_value *regex = mn_value_get(step, "use_regex");
  if ((!regex || is_true(step, "use_regex")) && !add_pattern(c, gpt2)) return false;
  c->bytes = true;
  return true;
}

static bool cutting_of(const mn_value *pre, cutting *c) {
  const mn_value *list = is_text(pre, "type", "Sequence") ? mn_value_get(pre, "pretokenizers") : NULL;
  if (!list) return add_step(c, pre) && c->bytes;
  for (size_t i = 0; list->kind == MN_LIST && i < list->count; i++)
    if (!add_step(c, list->as.items[i])) return false;
  return c->bytes;
}

static const char *family_of(const cutting *c, bool ignore_merges) {
  static const char *const names[] = {"llama-bpe",
                                      "qwen2",
                                      "gpt-2",
                                      "smollm",
                                      "dbrx",
                                      "glm4",
                                      "gpt-4o",
                                      "tekken",
                                      "falcon",
                                      "deepseek-llm",
                                      "deepseek-v3",
                                      "seed-coder",
                                      "bloom",
                                      "viking",
                                      "bailingmoe",
                                      "starcoder",
                                      "qwen35",
                                      "default",
                                      "deepseek-coder",
                                      "minicpm5",
                                      "jais-2",
                                      "ufakzeka",
                                      "laguna",
                                      "exaone-moe",
                                      "tiny_aya",
                                      "youtu",
                                      "superbpe",
                                      "chameleon",
                                      "granite-embed-multi-97m",
                                      "kimi-k2",
                                      "afmoe",
                                      "spark2_5"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    mn_family f;
    int k = 0;
    if (!mn_family_find(names[i], &f) || f.characters || f.ignore_merges != ignore_merges) continue;
    while (k < c->n && f.patterns[k] && !strcmp(f.patterns[k], c->pattern[k])) k++;
    if (k == c->n && !f.patterns[k]) return names[i];
  }
  return NULL;
}

/* ---- tokens ---- */

typedef struct lists {
  mn_arena *arena;
  mn_gguf_bytes *token, *merge;
  int32_t *kind;
  size_t n, n_merges;
  bool behind; /* merged tokens are behind the model's rows */
} lists;

static mn_status put_token(lists *l, const mn_value *id, const char *text, int kind) {
  if (!id || id->kind != MN_INTEGER || id->as.integer < 0)
    return mn_fail(MN_ERR_FORMAT, "tokenizer.json: the token '%.60s' has no id", text);
  if ((size_t)id->as.integer >= l->n) {
    l->behind = l->behind || kind == NORMAL;
    return MN_OK;
  }
  l->token[id->as.integer] = (mn_gguf_bytes){text, strlen(text)};
  l->kind[id->as.integer] = kind;
  return MN_OK;
}

static mn_status read_tokens(lists *l, const mn_value *root, size_t n) {
  const mn_value *vocab = mn_value_get(mn_value_get(root, "model"), "vocab"), *added = mn_value_get(root, "added_tokens");
  l->n = n;
  l->token = mn_arena_alloc(l->arena, (n + 1) * sizeof *l->token);
  l->kind = mn_arena_alloc(l->arena, (n + 1) * sizeof *l->kind);
  if (!l->token || !l->kind) return MN_ERR_MEMORY;
  for (size_t i = 0; vocab && vocab->kind == MN_MAP && i < vocab->count; i++)
    MN_TRY(put_token(l, vocab->as.entries[i].value, vocab->as.entries[i].key, NORMAL));
  for (size_t i = 0; added && added->kind == MN_LIST && i < added->count; i++) {
    const mn_value *t = added->as.items[i], *content = mn_value_get(t, "content");
    if (content && content->kind == MN_TEXT)
      MN_TRY(put_token(l, mn_value_get(t, "id"), content->as.text, is_true(t, "special") ? CONTROL : USER));
  }
  for (size_t i = 0; i < n; i++) {
    if (l->kind[i]) continue;
    const char *name = mn_arena_format(l->arena, "[PAD%zu]", i); /* a hole among the ids, or a row behind them */
    if (!name) return MN_ERR_MEMORY;
    l->token[i] = (mn_gguf_bytes){name, strlen(name)};
    l->kind[i] = UNUSED;
  }
  return MN_OK;
}

/* "a b", or the two as a list. */
static mn_status read_merges(lists *l, const mn_value *merges) {
  l->n_merges = merges && merges->kind == MN_LIST ? merges->count : 0;
  l->merge = mn_arena_alloc(l->arena, (l->n_merges + 1) * sizeof *l->merge);
  if (!l->merge) return MN_ERR_MEMORY;
  for (size_t i = 0; i < l->n_merges; i++) {
    const mn_value *m = merges->as.items[i];
    const char *text = m->kind == MN_TEXT ? m->as.text : NULL;
    if (m->kind == MN_LIST && m->count == 2 && m->as.items[0]->kind == MN_TEXT && m->as.items[1]->kind == MN_TEXT &&
        !(text = mn_arena_format(l->arena, "%s %s", m->as.items[0]->as.text, m->as.items[1]->as.text)))
      return MN_ERR_MEMORY;
    if (!text) return mn_fail(MN_ERR_FORMAT, "tokenizer.json: merge %zu is no pair", i);
    l->merge[i] = (mn_gguf_bytes){text, strlen(text)};
  }
  return MN_OK;
}

static mn_status write_lists(const lists *l, const char *family, mn_gguf_writer *w) {
  MN_TRY(mn_gguf_writer_string(w, "tokenizer.ggml.model", "gpt2"));
  MN_TRY(mn_gguf_writer_string(w, "tokenizer.ggml.pre", family));
  MN_TRY(mn_gguf_writer_strings(w, "tokenizer.ggml.tokens", l->token, l->n));
  MN_TRY(mn_gguf_writer_i32s(w, "tokenizer.ggml.token_type", l->kind, l->n));
  return mn_gguf_writer_strings(w, "tokenizer.ggml.merges", l->merge, l->n_merges);
}

/* ---- WordPiece, as BERT cuts text ---- */

static bool is_bert(const mn_value *root) {
  const mn_value *model = mn_value_get(root, "model"), *normalizer = mn_value_get(root, "normalizer");
  return is_text(model, "type", "WordPiece") && is_text(model, "continuing_subword_prefix", "##") &&
         is_text(normalizer, "type", "BertNormalizer") && is_true(normalizer, "clean_text") &&
         is_true(normalizer, "handle_chinese_chars") && is_text(mn_value_get(root, "pre_tokenizer"), "type", "BertPreTokenizer");
}

/* Words begin with a mark there, and what goes on has none. */
static mn_status mark_words(lists *l) {
  for (size_t i = 0; i < l->n; i++) {
    const mn_gguf_bytes t = l->token[i];
    if (l->kind[i] != NORMAL) continue;
    if (t.n > 2 && !memcmp(t.data, "##", 2)) {
      l->token[i] = (mn_gguf_bytes){t.data + 2, t.n - 2};
      continue;
    }
    const char *marked = mn_arena_format(l->arena, "\xE2\x96\x81%s", t.data);
    if (!marked) return MN_ERR_MEMORY;
    l->token[i] = (mn_gguf_bytes){marked, t.n + 3};
  }
  return MN_OK;
}

static mn_status put_id(const mn_tokenizer *tok, const char *text, const char *key, mn_gguf_writer *w) {
  const int32_t id = text ? mn_tokenizer_find(tok, text) : -1;
  return id < 0 ? MN_OK : mn_gguf_writer_u32(w, key, (uint32_t)id);
}

static mn_status write_bert(lists *l, const mn_tokenizer *tok, const mn_value *root, mn_gguf_writer *w) {
  const mn_value *normalizer = mn_value_get(root, "normalizer"), *accents = mn_value_get(normalizer, "strip_accents");
  const mn_value *unk = mn_value_get(mn_value_get(root, "model"), "unk_token");
  const bool lower = is_true(normalizer, "lowercase");
  MN_TRY(mark_words(l));
  MN_TRY(mn_gguf_writer_string(w, "tokenizer.ggml.model", "bert"));
  MN_TRY(mn_gguf_writer_strings(w, "tokenizer.ggml.tokens", l->token, l->n));
  MN_TRY(mn_gguf_writer_i32s(w, "tokenizer.ggml.token_type", l->kind, l->n));
  MN_TRY(mn_gguf_writer_bool(w, "tokenizer.ggml.normalizer.lowercase", lower));
  MN_TRY(mn_gguf_writer_bool(w, "tokenizer.ggml.normalizer.strip_accents",
                             accents && accents->kind == MN_BOOLEAN ? accents->as.boolean : lower));
  MN_TRY(put_id(tok, unk && unk->kind == MN_TEXT ? unk->as.text : NULL, "tokenizer.ggml.unknown_token_id", w));
  MN_TRY(put_id(tok, "[PAD]", "tokenizer.ggml.padding_token_id", w));
  MN_TRY(put_id(tok, "[MASK]", "tokenizer.ggml.mask_token_id", w));
  return mn_gguf_writer_u32(w, "tokenizer.ggml.seperator_token_id", (uint32_t)tok->after[0]); /* the format spells it so */
}

/* ---- SentencePiece's BPE: of two neighbours that spell a piece those of the best score become one ---- */

/* How blanks become marks, and whether a text begins with one; false: otherwise than there. */
static bool marks_blanks(const mn_value *root, bool *add_space) {
  static const char mark[] = "\xE2\x96\x81";
  const mn_value *normalizer = mn_value_get(root, "normalizer"), *pre = mn_value_get(root, "pre_tokenizer");
  const mn_value *list = is_text(normalizer, "type", "Sequence") ? mn_value_get(normalizer, "normalizers") : NULL;
  const size_t n = !normalizer || normalizer->kind == MN_NULL ? 0 : list ? list->count : 1;
  const bool no_pre = !pre || pre->kind == MN_NULL;
  bool marked = false;
  *add_space = false;
  for (size_t i = 0; i < n; i++) {
    const mn_value *step = list ? list->as.items[i] : normalizer;
    if (is_text(step, "type", "Prepend") && is_text(step, "prepend", mark) && !marked) *add_space = true;
    else if (is_text(step, "type", "Replace") && is_text(mn_value_get(step, "pattern"), "String", " ") && is_text(step, "content", mark))
      marked = true;
    else return false;
  }
  if (marked) { /* no blank is left to cut at */
    return no_pre || (is_text(pre, "type", "Split") && is_text(mn_value_get(pre, "pattern"), "String", " "));
  }
  const mn_value *split = mn_value_get(pre, "split"), *replacement = mn_value_get(pre, "replacement");
  if (n || !is_text(pre, "type", "Metaspace") || !split || split->kind != MN_BOOLEAN || split->as.boolean) return false;
  if (replacement && !is_text(pre, "replacement", mark)) return false;
  *add_space = !is_text(pre, "prepend_scheme", "never");
  return true;
}

typedef struct made { /* a piece, and the first and the last of the merges that make it */
  uint32_t first, last;
  int32_t id;
} made;

static int first_made(const void *a, const void *b) {
  const made *x = a, *y = b;
  return (x->first > y->first) - (x->first < y->first);
}

/* Every two pieces that spell a third must be a merge, for there they are merged whether they are or not. */
static bool all_are_merged(const mn_tokenizer *tok) {
  for (int32_t id = 0; id < tok->n_ids; id++) {
    const token *t = &tok->tokens[id];
    if (!(t->flags & TOKEN_EXISTS) || (t->flags & TOKEN_ADDED) || mn_fallback_byte(t->key, t->key_n) >= 0) continue;
    for (uint32_t cut = 1; cut < t->key_n; cut++) {
      if (((unsigned char)t->key[cut] & 0xC0) == 0x80) continue;
      const int32_t left = mn_vocab_find(tok, t->key, cut), right = left < 0 ? -1 : mn_vocab_find(tok, t->key + cut, t->key_n - cut);
      if (right >= 0 && !mn_merge_find(tok, left, right)) return false;
    }
  }
  return true;
}

/* Scores in the order of merges: pieces whose merges come mixed have one score, as it was before they were made a list. */
static mn_status scores_of_merges(const mn_tokenizer *tok, mn_arena *arena, float *score, size_t n) {
  made *piece = mn_arena_alloc(arena, (size_t)tok->n_ids * sizeof *piece);
  if (!piece) return MN_ERR_MEMORY;
  for (int32_t id = 0; id < tok->n_ids; id++) piece[id] = (made){UINT32_MAX, 0, id};
  for (size_t i = 0; tok->merges && i <= tok->merges_mask; i++) {
    const merge *m = &tok->merges[i];
    if (m->key == UINT64_MAX) continue;
    if (m->rank < piece[m->id].first) piece[m->id].first = m->rank;
    if (m->rank > piece[m->id].last) piece[m->id].last = m->rank;
  }
  qsort(piece, (size_t)tok->n_ids, sizeof *piece, first_made);
  uint32_t last = 0;
  float next = 0;
  for (int32_t i = 0; i < tok->n_ids; i++) {
    if (i && piece[i].first > last) next--;
    if (piece[i].first != UINT32_MAX && piece[i].last > last) last = piece[i].last;
    if ((size_t)piece[i].id < n) score[piece[i].id] = next;
  }
  return MN_OK;
}

static bool is_pieces(const mn_tokenizer *tok, const mn_value *root, bool *add_space) {
  if (tok->model != MODEL_BPE || tok->byte_level || !tok->byte_fallback || tok->prefix || tok->suffix || tok->ignore_merges || tok->unk < 0)
    return false;
  for (int b = 0; b < 256; b++)
    if (tok->byte_id[b] < 0) return false;
  return marks_blanks(root, add_space) && (tok->rank || all_are_merged(tok));
}

static mn_status write_pieces(lists *l, const mn_tokenizer *tok, bool add_space, mn_gguf_writer *w) {
  float *score = mn_arena_alloc(l->arena, l->n * sizeof *score);
  if (!score) return MN_ERR_MEMORY;
  for (size_t i = 0; i < l->n; i++) score[i] = -1e6f; /* rows without a token */
  for (size_t i = 0; tok->rank && i < l->n && i < (size_t)tok->n_ids; i++) score[i] = (float)tok->score[i];
  if (!tok->rank) MN_TRY(scores_of_merges(tok, l->arena, score, l->n));
  for (int b = 0; b < 256; b++)
    if ((size_t)tok->byte_id[b] < l->n) l->kind[tok->byte_id[b]] = BYTE;
  if ((size_t)tok->unk < l->n) l->kind[tok->unk] = UNKNOWN;
  MN_TRY(mn_gguf_writer_string(w, "tokenizer.ggml.model", "llama"));
  MN_TRY(mn_gguf_writer_string(w, "tokenizer.ggml.pre", "default"));
  MN_TRY(mn_gguf_writer_strings(w, "tokenizer.ggml.tokens", l->token, l->n));
  MN_TRY(mn_gguf_writer_f32s(w, "tokenizer.ggml.scores", score, l->n));
  MN_TRY(mn_gguf_writer_i32s(w, "tokenizer.ggml.token_type", l->kind, l->n));
  MN_TRY(mn_gguf_writer_u32(w, "tokenizer.ggml.unknown_token_id", (uint32_t)tok->unk));
  return mn_gguf_writer_bool(w, "tokenizer.ggml.add_space_prefix", add_space);
}

/* ---- RWKV's bytes, as Python writes them ---- */

static mn_status write_longest(lists *l, const mn_tokenizer *tok, mn_gguf_writer *w) {
  mn_text text = {0};
  for (size_t i = 0; i < l->n && i < (size_t)tok->n_ids; i++) {
    const token *t = &tok->tokens[i];
    if (l->kind[i] != NORMAL) continue;
    text.len = 0;
    for (uint32_t k = 0; k < t->key_n; k++) {
      const unsigned char c = (unsigned char)t->key[k];
      if (c == '\t' || c == '\n' || c == '\r' || c == '\\')
        mn_text_addf(&text, "\\%c", c == '\t' ? 't' : c == '\n' ? 'n' : c == '\r' ? 'r' : c);
      else if (c < 0x20 || c > 0x7E) mn_text_addf(&text, "\\x%02x", c);
      else mn_text_add_bytes(&text, &t->key[k], 1);
    }
    const char *spelled = text.failed || !text.data ? NULL : mn_arena_format(l->arena, "%.*s", (int)text.len, text.data);
    if (!spelled) {
      mn_text_free(&text);
      return MN_ERR_MEMORY;
    }
    l->token[i] = (mn_gguf_bytes){spelled, strlen(spelled)};
  }
  mn_text_free(&text);
  MN_TRY(mn_gguf_writer_string(w, "tokenizer.ggml.model", "rwkv"));
  MN_TRY(mn_gguf_writer_strings(w, "tokenizer.ggml.tokens", l->token, l->n));
  return mn_gguf_writer_i32s(w, "tokenizer.ggml.token_type", l->kind, l->n);
}

mn_status mn_tokenizer_to_gguf(const mn_tokenizer *tok, int64_t rows, mn_gguf_writer *w, bool *done) {
  size_t size;
  const char *json = mn_tokenizer_json(tok, &size), *family = NULL;
  const mn_value *root = NULL;
  lists l = {.arena = mn_arena_new()};
  cutting c = {0};
  *done = false;
  mn_status status = l.arena ? mn_json_parse(l.arena, "tokenizer.json", json, size, &root) : MN_ERR_MEMORY;
  const mn_value *model = mn_value_get(root, "model"), *normalizer = mn_value_get(root, "normalizer");
  const bool bert = status == MN_OK && is_bert(root) && tok->n_before == 1 && tok->n_after == 1; /* framed, as it is there always */
  const bool longest = tok->model == MODEL_WORDPIECE && tok->byte_level && !tok->n_steps && !tok->n_norms;
  /* no program of this format composes characters; who has NFC here has texts that are composed already */
  const bool as_it_is = !normalizer || normalizer->kind == MN_NULL || is_text(normalizer, "type", "NFC");
  const bool plain = status == MN_OK && as_it_is && tok->byte_level && is_text(model, "type", "BPE");
  bool add_space = false;
  const bool pieces = status == MN_OK && is_pieces(tok, root, &add_space);
  if (plain && cutting_of(mn_value_get(root, "pre_tokenizer"), &c)) family = family_of(&c, is_true(model, "ignore_merges"));
  if (status == MN_OK && (family || bert || pieces || longest) && rows > 0 && rows <= MOST_TOKENS) {
    status = read_tokens(&l, root, (size_t)rows);
    if (status == MN_OK && family) status = read_merges(&l, mn_value_get(model, "merges"));
    if (status == MN_OK && !l.behind)
      status = family    ? write_lists(&l, family, w)
               : bert    ? write_bert(&l, tok, root, w)
               : longest ? write_longest(&l, tok, w)
                         : write_pieces(&l, tok, add_space, w);
    *done = status == MN_OK && !l.behind;
  }
  mn_arena_free(l.arena);
  return status;
}
