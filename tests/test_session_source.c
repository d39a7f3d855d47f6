/* test_session_source.c - what a session says something about: sources of any length on few plans, each row its own, by number what a
 * model cannot read, and which rows have one in copies, forks and files. */
#include <math.h>

#include "format/json.h"
#include "format/safetensors.h"
#include "format/tokenizer.h"
#include "program.h"
#include "run/ladder.h"
#include "run/session.h"
#include "scratch.h"
#include "test.h"

enum { V = 7, SOURCES = 5, MOST = 24 };

typedef struct fixture {
  mn_arena *arena;
  mn_model *model;
  mn_params *params;
  mn_program *program;
} fixture;

static bool set_up(fixture *f) {
  static const char text[] =
      "{\"type\": \"encoder_decoder\", \"vocab_size\": 7, \"source_vocab_size\": 5, \"max_source\": 24, \"d_model\": 8, \"layers\": 1, "
      "\"init_std\": 1, \"block\": {\"mixer\": {\"type\": \"attention\", \"heads\": 2}, \"channel\": \"swiglu\", \"hidden\": 8}, "
      "\"encoder\": {\"layers\": 1, \"block\": {\"mixer\": {\"type\": \"attention\", \"heads\": 2, \"causal\": false}}}}";
  const mn_value *v = NULL;
  *f = (fixture){.arena = mn_arena_new()};
  CHECK_OK(mn_json_parse(f->arena, "model", text, sizeof text - 1, &v));
  if (v) CHECK_OK(mn_model_parse(v, NULL, 0, &f->model));
  if (f->model) CHECK_OK(mn_params_new(f->model, mn_backend_ref(), MN_F32, 3, &f->params));
  if (f->params) CHECK_OK(mn_session_program_new(f->model, f->params, MN_F32, false, &f->program));
  return f->program != NULL;
}

static void tear_down(fixture *f) {
  mn_program_free(f->program);
  mn_params_free(f->params);
  mn_model_free(f->model);
  mn_arena_free(f->arena);
}

static mn_session *open_session(fixture *f, int64_t batch) {
  mn_session *s = NULL;
  CHECK_OK(mn_session_new(f->model, f->params, &(mn_session_config){.batch = batch, .prefill = 1, .program = f->program}, &s));
  return s;
}

static void source_of(int32_t *x, int64_t n, uint64_t key) {
  for (int64_t t = 0; t < n; t++) x[t] = (int32_t)(mn_random_uniform(key, 0, (uint64_t)t) * SOURCES);
}

static void logits_of(mn_session *s, int64_t rows, float *to) {
  static const int32_t first[8] = {1, 1, 1, 1, 1, 1, 1, 1};
  const float *logits = NULL;
  CHECK_OK(mn_session_feed(s, first, 1, &logits));
  for (int64_t i = 0; logits && i < rows * V; i++) to[i] = logits[i];
}

static double apart(const float *a, const float *b, int n) {
  double worst = 0;
  for (int i = 0; i < n; i++) worst = fmax(worst, fabs((double)a[i] - (double)b[i]));
  return worst;
}

static void sources_of_any_length_share_few_plans(void) {
  fixture f;
  if (!set_up(&f)) return;
  mn_session *s = open_session(&f, 1);
  float alone[V], before[V] = {0}, padded[V];
  int64_t compiled = 0, lengths = 0;
  for (int turn = 0; s && turn < 2; turn++) {
    for (int32_t n = 1; n <= MOST; n++) {
      int32_t x[MOST] = {0};
      source_of(x, n, 1);
      CHECK_OK(mn_session_reset(s));
      CHECK_OK(mn_session_source(s, x, n, NULL));
      logits_of(s, 1, alone);
      for (int t = n; t < MOST; t++) x[t] = -99; /* behind its length nothing is looked at */
      CHECK_OK(mn_session_reset(s));
      CHECK_OK(mn_session_source(s, x, MOST, &n));
      logits_of(s, 1, padded);
      CHECK(apart(alone, padded, V) < 1e-5, "%d tokens: padded it says something else by %g", (int)n, apart(alone, padded, V));
      CHECK(apart(alone, before, V) > 1e-4, "%d tokens say what one fewer say: the test says nothing", (int)n);
      memcpy(before, alone, sizeof before);
    }
    if (turn == 0) compiled = mn_program_compiled(f.program);
  }
  for (int64_t n = 1, last = 0; n <= MOST; n++) lengths += mn_ladder_cover(n, MOST) != last, last = mn_ladder_cover(n, MOST);
  CHECK(lengths == 9, "%lld lengths", (long long)lengths);
  /* one for each length, and one token; a stream that begins as zeros compiles nothing for it */
  CHECK(compiled == lengths + 1, "%lld plans for %d lengths", (long long)compiled, MOST);
  CHECK(mn_program_compiled(f.program) == compiled, "the second time nothing is compiled");
  mn_session_free(s);
  tear_down(&f);
}

static void lengths_cover_what_they_are_asked(void) {
  for (int64_t n = 1; n < 5000; n++) {
    int64_t c = mn_ladder_cover(n, INT64_MAX);
    CHECK(c >= n && 2 * c <= 3 * n, "%lld for %lld", (long long)c, (long long)n);
    CHECK(mn_ladder_cover(n, n) == n, "never more than there is room for");
  }
}

static void what_a_model_cannot_read_is_refused_by_number(void) {
  fixture f;
  if (!set_up(&f)) return;
  mn_session *s = open_session(&f, 2);
  int32_t x[2 * (MOST + 1)] = {0, 1, SOURCES, 0};
  CHECK(mn_session_source(s, x, 2, NULL) == MN_ERR_ARG && strstr(mn_message(), "token 0 of the source in row 1 is 5") &&
            strstr(mn_message(), "vocabulary has 5"),
        "%s", mn_message());
  x[2] = -1;
  CHECK(mn_session_source(s, x, 2, NULL) == MN_ERR_ARG && strstr(mn_message(), "is -1"), "%s", mn_message());
  CHECK(mn_session_source(s, x, 2, (int32_t[]){2, 3}) == MN_ERR_ARG && strstr(mn_message(), "row 1"), "%s", mn_message());
  CHECK(mn_session_source(s, x, MOST + 1, NULL) == MN_ERR_CONFIG && strstr(mn_message(), "25 places") && strstr(mn_message(), "holds 24"),
        "%s", mn_message());
  CHECK(mn_session_source_frames(s, NULL, 1, NULL) == MN_ERR_CONFIG && strstr(mn_message(), "tokens"), "%s", mn_message());
  CHECK(mn_session_feed(s, x, 1, NULL) == MN_ERR_CONFIG && strstr(mn_message(), "has none"), "a refused source is none: %s", mn_message());
  mn_session_free(s);
  tear_down(&f);
}

/* Which rows can be fed: a 1 for each. Every row is fed alone. */
static void sourced(mn_session *s, const char *want, const char *what) {
  const int32_t x[3] = {1, 1, 1};
  for (int b = 0; b < 3; b++) {
    int32_t count[3] = {b == 0, b == 1, b == 2};
    mn_status status = mn_session_feed_rows(s, x, 1, count, NULL);
    CHECK((status == MN_OK) == (want[b] == '1'), "%s: row %d: %s", what, b, mn_status_name(status));
    char of[32];
    snprintf(of, sizeof of, "row %d of this session", b);
    if (status != MN_OK) CHECK(status == MN_ERR_CONFIG && strstr(mn_message(), of), "%s", mn_message());
  }
}

static void every_row_has_its_own(void) {
  fixture f;
  if (!set_up(&f)) return;
  mn_session *a = open_session(&f, 3), *b = open_session(&f, 3), *fork = NULL, *other = open_session(&f, 2);
  int32_t x[3 * 4];
  source_of(x, 12, 2);
  sourced(a, "000", "a new session");
  CHECK_OK(mn_session_source(a, x, 4, NULL));
  sourced(a, "111", "with sources");
  CHECK_OK(mn_session_copy_row(b, 1, a, 2));
  sourced(b, "010", "one row copied");
  CHECK(mn_session_copy_row(b, 2, a, 7) != MN_OK, "there is no row 7");
  CHECK(mn_session_copy_row(b, -1, a, 0) != MN_OK, "there is no row -1");
  CHECK(mn_session_copy(b, other) != MN_OK && mn_session_select(b, a, (int64_t[]){0, 1, 9}) != MN_OK, "what does not fit");
  sourced(b, "010", "copies that failed");
  CHECK_OK(mn_session_fork(b, &fork));
  if (fork) sourced(fork, "010", "a fork");
  static const char path[] = "session-source.safetensors";
  CHECK_OK(mn_session_save(b, path));
  CHECK_OK(mn_session_load(a, path));
  sourced(a, "010", "loaded");
  CHECK_OK(mn_session_select(a, b, (int64_t[]){1, 0, 1}));
  sourced(a, "101", "selected");
  CHECK_OK(mn_session_reset_rows(a, (bool[]){true, false, false}));
  sourced(a, "001", "one row reset");
  CHECK_OK(mn_session_copy(a, b));
  sourced(a, "010", "copied");
  CHECK(mn_session_load(other, path) != MN_OK, "a file of three rows is none of two");
  remove(path);
  CHECK_OK(mn_session_reset(b));
  sourced(b, "000", "reset");
  mn_session_free(a);
  mn_session_free(b);
  mn_session_free(fork);
  mn_session_free(other);
  tear_down(&f);
}

/* ---- the program ---- */
#define DIR "session-source"

/* A model of frames that was never trained; what matters is what it can be given. */
static void write_speaker(void) {
  static const char text[] =
      "{\"type\": \"encoder_decoder\", \"vocab_size\": 257, \"channels\": 3, \"max_source\": 8, \"d_model\": 8, \"layers\": 1, "
      "\"block\": {\"mixer\": {\"type\": \"attention\", \"heads\": 2}, \"channel\": \"swiglu\", \"hidden\": 8}, "
      "\"encoder\": {\"layers\": 1, \"block\": {\"mixer\": {\"type\": \"attention\", \"heads\": 2, \"causal\": false}}}}";
  mn_arena *arena = mn_arena_new();
  const mn_value *v = NULL;
  mn_model *m = NULL;
  mn_params *p = NULL;
  mn_tokenizer *tok = NULL;
  CHECK_OK(mn_json_parse(arena, "model", text, sizeof text - 1, &v));
  if (v) CHECK_OK(mn_model_parse(v, NULL, 0, &m));
  if (m) CHECK_OK(mn_params_new(m, mn_backend_ref(), MN_F32, 3, &p));
  CHECK_OK(mn_tokenizer_bytes((const char *const[]){"<|endoftext|>"}, 1, &tok));
  if (tok) CHECK_OK(mn_tokenizer_save(tok, DIR "/tokenizer.json"));
  if (p) CHECK_OK(mn_model_save_dir(m, p, DIR));
  mn_tokenizer_free(tok);
  mn_params_free(p);
  mn_model_free(m);
  mn_arena_free(arena);
}

static void write_frames(mn_shape shape, float first) {
  float x[64] = {first};
  mn_st_writer *w = mn_st_writer_new();
  CHECK_OK(mn_st_writer_add(w, "source", MN_F32, &shape, x));
  CHECK_OK(mn_st_writer_save(w, DIR "/frames.safetensors"));
  mn_st_writer_free(w);
}

static void generate_reads_frames(void) {
#define GENERATE MNEME "generate --model " DIR " --tokens 3 --threads 1 --quiet --ignore-eos"
  CHECK(sh("rm -rf " DIR " && mkdir -p " DIR) == 0, "a clean directory");
  write_speaker();
  static const mn_shape good[] = {{.ndim = 2, .dim = {5, 3}}, {.ndim = 3, .dim = {1, 5, 3}}};
  for (int i = 0; i < 2; i++) {
    write_frames(good[i], 1);
    CHECK(sh(GENERATE " --source " DIR "/frames.safetensors --session-out " DIR "/s.safetensors 2>&1") == 0, "%s", out);
    CHECK(sh(MNEME "generate --model " DIR " --tokens 3 --threads 1 --quiet --beams 2 --source " DIR "/frames.safetensors 2>&1") == 0, "%s",
          out);
  }
  CHECK(sh(GENERATE " --session-in " DIR "/s.safetensors 2>&1") == 0, "the session has its source: %s", out);
  CHECK(sh(GENERATE " 2>&1") == 2 && strstr(out, "--source FILE.safetensors"), "%s", out);
  CHECK(sh(GENERATE " --source words 2>&1") != 0 && strstr(out, "--source: this model reads numbers") && strstr(out, "words"), "%s", out);
  write_frames(MN_SHAPE(5, 4), 1);
  CHECK(sh(GENERATE " --source " DIR "/frames.safetensors 2>&1") == 1 && strstr(out, "source is [5, 4]") && strstr(out, "[S, 3]"), "%s",
        out);
  write_frames(MN_SHAPE(9, 3), 1);
  CHECK(sh(GENERATE " --source " DIR "/frames.safetensors 2>&1") == 2 && strstr(out, "9 places") && strstr(out, "max_source"), "%s", out);
  write_frames(MN_SHAPE(5, 3), NAN);
  CHECK(sh(GENERATE " --source " DIR "/frames.safetensors 2>&1") != 0 && strstr(out, "source") && strstr(out, "NaN"), "%s", out);
  CHECK(sh("rm -rf " DIR) == 0, "cleared");
}

int main(void) {
  RUN(lengths_cover_what_they_are_asked);
  RUN(sources_of_any_length_share_few_plans);
  RUN(what_a_model_cannot_read_is_refused_by_number);
  RUN(every_row_has_its_own);
  RUN(generate_reads_frames);
  return test_end();
}
