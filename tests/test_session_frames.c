/* test_session_frames.c - what must be true of a session of a model that judges frames, in order: cut anywhere and by rows it says at each
 * place what the model says of the whole sequence, and of a sequence that ends there; asking changes nothing; copies, forks and files go on;
 * how far behind it is; what it refuses. */
#include "model_check.h"
#include "run/session.h"
#include "run/whole.h"
#include "scratch.h"

enum { C = 3, N = 4, T = 19 };

static const char *const kinds[] = {
    "{type: lmuformer, channels: 3, num_classes: 4, d_model: 6, order: 5, window: 7}",
    "{type: lmuformer, channels: 3, num_classes: 4, d_model: 6, order: 5, window: 7, lookahead: false}",
    "{type: lmuformer, channels: 3, num_classes: 4, d_model: 6, order: 5, window: 7, spiking: true}",
    "{type: classifier, channels: 3, num_classes: 4, d_model: 8, layers: 2, block: {mixer: {type: attention, heads: 2}, hidden: 8}}",
    "{type: classifier, channels: 3, num_classes: 4, d_model: 8, pooling: last, block: {mixer: {type: attention, heads: 2, window: 4}, "
    "hidden: 8}}",
    "{type: classifier, channels: 3, num_classes: 4, d_model: 8, block: {mixer: {type: aaren, heads: 2}, hidden: 8}}",
    "{type: classifier, channels: 3, num_classes: 4, d_model: 8, pooling: last, positions: sinusoidal, block: {mixer: {type: gla, heads: 2}, "
    "hidden: 8}}"};
enum { KINDS = sizeof kinds / sizeof *kinds };

typedef struct fixture {
  mn_arena *arena;
  mn_model *model;
  mn_params *params;
  float frames[2 * T * C];
} fixture;

static bool set_up(fixture *f, const char *yaml) {
  const mn_value *v = NULL;
  *f = (fixture){.arena = mn_arena_new()};
  CHECK_OK(mn_yaml_parse(f->arena, "model", yaml, strlen(yaml), &v));
  CHECK_OK(mn_model_parse(v, NULL, 0, &f->model));
  if (f->model) CHECK_OK(mn_params_new(f->model, mn_backend_ref(), MN_F64, 3, &f->params));
  for (int i = 0; i < 2 * T * C; i++) f->frames[i] = (float)mn_random_normal(8, 0, (uint64_t)i);
  return f->params != NULL;
}

static void take_down(fixture *f) {
  mn_params_free(f->params);
  mn_model_free(f->model);
  mn_arena_free(f->arena);
}

static mn_session *open_session(const fixture *f, int64_t batch) {
  mn_session *s = NULL;
  CHECK_OK(mn_session_new(f->model, f->params, &(mn_session_config){.batch = batch, .prefill = 8}, &s));
  return s;
}

static double apart(const float *a, const float *b, int64_t n) {
  double worst = 0;
  for (int64_t i = 0; i < n; i++) worst = fmax(worst, fabs((double)a[i] - (double)b[i]));
  return worst;
}

/* What the whole sequence of each length is, by a model that is no stream: [2][T][N]. */
static void judge_prefixes(const fixture *f, float *want) {
  mn_whole *w = NULL;
  const float *logits;
  CHECK_OK(mn_whole_new(f->model, f->params, MN_F32, &w));
  for (int b = 0; w && b < 2; b++)
    for (int64_t n = 1; n <= T; n++) {
      CHECK_OK(mn_whole_frames(w, f->frames + b * T * C, n, n % 2 ? n : T, &logits));
      memcpy(want + (b * T + n - 1) * N, logits, N * sizeof *want);
    }
  mn_whole_free(w);
}

static void a_stream_says_what_the_whole_says(void) {
  for (int k = 0; k < KINDS; k++) {
    fixture f;
    float want[2 * T * N], running[2 * T * N];
    const float *logits = NULL;
    if (!set_up(&f, kinds[k])) continue;
    judge_prefixes(&f, want);
    mn_session *s = open_session(&f, 2);
    const int64_t late = s ? mn_session_late(s) : 0;
    CHECK(s && mn_session_classes(s) == N && mn_session_channels(s) == C && late == (k == 0 || k == 2 ? 5 : 0), "%s: late by %lld",
          kinds[k], (long long)late);
    for (int64_t step = 1; s && step <= T; step += step < 4 ? 1 : 5) {
      CHECK_OK(mn_session_reset(s));
      for (int64_t at = 0; at < T; at += step) {
        const int64_t n = T - at < step ? T - at : step;
        float piece[2 * T * C], said[2 * T * N];
        for (int b = 0; b < 2; b++) memcpy(piece + b * n * C, f.frames + (b * T + at) * C, (size_t)(n * C) * sizeof *piece);
        CHECK_OK(mn_session_feed_frames(s, piece, n, said));
        for (int b = 0; b < 2; b++) memcpy(running + (b * T + at) * N, said + b * n * N, (size_t)(n * N) * sizeof *said);
        for (int twice = 0; twice < 2; twice++) { /* and nothing moves by being asked */
          CHECK_OK(mn_session_judge(s, &logits));
          for (int b = 0; b < 2; b++)
            CHECK(apart(logits + b * N, want + (b * T + at + n - 1) * N, N) < 1e-6, "%s: ends after %lld, by %lld: %g", kinds[k],
                  (long long)(at + n), (long long)step, apart(logits + b * N, want + (b * T + at + n - 1) * N, N));
        }
        CHECK(mn_session_position(s) == at + n, "stands at %lld", (long long)mn_session_position(s));
      }
      static float first[2 * T * N]; /* whatever the pieces */
      if (step == 1) memcpy(first, running, sizeof first);
      CHECK(apart(first, running, 2 * T * N) < 1e-6, "%s: by %lld places differ by %g", kinds[k], (long long)step,
            apart(first, running, 2 * T * N));
    }
    /* without look-ahead what it says at a place is of the sequence that ends there */
    for (int b = 0; b < 2 && !late; b++)
      CHECK(apart(running + b * T * N, want + b * T * N, T * N) < 1e-6, "%s: %g", kinds[k],
            apart(running + b * T * N, want + b * T * N, T * N));
    mn_session_free(s);
    take_down(&f);
  }
}

static void copies_forks_and_files_go_on(void) {
  for (int k = 0; k < KINDS; k += 3) {
    fixture f;
    float straight[N], said[N];
    const float *logits;
    mn_session *fork = NULL;
    if (!set_up(&f, kinds[k])) continue;
    mn_session *s = open_session(&f, 1), *other = open_session(&f, 1);
    CHECK_OK(mn_session_feed_frames(s, f.frames, 9, NULL));
    CHECK_OK(mn_session_fork(s, &fork));
    CHECK_OK(mn_session_save(s, "session-frames.safetensors"));
    CHECK_OK(mn_session_feed_frames(s, f.frames + 9 * C, 6, NULL));
    CHECK_OK(mn_session_judge(s, &logits));
    memcpy(straight, logits, sizeof straight);
    CHECK_OK(mn_session_load(other, "session-frames.safetensors"));
    mn_session *going[] = {fork, other};
    for (int i = 0; i < 2; i++) {
      CHECK_OK(mn_session_feed_frames(going[i], f.frames + 9 * C, 6, NULL));
      CHECK_OK(mn_session_judge(going[i], &logits));
      memcpy(said, logits, sizeof said);
      CHECK(!memcmp(said, straight, sizeof said), "%s: %s is the same to the bit", kinds[k], i ? "a file" : "a fork");
    }
    mn_session_free(s);
    mn_session_free(other);
    mn_session_free(fork);
    take_down(&f);
  }
}

static void what_is_refused(void) {
  static const struct {
    const char *yaml, *words;
  } none[] = {
      {"{type: classifier, channels: 3, num_classes: 4, d_model: 8, block: {mixer: {type: attention, causal: false}}}", "later tokens"},
      {"{type: classifier, channels: 3, num_classes: 4, d_model: 8, pooling: none, block: {mixer: {type: attention}}}",
       "does not say what a sequence is"},
      {"{type: classifier, vocab_size: 9, num_classes: 4, d_model: 8, block: {mixer: {type: attention}}}", "expects no next token"}};
  fixture f;
  mn_session *s = NULL;
  const float *logits;
  for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
    if (!set_up(&f, none[i].yaml)) continue;
    CHECK(mn_session_new(f.model, f.params, &(mn_session_config){0}, &s) == MN_ERR_CONFIG && strstr(mn_message(), none[i].words), "%s: %s",
          none[i].yaml, mn_message());
    take_down(&f);
  }
  if (set_up(&f, kinds[0]) && (s = open_session(&f, 1))) {
    CHECK(mn_session_judge(s, &logits) == MN_ERR_CONFIG && strstr(mn_message(), "no frame yet"), "%s", mn_message());
    CHECK(mn_session_feed_frames(s, f.frames, 0, NULL) == MN_ERR_ARG, "no frames");
    CHECK(mn_session_feed(s, (int32_t[]){1}, 1, NULL) == MN_ERR_CONFIG && strstr(mn_message(), "reads frames"), "%s", mn_message());
    f.frames[4] = NAN;
    CHECK(mn_session_feed_frames(s, f.frames, 2, NULL) == MN_ERR_NUMERIC && strstr(mn_message(), "number 1 of frame 1"), "%s",
          mn_message());
    CHECK(mn_session_position(s) == 0, "nothing moved");
    mn_session_free(s);
  }
  take_down(&f);
  s = NULL;
  if (set_up(&f, "{vocab_size: 9, d_model: 8, block: {mixer: {type: attention, heads: 2}}}") && (s = open_session(&f, 1))) {
    CHECK(mn_session_feed_frames(s, f.frames, 1, NULL) == MN_ERR_CONFIG && strstr(mn_message(), "decoder"), "%s", mn_message());
    CHECK(mn_session_classes(s) == 0 && mn_session_channels(s) == 0 && mn_session_late(s) == -1, "it judges nothing");
    mn_session_free(s);
  }
  take_down(&f);
}

int main(void) {
  RUN(a_stream_says_what_the_whole_says);
  RUN(copies_forks_and_files_go_on);
  RUN(what_is_refused);
  return test_end();
}
