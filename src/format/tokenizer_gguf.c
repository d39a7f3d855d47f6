/* tokenizer_gguf.c - see tokenizer_gguf.h. The vocabulary is read straight from the metadata; how text is normalised, cut, framed and decoded
 * is said as the sections of a tokenizer.json, and read by the reader of those, so that there is one meaning of each. */
#include "format/tokenizer_gguf.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "format/json_load.h"
#include "format/tokenizer_internal.h"

enum { KIND_NORMAL = 1, KIND_UNKNOWN = 2, KIND_CONTROL = 3, KIND_USER = 4, KIND_UNUSED = 5, KIND_BYTE = 6 };
enum { MAX_TOKENS = 1 << 24, MAX_TOKEN = 1 << 16, MAX_CHARSMAP = 16 << 20 };

typedef struct gguf_reader {
  const mn_gguf *g;
  const char *name; /* of the file */
  mn_tokenizer *tok;
  mn_arena *arena; /* of what is needed while reading */
  mn_family family;
  const mn_gguf_bytes *text; /* (n) */
  const int64_t *kind;       /* (n); NULL: all are normal */
  const float *score;        /* (n); NULL: none */
  size_t n;
  int32_t bos, eos, unk, sep;
  bool add_bos, add_eos, add_space, squeeze;
  bool phi3, masks; /* special tokens take the blanks behind them; the mask those before it */
} gguf_reader;

#define KEY(name)               "tokenizer.ggml." name
#define REFUSE_KEY(r, key, ...) (mn_fail(MN_ERR_FORMAT, __VA_ARGS__), mn_context(MN_ERR_FORMAT, "%s: " KEY(key), (r)->name))

bool mn_tokenizer_in_gguf(const mn_gguf *g) { return mn_gguf_meta_find(g, KEY("tokens")) != NULL; }

static bool is_one_of(const char *const *names, const mn_gguf_bytes *text) {
  for (; *names; names++)
    if (strlen(*names) == text->n && !memcmp(*names, text->data, text->n)) return true;
  return false;
}

/* Tokens with some names are control tokens, whatever the file says of them: there are files that say otherwise, and none in which they are
 * words of a text. */
static bool is_control(const mn_gguf_bytes *text) {
  if (!text->n || !strchr("<[_", text->data[0])) return false;
  for (const mn_token_name *k = mn_token_names; k->name; k++)
    if ((k->is & MN_NAME_CONTROL) && strlen(k->name) == text->n && !memcmp(k->name, text->data, text->n)) return true;
  return false;
}

static int kind_of(const gguf_reader *r, size_t i) {
  const int kind = r->kind ? (int)r->kind[i] : KIND_NORMAL;
  return kind != KIND_CONTROL && is_control(&r->text[i]) ? KIND_CONTROL : kind;
}

/* What no key of the file says of special tokens: a model's name or its pre-tokeniser's does. */
static int blanks_of(const gguf_reader *r, size_t i) {
  static const char *const plain[] = {"<unk>", "<s>", "<|endoftext|>", NULL}, *const mask[] = {"<mask>", NULL};
  if (r->phi3 && !is_one_of(plain, &r->text[i])) return TOKEN_RSTRIP;
  return r->masks && is_one_of(mask, &r->text[i]) ? TOKEN_LSTRIP : 0;
}

static mn_status id_of(gguf_reader *r, const char *key, int32_t otherwise, int32_t *out) {
  uint32_t none = UINT32_MAX, id;
  MN_TRY(mn_gguf_u32(r->g, key, &none, &id));
  *out = id == UINT32_MAX ? otherwise : (int32_t)id;
  if (id != UINT32_MAX && id >= r->n)
    return mn_fail(MN_ERR_FORMAT, "%s: %s is %u, but the vocabulary has %zu tokens", r->name, key, id, r->n);
  if (*out >= 0 && (size_t)*out >= r->n) *out = -1; /* the usual one, in a vocabulary without it */
  return MN_OK;
}

/* ---- tokens ---- */

/* Numbers with a point, or whole ones. */
static mn_status read_scores(gguf_reader *r, size_t *n) {
  const mn_gguf_meta *m = mn_gguf_meta_find(r->g, KEY("scores"));
  const int64_t *whole;
  if (m->kind != MN_GGUF_ARRAY || m->of != MN_GGUF_INT32) return mn_gguf_floats(r->g, KEY("scores"), r->arena, &r->score, n);
  MN_TRY(mn_gguf_ints(r->g, KEY("scores"), r->arena, &whole, n));
  float *score = mn_arena_alloc(r->arena, (*n + 1) * sizeof *score);
  if (!score) return MN_ERR_MEMORY;
  for (size_t i = 0; i < *n; i++) score[i] = (float)whole[i];
  r->score = score;
  return MN_OK;
}

static mn_status read_lists(gguf_reader *r) {
  size_t n;
  MN_TRY(mn_gguf_strings(r->g, KEY("tokens"), r->arena, &r->text, &r->n));
  if (!r->n || r->n > MAX_TOKENS) return REFUSE_KEY(r, "tokens", "%zu tokens; 1 ... %d are possible", r->n, MAX_TOKENS);
  if (mn_gguf_meta_find(r->g, KEY("token_type"))) {
    MN_TRY(mn_gguf_ints(r->g, KEY("token_type"), r->arena, &r->kind, &n));
    if (n != r->n) return REFUSE_KEY(r, "token_type", "%zu kinds for %zu tokens", n, r->n);
  }
  if (mn_gguf_meta_find(r->g, KEY("scores"))) {
    MN_TRY(read_scores(r, &n));
    if (n != r->n) return REFUSE_KEY(r, "scores", "%zu scores for %zu tokens", n, r->n);
    for (size_t i = 0; i < n; i++)
      if (!isfinite(r->score[i])) return REFUSE_KEY(r, "scores", "the score of token %zu is no finite number", i);
  }
  return MN_OK;
}

/* WordPiece's tokens stand with a mark where a word begins, and without ## inside. */
static size_t word_piece(const char *s, size_t n, int kind, char *out) {
  static const char mark[] = "\xE2\x96\x81";
  if (n > 3 && !memcmp(s, mark, 3)) {
    memcpy(out, s + 3, n - 3);
    return n - 3;
  }
  bool whole = kind == KIND_CONTROL || kind == KIND_UNKNOWN || kind == KIND_USER || (n > 2 && s[0] == '[' && s[n - 1] == ']');
  memcpy(out, "##", whole ? 0 : 2);
  memcpy(out + (whole ? 0 : 2), s, n);
  return n + (whole ? 0 : 2);
}

/* In a byte-level vocabulary each character of a key is a byte; a key with any other character is taken as it is. */
static size_t from_characters(const char *s, size_t n, char *out, bool *raw) {
  size_t k = 0;
  for (size_t i = 0, len; i < n; i += len) {
    int byte = mn_char_to_byte(mn_utf8_next(s + i, n - i, &len));
    if (byte < 0) {
      memcpy(out, s, n);
      *raw = true;
      return n;
    }
    out[k++] = (char)byte;
  }
  return k;
}

static int hex_digit(char c) {
  return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* RWKV's vocabulary is written as Python writes bytes: \t, \n, \r, \x0a, and any other sign behind a backslash for itself. */
static mn_status from_escapes(gguf_reader *r, size_t id, char *out, size_t *n) {
  const char *s = r->text[id].data, *end = s + r->text[id].n;
  char *at = out;
  for (; s < end; s++) {
    if (*s != '\\') {
      *at++ = *s;
      continue;
    }
    if (++s == end) return REFUSE_KEY(r, "tokens", "token %zu ends with a backslash that nothing follows", id);
    if (*s != 'x') {
      *at++ = (char)(*s == 't' ? '\t' : *s == 'n' ? '\n' : *s == 'r' ? '\r' : *s);
      continue;
    }
    const int high = end - s > 2 ? hex_digit(s[1]) : -1, low = high < 0 ? -1 : hex_digit(s[2]);
    if (low < 0) return REFUSE_KEY(r, "tokens", "token %zu has a \\x without two digits behind it", id);
    *at++ = (char)(high << 4 | low);
    s += 2;
  }
  *n = (size_t)(at - out);
  return MN_OK;
}

static mn_status read_token(gguf_reader *r, size_t i, char **at) {
  mn_tokenizer *tok = r->tok;
  token *t = &tok->tokens[i];
  const char *s = r->text[i].data;
  size_t n = r->text[i].n;
  int kind = kind_of(r, i);
  char empty[32];
  if (n > MAX_TOKEN) return REFUSE_KEY(r, "tokens", "token %zu has %zu bytes; at most %d are possible", i, n, MAX_TOKEN);
  if (mn_utf8_valid(s, n) != n) return REFUSE_KEY(r, "tokens", "token %zu is not UTF-8", i);
  if (!n) { /* never made from text */
    n = (size_t)snprintf(empty, sizeof empty, "[EMPTY_%zu]", i);
    s = empty;
    kind = KIND_UNUSED;
  }
  t->key = t->bytes = *at;
  bool is_added = kind == KIND_CONTROL || kind == KIND_USER || (kind == KIND_UNKNOWN && tok->byte_level);
  size_t size = n;
  bool raw = is_added;
  if (tok->model == MODEL_WORDPIECE && tok->byte_level) {
    if (is_added || !r->text[i].n) memcpy(*at, s, n);
    else MN_TRY(from_escapes(r, i, *at, &size));
  } else if (tok->model == MODEL_WORDPIECE) size = word_piece(s, n, kind, *at);
  else if (tok->byte_level && !is_added) size = from_characters(s, n, *at, &raw);
  else memcpy(*at, s, n);
  *at += size;
  t->key_n = t->n = (uint32_t)size;
  t->flags = TOKEN_EXISTS | (raw ? TOKEN_RAW : 0);
  int32_t like = mn_vocab_find(tok, t->key, size); /* bytes may spell what another token is in characters */
  bool like_raw = like >= 0 && (tok->tokens[like].flags & TOKEN_RAW);
  if (like >= 0 && raw == like_raw) return REFUSE_KEY(r, "tokens", "tokens %d and %zu are spelled alike", like, i);
  if (is_added) {
    t->flags |= TOKEN_ADDED | (kind != KIND_USER ? TOKEN_SPECIAL : 0) | blanks_of(r, i);
    tok->added[tok->n_added++] = (int32_t)i;
  }
  if (like < 0 || like_raw) mn_vocab_enter(tok, (int32_t)i);
  return MN_OK;
}

static mn_status read_tokens(gguf_reader *r) {
  mn_tokenizer *tok = r->tok;
  size_t bytes = 0;
  for (size_t i = 0; i < r->n; i++) bytes += r->text[i].n + 40; /* the strings lie in the file, so this is no larger than it */
  char *at = mn_arena_alloc(tok->arena, bytes);
  tok->tokens = mn_calloc(r->n, sizeof *tok->tokens);
  tok->added = mn_alloc(r->n * sizeof *tok->added);
  if (!at || !tok->tokens || !tok->added) return MN_ERR_MEMORY;
  tok->n_ids = (int32_t)r->n;
  MN_TRY(mn_vocab_table(tok, r->n));
  for (size_t i = 0; i < r->n; i++) MN_TRY(read_token(r, i, &at));
  return MN_OK;
}

static mn_status read_bytes(gguf_reader *r) {
  mn_tokenizer *tok = r->tok;
  for (unsigned b = 0; b < 256; b++) {
    tok->byte_id[b] = mn_vocab_find(tok, (char[]){(char)b}, 1);
    if (tok->byte_id[b] < 0 && mn_byte_must_be(b)) return REFUSE_KEY(r, "tokens", "there is no token for byte 0x%02X", b);
  }
  return MN_OK;
}

static mn_status read_merges(gguf_reader *r) {
  mn_tokenizer *tok = r->tok;
  const mn_gguf_bytes *list;
  size_t n;
  MN_TRY(mn_gguf_strings(r->g, KEY("merges"), r->arena, &list, &n));
  if (n > MAX_TOKENS) return REFUSE_KEY(r, "merges", "%zu are too many; at most %d", n, MAX_TOKENS);
  MN_TRY(mn_merge_table(tok, n));
  mn_text both = {0};
  mn_status status = MN_OK;
  for (size_t i = 0; i < n && status == MN_OK; i++) {
    const char *s = list[i].data, *space = list[i].n > 1 ? memchr(s + 1, ' ', list[i].n - 1) : NULL;
    size_t left = space ? (size_t)(space - s) : 0, right = space ? list[i].n - left - 1 : 0;
    if (!left || !right || list[i].n > 2 * MAX_TOKEN || mn_utf8_valid(s, list[i].n) != list[i].n) {
      status = REFUSE_KEY(r, "merges", "merge %zu is not two tokens with a blank between", i);
      break;
    }
    both.len = 0;
    mn_text_add_bytes(&both, s, left);
    mn_text_add_bytes(&both, space + 1, right);
    if ((status = mn_text_status(&both)) != MN_OK) break;
    size_t a = left, all = both.len;
    if (tok->byte_level) {
      char *part = both.data;
      bool raw = false;
      a = from_characters(s, left, part, &raw);
      all = a + from_characters(space + 1, right, part + a, &raw);
    }
    int32_t ids[3] = {mn_vocab_find(tok, both.data, a), mn_vocab_find(tok, both.data + a, all - a), mn_vocab_find(tok, both.data, all)};
    if (ids[0] < 0 || ids[1] < 0 || ids[2] < 0)
      status = REFUSE_KEY(r, "merges", "merge %zu needs a token that is not in the vocabulary", i);
    else mn_merge_enter(tok, ids[0], ids[1], (uint32_t)i, ids[2]);
  }
  mn_text_free(&both);
  return status;
}

/* ---- the sections ---- */

static void put_split(mn_text *t, const char *pattern) {
  mn_text_add(t, "{\"type\": \"Split\", \"pattern\": {\"Regex\": ");
  mn_text_quote(t, pattern, strlen(pattern));
  mn_text_add(t, "}, \"behavior\": \"Isolated\", \"invert\": false}");
}

static void put_base64(mn_text *t, const uint8_t *s, size_t n) {
  static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  for (size_t i = 0; i < n; i += 3) {
    uint32_t three = (uint32_t)s[i] << 16 | (i + 1 < n ? (uint32_t)s[i + 1] << 8 : 0) | (i + 2 < n ? s[i + 2] : 0);
    char four[4] = {digits[three >> 18], digits[three >> 12 & 63], i + 1 < n ? digits[three >> 6 & 63] : '=',
                    i + 2 < n ? digits[three & 63] : '='};
    mn_text_add_bytes(t, four, 4);
  }
}

#define MARK        "\xE2\x96\x81"
#define MARK_SPACES "{\"type\": \"Replace\", \"pattern\": {\"String\": \" \"}, \"content\": \"" MARK "\"}"
#define SPACES_AGAIN                                                                                                                       \
  "{\"type\": \"Replace\", \"pattern\": {\"String\": \"" MARK "\"}, \"content\": \" \"}, {\"type\": \"ByteFallback\"}, {\"type\": \"Fuse\"}"

/* SentencePiece's own normalisation: its table, blanks that are too many, the blank before a text, and the mark for blanks. */
static mn_status put_pieces(gguf_reader *r, mn_text *t) {
  const mn_gguf_meta *map = mn_gguf_meta_find(r->g, KEY("precompiled_charsmap"));
  mn_text_add(t, "{\"type\": \"Sequence\", \"normalizers\": [");
  if (map && map->bytes && r->tok->model == MODEL_UNIGRAM) {
    bool bytes = map->kind == MN_GGUF_ARRAY && (map->of == MN_GGUF_INT8 || map->of == MN_GGUF_UINT8);
    if (!bytes || map->bytes > MAX_CHARSMAP)
      return REFUSE_KEY(r, "precompiled_charsmap", "is not a list of at most %d bytes", MAX_CHARSMAP);
    mn_text_add(t, "{\"type\": \"Precompiled\", \"longest\": true, \"precompiled_charsmap\": \"");
    put_base64(t, map->data, map->bytes);
    mn_text_add(t, "\"}, ");
  }
  if (r->squeeze)
    mn_text_add(t, "{\"type\": \"Strip\", \"strip_left\": true, \"strip_right\": true}, "
                   "{\"type\": \"Replace\", \"pattern\": {\"Regex\": \" {2,}\"}, \"content\": \" \"}, ");
  if (r->add_space) mn_text_add(t, "{\"type\": \"Prepend\", \"prepend\": \"" MARK "\"}, ");
  mn_text_add(t, MARK_SPACES "]}");
  return MN_OK;
}

static mn_status put_parts(gguf_reader *r, mn_text *t) {
  const mn_tokenizer *tok = r->tok;
  mn_text_add(t, "\"normalizer\": ");
  if (tok->model == MODEL_WORDPIECE && !tok->byte_level) {
    bool yes = true, lower, accents;
    MN_TRY(mn_gguf_bool(r->g, KEY("normalizer.lowercase"), &yes, &lower));
    MN_TRY(mn_gguf_bool(r->g, KEY("normalizer.strip_accents"), &lower, &accents));
    mn_text_addf(
        t,
        "{\"type\": \"BertNormalizer\", \"clean_text\": true, \"handle_chinese_chars\": true, \"strip_accents\": %s, \"lowercase\": %s},\n  "
        "\"pre_tokenizer\": {\"type\": \"BertPreTokenizer\"},\n  \"decoder\": {\"type\": \"WordPiece\", \"prefix\": \"##\", \"cleanup\": true}",
        accents ? "true" : "false", lower ? "true" : "false");
  } else if (!tok->byte_level) {
    MN_TRY(put_pieces(r, t));
    mn_text_add(t, ",\n  \"pre_tokenizer\": ");
    if (r->family.characters) put_split(t, r->family.patterns[0]);
    else mn_text_add(t, "null");
    mn_text_addf(t, ",\n  \"decoder\": {\"type\": \"Sequence\", \"decoders\": [" SPACES_AGAIN "%s]}",
                 r->add_space ? ", {\"type\": \"Strip\", \"content\": \" \", \"start\": 1, \"stop\": 0}" : "");
  } else {
    mn_text_add(t, "null,\n  \"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [");
    for (const char *const *p = r->family.patterns; p && *p; p++) {
      put_split(t, *p);
      mn_text_add(t, ",\n    ");
    }
    mn_text_addf(t,
                 "{\"type\": \"ByteLevel\", \"add_prefix_space\": %s, \"trim_offsets\": true, \"use_regex\": false}]},\n  "
                 "\"decoder\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": true, \"use_regex\": false}",
                 r->add_space ? "true" : "false");
  }
  return mn_text_status(t);
}

static void put_special(const gguf_reader *r, int32_t id, mn_text *t) {
  mn_text_add(t, "{\"SpecialToken\": {\"id\": ");
  mn_text_quote(t, r->text[id].data, r->text[id].n);
  mn_text_add(t, ", \"type_id\": 0}}");
}

/* Tokens before and after a text: of WordPiece always those two; of the others a separator stands between two texts alone. */
static void put_frame(const gguf_reader *r, mn_text *t) {
  const bool bert = r->tok->model == MODEL_WORDPIECE && !r->tok->byte_level;
  int32_t before = bert || r->add_bos ? r->bos : -1, after = bert ? r->sep : r->add_eos ? r->eos : -1;
  if (before < 0 && after < 0) {
    mn_text_add(t, ",\n  \"post_processor\": null");
    return;
  }
  mn_text_add(t, ",\n  \"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": [");
  for (int pair = 0; pair < 2; pair++) {
    if (before >= 0) {
      put_special(r, before, t);
      mn_text_add(t, ", ");
    }
    mn_text_add(t, pair ? "{\"Sequence\": {\"id\": \"A\", \"type_id\": 0}}, {\"Sequence\": {\"id\": \"B\", \"type_id\": 1}}"
                        : "{\"Sequence\": {\"id\": \"A\", \"type_id\": 0}}");
    if (after >= 0) {
      mn_text_add(t, ", ");
      put_special(r, after, t);
    }
    mn_text_add(t, pair ? "]" : "], \"pair\": [");
  }
  mn_text_add(t, ", \"special_tokens\": {");
  for (int i = 0; i < 2; i++) {
    int32_t id = i ? after : before;
    if (id < 0 || (i && after == before)) continue;
    if (i && before >= 0) mn_text_add(t, ", ");
    mn_text_quote(t, r->text[id].data, r->text[id].n);
    mn_text_add(t, ": {\"id\": ");
    mn_text_quote(t, r->text[id].data, r->text[id].n);
    mn_text_addf(t, ", \"ids\": [%d], \"tokens\": [", id);
    mn_text_quote(t, r->text[id].data, r->text[id].n);
    mn_text_add(t, "]}");
  }
  mn_text_add(t, "}}");
}

static mn_status read_parts(gguf_reader *r) {
  mn_text parts = {0}, whole = {0};
  mn_status status = put_parts(r, &parts);
  put_frame(r, &parts);
  mn_text_add(&whole, "{");
  mn_text_add_bytes(&whole, parts.data ? parts.data : "", parts.len);
  mn_text_add(&whole, "}");
  if (status == MN_OK) status = mn_text_status(&parts);
  if (status == MN_OK) status = mn_text_status(&whole);
  json_t *root = NULL;
  if (status == MN_OK) status = mn_json_load(whole.data, whole.len, 0, &root, NULL);
  if (status == MN_ERR_FORMAT) status = mn_fail(MN_ERR_FORMAT, "%s: a token that frames a text cannot be written as JSON", r->name);
  mn_tok_reader reader = {.name = r->name, .tok = r->tok, .root = root};
  if (status == MN_OK) status = mn_parts_read(&reader, root);
  json_decref(root);
  if (status == MN_OK && !(r->tok->parts = mn_arena_strdup(r->tok->arena, parts.data))) status = MN_ERR_MEMORY;
  mn_text_free(&parts);
  mn_text_free(&whole);
  return status;
}

/* ---- models ---- */

static mn_status read_family(gguf_reader *r, const char *model, bool *characters) {
  const char *none = "default", *pre;
  char shown[MN_PRINTABLE];
  MN_TRY(mn_gguf_string(r->g, KEY("pre"), none, r->arena, &pre));
  if (!strcmp(model, "gemma4")) pre = "gemma4";
  if (!mn_family_find(pre, &r->family)) {
    mn_fail(MN_ERR_UNSUPPORTED, "'%s' is no pre-tokeniser that is known here", mn_printable(pre, shown));
    return mn_context(MN_ERR_UNSUPPORTED, "%s: " KEY("pre"), r->name);
  }
  *characters = r->family.characters;
  return MN_OK;
}

static mn_status read_ids(gguf_reader *r, bool bos, bool eos, int32_t usual_bos, int32_t usual_eos, int32_t usual_unk, int32_t usual_sep) {
  mn_tokenizer *tok = r->tok;
  int32_t eot, eom, fim[3]; /* where code is filled in: padding, another repository, another file */
  MN_TRY(id_of(r, KEY("bos_token_id"), usual_bos, &r->bos));
  MN_TRY(id_of(r, KEY("eos_token_id"), usual_eos, &r->eos));
  MN_TRY(id_of(r, KEY("unknown_token_id"), usual_unk, &r->unk));
  MN_TRY(id_of(r, KEY("seperator_token_id"), usual_sep, &r->sep)); /* the format spells it so */
  MN_TRY(id_of(r, KEY("eot_token_id"), -1, &eot));
  MN_TRY(id_of(r, KEY("eom_token_id"), -1, &eom));
  MN_TRY(id_of(r, KEY("fim_pad_token_id"), -1, &fim[0]));
  MN_TRY(id_of(r, KEY("fim_rep_token_id"), -1, &fim[1]));
  MN_TRY(id_of(r, KEY("fim_sep_token_id"), -1, &fim[2]));
  MN_TRY(mn_gguf_bool(r->g, KEY("add_bos_token"), &bos, &r->add_bos));
  MN_TRY(mn_gguf_bool(r->g, KEY("add_eos_token"), &eos, &r->add_eos));
  tok->bos = r->bos;
  tok->eos = r->eos;
  const int32_t ends[] = {r->eos, eot, eom, fim[0], fim[1], fim[2]};
  for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
    if (ends[i] >= 0 && !mn_tokenizer_is_end(tok, ends[i])) tok->ends[tok->n_ends++] = ends[i];
  return MN_OK;
}

/* Those that the program of a model of this kind looks at: none puts a blank before words that are merged, whatever the file says. */
static mn_status read_switches(gguf_reader *r, bool pieces, bool unigram) {
  const bool no = false, yes = true;
  if (pieces || unigram) MN_TRY(mn_gguf_bool(r->g, KEY("add_space_prefix"), &yes, &r->add_space));
  return unigram ? mn_gguf_bool(r->g, KEY("remove_extra_whitespaces"), &no, &r->squeeze) : MN_OK;
}

/* Has the text one of the words, in letters of any size? */
static bool holds(const char *text, const char *const *words) {
  for (; *words; words++)
    for (const char *at = text; *at; at++)
      if (!strncasecmp(at, *words, strlen(*words))) return true;
  return false;
}

static mn_status read_habits(gguf_reader *r) {
  static const char *const phi3[] = {"phi-3", "phi3", NULL}, *const masks[] = {"jina-v2-de", "jina-v2-es", "jina-v2-code", NULL};
  const char *name, *pre;
  MN_TRY(mn_gguf_string(r->g, "general.name", "", r->arena, &name));
  MN_TRY(mn_gguf_string(r->g, KEY("pre"), "", r->arena, &pre));
  r->masks = holds(pre, masks);
  r->phi3 = !r->masks && holds(name, phi3);
  return MN_OK;
}

static mn_status read_model(gguf_reader *r) {
  mn_tokenizer *tok = r->tok;
  const char *model;
  char shown[MN_PRINTABLE];
  bool characters = false;
  MN_TRY(mn_gguf_string(r->g, KEY("model"), NULL, r->arena, &model));
  bool merges = !strcmp(model, "gpt2") || !strcmp(model, "gemma4"), pieces = !strcmp(model, "llama");
  bool bert = !strcmp(model, "bert"), unigram = !strcmp(model, "t5"), longest = !strcmp(model, "rwkv");
  if (!merges && !pieces && !bert && !unigram && !longest) {
    mn_fail(MN_ERR_UNSUPPORTED, "'%s' is not supported; gpt2, gemma4, llama, bert, t5 and rwkv are", mn_printable(model, shown));
    return mn_context(MN_ERR_UNSUPPORTED, "%s: " KEY("model"), r->name);
  }
  tok->model = bert || longest ? MODEL_WORDPIECE : unigram ? MODEL_UNIGRAM : MODEL_BPE;
  MN_TRY(read_lists(r));
  if (merges) MN_TRY(read_family(r, model, &characters));
  tok->byte_level = longest || (merges && !characters);
  MN_TRY(read_switches(r, pieces, unigram));
  MN_TRY(read_habits(r));
  MN_TRY(read_tokens(r));
  if (merges) {
    int32_t usual = characters ? -1 : 11;
    MN_TRY(read_ids(r, r->family.add_bos, false, usual, usual, -1, -1));
    r->add_bos = r->add_bos || r->family.always_bos;
    if (tok->byte_level) MN_TRY(read_bytes(r));
    tok->byte_fallback = characters;
    tok->ignore_merges = r->family.ignore_merges;
    MN_TRY(read_merges(r));
  } else if (longest) {
    MN_TRY(read_ids(r, false, false, -1, -1, -1, -1));
    tok->max_word = SIZE_MAX;
    for (unsigned b = 0; b < 256; b++) tok->byte_id[b] = mn_vocab_find(tok, (char[]){(char)b}, 1);
  } else if (bert) {
    MN_TRY(read_ids(r, true, false, 101, -1, 100, 102));
    tok->prefix = "##";
    tok->prefix_n = 2;
    tok->max_word = SIZE_MAX;
    if (r->unk < 0) return REFUSE_KEY(r, "unknown_token_id", "WordPiece needs an unknown token");
  } else {
    if (!r->score) return REFUSE_KEY(r, "scores", "are missing; tokens of this model are chosen by them");
    if (pieces) MN_TRY(read_ids(r, true, false, 1, 2, 0, -1));
    else MN_TRY(read_ids(r, false, true, -1, 1, 2, -1));
    tok->byte_fallback = tok->fuse_unk = true;
    MN_TRY(mn_scores_set(tok, r->score));
  }
  if (!tok->byte_level) tok->unk = r->unk;
  if (unigram) { /* only what text may become */
    free(tok->rank);
    tok->rank = NULL;
    for (size_t i = 0; i < r->n; i++)
      if (kind_of(r, i) != KIND_NORMAL && kind_of(r, i) != KIND_USER) tok->score[i] = INFINITY;
  }
  return read_parts(r);
}

mn_status mn_tokenizer_from_gguf(const mn_gguf *g, mn_tokenizer **out) {
  *out = NULL;
  gguf_reader r = {.g = g, .name = mn_gguf_path(g), .tok = mn_tokenizer_blank(), .arena = mn_arena_new()};
  mn_status status = r.tok && r.arena ? MN_OK : MN_ERR_MEMORY;
  if (status == MN_OK) status = read_model(&r);
  if (status == MN_OK) status = mn_tokenizer_complete(r.tok, r.name);
  if (r.arena) mn_arena_free(r.arena);
  if (status == MN_OK) *out = r.tok;
  else mn_tokenizer_free(r.tok);
  return status;
}
