/* csv.c - see csv.h. Cells are cut in place: a copy of the text in which each ends with a zero byte. */
#include "format/csv.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/text.h"

struct mn_csv {
  char *name, *text;
  char **cells;  /* [rows + 1, columns] with a row of names first, or [rows, columns] */
  int64_t *line; /* of each row */
  int64_t rows, cap_cells, n_cells, cap_rows;
  int columns;
  bool header;
};

static const size_t limit = (size_t)512 << 20;

static mn_status add_cell(mn_csv *c, char *cell) {
  if (c->n_cells == c->cap_cells) {
    int64_t cap = c->cap_cells ? 2 * c->cap_cells : 256;
    char **more = mn_realloc(c->cells, (size_t)cap * sizeof *more);
    if (!more) return MN_ERR_MEMORY;
    c->cells = more;
    c->cap_cells = cap;
  }
  c->cells[c->n_cells++] = cell;
  return MN_OK;
}

const char *mn_csv_remedy(const mn_csv *c) {
  for (int i = 0; i < c->columns && i < c->n_cells; i++) {
    const char *end = strchr(c->cells[i], '\r');
    if (end && end[1]) return "; its lines end with CR alone, as on old Macs: write LF instead (tr '\\r' '\\n')";
  }
  if (c->columns == 1 && c->n_cells && strchr(c->cells[0], ';'))
    return "; its columns are apart by semicolons: write commas between them, and points in numbers";
  if (c->columns == 1 && c->n_cells && strchr(c->cells[0], '\t')) return "; its columns are apart by tabs: write commas between them";
  return "";
}

static mn_status add_row(mn_csv *c, int64_t line, int64_t cells) {
  if (c->rows == 0) c->columns = (int)cells;
  if (cells != c->columns)
    return mn_fail(MN_ERR_FORMAT, "%s:%lld: has %lld columns, the first line has %d%s", c->name, (long long)line, (long long)cells,
                   c->columns, mn_csv_remedy(c));
  if (c->rows == c->cap_rows) {
    int64_t cap = c->cap_rows ? 2 * c->cap_rows : 256;
    int64_t *more = mn_realloc(c->line, (size_t)cap * sizeof *more);
    if (!more) return MN_ERR_MEMORY;
    c->line = more;
    c->cap_rows = cap;
  }
  c->line[c->rows++] = line;
  return MN_OK;
}

/* Cuts one cell at *p, which moves behind what ends it; *end: that character, or 0 at the end of the text. */
static mn_status cut_cell(mn_csv *c, char **p, char *stop, int64_t *line, char **cell, char *end) {
  char *s = *p, *w = s;
  *cell = s;
  if (*s == '"') {
    int64_t began = *line;
    for (s++;; s++) {
      if (s >= stop) return mn_fail(MN_ERR_FORMAT, "%s:%lld: a quote is not closed", c->name, (long long)began);
      if (*s == '"' && s[1] == '"') *w++ = *s++;
      else if (*s == '"') break;
      else {
        if (*s == '\n') ++*line;
        *w++ = *s;
      }
    }
    s++;
    if (s < stop && *s != ',' && *s != '\n' && !(*s == '\r' && (s + 1 == stop || s[1] == '\n')))
      return mn_fail(MN_ERR_FORMAT, "%s:%lld: there is something between a quote and the comma after it", c->name, (long long)*line);
  } else {
    while (s < stop && *s != ',' && *s != '\n') s++;
    w = s;
    if (w > *cell && w[-1] == '\r' && (s >= stop || *s == '\n')) w--;
  }
  if (s < stop && *s == '\r' && s[1] == '\n') s++;
  *end = s < stop ? *s : 0;
  *w = 0;
  *p = s < stop ? s + 1 : s;
  return MN_OK;
}

static mn_status cut(mn_csv *c, size_t n) {
  char *p = c->text, *stop = c->text + n, *cell, end = 0;
  int64_t line = 1;
  p += mn_utf8_mark(p, n);
  if (memchr(p, 0, (size_t)(stop - p))) return mn_fail(MN_ERR_FORMAT, "%s: holds a zero byte: it is no text", c->name);
  while (p < stop) {
    int64_t began = line, cells = 0;
    if (*p == '\n' || (*p == '\r' && p[1] == '\n')) { /* an empty line */
      p += *p == '\r' ? 2 : 1;
      line++;
      continue;
    }
    do {
      MN_TRY(cut_cell(c, &p, stop, &line, &cell, &end));
      MN_TRY(add_cell(c, cell));
      if (++cells > 65536) return mn_fail(MN_ERR_FORMAT, "%s:%lld: has more than 65536 columns", c->name, (long long)began);
      if (end == ',' && p >= stop) { /* an empty last cell */
        MN_TRY(add_cell(c, stop));
        cells++;
      }
    } while (end == ',' && p < stop);
    if (end == '\n') line++;
    MN_TRY(add_row(c, began, cells));
    if ((c->rows & 0xffff) == 0) MN_TRY(mn_stop_check("a table was read"));
  }
  if (c->rows <= c->header) return mn_fail(MN_ERR_FORMAT, "%s: holds no row of numbers%s", c->name, mn_csv_remedy(c));
  return MN_OK;
}

/* Decimal only: strtod also takes "inf", "nan" and hexadecimal. */
static bool read_number(const char *s, double *out) {
  char *end;
  while (*s == ' ' || *s == '\t') s++;
  if (!*s || strspn(s, "+-.0123456789eE \t") != strlen(s)) return false;
  *out = strtod(s, &end);
  if (end == s) return false;
  while (*end == ' ' || *end == '\t') end++;
  return !*end && isfinite(*out);
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* Two columns of one name could not be told apart. Nameless ones may be several. */
static mn_status check_names(const mn_csv *c) {
  char **names = mn_alloc((size_t)c->columns * sizeof *names), shown[MN_PRINTABLE];
  mn_status status = names ? MN_OK : MN_ERR_MEMORY;
  if (names) memcpy(names, c->cells, (size_t)c->columns * sizeof *names);
  if (names) qsort(names, (size_t)c->columns, sizeof *names, by_name);
  for (int i = 1; i < c->columns && status == MN_OK; i++)
    if (*names[i] && !strcmp(names[i], names[i - 1]))
      status =
          mn_fail(MN_ERR_FORMAT, "%s:%lld: two columns are called '%.40s'", c->name, (long long)c->line[0], mn_printable(names[i], shown));
  free(names);
  return status;
}

static bool is_value(const char *s) { return strspn(s, "+-.") < 2 && s[strspn(s, "+-.")] >= '0' && s[strspn(s, "+-.")] <= '9'; }

/* A first line of values, a number with a point among them, would be lost as names. */
static mn_status check_header(const mn_csv *c) {
  bool point = false;
  double x;
  for (int i = 0; i < c->columns; i++) {
    if (!is_value(c->cells[i])) return MN_OK;
    point = point || (strchr(c->cells[i], '.') && read_number(c->cells[i], &x));
  }
  if (!point) return MN_OK; /* columns may be called by whole numbers */
  return mn_fail(MN_ERR_FORMAT, "%s:%lld: the first line should name the columns, and holds values; put names there, or say header: false",
                 c->name, (long long)c->line[0]);
}

mn_status mn_csv_parse(const char *name, const char *text, size_t n, bool header, mn_csv **out) {
  *out = NULL;
  mn_csv *c = mn_calloc(1, sizeof *c);
  if (!c) return MN_ERR_MEMORY;
  c->header = header;
  c->name = mn_strdup(name);
  c->text = n <= limit ? mn_alloc(n + 2) : NULL;
  mn_status status = n > limit ? mn_fail(MN_ERR_FORMAT, "%s: is larger than 512 MiB", name) : c->name && c->text ? MN_OK : MN_ERR_MEMORY;
  if (status == MN_OK) {
    memcpy(c->text, text, n);
    c->text[n] = c->text[n + 1] = 0;
    status = cut(c, n);
    if (status == MN_OK && header) status = check_header(c);
    if (status == MN_OK && header) status = check_names(c);
  }
  if (status != MN_OK) mn_csv_free(c);
  else *out = c;
  return status;
}

mn_status mn_csv_read(const char *path, bool header, mn_csv **out) {
  char *text;
  size_t n;
  *out = NULL;
  MN_TRY(mn_file_read(path, limit, &text, &n));
  mn_status status = mn_csv_parse(path, text, n, header, out);
  free(text);
  return status;
}

void mn_csv_free(mn_csv *c) {
  if (!c) return;
  free(c->name);
  free(c->text);
  free(c->cells);
  free(c->line);
  free(c);
}

int64_t mn_csv_rows(const mn_csv *c) { return c->rows - c->header; }
int mn_csv_columns(const mn_csv *c) { return c->columns; }

const char *mn_csv_name(const mn_csv *c, int column) {
  static _Thread_local char number[16];
  if (c->header) return c->cells[column];
  snprintf(number, sizeof number, "%d", column + 1);
  return number;
}

int mn_csv_find(const mn_csv *c, const char *name) {
  for (int i = 0; i < c->columns; i++)
    if (!strcmp(mn_csv_name(c, i), name)) return i;
  return -1;
}

const char *mn_csv_text(const mn_csv *c, int64_t row, int column) { return c->cells[(row + c->header) * c->columns + column]; }

bool mn_csv_is_number(const mn_csv *c, int64_t row, int column) {
  double x;
  return read_number(mn_csv_text(c, row, column), &x);
}

mn_status mn_csv_number(const mn_csv *c, int64_t row, int column, double *out) {
  const char *s = mn_csv_text(c, row, column);
  char shown[MN_PRINTABLE];
  if (read_number(s, out)) return MN_OK;
  return mn_fail(MN_ERR_FORMAT, "%s:%lld: column %s holds '%.40s' where a finite number must stand%s", c->name,
                 (long long)c->line[row + c->header], mn_csv_name(c, column), mn_printable(s, shown), mn_csv_remedy(c));
}
