/* tokenizer.json from anywhere, and a text for it: the input is the file, a zero byte, and the text. What is accepted must
 * encode any text, and where the tokenizer adds and removes nothing the text must come back byte for byte. */
#include "format/tokenizer.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const uint8_t *zero = memchr(data, 0, size);
  size_t n = zero ? (size_t)(zero - data) : size, text_len = zero ? size - n - 1 : 0;
  const char *text = zero ? (const char *)zero + 1 : "";
  mn_tokenizer *tok;
  if (mn_tokenizer_parse("fuzz", (const char *)data, n, &tok) != MN_OK) return 0;
  mn_ids ids = {0};
  mn_text out = {0};
  if (mn_tokenizer_encode(tok, text, text_len, MN_ENCODE_SPECIAL | MN_ENCODE_TEMPLATE, &ids) == MN_OK) {
    if (mn_tokenizer_decode(tok, ids.data, ids.len, false, &out) != MN_OK) abort(); /* its own ids must exist */
    mn_decoder dec = {.tok = tok};
    mn_text shown = {0};
    for (size_t i = 0; i < ids.len; i++)
      if (mn_decoder_push(&dec, ids.data[i], &shown) != MN_OK) abort();
    mn_decoder_finish(&dec, &shown);
    if (shown.len && mn_utf8_valid(shown.data, shown.len) != shown.len) abort();
    mn_text_free(&shown);
    mn_encoder *enc;
    mn_ids pieces = {0};
    if (mn_encoder_new(tok, &enc) == MN_OK) {
      unsigned flags = MN_ENCODE_SPECIAL | MN_ENCODE_TEMPLATE;
      const size_t step = 3 + text_len / 256; /* a text that is held whole is looked at anew with every piece */
      for (size_t i = 0; i < text_len; i += step)
        if (mn_encoder_push(enc, text + i, text_len - i < step ? text_len - i : step, flags, &pieces) != MN_OK) abort();
      if (mn_encoder_finish(enc, flags, &pieces) != MN_OK) abort();
      if (pieces.len != ids.len || (ids.len && memcmp(pieces.data, ids.data, ids.len * sizeof *ids.data))) abort(); /* as the whole */
      mn_encoder_free(enc);
    }
    mn_ids_free(&pieces);
  }
  mn_text_free(&out);
  mn_ids_free(&ids);
  mn_tokenizer_free(tok);
  return 0;
}
