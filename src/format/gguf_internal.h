/* gguf_internal.h - what the reader's files share: an open file, and the names of its checksums. Two entries of the metadata,
 * both strings:
 *   mneme.checksums  the mn_content_hash of every tensor's bytes, 32 hexadecimal digits each, without a gap, in the order of
 *                    the file's list;
 *   mneme.header     the mn_content_hash of the file up to the end of its list of tensors, as it stands with the digit 0 in these
 *                    places.
 * Other programs read such a file as any other; one that rewrites it and keeps the metadata must drop these two entries. */
#ifndef MN_GGUF_INTERNAL_H
#define MN_GGUF_INTERNAL_H

#include "base/file.h"
#include "format/gguf.h"

#define MN_GGUF_SUMS "mneme.checksums"
#define MN_GGUF_SELF "mneme.header"
enum { MN_GGUF_DIGITS = 32, MN_GGUF_ALIGNMENT = 32 };

struct mn_gguf {
  mn_arena *arena;
  mn_map map; /* of a file that we opened; else empty */
  const char *path;
  const uint8_t *bytes; /* the whole file */
  size_t size, data_at; /* data_at: where the tensors' data begins */
  uint32_t version;
  size_t alignment;
  int count, meta_count;
  mn_gguf_tensor *tensors;
  const mn_gguf_tensor **by_name; /* sorted */
  mn_gguf_meta *metas;
  const mn_gguf_meta **by_key;     /* sorted */
  const mn_gguf_meta *sums, *self; /* checksums, of the tensors and of the header; NULL: none */
  char checksum[MN_HASH_HEX];      /* the header's */
  bool *held;                      /* tensors whose checksum was found to hold */
};

/* Bytes of one value of the kind; 0 for strings, arrays and what is no kind. */
size_t mn_gguf_kind_size(uint32_t kind);
/* Little-endian, unaligned. */
uint32_t mn_gguf_load32(const uint8_t *p);
uint64_t mn_gguf_load64(const uint8_t *p);

#endif
