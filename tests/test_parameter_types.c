/* test_parameter_types.c - parameters may be kept in bf16 whatever is computed in: every mixer casts each where it uses it, with its
 * gradient, and what comes out is what the same values kept in f32 give. */
#include "base/element.h"
#include "format/json.h"
#include "nn/mixer.h"
#include "run/program.h"
#include "plainest_mixer.h"
#include "test.h"
#include "train/optimizer.h"

enum { B = 2, T = 8, D = 64 };

static bool open_mixer(mn_arena *arena, const char *name, mn_mixer *out) {
  char json[MN_PLAINEST];
  const mn_value *v = NULL;
  mn_plainest_mixer(json, name);
  CHECK_OK(mn_json_parse(arena, "test", json, strlen(json), &v));
  return v && mn_mixer_parse(arena, v, "mixer", D, out) == MN_OK;
}

static void built(const mn_mixer *mixer, mn_dtype param, mn_dtype compute, bool carried) {
  const char *name = mixer->def->name;
  mn_graph *g = mn_graph_new();
  mn_scope *s = mn_scope_new(g, (mn_build){.param = param, .compute = compute, .carried = carried, .training = true}, B);
  mn_tensor *y = mn_mixer_apply(s, mixer, mn_input(g, "x", compute, MN_SHAPE(B, T, D)));
  const mn_param_info *info;
  mn_tensor *const *tensors;
  const int n = mn_scope_params(s, &info, &tensors);
  mn_status status = mn_graph_status(g);
  CHECK(status == MN_OK, "%s, parameters in %s: %s", name, mn_dtype_name(param), mn_message());
  mn_tensor **grads = mn_arena_alloc(g->arena, (size_t)(n + 1) * sizeof *grads), *cotangent = mn_zeros_like(g, y);
  if (status == MN_OK && grads)
    CHECK(mn_grad(g, 1, &y, &cotangent, n, tensors, grads) == MN_OK, "%s, parameters in %s: %s", name, mn_dtype_name(param), mn_message());
  for (int i = 0; i < n; i++) CHECK(tensors[i]->dtype == param, "%s: %s is kept in another type", name, info[i].name);
  mn_graph_free(g);
}

static mn_status build(void *ctx, mn_scope *s, const mn_form *form, mn_parts *parts) {
  mn_tensor *x = mn_parts_feed(parts, "x", MN_F32, MN_SHAPE(form->batch, form->length, D));
  mn_parts_give(parts, "y", mn_cast(mn_scope_graph(s), mn_mixer_apply(s, ctx, x), MN_F32));
  return MN_OK;
}

typedef struct declaring {
  mn_backend *backend;
  mn_dtype type;
  mn_params *params;
} declaring;

static mn_status declare(void *ctx, const mn_scope *s) {
  declaring *d = ctx;
  return mn_params_of_scope(s, d->backend, d->type, 7, &d->params);
}

/* y [B,T,D] with parameters of that type; their values are those of `as`, where it is given. */
static mn_params *run(mn_mixer *mixer, mn_backend *backend, mn_dtype type, const mn_params *as, float *y) {
  const mn_form form = {.batch = B, .length = T};
  const mn_program_config c = {
      .backend = backend, .build = {.param = type, .compute = MN_F32}, .builder = build, .ctx = mixer, .learn = form};
  declaring d = {backend, type, NULL};
  mn_program *p = NULL;
  mn_routine *r;
  float x[B * T * D];
  for (int i = 0; i < B * T * D; i++) x[i] = (float)mn_random_normal(3, 1, (uint64_t)i);
  CHECK_OK(mn_program_new(&c, &p));
  CHECK_OK(mn_program_look(p, &form, declare, &d));
  for (int i = 0; as && d.params && i < as->n; i++)
    for (int64_t k = 0, n = mn_shape_count(&as->info[i].shape); k < n; k++)
      mn_element_store(d.params->data[i], type, k, mn_element_load(as->data[i], as->type[i], k));
  mn_program_use(p, d.params);
  mn_status status = mn_program_enter(p, &form, &r);
  CHECK(status == MN_OK, "%s: %s", mixer->def->name, mn_message());
  if (status == MN_OK) {
    CHECK_OK(mn_routine_put(r, mn_routine_feed(r, "x"), x));
    CHECK_OK(mn_routine_run(r, NULL));
    CHECK_OK(mn_routine_get_all(r, 0, y));
    mn_program_leave(p);
  }
  mn_program_free(p);
  return d.params;
}

static void test_every_mixer_casts_its_parameters(void) {
  for (int i = 0; i < mn_mixer_count(); i++) {
    mn_arena *arena = mn_arena_new();
    mn_mixer mixer;
    if (open_mixer(arena, mn_mixer_at(i)->name, &mixer))
      for (int carried = 0; carried < 2; carried++) {
        built(&mixer, MN_BF16, MN_F32, carried);
        built(&mixer, MN_BF16, MN_BF16, carried);
        built(&mixer, MN_F32, MN_BF16, carried);
      }
    mn_arena_free(arena);
  }
}

static void test_the_type_of_memory_changes_rounding_alone(void) {
  static float a[B * T * D], b[B * T * D];
  mn_backend *cpu = NULL;
  CHECK_OK(mn_backend_cpu_new(1, &cpu));
  for (int i = 0; cpu && i < mn_mixer_count(); i++) {
    mn_arena *arena = mn_arena_new();
    mn_mixer mixer;
    double worst = 0, size = 1e-12;
    if (open_mixer(arena, mn_mixer_at(i)->name, &mixer)) {
      mn_params *narrow = run(&mixer, cpu, MN_BF16, NULL, a), *wide = run(&mixer, cpu, MN_F32, narrow, b);
      for (int k = 0; k < B * T * D; k++) worst = fmax(worst, fabs((double)a[k] - (double)b[k])), size = fmax(size, fabs((double)b[k]));
      CHECK(worst <= 1e-5 * size, "%s: kept in bf16 %.3g beside the same values in f32", mixer.def->name, worst / size);
      mn_params_free(narrow);
      mn_params_free(wide);
    }
    mn_arena_free(arena);
  }
  mn_backend_free(cpu);
}

/* ---- moving them ---- the gradient of every element is 1, so that AdamW moves each by the learning rate, which here is 1/16 of the
 * distance of two neighbours in bf16: rounded to the nearest, no element would ever move. */
enum { MANY = 4096, STEPS = 16 };
static const double rate = 0x1p-12;

typedef struct moved {
  mn_optimizer *optimizer;
  mn_update update;
} moved;

static mn_status build_update(void *ctx, mn_scope *s, const mn_form *form, mn_parts *parts) {
  moved *m = ctx;
  mn_graph *g = mn_scope_graph(s);
  (void)form;
  mn_tensor *w = mn_param(s, "w", MN_SHAPE(MANY), (mn_init){MN_INIT_CONSTANT, 1, 0}, MN_PARAM_NO_DECAY, "what is moved");
  mn_tensor *loss = mn_reshape(g, mn_sum(g, mn_cast(g, w, MN_F32), MN_ALL_AXES), (mn_shape){0}), *grad;
  if (!m->optimizer) return MN_OK;
  MN_TRY(mn_grad(g, 1, &loss, NULL, 1, &w, &grad));
  mn_optimizer_build(m->optimizer, s, &w, &grad, 0, &m->update);
  MN_TRY(mn_graph_status(g));
  mn_parts_fed(parts, m->update.rate);
  for (int i = 0; i < m->update.n_assigns; i++) mn_parts_assign(parts, m->update.variables[i], m->update.values[i]);
  return MN_OK;
}
static void bind_moments(void *ctx, mn_plan *plan) {
  const moved *m = ctx;
  mn_optimizer_bind(m->optimizer, &m->update, plan);
}
static mn_status declare_moved(void *ctx, const mn_scope *s) { return mn_params_of_scope(s, mn_backend_ref(), MN_BF16, 1, ctx); }

/* After STEPS steps; w in doubles. */
static void move(uint64_t seed, int type, double w[MANY]) {
  moved m = {0};
  mn_program *program = NULL;
  mn_params *params = NULL;
  void *host = NULL;
  mn_optimizer_config config = {.type = type, .lr = rate, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-12, .momentum = 0.9};
  mn_program_config c = {.backend = mn_backend_ref(),
                         .build = {.param = MN_BF16, .compute = MN_F32, .training = true, .seed = seed},
                         .builder = build_update,
                         .bound = bind_moments,
                         .ctx = &m};
  const mn_form form = {.batch = 1, .length = 1};
  CHECK_OK(mn_program_new(&c, &program));
  CHECK_OK(mn_program_look(program, &form, declare_moved, &params));
  if (params) CHECK_OK(mn_optimizer_new(&config, NULL, params, &m.optimizer));
  if (m.optimizer) mn_program_use(program, params);
  for (int64_t t = 1; m.optimizer && t <= STEPS; t++) {
    mn_routine *r = NULL;
    float rates[3];
    mn_optimizer_rate(m.optimizer, rate, t, rates);
    CHECK_OK(mn_program_enter(program, &form, &r));
    if (!r) break;
    CHECK_OK(mn_routine_put(r, mn_routine_feed(r, "step"), &t));
    CHECK_OK(mn_routine_put(r, mn_routine_feed(r, "rate"), rates));
    CHECK_OK(mn_routine_run(r, NULL));
    mn_program_leave(program);
  }
  if (params) CHECK_OK(mn_params_on_host(params, 0, &host));
  for (int i = 0; host && i < MANY; i++) w[i] = mn_element_load(host, MN_BF16, i);
  free(host);
  mn_optimizer_free(m.optimizer);
  mn_program_free(program);
  mn_params_free(params);
}

static void small_updates_are_not_lost_in_bf16(void) {
  static double a[MANY], b[MANY], other[MANY];
  double mean = 0;
  int at_rest = 0, steps_apart = 0;
  move(5, MN_OPTIMIZER_ADAMW, a);
  move(5, MN_OPTIMIZER_ADAMW, b);
  move(6, MN_OPTIMIZER_ADAMW, other);
  for (int i = 0; i < MANY; i++) mean += a[i] / MANY, at_rest += a[i] == 1, steps_apart += a[i] < 1 - 0x1p-7;
  CHECK(fabs(mean - (1 - STEPS * rate)) < 3e-4, "the mean is %g, and should be %g", mean, 1 - STEPS * rate);
  CHECK(at_rest > MANY / 5 && steps_apart > MANY / 50, "%d elements at rest, %d moved twice and more", at_rest, steps_apart);
  CHECK(!memcmp(a, b, sizeof a), "one seed, two results");
  CHECK(memcmp(a, other, sizeof a) != 0, "two seeds, one result");
}

int main(void) {
  RUN(test_every_mixer_casts_its_parameters);
  RUN(test_the_type_of_memory_changes_rounding_alone);
  RUN(small_updates_are_not_lost_in_bf16);
  return test_end();
}
