/* test_model_kinds.c - what must be true of every kind of model and of the forms of a block, in order: golden vectors from NumPy;
 * gradients; what is a stream can be cut anywhere, and what is none says why; padding is seen by nobody; a recipe comes back from
 * its tree; what a recipe may not ask for. */
#include "graph/fused_loss.h"
#include "model_check.h"
#include "run/session.h"

#define SEEN "{type: attention, heads: 2, causal: false}"

static const char *const files[] = {"decoder_post",
                                    "decoder_sandwich",
                                    "decoder_parallel",
                                    "decoder_policies",
                                    "hmt_prev_tail",
                                    "hmt_head",
                                    "hmt_mean",
                                    "encoder_tokens",
                                    "encoder_frames",
                                    "classifier_mean",
                                    "classifier_last",
                                    "classifier_first",
                                    "classifier_none",
                                    "encoder_decoder_tokens",
                                    "encoder_decoder_shared",
                                    "encoder_decoder_frames",
                                    "vision_class_token",
                                    "vision_mean",
                                    "forecaster_each",
                                    "forecaster_all",
                                    "forecaster_last"};
enum { FILES = sizeof files / sizeof *files };

static void golden_vectors(void) {
  for (int i = 0; i < FILES; i++) {
    mk_golden f;
    if (!mk_golden_open(&f, files[i])) continue;
    double e = mk_golden_error(&f);
    CHECK(e < 1e-11, "%s differs by %g", files[i], e);
    mc_tensor *last = &f.m.params.t[f.m.params.n - 1];
    last->x[0] += 1e-3; /* and the vectors say something: another parameter gives another result */
    CHECK(mk_golden_error(&f) > 1e-7, "%s does not depend on %s", files[i], last->name);
    mk_golden_close(&f);
  }
}

static void gradients_agree_with_differences(void) {
  for (int i = 0; i < FILES; i++) {
    mk_golden f;
    if (!mk_golden_open(&f, files[i])) continue;
    double e = mk_gradient_error(&f.m, &f.in, 12, 3);
    CHECK(e < 1e-7, "%s: %g", files[i], e);
    mk_golden_close(&f);
  }
}

/* A decoder, with or without a source, said in pieces or token by token, is what it is in one piece. */
static void a_stream_cut_anywhere_is_the_stream(void) {
  int streams = 0;
  for (int i = 0; i < FILES; i++) {
    mk_golden f;
    if (!mk_golden_open(&f, files[i])) continue;
    if (mn_model_check_stream(f.m.model) == MN_OK) {
      int64_t T = mc_get(&f.in, "tokens")->shape.dim[1], each[16];
      for (int64_t c = 1; c < T; c++) {
        double e = mk_split_error(&f.m, &f.in, "hidden", T, 1, &c);
        CHECK(e < 1e-11, "%s cut at %lld: %g", files[i], (long long)c, e);
        each[c - 1] = c;
      }
      double e = mk_split_error(&f.m, &f.in, "hidden", T, (int)T - 1, each);
      CHECK(e < 1e-11, "%s token by token: %g", files[i], e);
      streams++;
    }
    mk_golden_close(&f);
  }
  CHECK(streams == 9, "%d of the files are streams", streams);
}

/* What checkpoints of other programs have: gradients, and cuts. What each of them says is held against its own program in
 * test_checkpoints. */
static void forms_of_trained_models(void) {
#define ATTENTION "{type: attention, heads: 4, kv_heads: 2, head_dim: 6, max_context: 32"
  static const char *const forms[] = {
      ("{vocab_size: 9, d_model: 8, layers: 1, embed_norm: true, embedding_scale: 3, logit_scale: 0.5, logit_softcap: 1.5, block: "
       "{mixer: " ATTENTION
       ", qkv_bias: true, softcap: 0.7, score_scale: 0.9}, channel: {type: glu, activation: gelu_tanh, bias: true}, hidden: "
       "12, residual_scale: 0.4}}"),
      ("{vocab_size: 9, d_model: 8, layers: 1, tie_embeddings: false, logit_softcap: 2, block: {mixer: " ATTENTION
       ", qk_norm: heads, qk_norm_eps: 0.001, rope_divisors: [1, 2, 4], rope_gain: 1.3}, norm_position: sandwich}}"),
      ("{vocab_size: 9, d_model: 8, layers: 1, logit_scale: 2, block: {mixer: {type: attention, heads: 2, window: 3, softcap: 1.1, qk_norm: "
       "all}}}"),
  };
  for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
    mk_model m;
    mc_bag in = {0};
    int64_t each[8] = {1, 2, 3, 4, 5, 6};
    if (!mk_open(&m, forms[i], 3)) continue;
    mk_tokens(&in, "tokens", 2, 7, 9, 5);
    double e = mk_gradient_error(&m, &in, 30, 3);
    CHECK(e < 1e-7, "%s: gradients differ by %g", forms[i], e);
    e = mk_split_error(&m, &in, "hidden", 7, 6, each);
    CHECK(e < 1e-11, "%s: token by token %g", forms[i], e);
    mc_bag_free(&in);
    mk_close(&m);
  }
}

/* Logits of a head with a cap, and the loss over them, against their meaning. */
static void a_head_may_have_a_cap(void) {
  enum { N = 3, D = 4, V = 5 };
  const double cap = 0.8;
  mn_graph *g = mn_graph_new();
  mn_scope *s = mn_scope_new(g, (mn_build){.param = MN_F64, .compute = MN_F64}, 1);
  double *h = mc_normal(N * D, 1, 5), *w = mc_normal(V * D, 1, 6), logits[N * V] = {0}, loss = 0, want = 0;
  mn_tensor *head = mn_head_capped(g, mn_const(g, MN_F64, MN_SHAPE(V, D), w), cap);
  mn_tensor *x = mn_const(g, MN_F64, MN_SHAPE(N, D), h), *target = mn_const(g, MN_I32, MN_SHAPE(N), (int32_t[]){4, 0, 2});
  mn_tensor *out[2] = {mn_logits(s, mn_reshape(g, x, MN_SHAPE(1, N, D)), head), mn_linear_cross_entropy(g, x, head, target, NULL, NULL)};
  mn_plan *plan = NULL;
  CHECK_OK(mn_plan_compile(&(mn_plan_request){.graph = g, .n_outputs = 2, .outputs = out, .backend = mn_backend_ref()}, &plan));
  if (plan) {
    CHECK_OK(mn_plan_run(plan));
    memcpy(logits, mn_plan_output(plan, 0)->data, sizeof logits);
    loss = *(const double *)mn_plan_output(plan, 1)->data;
  }
  for (int n = 0; n < N; n++) {
    double sum = 0, z[V];
    for (int v = 0; v < V; v++) {
      z[v] = 0;
      for (int d = 0; d < D; d++) z[v] += h[n * D + d] * w[v * D + d];
      z[v] = cap * tanh(z[v] / cap);
      CHECK(fabs(logits[n * V + v] - z[v]) < 1e-12, "%g for %g", logits[n * V + v], z[v]);
      sum += exp(z[v]);
    }
    want += log(sum) - z[((int[]){4, 0, 2})[n]];
  }
  CHECK(fabs(loss - want) < 1e-12, "%g for %g", loss, want);
  mn_plan_free(plan);
  mn_graph_free(g);
  free(h), free(w);
}

static void what_is_no_stream_says_why(void) {
  static const struct {
    const char *yaml, *why;
  } cases[] = {
      {"{vocab_size: 9, d_model: 8, block: {mixer: " SEEN "}}",
       "a model of type decoder cannot be run as a stream: its attention with causal: false sees later tokens"},
      {"{type: encoder, vocab_size: 9, d_model: 8, block: {mixer: " SEEN "}}", "its attention with causal: false sees later tokens"},
      {"{type: classifier, num_classes: 2, pooling: first, vocab_size: 9, d_model: 8, block: {mixer: {type: attention}}}",
       "it judges a whole sequence"},
      {"{type: vision, height: 4, width: 4, num_classes: 2, d_model: 8, block: {mixer: {type: attention}}}", "it judges a whole image"},
      {"{type: forecaster, context: 16, horizon: 2, channels: 1, d_model: 8, block: {mixer: {type: attention}}}",
       "it reads a whole window"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    mk_model m;
    if (!mk_open(&m, cases[i].yaml, 1)) continue;
    CHECK(mn_model_check_stream(m.model) == MN_ERR_CONFIG && strstr(mn_message(), cases[i].why), "%s: %s", cases[i].yaml, mn_message());
    mk_close(&m);
  }
  mk_model m; /* what is built as a stream all the same is refused where it is built */
  if (!mk_open(&m, cases[0].yaml, 1)) return;
  mn_graph *g = mn_graph_new();
  mn_scope *s = mn_scope_new(g, (mn_build){.param = MN_F64, .compute = MN_F64, .carried = true}, 1);
  mn_model_declare(s, m.model);
  CHECK(mn_graph_status(g) == MN_ERR_CONFIG && strstr(mn_message(), "layers.0.mixer"), "%s", mn_message());
  mn_graph_free(g);
  mk_close(&m);
}

/* What stands behind a row's length changes nothing of what stands before it. */
static void padding_is_seen_by_nobody(void) {
  static const char *const padded[] = {"encoder_tokens", "encoder_frames", "classifier_mean", "classifier_last", "encoder_decoder_tokens"};
  for (size_t i = 0; i < sizeof padded / sizeof *padded; i++) {
    mk_golden f;
    mc_bag a = {0}, b = {0};
    if (!mk_golden_open(&f, padded[i])) continue;
    bool pair = mc_get(&f.in, "source") != NULL;
    mc_tensor *x = mc_get(&f.in, pair                      ? "source"
                                 : mc_get(&f.in, "tokens") ? "tokens"
                                                           : "frames"),
              *n = mc_get(&f.in, pair ? "source_length" : "length");
    int64_t T = x->shape.dim[1], inner = mn_shape_count(&x->shape) / (2 * T), row = n->x[0] < n->x[1] ? 0 : 1, length = (int64_t)n->x[row];
    const char *name = mc_get(&f.want, "logits") ? "logits" : "hidden";
    CHECK(mk_run(&f.m, &f.in, &a), "%s", mn_message());
    for (int64_t k = (row * T + length) * inner; k < (row + 1) * T * inner; k++)
      x->x[k] = inner == 1 ? fmod(x->x[k] + 1, 9) : 100 + x->x[k];
    CHECK(mk_run(&f.m, &f.in, &b), "%s", mn_message());
    mc_tensor *u = mc_get(&a, name), *v = mc_get(&b, name);
    int64_t each = mn_shape_count(&u->shape) / 2, seen = u->shape.ndim == 3 && !pair ? length * u->shape.dim[2] : each;
    CHECK(mc_difference(u->x + row * each, v->x + row * each, seen) == 0, "%s: padding is seen", padded[i]);
    x->x[(row * T + length - 1) * inner] = inner == 1 ? fmod(x->x[(row * T + length - 1) * inner] + 1, 9) : 100;
    CHECK(mk_run(&f.m, &f.in, &b), "%s", mn_message());
    CHECK(mc_difference(u->x + row * each, mc_get(&b, name)->x + row * each, seen) > 1e-6, "%s: and the last place is", padded[i]);
    mc_bag_free(&a);
    mc_bag_free(&b);
    mk_golden_close(&f);
  }
}

/* A source that is shorter than the room of a stream, and one that is longer. */
static void a_source_has_room(void) {
  mk_golden f;
  if (!mk_golden_open(&f, "encoder_decoder_frames")) return;
  mk_model m = {0};
  mc_bag state = {0}, out = {0};
  if (mk_open(
          &m,
          "{type: encoder_decoder, vocab_size: 11, d_model: 8, layers: 1, channels: 3, max_source: 6, block: {mixer: {type: attention, heads: 2}},"
          " encoder: {layers: 1, block: {mixer: " SEEN "}}}",
          1))
    CHECK(!mk_segment(&m, &f.in, &state, "hidden", &out) && strstr(mn_message(), "max_source is 6; raise it"), "%s", mn_message());
  mk_close(&m);
  mc_bag_free(&state);
  mc_bag_free(&out);
  mc_bag none = {0};
  mk_built b;
  mk_cut(&f.m, &f.in, 1, 3, &none); /* a training without its source */
  CHECK(!mk_build(&f.m, &none, false, &b) && strstr(mn_message(), "a model of type encoder_decoder needs source"), "%s", mn_message());
  mk_free(&b);
  mc_bag_free(&none);
  mk_golden_close(&f);
}

/* A session is given its source, then says token by token what the model says in one piece; a fork goes on with the same source. */
static void a_session_has_a_source_of(const char *name) {
  mk_golden f;
  if (!mk_golden_open(&f, name)) return;
  mn_backend *backend = mn_backend_ref();
  mn_params *params = NULL;
  mn_session *s = NULL, *fork = NULL;
  CHECK_OK(mn_params_new(f.m.model, backend, MN_F32, 1, &params));
  for (int i = 0; params && i < params->n; i++)
    for (int64_t k = 0; k < mn_shape_count(&params->info[i].shape); k++)
      mn_element_store(params->data[i], MN_F32, k, mc_get(&f.m.params, params->info[i].name)->x[k]);
  enum { B = 2, T = 5, D = 8, V = 11 };
  const mc_tensor *head = mc_get(&f.want, "head"), *hidden = mc_get(&f.want, "hidden"), *x = mc_get(&f.in, "source");
  const int64_t n = x->shape.dim[1], all = mn_shape_count(&x->shape);
  const bool frames = x->shape.ndim == 3;
  int32_t source[64], length[B], token[B];
  float numbers[256];
  const float *logits = NULL;
  for (int64_t i = 0; i < all; i++) numbers[i] = (float)x->x[i];
  for (int64_t i = 0; i < B * n; i++) source[i] = (int32_t)x->x[i];
  for (int b = 0; b < B; b++)
    length[b] = (int32_t)mc_get(&f.in, "source_length")->x[b], token[b] = (int32_t)mc_get(&f.in, "tokens")->x[b * T];
  CHECK_OK(mn_session_new(f.m.model, params, &(mn_session_config){.batch = B}, &s));
  if (s) {
    CHECK(mn_session_feed(s, token, 1, &logits) == MN_ERR_CONFIG && strstr(mn_message(), "this session has none"), "%s", mn_message());
    CHECK_OK(frames ? mn_session_source_frames(s, numbers, n, length) : mn_session_source(s, source, n, length));
    CHECK((frames ? mn_session_source(s, source, n, length) : mn_session_source_frames(s, numbers, n, length)) == MN_ERR_CONFIG &&
              strstr(mn_message(), frames ? "is frames" : "is tokens"),
          "%s", mn_message());
    for (int t = 0; t < T; t++) {
      if (t == 2) CHECK_OK(mn_session_fork(s, &fork));
      for (int b = 0; b < B; b++) token[b] = (int32_t)mc_get(&f.in, "tokens")->x[b * T + t];
      for (int turn = 0; turn < (fork ? 2 : 1); turn++) {
        CHECK_OK(mn_session_feed(turn ? fork : s, token, 1, &logits));
        double worst = 0;
        for (int b = 0; b < B; b++)
          for (int v = 0; logits && v < V; v++) {
            double want = 0;
            for (int d = 0; d < D; d++) want += hidden->x[(b * T + t) * D + d] * head->x[v * D + d];
            worst = fmax(worst, fabs(want - (double)logits[b * V + v]));
          }
        CHECK(logits && worst < 1e-4, "token %d: %g", t, worst);
      }
    }
    CHECK_OK(mn_session_reset(s));
    CHECK(mn_session_feed(s, token, 1, &logits) == MN_ERR_CONFIG, "after a reset there is no source");
  }
  mn_session_free(fork);
  mn_session_free(s);
  mn_params_free(params);
  mk_golden_close(&f);
}

static void a_session_has_a_source(void) {
  a_session_has_a_source_of("encoder_decoder_tokens");
  a_session_has_a_source_of("encoder_decoder_frames");
}

static void a_recipe_comes_back(void) {
  for (int i = 0; i < FILES; i++) {
    mk_golden f;
    if (!mk_golden_open(&f, files[i])) continue;
    mn_text a = {0}, b = {0};
    const mn_value *v = mn_model_to_value(f.m.arena, f.m.model), *back = NULL;
    mn_model *again = NULL;
    if (v) CHECK_OK(mn_value_to_json(v, 0, &a));
    if (a.data) CHECK_OK(mn_json_parse(f.m.arena, "config.json", a.data, strlen(a.data), &back));
    if (back) CHECK_OK(mn_model_parse(back, NULL, 0, &again));
    if (again) CHECK_OK(mn_value_to_json(mn_model_to_value(f.m.arena, again), 0, &b));
    CHECK(a.data && b.data && !strcmp(a.data, b.data), "%s\n%s", a.data, b.data);
    if (again) { /* and it is the same model */
      mn_model *kept = f.m.model;
      f.m.model = again;
      double e = mk_golden_error(&f);
      CHECK(e < 1e-11, "%s, read back, differs by %g", files[i], e);
      f.m.model = kept;
    }
    mn_model_free(again);
    mn_text_free(&a);
    mn_text_free(&b);
    mk_golden_close(&f);
  }
}

static void what_a_recipe_may_not_ask_for(void) {
#define DECODER "vocab_size: 9\nd_model: 8\nblock: {mixer: {type: attention, heads: 2, "
  mk_refused(DECODER "bias: true, qkv_bias: true}}\n", "recipe.yaml:3|qkv_bias|has no effect beside bias: true");
  mk_refused(DECODER "qk_norm_eps: 0.1}}\n", "qk_norm_eps|has no effect without a qk_norm");
  mk_refused(DECODER "rope_divisors: [1, 2, 3]}}\n", "rope_divisors|must be 2 numbers, one for each pair that is rotated, and are 3");
  mk_refused(DECODER "rope: false, rope_divisors: [1, 2]}}\n", "rope_divisors|has no effect with rope: false");
  mk_refused(DECODER "rope: false, rope_gain: 2}}\n", "rope_gain|has no effect with rope: false");
  mk_refused(DECODER "softcap: 2, relative_bias: 8}}\n", "softcap|is not done beside a relative_bias");
  mk_refused(DECODER "qk_norm: each}}\n", "qk_norm|none, heads, all");
  mk_refused("type: classifier\nvocab_size: 9\nnum_classes: 2\nlogit_softcap: 3\nblock: {mixer: {type: attention}}\n",
             "recipe.yaml:4|logit_softcap|has no effect: a model of type classifier says no next token");
  mk_refused("type: encoder\nchannels: 3\nembed_norm: true\nblock: {mixer: {type: attention}}\n", "embed_norm|reads no tokens");
  mk_refused("type: encodr\nvocab_size: 9\n", "recipe.yaml:1|unknown model type 'encodr'|did you mean 'encoder'");
  mk_refused("type: encoder\nvocab_size: 9\nchannels: 3\nblock: {mixer: {type: attention}}\n", "recipe.yaml:2|vocab_size|reads no tokens");
  mk_refused("type: encoder\nblock: {mixer: {type: attention}}\n", "vocab_size must be given");
  mk_refused("type: classifier\nvocab_size: 9\nblock: {mixer: {type: attention}}\n", "needs the key 'num_classes'");
  mk_refused("type: classifier\nvocab_size: 9\nnum_classes: 2\npooling: max\nblock: {mixer: {type: attention}}\n",
             "recipe.yaml:4|pooling|mean, last, first, none|max");
  mk_refused("type: vision\nheight: 6\nwidth: 6\nnum_classes: 2\npatch: 4\nblock: {mixer: {type: attention}}\n",
             "recipe.yaml:5|patch must divide height 6");
  mk_refused("type: vision\nheight: 8\nwidth: 8\nnum_classes: 2\npositions: learned\nmax_positions: 4\nblock: {mixer: {type: attention}}\n",
             "recipe.yaml:6|max_positions is 4, but an image has 5 places");
  mk_refused("type: vision\nheight: 8\nwidth: 8\nnum_classes: 2\nvocab_size: 9\nblock: {mixer: {type: attention}}\n",
             "recipe.yaml:5|unknown key 'vocab_size'");
  mk_refused("type: forecaster\ncontext: 20\nhorizon: 2\nchannels: 1\nblock: {mixer: {type: attention}}\n",
             "patch must divide context 20: 16 does not");
  mk_refused("type: forecaster\ncontext: 16\nchannels: 1\nblock: {mixer: {type: attention}}\n", "needs the key 'horizon'");
  mk_refused("type: encoder_decoder\nvocab_size: 9\nblock: {mixer: {type: attention}}\n", "encoder must be a map");
  mk_refused("type: encoder_decoder\nvocab_size: 9\nblock: {mixer: {type: attention}}\nencoder: {layer: 2}\n",
             "recipe.yaml:4|unknown key 'layer'|layers");
  mk_refused(
      "type: encoder_decoder\nvocab_size: 9\nblock: {mixer: {type: attention}, cross: {heads: 3}}\nencoder: {block: {mixer: {type: attention}}}\n",
      "recipe.yaml:3|heads must divide d_model 256");
  mk_refused(
      "type: encoder_decoder\nvocab_size: 9\nblock: {mixer: {type: attention}, parallel: true}\nencoder: {block: {mixer: {type: attention}}}\n",
      "recipe.yaml:3|parallel|cross: none");
  mk_refused("vocab_size: 9\nblock: {mixer: {type: attention}, cross: {heads: 3}}\n", "recipe.yaml:2|cross has no effect|encoder_decoder");
  mk_refused("vocab_size: 9\nblock: {mixer: {type: attention}, channel: swigly}\n",
             "recipe.yaml:2|unknown channel part|did you mean 'swiglu'");
  mk_refused("vocab_size: 9\nblock: {mixer: {type: attention}, channel: {type: mlp, activation: rlu}}\n",
             "recipe.yaml:2|activation must be one of|relu");
  mk_refused("vocab_size: 9\nblock: {mixer: {type: attention}, channel: {type: swiglu, activation: relu}}\n",
             "recipe.yaml:2|unknown key 'activation'");
  mk_refused("vocab_size: 9\nblock: {mixer: {type: attention}, channel: none, parallel: true}\n", "recipe.yaml:2|parallel has no effect");
  mk_refused("vocab_size: 9\nblock: {mixer: {type: attention}, norm_position: mid}\n",
             "recipe.yaml:2|norm_position must be one of pre, post, sandwich");
  mk_refused("vocab_size: 9\npositions: learned\nblock: {mixer: {type: attention}}\n", "max_positions must be given");
  mk_refused("vocab_size: 9\nmax_positions: 8\nblock: {mixer: {type: attention}}\n",
             "recipe.yaml:2|max_positions has no effect with positions: none");
  mk_refused("vocab_size: 9\nd_model: 9\npositions: sinusoidal\nblock: {mixer: {type: attention}}\n", "recipe.yaml:2|d_model must be even");
}

/* A policy is chosen by the first pattern that fits; LoRA freezes what it stands beside, and begins as what it stands beside. */
static void policies_of_projections(void) {
  static const char dense[] = "{vocab_size: 9, d_model: 8, layers: 1, block: {mixer: {type: attention, heads: 2, bias: true}, hidden: 8}}";
  static const char lora[] = "{vocab_size: 9, d_model: 8, layers: 1, block: {mixer: {type: attention, heads: 2, bias: true}, hidden: 8}, "
                             "linear: [{match: '*.q_proj', type: dense}, {match: '*.mixer.*', type: lora, rank: 2}]}";
  mk_model a, b;
  mc_bag in = {0}, x = {0}, y = {0};
  if (!mk_open(&a, dense, 4)) return;
  if (!mk_open(&b, lora, 4)) {
    mk_close(&a);
    return;
  }
  mn_graph *g = mn_graph_new();
  mn_scope *s = mn_scope_new(g, (mn_build){.param = MN_F64, .compute = MN_F64}, 1);
  const mn_param_info *info;
  mn_model_declare(s, b.model);
  CHECK_OK(mn_graph_status(g));
  int frozen = 0, added = 0, n = mn_scope_params(s, &info, NULL);
  for (int i = 0; i < n; i++) {
    bool of_lora = strstr(info[i].name, "lora_") != NULL, beside = strstr(info[i].name, "mixer.") && !strstr(info[i].name, "q_proj");
    CHECK(!(info[i].flags & MN_PARAM_FROZEN) == (of_lora || !beside), "%s", info[i].name);
    frozen += (info[i].flags & MN_PARAM_FROZEN) != 0;
    added += of_lora;
    mc_tensor *p = mc_get(&b.params, info[i].name);
    if (strstr(info[i].name, "lora_b")) memset(p->x, 0, sizeof(double) * (size_t)mn_shape_count(&p->shape));
  }
  CHECK(frozen == 6 && added == 6, "%d frozen, %d added", frozen, added);
  mk_tokens(&in, "tokens", 1, 5, 9, 2);
  if (mk_run(&a, &in, &x) && mk_run(&b, &in, &y)) {
    mc_tensor *u = mc_get(&x, "hidden"), *v = mc_get(&y, "hidden");
    CHECK(mc_difference(u->x, v->x, 40) < 1e-14, "LoRA begins as the model it stands beside");
  }
  mn_graph_free(g);
  mc_bag_free(&in);
  mc_bag_free(&x);
  mc_bag_free(&y);
  mk_close(&a);
  mk_close(&b);
}

/* What only the shapes, or the names, of a model that is built can tell. */
static void policies_that_do_not_fit(void) {
  static const struct {
    const char *linear, *expect;
  } cases[] = {
      {"[{match: '*.qproj', type: lora}]", "model.linear: '*.qproj' fits no projection of the model; there are layers.0.mixer.q_proj, "},
      {"[{match: '*.q_proj', type: grouped, groups: 3}]", "groups 3 must divide input 8 and output 8 of layers.0.mixer.q_proj"},
      {"[{match: '*.q_proj', type: masked, keep: 1, of: 3}]", "`of` 3 must divide input 8 of layers.0.mixer.q_proj"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    char yaml[300];
    mn_arena *arena = mn_arena_new();
    const mn_value *v = NULL;
    mn_model *m = NULL;
    mn_graph *g = mn_graph_new();
    snprintf(yaml, sizeof yaml, "{vocab_size: 9, d_model: 8, block: {mixer: {type: attention, heads: 2}}, linear: %s}", cases[i].linear);
    CHECK_OK(mn_yaml_parse(arena, "r.yaml", yaml, strlen(yaml), &v));
    CHECK_OK(mn_model_parse(v, NULL, 0, &m));
    if (m) mn_model_declare(mn_scope_new(g, (mn_build){.param = MN_F32, .compute = MN_F32}, 1), m);
    CHECK(mn_graph_status(g) == MN_ERR_CONFIG && strstr(mn_message(), cases[i].expect), "%s", mn_message());
    mn_graph_free(g);
    mn_model_free(m);
    mn_arena_free(arena);
  }
  mk_refused("vocab_size: 9\nlinear: lora\nblock: {mixer: {type: attention}}\n", "recipe.yaml:2|linear must be a list");
  mk_refused("vocab_size: 9\nlinear: [{type: lora}]\nblock: {mixer: {type: attention}}\n", "recipe.yaml:2|needs the key 'match'");
  mk_refused("vocab_size: 9\nlinear: [{match: x, type: lorra}]\nblock: {mixer: {type: attention}}\n",
             "recipe.yaml:2|lorra|did you mean 'lora'");
  mk_refused("vocab_size: 9\nlinear: [{match: x, type: low_rank, alpha: 2}]\nblock: {mixer: {type: attention}}\n",
             "recipe.yaml:2|unknown key 'alpha'");
  mk_refused("vocab_size: 9\nlinear: [{match: x, type: masked, keep: 4}]\nblock: {mixer: {type: attention}}\n",
             "recipe.yaml:2|keep must be less than");
}

int main(void) {
  RUN(golden_vectors);
  RUN_ONCE(gradients_agree_with_differences);
  RUN_ONCE(a_stream_cut_anywhere_is_the_stream);
  RUN(forms_of_trained_models);
  RUN(a_head_may_have_a_cap);
  RUN(what_is_no_stream_says_why);
  RUN(padding_is_seen_by_nobody);
  RUN(a_source_has_room);
  RUN(a_session_has_a_source);
  RUN(a_recipe_comes_back);
  RUN(policies_of_projections);
  RUN(policies_that_do_not_fit);
  RUN(what_a_recipe_may_not_ask_for);
  return test_end();
}
