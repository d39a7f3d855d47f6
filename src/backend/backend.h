/* backend.h - what a backend is: memory, and a table of kernels keyed by operation and types. The graph above it sees
 * buffers and never assumes that it can dereference one. */
#ifndef MN_BACKEND_H
#define MN_BACKEND_H

#include "graph/graph.h"

typedef struct mn_view { /* a strided tensor in memory; strides in elements; 0 = broadcast */
  void *data;
  mn_dtype dtype;
  int ndim;
  int64_t dim[MN_MAX_DIMS];
  int64_t stride[MN_MAX_DIMS];
} mn_view;

typedef struct mn_backend mn_backend;
typedef struct mn_kernel mn_kernel;

enum { MN_KERNEL_MAX_IO = 64 };

typedef struct mn_call { /* everything one step of a plan needs; built once, run many times */
  const mn_kernel *kernel;
  const mn_node *node;
  const void *attr; /* node->attr */
  int n_in, n_out;
  mn_view *in, *out;
  uint64_t unread; /* mask of outputs that nobody reads and that have no memory: of those in kernel->optional only */
  void *workspace; /* kernel->workspace() bytes, 64-byte aligned, content undefined */
  void *state;     /* whatever kernel->prepare() made; freed by kernel->release() */
  mn_pool *pool;
  mn_backend *backend; /* whose kernel it is */
} mn_call;

/* What a kernel accepts of its inputs' layouts. Outputs are always dense row-major (an in-place output has the layout
 * of the input it overwrites, which then is dense too). */
typedef enum mn_layout_rule {
  MN_LAYOUT_DENSE,  /* dense row-major only                                        */
  MN_LAYOUT_ROWS,   /* last axis dense (stride 1), the others free                  */
  MN_LAYOUT_MATRIX, /* one of the last two axes dense, the others free              */
  MN_LAYOUT_ANY     /* any strides, broadcast (0) included                          */
} mn_layout_rule;

struct mn_kernel {
  const mn_op *op;
  const char *name; /* shown by inspect and profiles */
  mn_layout_rule layout;
  uint64_t optional;                 /* mask of outputs that it leaves out where call->unread has them: a gradient that nobody asks for */
  bool (*accepts)(const mn_node *n); /* types, attributes, sizes; NULL: all */
  /* State and workspace follow from attributes and views without their data, and no run changes the state: calls may share it. */
  bool alike;
  size_t (*workspace)(const mn_call *c); /* NULL: none. Called at compile time with views (data may be NULL)  */
  mn_status (*prepare)(mn_call *c);      /* NULL: nothing. May set c->state */
  void (*release)(mn_call *c);
  mn_status (*run)(mn_call *c);
};

struct mn_backend {
  const char *name;
  const char *isa; /* the instruction set that its kernels use, for people and for comparing runs; "": there is none to choose */
  const mn_kernel *const *kernels; /* of the kernels of an operation the first that accepts the node is taken */
  int n_kernels;
  bool sorted;          /* kernels of one operation lie together, operations by their addresses */
  mn_backend *fallback; /* asked next, but not for fused operations, which are lowered; NULL: none. Must share memory with this one. */
  void *(*alloc)(mn_backend *b, size_t bytes);
  void (*free)(mn_backend *b, void *p, size_t bytes);
  mn_status (*upload)(mn_backend *b, void *dst, const void *host, size_t bytes);
  mn_status (*download)(mn_backend *b, void *host, const void *src, size_t bytes);
  mn_status (*copy)(mn_backend *b, void *dst, const void *src, size_t bytes); /* inside the backend's memory */
  /* From the memory of another backend, which it knows: true in *done. NULL, or false: it does not, and mn_backend_transfer goes through
   * the host. It begins when everything that was asked of both has happened. */
  mn_status (*receive)(mn_backend *b, void *dst, mn_backend *from, const void *src, size_t bytes, bool *done);
  mn_status (*zero)(mn_backend *b, void *dst, size_t bytes);
  mn_status (*sync)(mn_backend *b); /* everything asked for has happened: runs, copies. Downloads wait for it by themselves */
  mn_pool *pool;
  bool fuse_elementwise;
  bool on_host; /* its memory is the process's own: kernels read any memory of the process where it lies */
  void *impl;
  void (*destroy)(mn_backend *b); /* what mn_backend_free calls; NULL: the backend is static */
};

/* A backend by its name; NULL: the usual one, "cpu". threads <= 0: all it can use; more than it can (ref: one) is MN_ERR_CONFIG. A name that is none is MN_ERR_CONFIG with those there
 * are. This is the only place that knows which there are. */
mn_status mn_backend_open(const char *name, int threads, mn_backend **out);
/* The names of those there are, for people; the usual one is the first. */
int mn_backend_count(void);
const char *mn_backend_name(int i);
/* The name of the one to take for arithmetic in `type` where nobody chose: in f64, which others' programs are compared with, the plain
 * reference; else the usual one. */
const char *mn_backend_usual(mn_dtype type);

/* The reference backend "ref" (plain C, all types, one thread) and the CPU backend "cpu" (threads, vector kernels), which takes the best instruction set of the machine, or the one named by MNEME_CPU_ISA
 * (generic | avx2 | avx512 | avx512_bf16 | amx), refusing one that the machine lacks. */
mn_backend *mn_backend_ref(void);
mn_status mn_backend_cpu_new(int threads, mn_backend **out);
void mn_backend_free(mn_backend *b);
/* Bytes from the memory of one backend to that of another, or of the same. Two that know each other do it by themselves (receive), all
 * others meet on the host: by one copy where one of them lies there, else through a buffer of it, piece by piece. */
mn_status mn_backend_transfer(mn_backend *to, void *dst, mn_backend *from, const void *src, size_t bytes);
/* The kernel for a node, or NULL. owner (NULL: not asked for): the backend whose kernel it is and whose pool it runs on: b or one of
 * its fallbacks. */
const mn_kernel *mn_backend_find(mn_backend *b, const mn_node *n, mn_backend **owner);

static inline bool mn_call_wants(const mn_call *c, int output) { return output < c->n_out && !(c->unread >> output & 1); }
static inline bool mn_view_dense(const mn_view *v) {
  int64_t expect = 1;
  for (int i = v->ndim - 1; i >= 0; i--) {
    if (v->dim[i] != 1 && v->stride[i] != expect) return false;
    expect *= v->dim[i];
  }
  return true;
}
static inline int64_t mn_view_count(const mn_view *v) {
  int64_t n = 1;
  for (int i = 0; i < v->ndim; i++) n *= v->dim[i];
  return n;
}

/* ---- the element-wise program: what the fusion pass makes of a chain, run by one kernel ---- (op "ew")
 * A register machine over tiles: registers 0..n_in-1 hold the inputs (each broadcast to the output's shape by its
 * strides), instruction i writes register n_in + i. Outputs name registers. Arithmetic in the register's type: f32
 * for f32 and bf16, i32, bool, or i64/f64 where the program asks for it. */
enum { MN_EW_MAX_IN = 14, MN_EW_MAX_OUT = 6, MN_EW_MAX_INSTR = 48 };
MN_ATTRS_BEGIN
typedef struct mn_ew_instr {
  uint8_t code;      /* mn_ew_code                        */
  uint8_t dtype;     /* type of the result (mn_dtype)     */
  uint8_t src_dtype; /* type of the operands              */
  uint8_t src[3];    /* registers; 0xFF = the immediate   */
  uint8_t unused[2];
  double imm;
} mn_ew_instr;
typedef struct mn_ew_attr { /* a node keeps as many instructions as there are (mn_op.attr_used) */
  int n_in, n_out, n_instr, unused;
  uint8_t out_reg[MN_EW_MAX_OUT], unused_too[2];
  mn_ew_instr instr[MN_EW_MAX_INSTR];
} mn_ew_attr;
MN_ATTRS_END
extern const mn_op mn_op_ew;

#endif
