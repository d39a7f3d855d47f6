/* test_hybrids.c - hybrid models and state-space models of other programs as models of ours: each of tests/golden/hybrids, some as a GGUF file,
 * too, says what transformers made of it, in f64 and in f32, cut anywhere and token by token; a stream goes two ways from where it was forked; saved and
 * loaded it goes on to the same bits, and reads nothing again; what is not done is refused by name. */
#include "checkpoint/arch.h"
#include "checkpoint/bundle.h"
#include "checkpoint/convert.h"
#include "format/safetensors.h"
#include "program.h"
#include "run/session.h"
#include "test.h"

#define GOLDEN MN_TEST_SOURCE_DIR "/tests/golden/hybrids/"

static const char *const names[] = {"lfm2",
                                    "lfm2_moe",
                                    "mamba2",
                                    "bamba",
                                    "granite",
                                    "granite_moe",
                                    "falcon_h1",
                                    "falcon_h1_norm",
                                    "qwen3_next",
                                    "qwen3_5",
                                    "qwen3_5_moe",
                                    "kimi_linear",
                                    "mixtral",
                                    "qwen3_moe",
                                    "olmoe",
                                    "rwkv7",
                                    "lfm2/model.gguf",
                                    "rwkv7/model.gguf",
                                    "granite/model.gguf"};
enum { NAMES = sizeof names / sizeof *names };

typedef struct opened { /* a checkpoint, and what was made of it elsewhere */
  mn_backend *backend;
  mn_model *model;
  mn_params *params;
  int64_t B, T, V;
  int32_t *tokens;
  float *logits;
  double most; /* the largest logit */
} opened;

/* name: a folder of tests/golden/hybrids, or a GGUF file there, "lfm2/model.gguf"; or "./folder", a changed copy. */
static bool open_golden(const char *name, mn_dtype dtype, const char *backend, opened *o) {
  char path[512];
  const mn_st_tensor *tokens, *logits;
  mn_st *st = NULL;
  *o = (opened){0};
  const char *root = name[0] == '.' ? "" : GOLDEN;
  snprintf(path, sizeof path, "%s%.*s/expected.safetensors", root, (int)(2 + strcspn(name + 2, "/")), name);
  CHECK_OK(mn_st_open(path, &st));
  if (!st || mn_st_need(st, "tokens", NULL, &tokens) != MN_OK || mn_st_need(st, "logits", NULL, &logits) != MN_OK) return false;
  o->B = logits->shape.dim[0], o->T = logits->shape.dim[1], o->V = logits->shape.dim[2];
  o->tokens = malloc((size_t)(o->B * o->T) * sizeof *o->tokens);
  o->logits = malloc((size_t)(o->B * o->T * o->V) * sizeof *o->logits);
  CHECK_OK(mn_st_read(st, tokens, MN_I32, o->tokens));
  CHECK_OK(mn_st_read(st, logits, MN_F32, o->logits));
  mn_st_close(st);
  for (int64_t i = 0; i < o->B * o->T * o->V; i++) o->most = fmax(o->most, fabs((double)o->logits[i]));
  snprintf(path, sizeof path, "%s%s", root, name);
  CHECK_OK(mn_backend_open(backend, dtype == MN_F64 ? 1 : 2, &o->backend));
  if (o->backend) CHECK_OK(mn_checkpoint_model(path, o->backend, dtype, &o->model, &o->params));
  return o->model != NULL;
}

static void close_golden(opened *o) {
  mn_params_free(o->params);
  mn_model_free(o->model);
  mn_backend_free(o->backend);
  free(o->tokens);
  free(o->logits);
}

/* tokens [at, at + n) of every row into s; the last ones' logits, and their greatest difference from what was expected. */
static double feed(const opened *o, mn_session *s, int64_t at, int64_t n, const float **logits) {
  int32_t part[64];
  const float *said = NULL;
  double worst = 0;
  for (int64_t b = 0; b < o->B; b++) memcpy(part + b * n, o->tokens + b * o->T + at, (size_t)n * sizeof *part);
  CHECK_OK(mn_session_feed(s, part, n, &said));
  if (logits) *logits = said;
  if (!said) return INFINITY;
  for (int64_t b = 0; b < o->B; b++)
    for (int64_t v = 0; v < o->V; v++)
      worst = fmax(worst, fabs((double)said[b * o->V + v] - (double)o->logits[(b * o->T + at + n - 1) * o->V + v]));
  return worst / o->most;
}

static void each_says_what_it_said_in(mn_dtype dtype, const char *backend, double most) {
  for (int i = 0; i < NAMES; i++) {
    opened o;
    mn_session *s = NULL;
    if (open_golden(names[i], dtype, backend, &o)) CHECK_OK(mn_session_new(o.model, o.params, &(mn_session_config){.batch = o.B}, &s));
    const int64_t cuts[][2] = {{o.T, 1}, {1, 1}, {5, 7}, {7, 1}, {3, 16}}; /* the first piece, and the others */
    for (int k = 0; s && k < 5; k++) {
      CHECK_OK(mn_session_reset(s));
      for (int64_t at = 0, n = cuts[k][0]; at < o.T; at += n, n = cuts[k][1]) {
        if (n > o.T - at) n = o.T - at;
        double error = feed(&o, s, at, n, NULL);
        CHECK(error <= most, "%s: %g after %lld and pieces of %lld, at token %lld", names[i], error, (long long)cuts[k][0],
              (long long)cuts[k][1], (long long)(at + n - 1));
      }
    }
    mn_session_free(s);
    close_golden(&o);
  }
}

static void each_says_what_it_said_in_f64(void) { each_says_what_it_said_in(MN_F64, "ref", 1e-6); }
static void each_says_what_it_said_in_f32(void) { each_says_what_it_said_in(MN_F32, NULL, 1e-4); }

/* The last logits of all rows' tokens, read at once and token by token, of the model in that file: [2,B,V]; *kept: its matrices of experts that
 * stay in bf16. */
static float *said_by(const char *path, mn_dtype dtype, const char *backend, const opened *like, int *kept) {
  opened o = {0};
  mn_session *s = NULL;
  const int64_t n = like->B * like->V;
  float *all = calloc((size_t)(2 * n), sizeof *all);
  CHECK_OK(mn_backend_open(backend, dtype == MN_F64 ? 1 : 2, &o.backend));
  CHECK_OK(mn_checkpoint_model(path, o.backend, dtype, &o.model, &o.params));
  *kept = 0;
  for (int i = 0; o.params && i < o.params->n; i++)
    *kept += strstr(o.params->info[i].name, ".experts.") != NULL && o.params->type[i] == MN_STORED_BF16;
  if (o.model) CHECK_OK(mn_session_new(o.model, o.params, &(mn_session_config){.batch = like->B}, &s));
  for (int64_t way = 0; s && way < 2; way++) {
    const int64_t step = way ? 1 : like->T;
    CHECK_OK(mn_session_reset(s));
    for (int64_t at = 0; at < like->T; at += step) {
      const float *logits = NULL;
      feed(like, s, at, step, &logits);
      if (logits) memcpy(all + way * n, logits, (size_t)n * sizeof *all);
    }
  }
  mn_session_free(s);
  close_golden(&o);
  return all;
}

/* Experts in bf16 stay in two bytes a value, of one tensor or of one each, and say what the same numbers do in f64. */
static void experts_stay_in_bf16(void) {
  static const char *const models[] = {"qwen3_moe", "granite_moe", "olmoe"};
  for (int i = 0; i < 6; i++) {
    opened o;
    mn_convert_report report;
    int none, kept;
    char path[512];
    if (!open_golden(models[i / 2], MN_F64, "ref", &o)) continue;
    snprintf(path, sizeof path, GOLDEN "%s", models[i / 2]);
    if (i % 2) CHECK_OK(mn_convert(path, "bf16.gguf", &(mn_convert_options){.type = MN_BF16}, &report));
    const char *from = i % 2 ? "bf16.gguf" : path;
    float *want = said_by(from, MN_F64, "ref", &o, &none), *got = said_by(from, MN_F32, NULL, &o, &kept);
    CHECK(none == 0 && kept >= 3, "%s: %d matrices of experts in bf16, %d in f64", from, kept, none);
    for (int64_t k = 0; k < 2 * o.B * o.V; k++)
      CHECK(fabs((double)got[k] - (double)want[k]) < 1e-5 * o.most, "%s of %s: logit %lld is %g, not %g", from, models[i / 2], (long long)k,
            (double)got[k], (double)want[k]);
    free(want);
    free(got);
    close_golden(&o);
  }
}

/* One way goes on as the text does, the other reads something else first; neither knows of the other. */
static void a_stream_forks(void) {
  for (int i = 0; i < NAMES; i++) {
    opened o;
    mn_session *s = NULL, *fork = NULL;
    if (open_golden(names[i], MN_F32, NULL, &o)) CHECK_OK(mn_session_new(o.model, o.params, &(mn_session_config){.batch = o.B}, &s));
    if (s) {
      int32_t other[8] = {1, 2, 3, 4, 5, 6, 7, 8};
      double error = feed(&o, s, 0, 9, NULL);
      CHECK_OK(mn_session_fork(s, &fork));
      CHECK_OK(mn_session_feed(fork, other, 4, NULL));
      error = fmax(error, feed(&o, s, 9, o.T - 9, NULL));
      CHECK(error <= 1e-4, "%s: %g", names[i], error);
      mn_session_free(fork);
      CHECK_OK(mn_session_reset(s));
      feed(&o, s, 0, 9, NULL);
      CHECK_OK(mn_session_fork(s, &fork));
      mn_session_free(s);
      s = NULL;
      error = feed(&o, fork, 9, o.T - 9, NULL);
      CHECK(error <= 1e-4, "%s, of the fork: %g", names[i], error);
    }
    mn_session_free(fork);
    mn_session_free(s);
    close_golden(&o);
  }
}

/* What another program's model was told is kept as what a model of ours was: the same bits after a restart, and one token computed for
 * each that is new. */
static void a_stream_is_kept(void) {
  for (int i = 0; i < NAMES; i++) {
    opened o, again;
    mn_session *s = NULL, *later = NULL;
    if (open_golden(names[i], MN_F32, NULL, &o)) CHECK_OK(mn_session_new(o.model, o.params, &(mn_session_config){.batch = o.B}, &s));
    if (s && open_golden(names[i], MN_F32, NULL, &again)) {
      const float *through, *loaded;
      feed(&o, s, 0, 11, NULL);
      CHECK_OK(mn_session_save(s, "kept.safetensors"));
      feed(&o, s, 11, o.T - 11, &through);
      CHECK_OK(mn_session_new(again.model, again.params, &(mn_session_config){.batch = o.B}, &later));
      CHECK_OK(mn_session_load(later, "kept.safetensors"));
      CHECK(mn_session_position(later) == 11, "%s: %lld tokens", names[i], (long long)mn_session_position(later));
      feed(&again, later, 11, o.T - 11, &loaded);
      CHECK(!memcmp(through, loaded, (size_t)(o.B * o.V) * sizeof *through), "%s: other bits after a restart", names[i]);
      mn_session_free(later);
      close_golden(&again);
    }
    mn_session_free(s);
    close_golden(&o);
  }
}

/* ---- what is refused ---- the golden checkpoint as `copy`, changed by a shell command there. */
static void refused(const char *name, const char *change, const char *why) {
  mn_bundle b;
  CHECK(sh("rm -rf copy && cp -r " GOLDEN "%s copy && cd copy && %s", name, change) == 0, "%s: %s", change, out);
  mn_status status = mn_bundle_open("copy", NULL, 1, &b);
  CHECK(status != MN_OK && strstr(mn_message(), why), "%s: %s: %s", name, change, status == MN_OK ? "opened" : mn_message());
  if (status == MN_OK) mn_bundle_close(&b);
}

/* Python's word for what is without a limit. */
static void infinity_is_a_number(void) {
  mn_bundle b;
  CHECK(sh("rm -rf copy && cp -r " GOLDEN
           "bamba copy && cd copy && tr -d '\\n ' <config.json | sed 's/{\"__float__\":\"Infinity\"}/Infinity/' >c && grep "
           "-q ',Infinity' c && mv c config.json") == 0,
        "%s", out);
  CHECK_OK(mn_bundle_open("copy", NULL, 1, &b));
  mn_bundle_close(&b);
}

/* Kimi Linear's settings as they were first published: layers are counted from 1, in a map. */
static void settings_of_before_say_the_same(void) {
  static const char change[] =
      "rm -rf copy && cp -r " GOLDEN "kimi_linear copy && cd copy && tr -d '\\n' <config.json | sed -e "
      "'s/\"layer_types\": \\[[^]]*\\]/\"linear_attn_config\": {\"full_attn_layers\": [2], \"kda_layers\": [1], \"head_dim\": 4, "
      "\"num_heads\": 2, \"short_conv_kernel_size\": 4}/' -e 's/\"mlp_layer_types\": \\[[^]]*\\]/\"first_k_dense_replace\": 1, "
      "\"moe_layer_freq\": 1, \"mla_use_nope\": true/' -e 's/ *\"linear_[a-z_]*\": [0-9],//g' >c && mv c config.json && grep -q kda_layers "
      "config.json && ! grep -q layer_types config.json";
  opened o;
  mn_session *s = NULL;
  CHECK(sh("%s", change) == 0, "%s", out);
  if (open_golden("./copy", MN_F32, NULL, &o)) CHECK_OK(mn_session_new(o.model, o.params, &(mn_session_config){.batch = o.B}, &s));
  const double error = s ? feed(&o, s, 0, o.T, NULL) : INFINITY;
  CHECK(error <= 1e-4, "%g", error);
  mn_session_free(s);
  close_golden(&o);
}

/* Widths of RWKV-7 that its settings leave out are those of its tensors, in either form; a head's follows from their number. */
static void widths_that_are_left_out_are_those_of_tensors(void) {
  static const char *const changes[] = {"/intermediate_size/d", "/low_rank_dim/d",
                                        "s/\"head_dim\": 4/\"head_dim\": null, \"num_heads\": 4/"};
  for (int i = 0; i < 3; i++)
    for (int gguf = 0; gguf < 2; gguf++) {
      opened o;
      mn_session *s = NULL;
      CHECK(sh("rm -rf copy && cp -r " GOLDEN
               "rwkv7 copy && cp copy/config.json c && sed -i '%s' copy/config.json && ! cmp -s c copy/config.json",
               changes[i]) == 0,
            "%s", out);
      if (gguf) CHECK(sh(MNEME "convert copy --out copy/model.gguf --quiet 2>&1") == 0, "%s: %s", changes[i], out);
      if (open_golden(gguf ? "./copy/model.gguf" : "./copy", MN_F32, NULL, &o))
        CHECK_OK(mn_session_new(o.model, o.params, &(mn_session_config){.batch = o.B}, &s));
      const double error = s ? feed(&o, s, 0, o.T, NULL) : INFINITY;
      CHECK(error <= 1e-4, "%s: %g", changes[i], error);
      mn_session_free(s);
      close_golden(&o);
    }
}

static void what_is_not_done_is_named(void) {
  refused("kimi_linear", "sed -i 's/\"num_expert_group\": 1/\"num_expert_group\": 2/' config.json", "choosing groups first is not done");
  refused("kimi_linear", "sed -i 's/\"kv_lora_rank\": 6/\"kv_lora_rank\": 7/' config.json", "kv_a_proj_with_mqa.weight' is [8, 8]");
  refused("kimi_linear", "sed -i 's/\"num_key_value_heads\": 2/\"num_key_value_heads\": 1/' config.json", "must be num_attention_heads");
  refused("lfm2", "sed -i 's/\"full_attention\"/\"sliding_attention\"/' config.json",
          "layer_types has a layer of kind 'sliding_attention', which is not done");
  refused("lfm2", "sed -i 's/\"conv_L_cache\": 3/\"conv_L_cache\": 1/' config.json", "conv must be");
  refused("lfm2", "sed -i 's/\"num_hidden_layers\": 3/\"num_hidden_layers\": 2/' config.json",
          "layer_types must be a list of a word for each layer");
  refused("lfm2_moe", "sed -i 's/experts.3.w3/experts.4.w3/' model.safetensors", "feed_forward.experts.3.w3.weight");
  refused("granite", "sed -i 's/\"position_embedding_type\": null/\"position_embedding_type\": \"alibi\"/' config.json",
          "must be rope or nope");
  refused("mamba2", "sed -i 's/\"num_heads\": 8/\"num_heads\": 7/' config.json", "times head_dim is not the inner width, 32");
  refused("falcon_h1", "sed -i '1s/{/{\"mamba_proj_bias\": true,/;/\"mamba_proj_bias\": false/d;/\"projectors_bias\"/d' config.json",
          "projectors_bias is false beside mamba_proj_bias");
  refused("falcon_h1", "sed -i '1s/{/{\"projectors_bias\": true,/;/\"projectors_bias\": false/d' config.json",
          "mamba_proj_bias is false beside projectors_bias");
  refused("falcon_h1", "sed -i 's/\"key_multiplier\": 0.8/\"key_multiplier\": \"big\"/' config.json", "key_multiplier");
  refused("granite", "sed -i 's/\"attention_multiplier\": [0-9.]*/\"attention_multiplier\": 0/' config.json", "multiplied by it nothing");
  refused("granite_moe", "sed -i '1s/{/{\"partial_rotary_factor\": 0.5,/' config.json", "only 1 is done");
  /* 0 entries would read as all of them, and there are no more than all */
  refused("bamba", "sed -i 's/\"partial_rotary_factor\": 0.5/\"partial_rotary_factor\": 0/' config.json", "partial_rotary_factor is 0;");
  refused("qwen3_next", "sed -i 's/\"partial_rotary_factor\": 0.25/\"partial_rotary_factor\": 0.01/' config.json", "is 0.01;");
  refused("qwen3_5", "sed -i 's/\"partial_rotary_factor\": 0.5/\"partial_rotary_factor\": -1e300/' config.json", "is -1e+300;");
  refused("rwkv7", "sed -i 's/\"num_hidden_layers\": [0-9]*/\"num_hidden_layers\": 4097/' config.json", "4097 layers; 4096 are the most");
  refused("mamba2", "sed -i 's/\"num_hidden_layers\": [0-9]*/\"num_hidden_layers\": 0/' config.json", "must be an integer from 1");
  refused("qwen3_5_moe", "sed -i '1s/{/{\"norm_topk_prob\": false,/' config.json", "norm_topk_prob is false");
  refused("bamba", "sed -i 's/\"attention_bias\": false/\"attention_bias\": true/' config.json", "attention_bias is true");
  refused("lfm2_moe", "sed -i 's/\"num_experts\": 4/\"num_experts\": 3/' config.json", "is [4, 16], and the settings make it [3, 16]");
}

int main(void) {
  RUN(each_says_what_it_said_in_f64);
  RUN(each_says_what_it_said_in_f32);
  RUN(experts_stay_in_bf16);
  RUN(a_stream_forks);
  RUN(a_stream_is_kept);
  RUN(infinity_is_a_number);
  RUN(settings_of_before_say_the_same);
  RUN(widths_that_are_left_out_are_those_of_tensors);
  RUN(what_is_not_done_is_named);
  return test_end();
}
