/* json.h - JSON in and out of value trees. jansson decides what is JSON; duplicate keys, NUL characters and integers
 * beyond 64 bits are refused. */
#ifndef MN_JSON_H
#define MN_JSON_H

#include "base/file.h"
#include "format/value.h"

/* `file` names the text in messages. The tree lives in `arena`. */
mn_status mn_json_parse(mn_arena *arena, const char *file, const char *text, size_t n, const mn_value **out);
/* A file of at most 8 MiB. A checksum at the end of a map is checked and taken off (seal.h); *sealed: there was one. */
mn_status mn_json_read(mn_arena *arena, const char *path, const mn_value **out);
mn_status mn_json_read_sealed(mn_arena *arena, const char *path, const mn_value **out, bool *sealed);
/* Whole or not at all, indented, a map with its checksum. MN_ERR_CONFIG: it would be longer than what is read. */
mn_status mn_json_write(const char *path, const mn_value *v);
/* The same, in the place of no other file than that of the stamp (mn_file_writer_expect). */
mn_status mn_json_write_over(const char *path, const mn_value *v, mn_file_stamp *stamp);
/* Could it be written there? Of the file's length; nothing is written. */
mn_status mn_json_try(const char *path, const mn_value *v);

/* Appends the string with its quotes; `s` is valid UTF-8. */
void mn_json_quote(mn_text *out, const char *s);
void mn_json_real(mn_text *out, double d); /* finite; shortest form that reads back the same, always with '.' or 'e' */

#endif
