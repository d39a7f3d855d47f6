/* wav.h - sound from RIFF WAVE files: linear PCM of 8, 16, 24 or 32 bits, or floats of 32 bits; several channels are averaged. */
#ifndef MN_WAV_H
#define MN_WAV_H

#include "base/base.h"

typedef struct mn_wav {
  int64_t rate;   /* samples a second */
  int channels;   /* of the file */
  int64_t n;      /* samples */
  float *samples; /* mono, in [-1, 1) for PCM */
} mn_wav;

/* At most 1 GiB. MN_ERR_FORMAT names the file and what is wrong: truncated, sizes that lie, another coding, NaN. */
mn_status mn_wav_read(const char *path, mn_wav *out);
mn_status mn_wav_parse(const char *name, const void *bytes, size_t n, mn_wav *out);
void mn_wav_free(mn_wav *w);

#endif
