/* repeats.c - see repeats.h: finding what repeats itself, and graphs with other numbers of layers. */
#include "compile/repeats.h"
#include "graph/ahead.h"
#include "graph/compose.h"
#include "graph/loops_alike.h"
#include "graph/ops.h"

#include <stdlib.h>
#include <string.h>

enum { NEAR = 4 }; /* layers between a node and what it reads, at most */

/* ---- candidates: operations that come again and again at the same distance ---- */
static inline __attribute__((always_inline)) void ahead(const mn_graph *g, int i) {
  enum { NODES = 16, OPERANDS = 8 };
  if (mn_node_ahead(g, i, NODES)) mn_operands_ahead(g->nodes[i + OPERANDS]);
}

static uint64_t hash_shape(uint64_t h, const mn_tensor *t) {
  h = mn_hash_mix(h, (uint64_t)t->dtype * 16 + (uint64_t)t->shape.ndim);
  for (int d = 0; d < t->shape.ndim; d++) h = mn_hash_mix(h, (uint64_t)t->shape.dim[d]);
  return h;
}

/* What is soon told of a node: most nodes of a layer differ in it, or in what stands around them. */
static uint32_t hash_of(const mn_node *n) {
  uint64_t h = mn_hash_mix((uint64_t)(uintptr_t)n->op, (uint64_t)n->phase * 2 + n->mute);
  h = mn_hash_mix(h, (uint64_t)n->n_in << 32 | (uint32_t)n->n_out);
  if (n->n_out) h = hash_shape(h, n->out[0]);
  if (n->n_in) h = hash_shape(h, n->in[0]);
  if (mn_is(n, MN_IS_LOOP)) return (uint32_t)mn_hash_mix(h, (uint64_t)((const mn_scan_attr *)n->attr)->body->n_nodes);
  const mn_const_attr *constant = mn_is(n, MN_IS_CONST) ? n->attr : NULL;
  if (constant) return (uint32_t)(constant->is_full ? mn_hash_words(&constant->value, sizeof constant->value, h) : h);
  const size_t bytes = mn_attr_bytes(n->op, n->attr);
  return (uint32_t)(bytes && !n->op->distinct ? mn_hash_words(n->attr, bytes, h) : h);
}

typedef struct kind {    /* of nodes with one hash */
  uint32_t hash;         /* of a free one `last` is -1 */
  int last, period, run; /* its last node, how far from the one before, and so many in a row at that distance */
  int64_t most;          /* nodes that the longest row spans ... */
  int at, of;            /* ... which ends at this node, at this distance */
} kind;

typedef struct kinds {
  kind *at;
  size_t size, used; /* size: a power of two, of which at most half is used */
} kinds;

static kind *kind_of(kinds *k, uint32_t hash) {
  size_t i = hash & (k->size - 1);
  while (k->at[i].last >= 0 && k->at[i].hash != hash) i = (i + 1) & (k->size - 1);
  return &k->at[i];
}

static mn_status more_kinds(kinds *k) {
  kinds now = {.size = k->size ? 2 * k->size : 1024, .used = k->used};
  if (!(now.at = mn_alloc(now.size * sizeof *now.at))) return MN_ERR_MEMORY;
  for (size_t i = 0; i < now.size; i++) now.at[i].last = -1;
  for (size_t i = 0; i < k->size; i++)
    if (k->at[i].last >= 0) *kind_of(&now, k->at[i].hash) = k->at[i];
  free(k->at);
  *k = now;
  return MN_OK;
}

static mn_status count(kinds *k, const uint32_t *hash, int n, int fewest) {
  for (int i = 0; i < n; i++) {
    if (2 * (k->used + 1) > k->size) MN_TRY(more_kinds(k));
    kind *x = kind_of(k, hash[i]);
    if (x->last < 0) {
      *x = (kind){.hash = hash[i], .last = i};
      k->used++;
      continue;
    }
    const int period = i - x->last;
    x->run = period == x->period ? x->run + 1 : 1;
    x->period = period;
    x->last = i;
    if (x->run >= fewest && (int64_t)x->run * period > x->most) x->most = (int64_t)x->run * period, x->at = i, x->of = period;
  }
  return MN_OK;
}

static int by_span(const void *a, const void *b) { /* the longest first, of those as long the one that comes earlier */
  const kind *x = a, *y = b;
  return x->most != y->most ? (x->most < y->most ? 1 : -1) : x->at - y->at;
}
static int by_start(const void *a, const void *b) { return ((const mn_stretch *)a)->start - ((const mn_stretch *)b)->start; }

/* All that repeats itself around a row of nodes of one kind, by hash. */
static mn_stretch around(const kind *x, const uint32_t *hash, int n) {
  int start = x->at - x->of, end = x->at + 1;
  while (start > 0 && hash[start - 1] == hash[start - 1 + x->of]) start--;
  while (end < n && hash[end] == hash[end - x->of]) end++;
  return (mn_stretch){.start = start, .period = x->of, .count = (end - start) / x->of};
}

static void candidates(kinds *k, const uint32_t *hash, int n, int fewest, mn_layers *l) {
  enum { TRIES = 64 };
  size_t rows = 0;
  for (size_t i = 0; i < k->size; i++)
    if (k->at[i].last >= 0 && k->at[i].most) k->at[rows++] = k->at[i];
  qsort(k->at, rows, sizeof *k->at, by_span);
  for (size_t i = 0, tries = 0; i < rows && tries < TRIES && l->n < MN_STRETCHES; i++) {
    const int from = k->at[i].at - (int)k->at[i].most, to = k->at[i].at;
    bool within = false, apart = true;
    for (int r = 0; r < l->n; r++) {
      const mn_stretch *s = &l->stretch[r];
      within |= from < s->start + s->count * s->period && to >= s->start;
    }
    if (within) continue;
    tries++;
    const mn_stretch found = around(&k->at[i], hash, n);
    for (int r = 0; r < l->n; r++) {
      const mn_stretch *s = &l->stretch[r];
      apart &= found.start >= s->start + s->count * s->period || found.start + found.count * found.period <= s->start;
    }
    if (apart && found.count >= fewest) l->stretch[l->n++] = found;
  }
  qsort(l->stretch, (size_t)l->n, sizeof *l->stretch, by_start);
}

/* ---- what of them is true ---- */
static int stretch_at(const mn_layers *l, int id) {
  for (int r = 0; r < l->n; r++)
    if (id >= l->stretch[r].start && id < l->stretch[r].start + l->stretch[r].period * l->stretch[r].count) return r;
  return -1;
}

/* By how many layers operand b of a node stands further than operand a of the one before: 0, 1 or -1; FAR: by no such number. */
enum { FAR = 2 };
static int further_by(const mn_layers *l, int a, int b) {
  if (a == b) return 0;
  int r = stretch_at(l, a);
  if (r < 0) r = stretch_at(l, b);
  if (r < 0) return FAR;
  return b - a == l->stretch[r].period ? 1 : a - b == l->stretch[r].period ? -1 : FAR;
}

/* Does b repeat a, and read what it reads as far from that as `next` does of `one`, which stand so, too? */
static bool repeats(const mn_layers *l, const mn_node *a, const mn_node *b, const mn_node *one, const mn_node *next) {
  if (!mn_node_alike(a, b) || !mn_node_alike(one, next) || one->n_in != a->n_in) return false;
  for (int k = 0; k < a->n_in; k++) {
    const int by = further_by(l, a->in[k]->node->id, b->in[k]->node->id);
    if (by == FAR || by != further_by(l, one->in[k]->node->id, next->in[k]->node->id) || a->in[k]->out != b->in[k]->out) return false;
  }
  return true;
}

/* From the middle of stretch s to where it ends in truth, on both sides. */
static mn_stretch true_part(const mn_graph *g, const mn_layers *l, const mn_stretch *s) {
  const int end = s->start + s->period * s->count, middle = s->start + s->count / 2 * s->period;
  int from = middle, to = middle;
  for (; to + s->period < end; ahead(g, ++to + s->period)) {
    const int like = middle + (to - middle) % s->period;
    if (!repeats(l, g->nodes[to], g->nodes[to + s->period], g->nodes[like], g->nodes[like + s->period])) break;
  }
  for (; from > s->start; from--) {
    const int like = middle + s->period - 1 - (middle - from) % s->period;
    if (!repeats(l, g->nodes[from - 1], g->nodes[from - 1 + s->period], g->nodes[like], g->nodes[like + s->period])) break;
  }
  return (mn_stretch){.start = from, .period = s->period, .count = (to + s->period - from) / s->period};
}

/* What all layers read, as the first's values, is in no layer: stretches end before it, or begin after it. */
static void leave_out_shared(const mn_graph *g, mn_layers *l) {
  for (int r = 0; r < l->n; r++) {
    const int at = l->stretch[r].start + l->stretch[r].count / 2 * l->stretch[r].period;
    for (int i = at; i < at + l->stretch[r].period && l->stretch[r].count > 1; i++)
      for (int k = 0; k < g->nodes[i]->n_in; k++) {
        const int a = g->nodes[i]->in[k]->node->id, of = stretch_at(l, a);
        if (of < 0 || g->nodes[i - l->stretch[r].period]->in[k]->node->id != a) continue;
        mn_stretch *s = &l->stretch[of];
        const int number = (a - s->start) / s->period, early = number < s->count / 2;
        if (early) s->start += (number + 1) * s->period;
        s->count = early ? s->count - number - 1 : number;
      }
  }
}

/* How repetitions of stretch `reader` read those of stretch `of`, by the first that do: number r reads number sign r + offset. */
static bool relation(const mn_graph *g, const mn_layers *l, int reader, int of, int *sign, int *offset) {
  const mn_stretch *s = &l->stretch[reader], *t = &l->stretch[of];
  const int half = s->count / 2, at = s->start + half * s->period;
  for (int i = at; i < at + s->period; i++)
    for (int k = 0; k < g->nodes[i]->n_in; k++) {
      const int a = g->nodes[i]->in[k]->node->id, b = g->nodes[i + s->period]->in[k]->node->id;
      if (a == b || stretch_at(l, a) != of || stretch_at(l, b) != of) continue;
      *sign = b > a ? 1 : -1;
      *offset = (a - t->start) / t->period - *sign * half;
      return true;
    }
  return false;
}

/* Which layers stretch r is of, where that of stretch `known` is known. */
static bool find_way(const mn_graph *g, mn_layers *l, int r, int known) {
  mn_stretch *s = &l->stretch[r];
  const mn_stretch *k = &l->stretch[known];
  int sign, offset;
  if (relation(g, l, r, known, &sign, &offset)) {
    s->way = k->way * sign;
    s->first = k->first + k->way * offset;
    return true;
  }
  if (!relation(g, l, known, r, &sign, &offset)) return false;
  s->way = k->way * sign;
  s->first = k->first - s->way * offset;
  return true;
}

/* From the longest stretch on, those that read each other; the others are not of these layers. The first runs forwards. */
static void find_ways(const mn_graph *g, mn_layers *l) {
  int longest = 0, n = 0;
  for (int r = 1; r < l->n; r++)
    if (l->stretch[r].count * l->stretch[r].period > l->stretch[longest].count * l->stretch[longest].period) longest = r;
  if (l->n) l->stretch[longest].way = 1;
  for (bool more = true; more;) {
    more = false;
    for (int r = 0; r < l->n; r++)
      for (int k = 0; k < l->n && !l->stretch[r].way; k++) more |= l->stretch[k].way && find_way(g, l, r, k);
  }
  for (int r = 0; r < l->n; r++)
    if (l->stretch[r].way) l->stretch[n++] = l->stretch[r];
  l->n = n;
  for (int r = n - 1; r >= 0 && l->stretch[0].way < 0; r--) l->stretch[r].way *= -1, l->stretch[r].first *= -1;
}

static void common_layers(mn_layers *l) {
  for (int r = 0; r < l->n; r++) {
    const mn_stretch *s = &l->stretch[r];
    const int last = s->first + s->way * (s->count - 1), low = s->way > 0 ? s->first : last, high = (s->way > 0 ? last : s->first) + 1;
    if (r == 0 || low > l->low) l->low = low;
    if (r == 0 || high < l->high) l->high = high;
  }
}

static void what_is_true(const mn_graph *g, int fewest, mn_layers *l) {
  mn_layers parts = {0};
  for (int r = 0; r < l->n; r++) {
    const mn_stretch s = true_part(g, l, &l->stretch[r]);
    if (s.count >= fewest) parts.stretch[parts.n++] = s;
  }
  leave_out_shared(g, &parts);
  find_ways(g, &parts);
  common_layers(&parts);
  *l = parts;
  if (l->n == 0 || l->high - l->low < fewest) *l = (mn_layers){0};
}

mn_status mn_layers_find(const mn_graph *g, int fewest, mn_layers *l) {
  kinds k = {0};
  uint32_t *hash = mn_alloc(((size_t)g->n_nodes + 1) * sizeof *hash);
  mn_status status = hash ? MN_OK : MN_ERR_MEMORY;
  *l = (mn_layers){0};
  for (int i = 0; i < g->n_nodes && status == MN_OK; i++) {
    ahead(g, i);
    hash[i] = hash_of(g->nodes[i]);
  }
  if (status == MN_OK) status = count(&k, hash, g->n_nodes, fewest);
  if (status == MN_OK) {
    candidates(&k, hash, g->n_nodes, fewest, l);
    what_is_true(g, fewest, l);
  }
  free(hash);
  free(k.at);
  return status;
}

/* ---- places ---- */
mn_layer_place mn_layers_place(const mn_layers *l, int id) {
  const int r = stretch_at(l, id);
  if (r < 0) return (mn_layer_place){-1, 0, id};
  const mn_stretch *s = &l->stretch[r];
  return (mn_layer_place){r, s->first + s->way * ((id - s->start) / s->period), (id - s->start) % s->period};
}

int mn_layers_at(const mn_layers *l, mn_layer_place p) {
  const mn_stretch *s = &l->stretch[p.stretch];
  const int repetition = s->way * (p.layer - s->first);
  return repetition < 0 || repetition >= s->count ? -1 : s->start + repetition * s->period + p.k;
}

mn_layers mn_layers_with(const mn_layers *l, int more) {
  mn_layers now = *l;
  int moved = 0;
  for (int r = 0; r < l->n; r++) {
    mn_stretch *s = &now.stretch[r];
    s->start += moved;
    s->count += more;
    if (s->way < 0) s->first += more;
    moved += more * s->period;
  }
  now.high += more;
  return now;
}

/* ---- another number of layers ---- */
mn_resize mn_resize_of(const mn_layers *l, int cut, int more) { return (mn_resize){*l, mn_layers_with(l, more), cut, more}; }

/* So many nodes that stand in none come later, where number `id` counts in graph `l`. */
static int moved(const mn_resize *z, const mn_layers *l, int id) {
  int n = 0;
  for (int r = 0; r < l->n; r++)
    if (id >= l->stretch[r].start) n += z->more * l->stretch[r].period;
  return n;
}

/* The old layer that one of the new graph is made of. */
static int made_of(const mn_resize *z, int layer) {
  return layer < z->cut ? layer : layer < z->cut + z->more ? z->cut - 1 : layer - z->more;
}

int mn_resized_id(const mn_resize *z, int id) {
  mn_layer_place p = mn_layers_place(&z->old, id);
  if (p.stretch < 0) return id + moved(z, &z->old, id);
  if (p.layer >= z->cut && p.layer < z->cut - z->more) return -1;
  if (p.layer >= z->cut) p.layer += z->more;
  return mn_layers_at(&z->now, p);
}

int mn_resized_from(const mn_resize *z, int now) {
  mn_layer_place p = mn_layers_place(&z->now, now);
  if (p.stretch < 0) return now - moved(z, &z->now, now);
  p.layer = made_of(z, p.layer);
  return mn_layers_at(&z->old, p);
}

int mn_resized_beside(const mn_resize *z, int now, int other) {
  const mn_layer_place at = mn_layers_place(&z->now, now);
  mn_layer_place p = mn_layers_place(&z->old, other);
  if (at.stretch < 0 || p.stretch < 0) return mn_resized_id(z, other);
  p.layer += at.layer - made_of(z, at.layer);
  return mn_layers_at(&z->now, p);
}

/* Do all layers read what they read in the same way, where the cut is? Outside of all stretches the same, else what is near. */
static bool can_be_cut(const mn_resize *z, const mn_graph *g) {
  for (int r = 0; r < z->old.n; r++)
    for (int k = 0; k < z->old.stretch[r].period; k++) {
      const int low = mn_layers_at(&z->old, (mn_layer_place){r, z->cut - 1, k}),
                high = mn_layers_at(&z->old, (mn_layer_place){r, z->cut, k});
      if (low < 0 || high < 0) return false;
      for (int i = 0; i < g->nodes[low]->n_in; i++) {
        const int a = g->nodes[low]->in[i]->node->id, b = g->nodes[high]->in[i]->node->id;
        const mn_layer_place p = mn_layers_place(&z->old, a), q = mn_layers_place(&z->old, b);
        if (p.stretch != q.stretch || p.k != q.k) return false;
        if (p.stretch >= 0 && (q.layer != p.layer + 1 || abs(p.layer - z->cut + 1) > NEAR)) return false;
      }
    }
  return true;
}

/* The next node of the new graph. */
static bool add(const mn_resize *z, const mn_graph *g, mn_graph *to, mn_tensor **in) {
  const int now = to->n_nodes, from = mn_resized_from(z, now);
  if (from < 0 || from >= g->n_nodes) return false;
  const mn_node *n = g->nodes[from];
  const mn_const_attr *constant = mn_is(n, MN_IS_CONST) ? n->attr : NULL;
  if (constant && constant->is_full && n->out[0]->shape.ndim == 0) { /* a pass may have made it: its memory goes with it */
    mn_tensor *t = mn_scalar(to, n->out[0]->dtype, constant->value);
    if (t) t->node->phase = n->phase;
    return t != NULL;
  }
  for (int k = 0; k < n->n_in; k++) {
    const int id = mn_resized_beside(z, now, n->in[k]->node->id);
    if (id < 0 || id >= now) return false;
    in[k] = to->nodes[id]->out[n->in[k]->out];
  }
  return mn_node_again(to, n, in) != NULL;
}

mn_status mn_layers_resize(const mn_resize *z, const mn_graph *g, mn_graph *to, bool *ok) {
  int most = 0;
  for (int i = 0; i < g->n_nodes; i++) most = g->nodes[i]->n_in > most ? g->nodes[i]->n_in : most;
  const int nodes = g->n_nodes + moved(z, &z->old, g->n_nodes);
  mn_tensor **in = mn_alloc(((size_t)most + 1) * sizeof *in);
  to->nodes = mn_arena_alloc(to->arena, ((size_t)nodes + 1) * sizeof *to->nodes);
  if (!in || !to->nodes) {
    free(in);
    return MN_ERR_MEMORY;
  }
  to->cap_nodes = nodes + 1;
  *ok = can_be_cut(z, g);
  while (*ok && to->n_nodes < nodes) *ok = add(z, g, to, in);
  free(in);
  return mn_graph_status(to);
}
