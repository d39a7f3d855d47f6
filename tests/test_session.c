/* What must be true of a session: token by token gives the logits of training, whatever way the tokens are cut; a saved
 * session goes on to the same bits; a fork is independent and compiles nothing; sessions share a program; a batch holds rows that
 * stand anywhere; a memory that works by segments is told where they begin; a wrong, cut or edited file is refused. */
#include "base/file.h"
#include "format/yaml.h"
#include "run/sampler.h"
#include "run/session.h"
#include "scratch.h"
#include "small_mixers.h"
#include "test.h"

/* Two caches, of which one turns over: that any cut of a stream changes nothing is shown for every system by its own test
 * (mc_cut_anywhere) and for all of them in test_calls.c; what is shown here is a session's. */
static const char *const models[] = {
    "{vocab_size: 50, d_model: 16, layers: 2, block: {mixer: {type: attention, heads: 2, max_context: 128}, channel: swiglu}}",
    "{vocab_size: 50, d_model: 16, layers: 2, block: {mixer: {type: attention, heads: 4, kv_heads: 2, window: 7, sinks: 2, persistent: 3, "
    "conv: 4}}}",
};
enum { N_MODELS = sizeof models / sizeof *models, N = 75, VOCAB = 50 };

typedef struct fixture {
  mn_arena *arena;
  mn_backend *backend;
  mn_model *model;
  mn_params *params;
  int32_t tokens[N];
} fixture;

static bool set_up(fixture *f, const char *text) {
  const mn_value *v = NULL;
  *f = (fixture){.arena = mn_arena_new()};
  CHECK_OK(mn_yaml_parse(f->arena, "test", text, strlen(text), &v));
  CHECK_OK(mn_backend_cpu_new(1, &f->backend));
  CHECK_OK(mn_model_parse(v, "test", 0, &f->model));
  if (f->model) CHECK_OK(mn_params_new(f->model, f->backend, MN_F32, 7, &f->params));
  for (int i = 0; i < N; i++) f->tokens[i] = (int32_t)(mn_random_uniform(3, 0, (uint64_t)i) * VOCAB);
  return f->params != NULL;
}

static void tear_down(fixture *f) {
  mn_params_free(f->params);
  mn_model_free(f->model);
  mn_backend_free(f->backend);
  mn_arena_free(f->arena);
}

/* logits [N, VOCAB] as training computes them: all tokens at once, no state */
static void whole(fixture *f, float *out) {
  mn_graph *g = mn_graph_new();
  mn_scope *s = mn_scope_new(g, (mn_build){.param = MN_F32, .compute = MN_F32}, 1);
  mn_tensor *tokens = mn_input(g, "tokens", MN_I32, MN_SHAPE(1, N)), *y = mn_model_apply(s, f->model, tokens);
  mn_plan *p = NULL;
  CHECK_OK(mn_graph_status(g));
  mn_plan_request q = {.graph = g, .n_outputs = 1, .outputs = &y, .backend = f->backend};
  CHECK_OK(mn_plan_compile(&q, &p));
  if (p) {
    mn_params_bind(f->params, s, p);
    mn_plan_bind(p, tokens, f->tokens);
    CHECK_OK(mn_plan_run(p));
    memcpy(out, mn_plan_output(p, 0)->data, sizeof(float) * N * VOCAB);
  }
  mn_plan_free(p);
  mn_graph_free(g);
}

static double distance(const float *a, const float *b, int n) {
  double worst = 0, scale = 1e-9;
  for (int i = 0; i < n; i++) scale = fmax(scale, fabs((double)a[i]));
  for (int i = 0; i < n; i++) worst = fmax(worst, fabs((double)a[i] - (double)b[i]) / scale);
  return worst;
}

static void streaming_gives_the_logits_of_training(void) {
  for (int m = 0; m < N_MODELS; m++) {
    fixture f;
    if (!set_up(&f, models[m])) continue;
    static float all[N * VOCAB];
    whole(&f, all);
    for (int cut = 0; cut < 4; cut++) { /* one by one; prefill of 16, 2, 1; all but one; random cuts */
      mn_session *s = NULL;
      const float *logits = NULL;
      CHECK_OK(mn_session_new(f.model, f.params, &(mn_session_config){.prefill = 16}, &s));
      for (int at = 0, k = 0; s && at < N; k++) {
        int n = cut == 0 ? 1 : cut == 1 ? N : cut == 2 ? (at ? 1 : N - 1) : 1 + (int)(mn_random_uniform(9, 1, (uint64_t)k) * 20);
        if (n > N - at) n = N - at;
        CHECK_OK(mn_session_feed(s, f.tokens + at, n, &logits));
        at += n;
        double e = logits ? distance(all + (at - 1) * VOCAB, logits, VOCAB) : 1;
        CHECK(e < 1e-4, "model %d, cut %d, after %d tokens: %g", m, cut, at, e);
        CHECK(mn_session_position(s) == at, "position");
      }
      mn_session_free(s);
    }
    tear_down(&f);
  }
}

/* After `at` tokens it is saved, loaded into another and forked; these three then say the same of what comes, though the fork was led
 * astray first and set back by what was saved. */
static void goes_on(fixture *f, const char *what, int at, int n) {
  mn_session *a = NULL, *b = NULL, *c = NULL;
  const float *x = NULL, *y = NULL, *z = NULL;
  const char *path = "session.safetensors";
  CHECK_OK(mn_session_new(f->model, f->params, &(mn_session_config){.prefill = 16}, &a));
  CHECK_OK(mn_session_new(f->model, f->params, &(mn_session_config){.prefill = 16}, &b));
  if (!a || !b) return;
  CHECK_OK(mn_session_feed(a, f->tokens, at, NULL));
  CHECK_OK(mn_session_save(a, path));
  CHECK_OK(mn_session_fork(a, &c));
  CHECK_OK(mn_session_feed(c, f->tokens, n - at, NULL)); /* must not disturb a */
  CHECK_OK(mn_session_load(b, path));
  CHECK_OK(mn_session_load(c, path));
  for (int i = at; i < n; i++) {
    CHECK_OK(mn_session_feed(a, f->tokens + i, 1, &x));
    CHECK_OK(mn_session_feed(b, f->tokens + i, 1, &y));
    CHECK_OK(mn_session_feed(c, f->tokens + i, 1, &z));
    CHECK(x && y && memcmp(x, y, sizeof(float) * VOCAB) == 0, "%s: token %d of what was saved after %d", what, i, at);
    CHECK(x && z && memcmp(x, z, sizeof(float) * VOCAB) == 0, "%s: token %d of what was forked and loaded after %d", what, i, at);
  }
  CHECK_OK(mn_session_reset(a));
  CHECK(mn_session_position(a) == 0, "%s: reset", what);
  mn_session_free(a);
  mn_session_free(b);
  mn_session_free(c);
}

/* Of every system, in the middle of its chunks, windows and segments and at their ends. */
static void a_saved_session_goes_on_to_the_same_bits(void) {
  fixture f;
  if (set_up(&f, models[1])) {
    goes_on(&f, models[1], 40, N);
    tear_down(&f);
  }
  small_mixers_are_all_systems();
  for (int m = 0; m < MN_SMALL_MIXERS; m++) {
    char *text = mn_format("{vocab_size: %d, d_model: 8, layers: 2, block: {mixer: %s, hidden: 8}}", VOCAB, mn_small_mixers[m]);
    if (text && set_up(&f, text)) {
      for (int at = 5; at < 9; at++) goes_on(&f, mn_small_mixers[m], at, 15);
      tear_down(&f);
    }
    free(text);
  }
}

/* All that was compiled before is all there is: forks, copies, resets and further sessions of the program add nothing. */
static void forks_and_resets_compile_nothing(void) {
  fixture f;
  if (!set_up(&f, models[1])) return;
  mn_session *a = NULL, *b = NULL, *c = NULL;
  const float *x = NULL, *y = NULL;
  CHECK_OK(mn_session_new(f.model, f.params, &(mn_session_config){.prefill = 16}, &a));
  CHECK_OK(mn_session_feed(a, f.tokens, 31, NULL));
  CHECK_OK(mn_session_feed(a, f.tokens, 1, NULL));
  const mn_program *program = mn_session_program(a);
  const int64_t before = mn_program_compiled(program);
  CHECK(before == 3, "segments of 16, whole and padded, and of 1: %lld plans", (long long)before);
  CHECK_OK(mn_session_fork(a, &b));
  CHECK_OK(mn_session_new(f.model, f.params, &(mn_session_config){.prefill = 16, .program = mn_session_program(a)}, &c));
  CHECK_OK(mn_session_reset(b));
  for (int i = 0; i < 20; i++) {
    CHECK_OK(mn_session_feed(b, f.tokens + i, 1, &x));
    CHECK_OK(mn_session_feed(c, f.tokens + i, 1, &y));
    CHECK(memcmp(x, y, sizeof(float) * VOCAB) == 0, "token %d", i);
  }
  CHECK_OK(mn_session_copy(c, a));
  CHECK(mn_session_position(c) == 32 && mn_session_position(b) == 20, "each stands where it stands");
  CHECK(mn_program_compiled(program) == before, "%lld plans more", (long long)(mn_program_compiled(program) - before));
  mn_session_free(a); /* the others keep the program */
  CHECK_OK(mn_session_feed(b, f.tokens, 31, &x));
  mn_session_free(b);
  mn_session_free(c);
  tear_down(&f);
}

static const char *const kinds[] = {"type: attention, heads: 2, max_context: 128",
                                    "type: attention, heads: 2, window: 7, persistent: 2",
                                    "type: titans_mac, heads: 2, chunk: 4, segment: 16, persistent: 1",
                                    "type: titans_mag, heads: 2, chunk: 4, window: 8",
                                    "type: gated_deltanet, heads: 2",
                                    "type: aaren, heads: 2"};
enum { KINDS = sizeof kinds / sizeof *kinds };

static bool set_up_kind(fixture *f, int k) {
  char *text = mn_format("{vocab_size: %d, d_model: 16, layers: 2, block: {mixer: {%s}, hidden: 8}}", VOCAB, kinds[k]);
  bool ok = set_up(f, text);
  free(text);
  return ok;
}

/* Streams of three lengths become the rows of one batch, go on together, are saved, loaded and reset by row. */
static void rows_stand_where_they_stand(void) {
  static const int length[3] = {5, 32, 17};
  for (int k = 0; k < KINDS; k++) {
    fixture f;
    if (!set_up_kind(&f, k)) continue;
    const char *path = "rows.safetensors";
    mn_session *one[3] = {NULL}, *all = NULL, *again = NULL;
    const float *x = NULL, *y = NULL;
    CHECK_OK(mn_session_new(f.model, f.params, &(mn_session_config){.batch = 3, .prefill = 16}, &all));
    for (int b = 0; b < 3; b++) {
      CHECK_OK(mn_session_new(f.model, f.params, &(mn_session_config){.prefill = 16, .program = mn_session_program(all)}, &one[b]));
      CHECK_OK(mn_session_feed(one[b], f.tokens, length[b], NULL));
      CHECK_OK(mn_session_copy_row(all, b, one[b], 0));
    }
    CHECK(mn_session_position(all) == 32 && mn_session_row_position(all, 2) == 17, "where they stand");
    CHECK_OK(mn_session_fork(all, &again));
    CHECK_OK(mn_session_save(all, path));
    CHECK_OK(mn_session_reset_rows(again, (bool[]){true, false, true}));
    CHECK(mn_session_row_position(again, 0) == 0 && mn_session_row_position(again, 1) == 32, "one row begins anew");
    CHECK_OK(mn_session_load(again, path));
    CHECK(mn_session_row_position(again, 0) == 5 && mn_session_row_position(again, 1) == 32, "loaded by row");
    int32_t tokens[3 * 20];
    for (int b = 0; b < 3; b++) memcpy(tokens + b * 20, f.tokens + length[b], sizeof(int32_t) * 20);
    CHECK_OK(mn_session_feed(again, tokens, 20, &x));
    for (int b = 0; b < 3; b++) {
      CHECK_OK(mn_session_feed(one[b], f.tokens + length[b], 20, &y));
      double e = distance(y, x + b * VOCAB, VOCAB);
      CHECK(e < 1e-4, "%s: row %d is off by %g", kinds[k], b, e);
    }
    for (int b = 0; b < 3; b++) mn_session_free(one[b]);
    mn_session_free(all);
    mn_session_free(again);
    tear_down(&f);
  }
}

/* Rows are copied as far as they are in use, and nobody reads what is left behind: streams that end and begin, and go from row to row, are
 * as streams of their own, and so are those that are saved, as far as they are in use, and loaded over longer ones. */
static void rows_are_whole_where_they_are_read(void) {
  for (int k = 0; k < KINDS; k++) {
    fixture f;
    if (!set_up_kind(&f, k)) continue;
    mn_session *one = NULL, *batch = NULL, *full = NULL;
    const float *x = NULL, *y = NULL;
    CHECK_OK(mn_session_new(f.model, f.params, &(mn_session_config){.prefill = 16}, &one));
    CHECK_OK(
        mn_session_new(f.model, f.params, &(mn_session_config){.batch = 2, .prefill = 16, .program = mn_session_program(one)}, &batch));
    for (int n = 40; n >= 8; n /= 2) { /* each shorter than the one before it */
      int32_t next[2] = {f.tokens[n], f.tokens[n + 1]};
      CHECK_OK(mn_session_reset(one));
      CHECK_OK(mn_session_feed(one, f.tokens, n, NULL));
      CHECK_OK(mn_session_copy_row(batch, n / 8 % 2, one, 0));
      CHECK_OK(mn_session_copy_row(batch, 1 - n / 8 % 2, batch, n / 8 % 2));
      CHECK_OK(mn_session_feed_rows(batch, next, 1, (int32_t[]){1, 1}, &x));
      for (int b = 0; b < 2; b++) {
        CHECK_OK(mn_session_new(f.model, f.params, &(mn_session_config){.prefill = 16, .program = mn_session_program(one)}, &full));
        CHECK_OK(mn_session_feed(full, f.tokens, n, NULL));
        CHECK_OK(mn_session_feed(full, &next[b], 1, &y));
        CHECK(distance(y, x + b * VOCAB, VOCAB) < 1e-5, "%s: %d tokens, row %d is off by %g", kinds[k], n, b,
              distance(y, x + b * VOCAB, VOCAB));
        mn_session_free(full);
      }
    }
    CHECK_OK(mn_session_save(batch, "short.safetensors"));
    CHECK_OK(mn_session_feed_rows(batch, f.tokens, 8, (int32_t[]){8, 5}, &x));
    CHECK_OK(mn_session_load(batch, "short.safetensors"));
    int32_t last[2] = {f.tokens[3], f.tokens[4]};
    float after[2 * VOCAB];
    CHECK_OK(mn_session_feed_rows(batch, last, 1, (int32_t[]){1, 1}, &x));
    memcpy(after, x, sizeof after);
    mn_session *fresh = NULL;
    CHECK_OK(
        mn_session_new(f.model, f.params, &(mn_session_config){.batch = 2, .prefill = 16, .program = mn_session_program(one)}, &fresh));
    CHECK_OK(mn_session_load(fresh, "short.safetensors"));
    CHECK_OK(mn_session_feed_rows(fresh, last, 1, (int32_t[]){1, 1}, &x));
    CHECK(memcmp(after, x, sizeof after) == 0, "%s: what was saved is another stream", kinds[k]);
    mn_session_free(fresh);
    mn_session_free(one);
    mn_session_free(batch);
    tear_down(&f);
  }
}

/* Rows of different lengths in one call are the rows, each alone; a row of none stays where it is. */
static void rows_have_lengths_of_their_own(void) {
  for (int k = 0; k < KINDS; k++) {
    fixture f;
    if (!set_up_kind(&f, k)) continue;
    mn_session *all = NULL, *one = NULL;
    const float *x = NULL, *y = NULL;
    static const int32_t count[2][3] = {{29, 3, 16}, {5, 30, 0}};
    int32_t tokens[3 * 30];
    CHECK_OK(mn_session_new(f.model, f.params, &(mn_session_config){.batch = 3, .prefill = 16}, &all));
    CHECK_OK(mn_session_new(f.model, f.params, &(mn_session_config){.prefill = 16, .program = mn_session_program(all)}, &one));
    for (int b = 0; b < 3; b++)
      for (int t = 0; t < 30; t++) tokens[b * 30 + t] = t < count[0][b] ? f.tokens[t + b] : -7; /* not looked at */
    CHECK_OK(mn_session_feed_rows(all, tokens, 30, count[0], NULL));
    for (int b = 0; b < 3; b++)
      for (int t = 0; t < 30; t++) tokens[b * 30 + t] = t < count[1][b] ? f.tokens[t + b + 20] : -7;
    CHECK_OK(mn_session_feed_rows(all, tokens, 30, count[1], &x));
    for (int b = 0; b < 3; b++) {
      CHECK_OK(mn_session_reset(one));
      CHECK_OK(mn_session_feed(one, f.tokens + b, count[0][b], &y));
      if (count[1][b]) CHECK_OK(mn_session_feed(one, f.tokens + b + 20, count[1][b], &y));
      double e = distance(y, x + b * VOCAB, VOCAB);
      CHECK(e < 1e-4, "%s: row %d is off by %g", kinds[k], b, e);
      CHECK(mn_session_row_position(all, b) == count[0][b] + count[1][b], "%s: row %d stands at %d", kinds[k], b,
            (int)mn_session_row_position(all, b));
    }
    CHECK(mn_session_feed_rows(all, tokens, 30, (int32_t[]){1, 31, 0}, NULL) == MN_ERR_ARG, "more than there are");
    mn_session_free(all);
    mn_session_free(one);
    tear_down(&f);
  }
}

static void count_loops(void *ctx, const char *text) { *(int *)ctx += strstr(text, " 32 times") != NULL; }

/* A memory by segments goes through whole segments of its own where it begins at their multiple, and a stream that stands elsewhere
 * comes there first: nothing loops over 32 single tokens. */
static void segments_are_told_where_they_begin(void) {
  fixture f;
  if (!set_up_kind(&f, 2)) return;
  static float all[N * VOCAB];
  whole(&f, all);
  mn_session *s = NULL;
  const float *logits = NULL;
  CHECK_OK(mn_session_new(f.model, f.params, &(mn_session_config){.prefill = 32}, &s));
  for (int64_t at = 0, n; s && at < N; at += n) { /* 3, 40, 32: two of the pieces begin in the middle */
    n = at == 0 ? 3 : at == 3 ? 40 : N - 43;
    CHECK_OK(mn_session_feed(s, f.tokens + at, n, &logits));
    double e = logits ? distance(all + (at + n - 1) * VOCAB, logits, VOCAB) : 1;
    CHECK(e < 1e-4, "after %lld tokens: %g", (long long)(at + n), e);
  }
  int64_t alignment = 0;
  CHECK_OK(mn_program_alignment(mn_session_program(s), 32, &alignment));
  CHECK(alignment == 16, "%lld", (long long)alignment);
  mn_routine *r = NULL;
  for (int told = 0; told < 2; told++) {
    int loops = 0;
    const int64_t before = mn_program_compiled(mn_session_program(s));
    CHECK_OK(mn_program_enter(mn_session_program(s), &(mn_form){.batch = 1, .length = 32, .lengths = true, .multiple = told ? 16 : 1}, &r));
    mn_plan_describe(mn_routine_plan(r), count_loops, &loops);
    mn_program_leave(mn_session_program(s));
    CHECK((loops == 0) == told, "told %d: %d loops", told, loops);
    CHECK(mn_program_compiled(mn_session_program(s)) - before == !told, "the stream had used the form that is told");
  }
  mn_session_free(s);
  tear_down(&f);
}

static void wrong_files_are_refused(void) {
  fixture f, other;
  if (!set_up(&f, models[1]) || !set_up(&other, models[0])) return;
  mn_session *a = NULL, *b = NULL;
  const char *path = "session-bad.safetensors";
  CHECK_OK(mn_session_new(f.model, f.params, &(mn_session_config){0}, &a));
  CHECK_OK(mn_session_new(other.model, other.params, &(mn_session_config){0}, &b));
  CHECK_OK(mn_session_feed(a, f.tokens, 20, NULL));
  CHECK_OK(mn_session_save(a, path));
  CHECK(mn_session_load(b, path) == MN_ERR_CONFIG && strstr(mn_message(), "another model"), "%s", mn_message());
  char *data = NULL;
  size_t n = 0;
  CHECK_OK(mn_file_read(path, 1 << 24, &data, &n));
  for (int k = 0; k < 3 && data; k++) { /* cut short; one byte changed; empty */
    char *copy = malloc(n);
    memcpy(copy, data, n);
    if (k == 1) copy[n - 9] ^= 1;
    CHECK_OK(mn_file_write(path, copy, k == 0 ? n / 2 : k == 1 ? n : 0));
    mn_status s = mn_session_load(a, path);
    CHECK(s == MN_ERR_FORMAT, "damage %d: %s %s", k, mn_status_name(s), mn_message());
    CHECK(mn_session_position(a) == 20, "the session was touched");
    free(copy);
  }
  free(data);
  mn_session_free(a);
  mn_session_free(b);
  tear_down(&f);
  tear_down(&other);
}

static void scores_are_the_logits_likelihoods(void) {
  fixture f;
  if (!set_up(&f, models[0])) return;
  static float all[N * VOCAB], nll[N];
  whole(&f, all);
  mn_session *s = NULL;
  CHECK_OK(mn_session_new(f.model, f.params, &(mn_session_config){.prefill = 16}, &s));
  CHECK_OK(mn_session_score(s, f.tokens, f.tokens + 1, N - 1, nll));
  for (int t = 0; t + 1 < N; t++) {
    double sum = 0;
    for (int v = 0; v < VOCAB; v++) sum += exp((double)all[t * VOCAB + v]);
    double expect = log(sum) - (double)all[t * VOCAB + f.tokens[t + 1]];
    CHECK(fabs(expect - (double)nll[t]) < 1e-4 * expect, "token %d: %g instead of %g", t, (double)nll[t], expect);
  }
  CHECK(mn_session_feed(s, (int32_t[]){VOCAB}, 1, NULL) == MN_ERR_ARG, "a token outside the vocabulary was taken");
  mn_session_free(s);
  tear_down(&f);
}

static void samplers_keep_to_their_sets(void) {
  float logits[6] = {0, 3, 1, 2, -1, 2.5f};
  mn_sampling c;
  mn_config_defaults(mn_sampling_fields, &c);
  mn_sampler *s = NULL;
  int32_t t;
  for (int mode = 0; mode < 5; mode++) {
    mn_config_defaults(mn_sampling_fields, &c);
    if (mode == 0) c.temperature = 0;
    if (mode == 1) c.top_k = 2;
    if (mode == 2) c.top_p = 0.5, c.temperature = 1;
    if (mode == 3) c.min_p = 0.5, c.temperature = 1;
    if (mode == 4) c.temperature = 0, c.repetition_penalty = 10;
    CHECK_OK(mn_sampler_new(&c, 6, &s));
    for (int i = 0; i < 200; i++) {
      CHECK_OK(mn_sampler_next(s, 0, i, logits, &t));
      if (mode == 0) CHECK(t == 1, "greedy took %d", t);
      if (mode == 1) CHECK(t == 1 || t == 5, "top-k took %d", t);
      if (mode == 2) CHECK(t == 1 || t == 5, "top-p took %d", t); /* 0.47, 0.29, ... */
      if (mode == 3) CHECK(t == 1 || t == 5, "min-p took %d", t);
      if (mode == 4 && i == 1) CHECK(t == 5, "the penalty did not move the choice: %d", t);
    }
    mn_sampler_free(s);
  }
  logits[2] = NAN;
  CHECK_OK(mn_sampler_new(&c, 6, &s));
  CHECK(mn_sampler_next(s, 0, 0, logits, &t) == MN_ERR_NUMERIC, "NaN was sampled from");
  mn_sampler_free(s);
}

/* Tokens drawn one after the other, from the logits after `first`, into drawn[from..N). saved: the session after each. */
static void draw(mn_session *s, int64_t stream, int32_t first, int from, int32_t drawn[N], const char *saved) {
  mn_sampling c;
  mn_sampler *sampler = NULL;
  const float *logits = NULL;
  mn_config_defaults(mn_sampling_fields, &c);
  c.temperature = 1.5;
  CHECK_OK(mn_sampler_new(&c, VOCAB, &sampler));
  CHECK_OK(mn_session_feed(s, &first, 1, &logits));
  for (int i = from; sampler && logits && i < N; i++) {
    CHECK_OK(mn_sampler_next(sampler, stream, mn_session_position(s), logits, &drawn[i]));
    if (saved && i == N / 2) CHECK_OK(mn_session_save(s, saved));
    CHECK_OK(mn_session_feed(s, &drawn[i], 1, &logits));
  }
  mn_sampler_free(sampler);
}

/* A draw is of the seed, the stream and its position, whoever draws and whenever. */
static void a_stream_that_goes_on_draws_what_it_would_have_drawn(void) {
  fixture f;
  const char *path = "session-drawn.safetensors";
  int32_t whole[N] = {0}, rest[N] = {0}, other[N] = {0};
  mn_session *a = NULL, *b = NULL, *c = NULL;
  int same = 0;
  if (!set_up(&f, models[0])) return;
  CHECK_OK(mn_session_new(f.model, f.params, &(mn_session_config){.prefill = 16}, &a));
  CHECK_OK(mn_session_new(f.model, f.params, &(mn_session_config){.prefill = 16}, &b));
  CHECK_OK(mn_session_new(f.model, f.params, &(mn_session_config){.prefill = 16}, &c));
  if (a && b && c) {
    draw(a, 0, 7, 0, whole, path);
    CHECK_OK(mn_session_load(b, path));
    draw(b, 0, whole[N / 2], N / 2 + 1, rest, NULL);
    draw(c, 1, 7, 0, other, NULL);
    CHECK(!memcmp(whole + N / 2 + 1, rest + N / 2 + 1, (size_t)(N - N / 2 - 1) * sizeof *rest), "another text after a restart");
    for (int i = 0; i < N; i++) same += whole[i] == other[i];
    CHECK(same < N / 2, "two streams draw alike: %d of %d", same, N);
  }
  mn_session_free(a);
  mn_session_free(b);
  mn_session_free(c);
  tear_down(&f);
}

int main(void) {
  RUN(streaming_gives_the_logits_of_training);
  RUN(a_saved_session_goes_on_to_the_same_bits);
  RUN(forks_and_resets_compile_nothing);
  RUN(rows_stand_where_they_stand);
  RUN(rows_are_whole_where_they_are_read);
  RUN(rows_have_lengths_of_their_own);
  RUN(segments_are_told_where_they_begin);
  RUN(wrong_files_are_refused);
  RUN(scores_are_the_logits_likelihoods);
  RUN(samplers_keep_to_their_sets);
  RUN(a_stream_that_goes_on_draws_what_it_would_have_drawn);
  return test_end();
}
