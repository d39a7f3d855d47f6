/* event_forecaster.c - when the next event comes, and of what kind it is, from those before (a neural point process; the density of gaps:
 * Shchur, Bilos & Guennemann 2020, arXiv 1909.12127):
 *     x_t = E[mark_t] + W [log gap_t, gap_t] + b         h = Norm(blocks(x))
 *     p(next gap = s) = sum_k softmax(w)_k N(log s; m_k, d_k) / s         [w, m, z] = W_g h_t + b_g      log d = -3 + 4 sigmoid(z)
 *     p(next mark) = softmax(W_m h_t + b_m)
 * Both are said at every event, of the events up to it. Gaps are taken as at least 1e-6. */
#include "model/model.h"

typedef struct event_config {
  int64_t components;
} event_config;
#define S event_config
static const mn_field fields[] = {MN_FIELD_INT(S, components, 4, 1, 256, "log-normal components K of the density of gaps"), MN_FIELD_END};
#undef S

static int64_t size(const mn_model *m, char axis) {
  const event_config *c = m->own;
  return axis == 'K' ? 3 * c->components : axis == 'N' ? m->config.vocab_size : axis == 'D' ? m->config.d_model : 0;
}

/* log gap and gap, as numbers: [B,T,2] */
static mn_tensor *of_gaps(mn_graph *g, mn_tensor *gaps) {
  gaps = mn_unsqueeze(g, mn_maximum(g, gaps, mn_scalar(g, mn_type(gaps), 1e-6)), 2);
  return mn_concat(g, 2, (mn_tensor *[]){mn_log(g, gaps), gaps}, 2);
}

/* w, m, log d of each place, side by side: [B,T,3K] */
static mn_tensor *density(mn_scope *s, const event_config *c, mn_tensor *h) {
  mn_graph *g = mn_scope_graph(s);
  const int64_t K = c->components;
  mn_tensor *x = mn_linear_exact(s, "gap", h, 3 * K, MN_BIAS, MN_NORMAL(0.02), MN_ZEROS);
  mn_tensor *d = mn_add_scalar(g, mn_mul_scalar(g, mn_sigmoid(g, mn_slice(g, x, 2, 2 * K, K)), 4), -3);
  return mn_concat(g, 2, (mn_tensor *[]){mn_slice(g, x, 2, 0, 2 * K), d}, 2);
}

static void build(mn_scope *s, const mn_model *m, const mn_model_io *in, mn_model_io *out) {
  const event_config *c = m->own;
  mn_graph *g = mn_scope_graph(s);
  mn_tensor *tokens = mn_io_get(in, "tokens");
  mn_scope_set_length(s, mn_io_get(in, "length"));
  mn_tensor *x = mn_linear_exact(s, "embed_gaps", of_gaps(g, mn_io_get(in, "gaps")), m->config.d_model, MN_BIAS,
                                 (mn_init){MN_INIT_XAVIER_UNIFORM, 1, 0}, MN_ZEROS);
  x = mn_add(g, mn_model_embed(s, m, tokens), x);
  x = mn_stack_apply(s, &m->stack, x, &(mn_beside){0});
  mn_scope_advance(s, mn_dim(tokens, 1));
  mn_tensor *h = mn_model_norm(s, m, x);
  mn_io_put(out, "density", density(s, c, h));
  mn_io_put(out, "logits", mn_linear_exact(s, "mark", h, m->config.vocab_size, MN_BIAS, MN_NORMAL(0.02), MN_ZEROS));
}

static const mn_port inputs[] = {{"tokens", MN_I32, "BT", false, "mark of each event"},
                                 {"gaps", MN_F32, "BT", false, "time since the event before"},
                                 {"length", MN_I32, "B", true, "events of each row that are there; left out: all"},
                                 {0}};
static const mn_port outputs[] = {
    {"density", MN_F32, "BTK", false, "logits of weights, means and log deviations of log gap, of the next event"},
    {"logits", MN_F32, "BTN", false, "one number for each mark of the next event"},
    {0}};

const mn_model_def mn_model_event_forecaster = {
    .name = "event_forecaster",
    .summary = "when the next event comes and of what kind it is, from those before",
    .paper = "density of gaps: Shchur, Bilos & Guennemann 2020, arXiv 1909.12127",
    .trunk = MN_TRUNK_TOKENS,
    .config_size = sizeof(event_config),
    .fields = fields,
    .inputs = inputs,
    .outputs = outputs,
    .size = size,
    .build = build,
};
