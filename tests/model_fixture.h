/* model_fixture.h - a small model that is described in a line, with its parameters as drawn, on the CPU with one thread. */
#ifndef MN_MODEL_FIXTURE_H
#define MN_MODEL_FIXTURE_H

#include <stdarg.h>

#include "format/yaml.h"
#include "model/model.h"
#include "test.h"

typedef struct fixture {
  mn_arena *arena;
  mn_backend *backend;
  mn_model *model;
  mn_params *params;
} fixture;

/* From the text of a model (or of a recipe, whose `model` it is). seed: of the parameters. True: all is there. */
static inline bool fixture_open(fixture *f, uint64_t seed, const char *fmt, ...) MN_PRINTF(3, 4);
static inline bool fixture_open(fixture *f, uint64_t seed, const char *fmt, ...) {
  char text[2048];
  const mn_value *v = NULL;
  va_list ap;
  va_start(ap, fmt);
  const int n = vsnprintf(text, sizeof text, fmt, ap);
  va_end(ap);
  *f = (fixture){.arena = mn_arena_new()};
  CHECK(n > 0 && (size_t)n < sizeof text, "%d bytes", n);
  CHECK_OK(mn_yaml_parse(f->arena, "test", text, strlen(text), &v));
  CHECK_OK(mn_backend_cpu_new(1, &f->backend));
  const mn_value *model = v ? mn_value_get(v, "model") : NULL;
  if (v && f->backend) CHECK_OK(mn_model_parse(model ? model : v, "test", 0, &f->model));
  if (f->model) CHECK_OK(mn_params_new(f->model, f->backend, MN_F32, seed, &f->params));
  return f->params != NULL;
}

static inline void fixture_close(fixture *f) {
  mn_params_free(f->params);
  mn_model_free(f->model);
  mn_backend_free(f->backend);
  mn_arena_free(f->arena);
}

#endif
