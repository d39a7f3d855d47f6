/* Vocabularies in the metadata of GGUF files from anywhere, and a text for them: the first two bytes say how long the text is that stands
 * behind the file. What is accepted must encode any text, in pieces as in one, decode its own ids, and go on as a tokenizer.json. */
#include "format/tokenizer_gguf.h"

#include <stdlib.h>
#include <string.h>

static void encode(const mn_tokenizer *tok, const char *text, size_t n, mn_ids *ids) {
  if (mn_tokenizer_encode(tok, text, n, MN_ENCODE_SPECIAL, ids) != MN_OK) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size < 2) return 0;
  size_t n = (size_t)(data[0] | data[1] << 8), file = size - 2;
  if (n > file) n = file;
  file -= n;
  uint8_t *copy = malloc(file + !file); /* aligned, and not a byte longer */
  if (!copy) return 0;
  memcpy(copy, data + 2, file);
  const char *text = (const char *)data + 2 + file;
  mn_gguf *g = NULL;
  mn_tokenizer *tok = NULL;
  if (mn_gguf_open_bytes("fuzz", copy, file, &g) == MN_OK && mn_tokenizer_from_gguf(g, &tok) == MN_OK) {
    mn_ids whole = {0}, pieces = {0};
    mn_text out = {0};
    mn_encoder *enc;
    encode(tok, text, n, &whole);
    if (mn_encoder_new(tok, &enc) != MN_OK) abort();
    for (size_t at = 0; at < n; at += 3)
      if (mn_encoder_push(enc, text + at, n - at < 3 ? n - at : 3, MN_ENCODE_SPECIAL, &pieces) != MN_OK) abort();
    if (mn_encoder_finish(enc, MN_ENCODE_SPECIAL, &pieces) != MN_OK) abort();
    mn_encoder_free(enc);
    if (whole.len != pieces.len || (whole.len && memcmp(whole.data, pieces.data, whole.len * sizeof *whole.data))) abort();
    if (mn_tokenizer_decode(tok, whole.data, whole.len, false, &out) != MN_OK) abort();
    mn_text_free(&out);
    mn_ids_free(&whole);
    mn_ids_free(&pieces);
  }
  mn_tokenizer_free(tok);
  mn_gguf_close(g);
  free(copy);
  return 0;
}
