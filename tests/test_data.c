/* What must be true of data: a batch is the tokens of the text, and a function of its step alone; an epoch reads every
 * window once; sequential streams continue from step to step; held-out text is never trained on; shards are made once,
 * checked, and made again when they are damaged; bad data is refused with what to do. */
#include "base/file.h"
#include "test.h"
#include "source/data.h"

#include <unistd.h>

static char dir[400];
static const char *const eos_only[] = {"<|endoftext|>"};

static const char *path_of(const char *name) {
  static char path[4][600];
  static int next;
  char *p = path[next++ % 4];
  snprintf(p, sizeof path[0], "%s/%s", dir, name);
  return p;
}

static const char *write_text(const char *name, const char *text, size_t n) {
  const char *path = path_of(name);
  CHECK_OK(mn_file_write(path, text, n));
  return path;
}

/* n bytes in which every run of 6 is different, so that a window tells where it stands. */
static char *numbered_text(size_t n) {
  char *s = malloc(n + 8);
  for (size_t i = 0; i * 6 < n; i++) snprintf(s + i * 6, 7, "%05zu ", i % 100000);
  return s;
}

static mn_data_config config_of(const char *const *files, int n) {
  static char cache[600];
  snprintf(cache, sizeof cache, "%s/cache", dir);
  mn_data_config c;
  mn_config_defaults(mn_data_fields, &c);
  c.files = (mn_strings){files, n};
  c.cache = cache;
  return c;
}

static mn_corpus *open_corpus(const mn_data_config *c, const mn_tokenizer *tok) {
  mn_corpus *corpus = NULL;
  CHECK_OK(mn_corpus_open(c, tok, NULL, &corpus));
  return corpus;
}

static mn_tokenizer *bytes_tokenizer(void) {
  mn_tokenizer *tok = NULL;
  CHECK_OK(mn_tokenizer_bytes(eos_only, 1, &tok));
  return tok;
}

/* A name is a name before it is a pattern, whatever signs are in it. */
static void test_a_file_of_that_very_name_is_meant(void) {
  static const char *const names[] = {"a[b].txt", "what?.txt", "st*r.txt", "{x,y}.txt", "back\\slash.txt", "ab.txt"};
  mn_tokenizer *tok = bytes_tokenizer();
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) write_text(names[i], "0123456789", i + 3);
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    const char *files[] = {path_of(names[i])};
    mn_data_config config = config_of(files, 1);
    mn_corpus *c = open_corpus(&config, tok);
    CHECK(mn_corpus_text_bytes(c) == (int64_t)i + 3, "%s: %lld bytes", names[i], (long long)mn_corpus_text_bytes(c));
    mn_corpus_close(c);
  }
  const char *files[] = {path_of("{st,a}[*b]*.txt")}; /* st*r.txt, ab.txt; not a[b].txt */
  mn_data_config config = config_of(files, 1);
  mn_corpus *c = open_corpus(&config, tok);
  CHECK(mn_corpus_text_bytes(c) == 5 + 8, "a pattern: %lld bytes", (long long)mn_corpus_text_bytes(c));
  mn_corpus_close(c);
  mn_tokenizer_free(tok);
}

static void test_an_epoch_reads_every_window_once(void) {
  mn_tokenizer *tok = bytes_tokenizer();
  char *text = numbered_text(6000);
  const char *files[] = {write_text("numbers.txt", text, 6000)};
  mn_data_config config = config_of(files, 1);
  config.validation = 0.1;
  mn_corpus *c = open_corpus(&config, tok);
  enum { B = 4, T = 37 };
  CHECK(mn_corpus_tokens(c, MN_SPLIT_TRAIN) == 5401 && mn_corpus_tokens(c, MN_SPLIT_VALIDATION) == 600, "%lld and %lld tokens",
        (long long)mn_corpus_tokens(c, MN_SPLIT_TRAIN), (long long)mn_corpus_tokens(c, MN_SPLIT_VALIDATION));
  CHECK(mn_corpus_text_bytes(c) == 6000 && mn_corpus_vocab_size(c) == 257, "sizes");
  int32_t in[B * T], out[B * T], again[B * T], target[B * T];
  bool reset[B];
  int seen[5401] = {0}, windows = (5401 - 1) / T - 1, wrong = 0, order = 0, last = -1;
  for (int64_t step = 0; step * B + B <= windows; step++) {
    CHECK_OK(mn_corpus_batch(c, MN_SPLIT_TRAIN, step, B, T, in, out, reset));
    for (int b = 0; b < B; b++) {
      int32_t *row = in + b * T;
      int at = -1;
      for (int i = 0; i < 5401 - T && at < 0; i++) {
        int t = 0;
        while (t < T && row[t] == (unsigned char)text[i + t]) t++;
        if (t == T) at = i;
      }
      wrong += at < 0 || !reset[b];
      if (at < 0) continue;
      seen[at]++;
      order += at > last;
      last = at;
      for (int t = 0; t < T; t++) wrong += out[b * T + t] != (unsigned char)text[at + t + 1];
    }
  }
  int once = 0, more = 0;
  for (int i = 0; i < 5401; i++) once += seen[i] == 1, more += seen[i] > 1;
  CHECK(wrong == 0, "%d tokens are not those of the text", wrong);
  CHECK(more == 0 && once == windows / B * B, "%d windows once, %d more often, of %d", once, more, windows);
  CHECK(order < once * 3 / 4, "windows come in the order of the text (%d of %d)", order, once);
  CHECK_OK(mn_corpus_batch(c, MN_SPLIT_TRAIN, 3, B, T, in, out, NULL));
  CHECK_OK(mn_corpus_batch(c, MN_SPLIT_TRAIN, 1000000007, B, T, again, target, NULL));
  mn_corpus_close(c);
  c = open_corpus(&config, tok); /* a resumed run asks for the same step of a newly opened corpus */
  CHECK_OK(mn_corpus_batch(c, MN_SPLIT_TRAIN, 3, B, T, again, target, NULL));
  CHECK(!memcmp(in, again, sizeof in) && !memcmp(out, target, sizeof out), "a step differs after opening again");
  char hash[33], other[33];
  mn_corpus_hash(c, hash);
  mn_corpus_close(c);
  config.seed = 2;
  c = open_corpus(&config, tok);
  mn_corpus_hash(c, other);
  CHECK_OK(mn_corpus_batch(c, MN_SPLIT_TRAIN, 3, B, T, again, target, NULL));
  CHECK(memcmp(in, again, sizeof in) && strcmp(hash, other), "another seed gives the same batch or hash");
  mn_corpus_close(c);
  mn_tokenizer_free(tok);
  free(text);
}

static void test_validation_reads_the_end_in_order(void) {
  mn_tokenizer *tok = bytes_tokenizer();
  char *text = numbered_text(6000);
  const char *files[] = {write_text("numbers.txt", text, 6000)};
  mn_data_config config = config_of(files, 1);
  config.validation = 0.1;
  mn_corpus *c = open_corpus(&config, tok);
  enum { B = 4, T = 50 };
  int32_t in[B * T], out[B * T];
  int64_t steps = mn_corpus_steps(c, MN_SPLIT_VALIDATION, B, T), asked = 0, wrong = 0;
  CHECK(steps == 3, "%lld steps", (long long)steps); /* 599 / 50 = 11 windows */
  for (int64_t step = 0; step <= steps; step++) {
    CHECK_OK(mn_corpus_batch(c, MN_SPLIT_VALIDATION, step, B, T, in, out, NULL));
    for (int64_t k = 0; k < B * T; k++) {
      int64_t at = 5401 + step * B * T + k;
      if (out[k] == MN_IGNORE) continue;
      asked++;
      wrong += in[k] != (unsigned char)text[at] || (at + 1 < 6000 ? out[k] != (unsigned char)text[at + 1] : out[k] != 256);
    }
  }
  CHECK(asked == 11 * T && wrong == 0, "%lld targets, %lld wrong", (long long)asked, (long long)wrong);
  CHECK(mn_corpus_target_bytes(c, (int32_t[]){65, 256, MN_IGNORE, 66}, 4) == 2, "bytes of targets");
  int32_t some[10];
  CHECK(mn_corpus_read(c, MN_SPLIT_VALIDATION, 595, 10, some) == 5 && some[4] == 256, "reading is not cut at the end");
  mn_corpus_close(c);

  const char *held[] = {write_text("held.txt", "held out text, long enough for one window of it", 47)};
  config.validation_files = (mn_strings){held, 1};
  c = open_corpus(&config, tok);
  CHECK(mn_corpus_tokens(c, MN_SPLIT_TRAIN) == 6001 && mn_corpus_tokens(c, MN_SPLIT_VALIDATION) == 48, "separate files");
  CHECK_OK(mn_corpus_batch(c, MN_SPLIT_VALIDATION, 0, 1, 40, in, out, NULL));
  CHECK(in[0] == 'h' && out[0] == 'e' && in[39] == out[38], "held-out text");
  mn_corpus_close(c);
  mn_tokenizer_free(tok);
  free(text);
}

static void test_sequential_streams_continue(void) {
  mn_tokenizer *tok = bytes_tokenizer();
  char *text = numbered_text(5000);
  const char *files[] = {write_text("a.txt", text, 2000), write_text("b.txt", text + 2000, 3000)};
  mn_data_config config = config_of(files, 2);
  config.validation = 0;
  config.order = MN_ORDER_SEQUENTIAL;
  mn_corpus *c = open_corpus(&config, tok);
  CHECK(mn_corpus_tokens(c, MN_SPLIT_TRAIN) == 5002, "%lld tokens", (long long)mn_corpus_tokens(c, MN_SPLIT_TRAIN));
  enum { B = 3, T = 64 };
  int32_t in[B * T], out[B * T], all[5002];
  bool reset[B];
  CHECK(mn_corpus_read(c, MN_SPLIT_TRAIN, 0, 5002, all) == 5002 && all[2000] == 256 && all[2001] == (unsigned char)text[2000],
        "two files are not one after the other");
  int64_t steps = mn_corpus_steps(c, MN_SPLIT_TRAIN, B, T), len = 5001 / B, wrong = 0;
  CHECK(steps == len / T, "%lld steps", (long long)steps);
  for (int64_t step = 0; step < 2 * steps; step++) {
    CHECK_OK(mn_corpus_batch(c, MN_SPLIT_TRAIN, step, B, T, in, out, reset));
    for (int b = 0; b < B; b++) {
      wrong += reset[b] != (step % steps == 0);
      for (int t = 0; t < T; t++) {
        int64_t at = b * len + step % steps * T + t;
        wrong += in[b * T + t] != all[at] || out[b * T + t] != all[at + 1];
      }
    }
  }
  CHECK(wrong == 0, "%lld tokens are not the streams'", (long long)wrong);
  mn_corpus_close(c);
  mn_tokenizer_free(tok);
  free(text);
}

static void test_documents_end_with_their_token(void) {
  mn_tokenizer *tok = bytes_tokenizer();
  const char *files[] = {write_text("docs.txt", "one\n\n\ntwo\n\n\n\n\n\nthree", 20)};
  mn_data_config config = config_of(files, 1);
  config.validation = 0;
  config.separator = "\n\n\n";
  mn_corpus *c = open_corpus(&config, tok);
  int32_t all[32];
  const int32_t want[] = {'o', 'n', 'e', 256, 't', 'w', 'o', 256, 't', 'h', 'r', 'e', 'e', 256};
  CHECK(mn_corpus_read(c, MN_SPLIT_TRAIN, 0, 32, all) == 14 && !memcmp(all, want, sizeof want), "documents");
  mn_corpus_close(c);
  mn_tokenizer_free(tok);
}

static int progress_calls;
static bool count_calls(void *ctx, const char *file, int64_t bytes, int64_t total) {
  progress_calls++;
  return !ctx && file && bytes <= total;
}

static void test_shards_are_made_once_and_checked(void) {
  mn_tokenizer *tok = bytes_tokenizer();
  char *text = numbered_text(9000), cache[600];
  const char *files[] = {write_text("shard.txt", text, 9000)};
  mn_data_config config = config_of(files, 1);
  snprintf(cache, sizeof cache, "%s/cache2", dir);
  config.cache = cache;
  mn_corpus *c = NULL;
  int before = 0;
  CHECK_OK(mn_corpus_open(&config, tok, &(mn_watch){.progress = count_calls}, &c));
  mn_corpus_close(c);
  CHECK(progress_calls == 1, "%d calls while tokenising", progress_calls);
  char **names;
  size_t n;
  CHECK_OK(mn_dir_list(cache, &names, &n));
  CHECK(n == 1, "%zu files in the cache", n);
  char *path = mn_path_join(cache, names[0]), *good, *data;
  size_t size;
  mn_dir_list_free(names, n);
  CHECK_OK(mn_file_read(path, 1 << 20, &good, &size));
  CHECK(size > 18002 && size < 18300, "a shard of %zu bytes", size);
  for (int kind = 0; kind < 6; kind++) { /* untouched; then damaged in every part */
    size_t m = kind == 1 ? size - 100 : kind == 2 ? 10 : size;
    data = malloc(size);
    memcpy(data, good, size);
    if (kind == 3) data[1234] ^= 4;       /* an id              */
    if (kind == 4) data[size - 30] ^= 1;  /* the key            */
    if (kind == 5) data[18002 + 16] ^= 1; /* the count of ids  */
    if (kind) CHECK_OK(mn_file_write(path, data, m));
    free(data);
    before = progress_calls;
    CHECK_OK(mn_corpus_open(&config, tok, &(mn_watch){.progress = count_calls}, &c));
    CHECK(progress_calls - before == (kind > 0), "damage %d: %d calls", kind, progress_calls - before);
    CHECK(mn_corpus_tokens(c, MN_SPLIT_TRAIN) + mn_corpus_tokens(c, MN_SPLIT_VALIDATION) == 9001, "damage %d: tokens", kind);
    mn_corpus_close(c);
    CHECK_OK(mn_file_read(path, 1 << 20, &data, &m));
    CHECK(m == size && !memcmp(data, good, size), "damage %d: the shard was not made again", kind);
    free(data);
  }
  text[0] = 'x'; /* other content, same name: another shard */
  write_text("shard.txt", text, 9000);
  before = progress_calls;
  CHECK_OK(mn_corpus_open(&config, tok, &(mn_watch){.progress = count_calls}, &c));
  int32_t first;
  CHECK(progress_calls == before + 1 && mn_corpus_read(c, 0, 0, 1, &first) == 1 && first == 'x', "old ids for new content");
  mn_corpus_close(c);
  config.separator = "\n";
  CHECK(mn_corpus_open(&config, tok, &(mn_watch){.progress = count_calls, .ctx = &c}, &c) == MN_ERR_CANCELLED, "%s", mn_message());
  free(path);
  free(good);
  free(text);
  mn_tokenizer_free(tok);
}

static void test_bpe_shards(void) {
  mn_tokenizer *tok = NULL;
  char *text = numbered_text(50000);
  mn_tokenizer_train_config train = {.vocab_size = 400};
  CHECK_OK(mn_tokenizer_train(&train, &(mn_span){text, 50000}, 1, &tok));
  const char *files[] = {write_text("bpe.txt", text, 50000)};
  mn_data_config config = config_of(files, 1);
  config.validation = 0;
  mn_corpus *c = open_corpus(&config, tok);
  int64_t n = mn_corpus_tokens(c, MN_SPLIT_TRAIN);
  int32_t *all = malloc((size_t)n * sizeof *all);
  CHECK(n < 30000 && mn_corpus_read(c, MN_SPLIT_TRAIN, 0, n, all) == n && all[n - 1] == mn_tokenizer_eos(tok), "%lld tokens", (long long)n);
  mn_text out = {0};
  CHECK_OK(mn_tokenizer_decode(tok, all, (size_t)n, true, &out));
  CHECK(out.len == 50000 && !memcmp(out.data, text, 50000), "the text does not come back from its shard");
  CHECK(mn_corpus_target_bytes(c, all, n) == 50000, "%lld bytes", (long long)mn_corpus_target_bytes(c, all, n));
  mn_text_free(&out);
  free(all);
  free(text);
  mn_corpus_close(c);
  mn_tokenizer_free(tok);
}

static const mn_value *task_map(mn_arena *arena, const char *const *set) {
  const mn_value *v = mn_value_map(arena, 0, NULL, NULL);
  for (; *set; set++) CHECK_OK(mn_value_set(arena, v, *set, &v));
  return v;
}

static void test_tasks_are_data_too(void) {
  mn_arena *arena = mn_arena_new();
  mn_data_config config = config_of(NULL, 0);
  config.task = task_map(arena, (const char *const[]){"name=mqar", "vocab_size=64", "len=32", "kv=4", NULL});
  mn_corpus *c = open_corpus(&config, NULL);
  enum { B = 5, T = 32 };
  int32_t in[B * T], out[B * T], one[T], target[T], held[B * T];
  bool reset[B];
  CHECK_OK(mn_corpus_batch(c, MN_SPLIT_TRAIN, 7, B, T, in, out, reset));
  CHECK_OK(mn_task_sample(mn_corpus_task(c), MN_SPLIT_TRAIN, 7 * B + 2, one, target));
  CHECK(!memcmp(in + 2 * T, one, sizeof one) && !memcmp(out + 2 * T, target, sizeof target) && reset[2], "row 2 of step 7");
  CHECK_OK(mn_corpus_batch(c, MN_SPLIT_VALIDATION, 7, B, T, held, out, NULL));
  CHECK(memcmp(in, held, sizeof in) != 0, "training and validation are alike");
  CHECK(mn_corpus_vocab_size(c) == 64 && mn_corpus_steps(c, 0, B, T) == INT64_MAX, "sizes");
  CHECK(mn_corpus_check(c, MN_SPLIT_TRAIN, B, 64) == MN_ERR_CONFIG && strstr(mn_message(), "seq_len"), "%s", mn_message());
  mn_corpus_close(c);

  mn_tokenizer *tok = bytes_tokenizer();
  config.task = task_map(arena, (const char *const[]){"name=passkey", "garbage=50", NULL});
  CHECK(mn_corpus_open(&config, NULL, NULL, &c) == MN_ERR_CONFIG && strstr(mn_message(), "tokenizer"), "%s", mn_message());
  c = open_corpus(&config, tok);
  static int32_t text_in[2 * 400], text_out[2 * 400];
  CHECK_OK(mn_corpus_batch(c, MN_SPLIT_TRAIN, 0, 2, 400, text_in, text_out, NULL));
  int asked = 0, last = 0;
  for (int t = 0; t < 400; t++)
    if (text_out[t] != MN_IGNORE) asked++, last = t;
  CHECK(asked >= 3 && asked <= 7 && text_out[last] == 256 && text_out[last - asked + 1] == ' ', "%d targets", asked);
  CHECK(text_in[last - asked + 1] == 's', "the answer does not follow the question");
  CHECK(mn_corpus_batch(c, MN_SPLIT_TRAIN, 0, 2, 100, text_in, text_out, NULL) == MN_ERR_CONFIG && strstr(mn_message(), "seq_len"), "%s",
        mn_message());
  mn_corpus_close(c);

  config.task = task_map(arena, (const char *const[]){"len=32", NULL});
  CHECK(mn_corpus_open(&config, tok, NULL, &c) == MN_ERR_CONFIG && strstr(mn_message(), "name"), "%s", mn_message());
  config.task = task_map(arena, (const char *const[]){"name=mqar", "kw=3", NULL});
  CHECK(mn_corpus_open(&config, tok, NULL, &c) == MN_ERR_CONFIG && strstr(mn_message(), "kv"), "%s", mn_message());
  mn_tokenizer_free(tok);
  mn_arena_free(arena);
}

static void test_bad_data_is_refused(void) {
  mn_tokenizer *bytes = bytes_tokenizer(), *bpe = NULL;
  CHECK_OK(mn_tokenizer_train(&(mn_tokenizer_train_config){.vocab_size = 260}, &(mn_span){"abab abab", 9}, 1, &bpe));
  write_text("empty.txt", "", 0);
  write_text("latin1.txt", "caf\xe9 au lait, and more of it", 27);
  write_text("cut.txt", "the last character is cut \xe6\x98", 28);
  write_text("short.txt", "short text", 10);
  const struct {
    const char *file;
    const mn_tokenizer *tok;
    const char *says[2];
  } bad[] = {{"missing.txt", bytes, {"no file matches", "missing.txt"}}, {"missing*.txt", bytes, {"no file matches", "data.files"}},
             {"empty.txt", bytes, {"is empty", "data.files"}},           {"latin1.txt", bpe, {"byte 3", "iconv"}},
             {"cut.txt", bpe, {"truncated", "tokenizer: bytes"}},        {".", bytes, {"directory", "data.files"}}};
  mn_corpus *c = NULL;
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    const char *files[] = {path_of(bad[i].file)};
    mn_data_config config = config_of(files, 1);
    mn_status status = mn_corpus_open(&config, bad[i].tok, NULL, &c);
    CHECK(status != MN_OK && !c && strstr(mn_message(), bad[i].says[0]) && strstr(mn_message(), bad[i].says[1]), "%s: %s", bad[i].file,
          mn_message());
  }
  mn_data_config config = config_of(NULL, 0);
  CHECK(mn_corpus_open(&config, bytes, NULL, &c) == MN_ERR_CONFIG && strstr(mn_message(), "data.files"), "%s", mn_message());
  const char *latin[] = {path_of("latin1.txt")}, *small[] = {path_of("short.txt")};
  config = config_of(latin, 1); /* bytes take anything */
  c = open_corpus(&config, bytes);
  mn_corpus_close(c);
  config = config_of(small, 1);
  c = open_corpus(&config, bytes);
  int32_t in[64], out[64];
  CHECK(mn_corpus_batch(c, MN_SPLIT_TRAIN, 0, 1, 64, in, out, NULL) == MN_ERR_CONFIG && strstr(mn_message(), "seq_len 64"), "%s",
        mn_message());
  CHECK(mn_corpus_check(c, MN_SPLIT_VALIDATION, 1, 8) == MN_ERR_CONFIG && strstr(mn_message(), "data.validation"), "%s", mn_message());
  CHECK(mn_corpus_check(c, MN_SPLIT_TRAIN, 0, 8) == MN_ERR_CONFIG, "an empty batch");
  CHECK_OK(mn_corpus_batch(c, MN_SPLIT_TRAIN, 5, 1, 10, in, out, NULL)); /* exactly one window */
  CHECK(in[0] == 's' && out[9] == 256, "the only window");
  mn_corpus_close(c);
  config.cache = "/proc/no/such/cache";
  CHECK(mn_corpus_open(&config, bytes, NULL, &c) != MN_OK && strstr(mn_message(), "data.cache"), "%s", mn_message());
  mn_tokenizer_free(bytes);
  mn_tokenizer_free(bpe);
}

static void test_settings_are_described(void) { CHECK_OK(mn_fields_check(mn_data_fields)); }

static void remove_all(const char *path) {
  char **names;
  size_t n;
  if (mn_dir_list(path, &names, &n) != MN_OK) return;
  for (size_t i = 0; i < n; i++) {
    char *p = mn_path_join(path, names[i]);
    if (unlink(p)) remove_all(p);
    free(p);
  }
  mn_dir_list_free(names, n);
  rmdir(path);
}

int main(void) {
  snprintf(dir, sizeof dir, "%s/test_data_XXXXXX", MN_TEST_BINARY_DIR);
  if (!mkdtemp(dir)) return 1;
  RUN(test_a_file_of_that_very_name_is_meant);
  RUN(test_an_epoch_reads_every_window_once);
  RUN(test_validation_reads_the_end_in_order);
  RUN(test_sequential_streams_continue);
  RUN(test_documents_end_with_their_token);
  RUN(test_shards_are_made_once_and_checked);
  RUN(test_bpe_shards);
  RUN(test_tasks_are_data_too);
  RUN(test_bad_data_is_refused);
  RUN(test_settings_are_described);
  remove_all(dir);
  return test_end();
}
