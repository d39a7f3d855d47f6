/* frame_reader.h - frames as a model reads them, one at a time, from a file or standard input as its bytes come: a WAV file, raw samples,
 * a picture by rows, or lines of numbers. What a sound becomes is, bit for bit, what it became in training (features.h). */
#ifndef MN_FRAME_READER_H
#define MN_FRAME_READER_H

#include "source/features.h"

typedef enum mn_frame_format {
  MN_FRAMES_AUTO,  /* by the first bytes: RIFF, PNG, or lines */
  MN_FRAMES_WAV,   /* of the rate of training */
  MN_FRAMES_S16,   /* raw samples of that rate, one channel: 16 bits, little-endian, */
  MN_FRAMES_F32,   /* or floats of 32 bits */
  MN_FRAMES_PNG,   /* a picture; its rows are frames */
  MN_FRAMES_LINES, /* a frame a line: numbers with commas or blanks between them, not scaled yet (energies of bands, bytes of pixels);
                    * of a model that was trained on frames as they are, as they are */
} mn_frame_format;
extern const char *const mn_frame_formats[]; /* their words, closed by NULL */

typedef struct mn_frame_reader mn_frame_reader;
/* path: "-" is standard input. features: what the model was trained on, borrowed; NULL: nobody said. channels: C of a frame. */
mn_status mn_frame_reader_open(const char *path, mn_frame_format format, const mn_features *features, int64_t channels,
                               mn_frame_reader **out);
void mn_frame_reader_close(mn_frame_reader *r);
const char *mn_frame_reader_name(const mn_frame_reader *r); /* for people */
/* The next frame [C]; *got false: there is none. MN_ERR_FORMAT names file, place and what was expected; MN_ERR_CANCELLED: a signal came
 * while waiting. */
mn_status mn_frame_reader_next(mn_frame_reader *r, float *frame, bool *got);
/* Seconds of sound from its beginning to the end of the last frame; NaN where frames have no time. */
double mn_frame_reader_seconds(const mn_frame_reader *r);

/* A picture of the size of training, scaled: out [H,W,C]. */
mn_status mn_read_picture(const char *path, const mn_features *features, float *out);

#endif
