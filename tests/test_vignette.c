/* What must be true of vignettes: lists are what they say they are, every noun stands at every place, no story holds a noun, tokens spell their
 * nouns in every tokenizer, the lists stand as far apart as was asked for; and prose in which spans come again says as much again as it should. */
#include <ctype.h>

#include "list_tokenizers.h"
#include "task/recurring.h"
#include "task/task.h"

enum { N = MN_VIGNETTE_NOUNS };

static void every_list_is_what_it_says(const mn_tokenizer *tok, int kinds) {
  mn_vignettes *v = NULL;
  CHECK_OK(mn_vignettes_open(tok, 1, &v));
  for (int kind = 0; kind < kinds; kind++)
    for (int length = 3; length <= N; length += 7) {
      int bad = 0, at[N][MN_VIGNETTES] = {{0}};
      for (int i = 0; i < MN_VIGNETTES; i++) {
        int32_t a[N], b[N], of[N];
        mn_vignettes_lists(v, &(mn_vignette_cell){.kind = kind, .second = MN_SECOND_REPEAT, .length = length}, i, a, b);
        bad += memcmp(a, b, (size_t)length * sizeof *a) != 0;
        mn_vignettes_lists(v, &(mn_vignette_cell){.kind = kind, .second = MN_SECOND_PERMUTED, .length = length}, i, of, b);
        bad += memcmp(a, of, (size_t)length * sizeof *a) != 0; /* the first list is the same whatever the second is */
        bad += memcmp(a, b, (size_t)length * sizeof *a) == 0;
        int shared = 0;
        for (int k = 0; k < length * length; k++) shared += a[k / length] == b[k % length];
        bad += shared != length;
        mn_vignettes_lists(v, &(mn_vignette_cell){.kind = kind, .second = MN_SECOND_NOVEL, .length = length}, i, of, b);
        for (int k = 0; k < length * length; k++) bad += a[k / length] == b[k % length];
        for (int k = 0; k < length * length; k++) bad += k / length != k % length && a[k / length] == a[k % length];
        if (length == N)
          for (int k = 0; k < N; k++) at[k][a[k]]++;
      }
      CHECK(bad == 0, "kind %d, length %d: %d lists", kind, length, bad);
      for (int k = 0; length == N && k < N; k++) /* each noun as often at each place: once in the ten rotations of its group */
        for (int noun = 0; noun < MN_VIGNETTES; noun++) bad += at[k][noun] != at[0][noun];
      CHECK(bad == 0, "kind %d: nouns stand more often at some places", kind);
    }
  mn_vignettes_close(v);
}

static void lists_keep_their_promises(void) {
  mn_tokenizer *tok = bytes();
  every_list_is_what_it_says(tok, 2);
  every_list_is_what_it_says(NULL, 1);
  mn_tokenizer_free(tok);
}

static bool is_noun(const char *word, size_t n) {
  for (int i = 0; i < MN_VIGNETTES; i++)
    if (strlen(mn_vignette_noun(i)) == n && !strncmp(mn_vignette_noun(i), word, n)) return true;
  return false;
}

/* All nouns differ, and none stands in a story. */
static void stories_hold_no_noun_and_as_many_words_as_asked_for(void) {
  int same = 0;
  for (int i = 0; i < MN_VIGNETTES; i++)
    for (int k = 0; k < i; k++) same += !strcmp(mn_vignette_noun(i), mn_vignette_noun(k));
  CHECK(same == 0, "%d nouns are there twice", same);
  for (int sea = 0; sea < 2; sea++)
    for (size_t words = 1; words <= 2000; words += words < 40 ? 1 : 653) {
      mn_text story = {0}, other = {0};
      mn_rng rng, order;
      mn_rng_seed(&rng, 5);
      mn_rng_seed(&order, 6);
      mn_vignette_story(&rng, sea, words, &story);
      size_t n = 0;
      for (const char *w = story.data; *w; n++) {
        const size_t len = strspn(w, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ");
        CHECK(len && !is_noun(w, len), "'%.*s' in a story", (int)len, w);
        w += len;
        w += strspn(w, ",. ");
      }
      CHECK(n == words && story.data[story.len - 1] == '.', "%zu of %zu words: %s", n, words, story.data);
      CHECK_OK(mn_vignette_scramble(&order, story.data, &other));
      int counts[256] = {0};
      for (size_t i = 0; i < story.len; i++)
        if (story.data[i] != ',') counts[tolower((unsigned char)story.data[i])]++;
      for (size_t i = 0; i < other.len; i++) counts[tolower((unsigned char)other.data[i])]--;
      int off = 0;
      for (int i = 0; i < 256; i++) off += counts[i] != 0;
      CHECK(off == 0 && isupper((unsigned char)*other.data), "scrambled: %s", other.data);
      mn_text_free(&story);
      mn_text_free(&other);
    }
}

/* Tokens of a noun spell it, and the lists stand as far apart as was asked for. */
static void tokens_spell_their_nouns(void) {
  mn_tokenizer *toks[2] = {bytes(), pairs()};
  for (int k = 0; k < 2; k++) {
    mn_vignettes *v = NULL;
    mn_vignette made = {0};
    CHECK_OK(mn_vignettes_open(toks[k], 3, &v));
    for (int context = 0; context < 4; context++)
      for (int64_t delay = 40; delay < 700; delay *= 4) {
        const mn_vignette_cell cell = {
            .kind = MN_LISTS_SEMANTIC, .second = MN_SECOND_PERMUTED, .context = context, .length = 10, .delay = delay};
        int32_t list[2][N];
        mn_vignettes_lists(v, &cell, 17, list[0], list[1]);
        CHECK_OK(mn_vignettes_build(v, &cell, 17, &made));
        for (int noun = 0; noun < 2 * N; noun++) {
          mn_text spelt = {0};
          for (int64_t t = 0; t < made.n; t++) {
            size_t n;
            const char *token = mn_tokenizer_token(toks[k], made.ids[t], &n);
            if (made.word[t] == noun) mn_text_add_bytes(&spelt, token, n);
          }
          const char *want = mn_vignette_noun(list[noun / N][noun % N]), *got = spelt.data ? spelt.data : "";
          CHECK(!strcmp(got + (*got == ' '), want), "'%s' for '%s'", got, want);
          mn_text_free(&spelt);
        }
        const int64_t off = made.gap > delay ? made.gap - delay : delay - made.gap;
        CHECK(context == MN_CONTEXT_SHORT ? made.gap < 20 : off <= (k ? 4 : 8), "delay %lld became %lld", (long long)delay,
              (long long)made.gap);
      }
    mn_vignette_free(&made);
    mn_vignettes_close(v);
    mn_tokenizer_free(toks[k]);
  }
}

/* Each control changes what it says, and nouns, order and (nearly) the delay stay. */
static void controls_change_the_words_around_the_lists(void) {
  static const struct {
    const char *there, *not_there;
  } want[] = {{"One morning Clara wrote down a list of words: ", "Peter"},
              {"She read it again: ", "One morning Clara wrote down a list of words"},
              {"again, ", ":"},
              {"One morning Peter wrote", " she "},
              {"One morning Clara wrote down a list of words: ", "She read it again"}};
  mn_tokenizer *tok = bytes();
  mn_vignettes *v = NULL;
  mn_vignette made = {0};
  CHECK_OK(mn_vignettes_open(tok, 3, &v));
  for (int control = 0; control < 5; control++)
    for (int64_t delay = 0; delay <= 900; delay += 900) {
      CHECK_OK(mn_vignettes_build(v, &(mn_vignette_cell){.control = control, .length = 10, .delay = delay}, 40, &made));
      CHECK(strstr(made.text.data, want[control].there) && !strstr(made.text.data, want[control].not_there), "%s: %s",
            mn_vignette_controls[control], made.text.data);
      CHECK(delay ? llabs(made.gap - delay) <= 8 : made.gap < 30, "%lld", (long long)made.gap);
      int nouns = 0;
      for (int64_t t = 0; t < made.n; t++) nouns += made.word[t] >= 0 && made.word[t] != made.word[t - 1];
      CHECK(nouns == 20, "%d nouns", nouns);
    }
  CHECK(!strstr(made.text.data, "Peter"), "a control stays");
  mn_vignette_free(&made);
  mn_vignettes_close(v);
  mn_tokenizer_free(tok);
}

static void prose_of_ids_is_as_long_as_asked_for_and_holds_no_noun(void) {
  mn_vignettes *v = NULL;
  mn_vignette a = {0}, b = {0};
  CHECK_OK(mn_vignettes_open(NULL, 1, &v));
  for (int64_t delay = 0; delay < 300; delay += 97) {
    CHECK_OK(mn_vignettes_build(v, &(mn_vignette_cell){.second = MN_SECOND_REPEAT, .length = 7, .delay = delay}, 229, &a));
    CHECK_OK(mn_vignettes_build(v, &(mn_vignette_cell){.second = MN_SECOND_NOVEL, .length = 7, .delay = delay}, 229, &b));
    CHECK(a.gap == delay && a.n == 12 + 14 + delay && b.n == a.n, "%lld, %lld", (long long)a.gap, (long long)a.n);
    CHECK(!memcmp(a.ids, b.ids, (size_t)(a.n - 7) * sizeof *a.ids), "all before the second list is the same");
    for (int64_t t = 0; t < a.n; t++) CHECK(mn_recurring_is_noun(a.ids[t]) == (a.word[t] >= 0), "token %lld", (long long)t);
  }
  mn_vignette_free(&a);
  mn_vignette_free(&b);
  mn_vignettes_close(v);
}

/* About 30 % of the task's tokens lie in a copy, and what comes next is the target. */
static void the_language_says_things_again(void) {
  mn_task *task = NULL;
  CHECK_OK(mn_task_open("recurring", NULL, &task));
  int32_t input[256], target[256];
  int64_t again = 0, all = 0;
  for (uint64_t i = 0; i < 200; i++) {
    CHECK_OK(mn_task_sample(task, MN_SPLIT_TRAIN, i, input, target));
    for (int t = 0; t < 255; t++) CHECK(target[t] == input[t + 1], "target %d", t);
    for (int t = 20; t < 253; t++) { /* four tokens that were there before: chance alone does that seldom */
      bool there = false;
      for (int s = 0; s < t && !there; s++) there = s + 3 < 256 && !memcmp(input + s, input + t, 4 * sizeof *input);
      again += there;
      all++;
    }
  }
  const double part = (double)again / (double)all;
  CHECK(part > 0.08 && part < 0.30, "%.3f of the places begin four tokens that were there before", part);
  mn_task_close(task);
  const char *const bad[] = {"span_min=9", "lag_min=300 lag_max=400", "lag_min=201"};
  for (int i = 0; i < 3; i++) {
    char text[64];
    snprintf(text, sizeof text, "%s", bad[i]);
    const char *set[2] = {text, NULL};
    char *space = strchr(text, ' ');
    if (space) *space = 0, set[1] = space + 1;
    CHECK(mn_task_open_set("recurring", set, space ? 2 : 1, &task) == MN_ERR_CONFIG, "%s is taken", bad[i]);
  }
}

int main(void) {
  setbuf(stdout, NULL);
  RUN(lists_keep_their_promises);
  RUN(stories_hold_no_noun_and_as_many_words_as_asked_for);
  RUN(tokens_spell_their_nouns);
  RUN(controls_change_the_words_around_the_lists);
  RUN(prose_of_ids_is_as_long_as_asked_for_and_holds_no_noun);
  RUN(the_language_says_things_again);
  return test_end();
}
