/* What must be true of the tasks: the random numbers are the published ones; a sample is a function of (task, split,
 * seed, index) alone; an oracle solves every task from its input and is at chance on shuffled answers; no leak between
 * splits; the laws of gaps, keys and depths are the stated ones; lengths and masks are exact. */
#include "task/needle_stream.h"
#include "task/prose.h"
#include "task_helpers.h"

static void test_random_numbers_are_the_published_ones(void) {
  mn_rng r = {{1, 2, 3, 4}}; /* first outputs of the authors' xoshiro256** from state 1, 2, 3, 4 */
  const uint64_t want[] = {11520, 0, 1509978240, 1215971899390074240};
  for (int i = 0; i < 4; i++) {
    uint64_t x = mn_rng_next(&r);
    CHECK(x == want[i], "output %d is %llu", i, (unsigned long long)x);
  }
  mn_rng_seed(&r, 1234567); /* SplitMix64 from 1234567 */
  const uint64_t split[] = {6457827717110365317u, 3203168211198807973u, 9817491932198370423u, 4593380528125082431u};
  for (int i = 0; i < 4; i++) CHECK(r.s[i] == split[i], "word %d is %llu", i, (unsigned long long)r.s[i]);
  int count[10] = {0};
  for (int i = 0; i < 100000; i++) count[mn_rng_below(&r, 10)]++;
  CHECK(chi2_uniform(count, 10, 100000) < chi2_limit(9), "bounded integers are not uniform");
}

/* One sample made by an independent script (Python, from the written rules) with task mqar, split 0, seed 1, index 0.
 */
static void test_mqar_agrees_with_an_independent_generator(void) {
  mn_task *t = open_task("mqar", "vocab_size=12 len=16 kv=2");
  int32_t in[16], target[16];
  const int32_t want_in[16] = {3, 9, 2, 11, 2, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0},
                want_target[16] = {-100, -100, -100, -100, 11, -100, 9, -100, -100, -100, -100, -100, -100, -100, -100, -100};
  CHECK_OK(mn_task_sample(t, MN_SPLIT_TRAIN, 0, in, target));
  for (int i = 0; i < 16; i++) CHECK(in[i] == want_in[i] && target[i] == want_target[i], "at %d: %d %d", i, in[i], target[i]);
  mn_task_close(t);
}

/* With kv_min every n from it to kv is drawn, the oracle still answers, and what kv_min cannot go with is refused. */
static void test_mqar_draws_its_number_of_pairs(void) {
  mn_task *t = open_task("mqar", "vocab_size=40 len=48 kv=8 kv_min=3 power=1");
  int32_t in[48], target[48], guess[48];
  int of[9] = {0}, wrong = 0;
  for (uint64_t i = 0; i < 1200; i++) {
    int n = 0;
    CHECK_OK(mn_task_sample(t, MN_SPLIT_TEST, i, in, target));
    CHECK_OK(mn_task_oracle(t, in, guess));
    for (int k = 0; k < 48; k++) n += target[k] != MN_IGNORE, wrong += target[k] != MN_IGNORE && guess[k] != target[k];
    if (n >= 0 && n <= 8) of[n]++;
  }
  for (int n = 0; n <= 8; n++) CHECK(n < 3 ? of[n] == 0 : of[n] > 140 && of[n] < 260, "%d samples of %d pairs", of[n], n);
  CHECK(wrong == 0, "%d wrong answers", wrong);
  mn_task_close(t);
  CHECK(mn_task_open_set("mqar", (const char *const[]){"kv_min=5"}, 1, &t) == MN_ERR_CONFIG && strstr(mn_message(), "kv_min"), "%s",
        mn_message());
  CHECK(mn_task_open_set("mqar", (const char *const[]){"kv_min=2", "fill=random"}, 2, &t) == MN_ERR_CONFIG && strstr(mn_message(), "fill"),
        "%s", mn_message());
}

/* Every token that is asked for was said before, where the task says so; of others it says nothing. */
static int wrong_evidence(const mn_task *t, const int32_t *in, const int32_t *target, int32_t *at) {
  int wrong = 0;
  if (!t->def->evidence) return 0;
  t->def->evidence(t, in, at);
  for (int64_t k = 0; k < t->seq_len; k++)
    wrong += target[k] == MN_IGNORE ? at[k] != -1 : at[k] < 0 || at[k] >= k || in[at[k]] != target[k];
  return wrong;
}

/* With scatter pairs lie anywhere among the blanks of the context, at even places, and questions behind it. */
static void test_mqar_scatters_its_pairs(void) {
  enum { T = 64, CONTEXT = 48, PAIRS = 4 };
  mn_task *t = open_task("mqar", "vocab_size=40 len=64 kv=4 scatter=48 power=1");
  int32_t in[T], target[T], guess[T];
  int at[CONTEXT / 2] = {0}, wrong = 0;
  for (uint64_t i = 0; i < 1200; i++) {
    int pairs = 0, asked = 0;
    CHECK_OK(mn_task_sample(t, MN_SPLIT_TEST, i, in, target));
    CHECK_OK(mn_task_oracle(t, in, guess));
    for (int k = 0; k < CONTEXT; k += 2) {
      CHECK(!in[k] == !in[k + 1] && target[k] == MN_IGNORE && target[k + 1] == MN_IGNORE, "place %d holds half a pair", k);
      pairs += in[k] != 0, at[k / 2] += in[k] != 0;
    }
    for (int k = CONTEXT; k < T; k++) asked += target[k] != MN_IGNORE, wrong += target[k] != MN_IGNORE && guess[k] != target[k];
    CHECK(pairs == PAIRS && asked == PAIRS, "%d pairs, %d questions", pairs, asked);
  }
  for (int k = 0; k < CONTEXT / 2; k++) CHECK(at[k] > 140 && at[k] < 260, "place %d holds a pair %d times of 200", k, at[k]);
  CHECK(wrong == 0, "%d wrong answers", wrong);
  mn_task_close(t);
  static const char *const bad[][2] = {{"scatter=49", "even"}, {"scatter=6", "hold"}};
  for (int i = 0; i < 2; i++)
    CHECK(mn_task_open_set("mqar", (const char *const[]){bad[i][0]}, 1, &t) == MN_ERR_CONFIG && strstr(mn_message(), bad[i][1]), "%s: %s",
          bad[i][0], mn_message());
  CHECK(mn_task_open_set("mqar", (const char *const[]){"scatter=40", "fill=random"}, 2, &t) == MN_ERR_CONFIG &&
            strstr(mn_message(), "fill"),
        "%s", mn_message());
}

/* Oracle right on every sample; at chance when the targets of the example are rotated among its questions. */
static void check_token_task(const char *name, const char *settings, int samples, int asked, int64_t min_len) {
  mn_task *t = open_task(name, settings);
  if (!t) return;
  size_t T = (size_t)t->seq_len;
  int32_t *in = malloc(T * 4), *target = malloc(T * 4), *guess = malloc(T * 4);
  mn_task_score score = {0};
  bool in_range = true, masks = true;
  int wrong = 0;
  for (int i = 0; i < samples; i++) {
    CHECK(mn_task_sample(t, MN_SPLIT_TEST, (uint64_t)i, in, target) == MN_OK, "%s", mn_message());
    wrong += wrong_evidence(t, in, target, guess);
    mn_task_oracle(t, in, guess);
    mn_task_score_add(&score, target, guess, (int64_t)T);
    int n = 0;
    int64_t last = 0;
    for (size_t k = 0; k < T; k++) {
      in_range &= in[k] >= 0 && in[k] < t->vocab_size && (target[k] == MN_IGNORE || (target[k] >= 0 && target[k] < t->vocab_size));
      n += target[k] != MN_IGNORE;
      if (in[k]) last = (int64_t)k;
    }
    masks &= asked ? n == asked : n > 0;
    masks &= !min_len || last + 1 >= min_len;
  }
  CHECK(mn_task_seq_acc(&score) == 1.0 && score.examples == samples, "%s %s: oracle scores %g", name, settings, mn_task_seq_acc(&score));
  CHECK(wrong == 0, "%s %s: %d answers do not stand where the task says", name, settings, wrong);
  CHECK(in_range, "%s %s: ids out of range", name, settings);
  CHECK(masks, "%s %s: wrong number of targets", name, settings);
  free(in);
  free(target);
  free(guess);
  mn_task_close(t);
}

static void test_oracles_solve_token_tasks(void) {
  check_token_task("mqar", "vocab_size=512 len=64 kv=8", 10000, 8, 0);
  check_token_task("mqar", "vocab_size=512 len=64 kv=8 power=1", 10000, 8, 0);
  check_token_task("mqar", "vocab_size=8192 len=64 kv=4 fill=random", 1000, 4, 60);
  check_token_task("mqar", "vocab_size=512 len=128 kv=8 passes=2", 1000, 8, 0);
  check_token_task("mqar", "vocab_size=512 len=128 kv=8 update=5", 1000, 8, 0);
  check_token_task("mqar", "vocab_size=64 len=64 kv=16 power=1", 1000, 16, 0);
  check_token_task("mqar_compositional", "", 1000, 9, 0);
  check_token_task("mqar_compositional", "grid=4 len=96 fill=random", 1000, 16, 0);
  check_token_task("topics", "", 2000, 4, 256);
  check_token_task("topics", "documents=1 segments=2 facts=1", 2000, 1, 64);
  check_token_task("topics", "segments=24 facts=4 min_distance=6 max_distance=20", 500, 16, 768);
  check_token_task("topics", "segment=11 segments=40 documents=5 facts=3 vocab_size=83", 500, 25, 440);
  check_token_task("niah_mini", "len=256 kind=pk", 500, 7, 256);
  check_token_task("niah_mini", "len=256 kind=n", 500, 7, 256);
  check_token_task("niah_mini", "len=256 kind=u", 500, 32, 256);
  check_token_task("niah_mini", "len=256 kind=w", 500, 2, 256);
  check_token_task("niah_mini", "len=512 len_min=80 kind=mix", 500, 0, 60);
  check_token_task("niah_mini", "len=300 kind=n depth=0", 100, 7, 300);
  check_token_task("niah_mini", "len=300 kind=n depth=100", 100, 7, 300);
  check_token_task("copying", "len=64 copied=8", 10000, 8, 64);
  check_token_task("copying", "len=3 copied=1 vocab_size=4", 100, 1, 3);
  check_token_task("selective_copying", "len=64 copied=8", 10000, 8, 64);
  check_token_task("induction", "len=64", 10000, 1, 64);
  check_token_task("word_problem", "", 10000, 32, 0);
  check_token_task("word_problem", "n=3 len=40 ask=last", 1000, 1, 0);
  check_token_task("word_problem", "group=cyclic n=2 len=40", 1000, 40, 0);
}

/* Blanks lie before each token of data alike, none behind the last; the special symbol stands anywhere alike. */
static void test_probes_follow_their_laws(void) {
  enum { N = 20000, T = 40, M = 8, BLANKS = T - 2 * M - 1 };
  int32_t in[T], target[T];
  int before[M] = {0}, place[T - 2] = {0}, behind = 0;
  mn_task *t = open_task("selective_copying", "len=40 copied=8"), *u = open_task("induction", "len=40");
  for (uint64_t i = 0; i < N; i++) {
    mn_task_sample(t, MN_SPLIT_TRAIN, i, in, target);
    for (int at = 0, data = 0; in[at] != 15; at++) {
      behind += in[at] == 14 && data == M;
      if (in[at] == 14 && data < M) before[data]++;
      else data++;
    }
    mn_task_sample(u, MN_SPLIT_TRAIN, i, in, target);
    int at = 0;
    while (in[at] != 15) at++;
    place[at]++;
  }
  CHECK(behind == 0, "%d blanks stand behind the last token of data", behind);
  CHECK(chi2_uniform(before, M, N * BLANKS) < chi2_limit(M - 1), "blanks are not uniform");
  CHECK(chi2_uniform(place, T - 2, N) < chi2_limit(T - 3), "the special symbol's place is not uniform");
  mn_task_close(t);
  mn_task_close(u);
}

/* Words of three permutations of three things, whose products are known: 1 swaps the last two (0 2 1), 2 the first two (1 0 2), and 3 is 1 2 0.
 * An element acts on what came before: 1 after 2 sends 0 to 2, 1 to 0 and 2 to 1, which is 4; 2 after 1 is 3. */
static void test_words_are_multiplied_from_the_left(void) {
  mn_task *t = open_task("word_problem", "n=3 len=2");
  int32_t in[2], target[2];
  int seen = 0;
  for (uint64_t i = 0; i < 2000; i++) {
    mn_task_sample(t, MN_SPLIT_TRAIN, i, in, target);
    CHECK(target[0] == in[0], "%d alone is %d", in[0], target[0]);
    const int word = in[0] == 2 && in[1] == 1 ? 0 : in[0] == 1 && in[1] == 2 ? 1 : in[0] == 3 && in[1] == 3 ? 2 : -1;
    if (word < 0) continue;
    CHECK(target[1] == (word == 1 ? 3 : 4), "%d, then %d, is %d", in[0], in[1], target[1]);
    seen |= 1 << word;
  }
  CHECK(seen == 7, "words were not drawn: %d", seen);
  mn_task_close(t);
  static const char *const bad[][3] = {
      {"word_problem", "n=6", "cyclic"}, {"copying", "copied=128", "len"}, {"selective_copying", "len=8", "len"}};
  for (int i = 0; i < 3; i++)
    CHECK(mn_task_open_set(bad[i][0], &bad[i][1], 1, &t) == MN_ERR_CONFIG && strstr(mn_message(), bad[i][2]), "%s %s: %s", bad[i][0],
          bad[i][1], mn_message());
}

/* A reader that trusts every place of the sequence, context or filler: the tokens behind a key (two tokens, where halves is
 * 2) other than at its own question. The last write of the context counts, and nothing else may say anything. */
static void check_one_answer(const char *name, const char *settings, int samples, int halves, int64_t writes) {
  mn_task *t = open_task(name, settings);
  if (!t) return;
  int64_t T = t->seq_len, values = halves == 2 ? 2 * (t->vocab_size / 3) : t->vocab_size / 2, context = writes * (halves + 1);
  int32_t *in = malloc((size_t)T * 4), *target = malloc((size_t)T * 4);
  int others = 0, shown = 0, blank = 0;
  for (int i = 0; i < samples; i++) {
    CHECK(mn_task_sample(t, MN_SPLIT_TEST, (uint64_t)i, in, target) == MN_OK, "%s", mn_message());
    for (int64_t k = context; k < T; k++) {
      blank += !in[k];
      if (target[k] == MN_IGNORE) continue;
      int32_t answer = -1;
      for (int64_t j = halves - 1; j + 1 < T; j++) {
        bool same = in[j] == in[k] && (halves == 1 || in[j - 1] == in[k - 1]);
        if (same && j < context) answer = in[j + 1];
        else if (same) others += j != k || in[j + 1] >= values;
        shown += j >= context && in[j] == target[k];
      }
      others += answer != target[k];
    }
  }
  CHECK(others == 0, "%s %s: %d other answers in %d samples", name, settings, others, samples);
  CHECK(shown == 0, "%s %s: an answer stands after the context %d times", name, settings, shown);
  CHECK(blank < samples * (T - context) / 2, "%s %s: fill = random leaves %d blanks", name, settings, blank);
  free(in);
  free(target);
  mn_task_close(t);
}

static void test_the_filler_never_answers_a_question(void) {
  check_one_answer("mqar", "vocab_size=64 len=64 kv=8 fill=random", 2000, 1, 8);
  check_one_answer("mqar", "vocab_size=64 len=64 kv=8 fill=random power=1", 2000, 1, 8);
  check_one_answer("mqar", "vocab_size=6 len=64 kv=1 fill=random power=1", 2000, 1, 1);
  check_one_answer("mqar", "vocab_size=7 len=200 kv=1 update=1 fill=random power=1", 2000, 1, 2);
  check_one_answer("mqar", "vocab_size=64 len=512 kv=16 update=16 passes=3 fill=random power=1", 300, 1, 96);
  check_one_answer("mqar", "vocab_size=64 len=4096 kv=29 fill=random power=1", 30, 1, 29);
  check_one_answer("mqar_compositional", "vocab_size=24 grid=2 len=64 fill=random", 2000, 2, 4);
  check_one_answer("mqar_compositional", "vocab_size=9 grid=1 len=100 fill=random power=1", 2000, 2, 1);
  check_one_answer("mqar_compositional", "vocab_size=48 grid=4 len=1000 fill=random power=1", 200, 2, 16);
}

static void test_oracle_is_at_chance_on_shuffled_answers(void) {
  mn_task *t = open_task("mqar", "vocab_size=512 len=64 kv=8");
  int32_t in[64], target[64], guess[64], at[8], values[8];
  int64_t right = 0, n = 0;
  mn_rng rng;
  mn_rng_seed(&rng, 7);
  for (uint64_t i = 0; i < 2000; i++) {
    CHECK(mn_task_sample(t, MN_SPLIT_TEST, i, in, target) == MN_OK, "%s", mn_message());
    mn_task_oracle(t, in, guess);
    int k = 0;
    for (int j = 0; j < 64; j++)
      if (target[j] != MN_IGNORE) at[k] = j, values[k++] = target[j];
    mn_rng_shuffle(&rng, values, 8);
    for (int j = 0; j < 8; j++) right += guess[at[j]] == values[j], n++;
  }
  double p = 1.0 / 8, se = sqrt(p * (1 - p) / (double)n);
  CHECK(fabs((double)right / (double)n - p) < 4 * se, "%g right, chance is %g", (double)right / (double)n, p);
  mn_task_close(t);
}

static void test_mqar_gaps_and_keys_follow_their_laws(void) {
  for (int uniform = 0; uniform < 2; uniform++) {
    mn_task *t = open_task("mqar", uniform ? "vocab_size=64 len=64 kv=4 power=1" : "vocab_size=64 len=64 kv=4");
    enum { N = 100000, SLOTS = 28 };
    int slot[SLOTS] = {0}, key[31] = {0};
    int32_t in[64], target[64];
    for (uint64_t i = 0; i < N; i++) {
      mn_task_sample(t, MN_SPLIT_TRAIN, i, in, target);
      key[in[0] - 1]++;
      for (int g = 0; g < SLOTS; g++) slot[g] += in[8 + 2 * g] == in[0]; /* the first slot drawn goes to the first key */
    }
    double a = uniform ? 1 : 0.01, sum = 0, chi2 = 0;
    for (int g = 0; g < SLOTS; g++) sum += pow(g + 1, a - 1);
    for (int g = 0; g < SLOTS; g++) {
      double expected = N * pow(g + 1, a - 1) / sum;
      chi2 += (slot[g] - expected) * (slot[g] - expected) / expected;
    }
    CHECK(chi2 < chi2_limit(SLOTS - 1), "gaps: chi2 %g at a = %g", chi2, a);
    CHECK(chi2_uniform(key, 31, N) < chi2_limit(30), "keys are not uniform");
    mn_task_close(t);
  }
}

static void test_splits_share_no_sample_and_answers_stay_hidden(void) {
  mn_task *t = open_task("mqar", "vocab_size=512 len=64 kv=8");
  enum { N = 3000, TABLE = 1 << 14 };
  static uint64_t seen[TABLE];
  int32_t in[64], target[64];
  int repeats = 0, shown = 0;
  for (int split = 0; split < 3; split++)
    for (uint64_t i = 0; i < N; i++) {
      mn_task_sample(t, split, i, in, target);
      uint64_t h = mn_hash_bytes(in, sizeof in, 0) | 1, at = h >> 50;
      while (seen[at % TABLE] && seen[at % TABLE] != h) at++;
      repeats += seen[at % TABLE] == h;
      seen[at % TABLE] = h;
      for (int k = 16; k < 64; k++)
        if (target[k] != MN_IGNORE)
          for (int j = 16; j < 64; j++) shown += in[j] == target[k];
    }
  CHECK(repeats == 0, "%d samples occur twice", repeats);
  CHECK(shown == 0, "an answer stands after the context %d times", shown);
  mn_task_close(t);
}

typedef struct hash_job {
  const mn_task *task;
  uint64_t *hash;
  int split;
} hash_job;

static void hash_sample(void *ctx, int64_t i, int thread) { /* of a task of at most 256 tokens, or of text */
  (void)thread;
  hash_job *job = ctx;
  mn_task_text s;
  if (job->task->seq_len > 256) return;
  if (job->task->def->sample) {
    int32_t in[256], target[256];
    mn_task_sample(job->task, job->split, (uint64_t)i, in, target);
    job->hash[i] = mn_hash_bytes(target, (size_t)job->task->seq_len * 4, mn_hash_bytes(in, (size_t)job->task->seq_len * 4, 0));
  } else if (job->task->def->sample_label || job->task->def->sample_span) {
    int32_t in[256], length, answer[2] = {0};
    if (job->task->def->sample_label) mn_task_sample_label(job->task, job->split, (uint64_t)i, in, &length, answer);
    else mn_task_sample_span(job->task, job->split, (uint64_t)i, in, &length, answer);
    job->hash[i] = mn_hash_bytes(answer, sizeof answer, mn_hash_bytes(in, (size_t)job->task->seq_len * 4, (uint64_t)length));
  } else if (mn_task_sample_text(job->task, job->split, (uint64_t)i, &s) == MN_OK) {
    job->hash[i] = mn_hash_bytes(s.answer, strlen(s.answer), mn_hash_str(s.prompt));
    mn_task_text_free(&s);
  }
}

/* Same bits from 1 and 8 threads, and the same bits for ever: the constants guard every published result. */
static void test_samples_are_the_same_everywhere(void) {
  const struct {
    const char *name, *settings;
    uint64_t hash;
  } task[] = {
      {"mqar", "vocab_size=512 len=64 kv=8", 0x70158d2642a3d7eeu},
      {"mqar", "vocab_size=512 len=128 kv=8 update=4 fill=random power=1", 0xef2d9f75971b3e1bu},
      {"mqar_compositional", "", 0x2b7c2eeaae940ff6u},
      {"niah_mini", "len=256", 0xcb243f451819b334u},
      {"passkey", "", 0x5ec14fb3fea2166eu},
      {"niah_single_1", "len=3000", 0xea59ef826972053cu},
      {"niah_single_3", "len=3000 @", 0xec28d0b271f47998u},
      {"niah_multiquery", "len=3000 @", 0xbd5e808d0260e38bu},
      {"topics", "", 0xdde76b80e43d7b61u},
      {"recurring", "", 0xad34ab668fba8ea4u},
      {"listops_mini", "", 0x843d3563ac809417u},
      {"needle_span", "", 0xb6e44e57f73283e5u},
      {"number_words", "", 0xd57e92b005dcae38u},
      {"babilong", "kind=mix len=2000 facts=8", 0x4f81f7a393b75b2eu},
      {"copying", "len=64 copied=8", 0x32f16b22893a1c66u},
      {"selective_copying", "len=64 copied=8", 0xbebfa4225cce7cd2u},
      {"induction", "", 0xd905f42792607834u},
      {"word_problem", "", 0x3852658a67847052u},
  };
  enum { N = 64 };
  mn_pool *pool = mn_pool_new(8);
  for (size_t k = 0; k < sizeof task / sizeof *task; k++) {
    mn_task *t = open_task(task[k].name, task[k].settings);
    uint64_t one[N] = {0}, eight[N] = {0};
    mn_pool_run(NULL, N, hash_sample, &(hash_job){t, one, MN_SPLIT_TEST});
    mn_pool_run(pool, N, hash_sample, &(hash_job){t, eight, MN_SPLIT_TEST});
    CHECK(!memcmp(one, eight, sizeof one), "%s differs between 1 and 8 threads", task[k].name);
    uint64_t all = mn_hash_bytes(one, sizeof one, 0);
    CHECK(all == task[k].hash, "%s %s: hash is now 0x%016llxu", task[k].name, task[k].settings, (unsigned long long)all);
    mn_task_close(t);
  }
  mn_pool_free(pool);
}

static int by_number(const void *a, const void *b) {
  const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return x < y ? -1 : x > y;
}

/* No sample comes twice, in its split or in another, where there are enough to draw from. */
static void test_samples_are_all_different(void) {
  static const char *const task[][2] = {{"mqar_compositional", ""},
                                        {"niah_mini", "len=256"},
                                        {"topics", ""},
                                        {"recurring", ""},
                                        {"needle_span", ""},
                                        {"niah_single_1", "len=2000"},
                                        {"passkey", ""},
                                        {"babilong", "len=1500"},
                                        {"copying", ""},
                                        {"selective_copying", ""},
                                        {"induction", ""},
                                        {"word_problem", ""}};
  enum { N = 400 };
  for (size_t k = 0; k < sizeof task / sizeof *task; k++) {
    mn_task *t = open_task(task[k][0], task[k][1]);
    uint64_t hash[3 * N] = {0};
    int same = 0;
    for (int split = 0; split < 3; split++) mn_pool_run(NULL, N, hash_sample, &(hash_job){t, hash + split * N, split});
    qsort(hash, 3 * N, sizeof *hash, by_number);
    for (int i = 1; i < 3 * N; i++) same += hash[i] == hash[i - 1];
    CHECK(same == 0, "%s %s: %d samples come twice", task[k][0], task[k][1], same);
    mn_task_close(t);
  }
}

static void test_needle_stream(void) {
  mn_needle_stream_config c;
  mn_needle_stream_defaults(&c);
  mn_needle_stream *s = NULL, *again = NULL;
  CHECK_OK(mn_needle_stream_open(&c, &s));
  CHECK_OK(mn_needle_stream_open(&c, &again));
  int n = 0, per_octave[32] = {0}, unknown = 0, updated = 0, distractors = 0;
  const mn_needle_query *q = mn_needle_stream_queries(s, &n);
  CHECK(n >= 64, "%d queries", n);

  /* One pass over the whole stream with an oracle that keeps the last value of each key. */
  enum { BUF = 1000 };
  static int32_t value[128][128][7], buf[BUF];
  static bool known[128][128];
  int32_t window[12] = {0};
  int next = 0, right = 0, not_prose = 0;
  uint64_t hash = 0;
  for (int64_t at = 0; at < c.length;) {
    int64_t got = mn_needle_stream_read(s, at, BUF, buf);
    hash = mn_hash_bytes(buf, (size_t)got * 4, hash);
    for (int64_t i = 0; i < got; i++) {
      memmove(window, window + 1, 11 * sizeof *window);
      window[11] = buf[i];
      if (window[0] == MN_ID_NEEDLE && window[11] == MN_ID_SEP) {
        memcpy(value[window[1] - MN_ID_WORD][window[2] - MN_ID_WORD], window + 4, 7 * sizeof *window);
        known[window[1] - MN_ID_WORD][window[2] - MN_ID_WORD] = true;
      }
      if (window[8] == MN_ID_QUERY && window[11] == MN_ID_SEP && next < n) {
        int32_t w1 = window[9] - MN_ID_WORD, w2 = window[10] - MN_ID_WORD;
        CHECK(q[next].position == at + i, "query %d is said to stand elsewhere", next);
        right += q[next].unknown ? !known[w1][w2] && q[next].value[0] == MN_ID_UNKNOWN
                                 : known[w1][w2] && !memcmp(value[w1][w2], q[next].value, 7 * sizeof *window);
        next++;
      }
      not_prose += buf[i] < MN_ID_PROSE;
    }
    at += got;
  }
  CHECK(next == n && right == n, "the oracle answers %d of %d queries, %d seen", right, n, next);
  for (int i = 0; i < n; i++) {
    if (!q[i].unknown) per_octave[q[i].octave]++;
    unknown += q[i].unknown;
    updated += q[i].updated;
    distractors += q[i].distractor;
    CHECK(q[i].distance >= (int64_t)1 << q[i].octave && q[i].distance < (int64_t)2 << q[i].octave, "distance %lld",
          (long long)q[i].distance);
  }
  for (int o = 8; o < 23; o++) CHECK(per_octave[o] >= 4, "octave %d has %d needles", o, per_octave[o]);
  CHECK(unknown >= n / 12 && updated >= n / 5 && distractors > n / 4, "%d unknown, %d updated, %d distractors of %d", unknown, updated,
        distractors, n);
  CHECK(not_prose < n * 48, "%d tokens are not prose", not_prose);

  /* Any part, in any order and piece size, is the same. */
  mn_rng rng;
  mn_rng_seed(&rng, 3);
  int32_t a[3000], b[3000];
  bool same = true;
  for (int i = 0; i < 50; i++) {
    int64_t at = i == 0 ? c.length - 1500 : (int64_t)mn_rng_below(&rng, (uint64_t)c.length), len = 1 + (int64_t)mn_rng_below(&rng, 3000);
    int64_t got = mn_needle_stream_read(s, at, len, a), cut = got / 3;
    same &= mn_needle_stream_read(again, at + cut, got - cut, b + cut) == got - cut;
    same &= cut == 0 || mn_needle_stream_read(again, at, cut, b) == cut;
    same &= !memcmp(a, b, (size_t)got * 4);
  }
  CHECK(same, "pieces differ from the whole");
  CHECK(mn_needle_stream_is_planted(s, q[0].position) && mn_needle_stream_is_planted(s, q[0].position - 3), "query not planted");
  CHECK(!mn_needle_stream_is_planted(s, q[0].position + 1) || n > 1, "planted beyond the query");
  CHECK(hash == 0xda95b5e7ba16532fu, "stream hash is now 0x%016llxu", (unsigned long long)hash);
  mn_needle_stream_close(s);
  mn_needle_stream_close(again);

  c.loop = true;
  c.length = 1000000;
  c.max_log2 = 19;
  c.seed = 2;
  CHECK_OK(mn_needle_stream_open(&c, &s));
  mn_needle_stream_close(s);
  c.max_log2 = 23;
  CHECK(mn_needle_stream_open(&c, &s) == MN_ERR_CONFIG && strstr(mn_message(), "length >="), "%s", mn_message());
}

static void test_bad_settings_are_refused(void) {
  const struct {
    const char *name, *setting, *says;
  } bad[] = {{"mqra", "", "(known: babilong, copying"},
             {"mqar", "kvs=4", "did you mean 'kv'"},
             {"mqar", "kv", "kv"},
             {"mqar", "kv=four", "must be an integer"},
             {"mqar", "kv=0", "must be an integer"},
             {"mqar", "kv=99999999999999999999", "64 bits"},
             {"mqar", "kv=40", "too short"},
             {"mqar", "vocab_size=6", "too few ids"},
             {"mqar", "len=63", "even"},
             {"mqar", "fill=none", "zero, random"},
             {"mqar", "power=nan", "must be a number"},
             {"mqar", "seed=-1", "at least 0"},
             {"mqar", "update=9", "more than"},
             {"mqar", "vocab_size=10 kv=4 fill=random", "vocab_size >= 12"},
             {"mqar_compositional", "vocab_size=24 grid=3", "vocab_size"},
             {"niah_single_2", "len=4096", "text=FILE"},
             {"niah_single_2", "text=/no/such/file", "/no/such/file"},
             {"niah", "queries=2", "queries"},
             {"niah_multivalue", "depth=3", "depth"},
             {"niah_mini", "len=70", ">= 72"}};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    mn_task *t = NULL;
    char copy[100], *set[8];
    int n = 0;
    snprintf(copy, sizeof copy, "%s", bad[i].setting);
    for (char *word = strtok(copy, " "); word && n < 8; word = strtok(NULL, " ")) set[n++] = word;
    mn_status status = mn_task_open_set(bad[i].name, (const char *const *)set, n, &t);
    CHECK(status != MN_OK && !t && strstr(mn_message(), bad[i].says), "%s %s: %s", bad[i].name, bad[i].setting, mn_message());
  }
  mn_task *t = open_task("niah_single_1", "len=500");
  mn_task_text s;
  CHECK(mn_task_sample_text(t, 2, 0, &s) == MN_ERR_CONFIG && strstr(mn_message(), "raise len"), "%s", mn_message());
  mn_task_close(t);
}

static void test_settings_are_described(void) {
  const mn_task_def *def;
  for (int i = 0; (def = mn_task_at(i)); i++) {
    CHECK_OK(mn_fields_check(def->fields));
    CHECK(def->name && def->help && mn_task_find(def->name) == def, "task %d", i);
  }
}

int main(void) {
  write_essay();
  RUN(test_random_numbers_are_the_published_ones);
  RUN(test_mqar_agrees_with_an_independent_generator);
  RUN(test_mqar_draws_its_number_of_pairs);
  RUN(test_mqar_scatters_its_pairs);
  RUN(test_oracles_solve_token_tasks);
  RUN(test_probes_follow_their_laws);
  RUN(test_words_are_multiplied_from_the_left);
  RUN(test_the_filler_never_answers_a_question);
  RUN(test_oracle_is_at_chance_on_shuffled_answers);
  RUN(test_mqar_gaps_and_keys_follow_their_laws);
  RUN(test_splits_share_no_sample_and_answers_stay_hidden);
  RUN(test_samples_are_the_same_everywhere);
  RUN(test_samples_are_all_different);
  RUN(test_needle_stream);
  RUN(test_settings_are_described);
  RUN(test_bad_settings_are_refused);
  return test_end();
}
