/* safetensors_sums.h - checksums in a safetensors file (private to the reader and the writer). Two entries of the metadata:
 *   mneme.checksums  the mn_content_hash of every tensor's bytes in the file, 32 hexadecimal digits each, without a gap, in
 *                    the order of the data;
 *   mneme.header     the mn_content_hash of the header's JSON text, as it stands with zeros in place of these 32 digits.
 * So every bit behind the first 8 bytes is covered (and those 8 say how long the header is). Other programs read such a
 * file as any other; one that rewrites it and keeps the metadata must drop these two entries. */
#ifndef MN_SAFETENSORS_SUMS_H
#define MN_SAFETENSORS_SUMS_H

#include "format/safetensors.h"

#define MN_ST_SUMS "mneme.checksums"
#define MN_ST_SELF "mneme.header"
enum { MN_ST_DIGITS = 32 };

/* No checksum, or one that was found to hold before. */
bool mn_st_settled(const mn_st *st, const mn_st_tensor *t);
/* `hex` is what the data gave; settles the tensor when that is its checksum. */
mn_status mn_st_compare(const mn_st *st, const mn_st_tensor *t, const char *hex);

#endif
