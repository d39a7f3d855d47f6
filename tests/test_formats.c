/* test_formats.c - tables, IDX arrays, pictures and sounds from outside: what is whole is read to the last value, and what is cut
 * short, lies about its size, is of another kind or holds NaN is refused by name. */
#include <cairo.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "format/csv.h"
#include "format/idx.h"
#include "format/png.h"
#include "format/wav.h"
#include "test.h"

/* ---- CSV ---- */

static mn_csv *table(const char *text, bool header) {
  mn_csv *c = NULL;
  CHECK_OK(mn_csv_parse("t.csv", text, strlen(text), header, &c));
  return c;
}

static void test_csv_is_read(void) {
  mn_csv *c = table("\xef\xbb\xbf"
                    "date,\"a \"\"b\"\", c\",x\r\n2016-07-01,1.5,-2e3\r\n\r\n2016-07-02,\"7\", 8 \n",
                    true);
  double v = 0;
  CHECK(c && mn_csv_rows(c) == 2 && mn_csv_columns(c) == 3, "rows and columns");
  if (!c) return;
  CHECK(!strcmp(mn_csv_name(c, 1), "a \"b\", c") && mn_csv_find(c, "x") == 2 && mn_csv_find(c, "y") == -1, "names");
  CHECK(!mn_csv_is_number(c, 0, 0) && mn_csv_is_number(c, 0, 1), "dates are no numbers");
  CHECK(mn_csv_number(c, 0, 2, &v) == MN_OK && v == -2000, "%g", v);
  CHECK(mn_csv_number(c, 1, 1, &v) == MN_OK && v == 7, "a number in quotes");
  CHECK(mn_csv_number(c, 1, 2, &v) == MN_OK && v == 8, "blanks around a number");
  mn_csv_free(c);
  c = table("1,2\n3,4", false);
  CHECK(c && mn_csv_rows(c) == 2 && !strcmp(mn_csv_name(c, 1), "2") && mn_csv_number(c, 1, 1, &v) == MN_OK && v == 4,
        "no header, no last newline");
  mn_csv_free(c);
}

static void test_csv_is_refused(void) {
  static const struct {
    const char *text, *part;
  } bad[] = {{"", "no row"},
             {"a,b\n", "no row"},
             {"a,b\n1,2\n3\n", "t.csv:3: has 1 columns"},
             {"a,b\n1,2,3\n", "t.csv:2: has 3 columns"},
             {"a\n\"open\n", "t.csv:2: a quote"},
             {"a\n\"1\"\r2\n", "t.csv:2: there is something between"},
             {"a\n\"x\"y\n", "between a quote"}};
  mn_csv *c;
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    CHECK(mn_csv_parse("t.csv", bad[i].text, strlen(bad[i].text), true, &c) == MN_ERR_FORMAT && !c && strstr(mn_message(), bad[i].part),
          "%s: %s", bad[i].text, mn_message());
  CHECK(mn_csv_parse("t.csv", "a\n1\0002\n", 6, true, &c) == MN_ERR_FORMAT && strstr(mn_message(), "zero byte"), "%s", mn_message());
  static const char *const cells[] = {"nan", "inf", "-Infinity", "0x10", "1e999", "", "1.2.3", "12a"};
  for (size_t i = 0; i < sizeof cells / sizeof *cells; i++) {
    char text[64];
    double v;
    snprintf(text, sizeof text, "a,b\n1,2\n\"%s\",4\n", cells[i]);
    c = table(text, true);
    CHECK(c && mn_csv_number(c, 1, 0, &v) == MN_ERR_FORMAT && strstr(mn_message(), "t.csv:3: column a"), "%s: %s", cells[i], mn_message());
    mn_csv_free(c);
  }
}

/* ---- IDX ---- */

static size_t pack(const uint8_t *in, size_t n, uint8_t *out, size_t cap) {
  z_stream z = {.next_in = (Bytef *)(uintptr_t)in, .avail_in = (uInt)n, .next_out = out, .avail_out = (uInt)cap};
  deflateInit2(&z, 9, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);
  deflate(&z, Z_FINISH);
  deflateEnd(&z);
  return cap - z.avail_out;
}

static void test_idx(void) {
  uint8_t file[16 + 24] = {0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4}, zipped[400], longer[64];
  for (int i = 0; i < 24; i++) file[16 + i] = (uint8_t)(10 * i);
  size_t n = sizeof file, z = pack(file, n, zipped, sizeof zipped);
  mn_idx x;
  for (int packed = 0; packed < 2; packed++) {
    CHECK_OK(mn_idx_parse("i.idx", packed ? zipped : file, packed ? z : n, &x));
    CHECK(x.ndim == 3 && x.dim[0] == 2 && x.dim[1] == 3 && x.dim[2] == 4 && x.data && x.data[23] == 230, "sizes and data, packed %d",
          packed);
    mn_idx_free(&x);
  }
  for (size_t k = 0; k < n; k++)
    CHECK(mn_idx_parse("i.idx", file, k, &x) == MN_ERR_FORMAT && !x.data && strstr(mn_message(), "i.idx"), "cut to %zu", k);
  for (size_t k = 2; k < z; k++)
    CHECK(mn_idx_parse("i.gz", zipped, k, &x) == MN_ERR_FORMAT && !x.data && !strstr(mn_message(), "goes on"), "packed, cut to %zu: %s", k,
          mn_message());
  CHECK(strstr(mn_message(), "cut short") && strstr(mn_message(), "get the whole file again"), "what helps: %s", mn_message());
  CHECK(mn_idx_parse("i.idx", file, n - 1, &x) == MN_ERR_FORMAT && strstr(mn_message(), "23 are there") &&
            strstr(mn_message(), "get the whole file again"),
        "%s", mn_message());
  memcpy(longer, file, n);
  longer[n] = 1;
  CHECK(mn_idx_parse("i.idx", longer, n + 1, &x) == MN_ERR_FORMAT && strstr(mn_message(), "goes on behind the 24"), "%s", mn_message());
  memset(zipped + z, 0, 3); /* behind the stream, whatever it is */
  CHECK(mn_idx_parse("i.gz", zipped, z + 3, &x) == MN_ERR_FORMAT && !x.data &&
            strstr(mn_message(), "goes on behind its compressed data by 3"),
        "%s", mn_message());
  uint8_t members[2 * sizeof zipped]; /* a file of two, one behind the other (RFC 1952) */
  const size_t half = pack(file, 20, members, sizeof zipped), whole = half + pack(file + 20, n - 20, members + half, sizeof zipped);
  CHECK_OK(mn_idx_parse("two.gz", members, whole, &x));
  CHECK(x.data && x.data[3] == 30 && x.data[4] == 40 && x.data[23] == 230, "both");
  mn_idx_free(&x);
  CHECK(mn_idx_parse("two.gz", members, half, &x) == MN_ERR_FORMAT && strstr(mn_message(), "cut short"), "%s", mn_message());
  CHECK(mn_idx_parse("two.gz", members, whole - 9, &x) == MN_ERR_FORMAT && strstr(mn_message(), "cut short"), "%s", mn_message());
  size_t more = pack(longer, n + 1, zipped, sizeof zipped);
  CHECK(mn_idx_parse("i.gz", zipped, more, &x) == MN_ERR_FORMAT && strstr(mn_message(), "goes on"), "%s", mn_message());
  file[4] = 0x7f; /* two thousand million pictures */
  CHECK(mn_idx_parse("i.idx", file, n, &x) == MN_ERR_FORMAT && strstr(mn_message(), "2 GiB"), "%s", mn_message());
  file[4] = 0, file[5] = 0x7f;
  z = pack(file, n, zipped, sizeof zipped);
  CHECK(mn_idx_parse("i.gz", zipped, z, &x) == MN_ERR_FORMAT && strstr(mn_message(), "cannot"), "a lie is not believed: %s", mn_message());
  file[5] = 0, file[2] = 0x0d;
  CHECK(mn_idx_parse("i.idx", file, n, &x) == MN_ERR_FORMAT && strstr(mn_message(), "0x0d"), "%s", mn_message());
  file[2] = 8, file[3] = 9;
  CHECK(mn_idx_parse("i.idx", file, n, &x) == MN_ERR_FORMAT && strstr(mn_message(), "9 axes"), "%s", mn_message());
}

/* ---- PNG ---- */

typedef struct made {
  uint8_t data[4096];
  size_t n;
} made;
static cairo_status_t collect(void *ctx, const unsigned char *data, unsigned int n) {
  made *m = ctx;
  if (m->n + n > sizeof m->data) return CAIRO_STATUS_WRITE_ERROR;
  memcpy(m->data + m->n, data, n);
  m->n += n;
  return CAIRO_STATUS_SUCCESS;
}

static void test_png(void) {
  made m = {.n = 0};
  cairo_surface_t *s = cairo_image_surface_create(CAIRO_FORMAT_RGB24, 5, 3);
  uint32_t *pixel = (uint32_t *)(void *)cairo_image_surface_get_data(s);
  int stride = cairo_image_surface_get_stride(s) / 4;
  for (int y = 0; y < 3; y++)
    for (int x = 0; x < 5; x++) pixel[y * stride + x] = (uint32_t)(10 * x) << 16 | (uint32_t)(20 * y) << 8 | 7;
  cairo_surface_mark_dirty(s);
  cairo_surface_write_to_png_stream(s, collect, &m);
  cairo_surface_destroy(s);
  mn_png p;
  CHECK_OK(mn_png_parse("p.png", m.data, m.n, 0, &p));
  CHECK(p.width == 5 && p.height == 3 && p.channels == 3, "%lld x %lld x %lld", (long long)p.width, (long long)p.height,
        (long long)p.channels);
  if (p.data) CHECK(p.data[(2 * 5 + 4) * 3] == 40 && p.data[(2 * 5 + 4) * 3 + 1] == 40 && p.data[(2 * 5 + 4) * 3 + 2] == 7, "pixels");
  mn_png_free(&p);
  CHECK_OK(mn_png_parse("p.png", m.data, m.n, 1, &p));
  if (p.data) CHECK(p.channels == 1 && p.data[2 * 5 + 4] == (299 * 40 + 587 * 40 + 114 * 7 + 500) / 1000, "grey %d", p.data[14]);
  mn_png_free(&p);
  for (size_t k = 0; k + 12 < m.n; k++) /* the last chunk says only that it ends */
    CHECK(mn_png_parse("p.png", m.data, k, 0, &p) == MN_ERR_FORMAT && !p.data && strstr(mn_message(), "p.png"), "cut to %zu of %zu", k,
          m.n);
  CHECK(mn_png_parse("p.png", m.data, m.n - 20, 0, &p) == MN_ERR_FORMAT && strstr(mn_message(), "5 x 3 pixels") &&
            strstr(mn_message(), "get it again"),
        "%s", mn_message());
  made lie = m;
  lie.data[16] = 0x7f;
  CHECK(mn_png_parse("p.png", lie.data, lie.n, 0, &p) == MN_ERR_FORMAT && strstr(mn_message(), "pixels"), "%s", mn_message());
  lie = m;
  lie.data[18] = 0x1f, lie.data[22] = 0x1f; /* 7,941 x 7,939 pixels in a few bytes */
  CHECK(mn_png_parse("p.png", lie.data, lie.n, 0, &p) == MN_ERR_FORMAT && strstr(mn_message(), "cannot hold"), "%s", mn_message());
}

static void png_chunk(made *m, const char *type, const void *data, size_t n) {
  uint8_t *to = m->data + m->n;
  CHECK(m->n + 12 + n <= sizeof m->data, "room");
  for (int i = 0; i < 4; i++) to[i] = (uint8_t)(n >> (24 - 8 * i));
  memcpy(to + 4, type, 4);
  if (n) memcpy(to + 8, data, n);
  const uLong sum = crc32(0, to + 4, (uInt)n + 4);
  for (int i = 0; i < 4; i++) to[8 + n + (size_t)i] = (uint8_t)(sum >> (24 - 8 * i));
  m->n += 12 + n;
}

static uint8_t colour_at(int x, int y, int colours) { return (uint8_t)((3 * x + 5 * y + x * y) % colours); }

/* A picture of a palette, 13 x 11, whose rows have filters in turn. Pixel (bad_x, bad_y) has the colour one behind the palette's last. */
static void put_palette(made *m, int depth, bool interlaced, int colours, int bad_x, int bad_y) {
  enum { W = 13, H = 11 };
  static const int passes[8][4] = {{0, 0, 1, 1}, {0, 0, 8, 8}, {4, 0, 8, 8}, {0, 4, 4, 8},
                                   {2, 0, 4, 4}, {0, 2, 2, 4}, {1, 0, 2, 2}, {0, 1, 1, 2}};
  uint8_t raw[2048] = {0}, packed[2048], palette[256 * 3];
  size_t n = 0;
  for (int i = interlaced; i < (interlaced ? 8 : 1); i++) {
    const int *p = passes[i], w = (W - p[0] + p[2] - 1) / p[2];
    const size_t bytes = (size_t)(w * depth + 7) / 8;
    uint8_t row[2][1 + W] = {{0}};
    for (int y = p[1], k = 0; y < H; y += p[3], k = !k) {
      memset(row[k], 0, sizeof row[k]);
      for (int x = 0; x < w; x++) {
        const int at_x = p[0] + x * p[2], colour = at_x == bad_x && y == bad_y ? colours : colour_at(at_x, y, colours);
        row[k][1 + x * depth / 8] |= (uint8_t)(colour << (8 - depth - x * depth % 8));
      }
      raw[n++] = (uint8_t)(y % 5);
      for (size_t b = 1; b <= bytes; b++) {
        const int left = b > 1 ? row[k][b - 1] : 0, up = row[!k][b], corner = b > 1 ? row[!k][b - 1] : 0, far = left + up - corner;
        const int nearest = abs(far - left) <= abs(far - up) && abs(far - left) <= abs(far - corner) ? left
                            : abs(far - up) <= abs(far - corner)                                     ? up
                                                                                                     : corner;
        const int taken[] = {0, left, up, (left + up) / 2, nearest};
        raw[n++] = (uint8_t)(row[k][b] - taken[y % 5]);
      }
    }
  }
  uLongf length = sizeof packed;
  CHECK(compress(packed, &length, raw, n) == Z_OK, "packed");
  for (int i = 0; i < 3 * colours; i++) palette[i] = (uint8_t)(40 + i);
  const uint8_t head[13] = {0, 0, 0, W, 0, 0, 0, H, (uint8_t)depth, 3, 0, 0, interlaced};
  *m = (made){.data = "\x89PNG\r\n\x1a\n", .n = 8};
  png_chunk(m, "IHDR", head, sizeof head);
  png_chunk(m, "PLTE", palette, 3 * (size_t)colours);
  png_chunk(m, "IDAT", packed, length / 2); /* in pieces, one of them empty */
  png_chunk(m, "IDAT", NULL, 0);
  png_chunk(m, "IDAT", packed + length / 2, length - length / 2);
  png_chunk(m, "IEND", NULL, 0);
}

/* Every colour that the palette has is read as it is there; one behind it is no black. */
static void test_png_palette(void) {
  static const int depths[][2] = {{1, 1}, {2, 3}, {4, 11}, {8, 200}, {1, 2}, {8, 255}, {4, 16}};
  mn_png p;
  made m;
  for (size_t i = 0; i < sizeof depths / sizeof *depths; i++)
    for (int interlaced = 0; interlaced < 2; interlaced++) {
      const int depth = depths[i][0], colours = depths[i][1];
      put_palette(&m, depth, interlaced, colours, -1, -1);
      CHECK_OK(mn_png_parse("p.png", m.data, m.n, 3, &p));
      int wrong = 0;
      for (int k = 0; p.data && k < 13 * 11; k++) wrong += p.data[3 * k] != (uint8_t)(40 + 3 * colour_at(k % 13, k / 13, colours));
      CHECK(p.data && !wrong, "%d bits of %d colours: %d pixels are others", depth, colours, wrong);
      mn_png_free(&p);
      for (int bad = 0; bad < 13 * 11 && colours < 1 << depth; bad += 17) {
        char row[64];
        snprintf(row, sizeof row, "p.png: row %d has colour %d,", bad / 13 + 1, colours);
        put_palette(&m, depth, interlaced, colours, bad % 13, bad / 13);
        CHECK(mn_png_parse("p.png", m.data, m.n, 3, &p) == MN_ERR_FORMAT && strstr(mn_message(), row) && !p.data, "%d bits, %s %s", depth,
              row, mn_message());
      }
    }
}

/* ---- WAV ---- */

static size_t wav(uint8_t *out, int coding, int channels, int bits, const void *data, size_t bytes) {
  uint8_t head[44] = "RIFF....WAVEfmt \x10\0\0\0";
  uint32_t rate = 8000, frame = (uint32_t)(channels * bits / 8), sizes[] = {36 + (uint32_t)bytes, rate * frame};
  memcpy(head + 4, &sizes[0], 4);
  head[20] = (uint8_t)coding, head[22] = (uint8_t)channels, head[34] = (uint8_t)bits, head[32] = (uint8_t)frame;
  memcpy(head + 24, &rate, 4);
  memcpy(head + 28, &sizes[1], 4);
  memcpy(head + 36, "data", 4);
  uint32_t n = (uint32_t)bytes;
  memcpy(head + 40, &n, 4);
  memcpy(out, head, 44);
  memcpy(out + 44, data, bytes);
  return 44 + bytes;
}

static void test_wav(void) {
  uint8_t file[256];
  mn_wav w;
  const int16_t stereo[] = {16384, -16384, 32767, 32767, -32768, 0};
  size_t n = wav(file, 1, 2, 16, stereo, sizeof stereo);
  CHECK_OK(mn_wav_parse("s.wav", file, n, &w));
  CHECK(w.rate == 8000 && w.channels == 2 && w.n == 3 && w.samples && w.samples[0] == 0 && w.samples[2] == -0.5f,
        "two channels are averaged");
  mn_wav_free(&w);
  for (size_t k = 0; k < n; k++)
    CHECK(mn_wav_parse("s.wav", file, k, &w) == MN_ERR_FORMAT && !w.samples && strstr(mn_message(), "s.wav"), "cut to %zu", k);
  static const uint8_t bytes[] = {0, 128, 255}, three[] = {0, 0, 0x40, 0, 0, 0x80};
  CHECK_OK(mn_wav_parse("s.wav", file, wav(file, 1, 1, 8, bytes, 3), &w));
  CHECK(w.n == 3 && w.samples[0] == -1 && w.samples[1] == 0, "8 bits");
  mn_wav_free(&w);
  CHECK_OK(mn_wav_parse("s.wav", file, wav(file, 1, 1, 24, three, 6), &w));
  CHECK(w.n == 2 && w.samples[0] == 0.5f && w.samples[1] == -1, "24 bits: %g %g", (double)w.samples[0], (double)w.samples[1]);
  mn_wav_free(&w);
  float numbers[] = {0.25f, -1.5f};
  CHECK_OK(mn_wav_parse("s.wav", file, wav(file, 3, 1, 32, numbers, 8), &w));
  CHECK(w.n == 2 && w.samples[1] == -1.5f, "floats");
  mn_wav_free(&w);
  numbers[1] = (float)NAN;
  CHECK(mn_wav_parse("s.wav", file, wav(file, 3, 1, 32, numbers, 8), &w) == MN_ERR_FORMAT && strstr(mn_message(), "sample 1"), "%s",
        mn_message());
  CHECK(mn_wav_parse("s.wav", file, wav(file, 2, 1, 4, bytes, 3), &w) == MN_ERR_FORMAT && strstr(mn_message(), "coded as 2"), "%s",
        mn_message());
  CHECK(mn_wav_parse("s.wav", file, wav(file, 1, 2, 16, stereo, 6), &w) == MN_ERR_FORMAT && strstr(mn_message(), "within a frame"), "%s",
        mn_message());
  n = wav(file, 1, 0, 16, stereo, 4);
  CHECK(mn_wav_parse("s.wav", file, n, &w) == MN_ERR_FORMAT && strstr(mn_message(), "0 channels"), "%s", mn_message());
  n = wav(file, 1, 1, 16, stereo, 4);
  file[32] = 4;
  CHECK(mn_wav_parse("s.wav", file, n, &w) == MN_ERR_FORMAT && strstr(mn_message(), "says that a frame"), "%s", mn_message());
}

/* The coding of an extensible file is a number behind which a fixed end stands; another end is another coding. */
static void test_wav_extensible(void) {
  uint8_t file[] = "RIFF\x40\0\0\0WAVEfmt \x28\0\0\0\xfe\xff\1\0\x40\x1f\0\0\x80\x3e\0\0\2\0\x10\0\x16\0\x10\0\4\0\0\0"
                   "\1\0\0\0\0\0\x10\0\x80\0\0\xaa\0\x38\x9b\x71"
                   "data\4\0\0\0\0\x40\0\x80";
  const size_t n = sizeof file - 1;
  mn_wav w;
  CHECK_OK(mn_wav_parse("s.wav", file, n, &w));
  CHECK(w.n == 2 && w.samples[0] == 0.5f && w.samples[1] == -1, "%lld samples", (long long)w.n);
  mn_wav_free(&w);
  file[38] = 17; /* bits that are used */
  CHECK(mn_wav_parse("s.wav", file, n, &w) == MN_ERR_FORMAT && strstr(mn_message(), "17 of 16 bits"), "%s", mn_message());
  file[38] = 16, file[50] = 0x21;
  CHECK(mn_wav_parse("s.wav", file, n, &w) == MN_ERR_FORMAT && strstr(mn_message(), "of somebody's own"), "%s", mn_message());
}

int main(void) {
  RUN(test_csv_is_read);
  RUN(test_csv_is_refused);
  RUN(test_idx);
  RUN(test_png);
  RUN(test_png_palette);
  RUN(test_wav);
  RUN(test_wav_extensible);
  return test_end();
}
