/* state_file.c - states as files; see state.h. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/finite.h"
#include "base/text.h"
#include "run/kept_tensor.h"
#include "run/state_internal.h"

/* One state on the host, as far as it is in use. */
typedef struct held {
  mn_shape shape;
  void *data;
} held;

/* A digest over all tensors, so that an edited file is noticed. */
static mn_status digest(const mn_states *s, const held *host, char hex[33]) {
  mn_text text = {0};
  for (int i = 0; i < s->n; i++) {
    char one[33];
    mn_content_hash(host[i].data, mn_shape_bytes(&host[i].shape, s->info[i].dtype), one);
    mn_text_addf(&text, "%s %s\n", s->info[i].name, one);
  }
  mn_status status = mn_text_status(&text);
  if (status == MN_OK) mn_content_hash(text.data, text.len, hex);
  mn_text_free(&text);
  return status;
}

static void free_host(const mn_states *s, held *host) {
  for (int i = 0; host && i < s->n; i++) free(host[i].data);
  free(host);
}

/* One number where every row stands there, else one for each. */
static mn_status positions_text(const mn_states *s, mn_text *out) {
  bool all = true;
  for (int64_t b = 1; b < s->batch; b++) all = all && s->position[b] == s->position[0];
  for (int64_t b = 0; b < (all ? 1 : s->batch); b++) mn_text_addf(out, "%s%" PRId64, b ? "," : "", s->position[b]);
  return mn_text_status(out);
}

static mn_status take_host(const mn_states *s, held *host, mn_st_writer *w) {
  for (int i = 0; i < s->n; i++) {
    const mn_state_info *info = &s->info[i];
    MN_TRY(mn_states_take(s, i, &host[i].shape, &host[i].data));
    int64_t bad = mn_first_not_finite(info->dtype, host[i].data, mn_shape_count(&host[i].shape));
    if (bad >= 0)
      return mn_fail(MN_ERR_NUMERIC, "the session is not saved: its state %s is not finite (element %" PRId64 " is %s)", info->name, bad,
                     mn_not_finite_name(info->dtype, host[i].data, bad));
    const mn_shape kept = mn_kept_shape(info->dtype, &host[i].shape);
    if (mn_shape_count(&kept)) MN_TRY(mn_st_writer_add(w, info->name, mn_kept_type(info->dtype), &kept, host[i].data));
  }
  return MN_OK;
}

mn_status mn_states_save(const mn_states *s, const char *path, mn_file_stamp *stamp, int n_meta, const mn_states_meta *meta) {
  mn_st_writer *w = mn_st_writer_new();
  held *host = mn_calloc((size_t)s->n + 1, sizeof *host);
  mn_text position = {0};
  char hex[33];
  mn_status status = w && host ? take_host(s, host, w) : MN_ERR_MEMORY;
  if (status == MN_OK) status = digest(s, host, hex);
  if (status == MN_OK) status = positions_text(s, &position);
  for (int i = 0; i < n_meta && status == MN_OK; i++)
    if (meta[i].value) status = mn_st_writer_meta(w, meta[i].key, meta[i].value);
  if (status == MN_OK) status = mn_st_writer_meta(w, "position", position.data);
  if (status == MN_OK) status = mn_st_writer_meta(w, "digest", hex);
  if (status == MN_OK) status = mn_st_writer_save_over(w, path, stamp);
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

static mn_status take_bytes(void *ctx, size_t offset, size_t n, const void *bytes) {
  memcpy((char *)ctx + offset, bytes, n);
  return MN_OK;
}

static mn_status need(const mn_states *s, const mn_st *file, int i, const mn_shape *shape, held *host) {
  const mn_state_info *info = &s->info[i];
  host->shape = *shape;
  host->data = mn_alloc(mn_shape_bytes(shape, info->dtype));
  return host->data ? mn_kept_read(file, info->name, info->dtype, shape, false, take_bytes, host->data) : MN_ERR_MEMORY;
}

/* A cache has as many tokens as its longest stream, or as there is room for: so older files have it. */
static mn_status need_cache(const mn_states *s, const mn_st *file, int i, const int32_t *position, held *host) {
  const mn_st_tensor *t = mn_st_find(file, s->info[i].name);
  const size_t each = mn_states_token_bytes(s, i);
  mn_shape shape = s->info[i].shape;
  const int64_t room = shape.dim[1];
  size_t row = 0;
  for (int64_t b = 0; b < s->batch; b++)
    if (mn_states_reach(s, i, position[b]) > row) row = mn_states_reach(s, i, position[b]);
  shape.dim[1] = (int64_t)(row / each);
  host->shape = shape;
  if (!t && !row) return MN_OK; /* no token, and so no cache */
  if (t && t->shape.ndim == shape.ndim && t->shape.dim[1] == room) shape.dim[1] = room;
  return need(s, file, i, &shape, host);
}

static mn_status read_host(const mn_states *s, const mn_st *file, held *host) {
  const char *path = mn_st_path(file);
  for (int i = 0; i < mn_st_count(file); i++)
    if (mn_states_find(s, mn_st_at(file, i)->name) < 0)
      return mn_fail(MN_ERR_FORMAT, "%s: '%s' is no state of this model", path, mn_st_at(file, i)->name);
  MN_TRY(need(s, file, 0, &s->info[0].shape, &host[0]));
  const char *kept = mn_st_meta(file, "digest"), *position = mn_st_meta(file, "position");
  if (!positions_match(s, position, host[0].data))
    return mn_fail(MN_ERR_FORMAT, "%s: its position '%s' does not fit its tensors", path, position ? position : "missing");
  for (int i = 1; i < s->n; i++) {
    if (mn_states_token_bytes(s, i)) MN_TRY(need_cache(s, file, i, host[0].data, &host[i]));
    else MN_TRY(need(s, file, i, &s->info[i].shape, &host[i]));
  }
  char hex[33];
  MN_TRY(digest(s, host, hex));
  if (!kept || strcmp(kept, hex) != 0)
    return mn_fail(MN_ERR_FORMAT, "%s was changed after it was saved: its tensors do not match their digest", path);
  return MN_OK;
}

static mn_status put_cache(mn_states *s, int i, const held *host) {
  const size_t row = mn_shape_bytes(&host->shape, s->info[i].dtype) / (size_t)s->batch;
  for (int64_t b = 0; b < s->batch; b++) {
    const size_t n = mn_states_reach(s, i, s->position[b]);
    char *to = (char *)mn_states_data(s, i) + (size_t)b * mn_states_row_bytes(s, i);
    if (n) MN_TRY(s->backend->upload(s->backend, to, (const char *)host->data + (size_t)b * row, n));
  }
  return MN_OK;
}

mn_status mn_states_load(mn_states *s, const mn_st *file) {
  held *host = mn_calloc((size_t)s->n + 1, sizeof *host);
  mn_status status = host ? read_host(s, file, host) : MN_ERR_MEMORY;
  if (status == MN_OK) mn_sharing_cut(s, 0);
  for (int i = 0; i < s->n && status == MN_OK; i++)
    status = mn_states_token_bytes(s, i) ? put_cache(s, i, &host[i]) : mn_states_put(s, i, host[i].data);
  free_host(s, host);
  return status;
}
