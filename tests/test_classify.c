/* test_classify.c - what must be true of `mneme classify`, in order: it says of the test's sounds what eval counts; fed frame by frame from a
 * pipe it says the same as of a file; it decides at the first frame at which a class is as likely as asked for, and not before one is through;
 * held for so many frames; lines of frames and raw samples say the same as the sound; names of classes; a classifier that is no stream reads
 * the whole and says so; pictures; what is refused, by file, field and remedy; what config.json keeps is checked. */
#include <jansson.h>

#include "base/file.h"
#include "format/wav.h"
#include "program.h"
#include "source/mel.h"
#include "test.h"
#include "wav_file.h"
#include "scratch.h"

#define DIR      "."
#define CLASSIFY MNEME "classify " DIR
enum { SOUNDS = 36, BANDS = 12 };

static const char *const words[] = {"low", "middle", "top"};
static const char data[] = "data: {type: audio, files: ['" DIR "/sounds/*.wav'], test_names: '*_[0-3].wav', frames: 40, bands: 12}\n";
static const char train[] = "objective: {type: classification}\n"
                            "train: {steps: 40, batch: 8, optimizer: {type: adamw, lr: 1e-2}, validate_every: 0}\n";

/* Each sound begins with the same tone, and only then becomes its own: there is something to wait for. */
static void write_sound(int i) {
  static const double hz[] = {400, 1000, 2200};
  const int n = 1200 + 97 * (i % 7);
  char path[600];
  mn_text t = {0}, own = {0};
  wav_text(&t, 8000, 3000, 400, 2 * (uint32_t)n);
  wav_text(&own, 8000, hz[i % 3] + 11 * (i / 3), n - 400, 0);
  mn_text_add_bytes(&t, own.data + 44, own.len - 44);
  snprintf(path, sizeof path, DIR "/sounds/%s_%d.wav", words[i % 3], i / 3);
  CHECK_OK(mn_file_write(path, t.data, t.len));
  mn_text_free(&own);
  mn_text_free(&t);
}

static void put(const char *path, const char *a, const char *b, const char *c) {
  mn_text t = {0};
  mn_text_addf(&t, "%s%s%s", a, b, c);
  CHECK_OK(mn_file_write(path, t.data, t.len));
  mn_text_free(&t);
}

static void make_models(void) {
  CHECK(sh("mkdir " DIR "/sounds") == 0, "%s", out);
  for (int i = 0; i < SOUNDS; i++) write_sound(i);
  put(DIR "/early.yaml", data, "model: {type: lmuformer, channels: 12, num_classes: 3, d_model: 12, window: 40}\n", train);
  put(DIR "/whole.yaml", data,
      "model: {type: classifier, channels: 12, num_classes: 3, d_model: 8, layers: 1, block: {mixer: {type: attention, heads: 2, causal: "
      "false}, channel: mlp, hidden: 8}}\n",
      train);
  CHECK(sh("cd " DIR " && for m in early whole; do MNEME_HOME=" DIR " " MNEME
           "train $m.yaml --out $m --quiet --threads 1 2>&1 || exit 1; done") == 0,
        "%s", out);
}

/* ---- decisions ---- */
enum { MOST = 4000 };
typedef struct decision {
  char file[300], label[64], kind[16];
  double p, seconds;
  int frames;
} decision;
static decision said[MOST];

/* Of the JSON lines of `out`. */
static int read_decisions(void) {
  int n = 0;
  for (char *line = out, *end; *line && n < MOST && (end = strchr(line, '\n')); line = end + 1) {
    json_t *j = json_loadb(line, (size_t)(end - line), 0, NULL);
    decision *d = &said[n];
    if (!json_object_get(j, "file")) {
      json_decref(j);
      continue;
    }
    snprintf(d->file, sizeof d->file, "%s", json_string_value(json_object_get(j, "file")));
    snprintf(d->label, sizeof d->label, "%s", json_string_value(json_object_get(j, "label")));
    snprintf(d->kind, sizeof d->kind, "%s", json_string_value(json_object_get(j, "decision")));
    d->p = json_number_value(json_object_get(j, "probability"));
    d->seconds = json_number_value(json_object_get(j, "seconds"));
    d->frames = (int)json_integer_value(json_object_get(j, "frames"));
    n++;
    json_decref(j);
  }
  return n;
}

static bool right(const decision *d) {
  const char *base = strrchr(d->file, '/');
  return base && !strncmp(base + 1, d->label, strlen(d->label)) && base[1 + strlen(d->label)] == '_';
}

static double accuracy_of_eval(const char *model) {
  CHECK(sh("cd " DIR " && MNEME_HOME=" DIR " " MNEME "eval --model %s --json --threads 1 2>/dev/null", model) == 0, "%s", out);
  json_t *j = json_loads(out, 0, NULL), *m = json_object_get(json_object_get(j, "metrics"), "accuracy");
  const double x = json_number_value(m ? m : json_object_get(j, "accuracy"));
  json_decref(j);
  return x;
}

static void it_says_what_eval_counts(void) {
  static const char *const models[] = {"early", "whole"};
  for (int k = 0; k < 2; k++) {
    CHECK(sh(CLASSIFY "/%s " DIR "/sounds/*_[0-3].wav --json --threads 1 2>/dev/null", models[k]) == 0, "%s", out);
    int n = read_decisions(), hits = 0;
    for (int i = 0; i < n; i++) {
      hits += right(&said[i]);
      CHECK(!strcmp(said[i].kind, "whole") && said[i].frames >= 13 && said[i].p > 0 && said[i].p <= 1, "%s: %s %d", said[i].file,
            said[i].kind, said[i].frames);
    }
    const double eval = accuracy_of_eval(models[k]);
    CHECK(n == 12 && fabs((double)hits / n - eval) < 1e-6, "%s: %d of %d right, eval says %g", models[k], hits, n, eval);
    CHECK(k || hits == 12, "what was easy is learned: %d of 12", hits);
  }
}

static void a_pipe_is_a_file(void) {
  static char of_file[sizeof out];
  CHECK(sh(CLASSIFY "/early " DIR "/sounds/top_1.wav --every 3 --top 3 --threads 1 2>&1 | sed 's/^[^ ]*top_1.wav/-/'") == 0, "%s", out);
  memcpy(of_file, out, sizeof of_file);
  CHECK(sh("(head -c 30; sleep 0.1; head -c 1001; sleep 0.1; cat) < " DIR "/sounds/top_1.wav | " CLASSIFY
           "/early - --every 3 --top 3 --threads 1 2>&1") == 0,
        "%s", out);
  CHECK(!strcmp(out, of_file) && strstr(out, "so far") && strstr(out, "whole"), "%s\n%s", out, of_file);
}

/* The earliest of the places that --every 1 lists. */
static void it_decides_at_the_first_frame_that_is_sure(void) {
  static const double bars[] = {0.4, 0.6, 0.9, 0.999};
  static const int holds[] = {1, 3};
  for (int i = 0; i < 2; i++) {
    char file[300];
    snprintf(file, sizeof file, DIR "/sounds/%s_%d.wav", words[i + 1], i);
    for (int k = 0; k < 8; k++) {
      const double bar = bars[k / 2];
      const int hold = holds[k % 2];
      CHECK(sh(CLASSIFY "/early %s --every 1 --json --threads 1 2>/dev/null", file) == 0, "%s", out);
      int n = read_decisions(), first = n - 1;
      for (int t = n - 2; t >= hold - 1; t--) {
        bool sure = true;
        for (int h = 0; h < hold; h++) sure = sure && said[t - h].p >= bar && !strcmp(said[t - h].label, said[t].label);
        if (sure) first = t;
      }
      CHECK(said[0].frames == 6 && n >= 8, "the first that says something sees one frame, five behind: %d", said[0].frames);
      decision want = said[first];
      CHECK(sh(CLASSIFY "/early %s --confidence %g --hold %d --json --threads 1 2>/dev/null", file, bar, hold) == 0, "%s", out);
      const int got = read_decisions();
      CHECK(got == 1 && said[0].frames == want.frames && !strcmp(said[0].label, want.label) && fabs(said[0].p - want.p) < 1e-9 &&
                !strcmp(said[0].kind, first == n - 1 ? "whole" : "early"),
            "%s at %g for %d: %s after %d, must be after %d", file, bar, hold, said[0].kind, said[0].frames, want.frames);
      CHECK(first == n - 1 || fabs(said[0].seconds - ((want.frames - 1) * 80 + 200) / 8000.0) < 1e-9, "its time: %g", said[0].seconds);
    }
  }
}

static void lines_and_raw_samples_say_the_same(void) {
  static char of_file[sizeof out];
  mn_wav w;
  mn_mel *mel = NULL;
  CHECK(sh(CLASSIFY "/early " DIR "/sounds/low_2.wav --top 3 --threads 1 2>&1 | sed 's/^[^ ]*wav//;s/  [0-9.]* s$//'") == 0, "%s", out);
  memcpy(of_file, out, sizeof of_file);
  CHECK_OK(mn_wav_read(DIR "/sounds/low_2.wav", &w));
  CHECK_OK(mn_mel_new(8000, 200, 80, BANDS, 0, 4000, &mel));
  const int64_t frames = mn_mel_frames(mel, w.n);
  float *energy = malloc((size_t)(frames * BANDS) * sizeof *energy);
  mn_text t = {0};
  CHECK_OK(mn_mel_run(mel, w.samples, w.n, frames, energy));
  for (int64_t k = 0; k < frames * BANDS; k++) mn_text_addf(&t, "%.9g%c", (double)energy[k], (k + 1) % BANDS ? ',' : '\n');
  CHECK_OK(mn_file_write(DIR "/low.csv", t.data, t.len));
  CHECK_OK(mn_file_write(DIR "/low.f32", w.samples, (size_t)w.n * sizeof *w.samples));
  CHECK(sh(CLASSIFY "/early " DIR "/low.csv --top 3 --threads 1 2>&1 | sed 's/^[^ ]*csv//'") == 0 && !strcmp(out, of_file), "%s\n%s", out,
        of_file);
  CHECK(sh(CLASSIFY "/early " DIR "/low.f32 --as f32 --top 3 --threads 1 2>&1 | sed 's/^[^ ]*f32//;s/  [0-9.]* s$//'") == 0 &&
            !strcmp(out, of_file),
        "%s\n%s", out, of_file);
  mn_text_free(&t);
  mn_mel_free(mel);
  mn_wav_free(&w);
  free(energy);
}

static void names_of_classes(void) {
  CHECK(sh(CLASSIFY "/early " DIR "/sounds/low_0.wav 2>&1") == 0 && strstr(out, "low_0.wav  low  "), "%s", out);
  put(DIR "/names",
      "\xef\xbb\xbf"
      "deep\r\n",
      "mid\n", "high"); /* as some editors begin a text */
  CHECK(sh(CLASSIFY "/early " DIR "/sounds/low_0.wav --labels " DIR "/names 2>&1") == 0 && strstr(out, "low_0.wav  deep  "), "%s", out);
  put(DIR "/names", "deep\n", "high\n", "");
  CHECK(sh(CLASSIFY "/early " DIR "/sounds/low_0.wav --labels " DIR "/names 2>&1") == 2 && strstr(out, "has 2 lines") &&
            strstr(out, "3 classes"),
        "%s", out);
  static const char *const bad[][2] = {{"\n", "line 2 is empty"},
                                       {"\x1b[2J\n", "line 2 is no name"},
                                       {"\xff\xfe\n", "line 2 is no name"},
                                       {"deep\n", "lines 1 and 2 name the same class 'deep'"}};
  for (int i = 0; i < 4; i++) {
    put(DIR "/names", "deep\n", bad[i][0], "high\n");
    CHECK(sh(CLASSIFY "/early " DIR "/sounds/low_0.wav --labels " DIR "/names 2>&1") == 2 && strstr(out, bad[i][1]), "%s", out);
  }
  CHECK_OK(mn_file_write(DIR "/names", "deep\na\0b\nhigh\n", 14));
  CHECK(sh(CLASSIFY "/early " DIR "/sounds/low_0.wav --labels " DIR "/names 2>&1") == 2 && strstr(out, "line 2 is no name"), "%s", out);
}

/* One sound of each class, and one sound held out; a model of more classes than that. */
static void classes_that_nothing_teaches_are_said(void) {
  CHECK(sh("mkdir -p " DIR "/few && for c in low middle; do cp " DIR "/sounds/${c}_0.wav " DIR "/few/; done") == 0, "%s", out);
  put(DIR "/few.yaml", "data: {type: audio, files: ['" DIR "/few/*.wav'], frames: 40, bands: 12, validation: 0.5}\n",
      "model: {type: lmuformer, channels: 12, num_classes: 5, d_model: 12, window: 40}\n",
      "objective: {type: classification}\ntrain: {steps: 1, batch: 1, validate_every: 0}\n");
  CHECK(sh("cd " DIR " && MNEME_HOME=" DIR " " MNEME "train few.yaml --out few-run --threads 1 2>&1") == 0 &&
            strstr(out, "holds out every example of 1 of 2 classes (the first is ") &&
            strstr(out, "tells 5 classes apart, and the data has 2"),
        "%s", out);
  CHECK(sh("cd " DIR " && MNEME_HOME=" DIR " " MNEME "train early.yaml --out early --resume --threads 1 2>&1") == 0 &&
            !strstr(out, "nothing will be learned"),
        "%s", out);
}

/* A file that cannot be read is named, and the others are classified. */
static void one_bad_file_among_good_ones(void) {
#define THREE CLASSIFY "/early " DIR "/sounds/low_0.wav " DIR "/absent.wav " DIR "/sounds/middle_0.wav "
  const int code = sh(THREE "2>&1");
  CHECK(code != 0 && strstr(out, "low_0.wav  low  ") && strstr(out, "middle_0.wav  middle  ") && strstr(out, "absent.wav") &&
            strstr(out, "1 of 3 files could not be classified"),
        "%s", out);
  CHECK(sh(THREE "--json 2>/dev/null") == code && strstr(out, "\"error\"") && strstr(out, "absent.wav") &&
            strstr(out, "\"label\":\"middle\""),
        "%s", out);
  CHECK(sh(CLASSIFY "/early " DIR "/absent.wav 2>&1") == code && !strstr(out, "of 1"), "%s", out);
#undef THREE
}
static void a_whole_is_read_and_said(void) {
  CHECK(sh(CLASSIFY "/whole " DIR "/sounds/low_0.wav 2>&1 >/dev/null") == 0 && strstr(out, "sees later tokens") &&
            strstr(out, "read whole"),
        "%s", out);
  CHECK(sh(CLASSIFY "/whole " DIR "/sounds/low_0.wav --json 2>/dev/null") == 0 && strstr(out, "\"streamed\":false"), "%s", out);
  CHECK(sh(CLASSIFY "/whole " DIR "/sounds/low_0.wav --confidence 0.5 2>&1") == 2 && strstr(out, "--confidence has no effect here"), "%s",
        out);
  CHECK(sh(CLASSIFY "/whole " DIR "/sounds/low_0.wav --every 5 2>&1") == 2 && strstr(out, "--every has no effect here"), "%s", out);
}

/* Bytes of a grey picture in an IDX file of `n` pictures, and their classes. */
static void pictures(void) {
  enum { SIDE = 6, COUNT = 40 };
  uint8_t images[16 + COUNT * SIDE * SIDE] = {0, 0, 8, 3, 0, 0, 0, COUNT, 0, 0, 0, SIDE, 0, 0, 0, SIDE},
                                     labels[8 + COUNT] = {0, 0, 8, 1, 0, 0, 0, COUNT};
  for (int i = 0; i < COUNT; i++) {
    labels[8 + i] = (uint8_t)(i % 2);
    for (int k = 0; k < SIDE * SIDE; k++) images[16 + i * SIDE * SIDE + k] = (uint8_t)((k / SIDE < 3) == (i % 2) ? 200 + i : 3 * i % 40);
  }
  CHECK_OK(mn_file_write(DIR "/images.idx", images, sizeof images));
  CHECK_OK(mn_file_write(DIR "/labels.idx", labels, sizeof labels));
  put(DIR "/rows.yaml", "data: {type: images, images: " DIR "/images.idx, labels: " DIR "/labels.idx, rows: 6}\n",
      "model: {type: lmuformer, channels: 6, num_classes: 2, d_model: 8, window: 6}\n", train);
  put(DIR "/sight.yaml", "data: {type: images, images: " DIR "/images.idx, labels: " DIR "/labels.idx}\n",
      "model: {type: vision, height: 6, width: 6, patch: 3, num_classes: 2, d_model: 8, layers: 1, block: {mixer: {type: attention, heads: 2, "
      "causal: false}, channel: mlp, hidden: 8}}\n",
      train);
  CHECK(sh("cd " DIR " && for m in rows sight; do MNEME_HOME=" DIR " " MNEME
           "train $m.yaml --out $m --quiet --threads 1 2>&1 || exit 1; done") == 0,
        "%s", out);
  put(DIR "/up.csv", "220,220,220,220,220,220\n220 220 220 220 220 220\n220,220,220,220,220,220\n",
      "7,7,7,7,7,7\n7,7,7,7,7,7\n7,7,7,7,7,7\n", "");
  CHECK(sh(CLASSIFY "/rows " DIR "/up.csv --threads 1 2>&1") == 0 && strstr(out, "up.csv  1  ") && strstr(out, "6 frames\n"), "%s", out);
  CHECK(sh(CLASSIFY "/sight " DIR "/up.csv --threads 1 2>&1") == 1 && strstr(out, "up.csv"), "%s", out);
  CHECK(sh(CLASSIFY "/sight " DIR "/up.csv --confidence 0.9 2>&1") == 2 && strstr(out, "reads pictures"), "%s", out);
}

static void what_is_refused(void) {
  CHECK(sh(CLASSIFY "/early 2>&1") == 2 && strstr(out, "needs more"), "%s", out);
  CHECK(sh(CLASSIFY "/none " DIR "/sounds/low_0.wav 2>&1") == 1 && strstr(out, "does not exist"), "%s", out);
  CHECK(sh(CLASSIFY "/early " DIR "/none.wav 2>&1") == 1 && strstr(out, "none.wav"), "%s", out);
  CHECK(sh(MNEME "serve " DIR "/early --check 2>&1") == 2 && strstr(out, "reads no text: its model, of type lmuformer"), "%s", out);
  wav_write(DIR "/fast.wav", 16000, 440, 900);
  CHECK(sh(CLASSIFY "/early " DIR "/fast.wav 2>&1") == 1 && strstr(out, "fast.wav") && strstr(out, "'rate' says 16000") &&
            strstr(out, "resample"),
        "%s", out);
  wav_write(DIR "/empty.wav", 8000, 440, 0);
  CHECK(sh(CLASSIFY "/early " DIR "/empty.wav 2>&1") == 1 && strstr(out, "empty.wav: holds no sound"), "%s", out);
  CHECK(sh("head -c 900 " DIR "/sounds/low_0.wav > " DIR "/cut.wav; " CLASSIFY "/early " DIR "/cut.wav 2>&1") == 1 &&
            strstr(out, "'data'") && strstr(out, "ends after 856") && !strstr(out, "whole  "),
        "nothing is said of a file that is known to be cut: %s", out);
  CHECK(sh("head -c 2000 " DIR "/sounds/low_0.wav | " CLASSIFY "/early --every 1 - 2>&1") == 1 && strstr(out, "so far") &&
            strstr(out, "cut short"),
        "a pipe is noticed at its end: %s", out);
  CHECK(sh(CLASSIFY "/early " DIR "/sounds/low_0.wav --hold 3 2>&1") == 2 && strstr(out, "--hold has no effect"), "%s", out);
  CHECK(sh(CLASSIFY "/early " DIR "/sounds/low_0.wav --confidence 0 2>&1") == 2 && strstr(out, "--confidence"), "%s", out);
  CHECK(sh(CLASSIFY "/early " DIR "/sounds/low_0.wav --as mp3 2>&1") == 2 && strstr(out, "not one of auto, wav"), "%s", out);
  CHECK(sh(CLASSIFY "/early " DIR "/sounds/low_0.wav --frames 9 2>&1") == 0 && strstr(out, "longer than 9 frames") &&
            strstr(out, "  9 frames"),
        "%s", out);
}

static void what_is_kept_is_checked(void) {
  CHECK(sh("cp -r " DIR "/early " DIR "/other && sed -i 's/\"rate\": 8000/\"rate\": 9000/' " DIR "/other/config.json") == 0, "%s", out);
  CHECK(sh(CLASSIFY "/other " DIR "/sounds/low_0.wav 2>&1") == 1 && strstr(out, "config.json") && strstr(out, "checksum"), "%s", out);
  CHECK(sh("sed -i '/\"checksum\"/d;s/\"bands\": 12/\"bands\": 11/' " DIR "/other/config.json") == 0, "%s", out);
  CHECK(sh(CLASSIFY "/other " DIR "/sounds/low_0.wav 2>&1") == 2 && strstr(out, "band_mean"), "%s", out);
  CHECK(sh("cp " DIR "/rows/config.json " DIR "/other/config.json && " CLASSIFY "/other " DIR "/sounds/low_0.wav 2>&1") == 2 &&
            strstr(out, "not the one"),
        "%s", out);
  CHECK(sh(MNEME "inspect " DIR "/early 2>&1") == 0 && strstr(out, "checksum holds"), "the rest of the program reads it: %s", out);
}

int main(void) {
  RUN(make_models);
  RUN(it_says_what_eval_counts);
  RUN(a_pipe_is_a_file);
  RUN(it_decides_at_the_first_frame_that_is_sure);
  RUN(lines_and_raw_samples_say_the_same);
  RUN(names_of_classes);
  RUN(one_bad_file_among_good_ones);
  RUN(classes_that_nothing_teaches_are_said);
  RUN(a_whole_is_read_and_said);
  RUN(pictures);
  RUN(what_is_refused);
  RUN(what_is_kept_is_checked);
  return test_end();
}
