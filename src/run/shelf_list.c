/* shelf_list.c - which conversations a shelf has, in memory and in its folder; see shelf.h. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/dir.h"
#include "run/shelf_internal.h"

typedef struct listed {
  mn_shelf_entry e;
  uint64_t owner;
} listed;

/* By name; an owner's own before everybody's. */
static int by_name(const void *a, const void *b) {
  const listed *x = a, *y = b;
  const int order = strcmp(x->e.name, y->e.name);
  return order ? order : x->owner < y->owner ? 1 : x->owner > y->owner ? -1 : 0;
}

/* Names of files that are conversations' lose their mn_shelf_ending; others become "". */
static size_t list_files(const mn_shelf *s, char ***names, mn_status *status) {
  mn_path_kind kind = MN_PATH_NONE;
  size_t n = 0;
  *names = NULL;
  *status = s->folder ? mn_path_look(s->folder, &kind) : MN_OK;
  if (*status == MN_OK && kind == MN_PATH_DIR) *status = mn_dir_list(s->folder, names, &n);
  for (size_t i = 0; *names && i < n; i++) {
    const size_t length = strlen((*names)[i]), at = length > sizeof mn_shelf_ending - 1 ? length - (sizeof mn_shelf_ending - 1) : 0;
    char *path = at && (*names)[i][0] != '.' && !strcmp((*names)[i] + at, mn_shelf_ending) ? mn_path_join(s->folder, (*names)[i]) : NULL;
    (*names)[i][mn_shelf_is_file(path) ? at : 0] = 0;
    free(path);
  }
  return n;
}

/* Whose the file is; its name loses that. One that no owner's file would be called has no name. */
static uint64_t cut_owner(char *name) {
  char *at = strchr(name, '@'), again[17];
  if (!at) return 0;
  const uint64_t owner = strtoull(at + 1, NULL, 16);
  snprintf(again, sizeof again, "%016" PRIx64, owner);
  *(owner && !strcmp(again, at + 1) ? at : name) = 0;
  return owner;
}

static size_t file_bytes(const mn_shelf *s, uint64_t owner, const char *name) {
  char *path = NULL;
  mn_file_info info = {0};
  if (mn_shelf_path(s, owner, name, &path) == MN_OK) mn_file_stat(path, &info);
  free(path);
  return info.exists ? (size_t)info.size : 0;
}

mn_status mn_shelf_each(mn_shelf *s, uint64_t owner, void (*tell)(void *ctx, const mn_shelf_entry *e), void *ctx) {
  char **names;
  mn_status status;
  const size_t files = list_files(s, &names, &status);
  if (status != MN_OK) return status;
  pthread_mutex_lock(&s->lock);
  for (int i = s->n; i-- > 0;)
    if (mn_shelf_outdated(s, s->at[i])) mn_shelf_drop(s, s->at[i]);
  listed *all = mn_calloc((size_t)s->n + files + 1, sizeof *all);
  size_t n = 0;
  for (int i = 0; all && i < s->n; i++) {
    const mn_shelf_one *e = s->at[i];
    if (!e->name || (e->owner && e->owner != owner)) continue;
    const mn_shelf_entry told = {e->name, e->taken, e->c != NULL || e->taken, e->c ? mn_conversation_length(e->c) : -1,
                                 e->c || e->taken ? mn_shelf_bytes_of(e) : file_bytes(s, e->owner, e->name)};
    all[n++] = (listed){told, e->owner};
  }
  for (size_t i = 0; all && i < files; i++) {
    const uint64_t holder = cut_owner(names[i]);
    if (!*names[i] || (holder && holder != owner) || mn_shelf_find(s, holder, names[i])) continue;
    all[n++] = (listed){{names[i], false, false, -1, file_bytes(s, holder, names[i])}, holder};
  }
  if (all) qsort(all, n, sizeof *all, by_name);
  for (size_t i = 0; i < n; i++)
    if (!i || strcmp(all[i].e.name, all[i - 1].e.name) != 0) tell(ctx, &all[i].e);
  pthread_mutex_unlock(&s->lock);
  status = all ? MN_OK : MN_ERR_MEMORY;
  free(all);
  mn_dir_list_free(names, files);
  return status;
}

size_t mn_shelf_bytes(mn_shelf *s) {
  size_t bytes = 0;
  pthread_mutex_lock(&s->lock);
  for (int i = 0; i < s->n; i++) bytes += s->at[i]->c || s->at[i]->taken ? mn_shelf_bytes_of(s->at[i]) : 0;
  pthread_mutex_unlock(&s->lock);
  return bytes;
}
