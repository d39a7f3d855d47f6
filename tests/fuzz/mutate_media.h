/* mutate_media.h - small tables, pictures, sounds, pairs and dialogues, with a recipe that reads each. */
#ifndef MUTATE_MEDIA_H
#define MUTATE_MEDIA_H

#include <cairo.h>
#include <math.h>

#include "mutate_run.h"

static void media_write(const char *path, const void *data, size_t n) {
  if (!write_file(path, data, n)) exit(1);
}

static void media_text(const char *path, const char *text) { media_write(path, text, strlen(text)); }

static void media_series(const char *path) {
  char text[4096], *p = text + sprintf(text, "date,a,b\n");
  for (int i = 0; i < 80; i++) p += sprintf(p, "d%d,%.3f,%d\n", i, sin(0.3 * i), i % 7);
  media_write(path, text, (size_t)(p - text));
}

static void media_idx(const char *pictures, const char *labels) {
  uint8_t a[16 + 12 * 16] = {0, 0, 8, 3, 0, 0, 0, 12, 0, 0, 0, 4, 0, 0, 0, 4}, b[8 + 12] = {0, 0, 8, 1, 0, 0, 0, 12};
  for (int i = 0; i < 12 * 16; i++) a[16 + i] = (uint8_t)(i * 37);
  for (int i = 0; i < 12; i++) b[8 + i] = (uint8_t)(i % 3);
  media_write(pictures, a, sizeof a);
  media_write(labels, b, sizeof b);
}

static void media_png(const char *path, int shade) {
  cairo_surface_t *s = cairo_image_surface_create(CAIRO_FORMAT_RGB24, 4, 4);
  memset(cairo_image_surface_get_data(s), shade, (size_t)(4 * cairo_image_surface_get_stride(s)));
  cairo_surface_mark_dirty(s);
  if (cairo_surface_write_to_png(s, path) != CAIRO_STATUS_SUCCESS) exit(1);
  cairo_surface_destroy(s);
}

static void media_wav(const char *path, double hz) {
  uint8_t file[44 + 1200] = "RIFF\xd4\x04\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x80\x3e\0\0\x02\0\x10\0data\xb0\x04\0\0";
  for (int i = 0; i < 600; i++) {
    int16_t x = (int16_t)(8000 * sin(6.2831853 * hz * i / 8000));
    memcpy(file + 44 + 2 * i, &x, 2);
  }
  media_write(path, file, sizeof file);
}

#define MEDIA_BLOCK "block: {mixer: {type: attention, heads: 1, causal: false}, hidden: 8}, d_model: 8, layers: 1"
#define MEDIA_STEPS "train: {steps: 6, batch: 2, checkpoint_every: 2, keep_last: 9, validation_batches: 1, log_every: 1}\n"

static void media_make(void) {
  mkdir("png", 0755);
  mkdir("png/dark", 0755);
  mkdir("png/light", 0755);
  mkdir("wav", 0755);
  media_series("series.csv");
  media_idx("pictures.idx", "labels.idx");
  char name[64];
  for (int i = 0; i < 8; i++) {
    snprintf(name, sizeof name, "png/%s/%d.png", i % 2 ? "light" : "dark", i);
    media_png(name, 20 * i);
    snprintf(name, sizeof name, "wav/%s_%d.wav", i % 2 ? "high" : "low", i);
    media_wav(name, i % 2 ? 2000 : 400 + i);
  }
  media_text("pairs.tsv", "one\teins\ntwo\tzwei\nthree\tdrei\nfour\tvier\nfive\tfuenf\nsix\tsechs\n");
  media_text("dialogues.jsonl",
             "{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}, {\"role\": \"assistant\", \"content\": \"Yo\"}]}\n"
             "{\"messages\": [{\"role\": \"user\", \"content\": \"A\"}, {\"role\": \"assistant\", \"content\": \"B\"}]}\n"
             "{\"messages\": [{\"role\": \"system\", \"content\": \"C\"}, {\"role\": \"assistant\", \"content\": \"D\"}]}\n");
  media_text("series.yaml", "data: {type: series, file: series.csv, input: 8, horizon: 4, fractions: [0.5, 0.25, 0.25]}\n"
                            "model: {type: forecaster, context: 8, horizon: 4, channels: 2, patch: 4, " MEDIA_BLOCK "}\n"
                            "objective: {type: regression}\n" MEDIA_STEPS);
  media_text("idx.yaml", "data: {type: images, images: pictures.idx, labels: labels.idx, validation: 0.2}\n"
                         "model: {type: vision, height: 4, width: 4, patch: 2, num_classes: 3, " MEDIA_BLOCK "}\n"
                         "objective: {type: classification}\n" MEDIA_STEPS);
  media_text("png.yaml", "data: {type: images, folder: png, channels: 3, validation: 0.2}\n"
                         "model: {type: vision, height: 4, width: 4, channels: 3, patch: 2, num_classes: 2, " MEDIA_BLOCK "}\n"
                         "objective: {type: classification}\n" MEDIA_STEPS);
  media_text("wav.yaml", "data: {type: audio, files: ['wav/*.wav'], frames: 6, bands: 8, validation: 0.2}\n"
                         "model: {type: classifier, channels: 8, num_classes: 2, " MEDIA_BLOCK "}\n"
                         "objective: {type: classification}\n" MEDIA_STEPS);
  media_text("pairs.yaml",
             "data: {type: pairs, files: [pairs.tsv], source_len: 8, target_len: 8, validation: 0.2}\n"
             "model: {type: encoder_decoder, d_model: 8, layers: 1, encoder: {layers: 1, block: {mixer: {type: attention, heads: 1, "
             "causal: false}, hidden: 8}}, block: {mixer: {type: attention, heads: 1}, cross: {heads: 1}, hidden: 8}}\n" MEDIA_STEPS);
  media_text("dialogues.yaml",
             "data: {type: dialogues, files: [dialogues.jsonl], validation: 0.4}\n"
             "model: {d_model: 8, layers: 1, block: {mixer: {type: attention, heads: 1}, hidden: 8}}\n"
             "train: {steps: 6, batch: 2, seq_len: 32, checkpoint_every: 2, keep_last: 9, validation_batches: 1, log_every: 1}\n");
}

#endif
