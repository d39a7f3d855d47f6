/* png_palette.c - see png.h. The library that decodes pictures reads colours beyond the palette as black; so the numbers of colours are
 * looked at here, row by row, as the file holds them. */
#define ZLIB_CONST
#include "format/png.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

enum { HEADER = 8 + 8 + 13 + 4, CHUNK = 12, SIDE = 8192, COLOURS = 256 };

typedef struct reader {
  const char *name;
  const uint8_t *p, *end; /* the next chunk */
  z_stream z;
  int depth, colours;
  uint8_t row[2][1 + SIDE]; /* the filter's number, then the row; the other one is the row above it */
} reader;

static uint32_t big(const uint8_t *p) { return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3]; }

/* The next chunk of this type and its size; NULL: there is none. */
static const uint8_t *find(reader *r, const char *type, uint32_t *size) {
  while (r->end - r->p >= CHUNK && (*size = big(r->p)) <= (size_t)(r->end - r->p - CHUNK)) {
    const uint8_t *chunk = r->p;
    r->p += CHUNK + *size;
    if (!memcmp(chunk + 4, type, 4)) return chunk + 8;
  }
  return NULL;
}

static bool take(reader *r, uint8_t *to, size_t n) {
  r->z.next_out = to;
  r->z.avail_out = (uInt)n;
  while (r->z.avail_out) {
    uint32_t size = 0;
    if (!r->z.avail_in && !(r->z.next_in = find(r, "IDAT", &size))) return false;
    if (size) r->z.avail_in = size;
    const int code = inflate(&r->z, Z_NO_FLUSH);
    if (code == Z_STREAM_END) break;
    if (code != Z_OK && code != Z_BUF_ERROR) return false;
  }
  return !r->z.avail_out;
}

/* What the filters of PNG took from each byte comes back: of the byte to the left, of the one above, or of both. */
static bool unfilter(int filter, uint8_t *row, const uint8_t *above, size_t n) {
  if (filter > 4) return false;
  for (size_t i = 0; i < n; i++) {
    const int a = i ? row[i - 1] : 0, b = above[i], c = i ? above[i - 1] : 0;
    const int to_a = b > c ? b - c : c - b, to_b = a > c ? a - c : c - a, to_c = a + b > 2 * c ? a + b - 2 * c : 2 * c - a - b;
    const int nearest = to_a <= to_b && to_a <= to_c ? a : to_b <= to_c ? b : c;
    const int added[] = {0, a, b, (a + b) / 2, nearest};
    row[i] = (uint8_t)(row[i] + added[filter]);
  }
  return true;
}

static mn_status check_row(const reader *r, const uint8_t *row, int64_t width, int64_t y) {
  for (int64_t x = 0; x < width; x++) {
    const int64_t bit = x * r->depth;
    const int colour = row[bit / 8] >> (8 - r->depth - bit % 8) & ((1 << r->depth) - 1);
    if (colour >= r->colours)
      return mn_fail(MN_ERR_FORMAT, "%s: row %lld has colour %d, and its palette ('PLTE') has %d; it is damaged: get it again", r->name,
                     (long long)y + 1, colour, r->colours);
  }
  return MN_OK;
}

typedef struct pass { /* of an interlaced picture: its pixels from (x, y), every dx of every dy-th row */
  int x, y, dx, dy;
} pass;

static mn_status check_pass(reader *r, int64_t width, int64_t height, pass p) {
  const int64_t w = (width - p.x + p.dx - 1) / p.dx;
  const size_t bytes = (size_t)(w * r->depth + 7) / 8;
  if (w <= 0) return MN_OK;
  memset(r->row, 0, sizeof r->row);
  for (int64_t y = p.y, k = 0; y < height; y += p.dy, k = !k) {
    if (!take(r, r->row[k], 1 + bytes) || !unfilter(r->row[k][0], r->row[k] + 1, r->row[!k] + 1, bytes))
      return mn_fail(MN_ERR_FORMAT, "%s: is damaged at row %lld; get it again", r->name, (long long)y + 1);
    MN_TRY(check_row(r, r->row[k] + 1, w, y));
  }
  return MN_OK;
}

mn_status mn_png_check_palette(const char *name, const void *data, size_t n) {
  static const pass passes[] = {{0, 0, 1, 1}, {0, 0, 8, 8}, {4, 0, 8, 8}, {0, 4, 4, 8},
                                {2, 0, 4, 4}, {0, 2, 2, 4}, {1, 0, 2, 2}, {0, 1, 1, 2}};
  const uint8_t *head = data;
  uint32_t size = 0;
  if (n < HEADER || head[25] != 3) return MN_OK;
  const int64_t width = big(head + 16), height = big(head + 20);
  const int depth = head[24];
  const bool interlaced = head[28];
  if (depth < 1 || depth > 8 || width > SIDE) return mn_fail(MN_ERR_FORMAT, "%s: has %d bits a colour of a palette", name, depth);
  reader *r = mn_calloc(1, sizeof *r);
  if (!r) return MN_ERR_MEMORY;
  *r = (reader){.name = name, .p = head + 8, .end = head + n, .depth = depth};
  r->colours = find(r, "PLTE", &size) ? (int)(size / 3) : 0;
  mn_status status = MN_OK;
  if (r->colours < 1 << depth) {
    status = inflateInit(&r->z) == Z_OK ? MN_OK : MN_ERR_MEMORY;
    for (int i = interlaced; status == MN_OK && i < (interlaced ? 8 : 1); i++) status = check_pass(r, width, height, passes[i]);
    inflateEnd(&r->z);
  }
  free(r);
  return status;
}
