/* types.h - element types and shapes: the plain words that graphs, kernels and file formats share. */
#ifndef MN_TYPES_H
#define MN_TYPES_H

#include "base/base.h"

enum { MN_MAX_DIMS = 8 };

/* Up to MN_DTYPES: what graphs compute with. Behind it: types of storage, in which parameters may be kept and read (graph/stored.h), and
 * nothing is computed. All but f16 and bf16 are of blocks: so many values along the last axis, as blocks.h lays them out. */
typedef enum mn_dtype {
  MN_F32,
  MN_F64,
  MN_BF16,
  MN_I32,
  MN_I64,
  MN_BOOL,
  MN_DTYPES,
  MN_F16,
  MN_STORED_BF16, /* bf16 as a file has it; MN_BF16 is what graphs compute with */
  MN_Q4_0,
  MN_Q4_1,
  MN_Q5_0,
  MN_Q5_1,
  MN_Q8_0,
  MN_Q2_K,
  MN_Q3_K,
  MN_Q4_K,
  MN_Q5_K,
  MN_Q6_K,
  MN_IQ4_NL,
  MN_IQ4_XS,
  MN_MXFP4,
  MN_ALL_TYPES
} mn_dtype;

const char *mn_dtype_name(mn_dtype t);        /* "f32", "q4_k" ...                                       */
size_t mn_dtype_size(mn_dtype t);             /* bytes of one element; 0 for types of blocks              */
int64_t mn_block_values(mn_dtype t);          /* values of one block; 1 for types without blocks          */
size_t mn_block_bytes(mn_dtype t);            /* bytes of one block, or of one element                    */
size_t mn_dtype_bytes(mn_dtype t, int64_t n); /* of n elements, a multiple of the block                   */
size_t mn_dtype_align(mn_dtype t);            /* what an element's or a block's address is a multiple of */
static inline bool mn_dtype_is_stored(mn_dtype t) { return t > MN_DTYPES && t < MN_ALL_TYPES; }
/* The type that says the same of a value and is not one of storage, where there is one; and the other way round. */
static inline mn_dtype mn_dtype_plain(mn_dtype t) { return t == MN_STORED_BF16 ? MN_BF16 : t; }
static inline mn_dtype mn_dtype_stored(mn_dtype t) { return t == MN_BF16 ? MN_STORED_BF16 : t; }
/* What sums of values of type t are computed in: f64 for f64, else f32. */
static inline mn_dtype mn_inner_type(mn_dtype t) { return t == MN_F64 ? MN_F64 : MN_F32; }
static inline bool mn_dtype_is_float(mn_dtype t) { return t == MN_F32 || t == MN_F64 || t == MN_BF16; }

typedef struct mn_shape {
  int ndim;
  int64_t dim[MN_MAX_DIMS];
} mn_shape;

#define MN_SHAPE(...) mn_shape_of((int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (int64_t[]){__VA_ARGS__})
mn_shape mn_shape_of(int ndim, const int64_t *dim);
int64_t mn_shape_count(const mn_shape *s); /* product of the dimensions; 1 for a scalar */
size_t mn_shape_bytes(const mn_shape *s, mn_dtype t);
/* Whether a tensor of that shape can be kept in a type: of blocks, its last axis is a multiple of the block. */
bool mn_shape_holds(const mn_shape *s, mn_dtype t);
bool mn_shape_equal(const mn_shape *a, const mn_shape *b);
const char *mn_shape_str(const mn_shape *s, char buf[96]); /* "[2, 3]" */

#endif
