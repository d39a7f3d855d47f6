/* safetensors.h - named tensors in one file (huggingface.co/docs/safetensors): 8 bytes with the header's length, a JSON
 * header, the data. Model checkpoints, sessions, inputs and outputs of `mneme apply` are all such files.
 *
 * The reader trusts nothing: every length, offset, type and shape is checked before a tensor is handed out, as in the
 * reference implementation (no overlap, no hole, nothing after the last tensor). Files that we write carry checksums, one
 * for each tensor and one for the header: opening checks the header's, reading a tensor its own, once. Files of other
 * programs have none and are taken as they are. */
#ifndef MN_SAFETENSORS_H
#define MN_SAFETENSORS_H

#include "base/file.h"
#include "base/types.h"

/* ---- reading ---- */
typedef struct mn_st mn_st;

typedef struct mn_st_tensor {
  const char *name;
  mn_dtype dtype;         /* MN_DTYPES for a type that graphs do not compute with (F16, U8, ...) */
  const char *file_dtype; /* as the file spells it: "BF16" */
  mn_shape shape;
  const void *data; /* row-major, little-endian; may be unaligned: use mn_st_read, or mn_st_check before looking at it */
  size_t bytes;
  char checksum[33]; /* mn_content_hash of the data as the file says it; "": the file has none */
} mn_st_tensor;

mn_status mn_st_open(const char *path, mn_st **out); /* maps the file; close it after the last use of its data */
/* The same over bytes that the caller keeps alive; `name` is used in messages. */
mn_status mn_st_open_bytes(const char *name, const void *data, size_t n, mn_st **out);
void mn_st_close(mn_st *st); /* may be NULL */
const char *mn_st_path(const mn_st *st);
/* Stands for the whole file: the header's checksum, which covers the tensors' checksums. NULL: the file has none. */
const char *mn_st_checksum(const mn_st *st);

int mn_st_count(const mn_st *st);
const mn_st_tensor *mn_st_at(const mn_st *st, int i);              /* in the order of the data */
const mn_st_tensor *mn_st_find(const mn_st *st, const char *name); /* NULL when absent */
/* As mn_st_find, but a missing tensor, or a shape other than `shape` (NULL: any), is a message that names them. */
mn_status mn_st_need(const mn_st *st, const char *name, const mn_shape *shape, const mn_st_tensor **out);
/* Refuses a tensor that is none of `names`, with the nearest one and `what` they are: a misspelt one would be passed over. */
mn_status mn_st_only(const mn_st *st, const char *const *names, int n, const char *what);
/* Copies a tensor to `dst` as `dtype`. Floats (F16 too) convert among each other, rounding to nearest even; integers and
 * BOOL among each other when every value fits; anything else is refused, as is data that does not match its checksum: dst
 * then holds nothing of use. */
mn_status mn_st_read(const mn_st *st, const mn_st_tensor *t, mn_dtype dtype, void *dst);
/* The same, and a NaN or an infinity is MN_ERR_NUMERIC: the message names tensor and element. */
mn_status mn_st_read_finite(const mn_st *st, const mn_st_tensor *t, mn_dtype dtype, void *dst);
/* The same for what does not go to host memory: `put` is given the bytes piece by piece, in order. Reading different tensors
 * in different threads at once is fine. */
typedef mn_status (*mn_st_sink)(void *ctx, size_t offset, size_t n, const void *bytes);
mn_status mn_st_read_to(const mn_st *st, const mn_st_tensor *t, mn_dtype dtype, bool finite, mn_st_sink put, void *ctx);
/* The tensor's data is what was written (MN_OK without a look when there is no checksum, or it held before). */
mn_status mn_st_check(const mn_st *st, const mn_st_tensor *t);

/* The file is still what was opened: MN_ERR_IO, by name, when it was cut short or written to since (file.h). Whoever uses data where
 * it lies asks after each use, and before what came of it counts. */
mn_status mn_st_intact(const mn_st *st);

/* The metadata without checksums: text by key. */
int mn_st_meta_count(const mn_st *st);
const char *mn_st_meta_key(const mn_st *st, int i);
const char *mn_st_meta_value(const mn_st *st, int i);
const char *mn_st_meta(const mn_st *st, const char *key); /* NULL when absent */

/* ---- writing ---- the list first, then everything at once through mn_file_writer: whole or not at all. The same list
 * gives the same bytes. */
typedef struct mn_st_writer mn_st_writer;
/* Puts bytes [offset, offset + n) of the tensor into dst: for data that is not in one piece of host memory. */
typedef mn_status (*mn_st_source)(void *ctx, size_t offset, size_t n, void *dst);

mn_st_writer *mn_st_writer_new(void);
void mn_st_writer_free(mn_st_writer *w);
mn_status mn_st_writer_meta(mn_st_writer *w, const char *key, const char *value); /* copied */
/* Name and shape are copied; `data` must stay valid until the file is saved. MN_DTYPES: bytes (U8). */
mn_status mn_st_writer_add(mn_st_writer *w, const char *name, mn_dtype dtype, const mn_shape *shape, const void *data);
mn_status mn_st_writer_add_source(mn_st_writer *w, const char *name, mn_dtype dtype, const mn_shape *shape, mn_st_source source, void *ctx);
mn_status mn_st_writer_save(mn_st_writer *w, const char *path);
/* The same in place of the file of this stamp alone (mn_file_writer_expect); NULL: of any. */
mn_status mn_st_writer_save_over(mn_st_writer *w, const char *path, mn_file_stamp *stamp);
const char *mn_st_writer_checksum(const mn_st_writer *w); /* mn_st_checksum of the file that was saved last */

#endif
