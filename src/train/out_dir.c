/* out_dir.c - see out_dir.h. */
#define _GNU_SOURCE
#include "train/out_dir.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/claim.h"
#include "base/dir.h"
#include "base/file.h"
#include "base/output.h"
#include "format/json.h"

static const char lock_name[] = ".lock";

struct mn_out_dir {
  char *path;
  int made;             /* how many directories of the path there were not before */
  bool had_checkpoints; /* there was a directory for them                          */
  int fd, lock;
};

/* ---- the lock ----------------------------------------------------------------------------------------------------- */

enum { PATIENCE = 10 }; /* seconds */

/* Whoever goes on may come while the one before is still ending: its program was killed, and the process that trains for it saves what it has. */
static mn_status lock_dir(mn_out_dir *d, bool goes_on) {
  mn_lock_state state;
  MN_TRY(mn_lock_take(d->fd, d->path, lock_name, &d->lock, &state));
  if (state == MN_LOCK_OTHERS && goes_on)
    mn_log_write(MN_LOG_WARN, "%s: another process is training into this directory; waiting %d s at most for its end", d->path, PATIENCE);
  for (const double began = mn_now(); state == MN_LOCK_OTHERS && goes_on && mn_now() - began < PATIENCE;) {
    nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
    MN_TRY(mn_stop_check("another process was waited for"));
    MN_TRY(mn_lock_take(d->fd, d->path, lock_name, &d->lock, &state));
  }
  if (state == MN_LOCK_OTHERS) return mn_fail(MN_ERR_IO, "%s: another process is training into this directory", d->path);
  if (state == MN_LOCK_NONE) return mn_fail(MN_ERR_IO, "%s/%s: cannot be locked: this file system has no locks", d->path, lock_name);
  return MN_OK;
}

static mn_status open_dir(mn_out_dir *d, bool goes_on) {
  d->fd = open(d->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (d->fd < 0) return mn_fail(MN_ERR_IO, "%s: cannot be opened: %s", d->path, strerror(errno));
  return lock_dir(d, goes_on);
}

static void close_dir(mn_out_dir *d) {
  if (d->lock >= 0) {
    unlinkat(d->fd, lock_name, 0);
    close(d->lock);
  }
  if (d->fd >= 0) close(d->fd);
  d->lock = d->fd = -1;
}

/* ---- trying ------------------------------------------------------------------------------------------------------- */

static const char *const file_names[] = {"model.safetensors", "config.json", "recipe.json", "tokenizer.json", "metrics.jsonl"};
enum { N_FILES = sizeof file_names / sizeof *file_names };

mn_status mn_out_dir_spares(const char *path, const char *read) {
  for (int i = 0; i < N_FILES; i++) {
    char *file = mn_path_join(path, file_names[i]);
    if (!file) return MN_ERR_MEMORY;
    const bool same = mn_file_same(file, read);
    free(file);
    if (same) return mn_fail(MN_ERR_CONFIG, "%s: a training into %s writes its own in its place; choose another --out", read, path);
  }
  return MN_OK;
}

static mn_status spare_texts(const char *path, const mn_value *v) {
  if (v->kind == MN_TEXT) return v->count < 4096 ? mn_out_dir_spares(path, v->as.text) : MN_OK;
  const bool map = v->kind == MN_MAP;
  for (size_t i = 0; (map || v->kind == MN_LIST) && i < v->count; i++)
    MN_TRY(spare_texts(path, map ? v->as.entries[i].value : v->as.items[i]));
  return MN_OK;
}

mn_status mn_out_dir_spares_data(const char *path, const mn_recipe *recipe) {
  mn_arena *arena = mn_arena_new();
  const mn_value *tree = arena ? mn_recipe_to_value(arena, recipe, NULL) : NULL;
  mn_status status = tree ? spare_texts(path, tree) : MN_ERR_MEMORY;
  mn_arena_free(arena);
  return status;
}

static mn_status try_files(mn_out_dir *d) {
  mn_status status = MN_OK;
  for (int i = 0; i < N_FILES && status == MN_OK; i++) {
    char *path = mn_path_join(d->path, file_names[i]);
    status = path ? mn_output_try(path, 0) : MN_ERR_MEMORY;
    free(path);
  }
  char *checkpoints = mn_path_join(d->path, "checkpoints");
  if (status == MN_OK) status = checkpoints ? mn_dir_need_real(checkpoints) : MN_ERR_MEMORY;
  if (status == MN_OK) status = mn_output_try_dir(checkpoints);
  d->had_checkpoints = checkpoints && mn_file_exists(checkpoints);
  free(checkpoints);
  return status;
}

/* Is something lost with this name? A link is replaced itself: what it points at stays, as does a file that has another name. */
static bool holds_something(const char *path) {
  struct stat st;
  return lstat(path, &st) == 0 && S_ISREG(st.st_mode) && st.st_nlink == 1;
}

mn_status mn_out_dir_own_json(const char *file) {
  const mn_value *root;
  bool sealed = false;
  if (!holds_something(file)) return MN_OK;
  mn_arena *arena = mn_arena_new();
  if (!arena) return MN_ERR_MEMORY;
  mn_status status = mn_json_read_sealed(arena, file, &root, &sealed);
  mn_arena_free(arena);
  if (status == MN_ERR_MEMORY || (status == MN_OK && sealed)) return status;
  return mn_fail(MN_ERR_CONFIG, "%s is there, and no training wrote it; choose another --out, or move it away", file);
}

/* What a training that was killed before its first checkpoint left may be replaced; files of another program are not. */
static mn_status spares_others(const char *path) {
  static const char *const ours[] = {"config.json", "recipe.json"}, *const beside[] = {"tokenizer.json", "metrics.jsonl"};
  mn_status status = MN_OK;
  bool described = false;
  for (int i = 0; i < 4 && status == MN_OK; i++) {
    char *file = mn_path_join(path, i < 2 ? ours[i] : beside[i - 2]);
    if (!file) return MN_ERR_MEMORY;
    const bool there = holds_something(file);
    if (i < 2) status = mn_out_dir_own_json(file);
    else if (there && !described)
      status = mn_fail(MN_ERR_CONFIG, "%s is there without the config.json of a training; choose another --out, or move it away", file);
    described = described || (!i && there);
    free(file);
  }
  return status;
}

mn_status mn_out_dir_fresh(const char *path) {
  static const char *const weights[] = {"model.safetensors", "model.safetensors.index.json"};
  for (size_t i = 0; i < sizeof weights / sizeof *weights; i++) {
    char *file = mn_path_join(path, weights[i]);
    if (!file) return MN_ERR_MEMORY;
    const bool there = mn_file_exists(file);
    free(file);
    if (there) return mn_fail(MN_ERR_CONFIG, "%s holds a model already (%s); choose another --out", path, weights[i]);
  }
  return spares_others(path);
}

bool mn_out_dir_uses(const char *name) {
  bool used = !strcasecmp(name, "checkpoints");
  for (int i = 0; i < N_FILES; i++) used = used || !strcasecmp(name, file_names[i]);
  return used;
}

mn_status mn_out_dir_bare(const char *path) {
  static const char *const names[] = {
      "model.safetensors", "model.safetensors.index.json", "config.json", "recipe.json", "tokenizer.json", "metrics.jsonl", "match.json",
      "tune.json"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    char *file = mn_path_join(path, names[i]);
    if (!file) return MN_ERR_MEMORY;
    const bool there = mn_file_exists(file);
    free(file);
    if (there) return mn_fail(MN_ERR_CONFIG, "%s is the directory of a model or of a training (%s); choose another --out", path, names[i]);
  }
  return MN_OK;
}

mn_status mn_out_dir_room(const mn_out_dir *d, uint64_t bytes) {
  char *path = mn_path_join(d->path, "model.safetensors");
  mn_status status = path ? mn_output_try(path, bytes) : MN_ERR_MEMORY;
  free(path);
  return status;
}

/* ---- the directory ------------------------------------------------------------------------------------------------ */

mn_status mn_out_dir_open(const char *path, bool goes_on, mn_out_dir **out) {
  *out = NULL;
  if (!*path) return mn_fail(MN_ERR_CONFIG, "--out: the name of the directory is empty");
  mn_out_dir *d = mn_calloc(1, sizeof *d);
  if (!d) return MN_ERR_MEMORY;
  *d = (mn_out_dir){.path = mn_strdup(path), .fd = -1, .lock = -1, .had_checkpoints = true};
  mn_status status = d->path ? mn_output_try_dir(path) : MN_ERR_MEMORY;
  if (status == MN_OK) status = mn_make_dirs_counted(path, &d->made);
  if (status == MN_OK) status = open_dir(d, goes_on);
  if (status == MN_OK) status = try_files(d);
  if (status != MN_OK) {
    const mn_kept_message why = mn_message_keep();
    mn_out_dir_close(d);
    mn_message_restore(&why);
    return status;
  }
  *out = d;
  return MN_OK;
}

mn_status mn_out_dir_still(mn_out_dir *d, bool *made_again) {
  struct stat mine, there;
  *made_again = false;
  bool missing = stat(d->path, &there) != 0;
  if (!missing && fstat(d->fd, &mine) == 0 && mine.st_dev == there.st_dev && mine.st_ino == there.st_ino) return MN_OK;
  if (!missing)
    return mn_fail(MN_ERR_IO,
                   "%s is not the directory any more that this training began with: that was moved or removed, and another "
                   "one has its place",
                   d->path);
  close_dir(d);
  int made;
  MN_TRY(mn_make_dirs_counted(d->path, &made));
  *made_again = true;
  return open_dir(d, false);
}

void mn_out_dir_close(mn_out_dir *d) {
  if (!d) return;
  close_dir(d);
  char *checkpoints = d->path && !d->had_checkpoints ? mn_path_join(d->path, "checkpoints") : NULL;
  if (checkpoints) rmdir(checkpoints); /* as far as it is empty */
  if (d->path) mn_output_unmake_dirs(d->path, d->made);
  free(checkpoints);
  free(d->path);
  free(d);
}
