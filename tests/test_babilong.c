/* test_babilong.c - stories of facts in filler: what is asked follows from the sentences, and a text is as long as was asked for. */
#include "eval/task_eval.h"
#include "eval/task_eval.h"
#include "train_helpers.h"

#include <ctype.h>
#include <string.h>

static const char *const kinds[] = {"qa1", "qa2", "qa3", "qa4", "qa5"};

static mn_task *open_kind(const char *kind, const char *more) {
  char set[64];
  mn_task *t = NULL;
  const char *all[2] = {set, more};
  snprintf(set, sizeof set, "kind=%s", kind);
  CHECK_OK(mn_task_open_set("babilong", all, more ? 2 : 1, &t));
  return t;
}

/* The reader of sentences, who knows nothing of the world, answers as the world does; and another sample's answer is right as often as
 * chance has it: 1/6 of places, at most 1/3 of what is given. */
static void what_is_asked_follows_from_the_sentences(void) {
  for (int k = 0; k < 5; k++) {
    mn_task *t = open_kind(kinds[k], k % 2 ? "len=500" : NULL);
    mn_task_text before = {0};
    int wrong = 0, of_other = 0;
    enum { SAMPLES = 2000 };
    for (int i = 0; i < SAMPLES; i++) {
      mn_task_text s;
      CHECK(mn_task_sample_text(t, MN_SPLIT_TEST, (uint64_t)i, &s) == MN_OK, "%s", mn_message());
      char *read = t->def->oracle_text(t, s.prompt);
      if (strcmp(read, s.answer) && !wrong++) CHECK(false, "%s: '%s' and not '%s' of: %s", kinds[k], read, s.answer, s.prompt);
      wrong += mn_task_score_text(t, &s, read) != 1.0;
      if (before.prompt) of_other += mn_task_score_text(t, &before, read) > 0;
      mn_task_text_free(&before);
      before = s;
      free(read);
    }
    mn_task_text_free(&before);
    CHECK(wrong == 0, "%s: %d wrong", kinds[k], wrong);
    const double chance = (double)of_other / SAMPLES;
    CHECK(k == 4 ? chance < 0.2 && chance > 0.05 : fabs(chance - 1.0 / 6) < 0.04, "%s: %.3f by chance", kinds[k], chance);
    mn_task_close(t);
  }
}

/* The facts that are asked for are needed: without the sentence that says the answer last, the reader says something else. */
static void without_its_fact_a_question_is_open(void) {
  mn_task *t = open_kind("qa1", NULL);
  int changed = 0;
  enum { SAMPLES = 200 };
  for (int i = 0; i < SAMPLES; i++) {
    mn_task_text s;
    char who[16] = "";
    CHECK_OK(mn_task_sample_text(t, MN_SPLIT_TRAIN, (uint64_t)i, &s));
    char *question = strstr(s.prompt, "Where is "), *last = NULL;
    CHECK(question && sscanf(question + 9, "%15s", who) == 1, "%s", s.prompt);
    for (char *p = s.prompt; (p = strstr(p, who)) && p < question; p++) last = p;
    CHECK(last && last < question, "%s", s.prompt);
    if (last) *last = '-';
    char *read = t->def->oracle_text(t, s.prompt);
    changed += strcmp(read, s.answer) != 0;
    free(read);
    mn_task_text_free(&s);
  }
  CHECK(changed == SAMPLES, "%d of %d", changed, SAMPLES); /* a person never moves to where they are */
  mn_task_close(t);
}

static size_t count_words(void *ctx, const char *text, size_t n) {
  (void)ctx;
  size_t words = 1;
  for (size_t i = 0; i < n; i++) words += text[i] == ' ' || text[i] == '\n';
  return words;
}

/* As long as asked for: never longer, and shorter by less than a word and its full stop (in words: not at all). */
static void a_text_has_the_length_that_was_asked_for(void) {
  static const int lens[] = {700, 1000, 4000, 20000};
  char file[300], set[360], text[6000] = "";
  for (int i = 0; i < 200; i++) sprintf(text + strlen(text), "A sentence %d of the user's. ", i);
  snprintf(file, sizeof file, "%s", test_path("filler.txt"));
  CHECK_OK(mn_file_write(file, text, strlen(text)));
  snprintf(set, sizeof set, "texts=['%s']", file);
  for (int u = 0; u < 2; u++)
    for (int words = 0; words < 2; words++)
      for (int k = 0; k < 4; k++) {
        char len[32];
        mn_task *t = NULL;
        snprintf(len, sizeof len, "len=%d", lens[k]);
        CHECK_OK(mn_task_open_set("babilong", (const char *const[]){"kind=mix", "facts=10", len, set}, 3 + u, &t));
        if (words) mn_task_count_with(t, count_words, NULL);
        for (uint64_t i = 0; i < (lens[k] > 4000 ? 2u : 20u); i++) {
          mn_task_text s;
          CHECK_OK(mn_task_sample_text(t, MN_SPLIT_TEST, i, &s));
          const int64_t n = (int64_t)t->count_tokens(t->count_ctx, s.prompt, strlen(s.prompt)) + t->new_tokens;
          const int64_t slack = lens[k] < 4096 ? words ? 0 : 16 : 50 * (words ? 1 : 16);
          CHECK(n <= lens[k] && n >= lens[k] - slack, "len %d: %lld", lens[k], (long long)n);
          CHECK(!!strstr(s.prompt, "of the user's") == (u == 1), "whose filler");
          mn_task_text_free(&s);
        }
        mn_task_close(t);
      }
}

/* Where the first fact stands, as a part of the prompt. */
static double first_fact(const mn_task_text *s) {
  static const char *const names[] = {"Tilda", "Oskar", "Marek", "Ines"};
  const char *first = NULL, *question = strstr(s->prompt, "\nQuestion:");
  for (int i = 0; i < 4; i++) {
    const char *p = strstr(s->prompt, names[i]);
    if (p && (!first || p < first)) first = p;
  }
  return (double)(first - s->prompt) / (double)(question - s->prompt);
}

static void depth_says_where_the_facts_stand(void) {
  static const int depths[] = {0, 50, 100};
  for (int d = 0; d < 3; d++) {
    char set[32];
    mn_task *t = NULL;
    snprintf(set, sizeof set, "depth=%d", depths[d]);
    CHECK_OK(mn_task_open_set("babilong", (const char *const[]){"facts=3", "len=8000", set}, 3, &t));
    for (uint64_t i = 0; i < 5; i++) {
      mn_task_text s;
      CHECK_OK(mn_task_sample_text(t, MN_SPLIT_TEST, i, &s));
      CHECK(fabs(first_fact(&s) - depths[d] / 100.0) < 0.03, "at %.3f and not %d %%", first_fact(&s), depths[d]);
      mn_task_text_free(&s);
    }
    mn_task_close(t);
  }
}

/* A sample is a function of its number: the filler's length does not change the story, and other splits have others. */
static void a_story_stays_when_its_filler_grows(void) {
  mn_task *near = open_kind("qa2", NULL), *far = open_kind("qa2", "len=3000");
  int other = 0;
  for (uint64_t i = 0; i < 50; i++) {
    mn_task_text a, b, c;
    CHECK_OK(mn_task_sample_text(near, MN_SPLIT_TEST, i, &a));
    CHECK_OK(mn_task_sample_text(far, MN_SPLIT_TEST, i, &b));
    CHECK_OK(mn_task_sample_text(near, MN_SPLIT_TRAIN, i, &c));
    CHECK(!strcmp(strstr(a.prompt, "\nQuestion"), strstr(b.prompt, "\nQuestion")) && !strcmp(a.answer, b.answer), "sample %d", (int)i);
    other += strcmp(a.prompt, c.prompt) != 0;
    mn_task_text_free(&a);
    mn_task_text_free(&b);
    mn_task_text_free(&c);
  }
  CHECK(other == 50, "%d", other);
  mn_task_close(near);
  mn_task_close(far);
}

/* Mistakes are said with their remedy. */
static void what_cannot_be_is_refused(void) {
  mn_task *t = NULL;
  mn_task_text s;
  CHECK(mn_task_open_set("babilong", (const char *const[]){"kind=qa6"}, 1, &t) == MN_ERR_CONFIG && strstr(mn_message(), "qa5"), "%s",
        mn_message());
  CHECK(mn_task_open_set("babilong", (const char *const[]){"texts=[/no/such/file]"}, 1, &t) != MN_OK &&
            strstr(mn_message(), "/no/such/file"),
        "%s", mn_message());
  CHECK_OK(mn_task_open_set("babilong", (const char *const[]){"len=40"}, 1, &t));
  CHECK(mn_task_sample_text(t, 2, 0, &s) == MN_ERR_CONFIG && strstr(mn_message(), "raise len"), "%s", mn_message());
  mn_task_close(t);
  CHECK_OK(mn_task_open_set("babilong", (const char *const[]){"kind=qa3", "facts=2"}, 2, &t));
  CHECK(mn_task_sample_text(t, 2, 0, &s) == MN_ERR_CONFIG && strstr(mn_message(), "raise facts"), "%s", mn_message());
  mn_task_close(t);
}

/* A reader that sees the last `memory` bytes of a prompt. */
typedef struct reader {
  const mn_task *task;
  size_t memory;
} reader;
static mn_status answer(void *ctx, const mn_task_text *s, int64_t new_tokens, mn_text *out, int64_t *prompt_tokens) {
  const reader *r = ctx;
  const size_t n = strlen(s->prompt);
  (void)new_tokens;
  *prompt_tokens = (int64_t)n;
  char *said = r->task->def->oracle_text(r->task, s->prompt + (n > r->memory ? n - r->memory : 0));
  mn_text_add(out, said);
  free(said);
  return MN_OK;
}

/* By length: who remembers everything is right at every length, who remembers a little is right of short stories alone. */
static void measured_by_length_a_memory_shows_its_end(void) {
  mn_arena *arena = mn_arena_new();
  mn_task *t = open_kind("qa1", NULL);
  const mn_value *facts = mn_value_int(arena, 4), *settings = mn_value_map(arena, 1, (const char *const[]){"facts"}, &facts);
  double score[2][3];
  for (int k = 0; k < 2; k++) {
    mn_grid g;
    mn_responder who = {&(reader){t, k ? 300 : (size_t)-1 / 2}, answer, NULL};
    mn_grid_config c = {
        .each = {.examples = 50, .split = MN_SPLIT_TEST}, .values = (const char *const[]){"300", "1200", "4800"}, .n_values = 3};
    CHECK_OK(mn_eval_grid("babilong", settings, &who, &c, &g));
    for (int i = 0; i < 3; i++) score[k][i] = g.cells[i].score;
    mn_grid_free(&g);
  }
  for (int i = 0; i < 3; i++) CHECK(score[0][i] == 1, "%.3f at the %dth length", score[0][i], i);
  CHECK(score[1][0] == 1 && score[1][1] < 0.6 && score[1][2] < 0.4, "%.3f %.3f %.3f", score[1][0], score[1][1], score[1][2]);
  mn_task_close(t);
  mn_arena_free(arena);
}

int main(void) {
  test_setup("babilong");
  setbuf(stdout, NULL);
  RUN(what_is_asked_follows_from_the_sentences);
  RUN(without_its_fact_a_question_is_open);
  RUN(a_text_has_the_length_that_was_asked_for);
  RUN(depth_says_where_the_facts_stand);
  RUN(a_story_stays_when_its_filler_grows);
  RUN(what_cannot_be_is_refused);
  RUN(measured_by_length_a_memory_shows_its_end);
  return test_end();
}
