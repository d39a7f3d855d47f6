/* kept.c - what B'MOJO keeps of associative recall: of the tokens of pairs that no other part of a layer sees when a key is asked, how many
 * are among the old ones that it chose?
 *
 *     bench-kept MODEL [--examples N] [--window W] [--chunk C] [--set KEY=VALUE]...          settings of the task mqar; w is 16, and C is w
 *
 * Prints one line of JSON: the fraction in the first layer that reports `kept`, and in the last. */
#include "reported.h"

enum { MAX_SET = 32, MAX_LAYERS = 64 };

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

typedef struct tally {
  int64_t window, chunk, there[MAX_LAYERS], found[MAX_LAYERS];
  int layers;
} tally;

static mn_status add(void *ctx, const mn_task *task, const int32_t *x, const int32_t *y, mn_routine *r) {
  tally *k = ctx;
  const int64_t T = task->seq_len;
  k->layers = mn_routine_results(r);
  if (k->layers > MAX_LAYERS) return mn_fail(MN_ERR_CONFIG, "more than %d layers keep tokens", MAX_LAYERS);
  for (int l = 0; l < k->layers; l++) {
    const int64_t n = mn_shape_count(mn_routine_result_shape(r, l)) / T;
    float *at = mn_alloc((size_t)(n * T) * sizeof *at);
    if (!at) return MN_ERR_MEMORY;
    MN_TRY(mn_routine_get_all(r, l, at));
    for (int64_t t = 0; t < T; t++)
      if (y[t] != MN_IGNORE) count(x, t / k->chunk * k->chunk - 2 * k->window, at + t * n, n, &k->there[l], &k->found[l]);
    free(at);
  }
  return MN_OK;
}

int main(int argc, char **argv) {
  const char *set[MAX_SET];
  int n = 0;
  int64_t examples = 64;
  tally k = {.window = 16};
  if (argc < 2 || argc % 2)
    return fprintf(stderr, "usage: bench-kept MODEL [--examples N] [--window W] [--chunk C] [--set KEY=VALUE]...\n"), 2;
  for (int i = 2; i < argc; i += 2) {
    if (!strcmp(argv[i], "--examples")) examples = atoll(argv[i + 1]);
    else if (!strcmp(argv[i], "--window")) k.window = atoll(argv[i + 1]);
    else if (!strcmp(argv[i], "--chunk")) k.chunk = atoll(argv[i + 1]);
    else if (!strcmp(argv[i], "--set") && n < MAX_SET) set[n++] = argv[i + 1];
    else return fprintf(stderr, "bench-kept: what is %s?\n", argv[i]), 2;
  }
  if (!k.chunk) k.chunk = k.window;
  if (examples < 1 || k.window < 1 || k.chunk < 1) return fprintf(stderr, "bench-kept: examples, window and chunk are at least 1\n"), 2;
  const mn_status status = reported_each(argv[1], "mqar", set, n, "kept", examples, add, &k);
  if (status != MN_OK) return fprintf(stderr, "bench-kept: %s\n", mn_message()), 1;
  printf("{\"first\": %.4f, \"last\": %.4f}\n", (double)k.found[0] / (double)k.there[0],
         (double)k.found[k.layers - 1] / (double)k.there[k.layers - 1]);
  return 0;
}
