/* program.h - one computation of a model, for any shape: graphs and plans, made when a shape is first asked for, and shared by all
 * who run it.
 *
 * A program is made from a builder: a function that is given a scope and a form (how many rows, how many tokens) and says what is
 * fed, what comes out, and what else is assigned. Everything that stands around that is here and nowhere else: making graph and
 * scope, collecting states and reports, compiling, binding parameters once and states per call. What a form was compiled to is a
 * routine; it holds a plan and the memory of its feeds and knows nothing of who runs it, so a thousand streams share one.
 *
 * A program may be run from several threads: whoever has entered a form has the program alone until he leaves it, and asks it for
 * nothing else meanwhile (it would wait for him). */
#ifndef MN_RUN_PROGRAM_H
#define MN_RUN_PROGRAM_H

#include "compile/plan.h"
#include "model/params.h"
#include "run/state.h"

typedef struct mn_form {
  int64_t batch, length; /* B rows of T tokens                                                                     */
  int64_t multiple;      /* carried: each row's position is a multiple of it, which the model may use; 0: 1        */
  int what;              /* which of the builder's computations                                                   */
  bool lengths;          /* rows have lengths of their own, up to `length`: what lies beyond is padding (scope.h)   */
  bool resets;           /* carried: rows may begin a stream in the run itself, so that gradients reach the first values   */
  const char *report;    /* every report of that path, or whose path ends in that word, comes out too; NULL: none  */
} mn_form;

/* ---- building ---- */
typedef struct mn_parts mn_parts; /* what a builder says of its graph */
/* Declares inputs with mn_parts_feed and results with mn_parts_give, in the scope's graph. A fault of the graph need not be
 * looked at: the program does. */
typedef mn_status (*mn_program_builder)(void *ctx, mn_scope *s, const mn_form *form, mn_parts *parts);
/* An input in memory of the routine's own, zeros until it is put; feeds are numbered in order. The name is copied. */
mn_tensor *mn_parts_feed(mn_parts *parts, const char *name, mn_dtype dtype, mn_shape shape);
/* The same for an input that the graph has already. */
void mn_parts_fed(mn_parts *parts, mn_tensor *input);
/* A result; numbered in order, from 0. What the reports give comes after all of them. */
void mn_parts_give(mn_parts *parts, const char *name, mn_tensor *value);
/* After each run, the memory bound to `variable` (a parameter's, or what mn_program_config.bound gave) holds `value`. */
void mn_parts_assign(mn_parts *parts, mn_tensor *variable, mn_tensor *value);
/* The same where the caller has the old value and puts it back when the run is left: a run that has only moved such may be left. */
void mn_parts_move(mn_parts *parts, mn_tensor *variable, mn_tensor *value);
/* A variable in memory of the program's own, zeros at first, that lasts from run to run; forms that keep a name share it. */
mn_tensor *mn_parts_keep(mn_parts *parts, const char *name, mn_dtype dtype, mn_shape shape);
/* The computation reads no stream, though the program's others do: it is run without states. */
void mn_parts_no_states(mn_parts *parts);

/* ---- programs ---- */
typedef struct mn_program mn_program;

typedef struct mn_program_config {
  mn_backend *backend;
  const mn_params *params; /* all that the builder's scope may ask for; NULL: given later, before anything is compiled */
  mn_build build;          /* types, carried, forget, training and seed; the rest is the form's. In training "step" is fed: i64 [] */
  mn_program_builder builder;
  void (*bound)(void *ctx, mn_plan *plan); /* binds leaves that the parts do not, while the graph is still there; NULL: none */
  void *ctx;                               /* the builder's; lives as long as the program */
  mn_form learn; /* what streams hold is learned from this form; zeros: one token of one row. A builder that knows one shape says it */
  mn_activation_policy activations;
  unsigned passes_off; /* mask of mn_pass */
  bool fresh;          /* carried: every run begins with the first values, whatever the states hold, so that gradients reach those */
  bool put_back;       /* carried: when a run was left, the caller puts a copy of the states back (mn_parts_move), or reads them no more */
  bool settled;        /* the parameters' values stay as they are: what depends on them alone is computed once (prologue.h) */
} mn_program_config;

mn_status mn_program_new(const mn_program_config *config, mn_program **out);
mn_program *mn_program_share(mn_program *p); /* one more owner, who frees it too */
void mn_program_free(mn_program *p);         /* by the last owner; NULL is fine */
void mn_program_use(mn_program *p, const mn_params *params);
const mn_program_config *mn_program_config_of(const mn_program *p);
/* A settled program's parameters have other values now. */
mn_status mn_program_refresh(mn_program *p);
/* What the builder keeps (mn_parts_keep) is all zeros again. */
mn_status mn_program_clear(mn_program *p);
/* How many plans have been compiled so far. */
int64_t mn_program_compiled(const mn_program *p);
/* Bytes that its plans take turns with: those of the one that needs most, whatever their number (mn_plan_room). */
size_t mn_program_room_bytes(const mn_program *p);

/* Builds the form's graph and shows its scope to `look`, compiling nothing: for what only a built model knows (its parameters,
 * reports). The scope ends with the call. */
typedef mn_status (*mn_program_look_fn)(void *ctx, const mn_scope *s);
mn_status mn_program_look(mn_program *p, const mn_form *form, mn_program_look_fn look, void *ctx);
/* The same, and then the plan of the form's routine, bound to nothing and without a prologue: for whoever looks at a plan. It needs no
 * parameters; the caller frees it. */
mn_status mn_program_plan(mn_program *p, const mn_form *form, mn_program_look_fn look, void *ctx, mn_plan **out);

/* ---- what a carried program's streams hold ---- all three are found out once, when they are first asked for */
/* States of `batch` fresh streams, which the caller frees: copies of first values that are computed once. */
mn_status mn_program_states(mn_program *p, int64_t batch, mn_states **out);
/* The same without values, all zeros: of streams whose first run resets every row. */
mn_status mn_program_blank(mn_program *p, int64_t batch, mn_states **out);
/* The first values, of one row or as many as config.learn has: what mn_states_reset wants. They live as long as the program. */
mn_status mn_program_first(mn_program *p, const mn_states **out);
/* How long a stream may be (scope.h). Its texts live as long as the program. */
mn_status mn_program_limit(mn_program *p, mn_limit *out);
/* What positions should be multiples of, as a segment of `length` tokens sees it (mn_scope_alignment); 1: anything. */
mn_status mn_program_alignment(mn_program *p, int64_t length, int64_t *out);

/* ---- running ---- enter, put, run, get, leave */
typedef struct mn_routine mn_routine;
/* The form's routine, compiled if it is the first time; the program waits for no one else until it is left. After a failure
 * there is nothing to leave. */
mn_status mn_program_enter(mn_program *p, const mn_form *form, mn_routine **out);
void mn_program_leave(mn_program *p);

const mn_form *mn_routine_form(const mn_routine *r);
int mn_routine_feeds(const mn_routine *r);
int mn_routine_feed(const mn_routine *r, const char *name); /* its number; -1: none */
const char *mn_routine_feed_name(const mn_routine *r, int i);
mn_dtype mn_routine_feed_type(const mn_routine *r, int i);
const mn_shape *mn_routine_feed_shape(const mn_routine *r, int i);
mn_status mn_routine_put(mn_routine *r, int feed, const void *host); /* the whole tensor, from host memory */

/* Runs it on the states of `batch` streams, which move on by T tokens (NULL: a program that carries none). Rows that stand where
 * the form's multiple says they do not are MN_ERR_ARG. */
mn_status mn_routine_run(mn_routine *r, mn_states *states);
/* The same for a form with lengths: row b moves on by length[b] in [0, T]. */
mn_status mn_routine_run_rows(mn_routine *r, mn_states *states, const int32_t *length);
/* The same for a form with resets: rows where reset[b] is true begin anew. */
mn_status mn_routine_run_resets(mn_routine *r, mn_states *states, const bool *reset);

int mn_routine_results(const mn_routine *r); /* given and reported */
int mn_routine_reports(const mn_routine *r); /* of those, the last so many are reports */
const char *mn_routine_result_name(const mn_routine *r, int j);
mn_dtype mn_routine_result_type(const mn_routine *r, int j);
const mn_shape *mn_routine_result_shape(const mn_routine *r, int j);
/* Elements [first, first + n) of result j of the last run, to host memory. */
mn_status mn_routine_get(const mn_routine *r, int j, int64_t first, int64_t n, void *host);
/* Result j of the last run where it lies, until any routine of the program runs; NULL where that is no memory of the process. */
const void *mn_routine_view(const mn_routine *r, int j);
mn_status mn_routine_get_all(const mn_routine *r, int j, void *host);
mn_plan *mn_routine_plan(const mn_routine *r);

#endif
