/* What must be true of tasks of text: an oracle answers each from its prompt and scorers know right answers; a prompt holds its answer
 * once, haystacks fill the length, needles lie anywhere; prose and passkeys are as the papers say. */
#include "task/prose.h"
#include "task_helpers.h"

static void test_text_oracles_and_scorers(void) {
  const struct {
    const char *name, *settings;
    int answers;
  } task[] = {{"passkey", "garbage=0", 1},
              {"passkey", "garbage=5000", 1},
              {"passkey", "garbage=1000 depth=100", 1},
              {"niah_single_1", "len=2048", 1},
              {"niah_single_2", "len=6000 @", 1},
              {"niah_single_3", "len=3000 @", 1},
              {"niah_single_w", "len=3000 @ start=random", 1},
              {"niah_single_2", "len=3000 @ depth=50", 1},
              {"niah", "haystack=needle keys=4 len=4000", 1},
              {"niah_multikey_1", "len=3000 @", 1},
              {"niah_multivalue", "len=3000 @", 4},
              {"niah_multiquery", "len=3000 @", 4}};
  for (size_t k = 0; k < sizeof task / sizeof *task; k++) {
    mn_task *t = open_task(task[k].name, task[k].settings);
    int wrong = 0, of_other = 0;
    mn_task_text before = {0};
    for (uint64_t i = 0; i < 40; i++) {
      mn_task_text s;
      CHECK_OK(mn_task_sample_text(t, MN_SPLIT_TEST, i, &s));
      char *out = t->def->oracle_text(t, s.prompt);
      wrong += mn_task_score_text(t, &s, out) != 1.0 || mn_task_score_text(t, &s, s.answer) != 1.0;
      wrong += s.n_answers != task[k].answers || s.answer[0] != ' ';
      if (before.prompt) of_other += mn_task_score_text(t, &before, out) > 0;
      mn_task_text_free(&before);
      before = s;
      free(out);
    }
    mn_task_text_free(&before);
    CHECK(wrong == 0, "%s %s: %d of 40 wrong", task[k].name, task[k].settings, wrong);
    CHECK(of_other <= 3, "%s %s: answers of other samples count %d times", task[k].name, task[k].settings, of_other);
    mn_task_close(t);
  }
}

/* In each prompt an asked key has as many lines as values were asked for, all different, whatever else stands there: other
 * needles, or a text of the user that is made of needles itself. */
static void test_prompts_hold_the_answers_once(void) {
  const char *trap = test_trap_text();
  const struct {
    const char *name, *settings;
    int samples;
  } task[] = {{"niah", "haystack=needle keys=16 values=4 queries=16 value=words len=20000", 30},
              {"niah", "haystack=needle keys=16 values=4 queries=1 key=numbers value=numbers len=12000", 100},
              {"niah", "haystack=needle len=4000", 1000},
              {"niah", "haystack=needle key=uuids value=uuids keys=8 queries=2 len=4000", 300},
              {"niah", "haystack=repeat keys=4 values=16 queries=4 value=words len=12000", 100},
              {"niah_multivalue", "value=words values=16 len=4000 @", 300},
              {"niah_single_2", "len=3000 !", 300},
              {"passkey", "garbage=0", 1000},
              {"passkey", "garbage=3000", 300}};
  for (size_t k = 0; k < sizeof task / sizeof *task; k++) {
    char settings[600];
    const char *mark = strchr(task[k].settings, '!');
    snprintf(settings, sizeof settings, "%.*s%s%s", mark ? (int)(mark - task[k].settings) : 500, task[k].settings, mark ? "text=" : "",
             mark ? trap : "");
    mn_task *t = open_task(task[k].name, settings);
    int wrong = 0;
    for (int i = 0; i < task[k].samples; i++) {
      mn_task_text s;
      mn_status status = mn_task_sample_text(t, MN_SPLIT_TEST, (uint64_t)i, &s);
      CHECK(status == MN_OK, "%s %s: %s", task[k].name, settings, mn_message());
      if (status != MN_OK) break;
      char *read = t->def->oracle_text(t, s.prompt);
      int found = 1;
      for (const char *p = read; (p = strstr(p, ", ")); p++) found++;
      wrong += found != s.n_answers || strcmp(read, s.answer) * (s.n_answers == 1) != 0 || mn_task_score_text(t, &s, read) != 1.0;
      for (int a = 0; a < s.n_answers; a++)
        for (int b = 0; b < s.n_answers; b++) wrong += a != b && strstr(s.answers[a], s.answers[b]) != NULL;
      free(read);
      mn_task_text_free(&s);
    }
    CHECK(wrong == 0, "%s %s: %d faults in %d prompts", task[k].name, settings, wrong, task[k].samples);
    mn_task_close(t);
  }
}

static size_t count_words(void *ctx, const char *text, size_t n) {
  (void)ctx;
  size_t words = 0;
  for (size_t i = 0; i < n; i++) words += text[i] == ' ' || text[i] == '\n';
  return words + 1;
}

static void test_haystacks_fill_the_length(void) {
  const struct {
    const char *name, *settings;
    int step; /* an upper bound of one increment, in tokens of the counter */
  } task[] = {{"niah_single_1", "len=1000", 5 * 19},
              {"niah_single_1", "len=5000", 25 * 19},
              {"niah_single_2", "len=1000 @", 25},
              {"niah_single_2", "len=6000 @", 500}};
  for (size_t k = 0; k < sizeof task / sizeof *task; k++) {
    mn_task *t = open_task(task[k].name, task[k].settings);
    mn_task_count_with(t, count_words, NULL);
    int len = atoi(strchr(task[k].settings, '=') + 1);
    for (uint64_t i = 0; i < 20; i++) {
      mn_task_text s;
      CHECK_OK(mn_task_sample_text(t, MN_SPLIT_TEST, i, &s));
      int n = (int)count_words(NULL, s.prompt, strlen(s.prompt)) + 128;
      CHECK(n <= len && n > len - task[k].step - 1, "%s %s: %d tokens", task[k].name, task[k].settings, n);
      mn_task_text_free(&s);
    }
    mn_task_close(t);
  }
}

static void test_needle_depth_is_uniform(void) {
  mn_task *t = open_task("niah_single_2", "len=4095 new_tokens=5 @");
  enum { N = 3000 };
  int depth[40] = {0}, unknown = 0;
  for (uint64_t i = 0; i < N; i++) {
    mn_task_text s;
    CHECK(mn_task_sample_text(t, MN_SPLIT_TRAIN, i, &s) == MN_OK, "%s", mn_message());
    const char *needle = strstr(s.prompt, "One of the special magic"), *last = needle, *p = needle;
    int before = 0, sentences = 0, hit = -1;
    for (const char *q = s.prompt; (q = strstr(q, " plain words")); q++) {
      sentences++;
      before += q < p;
    }
    for (int k = 0; k < 40 && last; k++) /* position = floor(sentences * depth / 100) */
      if ((int)((double)sentences * floor(100.0 * k / 39 + 0.5) / 100) == before) hit = k;
    if (hit < 0) unknown++;
    else depth[hit]++;
    mn_task_text_free(&s);
  }
  CHECK(unknown == 0, "%d needles stand at no depth of the 40", unknown);
  CHECK(chi2_uniform(depth, 40, N) < chi2_limit(39), "depths: chi2 %g", chi2_uniform(depth, 40, N));
  mn_task_close(t);

  t = open_task("passkey", "garbage=1999");
  int prefix[20] = {0};
  for (uint64_t i = 0; i < N; i++) {
    mn_task_text s;
    CHECK(mn_task_sample_text(t, MN_SPLIT_TRAIN, i, &s) == MN_OK, "%s", mn_message());
    long at = strstr(s.prompt, "\nThe pass key is ") - strchr(s.prompt, '\n') - 1;
    prefix[at / 100]++;
    mn_task_text_free(&s);
  }
  CHECK(chi2_uniform(prefix, 20, N) < chi2_limit(19), "passkey prefix: chi2 %g", chi2_uniform(prefix, 20, N));
  mn_task_close(t);
}

static void test_passkey_reads_like_the_paper(void) {
  mn_task *t = open_task("passkey", "garbage=100");
  mn_task_text s;
  CHECK_OK(mn_task_sample_text(t, MN_SPLIT_TEST, 3, &s));
  int lines = 1;
  for (const char *p = s.prompt; *p; p++) lines += *p == '\n';
  CHECK(lines == 5, "%d lines", lines);
  CHECK(strstr(s.prompt, "What is the pass key? The pass key is") != NULL, "no question");
  CHECK(mn_task_score_text(t, &s, " no digits") == 0, "an empty answer scores");
  char longer[64];
  snprintf(longer, sizeof longer, " %s0", s.answers[0]);
  CHECK(mn_task_score_text(t, &s, longer) == 0, "a longer number scores");
  mn_task_text_free(&s);
  mn_task_close(t);
}

/* A row of the prose is Dirichlet(0.1) over 320 ids: E[sum p^2] = (alpha + 1) / (320 alpha + 1) = 1/30. */
static void test_prose_has_the_stated_statistics(void) {
  mn_rng rng;
  mn_rng_seed(&rng, 5);
  double repeat = 0;
  int out_of_range = 0;
  enum { ROWS = 4000, PAIRS = 10 };
  for (int row = 0; row < ROWS; row++) {
    int32_t a = MN_ID_PROSE + (int32_t)mn_rng_below(&rng, MN_PROSE), b = MN_ID_PROSE + (int32_t)mn_rng_below(&rng, MN_PROSE);
    for (int i = 0; i < PAIRS; i++) {
      int32_t x = mn_prose_next(&rng, a, b), y = mn_prose_next(&rng, a, b);
      repeat += x == y;
      out_of_range += x < MN_ID_PROSE || x >= MN_ID_PROSE + MN_PROSE;
    }
  }
  double p = repeat / (ROWS * PAIRS), want = 1.1 / 33;
  CHECK(out_of_range == 0, "%d ids out of range", out_of_range);
  CHECK(fabs(p - want) < 0.004, "two draws of a row agree with probability %g, not %g", p, want);
}

int main(void) {
  write_essay();
  RUN(test_text_oracles_and_scorers);
  RUN(test_prompts_hold_the_answers_once);
  RUN(test_haystacks_fill_the_length);
  RUN(test_needle_depth_is_uniform);
  RUN(test_passkey_reads_like_the_paper);
  RUN(test_prose_has_the_stated_statistics);
  return test_end();
}
