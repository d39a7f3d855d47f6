/* tokenizer_internal.h - what the tokenizer's rooms share: the vocabulary and merges (tokenizer.c), the reader of
 * tokenizer.json (tokenizer_json.c), encoding (tokenizer_encode.c) and training (tokenizer_train.c). */
#ifndef MN_TOKENIZER_INTERNAL_H
#define MN_TOKENIZER_INTERNAL_H

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "format/tokenizer.h"

enum { TOKEN_EXISTS = 1, TOKEN_ADDED = 2, TOKEN_SPECIAL = 4, TOKEN_LSTRIP = 8, TOKEN_RSTRIP = 16 };

typedef struct token {
  const char *bytes;
  uint32_t n;
  uint8_t flags;
} token;

/* How text is cut before the merges. Every step cuts each piece of the step before it; byte-level is the last. */
typedef enum { STEP_SPLIT, STEP_DIGITS, STEP_BYTE_LEVEL } mn_cut_kind;
typedef struct mn_cut {
  mn_cut_kind kind;
  pcre2_code *regex; /* SPLIT; BYTE_LEVEL: NULL when it does not split                    */
  bool keep_matches; /* SPLIT                                                             */
  bool keep_gaps;    /* SPLIT                                                             */
  bool prefix_space; /* BYTE_LEVEL: a space is put before a piece that has none           */
  bool one_by_one;   /* DIGITS: every digit alone                                         */
} mn_cut;
enum { MAX_STEPS = 16, MAX_TEMPLATE = 16 };

typedef struct merge { /* of an open-addressing table; key 0xFFFF... is empty */
  uint64_t key;        /* left id << 32 | right id */
  uint32_t rank;
  int32_t id;
} merge;

struct mn_tokenizer {
  mn_arena *arena; /* the bytes of tokens */
  char *source;    /* tokenizer.json */
  size_t source_len;
  token *tokens; /* (n_ids) */
  int32_t n_ids;
  int32_t *by_bytes; /* hash table of vocabulary ids by their bytes, -1 empty */
  size_t by_bytes_mask;
  merge *merges;
  size_t merges_mask, n_merges;
  int32_t byte_id[256];
  bool ignore_merges; /* a piece that is a token is that token, whatever the merges say */
  mn_cut steps[MAX_STEPS];
  int n_steps;
  int32_t *added; /* ids of added tokens, longest first */
  int n_added;
  bool added_first[256]; /* can an added token begin with this byte? */
  int32_t before[MAX_TEMPLATE], after[MAX_TEMPLATE];
  int n_before, n_after;
};

/* The GPT-2 code that writes each byte as a printable character: byte -> code point, and back (-1 if none). */
unsigned mn_byte_to_char(unsigned char byte);
int mn_char_to_byte(unsigned code_point);
/* Decodes one code point of valid UTF-8 (n >= 1); *len its bytes. */
unsigned mn_utf8_next(const char *s, size_t n, size_t *len);
size_t mn_utf8_put(char out[4], unsigned code_point);

/* Compiles a pattern of pre-tokenisation: Unicode classes, just-in-time code where it is available. */
mn_status mn_pattern_compile(const char *name, const char *pattern, size_t n, bool literal, pcre2_code **out);

int32_t mn_vocab_find(const mn_tokenizer *tok, const char *bytes, size_t n);
static inline const merge *mn_merge_find(const mn_tokenizer *tok, int32_t left, int32_t right) {
  uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
  for (size_t i = (size_t)mn_splitmix64(key) & tok->merges_mask;; i = (i + 1) & tok->merges_mask) {
    if (tok->merges[i].key == key) return &tok->merges[i];
    if (tok->merges[i].key == UINT64_MAX) return NULL;
  }
}

/* A matcher's working memory, one per thread. */
typedef struct matcher {
  pcre2_match_data *data;
  pcre2_match_context *context;
  pcre2_jit_stack *stack;
} matcher;
mn_status mn_matcher_open(matcher *m);
void mn_matcher_close(matcher *m);
/* The next match in valid UTF-8 text[from..n), or [n, n) when there is none: [*begin, *end). An empty match or a match
 * that runs into a limit counts as a gap of one character, so that a caller always moves on. */
void mn_matcher_next(matcher *m, const pcre2_code *regex, const char *text, size_t n, size_t from, size_t *begin, size_t *end);

/* A byte-level BPE to be written as tokenizer.json. */
typedef struct bpe_spec {
  int32_t n_tokens;
  const mn_span *tokens; /* (n_tokens) the bytes of each id */
  const bool *special;   /* (n_tokens) */
  const int32_t (*merges)[2];
  size_t n_merges;
  const char *regex; /* NULL: text is not split */
} bpe_spec;
mn_status mn_tokenizer_write_json(const bpe_spec *spec, mn_text *out);

#endif
