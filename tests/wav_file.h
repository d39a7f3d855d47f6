/* wav_file.h - for tests that hear: a tone as a WAV file of 16 bits. */
#ifndef MN_TEST_WAV_FILE_H
#define MN_TEST_WAV_FILE_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/text.h"
#include "test.h"

/* n samples of a tone, behind a head that says `bytes` of sound. */
static inline void wav_text(mn_text *t, int rate, double hz, int n, uint32_t bytes) {
  uint8_t head[44] = "RIFF....WAVEfmt \x10\0\0\0\x01\0\x01\0";
  int16_t *x = malloc((size_t)n * sizeof *x + 1);
  uint32_t words[] = {(uint32_t)rate, 2 * (uint32_t)rate, bytes}, riff = 36 + bytes + (bytes & 1);
  for (int i = 0; i < n; i++) x[i] = (int16_t)lround(16000 * sin(2 * 3.141592653589793 * hz * i / rate));
  memcpy(head + 4, &riff, 4);
  memcpy(head + 24, words, 8);
  head[32] = 2, head[34] = 16;
  memcpy(head + 36, "data", 4);
  memcpy(head + 40, &words[2], 4);
  mn_text_add_bytes(t, (const char *)head, 44);
  mn_text_add_bytes(t, (const char *)x, 2 * (size_t)n);
  free(x);
}

static inline void wav_write(const char *path, int rate, double hz, int n) {
  mn_text t = {0};
  wav_text(&t, rate, hz, n, 2 * (uint32_t)n);
  CHECK_OK(mn_file_write(path, t.data, t.len));
  mn_text_free(&t);
}

#endif
