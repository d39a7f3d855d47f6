/* GGUF: every kind of value and every type of tensor is read as the format says, and no file, however malicious, gets a value
 * or a tensor past the checks. */
#include "gguf_bytes.h"

#include "base/file.h"
#include "test.h"

#include <unistd.h>

static char scratch[] = P_tmpdir "/mneme-test-gguf-XXXXXX";

static const char *in_scratch(const char *name) {
  static char path[4][256];
  static int turn;
  char *p = path[turn++ % 4];
  snprintf(p, sizeof path[0], "%s/%s", scratch, name);
  return p;
}

/* ---- a file with everything ---- */

static void put_float(mn_text *t, float f) { mn_text_add_bytes(t, &f, 4); }
static void put_double(mn_text *t, double d) { mn_text_add_bytes(t, &d, 8); }

enum { METAS = 19, TENSORS = 4 };

static void put_metas(mn_text *t) {
  put_key(t, "u8", MN_GGUF_UINT8), put8(t, 200);
  put_key(t, "i8", MN_GGUF_INT8), put8(t, (uint8_t)-100);
  put_key(t, "u16", MN_GGUF_UINT16), mn_text_add_bytes(t, "\xFE\xFF", 2);
  put_key(t, "i16", MN_GGUF_INT16), mn_text_add_bytes(t, "\xFE\xFF", 2);
  put_key(t, "u32", MN_GGUF_UINT32), put32(t, 4000000000u);
  put_key(t, "i32", MN_GGUF_INT32), put32(t, (uint32_t)-7);
  put_key(t, "f32", MN_GGUF_FLOAT32), put_float(t, 0.1f);
  put_key(t, "yes", MN_GGUF_BOOL), put8(t, 1);
  put_key(t, "text", MN_GGUF_STRING), put_string(t, "a line\nand \xC3\xA9");
  put_key(t, "zero", MN_GGUF_STRING), put_bytes(t, "a\0b", 3);
  put_key(t, "u64", MN_GGUF_UINT64), put64(t, UINT64_MAX);
  put_key(t, "i64", MN_GGUF_INT64), put64(t, (uint64_t)INT64_MIN);
  put_key(t, "f64", MN_GGUF_FLOAT64), put_double(t, 1e300);
  put_array(t, "tokens", MN_GGUF_STRING, 3), put_string(t, "ab"), put_bytes(t, "\0\xFF", 2), put_string(t, "");
  put_array(t, "scores", MN_GGUF_FLOAT32, 2), put_float(t, -1.5f), put_float(t, 3);
  put_array(t, "types", MN_GGUF_INT32, 3), put32(t, 1), put32(t, (uint32_t)-2), put32(t, 3);
  put_array(t, "flags", MN_GGUF_BOOL, 2), put8(t, 1), put8(t, 0);
  put_array(t, "none", MN_GGUF_UINT64, 0);
  put_key(t, "general.alignment", MN_GGUF_UINT32), put32(t, 64);
}

/* Four tensors, the second of them last in the data. */
static void everything(mn_text *t) {
  put_header(t, 3, TENSORS, METAS);
  put_metas(t);
  put_tensor(t, "rows", 2, (uint64_t[]){3, 2}, MN_GGUF_F32, 0);
  put_tensor(t, "blocks", 2, (uint64_t[]){256, 2}, MN_GGUF_Q4_K, 128);
  put_tensor(t, "one", 1, (uint64_t[]){1}, MN_GGUF_I64, 64);
  put_tensor(t, "empty", 2, (uint64_t[]){32, 0}, MN_GGUF_Q8_0, 128);
  put_padding(t, 64);
  size_t data = t->len;
  for (int i = 0; i < 6; i++) put_float(t, (float)i + 0.5f);
  put_padding(t, 64);
  put64(t, 77);
  put_padding(t, 64);
  for (int i = 0; i < 2 * 144; i++) put8(t, (uint8_t)i);
  CHECK(t->len == data + 128 + 288, "%zu bytes", t->len);
}

static void every_tensor_is_where_the_list_says(void) {
  mn_text t = {0};
  void *bytes;
  everything(&t);
  mn_gguf *g = open_copy(t.data, t.len, &bytes);
  CHECK(g != NULL, "%s", mn_message());
  if (!g) return;
  CHECK(mn_gguf_count(g) == TENSORS && mn_gguf_version(g) == 3 && mn_gguf_alignment(g) == 64 && !mn_gguf_checksum(g), "the frame");
  const mn_gguf_tensor *rows = mn_gguf_find(g, "rows"), *blocks = mn_gguf_find(g, "blocks"), *one = mn_gguf_find(g, "one");
  CHECK(rows && rows == mn_gguf_at(g, 0) && rows->shape.ndim == 2 && rows->shape.dim[0] == 2 && rows->shape.dim[1] == 3,
        "two rows of three");
  CHECK(rows->bytes == 24 && ((const float *)rows->data)[5] == 5.5f && !strcmp(rows->type->name, "F32"), "its numbers");
  CHECK(blocks && blocks->bytes == 288 && ((const uint8_t *)blocks->data)[287] == (uint8_t)287 && blocks->type->block == 256, "blocks");
  CHECK(one && one->bytes == 8 && *(const int64_t *)one->data == 77, "one number");
  CHECK(mn_gguf_find(g, "empty")->bytes == 0 && !mn_gguf_find(g, "absent"), "an empty one, and none");
  for (int i = 0; i < TENSORS; i++) CHECK_OK(mn_gguf_check(g, mn_gguf_at(g, i)));
  mn_gguf_close(g);
  free(bytes);
  mn_text_free(&t);
}

static void every_value_is_read_as_its_kind(void) {
  mn_text t = {0};
  void *bytes;
  everything(&t);
  mn_gguf *g = open_copy(t.data, t.len, &bytes);
  mn_arena *a = mn_arena_new();
  if (!g) return;
  uint32_t u = 0;
  uint64_t w = 0;
  int64_t i = 0;
  float f = 0;
  double d = 0;
  bool b = false;
  const char *s = NULL;
  CHECK_OK(mn_gguf_u32(g, "u8", NULL, &u));
  CHECK(u == 200, "%u", u);
  CHECK_OK(mn_gguf_u32(g, "u16", NULL, &u));
  CHECK(u == 65534, "%u", u);
  CHECK_OK(mn_gguf_u32(g, "u32", NULL, &u));
  CHECK(u == 4000000000u, "%u", u);
  CHECK_OK(mn_gguf_i64(g, "i8", NULL, &i));
  CHECK(i == -100, "%lld", (long long)i);
  CHECK_OK(mn_gguf_i64(g, "i16", NULL, &i));
  CHECK(i == -2, "%lld", (long long)i);
  CHECK_OK(mn_gguf_i64(g, "i32", NULL, &i));
  CHECK(i == -7, "%lld", (long long)i);
  CHECK_OK(mn_gguf_i64(g, "i64", NULL, &i));
  CHECK(i == INT64_MIN, "%lld", (long long)i);
  CHECK_OK(mn_gguf_u64(g, "u64", NULL, &w));
  CHECK(w == UINT64_MAX, "%llu", (unsigned long long)w);
  CHECK_OK(mn_gguf_f32(g, "f32", NULL, &f));
  CHECK(f == 0.1f, "%g", (double)f);
  CHECK_OK(mn_gguf_f64(g, "f64", NULL, &d));
  CHECK(d == 1e300, "%g", d);
  CHECK_OK(mn_gguf_bool(g, "yes", NULL, &b));
  CHECK(b, "true");
  CHECK_OK(mn_gguf_string(g, "text", NULL, a, &s));
  CHECK(!strcmp(s, "a line\nand \xC3\xA9"), "%s", s);

  const mn_gguf_bytes *tokens = NULL;
  const float *scores = NULL;
  const int64_t *types = NULL;
  size_t n = 0;
  CHECK_OK(mn_gguf_strings(g, "tokens", a, &tokens, &n));
  CHECK(n == 3 && tokens[0].n == 2 && !memcmp(tokens[0].data, "ab", 2) && !memcmp(tokens[1].data, "\0\xFF", 2) && tokens[2].n == 0,
        "any bytes");
  CHECK_OK(mn_gguf_floats(g, "scores", a, &scores, &n));
  CHECK(n == 2 && scores[0] == -1.5f && scores[1] == 3, "floats");
  CHECK_OK(mn_gguf_floats(g, "f32", a, &scores, &n));
  CHECK(n == 1 && scores[0] == 0.1f, "one for a list");
  CHECK_OK(mn_gguf_ints(g, "types", a, &types, &n));
  CHECK(n == 3 && types[0] == 1 && types[1] == -2 && types[2] == 3, "integers");
  CHECK_OK(mn_gguf_ints(g, "flags", a, &types, &n));
  CHECK(n == 2 && types[0] == 1 && types[1] == 0, "truth values");
  CHECK_OK(mn_gguf_ints(g, "i8", a, &types, &n));
  CHECK(n == 1 && types[0] == -100, "one for a list");
  CHECK_OK(mn_gguf_ints(g, "none", a, &types, &n));
  CHECK(n == 0, "an empty list");

  const uint32_t fallback = 5;
  CHECK_OK(mn_gguf_u32(g, "absent", &fallback, &u));
  CHECK(u == 5, "what an absent key means");
  CHECK_OK(mn_gguf_string(g, "absent", "nothing", a, &s));
  CHECK(!strcmp(s, "nothing"), "%s", s);
  mn_arena_free(a);
  mn_gguf_close(g);
  free(bytes);
  mn_text_free(&t);
}

#define SAYS(status, expr, ...)                                                                                                            \
  do {                                                                                                                                     \
    const char *says_[] = {"bad.gguf", __VA_ARGS__};                                                                                       \
    CHECK((expr) == (status), "accepted, or another status: %s", mn_message());                                                            \
    for (size_t k_ = 0; k_ < sizeof says_ / sizeof *says_; k_++)                                                                           \
      CHECK(strstr(mn_message(), says_[k_]), "'%s' in: %s", says_[k_], mn_message());                                                      \
  } while (0)

static void what_does_not_fit_is_named(void) {
  mn_text t = {0}, shown = {0};
  void *bytes;
  everything(&t);
  mn_gguf *g = open_copy(t.data, t.len, &bytes);
  mn_arena *a = mn_arena_new();
  if (!g) return;
  uint32_t u;
  uint64_t w;
  int64_t i;
  float f;
  bool b;
  const char *s;
  const int64_t *list;
  const mn_gguf_bytes *strings;
  size_t n;
  const uint32_t fallback = 5;
  SAYS(MN_ERR_FORMAT, mn_gguf_u32(g, "absent", NULL, &u), "no key 'absent'");
  SAYS(MN_ERR_FORMAT, mn_gguf_u32(g, "i32", NULL, &u), "'i32' is -7", "does not fit");
  SAYS(MN_ERR_FORMAT, mn_gguf_u32(g, "u64", &fallback, &u), "18446744073709551615");
  SAYS(MN_ERR_FORMAT, mn_gguf_u32(g, "f32", NULL, &u), "FLOAT32", "an integer");
  SAYS(MN_ERR_FORMAT, mn_gguf_u32(g, "types", NULL, &u), "ARRAY of INT32", "an integer");
  SAYS(MN_ERR_FORMAT, mn_gguf_u32(g, "yes", NULL, &u), "BOOL");
  SAYS(MN_ERR_FORMAT, mn_gguf_u64(g, "i64", NULL, &w), "-9223372036854775808");
  SAYS(MN_ERR_FORMAT, mn_gguf_i64(g, "u64", NULL, &i), "does not fit");
  SAYS(MN_ERR_FORMAT, mn_gguf_f32(g, "f64", NULL, &f), "does not fit");
  SAYS(MN_ERR_FORMAT, mn_gguf_f32(g, "u8", NULL, &f), "UINT8", "a number with a point");
  SAYS(MN_ERR_FORMAT, mn_gguf_bool(g, "u8", NULL, &b), "UINT8", "a truth value");
  SAYS(MN_ERR_FORMAT, mn_gguf_string(g, "zero", NULL, a, &s), "'zero' holds a zero byte");
  SAYS(MN_ERR_FORMAT, mn_gguf_string(g, "tokens", NULL, a, &s), "ARRAY of STRING", "a string");
  SAYS(MN_ERR_FORMAT, mn_gguf_ints(g, "scores", a, &list, &n), "ARRAY of FLOAT32");
  SAYS(MN_ERR_FORMAT, mn_gguf_ints(g, "u64", a, &list, &n), "element 0");
  SAYS(MN_ERR_FORMAT, mn_gguf_strings(g, "text", a, &strings, &n), "STRING", "ARRAY of STRING");
  mn_gguf_meta_show(mn_gguf_meta_find(g, "tokens"), 2, 10, &shown);
  mn_text_add(&shown, " ");
  mn_gguf_meta_show(mn_gguf_meta_find(g, "text"), 2, 12, &shown);
  mn_text_add(&shown, " ");
  mn_gguf_meta_show(mn_gguf_meta_find(g, "types"), 9, 10, &shown);
  CHECK(!strcmp(shown.data, "[\"ab\", \"\\x00\\xff\", ... 3 in all] \"a line\\nand \"... [1, -2, 3]"), "%s", shown.data);
  mn_text_free(&shown);
  mn_arena_free(a);
  mn_gguf_close(g);
  free(bytes);
  mn_text_free(&t);
}

/* ---- malicious files ---- */

/* A file of one tensor and one key that a test can spoil: what is not 0 or NULL stands in place of what is right. */
typedef struct spoilt {
  const char *says; /* in the message; NULL: the file is good */
  mn_status status; /* 0: MN_ERR_FORMAT */
  const char *magic;
  uint32_t version;
  uint64_t tensors, metas; /* 99: none */
  const char *key, *name;
  uint32_t kind, of; /* 99: UINT8 */
  uint64_t count, length;
  uint32_t ndim;
  uint64_t dim[5];
  uint32_t type; /* 99: F32 */
  uint64_t offset;
  int missing, more; /* bytes of the data */
  bool twice;        /* the tensor is listed a second time, one alignment on */
  bool shifted;      /* under another name */
  bool padded;       /* what comes behind the data is zeros */
} spoilt;

static void make(const spoilt *s, mn_text *t) {
  uint64_t tensors = s->tensors == 99 ? 0 : s->tensors ? s->tensors : s->twice || s->shifted ? 2 : 1;
  mn_text_add_bytes(t, s->magic ? s->magic : "GGUF", 4);
  put32(t, s->version ? s->version : 3);
  put64(t, tensors);
  put64(t, s->metas ? s->metas : 1);
  put_key(t, s->key ? s->key : "key", s->kind ? s->kind == 99 ? 0 : s->kind : MN_GGUF_ARRAY);
  if (!s->kind || s->kind == MN_GGUF_ARRAY) {
    put32(t, s->of == 99 ? 0 : s->of ? s->of : MN_GGUF_STRING);
    put64(t, s->count ? s->count : 2);
    put64(t, s->length ? s->length : 4), mn_text_add(t, "four");
    put_string(t, "");
  } else put32(t, (uint32_t)s->length);
  const uint64_t usual[2] = {4, 4};
  uint32_t ndim = s->ndim ? s->ndim : 2, type = s->type == 99 ? 0 : s->type ? s->type : MN_GGUF_F16;
  for (int i = 0; i < 1 + (s->twice || s->shifted) && tensors; i++)
    put_tensor(t,
               i && s->shifted ? "other"
               : s->name       ? s->name
                               : "tensor",
               ndim, s->ndim ? s->dim : usual, type, s->offset + 32u * (unsigned)i);
  put_padding(t, 32);
  for (int i = 0; i < 32 - s->missing + s->more + 32 * (s->twice || s->shifted); i++) put8(t, s->padded && i >= 32 ? 0 : (uint8_t)i);
}

static void malicious_files_are_refused(void) {
  static const spoilt cases[] = {
      {0},
      {.version = 2},
      {.shifted = true},
      {.tensors = 99, .missing = 32},
      {.kind = MN_GGUF_UINT32, .key = "split.count", .length = 3}, /* whoever opens a model asks for the others */
      {.kind = MN_GGUF_UINT32, .key = "general.alignment", .length = 32},
      {.ndim = 4, .dim = {2, 2, 2, 2}},
      {.more = 31, .padded = true},
      {.says = "no GGUF file", .magic = "GGUX"},
      {.says = "version 1", .status = MN_ERR_UNSUPPORTED, .version = 1},
      {.says = "version 4", .status = MN_ERR_UNSUPPORTED, .version = 4},
      {.says = "big-endian GGUF file (version 3)", .status = MN_ERR_UNSUPPORTED, .version = 3u << 24},
      {.says = "the number of tensors is 1099511627776", .tensors = (uint64_t)1 << 40},
      {.says = "the number of tensors is 18446744073709551615", .tensors = UINT64_MAX},
      {.says = "the number of metadata entries is 9223372036854775807", .metas = INT64_MAX},
      {.says = "tensor 0: its name is 1125899906842624 bytes long", .metas = 2},
      {.says = "metadata entry 0: its key is empty", .key = ""},
      {.says = "its key is no text in UTF-8", .key = "\xC0\x80"},
      {.says = "its kind is 13", .kind = 13},
      {.says = "its kind is 4294967295", .kind = UINT32_MAX},
      {.says = "arrays inside of arrays", .of = MN_GGUF_ARRAY},
      {.says = "the kind of its elements is 77", .of = 77},
      {.says = "the number of its elements is 18446744073709551615", .count = UINT64_MAX},
      {.says = "the number of its elements is 2305843009213693952", .of = MN_GGUF_UINT64, .count = (uint64_t)1 << 61},
      {.says = "a string of the array is 18446744073709551608 bytes long", .length = UINT64_MAX - 7},
      {.says = "but a BOOL is 0 or 1", .kind = MN_GGUF_BOOL, .length = 2},
      {.says = "'general.alignment' is 0", .kind = MN_GGUF_UINT32, .key = "general.alignment"},
      {.says = "'general.alignment' is 48", .kind = MN_GGUF_UINT32, .key = "general.alignment", .length = 48},
      {.says = "'general.alignment' is 4,", .kind = MN_GGUF_UINT32, .key = "general.alignment", .length = 4},
      {.says = "'general.alignment' is FLOAT32", .kind = MN_GGUF_FLOAT32, .key = "general.alignment", .length = 32},
      {.says = "tensor 0: its name is empty", .name = ""},
      {.says = "'tensor': its name is there twice", .twice = true},
      {.says = "it has 5 dimensions", .ndim = 5, .dim = {2, 2, 2, 2, 1}},
      {.says = "dimension 0 is 9223372036854775808", .ndim = 1, .dim = {(uint64_t)1 << 63}},
      {.says = "larger than any memory", .ndim = 2, .dim = {(uint64_t)1 << 32, (uint64_t)1 << 32}},
      {.says = "larger than any memory", .ndim = 3, .dim = {0, (uint64_t)1 << 40, (uint64_t)1 << 40}, .type = MN_GGUF_F64},
      {.says = "larger than any memory", .ndim = 1, .dim = {(uint64_t)1 << 62}},
      {.says = "rows have 4 elements, but Q4_0 needs a multiple of 32", .type = MN_GGUF_Q4_0},
      {.says = "rows have 128 elements, but Q6_K needs a multiple of 256", .ndim = 2, .dim = {128, 2}, .type = MN_GGUF_Q6_K},
      {.says = "number 16 (IQ2_XXS), which Mneme does not read; it reads F32", .status = MN_ERR_UNSUPPORTED, .type = 16},
      {.says = "number 4 (unknown)", .status = MN_ERR_UNSUPPORTED, .type = 4},
      {.says = "number 4294967295 (unknown)", .status = MN_ERR_UNSUPPORTED, .type = UINT32_MAX},
      {.says = "offset 8 is no multiple of the alignment 32", .offset = 8},
      {.says = "outside of any file", .offset = UINT64_MAX - 31},
      {.says = "outside of the 32 bytes of data", .offset = 32},
      {.says = "outside of the 32 bytes of data", .offset = INT64_MAX - 31},
      {.says = "64 bytes before its data belong to no tensor", .offset = 64, .more = 64},
      {.says = "outside of the 31 bytes of data", .missing = 1},
      {.says = "31 bytes at its end belong to no tensor", .more = 31}, /* no padding, which is of zeros */
      {.says = "32 bytes at its end belong to no tensor", .more = 32, .padded = true},
      {.says = "32 bytes at its end belong to no tensor", .more = 32},
      {.says = "overlaps that of tensor 'tensor'", .shifted = true, .ndim = 1, .dim = {24}, .more = 16},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    mn_text t = {0};
    void *bytes = NULL;
    const spoilt *s = &cases[i];
    make(s, &t);
    mn_gguf *g = open_copy(t.data, t.len, &bytes);
    if (!s->says) CHECK(g, "case %zu: %s", i, mn_message());
    else
      CHECK(!g && strstr(mn_message(), s->says) && !strncmp(mn_message(), "bad.gguf: ", 10), "case %zu, '%s': %s", i, s->says,
            mn_message());
    mn_gguf *again;
    mn_status status = mn_gguf_open_bytes("bad.gguf", t.data, t.len, &again);
    CHECK(!s->says || status == (s->status ? s->status : MN_ERR_FORMAT), "case %zu: %s", i, mn_status_name(status));
    mn_gguf_close(again);
    mn_gguf_close(g);
    free(bytes);
    mn_text_free(&t);
  }
}

static void a_key_twice_is_refused(void) {
  mn_text t = {0};
  void *bytes;
  put_header(&t, 3, 0, 2);
  for (int i = 0; i < 2; i++) put_key(&t, "same", MN_GGUF_UINT8), put8(&t, (uint8_t)i);
  CHECK(!open_copy(t.data, t.len, &bytes) && strstr(mn_message(), "key 'same' is there twice"), "%s", mn_message());
  mn_text_free(&t);
}

/* Cut short anywhere, in a block of exactly that size; with every bit turned over: refused or read, never beyond. */
static void cut_and_flipped_files_never_crash(void) {
  mn_text t = {0};
  void *bytes;
  everything(&t);
  for (size_t n = 0; n < t.len; n++) {
    mn_gguf *g = open_copy(t.data, n, &bytes);
    CHECK(!g && *mn_message(), "cut to %zu of %zu bytes", n, t.len);
    mn_gguf_close(g);
  }
  int opened = 0;
  mn_arena *a = mn_arena_new();
  for (size_t bit = 0; bit < 8 * t.len; bit++) {
    t.data[bit / 8] ^= (char)(1 << bit % 8);
    mn_gguf *g = open_copy(t.data, t.len, &bytes);
    t.data[bit / 8] ^= (char)(1 << bit % 8);
    if (!g) continue;
    opened++;
    const char *from = bytes, *to = from + t.len;
    for (int i = 0; i < mn_gguf_count(g); i++) {
      const mn_gguf_tensor *x = mn_gguf_at(g, i);
      const char *p = x->data;
      CHECK(p >= from && p <= to && x->bytes <= (size_t)(to - p), "bit %zu: tensor %d", bit, i);
    }
    const mn_gguf_bytes *list;
    size_t n;
    if (mn_gguf_strings(g, "tokens", a, &list, &n) == MN_OK)
      for (size_t i = 0; i < n; i++) CHECK(list[i].data >= from && list[i].data + list[i].n <= to, "bit %zu: string %zu", bit, i);
    mn_gguf_close(g);
    free(bytes);
  }
  CHECK(opened > 1000 && opened < (int)(8 * t.len), "%d of %zu opened", opened, 8 * t.len);
  mn_arena_free(a);
  mn_text_free(&t);
}

static void a_file_that_is_cut_while_it_is_mapped_is_noticed(void) {
  mn_text t = {0};
  mn_gguf *g = NULL;
  everything(&t);
  CHECK_OK(mn_file_write(in_scratch("cut.gguf"), t.data, t.len));
  CHECK_OK(mn_gguf_open(in_scratch("cut.gguf"), &g));
  CHECK(g && mn_gguf_intact(g) == MN_OK, "whole");
  CHECK(truncate(in_scratch("cut.gguf"), 100) == 0, "cut");
  CHECK(mn_gguf_intact(g) == MN_ERR_IO && strstr(mn_message(), "cut.gguf"), "%s", mn_message());
  const volatile uint8_t *data = mn_gguf_find(g, "blocks")->data;
  (void)data[0]; /* reads as zero or as it was: no signal */
  mn_gguf_close(g);
  CHECK(mn_gguf_open(in_scratch("absent.gguf"), &g) == MN_ERR_IO && !g && strstr(mn_message(), "absent.gguf"), "%s", mn_message());
  CHECK_OK(mn_file_write(in_scratch("empty.gguf"), "", 0));
  CHECK(mn_gguf_open(in_scratch("empty.gguf"), &g) == MN_ERR_FORMAT && strstr(mn_message(), "no GGUF file"), "%s", mn_message());
  mn_text_free(&t);
}

static void types_are_found_by_name_and_number(void) {
  const mn_gguf_type_info *t;
  for (int i = 0; (t = mn_gguf_type_at(i)); i++) {
    const mn_gguf_type_info *found = NULL;
    CHECK_OK(mn_gguf_type_named(t->name, &found));
    CHECK(found == t && mn_gguf_type_find((uint32_t)t->type) == t, "%s", t->name);
  }
  CHECK_OK(mn_gguf_type_named("q4_k", &t));
  CHECK(t->type == MN_GGUF_Q4_K && t->bytes == 144, "small letters");
  CHECK(mn_gguf_type_named("q4k", &t) == MN_ERR_ARG && !t && strstr(mn_message(), "did you mean 'Q4_K'"), "%s", mn_message());
}

int main(void) {
  if (!mkdtemp(scratch)) return 1;
  RUN(every_tensor_is_where_the_list_says);
  RUN(every_value_is_read_as_its_kind);
  RUN(what_does_not_fit_is_named);
  RUN(malicious_files_are_refused);
  RUN(a_key_twice_is_refused);
  RUN(cut_and_flipped_files_never_crash);
  RUN(a_file_that_is_cut_while_it_is_mapped_is_noticed);
  RUN(types_are_found_by_name_and_number);
  char command[300];
  snprintf(command, sizeof command, "rm -rf '%s'", scratch);
  CHECK(system(command) == 0, "cleaned");
  return test_end();
}
