/* What must be true of what goes in and out of a model that runs: a value that is no number is refused by name where it is
 * read, in weights, states and tensors alike, and is never a result; an id that the tokenizer has no token for is never drawn;
 * a tensor that a file holds twice is held to be the same twice. */
#include <jansson.h>

#include "base/file.h"
#include "format/safetensors.h"
#include "format/tokenizer.h"
#include "mneme.h"
#include "run/sampler.h"
#include "run/session.h"
#include "program.h"
#include "model_fixture.h"
#include "scratch.h"

#define DIR   "numbers"
#define MODEL " --model " DIR "/model "

static const char recipe[] = "{model: {vocab_size: 2000, d_model: 16, layers: 2, blocks: [{mixer: {type: attention, heads: 2, window: 8}},"
                             " {mixer: {type: gated_deltanet, heads: 2}}]}}\n";

static bool set_up(fixture *f) { return fixture_open(f, 7, "%s", recipe); }

/* DIR/model, with element `at` (-1: all) of a parameter set to x; name NULL: as drawn. */
static void make_model(const char *name, int64_t at, float x) {
  fixture f;
  mn_tokenizer *tok = NULL;
  sh("rm -rf %s/model && mkdir -p %s", DIR, DIR);
  if (!set_up(&f)) return;
  int i = name ? mn_params_find(f.params, name) : -1;
  CHECK(!name || i >= 0, "%s", name);
  for (int64_t k = 0; i >= 0 && k < mn_shape_count(&f.params->info[i].shape); k++)
    if (at < 0 || k == at) ((float *)f.params->data[i])[k] = x;
  CHECK_OK(mn_model_save_dir(f.model, f.params, DIR "/model"));
  CHECK_OK(mn_params_save(f.params, DIR "/params.safetensors"));
  CHECK_OK(mn_tokenizer_bytes(NULL, 0, &tok));
  CHECK_OK(mn_tokenizer_save(tok, DIR "/model/tokenizer.json"));
  CHECK_OK(mn_file_write(DIR "/text.txt", "it was the best of times, it was the worst of times, it was the age", 66));
  CHECK_OK(mn_file_write(DIR "/recipe.yaml", recipe, strlen(recipe)));
  int32_t tokens[8] = {1, 2, 3, 4, 5, 6, 7, 8};
  mn_st_writer *w = mn_st_writer_new();
  mn_shape shape = MN_SHAPE(1, 8);
  CHECK_OK(mn_st_writer_add(w, "tokens", MN_I32, &shape, tokens));
  CHECK_OK(mn_st_writer_save(w, DIR "/tokens.safetensors"));
  mn_st_writer_free(w);
  mn_tokenizer_free(tok);
  fixture_close(&f);
}

static const char *const verbs[] = {
    MNEME "generate" MODEL "--prompt abc --tokens 3 2>&1",
    MNEME "generate" MODEL "--prompt abc --tokens 3 --temperature 0 --json 2>&1",
    MNEME "stream" MODEL DIR "/text.txt 2>&1",
    MNEME "stream" MODEL "--score --json " DIR "/text.txt 2>&1",
    MNEME "stream" MODEL "--random 40 --session-out " DIR "/s.safetensors 2>&1",
    MNEME "eval" MODEL "--data " DIR "/text.txt --seq-len 8 --batch 1 2>&1",
    MNEME "eval" MODEL "--data " DIR "/text.txt --seq-len 8 --batch 1 --carry --json 2>&1",
    MNEME "eval" MODEL "--task passkey --set garbage=1 --examples 1 2>&1",
    MNEME "eval" MODEL "--task mqar --set len=32 --set kv=4 --set vocab_size=64 --examples 2 --stream 2>&1",
    MNEME "eval" MODEL "--task stream --tokens 3000 2>&1",
    MNEME "apply " DIR "/recipe.yaml --params " DIR "/params.safetensors --input " DIR "/tokens.safetensors --output " DIR
          "/y.safetensors 2>&1",
    MNEME "apply " DIR "/recipe.yaml --params " DIR "/params.safetensors --input " DIR "/tokens.safetensors --output " DIR
          "/y.safetensors --state-out " DIR "/t.safetensors 2>&1",
};
enum { VERBS = sizeof verbs / sizeof *verbs };

static void weights_are_numbers(void) {
  static const float values[] = {NAN, INFINITY, -INFINITY};
  static const char *const kinds[] = {"is NaN", "is infinity", "is -infinity"};
  for (int k = 0; k < 3; k++) {
    make_model("layers.1.mixer.A_log", 1, values[k]);
    for (int i = 0; i < VERBS; i++) {
      int rc = sh("%s", verbs[i]);
      CHECK(rc == 1 && strstr(out, "layers.1.mixer.A_log") && strstr(out, "element 1") && strstr(out, kinds[k]), "%s: rc %d: %s", verbs[i],
            rc, out);
    }
    CHECK(sh(MNEME "inspect " DIR "/model 2>&1") == 1 && strstr(out, "A_log") && strstr(out, kinds[k]), "inspect: %s", out);
    mn_lm *lm = NULL;
    CHECK(mn_lm_open(DIR "/model", 1, &lm) == MN_ERR_NUMERIC && !lm && strstr(mn_message(), "A_log"), "%s", mn_message());
  }
}

/* Weights that are numbers, and too large to compute with. */
static void results_are_numbers(void) {
  make_model(NULL, 0, 0);
  for (int i = 0; i < VERBS; i++) {
    if (strstr(verbs[i], "--task")) continue; /* long on a whole model; their readers are the same */
    CHECK(sh("%s", verbs[i]) == 0, "%s: %s", verbs[i], out);
  }
  make_model("norm.weight", -1, 3e38f);
  for (int i = 0; i < VERBS; i++) {
    sh("rm -f %s/y.safetensors %s/t.safetensors %s/s.safetensors", DIR, DIR, DIR);
    int rc = sh("%s", verbs[i]);
    CHECK(rc == 1 && (strstr(out, "not a number") || strstr(out, "not finite")), "%s: rc %d: %s", verbs[i], rc, out);
    CHECK(!mn_file_exists(DIR "/y.safetensors") && !mn_file_exists(DIR "/t.safetensors") && !mn_file_exists(DIR "/s.safetensors"),
          "%s: nothing is written", verbs[i]);
  }
  mn_lm *lm = NULL;
  mn_stream *s = NULL;
  const float *logits;
  float nll[4];
  CHECK_OK(mn_lm_open(DIR "/model", 1, &lm));
  if (lm) CHECK_OK(mn_stream_new(lm, NULL, &s));
  if (s) {
    CHECK(mn_stream_feed(s, (int32_t[]){1, 2, 3}, 3, &logits) == MN_ERR_NUMERIC, "%s", mn_message());
    CHECK(mn_stream_score(s, (int32_t[]){1, 2, 3}, (int32_t[]){2, 3, 4}, 3, nll) == MN_ERR_NUMERIC, "%s", mn_message());
  }
  mn_stream_free(s);
  mn_lm_free(lm);
}

static void write_tensor(const char *path, const char *name, mn_dtype type, mn_shape shape, const void *data) {
  mn_st_writer *w = mn_st_writer_new();
  CHECK_OK(mn_st_writer_add(w, name, type, &shape, data));
  CHECK_OK(mn_st_writer_save(w, path));
  mn_st_writer_free(w);
}

static void tensors_and_states_are_numbers(void) {
  static const char mixer[] = "{d_model: 4, mixer: {type: gated_deltanet, heads: 1}}\n";
  float x[12] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
  mn_shape shape = MN_SHAPE(1, 3, 4);
  CHECK_OK(mn_file_write(DIR "/mixer.yaml", mixer, strlen(mixer)));
#define APPLY MNEME "apply " DIR "/mixer.yaml --input " DIR "/x.safetensors --output " DIR "/y.safetensors "
  write_tensor(DIR "/x.safetensors", "x", MN_F32, shape, x);
  CHECK(sh(APPLY "--state-out " DIR "/t.safetensors 2>&1") == 0, "%s", out);
  mn_st *st = NULL;
  mn_st_writer *w = mn_st_writer_new();
  CHECK_OK(mn_st_open(DIR "/t.safetensors", &st));
  float copy[64];
  for (int i = 0; st && i < mn_st_count(st); i++) {
    const mn_st_tensor *t = mn_st_at(st, i);
    if (strcmp(t->name, "W") != 0) {
      CHECK_OK(mn_st_writer_add(w, t->name, t->dtype, &t->shape, t->data));
      continue;
    }
    CHECK_OK(mn_st_read(st, t, MN_F32, copy));
    copy[5] = INFINITY;
    CHECK_OK(mn_st_writer_add(w, "W", MN_F32, &t->shape, copy));
  }
  CHECK_OK(mn_st_writer_save(w, DIR "/t2.safetensors"));
  mn_st_writer_free(w);
  mn_st_close(st);
  CHECK(sh(APPLY "--state-in " DIR "/t2.safetensors 2>&1") == 1 && strstr(out, "'W'") && strstr(out, "element 5 is infinity"), "%s", out);
  x[7] = NAN;
  write_tensor(DIR "/x.safetensors", "x", MN_F32, shape, x);
  CHECK(sh(APPLY "2>&1") == 1 && strstr(out, "'x'") && strstr(out, "element 7 is NaN"), "%s", out);
  make_model(NULL, 0, 0);
  int32_t tokens[8] = {1, 2, 2000};
  mn_shape ids = MN_SHAPE(1, 8);
  write_tensor(DIR "/tokens.safetensors", "tokens", MN_I32, ids, tokens);
  CHECK(sh("%s", verbs[VERBS - 1]) == 2 && strstr(out, "2000 (element 2)"), "%s", out);
}

/* ---- ids ---- */
static void draws_have_tokens(const char *tokenizer, bool hole) {
  static const char *const options[] = {"--temperature 50", "--temperature 0", "--temperature 50 --top-k 1900",
                                        "--temperature 50 --top-p 0.999", "--temperature 50 --min-p 0.001 --repetition-penalty 1.5"};
  mn_tokenizer *tok = NULL;
  CHECK_OK(mn_tokenizer_load(tokenizer, &tok));
  for (int i = 0; tok && i < 5; i++) {
    CHECK(sh(MNEME "generate" MODEL "--prompt abc --tokens 150 --json --ignore-eos %s", options[i]) == 0, "%s", out);
    json_t *doc = json_loads(out, JSON_ALLOW_NUL, NULL), *list = json_object_get(doc, "tokens");
    CHECK(json_array_size(list) == 150, "%s", out);
    size_t bytes;
    for (size_t k = 0; k < json_array_size(list); k++) {
      int32_t id = (int32_t)json_integer_value(json_array_get(list, k));
      CHECK(mn_tokenizer_token(tok, id, &bytes) != NULL, "%s: id %d has no token%s", options[i], id, hole ? " (a hole)" : "");
    }
    json_decref(doc);
  }
  mn_tokenizer_free(tok);
}

static bool none_beyond(void *ctx, int32_t token, const char *text, size_t bytes) {
  (void)text;
  (void)bytes;
  CHECK(token < 256 || token == 1900, "id %d", token);
  return ++*(int *)ctx < 300;
}

static void ids_without_a_token_are_not_drawn(void) {
  make_model(NULL, 0, 0);
  draws_have_tokens(DIR "/model/tokenizer.json", false);
  json_t *tok = json_load_file(DIR "/model/tokenizer.json", 0, NULL); /* ids 256 to 1899 are holes */
  json_object_set_new(json_object_get(json_object_get(tok, "model"), "vocab"), "<|late|>", json_integer(1900));
  json_array_append_new(json_object_get(tok, "added_tokens"),
                        json_pack("{s:i,s:s,s:b,s:b,s:b,s:b,s:b}", "id", 1900, "content", "<|late|>", "single_word", 0, "lstrip", 0,
                                  "rstrip", 0, "normalized", 0, "special", 0));
  CHECK(tok && json_dump_file(tok, DIR "/model/tokenizer.json", 0) == 0, "a tokenizer with a hole");
  json_decref(tok);
  draws_have_tokens(DIR "/model/tokenizer.json", true);
  mn_lm *lm = NULL;
  mn_stream *s = NULL;
  int drawn = 0;
  CHECK_OK(mn_lm_open(DIR "/model", 1, &lm));
  if (lm) CHECK_OK(mn_stream_new(lm, NULL, &s));
  if (s) CHECK_OK(mn_stream_generate(s, (int32_t[]){97}, 1, 300, (const char *[]){"temperature=80", NULL}, none_beyond, &drawn));
  CHECK(drawn > 1, "%d", drawn);
  mn_stream_free(s);
  mn_lm_free(lm);
}

/* The likeliest of all ids has no token, in any way of choosing. */
static void a_sampler_keeps_to_its_tokenizer(void) {
  enum { V = 400 };
  mn_tokenizer *tok = NULL;
  mn_sampler *s = NULL;
  float logits[V];
  int32_t token = -1;
  for (int i = 0; i < V; i++) logits[i] = (float)i;
  CHECK_OK(mn_tokenizer_bytes(NULL, 0, &tok));
  int64_t have = tok ? mn_tokenizer_vocab_size(tok) : 0;
  static const mn_sampling ways[] = {{.temperature = 0, .top_p = 1, .repetition_penalty = 1},
                                     {.temperature = 1e-3, .top_p = 1, .repetition_penalty = 1},
                                     {.temperature = 1e-3, .top_k = 5, .top_p = 1, .repetition_penalty = 1},
                                     {.temperature = 1e-3, .top_p = 0.5, .repetition_penalty = 1},
                                     {.temperature = 1e-3, .top_p = 1, .min_p = 0.5, .repetition_penalty = 1}};
  for (int i = 0; tok && i < 5; i++) {
    CHECK_OK(mn_sampler_new(&ways[i], V, &s));
    if (s) CHECK_OK(mn_sampler_next(s, 0, 0, logits, &token));
    CHECK(token == V - 1, "%d", token);
    if (s) CHECK_OK(mn_sampler_keep_to(s, tok));
    if (s) CHECK_OK(mn_sampler_next(s, 0, 0, logits, &token));
    CHECK(token == have - 1, "way %d: %d of %lld", i, token, (long long)have);
    mn_sampler_free(s);
  }
  mn_tokenizer_free(tok);
}

/* ---- a head that is stored twice ---- */
static void a_tied_head_may_be_stored_twice(void) {
  fixture f;
  const char *path = DIR "/tied.safetensors";
  if (!set_up(&f)) return;
  int e = mn_params_find(f.params, "embed_tokens.weight");
  for (int k = 0; e >= 0 && k < 4; k++) { /* equal; unequal; of another shape; another name */
    int64_t n = mn_shape_count(&f.params->info[e].shape);
    float *copy = mn_alloc((size_t)n * sizeof *copy);
    memcpy(copy, f.params->data[e], (size_t)n * sizeof *copy);
    if (k == 1) copy[1234] += 1;
    mn_shape shape = k == 2 ? MN_SHAPE(16, 2000) : f.params->info[e].shape;
    mn_st_writer *w = mn_st_writer_new();
    for (int i = 0; i < f.params->n; i++)
      CHECK_OK(mn_st_writer_add(w, f.params->info[i].name, MN_F32, &f.params->info[i].shape, f.params->data[i]));
    CHECK_OK(mn_st_writer_add(w, k == 3 ? "lm_tail.weight" : "lm_head.weight", MN_F32, &shape, copy));
    CHECK_OK(mn_st_writer_save(w, path));
    mn_st_writer_free(w);
    free(copy);
    mn_status status = mn_params_load(f.params, path);
    if (k == 0) CHECK(status == MN_OK, "%s", mn_message());
    else CHECK(status != MN_OK && strstr(mn_message(), k == 3 ? "lm_tail.weight" : "lm_head.weight"), "case %d: %s", k, mn_message());
    if (k == 1) CHECK(strstr(mn_message(), "embed_tokens.weight") && strstr(mn_message(), "element 1234"), "%s", mn_message());
  }
  fixture_close(&f);
}

/* ---- fingerprints ---- */
static void a_fingerprint_is_of_the_values(void) {
  fixture f;
  mn_model *m = NULL;
  mn_params *p = NULL;
  char memory[33] = "", file[33] = "", none[33] = "";
  make_model(NULL, 0, 0);
  if (!set_up(&f)) return;
  CHECK_OK(mn_model_fingerprint(f.model, f.params, memory));
  CHECK_OK(mn_model_load_dir(DIR "/model", f.backend, MN_F32, &m, &p));
  if (p) CHECK(p->digests && strlen(p->digests[0]) == 32, "the file's checksums are the digests");
  if (p) CHECK_OK(mn_model_fingerprint(m, p, file));
  for (int i = 0; p && i < p->n; i++) p->digests[i][0] = 0;
  if (p) CHECK_OK(mn_model_fingerprint(m, p, none));
  CHECK(strlen(memory) == 32 && !strcmp(memory, file) && !strcmp(memory, none), "%s, %s, %s", memory, file, none);
  mn_params_free(p);
  mn_model_free(m);
  fixture_close(&f);
}

int main(void) {
  RUN(weights_are_numbers);
  RUN(results_are_numbers);
  RUN(tensors_and_states_are_numbers);
  RUN(ids_without_a_token_are_not_drawn);
  RUN(a_sampler_keeps_to_its_tokenizer);
  RUN(a_tied_head_may_be_stored_twice);
  RUN(a_fingerprint_is_of_the_values);
  return test_end();
}
