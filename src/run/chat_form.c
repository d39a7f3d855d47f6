/* chat_form.c - see chat_form.h. */
#include "run/chat_form.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "format/json.h"

static const char *text_of(const mn_value *map, const char *key, const char *otherwise) {
  const mn_value *v = mn_value_get(map, key);
  return v && v->kind == MN_TEXT ? v->as.text : otherwise;
}

mn_status mn_chat_form_read(const char *dir, mn_arena *arena, mn_chat_form *out) {
  const mn_value *root = NULL, *data = NULL;
  char *path = mn_path_join(dir, "recipe.json");
  if (!path) return MN_ERR_MEMORY;
  mn_status status = mn_file_exists(path) ? mn_json_read(arena, path, &root) : MN_OK;
  free(path);
  MN_TRY(status);
  const mn_value *stages = mn_value_get(root, "stages");
  for (size_t i = stages && stages->kind == MN_LIST ? stages->count : 0; i > 0 && !data; i--)
    data = mn_value_get(stages->as.items[i - 1], "data");
  if (!data) data = mn_value_get(root, "data");
  out->trained = !strcmp(text_of(data, "type", ""), "dialogues");
  if (!out->trained) data = NULL;
  out->user = text_of(data, "user", "User: ");
  out->assistant = text_of(data, "assistant", "Assistant: ");
  out->end = text_of(data, "end", "\n");
  return MN_OK;
}

static void set(mn_text *t, const char *name, const char *value) {
  mn_text_addf(t, "{%%- set %s = ", name);
  mn_json_quote(t, value);
  mn_text_add(t, " %}");
}

mn_status mn_chat_form_template(const mn_chat_form *f, mn_text *out) {
  set(out, "u", f->user), set(out, "a", f->assistant), set(out, "e", f->end);
  mn_text_add(out, "{%- for m in messages %}{%- if m.role == 'user' %}{{- u + m.content + e }}"
                   "{%- elif m.role == 'assistant' %}{{- a + m.content }}{{- eos_token }}{{- e }}"
                   "{%- else %}{{- raise_exception('this model was trained on messages of user and assistant alone') }}{%- endif %}"
                   "{%- endfor %}{%- if add_generation_prompt %}{{- a }}{%- endif %}");
  return mn_text_status(out);
}
