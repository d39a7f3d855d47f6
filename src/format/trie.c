/* trie.c - see trie.h. */
#include "format/trie.h"

#include <stdlib.h>

enum { MOST_NODES = (1 << 24) - 1 };

static void put(mn_trie *t, uint32_t key, uint32_t child) {
  uint32_t i = key * 2654435769u >> 4 & t->mask;
  while (t->slot[i]) i = (i + 1) & t->mask;
  t->slot[i] = (uint64_t)key << 32 | child;
}

static mn_status grow(mn_trie *t) {
  uint32_t cap = t->cap ? t->cap * 2 : 256;
  int32_t *value = mn_realloc(t->value, cap * sizeof *value);
  if (!value) return MN_ERR_MEMORY;
  t->value = value;
  uint64_t *old = t->slot, *slot = mn_calloc((size_t)cap * 2, sizeof *slot);
  if (!slot) return MN_ERR_MEMORY;
  uint32_t had = t->cap ? t->mask + 1 : 0;
  t->slot = slot;
  t->mask = cap * 2 - 1;
  t->cap = cap;
  for (uint32_t i = 0; i < had; i++)
    if (old[i]) put(t, (uint32_t)(old[i] >> 32), (uint32_t)old[i]);
  free(old);
  return MN_OK;
}

mn_status mn_trie_add(mn_trie *t, const char *s, size_t n, int32_t value) {
  if (!t->cap) {
    MN_TRY(grow(t));
    t->value[t->n_nodes++] = -1;
  }
  int32_t node = MN_TRIE_ROOT;
  for (size_t i = 0; i < n; i++) {
    int32_t next = mn_trie_step(t, node, (unsigned char)s[i]);
    if (next == MN_TRIE_NONE) {
      if (t->n_nodes == MOST_NODES) return mn_fail(MN_ERR_FORMAT, "a vocabulary whose tokens have more than %d beginnings", MOST_NODES);
      if (t->n_nodes == t->cap) MN_TRY(grow(t));
      next = (int32_t)t->n_nodes++;
      t->value[next] = -1;
      put(t, ((uint32_t)node << 8 | (unsigned char)s[i]) + 1, (uint32_t)next);
    }
    node = next;
  }
  if (t->value[node] < 0) t->value[node] = value;
  if (n > t->longest) t->longest = (uint32_t)n;
  return MN_OK;
}

void mn_trie_free(mn_trie *t) {
  free(t->slot);
  free(t->value);
  *t = (mn_trie){0};
}
