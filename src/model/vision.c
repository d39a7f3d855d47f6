/* vision.c - what an image is, as one of several classes (Dosovitskiy et al. 2020, arXiv 2010.11929): it is cut into square patches,
 * which are read in rows from the top left, each as one token.
 *     x_i = W patch_i + b + position_i     h = Norm(blocks([class token,] x))     logits = W' (class token's h, or the mean) + b' */
#include "model/model.h"

typedef struct vision_config {
  int64_t height, width, channels, patch, num_classes;
  int pooling;
} vision_config;
enum { CLASS_TOKEN, MEAN };
static const char *const poolings[] = {"class_token", "mean", NULL};
#define S vision_config
static const mn_field fields[] = {
    MN_FIELD_INT_REQUIRED(S, height, 1, 1 << 16, "rows H of an image"),
    MN_FIELD_INT_REQUIRED(S, width, 1, 1 << 16, "columns W of an image"),
    MN_FIELD_INT(S, channels, 1, 1, 4096, "numbers C of a pixel: 1 grey, 3 colours"),
    MN_FIELD_INT(S, patch, 4, 1, 4096, "rows and columns of a patch"),
    MN_FIELD_INT_REQUIRED(S, num_classes, 1, 1 << 24, "classes N"),
    MN_FIELD_ENUM(S, pooling, poolings, CLASS_TOKEN, "what is judged: a learned token put before the patches, or the patches' mean"),
    MN_FIELD_END};
#undef S

static int64_t size(const mn_model *m, char axis) {
  const vision_config *c = m->own;
  switch (axis) {
  case 'H':
    return c->height;
  case 'W':
    return c->width;
  case 'C':
    return c->channels;
  case 'N':
    return c->num_classes;
  default:
    return axis == 'D' ? m->config.d_model : 0;
  }
}

static mn_status check(mn_model *m, const mn_value *map, const char *where) {
  const vision_config *c = m->own;
  if (c->height % c->patch || c->width % c->patch)
    return mn_config_fail(map, where, "patch", "must divide height %lld and width %lld: %lld does not", (long long)c->height,
                          (long long)c->width, (long long)c->patch);
  int64_t places = c->height / c->patch * (c->width / c->patch) + (c->pooling == CLASS_TOKEN);
  if (m->config.positions == MN_POSITIONS_LEARNED && !m->config.max_positions) m->config.max_positions = places;
  if (m->config.positions == MN_POSITIONS_LEARNED && m->config.max_positions != places)
    return mn_config_fail(map, where, "max_positions", "is %lld, but an image has %lld places; leave it out",
                          (long long)m->config.max_positions, (long long)places);
  return MN_OK;
}

/* images [B,H,W,C] -> [B, H/p W/p, p p C], each patch row by row. */
static mn_tensor *patches(mn_graph *g, const vision_config *c, mn_tensor *x) {
  int64_t B = mn_dim(x, 0), p = c->patch, rows = c->height / p, columns = c->width / p;
  x = mn_reshape(g, x, MN_SHAPE(B, rows, p, columns, p, c->channels));
  x = mn_permute(g, x, (const int[]){0, 1, 3, 2, 4, 5});
  return mn_reshape(g, x, MN_SHAPE(B, rows * columns, p * p * c->channels));
}

static void build(mn_scope *s, const mn_model *m, const mn_model_io *in, mn_model_io *out) {
  const vision_config *c = m->own;
  mn_graph *g = mn_scope_graph(s);
  mn_tensor *images = mn_io_get(in, "images");
  int64_t B = mn_dim(images, 0), D = m->config.d_model;
  mn_tensor *x = mn_cast(g, patches(g, c, images), mn_scope_compute(s));
  x = mn_cast(g, mn_linear(s, "embed_patches", x, D, MN_BIAS, (mn_init){MN_INIT_XAVIER_UNIFORM, 1, 0}), mn_scope_exact(s)); /* [B,P,D] */
  if (c->pooling == CLASS_TOKEN) {
    mn_tensor *token = mn_param(s, "class_token", MN_SHAPE(D), MN_NORMAL(0.02), MN_PARAM_NO_DECAY, "what stands before the patches [D]");
    token = mn_expand(g, mn_reshape(g, mn_cast(g, token, mn_scope_exact(s)), MN_SHAPE(1, 1, D)), MN_SHAPE(B, 1, D));
    x = mn_concat(g, 2, (mn_tensor *[]){token, x}, 1);
  }
  x = mn_stack_apply(s, &m->stack, mn_model_place(s, m, x), &(mn_beside){.condition = mn_model_condition(s, m, in)});
  mn_tensor *p = mn_pooled(s, c->pooling == CLASS_TOKEN ? MN_POOL_FIRST : MN_POOL_MEAN, mn_model_norm(s, m, x), NULL);
  mn_io_put(out, "logits", mn_linear_exact(s, "classifier", p, c->num_classes, MN_BIAS, MN_NORMAL(0.02), MN_ZEROS));
  mn_io_put(out, "pooled", p);
}

static const char *not_causal(const mn_model *m) {
  (void)m;
  return "it judges a whole image";
}

static const mn_port inputs[] = {{"images", MN_F32, "BHWC", false, "pixels"}, {0}};
static const mn_port outputs[] = {{"logits", MN_F32, "BN", false, "one number for each class"},
                                  {"pooled", MN_F32, "BD", false, "what is judged, in the compute type"},
                                  {0}};

const mn_model_def mn_model_vision = {
    .name = "vision",
    .summary = "the class of an image, read as a sequence of patches",
    .paper = "Dosovitskiy et al. 2020, arXiv 2010.11929",
    .trunk = MN_TRUNK_PLAIN,
    .conditioned = true,
    .config_size = sizeof(vision_config),
    .fields = fields,
    .inputs = inputs,
    .outputs = outputs,
    .size = size,
    .check = check,
    .build = build,
    .not_causal = not_causal,
};
