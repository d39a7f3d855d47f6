/* eval_tasks.h - the memory tasks of `mneme eval` that run through sessions, as the terminal and JSON show them. With --json
 * every result is one line: what was measured, on what model, with which settings, metric and value. */
#ifndef MN_EVAL_TASKS_H
#define MN_EVAL_TASKS_H

#include "cli/progress.h"
#include "model/bundle.h"

typedef struct mn_eval_view {
  mn_cli *cli;
  mn_arena *arena;
  const mn_bundle *bundle;
  mn_dtype compute;
  bool forget;               /* --forget */
  int64_t prefill, examples; /* examples 0: the task's usual number */
} mn_eval_view;

/* Text by greedy generation; options lengths, vary, depths, new-tokens, plot. `settings` holds "name". */
mn_status mn_eval_view_text(const mn_eval_view *v, const char *name, const mn_value *settings);
/* Token ids in parallel form and as a stream that is saved and restored; option stream. */
mn_status mn_eval_view_parity(const mn_eval_view *v, const char *name, const mn_value *settings);
/* The endless stream of needles; options tokens, restart-at, plot. */
mn_status mn_eval_view_needles(const mn_eval_view *v, const mn_value *settings);

#endif
