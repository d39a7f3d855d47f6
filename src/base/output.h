/* output.h - outputs are looked at before the work, not after it; and what killed processes left is tidied where we write.
 *
 * Nothing that is tried stays: the attempt writes a block into a temporary file beside the output and takes it away again, so
 * a missing directory, a directory in the file's place, missing permissions and a full disk are known before the first minute
 * is spent. What stands at the name keeps its content until the finished file replaces it. */
#ifndef MN_OUTPUT_H
#define MN_OUTPUT_H

#include "base/base.h"

/* Can a file of about `bytes` bytes (0: unknown) be written at `path`? */
mn_status mn_output_try(const char *path, uint64_t bytes);
/* Can a directory be made at `path`, or files in it if it is there? Nothing is made. */
mn_status mn_output_try_dir(const char *path);

/* Removes the temporary files that writers left in a directory when they were killed, and the locks of claims: those that no living process holds. A
 * directory that is missing or not ours to change is left alone. */
void mn_output_tidy(const char *dir);

/* Takes back the last `made` directories of `path` (see mn_make_dirs_counted), from the innermost outwards, as far as nothing is
 * in them. */
void mn_output_unmake_dirs(const char *path, int made);

#endif
