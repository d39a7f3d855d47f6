/* What `mneme inspect` says of other programs' models: metadata, types of tensors, whether they are opened; and of damaged ones which. */
#include "base/file.h"
#include "format/gguf.h"
#include "format/safetensors.h"
#include "program.h"
#include "test.h"

static const float values[256] = {1, -2, 3};
static const uint8_t blocks[144] = {0};

static void put_gguf(const char *path, const char *architecture) {
  mn_gguf_writer *w = mn_gguf_writer_new();
  CHECK_OK(mn_gguf_writer_string(w, "general.architecture", architecture));
  CHECK_OK(mn_gguf_writer_f32(w, "general.ratio", 1e-6f));
  CHECK_OK(mn_gguf_writer_i32s(w, "general.list", (int32_t[]){1, 2, 3, 4, 5, 6}, 6));
  CHECK_OK(mn_gguf_writer_add(w, "token_embd.weight", MN_GGUF_Q4_K, &(mn_shape){2, {1, 256}}, blocks));
  CHECK_OK(mn_gguf_writer_add(w, "output_norm.weight", MN_GGUF_F32, &(mn_shape){1, {256}}, values));
  CHECK_OK(mn_gguf_writer_add(w, "blk.0.attn_norm.weight", MN_GGUF_F32, &(mn_shape){1, {256}}, values));
  CHECK_OK(mn_gguf_writer_save(w, path));
  mn_gguf_writer_free(w);
}

#define HAS(text) CHECK(strstr(out, text), "'%s' in:\n%s", text, out)

static void a_gguf_file_is_described(void) {
  put_gguf("a.gguf", "unheard-of");
  CHECK(sh(MNEME "inspect a.gguf 2>&1") == 0, "%s", out);
  HAS("a.gguf: GGUF, version 3; checksums hold");
  HAS("not opened");
  HAS("'unheard-of'");
  HAS("general.ratio                                 1e-06");
  HAS("[1, 2, 3, 4, ... 6 in all]");
  HAS("F32            2             512            2048           32.0000");
  HAS("Q4_K           1             256             144            4.5000");
  HAS("all            3             768            2192");
  CHECK(!strstr(out, "blk.0.attn_norm.weight"), "%s", out);
  CHECK(sh(MNEME "inspect --params a.gguf 2>&1") == 0, "%s", out);
  HAS("token_embd.weight                                  Q4_K    [1, 256]");
  CHECK(sh(MNEME "inspect --json --params a.gguf 2>&1") == 0, "%s", out);
  HAS("\"not_opened\"");
  HAS("\"bytes\": 2192");
  CHECK(sh(MNEME "inspect --plan a.gguf 2>&1") == 2, "%s", out);
  HAS("--plan");
  CHECK(sh(MNEME "inspect --set model.layers=2 a.gguf 2>&1") == 2, "%s", out);
}

static void a_damaged_gguf_file_is_named(void) {
  char *data;
  size_t n;
  put_gguf("b.gguf", "llama");
  CHECK_OK(mn_file_read("b.gguf", 1 << 20, &data, &n));
  data[n - 1000] ^= 1;
  CHECK_OK(mn_file_write("b.gguf", data, n));
  CHECK(sh(MNEME "inspect b.gguf 2>&1") == 1, "%s", out);
  HAS("b.gguf: tensor 'blk.0.attn_norm.weight': its data does not match its checksum");
  CHECK_OK(mn_file_write("b.gguf", data, n - 64));
  CHECK(sh(MNEME "inspect b.gguf 2>&1") == 1, "%s", out);
  HAS("the file is damaged or cut short");
  free(data);
}

static void a_directory_of_hugging_faces_is_described(void) {
  static const char config[] = "{\"model_type\": \"unheard-of\", \"hidden_size\": 16, \"architectures\": [\"Some\"]}";
  CHECK_OK(mn_make_dirs("hf"));
  CHECK_OK(mn_file_write("hf/config.json", config, sizeof config - 1));
  mn_st_writer *w = mn_st_writer_new();
  CHECK_OK(mn_st_writer_add(w, "embed.weight", MN_F32, &(mn_shape){2, {16, 16}}, values));
  CHECK_OK(mn_st_writer_save(w, "hf/model.safetensors"));
  mn_st_writer_free(w);
  CHECK(sh(MNEME "inspect --params hf 2>&1") == 0, "%s", out);
  HAS("hf: Hugging Face\n");
  HAS("'unheard-of'");
  HAS("architectures                                 [\"Some\"]");
  HAS("embed.weight                                       F32     [16, 16]");
}

int main(void) {
  setenv("MNEME_LOG", "error", 1);
  RUN(a_gguf_file_is_described);
  RUN(a_damaged_gguf_file_is_named);
  RUN(a_directory_of_hugging_faces_is_described);
  return test_end();
}
