/* template_parse.c - the statements of a template: what stands in {% %}. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "format/template_internal.h"

enum { DEPTH = 200 }; /* of statements and expressions in each other */

/* ---- what both rooms of the parser need ---- */
bool mn_tpl_parser_fail(mn_tpl_parser *p, int line, const char *fmt, ...) {
  char what[512];
  if (p->status != MN_OK) return false;
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(what, sizeof what, fmt, ap);
  va_end(ap);
  p->status = mn_tpl_fault(p->t, line, "%s", what);
  return false;
}

const mn_tpl_sign *mn_tpl_peek(const mn_tpl_parser *p) { return &p->t->sign[p->at]; }
static void next(mn_tpl_parser *p) { p->at += p->at + 1 < p->t->n_signs; } /* the last one is the end */

static void show(const mn_tpl_sign *s, char out[MN_PRINTABLE + 16]) {
  static const char *const names[] = {"the end of the template", "text", "{{", "}}", "{%", "%}"};
  char text[64], shown[MN_PRINTABLE];
  if (s->kind <= TPL_S_BLOCK_END) {
    strcpy(out, names[s->kind]);
    return;
  }
  if (s->kind == TPL_S_INT || s->kind == TPL_S_FLOAT) {
    strcpy(out, "a number");
    return;
  }
  snprintf(text, sizeof text, "%.*s", (int)(s->n < 60 ? s->n : 60), s->text);
  snprintf(out, MN_PRINTABLE + 16, s->kind == TPL_S_STRING ? "the string '%s'" : "'%s'", mn_printable(text, shown));
}

void mn_tpl_unexpected(mn_tpl_parser *p, const char *wanted) {
  char shown[MN_PRINTABLE + 16];
  show(mn_tpl_peek(p), shown);
  mn_tpl_parser_fail(p, mn_tpl_peek(p)->line, "%s stands where %s should", shown, wanted);
}

bool mn_tpl_is_op(const mn_tpl_parser *p, mn_tpl_op op) { return mn_tpl_peek(p)->kind == TPL_S_OP && mn_tpl_peek(p)->op == op; }

bool mn_tpl_skip_op(mn_tpl_parser *p, mn_tpl_op op) {
  const bool is = mn_tpl_is_op(p, op);
  if (is) next(p);
  return is;
}

bool mn_tpl_expect_op(mn_tpl_parser *p, mn_tpl_op op) {
  static const char *const names[] = {
      [TPL_ASSIGN] = "'='",      [TPL_COLON] = "':'",        [TPL_COMMA] = "','",      [TPL_OPEN_ROUND] = "'('",
      [TPL_CLOSE_ROUND] = "')'", [TPL_CLOSE_SQUARE] = "']'", [TPL_CLOSE_CURLY] = "'}'"};
  if (mn_tpl_skip_op(p, op)) return true;
  mn_tpl_unexpected(p, names[op]);
  return false;
}

bool mn_tpl_is_name(const mn_tpl_parser *p, const char *name) {
  return mn_tpl_peek(p)->kind == TPL_S_NAME && strcmp(mn_tpl_peek(p)->text, name) == 0;
}

bool mn_tpl_skip_name(mn_tpl_parser *p, const char *name) {
  const bool is = mn_tpl_is_name(p, name);
  if (is) next(p);
  return is;
}

const char *mn_tpl_expect_name(mn_tpl_parser *p) {
  const mn_tpl_sign *s = mn_tpl_peek(p);
  if (s->kind != TPL_S_NAME) {
    mn_tpl_unexpected(p, "a name");
    return NULL;
  }
  next(p);
  return s->text;
}

mn_tpl_node *mn_tpl_new_node(mn_tpl_parser *p, mn_tpl_type type) {
  if (p->status != MN_OK) return NULL;
  mn_tpl_node *n = mn_arena_alloc(p->t->arena, sizeof *n);
  if (!n) p->status = MN_ERR_MEMORY;
  else n->type = type, n->line = mn_tpl_peek(p)->line;
  return n;
}

/* Room for items doubles: it is the least power of two that holds them. */
bool mn_tpl_add_item(mn_tpl_parser *p, mn_tpl_node *n, mn_tpl_node *item) {
  if (p->status != MN_OK) return false;
  const int held = n->n + n->n_named;
  if ((held & (held - 1)) == 0) {
    mn_tpl_node **more = mn_arena_alloc(p->t->arena, (size_t)(held ? 2 * held : 1) * sizeof(mn_tpl_node *));
    if (!more) p->status = MN_ERR_MEMORY;
    if (!more) return false;
    if (held) memcpy(more, n->item, (size_t)held * sizeof(mn_tpl_node *));
    n->item = more;
  }
  n->item[held] = item;
  n->n++;
  return true;
}

static bool end_of_block(mn_tpl_parser *p) {
  if (p->status != MN_OK) return false;
  if (mn_tpl_peek(p)->kind != TPL_S_BLOCK_END) mn_tpl_unexpected(p, "%}");
  else next(p);
  return p->status == MN_OK;
}

/* ---- statements ---- */
static mn_tpl_node *statement(mn_tpl_parser *p);

/* Up to one of `ends`, which is passed with its block's end: both. */
static mn_tpl_node *body_to(mn_tpl_parser *p, const char *end) {
  const char *const ends[] = {end, NULL};
  const char *ended;
  mn_tpl_node *body = mn_tpl_parse_body(p, ends, &ended);
  next(p);
  return end_of_block(p) ? body : NULL;
}

/* Behind "if" or "elif". */
static mn_tpl_node *parse_if(mn_tpl_parser *p) {
  static const char *const ends[] = {"elif", "else", "endif", NULL};
  const char *ended = NULL;
  mn_tpl_node *first = NULL, **last = &first;
  for (;;) { /* a chain of elifs, however long, is no recursion */
    mn_tpl_node *n = mn_tpl_new_node(p, TPL_N_IF);
    if (!n) return NULL;
    *last = n, last = &n->c;
    n->a = mn_tpl_parse_tuple(p, false, NULL);
    if (!end_of_block(p)) return NULL;
    n->b = mn_tpl_parse_body(p, ends, &ended);
    if (p->status != MN_OK) return NULL;
    next(p);
    if (strcmp(ended, "elif") != 0) break;
  }
  if (!end_of_block(p)) return NULL;
  if (!strcmp(ended, "else")) *last = body_to(p, "endif");
  return first;
}

static mn_tpl_node *parse_for(mn_tpl_parser *p) {
  static const char *const ends[] = {"else", "endfor", NULL};
  const char *ended = NULL;
  mn_tpl_node *n = mn_tpl_new_node(p, TPL_N_FOR), *only = NULL, *otherwise = NULL;
  if (!n) return NULL;
  n->a = mn_tpl_parse_target(p, false);
  if (p->status == MN_OK && !mn_tpl_skip_name(p, "in")) mn_tpl_unexpected(p, "'in'");
  n->b = mn_tpl_parse_tuple(p, false, "recursive");
  if (p->status == MN_OK && mn_tpl_skip_name(p, "if")) only = mn_tpl_parse_expression(p);
  if (p->status == MN_OK && mn_tpl_is_name(p, "recursive"))
    mn_tpl_parser_fail(p, n->line, "loops that call themselves ('recursive') are not supported");
  if (!end_of_block(p)) return NULL;
  p->loops++;
  mn_tpl_node *body = mn_tpl_parse_body(p, ends, &ended);
  p->loops--;
  if (p->status != MN_OK) return NULL;
  next(p);
  if (!end_of_block(p)) return NULL;
  if (!strcmp(ended, "else")) otherwise = body_to(p, "endfor");
  return mn_tpl_add_item(p, n, only) && mn_tpl_add_item(p, n, body) && mn_tpl_add_item(p, n, otherwise) ? n : NULL;
}

static mn_tpl_node *parse_set(mn_tpl_parser *p) {
  mn_tpl_node *n = mn_tpl_new_node(p, TPL_N_SET);
  if (!n) return NULL;
  n->a = mn_tpl_parse_target(p, true);
  if (p->status == MN_OK && mn_tpl_skip_op(p, TPL_ASSIGN)) {
    n->b = mn_tpl_parse_tuple(p, true, NULL);
    return end_of_block(p) ? n : NULL;
  }
  n->type = TPL_N_SET_BLOCK;
  if (p->status == MN_OK && mn_tpl_is_op(p, TPL_PIPE)) n->b = mn_tpl_parse_filters(p, NULL, false);
  if (!end_of_block(p)) return NULL;
  n->c = body_to(p, "endset");
  return n;
}

/* "(a, b=1)": names as items with their defaults or NULL. */
static bool signature(mn_tpl_parser *p, mn_tpl_node *n) {
  mn_tpl_expect_op(p, TPL_OPEN_ROUND);
  for (bool first = true, defaults = false; p->status == MN_OK && !mn_tpl_is_op(p, TPL_CLOSE_ROUND); first = false) {
    if (!first && !mn_tpl_expect_op(p, TPL_COMMA)) return false;
    mn_tpl_node *one = mn_tpl_new_node(p, TPL_N_NAME);
    if (!one || !(one->name = mn_tpl_expect_name(p))) return false;
    if (mn_tpl_skip_op(p, TPL_ASSIGN)) one->a = mn_tpl_parse_expression(p), defaults = true;
    else if (defaults)
      return mn_tpl_parser_fail(p, one->line, "the argument '%.60s' without a default follows one that has one", one->name);
    if (!mn_tpl_add_item(p, n, one)) return false;
  }
  return mn_tpl_expect_op(p, TPL_CLOSE_ROUND);
}

/* The body of a macro: a loop around it is not left from inside. */
static mn_tpl_node *own_body(mn_tpl_parser *p, const char *end) {
  const int loops = p->loops;
  p->loops = 0;
  mn_tpl_node *body = body_to(p, end);
  p->loops = loops;
  return body;
}

static mn_tpl_node *parse_macro(mn_tpl_parser *p) {
  mn_tpl_node *n = mn_tpl_new_node(p, TPL_N_MACRO);
  if (!n || !(n->name = mn_tpl_expect_name(p)) || !signature(p, n) || !end_of_block(p)) return NULL;
  n->c = own_body(p, "endmacro");
  return n;
}

static mn_tpl_node *parse_call(mn_tpl_parser *p) {
  mn_tpl_node *n = mn_tpl_new_node(p, TPL_N_CALL_BLOCK);
  if (!n) return NULL;
  n->name = "caller";
  if (mn_tpl_is_op(p, TPL_OPEN_ROUND) && !signature(p, n)) return NULL;
  n->a = mn_tpl_parse_expression(p);
  if (p->status == MN_OK && n->a->type != TPL_N_CALL)
    mn_tpl_parser_fail(p, n->line, "{%% call %%} needs a call: {%% call macro(arguments) %%}");
  if (!end_of_block(p)) return NULL;
  n->c = own_body(p, "endcall");
  return n;
}

static mn_tpl_node *parse_with(mn_tpl_parser *p) {
  mn_tpl_node *n = mn_tpl_new_node(p, TPL_N_WITH);
  while (n && p->status == MN_OK && mn_tpl_peek(p)->kind != TPL_S_BLOCK_END) {
    if (n->n && !mn_tpl_expect_op(p, TPL_COMMA)) return NULL;
    mn_tpl_node *target = mn_tpl_parse_target(p, false);
    if (p->status == MN_OK) mn_tpl_expect_op(p, TPL_ASSIGN);
    mn_tpl_node *value = mn_tpl_parse_expression(p);
    mn_tpl_add_item(p, n, target);
    mn_tpl_add_item(p, n, value);
  }
  if (!end_of_block(p)) return NULL;
  n->c = body_to(p, "endwith");
  return n;
}

static mn_tpl_node *with_body(mn_tpl_parser *p, mn_tpl_type type, const char *end) {
  mn_tpl_node *n = mn_tpl_new_node(p, type);
  if (n && type == TPL_N_FILTER_BLOCK) n->b = mn_tpl_parse_filters(p, NULL, true);
  if (!end_of_block(p)) return NULL;
  n->c = type == TPL_N_GENERATION ? own_body(p, end) : body_to(p, end);
  return n;
}

static mn_tpl_node *leave_loop(mn_tpl_parser *p, mn_tpl_type type) {
  mn_tpl_node *n = mn_tpl_new_node(p, type);
  if (!p->loops) mn_tpl_parser_fail(p, mn_tpl_peek(p)->line, "%s stands in no loop", type == TPL_N_BREAK ? "break" : "continue");
  return end_of_block(p) ? n : NULL;
}

/* Behind "{%". */
static mn_tpl_node *statement(mn_tpl_parser *p) {
  static const char *const absent[] = {"extends", "block", "include", "import", "from", "autoescape",
                                       "trans",   "do",    "print",   "debug",  NULL};
  const int line = mn_tpl_peek(p)->line;
  const char *name = mn_tpl_expect_name(p);
  if (!name) return NULL;
  if (!strcmp(name, "if")) return parse_if(p);
  if (!strcmp(name, "for")) return parse_for(p);
  if (!strcmp(name, "set")) return parse_set(p);
  if (!strcmp(name, "macro")) return parse_macro(p);
  if (!strcmp(name, "call")) return parse_call(p);
  if (!strcmp(name, "filter")) return with_body(p, TPL_N_FILTER_BLOCK, "endfilter");
  if (!strcmp(name, "generation")) return with_body(p, TPL_N_GENERATION, "endgeneration");
  if (!strcmp(name, "with")) return parse_with(p);
  if (!strcmp(name, "break")) return leave_loop(p, TPL_N_BREAK);
  if (!strcmp(name, "continue")) return leave_loop(p, TPL_N_CONTINUE);
  for (int i = 0; absent[i]; i++)
    if (!strcmp(name, absent[i])) {
      mn_tpl_parser_fail(p, line, "{%% %s %%} is not supported: a chat template is one text", name);
      return NULL;
    }
  char shown[MN_PRINTABLE];
  if (!strncmp(name, "end", 3) || !strcmp(name, "else") || !strcmp(name, "elif"))
    mn_tpl_parser_fail(p, line, "{%% %s %%} ends nothing that is open here", mn_printable(name, shown));
  else mn_tpl_parser_fail(p, line, "there is no statement {%% %s %%}", mn_printable(name, shown));
  return NULL;
}

static const char *which_end(mn_tpl_parser *p, const char *const *ends) {
  for (int i = 0; ends && ends[i]; i++)
    if (mn_tpl_is_name(p, ends[i])) return ends[i];
  return NULL;
}

/* Text, an output, a statement; NULL without a fault: the body has ended. */
static mn_tpl_node *part(mn_tpl_parser *p, const char *const *ends, const char **ended) {
  const mn_tpl_sign *s = mn_tpl_peek(p);
  if (s->kind == TPL_S_END) {
    char wanted[64] = "";
    for (int i = 0; ends && ends[i]; i++) snprintf(wanted + strlen(wanted), sizeof wanted - strlen(wanted), "%s%s", i ? ", " : "", ends[i]);
    if (ends) mn_tpl_parser_fail(p, s->line, "the template ends where %s should come", wanted);
    return NULL;
  }
  mn_tpl_node *n = NULL;
  if (s->kind == TPL_S_TEXT) {
    n = mn_tpl_new_node(p, TPL_N_TEXT);
    mn_tpl_string *text = n ? mn_arena_alloc(p->t->arena, sizeof *text) : NULL;
    if (!text) p->status = MN_ERR_MEMORY;
    if (!text) return NULL;
    *text = (mn_tpl_string){s->text, s->n, -1, false};
    n->value = (mn_tpl_value){.kind = TPL_STRING, .as.string = text};
    next(p);
    return n;
  }
  next(p); /* {{ or {% */
  if (s->kind == TPL_S_OUTPUT) {
    n = mn_tpl_new_node(p, TPL_N_OUTPUT);
    if (n) n->a = mn_tpl_parse_tuple(p, true, NULL);
    if (p->status == MN_OK && mn_tpl_peek(p)->kind != TPL_S_OUTPUT_END) mn_tpl_unexpected(p, "}}");
    next(p);
    return n;
  }
  const char *end = which_end(p, ends);
  if (!end) return statement(p);
  *ended = end;
  return NULL;
}

mn_tpl_node *mn_tpl_parse_body(mn_tpl_parser *p, const char *const *ends, const char **ended) {
  mn_tpl_node *body = mn_tpl_new_node(p, TPL_N_BODY), *n;
  if (!body) return NULL;
  if (p->depth >= DEPTH) mn_tpl_parser_fail(p, body->line, "statements stand in each other more than %d deep", DEPTH);
  p->depth++;
  while (p->status == MN_OK && (n = part(p, ends, ended)) != NULL) mn_tpl_add_item(p, body, n);
  p->depth--;
  return p->status == MN_OK ? body : NULL;
}
