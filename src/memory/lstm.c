/* lstm.c - Long Short-Term Memory (Hochreiter & Schmidhuber 1997), with a gate that forgets (Gers, Schmidhuber & Cummins 2000): one vector
 * of cells, which gates open and close, and one of what they say. Both go back into the gates, so that one token comes after the other.
 *     [i f g o]_t = W_x x_t + b + W_h h_{t-1}                                  [4 H], gates in this order
 *     c_t = sigmoid(f_t + forget_bias) * c_{t-1} + sigmoid(i_t) * tanh(g_t)
 *     h_t = sigmoid(o_t) * tanh(c_t)
 *     y_t = W_o h_t, or h_t itself where H is D */
#include "nn/mixer.h"

typedef struct lstm_config {
  int64_t hidden;
  double forget_bias;
} lstm_config;

#define S lstm_config
static const mn_field fields[] = {MN_FIELD_INT(S, hidden, 0, 0, 1 << 20, "cells H; 0: d_model, which then are the output"),
                                  MN_FIELD_FLOAT(S, forget_bias, 1, -100, 100, "what is added to the forget gate: where it starts"),
                                  MN_FIELD_END};
#undef S

/* a piece of one token: gates as x writes them [B,1,4H] -> h [B,1,H] */
static mn_tensor *step(mn_scope *s, void *config, mn_tensor *x) {
  const lstm_config *k = config;
  mn_graph *g = mn_scope_graph(s);
  const int64_t B = mn_dim(x, 0), H = mn_dim(x, 2) / 4;
  mn_tensor *h = mn_state(s, "h", mn_scope_exact(s), MN_SHAPE(B, H), NULL, "what was said last");
  mn_tensor *c = mn_state(s, "c", mn_scope_exact(s), MN_SHAPE(B, H), NULL, "the cells");
  const mn_init init = {MN_INIT_XAVIER_UNIFORM, 1, 0};
  mn_tensor *z =
      mn_reshape(g, mn_add(g, x, mn_linear_exact(s, "h_proj", mn_reshape(g, h, MN_SHAPE(B, 1, H)), 4 * H, MN_NO_BIAS, init, MN_ZEROS)),
                 MN_SHAPE(B, 4 * H));
  mn_tensor *in = mn_sigmoid(g, mn_slice(g, z, 1, 0, H)), *out = mn_sigmoid(g, mn_slice(g, z, 1, 3 * H, H));
  mn_tensor *forget = mn_slice(g, z, 1, H, H);
  forget = mn_sigmoid(g, mn_add(g, forget, mn_scalar(g, mn_type(z), k->forget_bias)));
  mn_tensor *c1 = mn_add(g, mn_mul(g, forget, c), mn_mul(g, in, mn_tanh(g, mn_slice(g, z, 1, 2 * H, H))));
  mn_tensor *h1 = mn_mul(g, out, mn_tanh(g, c1));

  mn_tensor *live = mn_scope_live(s, 1); /* bool [B,1] */
  mn_state_set(s, "c", live ? mn_select(g, live, c1, c) : c1);
  mn_state_set(s, "h", live ? mn_select(g, live, h1, h) : h1);
  return mn_reshape(g, h1, MN_SHAPE(B, 1, H));
}

static mn_tensor *apply(mn_scope *s, const void *config, mn_tensor *x) {
  const lstm_config *c = config;
  const int64_t D = mn_dim(x, 2), H = c->hidden ? c->hidden : D;
  const mn_init init = {MN_INIT_XAVIER_UNIFORM, 1, 0};
  mn_tensor *z = mn_linear_exact(s, "x_proj", x, 4 * H, MN_BIAS, init, MN_ZEROS);
  mn_tensor *h = mn_cast(mn_scope_graph(s), mn_scope_loop(s, 1, step, (void *)config, z), mn_scope_compute(s));
  return H == D ? h : mn_linear(s, "o_proj", h, D, MN_NO_BIAS, init);
}

const mn_mixer_def mn_mixer_lstm = {
    .name = "lstm",
    .kind = "state",
    .summary = "Long Short-Term Memory: cells behind gates; sequential, the baseline of what came after",
    .paper = "Hochreiter & Schmidhuber 1997; Gers, Schmidhuber & Cummins 2000",
    .config_size = sizeof(lstm_config),
    .fields = fields,
    .apply = apply,
};
