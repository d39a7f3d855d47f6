/* chat.c - mneme_chat.h: a conversation, what was said in it, and the form in which a model reads that. */
#include <mneme_chat.h>

#include <stdlib.h>
#include <string.h>

#include "api/door.h"
#include "api/lm.h"
#include "api/loaded.h"
#include "api/settings.h"
#include "format/json.h"
#include "run/chat.h"
#include "serve/kept.h"
#include "serve/voice.h"

struct mn_chat {
  const mn_lm *lm;
  char *template; /* a file; NULL: the model's own */
  mn_chat_format *format;
  mn_conversation *conversation;
  mn_text note; /* the messages, as JSON */
  mn_loaded loaded;
};

/* ---- making and ending ---- */
static mn_status blank(const mn_lm *lm, const char *template_file, mn_chat **out) {
  *out = NULL;
  MN_TRY(mn_bundle_need_tokenizer(mn_lm_bundle(lm), "the model's directory"));
  mn_chat *c = mn_calloc(1, sizeof *c);
  if (!c) return MN_ERR_MEMORY;
  c->lm = lm;
  mn_status status = mn_chat_format_new(mn_lm_bundle(lm), template_file, &c->format);
  if (status == MN_OK && template_file && !(c->template = mn_strdup(template_file))) status = MN_ERR_MEMORY;
  if (status == MN_OK) *out = c;
  else mn_chat_free(c);
  return status;
}

void mn_chat_free(mn_chat *c) {
  if (!c) return;
  mn_conversation_free(c->conversation);
  mn_chat_format_free(c->format);
  mn_text_free(&c->note);
  mn_loaded_end(&c->loaded);
  free(c->template);
  free(c);
}

static const mn_value *message(mn_arena *arena, const char *role, const char *text) {
  static const char *const keys[] = {"role", "content"};
  const mn_value *all[] = {mn_value_text(arena, role), mn_value_text(arena, text)};
  return mn_value_map(arena, 2, keys, all);
}

/* The list with one message; of role NULL with none. */
static const mn_value *messages(mn_arena *arena, const char *role, const char *text) {
  const mn_value *one = role ? message(arena, role, text) : NULL;
  return mn_value_list(arena, role ? 1 : 0, &one);
}

mn_status mn_chat_new(const mn_lm *lm, const char *template_file, const char *system, mn_chat **out) {
  MN_DOOR;
  if (out) *out = NULL;
  if (!lm || !out) return mn_fail(MN_ERR_ARG, "mn_chat_new: lm and out must not be NULL");
  mn_chat *c;
  mn_session_config config = {.batch = 1};
  mn_arena *arena = mn_arena_new();
  mn_status status = arena ? blank(lm, template_file, &c) : MN_ERR_MEMORY;
  *out = NULL;
  if (status != MN_OK) {
    mn_arena_free(arena);
    return status;
  }
  const mn_value *begin = messages(arena, system ? "system" : NULL, system);
  status = begin ? mn_lm_program(lm, &config.program) : MN_ERR_MEMORY;
  if (status == MN_OK) status = mn_conversation_new(mn_lm_bundle(lm)->model, mn_lm_bundle(lm)->params, &config, NULL, &c->conversation);
  if (status == MN_OK) status = mn_kept_open_note("", begin, &c->note);
  mn_text_add(&c->note, "]}");
  if (status == MN_OK) status = mn_text_status(&c->note);
  mn_arena_free(arena);
  if (status == MN_OK) *out = c;
  else mn_chat_free(c);
  return status;
}

mn_status mn_chat_fork(const mn_chat *c, mn_chat **out) {
  MN_DOOR;
  if (out) *out = NULL;
  if (!c || !out) return mn_fail(MN_ERR_ARG, "mn_chat_fork: c and out must not be NULL");
  mn_chat *to;
  MN_TRY(blank(c->lm, c->template, &to));
  mn_status status = mn_conversation_fork(c->conversation, &to->conversation);
  mn_text_add_bytes(&to->note, c->note.data, c->note.len);
  if (status == MN_OK) status = mn_text_status(&to->note);
  if (status == MN_OK) *out = to;
  else mn_chat_free(to);
  return status;
}

/* ---- what was said ---- */
static const mn_value *said(mn_arena *arena, const mn_chat *c) {
  const mn_value *root = NULL;
  if (mn_json_parse(arena, "chat", c->note.data, c->note.len, &root) != MN_OK) return NULL;
  const mn_value *list = mn_value_get(root, "messages");
  return list && list->kind == MN_LIST ? list : NULL;
}

int64_t mn_chat_turns(const mn_chat *c) {
  if (!c) return 0;
  mn_arena *arena = mn_arena_new();
  const mn_value *list = arena ? said(arena, c) : NULL;
  const int64_t n = list ? (int64_t)(list->count / 2) : 0; /* a system's message is before the pairs */
  mn_arena_free(arena);
  return n;
}

int64_t mn_chat_tokens_read(const mn_chat *c) { return !c ? 0 : (int64_t)mn_conversation_fed(c->conversation); }

mn_status mn_chat_back(mn_chat *c, int64_t turns) {
  MN_DOOR;
  MN_NEED(c);
  const int64_t all = mn_chat_turns(c);
  if (turns < 0 || turns > all)
    return mn_fail(MN_ERR_ARG, "mn_chat_back: a chat of %lld turns cannot take back %lld", (long long)all, (long long)turns);
  mn_arena *arena = mn_arena_new();
  const mn_value *list = arena ? said(arena, c) : NULL;
  mn_text cut = {0};
  mn_status status = list ? mn_kept_cut_note(c->note.data, (int64_t)list->count - 2 * turns, NULL, &cut) : MN_ERR_MEMORY;
  if (status == MN_OK) status = mn_text_status(&cut);
  mn_arena_free(arena);
  if (status == MN_OK) mn_text_free(&c->note), c->note = cut;
  else mn_text_free(&cut);
  return status; /* what the stream has read beyond it is gone when the next turn begins */
}

/* ---- saying ---- */
typedef struct turn {
  mn_chat *c;
  mn_manner manner;
  const char *stop;
  mn_ids ids;
  mn_text note, answer;
  mn_sampler_room *room;
  mn_piece_fn on_piece;
  void *ctx;
} turn;

static bool tell(turn *t, mn_voice *v) {
  size_t n;
  const char *text = mn_voice_text(v, &n);
  const size_t from = t->answer.len;
  mn_text_add_bytes(&t->answer, text, n);
  return !n || t->answer.failed || !t->on_piece || t->on_piece(t->ctx, t->answer.data + from, n);
}

static mn_status answer(turn *t, const float *logits) {
  mn_conversation *c = t->c->conversation;
  mn_voice *v;
  mn_ending ending = MN_END_NOT_YET;
  bool more = true;
  MN_TRY(mn_voice_new(&t->manner, mn_lm_bundle(t->c->lm)->tokenizer, mn_lm_vocab_size(t->c->lm), 0, &v));
  mn_status status = MN_OK;
  while (status == MN_OK && ending == MN_END_NOT_YET && more) {
    int32_t token;
    status = mn_voice_next(v, mn_conversation_length(c), logits, t->room, &token, &ending);
    if (status != MN_OK) break;
    more = tell(t, v);
    const int64_t room = mn_session_room(mn_conversation_session(c));
    if (room != MN_LIMIT_NONE && room < 1) break;
    status = mn_conversation_feed(c, &token, 1, &logits);
  }
  if (status == MN_OK && ending == MN_END_NOT_YET && more && (status = mn_voice_cut(v)) == MN_OK) tell(t, v); /* there is no room */
  mn_voice_free(v);
  return status == MN_OK ? mn_text_status(&t->answer) : status;
}

/* The messages so far and this one, as tokens and as the note that they become. */
static mn_status prepare(turn *t, const char *text) {
  mn_chat *c = t->c;
  mn_arena *arena = mn_arena_new();
  const mn_value *list = arena ? messages(arena, "user", text) : NULL, *all = list ? mn_kept_messages(arena, c->note.data, list) : NULL;
  const mn_chat_known known = {.tokens = mn_conversation_tokens(c->conversation), .n_tokens = mn_conversation_length(c->conversation)};
  mn_status status = all ? mn_kept_open_note(c->note.data, all, &t->note) : MN_ERR_MEMORY;
  if (status == MN_OK) status = mn_chat_tokens_on(c->format, &(mn_chat_request){.messages = all, .answers = true}, &known, NULL, &t->ids);
  mn_arena_free(arena);
  return status;
}

static mn_status say(turn *t, const char *text) {
  mn_chat *c = t->c;
  const float *logits;
  MN_TRY(prepare(t, text));
  MN_TRY(mn_conversation_become(c->conversation, t->ids.data, (int64_t)t->ids.len, NULL, &logits));
  MN_TRY(mn_conversation_mark(c->conversation));
  MN_TRY(answer(t, logits));
  MN_TRY(mn_conversation_mark(c->conversation));
  mn_kept_close_note(&t->note, t->answer.data ? t->answer.data : "", t->answer.len);
  return mn_text_status(&t->note);
}

mn_status mn_chat_say(mn_chat *c, const char *text, int64_t max_tokens, const char *const *settings, mn_piece_fn on_piece, void *ctx) {
  MN_DOOR;
  if (!c || !text) return mn_fail(MN_ERR_ARG, "mn_chat_say: c and text must not be NULL");
  if (max_tokens < 0) return mn_fail(MN_ERR_ARG, "mn_chat_say: max_tokens is %lld", (long long)max_tokens);
  turn t = {.c = c, .on_piece = on_piece, .ctx = ctx};
  MN_TRY(mn_settings_read(settings, mn_sampling_fields, &t.manner.sampling));
  t.manner.most = max_tokens ? max_tokens : INT64_MAX, t.manner.top = -1;
  t.manner.n_ends = mn_chat_end_tokens(c->format, &t.manner.ends);
  t.stop = mn_chat_end_text(c->format);
  if (*t.stop) t.manner.stops = &t.stop, t.manner.n_stops = 1;
  mn_status status = mn_sampler_room_new(mn_lm_vocab_size(c->lm), &t.room);
  if (status == MN_OK) status = say(&t, text);
  if (status == MN_OK) mn_text_free(&c->note), c->note = t.note, t.note = (mn_text){0};
  mn_text_free(&t.note), mn_text_free(&t.answer), mn_ids_free(&t.ids);
  mn_sampler_room_free(t.room);
  return status;
}

/* ---- files ---- */
mn_status mn_chat_save(mn_chat *c, const char *path) {
  MN_DOOR;
  if (!c || !path) return mn_fail(MN_ERR_ARG, "mn_chat_save: c and path must not be NULL");
  return mn_conversation_save_over(c->conversation, path, c->note.data, mn_loaded_at(&c->loaded, path));
}

mn_status mn_chat_load(const mn_lm *lm, const char *template_file, const char *path, mn_chat **out) {
  MN_DOOR;
  if (out) *out = NULL;
  if (!lm || !path || !out) return mn_fail(MN_ERR_ARG, "mn_chat_load: lm, path and out must not be NULL");
  mn_chat *c;
  mn_session_config config = {.batch = 1};
  MN_TRY(blank(lm, template_file, &c));
  mn_status status = mn_lm_program(lm, &config.program);
  if (status == MN_OK) status = mn_loaded_begin(&c->loaded, path);
  if (status == MN_OK)
    status = mn_conversation_open(mn_lm_bundle(lm)->model, mn_lm_bundle(lm)->params, &config, NULL, path, &c->note, &c->conversation);
  mn_arena *arena = mn_arena_new();
  if (status == MN_OK && (!arena || !c->note.len || !said(arena, c)))
    status = mn_fail(MN_ERR_FORMAT, "%s holds a conversation, and no messages of it", path);
  mn_arena_free(arena);
  if (status == MN_OK) *out = c;
  else mn_chat_free(c);
  return status;
}
