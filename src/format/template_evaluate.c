/* template_evaluate.c - runs a template: expressions to values, statements to text.
 *
 * A name is looked for where it stands and then outwards: a macro looks where it was defined, as it is then. What is set in the body of a
 * loop, a macro, a call or a block that is captured is gone behind it; an if has no names of its own. */
#include <stdlib.h>
#include <string.h>

#include "format/template_internal.h"

/* ---- names ---- */
void mn_tpl_bind(mn_tpl_run *r, mn_tpl_scope *s, const char *name, mn_tpl_value v) {
  for (int i = 0; i < s->n; i++)
    if (s->at[i].name == name) {
      s->at[i].value = v;
      return;
    }
  if (s->n == s->room) {
    const int room = s->room ? 2 * s->room : 4;
    mn_tpl_binding *more = mn_tpl_alloc(r, (size_t)room * sizeof *more);
    if (!more) return;
    if (s->n) memcpy(more, s->at, (size_t)s->n * sizeof *more);
    s->at = more, s->room = room;
  }
  s->at[s->n++] = (mn_tpl_binding){name, v};
}

static mn_tpl_value *look_up(mn_tpl_run *r, const char *name) {
  for (mn_tpl_scope *s = r->scope; s; s = s->around)
    for (int i = 0; i < s->n; i++)
      if (s->at[i].name == name) return &s->at[i].value;
  return NULL;
}

static mn_tpl_scope *open_scope(mn_tpl_run *r, mn_tpl_scope *around) {
  mn_tpl_scope *s = mn_tpl_alloc(r, sizeof *s);
  if (s) s->around = around;
  return s;
}

static mn_tpl_value name_value(mn_tpl_run *r, const mn_tpl_node *n) {
  static const char *const absent[] = {"cycler", "joiner", "lipsum", "self", "super", NULL};
  const mn_tpl_value *v = look_up(r, n->name);
  if (v) return *v;
  const mn_tpl_def *def = mn_tpl_find(mn_tpl_globals, n->name);
  if (def) {
    mn_tpl_bound *b = mn_tpl_alloc(r, sizeof *b);
    if (!b) return mn_tpl_undefined();
    b->def = def;
    return (mn_tpl_value){.kind = TPL_FUNCTION, .as.bound = b};
  }
  for (int i = 0; absent[i]; i++)
    if (!strcmp(n->name, absent[i])) return mn_tpl_fail(r, "'%s' is not supported", n->name);
  char shown[MN_PRINTABLE];
  mn_tpl_value none = mn_tpl_undefined();
  none.as.missing = mn_arena_format(r->arena, "the undefined '%s'", mn_printable(n->name, shown));
  return none;
}

void mn_tpl_assign(mn_tpl_run *r, const mn_tpl_node *target, mn_tpl_value v) {
  if (r->status != MN_OK) return;
  if (target->type == TPL_N_NAME) {
    mn_tpl_bind(r, r->scope, target->name, v);
    return;
  }
  if (target->type == TPL_N_NS_NAME) {
    const mn_tpl_value *of = look_up(r, target->name);
    if (!of || of->kind != TPL_NAMESPACE) mn_tpl_fail(r, "'%.60s' is no namespace: attributes of others are not set", target->name);
    else if (target->attribute[0] == '_') mn_tpl_fail(r, "a namespace has no attribute that begins with _");
    else mn_tpl_put(r, of->as.map, mn_tpl_string_of(r, target->attribute, strlen(target->attribute)), v);
    return;
  }
  const mn_tpl_list *items = mn_tpl_items(r, v); /* a tuple of targets */
  if (r->status == MN_OK && items->n != (size_t)target->n) mn_tpl_fail(r, "%zu values do not go into %d names", items->n, target->n);
  for (int i = 0; i < target->n && r->status == MN_OK; i++) mn_tpl_assign(r, target->item[i], items->at[i]);
}

/* ---- calls ---- */
typedef struct call_args {
  mn_tpl_args args;
  mn_tpl_value *at, *named;
  const char **name;
} call_args;

/* Of a call: its items, then what * and ** add. */
static bool evaluate_args(mn_tpl_run *r, const mn_tpl_node *n, call_args *out) {
  const mn_tpl_value star = n->star ? mn_tpl_evaluate(r, n->star) : mn_tpl_undefined();
  const mn_tpl_value stars = n->stars ? mn_tpl_evaluate(r, n->stars) : mn_tpl_undefined();
  const mn_tpl_list *more = n->star ? mn_tpl_items(r, star) : NULL;
  if (n->stars && stars.kind != TPL_MAP) mn_tpl_fail(r, "** in a call wants a map, not %s", mn_tpl_type_name(stars));
  if (r->status != MN_OK) return false;
  const mn_tpl_map *pairs = n->stars ? stars.as.map : NULL;
  const size_t n_at = (size_t)n->n + (more ? more->n : 0), n_named = (size_t)n->n_named + (pairs ? pairs->n : 0);
  if (n_at > 1 << 20 || n_named > 1 << 20) return mn_tpl_fail(r, "a call with more than a million arguments"), false;
  mn_tpl_value *at = mn_tpl_alloc(r, (n_at + 1) * sizeof *at), *named = mn_tpl_alloc(r, (n_named + 1) * sizeof *named);
  const char **name = mn_tpl_alloc(r, (n_named + 1) * sizeof *name);
  if (!at || !named || !name) return false;
  for (int i = 0; i < n->n; i++) at[i] = mn_tpl_evaluate(r, n->item[i]);
  for (size_t i = 0; more && i < more->n; i++) at[(size_t)n->n + i] = more->at[i];
  for (int i = 0; i < n->n_named; i++) named[i] = mn_tpl_evaluate(r, n->item[n->n + i]), name[i] = n->name_of[i];
  for (size_t i = 0; pairs && i < pairs->n; i++) {
    const size_t k = (size_t)n->n_named + i;
    if (pairs->at[i].key.kind != TPL_STRING) return mn_tpl_fail(r, "** in a call wants a map with strings as keys"), false;
    named[k] = pairs->at[i].value, name[k] = pairs->at[i].key.as.string->data;
  }
  out->args = (mn_tpl_args){(int)n_at, (int)n_named, at, named, name};
  out->at = at, out->named = named, out->name = name;
  return r->status == MN_OK;
}

/* The macro's arguments by their names in its scope; what is left over is varargs and kwargs where it mentions them. */
static bool bind_arguments(mn_tpl_run *r, const mn_tpl_node *m, const mn_tpl_args *args) {
  const char *varargs = NULL, *kwargs = NULL;
  const int va = mn_table_find(&r->t->names, "varargs", -1), kw = mn_table_find(&r->t->names, "kwargs", -1);
  if (va >= 0) varargs = r->t->kept[va];
  if (kw >= 0) kwargs = r->t->kept[kw];
  mn_tpl_list *rest = mn_tpl_new_list(r, 0, TPL_TUPLE);
  mn_tpl_map *others = mn_tpl_new_map(r);
  for (int i = m->n; i < args->n && varargs; i++) mn_tpl_push(r, rest, args->at[i]);
  if (args->n > m->n && !varargs) return mn_tpl_fail(r, "the macro '%.60s' takes %d arguments, not %d", m->name, m->n, args->n), false;
  for (int k = 0; k < args->n_named; k++) {
    int i = 0;
    while (i < m->n && strcmp(m->item[i]->name, args->name[k]) != 0) i++;
    if (i < args->n && i < m->n) return mn_tpl_fail(r, "the macro '%.60s' is given '%.60s' twice", m->name, args->name[k]), false;
    if (i == m->n && !kwargs) return mn_tpl_fail(r, "the macro '%.60s' has no argument '%.60s'", m->name, args->name[k]), false;
    if (i == m->n) mn_tpl_put(r, others, mn_tpl_string_of(r, args->name[k], strlen(args->name[k])), args->named[k]);
  }
  for (int i = 0; i < m->n && r->status == MN_OK; i++) {
    const mn_tpl_value *v = i < args->n ? &args->at[i] : NULL;
    for (int k = 0; k < args->n_named && !v; k++)
      if (!strcmp(m->item[i]->name, args->name[k])) v = &args->named[k];
    mn_tpl_value given = v ? *v : m->item[i]->a ? mn_tpl_evaluate(r, m->item[i]->a) : mn_tpl_undefined();
    if (!v && !m->item[i]->a) given.as.missing = mn_arena_format(r->arena, "the argument '%.60s' that is not given", m->item[i]->name);
    mn_tpl_bind(r, r->scope, m->item[i]->name, given);
  }
  if (varargs) mn_tpl_bind(r, r->scope, varargs, mn_tpl_list_value(rest));
  if (kwargs) mn_tpl_bind(r, r->scope, kwargs, mn_tpl_map_value(others));
  return r->status == MN_OK;
}

/* What is written from `from` on, taken back as a value. */
static mn_tpl_value captured(mn_tpl_run *r, size_t from) {
  if (r->status != MN_OK) return mn_tpl_undefined();
  if (r->out.failed) r->status = mn_text_status(&r->out);
  mn_tpl_value v = mn_tpl_string_of(r, r->out.data ? r->out.data + from : "", r->out.len - from);
  r->out.len = from;
  return v;
}

mn_tpl_value mn_tpl_call_macro(mn_tpl_run *r, const mn_tpl_macro *m, const mn_tpl_args *args, const mn_tpl_value *caller) {
  mn_tpl_scope *before = r->scope, *scope = open_scope(r, m->scope);
  const size_t from = r->out.len;
  const int line = r->line, loops = r->loops;
  if (!scope || !mn_tpl_enter(r)) return mn_tpl_undefined();
  r->scope = scope;
  r->loops = 0;
  const int at = mn_table_find(&r->t->names, "caller", -1);
  if (at >= 0 && m->node->type == TPL_N_MACRO) mn_tpl_bind(r, scope, r->t->kept[at], caller ? *caller : mn_tpl_undefined());
  if (bind_arguments(r, m->node, args)) mn_tpl_execute(r, m->node->c);
  r->scope = before;
  r->loops = loops;
  mn_tpl_leave(r);
  if (r->status == MN_OK) r->line = line;
  return captured(r, from);
}

mn_tpl_value mn_tpl_call(mn_tpl_run *r, mn_tpl_value f, const mn_tpl_args *args) {
  if (r->status != MN_OK) return mn_tpl_undefined();
  if (f.kind == TPL_MACRO) return mn_tpl_call_macro(r, f.as.macro, args, NULL);
  if (f.kind == TPL_FUNCTION)
    return mn_tpl_apply(r, f.as.bound->def, f.as.bound->self.kind == TPL_UNDEFINED ? "function" : "method", f.as.bound->self, args);
  return mn_tpl_fail(r, "%s is called, and is no function", mn_tpl_type_name(f));
}

/* ---- expressions ---- */
static mn_tpl_value compare(mn_tpl_run *r, const mn_tpl_node *n) {
  mn_tpl_value left = mn_tpl_evaluate(r, n->a);
  bool holds = true;
  for (int i = 0; i < n->n && holds && r->status == MN_OK; i++) {
    const mn_tpl_value right = mn_tpl_evaluate(r, n->item[i]);
    if (r->status != MN_OK) break;
    switch (n->op[i]) {
    case TPL_EQ:
      holds = mn_tpl_equal(r, left, right);
      break;
    case TPL_NE:
      holds = !mn_tpl_equal(r, left, right);
      break;
    case TPL_LT:
      holds = mn_tpl_order(r, left, right) < 0;
      break;
    case TPL_LE:
      holds = mn_tpl_order(r, left, right) <= 0;
      break;
    case TPL_GT:
      holds = mn_tpl_order(r, left, right) > 0;
      break;
    case TPL_GE:
      holds = mn_tpl_order(r, left, right) >= 0;
      break;
    case TPL_IN:
      holds = mn_tpl_contains(r, right, left);
      break;
    default:
      holds = !mn_tpl_contains(r, right, left);
      break;
    }
    left = right;
  }
  return mn_tpl_bool(holds);
}

static mn_tpl_value list_of(mn_tpl_run *r, const mn_tpl_node *n, mn_tpl_form form) {
  mn_tpl_list *l = mn_tpl_new_list(r, (size_t)n->n, form);
  for (int i = 0; i < n->n && r->status == MN_OK; i++) mn_tpl_push(r, l, mn_tpl_evaluate(r, n->item[i]));
  return mn_tpl_list_value(l);
}

static mn_tpl_value map_of(mn_tpl_run *r, const mn_tpl_node *n) {
  mn_tpl_map *m = mn_tpl_new_map(r);
  for (int i = 0; i + 1 < n->n && r->status == MN_OK; i += 2) {
    const mn_tpl_value key = mn_tpl_evaluate(r, n->item[i]);
    mn_tpl_put(r, m, key, mn_tpl_evaluate(r, n->item[i + 1]));
  }
  return mn_tpl_map_value(m);
}

static mn_tpl_value item_of(mn_tpl_run *r, const mn_tpl_node *n) {
  const mn_tpl_value of = mn_tpl_evaluate(r, n->a);
  mn_tpl_value part[3];
  if (n->b->type != TPL_N_SLICE) return mn_tpl_subscript(r, of, mn_tpl_evaluate(r, n->b));
  for (int i = 0; i < 3; i++) part[i] = n->b->item[i] ? mn_tpl_evaluate(r, n->b->item[i]) : mn_tpl_none();
  return mn_tpl_slice(r, of, part);
}

static mn_tpl_value concat(mn_tpl_run *r, const mn_tpl_node *n) {
  mn_text out = {0};
  for (int i = 0; i < n->n && r->status == MN_OK; i++) mn_tpl_add_str(r, mn_tpl_evaluate(r, n->item[i]), &out);
  return mn_tpl_take(r, &out);
}

static mn_tpl_value applied(mn_tpl_run *r, const mn_tpl_node *n, mn_tpl_value to) {
  call_args args;
  if (!evaluate_args(r, n, &args)) return mn_tpl_undefined();
  r->line = n->line;
  return mn_tpl_apply(r, n->def, n->type == TPL_N_FILTER ? "filter" : "test", to, &args.args);
}

static mn_tpl_value called(mn_tpl_run *r, const mn_tpl_node *n) {
  call_args args;
  const mn_tpl_value f = mn_tpl_evaluate(r, n->a);
  if (!evaluate_args(r, n, &args)) return mn_tpl_undefined();
  r->line = n->line;
  return mn_tpl_call(r, f, &args.args);
}

static mn_tpl_value signed_value(mn_tpl_run *r, const mn_tpl_node *n) {
  const mn_tpl_value v = mn_tpl_evaluate(r, n->a);
  if (!mn_tpl_is_number(v)) return mn_tpl_fail(r, "a sign stands before %s", mn_tpl_type_name(v));
  return mn_tpl_binary(r, n->type == TPL_N_NEGATIVE ? TPL_SUB : TPL_ADD,
                       v.kind == TPL_FLOAT ? mn_tpl_real(n->type == TPL_N_NEGATIVE ? -0.0 : 0.0) : mn_tpl_int(0), v);
}

static mn_tpl_value evaluate(mn_tpl_run *r, const mn_tpl_node *n) {
  mn_tpl_value v;
  switch (n->type) {
  case TPL_N_CONST:
    return n->value;
  case TPL_N_NAME:
    return name_value(r, n);
  case TPL_N_LIST:
    return list_of(r, n, TPL_PLAIN);
  case TPL_N_TUPLE:
    return list_of(r, n, TPL_TUPLE);
  case TPL_N_DICT:
    return map_of(r, n);
  case TPL_N_ATTR:
    return mn_tpl_attribute(r, mn_tpl_evaluate(r, n->a), n->name);
  case TPL_N_ITEM:
    return item_of(r, n);
  case TPL_N_CALL:
    return called(r, n);
  case TPL_N_FILTER:
  case TPL_N_TEST:
    return applied(r, n, mn_tpl_evaluate(r, n->a));
  case TPL_N_NOT:
    return mn_tpl_bool(!mn_tpl_truth(mn_tpl_evaluate(r, n->a)));
  case TPL_N_NEGATIVE:
  case TPL_N_POSITIVE:
    return signed_value(r, n);
  case TPL_N_AND:
    return mn_tpl_truth(v = mn_tpl_evaluate(r, n->a)) ? mn_tpl_evaluate(r, n->b) : v;
  case TPL_N_OR:
    return mn_tpl_truth(v = mn_tpl_evaluate(r, n->a)) ? v : mn_tpl_evaluate(r, n->b);
  case TPL_N_IF_ELSE:
    if (mn_tpl_truth(mn_tpl_evaluate(r, n->a))) return mn_tpl_evaluate(r, n->b);
    return n->c ? mn_tpl_evaluate(r, n->c) : mn_tpl_undefined();
  case TPL_N_COMPARE:
    return compare(r, n);
  case TPL_N_BINARY:
    v = mn_tpl_evaluate(r, n->a);
    return mn_tpl_binary(r, n->op[0], v, mn_tpl_evaluate(r, n->b));
  case TPL_N_CONCAT:
    return concat(r, n);
  default:
    return mn_tpl_fail(r, "a statement stands where a value should");
  }
}

mn_tpl_value mn_tpl_evaluate(mn_tpl_run *r, const mn_tpl_node *n) {
  if (r->status == MN_OK) r->line = n->line;
  if (!mn_tpl_step(r, 1) || !mn_tpl_enter(r)) return mn_tpl_undefined();
  const mn_tpl_value v = evaluate(r, n);
  mn_tpl_leave(r);
  return v;
}

/* ---- statements ---- */
static void run_for(mn_tpl_run *r, const mn_tpl_node *n) {
  static const char of_loop[] = "loop";
  mn_tpl_scope *outside = r->scope;
  const mn_tpl_value over = mn_tpl_evaluate(r, n->b);
  mn_tpl_list *items = mn_tpl_items(r, over);
  if (r->status != MN_OK) return;
  if (n->item[0]) { /* those for which it holds */
    mn_tpl_list *some = mn_tpl_new_list(r, 0, TPL_PLAIN);
    for (size_t i = 0; i < items->n && r->status == MN_OK; i++) {
      if (!(r->scope = open_scope(r, outside))) break;
      mn_tpl_assign(r, n->a, items->at[i]);
      if (mn_tpl_truth(mn_tpl_evaluate(r, n->item[0]))) mn_tpl_push(r, some, items->at[i]);
    }
    r->scope = outside;
    items = some;
  }
  mn_tpl_loop *loop = mn_tpl_alloc(r, sizeof *loop);
  if (!loop) return;
  *loop = (mn_tpl_loop){.over = items, .depth = 1};
  const int at = mn_table_find(&r->t->names, of_loop, -1);
  bool any = false;
  for (; loop->at < items->n && mn_tpl_step(r, 1); loop->at++) { /* what is added on the way is seen, too */
    any = true;
    if (!(r->scope = open_scope(r, outside))) break;
    if (at >= 0) mn_tpl_bind(r, r->scope, r->t->kept[at], (mn_tpl_value){.kind = TPL_LOOP, .as.loop = loop});
    mn_tpl_assign(r, n->a, items->at[loop->at]);
    mn_tpl_execute(r, n->item[1]);
    const bool leaves = r->flow == TPL_BREAK;
    r->flow = TPL_ON;
    if (leaves) break;
  }
  r->scope = outside;
  if (!any && n->item[2]) {
    r->scope = open_scope(r, outside);
    if (r->scope) mn_tpl_execute(r, n->item[2]);
    r->scope = outside;
  }
}

/* The filters of a block, the innermost without a value. */
static mn_tpl_value filtered(mn_tpl_run *r, const mn_tpl_node *n, mn_tpl_value v) {
  if (!n || !mn_tpl_enter(r)) return v;
  if (n->a) v = filtered(r, n->a, v);
  v = applied(r, n, v);
  mn_tpl_leave(r);
  return v;
}

/* A body with names of its own, as text. */
static mn_tpl_value text_of(mn_tpl_run *r, const mn_tpl_node *body) {
  mn_tpl_scope *before = r->scope, *scope = open_scope(r, before);
  const size_t from = r->out.len;
  if (!scope) return mn_tpl_undefined();
  r->scope = scope;
  mn_tpl_execute(r, body);
  r->scope = before;
  return captured(r, from);
}

static void write_value(mn_tpl_run *r, mn_tpl_value v) {
  if (v.kind == TPL_STRING) {
    mn_tpl_write(r, v.as.string->data, v.as.string->n);
    return;
  }
  mn_text text = {0};
  mn_tpl_add_str(r, v, &text);
  mn_tpl_write(r, text.data, text.len);
  mn_text_free(&text);
}

static mn_tpl_value macro_here(mn_tpl_run *r, const mn_tpl_node *n) {
  mn_tpl_macro *m = mn_tpl_alloc(r, sizeof *m);
  if (!m) return mn_tpl_undefined();
  *m = (mn_tpl_macro){n, r->scope};
  return (mn_tpl_value){.kind = TPL_MACRO, .as.macro = m};
}

/* {% call macro(...) %}: its body is what the macro calls `caller`. */
static void run_call(mn_tpl_run *r, const mn_tpl_node *n) {
  call_args args;
  const mn_tpl_value f = mn_tpl_evaluate(r, n->a->a), caller = macro_here(r, n);
  if (!evaluate_args(r, n->a, &args)) return;
  if (f.kind != TPL_MACRO) mn_tpl_fail(r, "{%% call %%} wants a macro, not %s", mn_tpl_type_name(f));
  else write_value(r, mn_tpl_call_macro(r, f.as.macro, &args.args, &caller));
}

static void run_with(mn_tpl_run *r, const mn_tpl_node *n) {
  mn_tpl_scope *before = r->scope, *inside = open_scope(r, before);
  for (int i = 0; i + 1 < n->n && inside && r->status == MN_OK; i += 2) { /* the values are those of outside */
    const mn_tpl_value v = mn_tpl_evaluate(r, n->item[i + 1]);
    r->scope = inside;
    mn_tpl_assign(r, n->item[i], v);
    r->scope = before;
  }
  if (!inside) return;
  r->scope = inside;
  mn_tpl_execute(r, n->c);
  r->scope = before;
}

static void execute(mn_tpl_run *r, const mn_tpl_node *n) {
  switch (n->type) {
  case TPL_N_BODY:
    for (int i = 0; i < n->n && r->status == MN_OK && r->flow == TPL_ON; i++) mn_tpl_execute(r, n->item[i]);
    break;
  case TPL_N_TEXT:
    write_value(r, n->value);
    break;
  case TPL_N_OUTPUT:
    write_value(r, mn_tpl_evaluate(r, n->a));
    break;
  case TPL_N_IF:
    while (n && n->type == TPL_N_IF && r->status == MN_OK && !mn_tpl_truth(mn_tpl_evaluate(r, n->a))) n = n->c;
    if (n) mn_tpl_execute(r, n->type == TPL_N_IF ? n->b : n);
    break;
  case TPL_N_FOR:
    run_for(r, n);
    break;
  case TPL_N_SET:
    mn_tpl_assign(r, n->a, mn_tpl_evaluate(r, n->b));
    break;
  case TPL_N_SET_BLOCK:
    mn_tpl_assign(r, n->a, filtered(r, n->b, text_of(r, n->c)));
    break;
  case TPL_N_MACRO:
    mn_tpl_bind(r, r->scope, n->name, macro_here(r, n));
    break;
  case TPL_N_CALL_BLOCK:
    run_call(r, n);
    break;
  case TPL_N_FILTER_BLOCK:
    write_value(r, filtered(r, n->b, text_of(r, n->c)));
    break;
  case TPL_N_WITH:
    run_with(r, n);
    break;
  case TPL_N_GENERATION:
    write_value(r, text_of(r, n->c));
    break;
  case TPL_N_BREAK:
    r->flow = TPL_BREAK;
    break;
  case TPL_N_CONTINUE:
    r->flow = TPL_CONTINUE;
    break;
  default:
    mn_tpl_fail(r, "a value stands where a statement should");
  }
}

void mn_tpl_execute(mn_tpl_run *r, const mn_tpl_node *n) {
  if (r->status == MN_OK) r->line = n->line;
  if (!mn_tpl_step(r, 1) || !mn_tpl_enter(r)) return;
  execute(r, n);
  mn_tpl_leave(r);
}
