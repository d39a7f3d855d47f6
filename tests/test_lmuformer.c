/* test_lmuformer.c - what must be true of LMUFormer, in order: a neuron's spikes, and the slope they are given; golden vectors from NumPy, in
 * rows of different lengths; gradients; frame by frame it says at each frame what it says of the whole, and of a sequence that ends there;
 * the sizes that were published; a recipe comes back from its tree; what a recipe may not ask for. */
#include "gradcheck.h"
#include "model_check.h"
#include "nn/spiking.h"

/* Three steps by hand: tau 2, threshold 1. v = 0.9 -> 0.9; (0.9 + 1.5) / 2 = 1.2 fires; 0.6 / 2 = 0.3. */
static void a_neuron_charges_fires_and_begins_again(void) {
  mn_graph *g = mn_graph_new();
  double X[3] = {1.8, 1.5, 0.6}, *got[3] = {NULL}, *value[] = {X};
  mn_tensor *x = mn_input(g, "x", MN_F64, MN_SHAPE(1, 3, 1)), *v, *dx;
  mn_tensor *s = mn_fire(g, x, NULL, NULL, (mn_neuron){2, 1, 4}, &v);
  mn_tensor *y = mn_reshape(g, mn_sum(g, s, ~0u), (mn_shape){0});
  CHECK_OK(mn_grad(g, 1, &y, NULL, 1, &x, &dx));
  CHECK(gc_run(g, mn_backend_ref(), 0, MN_KEEP, 1, &x, value, 3, (mn_tensor *[]){s, v, dx}, got), "%s", mn_message());
  if (got[0]) {
    const double spike[] = {0, 1, 0}, voltage[] = {0.9, 0, 0.3}, charged[] = {0.9, 1.2, 0.3};
    double slope[3], want[3];
    for (int t = 0; t < 3; t++) {
      double p = 1 / (1 + exp(-4 * (charged[t] - 1)));
      slope[t] = 4 * p * (1 - p);
      CHECK(got[0][t] == spike[t] && fabs(got[1][t] - voltage[t]) < 1e-15, "step %d: spike %g, voltage %g", t, got[0][t], got[1][t]);
    }
    /* d charged_{t+1} / d charged_t = (1 - 1/tau) (1 - s_t), d charged_t / d x_t = 1/tau */
    want[2] = slope[2] / 2;
    want[1] = (slope[1] + 0.5 * (1 - spike[1]) * slope[2]) / 2;
    want[0] = (slope[0] + 0.5 * (1 - spike[0]) * (slope[1] + 0.5 * (1 - spike[1]) * slope[2])) / 2;
    for (int t = 0; t < 3; t++) CHECK(fabs(got[2][t] - want[t]) < 1e-14, "slope at %d: %g, not %g", t, got[2][t], want[t]);
  }
  for (int i = 0; i < 3; i++) free(got[i]);
  mn_graph_free(g);
}

static const char *const files[] = {"lmuformer", "lmuformer_causal", "lmuformer_linear", "lmuformer_spiking", "lmuformer_spiking_linear"};
enum { FILES = 5, SMOOTH = 3, FRAMES = 14 };

static void golden_vectors(void) {
  for (int i = 0; i < 2 * FILES; i++) {
    mk_golden f;
    char name[64];
    snprintf(name, sizeof name, "%s%s", files[i / 2], i % 2 ? "_running" : "");
    if (!mk_golden_open(&f, name)) continue;
    double e = mk_golden_error(&f);
    CHECK(e < 1e-11, "%s differs by %g", name, e);
    mc_get(&f.m.params, "layers.0.h_proj.weight")->x[0] += 0.5; /* what is remembered counts */
    CHECK(mk_golden_error(&f) > 1e-7 || i / 2 >= SMOOTH, "%s does not depend on its memory", name);
    mk_golden_close(&f);
  }
}

static void gradients_agree_with_differences(void) {
  for (int i = 0; i < SMOOTH; i++) {
    mk_golden f;
    if (!mk_golden_open(&f, files[i])) continue;
    double e = mk_gradient_error_by(&f.m, &f.in, 12, 3, 1e-6); /* relu has corners */
    CHECK(e < 1e-6, "%s: %g", files[i], e);
    mk_golden_close(&f);
  }
}

/* At each cut: running_t as in one pass over all, and logits as of a sequence that ends there. */
static void a_stream_is_the_whole(void) {
  for (int i = 0; i < FILES; i++) {
    mk_golden f;
    char name[64];
    snprintf(name, sizeof name, "%s_running", files[i]);
    if (!mk_golden_open(&f, name)) continue;
    CHECK_OK(mn_model_check_stream(f.m.model));
    int64_t each[FRAMES];
    for (int64_t c = 1; c < FRAMES; c++) {
      double e = mk_split_error(&f.m, &f.in, "running", FRAMES, 1, &c);
      CHECK(e < 1e-11, "%s cut at %lld: %g", name, (long long)c, e);
      each[c - 1] = c;
    }
    double e = mk_split_error(&f.m, &f.in, "running", FRAMES, FRAMES - 1, each);
    CHECK(e < 1e-11, "%s frame by frame: %g", name, e);
    mc_bag state = {0};
    for (int64_t t = 0; t < FRAMES; t++) {
      mc_bag piece = {0}, before = {0}, said = {0}, whole = {0};
      mk_cut(&f.m, &f.in, t, t + 1, &piece);
      mk_cut(&f.m, &f.in, 0, t + 1, &before);
      bool ok = mk_segment(&f.m, &piece, &state, "logits", &said) && mk_run(&f.m, &before, &whole);
      mc_tensor *a = ok ? mc_get(&said, "logits") : NULL, *b = ok ? mc_get(&whole, "logits") : NULL;
      e = a && b ? mc_difference(a->x, b->x, mn_shape_count(&b->shape)) : INFINITY;
      CHECK(e < 1e-11, "%s: a sequence of %lld frames: %g", files[i], (long long)(t + 1), e);
      mc_bag_free(&piece);
      mc_bag_free(&before);
      mc_bag_free(&said);
      mc_bag_free(&whole);
    }
    mc_bag_free(&state);
    mk_golden_close(&f);
  }
}

/* Liu et al.: 1.62 and 1.69 million for 35 words. */
static void published_sizes(void) {
  static const struct {
    const char *yaml;
    int64_t count;
  } of[] = {{"{type: lmuformer, channels: 128, num_classes: 35}", 1621796},
            {"{type: lmuformer, channels: 128, num_classes: 35, spiking: true}", 1689894}};
  for (int i = 0; i < 2; i++) {
    mk_model m;
    int64_t n = 0;
    if (mk_open(&m, of[i].yaml, 1)) {
      mn_graph *g = mn_graph_new();
      mn_scope *s = mn_scope_new(g, (mn_build){.param = MN_F32, .compute = MN_F32}, 1);
      const mn_param_info *info;
      mn_model_declare(s, m.model);
      CHECK_OK(mn_graph_status(g));
      for (int k = 0, count = mn_scope_params(s, &info, NULL); k < count; k++) n += mn_shape_count(&info[k].shape);
      mn_graph_free(g);
      CHECK(n == of[i].count, "%s: %lld parameters, not %lld", of[i].yaml, (long long)n, (long long)of[i].count);
    }
    mk_close(&m);
  }
}

static void what_a_recipe_may_not_ask_for(void) {
  mk_refused("{type: lmuformer, channels: 3, num_classes: 4, embedding: linear, lookahead: true}", "lookahead|linear");
  mk_refused("{type: lmuformer, channels: 3, num_classes: 4, mix: false, expand: 2}", "expand|mix");
  mk_refused("{type: lmuformer, channels: 3}", "num_classes");
  mk_refused("{type: lmuformer, channels: 3, num_classes: 4, vocab_size: 9}", "vocab_size");
}

int main(void) {
  RUN(a_neuron_charges_fires_and_begins_again);
  RUN(golden_vectors);
  RUN(gradients_agree_with_differences);
  RUN(a_stream_is_the_whole);
  RUN(published_sizes);
  RUN(what_a_recipe_may_not_ask_for);
  return test_end();
}
