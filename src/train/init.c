/* init.c - see init.h. */
#include "train/init.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/nearest.h"
#include "format/safetensors.h"

static const char *const missing_words[] = {"refuse", "draw", NULL}, *const unknown_words[] = {"refuse", "ignore", NULL};
#define S mn_init_from
const mn_field mn_init_fields[] = {
    MN_FIELD_STRING_REQUIRED(S, from, "a trained model's directory: its weights and tokenizer are what a new run begins with"),
    MN_FIELD_VALUE(
        S, rename,
        "a map from names in that model to names in this: * in both stands for what stays, {\"layers.*\": \"encoder.layers.*\"}"),
    MN_FIELD_ENUM(S, missing, missing_words, MN_INIT_REFUSE, "parameters that it lacks: a mistake, or drawn as in a new run"),
    MN_FIELD_ENUM(S, unknown, unknown_words, MN_INIT_REFUSE, "tensors that this model has no place for: a mistake, or left out"),
    MN_FIELD_END};
#undef S

mn_status mn_init_check(const mn_value *map, const char *where, mn_init_from *c) {
  if (!c->rename) return MN_OK;
  if (c->rename->kind != MN_MAP) return mn_config_fail(map, where, "rename", "must be a map such as {\"layers.*\": \"encoder.layers.*\"}");
  for (size_t i = 0; i < c->rename->count; i++) {
    const mn_entry *e = &c->rename->as.entries[i];
    const char *from = strchr(e->key, '*'), *to = e->value->kind == MN_TEXT ? strchr(e->value->as.text, '*') : NULL;
    if (e->value->kind != MN_TEXT) return mn_value_fail(e->value, "%s.rename: '%s' must become a name", where, e->key);
    if (!from != !to || (from && (strchr(from + 1, '*') || strchr(to + 1, '*'))))
      return mn_value_fail(e->value, "%s.rename: '%s' and '%s' must hold one * each, or none", where, e->key, e->value->as.text);
  }
  return MN_OK;
}

/* The name in the model of a tensor in the file, by the first pattern that it fits, which is marked in used[]; in the params' arena where it
 * is new. NULL: out of memory. */
static const char *renamed(const mn_init_from *c, mn_arena *arena, const char *name, bool *used) {
  for (size_t i = 0; c->rename && i < c->rename->count; i++) {
    const char *key = c->rename->as.entries[i].key, *to = c->rename->as.entries[i].value->as.text, *star = strchr(key, '*');
    if (!star && !strcmp(key, name)) {
      used[i] = true;
      return to;
    }
    if (!star) continue;
    size_t head = (size_t)(star - key), tail = strlen(star + 1), n = strlen(name), middle = n - head - tail;
    if (n < head + tail || strncmp(name, key, head) || strcmp(name + n - tail, star + 1)) continue;
    used[i] = true;
    const char *to_star = strchr(to, '*');
    return mn_arena_format(arena, "%.*s%.*s%s", (int)(to_star - to), to, (int)middle, name + head, to_star + 1);
  }
  return name;
}

static mn_status no_place(const mn_init_from *c, const mn_params *p, const char *name, const char *as) {
  const char **names = mn_alloc((size_t)(p->n_all + 1) * sizeof *names);
  if (!names) return MN_ERR_MEMORY;
  for (int i = 0; i < p->n_all; i++) names[i] = p->info[i].name;
  const char *near = mn_nearest(as, names, p->n_all);
  mn_status status =
      mn_fail(MN_ERR_CONFIG, "%s: its tensor '%s'%s%s%s is no parameter of this model%s%s%s; set init.rename, or init.unknown: ignore",
              c->from, name, strcmp(name, as) ? " (renamed '" : "", strcmp(name, as) ? as : "", strcmp(name, as) ? "')" : "",
              near ? "; the nearest is '" : "", near ? near : "", near ? "'" : "");
  free(names);
  return status;
}

static bool is_copy(const mn_params *p, const char *name) {
  for (int i = 0; i < p->n_all; i++)
    if (p->info[i].copy && !strcmp(p->info[i].copy, name)) return true;
  return false;
}

static size_t common(const char *a, const char *b) {
  size_t n = 0;
  while (a[n] && a[n] == b[n]) n++;
  return n;
}

/* A pattern that renames nothing is a mistake; the name that begins most like it shows what names look like. */
static mn_status check_used(const mn_init_from *c, const mn_st *st, const bool *used) {
  for (size_t i = 0; c->rename && i < c->rename->count; i++) {
    if (used[i]) continue;
    const mn_entry *e = &c->rename->as.entries[i];
    const char *like = "none";
    for (int k = 0; k < mn_st_count(st); k++)
      if (!k || common(mn_st_at(st, k)->name, e->key) > common(like, e->key)) like = mn_st_at(st, k)->name;
    return mn_value_fail(e->value,
                         "init.rename: '%s' renames no tensor of %s, or none that a pattern before it left; there are %d, such as %s",
                         e->key, c->from, mn_st_count(st), like);
  }
  return MN_OK;
}

/* from[i]: the tensor for parameter or buffer i, or NULL. */
static mn_status assign_by(const mn_init_from *c, mn_params *p, const mn_st *st, const mn_st_tensor **from, bool *used) {
  for (int k = 0; k < mn_st_count(st); k++)
    if (!renamed(c, p->arena, mn_st_at(st, k)->name, used)) return MN_ERR_MEMORY;
  MN_TRY(check_used(c, st, used));
  for (int k = 0; k < mn_st_count(st); k++) {
    const mn_st_tensor *t = mn_st_at(st, k);
    const char *as = renamed(c, p->arena, t->name, used);
    if (!as) return MN_ERR_MEMORY;
    int i = mn_params_find(p, as);
    if (i < 0 && (c->unknown == MN_INIT_IGNORE || is_copy(p, as))) continue;
    if (i < 0) return no_place(c, p, t->name, as);
    char a[96], b[96];
    if (from[i]) return mn_fail(MN_ERR_CONFIG, "init.rename: '%s' and '%s' of %s would both be %s", from[i]->name, t->name, c->from, as);
    if (!mn_shape_equal(&t->shape, &p->info[i].shape))
      return mn_fail(MN_ERR_CONFIG, "%s: its tensor '%s' is %s, but %s of this model is %s", c->from, t->name, mn_shape_str(&t->shape, a),
                     as, mn_shape_str(&p->info[i].shape, b));
    from[i] = t;
  }
  return MN_OK;
}

static mn_status assign(const mn_init_from *c, mn_params *p, const mn_st *st, const mn_st_tensor **from) {
  bool *used = mn_calloc(c->rename ? c->rename->count + 1 : 1, sizeof *used);
  mn_status status = used ? assign_by(c, p, st, from, used) : MN_ERR_MEMORY;
  free(used);
  return status;
}

static mn_status check_missing(const mn_init_from *c, const mn_params *p, const mn_st_tensor *const *from, int *drawn) {
  *drawn = 0;
  for (int i = 0; i < p->n_all; i++) {
    if (from[i]) continue;
    ++*drawn;
    if (c->missing == MN_INIT_REFUSE)
      return mn_fail(MN_ERR_CONFIG, "%s has no tensor for %s; set init.rename, or init.missing: draw", c->from, p->info[i].name);
  }
  return MN_OK;
}

static mn_status read_one(mn_params *p, int i, const mn_st *st, const mn_st_tensor *t) {
  MN_TRY(mn_params_writable(p, i));
  const size_t bytes = mn_params_bytes(p, i);
  void *host = mn_alloc(bytes);
  mn_status status = host ? mn_st_read_finite(st, t, p->type[i], host) : MN_ERR_MEMORY;
  if (status == MN_OK) status = p->backend->upload(p->backend, p->data[i], host, bytes);
  free(host);
  return status;
}

static mn_status load(const mn_init_from *c, mn_params *p, const mn_st *st, uint64_t seed, int *drawn) {
  const mn_st_tensor **from = mn_calloc((size_t)p->n_all + 1, sizeof *from);
  mn_status status = from ? assign(c, p, st, from) : MN_ERR_MEMORY;
  if (status == MN_OK) status = check_missing(c, p, from, drawn);
  if (status == MN_OK && *drawn) status = mn_params_draw(p, seed);
  for (int i = 0; i < p->n_all && status == MN_OK; i++)
    if (from[i]) status = read_one(p, i, st, from[i]);
  free(from);
  return status;
}

mn_status mn_init_load(const mn_init_from *c, mn_params *params, uint64_t seed, int *drawn) {
  char *path = mn_path_join(c->from, "model.safetensors");
  mn_st *st = NULL;
  *drawn = 0;
  mn_status status = path ? mn_st_open(path, &st) : MN_ERR_MEMORY;
  if (status == MN_OK) status = load(c, params, st, seed, drawn);
  if (st) mn_st_close(st);
  free(path);
  return mn_context(status, "init.from");
}
