/* state.c - see state.h. */
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "run/state_internal.h"

size_t mn_states_bytes(const mn_states *s, int i) { return mn_shape_bytes(&s->info[i].shape, s->info[i].dtype); }
size_t mn_states_row_bytes(const mn_states *s, int i) { return mn_states_bytes(s, i) / (size_t)s->batch; }

size_t mn_states_token_bytes(const mn_states *s, int i) {
  const mn_state_info *info = &s->info[i];
  if (!info->appended || info->shape.ndim < 2 || info->shape.dim[0] != s->batch) return 0;
  return mn_states_row_bytes(s, i) / (size_t)info->shape.dim[1];
}

size_t mn_state_bytes_at(const mn_state_info *info, int64_t position) {
  mn_shape in_use = info->shape;
  const int64_t rows = info->appended - 1 + position;
  if (info->appended && in_use.ndim > 1 && rows < in_use.dim[1]) in_use.dim[1] = rows;
  return mn_shape_bytes(&in_use, info->dtype);
}

size_t mn_states_reach(const mn_states *s, int i, int64_t position) {
  if (!mn_states_token_bytes(s, i)) return mn_states_row_bytes(s, i);
  return mn_state_bytes_at(&s->info[i], position) / (size_t)s->batch;
}

static mn_status keep(mn_states *s, int i, const mn_state_info *info) {
  if (info->shape.ndim < 1 || info->shape.dim[0] < s->batch || info->shape.dim[0] % s->batch)
    return mn_fail(MN_ERR_INTERNAL, "state %s has no row for each of %" PRId64 " streams", info->name, s->batch);
  s->info[i] = *info;
  s->info[i].name = mn_arena_strdup(s->arena, info->name);
  s->info[i].help = mn_arena_strdup(s->arena, info->help ? info->help : "");
  if (!s->info[i].name || !s->info[i].help) return MN_ERR_MEMORY;
  size_t *end = mn_states_token_bytes(s, i) ? &s->room_bytes : &s->block_bytes;
  s->offset[i] = *end;
  if (!mn_size_add(*end, mn_align(mn_states_bytes(s, i), end == &s->room_bytes ? s->page : 64), end))
    return mn_fail(MN_ERR_MEMORY, "state %s is too large", info->name);
  s->n = i + 1;
  return mn_table_put(&s->at, s->info[i].name, i);
}

/* Windows are zeros until they are written, and cost memory as far as they were. */
static bool has_rings(const mn_states *s) {
  for (int i = 0; i < s->n; i++)
    if (s->info[i].ring) return true;
  return false;
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
  s->block = has_rings(s) ? mn_backend_room(s->backend, s->block_bytes) : s->backend->alloc(s->backend, s->block_bytes);
  if (s->room_bytes) s->room = mn_backend_room(s->backend, s->room_bytes);
  if (!s->block || (s->room_bytes && !s->room)) return mn_context(MN_ERR_MEMORY, "the states of %" PRId64 " streams", s->batch);
  return s->batch == 1 && s->room && mn_backend_has_pages(s->backend) ? mn_sharing_new(&s->sharing) : MN_OK;
}

/* Memory without values; of caches it is zeros. */
static mn_status states_new(mn_backend *b, int64_t batch, int n, const mn_state_info *info, mn_states **out) {
  static atomic_uint_fast64_t ids;
  *out = NULL;
  if (batch < 1) return mn_fail(MN_ERR_ARG, "states are of at least one stream");
  mn_states *s = mn_calloc(1, sizeof *s);
  if (!s) return MN_ERR_MEMORY;
  *s = (mn_states){.arena = mn_arena_new(), .backend = b, .batch = batch, .page = mn_page_size(), .id = atomic_fetch_add(&ids, 1) + 1};
  s->at = (mn_table){.arena = s->arena, .names = true};
  mn_status status = s->arena ? open_states(s, n, info) : MN_ERR_MEMORY;
  if (status != MN_OK) mn_states_free(s);
  else *out = s;
  return status;
}

mn_status mn_states_new(mn_backend *b, int64_t batch, int n, const mn_state_info *info, mn_states **out) {
  MN_TRY(states_new(b, batch, n, info, out));
  mn_status status = has_rings(*out) ? MN_OK : b->zero(b, (*out)->block, (*out)->block_bytes);
  if (status == MN_OK) return MN_OK;
  mn_states_free(*out);
  *out = NULL;
  return status;
}

void mn_states_free(mn_states *s) {
  if (!s) return;
  if (s->block && has_rings(s)) mn_backend_room_free(s->backend, s->block, s->block_bytes);
  else if (s->block) s->backend->free(s->backend, s->block, s->block_bytes);
  if (s->room) mn_backend_room_free(s->backend, s->room, s->room_bytes);
  mn_sharing_free(s->sharing);
  mn_arena_free(s->arena);
  free(s);
}

int mn_states_count(const mn_states *s) { return s->n; }
int64_t mn_states_batch(const mn_states *s) { return s->batch; }
const mn_state_info *mn_states_info(const mn_states *s, int i) { return &s->info[i]; }
int mn_states_find(const mn_states *s, const char *name) { return mn_table_find(&s->at, name, -1); }
void *mn_states_data(const mn_states *s, int i) { return (char *)(mn_states_token_bytes(s, i) ? s->room : s->block) + s->offset[i]; }
uint64_t mn_states_id(const mn_states *s) { return s->id; }
const int64_t *mn_states_position(const mn_states *s) { return s->position; }

size_t mn_states_room_bytes(const mn_states *s) {
  size_t n = 0;
  for (int i = 0; i < s->n; i++) n += mn_states_bytes(s, i);
  return n;
}

size_t mn_states_bytes_at(const mn_states *s, int64_t position) {
  size_t n = 0;
  for (int i = 0; i < s->n; i++) n += mn_states_reach(s, i, position);
  return n;
}

size_t mn_states_used_bytes(const mn_states *s) {
  size_t n = 0;
  for (int64_t b = 0; b < s->batch; b++) n += mn_states_bytes_at(s, s->position[b]);
  return n;
}

size_t mn_states_held_bytes(const mn_states *s) { return mn_states_used_bytes(s) - mn_sharing_saved(s); }

void mn_states_moved(mn_states *s, const int32_t *tokens, int64_t all) {
  for (int64_t b = 0; b < s->batch; b++) s->position[b] += tokens ? tokens[b] : all;
  mn_sharing_turned(s);
}

void mn_states_begun(mn_states *s, const bool *rows) {
  for (int64_t b = 0; b < s->batch; b++)
    if (rows[b]) mn_sharing_cut(s, 0), s->position[b] = 0;
}

/* ---- copies ---- */
static mn_status same_kind(const mn_states *a, const mn_states *b) {
  if (a->n != b->n) return mn_fail(MN_ERR_ARG, "states of %d and of %d tensors are not of the same model", a->n, b->n);
  for (int i = 0; i < a->n; i++)
    if (strcmp(a->info[i].name, b->info[i].name) != 0 || a->info[i].dtype != b->info[i].dtype ||
        mn_states_row_bytes(a, i) != mn_states_row_bytes(b, i))
      return mn_fail(MN_ERR_ARG, "states are not of the same model: %s here, %s there, or of another type or shape", a->info[i].name,
                     b->info[i].name);
  return MN_OK;
}

static mn_status copy_part(mn_states *to, int64_t to_row, const mn_states *from, int64_t from_row, int i, size_t begin, size_t end) {
  const size_t n = mn_states_row_bytes(to, i);
  char *there = (char *)mn_states_data(to, i) + (size_t)to_row * n, *here = (char *)mn_states_data(from, i) + (size_t)from_row * n;
  return begin < end ? mn_backend_transfer(to->backend, there + begin, from->backend, here + begin, end - begin) : MN_OK;
}

/* Of caches what is in use, from token `known` on; the position goes with it. */
static mn_status copy_caches(mn_states *to, int64_t to_row, const mn_states *from, int64_t from_row, int64_t known) {
  mn_sharing_cut(to, known);
  for (int i = 0; i < to->n; i++) {
    if (!mn_states_token_bytes(to, i)) continue;
    const size_t begin = known ? mn_states_reach(from, i, known) : 0;
    MN_TRY(copy_part(to, to_row, from, from_row, i, begin, mn_states_reach(from, i, from->position[from_row])));
  }
  to->position[to_row] = from->position[from_row];
  return MN_OK;
}

/* Bytes of a row of state i, no cache, that are not zeros behind `position` tokens. */
static size_t written(const mn_states *s, int i, int64_t position) {
  const mn_state_info *info = &s->info[i];
  const size_t all = mn_states_row_bytes(s, i);
  if (!info->ring || info->shape.ndim < 2 || info->shape.dim[0] != s->batch || info->ring - 1 + position >= info->shape.dim[1]) return all;
  return all / (size_t)info->shape.dim[1] * (size_t)(info->ring - 1 + position);
}

/* All that is read of a row; of windows what was written, and what the row had behind it becomes zeros. */
static mn_status copy_row(mn_states *to, int64_t to_row, const mn_states *from, int64_t from_row, int64_t known) {
  for (int i = 0; i < to->n; i++) {
    if (mn_states_token_bytes(to, i)) continue;
    const size_t now = written(from, i, from->position[from_row]), before = written(to, i, to->position[to_row]);
    MN_TRY(copy_part(to, to_row, from, from_row, i, 0, now));
    char *row = (char *)mn_states_data(to, i) + (size_t)to_row * mn_states_row_bytes(to, i);
    if (now < before) MN_TRY(to->backend->zero(to->backend, row + now, before - now));
  }
  return copy_caches(to, to_row, from, from_row, known);
}

mn_status mn_states_copy(mn_states *to, const mn_states *from) {
  int64_t shared = 0;
  if (to == from) return MN_OK;
  MN_TRY(same_kind(to, from));
  if (to->batch != from->batch)
    return mn_fail(MN_ERR_ARG, "states of %" PRId64 " streams are not those of %" PRId64 ": select rows", from->batch, to->batch);
  MN_TRY(mn_sharing_show(to, from, &shared));
  const bool by_rows = has_rings(to) && to->backend == from->backend; /* between places one transfer is better than many short ones */
  if (!by_rows) MN_TRY(mn_backend_transfer(to->backend, to->block, from->backend, from->block, to->block_bytes)); /* laid out alike */
  for (int64_t b = 0; b < to->batch; b++) MN_TRY(by_rows ? copy_row(to, b, from, b, shared) : copy_caches(to, b, from, b, shared));
  return MN_OK;
}

mn_status mn_states_put_back(mn_states *to, const mn_states *from) {
  MN_TRY(same_kind(to, from));
  for (int i = 0; i < to->n; i++) /* windows, of which copies take only what was written: all of them */
    if (to->info[i].ring) MN_TRY(to->backend->zero(to->backend, mn_states_data(to, i), mn_states_bytes(to, i)));
  return mn_states_copy(to, from);
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

static mn_status check_row(const mn_states *s, int64_t row) {
  if (row >= 0 && row < s->batch) return MN_OK;
  return mn_fail(MN_ERR_ARG, "states of %" PRId64 " streams have no row %" PRId64, s->batch, row);
}

mn_status mn_states_copy_row(mn_states *to, int64_t to_row, const mn_states *from, int64_t from_row) {
  return mn_states_copy_row_from(to, to_row, from, from_row, 0);
}

mn_status mn_states_copy_row_from(mn_states *to, int64_t to_row, const mn_states *from, int64_t from_row, int64_t known) {
  MN_TRY(same_kind(to, from));
  MN_TRY(check_row(to, to_row));
  MN_TRY(check_row(from, from_row));
  if (known < 0 || known > to->position[to_row] || known > from->position[from_row])
    return mn_fail(MN_ERR_ARG, "rows of %" PRId64 " and %" PRId64 " tokens do not have %" PRId64 " in common", to->position[to_row],
                   from->position[from_row], known);
  return to == from && to_row == from_row ? MN_OK : copy_row(to, to_row, from, from_row, known);
}

/* What row b has of a cache behind its position costs nothing any more. */
static void drop_behind(mn_states *s, int64_t b) {
  for (int i = 0; i < s->n && mn_backend_has_pages(s->backend); i++) {
    if (!mn_states_token_bytes(s, i)) continue;
    const size_t row = mn_states_row_bytes(s, i), at = s->offset[i] + (size_t)b * row;
    const size_t begin = mn_align(at + mn_states_reach(s, i, s->position[b]), s->page), end = (at + row) / s->page * s->page;
    if (begin < end) mn_pages_drop((char *)s->room + begin, end - begin);
  }
}

mn_status mn_states_reset(mn_states *s, const mn_states *first, const bool *rows) {
  MN_TRY(same_kind(s, first));
  if (first->batch != s->batch && first->batch != 1)
    return mn_fail(MN_ERR_ARG, "%" PRId64 " streams do not begin with the first values of %" PRId64, s->batch, first->batch);
  for (int64_t b = 0; b < s->batch; b++) {
    if (rows && !rows[b]) continue;
    const bool used = s->position[b] > 0;
    MN_TRY(copy_row(s, b, first, first->batch == 1 ? 0 : b, 0));
    if (used) drop_behind(s, b);
  }
  return MN_OK;
}

mn_status mn_states_select(mn_states *to, const mn_states *from, const int64_t *rows) {
  MN_TRY(same_kind(to, from));
  if (to == from) return mn_fail(MN_ERR_ARG, "rows are selected from other states");
  for (int64_t i = 0; i < to->batch; i++) MN_TRY(check_row(from, rows[i]));
  for (int64_t i = 0; i < to->batch; i++) MN_TRY(copy_row(to, i, from, rows[i], 0));
  return MN_OK;
}

/* ---- the host's side ---- */
mn_status mn_states_get(const mn_states *s, int i, void *host) {
  return s->backend->download(s->backend, host, mn_states_data(s, i), mn_states_bytes(s, i));
}

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }
mn_status mn_states_take(const mn_states *s, int i, mn_shape *shape, void **host) {
  const size_t each = mn_states_token_bytes(s, i);
  size_t row = mn_states_row_bytes(s, i);
  *shape = s->info[i].shape;
  if (each) {
    row = 0;
    for (int64_t b = 0; b < s->batch; b++) row = larger(row, mn_states_reach(s, i, s->position[b]));
    shape->dim[1] = (int64_t)(row / each);
  }
  *host = mn_calloc((size_t)s->batch, row ? row : 1);
  mn_status status = *host ? MN_OK : MN_ERR_MEMORY;
  for (int64_t b = 0; b < s->batch && status == MN_OK; b++) { /* a row that is shorter ends in zeros */
    const char *from = (const char *)mn_states_data(s, i) + (size_t)b * mn_states_row_bytes(s, i);
    const size_t n = each ? mn_states_reach(s, i, s->position[b]) : row;
    if (n) status = s->backend->download(s->backend, (char *)*host + (size_t)b * row, from, n);
  }
  if (status != MN_OK) free(*host), *host = NULL;
  return status;
}

mn_status mn_states_put(mn_states *s, int i, const void *host) {
  const int32_t *position = host;
  mn_sharing_cut(s, i == 0 ? position[0] : 0);
  MN_TRY(s->backend->upload(s->backend, mn_states_data(s, i), host, mn_states_bytes(s, i)));
  for (int64_t b = 0; i == 0 && b < s->batch; b++) s->position[b] = position[b];
  return MN_OK;
}

mn_status mn_states_look(mn_states *s) {
  MN_TRY(s->backend->download(s->backend, s->moved, mn_states_data(s, 0), mn_states_bytes(s, 0)));
  mn_sharing_cut(s, s->moved[0]);
  for (int64_t b = 0; b < s->batch; b++) s->position[b] = s->moved[b];
  return MN_OK;
}
