/* Any bytes as a GGUF file: refused, or every tensor lies inside the file and every value can be read, shown and looked up. */
#include "format/gguf.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_value(const mn_gguf *g, const char *key, mn_arena *a) {
  uint32_t u;
  uint64_t w;
  int64_t i;
  float f;
  bool b;
  size_t n;
  const char *s;
  const int64_t *ints;
  const float *floats;
  const mn_gguf_bytes *strings;
  (void)mn_gguf_u32(g, key, NULL, &u);
  (void)mn_gguf_u64(g, key, NULL, &w);
  (void)mn_gguf_i64(g, key, NULL, &i);
  (void)mn_gguf_f32(g, key, NULL, &f);
  (void)mn_gguf_bool(g, key, NULL, &b);
  if (mn_gguf_string(g, key, NULL, a, &s) == MN_OK && strlen(s) != mn_gguf_meta_find(g, key)->bytes) abort();
  (void)mn_gguf_ints(g, key, a, &ints, &n);
  (void)mn_gguf_floats(g, key, a, &floats, &n);
  volatile char sum = 0;
  if (mn_gguf_strings(g, key, a, &strings, &n) == MN_OK)
    for (size_t k = 0; k < n; k++)
      for (size_t c = 0; c < strings[k].n; c++) sum = (char)(sum + strings[k].data[c]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  mn_gguf *g;
  if (mn_gguf_open_bytes("fuzz", data, size, &g) != MN_OK) {
    if (g || !*mn_message()) abort();
    return 0;
  }
  size_t covered = 0;
  for (int i = 0; i < mn_gguf_count(g); i++) {
    const mn_gguf_tensor *t = mn_gguf_at(g, i);
    const uint8_t *p = t->data;
    if (p < data || p > data + size || t->bytes > (size_t)(data + size - p)) abort();
    if (mn_gguf_find(g, t->name) != t) abort();
    if ((size_t)mn_shape_count(&t->shape) / (size_t)t->type->block * (size_t)t->type->bytes != t->bytes) abort();
    covered += t->bytes;
    (void)mn_gguf_check(g, t);
  }
  if (covered > size) abort();
  mn_arena *a = mn_arena_new();
  for (int i = 0; i < mn_gguf_meta_count(g); i++) {
    const mn_gguf_meta *m = mn_gguf_meta_at(g, i);
    mn_text shown = {0};
    if (mn_gguf_meta_find(g, m->key) != m) abort();
    read_value(g, m->key, a);
    mn_gguf_meta_show(m, 4, 20, &shown);
    mn_text_free(&shown);
  }
  mn_arena_free(a);
  mn_gguf_close(g);
  return 0;
}
