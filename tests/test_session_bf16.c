/* test_session_bf16.c - what must be true of sessions that compute in bf16 over weights that a file holds in bf16, whatever type they are
 * kept in: a stream that was saved, forked or rolled back goes on to the same bits; a stream cut anywhere is the stream, as near as
 * bf16 is to exact arithmetic. */
#include "checkpoint/arch.h"
#include "checkpoint/convert.h"
#include "format/yaml.h"
#include "run/session.h"
#include "scratch.h"
#include "small_llama.h"

enum { N = 48, VOCAB = 50, PREFILL = 16, CUTS = 4 };

/* Results in bf16 are off by 2^-9 at most each; what that comes to over a few layers, by the root of the mean square over logits, is this
 * at most, and does not depend on the order in which a processor adds up products, which it does in f32. */
static const double NEAR = 0x1p-5;

static const struct {
  const char *name, *mixer; /* NULL: a checkpoint */
  mn_dtype type;            /* that parameters are kept in */
} models[] = {
    {"attention", "type: attention, heads: 2, max_context: 128", MN_F32},
    {"attention", "type: attention, heads: 2, max_context: 128", MN_BF16},
    {"window", "type: attention, heads: 2, window: 7, persistent: 2", MN_BF16},
    {"titans_mac", "type: titans_mac, heads: 2, chunk: 4, segment: 16, persistent: 1", MN_BF16},
    {"titans_mag", "type: titans_mag, heads: 2, chunk: 4, window: 8", MN_F32},
    {"gated_deltanet", "type: gated_deltanet, heads: 2", MN_F32},
    {"gated_deltanet", "type: gated_deltanet, heads: 2", MN_BF16},
    {"mamba2", "type: mamba2, head_dim: 16, state: 8", MN_BF16},
    {"aaren", "type: aaren, heads: 2", MN_BF16},
    {"llama.gguf", NULL, MN_F32},
    {"llama", NULL, MN_F32},
};
enum { MODELS = sizeof models / sizeof *models };

typedef struct opened {
  mn_backend *backend;
  mn_model *model;
  mn_params *params;
} opened;

static void close_model(opened *o) {
  mn_params_free(o->params);
  mn_model_free(o->model);
  mn_backend_free(o->backend);
}

/* A GGUF file or a directory as Hugging Face's programs write it. */
static void write_llama(const char *name) {
  const mn_convert_options options = {.type = MN_BF16};
  const char *file = "llama.gguf";
  mn_convert_report report;
  put_llama("wide", VOCAB, 128);
  unlink(file);
  CHECK_OK(mn_convert("wide", file, &options, &report));
  if (strcmp(name, file)) CHECK_OK(mn_convert(file, name, &options, &report));
}

/* The model's file or directory, its matrices in bf16. */
static void write_model(int k) {
  if (!models[k].mixer) return write_llama(models[k].name);
  mn_arena *arena = mn_arena_new();
  const mn_value *v = NULL;
  opened o = {0};
  char *text = mn_format("{vocab_size: %d, d_model: 32, layers: 2, block: {mixer: {%s}, hidden: 32}}", VOCAB, models[k].mixer);
  CHECK_OK(mn_yaml_parse(arena, "test", text, strlen(text), &v));
  CHECK_OK(mn_backend_cpu_new(1, &o.backend));
  if (v) CHECK_OK(mn_model_parse(v, "test", 0, &o.model));
  if (o.model) CHECK_OK(mn_params_new(o.model, o.backend, MN_BF16, 7, &o.params));
  if (o.params) CHECK_OK(mn_model_save_dir(o.model, o.params, models[k].name));
  close_model(&o);
  free(text);
  mn_arena_free(arena);
}

static bool open_model(int k, bool exact, opened *o) {
  const mn_dtype type = exact ? MN_F64 : models[k].type;
  *o = (opened){0};
  if (exact) CHECK_OK(mn_backend_open("ref", 1, &o->backend));
  else CHECK_OK(mn_backend_cpu_new(1, &o->backend));
  if (models[k].mixer) CHECK_OK(mn_model_open_dir(models[k].name, o->backend, type, &o->model, &o->params));
  else CHECK_OK(mn_checkpoint_model(models[k].name, o->backend, type, &o->model, &o->params));
  int stored = 0;
  for (int i = 0; o->params && i < o->params->n; i++) stored += o->params->type[i] == MN_BF16 || o->params->type[i] == MN_STORED_BF16;
  CHECK(exact || (stored > 0) == (type == MN_BF16 || !models[k].mixer), "%s: %d tensors are kept in bf16", models[k].name, stored);
  return o->params != NULL;
}

static mn_session *session_of(const opened *o, mn_dtype compute, mn_program *program) {
  mn_session *s = NULL;
  CHECK_OK(mn_session_new(o->model, o->params, &(mn_session_config){.prefill = PREFILL, .compute = compute, .program = program}, &s));
  return s;
}

static void tokens_of(int32_t tokens[N]) {
  for (int i = 0; i < N; i++) tokens[i] = (int32_t)(mn_random_uniform(3, 0, (uint64_t)i) * VOCAB);
}

static void one(mn_session *s, int32_t token, float to[VOCAB]) {
  const float *logits = NULL;
  CHECK_OK(mn_session_feed(s, &token, 1, &logits));
  if (logits) memcpy(to, logits, VOCAB * sizeof *to);
  else CHECK(false, "no logits");
}

/* Whoever holds the stream's first tokens goes on as the one that was never touched. */
static void goes_on(const char *name, const char *what, mn_session *s, const int32_t *tokens, int from, float (*went)[VOCAB]) {
  float x[VOCAB];
  CHECK(mn_session_position(s) == from, "%s, %s: stands at %d", name, what, (int)mn_session_position(s));
  for (int i = from; i < N; i++) {
    one(s, tokens[i], x);
    CHECK(!memcmp(x, went[i], sizeof x), "%s, %s: token %d has other logits", name, what, i);
  }
}

static void streams_go_on_to_the_same_bits(void) {
  enum { KEPT = 29 }; /* tokens, in segments of 16 and 13: caches in use and whatever waits for its segment's end */
  int32_t tokens[N];
  tokens_of(tokens);
  for (int k = 0; k < MODELS; k++) {
    const char *name = models[k].name;
    float went[N][VOCAB];
    opened o, again;
    const bool ok = open_model(k, false, &o), twice = open_model(k, false, &again);
    mn_session *a = ok ? session_of(&o, MN_BF16, NULL) : NULL, *kept = NULL, *fork = NULL;
    mn_session *b = a ? session_of(&o, MN_BF16, mn_session_program(a)) : NULL, *other = twice ? session_of(&again, MN_BF16, NULL) : NULL;
    if (a && b && other) {
      CHECK_OK(mn_session_feed(a, tokens, KEPT, NULL));
      CHECK_OK(mn_session_save(a, "stream.safetensors"));
      CHECK_OK(mn_session_fork(a, &kept));
      CHECK_OK(mn_session_fork(a, &fork));
      for (int i = KEPT; i < N; i++) one(a, tokens[i], went[i]);
      goes_on(name, "a fork", fork, tokens, KEPT, went);
      CHECK_OK(mn_session_feed(b, tokens + 5, 20, NULL));
      CHECK_OK(mn_session_load(b, "stream.safetensors"));
      goes_on(name, "loaded", b, tokens, KEPT, went);
      CHECK_OK(mn_session_load(other, "stream.safetensors"));
      goes_on(name, "loaded by another program", other, tokens, KEPT, went);
      CHECK_OK(mn_session_copy(a, kept));
      goes_on(name, "rolled back", a, tokens, KEPT, went);
      CHECK_OK(mn_session_copy_row_from(a, 0, kept, 0, KEPT));
      goes_on(name, "rolled back over what both have read", a, tokens, KEPT, went);
      CHECK_OK(mn_session_reset(b));
      CHECK_OK(mn_session_feed(b, tokens, KEPT, NULL));
      goes_on(name, "read again", b, tokens, KEPT, went);
    }
    mn_session_free(a), mn_session_free(b), mn_session_free(kept), mn_session_free(fork), mn_session_free(other);
    close_model(&o);
    close_model(&again);
  }
}

/* Logits after each piece that ends where `from` and `cut` say: there[i] of token i. */
static void read_cut(mn_session *s, const int32_t *tokens, int cut, bool there[N], float (*to)[VOCAB]) {
  memset(there, 0, N * sizeof *there);
  CHECK_OK(mn_session_reset(s));
  for (int at = 0, k = 0; at < N; k++) { /* one by one; all at once; all but one; anywhere */
    const float *logits = NULL;
    int n = cut == 0 ? 1 : cut == 1 ? N : cut == 2 ? (at ? 1 : N - 1) : 1 + (int)(mn_random_uniform(9, 1, (uint64_t)k) * 12);
    n = n < N - at ? n : N - at;
    CHECK_OK(mn_session_feed(s, tokens + at, n, &logits));
    at += n;
    there[at - 1] = logits != NULL;
    if (logits) memcpy(to[at - 1], logits, sizeof *to);
  }
}

/* Root of the mean square of their differences over that of y, at the tokens that are there. */
static double distance(const bool there[N], float (*x)[VOCAB], float (*y)[VOCAB]) {
  double d = 0, all = 1e-60;
  for (int i = 0; i < N * VOCAB; i++) {
    const double a = (double)x[i / VOCAB][i % VOCAB], b = (double)y[i / VOCAB][i % VOCAB];
    if (there[i / VOCAB]) d += (a - b) * (a - b), all += b * b;
  }
  return sqrt(d / all);
}

static void streams_cut_anywhere_are_the_stream(void) {
  int32_t tokens[N];
  tokens_of(tokens);
  for (int k = 0; k < MODELS; k++) {
    static float exact[N][VOCAB], first[N][VOCAB], x[N][VOCAB];
    bool there[N];
    opened o, all;
    const bool ok = open_model(k, false, &o), reads = open_model(k, true, &all);
    mn_session *s = ok ? session_of(&o, MN_BF16, NULL) : NULL, *e = reads ? session_of(&all, MN_F64, NULL) : NULL;
    if (s && e) {
      read_cut(e, tokens, 0, there, exact);
      for (int cut = 0; cut < CUTS; cut++) {
        read_cut(s, tokens, cut, there, cut ? x : first);
        const double off = distance(there, cut ? x : first, exact), apart = cut ? distance(there, x, first) : 0;
        CHECK(off > 0 && off < NEAR, "%s, cut %d: %.5f from exact", models[k].name, cut, off);
        CHECK(apart < NEAR, "%s, cut %d: %.5f from one by one", models[k].name, cut, apart);
        if (getenv("MN_TEST_SHOW")) printf("%-16s cut %d: %.5f from exact, %.5f from one by one\n", models[k].name, cut, off, apart);
      }
      CHECK_OK(mn_session_reset(s)); /* a stream that lost its beginning is none of that */
      for (int i = N / 2; i < N; i++) one(s, tokens[i], x[i]);
      for (int i = 0; i < N; i++) there[i] = i >= N / 2;
      CHECK(distance(there, x, first) > 2 * NEAR, "%s: without its beginning it is %.5f off", models[k].name, distance(there, x, first));
    }
    mn_session_free(s), mn_session_free(e);
    close_model(&o);
    close_model(&all);
  }
}

int main(void) {
  for (int k = 0; k < MODELS; k++) write_model(k);
  RUN(streams_go_on_to_the_same_bits);
  RUN(streams_cut_anywhere_are_the_stream);
  return test_end();
}
