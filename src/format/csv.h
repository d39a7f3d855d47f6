/* csv.h - a table of numbers as text (RFC 4180): commas, optional quotes, a first line of names. Nothing is trusted: every row has as
 * many cells as the first, no two columns have one name, and a cell that is read as a number is one, and finite. */
#ifndef MN_CSV_H
#define MN_CSV_H

#include "base/base.h"

typedef struct mn_csv mn_csv;

/* `header`: the first line holds names; else columns are called 1, 2, ... At most 512 MiB. */
mn_status mn_csv_read(const char *path, bool header, mn_csv **out);
/* The same over text, which is copied; `name` stands in messages. */
mn_status mn_csv_parse(const char *name, const char *text, size_t n, bool header, mn_csv **out);
void mn_csv_free(mn_csv *c); /* may be NULL */

int64_t mn_csv_rows(const mn_csv *c); /* without the names */
int mn_csv_columns(const mn_csv *c);
const char *mn_csv_name(const mn_csv *c, int column);
int mn_csv_find(const mn_csv *c, const char *name); /* -1: none */
/* The cell as text, without its quotes; lives as long as the table. */
const char *mn_csv_text(const mn_csv *c, int64_t row, int column);
bool mn_csv_is_number(const mn_csv *c, int64_t row, int column);
/* What to do about a table of another form, for the end of a message: columns apart by semicolons or tabs, lines that end with CR. "":
 * nothing of that kind is seen. */
const char *mn_csv_remedy(const mn_csv *c);
/* MN_ERR_FORMAT names file, line, column and what stands there: no number, NaN or infinity. */
mn_status mn_csv_number(const mn_csv *c, int64_t row, int column, double *out);

#endif
