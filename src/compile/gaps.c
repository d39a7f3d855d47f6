/* gaps.c - see gaps.h: a treap (Aragon & Seidel 1989) of gaps by offset; each node knows the largest gap below it. Priorities
 * are a function of the order of calls, so the same calls give the same offsets. */
#include "compile/gaps.h"

#include <stdlib.h>

typedef struct gap {
  size_t at, bytes, most; /* most: the largest `bytes` here and below */
  uint64_t priority;
  int left, right; /* 0: none */
} gap;

struct mn_gaps {
  gap *node;           /* [0] stands for none */
  int root, n, unused; /* unused: list through `left` */
  uint64_t made;
  size_t end;
};

static int node_new(mn_gaps *g, size_t at, size_t bytes) {
  int i = g->unused;
  if (i) g->unused = g->node[i].left;
  else i = ++g->n;
  g->node[i] = (gap){.at = at, .bytes = bytes, .most = bytes, .priority = mn_splitmix64(++g->made)};
  return i;
}

static void node_drop(mn_gaps *g, int i) {
  g->node[i].left = g->unused;
  g->unused = i;
}

static void count(mn_gaps *g, int i) {
  gap *x = &g->node[i];
  x->most = x->bytes;
  if (g->node[x->left].most > x->most) x->most = g->node[x->left].most;
  if (g->node[x->right].most > x->most) x->most = g->node[x->right].most;
}

static int join(mn_gaps *g, int a, int b) { /* all of a lie before all of b */
  if (!a || !b) return a ? a : b;
  const bool a_above = g->node[a].priority > g->node[b].priority;
  if (a_above) g->node[a].right = join(g, g->node[a].right, b);
  else g->node[b].left = join(g, a, g->node[b].left);
  count(g, a_above ? a : b);
  return a_above ? a : b;
}

static void split(mn_gaps *g, int i, size_t at, int *before, int *from) { /* gaps that begin before `at`, and the others */
  if (!i) {
    *before = *from = 0;
  } else if (g->node[i].at < at) {
    split(g, g->node[i].right, at, &g->node[i].right, from);
    count(g, *before = i);
  } else {
    split(g, g->node[i].left, at, before, &g->node[i].left);
    count(g, *from = i);
  }
}

mn_gaps *mn_gaps_new(int most, size_t limit) {
  mn_gaps *g = mn_calloc(1, sizeof *g);
  if (!g) return NULL;
  g->node = mn_calloc((size_t)most + 4, sizeof *g->node); /* ranges taken lie between the gaps */
  if (!g->node) {
    free(g);
    return NULL;
  }
  g->end = limit;
  if (limit) g->root = node_new(g, 0, limit);
  return g;
}

void mn_gaps_free(mn_gaps *g) {
  if (g) free(g->node);
  free(g);
}

size_t mn_gaps_end(const mn_gaps *g) { return g->end; }

static int last_of(const mn_gaps *g, int i) {
  while (i && g->node[i].right) i = g->node[i].right;
  return i;
}

static int first_of(const mn_gaps *g, int i) {
  while (i && g->node[i].left) i = g->node[i].left;
  return i;
}

static void give(mn_gaps *g, size_t at, size_t bytes) {
  int before, after, a, b;
  split(g, g->root, at, &before, &after);
  a = last_of(g, before), b = first_of(g, after);
  if (a && g->node[a].at + g->node[a].bytes == at) {
    int gone;
    split(g, before, g->node[a].at, &before, &gone);
    at = g->node[a].at;
    bytes += g->node[a].bytes;
    node_drop(g, a);
  }
  if (b && at + bytes == g->node[b].at) {
    int gone;
    split(g, after, g->node[b].at + 1, &gone, &after);
    bytes += g->node[b].bytes;
    node_drop(g, b);
  }
  g->root = join(g, join(g, before, node_new(g, at, bytes)), after);
}

void mn_gaps_give(mn_gaps *g, size_t offset, size_t bytes) {
  if (bytes) give(g, offset, bytes);
}

size_t mn_gaps_take(mn_gaps *g, size_t bytes, bool high) {
  if (g->node[g->root].most < bytes || !g->root) { /* grow by what the last gap lacks */
    const int last = last_of(g, g->root);
    const size_t has = last && g->node[last].at + g->node[last].bytes == g->end ? g->node[last].bytes : 0;
    give(g, g->end, bytes - has);
    g->end += bytes - has;
  }
  int i = g->root;
  for (;;) {
    const gap *x = &g->node[i];
    const int near = high ? x->right : x->left;
    if (near && g->node[near].most >= bytes) i = near;
    else if (x->bytes >= bytes) break;
    else i = high ? x->left : x->right;
  }
  const size_t at = g->node[i].at, has = g->node[i].bytes;
  int before, after, gone;
  split(g, g->root, at, &before, &after);
  split(g, after, at + 1, &gone, &after);
  node_drop(g, i);
  const size_t rest = has - bytes;
  if (rest) before = join(g, before, node_new(g, high ? at : at + bytes, rest));
  g->root = join(g, before, after);
  return high ? at + rest : at;
}
