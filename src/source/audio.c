/* audio.c - sounds and their classes: WAV files as log-mel frames. A file's class is the part of its name before the first '_', or the
 * folder it lies in; files whose names fit a pattern are the test. Each band is scaled by mean and deviation of the training files. */
#define _GNU_SOURCE
#include <fnmatch.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "format/wav.h"
#include "source/examples.h"
#include "source/features.h"
#include "source/mel.h"

typedef struct config {
  mn_strings files, test_files;
  const char *test_names;
  int label;
  int64_t rate, frames, bands;
  double window_ms, hop_ms, low_hz, high_hz, validation;
} config;
enum { PREFIX, FOLDER };
static const char *const labels[] = {"prefix", "folder", NULL};
static const mn_field fields[] = {
    MN_FIELD_STRINGS(config, files, "WAV files; *, ?, [ ], {a,b} and ~ are patterns"),
    MN_FIELD_STRINGS(config, test_files, "WAV files for the test"),
    MN_FIELD_STRING(config, test_names, NULL, "or a pattern: those of `files` whose names fit it are the test, e.g. '*_[0-4].wav'"),
    MN_FIELD_ENUM(config, label, labels, PREFIX, "a file's class: its name up to the first '_', or the folder it lies in"),
    MN_FIELD_INT(config, rate, 8000, 1, 1000000, "samples a second that every file must have"),
    MN_FIELD_INT(config, frames, 100, 1, 1 << 20,
                 "frames T of a row: longer sounds are cut, shorter ones followed by zeros (field length)"),
    MN_FIELD_INT(config, bands, 40, 1, 4096, "mel bands C of a frame"),
    MN_FIELD_FLOAT(config, window_ms, 25, DBL_MIN, 10000, "milliseconds of a window"),
    MN_FIELD_FLOAT(config, hop_ms, 10, DBL_MIN, 10000, "milliseconds between windows"),
    MN_FIELD_FLOAT(config, low_hz, 0, 0, 1e6, "lower edge of the bands"),
    MN_FIELD_FLOAT(config, high_hz, 0, 0, 1e6, "upper edge; 0: half of the rate"),
    MN_FIELD_FLOAT(config, validation, 0.05, 0, 0.9, "fraction of the training files that is held out"),
    MN_FIELD_END};

typedef struct sound {
  const char *file;
  float *frame; /* [length, bands] */
  int32_t length, label;
} sound;
typedef struct audio {
  sound *list[2]; /* of training and validation; of the test */
  int64_t n[2];
  const char *name[4096]; /* of classes, in rising order */
  mn_held_out held_out;
  mn_features features; /* how a file becomes frames */
} audio;
enum { CLASSES = 4096 };

static mn_status check(const mn_value *map, const char *where, void *c) {
  config *o = c;
  if (!o->files.count) return mn_config_fail(map, where, "files", "is missing: WAV files to train on");
  if (o->test_files.count && o->test_names) return mn_config_fail(map, where, "test_names", "and test_files are both given; remove one");
  if (o->high_hz <= 0) o->high_hz = (double)o->rate / 2;
  if (o->high_hz > (double)o->rate / 2) return mn_config_fail(map, where, "high_hz", "is above half of the rate, %g", (double)o->rate / 2);
  if (o->low_hz >= o->high_hz) return mn_config_fail(map, where, "low_hz", "must lie below high_hz, %g", o->high_hz);
  double window = o->window_ms * (double)o->rate / 1000;
  if (window < 2 || window > 65536)
    return mn_config_fail(map, where, "window_ms", "makes windows of %.0f samples; 2 to 65536 are possible", window);
  if (o->hop_ms * (double)o->rate / 1000 < 1) return mn_config_fail(map, where, "hop_ms", "is shorter than a sample");
  return MN_OK;
}

static mn_status seq_len(const void *c, int64_t *out) {
  *out = ((const config *)c)->frames;
  return MN_OK;
}

/* ---- opening ---- */

static mn_status class_name(mn_source *s, const char *file, const char **out) {
  const config *o = s->config;
  const char *base = strrchr(file, '/'), *from = base ? base + 1 : file, *end = strchr(from, '_');
  if (o->label == FOLDER) {
    end = base;
    for (from = base ? base : file; from > file && from[-1] != '/';) from--;
  }
  if (!end || end == from)
    return mn_fail(MN_ERR_CONFIG, "data.files: %s: its %s names no class", file, o->label == FOLDER ? "folder" : "name has no '_', and so");
  *out = mn_arena_format(s->arena, "%.*s", (int)(end - from), from);
  return *out ? MN_OK : MN_ERR_MEMORY;
}

static int by_text(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

/* Classes are numbered in the order of their names. */
static mn_status number_classes(mn_source *s, audio *x) {
  for (int k = 0; k < 2; k++)
    for (int64_t i = 0; i < x->n[k]; i++) {
      const char *name;
      MN_TRY(class_name(s, x->list[k][i].file, &name));
      int64_t at = 0;
      while (at < s->classes && strcmp(x->name[at], name) != 0) at++;
      if (at == s->classes && k)
        return mn_fail(MN_ERR_CONFIG, "data.test_files: %s is of the class %s, which no training file has", x->list[k][i].file, name);
      if (at == CLASSES) return mn_fail(MN_ERR_CONFIG, "data.files: more than %d classes", CLASSES);
      if (at == s->classes) x->name[s->classes++] = name;
    }
  qsort(x->name, (size_t)s->classes, sizeof *x->name, by_text);
  for (int k = 0; k < 2; k++)
    for (int64_t i = 0; i < x->n[k]; i++) {
      const char *name, **found;
      MN_TRY(class_name(s, x->list[k][i].file, &name));
      found = bsearch(&name, x->name, (size_t)s->classes, sizeof *x->name, by_text);
      x->list[k][i].label = (int32_t)(found - x->name);
    }
  return MN_OK;
}

static mn_status list_sounds(mn_source *s, audio *x) {
  const config *o = s->config;
  mn_strings all, test;
  MN_TRY(mn_example_files(s, &o->files, "files", &all));
  MN_TRY(mn_example_files(s, &o->test_files, "test_files", &test));
  for (int k = 0; k < 2; k++)
    if (!(x->list[k] = mn_arena_alloc(s->arena, (size_t)(all.count + test.count + 1) * sizeof(sound)))) return MN_ERR_MEMORY;
  for (int i = 0; i < all.count; i++) {
    const char *base = strrchr(all.items[i], '/');
    int k = o->test_names && !fnmatch(o->test_names, base ? base + 1 : all.items[i], 0);
    x->list[k][x->n[k]++].file = all.items[i];
  }
  for (int i = 0; i < test.count; i++) x->list[1][x->n[1]++].file = test.items[i];
  if (o->test_names && !x->n[1]) return mn_fail(MN_ERR_CONFIG, "data.test_names: '%s' fits none of the %d files", o->test_names, all.count);
  return number_classes(s, x);
}

static mn_status read_sound(const config *o, const mn_mel *mel, sound *out, mn_hasher *h) {
  mn_wav w;
  MN_TRY(mn_wav_read(out->file, &w));
  mn_status status = MN_OK;
  if (w.rate != o->rate)
    status = mn_fail(MN_ERR_FORMAT,
                     "%s: has %lld samples a second, data.rate says %lld; resample it, or set data.rate if all files have so many",
                     out->file, (long long)w.rate, (long long)o->rate);
  if (status == MN_OK) {
    int64_t frames = mn_mel_frames(mel, w.n);
    if (frames > o->frames) frames = o->frames;
    out->length = (int32_t)frames;
    out->frame = mn_alloc((size_t)(frames * o->bands) * sizeof *out->frame);
    status = out->frame ? mn_mel_run(mel, w.samples, w.n, frames, out->frame) : MN_ERR_MEMORY;
  }
  if (status == MN_OK) {
    mn_hasher_add(h, w.samples, (size_t)w.n * sizeof *w.samples);
    mn_hasher_add(h, &out->label, sizeof out->label);
    status = mn_stop_check("sounds were read");
  }
  mn_wav_free(&w);
  return status;
}

static mn_status measure(mn_source *s, audio *x) {
  const config *o = s->config;
  size_t C = (size_t)o->bands;
  double n = 0, *sum = mn_arena_alloc(s->arena, 4 * C * sizeof *sum);
  if (!sum) return MN_ERR_MEMORY;
  double *square = sum + C, *mean = sum + 2 * C, *deviation = sum + 3 * C;
  for (int64_t i = 0, count = mn_held_out_count(&x->held_out, false); i < count; i++) {
    const sound *p = &x->list[0][mn_held_out_at(&x->held_out, false, i)];
    n += p->length;
    for (int64_t k = 0; k < p->length * o->bands; k++) {
      double v = (double)p->frame[k];
      sum[k % o->bands] += v;
      square[k % o->bands] += v * v;
    }
  }
  for (size_t c = 0; c < C; c++) {
    mean[c] = n > 0 ? sum[c] / n : 0;
    double variance = n > 0 ? square[c] / n - mean[c] * mean[c] : 0;
    deviation[c] = variance > 1e-12 ? sqrt(variance) : 1;
  }
  x->features.band_mean = (mn_floats){mean, (int)C};
  x->features.band_deviation = (mn_floats){deviation, (int)C};
  return MN_OK;
}

static mn_status open_audio(mn_source *s, const mn_watch *watch) {
  (void)watch;
  const config *o = s->config;
  audio *x = s->data = mn_arena_alloc(s->arena, sizeof *x);
  mn_mel *mel = NULL;
  mn_hasher *h = NULL;
  if (!x) return MN_ERR_MEMORY;
  MN_TRY(list_sounds(s, x));
  mn_features *f = &x->features;
  *f = (mn_features){.type = MN_FEATURES_AUDIO,
                     .labels = {x->name, (int)s->classes},
                     .rate = o->rate,
                     .frames = o->frames,
                     .bands = o->bands,
                     .window_ms = o->window_ms,
                     .hop_ms = o->hop_ms,
                     .low_hz = o->low_hz,
                     .high_hz = o->high_hz};
  mn_status status = mn_mel_new(o->rate, mn_features_window(f), mn_features_hop(f), (int)o->bands, o->low_hz, o->high_hz, &mel);
  if (status == MN_OK && !(h = mn_hasher_new())) status = MN_ERR_MEMORY;
  for (int k = 0; k < 2; k++)
    for (int64_t i = 0; i < x->n[k] && status == MN_OK; i++) status = mn_context(read_sound(o, mel, &x->list[k][i], h), "data.files");
  char hex[MN_HASH_HEX] = "";
  if (h) mn_hasher_take(h, hex);
  mn_hasher_free(h);
  mn_mel_free(mel);
  MN_TRY(status);
  x->held_out = mn_hold_out(x->n[0], o->validation);
  MN_TRY(mn_held_out_warn(&x->held_out, &x->list[0]->label, sizeof *x->list[0], s->classes, &f->labels));
  s->seq_len = o->frames;
  mn_text_addf(&s->identity, "%s train %lld held out %lld mel %lld %g %g %g %g", hex, (long long)x->n[0], (long long)x->held_out.held,
               (long long)o->bands, o->window_ms, o->hop_ms, o->low_hz, o->high_hz);
  return measure(s, x);
}

static void close_audio(mn_source *s) {
  audio *x = s->data;
  for (int k = 0; x && k < 2; k++)
    for (int64_t i = 0; i < x->n[k]; i++) free(x->list[k][i].frame);
}

/* ---- batches ---- */

static void layout(const mn_source *s, mn_batch *batch) {
  const config *o = s->config;
  mn_batch_add(batch, "frames", MN_F32, MN_SHAPE(batch->B, o->frames, o->bands), "log-mel energies, scaled; zeros behind the sound");
  mn_batch_add(batch, "length", MN_I32, MN_SHAPE(batch->B), "frames of the sound");
  mn_batch_add(batch, "label", MN_I32, MN_SHAPE(batch->B), "class of the sound");
}

static int64_t count(const mn_source *s, int split) {
  const audio *x = s->data;
  return split == MN_SPLIT_TEST ? x->n[1] : mn_held_out_count(&x->held_out, split == MN_SPLIT_VALIDATION);
}

static mn_status example(mn_source *s, int split, int64_t index, uint64_t epoch, mn_batch *batch, int64_t b) {
  (void)epoch;
  const config *o = s->config;
  const audio *x = s->data;
  bool test = split == MN_SPLIT_TEST;
  const sound *p = &x->list[test][test ? index : mn_held_out_at(&x->held_out, split == MN_SPLIT_VALIDATION, index)];
  float *to = mn_batch_row(batch, 0, b);
  int64_t n = p->length * o->bands;
  for (int64_t k = 0; k < n; k += o->bands) mn_features_scale(&x->features, p->frame + k, to + k);
  memset(to + n, 0, (size_t)(o->frames * o->bands - n) * sizeof *to);
  *(int32_t *)mn_batch_row(batch, 1, b) = p->length;
  *(int32_t *)mn_batch_row(batch, 2, b) = p->label;
  return MN_OK;
}

static const mn_value *reads(const mn_source *s, mn_arena *arena) {
  return mn_features_to_value(arena, &((const audio *)s->data)->features);
}

const mn_source_def mn_source_audio = {
    .name = "audio",
    .summary = "sounds and their classes: WAV files as log-mel frames",
    .config_size = sizeof(config),
    .fields = fields,
    .check = check,
    .seq_len = seq_len,
    .open = open_audio,
    .close = close_audio,
    .reads = reads,
    .layout = layout,
    .count = count,
    .example = example,
};
