/* tokenizer_json.c - tokenizer.json in and out. The file is untrusted: what it claims is checked before it is used, and
 * what Mneme does not implement is refused by name rather than guessed. It is read straight from jansson's tree: these
 * files hold half a million strings that nothing but the tables below needs. */
#include "format/tokenizer_internal.h"

#include "base/file.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum { FILE_LIMIT = 256 << 20, MAX_DEPTH = 8, MAX_TOKEN = 1 << 16, MAX_ADDED = 1 << 20 };

typedef struct reader {
  const char *name; /* of the file, for messages */
  mn_tokenizer *tok;
  char shown[MN_PRINTABLE];
} reader;

#define REFUSE(r, ...)      (mn_fail(MN_ERR_FORMAT, __VA_ARGS__), mn_context(MN_ERR_FORMAT, "%s", (r)->name))
#define REFUSE_KIND(r, ...) (mn_fail(MN_ERR_UNSUPPORTED, __VA_ARGS__), mn_context(MN_ERR_UNSUPPORTED, "%s", (r)->name))

static const char *show(reader *r, const char *s) { return mn_printable(s, r->shown); }

static bool is_set(const json_t *j) { return j && !json_is_null(j); }

static const char *type_of(const json_t *j) {
  const char *type = json_string_value(json_object_get(j, "type"));
  return type ? type : "?";
}

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

/* The bytes that a vocabulary key stands for: each character is a byte; a key with any other character is taken as it
 * is (special tokens stand in some vocabularies). */
static mn_status set_token(reader *r, int32_t id, const char *key, size_t n, bool coded, uint8_t flags) {
  token *t = &r->tok->tokens[id];
  if (n == 0 || n > MAX_TOKEN) return REFUSE(r, "token %d has %zu bytes; 1 ... %d are possible", id, n, MAX_TOKEN);
  char *bytes = mn_arena_alloc(r->tok->arena, n);
  if (!bytes) return MN_ERR_MEMORY;
  size_t out = 0;
  for (size_t i = 0, len; coded && i < n; i += len) {
    int byte = mn_char_to_byte(mn_utf8_next(key + i, n - i, &len));
    if (byte < 0) coded = false;
    else bytes[out++] = (char)byte;
  }
  if (!coded) memcpy(bytes, key, out = n);
  t->bytes = bytes;
  t->n = (uint32_t)out;
  t->flags = flags | TOKEN_EXISTS;
  return MN_OK;
}

static mn_status count_ids(reader *r, const json_t *vocab, const json_t *added) {
  size_t count = json_object_size(vocab) + json_array_size(added);
  json_int_t limit = (json_int_t)count * 2 + 65536; /* holes are allowed, but no table larger than the file explains */
  int32_t top = -1, id;
  const char *key;
  json_t *value;
  json_object_foreach((json_t *)vocab, key, value) {
    MN_TRY(read_id(r, value, key, limit, &id));
    if (id > top) top = id;
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

static mn_status read_vocab(reader *r, const json_t *vocab) {
  mn_tokenizer *tok = r->tok;
  size_t size = 16;
  while (size < 2 * json_object_size(vocab)) size *= 2;
  tok->by_bytes = mn_alloc(size * sizeof *tok->by_bytes);
  if (!tok->by_bytes) return MN_ERR_MEMORY;
  tok->by_bytes_mask = size - 1;
  for (size_t i = 0; i < size; i++) tok->by_bytes[i] = -1;
  const char *key;
  json_t *value;
  json_object_foreach((json_t *)vocab, key, value) {
    int32_t id = (int32_t)json_integer_value(value);
    if (tok->tokens[id].flags) return REFUSE(r, "token '%s' has id %d, which another token of the vocabulary has too", show(r, key), id);
    MN_TRY(set_token(r, id, key, strlen(key), true, 0));
    const token *t = &tok->tokens[id];
    size_t at = (size_t)mn_splitmix64(mn_hash_bytes(t->bytes, t->n, 0)) & tok->by_bytes_mask;
    while (tok->by_bytes[at] >= 0) at = (at + 1) & tok->by_bytes_mask;
    tok->by_bytes[at] = id;
  }
  for (unsigned b = 0; b < 256; b++) {
    char coded[5] = {0};
    mn_utf8_put(coded, mn_byte_to_char((unsigned char)b));
    json_t *id = json_object_get(vocab, coded);
    if (!id)
      return REFUSE(r,
                    "the vocabulary has no token for byte 0x%02X ('%s'), so some text could not be encoded; "
                    "a byte-level BPE needs all 256 (train with initial_alphabet = ByteLevel.alphabet())",
                    b, coded);
    tok->byte_id[b] = (int32_t)json_integer_value(id);
  }
  return MN_OK;
}

static mn_status merge_parts(reader *r, const json_t *m, size_t rank, const json_t *vocab, int32_t *left, int32_t *right, int32_t *id) {
  mn_text parts[3] = {{0}};
  const char *a = NULL, *b = NULL;
  if (json_is_string(m)) { /* "left right" */
    const char *s = json_string_value(m), *space = strchr(s, ' ');
    if (space && space > s && space[1] && !strchr(space + 1, ' ')) {
      mn_text_add_bytes(&parts[0], s, (size_t)(space - s));
      a = parts[0].data;
      b = space + 1;
    }
  } else if (json_is_array(m) && json_array_size(m) == 2) {
    a = json_string_value(json_array_get(m, 0));
    b = json_string_value(json_array_get(m, 1));
  }
  mn_status status = MN_OK;
  if (!a || !b) {
    status = REFUSE(r, "merges[%zu] is neither \"left right\" nor [\"left\", \"right\"]", rank);
  } else {
    mn_text_add(&parts[2], a);
    mn_text_add(&parts[2], b);
    status = mn_text_status(&parts[2]);
    const char *key[3] = {a, b, parts[2].data};
    int32_t *out[3] = {left, right, id};
    for (int i = 0; i < 3 && status == MN_OK; i++) {
      json_t *j = json_object_get(vocab, key[i]);
      if (!j) status = REFUSE(r, "merges[%zu] needs the token '%s', which is not in the vocabulary", rank, show(r, key[i]));
      else *out[i] = (int32_t)json_integer_value(j);
    }
  }
  mn_text_free(&parts[0]);
  mn_text_free(&parts[2]);
  return status;
}

static mn_status read_merges(reader *r, const json_t *merges, const json_t *vocab) {
  mn_tokenizer *tok = r->tok;
  tok->n_merges = json_array_size(merges);
  size_t size = 16;
  while (size < 2 * tok->n_merges) size *= 2;
  tok->merges = mn_alloc(size * sizeof *tok->merges);
  if (!tok->merges) return MN_ERR_MEMORY;
  tok->merges_mask = size - 1;
  for (size_t i = 0; i < size; i++) tok->merges[i].key = UINT64_MAX;
  for (size_t rank = 0; rank < tok->n_merges; rank++) {
    int32_t left, right, id;
    MN_TRY(merge_parts(r, json_array_get(merges, rank), rank, vocab, &left, &right, &id));
    if (mn_merge_find(tok, left, right)) return REFUSE(r, "merges[%zu] is a repetition of an earlier merge", rank);
    uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    size_t at = (size_t)mn_splitmix64(key) & tok->merges_mask;
    while (tok->merges[at].key != UINT64_MAX) at = (at + 1) & tok->merges_mask;
    tok->merges[at] = (merge){key, (uint32_t)rank, id};
  }
  return MN_OK;
}

static mn_status read_model(reader *r, const json_t *root, const json_t *added) {
  const json_t *model = json_object_get(root, "model");
  if (!json_is_object(model)) return REFUSE(r, "there is no \"model\"; is this a tokenizer.json?");
  const json_t *type = json_object_get(model, "type"), *vocab = json_object_get(model, "vocab");
  const json_t *merges = json_object_get(model, "merges");
  if (is_set(type) && strcmp(type_of(model), "BPE"))
    return REFUSE_KIND(r, "model type '%s' is not supported; Mneme reads byte-level BPE", show(r, type_of(model)));
  if (!json_is_object(vocab)) return REFUSE(r, "model.vocab is not a map from tokens to ids");
  if (!json_is_array(merges)) return REFUSE(r, "model.merges is not a list");
  static const char *const texts[] = {"continuing_subword_prefix", "end_of_word_suffix"};
  for (int i = 0; i < 2; i++) {
    const json_t *j = json_object_get(model, texts[i]);
    if (is_set(j) && (!json_is_string(j) || *json_string_value(j)))
      return REFUSE_KIND(r, "model.%s is not supported; Mneme reads byte-level BPE", texts[i]);
  }
  if (json_is_true(json_object_get(model, "byte_fallback")))
    return REFUSE_KIND(r, "model.byte_fallback (SentencePiece) is not supported; Mneme reads byte-level BPE");
  const json_t *dropout = json_object_get(model, "dropout");
  if (is_set(dropout) && json_number_value(dropout) != 0)
    return REFUSE_KIND(r, "model.dropout is not supported: encoding would not be deterministic; set it to null");
  r->tok->ignore_merges = json_is_true(json_object_get(model, "ignore_merges"));
  MN_TRY(count_ids(r, vocab, added));
  MN_TRY(read_vocab(r, vocab));
  return read_merges(r, merges, vocab);
}

/* ---- added tokens ---- */

static _Thread_local const token *sort_tokens; /* qsort takes no context */
static int longest_first(const void *a, const void *b) {
  int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
  uint32_t nx = sort_tokens[x].n, ny = sort_tokens[y].n;
  return nx != ny ? (nx < ny) - (nx > ny) : (x > y) - (x < y);
}

static mn_status read_added(reader *r, const json_t *root, const json_t *added) {
  mn_tokenizer *tok = r->tok;
  const json_t *vocab = json_object_get(json_object_get(root, "model"), "vocab");
  size_t count = json_array_size(added);
  if (count > MAX_ADDED) return REFUSE(r, "%zu added tokens are too many; at most %d", count, MAX_ADDED);
  if (!(tok->added = mn_alloc(count * sizeof *tok->added))) return MN_ERR_MEMORY;
  for (size_t i = 0; i < count; i++) {
    const json_t *a = json_array_get(added, i);
    const char *content = json_string_value(json_object_get(a, "content"));
    int32_t id = (int32_t)json_integer_value(json_object_get(a, "id"));
    const json_t *in_vocab = json_object_get(vocab, content);
    uint8_t flags = TOKEN_ADDED;
    if (json_is_true(json_object_get(a, "single_word")))
      return REFUSE_KIND(r, "added token '%s' has single_word, which is not supported", show(r, content));
    if (json_is_true(json_object_get(a, "special"))) flags |= TOKEN_SPECIAL;
    if (json_is_true(json_object_get(a, "lstrip"))) flags |= TOKEN_LSTRIP;
    if (json_is_true(json_object_get(a, "rstrip"))) flags |= TOKEN_RSTRIP;
    if (in_vocab && json_integer_value(in_vocab) != id)
      return REFUSE(r, "added token '%s' has id %d, but the vocabulary gives it %lld", show(r, content), id,
                    (long long)json_integer_value(in_vocab));
    if (!in_vocab && tok->tokens[id].flags)
      return REFUSE(r, "added token '%s' has id %d, which another token has too", show(r, content), id);
    if (tok->tokens[id].flags & TOKEN_ADDED) return REFUSE(r, "added token '%s' is there twice", show(r, content));
    /* a token that the merges also use keeps the bytes they know it by: in a table of bytes both are the same */
    MN_TRY(set_token(r, id, content, strlen(content), false, flags));
    tok->added[tok->n_added++] = id;
    tok->added_first[(unsigned char)*content] = true;
  }
  sort_tokens = tok->tokens;
  qsort(tok->added, (size_t)tok->n_added, sizeof *tok->added, longest_first);
  for (int i = 1; i < tok->n_added; i++) {
    const token *a = &tok->tokens[tok->added[i - 1]], *b = &tok->tokens[tok->added[i]];
    if (a->n == b->n && !memcmp(a->bytes, b->bytes, a->n)) return REFUSE(r, "two added tokens have the same content");
  }
  return MN_OK;
}

/* ---- how text is cut ---- */

static mn_status new_step(reader *r, mn_cut_kind kind, mn_cut **out) {
  mn_tokenizer *tok = r->tok;
  if (tok->n_steps == MAX_STEPS) return REFUSE(r, "pre_tokenizer has more than %d steps", MAX_STEPS);
  if (tok->n_steps && tok->steps[tok->n_steps - 1].kind == STEP_BYTE_LEVEL)
    return REFUSE_KIND(r, "pre_tokenizer: a step after ByteLevel is not supported");
  *out = &tok->steps[tok->n_steps++];
  **out = (mn_cut){.kind = kind};
  return MN_OK;
}

static mn_status read_split(reader *r, const json_t *j) {
  const json_t *pattern = json_object_get(j, "pattern"), *regex = json_object_get(pattern, "Regex");
  const json_t *literal = json_object_get(pattern, "String"), *text = regex ? regex : literal;
  const char *behavior = json_string_value(json_object_get(j, "behavior"));
  if (!json_is_string(text) || !json_string_length(text))
    return REFUSE(r, "pre_tokenizer Split has no pattern; expected {\"Regex\": \"...\"} or {\"String\": \"...\"}");
  bool isolated = behavior && !strcmp(behavior, "Isolated"), removed = behavior && !strcmp(behavior, "Removed");
  if (!isolated && !removed)
    return REFUSE_KIND(r, "pre_tokenizer Split: behavior '%s' is not supported; Isolated and Removed are",
                       show(r, behavior ? behavior : "?"));
  bool invert = json_is_true(json_object_get(j, "invert"));
  mn_cut *s;
  MN_TRY(new_step(r, STEP_SPLIT, &s));
  s->keep_matches = isolated || invert;
  s->keep_gaps = isolated || !invert;
  return mn_pattern_compile(r->name, json_string_value(text), json_string_length(text), !regex, &s->regex);
}

static mn_status read_pre_tokenizer(reader *r, const json_t *j, int depth) {
  const char *type = type_of(j);
  mn_cut *s;
  if (depth > MAX_DEPTH) return REFUSE(r, "pre_tokenizer is nested more than %d deep", MAX_DEPTH);
  if (!strcmp(type, "Sequence")) {
    const json_t *list = json_object_get(j, "pretokenizers");
    if (!json_is_array(list)) return REFUSE(r, "pre_tokenizer Sequence has no list \"pretokenizers\"");
    for (size_t i = 0; i < json_array_size(list); i++) MN_TRY(read_pre_tokenizer(r, json_array_get(list, i), depth + 1));
    return MN_OK;
  }
  if (!strcmp(type, "Split")) return read_split(r, j);
  if (!strcmp(type, "Digits")) {
    MN_TRY(new_step(r, STEP_DIGITS, &s));
    s->one_by_one = json_is_true(json_object_get(j, "individual_digits"));
    return mn_pattern_compile(r->name, s->one_by_one ? "\\p{N}" : "\\p{N}+", s->one_by_one ? 5 : 6, false, &s->regex);
  }
  if (!strcmp(type, "ByteLevel")) {
    MN_TRY(new_step(r, STEP_BYTE_LEVEL, &s));
    const json_t *prefix = json_object_get(j, "add_prefix_space"), *regex = json_object_get(j, "use_regex");
    s->prefix_space = !prefix || json_is_true(prefix);
    if (regex && !json_is_true(regex)) return MN_OK;
    const char *gpt2 = mn_pattern_regex(MN_PATTERN_GPT2);
    return mn_pattern_compile(r->name, gpt2, strlen(gpt2), false, &s->regex);
  }
  return REFUSE_KIND(r, "pre_tokenizer '%s' is not supported; Mneme reads byte-level BPE (ByteLevel, Split, Digits, Sequence)",
                     show(r, type));
}

static mn_status read_normalizer(reader *r, const json_t *j) {
  if (!is_set(j)) return MN_OK;
  if (!strcmp(type_of(j), "Sequence") && json_array_size(json_object_get(j, "normalizers")) == 0) return MN_OK;
  if (!strcmp(type_of(j), "NFC")) { /* nearly all text is NFC; composing the rest needs Unicode's tables */
    mn_log_write(MN_LOG_WARN, "%s: text is taken as it is, not put into normal form C; decomposed accents encode differently", r->name);
    return MN_OK;
  }
  return REFUSE_KIND(r, "normalizer '%s' is not supported", show(r, type_of(j)));
}

static mn_status read_decoder(reader *r, const json_t *j) {
  if (is_set(j) && strcmp(type_of(j), "ByteLevel"))
    return REFUSE_KIND(r, "decoder '%s' is not supported; Mneme reads byte-level BPE", show(r, type_of(j)));
  return MN_OK;
}

/* ---- tokens put around a text ---- */

static mn_status add_around(reader *r, const json_t *j, const char *what, bool after) {
  mn_tokenizer *tok = r->tok;
  json_int_t id = json_is_integer(j) ? json_integer_value(j) : -1;
  if (id < 0 || id >= tok->n_ids || !(tok->tokens[id].flags & TOKEN_EXISTS))
    return REFUSE(r, "post_processor: '%s' names the id %lld, which is no token", show(r, what), (long long)id);
  int *n = after ? &tok->n_after : &tok->n_before;
  if (*n == MAX_TEMPLATE) return REFUSE(r, "post_processor puts more than %d tokens around a text", MAX_TEMPLATE);
  (after ? tok->after : tok->before)[(*n)++] = (int32_t)id;
  return MN_OK;
}

static mn_status read_template(reader *r, const json_t *j) {
  const json_t *single = json_object_get(j, "single"), *special = json_object_get(j, "special_tokens");
  bool after = false;
  for (size_t i = 0; i < json_array_size(single); i++) {
    const json_t *piece = json_array_get(single, i);
    if (json_object_get(piece, "Sequence")) {
      after = true;
      continue;
    }
    const char *name = json_string_value(json_object_get(json_object_get(piece, "SpecialToken"), "id"));
    const json_t *ids = name ? json_object_get(json_object_get(special, name), "ids") : NULL;
    if (!json_is_array(ids)) return REFUSE(r, "post_processor: single[%zu] is no token of special_tokens", i);
    for (size_t k = 0; k < json_array_size(ids); k++) MN_TRY(add_around(r, json_array_get(ids, k), name, after));
  }
  return MN_OK;
}

static mn_status read_post_processor(reader *r, const json_t *j, int depth) {
  if (!is_set(j) || !strcmp(type_of(j), "ByteLevel")) return MN_OK; /* ByteLevel: offsets only */
  if (depth > MAX_DEPTH) return REFUSE(r, "post_processor is nested more than %d deep", MAX_DEPTH);
  const char *type = type_of(j);
  if (!strcmp(type, "TemplateProcessing")) return read_template(r, j);
  if (!strcmp(type, "RobertaProcessing") || !strcmp(type, "BertProcessing")) {
    MN_TRY(add_around(r, json_array_get(json_object_get(j, "cls"), 1), "cls", false));
    return add_around(r, json_array_get(json_object_get(j, "sep"), 1), "sep", true);
  }
  if (!strcmp(type, "Sequence")) {
    const json_t *list = json_object_get(j, "processors");
    for (size_t i = 0; i < json_array_size(list); i++) MN_TRY(read_post_processor(r, json_array_get(list, i), depth + 1));
    return MN_OK;
  }
  return REFUSE_KIND(r, "post_processor '%s' is not supported", show(r, type));
}

/* ---- whole files ---- */

static mn_status read_root(reader *r, const json_t *root) {
  if (!json_is_object(root)) return REFUSE(r, "expected a map with \"model\" and \"added_tokens\"");
  json_t *none = NULL;
  const json_t *added = json_object_get(root, "added_tokens");
  if (!is_set(added)) added = none = json_array();
  mn_status status = json_is_array(added) ? MN_OK : REFUSE(r, "added_tokens is not a list");
  if (status == MN_OK) status = read_model(r, root, added);
  if (status == MN_OK) status = read_added(r, root, added);
  json_decref(none);
  MN_TRY(status);
  MN_TRY(read_normalizer(r, json_object_get(root, "normalizer")));
  const json_t *pre = json_object_get(root, "pre_tokenizer");
  if (is_set(pre)) MN_TRY(read_pre_tokenizer(r, pre, 0));
  const mn_tokenizer *tok = r->tok;
  if (!tok->n_steps || tok->steps[tok->n_steps - 1].kind != STEP_BYTE_LEVEL)
    return REFUSE_KIND(r, "pre_tokenizer has no ByteLevel; Mneme reads byte-level BPE");
  MN_TRY(read_post_processor(r, json_object_get(root, "post_processor"), 0));
  return read_decoder(r, json_object_get(root, "decoder"));
}

mn_status mn_tokenizer_parse(const char *name, const char *json, size_t n, mn_tokenizer **out) {
  *out = NULL;
  json_error_t error;
  json_t *root = json_loadb(json, n, JSON_REJECT_DUPLICATES, &error);
  if (!root) {
    char shown[MN_PRINTABLE];
    return mn_fail(MN_ERR_FORMAT, "%s:%d: not JSON: %s", name, error.line, mn_printable(error.text, shown));
  }
  mn_tokenizer *tok = mn_calloc(1, sizeof *tok);
  mn_status status = MN_ERR_MEMORY;
  if (tok && (tok->arena = mn_arena_new()) && (tok->source = mn_alloc(n + 1))) {
    memcpy(tok->source, json, n);
    tok->source[n] = 0;
    tok->source_len = n;
    status = read_root(&(reader){.name = name, .tok = tok}, root);
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

/* ---- writing ---- */

static void put_quoted(mn_text *out, const char *s, size_t n) { /* s is valid UTF-8 */
  mn_text_add(out, "\"");
  for (size_t i = 0; i < n; i++) {
    unsigned char c = (unsigned char)s[i];
    if (c == '"' || c == '\\') mn_text_addf(out, "\\%c", c);
    else if (c < 0x20) mn_text_addf(out, "\\u%04x", c);
    else mn_text_add_bytes(out, &s[i], 1);
  }
  mn_text_add(out, "\"");
}

/* The key of a token: specials as they are, others with each byte as its character. */
static void put_key(mn_text *out, const bpe_spec *spec, int32_t id) {
  const mn_span *t = &spec->tokens[id];
  if (spec->special[id]) {
    put_quoted(out, t->data, t->size);
    return;
  }
  mn_text key = {0};
  for (size_t i = 0; i < t->size; i++) {
    char coded[4];
    mn_text_add_bytes(&key, coded, mn_utf8_put(coded, mn_byte_to_char((unsigned char)t->data[i])));
  }
  if (key.failed || !key.data) out->failed = true;
  else put_quoted(out, key.data, key.len);
  mn_text_free(&key);
}

mn_status mn_tokenizer_write_json(const bpe_spec *spec, mn_text *out) {
  bool first = true, gpt2 = spec->regex && !strcmp(spec->regex, mn_pattern_regex(MN_PATTERN_GPT2));
  mn_text_add(out, "{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n  \"added_tokens\": [");
  for (int32_t id = 0; id < spec->n_tokens; id++) {
    if (!spec->special[id]) continue;
    mn_text_addf(out, "%s\n    {\"id\": %d, \"content\": ", first ? "" : ",", id);
    put_key(out, spec, id);
    mn_text_add(out, ", \"single_word\": false, \"lstrip\": false, \"rstrip\": false, \"normalized\": false, \"special\": true}");
    first = false;
  }
  mn_text_add(out, "\n  ],\n  \"normalizer\": null,\n  \"pre_tokenizer\": ");
  if (spec->regex && !gpt2) {
    mn_text_add(out, "{\"type\": \"Sequence\", \"pretokenizers\": [\n    {\"type\": \"Split\", \"pattern\": {\"Regex\": ");
    put_quoted(out, spec->regex, strlen(spec->regex));
    mn_text_add(out, "}, \"behavior\": \"Isolated\", \"invert\": false},\n    ");
  }
  mn_text_addf(out, "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": true, \"use_regex\": %s}%s",
               gpt2 ? "true" : "false", spec->regex && !gpt2 ? "\n  ]}" : "");
  mn_text_add(out, ",\n  \"post_processor\": null,\n  \"decoder\": {\"type\": \"ByteLevel\", \"add_prefix_space\": true, "
                   "\"trim_offsets\": true, \"use_regex\": true},\n  \"model\": {\n    \"type\": \"BPE\",\n"
                   "    \"dropout\": null,\n    \"unk_token\": null,\n    \"continuing_subword_prefix\": null,\n"
                   "    \"end_of_word_suffix\": null,\n    \"fuse_unk\": false,\n    \"byte_fallback\": false,\n"
                   "    \"ignore_merges\": false,\n    \"vocab\": {");
  for (int32_t id = 0; id < spec->n_tokens; id++) {
    mn_text_add(out, id ? ",\n      " : "\n      ");
    put_key(out, spec, id);
    mn_text_addf(out, ": %d", id);
  }
  mn_text_add(out, "\n    },\n    \"merges\": [");
  for (size_t i = 0; i < spec->n_merges; i++) {
    mn_text_add(out, i ? ",\n      [" : "\n      [");
    put_key(out, spec, spec->merges[i][0]);
    mn_text_add(out, ", ");
    put_key(out, spec, spec->merges[i][1]);
    mn_text_add(out, "]");
  }
  mn_text_add(out, "\n    ]\n  }\n}\n");
  return mn_text_status(out);
}
