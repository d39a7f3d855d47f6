/* conversation_file.c - a conversation as a file; see conversation.h.
 *
 * Tensors: `tokens` [n]; `state.<name>`, of a cache that is only appended to the first rows alone; `snapshot.<i>.<name>`. A conversation of
 * no tokens has none of them. The metadata say of which model and tokenizer it is, and where the snapshots stand: "16,40m", m for those
 * that somebody asked for. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "format/safetensors.h"
#include "run/conversation_internal.h"
#include "run/kept_tensor.h"

static const char format[] = "mneme conversation 1";

/* A piece of the backend's memory that goes to a tensor of a file, or comes from it. */
typedef struct piece {
  mn_backend *backend;
  char *data;
  const char *name;
  mn_dtype dtype;
} piece;

/* How much of state i stands in the file: its shape, and its bytes, which are its first. */
static size_t kept(const mn_conversation *c, int i, mn_shape *shape) {
  const mn_state_info *info = mn_states_info(c->session->states, i);
  *shape = info->shape;
  if (c->cut[i]) {
    const int64_t rows = info->appended - 1 + mn_conversation_length(c);
    if (rows < shape->dim[1]) shape->dim[1] = rows;
  }
  return mn_shape_bytes(shape, info->dtype);
}

/* ---- saving ---- */
static mn_status give(void *ctx, size_t offset, size_t n, void *dst) {
  const piece *p = ctx;
  MN_TRY(p->backend->download(p->backend, dst, p->data + offset, n));
  const int64_t bad = mn_kept_not_finite(p->dtype, offset, n, dst);
  if (bad < 0) return MN_OK;
  return mn_fail(MN_ERR_NUMERIC, "the conversation is not saved: %s is not finite (byte %lld)", p->name, (long long)bad);
}

static mn_status add(mn_st_writer *w, mn_arena *arena, mn_backend *b, void *data, const char *name, mn_dtype dtype, const mn_shape *shape) {
  piece *p = name ? mn_arena_alloc(arena, sizeof *p) : NULL;
  if (!p) return MN_ERR_MEMORY;
  *p = (piece){b, data, name, dtype};
  const mn_shape kept = mn_kept_shape(dtype, shape);
  return mn_st_writer_add_source(w, name, mn_kept_type(dtype), &kept, give, p);
}

static mn_status add_all(mn_conversation *c, mn_st_writer *w, mn_arena *arena) {
  mn_states *states = c->session->states;
  const mn_shape n = MN_SHAPE(mn_conversation_length(c));
  mn_shape shape;
  if (!mn_conversation_length(c)) return MN_OK;
  MN_TRY(mn_st_writer_add(w, "tokens", MN_I32, &n, c->tokens.data));
  for (int i = 0; i < mn_states_count(states); i++) {
    const mn_state_info *info = mn_states_info(states, i);
    if (!kept(c, i, &shape)) continue;
    const char *name = mn_arena_format(arena, "state.%s", info->name);
    MN_TRY(add(w, arena, c->session->params->backend, mn_states_data(states, i), name, info->dtype, &shape));
  }
  for (int k = 0; k < c->n; k++) {
    char *at = c->at[k]->block;
    for (int i = 0; i < mn_states_count(states); i++) {
      const mn_state_info *info = mn_states_info(states, i);
      if (c->cut[i]) continue;
      MN_TRY(add(w, arena, c->at[k]->backend, at, mn_arena_format(arena, "snapshot.%d.%s", k, info->name), info->dtype, &info->shape));
      at += mn_align(mn_states_bytes(states, i), 64);
    }
  }
  return MN_OK;
}

static mn_status add_meta(mn_conversation *c, mn_st_writer *w, const char *note) {
  const char *model, *tokenizer = c->session->params->origin.tokenizer;
  mn_text places = {0};
  MN_TRY(mn_session_fingerprint(c->session, &model));
  for (int k = 0; k < c->n; k++) mn_text_addf(&places, "%s%" PRId64 "%s", k ? "," : "", c->at[k]->position, c->at[k]->mark ? "m" : "");
  mn_status status = mn_text_status(&places);
  if (status == MN_OK) status = mn_st_writer_meta(w, "format", format);
  if (status == MN_OK) status = mn_st_writer_meta(w, "model", model);
  if (status == MN_OK && *tokenizer) status = mn_st_writer_meta(w, "tokenizer", tokenizer);
  if (status == MN_OK && c->n) status = mn_st_writer_meta(w, "snapshots", places.data);
  if (status == MN_OK && note) status = mn_st_writer_meta(w, "note", note);
  mn_text_free(&places);
  return status;
}

mn_status mn_conversation_save(mn_conversation *c, const char *path, const char *note) {
  return mn_conversation_save_over(c, path, note, NULL);
}

mn_status mn_conversation_save_over(mn_conversation *c, const char *path, const char *note, mn_file_stamp *stamp) {
  mn_st_writer *w = mn_st_writer_new();
  mn_arena *arena = mn_arena_new();
  mn_status status = w && arena ? add_all(c, w, arena) : MN_ERR_MEMORY;
  if (status == MN_OK) status = add_meta(c, w, note);
  if (status == MN_OK) status = mn_st_writer_save_over(w, path, stamp);
  mn_st_writer_free(w);
  mn_arena_free(arena);
  return status;
}

/* ---- opening ---- */
static mn_status take(void *ctx, size_t offset, size_t n, const void *bytes) {
  const piece *p = ctx;
  return p->backend->upload(p->backend, p->data + offset, bytes, n);
}

static mn_status check_format(const mn_st *st) {
  const char *path = mn_st_path(st), *is = mn_st_meta(st, "format");
  if (is && !strncmp(is, "mneme session", 13))
    return mn_fail(MN_ERR_FORMAT,
                   "%s is a state alone, as a chat without a template keeps it; servers and chats with one keep the words, too", path);
  if (!is || strcmp(is, format) != 0)
    return mn_fail(MN_ERR_FORMAT, "%s is no conversation of this version (its metadata says %s)", path, is ? is : "nothing");
  if (!mn_st_checksum(st)) return mn_fail(MN_ERR_FORMAT, "%s has lost its checksums: it was changed after it was saved", path);
  return MN_OK;
}

static mn_status check_meta(mn_conversation *c, const mn_st *st) {
  const char *path = mn_st_path(st), *model = mn_st_meta(st, "model"), *mine;
  MN_TRY(check_format(st));
  MN_TRY(mn_session_fingerprint(c->session, &mine));
  if (!model || strcmp(model, mine) != 0)
    return mn_fail(MN_ERR_CONFIG, "%s was saved with another model, or with room for another context (fingerprint %s; here it is %s)", path,
                   model ? model : "missing", mine);
  const char *was = mn_st_meta(st, "tokenizer"), *now = c->session->params->origin.tokenizer;
  if (was && *now && strcmp(was, now) != 0)
    return mn_fail(MN_ERR_CONFIG, "%s was saved with another tokenizer (%s; this model's is %s)", path, was, now);
  return MN_OK;
}

static mn_status read_tensor(const mn_st *st, mn_backend *b, void *data, const char *name, mn_dtype dtype, const mn_shape *shape) {
  return name ? mn_kept_read(st, name, dtype, shape, true, take, &(piece){b, data, name, dtype}) : MN_ERR_MEMORY;
}

static mn_status read_tokens(mn_conversation *c, const mn_st *st) {
  const mn_st_tensor *t = mn_st_find(st, "tokens");
  if (!t) return mn_st_count(st) ? mn_fail(MN_ERR_FORMAT, "%s has a state and no tokens", mn_st_path(st)) : MN_OK;
  if (t->shape.ndim != 1 || t->shape.dim[0] < 1 || t->shape.dim[0] > MN_POSITION_MAX)
    return mn_fail(MN_ERR_FORMAT, "%s: tokens are a list", mn_st_path(st));
  if (t->dtype != MN_I32 || !*t->checksum)
    return mn_fail(MN_ERR_FORMAT, "%s: tokens have lost their type or their checksum", mn_st_path(st));
  const mn_shape shape = t->shape;
  c->tokens.data = mn_alloc(t->bytes);
  if (!c->tokens.data) return MN_ERR_MEMORY;
  c->tokens.len = c->tokens.cap = (size_t)shape.dim[0];
  MN_TRY(mn_st_read(st, t, MN_I32, c->tokens.data));
  for (size_t i = 0; i < c->tokens.len; i++)
    if (c->tokens.data[i] < 0 || c->tokens.data[i] >= mn_session_vocab_size(c->session))
      return mn_fail(MN_ERR_FORMAT, "%s: token %zu is %d; the vocabulary has %lld", mn_st_path(st), i, c->tokens.data[i],
                     (long long)mn_session_vocab_size(c->session));
  return MN_OK;
}

static mn_status read_state(mn_conversation *c, const mn_st *st, mn_arena *arena) {
  mn_states *states = c->session->states;
  mn_shape shape;
  for (int i = 0; i < mn_states_count(states); i++) {
    const mn_state_info *info = mn_states_info(states, i);
    if (!kept(c, i, &shape)) continue;
    const char *name = mn_arena_format(arena, "state.%s", info->name);
    MN_TRY(read_tensor(st, c->session->params->backend, mn_states_data(states, i), name, info->dtype, &shape));
  }
  MN_TRY(mn_states_look(states));
  if (mn_session_position(c->session) == mn_conversation_length(c)) return MN_OK;
  return mn_fail(MN_ERR_FORMAT, "%s: its state stands at %lld, behind %lld tokens", mn_st_path(st),
                 (long long)mn_session_position(c->session), (long long)mn_conversation_length(c));
}

static mn_status read_snapshot(mn_conversation *c, const mn_st *st, mn_arena *arena, int k, int64_t position, bool mark) {
  mn_states *states = c->session->states;
  mn_snapshot *s;
  MN_TRY(mn_snapshot_new(c, position, mark, &s));
  char *at = s->block;
  mn_status status = MN_OK;
  int32_t says = -1;
  for (int i = 0; i < mn_states_count(states) && status == MN_OK; i++) {
    const mn_state_info *info = mn_states_info(states, i);
    if (c->cut[i]) continue;
    const char *name = mn_arena_format(arena, "snapshot.%d.%s", k, info->name);
    status = read_tensor(st, s->backend, at, name, info->dtype, &info->shape);
    if (i == 0 && status == MN_OK) status = s->backend->download(s->backend, &says, at, sizeof says);
    at += mn_align(mn_states_bytes(states, i), 64);
  }
  if (status == MN_OK && says != position)
    status = mn_fail(MN_ERR_FORMAT, "%s: snapshot %d stands at %d, not at %lld", mn_st_path(st), k, says, (long long)position);
  if (status == MN_OK) return mn_conversation_keep(c, s);
  mn_snapshot_leave(s);
  return status;
}

/* Rising places within the conversation; all snapshots of the file are among them. */
static mn_status read_snapshots(mn_conversation *c, const mn_st *st, mn_arena *arena, int *n) {
  const char *places = mn_st_meta(st, "snapshots");
  int64_t last = 0;
  for (*n = 0; places && *places && !c->cuts; ++*n) {
    char *end;
    const long long place = strtoll(places, &end, 10);
    const bool mark = *end == 'm';
    if (end == places || place <= last || place > mn_conversation_length(c) || !strchr(",", end[mark]))
      return mn_fail(MN_ERR_FORMAT, "%s: its snapshots '%.60s' do not rise within %lld tokens", mn_st_path(st), places,
                     (long long)mn_conversation_length(c));
    MN_TRY(read_snapshot(c, st, arena, *n, place, mark));
    last = place;
    places = end + mark + (end[mark] == ',');
  }
  return MN_OK;
}

static mn_status read_all(mn_conversation *c, const mn_st *st, mn_arena *arena) {
  int snapshots = 0, states = 0, of_snapshot = 0;
  mn_shape shape;
  MN_TRY(check_meta(c, st));
  MN_TRY(read_tokens(c, st));
  if (!c->tokens.len) return MN_OK;
  MN_TRY(mn_session_fits(c->session, mn_conversation_length(c))); /* its cache may have been larger then */
  MN_TRY(read_state(c, st, arena));
  MN_TRY(read_snapshots(c, st, arena, &snapshots));
  for (int i = 0; i < mn_states_count(c->session->states); i++) states += kept(c, i, &shape) > 0, of_snapshot += !c->cut[i];
  if (mn_st_count(st) != 1 + states + snapshots * of_snapshot)
    return mn_fail(MN_ERR_FORMAT, "%s holds tensors that belong to no conversation with this model", mn_st_path(st));
  return MN_OK;
}

static mn_status add_note(const mn_st *st, mn_text *note) {
  if (mn_st_meta(st, "note")) mn_text_add(note, mn_st_meta(st, "note"));
  return mn_text_status(note);
}

mn_status mn_conversation_note(const char *path, mn_text *note) {
  mn_st *st;
  MN_TRY(mn_st_open(path, &st));
  mn_status status = check_format(st);
  if (status == MN_OK) status = add_note(st, note);
  mn_st_close(st);
  return status;
}

mn_status mn_conversation_open(const mn_model *model, const mn_params *params, const mn_session_config *session,
                               const mn_conversation_config *config, const char *path, mn_text *note, mn_conversation **out) {
  mn_st *st;
  mn_conversation *c = NULL;
  *out = NULL;
  MN_TRY(mn_st_open(path, &st));
  mn_arena *arena = mn_arena_new();
  mn_status status = arena ? mn_conversation_new(model, params, session, config, &c) : MN_ERR_MEMORY;
  if (status == MN_OK) status = read_all(c, st, arena);
  if (status == MN_OK) status = mn_st_intact(st);
  if (status == MN_OK && note) status = add_note(st, note);
  mn_arena_free(arena);
  mn_st_close(st);
  if (status == MN_OK) *out = c;
  else mn_conversation_free(c);
  return status;
}
