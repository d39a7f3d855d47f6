/* test_starts.c - where parameters start: of every system and every channel part at its defaults, each parameter's values are drawn from
 * the distribution that this table says, by their mean, their standard deviation and their range. */
#include <fnmatch.h>

#include "mixer_check.h"
#include "nn/channel.h"
#include "plainest_mixer.h"

enum { D = 64, SEEDS = 8 };

typedef enum law_kind {
  CONSTANT,  /* a */
  NORMAL,    /* N(0, a^2) */
  GLOROT,    /* U(-g, g), g = a sqrt(6 / (fan_in + fan_out)) */
  FAN_IN,    /* U(-g, g), g = a / sqrt(fan_in) */
  RATE,      /* log U(a, b) */
  TIME_STEP, /* x with log softplus(x) in U(log a, log b) */
} law_kind;

/* The first that fits "system/parameter", or "channel part/parameter", holds. */
static const struct {
  const char *names;
  law_kind law;
  double a, b;
} starts[] = {
    /* gains and biases */
    {"ttt_*/inner_norm.weight", CONSTANT, 0, 0}, /* kept less 1 */
    {"*norm*.weight", CONSTANT, 1, 0},
    {"*/memory.decay_proj.bias", CONSTANT, -4, 0},
    {"*/memory.window_proj.bias", CONSTANT, 2, 0},
    {"rwkv7/w_up.bias", CONSTANT, -2, 0},
    {"lizard/gate_proj.bias", CONSTANT, 3, 0},
    {"*.bias", CONSTANT, 0, 0},
    /* gates, which begin the same for every token */
    {"*/memory.lr_proj.weight", CONSTANT, 0, 0},
    {"*/memory.momentum_proj.weight", CONSTANT, 0, 0},
    {"*/memory.decay_proj.weight", CONSTANT, 0, 0},
    {"*/memory.window_proj.weight", CONSTANT, 0, 0},
    {"*/memory.step_proj.weight", CONSTANT, 0, 0},
    {"deep_transformer/lr_proj.weight", CONSTANT, 0, 0},
    {"swdt/lr_proj.weight", CONSTANT, 0, 0},
    {"dot/lr_proj.weight", CONSTANT, 0, 0},
    {"lizard/gate_proj.weight", CONSTANT, 0, 0},
    {"synaptic/synaptic.rho_proj.weight", CONSTANT, 0, 0},
    /* what is no projection */
    {"aaren/query", NORMAL, 0.02, 0},
    {"*A_log", RATE, 1, 16},
    {"*dt_bias", TIME_STEP, 0.001, 0.1},
    {"mamba2/D", CONSTANT, 1, 0},
    {"parallel/mixers.1.D", CONSTANT, 1, 0},
    {"*/memory.features.scale", CONSTANT, 1, 0},
    {"lizard/feature_?", CONSTANT, 0, 0},
    {"lizard/meta_logits", CONSTANT, 0, 0},
    {"lizard/alpha", CONSTANT, 1, 0},
    {"rwkv7/mu_?", CONSTANT, 0.5, 0},
    {"channel_mix/mu_k", CONSTANT, 0.5, 0},
    {"rwkv7/xi", CONSTANT, 0.85, 0},
    {"rwkv7/alpha", CONSTANT, 1, 0},
    {"rwkv7/rho", CONSTANT, 0, 0},
    {"synaptic/synaptic.mu_logit", CONSTANT, 2.94443897916644, 0}, /* a decay of 0.95 */
    {"synaptic/synaptic.delta_logit", CONSTANT, -3, 0},
    {"synaptic/synaptic.beta_re?", CONSTANT, 1, 0},
    {"synaptic/synaptic.gate", CONSTANT, 0, 0},
    {"*conv.weight", FAN_IN, 1, 0},
    /* memories that are weights: the last matrix of those that are added to what is there is small */
    {"titans*/memory.init.0.weight", GLOROT, 0.1, 0},
    {"swla/memory.init.0.weight", GLOROT, 0.1, 0},
    {"*/memory.init.1.weight", GLOROT, 0.1, 0},
    {"*/memory.init.0.weight", GLOROT, 1, 0},
    {"*/init.?.weight", GLOROT, 1, 0},
    /* projections */
    {"deltanet/*_proj.weight", NORMAL, 0.02, 0},
    {"gated_deltanet/*_proj.weight", NORMAL, 0.02, 0},
    {"kimi_delta/*.weight", NORMAL, 0.02, 0},
    {"gla/*.weight", NORMAL, 0.02, 0},
    {"hgrn2/*_proj.weight", NORMAL, 0.02, 0},
    {"linear_attention/*_proj.weight", NORMAL, 0.02, 0},
    {"retnet/*_proj.weight", NORMAL, 0.02, 0},
    {"rwkv7/*.weight", NORMAL, 0.02, 0},
    {"mamba2/*_proj.weight", NORMAL, 0.02, 0},
    {"parallel/mixers.1.*_proj.weight", NORMAL, 0.02, 0},
    {"short_conv/*_proj.weight", NORMAL, 0.02, 0},
    {"lmu/*_proj.weight", NORMAL, 0.02, 0},
    {"ttt_*/*_proj.weight", NORMAL, 0.02, 0},
    {"bmojo*/fading.*.weight", NORMAL, 0.02, 0},
    {"channel_mix/?_proj.weight", NORMAL, 0.02, 0},
    {"swiglu/*_proj.weight", NORMAL, 0.02, 0},
    {"geglu/*_proj.weight", NORMAL, 0.02, 0},
    {"glu/*_proj.weight", NORMAL, 0.02, 0},
    {"mlp/*_proj.weight", NORMAL, 0.02, 0},
    {"moe/router.weight", NORMAL, 0.02, 0},
    {"moe/experts.*_proj.weight", NORMAL, 0.02, 0},
    {"lmu_cell/m_to_u.weight", CONSTANT, 0, 0},
    {"lmu_cell/?_to_u.weight", FAN_IN, 1.7320508075688772, 0}, /* LeCun uniform */
    {"lmu_cell/?_to_h.weight", GLOROT, 1, 0},
    {"lstm/*_proj.weight", GLOROT, 1, 0},
    {"aaren/?_proj.weight", GLOROT, 1, 0},
    {"attention/?_proj.weight", GLOROT, 1, 0},
    {"parallel/mixers.0.?_proj.weight", GLOROT, 1, 0},
    {"mla/*.weight", GLOROT, 1, 0},
    {"lizard/?_proj.weight", GLOROT, 1, 0},
    {"bmojo*/*_proj.weight", GLOROT, 1, 0},
    {"synaptic/?_proj.weight", GLOROT, 1, 0},
    {"synaptic/synaptic.?_proj.weight", GLOROT, 1, 0},
    {"deep_transformer/?_proj.weight", GLOROT, 1, 0},
    {"swdt/?_proj.weight", GLOROT, 1, 0},
    {"dot/?_proj.weight", GLOROT, 1, 0},
    {"*/attn.?_proj.weight", GLOROT, 1, 0},
    {"*/memory.?_proj.weight", GLOROT, 1, 0},
    {"*/memory.gate_proj.weight", GLOROT, 1, 0},
};
enum { STARTS = sizeof starts / sizeof *starts };
static int found[STARTS]; /* parameters that each is for */

static int start_of(const char *name) {
  for (int i = 0; i < STARTS; i++)
    if (!fnmatch(starts[i].names, name, 0)) return i;
  return -1;
}

/* What is evenly distributed, or normal, of a value. */
static double plain(law_kind law, double x) { return law == RATE ? exp(x) : law == TIME_STEP ? log(log1p(exp(x))) : x; }

/* Of n values: the mean is within 4 of its standard errors and the standard deviation within 5; even values keep to their range, and normal
 * ones have a tail. The draws are the same each time. */
static void follows(const char *name, int start, const mn_shape *shape, int64_t n, const double *x) {
  const law_kind law = starts[start].law;
  const double a = starts[start].a, b = starts[start].b;
  const int last = shape->ndim - 1;
  double mean = 0, square = 0, low = INFINITY, high = -INFINITY, width = 0, middle = 0;
  for (int64_t i = 0; i < n; i++) mean += plain(law, x[i]) / (double)n;
  for (int64_t i = 0; i < n; i++) {
    const double v = plain(law, x[i]);
    square += (v - mean) * (v - mean) / (double)n, low = fmin(low, v), high = fmax(high, v);
  }
  const double std = sqrt(square);
  if (law == CONSTANT) {
    CHECK(fabs(low - a) < 1e-12 && fabs(high - a) < 1e-12, "%s starts at %g to %g, not at %g", name, low, high, a);
    return;
  }
  if (law == GLOROT) width = a * sqrt(6 / (double)(shape->dim[last] + shape->dim[last - 1]));
  if (law == FAN_IN) width = a / sqrt((double)shape->dim[last]);
  if (law == RATE) middle = (a + b) / 2, width = (b - a) / 2;
  if (law == TIME_STEP) middle = log(a * b) / 2, width = log(b / a) / 2;
  const double expected = law == NORMAL ? a : width / sqrt(3), scatter = expected / sqrt((double)n);
  CHECK(fabs(mean - middle) < 4 * scatter, "%s: mean %g, expected %g", name, mean, middle);
  CHECK(fabs(std - expected) < 5 / sqrt(2) * scatter, "%s: standard deviation %g, expected %g", name, std, expected);
  if (law == NORMAL) CHECK(fmax(-low, high) > 2 * a, "%s: nothing beyond %g", name, fmax(-low, high));
  else CHECK(fabs(low - middle) < width * 1.000001 && fabs(high - middle) < width * 1.000001, "%s: %g to %g", name, low, high);
}

/* The values of all seeds, one after the other: x [SEEDS, n]. */
static bool draw(mn_params *p, int i, int64_t n, double *x, uint64_t seed) {
  void *host = NULL;
  CHECK_OK(mn_params_on_host(p, i, &host));
  if (host) memcpy(x + (int64_t)seed * n, host, (size_t)n * sizeof *x);
  free(host);
  return host != NULL;
}

static void parameters_are_as_said(const char *of, mn_params *p) {
  double *x[MC_MAX] = {NULL};
  bool ok = p->n <= MC_MAX;
  CHECK(ok && p->n > 0, "%s: %d parameters", of, p->n);
  for (int i = 0; ok && i < p->n; i++) ok = (x[i] = malloc((size_t)(SEEDS * mn_shape_count(&p->info[i].shape)) * sizeof **x)) != NULL;
  for (uint64_t seed = 0; ok && seed < SEEDS; seed++) {
    CHECK_OK(mn_params_draw(p, seed));
    for (int i = 0; ok && i < p->n; i++) ok = draw(p, i, mn_shape_count(&p->info[i].shape), x[i], seed);
  }
  CHECK(ok, "%s: no memory", of);
  for (int i = 0; ok && i < p->n; i++) {
    char name[200];
    snprintf(name, sizeof name, "%s/%s", of, p->info[i].name);
    const int start = start_of(name);
    CHECK(start >= 0, "the table says nothing of %s", name);
    if (start < 0) continue;
    found[start]++;
    follows(name, start, &p->info[i].shape, SEEDS * mn_shape_count(&p->info[i].shape), x[i]);
  }
  for (int i = 0; i < MC_MAX; i++) free(x[i]);
}

/* Of one of the two, on x [1,8,D]. */
static void look_at(const char *of, const mn_mixer *mixer, const mn_channel *channel) {
  mn_graph *g = mn_graph_new();
  mn_scope *s = mn_scope_new(g, (mn_build){.param = MN_F64, .compute = MN_F64}, 1);
  mn_tensor *x = mn_input(g, "x", MN_F64, MN_SHAPE(1, 8, D));
  mn_params *p = NULL;
  if (mixer) mn_mixer_apply(s, mixer, x);
  else mn_channel_apply(s, channel, x);
  CHECK_OK(mn_graph_status(g));
  CHECK_OK(mn_params_declare_scope(s, mn_backend_ref(), MN_F64, &p));
  if (p) parameters_are_as_said(of, p);
  mn_params_free(p);
  mn_graph_free(g);
}

static void systems_start_as_the_table_says(void) {
  for (int k = 0; k < mn_mixer_count(); k++) {
    char json[MN_PLAINEST];
    const char *system = mn_mixer_at(k)->name;
    mc_mixer m;
    const int ok = mc_open(&m, mn_plainest_mixer(json, system), D, 1, MN_F64, mn_backend_ref());
    CHECK(ok, "%s", system);
    if (ok) look_at(system, &m.mixer, NULL);
    mc_close(&m);
  }
}

static void channel_parts_start_as_the_table_says(void) {
  for (int k = 0; k < mn_channel_count(); k++) {
    const mn_channel_def *part = mn_channel_at(k);
    mn_arena *arena = mn_arena_new();
    const mn_value *v = NULL;
    mn_channel c;
    char block[64];
    snprintf(block, sizeof block, "{channel: %s}", part->name);
    CHECK_OK(mn_yaml_parse(arena, "test", block, strlen(block), &v));
    const mn_status status = v ? mn_channel_parse(arena, v, "block", D, 0, &c) : MN_ERR_CONFIG;
    CHECK_OK(status);
    if (status == MN_OK && !part->absent) look_at(part->name, NULL, &c);
    mn_arena_free(arena);
  }
}

static void the_table_says_nothing_else(void) {
  for (int i = 0; i < STARTS; i++) CHECK(found[i], "no parameter is a %s", starts[i].names);
}

int main(void) {
  RUN(systems_start_as_the_table_says);
  RUN(channel_parts_start_as_the_table_says);
  RUN(the_table_says_nothing_else);
  return test_end();
}
