/* tokenizer_parts.c - the sections of tokenizer.json beside the model: normalizer, pre_tokenizer, post_processor, decoder. What is not
 * implemented is refused by name. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "format/tokenizer_reading.h"

enum { MAX_DEPTH = 8, MAX_CHARSMAP = 16 << 20 };

static bool is(const json_t *j, const char *type) { return !strcmp(type_of(j), type); }

/* A switch with its default. */
static bool on(const json_t *j, const char *key, bool otherwise) {
  const json_t *x = json_object_get(j, key);
  return is_set(x) ? json_is_true(x) : otherwise;
}

static mn_status text_of(reader *r, const json_t *j, const char *where, const char *key, const char **out, size_t *n) {
  const json_t *x = json_object_get(j, key);
  if (!json_is_string(x)) return REFUSE(r, "%s: %s has no text \"%s\"", where, type_of(j), key);
  *n = json_string_length(x);
  char *copy = mn_arena_alloc(r->tok->arena, *n + 1);
  if (!copy) return MN_ERR_MEMORY;
  memcpy(copy, json_string_value(x), *n);
  *out = copy;
  return MN_OK;
}

/* {"Regex": "..."} or {"String": "..."} */
static mn_status pattern_of(reader *r, const json_t *j, const char *where, const char **text, size_t *n, bool *literal) {
  const json_t *pattern = json_object_get(j, "pattern"), *regex = json_object_get(pattern, "Regex");
  const json_t *x = regex ? regex : json_object_get(pattern, "String");
  if (!json_is_string(x) || !json_string_length(x))
    return REFUSE(r, "%s %s has no pattern; expected {\"Regex\": \"...\"} or {\"String\": \"...\"}", where, type_of(j));
  *text = json_string_value(x);
  *n = json_string_length(x);
  *literal = !regex;
  return MN_OK;
}

/* A list inside a Sequence; NULL: not a Sequence. */
static mn_status list_of(reader *r, const json_t *j, const char *where, const char *key, int depth, const json_t **list) {
  *list = NULL;
  if (depth > MAX_DEPTH) return REFUSE(r, "%s is nested more than %d deep", where, MAX_DEPTH);
  if (!is(j, "Sequence")) return MN_OK;
  *list = json_object_get(j, key);
  return json_is_array(*list) ? MN_OK : REFUSE(r, "%s Sequence has no list \"%s\"", where, key);
}

/* ---- normalizer ---- */

static int digit_of(char c) {
  static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  const char *at = c ? strchr(digits, c) : NULL;
  return at ? (int)(at - digits) : -1;
}

static mn_status charsmap_of(reader *r, const json_t *j, mn_norm *norm) {
  const json_t *x = json_object_get(j, "precompiled_charsmap");
  const char *s = json_string_value(x);
  size_t n = s ? json_string_length(x) : 0, out = 0;
  if (!s) return REFUSE(r, "normalizer Precompiled has no text \"precompiled_charsmap\"");
  if (n > MAX_CHARSMAP) return REFUSE(r, "normalizer Precompiled: a map of %zu bytes is too large", n);
  char *bytes = mn_alloc(n / 4 * 3 + 4);
  if (!bytes) return MN_ERR_MEMORY;
  uint32_t four = 0;
  int have = 0;
  mn_status status = MN_OK;
  for (size_t i = 0; i < n && s[i] != '=' && status == MN_OK; i++) {
    int digit = digit_of(s[i]);
    if (digit < 0) status = REFUSE(r, "normalizer Precompiled: byte %zu of the map is not Base64", i);
    four = four << 6 | (uint32_t)(digit & 63);
    have += 6;
    if (have >= 8) bytes[out++] = (char)(four >> (have -= 8));
  }
  if (status == MN_OK) status = mn_charsmap_read(r->name, r->tok->arena, bytes, out, norm);
  free(bytes);
  norm->by_grapheme = !on(j, "longest", false); /* our own key, of charsmaps that came from a GGUF file */
  return status;
}

static mn_status read_normalizer(reader *r, const json_t *j, int depth) {
  static const struct {
    const char *type;
    mn_norm_kind kind;
  } kinds[] = {{"NFC", NORM_NFC},
               {"NFD", NORM_NFD},
               {"NFKC", NORM_NFKC},
               {"NFKD", NORM_NFKD},
               {"Lowercase", NORM_LOWERCASE},
               {"StripAccents", NORM_STRIP_ACCENTS},
               {"BertNormalizer", NORM_BERT},
               {"Replace", NORM_REPLACE},
               {"Prepend", NORM_PREPEND},
               {"Strip", NORM_STRIP},
               {"Nmt", NORM_NMT},
               {"Precompiled", NORM_CHARSMAP}};
  enum { KINDS = sizeof kinds / sizeof *kinds };
  mn_tokenizer *tok = r->tok;
  const json_t *list;
  if (!is_set(j)) return MN_OK;
  MN_TRY(list_of(r, j, "normalizer", "normalizers", depth, &list));
  for (size_t i = 0; i < json_array_size(list); i++) MN_TRY(read_normalizer(r, json_array_get(list, i), depth + 1));
  if (list) return MN_OK;
  int k = 0;
  while (k < KINDS && !is(j, kinds[k].type)) k++;
  if (k == KINDS) return REFUSE_KIND(r, "normalizer '%s' is not supported", show(r, type_of(j)));
  if (tok->n_norms == MAX_STEPS) return REFUSE(r, "normalizer has more than %d steps", MAX_STEPS);
  mn_norm *norm = &tok->norms[tok->n_norms++];
  *norm = (mn_norm){.kind = kinds[k].kind};
  if (norm->kind == NORM_PREPEND) return text_of(r, j, "normalizer", "prepend", &norm->to, &norm->to_n);
  if (norm->kind == NORM_CHARSMAP) return charsmap_of(r, j, norm);
  norm->left = on(j, "strip_left", true);
  norm->right = on(j, "strip_right", true);
  norm->clean = on(j, "clean_text", true);
  norm->chinese = on(j, "handle_chinese_chars", true);
  norm->lower = on(j, "lowercase", true);
  norm->accents = on(j, "strip_accents", norm->lower);
  if (norm->kind != NORM_REPLACE) return MN_OK;
  bool literal;
  const char *text;
  MN_TRY(pattern_of(r, j, "normalizer", &text, &norm->from_n, &literal));
  MN_TRY(text_of(r, j, "normalizer", "content", &norm->to, &norm->to_n));
  norm->from = mn_arena_strdup(tok->arena, text);
  if (!norm->from) return MN_ERR_MEMORY;
  return literal ? MN_OK : mn_regex_compile(r->name, text, norm->from_n, false, &norm->regex);
}

/* ---- pre_tokenizer ---- */

bool mn_parts_byte_level(const struct json_t *root) {
  const json_t *pre = json_object_get(root, "pre_tokenizer");
  const json_t *list = json_object_get(pre, "pretokenizers");
  if (is(pre, "ByteLevel")) return true;
  for (size_t i = 0; i < json_array_size(list); i++) {
    json_t *inner = json_pack("{sO}", "pre_tokenizer", json_array_get(list, i));
    bool found = inner && mn_parts_byte_level(inner);
    json_decref(inner);
    if (found) return true;
  }
  return false;
}

static mn_status behavior_of(reader *r, const json_t *j, mn_cut_behavior *out) {
  static const char *const names[] = {"Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"};
  const json_t *x = json_object_get(j, "behavior");
  const char *name = json_string_value(x);
  if (!is_set(x) && is(j, "Punctuation")) return *out = CUT_ISOLATED, MN_OK;
  for (int i = 0; name && i < 5; i++)
    if (!strcmp(name, names[i])) return *out = (mn_cut_behavior)i, MN_OK;
  return REFUSE_KIND(
      r, "pre_tokenizer %s: behavior '%s' is not supported; Isolated, Removed, MergedWithPrevious, MergedWithNext and Contiguous are",
      type_of(j), show(r, name ? name : "?"));
}

static mn_status read_split(reader *r, const json_t *j) {
  const char *text;
  size_t n;
  bool literal;
  mn_cut_behavior behavior;
  MN_TRY(pattern_of(r, j, "pre_tokenizer", &text, &n, &literal));
  MN_TRY(behavior_of(r, j, &behavior));
  return mn_cut_add(r->tok, r->name, text, literal, behavior, on(j, "invert", false));
}

static mn_status new_change(reader *r, mn_cut step) {
  mn_tokenizer *tok = r->tok;
  if (tok->n_steps == MAX_STEPS) return REFUSE(r, "pre_tokenizer has more than %d steps", MAX_STEPS);
  tok->steps[tok->n_steps++] = step;
  return MN_OK;
}

/* Where Metaspace puts its mark; old files say it with add_prefix_space. */
static mn_status prepend_of(reader *r, const json_t *j, const char *where, mn_prepend *out) {
  const json_t *scheme = json_object_get(j, "prepend_scheme");
  const char *name = json_string_value(scheme);
  *out = on(j, "add_prefix_space", true) ? PREPEND_ALWAYS : PREPEND_NEVER;
  if (!is_set(scheme)) return MN_OK;
  for (int i = 0; name && i < 3; i++)
    if (!strcmp(name, (const char *const[]){"never", "first", "always"}[i])) return *out = (mn_prepend)i, MN_OK;
  return REFUSE_KIND(r, "%s Metaspace: prepend_scheme '%s' is not supported; always, first and never are", where,
                     show(r, name ? name : "?"));
}

static mn_status mark_of(reader *r, const json_t *j, const char *where, const char **mark, size_t *n) {
  *mark = "\xE2\x96\x81"; /* U+2581 */
  *n = 3;
  if (is_set(json_object_get(j, "str_rep")) && !is_set(json_object_get(j, "replacement"))) return text_of(r, j, where, "str_rep", mark, n);
  if (is_set(json_object_get(j, "replacement"))) MN_TRY(text_of(r, j, where, "replacement", mark, n));
  size_t len = 0;
  if (*n) mn_utf8_next(*mark, *n, &len);
  return len && len == *n ? MN_OK : REFUSE(r, "%s Metaspace: replacement is not one character", where);
}

static mn_status read_metaspace(reader *r, const json_t *j) {
  mn_cut step = {.kind = CUT_METASPACE};
  MN_TRY(mark_of(r, j, "pre_tokenizer", &step.mark, &step.mark_n));
  MN_TRY(prepend_of(r, j, "pre_tokenizer", &step.prepend));
  MN_TRY(new_change(r, step));
  return on(j, "split", true) ? mn_cut_add(r->tok, r->name, step.mark, true, CUT_WITH_NEXT, false) : MN_OK;
}

static mn_status read_byte_level(reader *r, const json_t *j) {
  r->byte_level_seen = true;
  if (on(j, "add_prefix_space", true)) MN_TRY(new_change(r, (mn_cut){.kind = CUT_PREFIX_SPACE, .prepend = PREPEND_ALWAYS}));
  if (!on(j, "use_regex", true)) return MN_OK;
  return mn_cut_add(r->tok, r->name, mn_pattern_regex(MN_PATTERN_GPT2), false, CUT_ISOLATED, false);
}

static mn_status read_pre_tokenizer(reader *r, const json_t *j, int depth) {
  mn_tokenizer *tok = r->tok;
  const json_t *list;
  MN_TRY(list_of(r, j, "pre_tokenizer", "pretokenizers", depth, &list));
  for (size_t i = 0; i < json_array_size(list); i++) MN_TRY(read_pre_tokenizer(r, json_array_get(list, i), depth + 1));
  if (list) return MN_OK;
  if (r->byte_level_seen) return REFUSE_KIND(r, "pre_tokenizer: a step after ByteLevel is not supported");
  if (is(j, "Split")) return read_split(r, j);
  if (is(j, "ByteLevel")) return read_byte_level(r, j);
  if (is(j, "Metaspace")) return read_metaspace(r, j);
  bool bert = is(j, "BertPreTokenizer");
  if (bert || is(j, "WhitespaceSplit")) MN_TRY(mn_cut_add(tok, r->name, "\\s", false, CUT_REMOVED, false));
  if (is(j, "WhitespaceSplit")) return MN_OK;
  if (is(j, "Whitespace")) { /* \w+|[^\w\s]+ with \w as Rust has it: six signs of Latin-1 are out, the joiners in */
#define SIX "\xC2\xB2\xC2\xB3\xC2\xB9\xC2\xBC-\xC2\xBE"
    return mn_cut_add(tok, r->name, "[\\w\\x{200c}\\x{200d}&&[^" SIX "]]+|[[^\\w\\s\\x{200c}\\x{200d}]" SIX "]+", false, CUT_REMOVED, true);
  }
  if (bert || is(j, "Punctuation")) {
    mn_cut_behavior behavior = CUT_ISOLATED;
    if (!bert) MN_TRY(behavior_of(r, j, &behavior));
    return mn_cut_add(tok, r->name, mn_punctuation_class, false, behavior, false);
  }
  if (is(j, "Digits")) {
    bool each = on(j, "individual_digits", false);
    return mn_cut_add(tok, r->name, "[\\p{N}\\x{11DE0}-\\x{11DE9}\\x{16FF4}-\\x{16FF6}]", false, each ? CUT_ISOLATED : CUT_CONTIGUOUS,
                      false);
  }
  if (is(j, "CharDelimiterSplit")) {
    const char *text;
    size_t n;
    MN_TRY(text_of(r, j, "pre_tokenizer", "delimiter", &text, &n));
    return n ? mn_cut_add(tok, r->name, text, true, CUT_REMOVED, false)
             : REFUSE(r, "pre_tokenizer CharDelimiterSplit has an empty delimiter");
  }
  return REFUSE_KIND(r, "pre_tokenizer '%s' is not supported", show(r, type_of(j)));
}

/* ---- decoder ---- */

static mn_status strip_of(reader *r, const json_t *j, mn_decode_op *op) {
  op->kind = DECODE_STRIP;
  MN_TRY(text_of(r, j, "decoder", "content", &op->from, &op->from_n));
  json_int_t left = json_integer_value(json_object_get(j, "start")), right = json_integer_value(json_object_get(j, "stop"));
  if (!op->from_n || left < 0 || right < 0 || left > 1000 || right > 1000)
    return REFUSE(r, "decoder Strip needs a content and start and stop of 0 ... 1000");
  op->left = (int)left;
  op->right = (int)right;
  return MN_OK;
}

static mn_status read_decoder(reader *r, const json_t *j, int depth) {
  mn_tokenizer *tok = r->tok;
  const json_t *list;
  MN_TRY(list_of(r, j, "decoder", "decoders", depth, &list));
  for (size_t i = 0; i < json_array_size(list); i++) MN_TRY(read_decoder(r, json_array_get(list, i), depth + 1));
  if (list) return MN_OK;
  if (is(j, "ByteLevel") && tok->byte_level && !tok->n_decode) return MN_OK; /* the vocabulary is bytes already */
  if (tok->byte_level) return REFUSE_KIND(r, "decoder '%s' beside ByteLevel is not supported", show(r, type_of(j)));
  if (is(j, "Fuse")) {
    r->fused = true;
    return MN_OK;
  }
  if (tok->n_decode == MAX_STEPS) return REFUSE(r, "decoder has more than %d steps", MAX_STEPS);
  mn_decode_op op = {.kind = DECODE_REPLACE};
  if (r->fused) { /* from here on the steps see the whole text */
    if (!is(j, "Strip") || tok->strip_n)
      return REFUSE_KIND(r, "decoder '%s' after Fuse is not supported; one Strip is", show(r, type_of(j)));
    MN_TRY(strip_of(r, j, &op));
    tok->strip = op.from;
    tok->strip_n = op.from_n;
    tok->strip_left = op.left;
    tok->strip_right = op.right;
    return MN_OK;
  }
  if (is(j, "ByteLevel")) {
    op.kind = DECODE_BYTE_LEVEL;
  } else if (is(j, "ByteFallback")) {
    op.kind = DECODE_BYTE_FALLBACK;
  } else if (is(j, "Metaspace")) {
    mn_prepend prepend;
    op.kind = DECODE_METASPACE;
    MN_TRY(mark_of(r, j, "decoder", &op.from, &op.from_n));
    MN_TRY(prepend_of(r, j, "decoder", &prepend));
    op.skip_first = prepend != PREPEND_NEVER;
  } else if (is(j, "WordPiece")) {
    op.kind = DECODE_WORDPIECE;
    op.cleanup = on(j, "cleanup", true);
    MN_TRY(text_of(r, j, "decoder", "prefix", &op.from, &op.from_n));
  } else if (is(j, "BPEDecoder")) {
    op.kind = DECODE_SUFFIX;
    MN_TRY(text_of(r, j, "decoder", "suffix", &op.from, &op.from_n));
    tok->suffix_last = true;
  } else if (is(j, "Strip")) {
    MN_TRY(strip_of(r, j, &op));
  } else if (is(j, "Replace")) {
    const char *text;
    bool literal;
    MN_TRY(pattern_of(r, j, "decoder", &text, &op.from_n, &literal));
    MN_TRY(text_of(r, j, "decoder", "content", &op.to, &op.to_n));
    if (!(op.from = mn_arena_strdup(tok->arena, text))) return MN_ERR_MEMORY;
    if (!literal) MN_TRY(mn_regex_compile(r->name, text, op.from_n, false, &op.regex));
  } else {
    return REFUSE_KIND(r, "decoder '%s' is not supported", show(r, type_of(j)));
  }
  tok->decode[tok->n_decode++] = op;
  return MN_OK;
}

/* ---- post_processor: tokens put around a text ---- */

static mn_status add_around(reader *r, const json_t *j, const char *what, bool after) {
  mn_tokenizer *tok = r->tok;
  json_int_t id = json_is_integer(j) ? json_integer_value(j) : -1;
  if (id < 0 || id >= tok->n_ids || !(tok->tokens[id].flags & TOKEN_EXISTS))
    return REFUSE(r, "post_processor: '%s' names the id %lld, which is no token", show(r, what ? what : "?"), (long long)id);
  int *n = after ? &tok->n_after : &tok->n_before;
  if (*n == MAX_TEMPLATE) return REFUSE(r, "post_processor puts more than %d tokens around a text", MAX_TEMPLATE);
  (after ? tok->after : tok->before)[(*n)++] = (int32_t)id;
  return MN_OK;
}

static mn_status read_template(reader *r, const json_t *j) {
  const json_t *single = json_object_get(j, "single"), *special = json_object_get(j, "special_tokens");
  bool after = false;
  for (size_t i = 0; i < json_array_size(single); i++) {
    const json_t *piece = json_array_get(single, i), *text = json_object_get(piece, "Sequence");
    if (text) {
      const char *which = json_string_value(json_object_get(text, "id"));
      if (after || !which || strcmp(which, "A") != 0)
        return REFUSE(r, "post_processor: single[%zu] is '%s'; a text stands in it once, as A", i, show(r, which ? which : "?"));
      after = true;
      continue;
    }
    const char *name = json_string_value(json_object_get(json_object_get(piece, "SpecialToken"), "id"));
    const json_t *ids = name ? json_object_get(json_object_get(special, name), "ids") : NULL;
    if (!json_is_array(ids)) return REFUSE(r, "post_processor: single[%zu] is no token of special_tokens", i);
    for (size_t k = 0; k < json_array_size(ids); k++) MN_TRY(add_around(r, json_array_get(ids, k), name, after));
  }
  return after ? MN_OK : REFUSE(r, "post_processor: single has no place for the text (A)");
}

static mn_status read_post_processor(reader *r, const json_t *j, int depth) {
  if (!is_set(j) || is(j, "ByteLevel")) return MN_OK; /* ByteLevel: offsets only */
  const json_t *list;
  MN_TRY(list_of(r, j, "post_processor", "processors", depth, &list));
  for (size_t i = 0; i < json_array_size(list); i++) MN_TRY(read_post_processor(r, json_array_get(list, i), depth + 1));
  if (list) return MN_OK;
  if (is(j, "TemplateProcessing")) return read_template(r, j);
  if (!is(j, "RobertaProcessing") && !is(j, "BertProcessing"))
    return REFUSE_KIND(r, "post_processor '%s' is not supported", show(r, type_of(j)));
  MN_TRY(add_around(r, json_array_get(json_object_get(j, "cls"), 1), "cls", false));
  return add_around(r, json_array_get(json_object_get(j, "sep"), 1), "sep", true);
}

/* What tokenizer.json has no place for: our own key "mneme" of the model, in tokenizers that came from a GGUF file. */
static mn_status read_own(reader *r, const json_t *own) {
  mn_tokenizer *tok = r->tok;
  const json_t *ends = json_object_get(own, "ends"), *bos = json_object_get(own, "bos"), *eos = json_object_get(own, "eos");
  if (!is_set(own)) return MN_OK;
  const json_t *silent = json_object_get(own, "silent");
  for (size_t i = 0; i < json_array_size(silent); i++) { /* of Unigram: pieces that text never becomes */
    json_int_t id = json_integer_value(json_array_get(silent, i));
    if (id < 0 || id >= tok->n_ids || !tok->score) return REFUSE(r, "model.mneme.silent names a token that is none of Unigram's");
    tok->score[id] = INFINITY;
  }
  int32_t ids[MAX_ENDS];
  size_t n = json_array_size(ends);
  if (n > MAX_ENDS) return REFUSE(r, "model.mneme.ends has %zu tokens; at most %d", n, MAX_ENDS);
  for (size_t i = 0; i < n; i++) ids[i] = (int32_t)json_integer_value(json_array_get(ends, i));
  MN_TRY(mn_context(mn_tokenizer_set_ends(tok, ids, n), "%s: model.mneme", r->name));
  if (!json_is_array(ends)) tok->ends_given = false;
  if (is_set(eos)) tok->eos = (int32_t)json_integer_value(eos);
  if (is_set(bos)) tok->bos = (int32_t)json_integer_value(bos);
  if (tok->eos >= tok->n_ids || tok->bos >= tok->n_ids || tok->eos < -2 || tok->bos < -1)
    return REFUSE(r, "model.mneme names a token that the vocabulary does not have");
  return MN_OK;
}

mn_status mn_parts_read(mn_tok_reader *r, const struct json_t *root) {
  mn_tokenizer *tok = r->tok;
  const json_t *pre = json_object_get(root, "pre_tokenizer"), *decoder = json_object_get(root, "decoder");
  MN_TRY(read_normalizer(r, json_object_get(root, "normalizer"), 0));
  if (is_set(pre)) MN_TRY(read_pre_tokenizer(r, pre, 0));
  MN_TRY(read_post_processor(r, json_object_get(root, "post_processor"), 0));
  if (is_set(decoder)) MN_TRY(read_decoder(r, decoder, 0));
  else tok->join_by_space = !tok->byte_level;
  return read_own(r, json_object_get(json_object_get(root, "model"), "mneme"));
}
