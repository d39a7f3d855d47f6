/* graph.h - the graph: typed tensors of static shape, made by operations, in one arena.
 *
 * Building never computes. Builders return NULL and make the graph's status sticky when shapes or types do not fit, and
 * pass NULL through, so a model is written without a check on every line and checked once with mn_graph_status().
 *
 * Every operation is one of three:
 *   core   it has a meaning of its own (element-wise, reductions, matmul, take/put, views, scan ...) and a kernel on
 *          every backend;
 *   fused  a composition of core operations that also has faster kernels. The composition is its meaning, its oracle, its
 *          fallback, and its path when it is differentiated again;
 *   leaf   inputs, variables, constants.
 * Shapes are row-major; a dimension is an int64_t; at most MN_MAX_DIMS of them. */
#ifndef MN_GRAPH_H
#define MN_GRAPH_H

#include "base/types.h"

typedef struct mn_graph mn_graph;
typedef struct mn_node mn_node;
typedef struct mn_tensor mn_tensor;
typedef struct mn_op mn_op;

struct mn_tensor { /* a value: output `out` of `node` */
  mn_node *node;
  int out;
  mn_dtype dtype;
  mn_shape shape;
  const char *name; /* may be NULL */
};

struct mn_node { /* an application of an operation. Ids grow in building order, which is a topological order. */
  const mn_op *op;
  mn_graph *graph;
  int id;
  int n_in, n_out;
  mn_tensor **in;
  mn_tensor **out;
  void *attr; /* op->attr_size bytes, owned by the graph's arena */
  int phase;  /* 0 forward; each mn_grad adds its nodes one phase later */
  bool mute;  /* its effect does not happen: built to see what building declares */
};

/* ---- operations ------------------------------------------------------------------------------------------------ */
typedef enum mn_op_class { MN_OP_LEAF, MN_OP_ELEMENTWISE, MN_OP_VIEW, MN_OP_CORE, MN_OP_FUSED } mn_op_class;

/* How a view lies in memory: element strides and an element offset into its storage. */
typedef struct mn_layout {
  int64_t offset;
  int64_t stride[MN_MAX_DIMS];
} mn_layout;

/* How cheap a value is to make again, in the backward pass, from its operands. Element-wise operations and views always are. */
typedef enum mn_remake { MN_REMAKE_NEVER, MN_REMAKE_CHEAP, MN_REMAKE_NORM /* a pass over a row, as a norm's */ } mn_remake;

typedef struct mn_simplifying { /* what an operation is told when it is asked for something simpler */
  mn_graph *g;                  /* where it is built */
  const bool *only_reader;      /* per input: no other node reads it, nor is it a result */
} mn_simplifying;

/* Attributes are compared byte by byte, and padding is bytes of no value: between these two a type that has any does not compile. The
 * types of all attributes are defined between them; what would be padding is a field `unused`, which an initializer clears. */
#define MN_ATTRS_BEGIN _Pragma("GCC diagnostic push") _Pragma("GCC diagnostic error \"-Wpadded\"")
#define MN_ATTRS_END   _Pragma("GCC diagnostic pop")

struct mn_op {
  const char *name;
  mn_op_class cls;
  size_t attr_size; /* of a type without padding, see MN_ATTRS_BEGIN; `distinct` operations are not compared */
  int code;         /* element-wise: mn_ew_code; reductions: mn_reduce_code; else 0 */
  /* It does something besides its results (prints, writes a file): it runs once where it was built (in a loop's body: once a
   * step), after the effects built before it, whether or not anything reads it; never merged, moved out of a loop, or made again.
   * It needs a kernel. `compose`, where there is one, is its results alone: what the gradient of a loop runs in its place. Not for views. */
  bool effect;
  /* din[i] = gradient of in[i] (leave NULL for none) where need[i], given dout[j] (NULL where no gradient arrives; at
   * least one arrives). NULL for fused operations that are differentiated through their composition. */
  void (*grad)(mn_graph *g, mn_node *n, mn_tensor **dout, const bool *need, mn_tensor **din);
  bool no_grad; /* nothing flows through: comparisons, argmax, leaves ... */
  /* fused only: out[j] built from in[i] of core (or simpler fused) operations */
  void (*compose)(mn_graph *g, mn_node *n, mn_tensor **in, mn_tensor **out);
  /* views only: the layout of the output in the input's storage; false when it needs a contiguous input */
  bool (*view)(const mn_node *n, const mn_layout *in, mn_layout *out);
  /* which input output j may overwrite (same shape and type); -1 none. NULL: none. */
  int (*inplace)(const mn_node *n, int j);
  int64_t (*flops)(const mn_node *n); /* multiply-add counts 2; NULL: one per output element */
  mn_remake remake;
  bool bound;    /* a leaf whose memory the caller gives */
  bool distinct; /* two applications to the same operands are two, not one: they are never merged */
  /* NULL, or a tensor of the same value as n's only result that costs less, made of n's operands (and theirs) in s->g. */
  mn_tensor *(*simplify)(const mn_simplifying *s, mn_node *n);
  /* What tells two applications to the same operands apart: `bytes` bytes, or NULL when they always differ. NULL: the attributes. */
  const void *(*identity)(const mn_node *n, size_t *bytes);
  /* A later node of operation `given_by` on the same first operands gives these results, too, as its results from given_at on: once
   * it is there, and its other operands are constants, this one is not run. */
  const mn_op *given_by;
  int given_at;
};

/* ---- graphs ---------------------------------------------------------------------------------------------------- */
struct mn_graph {
  mn_arena *arena;
  mn_status status; /* sticky */
  char *message;    /* of the first fault */
  mn_node **nodes;
  int n_nodes, cap_nodes;
  int phase;                           /* stamped on new nodes */
  bool mute;                           /* stamped on new nodes */
  int64_t keep_bytes;                  /* a loop whose steps need no more keeps what its gradient needs of every step */
  bool effects;                        /* a node has an effect, perhaps in a loop's body */
  mn_graph *parent;                    /* a scan's body knows the graph it is a body of */
  mn_tensor **captured, **captured_as; /* of a body: outer tensor -> body input */
  int n_captured, cap_captured;
  struct mn_table *captured_at; /* outer tensor -> its number among the captured */
};

extern const int64_t mn_graph_keep_bytes; /* what keep_bytes is in a new graph */
mn_graph *mn_graph_new(void);
void mn_graph_free(mn_graph *g);              /* frees all tensors, nodes and bodies */
mn_status mn_graph_status(const mn_graph *g); /* puts the first fault's text in mn_message() */
void mn_graph_fault(mn_graph *g, mn_status status, const char *fmt, ...) MN_PRINTF(3, 4);

/* Low level, used by the operations themselves: a node with n_out outputs whose types and shapes are given. */
mn_node *mn_node_new(mn_graph *g, const mn_op *op, int n_in, mn_tensor *const *in, int n_out, const mn_dtype *dtypes,
                     const mn_shape *shapes, const void *attr);
/* The same with one output; returns it. */
mn_tensor *mn_node1(mn_graph *g, const mn_op *op, int n_in, mn_tensor *const *in, mn_dtype dtype, mn_shape shape, const void *attr);
mn_tensor *mn_named(mn_tensor *t, const char *name); /* names it (copied), returns it */
int64_t mn_dim(const mn_tensor *t, int axis);        /* negative axes count from the end; 0 when t is NULL */
bool mn_node_has_effect(const mn_node *n);           /* of its own, or in its body */

/* ---- leaves ---- */
mn_tensor *mn_input(mn_graph *g, const char *name, mn_dtype t, mn_shape s);    /* bound by the caller, never written */
mn_tensor *mn_variable(mn_graph *g, const char *name, mn_dtype t, mn_shape s); /* bound by the caller, may be assigned */
mn_tensor *mn_const(mn_graph *g, mn_dtype t, mn_shape s, const void *data);    /* data is copied */
mn_tensor *mn_scalar(mn_graph *g, mn_dtype t, double value);                   /* shape [] */
bool mn_is_full(const mn_tensor *t, double *value);                            /* a constant with one value, perhaps seen through views */
mn_tensor *mn_full(mn_graph *g, mn_dtype t, mn_shape s, double value);         /* an expanded scalar */
mn_tensor *mn_zeros_like(mn_graph *g, mn_tensor *x);
mn_tensor *mn_iota(mn_graph *g, mn_dtype t, mn_shape s, int axis); /* index along the axis */
/* Philox stream: element i of the (key, step, tick) stream; step and tick (or NULL) are i64 scalar tensors, so each run and each
 * step of a loop can differ. f32: [0,1), and N(0,1). */
mn_tensor *mn_random_uniform_op(mn_graph *g, mn_shape s, uint64_t key, mn_tensor *step, mn_tensor *tick);
mn_tensor *mn_random_normal_op(mn_graph *g, mn_shape s, uint64_t key, mn_tensor *step, mn_tensor *tick);

/* ---- element-wise: operands broadcast as in NumPy; types must agree (cast explicitly) ---- */
#define MN_EW_UNARY(X)                                                                                                                     \
  X(NEG, neg)                                                                                                                              \
  X(ABS, abs)                                                                                                                              \
  X(SIGN, sign)                                                                                                                            \
  X(SQRT, sqrt)                                                                                                                            \
  X(RSQRT, rsqrt)                                                                                                                          \
  X(RECIP, recip)                                                                                                                          \
  X(EXP, exp)                                                                                                                              \
  X(LOG, log) X(LOG1P, log1p) X(SIN, sin) X(COS, cos) X(TANH, tanh) X(SIGMOID, sigmoid) X(ERF, erf) X(FLOOR, floor) X(NOT, not )           \
      X(SOFTPLUS, softplus) X(SILU, silu) X(SILU_SLOPE, silu_slope)
#define MN_EW_BINARY(X)                                                                                                                    \
  X(ADD, add)                                                                                                                              \
  X(SUB, sub)                                                                                                                              \
  X(MUL, mul)                                                                                                                              \
  X(DIV, div) X(MAXIMUM, maximum) X(MINIMUM, minimum) X(POW, pow) X(MOD, mod) X(LT, lt) X(LE, le) X(EQ, eq) X(AND, and) X(OR, or)
/* mn_neg(g, x), mn_exp(g, x), mn_sigmoid(g, x), ...; mn_add(g, a, b), mn_mul(g, a, b), ...: one function for each name above.
 * sign(0)=0; softplus(x) = log(1 + exp(x)), stable; silu(x) = x sigmoid(x), silu_slope its derivative; mod is floored, with the sign of the divisor; comparisons, AND, OR, NOT give bool. */
typedef enum mn_ew_code {
#define X(upper, lower) MN_EW_##upper,
  MN_EW_UNARY(X) MN_EW_BINARY(X)
#undef X
      MN_EW_SELECT, /* cond ? a : b */
  MN_EW_CAST,       /* float to int truncates; to bf16 rounds to nearest even */
  MN_EW_CODES
} mn_ew_code;
#define X(upper, lower) mn_tensor *mn_##lower(mn_graph *g, mn_tensor *x);
MN_EW_UNARY(X)
#undef X
#define X(upper, lower) mn_tensor *mn_##lower(mn_graph *g, mn_tensor *a, mn_tensor *b);
MN_EW_BINARY(X)
#undef X
mn_tensor *mn_select(mn_graph *g, mn_tensor *cond, mn_tensor *a, mn_tensor *b);
mn_tensor *mn_cast(mn_graph *g, mn_tensor *x, mn_dtype t); /* returns x itself when the type already fits */
/* made of the above */
mn_tensor *mn_add_scalar(mn_graph *g, mn_tensor *x, double c);
mn_tensor *mn_mul_scalar(mn_graph *g, mn_tensor *x, double c);
mn_tensor *mn_square(mn_graph *g, mn_tensor *x);
mn_tensor *mn_gelu(mn_graph *g, mn_tensor *x);      /* exact, with erf */
mn_tensor *mn_gelu_tanh(mn_graph *g, mn_tensor *x); /* tanh approximation */
mn_tensor *mn_relu(mn_graph *g, mn_tensor *x);
mn_tensor *mn_log_sigmoid(mn_graph *g, mn_tensor *x);
mn_tensor *mn_stop_gradient(mn_graph *g, mn_tensor *x);
/* The value of one tensor with the gradient of another of its shape and type: what arrives goes to `surrogate`, nothing to `value`.
 * mn_with_gradient(g, round(x), x) is the straight-through estimator of Bengio et al. 2013. The surrogate is not computed for it. */
mn_tensor *mn_with_gradient(mn_graph *g, mn_tensor *value, mn_tensor *surrogate);
/* The value of `value`, with a gradient of your own with respect to x[n]: when dy arrives, rule builds dx[i] (of x[i]'s shape; NULL:
 * none) where need[i]. y is `value`. ctx is handed to rule and must live as long as the graph. Nothing flows to what `value` was made of
 * otherwise. The rule's operations are ordinary ones, so that it can be differentiated again. */
typedef void (*mn_gradient_rule)(mn_graph *g, void *ctx, int n, mn_tensor *const *x, mn_tensor *y, mn_tensor *dy, const bool *need,
                                 mn_tensor **dx);
mn_tensor *mn_custom_gradient(mn_graph *g, mn_tensor *value, int n, mn_tensor *const *x, mn_gradient_rule rule, void *ctx);
mn_tensor *mn_identity(mn_graph *g, mn_tensor *x); /* another tensor of the same value: something to differentiate by */

/* ---- views: no arithmetic, no copy where the layout allows ---- */
mn_tensor *mn_reshape(mn_graph *g, mn_tensor *x, mn_shape s);
mn_tensor *mn_permute(mn_graph *g, mn_tensor *x, const int *axes); /* out axis i is in axis axes[i] */
mn_tensor *mn_transpose(mn_graph *g, mn_tensor *x, int a, int b);
mn_tensor *mn_expand(mn_graph *g, mn_tensor *x, mn_shape s); /* broadcast to s */
mn_tensor *mn_slice(mn_graph *g, mn_tensor *x, int axis, int64_t start, int64_t len);
mn_tensor *mn_unsqueeze(mn_graph *g, mn_tensor *x, int axis);
mn_tensor *mn_squeeze(mn_graph *g, mn_tensor *x, int axis);

/* ---- moving data ---- */
mn_tensor *mn_concat(mn_graph *g, int n, mn_tensor *const *xs, int axis);
mn_tensor *mn_pad(mn_graph *g, mn_tensor *x, int axis, int64_t before, int64_t after); /* with zeros */
mn_tensor *mn_copy(mn_graph *g, mn_tensor *x);                                         /* made contiguous */
/* take: x[b..., S, r...], idx i32 [b..., t...] -> [b..., t..., r...]; the first `batch_dims` axes are shared.
 * An index outside [0, S) gives zeros. batch_dims = 0 is an embedding look-up. */
mn_tensor *mn_take(mn_graph *g, mn_tensor *x, mn_tensor *idx, int batch_dims);
/* put: a copy of base[b..., S, r...] with rows idx[b..., t] set to (or, with add, increased by) upd[b..., t, r...].
 * An index outside [0, S) is dropped. Without add the indices of a batch must differ. */
mn_tensor *mn_put(mn_graph *g, mn_tensor *base, mn_tensor *idx, mn_tensor *upd, int batch_dims, bool add);
/* indices (i32) of the k largest along the last axis, in falling order; ties: lower index first. */
mn_tensor *mn_topk(mn_graph *g, mn_tensor *x, int64_t k);

/* ---- reductions ---- axes is a bit mask; reduced axes stay with size 1. */
typedef enum mn_reduce_code { MN_REDUCE_SUM, MN_REDUCE_MAX } mn_reduce_code;
mn_tensor *mn_sum(mn_graph *g, mn_tensor *x, unsigned axes);
mn_tensor *mn_max(mn_graph *g, mn_tensor *x, unsigned axes);
mn_tensor *mn_mean(mn_graph *g, mn_tensor *x, unsigned axes);
mn_tensor *mn_argmax(mn_graph *g, mn_tensor *x);             /* along the last axis, i32, axis dropped; lowest on ties */
mn_tensor *mn_sum_to(mn_graph *g, mn_tensor *x, mn_shape s); /* the adjoint of broadcasting s to x */
mn_tensor *mn_sumsq(mn_graph *g, mn_tensor *x);              /* sum of squares of all elements: f32 (f64) scalar */
/* y_t = sum of x_i over i <= t (i >= t when reverse) along the axis. */
mn_tensor *mn_cumsum(mn_graph *g, mn_tensor *x, int axis, bool reverse);

/* ---- products ---- a[..., M, K] x b[..., K, N] -> [..., M, N]; batch axes broadcast. Sums in at least f32. */
mn_tensor *mn_matmul(mn_graph *g, mn_tensor *a, mn_tensor *b);
mn_tensor *mn_matmul_as(mn_graph *g, mn_tensor *a, mn_tensor *b, mn_dtype out); /* bf16 operands, f32 result ... */

/* ---- scan: time is a loop -------------------------------------------------------------------------------------
 * Body inputs, in order: n_carry carries, n_xs slices (the outer tensor without its first axis), then constants.
 * Body outputs, in order: the new carries, then n_ys values stacked along a new first axis.
 * A tensor of an enclosing graph may be used in a body as it is: it is captured as a constant.
 * With a live length n (i32 scalar; below 0 is 0, above `length` is `length`) only the steps of rows 0 .. n-1 run: `length` is how
 * much room there is, n how much of it is used. The carries stay as the last live step left them, rows of ys beyond are zeros, and
 * what does not run costs nothing, in the gradient neither. A loop of length 1 and live length 0 or 1 is a condition. */
typedef struct mn_scan_attr {
  mn_graph *body;
  int n_carry, n_xs, n_const, n_ys;
  int64_t length;
  bool settled;         /* the compiler has moved out of the body what need not be done at every step */
  bool has_live;        /* the node's last input, after the constants, is the live length */
  bool reverse;         /* runs from the last slice to the first; ys stay in place */
  mn_tensor **body_in;  /* n_carry + n_xs + n_const */
  mn_tensor **body_out; /* n_carry + n_ys           */
  int64_t save_every;   /* s > 0: after the ys, n_carry more outputs [ceil(length/s), ...] hold the carries with which
                              the steps of each segment [j*s, (j+1)*s) are entered (asked for by the gradient); zeros for
                              segments without a live step */
} mn_scan_attr;

typedef struct mn_scan_builder mn_scan_builder;
/* Opens a loop of `length` steps. carries: initial values; xs: tensors whose first axis is `length`. After the call,
 * the body's own inputs are in carry_in[] and x_in[] (caller's arrays). Build the body in mn_scan_body(b). */
mn_scan_builder *mn_scan_begin(mn_graph *g, int64_t length, bool reverse, int n_carry, mn_tensor *const *carries, int n_xs,
                               mn_tensor *const *xs, mn_tensor **carry_in, mn_tensor **x_in);
mn_graph *mn_scan_body(mn_scan_builder *b);
/* Gives the open loop a live length, a tensor of the outer graph (or of one that encloses it). */
void mn_scan_set_live(mn_scan_builder *b, mn_tensor *live);
/* Closes it. final[n_carry] and ys[n_ys] are tensors of the outer graph. */
void mn_scan_end(mn_scan_builder *b, mn_tensor *const *carry_out, int n_ys, mn_tensor *const *y_out, mn_tensor **final, mn_tensor **ys);
/* The body's view of an outer tensor (at any depth); body-local tensors are returned as they are. */
mn_tensor *mn_capture(mn_graph *body, mn_tensor *outer);

/* ---- gradients ---- (autodiff.c)
 * dxs[i] = sum_j d ys[j]/d xs[i] * dys[j]. dys[j] NULL means ones. dxs[i] is a zero tensor where nothing depends. The new
 * nodes are ordinary nodes: mn_grad of a gradient works. */
mn_status mn_grad(mn_graph *g, int n_ys, mn_tensor *const *ys, mn_tensor *const *dys, int n_xs, mn_tensor *const *xs, mn_tensor **dxs);
/* Rebuilds, in `to`, the nodes that `outs` of graph `from` need; map: pairs (from tensor -> to tensor) given first. */
mn_status mn_graph_inline(mn_graph *to, int n_map, mn_tensor *const *map_from, mn_tensor *const *map_to, int n_outs, mn_tensor *const *outs,
                          mn_tensor **outs_in_to);

/* ---- fused operations (one file each: shape rule, composition, gradient) ---- */
typedef enum mn_norm_kind { MN_NORM_RMS, MN_NORM_LAYER, MN_NORM_L2 } mn_norm_kind;
/* Over the last axis. RMS: x*rsqrt(mean x^2 + eps)*weight. LAYER: (x-mean)*rsqrt(var+eps)*weight + bias.
 * L2: x*rsqrt(sum x^2 + eps). weight, bias [D] (f32 or f64) or NULL. Inner arithmetic f32 (f64). Output type `out`. */
mn_tensor *mn_norm(mn_graph *g, mn_norm_kind kind, mn_tensor *x, mn_tensor *weight, mn_tensor *bias, double eps, mn_dtype out);
mn_tensor *mn_softmax(mn_graph *g, mn_tensor *x); /* last axis */

/* Rotary position embedding, Su et al. 2021: x[B,T,H,K], cos/sin tables f32 [T or B,T, K/2] at the tokens' positions.
 * interleaved: pairs (2i, 2i+1); else halves (i, i+K/2) as in Hugging Face Llama. */
mn_tensor *mn_rope(mn_graph *g, mn_tensor *x, mn_tensor *cos, mn_tensor *sin, bool interleaved);

/* Softmax attention. q[B,T,H,K], k[B,S,G,K], v[B,S,G,V], G divides H -> o[B,T,H,V], lse f32 [B,H,T].
 * Where keys are: key j at k_pos[b,j] (i32 [B,S]; a negative position is an empty slot) or, without k_pos, at j - prefix. With
 * length (i32 [B]) keys j with j - prefix >= length[b] are not there. With `ring` the slots after the prefix are a cache into which
 * length[b] tokens have been written, one after the other: the first `sinks` of them into the first slots, the others in turn into the
 * R = S - prefix - sinks slots of a ring, so that a slot holds the latest of its tokens; cost follows what is filled, not S.
 * Where queries are: query t at q_pos[b] + t (i32 [B]) or at q_pos[b,t] (i32 [B,T], any order); NULL: q_start + t.
 * The first `prefix` keys are visible to all. Other keys are visible when they are there, (causal) k_pos <= q_pos, and (window > 0)
 * k_pos > q_pos - window or k_pos < sinks. Without causal, T and S of any relation: cross-attention, encoders. bias (f32, broadcasts to
 * [B,H,T,S]) or NULL is added to the scores. Patterns: with blocks (i32 [B or 1, H or 1, ceil(T / block_q), n], constant or computed)
 * queries of block i see, of the keys after the prefix, only those of the n blocks of block_k keys that blocks[b,h,i] lists (in any
 * order; a number that is none of a block lists nothing; twice is once): what is not listed costs nothing. A query that sees nothing gives zeros and lse = -inf.
 * By distance: with by_distance (f32, [H,N]; instead of a bias) the score of a key after the prefix gets by_distance[h, i], i = q_pos -
 * k_pos + distance_zero, at least 0 and at most N - 1. No [T,S] is made of it, in its gradient neither. gate: see mn_gated_attention. */
MN_ATTRS_BEGIN
typedef struct mn_attention_attr {
  double scale;
  int64_t window, prefix, sinks, q_start;
  int64_t block_q, block_k; /* with blocks */
  int64_t distance_zero;    /* with by_distance */
  int64_t gate;             /* keys of a gated block, the last one the gate; 0: none. With causal and q_start alone */
  bool causal, ring;
  bool has_q_pos, has_k_pos, has_length, has_blocks, has_bias, by_distance; /* set by the builder; of the last two one */
} mn_attention_attr;
MN_ATTRS_END
typedef struct mn_attention_io {
  mn_tensor *q, *k, *v;                                            /* in */
  mn_tensor *q_pos, *k_pos, *length, *blocks, *bias, *by_distance; /* in, or NULL */
  mn_tensor *o, *lse;                                              /* out; NULL when a fault is set */
} mn_attention_io;
void mn_attend(mn_graph *g, mn_attention_io *io, mn_attention_attr attr);
/* Two-level softmax (Landmark Attention, Mohtashami & Jaggi 2023, arXiv 2305.16300): keys lie in blocks of `block` whose last one is the
 * block's gate. A query at t sees the keys of its own block up to t and the gates of the blocks before it in one softmax, and what a
 * gate gets is shared out among its block by a softmax over the block's other keys; a gate's value is never read. q [B,T,H,K],
 * k [B,S,G,K], v [B,S,G,V] (S a multiple of block; query t is at q_start + t) -> o [B,T,H,V]. A query without any key gives zeros. */
mn_tensor *mn_gated_attention(mn_graph *g, mn_tensor *q, mn_tensor *k, mn_tensor *v, double scale, int64_t block, int64_t q_start);
/* mn_attend where all keys are there; lse may be NULL. */
mn_tensor *mn_attention(mn_graph *g, mn_tensor *q, mn_tensor *k, mn_tensor *v, mn_tensor *q_pos, mn_tensor *k_pos, mn_tensor *bias,
                        mn_attention_attr attr, mn_tensor **lse);

/* Mean-free cross-entropy of a projection: logits = h[N,D] W[vocab,D]^T are never kept. target i32 [N] (negative:
 * ignored), weight f32 [N] or NULL (ones). loss = sum_i weight_i * nll_i, a scalar; nll f32 [N] (0 where ignored). h and W
 * are of one type, or h is bf16 and W f32, which is then rounded to bf16 before it is multiplied and never copied. */
mn_tensor *mn_linear_cross_entropy(mn_graph *g, mn_tensor *h, mn_tensor *w, mn_tensor *target, mn_tensor *weight, mn_tensor **nll);

/* Causal depthwise convolution over time: x[B,T,D], w[D,W], prefix[B,W-1,D] (the inputs before x; NULL: zeros) -> y[B,T,D];
 * y_t = sum_j w[:,j] * x_{t-W+1+j}. */
mn_tensor *mn_causal_conv(mn_graph *g, mn_tensor *x, mn_tensor *w, mn_tensor *bias, mn_tensor *prefix);

/* ((x y^T) * p) z for x[...,M,K], y[...,N,K], p[...,M,N], z[...,N,V] -> [...,M,V]: attention without softmax. */
mn_tensor *mn_masked_product(mn_graph *g, mn_tensor *x, mn_tensor *y, mn_tensor *p, mn_tensor *z);

/* The chunked linear recurrence: the shared core of linear memories. Per batch and head, a matrix state W[K,V] (and
 * momentum S[K,V]) is written by rank-one updates and read by queries:
 *     S_t = eta_t S_{t-1} + beta_t k_t u_t^T                         (momentum; without it S_t = beta_t k_t u_t^T)
 *     W_t = diag(a_t) W_{t-1} + S_t                                  (a_t = exp(log_a_t): one number per head, or one per key channel)
 *     o_t = W_t^T q_t   (after)   or   W_{t-1}^T q_t   (before)
 * where the written value is
 *     MN_WRITE_VALUE    u_t = v_t                                     (linear attention, RetNet, GLA, HGRN2, Mamba-2, Aaren)
 *     MN_WRITE_ANCHOR   u_t = v_t - W_anchor^T k_t, anchor = state before the current chunk    (Titans)
 *     MN_WRITE_DELTA    u_t = v_t - W_{t-1}^T (a_t * k_t)             (DeltaNet, Gated DeltaNet, Kimi Delta Attention)
 *     MN_WRITE_ERASE    u_t = v_t, and what the probe f_t reads is taken away along e_t (no momentum):
 *                       W_t = diag(a_t) W_{t-1} - e_t (f_t^T W_{t-1}) + beta_t k_t v_t^T               (RWKV-7)
 * ERASE is the general form. The probe reads the state before it decays, so DELTA is e = beta k, f = a * k; RWKV-7's
 * S (diag(w) - kappa^T (a * kappa)) + v^T k is, transposed, f = kappa, e = a * kappa. DELTA needs no second pair of vectors
 * and is faster.
 * q, k and (ERASE) erase, probe [B,T,H,K] or, shared by H/G heads each, [B,T,G,K]: head h reads group h / (H/G). v [B,T,H,V].
 * beta [B,T,H] or NULL (1); log_a [B,T,H] or [B,T,H,K] or NULL (no decay); log_eta [B,T,H] or NULL (no momentum); logs <= 0.
 * W0, S0, A0 [B,H,K,V] (S0 only with momentum; A0, the anchor's value, only with ANCHOR); phase i32 [B] or NULL (0): how many
 * tokens of the current chunk lie before this segment. chunk, at least 1, is part of the meaning of ANCHOR and only a speed knob of
 * the others (64 does). With grad_clamp m > 0 (ANCHOR only) what a token writes, k u^T, keeps its direction and its norm n becomes
 * m tanh(n/m), n^2 = |k|^2 |u|^2 + 1e-12. Arithmetic and state are f32 (f64), W0's type. Each operand may have a type of its own:
 * q, k, v the compute type or f32; logs and gates f32, as a rounded decay is another decay. Returns o [B,T,H,V] in v's type; the final
 * W, S, A. */
typedef enum mn_write_rule { MN_WRITE_VALUE, MN_WRITE_ANCHOR, MN_WRITE_DELTA, MN_WRITE_ERASE } mn_write_rule;
MN_ATTRS_BEGIN
typedef struct mn_recurrence_attr {
  mn_write_rule write;
  bool momentum, decay, by_channel, read_before, has_phase; /* but for read_before, set from the operands */
  uint8_t unused[7];
  int64_t chunk;
  double grad_clamp; /* ANCHOR: m; 0: off */
} mn_recurrence_attr;
MN_ATTRS_END
typedef struct mn_recurrence_io {
  mn_tensor *q, *k, *v, *beta, *log_a, *log_eta, *erase, *probe, *w0, *s0, *a0, *phase; /* in  */
  mn_tensor *o, *w, *s, *a;                                                             /* out */
} mn_recurrence_io;
void mn_linear_recurrence(mn_graph *g, mn_recurrence_io *io, mn_recurrence_attr attr);

/* AdamW (Loshchilov & Hutter 2019), one tensor: p, g, m, v (same shape); scalars f32 [5] =
 * {lr, beta1-correction 1-b1^t, beta2-correction 1-b2^t, gradient scale, weight decay factor of this tensor}. */
MN_ATTRS_BEGIN
typedef struct mn_adamw_attr {
  double beta1, beta2, eps;
} mn_adamw_attr;
MN_ATTRS_END
void mn_adamw(mn_graph *g, mn_tensor *p, mn_tensor *grad, mn_tensor *m, mn_tensor *v, mn_tensor *scalars, mn_adamw_attr attr,
              mn_tensor **p1, mn_tensor **m1, mn_tensor **v1);

#endif
