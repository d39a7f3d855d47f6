/* kept.c - see kept.h: names and notes. */
#include "serve/kept.h"

#include <string.h>

#include "base/dir.h"
#include "format/json.h"
#include "serve/answer.h"

bool mn_kept_name(const char *name, mn_refusal *why) {
  const size_t n = strlen(name);
  char shown[MN_PRINTABLE];
  bool fine = n >= 1 && n <= MN_KEPT_NAME && name[0] != '.' && !mn_name_fault(name);
  for (size_t i = 0; i < n && fine; i++)
    fine = (name[i] >= 'a' && name[i] <= 'z') || (name[i] >= 'A' && name[i] <= 'Z') || (name[i] >= '0' && name[i] <= '9') ||
           strchr("._-", name[i]);
  return fine ||
         mn_refuse(why, 400, "session_id", "invalid_value", "'%s' is no name of a session: 1 to %d letters, digits, '.', '_' or '-'",
                   mn_printable(name, shown), MN_KEPT_NAME);
}

static const mn_value *said_before(mn_arena *arena, const char *note, const mn_value **root) {
  *root = NULL;
  if (!*note || mn_json_parse(arena, "note", note, strlen(note), root) != MN_OK) return NULL;
  const mn_value *list = mn_value_get(*root, "messages");
  return list && list->kind == MN_LIST ? list : NULL;
}

/* The same role and content, or calls without one: what else a client repeats, it may repeat otherwise. */
static bool same_message(const mn_value *a, const mn_value *b) {
  const mn_value *x = mn_value_get(a, "role"), *y = mn_value_get(b, "role"), *v = mn_value_get(a, "content"),
                 *w = mn_value_get(b, "content");
  if (!v && !w) v = mn_value_get(a, "tool_calls"), w = mn_value_get(b, "tool_calls");
  return x && y && v && w && mn_value_equal(x, y) && mn_value_equal(v, w);
}

/* first (NULL: none), a and b in one list. */
static const mn_value *joined(mn_arena *arena, const mn_value *first, const mn_value *const *a, size_t n_a, const mn_value *const *b,
                              size_t n_b) {
  const mn_value **all = mn_arena_alloc(arena, (n_a + n_b + 1) * sizeof *all);
  size_t n = 0;
  if (!all) return NULL;
  if (first) all[n++] = first;
  if (n_a) memcpy(all + n, a, n_a * sizeof *all);
  if (n_b) memcpy(all + n + n_a, b, n_b * sizeof *all);
  return mn_value_list(arena, n + n_a + n_b, all);
}

const mn_value *mn_kept_messages(mn_arena *arena, const char *note, const mn_value *messages) {
  const mn_value *root, *before = said_before(arena, note, &root);
  size_t same = 0;
  if (!before) return messages;
  while (same < before->count && same < messages->count && same_message(before->as.items[same], messages->as.items[same])) same++;
  return same == before->count ? messages : joined(arena, NULL, before->as.items, before->count, messages->as.items, messages->count);
}

static bool begins_with_system(const mn_value *list) {
  const mn_value *role = list->count ? mn_value_get(list->as.items[0], "role") : NULL;
  return role && role->kind == MN_TEXT && !strcmp(role->as.text, "system");
}

const mn_value *mn_kept_after(mn_arena *arena, const char *note, const mn_value *messages) {
  const mn_value *root, *before = said_before(arena, note, &root);
  if (!before) return messages;
  const size_t own = begins_with_system(messages), old = own && begins_with_system(before);
  return joined(arena, own ? messages->as.items[0] : NULL, before->as.items + old, before->count - old, messages->as.items + own,
                messages->count - own);
}

static mn_status write_note(const char *parent, const mn_value *messages, size_t n, mn_text *out) {
  mn_text_add(out, "{");
  if (parent) mn_text_add(out, "\"parent\": "), mn_json_quote(out, parent);
  if (!messages) return mn_text_status(out);
  mn_text_addf(out, "%s\"messages\": [", parent ? ", " : "");
  for (size_t i = 0; i < n; i++) {
    if (i) mn_text_add(out, ", ");
    MN_TRY(mn_value_to_json(messages->as.items[i], 0, out));
  }
  return mn_text_status(out);
}

static const char *parent_of(const mn_value *root) {
  const mn_value *v = mn_value_get(root, "parent");
  return v && v->kind == MN_TEXT ? v->as.text : NULL;
}

mn_status mn_kept_open_note(const char *note, const mn_value *messages, mn_text *out) {
  mn_arena *arena = mn_arena_new();
  const mn_value *root = NULL;
  if (!arena) return MN_ERR_MEMORY;
  said_before(arena, note, &root);
  mn_status status = write_note(parent_of(root), messages, messages->count, out);
  mn_arena_free(arena);
  return status;
}

void mn_kept_close_note(mn_text *note, const char *said, size_t n) {
  mn_text_add(note, ", {\"role\": \"assistant\", \"content\": ");
  mn_answer_quote(note, said, n);
  mn_text_add(note, "}]}");
}

int64_t mn_kept_count(const char *note) {
  mn_arena *arena = mn_arena_new();
  const mn_value *root, *list = arena ? said_before(arena, note, &root) : NULL;
  const int64_t n = list ? (int64_t)list->count : -1;
  mn_arena_free(arena);
  return n;
}

mn_status mn_kept_cut_note(const char *note, int64_t n, const char *parent, mn_text *out) {
  mn_arena *arena = mn_arena_new();
  const mn_value *root = NULL;
  if (!arena) return MN_ERR_MEMORY;
  const mn_value *list = said_before(arena, note, &root);
  const size_t count = !list ? 0 : (int64_t)list->count < n ? list->count : (size_t)n;
  mn_status status = write_note(parent ? parent : parent_of(root), list, count, out);
  mn_text_add(out, list ? "]}" : "}");
  mn_arena_free(arena);
  return status;
}
