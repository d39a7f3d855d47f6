/* session_frames.c - a model that reads frames. It judges them: what came so far at each place, and what it all is if it ends here, which is
 * asked of a segment in which no row has a frame. Or it says what to do, or what follows, at each place (`forecast`). */
#include "base/element.h"
#include "base/finite.h"
#include "run/session_internal.h"

#include <stdlib.h>
#include <string.h>

/* ---- what it is ---- */
bool mn_session_reads_frames(const mn_model *m) { return m->inputs[0].name && strcmp(m->inputs[0].name, "frames") == 0; }

static int64_t last_of(const mn_model *m, const mn_port *p) {
  if (!p) return 0;
  const mn_shape s = mn_model_shape(m, p, (mn_sizes){1, 1, 1});
  return s.ndim ? s.dim[s.ndim - 1] : 0;
}

int64_t mn_session_channels(const mn_session *s) { return mn_session_reads_frames(s->model) ? last_of(s->model, &s->model->inputs[0]) : 0; }

/* The logits of a whole sequence, [B,N]; NULL: it gives none. */
static const mn_port *judged(const mn_model *m) {
  const mn_port *p = mn_session_reads_frames(m) ? mn_model_output(m, "logits") : NULL;
  return p && strlen(p->axes) == 2 ? p : NULL;
}

int64_t mn_session_classes(const mn_session *s) { return judged(s->model) ? last_of(s->model, judged(s->model)) : 0; }

/* What it says at each place, [B,T,N]; NULL: nothing. */
static const mn_port *at_places(const mn_model *m) {
  const mn_port *p = mn_model_output(m, judged(m) ? "running" : "forecast");
  return mn_session_reads_frames(m) && p && strlen(p->axes) == 3 && p->axes[1] == 'T' ? p : NULL;
}

int64_t mn_session_outputs(const mn_session *s) { return last_of(s->model, judged(s->model) ? judged(s->model) : at_places(s->model)); }

int64_t mn_session_late(const mn_session *s) {
  if (!at_places(s->model)) return -1;
  return s->model->def->late ? s->model->def->late(s->model) : 0;
}

/* ---- the program ---- */
mn_status mn_session_build_frames(const mn_model *m, mn_scope *s, const mn_form *form, mn_parts *parts) {
  mn_model_io in = {0}, out = {0};
  mn_graph *g = mn_scope_graph(s);
  const mn_shape shape = mn_model_shape(m, &m->inputs[0], (mn_sizes){.B = form->batch, .T = form->length});
  if (!judged(m) && !at_places(m))
    return mn_fail(MN_ERR_CONFIG, "a model of type %s does not say what a sequence is: it cannot be run as a session", m->def->name);
  mn_io_put(&in, "frames", mn_parts_feed(parts, "frames", mn_scope_exact(s), shape));
  mn_model_build(s, m, &in, &out);
  MN_TRY(mn_graph_status(g));
  const mn_port *p = form->what == MN_JUDGE ? judged(m) : at_places(m);
  mn_tensor *said = p ? mn_io_get(&out, p->name) : NULL;
  if (said) mn_parts_give(parts, "said", mn_cast(g, said, MN_F32));
  return MN_OK;
}

/* ---- a segment ---- */
mn_status mn_session_put_frames(mn_session *s, mn_routine *r, const mn_feeding *f, int64_t at) {
  const int feed = mn_routine_feed(r, "frames");
  const mn_dtype type = mn_routine_feed_type(r, feed);
  const int64_t T = mn_routine_form(r)->length, C = mn_session_channels(s);
  void *rows = mn_calloc((size_t)(s->config.batch * T * C), mn_dtype_size(type));
  if (!rows) return MN_ERR_MEMORY;
  for (int64_t b = 0; b < s->config.batch; b++)
    for (int64_t k = 0; k < s->length[b] * C; k++) mn_element_store(rows, type, b * T * C + k, (double)f->frames[(b * f->n + at) * C + k]);
  mn_status status = mn_routine_put(r, feed, rows);
  free(rows);
  return status;
}

mn_status mn_session_take_running(const mn_session *s, const mn_routine *r, const mn_feeding *f, int64_t at) {
  const int64_t N = s->outputs, T = mn_routine_form(r)->length;
  for (int64_t b = 0; b < s->config.batch; b++) {
    float *to = f->running + (b * f->n + at) * N;
    const int64_t n = s->length[b] * N;
    MN_TRY(mn_routine_get(r, 0, b * T * N, n, to));
    const int64_t bad = mn_first_not_finite(MN_F32, to, n);
    if (bad >= 0)
      return mn_session_not_a_number(mn_session_row_position(s, b) - s->length[b] + bad / N + 1, b, s->config.batch, "the logit", bad % N,
                                     to + bad);
  }
  return MN_OK;
}

/* ---- the calls ---- */
mn_status mn_session_feed_frames(mn_session *s, const float *frames, int64_t n, float *running) {
  if (!mn_session_outputs(s))
    return mn_fail(MN_ERR_CONFIG, "a model of type %s reads no frames that a stream could be fed", s->model->def->name);
  if (n < 1) return mn_fail(MN_ERR_ARG, "a session is fed at least one frame");
  if (running && mn_session_late(s) < 0)
    return mn_fail(MN_ERR_CONFIG, "a model of type %s says nothing before a sequence ends", s->model->def->name);
  const int64_t C = mn_session_channels(s), bad = mn_first_not_finite(MN_F32, frames, s->config.batch * n * C);
  if (bad >= 0)
    return mn_fail(MN_ERR_NUMERIC, "number %lld of frame %lld in row %lld is %s", (long long)(bad % C), (long long)(bad / C % n),
                   (long long)(bad / C / n), mn_not_finite_name(MN_F32, frames, bad));
  return mn_session_run(s, &(mn_feeding){.frames = frames, .n = n, .running = running});
}

mn_status mn_session_judge(mn_session *s, const float **logits) {
  mn_routine *r;
  if (!mn_session_classes(s))
    return mn_fail(MN_ERR_CONFIG, "a model of type %s does not say what a sequence of frames is", s->model->def->name);
  const mn_form form = {.batch = s->config.batch, .length = 1, .what = MN_JUDGE, .lengths = true};
  for (int64_t b = 0; b < s->config.batch; b++) {
    s->length[b] = 0;
    if (!mn_session_row_position(s, b)) return mn_fail(MN_ERR_CONFIG, "row %lld has no frame yet: there is nothing to judge", (long long)b);
  }
  MN_TRY(mn_program_enter(s->program, &form, &r));
  mn_status status = mn_routine_run_rows(r, s->states, s->length);
  if (status == MN_OK) status = mn_session_need_logits(s);
  if (status == MN_OK) status = mn_routine_get(r, 0, 0, s->config.batch * s->outputs, s->logits);
  mn_program_leave(s->program);
  MN_TRY(status);
  const int64_t bad = mn_first_not_finite(MN_F32, s->logits, s->config.batch * s->outputs), row = bad / s->outputs;
  if (bad >= 0)
    return mn_session_not_a_number(mn_session_row_position(s, row), row, s->config.batch, "the logit", bad % s->outputs, s->logits + bad);
  *logits = s->logits;
  return MN_OK;
}
