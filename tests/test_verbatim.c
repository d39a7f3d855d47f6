/* What must be true of lists that come again: who knows nothing of the first
 * list has 100 %, who copies has next to nothing, exactly as their formulas say, and who forgets has what he has by his reach; a model's
 * surprisals are the same at once and token by token; and what cannot be measured is refused. */
#include <jansson.h>

#include "eval/shuffle.h"
#include "eval/verbatim_eval.h"
#include "format/yaml.h"
#include "list_tokenizers.h"
#include "model_fixture.h"
#include "task/recurring.h"

enum { V = MN_RECURRING_VOCAB, N = MN_VIGNETTE_NOUNS };

static mn_verbatim_config settings(mn_arena *arena, const char *text) {
  mn_verbatim_config c;
  const mn_value *v = NULL;
  CHECK_OK(mn_yaml_parse(arena, "test", text, strlen(text), &v));
  CHECK_OK(mn_config_read(arena, v, "task", mn_verbatim_fields, &c));
  return c;
}

/* ---- oracles ---- */

typedef struct oracle {
  double e;      /* probability of something else */
  int64_t reach; /* tokens that it looks back */
} oracle;

static mn_status uniform(void *ctx, const int32_t *ids, const int32_t *length, int64_t rows, int64_t n, double *nats) {
  (void)ctx, (void)ids, (void)length;
  for (int64_t i = 0; i < rows * n; i++) nats[i] = log((double)V);
  return MN_OK;
}

/* 1 - e on what followed the last earlier place of this token, e on all else together. */
static mn_status copy(void *ctx, const int32_t *ids, const int32_t *length, int64_t rows, int64_t n, double *nats) {
  const oracle *o = ctx;
  for (int64_t b = 0; b < rows; b++) {
    const int32_t *x = ids + b * n;
    nats[b * n] = (double)NAN;
    for (int64_t t = 1; t < length[b]; t++) {
      int64_t s = t - 2;
      while (s >= 0 && t - 1 - s <= o->reach && x[s] != x[t - 1]) s--;
      const bool there = s >= 0 && t - 1 - s <= o->reach;
      nats[b * n + t] = !there ? log((double)V) : x[s + 1] == x[t] ? -log1p(-o->e) : -log(o->e / (V - 1));
    }
  }
  return MN_OK;
}

/* Half on the tokens that were there, in equal parts; half on all. */
static mn_status bag(void *ctx, const int32_t *ids, const int32_t *length, int64_t rows, int64_t n, double *nats) {
  (void)ctx;
  for (int64_t b = 0; b < rows; b++) {
    bool seen[V] = {false};
    int count = 0;
    for (int64_t t = 0; t < length[b]; t++) {
      const int32_t id = ids[b * n + t];
      nats[b * n + t] = -log(0.5 / V + (seen[id] ? 0.5 / count : 0));
      count += !seen[id];
      seen[id] = true;
    }
  }
  return MN_OK;
}

/* Has no memory: every id has its own surprisal. */
static mn_status forgets(void *ctx, const int32_t *ids, const int32_t *length, int64_t rows, int64_t n, double *nats) {
  (void)ctx, (void)length;
  for (int64_t i = 0; i < rows * n; i++) nats[i] = 1 + 0.37 * (double)(ids[i] % 11);
  return MN_OK;
}

static mn_verbatim_eval judge(mn_status (*read)(void *, const int32_t *, const int32_t *, int64_t, int64_t, double *), void *ctx,
                              const mn_tokenizer *tok, const char *text) {
  mn_arena *arena = mn_arena_new();
  const mn_verbatim_config c = settings(arena, text);
  mn_verbatim_eval e;
  CHECK_OK(mn_eval_verbatim_with(&(mn_verbatim_reader){ctx, 7, read}, tok, &c, &(mn_verbatim_run){0}, &e));
  mn_arena_free(arena);
  return e;
}

static void who_takes_all_for_equal_has_100_percent(void) {
  mn_verbatim_eval e = judge(uniform, NULL, NULL, "{delays: [26, 194], lengths: [3, 10]}");
  CHECK(e.n == 12 && e.vignettes == 230, "%d cells", e.n);
  for (int i = 0; i < e.n; i++) {
    const mn_verbatim_cell *c = &e.cells[i];
    for (int64_t v = 0; v < 230; v++) CHECK(e.ratio[i * 230 + v] == 100, "%.17g", e.ratio[i * 230 + v]);
    CHECK(c->repeat.value == 100 && c->repeat.low == 100 && c->repeat.high == 100 && c->deviation == 0 && c->change == 0, "%g",
          c->repeat.value);
    CHECK(fabs(c->first - log(V)) < 1e-12 && fabs(c->second - log(V)) < 1e-12 && c->flagged == 0, "%g", c->first);
  }
  mn_verbatim_free(&e);
  mn_tokenizer *tok = bytes(); /* of bytes a noun has as many parts as letters */
  e = judge(uniform, NULL, tok, "{delays: [0], from: 1}");
  CHECK(e.n == 3 && e.cells[0].repeat.value == 100, "%g", e.cells[0].repeat.value);
  CHECK(fabs(e.cells[1].repeat.value - 100) < 1e-9, "the same nouns in another order: %.12g", e.cells[1].repeat.value);
  double letters = 0;
  for (int i = 0; i < 230; i++) letters += (double)strlen(mn_vignette_noun(i)) / 230;
  double mean = 0;
  for (int k = 0; k < N; k++) mean += e.cells[0].at[0][k].value / N;
  CHECK(fabs(mean - letters * log(V)) < 1e-9, "%g nats a noun", mean);
  mn_verbatim_free(&e);
  mn_tokenizer_free(tok);
}

/* The formula of the copier, worked out from the lists alone. */
static void a_copier_has_what_its_formula_says(void) {
  oracle o = {.e = 0.01, .reach = INT64_MAX / 2};
  const double right = -log1p(-o.e), wrong = -log(o.e / (V - 1)), none = log(V);
  mn_verbatim_eval e = judge(copy, &o, NULL, "{delays: [26, 435], seed: 4}");
  mn_vignettes *v = NULL;
  CHECK_OK(mn_vignettes_open(NULL, 4, &v));
  for (int i = 0; i < e.n; i++) {
    double off = 0;
    for (int index = 0; index < 230; index++) {
      int32_t a[N], b[N];
      double x2 = 0;
      mn_vignettes_lists(v, &e.cells[i].of, index, a, b);
      for (int k = 1; k < N; k++) {
        int before = 0;
        while (before < N && a[before] != b[k - 1]) before++;
        x2 += before == N ? none : before + 1 < N && a[before + 1] == b[k] ? right : wrong;
      }
      off = fmax(off, fabs(e.ratio[i * 230 + index] - 100 * (x2 / (N - 1)) / none));
    }
    CHECK(off < 1e-9, "cell %d: %g off", i, off);
    const int second = e.cells[i].of.second;
    CHECK(second == MN_SECOND_REPEAT  ? e.cells[i].repeat.value < 1
          : second == MN_SECOND_NOVEL ? fabs(e.cells[i].repeat.value - 100) < 1e-9
                                      : e.cells[i].repeat.value > 100,
          "%s: %g", mn_vignette_seconds[second], e.cells[i].repeat.value);
  }
  mn_vignettes_close(v);
  mn_verbatim_free(&e);
}

/* A memory of 60 tokens copies over 26 and knows nothing over 60. */
static void a_short_memory_ends_where_it_ends(void) {
  oracle o = {.e = 0.01, .reach = 60};
  mn_verbatim_eval e = judge(copy, &o, NULL, "{delays: [26, 49, 50, 51, 435], seconds: [repeat]}");
  const bool found[] = {true, true, true, false, false}; /* from a noun back to where it stood: 10 and the delay */
  for (int i = 0; i < e.n; i++)
    CHECK(found[i] ? e.cells[i].repeat.value < 1 : e.cells[i].repeat.value == 100, "delay %lld: %g", (long long)e.cells[i].of.delay,
          e.cells[i].repeat.value);
  mn_verbatim_free(&e);
}

static void a_bag_of_words_knows_no_order(void) {
  mn_verbatim_eval e = judge(bag, NULL, NULL, "{delays: [26], from: 1}");
  const mn_verbatim_cell *repeat = &e.cells[0], *permuted = &e.cells[1], *novel = &e.cells[2];
  CHECK(repeat->repeat.value < 80 && novel->repeat.value > 95, "%g, %g", repeat->repeat.value, novel->repeat.value);
  CHECK(permuted->repeat.value >= repeat->repeat.low && permuted->repeat.value <= repeat->repeat.high, "%g is not in %g to %g",
        permuted->repeat.value, repeat->repeat.low, repeat->repeat.high);
  mn_verbatim_free(&e);
}

static void who_has_no_memory_has_100_percent_of_the_same_words(void) {
  mn_verbatim_eval e = judge(forgets, NULL, NULL, "{delays: [26], from: 1}");
  CHECK(fabs(e.cells[0].repeat.value - 100) < 1e-9 && fabs(e.cells[1].repeat.value - 100) < 1e-9, "%g, %g", e.cells[0].repeat.value,
        e.cells[1].repeat.value);
  CHECK(e.cells[2].repeat.value > 90 && e.cells[2].repeat.value < 110 && e.cells[2].deviation > 1, "%g", e.cells[2].repeat.value);
  mn_verbatim_free(&e);
}

/* Nats by letters: a word has the same surprisal in one token and in six, whatever becomes of punctuation. */
typedef struct speller {
  const mn_tokenizer *tok;
} speller;
static mn_status spell(void *ctx, const int32_t *ids, const int32_t *length, int64_t rows, int64_t n, double *nats) {
  const speller *s = ctx;
  for (int64_t b = 0; b < rows; b++)
    for (int64_t t = 0; t < length[b]; t++) {
      size_t len;
      const char *token = mn_tokenizer_token(s->tok, ids[b * n + t], &len);
      double x = 0;
      for (size_t i = 0; i < len; i++) x += token[i] == ' ' ? 0 : token[i] == ',' ? 1000 : 0.01 * (double)(token[i] - 'a' + 7);
      nats[b * n + t] = x;
    }
  return MN_OK;
}

static void a_word_is_the_sum_of_its_tokens_in_every_tokenizer(void) {
  mn_tokenizer *toks[2] = {bytes(), pairs()};
  mn_verbatim_eval e[2];
  for (int k = 0; k < 2; k++) e[k] = judge(spell, &(speller){toks[k]}, toks[k], "{delays: [120], lists: [arbitrary, semantic]}");
  for (int i = 0; i < e[0].n; i++) {
    CHECK(fabs(e[0].cells[i].repeat.value - e[1].cells[i].repeat.value) < 1e-9, "%g, %g", e[0].cells[i].repeat.value,
          e[1].cells[i].repeat.value);
    for (int k = 0; k < N; k++) CHECK(fabs(e[0].cells[i].at[1][k].value - e[1].cells[i].at[1][k].value) < 1e-9, "place %d", k);
  }
  for (int k = 0; k < 2; k++) mn_verbatim_free(&e[k]), mn_tokenizer_free(toks[k]);
}

/* ---- statistics ---- */

static mn_status faint(void *ctx, const int32_t *ids, const int32_t *length, int64_t rows, int64_t n, double *nats) {
  (void)ids, (void)length;
  for (int64_t i = 0; i < rows * n; i++) nats[i] = *(double *)ctx;
  return MN_OK;
}

static void what_was_no_surprise_at_first_is_flagged(void) {
  double x = 0.5;
  mn_verbatim_eval e = judge(faint, &x, NULL, "{delays: [26]}");
  CHECK(e.cells[0].flagged == 230 && e.cells[0].nothing == 0 && e.cells[0].repeat.value == 100, "%lld", (long long)e.cells[0].flagged);
  mn_verbatim_free(&e);
  x = 0;
  e = judge(faint, &x, NULL, "{delays: [26]}");
  CHECK(e.cells[0].flagged == 230 && e.cells[0].nothing == 230 && isnan(e.cells[0].repeat.value), "%g", e.cells[0].repeat.value);
  mn_verbatim_free(&e);
  mn_arena *arena = mn_arena_new();
  const mn_verbatim_config c = settings(arena, "{delays: [26]}");
  x = (double)NAN;
  CHECK(mn_eval_verbatim_with(&(mn_verbatim_reader){&x, 3, faint}, NULL, &c, &(mn_verbatim_run){0}, &e) == MN_ERR_NUMERIC, "%s",
        mn_message());
  mn_arena_free(arena);
}

/* Against what is known of the median of normal numbers: 1.2533 sigma / sqrt(n), and of the mean. */
static void intervals_are_as_wide_as_they_should_be(void) {
  enum { n = 230 };
  double x[n], width[2] = {0}, hits[2] = {0};
  mn_estimate e, again;
  for (int trial = 0; trial < 40; trial++) {
    for (int i = 0; i < n; i++) {
      const double u = mn_random_uniform(9, (uint64_t)trial, (uint64_t)(2 * i)),
                   w = mn_random_uniform(9, (uint64_t)trial, (uint64_t)(2 * i + 1));
      x[i] = 50 + sqrt(-2 * log(1 - u)) * cos(6.283185307179586 * w);
    }
    CHECK_OK(mn_bootstrap_median(x, n, 1000, 1, &e));
    width[0] += (e.high - e.low) / 40;
    hits[0] += (e.low <= 50 && 50 <= e.high) / 40.0;
    CHECK_OK(mn_bootstrap_median(x, n, 1000, 1, &again));
    CHECK(e.low == again.low && e.high == again.high && e.low <= e.value && e.value <= e.high, "%g %g %g", e.low, e.value, e.high);
    CHECK_OK(mn_bootstrap_mean(x, n, 1000, 1, &e));
    width[1] += (e.high - e.low) / 40;
    hits[1] += (e.low <= 50 && 50 <= e.high) / 40.0;
  }
  const double want[2] = {2 * 1.96 * 1.2533 / sqrt(n), 2 * 1.96 / sqrt(n)};
  for (int k = 0; k < 2; k++) {
    CHECK(width[k] > 0.85 * want[k] && width[k] < 1.2 * want[k], "%s: %g wide, %g wanted", k ? "mean" : "median", width[k], want[k]);
    CHECK(hits[k] >= 0.8, "%s: %g of the intervals hold it", k ? "mean" : "median", hits[k]);
  }
  double few[] = {3, 1, 2, 10}, scratch[4];
  CHECK(mn_median(few, 4) == 2.5 && mn_median(few, 3) == 2 && mn_median_deviation(few, 4, 2.5, scratch) == 1, "%g", few[0]);
  CHECK_OK(mn_bootstrap_median(x, 0, 1000, 1, &e));
  CHECK(isnan(e.value) && isnan(e.low), "of none: %g", e.value);
}

/* ---- models ---- */

static const char *const models[] = {
    "{vocab_size: 512, d_model: 32, layers: 2, block: {mixer: {type: attention, heads: 2}}}",
    "{vocab_size: 512, d_model: 32, layers: 2, block: {mixer: {type: gated_deltanet, heads: 2}}}",
    "{vocab_size: 512, d_model: 32, layers: 2, block: {mixer: {type: lstm}}}",
};

typedef struct single {
  mn_session *s;
} single;

/* A token at a time, its probability from the logits in float64. */
static mn_status one_by_one(void *ctx, const int32_t *ids, const int32_t *length, int64_t rows, int64_t n, double *nats) {
  single *one = ctx;
  for (int64_t b = 0; b < rows; b++) {
    MN_TRY(mn_session_reset(one->s));
    for (int64_t t = 0; t + 1 < length[b]; t++) {
      const float *logits;
      double most = -INFINITY, sum = 0;
      MN_TRY(mn_session_feed(one->s, ids + b * n + t, 1, &logits));
      for (int k = 0; k < V; k++) most = fmax(most, (double)logits[k]);
      for (int k = 0; k < V; k++) sum += exp((double)logits[k] - most);
      nats[b * n + t + 1] = log(sum) + most - (double)logits[ids[b * n + t + 1]];
    }
  }
  return MN_OK;
}

static void at_once_and_token_by_token_are_the_same(void) {
  mn_tokenizer *tok = pairs();
  mn_arena *arena = mn_arena_new();
  const mn_verbatim_config c = settings(arena, "{delays: [33, 70]}");
  for (size_t m = 0; m < sizeof models / sizeof *models; m++)
    for (int text = 0; text < 2; text++) {
      fixture f;
      mn_verbatim_eval at_once, by_one;
      single one = {0};
      char described[256];
      snprintf(described, sizeof described, "{vocab_size: %d%s", text ? 600 : 512, models[m] + strlen("{vocab_size: 512"));
      if (!text && fixture_open(&f, 7, "%s", described)) {
        const mn_verbatim_run run = {.vignettes = 6, .batch = 4, .prefill = 32};
        CHECK_OK(mn_session_new(f.model, f.params, &(mn_session_config){.prefill = 1}, &one.s));
        CHECK_OK(mn_eval_verbatim(f.model, f.params, NULL, &c, &run, &at_once));
        CHECK_OK(mn_eval_verbatim_with(&(mn_verbatim_reader){&one, 1, one_by_one}, NULL, &c, &run, &by_one));
        double off = 0;
        for (int i = 0; i < at_once.n; i++)
          for (int list = 0; list < 2; list++)
            for (int k = 0; k < N; k++) off = fmax(off, fabs(at_once.cells[i].at[list][k].value - by_one.cells[i].at[list][k].value));
        CHECK(off < 1e-5, "%s: %g nats", models[m], off);
        CHECK(at_once.state_bytes > 0 && at_once.cells[0].flagged == 0, "%zu", at_once.state_bytes);
        mn_verbatim_free(&at_once);
        mn_verbatim_free(&by_one);
        mn_session_free(one.s);
        fixture_close(&f);
      } else if (text && fixture_open(&f, 7, "%s", described)) { /* rows of several lengths, side by side and alone */
        CHECK_OK(mn_eval_verbatim(f.model, f.params, tok, &c, &(mn_verbatim_run){.vignettes = 6, .batch = 6}, &at_once));
        CHECK_OK(mn_eval_verbatim(f.model, f.params, tok, &c, &(mn_verbatim_run){.vignettes = 6, .batch = 1}, &by_one));
        double off = 0;
        for (int i = 0; i < at_once.n; i++)
          for (int k = 0; k < N; k++) off = fmax(off, fabs(at_once.cells[i].at[1][k].value - by_one.cells[i].at[1][k].value));
        CHECK(off < 1e-5, "%s: %g nats", models[m], off);
        mn_verbatim_free(&at_once);
        mn_verbatim_free(&by_one);
        fixture_close(&f);
      }
    }
  mn_arena_free(arena);
  mn_tokenizer_free(tok);
}

/* What stands behind a text changes no bit of it. */
static void padding_changes_nothing(void) {
  for (size_t m = 0; m < sizeof models / sizeof *models; m++) {
    fixture f;
    if (!fixture_open(&f, 7, "%s", models[m])) continue;
    mn_session *s = NULL;
    int32_t x[2][100], target[200];
    float nll[2][200];
    CHECK_OK(mn_session_new(f.model, f.params, &(mn_session_config){.batch = 2}, &s));
    for (int k = 0; k < 2; k++) {
      for (int t = 0; t < 200; t++) {
        x[t / 100][t % 100] = t % 100 < 60 ? (t * 37) % 512 : k ? 5 : 400 - t;
        target[t] = t % 100 < 59 ? ((t + 1) * 37) % 512 : -1;
      }
      CHECK_OK(mn_session_reset(s));
      CHECK_OK(mn_session_score(s, x[0], target, 100, nll[k]));
    }
    CHECK(!memcmp(nll[0], nll[1], sizeof nll[0]), "%s", models[m]);
    mn_session_free(s);
    fixture_close(&f);
  }
}

static void shuffled_back_every_bit_is_there_again(void) {
  fixture f;
  if (!fixture_open(&f, 7, "%s", models[0])) return;
  float kept[3][512];
  for (int k = 0; k < 3; k++) {
    if (k) CHECK_OK(mn_shuffle_queries_and_keys(f.params, 11, k == 2));
    mn_session *s = NULL;
    const float *logits = NULL;
    const int32_t x[] = {3, 70, 81, 9, 70};
    CHECK_OK(mn_session_new(f.model, f.params, &(mn_session_config){0}, &s));
    CHECK_OK(mn_session_feed(s, x, 5, &logits));
    memcpy(kept[k], logits, sizeof kept[k]);
    mn_session_free(s);
  }
  CHECK(memcmp(kept[0], kept[1], sizeof kept[0]) != 0, "shuffled weights say the same");
  CHECK(!memcmp(kept[0], kept[2], sizeof kept[0]), "the inverse permutation does not bring the logits back");
  fixture_close(&f);
  if (!fixture_open(&f, 7, "%s", models[2])) return;
  CHECK(mn_shuffle_queries_and_keys(f.params, 11, false) == MN_ERR_CONFIG && strstr(mn_message(), "q_proj"), "%s", mn_message());
  fixture_close(&f);
  if (!fixture_open(&f, 7, "%s", models[0])) return;
  mn_dtype was = MN_F32;
  for (int i = 0; i < f.params->n; i++) /* as if it had been read so: nothing looks at its values */
    if (strstr(f.params->info[i].name, "k_proj.weight")) was = f.params->type[i], f.params->type[i] = MN_Q8_0;
  CHECK(mn_shuffle_queries_and_keys(f.params, 11, false) == MN_ERR_UNSUPPORTED &&
            strstr(mn_message(), "k_proj.weight is kept in blocks (q8_0)"),
        "%s", mn_message());
  for (int i = 0; i < f.params->n; i++)
    if (f.params->type[i] == MN_Q8_0) f.params->type[i] = was;
  fixture_close(&f);
}

/* ---- refusals ---- */

static void is_refused(const mn_tokenizer *tok, const char *text, const char *says) {
  mn_arena *arena = mn_arena_new();
  const mn_verbatim_config c = settings(arena, text);
  mn_verbatim_eval e;
  CHECK(mn_eval_verbatim_with(&(mn_verbatim_reader){NULL, 1, uniform}, tok, &c, &(mn_verbatim_run){0}, &e) == MN_ERR_CONFIG &&
            strstr(mn_message(), says),
        "%s: %s", text, mn_message());
  mn_arena_free(arena);
}

static void what_cannot_be_measured_is_refused(void) {
  mn_tokenizer *tok = bytes();
  is_refused(tok, "{lists: [arbitary]}", "did you mean arbitrary");
  is_refused(tok, "{seconds: [repeat, repeat]}", "twice");
  is_refused(tok, "{delays: [40, 40]}", "40 twice");
  is_refused(tok, "{lengths: [3], from: 4}", "from = 4");
  is_refused(tok, "{contexts: [short], delays: [50]}", "no effect");
  is_refused(tok, "{delays: [5]}", "21 of this model's tokens");
  is_refused(NULL, "{lists: [semantic]}", "token ids");
  is_refused(NULL, "{contexts: [scrambled]}", "token ids");
  is_refused(NULL, "{control: comma}", "token ids");
  fixture f;
  mn_verbatim_eval e;
  mn_arena *arena = mn_arena_new();
  mn_verbatim_config c = settings(arena, "{delays: [435]}");
  if (fixture_open(&f, 7, "{vocab_size: 512, d_model: 16, layers: 1, block: {mixer: {type: attention, heads: 2, max_context: 128}}}")) {
    CHECK(mn_eval_verbatim(f.model, f.params, NULL, &c, &(mn_verbatim_run){0}, &e) == MN_ERR_CONFIG && strstr(mn_message(), "467") &&
              strstr(mn_message(), "128") && strstr(mn_message(), "max_context"),
          "%s", mn_message());
    CHECK_OK(mn_eval_verbatim(f.model, f.params, NULL, &c, &(mn_verbatim_run){.vignettes = 2, .forget = true}, &e));
    mn_verbatim_free(&e);
    fixture_close(&f);
  }
  if (fixture_open(&f, 7, "{vocab_size: 64, d_model: 16, layers: 1, block: {mixer: {type: attention, heads: 2}}}")) {
    CHECK(mn_eval_verbatim(f.model, f.params, NULL, &c, &(mn_verbatim_run){0}, &e) == MN_ERR_CONFIG && strstr(mn_message(), "recurring"),
          "%s", mn_message());
    fixture_close(&f);
  }
  mn_arena_free(arena);
  mn_tokenizer_free(tok);
}

/* Without a pattern that keeps words apart a token may hold a noun's end and the comma. */
static void a_token_that_spans_a_noun_and_a_comma_is_refused(void) {
  mn_tokenizer *tok = pairs(), *joined = NULL;
  size_t n;
  const char *text = mn_tokenizer_json(tok, &n);
  json_t *root = json_loadb(text, n, 0, NULL), *model = json_object_get(root, "model");
  json_object_set_new(root, "pre_tokenizer", json_pack("{s:s,s:b,s:b}", "type", "ByteLevel", "add_prefix_space", 0, "use_regex", 0));
  json_object_set_new(json_object_get(model, "vocab"), "m,", json_integer(mn_tokenizer_vocab_size(tok)));
  json_array_insert_new(json_object_get(model, "merges"), 0, json_pack("[s,s]", "m", ","));
  char *changed = json_dumps(root, 0);
  CHECK_OK(mn_tokenizer_parse("test", changed, strlen(changed), &joined));
  if (joined) is_refused(joined, "{delays: [0]}", "spans the noun");
  json_object_set_new(root, "pre_tokenizer", json_pack("{s:s,s:b,s:b}", "type", "ByteLevel", "add_prefix_space", 1, "use_regex", 1));
  free(changed);
  changed = json_dumps(root, 0);
  mn_tokenizer_free(joined);
  joined = NULL;
  CHECK_OK(mn_tokenizer_parse("test", changed, strlen(changed), &joined));
  if (joined) is_refused(joined, "{delays: [0]}", "changes the text");
  free(changed);
  json_decref(root);
  mn_tokenizer_free(joined);
  mn_tokenizer_free(tok);
}

int main(void) {
  setbuf(stdout, NULL);
  RUN(who_takes_all_for_equal_has_100_percent);
  RUN(a_copier_has_what_its_formula_says);
  RUN(a_short_memory_ends_where_it_ends);
  RUN(a_bag_of_words_knows_no_order);
  RUN(who_has_no_memory_has_100_percent_of_the_same_words);
  RUN(a_word_is_the_sum_of_its_tokens_in_every_tokenizer);
  RUN(what_was_no_surprise_at_first_is_flagged);
  RUN(intervals_are_as_wide_as_they_should_be);
  RUN(at_once_and_token_by_token_are_the_same);
  RUN(padding_changes_nothing);
  RUN(shuffled_back_every_bit_is_there_again);
  RUN(what_cannot_be_measured_is_refused);
  RUN(a_token_that_spans_a_noun_and_a_comma_is_refused);
  return test_end();
}
