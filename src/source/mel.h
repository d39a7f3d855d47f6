/* mel.h - log-mel features of a sound: windowed power spectra (Hann, radix-2 FFT), summed by triangles that are even on the mel
 * scale (O'Shaughnessy 1987: 2595 log10(1 + f / 700)), as log10(max(energy, 1e-10)). */
#ifndef MN_MEL_H
#define MN_MEL_H

#include "base/base.h"

typedef struct mn_mel mn_mel; /* windows, twiddles and filters of one setting */
/* rate: samples a second; window and hop in samples, the window at most 65536; bands between low and high Hz, low < high <= rate / 2. */
mn_status mn_mel_new(int64_t rate, int64_t window, int64_t hop, int bands, double low, double high, mn_mel **out);
void mn_mel_free(mn_mel *m);
/* Frames of n samples: windows that lie within them, at least one (a shorter sound is followed by silence). */
int64_t mn_mel_frames(const mn_mel *m, int64_t n);
/* The first `frames` of them: out[frames, bands]. */
mn_status mn_mel_run(const mn_mel *m, const float *samples, int64_t n, int64_t frames, float *out);

/* The same frames, bit for bit, as the samples come. `mel` must outlive it. */
typedef struct mn_mel_stream mn_mel_stream;
mn_status mn_mel_stream_new(const mn_mel *mel, mn_mel_stream **out);
void mn_mel_stream_free(mn_mel_stream *s);
/* Takes samples until a frame is made, frame[bands], or all are taken: returns how many it took. */
int64_t mn_mel_stream_push(mn_mel_stream *s, const float *samples, int64_t n, float *frame, bool *made);
/* The sound ends: true where it was shorter than a window, and its only frame is made now. */
bool mn_mel_stream_end(mn_mel_stream *s, float *frame);

/* In place: X_k = sum over t of x_t exp(-2 pi i k t / n), n a power of two; re, im [n]. */
void mn_fft(int64_t n, double *re, double *im);

#endif
