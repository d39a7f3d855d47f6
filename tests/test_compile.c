/* test_compile.c - what compiling a model costs, in order: four times the layers take about four times the time, for every system,
 * from the empty graph to a plan whose memory is bound; the same where a list in the compiler could be searched again and again (slices of
 * one tensor, values that a loop's body borrows, a mask that all layers read); a gradient by composition costs what it differentiates;
 * whoever is interrupted while it compiles hears of it; room is found for any number of buffers, in little more than is alive; and a
 * profile tells the mean and the shortest time of what was run; and what can be simpler becomes as simple as it can. */
#include <signal.h>
#include <time.h>

#include "format/yaml.h"
#include "compile/gaps.h"
#include "graph/fused_norm.h"
#include "graph/fused_rope.h"
#include "graph/ops.h"
#include "compile/plan_internal.h"
#include "model/model.h"
#include "test.h"
#include "train/optimizer.h"

static mn_backend *cpu;

/* ---- time, as a ratio ---- */
static double now(void) { /* of this thread alone: other processes do not count */
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* How long work took, and how long a walk through its graph took right afterwards, along all edges. Both wait for the same caches and
 * neighbours; the walk is linear by what it is. */
typedef struct took {
  double work, walk;
  bool ok;
} took;

static void read_nodes(const mn_graph *g, int64_t *sum) {
  for (int i = 0; i < g->n_nodes; i++) {
    const mn_node *n = g->nodes[i];
    for (int j = 0; j < n->n_out; j++) *sum += n->out[j]->shape.dim[0] + (n->out[j]->name != NULL);
    for (int k = 0; k < n->n_in; k++) *sum += n->in[k]->node->id;
    if (n->op == &mn_op_scan) read_nodes(((const mn_scan_attr *)n->attr)->body, sum);
  }
}

static took work_on(const mn_graph *g, double start, bool ok) {
  enum { WALKS = 8 };
  took t = {.work = now() - start, .ok = ok};
  int64_t sum = 0;
  start = now();
  for (int i = 0; i < WALKS; i++) read_nodes(g, &sum);
  t.walk = (now() - start) / WALKS;
  if (sum == 1) printf("one edge\n"); /* so that it is looked at */
  return t;
}

typedef took (*work)(int n, const void *ctx);

/* Four times as much costs as many walks through its graph as once, where work that grows with the square would cost four times as many; and
 * four times the time, not sixteen times. */
static void takes_time_in_proportion(const char *what, work f, int n, const void *ctx) {
  enum { TRIES = 12 };
  const double most_walks = 2, most_time = 12.5;
  took one = {0}, four = {0};
  double walks = 0, time = 0;
  for (int k = 0; k < TRIES && (k < 2 || walks > most_walks || time > most_time); k++) {
    const took x = f(n, ctx), y = f(4 * n, ctx);
    CHECK(x.ok && y.ok, "%s: %s", what, mn_message());
    if (!x.ok || !y.ok) return;
    one.work += x.work, one.walk += x.walk;
    four.work += y.work, four.walk += y.walk;
    time = four.work / one.work;
    walks = time / (four.walk / one.walk);
  }
  CHECK(walks <= most_walks && time <= most_time, "%s: %.1f walks for %d, %.1f for %d, in %.1f times the time", what, one.work / one.walk,
        n, four.work / four.walk, 4 * n, time);
}

/* ---- a training step of n layers: what mneme train does before its first step, but for the memory of tensors ---- */
static mn_status training_step(mn_graph *g, const mn_model *m, mn_params *p, mn_plan **plan) {
  mn_scope *s = mn_scope_new(g, (mn_build){.param = MN_F32, .compute = MN_F32}, 1);
  if (!s) return MN_ERR_MEMORY;
  mn_tensor *loss =
      mn_model_loss(s, m, mn_input(g, "tokens", MN_I32, MN_SHAPE(1, 32)), mn_input(g, "target", MN_I32, MN_SHAPE(1, 32)), NULL, NULL);
  MN_TRY(mn_graph_status(g));
  const mn_param_info *info;
  mn_tensor *const *built;
  int n = mn_scope_params(s, &info, &built);
  mn_tensor **params = mn_arena_alloc(g->arena, 2 * (size_t)n * sizeof *params), **grads = params + n;
  for (int i = 0; i < n; i++) params[mn_params_find(p, info[i].name)] = built[i];
  MN_TRY(mn_grad(g, 1, &loss, NULL, n, params, grads));
  mn_optimizer o = {.config = {.lr = 1e-3, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8}, .params = p, .moment = MN_F32};
  o.m = o.v = p->data; /* nothing runs */
  o.group = mn_arena_alloc(g->arena, (size_t)(n + 1) * sizeof *o.group);
  if (!o.group) return MN_ERR_MEMORY;
  mn_update u;
  mn_optimizer_build(&o, s, params, grads, 1, &u);
  MN_TRY(mn_graph_status(g));
  mn_plan_request q = {.graph = g,
                       .n_outputs = 1,
                       .outputs = &loss,
                       .n_assigns = u.n_assigns,
                       .variables = u.variables,
                       .values = u.values,
                       .backend = cpu,
                       .activations = MN_RECOMPUTE_NORMS};
  MN_TRY(mn_plan_compile(&q, plan));
  mn_params_bind(p, s, *plan);
  mn_optimizer_bind(&o, &u, *plan);
  return MN_OK;
}

/* Nodes of a graph with all bodies of its loops, and what they lie in: work that can be counted. */
static struct { size_t nodes, bytes, steps, plan; } counted;
static size_t nodes_in(const mn_graph *g) {
  size_t n = (size_t)g->n_nodes;
  for (int i = 0; i < g->n_nodes; i++)
    if (g->nodes[i]->op == &mn_op_scan) n += nodes_in(((const mn_scan_attr *)g->nodes[i]->attr)->body);
  return n;
}

static took train_layers(int layers, const void *mixer) {
  char text[512];
  snprintf(text, sizeof text, "{vocab_size: 32, d_model: 16, layers: %d, block: {mixer: %s, channel: swiglu, hidden: 16}}", layers,
           (const char *)mixer);
  mn_arena *arena = mn_arena_new();
  const mn_value *v;
  mn_model *m = NULL;
  mn_params *p = NULL;
  mn_plan *plan = NULL;
  mn_graph *g = mn_graph_new();
  mn_status status = mn_yaml_parse(arena, "recipe.yaml", text, strlen(text), &v);
  if (status == MN_OK) status = mn_model_parse(v, NULL, 0, &m);
  if (status == MN_OK) status = mn_params_new(m, cpu, MN_F32, 1, &p);
  double start = now();
  if (status == MN_OK) status = training_step(g, m, p, &plan);
  const took t = work_on(g, start, status == MN_OK);
  counted.nodes = nodes_in(g);
  counted.bytes = mn_arena_used(g->arena);
  counted.plan = plan ? mn_arena_used(plan->arena) : 0;
  counted.steps = plan ? (size_t)plan->n_steps : 0;
  mn_plan_free(plan);
  mn_graph_free(g);
  mn_params_free(p);
  mn_model_free(m);
  mn_arena_free(arena);
  return t;
}

static void four_times_the_layers_take_four_times_the_time(void) {
  static const struct {
    const char *mixer;
    int layers;
  } systems[] = {{"{type: attention, heads: 2}", 200},
                 {"{type: titans_lmm, heads: 2}", 60},
                 {"{type: titans_lmm, heads: 2, memory_net: mlp}", 30},
                 {"{type: titans_mag, heads: 2, window: 8}", 60},
                 {"{type: titans_mac, heads: 2}", 50},
                 {"{type: titans_mal, heads: 2, window: 8}", 60},
                 {"{type: gated_deltanet, heads: 2}", 100},
                 {"{type: aaren, heads: 2}", 100}};
  for (size_t i = 0; i < sizeof systems / sizeof *systems; i++)
    takes_time_in_proportion(systems[i].mixer, train_layers, systems[i].layers, systems[i].mixer);
}

/* The same by counting: each layer adds the same nodes, and a node costs little memory (250 to 300 bytes), which every pass of the
 * compiler spends again. A step of the plan costs what its operands and the nodes it was made from do, in a deep model as in a small one. */
static void every_layer_adds_the_same_work(void) {
  static const char *const mixers[] = {"{type: attention, heads: 2}", "{type: titans_mac, heads: 2}", "{type: gated_deltanet, heads: 2}",
                                       "{type: atlas, heads: 2}", "{type: lizard, heads: 2}"};
  for (size_t i = 0; i < sizeof mixers / sizeof *mixers; i++) {
    size_t nodes[3], bytes[3], plan[3];
    for (int k = 0; k < 3; k++) {
      CHECK(train_layers(4 * (k + 1), mixers[i]).ok, "%s: %s", mixers[i], mn_message());
      nodes[k] = counted.nodes;
      bytes[k] = counted.bytes;
      plan[k] = counted.plan / (counted.steps + 1);
    }
    CHECK(nodes[2] - nodes[1] == nodes[1] - nodes[0], "%s: 4 layers have %zu nodes, the next 4 %zu, the next %zu", mixers[i], nodes[0],
          nodes[1] - nodes[0], nodes[2] - nodes[1]);
    CHECK(bytes[2] < 360 * nodes[2], "%s: %zu bytes for each node", mixers[i], bytes[2] / nodes[2]);
    CHECK(plan[2] < 2400 && 10 * plan[2] <= 11 * plan[0], "%s: %zu bytes for each step of 4 layers, %zu of 12", mixers[i], plan[0],
          plan[2]);
  }
}

/* ---- where lists were searched ---- */
static took compile_sum(mn_graph *g, mn_tensor *y, double start) {
  mn_plan *plan = NULL; /* the passes on all of it, whether or not it repeats itself */
  mn_plan_request q = {.graph = g, .n_outputs = 1, .outputs = &y, .backend = cpu, .passes_off = MN_PASS_LAYERS};
  mn_status status = mn_graph_status(g);
  if (status == MN_OK) status = mn_plan_compile(&q, &plan);
  const took t = work_on(g, start, status == MN_OK);
  mn_plan_free(plan);
  mn_graph_free(g);
  return t;
}

static took slices_of_one_tensor(int n, const void *ctx) {
  (void)ctx;
  double start = now();
  mn_graph *g = mn_graph_new();
  mn_tensor *x = mn_input(g, "x", MN_F32, MN_SHAPE(n, 4)), *y = mn_slice(g, x, 0, 0, 1);
  for (int i = 1; i < n; i++) y = mn_add(g, y, mn_sin(g, mn_slice(g, x, 0, i, 1)));
  return compile_sum(g, y, start);
}

static took values_that_a_loop_borrows(int n, const void *ctx) {
  (void)ctx;
  double start = now();
  mn_graph *g = mn_graph_new();
  mn_tensor *c = mn_input(g, "c", MN_F32, MN_SHAPE(4)), *in, *final = NULL;
  mn_scan_builder *b = mn_scan_begin(g, 3, MN_FORWARD, 1, &c, 0, NULL, &in, NULL);
  mn_graph *body = mn_scan_body(b);
  mn_tensor **w = mn_arena_alloc(g->arena, (size_t)n * sizeof *w), *y = in;
  for (int i = 0; i < n; i++) w[i] = mn_input(g, "w", MN_F32, MN_SHAPE(4));
  for (int i = 0; i < 2 * n; i++) y = mn_add(body, mn_sin(body, y), w[i % n]);
  mn_scan_end(b, &y, 0, NULL, &final, NULL);
  return compile_sum(g, final, start);
}

static took a_mask_that_all_layers_read(int n, const void *ctx) {
  (void)ctx;
  double start = now();
  mn_graph *g = mn_graph_new();
  mn_tensor *x = mn_input(g, "x", MN_F32, MN_SHAPE(8, 8)), *w = mn_input(g, "w", MN_F32, MN_SHAPE(8, 8));
  mn_tensor *mask = mn_sigmoid(g, mn_input(g, "mask", MN_F32, MN_SHAPE(8, 8)));
  for (int i = 0; i < n; i++) x = mn_matmul(g, mn_mul(g, mn_tanh(g, x), mask), w);
  return compile_sum(g, x, start);
}

static took states_below_many_scopes(int n, const void *ctx);

static void what_is_looked_up_often_is_found_at_once(void) {
  takes_time_in_proportion("slices of one tensor", slices_of_one_tensor, 2000, NULL);
  takes_time_in_proportion("values that a loop borrows", values_that_a_loop_borrows, 2000, NULL);
  takes_time_in_proportion("a mask that all layers read", a_mask_that_all_layers_read, 4000, NULL);
  takes_time_in_proportion("loops over scopes with states", states_below_many_scopes, 150, NULL);
}

/* Each scope loops over its own state; many scopes have one. */
static mn_tensor *counts(mn_scope *s, void *ctx, mn_tensor *x) {
  (void)ctx;
  mn_graph *g = mn_scope_graph(s);
  mn_tensor *sum = mn_state(s, "sum", MN_F32, MN_SHAPE(1, 4), NULL, "");
  mn_tensor *y = mn_add(g, x, mn_reshape(g, sum, MN_SHAPE(1, 1, 4)));
  mn_state_set(s, "sum", mn_reshape(g, mn_sum(g, y, 2), MN_SHAPE(1, 4)));
  return y;
}

static took states_below_many_scopes(int n, const void *ctx) {
  (void)ctx;
  double start = now();
  mn_graph *g = mn_graph_new();
  mn_scope *s = mn_scope_new(g, (mn_build){.param = MN_F32, .compute = MN_F32}, 1);
  mn_tensor *x = mn_input(g, "x", MN_F32, MN_SHAPE(1, 8, 4));
  for (int i = 0; i < n; i++) x = mn_scope_loop(mn_scope_in(s, "layers.%d", i), 2, counts, NULL, x);
  return compile_sum(g, x, start);
}

/* ---- gradients by composition ---- */
/* An operation without a rule of its own is differentiated by a small gradient at the end of the graph built so far. What lies
 * before it must not be walked. */
static took gradients_by_composition(int n, const void *ctx) {
  (void)ctx;
  mn_graph *g = mn_graph_new();
  mn_tensor *x = mn_input(g, "x", MN_F32, MN_SHAPE(1, 2, 1, 4)), *y = x, *dx;
  mn_tensor *cos = mn_input(g, "cos", MN_F32, MN_SHAPE(2, 2)), *sin = mn_input(g, "sin", MN_F32, MN_SHAPE(2, 2));
  for (int i = 0; i < n; i++) y = mn_rope(g, mn_norm(g, MN_NORM_L2, y, NULL, NULL, 1e-6, MN_F32), cos, sin, MN_ROPE_HALVES);
  mn_status status = mn_grad(g, 1, &y, NULL, 1, &x, &dx); /* has nodes whose own gradient is that of their composition */
  double start = now();
  if (status == MN_OK) status = mn_grad(g, 1, &dx, NULL, 1, &x, &dx);
  const took t = work_on(g, start, status == MN_OK);
  mn_graph_free(g);
  return t;
}

static void a_gradient_costs_what_it_differentiates(void) {
  takes_time_in_proportion("gradients of gradients", gradients_by_composition, 300, NULL);
}

/* ---- interruption ---- */
static void an_interrupted_compilation_says_so(void) {
  static atomic_int stop;
  mn_graph *g = mn_graph_new();
  mn_tensor *x = mn_input(g, "x", MN_F32, MN_SHAPE(8, 8)), *y = x, *dx;
  for (int i = 0; i < 1500; i++) y = mn_matmul(g, mn_tanh(g, y), x);
  CHECK_OK(mn_graph_status(g));
  mn_plan_request q = {.graph = g, .n_outputs = 1, .outputs = &y, .backend = cpu};
  mn_plan *plan = NULL;
  mn_stop_watch(&stop);
  stop = 1;
  CHECK(mn_plan_compile(&q, &plan) == MN_ERR_CANCELLED && !plan && strstr(mn_message(), "interrupted"), "%s", mn_message());
  CHECK(mn_graph_status(g) == MN_OK, "the user's graph is whole");
  stop = 0;
  CHECK_OK(mn_plan_compile(&q, &plan)); /* and can be compiled later */
  mn_plan_free(plan);
  stop = 1;
  CHECK(mn_grad(g, 1, &y, NULL, 1, &x, &dx) == MN_ERR_CANCELLED && strstr(mn_message(), "interrupted"), "%s", mn_message());
  stop = 0;
  mn_stop_watch(NULL);
  mn_graph_free(g);
}

/* ---- memory ---- */
static void room_is_found_for_any_number_of_buffers(void) {
  enum { N = 20000 };
  mn_lifetime *b = calloc(N, sizeof *b);
  for (int shape = 0; shape < 3; shape++) {
    size_t alive[N + 64] = {0}, most = 0, total;
    for (int i = 0; i < N; i++) { /* 0: brief ones; 1: kept until the way back, as in training; 2: anything */
      uint64_t r = mn_splitmix64((uint64_t)(i + 7 * shape));
      int life = shape == 0 ? (int)(r % 6) : shape == 1 && i < N / 2 ? N - 1 - 2 * i : (int)(r % 9 ? r % 40 : r % N);
      if (shape == 1 && i < N / 2 && r % 4) life = 2;
      b[i] = (mn_lifetime){.bytes = 64 * (1 + r / 64 % 32), .first = i, .last = i + life < N ? i + life : N - 1};
      for (int t = b[i].first; t <= b[i].last; t += 1) alive[t] += b[i].bytes;
    }
    for (int t = 0; t < N; t++) most = alive[t] > most ? alive[t] : most;
    CHECK_OK(mn_pass_memory(N, b, true, &total));
    CHECK((double)total <= 1.25 * (double)most, "shape %d: %zu bytes where %zu are alive", shape, total, most);
    int overlaps = 0;
    for (int i = 0; i < N; i++)
      for (int k = i + 1; k < N && k < i + 400; k++)
        overlaps += b[k].first <= b[i].last && b[i].offset < b[k].offset + b[k].bytes && b[k].offset < b[i].offset + b[i].bytes;
    CHECK(overlaps == 0, "shape %d: %d overlaps", shape, overlaps);
  }
  free(b);
}

static void gaps_close_when_their_neighbours_do(void) {
  mn_gaps *g = mn_gaps_new(8, 100);
  CHECK(mn_gaps_take(g, 30, false) == 0 && mn_gaps_take(g, 20, true) == 80 && mn_gaps_take(g, 10, false) == 30, "from either end");
  mn_gaps_give(g, 0, 30);
  CHECK(mn_gaps_take(g, 40, false) == 40, "a gap of 30 is too small for 40");
  mn_gaps_give(g, 30, 10);
  CHECK(mn_gaps_take(g, 40, false) == 0, "the gaps [0, 30) and [30, 40) are one");
  CHECK(mn_gaps_end(g) == 100, "%zu", mn_gaps_end(g));
  CHECK(mn_gaps_take(g, 5, true) == 100 && mn_gaps_end(g) == 105, "full: the line grows");
  mn_gaps_free(g);
}

/* ---- a profile ---- */
typedef struct profile {
  int lines, at_best;
  double mean, shortest; /* of the last line, ms */
} profile;
static void read_profile(void *ctx, const char *text) {
  profile *p = ctx;
  p->lines++;
  p->at_best += strstr(text, " us at best") != NULL;
  const char *shortest = strstr(text, "; shortest ");
  if (shortest) sscanf(text, "sum of the kernels' times: mean %lf", &p->mean), sscanf(shortest, "; shortest %lf", &p->shortest);
}

/* The sum of the shortest times is what a step would take were every kernel undisturbed: never more than the mean. */
static void a_profile_tells_mean_and_shortest_times(void) {
  mn_graph *g = mn_graph_new();
  mn_tensor *x = mn_input(g, "x", MN_F32, MN_SHAPE(64, 64)), *y = mn_matmul(g, mn_matmul(g, x, x), x);
  mn_plan *plan = NULL;
  float *data = calloc(64 * 64, sizeof *data);
  CHECK_OK(mn_plan_compile(&(mn_plan_request){.graph = g, .n_outputs = 1, .outputs = &y, .backend = cpu}, &plan));
  mn_plan_bind(plan, x, data);
  const int runs[] = {0, 1, 5};
  for (int i = 0; i < 3; i++) {
    mn_plan_profile(plan, true); /* begins anew */
    for (int r = 0; r < runs[i]; r++) CHECK_OK(mn_plan_run(plan));
    profile p = {0};
    mn_plan_describe(plan, read_profile, &p);
    CHECK(p.lines == 2 + (runs[i] > 0) && p.at_best == (runs[i] > 1 ? 2 : 0), "%d runs: %d lines, %d at best", runs[i], p.lines, p.at_best);
    CHECK((p.mean > 0) == (runs[i] > 0) && p.shortest <= p.mean, "%d runs: mean %g, shortest %g", runs[i], p.mean, p.shortest);
  }
  mn_plan_free(plan);
  mn_graph_free(g);
  free(data);
}

/* ---- what becomes simpler does so to the end ---- */
static int operations_of(mn_graph *g, mn_tensor *y) { /* that are left when nothing becomes simpler any more */
  mn_plan *plan = NULL;
  CHECK_OK(mn_plan_compile(&(mn_plan_request){.graph = g, .n_outputs = 1, .outputs = &y, .backend = cpu}, &plan));
  const int n = plan ? plan->report.nodes_simplified : -1;
  mn_plan_free(plan);
  mn_graph_free(g);
  return n;
}
static mn_tensor *some_input(mn_graph *g, mn_dtype t, int64_t rows, int64_t columns) {
  return mn_input(g, "x", t, MN_SHAPE(rows, columns));
}

/* Each step of a chain is simpler only once the one before it is; what it was made of goes with it. */
static void chains_become_simpler_to_the_end(void) {
  mn_graph *g = mn_graph_new(); /* ((x w)^T + 0)^T * 1: the product alone */
  mn_tensor *x = some_input(g, MN_F32, 8, 16), *w = some_input(g, MN_F32, 16, 4);
  mn_tensor *y = mn_transpose(g, mn_add_scalar(g, mn_transpose(g, mn_matmul(g, x, w), 0, 1), 0), 0, 1);
  y = mn_mul_scalar(g, y, 1);
  const int product = operations_of(g, y);
  CHECK(product == 1, "%d operations for one product", product);

  g = mn_graph_new(); /* exp(0 x + 0) - 1 is a constant, whatever x was made of */
  x = some_input(g, MN_F32, 8, 16);
  y = mn_exp(g, mn_add_scalar(g, mn_mul_scalar(g, mn_tanh(g, mn_sqrt(g, x)), 0), 0));
  const int constant = operations_of(g, mn_sub(g, y, mn_exp(g, mn_mul_scalar(g, x, 0))));
  CHECK(constant <= 1, "%d operations for a constant", constant); /* one writes it */
}

/* Two readers of a product want it in another type. They are found to be one, which the product then serves itself. */
static void readers_that_become_one_count_as_one(void) {
  mn_graph *g = mn_graph_new();
  mn_tensor *a = some_input(g, MN_BF16, 8, 16), *b = some_input(g, MN_BF16, 16, 4), *p = mn_matmul(g, a, b);
  const int same = operations_of(g, mn_add(g, mn_exp(g, mn_cast(g, p, MN_F32)), mn_cast(g, p, MN_F32)));
  CHECK(same == 3, "%d operations for a product in f32, its exponential and a sum", same);

  g = mn_graph_new(); /* one that is read in its own type, too, stays what it is */
  a = some_input(g, MN_BF16, 8, 16), b = some_input(g, MN_BF16, 16, 4), p = mn_matmul(g, a, b);
  mn_tensor *own = mn_cast(g, mn_exp(g, p), MN_F32);
  const int both = operations_of(g, mn_add(g, own, mn_cast(g, p, MN_F32)));
  CHECK(both == 5, "%d operations for a product, an exponential, two casts and a sum", both);
}

int main(void) {
  if (mn_backend_cpu_new(1, &cpu) != MN_OK) return 1;
  RUN(every_layer_adds_the_same_work);
  RUN(four_times_the_layers_take_four_times_the_time);
  RUN(what_is_looked_up_often_is_found_at_once);
  RUN(a_gradient_costs_what_it_differentiates);
  RUN(an_interrupted_compilation_says_so);
  RUN(room_is_found_for_any_number_of_buffers);
  RUN(gaps_close_when_their_neighbours_do);
  RUN(a_profile_tells_mean_and_shortest_times);
  RUN(chains_become_simpler_to_the_end);
  RUN(readers_that_become_one_count_as_one);
  mn_backend_free(cpu);
  return test_end();
}
