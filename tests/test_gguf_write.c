/* GGUF files of ours: what is written is read back bit for bit, the same list gives the same bytes, and a damaged file gives what
 * was written or nothing. */
#include "gguf_bytes.h"

#include "base/file.h"
#include "test.h"

static char scratch[] = P_tmpdir "/mneme-test-gguf-XXXXXX";

static const char *in_scratch(const char *name) {
  static char path[4][256];
  static int turn;
  char *p = path[turn++ % 4];
  snprintf(p, sizeof path[0], "%s/%s", scratch, name);
  return p;
}

static mn_status fill_ramp(void *ctx, size_t offset, size_t n, void *dst) {
  CHECK(offset % 34 == 0 && n % 34 == 0, "whole blocks: %zu, %zu", offset, n);
  *(size_t *)ctx += n;
  for (size_t i = 0; i < n; i++) ((uint8_t *)dst)[i] = (uint8_t)((offset + i) * 31 >> 3);
  return MN_OK;
}

static mn_status fail_late(void *ctx, size_t offset, size_t n, void *dst) {
  memset(dst, 0, n);
  return offset > 0 ? mn_fail(MN_ERR_NUMERIC, "the device said %d", *(int *)ctx) : MN_OK;
}

enum { LONG_ROWS = 40000 };
static const float six[6] = {1, 2, 3, 4, 5, 6};
static const mn_shape two_three = {2, {2, 3}}, long_rows = {3, {2, LONG_ROWS / 2, 32}};
static const uint8_t half_block[136] = {1, 2, 3};

static mn_gguf_writer *list_of_everything(size_t *asked) {
  mn_gguf_writer *w = mn_gguf_writer_new();
  CHECK_OK(mn_gguf_writer_string(w, "general.architecture", "test"));
  CHECK_OK(mn_gguf_writer_u32(w, "u32", 7));
  CHECK_OK(mn_gguf_writer_u64(w, "u64", UINT64_MAX));
  CHECK_OK(mn_gguf_writer_i32(w, "i32", -7));
  CHECK_OK(mn_gguf_writer_f32(w, "f32", 0.1f));
  CHECK_OK(mn_gguf_writer_bool(w, "bool", true));
  CHECK_OK(mn_gguf_writer_strings(w, "tokens", (mn_gguf_bytes[]){{"a", 1}, {"\0\xFF", 2}, {"", 0}}, 3));
  CHECK_OK(mn_gguf_writer_i32s(w, "types", (int32_t[]){1, -2}, 2));
  CHECK_OK(mn_gguf_writer_f32s(w, "scores", (float[]){0.5f, -1}, 2));
  CHECK_OK(mn_gguf_writer_bools(w, "flags", (bool[]){true, false, true}, 3));
  CHECK_OK(mn_gguf_writer_u32(w, "general.alignment", 64));
  CHECK_OK(mn_gguf_writer_add(w, "f32", MN_GGUF_F32, &two_three, six));
  CHECK_OK(mn_gguf_writer_add(w, "xs", MN_GGUF_IQ4_XS, &(mn_shape){1, {256}}, half_block));
  CHECK_OK(mn_gguf_writer_add(w, "nothing", MN_GGUF_Q8_0, &(mn_shape){2, {0, 32}}, NULL));
  CHECK_OK(mn_gguf_writer_add_source(w, "long", MN_GGUF_Q8_0, &long_rows, fill_ramp, asked));
  return w;
}

static void what_is_written_is_read(void) {
  size_t asked = 0;
  mn_gguf_writer *w = list_of_everything(&asked);
  CHECK_OK(mn_gguf_writer_save(w, in_scratch("all.gguf")));
  CHECK(asked == LONG_ROWS * 34, "%zu", asked);
  CHECK_OK(mn_gguf_writer_save(w, in_scratch("again.gguf")));
  mn_gguf_writer_free(w);
  char one[MN_HASH_HEX], two[MN_HASH_HEX];
  CHECK_OK(mn_file_hash(in_scratch("all.gguf"), one));
  CHECK_OK(mn_file_hash(in_scratch("again.gguf"), two));
  CHECK(!strcmp(one, two), "the same list gives the same bytes");

  mn_gguf *g = NULL;
  CHECK_OK(mn_gguf_open(in_scratch("all.gguf"), &g));
  if (!g) return;
  mn_text shown = {0};
  for (int i = 0; i < mn_gguf_meta_count(g); i++) {
    const mn_gguf_meta *m = mn_gguf_meta_at(g, i);
    mn_text_addf(&shown, "%s=", m->key);
    mn_gguf_meta_show(m, 9, 99, &shown);
    mn_text_add(&shown, ";");
  }
  CHECK(!strcmp(shown.data,
                "general.architecture=\"test\";u32=7;u64=18446744073709551615;i32=-7;f32=0.1;bool=true;"
                "tokens=[\"a\", \"\\x00\\xff\", \"\"];types=[1, -2];scores=[0.5, -1];flags=[true, false, true];general.alignment=64;"),
        "%s", shown.data);
  mn_text_free(&shown);
  CHECK(mn_gguf_count(g) == 4 && mn_gguf_alignment(g) == 64 && mn_gguf_checksum(g), "the frame");
  const mn_gguf_tensor *t = mn_gguf_find(g, "f32");
  CHECK(t && mn_shape_equal(&t->shape, &two_three) && !memcmp(t->data, six, 24), "f32");
  t = mn_gguf_find(g, "xs");
  CHECK(t && t->bytes == 136 && !memcmp(t->data, half_block, 136), "blocks");
  t = mn_gguf_find(g, "long");
  CHECK(t && mn_shape_equal(&t->shape, &long_rows) && ((const uint8_t *)t->data)[1000003] == (uint8_t)(1000003u * 31 >> 3), "a source");
  CHECK((uintptr_t)t->data % 64 == 0, "aligned");
  for (int i = 0; i < 4; i++) CHECK_OK(mn_gguf_check(g, mn_gguf_at(g, i)));

  w = mn_gguf_writer_new(); /* all of it copied from the file */
  for (int i = 0; i < mn_gguf_meta_count(g); i++) CHECK_OK(mn_gguf_writer_copy(w, mn_gguf_meta_at(g, i)));
  for (int i = 0; i < 4; i++) {
    t = mn_gguf_at(g, i);
    CHECK_OK(mn_gguf_writer_add(w, t->name, t->type->type, &t->shape, t->data));
  }
  CHECK_OK(mn_gguf_writer_save(w, in_scratch("copy.gguf")));
  mn_gguf_writer_free(w);
  mn_gguf_close(g);
  CHECK_OK(mn_file_hash(in_scratch("copy.gguf"), two));
  CHECK(!strcmp(one, two), "a copy has the same bytes");
}

static void the_writer_refuses_what_has_no_form(void) {
  mn_gguf_writer *w = mn_gguf_writer_new();
  char name[70];
  memset(name, 'n', 64);
  name[64] = 0;
  CHECK(mn_gguf_writer_add(w, "", MN_GGUF_F32, &two_three, six) == MN_ERR_ARG, "no name");
  CHECK(mn_gguf_writer_add(w, name, MN_GGUF_F32, &two_three, six) == MN_ERR_ARG, "too long a name");
  CHECK(mn_gguf_writer_add(w, "\xFF", MN_GGUF_F32, &two_three, six) == MN_ERR_ARG, "not UTF-8");
  CHECK(mn_gguf_writer_add(w, "x", MN_GGUF_F32, &two_three, NULL) == MN_ERR_ARG, "no data");
  CHECK(mn_gguf_writer_add(w, "x", MN_GGUF_Q4_0, &two_three, six) == MN_ERR_ARG && strstr(mn_message(), "a multiple of 32"), "%s",
        mn_message());
  CHECK(mn_gguf_writer_add(w, "x", MN_GGUF_F32, &(mn_shape){2, {-1, 2}}, six) == MN_ERR_ARG, "negative");
  CHECK(mn_gguf_writer_add(w, "x", MN_GGUF_F32, &(mn_shape){2, {INT64_MAX, 2}}, six) == MN_ERR_ARG, "overflow");
  CHECK(mn_gguf_writer_add(w, "x", MN_GGUF_F32, &(mn_shape){5, {1, 1, 1, 1, 1}}, six) == MN_ERR_ARG, "five dimensions");
  CHECK(mn_gguf_writer_add(w, "x", (mn_gguf_type)16, &two_three, six) == MN_ERR_ARG, "a type that is not written");
  CHECK(mn_gguf_writer_u32(w, "general.alignment", 12) == MN_ERR_ARG, "alignment");
  CHECK_OK(mn_gguf_writer_u32(w, "k", 1));
  CHECK(mn_gguf_writer_u32(w, "k", 2) == MN_ERR_ARG, "twice");
  CHECK_OK(mn_gguf_writer_add(w, "x", MN_GGUF_F32, &two_three, six));
  CHECK_OK(mn_gguf_writer_save(w, in_scratch("kept.gguf")));
  CHECK_OK(mn_gguf_writer_add(w, "x", MN_GGUF_F32, &two_three, six));
  CHECK(mn_gguf_writer_save(w, in_scratch("kept.gguf")) == MN_ERR_ARG && strstr(mn_message(), "named 'x'"), "%s", mn_message());
  mn_gguf_writer_free(w);
  w = mn_gguf_writer_new();
  int said = 42;
  CHECK_OK(mn_gguf_writer_add_source(w, "gone", MN_GGUF_F32, &(mn_shape){1, {1 << 20}}, fail_late, &said));
  CHECK(mn_gguf_writer_save(w, in_scratch("kept.gguf")) == MN_ERR_NUMERIC, "a source's fault");
  CHECK(!strcmp(mn_message(), "tensor 'gone': the device said 42"), "%s", mn_message());
  mn_gguf_writer_free(w);
  mn_gguf *g = NULL;
  CHECK_OK(mn_gguf_open(in_scratch("kept.gguf"), &g));
  CHECK(g && mn_gguf_count(g) == 1, "the file from before is intact");
  mn_gguf_close(g);
  w = mn_gguf_writer_new();
  CHECK_OK(mn_gguf_writer_save(w, in_scratch("none.gguf")));
  mn_gguf_writer_free(w);
  CHECK_OK(mn_gguf_open(in_scratch("none.gguf"), &g));
  CHECK(g && mn_gguf_count(g) == 0 && mn_gguf_checksum(g), "a file without tensors");
  mn_gguf_close(g);
}

/* ---- damage ---- */

/* What a reader takes from a file: every value, and every tensor that its checksum holds to; NULL: refused. */
static char *taken(const char *data, size_t n) {
  void *bytes;
  mn_text all = {0};
  mn_gguf *g = open_copy(data, n, &bytes);
  bool whole = g != NULL;
  for (int i = 0; whole && i < mn_gguf_meta_count(g); i++) {
    mn_text_add(&all, mn_gguf_meta_at(g, i)->key);
    mn_gguf_meta_show(mn_gguf_meta_at(g, i), 99, 9999, &all);
  }
  for (int i = 0; whole && i < mn_gguf_count(g); i++) {
    const mn_gguf_tensor *t = mn_gguf_at(g, i);
    char hex[MN_HASH_HEX], shape[96];
    whole = mn_gguf_check(g, t) == MN_OK;
    mn_content_hash(t->data, t->bytes, hex);
    mn_text_addf(&all, "%s %s %s %s", t->name, t->type->name, mn_shape_str(&t->shape, shape), hex);
  }
  mn_gguf_close(g);
  free(bytes);
  if (whole) return mn_text_take(&all);
  mn_text_free(&all);
  return NULL;
}

/* Every bit of a file of ours turned over, every byte removed: what was written, or refused with a message; never another result.
 * Only padding is not covered. */
static void a_damaged_file_of_ours_gives_what_was_written_or_nothing(void) {
  mn_gguf_writer *w = mn_gguf_writer_new();
  char *data;
  size_t n;
  CHECK_OK(mn_gguf_writer_string(w, "name", "mneme.header"));
  CHECK_OK(mn_gguf_writer_i32s(w, "types", (int32_t[]){1, -2}, 2));
  CHECK_OK(mn_gguf_writer_add(w, "f32", MN_GGUF_F32, &two_three, six));
  CHECK_OK(mn_gguf_writer_add(w, "xs", MN_GGUF_IQ4_XS, &(mn_shape){1, {256}}, half_block));
  CHECK_OK(mn_gguf_writer_save(w, in_scratch("ours.gguf")));
  mn_gguf_writer_free(w);
  CHECK_OK(mn_file_read(in_scratch("ours.gguf"), 1 << 20, &data, &n));
  char *good = taken(data, n);
  CHECK(good, "%s", mn_message());
  size_t same = 0;
  for (size_t bit = 0; bit < 8 * n; bit++) {
    data[bit / 8] ^= (char)(1 << bit % 8);
    char *now = taken(data, n);
    data[bit / 8] ^= (char)(1 << bit % 8);
    CHECK(!now || !strcmp(now, good), "bit %zu: another result", bit);
    same += now != NULL;
    free(now);
  }
  CHECK(same <= 8 * (31 + 8 + 24), "%zu bits do not count: more than the padding", same);
  char *less = malloc(n);
  for (size_t at = 0; at < n; at++) {
    memcpy(less, data, at);
    memcpy(less + at, data + at + 1, n - at - 1);
    char *now = taken(less, n - 1);
    CHECK(!now || !strcmp(now, good), "without byte %zu: another result", at);
    free(now);
  }
  free(less);
  free(good);
  free(data);
}

/* Other programs copy metadata and tensors, and nothing else. */
static void a_file_that_another_program_wrote_anew_has_no_checksums(void) {
  char *data;
  size_t n;
  void *bytes;
  CHECK_OK(mn_file_read(in_scratch("ours.gguf"), 1 << 20, &data, &n));
  mn_gguf *g = open_copy(data, n - (24 + 3 * 32), &bytes); /* as it is without what stands behind the data */
  CHECK(g && !mn_gguf_checksum(g) && !mn_gguf_at(g, 0)->checksum[0], "%s", mn_message());
  mn_gguf_close(g);
  free(bytes);
  for (size_t cut = 1; cut < 24 + 3 * 32; cut++) { /* anywhere within: damage */
    g = open_copy(data, n - cut, &bytes);
    CHECK(!g, "without the last %zu bytes", cut);
    mn_gguf_close(g);
  }
  free(data);
}

int main(void) {
  if (!mkdtemp(scratch)) return 1;
  RUN(what_is_written_is_read);
  RUN(the_writer_refuses_what_has_no_form);
  RUN(a_damaged_file_of_ours_gives_what_was_written_or_nothing);
  RUN(a_file_that_another_program_wrote_anew_has_no_checksums);
  char command[300];
  snprintf(command, sizeof command, "rm -rf '%s'", scratch);
  CHECK(system(command) == 0, "cleaned");
  return test_end();
}
