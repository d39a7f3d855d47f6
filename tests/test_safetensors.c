/* safetensors: what is written is read back bit for bit, and no file, however malicious, gets a tensor past the checks. */
#define _GNU_SOURCE /* memmem */
#include "base/file.h"
#include "base/text.h"
#include "format/safetensors.h"
#include "test.h"

#include <stdint.h>
#include <time.h>
#include <unistd.h>

static char scratch[] = P_tmpdir "/mneme-test-st-XXXXXX";

static const char *in_scratch(const char *name) {
  static char path[4][256];
  static int turn;
  char *p = path[turn++ % 4];
  snprintf(p, sizeof path[0], "%s/%s", scratch, name);
  return p;
}

static const mn_shape scalar = {0}, two_three = {2, {2, 3}}, five = {1, {5}}, empty = {2, {0, 7}};

static mn_status fill_ramp(void *ctx, size_t offset, size_t n, void *dst) {
  (void)ctx;
  for (size_t i = 0; i < n; i++) ((uint8_t *)dst)[i] = (uint8_t)((offset + i) * 31 >> 3);
  return MN_OK;
}

static mn_status fail_late(void *ctx, size_t offset, size_t n, void *dst) {
  memset(dst, 0, n);
  return offset > 0 ? mn_fail(MN_ERR_NUMERIC, "the device said %d", *(int *)ctx) : MN_OK;
}

/* ---- writing and reading ---- */
static void what_is_written_is_read(void) {
  const float f[6] = {1.5f, -0.0f, INFINITY, 1e-45f, 3, 4};
  const double d = 0.1;
  const uint16_t b[5] = {0x3F80, 0xC000, 1, 2, 3};
  const int64_t n[5] = {INT64_MIN, -1, 0, 1, INT64_MAX};
  const uint8_t flags[6] = {0, 1, 1, 0, 0, 1};
  const mn_shape big = {1, {3000001}};
  mn_st_writer *w = mn_st_writer_new();
  CHECK_OK(mn_st_writer_meta(w, "format", "mneme"));
  CHECK_OK(mn_st_writer_meta(w, "quote\"d\n", "\x01 \xC3\xA9 \\"));
  CHECK_OK(mn_st_writer_add(w, "flags", MN_BOOL, &two_three, flags));
  CHECK_OK(mn_st_writer_add(w, "w \"x\"/\xE2\x82\xAC", MN_F32, &two_three, f));
  CHECK_OK(mn_st_writer_add(w, "scalar", MN_F64, &scalar, &d));
  CHECK_OK(mn_st_writer_add(w, "b", MN_BF16, &five, b));
  CHECK_OK(mn_st_writer_add(w, "n", MN_I64, &five, n));
  CHECK_OK(mn_st_writer_add(w, "nothing", MN_F32, &empty, NULL));
  CHECK_OK(mn_st_writer_add_source(w, "ramp", MN_BOOL, &(mn_shape){1, {0}}, fill_ramp, NULL));
  CHECK_OK(mn_st_writer_add_source(w, "big", MN_I32, &big, fill_ramp, NULL));
  CHECK_OK(mn_st_writer_save(w, in_scratch("all")));
  CHECK_OK(mn_st_writer_save(w, in_scratch("again")));
  mn_st_writer_free(w);
  char one[MN_HASH_HEX], two[MN_HASH_HEX];
  CHECK_OK(mn_file_hash(in_scratch("all"), one));
  CHECK_OK(mn_file_hash(in_scratch("again"), two));
  CHECK(!strcmp(one, two), "the same list gives the same bytes");

  mn_st *st = NULL;
  CHECK_OK(mn_st_open(in_scratch("all"), &st));
  if (!st) return;
  CHECK(mn_st_count(st) == 8, "%d", mn_st_count(st));
  CHECK(mn_st_meta_count(st) == 2 && !strcmp(mn_st_meta(st, "format"), "mneme"), "metadata");
  CHECK(!strcmp(mn_st_meta(st, "quote\"d\n"), "\x01 \xC3\xA9 \\"), "escapes come back: %s", mn_st_meta(st, "quote\"d\n"));
  CHECK(!mn_st_meta(st, "absent"), "absent");
  const mn_st_tensor *t = mn_st_find(st, "w \"x\"/\xE2\x82\xAC");
  CHECK(t && t->dtype == MN_F32 && t->shape.ndim == 2 && t->shape.dim[1] == 3 && !memcmp(t->data, f, 24), "f32");
  t = mn_st_find(st, "scalar");
  CHECK(t && t->dtype == MN_F64 && t->shape.ndim == 0 && t->bytes == 8 && !memcmp(t->data, &d, 8), "f64 scalar");
  t = mn_st_find(st, "b");
  CHECK(t && t->dtype == MN_BF16 && !strcmp(t->file_dtype, "BF16") && !memcmp(t->data, b, 10), "bf16");
  t = mn_st_find(st, "n");
  CHECK(t && t->dtype == MN_I64 && !memcmp(t->data, n, 40), "i64");
  t = mn_st_find(st, "flags");
  CHECK(t && t->dtype == MN_BOOL && !memcmp(t->data, flags, 6), "bool");
  t = mn_st_find(st, "nothing");
  CHECK(t && t->bytes == 0 && t->shape.dim[1] == 7, "an empty tensor");
  t = mn_st_find(st, "big");
  uint8_t *ramp = malloc(12000004);
  fill_ramp(NULL, 0, 12000004, ramp);
  CHECK(t && t->bytes == 12000004 && !memcmp(t->data, ramp, t->bytes), "a source is asked piece by piece");
  free(ramp);
  CHECK(!mn_st_find(st, "absent") && !mn_st_find(st, ""), "absent");
  for (int i = 0; i < mn_st_count(st); i++) {
    t = mn_st_at(st, i);
    size_t element = t->dtype == MN_F64 || t->dtype == MN_I64 ? 8 : t->dtype == MN_BF16 ? 2 : t->dtype == MN_BOOL ? 1 : 4;
    CHECK((uintptr_t)t->data % element == 0, "tensor %s is aligned", t->name);
    CHECK(mn_st_find(st, t->name) == t, "found by its name");
  }
  CHECK(!mn_st_at(st, 8) && !mn_st_at(st, -1), "outside");
  CHECK_OK(mn_st_need(st, "b", &five, &t));
  CHECK(mn_st_need(st, "b", &two_three, &t) == MN_ERR_SHAPE && strstr(mn_message(), "[5]") && strstr(mn_message(), "[2, 3]"), "%s",
        mn_message());
  CHECK(mn_st_need(st, "bb", NULL, &t) == MN_ERR_FORMAT && strstr(mn_message(), "'bb' is missing"), "%s", mn_message());
  mn_st_close(st);
  mn_st_close(NULL);
}

static void writer_refuses_what_has_no_form(void) {
  mn_st_writer *w = mn_st_writer_new();
  float f[6] = {0};
  CHECK(mn_st_writer_add(w, "", MN_F32, &two_three, f) == MN_ERR_ARG, "no name");
  CHECK(mn_st_writer_add(w, "__metadata__", MN_F32, &two_three, f) == MN_ERR_ARG, "reserved");
  CHECK(mn_st_writer_add(w, "\xFF", MN_F32, &two_three, f) == MN_ERR_ARG, "not UTF-8");
  CHECK(mn_st_writer_add(w, "x", MN_F32, &two_three, NULL) == MN_ERR_ARG, "no data");
  CHECK(mn_st_writer_add(w, "x", MN_F32, &(mn_shape){2, {-1, 2}}, f) == MN_ERR_ARG, "negative");
  CHECK(mn_st_writer_add(w, "x", MN_F64, &(mn_shape){2, {INT64_MAX, 2}}, f) == MN_ERR_ARG, "overflow");
  CHECK(mn_st_writer_meta(w, "k", "\xC0\x80") == MN_ERR_ARG, "overlong UTF-8");
  CHECK_OK(mn_st_writer_meta(w, "k", "1"));
  CHECK(mn_st_writer_meta(w, "k", "2") == MN_ERR_ARG, "twice");
  CHECK_OK(mn_st_writer_add(w, "x", MN_F32, &two_three, f));
  CHECK_OK(mn_st_writer_save(w, in_scratch("kept")));
  CHECK_OK(mn_st_writer_add(w, "x", MN_F32, &two_three, f));
  CHECK(mn_st_writer_save(w, in_scratch("kept")) == MN_ERR_ARG && strstr(mn_message(), "named 'x'"), "%s", mn_message());
  mn_st_writer_free(w);
  w = mn_st_writer_new();
  int said = 42;
  CHECK_OK(mn_st_writer_add_source(w, "gone", MN_F32, &(mn_shape){1, {1 << 20}}, fail_late, &said));
  CHECK(mn_st_writer_save(w, in_scratch("kept")) == MN_ERR_NUMERIC, "a source's fault");
  CHECK(!strcmp(mn_message(), "tensor 'gone': the device said 42"), "%s", mn_message());
  mn_st_writer_free(w);
  mn_st *st = NULL;
  CHECK_OK(mn_st_open(in_scratch("kept"), &st));
  CHECK(st && mn_st_count(st) == 1, "the file from before is intact");
  mn_st_close(st);
  w = mn_st_writer_new();
  CHECK_OK(mn_st_writer_save(w, in_scratch("none")));
  mn_st_writer_free(w);
  CHECK_OK(mn_st_open(in_scratch("none"), &st));
  CHECK(st && mn_st_count(st) == 0, "a file without tensors");
  mn_st_close(st);
}

/* ---- malicious files ---- */

/* A file in memory, exactly as large as its content, so that a sanitizer sees every byte read beyond it. */
typedef struct blob {
  uint8_t *bytes;
  size_t n;
} blob;

static blob make(uint64_t length, const char *header, size_t header_bytes, size_t data_bytes) {
  blob b = {NULL, 8 + header_bytes + data_bytes};
  b.bytes = calloc(1, b.n);
  for (int i = 0; i < 8; i++) b.bytes[i] = (uint8_t)(length >> 8 * i);
  memcpy(b.bytes + 8, header, header_bytes);
  return b;
}

static mn_status open_header(const char *header, size_t data_bytes) {
  blob b = make(strlen(header), header, strlen(header), data_bytes);
  mn_st *st;
  mn_status status = mn_st_open_bytes("bad.safetensors", b.bytes, b.n, &st);
  CHECK((status == MN_OK) == (st != NULL), "a refused file gives no handle");
  mn_st_close(st);
  free(b.bytes);
  return status;
}

static void malicious_headers_are_refused(void) {
  static const struct {
    const char *header;
    size_t data;
    const char *says; /* in the message; NULL: the file is good */
  } cases[] = {
      {"{}", 0, NULL},
      {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}   ", 8, NULL},
      {"{\"a\":{\"dtype\":\"F8_E4M3\",\"shape\":[],\"data_offsets\":[0,1]}}", 1, NULL},
      {"{\"a\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]},\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}}", 2,
       NULL},
      {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1],\"data_offsets\":[0,1]}}", 1, NULL},
      {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,1]}}", 1, "tensor 'a': has 9 dimensions"},
      {"[]", 0, "does not begin with '{'"},
      {"", 0, "does not begin with '{'"},
      {"{", 0, "not a map of tensors"},
      {"{}}", 0, "not a map of tensors"},
      {"{} x", 0, "not valid JSON"},
      {"{\"a\":1}", 0, "tensor 'a': must be a map"},
      {"{\"a\":null}", 0, "tensor 'a': must be a map"},
      {"{\"\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1]}}", 1, "empty name"},
      {"{\"a\":[[[[[[]]]]]]}", 0, "not a map of tensors"},
      {"{\"a\":{\"b\":{\"c\":{}}}}", 0, "not a map of tensors"},
      {"{\"a\":{\"shape\":[1,2,3,4,5,6,7,8,9,1,2,3,4,5,6,7,8,9,0]}}", 0, "not a map of tensors"},
      {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8,
       "duplicate object key"},
      {"{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "duplicate object key"},
      {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2]}}", 8, "'data_offsets' must be a list"},
      {"{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,8]}}", 8, "'shape' must be a list"},
      {"{\"a\":{\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "'dtype' must be a text"},
      {"{\"a\":{\"dtype\":4,\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "'dtype' must be a text"},
      {"{\"a\":{\"dtype\":\"F33\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "unknown dtype 'F33'"},
      {"{\"a\":{\"dtype\":\"f32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "unknown dtype 'f32'"},
      {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8],\"x\":1}}", 8, "unknown key 'x'"},
      {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2.0],\"data_offsets\":[0,8]}}", 8, "dimension 0"},
      {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-2],\"data_offsets\":[0,8]}}", 8, "dimension 0"},
      {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2,\"2\"],\"data_offsets\":[0,8]}}", 8, "dimension 1"},
      {"{\"a\":{\"dtype\":\"F32\",\"shape\":[99999999999999999999],\"data_offsets\":[0,8]}}", 8, "not valid JSON"},
      {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}}", 0, "larger than any memory"},
      {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904],\"data_offsets\":[0,0]}}", 0, "larger than any memory"},
      {"{\"a\":{\"dtype\":\"U8\",\"shape\":[9223372036854775807,2],\"data_offsets\":[0,0]}}", 0, "larger than any memory"},
      {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,9]}}", 9, "hold 9 bytes, but F32 [2] needs 8"},
      {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 7, "lie outside the 7 bytes"},
      {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,0]}}", 8, "lie outside"},
      {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[-8,0]}}", 8, "whole numbers"},
      {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8,8]}}", 8, "list of two"},
      {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[9223372036854775800,9223372036854775807]}}", 8, "lie outside"},
      {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 9, "1 bytes at its end"},
      {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}", 12, "4 bytes before its data"},
      {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}",
       12, "overlaps that of tensor 'a'"},
      {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8,
       "overlaps"},
      {"{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},\"z\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[2,2]}}", 4,
       "overlaps"},
      {"{\"__metadata__\":[]}", 0, "not a map of tensors"},
      {"{\"__metadata__\":1}", 0, "must be a map of texts"},
      {"{\"__metadata__\":{\"a\":1}}", 0, "__metadata__ 'a' must be a text"},
      {"{\"__metadata__\":{\"a\":\"\\u0000\"}}", 0, "not valid JSON"},
      {"{\"a\\u0000b\":{}}", 0, "not valid JSON"},
      {"{\"\xFF\":{}}", 0, "not valid JSON"},
      {"{\"\x1b[2J\":1}", 0, "not valid JSON"},
      {"{\"\\u001b[2J\":1}", 0, "tensor '?[2J'"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    mn_status status = open_header(cases[i].header, cases[i].data);
    if (!cases[i].says) CHECK(status == MN_OK, "case %zu: %s", i, mn_message());
    else {
      CHECK(status == MN_ERR_FORMAT, "case %zu was accepted: %s", i, cases[i].header);
      CHECK(strstr(mn_message(), cases[i].says) && strstr(mn_message(), "bad.safetensors"), "case %zu: %s", i, mn_message());
    }
  }
}

static void lengths_are_checked(void) {
  const char *good = "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}";
  size_t n = strlen(good);
  blob whole = make(n, good, n, 8);
  int accepted = 0;
  for (size_t cut = 0; cut < whole.n; cut++) { /* cut short anywhere, in a block of exactly that size */
    uint8_t *part = malloc(cut ? cut : 1);
    memcpy(part, whole.bytes, cut);
    mn_st *st;
    accepted += mn_st_open_bytes("cut", part, cut, &st) == MN_OK;
    mn_st_close(st);
    free(part);
  }
  CHECK(accepted == 0, "%d truncated files were accepted", accepted);
  free(whole.bytes);
  const uint64_t lengths[] = {n + 9, n + 1000, 100000001, UINT32_MAX, INT64_MAX, UINT64_MAX, UINT64_MAX - 7};
  for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
    blob b = make(lengths[i], good, n, 8);
    mn_st *st;
    CHECK(mn_st_open_bytes("long", b.bytes, b.n, &st) == MN_ERR_FORMAT && strstr(mn_message(), "header"), "%s", mn_message());
    free(b.bytes);
  }
  mn_st *st;
  CHECK(mn_st_open(in_scratch("absent"), &st) == MN_ERR_IO, "missing");
  CHECK_OK(mn_file_write(in_scratch("empty"), "", 0));
  CHECK(mn_st_open(in_scratch("empty"), &st) == MN_ERR_FORMAT && strstr(mn_message(), "0 bytes"), "%s", mn_message());
  CHECK(mn_st_open(scratch, &st) == MN_ERR_IO && strstr(mn_message(), "directory"), "%s", mn_message());
}

/* A header near the size limit that is nothing but brackets or numbers costs one pass, not a tree. */
static void hostile_headers_cost_little(void) {
  size_t n = 20u << 20;
  char *header = malloc(n);
  memset(header, '[', n);
  memcpy(header, "{\"a\":", 5);
  blob b = make(n, header, n, 0);
  mn_st *st;
  CHECK(mn_st_open_bytes("deep", b.bytes, b.n, &st) == MN_ERR_FORMAT, "deep");
  free(b.bytes);
  for (size_t i = 0; i + 1 < n; i += 2) header[i] = '0', header[i + 1] = ',';
  memcpy(header, "{\"a\":{\"b\":[", 11);
  memcpy(header + n - 4, "0]}}", 4);
  b = make(n, header, n, 0);
  CHECK(mn_st_open_bytes("wide", b.bytes, b.n, &st) == MN_ERR_FORMAT, "wide");
  free(b.bytes);
  free(header);
}

/* That a file holds nothing else than these names costs about as much as opening it: where each name is looked for among all, it would
 * cost several hundred times that. */
static void many_names_cost_what_the_file_does(void) {
  enum { N = 40000, WORD = 64 };
  char *name = malloc((size_t)N * WORD), *header = malloc((size_t)N * 2 * WORD);
  const char **names = malloc(N * sizeof *names);
  size_t n = 0;
  for (int i = 0; i < N; i++) {
    names[i] = name + (size_t)i * WORD;
    snprintf(name + (size_t)i * WORD, WORD, "layers.%d.mixer.some_projection.weight", i);
    n += (size_t)sprintf(header + n, "%c\"%s\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}", i ? ',' : '{', names[i]);
  }
  header[n++] = '}';
  blob b = make(n, header, n, 0);
  mn_st *st = NULL;
  const clock_t begin = clock();
  CHECK_OK(mn_st_open_bytes("many", b.bytes, b.n, &st));
  const clock_t opened = clock();
  if (st) CHECK_OK(mn_st_only(st, names, N, "one of these"));
  const clock_t known = clock();
  CHECK(known - opened < 5 * (opened - begin), "opened in %ld ticks, and its names known in %ld", (long)(opened - begin),
        (long)(known - opened));
  names[N / 2] = "other";
  CHECK(st && mn_st_only(st, names, N, "one of these") == MN_ERR_FORMAT && strstr(mn_message(), "'layers.20000.mixer"), "%s", mn_message());
  mn_st_close(st);
  free(b.bytes);
  free(names);
  free(header);
  free(name);
}

/* Every bit of a small good file turned over: refused or read, never a fault. */
static void flipped_bits_never_crash(void) {
  const char *good = "{\"__metadata__\":{\"k\":\"v\"},\"a\":{\"dtype\":\"BF16\",\"shape\":[2,2],\"data_offsets\":[4,12]},"
                     "\"b\":{\"dtype\":\"BOOL\",\"shape\":[4],\"data_offsets\":[0,4]}}";
  size_t n = strlen(good);
  blob b = make(n, good, n, 12);
  int opened = 0;
  for (size_t bit = 0; bit < 8 * b.n; bit++) {
    b.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    mn_st *st;
    if (mn_st_open_bytes("flip", b.bytes, b.n, &st) == MN_OK) {
      opened++;
      for (int i = 0; i < mn_st_count(st); i++) {
        const mn_st_tensor *t = mn_st_at(st, i);
        const uint8_t *p = t->data;
        CHECK(p >= b.bytes + 8 && p + t->bytes <= b.bytes + b.n, "bit %zu: tensor outside the file", bit);
      }
      mn_st_close(st);
    }
    b.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
  }
  CHECK(opened > 64 && opened < (int)(8 * b.n), "%d of %zu opened", opened, 8 * b.n);
  free(b.bytes);
  uint8_t bools[] = {0, 1, 2};
  mn_st_writer *w = mn_st_writer_new();
  mn_st *st = NULL;
  CHECK_OK(mn_st_writer_add(w, "mask", MN_BOOL, &(mn_shape){1, {3}}, bools));
  CHECK_OK(mn_st_writer_save(w, in_scratch("bool")));
  mn_st_writer_free(w);
  CHECK(mn_st_open(in_scratch("bool"), &st) == MN_ERR_FORMAT && strstr(mn_message(), "'mask': element 2 is 2"), "%s", mn_message());
}

/* ---- checksums ---- */

/* A small file of ours in memory: several types, an empty tensor, metadata, a source. */
static char *checked_file(size_t *n) {
  const float f[6] = {1, 2, 3, 4, 5, 6};
  const uint8_t flags[6] = {0, 1, 1, 0, 0, 1};
  char *bytes = NULL;
  mn_st_writer *w = mn_st_writer_new();
  CHECK_OK(mn_st_writer_meta(w, "format", "mneme"));
  CHECK_OK(mn_st_writer_meta(w, "quote\"d", "\"mneme.header\":\"0\""));
  CHECK_OK(mn_st_writer_add(w, "flags", MN_BOOL, &two_three, flags));
  CHECK_OK(mn_st_writer_add(w, "w", MN_F32, &two_three, f));
  CHECK_OK(mn_st_writer_add(w, "nothing", MN_F32, &empty, NULL));
  CHECK_OK(mn_st_writer_add_source(w, "ramp", MN_I64, &five, fill_ramp, NULL));
  CHECK_OK(mn_st_writer_save(w, in_scratch("checked")));
  CHECK_OK(mn_file_read(in_scratch("checked"), 1 << 20, &bytes, n));
  mn_st *st = NULL;
  CHECK_OK(mn_st_open(in_scratch("checked"), &st));
  if (st) {
    const char *sum = mn_st_checksum(st);
    CHECK(sum && !strcmp(sum, mn_st_writer_checksum(w)), "the writer says what the file says");
    for (int i = 0; i < mn_st_count(st); i++) {
      const mn_st_tensor *t = mn_st_at(st, i);
      char hex[MN_HASH_HEX];
      mn_content_hash(t->data, t->bytes, hex);
      CHECK(!strcmp(hex, t->checksum), "%s: the checksum is the content hash of its bytes", t->name);
      CHECK_OK(mn_st_check(st, t));
    }
  }
  mn_st_close(st);
  mn_st_writer_free(w);
  return bytes;
}

/* Opens and reads everything; what comes first that is wrong. */
static mn_status read_all(const void *bytes, size_t n) {
  mn_st *st;
  char space[256];
  mn_status status = mn_st_open_bytes("x.safetensors", bytes, n, &st);
  if (status != MN_OK) return status;
  for (int i = 0; i < mn_st_count(st) && status == MN_OK; i++) status = mn_st_read(st, mn_st_at(st, i), mn_st_at(st, i)->dtype, space);
  mn_st_close(st);
  return status;
}

static void every_flipped_bit_of_our_files_is_found(void) {
  size_t n;
  char *bytes = checked_file(&n);
  CHECK_OK(read_all(bytes, n));
  int passed = 0;
  for (size_t bit = 0; bit < 8 * n; bit++) {
    bytes[bit / 8] ^= (char)(1 << bit % 8);
    if (read_all(bytes, n) == MN_OK) passed++, printf("bit %zu of byte %zu passes\n", bit % 8, bit / 8);
    bytes[bit / 8] ^= (char)(1 << bit % 8);
  }
  CHECK(passed == 0, "%d of %zu bits pass", passed, 8 * n);
  bytes[n - 10] ^= 1; /* behind it are the 6 flags */
  CHECK(read_all(bytes, n) == MN_ERR_FORMAT && strstr(mn_message(), "'w'") && strstr(mn_message(), "checksum"), "%s", mn_message());
  mn_st *st = NULL;
  double wide[6];
  CHECK_OK(mn_st_open_bytes("x.safetensors", bytes, n, &st)); /* opening looks at the header only: the damage is found when it is read */
  CHECK(mn_st_read(st, mn_st_find(st, "w"), MN_F64, wide) == MN_ERR_FORMAT, "a tensor that is converted is checked, too");
  CHECK(mn_st_check(st, mn_st_find(st, "w")) == MN_ERR_FORMAT, "%s", mn_message());
  CHECK_OK(mn_st_check(st, mn_st_find(st, "ramp")));
  mn_st_close(st);
  free(bytes);
}

/* The file shrinks under its map: a message, no SIGBUS, and no zeros that pass for values. */
static void a_file_that_shrinks_is_no_shorter_tensor(void) {
  enum { N = 1 << 16 };
  float *zeros = calloc(N, sizeof *zeros), *back = malloc(N * sizeof *back);
  for (int checked = 0; checked < 2; checked++) {
    mn_st_writer *w = mn_st_writer_new();
    mn_st *st = NULL;
    CHECK_OK(mn_st_writer_add(w, "w", MN_F32, &(mn_shape){1, {N}}, zeros)); /* all zeros: no value tells */
    CHECK_OK(mn_st_writer_save(w, in_scratch("shrinks")));
    mn_st_writer_free(w);
    CHECK_OK(mn_st_open(in_scratch("shrinks"), &st));
    if (checked) CHECK_OK(mn_st_check(st, mn_st_at(st, 0))); /* known to hold; what follows is not */
    CHECK(truncate(in_scratch("shrinks"), 5000) == 0, "cut");
    CHECK(mn_st_read(st, mn_st_at(st, 0), MN_F32, back) == MN_ERR_IO && strstr(mn_message(), "cut short") &&
              strstr(mn_message(), "shrinks"),
          "%s", mn_message());
    mn_st_close(st);
  }
  free(zeros);
  free(back);
}

/* The two entries go together, and with the file they were made for. */
static void checksums_in_part_are_refused_and_none_are_accepted(void) {
  char *text;
  size_t n;
  char *bytes = checked_file(&n);
  for (int which = 0; which < 2; which++) {
    text = malloc(n);
    memcpy(text, bytes, n);
    const char *name = which ? ",\"mneme.header\":\"" : ",\"mneme.checksums\":\"";
    char *key = memmem(text, n, name, strlen(name));
    if (key) key[2] = 'x';
    CHECK(key && read_all(text, n) == MN_ERR_FORMAT && strstr(mn_message(), "without"), "%s", mn_message());
    free(text);
  }
  free(bytes);
  mn_st_writer *w = mn_st_writer_new();
  CHECK(mn_st_writer_meta(w, "mneme.header", "") == MN_ERR_ARG, "the keys are kept for checksums");
  mn_st_writer_free(w);
  const char *foreign = "{\"__metadata__\":{\"format\":\"pt\"},\"a\":{\"dtype\":\"I32\",\"shape\":[2],\"data_offsets\":[0,8]}}";
  blob b = make(strlen(foreign), foreign, strlen(foreign), 8);
  mn_st *st = NULL;
  CHECK_OK(mn_st_open_bytes("foreign", b.bytes, b.n, &st));
  CHECK(st && !mn_st_checksum(st) && !mn_st_at(st, 0)->checksum[0], "no checksums, and it says so");
  CHECK_OK(mn_st_check(st, mn_st_at(st, 0)));
  mn_st_close(st);
  free(b.bytes);
}

/* ---- conversion ---- */
static mn_st *one_tensor(const char *dtype, size_t count, size_t size, const void *data, blob *keep) {
  char header[160];
  int n =
      snprintf(header, sizeof header, "{\"x\":{\"dtype\":\"%s\",\"shape\":[%zu],\"data_offsets\":[0,%zu]}}", dtype, count, count * size);
  *keep = make((uint64_t)n, header, (size_t)n, count * size);
  memcpy(keep->bytes + 8 + n, data, count * size);
  mn_st *st = NULL;
  CHECK_OK(mn_st_open_bytes("x.safetensors", keep->bytes, keep->n, &st));
  return st;
}

static void floats_convert(void) {
  blob keep;
  const uint16_t half[] = {0x3C00, 0xC000, 0x7BFF, 1, 0x0400, 0x7C00, 0x8000};
  const double expected[] = {1, -2, 65504, 0x1p-24, 0x1p-14, INFINITY, -0.0};
  double d[7];
  float f[7];
  mn_st *st = one_tensor("F16", 7, 2, half, &keep);
  CHECK(mn_st_at(st, 0)->dtype == MN_DTYPES, "F16 is no type of graphs");
  CHECK_OK(mn_st_read(st, mn_st_at(st, 0), MN_F64, d));
  CHECK(!memcmp(d, expected, sizeof d), "half to double");
  CHECK_OK(mn_st_read(st, mn_st_at(st, 0), MN_F32, f));
  for (int i = 0; i < 7; i++) CHECK((double)f[i] == expected[i], "half to float %d: %g", i, (double)f[i]);
  CHECK(mn_st_read(st, mn_st_at(st, 0), MN_I32, f) == MN_ERR_UNSUPPORTED && strstr(mn_message(), "'x' is F16"), "%s", mn_message());
  mn_st_close(st);
  free(keep.bytes);
  /* The nearest bf16, ties to even; a value just above a tie must not be rounded twice (through float it would be). */
  const double wide[] = {1, 1 + 0x1p-8, 1 + 3 * 0x1p-8, 1 + 0x1p-8 + 0x1p-40, -(1 + 0x1p-8 - 0x1p-40), 1e300, 3.4e38, NAN};
  const uint16_t bf[] = {0x3F80, 0x3F80, 0x3F82, 0x3F81, 0xBF80, 0x7F80, 0x7F80};
  uint16_t b[8];
  st = one_tensor("F64", 8, 8, wide, &keep);
  CHECK_OK(mn_st_read(st, mn_st_at(st, 0), MN_BF16, b));
  for (int i = 0; i < 7; i++) CHECK(b[i] == bf[i], "%a -> %04x, expected %04x", wide[i], b[i], bf[i]);
  CHECK((b[7] & 0x7F80) == 0x7F80 && (b[7] & 0x7F), "NaN stays NaN: %04x", b[7]);
  mn_st_close(st);
  free(keep.bytes);
}

/* In every float type, whatever the place: in whole blocks, after them, behind the first piece. */
static void what_is_not_finite_is_named(void) {
  enum { N = 70001 };
  static const int places[] = {0, 1, 63, 64, 511, 512, 32767, 32768, 65536, N - 2, N - 1};
  static double wide[N], back[N];
  static float narrow[N];
  static uint16_t half[N];
  blob keep;
  char words[64];
  for (int i = 0; i < N; i++) wide[i] = i % 2 ? 3e38 : -1e-45;
  for (size_t k = 0; k < sizeof places / sizeof *places; k++)
    for (int type = 0; type < 3; type++) {
      int at = places[k];
      for (int i = 0; i < N; i++) narrow[i] = (float)wide[i], half[i] = i % 2 ? 0x7F7F : 0x8001;
      double was = wide[at];
      wide[at] = -INFINITY;
      narrow[at] = INFINITY;
      half[at] = 0x7FC1;
      mn_st *st = type == 0   ? one_tensor("F64", N, 8, wide, &keep)
                  : type == 1 ? one_tensor("F32", N, 4, narrow, &keep)
                              : one_tensor("BF16", N, 2, half, &keep);
      snprintf(words, sizeof words, "'x' holds a value that is not finite (element %d is %s)", at,
               (const char *[]){"-infinity", "infinity", "NaN"}[type]);
      CHECK_OK(mn_st_read(st, mn_st_at(st, 0), MN_F64, back));
      for (int as = MN_F32; as <= MN_BF16; as++)
        CHECK(mn_st_read_finite(st, mn_st_at(st, 0), (mn_dtype)as, back) == MN_ERR_NUMERIC && strstr(mn_message(), words), "%s: %s", words,
              mn_message());
      wide[at] = was;
      mn_st_close(st);
      free(keep.bytes);
    }
  mn_st *st = one_tensor("F64", 3, 8, (double[]){1, 1e300, 2}, &keep);
  CHECK_OK(mn_st_read_finite(st, mn_st_at(st, 0), MN_F64, back));
  CHECK(mn_st_read_finite(st, mn_st_at(st, 0), MN_F32, back) == MN_ERR_NUMERIC && strstr(mn_message(), "element 1 is infinity"),
        "what does not fit becomes infinite: %s", mn_message());
  mn_st_close(st);
  free(keep.bytes);
}

static void integers_convert_when_they_fit(void) {
  blob keep;
  const int8_t small[] = {-128, -1, 0, 127};
  int64_t wide[4];
  mn_st *st = one_tensor("I8", 4, 1, small, &keep);
  CHECK_OK(mn_st_read(st, mn_st_at(st, 0), MN_I64, wide));
  CHECK(wide[0] == -128 && wide[1] == -1 && wide[3] == 127, "%lld", (long long)wide[0]);
  uint8_t flags[4];
  CHECK(mn_st_read(st, mn_st_at(st, 0), MN_BOOL, flags) == MN_ERR_FORMAT, "-128 is no truth value");
  CHECK(mn_st_read(st, mn_st_at(st, 0), MN_F32, wide) == MN_ERR_UNSUPPORTED, "integers are not floats");
  mn_st_close(st);
  free(keep.bytes);
  const uint64_t large[] = {1, 0x80000000u, UINT64_MAX};
  st = one_tensor("U64", 2, 8, large, &keep);
  int32_t narrow[2];
  CHECK_OK(mn_st_read(st, mn_st_at(st, 0), MN_I64, wide));
  CHECK(mn_st_read(st, mn_st_at(st, 0), MN_I32, narrow) == MN_ERR_FORMAT && strstr(mn_message(), "element 1 does not fit in I32"), "%s",
        mn_message());
  mn_st_close(st);
  free(keep.bytes);
  st = one_tensor("U64", 3, 8, large, &keep);
  CHECK(mn_st_read(st, mn_st_at(st, 0), MN_I64, wide) == MN_ERR_FORMAT, "2^64-1 does not fit");
  mn_st_close(st);
  free(keep.bytes);
}

int main(void) {
  if (!mkdtemp(scratch)) return 1;
  RUN(what_is_written_is_read);
  RUN(writer_refuses_what_has_no_form);
  RUN(malicious_headers_are_refused);
  RUN(lengths_are_checked);
  RUN(hostile_headers_cost_little);
  RUN(many_names_cost_what_the_file_does);
  RUN(flipped_bits_never_crash);
  RUN(every_flipped_bit_of_our_files_is_found);
  RUN(a_file_that_shrinks_is_no_shorter_tensor);
  RUN(checksums_in_part_are_refused_and_none_are_accepted);
  RUN(floats_convert);
  RUN(what_is_not_finite_is_named);
  RUN(integers_convert_when_they_fit);
  char *clean = mn_format("rm -rf %s", scratch);
  int rc = system(clean);
  free(clean);
  return test_end() || rc != 0;
}
