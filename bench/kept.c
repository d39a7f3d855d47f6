/* kept.c - what B'MOJO keeps of associative recall: of the tokens of pairs that no other part of a layer sees when a key is asked, how many
 * are among the old ones that it chose?
 *
 *     bench-kept MODEL [--examples N] [--window W] [--set KEY=VALUE]...          settings of the task mqar; w is 16, and C is w
 *
 * Prints one line of JSON: the fraction in the first layer that reports `kept`, and in the last. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "run/program.h"
#include "task/task.h"

enum { MAX_SET = 32, MAX_LAYERS = 64 };

static mn_status build(void *ctx, mn_scope *s, const mn_form *form, mn_parts *parts) {
  mn_model_io in = {0}, out = {0};
  mn_io_put(&in, "tokens", mn_parts_feed(parts, "tokens", MN_I32, MN_SHAPE(form->batch, form->length)));
  mn_model_build(s, ctx, &in, &out);
  return mn_graph_status(mn_scope_graph(s));
}

/* Tokens of pairs before `last`, and how many of them are among at[0 .. n). */
static void count(const int32_t *x, int64_t last, const float *at, int64_t n, int64_t *there, int64_t *found) {
  for (int64_t j = 0; j <= last; j++) {
    if (!x[j]) continue;
    ++*there;
    for (int64_t i = 0; i < n; i++)
      if ((int64_t)at[i] == j) {
        ++*found;
        break;
      }
  }
}

static mn_status run(mn_model *model, const mn_params *params, const mn_task *task, int64_t examples, int64_t window) {
  const int64_t T = task->seq_len;
  int64_t there[MAX_LAYERS] = {0}, found[MAX_LAYERS] = {0};
  mn_program_config c = {.backend = params->backend,
                         .params = params,
                         .build = {.param = params->dtype, .compute = MN_F32},
                         .builder = build,
                         .ctx = model,
                         .settled = true};
  mn_program *p;
  mn_routine *r;
  int32_t *x = mn_alloc((size_t)T * sizeof *x), *y = mn_alloc((size_t)T * sizeof *y);
  if (!x || !y) return MN_ERR_MEMORY;
  MN_TRY(mn_program_new(&c, &p));
  MN_TRY(mn_program_enter(p, &(mn_form){.batch = 1, .length = T, .report = "kept"}, &r));
  const int layers = mn_routine_results(r);
  if (layers < 1 || layers > MAX_LAYERS) return mn_fail(MN_ERR_CONFIG, "this model keeps nothing");
  for (int64_t e = 0; e < examples; e++) {
    MN_TRY(mn_task_sample(task, MN_SPLIT_TEST, (uint64_t)e, x, y));
    MN_TRY(mn_routine_put(r, 0, x));
    MN_TRY(mn_routine_run(r, NULL));
    for (int l = 0; l < layers; l++) {
      const int64_t n = mn_shape_count(mn_routine_result_shape(r, l)) / T;
      float *at = mn_alloc((size_t)(n * T) * sizeof *at);
      if (!at) return MN_ERR_MEMORY;
      MN_TRY(mn_routine_get_all(r, l, at));
      for (int64_t t = 0; t < T; t++)
        if (y[t] != MN_IGNORE) count(x, t / window * window - 2 * window, at + t * n, n, &there[l], &found[l]);
      free(at);
    }
  }
  printf("{\"first\": %.4f, \"last\": %.4f}\n", (double)found[0] / (double)there[0], (double)found[layers - 1] / (double)there[layers - 1]);
  mn_program_leave(p);
  mn_program_free(p);
  free(x);
  free(y);
  return MN_OK;
}

int main(int argc, char **argv) {
  const char *set[MAX_SET];
  int n = 0;
  int64_t examples = 64, window = 16;
  if (argc < 2 || argc % 2) return fprintf(stderr, "usage: bench-kept MODEL [--examples N] [--window W] [--set KEY=VALUE]...\n"), 2;
  for (int i = 2; i < argc; i += 2) {
    if (!strcmp(argv[i], "--examples")) examples = atoll(argv[i + 1]);
    else if (!strcmp(argv[i], "--window")) window = atoll(argv[i + 1]);
    else if (!strcmp(argv[i], "--set") && n < MAX_SET) set[n++] = argv[i + 1];
    else return fprintf(stderr, "bench-kept: what is %s?\n", argv[i]), 2;
  }
  if (examples < 1 || window < 1) return fprintf(stderr, "bench-kept: examples and window are at least 1\n"), 2;
  mn_backend *backend;
  mn_model *model;
  mn_params *params;
  mn_task *task;
  mn_status status = mn_backend_open("cpu", 1, &backend);
  if (status == MN_OK) status = mn_model_load_dir(argv[1], backend, MN_F32, &model, &params);
  if (status == MN_OK) status = mn_task_open_set("mqar", set, n, &task);
  if (status == MN_OK) status = run(model, params, task, examples, window);
  if (status != MN_OK) fprintf(stderr, "bench-kept: %s\n", mn_message());
  return status != MN_OK; /* everything else ends with the process */
}
