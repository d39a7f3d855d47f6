/* evaluate.c - see evaluate.h. */
#include "eval/evaluate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/finite.h"
#include "run/buffers.h"

struct mn_evaluator {
  const mn_model *model;
  mn_corpus *corpus;
  mn_evaluator_config config;
  mn_backend *backend;
  mn_graph *graph;
  mn_plan *plan;
  mn_buffers buffers; /* inputs and states */
  int in_tokens, in_target, in_reset;
  mn_limit limit;
  bool predicts;
  int32_t *tokens, *target, *prediction; /* [B, T] */
  bool *reset;                           /* [B]    */
  float *nll;                            /* [B, T] */
};

/* Loss per token, and for tasks the most likely token; both from one h. */
static mn_status build(mn_evaluator *e, const mn_params *p) {
  int64_t B = e->config.batch, T = e->config.seq_len;
  mn_graph *g = e->graph = mn_graph_new();
  if (!g) return MN_ERR_MEMORY;
  mn_tensor *tokens = mn_input(g, "tokens", MN_I32, MN_SHAPE(B, T)), *target = mn_input(g, "target", MN_I32, MN_SHAPE(B, T));
  mn_tensor *reset = e->config.carry_state ? mn_input(g, "reset", MN_BOOL, MN_SHAPE(B)) : NULL;
  mn_build how = {
      .param = p->dtype, .compute = e->config.compute, .carried = e->config.carry_state, .position_multiple = T, .reset = reset};
  how.forget = e->config.forget;
  mn_scope *s = mn_scope_new(g, how, B);
  if (!s) return MN_ERR_MEMORY;
  mn_tensor *h = mn_model_hidden(s, e->model, tokens), *head = mn_model_head(s, e->model), *outputs[2] = {NULL};
  MN_TRY(mn_graph_status(g));
  e->limit = mn_scope_limit_of(s);
  h = mn_reshape(g, h, MN_SHAPE(B * T, e->model->config.d_model));
  head = mn_cast(g, head, h->dtype);
  mn_linear_cross_entropy(g, h, head, mn_reshape(g, target, MN_SHAPE(B * T)), NULL, &outputs[0]);
  if (e->predicts) outputs[1] = mn_argmax(g, mn_matmul_as(g, h, mn_transpose(g, head, 0, 1), p->dtype));
  MN_TRY(mn_graph_status(g));
  const mn_built_state *states;
  int n = e->config.carry_state ? mn_scope_states(s, &states) : 0;
  mn_tensor **variables = mn_arena_alloc(g->arena, (size_t)(2 * n + 1) * sizeof *variables), **values = variables + n;
  if (!variables) return MN_ERR_MEMORY;
  for (int i = 0; i < n; i++) variables[i] = states[i].leaf, values[i] = states[i].value;
  mn_plan_request q = {.graph = g,
                       .n_outputs = e->predicts ? 2 : 1,
                       .outputs = outputs,
                       .n_assigns = n,
                       .variables = variables,
                       .values = values,
                       .backend = e->backend};
  MN_TRY(mn_plan_compile(&q, &e->plan));
  mn_params_bind(p, s, e->plan);
  MN_TRY(mn_buffers_add(&e->buffers, e->backend, e->plan, tokens, &e->in_tokens));
  MN_TRY(mn_buffers_add(&e->buffers, e->backend, e->plan, target, &e->in_target));
  if (reset) MN_TRY(mn_buffers_add(&e->buffers, e->backend, e->plan, reset, &e->in_reset));
  for (int i = 0; i < n; i++) MN_TRY(mn_buffers_add(&e->buffers, e->backend, e->plan, states[i].leaf, NULL));
  return MN_OK;
}

mn_status mn_evaluator_new(const mn_model *m, const mn_params *p, mn_corpus *corpus, const mn_evaluator_config *config,
                           mn_evaluator **out) {
  *out = NULL;
  mn_evaluator *e = mn_calloc(1, sizeof *e);
  if (!e) return MN_ERR_MEMORY;
  *e = (mn_evaluator){.model = m, .corpus = corpus, .config = *config, .backend = p->backend};
  e->predicts = mn_corpus_task(corpus) != NULL;
  size_t n = (size_t)(config->batch * config->seq_len);
  e->tokens = mn_alloc(n * sizeof *e->tokens);
  e->target = mn_alloc(n * sizeof *e->target);
  e->prediction = mn_alloc(n * sizeof *e->prediction);
  e->nll = mn_alloc(n * sizeof *e->nll);
  e->reset = mn_alloc((size_t)config->batch * sizeof *e->reset);
  mn_status status = e->tokens && e->target && e->prediction && e->nll && e->reset ? build(e, p) : MN_ERR_MEMORY;
  if (status != MN_OK) mn_evaluator_free(e);
  else *out = e;
  return status;
}

void mn_evaluator_free(mn_evaluator *e) {
  if (!e) return;
  mn_plan_free(e->plan);
  mn_buffers_free(&e->buffers);
  if (e->graph) mn_graph_free(e->graph);
  free(e->tokens);
  free(e->target);
  free(e->prediction);
  free(e->nll);
  free(e->reset);
  free(e);
}

static mn_status one_batch(mn_evaluator *e, int split, int64_t i, mn_evaluation *out, double *sum) {
  int64_t B = e->config.batch, T = e->config.seq_len, n = B * T;
  MN_TRY(mn_corpus_batch(e->corpus, split, i, B, T, e->tokens, e->target, e->reset));
  MN_TRY(mn_buffers_put(&e->buffers, e->in_tokens, e->tokens));
  MN_TRY(mn_buffers_put(&e->buffers, e->in_target, e->target));
  if (e->config.carry_state) MN_TRY(mn_buffers_put(&e->buffers, e->in_reset, e->reset));
  MN_TRY(mn_plan_run(e->plan));
  MN_TRY(e->backend->download(e->backend, e->nll, mn_plan_output(e->plan, 0)->data, (size_t)n * sizeof *e->nll));
  int64_t bad = mn_first_not_finite(MN_F32, e->nll, n);
  if (bad >= 0)
    return mn_fail(MN_ERR_NUMERIC, "the model's output is not a number: batch %lld, row %lld, token %lld: the loss is %s", (long long)i,
                   (long long)(bad / T), (long long)(bad % T), mn_not_finite_name(MN_F32, e->nll, bad));
  for (int64_t k = 0; k < n; k++)
    if (e->target[k] != MN_IGNORE) *sum += (double)e->nll[k], out->tokens++;
  const mn_task *task = mn_corpus_task(e->corpus);
  if (!task || task->def->sample_text) out->bytes += mn_corpus_target_bytes(e->corpus, e->target, n);
  if (!e->predicts) return MN_OK;
  MN_TRY(e->backend->download(e->backend, e->prediction, mn_plan_output(e->plan, 1)->data, (size_t)n * sizeof *e->prediction));
  for (int64_t b = 0; b < B; b++) mn_task_score_add(&out->score, e->target + b * T, e->prediction + b * T, T);
  return MN_OK;
}

mn_status mn_evaluate(mn_evaluator *e, int split, int64_t max_batches, const volatile sig_atomic_t *stop, mn_evaluation *out) {
  int64_t B = e->config.batch, T = e->config.seq_len;
  *out = (mn_evaluation){0};
  MN_TRY(mn_corpus_check(e->corpus, split, B, T));
  int64_t n = mn_corpus_steps(e->corpus, split, B, T);
  if (max_batches > 0 && max_batches < n) n = max_batches;
  if (n == INT64_MAX) return mn_fail(MN_ERR_ARG, "a task never ends: say how many batches to evaluate");
  if (e->config.carry_state) MN_TRY(mn_limit_check(&e->limit, e->config.forget, 0, n <= INT64_MAX / T ? n * T : INT64_MAX));
  double sum = 0;
  for (int64_t i = 0; i < n; i++) {
    if (stop && *stop) return mn_fail(MN_ERR_CANCELLED, "evaluation was interrupted");
    MN_TRY(one_batch(e, split, i, out, &sum));
    out->batches++;
  }
  int64_t longest = e->config.carry_state && !mn_corpus_task(e->corpus) ? out->batches * T : T;
  out->forgot = longest > e->limit.tokens;
  out->loss = out->tokens ? sum / (double)out->tokens : (double)NAN;
  out->perplexity = exp(out->loss);
  out->bits_per_byte = out->bytes ? sum / (double)out->bytes / log(2) : (double)NAN;
  return MN_OK;
}
