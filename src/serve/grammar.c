/* grammar.c - see grammar.h: building. */
#include "serve/grammar_internal.h"

#include <stdlib.h>
#include <string.h>

mn_status mn_grammar_new(mn_grammar **out) {
  *out = mn_calloc(1, sizeof **out);
  return *out ? MN_OK : MN_ERR_MEMORY;
}

void mn_grammar_free(mn_grammar *g) {
  if (!g) return;
  free(g->nodes);
  free(g->rules);
  free(g);
}

static mn_bytes_node add(mn_grammar *g, grammar_node node) {
  if (g->fault != MN_OK) return MN_NO_NODE;
  if (g->n == MN_GRAMMAR_NODES) {
    g->fault = MN_ERR_CONFIG;
    return MN_NO_NODE;
  }
  if (g->n == g->cap) {
    const int32_t cap = g->cap ? g->cap * 2 : 256;
    grammar_node *more = mn_realloc(g->nodes, (size_t)cap * sizeof *more);
    if (!more) {
      g->fault = MN_ERR_MEMORY;
      return MN_NO_NODE;
    }
    g->nodes = more, g->cap = cap;
  }
  g->nodes[g->n] = node;
  return g->n++;
}

mn_bytes_node mn_grammar_range(mn_grammar *g, int low, int high, mn_bytes_node next) {
  return add(g, (grammar_node){.kind = NODE_BYTES, .low = (uint8_t)low, .high = (uint8_t)high, .next = next, .other = MN_NO_NODE});
}

mn_bytes_node mn_grammar_set(mn_grammar *g, const char *bytes, mn_bytes_node next) {
  mn_bytes_node out = MN_NO_NODE;
  for (const char *c = bytes; *c; c++) {
    const mn_bytes_node one = mn_grammar_range(g, (unsigned char)*c, (unsigned char)*c, next);
    out = out == MN_NO_NODE ? one : mn_grammar_either(g, out, one);
  }
  return out;
}

mn_bytes_node mn_grammar_text(mn_grammar *g, const char *s, size_t n, mn_bytes_node next) {
  while (n-- > 0) next = mn_grammar_range(g, (unsigned char)s[n], (unsigned char)s[n], next);
  return next;
}

mn_bytes_node mn_grammar_either(mn_grammar *g, mn_bytes_node a, mn_bytes_node b) {
  return add(g, (grammar_node){.kind = NODE_EITHER, .next = a, .other = b});
}
mn_bytes_node mn_grammar_place(mn_grammar *g) {
  return add(g, (grammar_node){.kind = NODE_EITHER, .next = MN_NO_NODE, .other = MN_NO_NODE});
}
void mn_grammar_put(mn_grammar *g, mn_bytes_node place, mn_bytes_node to) {
  if (place != MN_NO_NODE) g->nodes[place].next = to;
}

int32_t mn_grammar_rule(mn_grammar *g) {
  if (g->n_rules == g->cap_rules) {
    const int32_t cap = g->cap_rules ? g->cap_rules * 2 : 32;
    mn_bytes_node *more = mn_realloc(g->rules, (size_t)cap * sizeof *more);
    if (!more) {
      g->fault = MN_ERR_MEMORY;
      return 0;
    }
    g->rules = more, g->cap_rules = cap;
  }
  g->rules[g->n_rules] = MN_NO_NODE;
  return g->n_rules++;
}

mn_bytes_node mn_grammar_return(mn_grammar *g) {
  return add(g, (grammar_node){.kind = NODE_RETURN, .next = MN_NO_NODE, .other = MN_NO_NODE});
}
void mn_grammar_define(mn_grammar *g, int32_t rule, mn_bytes_node begin) {
  if (rule < g->n_rules) g->rules[rule] = begin;
}
mn_bytes_node mn_grammar_call(mn_grammar *g, int32_t rule, mn_bytes_node next) {
  return add(g, (grammar_node){.kind = NODE_CALL, .next = next, .other = rule});
}

/* ---- is there a text that ends ---- */
typedef struct end_search {
  const mn_grammar *g;
  bool *ends;     /* from here an end is reached */
  int32_t *first; /* of a node, where those begin in `before` that could end by it; and one more */
  int32_t *before, *stack, n;
} end_search;

/* Where a node leads: what follows, the other way, what it calls. MN_NO_NODE: nowhere. */
static void leads(const mn_grammar *g, mn_bytes_node i, mn_bytes_node to[2]) {
  const grammar_node *x = &g->nodes[i];
  to[0] = x->next;
  to[1] = x->kind == NODE_EITHER ? x->other : x->kind == NODE_CALL ? g->rules[x->other] : MN_NO_NODE;
}

static void link_back(end_search *s) {
  mn_bytes_node to[2];
  for (mn_bytes_node i = 0; i < s->g->n; i++) {
    leads(s->g, i, to);
    for (int k = 0; k < 2; k++)
      if (to[k] != MN_NO_NODE) s->first[to[k]]++;
  }
  for (mn_bytes_node i = 0, sum = 0; i <= s->g->n; i++) sum += s->first[i], s->first[i] = sum; /* where each ends, for now */
  for (mn_bytes_node i = 0; i < s->g->n; i++) {
    leads(s->g, i, to);
    for (int k = 0; k < 2; k++)
      if (to[k] != MN_NO_NODE) s->before[--s->first[to[k]]] = i;
  }
}

static void look_at(end_search *s, mn_bytes_node i) {
  mn_bytes_node to[2];
  const grammar_kind kind = s->g->nodes[i].kind;
  leads(s->g, i, to);
  const bool next = to[0] != MN_NO_NODE && s->ends[to[0]], other = to[1] != MN_NO_NODE && s->ends[to[1]];
  if (s->ends[i] || !(kind == NODE_RETURN || (kind == NODE_CALL ? next && other : next || other))) return;
  s->ends[i] = true;
  s->stack[s->n++] = i;
}

/* A way that no end is reached by is none: what a machine may say then can always be completed. */
static void cut(mn_grammar *g, const bool *ends) {
  for (mn_bytes_node i = 0; i < g->n; i++) {
    grammar_node *x = &g->nodes[i];
    if (x->kind != NODE_EITHER) continue;
    if (x->next != MN_NO_NODE && !ends[x->next]) x->next = MN_NO_NODE;
    if (x->other != MN_NO_NODE && !ends[x->other]) x->other = MN_NO_NODE;
  }
}

/* Is there a text that the rule says? From the ends backwards, each link once. */
static mn_status check_ends(mn_grammar *g, int32_t rule) {
  const size_t n = (size_t)g->n;
  end_search s = {.g = g, .ends = mn_calloc(n + 1, sizeof *s.ends), .first = mn_calloc(n + 1, sizeof *s.first)};
  s.before = mn_alloc((2 * n + 1) * sizeof *s.before), s.stack = mn_alloc((n + 1) * sizeof *s.stack);
  const bool room = s.ends && s.first && s.before && s.stack;
  if (room) link_back(&s);
  for (mn_bytes_node i = 0; room && i < g->n; i++)
    if (g->nodes[i].kind == NODE_RETURN) look_at(&s, i);
  while (room && s.n) {
    const mn_bytes_node at = s.stack[--s.n];
    for (int32_t k = s.first[at]; k < s.first[at + 1]; k++) look_at(&s, s.before[k]);
  }
  const bool good = room && s.ends[g->rules[rule]];
  if (good) cut(g, s.ends);
  free(s.ends), free(s.first), free(s.before), free(s.stack);
  if (!room) return mn_fail(MN_ERR_MEMORY, "out of memory for a grammar");
  return good ? MN_OK : mn_fail(MN_ERR_CONFIG, "the grammar has no text that ends: something in it must hold itself");
}

mn_status mn_grammar_end(mn_grammar *g, int32_t rule) {
  if (g->fault == MN_ERR_MEMORY) return mn_fail(MN_ERR_MEMORY, "out of memory for a grammar");
  if (g->fault != MN_OK || g->n == MN_GRAMMAR_NODES) /* who builds stops where it is full: something may be missing */
    return mn_fail(MN_ERR_CONFIG, "the grammar has more than %d nodes: its counts or its lists are too long", MN_GRAMMAR_NODES);
  for (int32_t i = 0; i < g->n_rules; i++)
    if (g->rules[i] == MN_NO_NODE) return mn_fail(MN_ERR_CONFIG, "the grammar's rule %d is not defined", (int)i);
  if (rule >= g->n_rules) return mn_fail(MN_ERR_ARG, "the grammar has no rule %d", (int)rule);
  g->begin = rule;
  return check_ends(g, rule);
}

int64_t mn_grammar_nodes(const mn_grammar *g) { return g->n; }
