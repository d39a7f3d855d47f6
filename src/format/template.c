/* template.c - a chat template as an object: read once, rendered any number of times; see template.h. */
#include "format/template.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "format/template_internal.h"

mn_status mn_tpl_fault(const mn_template *t, int line, const char *fmt, ...) {
  char what[512];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(what, sizeof what, fmt, ap);
  va_end(ap);
  return mn_fail(MN_ERR_FORMAT, "%s:%d: %s", t->name, line, what);
}

const char *mn_tpl_keep_name(mn_template *t, const char *s, size_t n) {
  char *name = mn_arena_alloc(t->arena, n + 1);
  if (!name) return NULL;
  memcpy(name, s, n);
  const int known = mn_table_find(&t->names, name, -1), next = (int)t->names.count;
  if (known >= 0) return t->kept[known];
  if (next == t->kept_room) {
    const int room = t->kept_room ? 2 * t->kept_room : 64;
    const char **more = mn_realloc(t->kept, (size_t)room * sizeof *more);
    if (!more) return NULL;
    t->kept = more, t->kept_room = room;
  }
  if (mn_table_put(&t->names, name, next) != MN_OK) return NULL;
  return t->kept[next] = name;
}

mn_status mn_template_parse(const char *name, const char *text, size_t n, mn_template **out) {
  *out = NULL;
  if (n > MN_TEMPLATE_BYTES) return mn_fail(MN_ERR_FORMAT, "%s: a template of %zu bytes is longer than %d", name, n, MN_TEMPLATE_BYTES);
  if (mn_utf8_valid(text, n) != n) return mn_fail(MN_ERR_FORMAT, "%s: byte %zu is not UTF-8", name, mn_utf8_valid(text, n));
  if (n && memchr(text, 0, n)) return mn_fail(MN_ERR_FORMAT, "%s: a template has no zero byte", name);
  mn_template *t = mn_calloc(1, sizeof *t);
  if (!t) return MN_ERR_MEMORY;
  t->arena = mn_arena_new();
  if (t->arena) t->name = mn_arena_strdup(t->arena, name);
  t->names = (mn_table){.arena = t->arena, .names = true};
  mn_status status = t->name ? mn_tpl_lex(t, text, n) : MN_ERR_MEMORY;
  mn_tpl_parser p = {.t = t};
  if (status == MN_OK) {
    t->root = mn_tpl_parse_body(&p, NULL, NULL);
    status = p.status;
  }
  free(t->sign);
  t->sign = NULL;
  if (status == MN_OK) *out = t;
  else mn_template_free(t);
  return status;
}

void mn_template_free(mn_template *t) {
  if (!t) return;
  free(t->sign);
  free(t->kept);
  mn_arena_free(t->arena);
  free(t);
}

bool mn_template_mentions(const mn_template *t, const char *name) { return mn_table_find(&t->names, name, -1) >= 0; }

/* ---- a rendering ---- */
mn_tpl_value mn_tpl_fail(mn_tpl_run *r, const char *fmt, ...) {
  char what[512];
  if (r->status != MN_OK) return mn_tpl_undefined();
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(what, sizeof what, fmt, ap);
  va_end(ap);
  r->status = mn_tpl_fault(r->t, r->line, "%s", what);
  return mn_tpl_undefined();
}

void *mn_tpl_alloc(mn_tpl_run *r, size_t n) {
  if (r->status != MN_OK) return NULL;
  if (n > r->limits.memory || mn_arena_used(r->arena) > r->limits.memory - n) {
    mn_tpl_fail(r, "the template makes values of more than %zu bytes", r->limits.memory);
    return NULL;
  }
  if (!mn_tpl_goes_on(r, &r->made)) return NULL;
  void *p = mn_arena_alloc(r->arena, n);
  if (!p) r->status = MN_ERR_MEMORY;
  return p;
}

bool mn_tpl_step(mn_tpl_run *r, int64_t n) {
  if (r->status != MN_OK) return false;
  if (n > r->limits.steps - r->steps) {
    mn_tpl_fail(r, "the template takes more than %lld steps", (long long)r->limits.steps);
    return false;
  }
  enum { LOOK_EVERY = 1 << 12 };
  if (r->steps / LOOK_EVERY != (r->steps + n) / LOOK_EVERY) r->status = mn_stop_check("rendering a template");
  r->steps += n;
  return r->status == MN_OK;
}

bool mn_tpl_read(mn_tpl_run *r, size_t n) {
  enum { BYTES_OF_A_STEP = 64 };
  const size_t steps = n / BYTES_OF_A_STEP, rest = r->read + n % BYTES_OF_A_STEP;
  r->read = rest % BYTES_OF_A_STEP;
  return mn_tpl_step(r, (int64_t)(steps + rest / BYTES_OF_A_STEP));
}

bool mn_tpl_look(mn_tpl_run *r) {
  if (r->status == MN_OK) r->status = mn_stop_check("rendering a template");
  return r->status == MN_OK;
}

bool mn_tpl_enter(mn_tpl_run *r) {
  if (r->status == MN_OK && r->depth >= r->limits.depth) mn_tpl_fail(r, "calls and values are nested more than %d deep", r->limits.depth);
  if (r->status != MN_OK) return false;
  r->depth++;
  return true;
}

void mn_tpl_leave(mn_tpl_run *r) { r->depth--; }

void mn_tpl_write(mn_tpl_run *r, const char *s, size_t n) {
  if (r->status != MN_OK || !n) return;
  if (n > r->limits.output || r->out.len > r->limits.output - n)
    mn_tpl_fail(r, "the template writes more than %zu bytes", r->limits.output);
  else mn_text_add_bytes(&r->out, s, n);
}

/* The names of `values` that the template mentions. */
static void bind_values(mn_tpl_run *r, const mn_value *values) {
  for (size_t i = 0; i < r->t->names.count && r->status == MN_OK; i++) {
    const mn_value *v = mn_value_get(values, r->t->kept[i]);
    if (v) mn_tpl_bind(r, r->scope, r->t->kept[i], mn_tpl_import(r, v));
  }
}

mn_status mn_template_render(const mn_template *t, const mn_value *values, const mn_template_limits *limits, mn_text *out) {
  mn_tpl_scope root = {0};
  mn_tpl_run r = {.t = t, .arena = mn_arena_new(), .scope = &root, .line = 1};
  if (!r.arena) return MN_ERR_MEMORY;
  if (limits) r.limits = *limits;
  if (!r.limits.output) r.limits.output = (size_t)64 << 20;
  if (!r.limits.memory) r.limits.memory = (size_t)512 << 20;
  if (!r.limits.steps) r.limits.steps = 20 * 1000 * 1000;
  if (!r.limits.depth) r.limits.depth = 1000;
  bind_values(&r, values);
  mn_tpl_execute(&r, t->root);
  if (r.status == MN_OK) r.status = mn_text_status(&r.out);
  if (r.status == MN_OK) mn_text_add_bytes(out, r.out.data, r.out.len);
  if (r.status == MN_OK) r.status = mn_text_status(out);
  mn_text_free(&r.out);
  mn_arena_free(r.arena);
  return r.status;
}
