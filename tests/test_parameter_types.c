/* test_parameter_types.c - parameters may be kept in bf16 whatever is computed in: every mixer casts each where it uses it, with its
 * gradient, and what comes out is what the same values kept in f32 give. */
#include "base/element.h"
#include "format/json.h"
#include "nn/mixer.h"
#include "run/program.h"
#include "test.h"

enum { B = 2, T = 8, D = 64 };

static bool open_mixer(mn_arena *arena, const char *name, mn_mixer *out) {
  char json[128];
  const mn_value *v = NULL;
  snprintf(json, sizeof json, "{\"type\": \"%s\"}", name);
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

int main(void) {
  RUN(test_every_mixer_casts_its_parameters);
  RUN(test_the_type_of_memory_changes_rounding_alone);
  return test_end();
}
