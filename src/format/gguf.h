/* gguf.h - GGUF files (versions 2 and 3, little-endian): metadata by key, and tensors whose rows may lie in blocks of few
 * bits. What the blocks of a type mean is the business of format/quant.h.
 *
 * The reader trusts nothing: magic, version, every count, length, type, shape, alignment and offset is checked against what
 * the file can hold before anything is looked at or asked for on its word. Tensors do not overlap and lie inside the file;
 * between them is padding alone. Files that we write carry checksums as our safetensors files do; files of other programs
 * have none and are taken as they are. */
#ifndef MN_GGUF_H
#define MN_GGUF_H

#include "base/text.h"
#include "base/types.h"

/* ---- types of tensors ---- the numbers are the format's */
typedef enum mn_gguf_type {
  MN_GGUF_F32 = 0,
  MN_GGUF_F16 = 1,
  MN_GGUF_Q4_0 = 2,
  MN_GGUF_Q4_1 = 3,
  MN_GGUF_Q5_0 = 6,
  MN_GGUF_Q5_1 = 7,
  MN_GGUF_Q8_0 = 8,
  MN_GGUF_Q2_K = 10,
  MN_GGUF_Q3_K = 11,
  MN_GGUF_Q4_K = 12,
  MN_GGUF_Q5_K = 13,
  MN_GGUF_Q6_K = 14,
  MN_GGUF_IQ4_NL = 20,
  MN_GGUF_IQ4_XS = 23,
  MN_GGUF_I8 = 24,
  MN_GGUF_I16 = 25,
  MN_GGUF_I32 = 26,
  MN_GGUF_I64 = 27,
  MN_GGUF_F64 = 28,
  MN_GGUF_BF16 = 30,
  MN_GGUF_MXFP4 = 39,
} mn_gguf_type;

typedef struct mn_gguf_type_info {
  mn_gguf_type type;
  const char *name; /* "Q4_K" */
  int block;        /* elements of a block; 1 for plain numbers */
  int bytes;        /* of a block */
  mn_dtype dtype;   /* the same type as the rest of Mneme calls it; MN_DTYPES for I8 and I16, which it has not */
} mn_gguf_type_info;

const mn_gguf_type_info *mn_gguf_type_find(uint32_t type); /* NULL: none that Mneme reads */
const mn_gguf_type_info *mn_gguf_type_at(int i);           /* all of them in turn; NULL after the last */
const mn_gguf_type_info *mn_gguf_type_of(mn_dtype dtype);  /* NULL: none, as for bool */
/* By name, in capitals or not ("q4_k"); a wrong one is MN_ERR_ARG with the nearest. */
mn_status mn_gguf_type_named(const char *name, const mn_gguf_type_info **out);

/* ---- reading ---- */
typedef struct mn_gguf mn_gguf;

typedef struct mn_gguf_tensor {
  const char *name;
  const mn_gguf_type_info *type;
  mn_shape shape;   /* row-major, the last dimension fastest: the other way round than the file's list */
  const void *data; /* rows of blocks, each aligned to 8 bytes when the bytes of the file are; ask mn_gguf_check first */
  size_t bytes;
  char checksum[33]; /* mn_content_hash of the data as the file says it; "": the file has none */
} mn_gguf_tensor;

mn_status mn_gguf_open(const char *path, mn_gguf **out); /* maps the file; close it after the last use of its data */
/* The same over bytes that the caller keeps alive, aligned to 8; `name` is used in messages. */
mn_status mn_gguf_open_bytes(const char *name, const void *data, size_t n, mn_gguf **out);
void mn_gguf_close(mn_gguf *g); /* may be NULL */
const char *mn_gguf_path(const mn_gguf *g);
uint32_t mn_gguf_version(const mn_gguf *g);
/* Is this what a GGUF file begins with? */
bool mn_gguf_is(const void *data, size_t n);
/* Stands for the whole file: the header's checksum, which covers the tensors' checksums. NULL: the file has none. */
const char *mn_gguf_checksum(const mn_gguf *g);
size_t mn_gguf_alignment(const mn_gguf *g); /* of the tensors' data */

int mn_gguf_count(const mn_gguf *g);
const mn_gguf_tensor *mn_gguf_at(const mn_gguf *g, int i);              /* in the order of the file's list */
const mn_gguf_tensor *mn_gguf_find(const mn_gguf *g, const char *name); /* NULL when absent */
/* The tensor's data is what was written (MN_OK without a look when there is no checksum, or it held before). */
mn_status mn_gguf_check(const mn_gguf *g, const mn_gguf_tensor *t);
/* The file is still what was opened: MN_ERR_IO, by name, when it was cut short or written to since (file.h). Whoever uses data
 * where it lies asks after each use, and before what came of it counts. */
mn_status mn_gguf_intact(const mn_gguf *g);

/* ---- metadata ---- the numbers are the format's */
typedef enum mn_gguf_kind {
  MN_GGUF_UINT8,
  MN_GGUF_INT8,
  MN_GGUF_UINT16,
  MN_GGUF_INT16,
  MN_GGUF_UINT32,
  MN_GGUF_INT32,
  MN_GGUF_FLOAT32,
  MN_GGUF_BOOL,
  MN_GGUF_STRING,
  MN_GGUF_ARRAY,
  MN_GGUF_UINT64,
  MN_GGUF_INT64,
  MN_GGUF_FLOAT64,
  MN_GGUF_KINDS
} mn_gguf_kind;

const char *mn_gguf_kind_name(mn_gguf_kind kind);

typedef struct mn_gguf_meta { /* one entry */
  const char *key;
  mn_gguf_kind kind;
  mn_gguf_kind of;     /* of an array: its elements' kind; else the same as kind */
  size_t count;        /* of an array: elements; of a string: bytes; else 1 */
  const uint8_t *data; /* little-endian, unaligned. A string's bytes; an array's elements, strings each with its length before it */
  size_t bytes;
} mn_gguf_meta;

int mn_gguf_meta_count(const mn_gguf *g);
const mn_gguf_meta *mn_gguf_meta_at(const mn_gguf *g, int i);             /* in the order of the file */
const mn_gguf_meta *mn_gguf_meta_find(const mn_gguf *g, const char *key); /* NULL when absent */
/* Appends the value as a person reads it: the first `most` elements of an array, the first `width` bytes of a string. */
void mn_gguf_meta_show(const mn_gguf_meta *m, int most, size_t width, mn_text *out);

/* Values by key. `otherwise` is what an absent key means; NULL: the key must be there. A missing key and a value of another
 * kind are messages that name the file, the key and what was expected. Any integer serves where it fits, either float for a float. */
mn_status mn_gguf_u32(const mn_gguf *g, const char *key, const uint32_t *otherwise, uint32_t *out);
mn_status mn_gguf_u64(const mn_gguf *g, const char *key, const uint64_t *otherwise, uint64_t *out);
mn_status mn_gguf_i64(const mn_gguf *g, const char *key, const int64_t *otherwise, int64_t *out);
mn_status mn_gguf_f64(const mn_gguf *g, const char *key, const double *otherwise, double *out);
mn_status mn_gguf_f32(const mn_gguf *g, const char *key, const float *otherwise, float *out);
mn_status mn_gguf_bool(const mn_gguf *g, const char *key, const bool *otherwise, bool *out);
/* Zero-terminated, in the arena (otherwise is handed on as it is). A string with a zero byte inside is refused. */
mn_status mn_gguf_string(const mn_gguf *g, const char *key, const char *otherwise, mn_arena *arena, const char **out);

/* Arrays, into the arena; the bytes of an array's strings stay in the file, may hold anything, and end with no zero. An absent key is
 * refused: ask mn_gguf_meta_find where it is optional. Ints and floats take a single number for a list of one, ints also truth values. */
typedef struct mn_gguf_bytes {
  const char *data;
  size_t n;
} mn_gguf_bytes;
mn_status mn_gguf_strings(const mn_gguf *g, const char *key, mn_arena *arena, const mn_gguf_bytes **out, size_t *n);
mn_status mn_gguf_ints(const mn_gguf *g, const char *key, mn_arena *arena, const int64_t **out, size_t *n);
mn_status mn_gguf_floats(const mn_gguf *g, const char *key, mn_arena *arena, const float **out, size_t *n);

/* ---- writing ---- the list first, then everything at once through mn_file_writer: whole or not at all. The same list gives the
 * same bytes. Version 3; tensors lie in the order they were added, aligned to general.alignment where that was given, else to 32. */
typedef struct mn_gguf_writer mn_gguf_writer;
/* Puts bytes [offset, offset + n) of the tensor into dst; both ends are ends of blocks. */
typedef mn_status (*mn_gguf_source)(void *ctx, size_t offset, size_t n, void *dst);

mn_gguf_writer *mn_gguf_writer_new(void);
void mn_gguf_writer_free(mn_gguf_writer *w);
/* Metadata; keys and values are copied. A key given twice is refused. */
mn_status mn_gguf_writer_u32(mn_gguf_writer *w, const char *key, uint32_t value);
mn_status mn_gguf_writer_u64(mn_gguf_writer *w, const char *key, uint64_t value);
mn_status mn_gguf_writer_i32(mn_gguf_writer *w, const char *key, int32_t value);
mn_status mn_gguf_writer_f32(mn_gguf_writer *w, const char *key, float value);
mn_status mn_gguf_writer_bool(mn_gguf_writer *w, const char *key, bool value);
mn_status mn_gguf_writer_string(mn_gguf_writer *w, const char *key, const char *value);
mn_status mn_gguf_writer_strings(mn_gguf_writer *w, const char *key, const mn_gguf_bytes *values, size_t n);
mn_status mn_gguf_writer_i32s(mn_gguf_writer *w, const char *key, const int32_t *values, size_t n);
mn_status mn_gguf_writer_f32s(mn_gguf_writer *w, const char *key, const float *values, size_t n);
mn_status mn_gguf_writer_bools(mn_gguf_writer *w, const char *key, const bool *values, size_t n);
mn_status mn_gguf_writer_copy(mn_gguf_writer *w, const mn_gguf_meta *m); /* an entry of another file, as it is there */
/* Name and shape are copied; `data` must stay valid until the file is saved. */
mn_status mn_gguf_writer_add(mn_gguf_writer *w, const char *name, mn_gguf_type type, const mn_shape *shape, const void *data);
mn_status mn_gguf_writer_add_source(mn_gguf_writer *w, const char *name, mn_gguf_type type, const mn_shape *shape, mn_gguf_source source,
                                    void *ctx);
mn_status mn_gguf_writer_save(mn_gguf_writer *w, const char *path);

#endif
