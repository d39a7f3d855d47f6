/* gguf_bytes.h - GGUF files made by hand, field after field, so that tests can make wrong ones. */
#ifndef MN_GGUF_BYTES_H
#define MN_GGUF_BYTES_H

#include "base/text.h"
#include "format/gguf.h"

#include <stdlib.h>
#include <string.h>

static inline void put8(mn_text *t, uint8_t v) { mn_text_add_bytes(t, &v, 1); }
static inline void put32(mn_text *t, uint32_t v) { mn_text_add_bytes(t, &v, 4); }
static inline void put64(mn_text *t, uint64_t v) { mn_text_add_bytes(t, &v, 8); }

static inline void put_bytes(mn_text *t, const void *s, size_t n) {
  put64(t, n);
  mn_text_add_bytes(t, s, n);
}
static inline void put_string(mn_text *t, const char *s) { put_bytes(t, s, strlen(s)); }

static inline void put_header(mn_text *t, uint32_t version, uint64_t tensors, uint64_t metas) {
  mn_text_add_bytes(t, "GGUF", 4);
  put32(t, version);
  put64(t, tensors);
  put64(t, metas);
}

static inline void put_key(mn_text *t, const char *key, uint32_t kind) {
  put_string(t, key);
  put32(t, kind);
}

static inline void put_array(mn_text *t, const char *key, uint32_t of, uint64_t n) {
  put_key(t, key, MN_GGUF_ARRAY);
  put32(t, of);
  put64(t, n);
}

/* Dimensions as the file has them, the fastest first. */
static inline void put_tensor(mn_text *t, const char *name, uint32_t ndim, const uint64_t *dims, uint32_t type, uint64_t offset) {
  put_string(t, name);
  put32(t, ndim);
  for (uint32_t i = 0; i < ndim; i++) put64(t, dims[i]);
  put32(t, type);
  put64(t, offset);
}

static inline void put_padding(mn_text *t, size_t to) {
  while (t->len % to) put8(t, 0);
}

/* Opens a copy that is exactly as large as what was put, so that a sanitizer sees every byte read beyond it; NULL: refused. The
 * bytes go to *bytes (free() them after the file is closed). */
static inline mn_gguf *open_copy(const char *data, size_t n, void **bytes) {
  mn_gguf *g = NULL;
  *bytes = malloc(n ? n : 1);
  if (n) memcpy(*bytes, data, n);
  mn_status status = mn_gguf_open_bytes("bad.gguf", *bytes, n, &g);
  if ((status == MN_OK) != (g != NULL)) abort();
  if (!g) {
    free(*bytes);
    *bytes = NULL;
  }
  return g;
}

#endif
