/* plan_internal.h - a compiled plan: steps over storages. Shared by plan.c (building) and plan_run.c (running). */
#ifndef MN_PLAN_INTERNAL_H
#define MN_PLAN_INTERNAL_H

#include <stdatomic.h>

#include "base/table.h"
#include "compile/draft.h"

typedef enum mn_storage_kind {
  MN_STORAGE_TEMP,  /* lives in the plan's block, shared by lifetime            */
  MN_STORAGE_LEAF,  /* bound by the caller                                      */
  MN_STORAGE_CONST, /* filled at compile time                                   */
  MN_STORAGE_OUTPUT /* a result: owned by a top plan, bound per step of a loop  */
} mn_storage_kind;

typedef struct mn_patch { /* a pointer somewhere in a call that follows a storage */
  void **at;
  size_t offset;
  size_t part; /* of a plan that runs one part of a loop at a time: bytes from one part to the next */
} mn_patch;

typedef struct mn_storage {
  mn_storage_kind kind;
  int alias; /* the storage it shares memory with, -1: itself */
  size_t bytes;
  size_t offset;    /* TEMP: in the plan's block */
  int first, last;  /* steps */
  int phase;        /* of the producer */
  bool claimed;     /* an output or an assigned value lives here */
  const void *data; /* CONST */
  void *base;
  int n_patches;
  mn_patch *patches; /* in the plan's arena */
} mn_storage;

typedef struct mn_placed { /* where a tensor lies */
  int storage;
  mn_layout layout;
} mn_placed;

typedef struct mn_plan_step {
  mn_call call;
  int *in_storage, *out_storage; /* out: -1 where call.unread says that there is none */
  int64_t *in_offset;            /* of each operand in its storage, in elements; its strides are those of its view */
  struct mn_plan *body;          /* of a scan */
  struct mn_parts *parts;        /* of a scan whose parts run apart from each other, or NULL */
  size_t *in_part, *out_part;    /* of a plan that runs one part at a time: bytes from one part of an operand to the next; or NULL */
  int buffer;                    /* workspace: index among lifetimes */
  size_t workspace_bytes;        /* that the kernel asks for */
  size_t workspace_offset;       /* in the plan's block */
  double seconds, shortest;      /* of all runs since profiling began, and of the fastest */
  int64_t runs;
  bool dropped;
  bool shares_body;  /* of a scan: body, parts and binding are an earlier step's */
  bool shares_state; /* call.state is an earlier step's that is alike */
} mn_plan_step;

typedef struct mn_scan_binding { /* storages of the body, -1 where the body does not use one */
  int *carry, *xs, *consts, *ys;
  size_t *x_bytes, *y_bytes, *carry_bytes;
} mn_scan_binding;

/* A loop whose body does the same to each slice of a leading axis (rows of a batch, heads), apart from the others, through all steps: each
 * slice is a part. A thread runs a part from the first step to the last, on a plan of its own of calls that see that part alone. */
typedef struct mn_parts {
  int64_t count;
  int n; /* plans: one for each part that can run at a time */
  mn_plan **plans;
  atomic_bool *taken;
} mn_parts;

struct mn_plan {
  mn_arena *arena;
  mn_backend *backend;
  mn_draft program;
  mn_prologue_use prologue;
  int n_storages, cap_storages;
  mn_storage *storages;
  int n_steps, cap_steps;
  mn_plan_step **steps;
  int n_outputs;
  mn_view *outputs;
  int *output_storage;
  int n_leaves;
  int *leaf_storage; /* per program leaf */
  mn_table leaf_at;  /* leaf of the user's graph -> its number */
  void *block, *output_block, *const_block;
  size_t block_bytes, output_bytes, const_bytes;
  mn_plan_room *room; /* NULL: block and output_block are its own */
  bool is_body, profiling;
  const void *placed, *outputs_placed; /* where its block, and its outputs, lie at present */
  int64_t part;                        /* the part of a loop that it runs */
  int left_before; /* when the thread is to stop, a run may be left before any of its first so many steps: nothing has changed yet */
  int unbound;
  mn_plan_report report;
};

extern const mn_kernel mn_kernel_scan;
static inline size_t mn_tensor_bytes(const mn_tensor *t) { return mn_shape_bytes(&t->shape, t->dtype); }
mn_status mn_plan_compile_with(const mn_plan_request *q, int n_layouts, const mn_tensor *const *layout_of, const mn_layout *layouts,
                               bool is_body, mn_plan **out);
/* The body of loop s: compiled, or that of an earlier loop of this plan which does the same. (plan_bodies.c) */
typedef struct mn_body {
  uint64_t hash;
  const mn_plan_step *step;
} mn_body;
typedef struct mn_bodies {
  int n, cap;
  mn_body *list;
} mn_bodies;
mn_status mn_plan_body(mn_plan *p, const mn_plan_request *q, mn_arena *arena, mn_bodies *known, mn_plan_step *s);
int mn_plan_leaf_storage(const mn_plan *p, const mn_tensor *leaf);
void mn_storage_bind(mn_plan *p, int s, void *base);
size_t mn_plan_step_bytes(const mn_plan_step *s); /* of a scan: what its body, or the plans of its parts, take */
/* Whether the loop of step s, whose body is compiled and bound, has parts that run apart from each other: then s->parts. (plan_parts.c) */
mn_status mn_plan_into_parts(mn_plan *p, mn_plan_step *s);
void mn_plan_place(mn_plan *p, void *block); /* gives temporaries and workspaces their addresses, bodies included */

/* All passes on nodes, one after the other: p->program, p->report. In p->arena and, what only compiling needs, `scratch`. (plan.c) */
mn_status mn_plan_passes(mn_plan *p, const mn_plan_request *q, mn_arena *scratch);
/* The same by way of a few layers of a deep model; *done false: it is none. (pass_layers.c) */
mn_status mn_pass_layers(mn_plan *p, const mn_plan_request *q, mn_arena *scratch, bool *done);

/* The passes on steps and storages, in the order in which plan.c runs them. */
void mn_plan_lifetimes(mn_plan *p);                        /* first and last step of each storage           (pass_inplace.c) */
mn_status mn_pass_inplace(mn_plan *p);                     /* results in the memory of what dies             (pass_inplace.c) */
void mn_plan_count_activations(mn_plan *p);                /*                                                (plan_memory.c)  */
mn_status mn_plan_prepare(mn_plan *p);                     /* kernels make ready what they need              (plan_alike.c)   */
mn_status mn_plan_connect(mn_plan *p);                     /* who follows which storage                      (plan_memory.c)  */
mn_status mn_plan_memory(mn_plan *p, bool share);          /* offsets of temporaries and workspaces          (plan_memory.c)  */
mn_status mn_plan_fill_constants(mn_plan *p);              /*                                                (plan_memory.c)  */
mn_status mn_plan_settle(mn_plan *p);                      /* its block and its outputs have memory          (plan_room.c)    */
void *mn_plan_grow(void *p, int n, int *cap, size_t size); /* room for item n of an array, doubling */

/* Steps are as many as the model has operations, and larger than the caches: a walk over them asks for what it will look at some steps before
 * its turn. */
static inline __attribute__((always_inline)) void mn_steps_ahead(const mn_plan *p, int t) {
  enum { STEPS = 16, LISTS = 8, LINE = 64 };
  if (t + STEPS >= p->n_steps) return;
  __builtin_prefetch(p->steps[t + STEPS]);
  __builtin_prefetch((const char *)p->steps[t + STEPS] + LINE);
  __builtin_prefetch(p->steps[t + LISTS]->in_storage);
}

static inline bool mn_layout_is_dense(const mn_shape *s, const mn_layout *l) {
  int64_t expect = 1;
  for (int i = s->ndim - 1; i >= 0; i--) {
    if (s->dim[i] != 1 && l->stride[i] != expect) return false;
    expect *= s->dim[i];
  }
  return true;
}

/* The storage whose memory s is. Chains are shortened on the way: a gradient that is added to in place layer by layer makes
 * one as long as the model is deep. */
static inline int mn_storage_root(const mn_plan *p, int s) {
  int root = s;
  while (p->storages[root].alias >= 0) root = p->storages[root].alias;
  while (p->storages[s].alias >= 0) {
    const int next = p->storages[s].alias;
    p->storages[s].alias = root;
    s = next;
  }
  return root;
}

#endif
