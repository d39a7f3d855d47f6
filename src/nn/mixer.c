/* mixer.c - finding, parsing and applying mixers. */
#include "nn/mixer.h"

#include <string.h>

static const char *name_at(int i) { return mn_mixer_at(i)->name; }

mn_status mn_mixer_find(const mn_value *v, const char *type, const mn_mixer_def **out) {
  int i;
  MN_TRY(mn_config_choose(v, "mixer type", type, mn_mixer_count(), name_at, &i));
  *out = mn_mixer_at(i);
  return MN_OK;
}

typedef struct type_config {
  const char *type;
} type_config;
static const mn_field type_fields[] = {MN_FIELD_STRING_REQUIRED(type_config, type, "which mixer"), MN_FIELD_END};

/* All that a file spells out. */
static const mn_field *written(const mn_mixer_def *d) { return d->written ? d->written : d->fields; }

/* A key that the user gave and another type of the family would read has no effect here. */
static mn_status check_own(const mn_value *map, const char *where, const mn_mixer_def *d) {
  for (const mn_field *f = written(d); f->name; f++) {
    if (!mn_config_given(map, f->name) || mn_field_find(d->fields, f->name)) continue;
    mn_text owners = {0};
    for (int i = 0; i < mn_mixer_count(); i++) {
      const mn_mixer_def *other = mn_mixer_at(i);
      if (other->written == d->written && mn_field_find(other->fields, f->name))
        mn_text_addf(&owners, "%s%s", owners.len ? ", " : "", other->name);
    }
    mn_status status = mn_config_fail(map, where, f->name, "has no effect with type %s (it is for %s); leave it out", d->name,
                                      owners.data ? owners.data : "none");
    mn_text_free(&owners);
    return status;
  }
  return MN_OK;
}

/* Does a file that spells out all hold keys of the family's other types? */
static bool spells_others(const mn_value *map, const mn_mixer_def *d) {
  for (size_t i = 0; i < map->count; i++) {
    const char *key = map->as.entries[i].key;
    if (mn_field_find(written(d), key) && !mn_field_find(d->fields, key)) return true;
  }
  return false;
}

static mn_mixer *base_of(const mn_mixer *m) { return (mn_mixer *)((char *)m->config + m->def->base); }
mn_mixer *mn_mixer_base(const mn_mixer *m) { return m->def->base && base_of(m)->def ? base_of(m) : NULL; }

static mn_mixer_list *list_of(const mn_mixer *m) { return (mn_mixer_list *)((char *)m->config + m->def->list); }
const mn_mixer_list *mn_mixer_parts(const mn_mixer *m) { return m->def->list ? list_of(m) : NULL; }
static mn_mixer_list parts(const mn_mixer *m) { return m->def->list ? *list_of(m) : (mn_mixer_list){0}; }

void mn_mixer_doubt(const mn_mixer *m, mn_text *out) {
  mn_text own = {0};
  if (m->def->doubt) m->def->doubt(m->config, &own);
  if (own.len) mn_text_addf(out, "%s: %s", m->def->name, own.data);
  out->failed = out->failed || own.failed;
  mn_text_free(&own);
  if (mn_mixer_base(m)) mn_mixer_doubt(mn_mixer_base(m), out);
  for (int i = 0; i < parts(m).n && !out->len; i++) mn_mixer_doubt(&parts(m).items[i], out);
}

/* The value of the key `name`, in the config. */
static const mn_value **value_at(const mn_mixer *m, const char *name) {
  return (const mn_value **)((char *)m->config + mn_field_find(m->def->fields, name)->offset);
}

static const char *base_key(const mn_mixer_def *d) { return d->base_key ? d->base_key : "base"; }
static const mn_value **base_value(const mn_mixer *m) { return value_at(m, base_key(m->def)); }

/* {type: T} for the word T, or for nothing: it stands where the word does, or the map that might have said it, so that what is
 * refused is named by its key. */
static const mn_value *spelled_base(mn_arena *arena, const mn_value *map, const char *where, const mn_value *word, const char *key,
                                    const char *type) {
  const mn_value *at = word ? word : map, *name = mn_value_text(arena, type);
  const mn_value *plain = name ? mn_value_map(arena, 1, (const char *[]){"type"}, &name) : NULL;
  mn_value *v = plain ? mn_arena_alloc(arena, sizeof *v) : NULL;
  if (!v) return NULL;
  *v = *plain;
  v->file = at->file;
  v->line = at->line;
  v->column = at->column;
  v->path = mn_value_path_key(arena, where ? where : map->path, key);
  return v->path ? v : NULL;
}

static mn_status parse_base(mn_arena *arena, const mn_value *map, const char *where, int64_t d_model, const mn_mixer *m) {
  const mn_mixer_def *d = m->def;
  const mn_value *v = *base_value(m);
  const char *type = v && v->kind == MN_TEXT ? v->as.text : v ? NULL : d->base_type ? d->base_type : "attention";
  *base_value(m) = NULL; /* the tree is the caller's: a word is copied, and a mixer is what it was parsed to */
  for (const char *const *word = d->base_words; v && type && word && *word; word++)
    if (!strcmp(*word, type)) return (*base_value(m) = mn_value_text(arena, *word)) ? MN_OK : MN_ERR_MEMORY;
  if (type) {
    const mn_mixer_def *known;
    MN_TRY(mn_mixer_find(v, type, &known)); /* an unknown one is refused where it stands */
    if (!(v = spelled_base(arena, map, where, v, base_key(d), type))) return MN_ERR_MEMORY;
  }
  if (v->kind != MN_MAP) return mn_config_fail(map, where, base_key(d), "must be a mixer, such as {type: attention, window: 64}");
  return mn_mixer_parse(arena, v, NULL, d_model, base_of(m));
}

static mn_status parse_list(mn_arena *arena, const mn_value *map, const char *where, int64_t d_model, const mn_mixer *m) {
  enum { MOST = 16 };
  const mn_value *v = *value_at(m, m->def->list_key);
  mn_mixer_list *list = list_of(m);
  *value_at(m, m->def->list_key) = NULL;
  if (!v || v->kind != MN_LIST || v->count < 2 || v->count > MOST)
    return mn_config_fail(map, where, m->def->list_key, "must be a list of 2 to %d mixers, such as [{type: attention}, {type: mamba2}]",
                          MOST);
  if (!(list->items = mn_arena_alloc(arena, v->count * sizeof *list->items))) return MN_ERR_MEMORY;
  for (list->n = 0; list->n < (int)v->count; list->n++) {
    const mn_value *item;
    MN_TRY(mn_value_map_in(v, (size_t)list->n, "{type: attention, window: 64}", &item));
    MN_TRY(mn_mixer_parse(arena, item, NULL, d_model, &list->items[list->n]));
  }
  return MN_OK;
}

mn_status mn_mixer_parse(mn_arena *arena, const mn_value *map, const char *where, int64_t d_model, mn_mixer *out) {
  const mn_value *type = mn_value_get(map, "type");
  if (!type) MN_TRY(mn_config_misspelt(map, "type"));
  if (!type || type->kind != MN_TEXT) return mn_config_fail(map, where, "type", "must name a mixer, e.g. type: attention");
  MN_TRY(mn_mixer_find(type, type->as.text, &out->def));
  const mn_mixer_def *d = out->def;
  type_config t = {0};
  if (!(out->config = mn_arena_alloc(arena, d->config_size))) return MN_ERR_MEMORY;
  mn_config_defaults(written(d), out->config);
  MN_TRY(check_own(map, where, d));
  for (const mn_mixer_without *w = d->without; w && w->key; w++)
    if (mn_value_get(map, w->key)) return mn_config_fail(map, where, w->key, "is no key: %s", w->says);
  const mn_config_part parts[] = {{type_fields, &t}, {spells_others(map, d) ? written(d) : d->fields, out->config}};
  MN_TRY(mn_config_parse(arena, map, where, parts, 2));
  if (d->base) MN_TRY(parse_base(arena, map, where, d_model, out));
  if (d->list) MN_TRY(parse_list(arena, map, where, d_model, out));
  return d->check ? d->check(map, where, d_model, out->config) : MN_OK;
}

static const mn_value *list_to_value(mn_arena *arena, mn_mixer_list list) {
  const mn_value **items = mn_arena_alloc(arena, (size_t)list.n * sizeof *items);
  for (int i = 0; items && i < list.n; i++)
    if (!(items[i] = mn_mixer_to_value(arena, &list.items[i]))) return NULL;
  return items ? mn_value_list(arena, (size_t)list.n, items) : NULL;
}

const mn_value *mn_mixer_to_value(mn_arena *arena, const mn_mixer *m) {
  type_config t = {m->def->name};
  mn_mixer spelled = *m;
  if (mn_mixer_base(m) || m->def->list) {
    if (!(spelled.config = mn_arena_alloc(arena, m->def->config_size))) return NULL;
    memcpy(spelled.config, m->config, m->def->config_size);
    if (mn_mixer_base(m) && !(*base_value(&spelled) = mn_mixer_to_value(arena, mn_mixer_base(m)))) return NULL;
    if (m->def->list && !(*value_at(&spelled, m->def->list_key) = list_to_value(arena, parts(m)))) return NULL;
  }
  const mn_config_part parts[] = {{type_fields, &t}, {written(m->def), spelled.config}};
  return mn_config_to_value(arena, parts, 2);
}

/* A chunk or a segment that no sequence fills is a mistake of whoever chose it; a default may be longer than a short sequence. */
mn_status mn_mixer_check_lengths(const mn_mixer *m, const mn_value *map, int64_t seq_len) {
  for (const mn_field *f = m->def->fields; f->name; f++) {
    int64_t length = f->tokens ? mn_field_int(f, m->config) : 0;
    if (length <= seq_len || length == f->int_default) continue;
    const mn_value *v = mn_value_get(map, f->name);
    return mn_value_fail(v ? v : map, "%s: its %s of %lld tokens is longer than train.seq_len %lld; lower the one or raise the other",
                         m->def->name, f->name, (long long)length, (long long)seq_len);
  }
  const mn_mixer *base = mn_mixer_base(m);
  const mn_value *list = m->def->list ? mn_value_get(map, m->def->list_key) : NULL;
  for (int i = 0; i < parts(m).n; i++)
    MN_TRY(mn_mixer_check_lengths(&parts(m).items[i], list && list->kind == MN_LIST ? list->as.items[i] : NULL, seq_len));
  return base ? mn_mixer_check_lengths(base, mn_value_get(map, base_key(m->def)), seq_len) : MN_OK;
}

mn_status mn_check_heads(const mn_value *map, const char *where, int64_t d_model, int64_t heads, int64_t *head_dim) {
  if (*head_dim) return MN_OK;
  if (d_model % heads)
    return mn_config_fail(map, where, "heads", "must divide d_model %lld, or head_dim must be given", (long long)d_model);
  *head_dim = d_model / heads;
  return MN_OK;
}

mn_tensor *mn_mixer_apply(mn_scope *s, const mn_mixer *m, mn_tensor *x) {
  return x ? m->def->apply(mn_scope_again(s), m->config, x) : NULL; /* what follows a fault is built no more */
}

mn_tensor *mn_mixer_apply_base(mn_scope *s, const mn_mixer *base, mn_tensor *x) { return x ? base->def->apply(s, base->config, x) : NULL; }
