/* state.c - see state.h. */
#include "run/state.h"

#include "base/file.h"
#include "base/finite.h"
#include "base/table.h"
#include "base/text.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct mn_states {
  mn_arena *arena;
  mn_backend *backend;
  int64_t batch;
  int n;
  mn_state_info *info;
  void *block; /* all of them, one after the other: a copy is one copy, and large pages serve small states, too */
  size_t block_bytes;
  size_t *offset;    /* in the block */
  mn_table at;       /* name -> number */
  int64_t *position; /* [batch] */
  int32_t *moved;    /* [batch]: position as the backend has it, on its way */
  uint64_t id;
  bool sparse;
};

size_t mn_states_bytes(const mn_states *s, int i) { return (size_t)mn_shape_count(&s->info[i].shape) * mn_dtype_size(s->info[i].dtype); }

static size_t row_bytes(const mn_states *s, int i) { return mn_states_bytes(s, i) / (size_t)s->batch; }

static mn_status keep(mn_states *s, int i, const mn_state_info *info) {
  if (info->shape.ndim < 1 || info->shape.dim[0] < s->batch || info->shape.dim[0] % s->batch)
    return mn_fail(MN_ERR_INTERNAL, "state %s has no row for each of %" PRId64 " streams", info->name, s->batch);
  s->info[i] = *info;
  s->info[i].name = mn_arena_strdup(s->arena, info->name);
  s->info[i].help = mn_arena_strdup(s->arena, info->help ? info->help : "");
  if (!s->info[i].name || !s->info[i].help) return MN_ERR_MEMORY;
  s->offset[i] = s->block_bytes;
  if (!mn_size_add(s->block_bytes, mn_align(mn_states_bytes(s, i), 64), &s->block_bytes))
    return mn_fail(MN_ERR_MEMORY, "state %s is too large", info->name);
  s->n = i + 1;
  return mn_table_put(&s->at, s->info[i].name, i);
}

static mn_status open_states(mn_states *s, int n, const mn_state_info *info) {
  s->info = mn_arena_alloc(s->arena, (size_t)(n + 1) * sizeof *s->info);
  s->offset = mn_arena_alloc(s->arena, (size_t)(n + 1) * sizeof *s->offset);
  s->position = mn_arena_alloc(s->arena, (size_t)s->batch * sizeof *s->position);
  s->moved = mn_arena_alloc(s->arena, (size_t)s->batch * sizeof *s->moved);
  if (!s->info || !s->offset || !s->position || !s->moved) return MN_ERR_MEMORY;
  if (n < 1 || strcmp(info[0].name, "position") != 0 || info[0].dtype != MN_I32 || info[0].shape.ndim != 1)
    return mn_fail(MN_ERR_INTERNAL, "the first state of a stream is its position");
  for (int i = 0; i < n; i++) MN_TRY(keep(s, i, &info[i]));
  s->block = s->backend->alloc(s->backend, s->block_bytes);
  return s->block ? MN_OK : mn_context(MN_ERR_MEMORY, "the states of %" PRId64 " streams", s->batch);
}

/* Memory without values. */
static mn_status states_new(mn_backend *b, int64_t batch, int n, const mn_state_info *info, mn_states **out) {
  static atomic_uint_fast64_t ids;
  *out = NULL;
  if (batch < 1) return mn_fail(MN_ERR_ARG, "states are of at least one stream");
  mn_states *s = mn_calloc(1, sizeof *s);
  if (!s) return MN_ERR_MEMORY;
  *s = (mn_states){.arena = mn_arena_new(), .backend = b, .batch = batch, .id = atomic_fetch_add(&ids, 1) + 1};
  s->at = (mn_table){.arena = s->arena, .names = true};
  mn_status status = s->arena ? open_states(s, n, info) : MN_ERR_MEMORY;
  if (status != MN_OK) mn_states_free(s);
  else *out = s;
  return status;
}

mn_status mn_states_new(mn_backend *b, int64_t batch, int n, const mn_state_info *info, mn_states **out) {
  MN_TRY(states_new(b, batch, n, info, out));
  mn_status status = b->zero(b, (*out)->block, (*out)->block_bytes);
  if (status == MN_OK) return MN_OK;
  mn_states_free(*out);
  *out = NULL;
  return status;
}

void mn_states_free(mn_states *s) {
  if (!s) return;
  if (s->block) s->backend->free(s->backend, s->block, s->block_bytes);
  mn_arena_free(s->arena);
  free(s);
}

void mn_states_sparse(mn_states *s) { s->sparse = true; }

int mn_states_count(const mn_states *s) { return s->n; }
int64_t mn_states_batch(const mn_states *s) { return s->batch; }
const mn_state_info *mn_states_info(const mn_states *s, int i) { return &s->info[i]; }
int mn_states_find(const mn_states *s, const char *name) { return mn_table_find(&s->at, name, -1); }
void *mn_states_data(const mn_states *s, int i) { return (char *)s->block + s->offset[i]; }
uint64_t mn_states_id(const mn_states *s) { return s->id; }
const int64_t *mn_states_position(const mn_states *s) { return s->position; }

size_t mn_states_all_bytes(const mn_states *s) {
  size_t n = 0;
  for (int i = 0; i < s->n; i++) n += mn_states_bytes(s, i);
  return n;
}

void mn_states_moved(mn_states *s, const int32_t *tokens, int64_t all) {
  for (int64_t b = 0; b < s->batch; b++) s->position[b] += tokens ? tokens[b] : all;
}

void mn_states_begun(mn_states *s, const bool *rows) {
  for (int64_t b = 0; b < s->batch; b++)
    if (rows[b]) s->position[b] = 0;
}

/* ---- copies ---- */
static mn_status same_kind(const mn_states *a, const mn_states *b) {
  if (a->n != b->n) return mn_fail(MN_ERR_ARG, "states of %d and of %d tensors are not of the same model", a->n, b->n);
  for (int i = 0; i < a->n; i++)
    if (strcmp(a->info[i].name, b->info[i].name) != 0 || a->info[i].dtype != b->info[i].dtype || row_bytes(a, i) != row_bytes(b, i))
      return mn_fail(MN_ERR_ARG, "states are not of the same model: %s here, %s there, or of another type or shape", a->info[i].name,
                     b->info[i].name);
  return MN_OK;
}

mn_status mn_states_copy(mn_states *to, const mn_states *from) {
  if (to == from) return MN_OK;
  MN_TRY(same_kind(to, from));
  if (to->batch != from->batch)
    return mn_fail(MN_ERR_ARG, "states of %" PRId64 " streams are not those of %" PRId64 ": select rows", from->batch, to->batch);
  MN_TRY(mn_backend_transfer(to->backend, to->block, from->backend, from->block, to->block_bytes)); /* laid out alike */
  memcpy(to->position, from->position, (size_t)to->batch * sizeof *to->position);
  return MN_OK;
}

mn_status mn_states_clone(const mn_states *from, mn_states **out) { return mn_states_clone_on(from->backend, from, out); }

mn_status mn_states_clone_on(mn_backend *b, const mn_states *from, mn_states **out) {
  MN_TRY(states_new(b, from->batch, from->n, from->info, out));
  mn_status status = mn_states_copy(*out, from);
  if (status == MN_OK) return MN_OK;
  mn_states_free(*out);
  *out = NULL;
  return status;
}

/* Of row b, from its beginning. */
static size_t bytes_read(const mn_states *s, int i, int64_t b) {
  const mn_state_info *info = &s->info[i];
  const size_t all = row_bytes(s, i);
  if (!info->appended || info->shape.ndim < 2 || info->shape.dim[0] != s->batch) return all;
  const int64_t rows = info->appended - 1 + s->position[b];
  return rows < info->shape.dim[1] ? all / (size_t)info->shape.dim[1] * (size_t)rows : all;
}

static mn_status copy_row(mn_states *to, int64_t to_row, const mn_states *from, int64_t from_row) {
  for (int i = 0; i < to->n; i++) {
    const size_t n = row_bytes(to, i), wanted = to->sparse ? bytes_read(from, i, from_row) : n;
    char *there = (char *)mn_states_data(to, i) + (size_t)to_row * n, *here = (char *)mn_states_data(from, i) + (size_t)from_row * n;
    if (wanted) MN_TRY(mn_backend_transfer(to->backend, there, from->backend, here, wanted));
  }
  to->position[to_row] = from->position[from_row];
  return MN_OK;
}

static mn_status check_row(const mn_states *s, int64_t row) {
  if (row >= 0 && row < s->batch) return MN_OK;
  return mn_fail(MN_ERR_ARG, "states of %" PRId64 " streams have no row %" PRId64, s->batch, row);
}

mn_status mn_states_copy_row(mn_states *to, int64_t to_row, const mn_states *from, int64_t from_row) {
  MN_TRY(same_kind(to, from));
  MN_TRY(check_row(to, to_row));
  MN_TRY(check_row(from, from_row));
  return to == from && to_row == from_row ? MN_OK : copy_row(to, to_row, from, from_row);
}

mn_status mn_states_reset(mn_states *s, const mn_states *first, const bool *rows) {
  MN_TRY(same_kind(s, first));
  if (first->batch != s->batch && first->batch != 1)
    return mn_fail(MN_ERR_ARG, "%" PRId64 " streams do not begin with the first values of %" PRId64, s->batch, first->batch);
  if (!rows && first->batch == s->batch && !s->sparse) return mn_states_copy(s, first);
  for (int64_t b = 0; b < s->batch; b++)
    if (!rows || rows[b]) MN_TRY(copy_row(s, b, first, first->batch == 1 ? 0 : b));
  return MN_OK;
}

mn_status mn_states_select(mn_states *to, const mn_states *from, const int64_t *rows) {
  MN_TRY(same_kind(to, from));
  if (to == from) return mn_fail(MN_ERR_ARG, "rows are selected from other states");
  for (int64_t i = 0; i < to->batch; i++) MN_TRY(check_row(from, rows[i]));
  for (int64_t i = 0; i < to->batch; i++) MN_TRY(copy_row(to, i, from, rows[i]));
  return MN_OK;
}

/* ---- the host's side ---- */
mn_status mn_states_get(const mn_states *s, int i, void *host) {
  return s->backend->download(s->backend, host, mn_states_data(s, i), mn_states_bytes(s, i));
}

mn_status mn_states_put(mn_states *s, int i, const void *host) {
  MN_TRY(s->backend->upload(s->backend, mn_states_data(s, i), host, mn_states_bytes(s, i)));
  const int32_t *position = host;
  for (int64_t b = 0; i == 0 && b < s->batch; b++) s->position[b] = position[b];
  return MN_OK;
}

mn_status mn_states_look(mn_states *s) {
  MN_TRY(s->backend->download(s->backend, s->moved, mn_states_data(s, 0), mn_states_bytes(s, 0)));
  for (int64_t b = 0; b < s->batch; b++) s->position[b] = s->moved[b];
  return MN_OK;
}

/* ---- files ---- */

/* A digest over all tensors, so that an edited file is noticed. */
static mn_status digest(const mn_states *s, void *const *host, char hex[33]) {
  mn_text text = {0};
  for (int i = 0; i < s->n; i++) {
    char one[33];
    mn_content_hash(host[i], mn_states_bytes(s, i), one);
    mn_text_addf(&text, "%s %s\n", s->info[i].name, one);
  }
  mn_status status = mn_text_status(&text);
  if (status == MN_OK) mn_content_hash(text.data, text.len, hex);
  mn_text_free(&text);
  return status;
}

static void free_host(const mn_states *s, void **host) {
  for (int i = 0; host && i < s->n; i++) free(host[i]);
  free(host);
}

/* One number where every row stands there, else one for each. */
static mn_status positions_text(const mn_states *s, mn_text *out) {
  bool all = true;
  for (int64_t b = 1; b < s->batch; b++) all = all && s->position[b] == s->position[0];
  for (int64_t b = 0; b < (all ? 1 : s->batch); b++) mn_text_addf(out, "%s%" PRId64, b ? "," : "", s->position[b]);
  return mn_text_status(out);
}

static mn_status take_host(const mn_states *s, void **host, mn_st_writer *w) {
  for (int i = 0; i < s->n; i++) {
    host[i] = mn_alloc(mn_states_bytes(s, i));
    if (!host[i]) return MN_ERR_MEMORY;
    MN_TRY(mn_states_get(s, i, host[i]));
    const mn_state_info *info = &s->info[i];
    int64_t bad = mn_first_not_finite(info->dtype, host[i], mn_shape_count(&info->shape));
    if (bad >= 0)
      return mn_fail(MN_ERR_NUMERIC, "the session is not saved: its state %s is not finite (element %" PRId64 " is %s)", info->name, bad,
                     mn_not_finite_name(info->dtype, host[i], bad));
    MN_TRY(mn_st_writer_add(w, info->name, info->dtype, &info->shape, host[i]));
  }
  return MN_OK;
}

mn_status mn_states_save(const mn_states *s, const char *path, int n_meta, const mn_states_meta *meta) {
  mn_st_writer *w = mn_st_writer_new();
  void **host = mn_calloc((size_t)s->n + 1, sizeof *host);
  mn_text position = {0};
  char hex[33];
  mn_status status = w && host ? take_host(s, host, w) : MN_ERR_MEMORY;
  if (status == MN_OK) status = digest(s, host, hex);
  if (status == MN_OK) status = positions_text(s, &position);
  for (int i = 0; i < n_meta && status == MN_OK; i++)
    if (meta[i].value) status = mn_st_writer_meta(w, meta[i].key, meta[i].value);
  if (status == MN_OK) status = mn_st_writer_meta(w, "position", position.data);
  if (status == MN_OK) status = mn_st_writer_meta(w, "digest", hex);
  if (status == MN_OK) status = mn_st_writer_save(w, path);
  mn_st_writer_free(w);
  mn_text_free(&position);
  free_host(s, host);
  return status;
}

/* The metadata's positions are those of the tensor, row by row: one number for all, or one for each. */
static bool positions_match(const mn_states *s, const char *text, const int32_t *position) {
  const bool each = text && strchr(text, ',');
  for (int64_t b = 0; b < s->batch; b++) {
    char *end = NULL;
    const long long at = text ? strtoll(text, &end, 10) : -1;
    if (at < 0 || end == text || at > MN_POSITION_MAX || position[b] != at) return false;
    if (*end != (each && b + 1 < s->batch ? ',' : 0)) return false;
    if (each) text = *end ? end + 1 : end;
  }
  return true;
}

static mn_status read_host(const mn_states *s, const mn_st *file, void **host) {
  const char *path = mn_st_path(file);
  for (int i = 0; i < mn_st_count(file); i++)
    if (mn_states_find(s, mn_st_at(file, i)->name) < 0)
      return mn_fail(MN_ERR_FORMAT, "%s: '%s' is no state of this model", path, mn_st_at(file, i)->name);
  for (int i = 0; i < s->n; i++) {
    const mn_state_info *info = &s->info[i];
    const mn_st_tensor *t;
    MN_TRY(mn_st_need(file, info->name, &info->shape, &t));
    if (t->dtype != info->dtype)
      return mn_fail(MN_ERR_CONFIG, "%s: %s is %s, this session computes in %s; open it with the precision it was saved with", path,
                     info->name, t->file_dtype, mn_dtype_name(info->dtype));
    host[i] = mn_alloc(mn_states_bytes(s, i));
    if (!host[i]) return MN_ERR_MEMORY;
    MN_TRY(mn_st_read_finite(file, t, info->dtype, host[i]));
  }
  char hex[33];
  const char *kept = mn_st_meta(file, "digest"), *position = mn_st_meta(file, "position");
  MN_TRY(digest(s, host, hex));
  if (!kept || strcmp(kept, hex) != 0)
    return mn_fail(MN_ERR_FORMAT, "%s was changed after it was saved: its tensors do not match their digest", path);
  if (!positions_match(s, position, host[0]))
    return mn_fail(MN_ERR_FORMAT, "%s: its position '%s' does not fit its tensors", path, position ? position : "missing");
  return MN_OK;
}

mn_status mn_states_load(mn_states *s, const mn_st *file) {
  void **host = mn_calloc((size_t)s->n + 1, sizeof *host);
  mn_status status = host ? read_host(s, file, host) : MN_ERR_MEMORY;
  for (int i = 0; i < s->n && status == MN_OK; i++) status = mn_states_put(s, i, host[i]);
  free_host(s, host);
  return status;
}
