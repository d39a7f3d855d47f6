/* table.c - see table.h: open addressing, at most half full. */
#include "base/table.h"

#include <string.h>

static uint64_t hash_of(const mn_table *t, const void *key) {
  return t->names ? mn_splitmix64(mn_hash_str(key)) : mn_splitmix64((uint64_t)(uintptr_t)key);
}

static bool same(const mn_table *t, const mn_table_entry *e, const void *key, uint64_t hash) {
  return e->key == key || (t->names && e->hash == hash && strcmp(e->key, key) == 0);
}

/* The key's entry, or the free one where it belongs. */
static mn_table_entry *slot(const mn_table *t, mn_table_entry *at, size_t size, const void *key, uint64_t hash) {
  size_t i = hash & (size - 1);
  while (at[i].key && !same(t, &at[i], key, hash)) i = (i + 1) & (size - 1);
  return &at[i];
}

static mn_status grow(mn_table *t) {
  size_t size = t->size ? 2 * t->size : 16;
  mn_table_entry *at = mn_arena_alloc(t->arena, size * sizeof *at);
  if (!at) return MN_ERR_MEMORY;
  for (size_t i = 0; i < t->size; i++)
    if (t->at[i].key) *slot(t, at, size, t->at[i].key, t->at[i].hash) = t->at[i];
  t->at = at;
  t->size = size;
  return MN_OK;
}

mn_status mn_table_put(mn_table *t, const void *key, int value) {
  if (2 * (t->count + 1) > t->size) MN_TRY(grow(t));
  const uint64_t hash = hash_of(t, key);
  mn_table_entry *e = slot(t, t->at, t->size, key, hash);
  t->count += !e->key;
  *e = (mn_table_entry){e->key ? e->key : key, hash, value};
  return MN_OK;
}

int mn_table_find(const mn_table *t, const void *key, int otherwise) {
  if (!t->size) return otherwise;
  const mn_table_entry *e = slot(t, t->at, t->size, key, hash_of(t, key));
  return e->key ? e->value : otherwise;
}
