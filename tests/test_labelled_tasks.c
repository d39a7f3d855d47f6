/* What must be true of ListOps and of the number words: an oracle solves each from its input alone; expressions have the stated
 * lengths and answers; what is held out was never shown; known numbers are spelt as they are. */
#include "task/task.h"
#include "test.h"

static mn_task *open_task(const char *name) {
  mn_task *task = NULL;
  CHECK_OK(mn_task_open(name, NULL, &task));
  return task;
}

static void check_listops(const char *name, int samples, int64_t shortest, int64_t longest) {
  mn_task *t = open_task(name);
  if (!t) return;
  int32_t *x = malloc((size_t)t->seq_len * sizeof *x), length, label, solved;
  CHECK(t->n_classes == 10 && t->seq_len == longest, "%s: T is %lld", name, (long long)t->seq_len);
  for (int i = 0; i < samples && x; i++) {
    CHECK_OK(mn_task_sample_label(t, i % 3, (uint64_t)i, x, &length, &label));
    CHECK_OK(t->def->oracle_label(t, x, length, &solved));
    CHECK(label == solved, "%s %d: %d, solved %d", name, i, label, solved);
    CHECK(length > shortest && length < longest, "%s %d has %d tokens", name, i, length);
    int64_t behind = 0;
    for (int64_t k = length; k < t->seq_len; k++) behind += x[k] != 0;
    CHECK(behind == 0 && x[length - 1] > 0, "%s %d is not padded", name, i);
  }
  free(x);
  mn_task_close(t);
}

static void test_an_oracle_solves_listops(void) {
  check_listops("listops", 60, 500, 2000);
  check_listops("listops_mini", 10000, 16, 128);
}

static void test_known_expressions(void) {
  enum { MIN = 11, MAX, MED, SM, END };
  static const struct {
    int n, value;
    int32_t x[12];
  } known[] = {
      {1, 7, {8}},
      {5, 2, {MIN, 5, 3, 10, END}},
      {5, 9, {MAX, 5, 3, 10, END}},
      {5, 4, {MED, 5, 3, 10, END}},             /* 4 2 9: the middle one */
      {4, 3, {MED, 5, 3, END}},                 /* 4 2: their mean       */
      {4, 4, {MED, 5, 6, END}},                 /* 4 5: 4.5, cut         */
      {5, 5, {SM, 5, 3, 10, END}},              /* 15 modulo 10          */
      {8, 8, {SM, 6, MAX, 4, 2, END, 1, END}},  /* 5 + max(3, 1) + 0     */
      {8, 1, {MIN, MED, 2, 3, END, 6, 4, END}}, /* min(med(1, 2), 5, 3)  */
  };
  mn_task *t = open_task("listops_mini");
  for (size_t i = 0; t && i < sizeof known / sizeof *known; i++) {
    int32_t value;
    CHECK_OK(t->def->oracle_label(t, known[i].x, known[i].n, &value));
    CHECK(value == known[i].value, "expression %zu is %d", i, value);
  }
  int32_t value;
  CHECK(t && t->def->oracle_label(t, known[1].x, 4, &value) == MN_ERR_ARG, "an open bracket is solved");
  mn_task_close(t);
}

/* Measured of 96,000 of the reference's generator: mean length about 1,035; answers 0 and 9 are 16.8 and 17.0 %, others 7 to 9 %. And another
 * sample's answer is right as often as two answers agree. */
static void test_listops_has_the_published_statistics(void) {
  enum { N = 10000 };
  mn_task *t = open_task("listops");
  int32_t *x = t ? malloc((size_t)t->seq_len * sizeof *x) : NULL, length, label, solved, before = -1;
  double sum = 0, count[10] = {0}, chance = 0, of_other = 0;
  for (int i = 0; x && i < N; i++) {
    CHECK_OK(mn_task_sample_label(t, MN_SPLIT_TRAIN, (uint64_t)i, x, &length, &label));
    CHECK_OK(t->def->oracle_label(t, x, length, &solved));
    CHECK(label == solved, "%d: %d, solved %d", i, label, solved);
    of_other += before == solved;
    before = label;
    sum += length;
    count[label]++;
  }
  CHECK(fabs(sum / N - 1035) < 15, "mean length %g", sum / N); /* standard error 4 */
  for (int k = 0; k < 10; k++) {
    const double part = count[k] / N;
    chance += part * part;
    if (k % 9) CHECK(part > 0.065 && part < 0.095, "answer %d: %g", k, part);      /* standard error 0.003 */
    else CHECK(fabs(part - (k ? 0.17 : 0.168)) < 0.008, "answer %d: %g", k, part); /* 0.004 */
  }
  CHECK(fabs(of_other / (N - 1) - chance) < 4 * sqrt(chance * (1 - chance) / N), "%g by chance, not %g", of_other / (N - 1), chance);
  free(x);
  mn_task_close(t);
}

/* Of all that is drawn 75 % are a digit, and 8.3 +- 0.5 % have a length between 500 and 2,000. Which digits are drawn for training says
 * their hash; with so many of ten, 0.75 of those are digits. */
static void test_one_drawn_expression_in_twelve_is_kept(void) {
  static const struct {
    const char *set[2];
    int samples;
  } of[] = {{{"min_length=0", "max_length=65536"}, 4000}, {{"min_length=1", "max_length=65536"}, 10000}};
  double part[2] = {0};
  int digits[11] = {0}, different = 0;
  for (int k = 0; k < 2; k++) {
    mn_task *t = NULL;
    CHECK_OK(mn_task_open_set("listops", of[k].set, 2, &t));
    int32_t *x = t ? malloc((size_t)t->seq_len * sizeof *x) : NULL, length, label;
    for (int i = 0; x && i < of[k].samples; i++) {
      CHECK_OK(mn_task_sample_label(t, MN_SPLIT_TRAIN, (uint64_t)i, x, &length, &label));
      part[k] += (k ? length > 500 && length < 2000 : length == 1) ? 1.0 / of[k].samples : 0;
      if (length == 1) different += !digits[x[0]]++;
    }
    free(x);
    mn_task_close(t);
  }
  const double drawn = 0.75 * different / 10, all = drawn + 0.25 * 0.8; /* four in five of what is longer are for training */
  CHECK(fabs(part[0] - drawn / all) < 0.02, "%g are one of %d digits, not %g", part[0], different, drawn / all); /* standard error 0.007 */
  CHECK(fabs(0.25 * part[1] - 0.083) < 0.005, "%g are kept", 0.25 * part[1]);                                    /* 0.0012 */
}

/* Of the 400 expressions of two digits each is of one split alone: of training are all that are neither of validation nor of test. */
static void test_no_two_splits_share_an_expression(void) {
  enum { N = 6000, OF = 400 };
  static const char *const set[] = {"max_depth=2", "max_args=2", "min_length=2", "max_length=8"};
  int of[OF] = {0}, in[3] = {0};
  mn_task *t = NULL;
  int32_t x[8], length, label;
  CHECK_OK(mn_task_open_set("listops", set, 4, &t));
  for (int split = 0; t && split < 3; split++)
    for (int i = 0; i < N; i++) {
      CHECK_OK(mn_task_sample_label(t, split, (uint64_t)i, x, &length, &label));
      of[(x[0] - 11) * 100 + (x[1] - 1) * 10 + x[2] - 1] |= 1 << split;
    }
  for (int k = 0; k < OF; k++) {
    CHECK(of[k] == 1 || of[k] == 2 || of[k] == 4, "expression %d is in splits %d", k, of[k]);
    for (int split = 0; split < 3; split++) in[split] += of[k] >> split & 1;
  }
  CHECK(in[0] > 280 && in[1] > 20 && in[2] > 20, "%d, %d and %d expressions", in[0], in[1], in[2]);
  mn_task_close(t);
}

static void test_known_numbers(void) {
  static const char *const known[][2] = {
      {"zero\n", "null\n"},
      {"one\n", "eins\n"},
      {"seventeen\n", "siebzehn\n"},
      {"twenty-one\n", "einundzwanzig\n"},
      {"thirty\n", "dreißig\n"},
      {"one hundred\n", "einhundert\n"},
      {"one hundred one\n", "einhunderteins\n"},
      {"five hundred fifty-five\n", "fünfhundertfünfundfünfzig\n"},
      {"one thousand\n", "eintausend\n"},
      {"one thousand one\n", "eintausendeins\n"},
      {"twenty-one thousand twelve\n", "einundzwanzigtausendzwölf\n"},
      {"one hundred one thousand one hundred eleven\n", "einhunderteintausendeinhundertelf\n"},
      {"three hundred five thousand one hundred twenty-one\n", "dreihundertfünftausendeinhunderteinundzwanzig\n"},
      {"nine hundred ninety-nine thousand nine hundred ninety-nine\n", "neunhundertneunundneunzigtausendneunhundertneunundneunzig\n"},
  };
  mn_task *t = open_task("number_words");
  for (size_t i = 0; t && i < sizeof known / sizeof *known; i++) {
    char *got = t->def->oracle_text(t, known[i][0]);
    CHECK(got && !strcmp(got, known[i][1]), "%s is %s", known[i][0], got ? got : "nothing");
    free(got);
  }
  mn_task_close(t);
}

static int by_text(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static void test_numbers_that_are_held_out_were_never_seen(void) {
  enum { N = 3000 };
  static char *seen[N];
  mn_task *t = open_task("number_words");
  mn_task_text s;
  int words = 0, long_ones = 0;
  for (int i = 0; t && i < N; i++) {
    CHECK_OK(mn_task_sample_text(t, MN_SPLIT_TRAIN, (uint64_t)i, &s));
    seen[i] = mn_format("%s", s.prompt);
    char *solved = mn_task_score_text(t, &s, s.answer) == 1 ? t->def->oracle_text(t, s.prompt) : NULL;
    CHECK(solved && mn_task_score_text(t, &s, solved) == 1, "%s: %s", s.prompt, solved ? solved : "its own answer is wrong");
    CHECK(mn_task_score_text(t, &s, "null und nichtig") == 0, "any answer is right");
    words += strstr(s.prompt, "thousand") != NULL;
    long_ones += strlen(s.prompt) > 40;
    free(solved);
    mn_task_text_free(&s);
  }
  CHECK(words > N / 4 && words < 3 * N / 4 && long_ones > N / 20, "%d of %d have thousands, %d are long", words, N, long_ones);
  qsort(seen, N, sizeof *seen, by_text);
  for (int i = 0; t && i < 600; i++) {
    CHECK_OK(mn_task_sample_text(t, 1 + i % 2, (uint64_t)i, &s));
    char *prompt = s.prompt;
    CHECK(!bsearch(&prompt, seen, N, sizeof *seen, by_text), "%s was shown in training", s.prompt);
    mn_task_text_free(&s);
  }
  for (int i = 0; i < N; i++) free(seen[i]);
  mn_task_close(t);
}

static void test_bad_settings_are_refused(void) {
  mn_task *t = NULL;
  CHECK(mn_task_open_set("listops", (const char *const[]){"min_length=500", "max_length=501"}, 2, &t) == MN_ERR_CONFIG, "%s", mn_message());
  int32_t x[128], length, label;
  CHECK_OK(mn_task_open_set("listops_mini", (const char *const[]){"max_depth=1"}, 1, &t));
  CHECK(mn_task_sample_label(t, 0, 0, x, &length, &label) == MN_ERR_CONFIG && strstr(mn_message(), "raise max_depth"), "%s", mn_message());
  CHECK(mn_task_sample(t, 0, 0, x, x) == MN_ERR_ARG && strstr(mn_message(), "one label"), "%s", mn_message());
  mn_task_close(t);
}

static void test_an_oracle_finds_every_span(void) {
  static const struct {
    const char *set[4];
    int64_t longest, shortest;
  } forms[] = {{{"len=40", "needles=3", "longest=4"}, 40, 40},
               {{"len=64", "len_min=32", "needles=4", "longest=3"}, 64, 32},
               {{"len=9", "needles=1", "longest=5"}, 9, 9}};
  for (size_t f = 0; f < sizeof forms / sizeof *forms; f++) {
    int n = 0, begins[64] = {0}, different = 0;
    mn_task *t = NULL;
    while (n < 4 && forms[f].set[n]) n++;
    CHECK_OK(mn_task_open_set("needle_span", forms[f].set, n, &t));
    for (int i = 0; t && i < 500; i++) {
      int32_t x[64], again[64], length, length2, span[2], span2[2], found[2];
      CHECK_OK(mn_task_sample_span(t, i % 3, (uint64_t)i, x, &length, span));
      CHECK_OK(mn_task_sample_span(t, i % 3, (uint64_t)i, again, &length2, span2));
      CHECK(!memcmp(x, again, (size_t)t->seq_len * sizeof *x) && length == length2 && !memcmp(span, span2, sizeof span), "sample %d is one",
            i);
      CHECK(length >= forms[f].shortest && length <= forms[f].longest, "length %d", (int)length);
      for (int64_t k = 0; k < t->seq_len; k++) CHECK(k < length ? x[k] > 0 && x[k] < t->vocab_size : x[k] == 0, "token %d", (int)x[k]);
      CHECK_OK(t->def->oracle_span(t, x, length, found));
      CHECK(found[0] == span[0] && found[1] == span[1] && span[0] >= 3 && span[1] < length - 1, "span %d to %d, the oracle says %d to %d",
            (int)span[0], (int)span[1], (int)found[0], (int)found[1]);
      different += !begins[span[0]]++;
    }
    CHECK(f == 2 || different > 10, "answers stand in %d places", different);
    mn_task_close(t);
  }
}

static void test_a_span_task_says_what_it_is(void) {
  mn_task *t = NULL;
  int32_t x[64], y[64];
  CHECK_OK(mn_task_open_set("needle_span", NULL, 0, &t));
  CHECK(t && mn_task_sample(t, 0, 0, x, y) == MN_ERR_ARG && strstr(mn_message(), "a span"), "%s", mn_message());
  mn_task_close(t);
  CHECK_OK(mn_task_open_set("listops_mini", NULL, 0, &t));
  CHECK(t && mn_task_sample_span(t, 0, 0, x, y, y) == MN_ERR_ARG && strstr(mn_message(), "no span"), "%s", mn_message());
  mn_task_close(t);
  CHECK(mn_task_open_set("needle_span", (const char *[]){"len=20", "needles=4"}, 2, &t) == MN_ERR_CONFIG &&
            strstr(mn_message(), "len >= 29"),
        "%s", mn_message());
  CHECK(mn_task_open_set("needle_span", (const char *[]){"len=20", "len_min=30", "needles=1"}, 3, &t) == MN_ERR_CONFIG &&
            strstr(mn_message(), "len_min = 30"),
        "%s", mn_message());
}

int main(void) {
  RUN(test_an_oracle_solves_listops);
  RUN(test_known_expressions);
  RUN(test_listops_has_the_published_statistics);
  RUN(test_one_drawn_expression_in_twelve_is_kept);
  RUN(test_no_two_splits_share_an_expression);
  RUN(test_known_numbers);
  RUN(test_numbers_that_are_held_out_were_never_seen);
  RUN(test_bad_settings_are_refused);
  RUN(test_an_oracle_finds_every_span);
  RUN(test_a_span_task_says_what_it_is);
  return test_end();
}
