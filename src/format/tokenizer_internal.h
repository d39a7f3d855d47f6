/* tokenizer_internal.h - what the tokenizer's rooms share.
 *   tokenizer.c              the vocabulary: tokens by id and by key, questions, ids
 *   tokenizer_json.c         tokenizer.json: vocabulary, merges, added tokens; tokenizer_parts.c: its other sections
 *   tokenizer_gguf.c         the metadata of a GGUF file
 *   tokenizer_write.c        tokenizer.json out
 *   tokenizer_encode.c       text to ids, whole or in pieces: added tokens, runs of UTF-8, normalisation
 *   tokenizer_normalize.c    normalisers;  tokenizer_charsmap.c  SentencePiece's table of them
 *   tokenizer_cut.c          pre-tokenisers
 *   tokenizer_bpe.c, tokenizer_unigram.c, tokenizer_wordpiece.c   the models: one piece to ids
 *   tokenizer_decode.c       ids to text, whole or one by one
 *   tokenizer_train.c        byte-level BPE learned from texts */
#ifndef MN_TOKENIZER_INTERNAL_H
#define MN_TOKENIZER_INTERNAL_H

#include <pthread.h>

struct json_t;

#include "format/regex.h"
#include "format/tokenizer.h"
#include "format/trie.h"
#include "format/unicode.h"

enum {
  TOKEN_EXISTS = 1,
  TOKEN_ADDED = 2,
  TOKEN_SPECIAL = 4,
  TOKEN_LSTRIP = 8,
  TOKEN_RSTRIP = 16,
  TOKEN_SINGLE_WORD = 32,
  TOKEN_NORMALIZED = 64, /* looked for in normalised text */
  TOKEN_RAW = 128,       /* of a byte-level vocabulary, but not spelled in its characters: text never becomes it */
  TOKEN_SILENT = 256     /* read, and never drawn */
};

typedef struct token {
  const char *bytes; /* what it adds to a text when it is not the first token */
  const char *key;   /* how text spells it, normalised and cut; of a byte-level vocabulary, the same bytes */
  uint32_t n, key_n;
  uint16_t flags;
} token;

typedef enum { MODEL_BPE, MODEL_UNIGRAM, MODEL_WORDPIECE, MODEL_WORDLEVEL } mn_model_kind;
enum { LONGEST_WORD = 1000000000 /* of WordPiece, as good as no limit */ };

/* ---- normalisers: each turns a text into another ---- */
typedef enum {
  NORM_NFC,
  NORM_NFD,
  NORM_NFKC,
  NORM_NFKD,
  NORM_LOWERCASE,
  NORM_STRIP_ACCENTS,
  NORM_BERT,
  NORM_REPLACE,
  NORM_PREPEND,
  NORM_STRIP,
  NORM_NMT,
  NORM_CHARSMAP
} mn_norm_kind;
typedef struct mn_norm {
  mn_norm_kind kind;
  bool clean, chinese, accents, lower; /* BERT */
  bool left, right;                    /* STRIP */
  mn_regex *regex;                     /* REPLACE */
  const char *from, *to;               /* REPLACE; PREPEND: to */
  size_t from_n, to_n;
  const uint32_t *units; /* CHARSMAP: a double array, and the strings that its values are places in */
  size_t n_units, n_strings;
  const char *strings;
  bool by_grapheme; /* CHARSMAP: as `tokenizers` reads it; else the longest match, as SentencePiece does */
} mn_norm;

/* ---- pre-tokenisers: every step cuts each piece of the step before it ---- */
typedef enum { CUT_SPLIT, CUT_PREFIX_SPACE, CUT_METASPACE } mn_cut_kind;
typedef enum { CUT_ISOLATED, CUT_REMOVED, CUT_WITH_PREVIOUS, CUT_WITH_NEXT, CUT_CONTIGUOUS } mn_cut_behavior;
typedef enum { PREPEND_NEVER, PREPEND_FIRST, PREPEND_ALWAYS } mn_prepend;
typedef struct mn_cut {
  mn_cut_kind kind;
  mn_regex *regex; /* SPLIT */
  mn_cut_behavior behavior;
  bool invert;
  const char *mark; /* METASPACE: what a space becomes */
  size_t mark_n;
  mn_prepend prepend;
} mn_cut;

/* ---- decoders: each turns a token's text into another; after `fuse`, the whole text ---- */
typedef enum {
  DECODE_REPLACE,
  DECODE_METASPACE,
  DECODE_WORDPIECE,
  DECODE_STRIP,
  DECODE_BYTE_LEVEL,
  DECODE_BYTE_FALLBACK,
  DECODE_SUFFIX
} mn_decode_kind;
typedef struct mn_decode_op {
  mn_decode_kind kind;
  const char *from, *to; /* METASPACE: from is the mark; WORDPIECE: from is the prefix; STRIP: from is the character; SUFFIX: from */
  size_t from_n, to_n;
  mn_regex *regex; /* REPLACE */
  bool cleanup;    /* WORDPIECE */
  bool skip_first; /* METASPACE: the first token loses its marks */
  int left, right; /* STRIP */
} mn_decode_op;

enum { MAX_STEPS = 16, MAX_TEMPLATE = 16, MAX_ENDS = 16 };

/* What a token's name says of it: it ends an answer where it is a special token; it is a control token where a GGUF file says otherwise. */
enum { MN_NAME_ENDS = 1, MN_NAME_CONTROL = 2 };
typedef struct mn_token_name {
  const char *name;
  unsigned is;
} mn_token_name;
extern const mn_token_name mn_token_names[]; /* NULL ends it */

typedef struct merge { /* of an open-addressing table; key 0xFFFF... is empty */
  uint64_t key;        /* left id << 32 | right id */
  uint32_t rank;
  int32_t id;
} merge;

struct mn_tokenizer {
  mn_arena *arena;  /* the bytes of tokens, and what the parts name */
  const char *name; /* of the file, for messages */
  char *source;     /* tokenizer.json; of another origin written when somebody asks (tokenizer_write.c) */
  size_t source_len;
  pthread_mutex_t source_lock;
  const char *parts; /* of another origin: the sections beside model and tokens, as JSON */

  token *tokens; /* (n_ids) */
  int32_t n_ids;
  int32_t *by_key; /* hash table of vocabulary ids by their keys, -1 empty */
  size_t by_key_mask;
  size_t longest_key;

  mn_model_kind model;
  bool byte_level;      /* a piece is bytes, and each byte is a token */
  int32_t byte_id[256]; /* of byte-level vocabularies and of byte fall-back; -1: none */
  int32_t unk;          /* -1: none */
  bool byte_fallback, fuse_unk;
  const char *prefix, *suffix; /* of pieces inside and at the end of a word; NULL: none */
  size_t prefix_n, suffix_n;
  /* BPE */
  merge *merges;
  size_t merges_mask, n_merges;
  bool ignore_merges; /* a piece that is a token is that token, whatever the merges say */
  uint32_t *rank;     /* SentencePiece: no merges; two neighbours become the token that they spell, the best score first */
  uint64_t *pairs;    /* filter of neighbouring characters that stand in some token; NULL: not made */
  /* Unigram */
  double *score; /* also of SentencePiece's BPE, for writing */
  double unk_score;
  mn_trie trie;
  /* WordPiece */
  size_t max_word; /* characters */

  mn_norm norms[MAX_STEPS];
  int n_norms;
  mn_cut steps[MAX_STEPS];
  int n_steps;
  mn_decode_op decode[MAX_STEPS];
  int n_decode;
  bool decode_first;  /* the first token of a text may stand for other bytes than elsewhere */
  bool join_by_space; /* no decoder: tokens are words */
  bool suffix_last;   /* the last token of a text loses its suffix without a space */
  const char *strip;  /* of the whole text: this character, so often at the beginning and at the end */
  size_t strip_n;
  int strip_left, strip_right;

  int32_t *added; /* ids of added tokens */
  int n_added;
  const char **normal; /* (n_ids) what added tokens become when they are normalised; NULL: as they are */
  mn_trie added_raw, added_normalized;
  bool added_first[256]; /* can one of added_raw begin with this byte? */
  int32_t before[MAX_TEMPLATE], after[MAX_TEMPLATE];
  int n_before, n_after;
  int32_t eos, bos, ends[MAX_ENDS]; /* eos -2: found by its name */
  int n_ends;
  bool ends_given;
  int64_t cuts; /* tokens that `truncation` leaves of a text; 0: all */
};

/* The GPT-2 code that writes each byte as a printable character: byte -> code point, and back (-1 if none). */
unsigned mn_byte_to_char(unsigned char byte);
int mn_char_to_byte(unsigned code_point);

int32_t mn_vocab_find(const mn_tokenizer *tok, const char *key, size_t n);
static inline const merge *mn_merge_find(const mn_tokenizer *tok, int32_t left, int32_t right) {
  uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
  for (size_t i = (size_t)mn_splitmix64(key) & tok->merges_mask;; i = (i + 1) & tok->merges_mask) {
    if (tok->merges[i].key == key) return &tok->merges[i];
    if (tok->merges[i].key == UINT64_MAX) return NULL;
  }
}

/* A byte-level vocabulary may lack bytes that are rare; what has them loses them, as in the reference. */
static inline bool mn_byte_must_be(unsigned byte) { return byte >= 0x20 && byte < 0x7F; }

/* ---- making, for the readers ---- */
mn_tokenizer *mn_tokenizer_blank(void);                                                         /* NULL: out of memory */
mn_status mn_vocab_table(mn_tokenizer *tok, size_t n);                                          /* room for n keys */
void mn_vocab_enter(mn_tokenizer *tok, int32_t id);                                             /* tokens[id].key is set */
mn_status mn_merge_table(mn_tokenizer *tok, size_t n);                                          /* room for n merges */
void mn_merge_enter(mn_tokenizer *tok, int32_t left, int32_t right, uint32_t rank, int32_t id); /* the first of a pair counts */
mn_status mn_tokenizer_complete(mn_tokenizer *tok, const char *name); /* what follows from the parts: tables, filters, tokens' bytes */
mn_status mn_pairs_make(mn_tokenizer *tok);
mn_status mn_scores_set(mn_tokenizer *tok, const float *score); /* (n_ids): SentencePiece's BPE */
static inline uint64_t mn_pair_bit(uint32_t left, uint32_t right) {
  return (((uint64_t)left << 21 | right) * 0x9E3779B97F4A7C15ull) >> 43; /* 2^21 bits */
}
static inline bool mn_pair_possible(const mn_tokenizer *tok, uint32_t left, uint32_t right) {
  uint64_t bit = mn_pair_bit(left, right);
  return tok->pairs[bit >> 6] >> (bit & 63) & 1;
}
/* One byte <0x0A> of byte fall-back; -1: another key. */
int mn_fallback_byte(const char *key, size_t n);

/* ---- normalising ---- */
typedef struct mn_norm_work {
  mn_matcher matcher;
  mn_text text[2];
} mn_norm_work;
/* s[0..n) valid UTF-8, a part of a section; first and last say whether the section begins and ends with it. */
mn_status mn_normalize(const mn_tokenizer *tok, mn_norm_work *w, const char *s, size_t n, bool first, bool last, const char **out,
                       size_t *out_n);
void mn_norm_work_free(mn_norm_work *w);
/* The largest place in s[0..n), n excluded, where a section may be cut so that both parts are normalised alone; 0: none. */
mn_status mn_normalize_cut(const mn_tokenizer *tok, const char *s, size_t n, size_t *cut);
mn_status mn_charsmap_read(const char *name, mn_arena *arena, const void *data, size_t n, mn_norm *out);
void mn_charsmap_run(const mn_norm *norm, const char *s, size_t n, mn_text *out);

/* ---- encoding ---- */
typedef struct mn_symbol { /* of a doubly linked list over the piece */
  int32_t id, prev, next;
  uint32_t start;
  bool gone;
} mn_symbol;
typedef struct mn_candidate { /* a pair that could be merged, as it was when it was pushed */
  uint32_t rank;
  int32_t at, left, right, id;
  uint32_t end; /* of the pair, where tokens are found by what they spell */
} mn_candidate;
typedef struct mn_best { /* the best way to spell a piece up to a place */
  double score;
  int32_t id;
  uint32_t start;
} mn_best;
enum { CACHE_SLOTS = 1 << 15, CACHE_WORD = 24, CACHE_IDS = 24, CACHE_FULL = CACHE_SLOTS * 3 / 4 };
typedef struct mn_cached {
  uint64_t hash; /* 0 empty */
  uint8_t n, n_ids;
  char word[CACHE_WORD];
  int32_t ids[CACHE_IDS];
} mn_cached;

struct mn_encoder {
  const mn_tokenizer *tok;
  mn_matcher match[MAX_STEPS];
  mn_norm_work norm;
  /* of a text in pieces */
  mn_text raw, held;                      /* what waits for more: text, and normalised text */
  size_t raw_tried;                       /* so much of it has been tried in vain */
  bool begun, in_text;                    /* the text has begun; something of it has been given */
  bool word_before_raw, word_before_held; /* a sign of a word stands before what waits */
  bool in_section;                        /* the section between two added tokens has begun */
  bool open[MAX_STEPS + 1];               /* the piece that this step is given has begun in a call before this one */
  mn_text step[MAX_STEPS];                /* what a step makes of its piece */
  size_t step_tried[MAX_STEPS];
  bool unk_before; /* the piece's last id was the unknown token */
  /* of the models */
  mn_symbol *symbols;
  mn_candidate *heap;
  size_t cap, n_heap;
  mn_best *best;
  size_t cap_best;
  double unigram_score; /* of what has been given of a piece that goes on */
  mn_ids path;
  mn_cached *cache;
  size_t n_cached;
  mn_text key; /* of a character or word with its prefix and suffix */
};

enum { STOP_EVERY = 1 << 16 }; /* bytes */

/* Steps k and later on s[0..n), valid UTF-8. `first`: the text begins with it. When not `last`, more of the same piece follows:
 * *used says how much of it has become ids that cannot change. */
mn_status mn_cut_run(mn_encoder *e, int k, const char *s, size_t n, bool first, bool last, size_t *used, mn_ids *out);
/* One whole piece, or the part of one that is certain. */
mn_status mn_piece_encode(mn_encoder *e, const char *s, size_t n, bool last, size_t *used, mn_ids *out);
mn_status mn_bpe_encode(mn_encoder *e, const char *s, size_t n, mn_ids *out);
mn_status mn_bpe_prefix(mn_encoder *e, const char *s, size_t n, size_t *used, mn_ids *out); /* of more than MN_WINDOW bytes */
mn_status mn_unigram_encode(mn_encoder *e, const char *s, size_t n, bool last, size_t *used, mn_ids *out);
mn_status mn_wordpiece_encode(mn_encoder *e, const char *s, size_t n, mn_ids *out);
mn_status mn_longest_encode(mn_encoder *e, const char *s, size_t n, bool last, size_t *used, mn_ids *out); /* of a byte-level vocabulary */
/* Characters that no token spells. MN_ERR_FORMAT: a unigram model that names no token for them; other models leave them out, as the
 * reference does. */
mn_status mn_unk_add(mn_encoder *e, const char *s, size_t n, mn_ids *out);
mn_status mn_id_add(mn_encoder *e, int32_t id, mn_ids *out);
enum { MN_WINDOW = 1 << 17 };

/* ---- decoding ---- */
mn_status mn_decode_token(const mn_tokenizer *tok, int32_t id, bool first, bool last, mn_text *out);

/* ---- reading tokenizer.json ---- */
typedef struct mn_tok_reader {
  const char *name; /* of the file, for messages */
  mn_tokenizer *tok;
  const struct json_t *root;
  mn_trie seen; /* contents of added tokens */
  bool byte_level_seen, fused;
  char shown[MN_PRINTABLE];
} mn_tok_reader;
#define REFUSE(r, ...)      (mn_fail(MN_ERR_FORMAT, __VA_ARGS__), mn_context(MN_ERR_FORMAT, "%s", (r)->name))
#define REFUSE_KIND(r, ...) (mn_fail(MN_ERR_UNSUPPORTED, __VA_ARGS__), mn_context(MN_ERR_UNSUPPORTED, "%s", (r)->name))
bool mn_parts_byte_level(const struct json_t *root); /* is ByteLevel among the pre-tokenisers? */
mn_status mn_parts_read(mn_tok_reader *r, const struct json_t *root);
/* What BERT's pre-tokeniser takes for punctuation, as a class: ASCII's signs and category P as Unicode 8 knew it. */
extern const char mn_punctuation_class[];
/* Appends a step; what stands for Split, Whitespace, Punctuation ... in both formats. */
mn_status mn_cut_add(mn_tokenizer *tok, const char *name, const char *regex, bool literal, mn_cut_behavior behavior, bool invert);

/* ---- a byte-level BPE to be written as tokenizer.json ---- */
typedef struct bpe_spec {
  int32_t n_tokens;
  const mn_span *tokens; /* (n_tokens) the bytes of each id */
  const bool *special;   /* (n_tokens) */
  const int32_t (*merges)[2];
  size_t n_merges;
  const char *regex; /* NULL: text is not split */
} bpe_spec;
mn_status mn_tokenizer_write_json(const bpe_spec *spec, mn_text *out);
void mn_text_quote(mn_text *out, const char *s, size_t n);           /* s is valid UTF-8 */
mn_status mn_tokenizer_write(const mn_tokenizer *tok, mn_text *out); /* of a tokenizer that came from elsewhere */

#endif
