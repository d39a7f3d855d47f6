/* arena.c - a bump allocator: blocks are taken from malloc and freed all at once. The first is small and each is as long as all
 * before it, up to BLOCK: the body of every loop of every layer has arenas of its own, and most hold little. Memory is zeroed when it is
 * given out, not block by block: it is about to be written, and is in the nearest cache then. */
#define _GNU_SOURCE
#include "base/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { FIRST = 1 << 11, BLOCK = 1 << 16, ALIGN = 16 };

typedef struct block {
  struct block *next;
  size_t size, used;
} block;

struct mn_arena {
  block *head;
  size_t used;
};

mn_arena *mn_arena_new(void) { return mn_calloc(1, sizeof(mn_arena)); }

void mn_arena_free(mn_arena *arena) {
  if (!arena) return;
  for (block *b = arena->head, *next; b; b = next) {
    next = b->next;
    free(b);
  }
  free(arena);
}

/* The pages of a block that is soon full, all at once: for each that is touched for the first time the system would stop the thread.
 * Where the system cannot, it does. */
static void ask_for_pages(const block *b) {
#if defined(MADV_POPULATE_WRITE)
  enum { PAGE = 4096 };
  const size_t from = mn_align((size_t)b, PAGE), end = ((size_t)b + b->size) / PAGE * PAGE;
  if (b->size >= BLOCK && from < end) madvise((void *)from, end - from, MADV_POPULATE_WRITE);
#else
  (void)b;
#endif
}

/* *zeroed: its block is its own, and new from the system it mostly is zeros already. */
static void *take(mn_arena *arena, size_t n, bool *zeroed) {
  *zeroed = false;
  if (n > SIZE_MAX / 2) {
    mn_fail(MN_ERR_MEMORY, "out of memory: %zu bytes asked of an arena", n);
    return NULL;
  }
  n = mn_align(n ? n : 1, ALIGN);
  const size_t header = mn_align(sizeof(block), ALIGN);
  block *b = arena->head;
  if (!b || b->size - b->used < n) {
    size_t size = arena->used < FIRST ? FIRST : arena->used < BLOCK ? arena->used : BLOCK;
    *zeroed = n > size;
    size = header + (n > size ? n : size);
    b = *zeroed ? mn_calloc(1, size) : mn_alloc(size);
    if (!b) return NULL;
    b->size = size;
    b->used = header;
    b->next = arena->head;
    arena->head = b;
    if (!*zeroed) ask_for_pages(b);
  }
  void *p = (char *)b + b->used;
  b->used += n;
  arena->used += n;
  return p;
}

void *mn_arena_room(mn_arena *arena, size_t n) {
  bool zeroed;
  return take(arena, n, &zeroed);
}

void *mn_arena_alloc(mn_arena *arena, size_t n) {
  bool zeroed;
  void *p = take(arena, n, &zeroed);
  return p && !zeroed ? memset(p, 0, n) : p;
}

char *mn_arena_strdup(mn_arena *arena, const char *s) {
  size_t n = strlen(s) + 1;
  char *p = mn_arena_alloc(arena, n);
  if (p) memcpy(p, s, n);
  return p;
}

char *mn_arena_format(mn_arena *arena, const char *fmt, ...) {
  va_list ap, again;
  va_start(ap, fmt);
  va_copy(again, ap);
  int n = vsnprintf(NULL, 0, fmt, ap);
  va_end(ap);
  char *p = n < 0 ? NULL : mn_arena_alloc(arena, (size_t)n + 1);
  if (p) vsnprintf(p, (size_t)n + 1, fmt, again);
  va_end(again);
  return p;
}

size_t mn_arena_used(const mn_arena *arena) { return arena->used; }
