/* session.c - see session.h. One compiled plan per segment length of a short ladder (prefill, ..., 1); any number of tokens
 * is fed as a sum of rungs. */
#include "run/session.h"

#include "backend/ref/element.h"
#include "base/file.h"
#include "base/finite.h"
#include "base/table.h"
#include "format/safetensors.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RUNGS = 3 };

typedef struct segment { /* a compiled segment of T tokens */
  int64_t T;
  mn_graph *graph;
  mn_plan *plan;
  int32_t *tokens, *targets; /* [batch, T] host memory bound to the plan */
} segment;

struct mn_session {
  const mn_model *model;
  const mn_params *params;
  mn_backend *backend;
  mn_session_config config;
  char fingerprint[33];
  segment feed[RUNGS], score[RUNGS];
  mn_arena *arena;
  int n_states; /* [0] is the position */
  mn_state_info *info;
  mn_table state_at; /* name -> number */
  void **state;
  float *logits;
  int64_t position;
  mn_limit limit;
  const char *report; /* what is told beside the result, by name; NULL: nothing */
  int n_reports;
  const char **report_path;
  float **report_values; /* each [batch, report_room] */
  int64_t report_room;
};

static const int64_t shrink[RUNGS] = {1, 8, 0}; /* rung r: prefill / shrink[r]; the last is 1 */

static int64_t rung_length(const mn_session *s, int r) {
  int64_t T = r == RUNGS - 1 ? 1 : s->config.prefill / shrink[r];
  return T < 1 ? 1 : T;
}

static size_t state_bytes(const mn_state_info *i) { return (size_t)mn_shape_count(&i->shape) * mn_dtype_size(i->dtype); }

/* ---- plans ---- */
static void segment_free(segment *g) {
  mn_plan_free(g->plan);
  mn_graph_free(g->graph);
  free(g->tokens);
  free(g->targets);
  *g = (segment){0};
}

/* Whoever asks for a name means the report of that path, and every one whose path ends with that word. */
static bool is_report(const char *path, const char *wanted) {
  const char *dot = strrchr(path, '.');
  return strcmp(path, wanted) == 0 || strcmp(dot ? dot + 1 : path, wanted) == 0;
}

static mn_status no_report(const mn_session *s) {
  return mn_fail(MN_ERR_CONFIG,
                 "nothing in this model reports '%s' for each token; Titans' memories report surprise, but not from inside a loop over "
                 "segments: titans_mac does for one token at a time (a segment of 1)",
                 s->report);
}

/* The tensors [batch, T] that tell what was asked for, in the order in which the session knows them. */
static mn_status reports_of(const mn_session *s, const mn_scope *scope, int64_t T, mn_tensor **out) {
  const char *const *names;
  mn_tensor *const *values;
  int n = mn_scope_reports(scope, &names, &values), found = 0;
  for (int i = 0; s->report && i < n; i++) {
    if (!is_report(names[i], s->report)) continue;
    mn_shape shape = MN_SHAPE(s->config.batch, T);
    if (found == s->n_reports || !mn_shape_equal(&values[i]->shape, &shape)) return no_report(s);
    out[found++] = mn_cast(values[i]->node->graph, values[i], MN_F32);
  }
  return found == s->n_reports ? MN_OK : no_report(s);
}

static mn_status segment_new(mn_session *s, segment *out, int64_t T, bool scores) {
  int64_t B = s->config.batch, D = s->model->config.d_model;
  segment seg = {.T = T, .graph = mn_graph_new()};
  seg.tokens = mn_calloc((size_t)(B * T), sizeof *seg.tokens);
  seg.targets = mn_calloc((size_t)(B * T), sizeof *seg.targets);
  mn_graph *g = seg.graph;
  mn_build build = {.param = s->params->dtype, .compute = s->config.compute, .carried = true, .forget = s->config.forget};
  mn_scope *scope = g && seg.tokens && seg.targets ? mn_scope_new(g, build, B) : NULL;
  mn_status status = scope ? MN_OK : MN_ERR_MEMORY;
  mn_tensor *result = NULL, *tokens = NULL, *targets = NULL;
  if (status == MN_OK) {
    tokens = mn_input(g, "tokens", MN_I32, MN_SHAPE(B, T));
    if (scores) {
      targets = mn_input(g, "targets", MN_I32, MN_SHAPE(B, T));
      mn_model_loss(scope, s->model, tokens, targets, NULL, &result);
      result = mn_cast(g, result, MN_F32);
    } else {
      mn_tensor *h = mn_model_hidden(scope, s->model, tokens), *w = mn_model_head(scope, s->model);
      h = h ? mn_reshape(g, mn_slice(g, h, 1, T - 1, 1), MN_SHAPE(B, D)) : NULL; /* only the last token's */
      result = h ? mn_matmul_as(g, h, mn_transpose(g, mn_cast(g, w, h->dtype), 0, 1), mn_scope_exact(scope)) : NULL;
      result = mn_cast(g, result, MN_F32);
    }
    status = mn_graph_status(g);
  }
  if (status == MN_OK) {
    const mn_built_state *states;
    int n = mn_scope_states(scope, &states);
    mn_tensor **variables = mn_arena_alloc(g->arena, (size_t)(n + 1) * sizeof *variables);
    mn_tensor **values = mn_arena_alloc(g->arena, (size_t)(n + 1) * sizeof *values);
    for (int i = 0; i < n && variables && values; i++) variables[i] = states[i].leaf, values[i] = states[i].value;
    mn_tensor **outputs = mn_arena_alloc(g->arena, (size_t)(s->n_reports + 1) * sizeof *outputs);
    if (outputs) outputs[0] = result, status = reports_of(s, scope, T, outputs + 1);
    mn_plan_request q = {.graph = g,
                         .n_outputs = 1 + s->n_reports,
                         .outputs = outputs,
                         .n_assigns = n,
                         .variables = variables,
                         .values = values,
                         .backend = s->backend};
    if (status == MN_OK) status = variables && values && outputs ? mn_plan_compile(&q, &seg.plan) : MN_ERR_MEMORY;
    if (status == MN_OK && n != s->n_states) status = mn_fail(MN_ERR_INTERNAL, "a segment of %lld tokens has other state", (long long)T);
    for (int i = 0; i < n && status == MN_OK; i++) {
      if (strcmp(states[i].info.name, s->info[i].name) != 0 || !mn_shape_equal(&states[i].info.shape, &s->info[i].shape))
        status = mn_fail(MN_ERR_INTERNAL, "state %s depends on the segment's length", states[i].info.name);
      mn_plan_bind(seg.plan, states[i].leaf, s->state[i]);
    }
  }
  if (status == MN_OK) {
    mn_params_bind(s->params, scope, seg.plan);
    mn_plan_bind(seg.plan, tokens, seg.tokens);
    if (targets) mn_plan_bind(seg.plan, targets, seg.targets);
    *out = seg;
  } else {
    segment_free(&seg);
  }
  return status;
}

/* ---- state ---- */
static mn_status learn_states(mn_session *s, mn_scope *scope) {
  const mn_built_state *states;
  int n = mn_scope_states(scope, &states);
  s->info = mn_arena_alloc(s->arena, (size_t)(n + 1) * sizeof *s->info);
  s->state = mn_arena_alloc(s->arena, (size_t)(n + 1) * sizeof *s->state);
  if (!s->info || !s->state) return MN_ERR_MEMORY;
  for (int i = 0; i < n; i++) {
    s->info[i] = states[i].info;
    s->info[i].name = mn_arena_strdup(s->arena, states[i].info.name);
    s->info[i].help = mn_arena_strdup(s->arena, states[i].info.help ? states[i].info.help : "");
    if (!s->info[i].name || !s->info[i].help) return MN_ERR_MEMORY;
    s->state[i] = s->backend->alloc(s->backend, state_bytes(&s->info[i]));
    if (!s->state[i]) return mn_context(MN_ERR_MEMORY, "state %s", s->info[i].name);
    MN_TRY(mn_table_put(&s->state_at, s->info[i].name, i));
    s->n_states = i + 1;
  }
  s->limit = mn_scope_limit_of(scope);
  s->limit.where = mn_arena_strdup(s->arena, s->limit.where ? s->limit.where : "");
  s->limit.key = mn_arena_strdup(s->arena, s->limit.key ? s->limit.key : "");
  s->limit.remedy = mn_arena_strdup(s->arena, s->limit.remedy ? s->limit.remedy : "");
  if (!s->limit.where || !s->limit.key || !s->limit.remedy) return MN_ERR_MEMORY;
  if (!s->config.forget && s->config.prefill > s->limit.tokens) s->config.prefill = s->limit.tokens; /* no segment is longer */
  return MN_OK;
}

/* Runs the states' initial expressions (some are parameters) into the state's memory. */
static mn_status start_states(mn_session *s, bool learn) {
  mn_graph *g = mn_graph_new();
  mn_build build = {.param = s->params->dtype, .compute = s->config.compute, .carried = true};
  mn_scope *scope = g ? mn_scope_new(g, build, s->config.batch) : NULL;
  mn_status status = scope ? MN_OK : MN_ERR_MEMORY;
  mn_plan *plan = NULL;
  if (status == MN_OK) {
    mn_model_hidden(scope, s->model, mn_input(g, "tokens", MN_I32, MN_SHAPE(s->config.batch, 1)));
    status = mn_graph_status(g);
  }
  if (status == MN_OK && learn) status = learn_states(s, scope);
  if (status == MN_OK) {
    const mn_built_state *states;
    int n = mn_scope_states(scope, &states);
    mn_tensor **init = mn_arena_alloc(g->arena, (size_t)(n + 1) * sizeof *init);
    for (int i = 0; i < n && init; i++) init[i] = states[i].init;
    mn_plan_request q = {.graph = g, .n_outputs = n, .outputs = init, .backend = s->backend};
    status = init ? mn_plan_compile(&q, &plan) : MN_ERR_MEMORY;
    if (status == MN_OK) {
      mn_params_bind(s->params, scope, plan);
      status = mn_plan_run(plan);
    }
    for (int i = 0; i < n && status == MN_OK; i++)
      status = s->backend->copy(s->backend, s->state[i], mn_plan_output(plan, i)->data, state_bytes(&s->info[i]));
  }
  mn_plan_free(plan);
  mn_graph_free(g);
  s->position = 0;
  return status;
}

mn_status mn_session_new(const mn_model *model, const mn_params *params, const mn_session_config *config, mn_session **out) {
  *out = NULL;
  mn_session *s = mn_calloc(1, sizeof *s);
  if (!s) return MN_ERR_MEMORY;
  *s = (mn_session){.model = model, .params = params, .backend = params->backend, .config = *config, .arena = mn_arena_new()};
  s->state_at = (mn_table){.arena = s->arena, .names = true};
  if (s->config.batch <= 0) s->config.batch = 1;
  if (s->config.prefill <= 0) s->config.prefill = 256;
  if (config->fingerprint) snprintf(s->fingerprint, sizeof s->fingerprint, "%s", config->fingerprint);
  s->logits = mn_alloc((size_t)s->config.batch * (size_t)model->config.vocab_size * sizeof *s->logits);
  mn_status status = s->arena && s->logits ? start_states(s, true) : MN_ERR_MEMORY;
  if (status != MN_OK) mn_session_free(s);
  else *out = s;
  return status;
}

void mn_session_free(mn_session *s) {
  if (!s) return;
  for (int r = 0; r < RUNGS; r++) {
    segment_free(&s->feed[r]);
    segment_free(&s->score[r]);
  }
  for (int i = 0; i < s->n_states; i++) s->backend->free(s->backend, s->state[i], state_bytes(&s->info[i]));
  for (int i = 0; i < s->n_reports; i++) free(s->report_values[i]);
  free(s->logits);
  mn_arena_free(s->arena);
  free(s);
}

mn_status mn_session_reset(mn_session *s) { return start_states(s, false); }

mn_status mn_session_copy(mn_session *to, const mn_session *from) {
  if (to->model != from->model || to->params != from->params || to->config.batch != from->config.batch ||
      to->config.compute != from->config.compute)
    return mn_fail(MN_ERR_ARG, "a session's state goes to a session of the same model, parameters, batch and type only");
  for (int i = 0; i < from->n_states; i++)
    MN_TRY(from->backend->copy(from->backend, to->state[i], from->state[i], state_bytes(&from->info[i])));
  to->position = from->position;
  return MN_OK;
}

mn_status mn_session_fork(const mn_session *s, mn_session **out) {
  mn_session_config c = s->config;
  c.fingerprint = s->fingerprint[0] ? s->fingerprint : NULL;
  MN_TRY(mn_session_new(s->model, s->params, &c, out));
  mn_status status = mn_session_copy(*out, s);
  if (status == MN_OK && s->report) status = mn_session_report(*out, s->report);
  if (status == MN_OK) return MN_OK;
  mn_session_free(*out);
  *out = NULL;
  return status;
}

/* ---- running ---- */
static mn_status check_tokens(const mn_session *s, const int32_t *tokens, int64_t count) {
  for (int64_t i = 0; i < count; i++)
    if (tokens[i] < 0 || tokens[i] >= s->model->config.vocab_size)
      return mn_fail(MN_ERR_ARG, "token %lld is %d; the vocabulary has %lld", (long long)i, tokens[i],
                     (long long)s->model->config.vocab_size);
  return MN_OK;
}

static mn_status not_a_number(int64_t position, int64_t row, int64_t B, const char *what, int64_t token, const float *x) {
  char of[64] = "", in[48] = "";
  if (token >= 0) snprintf(of, sizeof of, " of token %lld", (long long)token);
  if (B > 1) snprintf(in, sizeof in, " in row %lld", (long long)row);
  return mn_fail(MN_ERR_NUMERIC, "the model's output is not a number after %lld tokens%s: %s%s is %s", (long long)position, in, what, of,
                 mn_not_finite_name(MN_F32, x, 0));
}

static mn_status check_logits(const mn_session *s) {
  int64_t V = s->model->config.vocab_size, k = mn_first_not_finite(MN_F32, s->logits, s->config.batch * V);
  return k < 0 ? MN_OK : not_a_number(s->position, k / V, s->config.batch, "the logit", k % V, s->logits + k);
}

static mn_status take_nll(const mn_session *s, const float *from, int64_t b, int64_t T, float *to) {
  MN_TRY(s->backend->download(s->backend, to, from + b * T, (size_t)T * sizeof *to));
  int64_t k = mn_first_not_finite(MN_F32, to, T);
  return k < 0 ? MN_OK : not_a_number(s->position - T + k + 1, b, s->config.batch, "the loss", -1, to + k);
}

/* ---- reports ---- */
static void forget_reports(mn_session *s) {
  for (int i = 0; i < s->n_reports; i++) free(s->report_values[i]);
  s->n_reports = 0;
  s->report_room = 0;
  s->report = NULL;
  for (int r = 0; r < RUNGS; r++) { /* plans are made with what they report */
    segment_free(&s->feed[r]);
    segment_free(&s->score[r]);
  }
}

/* Paths of the reports of one token. A compiled plan is asked for all of them. */
static mn_status learn_reports(mn_session *s, const mn_scope *scope) {
  const char *const *names;
  mn_tensor *const *values;
  int n = mn_scope_reports(scope, &names, &values);
  s->report_path = mn_arena_alloc(s->arena, (size_t)(n + 1) * sizeof *s->report_path);
  s->report_values = mn_arena_alloc(s->arena, (size_t)(n + 1) * sizeof *s->report_values);
  if (!s->report_path || !s->report_values) return MN_ERR_MEMORY;
  for (int i = 0; i < n; i++) {
    if (!is_report(names[i], s->report)) continue;
    s->report_values[s->n_reports] = NULL;
    s->report_path[s->n_reports++] = mn_arena_strdup(s->arena, names[i]);
  }
  return s->n_reports ? MN_OK : no_report(s);
}

mn_status mn_session_report(mn_session *s, const char *name) {
  forget_reports(s);
  if (!name) return MN_OK;
  mn_graph *g = mn_graph_new();
  mn_build build = {.param = s->params->dtype, .compute = s->config.compute, .carried = true, .forget = s->config.forget};
  mn_scope *scope = g ? mn_scope_new(g, build, s->config.batch) : NULL;
  s->report = mn_arena_strdup(s->arena, name);
  mn_status status = scope && s->report ? MN_OK : MN_ERR_MEMORY;
  if (status == MN_OK) {
    mn_model_hidden(scope, s->model, mn_input(g, "tokens", MN_I32, MN_SHAPE(s->config.batch, 1)));
    status = mn_graph_status(g);
  }
  if (status == MN_OK) status = learn_reports(s, scope);
  mn_graph_free(g);
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

/* Of a segment at `at` of n tokens. */
static mn_status take_reports(mn_session *s, const segment *g, int64_t at, int64_t n) {
  for (int i = 0; i < s->n_reports; i++) {
    const float *from = mn_plan_output(g->plan, 1 + i)->data;
    for (int64_t b = 0; b < s->config.batch; b++)
      MN_TRY(s->backend->download(s->backend, s->report_values[i] + b * n + at, from + b * g->T, (size_t)g->T * sizeof *from));
  }
  return MN_OK;
}

/* Feeds n tokens in segments; after each, takes what it gave. */
static mn_status run(mn_session *s, segment *rungs, const int32_t *tokens, const int32_t *targets, int64_t n, float *nll) {
  int64_t B = s->config.batch;
  MN_TRY(mn_session_fits(s, n));
  MN_TRY(make_room(s, n));
  for (int64_t at = 0; at < n;) {
    int r = 0;
    while (rung_length(s, r) > n - at) r++;
    segment *g = &rungs[r];
    if (!g->plan) MN_TRY(segment_new(s, g, rung_length(s, r), targets != NULL));
    for (int64_t b = 0; b < B; b++) {
      memcpy(g->tokens + b * g->T, tokens + b * n + at, (size_t)g->T * sizeof *tokens);
      if (targets) memcpy(g->targets + b * g->T, targets + b * n + at, (size_t)g->T * sizeof *targets);
    }
    MN_TRY(mn_plan_run(g->plan));
    const mn_view *y = mn_plan_output(g->plan, 0);
    s->position += g->T; /* the state stands there now, whatever the output is */
    MN_TRY(take_reports(s, g, at, n));
    if (targets) {
      for (int64_t b = 0; b < B; b++) MN_TRY(take_nll(s, y->data, b, g->T, nll + b * n + at));
    } else if (at + g->T == n) {
      MN_TRY(s->backend->download(s->backend, s->logits, y->data, (size_t)(B * s->model->config.vocab_size) * sizeof *s->logits));
      MN_TRY(check_logits(s));
    }
    at += g->T;
    if (n - at >= s->config.prefill) MN_TRY(mn_stop_check("reading a long text")); /* less is soon over */
  }
  return MN_OK;
}

mn_status mn_session_feed(mn_session *s, const int32_t *tokens, int64_t n, const float **logits) {
  if (n < 1) return mn_fail(MN_ERR_ARG, "a session is fed at least one token");
  MN_TRY(check_tokens(s, tokens, n * s->config.batch));
  MN_TRY(run(s, s->feed, tokens, NULL, n, NULL));
  if (logits) *logits = s->logits;
  return MN_OK;
}

mn_status mn_session_score(mn_session *s, const int32_t *tokens, const int32_t *targets, int64_t n, float *nll) {
  if (n < 1) return mn_fail(MN_ERR_ARG, "a session is fed at least one token");
  MN_TRY(check_tokens(s, tokens, n * s->config.batch));
  for (int64_t i = 0; i < n * s->config.batch; i++)
    if (targets[i] >= s->model->config.vocab_size) return mn_fail(MN_ERR_ARG, "target %lld is %d", (long long)i, targets[i]);
  return run(s, s->score, tokens, targets, n, nll);
}

mn_limit mn_session_limit(const mn_session *s) { return s->limit; }
mn_status mn_session_fits(const mn_session *s, int64_t n) { return mn_limit_check(&s->limit, s->config.forget, s->position, n); }
mn_status mn_session_fits_at_most(const mn_session *s, int64_t n) {
  int64_t end = MN_POSITION_MAX - s->position;
  return mn_session_fits(s, n < end ? n : end);
}
bool mn_session_forgets(const mn_session *s) { return s->position > s->limit.tokens; }

int64_t mn_session_room(const mn_session *s) {
  if (s->config.forget || s->limit.tokens == MN_LIMIT_NONE) return MN_LIMIT_NONE;
  return s->limit.tokens > s->position ? s->limit.tokens - s->position : 0;
}

int64_t mn_session_position(const mn_session *s) { return s->position; }
int64_t mn_session_vocab_size(const mn_session *s) { return s->model->config.vocab_size; }

size_t mn_session_state_bytes(const mn_session *s) {
  size_t n = 0;
  for (int i = 0; i < s->n_states; i++) n += state_bytes(&s->info[i]);
  return n;
}

int mn_session_count(const mn_session *s) { return s->n_states; }

mn_status mn_session_at(const mn_session *s, int i, mn_session_tensor *out) {
  if (i < 0 || i >= s->n_states) return mn_fail(MN_ERR_ARG, "a session of %d tensors has no tensor %d", s->n_states, i);
  *out = (mn_session_tensor){.info = s->info[i], .bytes = state_bytes(&s->info[i])};
  void *host = mn_alloc(out->bytes);
  if (!host) return MN_ERR_MEMORY;
  mn_status status = s->backend->download(s->backend, host, s->state[i], out->bytes);
  double sum = 0;
  for (int64_t k = 0, n = mn_shape_count(&s->info[i].shape); k < n && status == MN_OK; k++) {
    double x = mn_element_load(host, s->info[i].dtype, k);
    sum += x * x;
  }
  out->norm = sqrt(sum);
  free(host);
  return status;
}

/* ---- files ---- */
static mn_status need_fingerprint(mn_session *s) {
  return s->fingerprint[0] ? MN_OK : mn_model_fingerprint(s->model, s->params, s->fingerprint);
}

/* A digest over all tensors, so that an edited file is noticed. */
static mn_status digest(const mn_session *s, void *const *host, char hex[33]) {
  mn_text text = {0};
  for (int i = 0; i < s->n_states; i++) {
    char one[33];
    mn_content_hash(host[i], state_bytes(&s->info[i]), one);
    mn_text_addf(&text, "%s %s\n", s->info[i].name, one);
  }
  mn_status status = mn_text_status(&text);
  if (status == MN_OK) mn_content_hash(text.data ? text.data : "", text.len, hex);
  mn_text_free(&text);
  return status;
}

static void free_host(const mn_session *s, void **host) {
  for (int i = 0; host && i < s->n_states; i++) free(host[i]);
  free(host);
}

mn_status mn_session_save(mn_session *s, const char *path) {
  MN_TRY(need_fingerprint(s));
  mn_st_writer *w = mn_st_writer_new();
  void **host = mn_calloc((size_t)s->n_states + 1, sizeof *host);
  mn_status status = w && host ? MN_OK : MN_ERR_MEMORY;
  for (int i = 0; i < s->n_states && status == MN_OK; i++) {
    size_t n = state_bytes(&s->info[i]);
    host[i] = mn_alloc(n);
    status = host[i] ? s->backend->download(s->backend, host[i], s->state[i], n) : MN_ERR_MEMORY;
    int64_t bad = status == MN_OK ? mn_first_not_finite(s->info[i].dtype, host[i], mn_shape_count(&s->info[i].shape)) : -1;
    if (bad >= 0)
      status = mn_fail(MN_ERR_NUMERIC, "the session is not saved: its state %s is not finite (element %lld is %s)", s->info[i].name,
                       (long long)bad, mn_not_finite_name(s->info[i].dtype, host[i], bad));
    if (status == MN_OK) status = mn_st_writer_add(w, s->info[i].name, s->info[i].dtype, &s->info[i].shape, host[i]);
  }
  char hex[33], number[32];
  if (status == MN_OK) status = digest(s, host, hex);
  snprintf(number, sizeof number, "%lld", (long long)s->position);
  if (status == MN_OK) status = mn_st_writer_meta(w, "format", "mneme session 1");
  if (status == MN_OK) status = mn_st_writer_meta(w, "model", s->fingerprint);
  if (status == MN_OK) status = mn_st_writer_meta(w, "position", number);
  const char *tokenizer = s->params->origin.tokenizer;
  if (status == MN_OK && *tokenizer) status = mn_st_writer_meta(w, "tokenizer", tokenizer);
  if (status == MN_OK) status = mn_st_writer_meta(w, "digest", hex);
  if (status == MN_OK) status = mn_st_writer_save(w, path);
  mn_st_writer_free(w);
  free_host(s, host);
  return status;
}

static mn_status check_file(mn_session *s, const mn_st *st, const char *path) {
  const char *format = mn_st_meta(st, "format"), *model = mn_st_meta(st, "model");
  if (!format || strcmp(format, "mneme session 1") != 0)
    return mn_fail(MN_ERR_FORMAT, "%s is not a session file of this version (its metadata says %s)", path, format ? format : "nothing");
  MN_TRY(need_fingerprint(s));
  if (!model || strcmp(model, s->fingerprint) != 0)
    return mn_fail(MN_ERR_CONFIG, "%s was saved with another model (fingerprint %s; this model is %s)", path, model ? model : "missing",
                   s->fingerprint);
  const char *was = mn_st_meta(st, "tokenizer"), *is = s->params->origin.tokenizer;
  if (was && *is && strcmp(was, is) != 0)
    return mn_fail(MN_ERR_CONFIG, "%s was saved with another tokenizer (%s; this model's is %s)", path, was, is);
  for (int i = 0; i < mn_st_count(st); i++) {
    if (mn_table_find(&s->state_at, mn_st_at(st, i)->name, -1) < 0)
      return mn_fail(MN_ERR_FORMAT, "%s: '%s' is no state of this model", path, mn_st_at(st, i)->name);
  }
  return MN_OK;
}

static bool positions_are(const mn_session *s, const int32_t *position, int32_t at) {
  for (int64_t b = 0; b < s->config.batch; b++)
    if (position[b] != at) return false;
  return true;
}

mn_status mn_session_load(mn_session *s, const char *path) {
  mn_st *st;
  MN_TRY(mn_st_open(path, &st));
  void **host = mn_calloc((size_t)s->n_states + 1, sizeof *host);
  mn_status status = host ? check_file(s, st, path) : MN_ERR_MEMORY;
  for (int i = 0; i < s->n_states && status == MN_OK; i++) {
    const mn_st_tensor *t;
    status = mn_st_need(st, s->info[i].name, &s->info[i].shape, &t);
    if (status == MN_OK && t->dtype != s->info[i].dtype)
      status = mn_fail(MN_ERR_CONFIG, "%s: %s is %s, this session computes in %s; open it with the precision it was saved with", path,
                       s->info[i].name, t->file_dtype, mn_dtype_name(s->info[i].dtype));
    if (status == MN_OK) host[i] = mn_alloc(state_bytes(&s->info[i]));
    if (status == MN_OK) status = host[i] ? mn_st_read_finite(st, t, s->info[i].dtype, host[i]) : MN_ERR_MEMORY;
  }
  char hex[33];
  const char *kept = mn_st_meta(st, "digest"), *position = mn_st_meta(st, "position");
  if (status == MN_OK) status = digest(s, host, hex);
  if (status == MN_OK && (!kept || strcmp(kept, hex) != 0))
    status = mn_fail(MN_ERR_FORMAT, "%s was changed after it was saved: its tensors do not match their digest", path);
  long long at = position ? strtoll(position, NULL, 10) : -1;
  if (status == MN_OK && (at < 0 || at > INT32_MAX || !positions_are(s, host[0], (int32_t)at)))
    status = mn_fail(MN_ERR_FORMAT, "%s: its position '%s' does not fit its tensors", path, position ? position : "missing");
  for (int i = 0; i < s->n_states && status == MN_OK; i++)
    status = s->backend->upload(s->backend, s->state[i], host[i], state_bytes(&s->info[i]));
  if (status == MN_OK) s->position = at;
  free_host(s, host);
  mn_st_close(st);
  return status;
}
