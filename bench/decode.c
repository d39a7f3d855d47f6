/* decode.c - a token of a model that is read from a file, beside the rate at which this machine reads memory: every weight is read once for
 * each token, so that rate is the limit.
 *
 *     bench-decode MODEL [--threads N] [--context N] [--tokens N] [--turns N] [--prefill N] [--batch N] [--exact] [--cache TYPE] [--profile] [--told] [--going-on]
 *
 * MODEL is any that mneme opens; its caches hold what the options ask for. In each turn, by turns: `prefill` tokens into a fresh stream; `context` tokens and then `tokens` more, one
 * at a time; the machine's read bandwidth. The shortest of each counts. `of bandwidth` is the bytes of weights and states that a token reads, over its
 * time, over the bandwidth. --exact: activations are never rounded to 8 bits. --cache: of attention, f32, bf16, f16 or q8_0. --profile: each step of a token's plan. --told:
 * one turn for each line of standard input, answered by a line of JSON, for who measures something else by turns; before them a line says how
 * long it took from the program's start until 16 tokens were read (`first`). --going-on: the context is read once, in the first turn, and each turn
 * goes on where the one before ended: for long contexts, of at most --turns turns and one. No prefill is measured then. */
#include "backend/cpu/machine.h"
#include "base/narrow.h"
#include "checkpoint/bundle.h"
#include "run/session.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct setting {
  const char *model;
  int64_t threads, context, tokens, turns, prefill, batch;
  bool exact, profile, told, going_on;
  double began;
  mn_dtype cache;
} setting;

enum { FIRST = 16, SEGMENT = 512 /* tokens that are read at once, of all rows */, PROFILED = 20 };

/* Bytes that a token reads: all parameters, of a table of embeddings that is no head one row. */
static double weights_read(const mn_bundle *b) {
  double bytes = 0;
  for (int i = 0; i < b->params->n_model; i++) {
    const bool table = !strcmp(b->params->info[i].name, "embed_tokens.weight") && !b->model->config.tie_embeddings;
    if (!table) bytes += (double)mn_params_bytes(b->params, i);
  }
  return bytes;
}

static void line(void *ctx, const char *text) {
  (void)ctx;
  printf("%s\n", text);
}

static mn_status show_profile(mn_session *s, const int32_t *tokens, int64_t batch) {
  mn_program *p = mn_session_program(s);
  mn_routine *r;
  for (int pass = 0; pass < 2; pass++) {
    MN_TRY(mn_program_enter(p, &(mn_form){.batch = batch, .length = 1, .multiple = 1}, &r));
    if (pass == 0) mn_plan_profile(mn_routine_plan(r), true);
    else mn_plan_describe(mn_routine_plan(r), line, NULL);
    mn_program_leave(p);
    for (int i = 0; pass == 0 && i < PROFILED; i++) MN_TRY(mn_session_feed(s, tokens, 1, NULL));
  }
  return MN_OK;
}

/* As a server does: logits are there for whoever draws, where they were made. */
static mn_status feed(mn_session *s, const int32_t *tokens, int64_t n) {
  const float *logits;
  return mn_session_step(s, tokens, n, NULL, &logits);
}

static mn_status turn(const setting *o, mn_session *s, const int32_t *tokens, double *prefill, double *token) {
  const bool goes_on = o->going_on && mn_session_position(s) >= o->context;
  double began = mn_now();
  if (!goes_on) {
    MN_TRY(mn_session_reset(s));
    if (o->prefill) MN_TRY(feed(s, tokens, o->prefill));
    *prefill = mn_now() - began;
    MN_TRY(mn_session_reset(s));
    MN_TRY(feed(s, tokens, o->context));
  }
  began = mn_now();
  for (int64_t i = 0; i < o->tokens; i++) MN_TRY(feed(s, tokens + i % o->context, 1));
  *token = (mn_now() - began) / (double)o->tokens;
  return MN_OK;
}

static mn_status measure(const setting *o, const mn_bundle *b, mn_session *s, int32_t *tokens) {
  double prefill = INFINITY, token = INFINITY, bandwidth = 0, p = 0, t;
  char line_of[256];
  if (o->told) {
    MN_TRY(feed(s, tokens, FIRST));
    printf("{\"first\": %.9g}\n", mn_now() - o->began);
    fflush(stdout);
  }
  MN_TRY(mn_session_warm_up(s, false, INT64_MAX));
  while (o->told && fgets(line_of, sizeof line_of, stdin)) {
    MN_TRY(turn(o, s, tokens, &p, &t));
    printf("{\"prefill\": %.9g, \"token\": %.9g}\n", p, t);
    fflush(stdout);
  }
  if (o->told) return MN_OK;
  for (int64_t i = 0; i < o->turns; i++) {
    MN_TRY(turn(o, s, tokens, &p, &t));
    prefill = fmin(prefill, p);
    token = fmin(token, t);
    bandwidth = fmax(bandwidth, mn_machine_bandwidth(b->backend->pool));
  }
  const double weights = weights_read(b), bytes = weights + (double)mn_session_state_bytes(s);
  printf("weights, states  %10.1f MB  %8.1f MB\n", weights / 1e6, (bytes - weights) / 1e6);
  printf("a token          %10.3f ms  %8.1f tokens/s  %6.2f GB/s of %.2f, of bandwidth %.2f\n", token * 1e3, (double)o->batch / token,
         bytes / token / 1e9, bandwidth, bytes / token / 1e9 / bandwidth);
  if (o->prefill)
    printf("%5lld tokens      %10.3f ms  %8.1f tokens/s\n", (long long)o->prefill, prefill * 1e3,
           (double)(o->prefill * o->batch) / prefill);
  return o->profile ? show_profile(s, tokens, o->batch) : MN_OK;
}

static mn_status run(const setting *o) {
  mn_bundle b;
  mn_session *s = NULL;
  const int64_t longer = o->context > o->prefill ? o->context : o->prefill, most = longer > FIRST ? longer : FIRST;
  int32_t *tokens = mn_alloc(sizeof *tokens * (size_t)(o->batch * (most + 1)));
  mn_status status = tokens ? mn_bundle_open(o->model, NULL, (int)o->threads, &b) : MN_ERR_MEMORY;
  if (status == MN_OK) {
    b.params->exact_products = o->exact;
    mn_bundle_limit(&b, most + o->tokens * (o->going_on ? o->turns + 1 : 1) +
                            (o->profile ? PROFILED : 0)); /* a model without caches needs none */
    b.params->cache = o->cache;
    for (int64_t i = 0; i < o->batch * (most + 1); i++)
      tokens[i] = (int32_t)(mn_random_uniform(3, 0, (uint64_t)i) * (double)b.model->config.vocab_size);
    const int64_t segment = o->batch < SEGMENT ? SEGMENT / o->batch : 1;
    status = mn_session_new(b.model, b.params, &(mn_session_config){.batch = o->batch, .prefill = segment}, &s);
    if (status == MN_OK) status = measure(o, &b, s, tokens);
    mn_session_free(s);
    mn_bundle_close(&b);
  }
  free(tokens);
  return status;
}

int main(int argc, char **argv) {
  setting o = {.began = mn_now(), .context = 128, .tokens = 64, .turns = 5, .prefill = 512, .batch = 1};
  struct {
    const char *name;
    int64_t *value;
  } numbers[] = {{"--threads", &o.threads}, {"--context", &o.context}, {"--tokens", &o.tokens},
                 {"--turns", &o.turns},     {"--prefill", &o.prefill}, {"--batch", &o.batch}};
  for (int i = 1; i < argc; i++) {
    bool known = false;
    for (size_t k = 0; k < sizeof numbers / sizeof *numbers; k++)
      if (!strcmp(argv[i], numbers[k].name) && i + 1 < argc) *numbers[k].value = strtoll(argv[++i], NULL, 10), known = true;
    if (!strcmp(argv[i], "--exact")) o.exact = known = true;
    for (mn_dtype t = 0; !strcmp(argv[i], "--cache") && i + 1 < argc && t < MN_ALL_TYPES; t++)
      if (!strcmp(argv[i + 1], mn_dtype_name(t)) && (t == MN_F32 || mn_is_narrow(t))) o.cache = t, known = true;
    if (known && !strcmp(argv[i], "--cache")) i++;
    if (!strcmp(argv[i], "--told")) o.told = known = true;
    if (!strcmp(argv[i], "--going-on")) o.going_on = known = true, o.prefill = 0;
    if (!strcmp(argv[i], "--profile")) o.profile = known = true;
    if (argv[i][0] != '-' && !known && !o.model) o.model = argv[i], known = true;
    if (!known) {
      fprintf(stderr, "bench-decode: %s is no option; see the head of bench/decode.c\n", argv[i]);
      return 2;
    }
  }
  if (!o.model) {
    fprintf(stderr, "bench-decode MODEL\n");
    return 2;
  }
  if (run(&o) == MN_OK) return 0;
  fprintf(stderr, "bench-decode: %s\n", mn_message());
  return 1;
}
