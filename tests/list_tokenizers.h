/* list_tokenizers.h - the tokenizers of the tests of lists that come again: bytes, and pairs learned from the lists' own nouns. */
#ifndef MN_LIST_TOKENIZERS_H
#define MN_LIST_TOKENIZERS_H

#include "task/vignette.h"
#include "test.h"

static inline mn_tokenizer *bytes(void) {
  mn_tokenizer *tok = NULL;
  CHECK_OK(mn_tokenizer_bytes(NULL, 0, &tok));
  return tok;
}

/* Byte pairs of the nouns themselves, so that a noun is a token or a few. */
static inline mn_tokenizer *pairs(void) {
  mn_tokenizer *tok = NULL;
  mn_text text = {0};
  for (int k = 0; k < 3; k++)
    for (int i = 0; i < MN_VIGNETTES; i++) mn_text_addf(&text, " %s, she wrote", mn_vignette_noun(i));
  const mn_span span = {text.data, text.len};
  CHECK_OK(mn_tokenizer_train(&(mn_tokenizer_train_config){.vocab_size = 600}, &span, 1, &tok));
  mn_text_free(&text);
  return tok;
}

#endif
