/* gguf_internal.h - what the reader's files share: an open file, and its checksums. Files of ours have them behind the tensors' data, at the
 * next multiple of the alignment:
 *   16 bytes   "mneme checksums" and a zero
 *    8 bytes   the number of tensors
 *   32 each    hexadecimal digits: the mn_content_hash of every tensor's bytes, in the order of the file's list
 *   32 bytes   that of the file up to the end of its list of tensors, followed by all that stands before these digits here
 * Other programs read such a file as any other, and one that writes it anew leaves them behind. */
#ifndef MN_GGUF_INTERNAL_H
#define MN_GGUF_INTERNAL_H

#include "base/file.h"
#include "format/gguf.h"

#define MN_GGUF_SUMS "mneme checksums" /* with the zero that ends it: 16 bytes */
enum { MN_GGUF_DIGITS = 32, MN_GGUF_SUMS_HEAD = 24, MN_GGUF_ALIGNMENT = 32 };

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
  const mn_gguf_meta **by_key; /* sorted */
  const uint8_t *sums;         /* the checksums; NULL: none */
  char checksum[MN_HASH_HEX];  /* that of the header */
  bool *held;                  /* tensors whose checksum was found to hold */
};

/* Bytes of one value of the kind; 0 for strings, arrays and what is no kind. */
size_t mn_gguf_kind_size(uint32_t kind);
/* Little-endian, unaligned. */
uint32_t mn_gguf_load32(const uint8_t *p);
uint64_t mn_gguf_load64(const uint8_t *p);

#endif
