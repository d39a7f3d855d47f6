/* fast_layer.c - see fast_layer.h. */
#include "nn/fast_layer.h"

#include <stdio.h>

#include "nn/heads.h"

/* ---- the start of a stream ---- */
typedef struct start { /* of a part */
  const mn_fast_config *c;
  const mn_fast_names *names;
  int part;
} start;

/* M_0 of a part, [H,in,out]: Xavier uniform; gamma starts at 0. */
static mn_tensor *initial(mn_scope *s, const start *m) {
  char name[64];
  const mn_shape rows = mn_fast_shape(m->c, m->part, 1);
  snprintf(name, sizeof name, "init.%s.weight", mn_fast_name(m->c, m->part));
  if (rows.ndim == 3)
    return mn_param_exact(s, name, MN_SHAPE(rows.dim[1], rows.dim[2]), MN_ZEROS, MN_PARAM_NO_DECAY,
                          "gamma - 1 of the memory's norm at the start");
  const bool last = m->part + 1 == mn_fast_parts(m->c) || mn_fast_shape(m->c, m->part + 1, 1).ndim == 3;
  const mn_init init = {MN_INIT_XAVIER_UNIFORM, last ? m->names->last_gain : 1, 0};
  return mn_param_exact(s, name, MN_SHAPE(rows.dim[1], rows.dim[2], rows.dim[3]), init, 0, m->names->start);
}
static mn_tensor *initial_rows(mn_scope *s, const void *ctx) { /* the same for every row */
  const start *m = ctx;
  mn_graph *g = mn_scope_graph(s);
  return mn_expand(g, mn_unsqueeze(g, initial(s, m), 0), mn_fast_shape(m->c, m->part, mn_scope_batch(s)));
}

/* ---- states ---- */
static const char *name_of(const mn_fast_config *c, char kind, int part, char name[64]) {
  snprintf(name, 64, "%c.%s", kind, mn_fast_name(c, part));
  return name;
}
mn_tensor *mn_fast_part(mn_scope *s, const mn_fast_config *c, char kind, int part, const char *help) {
  char name[64];
  return mn_state(s, name_of(c, kind, part, name), mn_scope_exact(s), mn_fast_shape(c, part, mn_scope_batch(s)), NULL, help);
}
void mn_fast_part_set(mn_scope *s, const mn_fast_config *c, char kind, int part, mn_tensor *value) {
  char name[64];
  if (value) mn_state_set(s, name_of(c, kind, part, name), value);
}
static mn_tensor *learned(mn_scope *s, const start *m, char kind, const char *help) { /* begins as M_0 */
  char name[64];
  const mn_shape shape = mn_fast_shape(m->c, m->part, mn_scope_batch(s));
  return mn_state_from(s, name_of(m->c, kind, m->part, name), mn_scope_exact(s), shape, initial_rows, m, help);
}

mn_fast_state mn_fast_load(mn_scope *s, const mn_fast_config *c, const mn_fast_names *names) {
  mn_fast_state state = {.each = {NULL}};
  const int64_t B = mn_scope_batch(s), past = mn_fast_past(c);
  const mn_dtype exact = mn_scope_exact(s);
  const bool gathers = c->step == MN_FAST_EVERY_CHUNK;
  for (int p = 0; p < mn_fast_parts(c); p++) {
    const start m = {c, names, p};
    state.W[p] = learned(s, &m, 'W', names->memory);
    if (c->momentum) state.S[p] = mn_fast_part(s, c, 'S', p, "momentum of the memory: past surprise");
    if (gathers) state.G[p] = mn_fast_part(s, c, 'G', p, "step gathered over the unfinished chunk");
    else state.A[p] = learned(s, &m, 'A', names->anchor);
  }
  const mn_shape gate = MN_SHAPE(B, c->heads);
  if (gathers && c->momentum) state.momentum_sum = mn_state(s, "momentum_sum", exact, gate, NULL, "sum of the gate's argument");
  if (gathers && c->decay) state.decay_sum = mn_state(s, "decay_sum", exact, gate, NULL, "sum of the gate's argument");
  if (past) {
    state.past_k = mn_state(s, "past_k", exact, MN_SHAPE(B, past, c->heads, c->head_dim), NULL, "keys of the window, oldest first");
    state.past_v = mn_state(s, "past_v", exact, MN_SHAPE(B, past, c->heads, mn_fast_out(c)), NULL, "values of the window, oldest first");
  }
  return state;
}

static void set_if_kept(mn_scope *s, const char *name, mn_tensor *value) {
  if (value) mn_state_set(s, name, value);
}
static void store(mn_scope *s, const mn_fast_config *c, const mn_fast_state *state) {
  for (int p = 0; p < mn_fast_parts(c); p++) {
    mn_fast_part_set(s, c, 'W', p, state->W[p]);
    mn_fast_part_set(s, c, 'S', p, state->S[p]);
    mn_fast_part_set(s, c, 'G', p, state->G[p]);
    mn_fast_part_set(s, c, 'A', p, state->A[p]);
  }
  set_if_kept(s, "momentum_sum", state->momentum_sum);
  set_if_kept(s, "decay_sum", state->decay_sum);
  set_if_kept(s, "past_k", state->past_k);
  set_if_kept(s, "past_v", state->past_v);
}

void mn_fast_cut(mn_scope *s, const mn_fast_config *c, const mn_fast_names *names, mn_tensor *here) {
  mn_graph *g = mn_scope_graph(s);
  mn_fast_state state = mn_fast_load(s, c, names);
  for (int i = 0; i < MN_FAST_STATES; i++) {
    mn_tensor *x = state.each[i];
    if (!x) continue;
    const mn_shape rows = {x->shape.ndim, {mn_dim(x, 0), 1, 1, 1}};
    state.each[i] = mn_select(g, mn_reshape(g, here, rows), mn_stop_gradient(g, x), x);
  }
  store(s, c, &state);
}

mn_tensor *mn_fast_stream(mn_scope *s, mn_fast_projection how, const char *name, const char *state, mn_tensor *x) {
  char proj[16], conv[16];
  snprintf(proj, sizeof proj, "%s_proj", name);
  snprintf(conv, sizeof conv, "%s_conv", name);
  mn_tensor *u = mn_linear_exact(s, proj, x, how.heads * how.head_dim, MN_NO_BIAS, how.init, MN_ZEROS);
  if (how.conv) u = mn_conv_layer_of(s, conv, state, u, how.conv);
  u = mn_split_heads(s, mn_silu(mn_scope_graph(s), u), how.heads);
  return *name == 'v' ? u : mn_norm(mn_scope_graph(s), MN_NORM_L2, u, NULL, NULL, 1e-6, mn_scope_exact(s));
}

mn_tensor *mn_fast_phase(mn_scope *s, int64_t period) {
  mn_tensor *position = mn_scope_position(s);
  if (!position || mn_scope_aligned(s, period)) return NULL;
  return mn_mod(mn_scope_graph(s), position, mn_scalar(mn_scope_graph(s), MN_I32, (double)period));
}

mn_tensor *mn_fast_layer(mn_scope *s, const mn_fast_config *c, const mn_fast_names *names, mn_fast_input in) {
  in.phase = mn_fast_phase(s, c->chunk);
  in.length = mn_scope_length(s);
  const mn_fast_state before = mn_fast_load(s, c, names);
  const mn_fast_result r = mn_fast_memory(mn_scope_graph(s), c, &before, &in);
  store(s, c, &r.state);
  mn_report(s, "surprise", r.surprise);
  return r.y;
}

/* ---- the layer of its own ---- */
const mn_fast_names mn_fast_lmm_names = {"the memory at the start of a stream [H,in,out]", "the memory: fast weights",
                                         "anchor: the memory where the chunk began", 0.1};

mn_tensor *mn_fast_lmm(mn_scope *s, const mn_fast_config *c, const mn_fast_lmm_config *how, mn_tensor *window, mn_tensor *x) {
  mn_graph *g = mn_scope_graph(s);
  const mn_init init = how->projection.init;
  mn_fast_input in = {
      .q = mn_fast_stream(s, how->projection, "q", "q_conv", x), /* [B,T,H,d] */
      .k = mn_fast_stream(s, how->projection, "k", "k_conv", x),
      .v = mn_fast_stream(s, how->projection, "v", "v_conv", x),
      .window = window,
  };
  mn_projection gates[4] = {{"lr_proj", MN_BIAS, MN_ZEROS, MN_ZEROS}};
  mn_tensor *arg[4]; /* [B,T,H] each */
  int n = 1, momentum = 0, decay = 0, step = 0;
  if (c->momentum) gates[momentum = n++] = (mn_projection){"momentum_proj", MN_BIAS, MN_ZEROS, MN_ZEROS};
  if (c->decay) gates[decay = n++] = (mn_projection){"decay_proj", MN_BIAS, MN_ZEROS, (mn_init){MN_INIT_CONSTANT, -4, 0}};
  if (c->step == MN_FAST_ORTHOGONAL) gates[step = n++] = (mn_projection){"step_proj", MN_BIAS, MN_ZEROS, MN_ZEROS};
  mn_linears_exact(s, x, c->heads, n, gates, arg);
  in.theta = mn_mul_scalar(g, mn_sigmoid(g, arg[0]), how->lr_max);
  if (momentum) in.momentum = arg[momentum];
  if (decay) in.decay = arg[decay];
  if (step) in.rate = mn_mul_scalar(g, mn_sigmoid(g, arg[step]), how->step_max);
  mn_tensor *y = mn_fast_layer(s, c, &mn_fast_lmm_names, in); /* [B,T,H,d] */
  if (how->output_gate) {
    mn_tensor *gate = mn_linear(s, "gate_proj", x, mn_dim(y, 2) * mn_dim(y, 3), MN_NO_BIAS, init);
    y = mn_gated_heads_by(s, y, gate, MN_GATED_BY_SILU, 1e-6);
  } else y = mn_normed_heads(s, y);
  return mn_linear(s, "o_proj", y, mn_dim(x, 2), MN_NO_BIAS, init);
}

mn_status mn_fast_check_lr(const mn_value *map, const char *where, int64_t chunk, double *lr_max) {
  if (*lr_max < 0 && *lr_max > -1) return mn_config_fail(map, where, "lr_max", "must be at least 0, or -1");
  if (*lr_max < 0) *lr_max = chunk > 16 ? 1.6 / (double)chunk : 0.1;
  return MN_OK;
}

void mn_fast_remedy(double grad_clamp, double lr_max, mn_text *out) {
  if (grad_clamp > 0) mn_text_addf(out, "lower grad_clamp (%g now) or lr_max (%g now)", grad_clamp, lr_max);
  else mn_text_addf(out, "set grad_clamp: 1 (off now) or lower lr_max (%g now)", lr_max);
}

void mn_fast_doubt(double grad_clamp, double lr_max, int64_t chunk, bool momentum, mn_text *out) {
  const double step = lr_max * (double)chunk * (momentum ? 1 : 0.5);
  if (grad_clamp > 0 || step <= 2) return;
  mn_text_addf(out,
               "a chunk is one step of up to %.3g at the start (lr_max %g, chunk %lld), and above 2 a memory overshoots: without a clamp "
               "(grad_clamp is 0) a long stream may run away; set grad_clamp: 1, or lr_max to at most %.3g",
               step, lr_max, (long long)chunk, lr_max * 1.6 / step);
}

mn_status mn_fast_check_net(const mn_value *map, const char *where, bool one_matrix, int64_t expand, int64_t standard, bool free,
                            bool residual) {
  if (one_matrix && expand != standard)
    return mn_config_fail(
        map, where, "memory_expand",
        "has no effect on a memory of one matrix (memory_net: linear, or memory_depth: 1): it has no hidden width; leave it out");
  if (!free && !residual)
    return mn_config_fail(map, where, "memory_residual", "has no effect with this memory_net; leave it out, or choose memory_net: mlp");
  return MN_OK;
}
