/* session_file.h - a file that a verb goes on with: read, and written again. No other process opens it meanwhile, and what one wrote there all the
 * same is not overwritten. */
#ifndef MN_SESSION_FILE_H
#define MN_SESSION_FILE_H

#include "base/claim.h"
#include "base/file.h"

typedef struct mn_session_file {
  char *path; /* NULL: none is kept */
  mn_claim *claim;
  mn_file_stamp stamp; /* of the file when it was opened, or saved last */
  char *unsaved;       /* why what was to be kept last is not in it; NULL: it is */
  bool told;           /* and that was said */
} mn_session_file;

/* MN_ERR_CONFIG: another process has it open; the message says so of `what`, NULL: of the path. Before anything is read of it. */
mn_status mn_session_file_open(const char *path, const char *what, mn_session_file *out);
void mn_session_file_close(mn_session_file *f); /* others may open it; safe on a zeroed or closed one */

/* The same of what is written at `to` only where it is what was read at `from`, by whatever spelling; else nothing is kept, and MN_OK. Both may be
 * NULL. */
mn_status mn_session_file_of_both(const char *from, const char *to, mn_session_file *out);

typedef mn_status (*mn_session_writer)(void *ctx, const char *path, mn_file_stamp *stamp);
/* `save` writes it. Where another program has written the file meanwhile, both are kept: ours goes to the first of NAME-2, NAME-3 ... that is free,
 * it is said, and f is that file from then on. */
mn_status mn_session_file_save(mn_session_file *f, mn_session_writer save, void *ctx);
/* The same after a turn of a dialogue, which does not end for it: what cannot be written (the disk is full, the folder may not be written in any
 * more) is kept in f->unsaved, and tried again with the next turn. A folder that was removed is made again. Any thread. */
mn_status mn_session_file_save_turn(mn_session_file *f, mn_session_writer save, void *ctx);
void mn_session_file_tell(mn_session_file *f); /* says so, once */
/* At the dialogue's end: what is not saved is tried once more, unless a turn was left in its middle (whole: false). MN_ERR_IO: it is lost, and the
 * message says so. */
mn_status mn_session_file_finish(mn_session_file *f, bool whole, mn_session_writer save, void *ctx);
/* As mn_session_file_save of f, where it is one of both; else to `to`, in place of whatever is there. Where it went: f->path, or `to`. */
mn_status mn_session_file_save_to(mn_session_file *f, const char *to, mn_session_writer save, void *ctx);

#endif
