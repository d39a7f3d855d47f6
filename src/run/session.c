/* session.c - see session.h. A program for the model (feeding, scoring), states for its streams, and between them the ladder of
 * lengths; what is compiled is the program's and may be shared. */
#include "run/session.h"

#include "base/element.h"
#include "base/blocks.h"
#include "base/finite.h"
#include "base/narrow.h"
#include "format/safetensors.h"
#include "graph/fused_loss.h"
#include "run/ladder.h"
#include "run/session_internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the program ---- */
static mn_status build(void *ctx, mn_scope *s, const mn_form *form, mn_parts *parts) {
  const mn_model *m = ctx;
  mn_graph *g = mn_scope_graph(s);
  const int64_t B = form->batch, T = form->length, D = m->config.d_model;
  mn_model_io in = {0}, out = {0};
  if (form->what == MN_SOURCE) return mn_session_build_source(m, s, form, parts);
  if (mn_session_reads_frames(m)) return mn_session_build_frames(m, s, form, parts);
  if (form->what == MN_TURN) return mn_session_build_turn(m, s, form, parts);
  mn_io_put(&in, "tokens", mn_parts_feed(parts, "tokens", MN_I32, MN_SHAPE(B, T)));
  mn_model_build(s, m, &in, &out);
  mn_tensor *h = mn_io_get(&out, "hidden"), *w = mn_io_get(&out, "head");
  MN_TRY(mn_graph_status(g));
  if (!h || !w) return mn_fail(MN_ERR_CONFIG, "a model of type %s expects no next token: it cannot be run as a session", m->def->name);
  if (form->what == MN_FEED) { /* only the last token's, which in a padded row stands earlier */
    mn_tensor *length = mn_scope_length(s);
    h = length ? mn_take(g, h, mn_reshape(g, mn_add_scalar(g, length, -1), MN_SHAPE(B, 1)), 1) : mn_slice(g, h, 1, T - 1, 1);
    mn_parts_give(parts, "logits", mn_cast(g, mn_reshape(g, mn_logits(s, h, w), MN_SHAPE(B, m->config.vocab_size)), MN_F32));
    return MN_OK;
  }
  mn_tensor *target = mn_parts_feed(parts, "targets", MN_I32, MN_SHAPE(B, T)), *nll = NULL;
  mn_linear_cross_entropy(g, mn_reshape(g, h, MN_SHAPE(B * T, D)), w, mn_reshape(g, target, MN_SHAPE(B * T)), NULL, &nll);
  mn_parts_give(parts, "nll", mn_cast(g, nll, MN_F32));
  return MN_OK;
}

static mn_status program_new(const mn_model *model, const mn_params *params, const mn_session_config *how, mn_program **out) {
  *out = NULL;
  MN_TRY(mn_model_check_stream(model));
  void *ctx;
  memcpy(&ctx, &model, sizeof ctx); /* the builder reads it */
  const mn_program_config c = {
      .backend = params->backend,
      .params = params,
      .build = {.param = params->dtype,
                .compute = how->compute == MN_BF16 ? MN_BF16 : params->dtype,
                .carried = true,
                .forget = how->forget},
      .builder = build,
      .ctx = ctx,
      .put_back = how->passing,
      .settled = true,
  };
  return mn_program_new(&c, out);
}

mn_status mn_session_program_new(const mn_model *model, const mn_params *params, mn_dtype compute, bool forget, mn_program **out) {
  return program_new(model, params, &(mn_session_config){.compute = compute, .forget = forget}, out);
}

mn_program *mn_session_program(const mn_session *s) { return s->program; }

/* ---- making and ending ---- */
static mn_status open_session(mn_session *s) {
  const mn_session_config *c = &s->config;
  s->arena = mn_arena_new();
  if (!s->arena) return MN_ERR_MEMORY;
  if (c->program) s->program = mn_program_share(c->program);
  else MN_TRY(program_new(s->model, s->params, c, &s->program));
  s->config.program = s->program;
  MN_TRY(mn_program_limit(s->program, &s->limit));
  if (!c->forget && c->prefill > s->limit.tokens) s->config.prefill = s->limit.tokens; /* no segment is longer */
  s->outputs = mn_session_reads_frames(s->model) ? mn_session_outputs(s) : s->model->config.vocab_size;
  s->segment = mn_alloc((size_t)(c->batch * c->prefill) * sizeof *s->segment);
  s->length = mn_alloc((size_t)c->batch * sizeof *s->length);
  s->sourced = mn_calloc((size_t)c->batch, sizeof *s->sourced);
  return s->segment && s->length && s->sourced ? MN_OK : MN_ERR_MEMORY;
}

/* All but the states. */
static mn_status session_new(const mn_model *model, const mn_params *params, const mn_session_config *config, mn_session **out) {
  *out = NULL;
  mn_session *s = mn_calloc(1, sizeof *s);
  if (!s) return MN_ERR_MEMORY;
  *s = (mn_session){.model = model, .params = params, .config = *config};
  mn_session_config *c = &s->config;
  if (c->program) c->compute = mn_program_config_of(c->program)->build.compute, c->forget = mn_program_config_of(c->program)->build.forget;
  if (c->batch == 0) c->batch = 1;
  if (c->prefill == 0) c->prefill = 256;
  if (c->compute != MN_BF16) c->compute = params->dtype;
  if (c->fingerprint) snprintf(s->fingerprint, sizeof s->fingerprint, "%s", c->fingerprint);
  c->fingerprint = NULL;
  mn_status status = MN_OK;
  if (c->batch < 1 || c->prefill < 1) status = mn_fail(MN_ERR_ARG, "a session needs a batch and a prefill of at least 1");
  if (status == MN_OK) status = open_session(s);
  if (status != MN_OK) mn_session_free(s);
  else *out = s;
  return status;
}

mn_status mn_session_new(const mn_model *model, const mn_params *params, const mn_session_config *config, mn_session **out) {
  MN_TRY(session_new(model, params, config, out));
  mn_status status = mn_program_states((*out)->program, (*out)->config.batch, &(*out)->states);
  if (status == MN_OK) return MN_OK;
  mn_session_free(*out);
  *out = NULL;
  return status;
}

static void forget_reports(mn_session *s) {
  for (int i = 0; i < s->n_reports; i++) free(s->report_values[i]);
  s->n_reports = 0;
  s->report_room = 0;
  s->report = NULL;
}

void mn_session_free(mn_session *s) {
  if (!s) return;
  forget_reports(s);
  mn_states_free(s->states);
  mn_program_free(s->program);
  free(s->logits);
  free(s->segment);
  free(s->length);
  free(s->sourced);
  mn_arena_free(s->arena);
  free(s);
}

mn_status mn_session_fork(const mn_session *s, mn_session **out) {
  mn_session_config c = s->config;
  c.fingerprint = s->fingerprint[0] ? s->fingerprint : NULL;
  MN_TRY(session_new(s->model, s->params, &c, out));
  mn_status status = mn_states_clone(s->states, &(*out)->states);
  if (status == MN_OK) memcpy((*out)->sourced, s->sourced, (size_t)s->config.batch * sizeof *s->sourced);
  if (status == MN_OK && s->report) status = mn_session_report(*out, s->report);
  if (status == MN_OK) return MN_OK;
  mn_session_free(*out);
  *out = NULL;
  return status;
}

/* ---- states ---- */
static mn_status fingerprint_of(const mn_session *s, char out[33]) {
  if (!s->fingerprint[0]) return mn_model_fingerprint(s->model, s->params, out);
  if (out != s->fingerprint) memcpy(out, s->fingerprint, sizeof s->fingerprint);
  return MN_OK;
}

/* The same model and parameters, or as on another backend copies of them. */
static mn_status of_one_model(const mn_session *a, const mn_session *b) {
  char of_a[33] = "", of_b[33] = "";
  const bool same = a->model == b->model && a->params == b->params, apart = a->params->backend != b->params->backend;
  if (apart) MN_TRY(fingerprint_of(a, of_a));
  if (apart) MN_TRY(fingerprint_of(b, of_b));
  if ((same || (apart && strcmp(of_a, of_b) == 0)) && a->config.compute == b->config.compute) return MN_OK;
  return mn_fail(MN_ERR_ARG, "a session's state goes to a session of the same model, parameters and type only");
}

mn_status mn_session_copy(mn_session *to, const mn_session *from) {
  MN_TRY(of_one_model(to, from));
  MN_TRY(mn_states_copy(to->states, from->states));
  memcpy(to->sourced, from->sourced, (size_t)from->config.batch * sizeof *from->sourced);
  return MN_OK;
}

mn_status mn_session_copy_row(mn_session *to, int64_t to_row, const mn_session *from, int64_t from_row) {
  return mn_session_copy_row_from(to, to_row, from, from_row, 0);
}

mn_status mn_session_copy_row_from(mn_session *to, int64_t to_row, const mn_session *from, int64_t from_row, int64_t known) {
  MN_TRY(of_one_model(to, from));
  MN_TRY(mn_states_copy_row_from(to->states, to_row, from->states, from_row, known));
  to->sourced[to_row] = from->sourced[from_row];
  return MN_OK;
}

mn_status mn_session_select(mn_session *to, const mn_session *from, const int64_t *rows) {
  MN_TRY(of_one_model(to, from));
  MN_TRY(mn_states_select(to->states, from->states, rows));
  for (int64_t b = 0; b < to->config.batch; b++) to->sourced[b] = from->sourced[rows[b]];
  return MN_OK;
}

mn_status mn_session_reset_rows(mn_session *s, const bool *rows) {
  const mn_states *first;
  MN_TRY(mn_program_first(s->program, &first));
  MN_TRY(mn_states_reset(s->states, first, rows));
  for (int64_t b = 0; b < s->config.batch; b++) s->sourced[b] = s->sourced[b] && rows && !rows[b];
  return MN_OK;
}

mn_status mn_session_reset(mn_session *s) { return mn_session_reset_rows(s, NULL); }

int64_t mn_session_row_position(const mn_session *s, int64_t row) { return mn_states_position(s->states)[row]; }

int64_t mn_session_position(const mn_session *s) {
  int64_t furthest = 0;
  for (int64_t b = 0; b < s->config.batch; b++)
    if (mn_states_position(s->states)[b] > furthest) furthest = mn_states_position(s->states)[b];
  return furthest;
}

/* ---- what comes out ---- */
static mn_status check_source(const mn_session *s, int64_t row) {
  char of[64] = "this session";
  if (!s->model->def->kept || s->sourced[row]) return MN_OK;
  if (s->config.batch > 1) snprintf(of, sizeof of, "row %lld of this session", (long long)row);
  return mn_fail(MN_ERR_CONFIG, "a model of type %s says something about a %s, and %s has none: it must be given first",
                 s->model->def->name, s->model->def->kept, of);
}

static mn_status check_tokens(const mn_session *s, const int32_t *tokens, int64_t count) {
  if (mn_session_reads_frames(s->model))
    return mn_fail(MN_ERR_CONFIG, "this model of type %s reads frames of numbers, not tokens", s->model->def->name);
  for (int64_t i = 0; i < count; i++)
    if (tokens[i] < 0 || tokens[i] >= s->model->config.vocab_size)
      return mn_fail(MN_ERR_ARG, "token %lld is %d; the vocabulary has %lld", (long long)i, tokens[i],
                     (long long)s->model->config.vocab_size);
  return MN_OK;
}

mn_status mn_session_not_a_number(int64_t position, int64_t row, int64_t B, const char *what, int64_t token, const float *x) {
  char of[64] = "", in[48] = "";
  if (token >= 0) snprintf(of, sizeof of, " of token %lld", (long long)token);
  if (B > 1) snprintf(in, sizeof in, " in row %lld", (long long)row);
  return mn_fail(MN_ERR_NUMERIC, "the model's output is not a number after %lld tokens%s: %s%s is %s", (long long)position, in, what, of,
                 mn_not_finite_name(MN_F32, x, 0));
}

mn_status mn_session_need_logits(mn_session *s) {
  if (!s->logits) s->logits = mn_calloc((size_t)(s->config.batch * s->outputs), sizeof *s->logits);
  return s->logits ? MN_OK : MN_ERR_MEMORY;
}

/* Of row b: looked at where they lie, and copied where somebody wants them. */
static mn_status take_logits(mn_session *s, const mn_routine *r, const mn_feeding *f, int64_t b) {
  const int64_t V = s->model->config.vocab_size;
  const float *made = mn_routine_view(r, 0), *x = made ? made + b * V : NULL;
  if (f->place && made) {
    *f->place = made;
    return MN_OK;
  }
  if (!made || f->told) {
    MN_TRY(mn_session_need_logits(s));
    MN_TRY(mn_routine_get(r, 0, b * V, V, s->logits + b * V));
    x = s->logits + b * V;
  }
  const int64_t k = mn_first_not_finite(MN_F32, x, V);
  return k < 0 ? MN_OK : mn_session_not_a_number(mn_session_row_position(s, b), b, s->config.batch, "the logit", k, x + k);
}

/* Of row b, n tokens of which count. */
static mn_status take_nll(const mn_session *s, const mn_routine *r, int64_t b, int64_t n, float *to) {
  MN_TRY(mn_routine_get(r, 0, b * mn_routine_form(r)->length, n, to));
  const int64_t k = mn_first_not_finite(MN_F32, to, n);
  return k < 0 ? MN_OK : mn_session_not_a_number(mn_session_row_position(s, b) - n + k + 1, b, s->config.batch, "the loss", -1, to + k);
}

/* ---- reports ---- */
static mn_status no_report(const char *name) {
  return mn_fail(MN_ERR_CONFIG, "nothing in this model reports '%s' for each token; Titans' memories report surprise", name);
}

/* Paths of the reports of one token. Every form is asked for all of them. */
static mn_status learn_reports(mn_session *s, const mn_routine *r) {
  const int n = mn_routine_reports(r), first = mn_routine_results(r) - n;
  s->report_path = mn_arena_alloc(s->arena, (size_t)(n + 1) * sizeof *s->report_path);
  s->report_values = mn_arena_alloc(s->arena, (size_t)(n + 1) * sizeof *s->report_values);
  if (!s->report_path || !s->report_values) return MN_ERR_MEMORY;
  for (int i = 0; i < n; i++) {
    s->report_path[i] = mn_arena_strdup(s->arena, mn_routine_result_name(r, first + i));
    if (!s->report_path[i]) return MN_ERR_MEMORY;
  }
  s->n_reports = n;
  return n ? MN_OK : no_report(s->report);
}

mn_status mn_session_report(mn_session *s, const char *name) {
  forget_reports(s);
  if (!name) return MN_OK;
  s->report = mn_arena_strdup(s->arena, name);
  if (!s->report) return MN_ERR_MEMORY;
  mn_routine *r;
  mn_status status = mn_program_enter(s->program, &(mn_form){.batch = s->config.batch, .length = 1, .report = name}, &r);
  if (status == MN_OK) {
    status = learn_reports(s, r);
    mn_program_leave(s->program);
  }
  if (status != MN_OK) forget_reports(s);
  return status;
}

int mn_session_report_count(const mn_session *s) { return s->n_reports; }
const char *mn_session_report_path(const mn_session *s, int i) { return i >= 0 && i < s->n_reports ? s->report_path[i] : NULL; }
const float *mn_session_report_values(const mn_session *s, int i) { return i >= 0 && i < s->n_reports ? s->report_values[i] : NULL; }

static mn_status make_room(mn_session *s, int64_t n) {
  for (int i = 0; n > s->report_room && i < s->n_reports; i++) {
    float *more = mn_realloc(s->report_values[i], (size_t)(s->config.batch * n) * sizeof *more);
    if (!more) return MN_ERR_MEMORY;
    s->report_values[i] = more;
  }
  if (n > s->report_room) s->report_room = n;
  return MN_OK;
}

/* Does the form tell of each of its tokens what one token tells? */
static mn_status check_reports(const mn_session *s, const mn_routine *r) {
  const mn_shape shape = MN_SHAPE(s->config.batch, mn_routine_form(r)->length);
  const int n = mn_routine_reports(r), first = mn_routine_results(r) - n;
  if (n != s->n_reports) return no_report(s->report);
  for (int i = 0; i < n; i++)
    if (!mn_shape_equal(mn_routine_result_shape(r, first + i), &shape)) return no_report(s->report);
  return MN_OK;
}

/* Of a segment at `at` of n tokens. */
static mn_status take_reports(mn_session *s, const mn_routine *r, int64_t at, int64_t n) {
  const int64_t T = mn_routine_form(r)->length;
  for (int i = 0; i < s->n_reports; i++)
    for (int64_t b = 0; b < s->config.batch; b++)
      MN_TRY(mn_routine_get(r, mn_routine_results(r) - s->n_reports + i, b * T, s->length[b], s->report_values[i] + b * n + at));
  return MN_OK;
}

/* ---- running ---- */
/* Columns [at, at + T) for the feed of that name; what does not count becomes `padding`. */
static mn_status put_segment(mn_session *s, mn_routine *r, const char *name, const int32_t *x, const mn_feeding *f, int64_t at,
                             int32_t padding) {
  const int64_t T = mn_routine_form(r)->length;
  if (T == f->n && !mn_routine_form(r)->lengths) return mn_routine_put(r, mn_routine_feed(r, name), x);
  for (int64_t b = 0; b < s->config.batch; b++) {
    int32_t *row = s->segment + b * T;
    memcpy(row, x + b * f->n + at, (size_t)s->length[b] * sizeof *x);
    for (int64_t t = s->length[b]; t < T; t++) row[t] = padding;
  }
  return mn_routine_put(r, mn_routine_feed(r, name), s->segment);
}

/* The segment at `at`, and what it gave. */
static mn_status run_segment(mn_session *s, mn_routine *r, const mn_feeding *f, int64_t at) {
  if (s->report) MN_TRY(check_reports(s, r));
  MN_TRY(f->frames ? mn_session_put_frames(s, r, f, at) : put_segment(s, r, "tokens", f->tokens, f, at, 0));
  if (f->targets) MN_TRY(put_segment(s, r, "targets", f->targets, f, at, -1));
  /* the state stands behind it then, whatever the output is */
  MN_TRY(mn_routine_form(r)->lengths ? mn_routine_run_rows(r, s->states, s->length) : mn_routine_run(r, s->states));
  MN_TRY(take_reports(s, r, at, f->n));
  if (f->frames) return f->running ? mn_session_take_running(s, r, f, at) : MN_OK;
  for (int64_t b = 0; b < s->config.batch; b++) {
    const int64_t end = f->count ? f->count[b] : f->n, done = s->length[b];
    if (f->targets) MN_TRY(take_nll(s, r, b, done, f->nll + b * f->n + at));
    else if (done && at + done == end) MN_TRY(take_logits(s, r, f, b));
  }
  return MN_OK;
}

/* How many tokens of each row a segment of T takes; true: all of them T. */
static bool cut(mn_session *s, const mn_feeding *f, int64_t at, int64_t T) {
  bool all = true;
  for (int64_t b = 0; b < s->config.batch; b++) {
    int64_t left = (f->count ? f->count[b] : f->n) - at;
    s->length[b] = (int32_t)(left < 0 ? 0 : left < T ? left : T);
    all = all && s->length[b] == T;
  }
  return all;
}

static mn_status check_room(const mn_session *s, const mn_feeding *f) {
  if (!f->count) return mn_session_fits(s, f->n);
  for (int64_t b = 0; b < s->config.batch; b++) {
    if (f->count[b] < 0 || f->count[b] > f->n)
      return mn_fail(MN_ERR_ARG, "row %lld is fed %d of %lld tokens", (long long)b, (int)f->count[b], (long long)f->n);
    MN_TRY(mn_limit_check(&s->limit, s->config.forget, mn_session_row_position(s, b), f->count[b]));
  }
  return MN_OK;
}

mn_status mn_session_run(mn_session *s, const mn_feeding *f) {
  const int64_t B = s->config.batch, longest = s->config.prefill;
  int64_t alignment = 1, n = 0;
  for (int64_t b = 0; b < B; b++) n = f->count && f->count[b] > n ? f->count[b] : n;
  if (!f->count) n = f->n;
  MN_TRY(check_room(s, f));
  MN_TRY(make_room(s, f->n));
  if (n > 1) MN_TRY(mn_program_alignment(s->program, longest, &alignment));
  for (int64_t at = 0; at < n;) {
    const bool pads = mn_session_position(s) <= MN_POSITION_MAX - longest; /* padding has positions, too */
    const mn_rung rung = mn_ladder_next(longest, alignment, B, mn_states_position(s->states), n - at, pads);
    const bool all = cut(s, f, at, rung.length);
    const mn_form form = {.batch = B,
                          .length = rung.length,
                          .multiple = rung.multiple,
                          .what = f->targets ? MN_SCORE : MN_FEED,
                          .lengths = !all,
                          .report = s->report};
    mn_routine *r;
    MN_TRY(mn_program_enter(s->program, &form, &r));
    mn_status status = run_segment(s, r, f, at);
    mn_program_leave(s->program);
    MN_TRY(status);
    at += rung.counts;
    if (n - at >= longest) MN_TRY(mn_stop_check("reading a long text")); /* less is soon over */
  }
  return MN_OK;
}

static mn_status feed(mn_session *s, const mn_feeding *f) {
  if (f->n < 1) return mn_fail(MN_ERR_ARG, "a session is fed at least one token");
  MN_TRY(check_room(s, f));
  for (int64_t b = 0; b < s->config.batch; b++) {
    const int64_t n = f->count ? f->count[b] : f->n;
    if (n) MN_TRY(check_source(s, b));
    MN_TRY(check_tokens(s, f->tokens + b * f->n, n));
  }
  return mn_session_run(s, f);
}

/* Logits of rows that are fed nothing are kept for whoever asks later. */
mn_status mn_session_feed_rows(mn_session *s, const int32_t *tokens, int64_t n, const int32_t *count, const float **logits) {
  MN_TRY(mn_session_need_logits(s));
  MN_TRY(feed(s, &(mn_feeding){.tokens = tokens, .count = count, .n = n, .told = true}));
  if (logits) *logits = s->logits;
  return MN_OK;
}

mn_status mn_session_feed(mn_session *s, const int32_t *tokens, int64_t n, const float **logits) {
  return mn_session_feed_rows(s, tokens, n, NULL, logits);
}

mn_status mn_session_step(mn_session *s, const int32_t *tokens, int64_t n, const int32_t *count, const float **logits) {
  *logits = NULL;
  if (count && n > 1) return mn_fail(MN_ERR_ARG, "rows of their own lengths end in different segments");
  MN_TRY(feed(s, &(mn_feeding){.tokens = tokens, .count = count, .n = n, .told = true, .place = logits}));
  if (!*logits) *logits = s->logits;
  return MN_OK;
}

mn_status mn_session_score(mn_session *s, const int32_t *tokens, const int32_t *targets, int64_t n, float *nll) {
  if (n < 1) return mn_fail(MN_ERR_ARG, "a session is fed at least one token");
  for (int64_t b = 0; b < s->config.batch; b++) MN_TRY(check_source(s, b));
  MN_TRY(check_tokens(s, tokens, n * s->config.batch));
  for (int64_t i = 0; i < n * s->config.batch; i++)
    if (targets[i] >= s->model->config.vocab_size) return mn_fail(MN_ERR_ARG, "target %lld is %d", (long long)i, targets[i]);
  return mn_session_run(s, &(mn_feeding){.tokens = tokens, .targets = targets, .n = n, .nll = nll});
}

mn_status mn_session_warm_up(mn_session *s, bool scores, int64_t most) {
  int64_t alignment = 1, T;
  const int64_t B = s->config.batch, longest = s->config.prefill;
  int32_t *zeros = mn_calloc((size_t)(B * longest), sizeof *zeros);
  float *nll = mn_alloc((size_t)(B * longest) * sizeof *nll);
  mn_status status = zeros && nll ? MN_OK : MN_ERR_MEMORY;
  if (status == MN_OK && longest > 1) status = mn_program_alignment(s->program, longest, &alignment);
  bool first = true; /* the longest that is compiled */
  for (int i = 0; status == MN_OK && mn_ladder_length(longest, alignment, i, &T); i++) {
    if (T / 2 >= most) continue;  /* nor is a text of so many padded to it */
    status = mn_session_reset(s); /* at 0 each is taken whole */
    if (status == MN_OK) status = scores ? mn_session_score(s, zeros, zeros, T, nll) : feed(s, &(mn_feeding){.tokens = zeros, .n = T});
    const bool padded = first && T >= 4;
    first = false;
    if (status != MN_OK || !padded) continue;
    status = mn_session_reset(s); /* the end of a text, padded */
    if (status == MN_OK)
      status = scores ? mn_session_score(s, zeros, zeros, T - 1, nll) : feed(s, &(mn_feeding){.tokens = zeros, .n = T - 1});
  }
  free(zeros);
  free(nll);
  return status == MN_OK ? mn_session_reset(s) : status;
}

/* ---- limits ---- */
mn_limit mn_session_limit(const mn_session *s) { return s->limit; }
mn_status mn_session_fits(const mn_session *s, int64_t n) { return mn_limit_check(&s->limit, s->config.forget, mn_session_position(s), n); }
mn_status mn_session_fits_at_most(const mn_session *s, int64_t n) {
  int64_t end = MN_POSITION_MAX - mn_session_position(s);
  return mn_session_fits(s, n < end ? n : end);
}
bool mn_session_forgets(const mn_session *s) { return mn_session_position(s) > s->limit.tokens; }

int64_t mn_session_room(const mn_session *s) {
  int64_t at = mn_session_position(s);
  if (s->config.forget || s->limit.tokens == MN_LIMIT_NONE) return MN_LIMIT_NONE;
  return s->limit.tokens > at ? s->limit.tokens - at : 0;
}

/* ---- looking at it ---- */
int64_t mn_session_batch(const mn_session *s) { return s->config.batch; }
int64_t mn_session_vocab_size(const mn_session *s) { return s->model->config.vocab_size; }
size_t mn_session_state_bytes(const mn_session *s) { return mn_states_used_bytes(s->states); }
size_t mn_session_held_bytes(const mn_session *s) { return mn_states_held_bytes(s->states); }
size_t mn_session_room_bytes(const mn_session *s) { return mn_states_room_bytes(s->states); }
int mn_session_count(const mn_session *s) { return mn_states_count(s->states); }

mn_status mn_session_at(const mn_session *s, int i, mn_session_tensor *out) {
  if (i < 0 || i >= mn_session_count(s)) return mn_fail(MN_ERR_ARG, "a session of %d tensors has no tensor %d", mn_session_count(s), i);
  *out = (mn_session_tensor){.info = *mn_states_info(s->states, i)};
  void *host;
  MN_TRY(mn_states_take(s->states, i, &out->info.shape, &host));
  out->bytes = mn_shape_bytes(&out->info.shape, out->info.dtype);
  double sum = 0;
  const bool narrow = mn_dtype_is_stored(out->info.dtype);
  const int64_t block = mn_block_values(out->info.dtype);
  float values[MN_BLOCK];
  for (int64_t k = 0, n = mn_shape_count(&out->info.shape); k < n; k++) {
    if (narrow && k % block == 0) mn_widen(out->info.dtype, (const char *)host + mn_dtype_bytes(out->info.dtype, k), block, values);
    double x = narrow ? (double)values[k % block] : mn_element_load(host, out->info.dtype, k);
    sum += x * x;
  }
  out->norm = sqrt(sum);
  free(host);
  return MN_OK;
}

/* ---- files ---- */
static mn_status need_fingerprint(mn_session *s) { return fingerprint_of(s, s->fingerprint); }

mn_status mn_session_fingerprint(mn_session *s, const char **out) {
  *out = s->fingerprint;
  return need_fingerprint(s);
}

mn_status mn_session_save(mn_session *s, const char *path) { return mn_session_save_over(s, path, NULL); }

mn_status mn_session_save_over(mn_session *s, const char *path, mn_file_stamp *stamp) {
  MN_TRY(need_fingerprint(s));
  const char *tokenizer = s->params->origin.tokenizer;
  char *sources = s->model->def->kept ? mn_calloc((size_t)s->config.batch + 1, 1) : NULL;
  if (s->model->def->kept && !sources) return MN_ERR_MEMORY;
  for (int64_t b = 0; sources && b < s->config.batch; b++) sources[b] = s->sourced[b] ? '1' : '0';
  const mn_states_meta meta[] = {
      {"format", "mneme session 1"}, {"model", s->fingerprint}, {"tokenizer", *tokenizer ? tokenizer : NULL}, {"sources", sources}};
  mn_status status = mn_states_save(s->states, path, stamp, 4, meta);
  free(sources);
  return status;
}

static mn_status check_file(mn_session *s, const mn_st *st, const char *path) {
  const char *format = mn_st_meta(st, "format"), *model = mn_st_meta(st, "model");
  if (format && !strncmp(format, "mneme conversation", 18))
    return mn_fail(
        MN_ERR_FORMAT,
        "%s is a dialogue with its words, as servers and chats with a template keep them; without a template a chat keeps a state alone",
        path);
  if (!format || strcmp(format, "mneme session 1") != 0)
    return mn_fail(MN_ERR_FORMAT, "%s is not a session file of this version (its metadata says %s)", path, format ? format : "nothing");
  MN_TRY(need_fingerprint(s));
  if (!model || strcmp(model, s->fingerprint) != 0)
    return mn_fail(MN_ERR_CONFIG, "%s was saved with another model, or with room for another context (fingerprint %s; here it is %s)", path,
                   model ? model : "missing", s->fingerprint);
  const char *was = mn_st_meta(st, "tokenizer"), *is = s->params->origin.tokenizer;
  if (was && *is && strcmp(was, is) != 0)
    return mn_fail(MN_ERR_CONFIG, "%s was saved with another tokenizer (%s; this model's is %s)", path, was, is);
  const char *sources = s->model->def->kept ? mn_st_meta(st, "sources") : NULL; /* a 1 for each row that has one, else a 0 */
  if (s->model->def->kept && (!sources || strlen(sources) != (size_t)s->config.batch || strspn(sources, "01") != strlen(sources)))
    return mn_fail(MN_ERR_FORMAT, "%s does not say which of %lld rows have a %s", path, (long long)s->config.batch, s->model->def->kept);
  return MN_OK;
}

mn_status mn_session_load(mn_session *s, const char *path) {
  mn_st *st;
  MN_TRY(mn_st_open(path, &st));
  mn_status status = check_file(s, st, path);
  if (status == MN_OK) status = mn_states_load(s->states, st);
  const char *sources = status == MN_OK && s->model->def->kept ? mn_st_meta(st, "sources") : NULL;
  for (int64_t b = 0; sources && b < s->config.batch; b++) s->sourced[b] = sources[b] == '1';
  mn_st_close(st);
  return status;
}
