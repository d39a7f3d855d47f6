/* lmu.c - Legendre Memory Units (Voelker, Kajic & Eliasmith 2019): a fixed linear system of d numbers that holds a sliding window of theta
 * inputs in Legendre coordinates, written by a learned scalar and read by a learned layer.
 *
 * lmu: without feedback (Chilkuri & Eliasmith 2021, arXiv 2102.11417), so that only u crosses time, and training runs in parallel
 *     u_t = relu(W_u x_t + b_u)                                               [M] channels
 *     m_t = Abar m_{t-1} + Bbar u_t                                           [M, d]
 *     y_t = relu(W_h [m_t ; x_t] + b_h)
 * lmu_cell: the original cell, one token after the other
 *     u_t = E_x x_t + E_h h_{t-1} + E_m m_{t-1}
 *     m_t = Abar m_{t-1} + Bbar u_t
 *     y_t = h_t = tanh(W_x x_t + W_h h_{t-1} + W_m m_t + b_h) */
#include <math.h>

#include "memory/lmu/legendre.h"
#include "nn/mixer.h"

typedef enum lmu_input { INPUT_RELU, INPUT_LINEAR } lmu_input;
static const char *const inputs[] = {"relu", "linear", NULL}; /* in the order of lmu_input */

typedef struct lmu_config {
  int64_t order, channels;
  double window;
  int input; /* lmu_input */
} lmu_config;

#define S lmu_config
#define MEMORY                                                                                                                             \
  MN_FIELD_INT(S, order, 0, 0, 4096, "d, numbers that hold the window; 0: d_model"),                                                       \
      MN_FIELD_FLOAT(S, window, 128, 1, 1e9, "theta, how many tokens the window reaches back"),                                            \
      MN_FIELD_INT(S, channels, 1, 1, 4096, "M, memories beside each other, each with an input of its own")
static const mn_field parallel_fields[] = {
    MEMORY, MN_FIELD_ENUM(S, input, inputs, INPUT_RELU, "what is made of the input u before it is written: relu, or nothing"),
    MN_FIELD_END};
static const mn_field cell_fields[] = {MEMORY, MN_FIELD_END};
#undef MEMORY
#undef S

static mn_status check(const mn_value *map, const char *where, int64_t d_model, void *config) {
  lmu_config *c = config;
  (void)map;
  (void)where;
  if (!c->order) c->order = d_model;
  return MN_OK;
}

/* m_1 .. m_T [B,T,M,d] of u [B,T,M], from and into the state m [B,M,d]; exact type. */
static mn_tensor *remember(mn_scope *s, const lmu_config *c, mn_tensor *u) {
  mn_graph *g = mn_scope_graph(s);
  const int64_t B = mn_dim(u, 0), M = c->channels, d = c->order;
  mn_tensor *m0 = mn_state(s, "m", mn_scope_exact(s), MN_SHAPE(B, M, d), NULL, "the window in Legendre coordinates");
  mn_tensor *m = mn_legendre_memory(s, u, m0, c->window);
  mn_tensor *end = mn_scope_last(s, mn_reshape(g, m0, MN_SHAPE(B, 1, M, d)), m); /* of each row */
  mn_state_set(s, "m", mn_reshape(g, end, MN_SHAPE(B, M, d)));
  return m;
}

static mn_tensor *parallel(mn_scope *s, const void *config, mn_tensor *x) {
  const lmu_config *c = config;
  mn_graph *g = mn_scope_graph(s);
  mn_init init = MN_NORMAL(0.02);
  const int64_t B = mn_dim(x, 0), T = mn_dim(x, 1), D = mn_dim(x, 2);
  mn_tensor *u = mn_linear_exact(s, "u_proj", x, c->channels, MN_BIAS, init, MN_ZEROS);
  if (c->input == INPUT_RELU) u = mn_relu(g, u);
  mn_tensor *m = mn_reshape(g, remember(s, c, u), MN_SHAPE(B, T, c->channels * c->order));
  mn_tensor *both[] = {mn_cast(g, m, mn_scope_compute(s)), mn_cast(g, x, mn_scope_compute(s))};
  return mn_relu(g, mn_linear(s, "h_proj", mn_concat(g, 2, both, 2), D, MN_BIAS, init));
}

/* ---- the original cell ---- */
static mn_init lecun_uniform(int64_t fan_in) { return (mn_init){MN_INIT_UNIFORM, sqrt(3.0 / (double)fan_in), 0}; }

/* a piece of one token: x [B,1,D] -> h [B,1,D] */
static mn_tensor *step(mn_scope *s, void *config, mn_tensor *x) {
  const lmu_config *c = config;
  mn_graph *g = mn_scope_graph(s);
  const int64_t B = mn_dim(x, 0), D = mn_dim(x, 2), M = c->channels, d = c->order;
  const mn_init xavier = {MN_INIT_XAVIER_UNIFORM, 1, 0};
  mn_tensor *h = mn_state(s, "h", mn_scope_exact(s), MN_SHAPE(B, D), NULL, "what was given last");
  mn_tensor *m = mn_state(s, "m", mn_scope_exact(s), MN_SHAPE(B, M, d), NULL, "the window in Legendre coordinates");
  mn_tensor *h3 = mn_reshape(g, h, MN_SHAPE(B, 1, D)), *m3 = mn_reshape(g, m, MN_SHAPE(B, 1, M * d));

  mn_tensor *u = mn_linear_exact(s, "x_to_u", x, M, MN_NO_BIAS, lecun_uniform(D), MN_ZEROS);
  u = mn_add(g, u, mn_linear_exact(s, "h_to_u", h3, M, MN_NO_BIAS, lecun_uniform(D), MN_ZEROS));
  u = mn_add(g, u, mn_linear_exact(s, "m_to_u", m3, M, MN_NO_BIAS, MN_ZEROS, MN_ZEROS));
  mn_tensor *m1 = mn_reshape(g, remember(s, c, u), MN_SHAPE(B, 1, M * d));
  mn_tensor *y = mn_linear_exact(s, "x_to_h", x, D, MN_BIAS, xavier, MN_ZEROS);
  y = mn_add(g, y, mn_linear_exact(s, "h_to_h", h3, D, MN_NO_BIAS, xavier, MN_ZEROS));
  y = mn_tanh(g, mn_add(g, y, mn_linear_exact(s, "m_to_h", m1, D, MN_NO_BIAS, xavier, MN_ZEROS)));

  mn_tensor *live = mn_scope_live(s, 1); /* bool [B,1] */
  mn_tensor *kept = mn_reshape(g, y, MN_SHAPE(B, D));
  mn_state_set(s, "h", live ? mn_select(g, live, kept, h) : kept);
  return mn_cast(g, y, mn_scope_compute(s));
}

static mn_tensor *cell(mn_scope *s, const void *config, mn_tensor *x) { return mn_scope_loop(s, 1, step, (void *)config, x); }

const mn_mixer_def mn_mixer_lmu = {
    .name = "lmu",
    .kind = "state",
    .summary = "Legendre Memory Unit: a fixed linear system holds a sliding window in Legendre coordinates; trains in parallel",
    .paper = "Chilkuri & Eliasmith 2021, arXiv 2102.11417",
    .config_size = sizeof(lmu_config),
    .fields = parallel_fields,
    .check = check,
    .apply = parallel,
};
const mn_mixer_def mn_mixer_lmu_cell = {
    .name = "lmu_cell",
    .page = "lmu",
    .kind = "state",
    .summary = "the original Legendre Memory Unit: what was given and what is remembered go back into the input; sequential",
    .paper = "Voelker, Kajić & Eliasmith 2019, NeurIPS 32",
    .config_size = sizeof(lmu_config),
    .fields = cell_fields,
    .check = check,
    .apply = cell,
};
