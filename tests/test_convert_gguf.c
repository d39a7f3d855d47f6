/* What GGUF says of a model and how: its settings mean what other programs take them for, tensors stand as their converter puts them, and what
 * they ask for is there; faults among settings are refused by name. */
#include "checkpoint/checkpoint.h"
#include "convert_check.h"
#include "format/gguf.h"

static const mn_checkpoint_tensor *read_tensor(mn_checkpoint *c, const char *name, float *to, int64_t most) {
  const mn_checkpoint_tensor *t = c ? mn_checkpoint_find(c, name) : NULL;
  CHECK(t && mn_shape_count(&t->shape) <= most, "%s", name);
  if (t) CHECK_OK(mn_checkpoint_read(t, 0, mn_shape_count(&t->shape), MN_F32, to));
  return t;
}

/* Qwen3.5 in GGUF: four heads of values, two for each key head, stand as 0, 2, 1, 3, as rows, as what each head has one of, and as columns
 * of what is given on; and all come back to the same bits. */
static void heads_of_values_are_tiled(void) {
  enum { G = 2, EACH = 2, H = G * EACH, K = 4, V = 6, D = 16 };
  static float z[2][H * V * D], qkv[2][(2 * G * K + H * V) * D], given[2][D * H * V], rate[2][H];
  mn_checkpoint *c = NULL, *hf = NULL;
  CHECK(sh("rm -rf c.gguf d && " MNEME "convert " GOLDEN "hybrids/qwen3_5 --out c.gguf --quiet 2>&1 && " MNEME
           "convert c.gguf --out d --type bf16 --quiet 2>&1") == 0,
        "%s", out);
  same_bytes(GOLDEN "hybrids/qwen3_5");
  CHECK_OK(mn_checkpoint_open("c.gguf", &c));
  CHECK_OK(mn_checkpoint_open(GOLDEN "hybrids/qwen3_5", &hf));
#define LAYER "model.layers.0.linear_attn."
  if (read_tensor(hf, LAYER "in_proj_z.weight", z[0], H * V * D) && read_tensor(c, "blk.0.attn_gate.weight", z[1], H * V * D) &&
      read_tensor(hf, LAYER "in_proj_qkv.weight", qkv[0], (2 * G * K + H * V) * D) &&
      read_tensor(c, "blk.0.attn_qkv.weight", qkv[1], (2 * G * K + H * V) * D) &&
      read_tensor(hf, LAYER "out_proj.weight", given[0], D * H * V) && read_tensor(c, "blk.0.ssm_out.weight", given[1], D * H * V) &&
      read_tensor(hf, LAYER "A_log", rate[0], H) && read_tensor(c, "blk.0.ssm_a", rate[1], H)) {
    const size_t keys = (size_t)(2 * G * K) * D, head = (size_t)V * D;
    CHECK(!memcmp(qkv[0], qkv[1], keys * sizeof(float)), "queries and keys stay");
    for (size_t g = 0; g < G; g++)
      for (size_t j = 0; j < EACH; j++) {
        const size_t from = g * EACH + j, to = j * G + g;
        CHECK(!memcmp(z[0] + from * head, z[1] + to * head, head * sizeof(float)), "gate of head %zu", from);
        CHECK(!memcmp(qkv[0] + keys + from * head, qkv[1] + keys + to * head, head * sizeof(float)), "values of head %zu", from);
        CHECK(fabsf(-expf(rate[0][from]) - rate[1][to]) < 1e-6F, "rate of head %zu", from);
        for (size_t r = 0; r < D; r++)
          CHECK(!memcmp(given[0] + (r * H + from) * V, given[1] + (r * H + to) * V, V * sizeof(float)), "columns of head %zu", from);
      }
  }
  mn_checkpoint_close(c);
  mn_checkpoint_close(hf);
  CHECK(sh("rm -rf c.gguf d && " MNEME "convert " GOLDEN "hybrids/qwen3_5_moe --out c.gguf --quiet 2>&1 && " MNEME
           "convert c.gguf --out d --type bf16 --quiet 2>&1") == 0,
        "%s", out);
  same_bytes(GOLDEN "hybrids/qwen3_5_moe");
}

/* Falcon-H1's projections are multiplied already in GGUF, so its factors are gone on the way back; llama.cpp knows its norm behind the gate
 * alone. */
static void factors_stay_in_the_projections(void) {
  CHECK(
      sh("rm -rf falcon && cp -r " GOLDEN "hybrids/falcon_h1_norm falcon && sed -i -e 's/\"mamba_norm_before_gate\": true/"
         "\"mamba_norm_before_gate\": false/' -e 's/\"key_multiplier\": 1.0/\"key_multiplier\": 0.7/' -e "
         "'s/\"ssm_in_multiplier\": 1.0/\"ssm_in_multiplier\": 1.3/' falcon/config.json && grep -q 'key_multiplier\": 0.7' falcon/config.json && "
         "grep -q 'ssm_in_multiplier\": 1.3' falcon/config.json && grep -q 'before_gate\": false' falcon/config.json") == 0,
      "%s", out);
  there_and_back("falcon", "--type f32"); /* what is multiplied is rounded again in bf16 */
}

/* What llama.cpp's own converter made of the same checkpoint: every tensor under the same name, of the same shape, with the same numbers. */
static void a_gguf_file_is_as_llama_cpps_converter_makes_it(void) {
  static const char *const names[] = {"lfm2", "granite"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    mn_checkpoint *ours = NULL, *theirs = NULL;
    char path[600], one[96], two[96];
    snprintf(path, sizeof path, GOLDEN "hybrids/%s/model.gguf", names[i]);
    CHECK(sh("rm -f c.gguf && " MNEME "convert " GOLDEN "hybrids/%s --out c.gguf --quiet 2>&1", names[i]) == 0, "%s: %s", names[i], out);
    CHECK_OK(mn_checkpoint_open("c.gguf", &ours));
    CHECK_OK(mn_checkpoint_open(path, &theirs));
    CHECK(ours && theirs && mn_checkpoint_count(ours) == mn_checkpoint_count(theirs), "%s: another number of tensors", names[i]);
    for (int k = 0; ours && theirs && k < mn_checkpoint_count(theirs); k++) {
      static float a[4096], b[4096];
      const mn_checkpoint_tensor *t = mn_checkpoint_at(theirs, k), *u = mn_checkpoint_find(ours, t->name);
      CHECK(u && mn_shape_equal(&t->shape, &u->shape), "%s: %s is %s, not %s", names[i], t->name,
            u ? mn_shape_str(&u->shape, one) : "missing", mn_shape_str(&t->shape, two));
      const int64_t n = mn_shape_count(&t->shape);
      if (!u || n > 4096) continue;
      CHECK_OK(mn_checkpoint_read(t, 0, n, MN_F32, a));
      CHECK_OK(mn_checkpoint_read(u, 0, n, MN_F32, b));
      CHECK(apart(a, b, (int)n) < 1e-6, "%s: %s: %g apart", names[i], t->name, apart(a, b, (int)n));
    }
    mn_checkpoint_close(ours);
    mn_checkpoint_close(theirs);
  }
}

/* c.gguf, with another number or numbers under the key (n 0: one number), and a tensor more (NULL: none), as d.gguf. */
static void change_number(const char *key, const int32_t *x, size_t n, const char *more) {
  mn_gguf *g = NULL;
  mn_gguf_writer *w = mn_gguf_writer_new();
  CHECK_OK(mn_gguf_open("c.gguf", &g));
  for (int k = 0; g && k < mn_gguf_meta_count(g); k++)
    if (strcmp(mn_gguf_meta_at(g, k)->key, key) != 0) CHECK_OK(mn_gguf_writer_copy(w, mn_gguf_meta_at(g, k)));
  if (n) CHECK_OK(mn_gguf_writer_i32s(w, key, x, n));
  else CHECK_OK(mn_gguf_writer_u32(w, key, (uint32_t)*x));
  for (int k = 0; g && k < mn_gguf_count(g); k++) {
    const mn_gguf_tensor *t = mn_gguf_at(g, k);
    CHECK_OK(mn_gguf_writer_add(w, t->name, t->type->type, &t->shape, t->data));
    if (more && !k) CHECK_OK(mn_gguf_writer_add(w, more, t->type->type, &t->shape, t->data));
  }
  CHECK_OK(mn_gguf_writer_save(w, "d.gguf"));
  mn_gguf_writer_free(w);
  mn_gguf_close(g);
}

/* The tensors of g and what the writer has already, as d.gguf; ends both. */
static void save_with_tensors(mn_gguf_writer *w, mn_gguf *g) {
  for (int k = 0; g && k < mn_gguf_count(g); k++) {
    const mn_gguf_tensor *t = mn_gguf_at(g, k);
    CHECK_OK(mn_gguf_writer_add(w, t->name, t->type->type, &t->shape, t->data));
  }
  CHECK_OK(mn_gguf_writer_save(w, "d.gguf"));
  mn_gguf_writer_free(w);
  mn_gguf_close(g);
}

/* c.gguf with more settings of an architecture, "llama.", as d.gguf. */
typedef struct setting {
  const char *key;
  enum { NUMBER, COUNT, TRUTH, WORD } kind;
  double x;
  const char *word;
} setting;

static void add_settings_of(const char *architecture, const setting *list, int n) {
  mn_gguf *g = NULL;
  mn_gguf_writer *w = mn_gguf_writer_new();
  char keys[4][96];
  CHECK_OK(mn_gguf_open("c.gguf", &g));
  for (int i = 0; i < n; i++) snprintf(keys[i], sizeof keys[i], "%s%s", architecture, list[i].key);
  for (int k = 0; g && k < mn_gguf_meta_count(g); k++) {
    bool other = true;
    for (int i = 0; i < n; i++) other = other && strcmp(mn_gguf_meta_at(g, k)->key, keys[i]) != 0;
    if (other) CHECK_OK(mn_gguf_writer_copy(w, mn_gguf_meta_at(g, k)));
  }
  for (int i = 0; i < n; i++)
    if (list[i].kind == NUMBER) CHECK_OK(mn_gguf_writer_f32(w, keys[i], (float)list[i].x));
    else if (list[i].kind == COUNT) CHECK_OK(mn_gguf_writer_u32(w, keys[i], (uint32_t)list[i].x));
    else if (list[i].kind == TRUTH) CHECK_OK(mn_gguf_writer_bool(w, keys[i], list[i].x != 0));
    else CHECK_OK(mn_gguf_writer_string(w, keys[i], list[i].word));
  save_with_tensors(w, g);
}

static void add_settings(const setting *list, int n) { add_settings_of("llama.", list, n); }

/* GGUF's settings mean what llama.cpp takes them for: a factor without a type stretches linearly, by its older name too, and not at all where
 * the type is none or the factor 0; what is not done is refused by name, also where it is a truth that is false. */
static void settings_of_gguf_mean_what_they_do_there(void) {
  static float a[TOKENS * 512], b[TOKENS * 512], c[TOKENS * 512];
  static const setting linear[] = {{"rope.scaling.type", WORD, 0, "linear"}, {"rope.scaling.factor", NUMBER, 4, NULL}},
                       none[] = {{"rope.scaling.type", WORD, 0, "none"}, {"rope.scaling.factor", NUMBER, 4, NULL}},
                       alone = {"rope.scaling.factor", NUMBER, 4, NULL}, older = {"rope.scale_linear", NUMBER, 4, NULL},
                       zero = {"rope.scaling.factor", NUMBER, 0, NULL};
  static const struct {
    setting one[2];
    const char *says;
  } refused[] = {
      {{{"attention.causal", TRUTH, 0, NULL}}, "llama.attention.causal is false"},
      {{{"rope.dimension_count", COUNT, 0, NULL}}, "llama.rope.dimension_count must be an integer from 1"},
      {{{"attention.head_count", COUNT, 0, NULL}}, "llama.attention.head_count must be"},
      {{{"attention.head_count_kv", COUNT, 0, NULL}}, "llama.attention.head_count_kv must be"},
      {{{"context_length", COUNT, 0, NULL}}, "llama.context_length must be"},
      {{{"attention.layer_norm_rms_epsilon", NUMBER, 2, NULL}}, "llama.attention.layer_norm_rms_epsilon must be a number from 0 to 1"},
      {{{"rope.freq_base", NUMBER, 0, NULL}}, "llama.rope.freq_base must be a number from 1"},
      {{{"rope.scaling.type", WORD, 0, "yarn"}, {"rope.scaling.yarn_beta_fast", NUMBER, 16, NULL}}, "yarn_beta_fast is 16"},
  };
  CHECK(sh("rm -f c.gguf && " MNEME "convert " GOLDEN "checkpoints/mistral --out c.gguf --quiet 2>&1") == 0, "%s", out);
  const int n = TOKENS * said("c.gguf", a);
  add_settings(linear, 2);
  CHECK(said("d.gguf", b) && memcmp(a, b, (size_t)n * sizeof *a) != 0, "positions are stretched");
  add_settings(none, 2);
  CHECK(said("d.gguf", c) && !memcmp(a, c, (size_t)n * sizeof *a), "none");
  add_settings(&alone, 1);
  CHECK(said("d.gguf", c) && !memcmp(b, c, (size_t)n * sizeof *a), "a factor alone is of linear");
  add_settings(&older, 1);
  CHECK(said("d.gguf", c) && !memcmp(b, c, (size_t)n * sizeof *a), "and by its older name");
  add_settings(&zero, 1);
  CHECK(said("d.gguf", c) && !memcmp(a, c, (size_t)n * sizeof *a), "0 is none");
  for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
    add_settings(refused[i].one, refused[i].one[1].key ? 2 : 1);
    CHECK(sh(MNEME "generate --model d.gguf --prompt a --tokens 1 2>&1") != 0 && strstr(out, refused[i].says), "%s: %s", refused[i].says,
          out);
  }
}

/* How much of a head of Bamba's is rotated is said where it is read. */
static void a_part_of_a_head_is_said_in_its_map(void) {
  CHECK(
      sh("rm -rf whole c.gguf d && cp -r " GOLDEN "hybrids/bamba whole && sed -i "
         "'s/\"partial_rotary_factor\": 0.5/\"partial_rotary_factor\": 1.0/' whole/config.json && " MNEME
         "convert whole --out c.gguf --quiet 2>&1 && " MNEME
         "convert c.gguf --out d --quiet 2>&1 && tr -d ' \\n' <d/config.json | grep -o 'rope_parameters\":{[^}]*\"partial_rotary_factor\":1[.,}]' && "
         "! grep -q '^  \"partial_rotary_factor' d/config.json") == 0,
      "%s", out);
}

/* Hostile settings of Qwen3.5 by name; a block behind the last is of drafts, and changes nothing. */
static void settings_of_qwen3_5_are_held(void) {
  static float a[TOKENS * 512], b[TOKENS * 512];
  static const struct {
    const char *key, *more, *says;
    int32_t x[5];
    size_t n;
  } cases[] = {
      {"rope.dimension_sections", NULL, "must be a list of up to 4", {1, 1, 1, 1, 1}, 5},
      {"rope.dimension_sections", NULL, "must be a list of up to 4", {-1, 1, 1}, 3},
      {"rope.dimension_sections", NULL, "must be a list of up to 4", {1}, 0},
      {"rope.dimension_sections", NULL, "has no pair that is turned", {0, 0, 0, 0}, 4},
      {"rope.dimension_sections", NULL, "turns pair 1 by no position of text", {2, 0, 0, 0}, 4},
      {"rope.dimension_sections", NULL, "turns pair 3 by no position of text", {1, 1, 1, 1}, 4},
      {"nextn_predict_layers", NULL, "leaves none of the 2 layers", {2}, 0},
      {"block_count", NULL, "block_count is 1, and there is the tensor 'blk.1.", {1}, 0},
      {"block_count", "blk.3.nextn.enorm.weight", "block_count is 3, and there is the tensor 'blk.3.nextn.enorm", {3}, 0},
      {"attention.recurrent_layers", NULL, "must be a list of a truth for each layer", {1}, 1},
      {"attention.recurrent_layers", NULL, "must be a list of truths", {1, 0}, 2},
      {"ssm.group_count", NULL, "must be an integer from 1", {0}, 0},
      {"ssm.group_count", NULL, "must divide heads", {3}, 0},
      {"ssm.state_size", NULL, "must be an integer from 1", {0}, 0},
      {"ssm.inner_size", NULL, "must be an integer from 1", {0}, 0},
      {"ssm.inner_size", NULL, "no multiple of the number of heads", {25}, 0},
  };
  CHECK(sh("rm -f c.gguf && " MNEME "convert " GOLDEN "hybrids/qwen3_5 --out c.gguf --quiet 2>&1") == 0, "%s", out);
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    char key[96];
    snprintf(key, sizeof key, "qwen35.%s", cases[i].key);
    change_number(key, cases[i].x, cases[i].n, cases[i].more);
    CHECK(sh(MNEME "generate --model d.gguf --prompt a --tokens 1 2>&1") != 0 && strstr(out, cases[i].says), "%s: %s", cases[i].says, out);
  }
  const int n = TOKENS * said("c.gguf", a);
  const int32_t one = 1, three = 3;
  change_number("qwen35.block_count", &three, 0, "blk.2.nextn.enorm.weight");
  CHECK(rename("d.gguf", "c.gguf") == 0, "renamed");
  change_number("qwen35.nextn_predict_layers", &one, 0, NULL);
  CHECK(said("d.gguf", b) && n && !memcmp(a, b, (size_t)n * sizeof *a), "drafts are left aside");
}

/* Bamba in GGUF: of a head of four rows two are turned, and those are neighbours already; the model comes back to the same bits, and is no
 * Granite. */
static void bamba_is_no_granite(void) {
  CHECK(sh("rm -rf c.gguf d && " MNEME "convert " GOLDEN "hybrids/bamba --out c.gguf --quiet 2>&1 && " MNEME
           "convert c.gguf --out d --type bf16 --quiet 2>&1 && grep -c '\"model_type\": \"bamba\"' d/config.json") == 0,
        "%s", out);
  same_bytes(GOLDEN "hybrids/bamba");
  const int32_t odd = 3, wide = 6, heads[3] = {0, 2, 2};
  change_number("granitehybrid.rope.dimension_count", &odd, 0, NULL);
  CHECK(sh(MNEME "generate --model d.gguf --prompt a --tokens 1 2>&1") != 0 && strstr(out, "must be even"), "%s", out);
  change_number("granitehybrid.rope.dimension_count", &wide, 0, NULL);
  CHECK(sh(MNEME "generate --model d.gguf --prompt a --tokens 1 2>&1") != 0 && strstr(out, "must be at most head_dim"), "%s", out);
  change_number("granitehybrid.attention.head_count_kv", heads, 3, NULL);
  CHECK(sh(MNEME "generate --model d.gguf --prompt a --tokens 1 2>&1") != 0 && strstr(out, "or a list of one for each layer"), "%s", out);
}

/* c.gguf without the key, as d.gguf. */
static void leave_out(const char *key) {
  mn_gguf *g = NULL;
  mn_gguf_writer *w = mn_gguf_writer_new();
  CHECK_OK(mn_gguf_open("c.gguf", &g));
  CHECK(g && mn_gguf_meta_find(g, key), "%s is there", key);
  for (int k = 0; g && k < mn_gguf_meta_count(g); k++)
    if (strcmp(mn_gguf_meta_at(g, k)->key, key) != 0) CHECK_OK(mn_gguf_writer_copy(w, mn_gguf_meta_at(g, k)));
  save_with_tensors(w, g);
}

/* How experts are chosen is a number there, of which one kind is done; a factor that is left out, or 0, is none; nor are layers that come first without
 * experts. */
static void experts_are_chosen_as_the_file_says(void) {
  static float a[TOKENS * 512], b[TOKENS * 512];
  const int32_t softmax = 1, sigmoids = 2;
  CHECK(sh("rm -f c.gguf && " MNEME "convert " GOLDEN "hybrids/kimi_linear --out c.gguf --quiet 2>&1") == 0, "%s", out);
  change_number("kimi-linear.expert_gating_func", &softmax, 0, NULL);
  CHECK(sh(MNEME "generate --model d.gguf --prompt a --tokens 1 2>&1") != 0 && strstr(out, "expert_gating_func is 1, which is not done"),
        "%s", out);
  change_number("kimi-linear.expert_gating_func", &sigmoids, 0, NULL);
  const int n = TOKENS * said("c.gguf", a);
  CHECK(said("d.gguf", b) && n && !memcmp(a, b, (size_t)n * sizeof *a), "sigmoids are done");
  leave_out("kimi-linear.expert_weights_scale");
  CHECK(said("d.gguf", b) && memcmp(a, b, (size_t)n * sizeof *a) != 0, "without a factor it says something else");
  memcpy(a, b, (size_t)n * sizeof *a);
  const setting one[] = {{"kimi-linear.expert_weights_scale", NUMBER, 1, NULL}, {"kimi-linear.expert_weights_scale", NUMBER, 0, NULL}};
  for (int i = 0; i < 2; i++) {
    add_settings_of("", &one[i], 1);
    CHECK(said("d.gguf", b) && !memcmp(a, b, (size_t)n * sizeof *a), "a factor of %g is none", one[i].x);
  }
  leave_out("kimi-linear.leading_dense_block_count");
  CHECK(sh(MNEME "generate --model d.gguf --prompt a --tokens 1 2>&1") != 0 && strstr(out, "blk.0.ffn"),
        "the first layer has experts then: %s", out);
}

/* Layers of Gemma 2 with a window have a base of their own where a file says one, as in llama.cpp; a directory cannot say it. */
static void a_base_of_windows_is_heard(void) {
  static float a[TOKENS * 512], b[TOKENS * 512];
  CHECK(sh("rm -rf c.gguf d && " MNEME "convert " GOLDEN "checkpoints/gemma2 --out c.gguf --quiet 2>&1") == 0, "%s", out);
  const int n = TOKENS * said("c.gguf", a);
  leave_out("gemma2.rope.freq_base_swa");
  CHECK(said("d.gguf", b) && n && !memcmp(a, b, (size_t)n * sizeof *a), "what is left out is the base of all layers");
  CHECK(sh("mv d.gguf c.gguf") == 0, "%s", out);
  const setting other = {"gemma2.rope.freq_base_swa", NUMBER, 100, NULL}, none = {"gemma2.rope.freq_base_swa", NUMBER, 0, NULL};
  add_settings_of("", &other, 1);
  CHECK(said("d.gguf", b) && apart(a, b, n) > 1e-4, "%g apart", apart(a, b, n));
  CHECK(sh(MNEME "convert d.gguf --out d --quiet 2>&1") != 0 && strstr(out, "rope_theta"), "a directory has no word for it: %s", out);
  add_settings_of("", &none, 1);
  CHECK(sh(MNEME "generate --model d.gguf --prompt a --tokens 1 2>&1") != 0 && strstr(out, "rope.freq_base_swa must be a number from 1"),
        "%s", out);
}

/* What pads is said, be it nothing: transformers has an own number for it else, which refuses a vocabulary that ends before it. */
static void what_pads_is_said(void) {
  CHECK(sh("rm -rf c.gguf d && " MNEME "convert " GOLDEN "checkpoints/phi3 --out c.gguf --quiet 2>&1 && " MNEME
           "convert c.gguf --out d --quiet 2>&1 && grep -q '\"pad_token_id\": null' d/config.json") == 0,
        "%s", out);
  const setting pads[] = {{"tokenizer.ggml.padding_token_id", COUNT, 3, NULL}, {"tokenizer.ggml.padding_token_id", COUNT, 1000000, NULL}};
  static const char *const says[] = {"3", "null"};
  for (int i = 0; i < 2; i++) {
    add_settings_of("", &pads[i], 1);
    CHECK(sh("rm -rf d && " MNEME "convert d.gguf --out d --quiet 2>&1 && grep -q '\"pad_token_id\": %s' d/config.json", says[i]) == 0,
          "%s: %s", says[i], out);
  }
}

/* Convolutions of Kimi Linear are [channels, 1, taps] in a directory: transformers takes no other shape. */
static void convolutions_have_a_channel_each(void) {
  CHECK(sh("rm -rf c.gguf d && " MNEME "convert " GOLDEN "hybrids/kimi_linear --out c.gguf --quiet 2>&1 && " MNEME
           "convert c.gguf --out d --quiet 2>&1 && head -c 6000 d/model.safetensors | tr -d ' ' | grep -a -o "
           "'q_conv1d.weight\":{[^}]*' | grep -q '\\[8,1,4\\]'") == 0,
        "%s", out);
}

/* A Kimi Linear without experts says how none are chosen, and nobody is warned of that. */
static void no_experts_are_chosen_without_a_word(void) {
  CHECK(sh("rm -rf none c.gguf && cp -r " GOLDEN "hybrids/kimi_linear none") == 0, "%s", out);
  CHECK(sh(MNEME "convert none --out c.gguf 2>&1") == 0, "%s", out);
  const setting zero = {"kimi-linear.expert_count", COUNT, 0, NULL};
  add_settings_of("", &zero, 1);
  sh("MNEME_LOG=warn " MNEME "generate --model d.gguf --prompt a --tokens 1 2>&1");
  CHECK(strstr(out, "change nothing: kimi-linear.expert_used_count") && !strstr(out, "expert_gating_func"), "%s", out);
}

/* What a file leaves out is as llama.cpp takes it, and not as the class of a directory's settings does. */
static void what_is_left_out_is_as_llama_cpp_has_it(void) {
  static float a[TOKENS * 512], b[TOKENS * 512], whole[TOKENS * 512];
  static const struct {
    const char *model, *key;
    setting same; /* says the same */
  } cases[] = {{"hybrids/lfm2", "lfm2.rope.freq_base", {"lfm2.rope.freq_base", NUMBER, 10000, NULL}},
               {"checkpoints/gemma3", "gemma3.rope.freq_base", {"gemma3.rope.freq_base", NUMBER, 10000, NULL}},
               {"hybrids/granite", "granitehybrid.attention.scale", {"granitehybrid.attention.scale", NUMBER, 0.5, NULL}},
               {"checkpoints/gemma3", "gemma3.attention.sliding_window", {"gemma3.attention.sliding_window", COUNT, 0, NULL}}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    CHECK(sh("rm -f c.gguf && " MNEME "convert " GOLDEN "%s --out c.gguf --quiet 2>&1", cases[i].model) == 0, "%s", out);
    const int n = TOKENS * said("c.gguf", whole);
    leave_out(cases[i].key);
    const bool fine = said("d.gguf", a) && n;
    add_settings_of("", &cases[i].same, 1);
    CHECK(fine && said("d.gguf", b) && apart(a, b, n) < 1e-6 && apart(whole, a, n) > 1e-4, "%s without %s: %g apart, from before %g",
          cases[i].model, cases[i].key, apart(a, b, n), apart(whole, a, n));
  }
  const setting near = {"lfm2.attention.sliding_window", COUNT, 2, NULL}, far = {"lfm2.attention.sliding_window", COUNT, 1000, NULL};
  CHECK(sh("rm -f c.gguf && " MNEME "convert " GOLDEN "hybrids/lfm2 --out c.gguf --quiet 2>&1") == 0, "%s", out);
  const int n = TOKENS * said("c.gguf", whole);
  add_settings_of("", &far, 1);
  CHECK(said("d.gguf", a) && apart(whole, a, n) < 1e-6, "a window that holds everything: %g", apart(whole, a, n));
  add_settings_of("", &near, 1);
  CHECK(said("d.gguf", a) && apart(whole, a, n) > 1e-4, "a window is one: %g", apart(whole, a, n));
}

/* A file whose values are said to be of another width than its keys. */
static void two_widths_are_refused(void) {
  const int32_t five = 5;
  CHECK(sh("rm -f c.gguf && " MNEME "convert " GOLDEN "checkpoints/qwen3 --out c.gguf --quiet 2>&1") == 0, "%s", out);
  change_number("qwen3.attention.value_length", &five, 0, NULL);
  CHECK(sh(MNEME "generate --model d.gguf --prompt a --tokens 1 2>&1") != 0 && strstr(out, "attention.value_length") &&
            strstr(out, "one width"),
        "%s", out);
}

/* What llama.cpp refuses a file without, or with. */
static void other_programs_find_what_they_ask_for(void) {
  static const struct {
    const char *path, *key, *is; /* NULL: it is not there */
  } all[] = {{"checkpoints/gemma", "gemma.attention.value_length", "6"},
             {"checkpoints/qwen3", "qwen3.attention.value_length", "6"},
             {"checkpoints/llama", "tokenizer.ggml.model", "none"},
             {"hybrids/kimi_linear", "tokenizer.ggml.model", "none"},
             {"hybrids/granite", "granitehybrid.ssm.inner_size", "32"},
             {"hybrids/granite", "granitehybrid.expert_used_count", NULL},
             {"hybrids/granite_moe", "granitehybrid.expert_used_count", "2"},
             {"hybrids/mamba2", "mamba2.context_length", "1048576"},
             {"hybrids/qwen3_5_moe", "qwen35moe.expert_used_count", "2"},
             {"hybrids/rwkv7", "rwkv7.context_length", "1048576"},
             {"hybrids/rwkv7", "rwkv7.attention.head_count", "0"},
             {"checkpoints/bert", "tokenizer.ggml.token_type_count", "2"}};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
    mn_gguf *g = NULL;
    mn_arena *arena = mn_arena_new();
    char said_there[64] = "";
    CHECK(sh("rm -f c.gguf && " MNEME "convert " GOLDEN "%s --out c.gguf --quiet 2>&1", all[i].path) == 0, "%s: %s", all[i].path, out);
    CHECK_OK(mn_gguf_open("c.gguf", &g));
    const bool there = g && mn_gguf_meta_find(g, all[i].key);
    CHECK(there == (all[i].is != NULL), "%s: %s", all[i].path, all[i].key);
    uint32_t number;
    const char *word;
    if (there && !strcmp(all[i].key, "tokenizer.ggml.model")) {
      CHECK_OK(mn_gguf_string(g, all[i].key, NULL, arena, &word));
      snprintf(said_there, sizeof said_there, "%s", word ? word : "");
    } else if (there) {
      CHECK_OK(mn_gguf_u32(g, all[i].key, NULL, &number));
      snprintf(said_there, sizeof said_there, "%u", number);
    }
    CHECK(!all[i].is || !strcmp(said_there, all[i].is), "%s: %s is %s", all[i].path, all[i].key, said_there);
    mn_gguf_close(g), mn_arena_free(arena);
    sh(MNEME "generate --model c.gguf --prompt a --tokens 1 2>&1"); /* it opens, and may have no tokenizer */
    CHECK(!strstr(out, "does not have"), "%s: what is written for others is known here: %s", all[i].path, out);
  }
  mn_gguf *bert = NULL;
  bool causal = true;
  CHECK_OK(mn_gguf_open("c.gguf", &bert)); /* the last of them */
  if (bert) CHECK_OK(mn_gguf_bool(bert, "bert.attention.causal", NULL, &causal));
  CHECK(!causal, "an encoder sees what comes after, too");
  mn_gguf_close(bert);
  two_widths_are_refused();
  mn_checkpoint *c = NULL;
  CHECK(sh("rm -f c.gguf && " MNEME "convert " GOLDEN "hybrids/rwkv7 --out c.gguf --quiet 2>&1") == 0, "%s", out);
  CHECK_OK(mn_checkpoint_open("c.gguf", &c));
  for (int k = 0; c && k < 3; k++) { /* of the first layer, which mixes nothing in */
    char first[64], next[64];
    snprintf(first, sizeof first, "blk.0.time_mix_v%d.weight", k), snprintf(next, sizeof next, "blk.0.time_mix_a%d.weight", k);
    const mn_checkpoint_tensor *a = mn_checkpoint_find(c, first), *b = mn_checkpoint_find(c, next);
    CHECK(a && b && mn_shape_equal(&a->shape, &b->shape), "%s", first);
    const float *zeros = a ? a->data : NULL;
    for (int64_t i = 0; a && zeros && i < mn_shape_count(&a->shape); i++)
      CHECK(zeros[i] == 0, "%s: element %d is %g", first, (int)i, (double)zeros[i]);
  }
  mn_checkpoint_close(c);
}

int main(void) {
  setenv("MNEME_LOG", "error", 1);
  RUN(heads_of_values_are_tiled);
  RUN(factors_stay_in_the_projections);
  RUN(a_gguf_file_is_as_llama_cpps_converter_makes_it);
  RUN(settings_of_gguf_mean_what_they_do_there);
  RUN(a_part_of_a_head_is_said_in_its_map);
  RUN(settings_of_qwen3_5_are_held);
  RUN(bamba_is_no_granite);
  RUN(experts_are_chosen_as_the_file_says);
  RUN(a_base_of_windows_is_heard);
  RUN(what_pads_is_said);
  RUN(convolutions_have_a_channel_each);
  RUN(no_experts_are_chosen_without_a_word);
  RUN(what_is_left_out_is_as_llama_cpp_has_it);
  RUN(other_programs_find_what_they_ask_for);
  return test_end();
}
