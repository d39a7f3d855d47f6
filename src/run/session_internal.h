/* session_internal.h - what the rooms of a session share: what a session holds. */
#ifndef MN_SESSION_INTERNAL_H
#define MN_SESSION_INTERNAL_H

#include "run/session.h"

enum { MN_FEED, MN_SCORE, MN_SOURCE }; /* mn_form.what */

struct mn_session {
  const mn_model *model;
  const mn_params *params;
  mn_program *program;
  mn_session_config config;
  char fingerprint[33];
  mn_arena *arena;
  mn_states *states;
  float *logits;    /* [batch, vocab_size] */
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

/* The program's computation that takes a source (session_source.c). */
mn_status mn_session_build_source(const mn_model *m, mn_scope *s, const mn_form *form, mn_parts *parts);

#endif
