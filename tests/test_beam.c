/* What must be true of beam search and of a session that reads a source: a beam that keeps everything finds the likeliest of all
 * answers, one beam is the greedy answer; rows with sources of their own answer as each would alone; a source is kept until another
 * comes; only tokens of the tokenizer are said; what cannot be is refused, and an interruption is heard. */
#include "run/beam.h"
#include "model_fixture.h"

enum { V = 4, END = 0, S = 5, LONGEST = 3, ALL = V * V * V };

static const char model_text[] =
    "{type: encoder_decoder, vocab_size: 4, d_model: 16, layers: 1, max_source: 8, init_std: 1, tie_embeddings: false, "
    "block: {mixer: {type: attention, heads: 2, max_context: 8}, cross: {heads: 2}, channel: none}, "
    "encoder: {layers: 1, block: {mixer: {type: attention, heads: 2, causal: false}, channel: none}}}";

static const int32_t ends[2] = {END, 2};

static bool set_up(fixture *f) { return fixture_open(f, 11, "%s", model_text); }

/* A session of `rows` rows, all with the source `which`, and its logits after the first token. */
static mn_session *begin(fixture *f, int64_t rows, int which, const float **logits) {
  mn_session *s = NULL;
  int32_t source[ALL * S], first[ALL];
  for (int64_t i = 0; i < rows * S; i++) source[i] = (int32_t)((i % S * (which + 2) + which) % V);
  for (int64_t b = 0; b < rows; b++) first[b] = END;
  CHECK_OK(mn_session_new(f->model, f->params, &(mn_session_config){.batch = rows, .prefill = 1}, &s));
  if (!s) return NULL;
  CHECK_OK(mn_session_source(s, source, S, NULL));
  CHECK_OK(mn_session_feed(s, first, 1, logits));
  return s;
}

static double log_p(const float *x, int32_t t) {
  double sum = 0;
  for (int i = 0; i < V; i++) sum += exp((double)x[i] - (double)x[t]);
  return -log(sum);
}

typedef struct answer {
  int32_t tokens[LONGEST];
  int n;
  double score;
} answer;

/* Every answer that ends within LONGEST tokens, one by one. */
static void likeliest(fixture *f, mn_session *at, const float *logits, answer so_far, double p, double penalty, answer *best) {
  float x[V];
  memcpy(x, logits, sizeof x);
  const double ended = (p + log_p(x, END)) / pow((5.0 + so_far.n + 1) / 6, penalty);
  if (ended > best->score) *best = so_far, best->score = ended;
  if (so_far.n + 1 == LONGEST) return;
  for (int32_t t = 1; t < V; t++) {
    mn_session *next = NULL;
    const float *y;
    answer longer = so_far;
    CHECK_OK(mn_session_fork(at, &next));
    if (!next) return;
    CHECK_OK(mn_session_feed(next, &t, 1, &y));
    longer.tokens[longer.n++] = t;
    likeliest(f, next, y, longer, p + log_p(x, t), penalty, best);
    mn_session_free(next);
  }
}

static void a_wide_beam_finds_the_likeliest_answer(void) {
  fixture f;
  int longer_than_none = 0;
  if (!set_up(&f)) return;
  for (int which = 0; which < 6; which++) {
    const double penalty = which % 2 ? 1.0 : 0.0;
    const float *logits;
    answer best = {.score = -INFINITY};
    mn_session *one = begin(&f, 1, which, &logits);
    if (one) likeliest(&f, one, logits, (answer){.n = 0}, 0, penalty, &best);
    mn_session_free(one);
    mn_session *s = begin(&f, ALL, which, &logits), *spare = NULL;
    if (!s) break;
    CHECK_OK(mn_session_fork(s, &spare));
    mn_beam_answer a = {0};
    const mn_beam_config c = {.beams = ALL, .max_tokens = LONGEST, .length_penalty = penalty, .ends = ends, .n_ends = 1};
    CHECK_OK(mn_beam_search(s, spare, &c, 1, logits, &a));
    CHECK(a.ended && (int)a.tokens.len == best.n && !memcmp(a.tokens.data ? a.tokens.data : best.tokens, best.tokens, (size_t)best.n * 4),
          "source %d: an answer of %zu tokens, the likeliest has %d", which, a.tokens.len, best.n);
    const double score = a.log_p / pow((5.0 + (double)a.tokens.len + 1) / 6, penalty);
    CHECK(fabs(score - best.score) < 1e-4, "source %d: %g, the likeliest is %g", which, score, best.score);
    longer_than_none += best.n > 0;
    mn_beam_answers_free(&a, 1);
    mn_session_free(s);
    mn_session_free(spare);
  }
  CHECK(longer_than_none > 0, "every likeliest answer is empty: the test says nothing");
  fixture_close(&f);
}

/* Any of the tokens that end an answer ends it, and is no part of it. */
static void one_beam_is_greedy(void) {
  fixture f;
  int by_the_other = 0;
  if (!set_up(&f)) return;
  for (int i = 0; i < 12; i++) {
    const float *logits;
    int32_t want[7];
    const int which = i / 2, n_ends = 1 + i % 2;
    int n = 0;
    bool ended = false;
    mn_session *s = begin(&f, 1, which, &logits);
    while (s && n < 7 && !ended) {
      int32_t t = 0;
      for (int32_t k = 1; k < V; k++) t = logits[k] > logits[t] ? k : t;
      ended = t == END || (n_ends == 2 && t == ends[1]);
      by_the_other += ended && t != END;
      if (!ended) want[n++] = t;
      if (!ended && n < 7) CHECK_OK(mn_session_feed(s, &t, 1, &logits));
    }
    mn_session_free(s);
    s = begin(&f, 1, which, &logits);
    mn_beam_answer a = {0};
    if (s) CHECK_OK(mn_beam_search(s, NULL, &(mn_beam_config){.beams = 1, .max_tokens = 7, .ends = ends, .n_ends = n_ends}, 1, logits, &a));
    CHECK(a.ended == ended && (int)a.tokens.len == n && (!n || !memcmp(a.tokens.data, want, (size_t)n * 4)), "source %d, %d ends", which,
          n_ends);
    mn_beam_answers_free(&a, 1);
    mn_session_free(s);
  }
  CHECK(by_the_other > 0, "no answer ends by the second token: the test says nothing");
  fixture_close(&f);
}

/* Two sources of different lengths side by side; what lies behind the shorter one is not seen. */
static void rows_answer_as_each_would_alone(void) {
  fixture f;
  if (!set_up(&f)) return;
  const int32_t source[2 * S] = {1, 2, 3, 1, 2, 3, 1, 0, 3, 3}, lengths[2] = {S, 2}, first[2] = {END, END};
  const float *logits;
  float together[2][2 * V], alone[2][2 * V];
  mn_session *s = NULL;
  CHECK_OK(mn_session_new(f.model, f.params, &(mn_session_config){.batch = 2, .prefill = 1}, &s));
  if (s) CHECK_OK(mn_session_source(s, source, S, lengths));
  for (int t = 0; s && t < 2; t++) { /* the second token sees the source that was kept */
    CHECK_OK(mn_session_feed(s, first, 1, &logits));
    memcpy(together[t], logits, sizeof together[t]);
  }
  mn_session_free(s);
  for (int b = 0; b < 2; b++) {
    CHECK_OK(mn_session_new(f.model, f.params, &(mn_session_config){.batch = 1, .prefill = 1}, &s));
    if (!s) break;
    CHECK_OK(mn_session_source(s, source + b * S, lengths[b], NULL));
    for (int t = 0; t < 2; t++) {
      CHECK_OK(mn_session_feed(s, first, 1, &logits));
      memcpy(alone[t] + b * V, logits, V * sizeof *logits);
    }
    mn_session_free(s);
  }
  double worst = 0, apart = 0;
  for (int t = 0; t < 2; t++)
    for (int i = 0; i < 2 * V; i++) {
      worst = fmax(worst, fabs((double)together[t][i] - (double)alone[t][i]));
      apart = fmax(apart, fabs((double)alone[t][i] - (double)alone[t][i % V + V * (i < V)]));
    }
  CHECK(worst < 1e-5, "rows differ by %g from each alone", worst);
  CHECK(apart > 1e-2, "both sources give the same: the test says nothing");
  fixture_close(&f);
}

/* A tokenizer without a token for this id of the model; its bytes have those around it. */
static mn_tokenizer *with_a_hole(int32_t id) {
  mn_tokenizer *tok = NULL;
  mn_text json = {0};
  mn_text_addf(&json, "{\"version\": \"1.0\", \"added_tokens\": [], \"pre_tokenizer\": {\"type\": \"ByteLevel\", "
                      "\"add_prefix_space\": false, \"use_regex\": false}, \"decoder\": {\"type\": \"ByteLevel\"}, "
                      "\"model\": {\"type\": \"BPE\", \"merges\": [], \"vocab\": {");
  for (int byte = 0, others = 256; byte < 256; byte++) { /* a byte's letter: itself where it can be printed */
    const bool printed = (byte > 32 && byte < 127) || (byte > 160 && byte != 173);
    mn_text_addf(&json, "%s\"\\u%04x\": %d", byte ? ", " : "", printed ? byte : others++, byte < id ? byte : byte + 1);
  }
  mn_text_addf(&json, "}}}");
  CHECK_OK(mn_tokenizer_parse("test", json.data, json.len, &tok));
  mn_text_free(&json);
  return tok;
}

static void ids_without_a_token_are_not_said(void) {
  fixture f;
  int gone = 0;
  if (!set_up(&f)) return;
  for (int which = 0; which < 6; which++) {
    mn_tokenizer *tok = NULL;
    int32_t id = -1; /* what the answer begins with when all may be said */
    for (int kept = 0; kept < 2; kept++) {
      const float *logits;
      mn_session *s = begin(&f, 3, which, &logits), *spare = NULL;
      if (!s) break;
      CHECK_OK(mn_session_fork(s, &spare));
      mn_beam_answer a = {0};
      CHECK_OK(mn_beam_search(s, spare, &(mn_beam_config){.beams = 3, .max_tokens = 6, .ends = ends, .n_ends = 1, .tokens = tok}, 1, logits,
                              &a));
      for (size_t i = 0; kept && i < a.tokens.len; i++) CHECK(a.tokens.data[i] != id, "source %d: %d was said", which, id);
      mn_session_free(s);
      mn_session_free(spare);
      if (!kept && a.tokens.len) id = a.tokens.data[0], tok = with_a_hole(id), gone++;
      mn_beam_answers_free(&a, 1);
      if (!tok) break;
    }
    mn_tokenizer_free(tok);
  }
  CHECK(gone > 0, "every answer is empty: the test says nothing");
  fixture_close(&f);
}

static void a_search_ends_when_it_is_interrupted(void) {
  static atomic_int stop = 1;
  fixture f;
  const float *logits;
  if (!set_up(&f)) return;
  mn_session *s = begin(&f, 1, 0, &logits);
  mn_beam_answer a = {0};
  mn_stop_watch(&stop);
  CHECK(mn_beam_search(s, NULL, &(mn_beam_config){.beams = 1, .max_tokens = 7, .ends = ends, .n_ends = 1}, 1, logits, &a) ==
            MN_ERR_CANCELLED,
        "%s", mn_message());
  mn_stop_watch(NULL);
  mn_session_free(s);
  fixture_close(&f);
}

static void what_is_not_a_number_is_no_answer(void) {
  fixture f;
  const float *logits;
  if (!set_up(&f)) return;
  mn_session *s = begin(&f, 1, 0, &logits);
  const float bad[V] = {0, 1, (float)NAN, 0};
  mn_beam_answer a = {0};
  CHECK(mn_beam_search(s, NULL, &(mn_beam_config){.beams = 1, .max_tokens = 7, .ends = ends, .n_ends = 1}, 1, bad, &a) == MN_ERR_NUMERIC &&
            strstr(mn_message(), "token 2"),
        "%s", mn_message());
  mn_session_free(s);
  fixture_close(&f);
}

static void what_cannot_be_is_refused(void) {
  fixture f;
  if (!set_up(&f)) return;
  const int32_t source[2] = {1, -1}, lengths[1] = {3};
  const float *logits;
  mn_session *s = begin(&f, 1, 0, &logits);
  CHECK(mn_session_source(s, source, 2, NULL) == MN_ERR_ARG && strstr(mn_message(), "token 1"), "%s", mn_message());
  CHECK(mn_session_source(s, source, 1, lengths) == MN_ERR_ARG && strstr(mn_message(), "3 places of 1"), "%s", mn_message());
  CHECK(mn_session_source(s, source, 0, NULL) == MN_ERR_ARG, "%s", mn_message());
  mn_beam_answer a = {0};
  CHECK(mn_beam_search(s, NULL, &(mn_beam_config){.beams = 2, .max_tokens = 1}, 1, logits, &a) == MN_ERR_ARG, "%s", mn_message());
  CHECK(mn_beam_search(s, NULL, &(mn_beam_config){.beams = 1, .max_tokens = 1}, 2, logits, &a) == MN_ERR_ARG &&
            strstr(mn_message(), "sessions of 2 rows"),
        "%s", mn_message());
  mn_session_free(s);
  fixture_close(&f);
}

int main(void) {
  RUN(a_wide_beam_finds_the_likeliest_answer);
  RUN(one_beam_is_greedy);
  RUN(rows_answer_as_each_would_alone);
  RUN(ids_without_a_token_are_not_said);
  RUN(a_search_ends_when_it_is_interrupted);
  RUN(what_is_not_a_number_is_no_answer);
  RUN(what_cannot_be_is_refused);
  return test_end();
}
