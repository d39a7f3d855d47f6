/* test_checkpoints.c - checkpoints of other programs as models of ours: each of tests/golden/checkpoints says what transformers made of
 * it, in f64 and in f32, cut anywhere and token by token; what is mapped and what a session file is held to; and what is refused, by
 * name: damaged shards, an index that lies, tensors that are missing, unknown or of another shape, settings that are not done. */
#include "checkpoint/arch.h"
#include "checkpoint/bundle.h"
#include "checkpoint/convert.h"
#include "format/safetensors.h"
#include "run/session.h"

#include <jansson.h>

#include "program.h"

#define GOLDEN MN_TEST_SOURCE_DIR "/tests/golden/checkpoints/"

static const char *const decoders[] = {"llama",      "smollm", "mistral", "qwen2",        "qwen3",      "gemma",      "gemma2",   "gemma3",
                                       "gemma3/old", "phi3",   "gpt2",    "mistral/gguf", "qwen3/gguf", "gemma/gguf", "gpt2/gguf"};
enum { DECODERS = sizeof decoders / sizeof *decoders };

typedef struct said { /* what transformers made of a checkpoint */
  mn_st *st;
  int64_t B, T, V;
  int32_t *tokens;
  float *logits;
} said;

/* The golden checkpoint's directory; NAME/old: a copy with the settings as older programs wrote them; NAME/gguf: what
 * convert makes of it. */
static const char *folder(const char *name, char buf[512]) {
  const char *slash = strchr(name, '/');
  snprintf(buf, 512, GOLDEN "%s", name);
  if (!slash) return buf;
  if (!strcmp(slash, "/gguf")) {
    CHECK(sh("rm -f made.gguf && " MNEME "convert " GOLDEN "%.*s --out made.gguf 2>&1", (int)(slash - name), name) == 0, "%s", out);
    return "made.gguf";
  }
  CHECK(sh("rm -rf old && cp -r " GOLDEN "%.*s old && mv old/old_config.json old/config.json", (int)(slash - name), name) == 0, "%s", out);
  return "old";
}

static bool open_said(const char *name, const char *what, said *e) {
  char path[512];
  const mn_st_tensor *tokens, *logits;
  *e = (said){0};
  snprintf(path, sizeof path, GOLDEN "%.*s/expected.safetensors", (int)strcspn(name, "/"), name);
  CHECK_OK(mn_st_open(path, &e->st));
  if (!e->st || mn_st_need(e->st, "tokens", NULL, &tokens) != MN_OK || mn_st_need(e->st, what, NULL, &logits) != MN_OK) return false;
  e->B = logits->shape.dim[0], e->T = logits->shape.dim[1], e->V = logits->shape.dim[2];
  e->tokens = malloc((size_t)(e->B * e->T) * sizeof *e->tokens);
  e->logits = malloc((size_t)(e->B * e->T * e->V) * sizeof *e->logits);
  CHECK_OK(mn_st_read(e->st, tokens, MN_I32, e->tokens));
  CHECK_OK(mn_st_read(e->st, logits, MN_F32, e->logits));
  return true;
}

static void close_said(said *e) {
  mn_st_close(e->st);
  free(e->tokens);
  free(e->logits);
}

/* The greatest difference of logits from what was expected of place t, against the greatest of all. */
static double error_at(const said *e, int64_t t, const float *logits) {
  double worst = 0, most = 0;
  for (int64_t i = 0; i < e->B * e->T * e->V; i++) most = fmax(most, fabs((double)e->logits[i]));
  for (int64_t b = 0; b < e->B; b++)
    for (int64_t v = 0; v < e->V; v++)
      worst = fmax(worst, fabs((double)logits[b * e->V + v] - (double)e->logits[(b * e->T + t) * e->V + v]));
  return worst / most;
}

/* Pieces of `piece` tokens, after a first one of `first`: each one's last logits. */
static double run(const said *e, mn_session *s, int64_t first, int64_t piece) {
  double worst = 0;
  int32_t part[64];
  CHECK_OK(mn_session_reset(s));
  for (int64_t at = 0; at < e->T;) {
    int64_t n = at ? piece : first;
    const float *logits = NULL;
    if (n > e->T - at) n = e->T - at;
    for (int64_t b = 0; b < e->B; b++) memcpy(part + b * n, e->tokens + b * e->T + at, (size_t)n * sizeof *part);
    CHECK_OK(mn_session_feed(s, part, n, &logits));
    at += n;
    if (!logits) return INFINITY;
    worst = fmax(worst, error_at(e, at - 1, logits));
  }
  return worst;
}

/* The reference computes with every place of a cache, and some of these have room for 131,072 tokens: here for 64, where no text is longer. (In
 * f32 caches are as the settings have them, and other tests say that room changes nothing.) */
static void with_little_room(mn_model *m) {
  enum { ROOM = 64 };
  (void)mn_bundle_limit(&(mn_bundle){.model = m}, ROOM); /* some have no more */
}

static void each_says_what_it_said_in(mn_dtype dtype, const char *backend, double most) {
  mn_backend *b = NULL;
  CHECK_OK(mn_backend_open(backend, 1, &b));
  for (int i = 0; i < DECODERS; i++) {
    said e;
    mn_model *m = NULL;
    mn_params *p = NULL;
    mn_session *s = NULL;
    char path[512];
    if (!open_said(decoders[i], "logits", &e)) continue;
    CHECK_OK(mn_checkpoint_model(folder(decoders[i], path), b, dtype, &m, &p));
    if (m && dtype == MN_F64) with_little_room(m);
    if (m) CHECK_OK(mn_session_new(m, p, &(mn_session_config){.batch = e.B}, &s));
    const int64_t cuts[][2] = {{e.T, 1}, {1, 1}, {5, 7}, {7, 1}, {3, 16}};
    for (int k = 0; s && k < 5; k++) {
      double error = run(&e, s, cuts[k][0], cuts[k][1]);
      CHECK(error <= most, "%s: %g at pieces of %lld and %lld", decoders[i], error, (long long)cuts[k][0], (long long)cuts[k][1]);
    }
    mn_session_free(s);
    mn_params_free(p);
    mn_model_free(m);
    close_said(&e);
  }
  mn_backend_free(b);
}

static void each_says_what_it_said_in_f64(void) { each_says_what_it_said_in(MN_F64, "ref", 1e-6); }
static void each_says_what_it_said_in_f32(void) { each_says_what_it_said_in(MN_F32, NULL, 1e-4); }

/* Logits of each place of `e`'s tokens, read as a whole and token by token: [2,T,B,V]. */
static float *logits_of(const said *e, const char *path, mn_backend *b, mn_dtype dtype, mn_params **p) {
  mn_model *m = NULL;
  mn_session *s = NULL;
  const int64_t row = e->B * e->V;
  float *all = malloc((size_t)(2 * e->T * row) * sizeof *all);
  CHECK_OK(mn_checkpoint_model(path, b, dtype, &m, p));
  if (m && dtype == MN_F64) with_little_room(m);
  if (m) CHECK_OK(mn_session_new(m, *p, &(mn_session_config){.batch = e->B}, &s));
  for (int64_t t = 0; s && t < e->T; t++) {
    int32_t part[64];
    const float *logits = NULL;
    CHECK_OK(mn_session_reset(s));
    for (int64_t i = 0; i < e->B * (t + 1); i++) part[i] = e->tokens[i / (t + 1) * e->T + i % (t + 1)];
    if (mn_session_feed(s, part, t + 1, &logits) == MN_OK) memcpy(all + t * row, logits, (size_t)row * sizeof *all);
  }
  if (s) CHECK_OK(mn_session_reset(s));
  for (int64_t t = 0; s && t < e->T; t++) {
    int32_t part[64];
    const float *logits = NULL;
    for (int64_t r = 0; r < e->B; r++) part[r] = e->tokens[r * e->T + t];
    if (mn_session_feed(s, part, 1, &logits) == MN_OK) memcpy(all + (e->T + t) * row, logits, (size_t)row * sizeof *all);
  }
  mn_session_free(s);
  mn_model_free(m);
  return all;
}

/* Matrices in bf16 stay in their file, in two bytes a value, and give what the same numbers in f64 do. */
static void matrices_in_bf16_stay_where_they_lie(void) {
  static const char *const models[] = {"llama", "qwen3", "phi3"};
  mn_backend *cpu = NULL;
  CHECK_OK(mn_backend_open(NULL, 2, &cpu));
  for (int i = 0; i < 6 && cpu; i++) {
    said e;
    mn_params *p[2] = {NULL, NULL};
    mn_convert_report report;
    char path[512];
    const char *to = i % 2 ? "bf16.gguf" : folder(models[i / 2], path);
    if (!open_said(models[i / 2], "logits", &e)) continue;
    if (i % 2) CHECK_OK(mn_convert(folder(models[i / 2], path), to, &(mn_convert_options){.type = MN_BF16}, &report));
    float *want = logits_of(&e, to, mn_backend_ref(), MN_F64, &p[0]), *got = logits_of(&e, to, cpu, MN_F32, &p[1]);
    double worst = 0, most = 0;
    for (int64_t k = 0; k < 2 * e.T * e.B * e.V; k++)
      worst = fmax(worst, fabs((double)got[k] - (double)want[k])), most = fmax(most, fabs((double)want[k]));
    CHECK(worst < 1e-5 * most, "%s as %s: logits differ by %g of %g", models[i / 2], to, worst, most);
    int kept = 0, mapped = 0;
    for (int k = 0; p[1] && k < p[1]->n; k++) {
      kept += p[1]->type[k] == MN_STORED_BF16;
      mapped += p[1]->type[k] == MN_STORED_BF16 && p[1]->owner[k] == MN_PARAM_MAPPED;
      CHECK(p[1]->type[k] != MN_STORED_BF16 || p[1]->info[k].flags & MN_PARAM_STORED, "%s is no matrix of products", p[1]->info[k].name);
    }
    CHECK(kept >= 8 && mapped >= 4, "%s as %s: %d matrices in bf16, %d of them where they lie", models[i / 2], to, kept, mapped);
    for (int k = 0; k < 2; k++) mn_params_free(p[k]);
    free(want);
    free(got);
    close_said(&e);
  }
  mn_backend_free(cpu);
}

/* And the vectors say something: settings that are read a little otherwise give another result. */
static void settings_count(void) {
  static const char *const changes[] = {"s/\"sliding_window\": 5/\"sliding_window\": 6/",
                                        "s/\"rope_theta\": 10000.0/\"rope_theta\": 9000.0/",
                                        "s/\"rms_norm_eps\": 1e-06/\"rms_norm_eps\": 1e-03/"};
  mn_backend *b = NULL;
  said e;
  CHECK_OK(mn_backend_open("ref", 1, &b));
  if (!open_said("mistral", "logits", &e)) return;
  for (int i = 0; i < 3; i++) {
    mn_model *m = NULL;
    mn_params *p = NULL;
    mn_session *s = NULL;
    CHECK(sh("rm -rf changed && cp -r " GOLDEN "mistral changed && sed -i '%s' changed/config.json && ! cmp -s changed/config.json " GOLDEN
             "mistral/config.json",
             changes[i]) == 0,
          "%s: %s", changes[i], out);
    CHECK_OK(mn_checkpoint_model("changed", b, MN_F64, &m, &p));
    if (m) CHECK_OK(mn_session_new(m, p, &(mn_session_config){.batch = e.B}, &s));
    double error = s ? run(&e, s, e.T, 1) : 0;
    CHECK(error > 1e-5, "%s: %g", changes[i], error);
    mn_session_free(s);
    mn_params_free(p);
    mn_model_free(m);
  }
  close_said(&e);
  mn_backend_free(b);
}

/* The largest difference of what two changes of a golden checkpoint say behind its tokens. */
static double apart(const char *name, const char *one, const char *other) {
  const char *const change[] = {one, other};
  float *first = NULL;
  double worst = INFINITY;
  said e;
  if (!open_said(name, "logits", &e)) return INFINITY;
  for (int i = 0; i < 2; i++) {
    mn_model *m = NULL;
    mn_params *p = NULL;
    mn_session *s = NULL;
    const float *logits = NULL;
    const size_t n = (size_t)(e.B * e.V);
    CHECK(sh("rm -rf changed && cp -r " GOLDEN "%s changed && cd changed && %s", name, change[i]) == 0, "%s: %s", change[i], out);
    CHECK_OK(mn_checkpoint_model("changed", mn_backend_ref(), MN_F64, &m, &p));
    if (m) CHECK_OK(mn_session_new(m, p, &(mn_session_config){.batch = e.B}, &s));
    if (s) CHECK_OK(mn_session_feed(s, e.tokens, e.T, &logits));
    if (logits && !i && (first = malloc(n * sizeof *first))) memcpy(first, logits, n * sizeof *first);
    if (logits && i && first) worst = 0;
    for (size_t k = 0; logits && i && first && k < n; k++) worst = fmax(worst, fabs((double)logits[k] - (double)first[k]));
    mn_session_free(s);
    mn_params_free(p);
    mn_model_free(m);
  }
  free(first);
  close_said(&e);
  return worst;
}

static void refused(const char *name, const char *change, const char *why);

/* A setting of another architecture changes nothing, and one that is left out means what the architecture's own program takes then. */
static void settings_mean_what_they_do_there(void) {
#define ADD(what)  "sed -i '1s/{/{" what ",/' config.json"
#define CAP(value) "sed -i 's/\\(\"attn_logit_softcapping\": \\)1.5/\\1" value "/' config.json"
#define NO_CAP     "sed -i '/\"attn_logit_softcapping\"/d' config.json"
  CHECK(apart("llama", ":", ADD("\"sliding_window\": 2")) == 0, "Llama has no window");
  CHECK(apart("gemma2", ":",
              "tr -d '\\n' <config.json | sed 's/\"layer_types\": \\[[^]]*\\]/\"sliding_window_pattern\": 3/' >c && mv c config.json") == 0,
        "every other layer of Gemma 2 has one");
  CHECK(apart("gemma2", NO_CAP, CAP("50.0")) == 0 && apart("gemma2", NO_CAP, CAP("null")) > 1e-6,
        "Gemma 2 caps scores where nothing is said");
#define BOTH(more)                                                                                                                         \
  "sed -i '1s/{/{\"rope_scaling\": {\"type\": \"llama3\", \"factor\": 4.0, \"high_freq_factor\": 4.0, \"low_freq_factor\": 1.0" more       \
  "},/' config.json"
  CHECK(apart("llama", ":", BOTH(", \"original_max_position_embeddings\": 16")) == 0, "the same map twice, in older and in newer words: %s",
        mn_message());
  refused("llama", BOTH(", \"original_max_position_embeddings\": 17"), "rope_scaling says something else than rope_parameters");
  refused("llama", BOTH(""), "rope_scaling says something else than rope_parameters");
#undef BOTH
  CHECK(apart("mistral", ":", ADD("\"quantization_config\": {}")) == 0, "nothing is quantized");
  CHECK(apart("mistral", ":",
              ADD("\"quantization_config\": {\"quant_method\": \"bitsandbytes\", \"load_in_4bit\": false, \"load_in_8bit\": false}")) == 0,
        "nor here");
  refused("mistral", ADD("\"quantization_config\": {\"quant_method\": \"bitsandbytes\", \"load_in_4bit\": true, \"load_in_8bit\": false}"),
          "quantized ('bitsandbytes')");
  CHECK(apart("gemma", ":", "sed -i 's/\"hidden_act\": \"gelu_pytorch_tanh\"/\"hidden_act\": \"gelu\"/' config.json") == 0, "both are one");
#undef ADD
#undef CAP
#undef NO_CAP
}

/* An encoder, whole, with types of tokens; and without them, as if all were of the first. */
static void an_encoder_says_what_it_said(void) {
  said e;
  mn_backend *b = NULL;
  mn_model *m = NULL;
  mn_params *p = NULL;
  char path[512];
  if (!open_said("bert", "hidden", &e)) return;
  const mn_st_tensor *types;
  int32_t type[64];
  CHECK_OK(mn_st_need(e.st, "types", NULL, &types));
  CHECK_OK(mn_st_read(e.st, types, MN_I32, type));
  CHECK_OK(mn_backend_open("ref", 1, &b));
  CHECK_OK(mn_checkpoint_model(folder("bert", path), b, MN_F64, &m, &p));
  for (int without = 0; m && without < 2; without++) {
    mn_graph *g = mn_graph_new();
    mn_scope *s = mn_scope_new(g, (mn_build){.param = MN_F64, .compute = MN_F64}, e.B);
    mn_model_io in = {0}, out_io = {0};
    mn_plan *plan = NULL;
    mn_io_put(&in, "tokens", mn_input(g, "tokens", MN_I32, MN_SHAPE(e.B, e.T)));
    if (!without) mn_io_put(&in, "types", mn_input(g, "types", MN_I32, MN_SHAPE(e.B, e.T)));
    mn_model_build(s, m, &in, &out_io);
    mn_tensor *hidden = mn_io_get(&out_io, "hidden");
    CHECK_OK(mn_graph_status(g));
    CHECK_OK(mn_plan_compile(&(mn_plan_request){.graph = g, .n_outputs = 1, .outputs = &hidden, .backend = b}, &plan));
    CHECK_OK(mn_params_bind(p, s, plan));
    mn_plan_bind(plan, in.tensor[0], e.tokens);
    if (!without) mn_plan_bind(plan, in.tensor[1], type);
    CHECK_OK(mn_plan_run(plan));
    const double *h = mn_plan_output(plan, 0)->data;
    double worst = 0;
    for (int64_t i = 0; i < e.B * e.T * e.V; i++) worst = fmax(worst, fabs(h[i] - (double)e.logits[i]));
    CHECK(without ? worst > 1e-3 : worst < 1e-6, "differs by %g", worst);
    mn_plan_free(plan);
    mn_graph_free(g);
  }
  mn_params_free(p);
  mn_model_free(m);
  mn_backend_free(b);
  close_said(&e);
}

/* Whole models, where MNEME_MODELS names the folder that has them (bench/models.sh): what they say makes sense. */
static void real_models_make_sense(void) {
  const char *models = getenv("MNEME_MODELS");
  if (!models || !*models) {
    printf("       MNEME_MODELS is not set: no real models\n");
    return;
  }
  CHECK(sh(MNEME
           "generate %s/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf --prompt 'The capital of France is' --temperature 0 --tokens 2 --quiet",
           models) == 0 &&
            strstr(out, "Paris"),
        "%s", out);
  CHECK(sh(MNEME "generate --model %s/gemma3/gemma-3-270m-q4_k_m.gguf --prompt 'One, two, three, four,' --temperature 0 --tokens 2 --quiet",
           models) == 0 &&
            strstr(out, "four, five"),
        "%s", out);
  CHECK(sh(MNEME "embed %s/minilm 'A man is eating food.' 'Someone has lunch.' 'The girl is carrying a baby.' --cosine", models) == 0, "%s",
        out);
  double near = 0, far = 0;
  CHECK(sscanf(out, "%*f %lf %lf", &near, &far) == 2 && near > 0.4 && far < 0.1, "%s", out);
}

/* ---- what is refused ---- */

/* The golden checkpoint as `copy`, changed by a shell command there; opening it says why not. */
static void refused(const char *name, const char *change, const char *why) {
  mn_bundle b;
  CHECK(sh("rm -rf copy && cp -r " GOLDEN "%s copy && cd copy && %s", name, change) == 0, "%s: %s", change, out);
  mn_status status = mn_bundle_open("copy", NULL, 1, &b);
  CHECK(status != MN_OK && strstr(mn_message(), why), "%s: %s: %s", name, change, status == MN_OK ? "opened" : mn_message());
  if (status == MN_OK) mn_bundle_close(&b);
}

static void damage_is_named(void) {
  refused("llama", "truncate -s -9 model-00001-of-00002.safetensors", "copy/model-00001-of-00002.safetensors");
  refused("llama", "rm model-00002-of-00002.safetensors", "copy/model-00002-of-00002.safetensors");
  refused("llama", "sed -i 's/model-00001-of/model-00003-of/' model.safetensors.index.json", "model-00003-of-00002.safetensors");
  refused("llama", "sed -i 's#\"model-00001#\"../model-00001#' model.safetensors.index.json",
          "is no name of a safetensors file beside the index");
  refused("llama", "sed -i 's/model.norm.weight/model.norms.weight/' model.safetensors.index.json",
          "tensor 'model.norms.weight' is not in");
  refused("llama", "sed -i '/model.norm.weight/s/0000[12]-of/00003-of/' model.safetensors.index.json", "model-00003-of-00002.safetensors");
  refused("llama", "sed -i '/model.norm.weight/d' model.safetensors.index.json && sed -i 'N;s/,\\n}/}/;P;D' model.safetensors.index.json",
          "tensor 'model.norm.weight' is not in the index");
  refused(
      "mistral", "sed -i 's/mlp.up_proj/mlp.op_proj/' model.safetensors",
      "tensor 'model.layers.0.mlp.up_proj.weight' (layers.0.channel.up_proj.weight) is missing; there is 'model.layers.0.mlp.op_proj.weight'");
  refused("mistral", "rm model.safetensors && touch pytorch_model.bin", "save the model as safetensors");
  refused("mistral", "echo '{' > config.json", "copy/config.json");
}

static void settings_are_held_against_tensors(void) {
  refused(
      "mistral", "sed -i 's/\"intermediate_size\": 24/\"intermediate_size\": 32/' config.json",
      "tensor 'model.layers.0.mlp.gate_proj.weight' is [24, 16], and the settings make it [32, 16] (layers.0.channel.gate_proj.weight)");
  refused("mistral", "sed -i 's/\"num_hidden_layers\": 2/\"num_hidden_layers\": 1/' config.json", "has no place in a model of type llama");
  refused("mistral", "sed -i 's/\"num_hidden_layers\": 2/\"num_hidden_layers\": 3/' config.json", "tensor 'model.layers.2.");
  refused("mistral", "sed -i 's/\"vocab_size\": 48/\"vocab_size\": 1000000000000/' config.json", "vocab_size");
  refused("mistral", "sed -i 's/\"hidden_size\": 16/\"hidden_size\": -16/' config.json",
          "config.json:11: hidden_size must be an integer from 1 to 2^40");
  refused("mistral", "sed -i 's/\"hidden_size\": 16/\"hidden_size\": 1048576/' config.json", "and the settings make it [48, 1048576]");
  refused("mistral", "sed -i '/\"hidden_size\"/d' config.json", "hidden_size is missing");
  refused("mistral", "sed -i 's/\"num_hidden_layers\": 2/\"num_hidden_layers\": 1000000/' config.json", "layers");
  refused("mistral", "sed -i 's/\"num_key_value_heads\": 2/\"num_key_value_heads\": 3/' config.json", "kv_heads");
  refused("smollm", "sed -i 's/\"tie_word_embeddings\": true/\"tie_word_embeddings\": false/' config.json",
          "tensor 'lm_head.weight' (lm_head.weight) is missing");
}

static void what_is_not_done_is_named(void) {
  refused("llama", "sed -i 's/\"model_type\": \"llama\"/\"model_type\": \"llamas\"/' config.json",
          "model_type is 'llamas', which is not opened; these are: ");
  refused("llama", "sed -i 's/LlamaForCausalLM/LlamaForSequenceClassification/' config.json", "LlamaForSequenceClassification");
  refused("llama", "sed -i 's/\"silu\"/\"relu6\"/' config.json", "hidden_act is 'relu6', which is not done");
  refused("llama", "sed -i 's/\"llama3\"/\"dynamic\"/' config.json", "rope_parameters is of type 'dynamic', which is not done");
  refused("llama", "sed -i 's/\"high_freq_factor\": 4.0/\"high_freq_factor\": 0.5/' config.json", "below high_freq_factor: 0.5");
  refused("smollm", "sed -i 's/\"rope_scaling\": null/\"rope_scaling\": {\"type\": \"linear\", \"mystery\": 2}/' config.json", "mystery");
  refused("qwen2", "sed -i '1s/{/{\"is_causal\": false,/' config.json", "is_causal is false");
  refused("llama", "sed -i '1s/{/{\"partial_rotary_factor\": 0.5,/' config.json", "partial_rotary_factor is 0.5");
  refused("gemma2", "sed -i 's/\"rope_theta\": 10000.0/\"partial_rotary_factor\": 0.5/' config.json", "only 1 is done");
  refused("llama", "sed -i '1s/{/{\"rope_scaling\": {\"rope_type\": \"linear\", \"factor\": 2.0},/' config.json",
          "rope_scaling says something else than rope_parameters");
  refused("gemma3", "sed -i 's/\"sliding_attention\": {/\"other\": {/' config.json", "one for sliding_attention");
  refused("gemma3", "sed -i 's/\"attn_logit_softcapping\": null/\"attn_logit_softcapping\": 2.0/' config.json",
          "scores of Gemma 3 have no cap");
  refused("gemma2", "sed -i 's/\"attn_logit_softcapping\": 1.5/\"attn_logit_softcapping\": 0/' config.json",
          "must be above 0; null is no cap");
  refused("gemma2", "sed -i 's/\"final_logit_softcapping\": 2.0/\"final_logit_softcapping\": -2.0/' config.json", "must be above 0");
  refused("gemma", "sed -i 's/\"hidden_act\": \"gelu_pytorch_tanh\"/\"hidden_act\": \"silu\"/' config.json", "hidden_act is 'silu'");
  refused("gemma", "sed -i '1s/{/{\"hidden_activation\": \"relu\",/; /\"hidden_activation\": null/d' config.json",
          "hidden_activation is 'relu'");
  refused("phi3", "sed -i 's/\"sliding_window\": null/\"sliding_window\": 3/' config.json", "sliding_window is 3 beside longrope");
  refused("phi3", "sed -i '/\"partial_rotary_factor\"/d; 1s/{/{\"partial_rotary_factor\": 0,/' config.json", "partial_rotary_factor is 0;");
  refused("phi3", "sed -i '/\"partial_rotary_factor\"/d; 1s/{/{\"partial_rotary_factor\": 1.5,/' config.json", "factor is 1.5;");
  refused("qwen3", "sed -i '1s/{/{\"quantization_config\": {\"quant_method\": \"gptq\", \"bits\": 4},/' config.json",
          "quantization_config says that the weights are quantized ('gptq')");
  refused("llama", "sed -i 's/\"mlp_bias\": false/\"mlp_bias\": true/' config.json", "mlp.gate_proj.bias");
}

/* Which of an encoder's vectors counts, there and back; what is not done is said to who asks for one, and the model opens. */
static void what_is_said_of_sentences_counts(void) {
#define MODULE(i, folder, kind)                                                                                                            \
  "{\\\"idx\\\": " i ", \\\"path\\\": \\\"" folder "\\\", \\\"type\\\": \\\"sentence_transformers.models." kind "\\\"}"
#define MODULES       "echo \"[" MODULE("0", "", "Transformer") ", " MODULE("1", "1_Pooling", "Pooling") "]\" >modules.json; mkdir 1_Pooling; "
#define POOLING(keys) MODULES "echo '{" keys "}' >1_Pooling/config.json"
  static const struct {
    const char *change;
    mn_pooling how;
    int most;
    const char *fault;
  } cases[] = {
      {":", MN_POOL_MEAN, 0, NULL},
      {POOLING("\"pooling_mode_cls_token\": true, \"pooling_mode_mean_tokens\": false"), MN_POOL_FIRST, 0, NULL},
      {POOLING("\"pooling_mode_lasttoken\": true"), MN_POOL_LAST, 0, NULL},
      {POOLING("\"pooling_mode_mean_sqrt_len_tokens\": true") "; echo '{\"max_seq_length\": 7}' >sentence_bert_config.json", MN_POOL_MEAN,
       7, NULL},
      {POOLING("\"pooling_mode_mean_tokens\": true") "; echo '{\"prompts\": {\"query\": \"query: \"}, \"default_prompt_name\": \"query\"}' "
                                                     ">config_sentence_transformers.json",
       0, 0, "so that 'query: ' stands before each text"},
      {POOLING("\"pooling_mode_mean_tokens\": true") "; echo '{\"prompts\": {\"query\": \"query: \"}, \"default_prompt_name\": null}' "
                                                     ">config_sentence_transformers.json",
       MN_POOL_MEAN, 0, NULL},
      {POOLING("\"pooling_mode_max_tokens\": true"), 0, 0, "pooling_mode_max_tokens is true, and is not done"},
      {POOLING("\"pooling_mode_cls_token\": true, \"pooling_mode_mean_tokens\": true"), 0, 0, "2 modes of pooling are true"},
      {POOLING("\"pooling_mode_cls_token\": true") "; sed -i 's/Transformer/Dense/' modules.json", 0, 0, "a module 'Dense'"},
      {POOLING("\"pooling_mode_cls_token\": true") "; sed -i 's/1_Pooling/..\\/x/' modules.json", 0, 0, "no folder beside it"},
      {POOLING(
           "\"pooling_mode_mean_tokens\": true") "; echo '{\"do_lower_case\": true}' >sentence_bert_config.json; cp ../bert.json tokenizer.json",
       MN_POOL_MEAN, 0, NULL},
      {POOLING(
           "\"pooling_mode_mean_tokens\": true") "; echo '{\"do_lower_case\": true}' >sentence_bert_config.json; cp ../bert_cased.json tokenizer.json",
       0, 0, "tokenizer.json keeps capitals"},
      {MODULES "echo '{' >1_Pooling/config.json", 0, 0, "1_Pooling/config.json"},
      {MODULES ":", 0, 0, "1_Pooling/config.json is not there"},
  };
  json_t *kinds = json_load_file(MN_TEST_SOURCE_DIR "/tests/golden/tokenizer/kinds.json", JSON_ALLOW_NUL, NULL);
  CHECK(json_dump_file(json_object_get(json_object_get(kinds, "bert"), "tokenizer"), "bert.json", 0) == 0, "written");
  CHECK(json_dump_file(json_object_get(json_object_get(kinds, "bert_cased"), "tokenizer"), "bert_cased.json", 0) == 0, "written");
  json_decref(kinds);
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    mn_bundle b;
    CHECK(sh("rm -rf copy c.gguf back && cp -r " GOLDEN "bert copy && cd copy && %s", cases[i].change) == 0, "%s", out);
    CHECK_OK(mn_bundle_open("copy", NULL, 1, &b));
    CHECK(cases[i].fault ? b.sentences.fault && strstr(b.sentences.fault, cases[i].fault)
                         : !b.sentences.fault && b.sentences.pooling == cases[i].how && b.sentences.most == cases[i].most,
          "%s: %d, %lld, %s", cases[i].change, (int)b.sentences.pooling, (long long)b.sentences.most,
          b.sentences.fault ? b.sentences.fault : "-");
    mn_bundle_close(&b);
    const int rc = sh(MNEME "convert copy --out c.gguf --quiet 2>&1");
    CHECK(cases[i].fault ? rc && strstr(out, cases[i].fault) : !rc, "%s: %s", cases[i].change, out);
    for (int k = 0; k < 2 && !rc; k++) { /* in GGUF, and from there */
      if (k) CHECK(sh(MNEME "convert c.gguf --out back --quiet 2>&1") == 0, "%s", out);
      CHECK_OK(mn_bundle_open(k ? "back" : "c.gguf", NULL, 1, &b));
      CHECK(!b.sentences.fault && b.sentences.pooling == cases[i].how && b.sentences.most == cases[i].most, "%s: %d, %lld", cases[i].change,
            (int)b.sentences.pooling, (long long)b.sentences.most);
      mn_bundle_close(&b);
    }
  }
#undef MODULE
#undef MODULES
#undef POOLING
}

/* What a tokenizer.json says of batches is told where it is not done, and there alone: an encoder of sentences refuses a text that is too long. */
static void what_is_not_cut_is_told(void) {
  static const char told[] = "'truncation' cuts texts after 9 tokens";
  json_t *kinds = json_load_file(MN_TEST_SOURCE_DIR "/tests/golden/tokenizer/kinds.json", JSON_ALLOW_NUL, NULL);
  json_t *tokenizer = json_object_get(json_object_get(kinds, "bert"), "tokenizer");
  json_object_set_new(tokenizer, "padding", json_pack("{s: {s: i}}", "strategy", "Fixed", 9));
  for (int cuts = 0; cuts < 2; cuts++) {
    json_object_set_new(tokenizer, "truncation", cuts ? json_pack("{s: i}", "max_length", 9) : json_null());
    CHECK(sh("rm -rf copy other && cp -r " GOLDEN "bert copy && cp -r " GOLDEN "llama other") == 0, "%s", out);
    CHECK(json_dump_file(tokenizer, "copy/tokenizer.json", 0) == 0 && json_dump_file(tokenizer, "other/tokenizer.json", 0) == 0, "written");
    (void)sh(MNEME "embed copy a --quiet 2>&1");
    CHECK(!strstr(out, "truncation") && !strstr(out, "padding"), "%s", out);
    CHECK(sh(MNEME "tokenize copy/tokenizer.json a 2>&1") == 0 && !strstr(out, told) == !cuts && !strstr(out, "padding"), "%s", out);
    (void)sh(MNEME "generate --model other --prompt a --tokens 1 --quiet 2>&1");
    CHECK(!strstr(out, told) == !cuts && !strstr(out, "padding"), "%s", out);
  }
  json_decref(kinds);
}

/* Ids beyond the vocabulary end nothing; a whole file is read before shards, as other programs do. */
static void what_stands_beside_is_no_trap(void) {
  mn_bundle b;
  CHECK(sh("rm -rf copy && cp -r " GOLDEN
           "mistral copy && cd copy && echo '{\"eos_token_id\": [7, 999999], \"bos_token_id\": 48}' >generation_config.json && "
           "echo '{\"weight_map\": {\"a\": \"none.safetensors\"}}' >model.safetensors.index.json") == 0,
        "%s", out);
  CHECK_OK(mn_bundle_open("copy", NULL, 1, &b));
  CHECK(b.speech.n_eos == 1 && b.speech.eos[0] == 7 && b.speech.bos == -1, "%d tokens end answers, %d begins texts", b.speech.n_eos,
        (int)b.speech.bos);
  mn_bundle_close(&b);
  refused("mistral", "echo '[1]' >generation_config.json", "generation_config.json: must be a map");
  refused("mistral", "echo '\"x\"' >tokenizer_config.json", "tokenizer_config.json: must be a map");
}

static void what_lies_there_is_no_model(void) {
  mn_bundle b;
  CHECK(mn_bundle_open("nowhere", NULL, 1, &b) == MN_ERR_IO && strstr(mn_message(), "nowhere does not exist"), "%s", mn_message());
  CHECK(sh("mkdir -p empty && echo '{}' > text && mkdir -p other && echo '{\"a\": 1}' > other/config.json") == 0, "%s", out);
  CHECK(mn_bundle_open("empty", NULL, 1, &b) == MN_ERR_IO && strstr(mn_message(), "has no config.json"), "%s", mn_message());
  CHECK(mn_bundle_open("text", NULL, 1, &b) == MN_ERR_FORMAT && strstr(mn_message(), "is not a model"), "%s", mn_message());
  CHECK(mn_bundle_open("other", NULL, 1, &b) == MN_ERR_FORMAT && strstr(mn_message(), "model_type"), "%s", mn_message());
}

/* Python's whole numbers have any number of digits: 10^30 places mean that there is no end. A text that looks like one stays a text. */
static void numbers_of_any_length_are_read(void) {
  mn_bundle b;
  CHECK(
      sh("rm -rf copy && cp -r " GOLDEN
         "smollm copy && cd copy && echo '{\"model_max_length\": 1000000000000000019884624838656, \"chat_template\": "
         "\"a \\\" 1000000000000000019884624838656\", \"eos_token\": {\"content\": \"<|turn|>\"}, \"x\": [-98765432109876543210987, 18446744073709551616]}' >tokenizer_config.json") ==
          0,
      "%s", out);
  CHECK_OK(mn_bundle_open("copy", NULL, 1, &b));
  CHECK(b.speech.chat_template && !strcmp(b.speech.chat_template, "a \" 1000000000000000019884624838656"), "%s",
        b.speech.chat_template ? b.speech.chat_template : "none");
  CHECK(b.speech.eos_token && !strcmp(b.speech.eos_token, "<|turn|>"), "what templates are told is the one that is named here");
  mn_bundle_close(&b);
}

/* What a stream of n tokens says, and how much room it has where caches are limited to `limit` tokens; 0: where they are not. */
static size_t room_of(const char *name, int64_t limit, const int32_t *tokens, int64_t n, int64_t V, float *to) {
  char path[512];
  mn_bundle b;
  mn_session *s = NULL;
  const float *logits = NULL;
  snprintf(path, sizeof path, GOLDEN "%s", name);
  mn_status status = mn_bundle_open(path, NULL, 1, &b);
  CHECK_OK(status);
  if (status != MN_OK) return 0;
  if (limit) CHECK_OK(mn_bundle_limit(&b, limit));
  CHECK_OK(mn_session_new(b.model, b.params, &(mn_session_config){.prefill = 4}, &s));
  if (s) CHECK_OK(mn_session_feed(s, tokens, n, &logits));
  if (logits) memcpy(to, logits, (size_t)V * sizeof *to);
  const size_t bytes = s ? mn_session_room_bytes(s) : 0;
  mn_session_free(s);
  mn_bundle_close(&b);
  return bytes;
}

/* A window that no stream outgrows, because other caches end it, holds no more than they do; where nothing ends a stream it stays. */
static void windows_are_no_longer_than_streams(void) {
  said e;
  if (!open_said("gemma3", "logits", &e)) return;
  float *all = malloc((size_t)e.V * sizeof *all), *few = malloc((size_t)e.V * sizeof *few);
  room_of("gemma3", 0, e.tokens, 4, e.V, all);
  const size_t wide = room_of("gemma3", 5, e.tokens, 4, e.V, few), narrow = room_of("gemma3", 4, e.tokens, 4, e.V, few);
  CHECK(!memcmp(all, few, (size_t)e.V * sizeof *all), "a limit that is not reached changes what is said");
  CHECK(narrow * 5 <= wide * 4 + 64, "room of %zu bytes for 4 tokens, and %zu for 5", narrow, wide);
  close_said(&e);
  if (open_said("mistral", "logits", &e)) { /* all of its layers have a window of 5 */
    all = realloc(all, (size_t)e.V * sizeof *all), few = realloc(few, (size_t)e.V * sizeof *few);
    const size_t free_room = room_of("mistral", 0, e.tokens, e.T, e.V, all), room = room_of("mistral", 4, e.tokens, e.T, e.V, few);
    CHECK(e.T > 5 && !memcmp(all, few, (size_t)e.V * sizeof *all) && room == free_room, "%zu bytes, and %zu", room, free_room);
    close_said(&e);
  }
  free(all), free(few);
}

int main(void) {
  RUN(each_says_what_it_said_in_f64);
  RUN(each_says_what_it_said_in_f32);
  RUN(matrices_in_bf16_stay_where_they_lie);
  RUN(settings_count);
  RUN(settings_mean_what_they_do_there);
  RUN(an_encoder_says_what_it_said);
  RUN(real_models_make_sense);
  RUN(damage_is_named);
  RUN(settings_are_held_against_tensors);
  RUN(what_is_not_done_is_named);
  RUN(what_is_said_of_sentences_counts);
  RUN(what_is_not_cut_is_told);
  RUN(what_stands_beside_is_no_trap);
  RUN(what_lies_there_is_no_model);
  RUN(numbers_of_any_length_are_read);
  RUN(windows_are_no_longer_than_streams);
  return test_end();
}
