/* checkpoint.c - see checkpoint.h. */
#define _GNU_SOURCE
#include "train/checkpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/dir.h"
#include "base/file.h"
#include "base/text.h"
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

/* The names that are written into a checkpoint's directory; what else lies there is the user's. */
static const char trainer_name[] = "trainer.json";
static const char *const file_names[] = {"model.safetensors", "optimizer.safetensors", trainer_name};
enum { FILES = 3 };
static bool ours(const char *name) {
  for (int i = 0; i < FILES; i++)
    if (!strcmp(name, file_names[i])) return true;
  return mn_file_is_temp(name);
}

/* Removes what is ours in OUT/checkpoints/NAME: trainer.json first, without which it is no checkpoint any more. */
static mn_status remove_ours(const char *out_dir, const char *name, char foreign[MN_DIR_NAME]) {
  char *parent;
  MN_TRY(join(out_dir, "checkpoints", &parent));
  mn_status status = mn_dir_remove(parent, name, ours, trainer_name, foreign);
  if (status == MN_OK && *foreign) {
    char shown[MN_PRINTABLE];
    mn_log_write(MN_LOG_WARN, "%s/%s stays: it holds %s, which is not of this training", parent, name, mn_printable(foreign, shown));
  }
  free(parent);
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

static int states_of(const mn_train_state *s) { return s->carried ? mn_states_count(s->carried) : 0; }

/* Every tensor that is no parameter, by its name in the file. */
static mn_status for_each(const mn_train_state *s, visit f, void *ctx) {
  const mn_params *p = s->params;
  char name[512];
  for (int i = 0; i < p->n; i++)
    for (int k = 0; k < 2; k++) {
      void *data = k ? s->optimizer->v[i] : s->optimizer->m[i];
      snprintf(name, sizeof name, "%c.%s", "mv"[k], p -> info[i].name);
      if (data) MN_TRY(f(ctx, name, s->optimizer->moment, &p->info[i].shape, data));
    }
  for (int i = p->n_model; i < p->n; i++) { /* the others are the model's, in a file of their own */
    snprintf(name, sizeof name, "step.%s", p->info[i].name);
    MN_TRY(f(ctx, name, p->dtype, &p->info[i].shape, p->data[i]));
  }
  for (int i = 0, n = states_of(s); i < n; i++) {
    const mn_state_info *info = mn_states_info(s->carried, i);
    snprintf(name, sizeof name, "state.%s", info->name);
    MN_TRY(f(ctx, name, info->dtype, &info->shape, mn_states_data(s->carried, i)));
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

static mn_status save_optimizer(const mn_train_state *s, const char *path, const char *weights) {
  saving x = {s->params->backend, mn_st_writer_new(), mn_calloc((size_t)(3 * s->params->n + states_of(s)) + 1, sizeof *x.pieces), 0};
  mn_status status = x.w && x.pieces ? mn_st_writer_meta(x.w, "format", "mneme") : MN_ERR_MEMORY;
  if (status == MN_OK) status = mn_origin_write(&s->params->origin, x.w);
  if (status == MN_OK) status = mn_st_writer_meta(x.w, "weights", weights);
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
  mn_status status = host ? mn_st_read_finite(x->st, t, dtype, host) : MN_ERR_MEMORY;
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
  return status == MN_OK && s->carried ? mn_states_look(s->carried) : status;
}

/* ---- trainer.json ---- */

typedef struct trainer_file {
  int64_t step, tokens;
  int64_t losses_seen;
  double first_loss, last_loss, mean_loss, low_loss, loss_spread; /* mn_loss_watch */
  const char *data, *tokenizer;                                   /* hashes */
  const char *weights, *optimizer; /* mn_st_checksum of the two files beside it; NULL: written before files had checksums */
  const char *isa;                 /* instruction set of the kernels; NULL: written by an older version */
  const mn_value *recipe;
} trainer_file;
#define S trainer_file
static const mn_field trainer_fields[] = {
    MN_FIELD_INT_REQUIRED(S, step, 0, INT64_MAX, "updates done"),
    MN_FIELD_INT_REQUIRED(S, tokens, 0, INT64_MAX, "tokens seen"),
    MN_FIELD_INT(S, losses_seen, 0, 0, INT64_MAX, "steps that divergence is judged by; 0: a new start"),
    MN_FIELD_FLOAT(S, first_loss, 0, -DBL_MAX, DBL_MAX, "loss of the first step"),
    MN_FIELD_FLOAT(S, last_loss, 0, -DBL_MAX, DBL_MAX, "loss of the last step"),
    MN_FIELD_FLOAT(S, mean_loss, 0, -DBL_MAX, DBL_MAX, "running mean of the loss"),
    MN_FIELD_FLOAT(S, low_loss, 0, -DBL_MAX, DBL_MAX, "lowest running mean"),
    MN_FIELD_FLOAT(S, loss_spread, 0, 0, DBL_MAX, "usual change between two steps"),
    MN_FIELD_STRING_REQUIRED(S, data, "hash of the corpus"),
    MN_FIELD_STRING(S, tokenizer, NULL, "hash of the tokenizer"),
    MN_FIELD_STRING(S, weights, NULL, "checksum of model.safetensors"),
    MN_FIELD_STRING(S, optimizer, NULL, "checksum of optimizer.safetensors"),
    MN_FIELD_STRING(S, isa, NULL, "instruction set of the kernels that ran"),
    MN_FIELD_VALUE(S, recipe, "the effective recipe"),
    MN_FIELD_END};
#undef S

static mn_status save_trainer(const mn_train_state *s, const char *path, const char *weights, const char *optimizer) {
  mn_arena *arena = mn_arena_new();
  const char *tokenizer = s->params->origin.tokenizer;
  trainer_file f = {.step = s->step,
                    .tokens = s->tokens,
                    .losses_seen = s->watch.seen,
                    .first_loss = s->watch.first,
                    .last_loss = s->watch.last,
                    .mean_loss = s->watch.mean,
                    .low_loss = s->watch.low,
                    .loss_spread = s->watch.spread,
                    .data = s->data_hash,
                    .tokenizer = *tokenizer ? tokenizer : NULL,
                    .weights = weights,
                    .optimizer = optimizer,
                    .isa = s->params->backend->isa,
                    .recipe = s->recipe};
  const mn_value *v = arena ? mn_config_to_value(arena, &(mn_config_part){trainer_fields, &f}, 1) : NULL;
  mn_status status = v ? mn_json_write(path, v) : MN_ERR_MEMORY;
  mn_arena_free(arena);
  return status;
}

static const char *shown(mn_arena *arena, const mn_value *v, char buf[MN_PLACE]) {
  mn_text t = {0};
  if (!v || v->kind == MN_NULL) return "not given";
  if (v->kind != MN_LIST && v->kind != MN_MAP) return mn_value_show(v, buf);
  mn_status status = mn_value_to_json(v, 0, &t); /* "a list" would not say what changed in it */
  const bool all = t.len <= 200;
  const char *text = status != MN_OK ? NULL
                     : all           ? mn_arena_strdup(arena, t.data)
                                     : mn_arena_format(arena, "%.*s...", (int)mn_utf8_valid(t.data, 200), t.data);
  mn_text_free(&t);
  return text ? text : mn_value_show(v, buf);
}

/* The checksum of a safetensors file: of its header, which covers the rest. */
static mn_status checksum_of(const char *path, char hex[33]) {
  mn_st *st;
  MN_TRY(mn_st_open(path, &st));
  const char *sum = mn_st_checksum(st);
  snprintf(hex, 33, "%s", sum ? sum : "");
  mn_st_close(st);
  return MN_OK;
}

/* The files of a checkpoint are of one moment. */
static mn_status need_same(const char *path, const char *expected, const char *trainer) {
  char hex[33];
  if (!expected) return MN_OK;
  MN_TRY(checksum_of(path, hex));
  if (!strcmp(hex, expected)) return MN_OK;
  return mn_fail(MN_ERR_FORMAT, "%s is not the file that was saved with %s: it is of another step or another run", path, trainer);
}

static int64_t steps_of(const mn_value *recipe) {
  const mn_value *train = mn_value_get(recipe, "train"), *steps = train ? mn_value_get(train, "steps") : NULL;
  return steps && steps->kind == MN_INTEGER ? steps->as.integer : 0;
}

static mn_status load_trainer(mn_train_state *s, int64_t step, const char *path, const char *model, const char *optimizer) {
  mn_arena *arena = mn_arena_new();
  const mn_value *root = NULL, *was, *is;
  trainer_file f;
  mn_status status = arena ? mn_json_read(arena, path, &root) : MN_ERR_MEMORY;
  if (status == MN_OK && mn_config_read(arena, root, NULL, trainer_fields, &f) != MN_OK) status = MN_ERR_FORMAT;
  if (status == MN_OK && (f.step != step || !f.recipe)) status = mn_fail(MN_ERR_FORMAT, "%s: is not of step %lld", path, (long long)step);
  if (status == MN_OK) status = need_same(model, f.weights, path);
  if (status == MN_OK) status = need_same(optimizer, f.optimizer, path);
  if (status == MN_OK) {
    char a[MN_PLACE], b[MN_PLACE];
    const char *key = mn_recipe_difference(arena, f.recipe, s->recipe, &was, &is);
    int64_t before = steps_of(f.recipe), now = steps_of(s->recipe);
    if (!key && now < before)
      status = mn_fail(MN_ERR_CONFIG, "this run was to have %lld steps, and train.steps is %lld now: it can be raised, not lowered",
                       (long long)before, (long long)now);
    s->steps_before = before;
    if (key)
      status = mn_fail(MN_ERR_CONFIG,
                       "the recipe is not the one this run began with: %s was %s and is %s now; put it back, or train into another --out",
                       key, shown(arena, was, a), shown(arena, is, b));
    else if (f.tokenizer && strcmp(f.tokenizer, s->params->origin.tokenizer) != 0)
      status = mn_fail(MN_ERR_CONFIG, "the tokenizer is not the one this run began with: tokenizer.json is damaged or was replaced; put it "
                                      "back, or remove it and it is made again from the recipe");
    else if (strcmp(f.data, s->data_hash) != 0)
      status =
          mn_fail(MN_ERR_CONFIG, "what this run learns from is not what it began with: a file of `data`, or a teacher, has changed; put it "
                                 "back, or train into another --out");
  }
  const char *isa = s->params->backend->isa;
  if (status == MN_OK && f.isa && isa && strcmp(f.isa, isa) != 0)
    mn_log_write(
        MN_LOG_WARN,
        "this run was trained with the kernels of %s until now, and goes on with those of %s: its last bits are not those of a run "
        "that had not stopped",
        f.isa, isa);
  if (status == MN_OK) {
    s->step = f.step;
    s->tokens = f.tokens;
    s->watch = (mn_loss_watch){f.losses_seen, f.first_loss, f.last_loss, f.mean_loss, f.low_loss, f.loss_spread};
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
  char weights_sum[33], optimizer_sum[33];
  s->params->origin.step = s->step;
  s->params->origin.tokens = s->tokens;
  if (status == MN_OK) status = mn_params_save(s->params, model);
  if (status == MN_OK) status = checksum_of(model, weights_sum);
  if (status == MN_OK) status = save_optimizer(s, optimizer, weights_sum);
  if (status == MN_OK) status = checksum_of(optimizer, optimizer_sum);
  if (status == MN_OK) status = save_trainer(s, trainer, weights_sum, optimizer_sum);
  if (status == MN_OK) status = sync_dir(dir);
  free(model);
  free(optimizer);
  free(trainer);
  return status;
}

/* OUT/model.safetensors is a file of its own: whoever writes over it leaves the checkpoint alone. */
static mn_status publish(const char *out_dir, const char *dir) {
  char *from, *to = NULL;
  mn_status status = join(dir, "model.safetensors", &from);
  if (status == MN_OK) status = join(out_dir, "model.safetensors", &to);
  if (status == MN_OK) status = mn_file_copy(from, to);
  free(from);
  free(to);
  return status;
}

/* A directory called step-N is always whole: it is renamed before it is emptied. One that holds files of the user keeps its
 * name, and stops being a checkpoint when its trainer.json goes. */
static mn_status drop(const char *out_dir, int64_t step) {
  char name[64], goes[96], foreign[MN_DIR_NAME], *parent, *from = NULL, *to = NULL;
  snprintf(name, sizeof name, "step-%lld", (long long)step);
  snprintf(goes, sizeof goes, "%s%s", writing, name);
  MN_TRY(join(out_dir, "checkpoints", &parent));
  mn_status status = mn_dir_foreign(parent, name, ours, foreign);
  bool rename_first = status == MN_OK && !*foreign;
  if (status == MN_OK) status = join(parent, name, &from);
  if (status == MN_OK) status = join(parent, goes, &to);
  if (status == MN_OK && rename_first && rename(from, to) != 0) rename_first = false; /* something of the user's has that name */
  if (status == MN_OK) status = remove_ours(out_dir, rename_first ? goes : name, foreign);
  free(parent);
  free(from);
  free(to);
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
    status = drop(out_dir, steps[i]);
  }
  free(steps);
  return status;
}

/* Moves the files of a finished checkpoint into a directory that already holds something of the user's; trainer.json, which
 * makes it a checkpoint, last. */
static mn_status move_files(const char *from_dir, const char *to_dir) {
  mn_status status = MN_OK;
  for (int i = 0; i < FILES && status == MN_OK; i++) {
    char *from, *to = NULL;
    status = join(from_dir, file_names[i], &from);
    if (status == MN_OK) status = join(to_dir, file_names[i], &to);
    if (status == MN_OK && rename(from, to) != 0) status = mn_fail(MN_ERR_IO, "%s: cannot be renamed: %s", from, strerror(errno));
    free(from);
    free(to);
  }
  if (status == MN_OK) status = sync_dir(to_dir);
  return status == MN_OK && rmdir(from_dir) != 0 ? mn_fail(MN_ERR_IO, "%s: cannot be removed: %s", from_dir, strerror(errno)) : status;
}

/* The finished directory takes its name. The same step again is replaced, not mixed; a link of that name goes. */
static mn_status put_in_place(const char *out_dir, const char *unfinished, const char *dir) {
  char foreign[MN_DIR_NAME];
  MN_TRY(remove_ours(out_dir, mn_path_base(dir), foreign));
  if (*foreign) return move_files(unfinished, dir);
  return rename(unfinished, dir) == 0 ? MN_OK : mn_fail(MN_ERR_IO, "%s: cannot be renamed: %s", unfinished, strerror(errno));
}

static mn_status save_as(const char *out_dir, const mn_train_state *s, const char *dir, const char *unfinished) {
  char foreign[MN_DIR_NAME], *parent = mn_path_dir(dir);
  mn_status status = parent ? mn_dir_need_real(parent) : MN_ERR_MEMORY;
  if (status == MN_OK) status = remove_ours(out_dir, mn_path_base(unfinished), foreign);
  if (status == MN_OK) status = write_all(s, unfinished);
  if (status == MN_OK) status = put_in_place(out_dir, unfinished, dir);
  if (status == MN_OK) status = sync_dir(parent);
  else { /* make room again */ const mn_kept_message why = mn_message_keep();
    remove_ours(out_dir, mn_path_base(unfinished), foreign);
    mn_message_restore(&why);
  }
  free(parent);
  return status;
}

mn_status mn_checkpoint_complete(const char *out_dir, int64_t step, int64_t keep_last) {
  char *dir = step_dir(out_dir, "", step);
  mn_status status = dir ? drop_old(out_dir, step, keep_last) : MN_ERR_MEMORY; /* first: it makes room for the copy */
  if (status == MN_OK) status = publish(out_dir, dir);
  free(dir);
  return status;
}

/* What a training that is told to stop saves is saved, too: nothing below looks at the flag. */
mn_status mn_checkpoint_save(const char *out_dir, const mn_train_state *s, int64_t keep_last) {
  const atomic_int *flag = mn_stop_watch(NULL);
  char *dir = step_dir(out_dir, "", s->step), *unfinished = step_dir(out_dir, writing, s->step);
  mn_status status = dir && unfinished ? save_as(out_dir, s, dir, unfinished) : MN_ERR_MEMORY;
  free(dir);
  free(unfinished);
  if (status == MN_OK) status = mn_checkpoint_complete(out_dir, s->step, keep_last);
  mn_stop_watch(flag);
  return status;
}

/* ---- finding and loading ---- */

static int falling(const void *a, const void *b) {
  int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return (x < y) - (x > y);
}

/* A checkpoint is a directory, no link to one, that is called as we call it and holds a file of ours. */
static bool is_checkpoint(const char *dir, const char *name, int64_t *step) {
  char again[64];
  if (strncmp(name, "step-", 5) != 0) return false;
  *step = strtoll(name + 5, NULL, 10);
  snprintf(again, sizeof again, "step-%lld", (long long)*step);
  if (strcmp(again, name) != 0 || *step < 0) return false; /* step-007 */
  mn_path_kind e = MN_PATH_NONE;
  char *path = mn_path_join(dir, name);
  bool is_dir = path && mn_path_look(path, &e) == MN_OK && e == MN_PATH_DIR, any = false;
  for (int i = 0; i < FILES && is_dir && !any; i++) {
    char *file = mn_path_join(path, file_names[i]);
    any = file && mn_path_look(file, &e) == MN_OK && e != MN_PATH_NONE;
    free(file);
  }
  free(path);
  return any;
}

mn_status mn_checkpoint_list(const char *out_dir, int64_t **steps, size_t *n) {
  *steps = NULL;
  *n = 0;
  char *dir, **names;
  size_t count;
  mn_path_kind e = MN_PATH_NONE;
  MN_TRY(join(out_dir, "checkpoints", &dir));
  mn_status status = mn_dir_need_real(dir);
  if (status == MN_OK) status = mn_path_look(dir, &e);
  if (status == MN_OK && e == MN_PATH_DIR) status = mn_dir_list(dir, &names, &count);
  if (status != MN_OK || e != MN_PATH_DIR) {
    free(dir);
    return status;
  }
  *steps = mn_alloc((count + 1) * sizeof **steps);
  for (size_t i = 0; *steps && i < count; i++)
    if (is_checkpoint(dir, names[i], &(*steps)[*n])) ++*n;
  free(dir);
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
  if (status == MN_OK) status = load_trainer(s, step, trainer, model, optimizer);
  if (status == MN_OK) status = mn_params_load(s->params, model);
  if (status == MN_OK) status = load_optimizer(s, optimizer);
  free(dir);
  free(model);
  free(optimizer);
  free(trainer);
  return status;
}

mn_status mn_checkpoint_resume(const char *out_dir, mn_train_state *s, mn_checkpoint_at at, void *ctx, bool *found) {
  int64_t *steps;
  size_t n;
  *found = false;
  MN_TRY(mn_checkpoint_list(out_dir, &steps, &n));
  mn_status status = MN_OK;
  for (size_t i = 0; i < n && !*found; i++) {
    status = at ? at(ctx, steps[i]) : MN_OK;
    if (status != MN_OK) break;
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

/* A file called as a checkpoint would be found to be in its way only when that is written. */
static mn_status check_place(const char *out_dir, const char *name) {
  mn_path_kind kind = MN_PATH_NONE;
  char *path = mn_format("%s/checkpoints/%s", out_dir, name);
  mn_status status = path ? mn_path_look(path, &kind) : MN_ERR_MEMORY;
  if (kind == MN_PATH_FILE || kind == MN_PATH_OTHER) status = mn_dir_need_real(path);
  free(path);
  return status;
}

mn_status mn_checkpoint_tidy(const char *out_dir) {
  char *dir, **names, foreign[MN_DIR_NAME];
  size_t n;
  mn_path_kind e = MN_PATH_NONE;
  MN_TRY(join(out_dir, "checkpoints", &dir));
  mn_status status = mn_path_look(dir, &e);
  if (status == MN_OK && e == MN_PATH_DIR) status = mn_dir_list(dir, &names, &n);
  free(dir);
  if (status != MN_OK || e != MN_PATH_DIR) return status;
  for (size_t i = 0; i < n && status == MN_OK; i++) {
    if (!strncmp(names[i], writing, sizeof writing - 1)) status = remove_ours(out_dir, names[i], foreign);
    else if (!strncmp(names[i], "step-", 5)) status = check_place(out_dir, names[i]);
  }
  mn_dir_list_free(names, n);
  return status;
}
