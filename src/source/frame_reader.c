/* frame_reader.c - see frame_reader.h. */
#include "source/frame_reader.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "format/png.h"
#include "format/wav.h"
#include "source/mel.h"

const char *const mn_frame_formats[] = {"auto", "wav", "s16", "f32", "png", "lines", NULL};
enum { BLOCK = 1 << 16, PICTURE = 1 << 28 };

struct mn_frame_reader {
  const char *path, *name;
  mn_frame_format format;
  const mn_features *features; /* NULL: nobody said */
  int64_t channels;
  int fd;
  bool ended; /* no more bytes come */
  uint8_t bytes[BLOCK];
  size_t n, taken; /* of bytes: there are, and of those were used */
  int64_t size;    /* of a file that is no pipe; -1: not known */
  int64_t made;    /* frames */
  /* sounds */
  mn_mel *mel;
  mn_mel_stream *stream;
  mn_wav_stream *wav;
  const float *samples; /* that are still to be taken */
  float raw[BLOCK / 2];
  int64_t n_samples, heard; /* heard: in all */
  /* lines */
  int64_t line;
  mn_text text; /* of the line that is not whole yet */
  /* pictures */
  mn_png picture;
};

/* ---- bytes ---- */
static mn_status open_file(mn_frame_reader *r) {
  const bool standard = !strcmp(r->path, "-");
  struct stat info;
  r->name = standard ? "standard input" : r->path;
  r->size = -1;
  r->fd = standard ? STDIN_FILENO : open(r->path, O_RDONLY | O_CLOEXEC); /* of a pipe: waits until somebody writes to it */
  if (r->fd < 0 && errno == EINTR) return mn_fail(MN_ERR_CANCELLED, "interrupted while waiting for %s", r->name);
  if (r->fd < 0 || fstat(r->fd, &info) != 0) return mn_fail(MN_ERR_IO, "%s: %s", r->name, strerror(errno));
  if (S_ISDIR(info.st_mode)) return mn_fail(MN_ERR_IO, "%s is a directory; name a file, or - for standard input", r->name);
  if (S_ISREG(info.st_mode) && !standard) r->size = info.st_size;
  return MN_OK;
}

/* More bytes behind those that are there, at least one unless the file ends. */
static mn_status read_more(mn_frame_reader *r) {
  memmove(r->bytes, r->bytes + r->taken, r->n - r->taken);
  r->n -= r->taken;
  r->taken = 0;
  if (r->ended || r->n == BLOCK) return MN_OK;
  ssize_t got = read(r->fd, r->bytes + r->n, BLOCK - r->n);
  if (got < 0 && errno == EINTR) return mn_fail(MN_ERR_CANCELLED, "interrupted while waiting for %s", r->name);
  if (got < 0) return mn_fail(MN_ERR_IO, "%s: %s", r->name, strerror(errno));
  r->n += (size_t)got;
  r->ended = got == 0;
  return MN_OK;
}

/* ---- sounds ---- */
static bool is_sound(const mn_frame_reader *r) { return r->format >= MN_FRAMES_WAV && r->format <= MN_FRAMES_F32; }

static mn_status open_sound(mn_frame_reader *r) {
  const mn_features *f = r->features;
  if (!f || f->type != MN_FEATURES_AUDIO)
    return mn_fail(MN_ERR_CONFIG, "%s: is a sound, but this model was trained on %s; give it frames as lines of %lld numbers", r->name,
                   f ? "pictures" : "frames as they are", (long long)r->channels);
  MN_TRY(mn_mel_new(f->rate, mn_features_window(f), mn_features_hop(f), (int)f->bands, f->low_hz, f->high_hz, &r->mel));
  MN_TRY(mn_mel_stream_new(r->mel, &r->stream));
  return r->format == MN_FRAMES_WAV ? mn_wav_stream_new(r->name, r->size, &r->wav) : MN_OK;
}

static mn_status check_rate(const mn_frame_reader *r) {
  const int64_t rate = mn_wav_stream_rate(r->wav);
  if (!rate || rate == r->features->rate) return MN_OK;
  return mn_fail(MN_ERR_FORMAT, "%s: its field 'rate' says %lld samples a second; the model was trained on %lld: resample it to %lld",
                 r->name, (long long)rate, (long long)r->features->rate, (long long)r->features->rate);
}

static mn_status take_raw(mn_frame_reader *r) {
  const size_t width = r->format == MN_FRAMES_S16 ? 2 : 4, n = (r->n - r->taken) / width;
  const uint8_t *p = r->bytes + r->taken;
  for (size_t i = 0; i < n; i++, p += width) {
    if (width == 2) r->raw[i] = (float)(int16_t)(uint16_t)((unsigned)p[0] | (unsigned)p[1] << 8) / 32768.0f;
    else memcpy(&r->raw[i], p, sizeof r->raw[i]);
    if (!isfinite((double)r->raw[i]))
      return mn_fail(MN_ERR_FORMAT, "%s: sample %lld is not a number; is it coded as %s?", r->name, (long long)(r->heard + (int64_t)i),
                     mn_frame_formats[r->format]);
  }
  r->samples = r->raw;
  r->n_samples = (int64_t)n;
  r->taken += n * width;
  return MN_OK;
}

static mn_status end_sound(mn_frame_reader *r) {
  if (r->wav) return mn_wav_stream_end(r->wav);
  if (r->n > r->taken)
    return mn_fail(MN_ERR_FORMAT, "%s: ends within a sample of %d bytes; is it coded as %s?", r->name, r->format == MN_FRAMES_S16 ? 2 : 4,
                   mn_frame_formats[r->format]);
  return r->heard ? MN_OK : mn_fail(MN_ERR_FORMAT, "%s: holds no sound", r->name);
}

/* Samples to go on with; none: the sound has ended. */
static mn_status more_samples(mn_frame_reader *r) {
  const size_t width = r->wav ? 1 : r->format == MN_FRAMES_S16 ? 2 : 4;
  while (!r->n_samples) {
    if (r->ended && r->n - r->taken < width) return end_sound(r);
    if (!r->ended && r->n - r->taken < width) MN_TRY(read_more(r));
    if (r->wav) {
      MN_TRY(mn_wav_stream_push(r->wav, r->bytes + r->taken, r->n - r->taken, &r->samples, &r->n_samples));
      r->taken = r->n;
      MN_TRY(check_rate(r));
    } else {
      MN_TRY(take_raw(r));
    }
    r->heard += r->n_samples;
  }
  return MN_OK;
}

static mn_status next_of_sound(mn_frame_reader *r, float *frame, bool *got) {
  while (!*got) {
    if (!r->n_samples) MN_TRY(more_samples(r));
    if (!r->n_samples) {
      *got = mn_mel_stream_end(r->stream, frame);
      break;
    }
    const int64_t n = mn_mel_stream_push(r->stream, r->samples, r->n_samples, frame, got);
    r->samples += n;
    r->n_samples -= n;
  }
  if (*got) mn_features_scale(r->features, frame, frame);
  return MN_OK;
}

double mn_frame_reader_seconds(const mn_frame_reader *r) {
  if (!is_sound(r) || !r->made) return (double)NAN;
  const int64_t end = (r->made - 1) * mn_features_hop(r->features) + mn_features_window(r->features);
  return (double)(end < r->heard ? end : r->heard) / (double)r->features->rate;
}

/* ---- lines ---- */
static mn_status whole_line(mn_frame_reader *r, bool *got) {
  r->text.len = 0;
  for (*got = false; !*got;) {
    const uint8_t *from = r->bytes + r->taken, *end = memchr(from, '\n', r->n - r->taken);
    const size_t n = end ? (size_t)(end - from) : r->n - r->taken;
    mn_text_add_bytes(&r->text, from, n);
    MN_TRY(mn_text_status(&r->text));
    r->taken += n + (end != NULL);
    *got = end != NULL;
    if (!end && r->ended) {
      *got = r->text.len > 0;
      break;
    }
    if (r->text.len > 64 * (size_t)r->channels + 4096)
      return mn_fail(MN_ERR_FORMAT, "%s:%lld: is longer than a line of %lld numbers can be", r->name, (long long)r->line + 1,
                     (long long)r->channels);
    if (!end) MN_TRY(read_more(r));
  }
  r->line += *got;
  return MN_OK;
}

static mn_status parse_line(const mn_frame_reader *r, float *frame, int64_t *count) {
  const char *p = r->text.data;
  char shown[MN_PRINTABLE];
  *count = 0;
  if (strlen(p) != r->text.len)
    return mn_fail(MN_ERR_FORMAT, "%s:%lld: holds a zero byte: it is no text; WAV files, PNG pictures and lines of numbers are read",
                   r->name, (long long)r->line);
  if (r->line == 1) p += mn_utf8_mark(p, r->text.len);
  for (p += strspn(p, " \t\r"); *p; p += strspn(p, " \t\r")) {
    char *end;
    const size_t word = strcspn(p, ", \t\r;");
    const double x = strtod(p, &end);
    char copy[MN_PRINTABLE];
    snprintf(copy, sizeof copy, "%.*s", word < 40 ? (int)word : 40, p);
    if (!word || end != p + word || strspn(p, "+-.eE0123456789") < word || !isfinite(x) || !isfinite((float)x))
      return mn_fail(MN_ERR_FORMAT, "%s:%lld: number %lld of the line is '%s'; a line is a frame of %lld numbers%s", r->name,
                     (long long)r->line, (long long)*count + 1, mn_printable(copy, shown), (long long)r->channels,
                     r->line == 1 ? " (if these are names, leave the line out)" : "");
    if (*count < r->channels) frame[*count] = (float)x;
    ++*count;
    p = end + strspn(end, " \t\r");
    if (*p == ',' || *p == ';') p++;
  }
  return MN_OK;
}

static mn_status next_of_lines(mn_frame_reader *r, float *frame, bool *got) {
  int64_t count = 0;
  const mn_features *f = r->features;
  while (!count) {
    MN_TRY(whole_line(r, got));
    if (!*got) return MN_OK;
    MN_TRY(parse_line(r, frame, &count)); /* an empty one is passed over */
  }
  if (count != r->channels)
    return mn_fail(MN_ERR_FORMAT, "%s:%lld: has %lld numbers; a frame of this model has %lld", r->name, (long long)r->line,
                   (long long)count, (long long)r->channels);
  if (f && f->type == MN_FEATURES_AUDIO) mn_features_scale(f, frame, frame);
  for (int64_t c = 0; f && f->type == MN_FEATURES_IMAGES && c < count; c++) frame[c] = mn_features_pixel(f, (double)frame[c]);
  return MN_OK;
}

/* ---- pictures ---- */
static mn_status check_picture(const char *name, const mn_features *f, const mn_png *p) {
  if (p->height == f->height && p->width == f->width) return MN_OK;
  return mn_fail(MN_ERR_FORMAT, "%s: has %lld x %lld pixels; the model was trained on %lld x %lld: scale it to that size", name,
                 (long long)p->height, (long long)p->width, (long long)f->height, (long long)f->width);
}

static mn_status no_picture(const char *name, const mn_features *f) {
  return mn_fail(MN_ERR_CONFIG, "%s: is a picture, but this model was trained on %s", name, f ? "sounds" : "frames as they are");
}

/* What of it was read already, and the rest. */
static mn_status open_picture(mn_frame_reader *r) {
  const mn_features *f = r->features;
  if (!f || f->type != MN_FEATURES_IMAGES) return no_picture(r->name, f);
  mn_text all = {0};
  mn_status status = MN_OK;
  while (status == MN_OK) {
    mn_text_add_bytes(&all, r->bytes + r->taken, r->n - r->taken);
    r->taken = r->n;
    status = mn_text_status(&all);
    if (status == MN_OK && all.len > PICTURE) status = mn_fail(MN_ERR_FORMAT, "%s: is too large for a picture", r->name);
    if (r->ended || status != MN_OK) break;
    status = read_more(r);
  }
  if (status == MN_OK) status = mn_png_parse(r->name, all.data, all.len, (int)f->channels, &r->picture);
  mn_text_free(&all);
  return status == MN_OK ? check_picture(r->name, f, &r->picture) : status;
}

static void next_of_picture(mn_frame_reader *r, float *frame, bool *got) {
  const uint8_t *row = r->picture.data + r->made * r->channels;
  *got = r->made < r->picture.height;
  for (int64_t c = 0; *got && c < r->channels; c++) frame[c] = mn_features_pixel(r->features, row[c]);
}

mn_status mn_read_picture(const char *path, const mn_features *f, float *out) {
  mn_frame_reader r = {.path = path, .features = f, .fd = -1, .channels = f->width * f->channels};
  mn_status status = open_file(&r);
  if (status == MN_OK) status = open_picture(&r);
  for (int64_t k = 0, n = f->height * r.channels; status == MN_OK && k < n; k++) out[k] = mn_features_pixel(f, r.picture.data[k]);
  if (r.fd > STDERR_FILENO) close(r.fd);
  mn_png_free(&r.picture);
  return status;
}

/* ---- all ---- */
/* Also what is like a WAV file and no such one: who reads it says so. */
static bool like_wav(const uint8_t *p) {
  static const char *const like[] = {"RIFF", "RIFX", "RF64", "BW64"};
  for (size_t i = 0; i < sizeof like / sizeof *like; i++)
    if (!memcmp(p, like[i], 4)) return true;
  return false;
}

static mn_status recognise(mn_frame_reader *r) {
  while (!r->ended && r->n < 4) MN_TRY(read_more(r));
  if (!r->n && r->format != MN_FRAMES_PNG && r->format != MN_FRAMES_LINES)
    return mn_fail(MN_ERR_FORMAT, "%s: is empty; a WAV file, a picture or lines of numbers are read", r->name);
  if (r->format != MN_FRAMES_AUTO) return MN_OK;
  r->format = r->n >= 4 && like_wav(r->bytes)                ? MN_FRAMES_WAV
              : r->n >= 4 && !memcmp(r->bytes, "\x89PNG", 4) ? MN_FRAMES_PNG
                                                             : MN_FRAMES_LINES;
  return MN_OK;
}

mn_status mn_frame_reader_open(const char *path, mn_frame_format format, const mn_features *features, int64_t channels,
                               mn_frame_reader **out) {
  mn_frame_reader *r = *out = mn_calloc(1, sizeof *r);
  if (!r) return MN_ERR_MEMORY;
  r->path = path;
  r->format = format;
  r->features = features;
  r->channels = channels;
  r->fd = -1;
  mn_status status = open_file(r);
  if (status == MN_OK) status = recognise(r);
  if (status == MN_OK && is_sound(r)) status = open_sound(r);
  if (status == MN_OK && r->format == MN_FRAMES_PNG) status = open_picture(r);
  if (status == MN_OK) return MN_OK;
  mn_frame_reader_close(r);
  *out = NULL;
  return status;
}

void mn_frame_reader_close(mn_frame_reader *r) {
  if (!r) return;
  if (r->fd > STDERR_FILENO) close(r->fd);
  mn_mel_stream_free(r->stream);
  mn_mel_free(r->mel);
  mn_wav_stream_free(r->wav);
  mn_text_free(&r->text);
  mn_png_free(&r->picture);
  free(r);
}

const char *mn_frame_reader_name(const mn_frame_reader *r) { return r->name; }

mn_status mn_frame_reader_next(mn_frame_reader *r, float *frame, bool *got) {
  *got = false;
  if (is_sound(r)) MN_TRY(next_of_sound(r, frame, got));
  else if (r->format == MN_FRAMES_PNG) next_of_picture(r, frame, got);
  else MN_TRY(next_of_lines(r, frame, got));
  r->made += *got;
  return MN_OK;
}
