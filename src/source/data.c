/* data.c - batches: which windows of which tokens make up a step. How text becomes tokens is in shards.c. */
#define _GNU_SOURCE
#include "source/data.h"

#include "base/dir.h"
#include "base/output.h"
#include "source/documents.h"
#include "source/shards.h"

#include <glob.h>
#include <stdlib.h>
#include <string.h>

static const char *const orders[] = {"shuffled", "sequential", NULL};
static const char *const documents_are[] = {"continue", "separate", NULL};
const mn_field mn_data_fields[] = {
    MN_FIELD_STRING(mn_data_config, type, NULL, "where batches come from; none: a task where one is named, else text", MN_SPARSE),
    MN_FIELD_STRINGS(mn_data_config, files,
                     "text files to train on; *, ?, [ ], {a,b} and ~ are patterns, unless a file has that very name"),
    MN_FIELD_STRINGS(mn_data_config, validation_files, "held-out text files; none: the end of `files`"),
    MN_FIELD_FLOAT(mn_data_config, validation, 0.05, 0, 0.9, "fraction held out at the end when there are no such files"),
    MN_FIELD_STRING(mn_data_config, separator, NULL, "text between documents of one file; none: a file is a document"),
    MN_FIELD_ENUM(mn_data_config, order, orders, MN_ORDER_SHUFFLED,
                  "shuffled windows, or sequential streams whose state is carried from step to step"),
    MN_FIELD_ENUM(mn_data_config, documents, documents_are, MN_DOCUMENTS_CONTINUE,
                  "one text in which documents follow each other, or each alone: no row, state or gradient crosses a document's end"),
    MN_FIELD_STRING(mn_data_config, cache, NULL, "directory of tokenised files; none: $MNEME_HOME/cache or runs/cache"),
    MN_FIELD_INT(mn_data_config, seed, 1, 0, INT64_MAX, "of the order of windows"),
    MN_FIELD_VALUE(mn_data_config, task, "a task instead of files: {name: mqar, len: 64, kv: 8}"),
    MN_FIELD_END};

typedef struct stream { /* files, one after the other */
  shard *shards;
  int64_t *first; /* (n + 1) position of each shard's first token */
  int n;
} stream;

struct mn_corpus {
  const mn_tokenizer *tok;
  mn_order order;
  uint64_t seed;
  stream files, held_out;
  int64_t cut;                         /* tokens of `files` that are for training */
  bool separate;                       /* each document is alone                  */
  mn_documents *training, *validation; /* where each is alone: those of the splits */
  mn_task *task;
  mn_encoder *enc; /* of text tasks */
  int32_t eos;
  char hash[MN_HASH_HEX];
};

static int64_t stream_tokens(const stream *s) { return s->n ? s->first[s->n] : 0; }

/* ---- opening ---- */

/* The pattern that matches this name alone. */
static char *as_pattern(const char *name) {
  mn_text t = {0};
  for (; *name; name++) {
    if (strchr("*?[]\\", *name)) mn_text_add(&t, "\\");
    mn_text_add_bytes(&t, name, 1);
  }
  return mn_text_take(&t);
}

mn_status mn_data_expand(const mn_strings *patterns, const char *key, glob_t *found) {
  memset(found, 0, sizeof *found);
  for (int i = 0; i < patterns->count; i++) {
    /* A file of exactly this name is meant, whatever signs are in it: a[b].txt. */
    bool exact = mn_file_exists(patterns->items[i]);
    char *name = exact ? as_pattern(patterns->items[i]) : NULL;
    if (exact && !name) return MN_ERR_MEMORY;
    int rc = glob(exact ? name : patterns->items[i], (exact ? 0 : GLOB_BRACE | GLOB_TILDE) | (i ? GLOB_APPEND : 0), NULL, found);
    free(name);
    if (rc == GLOB_NOMATCH)
      return mn_fail(MN_ERR_CONFIG, "data.%s: no file matches '%s'; give a path from the current directory", key, patterns->items[i]);
    if (rc) return mn_fail(rc == GLOB_NOSPACE ? MN_ERR_MEMORY : MN_ERR_IO, "data.%s: '%s' could not be read", key, patterns->items[i]);
  }
  return MN_OK;
}

static mn_status open_stream(const shard_options *o, const mn_strings *patterns, const char *key, stream *s) {
  if (!patterns->count) return MN_OK;
  glob_t found;
  mn_status status = mn_data_expand(patterns, key, &found);
  if (status == MN_OK) {
    s->shards = mn_calloc(found.gl_pathc, sizeof *s->shards);
    s->first = mn_calloc(found.gl_pathc + 1, sizeof *s->first);
    if (!s->shards || !s->first) status = MN_ERR_MEMORY;
  }
  for (size_t i = 0; i < found.gl_pathc && status == MN_OK; i++) {
    status = mn_context(mn_shard_open(o, found.gl_pathv[i], &s->shards[s->n]), "data.%s", key);
    if (status == MN_OK) s->first[s->n + 1] = s->first[s->n] + s->shards[s->n].n, s->n++;
  }
  globfree(&found);
  return status;
}

static void close_stream(stream *s) {
  for (int i = 0; i < s->n; i++) mn_shard_close(&s->shards[i]);
  free(s->shards);
  free(s->first);
}

mn_status mn_data_cache_dir(const mn_data_config *config, char **out) {
  const char *home = getenv("MNEME_HOME");
  if (config->cache) *out = mn_strdup(config->cache);
  else *out = home && *home ? mn_path_join(home, "cache") : mn_strdup("runs/cache");
  mn_status status = *out ? MN_OK : MN_ERR_MEMORY;
  if (status == MN_OK && !config->cache) { /* names of ours: a link there leads to what is not */
    if (!home || !*home) status = mn_dir_need_real("runs");
    if (status == MN_OK) status = mn_dir_need_real(*out);
  }
  if (status == MN_OK) status = mn_output_try_dir(*out);
  if (status == MN_OK) return MN_OK;
  free(*out);
  *out = NULL;
  return mn_context(status, "data.cache: set it to a directory that can be written");
}

/* The documents of the tokens [begin, end) of a stream. Each ends with the end token, which no text can spell. */
static mn_status find_documents(const mn_corpus *c, const stream *s, int64_t begin, int64_t end, mn_documents *out) {
  int64_t last = begin;
  for (int i = 0; i < s->n; i++) {
    const int64_t first = s->first[i], from = begin > first ? begin - first : 0, to = end - first;
    for (int64_t k = from; k < s->shards[i].n && k < to; k++) {
      if (k % (1 << 20) == 0) MN_TRY(mn_stop_check("looking for documents"));
      if (mn_shard_id(&s->shards[i], k) != c->eos) continue;
      last = first + k + 1;
      MN_TRY(mn_documents_add(out, begin, last));
    }
    MN_TRY(mn_map_check(&s->shards[i].map));
  }
  return last < end ? mn_documents_add(out, begin, end) : MN_OK;
}

static const stream *split_of(const mn_corpus *c, int split, int64_t *begin, int64_t *end);

static mn_status separate_documents(mn_corpus *c) {
  if (c->eos < 0)
    return mn_fail(MN_ERR_CONFIG, "data.documents: separate needs a tokenizer with an end token, which tells where documents end");
  c->training = mn_calloc(1, sizeof *c->training);
  c->validation = mn_calloc(1, sizeof *c->validation);
  if (!c->training || !c->validation) return MN_ERR_MEMORY;
  for (int split = MN_SPLIT_TRAIN; split <= MN_SPLIT_VALIDATION; split++) {
    int64_t begin, end;
    const stream *s = split_of(c, split, &begin, &end);
    MN_TRY(find_documents(c, s, begin, end, split == MN_SPLIT_TRAIN ? c->training : c->validation));
  }
  return MN_OK;
}

static mn_status open_files(mn_corpus *c, const mn_data_config *config, const mn_watch *watch) {
  if (!config->files.count) return mn_fail(MN_ERR_CONFIG, "data: neither files nor a task; set data.files or data.task");
  if (!c->tok) return mn_fail(MN_ERR_ARG, "data: files need a tokenizer");
  char *cache = NULL;
  MN_TRY(mn_data_cache_dir(config, &cache));
  shard_options o = {c->tok, config->separator && *config->separator ? config->separator : NULL, cache, watch};
  int made;
  mn_status status = mn_make_dirs_counted(cache, &made);
  if (status == MN_OK) status = open_stream(&o, &config->files, "files", &c->files);
  if (status == MN_OK) status = open_stream(&o, &config->validation_files, "validation_files", &c->held_out);
  if (status != MN_OK) mn_output_unmake_dirs(cache, made); /* what holds nothing */
  free(cache);
  int64_t n = stream_tokens(&c->files);
  c->cut = c->held_out.n ? n : n - (int64_t)((double)n * config->validation);
  return status == MN_OK && c->separate ? separate_documents(c) : status;
}

static size_t count_tokens(void *ctx, const char *text, size_t n) {
  mn_corpus *c = ctx;
  mn_ids ids = {0};
  size_t count = mn_encoder_add(c->enc, text, n, 0, &ids) == MN_OK ? ids.len : n;
  mn_ids_free(&ids);
  return count;
}

static mn_status open_task(mn_corpus *c, const mn_data_config *config) {
  if (config->files.count) return mn_value_fail(config->task, "data has both files and a task; remove one");
  const mn_value *name = mn_value_get(config->task, "name");
  if (!name || name->kind != MN_TEXT) return mn_value_fail(config->task, "data.task needs a name, as in {name: mqar, len: 64}");
  MN_TRY(mn_task_open(name->as.text, config->task, &c->task));
  if (!mn_value_get(config->task, "seed")) c->task->seed = (uint64_t)config->seed;
  if (c->task->def->sample || c->task->def->sample_label || c->task->def->sample_span) return MN_OK;
  if (!c->tok) return mn_value_fail(name, "task %s makes text and needs a tokenizer", name->as.text);
  MN_TRY(mn_encoder_new(c->tok, &c->enc));
  mn_task_count_with(c->task, count_tokens, c);
  return MN_OK;
}

static mn_status hash_corpus(mn_corpus *c, const mn_data_config *config) {
  mn_text t = {0};
  mn_text_addf(&t, "order %d seed %lld cut %lld", (int)c->order, (long long)c->seed, (long long)c->cut);
  if (c->separate) mn_text_add(&t, " documents separate");
  for (int k = 0; k < 2; k++) {
    const stream *s = k ? &c->held_out : &c->files;
    for (int i = 0; i < s->n; i++) mn_text_addf(&t, " %s", s->shards[i].key);
    mn_text_add(&t, " |");
  }
  mn_status status = config->task ? mn_value_to_json(config->task, 0, &t) : MN_OK;
  if (status == MN_OK) status = mn_text_status(&t);
  if (status == MN_OK) mn_content_hash(t.data, t.len, c->hash);
  mn_text_free(&t);
  return status;
}

mn_status mn_corpus_open(const mn_data_config *config, const mn_tokenizer *tok, const mn_watch *watch, mn_corpus **out) {
  *out = NULL;
  mn_corpus *c = mn_calloc(1, sizeof *c);
  if (!c) return MN_ERR_MEMORY;
  c->tok = tok;
  c->order = config->order;
  c->separate = config->documents == MN_DOCUMENTS_SEPARATE;
  c->seed = (uint64_t)config->seed;
  c->eos = tok ? mn_tokenizer_eos(tok) : -1;
  mn_status status = config->task ? open_task(c, config) : open_files(c, config, watch);
  if (status == MN_OK) status = hash_corpus(c, config);
  if (status != MN_OK) mn_corpus_close(c);
  else *out = c;
  return status;
}

void mn_corpus_close(mn_corpus *c) {
  if (!c) return;
  close_stream(&c->files);
  close_stream(&c->held_out);
  if (c->training) mn_documents_free(c->training);
  if (c->validation) mn_documents_free(c->validation);
  free(c->training);
  free(c->validation);
  mn_task_close(c->task);
  mn_encoder_free(c->enc);
  free(c);
}

/* ---- what there is ---- */

/* The tokens [*begin, *end) of a stream that are a split. */
static const stream *split_of(const mn_corpus *c, int split, int64_t *begin, int64_t *end) {
  bool held = split != MN_SPLIT_TRAIN;
  const stream *s = held && c->held_out.n ? &c->held_out : &c->files;
  *begin = held && s == &c->files ? c->cut : 0;
  *end = held ? stream_tokens(s) : c->cut;
  return s;
}

int64_t mn_corpus_tokens(const mn_corpus *c, int split) {
  int64_t begin, end;
  split_of(c, split, &begin, &end);
  return end - begin;
}

int64_t mn_corpus_text_bytes(const mn_corpus *c) {
  int64_t n = 0;
  for (int i = 0; i < c->files.n; i++) n += c->files.shards[i].text_bytes;
  for (int i = 0; i < c->held_out.n; i++) n += c->held_out.shards[i].text_bytes;
  return n;
}

int64_t mn_corpus_vocab_size(const mn_corpus *c) {
  return c->task && !c->task->def->sample_text ? c->task->vocab_size : mn_tokenizer_vocab_size(c->tok);
}

const mn_task *mn_corpus_task(const mn_corpus *c) { return c->task; }

void mn_corpus_hash(const mn_corpus *c, char hex[33]) { memcpy(hex, c->hash, MN_HASH_HEX); }

/* Windows of T + 1 tokens, each beginning with the last token of the one before. */
static int64_t windows(int64_t tokens, int64_t T) { return tokens > T ? (tokens - 1) / T : 0; }

/* Segments of each of the B streams of a sequential split. */
static int64_t segments(int64_t tokens, int64_t B, int64_t T) { return tokens > 0 ? (tokens - 1) / B / T : 0; }

/* Where each document is alone: those of a split. */
static mn_documents *documents_of(const mn_corpus *c, int split) { return split == MN_SPLIT_TRAIN ? c->training : c->validation; }

bool mn_corpus_separate(const mn_corpus *c) { return c->separate; }

int64_t mn_corpus_longest(const mn_corpus *c, int split) { return c->separate ? mn_documents_longest(documents_of(c, split)) : INT64_MAX; }

mn_status mn_corpus_check(const mn_corpus *c, int split, int64_t B, int64_t T) {
  if (B < 1 || T < 1 || B > INT32_MAX || T > INT32_MAX)
    return mn_fail(MN_ERR_CONFIG, "a batch of %lld rows of %lld tokens is impossible", (long long)B, (long long)T);
  if (c->task) {
    if (c->task->seq_len && c->task->seq_len != T)
      return mn_fail(MN_ERR_CONFIG, "task %s makes samples of %lld tokens, not %lld; set len and seq_len alike", c->task->def->name,
                     (long long)c->task->seq_len, (long long)T);
    return MN_OK;
  }
  int64_t tokens = mn_corpus_tokens(c, split), streams = c->order == MN_ORDER_SEQUENTIAL ? B : 1;
  if (mn_corpus_steps(c, split, B, T) > 0) return MN_OK;
  const char *name = split == MN_SPLIT_TRAIN ? "training" : "validation";
  if (!tokens && split != MN_SPLIT_TRAIN)
    return mn_fail(MN_ERR_CONFIG, "there is no validation text; set data.validation above 0 or data.validation_files");
  if (c->separate)
    return mn_fail(MN_ERR_CONFIG, "the documents of the %s text make %lld rows of seq_len %lld, but %lld are needed; use more text", name,
                   (long long)mn_documents_rows(documents_of(c, split), T), (long long)T, (long long)streams);
  return mn_fail(MN_ERR_CONFIG, "the %s text has %lld tokens, but %lld are needed for seq_len %lld%s; use more text, a smaller seq_len%s",
                 name, (long long)tokens, (long long)(streams * T + 1), (long long)T,
                 streams > 1 ? " in as many streams as the batch has rows" : "",
                 split == MN_SPLIT_TRAIN ? " or a smaller data.validation" : " or a larger data.validation");
}

int64_t mn_corpus_steps(const mn_corpus *c, int split, int64_t B, int64_t T) {
  if (c->task || B < 1 || T < 1) return c->task ? INT64_MAX : 0;
  int64_t tokens = mn_corpus_tokens(c, split);
  if (c->separate) {
    const int64_t rows = mn_documents_rows(documents_of(c, split), T);
    return c->order == MN_ORDER_SEQUENTIAL ? rows / B : (rows + B - 1) / B;
  }
  if (c->order == MN_ORDER_SEQUENTIAL) return segments(tokens, B, T);
  return (windows(tokens, T) + B - 1) / B;
}

/* ---- reading tokens ---- */

static void read_stream(const stream *s, int64_t position, int64_t n, int32_t *out) {
  int low = 0, high = s->n - 1; /* the shard that holds `position` */
  while (low < high) {
    int middle = low + (high - low + 1) / 2;
    if (s->first[middle] <= position) low = middle;
    else high = middle - 1;
  }
  for (int i = low; n > 0 && i < s->n; i++) {
    shard *x = &s->shards[i];
    x->touched = true;
    int64_t from = position - s->first[i], take = x->n - from < n ? x->n - from : n;
    for (int64_t k = 0; k < take; k++) out[k] = mn_shard_id(x, from + k);
    out += take;
    position += take;
    n -= take;
  }
}

/* What was read counts only when its files are still whole. */
static mn_status check_read(const stream *s) {
  for (int i = 0; i < s->n; i++) {
    if (!s->shards[i].touched) continue;
    s->shards[i].touched = false;
    MN_TRY(mn_map_check(&s->shards[i].map));
  }
  return MN_OK;
}

int64_t mn_corpus_read(const mn_corpus *c, int split, int64_t position, int64_t n, int32_t *out) {
  int64_t begin, end;
  const stream *s = split_of(c, split, &begin, &end);
  if (position < 0 || position >= end - begin || n <= 0) return 0;
  if (n > end - begin - position) n = end - begin - position;
  read_stream(s, begin + position, n, out);
  return check_read(s) == MN_OK ? n : -1;
}

int64_t mn_target_bytes(const mn_tokenizer *tok, const int32_t *target, int64_t n) {
  int64_t bytes = 0;
  for (int64_t i = 0; tok && i < n; i++) {
    size_t len;
    if (target[i] != MN_IGNORE && !mn_tokenizer_is_special(tok, target[i]) && mn_tokenizer_token(tok, target[i], &len))
      bytes += (int64_t)len;
  }
  return bytes;
}

int64_t mn_corpus_target_bytes(const mn_corpus *c, const int32_t *target, int64_t n) { return mn_target_bytes(c->tok, target, n); }

/* ---- batches ---- */

/* One row from T + 1 tokens at `position` of a stream. */
static void row_at(const stream *s, int64_t position, int64_t T, int32_t *input, int32_t *target) {
  read_stream(s, position, T, input);
  if (T > 1) memcpy(target, input + 1, (size_t)(T - 1) * sizeof *target);
  read_stream(s, position + T, 1, target + T - 1);
}

static void empty_row(int64_t T, int32_t *input, int32_t *target) {
  for (int64_t t = 0; t < T; t++) input[t] = 0, target[t] = MN_IGNORE;
}

static uint64_t epoch_key(const mn_corpus *c, int64_t epoch) { return mn_splitmix64(mn_random_key(c->seed, "data") ^ (uint64_t)epoch); }

/* Window `i` of the endless training order. Every epoch moves the windows by an offset of its own. */
static int64_t shuffled_position(const mn_corpus *c, int64_t tokens, int64_t T, int64_t i) {
  int64_t count = windows(tokens, T), spare = (tokens - 1) % T;
  if (count > 1) count--, spare = T - 1 + spare; /* one window less, so that offsets have room */
  int64_t epoch = i / count;
  uint64_t key = epoch_key(c, epoch);
  mn_rng rng;
  mn_rng_seed(&rng, key);
  int64_t offset = (int64_t)mn_rng_below(&rng, (uint64_t)(spare < T ? spare + 1 : T));
  return offset + T * mn_shuffled(key, count, i % count);
}

static mn_status text_row(mn_corpus *c, int split, int64_t index, int64_t T, int32_t *input, int32_t *target) {
  mn_task_text s;
  MN_TRY(mn_task_sample_text(c->task, split, (uint64_t)index, &s));
  mn_ids ids = {0}; /* prompt, answer, end */
  mn_status status = mn_encoder_add(c->enc, s.prompt, strlen(s.prompt), 0, &ids);
  int64_t asked = (int64_t)ids.len;
  if (status == MN_OK) status = mn_encoder_add(c->enc, s.answer, strlen(s.answer), 0, &ids);
  if (status == MN_OK && c->eos >= 0) status = mn_ids_add(&ids, c->eos);
  int64_t n = (int64_t)ids.len;
  if (status == MN_OK && n - 1 > T)
    status = mn_fail(MN_ERR_CONFIG, "task %s: a sample has %lld tokens, but seq_len is %lld; shorten the task or raise seq_len",
                     c->task->def->name, (long long)n, (long long)T);
  if (status == MN_OK) {
    empty_row(T, input, target);
    for (int64_t t = 0; t < n - 1; t++) {
      input[t] = ids.data[t];
      if (t + 1 >= asked) target[t] = ids.data[t + 1];
    }
  }
  mn_ids_free(&ids);
  mn_task_text_free(&s);
  return status;
}

static mn_status task_row(mn_corpus *c, int split, int64_t index, int64_t T, int32_t *input, int32_t *target) {
  if (c->task->def->sample) return mn_task_sample(c->task, split, (uint64_t)index, input, target);
  return text_row(c, split, index, T, input, target);
}

/* The number of row b of a step's batch where each document is alone; -1: it is not there. */
static int64_t row_alone(const mn_corpus *c, int split, int64_t step, int64_t B, int64_t T, int64_t b) {
  const int64_t rows = mn_documents_rows(documents_of(c, split), T), steps = mn_corpus_steps(c, split, B, T), i = step * B + b;
  const bool endless = split == MN_SPLIT_TRAIN;
  if (!endless && step >= steps) return -1;
  if (c->order == MN_ORDER_SEQUENTIAL) return b * steps + step % steps; /* streams are runs of rows */
  if (endless) return mn_shuffled(epoch_key(c, i / rows), rows, i % rows);
  return i < rows ? i : -1;
}

static void batch_alone(mn_corpus *c, int split, int64_t step, int64_t B, int64_t T, int32_t *input, int32_t *target, bool *reset) {
  int64_t begin, end, steps = mn_corpus_steps(c, split, B, T);
  const stream *s = split_of(c, split, &begin, &end);
  const bool goes_on = c->order == MN_ORDER_SEQUENTIAL && step % steps > 0;
  for (int64_t b = 0; b < B; b++) {
    const int64_t r = row_alone(c, split, step, B, T, b);
    empty_row(T, input + b * T, target + b * T);
    if (reset) reset[b] = true;
    if (r < 0) continue;
    const mn_document_row row = mn_documents_row(documents_of(c, split), T, r);
    read_stream(s, row.position, row.length, input + b * T);
    read_stream(s, row.position + 1, row.length, target + b * T);
    if (reset) reset[b] = row.first || !goes_on;
  }
}

mn_status mn_corpus_batch(mn_corpus *c, int split, int64_t step, int64_t B, int64_t T, int32_t *input, int32_t *target, bool *reset) {
  if (step < 0) return mn_fail(MN_ERR_ARG, "the batch of step %lld", (long long)step);
  MN_TRY(mn_corpus_check(c, split, B, T));
  int64_t begin, end, first;
  if (__builtin_mul_overflow(step, B, &first) || first > INT64_MAX - B)
    return mn_fail(MN_ERR_ARG, "the batch of step %lld is beyond the end of numbers", (long long)step);
  const stream *s = split_of(c, split, &begin, &end);
  int64_t tokens = end - begin, steps = mn_corpus_steps(c, split, B, T);
  bool endless = c->task || split == MN_SPLIT_TRAIN;
  if (c->separate) {
    batch_alone(c, split, step, B, T, input, target, reset);
    return check_read(s);
  }
  for (int64_t b = 0; b < B; b++) {
    int32_t *in = input + b * T, *out = target + b * T;
    bool fresh = true;
    if (c->task) {
      MN_TRY(task_row(c, split, first + b, T, in, out));
    } else if (!endless && step >= steps) {
      empty_row(T, in, out);
    } else if (c->order == MN_ORDER_SEQUENTIAL) {
      int64_t segment = step % steps, stream_len = (tokens - 1) / B;
      row_at(s, begin + b * stream_len + segment * T, T, in, out);
      fresh = segment == 0;
    } else if (endless) {
      row_at(s, begin + shuffled_position(c, tokens, T, first + b), T, in, out);
    } else if (first + b < windows(tokens, T)) {
      row_at(s, begin + (first + b) * T, T, in, out);
    } else {
      empty_row(T, in, out);
    }
    if (reset) reset[b] = fresh;
  }
  return check_read(s);
}
