/* wav.h - sound from RIFF WAVE files: linear PCM of 8, 16, 24 or 32 bits, or floats of 32 bits; several channels are averaged. A file has one
 * chunk 'fmt ' and behind it one 'data'; of others (LIST, fact, cue, bext) the sizes are looked at alone. Behind the file's end, as its head
 * says it, tags may stand as players write them (ID3, TAG, APETAGEX); what else stands there is refused, as it may be sound. */
#ifndef MN_WAV_H
#define MN_WAV_H

#include "base/base.h"

typedef struct mn_wav {
  int64_t rate;   /* samples a second */
  int channels;   /* of the file */
  int64_t n;      /* samples */
  float *samples; /* mono, in [-1, 1) for PCM */
} mn_wav;

/* At most 1 GiB. MN_ERR_FORMAT names the file and what is wrong: truncated, sizes that lie or contradict each other,
 * another coding, NaN. */
mn_status mn_wav_read(const char *path, mn_wav *out);
mn_status mn_wav_parse(const char *name, const void *bytes, size_t n, mn_wav *out);
void mn_wav_free(mn_wav *w);

/* The same of bytes as they come. `bytes`: how many there will be, so that a size that does not fit is refused where it stands; -1: not
 * known, as of a pipe; a sound that says a length of 0 or of 2^32 - 1 then goes on to the end. `name` is borrowed. */
typedef struct mn_wav_stream mn_wav_stream;
mn_status mn_wav_stream_new(const char *name, int64_t bytes, mn_wav_stream **out);
void mn_wav_stream_free(mn_wav_stream *w);
/* The samples that are whole with these bytes: valid until the next call. */
mn_status mn_wav_stream_push(mn_wav_stream *w, const void *bytes, size_t n, const float **samples, int64_t *n_samples);
int64_t mn_wav_stream_rate(const mn_wav_stream *w);  /* 0: it has not been said yet */
mn_status mn_wav_stream_end(const mn_wav_stream *w); /* nothing follows: MN_ERR_FORMAT where more should have, or the head's size
                                                        is another, or there was no sound */

#endif
