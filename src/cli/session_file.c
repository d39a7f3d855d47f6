/* session_file.c - see session_file.h. */
#include "cli/session_file.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

mn_status mn_session_file_open(const char *path, const char *what, mn_session_file *out) {
  *out = (mn_session_file){.path = mn_strdup(path)};
  mn_status status = out->path ? mn_claim_take(path, &out->claim) : MN_ERR_MEMORY;
  if (status == MN_ERR_CONFIG) mn_fail(status, "%s is open in another process; end that, or give another name", what ? what : path);
  if (status == MN_OK) out->stamp = mn_file_stamp_of(path);
  else mn_session_file_close(out);
  return status;
}

mn_status mn_session_file_of_both(const char *from, const char *to, mn_session_file *out) {
  *out = (mn_session_file){0};
  return from && to && mn_file_same(from, to) ? mn_session_file_open(to, NULL, out) : MN_OK;
}

void mn_session_file_close(mn_session_file *f) {
  mn_claim_leave(f->claim);
  free(f->unsaved);
  free(f->path);
  *f = (mn_session_file){0};
}

/* PATH-n, before its ending. */
static char *numbered(const char *path, int n) {
  const char *base = mn_path_base(path), *dot = strrchr(base, '.');
  const size_t at = dot && dot != base ? (size_t)(dot - path) : strlen(path);
  return mn_format("%.*s-%d%s", (int)at, path, n, path + at);
}

static mn_status open_numbered(const char *path, mn_session_file *out) {
  enum { MOST = 1000 };
  for (int n = 2; n < MOST; n++) {
    char *other = numbered(path, n);
    mn_status status = other ? MN_ERR_CONFIG : MN_ERR_MEMORY;
    if (other && !mn_file_exists(other)) status = mn_session_file_open(other, NULL, out);
    free(other);
    if (status == MN_OK && out->stamp.exists) mn_session_file_close(out); /* it came just now */
    else if (status != MN_ERR_CONFIG) return status;
  }
  return mn_fail(MN_ERR_CONFIG, "there are %d files beside %s that are called after it already", MOST - 2, path);
}

mn_status mn_session_file_save(mn_session_file *f, mn_session_writer save, void *ctx) {
  mn_status status = save(ctx, f->path, &f->stamp);
  if (status == MN_OK) {
    free(f->unsaved);
    f->unsaved = NULL, f->told = false;
  }
  if (status == MN_OK || !mn_file_changed(f->path, &f->stamp)) return status;
  mn_session_file other;
  MN_TRY(open_numbered(f->path, &other));
  status = save(ctx, other.path, &other.stamp);
  if (status != MN_OK) {
    mn_session_file_close(&other);
    return status;
  }
  mn_log_write(MN_LOG_WARN, "%s was written by another program since it was read, and stays as it is: what came here is kept in %s",
               f->path, other.path);
  mn_session_file_close(f);
  *f = other;
  return MN_OK;
}

/* The folder alone: where what it lay in has gone too, nobody knows where it would be. The lock went with it. */
static bool make_folder_again(mn_session_file *f) {
  char *folder = mn_path_dir(f->path);
  const bool made = folder && mkdir(folder, 0777) == 0;
  free(folder);
  if (!made) return false;
  mn_claim_leave(f->claim);
  f->claim = NULL;
  return mn_claim_take(f->path, &f->claim) == MN_OK;
}

mn_status mn_session_file_save_turn(mn_session_file *f, mn_session_writer save, void *ctx) {
  mn_status status = mn_session_file_save(f, save, ctx);
  if (status == MN_ERR_IO && !mn_file_exists(f->path)) {
    const mn_kept_message why = mn_message_keep();
    if (make_folder_again(f)) status = mn_session_file_save(f, save, ctx);
    else mn_message_restore(&why);
  }
  if (status != MN_ERR_IO) return status;
  char *why = mn_strdup(mn_message());
  free(f->unsaved);
  return (f->unsaved = why) ? MN_OK : MN_ERR_MEMORY;
}

void mn_session_file_tell(mn_session_file *f) {
  if (!f->unsaved || f->told) return;
  f->told = true;
  mn_log_write(MN_LOG_WARN, "%s; the dialogue goes on, and each turn tries again", f->unsaved);
}

mn_status mn_session_file_finish(mn_session_file *f, bool whole, mn_session_writer save, void *ctx) {
  if (!f->unsaved) return MN_OK;
  if (whole) MN_TRY(mn_session_file_save_turn(f, save, ctx));
  return f->unsaved ? mn_fail(MN_ERR_IO, "the last turns are lost: %s", f->unsaved) : MN_OK;
}

mn_status mn_session_file_save_to(mn_session_file *f, const char *to, mn_session_writer save, void *ctx) {
  return f->path ? mn_session_file_save(f, save, ctx) : save(ctx, to, NULL);
}
