/* file_internal.h - what reading files (file.c) and writing them (file_write.c) share. */
#ifndef MN_FILE_INTERNAL_H
#define MN_FILE_INTERNAL_H

#include <sys/stat.h>
#include <sys/types.h>

#include "base/file.h"

int mn_file_open_retry(const char *path, int flags, mode_t mode); /* open(2), whatever signals come; closed by exec */
/* MN_ERR_IO, by name, where there is nothing that can be read, or a directory. */
mn_status mn_file_open_to_read(const char *path, int *fd, struct stat *st);
/* Reads until n bytes or the end; the count, or -1 with errno set (EINTR: interrupted by the user). */
ssize_t mn_file_read_full(int fd, void *data, size_t n);
/* MN_ERR_IO: the file gave `got` bytes, fewer than it had when it was opened. */
mn_status mn_file_cut_short(const char *path, const struct stat *st, size_t got);
mn_file_stamp mn_file_stamp_from(const struct stat *st);

#endif
