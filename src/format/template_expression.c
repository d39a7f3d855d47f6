/* template_expression.c - the expressions of a template, by rising precedence as Jinja has it:
 *     x if y else z; or; and; not; comparisons, in; + -; ~; * / // %; **; signs; what is called, indexed, filtered, tested. */
#include <string.h>

#include "format/template_internal.h"

enum { DEPTH = 200 };

static void next(mn_tpl_parser *p) { p->at += p->at + 1 < p->t->n_signs; }
static bool enter(mn_tpl_parser *p) {
  if (p->depth >= DEPTH) mn_tpl_parser_fail(p, mn_tpl_peek(p)->line, "expressions stand in each other more than %d deep", DEPTH);
  if (p->status == MN_OK) p->depth++;
  return p->status == MN_OK;
}

static mn_tpl_node *constant(mn_tpl_parser *p, mn_tpl_value v) {
  mn_tpl_node *n = mn_tpl_new_node(p, TPL_N_CONST);
  if (n) n->value = v;
  return n;
}

static mn_tpl_node *operation(mn_tpl_parser *p, mn_tpl_type type, mn_tpl_node *a, mn_tpl_node *b) {
  mn_tpl_node *n = mn_tpl_new_node(p, type);
  if (!n) return NULL;
  n->a = a, n->b = b;
  if (a) n->line = a->line;
  return n;
}

static bool set_op(mn_tpl_parser *p, mn_tpl_node *n, int i, mn_tpl_op op) {
  if (!n || p->status != MN_OK) return false;
  if ((i & (i - 1)) == 0) { /* as items grow */
    uint8_t *more = mn_arena_alloc(p->t->arena, (size_t)(i ? 2 * i : 1));
    if (!more) p->status = MN_ERR_MEMORY;
    if (!more) return false;
    if (i) memcpy(more, n->op, (size_t)i);
    n->op = more;
  }
  uint8_t *ops;
  memcpy(&ops, &n->op, sizeof ops); /* ours still */
  ops[i] = (uint8_t)op;
  return true;
}

/* ---- arguments ---- */
static bool is_named_argument(const mn_tpl_parser *p) {
  const mn_tpl_sign *s = mn_tpl_peek(p);
  return s->kind == TPL_S_NAME && s[1].kind == TPL_S_OP && s[1].op == TPL_ASSIGN;
}

static bool add_named(mn_tpl_parser *p, mn_tpl_node *n) {
  const int i = n->n_named;
  if ((i & (i - 1)) == 0) {
    const char **more = mn_arena_alloc(p->t->arena, (size_t)(i ? 2 * i : 1) * sizeof *more);
    if (!more) p->status = MN_ERR_MEMORY;
    if (!more) return false;
    if (i) memcpy(more, n->name_of, (size_t)i * sizeof *more);
    n->name_of = more;
  }
  n->name_of[i] = mn_tpl_expect_name(p);
  next(p); /* = */
  mn_tpl_node *value = mn_tpl_parse_expression(p);
  if (!mn_tpl_add_item(p, n, value)) return false;
  n->n--, n->n_named++;
  return true;
}

/* "(...)" into n. */
static void arguments(mn_tpl_parser *p, mn_tpl_node *n) {
  const int line = mn_tpl_peek(p)->line;
  if (!n || !mn_tpl_expect_op(p, TPL_OPEN_ROUND)) return;
  for (bool first = true; p->status == MN_OK && !mn_tpl_is_op(p, TPL_CLOSE_ROUND); first = false) {
    if (!first && !mn_tpl_expect_op(p, TPL_COMMA)) return;
    if (!first && mn_tpl_is_op(p, TPL_CLOSE_ROUND)) break;
    if (mn_tpl_skip_op(p, TPL_MUL)) {
      if (n->star || n->stars) mn_tpl_parser_fail(p, line, "* stands twice, or behind **, in a call");
      n->star = mn_tpl_parse_expression(p);
    } else if (mn_tpl_skip_op(p, TPL_POW)) {
      if (n->stars) mn_tpl_parser_fail(p, line, "** stands twice in a call");
      n->stars = mn_tpl_parse_expression(p);
    } else if (is_named_argument(p)) {
      if (n->stars) mn_tpl_parser_fail(p, line, "an argument stands behind ** in a call");
      else add_named(p, n);
    } else if (n->star || n->stars || n->n_named) {
      mn_tpl_parser_fail(p, line, "an argument by its place stands behind arguments by name in a call");
    } else {
      mn_tpl_node *value = mn_tpl_parse_expression(p);
      mn_tpl_add_item(p, n, value);
    }
  }
  mn_tpl_expect_op(p, TPL_CLOSE_ROUND);
}

/* ---- primaries ---- */
static mn_tpl_node *list_of(mn_tpl_parser *p) {
  mn_tpl_node *n = mn_tpl_new_node(p, TPL_N_LIST);
  next(p);
  while (n && p->status == MN_OK && !mn_tpl_is_op(p, TPL_CLOSE_SQUARE)) {
    if (n->n && !mn_tpl_expect_op(p, TPL_COMMA)) break;
    if (mn_tpl_is_op(p, TPL_CLOSE_SQUARE)) break;
    mn_tpl_node *item = mn_tpl_parse_expression(p);
    mn_tpl_add_item(p, n, item);
  }
  if (p->status == MN_OK) mn_tpl_expect_op(p, TPL_CLOSE_SQUARE);
  return n;
}

static mn_tpl_node *dict_of(mn_tpl_parser *p) {
  mn_tpl_node *n = mn_tpl_new_node(p, TPL_N_DICT);
  next(p);
  while (n && p->status == MN_OK && !mn_tpl_is_op(p, TPL_CLOSE_CURLY)) {
    if (n->n && !mn_tpl_expect_op(p, TPL_COMMA)) break;
    if (mn_tpl_is_op(p, TPL_CLOSE_CURLY)) break;
    mn_tpl_node *key = mn_tpl_parse_expression(p);
    if (p->status == MN_OK) mn_tpl_expect_op(p, TPL_COLON);
    mn_tpl_node *value = mn_tpl_parse_expression(p);
    mn_tpl_add_item(p, n, key);
    mn_tpl_add_item(p, n, value);
  }
  if (p->status == MN_OK) mn_tpl_expect_op(p, TPL_CLOSE_CURLY);
  return n;
}

/* Strings beside each other are one. */
static mn_tpl_node *string_of(mn_tpl_parser *p) {
  size_t n = 0, at = 0;
  int last = p->at;
  for (; p->t->sign[last].kind == TPL_S_STRING; last++) n += p->t->sign[last].n;
  mn_tpl_string *s = mn_arena_alloc(p->t->arena, sizeof *s);
  char *data = s ? mn_arena_alloc(p->t->arena, n + 1) : NULL;
  if (!data) p->status = MN_ERR_MEMORY;
  if (!data) return NULL;
  mn_tpl_node *node = constant(p, (mn_tpl_value){.kind = TPL_STRING, .as.string = s});
  for (; p->at < last; next(p)) {
    memcpy(data + at, mn_tpl_peek(p)->text, mn_tpl_peek(p)->n);
    at += mn_tpl_peek(p)->n;
  }
  *s = (mn_tpl_string){data, n, -1, false};
  return node;
}

static bool is_constant(const char *name, mn_tpl_value *v) {
  if (!strcmp(name, "true") || !strcmp(name, "True")) *v = mn_tpl_bool(true);
  else if (!strcmp(name, "false") || !strcmp(name, "False")) *v = mn_tpl_bool(false);
  else if (!strcmp(name, "none") || !strcmp(name, "None")) *v = mn_tpl_none();
  else return false;
  return true;
}

static mn_tpl_node *primary(mn_tpl_parser *p) {
  const mn_tpl_sign *s = mn_tpl_peek(p);
  mn_tpl_node *n = NULL;
  mn_tpl_value v;
  if (p->status != MN_OK || !enter(p)) return NULL;
  if (s->kind == TPL_S_NAME) {
    n = is_constant(s->text, &v) ? constant(p, v) : mn_tpl_new_node(p, TPL_N_NAME);
    if (n) n->name = s->text;
    next(p);
  } else if (s->kind == TPL_S_STRING) {
    n = string_of(p);
  } else if (s->kind == TPL_S_INT || s->kind == TPL_S_FLOAT) {
    n = constant(p, s->kind == TPL_S_INT ? mn_tpl_int(s->integer) : mn_tpl_real(s->real));
    next(p);
  } else if (mn_tpl_is_op(p, TPL_OPEN_ROUND)) {
    next(p);
    n = mn_tpl_parse_tuple(p, true, ")");
    mn_tpl_expect_op(p, TPL_CLOSE_ROUND);
  } else if (mn_tpl_is_op(p, TPL_OPEN_SQUARE)) {
    n = list_of(p);
  } else if (mn_tpl_is_op(p, TPL_OPEN_CURLY)) {
    n = dict_of(p);
  } else {
    mn_tpl_unexpected(p, "a value");
  }
  p->depth--;
  return n;
}

/* ---- behind a primary ---- */
static mn_tpl_node *subscript(mn_tpl_parser *p, mn_tpl_node *of) {
  mn_tpl_node *part[3] = {0}, *n = operation(p, TPL_N_ITEM, of, NULL);
  bool slice = false;
  next(p); /* [ */
  if (!n) return NULL;
  if (!mn_tpl_is_op(p, TPL_COLON)) part[0] = n->b = mn_tpl_parse_expression(p);
  for (int i = 1; i < 3 && p->status == MN_OK && mn_tpl_skip_op(p, TPL_COLON); i++) {
    slice = true;
    if (!mn_tpl_is_op(p, TPL_COLON) && !mn_tpl_is_op(p, TPL_CLOSE_SQUARE)) part[i] = mn_tpl_parse_expression(p);
  }
  if (slice) n->b = mn_tpl_new_node(p, TPL_N_SLICE);
  for (int i = 0; i < 3 && slice && n->b; i++) mn_tpl_add_item(p, n->b, part[i]);
  if (p->status == MN_OK) mn_tpl_expect_op(p, TPL_CLOSE_SQUARE);
  return n;
}

static mn_tpl_node *postfix(mn_tpl_parser *p, mn_tpl_node *n) {
  while (p->status == MN_OK) {
    if (mn_tpl_is_op(p, TPL_OPEN_SQUARE)) {
      n = subscript(p, n);
    } else if (mn_tpl_is_op(p, TPL_OPEN_ROUND)) {
      n = operation(p, TPL_N_CALL, n, NULL);
      arguments(p, n);
    } else if (mn_tpl_skip_op(p, TPL_DOT)) {
      const mn_tpl_sign *s = mn_tpl_peek(p);
      const bool number = s->kind == TPL_S_INT;
      n = operation(p, number ? TPL_N_ITEM : TPL_N_ATTR, n, NULL);
      if (!n) break;
      if (number) n->b = constant(p, mn_tpl_int(s->integer)), next(p);
      else n->name = mn_tpl_expect_name(p);
    } else {
      break;
    }
  }
  return n;
}

/* A filter's or a test's name, and that it is there. */
static bool named(mn_tpl_parser *p, mn_tpl_node *n, bool filter) {
  const int line = mn_tpl_peek(p)->line;
  char shown[MN_PRINTABLE];
  if (!n || !(n->name = mn_tpl_expect_name(p))) return false;
  n->line = line;
  n->def = filter ? mn_tpl_filter(n->name) : mn_tpl_test(n->name);
  return n->def || mn_tpl_parser_fail(p, line, "there is no %s '%s'%s", filter ? "filter" : "test", mn_printable(n->name, shown),
                                      filter ? ", or it is one for web pages, which chat templates do without" : "");
}

mn_tpl_node *mn_tpl_parse_filters(mn_tpl_parser *p, mn_tpl_node *of, bool bare) {
  for (; p->status == MN_OK && (bare || mn_tpl_skip_op(p, TPL_PIPE)); bare = false) {
    of = operation(p, TPL_N_FILTER, of, NULL);
    if (named(p, of, true) && mn_tpl_is_op(p, TPL_OPEN_ROUND)) arguments(p, of);
  }
  return of;
}

static mn_tpl_node *unary(mn_tpl_parser *p, bool filters);

/* Behind "is". A value right behind a test's name is its argument. */
static mn_tpl_node *test(mn_tpl_parser *p, mn_tpl_node *of) {
  const bool negated = mn_tpl_skip_name(p, "not");
  mn_tpl_node *n = operation(p, TPL_N_TEST, of, NULL);
  if (!named(p, n, false)) return NULL;
  const mn_tpl_sign *s = mn_tpl_peek(p);
  const bool value =
      (s->kind >= TPL_S_NAME && s->kind <= TPL_S_FLOAT) || mn_tpl_is_op(p, TPL_OPEN_SQUARE) || mn_tpl_is_op(p, TPL_OPEN_CURLY);
  static const char *const follow[] = {"else", "or", "and", "if", "in", "not", "recursive", NULL};
  bool follows = false;
  for (int i = 0; follow[i]; i++) follows = follows || mn_tpl_is_name(p, follow[i]);
  if (mn_tpl_is_op(p, TPL_OPEN_ROUND)) {
    arguments(p, n);
  } else if (value && !follows) {
    if (mn_tpl_is_name(p, "is")) mn_tpl_parser_fail(p, s->line, "tests are not chained: x is a is b");
    mn_tpl_node *a = primary(p);
    a = postfix(p, a);
    mn_tpl_add_item(p, n, a);
  }
  return negated ? operation(p, TPL_N_NOT, n, NULL) : n;
}

static mn_tpl_node *filters_and_tests(mn_tpl_parser *p, mn_tpl_node *n) {
  while (p->status == MN_OK) {
    if (mn_tpl_is_op(p, TPL_PIPE)) {
      n = mn_tpl_parse_filters(p, n, false);
    } else if (mn_tpl_skip_name(p, "is")) {
      n = test(p, n);
    } else if (mn_tpl_is_op(p, TPL_OPEN_ROUND)) {
      n = operation(p, TPL_N_CALL, n, NULL);
      arguments(p, n);
    } else {
      break;
    }
  }
  return n;
}

static mn_tpl_node *unary(mn_tpl_parser *p, bool filters) {
  mn_tpl_node *n;
  const bool minus = mn_tpl_is_op(p, TPL_SUB);
  if (minus || mn_tpl_is_op(p, TPL_ADD)) {
    if (!enter(p)) return NULL;
    next(p);
    n = unary(p, false);
    n = operation(p, minus ? TPL_N_NEGATIVE : TPL_N_POSITIVE, n, NULL);
    p->depth--;
  } else {
    n = primary(p);
  }
  n = postfix(p, n);
  return filters ? filters_and_tests(p, n) : n;
}

/* ---- operators ---- */
static mn_tpl_node *binary(mn_tpl_parser *p, const mn_tpl_op *ops, mn_tpl_node *(*below)(mn_tpl_parser *)) {
  mn_tpl_node *n = below(p);
  for (int i = 0; p->status == MN_OK && ops[i];) {
    if (!mn_tpl_skip_op(p, ops[i])) {
      i++;
      continue;
    }
    mn_tpl_node *right = below(p);
    n = operation(p, TPL_N_BINARY, n, right);
    set_op(p, n, 0, ops[i]);
    i = 0;
  }
  return n;
}

static mn_tpl_node *with_filters(mn_tpl_parser *p) { return unary(p, true); }
static mn_tpl_node *power(mn_tpl_parser *p) { return binary(p, (const mn_tpl_op[]){TPL_POW, 0}, with_filters); }
static mn_tpl_node *product(mn_tpl_parser *p) { return binary(p, (const mn_tpl_op[]){TPL_MUL, TPL_DIV, TPL_FLOOR_DIV, TPL_MOD, 0}, power); }

static mn_tpl_node *concat(mn_tpl_parser *p) {
  mn_tpl_node *first = product(p), *n = NULL;
  while (p->status == MN_OK && mn_tpl_skip_op(p, TPL_TILDE)) {
    if (!n && (n = operation(p, TPL_N_CONCAT, NULL, NULL))) n->line = first->line, mn_tpl_add_item(p, n, first);
    mn_tpl_node *more = product(p);
    if (n) mn_tpl_add_item(p, n, more);
  }
  return n ? n : first;
}

static mn_tpl_node *sum(mn_tpl_parser *p) { return binary(p, (const mn_tpl_op[]){TPL_ADD, TPL_SUB, 0}, concat); }

static mn_tpl_op comparison_here(mn_tpl_parser *p) {
  const mn_tpl_sign *s = mn_tpl_peek(p);
  if (s->kind == TPL_S_OP && s->op >= TPL_EQ && s->op <= TPL_GE) {
    next(p);
    return s->op;
  }
  if (mn_tpl_skip_name(p, "in")) return TPL_IN;
  if (!mn_tpl_is_name(p, "not") || s[1].kind != TPL_S_NAME || strcmp(s[1].text, "in") != 0) return 0;
  next(p), next(p);
  return TPL_NOT_IN;
}

static mn_tpl_node *comparison(mn_tpl_parser *p) {
  mn_tpl_node *first = sum(p), *n = NULL;
  for (mn_tpl_op op; p->status == MN_OK && (op = comparison_here(p)) != 0;) {
    if (!n && !(n = operation(p, TPL_N_COMPARE, first, NULL))) return NULL;
    mn_tpl_node *right = sum(p);
    if (!set_op(p, n, n->n, op) || !mn_tpl_add_item(p, n, right)) return NULL;
  }
  return n ? n : first;
}

static mn_tpl_node *negation(mn_tpl_parser *p) {
  if (!mn_tpl_is_name(p, "not")) return comparison(p);
  if (!enter(p)) return NULL;
  next(p);
  mn_tpl_node *n = negation(p);
  n = operation(p, TPL_N_NOT, n, NULL);
  p->depth--;
  return n;
}

static mn_tpl_node *both(mn_tpl_parser *p) {
  mn_tpl_node *n = negation(p);
  while (p->status == MN_OK && mn_tpl_skip_name(p, "and")) {
    mn_tpl_node *right = negation(p);
    n = operation(p, TPL_N_AND, n, right);
  }
  return n;
}

mn_tpl_node *mn_tpl_parse_or(mn_tpl_parser *p) {
  mn_tpl_node *n = both(p);
  while (p->status == MN_OK && mn_tpl_skip_name(p, "or")) {
    mn_tpl_node *right = both(p);
    n = operation(p, TPL_N_OR, n, right);
  }
  return n;
}

mn_tpl_node *mn_tpl_parse_expression(mn_tpl_parser *p) {
  if (p->status != MN_OK || !enter(p)) return NULL;
  mn_tpl_node *n = mn_tpl_parse_or(p);
  while (p->status == MN_OK && mn_tpl_skip_name(p, "if")) {
    mn_tpl_node *condition = mn_tpl_parse_or(p), *chosen = operation(p, TPL_N_IF_ELSE, condition, n);
    if (chosen && mn_tpl_skip_name(p, "else")) chosen->c = mn_tpl_parse_expression(p);
    n = chosen;
  }
  p->depth--;
  return n;
}

/* ---- several with commas ---- ends: ")" inside brackets, where there may be none; or a name that ends it; NULL */
static bool tuple_ends(const mn_tpl_parser *p, const char *ends) {
  const mn_tpl_sign *s = mn_tpl_peek(p);
  return s->kind == TPL_S_OUTPUT_END || s->kind == TPL_S_BLOCK_END || mn_tpl_is_op(p, TPL_CLOSE_ROUND) || mn_tpl_is_op(p, TPL_ASSIGN) ||
         (ends && mn_tpl_is_name(p, ends));
}

static mn_tpl_node *tuple(mn_tpl_parser *p, mn_tpl_node *(*one)(mn_tpl_parser *), const char *ends) {
  mn_tpl_node *n = NULL, *first = NULL;
  if (p->status != MN_OK) return NULL;
  if (tuple_ends(p, ends)) {
    if (ends && *ends == ')') return mn_tpl_new_node(p, TPL_N_TUPLE);
    mn_tpl_unexpected(p, "a value");
    return NULL;
  }
  first = one(p);
  while (p->status == MN_OK && mn_tpl_skip_op(p, TPL_COMMA)) {
    if (!n && !((n = operation(p, TPL_N_TUPLE, NULL, NULL)) && mn_tpl_add_item(p, n, first))) return NULL;
    if (tuple_ends(p, ends)) break;
    mn_tpl_node *more = one(p);
    mn_tpl_add_item(p, n, more);
  }
  return n ? n : first;
}

mn_tpl_node *mn_tpl_parse_tuple(mn_tpl_parser *p, bool conditional, const char *ends) {
  return tuple(p, conditional ? mn_tpl_parse_expression : mn_tpl_parse_or, ends);
}

/* ---- targets ---- */
static mn_tpl_node *target_name(mn_tpl_parser *p) {
  mn_tpl_value v;
  if (mn_tpl_is_op(p, TPL_OPEN_ROUND)) {
    if (!enter(p)) return NULL;
    next(p);
    mn_tpl_node *n = tuple(p, target_name, NULL);
    mn_tpl_expect_op(p, TPL_CLOSE_ROUND);
    p->depth--;
    return n;
  }
  mn_tpl_node *n = mn_tpl_new_node(p, TPL_N_NAME);
  const int line = mn_tpl_peek(p)->line;
  if (!n || !(n->name = mn_tpl_expect_name(p))) return NULL;
  if (is_constant(n->name, &v)) mn_tpl_parser_fail(p, line, "nothing is assigned to '%s'", n->name);
  return n;
}

static mn_tpl_node *target_or_attribute(mn_tpl_parser *p) {
  mn_tpl_node *n = target_name(p);
  if (!n || n->type != TPL_N_NAME || !mn_tpl_skip_op(p, TPL_DOT)) return n;
  n->type = TPL_N_NS_NAME;
  n->attribute = mn_tpl_expect_name(p);
  return n;
}

mn_tpl_node *mn_tpl_parse_target(mn_tpl_parser *p, bool namespaces) {
  return tuple(p, namespaces ? target_or_attribute : target_name, "in");
}
