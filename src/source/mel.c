/* mel.c - see mel.h. */
#include "source/mel.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double pi = 3.14159265358979323846;

struct mn_mel {
  int64_t window, hop, n; /* n: the window's length, up to a power of two */
  int bands;
  double *hann;    /* [window] */
  double *filters; /* [bands, n / 2 + 1] */
};

void mn_fft(int64_t n, double *re, double *im) {
  for (int64_t i = 1, j = 0; i < n; i++) { /* bits reversed */
    int64_t bit = n >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j |= bit;
    if (i >= j) continue;
    double r = re[i], m = im[i];
    re[i] = re[j], im[i] = im[j];
    re[j] = r, im[j] = m;
  }
  for (int64_t length = 2; length <= n; length <<= 1)
    for (int64_t k = 0; k < length / 2; k++) {
      double angle = -2 * pi * (double)k / (double)length, c = cos(angle), s = sin(angle);
      for (int64_t i = k; i < n; i += length) {
        int64_t j = i + length / 2;
        double r = re[j] * c - im[j] * s, m = re[j] * s + im[j] * c;
        re[j] = re[i] - r, im[j] = im[i] - m;
        re[i] += r, im[i] += m;
      }
    }
}

static double to_mel(double hz) { return 2595 * log10(1 + hz / 700); }
static double to_hz(double mel) { return 700 * (pow(10, mel / 2595) - 1); }

/* Triangles: band b rises from edge b to edge b + 1 and falls to edge b + 2. */
static void make_filters(mn_mel *m, int64_t rate, double low, double high) {
  int64_t bins = m->n / 2 + 1;
  double from = to_mel(low), step = (to_mel(high) - from) / (m->bands + 1);
  for (int b = 0; b < m->bands; b++) {
    double left = to_hz(from + b * step), middle = to_hz(from + (b + 1) * step), right = to_hz(from + (b + 2) * step);
    for (int64_t k = 0; k < bins; k++) {
      double f = (double)k * (double)rate / (double)m->n, up = (f - left) / (middle - left), down = (right - f) / (right - middle);
      m->filters[b * bins + k] = fmax(0, fmin(up, down));
    }
  }
}

mn_status mn_mel_new(int64_t rate, int64_t window, int64_t hop, int bands, double low, double high, mn_mel **out) {
  *out = NULL;
  if (rate < 1 || window < 2 || window > 65536 || hop < 1 || bands < 1 || bands > 4096 ||
      !(low >= 0 && low < high && high <= (double)rate / 2))
    return mn_fail(MN_ERR_ARG, "mel bands of %g to %g Hz in windows of %lld samples at %lld a second are impossible", low, high,
                   (long long)window, (long long)rate);
  mn_mel *m = mn_calloc(1, sizeof *m);
  if (!m) return MN_ERR_MEMORY;
  *m = (mn_mel){.window = window, .hop = hop, .n = 1, .bands = bands};
  while (m->n < window) m->n <<= 1;
  m->hann = mn_alloc((size_t)window * sizeof *m->hann);
  m->filters = mn_alloc((size_t)bands * (size_t)(m->n / 2 + 1) * sizeof *m->filters);
  if (!m->hann || !m->filters) {
    mn_mel_free(m);
    return MN_ERR_MEMORY;
  }
  for (int64_t i = 0; i < window; i++) m->hann[i] = 0.5 - 0.5 * cos(2 * pi * (double)i / (double)window);
  make_filters(m, rate, low, high);
  *out = m;
  return MN_OK;
}

void mn_mel_free(mn_mel *m) {
  if (!m) return;
  free(m->hann);
  free(m->filters);
  free(m);
}

int64_t mn_mel_frames(const mn_mel *m, int64_t n) { return n <= m->window ? 1 : (n - m->window) / m->hop + 1; }

/* Of the window that begins at x, of which n samples are there (silence follows): out[bands]. re, im [n]. */
static void run_window(const mn_mel *m, const float *x, int64_t n, double *re, double *im, float *out) {
  int64_t bins = m->n / 2 + 1;
  memset(re, 0, (size_t)m->n * sizeof *re);
  memset(im, 0, (size_t)m->n * sizeof *im);
  for (int64_t i = 0; i < m->window && i < n; i++) re[i] = m->hann[i] * (double)x[i];
  mn_fft(m->n, re, im);
  for (int64_t k = 0; k < bins; k++) re[k] = re[k] * re[k] + im[k] * im[k];
  for (int b = 0; b < m->bands; b++) {
    double energy = 0;
    for (int64_t k = 0; k < bins; k++) energy += m->filters[b * bins + k] * re[k];
    out[b] = (float)log10(fmax(energy, 1e-10));
  }
}

mn_status mn_mel_run(const mn_mel *m, const float *samples, int64_t n, int64_t frames, float *out) {
  double *re = mn_alloc((size_t)(2 * m->n) * sizeof *re);
  if (!re) return MN_ERR_MEMORY;
  for (int64_t f = 0; f < frames; f++) run_window(m, samples + f * m->hop, n - f * m->hop, re, re + m->n, out + f * m->bands);
  free(re);
  return MN_OK;
}

/* ---- as samples come ---- */
struct mn_mel_stream {
  const mn_mel *mel;
  int64_t n, skip, frames; /* samples held; still to be left out; frames made */
  float *held;             /* [window] */
  double *re;              /* [2, n] */
};

mn_status mn_mel_stream_new(const mn_mel *mel, mn_mel_stream **out) {
  mn_mel_stream *s = *out = mn_calloc(1, sizeof *s);
  if (!s) return MN_ERR_MEMORY;
  s->mel = mel;
  s->held = mn_alloc((size_t)mel->window * sizeof *s->held);
  s->re = mn_alloc((size_t)(2 * mel->n) * sizeof *s->re);
  if (s->held && s->re) return MN_OK;
  mn_mel_stream_free(s);
  *out = NULL;
  return MN_ERR_MEMORY;
}

void mn_mel_stream_free(mn_mel_stream *s) {
  if (!s) return;
  free(s->held);
  free(s->re);
  free(s);
}

static void make_frame(mn_mel_stream *s, float *frame) {
  const mn_mel *m = s->mel;
  const int64_t gone = m->hop < s->n ? m->hop : s->n;
  run_window(m, s->held, s->n, s->re, s->re + m->n, frame);
  memmove(s->held, s->held + gone, (size_t)(s->n - gone) * sizeof *s->held);
  s->n -= gone;
  s->skip = m->hop - gone;
  s->frames++;
}

int64_t mn_mel_stream_push(mn_mel_stream *s, const float *samples, int64_t n, float *frame, bool *made) {
  int64_t gone = s->skip < n ? s->skip : n, room = s->mel->window - s->n, take = n - gone < room ? n - gone : room;
  s->skip -= gone;
  memcpy(s->held + s->n, samples + gone, (size_t)take * sizeof *samples);
  s->n += take;
  *made = s->n == s->mel->window;
  if (*made) make_frame(s, frame);
  return gone + take;
}

bool mn_mel_stream_end(mn_mel_stream *s, float *frame) {
  if (s->frames || !s->n) return false;
  make_frame(s, frame);
  return true;
}
