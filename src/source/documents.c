/* documents.c - see documents.h. */
#include "source/documents.h"

#include <stdlib.h>

static mn_status grow(mn_documents *d) {
  const int64_t room = d->room ? 2 * d->room : 64;
  int64_t *start = realloc(d->start, (size_t)(room + 1) * sizeof *start);
  if (start) d->start = start;
  int64_t *row = realloc(d->row, (size_t)(room + 1) * sizeof *row);
  if (row) d->row = row;
  if (!start || !row) return mn_fail(MN_ERR_MEMORY, "no memory for the places of %lld documents", (long long)room);
  d->room = room;
  return MN_OK;
}

mn_status mn_documents_add(mn_documents *d, int64_t begin, int64_t end) {
  if (d->n == d->room) MN_TRY(grow(d));
  if (!d->n) d->start[0] = begin;
  d->start[++d->n] = end;
  d->T = 0;
  return MN_OK;
}

void mn_documents_free(mn_documents *d) {
  free(d->start);
  free(d->row);
  *d = (mn_documents){0};
}

/* Tokens that are read: all but the last, which is only asked for. */
static int64_t read_of(const mn_documents *d, int64_t i) {
  const int64_t n = d->start[i + 1] - d->start[i];
  return n > 0 ? n - 1 : 0;
}

int64_t mn_documents_rows(mn_documents *d, int64_t T) {
  if (!d->n) return 0;
  if (d->T != T) {
    d->row[0] = 0;
    for (int64_t i = 0; i < d->n; i++) d->row[i + 1] = d->row[i] + read_of(d, i) / T + (read_of(d, i) % T > 0);
    d->T = T;
  }
  return d->row[d->n];
}

mn_document_row mn_documents_row(mn_documents *d, int64_t T, int64_t r) {
  mn_documents_rows(d, T);
  int64_t low = 0, high = d->n - 1; /* the last document whose first row is not behind r: those before it may have none */
  while (low < high) {
    int64_t middle = low + (high - low + 1) / 2;
    if (d->row[middle] <= r) low = middle;
    else high = middle - 1;
  }
  const int64_t at = (r - d->row[low]) * T, left = read_of(d, low) - at;
  return (mn_document_row){d->start[low] + at, left < T ? left : T, at == 0};
}

int64_t mn_documents_longest(const mn_documents *d) {
  int64_t most = 0;
  for (int64_t i = 0; i < d->n; i++)
    if (read_of(d, i) > most) most = read_of(d, i);
  return most;
}
