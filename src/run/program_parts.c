/* program_parts.c - what a builder says of its graph; see program.h. */
#include "run/program_internal.h"

#include <string.h>

/* ---- what a builder says ---- */
static bool grow(mn_parts *p, void *list, int n, int *cap, size_t size) {
  if (n < *cap) return true;
  int c = *cap ? 2 * *cap : 8;
  void *old, *now = mn_arena_alloc(p->g->arena, (size_t)c * size);
  if (!now) {
    mn_graph_fault(p->g, MN_ERR_MEMORY, "%s", mn_message());
    return false;
  }
  memcpy(&old, list, sizeof old);
  if (n) memcpy(now, old, (size_t)n * size);
  memcpy(list, &now, sizeof now);
  *cap = c;
  return true;
}

void mn_parts_fed(mn_parts *p, mn_tensor *input) {
  if (input && grow(p, &p->feeds, p->n_feeds, &p->cap_feeds, sizeof *p->feeds)) p->feeds[p->n_feeds++] = input;
}

mn_tensor *mn_parts_feed(mn_parts *p, const char *name, mn_dtype dtype, mn_shape shape) {
  mn_tensor *t = mn_input(p->g, name, dtype, shape);
  mn_parts_fed(p, t);
  return t;
}

void mn_parts_give(mn_parts *p, const char *name, mn_tensor *value) {
  int cap = p->cap_given;
  if (!value || !grow(p, &p->given, p->n_given, &cap, sizeof *p->given) ||
      !grow(p, &p->given_name, p->n_given, &p->cap_given, sizeof *p->given_name))
    return;
  p->given[p->n_given] = value;
  p->given_name[p->n_given++] = name;
}

static void assign(mn_parts *p, mn_assigned **list, int *n, int *cap, mn_tensor *variable, mn_tensor *value) {
  if (variable && value && grow(p, list, *n, cap, sizeof **list)) (*list)[(*n)++] = (mn_assigned){variable, value};
}

void mn_parts_assign(mn_parts *p, mn_tensor *variable, mn_tensor *value) {
  assign(p, &p->assigned, &p->n_assigned, &p->cap_assigned, variable, value);
}

void mn_parts_move(mn_parts *p, mn_tensor *variable, mn_tensor *value) {
  assign(p, &p->moved, &p->n_moved, &p->cap_moved, variable, value);
}

mn_tensor *mn_parts_keep(mn_parts *p, const char *name, mn_dtype dtype, mn_shape shape) {
  mn_tensor *t = mn_variable(p->g, name, dtype, shape);
  if (t && grow(p, &p->kept, p->n_kept, &p->cap_kept, sizeof *p->kept)) p->kept[p->n_kept++] = t;
  return t;
}

void mn_parts_no_states(mn_parts *p) { p->stateless = true; }
