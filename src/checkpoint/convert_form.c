/* convert_form.c - tensors of another form: each of the model's parameters is read from where it stands in one, and stands in the other
 * where the architecture's list says, rows in the order that is usual there. */
#include "checkpoint/convert_internal.h"
#include "checkpoint/say.h"

#include "base/text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

mn_status mn_convert_open_model(mn_converting *job) {
  MN_TRY(mn_settings_open(job->arena, job->from, &job->settings));
  MN_TRY(mn_arch_of(&job->settings, &job->arch));
  MN_TRY(mn_arch_recipe(&job->settings, job->arch, &job->recipe));
  if (!job->recipe) return MN_ERR_MEMORY;
  if (job->form == MN_FORM_GGUF && !job->arch->gguf)
    return mn_fail(MN_ERR_UNSUPPORTED, "%s: GGUF has no name for the architecture %s", job->settings.file, job->arch->name);
  MN_TRY(mn_context(mn_model_parse(job->recipe, NULL, 0, &job->model), "%s", job->settings.file));
  MN_TRY(mn_backend_open(NULL, 1, &job->backend));
  return mn_params_declare(job->model, job->backend, MN_F32, &job->params);
}

/* ---- the list ---- */

enum { MOST_PARTS = 16 }; /* of one tensor */

static int64_t rows_of(const mn_shape *s) { return s->ndim ? s->dim[0] : 1; }
static int64_t width_of(const mn_shape *s) { return rows_of(s) ? mn_shape_count(s) / rows_of(s) : 0; }

/* The row of the list that gives the parameter a place in the new form. */
static const mn_arch_tensor *row_of(const mn_converting *job, const char *param, const mn_mixer *mixer, int *layer) {
  for (const mn_arch_tensor *r = job->arch->tensors; r->param || r->hf || r->gguf; r++)
    if (r->param && (job->form == MN_FORM_GGUF ? r->gguf : r->hf) && mn_arch_fits(r->param, param, layer) &&
        (!job->arch->belongs || !mixer || job->arch->belongs(mixer, r)))
      return r;
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

/* A tensor whose rows are all there gets the shape that the new form has it in: the same numbers in the same order. */
static void reshape(mn_converting *job, mn_target *t) {
  const mn_target_piece *p = t->pieces;
  if (!(p->how & MN_T_RESHAPED) || !job->arch->shape) return;
  const int64_t count = mn_shape_count(&t->shape);
  mn_shape shape = t->shape;
  job->arch->shape(p->mixer, p->row, job->form, &shape);
  if (mn_shape_count(&shape) == count) t->shape = shape;
}

static mn_status refuse(const mn_converting *job, const char *param, const char *file_name, const char *why) {
  return mn_fail(MN_ERR_UNSUPPORTED, "%s: %s (%s) %s in %s", job->path, param, file_name, why,
                 job->form == MN_FORM_GGUF ? "a GGUF file of this architecture" : "a directory of Hugging Face's");
}

static mn_status new_target(mn_converting *job, const char *name, const mn_shape *shape, mn_target **out) {
  if (job->n == job->room) {
    const int room = job->room ? 2 * job->room : 256;
    mn_target *more = mn_arena_alloc(job->arena, (size_t)room * sizeof *more);
    if (!more) return MN_ERR_MEMORY;
    if (job->n) memcpy(more, job->targets, (size_t)job->n * sizeof *more);
    job->targets = more;
    job->room = room;
  }
  mn_target *t = *out = &job->targets[job->n++];
  *t = (mn_target){.job = job, .name = mn_arena_strdup(job->arena, name), .shape = *shape};
  t->pieces = mn_arena_alloc(job->arena, MOST_PARTS * sizeof *t->pieces);
  return t->name && t->pieces ? MN_OK : MN_ERR_MEMORY;
}

static mn_status put_piece(mn_target *t, const mn_target_piece *piece) {
  if (t->n_pieces == MOST_PARTS) return mn_fail(MN_ERR_INTERNAL, "%s has too many parts", t->name);
  mn_target_piece *p = &t->pieces[t->n_pieces++];
  *p = *piece;
  if (t->n_pieces > 1) p->first = p[-1].first + p[-1].rows;
  return MN_OK;
}

/* A tensor for each expert: a slice of the parameter along its first axis. */
static mn_status add_each(mn_converting *job, const mn_param_info *info, int layer, mn_target_piece *piece, const char *pattern) {
  char name[MN_ARCH_NAME];
  mn_shape slice = {.ndim = info->shape.ndim - 1};
  for (int k = 0; k < slice.ndim; k++) slice.dim[k] = info->shape.dim[k + 1];
  piece->rows = 1;
  for (int64_t e = 0; e < info->shape.dim[0]; e++) {
    mn_target *t;
    piece->base = e;
    MN_TRY(new_target(job, mn_arch_filled_with(pattern, layer, e, name), &slice, &t));
    MN_TRY(put_piece(t, piece));
  }
  return MN_OK;
}

static mn_status add_piece(mn_converting *job, int i, const mn_arch_piece *from) {
  const mn_param_info *info = &job->params->info[i];
  char name[MN_ARCH_NAME];
  int layer;
  const mn_arch_tensor *row = row_of(job, info->name, from->mixer, &layer);
  if (!row) return refuse(job, info->name, from->tensor->name, "has no place");
  const char *pattern = job->form == MN_FORM_GGUF ? row->gguf : row->hf;
  const unsigned how = job->form == MN_FORM_GGUF ? row->gguf_how : row->hf_how, joined = MN_T_PART | MN_T_ROWS;
  mn_target_piece piece = {
      .from = *from, .row = row, .mixer = from->mixer, .how = how, .rows = rows_of(&info->shape), .width = width_of(&info->shape)};
  if (how & MN_T_SCALED && !job->arch->say) /* else its settings say that all factors are 1 */
    return refuse(job, info->name, from->tensor->name, "is kept with factors that are not written");
  if (how & MN_T_RESHAPED && !job->arch->shape && job->form == MN_FORM_HF)
    return refuse(job, info->name, from->tensor->name, "has another shape, which is not written,");
  if (how & MN_T_ROTARY) MN_TRY(mn_arch_rotary(job->model, info->name, &piece.rotary, &piece.turned));
  if (strchr(pattern, '@')) return add_each(job, info, layer, &piece, pattern);
  mn_arch_filled(pattern, layer, name);
  mn_target *t = how & joined ? named(job, name) : NULL;
  if (!t) {
    const mn_shape shape = shape_of(&info->shape, how);
    MN_TRY(new_target(job, name, &shape, &t));
    if (!((how | from->how) & (joined | MN_T_SCALED)) && !((how ^ from->how) & ~(unsigned)MN_T_RESHAPED) && !from->each)
      t->same = from->tensor;
  } else {
    t->shape.dim[how & MN_T_TRANSPOSED && info->shape.ndim == 2 ? 1 : 0] += piece.rows;
  }
  return put_piece(t, &piece);
}

/* A table of numbers that no parameter holds. */
static mn_status add_table(mn_converting *job, const char *name, const mn_value *list) {
  float *values = list && list->kind == MN_LIST ? mn_arena_alloc(job->arena, (list->count + 1) * sizeof *values) : NULL;
  mn_target *t;
  if (!list || list->kind != MN_LIST) return MN_OK;
  if (!values) return MN_ERR_MEMORY;
  for (size_t i = 0; i < list->count; i++) {
    double x = 1;
    (void)mn_value_number(list->as.items[i], &x);
    values[i] = (float)x;
  }
  const mn_shape shape = MN_SHAPE((int64_t)list->count);
  MN_TRY(new_target(job, name, &shape, &t));
  t->values = values;
  t->has = t->type = MN_F32;
  return MN_OK;
}

/* What frequencies of rotary positions are divided by; Phi-3 has two such tables, of which the other is of longer streams. */
static mn_status add_tables(mn_converting *job) {
  const mn_value *all = mn_recipe_attention(job->recipe, false), *one = all ? all : mn_recipe_attention(job->recipe, true);
  const mn_value *divisors = mn_value_get(one, "rope_divisors"), *map = mn_value_get(job->settings.map, "rope_parameters");
  if (!map) map = mn_value_get(job->settings.map, "rope_scaling");
  const mn_value *far = mn_value_get(map, "long_factor");
  if (!far) return add_table(job, "rope_freqs.weight", divisors);
  MN_TRY(add_table(job, "rope_factors_short.weight", divisors));
  return add_table(job, "rope_factors_long.weight", far);
}

/* What nothing reads, and other programs want all the same: zeros. */
static mn_status add_unread(mn_converting *job) {
  const int n = job->n;
  for (const char *const *pair = job->arch->unread; pair && *pair; pair += 2)
    for (int i = 0; i < n; i++) {
      if (strcmp(job->targets[i].name, pair[1]) != 0) continue;
      const mn_shape shape = job->targets[i].shape;
      mn_target *t;
      MN_TRY(new_target(job, pair[0], &shape, &t));
      if (!(t->values = mn_arena_alloc(job->arena, (size_t)(mn_shape_count(&shape) + 1) * sizeof(float)))) return MN_ERR_MEMORY;
      t->has = t->type = MN_F32;
    }
  return MN_OK;
}

mn_status mn_convert_list_pieces(mn_converting *job) {
  const int n = job->params->n_all;
  mn_arch_piece *from = mn_calloc((size_t)n + 1, sizeof *from);
  job->targets = mn_arena_alloc(job->arena, (size_t)(n + 1) * sizeof *job->targets);
  job->pieces = from; /* targets read by them: they are freed with the job */
  job->n_from = n;
  if (!from || !job->targets) return MN_ERR_MEMORY;
  MN_TRY(mn_arch_match(job->arch, job->from, job->model, job->params, from));
  for (int i = 0; i < n; i++) MN_TRY(add_piece(job, i, &from[i]));
  for (int i = 0; i < job->n; i++) {
    reshape(job, &job->targets[i]);
    MN_TRY(mn_target_choose(&job->targets[i], job->targets[i].pieces[0].from.tensor->dtype));
  }
  if (job->form == MN_FORM_GGUF) MN_TRY(add_tables(job));
  if (job->form == MN_FORM_GGUF) MN_TRY(add_unread(job));
  return MN_OK;
}

/* ---- values ---- */

/* Row r of the new tensor's piece is this row of the parameter. */
static int64_t param_row(const mn_target_piece *p, int64_t r) {
  if (!p->rotary) return r;
  const int64_t j = r % p->rotary;
  return j < p->turned ? r - j + j % 2 * (p->turned / 2) + j / 2 : r;
}

static int64_t all_rows(const mn_target *t) {
  const mn_target_piece *last = &t->pieces[t->n_pieces - 1];
  return last->first + last->rows;
}

/* MN_T_ROWS: the architecture says where each row stands; here, which row stands at a place. */
static mn_status find_rows(mn_target *t) {
  const mn_arch_def *a = t->job->arch;
  const int64_t n = all_rows(t);
  t->at = mn_arena_alloc(t->job->arena, (size_t)(n + 1) * sizeof *t->at);
  if (!t->at) return MN_ERR_MEMORY;
  for (int64_t r = 0; r < n; r++) t->at[r] = -1;
  for (int k = 0; k < t->n_pieces; k++)
    for (int64_t r = 0; r < t->pieces[k].rows; r++) {
      const int64_t at = a->place(t->pieces[k].mixer, t->pieces[k].row, r);
      if (at < 0 || at >= n || t->at[at] >= 0)
        return mn_fail(MN_ERR_INTERNAL, "%s: row %lld has no place of its own", t->name, (long long)r);
      t->at[at] = t->pieces[k].first + r;
    }
  return MN_OK;
}

/* Pieces of the parameter's columns to where the new form has them. */
static mn_status order_columns(const mn_target_piece *p, const mn_arch_def *a, float *row) {
  const int64_t n = a->together(p->mixer, p->row);
  float *was = mn_alloc((size_t)(p->width + 1) * sizeof *was);
  if (!was) return MN_ERR_MEMORY;
  memcpy(was, row, (size_t)p->width * sizeof *was);
  for (int64_t i = 0; i < p->width / n; i++) memcpy(row + a->place(p->mixer, p->row, i) * n, was + i * n, (size_t)n * sizeof *row);
  free(was);
  return MN_OK;
}

static mn_status read_row(const mn_target *t, int64_t r, float *to) {
  const mn_target_piece *p = t->pieces;
  if (p->how & MN_T_ROWS) {
    if (!t->at) MN_TRY(find_rows((mn_target *)(uintptr_t)t));
    r = t->at[r];
  }
  while (r >= p->first + p->rows) p++;
  MN_TRY(mn_arch_read_row(&p->from, p->base + param_row(p, r - p->first), p->width, MN_F32, to));
  for (int64_t i = 0; i < p->width && p->how & MN_T_LESS_ONE; i++) to[i] -= 1;
  for (int64_t i = 0; i < p->width && p->how & MN_T_NEG_EXP; i++) to[i] = -expf(to[i]);
  return p->how & MN_T_COLUMNS ? order_columns(p, t->job->arch, to) : MN_OK;
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

/* [H,R,N] of [H N, R], the whole at once. */
static mn_status turn_each(const mn_target *t) {
  mn_converting *job = t->job;
  const int64_t R = t->shape.dim[1], N = t->shape.dim[2];
  if (job->turned_of == t) return MN_OK;
  free(job->turned);
  job->turned_of = NULL;
  job->turned = mn_alloc((size_t)mn_shape_count(&t->shape) * sizeof *job->turned);
  float *row = mn_alloc((size_t)R * sizeof *row);
  mn_status status = job->turned && row ? MN_OK : MN_ERR_MEMORY;
  for (int64_t r = 0; r < t->shape.dim[0] * N && status == MN_OK; r++) {
    status = read_row(t, r, row);
    for (int64_t j = 0; j < R && status == MN_OK; j++) job->turned[(r / N * R + j) * N + r % N] = row[j];
  }
  free(row);
  if (status == MN_OK) job->turned_of = t;
  return status;
}

mn_status mn_pieces_read(const mn_target *t, int64_t first, int64_t n, float *to) {
  const int64_t width = t->pieces->width;
  const bool each = t->pieces->how & MN_T_TURNED && t->shape.ndim == 3;
  if (each || (t->pieces->how & MN_T_TRANSPOSED && t->shape.ndim == 2)) {
    MN_TRY(each ? turn_each(t) : turn(t));
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
