/* forecaster.c - the next values of several series from a window of their past (Nie et al. 2022, arXiv 2211.14730): patches of time
 * are tokens, and all that the blocks make of them is projected to the horizon.
 *     x' = (x - mean) / sqrt(var + 1e-5)      per row and channel, over the window (Kim et al. 2022, RevIN without gains)
 *     h = Norm(blocks(W patches(x') + b + positions))      forecast = (W' vec(h) + b') sqrt(var + 1e-5) + mean
 *     head: last                                           forecast = (W' h_last + b') ..., where the mixers let it see all before
 * Channels are read one by one with the same weights, or together, a token holding a patch of all of them. */
#include "model/model.h"

typedef struct forecaster_config {
  int64_t context, horizon, channels, patch;
  int head;
  bool instance_norm, independent;
} forecaster_config;
enum { ALL, LAST };
static const char *const heads[] = {"all", "last", NULL};
#define S forecaster_config
static const mn_field fields[] = {
    MN_FIELD_INT_REQUIRED(S, context, 1, 1 << 24, "values T of the past"),
    MN_FIELD_INT_REQUIRED(S, horizon, 1, 1 << 20, "values H that are foretold"),
    MN_FIELD_INT_REQUIRED(S, channels, 1, 1 << 20, "series C side by side"),
    MN_FIELD_INT(S, patch, 16, 1, 1 << 20, "values of a patch, a divisor of context"),
    MN_FIELD_BOOL(S, instance_norm, true, "each window is read with mean 0 and variance 1, and the forecast brought back"),
    MN_FIELD_BOOL(S, independent, true, "each channel is read alone, by the same weights"),
    MN_FIELD_ENUM(S, head, heads, ALL, "what is projected to the horizon: all of h, or the last patch's, which has seen all", MN_SPARSE),
    MN_FIELD_END};
#undef S

static int64_t size(const mn_model *m, char axis) {
  const forecaster_config *c = m->own;
  return axis == 'T' ? c->context : axis == 'H' ? c->horizon : axis == 'C' ? c->channels : axis == 'D' ? m->config.d_model : 0;
}

static mn_status check(mn_model *m, const mn_value *map, const char *where) {
  const forecaster_config *c = m->own;
  if (c->context % c->patch)
    return mn_config_fail(map, where, "patch", "must divide context %lld: %lld does not", (long long)c->context, (long long)c->patch);
  int64_t places = c->context / c->patch;
  if (m->config.positions == MN_POSITIONS_LEARNED && !m->config.max_positions) m->config.max_positions = places;
  if (m->config.positions == MN_POSITIONS_LEARNED && m->config.max_positions != places)
    return mn_config_fail(map, where, "max_positions", "is %lld, but a window has %lld patches; leave it out",
                          (long long)m->config.max_positions, (long long)places);
  return MN_OK;
}

typedef struct scales { /* of each row and channel, [B,1,C] */
  mn_tensor *mean, *deviation;
} scales;

/* Of what is there; there [B,T,1], 0 or 1, NULL: all. */
static mn_tensor *mean_over_time(mn_graph *g, mn_tensor *x, mn_tensor *there) {
  if (!there) return mn_mean(g, x, MN_AXIS(1));
  mn_tensor *n = mn_maximum(g, mn_sum(g, there, MN_AXIS(1)), mn_scalar(g, mn_type(x), 1));
  return mn_div(g, mn_sum(g, mn_mul(g, x, there), MN_AXIS(1)), n);
}

static scales scales_of(mn_graph *g, mn_tensor *x, mn_tensor *there) {
  scales k = {.mean = mean_over_time(g, x, there)};
  mn_tensor *variance = mean_over_time(g, mn_square(g, mn_sub(g, x, k.mean)), there);
  k.deviation = mn_sqrt(g, mn_add_scalar(g, variance, 1e-5));
  return k;
}

/* x [B,T,C] -> patches [rows, P, values]: a row for each channel, or for all together. */
static mn_tensor *patches(mn_graph *g, const forecaster_config *c, mn_tensor *x) {
  int64_t B = mn_dim(x, 0), P = c->context / c->patch;
  if (!c->independent) return mn_reshape(g, x, MN_SHAPE(B, P, c->patch * c->channels));
  return mn_reshape(g, mn_transpose(g, x, 1, 2), MN_SHAPE(B * c->channels, P, c->patch));
}

/* Once for each row that is made of one: x [B,n] -> [rows,n]. */
static mn_tensor *for_rows(mn_graph *g, mn_tensor *x, int64_t rows) {
  const int64_t B = x ? mn_dim(x, 0) : rows, n = x ? mn_dim(x, 1) : 0;
  if (B == rows) return x;
  return mn_reshape(g, mn_expand(g, mn_reshape(g, x, MN_SHAPE(B, 1, n)), MN_SHAPE(B, rows / B, n)), MN_SHAPE(rows, n));
}

/* [rows,P,values] -> [rows, P D], or the last there is [rows, D]. masks i32 [B,P], condition [B,D]; NULL where there are none. */
static mn_tensor *encoded(mn_scope *s, const mn_model *m, mn_tensor *x, mn_tensor *masks, mn_tensor *condition) {
  const forecaster_config *c = m->own;
  mn_graph *g = mn_scope_graph(s);
  mn_dtype t = mn_scope_compute(s);
  int64_t rows = mn_dim(x, 0), P = mn_dim(x, 1), D = m->config.d_model;
  x = mn_linear(s, "embed_patches", mn_cast(g, x, t), D, MN_BIAS, (mn_init){MN_INIT_XAVIER_UNIFORM, 1, 0});
  const mn_places there = mn_model_places(s, m, for_rows(g, masks, rows), NULL);
  const mn_beside beside = {.condition = for_rows(g, condition, rows)};
  mn_scope_set_length(s, there.length);
  x = mn_places_gather(s, &there, mn_model_place(s, m, mn_cast(g, x, mn_scope_exact(s))));
  x = mn_stack_apply(s, &m->stack, x, &beside);
  x = mn_model_norm(s, m, x);
  if (c->head == LAST) return mn_pooled(s, MN_POOL_LAST, x, there.length);
  return mn_reshape(g, mn_places_spread(s, &there, x), MN_SHAPE(rows, P * D));
}

static void build(mn_scope *s, const mn_model *m, const mn_model_io *in, mn_model_io *out) {
  const forecaster_config *c = m->own;
  mn_graph *g = mn_scope_graph(s);
  mn_tensor *x = mn_io_get(in, "series"), *masks = mn_io_get(in, "masks"), *there = NULL, *y;
  int64_t B = mn_dim(x, 0), H = c->horizon, C = c->channels;
  mn_init init = {MN_INIT_XAVIER_UNIFORM, 1, 0};
  scales k = {0};
  if (masks) there = mn_reshape(g, mn_cast(g, mn_lt(g, mn_scalar(g, MN_I32, 0), masks), mn_type(x)), MN_SHAPE(B, c->context, 1));
  if (c->instance_norm) {
    k = scales_of(g, x, there);
    x = mn_div(g, mn_sub(g, x, k.mean), k.deviation);
  }
  if (there) { /* what is missing is 0 within a patch, and a patch of which nothing is there is none */
    x = mn_mul(g, x, there);
    masks = mn_reshape(g, mn_max(g, mn_reshape(g, there, MN_SHAPE(B, c->context / c->patch, c->patch)), MN_AXIS(2)),
                       MN_SHAPE(B, c->context / c->patch));
    masks = mn_cast(g, masks, MN_I32);
  }
  mn_tensor *condition = mn_model_condition(s, m, in);
  /* rows that are channels are streams of their own */
  mn_scope *rows = c->independent ? mn_scope_call(s, "rows", (mn_call_options){.params = "", .fresh = true, .batch = B * C}) : s;
  y = mn_linear_exact(s, "forecast", encoded(rows, m, patches(g, c, x), masks, condition), c->independent ? H : H * C, MN_BIAS, init,
                      MN_ZEROS);
  y = c->independent ? mn_transpose(g, mn_reshape(g, y, MN_SHAPE(B, C, H)), 1, 2) : mn_reshape(g, y, MN_SHAPE(B, H, C));
  if (c->instance_norm) y = mn_add(g, mn_mul(g, y, k.deviation), k.mean);
  mn_io_put(out, "forecast", y);
}

static const char *not_causal(const mn_model *m) {
  (void)m;
  return "it reads a whole window of the past at once";
}

static const mn_port inputs[] = {{"series", MN_F32, "BTC", false, "the past of each series"},
                                 {"masks", MN_I32, "BT", true, "1 where a moment is there, 0 where it is missing; left out: all are"},
                                 {0}};
static const mn_port outputs[] = {{"forecast", MN_F32, "BHC", false, "what comes next in each"}, {0}};

const mn_model_def mn_model_forecaster = {
    .name = "forecaster",
    .summary = "the next values of several series from a window of their past",
    .paper = "Nie et al. 2022, arXiv 2211.14730; instance normalisation: Kim et al. 2022",
    .trunk = MN_TRUNK_PLAIN,
    .conditioned = true,
    .config_size = sizeof(forecaster_config),
    .fields = fields,
    .inputs = inputs,
    .outputs = outputs,
    .size = size,
    .check = check,
    .build = build,
    .not_causal = not_causal,
};
