/* What must be true of the public API's classifiers, seen as a foreign program sees it (mneme_classify.h alone): fed in any cuts it says what
 * `mneme classify` says of the same lines; a stream says it frame by frame, and is fed on after it was judged; another reads the whole; a reset
 * begins anew; wrong use is named. */
#include <mneme_classify.h>

#include <math.h>

#include "base/file.h"
#include "program.h"
#include "scratch.h"
#include "wav_file.h"

enum { BANDS = 12, FRAMES = 20, CLASSES = 3, SOUNDS = 12 };
static float frames[FRAMES * BANDS];

static void put(const char *name, const char *model) {
  mn_text t = {0};
  mn_text_addf(&t,
               "data: {type: audio, files: ['sounds/*.wav'], test_names: '*_0.wav', frames: 40, bands: 12}\nmodel: %s\n"
               "objective: {type: classification}\ntrain: {steps: 3, batch: 4, optimizer: {type: adamw, lr: 1e-2}, validate_every: 0}\n",
               model);
  CHECK_OK(mn_file_write("r.yaml", t.data, t.len));
  mn_text_free(&t);
  CHECK(sh("MNEME_HOME=home " MNEME "train r.yaml --out %s --quiet --threads 1 2>&1", name) == 0, "%s", out);
}

static void prepare(void) {
  static const char *const words[CLASSES] = {"high", "low", "middle"};
  static const double hz[CLASSES] = {2200, 400, 1000};
  CHECK(sh("mkdir sounds") == 0, "%s", out);
  for (int i = 0; i < SOUNDS; i++) {
    char path[100];
    mn_text t = {0};
    wav_text(&t, 8000, hz[i % CLASSES] + 10 * i, 1400, 2 * 1400);
    snprintf(path, sizeof path, "sounds/%s_%d.wav", words[i % CLASSES], i / CLASSES);
    CHECK_OK(mn_file_write(path, t.data, t.len));
    mn_text_free(&t);
  }
  put("stream", "{type: lmuformer, channels: 12, num_classes: 3, d_model: 12, window: 40}");
  put("whole", "{type: classifier, channels: 12, num_classes: 3, d_model: 8, layers: 1, block: {mixer: {type: attention, heads: 2, causal: "
               "false}, channel: mlp, hidden: 8}}");
  mn_text lines = {0};
  for (int i = 0; i < FRAMES * BANDS; i++) {
    frames[i] = (float)(i * 7 % 11) / 4 - 1;
    mn_text_addf(&lines, "%g%s", (double)frames[i], i % BANDS + 1 < BANDS ? " " : "\n");
  }
  CHECK_OK(mn_file_write("lines.txt", lines.data, lines.len));
  mn_text_free(&lines);
}

/* What the program says of the file's first so many frames: the likeliest class, and its probability. */
static double said(const char *model, int n, char label[64]) {
  double p = -1;
  CHECK(sh("head -n %d lines.txt > part.txt && " MNEME "classify %s part.txt --threads 1 2>/dev/null", n, model) == 0, "%s", out);
  CHECK(sscanf(out, "part.txt %63s %lf", label, &p) == 2, "%s", out);
  return p;
}

static void agrees(const mn_classifier *c, const char *model, int n, const double *p) {
  char label[64] = "";
  const double want = said(model, n, label);
  int best = 0;
  for (int i = 1; i < CLASSES; i++) best = p[i] > p[best] ? i : best;
  CHECK(mn_classifier_label(c, best) && !strcmp(mn_classifier_label(c, best), label) && fabs(p[best] - want) < 1e-4,
        "%s of %d frames: %s %g, not %s %g", model, n, mn_classifier_label(c, best), p[best], label, want);
  CHECK(fabs(p[0] + p[1] + p[2] - 1) < 1e-9, "%g", p[0] + p[1] + p[2]);
}

static void it_says_what_the_program_says(void) {
  static const char *const models[] = {"stream", "whole"};
  for (int m = 0; m < 2; m++) {
    mn_classifier *c = NULL;
    double p[CLASSES], again[CLASSES], early[CLASSES];
    CHECK_OK(mn_classifier_open(models[m], 1, &c));
    if (!c) continue;
    CHECK(mn_classifier_classes(c) == CLASSES && mn_classifier_channels(c) == BANDS && mn_classifier_is_stream(c) == !m, "%s", models[m]);
    CHECK(!strcmp(mn_classifier_label(c, 0), "high") && !mn_classifier_label(c, CLASSES) && !mn_classifier_label(c, -1), "names");
    CHECK(mn_classifier_judge(c, p) == MN_ERR_ARG && strstr(mn_message(), "no frame"), "%s", mn_message());
    CHECK_OK(mn_classifier_feed(c, frames, 7, NULL));
    CHECK_OK(mn_classifier_judge(c, p));
    agrees(c, models[m], 7, p);
    CHECK_OK(mn_classifier_feed(c, frames + 7 * BANDS, FRAMES - 8, NULL)); /* and on */
    const mn_status status = mn_classifier_feed(c, frames + (FRAMES - 1) * BANDS, 1, early);
    CHECK(m ? status == MN_ERR_ARG && strstr(mn_message(), "before the end") : status == MN_OK && early[0] + early[1] + early[2] > 0.999,
          "%s", mn_message());
    CHECK_OK(mn_classifier_judge(c, p));
    CHECK(mn_classifier_position(c) == FRAMES, "%lld", (long long)mn_classifier_position(c));
    agrees(c, models[m], FRAMES, p);
    CHECK_OK(mn_classifier_reset(c));
    for (int t = 0; t < FRAMES; t++) CHECK_OK(mn_classifier_feed(c, frames + t * BANDS, 1, NULL));
    CHECK_OK(mn_classifier_judge(c, again));
    for (int i = 0; i < CLASSES; i++) CHECK(fabs(p[i] - again[i]) < 1e-6, "%s: %g anew, %g before", models[m], again[i], p[i]);
    float bad[BANDS] = {NAN};
    CHECK(mn_classifier_feed(c, bad, 1, NULL) == MN_ERR_NUMERIC && mn_classifier_feed(c, frames, 0, NULL) == MN_ERR_ARG, "%s",
          mn_message());
    mn_classifier_free(c);
  }
}

static void another_model_is_refused(void) {
  mn_classifier *c = NULL;
  CHECK(mn_classifier_open("nowhere", 1, &c) != MN_OK && !c, "%s", mn_message());
  CHECK(mn_classifier_open(NULL, 1, &c) == MN_ERR_ARG && mn_classifier_judge(NULL, NULL) == MN_ERR_ARG, "%s", mn_message());
  CHECK_OK(mn_file_write("t.txt", "It is a truth universally acknowledged, that", 44));
  static const char text[] =
      "name: t\ntokenizer: {type: bytes}\ndata: {files: [t.txt], validation: 0}\nmodel: {d_model: 8, layers: 1, block: {mixer: "
      "{type: gla, heads: 1}}}\ntrain: {steps: 1, batch: 1, seq_len: 8}\n";
  CHECK_OK(mn_file_write("t.yaml", text, sizeof text - 1));
  CHECK(sh("MNEME_HOME=home " MNEME "train t.yaml --out text --quiet 2>&1") == 0, "%s", out);
  CHECK(mn_classifier_open("text", 1, &c) == MN_ERR_CONFIG && !c, "%s", mn_message());
  mn_classifier_free(NULL);
}

int main(void) {
  RUN(prepare);
  RUN(it_says_what_the_program_says);
  RUN(another_model_is_refused);
  return test_end();
}
