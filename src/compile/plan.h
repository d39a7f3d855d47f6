/* plan.h - compiling a graph for a backend, and running it.
 *
 * Passes, in order (each one file; each can be switched off):
 *   trim       loops lose the results that nobody reads                               (never off)
 *   lower      fused operations without a kernel become their compositions           (never off: it is correctness)
 *   loops      what a loop does at every step and need not leaves it
 *   simplify   common subexpressions, constants, algebra, dead code
 *   prologue   what is the same in every run is computed once, where the caller asks  (prologue.h)
 *   recompute  activations that are cheap to make again are not kept for the backward pass
 *   fuse       chains of element-wise operations become one kernel
 *   layers     what the passes above make of a few layers of a deep model is made of all
 *   layout     views get strides; copies are put where a kernel wants another layout  (never off)
 *   memory     outputs run in place where safe; buffers share memory by lifetime
 *   parts      what a loop does to each head, apart from the others, a thread does to one head through all steps
 * A compiled plan runs without allocating and without looking anything up. A plan (and a graph while it is built) belongs
 * to one thread at a time; different plans of one backend may run, and be compiled, in different threads at once: nothing
 * in the floors below is static and mutable, and the backend's threads serve one plan while the other runs alone. */
#ifndef MN_PLAN_H
#define MN_PLAN_H

#include "backend/backend.h"
#include "compile/prologue.h"

typedef enum mn_pass {
  MN_PASS_SIMPLIFY = 1,
  MN_PASS_RECOMPUTE = 2,
  MN_PASS_FUSE = 4,
  MN_PASS_INPLACE = 8,
  MN_PASS_SHARE_MEMORY = 16,
  MN_PASS_LOOPS = 32,
  MN_PASS_PARTS = 64,
  MN_PASS_LAYERS = 128,
  MN_PASS_ALL = 255
} mn_pass;

/* How activations of the forward pass reach the backward pass. Compressing and off-loading are further values of this
 * policy: they replace the kept tensor in the same place, between its last forward and first backward use. */
typedef enum mn_activation_policy {
  MN_KEEP,            /* keep everything                                              */
  MN_RECOMPUTE_CHEAP, /* element-wise results are made again from what is kept anyway  */
  MN_RECOMPUTE_NORMS  /* norms, too                                                   */
} mn_activation_policy;

/* Memory that plans which never run at the same time take turns with: intermediate results, and outputs. It is as large as the largest of
 * them needs; a plan moves there when it runs. Freed after its plans. */
typedef struct mn_plan_room mn_plan_room;
mn_status mn_plan_room_new(mn_backend *backend, mn_plan_room **out);
void mn_plan_room_free(mn_plan_room *room); /* NULL is fine */
size_t mn_plan_room_bytes(const mn_plan_room *room);

typedef struct mn_plan_request {
  mn_graph *graph;
  int n_outputs;
  mn_tensor *const *outputs;
  int n_assigns; /* after the run, the memory bound to variables[i] holds values[i] */
  mn_tensor *const *variables;
  mn_tensor *const *values;
  int n_put_back; /* of the last so many the caller has the old values, and puts them back when a run was left (mn_plan_run) */
  mn_backend *backend;
  unsigned passes_off; /* mask of mn_pass */
  mn_activation_policy activations;
  mn_prologue *prologue; /* NULL: everything is computed in every run */
  int n_fixed;           /* leaves that no run writes; the caller binds them as all others, too */
  const mn_fixed_leaf *fixed;
  mn_plan_room *room; /* NULL: memory of the plan's own */
} mn_plan_request;

typedef struct mn_plan mn_plan;

/* Compiles. The graph may be freed afterwards except for the leaf tensors named in mn_plan_bind. */
mn_status mn_plan_compile(const mn_plan_request *request, mn_plan **out);
void mn_plan_free(mn_plan *plan);
/* Points an input or variable of the graph at dense memory of the backend, which the caller keeps. It is aligned to its
 * element (8 bytes for f64 and i64, 4 for f32 and i32, 2 for bf16), or running refuses it by name: no kernel asks for more, so
 * that tensors of a mapped file can be bound where they lie. Memory of the backend's alloc is aligned to 64 bytes, which is
 * faster. Leaves that the plan does not use are ignored. */
void mn_plan_bind(mn_plan *plan, const mn_tensor *leaf, void *data);
bool mn_plan_assigns(const mn_plan *plan, const mn_tensor *leaf); /* a run writes to what is bound to the leaf */
/* The same in two steps, for whoever binds the same leaves to other memory again and again: the leaf's number (-1 where the plan
 * does not use it, which binding ignores), which outlives the leaf and its graph. */
int mn_plan_slot(const mn_plan *plan, const mn_tensor *leaf);
void mn_plan_bind_slot(mn_plan *plan, int slot, void *data);
/* MN_ERR_CANCELLED when the thread is to stop (base.h): the run was left before it had changed anything but outputs and variables that
 * the caller puts back. From the first other assignment on a run goes to its end. */
mn_status mn_plan_run(mn_plan *plan);
/* Output j, dense; valid until a plan of its room runs or is compiled. */
const mn_view *mn_plan_output(const mn_plan *plan, int j);

/* ---- what the compiler did (mneme inspect) ---- */
typedef struct mn_plan_report {
  int nodes_given, nodes_lowered, nodes_moved, nodes_simplified, nodes_recomputed, nodes_fused, steps, copies, in_place;
  int elementwise_before, elementwise_after;
  int layers_alike;      /* that passes were not given, since they make of them what they made of others */
  int loops_in_parts;    /* whose heads (or rows) run one by one through all steps */
  size_t bytes_unshared; /* all intermediate buffers side by side */
  size_t bytes_alive;    /* the most that is alive at one step: what no placement can undercut; workspaces not counted */
  size_t bytes_planned;  /* what the plan takes, workspaces of its kernels included */
  size_t bytes_workspace, bytes_outputs, bytes_constants;
  int from_prologue;        /* values that are not computed but read from there */
  size_t bytes_activations; /* kept from the forward for a later phase */
  int64_t flops;
} mn_plan_report;
const mn_plan_report *mn_plan_get_report(const mn_plan *plan);
/* One line per step (operation, kernel, shapes, bytes; when profiled its mean time and, of several runs, the shortest, to which the
 * GFLOP/s belong) through `line`; when profiled a last one with the sums of both. */
void mn_plan_describe(const mn_plan *plan, void (*line)(void *ctx, const char *text), void *ctx);
/* Time each step of the following runs (adds a clock reading per step). */
void mn_plan_profile(mn_plan *plan, bool on);

#endif
