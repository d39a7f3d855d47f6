/* features.h - what a trained model's inputs were made of, and what its classes are called: kept beside the model (`reads` of its
 * config.json), so that a file it has never seen becomes the same numbers as in training. */
#ifndef MN_FEATURES_H
#define MN_FEATURES_H

#include "format/config.h"

typedef enum mn_features_type { MN_FEATURES_AUDIO, MN_FEATURES_IMAGES } mn_features_type; /* the source's name */

typedef struct mn_features {
  int type;
  mn_strings labels; /* by class; none: classes are numbers */
  /* audio: log-mel frames (mel.h), each band scaled by mean and deviation */
  int64_t rate, frames, bands; /* frames: of a row in training, longer sounds were cut */
  double window_ms, hop_ms, low_hz, high_hz;
  mn_floats band_mean, band_deviation; /* [bands] */
  /* images: bytes as (x / 255 - mean) / deviation; rows: each row is a frame */
  int64_t height, width, channels;
  bool rows;
  double mean, deviation;
} mn_features;

/* `reads` is from a file: all is checked. Texts and lists live in `arena`. */
mn_status mn_features_parse(mn_arena *arena, const mn_value *reads, mn_features *out);
/* NULL: out of memory. Names that are not UTF-8 are written with U+FFFD. */
const mn_value *mn_features_to_value(mn_arena *arena, const mn_features *f);

/* Samples of a window, and from one to the next. */
int64_t mn_features_window(const mn_features *f);
int64_t mn_features_hop(const mn_features *f);
/* Energies of one frame [bands], scaled. In place is fine. */
void mn_features_scale(const mn_features *f, const float *energy, float *out);
/* A pixel's byte, 0 to 255. */
static inline float mn_features_pixel(const mn_features *f, double byte) { return (float)((byte / 255.0 - f->mean) / f->deviation); }

#endif
