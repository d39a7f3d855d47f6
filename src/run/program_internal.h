/* program_internal.h - what the rooms of a program share: program.c (programs, and the routines they compile), program_parts.c (what a
 * builder says), routine.c (running). */
#ifndef MN_RUN_PROGRAM_INTERNAL_H
#define MN_RUN_PROGRAM_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/table.h"
#include "run/buffers.h"
#include "run/program.h"

typedef struct mn_assigned {
  mn_tensor *leaf, *value;
} mn_assigned;

struct mn_parts {
  mn_graph *g;
  int n_feeds, cap_feeds, n_given, cap_given, n_assigned, cap_assigned, n_moved, cap_moved, n_kept, cap_kept;
  mn_tensor **feeds, **given, **kept;
  const char **given_name;
  mn_assigned *assigned, *moved; /* moved: those that the caller puts back */
  bool stateless;
};

typedef struct mn_result {
  const char *name;
  mn_dtype dtype;
  mn_shape shape;
} mn_result;

struct mn_routine {
  mn_program *program;
  mn_form form;
  mn_arena *arena;
  mn_plan *plan;
  mn_buffers feeds;
  int n_results, n_reports;
  mn_result *results;
  int n_states;
  int *state_slot; /* of the plan */
  uint64_t bound;  /* whose states the plan reads now; 0: nobody's */
};

struct mn_program {
  mn_program_config config;
  atomic_int owners;
  pthread_mutex_t mutex;
  mn_arena *arena;
  int n_routines, cap_routines;
  mn_routine **routines;
  atomic_int_fast64_t compiled;
  mn_plan_room *room;    /* of all routines: whoever has entered one has the program alone */
  mn_prologue *prologue; /* NULL: not settled, or nothing compiled yet */
  bool *computed;        /* [states] first values that first_plan gives; others are zeros */
  mn_plan *first_plan;
  mn_states *first; /* one fresh stream: what that plan gives */
  mn_states *blank; /* the same names, types and shapes, all zeros: what states look like */
  mn_buffers kept;  /* memory of the program's own, by name */
  mn_table kept_at; /* a name -> its number there */
  bool knows_limit;
  mn_limit limit;
  int64_t alignment, aligned_length; /* as a segment of that many tokens sees it; 0: not looked at yet */
};

#endif
