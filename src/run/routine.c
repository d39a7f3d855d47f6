/* routine.c - running what a program has compiled; see program.h. */
#include "run/program_internal.h"

#include <inttypes.h>
#include <string.h>

/* ---- running ---- */
const mn_form *mn_routine_form(const mn_routine *r) { return &r->form; }
int mn_routine_feeds(const mn_routine *r) { return r->feeds.n; }
const char *mn_routine_feed_name(const mn_routine *r, int i) { return r->feeds.list[i].name; }
mn_dtype mn_routine_feed_type(const mn_routine *r, int i) { return r->feeds.list[i].dtype; }
const mn_shape *mn_routine_feed_shape(const mn_routine *r, int i) { return &r->feeds.list[i].shape; }

int mn_routine_feed(const mn_routine *r, const char *name) {
  for (int i = 0; i < r->feeds.n; i++)
    if (strcmp(r->feeds.list[i].name, name) == 0) return i;
  return -1;
}

mn_status mn_routine_put(mn_routine *r, int feed, const void *host) {
  if (feed < 0 || feed >= r->feeds.n) return mn_fail(MN_ERR_ARG, "a routine of %d feeds has no feed %d", r->feeds.n, feed);
  mn_buffers *b = &r->feeds;
  return b->backend->upload(b->backend, b->list[feed].data, host, b->list[feed].bytes);
}

static mn_status bind_states(mn_routine *r, mn_states *s) {
  if (!s || mn_states_count(s) != r->n_states || mn_states_batch(s) != r->form.batch)
    return mn_fail(MN_ERR_ARG, "a routine for %" PRId64 " streams of %d states is run on %" PRId64 " of %d", r->form.batch, r->n_states,
                   s ? mn_states_batch(s) : 0, s ? mn_states_count(s) : 0);
  for (int64_t b = 0; b < r->form.batch; b++)
    if (mn_states_position(s)[b] % r->form.multiple)
      return mn_fail(MN_ERR_ARG, "row %" PRId64 " stands at %" PRId64 ", which is no multiple of %" PRId64, b, mn_states_position(s)[b],
                     r->form.multiple);
  if (r->bound == mn_states_id(s)) return MN_OK;
  for (int i = 0; i < r->n_states; i++) mn_plan_bind_slot(r->plan, r->state_slot[i], mn_states_data(s, i));
  r->bound = mn_states_id(s);
  return MN_OK;
}

static mn_status run(mn_routine *r, mn_states *states, const int32_t *length, const bool *reset) {
  if (r->n_states) MN_TRY(bind_states(r, states));
  MN_TRY(mn_plan_run(r->plan));
  MN_TRY(mn_params_check_files(r->program->config.params)); /* what was computed of a file that shrank does not count */
  if (r->n_states && reset) mn_states_begun(states, reset);
  if (r->n_states) mn_states_moved(states, length, r->form.length);
  return MN_OK;
}

mn_status mn_routine_run(mn_routine *r, mn_states *states) {
  if (r->form.lengths) return mn_fail(MN_ERR_ARG, "a form whose rows have lengths is run with them");
  if (r->form.resets && r->n_states) return mn_fail(MN_ERR_ARG, "a form whose rows may begin a stream is told which do");
  return run(r, states, NULL, NULL);
}

mn_status mn_routine_run_resets(mn_routine *r, mn_states *states, const bool *reset) {
  if (!r->form.resets || r->form.lengths) return mn_fail(MN_ERR_ARG, "a form whose rows all go on is run without resets");
  MN_TRY(mn_routine_put(r, mn_routine_feed(r, "reset"), reset));
  return run(r, states, NULL, reset);
}

mn_status mn_routine_run_rows(mn_routine *r, mn_states *states, const int32_t *length) {
  if (!r->form.lengths) return mn_fail(MN_ERR_ARG, "a form whose rows are all as long is run without lengths");
  for (int64_t b = 0; b < r->form.batch; b++)
    if (length[b] < 0 || length[b] > r->form.length)
      return mn_fail(MN_ERR_ARG, "row %" PRId64 " has %d tokens of %" PRId64, b, (int)length[b], r->form.length);
  MN_TRY(mn_routine_put(r, mn_routine_feed(r, "length"), length));
  return run(r, states, length, NULL);
}

int mn_routine_results(const mn_routine *r) { return r->n_results; }
int mn_routine_reports(const mn_routine *r) { return r->n_reports; }
const char *mn_routine_result_name(const mn_routine *r, int j) { return r->results[j].name; }
mn_dtype mn_routine_result_type(const mn_routine *r, int j) { return r->results[j].dtype; }
const mn_shape *mn_routine_result_shape(const mn_routine *r, int j) { return &r->results[j].shape; }

mn_status mn_routine_get(const mn_routine *r, int j, int64_t first, int64_t n, void *host) {
  mn_backend *b = r->program->config.backend;
  if (j < 0 || j >= r->n_results || first < 0 || n < 0 || n > mn_shape_count(&r->results[j].shape) - first)
    return mn_fail(MN_ERR_ARG, "elements %" PRId64 " to %" PRId64 " of result %d: there are no such", first, first + n, j);
  const size_t size = mn_dtype_size(r->results[j].dtype);
  return b->download(b, host, (const char *)mn_plan_output(r->plan, j)->data + (size_t)first * size, (size_t)n * size);
}

const void *mn_routine_view(const mn_routine *r, int j) {
  const bool here = r->program->config.backend->on_host && j >= 0 && j < r->n_results;
  return here ? mn_plan_output(r->plan, j)->data : NULL;
}

mn_status mn_routine_get_all(const mn_routine *r, int j, void *host) {
  if (j < 0 || j >= r->n_results) return mn_fail(MN_ERR_ARG, "a routine of %d results has no result %d", r->n_results, j);
  return mn_routine_get(r, j, 0, mn_shape_count(&r->results[j].shape), host);
}

mn_plan *mn_routine_plan(const mn_routine *r) { return r->plan; }
