/* template_lex.c - the signs of a template: its text, and between {{ }} and {% %} names, literals and operators. What white space around
 * a tag goes is decided here: all of it beside a minus, the line end behind a block, the spaces before a block that begins its line. */
#include <stdlib.h>
#include <string.h>

#include "format/template_internal.h"

typedef struct lexer {
  mn_template *t;
  const char *s; /* line ends are \n */
  size_t n, at;
  int line;
  bool line_begins; /* what was read last ended with a line */
  int open;         /* brackets */
  char closes[256];
} lexer;

static mn_status fault(const lexer *x, const char *what) { return mn_tpl_fault(x->t, x->line, "%s", what); }

static mn_tpl_sign *add(lexer *x, mn_tpl_sign_kind kind, const char *text, size_t n) {
  mn_template *t = x->t;
  if (t->n_signs == t->room) {
    const int room = t->room ? 2 * t->room : 256;
    mn_tpl_sign *more = mn_realloc(t->sign, (size_t)room * sizeof *more);
    if (!more) return NULL;
    t->sign = more, t->room = room;
  }
  mn_tpl_sign *sign = &t->sign[t->n_signs++];
  *sign = (mn_tpl_sign){.kind = kind, .line = x->line, .text = text, .n = n};
  return sign;
}

static void pass(lexer *x, size_t n) {
  for (size_t i = 0; i < n; i++) x->line += x->s[x->at + i] == '\n';
  x->at += n;
}

static bool here(const lexer *x, size_t at, const char *what) {
  const size_t n = strlen(what);
  return at + n <= x->n && memcmp(x->s + at, what, n) == 0;
}

/* Bytes of white space from `at` on. */
static size_t spaces(const lexer *x, size_t at) {
  const mn_tpl_string s = {x->s, x->n, -1, false};
  const size_t from = at;
  for (size_t next = at; next < x->n; at = next)
    if (!mn_tpl_is_space(mn_tpl_next(&s, &next))) break;
  return at - from;
}

/* The same in front of `end`. */
static size_t spaces_before(const char *s, size_t end) {
  size_t at = end;
  while (at > 0) {
    size_t begin = at - 1;
    while (begin > 0 && ((unsigned char)s[begin] & 0xC0) == 0x80) begin--;
    const mn_tpl_string one = {s, at, -1, false};
    size_t next = begin;
    if (!mn_tpl_is_space(mn_tpl_next(&one, &next)) || next != at) break;
    at = begin;
  }
  return end - at;
}

/* Text [from, to) in front of a tag with this sign (-, + or 0). */
static mn_status add_text(lexer *x, size_t from, size_t to, char sign, bool output) {
  const int line = x->line;
  size_t n = to - from;
  if (sign == '-') {
    n -= spaces_before(x->s + from, n);
  } else if (sign != '+' && !output) {
    size_t begin = n;
    while (begin > 0 && x->s[from + begin - 1] != '\n') begin--;
    if ((begin > 0 || x->line_begins) && spaces_before(x->s + from + begin, n - begin) == n - begin) n = begin;
  }
  if (n && !add(x, TPL_S_TEXT, x->s + from, n)) return MN_ERR_MEMORY;
  x->line = line;
  pass(x, to - from);
  return MN_OK;
}

/* Behind "%}" or "#}", or their forms with a sign: *length of the end with what goes with it, from `at`; false: no end stands there. */
static bool ends(const lexer *x, size_t at, const char *end, bool trims, size_t *length) {
  const size_t n = strlen(end);
  if (x->s[at] == '-' && here(x, at + 1, end)) *length = 1 + n + spaces(x, at + 1 + n);
  else if (trims && x->s[at] == '+' && here(x, at + 1, end)) *length = 1 + n;
  else if (here(x, at, end)) *length = n + (trims && at + n < x->n && x->s[at + n] == '\n');
  else return false;
  return true;
}

static void pass_end(lexer *x, size_t n) {
  pass(x, n);
  x->line_begins = n && x->s[x->at - 1] == '\n';
}

/* ---- inside tags ---- */
static bool is_name(unsigned char c, bool first) {
  return c == '_' || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c >= 0x80 || (!first && c >= '0' && c <= '9');
}
static bool digit(const lexer *x, size_t at) { return at < x->n && x->s[at] >= '0' && x->s[at] <= '9'; }
static size_t digits(const lexer *x, size_t at) { /* with _ between them */
  while (digit(x, at) || (at < x->n && x->s[at] == '_' && digit(x, at + 1))) at++;
  return at;
}

static mn_status add_number(lexer *x) {
  size_t at = x->at, end = digits(x, at);
  bool real = false;
  if (x->s[at] == '0' && at + 1 < x->n && strchr("xXbBoO", x->s[at + 1])) {
    for (end = at + 2; end < x->n && (is_name((unsigned char)x->s[end], false) && (unsigned char)x->s[end] < 0x80);) end++;
  } else if (!(at > 0 && x->s[at - 1] == '.')) {
    if (end < x->n && x->s[end] == '.' && digit(x, end + 1)) real = true, end = digits(x, end + 1);
    const size_t e = end;
    if (e < x->n && (x->s[e] | 32) == 'e') {
      const size_t sign = e + 1 < x->n && (x->s[e + 1] == '-' || x->s[e + 1] == '+') ? 2 : 1;
      if (digit(x, e + sign)) real = true, end = digits(x, e + sign);
    }
  }
  mn_tpl_sign *sign = add(x, real ? TPL_S_FLOAT : TPL_S_INT, NULL, 0);
  if (!sign) return MN_ERR_MEMORY;
  const mn_tpl_string text = {x->s + at, end - at, -1, false};
  mn_tpl_reading read;
  MN_TRY(real ? mn_tpl_read_real(&text, &read, &sign->real) : mn_tpl_read_int(&text, 0, &read, &sign->integer));
  if (read != TPL_NUMBER) return fault(x, "a number that is none, or has more than 64 bits");
  x->at = end;
  return MN_OK;
}

static bool hexadecimal(const char *s, size_t n, int32_t *out) {
  *out = 0;
  for (size_t i = 0; i < n; i++) {
    const char c = s[i];
    const int d = c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
    if (d < 0) return false;
    *out = *out * 16 + d;
    if (*out > 0x10FFFF) return false;
  }
  return true;
}

/* One escape behind its backslash at s[0]; how many bytes it takes, 0: it is none. */
static size_t unescape(const char *s, size_t n, mn_text *out) {
  static const char from[] = "nrt\\'\"abfv", to[] = "\n\r\t\\'\"\a\b\f\v";
  const char *known = *s ? strchr(from, *s) : NULL;
  int32_t c = 0;
  if (known) {
    mn_text_add_bytes(out, &to[known - from], 1);
    return 1;
  }
  if (*s == '\n') return 1;
  if (*s >= '0' && *s <= '7') {
    size_t k = 0;
    for (; k < 3 && k < n && s[k] >= '0' && s[k] <= '7'; k++) c = c * 8 + (s[k] - '0');
    mn_tpl_add_char(out, c);
    return k;
  }
  if (*s == 'N') return 0; /* characters by their names */
  const size_t k = *s == 'x' ? 2 : *s == 'u' ? 4 : *s == 'U' ? 8 : 0;
  if (!k) { /* as it stands */
    mn_text_add_bytes(out, "\\", 1);
    mn_text_add_bytes(out, s, 1);
    return 1;
  }
  if (n <= k || !hexadecimal(s + 1, k, &c) || (c >= 0xD800 && c < 0xE000)) return 0;
  mn_tpl_add_char(out, c);
  return k + 1;
}

static mn_status add_string(lexer *x) {
  const char quote = x->s[x->at];
  mn_text text = {0};
  size_t i = x->at + 1;
  while (i < x->n && x->s[i] != quote) {
    if (x->s[i] != '\\' || i + 1 >= x->n) {
      mn_text_add_bytes(&text, x->s + i++, 1);
      continue;
    }
    const size_t k = unescape(x->s + i + 1, x->n - i - 1, &text);
    if (!k) {
      mn_text_free(&text);
      return fault(x, "a string with an escape (\\x, \\u, \\U) that names no character, or one by its name (\\N), which is not supported");
    }
    i += 1 + k;
  }
  mn_status status = i < x->n ? mn_text_status(&text) : fault(x, "a string that does not end");
  char *copy = status == MN_OK ? mn_arena_alloc(x->t->arena, text.len + 1) : NULL;
  if (copy && text.len) memcpy(copy, text.data, text.len);
  if (status == MN_OK && (!copy || !add(x, TPL_S_STRING, copy, text.len))) status = MN_ERR_MEMORY;
  mn_text_free(&text);
  if (status == MN_OK) pass(x, i + 1 - x->at);
  return status;
}

static const struct {
  const char *text;
  mn_tpl_op op;
} operators[] = {{"//", TPL_FLOOR_DIV}, {"**", TPL_POW},        {"==", TPL_EQ},         {"!=", TPL_NE},          {">=", TPL_GE},
                 {"<=", TPL_LE},        {"+", TPL_ADD},         {"-", TPL_SUB},         {"*", TPL_MUL},          {"/", TPL_DIV},
                 {"%", TPL_MOD},        {"~", TPL_TILDE},       {"<", TPL_LT},          {">", TPL_GT},           {"=", TPL_ASSIGN},
                 {".", TPL_DOT},        {":", TPL_COLON},       {"|", TPL_PIPE},        {",", TPL_COMMA},        {";", TPL_SEMICOLON},
                 {"(", TPL_OPEN_ROUND}, {")", TPL_CLOSE_ROUND}, {"[", TPL_OPEN_SQUARE}, {"]", TPL_CLOSE_SQUARE}, {"{", TPL_OPEN_CURLY},
                 {"}", TPL_CLOSE_CURLY}};

static mn_status balance(lexer *x, char c) {
  const char closes = c == '(' ? ')' : c == '[' ? ']' : c == '{' ? '}' : 0;
  if (closes) {
    if (x->open == (int)sizeof x->closes) return fault(x, "more than 256 brackets in brackets");
    x->closes[x->open++] = closes;
  } else if (c == ')' || c == ']' || c == '}') {
    if (!x->open || x->closes[x->open - 1] != c) return mn_tpl_fault(x->t, x->line, "'%c' closes nothing", c);
    x->open--;
  }
  return MN_OK;
}

static mn_status add_operator(lexer *x) {
  for (size_t i = 0; i < sizeof operators / sizeof *operators; i++) {
    if (!here(x, x->at, operators[i].text)) continue;
    MN_TRY(balance(x, *operators[i].text));
    mn_tpl_sign *sign = add(x, TPL_S_OP, operators[i].text, strlen(operators[i].text));
    if (!sign) return MN_ERR_MEMORY;
    sign->op = operators[i].op;
    x->at += sign->n;
    return MN_OK;
  }
  char shown[MN_PRINTABLE], c[5] = {0};
  memcpy(c, x->s + x->at, x->n - x->at < 4 ? x->n - x->at : 4);
  return mn_tpl_fault(x->t, x->line, "the sign '%.1s' stands for nothing in a template", mn_printable(c, shown));
}

/* From behind "{{" or "{%" to behind their end. */
static mn_status add_tag(lexer *x, bool output) {
  const int began = x->line;
  if (!add(x, output ? TPL_S_OUTPUT : TPL_S_BLOCK, NULL, 0)) return MN_ERR_MEMORY;
  x->open = 0;
  for (;;) {
    size_t n;
    if (x->at >= x->n) return mn_tpl_fault(x->t, began, "%s is not closed", output ? "{{" : "{%");
    if (!x->open && ends(x, x->at, output ? "}}" : "%}", !output, &n)) {
      if (!add(x, output ? TPL_S_OUTPUT_END : TPL_S_BLOCK_END, NULL, 0)) return MN_ERR_MEMORY;
      pass_end(x, n);
      return MN_OK;
    }
    const unsigned char c = (unsigned char)x->s[x->at];
    const size_t blank = spaces(x, x->at);
    if (blank) {
      pass(x, blank);
    } else if (is_name(c, true)) {
      size_t end = x->at;
      while (end < x->n && is_name((unsigned char)x->s[end], false)) end++;
      const char *name = mn_tpl_keep_name(x->t, x->s + x->at, end - x->at);
      if (!name || !add(x, TPL_S_NAME, name, end - x->at)) return MN_ERR_MEMORY;
      x->at = end;
    } else if (c >= '0' && c <= '9') {
      MN_TRY(add_number(x));
    } else if (c == '\'' || c == '"') {
      MN_TRY(add_string(x));
    } else {
      MN_TRY(add_operator(x));
    }
  }
}

static mn_status pass_comment(lexer *x) {
  const int began = x->line;
  for (size_t n; x->at < x->n; pass(x, 1))
    if (ends(x, x->at, "#}", true, &n)) {
      pass_end(x, n);
      return MN_OK;
    }
  return mn_tpl_fault(x->t, began, "{# is not closed");
}

/* "{% word %}" at `at`: its length, 0 where it is another tag. The sign it opens with; how it ends is the caller's to see. */
static size_t tag_of(const lexer *x, size_t at, const char *word, char *sign) {
  size_t i = at + 2;
  *sign = i < x->n && (x->s[i] == '-' || x->s[i] == '+') ? x->s[i++] : 0;
  i += spaces(x, i);
  if (!here(x, i, word)) return 0;
  i += strlen(word);
  i += spaces(x, i);
  return i - at;
}

/* Behind {% raw %}: text as it stands, up to {% endraw %}. */
static mn_status add_raw(lexer *x) {
  const int began = x->line;
  for (size_t i = x->at; i < x->n; i++) {
    char sign;
    size_t n, end;
    if (!here(x, i, "{%") || !(n = tag_of(x, i, "endraw", &sign)) || i + n >= x->n || !ends(x, i + n, "%}", true, &end)) continue;
    MN_TRY(add_text(x, x->at, i, sign, false));
    pass_end(x, n + end);
    return MN_OK;
  }
  return mn_tpl_fault(x->t, began, "{%% raw %%} has no {%% endraw %%}");
}

static mn_status lex(lexer *x) {
  while (x->at < x->n) {
    size_t i = x->at, n;
    char sign;
    while (i < x->n && !(x->s[i] == '{' && i + 1 < x->n && strchr("{%#", x->s[i + 1]) && x->s[i + 1])) i++;
    if (i == x->n) return add(x, TPL_S_TEXT, x->s + x->at, x->n - x->at) ? MN_OK : MN_ERR_MEMORY;
    const char kind = x->s[i + 1];
    size_t end = 0;
    if (kind == '%' && (n = tag_of(x, i, "raw", &sign)) && i + n < x->n && ends(x, i + n, "%}", false, &end)) {
      MN_TRY(add_text(x, x->at, i, sign, false));
      pass_end(x, n + end);
      MN_TRY(add_raw(x));
      continue;
    }
    sign = i + 2 < x->n && (x->s[i + 2] == '-' || x->s[i + 2] == '+') ? x->s[i + 2] : 0;
    MN_TRY(add_text(x, x->at, i, sign, kind == '{'));
    pass(x, sign ? 3 : 2);
    MN_TRY(kind == '#' ? pass_comment(x) : add_tag(x, kind == '{'));
  }
  return MN_OK;
}

mn_status mn_tpl_lex(mn_template *t, const char *text, size_t n) {
  char *s = mn_arena_alloc(t->arena, n + 1);
  if (!s) return MN_ERR_MEMORY;
  size_t len = 0;
  for (size_t i = 0; i < n; i++) {
    s[len++] = text[i] == '\r' ? '\n' : text[i];
    if (text[i] == '\r' && i + 1 < n && text[i + 1] == '\n') i++;
  }
  if (len && s[len - 1] == '\n') len--; /* the end of the last line */
  lexer x = {.t = t, .s = s, .n = len, .line = 1, .line_begins = true};
  MN_TRY(lex(&x));
  return add(&x, TPL_S_END, NULL, 0) ? MN_OK : MN_ERR_MEMORY;
}
