/* What must be true of tokenizers of every kind: ids, framed ids and decoded text equal the reference's; a text in pieces of any size gives
 * the ids of the whole; a decoder that is fed id by id says the same; GGUF vocabularies give the ids of the programs that they come from, and
 * go on to do so when they are saved; a long word costs no memory of its length, and time that follows it. The golden files are made by
 * tests/golden/tokenizer/kinds.py. */
#include "base/file.h"
#include "format/tokenizer_gguf.h"
#include "format/tokenizer_internal.h"
#include "run/text_tokens.h"
#include "scratch.h"
#include "test.h"

#include <jansson.h>
#include <time.h>

#define GOLDEN MN_TEST_SOURCE_DIR "/tests/golden/tokenizer/"

static json_t *load(const char *path) {
  json_error_t error;
  json_t *root = json_load_file(path, JSON_ALLOW_NUL, &error);
  CHECK(root != NULL, "%s: %s", path, error.text);
  return root;
}

static mn_tokenizer *parse(const char *name, const json_t *tokenizer) {
  char *text = json_dumps(tokenizer, JSON_COMPACT);
  mn_tokenizer *tok = NULL;
  CHECK(text && mn_tokenizer_parse(name, text, strlen(text), &tok) == MN_OK, "%s: %s", name, mn_message());
  free(text);
  return tok;
}

static bool same_ids(const mn_ids *ids, const json_t *want, size_t *at) {
  size_t n = json_array_size(want);
  for (*at = 0; *at < ids->len && *at < n; ++*at)
    if (ids->data[*at] != json_integer_value(json_array_get(want, *at))) return false;
  return ids->len == n;
}

/* Ids, in pieces of several sizes too; then back, whole and one by one. */
static void check_row(const char *name, const mn_tokenizer *tok, const json_t *row) {
  static const size_t sizes[] = {1, 2, 3, 5, 8, 31};
  const json_t *text = json_object_get(row, "text"), *decoded = json_object_get(row, "decoded"), *framed = json_object_get(row, "template");
  const char *s = json_string_value(text);
  size_t n = json_string_length(text), at;
  mn_ids ids = {0}, around = {0};
  mn_encoder *enc;
  CHECK_OK(mn_encoder_new(tok, &enc));
  CHECK_OK(mn_encoder_add(enc, s, n, MN_ENCODE_SPECIAL, &ids));
  CHECK(same_ids(&ids, json_object_get(row, "ids"), &at), "%s, '%.40s': differs at id %zu", name, s, at);
  if (framed) {
    CHECK_OK(mn_encoder_add(enc, s, n, MN_ENCODE_SPECIAL | MN_ENCODE_TEMPLATE, &around));
    CHECK(same_ids(&around, framed, &at), "%s, '%.40s', framed: differs at id %zu", name, s, at);
  }
  for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
    mn_ids pieces = {0};
    for (size_t i = 0; i < n; i += sizes[k])
      CHECK_OK(mn_encoder_push(enc, s + i, n - i < sizes[k] ? n - i : sizes[k], MN_ENCODE_SPECIAL, &pieces));
    CHECK_OK(mn_encoder_finish(enc, MN_ENCODE_SPECIAL, &pieces));
    CHECK(pieces.len == ids.len && (!ids.len || !memcmp(pieces.data, ids.data, ids.len * sizeof *ids.data)),
          "%s, '%.40s' in pieces of %zu: %zu ids, not %zu", name, s, sizes[k], pieces.len, ids.len);
    mn_ids_free(&pieces);
  }
  mn_text out = {0}, stream = {0};
  mn_decoder dec = {.tok = tok};
  bool whole = true;
  CHECK_OK(mn_tokenizer_decode(tok, ids.data, ids.len, false, &out));
  for (size_t k = 0; k < ids.len; k++) {
    CHECK_OK(mn_decoder_push(&dec, ids.data[k], &stream));
    whole &= !stream.len || mn_utf8_valid(stream.data, stream.len) == stream.len;
  }
  CHECK_OK(mn_decoder_finish(&dec, &stream));
  CHECK(whole, "%s, '%.40s': the stream shows half a character", name, s);
  CHECK(stream.len == json_string_length(decoded) && (!stream.len || !memcmp(stream.data, json_string_value(decoded), stream.len)),
        "%s, '%.40s': decodes to '%.60s', not '%.60s'", name, s, stream.len ? stream.data : "", json_string_value(decoded));
  CHECK(!out.len || mn_utf8_valid(out.data, out.len) != out.len || (stream.len == out.len && !memcmp(stream.data, out.data, out.len)),
        "%s, '%.40s': the stream differs from the whole", name, s);
  mn_text_free(&out);
  mn_text_free(&stream);
  mn_ids_free(&ids);
  mn_ids_free(&around);
  mn_encoder_free(enc);
}

static void test_every_kind_equals_hugging_face(void) {
  json_t *kinds = load(GOLDEN "kinds.json"), *kind, *row;
  const char *name;
  size_t i, rows = 0;
  json_object_foreach(kinds, name, kind) {
    mn_tokenizer *tok = parse(name, json_object_get(kind, "tokenizer"));
    if (!tok) continue;
    json_array_foreach(json_object_get(kind, "rows"), i, row) {
      check_row(name, tok, row);
      rows++;
    }
    mn_tokenizer_free(tok);
  }
  CHECK(rows > 200, "%zu rows", rows);
  json_decref(kinds);
}

/* Byte-level ones, too: in pieces as in one. */
static void test_byte_level_in_pieces(void) {
  json_t *cases = load(GOLDEN "cases.json"), *rows, *row;
  const char *name;
  size_t i;
  json_object_foreach(cases, name, rows) {
    char path[512];
    snprintf(path, sizeof path, GOLDEN "%s.json", name);
    mn_tokenizer *tok = NULL;
    CHECK_OK(mn_tokenizer_load(path, &tok));
    json_array_foreach(rows, i, row) check_row(name, tok, row);
    static const char text[] = "p\":\"AAAAIAgQ0AAA8AA and 12 more<tool> of it, x 3"; /* a word that goes on ends at a digit, not before */
    mn_encoder *enc;
    mn_ids whole = {0}, pieces = {0};
    CHECK_OK(mn_encoder_new(tok, &enc));
    CHECK_OK(mn_encoder_add(enc, text, strlen(text), 0, &whole));
    for (const char *c = text; *c; c++) CHECK_OK(mn_encoder_push(enc, c, 1, 0, &pieces));
    CHECK_OK(mn_encoder_finish(enc, 0, &pieces));
    CHECK(whole.len == pieces.len && !memcmp(whole.data, pieces.data, whole.len * sizeof *whole.data), "%s: %zu ids in pieces, not %zu",
          name, pieces.len, whole.len);
    mn_ids_free(&whole);
    mn_ids_free(&pieces);
    mn_encoder_free(enc);
    mn_tokenizer_free(tok);
  }
  json_decref(cases);
}

static mn_tokenizer *from_gguf(const char *name) {
  char path[512];
  snprintf(path, sizeof path, GOLDEN "%s.gguf", name);
  mn_gguf *g = NULL;
  mn_tokenizer *tok = NULL;
  CHECK_OK(mn_gguf_open(path, &g));
  CHECK(mn_tokenizer_in_gguf(g), "%s", name);
  CHECK(mn_tokenizer_from_gguf(g, &tok) == MN_OK, "%s", mn_message());
  mn_gguf_close(g);
  return tok;
}

static void test_gguf_vocabularies(void) {
  json_t *all = load(GOLDEN "gguf.json"), *rows, *row;
  const char *name;
  size_t i, n, m;
  json_object_foreach(all, name, rows) {
    mn_tokenizer *tok = from_gguf(name), *again = NULL;
    if (!tok) continue;
    const char *json = mn_tokenizer_json(tok, &n);
    CHECK(mn_tokenizer_parse(name, json, n, &again) == MN_OK, "%s, saved: %s", name, mn_message());
    json_array_foreach(rows, i, row) {
      check_row(name, tok, row);
      if (again) check_row(name, again, row);
    }
    char a[33], b[33];
    mn_tokenizer_hash(tok, a);
    const int32_t *x, *y;
    if (again) {
      mn_tokenizer_hash(again, b);
      n = mn_tokenizer_ends(tok, &x);
      m = mn_tokenizer_ends(again, &y);
      CHECK(!strcmp(a, b), "%s: saved, it has another hash", name);
      CHECK(mn_tokenizer_eos(tok) == mn_tokenizer_eos(again) && mn_tokenizer_bos(tok) == mn_tokenizer_bos(again), "%s: bos or eos", name);
      CHECK(n == m && !memcmp(x, y, n * sizeof *x), "%s: ends", name);
    }
    mn_tokenizer_free(tok);
    mn_tokenizer_free(again);
  }
  json_decref(all);
}

/* Any bytes come back where the vocabulary has all of them and nothing is added or taken away. */
static void test_bytes_come_back(void) {
  json_t *kinds = load(GOLDEN "kinds.json");
  mn_tokenizer *tok = parse("spm_split", json_object_get(json_object_get(kinds, "spm_split"), "tokenizer"));
  uint64_t x = 3;
  for (int i = 0; tok && i < 300; i++) {
    char text[200];
    size_t n = (size_t)(i % 200);
    for (size_t k = 0; k < n; k++) text[k] = (x = mn_splitmix64(x)) % 3 ? "the fox  \n"[x / 3 % 10] : (char)(x / 7);
    mn_ids ids = {0};
    mn_text out = {0};
    CHECK_OK(mn_tokenizer_encode(tok, text, n, 0, &ids));
    CHECK_OK(mn_tokenizer_decode(tok, ids.data, ids.len, false, &out));
    CHECK(out.len == n && (!n || !memcmp(out.data, text, n)), "text %d of %zu bytes comes back as %zu", i, n, out.len);
    mn_text_free(&out);
    mn_ids_free(&ids);
  }
  mn_tokenizer_free(tok);
  json_decref(kinds);
}

/* A file read in blocks gives the ids of the whole text: words, lines and long runs lie across every boundary. */
static void test_a_file_in_blocks(void) {
  static const char path[] = "blocks.txt";
  mn_text t = {0};
  for (int i = 0; t.len < 400000; i++) {
    mn_text_addf(&t, "call%d();\n  fox_%d = 'the weather\\n' + 春眠;\r\n", i, i * i);
    for (int k = 0; i % 500 == 0 && k < 70000; k++) mn_text_add(&t, k % 7 ? " " : i % 1000 ? "a" : "\t");
  }
  CHECK_OK(mn_file_write(path, t.data, t.len));
  json_t *kinds = load(GOLDEN "kinds.json");
  static const char *const names[] = {"spm_prepend", "spm_split", "word_end", "bert", "unigram", "unigram_bytes", "patterns", NULL};
  for (int k = 0; names[k]; k++) {
    mn_tokenizer *tok = parse(names[k], json_object_get(json_object_get(kinds, names[k]), "tokenizer"));
    mn_ids whole = {0};
    mn_text_tokens *blocks = NULL;
    CHECK_OK(mn_tokenizer_encode(tok, t.data, t.len, 0, &whole));
    CHECK_OK(mn_text_tokens_open(path, tok, &blocks));
    size_t at = 0, wrong = 0;
    int32_t ids[1000];
    int64_t got = 1;
    while (got > 0 && mn_text_tokens_next(blocks, 1000, ids, &got) == MN_OK)
      for (int64_t i = 0; i < got; i++, at++) wrong += at >= whole.len || whole.data[at] != ids[i];
    CHECK(at == whole.len && !wrong, "%s: %zu ids in blocks, %zu of them others than the whole text's %zu", names[k], at, wrong, whole.len);
    mn_text_tokens_close(blocks);
    mn_ids_free(&whole);
    mn_tokenizer_free(tok);
  }
  json_decref(kinds);
  mn_text_free(&t);
}

static mn_status forget(void *ctx, const int32_t *ids, size_t n) {
  (void)ids;
  *(size_t *)ctx += n;
  return MN_OK;
}

static double seconds_of(mn_encoder *enc, const char *text, size_t n) {
  size_t count = 0;
  mn_ids ids = {.flush = forget, .ctx = &count};
  struct timespec a, b;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &a);
  CHECK_OK(mn_encoder_add(enc, text, n, 0, &ids));
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &b);
  mn_ids_free(&ids);
  return (double)(b.tv_sec - a.tv_sec) + 1e-9 * (double)(b.tv_nsec - a.tv_nsec);
}

/* Eight times the line costs about eight times the time: what is quadratic would cost 64 times. */
static void test_one_long_line_costs_what_it_is_long(void) {
  enum { N = 1 << 18 };
  json_t *kinds = load(GOLDEN "kinds.json"), *kind;
  char *text = mn_alloc(8 * N);
  memset(text, 'a', 8 * N);
  const char *name;
  json_object_foreach(kinds, name, kind) {
    if (!strncmp(name, "word", 4) || !strncmp(name, "bert", 4)) continue; /* cut into words by a limit, or a line of one unknown word */
    mn_tokenizer *tok = parse(name, json_object_get(kind, "tokenizer"));
    mn_encoder *enc = NULL;
    CHECK_OK(mn_encoder_new(tok, &enc));
    double ratio = 1e9;
    for (int tries = 0; tries < 5 && ratio > 24; tries++) {
      double small = seconds_of(enc, text, N), large = seconds_of(enc, text, 8 * N);
      if (large / small < ratio) ratio = large / small;
    }
    CHECK(ratio < 24, "%s: eight times the line costs %.1f times the time", name, ratio);
    CHECK(enc->cap < 4 * MN_WINDOW, "%s: room for %zu symbols", name, enc->cap);
    mn_encoder_free(enc);
    mn_tokenizer_free(tok);
  }
  free(text);
  json_decref(kinds);
}

/* One change in a good file each: refused, with a message that names what is wrong. */
static void test_broken_files_are_refused(void) {
  static const struct {
    const char *kind, *find, *put, *says;
  } broken[] = {{"unigram", "\"unk_id\":0", "\"unk_id\":-1", "unk_id"},
                {"unigram", "\"precompiled_charsmap\":\"", "\"precompiled_charsmap\":\"*", "Base64"},
                {"unigram", "\"precompiled_charsmap\":\"", "\"precompiled_charsmap\":\"/////w", "precompiled_charsmap"},
                {"bert", "\"unk_token\":\"[UNK]\"", "\"unk_token\":\"[NONE]\"", "unk_token"},
                {"bert", "\"max_input_chars_per_word\":100", "\"max_input_chars_per_word\":0", "max_input_chars_per_word"},
                {"metaspace_first", "\"prepend_scheme\":\"first\"", "\"prepend_scheme\":\"last\"", "prepend_scheme"},
                {"metaspace_first", "\"replacement\":\"", "\"replacement\":\"xx", "replacement"},
                {"spm_prepend", "\"type\":\"Fuse\"", "\"type\":\"CTC\"", "CTC"},
                {"spm_prepend", "\"type\":\"Prepend\"", "\"type\":\"Append\"", "Append"},
                {"unigram", "{\"Sequence\":{\"id\":\"A\",\"type_id\":0}},", "", "no place for the text"},
                {"unigram", "{\"Sequence\":{\"id\":\"A\"", "{\"Sequence\":{\"id\":\"A\",\"type_id\":0}},{\"Sequence\":{\"id\":\"A\"",
                 "single[2] is 'A'"},
                {"bert", "{\"Sequence\":{\"id\":\"A\"", "{\"Sequence\":{\"id\":\"B\"", "single[1] is 'B'"},
                {"split_next", "\"behavior\":\"MergedWithNext\"", "\"behavior\":\"Merged\"", "Merged"},
                {"split_next", "[\\\\s\\\\.\\\\-]", "(a)\\\\1", "back references"},
                {"split_next", "[\\\\s\\\\.\\\\-]", "(?:a*)*", "can be empty"},
                {"split_next", "[\\\\s\\\\.\\\\-]", "(?<=a+)b", "fixed width"},
                {"split_next", "[\\\\s\\\\.\\\\-]", "\\\\p{Klingon}", "of this name"},
                {"split_next", "[\\\\s\\\\.\\\\-]", "[z-a]", "backwards"},
                {"split_next", "[\\\\s\\\\.\\\\-]", "(?x) a", "this kind of group"}};
  json_t *kinds = load(GOLDEN "kinds.json");
  for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
    char *good = json_dumps(json_object_get(json_object_get(kinds, broken[i].kind), "tokenizer"), JSON_COMPACT);
    const char *at = good ? strstr(good, broken[i].find) : NULL;
    mn_text t = {0};
    mn_tokenizer *bad = NULL;
    CHECK(at != NULL, "case %zu is not in the file", i);
    if (at) {
      mn_text_add_bytes(&t, good, (size_t)(at - good));
      mn_text_add(&t, broken[i].put);
      mn_text_add(&t, at + strlen(broken[i].find));
      CHECK(mn_tokenizer_parse("file.json", t.data, t.len, &bad) != MN_OK && strstr(mn_message(), broken[i].says) &&
                strstr(mn_message(), "file.json"),
            "case %zu (%s): %s", i, broken[i].put, bad ? "accepted" : mn_message());
    }
    mn_tokenizer_free(bad);
    mn_text_free(&t);
    free(good);
  }
  json_decref(kinds);
}

/* A unigram model without a token for what is unknown cannot spell everything: it says so, where the text is whole and where it is not. */
static void test_what_nothing_spells_is_an_error(void) {
  static const char file[] =
      "{\"version\": \"1.0\", \"model\": {\"type\": \"Unigram\", \"unk_id\": null, \"vocab\": [[\"a\", -1.0], [\"b\", -2.0], [\"ab\", -2.5]]}}";
  static const struct {
    const char *text, *says; /* NULL: it is spelled */
  } want[] = {{"abba", NULL},
              {"ab\xE2\x82\xAC"
               "b",
               "U+20AC"},
              {"a,b", "U+002C"},
              {"a\xFF"
               "b",
               "0xFF"}};
  mn_tokenizer *tok = NULL;
  CHECK_OK(mn_tokenizer_parse("file.json", file, strlen(file), &tok));
  for (size_t i = 0; tok && i < sizeof want / sizeof *want; i++)
    for (int pieces = 0; pieces < 2; pieces++) {
      mn_ids ids = {0};
      mn_encoder *e = NULL;
      const size_t n = strlen(want[i].text);
      CHECK_OK(mn_encoder_new(tok, &e));
      mn_status status = pieces ? MN_OK : mn_encoder_add(e, want[i].text, n, 0, &ids);
      for (size_t at = 0; pieces && at < n && status == MN_OK; at++) status = mn_encoder_push(e, want[i].text + at, 1, 0, &ids);
      if (pieces && status == MN_OK) status = mn_encoder_finish(e, 0, &ids);
      if (!want[i].says) CHECK(status == MN_OK && ids.len == 3, "%s: %zu ids, %s", want[i].text, ids.len, mn_message());
      else CHECK(status == MN_ERR_FORMAT && strstr(mn_message(), want[i].says) && strstr(mn_message(), "file.json"), "%s", mn_message());
      mn_encoder_free(e);
      mn_ids_free(&ids);
    }
  mn_tokenizer_free(tok);
}

int main(void) {
  RUN(test_every_kind_equals_hugging_face);
  RUN(test_byte_level_in_pieces);
  RUN(test_gguf_vocabularies);
  RUN(test_bytes_come_back);
  RUN(test_a_file_in_blocks);
  RUN(test_one_long_line_costs_what_it_is_long);
  RUN(test_what_nothing_spells_is_an_error);
  RUN(test_broken_files_are_refused);
  return test_end();
}
