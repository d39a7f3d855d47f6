/* What must be true of `mneme apply` on a stream, for every system: the gradient of any loss over the results and the state
 * after them reaches the input, every parameter and the state before them; two calls chain to one; persistent tokens are read
 * from the parameters and never from a state; what nothing reads is refused; reports have a name. */

#include "base/file.h"
#include "mixer_check.h"
#include "program.h"
#define SCRATCH_IN_MEMORY 1
#include "scratch.h"
#include "small_mixers.h"

#define DIR "apply"
enum { B = 2, D = 8, FIRST = 5, SECOND = 6 };

static int load(const char *name, mc_bag *b) {
  char path[600];
  mn_st *st = NULL;
  snprintf(path, sizeof path, DIR "/%s", name);
  if (mn_st_open(path, &st) != MN_OK) return mc_complain(path);
  for (int i = 0; i < mn_st_count(st); i++) {
    const mn_st_tensor *t = mn_st_at(st, i);
    double *x = mc_put(b, t->name, t->shape, NULL);
    int64_t n = mn_shape_count(&t->shape);
    if (t->dtype == MN_I32)
      for (int64_t k = 0; k < n; k++) x[k] = ((const int32_t *)t->data)[k];
    else if (mn_st_read(st, t, MN_F64, x) != MN_OK) return mc_complain(t->name);
  }
  mn_st_close(st);
  return 1;
}

static int save(const char *name, const mc_bag *b, const char *only) { /* only: NULL, or the one tensor that is written */
  char path[600];
  mn_st_writer *w = mn_st_writer_new();
  int32_t position[B];
  snprintf(path, sizeof path, DIR "/%s", name);
  for (int i = 0; i < b->n; i++) {
    if (only && strcmp(b->t[i].name, only) != 0) continue;
    bool counts = !strcmp(b->t[i].name, "position");
    for (int k = 0; counts && k < B; k++) position[k] = (int32_t)b->t[i].x[k];
    CHECK_OK(mn_st_writer_add(w, b->t[i].name, counts ? MN_I32 : MN_F64, &b->t[i].shape, counts ? (const void *)position : b->t[i].x));
  }
  int ok = mn_st_writer_save(w, path) == MN_OK || mc_complain(path);
  mn_st_writer_free(w);
  return ok;
}

/* One call: x with what else stands in `in`, the state before (NULL: a stream begins) -> results, the state after. */
static int apply(const mc_bag *params, const mc_bag *in, const mc_bag *before, const char *more, mc_bag *results, mc_bag *after) {
  int ok = save("p.safetensors", params, NULL) && save("x.safetensors", in, strstr(more, "--grad") ? NULL : "x") &&
           (!before || save("s.safetensors", before, NULL));
  ok = ok &&
       sh("cd " DIR " && " MNEME "apply r.yaml --threads 1 --params p.safetensors --input x.safetensors --output y.safetensors --dtype f64 "
          "--state-out t.safetensors %s %s 2>&1",
          before ? "--state-in s.safetensors" : "", more) == 0;
  CHECK(ok, "%s", out);
  return ok && load("y.safetensors", results) && (!after || load("t.safetensors", after));
}

/* sum(y * dy) + sum over states (state * cotangent), of two more steps of a stream */
static double loss(const mc_bag *params, const mc_bag *in, const mc_bag *before) {
  mc_bag y = {0}, after = {0};
  double l = 0;
  if (!apply(params, in, before, "", &y, &after)) return (double)NAN;
  const mc_tensor *r = mc_get(&y, "y"), *dy = mc_get((mc_bag *)in, "dy");
  for (int64_t k = 0; k < mn_shape_count(&r->shape); k++) l += r->x[k] * dy->x[k];
  for (int i = 0; i < after.n; i++) {
    char name[112];
    snprintf(name, sizeof name, "cotangent.state.%.90s", after.t[i].name);
    const mc_tensor *c = mc_get((mc_bag *)in, name);
    for (int64_t k = 0; c && k < mn_shape_count(&c->shape); k++) l += c->x[k] * after.t[i].x[k];
  }
  mc_bag_free(&y);
  mc_bag_free(&after);
  return l;
}

static void add(mc_bag *b, const char *name, mn_shape shape, double std, uint64_t seed) {
  double *x = mc_normal(mn_shape_count(&shape), std, seed);
  mc_put(b, name, shape, x);
  free(x);
}

typedef struct stream { /* two segments, the state between them, and what the whole is weighed with */
  mc_bag params, first, second, whole, between, grads;
} stream;

static void stream_free(stream *s) {
  mc_bag *all[] = {&s->params, &s->first, &s->second, &s->whole, &s->between, &s->grads};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) mc_bag_free(all[i]);
}

static int begin(stream *s, const char *mixer) {
  mc_bag x = {0}, y = {0};
  char recipe[700];
  *s = (stream){0};
  snprintf(recipe, sizeof recipe, "d_model: %d\nmixer: %s\n", D, mixer);
  CHECK_OK(mn_file_write(DIR "/r.yaml", recipe, strlen(recipe)));
  add(&x, "x", MN_SHAPE(B, 1, D), 1, 1);
  int ok = save("x.safetensors", &x, NULL) &&
           sh("cd " DIR " && " MNEME "apply r.yaml --threads 1 --input x.safetensors --output y.safetensors --dtype f64 "
              "--params-out p.safetensors --seed 3 2>&1") == 0 &&
           load("p.safetensors", &s->params);
  CHECK(ok, "%s: %s", mixer, out);
  for (int i = 0; ok && i < s->params.n; i++) { /* nothing stays at a special value */
    mc_tensor *t = &s->params.t[i];
    double *more = mc_normal(mn_shape_count(&t->shape), 0.2, 40 + (uint64_t)i);
    for (int64_t k = 0; k < mn_shape_count(&t->shape); k++) t->x[k] += more[k];
    free(more);
  }
  add(&s->first, "x", MN_SHAPE(B, FIRST, D), 1, 4);
  add(&s->first, "dy", MN_SHAPE(B, FIRST, D), 1, 5);
  add(&s->second, "x", MN_SHAPE(B, SECOND, D), 1, 6);
  add(&s->second, "dy", MN_SHAPE(B, SECOND, D), 1, 7);
  for (int i = 0; i < 2; i++) { /* both segments side by side */
    const char *name = i ? "dy" : "x";
    double *w = mc_put(&s->whole, name, MN_SHAPE(B, FIRST + SECOND, D), NULL);
    for (int64_t b = 0; b < B; b++) {
      memcpy(w + b * (FIRST + SECOND) * D, mc_get(&s->first, name)->x + b * FIRST * D, FIRST * D * sizeof *w);
      memcpy(w + (b * (FIRST + SECOND) + FIRST) * D, mc_get(&s->second, name)->x + b * SECOND * D, SECOND * D * sizeof *w);
    }
  }
  ok = ok && apply(&s->params, &s->first, NULL, "", &y, &s->between);
  for (int i = 0; ok && i < s->between.n; i++) {
    char name[112];
    snprintf(name, sizeof name, "cotangent.state.%.90s", s->between.t[i].name);
    if (strcmp(s->between.t[i].name, "position") == 0) continue;
    add(&s->second, name, s->between.t[i].shape, 1, 80 + (uint64_t)i);
    add(&s->whole, name, s->between.t[i].shape, 1, 80 + (uint64_t)i);
  }
  mc_bag_free(&x);
  mc_bag_free(&y);
  return ok && apply(&s->params, &s->second, &s->between, "--grad", &s->grads, NULL);
}

enum { N = MN_SMALL_MIXERS };

/* Along a random direction in t: what the gradient says against central differences, relative to the gradient's length. */
static double slope_error(stream *s, mc_tensor *t, const double *grad, uint64_t seed) {
  int64_t n = mn_shape_count(&t->shape);
  double *d = mc_normal(n, 1, seed), *old = malloc((size_t)(n + 1) * sizeof *old), l[2], said = 0, length = 0, step = 3e-6;
  memcpy(old, t->x, (size_t)n * sizeof *old);
  for (int i = 0; i < 2; i++) {
    for (int64_t k = 0; k < n; k++) t->x[k] = old[k] + (i ? step : -step) * d[k];
    l[i] = loss(&s->params, &s->second, &s->between);
  }
  memcpy(t->x, old, (size_t)n * sizeof *old);
  for (int64_t k = 0; k < n; k++) said += grad[k] * d[k], length += grad[k] * grad[k];
  free(d);
  free(old);
  return fabs((l[1] - l[0]) / (2 * step) - said) / (sqrt(length) + 1e-3);
}

static void test_gradients_pass_through_states(void) {
  for (int c = 0; c < N; c++) {
    stream s;
    mc_bag *bags[] = {&s.second, &s.params, &s.between};
    static const char *const prefix[] = {"grad.", "grad.", "grad.state."};
    for (int b = begin(&s, mn_small_mixers[c]) ? 0 : 3; b < 3; b++)
      for (int i = 0; i < bags[b]->n; i++) {
        char name[112];
        mc_tensor *t = &bags[b]->t[i];
        if (!strcmp(t->name, "position") || (b == 0 && strcmp(t->name, "x") != 0)) continue;
        snprintf(name, sizeof name, "%s%.90s", prefix[b], t->name);
        mc_tensor *grad = mc_get(&s.grads, name);
        CHECK(grad, "%s: %s is missing", mn_small_mixers[c], name);
        double e = grad ? slope_error(&s, t, grad->x, 200 + (uint64_t)i) : 0;
        CHECK(e < 2e-6, "%s: %s: %g", mn_small_mixers[c], name, e);
      }
    stream_free(&s);
  }
}

static void test_two_calls_chain_to_one(void) {
  for (int c = 0; c < N; c++) {
    stream s;
    mc_bag whole = {0}, first = {0};
    int ok = begin(&s, mn_small_mixers[c]);
    for (int i = 0; ok && i < s.grads.n; i++) {
      char name[112];
      if (strncmp(s.grads.t[i].name, "grad.state.", 11) != 0) continue;
      snprintf(name, sizeof name, "cotangent.%.90s", s.grads.t[i].name + 5);
      mc_put(&s.first, name, s.grads.t[i].shape, s.grads.t[i].x);
    }
    ok = ok && apply(&s.params, &s.whole, NULL, "--grad", &whole, NULL) && apply(&s.params, &s.first, NULL, "--grad", &first, NULL);
    for (int i = 0; ok && i < s.params.n; i++) {
      char name[112];
      snprintf(name, sizeof name, "grad.%.90s", s.params.t[i].name);
      double *sum = mc_get(&first, name)->x, *second = mc_get(&s.grads, name)->x, *all = mc_get(&whole, name)->x, size = 0;
      int64_t n = mn_shape_count(&s.params.t[i].shape);
      for (int64_t k = 0; k < n; k++) sum[k] += second[k], size += fabs(all[k]);
      double e = size < 1e-9 ? 0 : mc_difference(sum, all, n);
      CHECK(e < 1e-9, "%s: %s: %g", mn_small_mixers[c], name, e);
      CHECK(size > 1e-9 || !strcmp(s.params.t[i].name, "k_proj.bias"), "%s: %s is 0", mn_small_mixers[c], name);
    }
    mc_bag_free(&whole);
    mc_bag_free(&first);
    stream_free(&s);
  }
}

static void test_a_stream_without_states_has_the_same_gradients(void) {
  for (int c = 0; c < N; c++) {
    stream s;
    mc_bag with = {0}, without = {0};
    int ok = begin(&s, mn_small_mixers[c]) && apply(&s.params, &s.first, NULL, "--grad", &with, NULL);
    ok = ok &&
         sh("cd " DIR " && " MNEME
            "apply r.yaml --threads 1 --params p.safetensors --input x.safetensors --output y.safetensors --dtype f64 --grad 2>&1") == 0;
    CHECK(ok && load("y.safetensors", &without) && with.n == without.n, "%s", out);
    for (int i = 0; ok && i < without.n; i++) {
      const mc_tensor *a = mc_get(&with, without.t[i].name), *b = &without.t[i];
      double e = a ? mc_difference(a->x, b->x, mn_shape_count(&b->shape)) : INFINITY;
      CHECK(e < 1e-9 || !strcmp(b->name, "grad.k_proj.bias"), "%s: %s: %g", mn_small_mixers[c], b->name, e);
    }
    mc_bag_free(&with);
    mc_bag_free(&without);
    stream_free(&s);
  }
}

/* What a session kept where the persistent pairs stand says nothing: other weights are other pairs, at once. */
static void test_persistent_tokens_are_no_state(void) {
  static const struct {
    const char *mixer, *state;
    int pairs;
  } with[] = {{"{type: attention, heads: 2, window: 3, persistent: 2}", "k", 2},
              {"{type: titans_mag, heads: 2, memory_net: linear, window: 3, persistent: 2}", "attn.v", 2},
              {"{type: titans_mac, heads: 2, memory_net: linear, chunk: 2, segment: 4, persistent: 2}", "attn.k", 2}};
  for (size_t c = 0; c < sizeof with / sizeof *with; c++) {
    stream s;
    if (!begin(&s, with[c].mixer)) continue;
    double before = loss(&s.params, &s.second, &s.between);
    mc_tensor *t = mc_get(&s.between, with[c].state);
    CHECK(t, "%s has no state %s", with[c].mixer, with[c].state);
    for (int64_t b = 0; t && b < B; b++) {
      int64_t row = mn_shape_count(&t->shape) / B, pair = row / t->shape.dim[1];
      for (int64_t k = 0; k < with[c].pairs * pair; k++) t->x[b * row + k] = 1e6;
    }
    CHECK(loss(&s.params, &s.second, &s.between) == before, "%s: a stale copy was read", with[c].mixer);
    stream_free(&s);
  }
}

static void test_what_nothing_reads_is_refused(void) {
  static const struct {
    const char *name, *more, *says;
  } wrong[] = {{"dz", "--grad --state-out t.safetensors", "dz"},
               {"cotangent.state.nothing", "--grad --state-out t.safetensors", "is not an input"},
               {"cotangent.state.position", "--grad --state-out t.safetensors", "is not an input"},
               {"cotangent.state.W", "--grad", "is not an input"}};
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    mc_bag x = {0};
    CHECK_OK(mn_file_write(DIR "/r.yaml", "d_model: 8\nmixer: {type: gated_deltanet, heads: 2}\n", 50));
    add(&x, "x", MN_SHAPE(B, 3, D), 1, 1);
    add(&x, wrong[i].name, MN_SHAPE(B, 2, 4, 4), 1, 2);
    CHECK(save("x.safetensors", &x, NULL), "x");
    int rc = sh("cd " DIR " && " MNEME "apply r.yaml --threads 1 --input x.safetensors --output y.safetensors %s 2>&1", wrong[i].more);
    CHECK(rc == 1 && strstr(out, wrong[i].says), "%s: %d: %s", wrong[i].name, rc, out);
    mc_bag_free(&x);
  }
}

static void test_reports_come_out_by_name(void) {
  static const struct {
    const char *mixer, *name;
  } there[] = {{"{type: titans_lmm, heads: 2, memory_net: linear}", "report.memory.surprise"},
               {"{type: titans_mag, heads: 2, memory_net: mlp}", "report.memory.surprise"},
               {"{type: titans_mac, heads: 2, segment: 2}", "report.memory.surprise"},
               {"{type: gated_deltanet, heads: 2}", NULL}};
  for (size_t i = 0; i < sizeof there / sizeof *there; i++) {
    mc_bag x = {0}, y = {0};
    char recipe[300];
    snprintf(recipe, sizeof recipe, "d_model: 8\nmixer: %s\n", there[i].mixer);
    CHECK_OK(mn_file_write(DIR "/r.yaml", recipe, strlen(recipe)));
    add(&x, "x", MN_SHAPE(B, 5, D), 1, 1);
    CHECK(save("x.safetensors", &x, NULL), "x");
    int rc = sh("cd " DIR " && " MNEME "apply r.yaml --threads 1 --input x.safetensors --output y.safetensors --report surprise 2>&1");
    if (there[i].name) {
      mc_tensor *t = rc == 0 && load("y.safetensors", &y) ? mc_get(&y, there[i].name) : NULL;
      CHECK(t && t->shape.ndim == 2 && t->shape.dim[1] == 5 && t->x[9] > 0, "%s: %s", there[i].mixer, out);
    } else CHECK(rc == 2 && strstr(out, "surprise") && strstr(out, "nothing here reports"), "%s: %d: %s", there[i].mixer, rc, out);
    mc_bag_free(&x);
    mc_bag_free(&y);
  }
}

/* The stream begins with a state that is a constant of the graph: every backend and type takes that. */
static void test_a_stream_begins_in_every_type(void) {
  static const char *const kinds[] = {"attention", "aaren", "gated_deltanet", "titans_lmm", "titans_mac", "titans_mag", "titans_mal"};
  static const char *const types[] = {"f32", "f64", "bf16"};
  for (size_t m = 0; m < sizeof kinds / sizeof *kinds; m++)
    for (size_t i = 0; i < 6; i++) {
      mc_bag x = {0};
      char recipe[100];
      snprintf(recipe, sizeof recipe, "d_model: 8\nmixer: {type: %s}\n", kinds[m]);
      CHECK_OK(mn_file_write(DIR "/r.yaml", recipe, strlen(recipe)));
      add(&x, "x", MN_SHAPE(B, 9, D), 1, 1);
      CHECK(save("x.safetensors", &x, NULL), "x");
      int rc = sh("cd " DIR " && " MNEME "apply r.yaml --threads 1 --input x.safetensors --output y.safetensors --state-out t.safetensors "
                  "--dtype %s %s 2>&1",
                  types[i % 3], i < 3 ? "" : "--grad");
      CHECK(rc == 0, "%s %s: %d: %s", kinds[m], types[i % 3], rc, out);
      mc_bag_free(&x);
    }
}

int main(void) {
  if (sh("rm -rf " DIR " && mkdir -p " DIR) != 0) return 1;
  RUN_ONCE(small_mixers_are_all_systems);
  RUN_ONCE(test_gradients_pass_through_states);
  RUN(test_a_stream_begins_in_every_type);
  RUN_ONCE(test_two_calls_chain_to_one);
  RUN_ONCE(test_a_stream_without_states_has_the_same_gradients);
  RUN_ONCE(test_persistent_tokens_are_no_state);
  RUN(test_what_nothing_reads_is_refused);
  RUN(test_reports_come_out_by_name);
  if (sh("rm -rf " DIR) != 0) return 1;
  return test_end();
}
