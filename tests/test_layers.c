/* test_layers.c - what the passes make of a few layers of a deep model is made of all (pass_layers.c): the plan is the one that they make of
 * the whole graph, step by step, and computes the same bits. Stacks of any layers, whatever they share or read of each other; with layers
 * among them that are not like the others; and systems, with their training steps. */
#include "gradcheck.h"

#include "compile/repeats.h"
#include "format/yaml.h"
#include "graph/fused_norm.h"
#include "graph/ops.h"
#include "model/model.h"
#include "train/optimizer.h"

static mn_backend *cpu;

/* ---- plans of one graph, with the pass and without ---- */
typedef struct results {
  mn_plan *plan;
  void **leaf; /* per node */
  bool ran;
} results;

static void run(const mn_plan_request *q, unsigned off, results *r) {
  const mn_graph *g = q->graph;
  mn_plan_request request = *q;
  request.passes_off |= off;
  *r = (results){.leaf = calloc((size_t)g->n_nodes + 1, sizeof *r->leaf)};
  CHECK_OK(mn_plan_compile(&request, &r->plan));
  if (!r->plan) return;
  for (int i = 0; i < g->n_nodes; i++) {
    if (!g->nodes[i]->op->bound) continue;
    const mn_tensor *t = g->nodes[i]->out[0];
    const int64_t n = mn_shape_count(&t->shape);
    r->leaf[i] = mn_alloc_aligned((size_t)(n + 1) * mn_dtype_size(t->dtype));
    for (int64_t k = 0; k < n; k++)
      mn_element_store(r->leaf[i], t->dtype, k,
                       mn_dtype_is_float(t->dtype) ? 0.5 + 0.2 * mn_random_normal((uint64_t)i, 3, (uint64_t)k) : (double)(k % 7));
    mn_plan_bind(r->plan, t, r->leaf[i]);
  }
  CHECK_OK(mn_plan_run(r->plan));
  r->ran = true;
}

static void results_free(const mn_graph *g, results *r) {
  for (int i = 0; i < g->n_nodes; i++) free(r->leaf[i]);
  free(r->leaf);
  mn_plan_free(r->plan);
}

static void add_line(void *ctx, const char *text) { mn_text_addf(ctx, "%s\n", text); }

/* The same steps in the same order, the same counts and bytes, the same bits. How many layers the passes were not given. */
static int same_plans(const char *what, const mn_plan_request *q) {
  const mn_graph *g = q->graph;
  results a, b;
  run(q, MN_PASS_LAYERS, &a);
  run(q, 0, &b);
  int layers = 0;
  if (a.ran && b.ran) {
    mn_plan_report x = *mn_plan_get_report(a.plan), y = *mn_plan_get_report(b.plan);
    layers = y.layers_alike;
    CHECK(x.layers_alike == 0, "%s: switched off, it left %d layers out", what, x.layers_alike);
    y.layers_alike = 0;
    CHECK(memcmp(&x, &y, sizeof x) == 0, "%s: %d steps and %zu bytes, not %d and %zu", what, y.steps, y.bytes_planned, x.steps,
          x.bytes_planned);
    mn_text s = {0}, t = {0};
    mn_plan_describe(a.plan, add_line, &s);
    mn_plan_describe(b.plan, add_line, &t);
    CHECK(s.data && t.data && strcmp(s.data, t.data) == 0, "%s: other steps", what);
    mn_text_free(&s);
    mn_text_free(&t);
    for (int j = 0; j < q->n_outputs; j++) {
      const mn_view *v = mn_plan_output(a.plan, j), *w = mn_plan_output(b.plan, j);
      CHECK(memcmp(v->data, w->data, (size_t)mn_view_count(v) * mn_dtype_size(v->dtype)) == 0, "%s: output %d has other bits", what, j);
    }
    for (int i = 0; i < g->n_nodes; i++) {
      if (!a.leaf[i]) continue;
      const mn_tensor *t0 = g->nodes[i]->out[0];
      CHECK(memcmp(a.leaf[i], b.leaf[i], mn_shape_bytes(&t0->shape, t0->dtype)) == 0, "%s: variable %s has other bits", what,
            t0->name ? t0->name : "?");
    }
  }
  results_free(g, &a);
  results_free(g, &b);
  return layers;
}

/* ---- stacks of layers that have nothing to do with any system ---- */
enum { ROWS = 4, WIDTH = 6, MOST_PARAMS = 4096 };
typedef struct stack {
  mn_graph *g;
  mn_tensor *shared, *first, *before; /* what all layers read; what the first gave; what the layer before the last gave */
  mn_tensor *param[MOST_PARAMS];
  int n_params;
} stack;

static mn_tensor *param(stack *s, mn_shape shape) {
  char name[32];
  snprintf(name, sizeof name, "w%d", s->n_params);
  return s->param[s->n_params++] = mn_variable(s->g, name, MN_F32, shape);
}

typedef mn_tensor *(*layer)(stack *s, mn_tensor *x);

static mn_tensor *plain(stack *s, mn_tensor *x) {
  mn_tensor *n = mn_norm(s->g, MN_NORM_RMS, x, param(s, MN_SHAPE(WIDTH)), NULL, 1e-6, MN_F32);
  mn_tensor *h = mn_silu(s->g, mn_matmul(s->g, n, param(s, MN_SHAPE(WIDTH, WIDTH))));
  return mn_add(s->g, x, mn_matmul(s->g, h, param(s, MN_SHAPE(WIDTH, WIDTH))));
}
static mn_tensor *with_shared(stack *s, mn_tensor *x) {
  return mn_add(s->g, x, mn_mul(s->g, mn_sigmoid(s->g, s->shared), mn_matmul(s->g, x, param(s, MN_SHAPE(WIDTH, WIDTH)))));
}
static mn_tensor *with_first(stack *s, mn_tensor *x) { /* as value residuals do */
  mn_tensor *v = mn_matmul(s->g, x, param(s, MN_SHAPE(WIDTH, WIDTH)));
  if (!s->first) s->first = v;
  return mn_add(s->g, x, mn_tanh(s->g, mn_add(s->g, mn_mul_scalar(s->g, v, 0.3), mn_mul_scalar(s->g, s->first, 0.7))));
}
static mn_tensor *with_the_one_before(stack *s, mn_tensor *x) {
  mn_tensor *y = mn_tanh(s->g, mn_matmul(s->g, s->before ? mn_add(s->g, x, s->before) : x, param(s, MN_SHAPE(WIDTH, WIDTH))));
  s->before = x;
  return y;
}
static mn_tensor *with_a_table(stack *s, mn_tensor *x) { /* of its own, and equal to those of others */
  float table[ROWS * WIDTH];
  for (int i = 0; i < ROWS * WIDTH; i++) table[i] = (float)cos(i);
  mn_tensor *t = mn_const(s->g, MN_F32, MN_SHAPE(ROWS, WIDTH), table);
  return mn_add(s->g, mn_mul(s->g, x, t), mn_matmul(s->g, x, param(s, MN_SHAPE(WIDTH, WIDTH))));
}
static mn_tensor *with_a_loop(stack *s, mn_tensor *x) {
  mn_tensor *w = param(s, MN_SHAPE(WIDTH)), *h0 = mn_zeros_like(s->g, w), *h, *row, *last, *y;
  mn_scan_builder *b = mn_scan_begin(s->g, ROWS, MN_FORWARD, 1, &h0, 1, &x, &h, &row);
  mn_graph *body = mn_scan_body(b);
  mn_tensor *next = mn_tanh(body, mn_add(body, mn_mul(body, h, w), row));
  mn_scan_end(b, &next, 1, &next, &last, &y);
  return mn_add(s->g, x, y);
}
static mn_tensor *with_two_parts(stack *s, mn_tensor *x) { return plain(s, with_shared(s, x)); }

/* Where the sums that lead from layer to layer are made again for the way back, they are joined across layers, so many at a time: what the
 * passes make of these does not repeat itself layer by layer. */
static const struct {
  const char *name;
  layer f;
  bool repeats, and_back; /* what the passes make of it, and of it with its gradients */
} layers[] = {{"layers", plain, true, true},
              {"layers that share", with_shared, true, true},
              {"layers that read the first", with_first, true, false},
              {"layers that read the one before", with_the_one_before, true, false},
              {"layers with tables", with_a_table, true, true},
              {"layers with loops", with_a_loop, true, false},
              {"layers of two parts", with_two_parts, true, true}};
enum { KINDS = sizeof layers / sizeof *layers };

typedef enum oddity {
  NONE,
  ANOTHER_IN_THE_MIDDLE,  /* one layer is of another kind */
  EVERY_THIRD,            /* three layers come again and again */
  TWO_STACKS,             /* of one kind, then of another */
  A_NUMBER_OF_ITS_OWN,    /* of each layer, in a constant */
  ONE_READS_AN_EARLY_ONE, /* a layer in the last third reads what a layer in the first third gave */
  A_MIDDLE_ONE_IS_GIVEN,  /* the caller asks for what a layer in the middle gave */
  ANOTHER_DISTANCE,       /* from a third on layers read two back instead of one, and what the last two read is multiplied by 1 */
  ODDITIES
} oddity;
static const char *const oddities[ODDITIES] = {
    "alone",           "with another", "every third", "two stacks", "numbers of their own", "far reading", "one of them is an output",
    "another distance"};

static mn_tensor *build(stack *s, int kind, oddity odd, int depth, mn_tensor **given) {
  mn_tensor *x = mn_input(s->g, "x", MN_F32, MN_SHAPE(ROWS, WIDTH)), *early = NULL;
  s->shared = mn_input(s->g, "shared", MN_F32, MN_SHAPE(ROWS, WIDTH));
  *given = NULL;
  mn_tensor *before = x;
  for (int i = 0; i < depth; i++) {
    int k = kind;
    if (odd == ANOTHER_IN_THE_MIDDLE && i == depth / 2) k = (kind + 1) % KINDS;
    if (odd == EVERY_THIRD && i % 3 == 2) k = (kind + 1) % KINDS;
    if (odd == TWO_STACKS && i >= depth / 2) k = (kind + 2) % KINDS;
    if (odd == A_NUMBER_OF_ITS_OWN) x = mn_mul_scalar(s->g, x, 1 - 0.001 * i);
    if (odd == ONE_READS_AN_EARLY_ONE && i == depth * 2 / 3) x = mn_add(s->g, x, early);
    if (odd == ANOTHER_DISTANCE) {
      mn_tensor *read = i >= depth / 3 ? before : x;
      before = x;
      x = layers[k].f(s, i >= depth - 2 ? mn_mul_scalar(s->g, read, 1) : read);
      continue;
    }
    x = layers[k].f(s, x);
    if (i == depth / 3) early = x;
    if (odd == A_MIDDLE_ONE_IS_GIVEN && i == depth / 2) *given = x;
  }
  return odd == ANOTHER_DISTANCE ? mn_add(s->g, x, before) : x;
}

/* Forwards, and with the gradients of all parameters. */
static int stack_of(int kind, oddity odd, int depth, bool backward, mn_activation_policy policy) {
  char what[128];
  stack s = {.g = mn_graph_new()};
  mn_tensor *outputs[2 + MOST_PARAMS], *given;
  int n = 0;
  snprintf(what, sizeof what, "%d %s, %s%s", depth, layers[kind].name, oddities[odd], backward ? ", and back" : "");
  outputs[n++] = mn_sumsq(s.g, build(&s, kind, odd, depth, &given));
  if (given) outputs[n++] = given;
  if (backward) CHECK_OK(mn_grad(s.g, 1, outputs, NULL, s.n_params, s.param, outputs + n));
  if (backward) n += s.n_params;
  const int alike =
      same_plans(what, &(mn_plan_request){.graph = s.g, .n_outputs = n, .outputs = outputs, .backend = cpu, .activations = policy});
  mn_graph_free(s.g);
  return alike;
}

static void stacks_become_what_they_would_without_it(void) {
  enum { DEPTH = 330 };
  for (int kind = 0; kind < KINDS; kind++)
    for (int odd = 0; odd < ODDITIES; odd++)
      for (int backward = 0; backward < 2; backward++) {
        const int depth = odd == EVERY_THIRD ? DEPTH : 110;
        const int alike = stack_of(kind, (oddity)odd, depth, backward, MN_RECOMPUTE_NORMS);
        if (odd == NONE && (backward ? layers[kind].and_back : layers[kind].repeats))
          CHECK(alike > 0 && alike < depth, "%s: %d layers of %d were left out", layers[kind].name, alike, depth);
        if (odd == A_NUMBER_OF_ITS_OWN)
          CHECK(alike == 0, "%s: %d layers with numbers of their own were left out", layers[kind].name, alike);
        if (odd == ANOTHER_IN_THE_MIDDLE) CHECK(alike == 0, "%s: %d layers around another were left out", layers[kind].name, alike);
      }
  for (int depth = 40; depth < 56; depth++) stack_of(0, NONE, depth, true, MN_KEEP);
}

/* ---- what repeats itself ---- */
static void forwards_and_backwards_are_of_the_same_layers(void) {
  enum { DEPTH = 20 };
  stack s = {.g = mn_graph_new()};
  mn_tensor *given, *y = mn_sumsq(s.g, build(&s, 0, NONE, DEPTH, &given)), *dw[MOST_PARAMS];
  CHECK_OK(mn_grad(s.g, 1, &y, NULL, s.n_params, s.param, dw));
  mn_layers l;
  CHECK_OK(mn_layers_find(s.g, 8, &l));
  CHECK(l.n == 2 && l.high - l.low >= DEPTH - 2 && l.stretch[0].way == 1 && l.stretch[1].way == -1, "%d stretches of layers %d to %d", l.n,
        l.low, l.high);
  for (int i = 0; i < s.n_params; i++) { /* a parameter and its gradient */
    const mn_layer_place p = mn_layers_place(&l, s.param[i]->node->id), q = mn_layers_place(&l, dw[i]->node->id);
    if (p.stretch < 0 || q.stretch < 0) continue;
    CHECK(p.stretch == 0 && q.stretch == 1 && abs(p.layer - q.layer) <= 1, "parameter %d is of layer %d, its gradient of %d", i, p.layer,
          q.layer);
    CHECK(mn_layers_at(&l, p) == s.param[i]->node->id && mn_layers_at(&l, q) == dw[i]->node->id, "parameter %d", i);
  }
  CHECK_OK(mn_layers_find(s.g, DEPTH + 1, &l));
  CHECK(l.n == 0, "%d stretches of more layers than there are", l.n);
  mn_graph_free(s.g);
}

/* ---- systems ---- */
static void systems_are_the_same(void) {
  static const char *const mixers[] = {"{type: attention, heads: 2}", "{type: titans_lmm, heads: 2, memory_net: ln_mlp}",
                                       "{type: titans_mac, heads: 2, chunk: 8}", "{type: atlas, heads: 2}", "{type: rwkv7, heads: 2}"};
  for (size_t i = 0; i < sizeof mixers / sizeof *mixers; i++) {
    char text[512];
    snprintf(text, sizeof text, "{vocab_size: 32, d_model: 16, layers: 104, block: {mixer: %s, channel: swiglu, hidden: 16}}", mixers[i]);
    mn_arena *arena = mn_arena_new();
    const mn_value *v;
    mn_model *m = NULL;
    mn_params *p = NULL;
    mn_graph *g = mn_graph_new();
    mn_scope *s = mn_scope_new(g, (mn_build){.param = MN_F32, .compute = MN_F32}, 1);
    CHECK_OK(mn_yaml_parse(arena, "recipe.yaml", text, strlen(text), &v));
    CHECK_OK(mn_model_parse(v, NULL, 0, &m));
    CHECK_OK(mn_params_new(m, cpu, MN_F32, 1, &p));
    mn_tensor *loss =
        mn_model_loss(s, m, mn_input(g, "tokens", MN_I32, MN_SHAPE(1, 16)), mn_input(g, "target", MN_I32, MN_SHAPE(1, 16)), NULL, NULL);
    const mn_param_info *info;
    mn_tensor *const *built;
    const int n = mn_scope_params(s, &info, &built);
    mn_tensor **params = mn_arena_alloc(arena, 2 * (size_t)n * sizeof *params), **grads = params + n;
    for (int k = 0; k < n; k++) params[mn_params_find(p, info[k].name)] = built[k];
    CHECK_OK(mn_grad(g, 1, &loss, NULL, n, params, grads));
    mn_tensor **outputs = mn_arena_alloc(arena, (size_t)(n + 1) * sizeof *outputs);
    outputs[0] = loss;
    memcpy(outputs + 1, grads, (size_t)n * sizeof *grads);
    const int alike = same_plans(
        mixers[i],
        &(mn_plan_request){.graph = g, .n_outputs = n + 1, .outputs = outputs, .backend = cpu, .activations = MN_RECOMPUTE_NORMS});
    CHECK(alike > 0, "%s: the passes were given all layers", mixers[i]);
    mn_optimizer o = {.config = {.lr = 1e-3, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8}, .params = p, .moment = MN_F32};
    o.m = o.v = p->data;
    o.group = mn_arena_alloc(arena, (size_t)(n + 1) * sizeof *o.group);
    mn_update u;
    mn_optimizer_build(&o, s, params, grads, 1, &u);
    CHECK_OK(mn_graph_status(g));
    same_plans(mixers[i], &(mn_plan_request){.graph = g,
                                             .n_outputs = 1,
                                             .outputs = &loss,
                                             .n_assigns = u.n_assigns,
                                             .variables = u.variables,
                                             .values = u.values,
                                             .backend = cpu,
                                             .activations = MN_RECOMPUTE_NORMS});
    mn_graph_free(g);
    mn_params_free(p);
    mn_model_free(m);
    mn_arena_free(arena);
  }
}

int main(void) {
  if (mn_backend_cpu_new(1, &cpu) != MN_OK) return 1;
  RUN(forwards_and_backwards_are_of_the_same_layers);
  RUN(stacks_become_what_they_would_without_it);
  RUN(systems_are_the_same);
  mn_backend_free(cpu);
  return test_end();
}
