/* apply_inputs.c - see apply_inputs.h. */
#include "cli/apply_inputs.h"

#include <stdio.h>
#include <string.h>

static const mn_port part_ports[] = {{"x", MN_F32, "BTD", false, "what a mixer or a block is given"}, {0}};

const mn_port *mn_apply_ports(const mn_unit *u) { return u->kind == MN_UNIT_MODEL ? u->model->inputs : part_ports; }

static mn_shape shape_of(const mn_unit *u, const mn_port *p, mn_sizes sizes) {
  return u->kind == MN_UNIT_MODEL ? mn_model_shape(u->model, p, sizes) : MN_SHAPE(sizes.B, sizes.T, u->d_model);
}

static const char *axes_of(const mn_unit *u, const mn_port *p, mn_sizes sizes, char buf[96]) {
  if (u->kind == MN_UNIT_MODEL) return mn_model_axes(u->model, p, sizes, buf);
  snprintf(buf, 96, "[B, T, D] with D = %lld", (long long)u->d_model);
  return buf;
}

static const char *owner(const mn_unit *u, char buf[96]) {
  if (u->kind != MN_UNIT_MODEL) return u->kind == MN_UNIT_BLOCK ? "a block" : "a mixer";
  snprintf(buf, 96, "a model of type %s", u->model->def->name);
  return buf;
}

static mn_status missing(const mn_apply_inputs *in, const mn_port *p) {
  char axes[96], who[96];
  mn_text has = {0};
  for (int i = 0; i < mn_st_count(in->file); i++) mn_text_addf(&has, "%s%s", i ? ", " : "", mn_st_at(in->file, i)->name);
  mn_status status =
      mn_fail(MN_ERR_CONFIG, "%s: %s needs the tensor %s (%s %s: %s), and the file has %s", mn_st_path(in->file), owner(in->unit, who),
              p->name, mn_dtype_name(p->dtype), axes_of(in->unit, p, in->sizes, axes), p->help, has.data ? has.data : "none");
  mn_text_free(&has);
  return status;
}

static int64_t *size_at(mn_sizes *s, char axis) { return axis == 'B' ? &s->B : axis == 'T' ? &s->T : axis == 'S' ? &s->S : NULL; }

/* Takes sizes that are free and not known yet from the tensor; all others must be as they are. */
static mn_status fit(mn_apply_inputs *in, const mn_port *p, const mn_st_tensor *t) {
  const mn_shape want = shape_of(in->unit, p, in->sizes);
  const bool numbers = t->dtype == MN_DTYPES || mn_dtype_is_float(t->dtype);
  bool ok = t->shape.ndim == want.ndim && numbers == (p->dtype == MN_F32);
  for (int i = 0; ok && i < want.ndim; i++) ok = t->shape.dim[i] >= 1 && (!want.dim[i] || t->shape.dim[i] == want.dim[i]);
  if (!ok) {
    char given[96], axes[96], who[96];
    return mn_fail(MN_ERR_SHAPE, "%s: %s is %s %s; %s takes it as %s %s (%s)", mn_st_path(in->file), p->name, t->file_dtype,
                   mn_shape_str(&t->shape, given), owner(in->unit, who), p->dtype == MN_F32 ? "floats" : "integers",
                   axes_of(in->unit, p, in->sizes, axes), p->help);
  }
  for (int i = 0; i < want.ndim; i++) {
    int64_t *size = size_at(&in->sizes, p->axes[i]);
    if (size && !*size) *size = t->shape.dim[i];
  }
  in->port[in->n++] = p;
  return MN_OK;
}

mn_status mn_apply_inputs_find(const mn_unit *unit, const mn_st *file, bool later, mn_apply_inputs *out) {
  *out = (mn_apply_inputs){.unit = unit, .file = file};
  for (const mn_port *p = mn_apply_ports(unit); p->name; p++) {
    const mn_st_tensor *t = mn_st_find(file, p->name);
    const char *kept = unit->kind == MN_UNIT_MODEL ? unit->model->def->kept : NULL;
    if (t) MN_TRY(fit(out, p, t));
    else if (!p->optional && !(later && kept && !strcmp(kept, p->name))) return missing(out, p);
  }
  return MN_OK;
}

void mn_apply_inputs_leaves(mn_scope *s, const mn_apply_inputs *in, mn_model_io *io) {
  *io = (mn_model_io){0};
  for (int i = 0; i < in->n; i++) {
    const mn_port *p = in->port[i];
    const mn_dtype type = p->dtype == MN_F32 ? mn_scope_exact(s) : p->dtype;
    mn_io_put(io, p->name, mn_input(mn_scope_graph(s), p->name, type, shape_of(in->unit, p, in->sizes)));
  }
}

mn_status mn_apply_inputs_check(const mn_apply_inputs *in, const char *name, const void *values, int64_t n) {
  const mn_port *p = in->unit->kind == MN_UNIT_MODEL ? mn_model_input(in->unit->model, name) : NULL;
  return p ? mn_model_check_input(in->unit->model, p, in->sizes, values, n, mn_st_path(in->file)) : MN_OK;
}
