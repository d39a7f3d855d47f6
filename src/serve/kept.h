/* kept.h - sessions that clients name and that are kept between requests: each a conversation on a shelf (run/shelf.h), and a note beside
 * it, JSON, of the messages that were said and of the session that it was forked from. */
#ifndef MN_SERVE_KEPT_H
#define MN_SERVE_KEPT_H

#include "run/shelf.h"
#include "serve/ask.h"

enum { MN_KEPT_NAME = 64 };
/* A name is 1 to 64 letters, digits, '.', '_' or '-', and no path. */
bool mn_kept_name(const char *name, mn_refusal *why);

/* The list that a session's next dialogue is: what a note says that was said, and then `messages`; or these alone, where they begin with what
 * was said. note "": nothing was. NULL: out of memory, or a note that is none. */
const mn_value *mn_kept_messages(mn_arena *arena, const char *note, const mn_value *messages);
/* What a note says that was said, and then `messages`; a system's message that they begin with stands in place of the one before. */
const mn_value *mn_kept_after(mn_arena *arena, const char *note, const mn_value *messages);
/* A note of these messages, without its end, and its end: what is said goes in between. */
mn_status mn_kept_open_note(const char *note, const mn_value *messages, mn_text *out);
void mn_kept_close_note(mn_text *note, const char *said, size_t n);
/* Messages that a note has; -1: it has no list of them. */
int64_t mn_kept_count(const char *note);
/* The note with the first `n` messages alone; with another parent (NULL: as it is). One without a list of messages stays so: completions made
 * it, and that says something else than a dialogue of none. */
mn_status mn_kept_cut_note(const char *note, int64_t n, const char *parent, mn_text *out);

#endif
