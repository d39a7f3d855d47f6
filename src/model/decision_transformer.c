/* decision_transformer.c - what to do next, so that as much comes of it as is asked for (Chen et al. 2021, arXiv 2106.01345). A step is
 * three places: the action before it, the return that is still to come, the state; the action is said at the state.
 *     e_t = position of step t     places  W_a a_{t-1} + e_t,  W_r R_t + e_t,  W_s s_t + e_t     h = Norm(blocks(places))
 *     action_t = tanh(W h(s_t) + b)
 * A step is a place of the stream, though the blocks see three: who acts feeds a frame [a_{t-1}; R_t; s_t] and is told a_t. */
#include "model/model.h"

typedef struct decision_config {
  int64_t actions, states;
} decision_config;
#define S decision_config
static const mn_field fields[] = {MN_FIELD_INT_REQUIRED(S, actions, 1, 1 << 16, "numbers A of an action, each from -1 to 1"),
                                  MN_FIELD_INT_REQUIRED(S, states, 1, 1 << 16, "numbers of a state"), MN_FIELD_END};
#undef S
enum { PLACES = 3 };

static int64_t size(const mn_model *m, char axis) {
  const decision_config *c = m->own;
  return axis == 'C' ? c->actions + 1 + c->states : axis == 'A' ? c->actions : axis == 'D' ? m->config.d_model : 0;
}

/* Columns [from, from + n) of frames as vectors: [B,T,1,D] */
static mn_tensor *part(mn_scope *s, const mn_model *m, const char *name, mn_tensor *frames, int64_t from, int64_t n, mn_tensor *place) {
  mn_graph *g = mn_scope_graph(s);
  mn_tensor *x = mn_linear_exact(s, name, mn_slice(g, frames, 2, from, n), m->config.d_model, MN_BIAS,
                                 (mn_init){MN_INIT_XAVIER_UNIFORM, 1, 0}, MN_ZEROS);
  return mn_unsqueeze(g, mn_add(g, x, place), 2);
}

static void build(mn_scope *s, const mn_model *m, const mn_model_io *in, mn_model_io *out) {
  const decision_config *c = m->own;
  mn_graph *g = mn_scope_graph(s);
  mn_tensor *frames = mn_io_get(in, "frames");
  mn_scope_set_length(s, mn_io_get(in, "length"));
  const int64_t B = mn_dim(frames, 0), T = mn_dim(frames, 1), D = m->config.d_model;
  mn_tensor *e = mn_model_place(s, m, mn_full(g, mn_scope_exact(s), MN_SHAPE(B, T, D), 0)), *length = mn_scope_length(s);
  mn_tensor *parts[PLACES] = {part(s, m, "embed_action", frames, 0, c->actions, e), part(s, m, "embed_return", frames, c->actions, 1, e),
                              part(s, m, "embed_state", frames, c->actions + 1, c->states, e)};
  mn_tensor *x = mn_reshape(g, mn_concat(g, PLACES, parts, 2), MN_SHAPE(B, PLACES * T, D));
  /* the blocks' stream has three places for one of ours */
  mn_scope *inner = mn_scope_call(
      s, "steps", (mn_call_options){.params = "", .length = length ? mn_mul(g, length, mn_full(g, MN_I32, MN_SHAPE(1), PLACES)) : NULL});
  x = mn_stack_apply(inner, &m->stack, x, &(mn_beside){0});
  mn_scope_advance(inner, PLACES * T);
  const mn_limit limit = mn_scope_limit_of(inner);
  if (limit.tokens < MN_LIMIT_NONE) mn_scope_limit(s, limit.tokens / PLACES, limit.key, limit.remedy);
  mn_tensor *h = mn_model_norm(inner, m, x);
  h = mn_reshape(g, mn_slice(g, mn_reshape(g, h, MN_SHAPE(B, T, PLACES, D)), 2, PLACES - 1, 1), MN_SHAPE(B, T, D));
  mn_scope_advance(s, T);
  mn_io_put(out, "forecast", mn_tanh(g, mn_linear_exact(s, "action", h, c->actions, MN_BIAS, MN_NORMAL(0.02), MN_ZEROS)));
}

static const mn_port inputs[] = {{"frames", MN_F32, "BTC", false, "of each step the action before, the return to come, the state"},
                                 {"length", MN_I32, "B", true, "steps of each row that are there; left out: all"},
                                 {0}};
static const mn_port outputs[] = {{"forecast", MN_F32, "BTA", false, "what to do at each step"}, {0}};

const mn_model_def mn_model_decision_transformer = {
    .name = "decision_transformer",
    .summary = "what to do at each step, so that as much comes of it as is asked for",
    .paper = "Chen et al. 2021, arXiv 2106.01345",
    .trunk = MN_TRUNK_PLAIN,
    .config_size = sizeof(decision_config),
    .fields = fields,
    .inputs = inputs,
    .outputs = outputs,
    .size = size,
    .build = build,
};
