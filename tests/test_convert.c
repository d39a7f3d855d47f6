/* `mneme convert`: a file in other types says nearly the same, one in its own types the same to the bit, and nothing is written by halves. */
#include "base/file.h"
#include "checkpoint/convert.h"
#include "format/gguf.h"
#include "format/quant.h"
#include "program.h"
#include "test.h"

enum { ROWS = 6, WIDTH = 512, NARROW = 48, HEAD = 32 };
static float matrix[ROWS * WIDTH];
static const int32_t numbers[4] = {1, -2, 3, 4};

static void put_model(const char *path) {
  mn_gguf_writer *w = mn_gguf_writer_new();
  for (int i = 0; i < ROWS * WIDTH; i++) matrix[i] = (float)mn_random_normal(3, 0, (uint64_t)i);
  CHECK_OK(mn_gguf_writer_string(w, "general.architecture", "of-nobody"));
  CHECK_OK(mn_gguf_writer_u32(w, "general.file_type", 0));
  CHECK_OK(mn_gguf_writer_strings(w, "tokenizer.ggml.tokens", (mn_gguf_bytes[]){{"a", 1}, {"\0\xFF", 2}}, 2));
  CHECK_OK(mn_gguf_writer_u32(w, "general.alignment", 64));
  CHECK_OK(mn_gguf_writer_add(w, "token_embd.weight", MN_GGUF_F32, &(mn_shape){2, {ROWS, WIDTH}}, matrix));
  CHECK_OK(mn_gguf_writer_add(w, "blk.0.ffn_up.weight", MN_GGUF_F32, &(mn_shape){2, {ROWS, WIDTH}}, matrix));
  CHECK_OK(mn_gguf_writer_add(w, "blk.0.attn_v.weight", MN_GGUF_F32, &(mn_shape){2, {ROWS, WIDTH}}, matrix));
  CHECK_OK(mn_gguf_writer_add(w, "blk.0.experts.weight", MN_GGUF_F32, &(mn_shape){3, {2, ROWS / 2, WIDTH}}, matrix));
  CHECK_OK(mn_gguf_writer_add(w, "blk.0.small.weight", MN_GGUF_F32, &(mn_shape){2, {ROWS, HEAD}}, matrix));
  CHECK_OK(mn_gguf_writer_add(w, "blk.0.odd.weight", MN_GGUF_F32, &(mn_shape){2, {ROWS, NARROW}}, matrix));
  CHECK_OK(mn_gguf_writer_add(w, "blk.0.attn_norm.weight", MN_GGUF_F32, &(mn_shape){1, {WIDTH}}, matrix));
  CHECK_OK(mn_gguf_writer_add(w, "blk.0.ssm_conv1d.weight", MN_GGUF_F32, &(mn_shape){2, {ROWS, HEAD}}, matrix));
  CHECK_OK(mn_gguf_writer_add(w, "blk.0.up.bias", MN_GGUF_F32, &(mn_shape){1, {WIDTH}}, matrix));
  CHECK_OK(mn_gguf_writer_add(w, "ids", MN_GGUF_I32, &(mn_shape){1, {4}}, numbers));
  CHECK_OK(mn_gguf_writer_save(w, path));
  mn_gguf_writer_free(w);
}

static void check_type(const mn_gguf *g, const char *name, const char *type) {
  const mn_gguf_tensor *t = mn_gguf_find(g, name);
  CHECK(t && !strcmp(t->type->name, type), "%s is %s, not %s", name, t ? t->type->name : "missing", type);
}

static double error_of(const mn_gguf *g, const char *name, int64_t n) {
  static float y[ROWS * WIDTH];
  const mn_gguf_tensor *t = mn_gguf_find(g, name);
  double error = 0, all = 0;
  mn_dequantize(t->type->dtype, t->data, n, y);
  for (int64_t i = 0; i < n; i++) {
    error += pow((double)y[i] - (double)matrix[i], 2);
    all += pow((double)matrix[i], 2);
  }
  return sqrt(error / all);
}

static void weights_get_the_type_and_what_decides_stays_exact(void) {
  put_model("a.gguf");
  CHECK(sh(MNEME "convert a.gguf --out b.gguf --type q4_k --quiet 2>&1") == 0, "%s", out);
  mn_gguf *g = NULL;
  CHECK_OK(mn_gguf_open("b.gguf", &g));
  if (!g) return;
  check_type(g, "token_embd.weight", "Q6_K");
  check_type(g, "blk.0.ffn_up.weight", "Q4_K");
  check_type(g, "blk.0.attn_v.weight", "Q4_K");
  check_type(g, "blk.0.experts.weight", "Q4_K");
  check_type(g, "blk.0.small.weight", "Q5_0");
  check_type(g, "blk.0.odd.weight", "F16");
  check_type(g, "blk.0.attn_norm.weight", "F32");
  check_type(g, "blk.0.ssm_conv1d.weight", "F32");
  check_type(g, "blk.0.up.bias", "F32");
  check_type(g, "ids", "I32");
  CHECK(error_of(g, "blk.0.ffn_up.weight", ROWS * WIDTH) < 0.08 && error_of(g, "token_embd.weight", ROWS * WIDTH) < 0.02,
        "values are near");
  CHECK(error_of(g, "blk.0.experts.weight", ROWS * WIDTH) == error_of(g, "blk.0.ffn_up.weight", ROWS * WIDTH), "three axes are rows, too");
  CHECK(error_of(g, "blk.0.up.bias", WIDTH) == 0 && !memcmp(mn_gguf_find(g, "ids")->data, numbers, sizeof numbers),
        "what stays is the same");
  uint32_t type = 0, alignment = (uint32_t)mn_gguf_alignment(g);
  CHECK_OK(mn_gguf_u32(g, "general.file_type", NULL, &type));
  CHECK(type == 14 && alignment == 64 && mn_gguf_meta_find(g, "tokenizer.ggml.tokens"), "type %u, alignment %u", type, alignment);
  CHECK(mn_gguf_checksum(g), "a file of ours");
  mn_gguf_close(g);
}

static void without_a_type_every_tensor_is_the_same(void) {
  CHECK(sh(MNEME "convert b.gguf --out c.gguf --json 2>&1") == 0, "%s", out);
  CHECK(strstr(out, "\"rewritten\": 0"), "%s", out);
  char one[33], two[33];
  CHECK_OK(mn_file_hash("b.gguf", one));
  CHECK_OK(mn_file_hash("c.gguf", two));
  CHECK(!strcmp(one, two), "the same bytes");
  CHECK(sh(MNEME "convert a.gguf --out one.gguf --type q3_k --threads 1 --quiet 2>&1") == 0, "%s", out);
  CHECK(sh(MNEME "convert a.gguf --out three.gguf --type q3_k --threads 3 --quiet 2>&1") == 0, "%s", out);
  CHECK_OK(mn_file_hash("one.gguf", one));
  CHECK_OK(mn_file_hash("three.gguf", two));
  CHECK(!strcmp(one, two), "for any number of threads");
}

static void tensors_named_one_by_one_get_their_own_types(void) {
  CHECK(sh(MNEME "convert a.gguf --out d.gguf --type q8_0 --tensor 'blk.*.attn_v.*=Q5_K' --tensor '*.bias=f16' --quiet 2>&1") == 0, "%s",
        out);
  mn_gguf *g = NULL;
  CHECK_OK(mn_gguf_open("d.gguf", &g));
  if (!g) return;
  check_type(g, "blk.0.attn_v.weight", "Q5_K");
  check_type(g, "blk.0.ffn_up.weight", "Q8_0");
  check_type(g, "blk.0.up.bias", "F16");
  mn_gguf_close(g);
}

static void every_type_comes_back_as_itself(void) {
  static const char *const types[] = {"f16",  "bf16", "q4_0", "q4_1", "q5_0",   "q5_1",   "q8_0", "q2_k",
                                      "q3_k", "q4_k", "q5_k", "q6_k", "iq4_nl", "iq4_xs", "mxfp4"};
  for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
    mn_gguf *g = NULL;
    CHECK(sh(MNEME "convert a.gguf --out e.gguf --tensor '*ffn_up*=%s' --json 2>&1", types[i]) == 0, "%s", out);
    const char *said = strstr(out, "\"error\": ");
    CHECK_OK(mn_gguf_open("e.gguf", &g));
    if (!g || !said) return;
    const double error = error_of(g, "blk.0.ffn_up.weight", ROWS * WIDTH);
    CHECK(fabs(strtod(said + 9, NULL) - error) < 1e-6 && error > 0 && error < 0.3, "%s: %g, said %s", types[i], error, said);
    mn_gguf_close(g);
  }
}

static void what_cannot_be_done_is_named(void) {
  static const struct {
    const char *arguments, *says;
    int code;
  } cases[] = {
      {"a.gguf", "--out is missing", 2},
      {"a.gguf --out x.gguf --type q4k", "did you mean 'Q4_K'", 2},
      {"a.gguf --out x.gguf --type i32", "no type of weights", 2},
      {"a.gguf --out x.gguf --tensor q4_k", "must be PATTERN=TYPE", 2},
      {"a.gguf --out x.gguf --tensor '*odd*=q4_0'", "multiples of 32", 2},
      {"a.gguf --out x.gguf --tensor '*atn_v*=q4_k'", "fits no tensor", 2},
      {"a.gguf --out x.gguf --tensor 'ids=f32'", "cannot become f32", 1},
      {"a.gguf --out ./a.gguf --type q8_0", "is what is read", 2},
      {"absent.gguf --out x.gguf", "absent.gguf", 1},
      {"a.gguf --out nowhere/x.gguf --type q8_0", "nowhere", 1},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    CHECK(sh(MNEME "convert %s --quiet 2>&1", cases[i].arguments) == cases[i].code && strstr(out, cases[i].says), "%s: %s",
          cases[i].arguments, out);
    CHECK(!mn_file_exists("x.gguf"), "%s leaves nothing", cases[i].arguments);
  }
  matrix[7] = NAN;
  mn_gguf_writer *w = mn_gguf_writer_new();
  CHECK_OK(mn_gguf_writer_add(w, "blk.0.up.weight", MN_GGUF_F32, &(mn_shape){2, {ROWS, WIDTH}}, matrix));
  CHECK_OK(mn_gguf_writer_string(w, "general.architecture", "of-nobody"));
  CHECK_OK(mn_gguf_writer_save(w, "nan.gguf"));
  mn_gguf_writer_free(w);
  CHECK(sh(MNEME "convert nan.gguf --out x.gguf --type q8_0 --quiet 2>&1") == 1 && strstr(out, "tensor 'blk.0.up.weight': value 7 is NaN"),
        "%s", out);
  CHECK(!mn_file_exists("x.gguf"), "nothing is left");
}

static int told;
static bool stop_soon(void *ctx, const char *what, int64_t done, int64_t total) {
  (void)ctx;
  CHECK(what && done > 0 && done <= total, "%lld of %lld", (long long)done, (long long)total);
  return ++told < 3;
}

static void an_interruption_leaves_the_old_file(void) {
  mn_convert_report report;
  char before[33], after[33];
  CHECK_OK(mn_file_hash("b.gguf", before));
  CHECK(mn_convert("a.gguf", "b.gguf", &(mn_convert_options){.type = MN_Q8_0, .watch = {.progress = stop_soon}}, &report) ==
            MN_ERR_CANCELLED,
        "%s", mn_message());
  CHECK_OK(mn_file_hash("b.gguf", after));
  CHECK(told == 3 && !strcmp(before, after), "as it was");
}

int main(void) {
  setenv("MNEME_LOG", "error", 1);
  RUN(weights_get_the_type_and_what_decides_stays_exact);
  RUN(without_a_type_every_tensor_is_the_same);
  RUN(tensors_named_one_by_one_get_their_own_types);
  RUN(every_type_comes_back_as_itself);
  RUN(what_cannot_be_done_is_named);
  RUN(an_interruption_leaves_the_old_file);
  return test_end();
}
