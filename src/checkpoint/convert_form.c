/* convert_form.c - tensors of another form: each of the model's parameters is read from where it stands in one, and stands in the other
 * where the architecture's list says, rows in the order that is usual there. */
#include "checkpoint/convert_internal.h"

#include "base/text.h"

#include <stdlib.h>
#include <string.h>

mn_status mn_convert_open_model(mn_converting *job) {
  MN_TRY(mn_settings_open(job->arena, job->from, &job->settings));
  MN_TRY(mn_arch_of(&job->settings, &job->arch));
  MN_TRY(job->arch->recipe(&job->settings, &job->recipe));
  if (!job->recipe) return MN_ERR_MEMORY;
  if (job->form == MN_FORM_GGUF && !job->arch->gguf)
    return mn_fail(MN_ERR_UNSUPPORTED, "%s: GGUF has no name for the architecture %s", job->settings.file, job->arch->name);
  MN_TRY(mn_context(mn_model_parse(job->recipe, NULL, 0, &job->model), "%s", job->settings.file));
  MN_TRY(mn_backend_open(NULL, 1, &job->backend));
  return mn_params_declare(job->model, job->backend, MN_F32, &job->params);
}

/* ---- the list ---- */

static int64_t rows_of(const mn_shape *s) { return s->ndim ? s->dim[0] : 1; }
static int64_t width_of(const mn_shape *s) { return rows_of(s) ? mn_shape_count(s) / rows_of(s) : 0; }

/* The row of the list that gives the parameter a place in the new form. */
static const mn_arch_tensor *row_of(const mn_converting *job, const char *param, int *layer) {
  for (const mn_arch_tensor *r = job->arch->tensors; r->param || r->hf || r->gguf; r++)
    if (r->param && (job->form == MN_FORM_GGUF ? r->gguf : r->hf) && mn_arch_fits(r->param, param, layer)) return r;
  return NULL;
}

static mn_target *named(mn_converting *job, const char *name) {
  for (int i = job->n - 1; i >= 0 && i >= job->n - 8; i--) /* parts of a tensor follow one another in a layer */
    if (!strcmp(job->targets[i].name, name)) return &job->targets[i];
  return NULL;
}

static mn_shape shape_of(const mn_shape *s, unsigned how) {
  mn_shape shape = *s;
  if (how & MN_T_TRANSPOSED && s->ndim == 2) shape = MN_SHAPE(s->dim[1], s->dim[0]);
  return shape;
}

/* Tensors that are put together or taken apart as their architecture alone knows are not written. */
static mn_status check_how(const mn_converting *job, unsigned how, const mn_arch_piece *from) {
  const unsigned own = MN_T_ROWS | MN_T_NEG_EXP | MN_T_SCALED | MN_T_RESHAPED;
  if (!from->each && !((how | from->how) & own)) return MN_OK;
  return mn_fail(MN_ERR_UNSUPPORTED, "%s: '%s' has another form elsewhere; models of type %s are opened, and not converted",
                 from->tensor->file, from->tensor->name, job->arch->name);
}

static mn_status add_piece(mn_converting *job, int i, const mn_arch_piece *from) {
  const mn_param_info *info = &job->params->info[i];
  char name[MN_ARCH_NAME];
  int layer;
  const mn_arch_tensor *row = row_of(job, info->name, &layer);
  if (!row)
    return mn_fail(MN_ERR_UNSUPPORTED, "%s (%s) has no place in %s of this architecture", info->name, from->tensor->name,
                   job->form == MN_FORM_GGUF ? "a GGUF file" : "a directory of Hugging Face's");
  const unsigned how = job->form == MN_FORM_GGUF ? row->gguf_how : row->hf_how,
                 order = MN_T_TRANSPOSED | MN_T_LESS_ONE | MN_T_ROTARY | MN_T_PART;
  MN_TRY(check_how(job, how, from));
  mn_arch_filled(job->form == MN_FORM_GGUF ? row->gguf : row->hf, layer, name);
  mn_target *t = how & MN_T_PART ? named(job, name) : NULL;
  if (!t) {
    t = &job->targets[job->n++];
    *t = (mn_target){.job = job, .name = mn_arena_strdup(job->arena, name), .shape = shape_of(&info->shape, how)};
    t->pieces = mn_arena_alloc(job->arena, 16 * sizeof *t->pieces);
    if (!t->name || !t->pieces) return MN_ERR_MEMORY;
    if (!((how | from->how) & MN_T_PART) && !((how ^ from->how) & order)) t->same = from->tensor;
  } else {
    t->shape.dim[how & MN_T_TRANSPOSED ? 1 : 0] += rows_of(&info->shape);
  }
  if (t->n_pieces == 16) return mn_fail(MN_ERR_INTERNAL, "%s has too many parts", name);
  mn_target_piece *p = &t->pieces[t->n_pieces++];
  *p = (mn_target_piece){.from = *from, .how = how, .rows = rows_of(&info->shape), .width = width_of(&info->shape)};
  if (t->n_pieces > 1) p->first = p[-1].first + p[-1].rows;
  return how & MN_T_ROTARY ? mn_arch_rotary(job->model, info->name, &p->rotary) : MN_OK;
}

mn_status mn_convert_list_pieces(mn_converting *job) {
  const int n = job->params->n_all;
  mn_arch_piece *from = mn_arena_alloc(job->arena, (size_t)(n + 1) * sizeof *from);
  job->targets = mn_arena_alloc(job->arena, (size_t)(n + 1) * sizeof *job->targets);
  if (!from || !job->targets) return MN_ERR_MEMORY;
  mn_status status = mn_arch_match(job->arch, job->from, job->model, job->params, from);
  for (int i = 0; i < n && status == MN_OK; i++) status = add_piece(job, i, &from[i]);
  for (int i = 0; i < n; i++) free(from[i].each); /* of what is refused */
  if (status != MN_OK) return status;
  for (int i = 0; i < job->n; i++) MN_TRY(mn_target_choose(&job->targets[i], job->targets[i].pieces[0].from.tensor->dtype));
  return MN_OK;
}

/* ---- values ---- */

/* Row r of the new tensor's piece is this row of the parameter. */
static int64_t param_row(const mn_target_piece *p, int64_t r) {
  if (!p->rotary) return r;
  const int64_t K = p->rotary, j = r % K;
  return r - j + j % 2 * (K / 2) + j / 2;
}

static mn_status read_row(const mn_target *t, int64_t r, float *to) {
  const mn_target_piece *p = t->pieces;
  while (r >= p->first + p->rows) p++;
  MN_TRY(mn_arch_read_row(&p->from, param_row(p, r - p->first), p->width, MN_F32, to));
  for (int64_t i = 0; i < p->width && p->how & MN_T_LESS_ONE; i++) to[i] -= 1;
  return MN_OK;
}

/* [in, out] of [out, in], the whole at once. */
static mn_status turn(const mn_target *t) {
  mn_converting *job = t->job;
  const int64_t in = t->shape.dim[0], outs = t->shape.dim[1];
  if (job->turned_of == t) return MN_OK;
  free(job->turned);
  job->turned_of = NULL;
  job->turned = mn_alloc((size_t)(in * outs) * sizeof *job->turned);
  float *row = mn_alloc((size_t)in * sizeof *row);
  mn_status status = job->turned && row ? MN_OK : MN_ERR_MEMORY;
  for (int64_t o = 0; o < outs && status == MN_OK; o++) {
    status = read_row(t, o, row);
    for (int64_t i = 0; i < in && status == MN_OK; i++) job->turned[i * outs + o] = row[i];
  }
  free(row);
  if (status == MN_OK) job->turned_of = t;
  return status;
}

mn_status mn_pieces_read(const mn_target *t, int64_t first, int64_t n, float *to) {
  const int64_t width = width_of(&t->shape);
  if (t->pieces->how & MN_T_TRANSPOSED && t->shape.ndim == 2) {
    MN_TRY(turn(t));
    memcpy(to, t->job->turned + first, (size_t)n * sizeof *to);
    return MN_OK;
  }
  float *row = mn_alloc((size_t)(width + 1) * sizeof *row);
  mn_status status = row ? MN_OK : MN_ERR_MEMORY;
  for (int64_t at = first; at < first + n && status == MN_OK;) {
    const int64_t r = at / width, begin = at % width, end = first + n - at < width - begin ? begin + first + n - at : width;
    status = begin == 0 && end == width ? read_row(t, r, to + (at - first)) : read_row(t, r, row);
    if (status == MN_OK && (begin || end != width)) memcpy(to + (at - first), row + begin, (size_t)(end - begin) * sizeof *to);
    at += end - begin;
  }
  free(row);
  return status;
}
