/* tokenizer.c - the vocabulary: bytes and their printable code, tokens by id and by bytes, decoding. */
#include "format/tokenizer_internal.h"

#include "base/file.h"

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
  if (rank >= 68) return -1;
  for (unsigned b = 0; b < 256; b++)
    if (!is_printable(b) && rank-- == 0) return (int)b;
  return -1;
}

unsigned mn_utf8_next(const char *s, size_t n, size_t *len) {
  const unsigned char *p = (const unsigned char *)s;
  size_t want = p[0] < 0x80 ? 1 : p[0] < 0xE0 ? 2 : p[0] < 0xF0 ? 3 : 4;
  if (want > n) want = 1;
  *len = want;
  unsigned c = want == 1 ? p[0] : p[0] & (0xFFu >> (want + 1));
  for (size_t i = 1; i < want; i++) c = c << 6 | (p[i] & 0x3F);
  return c;
}

size_t mn_utf8_put(char out[4], unsigned c) {
  if (c < 0x80) return out[0] = (char)c, 1;
  size_t n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
  for (size_t i = n - 1; i > 0; i--, c >>= 6) out[i] = (char)(0x80 | (c & 0x3F));
  out[0] = (char)((0xF00 >> n & 0xFF) | c);
  return n;
}

/* ---- lookups ---- */

int32_t mn_vocab_find(const mn_tokenizer *tok, const char *bytes, size_t n) {
  for (size_t i = (size_t)mn_splitmix64(mn_hash_bytes(bytes, n, 0)) & tok->by_bytes_mask;; i = (i + 1) & tok->by_bytes_mask) {
    int32_t id = tok->by_bytes[i];
    if (id < 0) return -1;
    if (tok->tokens[id].n == n && !memcmp(tok->tokens[id].bytes, bytes, n)) return id;
  }
}

static bool exists(const mn_tokenizer *tok, int32_t id) { return id >= 0 && id < tok->n_ids && (tok->tokens[id].flags & TOKEN_EXISTS); }

int32_t mn_tokenizer_vocab_size(const mn_tokenizer *tok) { return tok->n_ids; }

bool mn_tokenizer_is_bytes(const mn_tokenizer *tok) { return tok->n_merges == 0; }

bool mn_tokenizer_is_special(const mn_tokenizer *tok, int32_t id) { return exists(tok, id) && (tok->tokens[id].flags & TOKEN_SPECIAL); }

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
    if (t->n == n && !memcmp(t->bytes, content, n)) return tok->added[i];
  }
  return mn_vocab_find(tok, content, n);
}

int32_t mn_tokenizer_eos(const mn_tokenizer *tok) {
  static const char *const names[] = {"<|endoftext|>", "<|end_of_text|>",       "</s>",      "<eos>", "<|eos|>",
                                      "[EOS]",         "<｜end▁of▁sentence｜>", "<|im_end|>"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    for (int k = 0; k < tok->n_added; k++) {
      const token *t = &tok->tokens[tok->added[k]];
      if ((t->flags & TOKEN_SPECIAL) && t->n == strlen(names[i]) && !memcmp(t->bytes, names[i], t->n)) return tok->added[k];
    }
  return -1;
}

const char *mn_tokenizer_json(const mn_tokenizer *tok, size_t *n) {
  *n = tok->source_len;
  return tok->source;
}

void mn_tokenizer_hash(const mn_tokenizer *tok, char hex[33]) { mn_content_hash(tok->source, tok->source_len, hex); }

mn_status mn_tokenizer_save(const mn_tokenizer *tok, const char *path) { return mn_file_write(path, tok->source, tok->source_len); }

void mn_tokenizer_free(mn_tokenizer *tok) {
  if (!tok) return;
  for (int i = 0; i < tok->n_steps; i++) pcre2_code_free(tok->steps[i].regex);
  if (tok->arena) mn_arena_free(tok->arena);
  free(tok->source);
  free(tok->tokens);
  free(tok->by_bytes);
  free(tok->merges);
  free(tok->added);
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

/* ---- decoding ---- */

mn_status mn_tokenizer_decode(const mn_tokenizer *tok, const int32_t *ids, size_t n, bool skip_special, mn_text *out) {
  for (size_t i = 0; i < n; i++) {
    if (!exists(tok, ids[i]))
      return mn_fail(MN_ERR_ARG, "token id %d at position %zu does not exist in a vocabulary of %d", ids[i], i, tok->n_ids);
    const token *t = &tok->tokens[ids[i]];
    if (!skip_special || !(t->flags & TOKEN_SPECIAL)) mn_text_add_bytes(out, t->bytes, t->n);
  }
  return mn_text_status(out);
}

/* How many bytes does the character that starts with held[0 ... n) take? 0: it can no longer become one. */
static int character_length(const unsigned char *held, int n) {
  unsigned char b = held[0];
  int want = b < 0x80 ? 1 : b >= 0xC2 && b < 0xE0 ? 2 : b >= 0xE0 && b < 0xF0 ? 3 : b >= 0xF0 && b < 0xF5 ? 4 : 0;
  for (int i = 1; i < n && want; i++) {
    unsigned char low = 0x80, high = 0xBF;
    if (i == 1 && b == 0xE0) low = 0xA0;  /* overlong   */
    if (i == 1 && b == 0xED) high = 0x9F; /* surrogates */
    if (i == 1 && b == 0xF0) low = 0x90;
    if (i == 1 && b == 0xF4) high = 0x8F; /* > U+10FFFF */
    if (held[i] < low || held[i] > high) want = 0;
  }
  return want;
}

static const char replacement[] = "\xEF\xBF\xBD";

mn_status mn_decoder_push(mn_decoder *dec, int32_t id, mn_text *out) {
  if (!exists(dec->tok, id)) return mn_fail(MN_ERR_ARG, "token id %d does not exist in a vocabulary of %d", id, dec->tok->n_ids);
  const token *t = &dec->tok->tokens[id];
  if (dec->skip_special && (t->flags & TOKEN_SPECIAL)) return MN_OK;
  for (uint32_t i = 0; i < t->n; i++) {
    dec->held[dec->n_held++] = (unsigned char)t->bytes[i];
    int want = character_length(dec->held, dec->n_held);
    if (want == dec->n_held) {
      mn_text_add_bytes(out, dec->held, (size_t)want);
      dec->n_held = 0;
    } else if (!want) { /* what came before the last byte is one broken character; the last byte may begin another */
      unsigned char last = dec->held[dec->n_held - 1];
      mn_text_add(out, replacement);
      bool alone = dec->n_held == 1;
      dec->n_held = 0;
      if (!alone) {
        dec->held[dec->n_held++] = last;
        want = character_length(dec->held, 1);
        if (want == 1) mn_text_add_bytes(out, dec->held, 1);
        else if (!want) mn_text_add(out, replacement);
        if (want < 2) dec->n_held = 0;
      }
    }
  }
  return mn_text_status(out);
}

mn_status mn_decoder_finish(mn_decoder *dec, mn_text *out) {
  if (dec->n_held) mn_text_add(out, replacement);
  dec->n_held = 0;
  return mn_text_status(out);
}
