/* channels.c - the usual channel parts.
 *     swiglu, geglu   W_down (act(W_gate x) * W_up x),  act silu or gelu (Shazeer 2020, arXiv 2002.05202)
 *     glu             the same with an activation of choice, and biases where they are asked for
 *     mlp             W_down act(W_up x + b_up) + b_down */
#include "nn/channel.h"

static const mn_init small = {MN_INIT_NORMAL, 0.02, 0};

mn_tensor *mn_gated_units(mn_scope *s, int64_t hidden, mn_activation activation, bool bias, mn_tensor *x) {
  mn_graph *g = mn_scope_graph(s);
  mn_tensor *gate = mn_linear(s, "gate_proj", x, hidden, bias, small), *up = mn_linear(s, "up_proj", x, hidden, bias, small);
  return mn_linear(s, "down_proj", mn_mul(g, mn_activate(g, activation, gate), up), mn_dim(x, -1), bias, small);
}

static mn_tensor *swiglu(mn_scope *s, const void *config, int64_t hidden, mn_tensor *x) {
  (void)config;
  return mn_gated_units(s, hidden, MN_SILU, MN_NO_BIAS, x);
}

static mn_tensor *geglu(mn_scope *s, const void *config, int64_t hidden, mn_tensor *x) {
  (void)config;
  return mn_gated_units(s, hidden, MN_GELU, MN_NO_BIAS, x);
}

typedef struct glu_config {
  int activation; /* mn_activation */
  bool bias;
} glu_config;
static const mn_field glu_fields[] = {MN_FIELD_ENUM(glu_config, activation, mn_activation_names, MN_SILU, "of the gate", MN_SPARSE),
                                      MN_FIELD_BOOL(glu_config, bias, false, "biases in its projections", MN_SPARSE), MN_FIELD_END};

static mn_tensor *glu(mn_scope *s, const void *config, int64_t hidden, mn_tensor *x) {
  const glu_config *c = config;
  return mn_gated_units(s, hidden, (mn_activation)c->activation, c->bias, x);
}

typedef struct mlp_config {
  int activation; /* mn_activation */
} mlp_config;
static const mn_field mlp_fields[] = {
    MN_FIELD_ENUM(mlp_config, activation, mn_activation_names, MN_GELU, "between its two matrices", MN_SPARSE), MN_FIELD_END};

static mn_tensor *mlp(mn_scope *s, const void *config, int64_t hidden, mn_tensor *x) {
  const mlp_config *c = config;
  mn_tensor *h = mn_linear(s, "up_proj", x, hidden, MN_BIAS, small);
  return mn_linear(s, "down_proj", mn_activate(mn_scope_graph(s), (mn_activation)c->activation, h), mn_dim(x, -1), MN_BIAS, small);
}

const mn_channel_def mn_channel_none = {.name = "none", .summary = "no channel part: the block is its mixer", .absent = true};
const mn_channel_def mn_channel_swiglu = {.name = "swiglu", .summary = "gated by silu", .expand = 8.0 / 3.0, .apply = swiglu};
const mn_channel_def mn_channel_geglu = {.name = "geglu", .summary = "gated by gelu", .expand = 8.0 / 3.0, .apply = geglu};
const mn_channel_def mn_channel_glu = {
    .name = "glu",
    .summary = "gated by an activation of choice",
    .expand = 8.0 / 3.0,
    .config_size = sizeof(glu_config),
    .fields = glu_fields,
    .apply = glu,
};
const mn_channel_def mn_channel_mlp = {
    .name = "mlp",
    .summary = "two matrices with biases and an activation between them",
    .expand = 4,
    .config_size = sizeof(mlp_config),
    .fields = mlp_fields,
    .apply = mlp,
};
