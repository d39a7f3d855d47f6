/* scope_internal.h - what the rooms of the scope share: one root with the lists of everything that was declared, calls with a
 * stream of their own, and scopes, which are names that point to both. */
#ifndef MN_SCOPE_INTERNAL_H
#define MN_SCOPE_INTERNAL_H

#include "base/table.h"
#include "nn/scope.h"
#include "nn/scope_numbers.h"

typedef struct mn_state_group { /* the states below one scope, in the order in which they were asked for */
  int n, cap;
  int *state;
} mn_state_group;

/* Where states are kept: of the root, or of a call that begins anew each time. */
typedef struct mn_state_store {
  mn_graph *home;   /* where its states begin: loops inside carry them */
  bool carried;     /* they are variables                              */
  mn_tensor *reset; /* carried: bool [batch], rows that begin here; NULL: none */
  int n, cap;
  mn_built_state *states;
  mn_table at; /* full name -> number */
  int n_groups, cap_groups;
  mn_state_group *groups;
  mn_table group_at; /* path of a scope -> number */
  mn_table calls;    /* path -> how often it was called; what was called, in order: */
  int n_called, cap_called;
  const char **called;
} mn_state_store;

/* A stream of tokens: the root's, or that of a call with a stream of its own. */
typedef struct mn_scope_frame {
  struct mn_scope_frame *parent; /* NULL: the root */
  mn_state_store *store;         /* the parent's, or its own when it begins anew */
  int64_t batch;
  mn_tensor *position; /* i32 [batch], before the current segment or piece; NULL: zero */
  int64_t multiple;    /* position is a multiple of it; 0: it is zero                  */
  int64_t alignment;   /* all that was asked about it fits into this                   */
  mn_tensor *length;   /* i32 [batch], tokens of the segment or piece that count; NULL: all */
  mn_tensor *reset;    /* bool [batch], rows that begin where the call does; or NULL   */
  int64_t moved;       /* tokens by which the position was moved on; 0: not yet        */
  int position_state;  /* its number in the store; -1: none                            */
  int loops;           /* loops over time that are open here                           */
  int64_t piece;       /* tokens of a piece of the innermost                           */
  int64_t turns;       /* pieces that the loops built so far run over                  */
  int64_t longest;     /* its rows begin anew before they are longer; 0: nobody said   */
  mn_limit limit;
} mn_scope_frame;

typedef struct mn_scope_report {
  const char *name;
  mn_tensor *value;
  const mn_scope_frame *frame; /* of which stream */
} mn_scope_report;

typedef struct mn_scope_share {
  const char *name;
  mn_tensor *value;
} mn_scope_share;

typedef struct mn_scope_numbers_of {
  mn_numbers_rule rule;
  int n_of;
  const double *of;
  const mn_tensor *made; /* the first constant of them, in whatever graph */
} mn_scope_numbers_of;

typedef struct mn_scope_root {
  mn_arena *arena;
  mn_build build;
  mn_graph *graph; /* where building happens now: the outer graph, or the body of a loop */
  mn_graph *outer;
  int n_params, cap_params;
  mn_param_info *params;
  mn_tensor **param_tensors;
  mn_table param_at; /* full name -> number */
  int n_buffers, cap_buffers;
  mn_built_buffer *buffers;
  bool *buffer_written; /* assigned somewhere */
  mn_table buffer_at;
  int n_feeds, cap_feeds;
  mn_feed_info *feeds;
  mn_tensor **feed_tensors;
  mn_table feed_at;
  int n_reports, cap_reports;
  mn_scope_report *reports;
  const char **report_names; /* as they are handed out */
  mn_tensor **report_values;
  int n_losses, cap_losses;
  mn_built_loss *losses;
  int n_shares, cap_shares;
  mn_scope_share *shares;
  int n_numbers, cap_numbers;
  mn_scope_numbers_of *numbers;
  bool draws;      /* something is drawn: loops count their pieces        */
  mn_tensor *tick; /* i64 [], which piece of the loops this is; NULL: none */
} mn_scope_root;

struct mn_scope {
  mn_scope_root *r;
  mn_scope_frame *frame;
  const char *path;       /* of parameters: "" at the root, else ending in "." */
  const char *state_path; /* of states, reports and chance: the same, until something is called once more */
  const mn_linear_rules *linear;
};

/* Room for item n of the array *list points to; false (and the array as it was) when memory is short. */
bool mn_scope_grow(mn_scope_root *r, void *list, int n, int *cap, size_t size);
bool mn_scope_remember(mn_scope_root *r, mn_table *t, const char *name, int number);
/* The full name in the arena; NULL: no memory, the graph's fault. */
const char *mn_scope_full(mn_scope *s, const char *name);       /* of a parameter */
const char *mn_scope_full_state(mn_scope *s, const char *name); /* of what belongs to this call of it */
/* A path of a scope as a message has it: without the point at its end. NULL: no memory. */
const char *mn_scope_place(mn_scope_root *r, const char *path);
/* False, and the graph says what is too large by name: a tensor of its own would say an operation's. */
bool mn_scope_can_hold(mn_scope_root *r, const char *what, const char *full, const mn_shape *shape, mn_dtype type);
void *mn_scope_alloc(mn_scope_root *r, size_t n, size_t size); /* n + 1 zeroed items; NULL: the graph's fault */

mn_state_store *mn_state_store_new(mn_scope_root *r, mn_graph *home, bool carried);
int mn_state_find(const mn_state_store *t, const char *full); /* -1: none */
/* The state's value where calls begin that begin a row's stream: of this frame and of those around it. */
mn_tensor *mn_state_begun(mn_scope_root *r, const mn_scope_frame *f, const mn_built_state *e, mn_tensor *value);
/* Calls count as they stood when `n` had been made. */
void mn_scope_uncall(mn_scope_root *r, mn_state_store *t, int n);
const mn_state_group *mn_state_group_of(const mn_state_store *t, const char *path); /* NULL: no state below */

/* Of lengths [B] (or NULL) of a segment, those of its tokens [start, start + most), and of its n pieces, [n,B]. */
mn_tensor *mn_length_part(mn_graph *g, mn_tensor *length, int64_t start, int64_t most);
mn_tensor *mn_length_parts(mn_graph *g, mn_tensor *length, int64_t n, int64_t most);
mn_tensor *mn_moved(mn_graph *g, mn_tensor *position, mn_tensor *length, int64_t T); /* by its lengths, or by T */

int64_t mn_common_divisor(int64_t a, int64_t b);

/* [B, T, 1, ..., 1] of `ndim` axes (the first ndim of them): what is said of rows and their tokens, beside a tensor of that many. */
mn_shape mn_rows_shape(int ndim, int64_t B, int64_t T);

#endif
