/* test_fields.c - sources, models and objectives meet by name: each kind of model learns from the source that fits it and is judged by
 * the objective's metrics; several objectives add up; what does not fit is refused by name, with file and line, before any step. */
#include "train/trainer_internal.h"
#include "train_helpers.h"

#define BLOCK       "d_model: 16, layers: 1, block: {mixer: {type: attention, heads: 2, causal: false}, hidden: 16}"
#define BLOCK_LATER "d_model: 16, layers: 1, block: {mixer: {type: attention, heads: 2}, hidden: 16}"
#define TRAIN       "train: {steps: 60, batch: 8, optimizer: {lr: 1e-2}, log_every: 1}\n"

static mn_status parse(const char *text, mn_recipe **out) {
  const char *path = test_path("fields.yaml");
  CHECK_OK(mn_file_write(path, text, strlen(text)));
  return mn_recipe_read(path, NULL, 0, out);
}

/* ---- small data ---- */

static void write_series(void) {
  mn_text t = {0};
  mn_text_add(&t, "date,a,b\n");
  for (int i = 0; i < 300; i++) mn_text_addf(&t, "d%d,%.5f,%.5f\n", i, sin(0.4 * i), cos(0.4 * i));
  CHECK_OK(mn_file_write(test_path("waves.csv"), t.data, t.len));
  mn_text_free(&t);
}

/* A picture's class is where it is bright. */
static void write_pictures(void) {
  enum { N = 200 };
  static uint8_t a[16 + 16 * N] = {0, 0, 8, 3, 0, 0, 0, N, 0, 0, 0, 4, 0, 0, 0, 4}, b[8 + N] = {0, 0, 8, 1, 0, 0, 0, N};
  for (int i = 0; i < N; i++) {
    b[8 + i] = (uint8_t)(mn_splitmix64((uint64_t)i) % 4);
    for (int k = 0; k < 16; k++) {
      int quarter = k / 8 * 2 + k % 4 / 2;
      a[16 + 16 * i + k] = (uint8_t)((quarter == b[8 + i] ? 150 : 0) + (int)(mn_splitmix64((uint64_t)(1000 + 16 * i + k)) % 100));
    }
  }
  CHECK_OK(mn_file_write(test_path("p.idx"), (const char *)a, sizeof a));
  CHECK_OK(mn_file_write(test_path("l.idx"), (const char *)b, sizeof b));
}

/* A file of tensors of 8 rows: floats where `x` says so, else integers. */
typedef struct tensor {
  const char *name;
  mn_shape shape;
  const float *x;
  const int32_t *id;
} tensor;

static void write_tensors(const char *name, int n, const tensor *list) {
  mn_st_writer *w = mn_st_writer_new();
  for (int i = 0; i < n; i++)
    CHECK_OK(mn_st_writer_add(w, list[i].name, list[i].x ? MN_F32 : MN_I32, &list[i].shape,
                              list[i].x ? (const void *)list[i].x : (const void *)list[i].id));
  CHECK_OK(mn_st_writer_save(w, test_path(name)));
  mn_st_writer_free(w);
}

static char *text_of(const char *fmt, const char *a, const char *b) {
  static char text[4096];
  snprintf(text, sizeof text, fmt, a, b);
  return text;
}

/* ---- they learn ---- */

static mn_step_result parts; /* of the last step */

static double metric_of(const mn_evaluation *e, const char *name) {
  for (int i = 0; i < e->n_metrics; i++)
    if (!strcmp(e->metrics[i].name, name)) return e->metrics[i].value;
  return (double)NAN;
}

static const char *unit; /* of the last source */

static void refused(const char *text, const char *a, const char *b, const char *c);

/* The first loss, the last, and the evaluation after it. */
static void learn(const char *text, double *first, double *last, mn_evaluation *e) {
  mn_recipe *r = NULL;
  mn_trainer *t = NULL;
  mn_step_result s = {0};
  *first = *last = (double)NAN;
  *e = (mn_evaluation){0};
  CHECK_OK(parse(text, &r));
  if (r) CHECK_OK(mn_trainer_new(r, 1, NULL, NULL, &t));
  for (int64_t i = 0; t && i < r->train.steps; i++) {
    CHECK_OK(mn_trainer_step(t, &s));
    if (i == 0) *first = s.loss;
  }
  *last = s.loss;
  parts = s;
  unit = t ? mn_source_unit(mn_trainer_source(t)) : "";
  if (t) CHECK_OK(mn_trainer_validate(t, NULL, e));
  mn_trainer_free(t);
  mn_recipe_free(r);
}

#define SERIES                                                                                                                                \
  "data: {type: series, file: '%s', input: 16, horizon: 4}\nmodel: {type: forecaster, context: 16, horizon: 4, channels: 2, patch: 4, " BLOCK \
  "}\n"
#define IMAGES                                                                                                                                     \
  "data: {type: images, images: '%s', labels: '%s', validation: 0.2}\nmodel: {type: vision, height: 4, width: 4, patch: 2, num_classes: 4, " BLOCK \
  "}\n"

static void test_a_forecaster_learns_series(void) {
  double first, last;
  mn_evaluation e;
  learn(text_of(SERIES "objective: {type: regression}\n" TRAIN, test_path("waves.csv"), ""), &first, &last, &e);
  CHECK(last < 0.3 * first, "the loss goes from %g to %g", first, last);
  CHECK(e.batches > 0 && fabs(metric_of(&e, "mse") - e.loss) < 1e-12 && fabs(metric_of(&e, "rmse") - sqrt(e.loss)) < 1e-12,
        "mse is the loss");
  CHECK(!strcmp(unit, "rows"), "a table has rows, not %s", unit);
  CHECK(metric_of(&e, "mae") > 0 && isnan(metric_of(&e, "perplexity")) && isnan(e.bits_per_byte), "numbers have no perplexity");
}

static void test_vision_learns_pictures(void) {
  double first, last;
  mn_evaluation e;
  char path[600];
  snprintf(path, sizeof path, "%s", test_path("p.idx"));
  learn(text_of(IMAGES "objective: {type: classification, label_smoothing: 0.05}\n" TRAIN, path, test_path("l.idx")), &first, &last, &e);
  CHECK(metric_of(&e, "accuracy") > 0.6, "accuracy %g of four classes", metric_of(&e, "accuracy"));
  CHECK(!strcmp(unit, "images"), "pictures are images, not %s", unit);
  CHECK(e.tokens == 40, "%lld held-out pictures were judged, 40 are there", (long long)e.tokens);
}

/* Weights of classes are the loss's: how many pictures are recognised does not hang on them. */
static void test_an_accuracy_is_a_fraction(void) {
  double first, last;
  mn_evaluation plain, weighed;
  char path[600];
  snprintf(path, sizeof path, "%s", test_path("p.idx"));
#define STILL "train: {steps: 1, batch: 8, optimizer: {lr: 0}}\n"
  learn(text_of(IMAGES "objective: {type: classification}\n" STILL, path, test_path("l.idx")), &first, &last, &plain);
  learn(text_of(IMAGES "objective: {type: classification, class_weights: [0.01, 1, 50, 7]}\n" STILL, path, test_path("l.idx")), &first,
        &last, &weighed);
#undef STILL
  const double accuracy = metric_of(&plain, "accuracy");
  CHECK(accuracy > 0 && accuracy < 1 && metric_of(&weighed, "accuracy") == accuracy, "%g, weighed %g", accuracy,
        metric_of(&weighed, "accuracy"));
  CHECK(fabs(weighed.loss - plain.loss) > 1e-6, "the loss is weighed: %g", weighed.loss);
}

static void test_several_objectives_add_up(void) {
  double first, last;
  mn_evaluation e;
  learn(text_of(SERIES "objective: [{type: regression}, {type: regression, loss: mae, weight: 0.5}]\n" TRAIN, test_path("waves.csv"), ""),
        &first, &last, &e);
  double mse = metric_of(&e, "regression.mse"), mae = metric_of(&e, "regression2.loss");
  CHECK(last < first && fabs(e.loss - (mse + 0.5 * mae)) < 1e-9, "loss %g, mse %g, mae %g", e.loss, mse, mae);
  CHECK(parts.n_parts == 2 && fabs(last - (parts.part[0] + 0.5 * parts.part[1])) < 1e-5 * last, "the step's loss is the sum of its parts");
}

/* A masked model sees both sides; the mask is one token more than the tokenizer has. */
static void test_an_encoder_learns_masked_tokens(void) {
  double first, last;
  mn_evaluation e;
  learn(text_of("data: {files: ['%s']}\nmodel: {type: encoder, vocab_size: 258, " BLOCK
                "}\nobjective: {type: masked_token}\ntrain: {steps: 60, batch: 8, seq_len: 32, optimizer: {lr: 1e-2}}\n",
                test_path("text.txt"), ""),
        &first, &last, &e);
  CHECK(!strcmp(unit, "tokens"), "text has tokens, not %s", unit);
  CHECK(last < 0.7 * first, "the loss goes from %g to %g", first, last);
  CHECK(metric_of(&e, "accuracy") > 0.1 && fabs(metric_of(&e, "perplexity") - exp(e.loss)) < 1e-9, "accuracy %g",
        metric_of(&e, "accuracy"));
}

/* What stands behind a row's length is nobody's number: the mean is over the steps that are there. */
static void test_steps_behind_the_length_do_not_count(void) {
  enum { N = 8, T = 6, THERE = 4, F = 4 };
  static float frames[N * T * F], target[N * T], cut_frames[N * THERE * F], cut_target[N * THERE];
  static int32_t length[N];
  static const char *const objectives[] = {"{type: regression}", "{type: regression, loss: huber}", "{type: quantile, quantiles: [0.3]}"};
  for (int i = 0; i < N * T; i++) {
    const int row = i / T, t = i % T, cut = row * THERE + t;
    target[i] = t < THERE ? (float)sin(i) : 1e20f;
    for (int k = 0; k < F; k++) frames[i * F + k] = (float)cos(i * F + k);
    if (t < THERE) cut_target[cut] = target[i], memcpy(cut_frames + cut * F, frames + i * F, F * sizeof *frames);
    length[row] = THERE;
  }
  write_tensors("long.safetensors", 3,
                (tensor[]){{"frames", MN_SHAPE(N, T, F), frames, NULL},
                           {"target", MN_SHAPE(N, T, 1), target, NULL},
                           {"length", MN_SHAPE(N), NULL, length}});
  write_tensors("cut.safetensors", 2,
                (tensor[]){{"frames", MN_SHAPE(N, THERE, F), cut_frames, NULL}, {"target", MN_SHAPE(N, THERE, 1), cut_target, NULL}});
  for (int i = 0; i < 3; i++) {
    char text[2048];
    double first[2], last[2];
    mn_evaluation e[2];
    for (int k = 0; k < 2; k++) {
      snprintf(
          text, sizeof text,
          "data: {type: tensors, file: '%s', validation: 0.5}\nmodel: {type: decision_transformer, actions: 1, states: 2, d_model: 8, layers: "
          "1, block: {mixer: {type: aaren, heads: 2}, hidden: 8}}\nobjective: %s\ntrain: {steps: 3, batch: 4, optimizer: {lr: 1e-2}}\n",
          test_path(k ? "cut.safetensors" : "long.safetensors"), objectives[i]);
      learn(text, &first[k], &last[k], &e[k]);
    }
    CHECK(fabs(first[0] - first[1]) < 1e-6 && fabs(last[0] - last[1]) < 1e-5 && fabs(e[0].loss - e[1].loss) < 1e-5,
          "%s: %g to %g, and without what is not there %g to %g", objectives[i], first[0], last[0], first[1], last[1]);
    for (int k = 0; k < e[0].n_metrics; k++)
      CHECK(fabs(e[0].metrics[k].value - e[1].metrics[k].value) < 1e-5, "%s: %s", objectives[i], e[0].metrics[k].name);
  }
}

/* Classes of places: beside frames they are no tokens, and one that has no logit is refused wherever it stands. */
static void test_places_have_classes_that_the_model_has(void) {
  enum { N = 8, T = 4 };
  static float frames[N * T * 3];
  static int32_t tokens[N * T], target[N * T];
  static const char *const form =
      "data: {type: tensors, file: '%s', validation: 0.5}\nmodel: {type: classifier, %s, num_classes: 3, pooling: "
      "none, " BLOCK "}\nobjective: {type: classification, per: position}\ntrain: {steps: 3, batch: 4}\n";
  char file[600];
  double first, last;
  mn_evaluation e;
  for (int most = 2; most < 4; most++)
    for (int k = 0; k < 2; k++) {
      for (int i = 0; i < N * T; i++) target[i] = i % 3, tokens[i] = i % 9, frames[3 * i] = (float)(i % 3);
      target[5] = most;
      write_tensors("places.safetensors", 2,
                    (tensor[]){k ? (tensor){"tokens", MN_SHAPE(N, T), NULL, tokens} : (tensor){"frames", MN_SHAPE(N, T, 3), frames, NULL},
                               {"target", MN_SHAPE(N, T), NULL, target}});
      snprintf(file, sizeof file, "%s", test_path("places.safetensors"));
      if (most == 3) {
        refused(text_of(form, file, k ? "vocab_size: 9" : "channels: 3"), "the data has 4 classes", "only 3", "");
        continue;
      }
      learn(text_of(form, file, k ? "vocab_size: 9" : "channels: 3"), &first, &last, &e);
      CHECK(isfinite(last) && e.tokens == 4 * T, "%lld places were judged", (long long)e.tokens);
    }
}

/* Where the answer stands, of rows of many lengths. */
static void test_a_model_learns_where_an_answer_stands(void) {
  double first, last;
  mn_evaluation e;
  learn(
      "data: {task: {name: needle_span, len: 32, len_min: 16, needles: 1}}\n"
      "model: {type: classifier, num_classes: 2, pooling: none, d_model: 32, layers: 2, block: {mixer: {type: attention, heads: 2, causal: "
      "false}, hidden: 32}}\nobjective: {type: span}\ntrain: {steps: 120, batch: 16, optimizer: {lr: 1e-2}}\n",
      &first, &last, &e);
  CHECK(last < 0.3 * first, "the loss goes from %g to %g", first, last);
  CHECK(metric_of(&e, "exact_match") > 0.5 && metric_of(&e, "ends_right") >= metric_of(&e, "exact_match"), "exact_match %g, ends_right %g",
        metric_of(&e, "exact_match"), metric_of(&e, "ends_right"));
}

/* ---- a teacher ---- */

#define DECODER "model: {d_model: %s, layers: 1, block: {mixer: {type: attention, heads: 2}, hidden: 32}}\n"

static void train_teacher(const char *dir) {
  mn_recipe *r = NULL;
  mn_train_result result;
  char text[2048];
  snprintf(text, sizeof text, "data: {files: ['%s']}\n" DECODER "train: {steps: 120, batch: 8, seq_len: 32, optimizer: {lr: 1e-2}}\n",
           test_path("text.txt"), "32");
  CHECK_OK(parse(text, &r));
  mn_train_options o = {.out_dir = dir, .threads = 1, .db_path = ""};
  if (r) CHECK_OK(mn_train(r, &o, &result));
  mn_recipe_free(r);
}

static void test_a_student_learns_what_a_teacher_says(void) {
  char dir[600], text[2048];
  double first, last;
  mn_evaluation e;
  snprintf(dir, sizeof dir, "%s", test_path("teacher"));
  train_teacher(dir);
  snprintf(text, sizeof text,
           "data: {files: ['%s']}\n" DECODER
           "objective: [{type: next_token, weight: 0.1}, {type: distillation, teacher: '%s', temperature: 2}]\n"
           "train: {steps: 250, batch: 8, seq_len: 32, optimizer: {lr: 2e-2}}\n",
           test_path("text.txt"), "16", dir);
  learn(text, &first, &last, &e);
  CHECK(last < 0.5 * first, "the loss goes from %g to %g", first, last);
  CHECK(metric_of(&e, "distillation.agreement") > 0.6, "the student says what the teacher says in %g",
        metric_of(&e, "distillation.agreement"));
  CHECK(metric_of(&e, "next_token.perplexity") > 1, "and is judged by the next token too");
}

/* Rows without targets are taught at the places that are there: what fills them up changes nothing. */
static void test_a_teacher_says_nothing_of_what_is_not_there(void) {
  enum { N = 8, T = 6, THERE = 4 };
  static int32_t tokens[N * T], cut[N * THERE], length[N];
  for (int i = 0; i < N * T; i++) {
    tokens[i] = i % T < THERE ? 'a' + i % 7 : 3;
    if (i % T < THERE) cut[i / T * THERE + i % T] = tokens[i];
    length[i / T] = THERE;
  }
  write_tensors("said-long.safetensors", 2, (tensor[]){{"tokens", MN_SHAPE(N, T), NULL, tokens}, {"length", MN_SHAPE(N), NULL, length}});
  write_tensors("said-cut.safetensors", 1, (tensor[]){{"tokens", MN_SHAPE(N, THERE), NULL, cut}});
  for (int features = 0; features < 2; features++) {
    char dir[600], file[600], text[2048];
    double first[2], last[2];
    mn_evaluation e[2];
    snprintf(dir, sizeof dir, "%s", test_path("teacher"));
    for (int k = 0; k < 2; k++) {
      snprintf(file, sizeof file, "%s", test_path(k ? "said-cut.safetensors" : "said-long.safetensors"));
      snprintf(text, sizeof text,
               "data: {type: tensors, text: true, file: '%s', validation: 0.5}\ntokenizer: {type: bytes}\n" DECODER
               "objective: {type: distillation, %steacher: '%s'}\ntrain: {steps: 3, batch: 4, optimizer: {lr: 1e-2}}\n",
               file, "32", features ? "from: features, " : "", dir);
      learn(text, &first[k], &last[k], &e[k]);
    }
    CHECK(first[0] > 0 && fabs(first[0] - first[1]) < 1e-5 * first[0] && fabs(e[0].loss - e[1].loss) < 1e-4 * e[0].loss,
          "%g to %g, and without what is not there %g to %g", first[0], e[0].loss, first[1], e[1].loss);
  }
}

/* Where rows go on from step to step, the teacher's do, too: one that is its student has nothing to teach, in training and in
 * evaluation. One that read each row anew would say something else from the second step on. */
static void test_a_teacher_goes_on_where_its_student_does(void) {
  static const char *const form =
      "data: {files: ['%s'], order: sequential}\nmodel: {d_model: 16, layers: 2, block: {mixer: {type: %s, heads: 2}, hidden: 32}}\n"
      "%strain: {steps: %d, batch: 4, seq_len: 16, carry_state: true, optimizer: {lr: %s, weight_decay: 0}}\n";
  static const char *const mixers[] = {"gated_deltanet", "titans_lmm, chunk: 8", "attention, window: 24"};
  for (int i = 0; i < 3; i++) {
    char dir[600], text[2048], objective[1400], name[32];
    double first, last;
    mn_evaluation e;
    mn_recipe *r = NULL;
    mn_train_result result;
    snprintf(name, sizeof name, "streamed-%d", i);
    snprintf(dir, sizeof dir, "%s", test_path(name));
    snprintf(text, sizeof text, form, test_path("text.txt"), mixers[i], "", 60, "1e-2");
    CHECK_OK(parse(text, &r));
    mn_train_options o = {.out_dir = dir, .threads = 1, .db_path = ""};
    if (r) CHECK_OK(mn_train(r, &o, &result));
    mn_recipe_free(r);
    snprintf(objective, sizeof objective, "init: {from: '%s'}\nobjective: {type: distillation, teacher: '%s'}\n", dir, dir);
    snprintf(text, sizeof text, form, test_path("text.txt"), mixers[i], objective, 6, "1e-12");
    learn(text, &first, &last, &e);
    CHECK(fabs(first) < 1e-6 && fabs(last) < 1e-6, "%s: the loss is %g in the first step, %g in the last", mixers[i], first, last);
    CHECK(e.batches > 1 && fabs(e.loss) < 1e-6 && metric_of(&e, "agreement") == 1, "%s: judged, it is %g over %lld batches, agreement %g",
          mixers[i], e.loss, (long long)e.batches, metric_of(&e, "agreement"));
  }
}

static void test_a_teacher_that_does_not_fit(void) {
  char dir[600], text[2048];
  snprintf(dir, sizeof dir, "%s", test_path("teacher"));
  static const char *const form =
      "data: {files: ['%s']}\nmodel: {%sd_model: 16, layers: 1, block: {mixer: {type: attention, heads: 2, window: 8}, "
      "hidden: 32}}\nobjective: {type: distillation, %steacher: '%s'}\ntrain: {steps: 9, batch: 8, seq_len: 32}\n";
  snprintf(text, sizeof text, form, test_path("text.txt"), "vocab_size: 300, ", "", dir);
  refused(text, "257 tokens", "among 300", "teacher");
  snprintf(text, sizeof text, form, test_path("text.txt"), "", "from: features, ", dir);
  refused(text, "one width", "", "");
  snprintf(text, sizeof text, form, test_path("text.txt"), "", "from: sparse, ", dir);
  refused(text, "teacher", "sparse", "fields.yaml:3");
  snprintf(text, sizeof text, form, test_path("text.txt"), "", "", test_path("nothing"));
  refused(text, "objective.teacher", "nothing", "");
  snprintf(text, sizeof text,
           "data: {files: ['%s']}\n" DECODER "objective: {type: distillation}\ntrain: {steps: 9, batch: 8, seq_len: 32}\n",
           test_path("text.txt"), "16");
  refused(text, "neither teacher.logits", "teacher: DIR", "fields.yaml:3");
  snprintf(text, sizeof text, IMAGES "objective: {type: distillation, teacher: '%s'}\n" TRAIN, test_path("p.idx"), test_path("l.idx"), dir);
  refused(text, "objective.teacher", "of type decoder, which has a vocabulary", "of type vision, has none");
}

/* ---- what does not fit ---- */

static void refused(const char *text, const char *a, const char *b, const char *c) {
  mn_recipe *r = NULL;
  mn_trainer *t = NULL;
  mn_status status = parse(text, &r);
  if (status == MN_OK) status = mn_trainer_new(r, 1, NULL, NULL, &t);
  CHECK(status != MN_OK && strstr(mn_message(), a) && strstr(mn_message(), b) && strstr(mn_message(), c) &&
            strstr(mn_message(), "fields.yaml:"),
        "%s: %s", mn_status_name(status), mn_message());
  mn_trainer_free(t);
  mn_recipe_free(r);
}

static void test_what_does_not_fit(void) {
  char path[600], labels[600];
  snprintf(path, sizeof path, "%s", test_path("p.idx"));
  snprintf(labels, sizeof labels, "%s", test_path("l.idx"));
  refused(text_of(IMAGES "objective: {type: regression}\n" TRAIN, path, labels), "objective regression", "forecast",
          "a model of type vision gives logits");
  refused(text_of(IMAGES TRAIN, path, labels), "objective next_token", "hidden", "vision");
  refused(text_of("data: {type: images, images: '%s', labels: '%s'}\nmodel: {vocab_size: 9, " BLOCK "}\n" TRAIN, path, labels),
          "a model of type decoder needs the field tokens", "images f32 [8, 4, 4, 1]", "label i32 [8]");
  refused(
      text_of(
          "data: {type: images, images: '%s', labels: '%s'}\nmodel: {type: vision, height: 8, width: 4, patch: 2, num_classes: 4, " BLOCK
          "}\nobjective: {type: classification}\n" TRAIN,
          path, labels),
      "takes images", "[8, 8, 4, 1]", "[8, 4, 4, 1]");
  refused(
      text_of(
          "data: {type: images, images: '%s', labels: '%s'}\nmodel: {type: vision, height: 4, width: 4, patch: 2, num_classes: 3, " BLOCK
          "}\nobjective: {type: classification}\n" TRAIN,
          path, labels),
      "4 classes", "only 3", "");
  refused(
      text_of(
          "data: {type: series, file: '%s', input: 16, horizon: 4}\nmodel: {type: forecaster, context: 16, horizon: 4, channels: 3, patch: 4, " BLOCK
          "}\nobjective: {type: regression}\n" TRAIN,
          test_path("waves.csv"), ""),
      "takes series", "[8, 16, 3]", "[8, 16, 2]");
  refused("data: {task: {name: listops}}\nmodel: {" BLOCK "}\n" TRAIN, "target", "label", "");
  refused(
      text_of(
          "data: {type: series, file: '%s', input: 16, horizon: 8}\nmodel: {type: forecaster, context: 16, horizon: 4, channels: 2, patch: 4, " BLOCK
          "}\nobjective: {type: regression}\n" TRAIN,
          test_path("waves.csv"), ""),
      "objective regression: the model's forecast is [8, 4, 2]", "field target [8, 8, 2]", "horizon");
  refused(text_of(SERIES "objective: {type: quantile}\n" TRAIN, test_path("waves.csv"), ""), "objective quantile", "one for every quantile",
          "");
  refused(text_of("data: {files: ['%s']}\nmodel: {type: encoder, " BLOCK
                  "}\nobjective: {type: masked_token, mask_id: 900}\ntrain: {steps: 2, batch: 8, seq_len: 16}\n",
                  test_path("text.txt"), ""),
          "objective.mask_id is 900", "257 tokens", "");
}

static void test_what_belongs_together(void) {
  refused(text_of("data: {files: ['%s']}\nmodel: {type: encoder, " BLOCK
                  "}\nobjective: {type: contrastive}\ntrain: {steps: 2, batch: 8, seq_len: 16}\n",
                  test_path("text.txt"), ""),
          "objective contrastive", "by twos", "layout: twins");
  CHECK_OK(mn_file_write(test_path("four.tsv"), "a\tb\nc\td\ne\tf\ng\th\n", 16));
  refused(text_of("data: {type: pairs, layout: twins, files: ['%s'], target_len: 4, validation: 0.25}\nmodel: {type: encoder, " BLOCK
                  "}\nobjective: {type: contrastive}\ntrain: {steps: 2, batch: 4}\n",
                  test_path("four.tsv"), ""),
          "data.validation holds out one pair", "objective contrastive", "two or more");
}

/* Is a file of tokens, spans and one tensor more taken for training? Else the message says why. */
static mn_status opens_spans(int64_t n, int64_t t, const int32_t *tokens, const int32_t *span, tensor more) {
  mn_recipe *r = NULL;
  mn_trainer *trainer = NULL;
  write_tensors("spans.safetensors", 3, (tensor[]){{"tokens", MN_SHAPE(n, t), NULL, tokens}, {"span", MN_SHAPE(n, 2), NULL, span}, more});
  CHECK_OK(
      parse(text_of("data: {type: tensors, file: '%s', validation: 0}\nmodel: {type: classifier, vocab_size: 9, num_classes: 2, pooling: "
                    "none, " BLOCK "}\nobjective: {type: span}\ntrain: {steps: 1, batch: 4, validate_every: 0}\n",
                    test_path("spans.safetensors"), ""),
            &r));
  const mn_status status = r ? mn_trainer_new(r, 1, NULL, NULL, &trainer) : MN_ERR_ARG;
  mn_trainer_free(trainer);
  mn_recipe_free(r);
  return status;
}

/* An answer has both ends in order, in what is there of its row, or none. */
static void test_spans_of_a_file(void) {
  enum { N = 8, T = 6 };
  static const struct {
    int32_t from, to;
    bool fits;
  } spans[] = {{2, 4, true},   {3, 3, true},   {-1, -1, true}, {-100, -100, true},
               {2, -1, false}, {-1, 2, false}, {4, 2, false},  {4, 5, false}};
  static int32_t tokens[N * T], span[2 * N], length[N];
  for (size_t i = 0; i < sizeof spans / sizeof *spans; i++) {
    for (int row = 0; row < N; row++) span[2 * row] = 0, span[2 * row + 1] = 1, length[row] = 5;
    span[6] = spans[i].from, span[7] = spans[i].to;
    const mn_status status = opens_spans(N, T, tokens, span, (tensor){"length", MN_SHAPE(N), NULL, length});
    CHECK((status == MN_OK) == spans[i].fits && (spans[i].fits || (strstr(mn_message(), "row 3") && strstr(mn_message(), "5 places"))),
          "%d to %d: %s", (int)spans[i].from, (int)spans[i].to, mn_message());
  }
  static int32_t masks[N * T];
  for (int hidden = 2; hidden < 5; hidden++) { /* of places 2 to 4 of a row: an end may not stand there */
    for (int i = 0; i < N * T; i++) masks[i] = i != 3 * T + hidden;
    span[6] = 2, span[7] = 4;
    const mn_status status = opens_spans(N, T, tokens, span, (tensor){"masks", MN_SHAPE(N, T), NULL, masks});
    char says[64];
    snprintf(says, sizeof says, "masks say that place %d is not there", hidden);
    CHECK(hidden == 3 ? status == MN_OK : status == MN_ERR_CONFIG && strstr(mn_message(), "row 3") && strstr(mn_message(), says), "%d: %s",
          hidden, mn_message());
  }
  write_tensors(
      "spans.safetensors", 3,
      (tensor[]){{"tokens", MN_SHAPE(N, T), NULL, tokens}, {"span", MN_SHAPE(N, 2), NULL, span}, {"length", MN_SHAPE(N, 0), NULL, length}});
  refused(
      text_of(
          "data: {type: tensors, file: '%s', validation: 0}\nmodel: {type: classifier, vocab_size: 9, num_classes: 2, pooling: none, " BLOCK
          "}\nobjective: {type: span}\ntrain: {steps: 1, batch: 4}\n",
          test_path("spans.safetensors"), ""),
      "takes length as i32 [B]", "[4, 0]", ""); /* a length of no numbers says nothing of spans */
}

/* What a model keeps of its columns is in config.json, which must be short enough to be read: that is said before the training. */
static void test_a_model_that_could_not_be_opened(void) {
  enum { NAME = 5 << 20 };
  mn_text t = {0};
  mn_recipe *r = NULL;
  mn_trainer *trainer = NULL;
  char *name = malloc(NAME);
  memset(name, 'x', NAME);
  mn_text_add(&t, "date,a");
  mn_text_add_bytes(&t, name, NAME);
  mn_text_add(&t, ",b");
  mn_text_add_bytes(&t, name, NAME);
  mn_text_add(&t, "\n");
  for (int i = 0; i < 100; i++) mn_text_addf(&t, "d%d,%.5f,%.5f\n", i, sin(0.4 * i), cos(0.4 * i));
  CHECK_OK(mn_file_write(test_path("long.csv"), t.data, t.len));
  CHECK_OK(parse(text_of(SERIES "objective: {type: regression}\n" TRAIN, test_path("long.csv"), ""), &r));
  CHECK(r && mn_trainer_new(r, 1, NULL, NULL, &trainer) == MN_ERR_CONFIG && strstr(mn_message(), "data.type series") &&
            strstr(mn_message(), "config.json would have"),
        "%s", mn_message());
  mn_trainer_free(trainer);
  mn_recipe_free(r);
  mn_text_free(&t);
  free(name);
}

/* A source in its own vocabulary, as long as a stream has room for. */
static void test_a_source_fits_its_model(void) {
  static const char *const form =
      "data: {type: pairs, task: {name: number_words}, source_len: 64, target_len: 96}\nmodel: {type: encoder_decoder, %s%s, " BLOCK_LATER
      ", encoder: {layers: 1, block: {mixer: {type: attention, heads: 2, causal: false}}}}\ntrain: {steps: 2, batch: 4}\n";
  refused(text_of(form, "source_vocab_size: ", "100"), "source of data.type pairs holds ids below 257", "vocabulary of 100",
          "source_vocab_size");
  refused(text_of(form, "max_source: ", "20"), "data.source_len is 64", "source of 20", "raise max_source");
}

int main(void) {
  test_setup("fields");
  write_series();
  write_pictures();
  RUN(test_a_forecaster_learns_series);
  RUN(test_vision_learns_pictures);
  RUN(test_an_accuracy_is_a_fraction);
  RUN(test_several_objectives_add_up);
  RUN(test_an_encoder_learns_masked_tokens);
  RUN(test_steps_behind_the_length_do_not_count);
  RUN(test_places_have_classes_that_the_model_has);
  RUN(test_spans_of_a_file);
  RUN(test_what_belongs_together);
  RUN(test_a_model_learns_where_an_answer_stands);
  RUN(test_a_student_learns_what_a_teacher_says);
  RUN(test_a_teacher_says_nothing_of_what_is_not_there);
  RUN(test_a_teacher_goes_on_where_its_student_does);
  RUN(test_a_teacher_that_does_not_fit);
  RUN(test_what_does_not_fit);
  RUN(test_a_source_fits_its_model);
  RUN(test_a_model_that_could_not_be_opened);
  test_cleanup();
  return test_end();
}
