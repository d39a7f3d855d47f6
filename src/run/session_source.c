/* session_source.c - what a session's model says something about (encoder_decoder): given before the first token, kept by the streams.
 * A source is padded to one of few lengths, so that what is compiled does not grow with the number of sources. */
#include "base/element.h"
#include "base/finite.h"
#include "run/ladder.h"
#include "run/session_internal.h"

#include <stdlib.h>
#include <string.h>

/* The source comes with a token that no row has: it is kept, and nothing else moves. */
mn_status mn_session_build_source(const mn_model *m, mn_scope *s, const mn_form *form, mn_parts *parts) {
  mn_graph *g = mn_scope_graph(s);
  mn_model_io in = {0}, out;
  mn_tensor *length = mn_parts_feed(parts, "source_length", MN_I32, MN_SHAPE(form->batch));
  mn_io_put(&in, "tokens", mn_full(g, MN_I32, MN_SHAPE(form->batch, 1), 0));
  const mn_port *port = mn_model_input(m, "source");
  const mn_shape shape = mn_model_shape(m, port, (mn_sizes){.B = form->batch, .S = form->length});
  mn_io_put(&in, "source", mn_parts_feed(parts, "source", port->dtype == MN_F32 ? mn_scope_exact(s) : port->dtype, shape));
  mn_io_put(&in, "source_length", length);
  mn_model_build(s, m, &in, &out);
  mn_parts_give(parts, "source_length", mn_identity(g, length));
  return MN_OK;
}

/* ---- checks ---- */
static mn_status source_port(const mn_session *s, mn_dtype dtype, const mn_port **out) {
  const mn_model *m = s->model;
  *out = m->def->kept ? mn_model_input(m, m->def->kept) : NULL;
  if (!*out) return mn_fail(MN_ERR_CONFIG, "a model of type %s says nothing about a source", m->def->name);
  if ((*out)->dtype == dtype) return MN_OK;
  return mn_fail(MN_ERR_CONFIG, "the source of this model of type %s is %s (%s), not %s", m->def->name,
                 dtype == MN_I32 ? "frames" : "tokens", (*out)->help, dtype == MN_I32 ? "tokens" : "frames");
}

/* Lengths into s->length, each in [0, n]; n within the room that a stream has. */
static mn_status take_lengths(mn_session *s, int64_t n, const int32_t *length) {
  const int64_t most = mn_model_most(s->model, 'S');
  if (n < 1) return mn_fail(MN_ERR_ARG, "a source has at least one place");
  if (n > most)
    return mn_fail(MN_ERR_CONFIG, "a source of %lld places is longer than a stream of this model has room for: it holds %lld (max_source)",
                   (long long)n, (long long)most);
  for (int64_t b = 0; b < s->config.batch; b++) {
    s->length[b] = length ? length[b] : (int32_t)n;
    if (s->length[b] < 0 || s->length[b] > n)
      return mn_fail(MN_ERR_ARG, "row %lld of the source has %d places of %lld", (long long)b, (int)s->length[b], (long long)n);
  }
  return MN_OK;
}

static mn_status check_ids(const mn_session *s, const mn_port *port, const int32_t *source, int64_t n) {
  const int64_t ids = mn_model_ids(s->model, port);
  for (int64_t b = 0; b < s->config.batch; b++)
    for (int64_t t = 0; t < s->length[b]; t++) {
      const int32_t id = source[b * n + t];
      if (id < 0 || id >= ids)
        return mn_fail(MN_ERR_ARG, "token %lld of the source in row %lld is %d; its vocabulary has %lld", (long long)t, (long long)b,
                       (int)id, (long long)ids);
    }
  return MN_OK;
}

static mn_status check_numbers(const mn_session *s, const float *source, int64_t n, int64_t channels) {
  for (int64_t b = 0; b < s->config.batch; b++) {
    const float *row = source + b * n * channels;
    const int64_t bad = mn_first_not_finite(MN_F32, row, s->length[b] * channels);
    if (bad >= 0)
      return mn_fail(MN_ERR_NUMERIC, "number %lld of place %lld of the source in row %lld is %s", (long long)(bad % channels),
                     (long long)(bad / channels), (long long)b, mn_not_finite_name(MN_F32, row, bad));
  }
  return MN_OK;
}

/* ---- giving it ---- */
/* Rows of n places of `each` elements into the feed, whose rows are as long or longer; what is not there is 0. */
static mn_status put_source(const mn_session *s, mn_routine *r, mn_dtype from, const void *source, int64_t n, int64_t each) {
  const int feed = mn_routine_feed(r, "source");
  const mn_dtype type = mn_routine_feed_type(r, feed);
  const int64_t T = mn_routine_form(r)->length;
  void *rows = mn_calloc((size_t)(s->config.batch * T * each), mn_dtype_size(type));
  if (!rows) return MN_ERR_MEMORY;
  for (int64_t b = 0; b < s->config.batch; b++)
    for (int64_t k = 0; k < s->length[b] * each; k++)
      mn_element_store(rows, type, b * T * each + k, mn_element_load(source, from, b * n * each + k));
  mn_status status = mn_routine_put(r, feed, rows);
  free(rows);
  return status;
}

static mn_status give(mn_session *s, mn_dtype type, const void *source, int64_t n, int64_t each) {
  mn_routine *r;
  const mn_form form = {
      .batch = s->config.batch, .length = mn_ladder_cover(n, mn_model_most(s->model, 'S')), .what = MN_SOURCE, .lengths = true};
  MN_TRY(mn_program_enter(s->program, &form, &r));
  mn_status status = put_source(s, r, type, source, n, each);
  if (status == MN_OK) status = mn_routine_put(r, mn_routine_feed(r, "source_length"), s->length);
  for (int64_t b = 0; b < s->config.batch; b++) s->length[b] = 0; /* no row moves on */
  if (status == MN_OK) status = mn_routine_run_rows(r, s->states, s->length);
  mn_program_leave(s->program);
  for (int64_t b = 0; b < s->config.batch && status == MN_OK; b++) s->sourced[b] = true;
  return status;
}

mn_status mn_session_source(mn_session *s, const int32_t *source, int64_t n, const int32_t *length) {
  const mn_port *port;
  MN_TRY(source_port(s, MN_I32, &port));
  MN_TRY(take_lengths(s, n, length));
  MN_TRY(check_ids(s, port, source, n));
  return give(s, MN_I32, source, n, 1);
}

mn_status mn_session_source_frames(mn_session *s, const float *frames, int64_t n, const int32_t *length) {
  const mn_port *port;
  MN_TRY(source_port(s, MN_F32, &port));
  MN_TRY(take_lengths(s, n, length));
  const mn_shape shape = mn_model_shape(s->model, port, (mn_sizes){1, 1, 1});
  MN_TRY(check_numbers(s, frames, n, shape.dim[2]));
  return give(s, MN_F32, frames, n, shape.dim[2]);
}
