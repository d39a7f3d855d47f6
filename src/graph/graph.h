/* graph.h - the graph: typed tensors of static shape, made by operations, in one arena.
 *
 * Building never computes. Builders return NULL and make the graph's status sticky when shapes or types do not fit, and
 * pass NULL through, so a model is written without a check on every line and checked once with mn_graph_status().
 *
 * Every operation is one of three:
 *   core   it has a meaning of its own (element-wise, reductions, matmul, take/put, views, scan ...) and a kernel on
 *          every backend;
 *   fused  a composition of core operations that also has faster kernels. The composition is its meaning, its oracle, its
 *          fallback, and its path when it is differentiated again. Each has a header of its own, beside its file;
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

/* What an operation that is run at every step of a loop would be for all steps at once, where it has such a meaning: work that need not be
 * done step by step leaves loops by it. A stack has the steps along its first axis: [length, ...]. Of element-wise operations the
 * compiler knows as much. */
typedef struct mn_over_steps {
  unsigned same; /* mask of operands that must be the same at every step, and are handed over as they are, not stacked */
  /* n's result of all steps, from its operands of all steps. */
  mn_tensor *(*all)(mn_graph *g, const mn_node *n, mn_tensor *const *in, int64_t length);
  bool product; /* many rows of it cost less than as many times few */
  /* Its sum over the steps without its results, from its operands of all steps, added up in `type`; `depth` tells over how many rows one
   * step's result is a sum already (a sum over all pays where they are few), 0: this one cannot. NULL, both: none can. */
  mn_tensor *(*total)(mn_graph *g, const mn_node *n, mn_tensor *const *in, mn_dtype type);
  int64_t (*depth)(const mn_node *n);
  /* It moves numbers and no more: a sum over steps of its results is it of the sum x of its operand. NULL: it does more. */
  mn_tensor *(*of)(mn_graph *g, const mn_node *n, mn_tensor *x);
} mn_over_steps;

/* What an operation is to those who look at it from outside, such as the passes of the compiler, which never ask which one it is. Its
 * attributes are then of the type that stands beside. */
typedef enum mn_op_trait {
  MN_IS_CONST = 1,            /* a value that is known (mn_const_attr)             */
  MN_IS_LOOP = 2,             /* it runs a body of its own (mn_scan_attr)          */
  MN_IS_PROGRAM = 4,          /* element-wise operations in one (mn_ew_attr)       */
  MN_IS_COPY = 8,             /* the same values elsewhere                         */
  MN_IS_DRAWN = 16,           /* random numbers (mn_random_attr)                   */
  MN_IS_PRODUCT = 32,         /* of matrices ...                                  */
  MN_IS_SCALED = 64,          /* ... and a number (mn_scaled_product_attr)         */
  MN_IS_STORED_PRODUCT = 128, /* with matrices in types of storage        */
  MN_RESHAPES = 256,          /* a view of the same elements in another shape      */
  MN_PERMUTES = 512           /* a view with its axes in another order             */
} mn_op_trait;

struct mn_op {
  const char *name;
  mn_op_class cls;
  unsigned traits;  /* of mn_op_trait */
  size_t attr_size; /* of a type without padding, see MN_ATTRS_BEGIN; `distinct` operations are not compared */
  /* How many of its first bytes are in use: a node keeps no more. NULL: all. Ask mn_attr_bytes. */
  size_t (*attr_used)(const void *attr);
  int code; /* element-wise: mn_ew_code; reductions: mn_reduce_code; else 0 */
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
  const mn_over_steps *steps; /* NULL: it has no meaning for all steps of a loop at once, unless it is element-wise */
  unsigned stored;            /* mask of operands that may be of a type of storage (types.h); bit 31 stands for all from the 31st on */
  /* Does it do the same to each slice along `axis` of its results, apart from the other slices? Then in_axis[i] is the axis of operand i
   * that goes with it, -1 where all of that operand is read. NULL: it does not, unless it is element-wise. */
  bool (*slices)(const mn_node *n, int axis, int *in_axis);
};

static inline bool mn_is(const mn_node *n, unsigned traits) { return (n->op->traits & traits) != 0; } /* any of them */

/* Bytes of attr as a node of op keeps it. */
static inline size_t mn_attr_bytes(const mn_op *op, const void *attr) {
  return attr && op->attr_used ? op->attr_used(attr) : op->attr_size;
}
/* What tells n apart from another application of its operation to the same operands; NULL: everything. */
static inline const void *mn_identity_of(const mn_node *n, size_t *bytes) {
  *bytes = mn_attr_bytes(n->op, n->attr);
  return n->op->identity ? n->op->identity(n, bytes) : *bytes ? n->attr : "";
}

/* ---- graphs ---------------------------------------------------------------------------------------------------- */
struct mn_graph {
  mn_arena *arena;
  mn_status status; /* sticky */
  char *message;    /* of the first fault */
  mn_node **nodes;
  int n_nodes, cap_nodes;
  int phase;                           /* stamped on new nodes */
  bool mute;                           /* stamped on new nodes */
  int64_t keep_bytes;                  /* room that is left for what gradients of loops need of every step: a loop that fits takes it */
  bool effects;                        /* a node has an effect, perhaps in a loop's body */
  struct mn_reversed *reversed;        /* loops that the call of mn_grad which goes on has differentiated (loops_alike.h) */
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
/* What builders may ask of a tensor that a fault has made NULL: */
int64_t mn_dim(const mn_tensor *t, int axis); /* negative axes count from the end; 0 when t is NULL */
static inline int mn_ndim(const mn_tensor *t) { return t ? t->shape.ndim : 0; }
static inline mn_dtype mn_type(const mn_tensor *t) { return t ? t->dtype : MN_F32; }
static inline mn_shape mn_shape_as(const mn_tensor *t) { return t ? t->shape : (mn_shape){0}; }
bool mn_node_has_effect(const mn_node *n); /* of its own, or in its body */

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

/* Along an axis: from its first element on, or from its last one back. */
typedef enum mn_direction { MN_FORWARD, MN_BACKWARD } mn_direction;

/* ---- element-wise: operands broadcast as in NumPy; types must agree (cast explicitly) ---- */
#define MN_EW_UNARY(X)                                                                                                                     \
  X(NEG, neg)                                                                                                                              \
  X(ABS, abs)                                                                                                                              \
  X(SIGN, sign)                                                                                                                            \
  X(SQRT, sqrt)                                                                                                                            \
  X(RSQRT, rsqrt)                                                                                                                          \
  X(RECIP, recip)                                                                                                                          \
  X(EXP, exp)                                                                                                                              \
  X(LOG, log)                                                                                                                              \
  X(LOG1P, log1p)                                                                                                                          \
  X(SIN, sin)                                                                                                                              \
  X(COS, cos)                                                                                                                              \
  X(TANH, tanh)                                                                                                                            \
  X(SIGMOID, sigmoid)                                                                                                                      \
  X(ERF, erf) X(FLOOR, floor) X(NOT, not ) X(SOFTPLUS, softplus) X(SILU, silu) X(SILU_SLOPE, silu_slope) X(NORMAL_CDF, normal_cdf)         \
      X(NORMAL_PDF, normal_pdf)
#define MN_EW_BINARY(X)                                                                                                                    \
  X(ADD, add)                                                                                                                              \
  X(SUB, sub)                                                                                                                              \
  X(MUL, mul)                                                                                                                              \
  X(DIV, div) X(MAXIMUM, maximum) X(MINIMUM, minimum) X(POW, pow) X(MOD, mod) X(LT, lt) X(LE, le) X(EQ, eq) X(AND, and) X(OR, or)
/* mn_neg(g, x), mn_exp(g, x), mn_sigmoid(g, x), ...; mn_add(g, a, b), mn_mul(g, a, b), ...: one function for each name above.
 * sign(0)=0; softplus(x) = log(1 + exp(x)), stable; silu(x) = x sigmoid(x), silu_slope its derivative; normal_cdf and
 * normal_pdf are Phi and phi of the standard normal distribution, within 2^-23 of 1 in f32; mod is floored, with the sign of the divisor; comparisons, AND, OR, NOT give bool. */
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
mn_tensor *mn_gelu(mn_graph *g, mn_tensor *x);       /* x Phi(x) */
mn_tensor *mn_gelu_slope(mn_graph *g, mn_tensor *x); /* its derivative, Phi(x) + x phi(x) */
mn_tensor *mn_gelu_tanh(mn_graph *g, mn_tensor *x);  /* tanh approximation */
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
/* put: a copy of base[b..., S, r...] with rows idx[b..., t] set to, or increased by, upd[b..., t, r...].
 * An index outside [0, S) is dropped. Indices of a batch that are set must differ. */
typedef enum mn_put_how { MN_PUT_SET, MN_PUT_ADD } mn_put_how;
mn_tensor *mn_put(mn_graph *g, mn_tensor *base, mn_tensor *idx, mn_tensor *upd, int batch_dims, mn_put_how how);
/* indices (i32) of the k largest along the last axis, in falling order; ties: lower index first. */
mn_tensor *mn_topk(mn_graph *g, mn_tensor *x, int64_t k);

/* ---- reductions ---- axes: MN_AXIS(1) | MN_AXIS(3), or mn_last_axis(x); reduced axes stay with size 1. */
#define MN_AXIS(i)  (1u << (i))
#define MN_ALL_AXES (~0u)
static inline unsigned mn_last_axis(const mn_tensor *x) { return x && x->shape.ndim ? MN_AXIS(x->shape.ndim - 1) : 0; }
typedef enum mn_reduce_code { MN_REDUCE_SUM, MN_REDUCE_MAX } mn_reduce_code;
mn_tensor *mn_sum(mn_graph *g, mn_tensor *x, unsigned axes);
mn_tensor *mn_max(mn_graph *g, mn_tensor *x, unsigned axes);
mn_tensor *mn_mean(mn_graph *g, mn_tensor *x, unsigned axes);
mn_tensor *mn_argmax(mn_graph *g, mn_tensor *x);             /* along the last axis, i32, axis dropped; lowest on ties */
mn_tensor *mn_sum_to(mn_graph *g, mn_tensor *x, mn_shape s); /* the adjoint of broadcasting s to x */
mn_tensor *mn_sumsq(mn_graph *g, mn_tensor *x);              /* sum of squares of all elements: f32 (f64) scalar */
/* y_t = sum of x_i over i <= t (backward: i >= t) along the axis. */
mn_tensor *mn_cumsum(mn_graph *g, mn_tensor *x, int axis, mn_direction direction);

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
mn_scan_builder *mn_scan_begin(mn_graph *g, int64_t length, mn_direction direction, int n_carry, mn_tensor *const *carries, int n_xs,
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

#endif
