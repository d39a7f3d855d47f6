/* Blocks of few bits: what they hold is what the published layouts say, bit for bit; blocks that Mneme makes are no further from the
 * values than those of the programs that the formats are from. */
#include "format/quant.h"

#include "base/bf16.h"
#include "base/blocks.h"
#include "base/f16.h"
#include "format/gguf.h"
#include "format/safetensors.h"
#include "test.h"

#include <float.h>
#include <jansson.h>
#include <strings.h>

static mn_st *golden;
static json_t *errors;
enum { ROW = 2048 };

static const void *data_of(const char *kind, mn_dtype type, size_t *bytes) {
  char name[64];
  snprintf(name, sizeof name, "%s.%s", kind, mn_dtype_name(type));
  const mn_st_tensor *t = mn_st_find(golden, name);
  CHECK(t, "%s", name);
  if (bytes) *bytes = t ? t->bytes : 0;
  return t ? t->data : NULL;
}

static bool of_blocks(mn_dtype type) { return mn_dtype_is_stored(type) && mn_block_values(type) > 1; }

static void blocks_hold_what_the_layouts_say(void) {
  int types = 0;
  for (mn_dtype type = 0; type < MN_ALL_TYPES; type++) {
    float values[256];
    size_t bytes;
    if (!of_blocks(type)) continue;
    types++;
    const void *blocks = data_of("blocks", type, &bytes), *expected = data_of("values", type, NULL);
    CHECK(bytes == 256 / (size_t)mn_block_values(type) * mn_block_bytes(type), "%s: %zu bytes", mn_dtype_name(type), bytes);
    mn_dequantize(type, blocks, 256, values);
    int differ = 0;
    for (int i = 0; i < 256; i++) differ += memcmp(&values[i], (const char *)expected + 4 * i, 4) != 0;
    CHECK(differ == 0, "%s: %d of 256 values differ", mn_dtype_name(type), differ);
    char shifted[1024];
    memcpy(shifted + 1, blocks, bytes); /* from where nothing is aligned */
    float again[256];
    mn_dequantize(type, shifted + 1, 256, again);
    CHECK(!memcmp(values, again, sizeof again), "%s: unaligned", mn_dtype_name(type));
  }
  CHECK(types == 13, "%d types", types);
}

/* Squared error as a part of the sum of squares. */
static double error_of(mn_dtype type, const float *x, int64_t n) {
  static uint8_t blocks[4 * ROW];
  static float y[ROW];
  double error = 0, all = 0;
  CHECK_OK(mn_quantize(NULL, type, x, n, blocks));
  mn_dequantize(type, blocks, n, y);
  for (int64_t i = 0; i < n; i++) {
    double r = (double)x[i] - (double)y[i];
    error += r * r;
    all += (double)x[i] * (double)x[i];
  }
  return error / all;
}

static void a_row(const char *name, float *x) {
  const mn_st_tensor *t = mn_st_find(golden, name);
  CHECK(t && t->bytes == 2 * ROW, "%s", name);
  CHECK_OK(mn_st_read(golden, t, MN_F32, x));
}

static void blocks_that_are_made_are_no_further_than_those_of_others(void) {
  static const char *const rows[] = {"gauss", "heavy"};
  for (int r = 0; r < 2; r++) {
    float x[ROW];
    a_row(rows[r], x);
    for (mn_dtype type = 0; type < MN_ALL_TYPES; type++) {
      char key[64];
      if (!of_blocks(type)) continue;
      snprintf(key, sizeof key, "%s.%s", rows[r], mn_dtype_name(type));
      const double theirs = json_number_value(json_object_get(errors, key)), ours = error_of(type, x, ROW);
      CHECK(theirs > 0 && ours <= theirs, "%s: %.4e, the others' %.4e", key, ours, theirs);
      CHECK(ours > 0.3 * theirs, "%s: %.4e is too good to be true", key, ours);
    }
  }
}

/* No scale that f16 holds is better for a block than the one that was found, tried one by one. */
static void scales_of_plain_blocks_are_near_the_best(void) {
  float x[ROW], y[32];
  a_row("gauss", x);
  double found = 0, best = 0;
  for (int b = 0; b < ROW / 32; b += 8) {
    mn_q4_0 block;
    const float *v = x + 32 * b;
    double least = INFINITY, error = 0;
    CHECK_OK(mn_quantize(NULL, MN_Q4_0, v, 32, &block));
    mn_dequantize(MN_Q4_0, &block, 32, y);
    for (int i = 0; i < 32; i++) error += pow((double)v[i] - (double)y[i], 2);
    for (uint32_t h = 0x2800; h < 0x4000; h++) /* 0.03 to 2 */
      for (int sign = -1; sign <= 1; sign += 2) {
        const double d = sign * (double)mn_f16_to_float((uint16_t)h);
        double e = 0;
        for (int i = 0; i < 32; i++) {
          double q = nearbyint((double)v[i] / d);
          q = q < -8 ? -8 : q > 7 ? 7 : q;
          e += pow((double)v[i] - d * q, 2);
        }
        if (e < least) least = e;
      }
    CHECK(error <= 1.2 * least, "block %d: %.4e, the best %.4e", b, error, least);
    found += error;
    best += least;
  }
  CHECK(found <= 1.03 * best, "%.4e, the best %.4e", found, best);
}

/* What a block holds is what comes of it again: files that are read and written do not wear. */
static void blocks_of_what_blocks_hold_are_the_same(void) {
  float x[ROW], once[ROW], twice[ROW];
  uint8_t blocks[4 * ROW];
  a_row("heavy", x);
  for (mn_dtype type = 0; type < MN_ALL_TYPES; type++) {
    if (!mn_quant_knows(type)) continue;
    CHECK_OK(mn_quantize(NULL, type, x, ROW, blocks));
    mn_dequantize(type, blocks, ROW, once);
    CHECK_OK(mn_quantize(NULL, type, once, ROW, blocks));
    mn_dequantize(type, blocks, ROW, twice);
    double error = 0, all = 0;
    for (int i = 0; i < ROW; i++) {
      error += pow((double)once[i] - (double)twice[i], 2);
      all += pow((double)once[i], 2);
    }
    const bool exact = type <= MN_Q8_0 || type == MN_IQ4_NL || type == MN_MXFP4;
    CHECK(exact ? error == 0 : error <= 1e-3 * all, "%s: %.2e", mn_dtype_name(type), error / all);
  }
}

static void extreme_values_stay_numbers(void) {
  float cases[8][256] = {{0}}, y[256];
  uint8_t blocks[1024];
  for (int i = 0; i < 256; i++) {
    cases[1][i] = 0.25f;                        /* all alike */
    cases[2][i] = -3;                           /* and below zero */
    cases[3][i] = i == 77 ? 1000 : 0;           /* one among zeros */
    cases[4][i] = (i % 2 ? -1e-9f : 1e-9f);     /* below what f16 holds */
    cases[5][i] = (i % 7 == 0 ? 6e4f : -1e-3f); /* far apart */
    cases[6][i] = -0.0f;
    cases[7][i] = 1e-42f * (float)i; /* not normal */
  }
  for (mn_dtype type = 0; type < MN_ALL_TYPES; type++) {
    if (!mn_quant_knows(type)) continue;
    for (int k = 0; k < 8; k++) {
      float most = 0;
      CHECK_OK(mn_quantize(NULL, type, cases[k], 256, blocks));
      mn_dequantize(type, blocks, 256, y);
      for (int i = 0; i < 256; i++) most = fabsf(cases[k][i]) > most ? fabsf(cases[k][i]) : most;
      for (int i = 0; i < 256; i++)
        CHECK(isfinite(y[i]) && fabsf(y[i] - cases[k][i]) <= 0.5f * most + 1e-7f, "%s, case %d: value %d is %g, was %g",
              mn_dtype_name(type), k, i, (double)y[i], (double)cases[k][i]);
    }
    float none = 0, alike = 0;
    CHECK_OK(mn_quantize(NULL, type, cases[0], 256, blocks));
    mn_dequantize(type, blocks, 256, y);
    for (int i = 0; i < 256; i++) none += fabsf(y[i]);
    CHECK(none == 0, "%s: zeros stay zeros", mn_dtype_name(type));
    CHECK_OK(mn_quantize(NULL, type, cases[1], 256, blocks));
    mn_dequantize(type, blocks, 256, y);
    for (int i = 0; i < 256; i++) alike = fabsf(y[i] - 0.25f) > alike ? fabsf(y[i] - 0.25f) : alike;
    CHECK(alike <= 0.25f * 0.01f, "%s: one value for all is kept: off by %g", mn_dtype_name(type), (double)alike);
  }
}

static void what_has_no_form_is_refused(void) {
  float x[256] = {0};
  uint8_t blocks[1024];
  for (mn_dtype type = 0; type < MN_ALL_TYPES; type++) {
    if (!mn_quant_knows(type)) continue;
    x[200] = NAN;
    CHECK(mn_quantize(NULL, type, x, 256, blocks) == MN_ERR_NUMERIC && strstr(mn_message(), "value 200 is NaN"), "%s", mn_message());
    x[200] = -INFINITY;
    CHECK(mn_quantize(NULL, type, x, 256, blocks) == MN_ERR_NUMERIC && strstr(mn_message(), "-infinity"), "%s", mn_message());
    x[200] = 3e38f;
    mn_status status = mn_quantize(NULL, type, x, 256, blocks);
    if (mn_dtype_plain(type) == MN_BF16) { /* holds it, but not what rounds to infinity */
      CHECK(status == MN_OK, "%s", mn_message());
      x[200] = 0x1.fefffep127f;
      CHECK_OK(mn_quantize(NULL, type, x, 256, blocks));
      CHECK(isfinite(mn_bf16_to_float(((const uint16_t *)(const void *)blocks)[200])), "the largest that is held became infinity");
      x[200] = FLT_MAX;
      status = mn_quantize(NULL, type, x, 256, blocks);
    }
    if (type == MN_F32) CHECK(status == MN_OK, "%s holds it", mn_dtype_name(type));
    else
      CHECK(status == MN_ERR_NUMERIC && strstr(mn_message(), mn_dtype_name(type)) && strstr(mn_message(), "at most"), "%s: %s",
            mn_dtype_name(type), mn_message());
  }
  CHECK(!mn_quant_knows(MN_I32) && !mn_quant_knows(MN_F64) && !mn_quant_knows(MN_DTYPES), "no types of blocks");
}

static void blocks_do_not_depend_on_threads(void) {
  enum { N = 3 * 4096 + 512 };
  static float x[N];
  static uint8_t one[4 * N], three[4 * N];
  mn_pool *pool = mn_pool_new(3);
  for (int i = 0; i < N; i++) x[i] = (float)mn_random_normal(7, 0, (uint64_t)i);
  for (mn_dtype type = 0; type < MN_ALL_TYPES; type++) {
    if (!mn_quant_knows(type)) continue;
    CHECK_OK(mn_quantize(NULL, type, x, N, one));
    CHECK_OK(mn_quantize(pool, type, x, N, three));
    CHECK(!memcmp(one, three, mn_dtype_bytes(type, N)), "%s", mn_dtype_name(type));
  }
  mn_pool_free(pool);
}

/* GGUF's list of types and the list of all of Mneme's say the same. */
static void types_of_files_are_types_of_ours(void) {
  const mn_gguf_type_info *t;
  for (int i = 0; (t = mn_gguf_type_at(i)); i++) {
    if (t->dtype == MN_DTYPES) continue;
    CHECK(!strcasecmp(t->name, mn_dtype_name(t->dtype)), "%s, %s", t->name, mn_dtype_name(t->dtype));
    CHECK(t->block == mn_block_values(t->dtype) && t->bytes == (int)mn_block_bytes(t->dtype), "%s", t->name);
    CHECK(mn_gguf_type_of(t->dtype) == t, "%s", t->name);
  }
  for (mn_dtype type = 0; type < MN_ALL_TYPES; type++)
    if (mn_quant_knows(type)) CHECK(mn_gguf_type_of(type), "%s is a type of files", mn_dtype_name(type));
  CHECK(!mn_gguf_type_of(MN_BOOL) && !mn_gguf_type_of(MN_DTYPES), "none");
}

int main(void) {
  CHECK_OK(mn_st_open(MN_TEST_SOURCE_DIR "/tests/golden/quant/formats.safetensors", &golden));
  if (!golden) return test_end();
  errors = json_loads(mn_st_meta(golden, "errors"), 0, NULL);
  RUN(blocks_hold_what_the_layouts_say);
  RUN(blocks_that_are_made_are_no_further_than_those_of_others);
  RUN(scales_of_plain_blocks_are_near_the_best);
  RUN(blocks_of_what_blocks_hold_are_the_same);
  RUN(extreme_values_stay_numbers);
  RUN(what_has_no_form_is_refused);
  RUN(blocks_do_not_depend_on_threads);
  RUN(types_of_files_are_types_of_ours);
  json_decref(errors);
  mn_st_close(golden);
  return test_end();
}
