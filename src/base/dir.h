/* dir.h - directories in which others may have put things: what stands where we want to write, and the removal of what we
 * wrote and of nothing else.
 *
 * Names that a user gives are the user's: links in them are followed. Names that we add below them (checkpoints, step-3,
 * metrics.jsonl) are ours: a link found there is at most unlinked, never entered, and never written through. Removal goes by
 * directory descriptors that were opened without following, so that no link, however it came there, leads outside. */
#ifndef MN_DIR_H
#define MN_DIR_H

#include "base/base.h"

typedef enum mn_path_kind { MN_PATH_NONE, MN_PATH_DIR, MN_PATH_FILE, MN_PATH_LINK, MN_PATH_OTHER } mn_path_kind;

/* What stands at a path; a link there is a link, wherever it points. */
mn_status mn_path_look(const char *path, mn_path_kind *out);
const char *mn_path_kind_name(mn_path_kind e); /* "a directory", "a symbolic link" ... */

/* MN_OK when the path is a directory, or nothing yet; a link or anything else is refused. */
mn_status mn_dir_need_real(const char *path);

/* A name that comes from a recipe, a file or a database may become the name of a file or a directory: then it must be one, and no
 * path. NULL when it is; otherwise what is wrong, to stand after the name: "has a '/'; a name is no path". */
const char *mn_name_fault(const char *name);

/* Which names we write in a directory. */
typedef bool (*mn_dir_ours)(const char *name);
enum { MN_DIR_NAME = 256 };
/* The first entry of parent/name that is not ours, or "". A missing directory, a link and a file have none. */
mn_status mn_dir_foreign(const char *parent, const char *name, mn_dir_ours ours, char foreign[MN_DIR_NAME]);
/* Removes parent/name: a link is unlinked; a directory loses its entries that are ours, `first` (may be NULL) before all
 * others, then goes itself when nothing is left in it. Otherwise it stays, and `foreign` names what kept it ("": it is gone, or
 * there was none). Anything else than a directory or a link is not ours and refused. The parent must not be a link. */
mn_status mn_dir_remove(const char *parent, const char *name, mn_dir_ours ours, const char *first, char foreign[MN_DIR_NAME]);

#endif
