/* test_decision_transformer.c - what must be true of acting from what others did, in order: golden vectors from NumPy, and gradients; a stream cut
 * anywhere is the stream, and a session says what the whole says; a step takes three places of a cache; the world is what it says, and who
 * knows it does better in it; what is shown of an episode is what happened; a model that has learned acts better than chance and than those
 * it watched; what is refused. */
#include "model_check.h"
#include "program.h"
#include "run/session.h"
#include "source/rollouts.h"
#include "scratch.h"

static void golden_vectors_and_gradients(void) {
  mk_golden f;
  if (!mk_golden_open(&f, "decision_transformer")) return;
  double e = mk_golden_error(&f);
  CHECK(e < 1e-11, "differs by %g", e);
  mc_get(&f.m.params, "embed_return.weight")->x[0] += 1e-3;
  CHECK(mk_golden_error(&f) > 1e-8, "does not depend on the return");
  e = mk_gradient_error(&f.m, &f.in, 12, 3);
  CHECK(e < 1e-7, "gradients: %g", e);
  mk_golden_close(&f);
}

static void a_stream_cut_anywhere_is_the_stream(void) {
  mk_golden f;
  if (!mk_golden_open(&f, "decision_transformer")) return;
  CHECK_OK(mn_model_check_stream(f.m.model));
  int64_t each[] = {1, 2, 3, 4, 5};
  for (int64_t c = 1; c < 6; c++) {
    double e = mk_split_error(&f.m, &f.in, "forecast", 6, 1, &c);
    CHECK(e < 1e-11, "cut at %lld: %g", (long long)c, e);
  }
  double e = mk_split_error(&f.m, &f.in, "forecast", 6, 5, each);
  CHECK(e < 1e-11, "step by step: %g", e);
  mk_golden_close(&f);
}

/* ---- sessions ---- */
enum { C = 6, A = 2, T = 11 };

static void a_session_says_what_the_whole_says(void) {
  static const char *const kinds[] = {
      "{type: decision_transformer, actions: 2, states: 3, d_model: 8, positions: sinusoidal, block: {mixer: {type: aaren, heads: 2}, hidden: 8}}",
      "{type: decision_transformer, actions: 2, states: 3, d_model: 8, layers: 2, block: {mixer: {type: attention, heads: 2, max_context: 33}, "
      "hidden: 8}}"};
  for (int k = 0; k < 2; k++) {
    mk_model m;
    mn_params *p = NULL;
    mn_session *s = NULL;
    float frames[(T + 1) * C], whole[T * A], said[T * A];
    for (int i = 0; i < (T + 1) * C; i++) frames[i] = (float)mn_random_normal(5, 0, (uint64_t)i);
    if (!mk_open(&m, kinds[k], 1)) continue;
    CHECK_OK(mn_params_new(m.model, mn_backend_ref(), MN_F64, 3, &p));
    CHECK_OK(mn_session_new(m.model, p, &(mn_session_config){.prefill = 8}, &s));
    if (!s) continue;
    CHECK(mn_session_outputs(s) == A && mn_session_classes(s) == 0 && mn_session_channels(s) == C && mn_session_late(s) == 0,
          "what it says");
    CHECK_OK(mn_session_feed_frames(s, frames, T, whole));
    for (int64_t step = 1; step < 5; step += 2) {
      CHECK_OK(mn_session_reset(s));
      for (int64_t at = 0; at < T; at += step)
        CHECK_OK(mn_session_feed_frames(s, frames + at * C, T - at < step ? T - at : step, said + at * A));
      double worst = 0;
      for (int i = 0; i < T * A; i++) worst = fmax(worst, fabs((double)said[i] - (double)whole[i]));
      CHECK(worst < 1e-6, "%s by %lld: %g", kinds[k], (long long)step, worst);
    }
    const float *logits;
    CHECK(mn_session_judge(s, &logits) == MN_ERR_CONFIG && strstr(mn_message(), "does not say what a sequence"), "%s", mn_message());
    /* 33 places hold 11 steps */
    if (k)
      CHECK(mn_session_feed_frames(s, frames + T * C, 1, said) == MN_ERR_CONFIG && strstr(mn_message(), "max_context"), "%s", mn_message());
    else CHECK_OK(mn_session_feed_frames(s, frames + T * C, 1, said));
    mn_session_free(s);
    mn_params_free(p);
    mk_close(&m);
  }
}

/* ---- the world ---- */
static void who_knows_the_world_does_better(void) {
  double last = -1e9;
  for (int skill = 0; skill <= 2; skill++) {
    double sum = 0;
    for (uint64_t e = 0; e < 40; e++) sum += mn_rollout_return(11, e, 30, skill / 2.0) / 40;
    CHECK(sum > last + 2, "skill %g: %g after %g", skill / 2.0, sum, last);
    last = sum;
  }
  mn_point w = mn_point_begin(4, 9), again = mn_point_begin(4, 9), other = mn_point_begin(4, 10);
  CHECK(!memcmp(&w, &again, sizeof w) && memcmp(&w, &other, sizeof w) != 0, "an episode begins where its number says");
  CHECK(fabs(hypot(w.p[0] - w.goal[0], w.p[1] - w.goal[1]) - 1) < 1e-12 && w.v[0] == 0 && w.v[1] == 0, "at rest, 1 from its goal");
  const double push[] = {9, 0}, most[] = {1, 0}; /* cut at 1: v = 0.1, p + 0.025 */
  const double reward = mn_point_step(&w, push), same = mn_point_step(&again, most);
  CHECK(reward == same && fabs(w.v[0] - 0.1) < 1e-15 && fabs(w.p[0] - mn_point_begin(4, 9).p[0] - 0.025) < 1e-15,
        "no push is harder than 1");
  CHECK(fabs(reward + hypot(w.p[0] - w.goal[0], w.p[1] - w.goal[1])) < 1e-15, "reward is the distance left");
}

static void what_is_shown_is_what_happened(void) {
  mn_arena *arena = mn_arena_new();
  static const char *const quality[] = {"medium", "replay", "expert"};
  for (int q = 0; q < 3; q++) {
    char yaml[128];
    const mn_value *v = NULL;
    mn_source_config *c = mn_arena_alloc(arena, sizeof *c);
    mn_source *s = NULL;
    mn_batch b;
    snprintf(yaml, sizeof yaml, "{type: rollouts, quality: %s, steps: 20, episodes: 12}", quality[q]);
    CHECK_OK(mn_yaml_parse(arena, "data", yaml, strlen(yaml), &v));
    CHECK_OK(mn_source_parse(arena, v, "data", 1, c));
    CHECK_OK(mn_source_open(c, NULL, NULL, &s));
    if (!s) continue;
    CHECK(mn_rollout_steps(s) == 20 && mn_source_steps(s, MN_SPLIT_TRAIN, 4, 20) == 3, "sizes");
    CHECK_OK(mn_batch_new(s, 4, 20, &b));
    CHECK_OK(mn_source_fill(s, MN_SPLIT_TRAIN, 1, &b));
    for (int row = 0; row < 4; row++) {
      const float *f = mn_batch_row(&b, 0, row), *target = mn_batch_row(&b, 1, row);
      for (int t = 0; t < 20; t++, f += MN_ROLLOUT_FRAME) {
        const float *next = f + MN_ROLLOUT_FRAME, *state = f + 3;
        for (int i = 0; i < 2; i++) CHECK(f[i] == (t ? target[2 * (t - 1) + i] : 0.0f) && fabsf(f[i]) <= 1, "the action before");
        if (t == 19) break;
        mn_point w = {{(double)state[0], (double)state[1]}, {(double)state[2], (double)state[3]}, {0, 0}};
        const double did[] = {(double)target[2 * t], (double)target[2 * t + 1]}, reward = mn_point_step(&w, did);
        CHECK(fabs(w.p[0] - (double)next[3]) < 1e-5 && fabs(w.v[1] - (double)next[6]) < 1e-5, "the state that follows");
        CHECK(fabs((double)(f[2] - next[2]) - reward * 10 / 20) < 1e-5, "what is to come falls by what came: %g, %g",
              (double)(f[2] - next[2]), reward / 2);
      }
    }
    mn_batch_free(&b);
    mn_source_close(s);
  }
  mn_arena_free(arena);
}

/* ---- acting ---- */
#define DIR "acting"

static void it_acts_better_than_those_it_watched(void) {
  CHECK(sh("rm -rf " DIR " && mkdir -p " DIR " && MNEME_HOME=" DIR " " MNEME "train " MN_TEST_SOURCE_DIR
           "/recipes/point-mass-aaren.yaml --out " DIR
           "/m --set train.steps=100 --set train.schedule.warmup_steps=5 --set model.d_model=16 "
           "--set model.layers=1 --set data.steps=20 --quiet --threads 1 2>&1") == 0,
        "%s", out);
  CHECK(sh(MNEME "eval --model " DIR "/m --act 30 --json --threads 1 2>/dev/null") == 0, "%s", out);
  const char *at = strstr(out, "\"score\": ");
  double watched = 0, chance = 0, expert = 0;
  for (uint64_t e = 0; e < 100; e++) {
    watched += mn_rollout_return(7, e, 20, MN_ROLLOUT_MEDIUM);
    chance += mn_rollout_return(7, e, 20, 0);
    expert += mn_rollout_return(7, e, 20, 1);
  }
  const double theirs = 100 * (watched - chance) / (expert - chance), own = at ? atof(at + 9) : -1;
  CHECK(own > 40 && own > theirs - 15 && own < 110, "score %g, those it watched %g", own, theirs);
  char first[2000];
  snprintf(first, sizeof first, "%.1900s", out);
  CHECK(sh(MNEME "eval --model " DIR "/m --act 30 --json --threads 1 2>/dev/null") == 0 && !strcmp(out, first), "the same episodes again");
  CHECK(sh(MNEME "eval --model " DIR "/m --act 30 --ask 0 --json --threads 1 2>/dev/null") == 0 && strcmp(out, first) != 0,
        "asked for less");
}

static void what_is_refused(void) {
  CHECK(sh(MNEME "eval --model " DIR "/m --ask 0.5 2>&1") == 2 && strstr(out, "--ask has no effect here"), "%s", out);
  CHECK(sh(MNEME "eval --model " DIR "/m --act 5 --batch 2 2>&1") == 2 && strstr(out, "--batch has no effect here"), "%s", out);
  mk_refused("{type: decision_transformer, actions: 2, d_model: 8, block: {mixer: {type: attention}}}", "states");
  mk_refused("{type: decision_transformer, states: 2, actions: 0, d_model: 8, block: {mixer: {type: attention}}}", "actions");
  CHECK(sh("MNEME_HOME=" DIR " " MNEME "train " MN_TEST_SOURCE_DIR "/recipes/point-mass-aaren.yaml --out " DIR
           "/n --set model.states=7 --quiet 2>&1") == 2 &&
            strstr(out, "frames"),
        "%s", out);
}

int main(void) {
  RUN(golden_vectors_and_gradients);
  RUN(a_stream_cut_anywhere_is_the_stream);
  RUN(a_session_says_what_the_whole_says);
  RUN(who_knows_the_world_does_better);
  RUN(what_is_shown_is_what_happened);
  RUN(it_acts_better_than_those_it_watched);
  RUN(what_is_refused);
  return test_end();
}
