/* trie.h - strings found at a place of a text: all that begin there, shortest first. A hash table from (node, byte) to node. */
#ifndef MN_TRIE_H
#define MN_TRIE_H

#include "base/base.h"

typedef struct mn_trie {
  uint64_t *slot; /* (node << 8 | byte) + 1 in the upper half, the child in the lower; 0 empty */
  uint32_t mask, n_nodes, cap;
  int32_t *value; /* (cap) of each node; -1: no string ends here */
  uint32_t longest;
} mn_trie;

mn_status mn_trie_add(mn_trie *t, const char *s, size_t n, int32_t value); /* n >= 1; what is there already keeps its value */
void mn_trie_free(mn_trie *t);

enum { MN_TRIE_ROOT = 0, MN_TRIE_NONE = -1 };
static inline int32_t mn_trie_step(const mn_trie *t, int32_t node, unsigned char byte) {
  uint32_t key = ((uint32_t)node << 8 | byte) + 1;
  for (uint32_t i = key * 2654435769u >> 4 & t->mask;; i = (i + 1) & t->mask) {
    uint64_t x = t->slot[i];
    if (x >> 32 == key) return (int32_t)(uint32_t)x;
    if (!x) return MN_TRIE_NONE;
  }
}

/* The value of exactly this string; -1: it is not there. */
static inline int32_t mn_trie_find(const mn_trie *t, const char *s, size_t n) {
  int32_t node = t->cap ? MN_TRIE_ROOT : MN_TRIE_NONE;
  for (size_t i = 0; i < n && node != MN_TRIE_NONE; i++) node = mn_trie_step(t, node, (unsigned char)s[i]);
  return node == MN_TRIE_NONE ? -1 : t->value[node];
}

#endif
