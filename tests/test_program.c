/* What must be true of a program: a form is compiled once, whoever runs it; streams that share one do not disturb each other;
 * states of any batch begin with the same first values; a form that is told what its rows' positions are is refused where they are
 * not; its plans take turns in one room; a builder's faults are the program's. */
#include "format/yaml.h"
#include "run/program.h"
#include "test.h"

enum { VOCAB = 40, T = 4 };

typedef struct fixture {
  mn_arena *arena;
  mn_backend *backend;
  mn_model *model;
  mn_params *params;
  mn_program *program;
} fixture;

/* what 0: the last token's logits; 1: a fault; 2: logits and an input that is never put. */
static mn_status builder(void *ctx, mn_scope *s, const mn_form *form, mn_parts *parts) {
  const mn_model *m = ctx;
  mn_graph *g = mn_scope_graph(s);
  mn_tensor *tokens = mn_parts_feed(parts, "tokens", MN_I32, MN_SHAPE(form->batch, form->length));
  mn_tensor *y = mn_model_apply(s, m, tokens);
  if (form->what == 1) mn_add(g, y, mn_scalar(g, MN_I32, 1));
  if (form->what == 2) y = mn_add(g, y, mn_parts_feed(parts, "more", MN_F32, MN_SHAPE(VOCAB)));
  mn_parts_give(parts, "logits", y);
  return MN_OK;
}

static bool set_up(fixture *f, const char *mixer, bool carried) {
  const mn_value *v = NULL;
  char *text = mn_format("{vocab_size: %d, d_model: 16, layers: 2, block: {mixer: {%s}, hidden: 8}}", VOCAB, mixer);
  *f = (fixture){.arena = mn_arena_new()};
  CHECK_OK(mn_yaml_parse(f->arena, "test", text, strlen(text), &v));
  free(text);
  CHECK_OK(mn_backend_cpu_new(1, &f->backend));
  CHECK_OK(mn_model_parse(v, "test", 0, &f->model));
  if (f->model) CHECK_OK(mn_params_new(f->model, f->backend, MN_F32, 7, &f->params));
  mn_program_config c = {.backend = f->backend, .params = f->params, .builder = builder, .ctx = f->model};
  c.build = (mn_build){.param = MN_F32, .compute = MN_F32, .carried = carried};
  CHECK_OK(mn_program_new(&c, &f->program));
  return f->params && f->program;
}

static void tear_down(fixture *f) {
  mn_program_free(f->program);
  mn_params_free(f->params);
  mn_model_free(f->model);
  mn_backend_free(f->backend);
  mn_arena_free(f->arena);
}

/* Feeds B rows of n tokens; the logits of row `row`'s last. */
static mn_status feed(fixture *f, mn_states *s, int64_t B, int64_t n, int64_t multiple, const int32_t *tokens, int64_t row, float *logits) {
  mn_routine *r;
  MN_TRY(mn_program_enter(f->program, &(mn_form){.batch = B, .length = n, .multiple = multiple}, &r));
  mn_status status = mn_routine_put(r, mn_routine_feed(r, "tokens"), tokens);
  if (status == MN_OK) status = mn_routine_run(r, s);
  if (status == MN_OK) status = mn_routine_get(r, 0, ((row + 1) * n - 1) * VOCAB, VOCAB, logits);
  mn_program_leave(f->program);
  return status;
}

static const int32_t a[] = {1, 2, 3, 4, 5, 6, 7, 8}, b[] = {9, 8, 7, 6, 5, 4, 3, 2};

static void streams_share_routines_and_nothing_else(void) {
  static const char *const mixers[] = {"type: attention, heads: 2, window: 5, persistent: 1", "type: gated_deltanet, heads: 2",
                                       "type: titans_mag, heads: 2, chunk: 4"};
  for (int m = 0; m < 3; m++) {
    fixture f;
    if (!set_up(&f, mixers[m], true)) continue;
    mn_states *s[2] = {NULL}, *alone = NULL;
    float x[2][VOCAB], y[VOCAB];
    CHECK_OK(mn_program_states(f.program, 1, &alone));
    for (int i = 0; i < 2; i++) CHECK_OK(mn_program_states(f.program, 1, &s[i]));
    const int64_t before = mn_program_compiled(f.program);
    for (int k = 0; k < 2; k++) { /* by turns, on one routine */
      CHECK_OK(feed(&f, s[0], 1, T, 1, a + k * T, 0, x[0]));
      CHECK_OK(feed(&f, s[1], 1, T, 1, b + k * T, 0, x[1]));
    }
    CHECK(mn_program_compiled(f.program) == before + 1, "%lld plans for one form", (long long)(mn_program_compiled(f.program) - before));
    for (int i = 0; i < 2; i++) { /* each alone */
      const mn_states *first = NULL;
      CHECK_OK(mn_program_first(f.program, &first));
      CHECK_OK(mn_states_reset(alone, first, NULL));
      for (int k = 0; k < 2; k++) CHECK_OK(feed(&f, alone, 1, T, 1, (i ? b : a) + k * T, 0, y));
      CHECK(memcmp(x[i], y, sizeof y) == 0, "%s: stream %d is disturbed by the other", mixers[m], i);
    }
    CHECK(mn_program_compiled(f.program) == before + 1, "beginning anew compiled");
    for (int i = 0; i < 2; i++) mn_states_free(s[i]);
    mn_states_free(alone);
    tear_down(&f);
  }
}

/* A batch whose rows stand at different positions, put together from streams, goes on as they do. */
static void rows_at_different_positions_are_one_batch(void) {
  static const char *const mixers[] = {"type: attention, heads: 2, window: 3, sinks: 1", "type: titans_mac, heads: 2, chunk: 2, segment: 4",
                                       "type: titans_lmm, heads: 2, chunk: 4", "type: aaren, heads: 2"};
  for (int m = 0; m < 4; m++) {
    fixture f;
    if (!set_up(&f, mixers[m], true)) continue;
    mn_states *one[2] = {NULL}, *both = NULL;
    float x[VOCAB], y[VOCAB];
    for (int i = 0; i < 2; i++) CHECK_OK(mn_program_states(f.program, 1, &one[i]));
    CHECK_OK(mn_program_states(f.program, 2, &both));
    CHECK_OK(feed(&f, one[0], 1, 4, 1, a, 0, x));
    CHECK_OK(feed(&f, one[1], 1, 1, 1, b, 0, x));
    for (int i = 0; i < 2; i++) CHECK_OK(mn_states_copy_row(both, i, one[i], 0));
    CHECK(mn_states_position(both)[0] == 4 && mn_states_position(both)[1] == 1, "where the rows stand");
    const int32_t next[] = {a[4], a[5], b[1], b[2]};
    for (int row = 0; row < 2; row++) {
      mn_states *again = NULL;
      CHECK_OK(mn_states_clone(both, &again));
      CHECK_OK(feed(&f, again, 2, 2, 1, next, row, x));
      mn_states_free(again);
      CHECK_OK(feed(&f, one[row], 1, 2, 1, next + 2 * row, 0, y));
      double worst = 0;
      for (int k = 0; k < VOCAB; k++) worst = fmax(worst, fabs((double)x[k] - (double)y[k]));
      CHECK(worst < 1e-5, "%s: row %d is off by %g", mixers[m], row, worst);
    }
    CHECK(feed(&f, both, 2, 2, 2, next, 0, x) == MN_ERR_ARG && strstr(mn_message(), "row 1 stands at 1"), "%s", mn_message());
    for (int i = 0; i < 2; i++) mn_states_free(one[i]);
    mn_states_free(both);
    tear_down(&f);
  }
}

static void what_a_model_knows_is_asked_for_once(void) {
  fixture f;
  if (!set_up(&f, "type: titans_mac, heads: 2, chunk: 2, segment: 8", true)) return;
  int64_t alignment = 0;
  mn_limit limit;
  CHECK_OK(mn_program_alignment(f.program, 16, &alignment));
  CHECK(alignment == 8, "chunks of 2 in segments of 8: %lld", (long long)alignment);
  CHECK_OK(mn_program_limit(f.program, &limit));
  CHECK(limit.tokens == MN_LIMIT_NONE && mn_program_compiled(f.program) == 0, "a look compiles nothing");
  tear_down(&f);
  if (!set_up(&f, "type: attention, heads: 2, max_context: 12", true)) return;
  CHECK_OK(mn_program_alignment(f.program, 8, &alignment));
  CHECK_OK(mn_program_limit(f.program, &limit));
  CHECK(alignment == 1 && limit.tokens == 12 && strcmp(limit.key, "max_context") == 0, "%lld %lld", (long long)alignment,
        (long long)limit.tokens);
  tear_down(&f);
}

/* A short form's plan lies where a longer one has run since, and that made the room larger: what it gives has the same bits. */
static void plans_take_turns_in_one_room(void) {
  enum { MOST = 64 };
  static const int64_t lengths[] = {1, 8, 1, MOST, 8, 1, MOST};
  fixture f;
  if (!set_up(&f, "type: attention, heads: 2, kv_heads: 1", false)) return;
  static float y[MOST * VOCAB], before[MOST + 1][MOST * VOCAB];
  bool known[MOST + 1] = {false};
  size_t block = 0, results = 0, all = 0;
  for (size_t k = 0; k < sizeof lengths / sizeof *lengths; k++) {
    const int64_t n = lengths[k];
    int32_t tokens[MOST];
    mn_routine *r;
    for (int64_t i = 0; i < n; i++) tokens[i] = (int32_t)(7 * i % VOCAB);
    CHECK_OK(mn_program_enter(f.program, &(mn_form){.batch = 1, .length = n}, &r));
    if (!r) break;
    const mn_plan_report *report = mn_plan_get_report(mn_routine_plan(r));
    block = report->bytes_planned > block ? report->bytes_planned : block;
    results = report->bytes_outputs > results ? report->bytes_outputs : results;
    if (!known[n]) all += report->bytes_planned + report->bytes_outputs;
    CHECK_OK(mn_routine_put(r, 0, tokens));
    CHECK_OK(mn_routine_run(r, NULL));
    CHECK_OK(mn_routine_get_all(r, 0, y));
    mn_program_leave(f.program);
    if (known[n]) CHECK(!memcmp(y, before[n], sizeof(float) * (size_t)(n * VOCAB)), "%lld tokens say something else", (long long)n);
    memcpy(before[n], y, sizeof(float) * (size_t)(n * VOCAB));
    known[n] = true;
  }
  CHECK(mn_program_room_bytes(f.program) == block + results && block + results < all, "%zu bytes, of %zu and %zu",
        mn_program_room_bytes(f.program), block, results);
  tear_down(&f);
}

static void faults_are_said(void) {
  fixture f;
  mn_routine *r;
  if (!set_up(&f, "type: aaren, heads: 2", false)) return;
  CHECK(mn_program_enter(f.program, &(mn_form){.batch = 1, .length = 2, .what = 1}, &r) != MN_OK && !r, "a fault of the graph");
  CHECK(mn_program_enter(f.program, &(mn_form){.batch = 0, .length = 2}, &r) == MN_ERR_ARG, "no rows");
  CHECK_OK(mn_program_enter(f.program, &(mn_form){.batch = 1, .length = 2, .what = 2}, &r));
  if (r) {
    float x[2 * VOCAB], y[2 * VOCAB], more[VOCAB] = {1};
    CHECK(mn_routine_feeds(r) == 2 && mn_routine_feed(r, "more") == 1 && mn_routine_feed(r, "none") == -1, "feeds by name");
    CHECK(strcmp(mn_routine_result_name(r, 0), "logits") == 0 && mn_routine_result_shape(r, 0)->dim[2] == VOCAB, "results by name");
    CHECK_OK(mn_routine_run(r, NULL));
    CHECK_OK(mn_routine_get_all(r, 0, x));
    CHECK_OK(mn_routine_put(r, 1, more));
    CHECK_OK(mn_routine_run(r, NULL));
    CHECK_OK(mn_routine_get_all(r, 0, y));
    CHECK(y[0] == x[0] + 1 && y[1] == x[1], "what is not put is zero");
    CHECK(mn_routine_put(r, 2, more) == MN_ERR_ARG && mn_routine_get(r, 0, 1, 2 * VOCAB, x) == MN_ERR_ARG, "past the end");
    mn_program_leave(f.program);
  }
  tear_down(&f);
}

int main(void) {
  RUN(streams_share_routines_and_nothing_else);
  RUN(rows_at_different_positions_are_one_batch);
  RUN(what_a_model_knows_is_asked_for_once);
  RUN(plans_take_turns_in_one_room);
  RUN(faults_are_said);
  return test_end();
}
