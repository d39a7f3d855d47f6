/* table.h - a hash table from keys to numbers, in an arena. Keys are names (compared as text) or addresses (compared as such);
 * both are kept by pointer and must live as long as the table. What is looked up once per layer is looked up here: a search
 * through a list makes building quadratic in layers. */
#ifndef MN_TABLE_H
#define MN_TABLE_H

#include "base/base.h"

typedef struct mn_table_entry {
  const void *key; /* NULL: free */
  uint64_t hash;
  int value;
} mn_table_entry;

typedef struct mn_table { /* {.arena = a, .names = true} is an empty table of names */
  mn_arena *arena;
  bool names;
  size_t count, size; /* size: a power of two, 0 while empty */
  mn_table_entry *at;
} mn_table;

/* Sets the key's number, an earlier one included. MN_ERR_MEMORY leaves the table as it was. */
mn_status mn_table_put(mn_table *t, const void *key, int value);
int mn_table_find(const mn_table *t, const void *key, int otherwise);

#endif
