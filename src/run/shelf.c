/* shelf.c - see shelf.h. One lock for the list; files are read and written outside of it, while their conversation is marked as busy. The file of
 * an owner's conversation is NAME@OWNER.safetensors, 16 digits; no name has an '@'.
 *
 * Files that are kept are other processes' too. So a conversation is claimed (base/claim.h) when it is taken, until it is saved, and what is in memory
 * is dropped for its file where that is another one by then. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/dir.h"
#include "run/shelf_internal.h"

/* ---- the list: all below this line and above the next is called with the lock ---- */
mn_shelf_one *mn_shelf_find(const mn_shelf *s, uint64_t owner, const char *name) {
  for (int i = 0; i < s->n; i++)
    if (s->at[i]->name && s->at[i]->owner == owner && !strcmp(s->at[i]->name, name)) return s->at[i];
  return NULL;
}

/* The same when nobody is busy with it. */
static mn_shelf_one *find_idle(mn_shelf *s, uint64_t owner, const char *name) {
  mn_shelf_one *e;
  while ((e = mn_shelf_find(s, owner, name)) && e->busy) pthread_cond_wait(&s->idle, &s->lock);
  return e;
}

static mn_shelf_one *add(mn_shelf *s, uint64_t owner, const char *name) { /* NULL: none */
  if (s->n == s->room) {
    const int room = s->room ? 2 * s->room : 16;
    mn_shelf_one **more = mn_realloc(s->at, (size_t)room * sizeof(mn_shelf_one *));
    if (!more) return NULL;
    s->at = more, s->room = room;
  }
  mn_shelf_one *e = mn_calloc(1, sizeof *e);
  if (e && name && !(e->name = mn_strdup(name))) free(e), e = NULL;
  if (e) e->owner = owner, s->at[s->n++] = e;
  return e;
}

void mn_shelf_drop(mn_shelf *s, mn_shelf_one *e) {
  for (int i = 0; i < s->n; i++)
    if (s->at[i] == e) s->at[i] = s->at[--s->n];
  mn_conversation_free(e->c);
  mn_claim_leave(e->claim);
  free(e->name);
  free(e->note);
  free(e);
}

mn_status mn_shelf_path(const mn_shelf *s, uint64_t owner, const char *name, char **out) {
  char *file = owner ? mn_format("%s@%016" PRIx64 "%s", name, owner, mn_shelf_ending) : mn_format("%s%s", name, mn_shelf_ending);
  *out = file && s->folder ? mn_path_join(s->folder, file) : NULL;
  free(file);
  return *out || !s->folder ? MN_OK : MN_ERR_MEMORY;
}

bool mn_shelf_is_file(const char *path) {
  mn_file_info info;
  return path && mn_file_stat(path, &info) == MN_OK && info.is_regular;
}

static bool is_there(const mn_shelf *s, uint64_t owner, const char *name) {
  char *path = NULL;
  const bool there = mn_shelf_find(s, owner, name) || (mn_shelf_path(s, owner, name, &path) == MN_OK && mn_shelf_is_file(path));
  free(path);
  return there;
}

/* Whose the one of that name is that `owner` sees: his own, or else everybody's; if there is none, it would be his. */
static uint64_t whose(const mn_shelf *s, uint64_t owner, const char *name) {
  return owner && !is_there(s, owner, name) && is_there(s, 0, name) ? 0 : owner;
}

/* Nobody else writes in it, but it is used with the lock let go: what it has in memory is not asked for then. */
static void make_busy(mn_shelf_one *e) { e->bytes = mn_conversation_bytes(e->c), e->busy = true; }

bool mn_shelf_outdated(const mn_shelf *s, const mn_shelf_one *e) {
  char *path = NULL;
  if (!s->config.keeps || !e->name || e->taken || e->busy || !e->saved) return false;
  const bool changed = mn_shelf_path(s, e->owner, e->name, &path) == MN_OK && path && mn_file_changed(path, &e->stamp);
  free(path);
  return changed;
}

/* As find_idle; what is outdated is in its file, and not here. */
static mn_shelf_one *find_current(mn_shelf *s, uint64_t owner, const char *name) {
  mn_shelf_one *e = find_idle(s, owner, name);
  if (!e || !mn_shelf_outdated(s, e)) return e;
  mn_shelf_drop(s, e);
  return NULL;
}

/* What its file was called, beside the entry, so that one can go without the other. */
static mn_status save(mn_shelf *s, mn_shelf_one *e) {
  char *path = NULL;
  mn_status status = mn_shelf_path(s, e->owner, e->name, &path);
  make_busy(e);
  pthread_mutex_unlock(&s->lock);
  if (status == MN_OK) status = mn_dir_need_real(s->folder);
  if (status == MN_OK) status = mn_make_dirs(s->folder);
  if (status == MN_OK) status = mn_conversation_save_over(e->c, path, e->note, s->config.keeps ? &e->stamp : NULL);
  pthread_mutex_lock(&s->lock);
  e->busy = false;
  if (status == MN_OK) {
    e->saved = e->wrote = true;
    mn_claim_leave(e->claim);
    e->claim = NULL;
  }
  pthread_cond_broadcast(&s->idle);
  free(path);
  return status;
}

/* In memory. What conversations share is one's alone when the others have gone, so it is asked for anew. */
size_t mn_shelf_bytes_of(const mn_shelf_one *e) { return e->c && !e->busy ? mn_conversation_bytes(e->c) : e->bytes; }

/* Each has some hundred mappings, and a process has 65,530 (vm.max_map_count). */
enum { MOST_LAID = 256 };

static bool is_idle(const mn_shelf_one *e) { return e->c && !e->taken && !e->busy; }

/* The least lately used of those without a name, where they are too many; else NULL. */
static mn_shelf_one *one_too_many(const mn_shelf *s) {
  mn_shelf_one *oldest = NULL;
  int n = 0;
  for (int i = 0; i < s->n; i++) {
    mn_shelf_one *e = s->at[i];
    if (e->name || !is_idle(e)) continue;
    n++;
    if (!oldest || e->used < oldest->used) oldest = e;
  }
  return n > MOST_LAID ? oldest : NULL;
}

static size_t idle_bytes(const mn_shelf *s, mn_shelf_one **oldest) {
  size_t bytes = 0;
  *oldest = NULL;
  for (int i = 0; i < s->n; i++) {
    mn_shelf_one *e = s->at[i];
    if (!is_idle(e)) continue;
    bytes += mn_shelf_bytes_of(e);
    if (!*oldest || e->used < (*oldest)->used) *oldest = e;
  }
  return bytes;
}

/* The first failure; what cannot be put away stays. */
static mn_status make_room(mn_shelf *s) {
  for (mn_shelf_one *e; (e = one_too_many(s));) mn_shelf_drop(s, e);
  for (mn_shelf_one *e; idle_bytes(s, &e) > s->config.bytes && e;) {
    const uint64_t used = e->used;
    if (!s->folder || !e->name) {
      mn_shelf_drop(s, e);
      continue;
    }
    if (!e->saved) MN_TRY(save(s, e));
    if (!e->saved || e->taken || e->used != used) continue; /* taken meanwhile */
    mn_conversation_free(e->c);
    e->c = NULL;
  }
  return MN_OK;
}

static mn_shelf_one *use(mn_shelf *s, mn_shelf_one *e) {
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
    if (s->at[0]->name && s->at[0]->wrote && !s->config.keeps && mn_shelf_path(s, s->at[0]->owner, s->at[0]->name, &path) == MN_OK)
      mn_file_remove(path);
    free(path);
    mn_shelf_drop(s, s->at[0]);
  }
  mn_program_free(s->config.session.program);
  pthread_cond_destroy(&s->idle);
  pthread_mutex_destroy(&s->lock);
  free(s->at);
  free(s->folder);
  free(s);
}

static mn_status in_use(const char *name) { return mn_fail(MN_ERR_CONFIG, "session %s is in use: it is answering another request", name); }

typedef enum wanted { IF_THERE, IN_ANY_CASE, NEW_ALONE } wanted;

/* From its file, or anew; *c NULL: there is no such file, and none is wanted. */
static mn_status open_one(mn_shelf *s, const mn_shelf_one *e, const char *path, wanted wish, mn_text *note, mn_conversation **c) {
  const mn_shelf_config *how = &s->config;
  const bool there = path && mn_file_exists(path);
  *c = NULL;
  if (there && wish == NEW_ALONE) return mn_fail(MN_ERR_CONFIG, "session %s is there already: choose another name", e->name);
  if (there) return mn_conversation_open(how->model, how->params, &how->session, &how->conversation, path, note, c);
  return wish == IF_THERE ? MN_OK : mn_conversation_new(how->model, how->params, &how->session, &how->conversation, c);
}

/* Keeps other processes away from its file. */
static mn_status claim(mn_shelf *s, mn_shelf_one *e, const char *path) {
  if (!s->config.keeps || e->claim) return MN_OK;
  mn_status status = mn_dir_need_real(s->folder);
  if (status == MN_OK) status = mn_make_dirs(s->folder);
  if (status == MN_OK) status = mn_claim_take(path, &e->claim);
  if (status == MN_ERR_CONFIG) return mn_fail(status, "session %s is open in another process", e->name);
  return status == MN_ERR_IO ? MN_OK : status; /* nothing can be written there, then, and saving says so */
}

/* Outside the lock; *held: what is in memory of it, or NULL. It is freed where the file is newer. */
static mn_status bring(mn_shelf *s, mn_shelf_one *e, bool saved, wanted wish, mn_text *note, mn_conversation **held) {
  char *path = NULL;
  mn_conversation *c = NULL;
  MN_TRY(mn_shelf_path(s, e->owner, e->name, &path));
  mn_status status = MN_OK;
  if (*held || wish != IF_THERE || (path && mn_file_exists(path))) status = claim(s, e, path);
  const mn_file_stamp is = s->config.keeps ? mn_file_stamp_of(path) : (mn_file_stamp){0};
  if (status == MN_OK && (!*held || (saved && s->config.keeps && mn_file_changed(path, &e->stamp)))) {
    status = open_one(s, e, path, wish, note, &c);
    if (status == MN_OK) mn_conversation_free(*held), *held = c, e->stamp = is;
  }
  free(path);
  return status;
}

/* It could not be taken, and is as it was. */
static void back_in_place(mn_shelf_one *e, mn_conversation *c, bool saved) {
  e->c = c, e->taken = false, e->saved = saved;
  if (!saved) return;
  mn_claim_leave(e->claim);
  e->claim = NULL;
}

static mn_status take(mn_shelf *s, uint64_t owner, const char *name, wanted wish, mn_conversation **out) {
  *out = NULL;
  MN_TRY(check_name(name));
  pthread_mutex_lock(&s->lock);
  owner = whose(s, owner, name);
  mn_shelf_one *e = find_idle(s, owner, name);
  mn_status status = MN_OK;
  if (e && wish == NEW_ALONE) {
    status = mn_fail(MN_ERR_CONFIG, "session %s is there already: choose another name", name);
  } else if (e && e->taken) {
    status = in_use(name);
  } else if (!e && !(e = add(s, owner, name))) {
    status = MN_ERR_MEMORY;
  } else {
    mn_text note = {0};
    mn_conversation *c = e->c;
    const mn_conversation *was = c;
    const bool saved = e->saved;
    e->c = NULL;
    use(s, e);
    pthread_mutex_unlock(&s->lock);
    status = bring(s, e, saved, wish, &note, &c);
    pthread_mutex_lock(&s->lock);
    if (status == MN_OK && c != was) free(e->note), e->note = note.data; /* NULL: none */
    else mn_text_free(&note);
    if (status == MN_OK) *out = c;
    else back_in_place(e, c, saved);
    if (!c) mn_shelf_drop(s, e);
  }
  pthread_mutex_unlock(&s->lock);
  return status;
}

mn_status mn_shelf_take(mn_shelf *s, uint64_t owner, const char *name, bool make, mn_conversation **out) {
  return take(s, owner, name, make ? IN_ANY_CASE : IF_THERE, out);
}

mn_status mn_shelf_give(mn_shelf *s, uint64_t owner, const char *name, mn_conversation *c, const char *note) {
  char *copy = note ? mn_strdup(note) : NULL;
  pthread_mutex_lock(&s->lock);
  mn_shelf_one *e = mn_shelf_find(s, whose(s, owner, name), name);
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
  const mn_shelf_one *e = find_current(s, owner, name);
  if (e && e->note) mn_text_add(out, e->note);
  pthread_mutex_unlock(&s->lock);
  if (e || !s->folder) return mn_text_status(out);
  char *path = NULL;
  MN_TRY(mn_shelf_path(s, owner, name, &path));
  const mn_status status = mn_file_exists(path) ? mn_conversation_note(path, out) : MN_OK;
  free(path);
  return status;
}

mn_status mn_shelf_tokens(mn_shelf *s, uint64_t owner, const char *name, mn_ids *out) {
  mn_status status = MN_OK;
  MN_TRY(check_name(name));
  pthread_mutex_lock(&s->lock);
  const mn_shelf_one *e = find_current(s, whose(s, owner, name), name);
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

bool mn_shelf_is_elsewhere(mn_shelf *s, uint64_t owner, const char *name) {
  char *path = NULL, *said = mn_strdup(mn_message()); /* why it could not be taken */
  mn_claim *claim = NULL;
  pthread_mutex_lock(&s->lock);
  const uint64_t holder = whose(s, owner, name);
  const mn_shelf_one *e = find_idle(s, holder, name);
  mn_status status = s->config.keeps && !(e && e->claim) ? mn_shelf_path(s, holder, name, &path) : MN_ERR_ARG;
  if (status == MN_OK) status = mn_claim_take(path, &claim);
  mn_claim_leave(claim);
  pthread_mutex_unlock(&s->lock);
  if (status != MN_OK && said) mn_fail(status, "%s", said);
  free(path);
  free(said);
  return status == MN_ERR_CONFIG;
}

/* It was taken, and there is none after all. */
static void give_up(mn_shelf *s, uint64_t owner, const char *name, mn_conversation *c) {
  pthread_mutex_lock(&s->lock);
  mn_shelf_one *e = mn_shelf_find(s, whose(s, owner, name), name);
  if (e) mn_shelf_drop(s, e);
  pthread_mutex_unlock(&s->lock);
  mn_conversation_free(c);
}

static mn_status copy_of(mn_shelf *s, uint64_t owner, const char *from, mn_text *note, mn_conversation **fork) {
  mn_conversation *c;
  MN_TRY(mn_shelf_take(s, owner, from, false, &c));
  if (!c) return mn_fail(MN_ERR_CONFIG, "there is no conversation %s", from);
  mn_status status = mn_conversation_fork(c, fork);
  mn_status last = mn_shelf_note(s, owner, from, note);
  if (status == MN_OK) status = last;
  last = mn_shelf_give(s, owner, from, c, NULL);
  return status == MN_OK ? last : status;
}

mn_status mn_shelf_fork(mn_shelf *s, uint64_t owner, const char *from, const char *to) {
  mn_conversation *place, *fork = NULL;
  mn_text note = {0};
  uint64_t holder;
  if (!mn_shelf_has(s, owner, from, &holder)) return mn_fail(MN_ERR_CONFIG, "there is no conversation %s", from);
  MN_TRY(take(s, owner, to, NEW_ALONE, &place));
  mn_status status = copy_of(s, owner, from, &note, &fork);
  if (status != MN_OK) {
    give_up(s, owner, to, place);
    mn_conversation_free(fork);
  } else {
    mn_conversation_free(place);
    status = mn_shelf_give(s, owner, to, fork, note.data);
  }
  mn_text_free(&note);
  return status;
}

mn_status mn_shelf_remove(mn_shelf *s, uint64_t owner, const char *name) {
  char *path = NULL;
  mn_claim *other = NULL;
  MN_TRY(check_name(name));
  pthread_mutex_lock(&s->lock);
  owner = whose(s, owner, name);
  mn_shelf_one *e = find_idle(s, owner, name);
  mn_status status = e && e->taken ? in_use(name) : mn_shelf_path(s, owner, name, &path);
  const bool there = status == MN_OK && path && mn_file_exists(path);
  if (there && s->config.keeps && !(e && e->claim)) status = mn_claim_take(path, &other);
  if (status == MN_ERR_CONFIG && there) mn_fail(status, "session %s is open in another process", name);
  if (status == MN_OK && path) status = mn_file_remove(path);
  if (status == MN_OK && e) mn_shelf_drop(s, e);
  mn_claim_leave(other);
  pthread_mutex_unlock(&s->lock);
  free(path);
  return status;
}

/* ---- the end ---- */
/* Under another name where somebody else has written its file. */
static mn_status keep_one(mn_shelf *s, mn_shelf_one *e) {
  enum { MOST = 1000 };
  char *path = NULL;
  mn_status status = save(s, e);
  if (status == MN_OK) return MN_OK;
  MN_TRY(mn_shelf_path(s, e->owner, e->name, &path));
  for (int n = 2; n < MOST && path && mn_file_changed(path, &e->stamp); n++) {
    char *name = mn_format("%s-%d", e->name, n), *as = NULL;
    mn_file_stamp none = {0};
    if (name && mn_shelf_path(s, e->owner, name, &as) == MN_OK && as) status = mn_conversation_save_over(e->c, as, e->note, &none);
    if (status == MN_OK) e->saved = true;
    if (status == MN_OK)
      mn_log_write(MN_LOG_WARN, "session %s: another program has written its file; what came here is kept as %s", e->name, name);
    const bool taken = as && mn_file_exists(as);
    free(name);
    free(as);
    if (status == MN_OK || !taken) break;
  }
  free(path);
  return status;
}

mn_status mn_shelf_keep(mn_shelf *s) {
  mn_status first = MN_OK;
  pthread_mutex_lock(&s->lock);
  for (int i = 0; s->config.keeps && i < s->n; i++) {
    mn_shelf_one *e = s->at[i];
    if (!e->name || !is_idle(e) || e->saved) continue;
    const mn_status status = keep_one(s, e);
    if (status == MN_OK) continue;
    mn_log_write(MN_LOG_ERROR, "session %s is lost: %s", e->name, mn_message());
    if (first == MN_OK) first = status;
  }
  pthread_mutex_unlock(&s->lock);
  return first;
}

/* ---- beginnings that many share ---- */
/* How far one can stand at these tokens: all but the last, whose logits somebody wants. */
static int64_t shared(const mn_shelf_one *e, const int32_t *tokens, int64_t n) {
  return mn_conversation_snapshot_before(e->c, mn_conversation_common(e->c, tokens, n - 1));
}

mn_status mn_shelf_begin(mn_shelf *s, uint64_t owner, const int32_t *tokens, int64_t n, int64_t least, mn_conversation **out) {
  mn_shelf_one *best = NULL;
  int64_t known = least > 0 ? least - 1 : 0, kept;
  mn_status status = MN_OK;
  *out = NULL;
  pthread_mutex_lock(&s->lock);
  for (int i = 0; i < s->n && n > 0; i++) {
    mn_shelf_one *e = s->at[i];
    if (!is_idle(e) || (e->owner != owner && !(e->name && !e->owner))) continue;
    const int64_t here = shared(e, tokens, n);
    if (here > known) best = e, known = here;
  }
  if (best && !best->name && known == mn_conversation_length(best->c)) {
    *out = best->c;
    best->c = NULL;
    mn_shelf_drop(s, best);
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
static mn_shelf_one *same_place(const mn_shelf *s, uint64_t owner, const mn_conversation *c) {
  const int64_t n = mn_conversation_length(c);
  for (int i = 0; i < s->n; i++) {
    mn_shelf_one *e = s->at[i];
    if (!e->name && e->owner == owner && is_idle(e) && mn_conversation_common(e->c, mn_conversation_tokens(c), n) == n &&
        mn_conversation_snapshot_before(e->c, n) == n)
      return e;
  }
  return NULL;
}

void mn_shelf_lay(mn_shelf *s, uint64_t owner, mn_conversation *c) {
  pthread_mutex_lock(&s->lock);
  mn_shelf_one *e = same_place(s, owner, c);
  if (e) e->used = ++s->clock, mn_conversation_free(c);
  else if ((e = add(s, owner, NULL))) e->c = c, e->bytes = mn_conversation_bytes(c), e->used = ++s->clock;
  else mn_conversation_free(c);
  if (make_room(s) != MN_OK) mn_log_write(MN_LOG_WARN, "%s", mn_message());
  pthread_mutex_unlock(&s->lock);
}
