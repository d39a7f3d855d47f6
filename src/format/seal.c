/* seal.c - see seal.h. */
#include "format/seal.h"

#include "base/file.h"

#include <string.h>

static const char member[] = "checksum";

mn_status mn_value_hash(const mn_value *v, char hex[33]) {
  mn_text text = {0};
  mn_status status = mn_value_to_json(v, 0, &text);
  if (status == MN_OK) mn_content_hash(text.data, text.len, hex);
  mn_text_free(&text);
  return status;
}

mn_status mn_seal(mn_arena *arena, const mn_value *v, const mn_value **out) {
  char hex[33];
  *out = v;
  if (v->kind != MN_MAP) return MN_OK;
  MN_TRY(mn_value_hash(v, hex));
  mn_value *sealed = mn_arena_alloc(arena, sizeof *sealed);
  mn_entry *entries = mn_arena_alloc(arena, (v->count + 1) * sizeof *entries);
  const mn_value *sum = mn_value_text(arena, hex);
  if (!sealed || !entries || !sum) return MN_ERR_MEMORY;
  entries[0] = (mn_entry){.key = member, .value = sum}; /* in front: its line can be taken away, and what is left is JSON */
  if (v->count) memcpy(entries + 1, v->as.entries, v->count * sizeof *entries);
  *sealed = *v;
  sealed->as.entries = entries;
  sealed->count++;
  *out = sealed;
  return MN_OK;
}

mn_status mn_unseal(mn_arena *arena, const mn_value *v, const mn_value **out, bool *sealed) {
  const mn_value *sum = mn_value_get(v, member);
  *out = v;
  if (sealed) *sealed = sum != NULL;
  if (!sum) return MN_OK;
  mn_value *bare = mn_arena_alloc(arena, sizeof *bare);
  mn_entry *entries = mn_arena_alloc(arena, v->count * sizeof *entries);
  if (!bare || !entries) return MN_ERR_MEMORY;
  *bare = *v;
  bare->as.entries = entries;
  bare->count = 0;
  for (size_t i = 0; i < v->count; i++)
    if (v->as.entries[i].value != sum) entries[bare->count++] = v->as.entries[i];
  char hex[33];
  MN_TRY(mn_value_hash(bare, hex));
  if (sum->kind != MN_TEXT || strcmp(sum->as.text, hex) != 0)
    return mn_fail(MN_ERR_FORMAT,
                   "%s: its content does not match its checksum: it is damaged, or was edited; put the file back, or after an edit of "
                   "your own remove its line \"checksum\"",
                   sum->file ? sum->file : "a map");
  *out = bare;
  return MN_OK;
}
