/* test_objective.c - what must be true of objectives, in order: golden vectors of losses and metrics; gradients against central
 * differences; units and their weights; masks are a pure function of the step; several objectives add up; keys and ports that do
 * not fit are refused by name. */
#include "model/params.h"
#include "format/safetensors.h"
#include "format/yaml.h"
#include "gradcheck.h"
#include "objective/objective.h"

typedef struct golden {
  const char *name, *config;
} golden;
static const golden cases[] = {
    {"next_token", "{type: next_token}"},
    {"masked_token", "{type: masked_token}"},
    {"classification", "{type: classification}"},
    {"classification_smooth", "{type: classification, label_smoothing: 0.3}"},
    {"classification_positions", "{type: classification, per: position, label_smoothing: 0.1}"},
    {"regression_mse", "{type: regression}"},
    {"regression_mae", "{type: regression, loss: mae}"},
    {"regression_huber", "{type: regression, loss: huber, delta: 0.7}"},
    {"quantile", "{type: quantile, quantiles: [0.1, 0.5, 0.8]}"},
    {"span", "{type: span}"},
    {"contrastive", "{type: contrastive, temperature: 0.2}"},
    {"contrastive_other_side", "{type: contrastive, temperature: 0.2, negatives: other_side}"},
    {"distillation_logits", "{type: distillation, temperature: 2}"},
    {"distillation_features", "{type: distillation, from: features}"},
    {"distillation_sparse", "{type: distillation, from: sparse}"},
    {"match", "{type: match}"},
    {"events", "{type: events}"},
};
enum { CASES = sizeof cases / sizeof *cases, LEAVES = 8 };

static mn_status parse(mn_arena *arena, const char *text, mn_objectives *out) {
  const mn_value *v = NULL;
  MN_TRY(mn_yaml_parse(arena, "recipe.yaml", text, strlen(text), &v));
  return mn_objectives_parse(arena, v, "objective", out);
}

static mn_st *golden_file(void) {
  mn_st *st = NULL;
  CHECK_OK(mn_st_open(MN_TEST_SOURCE_DIR "/tests/golden/objectives/objectives.safetensors", &st));
  return st;
}

static double *values_of(const mn_st *st, const char *name, mn_shape *shape) {
  const mn_st_tensor *t = mn_st_find(st, name);
  if (!t) return NULL;
  *shape = t->shape;
  double *x = malloc(t->bytes + 8);
  CHECK_OK(mn_st_read(st, t, MN_F64, x));
  return x;
}

typedef struct built { /* an objective over leaves that a golden file gives */
  mn_graph *g;
  mn_model_io outputs, data;
  mn_tensor *leaf[2 * MN_IO_MAX], *weight;
  double *value[2 * MN_IO_MAX];
  int n;
  mn_verdict verdict;
} built;

static bool is_index(const char *name) {
  static const char *const names[] = {"target", "label", "span", "length", "tokens", "soft_ids"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (!strcmp(name, names[i])) return true;
  return false;
}

static void add_leaf(built *b, mn_model_io *io, const char *name, mn_dtype type, mn_shape shape, double *value) {
  b->leaf[b->n] = mn_input(b->g, name, type, shape);
  b->value[b->n] = value;
  mn_io_put(io, name, b->leaf[b->n++]);
}

static void build(built *b, const mn_st *st, const golden *c, const mn_objectives *o) {
  *b = (built){.g = mn_graph_new()};
  bool numbers = strstr(c->name, "regression") || strstr(c->name, "quantile");
  char name[128];
  mn_shape shape;
  int64_t B = 0;
  for (int i = 0; i < mn_st_count(st); i++) {
    const mn_st_tensor *t = mn_st_at(st, i);
    size_t n = strlen(c->name);
    if (strncmp(t->name, c->name, n) || t->name[n] != '/') continue;
    const char *rest = t->name + n + 1, *last = strrchr(t->name, '/') + 1;
    bool out = !strncmp(rest, "out/", 4), data = !strncmp(rest, "data/", 5);
    if (!out && !data) continue;
    double *value = values_of(st, t->name, &shape);
    if (!B) B = shape.dim[0];
    add_leaf(b, out ? &b->outputs : &b->data, last, data && is_index(last) && !numbers ? MN_I32 : MN_F64, shape, value);
  }
  snprintf(name, sizeof name, "%s/weight", c->name);
  double *weight = values_of(st, name, &shape);
  CHECK(weight && B, "%s is missing from the golden file", c->name);
  mn_model_io ignored = {0};
  add_leaf(b, &ignored, "weight", MN_F64, shape, weight);
  mn_scope *s = mn_scope_new(b->g, (mn_build){.param = MN_F64, .compute = MN_F64}, B);
  mn_judge judge = {&b->outputs, &b->data, b->leaf[b->n - 1], true, false, NULL};
  o->list[0].def->build(s, o->list[0].config, &judge, &b->verdict);
  CHECK(mn_graph_status(b->g) == MN_OK, "%s: %s", c->name, mn_message());
}

static void free_built(built *b) {
  for (int i = 0; i < b->n; i++) free(b->value[i]);
  mn_graph_free(b->g);
}

static void compare(const mn_st *st, const char *name, const double *got, int64_t n, const double *weight) {
  mn_shape shape;
  double *want = values_of(st, name, &shape);
  CHECK(want && mn_shape_count(&shape) == n, "%s is missing, or another size", name);
  if (!want) return;
  for (int64_t i = 0; i < n; i++)
    if (!weight || weight[i] > 0)
      CHECK(fabs(got[i] - want[i]) < 1e-12, "%s[%lld] is %.17g, must be %.17g", name, (long long)i, got[i], want[i]);
  free(want);
}

static void test_golden_vectors(void) {
  mn_st *st = golden_file();
  for (int i = 0; st && i < CASES; i++) {
    mn_arena *arena = mn_arena_new();
    mn_objectives o;
    built b;
    CHECK_OK(parse(arena, cases[i].config, &o));
    build(&b, st, &cases[i], &o);
    mn_tensor *y[2 + MN_METRICS] = {b.verdict.each, b.verdict.loss};
    const mn_metric_def *defs = o.list[0].def->metrics;
    int which[MN_METRICS], n = 2;
    for (int k = 0; defs && defs[k].name; k++)
      if (b.verdict.metric[k] && !defs[k].of_loss) which[n - 2] = k, y[n++] = b.verdict.metric[k];
    double *out[2 + MN_METRICS] = {NULL};
    char name[128];
    CHECK(gc_run(b.g, mn_backend_ref(), 0, MN_KEEP, b.n, b.leaf, b.value, n, y, out), "%s did not run", cases[i].name);
    const double *weight = b.value[b.n - 1];
    int64_t units = mn_shape_count(&y[0]->shape);
    snprintf(name, sizeof name, "%s/each", cases[i].name);
    compare(st, name, out[0], units, weight);
    snprintf(name, sizeof name, "%s/loss", cases[i].name);
    compare(st, name, out[1], 1, NULL);
    for (int k = 2; k < n; k++) {
      snprintf(name, sizeof name, "%s/metric/%s", cases[i].name, defs[which[k - 2]].name);
      compare(st, name, out[k], units, weight);
    }
    for (int k = 0; k < n; k++) free(out[k]);
    free_built(&b);
    mn_arena_free(arena);
  }
  if (st) mn_st_close(st);
}

/* Along every output of the model, at every entry. */
static void test_gradients(void) {
  mn_st *st = golden_file();
  for (int i = 0; st && i < CASES; i++) {
    mn_arena *arena = mn_arena_new();
    mn_objectives o;
    built b;
    CHECK_OK(parse(arena, cases[i].config, &o));
    build(&b, st, &cases[i], &o);
    int n = b.outputs.n;
    mn_tensor *y[1 + MN_IO_MAX] = {b.verdict.loss};
    double *out[1 + MN_IO_MAX] = {NULL}, *moved[1] = {NULL};
    CHECK_OK(mn_grad(b.g, 1, &b.verdict.loss, NULL, n, b.outputs.tensor, y + 1));
    CHECK(gc_run(b.g, mn_backend_ref(), 0, MN_KEEP, b.n, b.leaf, b.value, 1 + n, y, out), "%s did not run", cases[i].name);
    for (int k = 0; k < n; k++) {
      const char *of = b.outputs.name[k]; /* a teacher's output has no gradient, nor has one that metrics alone read */
      const bool still = !strncmp(of, "teacher.", 8) || !strcmp(of, "match_size");
      double largest = 0;
      for (int64_t e = 0, count = mn_shape_count(&b.outputs.tensor[k]->shape); e < count; e++) {
        double keep = b.value[k][e], f[2];
        const double h = 1e-5;
        for (int side = 0; side < 2 && !still; side++) {
          b.value[k][e] = keep + (side ? h : -h);
          gc_run(b.g, mn_backend_ref(), 0, MN_KEEP, b.n, b.leaf, b.value, 1, y, moved);
          f[side] = moved[0][0];
          free(moved[0]);
        }
        b.value[k][e] = keep;
        double numeric = still ? 0 : (f[1] - f[0]) / (2 * h), got = out[1 + k][e];
        largest = fmax(largest, fabs(got));
        CHECK(fabs(numeric - got) < 1e-8, "%s, %s[%lld]: gradient %.12g, differences %.12g", cases[i].name, b.outputs.name[k], (long long)e,
              got, numeric);
      }
      CHECK(still ? largest == 0 : largest > 0, "%s, %s: largest gradient %g", cases[i].name, b.outputs.name[k], largest);
    }
    for (int k = 0; k <= n; k++) free(out[k]);
    free_built(&b);
    mn_arena_free(arena);
  }
  if (st) mn_st_close(st);
}

/* ---- units ---- */

static mn_batch batch_of(int64_t B, int64_t T, int32_t *tokens, int32_t *target, int32_t *label) {
  mn_batch b = {.B = B, .T = T, .rows = B, .present = B};
  mn_batch_add(&b, "tokens", MN_I32, MN_SHAPE(B, T), "");
  mn_batch_add(&b, "target", MN_I32, MN_SHAPE(B, T), "");
  mn_batch_add(&b, "label", MN_I32, MN_SHAPE(B), "");
  b.data[0] = tokens;
  b.data[1] = target;
  b.data[2] = label;
  return b;
}

static void test_units_and_weights(void) {
  int32_t target[6] = {1, MN_IGNORE, 2, 0, MN_IGNORE, 3}, label[2] = {1, 2};
  mn_batch b = batch_of(2, 3, NULL, target, label);
  mn_arena *arena = mn_arena_new();
  mn_objectives o;
  float w[6];
  CHECK_OK(parse(arena, "{type: next_token}", &o));
  CHECK(mn_objective_units(&o.list[0], &b) == 6 && mn_objective_weights(&o.list[0], &b, w) == 4, "tokens that count");
  CHECK(w[0] == 1 && w[1] == 0 && w[4] == 0 && w[5] == 1, "weights of tokens");
  b.rows = 1; /* the second row is not there */
  CHECK(mn_objective_weights(&o.list[0], &b, w) == 2 && w[3] == 0 && w[5] == 0, "rows that are not there");
  b.rows = 2;
  CHECK_OK(parse(arena, "{type: classification, class_weights: [1, 0.5, 3]}", &o));
  CHECK(mn_objective_units(&o.list[0], &b) == 2 && mn_objective_weights(&o.list[0], &b, w) == 3.5, "weights of classes");
  CHECK(w[0] == 0.5f && w[1] == 3, "weights of classes");
  CHECK_OK(parse(arena, "{type: contrastive}", &o));
  CHECK(mn_objective_weights(&o.list[0], &b, w) == 0 && mn_objective_nothing(&o.list[0], "1 batch") == MN_ERR_CONFIG &&
            strstr(mn_message(), "one pair"),
        "a pair that nothing stands against: %s", mn_message());
  b.present = 4; /* pairs that do not count stand against it */
  CHECK(mn_objective_weights(&o.list[0], &b, w) == 2, "a pair that another stands against");
  CHECK_OK(parse(arena, "{type: regression}", &o));
  CHECK(mn_objective_units(&o.list[0], &b) == 2 && mn_objective_weights(&o.list[0], &b, w) == 2, "rows");
  mn_arena_free(arena);
}

static void test_masks_are_of_the_step(void) {
  enum { B = 8, T = 500 };
  static int32_t tokens[B * T], target[B * T], first[B * T];
  mn_arena *arena = mn_arena_new();
  mn_model m = {.config = {.vocab_size = 101}};
  mn_objectives o;
  CHECK_OK(parse(arena, "{type: masked_token, fraction: 0.2}", &o));
  mn_batch b = batch_of(B, T, tokens, target, NULL);
  b.rows = B - 1;
  for (int pass = 0; pass < 3; pass++) {
    for (int i = 0; i < B * T; i++) tokens[i] = i % 90;
    CHECK_OK(mn_objectives_prepare(&o, &m, 5, MN_SPLIT_TRAIN, pass == 2 ? 8 : 7, &b));
    int asked = 0, masked = 0, kept = 0, wrong = 0, beyond = 0;
    for (int i = 0; i < B * T; i++) {
      if (target[i] == MN_IGNORE) {
        wrong += tokens[i] != i % 90;
        continue;
      }
      asked++;
      beyond += i >= (B - 1) * T;
      wrong += target[i] != i % 90;
      masked += tokens[i] == 100;
      kept += tokens[i] == i % 90;
    }
    CHECK(!wrong && !beyond, "%d tokens changed or asked wrongly, %d beyond the rows", wrong, beyond);
    CHECK(asked > 560 && asked < 840, "%d of %d are asked for, must be about a fifth", asked, (B - 1) * T); /* 700, +-6 deviations */
    CHECK(masked > asked * 7 / 10 && masked < asked * 9 / 10 && kept > asked / 20 && kept < asked * 2 / 10, "%d asked, %d masked, %d kept",
          asked, masked, kept);
    if (pass == 0) memcpy(first, tokens, sizeof first);
    CHECK((memcmp(first, tokens, sizeof first) == 0) == (pass < 2), "pass %d: the mask must be the step's", pass);
  }
  mn_arena_free(arena);
}

/* ---- what is refused ---- */

static void test_what_is_refused(void) {
  static const struct {
    const char *text, *part, *more;
  } bad[] = {
      {"{type: next_tokens}", "recipe.yaml:1", "did you mean 'next_token'"},
      {"{typ: next_token}", "typ", "type"},
      {"[]", "1 to 8", ""},
      {"next_token", "must be a map such as {type: next_token}", "but is the text 'next_token'"},
      {"{type: classification, label_smothing: 0.1}", "label_smothing", "label_smoothing"},
      {"{type: classification, label_smoothing: 1.5}", "label_smoothing", "0.999"},
      {"{type: classification, class_weights: [0, 0, 0]}", "class_weights", "no example would count"},
      {"{type: regression, delta: 2}", "delta", "huber"},
      {"{type: contrastive, temperature: 1e-30}", "temperature", "from 1e-06"}, /* what is divided by it is infinite */
      {"{type: distillation, teacher: a, temperature: 1e-30}", "temperature", "from 1e-06"},
      {"{type: quantile, quantiles: [0.5, 0.1]}", "quantiles", "rise"},
      {"{type: quantile, quantiles: [0, 0.5]}", "quantiles", "between"},
      {"[{type: masked_token}, {type: masked_token, fraction: 0.3}]", "masked_token", "changes the batch"},
      {"[{type: masked_token}, {type: next_token}]", "next_token (number 2) is judged by the field target", "masked_token (number 1)"},
      {"{type: masked_token, masked: 0.9, random: 0.2}", "random", "sum"},
      {"{type: distillation, from: features, temperature: 2}", "temperature", "logits"},
      {"[{type: next_token, weight: 0}]", "weight", "above 0"}};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    mn_arena *arena = mn_arena_new();
    mn_objectives o;
    mn_status status = parse(arena, bad[i].text, &o);
    CHECK(status == MN_ERR_CONFIG && strstr(mn_message(), bad[i].part) && strstr(mn_message(), bad[i].more), "%s: %s: %s", bad[i].text,
          mn_status_name(status), mn_message());
    mn_arena_free(arena);
  }
}

static void test_back_to_a_tree(void) {
  static const char *const texts[] = {"{type: classification, label_smoothing: 0.1, class_weights: [1, 2]}",
                                      "[{type: next_token}, {type: distillation, weight: 0.25, temperature: 2}]"};
  for (int i = 0; i < 2; i++) {
    mn_arena *arena = mn_arena_new();
    mn_objectives o, again;
    CHECK_OK(parse(arena, texts[i], &o));
    const mn_value *v = mn_objectives_to_value(arena, &o), *w;
    CHECK_OK(mn_objectives_parse(arena, v, "objective", &again));
    w = mn_objectives_to_value(arena, &again);
    CHECK(v && w && mn_value_equal(v, w) && o.n == again.n && !mn_objectives_usual(&o), "%s changes on the way", texts[i]);
    CHECK(i == 0 || again.list[1].weight == 0.25, "the weight is lost");
    mn_arena_free(arena);
  }
  mn_objectives usual;
  mn_arena *arena = mn_arena_new();
  CHECK_OK(mn_objectives_parse(arena, NULL, "objective", &usual));
  CHECK(mn_objectives_usual(&usual), "no key means the next token");
  mn_arena_free(arena);
}

/* What is not there cannot be asked for: behind a row's length, and where masks say so. */
static void test_nothing_is_hidden_that_is_not_there(void) {
  enum { B = 4, T = 50 };
  static int32_t tokens[B * T], target[B * T], masks[B * T];
  int32_t length[B] = {50, 20, 50, 1};
  mn_arena *arena = mn_arena_new();
  mn_model m = {.config = {.vocab_size = 101}};
  mn_objectives o;
  CHECK_OK(parse(arena, "{type: masked_token, fraction: 1}", &o));
  mn_batch b = batch_of(B, T, tokens, target, NULL);
  mn_batch_add(&b, "length", MN_I32, MN_SHAPE(B), "");
  mn_batch_add(&b, "masks", MN_I32, MN_SHAPE(B, T), "");
  b.data[3] = length, b.data[4] = masks;
  for (int i = 0; i < B * T; i++) masks[i] = i % 3 > 0;
  CHECK_OK(mn_objectives_prepare(&o, &m, 5, MN_SPLIT_TRAIN, 1, &b));
  for (int i = 0; i < B * T; i++) {
    const bool there = i % T < length[i / T] && masks[i];
    CHECK((target[i] != MN_IGNORE) == there && (there || tokens[i] == 0), "row %d, place %d", i / T, i % T);
  }
  mn_arena_free(arena);
}

/* Of what a row says at each place, those that are there are averaged: here of two layers, told by length and masks. */
static void test_places_that_are_not_there(void) {
  enum { B = 2, T = 3, L = 2 };
  static const int32_t length[B] = {3, 1}, masks[B * T] = {1, 0, 1, 1, 1, 1};
  double error[B * T * L], size[B * T * L], *got[2] = {NULL};
  mn_arena *arena = mn_arena_new();
  mn_objectives o;
  for (int i = 0; i < B * T * L; i++) error[i] = 1 + sin(i), size[i] = 2 + cos(i);
  CHECK_OK(parse(arena, "{type: match}", &o));
  mn_graph *g = mn_graph_new();
  mn_model_io outputs = {0}, data = {0};
  mn_io_put(&outputs, "match_error", mn_const(g, MN_F64, MN_SHAPE(B, T, L), error));
  mn_io_put(&outputs, "match_size", mn_const(g, MN_F64, MN_SHAPE(B, T, L), size));
  const mn_port *takes, *fields;
  o.list[0].def->needs(o.list[0].config, &takes, &fields);
  for (const mn_port *p = fields; p->name; p++) {
    if (!strcmp(p->name, "length")) mn_io_put(&data, "length", mn_const(g, MN_I32, MN_SHAPE(B), length));
    if (!strcmp(p->name, "masks")) mn_io_put(&data, "masks", mn_const(g, MN_I32, MN_SHAPE(B, T), masks));
  }
  mn_judge judge = {&outputs, &data, mn_full(g, MN_F64, MN_SHAPE(B), 1), true, false, NULL};
  mn_verdict v = {0};
  o.list[0].def->build(mn_scope_new(g, (mn_build){.param = MN_F64, .compute = MN_F64}, B), o.list[0].config, &judge, &v);
  CHECK_OK(mn_graph_status(g));
  if (v.each && gc_run(g, mn_backend_ref(), 0, MN_KEEP, 0, NULL, NULL, 2, (mn_tensor *[]){v.each, v.metric[0]}, got))
    for (int b = 0; b < B; b++) {
      double e = 0, s = 0;
      int n = 0;
      for (int t = 0; t < length[b]; t++) n += L * masks[b * T + t];
      for (int i = 0; i < length[b] * L; i++)
        if (masks[b * T + i / L]) e += error[b * T * L + i] / n, s += size[b * T * L + i] / n;
      CHECK(fabs(got[0][b] - e) < 1e-12 && fabs(got[1][b] - e / s) < 1e-12, "row %d: %g for %g", b, got[0][b], e);
    }
  free(got[0]), free(got[1]);
  mn_graph_free(g);
  mn_arena_free(arena);
}

/* What masks leave out might as well not be there: each row's loss is that of a row without those places, which hold what is huge. */
static double *judged(const char *kind, const char *output, int64_t B, int64_t T, int64_t D, const double *x, const int32_t *masks,
                      const int32_t *span) {
  mn_arena *arena = mn_arena_new();
  mn_objectives o;
  CHECK_OK(parse(arena, kind, &o));
  mn_graph *g = mn_graph_new();
  mn_model_io outputs = {0}, data = {0};
  const mn_port *takes, *fields;
  mn_io_put(&outputs, output, mn_const(g, MN_F64, MN_SHAPE(B, T, D), x));
  mn_io_put(&data, "span", mn_const(g, MN_I32, MN_SHAPE(B, 2), span));
  o.list[0].def->needs(o.list[0].config, &takes, &fields);
  for (const mn_port *p = fields; masks && p->name; p++)
    if (!strcmp(p->name, "masks")) mn_io_put(&data, "masks", mn_const(g, MN_I32, MN_SHAPE(B, T), masks));
  mn_judge judge = {&outputs, &data, mn_full(g, MN_F64, MN_SHAPE(B), 1), false, false, NULL};
  mn_verdict v = {0};
  double *each = NULL;
  o.list[0].def->build(mn_scope_new(g, (mn_build){.param = MN_F64, .compute = MN_F64}, B), o.list[0].config, &judge, &v);
  CHECK_OK(mn_graph_status(g));
  if (v.each) CHECK(gc_run(g, mn_backend_ref(), 0, MN_KEEP, 0, NULL, NULL, 1, (mn_tensor *[]){v.each}, &each), "%s", mn_message());
  mn_graph_free(g);
  mn_arena_free(arena);
  return each;
}
static void test_masks_leave_places_out(void) {
  enum { B = 4, T = 3, D = 2 };
  static const char *const kinds[] = {"{type: contrastive}", "{type: contrastive, negatives: other_side}", "{type: span}"};
  static const int32_t spans[2][2 * B] = {{0, 2, 2, 2, 0, 0, 2, 2},
                                          {0, 1, 1, 1, 0, 0, 1, 1}}; /* the last place is the second that is left */
  int32_t masks[B * T];
  double whole[B * T * D], left[B * 2 * D];
  for (int i = 0; i < B * T * D; i++) {
    const int b = i / (T * D), t = i / D % T;
    masks[b * T + t] = t != 1;
    whole[i] = t == 1 ? 1000 : sin(1.7 * i);
    if (t != 1) left[(b * 2 + t / 2) * D + i % D] = whole[i];
  }
  for (int k = 0; k < 3; k++) {
    const char *output = k < 2 ? "hidden" : "logits";
    double *a = judged(kinds[k], output, B, T, D, whole, masks, spans[0]), *b = judged(kinds[k], output, B, 2, D, left, NULL, spans[1]);
    for (int i = 0; a && b && i < B; i++)
      CHECK(fabs(a[i] - b[i]) < 1e-12, "%s, row %d: %g with masks, %g without", kinds[k], i, a[i], b[i]);
    free(a), free(b);
  }
}

/* Class weights, labels that are ignored and smoothing beside PyTorch 2 (cross_entropy with weight, ignore_index and label_smoothing): the same
 * where it weighs or smooths. Where it does both it weighs what is spread by each class; here an example weighs what its label does. */
static void test_class_weights(void) {
  enum { N = 6, C = 4 };
  static const struct {
    const char *kind;
    double loss, slope[C]; /* of the second row */
  } kinds[] = {
      {"{type: classification}", 2.13872185751233, {0.08451221074899432, 0.025454588713501276, -0.13080725404919077, 0.020840454586695204}},
      {"{type: classification, class_weights: [1, 2, 0.5, 0]}",
       2.3787274955497097,
       {0.052820131718121444, 0.015909117945938297, -0.08175453378074424, 0.013025284116684502}},
      {"{type: classification, label_smoothing: 0.3}",
       1.9707218575123298,
       {0.06951221074899429, 0.01045458871350127, -0.08580725404919076, 0.0058404545866951995}},
      {"{type: classification, label_smoothing: 0.3, class_weights: [1, 2, 0.5, 0]}",
       2.1462274955497094,
       {0.043445131718121435, 0.0065341179459382955, -0.05362953378074423, 0.003650284116684501}}};
  static int32_t label[N] = {0, 2, MN_IGNORE, 3, 1, 2};
  double x[N * C];
  for (int i = 0; i < N * C; i++) x[i] = (i / C * 7 + i % C * 5) % 11 / 5.0 - 1;
  for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
    mn_arena *arena = mn_arena_new();
    mn_objectives o;
    CHECK_OK(parse(arena, kinds[k].kind, &o));
    mn_batch b = {.B = N, .T = 1, .rows = N, .present = N};
    mn_batch_add(&b, "label", MN_I32, MN_SHAPE(N), "");
    b.data[0] = label;
    float weight[N];
    double wide[N], sum = mn_objective_weights(&o.list[0], &b, weight), *got[2] = {NULL};
    for (int i = 0; i < N; i++) wide[i] = (double)weight[i] / sum;
    mn_graph *g = mn_graph_new();
    mn_model_io outputs = {0}, data = {0};
    mn_tensor *logits = mn_const(g, MN_F64, MN_SHAPE(N, C), x), *slope = NULL;
    mn_io_put(&outputs, "logits", logits);
    mn_io_put(&data, "label", mn_const(g, MN_I32, MN_SHAPE(N), label));
    mn_judge judge = {&outputs, &data, mn_const(g, MN_F64, MN_SHAPE(N), wide), false, false, NULL};
    mn_verdict v = {0};
    o.list[0].def->build(mn_scope_new(g, (mn_build){.param = MN_F64, .compute = MN_F64}, N), o.list[0].config, &judge, &v);
    CHECK_OK(mn_graph_status(g));
    CHECK_OK(mn_grad(g, 1, &v.loss, NULL, 1, &logits, &slope));
    CHECK(gc_run(g, mn_backend_ref(), 0, MN_KEEP, 0, NULL, NULL, 2, (mn_tensor *[]){v.loss, slope}, got), "%s", mn_message());
    if (got[0] && got[1]) {
      CHECK(fabs(got[0][0] - kinds[k].loss) < 1e-12, "%s: %.17g, must be %.17g", kinds[k].kind, got[0][0], kinds[k].loss);
      for (int c = 0; c < C; c++)
        CHECK(fabs(got[1][C + c] - kinds[k].slope[c]) < 1e-12 && got[1][2 * C + c] == 0,
              "%s: class %d: slope %g, and %g of what is ignored", kinds[k].kind, c, got[1][C + c], got[1][2 * C + c]);
    }
    free(got[0]), free(got[1]);
    mn_graph_free(g);
    mn_arena_free(arena);
  }
}

/* A row that wrote nothing has no mean: it does not count, whatever the others are. */
static void test_rows_that_wrote_nothing(void) {
  int32_t masks[6] = {1, 0, 0, 1, 1, 1};
  float w[3];
  mn_arena *arena = mn_arena_new();
  mn_objectives o;
  mn_batch b = {.B = 3, .T = 2, .rows = 3, .present = 3};
  CHECK_OK(parse(arena, "{type: memory_mean}", &o));
  CHECK(mn_objective_weights(&o.list[0], &b, w) == 3, "without masks all places are there");
  mn_batch_add(&b, "masks", MN_I32, MN_SHAPE(3, 2), "");
  b.data[0] = masks;
  CHECK(mn_objective_units(&o.list[0], &b) == 3 && mn_objective_weights(&o.list[0], &b, w) == 2 && w[1] == 0, "%g", (double)w[1]);
  CHECK_OK(parse(arena, "{type: match}", &o));
  CHECK(mn_objective_weights(&o.list[0], &b, w) == 3, "%g", (double)w[0]);
  masks[2] = masks[3] = 0;
  CHECK(mn_objective_weights(&o.list[0], &b, w) == 2 && w[1] == 0, "a row of which no place is there: %g", (double)w[1]);
  float parts[6]; /* units that are parts of rows */
  mn_batch_add(&b, "target", MN_F32, MN_SHAPE(3, 2), "");
  CHECK_OK(parse(arena, "{type: distillation, from: logits, teacher: nobody}", &o));
  CHECK(mn_objective_units(&o.list[0], &b) == 6 && mn_objective_weights(&o.list[0], &b, parts) == 4 && parts[2] == 0 && parts[3] == 0 &&
            parts[4] == 1,
        "%g %g %g", (double)parts[2], (double)parts[3], (double)parts[4]);
  int32_t of_four[8] = {1, 1, 0, 0, 1, 1, 1, 1};
  float pairs[4];
  mn_batch four = {.B = 4, .T = 2, .rows = 4, .present = 4};
  mn_batch_add(&four, "masks", MN_I32, MN_SHAPE(4, 2), "");
  four.data[0] = of_four;
  CHECK_OK(parse(arena, "{type: contrastive}", &o));
  CHECK(mn_objective_weights(&o.list[0], &four, pairs) == 2 && pairs[0] == 0 && pairs[1] == 0 && pairs[3] == 1,
        "a pair of which one row is not there: %g %g %g", (double)pairs[0], (double)pairs[1], (double)pairs[3]);
  mn_arena_free(arena);
}

/* The rows that fill up a last batch are nobody's negatives: losses of the others are those without them. */
static void test_missing_rows_are_no_negatives(void) {
  enum { T = 2, D = 3 };
  static const char *const kinds[] = {"{type: contrastive}", "{type: contrastive, negatives: other_side}"};
  const int32_t length[6] = {2, 1, 2, 2, 0, 0};
  double x[6 * T * D];
  for (int i = 0; i < 6 * T * D; i++) x[i] = sin(1.7 * i);
  for (int k = 0; k < 2; k++) {
    mn_arena *arena = mn_arena_new();
    mn_objectives o;
    double *each[2] = {NULL}, *found[2] = {NULL};
    CHECK_OK(parse(arena, kinds[k], &o));
    for (int full = 0; full < 2; full++) {
      const int64_t B = full ? 6 : 4;
      mn_graph *g = mn_graph_new();
      mn_model_io outputs = {0}, data = {0};
      mn_io_put(&outputs, "hidden", mn_const(g, MN_F64, MN_SHAPE(B, T, D), x));
      mn_io_put(&data, "length", mn_const(g, MN_I32, MN_SHAPE(B), length));
      mn_judge judge = {&outputs, &data, mn_full(g, MN_F64, MN_SHAPE(B), 1), true, false, NULL};
      mn_verdict v = {0};
      o.list[0].def->build(mn_scope_new(g, (mn_build){.param = MN_F64, .compute = MN_F64}, B), o.list[0].config, &judge, &v);
      CHECK_OK(mn_graph_status(g));
      double *got[2] = {NULL};
      mn_tensor *out[2] = {v.each, v.metric[0]};
      if (v.each) CHECK(gc_run(g, mn_backend_ref(), 0, MN_KEEP, 0, NULL, NULL, 2, out, got), "%s", mn_message());
      each[full] = got[0], found[full] = got[1];
      mn_graph_free(g);
    }
    for (int i = 0; each[0] && each[1] && i < 4; i++)
      CHECK(fabs(each[0][i] - each[1][i]) < 1e-12 && found[0][i] == found[1][i], "row %d: %g with missing rows, %g without", i, each[1][i],
            each[0][i]);
    for (int full = 0; full < 2; full++) free(each[full]), free(found[full]);
    mn_arena_free(arena);
  }
}

int main(void) {
  RUN(test_golden_vectors);
  RUN(test_gradients);
  RUN(test_units_and_weights);
  RUN(test_masks_are_of_the_step);
  RUN(test_nothing_is_hidden_that_is_not_there);
  RUN(test_places_that_are_not_there);
  RUN(test_masks_leave_places_out);
  RUN(test_class_weights);
  RUN(test_rows_that_wrote_nothing);
  RUN(test_missing_rows_are_no_negatives);
  RUN(test_what_is_refused);
  RUN(test_back_to_a_tree);
  return test_end();
}
