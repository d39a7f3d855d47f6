/* png.h - pictures from PNG files, as bytes. The size that the file says is looked at before anything is decoded. */
#ifndef MN_PNG_H
#define MN_PNG_H

#include "base/base.h"

typedef struct mn_png {
  int64_t width, height,
      channels; /* 1: grey; 3: red, green, blue. What is transparent is black; more than 8 bits a channel are refused where cairo gives floats */
  uint8_t *data; /* [height, width, channels] */
} mn_png;

/* At most 8192 pixels a side. channels 0: as the file; 1 or 3: converted to that. Free with mn_png_free. */
mn_status mn_png_read(const char *path, int channels, mn_png *out);
mn_status mn_png_parse(const char *name, const void *bytes, size_t n, int channels, mn_png *out);
void mn_png_free(mn_png *p);
/* Of a picture of a palette, which could be decoded: MN_ERR_FORMAT names the row with a colour that the palette has not. */
mn_status mn_png_check_palette(const char *name, const void *bytes, size_t n);

#endif
