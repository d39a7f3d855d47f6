/* eval_contexts.c - `mneme eval --lengths` on a text: how well the same tokens are said after ever more of what stands before them
 * (eval/context_eval.h), as a table, as JSON lines and drawn. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/eval_source.h"
#include "cli/progress.h"
#include "format/plot.h"

enum { MOST_JUDGED = 256, PLACES = 20, BATCH = 8 };

/* ---- what is asked ---- */

static int by_length(const void *a, const void *b) {
  const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return (x > y) - (x < y);
}

mn_status mn_eval_contexts_options(mn_eval_run *e) {
  mn_context_config *c = &e->contexts;
  *c = (mn_context_config){.places = mn_cli_given(e->cli, "examples") ? e->examples : PLACES,
                           .batch = mn_cli_given(e->cli, "batch") ? e->batch : BATCH,
                           .prefill = e->seq_len,
                           .compute = e->compute,
                           .forget = mn_cli_given(e->cli, "forget"),
                           .seed = e->cli->seed_given ? e->cli->seed : 1};
  MN_TRY(mn_cli_ints(e->cli, "lengths", 1, MN_POSITION_MAX - 1, c->length, MN_CONTEXTS, &c->n));
  qsort(c->length, (size_t)c->n, sizeof *c->length, by_length);
  for (int i = 1; i < c->n; i++)
    if (c->length[i] == c->length[i - 1]) return mn_fail(MN_ERR_CONFIG, "--lengths names %" PRId64 " twice", c->length[i]);
  c->judged = c->length[0] > 1 ? c->length[0] / 2 : 1;
  if (c->judged > MOST_JUDGED) c->judged = MOST_JUDGED;
  return mn_cli_int(e->cli, "judged", 1, c->length[0], &c->judged);
}

/* ---- what was found ---- */

static void print_table(const mn_eval_run *e, const mn_context_eval *r, double seconds, int64_t tokens) {
  const mn_context_config *c = &e->contexts;
  char rate[16], time[16];
  mn_print("%s: the same %" PRId64 " tokens at each of %" PRId64 " places, after ever more of what stands before them\n", e->what,
           c->judged, r->places);
  mn_print("%s tokens/s, %s; %zu bytes of state after %" PRId64 " tokens\n\n", mn_human_count((double)tokens / seconds, rate),
           mn_human_time(seconds, time), r->state_bytes, c->length[c->n - 1]);
  mn_print("  %9s  %8s  %18s  %10s  %10s  %8s  %18s\n", "read", "loss", "95 %", "perplexity", "bits/byte", "gained", "95 %");
  for (int i = 0; i < c->n; i++) {
    const mn_context_cell *cell = &r->cell[i];
    char loss[40], gain[40] = "", bits[24] = "-";
    snprintf(loss, sizeof loss, "%.4f to %.4f", cell->loss.low, cell->loss.high);
    if (i) snprintf(gain, sizeof gain, "%+.4f to %+.4f", cell->gain.low, cell->gain.high);
    if (isfinite(cell->bits_per_byte)) snprintf(bits, sizeof bits, "%.4f", cell->bits_per_byte);
    mn_print("  %9" PRId64 "  %8.4f  %18s  %10.3f  %10s", c->length[i], cell->loss.value, loss, exp(cell->loss.value), bits);
    if (i) mn_print("  %+8.4f  %18s", cell->gain.value, gain);
    mn_print("\n");
  }
  mn_print("\nread: tokens of each stream; loss: nats a token; gained: loss less than after %" PRId64
           ", place by place; 95 %%: of a bootstrap over places\n",
           c->length[0]);
}

static mn_status lines(const mn_eval_run *e, const mn_context_eval *r) {
  char hex[33];
  MN_TRY(mn_model_fingerprint(e->bundle.model, e->bundle.params, hex));
  for (int i = 0; i < e->contexts.n; i++) {
    const mn_context_cell *cell = &r->cell[i];
    json_t *line =
        json_pack("{s:o,s:o,s:s,s:I,s:s,s:o,s:[o,o]}", "model", mn_cli_text(mn_cli_get(e->cli, "model")), "on", mn_cli_text(e->what),
                  "fingerprint", hex, "parameters", (json_int_t)mn_params_count(e->bundle.params), "metric", "loss", "value",
                  mn_cli_number(cell->loss.value), "interval", mn_cli_number(cell->loss.low), mn_cli_number(cell->loss.high));
    json_object_update_new(line, json_pack("{s:I,s:I,s:I,s:o,s:o,s:[o,o],s:I}", "T", (json_int_t)e->contexts.length[i], "judged",
                                           (json_int_t)e->contexts.judged, "places", (json_int_t)r->places, "bits_per_byte",
                                           mn_cli_number(cell->bits_per_byte), "gain", mn_cli_number(cell->gain.value), "gain_interval",
                                           mn_cli_number(cell->gain.low), mn_cli_number(cell->gain.high), "state_bytes",
                                           (json_int_t)r->state_bytes));
    mn_cli_json_line(e->cli, line);
  }
  return MN_OK;
}

static mn_status draw(const mn_eval_run *e, const mn_context_eval *r) {
  double x[MN_CONTEXTS], y[3][MN_CONTEXTS];
  mn_plot_series series[3];
  for (int i = 0; i < e->contexts.n; i++) {
    x[i] = (double)e->contexts.length[i];
    y[0][i] = r->cell[i].loss.value;
    y[1][i] = r->cell[i].loss.low;
    y[2][i] = r->cell[i].loss.high;
  }
  for (int k = 0; k < 3; k++) series[k] = (mn_plot_series){.x = x, .y = y[k], .n = (size_t)e->contexts.n, .dashed = k > 0, .beside = k > 0};
  const mn_plot plot = {.title = "What a longer past is worth",
                        .x_label = "tokens read",
                        .y_label = "loss of the last ones, nats a token",
                        .x_log = true,
                        .series = series,
                        .n_series = 3};
  return mn_cli_draw(e->cli, &plot);
}

/* ---- all ---- */

mn_status mn_eval_view_contexts(mn_eval_run *e, const mn_source *source) {
  const mn_corpus *corpus = mn_source_corpus(source);
  mn_context_config *c = &e->contexts;
  mn_context_eval r;
  const int64_t tokens = mn_context_tokens(corpus, MN_SPLIT_VALIDATION, c);
  const double began = mn_now();
  c->watch = (mn_watch){mn_cli_stop_flag(), mn_progress_told, mn_progress_new(e->cli, "contexts", "tokens", tokens)};
  mn_status status = mn_eval_contexts(e->bundle.model, e->bundle.params, corpus, MN_SPLIT_VALIDATION, c, &r);
  mn_progress_free(c->watch.ctx);
  MN_TRY(status);
  if (r.forgot) mn_cli_note(e->cli, "streams were longer than the model holds: their oldest tokens were forgotten");
  if (e->cli->json) MN_TRY(lines(e, &r));
  else print_table(e, &r, mn_now() - began, tokens);
  return draw(e, &r);
}
