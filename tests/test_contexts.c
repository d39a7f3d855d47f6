/* What must be true of `mneme eval --lengths` on a text: the same tokens are judged after every length, by a stream that began anew; what no
 * window reaches gains nothing, to the bit; a loss is what a session says of those tokens; rows and seeds do not matter; and what cannot be
 * done is refused before the work, with both numbers. */
#include <jansson.h>

#include "base/file.h"
#include "eval/context_eval.h"
#include "format/tokenizer.h"
#include "model_fixture.h"
#include "program.h"
#include "scratch.h"

#define DIR  "contexts"
#define TEXT DIR "/text.txt"
#define EVAL MNEME "eval --threads 1 --data " TEXT " "

enum { BYTES = 3000 };

static void make_text(void) {
  mn_text text = {0};
  uint64_t x = 88172645463325252u;
  while (text.len < BYTES) {
    x ^= x << 13, x ^= x >> 7, x ^= x << 17;
    mn_text_addf(&text, "%c", (int)('a' + x % 26));
  }
  CHECK_OK(mn_make_dirs(DIR));
  CHECK_OK(mn_file_write(TEXT, text.data, text.len));
  mn_text_free(&text);
}

typedef struct open_text {
  mn_tokenizer *tok;
  mn_corpus *corpus;
} open_text;

static bool read_text(open_text *t, const char *path) {
  mn_data_config c;
  const char *files[] = {path};
  *t = (open_text){0};
  mn_config_defaults(mn_data_fields, &c);
  c.files = c.validation_files = (mn_strings){files, 1};
  c.order = MN_ORDER_SEQUENTIAL;
  CHECK_OK(mn_tokenizer_bytes(NULL, 0, &t->tok));
  CHECK_OK(mn_corpus_open(&c, t->tok, NULL, &t->corpus));
  return t->corpus != NULL;
}

static void close_text(open_text *t) {
  mn_corpus_close(t->corpus);
  mn_tokenizer_free(t->tok);
}

static const mn_context_config usual = {
    .length = {16, 40, 64, 200}, .n = 4, .judged = 8, .places = 5, .batch = 2, .prefill = 32, .seed = 1};

/* Two layers of windows of 9 tokens see 16 tokens before one, so 8 tokens after 32 others have all that they can have. */
static void what_no_window_reaches_gains_nothing(void) {
  fixture f;
  open_text t;
  mn_context_eval r;
  if (fixture_open(&f, 7, "{vocab_size: 256, d_model: 16, layers: 2, block: {mixer: {type: attention, heads: 2, window: 9}}}") &&
      read_text(&t, TEXT)) {
    CHECK_OK(mn_eval_contexts(f.model, f.params, t.corpus, MN_SPLIT_VALIDATION, &usual, &r));
    CHECK(r.places == 5 && r.cell[0].gain.value == 0 && r.cell[1].gain.value != 0, "%lld places", (long long)r.places);
    for (int i = 2; i < 4; i++)
      CHECK(fabs(r.cell[i].loss.value - r.cell[1].loss.value) < 1e-5 && fabs(r.cell[i].gain.value - r.cell[1].gain.value) < 1e-5,
            "after %lld: %.17g and %.17g", (long long)usual.length[i], r.cell[i].loss.value, r.cell[1].loss.value);
    for (int i = 0; i < 4; i++)
      CHECK(fabs(r.cell[i].bits_per_byte - r.cell[i].loss.value / log(2)) < 1e-9, "a byte is a token: %g", r.cell[i].bits_per_byte);
    close_text(&t);
  }
  fixture_close(&f);
}

/* By hand, place by place: the first window begins the text, the last ends it. */
static void a_loss_is_what_a_session_says(void) {
  fixture f;
  open_text t;
  mn_context_eval r;
  if (fixture_open(&f, 7, "{vocab_size: 256, d_model: 16, layers: 1, block: {mixer: {type: gated_deltanet, heads: 2}}}") &&
      read_text(&t, TEXT)) {
    CHECK_OK(mn_eval_contexts(f.model, f.params, t.corpus, MN_SPLIT_VALIDATION, &usual, &r));
    for (int i = 0; i < usual.n; i++) {
      double sum = 0;
      for (int p = 0; p < 5; p++) {
        int32_t ids[201];
        float nll[8];
        mn_session *s = NULL;
        const int64_t at = (BYTES - 201) * p / 4, n = usual.length[i];
        CHECK(mn_corpus_read(t.corpus, MN_SPLIT_VALIDATION, at, 201, ids) == 201, "%s", mn_message());
        CHECK_OK(mn_session_new(f.model, f.params, &(mn_session_config){.prefill = 16}, &s));
        if (n > 8) CHECK_OK(mn_session_feed(s, ids + 200 - n, n - 8, NULL));
        CHECK_OK(mn_session_score(s, ids + 192, ids + 193, 8, nll));
        for (int k = 0; k < 8; k++) sum += (double)nll[k] / 40;
        mn_session_free(s);
      }
      CHECK(fabs(r.cell[i].loss.value - sum) < 1e-5, "after %lld: %.9g, a session says %.9g", (long long)usual.length[i],
            r.cell[i].loss.value, sum);
      CHECK(fabs(r.cell[i].gain.value - (r.cell[0].loss.value - r.cell[i].loss.value)) < 1e-9, "the gain is not the difference");
      CHECK(r.cell[i].loss.low <= r.cell[i].loss.value && r.cell[i].loss.value <= r.cell[i].loss.high, "outside its interval");
    }
    mn_context_config other = usual;
    mn_context_eval again;
    other.batch = 5, other.prefill = 7; /* five rows at once: the odd row of the last batch before said a place again */
    CHECK_OK(mn_eval_contexts(f.model, f.params, t.corpus, MN_SPLIT_VALIDATION, &other, &again));
    for (int i = 0; i < usual.n; i++)
      CHECK(fabs(again.cell[i].loss.value - r.cell[i].loss.value) < 1e-5 && again.cell[i].bits_per_byte > 0, "rows matter: %g and %g",
            again.cell[i].loss.value, r.cell[i].loss.value);
    close_text(&t);
  }
  fixture_close(&f);
}

/* As many places as there are without meeting; the one that a text of just that length has. */
static void places_are_as_many_as_there_are(void) {
  open_text t;
  mn_context_config c = usual;
  if (!read_text(&t, TEXT)) return;
  c.places = 1 << 20;
  CHECK(mn_context_tokens(t.corpus, MN_SPLIT_VALIDATION, &c) == (16 + 40 + 64 + 200) * ((BYTES - 201) / 8 + 1), "%lld",
        (long long)mn_context_tokens(t.corpus, MN_SPLIT_VALIDATION, &c));
  c.length[3] = BYTES - 1;
  CHECK(mn_context_tokens(t.corpus, MN_SPLIT_VALIDATION, &c) == 16 + 40 + 64 + BYTES - 1, "one place");
  c.length[3] = BYTES;
  CHECK(mn_context_tokens(t.corpus, MN_SPLIT_VALIDATION, &c) == 0, "the last token has no next one");
  close_text(&t);
}

static bool until(void *ctx, const char *what, int64_t done, int64_t total) {
  int *left = ctx;
  (void)what;
  CHECK(done >= 0 && done < total, "%lld of %lld", (long long)done, (long long)total);
  return --*left > 0;
}

static void what_cannot_be_is_refused(void) {
  fixture f;
  open_text t;
  mn_context_eval r;
  if (fixture_open(&f, 7, "{vocab_size: 256, d_model: 16, layers: 1, block: {mixer: {type: attention, heads: 2, max_context: 100}}}") &&
      read_text(&t, TEXT)) {
    mn_context_config c = usual;
    int left = 3;
    CHECK(mn_eval_contexts(f.model, f.params, t.corpus, MN_SPLIT_VALIDATION, &c, &r) == MN_ERR_CONFIG && strstr(mn_message(), "100"), "%s",
          mn_message());
    c.forget = true;
    CHECK_OK(mn_eval_contexts(f.model, f.params, t.corpus, MN_SPLIT_VALIDATION, &c, &r));
    CHECK(r.forgot, "200 tokens were not too many for 100");
    c.watch = (mn_watch){.progress = until, .ctx = &left};
    CHECK(mn_eval_contexts(f.model, f.params, t.corpus, MN_SPLIT_VALIDATION, &c, &r) == MN_ERR_CANCELLED, "%s", mn_message());
    c = usual, c.length[3] = 5000;
    CHECK(mn_eval_contexts(f.model, f.params, t.corpus, MN_SPLIT_VALIDATION, &c, &r) == MN_ERR_CONFIG && strstr(mn_message(), "5000") &&
              strstr(mn_message(), "3000"),
          "%s", mn_message());
    c = usual, c.length[2] = c.length[1];
    CHECK(mn_eval_contexts(f.model, f.params, t.corpus, MN_SPLIT_VALIDATION, &c, &r) == MN_ERR_CONFIG, "%s", mn_message());
    c = usual, c.judged = 17;
    CHECK(mn_eval_contexts(f.model, f.params, t.corpus, MN_SPLIT_VALIDATION, &c, &r) == MN_ERR_CONFIG, "%s", mn_message());
    close_text(&t);
  }
  fixture_close(&f);
}

/* ---- the program ---- */

static void make_model(void) {
  fixture f;
  mn_tokenizer *tok = NULL;
  if (fixture_open(&f, 7, "{vocab_size: 256, d_model: 16, layers: 1, block: {mixer: {type: attention, heads: 2, max_context: 300}}}")) {
    CHECK_OK(mn_make_dirs(DIR "/model"));
    CHECK_OK(mn_model_save_dir(f.model, f.params, DIR "/model"));
    CHECK_OK(mn_tokenizer_bytes(NULL, 0, &tok));
    CHECK_OK(mn_tokenizer_save(tok, DIR "/model/tokenizer.json"));
    mn_tokenizer_free(tok);
  }
  fixture_close(&f);
}

static void the_program_shows_each_length(void) {
  CHECK(sh(EVAL "--model " DIR "/model --lengths 200,16,64 --examples 6 --plot " DIR "/p.svg --plot " DIR "/p.png 2>&1") == 0, "%s", out);
  CHECK(strstr(out, "the same 8 tokens at each of 6 places") && strstr(out, "gained") && strstr(out, "\n         16  "), "%s", out);
  CHECK(sh("grep -c '<svg' " DIR "/p.svg") == 0 && mn_file_exists(DIR "/p.png"), "%s", out);
  CHECK(sh(EVAL "--model " DIR "/model --lengths 200,16,64 --judged 4 --json 2>/dev/null") == 0, "%s", out);
  int64_t n = 0, length[] = {16, 64, 200};
  for (char *line = strtok(out, "\n"); line; line = strtok(NULL, "\n"), n++) {
    json_t *j = json_loads(line, 0, NULL);
    CHECK(j && n < 3, "no JSON, or too much: %s", line);
    CHECK(j && n < 3 && json_integer_value(json_object_get(j, "T")) == length[n] && json_integer_value(json_object_get(j, "judged")) == 4 &&
              json_is_real(json_object_get(j, "value")) && json_array_size(json_object_get(j, "gain_interval")) == 2,
          "%s", line);
    json_decref(j);
  }
  CHECK(n == 3, "%lld lines", (long long)n);
}

static void mistakes_are_named(void) {
  static const struct {
    const char *more;
    int code;
    const char *says;
  } bad[] = {
      {"--lengths 16,400", 2, "300"},
      {"--lengths 16,16", 2, "16 twice"},
      {"--lengths 16,,32", 2, "--lengths"},
      {"--lengths ''", 2, "--lengths"},
      {"--lengths 1k", 2, "'1k'"},
      {"--lengths 0,16", 2, "from 1"},
      {"--lengths 16,4000", 2, "3000"},
      {"--lengths 16 --judged 17", 2, "from 1 to 16"},
      {"--lengths 16 --carry", 2, "--carry has no effect"},
      {"--lengths 16 --batches 2", 2, "--batches has no effect"},
      {"--lengths 16 --depths 2", 2, "--depths has no effect"},
      {"--judged 4", 2, "--lengths of a text"},
      {"--examples 4", 2, "--lengths of a text"},
      {"--plot " DIR "/q.svg", 2, "--lengths of a text"},
  };
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    const int code = sh(EVAL "--model " DIR "/model %s 2>&1", bad[i].more);
    CHECK(code == bad[i].code && strstr(out, bad[i].says), "%s: %d, %s", bad[i].more, code, out);
  }
  CHECK(sh(EVAL "--model " DIR "/model --lengths 16,400 --examples 2 --forget 2>&1") == 0 && strstr(out, "forgotten"), "%s", out);
}

int main(void) {
  setbuf(stdout, NULL);
  make_text();
  RUN(what_no_window_reaches_gains_nothing);
  RUN(a_loss_is_what_a_session_says);
  RUN(places_are_as_many_as_there_are);
  RUN(what_cannot_be_is_refused);
  make_model();
  RUN(the_program_shows_each_length);
  RUN(mistakes_are_named);
  sh("rm -rf %s", DIR);
  return test_end();
}
