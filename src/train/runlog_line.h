/* runlog_line.h - the lines of metrics.jsonl. Each is a JSON map whose last two members are its number in the log and a
 * checksum of the line before it and of the run: a line that was changed, comes from another run, stands twice or is missing is
 * noticed. Lines of older programs have neither; they are read as they are, before the first line that has both. */
#ifndef MN_RUNLOG_LINE_H
#define MN_RUNLOG_LINE_H

#include <jansson.h>

#include "base/base.h"

/* Ends `record` and gives it as text, malloc'ed and without a newline; NULL (message set) when out of memory. Takes `record`. */
char *mn_logline_write(json_t *record, const char *identity, int64_t number);

typedef enum mn_logline_kind {
  MN_LOGLINE_SOUND,
  MN_LOGLINE_DAMAGED, /* no record, or its checksum does not hold: changed, or of another run   */
  MN_LOGLINE_ASTRAY   /* whole, but a second time or before lines that belong in front of it    */
} mn_logline_kind;

/* Reads one line after the other: {.text, .size, .identity} and the rest 0. `identity` says which run they must be of. */
typedef struct mn_loglines {
  const char *text;
  size_t size;
  const char *identity;
  /* the line that was read */
  mn_logline_kind kind;
  json_t *record;        /* of a sound line; belongs to the reader */
  int64_t step, missing; /* missing: lines that were there before this one */
  int64_t line;          /* in the file, from 1 */
  /* the state of reading */
  size_t at;            /* where the next line begins          */
  int64_t last, passed; /* the last sound line's number; unsound lines since then */
  bool sealed;          /* a line with a checksum was read     */
} mn_loglines;

bool mn_loglines_next(mn_loglines *l); /* false: there is no other whole line; `record` is freed */
void mn_loglines_end(mn_loglines *l);  /* for those who stop before */

#endif
