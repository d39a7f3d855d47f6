/* What must be true of a prologue: a plan that reads from it gives the bits of one that computes everything itself; what it holds is
 * held once, whoever asks; a product's weight is no longer cast, joined or computed where tokens are; other values of the weights
 * come through when it is refreshed; what varies, is written, or would grow stays where it was. */
#include "base/element.h"
#include "compile/plan.h"
#include "run/session.h"
#include "model_fixture.h"
#include "small_mixers.h"

#include <time.h>

enum { VOCAB = 48, WIDTH = 24, HIDDEN = 40 };

/* What weights are cast and held is counted in a few; that the bits stay is looked at in all (small_mixers.h). */
static const char *const mixers[] = {"{type: attention, heads: 2, window: 9, persistent: 2, conv: 3}",
                                     "{type: titans_mac, heads: 2, chunk: 4, segment: 8, persistent: 2}",
                                     "{type: titans_lmm, heads: 2, chunk: 4, memory_net: mlp}",
                                     "{type: titans_lmm, heads: 2, chunk: 4, memory_net: linear}",
                                     "{type: gated_deltanet, heads: 2}",
                                     "{type: aaren, heads: 2}"};
enum { MIXERS = sizeof mixers / sizeof *mixers };

static bool set_up(fixture *f, const char *mixer) {
  return fixture_open(f, 7, "{vocab_size: %d, d_model: %d, layers: 2, block: {mixer: %s, hidden: %d}}", VOCAB, WIDTH, mixer, HIDDEN);
}

typedef struct made { /* one segment of T tokens, carried */
  mn_graph *g;
  mn_plan *plan;
  int32_t *tokens;
  void *state[64];
  int n_states;
  size_t bytes[64];
} made;

static bool make(fixture *f, mn_dtype compute, int64_t T, mn_prologue *prologue, made *m) {
  *m = (made){.g = mn_graph_new()};
  mn_scope *s = mn_scope_new(m->g, (mn_build){.param = MN_F32, .compute = compute, .carried = true}, 2);
  mn_tensor *tokens = mn_input(m->g, "tokens", MN_I32, MN_SHAPE(2, T)), *y = mn_model_apply(s, f->model, tokens);
  const mn_built_state *states;
  const mn_param_info *info;
  mn_tensor *const *params, *leaves[64], *values[64];
  m->n_states = mn_scope_states(s, &states);
  for (int i = 0; i < m->n_states; i++) leaves[i] = states[i].leaf, values[i] = states[i].value;
  mn_fixed_leaf fixed[128];
  int n = mn_scope_params(s, &info, &params);
  for (int i = 0; i < n; i++) fixed[i] = (mn_fixed_leaf){params[i], f->params->data[mn_params_find(f->params, info[i].name)]};
  mn_plan_request q = {.graph = m->g,
                       .n_outputs = 1,
                       .outputs = &y,
                       .n_assigns = m->n_states,
                       .variables = leaves,
                       .values = values,
                       .backend = f->backend,
                       .prologue = prologue,
                       .n_fixed = prologue ? n : 0,
                       .fixed = fixed};
  mn_status status = mn_graph_status(m->g);
  if (status == MN_OK) status = mn_plan_compile(&q, &m->plan);
  CHECK_OK(status);
  if (status != MN_OK) return false;
  mn_params_bind(f->params, s, m->plan);
  m->tokens = mn_calloc((size_t)(2 * T), sizeof *m->tokens);
  mn_plan_bind(m->plan, tokens, m->tokens);
  for (int i = 0; i < m->n_states; i++) {
    m->bytes[i] = (size_t)mn_shape_count(&states[i].info.shape) * mn_dtype_size(states[i].info.dtype);
    m->state[i] = mn_alloc_aligned(m->bytes[i] + 64);
    memset(m->state[i], 0, m->bytes[i]);
    mn_plan_bind(m->plan, states[i].leaf, m->state[i]);
  }
  for (int64_t i = 0; i < 2 * T; i++) m->tokens[i] = (int32_t)(mn_random_uniform(5, 0, (uint64_t)i) * VOCAB);
  return true;
}

static void unmake(made *m) {
  mn_plan_free(m->plan);
  mn_graph_free(m->g);
  free(m->tokens);
  for (int i = 0; i < m->n_states; i++) free(m->state[i]);
}

static bool same_bits(const made *a, const made *b, int64_t T) {
  bool same = memcmp(mn_plan_output(a->plan, 0)->data, mn_plan_output(b->plan, 0)->data, sizeof(float) * (size_t)(2 * T * VOCAB)) == 0;
  for (int i = 0; i < a->n_states; i++) same = same && memcmp(a->state[i], b->state[i], a->bytes[i]) == 0;
  return same;
}

static void plans_give_the_same_bits(void) {
  for (int m = 0; m < MN_SMALL_MIXERS; m++)
    for (int bf16 = 0; bf16 < 2; bf16++) {
      fixture f;
      mn_prologue *p = NULL;
      if (!set_up(&f, mn_small_mixers[m])) continue;
      CHECK_OK(mn_prologue_new(f.backend, &p));
      int held = 0;
      for (int64_t T = 1; T <= 16; T += 15) {
        made with, without;
        if (!make(&f, bf16 ? MN_BF16 : MN_F32, T, p, &with) || !make(&f, bf16 ? MN_BF16 : MN_F32, T, NULL, &without)) break;
        for (int run = 0; run < 2; run++) {
          CHECK_OK(mn_plan_run(with.plan));
          CHECK_OK(mn_plan_run(without.plan));
          CHECK(same_bits(&with, &without, T), "%s, %s, T %d, run %d: other bits", mn_small_mixers[m], bf16 ? "bf16" : "f32", (int)T, run);
        }
        const mn_plan_report *r = mn_plan_get_report(with.plan);
        CHECK(!bf16 || r->from_prologue > 0, "%s: nothing comes from the prologue", mn_small_mixers[m]);
        CHECK(T == 1 || mn_prologue_count(p) <= held + 12, "%s: two plans share %d values, and hold %d", mn_small_mixers[m], held,
              mn_prologue_count(p));
        held = mn_prologue_count(p);
        unmake(&with);
        unmake(&without);
      }
      mn_prologue_free(p);
      fixture_close(&f);
    }
}

/* Results of a weight's shape: its cast, its transposed copy, its part of a joined one. */
static void count_weights(void *ctx, const char *line) {
  static const char *const shapes[] = {"[24, 24]", "[40, 24]", "[24, 40]", "[80, 24]", "[72, 24]", "[48, 24]", "[24, 48]"};
  for (int i = 0; i < 7; i++)
    if (strstr(line, shapes[i])) ++*(int *)ctx;
}

static void no_weight_is_cast_where_tokens_are(void) {
  for (int m = 0; m < MIXERS; m++) {
    fixture f;
    mn_prologue *p = NULL;
    made with, without;
    int cast[2] = {0};
    if (!set_up(&f, mixers[m])) continue;
    CHECK_OK(mn_prologue_new(f.backend, &p));
    if (make(&f, MN_BF16, 1, p, &with) && make(&f, MN_BF16, 1, NULL, &without)) {
      mn_plan_describe(with.plan, count_weights, &cast[0]);
      mn_plan_describe(without.plan, count_weights, &cast[1]);
      CHECK(cast[0] == 0 && cast[1] > 0, "%s: %d casts of weights are left of %d", mixers[m], cast[0], cast[1]);
      unmake(&with);
      unmake(&without);
    }
    mn_prologue_free(p);
    fixture_close(&f);
  }
}

static void other_values_come_through(void) {
  fixture f;
  mn_prologue *p = NULL;
  made with, without;
  if (!set_up(&f, mixers[0])) return;
  CHECK_OK(mn_prologue_new(f.backend, &p));
  if (make(&f, MN_BF16, 4, p, &with) && make(&f, MN_BF16, 4, NULL, &without)) {
    CHECK_OK(mn_params_draw(f.params, 8));
    CHECK_OK(mn_plan_run(with.plan));
    CHECK_OK(mn_plan_run(without.plan));
    CHECK(!same_bits(&with, &without, 4), "weights were read anew though nothing was refreshed: nothing is held");
    for (int k = 0; k < 2; k++) {
      made *x = k ? &with : &without;
      for (int i = 0; i < x->n_states; i++) memset(x->state[i], 0, x->bytes[i]);
    }
    CHECK_OK(mn_prologue_refresh(p));
    CHECK_OK(mn_plan_run(with.plan));
    CHECK_OK(mn_plan_run(without.plan));
    CHECK(same_bits(&with, &without, 4), "refreshed, and other bits");
    unmake(&with);
    unmake(&without);
  }
  mn_prologue_free(p);
  fixture_close(&f);
}

/* A small graph: w is fixed, v is written, x is fed. */
static void what_varies_stays(void) {
  mn_backend *b = NULL;
  mn_prologue *p = NULL;
  mn_plan *plan = NULL;
  mn_graph *g = mn_graph_new();
  float w[2] = {1, 2}, v[2] = {3, 4}, x[2] = {5, 6};
  CHECK_OK(mn_backend_cpu_new(1, &b));
  CHECK_OK(mn_prologue_new(b, &p));
  mn_tensor *tw = mn_variable(g, "w", MN_F32, MN_SHAPE(2)), *tv = mn_variable(g, "v", MN_F32, MN_SHAPE(2)),
            *tx = mn_input(g, "x", MN_F32, MN_SHAPE(2));
  mn_tensor *e = mn_exp(g, tw), *big = mn_add_scalar(g, mn_expand(g, mn_unsqueeze(g, e, 0), MN_SHAPE(4096, 2)), 1.0);
  mn_tensor *out[] = {mn_mul(g, e, tx), e, mn_exp(g, tv), mn_slice(g, big, 0, 4095, 1)}, *value = mn_add(g, tv, e);
  const mn_fixed_leaf fixed[] = {{tw, w}, {tv, v}}; /* v is said to be fixed, and is assigned: it is not */
  mn_plan_request q = {.graph = g, .n_outputs = 4, .outputs = out, .n_assigns = 1, .variables = &tv, .values = &value, .backend = b};
  q.prologue = p;
  q.n_fixed = 2;
  q.fixed = fixed;
  CHECK_OK(mn_plan_compile(&q, &plan));
  mn_plan_bind(plan, tw, w);
  mn_plan_bind(plan, tv, v);
  mn_plan_bind(plan, tx, x);
  for (int run = 0; run < 2 && plan; run++) {
    const float before = v[0];
    CHECK_OK(mn_plan_run(plan));
    const float *y0 = mn_plan_output(plan, 0)->data, *y1 = mn_plan_output(plan, 1)->data, *y2 = mn_plan_output(plan, 2)->data;
    CHECK(fabsf(y0[1] - expf(2) * 6) < 1e-4f && fabsf(y1[0] - expf(1)) < 1e-6f, "%g %g", (double)y0[1], (double)y1[0]);
    CHECK(fabsf(y2[0] - expf(before)) < 1e-4f * expf(before), "the old value of what is assigned");
    CHECK(fabsf(v[0] - before - expf(1)) < 1e-5f, "assigned anew in every run: %g", (double)v[0]);
  }
  CHECK(mn_prologue_count(p) == 1 && mn_prologue_bytes(p) == 8, "exp(w) alone: %d values, %zu bytes", mn_prologue_count(p),
        mn_prologue_bytes(p));
  mn_plan_free(plan);
  mn_graph_free(g);
  mn_prologue_free(p);
  mn_backend_free(b);
}

/* A session in bf16 reads its weights in bf16; its forks too, and they hold them once. */
static void sessions_hold_their_weights_once(void) {
  fixture f;
  mn_session *a = NULL, *fork = NULL;
  mn_routine *r = NULL;
  if (!set_up(&f, mixers[0])) return;
  CHECK_OK(mn_session_new(f.model, f.params, &(mn_session_config){.compute = MN_BF16}, &a));
  CHECK_OK(mn_session_feed(a, (int32_t[]){1, 2, 3}, 3, NULL));
  CHECK_OK(mn_session_fork(a, &fork));
  CHECK_OK(mn_session_feed(fork, (int32_t[]){1}, 1, NULL));
  int casts = 0;
  CHECK_OK(mn_program_enter(mn_session_program(a), &(mn_form){.batch = 1, .length = 1}, &r));
  if (r) {
    mn_plan_describe(mn_routine_plan(r), count_weights, &casts);
    CHECK(casts == 0 && mn_plan_get_report(mn_routine_plan(r))->from_prologue > 0, "%d casts", casts);
    mn_program_leave(mn_session_program(a));
  }
  mn_session_free(a);
  mn_session_free(fork);
  fixture_close(&f);
}

/* Ticks that compiling the sum of many weights' exponentials takes. */
static clock_t compile_ticks(mn_backend *b, bool fixed_weights) {
  enum { N = 50000 };
  static float data[N];
  mn_graph *g = mn_graph_new();
  mn_fixed_leaf *fixed = malloc(N * sizeof *fixed);
  mn_tensor *sum = mn_input(g, "x", MN_F32, MN_SHAPE(1));
  for (int i = 0; i < N; i++) {
    mn_tensor *w = mn_variable(g, "w", MN_F32, MN_SHAPE(1));
    fixed[i] = (mn_fixed_leaf){w, &data[i]};
    sum = mn_add(g, sum, mn_exp(g, w));
  }
  mn_prologue *p = NULL;
  mn_plan *plan = NULL;
  CHECK_OK(mn_prologue_new(b, &p));
  const mn_plan_request q = {.graph = g,
                             .n_outputs = 1,
                             .outputs = &sum,
                             .backend = b,
                             .prologue = fixed_weights ? p : NULL,
                             .n_fixed = fixed_weights ? N : 0,
                             .fixed = fixed};
  const clock_t begin = clock();
  CHECK_OK(mn_plan_compile(&q, &plan));
  const clock_t end = clock();
  mn_plan_free(plan);
  mn_prologue_free(p);
  mn_graph_free(g);
  free(fixed);
  return end - begin;
}

/* A prologue of many weights costs a few times what compiling without one does: where each weight is looked for among all, it would be many times. */
static void many_weights_cost_what_they_are(void) {
  mn_backend *b = NULL;
  CHECK_OK(mn_backend_open(NULL, 1, &b));
  if (!b) return;
  const clock_t without = compile_ticks(b, false), with = compile_ticks(b, true);
  CHECK(with < 5 * without, "%ld ticks with a prologue, %ld without", (long)with, (long)without);
  mn_backend_free(b);
}

int main(void) {
  RUN(plans_give_the_same_bits);
  RUN(no_weight_is_cast_where_tokens_are);
  RUN(other_values_come_through);
  RUN(what_varies_stays);
  RUN(sessions_hold_their_weights_once);
  RUN(many_weights_cost_what_they_are);
  return test_end();
}
