/* What must be true of `mneme apply` on models: every input port is fed by the tensor of its name; gradients reach inputs that are
 * numbers and every parameter; what a stream keeps of its source is given once; what does not fit a port is refused by its name; `mneme
 * inspect` lists all that it reads. */
#include "base/file.h"
#include "mixer_check.h"
#include "program.h"
#include "scratch.h"

#define DIR   "apply-models"
#define BLOCK "d_model: 8, layers: 1, block: {mixer: {type: attention, heads: 2, causal: false}, channel: swiglu, hidden: 8}"
enum { B = 2 };

static bool is_integer(const char *name, const mc_bag *b) {
  return !strcmp(name, "tokens") || !strcmp(name, "masks") || (!strcmp(name, "condition") && mc_get((mc_bag *)b, name)->shape.ndim == 1) ||
         strstr(name, "length") || !strcmp(name, "position") || (!strcmp(name, "source") && mc_get((mc_bag *)b, name)->shape.ndim == 2);
}

static int save(const char *name, const mc_bag *b) {
  char path[600];
  int32_t whole[8][256];
  mn_st_writer *w = mn_st_writer_new();
  snprintf(path, sizeof path, DIR "/%s", name);
  for (int i = 0, n = 0; i < b->n; i++) {
    const mc_tensor *t = &b->t[i];
    bool integer = is_integer(t->name, b);
    for (int64_t k = 0; integer && k < mn_shape_count(&t->shape); k++) whole[n][k] = (int32_t)t->x[k];
    CHECK_OK(mn_st_writer_add(w, t->name, integer ? MN_I32 : MN_F64, &t->shape, integer ? (const void *)whole[n++] : t->x));
  }
  int ok = mn_st_writer_save(w, path) == MN_OK || mc_complain(path);
  mn_st_writer_free(w);
  return ok;
}

static int load(const char *name, mc_bag *b) {
  char path[600];
  mn_st *st = NULL;
  snprintf(path, sizeof path, DIR "/%s", name);
  if (mn_st_open(path, &st) != MN_OK) return mc_complain(path);
  for (int i = 0; i < mn_st_count(st); i++) {
    const mn_st_tensor *t = mn_st_at(st, i);
    double *x = mc_put(b, t->name, t->shape, NULL);
    for (int64_t k = 0; t->dtype == MN_I32 && k < mn_shape_count(&t->shape); k++) x[k] = ((const int32_t *)t->data)[k];
    if (t->dtype != MN_I32 && mn_st_read(st, t, MN_F64, x) != MN_OK) return mc_complain(t->name);
  }
  mn_st_close(st);
  return 1;
}

static void add(mc_bag *b, const char *name, mn_shape shape, uint64_t seed) {
  double *x = mc_normal(mn_shape_count(&shape), 1, seed);
  mc_put(b, name, shape, x);
  free(x);
}

/* Whole numbers in [0, n). */
static void add_ids(mc_bag *b, const char *name, mn_shape shape, int n, uint64_t seed) {
  double *x = mc_put(b, name, shape, NULL);
  for (int64_t k = 0; k < mn_shape_count(&shape); k++) x[k] = floor(n * mn_random_uniform(seed, 0, (uint64_t)k));
}

static void add_two(mc_bag *b, const char *name, double first, double second) {
  const double x[] = {first, second};
  mc_put(b, name, MN_SHAPE(B), x);
}

/* ---- the models ---- */
#define ENCODER "encoder: {layers: 1, block: {mixer: {type: attention, heads: 2, causal: false}, channel: swiglu, hidden: 8}}"
#define SPEAKER "d_model: 8, layers: 1, block: {mixer: {type: gated_deltanet, heads: 2}, channel: swiglu, hidden: 8}"
static const struct {
  const char *recipe, *reads;
  mn_shape says;
} models[] = {
    {"{type: vision, height: 4, width: 6, channels: 2, patch: 2, num_classes: 3, " BLOCK "}", "images", {.ndim = 2, .dim = {B, 3}}},
    {"{type: forecaster, context: 8, horizon: 3, channels: 2, patch: 4, " BLOCK "}", "series", {.ndim = 3, .dim = {B, 3, 2}}},
    {"{type: encoder_decoder, vocab_size: 7, source_vocab_size: 5, max_source: 8, " ENCODER ", " SPEAKER "}",
     "tokens source source_length",
     {.ndim = 3, .dim = {B, 4, 7}}},
    {"{type: encoder_decoder, vocab_size: 7, channels: 3, max_source: 8, " ENCODER ", " SPEAKER "}",
     "tokens frames-source source_length",
     {.ndim = 3, .dim = {B, 4, 7}}},
    {"{type: classifier, channels: 3, num_classes: 5, " BLOCK "}", "frames length", {.ndim = 2, .dim = {B, 5}}},
    {"{type: encoder, vocab_size: 7, " BLOCK "}", "tokens length", {.ndim = 3, .dim = {B, 4, 7}}},
    {"{type: classifier, channels: 3, num_classes: 5, condition_width: 2, d_model: 8, layers: 1, block: {mixer: {type: attention, heads: 2}, "
     "hidden: 8, condition: adaln_zero}}",
     "frames masks condition-numbers",
     {.ndim = 2, .dim = {B, 5}}},
    {"{type: encoder, vocab_size: 7, condition_classes: 3, d_model: 8, layers: 1, block: {mixer: {type: gated_deltanet, heads: 2}, hidden: 8, "
     "condition: film}}",
     "tokens masks condition",
     {.ndim = 3, .dim = {B, 4, 7}}},
};
enum { MODELS = sizeof models / sizeof *models };

static void fill(mc_bag *in, const char *reads) {
  if (strstr(reads, "images")) add(in, "images", MN_SHAPE(B, 4, 6, 2), 1);
  if (strstr(reads, "series")) add(in, "series", MN_SHAPE(B, 8, 2), 2);
  if (strstr(reads, "tokens")) add_ids(in, "tokens", MN_SHAPE(B, 4), 7, 3);
  if (strstr(reads, "frames-source")) add(in, "source", MN_SHAPE(B, 5, 3), 4);
  else if (strstr(reads, "frames")) add(in, "frames", MN_SHAPE(B, 4, 3), 5);
  else if (strstr(reads, "source")) add_ids(in, "source", MN_SHAPE(B, 5), 5, 6);
  if (strstr(reads, "masks")) mc_put(in, "masks", MN_SHAPE(B, 4), (const double[]){1, 0, 1, 1, 0, 1, 1, 0});
  if (strstr(reads, "condition-numbers")) add(in, "condition", MN_SHAPE(B, 2), 7);
  else if (strstr(reads, "condition")) add_two(in, "condition", 2, 0);
  if (strstr(reads, "source_length")) add_two(in, "source_length", 5, 2);
  else if (strstr(reads, "length")) add_two(in, "length", 4, 2);
}

static int apply(const mc_bag *params, const mc_bag *in, const char *more, mc_bag *results) {
  int ok = save("x.safetensors", in) && (!params || save("p.safetensors", params)) &&
           sh("cd " DIR " && " MNEME "apply r.yaml --threads 1 %s --input x.safetensors --output y.safetensors --dtype f64 %s 2>&1",
              params ? "--params p.safetensors" : "--seed 3 --params-out p.safetensors", more) == 0;
  CHECK(ok, "%s", out);
  return ok && load("y.safetensors", results);
}

static int begin(int c, mc_bag *in, mc_bag *params) {
  mc_bag y = {0};
  char recipe[700];
  snprintf(recipe, sizeof recipe, "model: %s\n", models[c].recipe);
  CHECK_OK(mn_file_write(DIR "/r.yaml", recipe, strlen(recipe)));
  fill(in, models[c].reads);
  int ok = apply(NULL, in, "", &y) && load("p.safetensors", params);
  const mc_tensor *t = ok ? mc_get(&y, "y") : NULL;
  CHECK(t && mn_shape_equal(&t->shape, &models[c].says), "%s says something of another shape", models[c].recipe);
  for (int i = 0; ok && i < params->n; i++) { /* nothing stays at a special value */
    mc_tensor *p = &params->t[i];
    double *more = mc_normal(mn_shape_count(&p->shape), 0.2, 40 + (uint64_t)i);
    for (int64_t k = 0; k < mn_shape_count(&p->shape); k++) p->x[k] += more[k];
    free(more);
  }
  mc_bag_free(&y);
  return ok;
}

/* sum(y * dy) */
static double loss(const mc_bag *params, mc_bag *in) {
  mc_bag y = {0};
  double sum = NAN;
  mc_tensor *dy = mc_get(in, "dy");
  const int all = in->n;
  in->n--; /* it stands last, and belongs to --grad */
  if (apply(params, in, "", &y)) {
    const mc_tensor *t = mc_get(&y, "y");
    sum = 0;
    for (int64_t k = 0; k < mn_shape_count(&t->shape); k++) sum += t->x[k] * dy->x[k];
  }
  in->n = all;
  mc_bag_free(&y);
  return sum;
}

static double slope_error(mc_bag *params, mc_bag *in, mc_tensor *t, const double *grad, uint64_t seed) {
  const int64_t n = mn_shape_count(&t->shape);
  double *d = mc_normal(n, 1, seed), *old = malloc((size_t)(n + 1) * sizeof *old), l[2], said = 0, length = 0, step = 2e-6;
  memcpy(old, t->x, (size_t)n * sizeof *old);
  for (int i = 0; i < 2; i++) {
    for (int64_t k = 0; k < n; k++) t->x[k] = old[k] + (i ? step : -step) * d[k];
    l[i] = loss(params, in);
  }
  memcpy(t->x, old, (size_t)n * sizeof *old);
  for (int64_t k = 0; k < n; k++) said += grad[k] * d[k], length += grad[k] * grad[k];
  free(d);
  free(old);
  return fabs((l[1] - l[0]) / (2 * step) - said) / (sqrt(length) + 1e-3);
}

static void test_gradients_reach_every_input_and_parameter(void) {
  for (int c = 0; c < MODELS; c++) {
    mc_bag in = {0}, params = {0}, grads = {0};
    int ok = begin(c, &in, &params), numbers = 0;
    add(&in, "dy", models[c].says, 9);
    ok = ok && apply(&params, &in, "--grad", &grads);
    mc_bag *bags[] = {&in, &params};
    for (int b = ok ? 0 : 2; b < 2; b++)
      for (int i = 0; i < bags[b]->n; i++) {
        mc_tensor *t = &bags[b]->t[i];
        char name[112];
        snprintf(name, sizeof name, "grad.%.90s", t->name);
        mc_tensor *g = mc_get(&grads, name);
        if (!b && (is_integer(t->name, &in) || !strcmp(t->name, "dy"))) {
          CHECK(!g, "%s: %s", models[c].recipe, name);
          continue;
        }
        numbers += !b;
        CHECK(g, "%s: %s is missing", models[c].recipe, name);
        double e = g ? slope_error(&params, &in, t, g->x, 200 + (uint64_t)i) : 0;
        CHECK(e < 2e-6, "%s: %s: %g", models[c].recipe, name, e);
      }
    const bool told = strstr(models[c].reads, "condition-numbers");
    CHECK(!ok || numbers ==
                     told + (strstr(models[c].reads, "images") || strstr(models[c].reads, "series") || strstr(models[c].reads, "frames")),
          "%s: %d inputs of numbers", models[c].recipe, numbers);
    mc_bag_free(&in);
    mc_bag_free(&params);
    mc_bag_free(&grads);
  }
}

/* What stands behind a row's length is fed and seen by nobody: it has no gradient. */
static void test_padding_has_no_gradient(void) {
  static const int of[] = {3, 4};
  for (int i = 0; i < 2; i++) {
    mc_bag in = {0}, params = {0}, grads = {0};
    const char *name = i ? "grad.frames" : "grad.source";
    if (begin(of[i], &in, &params) && apply(&params, &in, "--grad", &grads)) {
      const mc_tensor *g = mc_get(&grads, name);
      const int64_t T = g->shape.dim[1], C = g->shape.dim[2];
      double there = 0, behind = 0;
      for (int64_t k = 0; k < T * C; k++) *(k < 2 * C ? &there : &behind) += fabs(g->x[T * C + k]);
      CHECK(there > 0 && behind == 0, "%s: %g within the second row's length, %g behind", models[of[i]].recipe, there, behind);
    }
    mc_bag_free(&in);
    mc_bag_free(&params);
    mc_bag_free(&grads);
  }
}

/* The source comes with the first call; the state keeps it. */
static void test_a_source_is_given_once(void) {
  for (int c = 2; c < 4; c++) {
    mc_bag in = {0}, params = {0}, whole = {0}, part[2] = {{0}, {0}}, y[2] = {{0}, {0}};
    if (begin(c, &in, &params) && apply(&params, &in, "", &whole)) {
      const mc_tensor *tokens = mc_get(&in, "tokens");
      for (int i = 0; i < 2; i++) { /* of 4 tokens 1 and 3 */
        const int64_t from = i, n = i ? 3 : 1;
        double *x = mc_put(&part[i], "tokens", MN_SHAPE(B, n), NULL);
        for (int64_t b = 0; b < B; b++) memcpy(x + b * n, tokens->x + b * 4 + from, (size_t)n * sizeof *x);
      }
      for (int i = 0; i < in.n; i++)
        if (strcmp(in.t[i].name, "tokens") != 0) mc_put(&part[0], in.t[i].name, in.t[i].shape, in.t[i].x);
      int ok = apply(&params, &part[0], "--state-out s.safetensors", &y[0]) && apply(&params, &part[1], "--state-in s.safetensors", &y[1]);
      for (int64_t b = 0; ok && b < B; b++) {
        const double *all = mc_get(&whole, "y")->x + b * 4 * 7;
        double e = fmax(mc_difference(mc_get(&y[0], "y")->x + b * 7, all, 7), mc_difference(mc_get(&y[1], "y")->x + b * 21, all + 7, 21));
        CHECK(e < 1e-10, "%s, row %d: %g", models[c].recipe, (int)b, e);
      }
    }
    mc_bag *bags[] = {&in, &params, &whole, &part[0], &part[1], &y[0], &y[1]};
    for (size_t i = 0; i < sizeof bags / sizeof *bags; i++) mc_bag_free(bags[i]);
  }
}

/* ---- what does not fit ---- */
static void refused(int c, mc_bag *in, const char *more, const char *a, const char *b, const char *also) {
  char recipe[700];
  snprintf(recipe, sizeof recipe, "model: %s\n", models[c].recipe);
  CHECK_OK(mn_file_write(DIR "/r.yaml", recipe, strlen(recipe)));
  CHECK(save("x.safetensors", in), "x");
  int rc = sh("cd " DIR " && " MNEME "apply r.yaml --threads 1 --input x.safetensors --output y.safetensors %s 2>&1", more);
  CHECK((rc == 1 || rc == 2) && strstr(out, "x.safetensors") && strstr(out, a) && strstr(out, b) && strstr(out, also), "%d: %s", rc, out);
  mc_bag_free(in);
}

static void test_what_does_not_fit_is_refused_by_its_port(void) {
  mc_bag in = {0};
  add(&in, "pictures", MN_SHAPE(B, 4, 6, 2), 1);
  refused(0, &in, "", "needs the tensor images", "[B, 4, 6, 2]", "the file has pictures");
  add(&in, "images", MN_SHAPE(B, 4, 6, 3), 1);
  refused(0, &in, "", "images is F64 [2, 4, 6, 3]", "model of type vision", "[B, 4, 6, 2]");
  add(&in, "images", MN_SHAPE(B, 4, 6, 2), 1);
  add(&in, "length", MN_SHAPE(B), 1);
  refused(0, &in, "", "length", "not an input", "images");
  add(&in, "series", MN_SHAPE(B, 8, 2), 1);
  mc_get(&in, "series")->x[5] = NAN;
  refused(1, &in, "", "series", "element 5", "NaN");
  add(&in, "series", MN_SHAPE(B, 9, 2), 1);
  refused(1, &in, "", "series is F64 [2, 9, 2]", "forecaster", "[B, 8, 2]");
  fill(&in, "tokens");
  refused(2, &in, "", "needs the tensor source", "i32 [2, S]", "the file has tokens");
  fill(&in, "tokens frames-source");
  refused(2, &in, "", "source is F64 [2, 5, 3]", "integers [2, S]", "encoder_decoder");
  fill(&in, "tokens source source_length");
  mc_get(&in, "source")->x[3] = 5;
  refused(2, &in, "", "source holds 5 (element 3)", "vocabulary has 5", "");
  fill(&in, "tokens source source_length");
  mc_get(&in, "source_length")->x[1] = 6;
  refused(2, &in, "", "source_length holds 6 (row 1)", "5 places", "");
  fill(&in, "tokens source");
  add_two(&in, "source_length", 1, -1);
  refused(2, &in, "", "source_length holds -1 (row 1)", "5 places", "");
  fill(&in, "tokens source");
  in.t[in.n - 1].shape.dim[0] = 1;
  refused(2, &in, "", "source is I32 [1, 5]", "[2, S]", "");
  fill(&in, "frames length");
  mc_get(&in, "length")->x[0] = 5;
  refused(4, &in, "", "length holds 5 (row 0)", "4 places", "");
  fill(&in, "tokens length");
  mc_get(&in, "tokens")->x[6] = 7;
  refused(5, &in, "", "tokens holds 7 (element 6)", "vocabulary has 7", "");
  fill(&in, "tokens masks");
  refused(7, &in, "", "needs the tensor condition", "i32 [2]", "the file has tokens, masks");
  fill(&in, "tokens masks condition");
  mc_get(&in, "condition")->x[1] = 3;
  refused(7, &in, "", "condition holds 3 (element 1)", "condition_classes are 3", "");
  fill(&in, "tokens masks condition");
  mc_get(&in, "masks")->x[2] = 2;
  refused(7, &in, "", "masks holds 2 (element 2)", "there (1) or not (0)", "");
}

/* `mneme inspect --params` names what --params must hold, no more and no less: what only some inputs reach, and buffers, too. It needs no
 * length, whatever the model's lengths are, and takes what is no stream. */
static void test_inspect_lists_what_apply_reads(void) {
  static const struct {
    const char *recipe;
    int inputs; /* which of them below */
  } units[] = {
      {"model: {type: rxt, vocab_size: 7, d_model: 4, turn: 3, slots: 2, memory: {heads: 1}, block: {mixer: {type: attention, heads: 1}, cross: "
       "{heads: 1}}, encoder: {block: {mixer: {type: attention, heads: 1, causal: false}}}}",
       0},
      {"model: {type: lmuformer, channels: 3, num_classes: 2, d_model: 4, order: 3, spiking: true}", 1},
      {"model: {vocab_size: 7, d_model: 8, layers: 2, block: {mixer: {type: synaptic, base: {type: attention, heads: 2}}}}", 0},
      {"{d_model: 8, mixer: {type: attention, heads: 2, causal: false}}", 2},
      {"{d_model: 8, block: {mixer: {type: attention, heads: 2, causal: false}, channel: {type: moe, choice_bias: true}}}", 2},
      {"{d_model: 8, mixer: {type: atlas_mac, heads: 2, persistent: 1, memory_net: gated}}", 2},
  };
  for (size_t u = 0; u < sizeof units / sizeof *units; u++) {
    mc_bag in = {0}, params = {0}, y = {0};
    CHECK_OK(mn_file_write(DIR "/r.yaml", units[u].recipe, strlen(units[u].recipe)));
    if (units[u].inputs == 0) add_ids(&in, "tokens", MN_SHAPE(B, 6), 7, 3);
    else add(&in, units[u].inputs == 1 ? "frames" : "x", MN_SHAPE(B, 6, units[u].inputs == 1 ? 3 : 8), 3);
    int ok = apply(NULL, &in, "", &y) && load("p.safetensors", &params);
    CHECK(sh("cd " DIR " && " MNEME "inspect r.yaml --params --threads 1 2>&1") == 0, "%s: %s", units[u].recipe, out);
    const char *list = strstr(out, "\nparameter "), *end = list ? strstr(list, "\n\n") : NULL;
    int lines = 0;
    for (const char *p = list; ok && end && p < end; p++) lines += *p == '\n';
    CHECK(!ok || lines - 1 == params.n, "%s: %d are listed, %d are read", units[u].recipe, lines - 1, params.n);
    for (int i = 0; ok && end && i < params.n; i++) {
      char name[120];
      snprintf(name, sizeof name, "\n%.100s ", params.t[i].name);
      const char *at = strstr(list, name);
      CHECK(at && at < end, "%s: %s is not listed", units[u].recipe, params.t[i].name);
    }
    mc_bag_free(&in);
    mc_bag_free(&params);
    mc_bag_free(&y);
  }
}

int main(void) {
  if (sh("rm -rf " DIR " && mkdir -p " DIR) != 0) return 1;
  RUN(test_gradients_reach_every_input_and_parameter);
  RUN(test_padding_has_no_gradient);
  RUN(test_a_source_is_given_once);
  RUN(test_what_does_not_fit_is_refused_by_its_port);
  RUN(test_inspect_lists_what_apply_reads);
  if (sh("rm -rf " DIR) != 0) return 1;
  return test_end();
}
