/* linears.c - the usual linear policies. W [out,in], x a row.
 *     dense      y = x W^T + b
 *     lora       y = x W^T + b + alpha/r (x A^T) B^T, W and b frozen; B starts at 0 (Hu et al. 2021, arXiv 2106.09685)
 *     low_rank   y = (x A^T) B^T + b,  A [r,in], B [out,r]
 *     grouped    y = [x_1 W_1^T, ..., x_n W_n^T] + b: each of n parts of the input makes its own part of the output
 *     weight_drop  y = x (W * m / (1 - p))^T + b, in training: m is 0 with probability p, one draw a step (Wan et al. 2013)
 *     masked     y = x (W * m)^T + b, m the `keep` largest |w| of every `of` neighbours of a row (Mishra et al. 2021, arXiv 2104.08378) */
#include <math.h>
#include <stdio.h>

#include "nn/linear.h"

static mn_tensor *param(mn_scope *s, const mn_linear_use *u, const char *what, mn_shape shape, mn_init init, unsigned flags,
                        const char *help) {
  char full[200];
  snprintf(full, sizeof full, "%s.%s", u->name, what);
  return mn_param(s, full, shape, init, flags, help);
}

/* x [...,in] W^T, W [out,in], in the type `result`. */
static mn_tensor *product(mn_scope *s, mn_tensor *x, mn_tensor *w, mn_dtype result) {
  mn_graph *g = mn_scope_graph(s);
  mn_dtype t = mn_scope_compute(s);
  if (!x) return NULL; /* it has no last axis to take the place of */
  mn_shape shape = mn_shape_as(x);
  int64_t in = mn_dim(x, -1), rows = mn_shape_count(&shape) / in;
  shape.dim[shape.ndim - 1] = mn_dim(w, 0);
  mn_tensor *y = mn_matmul_as(g, mn_reshape(g, mn_cast(g, x, t), MN_SHAPE(rows, in)), mn_transpose(g, mn_cast(g, w, t), 0, 1), result);
  return mn_reshape(g, y, shape);
}

static mn_tensor *biased(mn_scope *s, const mn_linear_use *u, mn_tensor *y, unsigned flags) {
  if (!u->bias) return y;
  mn_tensor *b = param(s, u, "bias", MN_SHAPE(u->out), u->bias_init, MN_PARAM_NO_DECAY | flags, "bias [out]");
  return mn_add(mn_scope_graph(s), y, mn_cast(mn_scope_graph(s), b, u->result));
}

typedef struct lora_config {
  int64_t rank;
  double alpha, dropout;
} lora_config;
static const mn_field lora_fields[] = {MN_FIELD_INT(lora_config, rank, 8, 1, 65536, "rank r of what is added"),
                                       MN_FIELD_FLOAT(lora_config, alpha, 16, 0, 1e6, "what is added is multiplied by alpha / rank"),
                                       MN_FIELD_FLOAT(lora_config, dropout, 0, 0, 0.999, "of its input, in training"), MN_FIELD_END};

static mn_tensor *lora(mn_scope *s, const void *config, const mn_linear_use *u, mn_tensor *x) {
  const lora_config *c = config;
  mn_graph *g = mn_scope_graph(s);
  int64_t in = mn_dim(x, -1);
  mn_init uniform = {MN_INIT_UNIFORM, 1 / sqrt((double)in), 0};
  mn_tensor *w = param(s, u, "weight", MN_SHAPE(u->out, in), u->init, MN_PARAM_MATRIX | MN_PARAM_FROZEN, "projection [out, in], frozen");
  mn_tensor *a = param(s, u, "lora_a.weight", MN_SHAPE(c->rank, in), uniform, MN_PARAM_MATRIX, "first half of what is added [rank, in]");
  mn_tensor *b = param(s, u, "lora_b.weight", MN_SHAPE(u->out, c->rank), MN_ZEROS, MN_PARAM_MATRIX, "second half [out, rank]");
  mn_tensor *y = biased(s, u, product(s, x, w, u->result), MN_PARAM_FROZEN);
  mn_tensor *more = c->dropout > 0 ? mn_dropout(s, u->name, x, c->dropout) : x;
  more = product(s, product(s, more, a, mn_scope_compute(s)), b, u->result);
  return mn_add(g, y, mn_mul_scalar(g, more, c->alpha / (double)c->rank));
}

typedef struct low_rank_config {
  int64_t rank;
} low_rank_config;
static const mn_field low_rank_fields[] = {MN_FIELD_INT(low_rank_config, rank, 8, 1, 65536, "rank r"), MN_FIELD_END};

/* The variance of B A x is that of W x: the halves share the scale of the dense start. */
static mn_tensor *low_rank(mn_scope *s, const void *config, const mn_linear_use *u, mn_tensor *x) {
  const low_rank_config *c = config;
  int64_t in = mn_dim(x, -1);
  mn_tensor *a = param(s, u, "a.weight", MN_SHAPE(c->rank, in), MN_NORMAL(1 / sqrt((double)in)), MN_PARAM_MATRIX, "first half [rank, in]");
  mn_init init = u->init.kind == MN_INIT_NORMAL ? MN_NORMAL(u->init.a * sqrt((double)in / (double)c->rank)) : u->init;
  mn_tensor *b = param(s, u, "b.weight", MN_SHAPE(u->out, c->rank), init, MN_PARAM_MATRIX, "second half [out, rank]");
  return biased(s, u, product(s, product(s, x, a, mn_scope_compute(s)), b, u->result), 0);
}

typedef struct grouped_config {
  int64_t groups;
} grouped_config;
static const mn_field grouped_fields[] = {MN_FIELD_INT(grouped_config, groups, 2, 1, 65536, "parts n; divides input and output"),
                                          MN_FIELD_END};

static mn_tensor *grouped(mn_scope *s, const void *config, const mn_linear_use *u, mn_tensor *x) {
  const grouped_config *c = config;
  mn_graph *g = mn_scope_graph(s);
  mn_dtype t = mn_scope_compute(s);
  int64_t in = mn_dim(x, -1), n = c->groups;
  if (in % n || u->out % n) {
    mn_graph_fault(g, MN_ERR_CONFIG, "model.linear: groups %lld must divide input %lld and output %lld of %s%s", (long long)n,
                   (long long)in, (long long)u->out, mn_scope_path(s), u->name);
    return NULL;
  }
  mn_shape shape = mn_shape_as(x);
  int64_t rows = mn_shape_count(&shape) / in;
  shape.dim[shape.ndim - 1] = u->out;
  mn_tensor *w =
      param(s, u, "weight", MN_SHAPE(n, u->out / n, in / n), u->init, MN_PARAM_MATRIX, "projections [groups, out/groups, in/groups]");
  x = mn_transpose(g, mn_reshape(g, mn_cast(g, x, t), MN_SHAPE(rows, n, in / n)), 0, 1); /* [n,rows,in/n] */
  mn_tensor *y = mn_matmul_as(g, x, mn_transpose(g, mn_cast(g, w, t), 1, 2), u->result);
  return biased(s, u, mn_reshape(g, mn_transpose(g, y, 0, 1), shape), 0);
}

typedef struct weight_drop_config {
  double p;
} weight_drop_config;
static const mn_field weight_drop_fields[] = {MN_FIELD_FLOAT(weight_drop_config, p, 0.5, 0, 0.999, "of its weights, in training"),
                                              MN_FIELD_END};

static mn_tensor *weight_drop(mn_scope *s, const void *config, const mn_linear_use *u, mn_tensor *x) {
  const weight_drop_config *c = config;
  mn_tensor *w = param(s, u, "weight", MN_SHAPE(u->out, mn_dim(x, -1)), u->init, MN_PARAM_MATRIX, "projection [out, in]");
  return biased(s, u, product(s, x, mn_drop_weights(s, u->name, w, c->p), u->result), 0);
}

typedef struct masked_config {
  int64_t keep, of;
} masked_config;
static const mn_field masked_fields[] = {MN_FIELD_INT(masked_config, keep, 2, 1, 1024, "weights that stay of each `of` neighbours"),
                                         MN_FIELD_INT(masked_config, of, 4, 2, 1024, "neighbours of a row, a divisor of the input's width"),
                                         MN_FIELD_END};

static mn_status masked_check(const mn_value *map, const char *where, void *config) {
  const masked_config *c = config;
  if (c->keep < c->of) return MN_OK;
  return mn_config_fail(map, where, "keep", "must be less than `of` %lld: with %lld nothing is masked", (long long)c->of,
                        (long long)c->keep);
}

static mn_tensor *masked(mn_scope *s, const void *config, const mn_linear_use *u, mn_tensor *x) {
  const masked_config *c = config;
  mn_graph *g = mn_scope_graph(s);
  int64_t in = mn_dim(x, -1), parts = u->out * in / c->of;
  if (in % c->of) {
    mn_graph_fault(g, MN_ERR_CONFIG, "model.linear: `of` %lld must divide input %lld of %s%s", (long long)c->of, (long long)in,
                   mn_scope_path(s), u->name);
    return NULL;
  }
  mn_tensor *w = param(s, u, "weight", MN_SHAPE(u->out, in), u->init, MN_PARAM_MATRIX, "projection [out, in] before the mask");
  mn_tensor *size = mn_abs(g, mn_stop_gradient(g, mn_reshape(g, w, MN_SHAPE(parts, c->of))));
  mn_tensor *mask = mn_put(g, mn_full(g, mn_type(w), MN_SHAPE(parts, c->of), 0), mn_topk(g, size, c->keep),
                           mn_full(g, mn_type(w), MN_SHAPE(parts, c->keep), 1), 1, MN_PUT_SET);
  return biased(s, u, product(s, x, mn_mul(g, w, mn_reshape(g, mask, MN_SHAPE(u->out, in))), u->result), 0);
}

const mn_linear_def mn_linear_dense = {
    .name = "dense", .summary = "one matrix, as if no policy were there: for what a later, wider pattern should not reach"};
const mn_linear_def mn_linear_lora = {
    .name = "lora",
    .summary = "a frozen matrix and a trained one of low rank beside it",
    .paper = "Hu et al. 2021, arXiv 2106.09685",
    .config_size = sizeof(lora_config),
    .fields = lora_fields,
    .apply = lora,
};
const mn_linear_def mn_linear_low_rank = {
    .name = "low_rank",
    .summary = "a product of two narrow matrices",
    .config_size = sizeof(low_rank_config),
    .fields = low_rank_fields,
    .apply = low_rank,
};
const mn_linear_def mn_linear_grouped = {
    .name = "grouped",
    .summary = "each part of the input makes its own part of the output",
    .config_size = sizeof(grouped_config),
    .fields = grouped_fields,
    .apply = grouped,
};
const mn_linear_def mn_linear_weight_drop = {
    .name = "weight_drop",
    .summary = "weights are left out by chance, the same ones at all tokens of a step: for what goes from token to token",
    .paper = "Wan et al. 2013; Merity et al. 2018, arXiv 1708.02182",
    .config_size = sizeof(weight_drop_config),
    .fields = weight_drop_fields,
    .apply = weight_drop,
};
const mn_linear_def mn_linear_masked = {
    .name = "masked",
    .summary = "of every few neighbouring weights only the largest count",
    .paper = "Mishra et al. 2021, arXiv 2104.08378",
    .config_size = sizeof(masked_config),
    .fields = masked_fields,
    .check = masked_check,
    .apply = masked,
};
