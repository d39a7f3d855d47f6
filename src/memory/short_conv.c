/* short_conv.c - the gated short convolution of LFM2 (Liquid AI 2025, arXiv 2511.23404): the last few tokens, mixed channel by
 * channel, between two gates that are products alone.
 *
 *     [b, c, u] = W_in x (+ bias)    z = b * u    s_t = sum_j w_j z_{t-W+1+j} (+ bias)    y_t = W_out (c_t * s_t) (+ bias)
 *
 * What it remembers is the W - 1 last z. */
#include "nn/mixer.h"

typedef struct short_conv_config {
  int64_t conv;
  bool bias;
} short_conv_config;

#define S short_conv_config
static const mn_field fields[] = {
    MN_FIELD_INT(S, conv, 3, 2, 1 << 20, "kernel W of the causal depthwise convolution: tokens that a token sees, itself among them"),
    MN_FIELD_BOOL(S, bias, false, "biases in the projections and the convolution"), MN_FIELD_END};
#undef S

static mn_tensor *apply(mn_scope *s, const void *config, mn_tensor *x) {
  const short_conv_config *c = config;
  mn_graph *g = mn_scope_graph(s);
  const mn_init init = MN_NORMAL(0.02);
  const int64_t D = mn_dim(x, 2);
  mn_tensor *bcu = mn_linear(s, "in_proj", x, 3 * D, c->bias, init); /* [B,T,3D] */
  mn_tensor *z = mn_mul(g, mn_slice(g, bcu, 2, 0, D), mn_slice(g, bcu, 2, 2 * D, D));
  mn_tensor *y = mn_conv_layer(s, "conv", z, c->conv);
  if (c->bias) {
    mn_tensor *bias = mn_param(s, "conv.bias", MN_SHAPE(D), MN_ZEROS, MN_PARAM_NO_DECAY, "bias of the convolution [D]");
    y = mn_add(g, y, mn_cast(g, bias, mn_type(y)));
  }
  return mn_linear(s, "out_proj", mn_mul(g, mn_slice(g, bcu, 2, D, D), y), D, c->bias, init);
}

const mn_mixer_def mn_mixer_short_conv = {
    .name = "short_conv",
    .kind = "state",
    .summary = "a convolution over the last few tokens between two multiplicative gates",
    .paper = "Liquid AI 2025, arXiv 2511.23404",
    .config_size = sizeof(short_conv_config),
    .fields = fields,
    .apply = apply,
};
