/* test_synaptic.c - what must be true of synapses around a mixer, in order: golden vectors; a stream cut anywhere is the stream;
 * gradients; bf16; without a gate they are the base, bit for bit; what they become when everything is written and nothing fades; what
 * never writes; exact recall; homeostasis; a pair that is repeated; what a recipe may not ask for. */
#include "mixer_suite.h"

#define BASE "\"base\": {\"type\": \"attention\", \"heads\": 2, \"window\": 3}"
static const char *const forms[] = {
    "{\"type\": \"synaptic\", \"heads\": 2, \"chunk\": 4, " BASE "}",
    "{\"type\": \"synaptic\", \"heads\": 1, \"chunk\": 1, \"p_max\": 0.4, " BASE "}",
    "{\"type\": \"synaptic\", \"heads\": 2, \"chunk\": 16, \"conv\": 3, \"start\": \"learned\", \"p_max\": 0.8, "
    "\"base\": {\"type\": \"gla\", \"heads\": 2}}",
    "{\"type\": \"synaptic\", \"heads\": 2, \"chunk\": 4, \"mode\": \"gated\", \"p_max\": 0.5, " BASE "}",
    "{\"type\": \"synaptic\", \"heads\": 2, \"chunk\": 6, \"mode\": \"hebb\", \"eta\": 0.5, " BASE "}",
    "{\"type\": \"synaptic\", \"heads\": 2, \"head_dim\": 3, \"mode\": \"static\", " BASE "}",
    "{\"type\": \"synaptic\", \"mode\": \"off\", " BASE "}",
    "{\"type\": \"synaptic\", \"heads\": 2, \"chunk\": 3, \"detach_resonance\": true, "
    "\"base\": {\"type\": \"titans\", \"heads\": 2, \"chunk\": 4}}",
};
enum { FORMS = sizeof forms / sizeof *forms };

static void golden_vectors(void) {
  static const char *const files[] = {"synaptic/synaptic", "synaptic/synaptic_detached", "synaptic/synaptic_token",
                                      "synaptic/synaptic_gated", "synaptic/synaptic_hebb"};
  mc_golden_files(5, files, 2e-5);
}

static void a_stream_cut_anywhere_is_the_stream(void) { mc_cut_anywhere(FORMS, forms); }

/* A detached one has no differences to agree with; its golden vectors are those of a program whose res are constants. */
static void gradients_agree_with_differences(void) { ms_gradients(FORMS - 1, forms, 1e-4, 1e-6); }

static void bf16_is_close(void) { ms_bf16(FORMS, forms, 4e-2); }

/* ---- no gate ---- */
static void no_gate(mc_bag *p) { ms_set(p, "synaptic.gate", 0); }
static void without_a_gate_it_is_the_base_bit_for_bit(void) {
  static const char *const bases[] = {"{\"type\": \"attention\", \"heads\": 2, \"window\": 3}", "{\"type\": \"gla\", \"heads\": 2}",
                                      "{\"type\": \"titans\", \"heads\": 2, \"chunk\": 4}"};
  enum { T = 21, D = 8 };
  mn_backend *cpu = NULL;
  CHECK_OK(mn_backend_cpu_new(1, &cpu));
  for (int i = 0; cpu && i < 6; i++) {
    char around[200];
    snprintf(around, sizeof around, "{\"type\": \"synaptic\", \"heads\": 2, \"chunk\": 4, \"base\": %s}", bases[i % 3]);
    mc_mixer m, base;
    double *x = mc_normal(T * D, 1, 5), y[2][T * D];
    bool ok = mc_open(&m, around, D, 1, MN_F32, cpu) && mc_random_params(&m, 6);
    ok = mc_open(&base, bases[i % 3], D, 1, MN_F32, cpu) && mc_random_params(&base, 6) && ok;
    if (ok) no_gate(&m.params);
    m.bf16 = base.bf16 = i >= 3;
    for (int k = 0; ok && k < base.params.n; k++) { /* under the same names */
      const mc_tensor *t = &base.params.t[k], *there = mc_get(&m.params, t->name);
      ok = there && !memcmp(there->x, t->x, (size_t)mn_shape_count(&t->shape) * sizeof *t->x);
    }
    CHECK(ok, "%s: the base's parameters bear other names", around);
    ok = ok && mc_forward(&m, T, x, y[0], NULL, NULL, NULL) && mc_forward(&base, T, x, y[1], NULL, NULL, NULL);
    for (int k = 0; ok && k < T * D; k++) ok = y[0][k] == y[1][k];
    CHECK(ok, "%s is not the base%s", around, m.bf16 ? " in bf16" : "");
    mc_close(&m);
    mc_close(&base);
    free(x);
  }
  mn_backend_free(cpu);
}

/* ---- one head of width D whose base says nothing: u, v and r are x, and y is RMSNorm(P r) ---- */
enum { D = 4 };
static bool bare(mc_mixer *m, const char *keys) {
  char json[400];
  snprintf(json, sizeof json,
           "{\"type\": \"synaptic\", \"heads\": 1, \"base\": {\"type\": \"attention\", \"heads\": 1, \"window\": 1}, %s}", keys);
  if (!mc_open(m, json, D, 1, MN_F64, mn_backend_ref()) || !mc_random_params(m, 6)) return false;
  static const char *const names[] = {"synaptic.u_proj.weight", "synaptic.v_proj.weight", "synaptic.r_proj.weight",
                                      "synaptic.o_proj.weight"};
  for (int i = 0; i < 4; i++) {
    mc_tensor *t = mc_get(&m->params, names[i]);
    for (int e = 0; t && e < D * D; e++) t->x[e] = e % (D + 1) == 0;
  }
  ms_set(&m->params, "o_proj.weight", 0);
  ms_set(&m->params, "synaptic.norm.weight", 1);
  ms_set(&m->params, "synaptic.gate", 1);
  return true;
}
static void unit(const double *x, double *u) {
  double sum = 1e-6;
  for (int i = 0; i < D; i++) sum += x[i] * x[i];
  for (int i = 0; i < D; i++) u[i] = x[i] / sqrt(sum);
}
static double dot(const double *a, const double *b) {
  double s = 0;
  for (int i = 0; i < D; i++) s += a[i] * b[i];
  return s;
}
/* what y is where s was read */
static void normed(const double *s, double *y) {
  const double size = sqrt(dot(s, s) / D + 1e-6);
  for (int i = 0; i < D; i++) y[i] = s[i] / size;
}
static void written_wholly(mc_bag *p) { /* rho is 1, and so is lambda */
  ms_set(p, "synaptic.rho_proj.weight", 0);
  ms_set(p, "synaptic.rho_proj.bias", 60);
}

static void written_wholly_it_is_causal_linear_attention(void) {
  enum { T = 23 };
  mc_mixer m;
  double *x = mc_normal(T * D, 1, 7), y[T * D], want[T * D], u[T][D];
  bool ok = bare(&m, "\"mode\": \"gated\", \"chunk\": 5, \"p_max\": 1e9");
  if (ok) written_wholly(&m.params);
  ok = ok && mc_forward(&m, T, x, y, NULL, NULL, NULL);
  for (int t = 0; t < T; t++) {
    double s[D] = {0};
    unit(x + t * D, u[t]);
    for (int i = 0; i <= t; i++)
      for (int d = 0; d < D; d++) s[d] += x[i * D + d] * dot(u[i], u[t]);
    normed(s, want + t * D);
  }
  const double e = ok ? mc_difference(y, want, T * D) : INFINITY;
  CHECK(e < 1e-12, "it differs from the sum over the past by %g", e);
  mc_close(&m);
  free(x);
}

/* D pairs with keys at right angles: asked by a key, P gives its value, and nothing of the others. */
static void keys_at_right_angles_are_recalled_exactly(void) {
  enum { T = 2 * D };
  mc_mixer m;
  double x[T * D] = {0}, y[T * D], v[D * D];
  bool ok = bare(&m, "\"chunk\": 8, \"p_max\": 1e9");
  if (ok) {
    written_wholly(&m.params);
    ms_set(&m.params, "synaptic.beta_res", 0);
    ms_set(&m.params, "synaptic.beta_rel", 0);
    double *w = mc_get(&m.params, "synaptic.v_proj.weight")->x; /* value of key i: column i */
    for (int i = 0; i < D * D; i++) w[i] = v[i] = mn_random_normal(3, 1, (uint64_t)i);
  }
  for (int t = 0; t < D; t++) x[t * D + t] = 1;
  for (int t = 0; t < D; t++) x[(D + t) * D + t] = 1; /* written once more: each value twice, in its own place alone */
  ok = ok && mc_forward(&m, T, x, y, NULL, NULL, NULL);
  CHECK(ok, "run");
  for (int t = 0; ok && t < T; t++) {
    double s[D], want[D];
    const double times = (t < D ? 1 : 2) / (1 + 1e-6); /* u . r, each of length 1 but for 1e-6 */
    for (int d = 0; d < D; d++) s[d] = times * v[d * D + t % D];
    normed(s, want);
    CHECK(mc_difference(y + t * D, want, D) < 1e-12, "pair %d: %g", t, mc_difference(y + t * D, want, D));
  }
  mc_close(&m);
}

/* ---- what never writes ---- */
static void nothing_written_is_nothing_read(void) {
  const double e = ms_difference("{\"type\": \"synaptic\", \"heads\": 2, \"chunk\": 4, \"eta\": 0, " BASE "}",
                                 "{\"type\": \"attention\", \"heads\": 2, \"window\": 3}", 8, 21, NULL, NULL);
  CHECK(e == 0, "synapses that are not there say %g", e);
}
static void nothing_fades(mc_bag *p) { ms_set(p, "synaptic.delta_logit", -1e4); }
static void what_neither_writes_nor_fades_is_static(void) {
  static const char still[] =
      "{\"type\": \"synaptic\", \"heads\": 2, \"chunk\": 4, \"eta\": 0, \"start\": \"learned\", \"p_max\": 1e9, " BASE "}",
                    fixed[] = "{\"type\": \"synaptic\", \"heads\": 2, \"mode\": \"static\", " BASE "}";
  double e = ms_difference(still, fixed, 8, 21, nothing_fades, NULL);
  CHECK(e < 1e-12, "they differ by %g", e);
  e = ms_difference(still, fixed, 8, 21, NULL, NULL);
  CHECK(e > 1e-3, "fading changes nothing: %g", e);
}
static void no_betas(mc_bag *p) {
  ms_set(p, "synaptic.beta_res", 0);
  ms_set(p, "synaptic.beta_rel", 0);
}
static void without_betas_it_is_gated(void) {
  static const char full[] = "{\"type\": \"synaptic\", \"heads\": 2, \"chunk\": 4, " BASE "}",
                    gated[] = "{\"type\": \"synaptic\", \"heads\": 2, \"chunk\": 4, \"mode\": \"gated\", " BASE "}";
  double e = ms_difference(full, gated, 8, 21, no_betas, NULL);
  CHECK(e < 1e-12, "they differ by %g", e);
  e = ms_difference(full, gated, 8, 21, NULL, NULL);
  CHECK(e > 1e-3, "resonance and relevance change nothing: %g", e);
}
static void no_drive(mc_bag *p) {
  ms_set(p, "synaptic.rho_proj.weight", 0);
  ms_set(p, "synaptic.rho_proj.bias", 0);
}
static void gated_by_nothing_it_is_hebb(void) {
  const double e =
      ms_difference("{\"type\": \"synaptic\", \"heads\": 2, \"chunk\": 4, \"mode\": \"gated\", " BASE "}",
                    "{\"type\": \"synaptic\", \"heads\": 2, \"chunk\": 4, \"mode\": \"hebb\", " BASE "}", 8, 21, no_drive, NULL);
  CHECK(e < 1e-12, "they differ by %g", e);
}

/* ---- homeostasis ---- P after 4 n tokens where nothing is written and nothing fades, and res of the last chunk */
static bool kept(const char *p_max, double scale, int n, double P[D * D], double res[4]) {
  enum { MOST = 12 };
  char keys[160];
  snprintf(keys, sizeof keys, "\"chunk\": 4, \"eta\": 0, \"start\": \"learned\", \"p_max\": %s", p_max);
  mc_mixer m;
  mc_bag state = {0}, reports = {0};
  double *x = mc_normal(MOST * D, 1, 7), y[MOST * D];
  bool ok = bare(&m, keys);
  if (ok) {
    nothing_fades(&m.params);
    mc_tensor *start = mc_get(&m.params, "synaptic.P0");
    for (int i = 0; i < D * D; i++) start->x[i] *= scale;
  }
  ok = ok && mc_forward(&m, 4 * n, x, y, NULL, NULL, &reports) && mc_pieces(&m, 4 * n, x, 0, NULL, y, &state);
  if (ok) {
    memcpy(P, mc_get(&state, "synaptic.P")->x, D * D * sizeof *P);
    memcpy(res, mc_get(&reports, "synaptic.res")->x + 4 * (n - 1), 4 * sizeof *res);
  }
  mc_bag_free(&state);
  mc_bag_free(&reports);
  mc_close(&m);
  free(x);
  return ok;
}
static double frobenius(const double *P) {
  double s = 0;
  for (int i = 0; i < D * D; i++) s += P[i] * P[i];
  return sqrt(s);
}
static void homeostasis_bounds_and_changes_no_direction(void) {
  double free_P[D * D], once[D * D], twice[D * D], small[D * D], small_free[D * D], res[3][4], any[4];
  bool ok = kept("1e12", 1e6, 3, free_P, res[0]) && kept("1e4", 1e6, 1, once, any) && kept("1e4", 1e6, 3, twice, res[1]) &&
            kept("1e4", 1e-3, 2, small, any) && kept("1e12", 1e-3, 2, small_free, any);
  CHECK(ok, "run");
  if (!ok) return;
  CHECK(fabs(frobenius(once) / (1e4 * sqrt(D)) - 1) < 1e-12, "the norm is %g", frobenius(once));
  CHECK(mc_difference(twice, once, D * D) < 1e-12, "again it changes P by %g", mc_difference(twice, once, D * D));
  CHECK(!memcmp(small, small_free, sizeof small), "a small P is changed");
  for (int i = 0; i < D * D; i++) once[i] *= frobenius(free_P) / (1e4 * sqrt(D));
  CHECK(mc_difference(once, free_P, D * D) < 1e-12, "it turns P by %g", mc_difference(once, free_P, D * D));
  CHECK(mc_difference(res[1], res[0], 4) < 1e-6, "res changes by %g", mc_difference(res[1], res[0], 4));
  CHECK(kept("1e4", 0, 1, small, any) && frobenius(small) == 0 && any[0] == 0, "nothing resonates with no synapses");
}

/* However long the stream and however strong the feedback, the norm is bounded at chunks' ends, and all is finite. */
static void a_long_stream_stays_bounded(void) {
  enum { T = 4000 };
  mc_mixer m;
  mc_bag state = {0};
  double *x = mc_normal(T * D, 2, 7), *y = malloc(T * D * sizeof *y);
  bool ok = bare(&m, "\"chunk\": 8, \"p_max\": 1, \"beta_res\": 20, \"eta\": 5");
  ok = ok && mc_pieces(&m, T, x, 0, NULL, y, &state);
  CHECK(ok, "run");
  const double norm = ok ? frobenius(mc_get(&state, "synaptic.P")->x) : INFINITY;
  CHECK(norm <= sqrt(D) * (1 + 1e-12), "|P| is %g", norm);
  for (int i = 0; ok && i < T * D; i++) ok = isfinite(y[i]);
  CHECK(ok, "y is not finite");
  mc_bag_free(&state);
  mc_close(&m);
  free(x);
  free(y);
}

/* ---- a pair that is repeated ---- v^T P u after each token, and rho */
static void a_repeated_pair_grows_stronger(void) {
  enum { T = 12 };
  mc_mixer m;
  double x[T * D], y[T * D], u[D], last = 0, rho_before = 0;
  const double one[D] = {0.3, -1, 0.5, 0.8};
  bool ok = bare(&m, "\"chunk\": 1, \"p_max\": 1e9");
  if (ok) {
    ms_set(&m.params, "synaptic.rho_proj.weight", 0);
    ms_set(&m.params, "synaptic.rho_proj.bias", 0);
    ms_set(&m.params, "synaptic.beta_res", 1);
    ms_set(&m.params, "synaptic.beta_rel", 0);
    ms_set(&m.params, "synaptic.delta_logit", -3);
  }
  for (int t = 0; t < T; t++) memcpy(x + t * D, one, sizeof one);
  unit(one, u);
  for (int t = 1; ok && t <= T; t++) {
    mc_bag state = {0}, reports = {0};
    ok = mc_pieces(&m, t, x, 0, NULL, y, &state) && mc_forward(&m, t, x, y, NULL, NULL, &reports);
    if (ok) {
      double Pu[D] = {0};
      const double *P = mc_get(&state, "synaptic.P")->x, rho = mc_get(&reports, "synaptic.rho")->x[t - 1];
      for (int i = 0; i < D; i++)
        for (int o = 0; o < D; o++) Pu[o] += u[i] * P[i * D + o];
      const double strength = dot(Pu, one) / dot(one, one);
      CHECK(strength > last && rho < 1, "after %d times it is %g, before %g; rho %g", t, strength, last, rho);
      CHECK(t == 1   ? fabs(rho - 0.5) < 1e-12
            : t == 2 ? rho > rho_before + 0.1
                     : rho >= rho_before,
            "time %d: rho %g after %g", t, rho, rho_before);
      last = strength;
      rho_before = rho;
    }
    mc_bag_free(&state);
    mc_bag_free(&reports);
  }
  CHECK(ok, "run");
  mc_close(&m);
}

static void what_a_recipe_may_not_ask_for(void) {
  mc_refused("type: synaptic\nheads: 1\nbase: gla\n", 4, "recipe.yaml:3: base.key_dim must be given");
  mc_refused("type: synaptic\nheads: 1\n", 2, "recipe.yaml:1: base.heads must divide d_model 2");
  mc_refused("type: synaptic\nheads: 3\n", 16, "recipe.yaml:2|heads|divide d_model 16");
  mc_refused("type: synaptic\nbase: 3\n", 16, "recipe.yaml:2|base|{type: attention");
  mc_refused("type: synaptic\nbase: {heads: 2}\n", 16, "recipe.yaml:2|type|must name a mixer");
  mc_refused("type: synaptic\nbase: {type: atention}\n", 16, "recipe.yaml:2|attention");
  mc_refused("type: synaptic\nbase: {type: attention, windw: 2}\n", 16, "recipe.yaml:2|windw|window");
  mc_refused("type: synaptic\nbase: {type: attention, heads: 3}\n", 16, "recipe.yaml:2|heads|divide d_model 16");
  mc_refused("type: synaptic\nbase: {type: synaptic}\n", 16, "recipe.yaml:2|base|has these synapses already");
  mc_refused("type: synaptic\nmode: off\nheads: 2\n", 16, "recipe.yaml:3|heads|mode: off");
  mc_refused("type: synaptic\nmode: static\nchunk: 2\n", 16, "recipe.yaml:3|chunk|mode: static");
  mc_refused("type: synaptic\nmode: hebb\nrho_bias: 2\n", 16, "recipe.yaml:3|rho_bias|mode: hebb");
  mc_refused("type: synaptic\nmode: gated\nbeta_res: 2\n", 16, "recipe.yaml:3|beta_res|mode: gated");
  mc_refused("type: synaptic\nstart: learned\nconsolidate_rate: 0.1\n", 16, "recipe.yaml:3|consolidate_rate|start: learned");
  mc_refused("type: synaptic\nmode: resonnance\n", 16, "recipe.yaml:2|mode|resonance");
  mc_refused("type: synaptic\npersist: session\n", 16, "recipe.yaml:2: persist is no key|--session-out FILE|mode: static");
}

int main(void) {
  RUN(golden_vectors);
  RUN(a_stream_cut_anywhere_is_the_stream);
  RUN(gradients_agree_with_differences);
  RUN(bf16_is_close);
  RUN(without_a_gate_it_is_the_base_bit_for_bit);
  RUN(written_wholly_it_is_causal_linear_attention);
  RUN(keys_at_right_angles_are_recalled_exactly);
  RUN(nothing_written_is_nothing_read);
  RUN(what_neither_writes_nor_fades_is_static);
  RUN(without_betas_it_is_gated);
  RUN(gated_by_nothing_it_is_hebb);
  RUN(homeostasis_bounds_and_changes_no_direction);
  RUN(a_long_stream_stays_bounded);
  RUN(a_repeated_pair_grows_stronger);
  RUN(what_a_recipe_may_not_ask_for);
  return test_end();
}
