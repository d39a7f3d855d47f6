/* lmuformer.c - LMUFormer (Liu, Datta, Li & Beerel 2024, arXiv 2402.04882): what a stream of frames is, from a convolutional embedding, a
 * Legendre memory and a mixer of channels; trained in parallel, run frame by frame with a state of fixed size.
 *     embedding   x <- BN(relu(conv3(x)))  four times          x <- x + conv3(x)
 *     block       u = relu(W_u x + b_u)    m_t = Abar m_{t-1} + Bbar u_t    h = relu(W_h [m; x] + b_h)        (legendre.h)
 *                 x <- x + BN(W_o h + b_o)         x <- x + relu(BN(W_2 gelu(BN(W_1 x + b_1)) + b_2))
 *     head        logits = W mean_t x_t + b        running_t = W mean_{i <= t} x_i + b
 * Spiking, S a neuron (spiking.h) and S' one that fires at half of its threshold, every product has an operand of zeros and ones:
 *     embedding   x <- S(BN(conv3(x))) three times, x <- conv3(x)        x <- x + conv3(S(BN(x)))
 *     block       z = S'(BN(x))   u = S(BN(W_u z + b_u))   m as above   h = S(BN(W_h [S(BN(m)); z] + b_h))   x <- x + BN(W_o h + b_o)
 *                 x <- x + W_2 S(BN(W_1 S(BN(x)) + b_1)) + b_2
 *     head        of S(BN(x))
 *
 * A conv3 sees one frame ahead (lookahead). Frame i leaves the k-th of them at place i + k: in a stream they run on what is there, and
 * running_t speaks of the frames up to t - 5. At the end of a sequence five frames of nothing follow, which are computed without being
 * kept, so that `logits` is at any moment what a sequence that ends here is. What lies before the first frame and behind the last is zero
 * to each convolution. */
#include "graph/window.h"
#include "memory/lmu/legendre.h"
#include "model/model.h"
#include "nn/batch_norm.h"
#include "nn/spiking.h"

typedef struct lmuformer_config {
  int64_t channels, num_classes, d_model, order, layers, expand;
  double window;
  int embedding;
  bool lookahead, mix, spiking;
} lmuformer_config;
enum { CONVOLUTION, LINEAR };
static const char *const embeddings[] = {"convolution", "linear", NULL};
#define S lmuformer_config
static const mn_field fields[] = {
    MN_FIELD_INT_REQUIRED(S, channels, 1, 1 << 20, "numbers F of a frame"),
    MN_FIELD_INT_REQUIRED(S, num_classes, 1, 1 << 24, "classes N"),
    MN_FIELD_INT(S, d_model, 256, 1, 1 << 20, "width D"),
    MN_FIELD_INT(S, layers, 1, 1, 4096, "blocks"),
    MN_FIELD_INT(S, order, 0, 0, 4096, "d, numbers that hold the window; 0: d_model, spiking twice as many"),
    MN_FIELD_FLOAT(S, window, 128, 1, 1e9, "theta, how many frames the window reaches back"),
    MN_FIELD_INT(S, expand, 4, 1, 1024, "hidden channels of the mixer, times d_model"),
    MN_FIELD_ENUM(S, embedding, embeddings, CONVOLUTION, "five convolutions of three frames, or each frame alone"),
    MN_FIELD_BOOL(S, lookahead, true, "convolutions see the frame that follows; false: the two before"),
    MN_FIELD_BOOL(S, mix, true, "the mixer of channels; false: a block is its memory alone"),
    MN_FIELD_BOOL(S, spiking, false, "neurons that fire in place of relu and gelu"),
    MN_FIELD_END};
#undef S
enum { CONVOLUTIONS = 5 };
static const mn_neuron plain_neuron = {.tau = 2, .threshold = 1, .steepness = 4},
                       half_neuron = {.tau = 2, .threshold = 0.5, .steepness = 4};

static mn_status check(mn_model *m, const mn_value *map, const char *where) {
  lmuformer_config *c = m->own;
  if (!c->order) c->order = c->spiking ? 2 * c->d_model : c->d_model;
  if (c->embedding == LINEAR && mn_config_given(map, "lookahead"))
    return mn_config_fail(map, where, "lookahead", "is of convolutions; with embedding: linear leave it out");
  if (!c->mix && mn_config_given(map, "expand"))
    return mn_config_fail(map, where, "expand", "is of the mixer; with mix: false leave it out");
  m->config.d_model = c->d_model;
  return MN_OK;
}

static int64_t size(const mn_model *m, char axis) {
  const lmuformer_config *c = m->own;
  return axis == 'C' ? c->channels : axis == 'N' ? c->num_classes : axis == 'D' ? c->d_model : 0;
}

/* ---- a pass over places ---- */
typedef enum pass_kind {
  WHOLE,    /* a sequence at once: place i is frame i, and nothing is kept                                            */
  STREAMED, /* places go on where the last segment ended; frame i reaches the k-th convolution's end at place i + k   */
  ENDING    /* the places after the end, from what a streamed pass kept, which is looked at and not changed           */
} pass_kind;
enum { KEPT_EMBEDDING = 16, KEPT_BLOCK = 8 }; /* at most, of each */
typedef struct pass {
  pass_kind kind;
  const lmuformer_config *config;
  mn_tensor *place;   /* i32 [B,P]: of each place, from the stream's beginning */
  mn_tensor *end;     /* ENDING: i32 [B,1], the place behind the last frame    */
  mn_tensor *there;   /* WHOLE: bool [B,P], frames that are there; NULL: all   */
  struct pass *after; /* ENDING: the pass before                               */
  mn_tensor **kept;   /* STREAMED: what it left, in the order of asking        */
  int n_kept, at;
} pass;

/* What the stream kept before this pass, [B, shape ...]; zeros where it begins. */
static mn_tensor *recall(mn_scope *s, pass *p, const char *name, mn_shape shape, const char *help) {
  return p->kind == ENDING ? p->after->kept[p->at++] : mn_state(s, name, mn_scope_exact(s), shape, NULL, help);
}
static void keep(mn_scope *s, pass *p, const char *name, mn_tensor *value) {
  if (p->kind != STREAMED) return;
  mn_state_set(s, name, value);
  p->kept[p->n_kept++] = value;
}

/* bool [B,P]: places whose frame is there when it comes `late` places after itself; NULL: all. */
static mn_tensor *there(mn_scope *s, const pass *p, int64_t late) {
  mn_graph *g = mn_scope_graph(s);
  if (p->kind == WHOLE) return p->there;
  mn_tensor *frame = mn_sub(g, p->place, mn_full(g, MN_I32, MN_SHAPE(1), (double)late));
  mn_tensor *begun = mn_le(g, mn_full(g, MN_I32, MN_SHAPE(1), 0), frame);
  return p->kind == ENDING ? mn_and(g, begun, mn_lt(g, frame, p->end)) : begun;
}
/* x [B,P,C] with zeros where there is no frame. */
static mn_tensor *padded(mn_scope *s, const pass *p, mn_tensor *x, int64_t late) {
  mn_graph *g = mn_scope_graph(s);
  mn_tensor *is = there(s, p, late);
  return is ? mn_select(g, mn_unsqueeze(g, is, 2), x, mn_zeros_like(g, x)) : x;
}

/* The last n places of what came before this pass and x [B,P,C] after them: [B,n+P,C]. */
static mn_tensor *with_past(mn_scope *s, pass *p, const char *name, mn_tensor *x, int64_t n) {
  mn_graph *g = mn_scope_graph(s);
  mn_tensor *before = recall(s, p, name, MN_SHAPE(mn_dim(x, 0), n, mn_dim(x, 2)), "the last places");
  keep(s, p, name, mn_scope_last(s, before, x));
  return mn_concat(g, 2, (mn_tensor *[]){before, x}, 1);
}

/* Convolution of three frames without bias: `name`.weight [out,3,in]. */
static mn_tensor *conv3(mn_scope *s, pass *p, const char *name, mn_tensor *x, int64_t out) {
  mn_graph *g = mn_scope_graph(s);
  mn_scope *in = mn_scope_in(s, "%s", name);
  const int64_t from = mn_dim(x, 2);
  const double bound = 1 / __builtin_sqrt(3.0 * (double)from);
  mn_tensor *w = mn_param(in, "weight", MN_SHAPE(out, 3, from), (mn_init){MN_INIT_UNIFORM, bound, 0}, 0, "convolution [out,3,in]");
  const int64_t before = p->kind != WHOLE ? 0 : p->config->lookahead ? 1 : 2, after = p->kind == WHOLE && p->config->lookahead;
  if (p->kind != WHOLE) x = with_past(in, p, "before", x, 2);
  mn_dtype t = mn_scope_compute(s);
  x = mn_conv1d(g, mn_cast(g, x, t), mn_cast(g, w, t), NULL, (mn_window){.before = {before, 0}, .after = {after, 0}});
  return mn_cast(g, x, mn_scope_exact(s));
}
/* x one place later, where a convolution beside it is. */
static mn_tensor *one_later(mn_scope *s, pass *p, const char *name, mn_tensor *x) {
  if (p->kind == WHOLE || !p->config->lookahead) return x;
  return mn_slice(mn_scope_graph(s), with_past(mn_scope_in(s, "%s", name), p, "before", x, 1), 1, 0, mn_dim(x, 1));
}

static mn_tensor *norm(mn_scope *s, const char *name, mn_tensor *x) { return mn_batch_norm(s, name, x, 1e-5, 0.1); }

/* Spikes of BN(x): neurons `name`, whose batch norm is `name`.norm. */
static mn_tensor *spikes(mn_scope *s, pass *p, const char *name, mn_tensor *x, int64_t late, mn_neuron how) {
  mn_graph *g = mn_scope_graph(s);
  mn_scope *in = mn_scope_in(s, "%s", name);
  const int64_t B = mn_dim(x, 0), C = mn_dim(x, 2);
  mn_tensor *v, *v0 = p->kind == WHOLE ? NULL : recall(in, p, "v", MN_SHAPE(B, C), "voltage of each neuron");
  mn_tensor *s_t = mn_fire(g, norm(in, "norm", x), v0, there(s, p, late), how, &v);
  if (p->kind == STREAMED) keep(in, p, "v", mn_reshape(g, mn_scope_last(s, mn_unsqueeze(g, v0, 1), v), MN_SHAPE(B, C)));
  return s_t;
}

/* ---- the parts ---- */
static int64_t delay(const lmuformer_config *c) { return c->embedding == CONVOLUTION && c->lookahead ? CONVOLUTIONS : 0; }

static int64_t late_by(const mn_model *m) { return delay(m->own); }

static mn_tensor *embed(mn_scope *root, pass *p, mn_tensor *x) {
  const lmuformer_config *c = p->config;
  mn_scope *s = mn_scope_in(root, "embedding");
  mn_graph *g = mn_scope_graph(s);
  const int64_t D = c->d_model, step = c->lookahead;
  if (c->embedding == LINEAR) {
    x = mn_linear_exact(s, "proj", x, D, MN_NO_BIAS, MN_NORMAL(0.02), MN_ZEROS);
    return c->spiking ? spikes(s, p, "neuron", x, 0, plain_neuron) : norm(s, "norm", mn_relu(g, x));
  }
  static const char *const conv[] = {"conv1", "conv2", "conv3", "conv4"}, *const after[] = {"after1", "after2", "after3", "after4"};
  int64_t late = 0;
  for (int k = 0; k < 4; k++) {
    x = conv3(s, p, conv[k], x, D);
    late += step;
    if (!c->spiking) x = norm(s, after[k], mn_relu(g, x));
    else if (k < 3) x = spikes(s, p, after[k], x, late, plain_neuron);
    if (!c->spiking || k < 3) x = padded(s, p, x, late);
  }
  mn_tensor *read = c->spiking ? padded(s, p, spikes(s, p, after[3], x, late, plain_neuron), late) : x;
  return mn_add(g, one_later(s, p, "rest", x), conv3(s, p, "position", read, D));
}

static mn_tensor *dense(mn_scope *s, const char *name, mn_tensor *x, int64_t out) {
  return mn_linear_exact(s, name, x, out, MN_BIAS, MN_NORMAL(0.02), MN_ZEROS);
}

/* m_1 .. m_P [B,P,d] of u [B,P,1] */
static mn_tensor *remember(mn_scope *s, pass *p, mn_tensor *u) {
  mn_graph *g = mn_scope_graph(s);
  const int64_t B = mn_dim(u, 0), P = mn_dim(u, 1), d = p->config->order;
  mn_tensor *m0 = p->kind == WHOLE ? mn_full(g, mn_type(u), MN_SHAPE(B, d), 0) : recall(s, p, "m", MN_SHAPE(B, d), "the window of u");
  mn_tensor *m = mn_legendre_memory(s, u, mn_unsqueeze(g, m0, 1), p->config->window);
  m = mn_reshape(g, m, MN_SHAPE(B, P, d));
  if (p->kind == STREAMED) keep(s, p, "m", mn_reshape(g, mn_scope_last(s, mn_unsqueeze(g, m0, 1), m), MN_SHAPE(B, d)));
  return m;
}

static mn_tensor *block(mn_scope *s, pass *p, mn_tensor *x) {
  const lmuformer_config *c = p->config;
  mn_graph *g = mn_scope_graph(s);
  const int64_t D = c->d_model, hidden = c->expand * D, late = delay(c);
  mn_tensor *z = c->spiking ? spikes(s, p, "reads", x, late, half_neuron) : x, *u = dense(s, "u_proj", z, 1);
  u = c->spiking ? spikes(s, p, "writes", u, late, plain_neuron) : padded(s, p, mn_relu(g, u), late);
  mn_tensor *m = remember(s, p, u);
  if (c->spiking) m = spikes(s, p, "remembers", m, late, plain_neuron);
  mn_tensor *h = dense(s, "h_proj", mn_concat(g, 2, (mn_tensor *[]){m, z}, 2), D);
  h = c->spiking ? spikes(s, p, "says", h, late, plain_neuron) : mn_relu(g, h);
  x = mn_add(g, x, norm(s, "o_norm", dense(s, "o_proj", h, D)));
  if (!c->mix) return x;
  if (c->spiking) {
    h = spikes(s, p, "hidden", dense(s, "up_proj", spikes(s, p, "mixes", x, late, plain_neuron), hidden), late, plain_neuron);
    return mn_add(g, x, dense(s, "down_proj", h, D));
  }
  h = mn_gelu(g, norm(s, "up_norm", dense(s, "up_proj", x, hidden)));
  return mn_add(g, x, mn_relu(g, norm(s, "down_norm", dense(s, "down_proj", h, D))));
}

/* x [B,P,D], what the head takes the mean of */
static mn_tensor *run(mn_scope *s, const mn_model *m, pass *p, mn_tensor *frames) {
  const lmuformer_config *c = m->own;
  mn_tensor *x = embed(s, p, padded(s, p, frames, 0));
  for (int64_t i = 0; i < c->layers; i++) x = block(mn_scope_in(s, "layers.%d", (int)i), p, x);
  return c->spiking ? spikes(s, p, "last", x, delay(c), plain_neuron) : x;
}

/* Sums of x [B,P,D] over the frames so far, from what was summed before [B,D]: [B,P,D]. */
static mn_tensor *summed(mn_scope *s, const pass *p, mn_tensor *x, mn_tensor *before, int64_t late) {
  mn_graph *g = mn_scope_graph(s);
  mn_tensor *sum = mn_cumsum(g, padded(s, p, x, late), 1, MN_FORWARD);
  return before ? mn_add(g, sum, mn_unsqueeze(g, before, 1)) : sum;
}
/* Means from sums [B,P,D] of `count` frames, i32 [B or 1,P]: 0 of none. */
static mn_tensor *means(mn_graph *g, mn_tensor *sum, mn_tensor *count) {
  count = mn_maximum(g, count, mn_full(g, MN_I32, MN_SHAPE(1), 1));
  return mn_div(g, sum, mn_unsqueeze(g, mn_cast(g, count, mn_type(sum)), 2));
}
static mn_tensor *last_place(mn_graph *g, mn_tensor *x) {
  return mn_reshape(g, mn_slice(g, x, 1, mn_dim(x, 1) - 1, 1), MN_SHAPE(mn_dim(x, 0), mn_dim(x, 2)));
}
static mn_tensor *plus(mn_graph *g, mn_tensor *count, int64_t n) { return mn_add(g, count, mn_full(g, MN_I32, MN_SHAPE(1), (double)n)); }

static void put(mn_scope *s, const mn_model *m, mn_model_io *out, mn_tensor *running, mn_tensor *final) {
  const lmuformer_config *c = m->own;
  mn_io_put(out, "logits", mn_linear_exact(s, "classifier", final, c->num_classes, MN_BIAS, MN_NORMAL(0.02), MN_ZEROS));
  mn_io_put(out, "running", mn_linear_exact(s, "classifier", running, c->num_classes, MN_BIAS, MN_NORMAL(0.02), MN_ZEROS));
  mn_io_put(out, "pooled", final);
}

static void build_whole(mn_scope *s, const mn_model *m, mn_tensor *frames, mn_tensor *length, mn_model_io *out) {
  const lmuformer_config *c = m->own;
  mn_graph *g = mn_scope_graph(s);
  const int64_t B = mn_dim(frames, 0), T = mn_dim(frames, 1), D = c->d_model, late = delay(c);
  pass p = {.kind = WHOLE, .config = c, .there = mn_scope_live(s, T)};
  mn_tensor *sum = summed(s, &p, run(s, m, &p, frames), NULL, 0), *all = last_place(g, sum);
  mn_tensor *count = length ? mn_unsqueeze(g, length, 1) : mn_full(g, MN_I32, MN_SHAPE(B, 1), (double)T);
  mn_tensor *final = mn_reshape(g, means(g, mn_unsqueeze(g, all, 1), count), MN_SHAPE(B, D));
  mn_tensor *before = T > late ? mn_slice(g, mn_pad(g, sum, 1, late, 0), 1, 0, T) : mn_full(g, mn_type(sum), MN_SHAPE(B, T, D), 0);
  mn_tensor *seen = plus(g, mn_iota(g, MN_I32, MN_SHAPE(1, T), 1), 1 - late);
  if (length) seen = mn_minimum(g, seen, count); /* behind its end a row is judged by all of it */
  put(s, m, out, means(g, before, seen), final);
}

static void build_streamed(mn_scope *s, const mn_model *m, mn_tensor *frames, mn_tensor *length, mn_model_io *out) {
  const lmuformer_config *c = m->own;
  mn_graph *g = mn_scope_graph(s);
  const int64_t B = mn_dim(frames, 0), T = mn_dim(frames, 1), D = c->d_model, late = delay(c);
  mn_tensor *position = mn_scope_position(s);
  mn_tensor **kept = mn_arena_alloc(g->arena, (size_t)(KEPT_EMBEDDING + KEPT_BLOCK * c->layers) * sizeof *kept);
  if (!kept) {
    mn_graph_fault(g, MN_ERR_MEMORY, "no memory for a graph");
    return;
  }
  position = position ? mn_unsqueeze(g, position, 1) : mn_full(g, MN_I32, MN_SHAPE(B, 1), 0);
  pass p = {.kind = STREAMED, .config = c, .kept = kept, .place = mn_add(g, position, mn_iota(g, MN_I32, MN_SHAPE(1, T), 1))};
  mn_tensor *x = run(s, m, &p, frames), *was = mn_state(s, "sum", MN_F64, MN_SHAPE(B, D), NULL, "of what the head takes the mean of");
  mn_tensor *sum = summed(s, &p, mn_cast(g, x, MN_F64), was, late);
  mn_tensor *now = mn_reshape(g, mn_scope_last(s, mn_unsqueeze(g, was, 1), sum), MN_SHAPE(B, D));
  mn_state_set(s, "sum", now);
  mn_tensor *running = means(g, sum, plus(g, p.place, 1 - late));

  mn_tensor *end = mn_add(g, position, length ? mn_unsqueeze(g, length, 1) : mn_full(g, MN_I32, MN_SHAPE(1), (double)T));
  if (late) {
    pass e = {.kind = ENDING, .config = c, .after = &p, .end = end};
    e.place = mn_add(g, end, mn_iota(g, MN_I32, MN_SHAPE(1, late), 1));
    mn_tensor *nothing = mn_full(g, mn_type(frames), MN_SHAPE(B, late, c->channels), 0);
    now = last_place(g, summed(s, &e, mn_cast(g, run(s, m, &e, nothing), MN_F64), now, late));
  }
  mn_tensor *final = mn_reshape(g, means(g, mn_unsqueeze(g, now, 1), end), MN_SHAPE(B, D));
  put(s, m, out, mn_cast(g, running, mn_scope_exact(s)), mn_cast(g, final, mn_scope_exact(s)));
}

static void build(mn_scope *s, const mn_model *m, const mn_model_io *in, mn_model_io *out) {
  mn_tensor *frames = mn_io_get(in, "frames"), *length;
  mn_scope_set_length(s, mn_io_get(in, "length"));
  length = mn_scope_length(s);
  if (mn_scope_is_stream(s)) build_streamed(s, m, frames, length, out);
  else build_whole(s, m, frames, length, out);
  mn_scope_advance(s, mn_dim(frames, 1));
}

static const mn_port inputs[] = {{"frames", MN_F32, "BTC", false, "numbers for each place"},
                                 {"length", MN_I32, "B", true, "places of each row that are there; left out: all"},
                                 {0}};
static const mn_port outputs[] = {{"logits", MN_F32, "BN", false, "one number for each class, if the sequence ends here"},
                                  {"running", MN_F32, "BTN", false, "the same at each place, from the frames that are through by then"},
                                  {"pooled", MN_F32, "BD", false, "mean over the frames, which is judged"},
                                  {0}};

const mn_model_def mn_model_lmuformer = {
    .name = "lmuformer",
    .summary = "the class of a stream of frames, by a Legendre memory; spiking neurons if asked",
    .paper = "Liu, Datta, Li & Beerel 2024, arXiv 2402.04882",
    .trunk = MN_TRUNK_NONE,
    .config_size = sizeof(lmuformer_config),
    .fields = fields,
    .inputs = inputs,
    .outputs = outputs,
    .size = size,
    .check = check,
    .build = build,
    .late = late_by,
};
