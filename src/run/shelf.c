/* shelf.c - see shelf.h. One lock for the list; files are read and written outside of it, while their conversation is marked as busy. The file of
 * an owner's conversation is NAME@OWNER.safetensors, 16 digits; no name has an '@'. */
#include "run/shelf.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/dir.h"
#include "base/file.h"

static const char ending[] = ".safetensors";

typedef struct entry {
  char *name, *note;  /* NULL: it was laid down */
  uint64_t owner;     /* 0: everybody's */
  mn_conversation *c; /* NULL: taken, or in its file */
  bool taken, busy;   /* busy: a file of it is being written, or a copy is made */
  bool saved, wrote;  /* its file is as it is; the file is ours */
  uint64_t used;
  size_t bytes;
} entry;

struct mn_shelf {
  mn_shelf_config config;
  char *folder, fingerprint[33];
  pthread_mutex_t lock;
  pthread_cond_t idle; /* nobody is busy with something */
  uint64_t clock;
  entry **at;
  int n, room;
};

/* ---- the list: all below this line and above the next is called with the lock ---- */
static entry *find(const mn_shelf *s, uint64_t owner, const char *name) {
  for (int i = 0; i < s->n; i++)
    if (s->at[i]->name && s->at[i]->owner == owner && !strcmp(s->at[i]->name, name)) return s->at[i];
  return NULL;
}

/* The same when nobody is busy with it. */
static entry *find_idle(mn_shelf *s, uint64_t owner, const char *name) {
  entry *e;
  while ((e = find(s, owner, name)) && e->busy) pthread_cond_wait(&s->idle, &s->lock);
  return e;
}

static entry *add(mn_shelf *s, uint64_t owner, const char *name) { /* NULL: none */
  if (s->n == s->room) {
    const int room = s->room ? 2 * s->room : 16;
    entry **more = mn_realloc(s->at, (size_t)room * sizeof(entry *));
    if (!more) return NULL;
    s->at = more, s->room = room;
  }
  entry *e = mn_calloc(1, sizeof *e);
  if (e && name && !(e->name = mn_strdup(name))) free(e), e = NULL;
  if (e) e->owner = owner, s->at[s->n++] = e;
  return e;
}

static void drop(mn_shelf *s, entry *e) {
  for (int i = 0; i < s->n; i++)
    if (s->at[i] == e) s->at[i] = s->at[--s->n];
  mn_conversation_free(e->c);
  free(e->name);
  free(e->note);
  free(e);
}

static mn_status path_of(const mn_shelf *s, uint64_t owner, const char *name, char **out) {
  char *file = owner ? mn_format("%s@%016" PRIx64 "%s", name, owner, ending) : mn_format("%s%s", name, ending);
  *out = file && s->folder ? mn_path_join(s->folder, file) : NULL;
  free(file);
  return *out || !s->folder ? MN_OK : MN_ERR_MEMORY;
}

/* A directory of that name is no conversation. */
static bool is_file(const char *path) {
  mn_file_info info;
  return path && mn_file_stat(path, &info) == MN_OK && info.is_regular;
}

static bool is_there(const mn_shelf *s, uint64_t owner, const char *name) {
  char *path = NULL;
  const bool there = find(s, owner, name) || (path_of(s, owner, name, &path) == MN_OK && is_file(path));
  free(path);
  return there;
}

/* Whose the one of that name is that `owner` sees: his own, or else everybody's; if there is none, it would be his. */
static uint64_t whose(const mn_shelf *s, uint64_t owner, const char *name) {
  return owner && !is_there(s, owner, name) && is_there(s, 0, name) ? 0 : owner;
}

/* Nobody else writes in it, but it is used with the lock let go: what it has in memory is not asked for then. */
static void make_busy(entry *e) { e->bytes = mn_conversation_bytes(e->c), e->busy = true; }

/* What its file was called, beside the entry, so that one can go without the other. */
static mn_status save(mn_shelf *s, entry *e) {
  char *path = NULL;
  mn_status status = path_of(s, e->owner, e->name, &path);
  make_busy(e);
  pthread_mutex_unlock(&s->lock);
  if (status == MN_OK) status = mn_dir_need_real(s->folder);
  if (status == MN_OK) status = mn_make_dirs(s->folder);
  if (status == MN_OK) status = mn_conversation_save(e->c, path, e->note);
  pthread_mutex_lock(&s->lock);
  e->busy = false;
  if (status == MN_OK) e->saved = e->wrote = true;
  pthread_cond_broadcast(&s->idle);
  free(path);
  return status;
}

/* In memory. What conversations share is one's alone when the others have gone, so it is asked for anew. */
static size_t bytes_of(const entry *e) { return e->c && !e->busy ? mn_conversation_bytes(e->c) : e->bytes; }

/* Each has some hundred mappings, and a process has 65,530 (vm.max_map_count). */
enum { MOST_LAID = 256 };

static bool is_idle(const entry *e) { return e->c && !e->taken && !e->busy; }

/* The least lately used of those without a name, where they are too many; else NULL. */
static entry *one_too_many(const mn_shelf *s) {
  entry *oldest = NULL;
  int n = 0;
  for (int i = 0; i < s->n; i++) {
    entry *e = s->at[i];
    if (e->name || !is_idle(e)) continue;
    n++;
    if (!oldest || e->used < oldest->used) oldest = e;
  }
  return n > MOST_LAID ? oldest : NULL;
}

static size_t idle_bytes(const mn_shelf *s, entry **oldest) {
  size_t bytes = 0;
  *oldest = NULL;
  for (int i = 0; i < s->n; i++) {
    entry *e = s->at[i];
    if (!is_idle(e)) continue;
    bytes += bytes_of(e);
    if (!*oldest || e->used < (*oldest)->used) *oldest = e;
  }
  return bytes;
}

/* The first failure; what cannot be put away stays. */
static mn_status make_room(mn_shelf *s) {
  for (entry *e; (e = one_too_many(s));) drop(s, e);
  for (entry *e; idle_bytes(s, &e) > s->config.bytes && e;) {
    const uint64_t used = e->used;
    if (!s->folder || !e->name) {
      drop(s, e);
      continue;
    }
    if (!e->saved) MN_TRY(save(s, e));
    if (!e->saved || e->taken || e->used != used) continue; /* taken meanwhile */
    mn_conversation_free(e->c);
    e->c = NULL;
  }
  return MN_OK;
}

static entry *use(mn_shelf *s, entry *e) {
  e->taken = true, e->saved = false, e->used = ++s->clock;
  return e;
}

/* ---- outside the lock ---- */
static mn_status check_name(const char *name) {
  const char *fault = *name ? mn_name_fault(name) : "is empty";
  if (!fault && *name == '.') fault = "begins with a dot";
  if (!fault && strchr(name, '@')) fault = "holds an '@'";
  return fault ? mn_fail(MN_ERR_CONFIG, "the name of a conversation, '%.80s', %s", name, fault) : MN_OK;
}

mn_status mn_shelf_new(const mn_shelf_config *config, mn_shelf **out) {
  *out = NULL;
  if (config->keeps && !config->folder) return mn_fail(MN_ERR_ARG, "conversations that are kept need a folder");
  mn_shelf *s = mn_calloc(1, sizeof *s);
  if (!s) return MN_ERR_MEMORY;
  s->config = *config;
  s->config.session.program = NULL;
  if (!s->config.bytes) s->config.bytes = (size_t)4 << 30;
  pthread_mutex_init(&s->lock, NULL);
  pthread_cond_init(&s->idle, NULL);
  const mn_session_config *how = &config->session;
  mn_status status = MN_OK;
  if (how->program) s->config.session.program = mn_program_share(how->program);
  else status = mn_session_program_new(config->model, config->params, how->compute, how->forget, &s->config.session.program);
  if (status == MN_OK && config->folder && !(s->folder = mn_strdup(config->folder))) status = MN_ERR_MEMORY;
  if (status == MN_OK && config->folder) status = mn_model_fingerprint(config->model, config->params, s->fingerprint);
  if (status == MN_OK && config->folder) s->config.session.fingerprint = s->fingerprint;
  if (status == MN_OK) *out = s;
  else mn_shelf_free(s);
  return status;
}

void mn_shelf_free(mn_shelf *s) {
  if (!s) return;
  while (s->n) {
    char *path = NULL;
    if (s->at[0]->name && s->at[0]->wrote && !s->config.keeps && path_of(s, s->at[0]->owner, s->at[0]->name, &path) == MN_OK)
      mn_file_remove(path);
    free(path);
    drop(s, s->at[0]);
  }
  mn_program_free(s->config.session.program);
  pthread_cond_destroy(&s->idle);
  pthread_mutex_destroy(&s->lock);
  free(s->at);
  free(s->folder);
  free(s);
}

/* From its file, or anew; *c NULL: there is no such file, and none is wanted. */
static mn_status open_one(mn_shelf *s, uint64_t owner, const char *name, bool make, mn_text *note, mn_conversation **c) {
  const mn_shelf_config *how = &s->config;
  char *path = NULL;
  *c = NULL;
  MN_TRY(path_of(s, owner, name, &path));
  mn_status status = MN_OK;
  if (path && mn_file_exists(path))
    status = mn_conversation_open(how->model, how->params, &how->session, &how->conversation, path, note, c);
  else if (make) status = mn_conversation_new(how->model, how->params, &how->session, &how->conversation, c);
  free(path);
  return status;
}

mn_status mn_shelf_take(mn_shelf *s, uint64_t owner, const char *name, bool make, mn_conversation **out) {
  *out = NULL;
  MN_TRY(check_name(name));
  pthread_mutex_lock(&s->lock);
  owner = whose(s, owner, name);
  entry *e = find_idle(s, owner, name);
  mn_status status = MN_OK;
  if (e && e->taken) {
    status = mn_fail(MN_ERR_CONFIG, "conversation %s is in use", name);
  } else if (e && e->c) {
    *out = use(s, e)->c;
    e->c = NULL;
  } else if (!e && !(e = add(s, owner, name))) {
    status = MN_ERR_MEMORY;
  } else {
    mn_text note = {0};
    use(s, e);
    pthread_mutex_unlock(&s->lock);
    status = open_one(s, owner, name, make, &note, out);
    pthread_mutex_lock(&s->lock);
    free(e->note);
    e->note = note.data; /* NULL: none */
    if (!*out) drop(s, e);
  }
  pthread_mutex_unlock(&s->lock);
  return status;
}

mn_status mn_shelf_give(mn_shelf *s, uint64_t owner, const char *name, mn_conversation *c, const char *note) {
  char *copy = note ? mn_strdup(note) : NULL;
  pthread_mutex_lock(&s->lock);
  entry *e = find(s, whose(s, owner, name), name);
  mn_status status = note && !copy ? MN_ERR_MEMORY : MN_OK;
  if (!e || !e->taken) {
    pthread_mutex_unlock(&s->lock);
    free(copy);
    return mn_fail(MN_ERR_ARG, "conversation %s was not taken, and is given back", name);
  }
  if (copy) free(e->note), e->note = copy;
  e->c = c, e->bytes = mn_conversation_bytes(c), e->used = ++s->clock, e->taken = false;
  if (status == MN_OK && s->config.keeps) status = save(s, e);
  const mn_status room = make_room(s);
  pthread_mutex_unlock(&s->lock);
  return status == MN_OK ? room : status;
}

mn_status mn_shelf_note(mn_shelf *s, uint64_t owner, const char *name, mn_text *out) {
  MN_TRY(check_name(name));
  pthread_mutex_lock(&s->lock);
  owner = whose(s, owner, name);
  const entry *e = find_idle(s, owner, name);
  if (e && e->note) mn_text_add(out, e->note);
  pthread_mutex_unlock(&s->lock);
  if (e || !s->folder) return mn_text_status(out);
  char *path = NULL;
  MN_TRY(path_of(s, owner, name, &path));
  const mn_status status = mn_file_exists(path) ? mn_conversation_note(path, out) : MN_OK;
  free(path);
  return status;
}

mn_status mn_shelf_tokens(mn_shelf *s, uint64_t owner, const char *name, mn_ids *out) {
  mn_status status = MN_OK;
  MN_TRY(check_name(name));
  pthread_mutex_lock(&s->lock);
  const entry *e = find_idle(s, whose(s, owner, name), name);
  const int64_t n = e && e->c ? mn_conversation_length(e->c) : 0;
  for (int64_t i = 0; i < n && status == MN_OK; i++) status = mn_ids_add(out, mn_conversation_tokens(e->c)[i]);
  pthread_mutex_unlock(&s->lock);
  return status;
}

bool mn_shelf_has(mn_shelf *s, uint64_t owner, const char *name, uint64_t *holder) {
  pthread_mutex_lock(&s->lock);
  *holder = whose(s, owner, name);
  const bool there = is_there(s, *holder, name);
  pthread_mutex_unlock(&s->lock);
  return there;
}

mn_status mn_shelf_fork(mn_shelf *s, uint64_t owner, const char *from, const char *to) {
  mn_conversation *c = NULL, *other = NULL, *fork = NULL;
  mn_text note = {0};
  MN_TRY(mn_shelf_take(s, owner, to, false, &other)); /* is it there? */
  if (other) {
    mn_status status = mn_shelf_give(s, owner, to, other, NULL);
    return status == MN_OK ? mn_fail(MN_ERR_CONFIG, "conversation %s is there already: choose another name", to) : status;
  }
  MN_TRY(mn_shelf_take(s, owner, from, false, &c));
  if (!c) return mn_fail(MN_ERR_CONFIG, "there is no conversation %s", from);
  mn_status status = mn_conversation_fork(c, &fork);
  mn_status last = mn_shelf_note(s, owner, from, &note);
  if (status == MN_OK) status = last;
  last = mn_shelf_give(s, owner, from, c, NULL);
  if (status == MN_OK) status = last;
  if (status == MN_OK) status = mn_shelf_take(s, owner, to, true, &other); /* its place */
  if (status == MN_OK) {
    mn_conversation_free(other);
    status = mn_shelf_give(s, owner, to, fork, note.data);
    fork = NULL;
  }
  mn_conversation_free(fork);
  mn_text_free(&note);
  return status;
}

mn_status mn_shelf_remove(mn_shelf *s, uint64_t owner, const char *name) {
  char *path = NULL;
  MN_TRY(check_name(name));
  pthread_mutex_lock(&s->lock);
  owner = whose(s, owner, name);
  entry *e = find_idle(s, owner, name);
  mn_status status = e && e->taken ? mn_fail(MN_ERR_CONFIG, "conversation %s is in use", name) : path_of(s, owner, name, &path);
  if (status == MN_OK && path) status = mn_file_remove(path);
  if (status == MN_OK && e) drop(s, e);
  pthread_mutex_unlock(&s->lock);
  free(path);
  return status;
}

/* ---- beginnings that many share ---- */
/* How far one can stand at these tokens: all but the last, whose logits somebody wants. */
static int64_t shared(const entry *e, const int32_t *tokens, int64_t n) {
  return mn_conversation_snapshot_before(e->c, mn_conversation_common(e->c, tokens, n - 1));
}

mn_status mn_shelf_begin(mn_shelf *s, uint64_t owner, const int32_t *tokens, int64_t n, int64_t least, mn_conversation **out) {
  entry *best = NULL;
  int64_t known = least > 0 ? least - 1 : 0, kept;
  mn_status status = MN_OK;
  *out = NULL;
  pthread_mutex_lock(&s->lock);
  for (int i = 0; i < s->n && n > 0; i++) {
    entry *e = s->at[i];
    if (!is_idle(e) || (e->owner != owner && !(e->name && !e->owner))) continue;
    const int64_t here = shared(e, tokens, n);
    if (here > known) best = e, known = here;
  }
  if (best && !best->name && known == mn_conversation_length(best->c)) {
    *out = best->c;
    best->c = NULL;
    drop(s, best);
  } else if (best) {
    make_busy(best);
    best->used = ++s->clock;
    pthread_mutex_unlock(&s->lock);
    status = mn_conversation_fork(best->c, out);
    if (status == MN_OK) status = mn_conversation_prepare(*out, tokens, n, &kept);
    pthread_mutex_lock(&s->lock);
    best->busy = false;
    pthread_cond_broadcast(&s->idle);
  }
  pthread_mutex_unlock(&s->lock);
  if (status != MN_OK) mn_conversation_free(*out), *out = NULL;
  return status;
}

mn_status mn_shelf_begin_or_new(mn_shelf *s, uint64_t owner, const int32_t *tokens, int64_t n, int64_t least, mn_conversation **out) {
  const mn_shelf_config *how = &s->config;
  MN_TRY(mn_shelf_begin(s, owner, tokens, n, least, out));
  return *out ? MN_OK : mn_conversation_new(how->model, how->params, &how->session, &how->conversation, out);
}

/* One of the owner's without a name that can stand where c does. */
static entry *same_place(const mn_shelf *s, uint64_t owner, const mn_conversation *c) {
  const int64_t n = mn_conversation_length(c);
  for (int i = 0; i < s->n; i++) {
    entry *e = s->at[i];
    if (!e->name && e->owner == owner && is_idle(e) && mn_conversation_common(e->c, mn_conversation_tokens(c), n) == n &&
        mn_conversation_snapshot_before(e->c, n) == n)
      return e;
  }
  return NULL;
}

void mn_shelf_lay(mn_shelf *s, uint64_t owner, mn_conversation *c) {
  pthread_mutex_lock(&s->lock);
  entry *e = same_place(s, owner, c);
  if (e) e->used = ++s->clock, mn_conversation_free(c);
  else if ((e = add(s, owner, NULL))) e->c = c, e->bytes = mn_conversation_bytes(c), e->used = ++s->clock;
  else mn_conversation_free(c);
  if (make_room(s) != MN_OK) mn_log_write(MN_LOG_WARN, "%s", mn_message());
  pthread_mutex_unlock(&s->lock);
}

/* ---- listing ---- */
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

/* Names of files that are conversations' lose their ending; others become "". */
static size_t list_files(const mn_shelf *s, char ***names, mn_status *status) {
  mn_path_kind kind = MN_PATH_NONE;
  size_t n = 0;
  *names = NULL;
  *status = s->folder ? mn_path_look(s->folder, &kind) : MN_OK;
  if (*status == MN_OK && kind == MN_PATH_DIR) *status = mn_dir_list(s->folder, names, &n);
  for (size_t i = 0; *names && i < n; i++) {
    const size_t length = strlen((*names)[i]), at = length > sizeof ending - 1 ? length - (sizeof ending - 1) : 0;
    char *path = at && (*names)[i][0] != '.' && !strcmp((*names)[i] + at, ending) ? mn_path_join(s->folder, (*names)[i]) : NULL;
    (*names)[i][is_file(path) ? at : 0] = 0;
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
  if (path_of(s, owner, name, &path) == MN_OK) mn_file_stat(path, &info);
  free(path);
  return info.exists ? (size_t)info.size : 0;
}

mn_status mn_shelf_each(mn_shelf *s, uint64_t owner, void (*tell)(void *ctx, const mn_shelf_entry *e), void *ctx) {
  char **names;
  mn_status status;
  const size_t files = list_files(s, &names, &status);
  if (status != MN_OK) return status;
  pthread_mutex_lock(&s->lock);
  listed *all = mn_calloc((size_t)s->n + files + 1, sizeof *all);
  size_t n = 0;
  for (int i = 0; all && i < s->n; i++) {
    const entry *e = s->at[i];
    if (!e->name || (e->owner && e->owner != owner)) continue;
    const mn_shelf_entry told = {e->name, e->taken, e->c != NULL || e->taken, e->c ? mn_conversation_length(e->c) : -1,
                                 e->c || e->taken ? bytes_of(e) : file_bytes(s, e->owner, e->name)};
    all[n++] = (listed){told, e->owner};
  }
  for (size_t i = 0; all && i < files; i++) {
    const uint64_t holder = cut_owner(names[i]);
    if (!*names[i] || (holder && holder != owner) || find(s, holder, names[i])) continue;
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
  for (int i = 0; i < s->n; i++) bytes += s->at[i]->c || s->at[i]->taken ? bytes_of(s->at[i]) : 0;
  pthread_mutex_unlock(&s->lock);
  return bytes;
}
