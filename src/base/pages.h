/* pages.h - memory in pages: what nobody wrote costs nothing, and what is alike is there once until somebody writes it.
 *
 * Room is address space of zeros. A page of it begins to cost memory with its first write, is given back by dropping it, and never moves.
 * A shelf of pages holds pages that several rooms see: each page is there once; who writes one has a page of its own from then on, and
 * nobody else sees it. Addresses and offsets are multiples of mn_page_size. */
#ifndef MN_PAGES_H
#define MN_PAGES_H

#include "base/base.h"

size_t mn_page_size(void);

/* NULL: no address space, or more than the system lends; mn_message says so. */
void *mn_pages_new(size_t bytes);
void mn_pages_free(void *p, size_t bytes); /* p may be NULL */
/* They are zeros again and cost nothing; pages of a shelf are let go. */
void mn_pages_drop(void *p, size_t bytes);

typedef struct mn_page_shelf mn_page_shelf;
/* Of so many bytes, none of which costs anything yet. A failure is no fault of anybody's: who shares copies then. */
mn_status mn_page_shelf_new(size_t bytes, mn_page_shelf **out);
mn_page_shelf *mn_page_shelf_share(mn_page_shelf *s); /* one more holder */
void mn_page_shelf_leave(mn_page_shelf *s);           /* may be NULL; the last one frees it */
int mn_page_shelf_holders(const mn_page_shelf *s);
/* The pages at p go to the shelf, at `offset`, and p sees them there. */
mn_status mn_page_shelf_take(mn_page_shelf *s, size_t offset, void *p, size_t bytes);
/* p sees what was taken at `offset`. What it had is gone. */
mn_status mn_page_shelf_show(const mn_page_shelf *s, size_t offset, void *p, size_t bytes);

#endif
