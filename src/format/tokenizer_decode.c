/* tokenizer_decode.c - ids to text. Each token's text is made by the decoder's steps once, when the tokenizer is made; what is left
 * for decoding is the first token, which may differ, the last, and characters whose bytes come as several tokens.
 *
 * Decoding a whole list gives the exact bytes; a decoder that is fed id by id gives valid UTF-8. */
#define _GNU_SOURCE /* memmem */
#include "format/tokenizer_internal.h"

#include <stdlib.h>
#include <string.h>

/* ---- the steps, on one token ---- */

static void replace_all(mn_text *t, const char *from, size_t from_n, const char *to, size_t to_n) {
  if (!from_n || t->failed || !t->len) return;
  mn_text out = {0};
  const char *s = t->data, *end = s + t->len, *at;
  while (s < end && (at = memmem(s, (size_t)(end - s), from, from_n))) {
    mn_text_add_bytes(&out, s, (size_t)(at - s));
    mn_text_add_bytes(&out, to, to_n);
    s = at + from_n;
  }
  if (s == t->data) return; /* nothing found; `out` is empty */
  mn_text_add_bytes(&out, s, (size_t)(end - s));
  out.failed |= t->failed;
  mn_text_free(t);
  *t = out;
}

static mn_status replace_matches(mn_text *t, const mn_decode_op *op) {
  mn_matcher m = {0};
  mn_text out = {0};
  mn_status status = MN_OK;
  for (size_t at = 0, begin, end; at < t->len; at = end) {
    if ((status = mn_matcher_next(&m, op->regex, t->data, t->len, at, &begin, &end)) != MN_OK) break;
    mn_text_add_bytes(&out, t->data + at, begin - at);
    if (end > begin) mn_text_add_bytes(&out, op->to, op->to_n);
  }
  out.failed |= t->failed;
  mn_matcher_close(&m);
  mn_text_free(t);
  *t = out;
  return status;
}

static void clean_up(mn_text *t) { /* as BERT's tokenizers write English */
  static const char *const pairs[][2] = {{" .", "."},   {" ?", "?"},     {" !", "!"},    {" ,", ","},
                                         {" ' ", "'"},  {" n't", "n't"}, {" 'm", "'m"},  {" do not", " don't"},
                                         {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
  for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
    replace_all(t, pairs[i][0], strlen(pairs[i][0]), pairs[i][1], strlen(pairs[i][1]));
}

static void from_bytes(mn_text *t) { /* each character is a byte, where all are */
  mn_text out = {0};
  for (size_t i = 0, len; i < t->len; i += len) {
    int byte = mn_char_to_byte(mn_utf8_next(t->data + i, t->len - i, &len));
    if (byte < 0) {
      mn_text_free(&out);
      return;
    }
    mn_text_add_bytes(&out, &(char){(char)byte}, 1);
  }
  mn_text_free(t);
  *t = out;
}

static void strip(mn_text *t, const mn_decode_op *op) {
  size_t begin = 0, end = t->len;
  for (int i = 0; i < op->left && end - begin >= op->from_n && !memcmp(t->data + begin, op->from, op->from_n); i++) begin += op->from_n;
  for (int i = 0; i < op->right && end - begin >= op->from_n && !memcmp(t->data + end - op->from_n, op->from, op->from_n); i++)
    end -= op->from_n;
  if (begin) memmove(t->data, t->data + begin, end - begin);
  t->len = end - begin;
}

mn_status mn_decode_token(const mn_tokenizer *tok, int32_t id, bool first, bool last, mn_text *out) {
  const token *t0 = &tok->tokens[id];
  mn_text t = {0};
  if (tok->join_by_space && !first) mn_text_add(&t, " ");
  if (tok->normal && tok->normal[id]) mn_text_add(&t, tok->normal[id]);
  else mn_text_add_bytes(&t, t0->key, t0->key_n);
  mn_status status = MN_OK;
  for (int i = 0; i < tok->n_decode && status == MN_OK; i++) {
    const mn_decode_op *op = &tok->decode[i];
    switch (op->kind) {
    case DECODE_REPLACE:
      if (op->regex) status = replace_matches(&t, op);
      else replace_all(&t, op->from, op->from_n, op->to, op->to_n);
      break;
    case DECODE_METASPACE:
      replace_all(&t, op->from, op->from_n, " ", first && op->skip_first ? 0 : 1);
      break;
    case DECODE_WORDPIECE:
      if (!first && t.len >= op->from_n && !memcmp(t.data, op->from, op->from_n)) {
        memmove(t.data, t.data + op->from_n, t.len - op->from_n);
        t.len -= op->from_n;
      } else if (!first) {
        mn_text spaced = {0};
        mn_text_add(&spaced, " ");
        mn_text_add_bytes(&spaced, t.data, t.len);
        mn_text_free(&t);
        t = spaced;
      }
      if (op->cleanup) clean_up(&t);
      break;
    case DECODE_STRIP:
      strip(&t, op);
      break;
    case DECODE_BYTE_LEVEL:
      from_bytes(&t);
      break;
    case DECODE_BYTE_FALLBACK:
      if (mn_fallback_byte(t0->key, t0->key_n) >= 0) {
        t.len = 0;
        mn_text_add_bytes(&t, &(char){(char)mn_fallback_byte(t0->key, t0->key_n)}, 1);
      }
      break;
    case DECODE_SUFFIX:
      replace_all(&t, op->from, op->from_n, " ", last ? 0 : 1);
      break;
    }
  }
  if (t.failed) out->failed = true;
  if (t.len) mn_text_add_bytes(out, t.data, t.len);
  mn_text_free(&t);
  return status;
}

/* ---- one id after the other ---- */

static bool exists(const mn_tokenizer *tok, int32_t id) { return id >= 0 && id < tok->n_ids && (tok->tokens[id].flags & TOKEN_EXISTS); }

typedef void (*sink)(void *ctx, const char *s, size_t n);

/* What is taken from the ends of the whole text. */
static void give(mn_decoder *dec, const char *s, size_t n, sink put, void *ctx) {
  const mn_tokenizer *tok = dec->tok;
  while (dec->stripped < tok->strip_left && n) {
    if (n < tok->strip_n || memcmp(s, tok->strip, tok->strip_n) != 0) {
      dec->stripped = tok->strip_left;
      break;
    }
    dec->stripped++;
    s += tok->strip_n;
    n -= tok->strip_n;
  }
  if (!n) return;
  int tail = 0;
  size_t end = n;
  while (tail < tok->strip_right && end >= tok->strip_n && !memcmp(s + end - tok->strip_n, tok->strip, tok->strip_n)) {
    end -= tok->strip_n;
    tail++;
  }
  int kept = tok->strip_right ? dec->tail : 0;
  if (!end) { /* nothing but what may have to go */
    for (kept += tail; kept > tok->strip_right; kept--) put(ctx, tok->strip, tok->strip_n);
    dec->tail = kept;
    return;
  }
  for (; kept > 0; kept--) put(ctx, tok->strip, tok->strip_n);
  put(ctx, s, end);
  dec->tail = tail;
}

static mn_status token_out(mn_decoder *dec, int32_t id, bool last, sink put, void *ctx) {
  const mn_tokenizer *tok = dec->tok;
  const token *t = &tok->tokens[id];
  bool first = !dec->begun;
  dec->begun = true;
  if (!(first && tok->decode_first) && !(last && tok->suffix_last)) {
    give(dec, t->bytes, t->n, put, ctx);
    return MN_OK;
  }
  mn_text text = {0};
  mn_status status = mn_decode_token(tok, id, first, last, &text);
  if (status == MN_OK) status = mn_text_status(&text);
  if (status == MN_OK && text.len) give(dec, text.data, text.len, put, ctx);
  mn_text_free(&text);
  return status;
}

static mn_status next_out(mn_decoder *dec, int32_t id, sink put, void *ctx) {
  if (!dec->tok->suffix_last) return token_out(dec, id, false, put, ctx);
  if (dec->waiting) MN_TRY(token_out(dec, dec->waiting - 1, false, put, ctx)); /* it was not the last */
  dec->waiting = id + 1;
  return MN_OK;
}

static void put_bytes(void *ctx, const char *s, size_t n) { mn_text_add_bytes(ctx, s, n); }

mn_status mn_tokenizer_decode(const mn_tokenizer *tok, const int32_t *ids, size_t n, bool skip_special, mn_text *out) {
  mn_decoder dec = {.tok = tok};
  for (size_t i = 0; i < n; i++) {
    if (!exists(tok, ids[i]))
      return mn_fail(MN_ERR_ARG, "token id %d at position %zu does not exist in a vocabulary of %d", ids[i], i, tok->n_ids);
    if (!skip_special || !(tok->tokens[ids[i]].flags & TOKEN_SPECIAL)) MN_TRY(next_out(&dec, ids[i], put_bytes, out));
  }
  if (dec.waiting) MN_TRY(token_out(&dec, dec.waiting - 1, true, put_bytes, out));
  return mn_text_status(out);
}

/* ---- valid UTF-8 ---- */

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

typedef struct shown {
  mn_decoder *dec;
  mn_text *out;
} shown;

static void show_byte(mn_decoder *dec, unsigned char byte, mn_text *out) {
  dec->held[dec->n_held++] = byte;
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

static void show_bytes(void *ctx, const char *s, size_t n) {
  shown *x = ctx;
  size_t whole = x->dec->n_held ? 0 : mn_utf8_valid(s, n);
  if (whole) mn_text_add_bytes(x->out, s, whole);
  for (size_t i = whole; i < n; i++) show_byte(x->dec, (unsigned char)s[i], x->out);
}

mn_status mn_decoder_push(mn_decoder *dec, int32_t id, mn_text *out) {
  if (!exists(dec->tok, id)) return mn_fail(MN_ERR_ARG, "token id %d does not exist in a vocabulary of %d", id, dec->tok->n_ids);
  if (dec->skip_special && (dec->tok->tokens[id].flags & TOKEN_SPECIAL)) return MN_OK;
  MN_TRY(next_out(dec, id, show_bytes, &(shown){dec, out}));
  return mn_text_status(out);
}

mn_status mn_decoder_finish(mn_decoder *dec, mn_text *out) {
  mn_status status = dec->waiting ? token_out(dec, dec->waiting - 1, true, show_bytes, &(shown){dec, out}) : MN_OK;
  if (dec->n_held) mn_text_add(out, replacement);
  *dec = (mn_decoder){.tok = dec->tok, .skip_special = dec->skip_special};
  return status == MN_OK ? mn_text_status(out) : status;
}
