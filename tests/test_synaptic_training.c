/* test_synaptic_training.c - what must be true of synapses in training: where they begin follows where they end (consolidation), in
 * training alone, and is kept with the model; they are put around a trained model (graft), which at first is that model, and of which
 * nothing but the new moves. */
#include "base/file.h"
#include "format/json.h"
#include "format/safetensors.h"
#include "gradcheck.h"
#include "nn/mixer.h"
#include "program.h"
#include "scratch.h"

#define DIR "synaptic"

/* ---- consolidation, of one mixer ---- */
enum { B = 3, T = 11, D = 4, H = 2, HEAD = D / H, PARTS = H * HEAD * HEAD };

/* P0 after a segment and P at the end of it, from P0 before it. */
static bool segment(bool training, double rate, double *before, double after[PARTS], double P[B * PARTS]) {
  char json[160];
  snprintf(json, sizeof json,
           "{\"type\": \"synaptic\", \"heads\": 2, \"chunk\": 4, \"consolidate_rate\": %g, \"base\": {\"type\": \"retnet\", "
           "\"heads\": 2}}",
           rate);
  mn_arena *arena = mn_arena_new();
  mn_graph *g = mn_graph_new();
  const mn_value *v = NULL;
  mn_mixer m;
  CHECK_OK(mn_json_parse(arena, "test", json, strlen(json), &v));
  CHECK_OK(mn_mixer_parse(arena, v, NULL, D, &m));
  mn_scope *s = mn_scope_new(g, (mn_build){.param = MN_F64, .compute = MN_F64, .training = training}, B);
  mn_tensor *x = mn_input(g, "x", MN_F64, MN_SHAPE(B, T, D)), *leaf[32] = {x}, *y[3] = {mn_mixer_apply(s, &m, x)}, *const * param;
  double *value[32] = {mn_calloc(B * T * D, sizeof(double))}, *got[3] = {NULL};
  gc_fill(value[0], &(gc_input){MN_F64, MN_SHAPE(B, T, D), -1, 1, false}, 3, 0);
  const mn_param_info *info;
  const mn_built_buffer *buffer;
  const mn_built_state *state;
  int n = 1 + mn_scope_params(s, &info, &param);
  for (int i = 1; i < n; i++) {
    leaf[i] = param[i - 1];
    value[i] = mn_calloc((size_t)mn_shape_count(&leaf[i]->shape), sizeof(double));
    gc_fill(value[i], &(gc_input){MN_F64, leaf[i]->shape, -1, 1, false}, 3, i);
  }
  bool ok = mn_scope_buffers(s, &buffer) == 1 && !strcmp(buffer->info.name, "synaptic.P0") && mn_graph_status(g) == MN_OK;
  CHECK(ok, "there is no buffer synaptic.P0: %s", mn_message());
  if (ok) {
    leaf[n] = buffer->leaf;
    value[n++] = before;
    y[1] = buffer->value;
    for (int i = 0, k = mn_scope_states(s, &state); i < k; i++)
      if (!strcmp(state[i].info.name, "synaptic.P")) y[2] = state[i].value;
    ok = gc_run(g, mn_backend_ref(), 0, MN_KEEP, n, leaf, value, 3, y, got);
    CHECK(ok, "%s", mn_message());
  }
  if (ok) {
    memcpy(after, got[1], PARTS * sizeof *after);
    memcpy(P, got[2], B * PARTS * sizeof *P);
  }
  for (int i = 0; i < n; i++)
    if (value[i] != before) free(value[i]);
  for (int i = 0; i < 3; i++) free(got[i]);
  mn_graph_free(g);
  mn_arena_free(arena);
  return ok;
}

static void slow_synapses_follow_the_fast_ones(void) {
  const double rate = 0.25;
  double before[PARTS], after[PARTS], P[B * PARTS], other[B * PARTS];
  for (int i = 0; i < PARTS; i++) before[i] = mn_random_normal(5, 1, (uint64_t)i);
  if (!segment(true, rate, before, after, P)) return;
  for (int i = 0; i < PARTS; i++) {
    double mean = 0;
    for (int b = 0; b < B; b++) mean += P[b * PARTS + i] / B;
    CHECK(fabs(after[i] - ((1 - rate) * before[i] + rate * mean)) < 1e-12, "entry %d: %g", i, after[i]);
  }
  if (!segment(false, rate, before, after, other)) return;
  CHECK(!memcmp(after, before, sizeof before), "in evaluation they move");
  CHECK(!memcmp(P, other, sizeof P), "in evaluation P is another");
  double zeros[PARTS] = {0};
  if (segment(false, rate, zeros, after, other)) CHECK(memcmp(P, other, sizeof P), "P does not begin there");
}

/* ---- through the program ---- */
static const char recipe[] = "seed: 1\ntokenizer: {type: bytes}\ndata: {files: [" DIR "/text.txt], cache: " DIR "/cache}\n"
                             "model: {d_model: 16, layers: 2, block: {mixer: {type: attention, heads: 2, window: 6}}}\n"
                             "train: {steps: 6, batch: 2, seq_len: 24, optimizer: {lr: 1e-2}, schedule: {type: constant}}\n";
#define TRAIN MNEME "train " DIR "/recipe.yaml --quiet --db " DIR "/runs.db "
#define AROUND                                                                                                                             \
  "--set 'model.block.mixer={type: synaptic, heads: 2, chunk: 4, base: {type: attention, heads: 2, window: 6}}' "                          \
  "--set 'init={from: " DIR "/base, missing: draw}' "
#define NEW_ALONE "--set 'train.groups=[{match: \"*.synaptic.*\"}, {match: \"*\", frozen: true}]' "

/* Tensors of both files that are the same, bit by bit; *own: those that are in b alone, *moved: those that are in both and differ. */
static int same_tensors(const char *a, const char *b, int *own, int *moved) {
  mn_st *of_a = NULL, *of_b = NULL;
  int same = 0;
  *own = *moved = 0;
  CHECK_OK(mn_st_open(a, &of_a));
  CHECK_OK(mn_st_open(b, &of_b));
  for (int i = 0; of_a && of_b && i < mn_st_count(of_b); i++) {
    const mn_st_tensor *there = mn_st_at(of_b, i), *here = mn_st_find(of_a, there->name);
    const size_t bytes = (size_t)mn_shape_count(&there->shape) * mn_dtype_size(there->dtype);
    if (!here) ++*own;
    else if (memcmp(here->data, there->data, bytes) != 0) ++*moved;
    else same++;
  }
  mn_st_close(of_a);
  mn_st_close(of_b);
  return same;
}

static void eval_of(const char *run, char loss[200]) {
  CHECK(sh(MNEME "eval --json --model " DIR "/%s --data " DIR "/text.txt --seq-len 24 --batch 2 2>/dev/null | grep '\"loss\"'", run) == 0,
        "%s", out);
  snprintf(loss, 200, "%.199s", out);
}

static void they_are_put_around_a_trained_model(void) {
  char base[200], grafted[200], trained[200];
  int own, moved;
  CHECK(sh("rm -rf " DIR " && mkdir -p " DIR) == 0, "%s", out);
  mn_text text = {0};
  for (int i = 0; i < 300; i++) mn_text_addf(&text, "line %d of a text that is long enough to be read twice\n", i);
  CHECK_OK(mn_file_write(DIR "/text.txt", text.data, text.len));
  CHECK_OK(mn_file_write(DIR "/recipe.yaml", recipe, strlen(recipe)));
  mn_text_free(&text);
  CHECK(sh(TRAIN "--out " DIR "/base 2>&1") == 0, "%s", out);
  eval_of("base", base);
  CHECK(sh(TRAIN AROUND "--set train.steps=1 --set train.optimizer.lr=0 --out " DIR "/grafted 2>&1") == 0, "%s", out);
  eval_of("grafted", grafted);
  CHECK(*base && !strcmp(base, grafted), "around it the model is another: %s and %s", base, grafted);
  const int same = same_tensors(DIR "/base/model.safetensors", DIR "/grafted/model.safetensors", &own, &moved);
  CHECK(same > 10 && own == 2 * 13 && moved == 0, "%d tensors are the base's, %d are new, %d differ", same, own, moved);

  CHECK(sh(TRAIN AROUND NEW_ALONE "--out " DIR "/trained 2>&1") == 0, "%s", out);
  eval_of("trained", trained);
  CHECK(strcmp(base, trained), "nothing was trained: %s", trained);
  CHECK(same_tensors(DIR "/base/model.safetensors", DIR "/trained/model.safetensors", &own, &moved) == same && moved == 0,
        "%d tensors of what is frozen moved", moved);
  same_tensors(DIR "/grafted/model.safetensors", DIR "/trained/model.safetensors", &own, &moved);
  CHECK(moved >= 2 * 8, "%d of the new tensors moved", moved);
}

/* The verb writes that recipe. */
static void graft_makes_the_recipe(void) {
  char base[200], grafted[200];
  int own, moved;
  CHECK(sh(MNEME "graft --base " DIR "/base --mixer '{type: synaptic, heads: 2, chunk: 4}' --output " DIR "/g.json 2>&1") == 0 &&
            strstr(out, "26 tensors"),
        "%s", out);
  CHECK(sh(MNEME "train " DIR "/g.json --quiet --db " DIR "/runs.db --out " DIR
                 "/still --set train.steps=1 --set train.optimizer.lr=0 2>&1") == 0,
        "%s", out);
  eval_of("base", base);
  eval_of("still", grafted);
  CHECK(!strcmp(base, grafted), "around it the model is another: %s and %s", base, grafted);
  CHECK(sh(MNEME "train " DIR "/g.json --quiet --db " DIR "/runs.db --out " DIR "/new 2>&1") == 0, "%s", out);
  same_tensors(DIR "/new/model.safetensors", DIR "/trained/model.safetensors", &own, &moved);
  CHECK(own == 0 && moved == 0, "it is another training: %d tensors are new, %d differ", own, moved);
  CHECK(sh(MNEME "graft --base " DIR "/base --mixer '{type: synaptic, heads: 2}' --train-only all --output " DIR "/all.json 2>&1") == 0,
        "%s", out);
  CHECK(sh(MNEME "train " DIR "/all.json --quiet --db " DIR "/runs.db --out " DIR "/all 2>&1") == 0, "%s", out);
  same_tensors(DIR "/base/model.safetensors", DIR "/all/model.safetensors", &own, &moved);
  CHECK(own == 26 && moved > 10, "%d are new, of the base's %d moved", own, moved);
}

/* What it says to do next can be pasted; a base whose weights cannot be used is refused as in all other verbs. */
static void graft_can_be_followed(void) {
  CHECK(sh("cp -r " DIR "/base " DIR "/bad && mkdir -p '" DIR "/my dir' && printf '\\377\\377\\377\\377' | dd of=" DIR
           "/bad/model.safetensors bs=1 seek=$(($(wc -c <" DIR "/bad/model.safetensors) - 4)) conv=notrunc 2>&1") == 0,
        "%s", out);
  CHECK(sh(MNEME "graft --base " DIR "/bad --mixer synaptic --output " DIR "/bad.json 2>&1") != 0 && strstr(out, "bad/model.safetensors"),
        "%s", out);
  CHECK(sh("test -e " DIR "/bad.json") != 0, "something was written");
  CHECK(sh(MNEME "graft --base " DIR "/base --mixer '{type: synaptic, heads: 2, chunk: 4}' --output '" DIR "/my dir/g.json' 2>&1") == 0 &&
            strstr(out, "train it with: mneme train '" DIR "/my dir/g.json' --out DIR"),
        "%s", out);
}

static void graft_says_what_does_not_fit(void) {
  static const struct {
    const char *arguments, *expect;
  } cases[] = {
      {"--mixer synaptic --output " DIR "/x.json", "--base DIR"},
      {"--base " DIR "/base --output " DIR "/x.json", "--mixer MAP"},
      {"--base " DIR "/base --mixer synaptic", "--output FILE.json"},
      {"--base " DIR "/base --mixer synaptic --output " DIR "/x.yaml", "must end in .json"},
      {"--base " DIR "/base --mixer gla --output " DIR "/x.json", "gla is not made to be put around a trained mixer; synaptic is"},
      {"--base " DIR "/base --mixer synaptc --output " DIR "/x.json", "synaptic"},
      {"--base " DIR "/base --mixer '[1]' --output " DIR "/x.json", "needs a mixer"},
      {"--base " DIR "/base --mixer '{type: synaptic, base: {type: gla}}' --output " DIR "/x.json", "leave out base"},
      {"--base " DIR "/base --mixer '{type: synaptic, heds: 2}' --output " DIR "/x.json", "did you mean 'heads'"},
      {"--base " DIR "/base --mixer '{type: synaptic, heads: 3}' --output " DIR "/x.json", "divide d_model 16"},
      {"--base " DIR "/base --mixer '{type: synaptic, mode: static, chunk: 4}' --output " DIR "/x.json", "no effect with mode: static"},
      {"--base " DIR "/base --mixer '{type: synaptic, mode: off}' --output " DIR "/x.json", "nothing would be new"},
      {"--base " DIR "/base --mixer synaptic --train-only old --output " DIR "/x.json", "new"},
      {"--base " DIR "/trained --mixer synaptic --output " DIR "/x.json", "around its mixer already"},
      {"--base " DIR "/nothing --mixer synaptic --output " DIR "/x.json", "nothing: there is no recipe.json"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    CHECK(sh(MNEME "graft %s 2>&1", cases[i].arguments) == 2 && strstr(out, cases[i].expect), "%s: %s", cases[i].arguments, out);
  CHECK(sh("test -e " DIR "/x.json") != 0, "something was written");
}

static void a_graft_that_does_not_fit_is_refused(void) {
  CHECK(sh(TRAIN AROUND "--set init.missing=refuse --out " DIR "/x 2>&1") == 2 && strstr(out, "layers.0.mixer.synaptic.") &&
            strstr(out, "init.missing: draw"),
        "%s", out);
  CHECK(sh(TRAIN AROUND "--set model.block.mixer.base={type: retnet, heads: 2} --out " DIR "/x 2>&1") != 0, "%s", out);
  CHECK(sh(TRAIN AROUND "--set 'train.groups=[{match: \"*.synapses.*\"}, {match: \"*\", frozen: true}]' --out " DIR "/x 2>&1") == 2 &&
            strstr(out, "fits no parameter"),
        "%s", out);
}

/* The buffer stands in the file, moves in training alone, and a run that was interrupted goes on to the same bits. */
static void slow_synapses_are_kept_with_the_model(void) {
#define SLOW                                                                                                                               \
  "--set 'model.block.mixer={type: synaptic, heads: 2, chunk: 4, consolidate_rate: 0.2, base: {type: attention, heads: 2, window: 6}}' "
  CHECK(sh(TRAIN SLOW "--out " DIR "/slow 2>&1") == 0, "%s", out);
  mn_st *st = NULL;
  CHECK_OK(mn_st_open(DIR "/slow/model.safetensors", &st));
  const mn_st_tensor *t = st ? mn_st_find(st, "layers.1.mixer.synaptic.P0") : NULL;
  CHECK(t && t->shape.ndim == 3, "there is no layers.1.mixer.synaptic.P0");
  double sum = 0, P0[2 * 8 * 8];
  if (t) CHECK_OK(mn_st_read(st, t, MN_F64, P0));
  for (int i = 0; t && i < 2 * 8 * 8; i++) sum += fabs(P0[i]);
  CHECK(sum > 0.1, "it is still zeros: %g", sum);
  mn_st_close(st);
  CHECK(sh(TRAIN SLOW "--set train.steps=3 --out " DIR "/less 2>&1") == 0, "%s", out);
  CHECK(sh(TRAIN SLOW "--set train.steps=6 --resume --out " DIR "/less 2>&1") == 0, "%s", out);
  CHECK(sh("cmp " DIR "/slow/model.safetensors " DIR "/less/model.safetensors 2>&1") == 0, "what went on is another: %s", out);
}

int main(void) {
  RUN(slow_synapses_follow_the_fast_ones);
  RUN(they_are_put_around_a_trained_model);
  RUN(graft_makes_the_recipe);
  RUN(graft_can_be_followed);
  RUN(graft_says_what_does_not_fit);
  RUN(a_graft_that_does_not_fit_is_refused);
  RUN(slow_synapses_are_kept_with_the_model);
  CHECK(sh("rm -rf " DIR) == 0, "%s", out);
  return test_end();
}
