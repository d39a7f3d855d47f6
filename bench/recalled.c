/* recalled.c - where a Hierarchical Memory Transformer looks while topics change: at every question of the task `topics`, does the
 * memory that weighs most belong to a segment of the same document?
 *
 *     bench-recalled MODEL [--examples N] [--set KEY=VALUE]...      settings of the task; 64 examples of its test split
 *
 * Prints one line of JSON: questions, the fraction of them that hit the same document, and the one that hit the very fact. */
#include "reported.h"

enum { MAX_SET = 32 };

typedef struct looked {
  int64_t L, asked, same, fact;
} looked;

static mn_status look(void *ctx, const mn_task *task, const int32_t *x, const int32_t *y, mn_routine *r) {
  looked *k = ctx;
  const int64_t T = task->seq_len, L = k->L;
  float *back = mn_alloc((size_t)T * sizeof *back);
  int32_t *stated = mn_alloc((size_t)T * sizeof *stated);
  if (!back || !stated) return MN_ERR_MEMORY;
  MN_TRY(mn_routine_get_all(r, 0, back));
  task->def->evidence(task, x, stated);
  for (int64_t t = 0; t < T; t++) {
    if (y[t] == MN_IGNORE) continue;
    const int64_t found = t / L - (int64_t)back[t / L * L];
    k->asked++;
    k->same += !memcmp(x + found * L, x + t / L * L, 2 * sizeof *x); /* the tag */
    k->fact += found == stated[t] / L;
  }
  free(back);
  free(stated);
  return MN_OK;
}

int main(int argc, char **argv) {
  const char *set[MAX_SET];
  int n = 0;
  int64_t examples = 64;
  looked k = {.L = 32};
  if (argc < 2 || argc % 2) return fprintf(stderr, "usage: bench-recalled MODEL [--examples N] [--set KEY=VALUE]...\n"), 2;
  for (int i = 2; i < argc; i += 2) {
    if (!strcmp(argv[i], "--examples")) examples = atoll(argv[i + 1]);
    else if (!strcmp(argv[i], "--set") && n < MAX_SET) set[n++] = argv[i + 1];
    else return fprintf(stderr, "bench-recalled: what is %s?\n", argv[i]), 2;
    if (!strncmp(argv[i + 1], "segment=", 8)) k.L = atoll(argv[i + 1] + 8);
  }
  const mn_status status = reported_each(argv[1], "topics", set, n, "recalled", examples, look, &k);
  if (status != MN_OK) return fprintf(stderr, "bench-recalled: %s\n", mn_message()), 1;
  printf("{\"questions\": %lld, \"same_document\": %.4f, \"fact\": %.4f}\n", (long long)k.asked, (double)k.same / (double)k.asked,
         (double)k.fact / (double)k.asked);
  return 0;
}
