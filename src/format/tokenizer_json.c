/* tokenizer_json.c - tokenizer.json in: vocabulary, merges, added tokens. The file is untrusted: what it claims is checked before it
 * is used, and what Mneme does not implement is refused by name rather than guessed. It is read straight from jansson's tree: these
 * files hold half a million strings that nothing but the tables below needs. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "format/json_load.h"
#include "format/tokenizer_reading.h"

enum { FILE_LIMIT = 256 << 20, MAX_TOKEN = 1 << 16, MAX_ADDED = 1 << 20, MAX_TEXT = 64 };

/* ---- vocabulary ---- */

static mn_status read_id(reader *r, const json_t *j, const char *content, json_int_t limit, int32_t *id) {
  if (!json_is_integer(j)) return REFUSE(r, "token '%s' has an id that is not a whole number", show(r, content));
  json_int_t x = json_integer_value(j);
  if (x < 0 || x >= limit)
    return REFUSE(r, "token '%s' has id %lld; for the size of this vocabulary ids must be in 0 ... %lld", show(r, content), (long long)x,
                  (long long)limit - 1);
  *id = (int32_t)x;
  return MN_OK;
}

/* How text spells a token. In a byte-level vocabulary each character of a key is a byte; a key with any other character is taken
 * as it is (special tokens stand in some vocabularies). */
static mn_status set_token(reader *r, int32_t id, const char *key, size_t n, bool coded, uint8_t flags) {
  token *t = &r->tok->tokens[id];
  if (n > MAX_TOKEN || (n == 0 && (coded || flags))) return REFUSE(r, "token %d has %zu bytes; 1 ... %d are possible", id, n, MAX_TOKEN);
  char *bytes = mn_arena_alloc(r->tok->arena, n + 1);
  if (!bytes) return MN_ERR_MEMORY;
  size_t out = 0;
  for (size_t i = 0, len; coded && i < n; i += len) {
    int byte = mn_char_to_byte(mn_utf8_next(key + i, n - i, &len));
    if (byte < 0) coded = false;
    else bytes[out++] = (char)byte;
  }
  if (!coded) memcpy(bytes, key, out = n);
  t->bytes = t->key = bytes;
  t->n = t->key_n = (uint32_t)out;
  t->flags = flags | TOKEN_EXISTS;
  return MN_OK;
}

static mn_status count_ids(reader *r, const json_t *vocab, const json_t *added) {
  bool list = json_is_array(vocab); /* Unigram's: the place is the id */
  size_t count = (list ? json_array_size(vocab) : json_object_size(vocab)) + json_array_size(added);
  json_int_t limit = (json_int_t)count * 2 + 65536; /* holes are allowed, but no table larger than the file explains */
  int32_t top = list ? (int32_t)json_array_size(vocab) - 1 : -1, id;
  const char *key;
  json_t *value;
  if (!list) {
    json_object_foreach((json_t *)vocab, key, value) {
      MN_TRY(read_id(r, value, key, limit, &id));
      if (id > top) top = id;
    }
  }
  size_t i;
  json_array_foreach((json_t *)added, i, value) {
    const char *content = json_string_value(json_object_get(value, "content"));
    if (!content || !*content) return REFUSE(r, "added_tokens[%zu] has no content", i);
    MN_TRY(read_id(r, json_object_get(value, "id"), content, limit, &id));
    if (id > top) top = id;
  }
  r->tok->n_ids = top + 1;
  r->tok->tokens = mn_calloc((size_t)top + 1, sizeof *r->tok->tokens);
  return r->tok->tokens ? MN_OK : MN_ERR_MEMORY;
}

static mn_status read_bytes(reader *r, const json_t *vocab) {
  for (unsigned b = 0; b < 256; b++) {
    char coded[5] = {0};
    mn_utf8_put(coded, mn_byte_to_char((unsigned char)b));
    json_t *id = json_object_get(vocab, coded);
    if (!id && !mn_byte_must_be(b)) continue;
    if (!id)
      return REFUSE(r,
                    "the vocabulary has no token for byte 0x%02X ('%s'), so some text could not be encoded; "
                    "a byte-level BPE needs all that are printable (train with initial_alphabet = ByteLevel.alphabet())",
                    b, coded);
    r->tok->byte_id[b] = (int32_t)json_integer_value(id);
  }
  return MN_OK;
}

static mn_status read_vocab(reader *r, const json_t *vocab) {
  mn_tokenizer *tok = r->tok;
  MN_TRY(mn_vocab_table(tok, json_object_size(vocab)));
  const char *key;
  json_t *value;
  json_object_foreach((json_t *)vocab, key, value) {
    int32_t id = (int32_t)json_integer_value(value);
    if (tok->tokens[id].flags) return REFUSE(r, "token '%s' has id %d, which another token of the vocabulary has too", show(r, key), id);
    MN_TRY(set_token(r, id, key, strlen(key), tok->byte_level, 0));
    mn_vocab_enter(tok, id);
  }
  return tok->byte_level ? read_bytes(r, vocab) : MN_OK;
}

static mn_status read_scored(reader *r, const json_t *vocab) { /* [["piece", score], ...] */
  mn_tokenizer *tok = r->tok;
  MN_TRY(mn_vocab_table(tok, json_array_size(vocab)));
  if (!(tok->score = mn_alloc((size_t)tok->n_ids * sizeof *tok->score))) return MN_ERR_MEMORY;
  for (int32_t id = 0; id < tok->n_ids; id++) tok->score[id] = INFINITY; /* of added tokens */
  size_t i;
  json_t *row;
  json_array_foreach((json_t *)vocab, i, row) {
    const json_t *key = json_array_get(row, 0), *score = json_array_get(row, 1);
    if (!json_is_string(key) || !json_is_number(score)) return REFUSE(r, "model.vocab[%zu] is not [\"token\", score]", i);
    MN_TRY(set_token(r, (int32_t)i, json_string_value(key), json_string_length(key), false, 0));
    tok->score[i] = json_number_value(score);
    mn_vocab_enter(tok, (int32_t)i); /* of two that are spelled alike the later one counts */
  }
  return MN_OK;
}

/* ---- models ---- */

static int32_t find(const reader *r, const json_t *vocab, const char *key, size_t n) {
  if (!r->tok->byte_level) return mn_vocab_find(r->tok, key, n);
  const json_t *j = json_object_get(vocab, key);
  return j ? (int32_t)json_integer_value(j) : -1;
}

static mn_status merge_parts(reader *r, const json_t *m, size_t rank, const json_t *vocab, mn_text work[2], int32_t id[3]) {
  const char *a = NULL, *b = NULL;
  work[0].len = work[1].len = 0;
  if (json_is_string(m)) { /* "left right" */
    const char *s = json_string_value(m), *space = strchr(s, ' ');
    if (space && space > s && space[1] && !strchr(space + 1, ' ')) {
      mn_text_add_bytes(&work[0], s, (size_t)(space - s));
      a = work[0].data;
      b = space + 1;
    }
  } else if (json_is_array(m) && json_array_size(m) == 2) {
    a = json_string_value(json_array_get(m, 0));
    b = json_string_value(json_array_get(m, 1));
  }
  if (!a || !b) return REFUSE(r, "merges[%zu] is neither \"left right\" nor [\"left\", \"right\"]", rank);
  size_t skip = r->tok->prefix ? r->tok->prefix_n : 0; /* the right one is inside the word */
  mn_text_add(&work[1], a);
  mn_text_add(&work[1], strlen(b) >= skip ? b + skip : "");
  MN_TRY(mn_text_status(&work[1]));
  const char *key[3] = {a, b, work[1].data ? work[1].data : ""};
  for (int i = 0; i < 3; i++)
    if ((id[i] = find(r, vocab, key[i], strlen(key[i]))) < 0)
      return REFUSE(r, "merges[%zu] needs the token '%s', which is not in the vocabulary", rank, show(r, key[i]));
  return MN_OK;
}

static mn_status read_merges(reader *r, const json_t *merges, const json_t *vocab) {
  mn_tokenizer *tok = r->tok;
  size_t n = json_array_size(merges);
  MN_TRY(mn_merge_table(tok, n));
  mn_text work[2] = {{0}};
  mn_status status = MN_OK;
  for (size_t rank = 0; rank < n && status == MN_OK; rank++) {
    int32_t id[3];
    status = merge_parts(r, json_array_get(merges, rank), rank, vocab, work, id);
    if (status == MN_OK && mn_merge_find(tok, id[0], id[1])) status = REFUSE(r, "merges[%zu] is a repetition of an earlier merge", rank);
    if (status == MN_OK) mn_merge_enter(tok, id[0], id[1], (uint32_t)rank, id[2]);
  }
  mn_text_free(&work[0]);
  mn_text_free(&work[1]);
  return status;
}

/* SentencePiece's BPE as it was before it became a list of merges: our own key, in tokenizers that came from a GGUF file. */
static mn_status read_scores(reader *r, const json_t *scores) {
  mn_tokenizer *tok = r->tok;
  if (!json_is_array(scores) || json_array_size(scores) != (size_t)tok->n_ids)
    return REFUSE(r, "model.scores is not a list with a number for each of %d tokens", tok->n_ids);
  float *score = mn_alloc((size_t)tok->n_ids * sizeof *score);
  if (!score) return MN_ERR_MEMORY;
  mn_status status = MN_OK;
  for (int32_t id = 0; id < tok->n_ids && status == MN_OK; id++) {
    const json_t *x = json_array_get(scores, (size_t)id);
    if (!json_is_number(x)) status = REFUSE(r, "model.scores[%d] is no number", id);
    score[id] = (float)json_number_value(x);
  }
  if (status == MN_OK) status = mn_scores_set(tok, score);
  free(score);
  return status;
}

static mn_status read_text(reader *r, const json_t *model, const char *key, const char *otherwise, const char **out, size_t *n) {
  const json_t *j = json_object_get(model, key);
  *out = otherwise;
  *n = otherwise ? strlen(otherwise) : 0;
  if (!is_set(j)) return MN_OK;
  if (!json_is_string(j) || json_string_length(j) > MAX_TEXT) return REFUSE(r, "model.%s is not a text of at most %d bytes", key, MAX_TEXT);
  *n = json_string_length(j);
  return (*out = *n || otherwise ? mn_arena_strdup(r->tok->arena, json_string_value(j)) : NULL) || !*n ? MN_OK : MN_ERR_MEMORY;
}

static mn_status read_bpe(reader *r, const json_t *model, const json_t *vocab) {
  mn_tokenizer *tok = r->tok;
  const json_t *merges = json_object_get(model, "merges"), *scores = json_object_get(model, "scores");
  const json_t *dropout = json_object_get(model, "dropout");
  if (!json_is_array(merges)) return REFUSE(r, "model.merges is not a list");
  if (is_set(dropout) && json_number_value(dropout) != 0)
    return REFUSE_KIND(r, "model.dropout is not supported: encoding would not be deterministic; set it to null");
  MN_TRY(read_text(r, model, "continuing_subword_prefix", NULL, &tok->prefix, &tok->prefix_n));
  MN_TRY(read_text(r, model, "end_of_word_suffix", NULL, &tok->suffix, &tok->suffix_n));
  if (tok->byte_level && (tok->prefix || tok->suffix))
    return REFUSE_KIND(r, "model.%s beside ByteLevel is not supported", tok->prefix ? "continuing_subword_prefix" : "end_of_word_suffix");
  tok->byte_fallback = json_is_true(json_object_get(model, "byte_fallback")) && !tok->byte_level;
  tok->ignore_merges = json_is_true(json_object_get(model, "ignore_merges"));
  tok->fuse_unk = json_is_true(json_object_get(model, "fuse_unk"));
  MN_TRY(read_vocab(r, vocab));
  const json_t *unk = json_object_get(model, "unk_token");
  if (json_is_string(unk) && !tok->byte_level) {
    tok->unk = mn_vocab_find(tok, json_string_value(unk), json_string_length(unk));
    if (tok->unk < 0) return REFUSE(r, "model.unk_token '%s' is not in the vocabulary", show(r, json_string_value(unk)));
  }
  return is_set(scores) && !tok->byte_level ? read_scores(r, scores) : read_merges(r, merges, vocab);
}

static mn_status read_words(reader *r, const json_t *model, const json_t *vocab) { /* WordPiece, WordLevel */
  mn_tokenizer *tok = r->tok;
  MN_TRY(read_vocab(r, vocab));
  const char *unk;
  size_t n;
  MN_TRY(read_text(r, model, "unk_token", tok->model == MODEL_WORDPIECE ? "[UNK]" : "<unk>", &unk, &n));
  if (!tok->byte_level) tok->unk = mn_vocab_find(tok, unk, n); /* no byte is unknown */
  if (tok->unk < 0 && !tok->byte_level) return REFUSE(r, "model.unk_token '%s' is not in the vocabulary", show(r, unk));
  if (tok->model == MODEL_WORDLEVEL) return MN_OK;
  MN_TRY(read_text(r, model, "continuing_subword_prefix", "##", &tok->prefix, &tok->prefix_n));
  if (tok->byte_level && tok->prefix_n)
    return REFUSE_KIND(r,
                       "pre_tokenizer ByteLevel with model type 'WordPiece' is not supported, but for an empty continuing_subword_prefix");
  const json_t *most = json_object_get(model, "max_input_chars_per_word");
  json_int_t value = is_set(most) ? json_integer_value(most) : 100;
  if (value < 1) return REFUSE(r, "model.max_input_chars_per_word is not a positive number");
  if (tok->byte_level && value < LONGEST_WORD)
    return REFUSE_KIND(r, "model.max_input_chars_per_word below %d, or without it 100, beside ByteLevel is not supported", LONGEST_WORD);
  tok->max_word = (size_t)value;
  return MN_OK;
}

static mn_status read_unigram(reader *r, const json_t *model, const json_t *vocab) {
  mn_tokenizer *tok = r->tok;
  MN_TRY(read_scored(r, vocab));
  tok->fuse_unk = true;
  tok->byte_fallback = json_is_true(json_object_get(model, "byte_fallback"));
  const json_t *unk = json_object_get(model, "unk_id");
  if (!is_set(unk)) return MN_OK;
  json_int_t id = json_is_integer(unk) ? json_integer_value(unk) : -1;
  if (id < 0 || (size_t)id >= json_array_size(vocab)) return REFUSE(r, "model.unk_id is not the place of a token in model.vocab");
  tok->unk = (int32_t)id;
  return MN_OK;
}

static mn_status read_model(reader *r, const json_t *root, const json_t *added) {
  static const char *const kinds[] = {"BPE", "Unigram", "WordPiece", "WordLevel"};
  mn_tokenizer *tok = r->tok;
  const json_t *model = json_object_get(root, "model");
  if (!json_is_object(model)) return REFUSE(r, "there is no \"model\"; is this a tokenizer.json?");
  const json_t *vocab = json_object_get(model, "vocab");
  int kind = 0;
  if (is_set(json_object_get(model, "type"))) /* old files of BPE have none */
    while (kind < 4 && strcmp(type_of(model), kinds[kind]) != 0) kind++;
  if (kind == 4)
    return REFUSE_KIND(r, "model type '%s' is not supported; BPE, Unigram, WordPiece and WordLevel are", show(r, type_of(model)));
  if (kind == MODEL_UNIGRAM ? !json_is_array(vocab) : !json_is_object(vocab))
    return REFUSE(r, kind == MODEL_UNIGRAM ? "model.vocab is not a list of tokens with scores"
                                           : "model.vocab is not a map from tokens to ids");
  tok->model = (mn_model_kind)kind;
  tok->byte_level = mn_parts_byte_level(root);
  if (tok->byte_level && kind != MODEL_BPE && kind != MODEL_WORDPIECE)
    return REFUSE_KIND(r, "pre_tokenizer ByteLevel with model type '%s' is not supported; with BPE and WordPiece it is", kinds[kind]);
  MN_TRY(count_ids(r, vocab, added));
  if (kind == MODEL_BPE) return read_bpe(r, model, vocab);
  return kind == MODEL_UNIGRAM ? read_unigram(r, model, vocab) : read_words(r, model, vocab);
}

/* ---- added tokens ---- */

/* The reference numbers added tokens that the vocabulary does not have anew as it reads them: behind the vocabulary, one after the other. */
static mn_status as_numbered(const reader *r, const char *content, int32_t id, int64_t next) {
  if (id == next) return MN_OK;
  return REFUSE_KIND(r, "added token '%s' has id %d, which is not supported: `tokenizers` gives it %lld, the next that is free",
                     show((reader *)r, content), id, (long long)next);
}

static mn_status read_added(reader *r, const json_t *added) {
  mn_tokenizer *tok = r->tok;
  size_t count = json_array_size(added);
  if (count > MAX_ADDED) return REFUSE(r, "%zu added tokens are too many; at most %d", count, MAX_ADDED);
  if (!(tok->added = mn_alloc((count + 1) * sizeof *tok->added))) return MN_ERR_MEMORY;
  static const struct {
    const char *key;
    uint8_t flag;
  } kinds[] = {{"special", TOKEN_SPECIAL},
               {"lstrip", TOKEN_LSTRIP},
               {"rstrip", TOKEN_RSTRIP},
               {"single_word", TOKEN_SINGLE_WORD},
               {"normalized", TOKEN_NORMALIZED}};
  const json_t *vocab = json_object_get(json_object_get(r->root, "model"), "vocab");
  int64_t next = (int64_t)(json_is_array(vocab) ? json_array_size(vocab) : json_object_size(vocab));
  for (size_t i = 0; i < count; i++) {
    const json_t *a = json_array_get(added, i);
    const char *content = json_string_value(json_object_get(a, "content"));
    size_t n = json_string_length(json_object_get(a, "content"));
    int32_t id = (int32_t)json_integer_value(json_object_get(a, "id"));
    uint8_t flags = TOKEN_ADDED;
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++)
      if (json_is_true(json_object_get(a, kinds[k].key))) flags |= kinds[k].flag;
    int32_t in_vocab = find(r, vocab, content, n);
    if (in_vocab >= 0 && tok->model == MODEL_UNIGRAM) id = in_vocab; /* of two pieces that are spelled alike the later one counts */
    const token *t = &tok->tokens[id];
    if (in_vocab >= 0 && in_vocab != id)
      return REFUSE(r, "added token '%s' has id %d, but the vocabulary gives it %d", show(r, content), id, in_vocab);
    if (in_vocab < 0 && t->flags) return REFUSE(r, "added token '%s' has id %d, which another token has too", show(r, content), id);
    if (t->flags & TOKEN_ADDED) return REFUSE(r, "added token '%s' is there twice", show(r, content));
    if (in_vocab < 0) MN_TRY(as_numbered(r, content, id, next));
    if (id >= next) next = (int64_t)id + 1;
    MN_TRY(mn_trie_add(&r->seen, content, n, (int32_t)i));
    if (mn_trie_find(&r->seen, content, n) != (int32_t)i) return REFUSE(r, "two added tokens have the same content");
    /* a token that the merges also use keeps the bytes they know it by: in a table of keys both are the same */
    MN_TRY(set_token(r, id, content, n, false, flags));
    tok->added[tok->n_added++] = id;
  }
  return MN_OK;
}

/* ---- whole files ---- */

static mn_status read_root(reader *r, const json_t *root) {
  if (!json_is_object(root)) return REFUSE(r, "expected a map with \"model\" and \"added_tokens\"");
  const json_t *version = json_object_get(root, "version");
  if (version && (!json_is_string(version) || strcmp(json_string_value(version), "1.0") != 0))
    return REFUSE_KIND(r, "version '%s' is not supported; '1.0' is",
                       json_is_string(version) ? show(r, json_string_value(version)) : "that is no text");
  const json_t *truncation = json_object_get(root, "truncation"); /* `padding` fills batches with what nobody sees */
  if (is_set(truncation)) {
    const json_t *most = json_object_get(truncation, "max_length");
    if (!json_is_integer(most) || json_integer_value(most) < 0) return REFUSE(r, "truncation has no max_length that is a number of tokens");
    r->tok->cuts = json_integer_value(most);
  }
  json_t *none = NULL;
  const json_t *added = json_object_get(root, "added_tokens");
  if (!is_set(added)) added = none = json_array();
  mn_status status = json_is_array(added) ? MN_OK : REFUSE(r, "added_tokens is not a list");
  if (status == MN_OK) status = read_model(r, root, added);
  if (status == MN_OK) status = read_added(r, added);
  json_decref(none);
  MN_TRY(status);
  return mn_parts_read(r, root);
}

mn_status mn_tokenizer_parse(const char *name, const char *json, size_t n, mn_tokenizer **out) {
  *out = NULL;
  json_error_t error;
  json_t *root;
  const mn_status read = mn_json_load(json, n, JSON_REJECT_DUPLICATES, &root, &error);
  if (read == MN_ERR_CANCELLED) return read;
  if (read != MN_OK) {
    char shown[MN_PRINTABLE];
    return mn_fail(MN_ERR_FORMAT, "%s:%d: not JSON: %s", name, error.line, mn_printable(error.text, shown));
  }
  mn_tokenizer *tok = mn_tokenizer_blank();
  mn_status status = MN_ERR_MEMORY;
  if (tok && (tok->source = mn_alloc(n + 1))) {
    memcpy(tok->source, json, n);
    tok->source[n] = 0;
    tok->source_len = n;
    reader r = {.name = name, .tok = tok, .root = root};
    status = read_root(&r, root);
    mn_trie_free(&r.seen);
    if (status == MN_OK) status = mn_tokenizer_complete(tok, name);
  }
  json_decref(root);
  if (status == MN_OK) *out = tok;
  else mn_tokenizer_free(tok);
  return status;
}

mn_status mn_tokenizer_load(const char *path, mn_tokenizer **out) {
  *out = NULL;
  char *text;
  size_t n;
  MN_TRY(mn_file_read(path, FILE_LIMIT, &text, &n));
  mn_status status = mn_tokenizer_parse(path, text, n, out);
  free(text);
  return status;
}
