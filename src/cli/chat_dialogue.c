/* chat_dialogue.c - see chat_dialogue.h. */
#include "cli/chat_dialogue.h"

#include <stdlib.h>
#include <string.h>

#include "format/json.h"

void mn_dialogue_cut(mn_dialogue *d, int64_t n) {
  for (; d->n > n; d->n--) {
    free(d->turns[d->n - 1].user);
    free(d->turns[d->n - 1].answer);
  }
  d->text.len = n ? d->turns[n - 1].bytes : 0;
  if (d->text.data) d->text.data[d->text.len] = 0;
}

void mn_dialogue_free(mn_dialogue *d) {
  mn_dialogue_cut(d, 0);
  free(d->system);
  free(d->turns);
  mn_text_free(&d->text);
  *d = (mn_dialogue){0};
}

mn_status mn_dialogue_add(mn_dialogue *d, char *user, char *answer, int64_t tokens) {
  if (d->n == d->room && user && answer) {
    const int64_t room = d->room ? 2 * d->room : 16;
    mn_chat_turn *more = mn_realloc(d->turns, (size_t)room * sizeof *more);
    if (more) d->turns = more, d->room = room;
  }
  if (!user || !answer || d->n == d->room) {
    free(user);
    free(answer);
    return MN_ERR_MEMORY;
  }
  d->turns[d->n++] = (mn_chat_turn){user, answer, d->text.len, tokens};
  return MN_OK;
}

static const mn_value *message(mn_arena *arena, const char *role, const char *content) {
  const char *keys[] = {"role", "content"};
  const mn_value *at[] = {mn_value_text(arena, role), content ? mn_value_text(arena, content) : NULL};
  return at[0] && at[1] ? mn_value_map(arena, 2, keys, at) : NULL;
}

mn_status mn_dialogue_messages(const mn_dialogue *d, const char *user, size_t n, mn_arena *arena, const mn_value **out) {
  const mn_value **at = mn_arena_alloc(arena, (size_t)(2 * d->n + 2) * sizeof *at);
  size_t k = 0;
  if (!at) return MN_ERR_MEMORY;
  if (d->system) at[k++] = message(arena, "system", d->system);
  for (int64_t i = 0; i < d->n; i++) {
    at[k++] = message(arena, "user", d->turns[i].user);
    at[k++] = message(arena, "assistant", d->turns[i].answer);
  }
  if (user) at[k++] = message(arena, "user", mn_arena_format(arena, "%.*s", (int)n, user));
  for (size_t i = 0; i < k; i++)
    if (!at[i]) return MN_ERR_MEMORY;
  *out = mn_value_list(arena, k, at);
  return *out ? MN_OK : MN_ERR_MEMORY;
}

/* ---- notes ---- */
static void quote(mn_text *out, const char *key, const char *s, size_t n) {
  mn_text clean = {0};
  mn_text_add_utf8(&clean, s, n);
  mn_text_addf(out, "\"%s\": ", key);
  mn_json_quote(out, clean.data ? clean.data : "");
  if (clean.failed) out->failed = true;
  mn_text_free(&clean);
}

mn_status mn_dialogue_write(const mn_dialogue *d, mn_text *out) {
  mn_text_add(out, "{");
  if (d->system) quote(out, "system", d->system, strlen(d->system)), mn_text_add(out, ", ");
  quote(out, "text", d->text.data ? d->text.data : "", d->text.len);
  mn_text_add(out, ", \"turns\": [");
  for (int64_t i = 0; i < d->n; i++) {
    const mn_chat_turn *t = &d->turns[i];
    mn_text_add(out, i ? ", {" : "{");
    quote(out, "user", t->user, strlen(t->user)), mn_text_add(out, ", ");
    quote(out, "answer", t->answer, strlen(t->answer));
    mn_text_addf(out, ", \"bytes\": %zu, \"tokens\": %lld}", t->bytes, (long long)t->tokens);
  }
  mn_text_add(out, "]}");
  return mn_text_status(out);
}

static const mn_value *of(const mn_value *map, const char *key, mn_kind kind) {
  const mn_value *v = mn_value_get(map, key);
  return v && v->kind == kind ? v : NULL;
}

static mn_status read(const mn_value *root, const char *file, int64_t tokens, mn_dialogue *out) {
  const mn_value *system = of(root, "system", MN_TEXT), *text = of(root, "text", MN_TEXT), *turns = of(root, "turns", MN_LIST);
  if (!text || !turns) return mn_fail(MN_ERR_FORMAT, "%s holds a conversation that is no dialogue", file);
  if (system && !(out->system = mn_strdup(system->as.text))) return MN_ERR_MEMORY;
  int64_t last_bytes = 0, last_tokens = 0;
  for (size_t i = 0; i < turns->count; i++) {
    const mn_value *t = turns->as.items[i], *user = of(t, "user", MN_TEXT), *answer = of(t, "answer", MN_TEXT);
    const mn_value *bytes = of(t, "bytes", MN_INTEGER), *at = of(t, "tokens", MN_INTEGER);
    if (!user || !answer || !bytes || !at || bytes->as.integer < last_bytes || at->as.integer < last_tokens ||
        (uint64_t)bytes->as.integer > text->count || at->as.integer > tokens)
      return mn_fail(MN_ERR_FORMAT, "%s: turn %zu of its dialogue is no turn", file, i + 1);
    MN_TRY(mn_dialogue_add(out, mn_strdup(user->as.text), mn_strdup(answer->as.text), at->as.integer));
    out->turns[out->n - 1].bytes = (size_t)bytes->as.integer;
    last_bytes = bytes->as.integer, last_tokens = at->as.integer;
  }
  mn_text_add_bytes(&out->text, text->as.text, text->count);
  return mn_text_status(&out->text);
}

mn_status mn_dialogue_read(const char *file, const mn_text *note, int64_t tokens, mn_dialogue *out) {
  mn_arena *arena = mn_arena_new();
  const mn_value *root = NULL;
  mn_status status = arena ? MN_OK : MN_ERR_MEMORY;
  if (status == MN_OK && !note->len) status = mn_fail(MN_ERR_FORMAT, "%s holds a conversation that is no dialogue", file);
  if (status == MN_OK) status = mn_json_parse(arena, file, note->data, note->len, &root);
  if (status == MN_OK) status = read(root, file, tokens, out);
  mn_arena_free(arena);
  return status;
}
