/* metrics.c - see metrics.h. */
#include "serve/metrics.h"

#include <string.h>

void mn_histogram_add(mn_histogram *h, double seconds) {
  int i = 0;
  for (double edge = 0.001; i < MN_HISTOGRAM && seconds > edge; edge *= 2) i++;
  h->count[i]++;
  h->sum += seconds;
}

void mn_metrics_reply(mn_metrics *m, const char *endpoint, int status) {
  int i = 0;
  while (i < m->n_replies && (m->replies[i].status != status || strcmp(m->replies[i].endpoint, endpoint) != 0)) i++;
  if (i == m->n_replies) {
    if (i == MN_METRIC_STATUSES * 8) return;
    m->replies[m->n_replies++].endpoint = endpoint;
    m->replies[i].status = status;
  }
  m->replies[i].n++;
}

void mn_metrics_task(mn_metrics *m, const mn_task *t) {
  const mn_task_times *at = &t->times;
  if (at->admitted > 0) mn_histogram_add(&m->waited, at->admitted - at->posted);
  if (at->first > 0) mn_histogram_add(&m->first, at->first - at->posted);
  const int64_t each = t->made / t->answers; /* its answers are made side by side */
  if (at->first > 0 && each > 1) mn_histogram_add(&m->token, (at->over - at->first) / (double)(each - 1));
  mn_histogram_add(&m->whole, at->over - at->posted);
}

static void head(mn_text *out, const char *name, const char *type, const char *help) {
  mn_text_addf(out, "# HELP mneme_%s %s\n# TYPE mneme_%s %s\n", name, help, name, type);
}

static void number(mn_text *out, const char *name, const char *type, const char *help, double x) {
  head(out, name, type, help);
  mn_text_addf(out, "mneme_%s %.17g\n", name, x);
}

static void histogram(mn_text *out, const char *name, const char *help, const mn_histogram *h) {
  int64_t all = 0;
  head(out, name, "histogram", help);
  double edge = 0.001;
  for (int i = 0; i < MN_HISTOGRAM; i++, edge *= 2)
    mn_text_addf(out, "mneme_%s_bucket{le=\"%g\"} %lld\n", name, edge, (long long)(all += h->count[i]));
  all += h->count[MN_HISTOGRAM];
  mn_text_addf(out, "mneme_%s_bucket{le=\"+Inf\"} %lld\nmneme_%s_sum %.17g\nmneme_%s_count %lld\n", name, (long long)all, name, h->sum,
               name, (long long)all);
}

static void batches(mn_text *out, const mn_batcher_counts *b) {
  int64_t all = 0;
  head(out, "batch_rows", "histogram", "Streams in a step.");
  for (int i = 0; i < MN_BATCH_SIZES - 1; i++)
    mn_text_addf(out, "mneme_batch_rows_bucket{le=\"%d\"} %lld\n", 1 << i, (long long)(all += b->steps_of[i]));
  mn_text_addf(out, "mneme_batch_rows_bucket{le=\"+Inf\"} %lld\nmneme_batch_rows_sum %lld\nmneme_batch_rows_count %lld\n",
               (long long)b->steps, (long long)b->row_steps, (long long)b->steps);
}

void mn_metrics_write(const mn_metrics *m, const mn_metrics_now *now, mn_text *out) {
  const mn_batcher_counts *b = &now->batch;
  head(out, "requests_total", "counter", "Replies, by endpoint and status.");
  for (int i = 0; i < m->n_replies; i++)
    mn_text_addf(out, "mneme_requests_total{endpoint=\"%s\",status=\"%d\"} %lld\n", m->replies[i].endpoint, m->replies[i].status,
                 (long long)m->replies[i].n);
  number(out, "clients_left_total", "counter", "Clients that did not wait for the end of their reply.", (double)m->left);
  number(out, "requests_refused_total", "counter", "Requests refused because as many waited as may.", (double)m->refused);
  number(out, "requests_reading", "gauge", "Requests whose bodies are read and whose prompts become tokens.", now->bodies);
  number(out, "connections", "gauge", "Open connections.", now->connections);
  number(out, "session_bytes", "gauge", "Bytes of the states of kept sessions.", (double)now->session_bytes);
  if (!now->text) return;
  number(out, "requests_waiting", "gauge", "Prompts that wait.", (double)b->waiting);
  number(out, "prompts_reading", "gauge", "Prompts that are being read.", (double)b->reading);
  number(out, "streams_running", "gauge", "Answers that are being made.", (double)b->rows);
  number(out, "batch_room", "gauge", "Rows that the batch has.", (double)b->room);
  number(out, "state_bytes", "gauge", "Bytes of the states of streams that run.", (double)b->state_bytes);
  number(out, "prompt_tokens_total", "counter", "Tokens of prompts read.", (double)b->tokens_read);
  number(out, "generated_tokens_total", "counter", "Tokens made.", (double)b->tokens_made);
  number(out, "steps_total", "counter", "Steps of the batch.", (double)b->steps);
  number(out, "step_seconds_total", "counter", "Seconds spent in steps, draws of their tokens among them.", b->step_seconds);
  number(out, "piece_seconds_total", "counter", "Seconds spent reading prompts.", b->piece_seconds);
  batches(out, b);
  histogram(out, "queue_seconds", "Seconds that a prompt waited.", &m->waited);
  histogram(out, "first_token_seconds", "Seconds until the first token.", &m->first);
  histogram(out, "token_seconds", "Seconds for each further token of a request, mean.", &m->token);
  histogram(out, "generation_seconds", "Seconds of a request's generation.", &m->whole);
}
