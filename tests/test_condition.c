/* What must be true of what a model is told beside its sequence. A condition: at the start a block says nothing (adaln_zero) or what it
 * says without (film); told a class, it is the plain block whose norms and last projections have taken in scale, shift and gate; its
 * gradients are right, it reaches its own row alone, and a model learns by it what it cannot know otherwise. Masks: a row with gaps is
 * the row without them, for every mixer, as a stream too; what is missing has no gradient; series with gaps are learned from. */
#include "model_check.h"
#include "small_mixers.h"
#include "train_helpers.h"

enum { B = 2, T = 6, D = 8, CLASSES = 4 };
#define TRUNK                                                                                                                              \
  "type: encoder, channels: 3, d_model: 8, layers: 2, norm: layer, block: {mixer: {type: attention, heads: 2, causal: false, bias: "       \
  "true}, channel: mlp, hidden: 8"
static const char *const plain = "{" TRUNK "}}";
static const char *const kinds[] = {"adaln_zero", "film"};

static bool open_told(mk_model *m, const char *kind, const char *how) {
  char yaml[600];
  snprintf(yaml, sizeof yaml, "{%s, " TRUNK ", condition: %s}}", how, kind);
  return mk_open(m, yaml, 3);
}

static void classes(mc_bag *in, double first, double second) {
  const double x[B] = {first, second};
  mc_put(in, "condition", MN_SHAPE(B), x);
}

static void frames(mc_bag *in) { mk_numbers(in, "frames", MN_SHAPE(B, T, 3), 7); }

/* Parameters whose name has `word` become `value`. */
static void set(mk_model *m, const char *word, double value) {
  for (int i = 0; i < m->params.n; i++)
    for (int64_t k = 0; strstr(m->params.t[i].name, word) && k < mn_shape_count(&m->params.t[i].shape); k++) m->params.t[i].x[k] = value;
}

static double difference(mk_model *a, const mc_bag *of_a, mk_model *b, const mc_bag *of_b, int row) {
  mc_bag y = {0}, z = {0};
  double e = INFINITY;
  if (mk_run(a, of_a, &y) && mk_run(b, of_b, &z))
    e = mc_difference(mc_get(&y, "hidden")->x + row * T * D, mc_get(&z, "hidden")->x + row * T * D, T * D);
  mc_bag_free(&y);
  mc_bag_free(&z);
  return e;
}

static void at_the_start_a_condition_changes_nothing(void) {
  for (int k = 0; k < 2; k++) {
    mk_model told, not, none;
    mc_bag in = {0}, same = {0};
    frames(&in);
    frames(&same);
    classes(&in, 1, 3);
    if (open_told(&told, kinds[k], "condition_classes: 4") && mk_open(&not, plain, 3) &&
        mk_open(&none, "{type: encoder, channels: 3, d_model: 8, norm: layer, layers: 1, block: {mixer: {type: attention}, channel: none}}",
                3)) {
      set(&told, "_condition.", 0);
      set(&none, "o_proj", 0);
      for (int i = 0; i < none.params.n; i++) {
        const mc_tensor *t = mc_get(&told.params, none.params.t[i].name);
        if (t && !strstr(t->name, "layers.")) mc_put(&none.params, t->name, t->shape, t->x);
      }
      CHECK(difference(&told, &in, k ? &not : &none, &same, 1) < 1e-13, "%s", kinds[k]);
      mk_close(&told);
      mk_close(&not );
      mk_close(&none);
    }
    mc_bag_free(&in);
    mc_bag_free(&same);
  }
}

/* ---- against the plain block ---- */
static double *entry(mk_model *m, const char *layer, const char *name) {
  char path[112];
  snprintf(path, sizeof path, "%s.%s", layer, name);
  mc_tensor *t = mc_get(&m->params, path);
  CHECK(t != NULL, "there is no %s", path);
  return t ? t->x : NULL;
}

/* The plain model takes in what the told one makes of a class, part by part: v = W silu(c) + b. */
static void take_in(mk_model *to, mk_model *told, int kind, int class_of_row) {
  const double *c = mc_get(&told->params, "embed_condition.weight")->x + class_of_row * D;
  static const char *const parts[2][4] = {{"mixer_condition", "mixer_norm", "mixer.o_proj"},
                                          {"channel_condition", "channel_norm", "channel.down_proj"}};
  for (int i = 0; i < to->params.n; i++) {
    const mc_tensor *t = mc_get(&told->params, to->params.t[i].name);
    if (t) mc_put(&to->params, t->name, t->shape, t->x);
  }
  for (int layer = 0; layer < 2; layer++)
    for (int part = 0; part < 2; part++) {
      char at[32], name[64];
      double v[3 * D];
      snprintf(at, sizeof at, "layers.%d", layer);
      snprintf(name, sizeof name, "%s.weight", parts[part][0]);
      const double *W = entry(told, at, name);
      snprintf(name, sizeof name, "%s.bias", parts[part][0]);
      const double *b = entry(told, at, name);
      if (!W || !b) return;
      for (int i = 0; i < (kind ? 2 : 3) * D; i++) {
        v[i] = b[i];
        for (int j = 0; j < D; j++) v[i] += W[i * D + j] * c[j] / (1 + exp(-c[j]));
      }
      snprintf(name, sizeof name, "%s.weight", parts[part][1]);
      double *gain = entry(to, at, name);
      snprintf(name, sizeof name, "%s.bias", parts[part][1]);
      double *bias = entry(to, at, name);
      snprintf(name, sizeof name, "%s.weight", parts[part][2]);
      double *last = entry(to, at, name);
      snprintf(name, sizeof name, "%s.bias", parts[part][2]);
      double *last_bias = entry(to, at, name);
      for (int d = 0; gain && bias && last && last_bias && d < D; d++) {
        const double shift = v[d], scale = 1 + v[D + d], said = kind ? scale : v[2 * D + d];
        if (!kind) gain[d] *= scale, bias[d] = bias[d] * scale + shift;
        for (int j = 0; j < D; j++) last[d * D + j] *= said; /* [D, D]: hidden is 8 too */
        last_bias[d] = last_bias[d] * said + (kind ? shift : 0);
      }
    }
}

static void a_class_is_the_plain_block_that_took_it_in(void) {
  for (int k = 0; k < 2; k++) {
    mk_model told, folded;
    mc_bag in = {0}, same = {0};
    frames(&in);
    frames(&same);
    classes(&in, 1, 3);
    if (open_told(&told, kinds[k], "condition_classes: 4") && mk_open(&folded, plain, 4)) {
      double before = difference(&told, &in, &folded, &same, 1);
      take_in(&folded, &told, k, 3);
      double e = difference(&told, &in, &folded, &same, 1), other = difference(&told, &in, &folded, &same, 0);
      CHECK(e < 1e-11 && before > 1e-2, "%s: %g; before %g", kinds[k], e, before);
      CHECK(other > 1e-3, "%s: a row of another class is the same: %g", kinds[k], other);
      classes(&in, 0, 3);
      CHECK(difference(&told, &in, &folded, &same, 1) < 1e-11, "%s: another row's class reaches this one", kinds[k]);
      mk_close(&told);
      mk_close(&folded);
    }
    mc_bag_free(&in);
    mc_bag_free(&same);
  }
}

static void gradients_agree_with_differences(void) {
  for (int k = 0; k < 2; k++)
    for (int numbers = 0; numbers < 2; numbers++) {
      mk_model m;
      mc_bag in = {0};
      frames(&in);
      classes(&in, 1, 3);
      if (numbers) mk_numbers(&in, "condition", MN_SHAPE(B, 5), 9);
      if (!open_told(&m, kinds[k], numbers ? "condition_width: 5" : "condition_classes: 4")) continue;
      double e = mk_gradient_error(&m, &in, 20, 1);
      CHECK(e < 1e-7, "%s, %s: %g", kinds[k], numbers ? "numbers" : "classes", e);
      mk_close(&m);
      mc_bag_free(&in);
    }
}

/* ---- masks ---- */
static const int there[B][T + 3] = {{1, 0, 1, 1, 0, 0, 1, 1, 0}, {0, 1, 1, 0, 1, 1, 1, 0, 1}}; /* five and six of nine */

static void masks(mc_bag *in, int64_t n) {
  double *x = mc_put(in, "masks", MN_SHAPE(B, n), NULL);
  for (int b = 0; b < B; b++)
    for (int64_t t = 0; t < n; t++) x[b * n + t] = there[b][t];
}

/* Row b alone, without what is missing. */
static int without_gaps(const mc_bag *in, int b, int64_t n, mc_bag *to) {
  const double *x = mc_get((mc_bag *)in, "frames")->x + b * n * 3;
  double kept[9 * 3];
  int64_t k = 0;
  for (int64_t t = 0; t < n; t++)
    if (there[b][t]) memcpy(kept + 3 * k++, x + 3 * t, 3 * sizeof *x);
  mc_put(to, "frames", MN_SHAPE(1, k, 3), kept);
  return (int)k;
}

static void a_row_with_gaps_is_the_row_without_them(void) {
  enum { N = 9 };
  for (int i = 0; i < MN_SMALL_MIXERS; i++) {
    char yaml[600];
    mk_model m;
    mc_bag in = {0}, y = {0};
    snprintf(yaml, sizeof yaml, "{type: encoder, channels: 3, d_model: 8, layers: 2, block: {mixer: %s, hidden: 8}}", mn_small_mixers[i]);
    mk_numbers(&in, "frames", MN_SHAPE(B, N, 3), 7);
    masks(&in, N);
    if (mk_open(&m, yaml, 3) && mk_run(&m, &in, &y)) {
      for (int b = 0; b < B; b++) {
        mc_bag alone = {0}, want = {0};
        const int k = without_gaps(&in, b, N, &alone);
        if (mk_run(&m, &alone, &want)) {
          const double *all = mc_get(&y, "hidden")->x + b * N * D, *some = mc_get(&want, "hidden")->x;
          double worst = 0, nothing = 0;
          for (int t = 0, at = 0; t < N; t++) {
            for (int d = 0; d < D && !there[b][t]; d++) nothing = fmax(nothing, fabs(all[t * D + d]));
            if (there[b][t]) worst = fmax(worst, mc_difference(all + t * D, some + at++ * D, D));
          }
          CHECK(worst < 1e-10 && nothing == 0, "%s, row %d of %d: %g; where nothing is %g", mn_small_mixers[i], b, k, worst, nothing);
        }
        mc_bag_free(&alone);
        mc_bag_free(&want);
      }
      const int64_t cuts[] = {1, 4, 6};
      double e = mk_split_error(&m, &in, "hidden", N, 3, cuts);
      CHECK(e < 1e-10, "%s, cut: %g", mn_small_mixers[i], e);
    }
    mk_close(&m);
    mc_bag_free(&in);
    mc_bag_free(&y);
  }
}

/* Added positions are those of the whole row; a stream would lose count of them and is refused. */
static void positions_know_the_gaps(void) {
  mk_model m;
  mc_bag in = {0}, y = {0}, z = {0};
  mk_built b;
  frames(&in);
  masks(&in, T);
  if (!mk_open(
          &m,
          "{type: classifier, channels: 3, num_classes: 3, positions: sinusoidal, d_model: 8, block: {mixer: {type: attention, heads: 2, "
          "causal: false, rope: false}}}",
          3))
    return;
  if (mk_run(&m, &in, &y)) {
    double *x = mc_get(&in, "frames")->x, *mask = mc_get(&in, "masks")->x;
    for (int k = 0; k < 3; k++) x[1 * 3 + k] += 9; /* what is missing is not looked at */
    CHECK(mk_run(&m, &in, &z) && mc_difference(mc_get(&z, "logits")->x, mc_get(&y, "logits")->x, 2 * 3) == 0, "a missing place was read");
    memcpy(x + 1 * 3, x, 3 * sizeof *x); /* the same frame stands one place later: */
    mask[0] = 0, mask[1] = 1;
    CHECK(mk_run(&m, &in, &z) && mc_difference(mc_get(&z, "logits")->x, mc_get(&y, "logits")->x, 3) > 1e-4,
          "its place makes no difference");
  }
  CHECK(!mk_build(&m, &in, true, &b) && strstr(mn_message(), "masks"), "%s", mn_message());
  mk_free(&b);
  mk_close(&m);
  mc_bag_free(&in);
  mc_bag_free(&y);
  mc_bag_free(&z);
}

static void gradients_pass_around_gaps(void) {
  static const char *const models[] = {
      "{type: classifier, channels: 3, num_classes: 3, d_model: 8, block: {mixer: {type: attention, heads: 2, causal: false}}}",
      "{type: classifier, channels: 3, num_classes: 3, pooling: last, d_model: 8, block: {mixer: {type: gated_deltanet, heads: 2, conv: 3}}}",
      "{type: forecaster, context: 6, horizon: 2, channels: 3, patch: 2, d_model: 8, block: {mixer: {type: attention, heads: 2, causal: "
      "false}}}",
      "{type: forecaster, context: 6, horizon: 2, channels: 3, patch: 1, independent: false, instance_norm: false, d_model: 8, block: {mixer: "
      "{type: retnet, heads: 2}}}"};
  for (int i = 0; i < 4; i++) {
    mk_model m;
    mc_bag in = {0};
    mk_numbers(&in, i < 2 ? "frames" : "series", MN_SHAPE(B, T, 3), 7);
    masks(&in, T);
    if (i < 2) classes(&in, 6, 4), snprintf(mc_get(&in, "condition")->name, 112, "length"); /* and both at once */
    if (!mk_open(&m, models[i], 3)) continue;
    double e = mk_gradient_error(&m, &in, 20, 1);
    CHECK(e < 1e-6, "%s: %g", models[i], e);
    mk_close(&m);
    mc_bag_free(&in);
  }
}

/* A window of which nothing is missing is the window without masks. */
static void all_there_is_no_mask(void) {
  mk_model m;
  mc_bag in = {0}, y = {0}, z = {0};
  mk_numbers(&in, "series", MN_SHAPE(B, T, 3), 7);
  if (!mk_open(&m, "{type: forecaster, context: 6, horizon: 2, channels: 3, patch: 2, d_model: 8, block: {mixer: {type: attention}}}", 3))
    return;
  bool ok = mk_run(&m, &in, &y);
  double *x = mc_put(&in, "masks", MN_SHAPE(B, T), NULL);
  for (int k = 0; k < B * T; k++) x[k] = 1;
  CHECK(ok && mk_run(&m, &in, &z) && mc_difference(mc_get(&z, "forecast")->x, mc_get(&y, "forecast")->x, B * 2 * 3) < 1e-12, "all there");
  mk_close(&m);
  mc_bag_free(&in);
  mc_bag_free(&y);
  mc_bag_free(&z);
}

/* ---- learning ---- */
enum { ROWS = 64, LONG = 12, SYMBOLS = 8 };

/* Each class walks through the symbols by a step of its own, from anywhere: the next symbol is known to who knows the class at once. */
static void write_walks(const char *name, bool told) {
  static int32_t tokens[ROWS * LONG], target[ROWS * LONG], condition[ROWS];
  for (int r = 0; r < ROWS; r++) {
    condition[r] = r % CLASSES;
    int at = (int)(SYMBOLS * mn_random_uniform(5, 0, (uint64_t)r));
    for (int t = 0; t < LONG; t++) {
      tokens[r * LONG + t] = at;
      at = (at + 1 + condition[r]) % SYMBOLS;
      target[r * LONG + t] = t ? MN_IGNORE : at; /* the first alone is judged */
    }
  }
  const mn_shape rows = MN_SHAPE(ROWS, LONG), one = MN_SHAPE(ROWS);
  mn_st_writer *w = mn_st_writer_new();
  CHECK_OK(mn_st_writer_add(w, "tokens", MN_I32, &rows, tokens));
  CHECK_OK(mn_st_writer_add(w, "target", MN_I32, &rows, target));
  if (told) CHECK_OK(mn_st_writer_add(w, "condition", MN_I32, &one, condition));
  CHECK_OK(mn_st_writer_save(w, test_path(name)));
  mn_st_writer_free(w);
}

/* The mean loss of the last ten steps of a recipe's training; NAN where it is refused. */
static double train(const char *recipe) {
  mn_recipe *r = NULL;
  mn_trainer *t = NULL;
  double sum = 0;
  const char *path = test_path("told.yaml");
  CHECK_OK(mn_file_write(path, recipe, strlen(recipe)));
  mn_status status = mn_recipe_read(path, NULL, 0, &r);
  if (status == MN_OK) status = mn_trainer_new(r, 1, NULL, NULL, &t);
  for (int64_t i = 0; status == MN_OK && i < r->train.steps; i++) {
    mn_step_result s;
    status = mn_trainer_step(t, &s);
    if (i >= r->train.steps - 10) sum += s.loss / 10;
  }
  mn_trainer_free(t);
  mn_recipe_free(r);
  return status == MN_OK ? sum : (double)NAN;
}

static double walk(const char *data, const char *keys, const char *block) {
  char recipe[1500];
  snprintf(recipe, sizeof recipe,
           "name: told\nseed: 1\ndata: {type: tensors, file: %s, validation: 0.1}\nmodel:\n  type: decoder\n  d_model: 16\n  layers: 1\n%s"
           "  block: {mixer: {type: attention, heads: 2}, hidden: 32%s}\ntrain: {steps: 250, batch: 8, optimizer: {lr: 1e-2}}\n",
           test_path(data), keys, block);
  return train(recipe);
}

static void a_class_is_learned_from(void) {
  write_walks("told.safetensors", true);
  write_walks("untold.safetensors", false);
  const double alone = walk("untold.safetensors", "", "");
  CHECK(alone > 0.9, "four classes alike, and yet a loss of %g", alone);
  for (int k = 0; k < 2; k++) {
    char block[64];
    snprintf(block, sizeof block, ", condition: %s", kinds[k]);
    const double loss = walk("told.safetensors", "  condition_classes: 4\n", block);
    CHECK(loss < 0.3, "%s: %g, and %g without; %s", kinds[k], loss, alone, isnan(loss) ? mn_message() : "");
  }
  /* what does not fit is refused by its port */
  CHECK(isnan(walk("untold.safetensors", "  condition_classes: 4\n", ", condition: film")), "a condition from nowhere");
  CHECK(strstr(mn_message(), "needs the field condition") != NULL, "%s", mn_message());
  CHECK(isnan(walk("told.safetensors", "  condition_classes: 3\n", ", condition: film")), "four classes in a table of three");
  CHECK(strstr(mn_message(), "raise its condition_classes") != NULL, "%s", mn_message());
}

static void a_series_with_gaps_is_learned_from(void) {
  mn_text csv = {0};
  mn_text_add(&csv, "x\n");
  for (int t = 0; t < 600; t++) mn_text_addf(&csv, "%.5f\n", sin(0.3 * t) + 0.5 * sin(0.11 * t));
  CHECK_OK(mn_file_write(test_path("waves.csv"), csv.data, csv.len));
  mn_text_free(&csv);
  double loss[2];
  for (int gaps = 0; gaps < 2; gaps++) {
    char recipe[1200];
    snprintf(
        recipe, sizeof recipe,
        "name: gaps\nseed: 1\ndata: {type: series, file: %s, input: 24, horizon: 4%s}\nmodel: {type: forecaster, context: 24, horizon: 4, "
        "channels: 1, patch: 1, d_model: 16, layers: 1, positions: learned, block: {mixer: {type: attention, heads: 2, causal: false, rope: "
        "false}, hidden: 32}}\nobjective: {type: regression}\ntrain: {steps: 150, batch: 16, optimizer: {lr: 5e-3}}\n",
        test_path("waves.csv"), gaps ? ", gaps: 0.3" : "");
    loss[gaps] = train(recipe);
  }
  CHECK(loss[0] < 0.1 && loss[1] < 0.3, "%g, with gaps %g; %s", loss[0], loss[1], mn_message()); /* the variance is 1 */
}

static void what_a_recipe_may_not_ask_for(void) {
  mk_refused("type: encoder\nchannels: 3\nblock: {mixer: {type: attention}, condition: film}\n", "condition_classes|condition_width");
  mk_refused("type: encoder\nchannels: 3\ncondition_classes: 2\ncondition_width: 2\nblock: {mixer: {type: attention}, condition: film}\n",
             "condition_classes|not both");
  mk_refused("type: encoder\nchannels: 3\ncondition_classes: 2\nblock: {mixer: {type: attention}}\n", "condition_classes|no block");
  mk_refused("type: encoder\nchannels: 3\ncondition_classes: 2\nblock: {mixer: {type: attention}, condition: film, parallel: true}\n",
             "parallel|condition: film");
  mk_refused("type: encoder_decoder\nvocab_size: 5\nencoder: {block: {mixer: {type: attention, causal: false}}}\nblock: {mixer: {type: "
             "attention}, condition: film}\n",
             "condition|has no effect");
  mk_refused("type: hmt\nsegment: 4\nbase: {vocab_size: 5, condition_classes: 2, block: {mixer: {type: attention}, condition: film}}\n",
             "base|condition");
}

int main(void) {
  test_setup("condition");
  RUN(at_the_start_a_condition_changes_nothing);
  RUN(a_class_is_the_plain_block_that_took_it_in);
  RUN(gradients_agree_with_differences);
  RUN(a_row_with_gaps_is_the_row_without_them);
  RUN(positions_know_the_gaps);
  RUN(gradients_pass_around_gaps);
  RUN(all_there_is_no_mask);
  RUN(a_class_is_learned_from);
  RUN(a_series_with_gaps_is_learned_from);
  RUN(what_a_recipe_may_not_ask_for);
  test_cleanup();
  return test_end();
}
