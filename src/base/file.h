/* file.h - files as wholes: read with a limit, mapped read-only, written whole or not at all, hashed, listed.
 *
 * A path is a byte string as the operating system takes it. Every message names the path and what the operating system
 * said. What the bytes mean is the business of src/format. */
#ifndef MN_FILE_H
#define MN_FILE_H

#include "base/base.h"

/* ---- reading ---- (file.c, map.c) */
/* The whole file in a malloc'ed block with a zero byte after its end (not counted in *size). Refused with MN_ERR_IO when
 * it is missing, is a directory or has more than `limit` bytes. Free with free(). Pipes can be read too. */
mn_status mn_file_read(const char *path, size_t limit, char **data, size_t *size);

/* A file mapped read-only. `data` is NULL for an empty file. The bytes stay readable until mn_map_close whatever happens to
 * the file: where another process has cut it short they read as zeros, in every thread. So whoever has taken something from
 * a map, and before it counts, calls mn_map_check: MN_ERR_IO, by name, when the file was cut short or written to since it was
 * mapped. A file that is replaced whole (as mn_file_writer does) goes on as it was. The first map takes over the process's
 * SIGBUS and passes on what is not its own: a program that handles SIGBUS itself does so before. */
typedef struct mn_map_watch mn_map_watch;
typedef struct mn_map {
  const uint8_t *data;
  size_t size;
  mn_map_watch *watch;
} mn_map;
mn_status mn_map_open(const char *path, mn_map *map);
mn_status mn_map_check(const mn_map *map); /* MN_OK on a zeroed map */
void mn_map_close(mn_map *map);            /* safe on a zeroed or closed map */

/* ---- writing: whole or not at all ---- (file_write.c)
 * Bytes go to an unnamed (or temporary) file in the directory of `path`; commit syncs it, renames it over `path` and syncs
 * the directory. Until commit returns MN_OK the previous file stays as it was, whatever happens to the process, the disk
 * or the machine. A symbolic link is replaced itself: what it points at stays as it is. What is not a regular file (nor a link
 * to one), and a file that is read-only, is refused. */
typedef struct mn_file_writer mn_file_writer;
mn_status mn_file_writer_open(const char *path, mn_file_writer **out);
/* After the first failure every later append does nothing and returns the same status, as does commit. */
mn_status mn_file_writer_append(mn_file_writer *w, const void *data, size_t n);
/* Writes over bytes [at, at + n) of what was appended: for a header that is known only when all has gone out. */
mn_status mn_file_writer_replace(mn_file_writer *w, uint64_t at, const void *data, size_t n);
/* What a file was when it was looked at: one that was written to since, or that another has taken the place of, has another stamp. */
typedef struct mn_file_stamp {
  bool exists; /* else all is 0 */
  uint64_t device, inode, size;
  int64_t mtime_ns;
} mn_file_stamp;
/* Commit replaces nothing but the file of this stamp, or none (MN_ERR_IO); where that has gone it is made again. Then the stamp is of what
 * was written. It stays the caller's. */
void mn_file_writer_expect(mn_file_writer *w, mn_file_stamp *stamp);
mn_status mn_file_writer_commit(mn_file_writer *w);                    /* frees w in either case */
void mn_file_writer_abort(mn_file_writer *w);                          /* frees w (may be NULL); nothing is left on the disk */
mn_status mn_file_write(const char *path, const void *data, size_t n); /* open, append, commit */
mn_status mn_file_write_over(const char *path, const void *data, size_t n,
                             mn_file_stamp *stamp); /* the same, in the place of no other file */
bool mn_file_is_temp(const char *name);             /* is `name`, without directory, what such a temporary file is called? */
/* A second file with the same bytes; the file system may share the blocks, but neither file changes with the other. */
mn_status mn_file_copy(const char *from, const char *to);

/* ---- names and directories ---- (path.c; what is there: file.c) */
typedef struct mn_file_info {
  bool exists, is_dir, is_regular;
  uint64_t size;    /* bytes */
  int64_t mtime_ns; /* last change, nanoseconds since 1970 */
} mn_file_info;
/* A missing file is no error: exists is false. */
mn_status mn_file_stat(const char *path, mn_file_info *info);
bool mn_file_exists(const char *path);
mn_file_stamp mn_file_stamp_of(const char *path);
/* Is there a file, and another one than that of the stamp? */
bool mn_file_changed(const char *path, const mn_file_stamp *was);
/* Do two names mean one file, by whatever links and spellings? Of files that are not there: would they? */
bool mn_file_same(const char *a, const char *b);
mn_status mn_file_remove(const char *path);                  /* a missing file is no error */
mn_status mn_make_dirs(const char *path);                    /* with its parents; fine when it is there */
mn_status mn_make_dirs_counted(const char *path, int *made); /* the same; how many directories there were to be made */
/* The names in a directory without "." and "..", sorted by byte value. */
mn_status mn_dir_list(const char *path, char ***names, size_t *count);
void mn_dir_list_free(char **names, size_t count);
/* malloc'ed; NULL (message set) when out of memory. */
char *mn_path_join(const char *dir, const char *name); /* `name` itself when it is absolute or dir is "" */
char *mn_path_dir(const char *path);                   /* "." when there is no slash */
/* From the root, without links, `.` and `..`, as far as it is there; of the rest, that is not there yet, the names say where it would be. */
char *mn_path_real(const char *path);
const char *mn_path_base(const char *path); /* after the last slash, inside `path` */

/* ---- content hash: XXH3, 128 bits, as 32 hexadecimal digits. Finds changed files; it is no defence against forgery. */
enum { MN_HASH_HEX = 33 };
mn_status mn_file_hash(const char *path, char hex[MN_HASH_HEX]);
void mn_content_hash(const void *data, size_t n, char hex[MN_HASH_HEX]);
/* The same over pieces, one after the other. */
typedef struct mn_hasher mn_hasher;
mn_hasher *mn_hasher_new(void); /* NULL (message set) when out of memory */
void mn_hasher_add(mn_hasher *h, const void *data, size_t n);
void mn_hasher_take(mn_hasher *h, char hex[MN_HASH_HEX]); /* of all that was added; h begins anew */
void mn_hasher_free(mn_hasher *h);                        /* may be NULL */

#endif
