/* What must be true of evaluation by streams: an oracle is perfect everywhere and a reader with a short memory exactly
 * as far as it reaches; a model answers greedily as its session does; parallel and streamed forms agree through a saved
 * file; a stream of needles costs no memory, and a restart from a file changes no bit. */
#include <jansson.h>
#include <sys/wait.h>

#include "base/file.h"
#include "format/yaml.h"
#include "eval/needle_eval.h"
#include "eval/task_eval.h"
#include "task/prose.h"
#include "model_fixture.h"
#include "scratch.h"

#define SCRATCH "task-eval.session"
#define TEXT    "task-eval.txt"

static bool set_up(fixture *f, const char *text) { return fixture_open(f, 7, "%s", text); }

/* ---- text: readers that are not models ---- */
typedef struct reader { /* solves from the last `reach` bytes of a prompt */
  const mn_task *task;
  size_t reach;
} reader;

static mn_status read_back(void *ctx, const mn_task_text *sample, int64_t new_tokens, mn_text *out, int64_t *prompt_tokens) {
  const reader *r = ctx;
  size_t n = strlen(sample->prompt);
  (void)new_tokens;
  *prompt_tokens = (int64_t)n;
  if (r->reach < n) { /* the needle is out of sight */
    const char *needle = strstr(sample->prompt, "pass key is ");
    if (needle && (size_t)(needle - sample->prompt) < n - r->reach) return MN_OK;
  }
  char *answer = r->task->def->oracle_text(r->task, sample->prompt);
  if (!answer) return MN_ERR_MEMORY;
  mn_text_add(out, answer);
  free(answer);
  return MN_OK;
}

static const mn_value *settings_of(mn_arena *arena, const char *text) {
  const mn_value *v = NULL;
  CHECK_OK(mn_yaml_parse(arena, "test", text, strlen(text), &v));
  return v;
}

static void an_oracle_is_perfect_at_every_length_and_depth(void) {
  static const char *const lengths[] = {"1500", "3000"};
  static const char *const tasks[] = {"passkey", "niah_single_1", "niah_single_2", "niah_single_3", "niah_single_w"};
  mn_text prose = {0};
  for (int i = 0; i < 4000; i++) mn_text_addf(&prose, "%s%s", i % 3 ? "calm" : "seas", i % 9 == 8 ? ". " : " ");
  CHECK_OK(mn_file_write(TEXT, prose.data, prose.len));
  mn_text_free(&prose);
  for (size_t k = 0; k < sizeof tasks / sizeof *tasks; k++) {
    mn_arena *arena = mn_arena_new();
    const mn_value *settings = settings_of(arena, k >= 2 ? "{text: " TEXT "}" : "{seed: 4}");
    mn_task *task = NULL;
    CHECK_OK(mn_task_open(tasks[k], settings, &task));
    reader r = {task, SIZE_MAX};
    mn_responder who = {&r, read_back, NULL};
    mn_grid_config c = {.each = {.examples = 3, .split = MN_SPLIT_TEST}, .values = lengths, .n_values = 2, .depths = 3};
    mn_grid g;
    CHECK_OK(mn_eval_grid(tasks[k], settings, &who, &c, &g));
    CHECK(g.rows == 2 && g.columns == 3, "%d x %d", g.rows, g.columns);
    for (int i = 0; i < g.rows * g.columns; i++) {
      int64_t T = i < 3 ? 1500 : 3000;
      CHECK(g.cells[i].right == 3 && g.cells[i].examples == 3 && g.cells[i].score == 1, "%s cell %d: %lld", tasks[k], i,
            (long long)g.cells[i].right);
      CHECK(g.cells[i].longest < T && g.cells[i].longest > T / 4, "%s cell %d: %lld of %lld tokens", tasks[k], i,
            (long long)g.cells[i].longest, (long long)T);
    }
    mn_grid_free(&g);
    mn_task_close(task);
    mn_arena_free(arena);
  }
}

static void a_short_memory_shows_as_an_edge_in_the_heat_map(void) {
  mn_task *task = NULL;
  CHECK_OK(mn_task_open("passkey", NULL, &task));
  reader r = {task, 620};
  mn_responder who = {&r, read_back, NULL};
  static const char *const sizes[] = {"100", "1000"};
  mn_grid_config c = {.each = {.examples = 4, .split = MN_SPLIT_TEST}, .vary = "garbage", .values = sizes, .n_values = 2, .depths = 11};
  mn_grid g;
  CHECK_OK(mn_eval_grid("passkey", NULL, &who, &c, &g));
  for (int k = 0; g.cells && k < 11; k++) {
    CHECK(g.cells[k].right == 4, "depth %d of 100 characters", k);
    /* at depth d the key is 1000 (1 - d/10) characters and about 100 more from the end */
    CHECK(g.cells[11 + k].right == (k >= 5 ? 4 : 0), "depth %d: %lld", k, (long long)g.cells[11 + k].right);
  }
  mn_heatmap map = mn_grid_heatmap(&g, "passkey");
  CHECK(map.n_x == 11 && map.n_y == 2 && map.values[11] == 0 && map.values[21] == 1, "wrong map");
  char *text = mn_heatmap_text(&map, 100, false);
  CHECK(text && strstr(text, "1000") && strstr(text, "50"), "%s", text ? text : "none");
  CHECK_OK(mn_heatmap_write(&map, "task-eval.svg"));
  free(text);
  mn_grid_free(&g);
  mn_task_close(task);
}

static mn_status second_number(void *ctx, const mn_task_text *sample, int64_t new_tokens, mn_text *out, int64_t *prompt_tokens) {
  (void)ctx, (void)new_tokens;
  *prompt_tokens = 1;
  mn_text_addf(out, "maybe 7 or %s", sample->answers[0]);
  return MN_OK;
}

static void only_the_first_run_of_digits_counts(void) {
  mn_task *task = NULL;
  mn_text_eval e;
  mn_responder who = {NULL, second_number, NULL};
  mn_text_eval_config c = {.examples = 5, .split = MN_SPLIT_TEST};
  CHECK_OK(mn_task_open("passkey", NULL, &task));
  CHECK_OK(mn_eval_text(task, &who, &c, &e));
  CHECK(e.right == 0 && e.examples == 5 && e.low == 0, "%lld right", (long long)e.right);
  mn_task_close(task);
  CHECK_OK(mn_task_open("niah_single_1", NULL, &task)); /* contained anywhere */
  CHECK_OK(mn_eval_text(task, &who, &c, &e));
  CHECK(e.right == 5 && e.high == 1, "%lld right", (long long)e.right);
  mn_task_close(task);
}

static mn_status asked_for(void *ctx, const mn_task_text *sample, int64_t new_tokens, mn_text *out, int64_t *prompt_tokens) {
  *(int64_t *)ctx = new_tokens;
  *prompt_tokens = 1;
  mn_text_addf(out, "%s", sample->answers[0]);
  return MN_OK;
}

/* How long an answer may be: what is asked for; else the task's setting; else ten tokens. */
static void an_answer_is_as_long_as_its_task_says(void) {
  static const struct {
    const char *task, *settings;
    int64_t asked, want;
  } cases[] = {{"niah_single_1", "{len: 2000, new_tokens: 37}", 0, 37},
               {"niah_single_1", "{len: 2000, new_tokens: 37}", 6, 6},
               {"niah_single_1", "{len: 2000}", 0, 128},
               {"passkey", "{}", 0, 10},
               {"passkey", "{}", 6, 6}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    mn_arena *arena = mn_arena_new();
    const mn_value *settings = NULL;
    mn_task *task = NULL;
    int64_t seen = 0;
    mn_responder who = {&seen, asked_for, NULL};
    mn_text_eval_config c = {.examples = 1, .new_tokens = cases[i].asked, .split = MN_SPLIT_TEST};
    mn_text_eval e;
    CHECK_OK(mn_yaml_parse(arena, "settings", cases[i].settings, strlen(cases[i].settings), &settings));
    CHECK_OK(mn_task_open(cases[i].task, settings, &task));
    if (task) CHECK_OK(mn_eval_text(task, &who, &c, &e));
    CHECK(seen == cases[i].want, "%s %s: %lld tokens, not %lld", cases[i].task, cases[i].settings, (long long)seen,
          (long long)cases[i].want);
    mn_task_close(task);
    mn_arena_free(arena);
  }
}

static void wrong_grids_are_refused_by_name(void) {
  mn_responder who = {NULL, second_number, NULL};
  mn_grid g;
  mn_grid_config c = {.each = {.examples = 1, .split = MN_SPLIT_TEST}, .values = (const char *const[]){"40"}, .n_values = 1};
  CHECK(mn_eval_grid("passkey", NULL, &who, &c, &g) == MN_ERR_CONFIG && strstr(mn_message(), "40 tokens"), "%s", mn_message());
  c.values = (const char *const[]){"4k"};
  CHECK(mn_eval_grid("passkey", NULL, &who, &c, &g) == MN_ERR_CONFIG && strstr(mn_message(), "4k"), "%s", mn_message());
  c.vary = "garbag";
  CHECK(mn_eval_grid("passkey", NULL, &who, &c, &g) == MN_ERR_CONFIG && strstr(mn_message(), "garbage"), "%s", mn_message());
}

static bool until(void *ctx, const char *what, int64_t done, int64_t total) {
  int64_t *left = ctx;
  CHECK(!what && done >= 1 && total == 6, "example %lld of %lld", (long long)done, (long long)total);
  return --*left > 0;
}

/* A grid of two cells of three examples. */
static void a_listener_ends_a_grid_after_any_example(void) {
  static const atomic_int stop = 1;
  mn_responder who = {NULL, second_number, NULL};
  mn_grid g;
  mn_grid_config c = {.each = {.examples = 3, .split = MN_SPLIT_TEST, .watch = {.progress = until}}, .depths = 2};
  for (int64_t n = 1; n <= 6; n++) {
    int64_t left = n;
    char after[40];
    c.each.watch.ctx = &left;
    snprintf(after, sizeof after, "after %lld examples", (long long)n);
    const mn_status status = mn_eval_grid("passkey", NULL, &who, &c, &g);
    if (n < 6) CHECK(status == MN_ERR_CANCELLED && strstr(mn_message(), after), "%lld: %s", (long long)n, mn_message());
    else CHECK_OK(status); /* there was nothing left to end */
    if (status == MN_OK) mn_grid_free(&g);
  }
  c.each.watch = (mn_watch){.stop = &stop};
  CHECK(mn_eval_grid("passkey", NULL, &who, &c, &g) == MN_ERR_CANCELLED && strstr(mn_message(), "after 0"), "%s", mn_message());
}

/* ---- text: a model ---- */
static const char small[] = "{vocab_size: 256, d_model: 16, layers: 2, blocks: [{mixer: {type: attention, heads: 2, window: 8}},"
                            " {mixer: {type: titans_lmm, heads: 2, chunk: 8}}]}";

static void a_model_answers_as_its_session_does(void) {
  fixture f;
  mn_tokenizer *tok = NULL;
  mn_generator *g = NULL;
  if (!set_up(&f, small)) return;
  CHECK_OK(mn_tokenizer_bytes(NULL, 0, &tok));
  CHECK_OK(mn_generator_new(f.model, f.params, tok, 32, MN_F32, false, &g));
  mn_responder who = mn_generator_responder(g);
  mn_task_text sample = {.prompt = "The pass key is 4711. What is it? What is it? What is it?"};
  mn_text twice[2] = {{0}};
  int64_t n = 0;
  for (int i = 0; i < 2; i++) CHECK_OK(who.answer(who.ctx, &sample, 12, &twice[i], &n)); /* a fresh stream each time */
  CHECK(n == (int64_t)strlen(sample.prompt) && (int64_t)who.count(who.ctx, sample.prompt, (size_t)n) == n, "%lld tokens", (long long)n);
  CHECK(twice[0].len == 12 && twice[0].len == twice[1].len && !memcmp(twice[0].data, twice[1].data, 12), "two answers to one prompt");
  mn_session *s = NULL;
  CHECK_OK(mn_session_new(f.model, f.params, &(mn_session_config){.prefill = 32}, &s));
  int32_t token = 0;
  const float *logits = NULL;
  for (int64_t i = 0; i < n; i++) {
    token = (unsigned char)sample.prompt[i];
    CHECK_OK(mn_session_feed(s, &token, 1, &logits));
  }
  for (int i = 0; i < 12 && logits; i++) {
    token = (int32_t)mn_greedy(logits, 256, NULL);
    CHECK(token == (unsigned char)twice[0].data[i], "byte %d is %d, not %d", i, (unsigned char)twice[0].data[i], token);
    CHECK_OK(mn_session_feed(s, &token, 1, &logits));
  }
  mn_session_free(s);
  mn_text_free(&twice[0]);
  mn_text_free(&twice[1]);
  mn_text_eval e; /* random weights know no key */
  mn_task *task = NULL;
  CHECK_OK(mn_task_open_set("passkey", (const char *const[]){"garbage=100"}, 1, &task));
  CHECK_OK(mn_eval_text(task, &who, &(mn_text_eval_config){.examples = 2, .split = MN_SPLIT_TEST}, &e));
  CHECK(e.right == 0 && e.longest > 300 && e.longest < 400, "%lld right, %lld tokens", (long long)e.right, (long long)e.longest);
  mn_task_close(task);
  mn_generator_free(g);
  mn_tokenizer_free(tok);
  fixture_close(&f);
}

static void not_a_number_is_no_answer(void) {
  CHECK(mn_greedy((const float[]){1, 3, 3, 2}, 4, NULL) == 1, "the first of the largest");
  CHECK(mn_greedy((const float[]){1, NAN, 3}, 3, NULL) == -1 && mn_greedy((const float[]){NAN}, 1, NULL) == -1, "NaN");
}

/* ---- tokens: parallel and streamed ---- */
static void streams_through_a_file_give_the_parallel_form(void) {
  static const char *const models[] = {
      "{vocab_size: 64, d_model: 16, layers: 2, block: {mixer: {type: attention, heads: 2, max_context: 128, conv: 3}, channel: none}}",
      "{vocab_size: 64, d_model: 16, layers: 2, block: {mixer: {type: attention, heads: 2, window: 7}, channel: swiglu}}",
      "{vocab_size: 64, d_model: 16, layers: 2, block: {mixer: {type: titans_lmm, heads: 2, chunk: 8}}}",
      "{vocab_size: 64, d_model: 16, layers: 2, block: {mixer: {type: gated_deltanet, heads: 2}}}",
  };
  mn_task *task = NULL;
  CHECK_OK(mn_task_open_set("mqar", (const char *const[]){"vocab_size=64", "len=48", "kv=4"}, 3, &task));
  for (size_t m = 0; task && m < sizeof models / sizeof *models; m++) {
    fixture f;
    if (!set_up(&f, models[m])) continue;
    mn_stream_eval e;
    mn_stream_eval_config c = {.examples = 7, .batch = 3, .split = MN_SPLIT_TEST, .seed = 5, .scratch = SCRATCH, .compute = MN_F32};
    CHECK_OK(mn_eval_streamed(f.model, f.params, task, &c, &e));
    CHECK(e.difference > 0 && e.difference <= 1e-4, "model %zu: %g", m, e.difference); /* 0 would mean one form twice */
    CHECK(e.parallel.examples == 7 && e.parallel.positions == 28 && e.restores == 3, "%lld examples", (long long)e.parallel.examples);
    CHECK(e.streamed.positions == e.parallel.positions && fabs(e.streamed.acc_sum - e.parallel.acc_sum) < 1e-12,
          "model %zu: accuracy %g and %g", m, e.parallel.acc_sum, e.streamed.acc_sum);
    CHECK(e.state_bytes > 0 && !mn_file_exists(SCRATCH), "%zu bytes of state", e.state_bytes);
    fixture_close(&f);
  }
  mn_task_close(task);
  fixture f;
  CHECK_OK(mn_task_open_set("niah_mini", (const char *const[]){"len=80"}, 1, &task));
  if (set_up(&f, models[1])) {
    mn_stream_eval e;
    mn_stream_eval_config c = {.examples = 1, .split = MN_SPLIT_TEST, .scratch = SCRATCH};
    CHECK(mn_eval_streamed(f.model, f.params, task, &c, &e) == MN_ERR_CONFIG && strstr(mn_message(), "vocab_size is 64"), "%s",
          mn_message());
  }
  fixture_close(&f);
  mn_task_close(task);
}

/* ---- the stream of needles: a reader that is not a model ---- */
typedef struct listener { /* keeps every needle, by its key, for `reach` tokens */
  int64_t position, reach;
  int32_t tail[3];
  int n_tail; /* of a needle or query being read; -1: none */
  bool needle;
  int32_t value[MN_WORDS * MN_WORDS][MN_STREAM_VALUE];
  int64_t heard[MN_WORDS * MN_WORDS]; /* position of the needle; -1: never */
} listener;

static int key_of(const listener *l) { return (l->tail[1] - MN_ID_WORD) * MN_WORDS + l->tail[2] - MN_ID_WORD; }

static mn_status listen(void *ctx, const int32_t *tokens, const int32_t *targets, int64_t n, float *nll) {
  listener *l = ctx;
  for (int64_t i = 0; i < n; i++, l->position++) {
    nll[i] = targets[i] < 0 ? 0 : (float)log(2);
    if (tokens[i] == MN_ID_NEEDLE || tokens[i] == MN_ID_QUERY) l->n_tail = 0, l->needle = tokens[i] == MN_ID_NEEDLE;
    if (l->n_tail < 0) continue;
    int at = l->n_tail++;
    if (at < 3) l->tail[at] = tokens[i];
    if (at == 3 && l->needle) l->heard[key_of(l)] = l->position;
    if (at >= 4 && l->needle && at < 4 + MN_STREAM_VALUE) l->value[key_of(l)][at - 4] = tokens[i];
    if (at == (l->needle ? 4 + MN_STREAM_VALUE : 3)) l->n_tail = -1;
  }
  return MN_OK;
}

static mn_status reply(void *ctx, int32_t token, int n, int32_t *answer, double *confidence) {
  const listener *l = ctx;
  CHECK(token == MN_ID_SEP && l->n_tail == 3 && !l->needle, "asked outside a query");
  int key = key_of(l);
  *confidence = 1;
  for (int i = 0; i < n; i++) answer[i] = MN_ID_UNKNOWN;
  if (l->heard[key] >= 0 && l->position - l->heard[key] <= l->reach) memcpy(answer, l->value[key], (size_t)n * sizeof *answer);
  return MN_OK;
}

static listener *listener_new(int64_t reach) {
  listener *l = calloc(1, sizeof *l);
  l->reach = reach;
  l->n_tail = -1;
  for (int i = 0; i < MN_WORDS * MN_WORDS; i++) l->heard[i] = -1;
  return l;
}

static void recall_falls_where_the_memory_ends(void) {
  mn_needle_eval_config c;
  mn_config_defaults(mn_needle_eval_fields, &c);
  CHECK_OK(mn_fields_check(mn_needle_eval_fields));
  c.tokens = 80000;
  for (int k = 0; k < 2; k++) {
    listener *l = listener_new(k ? 2048 : INT64_MAX);
    mn_needle_eval e;
    mn_needle_reader r = {l, listen, reply, NULL};
    CHECK_OK(mn_eval_needles_with(&r, &c, &(mn_needle_eval_run){.segment = 100}, &e));
    CHECK(l->position == c.tokens && e.stream.max_log2 == 16, "%lld tokens, distances to 2^%d", (long long)l->position, e.stream.max_log2);
    CHECK(e.unknown.asked >= 4 && e.unknown.right == e.unknown.asked, "unknown keys: %lld of %lld", (long long)e.unknown.right,
          (long long)e.unknown.asked);
    CHECK(e.updated.asked > 0 && e.distractor.asked > 0, "%lld updated", (long long)e.updated.asked);
    CHECK(fabs(e.bits - 1) < 1e-6, "%g bits", e.bits);
    int64_t sum = 0, scored = 0;
    for (int o = 8; o < 16; o++) {
      const mn_needle_octave *x = &e.octave[o];
      bool far = k && o >= 11;
      CHECK(x->asked >= 4 && x->right == (far ? 0 : x->asked), "octave %d: %lld of %lld", o, (long long)x->right, (long long)x->asked);
      CHECK(far ? x->low == 0 && x->high < 0.6 : x->high == 1 && x->low > 0.4, "octave %d: %g to %g", o, x->low, x->high);
      sum += x->asked;
    }
    CHECK(sum == e.all.asked, "%lld asked", (long long)sum);
    CHECK(k ? e.half_life > 1024 && e.half_life < 4096 : isinf(e.half_life), "half-life %g", e.half_life);
    for (int i = 0; i < 10; i++) {
      scored += e.tenth[i].scored;
      CHECK(e.tenth[i].end > e.tenth[i].begin && (i == 0 || e.tenth[i].begin == e.tenth[i - 1].end), "tenth %d", i);
    }
    CHECK(scored > 70000 && scored < 80000 && e.tenth[9].end == c.tokens, "%lld scored", (long long)scored);
    free(l);
  }
}

static bool half(void *ctx, const char *what, int64_t done, int64_t total) {
  int64_t *last = ctx;
  CHECK(strstr(what, " needles") && done > *last && total == 80000, "%s at %lld", what, (long long)done);
  *last = done;
  return done < 40000;
}

static void a_listener_ends_a_stream_of_needles(void) {
  mn_needle_eval_config c;
  mn_config_defaults(mn_needle_eval_fields, &c);
  c.tokens = 80000;
  listener *l = listener_new(INT64_MAX);
  mn_needle_eval e;
  mn_needle_reader r = {l, listen, reply, NULL};
  int64_t last = 0;
  const mn_needle_eval_run run = {.segment = 100, .watch = {.progress = half, .ctx = &last}};
  CHECK(mn_eval_needles_with(&r, &c, &run, &e) == MN_ERR_CANCELLED && strstr(mn_message(), "of 80000 tokens"), "%s", mn_message());
  CHECK(last >= 40000 && last <= 40100 && l->position == last, "the stream ended at %lld", (long long)last);
  free(l);
}

/* ---- the stream of needles: a model ---- */
static const char streamer[] = "{vocab_size: 512, d_model: 16, layers: 2, blocks: [{mixer: {type: attention, heads: 2, window: 16}},"
                               " {mixer: {type: titans_lmm, heads: 2, chunk: 8}}]}";

static void a_restart_from_a_file_changes_no_bit(void) {
  fixture f;
  if (!set_up(&f, streamer)) return;
  mn_needle_eval_config c;
  mn_config_defaults(mn_needle_eval_fields, &c);
  c.tokens = 6000;
  mn_needle_eval e[3];
  mn_needle_eval_run run = {.segment = 64, .compute = MN_F32, .scratch = SCRATCH};
  CHECK_OK(mn_eval_needles(f.model, f.params, &c, &run, &e[0]));
  CHECK(e[0].restarted_at == -1 && e[0].all.asked >= 16 && e[0].all.right == 0 && e[0].half_life == 0, "%lld asked",
        (long long)e[0].all.asked);
  CHECK(e[0].bits > 7 && e[0].bits < 12, "%g bits with random weights", e[0].bits);
  CHECK(e[0].known_confidence > 0 && e[0].known_confidence < 0.5 && e[0].state_bytes > 0, "confidence %g", e[0].known_confidence);
  run.restart = true;
  run.restart_at = 2500;
  CHECK_OK(mn_eval_needles(f.model, f.params, &c, &run, &e[1]));
  CHECK(e[1].restarted_at == 2560 && e[1].restart_checked >= 16 * 64 && e[1].restart_equal, "restart at %lld, %lld compared",
        (long long)e[1].restarted_at, (long long)e[1].restart_checked);
  CHECK(e[1].digest == e[0].digest && !mn_file_exists(SCRATCH), "%llx and %llx", (unsigned long long)e[0].digest,
        (unsigned long long)e[1].digest);
  c.seed = 2;
  run.restart = false;
  CHECK_OK(mn_eval_needles(f.model, f.params, &c, &run, &e[2]));
  CHECK(e[2].digest != e[0].digest, "another stream, the same digest");
  c.max_log2 = 20;
  CHECK(mn_eval_needles(f.model, f.params, &c, &run, &e[2]) == MN_ERR_CONFIG && strstr(mn_message(), "2^20"), "%s", mn_message());
  fixture_close(&f);
  if (set_up(&f, small))
    CHECK(mn_eval_needles(f.model, f.params, &c, &run, &e[2]) == MN_ERR_CONFIG && strstr(mn_message(), "256"), "%s", mn_message());
  fixture_close(&f);
}

/* ---- the program ---- */
#define EVAL MN_TEST_BINARY_DIR "/mneme eval --json --model task-eval-model "

static char out[1 << 16];

static int sh(const char *command) {
  FILE *f = popen(command, "r");
  size_t n = f ? fread(out, 1, sizeof out - 1, f) : 0;
  out[n] = 0;
  int status = f ? pclose(f) : -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

/* Every result is one line that says what it is of; gives how many there are, and the last. */
static int lines(const char *task, json_t **last) {
  static const char *const keys[] = {"task",       "split",       "T",    "settings", "model", "fingerprint",
                                     "parameters", "state_bytes", "seed", "metric",   "value"};
  int n = 0;
  *last = NULL;
  for (char *p = out, *end; (end = strchr(p, '\n')); p = end + 1, n++) {
    json_decref(*last);
    *last = json_loadb(p, (size_t)(end - p), 0, NULL);
    for (size_t k = 0; k < sizeof keys / sizeof *keys; k++) CHECK(json_object_get(*last, keys[k]), "line %d has no %s", n, keys[k]);
    const char *name = json_string_value(json_object_get(*last, "task"));
    CHECK(name && !strcmp(name, task), "line %d is of %s", n, name ? name : "no task");
  }
  return n;
}

static void the_program_reports_a_line_for_each_result(void) {
  fixture f;
  mn_tokenizer *tok = NULL;
  json_t *line;
  if (!set_up(&f, streamer)) return; /* its vocabulary holds the bytes, the small needles and the stream */
  CHECK_OK(mn_make_dirs("task-eval-model"));
  CHECK_OK(mn_model_save_dir(f.model, f.params, "task-eval-model"));
  CHECK_OK(mn_tokenizer_bytes(NULL, 0, &tok));
  CHECK_OK(mn_tokenizer_save(tok, "task-eval-model/tokenizer.json"));
  mn_tokenizer_free(tok);
  fixture_close(&f);

  CHECK(sh(EVAL "--task passkey --lengths 350,500 --depths 3 --examples 1 --plot task-eval-map.png") == 0, "%s", out);
  CHECK(lines("passkey", &line) == 6 && mn_file_exists("task-eval-map.png"), "%s", out);
  CHECK(json_integer_value(json_object_get(line, "T")) > 470, "%s", out);
  json_decref(line);
  CHECK(sh(EVAL "--task niah_mini --set len=80 --stream --examples 3") == 0, "%s", out);
  CHECK(lines("niah_mini", &line) == 2 && json_is_true(json_object_get(line, "parity")), "%s", out);
  json_decref(line);
  CHECK(sh(EVAL "--task stream --tokens 3000 --seq-len 64 --restart-at 1000 --set needles=8") == 0, "%s", out);
  CHECK(lines("stream", &line) == 3 && json_is_true(json_object_get(json_object_get(line, "restart"), "equal")), "%s", out);
  json_decref(line);
  CHECK(sh(EVAL "--task stream --tokens 600") == 2 && strstr(out, "tokens"), "%s", out);
  CHECK(sh(EVAL "--task stream --set needle=8") == 2 && strstr(out, "needles"), "%s", out);
  CHECK(sh(EVAL "--task mqar --lengths 64") == 2 && strstr(out, "lengths"), "%s", out);
  CHECK(sh(EVAL "--task passkey --vary garbage") == 2 && strstr(out, "KEY=VALUE"), "%s", out);
}

int main(void) {
  RUN(an_oracle_is_perfect_at_every_length_and_depth);
  RUN(a_short_memory_shows_as_an_edge_in_the_heat_map);
  RUN(only_the_first_run_of_digits_counts);
  RUN(an_answer_is_as_long_as_its_task_says);
  RUN(wrong_grids_are_refused_by_name);
  RUN(a_listener_ends_a_grid_after_any_example);
  RUN(a_model_answers_as_its_session_does);
  RUN(not_a_number_is_no_answer);
  RUN(streams_through_a_file_give_the_parallel_form);
  RUN(recall_falls_where_the_memory_ends);
  RUN(a_listener_ends_a_stream_of_needles);
  RUN(a_restart_from_a_file_changes_no_bit);
  RUN(the_program_reports_a_line_for_each_result);
  return test_end();
}
