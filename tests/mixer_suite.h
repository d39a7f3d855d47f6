/* mixer_suite.h - the checks that a mixer of plain configurations passes as they stand, in one call each. What is particular
 * about a system stands in its own test. */
#ifndef MN_MIXER_SUITE_H
#define MN_MIXER_SUITE_H

#include "mixer_check.h"

/* Opens the mixer of such keys: "'type': 'aaren', 'heads': 2", with ' for ". */
static inline int ms_open(mc_mixer *m, const char *keys, int64_t d_model, int64_t B, mn_dtype type, mn_backend *backend) {
  char json[512];
  snprintf(json, sizeof json, "{%s}", keys);
  for (char *p = json; *p; p++)
    if (*p == '\'') *p = '"';
  return mc_open(m, json, d_model, B, type, backend);
}

/* Gradients of x where all tokens are zero, as silence is, are those of tokens that almost are: how far apart, beside the largest of
 * them and of those of ordinary tokens. For mixers without corners. */
static inline double ms_slope_at_zero(mc_mixer *m) {
  enum { T = 13 };
  static const double sizes[] = {1, 1e-12, 0};
  const int64_t n = m->B * T * m->d_model;
  double *dy = mc_normal(n, 1, 4), *y = calloc((size_t)n, sizeof *y), e = INFINITY, scale = 0;
  mc_bag at[3] = {0};
  bool ok = true;
  for (int i = 0; i < 3; i++) {
    double *x = mc_normal(n, sizes[i], 3);
    ok = mc_forward(m, T, x, y, dy, &at[i], NULL) && ok;
    free(x);
  }
  if (ok) {
    const double *ordinary = mc_get(&at[0], "x")->x, *near = mc_get(&at[1], "x")->x, *zero = mc_get(&at[2], "x")->x;
    e = 0;
    for (int64_t i = 0; i < n; i++) scale = fmax(scale, fmax(fabs(ordinary[i]), fabs(zero[i])));
    for (int64_t i = 0; i < n; i++) e = isfinite(zero[i]) ? fmax(e, fabs(zero[i] - near[i]) / scale) : INFINITY;
  }
  for (int i = 0; i < 3; i++) mc_bag_free(&at[i]);
  free(dy), free(y);
  return e;
}

/* Gradients of x and of every parameter against central differences in f64. step 0: 1e-3. */
static inline void ms_gradients(int n, const char *const *forms, double step, double bound) {
  for (int i = 0; test_of_reference() && i < n; i++) {
    mc_mixer m;
    int ok = mc_open(&m, forms[i], 8, 2, MN_F64, mn_backend_ref()) && mc_random_params(&m, 9);
    m.step = step;
    double e = ok ? mc_gradient_error(&m, 13, NULL, 5, 11) : INFINITY;
    CHECK(e < bound, "%s: %g", forms[i], e);
    e = ok ? ms_slope_at_zero(&m) : INFINITY;
    CHECK(e < 1e-4, "%s: gradients at zero and beside it differ by %g", forms[i], e);
    mc_close(&m);
  }
}

/* Products in bf16 beside products in f32: different, and close. */
static inline void ms_bf16(int n, const char *const *forms, double bound) {
  mn_backend *cpu = NULL;
  CHECK_OK(mn_backend_cpu_new(2, &cpu));
  for (int i = 0; i < n && cpu; i++) {
    mc_mixer m;
    int ok = mc_open(&m, forms[i], 32, 2, MN_F32, cpu) && mc_random_params(&m, 2);
    double e = ok ? mc_bf16_error(&m, 70, 8) : INFINITY;
    CHECK(e > 0 && e < bound, "%s: %g", forms[i], e);
    mc_close(&m);
  }
  mn_backend_free(cpu);
}

/* y of two mixers that must be the same function, on the same x [1,T,d_model] of f64; params of b are those of a, and `also`
 * sets what b has besides. */
typedef void (*ms_setter)(mc_bag *params);
static inline double ms_difference(const char *a, const char *b, int64_t d_model, int64_t T, ms_setter both, ms_setter also) {
  double *x = mc_normal(T * d_model, 1, 5), *y = malloc(sizeof(double) * (size_t)(2 * T * d_model)), e = INFINITY;
  mc_mixer m, o;
  if (mc_open(&m, a, d_model, 1, MN_F64, mn_backend_ref()) && mc_random_params(&m, 6)) {
    if (both) both(&m.params);
    if (mc_open(&o, b, d_model, 1, MN_F64, mn_backend_ref()) && mc_random_params(&o, 6)) {
      for (int i = 0; i < m.params.n; i++) {
        mc_tensor *t = &m.params.t[i], *there = mc_get(&o.params, t->name);
        if (there && mn_shape_equal(&there->shape, &t->shape)) mc_put(&o.params, t->name, t->shape, t->x);
      }
      if (also) also(&o.params);
      if (mc_forward(&m, T, x, y, NULL, NULL, NULL) && mc_forward(&o, T, x, y + T * d_model, NULL, NULL, NULL))
        e = mc_difference(y, y + T * d_model, T * d_model);
    }
    mc_close(&o);
  }
  mc_close(&m);
  free(x);
  free(y);
  return e;
}
/* every entry of parameter `name` becomes v */
static inline void ms_set(mc_bag *params, const char *name, double v) {
  mc_tensor *t = mc_get(params, name);
  CHECK(t != NULL, "there is no parameter %s", name);
  for (int64_t i = 0, n = t ? mn_shape_count(&t->shape) : 0; i < n; i++) t->x[i] = v;
}

/* Two mixers of f64 with equal parameters (but for what `set` changes in either) read one text: their states `name` agree. */
static inline void ms_same_state(const char *a, const char *b, const char *name, void (*set)(mc_bag *a, mc_bag *b), double bound) {
  enum { T = 30, D = 8 };
  double *x = mc_normal(T * D, 1, 5), y[T * D];
  mc_mixer m = {0}, o = {0};
  mc_bag sa = {0}, sb = {0};
  bool ok = mc_open(&m, a, D, 1, MN_F64, mn_backend_ref()) && mc_random_params(&m, 6);
  ok = mc_open(&o, b, D, 1, MN_F64, mn_backend_ref()) && mc_random_params(&o, 6) && ok;
  if (ok) set(&m.params, &o.params);
  ok = ok && mc_pieces(&m, T, x, 0, NULL, y, &sa) && mc_pieces(&o, T, x, 0, NULL, y, &sb);
  CHECK(ok, "run");
  if (ok) {
    double e = mc_difference(mc_get(&sa, name)->x, mc_get(&sb, name)->x, mn_shape_count(&mc_get(&sa, name)->shape));
    CHECK(e < bound, "the memories differ by %g", e);
  }
  mc_close(&m);
  mc_close(&o);
  mc_bag_free(&sa);
  mc_bag_free(&sb);
  free(x);
}

#endif
