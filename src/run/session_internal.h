/* session_internal.h - what the rooms of a session share: what a session holds. */
#ifndef MN_SESSION_INTERNAL_H
#define MN_SESSION_INTERNAL_H

#include "run/session.h"

enum { MN_FEED, MN_SCORE, MN_SOURCE, MN_JUDGE, MN_TURN }; /* mn_form.what */

typedef struct mn_feeding {                /* what is fed: [batch, n], of row b the first count[b] */
  const int32_t *tokens, *targets, *count; /* targets NULL: none; count NULL: all */
  int64_t n;
  float *nll;
  bool told;           /* logits are wanted  */
  const float **place; /* and may lie where they were made, unchecked; NULL: they are the session's own */
  const float *frames; /* [batch, n, C] in place of tokens; NULL: tokens */
  float *running;      /* frames: [batch, n, N]; NULL: nobody asks */
} mn_feeding;

struct mn_session {
  const mn_model *model;
  const mn_params *params;
  mn_program *program;
  mn_session_config config;
  char fingerprint[33];
  mn_arena *arena;
  mn_states *states;
  int64_t outputs;  /* numbers that a row is given: vocab_size, or the classes of a model that judges */
  float *logits;    /* [batch, outputs]; NULL: nobody has asked for any */
  int32_t *segment; /* [batch, prefill] tokens of a segment */
  int32_t *length;  /* [batch] those that count             */
  mn_limit limit;
  bool *sourced;      /* [batch] rows that have been given what the model keeps beside tokens */
  const char *report; /* what is told beside the result, by name; NULL: nothing */
  int n_reports;
  const char **report_path;
  float **report_values; /* each [batch, report_room] */
  int64_t report_room;
};

/* The model's fingerprint, worked out where it is not known. */
mn_status mn_session_fingerprint(mn_session *s, const char **out);
/* Room for logits of its own. */
mn_status mn_session_need_logits(mn_session *s);
/* Feeds it in the ladder's segments (session.c). */
mn_status mn_session_run(mn_session *s, const mn_feeding *f);

/* ---- a model that reads frames and judges them (session_frames.c) ---- */
bool mn_session_reads_frames(const mn_model *m);
/* The program's computations: MN_FEED gives `running` where the model has it, MN_JUDGE `logits` alone. */
mn_status mn_session_build_frames(const mn_model *m, mn_scope *s, const mn_form *form, mn_parts *parts);
/* Of a segment at `at`: what it reads, and what it said. */
mn_status mn_session_put_frames(mn_session *s, mn_routine *r, const mn_feeding *f, int64_t at);
mn_status mn_session_take_running(const mn_session *s, const mn_routine *r, const mn_feeding *f, int64_t at);
/* The message for an output that is no number. */
mn_status mn_session_not_a_number(int64_t position, int64_t row, int64_t B, const char *what, int64_t token, const float *x);

/* The program's computation that takes a source (session_source.c). */
mn_status mn_session_build_source(const mn_model *m, mn_scope *s, const mn_form *form, mn_parts *parts);
/* And the one that ends turns (session_turn.c). */
mn_status mn_session_build_turn(const mn_model *m, mn_scope *s, const mn_form *form, mn_parts *parts);

#endif
