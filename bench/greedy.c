/* greedy.c - a checkpoint's likeliest tokens, for who compares them with another program's; and what it says of a text, window by window.
 *
 *     bench-greedy MODEL [--tokens N] [--threads N] [--score] [--exact]
 *
 * Reads lines of token ids from standard input, separated by spaces, and prints a line of JSON for each: `ids`, the N likeliest tokens
 * that follow, and `gap`, by how much each one's logit was above the second. With --score `nll`: minus the logarithm of what the model
 * gave the line's tokens from the second on, each by those before it. --exact: activations are never rounded to the 8 bits that products
 * with weights in blocks read (graph/stored.h). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoint/bundle.h"
#include "run/session.h"

enum { MAX_LINE = 1 << 20, MAX_IDS = 1 << 17, MAX_TOKENS = 4096 };

typedef struct bench {
  mn_bundle bundle;
  mn_session *session;
  int64_t tokens;
  bool score;
} bench;

static void two_best(const float *logits, int64_t n, int32_t *best, float *gap) {
  float first = -INFINITY, second = -INFINITY;
  for (int64_t i = 0; i < n; i++) {
    if (logits[i] > first) second = first, first = logits[i], *best = (int32_t)i;
    else if (logits[i] > second) second = logits[i];
  }
  *gap = first - second;
}

static mn_status go_on(bench *b, const int32_t *ids, int64_t n) {
  static int32_t best[MAX_TOKENS];
  static float gap[MAX_TOKENS];
  const int64_t V = mn_session_vocab_size(b->session);
  const float *logits;
  MN_TRY(mn_session_feed(b->session, ids, n, &logits));
  for (int64_t i = 0; i < b->tokens; i++) {
    two_best(logits, V, &best[i], &gap[i]);
    if (i + 1 < b->tokens) MN_TRY(mn_session_feed(b->session, &best[i], 1, &logits));
  }
  printf("{\"ids\": [");
  for (int64_t i = 0; i < b->tokens; i++) printf("%s%d", i ? ", " : "", best[i]);
  printf("], \"gap\": [");
  for (int64_t i = 0; i < b->tokens; i++) printf("%s%.6g", i ? ", " : "", gap[i]);
  printf("]}\n");
  return MN_OK;
}

static mn_status score(bench *b, const int32_t *ids, int64_t n) {
  static float nll[MAX_IDS];
  if (n < 2) return mn_fail(MN_ERR_ARG, "--score needs two tokens in a line at least");
  MN_TRY(mn_session_score(b->session, ids, ids + 1, n - 1, nll));
  printf("{\"nll\": [");
  for (int64_t i = 0; i + 1 < n; i++) printf("%s%.7g", i ? ", " : "", nll[i]);
  printf("]}\n");
  return MN_OK;
}

static mn_status line(bench *b, char *text) {
  static int32_t ids[MAX_IDS];
  int64_t n = 0;
  for (char *word = strtok(text, " \t\r\n"); word; word = strtok(NULL, " \t\r\n")) {
    char *end;
    long id = strtol(word, &end, 10);
    if (*end || n == MAX_IDS) return mn_fail(MN_ERR_ARG, *end ? "'%s' is no token id" : "a line holds too many ids", word);
    ids[n++] = (int32_t)id;
  }
  if (!n) return MN_OK;
  MN_TRY(mn_session_reset(b->session));
  mn_status status = b->score ? score(b, ids, n) : go_on(b, ids, n);
  fflush(stdout);
  return status;
}

int main(int argc, char **argv) {
  static char text[MAX_LINE];
  static bench b = {.tokens = 64};
  int threads = 0;
  bool exact = false;
  for (int i = 2; i < argc; i++) {
    const bool more = i + 1 < argc;
    if (!strcmp(argv[i], "--tokens") && more) b.tokens = atoll(argv[++i]);
    else if (!strcmp(argv[i], "--threads") && more) threads = atoi(argv[++i]);
    else if (!strcmp(argv[i], "--score")) b.score = true;
    else if (!strcmp(argv[i], "--exact")) exact = true;
    else argc = 0;
  }
  if (argc < 2 || b.tokens < 1 || b.tokens > MAX_TOKENS) {
    fprintf(stderr, "usage: bench-greedy MODEL [--tokens N] [--threads N] [--score] [--exact] <ids\n");
    return 2;
  }
  mn_status status = mn_bundle_open(argv[1], NULL, threads, &b.bundle);
  if (status == MN_OK) b.bundle.params->exact_products = exact;
  if (status == MN_OK) status = mn_session_new(b.bundle.model, b.bundle.params, &(mn_session_config){0}, &b.session);
  while (status == MN_OK && fgets(text, sizeof text, stdin)) status = line(&b, text);
  if (status != MN_OK) fprintf(stderr, "bench-greedy: %s\n", mn_message());
  mn_session_free(b.session);
  mn_bundle_close(&b.bundle);
  return status != MN_OK;
}
