/* eval_tasks.h - the memory tasks of `mneme eval` that run through sessions, as the terminal and JSON show them. With --json
 * every result is one line: what was measured, on what model, with which settings, metric and value. */
#ifndef MN_EVAL_TASKS_H
#define MN_EVAL_TASKS_H

#include "cli/progress.h"
#include "checkpoint/bundle.h"

typedef struct mn_eval_view {
  mn_cli *cli;
  mn_arena *arena;
  const mn_bundle *bundle;
  mn_dtype compute;
  bool forget;               /* --forget */
  int64_t prefill, examples; /* examples 0: the task's usual number */
} mn_eval_view;

/* A result's line without its metric; *out NULL and a status when that fails. `settings` is described by `fields`. */
mn_status mn_eval_line(const mn_eval_view *v, const char *task, const mn_field *fields, void *settings, uint64_t seed, size_t state_bytes,
                       json_t **out);
void mn_eval_metric(json_t *line, const char *metric, double value);
/* --seed, where it was given, is a task's seed. */
mn_status mn_eval_with_seed(const mn_eval_view *v, const mn_value **settings);

/* Text by greedy generation; options lengths, vary, depths, new-tokens, plot. `settings` holds "name". */
mn_status mn_eval_view_text(const mn_eval_view *v, const char *name, const mn_value *settings);
/* Token ids in parallel form and as a stream that is saved and restored; option stream. */
mn_status mn_eval_view_parity(const mn_eval_view *v, const char *name, const mn_value *settings);
/* The endless stream of needles; options tokens, restart-at, plot. */
mn_status mn_eval_view_needles(const mn_eval_view *v, const mn_value *settings);
/* Lists of words that come again (eval_verbatim.c); options examples, batch, plot. */
mn_status mn_eval_view_verbatim(const mn_eval_view *v, const mn_value *settings);

#endif
