/* reported.h - for benches that look at what a model reports while it reads examples of a task of token ids. */
#ifndef MN_BENCH_REPORTED_H
#define MN_BENCH_REPORTED_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "run/program.h"
#include "task/task.h"

static mn_status reported_build(void *ctx, mn_scope *s, const mn_form *form, mn_parts *parts) {
  mn_model_io in = {0}, out = {0};
  mn_io_put(&in, "tokens", mn_parts_feed(parts, "tokens", MN_I32, MN_SHAPE(form->batch, form->length)));
  mn_model_build(s, ctx, &in, &out);
  return mn_graph_status(mn_scope_graph(s));
}

/* What is done with one example x, y of the task; r holds the reports of that name, one for each layer that has it. */
typedef mn_status (*reported_example)(void *ctx, const mn_task *task, const int32_t *x, const int32_t *y, mn_routine *r);

/* The first `examples` of the test split of `task`, read by the model in directory `dir`; what it leaves open ends with the process. */
static mn_status reported_each(const char *dir, const char *task_name, const char *const *set, int n_set, const char *report,
                               int64_t examples, reported_example f, void *ctx) {
  mn_backend *backend;
  mn_model *model;
  mn_params *params;
  mn_task *task;
  mn_program *p;
  mn_routine *r;
  MN_TRY(mn_backend_open("cpu", 1, &backend));
  MN_TRY(mn_model_load_dir(dir, backend, MN_F32, &model, &params));
  MN_TRY(mn_task_open_set(task_name, set, n_set, &task));
  int32_t *x = mn_alloc((size_t)task->seq_len * sizeof *x), *y = mn_alloc((size_t)task->seq_len * sizeof *y);
  if (!x || !y) return MN_ERR_MEMORY;
  const mn_program_config c = {.backend = params->backend,
                               .params = params,
                               .build = {.param = params->dtype, .compute = MN_F32},
                               .builder = reported_build,
                               .ctx = model,
                               .settled = true};
  MN_TRY(mn_program_new(&c, &p));
  MN_TRY(mn_program_enter(p, &(mn_form){.batch = 1, .length = task->seq_len, .report = report}, &r));
  if (mn_routine_results(r) < 1) return mn_fail(MN_ERR_CONFIG, "this model does not report %s", report);
  for (int64_t i = 0; i < examples; i++) {
    MN_TRY(mn_task_sample(task, MN_SPLIT_TEST, (uint64_t)i, x, y));
    MN_TRY(mn_routine_put(r, 0, x));
    MN_TRY(mn_routine_run(r, NULL));
    MN_TRY(f(ctx, task, x, y, r));
  }
  return MN_OK;
}

#endif
