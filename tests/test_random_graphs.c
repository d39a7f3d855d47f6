/* Random graphs: whatever is built, every way to compile it gives the same values, run after run. A graph is drawn from a
 * seed; operation k depends on the seed and k alone, so a failing graph is shrunk by drawing fewer operations.
 * MNEME_SEED=n runs that one graph and says more; with MNEME_GRAPHS=m, the m graphs from there on. */
#include "random_graph.h"

/* ---- the oracle: loops are written out, nothing is assigned, no pass runs; variables are set by hand between runs ---- */
static mn_tensor *slice_of(mn_graph *g, mn_tensor *x, int64_t t) { return mn_squeeze(g, mn_slice(g, x, 0, t, 1), 0); }

static mn_tensor *select_all(mn_graph *g, mn_tensor *cond, mn_tensor *a, mn_tensor *b) { return cond ? mn_select(g, cond, a, b) : a; }

/* Rebuilds the nodes that `outs` need in `to`, loops written out. map: what tensors of `from` are there (found by node id). */
static bool written_out(mn_graph *to, const mn_graph *from, mn_tensor ***map) {
  for (int i = 0; i < from->n_nodes && mn_graph_status(to) == MN_OK && to->n_nodes < 6000; i++) {
    mn_node *n = from->nodes[i];
    if (map[i]) continue;
    mn_tensor *in[400];
    if (n->n_in > 400 || !(map[i] = calloc((size_t)n->n_out + 1, sizeof *map[i]))) return false;
    for (int k = 0; k < n->n_in; k++) in[k] = map[n->in[k]->node->id][n->in[k]->out];
    if (n->op != &mn_op_scan) {
      mn_dtype types[16];
      mn_shape shapes[16];
      for (int j = 0; j < n->n_out; j++) types[j] = n->out[j]->dtype, shapes[j] = n->out[j]->shape;
      mn_node *copy = mn_node_new(to, n->op, n->n_in, in, n->n_out, types, shapes, n->attr);
      for (int j = 0; copy && j < n->n_out; j++) map[i][j] = copy->out[j];
      continue;
    }
    const mn_scan_attr *a = n->attr;
    const mn_graph *body = a->body;
    int64_t saves = a->save_every ? (a->length + a->save_every - 1) / a->save_every : 0;
    const int n_body = a->n_carry + a->n_xs + a->n_const;
    mn_tensor *carry[400], *rows[400][33], *saved[400][33], *live = a->has_live ? in[n_body] : NULL;
    if (a->n_carry + a->n_ys > 400 || a->length > 33) return false;
    for (int c = 0; c < a->n_carry; c++) carry[c] = in[c];
    for (int c = 0; c < a->n_carry; c++)
      for (int64_t k = 0; k < saves; k++) saved[c][k] = mn_zeros_like(to, carry[c]);
    for (int64_t e = 0; e < a->length && mn_graph_status(to) == MN_OK; e++) {
      int64_t t = a->reverse ? a->length - 1 - e : e;
      mn_tensor *runs = live ? mn_lt(to, mn_scalar(to, MN_I32, (double)t), live) : NULL, *enters = runs;
      if (a->reverse && live && (t + 1) % (a->save_every ? a->save_every : 1) != 0 && t != a->length - 1)
        enters = mn_eq(to, mn_scalar(to, MN_I32, (double)t), mn_add_scalar(to, live, -1)); /* the first step is in mid-segment */
      if (a->save_every && (a->reverse ? live || (t + 1) % a->save_every == 0 || t == a->length - 1 : t % a->save_every == 0))
        for (int c = 0; c < a->n_carry; c++) {
          mn_tensor **at = &saved[c][t / a->save_every];
          *at = select_all(to, enters, carry[c], *at);
        }
      mn_tensor ***inner = calloc((size_t)body->n_nodes + 1, sizeof *inner);
      if (!inner) return false;
      for (int k = 0; k < n_body; k++) {
        mn_tensor **slot = calloc(2, sizeof *slot);
        if (!slot) return false;
        slot[0] = k < a->n_carry ? carry[k] : k < a->n_carry + a->n_xs ? slice_of(to, in[k], t) : in[k];
        inner[a->body_in[k]->node->id] = slot;
      }
      bool ok = written_out(to, body, inner);
      mn_tensor *next[400];
      for (int c = 0; ok && c < a->n_carry; c++)
        next[c] = select_all(to, runs, inner[a->body_out[c]->node->id][a->body_out[c]->out], carry[c]);
      for (int c = 0; ok && c < a->n_carry; c++) carry[c] = next[c];
      for (int j = 0; ok && j < a->n_ys; j++) {
        mn_tensor *y = a->body_out[a->n_carry + j];
        y = inner[y->node->id][y->out];
        rows[j][t] = mn_unsqueeze(to, select_all(to, runs, y, mn_zeros_like(to, y)), 0);
      }
      for (int k = 0; k < body->n_nodes; k++) free(inner[k]);
      free(inner);
      if (!ok) return false;
    }
    for (int c = 0; c < a->n_carry; c++) map[i][c] = carry[c];
    for (int j = 0; j < a->n_ys; j++) map[i][a->n_carry + j] = mn_concat(to, (int)a->length, rows[j], 0);
    for (int c = 0; saves && c < a->n_carry; c++) {
      for (int64_t k = 0; k < saves; k++) saved[c][k] = mn_unsqueeze(to, saved[c][k], 0);
      map[i][a->n_carry + a->n_ys + c] = mn_concat(to, (int)saves, saved[c], 0);
    }
  }
  return mn_graph_status(to) == MN_OK && to->n_nodes < 6000;
}

/* The same drawing without loops, or false when it would be too large. */
static bool oracle_of(const drawn *d, drawn *o) {
  *o = *d;
  o->g = mn_graph_new();
  mn_tensor ***map = calloc((size_t)d->g->n_nodes + 1, sizeof *map);
  bool ok = o->g && map && written_out(o->g, d->g, map);
  for (int i = 0; ok && i < d->n_leaves + d->n_vars; i++) o->leaf[i] = map[d->leaf[i]->node->id][0];
  for (int i = 0; ok && i < d->n_vars; i++)
    o->var[i] = map[d->var[i]->node->id][0], o->next[i] = map[d->next[i]->node->id][d->next[i]->out];
  for (int j = 0; ok && j < d->n_outs; j++) o->out[j] = map[d->out[j]->node->id][d->out[j]->out];
  for (int i = 0; map && i < d->g->n_nodes; i++) free(map[i]);
  free(map);
  return ok;
}

/* ---- running ---- */
typedef struct way {
  const char *name;
  unsigned off;
  mn_activation_policy keep;
  int backend; /* 0 reference, 1 and 2: the processor with so many threads */
} way;

static const way ways[] = {
    {"oracle", MN_PASS_ALL, MN_KEEP, 0},
    {"reference, no passes", MN_PASS_ALL, MN_KEEP, 0},
    {"reference", 0, MN_KEEP, 0},
    {"reference, cheap", 0, MN_RECOMPUTE_CHEAP, 0},
    {"reference, only in place", MN_PASS_ALL & ~(unsigned)MN_PASS_INPLACE, MN_KEEP, 0},
    {"cpu, 1 thread", 0, MN_KEEP, 1},
    {"cpu, 2 threads", 0, MN_KEEP, 2},
    {"cpu, cheap", 0, MN_RECOMPUTE_CHEAP, 1},
    {"cpu, norms", 0, MN_RECOMPUTE_NORMS, 2},
    {"cpu, no fusion", MN_PASS_FUSE, MN_KEEP, 1},
    {"cpu, own memory", MN_PASS_SHARE_MEMORY | MN_PASS_INPLACE, MN_KEEP, 1},
};
enum { N_WAYS = sizeof ways / sizeof *ways };

/* A backend whose fresh memory is full of NaN: nothing may be read before it was written. */
static void *poisoned(mn_backend *b, size_t bytes) {
  (void)b;
  void *p = mn_alloc_aligned(bytes);
  if (p) memset(p, 0xFF, bytes);
  return p;
}
static void release(mn_backend *b, void *p, size_t bytes) {
  (void)b, (void)bytes;
  free(p);
}

typedef struct result { /* outputs and variables after each run, as doubles */
  int n;
  int64_t count[RUNS * (OUTS + 2 * GRADS + VARS)];
  mn_dtype type[RUNS * (OUTS + 2 * GRADS + VARS)];
  double *at[RUNS * (OUTS + 2 * GRADS + VARS)];
} result;

static void result_free(result *r) {
  for (int i = 0; i < r->n; i++) free(r->at[i]);
  r->n = 0;
}

static void fill_leaf(void *p, const mn_tensor *t, int i, uint64_t seed) {
  for (int64_t k = 0, n = mn_shape_count(&t->shape); k < n; k++) {
    double u = mn_random_uniform(seed * 77 + (uint64_t)i, 3, (uint64_t)k);
    mn_element_store(p, t->dtype, k, t->dtype == MN_I32 ? floor(13 * u) - 2 : floor(u * 32) / 8 - 2); /* on a grid: ties happen */
  }
}

static mn_status run_way(const drawn *d, const way *w, mn_backend *b, uint64_t seed, bool by_hand, result *r) {
  mn_plan *plan = NULL;
  mn_tensor *all[OUTS + 2 * GRADS + VARS];
  memcpy(all, d->out, sizeof d->out);
  for (int i = 0; i < d->n_vars; i++) all[d->n_outs + i] = d->next[i];
  mn_plan_request q = {.graph = d->g,
                       .n_outputs = d->n_outs + (by_hand ? d->n_vars : 0),
                       .outputs = all,
                       .n_assigns = by_hand ? 0 : d->n_vars,
                       .variables = d->var,
                       .values = d->next,
                       .backend = b,
                       .passes_off = w->off,
                       .activations = w->keep};
  void *mem[LEAVES + VARS] = {NULL};
  r->n = 0;
  mn_status status = mn_plan_compile(&q, &plan);
  for (int i = 0; status == MN_OK && i < d->n_leaves + d->n_vars; i++) {
    mem[i] = mn_alloc_aligned((size_t)mn_shape_count(&d->leaf[i]->shape) * mn_dtype_size(d->leaf[i]->dtype));
    fill_leaf(mem[i], d->leaf[i], i, seed);
    mn_plan_bind(plan, d->leaf[i], mem[i]);
  }
  for (int run = 0; status == MN_OK && run < RUNS; run++) {
    status = mn_plan_run(plan);
    for (int j = 0; status == MN_OK && j < d->n_outs; j++) {
      const mn_view *v = mn_plan_output(plan, j);
      r->count[r->n] = mn_view_count(v);
      r->type[r->n] = v->dtype;
      r->at[r->n++] = gc_unpack(v);
    }
    for (int i = 0; status == MN_OK && i < d->n_vars; i++) {
      if (by_hand)
        memcpy(mem[d->n_leaves + i], mn_plan_output(plan, d->n_outs + i)->data,
               (size_t)mn_shape_count(&d->var[i]->shape) * mn_dtype_size(d->var[i]->dtype));
      mn_view v = {.data = mem[d->n_leaves + i], .dtype = d->var[i]->dtype, .ndim = 1, .dim = {mn_shape_count(&d->var[i]->shape)}};
      r->count[r->n] = v.dim[0];
      r->type[r->n] = v.dtype;
      r->at[r->n++] = gc_unpack(&v);
    }
  }
  for (int i = 0; i < d->n_leaves + d->n_vars; i++) free(mem[i]);
  mn_plan_free(plan);
  return status;
}

/* The largest difference, relative to 1 or the largest entry. */
static double difference(const double *a, const double *b, int64_t n) {
  double scale = 1, worst = 0;
  for (int64_t i = 0; i < n; i++) scale = fmax(scale, isfinite(a[i]) ? fabs(a[i]) : 0);
  for (int64_t i = 0; i < n; i++) {
    double e = a[i] == b[i] || (isnan(a[i]) && isnan(b[i])) ? 0 : fabs(a[i] - b[i]) / scale;
    if (!(e <= worst)) worst = e;
  }
  return worst;
}

static mn_backend *cpus[3], reference;
static int n_oracles;

/* NULL when all ways agree, else what does not (static text). */
static const char *fault_of(uint64_t seed, int ops, unsigned with, bool verbose) {
  static char text[512];
  drawn d;
  result first = {0}, one = {0};
  const char *fault = NULL;
  draw_graph(&d, seed, ops, with);
  if (mn_graph_status(d.g) != MN_OK) {
    snprintf(text, sizeof text, "building: %s", mn_message());
    fault = text;
  }
  double tolerance = d.bf16 ? 0.12 : d.real == MN_F64 ? 1e-9 : 5e-4;
  drawn oracle = {0};
  bool small = !fault && oracle_of(&d, &oracle); /* a graph too large without its loops keeps them */
  n_oracles += small;
  for (int w = 0; w < N_WAYS && !fault; w++) {
    result r = {0};
    if (run_way(w == 0 && small ? &oracle : &d, &ways[w], ways[w].backend ? cpus[ways[w].backend] : &reference, seed, w == 0, &r) !=
        MN_OK) {
      snprintf(text, sizeof text, "%s: %s", ways[w].name, mn_message());
      fault = text;
    }
    const result *against = ways[w].backend == 2 && ways[w].keep == MN_KEEP ? &one : &first;
    int each = d.n_outs + d.n_vars;
    for (int i = 0; !fault && w > 0 && i < r.n; i++) {
      double e = difference(against->at[i], r.at[i], r.count[i]);
      double allowed = against == &one ? 0 : mn_dtype_is_float(r.type[i]) ? tolerance : 0;
      if (verbose) printf("  %-26s run %d %s %d: %g\n", ways[w].name, i / each, i % each < d.n_outs ? "output" : "variable", i % each, e);
      if (e <= allowed) continue;
      snprintf(text, sizeof text, "%s, run %d, %s %d (%s): off by %g", ways[w].name, i / each, i % each < d.n_outs ? "output" : "variable",
               i % each < d.n_outs ? i % each : i % each - d.n_outs, i % each < d.n_outs ? d.out[i % each]->node->op->name : "", e);
      fault = text;
    }
    if (w == 0) first = r;
    else if (ways[w].backend == 1 && ways[w].keep == MN_KEEP && one.n == 0) one = r;
    else result_free(&r);
  }
  result_free(&first);
  result_free(&one);
  mn_graph_free(oracle.g);
  mn_graph_free(d.g);
  return fault;
}

static bool setup(void) {
  reference = *mn_backend_ref();
  reference.alloc = poisoned;
  reference.free = release;
  for (int t = 1; t <= 2; t++) {
    CHECK_OK(mn_backend_cpu_new(t, &cpus[t]));
    if (!cpus[t]) return false;
    cpus[t]->alloc = poisoned;
    cpus[t]->free = release;
  }
  return true;
}

static void all_ways_to_compile_a_graph_agree(void) {
  const char *only = getenv("MNEME_SEED"), *many = getenv("MNEME_GRAPHS");
  uint64_t from = only ? strtoull(only, NULL, 10) : 1, n = many ? strtoull(many, NULL, 10) : only ? 1 : GRAPHS;
  int failures = 0;
  for (uint64_t seed = from; seed < from + n && failures < 5; seed++) {
    const char *fault = fault_of(seed, OPS, WITH_ALL, false);
    if (!fault) {
      test_passed++;
      continue;
    }
    int ops = OPS;
    unsigned with = WITH_ALL;
    for (unsigned bit = 1; bit < WITH_ALL; bit *= 2)
      if (fault_of(seed, ops, with & ~bit, false)) with &= ~bit;
    for (int fewer = 0; fewer < ops; fewer++)
      if (fault_of(seed, fewer, with, false)) ops = fewer;
    fault = fault_of(seed, ops, with, only && n == 1);
    CHECK(false, "seed %llu, %d operations%s%s%s: %s", (unsigned long long)seed, ops, with & WITH_ASSIGNS ? ", assigned" : "",
          with & WITH_GRADS ? ", differentiated" : "", with & WITH_SCANS ? ", loops" : "", fault ? fault : "not found again");
    failures++;
  }
  CHECK(only || (uint64_t)n_oracles > n / 2, "%d graphs written out", n_oracles);
}

static void a_plan_refuses_what_it_cannot_assign(void) {
  mn_graph *g = mn_graph_new(), *other = mn_graph_new();
  mn_tensor *v = mn_variable(g, "v", MN_F32, MN_SHAPE(4)), *long_one = mn_input(g, "x", MN_F32, MN_SHAPE(8));
  mn_tensor *foreign = mn_exp(other, mn_input(other, "y", MN_F32, MN_SHAPE(4)));
  mn_tensor *twice = mn_exp(g, v);
  const struct {
    mn_tensor *variable[2], *value[2];
    int n;
    mn_status expected;
  } bad[] = {{{v}, {long_one}, 1, MN_ERR_SHAPE},  {{v}, {mn_cast(g, v, MN_I32)}, 1, MN_ERR_SHAPE},
             {{v, v}, {twice, v}, 2, MN_ERR_ARG}, {{v}, {foreign}, 1, MN_ERR_ARG},
             {{foreign}, {v}, 1, MN_ERR_ARG},     {{NULL}, {v}, 1, MN_ERR_ARG},
             {{twice}, {v}, 1, MN_ERR_ARG},       {{v}, {NULL}, 1, MN_ERR_ARG}};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    mn_plan *p = NULL;
    mn_plan_request q = {.graph = g, .n_assigns = bad[i].n, .variables = bad[i].variable, .values = bad[i].value, .backend = &reference};
    CHECK(mn_plan_compile(&q, &p) == bad[i].expected && !p, "case %zu: %s", i, mn_message());
    mn_plan_free(p);
  }
  mn_graph_free(g);
  mn_graph_free(other);
}

/* Nothing is a number of elements, too. */
static void empty_tensors(void) {
  for (int k = 0; k < 4; k++) {
    mn_graph *g = mn_graph_new();
    mn_tensor *x = mn_input(g, "x", MN_F32, MN_SHAPE(2, 0, 3)), *w = mn_input(g, "w", MN_F32, MN_SHAPE(3, 4)), *y[9], *dx[2];
    mn_tensor *nothing = mn_slice(g, w, 0, 1, 0), *c, *xt, *final = NULL, *ys = NULL,
              *start = mn_tanh(g, mn_reshape(g, mn_sum(g, x, 7), (mn_shape){0}));
    y[0] = mn_tanh(g, mn_mul_scalar(g, x, 2));
    y[1] = mn_matmul(g, x, w);
    y[2] = mn_matmul(g, mn_transpose(g, x, 1, 2), mn_reshape(g, x, MN_SHAPE(2, 0, 3))); /* sums over nothing: zeros [2,3,3] */
    y[3] = mn_concat(g, 2, (mn_tensor *[]){mn_slice(g, w, 0, 0, 2), nothing}, 0);
    y[4] = mn_softmax(g, mn_norm(g, MN_NORM_RMS, x, NULL, NULL, 1e-5, MN_F32));
    y[5] = mn_reshape(g, mn_copy(g, mn_transpose(g, x, 0, 2)), MN_SHAPE(0, 7));
    y[6] = mn_pad(g, mn_cumsum(g, x, 1, MN_FORWARD), 1, 1, 1);
    mn_scan_builder *b = mn_scan_begin(g, 2, MN_FORWARD, 1, &start, 1, &x, &c, &xt);
    mn_graph *body = mn_scan_body(b);
    CHECK(body != NULL, "%s", mn_message());
    if (!body) return mn_graph_free(g);
    mn_tensor *h = mn_add(body, c, mn_reshape(body, mn_sum(body, xt, 3), (mn_shape){0}));
    mn_tensor *e = mn_exp(body, xt);
    mn_scan_end(b, &h, 1, &e, &final, &ys);
    y[7] = final;
    y[8] = ys;
    CHECK_OK(mn_graph_status(g));
    CHECK_OK(mn_grad(g, 9, y, NULL, 2, (mn_tensor *[]){x, w}, dx));
    mn_tensor *out[11];
    memcpy(out, y, sizeof y);
    out[9] = dx[0], out[10] = dx[1];
    mn_plan *p = NULL;
    mn_plan_request q = {
        .graph = g, .n_outputs = 11, .outputs = out, .backend = k < 2 ? &reference : cpus[k - 1], .passes_off = k == 0 ? MN_PASS_ALL : 0};
    CHECK_OK(mn_plan_compile(&q, &p));
    if (!p) return mn_graph_free(g);
    float ws[12] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, none[1];
    mn_plan_bind(p, x, none);
    mn_plan_bind(p, w, ws);
    CHECK_OK(mn_plan_run(p));
    const float *zeros = mn_plan_output(p, 2)->data, *rows = mn_plan_output(p, 3)->data, *padded = mn_plan_output(p, 6)->data;
    for (int i = 0; i < 18; i++) CHECK(zeros[i] == 0, "%g", (double)zeros[i]);
    for (int i = 0; i < 12; i++) CHECK(padded[i] == 0, "%g", (double)padded[i]);
    for (int i = 0; i < 8; i++) CHECK(rows[i] == ws[i], "%g", (double)rows[i]);
    CHECK(mn_view_count(mn_plan_output(p, 9)) == 0 && mn_view_count(mn_plan_output(p, 5)) == 0, "shapes");
    mn_plan_free(p);
    mn_graph_free(g);
  }
}

int main(void) {
  if (!setup()) return test_end();
  RUN(all_ways_to_compile_a_graph_agree);
  RUN(a_plan_refuses_what_it_cannot_assign);
  RUN(empty_tensors);
  for (int t = 1; t <= 2; t++) mn_backend_free(cpus[t]);
  return test_end();
}
