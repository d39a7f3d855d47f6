/* template_value.c - values of templates: making them, lists and maps, truth, equality and order. */
#define _GNU_SOURCE /* memmem, qsort_r */
#include <math.h>
#include <string.h>

#include "format/template_internal.h"

/* ---- making ---- */
mn_tpl_value mn_tpl_string_of(mn_tpl_run *r, const char *s, size_t n) {
  mn_tpl_string *string = mn_tpl_alloc(r, sizeof *string + n + 1);
  if (!string) return mn_tpl_undefined();
  char *data = (char *)(string + 1);
  if (n) memcpy(data, s, n);
  *string = (mn_tpl_string){data, n, -1, false};
  return (mn_tpl_value){.kind = TPL_STRING, .as.string = string};
}

mn_tpl_value mn_tpl_take(mn_tpl_run *r, mn_text *text) {
  if (r->status == MN_OK) r->status = mn_text_status(text);
  mn_tpl_value v = mn_tpl_string_of(r, text->data, text->len);
  mn_text_free(text);
  return v;
}

/* What stands in for memory that was refused: nobody writes to it, as the fault is there. */
mn_tpl_list *mn_tpl_new_list(mn_tpl_run *r, size_t room, mn_tpl_form form) {
  static mn_tpl_list none;
  mn_tpl_list *l = mn_tpl_alloc(r, sizeof *l);
  size_t bytes;
  if (!l) return &none;
  l->form = form;
  if (!room) return l;
  if (!mn_size_mul(room, sizeof *l->at, &bytes)) bytes = SIZE_MAX;
  l->at = mn_tpl_alloc(r, bytes);
  if (l->at) l->room = room;
  return l;
}

bool mn_tpl_push(mn_tpl_run *r, mn_tpl_list *l, mn_tpl_value v) {
  if (!mn_tpl_step(r, 1)) return false;
  if (l->n == l->room) {
    const size_t room = l->room ? 2 * l->room : 4;
    mn_tpl_value *more = mn_tpl_alloc(r, room * sizeof *more);
    if (!more) return false;
    if (l->n) memcpy(more, l->at, l->n * sizeof *more);
    l->at = more, l->room = room;
  }
  l->at[l->n++] = v;
  return true;
}

mn_tpl_value mn_tpl_list_value(mn_tpl_list *l) { return (mn_tpl_value){.kind = TPL_LIST, .as.list = l}; }
mn_tpl_value mn_tpl_map_value(mn_tpl_map *m) { return (mn_tpl_value){.kind = TPL_MAP, .as.map = m}; }

/* ---- maps ---- */
enum { SMALL = 8 };

mn_tpl_map *mn_tpl_new_map(mn_tpl_run *r) {
  static mn_tpl_map none;
  mn_tpl_map *m = mn_tpl_alloc(r, sizeof *m);
  return m ? m : &none;
}

/* Equal keys have equal hashes: 1, 1.0 and true are one key. */
static bool hash_of(mn_tpl_run *r, mn_tpl_value key, uint64_t *out) {
  if (mn_tpl_is_number(key)) {
    double d = mn_tpl_number(key);
    if (d == 0) d = 0; /* -0 */
    *out = mn_hash_bytes(&d, sizeof d, 1);
    return true;
  }
  switch (key.kind) {
  case TPL_STRING:
    if (!mn_tpl_read(r, key.as.string->n)) return false;
    *out = mn_hash_bytes(key.as.string->data, key.as.string->n, 2);
    return true;
  case TPL_NONE:
    *out = 3;
    return true;
  case TPL_LIST:
    *out = 4;
    if (key.as.list->form != TPL_TUPLE || !mn_tpl_enter(r)) break;
    for (size_t i = 0; i < key.as.list->n; i++) {
      uint64_t one;
      if (!hash_of(r, key.as.list->at[i], &one)) break;
      *out = mn_splitmix64(*out ^ one);
    }
    mn_tpl_leave(r);
    return r->status == MN_OK;
  default:
    break;
  }
  mn_tpl_fail(r, "%s is no key of a map", mn_tpl_type_name(key));
  return false;
}

static size_t find(mn_tpl_run *r, const mn_tpl_map *m, mn_tpl_value key, uint64_t hash) { /* m->n: it is not there */
  if (!m->slot) {
    for (size_t i = 0; i < m->n; i++)
      if (m->at[i].hash == hash && mn_tpl_equal(r, m->at[i].key, key)) return i;
    return m->n;
  }
  for (size_t k = hash & (m->slots - 1); m->slot[k] && mn_tpl_read(r, sizeof *m->at); k = (k + 1) & (m->slots - 1)) {
    const size_t i = m->slot[k] - 1;
    if (m->at[i].hash == hash && mn_tpl_equal(r, m->at[i].key, key)) return i;
  }
  return m->n;
}

static void put_slot(mn_tpl_map *m, size_t i) {
  size_t k = m->at[i].hash & (m->slots - 1);
  while (m->slot[k]) k = (k + 1) & (m->slots - 1);
  m->slot[k] = (uint32_t)(i + 1);
}

/* Slots for all pairs, four for each pair there is room for. */
static bool index_map(mn_tpl_run *r, mn_tpl_map *m) {
  if (m->room <= SMALL) return true;
  if (m->slots != 4 * m->room) {
    m->slot = mn_tpl_alloc(r, 4 * m->room * sizeof *m->slot);
    m->slots = m->slot ? 4 * m->room : 0;
    if (!m->slot) return false;
  } else {
    memset(m->slot, 0, m->slots * sizeof *m->slot);
  }
  for (size_t i = 0; i < m->n; i++) put_slot(m, i);
  return true;
}

bool mn_tpl_put(mn_tpl_run *r, mn_tpl_map *m, mn_tpl_value key, mn_tpl_value value) {
  uint64_t hash;
  if (!mn_tpl_step(r, 1) || !hash_of(r, key, &hash)) return false;
  const size_t i = find(r, m, key, hash);
  if (r->status != MN_OK) return false;
  if (i < m->n) {
    m->at[i].value = value;
    return true;
  }
  if (m->n == m->room) {
    const size_t room = m->room ? 2 * m->room : SMALL / 2;
    if (room > UINT32_MAX / 8) return mn_tpl_fail(r, "a map of more than %zu keys", m->n), false;
    mn_tpl_pair *more = mn_tpl_alloc(r, room * sizeof *more);
    if (!more) return false;
    if (m->n) memcpy(more, m->at, m->n * sizeof *more);
    m->at = more, m->room = room;
    if (!index_map(r, m)) return false;
  }
  m->at[m->n] = (mn_tpl_pair){key, value, hash};
  if (m->slot) put_slot(m, m->n);
  m->n++;
  return true;
}

const mn_tpl_value *mn_tpl_get(mn_tpl_run *r, const mn_tpl_map *m, mn_tpl_value key) {
  uint64_t hash;
  if (!hash_of(r, key, &hash)) return NULL;
  const size_t i = find(r, m, key, hash);
  return i < m->n ? &m->at[i].value : NULL;
}

const mn_tpl_value *mn_tpl_get_text(mn_tpl_run *r, const mn_tpl_map *m, const char *key) {
  mn_tpl_string s = {key, strlen(key), -1, false};
  return mn_tpl_get(r, m, (mn_tpl_value){.kind = TPL_STRING, .as.string = &s});
}

bool mn_tpl_remove(mn_tpl_run *r, mn_tpl_map *m, mn_tpl_value key) {
  uint64_t hash;
  if (!hash_of(r, key, &hash)) return false;
  const size_t i = find(r, m, key, hash);
  if (i >= m->n || !mn_tpl_step(r, (int64_t)(m->n - i))) return false;
  memmove(m->at + i, m->at + i + 1, (m->n - i - 1) * sizeof *m->at);
  m->n--;
  return index_map(r, m);
}

mn_tpl_value mn_tpl_import(mn_tpl_run *r, const mn_value *v) {
  mn_tpl_value out = mn_tpl_none();
  switch (v->kind) {
  case MN_NULL:
    break;
  case MN_BOOLEAN:
    out = mn_tpl_bool(v->as.boolean);
    break;
  case MN_INTEGER:
    out = mn_tpl_int(v->as.integer);
    break;
  case MN_REAL:
    out = mn_tpl_real(v->as.real);
    break;
  case MN_TEXT:
    out = mn_tpl_string_of(r, v->as.text, v->count);
    break;
  case MN_LIST: {
    mn_tpl_list *l = mn_tpl_new_list(r, v->count, TPL_PLAIN);
    for (size_t i = 0; i < v->count && mn_tpl_push(r, l, mn_tpl_import(r, v->as.items[i]));) i++;
    out = mn_tpl_list_value(l);
    break;
  }
  case MN_MAP: {
    mn_tpl_map *m = mn_tpl_new_map(r);
    for (size_t i = 0; i < v->count && r->status == MN_OK; i++) {
      const mn_entry *e = &v->as.entries[i];
      mn_tpl_put(r, m, mn_tpl_string_of(r, e->key, strlen(e->key)), mn_tpl_import(r, e->value));
    }
    out = mn_tpl_map_value(m);
    break;
  }
  }
  return out;
}

/* ---- asking ---- */
const char *mn_tpl_type_name(mn_tpl_value v) {
  static const char *const names[] = {"something undefined", "None",   "a boolean", "an integer", "a float", "a string", "a list", "a map",
                                      "a namespace",         "a loop", "a macro",   "a function"};
  if (v.kind == TPL_UNDEFINED && v.as.missing) return v.as.missing;
  if (v.kind == TPL_LIST && v.as.list->form == TPL_TUPLE) return "a tuple";
  return names[v.kind];
}

bool mn_tpl_truth(mn_tpl_value v) {
  switch (v.kind) {
  case TPL_UNDEFINED:
  case TPL_NONE:
    return false;
  case TPL_BOOL:
    return v.as.boolean;
  case TPL_INT:
    return v.as.integer != 0;
  case TPL_FLOAT:
    return v.as.real != 0;
  case TPL_STRING:
    return v.as.string->n > 0;
  case TPL_LIST:
    return v.as.list->n > 0 || v.as.list->form == TPL_LAZY;
  case TPL_MAP:
    return v.as.map->n > 0;
  default:
    return true;
  }
}

bool mn_tpl_is_number(mn_tpl_value v) { return v.kind == TPL_BOOL || v.kind == TPL_INT || v.kind == TPL_FLOAT; }
double mn_tpl_number(mn_tpl_value v) {
  return v.kind == TPL_BOOL ? v.as.boolean : v.kind == TPL_INT ? (double)v.as.integer : v.kind == TPL_FLOAT ? v.as.real : 0;
}
bool mn_tpl_is_text(mn_tpl_value v, const char *s) {
  return v.kind == TPL_STRING && v.as.string->n == strlen(s) && !memcmp(v.as.string->data, s, v.as.string->n);
}

static bool whole(mn_tpl_value v, int64_t *i) {
  *i = v.kind == TPL_BOOL ? v.as.boolean : v.as.integer;
  return v.kind == TPL_BOOL || v.kind == TPL_INT;
}

static bool same_items(mn_tpl_run *r, const mn_tpl_list *a, const mn_tpl_list *b) {
  if (a->n != b->n || (a->form == TPL_TUPLE) != (b->form == TPL_TUPLE) || !mn_tpl_enter(r)) return false;
  bool same = true;
  for (size_t i = 0; i < a->n && i < b->n && same; i++) same = mn_tpl_step(r, 1) && mn_tpl_equal(r, a->at[i], b->at[i]);
  mn_tpl_leave(r);
  return same;
}

static bool same_pairs(mn_tpl_run *r, const mn_tpl_map *a, const mn_tpl_map *b) {
  if (a->n != b->n || !mn_tpl_enter(r)) return false;
  bool same = true;
  for (size_t i = 0; i < a->n && same; i++) {
    const size_t k = find(r, b, a->at[i].key, a->at[i].hash);
    same = mn_tpl_step(r, 1) && k < b->n && mn_tpl_equal(r, a->at[i].value, b->at[k].value);
  }
  mn_tpl_leave(r);
  return same;
}

bool mn_tpl_equal(mn_tpl_run *r, mn_tpl_value a, mn_tpl_value b) {
  int64_t i, k;
  if (mn_tpl_is_number(a) && mn_tpl_is_number(b)) return whole(a, &i) && whole(b, &k) ? i == k : mn_tpl_number(a) == mn_tpl_number(b);
  if (a.kind != b.kind) return false;
  switch (a.kind) {
  case TPL_UNDEFINED:
  case TPL_NONE:
    return true;
  case TPL_STRING:
    if (a.as.string->n != b.as.string->n) return false;
    return a.as.string == b.as.string || (mn_tpl_read(r, a.as.string->n) && !memcmp(a.as.string->data, b.as.string->data, a.as.string->n));
  case TPL_LIST:
    return a.as.list == b.as.list || same_items(r, a.as.list, b.as.list);
  case TPL_MAP:
    return a.as.map == b.as.map || same_pairs(r, a.as.map, b.as.map);
  case TPL_NAMESPACE:
    return a.as.map == b.as.map;
  case TPL_LOOP:
    return a.as.loop == b.as.loop;
  case TPL_MACRO:
    return a.as.macro == b.as.macro;
  case TPL_FUNCTION:
    return a.as.bound->def == b.as.bound->def;
  default:
    return false;
  }
}

int mn_tpl_order(mn_tpl_run *r, mn_tpl_value a, mn_tpl_value b) {
  int64_t x, y;
  if (mn_tpl_is_number(a) && mn_tpl_is_number(b)) {
    if (whole(a, &x) && whole(b, &y)) return (x > y) - (x < y);
    const double p = mn_tpl_number(a), q = mn_tpl_number(b);
    return (p > q) - (p < q);
  }
  if (a.kind == TPL_STRING && b.kind == TPL_STRING) { /* UTF-8 has the order of its characters */
    const mn_tpl_string *s = a.as.string, *t = b.as.string;
    const size_t both = s->n < t->n ? s->n : t->n;
    const int first = mn_tpl_read(r, both) ? memcmp(s->data, t->data, both) : 0;
    return first ? first : (s->n > t->n) - (s->n < t->n);
  }
  if (a.kind == TPL_LIST && b.kind == TPL_LIST && (a.as.list->form == TPL_TUPLE) == (b.as.list->form == TPL_TUPLE) && mn_tpl_enter(r)) {
    const mn_tpl_list *s = a.as.list, *t = b.as.list;
    int order = (s->n > t->n) - (s->n < t->n);
    for (size_t i = 0; i < s->n && i < t->n && mn_tpl_step(r, 1); i++)
      if (!mn_tpl_equal(r, s->at[i], t->at[i])) {
        order = mn_tpl_order(r, s->at[i], t->at[i]);
        break;
      }
    mn_tpl_leave(r);
    return order;
  }
  mn_tpl_fail(r, "%s and %s have no order", mn_tpl_type_name(a), mn_tpl_type_name(b));
  return 0;
}

bool mn_tpl_contains(mn_tpl_run *r, mn_tpl_value in, mn_tpl_value what) {
  if (in.kind == TPL_STRING) {
    if (what.kind != TPL_STRING) return mn_tpl_fail(r, "'in' a string is asked of a string, not of %s", mn_tpl_type_name(what)), false;
    if (!mn_tpl_read(r, in.as.string->n + what.as.string->n)) return false;
    return !what.as.string->n || memmem(in.as.string->data, in.as.string->n, what.as.string->data, what.as.string->n) != NULL;
  }
  if (in.kind == TPL_MAP) return mn_tpl_get(r, in.as.map, what) != NULL;
  const mn_tpl_list *l = mn_tpl_items(r, in);
  for (size_t i = 0; i < l->n && mn_tpl_step(r, 1); i++)
    if (mn_tpl_equal(r, l->at[i], what)) return true;
  return false;
}

int64_t mn_tpl_length(mn_tpl_run *r, mn_tpl_value v) {
  if (v.kind == TPL_STRING) return v.as.string->length >= 0 || mn_tpl_read(r, v.as.string->n) ? mn_tpl_count(v.as.string) : 0;
  if (v.kind == TPL_LIST && v.as.list->form != TPL_LAZY) return (int64_t)v.as.list->n;
  if (v.kind == TPL_MAP) return (int64_t)v.as.map->n;
  if (v.kind == TPL_UNDEFINED) return 0;
  mn_tpl_fail(r, "%s has no length%s", mn_tpl_type_name(v), v.kind == TPL_LIST ? " before it is made one by the filter 'list'" : "");
  return 0;
}

/* The characters of a string, each alone. */
static mn_tpl_list *characters(mn_tpl_run *r, mn_tpl_string *s) {
  mn_tpl_list *l = mn_tpl_new_list(r, (size_t)mn_tpl_count(s), TPL_PLAIN);
  for (size_t at = 0; at < s->n && r->status == MN_OK;) {
    const size_t begin = at;
    mn_tpl_next(s, &at);
    mn_tpl_push(r, l, mn_tpl_string_of(r, s->data + begin, at - begin));
  }
  return l;
}

mn_tpl_list *mn_tpl_items(mn_tpl_run *r, mn_tpl_value v) {
  if (v.kind == TPL_LIST) return v.as.list;
  if (v.kind == TPL_STRING) return characters(r, v.as.string);
  mn_tpl_list *l = mn_tpl_new_list(r, v.kind == TPL_MAP ? v.as.map->n : 0, TPL_PLAIN);
  if (v.kind == TPL_MAP)
    for (size_t i = 0; i < v.as.map->n && mn_tpl_push(r, l, v.as.map->at[i].key);) i++;
  else if (v.kind != TPL_UNDEFINED) mn_tpl_fail(r, "%s has no items to go through", mn_tpl_type_name(v));
  return l;
}
