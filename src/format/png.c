/* png.c - see png.h. cairo decodes; it gives red, green and blue for every picture, so the header says what the file held. */
#include "format/png.h"

#include <cairo.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"

enum { SIDE = 8192, HEADER = 8 + 8 + 13 + 4 };

typedef struct bytes {
  const uint8_t *data;
  size_t n, at;
} bytes;

static cairo_status_t feed(void *ctx, unsigned char *out, unsigned int n) {
  bytes *b = ctx;
  if (n > b->n - b->at) return CAIRO_STATUS_READ_ERROR;
  memcpy(out, b->data + b->at, n);
  b->at += n;
  return CAIRO_STATUS_SUCCESS;
}

static uint32_t big(const uint8_t *p) { return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3]; }

static mn_status look(const char *name, const uint8_t *p, size_t n, mn_png *out) {
  static const uint8_t signature[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
  if (n < HEADER || memcmp(p, signature, 8) || memcmp(p + 12, "IHDR", 4) || big(p + 8) != 13)
    return mn_fail(MN_ERR_FORMAT, "%s: is no PNG file", name);
  out->width = big(p + 16);
  out->height = big(p + 20);
  int color = p[25];
  if (out->width < 1 || out->height < 1 || out->width > SIDE || out->height > SIDE)
    return mn_fail(MN_ERR_FORMAT, "%s: says that it has %lld x %lld pixels; 1 to %d a side are read", name, (long long)out->width,
                   (long long)out->height, SIDE);
  /* deflate packs at most 1032 to 1, and a pixel has a bit at least */
  if ((size_t)out->width * (size_t)out->height / 8 / 1100 > n)
    return mn_fail(MN_ERR_FORMAT, "%s: says that it has %lld x %lld pixels, which its %zu bytes cannot hold", name, (long long)out->width,
                   (long long)out->height, n);
  out->channels = color == 0 || color == 4 ? 1 : 3;
  return MN_OK;
}

/* Grey is what the eye weighs (ITU-R BT.601) where the file has colours, and one of three equals where it has none. */
static void copy_pixels(cairo_surface_t *s, mn_png *out, bool grey_file) {
  const uint8_t *from = cairo_image_surface_get_data(s);
  int stride = cairo_image_surface_get_stride(s);
  for (int64_t y = 0; y < out->height; y++)
    for (int64_t x = 0; x < out->width; x++) {
      uint32_t pixel;
      memcpy(&pixel, from + y * stride + 4 * x, 4);
      uint32_t r = pixel >> 16 & 255, g = pixel >> 8 & 255, b = pixel & 255;
      uint8_t *to = out->data + (y * out->width + x) * out->channels;
      if (out->channels == 1) to[0] = (uint8_t)(grey_file ? r : (299 * r + 587 * g + 114 * b + 500) / 1000);
      else to[0] = (uint8_t)r, to[1] = (uint8_t)g, to[2] = (uint8_t)b;
    }
}

mn_status mn_png_parse(const char *name, const void *data, size_t n, int channels, mn_png *out) {
  bytes b = {data, n, 0};
  *out = (mn_png){0};
  MN_TRY(look(name, data, n, out));
  bool grey = out->channels == 1;
  if (channels) out->channels = channels;
  cairo_surface_t *s = cairo_image_surface_create_from_png_stream(feed, &b);
  mn_status status = MN_OK;
  cairo_format_t format = cairo_image_surface_get_format(s);
  if (cairo_surface_status(s) != CAIRO_STATUS_SUCCESS)
    status = mn_fail(MN_ERR_FORMAT, "%s: is damaged or cut short (its %zu bytes do not unpack to %lld x %lld pixels); get it again", name,
                     n, (long long)out->width, (long long)out->height);
  else if ((format != CAIRO_FORMAT_RGB24 && format != CAIRO_FORMAT_ARGB32) || cairo_image_surface_get_width(s) != out->width ||
           cairo_image_surface_get_height(s) != out->height)
    status = mn_fail(MN_ERR_FORMAT, "%s: holds pixels that are not read (more than 8 bits a channel)", name);
  if (status == MN_OK) status = mn_png_check_palette(name, data, n);
  if (status == MN_OK) {
    cairo_surface_flush(s);
    out->data = mn_alloc((size_t)(out->width * out->height * out->channels));
    if (out->data) copy_pixels(s, out, grey);
    else status = MN_ERR_MEMORY;
  }
  cairo_surface_destroy(s);
  if (status != MN_OK) mn_png_free(out);
  return status;
}

mn_status mn_png_read(const char *path, int channels, mn_png *out) {
  char *data;
  size_t n;
  *out = (mn_png){0};
  MN_TRY(mn_file_read(path, (size_t)256 << 20, &data, &n));
  mn_status status = mn_png_parse(path, data, n, channels, out);
  free(data);
  return status;
}

void mn_png_free(mn_png *p) {
  free(p->data);
  *p = (mn_png){0};
}
