/* config_help.c - what a table of fields says of itself: what each takes, its default, its help. */
#include "format/config_internal.h"

#include <math.h>
#include <string.h>

/* ---- saying what a field takes ------------------------------------------------------------------------------------ */

/* Any bound beyond this is "no bound" in messages. */
static bool unbounded(int64_t low, int64_t high) { return low == INT64_MIN && high == INT64_MAX; }

static void add_int_range(mn_text *t, const mn_field *f) {
  int64_t high = f->type == MN_TYPE_INT && f->size == sizeof(int) && f->int_max == INT32_MAX ? INT64_MAX : f->int_max;
  if (unbounded(f->int_min, high)) return;
  if (high == INT64_MAX) mn_text_addf(t, ", at least %lld", (long long)f->int_min);
  else if (f->int_min == INT64_MIN) mn_text_addf(t, ", at most %lld", (long long)high);
  else mn_text_addf(t, " from %lld to %lld", (long long)f->int_min, (long long)high);
}

static void add_real_range(mn_text *t, const mn_field *f) {
  bool low = !isinf(f->real_min), high = !isinf(f->real_max), above = f->real_min == DBL_MIN;
  if (above) mn_text_add(t, " above 0");
  if (low && !above) mn_text_addf(t, high ? " from %g" : ", at least %g", f->real_min);
  if (high && low) mn_text_addf(t, above ? ", at most %g" : " to %g", f->real_max);
  else if (high) mn_text_addf(t, ", at most %g", f->real_max);
}

void mn_field_expected(mn_text *t, const mn_field *f, bool item) {
  switch (f->type) {
  case MN_TYPE_INT:
  case MN_TYPE_INTS:
    mn_text_add(t, f->type == MN_TYPE_INTS && !item ? "a list of integers" : "an integer");
    add_int_range(t, f);
    break;
  case MN_TYPE_FLOAT:
  case MN_TYPE_FLOATS:
    mn_text_add(t, f->type == MN_TYPE_FLOATS && !item ? "a list of numbers" : "a number");
    add_real_range(t, f);
    break;
  case MN_TYPE_BOOL:
    mn_text_add(t, "true or false");
    break;
  case MN_TYPE_STRING:
  case MN_TYPE_STRINGS:
    mn_text_add(t, f->type == MN_TYPE_STRINGS && !item ? "a list of texts" : "a text");
    break;
  case MN_TYPE_ENUM:
    mn_text_add(t, f->names[1] ? "one of " : "");
    for (int i = 0; f->names[i]; i++) mn_text_addf(t, "%s%s", i ? ", " : "", f->names[i]);
    break;
  default:
    mn_text_add(t, "a value");
    break;
  }
}

/* ---- help --------------------------------------------------------------------------------------------------------- */

static void add_default(mn_text *t, const mn_field *f) {
  if (f->required) {
    mn_text_add(t, "required");
    return;
  }
  switch (f->type) {
  case MN_TYPE_INT:
    mn_text_addf(t, "%lld", (long long)f->int_default);
    break;
  case MN_TYPE_FLOAT:
    mn_text_addf(t, "%g", f->real_default);
    break;
  case MN_TYPE_BOOL:
    mn_text_add(t, f->int_default ? "true" : "false");
    break;
  case MN_TYPE_ENUM:
    mn_text_add(t, f->names[f->int_default]);
    break;
  case MN_TYPE_STRING:
    mn_text_add(t, f->text_default ? (*f->text_default ? f->text_default : "empty") : "none");
    break;
  case MN_TYPE_VALUE:
    mn_text_add(t, "none");
    break;
  default:
    mn_text_add(t, "empty");
    break;
  }
}

/* Words of `s`, broken so that no line passes `width`, further lines indented to `column`. */
static void add_wrapped(mn_text *t, const char *s, size_t column, size_t width) {
  size_t at = column;
  while (*s) {
    size_t n = strcspn(s, " ");
    if (at > column && at + 1 + n > width) {
      mn_text_add(t, "\n");
      mn_text_pad(t, column);
      at = column;
    } else if (at > column) {
      mn_text_add(t, " ");
      at++;
    }
    mn_text_add_bytes(t, s, n);
    at += n;
    s += n + (s[n] == ' ');
  }
}

static void help_text(const mn_field *fields, mn_text *out) {
  size_t name_width = 0;
  for (MN_EACH_FIELD(f, fields)) name_width = strlen(f->name) > name_width ? strlen(f->name) : name_width;
  const size_t column = name_width + 4;
  for (MN_EACH_FIELD(f, fields)) {
    mn_text line = {0};
    mn_text_addf(&line, "%s. (", f->help);
    mn_field_expected(&line, f, false);
    mn_text_add(&line, f->required ? "; " : "; default ");
    add_default(&line, f);
    mn_text_add(&line, ")");
    mn_text_addf(out, "  %s", f->name);
    mn_text_pad(out, column);
    if (line.data) add_wrapped(out, line.data, column, 100);
    mn_text_add(out, "\n");
    mn_text_free(&line);
  }
}

static void add_cell(mn_text *out, const char *s) {
  for (; *s; s++) {
    if (*s == '|') mn_text_add(out, "\\");
    mn_text_add_bytes(out, s, 1);
  }
}

static void help_markdown(const mn_field *fields, mn_text *out) {
  mn_text_add(out, "| key | value | default | meaning |\n|---|---|---|---|\n");
  for (MN_EACH_FIELD(f, fields)) {
    mn_text cell = {0};
    mn_field_expected(&cell, f, false);
    mn_text_addf(out, "| `%s` | ", f->name);
    add_cell(out, cell.data ? cell.data : "");
    mn_text_free(&cell);
    mn_text_add(out, " | ");
    add_default(&cell, f);
    add_cell(out, cell.data ? cell.data : "");
    mn_text_free(&cell);
    mn_text_add(out, " | ");
    add_cell(out, f->help);
    mn_text_add(out, " |\n");
  }
}

void mn_config_help(const mn_field *fields, mn_help_form form, mn_text *out) {
  if (form == MN_HELP_MARKDOWN) help_markdown(fields, out);
  else help_text(fields, out);
}
