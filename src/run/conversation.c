/* conversation.c - see conversation.h. */
#include "run/conversation.h"

#include <stdlib.h>
#include <string.h>

#include "run/conversation_internal.h"

static mn_states *states_of(const mn_conversation *c) { return c->session->states; }
static mn_backend *backend_of(const mn_conversation *c) { return c->session->params->backend; }

/* ---- snapshots ---- */
mn_status mn_snapshot_new(const mn_conversation *c, int64_t position, bool mark, mn_snapshot **out) {
  mn_backend *b = backend_of(c);
  mn_snapshot *s = mn_calloc(1, sizeof *s);
  *out = NULL;
  if (!s) return MN_ERR_MEMORY;
  s->backend = b, s->position = position, s->mark = mark, s->bytes = c->bytes;
  atomic_init(&s->holders, 1);
  s->block = b->alloc(b, s->bytes);
  if (s->block) *out = s;
  else free(s);
  return *out ? MN_OK : mn_context(MN_ERR_MEMORY, "a snapshot of a conversation");
}

void mn_snapshot_leave(mn_snapshot *s) {
  if (!s || atomic_fetch_sub(&s->holders, 1) > 1) return;
  s->backend->free(s->backend, s->block, s->bytes);
  free(s);
}

/* The states that are kept, to the snapshot or from it. */
static mn_status move(const mn_conversation *c, const mn_snapshot *s, bool back) {
  mn_states *states = states_of(c);
  size_t at = 0;
  for (int i = 0; i < mn_states_count(states); i++) {
    if (c->cut[i]) continue;
    const size_t n = mn_states_bytes(states, i);
    void *here = (char *)s->block + at, *there = mn_states_data(states, i);
    MN_TRY(mn_backend_transfer(s->backend, back ? there : here, s->backend, back ? here : there, n));
    at += mn_align(n, 64);
  }
  return back ? mn_states_look(states) : MN_OK;
}

/* Which one is missed least: the places beside it are near each other, and long ago. Not the last two, and ends of turns after all
 * others. */
static int least(const mn_conversation *c) {
  int found = -1;
  double lowest = 0;
  for (int i = 0; i + 2 < c->n; i++) {
    const int64_t before = i ? c->at[i - 1]->position : 0, here = c->at[c->n - 1]->position;
    double worth = (double)(c->at[i + 1]->position - before) / (double)(here - c->at[i]->position + 1);
    if (c->at[i]->mark) worth += 1e12;
    if (found < 0 || worth < lowest) found = i, lowest = worth;
  }
  return found;
}

static void thin_out(mn_conversation *c) {
  while (c->n > 2 && (c->n > c->config.snapshots || (size_t)c->n * c->bytes > c->config.bytes)) {
    const int i = least(c);
    mn_snapshot_leave(c->at[i]);
    memmove(c->at + i, c->at + i + 1, (size_t)(c->n - i - 1) * sizeof *c->at);
    c->n--;
  }
}

mn_status mn_conversation_keep(mn_conversation *c, mn_snapshot *s) {
  if (c->n == c->room) {
    const int room = c->room ? 2 * c->room : 8;
    mn_snapshot **more = mn_realloc(c->at, (size_t)room * sizeof(mn_snapshot *));
    if (!more) mn_snapshot_leave(s);
    if (!more) return MN_ERR_MEMORY;
    c->at = more, c->room = room;
  }
  c->at[c->n++] = s;
  thin_out(c);
  return MN_OK;
}

static mn_status snapshot(mn_conversation *c, bool mark) {
  const int64_t here = mn_conversation_length(c);
  mn_snapshot *s;
  if (c->cuts || !here) return MN_OK;
  if (c->n && c->at[c->n - 1]->position == here) {
    if (!mark || c->at[c->n - 1]->mark) return MN_OK;
    mn_snapshot_leave(c->at[--c->n]); /* others may share it as it is */
  }
  MN_TRY(mn_snapshot_new(c, here, mark, &s));
  mn_status status = move(c, s, false);
  if (status == MN_OK) return mn_conversation_keep(c, s);
  mn_snapshot_leave(s);
  return status;
}

mn_status mn_conversation_mark(mn_conversation *c) { return snapshot(c, true); }

/* ---- making and ending ---- */
static mn_status open_conversation(mn_conversation *c) {
  mn_states *states = states_of(c);
  const int n = mn_states_count(states);
  c->cut = mn_calloc((size_t)n, sizeof *c->cut);
  if (!c->cut) return MN_ERR_MEMORY;
  c->cuts = true;
  for (int i = 0; i < n; i++) {
    c->cut[i] = mn_states_info(states, i)->appended && !c->session->config.forget; /* else the oldest rows are overwritten */
    if (!c->cut[i]) c->bytes += mn_align(mn_states_bytes(states, i), 64);
    c->cuts = c->cuts && (c->cut[i] || i == 0);
  }
  return MN_OK;
}

static mn_status check_model(const mn_model *m) {
  if (mn_model_input(m, "turn_ends"))
    return mn_fail(MN_ERR_CONFIG, "a model of type %s answers in turns and keeps no text: a conversation cannot go back in it",
                   m->def->name);
  if (m->def->kept)
    return mn_fail(MN_ERR_CONFIG, "a model of type %s speaks about a %s, not in a conversation", m->def->name, m->def->kept);
  if (mn_session_reads_frames(m)) return mn_fail(MN_ERR_CONFIG, "a model of type %s reads frames of numbers, not tokens", m->def->name);
  return MN_OK;
}

/* All but the session. */
static mn_conversation *blank(const mn_conversation_config *config) {
  mn_conversation *c = mn_calloc(1, sizeof *c);
  if (!c) return NULL;
  if (config) c->config = *config;
  if (!c->config.every) c->config.every = 256;
  if (!c->config.snapshots) c->config.snapshots = 32;
  if (!c->config.bytes) c->config.bytes = (size_t)512 << 20;
  return c;
}

mn_status mn_conversation_new(const mn_model *model, const mn_params *params, const mn_session_config *session,
                              const mn_conversation_config *config, mn_conversation **out) {
  *out = NULL;
  mn_session_config how = session ? *session : (mn_session_config){0};
  if (how.batch > 1) return mn_fail(MN_ERR_ARG, "a conversation is one stream, not %lld", (long long)how.batch);
  if (config && (config->every < -1 || config->snapshots < 0))
    return mn_fail(MN_ERR_ARG,
                   "a conversation takes a snapshot after every n tokens, or -1 for never, and keeps 0 (the usual number) or more");
  MN_TRY(check_model(model));
  mn_conversation *c = blank(config);
  if (!c) return MN_ERR_MEMORY;
  mn_status status = mn_session_new(model, params, &how, &c->session);
  if (status == MN_OK) status = open_conversation(c);
  if (status == MN_OK) *out = c;
  else mn_conversation_free(c);
  return status;
}

static void forget_snapshots(mn_conversation *c, int from) {
  while (c->n > from) mn_snapshot_leave(c->at[--c->n]);
}

void mn_conversation_free(mn_conversation *c) {
  if (!c) return;
  forget_snapshots(c, 0);
  free(c->at);
  free(c->cut);
  mn_ids_free(&c->tokens);
  mn_session_free(c->session);
  free(c);
}

static mn_status add_tokens(mn_conversation *c, const int32_t *tokens, int64_t n) {
  for (int64_t i = 0; i < n; i++) MN_TRY(mn_ids_add(&c->tokens, tokens[i]));
  return MN_OK;
}

mn_status mn_conversation_fork(const mn_conversation *c, mn_conversation **out) {
  *out = NULL;
  mn_conversation *to = blank(&c->config);
  if (!to) return MN_ERR_MEMORY;
  mn_status status = mn_session_fork(c->session, &to->session);
  if (status == MN_OK) status = open_conversation(to);
  if (status == MN_OK) status = add_tokens(to, c->tokens.data, (int64_t)c->tokens.len);
  for (int i = 0; i < c->n && status == MN_OK; i++) {
    atomic_fetch_add(&c->at[i]->holders, 1);
    status = mn_conversation_keep(to, c->at[i]);
  }
  if (status == MN_OK) *out = to;
  else mn_conversation_free(to);
  return status;
}

/* ---- what it has read ---- */
int64_t mn_conversation_length(const mn_conversation *c) { return (int64_t)c->tokens.len; }
const int32_t *mn_conversation_tokens(const mn_conversation *c) { return c->tokens.data; }
mn_session *mn_conversation_session(const mn_conversation *c) { return c->session; }
int64_t mn_conversation_snapshots(const mn_conversation *c) { return c->n; }
size_t mn_conversation_bytes(const mn_conversation *c) { return mn_session_held_bytes(c->session) + (size_t)c->n * c->bytes; }
uint64_t mn_conversation_fed(const mn_conversation *c) { return c->fed; }

int64_t mn_conversation_common(const mn_conversation *c, const int32_t *tokens, int64_t n) {
  int64_t same = 0;
  const int64_t most = n < mn_conversation_length(c) ? n : mn_conversation_length(c);
  while (same < most && tokens[same] == c->tokens.data[same]) same++;
  return same;
}

/* The last snapshot at or before a place; -1: the beginning. */
static int last_before(const mn_conversation *c, int64_t length) {
  int i = c->n - 1;
  while (i >= 0 && c->at[i]->position > length) i--;
  return i;
}

int64_t mn_conversation_snapshot_before(const mn_conversation *c, int64_t length) {
  const int64_t here = mn_conversation_length(c);
  if (length >= here) return here;
  if (c->cuts) return length;
  const int i = last_before(c, length);
  return i < 0 ? 0 : c->at[i]->position;
}

/* ---- going on ---- */
static mn_status feed(mn_conversation *c, const int32_t *tokens, int64_t n, const float **logits) {
  const int64_t before = mn_session_position(c->session);
  mn_status status = mn_session_feed(c->session, tokens, n, logits);
  const int64_t done = mn_session_position(c->session) - before; /* whole segments, where it failed between them */
  c->fed += (uint64_t)done;
  const mn_status kept = add_tokens(c, tokens, done);
  return status == MN_OK ? kept : status;
}

mn_status mn_conversation_feed(mn_conversation *c, const int32_t *tokens, int64_t n, const float **logits) {
  if (n < 1) return mn_fail(MN_ERR_ARG, "a conversation is fed at least one token");
  MN_TRY(mn_session_fits(c->session, n)); /* before any of it is fed */
  const int64_t every = c->cuts ? -1 : c->config.every;
  for (int64_t at = 0; at < n;) {
    int64_t piece = n - at;
    if (every > 0 && piece > every - mn_conversation_length(c) % every) piece = every - mn_conversation_length(c) % every;
    MN_TRY(feed(c, tokens + at, piece, logits));
    at += piece;
    if (every > 0 && mn_conversation_length(c) % every == 0) MN_TRY(snapshot(c, false));
  }
  return MN_OK;
}

/* ---- going back ---- */
/* To a place that mn_conversation_snapshot_before gave. */
static mn_status go(mn_conversation *c, int64_t place) {
  if (place == mn_conversation_length(c)) return MN_OK;
  const int i = last_before(c, place);
  if (place == 0) {
    MN_TRY(mn_session_reset(c->session));
  } else if (c->cuts) {
    const int32_t position = (int32_t)place;
    MN_TRY(mn_states_put(states_of(c), 0, &position));
  } else {
    MN_TRY(move(c, c->at[i], true));
  }
  forget_snapshots(c, i + 1);
  c->tokens.len = (size_t)place;
  return MN_OK;
}

mn_status mn_conversation_back(mn_conversation *c, int64_t length) {
  const int64_t here = mn_conversation_length(c);
  if (length < 0 || length > here)
    return mn_fail(MN_ERR_ARG, "a conversation of %lld tokens cannot go back to %lld", (long long)here, (long long)length);
  const int64_t place = mn_conversation_snapshot_before(c, length);
  mn_ids again = {0};
  mn_status status = MN_OK;
  for (int64_t i = place; i < length && status == MN_OK; i++) status = mn_ids_add(&again, c->tokens.data[i]);
  if (status == MN_OK) status = go(c, place);
  if (status == MN_OK && again.len) status = mn_conversation_feed(c, again.data, (int64_t)again.len, NULL);
  mn_ids_free(&again);
  return status;
}

mn_status mn_conversation_prepare(mn_conversation *c, const int32_t *tokens, int64_t n, int64_t *kept) {
  *kept = 0;
  if (n < 1) return mn_fail(MN_ERR_ARG, "a conversation becomes at least one token");
  const int64_t place = mn_conversation_snapshot_before(c, mn_conversation_common(c, tokens, n - 1));
  MN_TRY(go(c, place));
  *kept = place;
  return MN_OK;
}

mn_status mn_conversation_become(mn_conversation *c, const int32_t *tokens, int64_t n, mn_conversation_step *did, const float **logits) {
  const int64_t here = mn_conversation_length(c), known = mn_conversation_common(c, tokens, n);
  int64_t kept;
  MN_TRY(mn_conversation_prepare(c, tokens, n, &kept));
  if (did) *did = (mn_conversation_step){.kept = kept, .fed = n - kept, .gone = here - kept, .known = known};
  return mn_conversation_feed(c, tokens + kept, n - kept, logits);
}

/* ---- rows of a batch ---- */
mn_status mn_conversation_to_row(const mn_conversation *c, mn_session *batch, int64_t row) {
  return mn_session_copy_row(batch, row, c->session, 0);
}

mn_status mn_conversation_from_row(mn_conversation *c, const mn_session *batch, int64_t row, const int32_t *tokens, int64_t n, bool mark) {
  const int64_t here = mn_conversation_length(c), there = mn_session_row_position(batch, row);
  if (there != here + n)
    return mn_fail(MN_ERR_ARG, "the row stands at %lld tokens, not at the conversation's %lld and %lld more", (long long)there,
                   (long long)here, (long long)n);
  /* the row began as this conversation: a cache that has not turned over since has the same beginning */
  const bool forgets = c->session->config.forget;
  MN_TRY(mn_session_copy_row_from(c->session, 0, batch, row, forgets ? 0 : here));
  MN_TRY(add_tokens(c, tokens, n));
  return mark ? snapshot(c, true) : MN_OK;
}
