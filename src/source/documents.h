/* documents.h - rows of tokens that never cross a document's end (private to src/source): document by document, each is cut into
 * rows of T tokens, and its last row is as short as what is left. */
#ifndef MN_DOCUMENTS_H
#define MN_DOCUMENTS_H

#include "base/base.h"

typedef struct mn_documents { /* of one split; all zero: none; free with mn_documents_free */
  int64_t n;
  int64_t *start; /* (n + 1) position of each one's first token; the last: where the split ends */
  int64_t *row;   /* (n + 1) number of each one's first row, for rows of T tokens               */
  int64_t room, T;
} mn_documents;

typedef struct mn_document_row {
  int64_t position, length; /* its tokens; each has one after it in the document */
  bool first;               /* the document begins with it                       */
} mn_document_row;

/* The next document is the tokens [the end of the one before, end); the first one's begin at `begin`. */
mn_status mn_documents_add(mn_documents *d, int64_t begin, int64_t end);
void mn_documents_free(mn_documents *d);
/* Rows of T tokens. The last token of a document is only asked for, so that n tokens make ceil((n - 1) / T) of them. */
int64_t mn_documents_rows(mn_documents *d, int64_t T);
/* Row r of them, which must be below mn_documents_rows(d, T). */
mn_document_row mn_documents_row(mn_documents *d, int64_t T, int64_t r);
int64_t mn_documents_longest(const mn_documents *d); /* tokens that are read of the longest one */

#endif
