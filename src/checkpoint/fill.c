/* fill.c - a checkpoint's tensors become the parameters of a model: mapped where they lie in the file as they are wanted, converted
 * otherwise, in as many threads as there are. */
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/element.h"
#include "base/file.h"
#include "base/finite.h"
#include "checkpoint/arch.h"

enum { PIECE = 1 << 18 }; /* elements converted at a time, about */

typedef struct work { /* some rows of one parameter */
  int param;
  int64_t begin, rows;
} work;

typedef struct filling {
  mn_params *p;
  const mn_arch_piece *pieces;
  work *work;
  int64_t n;
  atomic_bool stopped;
  struct outcome {
    mn_status status;
    char *why; /* a message belongs to its thread */
  } * outcome; /* [n] */
} filling;

/* Rows are along the first axis, and hold what the other axes make. */
static int64_t rows_of(const mn_shape *s) { return s->ndim ? s->dim[0] : 1; }
static int64_t width_of(const mn_shape *s) { return rows_of(s) ? mn_shape_count(s) / rows_of(s) : 0; }

/* Where row r of the parameter stands in the file's tensor: a row there, or a column of one that is transposed. */
static int64_t place_of(const mn_arch_piece *x, int64_t r) {
  if (x->how & MN_T_ROWS) return x->arch->place(x->mixer, x->row, r);
  if (!x->rotary) return x->first + r;
  const int64_t half = x->turned / 2, i = r % x->rotary;
  return x->first + r + (i < x->turned ? 2 * (i % half) + i / half - i : 0);
}

/* Row r of [H N, R] is a column of one of the tensor's H matrices [R,N]. */
static mn_status read_turned(const mn_arch_piece *x, int64_t r, int64_t width, mn_dtype type, void *dst) {
  const int64_t N = x->tensor->shape.dim[2], first = r / N * N * width + r % N;
  for (int64_t j = 0; j < width; j++)
    MN_TRY(mn_checkpoint_read(x->tensor, first + j * N, 1, type, (char *)dst + (size_t)j * mn_dtype_size(type)));
  return MN_OK;
}

/* Row r, whose columns stand in pieces that have an order of their own. */
static mn_status read_ordered(const mn_arch_piece *x, int64_t r, int64_t width, mn_dtype type, void *dst) {
  const int64_t n = x->arch->together(x->mixer, x->row), first = place_of(x, r) * width;
  for (int64_t i = 0; i < width / n; i++)
    MN_TRY(mn_checkpoint_read(x->tensor, first + x->arch->place(x->mixer, x->row, i) * n, n, type,
                              (char *)dst + (size_t)(i * n) * mn_dtype_size(type)));
  return MN_OK;
}

static mn_status read_row(const mn_arch_piece *x, int64_t r, int64_t width, mn_dtype type, void *dst) {
  if (x->how & MN_T_COLUMNS) return read_ordered(x, r, width, type, dst);
  if (x->how & MN_T_TURNED) return read_turned(x, r, width, type, dst);
  if (x->each) return mn_checkpoint_read(x->each[r], 0, width, type, dst);
  return mn_checkpoint_read(x->tensor, place_of(x, r) * width, width, type, dst);
}

/* Columns [r, r + n) of the file's [in, out] as rows, by way of `column`, [n]. */
static mn_status read_columns(const mn_arch_piece *x, int64_t begin, int64_t n, int64_t width, mn_dtype type, void *column, void *dst) {
  const int64_t out = x->tensor->shape.dim[x->tensor->shape.ndim - 1];
  for (int64_t i = 0; i < width; i++) {
    MN_TRY(mn_checkpoint_read(x->tensor, i * out + x->first + begin, n, type, column));
    for (int64_t r = 0; r < n; r++) mn_element_store(dst, type, r * width + i, mn_element_load(column, type, r));
  }
  return MN_OK;
}

/* Elements of row r and those behind it, as the file has them, become the parameter's. */
static void as_parameter(const mn_arch_piece *x, int64_t r, int64_t width, mn_dtype type, void *values, int64_t n) {
  for (int64_t i = 0; i < n && x->how & MN_T_LESS_ONE; i++) mn_element_store(values, type, i, mn_element_load(values, type, i) + 1);
  for (int64_t i = 0; i < n && x->how & MN_T_NEG_EXP; i++) mn_element_store(values, type, i, log(-mn_element_load(values, type, i)));
  for (int64_t i = 0; i < n && x->how & MN_T_SCALED; i++)
    mn_element_store(values, type, i, mn_element_load(values, type, i) * x->arch->scale(x->from, x->mixer, x->row, r + i / width));
}

mn_status mn_arch_read_row(const mn_arch_piece *x, int64_t r, int64_t width, mn_dtype type, void *dst) {
  double column;
  if (x->how & MN_T_TRANSPOSED && x->tensor->shape.ndim == 2) MN_TRY(read_columns(x, r, 1, width, type, &column, dst));
  else MN_TRY(read_row(x, r, width, type, dst));
  as_parameter(x, r, width, type, dst, width);
  return MN_OK;
}

static mn_status check_finite(const mn_arch_piece *x, mn_dtype type, const void *data, int64_t n, int64_t first) {
  const int64_t bad = mn_first_not_finite(type, data, n);
  char shown[MN_PRINTABLE];
  if (bad < 0) return MN_OK;
  return mn_fail(MN_ERR_NUMERIC, "%s: tensor '%s' holds a value that is not finite (%s, at element %lld of what is read of it)",
                 x->tensor->file, mn_printable(x->tensor->name, shown), mn_not_finite_name(type, data, bad), (long long)(first + bad));
}

/* A row of the file's in its type of storage; pieces of its columns are whole blocks (choose_type). */
static void copy_row(const mn_arch_piece *x, int64_t r, int64_t width, mn_dtype type, uint8_t *to) {
  const size_t row = mn_dtype_bytes(type, width);
  const char *from = x->each ? x->each[r]->data : (const char *)x->tensor->data + (size_t)place_of(x, r) * row;
  const int64_t n = x->how & MN_T_COLUMNS ? x->arch->together(x->mixer, x->row) : width;
  const size_t bytes = mn_dtype_bytes(type, n);
  for (int64_t i = 0; i < width / n; i++)
    memcpy(to + (size_t)i * bytes, from + (size_t)(x->how & MN_T_COLUMNS ? x->arch->place(x->mixer, x->row, i) : i) * bytes, bytes);
}

/* Rows in their type of storage, which are moved and never read. */
static mn_status copy_rows(const filling *f, const work *w) {
  const mn_arch_piece *x = &f->pieces[w->param];
  const mn_dtype type = f->p->type[w->param];
  const int64_t width = width_of(&f->p->info[w->param].shape);
  const size_t row = mn_dtype_bytes(type, width);
  uint8_t *rows = mn_alloc((size_t)w->rows * row + 1);
  if (!rows) return MN_ERR_MEMORY;
  for (int64_t r = 0; r < w->rows; r++) copy_row(x, w->begin + r, width, type, rows + (size_t)r * row);
  mn_status status = check_finite(x, type, rows, w->rows * width, w->begin * width);
  mn_backend *b = f->p->backend;
  if (status == MN_OK) status = b->upload(b, (char *)f->p->data[w->param] + (size_t)w->begin * row, rows, (size_t)w->rows * row);
  free(rows);
  return status;
}

static mn_status fill_some(const filling *f, const work *w, mn_dtype exact, void *values, void *extra) {
  const mn_arch_piece *x = &f->pieces[w->param];
  const mn_shape *shape = &f->p->info[w->param].shape;
  const int64_t width = width_of(shape), n = w->rows * width;
  if (x->how & MN_T_TRANSPOSED && shape->ndim == 2) {
    MN_TRY(read_columns(x, w->begin, w->rows, width, exact, extra, values));
  } else if (!x->rotary && !x->each && !(x->how & (MN_T_ROWS | MN_T_TURNED | MN_T_COLUMNS))) {
    MN_TRY(mn_checkpoint_read(x->tensor, place_of(x, w->begin) * width, n, exact, values));
  } else {
    for (int64_t r = 0; r < w->rows; r++)
      MN_TRY(read_row(x, w->begin + r, width, exact, (char *)values + (size_t)(r * width) * mn_dtype_size(exact)));
  }
  as_parameter(x, w->begin, width, exact, values, n);
  MN_TRY(check_finite(x, exact, values, n, w->begin * width));
  const mn_dtype type = f->p->type[w->param];
  for (int64_t i = 0; i < n && type != exact; i++) mn_element_store(extra, type, i, mn_element_load(values, exact, i));
  const size_t size = mn_dtype_size(type);
  mn_backend *b = f->p->backend;
  return b->upload(b, (char *)f->p->data[w->param] + (size_t)(w->begin * width) * size, type == exact ? values : extra, (size_t)n * size);
}

static mn_status fill(const filling *f, const work *w) {
  const mn_dtype type = f->p->type[w->param], exact = mn_inner_type(type);
  const int64_t width = width_of(&f->p->info[w->param].shape), n = w->rows * width;
  if (f->p->owner[w->param] == MN_PARAM_MAPPED) /* it stays where it lies */
    return check_finite(&f->pieces[w->param], type, (const char *)f->p->data[w->param] + mn_dtype_bytes(type, w->begin * width), n,
                        w->begin * width);
  if (mn_dtype_is_stored(type)) return copy_rows(f, w);
  void *values = mn_alloc((size_t)(n + 1) * mn_dtype_size(exact)), *extra = mn_alloc((size_t)(n + w->rows + 1) * sizeof(double));
  mn_status status = values && extra ? fill_some(f, w, exact, values, extra) : MN_ERR_MEMORY;
  free(values);
  free(extra);
  return status;
}

static void fill_one(void *ctx, int64_t i, int thread) {
  filling *f = ctx;
  (void)thread;
  if (mn_stopped()) atomic_store(&f->stopped, true);
  if (atomic_load(&f->stopped)) return;
  mn_status status = fill(f, &f->work[i]);
  if (status != MN_OK) f->outcome[i] = (struct outcome){status, mn_strdup(mn_message())};
}

static int64_t rows_at_once(const mn_shape *s) {
  const int64_t width = width_of(s);
  return width > PIECE ? 1 : PIECE / (width ? width : 1);
}

static mn_status fill_all(mn_params *p, const mn_arch_piece *pieces) {
  filling f = {.p = p, .pieces = pieces};
  for (int i = 0; i < p->n_all; i++) f.n += rows_of(&p->info[i].shape) / rows_at_once(&p->info[i].shape) + 1;
  f.work = mn_alloc((size_t)(f.n + 1) * sizeof *f.work);
  f.outcome = mn_calloc((size_t)f.n + 1, sizeof *f.outcome);
  mn_status status = f.work && f.outcome ? MN_OK : MN_ERR_MEMORY;
  f.n = 0;
  for (int i = 0; i < p->n_all && status == MN_OK; i++) {
    const int64_t rows = rows_of(&p->info[i].shape), step = rows_at_once(&p->info[i].shape);
    for (int64_t r = 0; r < rows; r += step) f.work[f.n++] = (work){i, r, rows - r < step ? rows - r : step};
  }
  if (status == MN_OK) {
    mn_pool_run(p->backend->pool, f.n, fill_one, &f);
    status = mn_stop_check("reading the weights");
  }
  for (int64_t i = 0; f.outcome && i < f.n; i++) {
    if (status == MN_OK && f.outcome[i].status != MN_OK)
      status = mn_fail(f.outcome[i].status, "%s", f.outcome[i].why ? f.outcome[i].why : mn_status_name(f.outcome[i].status));
    free(f.outcome[i].why);
  }
  free(f.work);
  free(f.outcome);
  return status;
}

/* ---- where values lie ---- */
/* The type of the file's tensor, or of all of them that the parameter's slices are; MN_DTYPES: they have several. */
static mn_dtype type_in_file(const mn_arch_piece *x, int64_t slices) {
  for (int64_t e = 1; x->each && e < slices; e++)
    if (x->each[e]->dtype != x->tensor->dtype) return MN_DTYPES;
  return x->tensor->dtype;
}

/* A matrix that only products and rows read stays in the type that the file has it in, if that is one of storage. */
static mn_status choose_type(mn_params *p, int i, const mn_arch_piece *x) {
  const unsigned plain = MN_T_PART | MN_T_ROTARY | MN_T_ROWS | MN_T_RESHAPED | MN_T_COLUMNS; /* whole rows are moved, or whole blocks */
  if (i >= p->n || !(p->info[i].flags & MN_PARAM_STORED) || x->how & ~plain || p->dtype == MN_F64) return MN_OK;
  const mn_dtype type = mn_dtype_stored(type_in_file(x, rows_of(&p->info[i].shape)));
  if (!mn_dtype_is_stored(type) || !mn_shape_holds(&p->info[i].shape, type)) return MN_OK;
  if (x->how & MN_T_COLUMNS && x->arch->together(x->mixer, x->row) % mn_block_values(type)) return MN_OK;
  return mn_params_store(p, i, type);
}

static mn_status take_place(mn_params *p, int i, const mn_arch_piece *x) {
  MN_TRY(choose_type(p, i, x));
  const size_t size = mn_dtype_align(p->type[i]);
  const char *data = (const char *)x->tensor->data + mn_dtype_bytes(p->type[i], x->first * width_of(&p->info[i].shape));
  const bool as_it_is = !x->each && !(x->how & ~(unsigned)(MN_T_PART | MN_T_RESHAPED)) && x->tensor->dtype == mn_dtype_plain(p->type[i]);
  if (!as_it_is || (uintptr_t)data % size || !mn_params_bytes(p, i) || !p->backend->on_host) return mn_params_writable(p, i);
  p->data[i] = (void *)(uintptr_t)data; /* no plan that writes is bound to it (mn_params_writable) */
  p->owner[i] = MN_PARAM_MAPPED;
  return MN_OK;
}

/* What stands for a tensor's values in the model's fingerprint: its name, type, shape and size and, as reading a whole file of many
 * gigabytes for a session is too dear, up to 16 pieces of it, evenly spread. Files that differ elsewhere alone count as one. */
enum { SAMPLES = 16, SAMPLE = 4096 };
static void digest_tensor(const mn_arch_piece *x, const mn_checkpoint_tensor *t, mn_hasher *h) {
  char shape[96];
  mn_hasher_add(h, t->name, strlen(t->name) + 1);
  mn_hasher_add(h, t->type, strlen(t->type) + 1);
  mn_shape_str(&t->shape, shape);
  mn_hasher_add(h, shape, strlen(shape) + 1);
  mn_hasher_add(h, &t->bytes, sizeof t->bytes);
  mn_hasher_add(h, &x->first, sizeof x->first);
  if (t->bytes <= (size_t)SAMPLES * SAMPLE) mn_hasher_add(h, t->data, t->bytes);
  else
    for (size_t k = 0; k < SAMPLES; k++) mn_hasher_add(h, (const char *)t->data + (t->bytes - SAMPLE) / (SAMPLES - 1) * k, SAMPLE);
}

static mn_status digest(const mn_arch_piece *x, int64_t slices, char hex[MN_HASH_HEX]) {
  mn_hasher *h = mn_hasher_new();
  if (!h) return MN_ERR_MEMORY;
  if (!x->each) digest_tensor(x, x->tensor, h);
  for (int64_t e = 0; x->each && e < slices; e++) digest_tensor(x, x->each[e], h);
  mn_hasher_take(h, hex);
  mn_hasher_free(h);
  return MN_OK;
}

static mn_status intact(const void *file) { return mn_checkpoint_intact(file); }
static void close_file(void *file) { mn_checkpoint_close(file); }

static void let_go(mn_params *p) {
  for (int i = 0; i < p->n_all; i++) {
    if (p->owner[i] != MN_PARAM_MAPPED) continue;
    p->data[i] = NULL;
    p->owner[i] = MN_PARAM_EMPTY;
  }
}

mn_status mn_arch_fill(const mn_arch_def *a, mn_checkpoint *c, const mn_model *m, mn_params *p) {
  mn_arch_piece *pieces = mn_calloc((size_t)p->n_all + 1, sizeof *pieces);
  bool any = false;
  mn_status status = pieces ? mn_arch_match(a, c, m, p, pieces) : MN_ERR_MEMORY;
  for (int i = 0; i < p->n_all && status == MN_OK; i++)
    if ((status = mn_stop_check("opening a model")) == MN_OK) status = take_place(p, i, &pieces[i]);
  if (status == MN_OK) status = fill_all(p, pieces);
  if (status == MN_OK) status = mn_checkpoint_intact(c); /* what was read is what was opened */
  for (int i = 0; i < p->n_all && p->digests && status == MN_OK; i++)
    status = digest(&pieces[i], rows_of(&p->info[i].shape), p->digests[i]);
  if (status != MN_OK) let_go(p);
  for (int i = 0; i < p->n_all; i++) any = any || p->owner[i] == MN_PARAM_MAPPED;
  if (any) p->file = (mn_param_file){c, mn_checkpoint_path(c), intact, close_file};
  else mn_checkpoint_close(c);
  mn_arch_pieces_free(p->n_all, pieces);
  return status;
}

mn_status mn_checkpoint_model(const char *path, mn_backend *b, mn_dtype dtype, mn_model **model, mn_params **params) {
  mn_checkpoint *c = NULL;
  const mn_arch_def *a = NULL;
  const mn_value *map = NULL;
  mn_settings s = {0};
  mn_arena *arena = mn_arena_new();
  *model = NULL;
  *params = NULL;
  mn_status status = arena ? mn_checkpoint_open(path, &c) : MN_ERR_MEMORY;
  if (status == MN_OK) status = mn_settings_open(arena, c, &s);
  if (status == MN_OK) status = mn_arch_of(&s, &a);
  if (status == MN_OK) status = mn_arch_recipe(&s, a, &map);
  if (status == MN_OK) mn_settings_rest(&s, a->idle ? a->idle : "");
  if (status == MN_OK) status = map ? mn_context(mn_model_parse(map, NULL, 0, model), "%s", s.file) : MN_ERR_MEMORY;
  if (status == MN_OK) status = mn_params_declare(*model, b, dtype, params);
  if (status == MN_OK) status = mn_params_keep_digests(*params);
  if (status == MN_OK) {
    status = mn_arch_fill(a, c, *model, *params);
    c = NULL;
  }
  if (status != MN_OK) {
    mn_params_free(*params);
    mn_model_free(*model);
    *params = NULL;
    *model = NULL;
  }
  mn_checkpoint_close(c);
  mn_arena_free(arena);
  return status;
}
