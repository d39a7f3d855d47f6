/* test_frame_reader.c - what must be true of frames that are made of a file for a model that is trained already, in order: as samples come
 * they are, bit for bit, those of a sound that lies there whole; a WAV file cut anywhere into pieces is the file; what lies about its length
 * is refused, or of a pipe read to its end; a file's frames are those that its training had; lines and raw samples say the same; pictures
 * too; what cannot be read is named by file, line and remedy. */
#include <cairo.h>

#include "format/json.h"
#include "format/wav.h"
#include "source/frame_reader.h"
#include "source/mel.h"
#include "train_helpers.h"
#include "wav_file.h"

static mn_arena *arena;

static mn_source *open_source(const char *fmt, ...) MN_PRINTF(1, 2);
static mn_source *open_source(const char *fmt, ...) {
  char yaml[1600];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(yaml, sizeof yaml, fmt, ap);
  va_end(ap);
  const mn_value *v = NULL;
  mn_source_config *c = mn_arena_alloc(arena, sizeof *c);
  mn_source *s = NULL;
  CHECK_OK(mn_yaml_parse(arena, "data", yaml, strlen(yaml), &v));
  CHECK_OK(mn_source_parse(arena, v, "data", 1, c));
  CHECK_OK(mn_source_open(c, NULL, NULL, &s));
  return s;
}

/* What config.json keeps, as it comes back from there. */
static mn_features *features_of(const mn_source *s) {
  mn_text json = {0};
  const mn_value *v = s->def->reads(s, arena), *back = NULL;
  mn_features *f = mn_arena_alloc(arena, sizeof *f);
  CHECK_OK(mn_value_to_json(v, 2, &json));
  CHECK_OK(mn_json_parse(arena, "config.json", json.data, json.len, &back));
  CHECK_OK(mn_features_parse(arena, back, f));
  CHECK(mn_value_equal(mn_features_to_value(arena, f), v), "what is kept comes back");
  mn_text_free(&json);
  return f;
}

/* Of any piece lengths, windows, hops and lengths of sound. */
static void frames_as_samples_come(void) {
  static const struct { int64_t window, hop; } shape[] = {{200, 80}, {64, 64}, {50, 170}, {2, 1}};
  static const int64_t lengths[] = {1, 49, 50, 199, 200, 201, 777};
  enum { BANDS = 7, MOST = 800 };
  float sound[MOST], piece[BANDS];
  for (int i = 0; i < MOST; i++) sound[i] = (float)mn_random_normal(3, 0, (uint64_t)i);
  for (size_t k = 0; k < sizeof shape / sizeof *shape; k++) {
    mn_mel *mel = NULL;
    CHECK_OK(mn_mel_new(8000, shape[k].window, shape[k].hop, BANDS, 0, 4000, &mel));
    for (size_t l = 0; mel && l < sizeof lengths / sizeof *lengths; l++)
      for (int64_t step = 1; step < 300; step += 41) {
        const int64_t n = lengths[l], frames = mn_mel_frames(mel, n);
        float *whole = malloc((size_t)(frames * BANDS) * sizeof *whole);
        mn_mel_stream *s = NULL;
        CHECK_OK(mn_mel_run(mel, sound, n, frames, whole));
        CHECK_OK(mn_mel_stream_new(mel, &s));
        int64_t made = 0, wrong = 0;
        for (int64_t at = 0; at < n; at += step) {
          int64_t left = n - at < step ? n - at : step, from = at;
          while (left) {
            bool got;
            const int64_t took = mn_mel_stream_push(s, sound + from, left, piece, &got);
            from += took, left -= took;
            if (!got) continue;
            wrong += made >= frames || memcmp(piece, whole + made * BANDS, sizeof piece) != 0;
            made++;
          }
        }
        if (mn_mel_stream_end(s, piece)) wrong += made >= frames || memcmp(piece, whole + made++ * BANDS, sizeof piece) != 0;
        CHECK(made == frames && !wrong, "window %lld, %lld samples by %lld: %lld frames of %lld, %lld differ", (long long)shape[k].window,
              (long long)n, (long long)step, (long long)made, (long long)frames, (long long)wrong);
        mn_mel_stream_free(s);
        free(whole);
      }
    mn_mel_free(mel);
  }
}

/* All samples of a stream that is pushed in pieces; -1: it was refused. */
static int64_t push_all(const mn_text *file, int64_t bytes, size_t step, float *to) {
  mn_wav_stream *w = NULL;
  int64_t n = 0, got;
  const float *samples;
  mn_status status = mn_wav_stream_new("s.wav", bytes, &w);
  for (size_t at = 0; status == MN_OK && at < file->len; at += step) {
    status = mn_wav_stream_push(w, file->data + at, file->len - at < step ? file->len - at : step, &samples, &got);
    if (status == MN_OK && got) memcpy(to + n, samples, (size_t)got * sizeof *to), n += got;
  }
  if (status == MN_OK) status = mn_wav_stream_end(w);
  mn_wav_stream_free(w);
  return status == MN_OK ? n : -1;
}

static void a_wav_file_in_pieces_is_the_file(void) {
  mn_text file = {0};
  wav_text(&file, 8000, 440, 301, 602);
  mn_text_add_bytes(&file, "LIST\4\0\0\0abcd", 12);
  file.data[4] = (char)((36 + 602 + 12) & 255), file.data[5] = (36 + 602 + 12) >> 8;
  mn_wav whole;
  float got[400];
  CHECK_OK(mn_wav_parse("s.wav", file.data, file.len, &whole));
  for (size_t step = 1; step < 60; step++)
    for (int known = 0; known < 2; known++) {
      const int64_t n = push_all(&file, known ? (int64_t)file.len : -1, step, got);
      CHECK(n == 301 && !memcmp(got, whole.samples, 301 * sizeof *got), "by %zu: %lld samples: %s", step, (long long)n, mn_message());
    }
  for (size_t cut = 0; cut < file.len; cut++) {
    mn_text part = {.data = file.data, .len = cut};
    CHECK(push_all(&part, -1, 7, got) < 0 && strstr(mn_message(), "s.wav"), "cut to %zu of a pipe: %s", cut, mn_message());
    CHECK(push_all(&part, (int64_t)cut, 7, got) < 0 && strstr(mn_message(), "s.wav"), "cut to %zu: %s", cut, mn_message());
  }
  mn_wav_free(&whole);
  mn_text_free(&file);
}

static void what_lies_about_its_length(void) {
  static const uint32_t says[] = {0, UINT32_MAX, 700, 603};
  float got[400];
  for (int i = 0; i < 4; i++) {
    mn_text file = {0};
    wav_text(&file, 8000, 440, 301, says[i]);
    int64_t n = push_all(&file, (int64_t)file.len, 9, got);
    CHECK(n < 0 && strstr(mn_message(), "s.wav") && strstr(mn_message(), "'data'") && strstr(mn_message(), "602"), "a file says %u: %s",
          says[i], mn_message());
    CHECK(i > 1 || strstr(mn_message(), "standard input"), "the remedy: %s", mn_message());
    n = push_all(&file, -1, 9, got);
    CHECK(i < 2 ? n == 301 : n < 0, "a pipe says %u: %lld samples: %s", says[i], (long long)n, mn_message());
    mn_text_free(&file);
  }
  mn_text none = {0};
  wav_text(&none, 8000, 440, 0, 0);
  CHECK(push_all(&none, (int64_t)none.len, 9, got) < 0 && strstr(mn_message(), "no sound"), "%s", mn_message());
  CHECK(push_all(&none, -1, 9, got) < 0 && strstr(mn_message(), "no sound"), "%s", mn_message());
  mn_text_free(&none);
}

/* What says another length in another place, is there twice, or is no chunk: from a file and from a pipe. */
static void what_contradicts_itself(void) {
  enum { LIST = 12, N = 300 };
  static const struct {
    const char *why, *says;
    int riff, data;         /* added to what they should say */
    const char *behind;     /* of 12 bytes; NULL: nothing */
    int at, byte, was_byte; /* a byte that is another; at 0: none */
  } lie[] = {{"a head that says too little", "'RIFF'", -20, 0, NULL, 0, 0, 0},
             {"a head that says too much", "'RIFF'", 1000, 0, NULL, 0, 0, 0},
             {"a head that says nothing", "'RIFF'", -(36 + 2 * N), 0, NULL, 0, 0, 0},
             {"a head that leaves the last chunk out", "'RIFF'", -LIST, 0, "LIST\4\0\0\0abcd", 0, 0, 0},
             {"sound that is longer than it says", "no chunk", 0, -200, NULL, 0, 0, 0},
             {"sound again", "second chunk 'data'", 0, 0, "data\4\0\0\0abcd", 0, 0, 0},
             {"its coding again", "second chunk 'fmt '", 0, 0, "fmt \4\0\0\0abcd", 0, 0, 0},
             {"something behind", "no chunk", 0, 0, "\1\2\3\4\4\0\0\0abcd", 0, 0, 0},
             {"a chunk that is cut short", "'LIST'", 0, 0, "LIST\5\0\0\0abcd", 0, 0, 0},
             {"another order of bytes", "'RIFX'", 0, 0, NULL, 3, 'X', 'F'},
             {"pictures", "'AVI '", 0, 0, NULL, 0, 0, 0}};
  float got[400];
  for (size_t i = 0; i < sizeof lie / sizeof *lie; i++) {
    mn_text file = {0};
    wav_text(&file, 8000, 440, N, (uint32_t)(2 * N + lie[i].data));
    if (lie[i].behind) mn_text_add_bytes(&file, lie[i].behind, LIST);
    const uint32_t size = (uint32_t)((int)file.len - 8 + lie[i].riff);
    memcpy(file.data + 4, &size, 4);
    CHECK(!lie[i].at || (unsigned char)file.data[lie[i].at] == lie[i].was_byte, "byte %d is another", lie[i].at);
    if (lie[i].at) file.data[lie[i].at] = (char)lie[i].byte;
    if (!strcmp(lie[i].says, "'AVI '")) memcpy(file.data + 8, "AVI ", 4);
    for (int known = 0; known < 2; known++)
      CHECK(push_all(&file, known ? (int64_t)file.len : -1, 9, got) < 0 && strstr(mn_message(), "s.wav: ") &&
                strstr(mn_message(), lie[i].says),
            "%s: %s", lie[i].why, mn_message());
    mn_text_free(&file);
  }
}

/* As recorders write it: the byte behind a chunk of odd length is there and counted, there and not, or left out at the end. */
static void a_padding_byte_counts_or_does_not(void) {
  float got[400];
  for (int there = 0; there < 2; there++)
    for (int counted = 0; counted < 2; counted++)
      for (int known = 0; known < 2; known++) {
        mn_text file = {0};
        wav_text(&file, 8000, 440, 20, 40);
        mn_text_add_bytes(&file, "LIST\3\0\0\0abc", 11 + (size_t)there);
        file.data[4] = (char)(36 + 40 + 11 + counted);
        const int64_t n = push_all(&file, known ? (int64_t)file.len : -1, 7, got);
        CHECK(n == 20, "there %d, counted %d: %lld samples: %s", there, counted, (long long)n, mn_message());
        mn_text_free(&file);
      }
}

/* Nothing of the sound hangs on these: a head that counts itself, too, and another number of bytes of a second. */
static void what_loses_nothing_is_read(void) {
  float got[400];
  for (int which = 0; which < 2; which++)
    for (int known = 0; known < 2; known++) {
      mn_text file = {0};
      wav_text(&file, 8000, 440, 20, 40);
      if (which) file.data[29] = 1;
      else file.data[4] = 36 + 40 + 8;
      const int64_t n = push_all(&file, known ? (int64_t)file.len : -1, 7, got);
      CHECK(n == 20, "%d, %d: %lld samples: %s", which, known, (long long)n, mn_message());
      mn_text_free(&file);
    }
}

/* Tags as players and shops write them behind a file's end: the sound is all there. What only looks like one, is cut short, or stands behind
 * them is refused, as is sound behind the end. */
static void tags_behind_the_end_are_passed_over(void) {
  static const char id3[] = "ID3\4\0\0\0\0\1\5", footed[] = "ID3\4\0\x10\0\0\0\3", broken[] = "ID3\4\0\0\0\0\xff\1";
  static const char ape[] = "APETAGEX\xd0\7\0\0\x28\0\0\0\1\0\0\0\0\0\0\xa0\0\0\0\0\0\0\0\0";
  enum { ID3 = 10, REST = 128 + 5, FOOTED = 3 + 10, APE = 32, APE_REST = 40, OLD = 128 };
  static const struct {
    const char *begin;
    int n, zeros; /* of the tag: its first bytes, and how many follow */
    const char *says;
  } all[] = {{id3, ID3, REST, NULL},
             {footed, ID3, FOOTED, NULL},
             {ape, APE, APE_REST, NULL},
             {"TAG", 3, OLD - 3, NULL},
             {id3, ID3, REST - 1, "tag 'ID3'"},
             {ape, APE, APE_REST - 1, "tag 'APE'"},
             {"TAG", 3, OLD - 4, "tag 'TAG'"},
             {"ID3\4\0\0\0\0", 8, 0, "tag 'ID3'"},
             {"APETAGEX", 8, 0, "tag 'APE'"},
             {id3, ID3, REST + 1, "no chunk"},
             {id3, ID3, REST + 9, "no chunk"},
             {broken, ID3, 128, "begins as a tag 'ID3' and is none"},
             {"\1\2\3\4\5\6\7\10", 8, 40, "no chunk"},
             {"LIST\4\0\0\0abcd", 12, 0, "'RIFF'"},
             {"RIFF\4\0\0\0WAVE", 12, 0, "'RIFF'"}};
  float got[400];
  for (size_t i = 0; i < sizeof all / sizeof *all; i++)
    for (int known = 0; known < 2; known++)
      for (size_t step = 1; step < 40; step += 12) {
        mn_text file = {0};
        wav_text(&file, 8000, 440, 20, 40);
        mn_text_add_bytes(&file, all[i].begin, (size_t)all[i].n);
        for (int k = 0; k < all[i].zeros; k++) mn_text_add_bytes(&file, "", 1);
        const int64_t n = push_all(&file, known ? (int64_t)file.len : -1, step, got);
        CHECK(all[i].says ? n < 0 && strstr(mn_message(), "s.wav: ") && strstr(mn_message(), all[i].says) : n == 20,
              "%zu, known %d, by %zu: %lld samples: %s", i, known, step, (long long)n, mn_message());
        if (!all[i].says && step == 1) { /* two of them, the last as old players have it */
          mn_text_add_bytes(&file, "TAG", 3);
          for (int k = 0; k < OLD - 3; k++) mn_text_add_bytes(&file, "", 1);
          CHECK(push_all(&file, known ? (int64_t)file.len : -1, 7, got) == 20, "%zu and another: %s", i, mn_message());
        }
        mn_text_free(&file);
      }
}

/* ---- files ---- */
static int64_t read_all(const char *path, mn_frame_format format, const mn_features *f, int64_t C, float *to, int64_t most) {
  mn_frame_reader *r = NULL;
  int64_t n = 0;
  bool got = true;
  mn_status status = mn_frame_reader_open(path, format, f, C, &r);
  while (status == MN_OK && got && n < most) {
    status = mn_frame_reader_next(r, to + n * C, &got);
    n += got;
  }
  mn_frame_reader_close(r);
  return status == MN_OK ? n : -1;
}

enum { BANDS = 20, FRAMES = 60 };

/* Rows of the test split, made of files that the reader reads anew; then the same as lines and as raw samples. */
static void frames_are_those_of_the_training(void) {
  CHECK_OK(mn_make_dirs(test_path("sounds")));
  const double hz[] = {300, 1000, 2500};
  for (int i = 0; i < 12; i++) {
    char name[64];
    snprintf(name, sizeof name, "sounds/%s_%d.wav", (const char *[]){"low", "middle", "top"}[i % 3], i / 3);
    wav_write(test_path(name), 8000, hz[i % 3] + 17 * i, i / 3 == 0 ? 150 : 400 + 210 * (i / 3));
  }
  mn_source *s = open_source("{type: audio, files: ['%s'], test_names: '*_[01].wav', frames: %d, bands: %d, validation: 0}",
                             test_path("sounds/*.wav"), FRAMES, BANDS);
  if (!s) return;
  mn_features *f = features_of(s);
  CHECK(f->labels.count == 3 && !strcmp(f->labels.items[2], "top"), "labels are kept");
  mn_batch b;
  CHECK_OK(mn_batch_new(s, 1, FRAMES, &b));
  for (int i = 0; i < 6; i++) { /* low_0, low_1, middle_0, ... */
    char name[64];
    float got[FRAMES * BANDS], lines[FRAMES * BANDS], raw[FRAMES * BANDS];
    snprintf(name, sizeof name, "sounds/%s_%d.wav", (const char *[]){"low", "middle", "top"}[i / 2], i % 2);
    CHECK_OK(mn_source_fill(s, MN_SPLIT_TEST, i, &b));
    const int32_t length = *(const int32_t *)mn_batch_get(&b, "length");
    const int64_t n = read_all(test_path(name), MN_FRAMES_AUTO, f, BANDS, got, FRAMES);
    CHECK(n == length && !memcmp(got, mn_batch_get(&b, "frames"), (size_t)n * BANDS * sizeof *got), "%s: %lld frames of %d: %s", name,
          (long long)n, (int)length, mn_message());
    /* energies before scaling, and the samples alone */
    mn_wav w;
    mn_mel *mel;
    mn_text text = {0};
    float energy[FRAMES * BANDS];
    CHECK_OK(mn_wav_read(test_path(name), &w));
    CHECK_OK(mn_mel_new(8000, 200, 80, BANDS, 0, 4000, &mel));
    CHECK_OK(mn_mel_run(mel, w.samples, w.n, n, energy));
    for (int64_t k = 0; k < n * BANDS; k++)
      mn_text_addf(&text, "%.9g%s", (double)energy[k], (k + 1) % BANDS ? k % 2 ? ", " : " " : "\r\n\n");
    CHECK_OK(mn_file_write(test_path("energies.csv"), text.data, text.len));
    mn_text_free(&text);
    CHECK_OK(mn_file_write(test_path("samples.f32"), w.samples, (size_t)w.n * sizeof *w.samples));
    CHECK(read_all(test_path("energies.csv"), MN_FRAMES_AUTO, f, BANDS, lines, FRAMES) == n && !memcmp(lines, got, (size_t)n * BANDS * 4),
          "%s as lines: %s", name, mn_message());
    CHECK(read_all(test_path("samples.f32"), MN_FRAMES_F32, f, BANDS, raw, FRAMES) == n && !memcmp(raw, got, (size_t)n * BANDS * 4),
          "%s as raw floats: %s", name, mn_message());
    int16_t *whole = malloc((size_t)w.n * sizeof *whole);
    for (int64_t k = 0; k < w.n; k++) whole[k] = (int16_t)(w.samples[k] * 32768.0f);
    CHECK_OK(mn_file_write(test_path("samples.s16"), whole, (size_t)w.n * sizeof *whole));
    CHECK(read_all(test_path("samples.s16"), MN_FRAMES_S16, f, BANDS, raw, FRAMES) == n && !memcmp(raw, got, (size_t)n * BANDS * 4),
          "%s as raw integers: %s", name, mn_message());
    free(whole);
    mn_wav_free(&w);
    mn_mel_free(mel);
  }
  mn_batch_free(&b);
  mn_source_close(s);
}

static void put(const char *name, const char *text, size_t n) { CHECK_OK(mn_file_write(test_path(name), text, n)); }

static void pictures_are_those_of_the_training(void) {
  enum { H = 4, W = 6, N = 8 };
  char name[64];
  CHECK_OK(mn_make_dirs(test_path("shapes/dark")));
  CHECK_OK(mn_make_dirs(test_path("shapes/light")));
  for (int i = 0; i < N; i++) {
    cairo_surface_t *p = cairo_image_surface_create(CAIRO_FORMAT_RGB24, W, H);
    for (int y = 0; y < H; y++)
      for (int x = 0; x < W; x++) {
        const uint32_t v = (uint32_t)(20 * i + 7 * y + 3 * x + 60 * (i % 2));
        ((uint32_t *)(void *)(cairo_image_surface_get_data(p) + y * cairo_image_surface_get_stride(p)))[x] = v * 0x010101u;
      }
    cairo_surface_mark_dirty(p);
    snprintf(name, sizeof name, "shapes/%s/%d.png", i % 2 ? "light" : "dark", i);
    CHECK(cairo_surface_write_to_png(p, test_path(name)) == CAIRO_STATUS_SUCCESS, "%s", name);
    cairo_surface_destroy(p);
  }
  for (int rows = 0; rows <= H; rows += H) {
    mn_source *s = open_source("{type: images, folder: '%s', test_folder: '%s', channels: 1, validation: 0, rows: %d}", test_path("shapes"),
                               mn_arena_strdup(arena, test_path("shapes")), rows);
    if (!s) continue;
    mn_features *f = features_of(s);
    mn_batch b;
    float got[H * W], lines[H * W];
    CHECK(f->labels.count == 2 && !strcmp(f->labels.items[0], "dark"), "labels are the folders'");
    CHECK_OK(mn_batch_new(s, 1, rows ? H : 1, &b));
    CHECK_OK(mn_source_fill(s, MN_SPLIT_TEST, 5, &b)); /* light/3 */
    if (!rows) CHECK_OK(mn_read_picture(test_path("shapes/light/3.png"), f, got));
    else CHECK(read_all(test_path("shapes/light/3.png"), MN_FRAMES_AUTO, f, W, got, 99) == H, "%s", mn_message());
    CHECK(!memcmp(got, b.data[0], sizeof got), "a picture is the same, rows %d", rows);
    mn_text text = {0};
    for (int k = 0; k < H * W; k++) mn_text_addf(&text, "%d%c", 60 + 60 + 7 * (k / W) + 3 * (k % W), (k + 1) % W ? ',' : '\n');
    put("rows.csv", text.data, text.len);
    mn_text_free(&text);
    if (rows)
      CHECK(read_all(test_path("rows.csv"), MN_FRAMES_AUTO, f, W, lines, 99) == H && !memcmp(lines, got, sizeof got), "lines of bytes");
    cairo_surface_t *p = cairo_image_surface_create(CAIRO_FORMAT_RGB24, W, W);
    CHECK(cairo_surface_write_to_png(p, test_path("square.png")) == CAIRO_STATUS_SUCCESS, "a square");
    cairo_surface_destroy(p);
    CHECK(mn_read_picture(test_path("square.png"), f, got) == MN_ERR_FORMAT && strstr(mn_message(), "square.png: has 6 x 6 pixels") &&
              strstr(mn_message(), "4 x 6"),
          "%s", mn_message());
    CHECK(read_all(test_path("sounds/low_0.wav"), MN_FRAMES_AUTO, f, W, got, 4) < 0 && strstr(mn_message(), "trained on pictures"), "%s",
          mn_message());
    mn_batch_free(&b);
    mn_source_close(s);
  }
}

static void what_cannot_be_read(void) {
  static const struct {
    const char *text, *words;
  } cases[] = {{"1 2 3\n4 5\n", ":2: has 2 numbers"},
               {"1 2 3\n4 5 6 7\n", ":2: has 4 numbers"},
               {"1 2 x\n", ":1: number 3 of the line is 'x'"},
               {"a,b,c\n1,2,3\n", "leave the line out"},
               {"1 2 nan\n", "'nan'"},
               {"1 2 1e99\n", "'1e99'"},
               {"1 2 0x3\n", "'0x3'"},
               {"1,,2,3\n", "number 2 of the line is ''"}};
  float frame[30];
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    put("bad.csv", cases[i].text, strlen(cases[i].text));
    CHECK(read_all(test_path("bad.csv"), MN_FRAMES_AUTO, NULL, 3, frame, 9) < 0 && strstr(mn_message(), "bad.csv") &&
              strstr(mn_message(), cases[i].words),
          "%s: %s", cases[i].text, mn_message());
  }
  put("bad.csv", "1 2 3\n\n  4;5;\t6", 15);
  CHECK(read_all(test_path("bad.csv"), MN_FRAMES_AUTO, NULL, 3, frame, 9) == 2 && frame[5] == 6, "the last line without an end: %s",
        mn_message());
  put("bad.csv",
      "\xef\xbb\xbf"
      "1 2 3\n4 5 7\n",
      15);
  CHECK(read_all(test_path("bad.csv"), MN_FRAMES_AUTO, NULL, 3, frame, 9) == 2 && frame[0] == 1 && frame[5] == 7,
        "behind a byte order mark: %s", mn_message());
  put("bad.csv", "RF64\xff\xff\xff\xffWAVEds64\x1c\0\0\0", 20);
  CHECK(read_all(test_path("bad.csv"), MN_FRAMES_AUTO, NULL, 3, frame, 9) < 0 && strstr(mn_message(), "is a sound"), "%s", mn_message());
  put("bad.csv", "", 0);
  CHECK(read_all(test_path("bad.csv"), MN_FRAMES_AUTO, NULL, 3, frame, 9) < 0 && strstr(mn_message(), "is empty"), "%s", mn_message());
  put("bad.csv", "1 2\0 3\n", 7);
  CHECK(read_all(test_path("bad.csv"), MN_FRAMES_AUTO, NULL, 3, frame, 9) < 0 && strstr(mn_message(), "zero byte"), "%s", mn_message());
  CHECK(read_all(test_path("none.csv"), MN_FRAMES_AUTO, NULL, 3, frame, 9) < 0 && strstr(mn_message(), "none.csv"), "%s", mn_message());
  CHECK(read_all(test_path(""), MN_FRAMES_AUTO, NULL, 3, frame, 9) < 0 && strstr(mn_message(), "directory"), "%s", mn_message());
  CHECK(read_all(test_path("sounds/low_0.wav"), MN_FRAMES_AUTO, NULL, 3, frame, 9) < 0 && strstr(mn_message(), "frames as they are"), "%s",
        mn_message());
  mn_source *s = open_source("{type: audio, files: ['%s'], validation: 0}", test_path("sounds/*.wav"));
  if (!s) return;
  mn_features *f = features_of(s);
  float wide[400];
  wav_write(test_path("fast.wav"), 16000, 440, 400);
  CHECK(read_all(test_path("fast.wav"), MN_FRAMES_AUTO, f, 40, wide, 9) < 0 &&
            strstr(mn_message(), "fast.wav: its field 'rate' says 16000") && strstr(mn_message(), "resample it to 8000"),
        "%s", mn_message());
  put("odd.s16", "abc", 3);
  CHECK(read_all(test_path("odd.s16"), MN_FRAMES_S16, f, 40, wide, 9) < 0 && strstr(mn_message(), "within a sample of 2 bytes"), "%s",
        mn_message());
  put("nan.f32", "\0\0\xc0\x7f", 4);
  CHECK(read_all(test_path("nan.f32"), MN_FRAMES_F32, f, 40, wide, 9) < 0 && strstr(mn_message(), "sample 0 is not a number"), "%s",
        mn_message());
  mn_source_close(s);
}

/* What a file says of a training is checked before it is used. */
static void what_a_model_may_not_say_of_its_training(void) {
  static const char *const bad[][2] = {
      {"{type: audio, rate: 8000, frames: 9, bands: 2, low_hz: 0, high_hz: 4000, band_mean: [0], band_deviation: [1, 1]}", "band_mean"},
      {"{type: audio, rate: 8000, frames: 9, bands: 1, high_hz: 4000, band_mean: [0], band_deviation: [0]}", "band_deviation"},
      {"{type: audio, rate: 8000, frames: 9, bands: 1, high_hz: 5000, band_mean: [0], band_deviation: [1]}", "high_hz"},
      {"{type: audio, rate: 8000, frames: 9, bands: 1, high_hz: 4000, hop_ms: 0.01, band_mean: [0], band_deviation: [1]}", "hop_ms"},
      {"{type: audio, rate: 8000, bands: 1}", "frames"},
      {"{type: images, height: 4, width: 4, channels: 1, deviation: 0}", "deviation"},
      {"{type: images, height: 4, width: 4, channels: 1, bands: 3}", "bands"},
      {"{type: smells}", "type"}};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    const mn_value *v = NULL;
    mn_features f;
    CHECK_OK(mn_yaml_parse(arena, "config.json", bad[i][0], strlen(bad[i][0]), &v));
    CHECK(mn_features_parse(arena, v, &f) == MN_ERR_CONFIG && strstr(mn_message(), bad[i][1]), "%s: %s", bad[i][0], mn_message());
  }
}

int main(void) {
  arena = mn_arena_new();
  test_setup("frame-reader");
  RUN(frames_as_samples_come);
  RUN(a_wav_file_in_pieces_is_the_file);
  RUN(what_lies_about_its_length);
  RUN(what_contradicts_itself);
  RUN(a_padding_byte_counts_or_does_not);
  RUN(what_loses_nothing_is_read);
  RUN(tags_behind_the_end_are_passed_over);
  RUN(frames_are_those_of_the_training);
  RUN(pictures_are_those_of_the_training);
  RUN(what_cannot_be_read);
  RUN(what_a_model_may_not_say_of_its_training);
  test_cleanup();
  mn_arena_free(arena);
  return test_end();
}
