/* tokenizer_write.c - tokenizer.json out: of byte-level BPE that was learned here, and of tokenizers that came in another form. */
#include "format/tokenizer_internal.h"

#include <stdlib.h>
#include <string.h>

/* ---- patterns ---- */

const char *mn_pattern_regex(mn_pattern pattern) {
  static const char *const regex[] = {
      [MN_PATTERN_GPT2] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
      [MN_PATTERN_CL100K] = "'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*"
                            "|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+",
      [MN_PATTERN_LLAMA3] = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}"
                            "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"};
  return regex[pattern];
}

bool mn_pattern_parse(const char *name, mn_pattern *out) {
  static const char *const names[] = {"gpt2", "cl100k", "llama3"};
  for (int i = 0; i < 3; i++)
    if (!strcmp(name, names[i])) return *out = (mn_pattern)i, true;
  return false;
}

void mn_text_quote(mn_text *out, const char *s, size_t n) {
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
    mn_text_quote(out, t->data, t->size);
    return;
  }
  mn_text key = {0};
  for (size_t i = 0; i < t->size; i++) {
    char coded[4];
    mn_text_add_bytes(&key, coded, mn_utf8_put(coded, mn_byte_to_char((unsigned char)t->data[i])));
  }
  if (key.failed || !key.data) out->failed = true;
  else mn_text_quote(out, key.data, key.len);
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
    mn_text_quote(out, spec->regex, strlen(spec->regex));
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

/* ---- a tokenizer that came from elsewhere ---- */

static bool is_added(const mn_tokenizer *tok, int32_t id) { return tok->tokens[id].flags & TOKEN_ADDED; }

static void put_token(const mn_tokenizer *tok, int32_t id, mn_text *out) {
  const token *t = &tok->tokens[id];
  if (!tok->byte_level || (t->flags & (TOKEN_ADDED | TOKEN_RAW))) {
    mn_text_quote(out, t->key, t->key_n);
    return;
  }
  mn_text_add(out, "\"");
  for (uint32_t i = 0; i < t->key_n; i++) {
    char coded[4];
    size_t n = mn_utf8_put(coded, mn_byte_to_char((unsigned char)t->key[i]));
    if (*coded == '"' || *coded == '\\') mn_text_add(out, "\\");
    mn_text_add_bytes(out, coded, n);
  }
  mn_text_add(out, "\"");
}

static void put_added(const mn_tokenizer *tok, mn_text *out) {
  static const char *const word[] = {"false", "true"};
  for (int i = 0; i < tok->n_added; i++) {
    const token *t = &tok->tokens[tok->added[i]];
    mn_text_addf(out, "%s\n    {\"id\": %d, \"content\": ", i ? "," : "", tok->added[i]);
    mn_text_quote(out, t->key, t->key_n);
    mn_text_addf(out, ", \"single_word\": false, \"lstrip\": %s, \"rstrip\": %s, \"normalized\": false, \"special\": %s}",
                 word[!!(t->flags & TOKEN_LSTRIP)], word[!!(t->flags & TOKEN_RSTRIP)], word[!!(t->flags & TOKEN_SPECIAL)]);
  }
}

typedef struct pair_of {
  uint32_t rank;
  int32_t left, right;
} pair_of;

static int by_rank(const void *a, const void *b) {
  const pair_of *x = a, *y = b;
  if (x->rank != y->rank) return x->rank < y->rank ? -1 : 1;
  if (x->left != y->left) return x->left < y->left ? -1 : 1;
  return (x->right > y->right) - (x->right < y->right);
}

/* The merges that scores stand for: every two tokens that spell a third. Other programs need them; here the scores are read again. */
static mn_status spelled_pairs(const mn_tokenizer *tok, pair_of **out, size_t *n) {
  size_t cap = 0;
  *out = NULL;
  *n = 0;
  for (int32_t id = 0; id < tok->n_ids; id++) {
    const token *t = &tok->tokens[id];
    if (is_added(tok, id) || mn_fallback_byte(t->key, t->key_n) >= 0) continue;
    for (uint32_t cut = 1; cut < t->key_n; cut++) {
      if (((unsigned char)t->key[cut] & 0xC0) == 0x80) continue;
      int32_t left = mn_vocab_find(tok, t->key, cut), right = left < 0 ? -1 : mn_vocab_find(tok, t->key + cut, t->key_n - cut);
      if (right < 0) continue;
      if (*n == cap) {
        cap = cap ? cap * 2 : 1024;
        pair_of *more = mn_realloc(*out, cap * sizeof *more);
        if (!more) return MN_ERR_MEMORY;
        *out = more;
      }
      (*out)[(*n)++] = (pair_of){tok->rank[id], left, right};
    }
  }
  if (*n) qsort(*out, *n, sizeof **out, by_rank);
  return MN_OK;
}

static mn_status listed_merges(const mn_tokenizer *tok, pair_of **out, size_t *n) {
  *n = 0;
  if (!(*out = mn_alloc((tok->n_merges + 1) * sizeof **out))) return MN_ERR_MEMORY;
  for (size_t i = 0; tok->merges && i <= tok->merges_mask; i++)
    if (tok->merges[i].key != UINT64_MAX)
      (*out)[(*n)++] = (pair_of){tok->merges[i].rank, (int32_t)(tok->merges[i].key >> 32), (int32_t)(uint32_t)tok->merges[i].key};
  qsort(*out, *n, sizeof **out, by_rank);
  return MN_OK;
}

static mn_status put_bpe(const mn_tokenizer *tok, mn_text *out) {
  pair_of *pairs = NULL;
  size_t n;
  mn_text_addf(
      out,
      "\"type\": \"BPE\",\n    \"dropout\": null,\n    \"continuing_subword_prefix\": null,\n    \"end_of_word_suffix\": null,\n    "
      "\"fuse_unk\": %s,\n    \"byte_fallback\": %s,\n    \"ignore_merges\": %s,\n    \"unk_token\": ",
      tok->fuse_unk ? "true" : "false", tok->byte_fallback ? "true" : "false", tok->ignore_merges ? "true" : "false");
  if (tok->unk >= 0) put_token(tok, tok->unk, out);
  else mn_text_add(out, "null");
  mn_status status = tok->rank ? spelled_pairs(tok, &pairs, &n) : listed_merges(tok, &pairs, &n);
  mn_text_add(out, ",\n    \"merges\": [");
  for (size_t i = 0; i < n && status == MN_OK; i++) {
    mn_text_add(out, i ? ",\n      [" : "\n      [");
    put_token(tok, pairs[i].left, out);
    mn_text_add(out, ", ");
    put_token(tok, pairs[i].right, out);
    mn_text_add(out, "]");
  }
  mn_text_add(out, "\n    ]");
  free(pairs);
  for (int32_t id = 0; tok->rank && id < tok->n_ids; id++) mn_text_addf(out, "%s%.9g", id ? ", " : ",\n    \"scores\": [", tok->score[id]);
  if (tok->rank) mn_text_add(out, "]");
  return status;
}

static void put_vocab(const mn_tokenizer *tok, mn_text *out) {
  bool list = tok->model == MODEL_UNIGRAM;
  mn_text_addf(out, ",\n    \"vocab\": %c", list ? '[' : '{');
  for (int32_t id = 0; id < tok->n_ids; id++) {
    mn_text_add(out, id ? ",\n      " : "\n      ");
    if (list) mn_text_add(out, "[");
    put_token(tok, id, out);
    if (list) mn_text_addf(out, ", %.17g]", tok->score[id] < 1e300 ? tok->score[id] : 0.0);
    else mn_text_addf(out, ": %d", id);
  }
  mn_text_add(out, list ? "\n    ]" : "\n    }");
}

mn_status mn_tokenizer_write(const mn_tokenizer *tok, mn_text *out) {
  mn_status status = MN_OK;
  mn_text_add(out, "{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n  \"added_tokens\": [");
  put_added(tok, out);
  mn_text_addf(out, "\n  ],\n  %s,\n  \"model\": {\n    ", tok->parts ? tok->parts : "\"normalizer\": null");
  if (tok->model == MODEL_BPE) {
    status = put_bpe(tok, out);
  } else if (tok->model == MODEL_WORDPIECE) {
    mn_text_add(out, "\"type\": \"WordPiece\",\n    \"unk_token\": ");
    put_token(tok, tok->byte_level ? 0 : tok->unk, out); /* of bytes none is unknown, but other programs ask for one */
    mn_text_addf(out, ",\n    \"continuing_subword_prefix\": \"%s\",\n    \"max_input_chars_per_word\": %d", tok->byte_level ? "" : "##",
                 LONGEST_WORD);
  } else {
    mn_text_addf(out, "\"type\": \"Unigram\",\n    \"byte_fallback\": %s,\n    \"unk_id\": ", tok->byte_fallback ? "true" : "false");
    if (tok->unk >= 0) mn_text_addf(out, "%d", tok->unk);
    else mn_text_add(out, "null");
  }
  put_vocab(tok, out);
  mn_text_addf(out, ",\n    \"mneme\": {\"bos\": %d, \"eos\": %d, \"ends\": [", tok->bos, tok->eos);
  for (int i = 0; i < tok->n_ends; i++) mn_text_addf(out, "%s%d", i ? ", " : "", tok->ends[i]);
  mn_text_add(out, "]");
  bool any = false;
  for (int32_t id = 0; tok->model == MODEL_UNIGRAM && id < tok->n_ids; id++) {
    if (tok->score[id] < 1e300) continue; /* text never becomes it */
    mn_text_addf(out, any ? ", %d" : ", \"silent\": [%d", id);
    any = true;
  }
  mn_text_add(out, any ? "]}\n  }\n}\n" : "}\n  }\n}\n");
  return status == MN_OK ? mn_text_status(out) : status;
}
