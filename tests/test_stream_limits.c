/* What must be true where a stream is longer than what its model can hold: a segment at once and the same tokens as a stream
 * agree, or both are refused; the refusal names place, key and remedy and comes before any work; who says `forget` gets a
 * window of that size, the same in every form, and is told so. What ends is declared by the mixer and asked for by all who run
 * one: sessions, `apply`, `eval`, `generate`, `stream`, training with carried state, the C API. */
#include <jansson.h>

#include "base/file.h"
#include "format/safetensors.h"
#include "format/tokenizer.h"
#include "format/yaml.h"
#include "mixer_check.h"
#include "mneme.h"
#include "run/session.h"
#include "program.h"
#include "scratch.h"
#include "test.h"
#include "train/trainer.h"

enum { VOCAB = 260, LIMIT = 16, MOST = 40 };

typedef struct form {
  const char *mixer;
  int64_t limit; /* 0: none */
} form;
static const form forms[] = {
    {"type: attention, heads: 2, max_context: 16", LIMIT},
    {"type: attention, heads: 2, max_context: 16, persistent: 3, conv: 3", LIMIT},
    {"type: attention, heads: 2, window: 20", 0},
    {"type: titans_mag, heads: 2, chunk: 4, max_context: 16", LIMIT},
    {"type: titans_mal, heads: 2, chunk: 4, max_context: 16, persistent: 2", LIMIT},
    {"type: titans_mag, heads: 2, chunk: 4, window: 6", 0},
    {"type: titans_mac, heads: 2, chunk: 4, segment: 8", 0},
    {"type: titans_lmm, heads: 2, chunk: 4", 0},
    {"type: gated_deltanet, heads: 2", 0},
    {"type: aaren, heads: 2", 0},
};
enum { FORMS = sizeof forms / sizeof *forms };

typedef struct fixture {
  mn_arena *arena;
  mn_backend *backend;
  mn_model *model;
  mn_params *params;
  int32_t tokens[MOST];
} fixture;

static bool set_up(fixture *f, const char *mixer) {
  const mn_value *v = NULL;
  *f = (fixture){.arena = mn_arena_new()};
  char *text = mn_format("{vocab_size: %d, d_model: 16, layers: 2, block: {mixer: {%s}, hidden: 8}}", VOCAB, mixer);
  CHECK_OK(mn_yaml_parse(f->arena, "test", text, strlen(text), &v));
  free(text);
  CHECK_OK(mn_backend_cpu_new(1, &f->backend));
  CHECK_OK(mn_model_parse(v, "test", 0, &f->model));
  if (f->model) CHECK_OK(mn_params_new(f->model, f->backend, MN_F32, 7, &f->params));
  for (int i = 0; i < MOST; i++) f->tokens[i] = (int32_t)(mn_random_uniform(3, 0, (uint64_t)i) * 256);
  return f->params != NULL;
}

static void tear_down(fixture *f) {
  mn_params_free(f->params);
  mn_model_free(f->model);
  mn_backend_free(f->backend);
  mn_arena_free(f->arena);
}

/* The last token's logits of T tokens at once, from a fresh state; MN_ERR_CONFIG where that is refused. */
static mn_status at_once(fixture *f, int64_t T, bool forget, float *logits) {
  mn_graph *g = mn_graph_new();
  mn_scope *s = mn_scope_new(g, (mn_build){.param = MN_F32, .compute = MN_F32, .forget = forget}, 1);
  mn_tensor *tokens = mn_input(g, "tokens", MN_I32, MN_SHAPE(1, T)), *y = mn_model_apply(s, f->model, tokens);
  mn_plan *p = NULL;
  mn_plan_request q = {.graph = g, .n_outputs = 1, .outputs = &y, .backend = f->backend};
  mn_status status = mn_graph_status(g);
  if (status == MN_OK) status = mn_plan_compile(&q, &p);
  if (p) {
    mn_params_bind(f->params, s, p);
    mn_plan_bind(p, tokens, f->tokens);
    CHECK_OK(mn_plan_run(p));
    memcpy(logits, (const float *)mn_plan_output(p, 0)->data + (T - 1) * VOCAB, sizeof(float) * VOCAB);
  }
  mn_plan_free(p);
  mn_graph_free(g);
  return status;
}

static double distance(const float *a, const float *b) {
  double worst = 0, scale = 1e-9;
  for (int i = 0; i < VOCAB; i++) scale = fmax(scale, fabs((double)a[i]));
  for (int i = 0; i < VOCAB; i++) worst = fmax(worst, fabs((double)a[i] - (double)b[i]) / scale);
  return worst;
}

/* Below, at and above the limit, in pieces of three sizes. */
static void at_once_and_as_a_stream_agree_or_are_refused(void) {
  for (int i = 0; i < FORMS; i++) {
    fixture f;
    if (!set_up(&f, forms[i].mixer)) continue;
    for (int forget = 0; forget < 2; forget++)
      for (int64_t T = LIMIT - 1; T <= MOST; T += T <= LIMIT ? 1 : 11)
        for (int64_t piece = 1; piece <= MOST; piece = piece == 1 ? 5 : piece + 35) {
          float whole[VOCAB] = {0};
          const float *logits = NULL;
          mn_session *s = NULL;
          mn_status a = at_once(&f, T, forget, whole), b = MN_OK;
          CHECK_OK(mn_session_new(f.model, f.params, &(mn_session_config){.prefill = 256, .forget = forget}, &s));
          for (int64_t at = 0; s && at < T && b == MN_OK; at += piece)
            b = mn_session_feed(s, f.tokens + at, piece < T - at ? piece : T - at, &logits);
          bool refused = forms[i].limit && T > forms[i].limit && !forget;
          CHECK((a == MN_ERR_CONFIG) == refused && (b == MN_ERR_CONFIG) == refused && (refused || (a == MN_OK && b == MN_OK)),
                "%s, T %lld, pieces of %lld: %s, %s", forms[i].mixer, (long long)T, (long long)piece, mn_status_name(a), mn_status_name(b));
          if (refused)
            CHECK(strstr(mn_message(), "layers.0.mixer") && strstr(mn_message(), "max_context is 16") && strstr(mn_message(), "window"),
                  "%s", mn_message());
          else CHECK(distance(whole, logits) < 2e-4, "%s, T %lld: %g", forms[i].mixer, (long long)T, distance(whole, logits));
          mn_session_free(s);
        }
    tear_down(&f);
  }
}

static void a_session_says_what_it_holds(void) {
  for (int i = 0; i < FORMS; i++) {
    fixture f;
    mn_session *s = NULL;
    if (!set_up(&f, forms[i].mixer)) continue;
    CHECK_OK(mn_session_new(f.model, f.params, &(mn_session_config){.prefill = 8}, &s));
    int64_t limit = s ? mn_session_limit(s).tokens : -1;
    CHECK(limit == (forms[i].limit ? forms[i].limit : MN_LIMIT_NONE), "%s: %lld", forms[i].mixer, (long long)limit);
    if (s && forms[i].limit) {
      CHECK_OK(mn_session_feed(s, f.tokens, 10, NULL));
      CHECK(mn_session_room(s) == 6, "%lld", (long long)mn_session_room(s));
      CHECK(mn_session_feed(s, f.tokens, 7, NULL) == MN_ERR_CONFIG && mn_session_position(s) == 10, "refused before any of it is fed");
      CHECK_OK(mn_session_feed(s, f.tokens, 6, NULL));
      CHECK(mn_session_score(s, f.tokens, f.tokens, 1, (float[1]){0}) == MN_ERR_CONFIG, "full");
    }
    mn_session_free(s);
    tear_down(&f);
  }
}

/* A stream that has come far, in f32, agrees with f64: rotary angles, rings and segments are right at two thousand million, and
 * nothing goes past the end of positions. */
static void far_positions_are_right(void) {
  static const char *const far[] = {"{\"type\": \"attention\", \"heads\": 2, \"window\": 7, \"sinks\": 2}",
                                    "{\"type\": \"titans_mac\", \"heads\": 2, \"chunk\": 4, \"segment\": 8}",
                                    "{\"type\": \"titans_mag\", \"heads\": 2, \"chunk\": 4, \"window\": 5}"};
  static const double starts[] = {10000000, 1 << 30, MN_POSITION_MAX - 61.0};
  enum { T = 60, D = 8 };
  double *x = mc_normal(T * D, 1, 4), y[3][T * D];
  for (int i = 0; i < 3; i++)
    for (int k = 0; k < 3; k++) {
      int ok = 1;
      for (int way = 0; way < 3; way++) { /* f64 at once; f32 at once; f32 one by one */
        mc_mixer m;
        mc_bag state = {0};
        ok = ok && mc_open(&m, far[i], D, 1, way ? MN_F32 : MN_F64, mn_backend_ref()) && mc_random_params(&m, 6) && mc_start(&m, &state);
        if (ok) mc_put(&state, "position", MN_SHAPE(1), &starts[k]);
        for (int64_t at = 0, n = way == 2 ? 1 : T; ok && at < T; at += n) ok = mc_segment(&m, &state, n, x + at * D, y[way] + at * D);
        CHECK(ok && mc_get(&state, "position")->x[0] == starts[k] + T, "%s at %.0f", far[i], starts[k]);
        mc_bag_free(&state);
        mc_close(&m);
      }
      for (int way = 1; ok && way < 3; way++)
        CHECK(mc_difference(y[way], y[0], T * D) < 1e-4, "%s at %.0f: %g", far[i], starts[k], mc_difference(y[way], y[0], T * D));
    }
  free(x);
  mn_limit none = {.tokens = MN_LIMIT_NONE, .where = ""};
  CHECK_OK(mn_limit_check(&none, false, MN_POSITION_MAX - 61, 61));
  CHECK(mn_limit_check(&none, true, MN_POSITION_MAX - 61, 62) == MN_ERR_CONFIG && strstr(mn_message(), "2147483647"), "%s", mn_message());
  CHECK(mn_limit_check(&none, false, -1, 1) == MN_ERR_CONFIG, "%s", mn_message());
}

/* ---- the program ---- */
#define DIR  "stream-limits"
#define SAID "exec 2>&1; " /* messages are read, too */

static void is_refused(const char *what, int rc) {
  CHECK(rc == 2 && strstr(out, "max_context is 16") && strstr(out, "layers.0.mixer") && strstr(out, "--forget"), "%s: rc %d: %s", what, rc,
        out);
}

static void make_model(void) {
  fixture f;
  mn_tokenizer *tok = NULL;
  CHECK(sh("rm -rf %s && mkdir -p %s", DIR, DIR) == 0, "%s", out);
  if (!set_up(&f, forms[0].mixer)) return;
  CHECK_OK(mn_model_save_dir(f.model, f.params, DIR "/model"));
  CHECK_OK(mn_tokenizer_bytes(NULL, 0, &tok));
  CHECK_OK(mn_tokenizer_save(tok, DIR "/model/tokenizer.json"));
  CHECK_OK(mn_file_write(DIR "/long.txt", "it was the best of times, it was the worst of times, it was the age of wisdom", 77));
  CHECK_OK(mn_file_write(DIR "/short.txt", "it was the best", 15));
  mn_tokenizer_free(tok);
  tear_down(&f);
}

#define MODEL " --model " DIR "/model "
static void verbs_refuse_before_they_begin(void) {
  CHECK(sh(SAID MNEME "generate" MODEL "--prompt abcdef --tokens 10") == 0, "%s", out);
  is_refused("generate", sh(SAID MNEME "generate" MODEL "--prompt abcdef --tokens 11"));
  CHECK(!strstr(out, "abcdef"), "nothing was shown before: %s", out);
  CHECK(sh(SAID MNEME "generate" MODEL "--prompt abcdef --tokens 30 --forget") == 0 && strstr(out, "oldest"), "%s", out);
  CHECK(sh(SAID MNEME "generate" MODEL "--prompt abcdef --tokens 10 --forget") == 0 && !strstr(out, "oldest"), "nothing to say: %s", out);
  CHECK(sh(SAID MNEME "stream" MODEL "--random 16 --session-out " DIR "/s.safetensors") == 0, "%s", out);
  is_refused("stream --random", sh(SAID MNEME "stream" MODEL "--random 17"));
  is_refused("session-in", sh(SAID MNEME "stream" MODEL "--random 1 --session-in " DIR "/s.safetensors"));
  is_refused("session-in", sh(SAID MNEME "generate" MODEL "--prompt a --tokens 1 --session-in " DIR "/s.safetensors"));
  CHECK(sh(SAID MNEME "stream" MODEL "--score " DIR "/short.txt") == 0, "%s", out);
  is_refused("stream", sh(SAID MNEME "stream" MODEL "--score " DIR "/long.txt"));
  CHECK(sh(SAID MNEME "stream" MODEL "--forget --score " DIR "/long.txt") == 0 && strstr(out, "oldest"), "%s", out);
  CHECK(sh(SAID MNEME "eval" MODEL "--data " DIR "/long.txt --seq-len 16 --batch 1") == 0, "%s", out);
  is_refused("eval", sh(SAID MNEME "eval" MODEL "--data " DIR "/long.txt --seq-len 17 --batch 1"));
  is_refused("eval --carry", sh(SAID MNEME "eval" MODEL "--data " DIR "/long.txt --seq-len 8 --batch 1 --carry"));
  CHECK(sh(SAID MNEME "eval" MODEL "--data " DIR "/long.txt --seq-len 8 --batch 1 --carry --batches 2") == 0, "%s", out);
  CHECK(sh(SAID MNEME "eval" MODEL "--data " DIR "/long.txt --seq-len 8 --batch 1 --carry --forget") == 0 && strstr(out, "oldest"), "%s",
        out);
}

static void write_x(const char *path, int64_t T) {
  float x[MOST * 8];
  for (int64_t i = 0; i < T * 8; i++) x[i] = (float)mn_random_normal(5, 0, (uint64_t)i);
  mn_st_writer *w = mn_st_writer_new();
  mn_shape shape = MN_SHAPE(1, T, 8);
  CHECK_OK(mn_st_writer_add(w, "x", MN_F32, &shape, x));
  CHECK_OK(mn_st_writer_save(w, path));
  mn_st_writer_free(w);
}

static void read_y(const char *path, int64_t T, float *y) {
  mn_st *st = NULL;
  const mn_st_tensor *t;
  mn_shape shape = MN_SHAPE(1, T, 8);
  CHECK_OK(mn_st_open(path, &st));
  if (st && mn_st_need(st, "y", &shape, &t) == MN_OK) CHECK_OK(mn_st_read(st, t, MN_F32, y));
  mn_st_close(st);
}

/* y does not change by asking for the state, and a state that is full takes no more. */
static void apply_agrees_with_itself(void) {
  static const char recipe[] = "{d_model: 8, mixer: {type: attention, heads: 2, max_context: 16}}\n";
  CHECK_OK(mn_file_write(DIR "/mixer.yaml", recipe, strlen(recipe)));
#define APPLY MNEME "apply " DIR "/mixer.yaml --input " DIR "/x.safetensors --output " DIR
  for (int T = 15; T <= MOST; T += T < 17 ? 1 : 23)
    for (int forget = 0; forget < 2; forget++) {
      float a[MOST * 8] = {0}, b[MOST * 8] = {0};
      const char *option = forget ? "--forget" : "";
      write_x(DIR "/x.safetensors", T);
      int plain = sh(SAID APPLY "/a.safetensors %s", option),
          kept = sh(SAID APPLY "/b.safetensors --state-out " DIR "/t.safetensors %s", option);
      CHECK(plain == kept && (plain == 0) == (T <= 16 || forget), "T %d: rc %d and %d: %s", T, plain, kept, out);
      if (plain) CHECK(plain == 2 && strstr(out, "max_context is 16"), "%s", out);
      if (plain || kept) continue;
      read_y(DIR "/a.safetensors", T, a);
      read_y(DIR "/b.safetensors", T, b);
      double worst = 0;
      for (int i = 0; i < T * 8; i++) worst = fmax(worst, fabs((double)a[i] - (double)b[i]));
      CHECK(worst < 1e-5, "T %d: %g", T, worst);
      if (T == 16) {
        mn_st *st = NULL;
        mn_st_writer *w = mn_st_writer_new();
        CHECK_OK(mn_st_open(DIR "/t.safetensors", &st));
        int32_t end = INT32_MAX - 3;
        for (int i = 0; st && i < mn_st_count(st); i++) {
          const mn_st_tensor *t = mn_st_at(st, i);
          CHECK_OK(mn_st_writer_add(w, t->name, t->dtype, &t->shape, strcmp(t->name, "position") ? t->data : &end));
        }
        CHECK_OK(mn_st_writer_save(w, DIR "/end.safetensors"));
        mn_st_writer_free(w);
        mn_st_close(st);
        CHECK(sh(SAID APPLY "/c.safetensors --forget --state-in " DIR "/end.safetensors") == 2 && strstr(out, "positions end"), "%s", out);
      }
      if (T == 16) CHECK(sh(SAID APPLY "/c.safetensors --state-in " DIR "/t.safetensors") == 2 && strstr(out, "max_context"), "%s", out);
    }
}

static void carried_training_is_refused(void) {
  static const char recipe[] =
      "seed: 1\ntokenizer: {type: bytes}\ndata: {files: [" DIR "/long.txt], order: sequential, cache: " DIR
      "/cache}\nmodel:\n  d_model: 16\n  layers: 1\n  block: {mixer: {type: attention, heads: 2, max_context: 16}}\n"
      "train: {steps: 3, batch: 1, seq_len: 8, carry_state: true, validate_every: 0}\n";
  CHECK_OK(mn_file_write(DIR "/carry.yaml", recipe, strlen(recipe)));
  CHECK(sh(SAID MNEME "train " DIR "/carry.yaml --out " DIR "/run") == 2 && strstr(out, "max_context is 16"), "24 tokens: %s", out);
  CHECK(sh(SAID MNEME "train " DIR "/carry.yaml --out " DIR "/run2 --set train.steps=2") == 0, "16 tokens: %s", out);
  CHECK(sh(SAID MNEME "train " DIR "/carry.yaml --out " DIR "/run3 --set train.carry_state=false --set train.seq_len=17") == 2 &&
            strstr(out, "max_context is 16"),
        "a segment: %s", out);
  CHECK(sh(SAID MNEME "train " DIR "/carry.yaml --out " DIR
                      "/run4 --set model.block.mixer.window=16 --set model.block.mixer.max_context=4096") == 0,
        "a window: %s", out);
}

static void the_api_refuses(void) {
  mn_lm *lm = NULL;
  mn_stream *s = NULL, *forgets = NULL;
  int32_t tokens[MOST] = {0};
  CHECK_OK(mn_lm_open(DIR "/model", 1, &lm));
  if (!lm) return;
  CHECK_OK(mn_stream_new(lm, NULL, &s));
  CHECK_OK(mn_stream_new(lm, (const char *[]){"forget=true", NULL}, &forgets));
  if (s && forgets) {
    CHECK(mn_stream_limit(s) == LIMIT && mn_stream_limit(forgets) == LIMIT, "%lld", (long long)mn_stream_limit(s));
    CHECK(mn_stream_feed(s, tokens, 17, NULL) == MN_ERR_CONFIG && strstr(mn_message(), "max_context"), "%s", mn_message());
    CHECK(mn_stream_position(s) == 0, "nothing was fed");
    CHECK(mn_stream_generate(s, tokens, 6, 11, NULL, NULL, NULL) == MN_ERR_CONFIG && mn_stream_position(s) == 0, "%s", mn_message());
    CHECK_OK(mn_stream_feed(s, tokens, 16, NULL));
    CHECK_OK(mn_stream_feed(forgets, tokens, MOST, NULL));
    CHECK_OK(mn_stream_generate(forgets, tokens, 6, 11, NULL, NULL, NULL));
  }
  mn_stream_free(s);
  mn_stream_free(forgets);
  mn_lm_free(lm);
}

int main(void) {
  RUN(at_once_and_as_a_stream_agree_or_are_refused);
  RUN(a_session_says_what_it_holds);
  RUN(far_positions_are_right);
  RUN(make_model);
  RUN(verbs_refuse_before_they_begin);
  RUN(apply_agrees_with_itself);
  RUN(carried_training_is_refused);
  RUN(the_api_refuses);
  return test_end();
}
