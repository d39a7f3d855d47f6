/* What must be true of a session: token by token gives the logits of training, whatever way the tokens are cut; a saved
 * session goes on to the same bits; a fork is independent; a wrong, cut or edited file is refused. */
#include "base/file.h"
#include "format/yaml.h"
#include "run/sampler.h"
#include "run/session.h"
#include "test.h"

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

static void a_saved_session_goes_on_to_the_same_bits(void) {
  fixture f;
  if (!set_up(&f, models[1])) return;
  mn_session *a = NULL, *b = NULL, *c = NULL;
  const float *x = NULL, *y = NULL;
  const char *path = MN_TEST_BINARY_DIR "/session.safetensors";
  CHECK_OK(mn_session_new(f.model, f.params, &(mn_session_config){.prefill = 16}, &a));
  CHECK_OK(mn_session_new(f.model, f.params, &(mn_session_config){.prefill = 16}, &b));
  CHECK_OK(mn_session_feed(a, f.tokens, 40, NULL));
  CHECK_OK(mn_session_save(a, path));
  CHECK_OK(mn_session_fork(a, &c));
  CHECK_OK(mn_session_load(b, path));
  CHECK_OK(mn_session_feed(c, f.tokens, 5, NULL)); /* must not disturb a */
  for (int i = 40; i < N; i++) {
    CHECK_OK(mn_session_feed(a, f.tokens + i, 1, &x));
    CHECK_OK(mn_session_feed(b, f.tokens + i, 1, &y));
    CHECK(memcmp(x, y, sizeof(float) * VOCAB) == 0, "token %d", i);
  }
  CHECK_OK(mn_session_reset(a));
  CHECK(mn_session_position(a) == 0, "reset");
  mn_session_free(a);
  mn_session_free(b);
  mn_session_free(c);
  tear_down(&f);
}

static void wrong_files_are_refused(void) {
  fixture f, other;
  if (!set_up(&f, models[1]) || !set_up(&other, models[0])) return;
  mn_session *a = NULL, *b = NULL;
  const char *path = MN_TEST_BINARY_DIR "/session-bad.safetensors";
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
      CHECK_OK(mn_sampler_next(s, logits, &t));
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
  CHECK(mn_sampler_next(s, logits, &t) == MN_ERR_NUMERIC, "NaN was sampled from");
  mn_sampler_free(s);
}

int main(void) {
  RUN(streaming_gives_the_logits_of_training);
  RUN(a_saved_session_goes_on_to_the_same_bits);
  RUN(wrong_files_are_refused);
  RUN(scores_are_the_logits_likelihoods);
  RUN(samplers_keep_to_their_sets);
  return test_end();
}
