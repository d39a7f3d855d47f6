/* wav.c - see wav.h. A file is a stream that is known to its end. Sizes are said twice, by the file's head and by its chunks: where they
 * contradict each other, or what is there, it is refused, as part of the sound would be lost. */
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

/* Of an extensible one: how many bits of each sample are used (0: it does not say), and the coding, behind which a fixed end stands. */
static mn_status read_extension(const char *name, const uint8_t *p, layout *f) {
  static const uint8_t end[] = {0, 0, 0, 0, 0x10, 0, 0x80, 0, 0, 0xaa, 0, 0x38, 0x9b, 0x71};
  if (u16(p + 18) > f->bits)
    return mn_fail(MN_ERR_FORMAT, "%s: its chunk 'fmt ' says that %u of %u bits of a sample are used", name, u16(p + 18), f->bits);
  if (memcmp(p + 26, end, sizeof end))
    return mn_fail(MN_ERR_FORMAT, "%s: its chunk 'fmt ' names a coding of somebody's own; PCM and floats are read", name);
  f->coding = u16(p + 24);
  return MN_OK;
}

static mn_status read_layout(const char *name, const uint8_t *p, uint32_t n, layout *f) {
  if (n < 16) return mn_fail(MN_ERR_FORMAT, "%s: its chunk 'fmt ' has %u bytes, at least 16 are needed", name, n);
  *f = (layout){u16(p), u16(p + 2), u32(p + 4), u16(p + 14)};
  if (f->coding == EXTENSIBLE && n >= 40) MN_TRY(read_extension(name, p, f));
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

/* ---- a stream of bytes ---- */
/* What the next bytes are: the file's head, a chunk's, its content, a tag behind all. */
enum { RIFF, HEAD, FORMAT, SOUND, OTHER, TAG, TAG_REST };
enum { FORMAT_READ = 40 };
struct mn_wav_stream {
  const char *name;
  int64_t bytes, at; /* of the file: how many (-1: not known), and how many came */
  int what;
  uint8_t held[256]; /* of a head, or of a frame of up to 64 channels, what came of it */
  size_t n_held;
  char id[5];
  int64_t riff;                 /* bytes behind the first 8, as the head says */
  int64_t chunk_at, size, left; /* of the chunk: its place, its size as it says, and what is still to come with padding */
  int64_t sound_at;             /* where the sound begins; 0: not known yet */
  int64_t end;                  /* where tags begin, behind what the head counts; 0: there are none */
  bool endless;                 /* the sound goes on to the stream's end */
  layout f;
  float *samples;
  int64_t n, cap, count; /* of the last push; in all */
};

mn_status mn_wav_stream_new(const char *name, int64_t bytes, mn_wav_stream **out) {
  mn_wav_stream *w = *out = mn_calloc(1, sizeof *w);
  if (!w) return MN_ERR_MEMORY;
  w->name = name;
  w->bytes = bytes;
  return MN_OK;
}

void mn_wav_stream_free(mn_wav_stream *w) {
  if (!w) return;
  free(w->samples);
  free(w);
}

int64_t mn_wav_stream_rate(const mn_wav_stream *w) { return w->f.rate; }

static mn_status cut_short(const mn_wav_stream *w, int64_t there) {
  return mn_fail(MN_ERR_FORMAT,
                 "%s: its chunk '%s' at byte %lld has %lld bytes as it says, but the file ends after %lld: it is cut short, or its size is "
                 "wrong; get the whole file again",
                 w->name, w->id, (long long)w->chunk_at, (long long)w->size, (long long)there);
}

/* The head's size against the bytes that are there behind it: these, a padding byte that was not counted, one that was and is not there, or all
 * bytes of the file, as some programs count. */
static bool fits(const mn_wav_stream *w, int64_t there) {
  return there == w->riff || there == w->riff + (w->riff & 1) || there + 1 == w->riff || there + 8 == w->riff;
}

static mn_status check_size(const mn_wav_stream *w, int64_t there) {
  if (fits(w, there)) return MN_OK;
  return mn_fail(MN_ERR_FORMAT,
                 "%s: its head 'RIFF' says that %lld bytes follow its size, but %lld do: the file is cut short, has something behind its "
                 "end, or its size is wrong; get the whole file again, or have it written anew",
                 w->name, (long long)w->riff, (long long)there);
}

/* A program that writes into a pipe cannot know how long the sound will be, and says 0 or the largest number. */
static mn_status begin_sound(mn_wav_stream *w) {
  if (!w->f.bits) return mn_fail(MN_ERR_FORMAT, "%s: has sound before it says how it is coded", w->name);
  const int64_t follow = w->bytes - w->at;
  w->endless = w->bytes < 0 && (w->size == UINT32_MAX || (w->size == 0 && (w->riff == UINT32_MAX || w->riff <= w->chunk_at)));
  if (w->bytes >= 0 && (w->size == UINT32_MAX || (w->size == 0 && follow > 8)))
    return mn_fail(
        MN_ERR_FORMAT,
        "%s: its chunk 'data' says %lld bytes, but %lld follow: it was written by a program that could not know its length; give "
        "it by standard input, where the sound goes on to the end, or have it written anew",
        w->name, (long long)w->size, (long long)follow);
  w->sound_at = w->at;
  w->what = SOUND;
  return MN_OK;
}

/* Signs of ASCII, the first of which says something. */
static bool is_name(const uint8_t *p) {
  for (int i = 0; i < 4; i++)
    if (p[i] < 32 || p[i] > 126) return false;
  return p[0] != ' ';
}

static mn_status no_chunk(const mn_wav_stream *w, int64_t at, int64_t before) {
  return mn_fail(MN_ERR_FORMAT,
                 "%s: what stands at byte %lld, behind its chunk '%s' of %lld bytes, is no chunk (a name of four letters and a size): the "
                 "size of '%s' is wrong, or something was added; have it written anew",
                 w->name, (long long)at, w->id, (long long)before, w->id);
}

static mn_status check_chunk(const mn_wav_stream *w) {
  const bool sound = !strcmp(w->id, "data");
  if (w->bytes >= 0 && w->size > w->bytes - w->at) return cut_short(w, w->bytes - w->at);
  if (w->bytes >= 0 && sound && w->bytes - 8 < w->riff) MN_TRY(check_size(w, w->bytes - 8)); /* what is more may be tags */
  if (w->at + w->size > w->riff + 8 && w->riff && w->riff != UINT32_MAX)
    return mn_fail(
        MN_ERR_FORMAT,
        "%s: its chunk '%s' at byte %lld has %lld bytes as it says, and would end at byte %lld, but the head 'RIFF' says that the "
        "file ends at byte %lld: one of the sizes is wrong; have it written anew",
        w->name, w->id, (long long)w->chunk_at, (long long)w->size, (long long)(w->at + w->size), (long long)w->riff + 8);
  return MN_OK;
}

/* Bytes into `held` until there are `want`; true: there are. */
static bool hold(mn_wav_stream *w, size_t want, const uint8_t **p, size_t *n) {
  size_t k = want - w->n_held < *n ? want - w->n_held : *n;
  memcpy(w->held + w->n_held, *p, k);
  w->n_held += k;
  w->at += (int64_t)k;
  *p += k;
  *n -= k;
  return w->n_held == want;
}

/* ---- tags behind the end ---- */
/* ID3v2: a head of 10 bytes with a size of 4 x 7 bits; ID3v1: 128 bytes; APEv2: a head of 32 bytes, whose size counts none of it. */
enum { TAG_HEAD = 10, APE_SIZED = 16, APE_HEAD = 32, ID3_OLD = 128 };

static bool is_tag(const uint8_t *p) { return !memcmp(p, "ID3", 3) || !memcmp(p, "TAG", 3) || !memcmp(p, "APETAGEX", 8); }

/* With the 8 bytes in `held` tags begin, or another one: what the head counts has ended before them, and all sound is there. */
static bool begin_tag(mn_wav_stream *w) {
  if (!is_tag(w->held) || !(w->end || (w->sound_at && !w->endless && fits(w, w->at - 16)))) return false;
  if (!w->end) w->end = w->at - 8;
  w->chunk_at = w->at - 8;
  w->what = TAG;
  return true;
}

static mn_status push_tag(mn_wav_stream *w, const uint8_t **p, size_t *n) {
  const bool ape = w->held[0] == 'A', old = w->held[0] == 'T';
  const uint8_t *h = w->held;
  if (!hold(w, ape ? APE_SIZED : TAG_HEAD, p, n)) return MN_OK;
  if (!ape && !old && (h[3] == 0xff || h[4] == 0xff || ((h[6] | h[7] | h[8] | h[9]) & 0x80)))
    return mn_fail(MN_ERR_FORMAT, "%s: what stands at byte %lld, behind its end, begins as a tag 'ID3' and is none; have it written anew",
                   w->name, (long long)w->chunk_at);
  w->left = ape   ? (int64_t)u32(h + 12) + APE_HEAD - APE_SIZED
            : old ? ID3_OLD - TAG_HEAD
                  : ((int64_t)h[6] << 21 | h[7] << 14 | h[8] << 7 | h[9]) + (h[5] & 0x10 ? TAG_HEAD : 0);
  memcpy(w->id, w->held, 3);
  w->id[3] = 0;
  w->size = w->left;
  w->n_held = 0;
  w->what = w->left ? TAG_REST : HEAD;
  return MN_OK;
}

/* ---- chunks ---- */
static mn_status begin_chunk(mn_wav_stream *w) {
  if (begin_tag(w)) return MN_OK;
  if (!is_name(w->held)) return *w->id ? no_chunk(w, w->at - 8, w->size) : mn_fail(MN_ERR_FORMAT, "%s: no chunk follows its head", w->name);
  memcpy(w->id, w->held, 4);
  w->chunk_at = w->at - 8;
  w->size = u32(w->held + 4);
  w->left = w->size + (w->size & 1);
  w->n_held = 0;
  const bool sound = !strcmp(w->id, "data");
  if ((sound && w->sound_at) || (!strcmp(w->id, "fmt ") && w->f.bits))
    return mn_fail(MN_ERR_FORMAT, "%s: has a second chunk '%s', at byte %lld; one is read", w->name, w->id, (long long)w->chunk_at);
  if (sound) MN_TRY(begin_sound(w));
  if (w->endless) return MN_OK;
  MN_TRY(check_chunk(w));
  if (sound) w->left = w->size;
  w->what = sound && w->size ? SOUND : !strcmp(w->id, "fmt ") ? FORMAT : w->left ? OTHER : HEAD;
  return MN_OK;
}

static mn_status add_frame(mn_wav_stream *w, const uint8_t *p) {
  enum { LOOK_EVERY = 1 << 16 };
  const layout *f = &w->f;
  if (w->count % LOOK_EVERY == LOOK_EVERY - 1) MN_TRY(mn_stop_check("reading a sound"));
  double sum = 0;
  for (uint32_t c = 0; c < f->channels; c++) sum += sample(f, p + c * (f->bits / 8));
  if (!isfinite(sum))
    return mn_fail(MN_ERR_FORMAT, "%s: sample %lld is not a number; repair the file or leave it out", w->name, (long long)w->count);
  if (w->n == w->cap) {
    float *more = mn_realloc(w->samples, (size_t)(w->cap = w->cap ? 2 * w->cap : 1024) * sizeof *more);
    if (!more) return MN_ERR_MEMORY;
    w->samples = more;
  }
  w->samples[w->n++] = (float)(sum / f->channels);
  w->count++;
  return MN_OK;
}

static mn_status push_sound(mn_wav_stream *w, const uint8_t **p, size_t *n) {
  const size_t frame = w->f.channels * w->f.bits / 8;
  while (*n && (w->endless || w->left)) {
    size_t want = w->endless || (size_t)w->left >= frame - w->n_held ? frame : w->n_held + (size_t)w->left, before = *n;
    const bool whole = hold(w, want, p, n);
    if (!w->endless) w->left -= (int64_t)(before - *n);
    if (!whole || want < frame) continue;
    w->n_held = 0;
    MN_TRY(add_frame(w, w->held));
  }
  if (w->endless || w->left) return MN_OK;
  if (w->n_held)
    return mn_fail(MN_ERR_FORMAT, "%s: its %lld bytes of sound end within a frame of %zu; get the whole file again", w->name,
                   (long long)w->size, frame);
  w->left = w->size & 1;
  w->what = w->left ? OTHER : HEAD;
  return MN_OK;
}

static mn_status push_format(mn_wav_stream *w, const uint8_t **p, size_t *n) {
  const size_t want = w->size < FORMAT_READ ? (size_t)w->size : FORMAT_READ;
  if (!hold(w, want, p, n)) return MN_OK;
  MN_TRY(read_layout(w->name, w->held, (uint32_t)w->size, &w->f));
  w->left -= (int64_t)want;
  w->n_held = 0;
  w->what = w->left ? OTHER : HEAD;
  return MN_OK;
}

static mn_status no_wave(const mn_wav_stream *w) {
  const bool riff = w->n_held >= 12 && !memcmp(w->held, "RIFF", 4);
  const uint8_t *kind = w->held + (riff ? 8 : 0);
  if (w->n_held < 12 || !is_name(kind)) return mn_fail(MN_ERR_FORMAT, "%s: is no RIFF WAVE file", w->name);
  return mn_fail(MN_ERR_FORMAT, "%s: is %s '%.4s'; of sounds RIFF of 'WAVE' is read, in little-endian order with sizes of 32 bits", w->name,
                 riff ? "RIFF of" : "a file", (const char *)kind);
}

mn_status mn_wav_stream_push(mn_wav_stream *w, const void *bytes, size_t n, const float **samples, int64_t *n_samples) {
  const uint8_t *p = bytes;
  w->n = 0;
  while (n) {
    if (w->what == RIFF && hold(w, 12, &p, &n)) {
      if (memcmp(w->held, "RIFF", 4) || memcmp(w->held + 8, "WAVE", 4)) return no_wave(w);
      w->riff = u32(w->held + 4);
      w->n_held = 0;
      w->what = HEAD;
    } else if (w->what == HEAD && hold(w, 8, &p, &n)) {
      MN_TRY(begin_chunk(w));
      if (w->what == FORMAT && !w->size) MN_TRY(push_format(w, &p, &n));
    } else if (w->what == FORMAT) {
      MN_TRY(push_format(w, &p, &n));
    } else if (w->what == SOUND) {
      MN_TRY(push_sound(w, &p, &n));
    } else if (w->what == TAG) {
      MN_TRY(push_tag(w, &p, &n));
    } else if (w->what == OTHER || w->what == TAG_REST) {
      const size_t k = (size_t)w->left < n ? (size_t)w->left : n;
      w->left -= (int64_t)k, w->at += (int64_t)k, p += k, n -= k;
      if (!w->left) w->what = HEAD;
    }
  }
  *samples = w->samples;
  *n_samples = w->n;
  return MN_OK;
}

mn_status mn_wav_stream_end(const mn_wav_stream *w) {
  const bool padding = w->what == OTHER && w->left == 1 && w->size & 1; /* it alone is not there */
  if (w->what == RIFF) return no_wave(w);
  if (w->what == FORMAT || (w->what == OTHER && !padding) || (w->what == SOUND && !w->endless))
    return cut_short(w, w->at - w->chunk_at - 8);
  if (w->what == TAG || w->what == TAG_REST)
    return mn_fail(MN_ERR_FORMAT, "%s: its tag '%.3s' at byte %lld, behind the sound, is cut short; get the whole file again", w->name,
                   w->what == TAG ? (const char *)w->held : w->id, (long long)w->chunk_at);
  if (w->endless && w->n_held)
    return mn_fail(MN_ERR_FORMAT, "%s: its %lld bytes of sound end within a frame of %u; get the whole file again", w->name,
                   (long long)(w->at - w->sound_at), w->f.channels * w->f.bits / 8);
  if (w->n_held && w->sound_at) return no_chunk(w, w->at - (int64_t)w->n_held, w->size);
  if (!w->sound_at) return mn_fail(MN_ERR_FORMAT, "%s: has no chunk 'data'", w->name);
  if (!w->endless) MN_TRY(check_size(w, (w->end ? w->end : w->at) - 8));
  return w->count ? MN_OK : mn_fail(MN_ERR_FORMAT, "%s: holds no sound: its chunk 'data' has 0 bytes; leave it out", w->name);
}

/* ---- a whole file ---- */
mn_status mn_wav_parse(const char *name, const void *data, size_t n, mn_wav *out) {
  mn_wav_stream *w;
  const float *samples;
  *out = (mn_wav){0};
  MN_TRY(mn_wav_stream_new(name, (int64_t)n, &w));
  mn_status status = mn_wav_stream_push(w, data, n, &samples, &out->n);
  if (status == MN_OK) status = mn_wav_stream_end(w);
  if (status == MN_OK) {
    *out = (mn_wav){.rate = w->f.rate, .channels = (int)w->f.channels, .n = w->n, .samples = w->samples};
    w->samples = NULL;
  } else {
    *out = (mn_wav){0};
  }
  mn_wav_stream_free(w);
  return status;
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
