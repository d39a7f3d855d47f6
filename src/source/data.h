/* data.h - where batches come from: text files, tokenised once and mapped, or a task's generator.
 *
 * A corpus has no state but what a caller passes: the batch of a step is a pure function of (corpus, seed, step), so a
 * run resumes anywhere by its step number. Two orders: shuffled    windows of T + 1 tokens in an order drawn anew for
 * every epoch (a Feistel permutation, no table); sequential  B parallel streams read from end to end, for truncated
 * back-propagation with carried state; a batch says which rows begin a stream. In both, documents are one text, or each
 * is alone: no row then crosses a document's end (documents.h), and a stream begins anew with every document. Files are tokenised to binary shards in
 * a cache directory, one per file, named by the hash of (content, tokenizer, settings), written whole or not at all,
 * and checked whenever they are used. */
#ifndef MN_DATA_H
#define MN_DATA_H

#include "source/source.h"

typedef enum { MN_ORDER_SHUFFLED, MN_ORDER_SEQUENTIAL } mn_order;
typedef enum { MN_DOCUMENTS_CONTINUE, MN_DOCUMENTS_SEPARATE } mn_documents_are;

typedef struct mn_data_config { /* the section `data` of a recipe, for text and tasks */
  const char *type;             /* text, task, or NULL: what the other keys say             */
  mn_strings files;             /* text files; * ? [ ] {,} ~ are patterns, unless a file has that very name */
  mn_strings validation_files;  /* held-out text; empty: the end of `files`                */
  double validation;            /* fraction held out at the end when there are none        */
  const char *separator;        /* between documents of a file; NULL: a file is a document */
  mn_order order;
  mn_documents_are documents; /* one text, or each alone */
  const char *cache;          /* directory of shards; NULL: $MNEME_HOME/cache or runs/cache */
  int64_t seed;               /* of the order, and of the task                           */
  const mn_value *task;       /* instead of files: {name: mqar, len: 64, ...}            */
} mn_data_config;
extern const mn_field mn_data_fields[];

typedef struct mn_corpus mn_corpus;

extern const mn_source_def mn_source_text, mn_source_task;
bool mn_source_is_tokens(const mn_source_config *c); /* text or a task */
mn_corpus *mn_source_corpus(const mn_source *s);     /* NULL: the source is neither text nor a task */

/* Opens files (tokenising what has no good shard yet) or a task. `tok` may be NULL for tasks that make token ids, and
 * must outlive the corpus. `watch` (or NULL) is told each file that is tokenised, and its bytes. */
mn_status mn_corpus_open(const mn_data_config *config, const mn_tokenizer *tok, const mn_watch *watch, mn_corpus **out);
void mn_corpus_close(mn_corpus *corpus);

/* Tokens of a split (MN_SPLIT_TRAIN, MN_SPLIT_VALIDATION); 0 for a task, which never ends. */
int64_t mn_corpus_tokens(const mn_corpus *corpus, int split);
int64_t mn_corpus_text_bytes(const mn_corpus *corpus); /* of all files */
/* The smallest vocabulary a model of this data needs. */
int64_t mn_corpus_vocab_size(const mn_corpus *corpus);
const mn_task *mn_corpus_task(const mn_corpus *corpus); /* NULL: files */
/* 32 hexadecimal digits of all that batches depend on: shards, split, order, seed, task. */
void mn_corpus_hash(const mn_corpus *corpus, char hex[33]);
/* Can batches of B rows of T tokens be made from this split? MN_ERR_CONFIG with what to change when not. */
mn_status mn_corpus_check(const mn_corpus *corpus, int split, int64_t B, int64_t T);
/* Tokens of the longest stream that carried state can follow: of the longest document where each is alone, else INT64_MAX. */
int64_t mn_corpus_longest(const mn_corpus *corpus, int split);
bool mn_corpus_separate(const mn_corpus *corpus); /* is each document alone? */
/* Steps until every window (or every stream) has been read once; INT64_MAX for a task. */
int64_t mn_corpus_steps(const mn_corpus *corpus, int split, int64_t B, int64_t T);

/* The batch of a step: input[B, T] and target[B, T], target[b, t] being the token after input[b, t]; MN_IGNORE where
 * nothing is asked. reset[B] (may be NULL): true where the row does not continue the row of the step before. Where each document
 * is alone, a row may be shorter than T: what is behind it is 0, with nothing asked.
 * The training split is endless. Validation is in the order of the text, and its last batch may be short: missing rows
 * are all MN_IGNORE, and so is everything after mn_corpus_steps. One thread at a time. */
mn_status mn_corpus_batch(mn_corpus *corpus, int split, int64_t step, int64_t B, int64_t T, int32_t *input, int32_t *target, bool *reset);
/* Tokens [position, position + n) of a split of a file corpus, cut at its end. Returns how many were written; -1 (message set)
 * when a file has been cut short or changed since it was opened. */
int64_t mn_corpus_read(const mn_corpus *corpus, int split, int64_t position, int64_t n, int32_t *out);
/* Bytes of text that the targets stand for, MN_IGNORE and special tokens counting 0: for bits per byte. */
int64_t mn_target_bytes(const mn_tokenizer *tok, const int32_t *target, int64_t n);
int64_t mn_corpus_target_bytes(const mn_corpus *corpus, const int32_t *target, int64_t n);

#endif
