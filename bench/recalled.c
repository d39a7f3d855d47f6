/* recalled.c - where a Hierarchical Memory Transformer looks while topics change: at every question of the task `topics`, does the
 * memory that weighs most belong to a segment of the same document?
 *
 *     bench-recalled MODEL [--examples N] [--set KEY=VALUE]...      settings of the task; 64 examples of its test split
 *
 * Prints one line of JSON: questions, the fraction of them that hit the same document, and the one that hit the very fact. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "run/program.h"
#include "task/task.h"

enum { MAX_SET = 32 };

static mn_status build(void *ctx, mn_scope *s, const mn_form *form, mn_parts *parts) {
  mn_model_io in = {0}, out = {0};
  mn_io_put(&in, "tokens", mn_parts_feed(parts, "tokens", MN_I32, MN_SHAPE(form->batch, form->length)));
  mn_model_build(s, ctx, &in, &out);
  return mn_graph_status(mn_scope_graph(s));
}

/* The segment that states what is asked at token t of x, of segments of L tokens: its tag, and the key followed by its value. */
static int64_t stated(const int32_t *x, const int32_t *y, int64_t t, int64_t L) {
  for (int64_t i = 2; i < t / L * L; i++)
    if (x[i] == y[t] && x[i - 1] == x[t - 1] && i % L > 2 && !memcmp(x + i / L * L, x + t / L * L, 2 * sizeof *x)) return i / L;
  return -1;
}

static mn_status run(mn_model *model, const mn_params *params, const mn_task *task, int64_t examples, int64_t L) {
  int64_t T = task->seq_len, asked = 0, same = 0, fact = 0;
  mn_program_config c = {.backend = params->backend,
                         .params = params,
                         .build = {.param = params->dtype, .compute = MN_F32},
                         .builder = build,
                         .ctx = model,
                         .settled = true};
  mn_program *p;
  mn_routine *r;
  int32_t *x = mn_alloc((size_t)T * sizeof *x), *y = mn_alloc((size_t)T * sizeof *y);
  float *back = mn_alloc((size_t)T * sizeof *back);
  if (!x || !y || !back) return MN_ERR_MEMORY;
  MN_TRY(mn_program_new(&c, &p));
  MN_TRY(mn_program_enter(p, &(mn_form){.batch = 1, .length = T, .report = "recalled"}, &r));
  if (mn_routine_results(r) != 1) return mn_fail(MN_ERR_CONFIG, "this model looks nothing up");
  for (int64_t i = 0; i < examples; i++) {
    MN_TRY(mn_task_sample(task, MN_SPLIT_TEST, (uint64_t)i, x, y));
    MN_TRY(mn_routine_put(r, 0, x));
    MN_TRY(mn_routine_run(r, NULL));
    MN_TRY(mn_routine_get_all(r, 0, back));
    for (int64_t t = 0; t < T; t++) {
      if (y[t] == MN_IGNORE) continue;
      int64_t found = t / L - (int64_t)back[t / L * L];
      asked++;
      same += !memcmp(x + found * L, x + t / L * L, 2 * sizeof *x);
      fact += found == stated(x, y, t, L);
    }
  }
  printf("{\"questions\": %lld, \"same_document\": %.4f, \"fact\": %.4f}\n", (long long)asked, (double)same / (double)asked,
         (double)fact / (double)asked);
  mn_program_leave(p);
  mn_program_free(p);
  free(x);
  free(y);
  free(back);
  return MN_OK;
}

int main(int argc, char **argv) {
  const char *set[MAX_SET];
  int n = 0;
  int64_t examples = 64, L = 32;
  if (argc < 2 || argc % 2) return fprintf(stderr, "usage: bench-recalled MODEL [--examples N] [--set KEY=VALUE]...\n"), 2;
  for (int i = 2; i < argc; i += 2) {
    if (!strcmp(argv[i], "--examples")) examples = atoll(argv[i + 1]);
    else if (!strcmp(argv[i], "--set") && n < MAX_SET) set[n++] = argv[i + 1];
    else return fprintf(stderr, "bench-recalled: what is %s?\n", argv[i]), 2;
    if (!strncmp(argv[i + 1], "segment=", 8)) L = atoll(argv[i + 1] + 8);
  }
  mn_backend *backend;
  mn_model *model;
  mn_params *params;
  mn_task *task;
  mn_status status = mn_backend_open("cpu", 1, &backend);
  if (status == MN_OK) status = mn_model_load_dir(argv[1], backend, MN_F32, &model, &params);
  if (status == MN_OK) status = mn_task_open_set("topics", set, n, &task);
  if (status == MN_OK) status = run(model, params, task, examples, L);
  if (status != MN_OK) fprintf(stderr, "bench-recalled: %s\n", mn_message());
  return status != MN_OK; /* everything else ends with the process */
}
