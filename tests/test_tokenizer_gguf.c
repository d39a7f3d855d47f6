/* test_tokenizer_gguf.c - a vocabulary in a GGUF file gives the ids that llama.cpp gives, also where that program does not do what the file says,
 * or knows more than it says: what frames a text, where a blank is put before it, which tokens are special, and what blanks those take along.
 * Each case is a file that is written here; what is expected is the rule of that program's vocabularies (llama-vocab.cpp). */
#include "format/tokenizer_gguf.h"
#include "format/tokenizer_internal.h"
#include "scratch.h"
#include "test.h"

#include <jansson.h>

enum { NORMAL = 1, UNKNOWN = 2, CONTROL = 3, BYTES = 256, MOST = 300 };
#define KEY(name) "tokenizer.ggml." name

typedef struct vocabulary {
  const char *model, *pre, *name; /* tokenizer.ggml.model, .pre, general.name; NULL: not said */
  mn_gguf_bytes token[MOST];
  int32_t kind[MOST];
  float score[MOST];
  size_t n;
  int add_bos, add_eos, add_sep, add_space; /* -1: not said */
  bool whole_scores, merges;
  int bos, eos, sep, unk; /* -1: not said */
} vocabulary;

static int add(vocabulary *v, const char *text, int kind) {
  v->token[v->n] = (mn_gguf_bytes){text, strlen(text)};
  v->kind[v->n] = kind;
  v->score[v->n] = -(float)v->n;
  return (int)v->n++;
}

static vocabulary plain(const char *model, const char *pre) {
  return (vocabulary){.model = model,
                      .pre = pre,
                      .add_bos = -1,
                      .add_eos = -1,
                      .add_sep = -1,
                      .add_space = -1,
                      .merges = !strcmp(model, "gpt2") || !strcmp(model, "gemma4"),
                      .bos = -1,
                      .eos = -1,
                      .sep = -1,
                      .unk = -1};
}

/* A token for each byte, its id. */
static vocabulary of_bytes(const char *pre) {
  static char text[BYTES][5];
  vocabulary v = plain("gpt2", pre);
  for (int b = 0; b < BYTES; b++) {
    text[b][mn_utf8_put(text[b], mn_byte_to_char((unsigned char)b))] = 0;
    add(&v, text[b], NORMAL);
  }
  return v;
}

static void put_switch(mn_gguf_writer *w, const char *key, int value) {
  if (value >= 0) CHECK_OK(mn_gguf_writer_bool(w, key, value));
}
static void put_id(mn_gguf_writer *w, const char *key, int id) {
  if (id >= 0) CHECK_OK(mn_gguf_writer_u32(w, key, (uint32_t)id));
}

static mn_tokenizer *read_back(const vocabulary *v) {
  static const mn_gguf_bytes none[1];
  mn_gguf_writer *w = mn_gguf_writer_new();
  mn_tokenizer *tok = NULL;
  mn_gguf *g = NULL;
  int32_t whole[MOST];
  CHECK_OK(mn_gguf_writer_string(w, "general.architecture", "llama"));
  if (v->name) CHECK_OK(mn_gguf_writer_string(w, "general.name", v->name));
  CHECK_OK(mn_gguf_writer_string(w, KEY("model"), v->model));
  if (v->pre) CHECK_OK(mn_gguf_writer_string(w, KEY("pre"), v->pre));
  CHECK_OK(mn_gguf_writer_strings(w, KEY("tokens"), v->token, v->n));
  CHECK_OK(mn_gguf_writer_i32s(w, KEY("token_type"), v->kind, v->n));
  for (size_t i = 0; i < v->n; i++) whole[i] = (int32_t)v->score[i];
  CHECK_OK(v->whole_scores ? mn_gguf_writer_i32s(w, KEY("scores"), whole, v->n) : mn_gguf_writer_f32s(w, KEY("scores"), v->score, v->n));
  if (v->merges) CHECK_OK(mn_gguf_writer_strings(w, KEY("merges"), none, 0));
  put_switch(w, KEY("add_bos_token"), v->add_bos);
  put_switch(w, KEY("add_eos_token"), v->add_eos);
  put_switch(w, KEY("add_sep_token"), v->add_sep);
  put_switch(w, KEY("add_space_prefix"), v->add_space);
  put_id(w, KEY("bos_token_id"), v->bos);
  put_id(w, KEY("eos_token_id"), v->eos);
  put_id(w, KEY("seperator_token_id"), v->sep);
  put_id(w, KEY("unknown_token_id"), v->unk);
  CHECK_OK(mn_gguf_writer_save(w, "v.gguf"));
  mn_gguf_writer_free(w);
  CHECK_OK(mn_gguf_open("v.gguf", &g));
  if (g) CHECK_OK(mn_tokenizer_from_gguf(g, &tok));
  mn_gguf_close(g);
  return tok;
}

/* The framed ids of a text, those that its file gives, and those that it gives when it was saved as a tokenizer.json. */
static void says(const char *what, const vocabulary *v, const char *text, int n, const int *want) {
  mn_tokenizer *tok = read_back(v), *again = NULL;
  size_t bytes;
  const char *json = tok ? mn_tokenizer_json(tok, &bytes) : NULL;
  if (json) CHECK_OK(mn_tokenizer_parse("again", json, bytes, &again));
  for (int k = 0; k < 2; k++) {
    mn_ids ids = {0};
    mn_text shown = {0};
    const mn_tokenizer *t = k ? again : tok;
    if (t) CHECK_OK(mn_tokenizer_encode(t, text, strlen(text), MN_ENCODE_SPECIAL | MN_ENCODE_TEMPLATE, &ids));
    bool same = t && (int)ids.len == n;
    for (size_t i = 0; i < ids.len; i++) same = same && ids.data[i] == want[i], mn_text_addf(&shown, " %d", ids.data[i]);
    CHECK(same, "%s%s: %s", what, k ? ", saved" : "", shown.data ? shown.data : " nothing");
    mn_text_free(&shown);
    mn_ids_free(&ids);
  }
  mn_tokenizer_free(tok);
  mn_tokenizer_free(again);
}
#define SAYS(what, v, text, ...) says(what, v, text, sizeof((int[]){__VA_ARGS__}) / sizeof(int), (const int[]){__VA_ARGS__})

/* Phi-3's special tokens take the blanks behind them along: no key says so, the model's name does. */
static void phi_3_takes_blanks_along(void) {
  vocabulary v = of_bytes("gpt-2");
  const int user = add(&v, "<|user|>", CONTROL), end = add(&v, "<|endoftext|>", CONTROL);
  SAYS("another model", &v, "<|user|>\n a", user, '\n', ' ', 'a');
  v.name = "Microsoft Phi-3 Mini";
  SAYS("phi-3", &v, "<|user|>\n a", user, 'a');
  SAYS("phi-3", &v, "b <|endoftext|> a", 'b', ' ', end, ' ', 'a');
  v.name = "my PHI3 tune";
  SAYS("phi3", &v, "<|user|>\n\na", user, 'a');
}

static void a_mask_takes_blanks_along_where_its_model_does(void) {
  vocabulary v = of_bytes("jina-v2-code");
  const int mask = add(&v, "<mask>", CONTROL);
  SAYS("jina", &v, "a <mask> b", 'a', mask, ' ', 'b');
  v.pre = "gpt-2";
  SAYS("another", &v, "a <mask> b", 'a', ' ', mask, ' ', 'b');
}

/* Words that are merged have no blank before them, and no separator behind them, whatever the file says. */
static void merges_have_no_blank_and_no_separator(void) {
  vocabulary v = of_bytes("roberta-bpe");
  v.bos = add(&v, "<s>", CONTROL), v.eos = add(&v, "</s>", CONTROL), v.sep = add(&v, "<sep>", CONTROL);
  v.add_bos = v.add_space = v.add_sep = 1;
  SAYS("a separator", &v, "a", v.bos, 'a');
  v.add_eos = 1;
  SAYS("an end", &v, "a", v.bos, 'a', v.eos);
}

static void gemma_4_begins_with_its_token(void) {
  vocabulary v = plain("gemma4", NULL);
  v.bos = add(&v, "<bos>", CONTROL), v.unk = add(&v, "<unk>", UNKNOWN);
  const int a = add(&v, "a", NORMAL), blank = add(&v, "\xE2\x96\x81", NORMAL);
  v.add_bos = 0, v.add_space = 1;
  SAYS("gemma4", &v, "a a", v.bos, a, blank, a);
}

static void word_piece_is_always_framed(void) {
  vocabulary v = plain("bert", NULL);
  v.bos = add(&v, "[CLS]", CONTROL), v.sep = add(&v, "[SEP]", CONTROL), v.unk = add(&v, "[UNK]", UNKNOWN);
  const int a = add(&v,
                    "\xE2\x96\x81"
                    "a",
                    NORMAL);
  v.add_bos = v.add_sep = 0;
  SAYS("bert", &v, "a", v.bos, a, v.sep);
}

static void scores_may_be_whole_numbers(void) {
  vocabulary v = plain("t5", NULL);
  v.unk = add(&v, "<unk>", UNKNOWN), v.eos = add(&v, "</s>", CONTROL);
  const int blank = add(&v, "\xE2\x96\x81", NORMAL), a = add(&v, "a", NORMAL);
  v.whole_scores = true;
  SAYS("whole numbers", &v, "a a", blank, a, blank, a, v.eos);
}

/* A file that calls the end of a turn a word is mistaken: it is special, and ends an answer. */
static void what_looks_like_an_end_is_one(void) {
  vocabulary v = of_bytes("gpt-2");
  const int end = add(&v, "<|im_end|>", NORMAL);
  SAYS("an end", &v, "a<|im_end|>", 'a', end);
  mn_tokenizer *tok = read_back(&v);
  mn_ids ids = {0};
  if (tok) CHECK_OK(mn_tokenizer_encode(tok, "<|im_end|>", 10, 0, &ids));
  CHECK(tok && mn_tokenizer_is_special(tok, end) && mn_tokenizer_is_end(tok, end), "it is an end");
  CHECK(ids.len == 10, "a text that is not trusted does not say it: %zu ids", ids.len);
  mn_ids_free(&ids);
  mn_tokenizer_free(tok);
}

/* BERT's vocabulary of a tokenizer.json has the same ids when it was written there, but for words that are longer than its program reads: there
 * they have no end. */
static void words_of_bert_stay_the_same(void) {
  json_t *kinds = json_load_file(MN_TEST_SOURCE_DIR "/tests/golden/tokenizer/kinds.json", JSON_ALLOW_NUL, NULL), *row;
  const json_t *bert = json_object_get(kinds, "bert");
  char *text = json_dumps(json_object_get(bert, "tokenizer"), JSON_COMPACT);
  mn_gguf_writer *w = mn_gguf_writer_new();
  mn_tokenizer *was = NULL, *is = NULL;
  mn_gguf *g = NULL;
  size_t i, rows = 0;
  bool done = false;
  CHECK_OK(mn_tokenizer_parse("bert", text, strlen(text), &was));
  CHECK_OK(mn_tokenizer_to_gguf(was, 163, w, &done));
  CHECK(done, "it is one that others know");
  CHECK_OK(mn_gguf_writer_string(w, "general.architecture", "bert"));
  CHECK_OK(mn_gguf_writer_u32(w, KEY("bos_token_id"), (uint32_t)mn_tokenizer_bos(was)));
  CHECK_OK(mn_gguf_writer_save(w, "b.gguf"));
  CHECK_OK(mn_gguf_open("b.gguf", &g));
  if (g) CHECK_OK(mn_tokenizer_from_gguf(g, &is));
  CHECK(is && mn_tokenizer_vocab_size(is) == 163, "a token for each row");
  json_array_foreach(json_object_get(bert, "rows"), i, row) {
    const char *s = json_string_value(json_object_get(row, "text"));
    const size_t n = json_string_length(json_object_get(row, "text"));
    mn_ids a = {0}, b = {0};
    if (n > 100 && strcspn(s, " ") > 100) continue;
    CHECK_OK(mn_tokenizer_encode(was, s, n, MN_ENCODE_TEMPLATE, &a));
    if (is) CHECK_OK(mn_tokenizer_encode(is, s, n, MN_ENCODE_TEMPLATE, &b));
    CHECK(a.len > 1 && a.len == b.len && !memcmp(a.data, b.data, a.len * sizeof *a.data), "'%.60s': %zu ids, and %zu", s, a.len, b.len);
    mn_ids_free(&a), mn_ids_free(&b);
    rows++;
  }
  CHECK(rows > 10, "%zu rows", rows);
  mn_tokenizer_free(was), mn_tokenizer_free(is);
  mn_gguf_close(g), mn_gguf_writer_free(w);
  free(text), json_decref(kinds);
}

/* ---- beside llama.cpp (tests/golden/tokenizer/peers.py) ---- */

enum { MOST_ROWS = 1024 };

/* A file with these lists, read. */
static mn_tokenizer *of_lists(const char *model, const char *pre, const json_t *tokens, const json_t *kinds, const json_t *merges) {
  static mn_gguf_bytes piece[MOST_ROWS], pair[MOST_ROWS];
  static int32_t kind[MOST_ROWS];
  mn_gguf_writer *w = mn_gguf_writer_new();
  mn_tokenizer *tok = NULL;
  mn_gguf *g = NULL;
  size_t i;
  json_t *x;
  CHECK(json_array_size(tokens) <= MOST_ROWS && json_array_size(merges) <= MOST_ROWS, "room");
  json_array_foreach((json_t *)tokens, i, x) {
    piece[i] = (mn_gguf_bytes){json_string_value(x), json_string_length(x)};
    kind[i] = kinds ? (int32_t)json_integer_value(json_array_get(kinds, i)) : NORMAL;
  }
  json_array_foreach((json_t *)merges, i, x) pair[i] = (mn_gguf_bytes){json_string_value(x), json_string_length(x)};
  CHECK_OK(mn_gguf_writer_string(w, "general.architecture", "llama"));
  CHECK_OK(mn_gguf_writer_string(w, KEY("model"), model));
  if (pre) CHECK_OK(mn_gguf_writer_string(w, KEY("pre"), pre));
  CHECK_OK(mn_gguf_writer_strings(w, KEY("tokens"), piece, json_array_size(tokens)));
  CHECK_OK(mn_gguf_writer_i32s(w, KEY("token_type"), kind, json_array_size(tokens)));
  if (merges) CHECK_OK(mn_gguf_writer_strings(w, KEY("merges"), pair, json_array_size(merges)));
  CHECK_OK(mn_gguf_writer_save(w, "p.gguf"));
  mn_gguf_writer_free(w);
  CHECK_OK(mn_gguf_open("p.gguf", &g));
  if (g) CHECK_OK(mn_tokenizer_from_gguf(g, &tok));
  mn_gguf_close(g);
  return tok;
}

/* Whole, byte by byte, and by the tokenizer.json that is made of it; what was encoded is what is decoded. */
static void has_rows(const char *what, mn_tokenizer *tok, const json_t *rows) {
  mn_tokenizer *again = NULL;
  size_t bytes, i;
  json_t *row;
  const char *json = tok ? mn_tokenizer_json(tok, &bytes) : NULL;
  if (json) CHECK_OK(mn_tokenizer_parse("again", json, bytes, &again));
  json_array_foreach((json_t *)rows, i, row) {
    const char *s = json_string_value(json_object_get(row, "text"));
    const size_t n = json_string_length(json_object_get(row, "text"));
    const json_t *want = json_object_get(row, "ids");
    const unsigned flags = json_is_true(json_object_get(row, "special")) ? MN_ENCODE_SPECIAL : 0;
    for (int k = 0; k < 4; k++) {
      const mn_tokenizer *t = k & 1 ? again : tok;
      mn_encoder *e = NULL;
      mn_ids ids = {0};
      mn_text shown = {0}, back = {0};
      if (t) CHECK_OK(mn_encoder_new(t, &e));
      if (e && k < 2) CHECK_OK(mn_encoder_add(e, s, n, flags, &ids));
      for (size_t b = 0; e && k >= 2 && b < n; b++) CHECK_OK(mn_encoder_push(e, s + b, 1, flags, &ids));
      if (e && k >= 2) CHECK_OK(mn_encoder_finish(e, flags, &ids));
      bool same = t && ids.len == json_array_size(want);
      for (size_t m = 0; m < ids.len; m++) {
        same = same && ids.data[m] == json_integer_value(json_array_get(want, m));
        mn_text_addf(&shown, " %d", ids.data[m]);
      }
      CHECK(same, "%s%s%s: '%s':%s", what, k & 1 ? ", saved" : "", k >= 2 ? ", byte by byte" : "", s, shown.data ? shown.data : " nothing");
      if (t) CHECK_OK(mn_tokenizer_decode(t, ids.data, ids.len, false, &back));
      CHECK(back.len == n && (!n || !memcmp(back.data, s, n)), "%s: '%s' becomes '%.*s'", what, s, (int)back.len,
            back.data ? back.data : "");
      mn_text_free(&shown), mn_text_free(&back);
      mn_ids_free(&ids), mn_encoder_free(e);
    }
  }
  mn_tokenizer_free(tok), mn_tokenizer_free(again);
}

static void families_cut_as_their_own_tokenizers(void) {
  json_t *all = json_load_file(MN_TEST_SOURCE_DIR "/tests/golden/tokenizer/peers.json", JSON_ALLOW_NUL, NULL), *rows;
  const json_t *cuts = json_object_get(all, "cuts");
  const char *name;
  size_t n = 0;
  json_object_foreach(json_object_get(cuts, "families"), name, rows) {
    CHECK(json_array_size(rows) >= 40, "%s: %zu rows", name, json_array_size(rows));
    has_rows(name, of_lists("gpt2", name, json_object_get(cuts, "tokens"), NULL, json_object_get(cuts, "merges")), rows);
    n++;
  }
  CHECK(n == 4, "%zu families", n);
  json_decref(all);
}

static mn_tokenizer *through_gguf(const mn_tokenizer *tok, const char *model, const char *pre);

static void rwkv_takes_the_longest_token(void) {
  json_t *all = json_load_file(MN_TEST_SOURCE_DIR "/tests/golden/tokenizer/peers.json", JSON_ALLOW_NUL, NULL);
  json_t *rwkv = json_object_get(all, "rwkv"), *tokens = json_object_get(rwkv, "tokens"), *kinds = json_object_get(rwkv, "kinds");
  CHECK(json_array_size(json_object_get(rwkv, "rows")) > 6, "rows");
  has_rows("rwkv", of_lists("rwkv", NULL, tokens, kinds, NULL), json_object_get(rwkv, "rows"));

  mn_tokenizer *tok = of_lists("rwkv", NULL, tokens, kinds, NULL);
  mn_ids ids = {0};
  if (tok) CHECK_OK(mn_tokenizer_encode(tok, "<s>", 3, 0, &ids));
  CHECK(ids.len == 2 && ids.data[0] != 0, "a text that is not trusted does not become a control token: %zu ids", ids.len);
  mn_ids_free(&ids);
  has_rows("rwkv, written again", through_gguf(tok, "rwkv", NULL), json_object_get(rwkv, "rows"));
  size_t n = 0;
  json_t *words =
      tok ? json_loads(mn_tokenizer_json(tok, &n), 0, NULL) : NULL; /* others take longer words for unknown, byte by byte or not */
  CHECK(json_object_set_new(json_object_get(words, "model"), "max_input_chars_per_word", json_integer(100)) == 0, "no model");
  char *short_words = json_dumps(words, 0);
  mn_tokenizer_free(tok), tok = NULL;
  CHECK(short_words && mn_tokenizer_parse("short.json", short_words, strlen(short_words), &tok) == MN_ERR_UNSUPPORTED &&
            strstr(mn_message(), "max_input_chars_per_word"),
        "%s", mn_message());
  mn_tokenizer_free(tok), free(short_words), json_decref(words);

  mn_gguf_bytes broken[2] = {{"\\x0", 3}, {"a\\", 2}};
  for (int i = 0; i < 3; i++) {
    vocabulary v = plain("rwkv", NULL);
    add(&v, "<s>", CONTROL);
    add(&v, "a", NORMAL);
    if (i < 2) v.token[1] = broken[i];
    mn_gguf_writer *w = mn_gguf_writer_new();
    mn_gguf *g = NULL;
    CHECK_OK(mn_gguf_writer_string(w, "general.architecture", "llama"));
    CHECK_OK(mn_gguf_writer_string(w, KEY("model"), "rwkv"));
    CHECK_OK(mn_gguf_writer_strings(w, KEY("tokens"), v.token, v.n));
    CHECK_OK(mn_gguf_writer_i32s(w, KEY("token_type"), v.kind, v.n));
    CHECK_OK(mn_gguf_writer_save(w, "p.gguf"));
    CHECK_OK(mn_gguf_open("p.gguf", &g));
    tok = NULL;
    CHECK(mn_tokenizer_from_gguf(g, &tok) == MN_ERR_FORMAT &&
              strstr(mn_message(), (const char *[]){"token 1 has a \\x", "token 1 ends with a backslash", "no token for byte 0x00"}[i]),
          "%d: %s", i, mn_message());
    mn_tokenizer_free(tok), mn_gguf_close(g), mn_gguf_writer_free(w);
  }
  json_decref(all);
}

/* ---- written for other programs ---- */

/* Of a tokenizer the vocabulary that a GGUF file has, read again; NULL where it has no form there. */
static mn_tokenizer *through_gguf(const mn_tokenizer *tok, const char *model, const char *pre) {
  mn_gguf_writer *w = mn_gguf_writer_new();
  mn_tokenizer *is = NULL;
  mn_gguf *g = NULL;
  bool done = false;
  CHECK_OK(mn_gguf_writer_string(w, "general.architecture", "llama"));
  if (tok) CHECK_OK(mn_tokenizer_to_gguf(tok, mn_tokenizer_vocab_size(tok), w, &done));
  if (done) CHECK_OK(mn_gguf_writer_save(w, "t.gguf"));
  if (done) CHECK_OK(mn_gguf_open("t.gguf", &g));
  const mn_gguf_meta *is_model = g ? mn_gguf_meta_find(g, KEY("model")) : NULL, *is_pre = g ? mn_gguf_meta_find(g, KEY("pre")) : NULL;
  CHECK(!is_model || (is_model->count == strlen(model) && !memcmp(is_model->data, model, strlen(model))), "the model is %s", model);
  CHECK(!pre || !g || (is_pre && is_pre->count == strlen(pre) && !memcmp(is_pre->data, pre, strlen(pre))), "the cuts are %s", pre);
  if (g) CHECK_OK(mn_tokenizer_from_gguf(g, &is));
  mn_gguf_close(g), mn_gguf_writer_free(w);
  return is;
}

static mn_tokenizer *of_json(json_t *root) {
  char *text = json_dumps(root, JSON_COMPACT);
  mn_tokenizer *tok = NULL;
  CHECK_OK(mn_tokenizer_parse("of_json", text, strlen(text), &tok));
  free(text);
  return tok;
}

static json_t *json_of(const mn_tokenizer *tok) {
  size_t n;
  const char *text = tok ? mn_tokenizer_json(tok, &n) : "{}";
  return json_loads(text, JSON_ALLOW_NUL, NULL);
}

/* SentencePiece's BPE as others have it, a list of merges, gets its scores back; where two pieces spell a third that is no merge, it is none. */
static void merges_of_pieces_become_scores(void) {
  json_t *rows = json_load_file(MN_TEST_SOURCE_DIR "/tests/golden/tokenizer/gguf.json", JSON_ALLOW_NUL, NULL);
  mn_tokenizer *tok = NULL;
  mn_gguf *g = NULL;
  CHECK_OK(mn_gguf_open(MN_TEST_SOURCE_DIR "/tests/golden/tokenizer/spm.gguf", &g));
  if (g) CHECK_OK(mn_tokenizer_from_gguf(g, &tok));
  mn_gguf_close(g);
  json_t *root = json_of(tok), *model = json_object_get(root, "model"), *row;
  for (int scores = 1; scores >= 0; scores--) {
    if (!scores) json_object_del(model, "scores");
    mn_tokenizer *was = of_json(root), *is = through_gguf(was, "llama", NULL);
    size_t i, n = 0;
    CHECK(is, "it has a form there");
    json_array_foreach(json_object_get(rows, "spm"), i, row) {
      const json_t *want = json_object_get(row, "ids"), *text = json_object_get(row, "text");
      mn_ids ids = {0};
      if (is) CHECK_OK(mn_tokenizer_encode(is, json_string_value(text), json_string_length(text), 0, &ids));
      bool same = ids.len == json_array_size(want);
      for (size_t k = 0; same && k < ids.len; k++) same = ids.data[k] == json_integer_value(json_array_get(want, k));
      CHECK(same, "'%s', %s: %zu ids, not %zu", json_string_value(text), scores ? "scores" : "merges", ids.len, json_array_size(want));
      mn_ids_free(&ids);
      n++;
    }
    CHECK(n > 8, "%zu rows", n);
    mn_tokenizer_free(was), mn_tokenizer_free(is);
  }
  json_array_remove(json_object_get(model, "merges"), 3);
  mn_tokenizer *was = of_json(root), *is = through_gguf(was, "llama", NULL);
  CHECK(!is, "two pieces that spell a third would be merged there");
  mn_tokenizer_free(was), mn_tokenizer_free(is), mn_tokenizer_free(tok);
  json_decref(root), json_decref(rows);
}

/* Composed characters, and a pattern whose matches are what is kept, are what the families' own tokenizers say of theirs. */
static void families_are_known_as_their_makers_write_them(void) {
  static const char *const names[] = {"qwen2", "qwen35", "llama-bpe", "gpt-4o", "default", "deepseek-coder", "kimi-k2"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    for (int removed = 0; removed < 2; removed++) {
      vocabulary v = of_bytes(names[i]);
      mn_tokenizer *tok = read_back(&v);
      json_t *root = json_of(tok), *steps = json_object_get(json_object_get(root, "pre_tokenizer"), "pretokenizers");
      json_object_set_new(root, "normalizer", json_pack("{ss}", "type", "NFC"));
      if (removed && json_array_size(steps) == 2) {
        json_object_set_new(json_array_get(steps, 0), "behavior", json_string("Removed"));
        json_object_set_new(json_array_get(steps, 0), "invert", json_true());
      }
      mn_tokenizer *was = of_json(root), *is = through_gguf(was, "gpt2", names[i]);
      CHECK(is, "%s has a form there", names[i]);
      mn_tokenizer_free(tok), mn_tokenizer_free(was), mn_tokenizer_free(is);
      json_decref(root);
    }
  vocabulary v = of_bytes("qwen2");
  mn_tokenizer *tok = read_back(&v);
  json_t *root = json_of(tok);
  json_object_set_new(root, "normalizer", json_pack("{ss}", "type", "Lowercase"));
  mn_tokenizer *was = of_json(root), *is = through_gguf(was, "gpt2", NULL);
  CHECK(!is, "small letters are not made there");
  mn_tokenizer_free(tok), mn_tokenizer_free(was), mn_tokenizer_free(is);
  json_decref(root);
}

/* What fills code in ends with these: behind them stands padding, or another file. Named by a key, or by what the token is called. */
static void what_separates_files_ends_an_answer(void) {
  vocabulary v = of_bytes("gpt-2");
  const int named = add(&v, "<|file_sep|>", NORMAL), pad = add(&v, "<|fim_pad|>", CONTROL), middle = add(&v, "<|fim_middle|>", NORMAL);
  SAYS("control", &v, "<|file_sep|><|fim_middle|>", named, middle);
  mn_tokenizer *tok = read_back(&v);
  CHECK(tok && mn_tokenizer_is_end(tok, named) && mn_tokenizer_is_end(tok, pad) && !mn_tokenizer_is_end(tok, middle), "by name");
  CHECK(tok && mn_tokenizer_is_special(tok, middle), "a control token, though the file says otherwise");
  mn_tokenizer_free(tok);

  static const char *const keys[] = {KEY("fim_pad_token_id"), KEY("fim_rep_token_id"), KEY("fim_sep_token_id")};
  for (int i = 0; i < 3; i++) {
    vocabulary b = of_bytes("gpt-2");
    static const mn_gguf_bytes none[1];
    const int own = add(&b, "<own>", CONTROL);
    mn_gguf_writer *w = mn_gguf_writer_new();
    mn_gguf *g = NULL;
    CHECK_OK(mn_gguf_writer_string(w, "general.architecture", "llama"));
    CHECK_OK(mn_gguf_writer_string(w, KEY("model"), "gpt2"));
    CHECK_OK(mn_gguf_writer_string(w, KEY("pre"), "gpt-2"));
    CHECK_OK(mn_gguf_writer_strings(w, KEY("tokens"), b.token, b.n));
    CHECK_OK(mn_gguf_writer_i32s(w, KEY("token_type"), b.kind, b.n));
    CHECK_OK(mn_gguf_writer_strings(w, KEY("merges"), none, 0));
    CHECK_OK(mn_gguf_writer_u32(w, keys[i], (uint32_t)own));
    CHECK_OK(mn_gguf_writer_save(w, "p.gguf"));
    CHECK_OK(mn_gguf_open("p.gguf", &g));
    tok = NULL;
    CHECK_OK(mn_tokenizer_from_gguf(g, &tok));
    CHECK(tok && mn_tokenizer_is_end(tok, own), "%s", keys[i]);
    mn_tokenizer_free(tok), mn_gguf_close(g), mn_gguf_writer_free(w);
  }
}

int main(void) {
  RUN(phi_3_takes_blanks_along);
  RUN(a_mask_takes_blanks_along_where_its_model_does);
  RUN(merges_have_no_blank_and_no_separator);
  RUN(gemma_4_begins_with_its_token);
  RUN(word_piece_is_always_framed);
  RUN(scores_may_be_whole_numbers);
  RUN(what_looks_like_an_end_is_one);
  RUN(words_of_bert_stay_the_same);
  RUN(families_cut_as_their_own_tokenizers);
  RUN(rwkv_takes_the_longest_token);
  RUN(merges_of_pieces_become_scores);
  RUN(families_are_known_as_their_makers_write_them);
  RUN(what_separates_files_ends_an_answer);
  return test_end();
}
