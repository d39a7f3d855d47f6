/* mixer.c - finding, parsing and applying mixers. */
#include "nn/mixer.h"

#include <string.h>

#include "base/nearest.h"

static bool word_in(const char *list, const char *word) {
  size_t n = strlen(word);
  for (const char *p = list; p && *p;) {
    size_t k = strcspn(p, " ");
    if (k == n && memcmp(p, word, n) == 0) return true;
    p += k + (p[k] == ' ');
  }
  return false;
}

enum { MAX_TYPES = 256 };

/* Every word a recipe may use, copied into `text`. */
static void add_words(mn_text *text, const char *list, size_t *offsets, int *n) {
  for (const char *p = list; p && *p && *n < MAX_TYPES;) {
    size_t k = strcspn(p, " ");
    offsets[(*n)++] = text->len;
    mn_text_add_bytes(text, p, k);
    mn_text_add_bytes(text, "", 1);
    p += k + (p[k] == ' ');
  }
}

static int known_types(mn_text *text, const char **words) {
  size_t offsets[MAX_TYPES];
  int n = 0;
  for (int i = 0; i < mn_mixer_count(); i++) {
    add_words(text, mn_mixer_at(i)->name, offsets, &n);
    add_words(text, mn_mixer_at(i)->aliases, offsets, &n);
  }
  for (int i = 0; i < n && text->data; i++) words[i] = text->data + offsets[i];
  return text->data ? n : 0;
}

mn_status mn_mixer_find(const mn_value *v, const char *type, const mn_mixer_def **out) {
  for (int i = 0; i < mn_mixer_count(); i++) {
    const mn_mixer_def *d = mn_mixer_at(i);
    if (strcmp(d->name, type) == 0 || word_in(d->aliases, type)) {
      *out = d;
      return MN_OK;
    }
  }
  mn_text text = {0}, list = {0};
  const char *words[MAX_TYPES];
  int n = known_types(&text, words);
  const char *near = mn_text_status(&text) == MN_OK ? mn_nearest(type, words, n) : NULL;
  for (int i = 0; i < n; i++) mn_text_addf(&list, "%s%s", i ? ", " : "", words[i]);
  mn_status status = mn_value_fail(v, "unknown mixer type '%s'%s%s%s (known: %s)", type, near ? "; did you mean '" : "", near ? near : "",
                                   near ? "'?" : "", list.data ? list.data : "none");
  mn_text_free(&text);
  mn_text_free(&list);
  return status;
}

typedef struct type_config {
  const char *type;
} type_config;
static const mn_field type_fields[] = {MN_FIELD_STRING_REQUIRED(type_config, type, "which mixer"), MN_FIELD_END};

mn_status mn_mixer_parse(mn_arena *arena, const mn_value *map, const char *where, int64_t d_model, mn_mixer *out) {
  const mn_value *type = mn_value_get(map, "type");
  if (!type) MN_TRY(mn_config_misspelt(map, "type"));
  if (!type || type->kind != MN_TEXT) return mn_config_fail(map, where, "type", "must name a mixer, e.g. type: attention");
  MN_TRY(mn_mixer_find(type, type->as.text, &out->def));
  out->type = mn_arena_strdup(arena, type->as.text);
  out->config = mn_arena_alloc(arena, out->def->config_size);
  if (!out->type || !out->config) return MN_ERR_MEMORY;
  type_config t = {0};
  mn_config_defaults(out->def->fields, out->config);
  const mn_config_part parts[] = {{type_fields, &t}, {out->def->fields, out->config}};
  MN_TRY(mn_config_parse(arena, map, where, parts, 2));
  MN_TRY(mn_config_uses(map, where, out->def->uses, out->type));
  return out->def->check ? out->def->check(map, where, out->type, d_model, out->config) : MN_OK;
}

const mn_value *mn_mixer_to_value(mn_arena *arena, const mn_mixer *m) {
  type_config t = {m->type};
  const mn_config_part parts[] = {{type_fields, &t}, {m->def->fields, m->config}};
  return mn_config_to_value(arena, parts, 2);
}

mn_tensor *mn_mixer_apply(mn_scope *s, const mn_mixer *m, mn_tensor *x) { return m->def->apply(s, m->config, x); }
