/* spelled.h - special tokens that a text spells out: "<|endoftext|>" and its like, which tokenizing a text leaves as text. */
#ifndef MN_SPELLED_H
#define MN_SPELLED_H

#include <stddef.h>
#include <stdint.h>

enum { MN_SPELLED_NAME = 40, MN_SPELLED_MANY = 8 }; /* so often it is no accident */

typedef struct mn_spelled {   /* zero-initialise */
  char name[MN_SPELLED_NAME]; /* the first that was found  */
  int64_t count;              /* how often it stood there */
} mn_spelled;
/* Adds what text[0..n) spells out. One that a cut between two calls divides is not seen. */
void mn_spelled_add(mn_spelled *s, const char *text, size_t n);

#endif
