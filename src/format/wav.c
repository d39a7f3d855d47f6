/* wav.c - see wav.h. */
#include "format/wav.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"

static uint32_t u16(const uint8_t *p) { return (uint32_t)p[0] | (uint32_t)p[1] << 8; }
static uint32_t u32(const uint8_t *p) { return u16(p) | u16(p + 2) << 16; }

enum { PCM = 1, FLOATS = 3, EXTENSIBLE = 0xfffe };
typedef struct layout {
  uint32_t coding, channels, rate, bits;
} layout;

static mn_status read_layout(const char *name, const uint8_t *p, uint32_t n, layout *f) {
  if (n < 16) return mn_fail(MN_ERR_FORMAT, "%s: its chunk 'fmt ' has %u bytes, at least 16 are needed", name, n);
  *f = (layout){u16(p), u16(p + 2), u32(p + 4), u16(p + 14)};
  if (f->coding == EXTENSIBLE && n >= 40) f->coding = u16(p + 24);
  bool known =
      (f->coding == PCM && (f->bits == 8 || f->bits == 16 || f->bits == 24 || f->bits == 32)) || (f->coding == FLOATS && f->bits == 32);
  if (!known)
    return mn_fail(MN_ERR_FORMAT, "%s: is coded as %u with %u bits; PCM (1) of 8, 16, 24 or 32 bits and floats (3) of 32 are read", name,
                   f->coding, f->bits);
  if (f->channels < 1 || f->channels > 64) return mn_fail(MN_ERR_FORMAT, "%s: has %u channels; 1 to 64 are read", name, f->channels);
  if (f->rate < 1 || f->rate > 1000000) return mn_fail(MN_ERR_FORMAT, "%s: has %u samples a second", name, f->rate);
  if (u16(p + 12) != f->channels * f->bits / 8)
    return mn_fail(MN_ERR_FORMAT, "%s: says that a frame has %u bytes, but %u channels of %u bits have %u", name, u16(p + 12), f->channels,
                   f->bits, f->channels * f->bits / 8);
  return MN_OK;
}

static double sample(const layout *f, const uint8_t *p) {
  switch (f->bits) {
  case 8:
    return ((int)p[0] - 128) / 128.0;
  case 16:
    return (int16_t)(uint16_t)u16(p) / 32768.0;
  case 24:
    return (int32_t)((uint32_t)p[0] << 8 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 24) / 2147483648.0;
  default:
    break;
  }
  uint32_t bits = u32(p);
  if (f->coding == PCM) return (int32_t)bits / 2147483648.0;
  float x;
  memcpy(&x, &bits, sizeof x);
  return (double)x;
}

static mn_status read_samples(const char *name, const layout *f, const uint8_t *p, size_t bytes, mn_wav *out) {
  size_t frame = f->channels * f->bits / 8;
  if (bytes % frame) return mn_fail(MN_ERR_FORMAT, "%s: its %zu bytes of sound end within a frame of %zu", name, bytes, frame);
  if (!bytes) return mn_fail(MN_ERR_FORMAT, "%s: holds no sound", name);
  *out = (mn_wav){.rate = f->rate, .channels = (int)f->channels, .n = (int64_t)(bytes / frame)};
  out->samples = mn_alloc((size_t)out->n * sizeof *out->samples);
  if (!out->samples) return MN_ERR_MEMORY;
  for (int64_t i = 0; i < out->n; i++) {
    double sum = 0;
    for (uint32_t c = 0; c < f->channels; c++) sum += sample(f, p + (size_t)i * frame + c * (f->bits / 8));
    if (!isfinite(sum))
      return mn_fail(MN_ERR_FORMAT, "%s: sample %lld is not a number; repair the file or leave it out", name, (long long)i);
    out->samples[i] = (float)(sum / f->channels);
  }
  return MN_OK;
}

mn_status mn_wav_parse(const char *name, const void *data, size_t n, mn_wav *out) {
  const uint8_t *bytes = data;
  layout f = {0};
  *out = (mn_wav){0};
  if (n < 12 || memcmp(bytes, "RIFF", 4) || memcmp(bytes + 8, "WAVE", 4)) return mn_fail(MN_ERR_FORMAT, "%s: is no RIFF WAVE file", name);
  for (size_t at = 12; at + 8 <= n;) {
    const uint8_t *chunk = bytes + at;
    uint32_t size = u32(chunk + 4);
    size_t left = n - at - 8;
    if (size > left)
      return mn_fail(
          MN_ERR_FORMAT,
          "%s: its chunk at byte %zu has %u bytes as it says, but the file ends after %zu: it is cut short; get the whole file again", name,
          at, size, left);
    if (!memcmp(chunk, "fmt ", 4)) MN_TRY(read_layout(name, chunk + 8, size, &f));
    if (!memcmp(chunk, "data", 4)) {
      if (!f.bits) return mn_fail(MN_ERR_FORMAT, "%s: has sound before it says how it is coded", name);
      mn_status status = read_samples(name, &f, chunk + 8, size, out);
      if (status != MN_OK) mn_wav_free(out);
      return status;
    }
    at += 8 + (size_t)size + (size & 1);
  }
  return mn_fail(MN_ERR_FORMAT, "%s: has no chunk 'data'", name);
}

mn_status mn_wav_read(const char *path, mn_wav *out) {
  char *bytes;
  size_t n;
  *out = (mn_wav){0};
  MN_TRY(mn_file_read(path, (size_t)1 << 30, &bytes, &n));
  mn_status status = mn_wav_parse(path, bytes, n, out);
  free(bytes);
  return status;
}

void mn_wav_free(mn_wav *w) {
  free(w->samples);
  *w = (mn_wav){0};
}
