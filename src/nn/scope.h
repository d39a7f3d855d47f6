/* scope.h - where a model is built: a graph, a place in the tree of names, and what a model is made of besides
 * operations - parameters, state, position, buffers, named inputs, losses, reports, chance.
 *
 * The contract of everything above (mixer, block, model) is one function: a segment in, a segment out,
 *     y[B,T,...] = apply(scope, config, x[B,T,...])
 * State is an effect of the scope: mn_state() gives its value before the segment, mn_state_set() the value after. The
 * scope decides what that means: a fresh stream (training) starts from the initial value; a stream that goes on reads
 * variables and assigns them; inside mn_scope_loop the state is carried by the loop. So the same apply function trains,
 * prefills, decodes, and can be wrapped whole by another model. */
#ifndef MN_SCOPE_H
#define MN_SCOPE_H

#include "graph/graph.h"

/* ---- parameters: declared where they are used ---- */
typedef enum mn_init_kind {
  MN_INIT_CONSTANT,       /* a                                               */
  MN_INIT_NORMAL,         /* N(0, a^2)                                       */
  MN_INIT_UNIFORM,        /* U(-a, a)                                        */
  MN_INIT_XAVIER_UNIFORM, /* U(-g, g), g = a sqrt(6 / (fan_in + fan_out)), of the last two axes (Glorot & Bengio 2010) */
  MN_INIT_LOG_UNIFORM,    /* log U(a, b)                                     */
  MN_INIT_TIME_STEP       /* x with softplus(x) = exp U(log a, log b): Mamba's dt bias (Gu & Dao 2023) */
} mn_init_kind;
typedef struct mn_init {
  mn_init_kind kind;
  double a, b;
} mn_init;
#define MN_ZEROS       ((mn_init){MN_INIT_CONSTANT, 0, 0})
#define MN_ONES        ((mn_init){MN_INIT_CONSTANT, 1, 0})
#define MN_NORMAL(std) ((mn_init){MN_INIT_NORMAL, std, 0})

enum {
  MN_PARAM_NO_DECAY = 1, /* weight decay does not apply: norms, biases   */
  MN_PARAM_MATRIX = 2,   /* a hidden weight matrix: Muon applies         */
  MN_PARAM_FROZEN = 4,   /* does not train, unless a group of the recipe says so */
  MN_PARAM_STORED = 8    /* only products, rows and casts read it: it may be kept in a type of storage (graph/stored.h) */
};

typedef struct mn_param_info {
  const char *name; /* "layers.0.mixer.q_proj.weight" */
  mn_shape shape;
  mn_init init;
  unsigned flags;
  const char *help;
  const char *copy; /* a name under which a file may hold the same values again; NULL: none */
} mn_param_info;

typedef struct mn_buffer_info {
  const char *name; /* "layers.0.norm.mean" */
  mn_dtype dtype;
  mn_shape shape;
  double init; /* every element's value at the start */
  const char *help;
} mn_buffer_info;

typedef struct mn_feed_info {
  const char *name; /* "tokens" */
  mn_dtype dtype;
  mn_shape shape;
  const char *help;
} mn_feed_info;

typedef struct mn_state_info {
  const char *name; /* "layers.0.mixer.k" */
  mn_dtype dtype;
  mn_shape shape; /* first axis: batch */
  const char *help;
  int64_t appended; /* 0, or of a cache that is only appended to, axis 1: one more than the row of position 0 (mn_state_appended) */
  int64_t ring;     /* the same of a window's, whose rows are overwritten once all have been written (mn_state_ring) */
} mn_state_info;

/* ---- scopes ---- */
typedef struct mn_scope mn_scope;

typedef struct mn_param_types { /* of parameters that are not all of one type, as those of a file of blocks */
  mn_dtype (*of)(const void *ctx, const char *name, mn_dtype otherwise);
  const void *ctx;
} mn_param_types;

typedef struct mn_build {    /* how a model is built */
  mn_dtype param;            /* type of the parameters' memory: f32, bf16 or f64                */
  mn_param_types types;      /* of NULL: all have that type                                     */
  bool exact_products;       /* products with weights that are kept in blocks are of activations in f32, never of fewer bits */
  mn_dtype compute;          /* type of activations in products: f32, bf16 or f64               */
  mn_dtype exact;            /* of residuals, norms, states: f64, or left at 0: f64 with parameters in f64, else f32 */
  bool carried;              /* state and position come from variables and are assigned         */
  int64_t position_multiple; /* carried: every position at a segment's start is a multiple of it; 0: 1 */
  mn_tensor *reset;          /* carried: bool [B], rows that begin a stream here and so start from the initial state; NULL: none */
  mn_tensor *length;         /* i32 [B], how many tokens of each row's segment count: what lies beyond writes nothing; NULL: all */
  bool forget;               /* a stream may outgrow its limit (mn_scope_limit): the oldest tokens are forgotten */
  mn_dtype cache;            /* carried: what caches of attention are kept in (base/narrow.h); f32: as they are computed */
  bool training;             /* dropout drops, buffers are assigned; false: evaluation */
  uint64_t seed;             /* of everything that is drawn while the model runs                */
  bool names_only;           /* built to learn what is declared, never run: numbers that would be worked out (scope_numbers.h) are zeros */
  mn_tensor *step;           /* i64 [], the training step: other steps draw other numbers; NULL: 0 */
} mn_build;

/* A root scope in graph g for batches of B sequences. Lives in the graph's arena. */
mn_scope *mn_scope_new(mn_graph *g, mn_build build, int64_t batch);
/* The scope below, e.g. ("layers.%d", i). Shares everything but the name. */
mn_scope *mn_scope_in(mn_scope *s, const char *fmt, ...) MN_PRINTF(2, 3);
/* How projections below this scope are made (linear.h), from here on; NULL: dense. Returns what held before. */
typedef struct mn_linear_rules mn_linear_rules;
const mn_linear_rules *mn_scope_set_linear(mn_scope *s, const mn_linear_rules *rules);
const mn_linear_rules *mn_scope_linear(const mn_scope *s);
mn_graph *mn_scope_graph(mn_scope *s); /* ask anew inside a loop: the body is a graph of its own */
int64_t mn_scope_batch(const mn_scope *s);
mn_dtype mn_scope_compute(const mn_scope *s); /* type of activations in products          */
mn_dtype mn_scope_exact(const mn_scope *s);   /* f32 (f64): residuals, norms, inner loops */
bool mn_scope_exact_products(const mn_scope *s);
bool mn_scope_training(const mn_scope *s);
/* What a cache of values of type t, rows of K, is kept in here: mn_build.cache in the model's own stream, where K is whole blocks; else t. */
mn_dtype mn_scope_cache(const mn_scope *s, mn_dtype t, int64_t K);
const char *mn_scope_path(const mn_scope *s);

/* ---- parameters and buffers ---- what is returned is the view of the graph where building happens, a loop's body too. */
/* The parameter `name` of this scope, in memory's type. Asked twice, it is the same tensor. */
mn_tensor *mn_param(mn_scope *s, const char *name, mn_shape shape, mn_init init, unsigned flags, const char *help);

/* The parameter `name` also stands where models of other programs have one called `copy`: a file may hold both, if they agree. */
void mn_param_copy(mn_scope *s, const char *name, const char *copy);

/* Memory without gradient that belongs to the model and is saved with it (running means, centroids). The value before this
 * segment; after mn_model_buffer_set, the value set. Setting has an effect in training only, from inside loops too. */
mn_tensor *mn_model_buffer(mn_scope *s, const char *name, mn_dtype dtype, mn_shape shape, double init, const char *help);
void mn_model_buffer_set(mn_scope *s, const char *name, mn_tensor *value);

/* ---- named tensors ---- */
/* A named input of the whole graph ("tokens"), bound by whoever runs it. The same name is the same tensor, of one type and shape. */
mn_tensor *mn_feed(mn_scope *s, const char *name, mn_dtype dtype, mn_shape shape, const char *help);
/* Hands a tensor to whoever is built later, under a plain name: layers above, a head. A later one of that name takes its place.
 * What a loop's body shares is shared in that piece alone. */
void mn_share(mn_scope *s, const char *name, mn_tensor *t);
mn_tensor *mn_shared(mn_scope *s, const char *name); /* NULL: nobody shared it */
/* Adds weight * value to what training makes small. value: a scalar. Losses of one name add up, those of a loop's pieces too. */
void mn_loss(mn_scope *s, const char *name, mn_tensor *value, double weight);
/* Optional results for whoever asks (e.g. "surprise" [B,T]): kept by name, dropped when nobody reads them. Of a loop's pieces,
 * those that begin with [B, tokens of the piece] are joined along time, others stacked along a new first axis. */
void mn_report(mn_scope *s, const char *name, mn_tensor *value);

/* ---- state ---- */
/* The state `name` before this segment. `init` is its value in a fresh stream, [B, ...]; NULL: zeros. */
mn_tensor *mn_state(mn_scope *s, const char *name, mn_dtype dtype, mn_shape shape, mn_tensor *init, const char *help);
void mn_state_set(mn_scope *s, const char *name, mn_tensor *value);
/* The same with a start that is built only where it is needed: a learned one. */
typedef mn_tensor *(*mn_state_start)(mn_scope *s, const void *ctx);
mn_tensor *mn_state_from(mn_scope *s, const char *name, mn_dtype dtype, mn_shape shape, mn_state_start start, const void *ctx,
                         const char *help);

/* The state, of axes [B, rows, ...] and zeros at first, is a cache whose row `first` + p is written when its stream's token p is read and never again, as long
 * as nothing is forgotten; rows of later tokens are not looked at, and those before `first` need not be kept. So a stream goes back to
 * position p by saying so. Of a call with a stream of its own this is not noted: its position is not the model's. */
void mn_state_appended(mn_scope *s, const char *name, int64_t first);
/* The same of a cache that turns over: row `first` + p is written by token p until there are no more rows, then all of them may be. What no
 * token has written is zeros. */
void mn_state_ring(mn_scope *s, const char *name, int64_t first);

/* After everything is built: rows that are true (bool [B]) begin anew after this segment, position and states of the stream and of what
 * it calls, but for the states that last. */
void mn_scope_restart(mn_scope *s, mn_tensor *rows, bool (*lasts)(const char *state));

/* Tokens of each stream before this segment: i32 [B]; NULL when it is 0 for all, known at building time. */
mn_tensor *mn_scope_position(mn_scope *s);
/* Must state be kept for a later segment (a carried build, or inside a loop)? A mixer that needs none within one segment may
 * skip it otherwise. */
bool mn_scope_is_stream(const mn_scope *s);
/* Is every position at the start of this segment known to be a multiple of n? */
bool mn_scope_aligned(const mn_scope *s, int64_t n);
/* The least common multiple of all that was asked of mn_scope_aligned, whatever the answer: a stream whose segments begin at its
 * multiples, and says so, has all the answers it can have. 1: nobody asked. It is a hint: what is not known is never assumed. */
int64_t mn_scope_alignment(const mn_scope *s);

/* ---- calls ---- a model or a mixer inside another, any number of times. Calling twice is calling twice: the parameters are the
 * same, states, reports and chance are each call's own (those of the second below `call2`, or `name-2`). Of a loop's pieces, the
 * n-th call is the same call in each. */
typedef struct mn_call_options { /* zeros: goes on from call to call (piece to piece, segment to segment), as its caller does */
  const char *params;            /* where its parameters live, from the root ("teacher"; "" the root itself); NULL: at its name */
  bool fresh;                    /* begins a stream each time: states start at their initial values and are kept by nobody */
  mn_tensor *reset;              /* bool [batch], rows that begin a stream here; NULL: none. With a batch of its own in a build or call
                             * that resets rows, it must be given. Not for fresh calls. */
  mn_tensor *length;             /* i32 [batch], how many tokens of each row count; NULL: all */
  int64_t batch;                 /* 0: the caller's                                                  */
  int64_t position_multiple;     /* its position is a multiple of it at each call; 0: 1; fresh: it is 0 */
  bool again;                    /* goes on where the last call of this name stands, instead of calling a second time: what belongs
                                  * to one stream may come in several steps */
  int64_t longest;               /* its rows begin anew before they are longer: no cache needs more room, and no limit is a limit of
                                  * the caller's; 0: they may not */
} mn_call_options;
/* A call `name` below s with a stream of its own: position (mn_scope_advance moves it), state, batch. */
mn_scope *mn_scope_call(mn_scope *s, const char *name, mn_call_options how);
/* A model beside the one that is built, such as a teacher: its stream is a call's that goes on as s does, its states stand in s's list
 * below `name`; but parameters, buffers, losses and reports are its own, listed by the scope that is returned; its memory is of
 * the exact type and never trained. Not from inside a loop. */
mn_scope *mn_scope_beside(mn_scope *s, const char *name);
/* Once more the scope itself, in its caller's stream: position and batch are the caller's, states its own. What mn_mixer_apply does. */
mn_scope *mn_scope_again(mn_scope *s);
/* How long the scope's stream can become (longest); MN_LIMIT_NONE: nobody said. */
int64_t mn_scope_longest(const mn_scope *s);

/* ---- chance ---- drawn from (seed, path, name, step, piece of the loop, element): the same for any number of threads. The same
 * name in the same place is the same numbers. */
mn_tensor *mn_draw_uniform(mn_scope *s, const char *name, mn_shape shape); /* [0,1), exact type */
mn_tensor *mn_draw_normal(mn_scope *s, const char *name, mn_shape shape);  /* N(0,1), exact type */
/* In training each element is 0 with probability p, else x / (1 - p) (Srivastava et al. 2014); in evaluation x. */
mn_tensor *mn_dropout(mn_scope *s, const char *name, mn_tensor *x, double p);
/* Of a parameter (DropConnect, Wan et al. 2013; weight-dropped LSTM, Merity et al. 2018, arXiv 1708.02182): one draw a training step, the same at
 * every piece of a loop and in every call that shares the parameter. */
mn_tensor *mn_drop_weights(mn_scope *s, const char *name, mn_tensor *w, double p);
/* The same of x [B,T,...], one draw a step for a row: all its tokens lose the same elements (Gal & Ghahramani 2016, arXiv 1512.05287). */
mn_tensor *mn_dropout_locked(mn_scope *s, const char *name, mn_tensor *x, double p);
/* Dropout by whole rows of the batch: a residual branch is left out (stochastic depth, Huang et al. 2016). */
mn_tensor *mn_drop_path(mn_scope *s, const char *name, mn_tensor *x, double p);
/* x in a narrower type (f64, f32 -> bf16; f64 -> f32), rounded by chance (Gupta et al. 2015): in training one of the two numbers of
 * the type next to x, the farther from zero with probability (|x| - low) / (high - low), so that the mean of many roundings is x. In
 * evaluation the nearest one, ties to even. Nearest in training, too: what is beyond the type's largest number, and what is below its
 * least normal one (1.2e-38). A type that is not narrower is a cast. The gradient is a cast's: what arrives passes. Other types
 * than real numbers are MN_ERR_ARG. */
mn_tensor *mn_round_stochastic(mn_scope *s, const char *name, mn_tensor *x, mn_dtype dtype);
/* For each row of logits [..., N] a number from 0 to N-1, i32 [...], drawn with probability softmax(logits): argmax of logits plus
 * Gumbel noise. In evaluation as in training. A logit of -inf is never drawn beside a finite one; probabilities below about 1e-7 are
 * coarse, as the noise has 24 bits. No gradient flows. No axis, or no real numbers: MN_ERR_ARG. */
mn_tensor *mn_draw_categorical(mn_scope *s, const char *name, mn_tensor *logits);
/* The training step that numbers are drawn at (mn_build.step), i64 []; NULL: nobody gave one, and it counts as 0. */
mn_tensor *mn_scope_step(mn_scope *s);

/* ---- rows of different lengths ---- tokens at and beyond a row's length are padding: what they give is read by nobody, they write
 * nothing into a state, and the position does not move by them. A batch of such rows is the rows, each alone. */
mn_tensor *mn_scope_length(mn_scope *s); /* i32 [B], tokens of each row in this segment or piece; NULL: all */
/* From here on the rows of the scope's stream have these lengths, i32 [B]; NULL: as before. Of two that are said the lesser counts. */
void mn_scope_set_length(mn_scope *s, mn_tensor *length);
/* bool [B,T]: is the token within its row? NULL: all are. */
mn_tensor *mn_scope_live(mn_scope *s, int64_t T);
/* x [B,T,...] with `value` in place of padding, and no gradient from there; x itself where all count. A write strength of 0 and a
 * log-decay of 0 leave a memory as it is. */
mn_tensor *mn_scope_masked(mn_scope *s, mn_tensor *x, double value);
/* The last n tokens that count, of before [B,n,...] and then x [B,T,...]: what a convolution needs of the past. */
mn_tensor *mn_scope_last(mn_scope *s, mn_tensor *before, mn_tensor *x);

/* ---- how long a stream may be: what a cache without a window holds, declared where the cache is built ---- */
typedef struct mn_limit {
  int64_t tokens;     /* of a stream; MN_LIMIT_NONE: no cache ends            */
  const char *where;  /* "layers.0.mixer"; "" at the root                     */
  const char *key;    /* the setting that says so: "max_context"              */
  const char *remedy; /* "raise max_context or give the attention a window"  */
} mn_limit;
#define MN_LIMIT_NONE INT64_MAX
enum { MN_POSITION_MAX = INT32_MAX }; /* positions are i32: what no stream passes, limit or not */
/* From the token after `tokens` on, this place would have to forget. A segment longer than that is refused when it is built
 * (mn_scope_advance); whoever runs a stream asks mn_limit_check before each step. With mn_build.forget the oldest go. */
void mn_scope_limit(mn_scope *s, int64_t tokens, const char *key, const char *remedy);
/* The least of what was declared. Its texts live in the graph's arena. */
mn_limit mn_scope_limit_of(const mn_scope *s);
/* Do n more tokens fit into a stream of `position` tokens? MN_ERR_CONFIG: the message names place, key and remedy. */
mn_status mn_limit_check(const mn_limit *limit, bool forget, int64_t position, int64_t n);

/* ---- loops over time ---- */
/* Runs f over consecutive pieces of `length` tokens of in[i] [B,T,...] (a last shorter piece too). States below the scope, buffers
 * and the position go from one to the next; reports and losses come out. What f gives, [B,m,...] of each piece, is joined to
 * [B, sum of m, ...]. The graph does not grow with T. f is built up to three times and must declare the same each time: calls in it
 * count once. stop_every k > 0: gradients through the states stop at every k-th piece's start. */
typedef struct mn_loop {
  int64_t length, stop_every;
} mn_loop;
typedef void (*mn_loop_function)(mn_scope *s, void *ctx, mn_tensor *const *in, mn_tensor **out);
void mn_scope_loop_n(mn_scope *s, mn_loop how, mn_loop_function f, void *ctx, int n_in, mn_tensor *const *in, int n_out, mn_tensor **out);
/* f once, or not at all when flag (bool or i32 []) is 0, which then costs nothing: what is done at the end of a chunk, a segment or
 * a turn. States below the scope change, and results are what f gives; else states stay and results are `otherwise`, of the same
 * types and shapes. Reports and losses are zeros then. */
void mn_scope_when(mn_scope *s, mn_tensor *flag, mn_loop_function f, void *ctx, int n_in, mn_tensor *const *in, int n_out,
                   mn_tensor *const *otherwise, mn_tensor **out);
/* f for what it declares alone: parameters and states become known, as every form of a model must know the same ones, and nothing is
 * computed or changed. */
void mn_scope_foresee(mn_scope *s, mn_loop_function f, void *ctx, int n_in, mn_tensor *const *in, int n_out);
/* The loop of one tensor to one tensor. */
typedef mn_tensor *(*mn_segment_function)(mn_scope *s, void *ctx, mn_tensor *x);
mn_tensor *mn_scope_loop(mn_scope *s, int64_t length, mn_segment_function f, void *ctx, mn_tensor *x);

/* After everything is built: moves the position of the scope's stream on by T tokens (the business of who made the root or the
 * call; a model does it itself). Inside a loop over the stream it does nothing, as the loop carries the position: call it again
 * outside. */
void mn_scope_advance(mn_scope *s, int64_t T);

/* ---- what was built: lists in order of first use ---- */
int mn_scope_params(const mn_scope *s, const mn_param_info **info, mn_tensor *const **tensors);
typedef struct mn_built_state {
  mn_state_info info;
  mn_tensor *init;   /* value in a fresh stream; NULL: zeros of a cache in a type of its own */
  mn_tensor *leaf;   /* carried: the variable     */
  mn_tensor *before; /* what the segment begins with: init, leaf, or a choice of both by row */
  mn_tensor *value;  /* after the segment         */
  bool zeros;        /* a fresh stream's is zeros: init was not given */
} mn_built_state;
int mn_scope_states(const mn_scope *s, const mn_built_state **states); /* carried: "position" is the first */
int mn_scope_reports(const mn_scope *s, const char *const **names, mn_tensor *const **values);
typedef struct mn_built_buffer {
  mn_buffer_info info;
  mn_tensor *leaf;  /* the variable */
  mn_tensor *value; /* to assign to it; the leaf itself where nothing was set */
} mn_built_buffer;
int mn_scope_buffers(const mn_scope *s, const mn_built_buffer **buffers);
int mn_scope_feeds(const mn_scope *s, const mn_feed_info **info, mn_tensor *const **tensors);
typedef struct mn_built_loss {
  const char *name;
  mn_tensor *value; /* unweighted, exact type */
  double weight;
} mn_built_loss;
int mn_scope_losses(const mn_scope *s, const mn_built_loss **losses);
mn_tensor *mn_scope_total_loss(mn_scope *s); /* sum of weight * value; NULL: there is none */

#endif
