/* session_turn.c - a session of a model that answers in turns (rxt): the end of a turn, which writes its memory. */
#include <stdlib.h>
#include <string.h>

#include "run/session_internal.h"

/* The end comes with a token that no row has. */
mn_status mn_session_build_turn(const mn_model *m, mn_scope *s, const mn_form *form, mn_parts *parts) {
  mn_model_io in = {0}, out;
  mn_tensor *ends = mn_parts_feed(parts, "turn_ends", MN_I32, MN_SHAPE(form->batch));
  mn_io_put(&in, "tokens", mn_full(mn_scope_graph(s), MN_I32, MN_SHAPE(form->batch, 1), 0));
  mn_io_put(&in, "turn_ends", ends);
  mn_model_build(s, m, &in, &out);
  mn_parts_give(parts, "turn_ends", mn_identity(mn_scope_graph(s), ends));
  return MN_OK;
}

bool mn_session_has_turns(const mn_session *s) { return mn_model_input(s->model, "turn_ends") != NULL; }

static mn_status no_turns(const mn_session *s) {
  return mn_fail(MN_ERR_CONFIG, "a model of type %s answers in no turns: nothing of it ends before its stream does", s->model->def->name);
}

mn_status mn_session_turns(const mn_session *s, int64_t row, int64_t *out) {
  const int k = mn_states_find(s->states, "turns");
  *out = 0;
  if (!mn_session_has_turns(s) || k < 0) return no_turns(s);
  int32_t *turns = mn_alloc((size_t)s->config.batch * sizeof *turns);
  mn_status status = turns ? mn_states_get(s->states, k, turns) : MN_ERR_MEMORY;
  if (status == MN_OK) *out = turns[row];
  free(turns);
  return status;
}

/* Rows that end, as 1 and 0. */
static mn_status take_rows(mn_session *s, const bool *rows, int32_t *ends) {
  for (int64_t b = 0; b < s->config.batch; b++) {
    ends[b] = !rows || rows[b];
    s->length[b] = 0; /* no row moves on */
    if (ends[b] && mn_session_row_position(s, b) == 0)
      return mn_fail(MN_ERR_ARG, "row %lld has said nothing in its turn: there is nothing to end", (long long)b);
  }
  return MN_OK;
}

static mn_status end(mn_session *s, const int32_t *ends) {
  mn_routine *r;
  MN_TRY(mn_program_enter(s->program, &(mn_form){.batch = s->config.batch, .length = 1, .what = MN_TURN, .lengths = true}, &r));
  mn_status status = mn_routine_put(r, mn_routine_feed(r, "turn_ends"), ends);
  if (status == MN_OK) status = mn_routine_run_rows(r, s->states, s->length);
  mn_program_leave(s->program);
  return status == MN_OK ? mn_states_look(s->states) : status;
}

mn_status mn_session_end_turn(mn_session *s, const bool *rows) {
  if (!mn_session_has_turns(s)) return no_turns(s);
  int32_t *ends = mn_alloc((size_t)s->config.batch * sizeof *ends);
  mn_status status = ends ? take_rows(s, rows, ends) : MN_ERR_MEMORY;
  if (status == MN_OK) status = end(s, ends);
  free(ends);
  return status;
}
