/* bench_stream.c - see bench_stream.h. Each figure is the shortest of --steps turns, all figures taken by turns: what others do on
 * the machine then hits all of them alike. */
#include "cli/bench_stream.h"

#include "format/yaml.h"
#include "run/session.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TOKENS = 32, SEGMENT = 256, VOCAB = 8192 };
enum { TOKEN, WHOLE, ONE_LESS, FORK, COPY, RESET, TIMES };

typedef struct bench {
  mn_arena *arena;
  mn_backend *backend;
  mn_model *model;
  mn_params *params;
  mn_session *session;
  int32_t tokens[SEGMENT];
  void *from, *to; /* as many bytes as the states have */
  double best[TIMES];
} bench;

static mn_status open_bench(mn_cli *cli, bench *b) {
  mn_dtype compute;
  char text[600];
  const mn_value *v;
  const char *mixer = mn_cli_get(cli, "mixer");
  MN_TRY(mn_cli_precision(cli, "dtype", false, &compute));
  snprintf(text, sizeof text, "{vocab_size: %d, d_model: 320, layers: 6, block: {mixer: %s, channel: swiglu, hidden: 864}}", VOCAB,
           mixer ? mixer : "{type: attention, heads: 5}");
  MN_TRY(mn_yaml_parse(b->arena, "bench", text, strlen(text), &v));
  MN_TRY(mn_backend_open(NULL, cli->threads, &b->backend));
  MN_TRY(mn_model_parse(v, "bench", 0, &b->model));
  MN_TRY(mn_params_new(b->model, b->backend, MN_F32, 1, &b->params));
  const mn_session_config config = {.prefill = SEGMENT, .compute = compute};
  MN_TRY(mn_session_new(b->model, b->params, &config, &b->session));
  for (int i = 0; i < SEGMENT; i++) b->tokens[i] = (int32_t)(mn_random_uniform(11, 0, (uint64_t)i) * VOCAB);
  const size_t bytes = mn_session_room_bytes(b->session);
  b->from = mn_calloc(1, bytes + 1);
  b->to = mn_alloc(bytes + 1);
  if (!b->from || !b->to) return MN_ERR_MEMORY;
  return mn_session_warm_up(b->session, false, INT64_MAX);
}

static void note(bench *b, int what, double began, int times) {
  const double seconds = (mn_now() - began) / times;
  if (seconds < b->best[what]) b->best[what] = seconds;
}

static mn_status feed_anew(bench *b, int what, int64_t n) {
  MN_TRY(mn_session_reset(b->session));
  const double began = mn_now();
  MN_TRY(mn_session_feed(b->session, b->tokens, n, NULL));
  note(b, what, began, 1);
  return MN_OK;
}

static mn_status turn(bench *b) {
  mn_session *fork;
  MN_TRY(feed_anew(b, ONE_LESS, SEGMENT - 1));
  MN_TRY(feed_anew(b, WHOLE, SEGMENT));
  double began = mn_now();
  for (int i = 0; i < TOKENS; i++) MN_TRY(mn_session_feed(b->session, b->tokens + i, 1, NULL));
  note(b, TOKEN, began, TOKENS);
  began = mn_now();
  MN_TRY(mn_session_fork(b->session, &fork));
  note(b, FORK, began, 1);
  mn_session_free(fork);
  const size_t bytes = mn_session_room_bytes(b->session);
  void *to = b->backend->alloc(b->backend, bytes); /* fresh memory, as a fork's is */
  if (!to) return MN_ERR_MEMORY;
  began = mn_now();
  mn_status status = b->backend->copy(b->backend, to, b->from, bytes);
  note(b, COPY, began, 1);
  b->backend->free(b->backend, to, bytes);
  MN_TRY(status);
  began = mn_now();
  MN_TRY(mn_session_reset(b->session));
  note(b, RESET, began, 1);
  return MN_OK;
}

static mn_status show(const mn_cli *cli, const bench *b) {
  static const char *const keys[] = {"token_seconds", "segment_seconds", "one_less_seconds",
                                     "fork_seconds",  "copy_seconds",    "reset_seconds"};
  const double bytes = (double)mn_session_room_bytes(b->session), *t = b->best;
  if (cli->json) {
    json_t *j = json_object();
    for (int i = 0; i < TIMES; i++) json_object_set_new(j, keys[i], json_real(t[i]));
    json_object_set_new(j, "state_bytes", json_real(bytes));
    json_object_set_new(j, "parameters", json_integer(mn_params_count(b->params)));
    return mn_cli_json((mn_cli *)cli, j);
  }
  mn_print("a token           %10.1f us  (%.0f tokens/s)\n", 1e6 * t[TOKEN], 1 / t[TOKEN]);
  mn_print("%d tokens        %10.1f us  (%.0f tokens/s)\n", SEGMENT, 1e6 * t[WHOLE], SEGMENT / t[WHOLE]);
  mn_print("%d tokens        %10.1f us  (%.2f of %d)\n", SEGMENT - 1, 1e6 * t[ONE_LESS], t[ONE_LESS] / t[WHOLE], SEGMENT);
  mn_print("a fork            %10.1f us  (%.1f MiB of states; copying them alone %.1f us)\n", 1e6 * t[FORK], bytes / 1048576,
           1e6 * t[COPY]);
  mn_print("back to the start %10.1f us\n", 1e6 * t[RESET]);
  return MN_OK;
}

mn_status mn_bench_stream(mn_cli *cli) {
  bench b = {.arena = mn_arena_new()};
  int64_t n = 5;
  for (int i = 0; i < TIMES; i++) b.best[i] = INFINITY;
  mn_status status = b.arena ? mn_cli_int(cli, "steps", 1, 100000, &n) : MN_ERR_MEMORY;
  if (status == MN_OK) status = open_bench(cli, &b);
  for (int64_t i = 0; i < n && status == MN_OK; i++) {
    status = turn(&b);
    if (status == MN_OK) status = mn_stop_check("timing a stream");
  }
  if (status == MN_OK) status = show(cli, &b);
  mn_session_free(b.session);
  mn_params_free(b.params);
  mn_model_free(b.model);
  mn_backend_free(b.backend);
  mn_arena_free(b.arena);
  free(b.from);
  free(b.to);
  return status;
}
