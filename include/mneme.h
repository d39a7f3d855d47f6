/* mneme.h - the public C API of Mneme: train a sequence model with memory from a recipe, open it, stream any amount of text
 * through it at constant memory, save and fork what it remembers, and generate.
 *
 * Everything is behind opaque handles and plain types; no struct is exposed, so that programs keep linking as Mneme grows.
 *
 * ERRORS. Every function that can fail returns mn_status. On failure mn_message() says what happened, where, and what to do;
 * results that are pointers are then NULL. NULL for a handle is MN_ERR_ARG, too (numbers: 0 or -1). No function prints, exits or aborts.
 * OWNERSHIP. What a _new, _open or _fork function gives is freed with the _free function of the same name; all _free functions
 * accept NULL. An mn_lm must outlive its streams. Arrays and texts that a function hands over are freed with mn_release;
 * results marked "borrowed" belong to the handle.
 * SETTINGS are texts "key=value" in an array that ends with NULL (NULL: none), with the keys and values of recipes and of the
 * program's options: {"temperature=0.7", "top_k=40", NULL}. An unknown key is MN_ERR_CONFIG, and the message names the nearest.
 * THREADS. Different handles may be used by different threads, one handle by one thread at a time; streams of one mn_lm share its
 * workers: feed them by turns. A callback returns: one that leaves by longjmp or an exception strands what its call holds.
 * NUMBERS. NaN and infinities are refused with MN_ERR_NUMERIC, by name, in weights and session files, and are no result: a
 * model whose output is not finite fails the call.
 * LOCALE. Files, recipes, settings and messages write numbers with a point, whatever locale the program has set; while a call lasts, and
 * so in its callbacks, the same holds for numbers that its thread writes and reads (after a longjmp until uselocale).
 * TOKENS are int32_t ids in [0, mn_lm_vocab_size). All texts are UTF-8; paths are bytes as the system takes them. */
#ifndef MNEME_H
#define MNEME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- status ------------------------------------------------------------------------------------------------------- */

typedef enum mn_status {
  MN_OK = 0,
  MN_ERR_ARG,         /* the caller broke the contract of a function                */
  MN_ERR_CONFIG,      /* a recipe, a flag or a setting is wrong                      */
  MN_ERR_SHAPE,       /* shapes or types of tensors do not fit                       */
  MN_ERR_FORMAT,      /* a file's content is not what its format says                */
  MN_ERR_IO,          /* the operating system refused: missing file, full disk ...   */
  MN_ERR_MEMORY,      /* out of memory, or a size that cannot be represented         */
  MN_ERR_NUMERIC,     /* NaN, infinity or divergence                                 */
  MN_ERR_CANCELLED,   /* interrupted by the user; state was saved where promised     */
  MN_ERR_UNSUPPORTED, /* a correct request that this build or machine cannot serve   */
  MN_ERR_INTERNAL     /* a defect of Mneme                                           */
} mn_status;

/* This thread's last message; "" when none. Borrowed: valid until the next failure on the thread. */
const char *mn_message(void);
const char *mn_status_name(mn_status status); /* a word or two for logs; static */
const char *mn_version(void);                 /* "0.1.0"; static */
void mn_release(void *p);                     /* frees an array or text that a function handed over; NULL is fine */

/* ---- a trained language model ------------------------------------------------------------------------------------- */

typedef struct mn_lm mn_lm;

/* Opens the directory that training made: config.json, model.safetensors and (for text) tokenizer.json. threads: up to 4096, 0: all
 * processors. MN_ERR_IO: missing; MN_ERR_FORMAT, MN_ERR_CONFIG: damaged, or the files do not belong together. */
mn_status mn_lm_open(const char *dir, int threads, mn_lm **out);
void mn_lm_free(mn_lm *lm);
int64_t mn_lm_vocab_size(const mn_lm *lm);
int64_t mn_lm_parameters(const mn_lm *lm); /* learned numbers */
int32_t mn_lm_end_token(const mn_lm *lm);  /* the token that ends a document; -1: none */

/* Text to tokens and back; MN_ERR_CONFIG when the model has no tokenizer. Text that spells a special token stays text. */
mn_status mn_lm_encode(const mn_lm *lm, const char *text, size_t bytes, int32_t **tokens, size_t *n);
/* Ends with a zero byte that *bytes (may be NULL) does not count. Special tokens are left out. */
mn_status mn_lm_decode(const mn_lm *lm, const int32_t *tokens, size_t n, char **text, size_t *bytes);

/* ---- a stream: a model that reads on, and what it remembers ------------------------------------------------------- */

typedef struct mn_stream mn_stream;

/* A fresh stream. Settings: batch=N (parallel streams, 1), segment=N (most tokens computed at once, 256; does not change
 * results), precision=f32|bf16, forget=true|false (below). */
mn_status mn_stream_new(const mn_lm *lm, const char *const *settings, mn_stream **out);
void mn_stream_free(mn_stream *s);
mn_status mn_stream_fork(const mn_stream *s, mn_stream **out); /* an independent copy of what it remembers */
mn_status mn_stream_reset(mn_stream *s);                       /* back to a fresh stream                   */

/* Feeds n >= 1 tokens [batch, n], row-major. The cost of a token does not depend on how many came before, and memory does not
 * grow. *logits (may be NULL): [batch, vocab_size] after the last token; borrowed, valid until the next call. */
mn_status mn_stream_feed(mn_stream *s, const int32_t *tokens, int64_t n, const float **logits);
/* Feeds n tokens and gives nll [batch, n]: -log p(targets[t] | all tokens up to tokens[t]), in nats; 0 where a target is
 * negative. The perplexity of a text is exp of the mean, with targets[t] = tokens[t + 1]. */
mn_status mn_stream_score(mn_stream *s, const int32_t *tokens, const int32_t *targets, int64_t n, float *nll);
/* What mixers tell about each token, as "surprise" (Titans): asks for all that the model tells under this name, from the next
 * feed or score on; NULL: no more. Results stay the same; the first call after it compiles anew. MN_ERR_CONFIG: the model tells no
 * such thing; then nothing is asked for. Where it does not tell it in segments of the length that is fed (Titans MAC: more than
 * one token), the feed or score refuses. A fork asks for the same. */
mn_status mn_stream_report(mn_stream *s, const char *name);
int mn_stream_report_count(const mn_stream *s); /* how many the model has under that name, one or more a layer; 0: none asked for */
/* The i-th of them, i in [0, count). *path: where in the model ("layers.0.mixer.memory.surprise"), valid until the next
 * mn_stream_report. *values [batch, n], row-major: one for each token of the last feed or score, n of them in each row; in on_token
 * of mn_stream_generate, for that token; valid until the next call that feeds. NULL and *n 0 before the first and after a call
 * that failed. Both borrowed; any result pointer may be NULL. MN_ERR_ARG: no such i. */
mn_status mn_stream_report_at(const mn_stream *s, int i, const char **path, const float **values, int64_t *n);

/* Attention without a window keeps max_context tokens, and the tokens of a stream are held to that: feeding, scoring or
 * generating beyond mn_stream_limit is MN_ERR_CONFIG before any token of the call is fed. With forget=true such a stream goes
 * on, and the oldest tokens are forgotten, as a window would forget them. 0: nothing ends before
 * positions do: no stream is longer than 2^31 - 1 tokens. */
int64_t mn_stream_limit(const mn_stream *s);
int64_t mn_stream_position(const mn_stream *s);   /* tokens fed so far, per stream of the batch */
size_t mn_stream_state_bytes(const mn_stream *s); /* all that is needed to go on                */

/* The session file: safetensors with the model's fingerprint, written whole or not at all (nothing is tried before: saving the
 * fresh stream shows whether the path can be written). Loading refuses the file of
 * another model, a truncated or an edited one, and then leaves the stream as it was. Saving to the file that the stream was loaded from last
 * goes on with it: MN_ERR_IO where another program, or another handle, has written it since; it stays as it is, and the stream can be saved
 * under another name. Any other file of that name is replaced. */
mn_status mn_stream_save(mn_stream *s, const char *path);
mn_status mn_stream_load(mn_stream *s, const char *path);

/* What it remembers, tensor by tensor: i in [0, count). Any result pointer may be NULL. name and type ("f32") are borrowed;
 * dims has room for 6; norm: root of the sum of squares. */
int mn_stream_tensor_count(const mn_stream *s);
mn_status mn_stream_tensor(const mn_stream *s, int i, const char **name, const char **type, int *n_dims, int64_t *dims, double *norm);

/* Called with each token and the text it completes (valid UTF-8, `bytes` long and zero-terminated, often ""; always "" when
 * the model has no tokenizer). Borrowed. false stops. */
typedef bool (*mn_token_fn)(void *ctx, int32_t token, const char *text, size_t bytes);
/* Feeds a prompt of n >= 1 tokens, then draws and feeds at most max_tokens. Ends at the document's end, after max_tokens, or
 * when on_token says so (all MN_OK). A limit that n + max_tokens would pass is MN_ERR_CONFIG. The stream must have batch 1. Settings:
 * temperature, top_k, top_p, min_p, repetition_penalty, repetition_window, seed; the same seed gives the same tokens at the same place of
 * a stream. Ids that the model's tokenizer has no token for are never drawn. */
mn_status mn_stream_generate(mn_stream *s, const int32_t *prompt, int64_t n, int64_t max_tokens, const char *const *settings,
                             mn_token_fn on_token, void *ctx);

/* ---- training ------------------------------------------------------------------------------------------------------ */

typedef struct mn_training mn_training;

/* A recipe file, ready for its first step (texts are tokenised here, once). Settings change the recipe first, with dotted
 * keys: "train.steps=200". threads: up to 4096, 0: the recipe's. */
mn_status mn_training_new(const char *recipe, const char *const *settings, int threads, mn_training **out);
void mn_training_free(mn_training *t);
/* One update of the parameters. *loss (may be NULL): mean negative log-likelihood per token before it, in nats; NaN: no target counted.
 * MN_ERR_NUMERIC: it is not finite or runs away; MN_ERR_CONFIG: no target counted in a pass over the data. Messages say what to try. */
mn_status mn_training_step(mn_training *t, double *loss);
mn_status mn_training_validate(mn_training *t, double *loss); /* on held-out text, in nats per token; NaN: there is none */
int64_t mn_training_steps(const mn_training *t);              /* of the whole recipe */
int64_t mn_training_done(const mn_training *t);               /* so far              */
/* Writes a directory that mn_lm_open and the program read; again and again, as the training goes on, but in the place of nothing else:
 * MN_ERR_CONFIG where another model or a run with checkpoints stands. Nothing is tried before: saving once before the first step shows
 * whether it can be written. */
mn_status mn_training_save(const mn_training *t, const char *dir);

/* After each step; tokens_per_second is over the last seconds. false: save a checkpoint and end with MN_ERR_CANCELLED. */
typedef bool (*mn_train_fn)(void *ctx, int64_t step, int64_t steps, double loss, double tokens_per_second);
/* The whole training, as `mneme train` does it: checkpoints, metrics, validation; with `resume` on from the newest
 * checkpoint of out_dir, to the same bits. on_step may be NULL. Whether out_dir can be written, and has room for a checkpoint,
 * is tried before the first step: MN_ERR_IO. */
mn_status mn_lm_train(const char *recipe, const char *const *settings, const char *out_dir, bool resume, mn_train_fn on_step, void *ctx);

#ifdef __cplusplus
}
#endif

#endif
