/* test_hmt.c - what must be true of the Hierarchical Memory Transformer, in order: gradients through all segments at once are those of
 * the loop; with one slot it is a recurrent memory transformer; what a prompt is; the base inside is the base; a segment in steps is the
 * segment; what is known early; how much is held and kept; what a recipe may not ask for. Outputs: test_model_kinds.c. */
#include "model_check.h"
#include "program.h"
#include "run/session.h"
#include "scratch.h"

#define HMT(more)                                                                                                                          \
  "{type: hmt, segment: 5, sensory: 2, " more                                                                                              \
  "base: {vocab_size: 11, d_model: 8, layers: 2, block: {mixer: {type: gated_deltanet, heads: 2, chunk: 4}, hidden: 8}}}"
#define ATTENTION(more)                                                                                                                    \
  "{type: hmt, segment: 5, sensory: 2, " more                                                                                              \
  "base: {vocab_size: 11, d_model: 8, layers: 2, block: {mixer: {type: attention, heads: 2}, hidden: 8}}}"

static double *hidden_of(mk_model *m, const mc_bag *in) {
  mc_bag all = {0};
  double *x = NULL;
  if (mk_run(m, in, &all)) {
    mc_tensor *h = mc_get(&all, "hidden");
    x = malloc((size_t)mn_shape_count(&h->shape) * sizeof *x);
    memcpy(x, h->x, (size_t)mn_shape_count(&h->shape) * sizeof *x);
  }
  mc_bag_free(&all);
  return x;
}

/* The loop makes every segment again on its way back; torch keeps the graph of all segments. */
static void gradients_are_those_of_the_whole_graph(void) {
  static const char *const files[] = {"hmt_prev_tail", "hmt_head"};
  for (int i = 0; i < 2; i++) {
    mk_golden f;
    mc_bag grad = {0};
    char path[512];
    mn_st *st = NULL;
    if (!mk_golden_open(&f, files[i])) continue;
    snprintf(path, sizeof path, "%s/tests/golden/hmt/%s.safetensors", MN_TEST_SOURCE_DIR, files[i]);
    CHECK_OK(mn_st_open(path, &st));
    CHECK(st && mn_st_count(st) == f.m.params.n, "a gradient for each parameter");
    if (st && mk_gradients(&f.m, &f.in, 0, &grad, NULL))
      for (int k = 0; k < mn_st_count(st); k++) {
        const mn_st_tensor *t = mn_st_at(st, k);
        int64_t n = mn_shape_count(&t->shape);
        double *want = malloc((size_t)n * sizeof *want), most = 0;
        CHECK_OK(mn_st_read(st, t, MN_F64, want));
        for (int64_t j = 0; j < n; j++) most = fmax(most, fabs(want[j]));
        double e = mc_difference(mc_get(&grad, t->name + strlen("grad."))->x, want, n);
        CHECK(most > 1e-3 && e < 1e-10 * most, "%s: %s differs by %g of %g", files[i], t->name, e, most);
        free(want);
      }
    mn_st_close(st);
    mc_bag_free(&grad);
    mk_golden_close(&f);
  }
}

/* Memory of training: carries are kept at every so many segments, and of the activations one segment's. Sixteen times the segments
 * take far less than sixteen times the memory. */
static void a_training_keeps_no_activations(void) {
  mn_plan_report few = {0}, many = {0};
  for (int k = 0; k < 2; k++) {
    mk_model m;
    mc_bag in = {0};
    mk_tokens(&in, "tokens", 2, 5 * (k ? 512 : 32), 11, 6);
    if (mk_open(&m, ATTENTION("cache: 2, "), 8)) mk_gradients(&m, &in, 0, NULL, k ? &many : &few);
    mk_close(&m);
    mc_bag_free(&in);
  }
  int64_t outside = (512 - 32) * 5 * 2 * 8 * 8 * 4; /* tokens, hidden states, their gradients and what joins them: by the token */
  CHECK(few.bytes_planned > 0 && (int64_t)many.bytes_planned < 6 * (int64_t)few.bytes_planned + outside, "%zu for 32 segments, %zu for 512",
        few.bytes_planned, many.bytes_planned);
}

/* truncate: 2: what is said in segments 2 and 3 has no gradient for P_0, which stands in segment 0; what is said in 0 and 1 has. */
static void gradients_stop_where_a_recipe_says(void) {
  static const char *const recipes[] = {ATTENTION("summary_tokens: 3, "), ATTENTION("summary_tokens: 3, truncate: 2, ")};
  mc_bag in = {0};
  double *y[2] = {NULL, NULL};
  mk_tokens(&in, "tokens", 2, 20, 11, 6);
  for (int i = 0; i < 2; i++) {
    mk_model m;
    mc_bag late = {0}, all = {0};
    if (mk_open(&m, recipes[i], 8) && mk_gradients(&m, &in, 10, &late, NULL) && mk_gradients(&m, &in, 0, &all, NULL)) {
      double most = 0, some = 0;
      for (int d = 0; d < 8; d++)
        most = fmax(most, fabs(mc_get(&late, "first_prompt")->x[d])), some = fmax(some, fabs(mc_get(&all, "first_prompt")->x[d]));
      CHECK(i ? most == 0 : most > 1e-6, "%s: %g", recipes[i], most);
      CHECK(some > 1e-6, "%s: %g", recipes[i], some);
      y[i] = hidden_of(&m, &in);
    }
    mk_close(&m);
    mc_bag_free(&late);
    mc_bag_free(&all);
  }
  CHECK(y[0] && y[1] && mc_difference(y[0], y[1], 2 * 20 * 8) == 0, "what is said does not depend on it");
  free(y[0]);
  free(y[1]);
  mc_bag_free(&in);
}

/* With one slot there is nothing to choose: the memory is that of a recurrent memory transformer of the same weights. */
static void one_slot_is_recurrent_memory(void) {
  enum { T = 23 };
  mk_model hmt, rmt, two;
  mc_bag in = {0};
  mk_tokens(&in, "tokens", 2, T, 11, 6);
  if (mk_open(&hmt, HMT("summary_tokens: 3, cache: 1, "), 8) && mk_open(&rmt, HMT("retrieval: false, "), 8) &&
      mk_open(&two, HMT("summary_tokens: 3, cache: 2, "), 8)) {
    double *a = hidden_of(&hmt, &in), *b = hidden_of(&rmt, &in), *c = hidden_of(&two, &in);
    CHECK(a && b && c && mc_difference(a, b, 2 * T * 8) < 1e-12, "not the same");
    CHECK(c && mc_difference(c, b, 2 * T * 8) > 1e-6, "two slots are another memory");
    free(a);
    free(b);
    free(c);
  }
  mk_close(&hmt);
  mk_close(&rmt);
  mk_close(&two);
  mc_bag_free(&in);
}

/* In two segments there is one memory to find: a first stage of training on pairs of segments is one without retrieval. */
static void two_segments_have_nothing_to_look_up(void) {
  mk_model hmt, rmt;
  mc_bag in = {0}, a = {0}, b = {0};
  mk_tokens(&in, "tokens", 2, 10, 11, 6);
  if (mk_open(&hmt, HMT("summary_tokens: 3, cache: 9, "), 8) && mk_open(&rmt, HMT("retrieval: false, "), 8) &&
      mk_gradients(&hmt, &in, 0, &a, NULL) && mk_gradients(&rmt, &in, 0, &b, NULL)) {
    double *x = hidden_of(&hmt, &in), *y = hidden_of(&rmt, &in);
    CHECK(x && y && mc_difference(x, y, 2 * 10 * 8) < 1e-12, "not the same");
    for (int i = 0; i < b.n; i++) {
      double e = mc_difference(mc_get(&a, b.t[i].name)->x, b.t[i].x, mn_shape_count(&b.t[i].shape));
      CHECK(e < 1e-11, "gradient of %s: %g", b.t[i].name, e);
    }
    static const char *const own[] = {"q_proj.weight", "k_proj.weight", "summary_prompt"};
    for (int i = 0; i < 3; i++) {
      mc_tensor *g = mc_get(&a, own[i]);
      for (int64_t k = 0; g && k < mn_shape_count(&g->shape); k++) CHECK(fabs(g->x[k]) < 1e-12, "%s has a gradient", own[i]);
      CHECK(g && !mc_get(&b, own[i]), "%s is of retrieval alone", own[i]);
    }
    free(x);
    free(y);
  }
  mk_close(&hmt);
  mk_close(&rmt);
  mc_bag_free(&in);
  mc_bag_free(&a);
  mc_bag_free(&b);
}

/* The model's own loss on tokens and evidence; NaN with the message said when it cannot be. */
static double own_loss(mk_model *m, const mc_bag *in) {
  mk_built b;
  double value = NAN;
  if (mk_build(m, in, false, &b)) {
    mn_tensor *loss = mn_scope_total_loss(b.s);
    CHECK(loss != NULL, "there is a loss");
    mn_plan_request q = {.graph = b.g, .n_outputs = 1, .outputs = &loss, .backend = mn_backend_ref()};
    const bool ok = loss && mn_plan_compile(&q, &b.plan) == MN_OK && mk_bind(m, &b) && mn_plan_run(b.plan) == MN_OK;
    CHECK(ok, "%s", mn_message());
    if (ok) value = *(const double *)mn_plan_output(b.plan, 0)->data;
  }
  mk_free(&b);
  return value;
}

/* retrieval_loss: the surprise at the segments where evidence lies, a mean over what is asked for. With W_q = 0 all memories that are
 * held are as likely. Evidence of a segment that is forgotten, of this one or of none teaches nothing, but counts as asked. */
static void look_ups_are_taught(void) {
  enum { B = 2, T = 25 };
  static const struct {
    int b, t, evidence, held; /* memories held when t is read; 0: evidence is not among them */
  } asked[] = {{0, 6, 4, 1}, {0, 13, 1, 2}, {0, 24, 8, 3}, {0, 23, 19, 3}, {1, 22, 2, 0}, {1, 17, 16, 0}, {1, 18, 0, 3}};
  const int n = sizeof asked / sizeof *asked;
  static const char *const recipe = ATTENTION("summary_tokens: 3, cache: 3, query: head, retrieval_loss: 0.7, ");
  mk_model m;
  mc_bag in = {0};
  mk_tokens(&in, "tokens", B, T, 11, 6);
  double *evidence = mc_put(&in, "evidence", MN_SHAPE(B, T), NULL), want = 0;
  for (int i = 0; i < B * T; i++) evidence[i] = -1;
  for (int i = 0; i < n; i++) evidence[asked[i].b * T + asked[i].t] = asked[i].evidence, want += asked[i].held ? log(asked[i].held) : 0;
  if (mk_open(&m, recipe, 8)) {
    const double e = mk_gradient_error(&m, &in, 12, 1);
    CHECK(e < 1e-6, "gradients differ by %g", e);
    mc_tensor *q = mc_get(&m.params, "q_proj.weight");
    for (int64_t i = 0; i < mn_shape_count(&q->shape); i++) q->x[i] = 0;
    const double got = own_loss(&m, &in);
    CHECK(fabs(got - 0.7 * want / n) < 1e-12, "%.15g, not %.15g", got, 0.7 * want / n);
  }
  mk_close(&m);
  mc_bag_free(&in);
}

/* What is found does not depend on where memories lie in the cache, only on what they are. */
static void the_order_of_memories_does_not_matter(void) {
  enum { L = 5, N = 3, D = 8, BEFORE = 3 * L };
  mk_model m;
  mc_bag in = {0}, state = {0}, piece = {0}, next = {0};
  double y[3][2 * L * D];
  mk_tokens(&in, "tokens", 2, BEFORE + L, 11, 5);
  if (mk_open(&m, ATTENTION("summary_tokens: 4, cache: 3, "), 3)) {
    mk_cut(&m, &in, 0, BEFORE, &piece);
    mk_cut(&m, &in, BEFORE, BEFORE + L, &next);
    mc_bag first = {0};
    CHECK(mk_segment(&m, &piece, &state, "hidden", &first), "%s", mn_message());
    for (int way = 0; way < 3; way++) { /* as they lie; turned by one; and one of them changed */
      mc_bag s = {0}, now = {0};
      for (int i = 0; i < state.n; i++) mc_put(&s, state.t[i].name, state.t[i].shape, state.t[i].x);
      double *M = mc_get(&s, "memory")->x, *from = mc_get(&state, "memory")->x;
      for (int b = 0; b < 2 && way == 1; b++)
        for (int i = 0; i < N; i++) memcpy(M + (b * N + (i + 1) % N) * D, from + (b * N + i) * D, D * sizeof *M);
      if (way == 2) M[0] += 0.1;
      CHECK(mk_segment(&m, &next, &s, "hidden", &now), "%s", mn_message());
      memcpy(y[way], mc_get(&now, "hidden")->x, sizeof y[way]);
      mc_bag_free(&s);
      mc_bag_free(&now);
    }
    CHECK(mc_difference(y[1], y[0], 2 * L * D) < 1e-12, "another order: %g", mc_difference(y[1], y[0], 2 * L * D));
    CHECK(mc_difference(y[2], y[0], 2 * L * D) > 1e-6, "another memory is seen");
    mc_bag_free(&first);
  }
  mk_close(&m);
  mc_bag_free(&in);
  mc_bag_free(&state);
  mc_bag_free(&piece);
  mc_bag_free(&next);
}

/* One segment, no tokens before it: the base over [P_0; E; P_0] and nothing else, to the bit. */
static void one_segment_is_the_base(void) {
  enum { L = 6, D = 8 };
  mk_model m;
  mc_bag in = {0}, all = {0};
  mk_tokens(&in, "tokens", 2, L, 11, 5);
  if (mk_open(&m, "{type: hmt, segment: 6, sensory: 0, base: {vocab_size: 11, d_model: 8, layers: 2, block: {mixer: {type: attention}}}}",
              3) &&
      mk_run(&m, &in, &all)) {
    mk_built b;
    mk_build(&m, &in, false, &b);
    mn_tensor *e = mn_model_embed(mn_scope_in(b.s, "base"), m.model->base, b.in.tensor[0]);
    mn_tensor *p = mn_param(b.s, "first_prompt", MN_SHAPE(D), MN_NORMAL(1), 0, "as it is");
    p = mn_expand(b.g, mn_reshape(b.g, p, MN_SHAPE(1, 1, D)), MN_SHAPE(2, 1, D));
    mn_scope *in_base = mn_scope_call(b.s, "alone", (mn_call_options){.params = "base", .fresh = true});
    mn_tensor *y = mn_decoder_run(in_base, m.model->base, mn_concat(b.g, 3, (mn_tensor *[]){p, e, p}, 1));
    mn_plan_request q = {.graph = b.g, .n_outputs = 1, .outputs = &y, .backend = mn_backend_ref()};
    CHECK(mn_plan_compile(&q, &b.plan) == MN_OK && mk_bind(&m, &b) && mn_plan_run(b.plan) == MN_OK, "%s", mn_message());
    const double *got = b.plan ? mn_plan_output(b.plan, 0)->data : NULL, *want = mc_get(&all, "hidden")->x;
    for (int r = 0; got && r < 2; r++) CHECK(memcmp(got + (r * (L + 2) + 1) * D, want + r * L * D, L * D * sizeof *got) == 0, "row %d", r);
    mk_free(&b);
  }
  mk_close(&m);
  mc_bag_free(&in);
  mc_bag_free(&all);
}

/* Without prompts at its ends what a segment is read by is the decoder that the base is, to the bit. */
static void without_prompts_a_segment_is_the_plain_decoder(void) {
  enum { L = 6, D = 8 };
  mk_model m, decoder;
  mc_bag in = {0}, all = {0};
  mk_tokens(&in, "tokens", 2, L, 11, 5);
  bool ok = mk_open(
      &m, "{type: hmt, segment: 6, sensory: 0, base: {vocab_size: 11, d_model: 8, layers: 2, block: {mixer: {type: attention}}}}", 3);
  ok = mk_open(&decoder, "{type: decoder, vocab_size: 11, d_model: 8, layers: 2, block: {mixer: {type: attention}}}", 4) && ok;
  for (int i = 0; ok && i < decoder.params.n; i++) {
    char name[128];
    snprintf(name, sizeof name, "base.%s", decoder.params.t[i].name);
    const mc_tensor *of = mc_get(&m.params, name);
    CHECK(of != NULL, "no %s", name);
    if (of) memcpy(decoder.params.t[i].x, of->x, (size_t)mn_shape_count(&of->shape) * sizeof *of->x);
  }
  if (ok && mk_run(&decoder, &in, &all)) {
    mk_built b;
    mk_build(&m, &in, false, &b);
    mn_tensor *e = mn_model_embed(mn_scope_in(b.s, "base"), m.model->base, b.in.tensor[0]);
    mn_scope *in_base = mn_scope_call(b.s, "plain", (mn_call_options){.params = "base", .fresh = true});
    mn_tensor *y = mn_decoder_run(in_base, m.model->base, e);
    mn_plan_request q = {.graph = b.g, .n_outputs = 1, .outputs = &y, .backend = mn_backend_ref()};
    CHECK(mn_plan_compile(&q, &b.plan) == MN_OK && mk_bind(&m, &b) && mn_plan_run(b.plan) == MN_OK, "%s", mn_message());
    const double *got = b.plan ? mn_plan_output(b.plan, 0)->data : NULL, *want = mc_get(&all, "hidden")->x;
    CHECK(got && memcmp(got, want, 2 * L * D * sizeof *got) == 0, "the base says something else without prompts");
    mk_free(&b);
  }
  mk_close(&m);
  mk_close(&decoder);
  mc_bag_free(&in);
  mc_bag_free(&all);
}

/* Any decoder may be the base, and any cut: a segment in steps, its state kept between them, is the segment in one call. */
static void a_segment_in_steps_is_the_segment(void) {
  static const char *const bases[] = {
      "{type: attention, heads: 2}", "{type: attention, heads: 2, window: 3, sinks: 1, conv: 2, persistent: 2}",
      "{type: gated_deltanet, heads: 2, chunk: 4}", "{type: titans_mag, heads: 2, chunk: 3}", "{type: mamba2, head_dim: 8, state: 4}"};
  static const char *const ways[] = {"", "sensory: 0, ", "retrieval: false, ", "summary_tokens: 4, cache: 2, "};
  enum { T = 17 };
  for (int i = 0; i < 5; i++)
    for (int w = 0; w < 4; w++) {
      char yaml[512];
      mk_model m;
      mc_bag in = {0};
      int64_t each[T];
      snprintf(yaml, sizeof yaml,
               "{type: hmt, segment: 5, %s%sbase: {vocab_size: 11, d_model: 8, layers: 2, block: {mixer: %s, hidden: 8}}}",
               strstr(ways[w], "sensory") ? "" : "sensory: 3, ", ways[w], bases[i]);
      mk_tokens(&in, "tokens", 2, T, 11, 5);
      for (int t = 0; t < T; t++) each[t] = t + 1;
      if (mk_open(&m, yaml, 3)) {
        double e = mk_split_error(&m, &in, "hidden", T, 4, (int64_t[]){3, 5, 11, 16}),
               d = mk_split_error(&m, &in, "hidden", T, T - 1, each);
        CHECK(e < 1e-11 && d < 1e-11, "%s: %g; token by token %g", yaml, e, d);
        CHECK(mn_model_owner(m.model, "base.layers.1.mixer.x") == &m.model->base->stack.blocks[1].mixer, "owner");
      }
      mk_close(&m);
      mc_bag_free(&in);
    }
}

/* Rows of one batch that stand at different places of their segments, padding among them, and a session saved in the middle of one. */
static void rows_are_read_each_at_its_own_place(void) {
  enum { B = 3, T = 23, V = 11 };
  static const int32_t counts[][B] = {{4, 1, 0}, {1, 7, 3}, {6, 0, 2}, {2, 2, 9}, {5, 5, 1}, {3, 1, 6}};
  mk_model m;
  mc_bag in = {0};
  mk_tokens(&in, "tokens", B, T, V, 5);
  const double *x = mc_get(&in, "tokens")->x;
  mn_params *params = NULL;
  mn_session *s = NULL, *alone = NULL, *again = NULL;
  if (!mk_open(&m, ATTENTION("summary_tokens: 4, cache: 3, "), 3)) return;
  CHECK_OK(mn_params_new(m.model, mn_backend_ref(), MN_F32, 1, &params));
  CHECK_OK(mn_session_new(m.model, params, &(mn_session_config){.batch = B}, &s));
  CHECK_OK(mn_session_new(m.model, params, &(mn_session_config){.batch = 1}, &alone));
  CHECK_OK(mn_session_new(m.model, params, &(mn_session_config){.batch = B}, &again));
  int32_t at[B] = {0};
  float last[B][V];
  for (size_t step = 0; s && alone && again && step < sizeof counts / sizeof *counts; step++) {
    int32_t tokens[B * T] = {0};
    const float *logits = NULL;
    int64_t n = 0;
    for (int b = 0; b < B; b++) n = counts[step][b] > n ? counts[step][b] : n;
    for (int b = 0; b < B; b++)
      for (int k = 0; k < counts[step][b]; k++) tokens[b * n + k] = (int32_t)x[b * T + at[b] + k];
    CHECK_OK(mn_session_feed_rows(s, tokens, n, counts[step], &logits));
    for (int b = 0; b < B && logits; b++) {
      at[b] += counts[step][b];
      if (counts[step][b]) memcpy(last[b], logits + b * V, sizeof last[b]);
    }
    if (step == 2) { /* goes on in another session, from a file */
      const char *path = "hmt-session.safetensors";
      CHECK_OK(mn_session_save(s, path));
      CHECK_OK(mn_session_load(again, path));
      mn_session *t = s;
      s = again, again = t;
      remove(path);
    }
  }
  for (int b = 0; alone && b < B; b++) {
    int32_t row[T];
    const float *logits = NULL;
    for (int t = 0; t < T; t++) row[t] = (int32_t)x[b * T + t];
    CHECK_OK(mn_session_reset(alone));
    CHECK_OK(mn_session_feed(alone, row, at[b], &logits));
    double worst = 0;
    for (int v = 0; logits && v < V; v++) worst = fmax(worst, fabs((double)logits[v] - (double)last[b][v]));
    CHECK(logits && at[b] > 10 && worst < 1e-5, "row %d after %d tokens: %g", b, at[b], worst);
  }
  mn_session_free(s);
  mn_session_free(alone);
  mn_session_free(again);
  mn_params_free(params);
  mk_close(&m);
  mc_bag_free(&in);
}

/* In prev_tail a token changes nothing before it, to the last bit. In head it does, in the first tokens of its own segment alone. */
static void a_prompt_that_knows_the_future(void) {
  enum { T = 17, L = 5, J = 3, D = 8 };
  mk_model m[2];
  mc_bag in = {0};
  mk_tokens(&in, "tokens", 1, T, 11, 7);
  if (mk_open(&m[0], HMT("summary_tokens: 3, query: prev_tail, "), 9) && mk_open(&m[1], HMT("summary_tokens: 3, query: head, "), 9))
    for (int head = 0; head < 2; head++) {
      double *x = mc_get(&in, "tokens")->x, *a = hidden_of(&m[head], &in);
      CHECK((mn_model_check_stream(m[head].model) == MN_OK) == !head, "%s", mn_message());
      for (int t = 1; t < T; t++) {
        double keep = x[t];
        x[t] = fmod(keep + 1, 11);
        double *b = hidden_of(&m[head], &in);
        bool before = a && b && memcmp(a, b, (size_t)(t * D) * sizeof *a) != 0;
        bool early = head && t / L > 1 && t % L > 0 && t % L < J; /* seen by the prompt, which has two memories to choose from */
        CHECK(before == early, "%s: token %d", head ? "head" : "prev_tail", t);
        x[t] = keep;
        free(b);
      }
      free(a);
    }
  mk_close(&m[0]);
  mk_close(&m[1]);
  mc_bag_free(&in);
}

/* A stream holds the N memories, its prompt, the last tokens, and of the base no more than a segment: however long it becomes. */
static void a_stream_holds_the_memories_and_a_segment(void) {
  enum { L = 5, K = 2, N = 7, D = 8 };
  mk_model m;
  mc_bag in = {0};
  mk_built b;
  const mn_built_state *st;
  mk_tokens(&in, "tokens", 1, 1, 11, 5);
  if (!mk_open(&m, ATTENTION("cache: 7, "), 3)) return;
  CHECK(mk_build(&m, &in, true, &b), "%s", mn_message());
  int64_t floats = 0, ids = 0;
  for (int i = 0, n = mn_scope_states(b.s, &st); i < n; i++) {
    int64_t count = mn_shape_count(&st[i].info.shape);
    *(mn_dtype_is_float(st[i].info.dtype) ? &floats : &ids) += count;
  }
  CHECK(floats == N * D + D + 2 * 2 * (L + K + 2) * D, "%lld floats", (long long)floats); /* keys and values of two layers */
  CHECK(ids == 3 + 2, "%lld numbers", (long long)ids);                                    /* max(j,k) tokens, two positions */
  CHECK(mn_scope_limit_of(b.s).tokens == MN_LIMIT_NONE, "it may become as long as it likes");
  mk_free(&b);
  mk_close(&m);
  mc_bag_free(&in);
}

static void what_a_recipe_may_not_ask_for(void) {
  mk_refused("type: hmt\nsegment: 4\n", "base must be a map");
  mk_refused("type: hmt\nbase: {type: encoder, vocab_size: 9, block: {mixer: {type: attention}}}\n",
             "recipe.yaml:2|base must be a decoder, but is of type encoder");
  mk_refused("type: hmt\nbase: {type: hmt, base: {vocab_size: 9, block: {mixer: {type: attention}}}}\n",
             "recipe.yaml:2|base must be a decoder, but is of type hmt");
  mk_refused("type: hmt\nbase: {vocab_size: 9, block: {mixer: {type: attention, heads: 2, causal: false}}}\n",
             "recipe.yaml:2|base must be causal");
  mk_refused("type: hmt\nvocab_size: 9\nbase: {vocab_size: 9, block: {mixer: {type: attention}}}\n", "recipe.yaml:2|vocab_size");
  mk_refused("type: hmt\nbase: {from: runs/base}\n", "recipe.yaml:2|from|init: {from: DIR|base.*");
  mk_refused("type: hmt\nsegment: 8\nsensory: 9\nbase: {vocab_size: 9, block: {mixer: {type: attention}}}\n",
             "recipe.yaml:3|sensory must be at most segment 8");
  mk_refused("type: hmt\nsegment: 8\nsummary_tokens: 9\nbase: {vocab_size: 9, block: {mixer: {type: attention}}}\n",
             "recipe.yaml:3|summary_tokens must be at most segment 8");
  mk_refused("type: hmt\nsegment: 8\nsensory: 2\nbase: {vocab_size: 9, block: {mixer: {type: attention, max_context: 11}}}\n",
             "recipe.yaml:2|segment makes 12 vectors|layers.0.mixer max_context is 11");
  mk_refused(
      "type: hmt\nsegment: 8\nsensory: 2\nbase: {vocab_size: 9, positions: learned, max_positions: 11, block: {mixer: {type: attention}}}\n",
      "recipe.yaml:2|segment makes 12 vectors|max_positions is 11");
  mk_refused("type: hmt\nsegment: 8\nsensory: 2\nretrieval: false\ncache: 4\nbase: {vocab_size: 9, block: {mixer: {type: attention}}}\n",
             "recipe.yaml:5|cache has no effect with retrieval: false");
  mk_refused("type: hmt\nretrieval: false\nretrieval_loss: 1\nbase: {vocab_size: 9, block: {mixer: {type: attention}}}\n",
             "recipe.yaml:3|retrieval_loss has no effect with retrieval: false");
  mk_refused("type: hmt\nbase: {vocab_size: 9, block: {mixer: {type: attentio}}}\n", "recipe.yaml:2|did you mean 'attention'");
  mk_model m; /* what is just long enough is taken */
  if (mk_open(&m, "{type: hmt, segment: 8, sensory: 2, base: {vocab_size: 9, block: {mixer: {type: attention, max_context: 12}}}}", 1)) {
    mn_model *other = NULL;
    const mn_value *v = mn_model_to_value(m.arena, m.model); /* a tokenizer of more tokens than the base has */
    CHECK(v && mn_model_parse(v, NULL, 300, &other) == MN_ERR_CONFIG && strstr(mn_message(), "vocab_size is 9, but there are 300"), "%s",
          mn_message());
    mn_model_free(other);
  }
  mk_close(&m);
}

/* A decoder that was trained alone is taken in, in a training of two stages. */
static void a_trained_decoder_is_wrapped(void) {
  static const char run[] = "hmt-wrap";
  static const char base[] = "d_model: 16, layers: 1, block: {mixer: {type: attention, heads: 2, max_context: 64}, hidden: 16}";
  sh("rm -rf %s && mkdir -p %s", run, run);
  CHECK(sh("cat >%s/base.yaml <<E\ndata: {task: {name: topics}}\nmodel: {%s}\ntrain: {steps: 2, batch: 2}\nE\n", run, base) == 0, "%s",
        out);
  CHECK(sh("cat >%s/hmt.yaml <<E\ndata: {task: {name: topics}}\n"
           "model: {type: hmt, segment: 32, sensory: 4, base: {%s}}\n"
           "init: {from: %s/base, rename: {\"*\": \"base.*\"}, missing: draw}\ntrain: {batch: 2}\n"
           "stages:\n  - {steps: 1, data: {task: {name: topics, segments: 2, documents: 1, facts: 1}}}\n  - {steps: 1}\nE\n",
           run, base, run) == 0,
        "%s", out);
  CHECK(sh(MNEME "train %s/base.yaml --set model.block.mixer.max_context=512 --out %s/base 2>&1", run, run) == 0, "%s", out);
  CHECK(sh(MNEME "train %s/hmt.yaml --out %s/hmt 2>&1", run, run) == 0, "%s", out);
  CHECK(sh(MNEME "train %s/hmt.yaml --set model.retrieval_loss=0.05 --out %s/taught 2>&1", run, run) == 0, "%s", out);
  CHECK(sh(MNEME "eval --model %s/taught --task mqar --set vocab_size=256 --examples 2 2>&1", run) == 0,
        "who is judged needs no evidence: %s", out);
  CHECK(
      sh(MNEME
         "train %s/base.yaml --set 'data.task={name: mqar}' --set 'model={type: hmt, segment: 32, sensory: 4, retrieval_loss: 1, base: {%s}}' --out %s/no 2>&1",
         run, base, run) != 0 &&
          strstr(out, "a model of type hmt needs the field evidence"),
      "%s", out);
  CHECK(sh(MNEME "eval --model %s/hmt --stream --examples 2 2>&1", run) == 0, "%s", out);
  CHECK(sh(MNEME "train %s/hmt.yaml --out %s/wide --set model.base.d_model=32 2>&1", run, run) != 0 && strstr(out, "base."), "%s", out);
  sh("rm -rf %s", run);
}

int main(void) {
  RUN(gradients_are_those_of_the_whole_graph);
  RUN(a_training_keeps_no_activations);
  RUN(gradients_stop_where_a_recipe_says);
  RUN(look_ups_are_taught);
  RUN(one_slot_is_recurrent_memory);
  RUN(two_segments_have_nothing_to_look_up);
  RUN(the_order_of_memories_does_not_matter);
  RUN(one_segment_is_the_base);
  RUN(without_prompts_a_segment_is_the_plain_decoder);
  RUN(a_segment_in_steps_is_the_segment);
  RUN(rows_are_read_each_at_its_own_place);
  RUN(a_prompt_that_knows_the_future);
  RUN(a_stream_holds_the_memories_and_a_segment);
  RUN(what_a_recipe_may_not_ask_for);
  RUN(a_trained_decoder_is_wrapped);
  return test_end();
}
