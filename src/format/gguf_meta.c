/* gguf_meta.c - values of the metadata as the type that is wanted. The entries were checked when the file was opened; lengths
 * inside of them are checked again, for a file may be written to while it is mapped. */
#include "format/gguf.h"

#include "format/gguf_internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool is_int(mn_gguf_kind kind) { return kind <= MN_GGUF_INT32 || kind == MN_GGUF_UINT64 || kind == MN_GGUF_INT64; }
static bool is_float(mn_gguf_kind kind) { return kind == MN_GGUF_FLOAT32 || kind == MN_GGUF_FLOAT64; }

/* ---- one value at p ---- */

/* An integer or a truth value: its low 64 bits, and whether it is below zero. */
static uint64_t load_int(mn_gguf_kind kind, const uint8_t *p, bool *negative) {
  size_t size = mn_gguf_kind_size(kind);
  bool is_signed = kind == MN_GGUF_INT8 || kind == MN_GGUF_INT16 || kind == MN_GGUF_INT32 || kind == MN_GGUF_INT64;
  uint64_t bits = 0;
  memcpy(&bits, p, size);
  *negative = is_signed && bits >> (8 * size - 1) & 1;
  return *negative && size < 8 ? bits | ~(uint64_t)0 << 8 * size : bits;
}

static double load_float(mn_gguf_kind kind, const uint8_t *p) {
  float f;
  double d;
  if (kind == MN_GGUF_FLOAT64) return memcpy(&d, p, 8), d;
  return memcpy(&f, p, 4), (double)f;
}

/* ---- messages ---- */

static mn_status missing(const mn_gguf *g, const char *key) {
  return mn_fail(MN_ERR_FORMAT, "%s: the metadata has no key '%s'", g->path, key);
}

static mn_status other_kind(const mn_gguf *g, const mn_gguf_meta *m, const char *wanted) {
  return mn_fail(MN_ERR_FORMAT, "%s: metadata key '%s' is %s%s, but %s is needed", g->path, m->key,
                 m->kind == MN_GGUF_ARRAY ? "ARRAY of " : "", mn_gguf_kind_name(m->of), wanted);
}

static mn_status no_fit(const mn_gguf *g, const mn_gguf_meta *m, const char *wanted) {
  mn_text value = {0};
  mn_gguf_meta_show(m, 1, 40, &value);
  mn_status status = mn_text_status(&value);
  if (status == MN_OK)
    status = mn_fail(MN_ERR_FORMAT, "%s: metadata key '%s' is %s, which does not fit in %s", g->path, m->key, value.data, wanted);
  mn_text_free(&value);
  return status;
}

/* ---- single values ---- */

/* *at: the entry, or NULL where it is absent and that is allowed. */
static mn_status find(const mn_gguf *g, const char *key, bool optional, const mn_gguf_meta **at) {
  *at = mn_gguf_meta_find(g, key);
  return *at || optional ? MN_OK : missing(g, key);
}

static mn_status find_int(const mn_gguf *g, const char *key, bool optional, const mn_gguf_meta **at, uint64_t *bits, bool *negative) {
  MN_TRY(find(g, key, optional, at));
  if (!*at) return MN_OK;
  if (!is_int((*at)->kind)) return other_kind(g, *at, "an integer");
  *bits = load_int((*at)->kind, (*at)->data, negative);
  return MN_OK;
}

mn_status mn_gguf_u64(const mn_gguf *g, const char *key, const uint64_t *otherwise, uint64_t *out) {
  const mn_gguf_meta *m;
  bool negative = false;
  if (otherwise) *out = *otherwise;
  MN_TRY(find_int(g, key, otherwise != NULL, &m, out, &negative));
  return negative ? no_fit(g, m, "a whole number of 64 bits, 0 or more") : MN_OK;
}

mn_status mn_gguf_u32(const mn_gguf *g, const char *key, const uint32_t *otherwise, uint32_t *out) {
  const mn_gguf_meta *m;
  uint64_t bits = otherwise ? *otherwise : 0;
  bool negative = false;
  MN_TRY(find_int(g, key, otherwise != NULL, &m, &bits, &negative));
  if (negative || bits > UINT32_MAX) return no_fit(g, m, "a whole number of 32 bits, 0 or more");
  *out = (uint32_t)bits;
  return MN_OK;
}

mn_status mn_gguf_i64(const mn_gguf *g, const char *key, const int64_t *otherwise, int64_t *out) {
  const mn_gguf_meta *m;
  uint64_t bits = otherwise ? (uint64_t)*otherwise : 0;
  bool negative = otherwise && *otherwise < 0;
  MN_TRY(find_int(g, key, otherwise != NULL, &m, &bits, &negative));
  if (!negative && bits > INT64_MAX) return no_fit(g, m, "an integer of 64 bits");
  *out = (int64_t)bits;
  return MN_OK;
}

mn_status mn_gguf_f64(const mn_gguf *g, const char *key, const double *otherwise, double *out) {
  const mn_gguf_meta *m;
  if (otherwise) *out = *otherwise;
  MN_TRY(find(g, key, otherwise != NULL, &m));
  if (!m) return MN_OK;
  if (!is_float(m->kind)) return other_kind(g, m, "a number with a point");
  *out = load_float(m->kind, m->data);
  return MN_OK;
}

mn_status mn_gguf_f32(const mn_gguf *g, const char *key, const float *otherwise, float *out) {
  const double wide = otherwise ? (double)*otherwise : 0;
  double value = 0;
  MN_TRY(mn_gguf_f64(g, key, otherwise ? &wide : NULL, &value));
  *out = (float)value;
  return isinf(*out) && isfinite(value) ? no_fit(g, mn_gguf_meta_find(g, key), "a number of single precision") : MN_OK;
}

mn_status mn_gguf_bool(const mn_gguf *g, const char *key, const bool *otherwise, bool *out) {
  const mn_gguf_meta *m;
  if (otherwise) *out = *otherwise;
  MN_TRY(find(g, key, otherwise != NULL, &m));
  if (!m) return MN_OK;
  if (m->kind != MN_GGUF_BOOL) return other_kind(g, m, "a truth value");
  *out = *m->data != 0;
  return MN_OK;
}

mn_status mn_gguf_string(const mn_gguf *g, const char *key, const char *otherwise, mn_arena *arena, const char **out) {
  const mn_gguf_meta *m;
  *out = otherwise;
  MN_TRY(find(g, key, otherwise != NULL, &m));
  if (!m) return MN_OK;
  if (m->kind != MN_GGUF_STRING) return other_kind(g, m, "a string");
  char *copy = mn_arena_alloc(arena, m->bytes + 1);
  if (!copy) return MN_ERR_MEMORY;
  memcpy(copy, m->data, m->bytes);
  if (strlen(copy) != m->bytes)
    return mn_fail(MN_ERR_FORMAT, "%s: metadata key '%s' holds a zero byte, but a text is needed", g->path, key);
  *out = copy;
  return MN_OK;
}

/* ---- arrays ---- */

/* The string at *at of the array's bytes; false when it does not fit. */
static bool next_string(const mn_gguf_meta *m, size_t *at, mn_gguf_bytes *s) {
  if (m->bytes - *at < 8) return false;
  uint64_t n = mn_gguf_load64(m->data + *at);
  *at += 8;
  if (n > m->bytes - *at) return false;
  *s = (mn_gguf_bytes){.data = (const char *)m->data + *at, .n = (size_t)n};
  *at += (size_t)n;
  return true;
}

mn_status mn_gguf_strings(const mn_gguf *g, const char *key, mn_arena *arena, const mn_gguf_bytes **out, size_t *n) {
  const mn_gguf_meta *m;
  MN_TRY(find(g, key, false, &m));
  if (m->kind != MN_GGUF_ARRAY || m->of != MN_GGUF_STRING) return other_kind(g, m, "ARRAY of STRING");
  mn_gguf_bytes *list = mn_arena_alloc(arena, (m->count + 1) * sizeof *list);
  if (!list) return MN_ERR_MEMORY;
  for (size_t i = 0, at = 0; i < m->count; i++)
    if (!next_string(m, &at, &list[i])) {
      MN_TRY(mn_gguf_intact(g));
      return mn_fail(MN_ERR_FORMAT, "%s: metadata key '%s' changed while it was read", g->path, key);
    }
  *out = list;
  *n = m->count;
  return mn_gguf_intact(g);
}

mn_status mn_gguf_ints(const mn_gguf *g, const char *key, mn_arena *arena, const int64_t **out, size_t *n) {
  const mn_gguf_meta *m;
  MN_TRY(find(g, key, false, &m));
  if (!is_int(m->of) && m->of != MN_GGUF_BOOL) return other_kind(g, m, "ARRAY of integers");
  int64_t *list = mn_arena_alloc(arena, (m->count + 1) * sizeof *list);
  if (!list) return MN_ERR_MEMORY;
  for (size_t i = 0; i < m->count; i++) {
    bool negative;
    uint64_t bits = load_int(m->of, m->data + i * mn_gguf_kind_size(m->of), &negative);
    if (!negative && bits > INT64_MAX)
      return mn_fail(MN_ERR_FORMAT, "%s: metadata key '%s': element %zu does not fit in an integer of 64 bits", g->path, key, i);
    list[i] = (int64_t)bits;
  }
  *out = list;
  *n = m->count;
  return MN_OK;
}

mn_status mn_gguf_floats(const mn_gguf *g, const char *key, mn_arena *arena, const float **out, size_t *n) {
  const mn_gguf_meta *m;
  MN_TRY(find(g, key, false, &m));
  if (!is_float(m->of)) return other_kind(g, m, "ARRAY of numbers with a point");
  float *list = mn_arena_alloc(arena, (m->count + 1) * sizeof *list);
  if (!list) return MN_ERR_MEMORY;
  for (size_t i = 0; i < m->count; i++) list[i] = (float)load_float(m->of, m->data + i * mn_gguf_kind_size(m->of));
  *out = list;
  *n = m->count;
  return MN_OK;
}

/* ---- showing ---- */

static void show_string(const char *s, size_t n, size_t width, mn_text *out) {
  size_t shown = n < width ? n : width;
  while (shown < n && shown > 0 && ((uint8_t)s[shown] & 0xC0) == 0x80) shown--; /* not in the middle of a sign */
  mn_text_add(out, "\"");
  mn_text_add_shown(out, s, shown, false);
  mn_text_addf(out, "\"%s", shown < n ? "..." : "");
}

/* With the fewest digits that read back the same. */
static void show_float(mn_gguf_kind kind, double v, mn_text *out) {
  const bool wide = kind == MN_GGUF_FLOAT64;
  char digits[40];
  for (int n = 6; n <= (wide ? 17 : 9); n++) {
    snprintf(digits, sizeof digits, "%.*g", n, v);
    const double back = strtod(digits, NULL);
    if (wide ? back == v : (float)back == (float)v) break;
  }
  mn_text_add(out, digits);
}

static void show_number(mn_gguf_kind kind, const uint8_t *p, mn_text *out) {
  bool negative;
  uint64_t bits = is_float(kind) ? 0 : load_int(kind, p, &negative);
  if (kind == MN_GGUF_BOOL) mn_text_add(out, bits ? "true" : "false");
  else if (is_float(kind)) show_float(kind, load_float(kind, p), out);
  else if (negative) mn_text_addf(out, "%lld", (long long)bits);
  else mn_text_addf(out, "%llu", (unsigned long long)bits);
}

void mn_gguf_meta_show(const mn_gguf_meta *m, int most, size_t width, mn_text *out) {
  if (m->kind == MN_GGUF_STRING) {
    show_string((const char *)m->data, m->bytes, width, out);
    return;
  }
  if (m->kind != MN_GGUF_ARRAY) {
    show_number(m->kind, m->data, out);
    return;
  }
  mn_text_add(out, "[");
  size_t i = 0, at = 0;
  for (mn_gguf_bytes s; i < m->count && i < (size_t)most; i++) {
    if (i) mn_text_add(out, ", ");
    if (m->of != MN_GGUF_STRING) show_number(m->of, m->data + i * mn_gguf_kind_size(m->of), out);
    else if (next_string(m, &at, &s)) show_string(s.data, s.n, width, out);
  }
  if (i < m->count) mn_text_addf(out, "%s... %zu in all", i ? ", " : "", m->count);
  mn_text_add(out, "]");
}
