/* checkpoint.c - see checkpoint.h. */
#define _GNU_SOURCE
#include "train/checkpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "format/json.h"
#include "format/safetensors.h"
#include "train/recipe.h"

static const char writing[] = "writing-"; /* how unfinished directories are called */

static mn_status join(const char *dir, const char *name, char **out) {
  *out = mn_path_join(dir, name);
  return *out ? MN_OK : MN_ERR_MEMORY;
}

static char *step_dir(const char *out_dir, const char *prefix, int64_t step) {
  return mn_format("%s/checkpoints/%sstep-%lld", out_dir, prefix, (long long)step);
}

/* Files of a checkpoint directory, then itself. */
static mn_status remove_dir(const char *dir) {
  char **names;
  size_t n;
  if (!mn_file_exists(dir)) return MN_OK;
  MN_TRY(mn_dir_list(dir, &names, &n));
  mn_status status = MN_OK;
  for (size_t i = 0; i < n && status == MN_OK; i++) {
    char *path;
    status = join(dir, names[i], &path);
    if (status == MN_OK) status = mn_file_remove(path);
    free(path);
  }
  mn_dir_list_free(names, n);
  if (status == MN_OK && rmdir(dir) != 0) return mn_fail(MN_ERR_IO, "%s: cannot be removed: %s", dir, strerror(errno));
  return status;
}

static mn_status sync_dir(const char *dir) {
  int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0 || fsync(fd) != 0) {
    int why = errno;
    if (fd >= 0) close(fd);
    return mn_fail(MN_ERR_IO, "%s: cannot be synced: %s", dir, strerror(why));
  }
  close(fd);
  return MN_OK;
}

/* ---- optimizer.safetensors ---- */

typedef struct piece { /* memory of the backend as a source of a file's bytes */
  mn_backend *backend;
  const char *data;
} piece;

static mn_status read_piece(void *ctx, size_t offset, size_t n, void *dst) {
  const piece *p = ctx;
  return p->backend->download(p->backend, dst, p->data + offset, n);
}

typedef mn_status (*visit)(void *ctx, const char *name, mn_dtype dtype, const mn_shape *shape, void *data);

/* Every tensor that is no parameter, by its name in the file. */
static mn_status for_each(const mn_train_state *s, visit f, void *ctx) {
  const mn_params *p = s->params;
  char name[512];
  for (int i = 0; i < p->n; i++)
    for (int k = 0; k < 2; k++) {
      void *data = k ? s->optimizer->v[i] : s->optimizer->m[i];
      snprintf(name, sizeof name, "%c.%s", "mv"[k], p -> info[i].name);
      if (data) MN_TRY(f(ctx, name, p->dtype, &p->info[i].shape, data));
    }
  for (int i = 0; i < s->carried->n; i++) {
    const mn_buffer *b = &s->carried->list[i];
    snprintf(name, sizeof name, "state.%s", b->name);
    MN_TRY(f(ctx, name, b->dtype, &b->shape, b->data));
  }
  return MN_OK;
}

typedef struct saving {
  mn_backend *backend;
  mn_st_writer *w;
  piece *pieces;
  int n;
} saving;

static mn_status save_one(void *ctx, const char *name, mn_dtype dtype, const mn_shape *shape, void *data) {
  saving *x = ctx;
  x->pieces[x->n] = (piece){x->backend, data};
  return mn_st_writer_add_source(x->w, name, dtype, shape, read_piece, &x->pieces[x->n++]);
}

static mn_status save_optimizer(const mn_train_state *s, const char *path) {
  saving x = {s->params->backend, mn_st_writer_new(), mn_calloc((size_t)(2 * s->params->n + s->carried->n) + 1, sizeof *x.pieces), 0};
  mn_status status = x.w && x.pieces ? mn_st_writer_meta(x.w, "format", "mneme") : MN_ERR_MEMORY;
  if (status == MN_OK) status = for_each(s, save_one, &x);
  if (status == MN_OK) status = mn_st_writer_save(x.w, path);
  mn_st_writer_free(x.w);
  free(x.pieces);
  return status;
}

typedef struct loading {
  mn_backend *backend;
  mn_st *st;
  int n;
} loading;

static mn_status load_one(void *ctx, const char *name, mn_dtype dtype, const mn_shape *shape, void *data) {
  loading *x = ctx;
  const mn_st_tensor *t;
  MN_TRY(mn_st_need(x->st, name, shape, &t));
  size_t bytes = (size_t)mn_shape_count(shape) * mn_dtype_size(dtype);
  void *host = mn_alloc(bytes);
  mn_status status = host ? mn_st_read(x->st, t, dtype, host) : MN_ERR_MEMORY;
  if (status == MN_OK) status = x->backend->upload(x->backend, data, host, bytes);
  free(host);
  x->n++;
  return status;
}

static mn_status load_optimizer(mn_train_state *s, const char *path) {
  loading x = {.backend = s->params->backend};
  MN_TRY(mn_st_open(path, &x.st));
  mn_status status = for_each(s, load_one, &x);
  if (status == MN_OK && x.n != mn_st_count(x.st))
    status = mn_fail(MN_ERR_FORMAT, "%s: has %d tensors, this training has %d", path, mn_st_count(x.st), x.n);
  mn_st_close(x.st);
  return status;
}

/* ---- trainer.json ---- */

typedef struct trainer_file {
  int64_t step, tokens;
  double first_loss, mean_loss;
  const char *data;
  const mn_value *recipe;
} trainer_file;
#define S trainer_file
static const mn_field trainer_fields[] = {MN_FIELD_INT_REQUIRED(S, step, 0, INT64_MAX, "updates done"),
                                          MN_FIELD_INT_REQUIRED(S, tokens, 0, INT64_MAX, "tokens seen"),
                                          MN_FIELD_FLOAT(S, first_loss, 0, -DBL_MAX, DBL_MAX, "loss of the first step"),
                                          MN_FIELD_FLOAT(S, mean_loss, 0, -DBL_MAX, DBL_MAX, "running mean of the loss"),
                                          MN_FIELD_STRING_REQUIRED(S, data, "hash of the corpus"),
                                          MN_FIELD_VALUE(S, recipe, "the effective recipe"),
                                          MN_FIELD_END};
#undef S

static mn_status save_trainer(const mn_train_state *s, const char *path) {
  mn_arena *arena = mn_arena_new();
  trainer_file f = {s->step, s->tokens, s->first_loss, s->mean_loss, s->data_hash, s->recipe};
  const mn_value *v = arena ? mn_config_to_value(arena, &(mn_config_part){trainer_fields, &f}, 1) : NULL;
  mn_status status = v ? mn_json_write(path, v) : MN_ERR_MEMORY;
  mn_arena_free(arena);
  return status;
}

static const char *shown(const mn_value *v, char buf[MN_PLACE]) { return v && v->kind != MN_NULL ? mn_value_show(v, buf) : "not given"; }

static mn_status load_trainer(mn_train_state *s, int64_t step, const char *path) {
  mn_arena *arena = mn_arena_new();
  const mn_value *root = NULL, *was, *is;
  trainer_file f;
  mn_status status = arena ? mn_json_read(arena, path, &root) : MN_ERR_MEMORY;
  if (status == MN_OK && mn_config_read(arena, root, NULL, trainer_fields, &f) != MN_OK) status = MN_ERR_FORMAT;
  if (status == MN_OK && (f.step != step || !f.recipe)) status = mn_fail(MN_ERR_FORMAT, "%s: is not of step %lld", path, (long long)step);
  if (status == MN_OK) {
    char a[MN_PLACE], b[MN_PLACE];
    const char *key = mn_recipe_difference(arena, f.recipe, s->recipe, &was, &is);
    if (key)
      status = mn_fail(MN_ERR_CONFIG,
                       "the recipe is not the one this run began with: %s was %s and is %s now; put it back, or train into another --out",
                       key, shown(was, a), shown(is, b));
    else if (strcmp(f.data, s->data_hash) != 0)
      status = mn_fail(MN_ERR_CONFIG, "the data is not what this run began with: a file of data.files has changed; put it back, or "
                                      "train into another --out");
  }
  if (status == MN_OK) {
    s->step = f.step;
    s->tokens = f.tokens;
    s->first_loss = f.first_loss;
    s->mean_loss = f.mean_loss;
  }
  mn_arena_free(arena);
  return status;
}

/* ---- saving ---- */

static mn_status write_all(const mn_train_state *s, const char *dir) {
  char *model, *optimizer = NULL, *trainer = NULL;
  mn_status status = join(dir, "model.safetensors", &model);
  if (status == MN_OK) status = join(dir, "optimizer.safetensors", &optimizer);
  if (status == MN_OK) status = join(dir, "trainer.json", &trainer);
  if (status == MN_OK) status = mn_make_dirs(dir);
  if (status == MN_OK) status = mn_params_save(s->params, model);
  if (status == MN_OK) status = save_optimizer(s, optimizer);
  if (status == MN_OK) status = save_trainer(s, trainer);
  if (status == MN_OK) status = sync_dir(dir);
  free(model);
  free(optimizer);
  free(trainer);
  return status;
}

/* OUT/model.safetensors becomes another name of the checkpoint's file; where the file system has no links, a copy. */
static mn_status publish(const char *out_dir, const mn_train_state *s, const char *dir) {
  char *from, *to = NULL, *link_name = NULL;
  mn_status status = join(dir, "model.safetensors", &from);
  if (status == MN_OK) status = join(out_dir, "model.safetensors", &to);
  if (status == MN_OK) status = join(out_dir, ".model.safetensors.new", &link_name);
  if (status == MN_OK) {
    unlink(link_name);
    if (link(from, link_name) != 0 || rename(link_name, to) != 0) status = mn_params_save(s->params, to);
    unlink(link_name); /* renaming onto the same file leaves both names */
  }
  free(from);
  free(to);
  free(link_name);
  return status;
}

static mn_status drop_old(const char *out_dir, int64_t newest, int64_t keep_last) {
  int64_t *steps;
  size_t n;
  MN_TRY(mn_checkpoint_list(out_dir, &steps, &n));
  int64_t kept = 0;
  mn_status status = MN_OK;
  for (size_t i = 0; i < n && status == MN_OK; i++) {
    if (steps[i] <= newest && kept++ < keep_last) continue;
    /* under another name first: a directory called step-N is always whole */
    char *from = step_dir(out_dir, "", steps[i]), *to = step_dir(out_dir, writing, steps[i]);
    if (!from || !to) status = MN_ERR_MEMORY;
    else if (rename(from, to) != 0) status = mn_fail(MN_ERR_IO, "%s: cannot be renamed: %s", from, strerror(errno));
    else status = remove_dir(to);
    free(from);
    free(to);
  }
  free(steps);
  return status;
}

static mn_status save_as(const char *out_dir, const mn_train_state *s, const char *dir, const char *unfinished) {
  MN_TRY(remove_dir(unfinished));
  mn_status status = write_all(s, unfinished);
  if (status == MN_OK && mn_file_exists(dir)) { /* the same step again: replaced, not mixed */
    status = remove_dir(dir);
  }
  if (status == MN_OK && rename(unfinished, dir) != 0)
    status = mn_fail(MN_ERR_IO, "%s: cannot be renamed: %s", unfinished, strerror(errno));
  if (status != MN_OK) { /* make room again, and keep the message of the first fault */
    char *why = mn_strdup(mn_message());
    remove_dir(unfinished);
    mn_fail(status, "%s", why ? why : "a checkpoint could not be written");
    free(why);
    return status;
  }
  char *parent = mn_path_dir(dir);
  status = parent ? sync_dir(parent) : MN_ERR_MEMORY;
  free(parent);
  if (status == MN_OK) status = publish(out_dir, s, dir);
  return status;
}

mn_status mn_checkpoint_save(const char *out_dir, const mn_train_state *s, int64_t keep_last) {
  char *dir = step_dir(out_dir, "", s->step), *unfinished = step_dir(out_dir, writing, s->step);
  mn_status status = dir && unfinished ? save_as(out_dir, s, dir, unfinished) : MN_ERR_MEMORY;
  free(dir);
  free(unfinished);
  if (status == MN_OK) status = drop_old(out_dir, s->step, keep_last);
  return status;
}

/* ---- finding and loading ---- */

static int falling(const void *a, const void *b) {
  int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return (x < y) - (x > y);
}

mn_status mn_checkpoint_list(const char *out_dir, int64_t **steps, size_t *n) {
  *steps = NULL;
  *n = 0;
  char *dir, **names;
  size_t count;
  MN_TRY(join(out_dir, "checkpoints", &dir));
  if (!mn_file_exists(dir)) {
    free(dir);
    return MN_OK;
  }
  mn_status status = mn_dir_list(dir, &names, &count);
  free(dir);
  MN_TRY(status);
  *steps = mn_alloc((count + 1) * sizeof **steps);
  for (size_t i = 0; *steps && i < count; i++) {
    char *end;
    if (strncmp(names[i], "step-", 5) != 0 || names[i][5] < '0' || names[i][5] > '9') continue;
    errno = 0;
    long long step = strtoll(names[i] + 5, &end, 10);
    if (*end == 0 && errno == 0) (*steps)[(*n)++] = step;
  }
  mn_dir_list_free(names, count);
  if (!*steps) return MN_ERR_MEMORY;
  qsort(*steps, *n, sizeof **steps, falling);
  return MN_OK;
}

mn_status mn_checkpoint_load(const char *out_dir, int64_t step, mn_train_state *s) {
  char *dir = step_dir(out_dir, "", step), *model = NULL, *optimizer = NULL, *trainer = NULL;
  mn_status status = dir ? join(dir, "model.safetensors", &model) : MN_ERR_MEMORY;
  if (status == MN_OK) status = join(dir, "optimizer.safetensors", &optimizer);
  if (status == MN_OK) status = join(dir, "trainer.json", &trainer);
  if (status == MN_OK) status = load_trainer(s, step, trainer);
  if (status == MN_OK) status = mn_params_load(s->params, model);
  if (status == MN_OK) status = load_optimizer(s, optimizer);
  free(dir);
  free(model);
  free(optimizer);
  free(trainer);
  return status;
}

mn_status mn_checkpoint_resume(const char *out_dir, mn_train_state *s, bool *found) {
  int64_t *steps;
  size_t n;
  *found = false;
  MN_TRY(mn_checkpoint_list(out_dir, &steps, &n));
  mn_status status = MN_OK;
  for (size_t i = 0; i < n && !*found; i++) {
    status = mn_checkpoint_load(out_dir, steps[i], s);
    *found = status == MN_OK;
    if (status == MN_ERR_CONFIG || status == MN_ERR_MEMORY) break; /* not the checkpoint's fault */
    if (!*found)
      mn_log_write(MN_LOG_WARN, "the checkpoint of step %lld is damaged (%s); trying the one before it", (long long)steps[i], mn_message());
  }
  free(steps);
  if (n && !*found && status != MN_ERR_CONFIG) return mn_context(status, "%s: no checkpoint can be read", out_dir);
  return status;
}

mn_status mn_checkpoint_tidy(const char *out_dir) {
  char *dir, **names;
  size_t n;
  MN_TRY(join(out_dir, "checkpoints", &dir));
  mn_status status = mn_file_exists(dir) ? mn_dir_list(dir, &names, &n) : MN_ERR_CANCELLED;
  for (size_t i = 0; status == MN_OK && i < n; i++) {
    char *path = NULL;
    if (strncmp(names[i], writing, sizeof writing - 1) != 0) continue;
    if (join(dir, names[i], &path) != MN_OK || remove_dir(path) != MN_OK) mn_log_write(MN_LOG_WARN, "%s", mn_message());
    free(path);
  }
  if (status == MN_OK) mn_dir_list_free(names, n);
  free(dir);
  return status == MN_ERR_CANCELLED ? MN_OK : status;
}
