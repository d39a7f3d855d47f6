/* whole.c - see whole.h. */
#include "run/whole.h"

#include "base/element.h"
#include "base/finite.h"

#include <stdlib.h>
#include <string.h>

struct mn_whole {
  const mn_model *model;
  const mn_port *input;
  mn_program *program;
  int64_t classes;
  float *logits;
};

static mn_status build(void *ctx, mn_scope *s, const mn_form *form, mn_parts *parts) {
  const mn_model *m = ((mn_whole *)ctx)->model;
  const mn_port *p = ((mn_whole *)ctx)->input;
  mn_model_io in = {0}, out = {0};
  const mn_shape shape = mn_model_shape(m, p, (mn_sizes){.B = form->batch, .T = form->length});
  mn_io_put(&in, p->name, mn_parts_feed(parts, p->name, mn_scope_exact(s), shape));
  if (mn_model_input(m, "length")) mn_io_put(&in, "length", mn_parts_feed(parts, "length", MN_I32, MN_SHAPE(form->batch)));
  mn_model_build(s, m, &in, &out);
  MN_TRY(mn_graph_status(mn_scope_graph(s)));
  mn_parts_give(parts, "logits", mn_cast(mn_scope_graph(s), mn_io_get(&out, "logits"), MN_F32));
  return MN_OK;
}

static mn_status check(mn_whole *w) {
  const mn_model *m = w->model;
  const mn_port *logits = mn_model_output(m, "logits");
  w->input = m->inputs;
  const bool reads = w->input->name && (!strcmp(w->input->name, "frames") || !strcmp(w->input->name, "images"));
  if (!logits || !reads)
    return mn_fail(MN_ERR_CONFIG, "a model of type %s %s: it does not say what a sound, a picture or a sequence of frames is", m->def->name,
                   logits ? "reads tokens" : "is no classifier");
  const mn_shape shape = mn_model_shape(m, logits, (mn_sizes){1, 1, 1});
  if (shape.ndim != 2)
    return mn_fail(MN_ERR_CONFIG, "this model of type %s says a class for each place, and none for the whole", m->def->name);
  w->classes = shape.dim[1];
  return MN_OK;
}

mn_status mn_whole_new(const mn_model *model, const mn_params *params, mn_dtype compute, mn_whole **out) {
  mn_whole *w = *out = mn_calloc(1, sizeof *w);
  if (!w) return MN_ERR_MEMORY;
  w->model = model;
  mn_status status = check(w);
  if (status == MN_OK && !(w->logits = mn_calloc((size_t)w->classes, sizeof *w->logits))) status = MN_ERR_MEMORY;
  const mn_program_config c = {.backend = params->backend,
                               .params = params,
                               .build = {.param = params->dtype, .compute = compute == MN_BF16 ? MN_BF16 : params->dtype},
                               .builder = build,
                               .ctx = w,
                               .settled = true};
  if (status == MN_OK) status = mn_program_new(&c, &w->program);
  if (status == MN_OK) return MN_OK;
  mn_whole_free(w);
  *out = NULL;
  return status;
}

void mn_whole_free(mn_whole *w) {
  if (!w) return;
  mn_program_free(w->program);
  free(w->logits);
  free(w);
}

int64_t mn_whole_classes(const mn_whole *w) { return w->classes; }

/* count: elements of x, of as many as the input has. */
static mn_status put(const mn_whole *w, mn_routine *r, const float *x, int64_t count, int32_t length) {
  const int feed = mn_routine_feed(r, w->input->name), at = mn_routine_feed(r, "length");
  const mn_dtype type = mn_routine_feed_type(r, feed);
  const int64_t all = mn_shape_count(mn_routine_feed_shape(r, feed));
  void *host = mn_calloc((size_t)all, mn_dtype_size(type));
  if (!host) return MN_ERR_MEMORY;
  for (int64_t k = 0; k < count; k++) mn_element_store(host, type, k, (double)x[k]);
  mn_status status = mn_routine_put(r, feed, host);
  if (status == MN_OK && at >= 0) status = mn_routine_put(r, at, &length);
  free(host);
  return status;
}

static mn_status run(mn_whole *w, const float *x, int64_t count, int32_t length, int64_t T, const float **logits) {
  mn_routine *r;
  MN_TRY(mn_program_enter(w->program, &(mn_form){.batch = 1, .length = T}, &r));
  mn_status status = put(w, r, x, count, length);
  if (status == MN_OK) status = mn_routine_run(r, NULL);
  if (status == MN_OK) status = mn_routine_get(r, 0, 0, w->classes, w->logits);
  mn_program_leave(w->program);
  MN_TRY(status);
  const int64_t bad = mn_first_not_finite(MN_F32, w->logits, w->classes);
  if (bad >= 0)
    return mn_fail(MN_ERR_NUMERIC, "the model's output is not a number: the logit of class %lld is %s", (long long)bad,
                   mn_not_finite_name(MN_F32, w->logits, bad));
  *logits = w->logits;
  return MN_OK;
}

mn_status mn_whole_frames(mn_whole *w, const float *frames, int64_t n, int64_t padded, const float **logits) {
  if (strcmp(w->input->name, "frames")) return mn_fail(MN_ERR_CONFIG, "a model of type %s reads pictures, not frames", w->model->def->name);
  if (n < 1 || padded < n || padded > INT32_MAX) return mn_fail(MN_ERR_ARG, "%lld frames in %lld places", (long long)n, (long long)padded);
  const mn_shape shape = mn_model_shape(w->model, w->input, (mn_sizes){1, 1, 1});
  return run(w, frames, n * shape.dim[2], (int32_t)n, padded, logits);
}

mn_status mn_whole_image(mn_whole *w, const float *image, const float **logits) {
  if (strcmp(w->input->name, "images")) return mn_fail(MN_ERR_CONFIG, "a model of type %s reads frames, not pictures", w->model->def->name);
  const mn_shape shape = mn_model_shape(w->model, w->input, (mn_sizes){1, 1, 1});
  return run(w, image, mn_shape_count(&shape), 1, 1, logits);
}
