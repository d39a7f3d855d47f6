/* What must be true of tokenizers: ids equal Hugging Face's on every kind of text; decoding gives the bytes back; a
 * decoder fed id by id never shows half a character; training equals Hugging Face's trainer; no text is refused, and a
 * broken tokenizer.json is, with the reason. The golden files are made by tests/golden/tokenizer/make.py. */
#include "base/file.h"
#include "format/tokenizer_internal.h"
#include "task/rng.h"
#include "scratch.h"
#include "test.h"

#include <jansson.h>

#define GOLDEN MN_TEST_SOURCE_DIR "/tests/golden/tokenizer/"

static mn_tokenizer *load(const char *name) {
  char path[512];
  snprintf(path, sizeof path, GOLDEN "%s.json", name);
  mn_tokenizer *tok = NULL;
  CHECK_OK(mn_tokenizer_load(path, &tok));
  return tok;
}

static bool same_ids(const mn_ids *ids, const json_t *want, size_t *at) {
  size_t n = json_array_size(want);
  for (*at = 0; *at < ids->len && *at < n; ++*at)
    if (ids->data[*at] != json_integer_value(json_array_get(want, *at))) return false;
  return ids->len == n;
}

static void test_ids_equal_hugging_face(void) {
  json_error_t error;
  json_t *cases = json_load_file(GOLDEN "cases.json", JSON_ALLOW_NUL, &error), *rows;
  CHECK(cases != NULL, "%s", error.text);
  const char *name;
  json_object_foreach(cases, name, rows) {
    mn_tokenizer *tok = load(name);
    if (!tok) continue;
    size_t i, at;
    json_t *row;
    json_array_foreach(rows, i, row) {
      json_t *text = json_object_get(row, "text"), *decoded = json_object_get(row, "decoded");
      mn_ids ids = {0}, around = {0};
      const char *s = json_string_value(text);
      CHECK_OK(mn_tokenizer_encode(tok, s, json_string_length(text), MN_ENCODE_SPECIAL, &ids));
      CHECK(same_ids(&ids, json_object_get(row, "ids"), &at), "%s, text %zu '%.40s': differs at id %zu", name, i, s, at);
      CHECK_OK(mn_tokenizer_encode(tok, s, json_string_length(text), MN_ENCODE_SPECIAL | MN_ENCODE_TEMPLATE, &around));
      CHECK(same_ids(&around, json_object_get(row, "template"), &at), "%s, text %zu with template: differs at id %zu", name, i, at);
      mn_text out = {0}, stream = {0};
      CHECK_OK(mn_tokenizer_decode(tok, ids.data, ids.len, false, &out));
      CHECK(out.len == json_string_length(decoded) && (!out.len || !memcmp(out.data, json_string_value(decoded), out.len)),
            "%s, text %zu decodes to '%.40s'", name, i, out.len ? out.data : "");
      mn_decoder dec = {.tok = tok};
      bool whole = true;
      for (size_t k = 0; k < ids.len; k++) {
        mn_decoder_push(&dec, ids.data[k], &stream);
        whole &= !stream.len || mn_utf8_valid(stream.data, stream.len) == stream.len;
      }
      mn_decoder_finish(&dec, &stream);
      CHECK(whole, "%s, text %zu: the stream shows half a character", name, i);
      CHECK(stream.len == out.len && (!out.len || !memcmp(stream.data, out.data, out.len)), "%s, text %zu: the stream differs", name, i);
      mn_text_free(&out);
      mn_text_free(&stream);
      mn_ids_free(&ids);
      mn_ids_free(&around);
    }
    mn_tokenizer_free(tok);
  }
  json_decref(cases);
}

/* Same words, same counts, same order of ties: the same vocabulary and merges as the reference trainer's. */
static void test_training_equals_hugging_face(void) {
  static const struct {
    const char *name;
    mn_pattern pattern;
    int32_t size;
    int n_special;
    const char *special[2];
  } want[] = {{"gpt2", MN_PATTERN_GPT2, 600, 1, {"<|endoftext|>"}},
              {"cl100k", MN_PATTERN_CL100K, 500, 1, {"<|endoftext|>"}},
              {"llama3", MN_PATTERN_LLAMA3, 500, 2, {"<|begin|>", "<|endoftext|>"}}};
  char *text;
  size_t n;
  CHECK_OK(mn_file_read(GOLDEN "corpus.txt", 1 << 20, &text, &n));
  for (size_t k = 0; k < 3; k++) {
    mn_tokenizer *ours = NULL, *theirs = load(want[k].name);
    mn_tokenizer_train_config c = {.vocab_size = want[k].size,
                                   .min_frequency = 2,
                                   .pattern = want[k].pattern,
                                   .special = want[k].special,
                                   .n_special = want[k].n_special};
    CHECK_OK(mn_tokenizer_train(&c, &(mn_span){text, n}, 1, &ours));
    CHECK(mn_tokenizer_vocab_size(ours) == mn_tokenizer_vocab_size(theirs), "%s: %d tokens, not %d", want[k].name,
          mn_tokenizer_vocab_size(ours), mn_tokenizer_vocab_size(theirs));
    int differ = 0;
    for (int32_t id = 0; id < mn_tokenizer_vocab_size(theirs); id++) {
      size_t a, b;
      const char *x = mn_tokenizer_token(ours, id, &a), *y = mn_tokenizer_token(theirs, id, &b);
      differ += !x || !y || a != b || memcmp(x, y, a);
    }
    CHECK(differ == 0, "%s: %d tokens differ", want[k].name, differ);
    mn_ids x = {0}, y = {0};
    CHECK_OK(mn_tokenizer_encode(ours, text, n, 0, &x));
    CHECK_OK(mn_tokenizer_encode(theirs, text, n, 0, &y));
    CHECK(x.len == y.len && !memcmp(x.data, y.data, x.len * sizeof *x.data), "%s: encodes differently", want[k].name);
    CHECK(x.len < n * 2 / 3, "%s: %zu ids for %zu bytes", want[k].name, x.len, n);
    mn_ids_free(&x);
    mn_ids_free(&y);
    mn_tokenizer_free(ours);
    mn_tokenizer_free(theirs);
  }
  free(text);
}

static bool stop(void *ctx, const char *what, int64_t done, int64_t total) {
  CHECK(what == mn_progress_vocabulary, "%s", what);
  ++*(int *)ctx;
  return done < total / 2;
}

static void test_training_can_be_stopped_and_ends_by_itself(void) {
  mn_tokenizer *tok = NULL;
  int calls = 0;
  mn_span text = {"ab ab ab abc abc abcd", 21};
  mn_tokenizer_train_config c = {.vocab_size = 300, .watch = &(mn_watch){.progress = stop, .ctx = &calls}};
  CHECK_OK(mn_tokenizer_train(&c, &text, 1, &tok));
  CHECK(mn_tokenizer_vocab_size(tok) < 270 && mn_tokenizer_vocab_size(tok) > 260, "%d tokens", mn_tokenizer_vocab_size(tok));
  CHECK(mn_tokenizer_find(tok, " abcd") >= 0 && mn_tokenizer_eos(tok) == 0, "tokens are missing");
  mn_tokenizer_free(tok);
  c.vocab_size = 262;
  CHECK(mn_tokenizer_train(&c, &text, 1, &tok) == MN_ERR_CANCELLED && !tok && calls > 0, "%s", mn_message());
  c.vocab_size = 100;
  CHECK(mn_tokenizer_train(&c, &text, 1, &tok) == MN_ERR_CONFIG && strstr(mn_message(), "vocab_size"), "%s", mn_message());
}

/* Byte-pair encoding as it is defined: the best pair of the whole piece, everywhere from the left, until none is left. */
static void encode_by_definition(const mn_tokenizer *tok, const char *s, size_t n, mn_ids *out) {
  for (size_t i = 0; i < n; i++) mn_ids_add(out, tok->byte_id[(unsigned char)s[i]]);
  for (;;) {
    const merge *best = NULL;
    size_t k = 0;
    for (size_t i = 0; i + 1 < out->len; i++) {
      const merge *m = mn_merge_find(tok, out->data[i], out->data[i + 1]);
      if (m && (!best || m->rank < best->rank)) best = m;
    }
    if (!best) return;
    for (size_t i = 0; i < out->len; i++) {
      bool here = i + 1 < out->len && mn_merge_find(tok, out->data[i], out->data[i + 1]) == best;
      out->data[k++] = here ? best->id : out->data[i];
      i += here;
    }
    out->len = k;
  }
}

/* A line without a blank is one piece, whatever its length, and costs no memory of its length. */
static void test_a_very_long_piece_is_one_piece(void) {
  enum { N = 400000 };
  static const char *const alphabets[] = {"ab", "a", "abcdefgh", "aab"};
  char *text = mn_alloc(N);
  mn_text learn = {0};
  mn_rng rng;
  mn_rng_seed(&rng, 5);
  for (int i = 0; i < 20000; i++) {
    static const char letters[] = "aaabbabcdefgh";
    mn_text_add_bytes(&learn, i % 9 ? &letters[mn_rng_below(&rng, 13)] : " ", 1);
  }
  mn_tokenizer *tok = NULL;
  mn_tokenizer_train_config c = {.vocab_size = 600};
  CHECK_OK(mn_tokenizer_train(&c, &(mn_span){learn.data, learn.len}, 1, &tok));
  for (size_t k = 0; k < sizeof alphabets / sizeof *alphabets; k++) {
    for (int i = 0; i < N; i++) text[i] = alphabets[k][mn_rng_below(&rng, strlen(alphabets[k]))];
    mn_ids by_definition = {0}, by_windows = {0};
    encode_by_definition(tok, text, N, &by_definition);
    CHECK_OK(mn_tokenizer_encode(tok, text, N, 0, &by_windows));
    CHECK(by_definition.len == by_windows.len && !memcmp(by_definition.data, by_windows.data, by_windows.len * sizeof *by_windows.data),
          "letters %s: %zu tokens, %zu by definition", alphabets[k], by_windows.len, by_definition.len);
    mn_ids_free(&by_definition);
    mn_ids_free(&by_windows);
  }
  mn_tokenizer_free(tok);
  mn_text_free(&learn);
  free(text);
}

/* What is learned can be read again: a rule of dashes makes no token of its whole length. */
static void test_training_on_one_long_line(void) {
  enum { N = 2000000 };
  char *text = mn_alloc(N);
  mn_rng rng;
  mn_rng_seed(&rng, 6);
  for (int kind = 0; kind < 4; kind++) {
    for (int i = 0; i < N; i++)
      text[i] = kind == 0   ? '='
                : kind == 1 ? (char)('a' + mn_rng_below(&rng, 26))
                : kind == 2 ? "0123456789abcdef+/"[mn_rng_below(&rng, 18)]
                            : (char)mn_rng_below(&rng, 256);
    mn_tokenizer *tok = NULL, *again = NULL;
    mn_tokenizer_train_config c = {.vocab_size = 400};
    CHECK_OK(mn_tokenizer_train(&c, &(mn_span){text, N}, 1, &tok));
    size_t n, longest = 0;
    for (int32_t id = 0; tok && id < mn_tokenizer_vocab_size(tok); id++)
      if (mn_tokenizer_token(tok, id, &n) && n > longest) longest = n;
    CHECK(longest >= 2 && longest <= 256, "kind %d: a token of %zu bytes", kind, longest);
    const char *json = tok ? mn_tokenizer_json(tok, &n) : "";
    if (tok) CHECK_OK(mn_tokenizer_parse("again", json, n, &again));
    mn_tokenizer_free(tok);
    mn_tokenizer_free(again);
  }
  free(text);
}

/* A stop is heard inside one piece, too. */
static void test_a_stop_is_heard(void) {
  static atomic_int flag;
  enum { N = 1000000 };
  char *text = mn_alloc(N);
  mn_tokenizer *tok = NULL, *none = NULL;
  mn_ids ids = {0};
  memset(text, 'a', N);
  mn_tokenizer_train_config c = {.vocab_size = 300};
  CHECK_OK(mn_tokenizer_train(&c, &(mn_span){text, N}, 1, &tok));
  mn_stop_watch(&flag);
  flag = 1;
  CHECK(mn_tokenizer_train(&c, &(mn_span){text, N}, 1, &none) == MN_ERR_CANCELLED && !none, "%s", mn_message());
  CHECK(mn_tokenizer_encode(tok, text, N, 0, &ids) == MN_ERR_CANCELLED, "%s", mn_message());
  mn_stop_watch(NULL);
  mn_ids_free(&ids);
  mn_tokenizer_free(tok);
  free(text);
}

/* Random bytes, broken UTF-8, long runs: every text comes back byte for byte. */
static void test_no_text_is_refused(void) {
  static const char *const names[] = {"gpt2", "llama3", "cl100k"};
  for (size_t k = 0; k <= 3; k++) {
    mn_tokenizer *tok = NULL;
    if (k < 3) tok = load(names[k]);
    else CHECK_OK(mn_tokenizer_bytes((const char *const[]){"<|endoftext|>"}, 1, &tok));
    mn_encoder *enc = NULL;
    CHECK_OK(mn_encoder_new(tok, &enc));
    char text[400];
    uint64_t x = 9;
    int wrong = 0;
    for (int i = 0; i < 2000; i++) {
      size_t n = (size_t)(i % 400);
      for (size_t j = 0; j < n; j++) {
        x = mn_splitmix64(x);
        static const char some[] = "abc  \n\r'stre\xE6\x98\xA5\xF0\x9F\x98\x80\xC3\xA9\x80\xFF\xED\xA0\xC0";
        text[j] = i % 2 ? (char)x : some[x % (sizeof some - 1)];
      }
      mn_ids ids = {0};
      mn_text out = {0};
      wrong += mn_encoder_add(enc, text, n, 0, &ids) != MN_OK;
      wrong += mn_tokenizer_decode(tok, ids.data, ids.len, false, &out) != MN_OK || out.len != n || (n && memcmp(out.data, text, n));
      mn_decoder dec = {.tok = tok};
      mn_text shown = {0};
      for (size_t j = 0; j < ids.len; j++) mn_decoder_push(&dec, ids.data[j], &shown);
      mn_decoder_finish(&dec, &shown);
      wrong += shown.len && mn_utf8_valid(shown.data, shown.len) != shown.len;
      mn_text_free(&shown);
      mn_text_free(&out);
      mn_ids_free(&ids);
    }
    CHECK(wrong == 0, "tokenizer %zu: %d texts go wrong", k, wrong);
    size_t n = 1 << 18; /* one word: what is quadratic would take minutes */
    char *run = malloc(n);
    for (int kind = 0; kind < 3; kind++) {
      for (size_t i = 0; i < n; i++) run[i] = kind == 0 ? ' ' : kind == 1 ? 'a' : "the weather!"[i % 12];
      mn_ids ids = {0};
      mn_text out = {0};
      CHECK_OK(mn_encoder_add(enc, run, n, 0, &ids));
      CHECK_OK(mn_tokenizer_decode(tok, ids.data, ids.len, false, &out));
      CHECK(out.len == n && !memcmp(out.data, run, n), "tokenizer %zu: run %d does not come back", k, kind);
      mn_text_free(&out);
      mn_ids_free(&ids);
    }
    free(run);
    mn_encoder_free(enc);
    mn_tokenizer_free(tok);
  }
}

static void test_specials_are_parsed_only_when_asked(void) {
  mn_tokenizer *tok = load("gpt2");
  int32_t eos = mn_tokenizer_eos(tok);
  CHECK(eos == 0 && mn_tokenizer_is_special(tok, eos) && mn_tokenizer_find(tok, "<|endoftext|>") == eos, "eos is %d", eos);
  mn_ids ids = {0};
  mn_text out = {0};
  const char *text = "a<|endoftext|>b";
  CHECK_OK(mn_tokenizer_encode(tok, text, strlen(text), 0, &ids));
  int found = 0;
  for (size_t i = 0; i < ids.len; i++) found += ids.data[i] == eos;
  CHECK(found == 0, "a text that is not trusted made a special token");
  ids.len = 0;
  CHECK_OK(mn_tokenizer_encode(tok, text, strlen(text), MN_ENCODE_SPECIAL, &ids));
  CHECK(ids.len == 3 && ids.data[1] == eos, "%zu ids", ids.len);
  CHECK_OK(mn_tokenizer_decode(tok, ids.data, ids.len, true, &out));
  CHECK(!strcmp(out.data, "ab"), "'%s'", out.data);
  CHECK(mn_tokenizer_decode(tok, (int32_t[]){600}, 1, true, &out) == MN_ERR_ARG, "an id out of range decodes");
  CHECK(mn_tokenizer_decode(tok, (int32_t[]){-1}, 1, true, &out) == MN_ERR_ARG, "a negative id decodes");
  mn_text_free(&out);
  mn_ids_free(&ids);
  mn_tokenizer_free(tok);
}

static void test_a_stream_holds_back_half_a_character(void) {
  mn_tokenizer *tok = NULL;
  CHECK_OK(mn_tokenizer_bytes(NULL, 0, &tok));
  CHECK(mn_tokenizer_vocab_size(tok) == 256 && mn_tokenizer_is_bytes(tok) && mn_tokenizer_eos(tok) == -1, "bytes");
  static const struct {
    const char *bytes, *shown;
  } cases[] = {{"\xF0\x9F\x98\x80!", "\xF0\x9F\x98\x80!"}, /* whole                         */
               {"\xF0\x9F\x98", "\xEF\xBF\xBD"},           /* cut off: one replacement      */
               {"\xF0\x9Fz", "\xEF\xBF\xBDz"},
               {"\xE6\x98\xE6\x98\xA5", "\xEF\xBF\xBD\xE6\x98\xA5"},
               {"\xFF\x80z", "\xEF\xBF\xBD\xEF\xBF\xBDz"},
               {"\xED\xA0\x80", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"}, /* a surrogate */
               {"\xC0\xAF", "\xEF\xBF\xBD\xEF\xBF\xBD"}};                /* overlong    */
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    mn_decoder dec = {.tok = tok};
    mn_text out = {0};
    for (const char *p = cases[i].bytes; *p; p++) CHECK_OK(mn_decoder_push(&dec, (unsigned char)*p, &out));
    if (i == 1) CHECK(out.len == 0, "half a character was shown");
    CHECK_OK(mn_decoder_finish(&dec, &out));
    CHECK(out.data && !strcmp(out.data, cases[i].shown), "case %zu shows '%s'", i, out.data ? out.data : "");
    mn_text_free(&out);
  }
  mn_tokenizer_free(tok);
}

static void test_saving_and_the_hash(void) {
  mn_tokenizer *tok = load("llama3"), *again = NULL, *other = load("gpt2");
  static const char path[] = "saved.json";
  char a[33], b[33], c[33];
  CHECK_OK(mn_tokenizer_save(tok, path));
  CHECK_OK(mn_tokenizer_load(path, &again));
  mn_tokenizer_hash(tok, a);
  mn_tokenizer_hash(again, b);
  mn_tokenizer_hash(other, c);
  CHECK(!strcmp(a, b) && strcmp(a, c) && strlen(a) == 32, "%s %s %s", a, b, c);
  mn_tokenizer_free(tok);
  mn_tokenizer_free(again);
  mn_tokenizer_free(other);
  CHECK_OK(mn_tokenizer_bytes((const char *const[]){"<a>", "<\"b\\>"}, 2, &tok));
  CHECK(mn_tokenizer_vocab_size(tok) == 258 && mn_tokenizer_find(tok, "<\"b\\>") == 257, "specials");
  mn_tokenizer_free(tok);
}

/* One change in a good file each: refused, with a message that names what is wrong. */
static void test_broken_files_are_refused(void) {
  static const struct {
    const char *find, *put, *says;
  } broken[] = {{"\"model\"", "\"modle\"", "model"},
                {"\"version\": \"1.0\"", "\"version\": \"9.0\"", "version '9.0'"},
                {"\"version\": \"1.0\"", "\"version\": 1", "version"},
                {"\"added_tokens\": [",
                 "\"added_tokens\": [{\"id\": 300, \"content\": \"<far>\", \"special\": false, \"normalized\": false}, ",
                 "`tokenizers` gives it 257"},
                {"\"BPE\"", "\"WordPiece\"", "WordPiece"},
                {"\"continuing_subword_prefix\": null", "\"continuing_subword_prefix\": \"##\"", "continuing_subword_prefix"},
                {"\"dropout\": null", "\"dropout\": 0.5", "dropout"},
                {"\"ByteLevel\"", "\"UnicodeScripts\"", "UnicodeScripts"},
                {"\"normalizer\": null", "\"normalizer\": {\"type\": \"ByteLevel\"}", "ByteLevel"},
                {"\"decoder\": {\"type\": \"ByteLevel\"", "\"decoder\": {\"type\": \"WordPiece\"", "decoder"},
                {"\"post_processor\": null", "\"post_processor\": {\"type\": \"RobertaProcessing\", \"cls\": [\"x\", 99999]}", "no token"},
                {"\"a\": 97", "\"a\": 98", "another token"},
                {"\"a\": 97", "\"a\": -1", "ids must be"},
                {"\"a\": 97", "\"a\": 1000000000", "ids must be"},
                {"\"a\": 97", "\"a\": \"97\"", "not a whole number"},
                {"\"a\": 97", "\"b\": 97", "JSON"},
                {"\"a\": 97", "\"aa\": 97", "byte 0x61"},
                {"\"id\": 256", "\"id\": 97", "but the vocabulary"},
                {"\"merges\": [", "\"merges\": [\"a b\"", "not in the vocabulary"},
                {"\"merges\": [", "\"merges\": [\"ab\"", "merges[0]"},
                {"\"merges\": [", "\"merges\": [[\"a\", 5]", "merges[0]"},
                {"\"merges\": [", "\"merges\": 7, \"x\": [", "merges is not a list"},
                {"\"use_regex\": false}", "\"use_regex\": false}]", "JSON"},
                {"{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": true, \"use_regex\": false}",
                 "{\"type\": \"Split\", \"pattern\": {\"Regex\": \"(\"}, \"behavior\": \"Isolated\"}", "pattern"}};
  mn_tokenizer *tok = NULL, *bad = NULL;
  CHECK_OK(mn_tokenizer_bytes((const char *const[]){"<e>"}, 1, &tok));
  size_t n;
  const char *good = mn_tokenizer_json(tok, &n);
  for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
    const char *at = strstr(good, broken[i].find);
    CHECK(at != NULL, "case %zu is not in the file", i);
    if (!at) continue;
    mn_text t = {0};
    mn_text_add_bytes(&t, good, (size_t)(at - good));
    mn_text_add(&t, broken[i].put);
    mn_text_add(&t, at + strlen(broken[i].find));
    mn_status status = mn_tokenizer_parse("file.json", t.data, t.len, &bad);
    CHECK(status != MN_OK && !bad && strstr(mn_message(), broken[i].says) && strstr(mn_message(), "file.json"), "case %zu (%s): %s", i,
          broken[i].put, status == MN_OK ? "accepted" : mn_message());
    if (status == MN_OK) mn_tokenizer_free(bad);
    mn_text_free(&t);
  }
  for (size_t cut = 0; cut < n - 3; cut += 97)
    CHECK(mn_tokenizer_parse("file.json", good, cut, &bad) != MN_OK, "a file cut at %zu is accepted", cut);
  CHECK(mn_tokenizer_load("/no/such/tokenizer.json", &bad) == MN_ERR_IO, "%s", mn_message());
  mn_tokenizer_free(tok);
}

int main(void) {
  RUN(test_ids_equal_hugging_face);
  RUN(test_training_equals_hugging_face);
  RUN(test_training_can_be_stopped_and_ends_by_itself);
  RUN(test_a_very_long_piece_is_one_piece);
  RUN(test_training_on_one_long_line);
  RUN(test_a_stop_is_heard);
  RUN(test_no_text_is_refused);
  RUN(test_specials_are_parsed_only_when_asked);
  RUN(test_a_stream_holds_back_half_a_character);
  RUN(test_saving_and_the_hash);
  RUN(test_broken_files_are_refused);
  return test_end();
}
